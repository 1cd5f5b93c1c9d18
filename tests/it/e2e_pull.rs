//! Pulls through the gate: which signatures let an image through, which texts refuse it, and that
//! what runs is what was verified.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{StatusCode, header};
use serde_json::json;
use tonic::{Code, Status};

use crate::kit::{
    self, Node, Space,
    gate::Gate,
    proxy::{Action, Proxy},
    registry::Registry,
};

kit::on_each_containerd!(
    t1_signed_image_by_tag_is_pulled_and_pinned,
    signed_image_by_digest_is_pulled,
    m6_tag_beside_a_digest_is_not_recorded,
    e3_unsigned_image_is_refused,
    e3_image_signed_by_another_key_is_refused,
    d3_two_keys_must_both_have_signed,
    one_of_two_keys_is_enough_with_count_1,
    d3_annotations_must_be_on_the_signature,
    signature_is_found_in_another_repository,
    bundle_is_found_by_the_referrers_api,
    bundle_is_found_without_the_referrers_api,
    legacy_signature_does_not_do_where_bundles_are_asked_for,
    tag_that_moved_is_judged_again,
    t2_pitfall_15_registry_that_changes_its_answer_gets_nowhere,
    registry_that_lies_about_a_digest_is_refused,
    d4_evidence_that_cannot_be_read_is_not_absent,
    d7_index_is_pulled_and_admits_its_children,
    m5_bare_image_id_is_refused,
    m1_pull_that_names_two_images_is_refused,
    private_registry_is_asked_with_the_credentials_of_the_pull,
    e1_answer_of_the_registry_is_handed_on,
);

fn t1_signed_image_by_tag_is_pulled_and_pinned(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(image.by_tag()).pod("default", &[]).expect(), image.id);
    assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()));
    assert_eq!(node.containerd.record(&image.by_digest()), Some(image.digest.clone()));
    let status = gate.cri().present(image.by_tag());
    assert_eq!(status.id, image.id);
    assert_eq!((status.repo_tags, status.repo_digests), (vec![image.by_tag()], vec![image.by_digest()]));

    assert_eq!(node.containerd.cri().pull(image.by_tag()).expect(), image.id, "the same as without a gate");
}

fn signed_image_by_digest_is_pulled(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(image.by_digest()).expect(), image.id);
    assert_eq!(gate.cri().present(image.by_digest()).id, image.id);
    assert_eq!(gate.cri().present(image.id.clone()).id, image.id);
    assert_eq!(node.containerd.record(&image.by_tag()), None);
}

/// Rule M6.
fn m6_tag_beside_a_digest_is_not_recorded(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(image.by_both()).expect(), image.id);
    assert_eq!(gate.cri().present(image.by_both()).id, image.id);
    assert_eq!(node.containerd.record(&image.by_tag()), None);

    let absent = image.under("never-pushed");
    assert_eq!(gate.cri().pull(absent.by_both()).expect(), image.id, "the tag is unverified text");
    assert_eq!(node.containerd.record(&absent.by_tag()), None);
}

fn e3_unsigned_image_is_refused(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    for name in [image.by_tag(), image.by_digest(), image.by_both()] {
        let refusal = gate.cri().pull(name.clone()).expect_refusal();
        assert_denied(&refusal, &name, "signature not found");
        assert_eq!(gate.cri().image_status(name).expect("an answer"), None);
    }
    assert_eq!(node.containerd.record(&image.by_tag()), None);
    assert_eq!(node.containerd.record(&image.by_digest()), None);
}

fn e3_image_signed_by_another_key_is_refused(node: &Node) {
    let space = node.space();
    let legacy = space.image("legacy").push("1");
    node.other_key.sign(&legacy);
    let bundle = space.image("bundle").push("1");
    node.other_key.sign_bundle(&bundle);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    for image in [legacy, bundle] {
        let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
        assert_denied(&refusal, &image.by_tag(), "invalid signature");
        assert_eq!(node.containerd.record(&image.by_digest()), None);
    }
}

fn d3_two_keys_must_both_have_signed(node: &Node) {
    let space = node.space();
    let by_one = space.image("one").push("1");
    node.key.sign(&by_one);
    let by_both = space.image("both").push("1");
    node.key.sign(&by_both);
    node.other_key.sign(&by_both);
    let policy = space.policy("keyed").key(node.key).key(node.other_key);
    let gate = Gate::start(&node.containerd, &[policy]);

    assert_eq!(gate.cri().pull(by_both.by_tag()).expect(), by_both.id);
    assert_denied(&gate.cri().pull(by_one.by_tag()).expect_refusal(), &by_one.by_tag(), "invalid signature");
}

fn one_of_two_keys_is_enough_with_count_1(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.other_key.sign(&image);
    let unsigned = space.image("unsigned").push("1");
    let policy = space.policy("keyed").key(node.key).key(node.other_key).count(1);
    let gate = Gate::start(&node.containerd, &[policy]);

    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    let refusal = gate.cri().pull(unsigned.by_tag()).expect_refusal();
    assert_denied(&refusal, &unsigned.by_tag(), "signature not found");
}

fn d3_annotations_must_be_on_the_signature(node: &Node) {
    let space = node.space();
    let [right, wrong, none] = ["right", "wrong", "none"].map(|name| space.image(name).push("1"));
    node.key.sign_legacy(&right, &[("env", "prod"), ("build", "7")], None);
    node.key.sign_legacy(&wrong, &[("env", "test")], None);
    node.key.sign(&none);
    let policy = space.policy("keyed").key_with(node.key, &json!({"annotations": {"env": "prod"}}));
    let gate = Gate::start(&node.containerd, &[policy]);

    assert_eq!(gate.cri().pull(right.by_tag()).expect(), right.id);
    for image in [wrong, none] {
        let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
        let start = format!("SignatureValidationFailed: {}: keyed/signed: ", image.by_tag());
        assert_eq!(refusal.code(), Code::Unknown);
        assert!(refusal.message().starts_with(&start), "{refusal}");
        assert!(!refusal.message().ends_with("signature not found"), "{refusal}");
    }
}

fn signature_is_found_in_another_repository(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let signatures = space.repository("signatures");
    node.key.sign_legacy(&image, &[], Some(&signatures));

    let elsewhere = space.policy("keyed").key(node.key).repository(&signatures);
    let gate = Gate::start(&node.containerd, &[elsewhere]);
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);

    let beside = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let refusal = beside.cri().pull(image.by_tag()).expect_refusal();
    assert_denied(&refusal, &image.by_tag(), "signature not found");
}

fn bundle_is_found_by_the_referrers_api(node: &Node) {
    bundle_is_found(node, node.registry);
}

fn bundle_is_found_without_the_referrers_api(node: &Node) {
    let registry = Registry::docker();
    node.containerd.knows(&registry);
    bundle_is_found(node, &registry);
}

fn bundle_is_found(node: &Node, registry: &Registry) {
    let space = Space::on(registry);
    let image = space.image("app").push("1");
    node.key.sign_bundle(&image);
    let unsigned = space.image("unsigned").push("1");
    for policy in [space.policy("keyed").key(node.key), space.policy("keyed").key(node.key).bundles_only()] {
        let gate = Gate::start(&node.containerd, &[policy]);
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
        let refusal = gate.cri().pull(unsigned.by_tag()).expect_refusal();
        assert_denied(&refusal, &unsigned.by_tag(), "signature not found");
    }
}

fn legacy_signature_does_not_do_where_bundles_are_asked_for(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key).bundles_only()]);
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    assert_denied(&refusal, &image.by_tag(), "signature not found");
}

fn tag_that_moved_is_judged_again(node: &Node) {
    let space = node.space();
    let [first, unsigned, second] = ["first", "unsigned", "second"].map(|tag| space.image("app").push(tag));
    node.key.sign(&first);
    node.key.sign(&second);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let app = first.under("latest");

    node.registry.move_tag("latest", &first);
    assert_eq!(gate.cri().pull(app.by_tag()).expect(), first.id);

    node.registry.move_tag("latest", &unsigned);
    assert_denied(&gate.cri().pull(app.by_tag()).expect_refusal(), &app.by_tag(), "signature not found");
    assert_eq!(node.containerd.record(&app.by_tag()), Some(first.digest.clone()));
    assert_eq!(gate.cri().present(app.by_tag()).id, first.id);

    node.registry.move_tag("latest", &second);
    assert_eq!(gate.cri().pull(app.by_tag()).expect(), second.id);
    assert_eq!(node.containerd.record(&app.by_tag()), Some(second.digest));
    assert_eq!(gate.cri().present(app.by_tag()).id, second.id);
}

/// Resolved once, verified, pulled by that digest: a second answer for the tag changes nothing.
fn t2_pitfall_15_registry_that_changes_its_answer_gets_nowhere(node: &Node) {
    let space = node.space();
    let [good, evil] = ["good", "evil"].map(|tag| space.image("app").push(tag));
    node.key.sign(&good);
    let asked = AtomicBool::new(false);
    let proxy =
        Proxy::before(node.registry, move |request| match request.path.strip_suffix("/manifests/good") {
            Some(path) if asked.swap(true, Ordering::SeqCst) => {
                Action::Instead(format!("{path}/manifests/evil"))
            }
            Some(_) | None => Action::Pass,
        });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let named = space.name(&good);
    assert_eq!(gate.cri().pull(named.by_tag()).expect(), good.id);
    assert_eq!(node.containerd.record(&named.by_tag()), Some(good.digest));
    assert_denied(&gate.cri().pull(named.by_tag()).expect_refusal(), &named.by_tag(), "signature not found");
    assert!(node.containerd.cri().list_images().expect("a list").iter().all(|image| image.id != evil.id));
}

fn registry_that_lies_about_a_digest_is_refused(node: &Node) {
    let space = node.space();
    let [good, evil] = ["good", "evil"].map(|tag| space.image("app").push(tag));
    node.key.sign(&good);
    let (asked, answered) = (format!("/manifests/{}", good.digest), format!("/manifests/{}", evil.digest));
    let proxy = Proxy::before(node.registry, move |request| match request.path.strip_suffix(&asked) {
        Some(path) => Action::Instead(format!("{path}{answered}")),
        None => Action::Pass,
    });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    gate.cri().pull(space.name(&good).by_digest()).expect_refusal();
    assert!(node.containerd.cri().list_images().expect("a list").iter().all(|image| image.id != evil.id));
}

/// Rule D4: neither a denial nor a pass, and tried again once the registry is well.
fn d4_evidence_that_cannot_be_read_is_not_absent(node: &Node) {
    static ILL: AtomicBool = AtomicBool::new(true);
    ILL.store(true, Ordering::SeqCst);
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let proxy = Proxy::before(node.registry, |request| {
        if ILL.load(Ordering::SeqCst) && request.path.ends_with(".sig") {
            Action::Answer(StatusCode::SERVICE_UNAVAILABLE, Vec::new(), String::new())
        } else {
            Action::Pass
        }
    });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let named = space.name(&image);
    let refusal = gate.cri().pull(named.by_tag()).expect_refusal();
    assert_eq!(refusal.code(), Code::Unknown);
    assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
    ILL.store(false, Ordering::SeqCst);
    assert_eq!(gate.cri().pull(named.by_tag()).expect(), image.id);
}

/// Rule D7.
fn d7_index_is_pulled_and_admits_its_children(node: &Node) {
    let space = node.space();
    let (index, [here, _]) = space.image("app").push_index("1");
    node.key.sign(&index);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(index.by_tag()).expect(), here.id);
    assert_eq!(gate.cri().present(index.by_tag()).id, here.id);
    assert_eq!(gate.cri().pull(here.by_digest()).expect(), here.id);

    let (other, [child, _]) = space.image("other").push_index("1");
    node.key.sign(&other);
    let refusal = gate.cri().pull(child.by_digest()).expect_refusal();
    assert_denied(&refusal, &child.by_digest(), "signature not found");
}

/// Rule M5.
fn m5_bare_image_id_is_refused(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();
    let refusal = gate.cri().pull(image.id.clone()).expect_refusal();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
}

/// Rule M1.
fn m1_pull_that_names_two_images_is_refused(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    for (image, named) in [(&signed, &unsigned), (&unsigned, &signed)] {
        let refusal = gate.cri().pull(image.by_tag()).user_specified(&named.by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    }
    let pulled = gate.cri().pull(signed.by_tag()).user_specified(&signed.by_tag()).expect();
    assert_eq!(pulled, signed.id, "as the kubelet sends it");
}

fn private_registry_is_asked_with_the_credentials_of_the_pull(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let proxy = Proxy::before(node.registry, |request| {
        // ada:one
        if request.headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Basic YWRhOm9uZQ==") {
            return Action::Pass;
        }
        let challenge = (header::WWW_AUTHENTICATE, r#"Basic realm="test""#.to_owned());
        Action::Answer(StatusCode::UNAUTHORIZED, vec![challenge], String::new())
    });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let pull = gate.cri().pull(space.name(&image).by_tag());
    for refusal in [pull.clone().expect_refusal(), pull.clone().credentials("ada", "two").expect_refusal()] {
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        assert!(refusal.message().contains("401"), "{refusal}");
        assert!(!refusal.message().contains("two"), "{refusal}");
    }
    assert_eq!(pull.clone().credentials("ada", "one").expect(), image.id);
    // Verified and present, but this tenant has not shown that it may pull.
    pull.credentials("bob", "two").expect_refusal();
}

/// Rule E1.
fn e1_answer_of_the_registry_is_handed_on(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let proxy = Proxy::before(node.registry, |request| match request.path.rsplit('/').next() {
        Some("1") => Action::Answer(StatusCode::FORBIDDEN, Vec::new(), String::new()),
        Some("2") => Action::Answer(StatusCode::TOO_MANY_REQUESTS, Vec::new(), String::new()),
        Some(_) | None => Action::Pass,
    });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let image = space.name(&image);
    for (tag, word) in [("1", "403"), ("2", "RegistryUnavailable: "), ("absent", "404")] {
        let refusal = gate.cri().pull(image.under(tag).by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        assert!(refusal.message().contains(word), "{word}: {refusal}");
        assert!(!refusal.message().contains("SignatureValidationFailed"), "{refusal}");
    }
}

/// A denial by the rule `signed` of the policy `keyed`, word by word (rules E1 and E3).
fn assert_denied(refusal: &Status, image: &str, cause: &str) {
    assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
    assert_eq!(refusal.message(), format!("SignatureValidationFailed: {image}: keyed/signed: {cause}"));
}
