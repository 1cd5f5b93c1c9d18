//! The same before a daemon: it refuses, and says so where an administrator looks.

use tonic::Code;

use super::*;
use crate::kit::{Node, gate::Gate};

kit::on_each_containerd!(
    d5_empty_policy_folder_refuses_every_pull,
    d5_empty_policy_folder_lets_pass_in_audit_mode,
    d5_policies_without_image_rules_refuse_every_pull,
    missing_policy_path_refuses_every_pull,
    d6_broken_policy_at_the_first_start_refuses_every_pull,
    approved_list_that_others_can_write_approves_nothing,
    bad_approved_list_at_reload_leaves_the_old_one,
    reload_names_the_file_and_the_line,
    reload_names_what_only_a_restart_puts_in_force,
    commands_reach_a_daemon_whose_config_was_broken_since,
    cache_show_of_nonsense_is_refused_by_the_daemon,
);

fn d5_empty_policy_folder_refuses_every_pull(node: &Node) {
    let image = node.space().image("app").push("1");
    let gate = Gate::start(&node.containerd, &[]);
    assert_no_policy(node, &gate, &image);
    let status = gate.status_json();
    assert_eq!(status["degraded"], serde_json::Value::Null, "it is what the folder says: {status}");
    assert_eq!(
        status["warnings"][0], "no policy loaded: every pull is refused (in audit mode: let pass)",
        "{status}"
    );
}

fn d5_empty_policy_folder_lets_pass_in_audit_mode(node: &Node) {
    let image = node.space().image("app").push("1");
    let gate = Gate::before(&node.containerd).set("/policy/mode", "audit").start();
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
}

/// Rule D5: that is not "no rule covers it".
fn d5_policies_without_image_rules_refuse_every_pull(node: &Node) {
    let image = node.space().image("app").push("1");
    let validating = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: labels}\nspec:\n  rules:\n    \
        - name: labelled\n      match: {any: [{resources: {kinds: [Pod]}}]}\n      validate: {message: no}\n";
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";
    for text in [validating, other, "# nothing\n", ""] {
        let folder = kit::folder();
        let file = write(&folder, "p.yaml", text);
        let ran = check(&file);
        assert_eq!(ran.code, 0, "{text}: {ran:?}");
        assert!(ran.stdout.contains("warning: no policy loaded: every pull is refused"), "{text}: {ran:?}");
        let paths = vec![folder.display().to_string()];
        assert_no_policy(node, &Gate::before(&node.containerd).set("/policy/paths", paths).start(), &image);
    }
}

fn missing_policy_path_refuses_every_pull(node: &Node) {
    let image = node.space().image("app").push("1");
    let gone = kit::folder().join("gone");
    let gate = Gate::before(&node.containerd).set("/policy/paths", vec![gone.display().to_string()]).start();
    assert_no_policy(node, &gate, &image);
    assert_degraded(&gate, &format!("cannot read {}: ", gone.display()));
    fs::create_dir(&gone).unwrap();
    gate.reload();
    assert_eq!(gate.command(&["status"]).status.code(), Some(0));
    assert_no_policy(node, &gate, &image);
}

fn d6_broken_policy_at_the_first_start_refuses_every_pull(node: &Node) {
    let image = node.space().image("app").push("1");
    let folder = kit::folder();
    let file = write(&folder, "p.yaml", &policy("imageRefs: []", GOOD_KEY));
    let gate =
        Gate::before(&node.containerd).set("/policy/paths", vec![folder.display().to_string()]).start();
    assert_no_policy(node, &gate, &image);
    assert_degraded(&gate, &format!("{}:11: unknown field `imageRefs`", file.display()));
}

fn approved_list_that_others_can_write_approves_nothing(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let approved = write(&kit::folder(), "approved.txt", &format!("{}\n", image.by_digest()));
    fs::set_permissions(&approved, fs::Permissions::from_mode(0o666)).unwrap();
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .set("/policy/approved", approved.display().to_string())
        .start();
    assert_no_policy(node, &gate, &image);
    assert_degraded(&gate, &format!("policy.approved: {} must belong to root", approved.display()));

    fs::set_permissions(&approved, fs::Permissions::from_mode(0o600)).unwrap();
    gate.reload();
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "the list counts");
}

fn bad_approved_list_at_reload_leaves_the_old_one(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let approved = write(&kit::folder(), "approved.txt", "");
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .set("/policy/approved", approved.display().to_string())
        .start();

    assert_eq!(gate.cri().pull(signed.by_tag()).expect(), signed.id, "it has loaded");
    fs::write(&approved, format!("nonsense\n{}\n", unsigned.by_digest())).unwrap();
    let ran = Ran::from(gate.command(&["reload"]));
    let error = ran.expect_error(2);
    let start = format!("pullgate: policy.approved: {}: line 1: ", approved.display());
    assert!(error.starts_with(&start), "{error}");
    assert_degraded(&gate, "policy.approved: ");
    gate.cri().pull(unsigned.by_tag()).expect_refusal();
    assert_eq!(gate.cri().pull(signed.by_tag()).expect(), signed.id);
}

fn reload_names_the_file_and_the_line(node: &Node) {
    let gate = Gate::start(&node.containerd, &[node.space().policy("keyed").key(node.key)]);
    gate.write_policy_text(&policy("imageRefs: []", GOOD_KEY));
    let error = Ran::from(gate.command(&["reload"])).expect_error(2);
    assert!(error.contains("/policies.yaml:11: unknown field `imageRefs`"), "{error}");
}

fn reload_names_what_only_a_restart_puts_in_force(node: &Node) {
    let gate = Gate::start(&node.containerd, &[node.space().policy("keyed").key(node.key)]);
    gate.configure("/cache/fresh", "1h");
    gate.configure("/limits", serde_json::json!({"concurrency": 3}));
    gate.configure("/policy/mode", "audit");
    let ran = Ran::from(gate.command(&["reload"]));
    let warning = "cache, limits.concurrency changed and count after a restart only";
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.trim_end().ends_with(&format!("; {warning}")), "{ran:?}");
    let status = gate.status_json();
    assert_eq!(status["needsRestart"], serde_json::json!(["cache", "limits.concurrency"]), "{status}");
    assert_eq!(status["mode"], "audit", "{status}");
    assert_eq!(status["warnings"], serde_json::json!([warning]), "{status}");
    gate.restart();
    assert_eq!(gate.status_json()["needsRestart"], serde_json::json!([]));
}

fn commands_reach_a_daemon_whose_config_was_broken_since(node: &Node) {
    let gate = Gate::start(&node.containerd, &[node.space().policy("keyed").key(node.key)]);
    gate.configure("/drain", "soon");
    let config = gate.folder().join("config.yaml");
    for command in [&["status"][..], &["cache", "list"], &["cache", "purge"]] {
        let ran = Ran::from(gate.command(command));
        assert_eq!(ran.code, 0, "{ran:?}");
        let start = format!("pullgate: warning: {}:", config.display());
        assert!(ran.stderr.starts_with(&start) && ran.stderr.lines().count() == 1, "{ran:?}");
    }
    let error = Ran::from(gate.command(&["reload"])).expect_error(2);
    assert!(error.ends_with("; the policies loaded before stay in force"), "{error}");
    assert_degraded(&gate, &config.display().to_string());
}

fn cache_show_of_nonsense_is_refused_by_the_daemon(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    for nonsense in NONSENSE {
        let error = Ran::from(gate.command(&["cache", "show", nonsense])).expect_error(2);
        assert_eq!(error, format!("pullgate: `{nonsense}` is not repository@sha256:…"));
    }
    let error = Ran::from(gate.command(&["cache", "show", &image.by_digest()])).expect_error(2);
    assert_eq!(error, format!("pullgate: {} is not in the cache", image.by_digest()));
}

fn assert_no_policy(node: &Node, gate: &Gate, image: &kit::image::Image) {
    for name in [image.by_tag(), image.by_digest()] {
        let refusal = gate.cri().pull(name.clone()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        assert_eq!(refusal.message(), format!("SignatureValidationFailed: {name}: no policy loaded"));
        assert_eq!(node.containerd.record(&name), None);
    }
}

fn assert_degraded(gate: &Gate, start: &str) {
    let output = Ran::from(gate.command(&["status"]));
    assert_eq!(output.code, 1, "{output:?}");
    let status = gate.status_json();
    let degraded = status["degraded"].as_str().unwrap_or_default();
    assert!(degraded.contains(start), "{status}");
}
