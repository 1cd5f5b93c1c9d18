//! `compatibility: strict`: where upstream's answer is another than ours, both of them.

use super::*;
use crate::policy::entry::{Attestor, SignerKind};

fn strict() -> LoadOptions {
    LoadOptions { compatibility: Compatibility::Strict, ..options() }
}

/// The warnings for an entry with these fields.
fn warnings(fields: &Value, options: &LoadOptions) -> Vec<String> {
    let mut entry = json!({ "imageReferences": ["*"] });
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "p" },
        "spec": { "rules": [{
            "name": "r", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry],
        }] },
    });
    let source = PolicySource { file: PathBuf::from("p.yaml"), text: policy.to_string() };
    let notices = PolicySet::load(&[source], options).unwrap().notices;
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
