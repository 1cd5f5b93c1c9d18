//! Rules that read an image's manifest and configuration (`context[].imageRegistry`), on real registries:
//! through `verify`, `apply` and pulls alike.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::kit::{self, Node, Space, gate::Gate, image::Image, ran::Ran, registry::Registry};

kit::on_each_containerd!(
    s3_image_that_runs_as_root_is_refused,
    index_is_read_as_this_machine_takes_it,
    image_that_is_not_there_or_cannot_be_asked_for_is_undecided,
);

/// Images that are signed, and do not run as root: the second rule counts for those that do, and no image
/// passes it. `image` is what that rule reads.
fn policy(node: &Node, space: &Space<'_>, image: &str) -> Value {
    let mut document = space.policy("check").key(node.key).document();
    let rules = document["spec"]["rules"].as_array_mut().unwrap();
    let mut rule = rules[0].clone();
    rule["name"] = json!("not-root");
    rule["context"] = json!([{ "name": "data", "imageRegistry": { "reference": image } }]);
    rule["preconditions"] = json!({ "any": [{
        "key": "{{ data.configData.config.User || 'root' }}", "operator": "AnyIn", "value": ["root", "0", "0:0"],
    }] });
    rule["verifyImages"][0].as_object_mut().unwrap().remove("attestors");
    rules.push(rule);
    document
}

/// The judged image.
const OWN: &str = "{{ image.reference }}";

/// `pullgate verify` on one image.
fn verify(policy: &Value, image: &str) -> Ran {
    run(policy, "verify", &[image])
}

fn run(policy: &Value, command: &str, arguments: &[&str]) -> Ran {
    let folder = kit::folder();
    fs::write(folder.join("policy.yaml"), policy.to_string()).unwrap();
    let mut pullgate = Command::new(env!("CARGO_BIN_EXE_pullgate"));
    pullgate.arg(command).arg("-p").arg(folder.join("policy.yaml")).args(arguments);
    Ran::from(pullgate.env_remove("DOCKER_CONFIG").env("HOME", &folder).output().unwrap())
}

fn gate(node: &Node, policy: &Value) -> Gate {
    let gate = Gate::start(&node.containerd, &[]);
    gate.write_policy_text(&policy.to_string());
    gate.reload();
    gate
}

fn s3_image_that_runs_as_root_is_refused(node: &Node) {
    let space = node.space();
    let [app, root] =
        [("app", "1000"), ("root", "root")].map(|(name, user)| space.image(name).user(user).push("1"));
    let unsaid = space.image("unsaid").push("1");
    [&app, &root, &unsaid].into_iter().for_each(|image| node.key.sign(image));
    let policy = policy(node, &space, OWN);
    let refused = |image: &Image| format!("{}: denied: check/not-root: unverified image", image.by_tag());

    let ran = verify(&policy, &app.by_tag());
    assert!(
        ran.code == 0 && ran.stdout.starts_with(&format!("{}: allowed (verified)", app.by_tag())),
        "{ran:?}"
    );
    for image in [&root, &unsaid] {
        let ran = verify(&policy, &image.by_tag());
        assert!(ran.code == 1 && ran.stdout.starts_with(&refused(image)), "{ran:?}");
    }

    let pods = kit::folder().join("pods.yaml");
    let pod = |image: &Image| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c", "image": image.by_tag() }] },
        })
    };
    fs::write(&pods, format!("{}\n---\n{}\n", pod(&app), pod(&root))).unwrap();
    let ran = run(&policy, "apply", &["-r", pods.to_str().unwrap()]);
    let lines = [
        format!("Pod/default/p: check/signed: pass: verified image signatures for {}", app.by_tag()),
        "Pod/default/p: check/not-root: skip: preconditions not met".to_owned(),
        format!("Pod/default/p: check/signed: pass: verified image signatures for {}", root.by_tag()),
        format!("Pod/default/p: check/not-root: fail: unverified image {}", root.by_tag()),
        "pass: 2, fail: 1, warn: 0, error: 0, skip: 1".to_owned(),
    ];
    assert_eq!((ran.code, ran.lines()), (1, lines.iter().map(String::as_str).collect()), "{ran:?}");

    let gate = gate(node, &policy);
    assert_eq!(gate.cri().pull(app.by_tag()).expect(), app.id);
    assert_eq!(node.containerd.record(&app.by_tag()), Some(app.digest.clone()));
    assert_eq!(gate.cri().present(app.by_tag()).id, app.id);
    let refusal = gate.cri().pull(root.by_tag()).expect_refusal();
    let words = format!("SignatureValidationFailed: {}: check/not-root: unverified image", root.by_tag());
    assert_eq!(refusal.message(), words);
    let status = gate.status_json();
    assert_eq!(status["pullOnlyRules"], json!(["check/not-root"]), "{status}");
}

fn index_is_read_as_this_machine_takes_it(node: &Node) {
    let space = node.space();
    let [app, root] =
        [("app", "1000"), ("root", "0")].map(|(name, user)| space.image(name).user(user).push("1"));
    let of = |here: &Image, there: &Image, tag: &str| {
        let index = space.image("index").push_index_of(tag, [here, there]);
        node.key.sign(&index);
        index
    };
    let (good, bad) = (of(&app, &root, "good"), of(&root, &app, "bad"));
    let policy = policy(node, &space, OWN);
    for (image, code) in [(&good, 0), (&bad, 1)] {
        let ran = verify(&policy, &image.by_tag());
        assert_eq!(ran.code, code, "{ran:?}");
    }
    let gate = gate(node, &policy);
    assert_eq!(gate.cri().pull(good.by_tag()).expect(), app.id);
    gate.cri().pull(bad.by_tag()).expect_refusal();
}

fn image_that_is_not_there_or_cannot_be_asked_for_is_undecided(node: &Node) {
    let (space, elsewhere) = (node.space(), Registry::olareg());
    let image = space.image("app").user("1000").push("1");
    node.key.sign(&image);
    let base = elsewhere.image("base").user("1000").push("1");
    let reading = "check/not-root: failed to load context: failed to fetch image descriptor:";

    let missing = space.repository("missing:1");
    let ran = verify(&policy(node, &space, &missing), &image.by_tag());
    let words = format!(
        "{}: undecided: {reading} {missing}, error: {missing}: registry answered 404",
        image.by_tag()
    );
    assert!(ran.code == 3 && ran.stdout.starts_with(&words), "{ran:?}");

    let policy = policy(node, &space, &base.by_tag());
    assert_eq!(verify(&policy, &image.by_tag()).code, 0);
    let gate = gate(node, &policy);
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    elsewhere.stop();
    // A connection that was kept fails, a new one is refused.
    let words = format!("{reading} {}: connection ", base.by_tag());
    let ran = verify(&policy, &image.by_tag());
    assert!(
        ran.code == 3 && ran.stdout.starts_with(&format!("{}: undecided: {words}", image.by_tag())),
        "{ran:?}"
    );
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    let words = format!("RegistryUnavailable: {}: {words}", image.by_tag());
    assert!(refusal.message().starts_with(&words), "{refusal}");
    // What a pull was let have stays.
    assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
}
