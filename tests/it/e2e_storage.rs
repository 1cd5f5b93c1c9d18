//! Where signatures may be stored, and what an index and its children say of each other (rule D7).

use std::process::Command;

use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::kit::{self, Node, Space, cosign::Key, folder, gate::Gate, image::Image, registry::Registry};

kit::on_each_containerd!(
    experimental_signatures_among_the_referrers_count,
    experimental_signatures_count_under_strict_where_the_entry_asks,
    attestations_count_in_every_form_and_place,
    bundles_in_another_repository_count_where_the_policy_says_so,
    pitfall_27_signature_of_an_index_is_none_of_its_children_until_it_is_admitted,
    child_of_an_unsigned_index_passes_by_its_own_signature,
    pitfall_27_index_that_lists_a_good_child_admits_nothing,
    pitfall_27_admitted_index_admits_in_its_own_repository_only,
    index_that_a_rule_let_pass_admits_no_child,
);

fn experimental_signatures_among_the_referrers_count(node: &Node) {
    for registry in [Registry::olareg(), Registry::docker()] {
        node.containerd.knows_host(registry.host());
        let space = Space::on(&registry);
        let [ours, both, theirs, bundled] =
            ["ours", "both", "theirs", "bundled"].map(|name| space.image(name).push("1"));
        node.key.sign_experimental(&ours);
        // cosign itself looks at the last one only.
        node.key.sign_experimental(&both);
        node.other_key.sign_experimental(&both);
        node.other_key.sign_experimental(&theirs);
        node.key.sign_experimental(&bundled);
        let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
        for image in [&ours, &both] {
            assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{}", image.by_tag());
        }
        let refusal = gate.cri().pull(theirs.by_tag()).expect_refusal();
        assert_denied(&refusal, &theirs.by_tag(), "invalid signature");
        drop(gate);
        // A bundle is a bundle.
        let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key).bundles_only()]);
        let refusal = gate.cri().pull(bundled.by_tag()).expect_refusal();
        assert_denied(&refusal, &bundled.by_tag(), "signature not found");
    }
}

/// Upstream reads them only then, and bundles never beside them.
fn experimental_signatures_count_under_strict_where_the_entry_asks(node: &Node) {
    let space = node.space();
    let [experimental, bundled] = ["experimental", "bundled"].map(|name| space.image(name).push("1"));
    node.key.sign_experimental(&experimental);
    node.key.sign_bundle(&bundled);
    let entry = |asks: bool| json!({"imageReferences": ["*"], "cosignOCI11": asks, "attestors": [{"entries": [keys(node.key)]}]});
    for (image, asks, code) in
        [(&experimental, true, 0), (&experimental, false, 1), (&bundled, true, 1), (&bundled, false, 1)]
    {
        assert_eq!(verify(&entry(asks), "strict", image), code, "{} {asks}", image.by_tag());
    }
    for (image, asks) in [(&experimental, true), (&experimental, false), (&bundled, true), (&bundled, false)]
    {
        assert_eq!(verify(&entry(asks), "default", image), 0, "{} {asks}", image.by_tag());
    }
}

fn attestations_count_in_every_form_and_place(node: &Node) {
    const TYPE: &str = "https://example.com/checked/v1";
    for registry in [Registry::olareg(), Registry::docker()] {
        let space = Space::on(&registry);
        let elsewhere = space.repository("attestations");
        for program in ["cosign-2", "cosign-3"] {
            let [own, other] =
                ["own", "other"].map(|name| space.image(&format!("{program}-{name}")).push("1"));
            for image in [&own, &other] {
                let place = (image.digest == other.digest).then_some(elsewhere.as_str());
                // Others about the same image, of another type or by somebody else, change nothing.
                node.key.attest(program, image, "https://example.com/other/v1", place);
                node.other_key.attest(program, image, TYPE, place);
                node.key.attest(program, image, TYPE, place);
            }
            let entry = |kind: &str, key: &Key, repository: Option<&str>| {
                let attestors = json!([{"entries": [keys(key)]}]);
                let attestation = json!({"type": kind, "attestors": attestors});
                let mut entry = json!({"imageReferences": ["*"], "attestations": [attestation]});
                if let Some(repository) = repository {
                    entry["repository"] = json!(repository);
                }
                entry
            };
            let unknown = "https://example.com/unknown/v1";
            let elsewhere = Some(elsewhere.as_str());
            for (image, kind, repository, code) in [
                (&own, TYPE, None, 0),
                (&own, unknown, None, 1),
                (&own, TYPE, elsewhere, 1),
                (&other, TYPE, elsewhere, 0),
                (&other, TYPE, None, 1),
            ] {
                let entry = entry(kind, node.key, repository);
                assert_eq!(
                    verify(&entry, "default", image),
                    code,
                    "{} {kind} {repository:?}",
                    image.by_tag()
                );
            }
            assert_eq!(
                verify(&entry("https://example.com/other/v1", node.other_key, None), "default", &own),
                1
            );
        }
    }
}

/// An attestor: this key, without a log.
fn keys(key: &Key) -> Value {
    json!({"keys": {"publicKeys": key.public, "rekor": {"ignoreTlog": true}, "ctlog": {"ignoreSCT": true}}})
}

/// The exit code of `pullgate verify` by one entry.
fn verify(entry: &Value, compatibility: &str, image: &Image) -> i32 {
    let folder = folder();
    let rule = json!({
        "name": "signed", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]}, "verifyImages": [entry],
    });
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "keyed"},
        "spec": {"validationFailureAction": "Enforce", "rules": [rule]},
    });
    let policies = folder.join("policy.json");
    std::fs::write(&policies, policy.to_string()).expect("a policy");
    let config = folder.join("config.yaml");
    let text = json!({"policy": {"paths": [policies], "compatibility": compatibility}});
    std::fs::write(&config, text.to_string()).expect("a config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullgate"));
    command.arg("verify").arg("--config").arg(&config).arg(image.by_tag()).env_remove("DOCKER_CONFIG");
    let output = command.output().expect("pullgate");
    let code = output.status.code().expect("an exit code");
    // Neither a usage error nor a fault is an answer.
    assert!(matches!(code, 0 | 1), "{output:?}");
    code
}

fn bundles_in_another_repository_count_where_the_policy_says_so(node: &Node) {
    for registry in [Registry::olareg(), Registry::docker()] {
        node.containerd.knows_host(registry.host());
        let space = Space::on(&registry);
        let image = space.image("app").push("1");
        let signatures = space.repository("signatures");
        node.key.sign_bundle_in(&signatures, &image);
        let elsewhere = space.policy("keyed").key(node.key).repository(&signatures);
        let gate = Gate::start(&node.containerd, &[elsewhere]);
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
        drop(gate);
        let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
        let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
        assert_denied(&refusal, &image.by_tag(), "signature not found");
    }
}

fn pitfall_27_signature_of_an_index_is_none_of_its_children_until_it_is_admitted(node: &Node) {
    let space = node.space();
    let (index, [here, there]) = space.image("app").push_index("1");
    node.key.sign(&index);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    for child in [&here, &there] {
        let refusal = gate.cri().pull(child.by_digest()).expect_refusal();
        assert_denied(&refusal, &child.by_digest(), "signature not found");
    }
    assert_eq!(gate.cri().pull(index.by_digest()).expect(), here.id);
    for child in [&here, &there] {
        // The denial may be remembered for a moment; the index is looked at all the same.
        assert_eq!(gate.cri().pull(child.by_digest()).expect(), child.id);
    }
    // A tag stands for what it resolves to, not for an index that lists it.
    let refusal = gate.cri().pull(there.by_tag()).expect_refusal();
    assert_denied(&refusal, &there.by_tag(), "signature not found");
}

fn child_of_an_unsigned_index_passes_by_its_own_signature(node: &Node) {
    let space = node.space();
    let (index, [here, there]) = space.image("app").push_index("1");
    node.key.sign(&here);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(here.by_digest()).expect(), here.id);
    assert_eq!(gate.cri().pull(here.by_tag()).expect(), here.id);
    for (image, name) in [(&index, index.by_tag()), (&index, index.by_digest()), (&there, there.by_digest())]
    {
        let refusal = gate.cri().pull(name.clone()).expect_refusal();
        assert_denied(&refusal, &name, "signature not found");
        assert_ne!(image.digest, here.digest);
    }
}

/// Whoever may push writes an index around a good child and a bad one.
fn pitfall_27_index_that_lists_a_good_child_admits_nothing(node: &Node) {
    let space = node.space();
    let (good, [good_child, _]) = space.image("app").push_index("good");
    node.key.sign(&good);
    let evil_child = space.image("app").user("0").push("evil-child");
    let evil = space.image("app").push_index_of("evil", [&good_child, &evil_child]);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(good.by_tag()).expect(), good.id);
    assert_eq!(gate.cri().pull(good_child.by_digest()).expect(), good_child.id);
    for image in [&evil, &evil_child] {
        let refusal = gate.cri().pull(image.by_digest()).expect_refusal();
        assert_denied(&refusal, &image.by_digest(), "signature not found");
    }
    // Signed by somebody else, it is no better.
    node.other_key.sign(&evil);
    let refusal = gate.cri().pull(evil.by_tag()).expect_refusal();
    assert_denied(&refusal, &evil.by_tag(), "invalid signature");
    gate.cri().pull(evil_child.by_digest()).expect_refusal();
}

fn pitfall_27_admitted_index_admits_in_its_own_repository_only(node: &Node) {
    let space = node.space();
    let (index, [here, there]) = space.image("app").push_index("1");
    node.key.sign(&index);
    // The same bytes elsewhere, without the signature.
    let copy = space.image("copy").push_index_of("1", [&here, &there]);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    assert_eq!(gate.cri().pull(index.by_tag()).expect(), here.id);
    assert_eq!(copy.digest, index.digest);
    let child = here.at(copy.repository.clone());
    for name in [copy.by_tag(), copy.by_digest(), child.by_digest()] {
        let refusal = gate.cri().pull(name.clone()).expect_refusal();
        assert_denied(&refusal, &name, "signature not found");
    }
}

fn index_that_a_rule_let_pass_admits_no_child(node: &Node) {
    let space = node.space();
    let (index, [here, _]) = space.image("app").push_index("1");
    let policies = [space.policy("keyed").namespace("red").key(node.key)];
    let gate = Gate::before(&node.containerd).policies(&policies).start();

    // No rule covers it in this namespace, so it was admitted there; that proves nothing.
    assert_eq!(gate.cri().pull(index.by_tag()).pod("blue", &[]).expect(), here.id);
    let refusal = gate.cri().pull(here.by_digest()).pod("red", &[]).expect_refusal();
    assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
    assert!(refusal.message().contains("signature not found"), "{refusal}");
}

/// A denial by the rule `signed` of the policy `keyed`, word by word (rules E1 and E3).
fn assert_denied(refusal: &Status, image: &str, cause: &str) {
    assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
    assert_eq!(refusal.message(), format!("SignatureValidationFailed: {image}: keyed/signed: {cause}"));
}
