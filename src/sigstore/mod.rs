//! The verification core: is this stored signature one of that attestor over this image?
//!
//! Pure: no registry, no clock, no files. Evidence is hostile until [`verify_signature`] has judged it, and
//! what it found can be had only as a [`VerifiedSignature`]. Two forms are read: cosign's `.sig`
//! layers ([`SignatureEvidence::CosignLayer`]) and Sigstore bundles v0.3 as cosign 3 attaches them
//! ([`SignatureEvidence::Bundle`]). One trust model is built: a public key.
//!
//! Signatures are checked with aws-lc-rs; log entries with sigstore-verify, which only ever sees
//! what was checked before. Not supported, and refused: sha224, message-signature bundles,
//! `rekord` and `intoto` 0.0.1 entries, and log entries for P-521, RSA-PSS, Ed25519ph or a hash that sigstore-verify does
//! not pair with the key.
//!
//! Every refusal is a [`Rejection`]; nothing here can fail otherwise.

mod attestor;
#[allow(dead_code, reason = "read when certificates are verified")]
mod authorities;
mod bundle;
#[allow(dead_code, reason = "read when certificates are verified")]
mod certificate;
#[allow(dead_code, reason = "read when certificates are verified")]
mod chain;
mod cosign;
#[allow(dead_code, reason = "read when certificates are verified")]
mod identity;
mod json;
mod key;
mod log;
mod logs;
mod rejection;
#[allow(dead_code, reason = "read when certificates are verified")]
mod sct;
mod statement;
#[cfg(test)]
mod test_pki;
#[cfg(test)]
mod test_signer;
#[allow(dead_code, reason = "read when certificates are verified")]
mod timestamp;
mod trust_root;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use attestor::{Attestor, CertificateSigner, IdentitySigner, KeySigner, LogTrust, SctTrust, Signer};
pub use authorities::{Authorities, TimestampAuthorities};
pub use certificate::{Certificate, CertificateError, Subject, SubjectKind};
pub use identity::{Identity, IdentityError, IdentityText, Named};
pub use json::JsonError;
pub use key::{HashAlgorithm, KeyError, KeyKind, PublicKey};
pub use logs::Logs;
pub use rejection::{BundleField, ChainFault, Limited, Rejection};
pub use trust_root::{TrustRoot, TrustRootError};
pub use verify::{
    Artifact, SignatureForm, VerifiedArtifact, VerifiedSignature, VerifiedStatement, verify_artifact,
    verify_signature, verify_statement,
};

/// One signature or attestation as it is stored, unverified.
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
    /// One layer of an `.att` manifest.
    AttestationLayer {
        /// The exact bytes of the layer: a DSSE envelope in JSON.
        envelope: Vec<u8>,
        /// The annotations of the layer's descriptor.
        annotations: BTreeMap<String, String>,
    },
}
