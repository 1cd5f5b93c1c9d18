//! Everything that cosign signs by a real private Sigstore, verified by `pullgate verify` and by a
//! pull through the gate; and the same refused when another identity, issuer or root is asked for.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::kit::{
    Node, folder,
    gate::{self, Gate},
    image::Image,
    on_each_containerd,
    policy::Policy,
    sigstore::{Identity, OtherSigstore, PrivateSigstore, Signer, Stamp},
};

on_each_containerd!(
    sigstore_signs_what_cosign_itself_verifies,
    keyless_verifies_by_the_trust_root,
    keyless_verifies_by_the_trust_of_the_policy,
    keyless_of_another_identity_is_denied,
    keyless_of_another_issuer_is_denied,
    keyless_under_another_root_is_denied,
    keyless_without_a_log_entry_is_denied_where_one_is_asked_for,
    workflow_is_known_by_wildcards_and_extensions,
    annotations_and_identity_hold_on_one_signature,
    certificate_of_a_private_authority_verifies,
    certificate_that_ended_is_denied,
    attestations_of_several_types_and_signers,
    custom_predicate_is_wrapped_by_cosign,
    attestation_of_another_type_or_signer_is_denied,
);

const SIGNERS: [Signer; 2] = [Signer::Cosign2, Signer::Cosign3];
const SLSA: &str = "https://slsa.dev/provenance/v1";
const CUSTOM: &str = "https://cosign.sigstore.dev/attestation/v1";

/// What is trusted beside the policy.
#[derive(Clone)]
enum Trust {
    /// What pullgate brings: the public-good instance.
    Default,
    File(PathBuf),
}

/// The kit itself: what it signs is taken by the signers' own verification.
fn sigstore_signs_what_cosign_itself_verifies(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("sigstore_signs_what_cosign_itself_verifies") else {
        return;
    };
    let (alice, ci) = (Identity::email("alice@example.com"), Identity::workflow("org/app", "main"));
    for signer in SIGNERS {
        let image = node.space().image("app").push("1");
        sigstore.sign_keyless(signer, &image, &alice);
        assert!(sigstore.verifies(signer, &image, &alice), "{signer:?}");
        for other in [Identity::email("eve@example.com"), alice.clone().at_other_issuer(), ci.clone()] {
            assert!(!sigstore.verifies(signer, &image, &other), "{signer:?}: {}", other.subject);
        }
        sigstore.attest(signer, &image, &ci, "slsaprovenance1", &provenance());
        assert!(sigstore.verifies_attestation(signer, &image, &ci, "slsaprovenance1"), "{signer:?}");
        assert!(!sigstore.verifies_attestation(signer, &image, &ci, "spdx"), "{signer:?}");
        assert!(!sigstore.verifies_attestation(signer, &image, &alice, "slsaprovenance1"), "{signer:?}");
    }
}

fn keyless_verifies_by_the_trust_root(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_verifies_by_the_trust_root") else { return };
    let alice = Identity::email("alice@example.com");
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_keyless(signer, &image, &alice);
        let policy =
            space.policy("keyless").attestor(sigstore.entry(&alice, &PrivateSigstore::fields(signer)));
        allowed(node, &policy, &trust, &image);
    }
}

fn keyless_verifies_by_the_trust_of_the_policy(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_verifies_by_the_trust_of_the_policy") else {
        return;
    };
    let alice = Identity::email("alice@example.com");
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_keyless(signer, &image, &alice);
        let entry = sigstore.entry(&alice, &sigstore.fields_with_trust(signer));
        allowed(node, &space.policy("keyless").attestor(entry), &Trust::Default, &image);
    }
}

fn keyless_of_another_identity_is_denied(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_of_another_identity_is_denied") else { return };
    let (alice, eve) = (Identity::email("alice@example.com"), Identity::email("eve@example.com"));
    denied_to(node, sigstore, &eve, &alice);
}

fn keyless_of_another_issuer_is_denied(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_of_another_issuer_is_denied") else { return };
    let alice = Identity::email("alice@example.com");
    denied_to(node, sigstore, &alice.clone().at_other_issuer(), &alice);
}

/// What `by` signs is refused where `wanted` is asked for, by every signer.
fn denied_to(node: &Node, sigstore: &PrivateSigstore, by: &Identity, wanted: &Identity) {
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_keyless(signer, &image, by);
        let policy =
            space.policy("keyless").attestor(sigstore.entry(wanted, &PrivateSigstore::fields(signer)));
        denied(node, &policy, &trust, &image, "invalid signature");
    }
}

fn keyless_under_another_root_is_denied(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_under_another_root_is_denied") else { return };
    let alice = Identity::email("alice@example.com");
    let other = OtherSigstore::shared();
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_keyless(signer, &image, &alice);
        let policy =
            space.policy("keyless").attestor(sigstore.entry(&alice, &PrivateSigstore::fields(signer)));
        denied(node, &policy, &Trust::File(other.trusted_root()), &image, "invalid signature");
        denied(node, &policy, &Trust::Default, &image, "invalid signature");
        // One foreign part each: authorities, log, certificate log, timestamps.
        let fields = sigstore.fields_with_trust(signer);
        let mut foreign =
            vec![("/roots", "fulcio-chain"), ("/ctlog/pubkey", "ct"), ("/ctlog/tsaCertChain", "tsa-chain")];
        if signer == Signer::Cosign3 {
            foreign.push(("/rekor/pubkey", "rekor"));
        }
        for (pointer, file) in foreign {
            let mut fields = fields.clone();
            *fields.pointer_mut(pointer).expect("a field") = json!(other.pem(file));
            let policy = space.policy("keyless").attestor(sigstore.entry(&alice, &fields));
            let output = verify(&policy, &Trust::Default, &image);
            assert_eq!(output.status.code(), Some(1), "{signer:?} {pointer}: {output:?}");
        }
    }
}

fn keyless_without_a_log_entry_is_denied_where_one_is_asked_for(node: &Node) {
    let Some(sigstore) =
        PrivateSigstore::available("keyless_without_a_log_entry_is_denied_where_one_is_asked_for")
    else {
        return;
    };
    let alice = Identity::email("alice@example.com");
    let space = node.space();
    let image = space.image("app").push("1");
    sigstore.sign_keyless(Signer::Cosign2, &image, &alice);
    let entry = sigstore.entry(&alice, &PrivateSigstore::fields(Signer::Cosign3));
    let trust = Trust::File(sigstore.trusted_root());
    denied(node, &space.policy("keyless").attestor(entry), &trust, &image, "invalid signature");
}

fn workflow_is_known_by_wildcards_and_extensions(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("workflow_is_known_by_wildcards_and_extensions") else {
        return;
    };
    let main = Identity::workflow("org/app", "main");
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_keyless(signer, &image, &main);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut entry = sigstore.entry(&main, &PrivateSigstore::fields(signer));
            change(&mut entry["keyless"]);
            space.policy("keyless").attestor(entry)
        };
        let good: [&dyn Fn(&mut Value); 4] = [
            &|keyless| keyless["subject"] = json!("https://git.example/org/*@refs/heads/main"),
            &|keyless| {
                keyless.as_object_mut().expect("an object").remove("subject");
                keyless["subjectRegExp"] = json!("^https://git\\.example/org/app/.+@refs/heads/main$");
            },
            &|keyless| {
                keyless["additionalExtensions"] = json!({
                    "githubWorkflowRepository": "org/app", "githubWorkflowTrigger": "push",
                    "1.3.6.1.4.1.57264.1.14": "refs/heads/*",
                });
            },
            &|keyless| keyless["additionalExtensions"] = json!({"1.3.6.1.4.1.57264.1.11": "self-hosted"}),
        ];
        for change in good {
            let output = verify(&with(change), &trust, &image);
            assert_eq!(output.status.code(), Some(0), "{signer:?}: {output:?}");
        }
        let bad: [&dyn Fn(&mut Value); 3] = [
            &|keyless| keyless["subject"] = json!("https://git.example/org/*@refs/heads/release"),
            &|keyless| keyless["additionalExtensions"] = json!({"githubWorkflowRepository": "org/other"}),
            &|keyless| keyless["additionalExtensions"] = json!({"1.3.6.1.4.1.57264.1.24": "somebody else"}),
        ];
        for (number, change) in bad.into_iter().enumerate() {
            let output = verify(&with(change), &trust, &image);
            assert_eq!(output.status.code(), Some(1), "{signer:?}, {number}: {output:?}");
        }
    }
}

/// Pitfall of merging: the annotation of one signature and the identity of another do not add up.
fn annotations_and_identity_hold_on_one_signature(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("annotations_and_identity_hold_on_one_signature") else {
        return;
    };
    let (alice, bob) = (Identity::email("alice@example.com"), Identity::email("bob@example.com"));
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_annotated(signer, &image, &alice, ("env", "prod"));
        sigstore.sign_annotated(signer, &image, &bob, ("env", "test"));
        let policy = |identity: &Identity| {
            let mut entry = sigstore.entry(identity, &PrivateSigstore::fields(signer));
            entry["annotations"] = json!({"env": "prod"});
            space.policy("keyless").attestor(entry)
        };
        allowed(node, &policy(&alice), &trust, &image);
        let output = verify(&policy(&bob), &trust, &image);
        assert_eq!(output.status.code(), Some(1), "{signer:?}: {output:?}");
    }
}

fn certificate_of_a_private_authority_verifies(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("certificate_of_a_private_authority_verifies") else {
        return;
    };
    let builder = sigstore.certified("uri:https://builder.example/a");
    let other = sigstore.certified("uri:https://builder.example/b");
    for signer in SIGNERS {
        for stamp in [Stamp::Timestamp, Stamp::None] {
            let space = node.space();
            let image = space.image("app").push("1");
            sigstore.sign_certified(signer, &image, &builder, stamp);
            let policy = |certificates: Value| {
                let mut entry = json!({"certificates": certificates});
                entry["certificates"]["rekor"] = json!({"url": "https://rekor.invalid", "ignoreTlog": true});
                entry["certificates"]["ctlog"] =
                    json!({"ignoreSCT": true, "tsaCertChain": sigstore.pem("tsa-chain")});
                space.policy("certified").attestor(entry)
            };
            let named = json!({"cert": builder.certificate, "certChain": builder.chain});
            allowed(node, &policy(named), &Trust::Default, &image);
            let of_chain = verify(&policy(json!({"certChain": builder.chain})), &Trust::Default, &image);
            assert_eq!(of_chain.status.code(), Some(0), "{signer:?}: {of_chain:?}");
            let foreign = json!({"cert": other.certificate, "certChain": other.chain});
            denied(node, &policy(foreign), &Trust::Default, &image, "invalid signature");
            let foreign = json!({"certChain": OtherSigstore::shared().pem("private-chain")});
            let output = verify(&policy(foreign), &Trust::Default, &image);
            assert_eq!(output.status.code(), Some(1), "{signer:?}: {output:?}");
        }
    }
}

/// Neither a timestamp after its end nor none at all makes it good; nor does what is said to be now.
fn certificate_that_ended_is_denied(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("certificate_that_ended_is_denied") else { return };
    let ended = sigstore.certified_before("uri:https://builder.example/a");
    for stamp in [Stamp::Timestamp, Stamp::None] {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.sign_certified(Signer::Cosign2, &image, &ended, stamp);
        let entry = json!({"certificates": {
            "certChain": ended.chain,
            "rekor": {"url": "https://rekor.invalid", "ignoreTlog": true},
            "ctlog": {"ignoreSCT": true, "tsaCertChain": sigstore.pem("tsa-chain")},
        }});
        denied(
            node,
            &space.policy("certified").attestor(entry),
            &Trust::Default,
            &image,
            "invalid signature",
        );
    }
}

fn attestations_of_several_types_and_signers(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("attestations_of_several_types_and_signers") else {
        return;
    };
    let (ci, auditor) = (Identity::workflow("org/app", "main"), Identity::email("auditor@example.com"));
    let trust = Trust::File(sigstore.trusted_root());
    let vex = "https://openvex.dev/ns";
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.attest(signer, &image, &ci, "slsaprovenance1", &provenance());
        sigstore.attest(signer, &image, &ci, "openvex", &json!({"statements": []}));
        sigstore.attest(signer, &image, &auditor, "https://audit.example/v1", &json!({"passed": true}));
        let fields = PrivateSigstore::fields(signer);
        let (by_ci, by_auditor) = (sigstore.entry(&ci, &fields), sigstore.entry(&auditor, &fields));
        let policy = space
            .policy("attested")
            .attestation(SLSA, &by_ci)
            .attestation(vex, &by_ci)
            .attestation("https://audit.example/v1", &by_auditor);
        allowed(node, &policy, &trust, &image);
        let swapped = space.policy("attested").attestation(SLSA, &by_ci).attestation(vex, &by_auditor);
        denied(node, &swapped, &trust, &image, "");
    }
}

/// cosign puts a custom predicate below `Data` and adds a time.
fn custom_predicate_is_wrapped_by_cosign(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("custom_predicate_is_wrapped_by_cosign") else { return };
    let ci = Identity::workflow("org/app", "main");
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.attest(signer, &image, &ci, "custom", &json!({"approved": true}));
        let entry = sigstore.entry(&ci, &PrivateSigstore::fields(signer));
        allowed(node, &space.policy("attested").attestation(CUSTOM, &entry), &trust, &image);
    }
}

fn attestation_of_another_type_or_signer_is_denied(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("attestation_of_another_type_or_signer_is_denied") else {
        return;
    };
    let (ci, fork) = (Identity::workflow("org/app", "main"), Identity::workflow("fork/app", "main"));
    let trust = Trust::File(sigstore.trusted_root());
    for signer in SIGNERS {
        let space = node.space();
        let image = space.image("app").push("1");
        sigstore.attest(signer, &image, &fork, "slsaprovenance1", &provenance());
        sigstore.attest(signer, &image, &ci, "spdxjson", &json!({"spdxVersion": "SPDX-2.3"}));
        sigstore.sign_keyless(signer, &image, &ci);
        let fields = PrivateSigstore::fields(signer);
        let by_ci = sigstore.entry(&ci, &fields);
        denied(node, &space.policy("attested").attestation(SLSA, &by_ci), &trust, &image, "");
        // An attestation is no signature.
        let unsigned = space.image("unsigned").push("1");
        sigstore.attest(signer, &unsigned, &ci, "slsaprovenance1", &provenance());
        denied(node, &space.policy("keyless").attestor(by_ci), &trust, &unsigned, "signature");
    }
}

/// As much as cosign asks of one.
fn provenance() -> Value {
    json!({
        "buildDefinition": {"buildType": "https://build.example/v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": "https://builder.example"}},
    })
}

/// `pullgate verify` allows it, and a pull through the gate succeeds.
fn allowed(node: &Node, policy: &Policy, trust: &Trust, image: &Image) {
    let output = verify(policy, trust, image);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(gate(node, policy, trust).cri().pull(image.by_tag()).expect(), image.id);
}

/// Both refuse it, for a cause that begins so.
fn denied(node: &Node, policy: &Policy, trust: &Trust, image: &Image, cause: &str) {
    let output = verify(policy, trust, image);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let refusal = gate(node, policy, trust).cri().pull(image.by_tag()).expect_refusal();
    let message = refusal.message();
    assert!(message.starts_with(&format!("SignatureValidationFailed: {}: ", image.by_tag())), "{message}");
    assert!(message.contains(&format!("/signed: {cause}")), "{message}");
}

fn gate(node: &Node, policy: &Policy, trust: &Trust) -> Gate {
    let builder = Gate::before(&node.containerd).policies(std::slice::from_ref(policy));
    match trust {
        Trust::Default => builder.start(),
        Trust::File(file) => builder.set("/trust", json!({"root": file})).start(),
    }
}

fn verify(policy: &Policy, trust: &Trust, image: &Image) -> Output {
    let file = folder().join("policy.yaml");
    std::fs::write(&file, format!("{:#}", policy.document())).expect("a policy file");
    let mut command = Command::new(gate::binary());
    command.args(["verify", "--explain", "-p"]).arg(file).env_remove("DOCKER_CONFIG");
    if let Trust::File(root) = trust {
        command.arg("--trusted-root").arg::<&Path>(root);
    }
    command.arg(image.by_tag()).output().expect("pullgate")
}
