//! The verification core: is this stored signature one of that attestor over this image?
//!
//! Pure: no registry, no clock, no files; time is an argument. Evidence is hostile until
//! [`verify_signature`], [`verify_statement`] or [`verify_artifact`] has judged it, and what was found
//! can be had only as their results. Three forms are read: cosign's `.sig` layers, its `.att` layers and
//! Sigstore bundles. All become one material, which one function ([`verify`]) holds against an
//! [`Attestor`]: the holder of a key, of a certificate, or of an identity in certificates.
//!
//! Orchestration is ours; primitives are libraries': aws-lc-rs (signatures), ed25519-dalek (Ed25519ph),
//! rustls-webpki (certificate chains), x509-cert and cms (their encodings), sigstore-merkle (inclusion
//! proofs), sigstore-types (checkpoints), sigstore-trust-root (`trusted_root.json`).
//!
//! Not supported, and refused: sha224, several signatures in one envelope, detached SCTs, Rekor v2
//! entries of other kinds than `hashedrekord`.
//!
//! Every refusal is a [`Rejection`]; nothing here can fail otherwise.

mod attestor;
mod authorities;
mod bundle;
mod certificate;
mod chain;
mod cosign;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod identity;
mod key;
mod log;
mod log_body;
mod log_entry;
mod logs;
mod material;
#[cfg(test)]
mod measure_tests;
#[cfg(test)]
mod oracle_tests;
mod rejection;
mod sct;
mod statement;
#[cfg(test)]
pub(crate) mod test_pki;
#[cfg(test)]
pub(crate) mod test_signer;
#[cfg(test)]
pub(crate) mod test_sigstore;
mod timestamp;
mod trust_root;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::oci::JsonError;
use crate::oci::json;
pub use attestor::{Attestor, CertificateSigner, IdentitySigner, KeySigner, LogTrust, SctTrust, Signer};
pub use authorities::{Authorities, TimestampAuthorities};
pub use certificate::{Certificate, CertificateError, Subject, SubjectKind};
pub use cosign::standard_payload;
pub use identity::{Identity, IdentityError, IdentityText, Named};
pub use key::{HashAlgorithm, KeyError, KeyKind, PublicKey};
pub use logs::Logs;
pub use rejection::{BundleField, ChainFault, Limited, Rejection};
pub use trust_root::{TrustRoot, TrustRootError};
pub use verify::{
    Artifact, Proven, SignatureForm, StatementRejection, VerifiedArtifact, VerifiedSignature,
    VerifiedStatement, verify_artifact, verify_signature, verify_statement,
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
