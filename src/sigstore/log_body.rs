//! Is a log entry about the signature at hand?
//!
//! Compared are the hash of what was signed, the signature, and the verifier: the very certificate that
//! came with the signature, or else the key that verified it (alone, or in a certificate). What each
//! kind of entry has of these, and under which names, is here and nowhere else:
//!
//! | kind | hash of | signature | verifier |
//! |---|---|---|---|
//! | `hashedrekord` 0.0.1, `rekord` 0.0.1 | the signed bytes | yes | PEM |
//! | `hashedrekord` 0.0.2 | the signed bytes; of an envelope, its pre-authentication encoding | yes | DER |
//! | `dsse` 0.0.1 | the payload, and the envelope's JSON | yes | PEM |
//! | `intoto` 0.0.2 | the payload | yes, base64 of base64 | PEM |
//! | `intoto` 0.0.1 | the envelope's JSON | within that hash | PEM |
//!
//! The envelope's JSON is only known where it is stored as it was signed, in an `.att` layer: there
//! its hash must be that of the entry, as in cosign; a bundle stores another JSON. So an `intoto` 0.0.1
//! entry cannot be compared with a bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::sigstore::bundle::protobuf_algorithm;
use crate::sigstore::certificate::Certificate;
use crate::sigstore::json;
use crate::sigstore::key::{HashAlgorithm, PublicKey, Scheme};
use crate::sigstore::log_entry::{Entry, Kind, bytes};
use crate::sigstore::material::{Envelope, Signed, hash};
use crate::sigstore::rejection::Rejection;

/// A signature that holds.
#[derive(Debug)]
pub(super) struct Logged<'a> {
    pub(super) signed: &'a Signed<'a>,
    /// The envelope whose encoding was signed.
    pub(super) envelope: Option<&'a Envelope>,
    pub(super) signature: &'a [u8],
    pub(super) scheme: Scheme,
    pub(super) key: &'a PublicKey,
    /// The certificate that came with the signature and counts for the attestor.
    pub(super) certificate: Option<&'a Certificate>,
}

/// Refuses an entry that is about something else.
pub(super) fn compare(entry: &Entry, logged: &Logged<'_>) -> Result<(), Rejection> {
    let spec = &entry.spec;
    match (entry.kind, logged.envelope) {
        (Kind::HashedRekord, None) => {
            same(logged.knows_hash(at(spec, &["data", "hash"])?)?)?;
            logged.signature_and_pem(at(spec, &["signature"])?)
        }
        (Kind::Rekord, None) => {
            if at(spec, &["signature", "format"])?.as_str() != Some("x509") {
                return Err(Rejection::LogEntryMalformed);
            }
            same(logged.knows_hash(at(spec, &["data", "hash"])?)?)?;
            logged.signature_and_pem(at(spec, &["signature"])?)
        }
        (Kind::HashedRekordV2, _) => {
            let spec = at(spec, &["hashedRekordV002"])?;
            let data = at(spec, &["data"])?;
            let algorithm = text(data, "algorithm").and_then(protobuf_algorithm);
            let (algorithm, digest) =
                algorithm.zip(bytes(data, "digest")).ok_or(Rejection::LogEntryMalformed)?;
            same(logged.hashes_to(algorithm, &digest))?;
            let signature = at(spec, &["signature"])?;
            same(bytes(signature, "content").as_deref() == Some(logged.signature))?;
            let verifier = at(signature, &["verifier"])?;
            let raw = |name| json::field(verifier, name).map(|field| bytes(field, "rawBytes"));
            match (raw("x509Certificate"), raw("publicKey")) {
                (Some(Some(der)), None) => logged.certificate_der(&der),
                (None, Some(Some(spki))) => logged.key(&spki),
                _ => Err(Rejection::LogEntryMalformed),
            }
        }
        (Kind::Dsse, Some(envelope)) => {
            same(
                hash_field(at(spec, &["payloadHash"])?)?
                    == (HashAlgorithm::Sha256, sha256(&envelope.payload)),
            )?;
            if let Some(stored) = &envelope.stored {
                same(hash_field(at(spec, &["envelopeHash"])?)? == (HashAlgorithm::Sha256, sha256(stored)))?;
            }
            let signature = single(at(spec, &["signatures"])?)?;
            same(bytes(signature, "signature").as_deref() == Some(logged.signature))?;
            logged.pem(&bytes(signature, "verifier").ok_or(Rejection::LogEntryMalformed)?)
        }
        (Kind::IntotoV2, Some(envelope)) => {
            let content = at(spec, &["content"])?;
            same(
                hash_field(at(content, &["payloadHash"])?)?
                    == (HashAlgorithm::Sha256, sha256(&envelope.payload)),
            )?;
            if let Some(stored) = &envelope.stored {
                same(hash_field(at(content, &["hash"])?)? == (HashAlgorithm::Sha256, sha256(stored)))?;
            }
            let logged_envelope = at(content, &["envelope"])?;
            same(text(logged_envelope, "payloadType") == Some(&envelope.payload_type))?;
            let signature = single(at(logged_envelope, &["signatures"])?)?;
            let twice = bytes(signature, "sig").and_then(|once| STANDARD.decode(once).ok());
            same(twice.as_deref() == Some(logged.signature))?;
            logged.pem(&bytes(signature, "publicKey").ok_or(Rejection::LogEntryMalformed)?)
        }
        (Kind::Intoto, Some(Envelope { stored: Some(stored), .. })) => {
            same(hash_field(at(spec, &["content", "hash"])?)? == (HashAlgorithm::Sha256, sha256(stored)))?;
            logged.pem(&bytes(spec, "publicKey").ok_or(Rejection::LogEntryMalformed)?)
        }
        (Kind::HashedRekord | Kind::Rekord | Kind::Intoto, Some(_))
        | (Kind::Dsse | Kind::Intoto | Kind::IntotoV2, None) => Err(Rejection::LogUnsupported),
    }
}

impl Logged<'_> {
    /// Whether the entry's hash is that of what was signed, by the algorithm with which it was signed.
    fn knows_hash(&self, field: &Value) -> Result<bool, Rejection> {
        let (algorithm, digest) = hash_field(field)?;
        Ok(self.hashes_to(algorithm, &digest))
    }

    fn hashes_to(&self, algorithm: HashAlgorithm, digest: &[u8]) -> bool {
        let of_scheme = match self.scheme {
            Scheme::Ecdsa(hash) | Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => hash == algorithm,
            Scheme::Ed25519ph => algorithm == HashAlgorithm::Sha512,
            // Not over a hash: any will do.
            Scheme::Ed25519 => true,
        };
        of_scheme && self.signed.digest(algorithm).as_deref() == Some(digest)
    }

    fn signature_and_pem(&self, signature: &Value) -> Result<(), Rejection> {
        same(bytes(signature, "content").as_deref() == Some(self.signature))?;
        let key = at(signature, &["publicKey"])?;
        self.pem(&bytes(key, "content").ok_or(Rejection::LogEntryMalformed)?)
    }

    fn pem(&self, pem: &[u8]) -> Result<(), Rejection> {
        let pem = str::from_utf8(pem).map_err(|_| Rejection::LogEntryMalformed)?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            let key = PublicKey::from_pem(pem).map_err(|_| Rejection::LogEntryMalformed)?;
            return self.key(key.spki_der());
        }
        let list = Certificate::list_from_pem(pem, 1).map_err(|_| Rejection::LogEntryMalformed)?;
        let [certificate] = list.as_slice() else { return Err(Rejection::LogEntryMalformed) };
        self.certificate_der(certificate.der())
    }

    fn certificate_der(&self, der: &[u8]) -> Result<(), Rejection> {
        match self.certificate {
            Some(certificate) => same(certificate.der() == der),
            None => {
                let logged = Certificate::from_der(der).map_err(|_| Rejection::LogEntryMalformed)?;
                same(logged.key() == self.key)
            }
        }
    }

    fn key(&self, spki: &[u8]) -> Result<(), Rejection> {
        same(self.certificate.is_none() && self.key.spki_der() == spki)
    }
}

const fn same(holds: bool) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(Rejection::LogEntryForeign) }
}

/// `{"algorithm":"sha256","value":"<hex>"}`.
fn hash_field(field: &Value) -> Result<(HashAlgorithm, Vec<u8>), Rejection> {
    let algorithm = match text(field, "algorithm") {
        Some("sha256") => HashAlgorithm::Sha256,
        Some("sha384") => HashAlgorithm::Sha384,
        Some("sha512") => HashAlgorithm::Sha512,
        _ => return Err(Rejection::LogEntryMalformed),
    };
    let value = text(field, "value").and_then(|value| hex::decode(value).ok());
    Ok((algorithm, value.ok_or(Rejection::LogEntryMalformed)?))
}

/// The one element of a list.
fn single(list: &Value) -> Result<&Value, Rejection> {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => Err(Rejection::LogEntryForeign),
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Result<&'a Value, Rejection> {
    path.iter().try_fold(value, |value, name| json::field(value, name)).ok_or(Rejection::LogEntryMalformed)
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    json::field(value, name)?.as_str()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    hash(HashAlgorithm::Sha256, bytes)
}

#[cfg(test)]
#[path = "log_body_tests.rs"]
mod tests;
