//! Chains that come with evidence, and artifacts of any kind.

use super::*;

// Chains in evidence.

#[test]
fn refuses_more_intermediates_than_ten() {
    let exceeded = Rejection::LimitExceeded { what: Limited::Intermediates, limit: 10 };
    for (others, expected) in [(9, Ok(())), (10, Err(exceeded.clone())), (60, Err(exceeded))] {
        let judged = in_each_form(|form| {
            let mut scene = Scene::new(form);
            let intermediate = scene.instance.intermediate();
            scene.signature.chain.extend(std::iter::repeat_n(intermediate, others));
            scene.verdict()
        });
        assert_eq!(judged, FORMS.map(|_| expected.clone()));
    }
}

#[test]
fn a_root_in_a_stored_chain_is_left_out() {
    let judged = in_each_form(|form| {
        let mut scene = Scene::new(form);
        let intermediate = scene.instance.intermediate();
        scene.signature.chain.extend(std::iter::repeat_n(intermediate, 9));
        scene.signature.chain.push(scene.instance.root());
        scene.verdict()
    });
    assert_eq!(judged, ALL_GOOD);
}

#[test]
fn reads_a_chain_in_a_bundle_of_version_3_from_a_registry_only() {
    let scene = Scene::new(Form::Bundle);
    let mut bundle = scene.signature.bundle();
    bundle["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.3+json".into();
    let json = bundle.to_string().into_bytes();
    let evidence = SignatureEvidence::Bundle { json: json.clone() };
    assert!(scene.judge_evidence(&evidence).is_ok());
    let artifact = Artifact::Digest(image());
    let field = Rejection::BundleField(crate::sigstore::BundleField::Certificates);
    assert_eq!(verify_artifact(&json, &artifact, &scene.attestor, at(LATER)), Err(field));
}

// Artifacts of any kind.

/// Alice's message signature over these bytes, in a bundle.
fn message(bytes: &str, change: impl FnOnce(&mut Value)) -> (Vec<u8>, Attestor) {
    let (instance, signer) = (Instance::new(), Keys::p256());
    let certificate = instance.certify(&signer, &Instance::draft());
    let chain = vec![instance.intermediate()];
    let mut signature = Signature::claim(signer, Some(certificate), chain);
    signature.payload = bytes.to_owned();
    signature.signature = signature.signer.sign(bytes.as_bytes());
    signature.entries = vec![instance.log.entry("hashedrekord", &signature.hashedrekord(), TIME)];
    let mut bundle = signature.bundle();
    change(&mut bundle);
    (bundle.to_string().into_bytes(), instance.alice())
}

fn judge_artifact(
    (bundle, attestor): &(Vec<u8>, Attestor),
    artifact: &Artifact<'_>,
) -> Result<Option<String>, Rejection> {
    let verified = verify_artifact(bundle, artifact, attestor, at(LATER))?;
    assert!(verified.proven().signer().is_some());
    Ok(verified.predicate_type().map(str::to_owned))
}

#[test]
fn verifies_a_message_signature_over_bytes_or_their_digest() {
    let signed = message("hello", |_| {});
    let digest = Digest::of(b"hello");
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"hello")), Ok(None));
    assert_eq!(judge_artifact(&signed, &Artifact::Digest(digest)), Ok(None));
    let invalid = Rejection::SignatureInvalid(crate::sigstore::KeyKind::EcdsaP256);
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"hallo")), Err(invalid.clone()));
    assert_eq!(judge_artifact(&signed, &Artifact::Digest(Digest::of(b"hallo"))), Err(invalid));
}

#[test]
fn compares_the_digest_that_a_message_signature_names() {
    let with = |algorithm: &str, digest: &[u8]| {
        let claimed = json!({"algorithm": algorithm, "digest": STANDARD.encode(digest)});
        message("hello", |bundle| bundle["messageSignature"]["messageDigest"] = claimed)
    };
    let digest = Digest::of(b"hello");
    let right = with("SHA2_256", digest.as_bytes());
    assert_eq!(judge_artifact(&right, &Artifact::Bytes(b"hello")), Ok(None));
    assert_eq!(judge_artifact(&right, &Artifact::Digest(digest)), Ok(None));
    let wrong = with("SHA2_256", &[0; 32]);
    assert_eq!(judge_artifact(&wrong, &Artifact::Bytes(b"hello")), Err(Rejection::ArtifactMismatch));
    let unknown = with("MD5", &[0; 16]);
    let field = Rejection::BundleField(crate::sigstore::BundleField::MessageDigest);
    assert_eq!(judge_artifact(&unknown, &Artifact::Bytes(b"hello")), Err(field));
    // Not to be computed from the digest alone.
    let longer = with("SHA2_512", &[0; 64]);
    assert_eq!(judge_artifact(&longer, &Artifact::Digest(digest)), Err(Rejection::ArtifactMismatch));
    let misnamed = with("SHA2_512", digest.as_bytes());
    assert_eq!(judge_artifact(&misnamed, &Artifact::Digest(digest)), Err(Rejection::ArtifactMismatch));
}

#[test]
fn verifies_a_statement_about_an_artifact() {
    let scene = Scene::new(Form::AttestationBundle);
    let bundle = scene.signature.bundle().to_string().into_bytes();
    let signed = (bundle, scene.attestor);
    let predicate_type = Some("https://spdx.dev/Document".to_owned());
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"image")), Ok(predicate_type.clone()));
    assert_eq!(judge_artifact(&signed, &Artifact::Digest(image())), Ok(predicate_type));
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"other")), Err(Rejection::SubjectMismatch));
}

#[test]
fn an_artifacts_envelope_holds_a_statement() {
    let signature = Signature::statement(Keys::p256(), None, vec![], statement(&image(), "{}"));
    let attestor = Attestor { log: LogTrust::Ignored, ..Instance::new().key(&signature.signer) };
    let judge = |bundle: &Value| {
        let bundle = bundle.to_string();
        verify_artifact(bundle.as_bytes(), &Artifact::Digest(image()), &attestor, at(TIME)).map(drop)
    };
    let mut bundle = signature.bundle();
    assert_eq!(judge(&bundle), Ok(()));
    // The same payload, signed as a text.
    let signed = String::from_utf8(signature.signed()).unwrap();
    let signed = signed.replacen("28 application/vnd.in-toto+json", "10 text/plain", 1);
    let envelope = &mut bundle["dsseEnvelope"];
    envelope["payloadType"] = "text/plain".into();
    envelope["signatures"][0]["sig"] = STANDARD.encode(signature.signer.sign(signed.as_bytes())).into();
    assert_eq!(judge(&bundle), Err(Rejection::EnvelopePayloadType));
}

#[test]
fn an_artifacts_signature_has_the_annotations_that_are_asked_for() {
    let wanted = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let missing = Rejection::AnnotationMismatch { key: "env".to_owned() };
    let (bundle, attestor) = message("hello", |_| {});
    let signed = (bundle, Attestor { annotations: wanted.clone(), ..attestor });
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"hello")), Err(missing.clone()));
    for (annotations, expected) in [("{}", Err(missing)), (r#"{"env":"prod"}"#, Ok(()))] {
        let (instance, signer) = (Instance::new(), Keys::p256());
        let certificate = instance.certify(&signer, &Instance::draft());
        let payload = statement(&image(), annotations);
        let mut signature =
            Signature::statement(signer, Some(certificate), vec![instance.intermediate()], payload);
        signature.entries = vec![instance.log.entry("dsse", &signature.dsse(), TIME)];
        let attestor = Attestor { annotations: wanted.clone(), ..instance.alice() };
        let signed = (signature.bundle().to_string().into_bytes(), attestor);
        assert_eq!(judge_artifact(&signed, &Artifact::Digest(image())).map(drop), expected);
    }
}

#[test]
fn refuses_a_root_in_the_chain_of_an_artifacts_bundle() {
    let root = STANDARD.encode(Instance::new().root().der());
    let signed = message("hello", |bundle| {
        let list = &mut bundle["verificationMaterial"]["x509CertificateChain"]["certificates"];
        list.as_array_mut().unwrap().push(json!({"rawBytes": root}));
    });
    let field = Rejection::BundleField(crate::sigstore::BundleField::Certificates);
    assert_eq!(judge_artifact(&signed, &Artifact::Bytes(b"hello")), Err(field));
}

#[test]
fn pure_ed25519_signs_no_digest() {
    let signer = Keys::ed25519();
    let mut signature = Signature::claim(signer, None, vec![]);
    signature.payload = "hello".to_owned();
    signature.signature = signature.signer.sign(b"hello");
    let instance = Instance::new();
    let attestor = Attestor { log: LogTrust::Ignored, ..instance.key(&signature.signer) };
    let Signer::Key(KeySigner { key, .. }) = &attestor.signer else { unreachable!() };
    let bundle = signature.bundle().to_string().into_bytes();
    let judge = |artifact| verify_artifact(&bundle, &artifact, &attestor, at(TIME));
    let verified = judge(Artifact::Bytes(b"hello")).unwrap();
    assert_eq!(
        (verified.proven().key_fingerprint(), verified.proven().holds_until()),
        (key.fingerprint(), None)
    );
    let invalid = Rejection::SignatureInvalid(crate::sigstore::KeyKind::Ed25519);
    assert_eq!(judge(Artifact::Digest(Digest::of(b"hello"))), Err(invalid));
}
