//! critest, the conformance suite of the CRI, through the gate: its image specs must end as they end
//! straight on containerd.
//!
//! Its images have fixed names in public registries; look-alikes from a registry of the test stand in
//! for them (`tests/tools/NOTES.md`).

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

use crate::kit::{
    self, Node, containerd::Containerd, folder, gate::Gate, policy::Policy, registry::Registry, tools,
};

kit::on_each_containerd!(critest_image_specs_end_as_without_the_gate);

fn critest_image_specs_end_as_without_the_gate(node: &Node) {
    let registry = Registry::olareg();
    push_look_alikes(&registry);
    let containerd = Containerd::start(node.containerd.version());
    for name in ["gcr.io", "registry.k8s.io", "k8s.gcr.io"] {
        containerd.mirrors(name, &registry);
    }
    // A subnet for each containerd of this process.
    containerd.gives_pods_a_network(if containerd.version() == "2" { 17 } else { 18 });

    let direct = critest(&containerd, &containerd.socket());
    let passed = direct.values().filter(|state| *state == "passed").count();
    assert!(passed >= 19, "{passed} passed: {direct:#?}");
    let failed: Vec<_> = direct.iter().filter(|(_, state)| !is_fine(state)).collect();
    assert!(failed.is_empty(), "without the gate: {failed:#?}");

    // Once no rule covers the images, once a rule would refuse them all.
    let elsewhere = Policy::new("keyed", "registry.example/*").key(node.key);
    let everywhere = Policy::new("keyed", "*").key(node.key);
    for (policy, mode) in [(elsewhere, "enforce"), (everywhere, "audit")] {
        let gate = Gate::before(&containerd).policies(&[policy]).set("/policy/mode", mode).start();
        let through = critest(&containerd, &gate.socket());
        let verdicts = gate.metric("pullgate_verdicts_total");
        let differing: Vec<_> =
            direct.iter().filter(|(spec, state)| through.get(*spec) != Some(*state)).collect();
        assert_eq!(through, direct, "differing: {differing:#?}\n{}", gate.log());
        assert!(verdicts >= 10.0, "the gate decided:\n{}", gate.log());
    }
}

/// How each spec ended: the image specs, and those about containers that name an image by its id.
/// Those that were not chosen are `skipped`, and so is one that cannot run on this containerd.
fn critest(containerd: &Containerd, images: &Path) -> BTreeMap<String, String> {
    let folder = folder();
    fs::write(folder.join("crictl.yaml"), "timeout: 20\n").expect("a config");
    let report = folder.join("report.json");
    let unix = |path: &Path| format!("unix://{}", path.display());
    let mut command = Command::new("timeout");
    command
        .arg("300")
        .arg(tools().join("bin/critest"))
        .arg("--config")
        .arg(folder.join("crictl.yaml"))
        .args(["-runtime-endpoint", &unix(&containerd.socket()), "-image-endpoint", &unix(images)])
        .args(["-ginkgo.no-color", "-ginkgo.skip", "with digest"])
        .args(["-ginkgo.focus", "Image (Manager|Consistency|Identifier)|Idempotence"])
        .arg("-ginkgo.json-report")
        .arg(&report)
        .current_dir(&folder);
    let output = command.output().expect("critest");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = fs::read(&report).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let suites: Vec<Value> = serde_json::from_slice(&report).expect("JSON");
    let mut ends = BTreeMap::new();
    for spec in suites.iter().filter_map(|suite| suite["SpecReports"].as_array()).flatten() {
        if spec["LeafNodeType"] != "It" {
            continue;
        }
        let mut name = String::new();
        for part in spec["ContainerHierarchyTexts"].as_array().into_iter().flatten() {
            name += part.as_str().expect("a text");
            name += " > ";
        }
        name += spec["LeafNodeText"].as_str().expect("a text");
        let state = spec["State"].as_str().expect("a state");
        if !is_fine(state) {
            // The harness shows it if the test fails.
            eprintln!("{name}: {:#}", spec["Failure"]);
        }
        assert_eq!(ends.insert(name.clone(), state.to_owned()), None, "{name} is there twice");
    }
    let all_fine = ends.values().all(|state| is_fine(state));
    assert_eq!(output.status.success(), all_fine, "{}:\n{text}", output.status);
    ends
}

fn is_fine(state: &str) -> bool {
    matches!(state, "passed" | "skipped")
}

fn push_look_alikes(registry: &Registry) {
    let push = |name: &str, tags: &[&str]| {
        let image = registry.image(name).push(tags[0]);
        for tag in &tags[1..] {
            registry.move_tag(tag, &image);
        }
    };
    let of_critest = |name: &str| format!("k8s-staging-cri-tools/test-image-{name}");
    push(&of_critest("tag"), &["test"]);
    push(&of_critest("tag"), &["all"]);
    for name in ["latest", "1", "2", "3"] {
        push(&of_critest(name), &["latest"]);
    }
    push(&of_critest("tags"), &["1", "2", "3"]);
    for (name, user) in [
        ("user-uid", "1002"),
        ("user-username", "www-data"),
        ("user-uid-group", "1003:users"),
        ("user-username-group", "www-data:www-data"),
    ] {
        registry.image(&of_critest(name)).user(user).push("latest");
    }
    push("pause", &["3.9"]);
    push("e2e-test-images/busybox", &["1.29-2"]);
}
