//! Embedded signed certificate timestamps (RFC 6962): a log's promise to publish a certificate.
//!
//! A log signs the certificate as it was before the list of timestamps went into it, together with the
//! key of its issuer, which must be the verified one. That precertificate is cut out of the very bytes
//! of the certificate, not encoded anew.
//!
//! At least one timestamp must be by a log to believe, at a time within that key's window. Timestamps
//! by other logs are not looked at; one by a known log that does not hold is a rejection, whatever
//! the others are. Timestamps outside of the certificate (TLS, OCSP) are not supported.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};
use x509_cert::ext::Extension;

use crate::oci::Digest;
use crate::sigstore::certificate::Certificate;
use crate::sigstore::chain::Issuer;
use crate::sigstore::key::{HashAlgorithm, Scheme};
use crate::sigstore::logs::{LogKey, Logs};
use crate::sigstore::rejection::{Limited, Rejection};

/// Whether a log of `logs` knows `leaf`, which `issuer` issued.
pub(super) fn verify(leaf: &Certificate, issuer: &Issuer, logs: &Logs) -> Result<(), Rejection> {
    let precertificate = Precertificate::of(leaf.der()).map_err(|_| Rejection::SctMalformed)?;
    let list = precertificate.list.as_deref().ok_or(Rejection::SctMissing)?;
    logged(list, &precertificate.body, issuer, logs)
}

/// Whether a log says in `list` that it knows this precertificate.
pub(super) fn logged(list: &[u8], body: &[u8], issuer: &Issuer, logs: &Logs) -> Result<(), Rejection> {
    let timestamps = Timestamp::list(list)?;
    let mut known = false;
    for timestamp in &timestamps {
        let keys: Vec<&LogKey> = logs.all().iter().filter(|log| log.id == timestamp.log).collect();
        if keys.is_empty() {
            continue;
        }
        let signed = timestamp.signed(issuer, body).ok_or(Rejection::SctMalformed)?;
        let time = timestamp.time().ok_or(Rejection::SctMalformed)?;
        let scheme = timestamp.scheme.ok_or(Rejection::SctInvalid)?;
        let holds = |log: &&LogKey| {
            log.window.holds(time) && log.key.verify_exactly(&signed, timestamp.signature, scheme)
        };
        if !keys.iter().any(holds) {
            return Err(Rejection::SctInvalid);
        }
        known = true;
    }
    if known { Ok(()) } else { Err(Rejection::SctUnknown) }
}

/// What a log saw of a certificate, and the timestamps that were put in later.
pub(super) struct Precertificate {
    pub(super) body: Vec<u8>,
    pub(super) list: Option<Vec<u8>>,
}

impl Precertificate {
    pub(super) fn of(certificate: &[u8]) -> der::Result<Self> {
        let body = elements(AnyRef::from_der(certificate)?.value())?.first().copied();
        let body = body.ok_or_else(|| Tag::Sequence.value_error())?;
        let mut kept = Vec::new();
        let mut list = None;
        for field in elements(body.value())? {
            if field.tag() != EXTENSIONS {
                kept.extend(field.to_der()?);
                continue;
            }
            let mut extensions = Vec::new();
            for extension in elements(AnyRef::from_der(field.value())?.value())? {
                let read = Extension::from_der(&extension.to_der()?)?;
                if read.extn_id == SCT_LIST {
                    list = Some(OctetStringRef::from_der(read.extn_value.as_bytes())?.as_bytes().to_vec());
                } else {
                    extensions.extend(extension.to_der()?);
                }
            }
            let extensions = AnyRef::new(Tag::Sequence, &extensions)?.to_der()?;
            kept.extend(AnyRef::new(EXTENSIONS, &extensions)?.to_der()?);
        }
        Ok(Self { body: AnyRef::new(Tag::Sequence, &kept)?.to_der()?, list })
    }
}

/// The elements of a sequence. Their lengths have one encoding, so encoding one again gives its bytes.
fn elements(sequence: &[u8]) -> der::Result<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(sequence)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(reader.decode()?);
    }
    Ok(elements)
}

/// One timestamp.
pub(super) struct Timestamp<'a> {
    log: &'a [u8],
    /// Milliseconds since 1970.
    milliseconds: u64,
    extensions: &'a [u8],
    /// None if it is not supported.
    scheme: Option<Scheme>,
    signature: &'a [u8],
}

impl<'a> Timestamp<'a> {
    /// Reads a `SignedCertificateTimestampList`; timestamps of another version than 1 are passed over.
    pub(super) fn list(bytes: &'a [u8]) -> Result<Vec<Self>, Rejection> {
        let mut outer = Bytes(bytes);
        let mut list = Bytes(outer.vector().ok_or(Rejection::SctMalformed)?);
        if !outer.0.is_empty() || list.0.is_empty() {
            return Err(Rejection::SctMalformed);
        }
        let mut timestamps = Vec::new();
        let mut count = 0;
        while !list.0.is_empty() {
            count += 1;
            if count > TIMESTAMPS {
                return Err(Rejection::LimitExceeded {
                    what: Limited::CertificateTimestamps,
                    limit: TIMESTAMPS,
                });
            }
            let one = list.vector().ok_or(Rejection::SctMalformed)?;
            if let Some((&VERSION_1, one)) = one.split_first() {
                timestamps.push(Self::read(one).ok_or(Rejection::SctMalformed)?);
            }
        }
        Ok(timestamps)
    }

    /// Reads what follows the byte of the version.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let log = bytes.take(32)?;
        let milliseconds = u64::from_be_bytes(bytes.take(8)?.try_into().ok()?);
        let extensions = bytes.vector()?;
        let scheme = scheme(bytes.take(2)?);
        let signature = bytes.vector()?;
        bytes.0.is_empty().then_some(Self { log, milliseconds, extensions, scheme, signature })
    }

    fn time(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.milliseconds))
    }

    /// The bytes that the log signed (RFC 6962, 3.2).
    pub(super) fn signed(&self, issuer: &Issuer, body: &[u8]) -> Option<Vec<u8>> {
        let [_, length @ ..] = u32::try_from(body.len()).ok()?.to_be_bytes();
        let extensions = u16::try_from(self.extensions.len()).ok()?.to_be_bytes();
        Some(
            [
                [VERSION_1, CERTIFICATE_TIMESTAMP].as_slice(),
                &self.milliseconds.to_be_bytes(),
                &PRECERTIFICATE_ENTRY.to_be_bytes(),
                Digest::of(&issuer.0).as_bytes(),
                &length,
                body,
                &extensions,
                self.extensions,
            ]
            .concat(),
        )
    }
}

/// RFC 5246, 7.4.1.4.1. No log signs with Ed25519, and RFC 6962 does not know it.
const fn scheme(bytes: &[u8]) -> Option<Scheme> {
    match bytes {
        [4, 3] => Some(Scheme::Ecdsa(HashAlgorithm::Sha256)),
        [5, 3] => Some(Scheme::Ecdsa(HashAlgorithm::Sha384)),
        [6, 3] => Some(Scheme::Ecdsa(HashAlgorithm::Sha512)),
        [4, 1] => Some(Scheme::RsaPkcs1(HashAlgorithm::Sha256)),
        [5, 1] => Some(Scheme::RsaPkcs1(HashAlgorithm::Sha384)),
        [6, 1] => Some(Scheme::RsaPkcs1(HashAlgorithm::Sha512)),
        _ => None,
    }
}

/// TLS encoding (RFC 5246, 4).
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A vector with a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }
}

/// Fulcio embeds one, web certificates two or three.
const TIMESTAMPS: usize = 16;
// RFC 6962, 3.2 to 3.3.
const VERSION_1: u8 = 0;
const CERTIFICATE_TIMESTAMP: u8 = 0;
const PRECERTIFICATE_ENTRY: u16 = 1;
const SCT_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");
/// `extensions [3] EXPLICIT` of RFC 5280, 4.1.
const EXTENSIONS: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber::N3 };

#[cfg(test)]
#[path = "sct_tests.rs"]
mod tests;
