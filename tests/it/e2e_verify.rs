//! `pullgate verify` on real registries and signatures: verdicts, exit codes, texts and JSON.

use std::process::{Command, Output};

use serde_json::Value;

use crate::kit::{
    Node, Space, folder, on_each_containerd,
    proxy::{Action, Proxy},
    registry::Registry,
};

on_each_containerd!(
    verify_says_what_a_pull_would,
    verify_speaks_json_with_a_version,
    verify_explains_each_signature,
    verify_cannot_find_out_without_a_registry,
    verify_says_would_deny_for_audit_rules,
    verify_asks_no_more_than_each_kind_of_signature_needs,
);

/// A policy file with `policies`, and `pullgate verify -p` on it.
fn verify(policies: &[crate::kit::policy::Policy], arguments: &[&str]) -> Output {
    let file = folder().join("policies.yaml");
    let text: String = policies.iter().map(|policy| format!("---\n{:#}\n", policy.document())).collect();
    std::fs::write(&file, text).expect("a policy file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullgate"));
    command.arg("verify").arg("-p").arg(file).args(arguments).env_remove("DOCKER_CONFIG");
    command.output().expect("pullgate")
}

fn line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn verify_says_what_a_pull_would(node: &Node) {
    for registry in [Registry::olareg(), Registry::docker()] {
        let space = Space::on(&registry);
        let [legacy, bundle, unsigned, theirs] =
            ["legacy", "bundle", "unsigned", "theirs"].map(|name| space.image(name).push("1"));
        node.key.sign_legacy(&legacy, &[], None);
        node.key.sign_bundle(&bundle);
        node.other_key.sign(&theirs);
        let policy = space.policy("keyed").key(node.key);
        for (image, code, words) in [
            (&legacy, 0, "allowed (verified)"),
            (&bundle, 0, "allowed (verified)"),
            (&unsigned, 1, "denied: keyed/signed: signature not found"),
            (&theirs, 1, "denied: keyed/signed: invalid signature"),
        ] {
            let name = image.by_tag();
            let output = verify(std::slice::from_ref(&policy), &[name.as_str()]);
            assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
            assert!(line(&output).starts_with(&format!("{name}: {words}")), "{output:?}");
        }
        let all = [&legacy, &unsigned].map(|image| image.by_tag());
        let output = verify(&[policy], &[all[0].as_str(), all[1].as_str()]);
        assert_eq!((output.status.code(), line(&output).lines().count()), (Some(1), 2), "{output:?}");
    }
}

/// Each request needs the answer of the one before, so these are the sequential steps too.
fn verify_asks_no_more_than_each_kind_of_signature_needs(node: &Node) {
    let proxy = Proxy::before(node.registry, |_| Action::Pass);
    let space = node.space().through(&proxy);
    let [plain, annotated, bundle] =
        ["plain", "annotated", "bundle"].map(|name| space.name(&space.image(name).push("1")));
    node.key.sign(&plain);
    node.key.sign_legacy(&annotated, &[("env", "prod")], None);
    node.key.sign_bundle(&bundle);
    let keyed = space.policy("keyed").key(node.key);
    let bundles = keyed.clone().bundles_only();
    for (image, policy, wanted) in [
        // The list of signatures; cosign's payload without annotations follows from the image.
        (&plain, &keyed, 1),
        // That list, the payload.
        (&annotated, &keyed, 2),
        // The list of referrers, the referrer, the bundle.
        (&bundle, &bundles, 3),
        // Where either form counts, the list of signatures first.
        (&bundle, &keyed, 4),
    ] {
        // A tag is resolved first.
        for (name, wanted) in [(image.by_digest(), wanted), (image.by_tag(), wanted + 1)] {
            let before = proxy.seen().len();
            let output = verify(std::slice::from_ref(policy), &[&name]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let asked: Vec<_> = proxy.seen().iter().skip(before).map(|seen| seen.path.clone()).collect();
            assert_eq!(asked.len(), wanted, "{name}: {asked:?}");
        }
    }
}

fn verify_speaks_json_with_a_version(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let output = verify(&[space.policy("keyed").key(node.key)], &[image.by_tag().as_str(), "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["schemaVersion"], 1);
    let verdict = &json["images"][0];
    assert_eq!(verdict["verdict"], "allowed");
    assert_eq!(verdict["digest"], image.digest.to_string());
    assert_eq!(verdict["rules"][0], "keyed/signed");
}

fn verify_explains_each_signature(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.other_key.sign_legacy(&image, &[], None);
    let output = verify(&[space.policy("keyed").key(node.key)], &[image.by_tag().as_str(), "--explain"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = line(&output);
    assert!(
        text.contains("verifyImages[0].attestors[0].entries[0].keys: not satisfied, 1 signatures"),
        "{text}"
    );
    assert!(text.contains(&format!("failed to verify image {}: .attestors[0]", image.by_tag())), "{text}");
}

fn verify_cannot_find_out_without_a_registry(node: &Node) {
    let registry = Registry::olareg();
    let space = Space::on(&registry);
    let image = space.image("app").push("1");
    registry.stop();
    let output = verify(&[space.policy("keyed").key(node.key)], &[image.by_tag().as_str()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(line(&output).contains("undecided: "), "{output:?}");
}

fn verify_says_would_deny_for_audit_rules(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let policy = space.policy("keyed").key(node.key).audit();
    let output = verify(std::slice::from_ref(&policy), &[image.by_tag().as_str()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(line(&output).contains("would deny: keyed/signed: signature not found"), "{output:?}");
    let output = verify(&[policy], &[image.by_tag().as_str(), "--fail-on-audit"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
