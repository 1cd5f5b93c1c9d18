use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::outcome::DenialReason;
use crate::sigstore::test_signer::{Signer, TIME, attestation, claim, statement};
use crate::sigstore::{
    BundleField, HashAlgorithm, JsonError, KeyKind, Limited, LogTrust, PublicKey, TimestampAuthorities,
};
use crate::sigstore::{KeySigner, Signer as Who};

fn image() -> Digest {
    Digest::of(b"image")
}

fn attestor(signer: &Signer) -> Attestor {
    key_attestor(signer.key())
}

fn key_attestor(key: PublicKey) -> Attestor {
    Attestor {
        signer: Who::Key(KeySigner { key, hash: HashAlgorithm::Sha256 }),
        annotations: BTreeMap::new(),
        log: LogTrust::Ignored,
        timestamps: Arc::new(TimestampAuthorities::none()),
    }
}

fn judge(evidence: &SignatureEvidence, attestor: Attestor) -> Result<VerifiedSignature, Rejection> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME + 60);
    verify_signature(evidence, &image(), &attestor, now)
}

fn judge_layer(payload: &str) -> Result<VerifiedSignature, Rejection> {
    let signer = Signer::p256();
    judge(&signer.layer(payload), attestor(&signer))
}

fn judge_statement(statement: &str) -> Result<VerifiedSignature, Rejection> {
    let signer = Signer::p256();
    judge(&as_evidence(&signer.bundle(statement)), attestor(&signer))
}

/// A good bundle in which one thing is changed.
fn judge_changed(change: impl FnOnce(&mut Value)) -> Result<VerifiedSignature, Rejection> {
    let signer = Signer::p256();
    let mut bundle = signer.bundle(&statement(&image(), "{}"));
    change(&mut bundle);
    judge(&as_evidence(&bundle), attestor(&signer))
}

fn as_evidence(bundle: &Value) -> SignatureEvidence {
    SignatureEvidence::Bundle { json: bundle.to_string().into_bytes() }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn accepts_a_layer_by_each_type_of_key() {
    for signer in [
        Signer::p256(),
        Signer::p384(),
        Signer::p521_sha256(),
        Signer::p521_sha512(),
        Signer::rsa(),
        Signer::rsa_pss(),
        Signer::ed25519(),
    ] {
        let verified = judge(&signer.layer(&claim(&image(), "null")), attestor(&signer)).unwrap();
        let expected = VerifiedSignature {
            digest: image(),
            annotations: BTreeMap::new(),
            proven: Proven {
                key_fingerprint: signer.key().fingerprint(),
                form: SignatureForm::CosignLayer,
                signer: None,
                holds_until: None,
            },
        };
        assert_eq!(verified, expected);
    }
}

#[test]
fn accepts_a_bundle_by_each_type_of_key() {
    for signer in [Signer::p256(), Signer::p384(), Signer::p521_sha512(), Signer::rsa(), Signer::ed25519()] {
        let bundle = signer.bundle(&statement(&image(), r#"{"env":"prod"}"#));
        let verified = judge(&as_evidence(&bundle), attestor(&signer)).unwrap();
        assert_eq!(verified.proven().form(), SignatureForm::Bundle);
        assert_eq!(verified.annotations(), &pairs(&[("env", "prod")]));
    }
}

#[test]
fn denies_a_signature_by_another_key() {
    for (signer, other, kind) in [
        (Signer::p256(), Signer::p256(), KeyKind::EcdsaP256),
        (Signer::p256(), Signer::rsa(), KeyKind::Rsa),
        (Signer::rsa(), Signer::rsa(), KeyKind::Rsa),
        (Signer::ed25519(), Signer::ed25519(), KeyKind::Ed25519),
    ] {
        let layer = signer.layer(&claim(&image(), "null"));
        assert_eq!(judge(&layer, attestor(&other)), Err(Rejection::SignatureInvalid(kind)));
        let bundle = as_evidence(&signer.bundle(&statement(&image(), "{}")));
        assert_eq!(judge(&bundle, attestor(&other)), Err(Rejection::SignatureInvalid(kind)));
    }
}

#[test]
fn denies_a_payload_that_was_changed_after_signing() {
    let signer = Signer::p256();
    let mut layer = signer.layer(&claim(&image(), "null"));
    let SignatureEvidence::CosignLayer { payload, .. } = &mut layer else { unreachable!() };
    payload.push(b'\n');
    assert_eq!(judge(&layer, attestor(&signer)), Err(Rejection::SignatureInvalid(KeyKind::EcdsaP256)));
}

#[test]
fn denies_a_layer_without_a_signature() {
    let signer = Signer::p256();
    for (text, rejection) in [
        (None, Rejection::SignatureMissing),
        (Some(String::new()), Rejection::SignatureMissing),
        (Some("%".to_owned()), Rejection::SignatureEncoding),
        (
            Some("A".repeat((16 << 10) + 4)),
            Rejection::LimitExceeded { what: Limited::Signature, limit: 16 << 10 },
        ),
    ] {
        let mut layer = signer.layer(&claim(&image(), "null"));
        let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer else { unreachable!() };
        annotations.clear();
        annotations.extend(text.map(|text| ("dev.cosignproject.cosign/signature".to_owned(), text)));
        assert_eq!(judge(&layer, attestor(&signer)), Err(rejection));
    }
}

#[test]
fn pitfall_20_denies_a_signature_that_was_copied_from_another_image() {
    let other = Digest::of(b"other");
    assert_eq!(judge_layer(&claim(&other, "null")), Err(Rejection::ClaimMismatch { claimed: other }));
    assert_eq!(judge_statement(&statement(&other, "{}")), Err(Rejection::SubjectMismatch));
}

#[test]
fn denies_a_claim_without_a_digest() {
    let good = claim(&image(), "null");
    for payload in [
        good.replace("docker-manifest-digest", "digest"),
        good.replace("sha256:", ""),
        good.replace("sha256:", "sha512:"),
        good.replace(&image().hex(), &image().hex().to_uppercase()),
    ] {
        assert_eq!(judge_layer(&payload), Err(Rejection::ClaimWithoutDigest));
    }
}

#[test]
fn denies_a_payload_of_another_type() {
    let good = claim(&image(), "null");
    for payload in [
        good.replace("cosign container image signature", "atomic container signature"),
        good.replace(r#""type""#, r#""Type""#),
        claim(&image(), "[]"),
    ] {
        assert_eq!(judge_layer(&payload), Err(Rejection::PayloadType));
    }
}

#[test]
fn denies_a_payload_that_repeats_a_key() {
    let payload = claim(&image(), r#"{"a":"1","a":"2"}"#);
    assert_eq!(judge_layer(&payload), Err(Rejection::PayloadJson(JsonError::RepeatedKey)));
    let payload = statement(&image(), r#"{"a":"1","a":"2"}"#);
    assert_eq!(judge_statement(&payload), Err(Rejection::PayloadJson(JsonError::RepeatedKey)));
}

#[test]
fn compares_required_annotations_as_texts() {
    let signer = Signer::p256();
    let signed = r#"{"env":"prod","team":"a","number":1,"none":null}"#;
    let forms =
        [signer.layer(&claim(&image(), signed)), as_evidence(&signer.bundle(&statement(&image(), signed)))];
    for evidence in forms {
        let with = |wanted: &[(&str, &str)]| {
            judge(&evidence, Attestor { annotations: pairs(wanted), ..attestor(&signer) })
        };
        let missing = |key: &str| Err(Rejection::AnnotationMismatch { key: key.to_owned() });
        let all = pairs(&[("env", "prod"), ("team", "a")]);
        assert_eq!(with(&[("env", "prod"), ("team", "a")]).unwrap().annotations(), &all);
        assert_eq!(with(&[("env", "prod"), ("team", "b")]), missing("team"));
        assert_eq!(with(&[("env", "PROD")]), missing("env"));
        assert_eq!(with(&[("other", "x")]), missing("other"));
        assert_eq!(with(&[("number", "1")]), missing("number"));
        assert_eq!(with(&[("none", "")]), missing("none"));
    }
}

#[test]
fn pitfall_26_wants_all_annotations_on_one_subject_that_is_the_image() {
    let subject = |name: &str, annotations: &str| {
        format!(
            r#"{{"digest":{{"sha256":"{}"}},"annotations":{annotations}}}"#,
            Digest::of(name.as_bytes()).hex()
        )
    };
    let judge_with = |subjects: &[String]| {
        let signer = Signer::p256();
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}}"#,
            subjects.join(",")
        );
        let wanted = pairs(&[("a", "1"), ("b", "2")]);
        judge(&as_evidence(&signer.bundle(&statement)), Attestor { annotations: wanted, ..attestor(&signer) })
    };
    let both = r#"{"a":"1","b":"2"}"#;
    assert!(judge_with(&[subject("other", "{}"), subject("image", "{}"), subject("image", both)]).is_ok());
    let missing = |key: &str| Err(Rejection::AnnotationMismatch { key: key.to_owned() });
    assert_eq!(
        judge_with(&[subject("image", r#"{"a":"1"}"#), subject("image", r#"{"b":"2"}"#)]),
        missing("b")
    );
    assert_eq!(judge_with(&[subject("other", both), subject("image", "null")]), missing("a"));
}

#[test]
fn pitfall_04_does_not_count_an_attestation_of_another_type_as_a_signature() {
    let statement = statement(&image(), "{}");
    let sbom = statement.replace("https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document");
    assert_eq!(judge_statement(&sbom), Err(Rejection::PredicateType));
    assert_eq!(Rejection::PredicateType.reason(), DenialReason::SignatureNotFound);
    let longer = statement.replace("cosign/sign/v1", "cosign/sign/v1.1");
    assert_eq!(judge_statement(&longer), Err(Rejection::PredicateType));
    // An image that only another was attested for is told as that, whatever the type.
    let elsewhere = sbom.replace(&image().hex(), &Digest::of(b"other").hex());
    assert_eq!(judge_statement(&elsewhere), Err(Rejection::SubjectMismatch));
    let none = statement.replace("predicateType", "predicatetype");
    assert_eq!(judge_statement(&none), Err(Rejection::StatementMalformed));
}

#[test]
fn reads_both_versions_of_statements_and_no_other() {
    let good = statement(&image(), "{}");
    assert!(judge_statement(&good.replace("Statement/v1", "Statement/v0.1")).is_ok());
    let other = good.replace("Statement/v1", "Statement/v2");
    assert_eq!(judge_statement(&other), Err(Rejection::StatementMalformed));
    for broken in [good.replace("subject", "subjects"), good.replace(r#""digest""#, r#""digests""#)] {
        assert_eq!(judge_statement(&broken), Err(Rejection::StatementMalformed));
    }
}

#[test]
fn denies_a_bundle_that_is_not_a_signed_statement() {
    let field = |field| Err(Rejection::BundleField(field));
    assert_eq!(
        judge_changed(|bundle| {
            bundle.as_object_mut().unwrap().remove("dsseEnvelope");
            bundle["messageSignature"] = json!({"signature": "AA=="});
        }),
        Err(Rejection::MessageSignature)
    );
    let both = judge_changed(|bundle| bundle["messageSignature"] = json!({"signature": "AA=="}));
    assert_eq!(both, field(BundleField::Content));
    let neither = judge_changed(|bundle| bundle["dsseEnvelope"] = Value::Null);
    assert_eq!(neither, field(BundleField::Content));
    let other = judge_changed(|bundle| bundle["dsseEnvelope"]["payloadType"] = "text/plain".into());
    assert_eq!(other, Err(Rejection::EnvelopePayloadType));
    let broken = judge_changed(|bundle| bundle["dsseEnvelope"]["payload"] = "%".into());
    assert_eq!(broken, field(BundleField::Payload));
}

#[test]
fn reads_each_version_of_bundles_and_no_other() {
    for media_type in [
        "application/vnd.dev.sigstore.bundle+json;version=0.4",
        "application/vnd.dev.sigstore.bundle.v0.4+json",
        "application/json",
        "",
    ] {
        let result = judge_changed(|bundle| bundle["mediaType"] = media_type.into());
        assert_eq!(result, Err(Rejection::BundleMediaType));
    }
    for version in ["0.1", "0.2", "0.3"] {
        let media_type = format!("application/vnd.dev.sigstore.bundle+json;version={version}");
        assert!(judge_changed(|bundle| bundle["mediaType"] = media_type.into()).is_ok());
    }
}

#[test]
fn denies_a_bundle_with_two_kinds_of_material_or_none() {
    let rejection = Err(Rejection::BundleField(BundleField::VerificationMaterial));
    for name in ["certificate", "x509CertificateChain"] {
        let result = judge_changed(|bundle| bundle["verificationMaterial"][name] = json!({}));
        assert_eq!(result, rejection);
    }
    let keyless = judge_changed(|bundle| bundle["verificationMaterial"]["publicKey"] = Value::Null);
    assert_eq!(keyless, rejection);
    let text = judge_changed(|bundle| bundle["verificationMaterial"]["publicKey"] = "key".into());
    assert_eq!(text, rejection);
}

#[test]
fn does_not_believe_the_key_hint() {
    assert!(judge_changed(|bundle| bundle["verificationMaterial"]["publicKey"]["hint"] = "x".into()).is_ok());
}

#[test]
fn pitfall_12_denies_an_envelope_with_more_or_less_than_one_signature() {
    for found in [0, 2] {
        let result = judge_changed(|bundle| {
            let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
            let signature = signatures.remove(0);
            signatures.extend(std::iter::repeat_n(signature, found));
        });
        assert_eq!(result, Err(Rejection::EnvelopeSignatures { found }));
    }
}

#[test]
fn denies_a_bundle_that_repeats_a_key() {
    let signer = Signer::p256();
    let bundle = signer.bundle(&statement(&image(), "{}")).to_string();
    let bundle = bundle.replacen('{', r#"{"x":1,"x":1,"#, 1);
    let evidence = SignatureEvidence::Bundle { json: bundle.into_bytes() };
    assert_eq!(judge(&evidence, attestor(&signer)), Err(Rejection::BundleJson(JsonError::RepeatedKey)));
}

#[test]
fn pitfall_07_refuses_what_exceeds_a_limit_before_any_cryptography() {
    const MEBIBYTE: usize = 1 << 20;
    let exceeds = |what, limit| Err(Rejection::LimitExceeded { what, limit });
    let signer = Signer::p256();

    let padded = claim(&image(), &format!(r#"{{"a":"{}"}}"#, "x".repeat(MEBIBYTE)));
    assert_eq!(judge_layer(&padded), exceeds(Limited::Payload, MEBIBYTE));

    let mut layer = signer.layer(&claim(&image(), "null"));
    let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer else { unreachable!() };
    annotations.insert("dev.sigstore.cosign/bundle".to_owned(), "x".repeat(MEBIBYTE + 1));
    assert_eq!(judge(&layer, attestor(&signer)), exceeds(Limited::LogAnnotation, MEBIBYTE));

    let mut json = signer.bundle(&statement(&image(), "{}")).to_string().into_bytes();
    json.resize(MEBIBYTE, b' ');
    assert!(judge(&SignatureEvidence::Bundle { json: json.clone() }, attestor(&signer)).is_ok());
    json.push(b' ');
    let result = judge(&SignatureEvidence::Bundle { json }, attestor(&signer));
    assert_eq!(result, exceeds(Limited::Bundle, MEBIBYTE));
    // An attestation is no signature, however large it is.
    let sbom = attestation(&image(), "https://spdx.dev/Document", &format!("\"{}\"", "x".repeat(MEBIBYTE)));
    let sbom = judge(&as_evidence(&signer.bundle(&sbom)), attestor(&signer));
    assert_eq!(sbom, Err(Rejection::PredicateType));
    let large = judge(&SignatureEvidence::Bundle { json: vec![b' '; 10 * MEBIBYTE + 1] }, attestor(&signer));
    assert_eq!(large, exceeds(Limited::Bundle, MEBIBYTE));

    let entries =
        |count: usize| judge_changed(|b| b["verificationMaterial"]["tlogEntries"] = vec![0; count].into());
    assert!(entries(32).is_ok());
    assert_eq!(entries(33), exceeds(Limited::LogEntries, 32));

    let stamps = judge_changed(|bundle| {
        let stamps = json!({"rfc3161Timestamps": vec![0; 33]});
        bundle["verificationMaterial"]["timestampVerificationData"] = stamps;
    });
    assert_eq!(stamps, exceeds(Limited::Timestamps, 32));
}

#[test]
fn pitfall_07_refuses_a_statement_with_too_many_subjects_or_digests() {
    let exceeds = |what, limit| Err(Rejection::LimitExceeded { what, limit });
    let mut parsed: Value = serde_json::from_str(&statement(&image(), "{}")).unwrap();
    let subject = parsed["subject"][0].clone();
    parsed["subject"] = vec![subject; 1025].into();
    assert_eq!(judge_statement(&parsed.to_string()), exceeds(Limited::Subjects, 1024));

    let mut parsed: Value = serde_json::from_str(&statement(&image(), "{}")).unwrap();
    for number in 0..32 {
        parsed["subject"][0]["digest"][format!("d{number}")] = "00".into();
    }
    assert_eq!(judge_statement(&parsed.to_string()), exceeds(Limited::SubjectDigests, 32));
}

#[test]
fn says_what_cosign_says() {
    let text = |kind| Rejection::SignatureInvalid(kind).to_string();
    assert_eq!(text(KeyKind::EcdsaP256), "invalid signature when validating ASN.1 encoded signature");
    assert_eq!(text(KeyKind::Rsa), "crypto/rsa: verification error");
    assert_eq!(Rejection::LogEntryMissing.to_string(), "signature not found in transparency log");
    let exceeded = Rejection::LimitExceeded { what: Limited::Bundle, limit: 5 };
    assert_eq!(exceeded.to_string(), "the bundle exceeds the limit of 5");
    let field = Rejection::BundleField(BundleField::Payload);
    assert_eq!(field.to_string(), "the bundle's payload is missing or malformed");
}

#[test]
fn judges_what_cosign_itself_signed() {
    let fixture = include_str!("../../tests/fixtures/sigstore/cosign.json");
    let fixture: BTreeMap<String, Value> = serde_json::from_str(fixture).unwrap();
    let image = "sha256:f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268".parse().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut results = BTreeMap::new();
    for (name, signed) in &fixture {
        let attestor = Attestor {
            annotations: pairs(&[("env", "prod")]),
            ..key_attestor(PublicKey::from_pem(&text(&signed["key"])).unwrap())
        };
        let layer = SignatureEvidence::CosignLayer {
            payload: text(&signed["layer"]["payload"]).into_bytes(),
            annotations: serde_json::from_value(signed["layer"]["annotations"].clone()).unwrap(),
        };
        let bundle = SignatureEvidence::Bundle { json: text(&signed["bundle"]).into_bytes() };
        let judge =
            |evidence| verify_signature(evidence, &image, &attestor, SystemTime::UNIX_EPOCH).map(drop);
        results.insert(name.as_str(), (judge(&layer), judge(&bundle)));
    }
    let accepted = || (Ok(()), Ok(()));
    // cosign 3 signs an envelope by an Ed25519 key with Ed25519ph, which its own `verify` refuses.
    let expected = BTreeMap::from(["ed25519", "p256", "p384", "p521", "rsa"].map(|name| (name, accepted())));
    assert_eq!(results, expected);
}
