//! Judging attestations; and storage forms, limits, time and trust roots, which concern both kinds.

use super::*;

// Attestations.

fn attestation(attestors: Value) -> Arc<Entry> {
    entry(json!({ "attestations": [{ "type": SBOM, "attestors": [{ "entries": [attestors] }] }] }))
}

#[test]
fn an_attestation_counts_in_either_form_by_its_signed_type() {
    let signer = Signer::p256();
    let entry = attestation(key(&signer));
    assert!(entry.repositories(reference().repository()).is_empty(), "no `.sig` is looked for");
    let wanted: Vec<_> = entry.attestations(reference().repository()).into_iter().collect();
    assert_eq!(wanted, [(reference().repository().clone(), [SBOM.to_owned()].into())]);
    let tag = attested(envelope(&signer, &image(), SBOM));
    assert_eq!(reason(&judged(&entry, &tag, day())), None);
    // What the layer says of its type is not signed.
    let mut mislabelled = envelope(&signer, &image(), SBOM);
    annotations_of(&mut mislabelled).insert("predicateType".into(), OTHER.into());
    assert_eq!(reason(&judged(&entry, &attested(mislabelled), day())), None);
    let bundles = evidence(vec![], vec![], vec![bundle(&signer, OTHER), bundle(&signer, SBOM)]);
    assert_eq!(reason(&judged(&entry, &bundles, day())), None);
    let mut unasked = tag.clone();
    unasked.bundles.clear();
    assert_eq!(reason(&judged(&entry, &unasked, day())), None, "the tag is enough");
    unasked.attestations.insert(reference().repository().clone(), Lookup::Absent);
    assert_eq!(judged(&entry, &unasked, day()), EntryVerdict::NeedsBundles);
}

#[test]
fn pitfall_04_no_attestation_and_attestations_of_other_types_are_not_enough() {
    let signer = Signer::p256();
    let entry = attestation(key(&signer));
    let none = denial(judged(&entry, &evidence(vec![], vec![], vec![]), day()));
    assert_eq!(
        (none.reason, none.cause.as_str()),
        (DenialReason::AttestationNotFound, "attestation not found")
    );
    assert_eq!(
        none.detail,
        "image attestations verification failed, verifiedCount: 0, requiredCount: 1, error: .attestations[0].attestors[0].entries[0].keys: no matching attestations: "
    );
    let layers = vec![envelope(&signer, &image(), OTHER)];
    let bundles = vec![bundle(&signer, OTHER), bundle(&signer, "https://sigstore.dev/cosign/sign/v1")];
    let other = denial(judged(&entry, &evidence(vec![], layers, bundles), day()));
    assert_eq!(other.reason, DenialReason::AttestationNotFound);
    assert_eq!(
        other.detail,
        format!(
            "image attestations verification failed, verifiedCount: 0, requiredCount: 1, error: .attestations[0].attestors[0].entries[0].keys: attestations not found for predicate type {SBOM}"
        )
    );
    // A signature of the image is no attestation, wherever it lies.
    let signature = vec![signer.layer(&test_signer::claim(&image(), "null"))];
    let verdict = judged(&entry, &evidence(signature.clone(), vec![], signature), day());
    assert_eq!(reason(&verdict), Some(DenialReason::AttestationNotFound));
    // And an attestation no signature.
    let verdict = judged(&one(key(&signer)), &evidence(vec![], vec![], vec![bundle(&signer, SBOM)]), day());
    assert_eq!(reason(&verdict), Some(DenialReason::SignatureNotFound));
}

#[test]
fn pitfall_13_each_field_of_attestations_denies_when_it_is_wrong() {
    let (world, other) = (World::new(), World::new());
    let evidence = attested(world.attestation(SBOM));
    let keyless = with(world.keyless(), "/rekor", json!({ "url": "https://log.test", "ignoreTlog": true }));
    let verdict = |attestation: Value| {
        let entry = entry(json!({ "attestations": [attestation] }));
        reason(&judged(&entry, &evidence, at(TIME)))
    };
    let attestors = |keyless: Value| json!([{ "entries": [{ "keyless": keyless }] }]);
    let right = attestors(keyless.clone());
    assert_eq!(verdict(json!({ "type": SBOM, "attestors": right })), None);
    assert_eq!(verdict(json!({ "predicateType": SBOM, "attestors": right })), None);
    let not_found = Some(DenialReason::AttestationNotFound);
    assert_eq!(verdict(json!({ "type": OTHER, "attestors": right })), not_found);
    assert_eq!(verdict(json!({ "type": "https://spdx.dev/*", "attestors": right })), not_found);
    assert_eq!(verdict(json!({ "predicateType": OTHER, "attestors": right })), not_found);
    for (pointer, value, expected) in [
        ("/subject", json!("deploy@example.test"), DenialReason::IdentityMismatch),
        ("/issuer", json!("https://other.test"), DenialReason::IdentityMismatch),
        ("/roots", json!(other.root()), DenialReason::Certificate),
        ("/ctlog/pubkey", json!(other.certificate_log.pem()), DenialReason::Certificate),
        ("/rekor/ignoreTlog", Value::Null, DenialReason::TransparencyLog),
    ] {
        let wrong = attestors(with(keyless.clone(), pointer, value));
        assert_eq!(verdict(json!({ "type": SBOM, "attestors": wrong })), Some(expected), "{pointer}");
    }
    let wrong_key = json!([{ "entries": [key(&other.signer)] }]);
    let invalid = Some(DenialReason::AttestationInvalid);
    assert_eq!(verdict(json!({ "type": SBOM, "attestors": wrong_key })), invalid);
    // Annotations are not in an attestation.
    let annotated = json!([{ "entries": [{ "annotations": { "a": "b" }, "keyless": keyless }] }]);
    let mismatch = Some(DenialReason::AnnotationMismatch);
    assert_eq!(verdict(json!({ "type": SBOM, "attestors": annotated })), mismatch);
}

#[test]
fn every_attestation_every_set_and_the_attestors_must_hold() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let of =
        |kind: &str, signer: &Signer| json!({ "type": kind, "attestors": [{ "entries": [key(signer)] }] });
    let both = json!({ "attestations": [of(SBOM, &signer), of(OTHER, &signer)] });
    let layer = |kind: &str| envelope(&signer, &image(), kind);
    let one_of_two = attested(layer(SBOM));
    let denied = denial(judged(&entry(both.clone()), &one_of_two, day()));
    assert_eq!(denied.reason, DenialReason::AttestationNotFound);
    assert!(denied.detail.contains(".attestations[1].attestors[0].entries[0].keys: "), "{}", denied.detail);
    let all = evidence(vec![], vec![layer(SBOM), layer(OTHER)], vec![]);
    assert_eq!(reason(&judged(&entry(both), &all, day())), None);
    // The attestors come first and are not made good by attestations.
    let signed = json!({ "attestors": [{ "entries": [key(&signer)] }], "attestations": [of(SBOM, &signer)] });
    assert_eq!(reason(&judged(&entry(signed), &all, day())), Some(DenialReason::SignatureNotFound));
    // Several keys and sets in sets are read in attestations too.
    let keys =
        json!({ "keys": { "publicKeys": signer.pem() + &other.pem(), "rekor": { "ignoreTlog": true } } });
    let counted = |count: u32| {
        let set = json!({ "count": count, "entries": [{ "attestor": { "count": count, "entries": [keys, key(&other)] } }] });
        entry(json!({ "attestations": [{ "type": SBOM, "attestors": [set] }] }))
    };
    assert_eq!(reason(&judged(&counted(1), &all, day())), None);
    let denied = denial(judged(&attestation(keys), &all, day()));
    assert_eq!(denied.reason, DenialReason::AttestationInvalid);
    assert!(
        denied.detail.contains("verifiedCount: 1, requiredCount: 2, error: .attestations[0]"),
        "{}",
        denied.detail
    );
}

#[test]
fn q4_without_attestors_somebody_must_have_signed_with_a_log_entry() {
    let world = World::new();
    let entry = entry(json!({ "attestations": [{ "type": SBOM }], "roots": world.root() }));
    let denied = denial(judged(&entry, &attested(world.attestation(SBOM)), at(TIME)));
    assert_eq!(denied.reason, DenialReason::TransparencyLog);
    assert!(denied.detail.contains("error: .attestations[0].attestors[0].entries[0]: "), "{}", denied.detail);
    let by_key = attested(envelope(&world.signer, &image(), SBOM));
    assert_eq!(reason(&judged(&entry, &by_key, at(TIME))), Some(DenialReason::Certificate));
}

// Forms.

#[test]
fn pitfall_13_type_and_cosign_oci11_say_which_forms_count() {
    let signer = Signer::p256();
    let layer = signer.layer(&test_signer::claim(&image(), "null"));
    let wrapped = bundle(&signer, "https://sigstore.dev/cosign/sign/v1");
    let strict = LoadOptions { compatibility: Compatibility::Strict, ..options() };
    let entry = |options: &LoadOptions, more: Value| {
        let mut fields = json!({ "attestors": [{ "entries": [key(&signer)] }] });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry_with(fields, options)
    };
    let oci11 = || json!({ "cosignOCI11": true });
    for (entry, forms, tag, artifact, referrer) in [
        (entry(&options(), json!({})), Forms::LegacyThenBundles, true, true, true),
        (entry(&options(), oci11()), Forms::LegacyThenBundles, true, true, true),
        (entry(&options(), json!({ "type": "SigstoreBundle" })), Forms::Bundles, false, false, true),
        (entry(&strict, json!({})), Forms::Legacy, true, false, false),
        (entry(&strict, oci11()), Forms::LegacyAndArtifacts, true, true, false),
    ] {
        assert_eq!(entry.forms(), forms);
        let counts = |evidence: &Evidence| reason(&judged(&entry, evidence, day())).is_none();
        assert_eq!(counts(&signed(layer.clone())), tag, "{forms:?}");
        assert_eq!(counts(&evidence(vec![], vec![], vec![layer.clone()])), artifact, "{forms:?}");
        assert_eq!(counts(&evidence(vec![], vec![], vec![wrapped.clone()])), referrer, "{forms:?}");
    }
}

#[test]
fn at_most_a_hundred_are_verified_for_one_verdict() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let bad = other.layer(&test_signer::claim(&image(), "null"));
    let good = signer.layer(&test_signer::claim(&image(), "null"));
    let entry = one(key(&signer));
    let mut pieces = vec![bad; 99];
    pieces.push(good);
    assert_eq!(reason(&judged(&entry, &evidence(pieces.clone(), vec![], vec![]), day())), None);
    pieces.swap(0, 99);
    pieces.insert(0, pieces[50].clone());
    pieces.swap(1, 100);
    assert_eq!(
        reason(&judged(&entry, &evidence(pieces, vec![], vec![]), day())),
        Some(DenialReason::LimitExceeded)
    );
    // Attestations that say that they are of another type wait.
    let mut layers = vec![envelope(&other, &image(), OTHER); 200];
    layers.push(envelope(&signer, &image(), SBOM));
    assert_eq!(reason(&judged(&attestation(key(&signer)), &evidence(vec![], layers, vec![]), day())), None);
}

// Time and trust roots.

#[test]
fn d8_a_verdict_without_a_proven_time_ends_with_the_certificate() {
    let world = World::new();
    let now_only = with(world.keyless(), "/rekor", json!({ "url": "https://log.test", "ignoreTlog": true }));
    let until = |keyless: Value, now: SystemTime| match judged(
        &one(json!({ "keyless": keyless })),
        &signed(world.signature()),
        now,
    ) {
        EntryVerdict::Satisfied(satisfied) => satisfied.holds_until(),
        other @ (EntryVerdict::Denied(_) | EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(until(world.keyless(), day()), None);
    assert_eq!(until(now_only.clone(), at(TIME)), Some(at(TIME + 1800)));
    // The earliest end of all that counts.
    let set = json!({ "attestors": [
        { "entries": [{ "keyless": world.keyless() }, { "keyless": now_only }] },
        { "entries": [key(&world.signer)] },
    ] });
    let EntryVerdict::Satisfied(both) = judged(&entry(set), &signed(world.signature()), at(TIME)) else {
        panic!("not satisfied")
    };
    assert_eq!(both.holds_until(), Some(at(TIME + 1800)));
}

#[test]
fn o3_without_a_trust_root_only_what_needs_it_is_undecided() {
    let away = LoadOptions { trust_root: RootSource::Unavailable("no root".into()), ..options() };
    let world = World::new();
    let sets = |first: Value, second: Value, count: u32| {
        entry_with(json!({ "attestors": [{ "count": count, "entries": [first, second] }] }), &away)
    };
    let needy = || json!({ "keyless": with(world.keyless(), "/rekor/pubkey", Value::Null) });
    let own = || json!({ "keyless": world.keyless() });
    let evidence = signed(world.signature());
    let fault = Fault::new(FaultReason::TrustRootUnavailable, "no root");
    assert_eq!(fault.contact, Contact::Answered, "it never passes under failurePolicy: Ignore");
    let both = sets(needy(), own(), 2);
    assert_eq!(judged(&both, &evidence, day()), EntryVerdict::Undecided(fault.clone()));
    assert!(matches!(judged(&sets(needy(), own(), 1), &evidence, day()), EntryVerdict::Satisfied(_)));
    assert!(matches!(judged(&sets(own(), own(), 2), &evidence, day()), EntryVerdict::Satisfied(_)));
    // A set that fails for certain decides.
    let denied = json!({ "attestors": [{ "entries": [needy()] }, { "entries": [key(&Signer::p256())] }] });
    assert_eq!(
        reason(&judged(&entry_with(denied, &away), &evidence, day())),
        Some(DenialReason::SignatureInvalid)
    );
    // Even what nobody signed is not denied: nothing is known.
    assert_eq!(judged(&both, &self::evidence(vec![], vec![], vec![]), day()), EntryVerdict::Undecided(fault));
}

#[test]
fn what_cannot_be_reached_is_undecided_for_attestations_too() {
    let signer = Signer::p256();
    let entry = attestation(key(&signer));
    let fault = Fault::unanswered(FaultReason::RegistryUnreachable, "away");
    let mut evidence = evidence(vec![], vec![], vec![]);
    let repository = reference().repository().clone();
    evidence.attestations.insert(repository.clone(), Lookup::Unreachable(fault.clone()));
    assert_eq!(judged(&entry, &evidence, day()), EntryVerdict::Undecided(fault.clone()));
    evidence.bundles.insert(repository.clone(), Lookup::Found(vec![bundle(&signer, SBOM)]));
    assert_eq!(reason(&judged(&entry, &evidence, day())), None);
    evidence.bundles.insert(repository, Lookup::Found(vec![bundle(&Signer::p256(), SBOM)]));
    assert_eq!(judged(&entry, &evidence, day()), EntryVerdict::Undecided(fault));
}
