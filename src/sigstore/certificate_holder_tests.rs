//! A policy's own certificate, and keys beside certificates.

use super::*;

#[test]
fn accepts_the_holder_of_the_policys_certificate() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        let certificate = scene.signature.certificate.clone().unwrap();
        scene.attestor = scene.instance.holder(&certificate);
        // The chain is the policy's.
        scene.signature.chain.clear();
        let expected = Outcome { signer: Some(certificate), holds_until: None };
        assert_eq!(scene.judge(), Ok(expected));
    }
}

#[test]
fn accepts_the_holder_of_the_policys_certificate_without_one_on_the_signature() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        let certificate = scene.signature.certificate.take().unwrap();
        scene.attestor = scene.instance.holder(&certificate);
        scene.log_at(TIME);
        assert_eq!(scene.verdict(), Ok(()));
        // The entry may be about the certificate, too.
        scene.signature.certificate = Some(certificate);
        scene.log_at(TIME);
        scene.signature.certificate = None;
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn denies_another_certificate_of_the_policys_key() {
    let judged = in_each_form(|form| {
        let mut scene = Scene::new(form);
        let other = Draft { serial: 8, ..Instance::draft() };
        let other = scene.instance.certify(&scene.signature.signer, &other);
        scene.attestor = scene.instance.holder(&other);
        scene.verdict()
    });
    assert_eq!(judged, all(Rejection::CertificateMismatch));
}

#[test]
fn verifies_the_policys_certificate_like_any_other() {
    for form in FORMS {
        let mut scene = Scene::new(form);
        let certificate = scene.signature.certificate.clone().unwrap();
        scene.attestor = scene.instance.holder(&certificate);
        scene.log_at(TIME + 1801);
        assert_eq!(scene.verdict(), Err(Rejection::CertificateTime));

        scene.log_at(TIME);
        let Signer::Certificate(signer) = &mut scene.attestor.signer else { unreachable!() };
        signer.intermediates.clear();
        let unknown = Rejection::CertificateChain(ChainFault::UnknownAuthority);
        assert_eq!(scene.verdict(), Err(unknown));

        scene.attestor = Instance::new().holder(&certificate);
        scene.attestor.log = LogTrust::Required(scene.instance.logs());
        assert!(matches!(scene.verdict(), Err(Rejection::CertificateChain(_))));

        let silent = scene.instance.certify_silently(&scene.signature.signer, &Instance::draft());
        scene.signature.certificate = Some(silent.clone());
        scene.attestor = scene.instance.holder(&silent);
        scene.log_at(TIME);
        assert_eq!(scene.verdict(), Err(Rejection::SctMissing));
    }
}

#[test]
fn beside_a_layers_signature_a_certificate_says_nothing_about_a_key() {
    for form in [Form::Layer, Form::Attestation] {
        let mut scene = Scene::new(form);
        scene.attestor = scene.instance.key(&scene.signature.signer);
        // Without the log, which has seen the other certificate.
        scene.attestor.log = LogTrust::Ignored;
        let expected = Outcome { signer: None, holds_until: None };
        assert_eq!(scene.judge(), Ok(expected));
        let other = scene.instance.certify(&Keys::p256(), &Instance::draft());
        scene.signature.certificate = Some(other);
        assert_eq!(scene.verdict(), Ok(()));
    }
}

#[test]
fn a_bundles_certificate_must_be_of_the_attestors_key() {
    for form in [Form::Bundle, Form::AttestationBundle] {
        let mut scene = Scene::new(form);
        scene.attestor = scene.instance.key(&scene.signature.signer);
        assert_eq!(scene.judge(), Ok(Outcome { signer: None, holds_until: None }));
        let other = scene.instance.certify(&Keys::p256(), &Instance::draft());
        scene.signature.certificate = Some(other);
        scene.attestor.log = LogTrust::Ignored;
        assert_eq!(scene.verdict(), Err(Rejection::CertificateBundle));
    }
}

#[test]
fn pitfall_26_identity_and_annotations_are_of_one_signature() {
    let mut scene = Scene::new(Form::Layer);
    scene.attestor.annotations = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    // Mallory's signature has the annotation, Alice's has not.
    let missing = Rejection::AnnotationMismatch { key: "env".to_owned() };
    assert_eq!(scene.verdict(), Err(missing));
    let scene = Scene::new(Form::Bundle);
    let mut other = Scene::with(Instance::new(), Form::Bundle, &Instance::draft());
    other.attestor = scene.attestor.clone();
    assert!(matches!(other.verdict(), Err(Rejection::LogUnknown)));
}
