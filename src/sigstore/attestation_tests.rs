//! Attestations: statements of any predicate type but that of signatures.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::outcome::DenialReason;
use crate::sigstore::test_pki::at;
use crate::sigstore::test_signer::{Signer as Keys, TIME, attestation, claim, statement};
use crate::sigstore::test_sigstore::{ISSUER, Instance, Signature, image};
use crate::sigstore::{IdentityText, JsonError, KeyKind, Limited, LogTrust, SignatureEvidence};

const TYPE: &str = "https://slsa.dev/provenance/v1";

fn attestor(signer: &Keys) -> Attestor {
    Attestor { log: LogTrust::Ignored, ..Instance::new().key(signer) }
}

fn layer(envelope: &str) -> SignatureEvidence {
    SignatureEvidence::AttestationLayer {
        envelope: envelope.as_bytes().to_vec(),
        annotations: [("dev.cosignproject.cosign/signature".to_owned(), String::new())].into(),
    }
}

fn bundle(bundle: &Value) -> SignatureEvidence {
    SignatureEvidence::Bundle { json: bundle.to_string().into_bytes() }
}

fn verify(
    evidence: &SignatureEvidence,
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<VerifiedStatement, Rejection> {
    verify_statement(evidence, subject, attestor, now).map_err(|rejected| rejected.rejection)
}

/// Both forms of one statement, by one signer; their verdicts are the same.
fn judge(statement: &str) -> Result<VerifiedStatement, Rejection> {
    let signer = Keys::p256();
    let judge = |evidence| verify(&evidence, &image(), &attestor(&signer), at(TIME));
    let (as_layer, as_bundle) =
        (judge(layer(&signer.envelope(statement))), judge(bundle(&signer.bundle(statement))));
    assert_eq!(
        as_layer.as_ref().map(VerifiedStatement::predicate),
        as_bundle.as_ref().map(VerifiedStatement::predicate)
    );
    as_layer
}

/// A layer whose envelope is changed after it was signed.
fn judge_envelope(change: impl FnOnce(&mut Value)) -> Result<(), Rejection> {
    let signer = Keys::p256();
    let mut envelope = serde_json::from_str(&signer.envelope(&good())).unwrap();
    change(&mut envelope);
    verify(&layer(&envelope.to_string()), &image(), &attestor(&signer), at(TIME)).map(drop)
}

fn good() -> String {
    attestation(&image(), TYPE, r#"{"builder":{"id":"b"},"level":3}"#)
}

#[test]
fn tells_what_was_attested() {
    let verified = judge(&good()).unwrap();
    assert_eq!(verified.digest(), image());
    assert_eq!(verified.predicate_type(), TYPE);
    assert_eq!(verified.predicate(), &json!({"builder": {"id": "b"}, "level": 3}));
    assert_eq!(verified.annotations(), &BTreeMap::new());
    assert_eq!(verified.proven().form(), SignatureForm::CosignLayer);
    assert_eq!((verified.proven().signer(), verified.proven().holds_until()), (None, None));
}

#[test]
fn leaves_cosigns_own_predicates_as_they_are() {
    let predicate = r#"{"Data":"{\"a\":1}","Timestamp":"2024-01-01T00:00:00Z"}"#;
    let statement = attestation(&image(), "https://cosign.sigstore.dev/attestation/v1", predicate);
    let expected = json!({"Data": r#"{"a":1}"#, "Timestamp": "2024-01-01T00:00:00Z"});
    assert_eq!(judge(&statement).unwrap().predicate(), &expected);
}

#[test]
fn reads_both_versions_of_statements_and_one_without_a_predicate() {
    assert!(judge(&good().replace("Statement/v0.1", "Statement/v1")).is_ok());
    let other = judge(&good().replace("Statement/v0.1", "Statement/v0.2"));
    assert_eq!(other, Err(Rejection::StatementMalformed));
    let none = judge(&good().replace(r#""predicate""#, r#""other""#)).unwrap();
    assert_eq!(none.predicate(), &Value::Null);
}

#[test]
fn pitfall_04_a_signature_is_no_attestation_and_an_attestation_no_signature() {
    let signer = Keys::p256();
    let attestor = attestor(&signer);
    let signature = statement(&image(), "{}");
    assert_eq!(judge(&signature), Err(Rejection::NoAttestation));
    assert_eq!(Rejection::NoAttestation.reason(), DenialReason::AttestationNotFound);
    let layer_evidence = signer.layer(&claim(&image(), "null"));
    let result = verify(&layer_evidence, &image(), &attestor, at(TIME));
    assert_eq!(result, Err(Rejection::NoAttestation));
    for evidence in [layer(&signer.envelope(&good())), bundle(&signer.bundle(&good()))] {
        let result = verify_signature(&evidence, &image(), &attestor, at(TIME));
        assert_eq!(result, Err(Rejection::PredicateType));
    }
    // Not even one that says so.
    let evidence = layer(&signer.envelope(&signature));
    let result = verify_signature(&evidence, &image(), &attestor, at(TIME));
    assert_eq!(result, Err(Rejection::PredicateType));
}

#[test]
fn pitfall_05_denies_a_payload_that_is_no_statement() {
    assert_eq!(judge("garbage"), Err(Rejection::PayloadJson(JsonError::Malformed)));
    assert_eq!(judge(""), Err(Rejection::PayloadJson(JsonError::Malformed)));
    let repeated = good().replacen('{', r#"{"predicateType":"x","#, 1);
    assert_eq!(judge(&repeated), Err(Rejection::PayloadJson(JsonError::RepeatedKey)));
    let mut statement: Value = serde_json::from_str(&good()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut changed = statement.clone();
        change(&mut changed);
        judge(&changed.to_string()).map(drop)
    };
    let malformed = Err(Rejection::StatementMalformed);
    for (field, values) in [
        ("_type", vec![Value::Null, json!("Statement"), json!(1)]),
        ("subject", vec![Value::Null, json!({}), json!([null]), json!([{"digest": null}]), json!([{}])]),
        ("predicateType", vec![Value::Null, json!(""), json!(1)]),
    ] {
        for value in values {
            assert_eq!(changed(&|statement| statement[field] = value.clone()), malformed, "{field} {value}");
        }
    }
    assert_eq!(changed(&|statement| statement["subject"] = json!([])), Err(Rejection::SubjectMismatch));
    statement["subject"][0]["annotations"] = json!([]);
    assert_eq!(judge(&statement.to_string()).map(drop), malformed);
}

#[test]
fn pitfall_20_denies_an_attestation_about_another_image() {
    let other = attestation(&Digest::of(b"other"), TYPE, "{}");
    assert_eq!(judge(&other), Err(Rejection::SubjectMismatch));
    let upper = good().replace(&image().hex(), &image().hex().to_uppercase());
    assert_eq!(judge(&upper), Err(Rejection::SubjectMismatch));
    let other_hash = good().replace(r#""sha256""#, r#""sha512""#);
    assert_eq!(judge(&other_hash), Err(Rejection::SubjectMismatch));
}

#[test]
fn accepts_an_attestation_of_which_any_subject_is_the_image() {
    let mut statement: Value = serde_json::from_str(&good()).unwrap();
    let mut other = statement["subject"][0].clone();
    other["digest"]["sha256"] = "00".into();
    statement["subject"].as_array_mut().unwrap().insert(0, other);
    assert!(judge(&statement.to_string()).is_ok());
}

#[test]
fn pitfall_07_refuses_a_statement_with_too_many_subjects_or_digests() {
    let exceeds = |what, limit| Err(Rejection::LimitExceeded { what, limit });
    let statement: Value = serde_json::from_str(&good()).unwrap();
    let with = |count: usize| {
        let mut statement = statement.clone();
        statement["subject"] = vec![statement["subject"][0].clone(); count].into();
        judge(&statement.to_string()).map(drop)
    };
    assert_eq!(with(1024), Ok(()));
    assert_eq!(with(1025), exceeds(Limited::Subjects, 1024));
    let with = |count: usize| {
        let mut statement = statement.clone();
        for number in 1..count {
            statement["subject"][0]["digest"][format!("d{number}")] = "00".into();
        }
        judge(&statement.to_string()).map(drop)
    };
    assert_eq!(with(32), Ok(()));
    assert_eq!(with(33), exceeds(Limited::SubjectDigests, 32));
}

#[test]
fn wants_the_annotations_of_the_attestor() {
    let signer = Keys::p256();
    let mut statement: Value = serde_json::from_str(&good()).unwrap();
    let annotations = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let attestor = Attestor { annotations: annotations.clone(), ..attestor(&signer) };
    let judge = |statement: &Value| {
        let evidence = layer(&signer.envelope(&statement.to_string()));
        verify(&evidence, &image(), &attestor, at(TIME))
    };
    let missing = Rejection::AnnotationMismatch { key: "env".to_owned() };
    assert_eq!(judge(&statement), Err(missing));
    statement["subject"][0]["annotations"] = json!({"env": "prod"});
    assert_eq!(judge(&statement).unwrap().annotations(), &annotations);
}

#[test]
fn denies_an_envelope_by_another_key_or_changed_after_signing() {
    let (signer, other) = (Keys::p256(), Keys::p256());
    let evidence = layer(&signer.envelope(&good()));
    let result = verify(&evidence, &image(), &attestor(&other), at(TIME));
    assert_eq!(result, Err(Rejection::SignatureInvalid(KeyKind::EcdsaP256)));
    assert_eq!(judge_envelope(|_| {}), Ok(()));
    let changed = judge_envelope(|envelope| envelope["payload"] = "e30=".into());
    assert_eq!(changed, Err(Rejection::SignatureInvalid(KeyKind::EcdsaP256)));
}

#[test]
fn denies_an_envelope_of_another_payload_type() {
    let other = judge_envelope(|envelope| envelope["payloadType"] = "text/plain".into());
    assert_eq!(other, Err(Rejection::EnvelopePayloadType));
    let none = judge_envelope(|envelope| envelope["payloadType"] = Value::Null);
    assert_eq!(none, Err(Rejection::EnvelopePayloadType));
}

#[test]
fn pitfall_12_denies_an_envelope_with_more_or_less_than_one_signature() {
    for found in [0, 2, 100] {
        let result = judge_envelope(|envelope| {
            let one = envelope["signatures"][0].clone();
            envelope["signatures"] = vec![one; found].into();
        });
        assert_eq!(result, Err(Rejection::EnvelopeSignatures { found }));
    }
}

#[test]
fn denies_an_attestation_layer_that_is_no_envelope() {
    let signer = Keys::p256();
    let judge = |text: &str| verify(&layer(text), &image(), &attestor(&signer), at(TIME)).map(drop);
    assert_eq!(judge("garbage"), Err(Rejection::EnvelopeJson(JsonError::Malformed)));
    let repeated = signer.envelope(&good()).replacen('{', r#"{"payload":"","#, 1);
    assert_eq!(judge(&repeated), Err(Rejection::EnvelopeJson(JsonError::RepeatedKey)));
    assert_eq!(judge("{}"), Err(Rejection::EnvelopePayloadType));
}

#[test]
fn pitfall_06_reads_large_attestations_up_to_a_limit() {
    const LIMIT: usize = 10 << 20;
    let signer = Keys::p256();
    let judge = |evidence| verify(&evidence, &image(), &attestor(&signer), at(TIME)).map(drop);
    let padded = |text: String, size: usize| format!("{text}{}", " ".repeat(size - text.len()));
    let exceeds = |what| Err(Rejection::LimitExceeded { what, limit: LIMIT });

    let envelope = signer.envelope(&good());
    assert_eq!(judge(layer(&padded(envelope.clone(), LIMIT))), Ok(()));
    assert_eq!(judge(layer(&padded(envelope, LIMIT + 1))), exceeds(Limited::Attestation));

    let json = |size| padded(signer.bundle(&good()).to_string(), size).into_bytes();
    assert_eq!(judge(SignatureEvidence::Bundle { json: json(LIMIT) }), Ok(()));
    assert_eq!(judge(SignatureEvidence::Bundle { json: json(LIMIT + 1) }), exceeds(Limited::Bundle));
}

#[test]
fn pitfall_06_refuses_more_json_than_evidence_needs() {
    let signer = Keys::p256();
    let judge = |evidence| verify(&evidence, &image(), &attestor(&signer), at(TIME)).map(drop);
    let crowd = format!("[{}]", vec!["[]"; 100_000].join(","));
    let crowded = |text: &str| text.replacen('{', &format!("{{\"x\":{crowd},"), 1);
    let too_many = JsonError::TooManyValues { limit: 1 << 16 };
    let layer = layer(&crowded(&signer.envelope(&good())));
    assert_eq!(judge(layer), Err(Rejection::EnvelopeJson(too_many)));
    let json = crowded(&signer.bundle(&good()).to_string()).into_bytes();
    assert_eq!(judge(SignatureEvidence::Bundle { json }), Err(Rejection::BundleJson(too_many)));
    assert_eq!(Rejection::BundleJson(too_many).reason(), DenialReason::LimitExceeded);
    // What the signer says may be long.
    let statement = attestation(&image(), "https://spdx.dev/Document", &crowd);
    assert_eq!(judge(bundle(&signer.bundle(&statement))), Ok(()));
}

#[test]
fn a_message_signature_is_no_attestation() {
    let signer = Keys::p256();
    let mut signed = signer.bundle(&good());
    signed.as_object_mut().unwrap().remove("dsseEnvelope");
    signed["messageSignature"] = json!({"signature": "AA=="});
    let result = verify(&bundle(&signed), &image(), &attestor(&signer), at(TIME));
    assert_eq!(result, Err(Rejection::MessageSignature));
}

#[test]
fn only_a_statement_with_nothing_wrong_but_its_signer_is_said_to_be_of_a_type() {
    let instance = Instance::new();
    let signed = |in_bundle: bool| {
        let signer = Keys::p256();
        let certificate = instance.certify(&signer, &Instance::draft());
        let mut signed =
            Signature::statement(signer, Some(certificate), vec![instance.intermediate()], good());
        let body = signed.dsse();
        let log = &instance.log;
        signed.entries =
            vec![if in_bundle { log.entry("dsse", &body, TIME) } else { log.annotation(&body, TIME) }];
        signed
    };
    let text = IdentityText { subject: "bob@signer.test", issuer: ISSUER, ..IdentityText::default() };
    let bob = |mut attestor: Attestor| {
        let Signer::Identity(signer) = &mut attestor.signer else { unreachable!() };
        signer.identity = Identity::new(&text).unwrap();
        attestor
    };
    let annotated = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    for in_bundle in [false, true] {
        let judged = |signed: &Signature, attestor: &Attestor, image: Digest| {
            let evidence = if in_bundle { signed.bundle_evidence() } else { signed.attestation_layer() };
            let result = verify_statement(&evidence, &image, attestor, at(TIME + 1_000_000));
            result.map(drop).map_err(|rejected| rejected.unfit)
        };
        let unfit = Err(Some(TYPE.to_owned()));
        let alice = instance.alice();
        assert_eq!(judged(&signed(in_bundle), &alice, image()), Ok(()));
        assert_eq!(judged(&signed(in_bundle), &bob(alice.clone()), image()), unfit);
        let annotated = Attestor { annotations: annotated.clone(), ..alice.clone() };
        assert_eq!(judged(&signed(in_bundle), &annotated, image()), unfit);
        // Each with something else wrong too.
        assert_eq!(judged(&signed(in_bundle), &bob(alice.clone()), Digest::of(b"other")), Err(None));
        assert_eq!(judged(&signed(in_bundle), &bob(Instance::new().alice()), image()), Err(None));
        let changed = |change: fn(&mut Signature)| {
            let mut signed = signed(in_bundle);
            change(&mut signed);
            judged(&signed, &bob(alice.clone()), image())
        };
        assert_eq!(changed(|signed| signed.entries.clear()), Err(None));
        assert_eq!(changed(|signed| signed.chain.clear()), Err(None));
    }
    // Of a stranger's statement no more is read than of any evidence.
    let crowd = attestation(&image(), TYPE, &format!("[{}]", vec!["0"; 1 << 16].join(",")));
    let (signer, certificate) = (Keys::p256(), Instance::draft());
    let certificate = instance.certify(&signer, &certificate);
    let mut large = Signature::statement(signer, Some(certificate), vec![instance.intermediate()], crowd);
    large.entries = vec![instance.log.annotation(&large.dsse(), TIME)];
    let judged = |attestor: &Attestor| {
        let result = verify_statement(&large.attestation_layer(), &image(), attestor, at(TIME + 1_000_000));
        result.map(drop).map_err(|rejected| rejected.rejection)
    };
    assert_eq!(judged(&instance.alice()), Ok(()));
    let too_many = Rejection::PayloadJson(JsonError::TooManyValues { limit: 1 << 16 });
    assert_eq!(judged(&bob(instance.alice())), Err(too_many));
}
