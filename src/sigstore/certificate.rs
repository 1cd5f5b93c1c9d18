//! X.509 certificates of signers and authorities, read once.

use std::sync::Arc;
use std::time::SystemTime;

use crate::oci::Digest;
use crate::sigstore::key::{KeyError, PublicKey};

/// A parsed certificate. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    der: Vec<u8>,
    key: PublicKey,
    subjects: Vec<Subject>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// One subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its text; an IP address in its usual form.
    pub text: String,
}

/// What a subject alternative name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// An e-mail address.
    Email,
    /// A URI.
    Uri,
    /// A DNS name.
    Dns,
    /// An IP address.
    Ip,
    /// Fulcio's user name (otherName 1.3.6.1.4.1.57264.1.7).
    FulcioName,
}

/// Why something is not a usable certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No PEM block of a certificate.
    #[error("no PEM block (-----BEGIN CERTIFICATE-----) in the certificate")]
    NotPem,
    /// More certificates than are read.
    #[error("more than {limit} certificates")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its key cannot be used.
    #[error("the certificate's key cannot be used: {0}")]
    Key(#[source] KeyError),
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_der(_der: &[u8]) -> Result<Self, CertificateError> {
        Err(CertificateError::Malformed)
    }

    /// Reads every certificate of a PEM text, at most `limit`; at least one.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn list_from_pem(_pem: &str, _limit: usize) -> Result<Vec<Self>, CertificateError> {
        Err(CertificateError::Malformed)
    }

    /// Its exact bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// sha256 of its bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0.der)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// All its subject alternative names.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.0.subjects
    }

    /// The text of a Fulcio extension (1.3.6.1.4.1.57264.1.n), raw (1.1 to 1.6) or as a DER UTF8String.
    #[must_use]
    pub fn fulcio_extension(&self, _arc: u32) -> Option<&str> {
        None
    }

    /// The OIDC issuer: extension 1.8, or 1.1; none where both are there and differ.
    #[must_use]
    pub fn oidc_issuer(&self) -> Option<&str> {
        None
    }

    /// From when it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last moment at which it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}
