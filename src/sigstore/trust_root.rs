//! Trust roots: the transparency logs, certificate logs, authorities and timestamp authorities to believe.
//!
//! A trust root is Sigstore's `trusted_root.json`: one of those that the library carries, or one from a
//! file. It is prepared once: what cannot be used is an error here, not a denial at each image.
//!
//! The id of a log is the one that the root says. For Rekor v1 and certificate logs that is sha256 of
//! the key; Rekor v2 derives it from the log's name and key, as checkpoints do.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use const_oid::ObjectIdentifier;
use der::Encode as _;
use der::asn1::{AnyRef, BitStringRef};
use sigstore_trust_root::{SigstoreInstance, TrustedRoot};
use sigstore_types::TimeRange;
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::oci::Digest;
use crate::sigstore::authorities::{Authorities, Authority, TimestampAuthorities};
use crate::sigstore::certificate::{Certificate, CertificateError};
use crate::sigstore::json::{self, JsonError};
use crate::sigstore::key::{KeyError, PublicKey};
use crate::sigstore::logs::{LogKey, Logs, Window};

/// A trust root, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrustRoot {
    logs: Arc<Logs>,
    certificate_logs: Arc<Logs>,
    authorities: Arc<Authorities>,
    timestamps: Arc<TimestampAuthorities>,
    fingerprint: Digest,
}

/// Why a trust root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustRootError {
    /// More bytes than are read.
    #[error("the trust root has {size} bytes, more than the limit of {TRUST_ROOT_LIMIT}")]
    TooLarge {
        /// Its length.
        size: usize,
    },
    /// Not accepted as JSON.
    #[error("cannot read the trust root: {0}")]
    Json(JsonError),
    /// JSON, but not a `trusted_root.json`.
    #[error("not a Sigstore trusted_root.json (mediaType application/vnd.dev.sigstore.trustedroot)")]
    MediaType,
    /// A `trusted_root.json` that cannot be read.
    #[error("cannot read the trust root")]
    Malformed(#[source] sigstore_trust_root::Error),
    /// The key of a log cannot be used.
    #[error("the key of {log} in the trust root cannot be used: {source}")]
    LogKey {
        /// The log, by its address.
        log: String,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// A log does not say from when on its key is valid.
    #[error("the trust root does not say since when the key of {log} is valid")]
    LogWithoutStart {
        /// The log, by its address.
        log: String,
    },
    /// Two logs with one id.
    #[error("two logs in the trust root have the id {id}")]
    LogTwice {
        /// The id, as hex.
        id: String,
    },
    /// The id of a log is not as long as a sha256.
    #[error("the id of {log} in the trust root is not 32 bytes")]
    LogId {
        /// The log, by its address.
        log: String,
    },
    /// The certificate of an authority cannot be used.
    #[error("a certificate of {authority} in the trust root cannot be used: {source}")]
    Certificate {
        /// The authority, by its address.
        authority: String,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// An authority has no certificate.
    #[error("{authority} has no certificate in the trust root")]
    NoCertificate {
        /// The authority, by its address.
        authority: String,
    },
}

impl TrustRoot {
    /// The public good instance, as of the release of the library.
    ///
    /// # Errors
    /// [`TrustRootError`], if the embedded root were broken.
    pub fn public_good() -> Result<Self, TrustRootError> {
        Self::from_json(SigstoreInstance::PublicGood.embedded_trusted_root_json().as_bytes())
    }

    /// The staging instance, as of the release of the library.
    ///
    /// # Errors
    /// [`TrustRootError`], if the embedded root were broken.
    pub fn staging() -> Result<Self, TrustRootError> {
        Self::from_json(SigstoreInstance::Staging.embedded_trusted_root_json().as_bytes())
    }

    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// [`TrustRootError`], also for a single key or certificate in it that cannot be used.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TrustRootError> {
        if bytes.len() > TRUST_ROOT_LIMIT {
            return Err(TrustRootError::TooLarge { size: bytes.len() });
        }
        let root = json::parse(bytes).map_err(TrustRootError::Json)?;
        let media_type = json::field(&root, "mediaType").and_then(serde_json::Value::as_str);
        if !media_type.is_some_and(|found| found.starts_with(MEDIA_TYPE)) {
            return Err(TrustRootError::MediaType);
        }
        // The bytes are UTF-8, or they would not have been JSON.
        let root =
            TrustedRoot::from_json(&String::from_utf8_lossy(bytes)).map_err(TrustRootError::Malformed)?;
        let logs = root.tlogs.iter().map(|log| {
            let key = &log.public_key;
            let spki = spki(key.raw_bytes.as_bytes(), key.key_details.as_str());
            log_key(&log.base_url, log.log_id.key_id.as_bytes(), spki, key.valid_for.as_ref())
        });
        let certificate_logs = root.ctlogs.iter().map(|log| {
            let key = &log.public_key;
            let spki = spki(key.raw_bytes.as_bytes(), key.key_details.as_str());
            log_key(&log.base_url, log.log_id.key_id.as_bytes(), spki, key.valid_for.as_ref())
        });
        let authorities = root.certificate_authorities.iter().map(|found| {
            let chain = found.cert_chain.certificates.iter().map(|entry| entry.raw_bytes.as_bytes());
            authority(&found.uri, chain, found.valid_for.as_ref())
        });
        let timestamps = root.timestamp_authorities.iter().map(|found| {
            let name = found.uri.as_deref().unwrap_or("a timestamp authority");
            let chain = found.cert_chain.certificates.iter().map(|entry| entry.raw_bytes.as_bytes());
            authority(name, chain, found.valid_for.as_ref())
        });
        Ok(Self {
            logs: Arc::new(distinct(logs.collect::<Result<_, _>>()?)?),
            certificate_logs: Arc::new(distinct(certificate_logs.collect::<Result<_, _>>()?)?),
            authorities: Arc::new(Authorities::new(authorities.collect::<Result<_, _>>()?)),
            timestamps: Arc::new(TimestampAuthorities::new(timestamps.collect::<Result<_, _>>()?)),
            fingerprint: Digest::of(bytes),
        })
    }

    /// The transparency logs.
    #[must_use]
    pub fn logs(&self) -> Arc<Logs> {
        Arc::clone(&self.logs)
    }

    /// The certificate transparency logs.
    #[must_use]
    pub fn certificate_logs(&self) -> Arc<Logs> {
        Arc::clone(&self.certificate_logs)
    }

    /// The certificate authorities.
    #[must_use]
    pub fn authorities(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities)
    }

    /// The timestamp authorities.
    #[must_use]
    pub fn timestamps(&self) -> Arc<TimestampAuthorities> {
        Arc::clone(&self.timestamps)
    }

    /// sha256 of the JSON text.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }
}

fn log_key(
    address: &str,
    id: &[u8],
    spki: Result<Cow<'_, [u8]>, KeyError>,
    range: Option<&TimeRange>,
) -> Result<LogKey, TrustRootError> {
    let log = || address.to_owned();
    if id.len() != 32 {
        return Err(TrustRootError::LogId { log: log() });
    }
    let range = range.ok_or_else(|| TrustRootError::LogWithoutStart { log: log() })?;
    let key = spki
        .and_then(|spki| PublicKey::from_spki(&spki))
        .map_err(|source| TrustRootError::LogKey { log: log(), source })?;
    Ok(LogKey { id: id.to_vec(), key, window: window(Some(range)), origin: origin(address) })
}

/// The origin of a log's checkpoints: the name of its host, without port, as sigstore-go has it.
fn origin(address: &str) -> Option<String> {
    let behind = address.split_once("://").map_or(address, |(_, behind)| behind);
    let host = behind.split('/').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next(),
        None => host.split(':').next(),
    };
    name.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The SPKI of a log's key: old logs give a bare PKCS#1 key instead.
fn spki<'a>(key: &'a [u8], details: &str) -> Result<Cow<'a, [u8]>, KeyError> {
    if !details.starts_with("PKCS1_") {
        return Ok(Cow::Borrowed(key));
    }
    let algorithm = AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) };
    BitStringRef::from_bytes(key)
        .and_then(|subject_public_key| SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der())
        .map(Cow::Owned)
        .map_err(|_| KeyError::Malformed)
}

fn distinct(logs: Vec<LogKey>) -> Result<Logs, TrustRootError> {
    let mut ids = BTreeSet::new();
    match logs.iter().find(|log| !ids.insert(log.id.as_slice())) {
        Some(log) => Err(TrustRootError::LogTwice { id: hex::encode(&log.id) }),
        None => Ok(Logs::new(logs)),
    }
}

fn authority<'a>(
    name: &str,
    chain: impl Iterator<Item = &'a [u8]>,
    range: Option<&TimeRange>,
) -> Result<Authority, TrustRootError> {
    let failed = |source| TrustRootError::Certificate { authority: name.to_owned(), source };
    let certificates =
        chain.map(|der| Certificate::from_der(der).map_err(failed)).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(TrustRootError::NoCertificate { authority: name.to_owned() });
    }
    Ok(Authority { certificates, window: window(range) })
}

fn window(range: Option<&TimeRange>) -> Window {
    range.map_or(Window::ALWAYS, |range| Window {
        start: Some(SystemTime::from(range.start)),
        end: range.end.map(SystemTime::from),
    })
}

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot";
/// The public good root has 8 KiB.
const TRUST_ROOT_LIMIT: usize = 1 << 20;
/// RFC 8017.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

#[cfg(test)]
#[path = "trust_root_tests.rs"]
mod tests;
