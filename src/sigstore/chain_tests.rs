use std::time::{Duration, Instant};

use super::*;
use crate::sigstore::authorities::Authority;
use crate::sigstore::logs::Window;
use crate::sigstore::test_pki::{
    CODE_SIGNING as CODE, Draft, SERVER, at, basic_constraints, email, extension, key_usage, names, sequence,
    tlv, uri, usages, user,
};
use crate::sigstore::test_signer::{Signer, TIME};

/// A root, an intermediate under it, and the key of a leaf under that.
struct Pki {
    root: Signer,
    intermediate: Signer,
    leaf: Signer,
}

impl Pki {
    fn new() -> Self {
        Self { root: Signer::p384(), intermediate: Signer::p256(), leaf: Signer::p256() }
    }

    fn root(&self) -> Certificate {
        Draft::authority("root").self_signed(&self.root)
    }

    fn intermediate(&self, draft: &Draft) -> Certificate {
        draft.issued(&self.intermediate, "root", &self.root)
    }

    fn leaf(&self, draft: &Draft) -> Certificate {
        draft.issued(&self.leaf, "intermediate", &self.intermediate)
    }

    fn issuer(&self) -> Result<Issuer, Rejection> {
        Ok(Issuer(self.intermediate.spki.clone()))
    }

    /// As an authority of a trust root gives its chain.
    fn authorities(&self, window: Window) -> Authorities {
        let certificates = vec![self.intermediate(&between()), self.root()];
        Authorities::new(vec![Authority { certificates, window }])
    }
}

/// Who issued, where that is all that is asked.
fn verify(
    leaf: &Certificate,
    intermediates: &[Certificate],
    authorities: &Authorities,
    time: SystemTime,
) -> Result<Issuer, Rejection> {
    super::verify(leaf, intermediates, authorities, time).map(|path| path.issuer)
}

fn between() -> Draft {
    Draft::authority("intermediate")
}

fn signing() -> Draft {
    Draft::new("leaf").with(key_usage(0b1000_0000)).with(usages(false, &[CODE]))
}

fn roots(list: &[&Certificate]) -> Authorities {
    Authorities::from_roots(list.iter().copied().cloned().collect())
}

fn fault(fault: ChainFault) -> Result<Issuer, Rejection> {
    Err(Rejection::CertificateChain(fault))
}

#[test]
fn finds_the_way_to_an_authority_and_says_who_issued() {
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    let given = [pki.intermediate(&between())];
    assert_eq!(verify(&leaf, &given, &roots(&[&pki.root()]), at(TIME)), pki.issuer());
    assert_eq!(verify(&leaf, &[], &pki.authorities(Window::ALWAYS), at(TIME)), pki.issuer());
    // A policy's root may be any certificate that issues.
    assert_eq!(verify(&leaf, &[], &roots(&given.iter().collect::<Vec<_>>()), at(TIME)), pki.issuer());
    let direct = signing().issued(&pki.leaf, "root", &pki.root);
    assert_eq!(verify(&direct, &[], &roots(&[&pki.root()]), at(TIME)), Ok(Issuer(pki.root.spki.clone())));
}

#[test]
fn finds_the_issuer_among_namesakes() {
    // As in Sigstore's staging: intermediates of one name with different keys.
    let pki = Pki::new();
    let namesake = between().issued(&Signer::p256(), "root", &pki.root);
    let given = [namesake, pki.intermediate(&between())];
    assert_eq!(verify(&pki.leaf(&signing()), &given, &roots(&[&pki.root()]), at(TIME)), pki.issuer());
}

#[test]
fn accepts_each_algorithm() {
    for root in [Signer::p256(), Signer::p384(), Signer::p521_sha512(), Signer::rsa(), Signer::ed25519()] {
        let leaf = signing().issued(&Signer::p521_sha512(), "root", &root);
        let authority = Draft::authority("root").self_signed(&root);
        let expected = Ok(Issuer(root.spki.clone()));
        assert_eq!(verify(&leaf, &[], &roots(&[&authority]), at(TIME)), expected, "{:?}", root.key());
    }
}

#[test]
fn refuses_an_authority_that_nobody_trusts() {
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    // Same names, other keys.
    let other = Pki::new();
    let unknown = fault(ChainFault::UnknownAuthority);
    assert_eq!(verify(&leaf, &[pki.intermediate(&between())], &roots(&[&other.root()]), at(TIME)), unknown);
    assert_eq!(verify(&leaf, &[other.intermediate(&between())], &roots(&[&pki.root()]), at(TIME)), unknown);
    assert_eq!(verify(&leaf, &[], &roots(&[&pki.root()]), at(TIME)), unknown);
    assert_eq!(verify(&leaf, &[], &roots(&[]), at(TIME)), fault(ChainFault::NoAuthorityAtTime));
}

#[test]
fn an_intermediate_of_an_authority_is_no_end_of_a_path() {
    let pki = Pki::new();
    let stranger = between().issued(&pki.intermediate, "nobody", &Signer::p256());
    let authority = Authority { certificates: vec![stranger, pki.root()], window: Window::ALWAYS };
    let authorities = Authorities::new(vec![authority]);
    let found = verify(&pki.leaf(&signing()), &[], &authorities, at(TIME));
    assert_eq!(found, fault(ChainFault::UnknownAuthority));
}

#[test]
fn the_leaf_is_valid_at_the_time_both_ends_included() {
    let pki = Pki::new();
    let draft = Draft::authority("root").valid(TIME - 9000, TIME + 9000);
    let root = draft.self_signed(&pki.root);
    let leaf = signing().valid(TIME, TIME + 600).issued(&pki.leaf, "root", &pki.root);
    let found = |time| verify(&leaf, &[], &roots(&[&root]), time);
    let issuer = Ok(Issuer(pki.root.spki.clone()));
    assert_eq!((found(at(TIME)), found(at(TIME + 600))), (issuer.clone(), issuer));
    let out = [at(TIME - 1), at(TIME) - Duration::from_nanos(1), at(TIME + 600) + Duration::from_nanos(1)];
    assert_eq!(out.map(found), [(); 3].map(|()| Err(Rejection::CertificateTime)));
}

#[test]
fn refuses_an_intermediate_that_was_expired() {
    // CVE-2026-24122. The leaf and the root are valid.
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    for (from, to) in [(TIME - 1800, TIME - 1), (TIME + 1, TIME + 1800)] {
        let given = pki.intermediate(&between().valid(from, to));
        let found = verify(&leaf, std::slice::from_ref(&given), &roots(&[&pki.root()]), at(TIME));
        assert_eq!(found, fault(ChainFault::Expired));
        let authority = Authority { certificates: vec![given, pki.root()], window: Window::ALWAYS };
        let found = verify(&leaf, &[], &Authorities::new(vec![authority]), at(TIME));
        assert_eq!(found, fault(ChainFault::Expired));
    }
}

#[test]
fn refuses_a_root_that_was_expired() {
    let pki = Pki::new();
    let leaf = signing().issued(&pki.leaf, "root", &pki.root);
    for (from, to) in [(TIME - 1800, TIME - 1), (TIME + 1, TIME + 1800)] {
        let root = Draft::authority("root").valid(from, to).self_signed(&pki.root);
        let found = verify(&leaf, &[], &roots(&[&root]), at(TIME));
        assert_eq!(found, fault(ChainFault::NoAuthorityAtTime));
        assert!(verify(&leaf, &[], &roots(&[&root, &pki.root()]), at(TIME)).is_ok());
    }
}

#[test]
fn an_authority_counts_within_its_window() {
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    let window = |start, end| Window { start: Some(at(start)), end: Some(at(end)) };
    let at_time = |window| verify(&leaf, &[], &pki.authorities(window), at(TIME));
    assert_eq!(at_time(window(TIME, TIME)), pki.issuer());
    assert_eq!(at_time(window(TIME - 9, TIME - 1)), fault(ChainFault::NoAuthorityAtTime));
    assert_eq!(at_time(window(TIME + 1, TIME + 9)), fault(ChainFault::NoAuthorityAtTime));
}

#[test]
fn an_authority_outside_its_window_lends_no_intermediate() {
    let pki = Pki::new();
    let ended = Window { start: None, end: Some(at(TIME - 1)) };
    let authorities = Authorities::new(vec![
        Authority { certificates: vec![pki.intermediate(&between()), pki.root()], window: ended },
        Authority { certificates: vec![pki.root()], window: Window::ALWAYS },
    ]);
    let found = verify(&pki.leaf(&signing()), &[], &authorities, at(TIME));
    assert_eq!(found, fault(ChainFault::UnknownAuthority));
}

#[test]
fn usages_allow_code_signing_or_are_absent() {
    let pki = Pki::new();
    let with = |extensions: &[Vec<u8>]| {
        let draft = extensions.iter().cloned().fold(Draft::new("leaf"), Draft::with);
        verify(&pki.leaf(&draft), &[pki.intermediate(&between())], &roots(&[&pki.root()]), at(TIME))
    };
    let refused = || Err(Rejection::CertificateUsage);
    assert_eq!(with(&[]), pki.issuer());
    assert_eq!(with(&[usages(true, &[CODE])]), pki.issuer());
    assert_eq!(with(&[usages(false, &[SERVER, CODE])]), pki.issuer());
    assert_eq!(with(&[usages(false, &["2.5.29.37.0"])]), pki.issuer());
    assert_eq!(with(&[usages(false, &[SERVER])]), refused());
    assert_eq!(with(&[usages(false, &[])]), refused());
    assert_eq!(with(&[key_usage(0b1000_0000)]), pki.issuer());
    assert_eq!(with(&[key_usage(0b1100_0000)]), pki.issuer());
    assert_eq!(with(&[key_usage(0b0010_0000)]), refused());
}

#[test]
fn issuers_may_issue() {
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    let by_way_of =
        |draft: &Draft| verify(&leaf, &[pki.intermediate(draft)], &roots(&[&pki.root()]), at(TIME));
    let named = || Draft::new("intermediate");
    assert_eq!(by_way_of(&named()), fault(ChainFault::MayNotIssue));
    assert_eq!(by_way_of(&named().with(basic_constraints(false))), fault(ChainFault::MayNotIssue));
    assert_eq!(by_way_of(&named().with(basic_constraints(true))), pki.issuer());
    let signs_messages = named().with(basic_constraints(true)).with(key_usage(0b1000_0000));
    assert_eq!(by_way_of(&signs_messages), fault(ChainFault::UnknownAuthority));
    let serves = between().with(usages(false, &[SERVER]));
    assert_eq!(by_way_of(&serves), Err(Rejection::CertificateUsage));
}

#[test]
fn roots_may_issue() {
    let pki = Pki::new();
    let leaf = signing().issued(&pki.leaf, "root", &pki.root);
    let under = |draft: &Draft| verify(&leaf, &[], &roots(&[&draft.self_signed(&pki.root)]), at(TIME));
    let named = || Draft::new("root");
    assert_eq!(under(&named().with(basic_constraints(true))), Ok(Issuer(pki.root.spki.clone())));
    assert_eq!(under(&named()), fault(ChainFault::UnknownAuthority));
    let signs_messages = named().with(basic_constraints(true)).with(key_usage(0b1000_0000));
    assert_eq!(under(&signs_messages), fault(ChainFault::UnknownAuthority));
    let with = |usage| Draft::authority("root").with(usages(false, &[usage]));
    for usage in [CODE, "2.5.29.37.0"] {
        assert_eq!(under(&with(usage)), Ok(Issuer(pki.root.spki.clone())));
    }
    assert_eq!(under(&with(SERVER)), fault(ChainFault::UnknownAuthority));
}

#[test]
fn an_intermediate_with_a_path_length_leads_no_further() {
    let pki = Pki::new();
    let constrained = extension("2.5.29.19", true, &sequence(&[&tlv(1, &[0xff]), &tlv(2, &[0])]));
    let upper = Draft::new("upper").with(constrained).issued(&pki.leaf, "root", &pki.root);
    let lower = between().issued(&pki.intermediate, "upper", &pki.leaf);
    let found = verify(&pki.leaf(&signing()), &[upper, lower], &roots(&[&pki.root()]), at(TIME));
    assert_eq!(found, fault(ChainFault::MayNotIssue));
}

#[test]
fn a_root_with_a_path_length_leads_no_further() {
    let pki = Pki::new();
    let root = |length: u8| {
        let constrained = extension("2.5.29.19", true, &sequence(&[&tlv(1, &[0xff]), &tlv(2, &[length])]));
        Draft::new("root").with(constrained).self_signed(&pki.root)
    };
    let direct = signing().issued(&pki.leaf, "root", &pki.root);
    let found = verify(&direct, &[], &roots(&[&root(0)]), at(TIME));
    assert_eq!(found, Ok(Issuer(pki.root.spki.clone())));
    let leaf = pki.leaf(&signing());
    let through =
        |ends: &[&Certificate]| verify(&leaf, &[pki.intermediate(&between())], &roots(ends), at(TIME));
    assert_eq!(through(&[&root(0)]), fault(ChainFault::MayNotIssue));
    assert_eq!(through(&[&root(1)]), pki.issuer());
    assert_eq!(through(&[&root(0), &root(1)]), pki.issuer());
}

#[test]
fn a_path_holds_until_the_first_of_its_certificates_or_its_authority_ends() {
    let pki = Pki::new();
    let until = |leaf: u64, intermediate: u64, root: u64, window: Option<u64>| {
        let root = Draft::authority("root").valid(TIME - 60, TIME + root).self_signed(&pki.root);
        let certificates = vec![pki.intermediate(&between().valid(TIME - 60, TIME + intermediate)), root];
        let window = Window { start: None, end: window.map(|end| at(TIME + end)) };
        let unused = between().valid(TIME - 60, TIME + 1).issued(&Signer::p256(), "root", &pki.root);
        let authorities = Authorities::new(vec![Authority { certificates, window }]);
        let leaf = pki.leaf(&signing().valid(TIME - 60, TIME + leaf));
        super::verify(&leaf, &[unused], &authorities, at(TIME)).map(|path| path.until)
    };
    assert_eq!(until(10, 20, 30, None), Ok(at(TIME + 10)));
    assert_eq!(until(20, 10, 30, Some(30)), Ok(at(TIME + 10)));
    assert_eq!(until(20, 30, 10, Some(20)), Ok(at(TIME + 10)));
    assert_eq!(until(20, 30, 40, Some(10)), Ok(at(TIME + 10)));
    // One key with two certificates: the one that ends last is as good.
    let leaf = signing().valid(TIME - 60, TIME + 90).issued(&pki.leaf, "root", &pki.root);
    let root = |end: u64| Draft::authority("root").valid(TIME - 60, TIME + end).self_signed(&pki.root);
    let path = super::verify(&leaf, &[], &roots(&[&root(10), &root(20)]), at(TIME));
    assert_eq!(path.map(|path| path.until), Ok(at(TIME + 20)));
    let trusted = signing().valid(TIME - 60, TIME + 10).self_signed(&pki.leaf);
    let path = super::verify(&trusted, &[], &roots(&[&trusted]), at(TIME));
    assert_eq!(path.map(|path| path.until), Ok(at(TIME + 10)));
}

#[test]
fn an_authority_signs_no_images() {
    let pki = Pki::new();
    let leaf = pki.intermediate(&Draft::new("leaf").with(basic_constraints(true)));
    let found = verify(&leaf, &[], &roots(&[&pki.root()]), at(TIME));
    assert_eq!(found, fault(ChainFault::AuthorityAsLeaf));
}

#[test]
fn a_certificate_that_is_trusted_itself_needs_no_issuer() {
    let key = Signer::p256();
    for draft in [Draft::new("leaf"), Draft::new("leaf").with(basic_constraints(true)), signing()] {
        let leaf = draft.issued(&key, "nobody", &Signer::p256());
        assert_eq!(verify(&leaf, &[], &roots(&[&leaf]), at(TIME)), Ok(Issuer(key.spki.clone())));
        let late = verify(&leaf, &[], &roots(&[&leaf]), at(TIME + 1801));
        assert_eq!(late, Err(Rejection::CertificateTime));
    }
    let serves = Draft::new("leaf").with(usages(false, &[SERVER])).self_signed(&key);
    assert_eq!(verify(&serves, &[], &roots(&[&serves]), at(TIME)), Err(Rejection::CertificateUsage));
    let encrypts = Draft::new("leaf").with(key_usage(0b0010_0000)).self_signed(&key);
    assert_eq!(verify(&encrypts, &[], &roots(&[&encrypts]), at(TIME)), Err(Rejection::CertificateUsage));
}

#[test]
fn refuses_a_critical_extension_that_is_not_understood() {
    let pki = Pki::new();
    let through = |leaf: &Draft, intermediate: &Draft| {
        verify(&pki.leaf(leaf), &[pki.intermediate(intermediate)], &roots(&[&pki.root()]), at(TIME))
    };
    let unknown = |critical| extension("1.2.3.4", critical, b"x");
    assert_eq!(through(&signing().with(unknown(false)), &between().with(unknown(false))), pki.issuer());
    let refused = fault(ChainFault::CriticalExtension);
    assert_eq!(through(&signing().with(unknown(true)), &between()), refused);
    assert_eq!(through(&signing(), &between().with(unknown(true))), refused);
}

#[test]
fn refuses_certificates_before_version_3() {
    // What `openssl x509 -req` made for years. Go takes them as signers' and as roots.
    let pki = Pki::new();
    let first = |subject: &str| Draft { version: None, ..Draft::new(subject) };
    let leaf = first("leaf").issued(&pki.leaf, "root", &pki.root);
    let refused = fault(ChainFault::OldVersion);
    assert_eq!(verify(&leaf, &[], &roots(&[&pki.root()]), at(TIME)), refused);
    assert_eq!(verify(&leaf, &[], &roots(&[&leaf]), at(TIME)), Ok(Issuer(pki.leaf.spki.clone())));
    let through = first("intermediate").issued(&pki.intermediate, "root", &pki.root);
    let found = verify(&pki.leaf(&signing()), &[through], &roots(&[&pki.root()]), at(TIME));
    assert_eq!(found, refused);
    let root = first("root").self_signed(&pki.root);
    let direct = signing().issued(&pki.leaf, "root", &pki.root);
    assert_eq!(verify(&direct, &[], &roots(&[&root]), at(TIME)), fault(ChainFault::UnknownAuthority));
}

#[test]
fn names_do_not_matter_to_the_path() {
    let pki = Pki::new();
    // Fulcio marks them critical, since the subject is empty; a user name is all there is.
    for list in
        [names(true, &[user("jane")]), names(true, &[email("a@b.c")]), names(false, &[uri("https://x")])]
    {
        let leaf = pki.leaf(&signing().with(list));
        assert_eq!(verify(&leaf, &[], &pki.authorities(Window::ALWAYS), at(TIME)), pki.issuer());
    }
}

#[test]
fn name_constraints_hold() {
    let pki = Pki::new();
    let dns = |text: &str| tlv(0x82, text.as_bytes());
    let permitted = sequence(&[&tlv(0xa0, &sequence(&[&dns("example.com")]))]);
    let root = Draft::authority("root").with(extension("2.5.29.30", true, &permitted)).self_signed(&pki.root);
    let named = |list: &[Vec<u8>]| {
        let leaf = signing().with(names(false, list)).issued(&pki.leaf, "root", &pki.root);
        verify(&leaf, &[], &roots(&[&root]), at(TIME))
    };
    let violated = fault(ChainFault::NameConstraint);
    assert_eq!(named(&[dns("a.example.com")]), Ok(Issuer(pki.root.spki.clone())));
    assert_eq!(named(&[dns("a.example.org")]), violated);
    // Another kind of name is not constrained (RFC 5280, 4.2.1.10).
    assert_eq!(named(&[email("a@example.org")]), Ok(Issuer(pki.root.spki.clone())));
    let mails = sequence(&[&tlv(0xa0, &sequence(&[&email("example.com")]))]);
    let root = Draft::authority("root").with(extension("2.5.29.30", true, &mails)).self_signed(&pki.root);
    let leaf = signing().with(names(false, &[email("a@example.com")])).issued(&pki.leaf, "root", &pki.root);
    assert_eq!(verify(&leaf, &[], &roots(&[&root]), at(TIME)), violated);
}

#[test]
fn refuses_more_intermediates_than_ten() {
    let pki = Pki::new();
    let leaf = pki.leaf(&signing());
    let given = vec![pki.intermediate(&between()); 11];
    let trusted = roots(&[&pki.root()]);
    assert_eq!(verify(&leaf, &given[..10], &trusted, at(TIME)), pki.issuer());
    let limit = Rejection::LimitExceeded { what: Limited::Intermediates, limit: 10 };
    assert_eq!(verify(&leaf, &given, &trusted, at(TIME)), Err(limit));
}

#[test]
fn hostile_intermediates_end() {
    // Ten namesakes that all seem to issue each other.
    let keys: Vec<Signer> = (0..10).map(|_| Signer::p256()).collect();
    let given: Vec<_> =
        keys.iter().map(|key| Draft::authority("loop").issued(key, "loop", &keys[0])).collect();
    let leaf = signing().issued(&Signer::p256(), "loop", &keys[9]);
    let root = Draft::authority("loop").self_signed(&Signer::p256());
    let begin = Instant::now();
    let found = verify(&leaf, &given, &roots(&[&root]), at(TIME));
    assert_eq!(found, fault(ChainFault::UnknownAuthority));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn of_namesakes_that_came_along_two_are_tried() {
    let pki = Pki::new();
    let namesake = || between().issued(&Signer::p256(), "root", &pki.root);
    let (leaf, right) = (pki.leaf(&signing()), pki.intermediate(&between()));
    let found = |given: &[Certificate]| verify(&leaf, given, &roots(&[&pki.root()]), at(TIME));
    assert_eq!(found(&[namesake(), right.clone()]), pki.issuer());
    assert_eq!(found(&[namesake(), namesake(), right.clone()]), fault(ChainFault::UnknownAuthority));
    // An authority's own are as many as it likes.
    let certificates = vec![namesake(), namesake(), right, pki.root()];
    let authorities = Authorities::new(vec![Authority { certificates, window: Window::ALWAYS }]);
    assert_eq!(verify(&leaf, &[], &authorities, at(TIME)), pki.issuer());
}

#[test]
fn times_before_1970_are_no_times() {
    let pki = Pki::new();
    let leaf = signing().valid(0, TIME).issued(&pki.leaf, "root", &pki.root);
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(verify(&leaf, &[], &roots(&[&pki.root()]), before), Err(Rejection::CertificateTime));
}
