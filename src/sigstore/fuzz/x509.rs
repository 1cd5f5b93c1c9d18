//! Certificates, timestamps of both kinds, keys, trust roots.

use std::sync::LazyLock;

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use webpki::EndEntityCert;

use super::{SUBJECT, TIME, TRUST, is_genuine, now};
use crate::sigstore::certificate::CERTIFICATE_LIMIT;
use crate::sigstore::chain::{self, Issuer, Path};
use crate::sigstore::material::CERTIFICATE_LIST_LIMIT;
use crate::sigstore::sct::{self, Precertificate, Timestamp};
use crate::sigstore::{Certificate, PublicKey, Signer, TrustRoot, timestamp as rfc3161};

/// What the timestamp tokens among the seeds are over.
pub(super) const STAMPED: &[u8] = b"a signature";
/// When: by the seeds' authority, and by OpenSSL.
const STAMPED_AT: [u64; 2] = [TIME, 1_795_544_089];

/// A certificate as DER, or a list as PEM.
pub(crate) fn certificate(data: &[u8]) -> Option<()> {
    if data.starts_with(b"-----") {
        let list = Certificate::list_from_pem(str::from_utf8(data).ok()?, CERTIFICATE_LIST_LIMIT).ok()?;
        assert!((1..=CERTIFICATE_LIST_LIMIT).contains(&list.len()));
        list.iter().for_each(one_certificate);
        return Some(());
    }
    one_certificate(&Certificate::from_der(data).ok()?);
    Some(())
}

fn one_certificate(certificate: &Certificate) {
    let der = certificate.der();
    assert!(der.len() <= CERTIFICATE_LIMIT);
    assert_eq!(Certificate::from_der(der).as_ref(), Ok(certificate), "the same bytes read differently");
    let other = CertificateDer::from(der);
    if let Ok(other) = EndEntityCert::try_from(&other) {
        assert_eq!(
            other.subject_public_key_info().as_ref(),
            certificate.key().spki_der(),
            "two readers, two keys"
        );
    }
    for attestor in &TRUST.attestors {
        if let Signer::Identity(signer) = &attestor.signer
            && signer.identity.matches(certificate).is_ok()
        {
            assert!(
                certificate.subjects().iter().any(|subject| subject.text == SUBJECT),
                "names somebody else"
            );
        }
    }
    if let Ok(Path { issuer, until }) = chain::verify(certificate, &[], &TRUST.root.authorities(), now()) {
        assert!(now() <= until && until <= certificate.not_after(), "holds now, and no longer than itself");
        let signed = first_element(der).expect("a certificate is a sequence");
        assert!(is_genuine(signed), "leads to an authority, and it never issued it");
        if sct::verify(certificate, &issuer, &TRUST.root.certificate_logs()).is_ok() {
            let before = Precertificate::of(der).expect("as it was read");
            let list = before.list.expect("as it was read");
            assert!(some_is_genuine(&list, &before.body, &issuer), "in a log, and it never was");
        }
    }
}

/// The first element of a DER sequence, with its header: what is signed of a certificate.
fn first_element(der: &[u8]) -> Option<&[u8]> {
    let (head, _) = element(der)?;
    let inner = der.get(head..)?;
    let (head, length) = element(inner)?;
    inner.get(..head.checked_add(length)?)
}

/// The sizes of the header and of the content of the element at the start.
fn element(der: &[u8]) -> Option<(usize, usize)> {
    let length = usize::from(*der.get(1)?);
    let Some(count) = length.checked_sub(0x80) else { return Some((2, length)) };
    let bytes = der.get(2..count.checked_add(2)?)?;
    let length =
        bytes.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))?;
    Some((2 + count, length))
}

/// The list of timestamps in a certificate, over the seeds' certificate.
pub(crate) fn sct(data: &[u8]) -> Option<()> {
    let (body, issuer) = &*LOGGED;
    sct::logged(data, body, issuer, &TRUST.root.certificate_logs()).ok()?;
    assert!(some_is_genuine(data, body, issuer), "in a log, and it never was");
    Some(())
}

/// Whether a log ever gave one of the timestamps in this list.
fn some_is_genuine(list: &[u8], body: &[u8], issuer: &Issuer) -> bool {
    let timestamps = Timestamp::list(list).expect("as it was read");
    timestamps.iter().filter_map(|timestamp| timestamp.signed(issuer, body)).any(|signed| is_genuine(&signed))
}

/// The precertificate of the seeds' certificate, and who issued it.
static LOGGED: LazyLock<(Vec<u8>, Issuer)> = LazyLock::new(|| {
    let body = Precertificate::of(TRUST.certificate.der()).expect("the seeds' certificate").body;
    let path = chain::verify(&TRUST.certificate, &[], &TRUST.root.authorities(), now());
    (body, path.expect("issued by the seeds' authority").issuer)
});

/// An RFC 3161 token or response.
pub(crate) fn timestamp(data: &[u8]) -> Option<()> {
    let time = rfc3161::verify(data, STAMPED, &TRUST.root.timestamps()).ok()?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map(|since| since.as_secs());
    assert!(seconds.is_ok_and(|at| STAMPED_AT.contains(&at)), "a time at which nothing was stamped");
    Some(())
}

/// A key in PEM.
pub(crate) fn public_key(data: &[u8]) -> Option<()> {
    let key = PublicKey::from_pem(str::from_utf8(data).ok()?).ok()?;
    assert_eq!(PublicKey::from_spki(key.spki_der()).as_ref(), Ok(&key), "the same bytes read differently");
    assert!(data.len() > key.spki_der().len());
    Some(())
}

/// A `trusted_root.json`.
pub(crate) fn trust_root(data: &[u8]) -> Option<()> {
    let root = TrustRoot::from_json(data).ok()?;
    let parsed: Value = serde_json::from_slice(data).expect("what was read strictly is JSON");
    let again = TrustRoot::from_json(parsed.to_string().as_bytes()).expect("the same JSON");
    let parts = |root: &TrustRoot| {
        [
            root.logs().fingerprint(),
            root.certificate_logs().fingerprint(),
            root.authorities().fingerprint(),
            root.timestamps().fingerprint(),
        ]
    };
    assert_eq!(parts(&again), parts(&root), "the same JSON reads differently");
    Some(())
}
