//! Signatures by certificates, from end to end: keyless, and with a policy's own certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::sigstore::test_pki::{Draft, TokenDraft, at, digits, email, fulcio, names};
use crate::sigstore::test_signer::{Signer as Keys, TIME, attestation, statement};
use crate::sigstore::test_sigstore::{Instance, SUBJECT, Signature, image};
use crate::sigstore::{ChainFault, Identity, KeySigner, Limited, LogTrust, SignatureEvidence};

/// Long after everything has expired.
const LATER: u64 = TIME + 1_000_000;

/// Which kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Layer,
    Bundle,
    Attestation,
    AttestationBundle,
}

const FORMS: [Form; 4] = [Form::Layer, Form::Bundle, Form::Attestation, Form::AttestationBundle];

/// What a verified piece of evidence says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    signer: Option<Certificate>,
    holds_until: Option<SystemTime>,
}

struct Scene {
    instance: Instance,
    form: Form,
    signature: Signature,
    attestor: Attestor,
    now: u64,
}

impl Scene {
    /// Alice's logged signature.
    fn new(form: Form) -> Self {
        Self::with(Instance::new(), form, &Instance::draft())
    }

    fn with(instance: Instance, form: Form, draft: &Draft) -> Self {
        let signer = Keys::p256();
        let certificate = instance.certify(&signer, draft);
        Self::of(instance, form, signer, certificate)
    }

    fn of(instance: Instance, form: Form, signer: Keys, certificate: Certificate) -> Self {
        let chain = vec![instance.intermediate()];
        let certificate = Some(certificate);
        let signature = match form {
            Form::Layer => Signature::claim(signer, certificate, chain),
            Form::Bundle => Signature::cosign(signer, certificate, chain),
            Form::Attestation | Form::AttestationBundle => {
                let statement = attestation(&image(), "https://spdx.dev/Document", r#"{"a":1}"#);
                Signature::statement(signer, certificate, chain, statement)
            }
        };
        let attestor = instance.alice();
        let mut scene = Self { instance, form, signature, attestor, now: LATER };
        scene.log_at(TIME);
        scene
    }

    /// Has the signature logged at this time, in a log of the first version.
    fn log_at(&mut self, time: u64) {
        let (log, signature) = (&self.instance.log, &mut self.signature);
        signature.entries = vec![match self.form {
            Form::Layer => log.annotation(&signature.hashedrekord(), time),
            Form::Attestation => log.annotation(&signature.dsse(), time),
            Form::Bundle | Form::AttestationBundle => log.entry("dsse", &signature.dsse(), time),
        }];
    }

    /// Has the signature logged in a log of the second version, which knows no time.
    fn log_in_tiles(&mut self) {
        self.signature.entries = vec![self.instance.tiles.entry(&self.signature.hashedrekord_v2())];
    }

    fn stamp_at(&mut self, time: u64) {
        self.signature.stamps.push(self.instance.stamp(&self.signature.signature, time));
    }

    fn evidence(&self) -> SignatureEvidence {
        match self.form {
            Form::Layer => self.signature.layer(),
            Form::Attestation => self.signature.attestation_layer(),
            Form::Bundle | Form::AttestationBundle => self.signature.bundle_evidence(),
        }
    }

    fn judge(&self) -> Result<Outcome, Rejection> {
        self.judge_evidence(&self.evidence())
    }

    fn judge_evidence(&self, evidence: &SignatureEvidence) -> Result<Outcome, Rejection> {
        let (attestor, now) = (&self.attestor, at(self.now));
        match self.form {
            Form::Layer | Form::Bundle => {
                let found = verify_signature(evidence, &image(), attestor, now)?;
                Ok(Outcome {
                    signer: found.proven().signer().cloned(),
                    holds_until: found.proven().holds_until(),
                })
            }
            Form::Attestation | Form::AttestationBundle => {
                let found = verify_statement(evidence, &image(), attestor, now)
                    .map_err(|rejected| rejected.rejection)?;
                Ok(Outcome {
                    signer: found.proven().signer().cloned(),
                    holds_until: found.proven().holds_until(),
                })
            }
        }
    }

    fn verdict(&self) -> Result<(), Rejection> {
        self.judge().map(drop)
    }
}

fn in_each_form(judge: impl Fn(Form) -> Result<(), Rejection>) -> [Result<(), Rejection>; 4] {
    FORMS.map(judge)
}

fn all(rejection: Rejection) -> [Result<(), Rejection>; 4] {
    FORMS.map(|_| Err(rejection.clone()))
}

const ALL_GOOD: [Result<(), Rejection>; 4] = [Ok(()), Ok(()), Ok(()), Ok(())];

#[test]
fn accepts_a_logged_certificate_long_after_it_has_expired() {
    for form in FORMS {
        let scene = Scene::new(form);
        let signer = scene.signature.certificate.clone();
        assert_eq!(scene.judge(), Ok(Outcome { signer, holds_until: None }));
    }
}

#[test]
fn accepts_an_entry_of_rekor_v2_with_a_timestamp() {
    for form in [Form::Bundle, Form::AttestationBundle] {
        let mut scene = Scene::new(form);
        scene.log_in_tiles();
        assert_eq!(scene.verdict(), Err(Rejection::TimeUnproven));
        scene.stamp_at(TIME);
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn accepts_each_type_of_key() {
    for signer in [Keys::p384(), Keys::p521_sha512(), Keys::rsa(), Keys::ed25519()] {
        let instance = Instance::new();
        let certificate = instance.certify(&signer, &Instance::draft());
        let scene = Scene::of(instance, Form::Bundle, signer, certificate);
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn pitfall_03_the_time_of_an_entry_without_a_promise_proves_nothing() {
    for form in [Form::Bundle, Form::AttestationBundle] {
        let mut scene = Scene::new(form);
        scene.signature.entries[0].as_object_mut().unwrap().remove("inclusionPromise");
        assert_eq!(scene.verdict(), Err(Rejection::TimeUnproven));
        // The clock is no proof either, while a log is asked for.
        scene.now = TIME;
        assert_eq!(scene.verdict(), Err(Rejection::TimeUnproven));
        // For a key no time is needed.
        scene.signature.certificate = None;
        scene.attestor = scene.instance.key(&scene.signature.signer);
        scene.log_at(TIME);
        scene.signature.entries[0].as_object_mut().unwrap().remove("inclusionPromise");
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn pitfall_03_a_time_written_into_a_rekor_v2_entry_proves_nothing() {
    let mut scene = Scene::new(Form::Bundle);
    scene.log_in_tiles();
    scene.signature.entries[0]["integratedTime"] = TIME.to_string().into();
    assert_eq!(scene.verdict(), Err(Rejection::TimeUnproven));
}

#[test]
fn denies_a_signature_from_outside_of_the_certificates_validity() {
    for time in [TIME - 1801, TIME + 1801] {
        let judged = in_each_form(|form| {
            let mut scene = Scene::new(form);
            scene.log_at(time);
            scene.verdict()
        });
        assert_eq!(judged, all(Rejection::CertificateTime));
    }
    for time in [TIME - 1800, TIME + 1800] {
        let mut scene = Scene::new(Form::Layer);
        scene.log_at(time);
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn the_certificate_must_hold_at_every_proven_time() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        scene.stamp_at(TIME + 1801);
        assert_eq!(scene.verdict(), Err(Rejection::CertificateTime));
        let mut scene = Scene::new(form);
        scene.log_at(TIME + 1801);
        scene.stamp_at(TIME);
        assert_eq!(scene.verdict(), Err(Rejection::CertificateTime));
    }
    let mut scene = Scene::new(Form::Bundle);
    scene.stamp_at(TIME);
    scene.stamp_at(TIME + 1801);
    assert_eq!(scene.verdict(), Err(Rejection::CertificateTime));
}

#[test]
fn pitfall_08_denies_a_chain_with_an_expired_intermediate() {
    let expired = |form| {
        let instance = Instance::with_intermediate((TIME - 90_000, TIME - 1));
        Scene::with(instance, form, &Instance::draft()).verdict()
    };
    let rejection = Rejection::CertificateChain(ChainFault::Expired);
    assert_eq!(in_each_form(expired), all(rejection));
}

#[test]
fn denies_a_certificate_of_another_authority() {
    let foreign = |form| {
        let mut scene = Scene::new(form);
        let other = Instance::new();
        let Signer::Identity(signer) = &mut scene.attestor.signer else { unreachable!() };
        signer.authorities = other.authorities();
        scene.verdict()
    };
    let rejection = Rejection::CertificateChain(ChainFault::UnknownAuthority);
    assert_eq!(in_each_form(foreign), all(rejection));
}

#[test]
fn needs_the_intermediates_that_come_along() {
    let judged = in_each_form(|form| {
        let mut scene = Scene::new(form);
        scene.signature.chain.clear();
        scene.verdict()
    });
    assert_eq!(judged, all(Rejection::CertificateChain(ChainFault::UnknownAuthority)));
}

#[test]
fn does_not_believe_a_root_that_comes_along() {
    let judged = in_each_form(|form| {
        let mut scene = Scene::new(form);
        scene.signature.chain.push(scene.instance.root());
        let Signer::Identity(signer) = &mut scene.attestor.signer else { unreachable!() };
        signer.authorities = Instance::new().authorities();
        scene.verdict()
    });
    assert_eq!(judged, all(Rejection::CertificateChain(ChainFault::UnknownAuthority)));
}

#[test]
fn wants_the_certificate_in_a_certificate_log_unless_the_policy_says_otherwise() {
    let silent = |form| {
        let (instance, signer) = (Instance::new(), Keys::p256());
        let certificate = instance.certify_silently(&signer, &Instance::draft());
        Scene::of(instance, form, signer, certificate)
    };
    assert_eq!(in_each_form(|form| silent(form).verdict()), all(Rejection::SctMissing));
    let judged = in_each_form(|form| {
        let mut scene = silent(form);
        let Signer::Identity(signer) = &mut scene.attestor.signer else { unreachable!() };
        signer.sct = SctTrust::Ignored;
        scene.verdict()
    });
    assert_eq!(judged, ALL_GOOD);
}

#[test]
fn denies_another_identity() {
    let mallory = |form| {
        let mut draft = Instance::draft();
        draft.extensions.retain(|found| !found.windows(5).any(|part| part == b"alice"));
        let draft = draft.with(names(true, &[email("mallory@signer.test")]));
        Scene::with(Instance::new(), form, &draft).verdict()
    };
    for result in in_each_form(mallory) {
        let Err(Rejection::SubjectNameMismatch { expected, received }) = result else { panic!("{result:?}") };
        assert_eq!((expected.contains(SUBJECT), received.contains("mallory@signer.test")), (true, true));
    }
    let elsewhere = |form| {
        let mut draft = Instance::draft();
        draft.extensions.pop();
        Scene::with(Instance::new(), form, &draft.with(fulcio(1, "https://other.test"))).verdict()
    };
    let judged = in_each_form(elsewhere);
    assert!(
        judged.iter().all(|result| matches!(result, Err(Rejection::IssuerMismatch { .. }))),
        "{judged:?}"
    );
}

#[test]
fn anyone_of_the_authority_is_only_who_the_policy_says() {
    let mut scene = Scene::new(Form::Layer);
    let Signer::Identity(signer) = &mut scene.attestor.signer else { unreachable!() };
    signer.identity = Identity::Anyone;
    assert_eq!(scene.verdict(), Ok(()));
}

#[test]
fn denies_a_signature_by_another_key_than_the_certificates() {
    let judged = in_each_form(|form| {
        let (instance, other) = (Instance::new(), Keys::p256());
        let certificate = instance.certify(&other, &Instance::draft());
        Scene::of(instance, form, Keys::p256(), certificate).verdict()
    });
    assert_eq!(judged, all(Rejection::SignatureInvalid(crate::sigstore::KeyKind::EcdsaP256)));
}

#[test]
fn denies_a_signature_without_a_certificate() {
    let judged = in_each_form(|form| {
        let mut scene = Scene::new(form);
        scene.signature.certificate = None;
        scene.log_at(TIME);
        scene.verdict()
    });
    assert_eq!(judged, all(Rejection::CertificateMissing));
}

#[test]
fn denies_a_certificate_that_cannot_be_read() {
    let mut scene = Scene::new(Form::Layer);
    let SignatureEvidence::CosignLayer { payload, mut annotations } = scene.evidence() else {
        unreachable!()
    };
    annotations.insert("dev.sigstore.cosign/certificate".to_owned(), "PEM".to_owned());
    let evidence = SignatureEvidence::CosignLayer { payload, annotations };
    assert!(matches!(scene.judge_evidence(&evidence), Err(Rejection::Certificate(_))));
    scene.form = Form::Bundle;
    let mut bundle = Scene::new(Form::Bundle).signature.bundle();
    bundle["verificationMaterial"]["x509CertificateChain"]["certificates"][0]["rawBytes"] = "AAAA".into();
    let evidence = SignatureEvidence::Bundle { json: bundle.to_string().into_bytes() };
    assert!(matches!(scene.judge_evidence(&evidence), Err(Rejection::Certificate(_))));
}

// The log is ignored: the clock decides (rule D8).

#[test]
fn without_a_log_the_certificate_must_hold_now_and_the_result_ends_with_it() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        scene.attestor.log = LogTrust::Ignored;
        assert_eq!(scene.verdict(), Err(Rejection::CertificateTime));
        scene.now = TIME;
        let signer = scene.signature.certificate.clone();
        assert_eq!(scene.judge(), Ok(Outcome { signer, holds_until: Some(at(TIME + 1800)) }));
    }
}

#[test]
fn without_a_log_the_result_ends_with_the_first_certificate_of_the_chain() {
    for form in FORMS {
        let instance = Instance::with_intermediate((TIME - 90_000, TIME + 60));
        let mut scene = Scene::with(instance, form, &Instance::draft());
        (scene.attestor.log, scene.now) = (LogTrust::Ignored, TIME);
        assert_eq!(scene.judge().unwrap().holds_until, Some(at(TIME + 60)));
        // One that has ended already is of no path, and so ends nothing.
        let ended = Draft::authority("ended").valid(TIME - 90, TIME - 1);
        scene.signature.chain.push(ended.issued(&Keys::p256(), "root", &Keys::p256()));
        assert_eq!(scene.judge().unwrap().holds_until, Some(at(TIME + 60)));
    }
}

#[test]
fn without_a_log_the_result_ends_with_the_authority() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        let root = Draft::authority("root").valid(TIME - 90_000, TIME + 30);
        let root = scene.instance.root_as(&root);
        let Signer::Identity(signer) = &mut scene.attestor.signer else { unreachable!() };
        signer.authorities = Arc::new(Authorities::from_roots(vec![root]));
        (scene.attestor.log, scene.now) = (LogTrust::Ignored, TIME);
        assert_eq!(scene.judge().unwrap().holds_until, Some(at(TIME + 30)));
    }
}

#[test]
fn without_a_log_a_timestamp_proves_the_time() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        scene.attestor.log = LogTrust::Ignored;
        scene.stamp_at(TIME);
        assert_eq!(scene.judge().unwrap().holds_until, None);
    }
}

#[test]
fn pitfall_10_a_log_that_has_ended_saw_nothing_that_is_younger() {
    for form in [Form::Bundle, Form::AttestationBundle] {
        let mut scene = Scene::new(form);
        scene.log_in_tiles();
        scene.stamp_at(TIME);
        let mut ended = |time| {
            scene.attestor.log = LogTrust::Required(scene.instance.logs_until(at(time)));
            scene.verdict()
        };
        assert_eq!(ended(TIME), Ok(()));
        assert_eq!(ended(TIME - 1), Err(Rejection::LogUnknown));
        // It was there before, and was stamped once more later.
        scene.stamp_at(TIME - 5);
        scene.attestor.log = LogTrust::Required(scene.instance.logs_until(at(TIME - 1)));
        assert_eq!(scene.verdict(), Ok(()));
    }
}

// Timestamps.

#[test]
fn every_timestamp_by_an_authority_that_is_believed_must_hold() {
    let mut scene = Scene::new(Form::Bundle);
    scene.stamp_at(TIME);
    assert_eq!(scene.verdict(), Ok(()));
    scene.signature.stamps.push(scene.instance.stamp(b"other", TIME));
    assert_eq!(scene.verdict(), Err(Rejection::TimestampForeign));
    scene.attestor.timestamps = Arc::new(TimestampAuthorities::none());
    assert_eq!(scene.verdict(), Ok(()));
    for form in FORMS {
        let mut scene = Scene::new(form);
        scene.signature.stamps.push(scene.instance.stamp(b"other", TIME));
        assert_eq!(scene.verdict(), Err(Rejection::TimestampForeign));
        scene.signature.stamps = vec![vec![0]];
        assert_eq!(scene.verdict(), Err(Rejection::TimestampMalformed));
        // One that names the authority and is by another key.
        scene.signature.stamps = vec![Instance::new().stamp(&scene.signature.signature, TIME)];
        assert_eq!(scene.verdict(), Err(Rejection::TimestampInvalid));
    }
}

#[test]
fn a_timestamp_by_a_stranger_neither_proves_a_time_nor_refuses_where_one_is_proven() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        // At a time at which the certificate did not hold: it is not looked at.
        let draft = TokenDraft::new(&scene.signature.signature, "elsewhere");
        let token = TokenDraft { time: format!("{}Z", digits(TIME + 50_000)), ..draft };
        scene.signature.stamps = vec![token.signed(&Keys::p256())];
        assert_eq!(scene.verdict(), Ok(()), "the log proves a time");
        let strange = Err(Rejection::TimestampUnknownAuthority);
        let logged = scene.attestor.log.clone();
        (scene.attestor.log, scene.now) = (LogTrust::Ignored, TIME);
        assert_eq!(scene.verdict(), strange, "not judged as of now");
        scene.attestor.timestamps = Arc::new(TimestampAuthorities::none());
        assert_eq!(scene.verdict(), Ok(()), "no timestamps are wanted");

        scene.attestor = scene.instance.key(&scene.signature.signer);
        scene.attestor.log = logged;
        scene.signature.certificate = None;
        scene.log_at(TIME);
        assert_eq!(scene.verdict(), Ok(()), "a key needs no time");
        if matches!(form, Form::Bundle | Form::AttestationBundle) {
            let mut scene = Scene::new(form);
            scene.log_in_tiles();
            let over = TokenDraft::new(&scene.signature.signature, "elsewhere");
            scene.signature.stamps = vec![over.signed(&Keys::p256())];
            assert_eq!(scene.verdict(), strange, "the log proves no time");
            scene.stamp_at(TIME);
            assert_eq!(scene.verdict(), Ok(()), "another timestamp does");
        }
    }
}

#[test]
fn denies_a_timestamp_from_the_future() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        scene.stamp_at(TIME + 100);
        scene.now = TIME + 100;
        assert_eq!(scene.verdict(), Ok(()));
        scene.now = TIME + 99;
        assert_eq!(scene.verdict(), Err(Rejection::TimestampInFuture));
    }
}

#[test]
fn a_timestamp_of_an_attestation_layer_is_over_its_signature_or_its_envelope() {
    let mut scene = Scene::new(Form::Attestation);
    let over = |over: &[u8]| vec![scene.instance.stamp(over, TIME + 1801)];
    let envelope = over(scene.signature.envelope.as_bytes());
    let signature = over(&scene.signature.signature);
    let payload = over(scene.signature.payload.as_bytes());
    // That it is read is seen from the time, at which the certificate did not hold.
    for (stamps, rejection) in [
        (envelope, Rejection::CertificateTime),
        (signature, Rejection::CertificateTime),
        (payload, Rejection::TimestampForeign),
    ] {
        scene.signature.stamps = stamps;
        assert_eq!(scene.verdict(), Err(rejection));
    }
}

#[test]
fn denies_a_timestamp_annotation_that_cannot_be_read() {
    let scene = Scene::new(Form::Layer);
    let with = |text: &str| {
        let SignatureEvidence::CosignLayer { payload, mut annotations } = scene.evidence() else {
            unreachable!()
        };
        annotations.insert("dev.sigstore.cosign/rfc3161timestamp".to_owned(), text.to_owned());
        scene.judge_evidence(&SignatureEvidence::CosignLayer { payload, annotations }).map(drop)
    };
    for text in ["x", "{}", r#"{"SignedRFC3161Timestamp":1}"#, r#"{"SignedRFC3161Timestamp":"%"}"#] {
        assert_eq!(with(text), Err(Rejection::TimestampMalformed));
    }
    assert_eq!(with(""), Ok(()));
    let long = "x".repeat((1 << 20) + 1);
    let limit = Rejection::LimitExceeded { what: Limited::TimestampAnnotation, limit: 1 << 20 };
    assert_eq!(with(&long), Err(limit));
}

#[path = "artifact_verify_tests.rs"]
mod artifacts;
#[path = "certificate_holder_tests.rs"]
mod holders;
