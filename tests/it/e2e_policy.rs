//! What decides besides signatures: modes, namespaces, the approved list, no policy at all; and
//! what ImageStatus shows of images that came to the node past the gate.

use serde_json::json;
use tonic::Code;

use crate::kit::{self, Node, gate::Gate, image::Image};

kit::on_each_containerd!(
    d1_s6_audit_mode_lets_pass_and_says_would_deny,
    d1_audit_policy_refuses_nothing,
    m3_s3_namespaces_have_policies_of_their_own,
    m3_exempt_namespace_is_admitted,
    m4_approved_image_is_admitted,
    d5_without_a_policy_pulls_are_refused_and_the_rest_flows,
    unmatched_image_follows_the_config,
    s1_preloaded_image_is_hidden_until_it_is_verified,
    e2_retry_with_other_credentials_reads_the_same,
);

fn d1_s6_audit_mode_lets_pass_and_says_would_deny(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .set("/policy/mode", "audit")
        .start();

    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()));
    assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
    kit::until("the log line", || gate.log().contains("would deny").then_some(()));
    let would_deny = gate.command(&["status", "--would-deny", "-o", "json"]);
    assert_eq!(would_deny.status.code(), Some(1), "{would_deny:?}");
    assert!(String::from_utf8_lossy(&would_deny.stdout).contains(&image.repository), "{would_deny:?}");
}

/// Rule D1: the rule's own action decides in `mode: enforce`.
fn d1_audit_policy_refuses_nothing(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key).audit()]);
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
}

fn m3_s3_namespaces_have_policies_of_their_own(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let policies = [
        space.policy("keyed").namespace("red").key(node.key),
        space.policy("keyed").namespace("blue").key(node.other_key),
    ];
    let gate = Gate::start(&node.containerd, &policies);

    let pull = |namespace: &str| gate.cri().pull(image.by_tag()).pod(namespace, &[]);
    assert_eq!(pull("red").expect(), image.id);
    let refusal = pull("blue").expect_refusal();
    let words =
        format!("SignatureValidationFailed: {}: blue/keyed/signed: invalid signature", image.by_tag());
    assert_eq!(refusal.message(), words);
    assert_eq!(pull("green").expect(), image.id, "no rule covers it there");
    // Rule M3: without a namespace it is judged as if in every one that a rule names.
    assert_eq!(gate.cri().pull(image.by_tag()).expect_refusal().message(), words);

    // Rule S3: what one namespace was let have is shown to all, and status says which rules that concerns.
    assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
    let status = gate.status_json();
    assert_eq!(status["pullOnlyRules"], json!(["blue/keyed/signed", "red/keyed/signed"]), "{status}");
    let warned = |rule| status["warnings"].to_string().contains(&format!("rule {rule} depends on the pod"));
    assert!(warned("blue/keyed/signed") && warned("red/keyed/signed"), "{status}");
    assert!((gate.metric("pullgate_pull_only_rules") - 2.0).abs() < f64::EPSILON);
}

/// Rule M3.
fn m3_exempt_namespace_is_admitted(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let policy = space.policy("keyed").key(node.key);
    let gate = Gate::start(&node.containerd, std::slice::from_ref(&policy));
    gate.cri().pull(image.by_tag()).pod("default", &[]).expect_refusal();
    assert_eq!(gate.cri().pull(image.by_tag()).pod("kube-system", &[]).expect(), image.id);
    assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
    drop(gate);

    let other = space.image("other").push("1");
    let gate =
        Gate::before(&node.containerd).policies(&[policy]).set("/policy/exemptNamespaces", json!([])).start();
    gate.cri().pull(other.by_tag()).pod("kube-system", &[]).expect_refusal();
}

/// Rule M4.
fn m4_approved_image_is_admitted(node: &Node) {
    let space = node.space();
    let [approved, other] = ["1", "2"].map(|tag| space.image("app").push(tag));
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .approved(&[approved.by_digest()])
        .start();
    assert_eq!(gate.cri().pull(approved.by_tag()).expect(), approved.id);
    assert_eq!(gate.cri().present(approved.by_tag()).id, approved.id);
    gate.cri().pull(other.by_tag()).expect_refusal();
}

/// Rule D5.
fn d5_without_a_policy_pulls_are_refused_and_the_rest_flows(node: &Node) {
    let space = node.space();
    let [here, new] = ["1", "2"].map(|tag| space.image("app").push(tag));
    node.containerd.cri().pull(here.by_tag()).expect();
    let gate = Gate::start(&node.containerd, &[]);

    let refusal = gate.cri().pull(new.by_tag()).expect_refusal();
    assert_eq!(refusal.code(), Code::Unknown);
    assert!(refusal.message().contains("no policy loaded"), "{refusal}");
    assert_eq!(gate.cri().present(here.by_tag()).id, here.id);
    assert!(gate.cri().list_images().expect("a list").iter().any(|image| image.id == here.id));
    assert!(gate.status_json()["schemaVersion"].is_number(), "{}", gate.status_json());

    gate.write_policies(&[space.policy("keyed").key(node.key)]);
    node.key.sign(&new);
    gate.reload();
    assert_eq!(gate.cri().pull(new.by_tag()).expect(), new.id);
}

fn unmatched_image_follows_the_config(node: &Node) {
    let space = node.space();
    let [first, second] = ["1", "2"].map(|tag| space.image("app").push(tag));
    let elsewhere = node.space().policy("keyed").key(node.key);

    let allows = Gate::start(&node.containerd, std::slice::from_ref(&elsewhere));
    assert_eq!(allows.cri().pull(first.by_tag()).expect(), first.id);
    assert_eq!(allows.cri().present(first.by_tag()).id, first.id);
    drop(allows);

    let denies =
        Gate::before(&node.containerd).policies(&[elsewhere]).set("/policy/unmatched", "deny").start();
    let refusal = denies.cri().pull(second.by_tag()).expect_refusal();
    let start = format!("SignatureValidationFailed: {}: ", second.by_tag());
    assert!(refusal.message().starts_with(&start), "{refusal}");
    assert_eq!(denies.cri().image_status(first.by_tag()).expect("an answer"), None);
}

/// Rule S1.
fn s1_preloaded_image_is_hidden_until_it_is_verified(node: &Node) {
    let space = node.space();
    let [unsigned, signed] = ["unsigned", "signed"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    for image in [&unsigned, &signed] {
        import(node, image);
        for name in [image.by_tag(), image.id.clone(), image.id["sha256:".len()..][..16].to_owned()] {
            let shown = gate.cri().image_status(name.clone()).expect("an answer");
            assert_eq!(shown, None, "{name} was never admitted");
        }
        // The kubelet's garbage collection must see it.
        assert!(gate.cri().list_images().expect("a list").iter().any(|listed| listed.id == image.id));
    }

    gate.cri().pull(unsigned.by_tag()).expect_refusal();
    assert_eq!(gate.cri().image_status(unsigned.by_tag()).expect("an answer"), None);
    assert_eq!(gate.cri().pull(signed.by_tag()).expect(), signed.id);
    for name in [signed.by_tag(), signed.by_digest(), signed.id.clone()] {
        assert_eq!(gate.cri().present(name).id, signed.id);
    }
}

/// The kubelet tries each of a pod's pull secrets and joins texts that differ (rule E2).
fn e2_retry_with_other_credentials_reads_the_same(node: &Node) {
    let registry = kit::registry::Registry::olareg();
    node.containerd.knows(&registry);
    let space = kit::Space::on(&registry);
    let image = space.image("app").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let refusals = || {
        let pull = gate.cri().pull(image.by_tag()).pod("default", &[]);
        [("ada", "one"), ("bob", "two"), ("bob", "two")]
            .map(|(user, password)| pull.clone().credentials(user, password).expect_refusal())
            .map(|refusal| (refusal.code(), refusal.message().to_owned()))
    };
    let [first, second, third] = refusals();
    assert!(first.1.starts_with("SignatureValidationFailed: "), "{first:?}");
    assert_eq!((&first, &first), (&second, &third));

    registry.stop();
    // A connection that was kept may break off once, first.
    kit::until("connections to be refused", || refusals()[0].1.ends_with("connection refused").then_some(()));
    let [first, second, third] = refusals();
    assert!(first.1.starts_with("RegistryUnavailable: "), "{first:?}");
    assert_eq!((&first, &first), (&second, &third));
}

fn import(node: &Node, image: &Image) {
    node.containerd.ctr(["images", "import", &image.archive().display().to_string()]);
    let cri = node.containerd.cri();
    kit::until("CRI to see the image", || cri.image_status(image.by_tag()).ok().flatten());
}
