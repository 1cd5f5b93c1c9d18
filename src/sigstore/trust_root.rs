//! Trust roots: the keys of transparency logs (and later of certificate authorities) to believe.
//!
//! A trust root is Sigstore's `trusted_root.json`, either the one of the public good instance that the
//! library carries, or one from a file, or one made of a policy's `rekor.pubkey` keys. It is prepared
//! once: what cannot be used is an error here, not a denial at each image.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sigstore_trust_root::{SigstoreInstance, TrustedRoot};
use sigstore_verify::Verifier;

use crate::oci::Digest;
use crate::sigstore::json::{self, JsonError};
use crate::sigstore::key::{KeyKind, PublicKey};

/// A trust root, ready for use.
pub struct TrustRoot {
    verifier: Verifier,
    log_ids: BTreeSet<Vec<u8>>,
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
    /// A key, certificate or validity in it is unusable, or a log is in it twice.
    #[error("the trust root cannot be used")]
    Unusable(#[source] Box<sigstore_verify::Error>),
    /// No key at all for a log.
    #[error("no key for the transparency log")]
    NoLogKey,
    /// A log with such a key cannot be verified.
    #[error(
        "a transparency log key of type {0:?} is not supported (ECDSA P-256, P-384, RSA and Ed25519 are)"
    )]
    LogKeyUnsupported(KeyKind),
}

impl TrustRoot {
    /// The public good instance, as of the release of the library.
    ///
    /// # Errors
    /// [`TrustRootError`], if the embedded root were broken.
    pub fn public_good() -> Result<Self, TrustRootError> {
        Self::from_json(SigstoreInstance::PublicGood.embedded_trusted_root_json().as_bytes())
    }

    /// Reads a `trusted_root.json`.
    ///
    /// # Errors
    /// [`TrustRootError`], also for a single key in it that cannot be used.
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
        let verifier = Verifier::new(&root).map_err(|error| TrustRootError::Unusable(Box::new(error)))?;
        let log_ids = root.tlogs.iter().map(|log| log.log_id.key_id.as_bytes().to_vec()).collect();
        Ok(Self { verifier, log_ids, fingerprint: Digest::of(bytes) })
    }

    /// A trust root with nothing but logs that have these keys, without limits in time.
    ///
    /// A policy loader calls this to refuse an unusable `rekor.pubkey` before it meets an image.
    ///
    /// # Errors
    /// [`TrustRootError`], for no key, a key that is given twice or a type that is not supported.
    pub fn from_log_keys(keys: &[PublicKey]) -> Result<Self, TrustRootError> {
        if keys.is_empty() {
            return Err(TrustRootError::NoLogKey);
        }
        let mut logs = Vec::new();
        for key in keys {
            let details = match key.kind() {
                KeyKind::EcdsaP256 => "PKIX_ECDSA_P256_SHA_256",
                KeyKind::EcdsaP384 => "PKIX_ECDSA_P384_SHA_384",
                KeyKind::Rsa => "PKIX_RSA_PKCS1V15_2048_SHA256",
                KeyKind::Ed25519 => "PKIX_ED25519",
                KeyKind::EcdsaP521 => return Err(TrustRootError::LogKeyUnsupported(KeyKind::EcdsaP521)),
            };
            logs.push(json!({
                "baseUrl": "",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(key.spki_der()),
                    "keyDetails": details,
                    "validFor": {"start": "1970-01-01T00:00:00Z"},
                },
                "logId": {"keyId": STANDARD.encode(key.fingerprint().as_bytes())},
            }));
        }
        let root = json!({"mediaType": format!("{MEDIA_TYPE}+json;version=0.1"), "tlogs": logs});
        Self::from_json(root.to_string().as_bytes())
    }

    /// sha256 of the JSON text: part of the names of cached verdicts.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Whether a log with this id is in the root.
    pub(super) fn knows_log(&self, id: &[u8]) -> bool {
        self.log_ids.contains(id)
    }

    pub(super) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRoot").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot";
/// The public good root has 8 KiB.
const TRUST_ROOT_LIMIT: usize = 1 << 20;

#[cfg(test)]
#[path = "trust_root_tests.rs"]
mod tests;
