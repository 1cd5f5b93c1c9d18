//! `compatibility: strict`: where upstream's answer is another than ours, both of them.

use super::*;
use crate::policy::entry::{Attestor, SignerKind};

fn strict() -> LoadOptions {
    LoadOptions { compatibility: Compatibility::Strict, ..options() }
}

/// The warnings for an entry with these fields.
fn warnings(fields: &Value, options: &LoadOptions) -> Vec<String> {
    let notices = PolicySet::load(&[source_with(fields)], options).unwrap().notices;
    let warnings = notices.into_iter().filter(|remark| remark.severity == Severity::Warning);
    warnings.map(|remark| remark.message).collect()
}

fn kinds(set: &entry::AttestorSet) -> Vec<SignerKind> {
    let kind = |attestor: &Attestor| match attestor {
        Attestor::Signer(signer) => signer.kind,
        Attestor::Set(_) => panic!("a set"),
    };
    set.attestors.iter().map(kind).collect()
}

#[test]
fn q4_annotations_beside_image_alone_are_anybodys_under_strict() {
    let alone = json!({ "image": "registry.test/app*", "annotations": { "stage": "released" } });
    let entry = entry_with(alone.clone(), &strict());
    assert_eq!(kinds(&entry.sets[0]), [SignerKind::Unnamed]);
    assert!(entry.uses_trust_root());
    assert_eq!(
        warnings(&alone, &strict()),
        [
            "p/r: verifyImages[0]: annotations beside image without key or issuer: under compatibility: strict anybody's certificate with them counts, as upstream; add attestors"
        ]
    );
    // Beside attestors it is one more set, which a key's signature does not satisfy.
    let signer = Signer::p256();
    let beside = json!({ "image": "registry.test/app*", "annotations": { "a": "b" }, "attestors": [{ "entries": [key(&signer)] }] });
    assert_eq!(entry_with(beside.clone(), &strict()).sets.len(), 2);
    assert_eq!(super::entry(beside).sets.len(), 1);
    // Without image upstream does not look at them at all, so that nobody has signed.
    let ignored = entry_with(json!({ "annotations": { "a": "b" } }), &strict());
    let denied =
        denial(judged(&ignored, &signed(signer.layer(&test_signer::claim(&image(), "null"))), day()));
    assert_eq!(denied.detail, "unverified image registry.test/app:1");
}

#[test]
fn q5_the_first_key_of_a_text_counts_for_attestations_under_strict() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let keys =
        json!({ "keys": { "publicKeys": first.pem() + &second.pem(), "rekor": { "ignoreTlog": true } } });
    let fields = |count: u32| json!({ "attestations": [{ "type": SBOM, "attestors": [{ "count": count, "entries": [keys] }] }] });
    let by = |signer: &Signer| attested(envelope(signer, &image(), SBOM));
    let both =
        evidence(vec![], vec![envelope(&first, &image(), SBOM), envelope(&second, &image(), SBOM)], vec![]);
    for (count, options, evidence, holds) in [
        (1, options(), by(&first), true),
        (1, options(), by(&second), true),
        (0, options(), by(&first), false),
        (0, options(), both, true),
        (1, strict(), by(&first), true),
        (1, strict(), by(&second), false),
        (0, strict(), by(&first), true),
    ] {
        let verdict = judged(&entry_with(fields(count), &options), &evidence, day());
        assert_eq!(reason(&verdict).is_none(), holds, "{count} {:?}", options.compatibility);
    }
    assert_eq!(
        warnings(&fields(1), &strict()),
        [
            "p/r: verifyImages[0].attestations[0].attestors[0].entries[0]: keys.publicKeys holds 2 keys; under compatibility: strict the first alone counts for an attestation, as upstream; write each as an entry of its own"
        ]
    );
    // Signatures are not concerned.
    let signatures = json!({ "attestors": [{ "count": 1, "entries": [keys] }] });
    let by_second = signed(second.layer(&test_signer::claim(&image(), "null")));
    assert_eq!(reason(&judged(&entry_with(signatures, &strict()), &by_second, day())), None);
}

#[test]
fn q5_a_nested_attestor_of_an_attestation_is_anybody_under_strict() {
    let signer = Signer::p256();
    let nested = json!({ "attestor": { "entries": [key(&signer)] } });
    let fields = json!({ "attestations": [{ "type": SBOM, "attestors": [{ "entries": [nested] }] }] });
    let evidence = attested(envelope(&signer, &image(), SBOM));
    assert_eq!(reason(&judged(&entry(fields.clone()), &evidence, day())), None);
    let entry = entry_with(fields.clone(), &strict());
    assert_eq!(kinds(&entry.attestations[0].sets[0]), [SignerKind::Unnamed]);
    assert_eq!(reason(&judged(&entry, &evidence, day())), Some(DenialReason::Certificate));
    assert_eq!(
        warnings(&fields, &strict()),
        [
            "p/r: verifyImages[0].attestations[0].attestors[0].entries[0]: a nested attestor of an attestation is not read under compatibility: strict, as upstream, so anybody's certificate counts; list its entries here"
        ]
    );
    // In signatures it is read as everywhere.
    let signatures = json!({ "attestors": [{ "entries": [nested] }] });
    let by_key = signed(signer.layer(&test_signer::claim(&image(), "null")));
    assert_eq!(reason(&judged(&entry_with(signatures, &strict()), &by_key, day())), None);
}

#[test]
fn q7_a_pattern_that_a_digest_avoids_is_a_warning_under_strict() {
    let avoided = |pattern: &str| {
        let signer = Signer::p256();
        let fields = json!({ "imageReferences": [pattern], "attestors": [{ "entries": [key(&signer)] }] });
        assert!(warnings(&fields, &options()).is_empty(), "{pattern}");
        !warnings(&fields, &strict()).is_empty()
    };
    for (pattern, wanted) in [
        ("ghcr.io/org/app:*", true),
        ("ghcr.io/org/*:v1*", true),
        ("registry.test:5000/app:v?", true),
        ("ghcr.io/org/app*", false),
        ("ghcr.io/org/*:*", false),
        ("registry.test:5000/app", false),
        ("ghcr.io/org/app@sha256:*", false),
        ("*", false),
    ] {
        assert_eq!(avoided(pattern), wanted, "{pattern}");
    }
}

#[test]
fn q9_identity_and_annotations_may_be_of_two_signatures_under_strict() {
    let (world, other) = (World::new(), World::new());
    let attestor = json!({ "annotations": { "stage": "released" }, "keyless": world.keyless() });
    let fields = json!({ "attestors": [{ "entries": [attestor] }] });
    let strict_options = strict();
    assert_eq!(
        warnings(&fields, &strict_options),
        [
            "p/r: verifyImages[0].attestors[0].entries[0]: under compatibility: strict its annotations may stand on another signature than the identity's, as upstream, by anybody with a certificate of the same authorities"
        ]
    );
    assert!(warnings(&fields, &options()).is_empty());
    let (by_default, strict) = (entry(fields.clone()), entry_with(fields, &strict_options));
    let released = r#"{"stage":"released"}"#;
    let ours = || world.signature();
    let theirs = |optional: &str| world.signature_with(&world.leaf_of("deploy@example.test"), optional);
    let stranger = || other.signature_with(&other.leaf(), released);
    let both = || world.signature_with(&world.leaf(), released);
    for (pieces, default, under_strict) in [
        (vec![both()], None, None),
        (vec![ours(), theirs(released)], Some(DenialReason::AnnotationMismatch), None),
        (vec![theirs(released), ours()], Some(DenialReason::AnnotationMismatch), None),
        (vec![ours()], Some(DenialReason::AnnotationMismatch), Some(DenialReason::AnnotationMismatch)),
        (vec![theirs(released)], Some(DenialReason::IdentityMismatch), Some(DenialReason::IdentityMismatch)),
        (vec![ours(), stranger()], Some(DenialReason::TransparencyLog), Some(DenialReason::TransparencyLog)),
    ] {
        let evidence = evidence(pieces, vec![], vec![]);
        assert_eq!(reason(&judged(&by_default, &evidence, day())), default);
        assert_eq!(reason(&judged(&strict, &evidence, day())), under_strict);
    }
    assert_ne!(by_default.fingerprint(), strict.fingerprint());
    // A key is one signer: there is nothing to be apart.
    let signer = Signer::p256();
    let keyed = json!({ "annotations": { "stage": "released" }, "keys": { "publicKeys": signer.pem(), "rekor": { "ignoreTlog": true } } });
    let entry = entry_with(json!({ "attestors": [{ "entries": [keyed] }] }), &strict_options);
    let plain = signed(signer.layer(&test_signer::claim(&image(), "null")));
    assert_eq!(reason(&judged(&entry, &plain, day())), Some(DenialReason::AnnotationMismatch));
}
