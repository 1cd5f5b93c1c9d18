use super::*;
use crate::sigstore::logs::Window;
use crate::sigstore::test_pki::{
    CODE_SIGNING, Draft, HASH_384, HASH_512, SERVER, SecondDigest, TIME_STAMPING as STAMPING, TokenDraft, at,
    extension, octets, oid, usages,
};
use crate::sigstore::test_signer::{Signer, TIME};

const OVER: &[u8] = b"a signature";

/// A root and a signer of timestamps under it.
struct Tsa {
    root: Signer,
    signer: Signer,
}

impl Tsa {
    fn new(signer: Signer) -> Self {
        Self { root: Signer::p384(), signer }
    }

    fn root(&self) -> Certificate {
        Draft::authority("root").self_signed(&self.root)
    }

    fn leaf(&self, draft: &Draft) -> Certificate {
        draft.issued(&self.signer, "root", &self.root)
    }

    fn chain(&self) -> Vec<Certificate> {
        vec![self.leaf(&stamping()), self.root()]
    }

    fn token(&self) -> Vec<u8> {
        draft().signed(&self.signer)
    }
}

fn stamping() -> Draft {
    Draft::new("tsa").with(usages(true, &[STAMPING]))
}

fn draft() -> TokenDraft {
    TokenDraft::new(OVER, "root")
}

fn trusted(chain: &[Certificate]) -> TimestampAuthorities {
    TimestampAuthorities::from_chain(chain.to_vec())
}

fn found(token: &[u8], chain: &[Certificate]) -> Result<SystemTime, Rejection> {
    verify(token, OVER, &trusted(chain))
}

#[test]
fn accepts_tokens_of_each_kind_of_key() {
    for signer in [Signer::p256(), Signer::p384(), Signer::rsa(), Signer::rsa_pss(), Signer::ed25519()] {
        let tsa = Tsa::new(signer);
        assert_eq!(found(&tsa.token(), &tsa.chain()), Ok(at(TIME)), "{:?}", tsa.signer.key());
    }
}

#[test]
fn accepts_a_signature_with_another_hash_than_that_of_the_content() {
    for (signer, hash) in [
        (Signer::p256(), HASH_512),
        (Signer::p384(), HASH_512),
        (Signer::p521_sha512(), HASH_384),
        (Signer::rsa(), HASH_512),
    ] {
        let tsa = Tsa::new(signer);
        let token = TokenDraft { hash: Some(hash), ..draft() }.signed(&tsa.signer);
        assert_eq!(found(&token, &tsa.chain()), Ok(at(TIME)), "{:?}", tsa.signer.key());
    }
    assert_eq!(signature_hash(RSA_SHA_384), Some(HashAlgorithm::Sha384));
    assert_eq!(signature_hash(RSA_SHA_512), Some(HashAlgorithm::Sha512));
}

#[test]
fn accepts_a_whole_response_and_the_token_alone() {
    let tsa = Tsa::new(Signer::p256());
    for status in [None, Some(0), Some(1)] {
        let token = TokenDraft { status, ..draft() }.signed(&tsa.signer);
        assert_eq!(found(&token, &tsa.chain()), Ok(at(TIME)));
    }
    let rejected = TokenDraft { status: Some(2), ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&rejected, &tsa.chain()), Err(Rejection::TimestampMalformed));
}

#[test]
fn reads_fractions_of_a_second() {
    let tsa = Tsa::new(Signer::p256());
    let at_time = |suffix: &str| {
        let time = draft().time.replace('Z', suffix);
        found(&TokenDraft { time, ..draft() }.signed(&tsa.signer), &tsa.chain())
    };
    assert_eq!(at_time(".5Z"), Ok(at(TIME) + Duration::from_millis(500)));
    assert_eq!(at_time(".000000001Z"), Ok(at(TIME) + Duration::from_nanos(1)));
    for suffix in ["", ".Z", ".1234567890Z", ".5", "+0100", ".-1Z", ".+5Z", "0Z", ".5.5Z"] {
        assert_eq!(at_time(suffix), Err(Rejection::TimestampMalformed), "{suffix}");
    }
    // No month, and no digits.
    for time in ["20231332000000Z", "202311142213+0Z"] {
        let token = TokenDraft { time: time.into(), ..draft() }.signed(&tsa.signer);
        assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampMalformed), "{time}");
    }
}

#[test]
fn refuses_a_token_over_something_else() {
    let tsa = Tsa::new(Signer::p256());
    let token = TokenDraft::new(b"another signature", "root").signed(&tsa.signer);
    assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampForeign));
}

#[test]
fn refuses_an_authority_that_nobody_trusts() {
    let (tsa, other) = (Tsa::new(Signer::p256()), Tsa::new(Signer::p256()));
    assert_eq!(
        verify(&tsa.token(), OVER, &TimestampAuthorities::none()),
        Err(Rejection::TimestampUnknownAuthority)
    );
    // Same names, other keys.
    assert_eq!(found(&tsa.token(), &other.chain()), Err(Rejection::TimestampInvalid));
    let unknown = TokenDraft { issuer: "elsewhere".into(), ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&unknown, &tsa.chain()), Err(Rejection::TimestampUnknownAuthority));
    let unknown = TokenDraft { serial: 8, ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&unknown, &tsa.chain()), Err(Rejection::TimestampUnknownAuthority));
}

#[test]
fn finds_the_signer_by_its_key_identifier() {
    let tsa = Tsa::new(Signer::p256());
    let identified = |identifier: &[u8]| {
        let own = stamping().with(extension("2.5.29.14", false, &octets(identifier)));
        [tsa.leaf(&own), tsa.root()]
    };
    let token = TokenDraft { key_identifier: Some(b"ours"), ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&token, &identified(b"ours")), Ok(at(TIME)));
    let unknown = Err(Rejection::TimestampUnknownAuthority);
    assert_eq!(found(&token, &identified(b"")), unknown);
    assert_eq!(found(&token, &identified(b"others")), unknown);
    assert_eq!(found(&token, &tsa.chain()), unknown);
}

#[test]
fn pitfall_09_a_token_brings_no_signer_where_the_authority_names_one() {
    // CVE-2026-39984: whoever the root issued a certificate to is not the authority's signer.
    let tsa = Tsa::new(Signer::p256());
    let intruder = Signer::p256();
    let own = Draft { serial: 9, ..stamping() }.issued(&intruder, "root", &tsa.root);
    let token = TokenDraft { serial: 9, embedded: vec![own.der().to_vec()], ..draft() }.signed(&intruder);
    assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampUnknownAuthority));
    assert_eq!(found(&token, &[tsa.root()]), Ok(at(TIME)));
}

#[test]
fn pitfall_09_certificates_in_a_token_are_worth_nothing() {
    let tsa = Tsa::new(Signer::p256());
    let forged = stamping().self_signed(&Signer::p256());
    let embedded = vec![forged.der().to_vec(), tsa.root().der().to_vec()];
    let token = TokenDraft { embedded: embedded.clone(), ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&token, &tsa.chain()), Ok(at(TIME)));
    // One with the right name and serial number, but of another key, ahead of the right one.
    let namesake = stamping().issued(&Signer::p256(), "root", &Signer::p384());
    let by_token = TokenDraft { embedded: vec![namesake.der().to_vec()], ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&by_token, &tsa.chain()), Ok(at(TIME)));
    assert_eq!(found(&by_token, &[tsa.root()]), Err(Rejection::TimestampUnknownAuthority));
    // Where only what the token brings can tell, the one that leads to the authority does.
    let both = vec![namesake.der().to_vec(), tsa.leaf(&stamping()).der().to_vec()];
    let both = TokenDraft { embedded: both, ..draft() };
    assert_eq!(found(&both.signed(&tsa.signer), &[tsa.root()]), Ok(at(TIME)));
    assert_eq!(found(&both.signed(&Signer::p256()), &[tsa.root()]), Err(Rejection::TimestampInvalid));
}

#[test]
fn finds_the_signer_in_the_token_where_the_authority_names_none() {
    let tsa = Tsa::new(Signer::p256());
    let leaf = tsa.leaf(&stamping());
    let with = |embedded: &[&Certificate]| {
        let embedded = embedded.iter().map(|found| found.der().to_vec()).collect();
        TokenDraft { embedded, ..draft() }.signed(&tsa.signer)
    };
    assert_eq!(found(&with(&[&leaf]), &[tsa.root()]), Ok(at(TIME)));
    assert_eq!(found(&with(&[]), &[tsa.root()]), Err(Rejection::TimestampUnknownAuthority));
    // It must lead to the authority, and be a signer of timestamps.
    let stranger = || Err(Rejection::TimestampUnknownAuthority);
    assert_eq!(found(&with(&[&leaf]), &[Tsa::new(Signer::p256()).root()]), stranger());
    let serves = tsa.leaf(&Draft::new("tsa").with(usages(true, &[SERVER])));
    assert_eq!(found(&with(&[&serves]), &[tsa.root()]), stranger());
    let authority = Draft::authority("tsa").with(usages(true, &[STAMPING]));
    let authority = authority.issued(&tsa.signer, "root", &tsa.root);
    assert_eq!(found(&with(&[&authority]), &[tsa.root()]), stranger());
}

#[test]
fn pitfall_09_the_signer_signs_timestamps_and_nothing_else() {
    let tsa = Tsa::new(Signer::p256());
    for usage in [
        usages(true, &[CODE_SIGNING]),
        usages(true, &[STAMPING, CODE_SIGNING]),
        usages(false, &[STAMPING]),
        usages(true, &["2.5.29.37.0"]),
    ] {
        let chain = [tsa.leaf(&Draft::new("tsa").with(usage)), tsa.root()];
        assert_eq!(found(&tsa.token(), &chain), Err(Rejection::TimestampSigner));
    }
    let chain = [tsa.leaf(&Draft::new("tsa")), tsa.root()];
    assert_eq!(found(&tsa.token(), &chain), Err(Rejection::TimestampSigner));
}

#[test]
fn the_signers_certificate_is_valid_at_the_time() {
    let tsa = Tsa::new(Signer::p256());
    let expired = [tsa.leaf(&stamping().valid(TIME - 1800, TIME - 1)), tsa.root()];
    assert_eq!(found(&tsa.token(), &expired), Err(Rejection::TimestampSigner));
    let root = Draft::authority("root").valid(TIME - 1800, TIME - 1).self_signed(&tsa.root);
    assert_eq!(found(&tsa.token(), &[tsa.leaf(&stamping()), root]), Err(Rejection::TimestampSigner));
}

#[test]
fn the_chain_may_have_any_order_and_must_hold() {
    let tsa = Tsa::new(Signer::p256());
    let between = Signer::p256();
    let leaf = stamping().issued(&tsa.signer, "between", &between);
    let intermediate = Draft::authority("between").issued(&between, "root", &tsa.root);
    let token = TokenDraft { issuer: "between".into(), ..draft() }.signed(&tsa.signer);
    let all = [leaf.clone(), intermediate.clone(), tsa.root()];
    assert_eq!(found(&token, &all), Ok(at(TIME)));
    let reversed = [tsa.root(), intermediate.clone(), leaf.clone()];
    assert_eq!(found(&token, &reversed), Ok(at(TIME)));
    // A trust root's chain may end before the root.
    assert_eq!(found(&token, &[leaf.clone(), intermediate]), Ok(at(TIME)));
    assert_eq!(found(&token, &[tsa.root(), leaf]), Err(Rejection::TimestampSigner));
}

#[test]
fn no_authority_lends_another_its_window() {
    let (tsa, other) = (Tsa::new(Signer::p256()), Tsa::new(Signer::p256()));
    let authorities = |window| {
        TimestampAuthorities::new(vec![
            Authority { certificates: tsa.chain(), window },
            Authority { certificates: other.chain(), window: Window::ALWAYS },
        ])
    };
    let window = |start, end| Window { start: Some(at(start)), end: Some(at(end)) };
    let at_time = |window| verify(&tsa.token(), OVER, &authorities(window));
    assert_eq!(at_time(window(TIME, TIME)), Ok(at(TIME)));
    let outside = TimestampAuthorities::new(vec![
        Authority { certificates: other.chain(), window: Window::ALWAYS },
        Authority { certificates: tsa.chain(), window: window(TIME + 1, TIME + 9) },
    ]);
    assert_eq!(verify(&tsa.token(), OVER, &outside), Err(Rejection::TimestampOutsideWindow));
    for window in [window(TIME - 9, TIME - 1), window(TIME + 1, TIME + 9)] {
        let alone = TimestampAuthorities::new(vec![Authority { certificates: tsa.chain(), window }]);
        assert_eq!(verify(&tsa.token(), OVER, &alone), Err(Rejection::TimestampOutsideWindow));
        assert!(at_time(window).is_err());
    }
}

#[test]
fn the_signed_attributes_are_about_the_content() {
    let tsa = Tsa::new(Signer::p256());
    let wrong_digest = TokenDraft { digest: Some(vec![0; 32]), ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&wrong_digest, &tsa.chain()), Err(Rejection::TimestampInvalid));
    let other_type = TokenDraft { content_type: "1.2.840.113549.1.7.1", ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&other_type, &tsa.chain()), Err(Rejection::TimestampInvalid));
    // Two readers could go by different ones.
    for second in [SecondDigest::SameAttribute, SecondDigest::OwnAttribute] {
        let two = TokenDraft { second_digest: Some(second), ..draft() }.signed(&tsa.signer);
        assert_eq!(found(&two, &tsa.chain()), Err(Rejection::TimestampInvalid));
    }
}

#[test]
fn refuses_a_changed_token() {
    let tsa = Tsa::new(Signer::p256());
    let mut token = tsa.token();
    // The time, which is in the content, whose hash is signed.
    let text = draft().time.into_bytes();
    let place = token.windows(text.len()).position(|window| window == text).unwrap();
    token[place + 13] ^= 1;
    assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampInvalid));
    let mut token = tsa.token();
    *token.last_mut().unwrap() ^= 1;
    assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampInvalid));
}

#[test]
fn refuses_a_second_signer() {
    let tsa = Tsa::new(Signer::p256());
    for signers in [0, 2] {
        let token = TokenDraft { signers, ..draft() }.signed(&tsa.signer);
        assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampMalformed));
    }
}

#[test]
fn refuses_what_is_no_token() {
    let tsa = Tsa::new(Signer::p256());
    let good = tsa.token();
    let trailing = [&good[..], &[0]].concat();
    for bytes in [&[][..], b"x", &[0x30, 0], &good[..good.len() - 1], &trailing, &octets(b"x")] {
        assert_eq!(found(bytes, &tsa.chain()), Err(Rejection::TimestampMalformed));
    }
}

#[test]
fn refuses_a_signed_content_that_is_no_timestamp() {
    let tsa = Tsa::new(Signer::p256());
    let changed = |change| found(&TokenDraft { change, ..draft() }.signed(&tsa.signer), &tsa.chain());
    /// Writes `to` where `from` is.
    fn replaced(mut content: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
        let place = content.windows(from.len()).position(|window| window == from).unwrap();
        content[place..place + to.len()].copy_from_slice(to);
        content
    }
    assert_eq!(changed(|content| content), Ok(at(TIME)));
    // Its version, policy, serial number and time, the last of the other fields, and what is behind them.
    for change in [
        (|content| replaced(content, &[2, 1, 1], &[2, 1, 2])) as fn(Vec<u8>) -> Vec<u8>,
        |content| replaced(content, &[0x83, 0xbf, 0x30, 2], &[0x83, 0xbf, 0x30, 0x82]),
        |content| replaced(content, &[2, 1, 9], &[4, 1, 9]),
        |content| replaced(content, &[0x18, 15], &[0x17, 15]),
        |content| replaced(content, &[2, 1, 42], &[2, 2, 42]),
        |content| [content, vec![0]].concat(),
    ] {
        assert_eq!(changed(change), Err(Rejection::TimestampMalformed));
    }
    // Not signed: what the token says that it is, and that its content is.
    for (id, other) in [
        ("1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1"),
        ("1.2.840.113549.1.9.16.1.4", "1.2.840.113549.1.9.16.1.5"),
    ] {
        let token = replaced(tsa.token(), &oid(id), &oid(other));
        assert_eq!(found(&token, &tsa.chain()), Err(Rejection::TimestampMalformed));
    }
}

#[test]
fn refuses_more_bytes_or_certificates_than_the_limits() {
    let tsa = Tsa::new(Signer::p256());
    let limit = Rejection::LimitExceeded { what: Limited::TimestampToken, limit: 65536 };
    assert_eq!(found(&vec![0; 65537], &tsa.chain()), Err(limit));
    assert_eq!(found(&vec![0; 65536], &tsa.chain()), Err(Rejection::TimestampMalformed));
    let many = |count: u8| {
        let one = |serial| Draft { serial, ..stamping() }.self_signed(&tsa.signer).der().to_vec();
        let embedded = (1..=count).map(one).collect();
        found(&TokenDraft { embedded, ..draft() }.signed(&tsa.signer), &tsa.chain())
    };
    assert_eq!(many(16), Ok(at(TIME)));
    assert_eq!(many(17), Err(Rejection::TimestampMalformed));
}

#[test]
fn a_certificate_that_cannot_be_read_does_not_matter() {
    let tsa = Tsa::new(Signer::p256());
    let odd = Draft::new("odd").with(extension("2.5.29.17", false, b"x"));
    let odd = odd.der(&Signer::p256(), "root", &tsa.root);
    let token = TokenDraft { embedded: vec![odd], ..draft() }.signed(&tsa.signer);
    assert_eq!(found(&token, &tsa.chain()), Ok(at(TIME)));
}

#[test]
fn accepts_what_openssl_stamped() {
    let token = include_bytes!("../../tests/fixtures/sigstore/openssl.tsr");
    let pem = include_str!("../../tests/fixtures/sigstore/openssl-tsa.pem");
    let chain = Certificate::list_from_pem(pem, 2).unwrap();
    let time = at(1_795_544_089) + Duration::from_millis(944);
    assert_eq!(found(token, &chain), Ok(time));
    assert_eq!(found(token, &chain[1..]), Ok(time));
    assert_eq!(found(token, &Tsa::new(Signer::rsa()).chain()), Err(Rejection::TimestampUnknownAuthority));
}

#[test]
fn no_changed_byte_changes_the_time() {
    // Some bytes say nothing and are not signed, as the version and the list of hashes.
    let tsa = Tsa::new(Signer::ed25519());
    let (token, chain) = (tsa.token(), tsa.chain());
    for place in 0..token.len() {
        let mut changed = token.clone();
        changed[place] ^= 1;
        assert!(found(&changed, &chain).is_err() || found(&changed, &chain) == Ok(at(TIME)), "{place}");
    }
}
