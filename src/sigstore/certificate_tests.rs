use super::*;
use crate::sigstore::test_pki::{
    Draft, at, basic_constraints, email, extension, fulcio, names, sequence, tlv, uri, usages, user,
};
use crate::sigstore::test_signer::{Signer, TIME, pem};

fn read(draft: &Draft) -> Result<Certificate, CertificateError> {
    let key = Signer::p256();
    Certificate::from_der(&draft.der(&key, "ca", &Signer::p256()))
}

fn id(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

#[test]
fn reads_what_a_certificate_claims() {
    let key = Signer::p384();
    let draft = Draft::new("leaf").with(fulcio(1, "https://issuer")).with(fulcio(9, "signer"));
    let der = draft.der(&key, "ca", &Signer::p256());
    let certificate = Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.der(), der);
    assert_eq!(certificate.fingerprint(), Digest::of(&der));
    assert_eq!(*certificate.key(), key.key());
    assert_eq!((certificate.not_before(), certificate.not_after()), (at(TIME - 1800), at(TIME + 1800)));
    assert_eq!(certificate.subjects(), []);
    assert_eq!(certificate.fulcio_extension(1), Some("https://issuer"));
    assert_eq!(certificate.fulcio_extension(9), Some("signer"));
    assert_eq!(certificate.fulcio_extension(10), None);
    assert!(!certificate.is_authority() && !certificate.self_issued());
    let own = Draft::new("ca").with(basic_constraints(true)).self_signed(&key);
    assert!(own.is_authority() && own.self_issued());
}

#[test]
fn reads_each_type_of_key() {
    for signer in [Signer::p256(), Signer::p384(), Signer::p521_sha512(), Signer::rsa(), Signer::ed25519()] {
        assert_eq!(*Draft::new("leaf").self_signed(&signer).key(), signer.key());
    }
}

#[test]
fn reads_every_kind_of_name() {
    let foreign =
        tlv(0xa0, &[crate::sigstore::test_pki::oid("1.2.3.4"), tlv(0xa0, &tlv(0x0c, b"x"))].concat());
    let list = [
        email("a@example.com"),
        uri("https://example.com/x?y"),
        tlv(0x82, b"example.com"),
        tlv(0x87, &[192, 0, 2, 1]),
        tlv(0x87, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        tlv(0x87, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 2]),
        user("jürgen"),
        foreign,
    ];
    let certificate = read(&Draft::new("leaf").with(names(true, &list))).unwrap();
    let found: Vec<_> =
        certificate.subjects().iter().map(|subject| (subject.kind, subject.text.as_str())).collect();
    assert_eq!(
        found,
        [
            (SubjectKind::Email, "a@example.com"),
            (SubjectKind::Uri, "https://example.com/x?y"),
            (SubjectKind::Dns, "example.com"),
            (SubjectKind::Ip, "192.0.2.1"),
            (SubjectKind::Ip, "2001:db8::1"),
            (SubjectKind::Ip, "192.0.2.2"),
            (SubjectKind::FulcioName, "jürgen"),
        ]
    );
}

#[test]
fn takes_the_issuer_from_either_extension_unless_they_differ() {
    let issuer = |list: &[(u32, &str)]| {
        let draft = list.iter().fold(Draft::new("leaf"), |draft, (arc, text)| draft.with(fulcio(*arc, text)));
        let certificate = read(&draft).unwrap();
        (certificate.oidc_issuer().map(str::to_owned), certificate.contradicts_itself())
    };
    assert_eq!(issuer(&[]), (None, false));
    assert_eq!(issuer(&[(1, "a")]), (Some("a".into()), false));
    assert_eq!(issuer(&[(8, "a")]), (Some("a".into()), false));
    assert_eq!(issuer(&[(1, "a"), (8, "a")]), (Some("a".into()), false));
    assert_eq!(issuer(&[(1, "a"), (8, "b")]), (None, true));
}

#[test]
fn reads_fulcios_extensions_up_to_the_last_and_no_other() {
    let draft = Draft::new("leaf")
        .with(fulcio(24, "last"))
        .with(extension("1.3.6.1.4.1.57264.1.25", false, b"not read"))
        .with(extension("1.3.6.1.4.1.57264.1.9.1", false, b"not read"))
        .with(extension("1.3.6.1.4.1.57264.2.9", false, b"not read"));
    let certificate = read(&draft).unwrap();
    assert_eq!(certificate.0.fulcio, BTreeMap::from([(24, "last".to_owned())]));
}

#[test]
fn refuses_an_extension_that_is_there_twice() {
    let twice = Draft::new("leaf").with(fulcio(1, "a")).with(fulcio(1, "a"));
    let oid = id("1.3.6.1.4.1.57264.1.1");
    assert_eq!(read(&twice), Err(CertificateError::RepeatedExtension { oid }));
}

#[test]
fn refuses_malformed_extensions() {
    for (oid, value) in [
        ("1.3.6.1.4.1.57264.1.1", b"\xff".as_slice()),
        ("1.3.6.1.4.1.57264.1.8", b"raw text"),
        ("2.5.29.14", b"x"),
        ("2.5.29.15", b"x"),
        ("2.5.29.17", b"x"),
        ("2.5.29.19", b"x"),
        ("2.5.29.37", b"x"),
    ] {
        let draft = Draft::new("leaf").with(extension(oid, false, value));
        assert_eq!(read(&draft), Err(CertificateError::MalformedExtension { oid: id(oid) }), "{oid}");
    }
    let oid = id("2.5.29.17");
    for name in [
        tlv(0x87, &[1, 2, 3]),
        email("ä@example.com"),
        tlv(
            0xa0,
            &[crate::sigstore::test_pki::oid("1.3.6.1.4.1.57264.1.7"), tlv(0xa0, &tlv(0x16, b"x"))].concat(),
        ),
    ] {
        let draft = Draft::new("leaf").with(names(false, &[name]));
        assert_eq!(read(&draft), Err(CertificateError::MalformedExtension { oid }));
    }
}

#[test]
fn refuses_what_is_no_certificate() {
    let der = Draft::new("leaf").der(&Signer::p256(), "ca", &Signer::p256());
    let trailing = [&der[..], &[0]].concat();
    for bytes in [&[][..], b"x", &der[1..], &der[..der.len() - 1], &trailing] {
        assert_eq!(Certificate::from_der(bytes), Err(CertificateError::Malformed));
    }
    // The outer length in its long form, which BER would accept.
    let long = [&[0x30, 0x83, 0, der[2], der[3]], &der[4..]].concat();
    assert_eq!(der[..2], [0x30, 0x82]);
    assert_eq!(Certificate::from_der(&long), Err(CertificateError::Malformed));
}

#[test]
fn refuses_more_bytes_than_the_limit_and_reads_as_many() {
    let of_size = |padding: usize| {
        let draft = Draft::new("leaf").with(extension("1.2.3.4", false, &vec![0; padding]));
        draft.der(&Signer::ed25519(), "ca", &Signer::ed25519())
    };
    let fits = of_size(60_000);
    let fits = of_size(60_000 + CERTIFICATE_LIMIT - fits.len());
    assert_eq!(fits.len(), CERTIFICATE_LIMIT);
    assert!(Certificate::from_der(&fits).is_ok());
    let padding = fits.len() + 1;
    assert_eq!(Certificate::from_der(&vec![0; padding]), Err(CertificateError::TooLarge));
}

#[test]
fn refuses_a_key_that_cannot_be_used() {
    let mut key = Signer::p256();
    *key.spki.last_mut().unwrap() ^= 1;
    let der = Draft::new("leaf").der(&key, "ca", &Signer::p256());
    assert_eq!(Certificate::from_der(&der), Err(CertificateError::Key(KeyError::Malformed)));
}

#[test]
fn reads_a_pem_list_up_to_its_limit() {
    let one = Draft::new("one").self_signed(&Signer::p256());
    let two = Draft::new("two").with(usages(false, &["1.2.3.4"])).self_signed(&Signer::p256());
    let text = format!("# a\r\n{}text\n{}", pem("CERTIFICATE", one.der()), pem("CERTIFICATE", two.der()));
    assert_eq!(Certificate::list_from_pem(&text, 2), Ok(vec![one, two]));
    assert_eq!(Certificate::list_from_pem(&text, 1), Err(CertificateError::TooMany { limit: 1 }));
}

#[test]
fn names_what_the_text_is_instead() {
    let error = |text: &str| Certificate::list_from_pem(text, 10).unwrap_err();
    assert_eq!(error("hello"), CertificateError::NotPem);
    assert_eq!(error(""), CertificateError::NotPem);
    let other = CertificateError::OtherBlock { label: "PUBLIC KEY".into() };
    assert_eq!(error(&Signer::p256().pem()), other);
    let secret = CertificateError::PrivateKey { label: "EC PRIVATE KEY".into() };
    assert_eq!(error(&pem("EC PRIVATE KEY", b"x")), secret);
    let good = pem("CERTIFICATE", Draft::new("one").self_signed(&Signer::p256()).der());
    assert_eq!(error(&good.replace("-----END", "")), CertificateError::BrokenPem);
    assert_eq!(error(&good.replace("MII", "*")), CertificateError::BrokenPem);
    assert_eq!(error(&pem("CERTIFICATE", b"x")), CertificateError::Malformed);
    assert_eq!(error(&format!("{good}{}", Signer::p256().pem())), other);
    let hostile = CertificateError::OtherBlock { label: "A[31mB".into() };
    assert_eq!(error(&pem("A\u{1b}[31m\rB", b"x")), hostile);
}

#[test]
fn a_pem_block_may_be_twice_as_long_as_the_largest_certificate() {
    let certificate = Draft::new("one").self_signed(&Signer::p256());
    let of_length = |length| {
        let body = STANDARD.encode(certificate.der());
        let body = format!("{}{body}", "\n".repeat(length - body.len()));
        Certificate::list_from_pem(&format!("{BEGIN}CERTIFICATE{DASHES}{body}{END}"), 1)
    };
    assert_eq!(of_length(2 * CERTIFICATE_LIMIT), Ok(vec![certificate.clone()]));
    assert_eq!(of_length(2 * CERTIFICATE_LIMIT + 1), Err(CertificateError::TooLarge));
}

#[test]
fn prints_its_fingerprint_alone() {
    let certificate = Draft::new("one").self_signed(&Signer::p256());
    let expected = format!("Certificate {{ fingerprint: {}, .. }}", certificate.fingerprint());
    assert_eq!(format!("{certificate:?}"), expected);
}

#[test]
fn a_certificate_before_version_3_has_no_names() {
    // TBSCertificate without the version: version 1.
    let key = Signer::p256();
    let body = Draft::new("leaf").body(&key, "ca", &crate::sigstore::test_pki::algorithm(&key));
    let body = tlv(0x30, &body[if body[1] == 0x81 { 3 } else { 4 }..][5..]);
    let algorithm = crate::sigstore::test_pki::algorithm(&key);
    let der = sequence(&[&body, &algorithm, &tlv(0x03, &[&[0][..], &key.sign(&body)].concat())]);
    assert_eq!(Certificate::from_der(&der).unwrap().subjects(), []);
}

#[test]
fn no_changed_byte_panics() {
    let draft =
        Draft::new("leaf").with(names(true, &[user("jane"), email("a@b.c")])).with(fulcio(8, "issuer"));
    let der = draft.der(&Signer::ed25519(), "ca", &Signer::ed25519());
    for place in 0..der.len() {
        for bit in 0..8 {
            let mut changed = der.clone();
            changed[place] ^= 1 << bit;
            let _ = Certificate::from_der(&changed)
                .map(|read| (read.oidc_issuer().is_some(), read.valid_at(at(TIME))));
        }
    }
}
