use super::*;
use crate::sigstore::test_signer::Signer;

#[test]
fn reads_the_embedded_public_good_root() {
    let root = TrustRoot::public_good().unwrap();
    let rekor = STANDARD.decode("wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5WRgB0=").unwrap();
    assert!(root.knows_log(&rekor));
    assert_eq!(root.fingerprint(), TrustRoot::public_good().unwrap().fingerprint());
}

#[test]
fn refuses_what_is_not_a_trust_root() {
    assert!(matches!(TrustRoot::from_json(b"{}"), Err(TrustRootError::MediaType)));
    assert!(matches!(
        TrustRoot::from_json(br#"{"mediaType":"a","mediaType":"b"}"#),
        Err(TrustRootError::Json(JsonError::RepeatedKey))
    ));
    let malformed =
        br#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[1]}"#;
    assert!(matches!(TrustRoot::from_json(malformed), Err(TrustRootError::Malformed(_))));
    let large = vec![b' '; TRUST_ROOT_LIMIT + 1];
    assert!(
        matches!(TrustRoot::from_json(&large), Err(TrustRootError::TooLarge { size }) if size == large.len())
    );
}

#[test]
fn makes_a_root_of_log_keys() {
    let keys = [Signer::p256().key(), Signer::p384().key(), Signer::rsa().key(), Signer::ed25519().key()];
    let root = TrustRoot::from_log_keys(&keys).unwrap();
    for key in &keys {
        assert!(root.knows_log(key.fingerprint().as_bytes()));
    }
}

#[test]
fn refuses_log_keys_that_cannot_be_used() {
    assert!(matches!(TrustRoot::from_log_keys(&[]), Err(TrustRootError::NoLogKey)));
    let key = Signer::p521_sha512().key();
    assert!(matches!(
        TrustRoot::from_log_keys(&[key]),
        Err(TrustRootError::LogKeyUnsupported(KeyKind::EcdsaP521))
    ));
    let key = Signer::p256().key();
    assert!(matches!(TrustRoot::from_log_keys(&[key.clone(), key]), Err(TrustRootError::Unusable(_))));
}
