use super::*;
use crate::sigstore::logs::Window;
use crate::sigstore::test_pki::{Draft, algorithm, at, email, extension, names, octets, sct, sct_list};
use crate::sigstore::test_signer::{Signer, TIME, sha256};

const MILLISECONDS: u64 = TIME * 1000 + 321;

/// An authority, a leaf's key and a log.
struct Scene {
    authority: Signer,
    leaf: Signer,
    log: Signer,
}

impl Scene {
    fn new(log: Signer) -> Self {
        Self { authority: Signer::p256(), leaf: Signer::p256(), log }
    }

    fn draft() -> Draft {
        Draft::new("leaf").with(names(true, &[email("a@b.c")]))
    }

    fn issuer(&self) -> Issuer {
        Issuer(self.authority.spki.clone())
    }

    /// What the log saw.
    fn body(&self) -> Vec<u8> {
        Self::draft().body(&self.leaf, "ca", &algorithm(&self.authority))
    }

    fn promise(&self) -> Vec<u8> {
        sct(&self.log, MILLISECONDS, &self.authority.spki, &self.body())
    }

    /// The list goes before the names, between what the log saw.
    fn certificate(&self, list: Vec<u8>) -> Certificate {
        let mut draft = Self::draft();
        draft.extensions.insert(0, list);
        draft.issued(&self.leaf, "ca", &self.authority)
    }

    fn logs(&self) -> Logs {
        Logs::from_keys(&[Signer::p256().key(), self.log.key()])
    }

    fn verify(&self, list: Vec<u8>) -> Result<(), Rejection> {
        verify(&self.certificate(list), &self.issuer(), &self.logs())
    }

    fn verify_one(&self, promise: &[u8]) -> Result<(), Rejection> {
        self.verify(sct_list(&[promise.to_vec()]))
    }
}

#[test]
fn accepts_the_promise_of_a_known_log() {
    for log in [Signer::p256(), Signer::p384(), Signer::rsa()] {
        let scene = Scene::new(log);
        assert_eq!(scene.verify_one(&scene.promise()), Ok(()), "{:?}", scene.log.key());
    }
}

#[test]
fn refuses_a_certificate_without_a_promise() {
    let scene = Scene::new(Signer::p256());
    let leaf = Scene::draft().issued(&scene.leaf, "ca", &scene.authority);
    assert_eq!(verify(&leaf, &scene.issuer(), &scene.logs()), Err(Rejection::SctMissing));
}

#[test]
fn refuses_the_promise_of_an_unknown_log() {
    let scene = Scene::new(Signer::p256());
    let leaf = scene.certificate(sct_list(&[scene.promise()]));
    let others = Logs::from_keys(&[Signer::p256().key()]);
    assert_eq!(verify(&leaf, &scene.issuer(), &others), Err(Rejection::SctUnknown));
    assert_eq!(verify(&leaf, &scene.issuer(), &Logs::from_keys(&[])), Err(Rejection::SctUnknown));
}

#[test]
fn refuses_a_promise_about_something_else() {
    let scene = Scene::new(Signer::p256());
    let invalid = Err(Rejection::SctInvalid);
    // Another certificate, another issuer, another time than was signed.
    let other_body = sct(&scene.log, MILLISECONDS, &scene.authority.spki, &scene.body()[1..]);
    assert_eq!(scene.verify_one(&other_body), invalid);
    let other_issuer = sct(&scene.log, MILLISECONDS, &scene.leaf.spki, &scene.body());
    assert_eq!(scene.verify_one(&other_issuer), invalid);
    let mut other_time = scene.promise();
    other_time[40] ^= 1;
    assert_eq!(scene.verify_one(&other_time), invalid);
    // Of another log, under this one's id.
    let mut other_log = sct(&Signer::p256(), MILLISECONDS, &scene.authority.spki, &scene.body());
    other_log[1..33].copy_from_slice(&sha256(&scene.log.spki));
    assert_eq!(scene.verify_one(&other_log), invalid);
}

#[test]
fn the_issuer_is_the_verified_one() {
    let scene = Scene::new(Signer::p256());
    let leaf = scene.certificate(sct_list(&[scene.promise()]));
    let other = Issuer(Signer::p256().spki);
    assert_eq!(verify(&leaf, &other, &scene.logs()), Err(Rejection::SctInvalid));
}

#[test]
fn a_log_counts_within_its_window() {
    let scene = Scene::new(Signer::p256());
    let leaf = scene.certificate(sct_list(&[scene.promise()]));
    let found = |start: u64, end: u64| {
        let window = Window { start: Some(at(start)), end: Some(at(end)) };
        let log = LogKey { id: sha256(&scene.log.spki), key: scene.log.key(), window, origin: None };
        verify(&leaf, &scene.issuer(), &Logs::new(vec![log]))
    };
    assert_eq!(found(TIME, TIME + 1), Ok(()));
    // 321 ms past the end.
    assert_eq!(found(TIME - 1, TIME), Err(Rejection::SctInvalid));
    assert_eq!(found(TIME + 1, TIME + 2), Err(Rejection::SctInvalid));
}

#[test]
fn of_several_promises_one_by_a_known_log_is_enough() {
    let scene = Scene::new(Signer::p256());
    let foreign = sct(&Signer::p256(), MILLISECONDS, &scene.authority.spki, &scene.body());
    let later_version = [&[1][..], b"whatever"].concat();
    assert_eq!(scene.verify(sct_list(&[foreign.clone(), later_version, scene.promise()])), Ok(()));
    assert_eq!(scene.verify(sct_list(&[foreign.clone(), foreign])), Err(Rejection::SctUnknown));
}

#[test]
fn a_promise_of_a_known_log_that_does_not_hold_is_not_made_good() {
    let scene = Scene::new(Signer::p256());
    let wrong = sct(&scene.log, MILLISECONDS, &scene.leaf.spki, &scene.body());
    assert_eq!(scene.verify(sct_list(&[scene.promise(), wrong])), Err(Rejection::SctInvalid));
}

#[test]
fn knows_the_schemes_of_tls_that_logs_use() {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    for (hash, number) in [(Sha256, 4), (Sha384, 5), (Sha512, 6)] {
        assert_eq!(scheme(&[number, 3]), Some(Scheme::Ecdsa(hash)));
        assert_eq!(scheme(&[number, 1]), Some(Scheme::RsaPkcs1(hash)));
    }
    for other in [[8, 7], [2, 3], [4, 2], [7, 1]] {
        assert_eq!(scheme(&other), None);
    }
}

#[test]
fn refuses_schemes_that_no_log_uses() {
    let scene = Scene::new(Signer::ed25519());
    assert_eq!(scene.verify_one(&scene.promise()), Err(Rejection::SctInvalid));
    // ECDSA with the hash that the log did not use.
    let scene = Scene::new(Signer::p256());
    let mut promise = scene.promise();
    assert_eq!(promise[43..45], [4, 3]);
    promise[43] = 5;
    assert_eq!(scene.verify_one(&promise), Err(Rejection::SctInvalid));
}

#[test]
fn refuses_more_promises_than_the_limit() {
    let scene = Scene::new(Signer::p256());
    let promise = scene.promise();
    assert_eq!(scene.verify(sct_list(&vec![promise.clone(); 16])), Ok(()));
    let limit = Rejection::LimitExceeded { what: Limited::CertificateTimestamps, limit: 16 };
    assert_eq!(scene.verify(sct_list(&vec![promise; 17])), Err(limit));
}

#[test]
fn refuses_a_malformed_list() {
    let scene = Scene::new(Signer::p256());
    let good = scene.promise();
    let raw = |bytes: &[u8]| extension("1.3.6.1.4.1.11129.2.4.2", false, bytes);
    let trailing = [&good[..], &[0]].concat();
    for list in [
        raw(b"x"),
        raw(&octets(b"")),
        raw(&octets(&[0, 0])),
        raw(&octets(&[0, 1, 0])),
        raw(&octets(&[0, 2, 0, 9])),
        raw(&octets(&[0, 2, 0, 0, 0])),
        sct_list(&[good[..good.len() - 1].to_vec()]),
        sct_list(&[trailing]),
        sct_list(&[good[..40].to_vec()]),
    ] {
        assert_eq!(scene.verify(list), Err(Rejection::SctMalformed));
    }
}

#[test]
fn cuts_the_list_out_wherever_it_is() {
    let scene = Scene::new(Signer::p256());
    let list = sct_list(&[scene.promise()]);
    for place in [0, 1] {
        let mut draft = Scene::draft();
        draft.extensions.insert(place, list.clone());
        let leaf = draft.issued(&scene.leaf, "ca", &scene.authority);
        assert_eq!(Precertificate::of(leaf.der()).unwrap().body, scene.body());
    }
}
