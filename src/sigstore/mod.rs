//! The verification core: is this stored signature one of that attestor over this image?
//!
//! Pure: no registry, no clock, no files. Evidence is hostile until [`verify()`] has judged it, and
//! what it found can be had only as a [`VerifiedSignature`]. Two forms are read: cosign's `.sig`
//! layers ([`SignatureEvidence::CosignLayer`]) and Sigstore bundles v0.3 as cosign 3 attaches them
//! ([`SignatureEvidence::Bundle`]). One trust model is built: a public key.
//!
//! Signatures are checked with aws-lc-rs; log entries with sigstore-verify, which only ever sees
//! what was checked before. Not supported, and refused: Ed25519ph, sha224, message-signature bundles,
//! `rekord` and `intoto` 0.0.1 entries, and log entries for P-521, RSA-PSS or a hash that sigstore-verify does
//! not pair with the key.
//!
//! Every refusal is a [`Rejection`]; nothing here can fail otherwise.

mod bundle;
mod cosign;
mod json;
mod key;
mod log;
mod rejection;
mod statement;
#[cfg(test)]
mod test_signer;
mod trust_root;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use json::JsonError;
pub use key::{HashAlgorithm, KeyError, KeyKind, PublicKey};
pub use rejection::{BundleField, Limited, Rejection};
pub use trust_root::{TrustRoot, TrustRootError};
pub use verify::{SignatureForm, VerifiedSignature, verify};

/// One signature as it is stored, unverified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureEvidence {
    /// One layer of a `.sig` manifest.
    CosignLayer {
        /// The exact bytes of the layer, which are what is signed.
        payload: Vec<u8>,
        /// The annotations of the layer's descriptor, with the signature among them.
        annotations: BTreeMap<String, String>,
    },
    /// One Sigstore bundle.
    Bundle {
        /// The exact bytes of the layer.
        json: Vec<u8>,
    },
}

/// Who must have signed, and how that is proven.
#[derive(Clone, Debug)]
pub enum Attestor {
    /// The holder of a key.
    Key(KeyAttestor),
}

/// The holder of a key.
#[derive(Clone, Debug)]
pub struct KeyAttestor {
    /// The key.
    pub key: PublicKey,
    /// The hash that the policy names.
    pub hash: HashAlgorithm,
    /// The pairs that the signer must have signed along.
    pub annotations: BTreeMap<String, String>,
    /// Which transparency logs must know the signature.
    pub log: LogTrust,
}

/// Which transparency logs must know a signature.
#[derive(Clone, Debug)]
pub enum LogTrust {
    /// None (`rekor.ignoreTlog: true`). Entries that come with a signature are not looked at.
    Ignored,
    /// A log of a trust root.
    Root(Arc<TrustRoot>),
    /// A log with one of these keys (`rekor.pubkey`).
    Keys(Vec<PublicKey>),
}
