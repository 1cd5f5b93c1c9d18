//! What a stored signature consists of, whatever the form in which it is stored.
//!
//! A `.sig` layer, an `.att` layer and a bundle all become one [`Material`], and one function judges it.
//! Nothing in it is verified. Limits were applied when it was read; what else is wrong with a part is
//! kept as a [`Rejection`] in its place, and is told only if an attestor looks at that part: log
//! entries that a policy ignores may be anything.

use std::borrow::Cow;

use aws_lc_rs::digest;

use crate::sigstore::certificate::{Certificate, CertificateError};
use crate::sigstore::key::HashAlgorithm;
use crate::sigstore::log_entry::Entry;
use crate::sigstore::rejection::{Limited, Rejection};
use crate::sigstore::verify::SignatureForm;

/// One signature with everything that came along.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) form: SignatureForm,
    pub(super) message: Message,
    pub(super) signature: Vec<u8>,
    pub(super) certificates: Result<Certificates, Rejection>,
    pub(super) entries: Result<Vec<Entry>, Rejection>,
    pub(super) timestamps: Result<Vec<Vec<u8>>, Rejection>,
}

/// What was signed.
#[derive(Debug)]
pub(super) enum Message {
    /// A simple-signing payload.
    Claim(Vec<u8>),
    /// A DSSE envelope.
    Envelope(Envelope),
    /// Something that is stored elsewhere; the digest that the bundle says it has.
    Artifact(Option<(HashAlgorithm, Vec<u8>)>),
}

/// A DSSE envelope without its signature.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) payload_type: String,
    pub(super) payload: Vec<u8>,
    /// The exact bytes in which the whole envelope is stored, where that is a layer of its own.
    pub(super) stored: Option<Vec<u8>>,
}

/// The certificates that came with a signature.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) leaf: Option<Certificate>,
    /// Those that may lead from the leaf to an authority; roots are left out.
    pub(super) intermediates: Vec<Certificate>,
}

/// The bytes that a signature is over, or the sha256 of bytes that are not at hand.
#[derive(Debug, Clone)]
pub(super) enum Signed<'a> {
    Bytes(Cow<'a, [u8]>),
    Sha256([u8; 32]),
}

impl Material {
    pub(super) fn certificates(&self) -> Result<&Certificates, Rejection> {
        self.certificates.as_ref().map_err(Clone::clone)
    }
}

impl Envelope {
    /// The pre-authentication encoding: what the signature is over (DSSE 1.0).
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let kind = &self.payload_type;
        let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), self.payload.len()).into_bytes();
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

impl Certificates {
    /// A leaf and whatever else was listed with it.
    pub(super) fn new(leaf: Option<Certificate>, others: Vec<Certificate>) -> Result<Self, Rejection> {
        let intermediates: Vec<_> =
            others.into_iter().filter(|found| !(found.is_authority() && found.self_issued())).collect();
        limit(Limited::Intermediates, intermediates.len(), INTERMEDIATE_LIMIT)?;
        Ok(Self { leaf, intermediates })
    }
}

impl Signed<'_> {
    /// Its digest; none if the bytes would be needed.
    pub(super) fn digest(&self, algorithm: HashAlgorithm) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(hash(algorithm, bytes)),
            Self::Sha256(digest) if algorithm == HashAlgorithm::Sha256 => Some(digest.to_vec()),
            Self::Sha256(_) => None,
        }
    }
}

pub(super) fn hash(algorithm: HashAlgorithm, bytes: &[u8]) -> Vec<u8> {
    digest::digest(algorithm.implementation(), bytes).as_ref().to_vec()
}

/// Refuses what is more than `limit`.
pub(super) const fn limit(what: Limited, size: usize, limit: usize) -> Result<(), Rejection> {
    if size > limit { Err(Rejection::LimitExceeded { what, limit }) } else { Ok(()) }
}

/// The word for a certificate that cannot be read.
pub(super) fn unreadable(error: CertificateError) -> Rejection {
    if matches!(error, CertificateError::TooMany { .. }) {
        return Rejection::LimitExceeded { what: Limited::Intermediates, limit: INTERMEDIATE_LIMIT };
    }
    Rejection::Certificate(error)
}

/// The limit of Kyverno.
pub(super) const INTERMEDIATE_LIMIT: usize = 10;
/// A leaf, the intermediates, and a root that does not count.
pub(super) const CERTIFICATE_LIST_LIMIT: usize = INTERMEDIATE_LIMIT + 2;
/// Limit of sigstore-go after CVE-2024-45395, for log entries and for timestamps.
pub(super) const ENTRY_LIMIT: usize = 32;
/// The limit for bundles, simple-signing payloads and annotations that are read.
pub(super) const PAYLOAD_LIMIT: usize = 1 << 20;
/// The limit for attestations, as in Kyverno.
pub(super) const ATTESTATION_LIMIT: usize = 10 << 20;
