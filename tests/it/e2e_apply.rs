//! `pullgate apply` on files as people write them. Images are judged on a real registry with real
//! signatures; what asks no registry needs no tool and runs everywhere.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::kit::{self, Space, cosign::Key, image::Image, ran::Ran, registry::Registry};

/// Of nothing in particular: an image that nobody has to be asked about.
const PINNED: &str =
    "127.0.0.1:1/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A folder with a policy file and resources.
struct Files(PathBuf);

impl Files {
    fn new(policies: &[Value]) -> Self {
        let folder = kit::folder();
        let text: String = policies.iter().map(|policy| format!("---\n{policy:#}\n")).collect();
        fs::write(folder.join("policies.yaml"), text).unwrap();
        fs::create_dir(folder.join("resources")).unwrap();
        Self(folder)
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.resources().join(name), text).unwrap();
        self
    }

    fn resources(&self) -> PathBuf {
        self.0.join("resources")
    }

    /// `apply` on all of them.
    fn apply(&self, arguments: &[&str]) -> Ran {
        let resources = self.resources();
        self.apply_on(&resources, "", arguments)
    }

    fn apply_on(&self, resources: &Path, input: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pullgate"));
        command.arg("apply").arg("-p").arg(self.0.join("policies.yaml")).arg("-r").arg(resources);
        command.args(arguments).env_remove("DOCKER_CONFIG").env("HOME", &self.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("pullgate");
        // A run that reads nothing may have ended already.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes())));
        Ran::from(child.wait_with_output().expect("pullgate"))
    }
}

/// A policy of one rule about pods; `entry` is all that its verifyImages entry says beside the images.
fn policy(action: &str, entry: Value) -> Value {
    let mut verify = json!({ "imageReferences": ["*"] });
    verify.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "check" },
        "spec": { "validationFailureAction": action, "rules": [{
            "name": "rule", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [verify] }] },
    })
}

/// Nothing is asked of an image: whatever has a digest passes.
fn lenient(action: &str) -> Value {
    policy(action, json!({ "required": false }))
}

/// No image passes.
fn strict(action: &str) -> Value {
    policy(action, json!({ "mutateDigest": false, "required": true }))
}

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: app\n    image: {image}\n"
    )
}

// Without any tool.

#[test]
fn apply_prints_results_by_resource_and_rule() {
    let files = Files::new(&[strict("Enforce")]).with("pod.yaml", &pod("web", PINNED));
    let ran = files.apply(&[]);
    let expected = format!("Pod/default/web: check/rule: fail: unverified image {PINNED}");
    assert_eq!(ran.lines(), [expected.as_str(), "pass: 0, fail: 1, warn: 0, error: 0, skip: 0"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{ran:?}");

    let passing = Files::new(&[lenient("Enforce")]).with("pod.yaml", &pod("web", PINNED)).apply(&[]);
    let expected =
        ["Pod/default/web: check/rule: pass: image verified", "pass: 1, fail: 0, warn: 0, error: 0, skip: 0"];
    assert_eq!((passing.lines(), passing.code), (expected.to_vec(), 0));
}

#[test]
fn apply_lets_an_audit_rule_warn() {
    let files = Files::new(&[strict("Audit")]).with("pod.yaml", &pod("web", PINNED));
    let ran = files.apply(&[]);
    let expected = format!("Pod/default/web: check/rule: warn: would deny: unverified image {PINNED}");
    assert_eq!(ran.lines(), [expected.as_str(), "pass: 0, fail: 0, warn: 1, error: 0, skip: 0"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(files.apply(&["--fail-on-audit"]).code, 1);
}

#[test]
fn apply_cannot_find_out_without_a_registry() {
    let ran = Files::new(&[lenient("Enforce")])
        .with("pod.yaml", &pod("web", "127.0.0.1:1/app:1"))
        .apply(&["-o", "yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:?}");
    let lines: Vec<_> = ran.stderr.lines().collect();
    let start = "Pod/default/web: check/rule: error: failed to verify image 127.0.0.1:1/app:1: ";
    assert!(lines[0].starts_with(start), "{ran:?}");
    assert_eq!(lines[1], "pass: 0, fail: 0, warn: 0, error: 1, skip: 0");
    assert!(lines[2].ends_with("pod.yaml:1: left out: Pod/default/web did not pass"), "{ran:?}");
}

#[test]
fn apply_speaks_json_with_a_version() {
    let files =
        Files::new(&[strict("Enforce")]).with("pod.yaml", &format!("# first\n{}", pod("web", PINNED)));
    let ran = files.apply(&["-o", "json"]);
    let expected = json!({
        "schemaVersion": 1,
        "resources": [{
            "file": files.resources().join("pod.yaml"), "line": 2,
            "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "verdict": "denied",
            "results": [{ "policy": "check", "rule": "rule", "image": PINNED, "status": "fail",
                          "message": format!("unverified image {PINNED}") }],
            "patches": [],
        }],
        "summary": { "pass": 0, "fail": 1, "warn": 0, "error": 0, "skip": 0 },
    });
    assert_eq!((ran.code, ran.json()), (1, expected));
}

#[test]
fn apply_reads_standard_input_lists_and_namespaces() {
    let mut namespaced = strict("Enforce");
    namespaced["kind"] = json!("Policy");
    namespaced["metadata"]["namespace"] = json!("prod");
    let files = Files::new(&[namespaced]);
    let of = |name: &str, namespace: Option<&str>| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
                "spec": { "containers": [{ "name": "app", "image": PINNED }] } })
    };
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [of("a", Some("prod")), of("b", Some("dev")), of("c", None)] });
    let on = |arguments: &[&str]| {
        let ran = files.apply_on(Path::new("-"), &list.to_string(), arguments);
        ran.lines()
            .into_iter()
            .map(|line| line.split(": ").next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(on(&[]), ["Pod/prod/a", "pass"]);
    assert_eq!(on(&["--namespace", "prod"]), ["Pod/prod/a", "Pod/prod/c", "pass"]);
}

#[test]
fn apply_passes_on_what_no_rule_is_about() {
    let service = "apiVersion: v1\nkind: Service # as it is\nmetadata: {name: web}\n";
    let files = Files::new(&[strict("Enforce")]).with("1.yaml", service).with("2.yaml", &pod("web", PINNED));
    let ran = files.apply(&["-o", "yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, format!("---\n{service}").as_str()), "{ran:?}");
    assert!(ran.stderr.contains("2.yaml:1: left out: Pod/default/web did not pass"), "{ran:?}");
}

#[test]
fn apply_prints_no_control_characters_of_a_resource() {
    let name = "a\nPod/prod/web: check/rule: pass\u{1b}[2J\u{202e}";
    let hostile = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "app", "image": PINNED }] },
    });
    let files = Files::new(&[strict("Enforce")]).with("1.json", &hostile.to_string());
    for arguments in [&[][..], &["-o", "json"], &["-o", "yaml"]] {
        let ran = files.apply(arguments);
        let printed = format!("{}{}", ran.stdout, ran.stderr);
        assert!(printed.contains("Pod/prod/web"), "{ran:?}");
        let plain = |letter: char| !letter.is_control() && letter != '\u{202e}';
        assert!(printed.lines().all(|line| line.chars().all(plain)), "{ran:?}");
        assert!(!printed.lines().any(|line| line.starts_with("Pod/prod/web")), "{ran:?}");
    }
}

#[test]
fn apply_refuses_unmatched_images_where_asked() {
    let mut other = strict("Enforce");
    other["spec"]["rules"][0]["verifyImages"][0]["imageReferences"] = json!(["elsewhere.example/*"]);
    let files = Files::new(&[other]).with("pod.yaml", &pod("web", PINNED));
    assert_eq!(files.apply(&[]).lines(), ["pass: 0, fail: 0, warn: 0, error: 0, skip: 0"]);
    let ran = files.apply(&["--unmatched", "deny"]);
    assert_eq!(ran.lines()[0], format!("Pod/default/web: fail: no policy covers this image: {PINNED}"));
    assert_eq!(ran.code, 1);
}

#[test]
fn apply_says_where_a_rule_cannot_tell_the_images() {
    let mut custom = lenient("Enforce");
    let rule = &mut custom["spec"]["rules"][0];
    rule["match"]["any"][0]["resources"]["kinds"] = json!(["Task"]);
    rule["imageExtractors"] = json!({ "Task": [{ "path": "/spec/steps/*/image" }] });
    let files = Files::new(&[custom]).with(
        "task.yaml",
        "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: t}\nspec: {steps: none}\n",
    );
    let ran = files.apply(&[]);
    let expected = "Task/default/t: check/rule: error: failed to extract images: invalid type at /spec/steps: a list or a map is expected";
    assert_eq!((ran.code, ran.lines()[0]), (3, expected), "{ran:?}");
    assert_eq!(files.apply(&["-o", "yaml"]).stdout, "");
}

#[test]
fn apply_shows_rules_all_images_of_the_resource() {
    let mut custom = lenient("Enforce");
    let rule = &mut custom["spec"]["rules"][0];
    rule["match"]["any"][0]["resources"]["kinds"] = json!(["Task", "Pod"]);
    let extractor = json!({ "path": "/spec/steps/*", "value": "image", "key": "name", "name": "steps" });
    rule["imageExtractors"] = json!({ "Task": [extractor] });
    // The rule counts where a step beside the judged one comes from elsewhere.
    rule["preconditions"] = json!({ "all": [
        { "key": "{{ images.steps.other.registry }}", "operator": "Equals", "value": "ghcr.io" },
        { "key": "{{ images.steps.build.digest }}", "operator": "Equals", "value": &PINNED[16..] },
        { "key": "{{ images.steps.build.jsonPointer }}", "operator": "Equals", "value": "/spec/steps/0/image" },
    ] });
    let task = |other: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {{name: t}}\nspec:\n  steps:\n  - {{name: build, image: \"{PINNED}\"}}\n  - {{name: other, image: \"{other}\"}}\n"
        )
    };
    let digest = &PINNED[16..];
    let run = |text: &str| Files::new(std::slice::from_ref(&custom)).with("task.yaml", text).apply(&[]);
    let ran = run(&task(&format!("ghcr.io/org/other@{digest}")));
    let counts = "pass: 2, fail: 0, warn: 0, error: 0, skip: 0";
    assert_eq!((ran.code, ran.lines().last()), (0, Some(&counts)), "{ran:?}");
    let ran = run(&task(&format!("127.0.0.1:1/other@{digest}")));
    let counts = "pass: 0, fail: 0, warn: 0, error: 0, skip: 2";
    assert_eq!((ran.code, ran.lines().last()), (0, Some(&counts)), "{ran:?}");
    // A pod has no steps.
    let ran = run(&pod("web", PINNED));
    let cause = "Unknown key \"steps\" in path";
    assert!(ran.code == 3 && ran.lines()[0].contains(cause), "{ran:?}");
}

#[test]
fn apply_names_what_is_wrong_with_its_input_in_one_line() {
    let files = Files::new(&[lenient("Enforce")]);
    let on = |path: &Path, input: &str| files.apply_on(path, input, &[]);
    let file = |name: &str, text: &str| {
        let path = files.0.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let empty = files.resources();
    assert_eq!(
        on(&empty, "").refusal(),
        format!(
            "pullgate: no resource in {}: files end in .yaml, .yml or .json and hold Kubernetes resources",
            empty.display()
        )
    );
    let missing = files.0.join("missing");
    assert!(
        on(&missing, "").refusal().starts_with(&format!("pullgate: cannot read {}: ", missing.display()))
    );
    for (text, wanted) in [
        ("a: [\n", "unclosed bracket"),
        ("just text\n", "not a Kubernetes object: a map with apiVersion and kind is expected"),
        ("apiVersion: v1\nmetadata: {}\n", "kind is missing or not a text"),
        ("kind: Pod\n", "apiVersion is missing or not a text"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {labels: {a: 1}}\n",
            "metadata.labels must map texts to texts",
        ),
        ("apiVersion: v1\nkind: Pod\n...\n---\napiVersion: v1\n", "kind is missing or not a text"),
    ] {
        let path = file("broken.yaml", text);
        let ran = on(&path, "");
        let start = format!("pullgate: {}:", path.display());
        assert!(ran.refusal().starts_with(&start) && ran.refusal().contains(wanted), "{text:?}: {ran:?}");
        let from_input = on(Path::new("-"), text);
        assert!(from_input.refusal().starts_with("pullgate: <stdin>:"), "{text:?}: {from_input:?}");
    }
    assert!(on(Path::new("-"), "# nothing\n").refusal().starts_with("pullgate: no resource in -: "));
    // A broken policy is told before any registry is asked.
    fs::write(files.0.join("policies.yaml"), "a: [").unwrap();
    let pod = file("pod.yaml", &pod("web", PINNED));
    assert!(on(&pod, "").refusal().contains("policies.yaml:1: "));
}

// On a registry, with signatures.

/// A registry and two keys, for all tests of this file.
struct Bench {
    key: Key,
    other_key: Key,
}

macro_rules! on_a_registry {
    ($($test:ident),* $(,)?) => {
        mod on_a_registry {
            $(#[test] fn $test() { super::on_a_registry(stringify!($test), super::$test); })*
        }
    };
}

on_a_registry!(
    apply_fills_verified_digests_in,
    apply_without_mutate_digest_leaves_documents_as_they_are,
    apply_judges_the_pods_of_controllers,
    apply_judges_the_steps_of_a_task_run,
    apply_judges_the_bundle_of_a_pipeline_run,
    apply_judges_the_image_of_a_data_volume,
    apply_keeps_the_order_of_a_mixed_folder,
    apply_asks_for_digests_as_kyverno_does,
);

fn on_a_registry(test: &str, body: fn(&Bench, &Space<'_>)) {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let tools = ["bin/olareg", "bin/cosign-2", "bin/cosign-3"];
    if let Some(missing) = tools.into_iter().find(|tool| !kit::tools().join(tool).exists()) {
        return kit::skip(test, &format!("{missing} is missing (tests/tools/install)"));
    }
    let bench = BENCH.get_or_init(|| Bench { key: Key::generate(), other_key: Key::generate() });
    body(bench, &Space::on(Registry::shared()));
}

impl Bench {
    /// A signed image, one that nobody signed, one that somebody else signed.
    fn images(&self, space: &Space<'_>) -> [Image; 3] {
        let images = ["signed", "unsigned", "theirs"].map(|name| space.image(name).push("1"));
        self.key.sign(&images[0]);
        self.other_key.sign(&images[2]);
        images
    }

    /// A policy that asks for the key, with these fields of its one rule.
    fn policy(&self, space: &Space<'_>, rule: &Value) -> Value {
        let mut document = space.policy("keyed").key(&self.key).document();
        let own = document["spec"]["rules"][0].as_object_mut().unwrap();
        own.extend(rule.as_object().unwrap().clone());
        document
    }
}

fn about(kind: &str, extractors: Value) -> Value {
    json!({ "match": { "any": [{ "resources": { "kinds": [kind] } }] }, "imageExtractors": extractors })
}

fn verified(image: &Image) -> String {
    format!("verified image signatures for {}", image.by_tag())
}

fn apply_fills_verified_digests_in(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, theirs] = bench.images(space);
    let text = format!(
        "apiVersion: v1 # the API\nkind: Pod\nmetadata: {{name: all, labels: {{b: \"1\", a: \"2\"}}}}\nspec:\n  initContainers:\n  - {{name: init, image: \"{0}\"}}\n  containers:\n  # the app\n  - name: app\n    image: {0} # signed\n  - name: pinned\n    image: {1}\n",
        signed.by_tag(),
        signed.by_digest()
    );
    let files = Files::new(&[bench.policy(space, &json!({}))]).with("pod.yaml", &text);
    let ran = files.apply(&["-o", "yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, format!("---\n{}", text.replace(&signed.by_tag(), &signed.by_both())));
    let pinned =
        format!("Pod/default/all: keyed/signed: pass: verified image signatures for {}", signed.by_digest());
    let by_tag = format!("Pod/default/all: keyed/signed: pass: {}", verified(&signed));
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines, [by_tag.as_str(), pinned.as_str(), "pass: 2, fail: 0, warn: 0, error: 0, skip: 0"]);

    let patches = &files.apply(&["-o", "json"]).json()["resources"][0]["patches"];
    let patch = |path: &str| json!({ "op": "replace", "path": path, "value": signed.by_both() });
    assert_eq!(*patches, json!([patch("/spec/containers/0/image"), patch("/spec/initContainers/0/image")]));

    for (image, cause) in [(&unsigned, "no signatures found"), (&theirs, "")] {
        let files =
            Files::new(&[bench.policy(space, &json!({}))]).with("pod.yaml", &pod("web", &image.by_tag()));
        let ran = files.apply(&[]);
        let start = format!(
            "Pod/default/web: keyed/signed: fail: failed to verify image {}: .attestors[0].entries[0].keys: {cause}",
            image.by_tag()
        );
        assert!(ran.code == 1 && ran.lines()[0].starts_with(&start), "{ran:?}");
        assert_eq!(files.apply(&["-o", "yaml"]).stdout, "");
    }
}

fn apply_without_mutate_digest_leaves_documents_as_they_are(bench: &Bench, space: &Space<'_>) {
    let [signed, _, _] = bench.images(space);
    let run = |verify_digest: bool, image: &str| {
        let mut document = bench.policy(space, &json!({}));
        let entry = document["spec"]["rules"][0]["verifyImages"][0].as_object_mut().unwrap();
        entry.insert("mutateDigest".into(), json!(false));
        entry.insert("verifyDigest".into(), json!(verify_digest));
        Files::new(&[document]).with("pod.yaml", &pod("web", image)).apply(&["-o", "yaml"])
    };
    for (verify_digest, image) in [(false, signed.by_tag()), (true, signed.by_digest())] {
        let ran = run(verify_digest, &image);
        let expected = format!("---\n{}", pod("web", &image));
        assert_eq!((ran.code, ran.stdout.trim_end()), (0, expected.trim_end()), "{ran:?}");
    }
    let ran = run(true, &signed.by_tag());
    let line = format!("Pod/default/web: keyed/signed: fail: missing digest for {}", signed.by_tag());
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().next()), (1, "", Some(line.as_str())));
}

fn apply_judges_the_pods_of_controllers(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, _] = bench.images(space);
    let containers = |image: &Image| format!("containers: [{{name: app, image: '{}'}}]", image.by_tag());
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    spec:\n      {}\n",
        containers(&signed)
    );
    let cron_job = |image: &Image| {
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          {}\n",
            containers(image)
        )
    };
    let document = bench.policy(space, &json!({}));
    let files = Files::new(std::slice::from_ref(&document))
        .with("1.yaml", &deployment)
        .with("2.yaml", &cron_job(&signed));
    let ran = files.apply(&["-o", "yaml"]);
    let expected =
        format!("---\n{deployment}---\n{}", cron_job(&signed)).replace(&signed.by_tag(), &signed.by_both());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, expected.as_str()), "{ran:?}");
    let expected = [
        format!("Deployment/default/web: keyed/autogen-signed: pass: {}", verified(&signed)),
        format!("CronJob/default/nightly: keyed/autogen-cronjob-signed: pass: {}", verified(&signed)),
    ];
    assert_eq!(ran.stderr.lines().take(2).collect::<Vec<_>>(), expected);

    let refused = Files::new(std::slice::from_ref(&document)).with("1.yaml", &cron_job(&unsigned)).apply(&[]);
    assert!(
        refused.code == 1
            && refused.lines()[0]
                .starts_with("CronJob/default/nightly: keyed/autogen-cronjob-signed: fail: "),
        "{refused:?}"
    );
    let mut pods_only = document;
    pods_only["metadata"]["annotations"] = json!({ "pod-policies.kyverno.io/autogen-controllers": "none" });
    let silent = Files::new(&[pods_only]).with("1.yaml", &cron_job(&unsigned)).apply(&[]);
    assert_eq!((silent.code, silent.lines().len()), (0, 1), "{silent:?}");
}

/// The source page's first example of custom resources: the status of a Tekton TaskRun.
fn apply_judges_the_steps_of_a_task_run(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, _] = bench.images(space);
    let extractors = json!({ "TaskRun": [{ "name": "taskrunstatus", "path": "/status/taskSpec/steps/*", "value": "image", "key": "name" }] });
    let mut document = bench.policy(space, &about("tekton.dev/v1beta1/TaskRun.status", extractors));
    document["spec"]["rules"][0]["verifyImages"][0]["required"] = json!(false);
    let task_run = |steps: &[(&str, &Image)]| {
        let steps: String = steps
            .iter()
            .map(|(name, image)| format!("    - name: {name}\n      image: {}\n", image.by_tag()))
            .collect();
        format!(
            "apiVersion: tekton.dev/v1beta1\nkind: TaskRun\nmetadata:\n  name: build\nstatus:\n  taskSpec:\n    steps:\n{steps}"
        )
    };
    let files = Files::new(std::slice::from_ref(&document))
        .with("run.yaml", &task_run(&[("one", &signed), ("two", &unsigned)]));
    let ran = files.apply(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.lines()[0], format!("TaskRun/default/build: keyed/signed: pass: {}", verified(&signed)));
    assert!(
        ran.lines()[1].starts_with(&format!(
            "TaskRun/default/build: keyed/signed: fail: failed to verify image {}",
            unsigned.by_tag()
        )),
        "{ran:?}"
    );
    let text = task_run(&[("one", &signed)]);
    let ran = Files::new(std::slice::from_ref(&document)).with("run.yaml", &text).apply(&["-o", "yaml"]);
    assert_eq!(ran.stdout, format!("---\n{}", text.replace(&signed.by_tag(), &signed.by_both())), "{ran:?}");
    // Before it has a status there is nothing to look at.
    let new = "apiVersion: tekton.dev/v1beta1\nkind: TaskRun\nmetadata: {name: build}\n";
    let ran = Files::new(&[document]).with("run.yaml", new).apply(&[]);
    assert_eq!(ran.lines()[1..], ["without images, so not judged: 1"], "{ran:?}");
}

/// The second: a Tekton pipeline bundle, which is an OCI artifact.
fn apply_judges_the_bundle_of_a_pipeline_run(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, _] = bench.images(space);
    let extractors = json!({ "PipelineRun": [{ "name": "pipelineruns", "path": "/spec/pipelineRef", "value": "bundle", "key": "name" }] });
    let document = bench.policy(space, &about("PipelineRun", extractors));
    let run = |image: &Image| {
        format!(
            "apiVersion: tekton.dev/v1beta1\nkind: PipelineRun\nmetadata: {{name: run}}\nspec:\n  pipelineRef:\n    name: build\n    bundle: {}\n",
            image.by_tag()
        )
    };
    for (image, code, word) in [(&signed, 0, "pass"), (&unsigned, 1, "fail")] {
        let ran = Files::new(std::slice::from_ref(&document)).with("run.yaml", &run(image)).apply(&[]);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(
            ran.lines()[0].starts_with(&format!("PipelineRun/default/run: keyed/signed: {word}: ")),
            "{ran:?}"
        );
    }
}

/// The third: a KubeVirt DataVolume, whose URL an expression makes an image of.
fn apply_judges_the_image_of_a_data_volume(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, _] = bench.images(space);
    let extractors = json!({ "DataVolume": [{ "path": "/spec/source/registry/url", "jmesPath": "trim_prefix(@, 'docker://')" }] });
    let mut document = bench.policy(space, &about("DataVolume", extractors));
    let files = Files::new(std::slice::from_ref(&document)).with("volume.yaml", &pod("web", PINNED));
    assert!(files.apply(&[]).refusal().ends_with("jmespath may not be used in an image extractor when mutating digests with verify images; set mutateDigest: false"));
    for field in ["mutateDigest", "verifyDigest"] {
        document["spec"]["rules"][0]["verifyImages"][0][field] = json!(false);
    }
    let volume = |image: &Image| {
        format!(
            "apiVersion: cdi.kubevirt.io/v1beta1\nkind: DataVolume\nmetadata:\n  name: registry-image-datavolume\nspec:\n  source:\n    registry:\n      url: \"docker://{}\"\n  pvc:\n    accessModes:\n    - ReadWriteOnce\n",
            image.by_tag()
        )
    };
    for (image, code, word) in [(&signed, 0, "pass"), (&unsigned, 1, "fail")] {
        let files = Files::new(std::slice::from_ref(&document)).with("volume.yaml", &volume(image));
        let ran = files.apply(&[]);
        assert_eq!(ran.code, code, "{ran:?}");
        let start = format!("DataVolume/default/registry-image-datavolume: keyed/signed: {word}: ");
        assert!(ran.lines()[0].starts_with(&start), "{ran:?}");
    }
    let files = Files::new(&[document]).with("volume.yaml", &volume(&signed));
    assert_eq!(
        files.apply(&["-o", "yaml"]).stdout,
        format!("---\n{}", volume(&signed)),
        "no digest is asked for"
    );
}

fn apply_keeps_the_order_of_a_mixed_folder(bench: &Bench, space: &Space<'_>) {
    let [signed, unsigned, _] = bench.images(space);
    let item = |name: &str, image: &Image| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
                "spec": { "containers": [{ "name": "app", "image": image.by_tag() }] } })
    };
    let list =
        json!({ "apiVersion": "v1", "kind": "List", "items": [item("a", &signed), item("b", &signed)] });
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n";
    let many: String =
        (0..12).map(|index| format!("---\n{}", pod(&format!("p{index}"), &signed.by_tag()))).collect();
    let refused =
        json!({ "apiVersion": "v1", "kind": "List", "items": [item("c", &signed), item("d", &unsigned)] });
    let files = Files::new(&[bench.policy(space, &json!({}))])
        .with("1.yaml", &format!("{service}{many}"))
        .with("2.json", &format!("{list:#}\n"))
        .with("3.json", &refused.to_string())
        .with("notes.txt", "not a resource");
    let ran = files.apply(&["-o", "yaml"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let expected =
        format!("---\n{service}{many}---\n{list:#}\n").replace(&signed.by_tag(), &signed.by_both());
    assert_eq!(ran.stdout, expected);
    assert!(ran.stderr.contains("3.json:1: left out: Pod/default/d did not pass"), "{ran:?}");
    let names: Vec<String> =
        (0..12).map(|index| format!("p{index}")).chain(["a", "b", "c", "d"].map(str::to_owned)).collect();
    let named: Vec<_> =
        ran.stderr.lines().filter_map(|line| line.strip_prefix("Pod/default/")?.split(": ").next()).collect();
    assert_eq!(named, names);
}

/// `required`, `verifyDigest` and `mutateDigest` where no signature is asked for.
fn apply_asks_for_digests_as_kyverno_does(bench: &Bench, space: &Space<'_>) {
    let [signed, _, _] = bench.images(space);
    for (mutates, verifies, required, by_tag, by_digest) in [
        (true, true, false, ("pass", signed.by_both()), "pass"),
        (true, false, false, ("pass", signed.by_both()), "pass"),
        (false, true, false, ("fail", signed.by_tag()), "pass"),
        (false, false, false, ("pass", signed.by_tag()), "pass"),
        (true, true, true, ("fail", signed.by_tag()), "fail"),
        (false, false, true, ("fail", signed.by_tag()), "fail"),
    ] {
        let entry = json!({ "mutateDigest": mutates, "verifyDigest": verifies, "required": required });
        let document = policy("Enforce", entry.clone());
        let on = |image: &str| {
            let files = Files::new(std::slice::from_ref(&document)).with("pod.yaml", &pod("web", image));
            let (ran, filled) = (files.apply(&[]), files.apply(&["-o", "yaml"]));
            let word = ran.lines()[0].split(": ").nth(2).unwrap_or_default().to_owned();
            assert_eq!(ran.code, i32::from(word == "fail"), "{entry}: {ran:?}");
            (word, filled.stdout)
        };
        let (word, filled) = on(&signed.by_tag());
        assert_eq!(word, by_tag.0, "{entry} by tag");
        let expected = if word == "pass" { format!("---\n{}", pod("web", &by_tag.1)) } else { String::new() };
        assert_eq!(filled, expected, "{entry} by tag");
        assert_eq!(on(&signed.by_digest()).0, by_digest, "{entry} by digest");
    }
}
