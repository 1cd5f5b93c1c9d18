use super::*;
use crate::sigstore::test_signer::{Signer, pem};

const P384: &str = include_str!("../../tests/fixtures/sigstore/p384.pub");

fn malformed(pem: &str) -> KeyError {
    PublicKey::from_pem(pem).unwrap_err()
}

#[test]
fn parses_each_supported_type() {
    for (signer, kind) in [
        (Signer::p256(), KeyKind::EcdsaP256),
        (Signer::p384(), KeyKind::EcdsaP384),
        (Signer::p521_sha256(), KeyKind::EcdsaP521),
        (Signer::rsa(), KeyKind::Rsa),
        (Signer::ed25519(), KeyKind::Ed25519),
    ] {
        let key = signer.key();
        assert_eq!(key.kind(), kind);
        assert_eq!(key.spki_der(), signer.spki);
        assert_eq!(key.fingerprint(), Digest::of(&signer.spki));
    }
}

#[test]
fn prints_its_kind_and_fingerprint() {
    let key = PublicKey::from_pem(P384).unwrap();
    let expected = format!("PublicKey {{ kind: EcdsaP384, fingerprint: {}, .. }}", key.fingerprint());
    assert_eq!(format!("{key:?}"), expected);
}

#[test]
fn ignores_text_around_the_block_and_line_lengths() {
    let key = PublicKey::from_pem(P384).unwrap();
    let one_line = P384.replace("\n", "").replace("KEY----------", "KEY-----\n-----");
    for text in [format!("# prod\r\n{}\nend\n", P384.replace('\n', "\r\n")), one_line] {
        assert_eq!(PublicKey::from_pem(&text), Ok(key.clone()));
    }
}

#[test]
fn refuses_two_blocks_and_half_a_block() {
    assert_eq!(malformed(&format!("{P384}{P384}")), KeyError::NotOneBlock);
    assert_eq!(malformed(P384.trim_end().trim_end_matches('-')), KeyError::NotOneBlock);
    let half = P384.lines().next().unwrap();
    assert_eq!(malformed(&format!("{half}\n{P384}")), KeyError::NotOneBlock);
    assert_eq!(malformed(&format!("{P384}{half}")), KeyError::NotOneBlock);
}

#[test]
fn names_what_the_block_is_instead() {
    let block = |label| malformed(&pem(label, b"x"));
    assert_eq!(malformed("hello"), KeyError::NotPem);
    assert_eq!(block("CERTIFICATE"), KeyError::Certificate);
    assert_eq!(block("RSA PUBLIC KEY"), KeyError::Pkcs1);
    assert_eq!(block("PGP MESSAGE"), KeyError::OtherBlock { label: "PGP MESSAGE".into() });
    for label in ["PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY"] {
        assert_eq!(block(label), KeyError::PrivateKey { label: label.into() });
    }
}

#[test]
fn refuses_a_block_that_is_no_key() {
    assert_eq!(malformed(&pem("PUBLIC KEY", b"x")), KeyError::Malformed);
    assert_eq!(malformed("-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----"), KeyError::Malformed);
    let mut trailing = Signer::p256().spki;
    trailing.push(0);
    assert_eq!(malformed(&pem("PUBLIC KEY", &trailing)), KeyError::Malformed);
}

#[test]
fn refuses_a_point_that_is_not_on_the_curve() {
    let mut spki = Signer::p256().spki;
    *spki.last_mut().unwrap() ^= 1;
    assert_eq!(malformed(&pem("PUBLIC KEY", &spki)), KeyError::Malformed);
}

#[test]
fn refuses_a_point_of_another_length() {
    // SEQUENCE { SEQUENCE { OID, the curve }, BIT STRING { 4, x, y } }: P-256 says that it is P-256.
    let spki = Signer::p256().spki;
    assert_eq!(&spki[..2], [0x30, 89]);
    let shorter = [&[0x30, 88], &spki[2..24], &[66 - 1], &spki[25..90]].concat();
    let longer = [&[0x30, 90], &spki[2..24], &[66 + 1], &spki[25..], &[0]].concat();
    for changed in [shorter, longer] {
        assert_eq!(malformed(&pem("PUBLIC KEY", &changed)), KeyError::Malformed);
    }
}

#[test]
fn refuses_an_ed25519_key_with_parameters() {
    let good = Signer::ed25519().spki;
    // SEQUENCE { SEQUENCE { 1.3.101.112, NULL }, BIT STRING }; RFC 8410 knows no parameters.
    let head = [0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00];
    let with_null = [&head, &good[9..]].concat();
    assert_eq!(malformed(&pem("PUBLIC KEY", &with_null)), KeyError::Malformed);
    assert_eq!(malformed(&pem("PUBLIC KEY", &good[..43])), KeyError::Malformed);
}

#[test]
fn refuses_an_ed25519_key_within_an_ed25519_key() {
    // SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING { the whole SPKI once more } }
    let spki = Signer::ed25519().spki;
    let nested = [&[0x30, 54], &spki[2..9], &[0x03, 45, 0], &spki[..]].concat();
    assert_eq!(malformed(&pem("PUBLIC KEY", &nested)), KeyError::Malformed);
}

#[test]
fn refuses_an_rsa_key_without_null_parameters() {
    // SEQUENCE (length) { SEQUENCE { OID, NULL }, BIT STRING }: leave the NULL out.
    let good = Signer::rsa().spki;
    assert_eq!(&good[..6], [0x30, 0x82, 0x01, 0x22, 0x30, 0x0d]);
    let without = [&[0x30, 0x82, 0x01, 0x20, 0x30, 0x0b], &good[6..17], &good[19..]].concat();
    assert_eq!(malformed(&pem("PUBLIC KEY", &without)), KeyError::Malformed);
}

#[test]
fn refuses_the_second_encoding_of_a_point() {
    let compressed = include_str!("../../tests/fixtures/sigstore/p256-compressed.pub");
    assert_eq!(malformed(compressed), KeyError::Malformed);
}

#[test]
fn refuses_other_types_curves_and_short_rsa_keys() {
    let curve = ObjectIdentifier::new_unwrap("1.3.132.0.10");
    let x25519 = ObjectIdentifier::new_unwrap("1.3.101.110");
    let fixture = include_str!("../../tests/fixtures/sigstore/secp256k1.pub");
    assert_eq!(malformed(fixture), KeyError::UnsupportedCurve { oid: curve });
    let fixture = include_str!("../../tests/fixtures/sigstore/x25519.pub");
    assert_eq!(malformed(fixture), KeyError::UnsupportedType { oid: x25519 });
    let fixture = include_str!("../../tests/fixtures/sigstore/rsa1024.pub");
    assert_eq!(malformed(fixture), KeyError::RsaSize { bits: 1024 });
}

#[test]
fn finds_the_scheme_of_each_signer() {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    for (signer, configured, scheme) in [
        (Signer::p256(), Sha256, Some(Scheme::Ecdsa(Sha256))),
        (Signer::p256(), Sha384, None),
        (Signer::p384(), Sha256, Some(Scheme::Ecdsa(Sha384))),
        (Signer::p384(), Sha384, Some(Scheme::Ecdsa(Sha384))),
        (Signer::p384(), Sha512, None),
        (Signer::p521_sha256(), Sha256, Some(Scheme::Ecdsa(Sha256))),
        (Signer::p521_sha512(), Sha256, Some(Scheme::Ecdsa(Sha512))),
        (Signer::p521_sha512(), Sha384, None),
        (Signer::rsa(), Sha256, Some(Scheme::RsaPkcs1(Sha256))),
        (Signer::rsa_sha512(), Sha256, None),
        (Signer::rsa_sha512(), Sha512, Some(Scheme::RsaPkcs1(Sha512))),
        (Signer::rsa_pss(), Sha256, Some(Scheme::RsaPss(Sha256))),
        (Signer::ed25519(), Sha512, Some(Scheme::Ed25519)),
    ] {
        let signature = signer.sign(b"message");
        assert_eq!(signer.key().verify(b"message", &signature, configured), scheme, "{:?}", signer.key());
        assert_eq!(signer.key().verify(b"massage", &signature, configured), None);
    }
}

#[test]
fn accepts_p384_with_sha256_as_cosign_2_signs() {
    let key = PublicKey::from_pem(P384).unwrap();
    let signature = STANDARD.decode(include_str!("../../tests/fixtures/sigstore/p384-sha256.sig")).unwrap();
    let scheme = Some(Scheme::Ecdsa(HashAlgorithm::Sha256));
    assert_eq!(key.verify(b"the message", &signature, HashAlgorithm::Sha256), scheme);
    assert_eq!(key.verify(b"the message", &signature, HashAlgorithm::Sha384), None);
}

/// RFC 8032, 7.3: the SPKI of the key, and the signature over "abc".
fn ed25519ph() -> (PublicKey, Vec<u8>) {
    let key = "302a300506032b6570032100ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf";
    let signature = "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41\
                     31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406";
    (PublicKey::from_spki(&hex::decode(key).unwrap()).unwrap(), hex::decode(signature).unwrap())
}

#[test]
fn accepts_ed25519ph() {
    let (key, signature) = ed25519ph();
    for hash in [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
        assert_eq!(key.verify(b"abc", &signature, hash), Some(Scheme::Ed25519ph));
    }
    assert_eq!(key.verify(b"abd", &signature, HashAlgorithm::Sha512), None);
    assert_eq!(key.verify(b"abc", &signature[1..], HashAlgorithm::Sha512), None);
    assert_eq!(Signer::ed25519().key().verify(b"abc", &signature, HashAlgorithm::Sha512), None);
    assert!(key.verify_exactly(b"abc", &signature, Scheme::Ed25519ph));
    assert!(!key.verify_exactly(b"abc", &signature, Scheme::Ed25519));
    let digest = digest::digest(&digest::SHA512, b"abc");
    assert_eq!(
        key.verify_digest(digest.as_ref(), &signature, HashAlgorithm::Sha512),
        Some(Scheme::Ed25519ph)
    );
    let other = digest::digest(&digest::SHA512, b"abd");
    assert_eq!(key.verify_digest(other.as_ref(), &signature, HashAlgorithm::Sha512), None);
}

#[test]
fn refuses_an_ed25519ph_signature_of_small_order() {
    // The neutral element as key and as R, and S = 0: it would fit any message.
    let mut spki = hex::decode("302a300506032b6570032100").unwrap();
    let neutral = [&[1][..], &[0; 31]].concat();
    spki.extend(&neutral);
    let key = PublicKey::from_spki(&spki).unwrap();
    let signature = [&neutral[..], &[0; 32]].concat();
    assert!(!key.verify_exactly(b"abc", &signature, Scheme::Ed25519ph));
}

#[test]
fn verifies_what_is_known_by_its_digest_only() {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    for (signer, hash, scheme) in [
        (Signer::p256(), Sha256, Some(Scheme::Ecdsa(Sha256))),
        (Signer::p384(), Sha384, Some(Scheme::Ecdsa(Sha384))),
        (Signer::p384(), Sha256, None),
        (Signer::p521_sha256(), Sha256, Some(Scheme::Ecdsa(Sha256))),
        (Signer::p521_sha512(), Sha512, Some(Scheme::Ecdsa(Sha512))),
        (Signer::rsa(), Sha256, Some(Scheme::RsaPkcs1(Sha256))),
        (Signer::rsa_sha512(), Sha512, Some(Scheme::RsaPkcs1(Sha512))),
        (Signer::rsa_pss(), Sha256, Some(Scheme::RsaPss(Sha256))),
        // Pure Ed25519 needs the message.
        (Signer::ed25519(), Sha512, None),
    ] {
        let (key, signature) = (signer.key(), signer.sign(b"message"));
        let digest = digest::digest(hash.implementation(), b"message");
        assert_eq!(key.verify_digest(digest.as_ref(), &signature, hash), scheme, "{key:?}");
        let other = digest::digest(hash.implementation(), b"massage");
        assert_eq!(key.verify_digest(other.as_ref(), &signature, hash), None);
    }
    let (signer, signature) = (Signer::p256(), Signer::p256().sign(b"message"));
    assert_eq!(signer.key().verify_digest(&[0; 31], &signature, Sha256), None);
}

#[test]
fn verifies_one_scheme_exactly() {
    use HashAlgorithm::{Sha256, Sha384};
    let signer = Signer::p384();
    let signature = signer.sign(b"message");
    assert!(signer.key().verify_exactly(b"message", &signature, Scheme::Ecdsa(Sha384)));
    assert!(!signer.key().verify_exactly(b"message", &signature, Scheme::Ecdsa(Sha256)));
    assert!(!signer.key().verify_exactly(b"massage", &signature, Scheme::Ecdsa(Sha384)));
    let signer = Signer::rsa_pss();
    let signature = signer.sign(b"message");
    assert!(signer.key().verify_exactly(b"message", &signature, Scheme::RsaPss(Sha256)));
    assert!(!signer.key().verify_exactly(b"message", &signature, Scheme::RsaPkcs1(Sha256)));
    let signer = Signer::ed25519();
    let signature = signer.sign(b"message");
    assert!(signer.key().verify_exactly(b"message", &signature, Scheme::Ed25519));
    assert!(!signer.key().verify_exactly(b"message", &signature, Scheme::Ed25519ph));
}
