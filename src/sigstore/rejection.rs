//! Why one stored signature does not count.
//!
//! The texts are leaf causes in the words of cosign where cosign has words for it. They name no key,
//! time or address that could differ between two runs over the same evidence.

use crate::oci::Digest;
use crate::outcome::DenialReason;
use crate::sigstore::certificate::CertificateError;
use crate::sigstore::json::JsonError;
use crate::sigstore::key::KeyKind;
use crate::sigstore::statement::SIGNATURE_PREDICATE;

/// Why one signature does not count. The variants are the checks, in the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Something is larger or more than is read.
    #[error("{what} exceeds the limit of {limit}")]
    LimitExceeded {
        /// What is too large.
        what: Limited,
        /// The limit, in bytes or pieces.
        limit: usize,
    },
    /// The layer has no `dev.cosignproject.cosign/signature` annotation.
    #[error("the signature layer has no signature annotation")]
    SignatureMissing,
    /// The signature is not base64.
    #[error("the signature is not valid base64")]
    SignatureEncoding,
    /// The bundle is not accepted as JSON.
    #[error("cannot read the bundle: {0}")]
    BundleJson(JsonError),
    /// The bundle's media type is none that is known.
    #[error("the bundle's media type is not sigstore bundle v0.1, v0.2 or v0.3")]
    BundleMediaType,
    /// A field of the bundle is missing or not of its type.
    #[error("the bundle's {0} is missing or malformed")]
    BundleField(BundleField),
    /// The bundle is signed by a certificate, and the attestor is a key.
    #[error("the bundle is signed with a certificate, not with a key")]
    CertificateBundle,
    /// The bundle signs a message, not a statement about an image.
    #[error("the bundle holds a message signature, which does not name an image")]
    MessageSignature,
    /// The envelope is not accepted as JSON.
    #[error("cannot read the DSSE envelope: {0}")]
    EnvelopeJson(JsonError),
    /// A DSSE envelope must have exactly one signature.
    #[error("the DSSE envelope has {found} signatures, expected one")]
    EnvelopeSignatures {
        /// How many it has.
        found: usize,
    },
    /// The payload of the envelope is not an in-toto statement.
    #[error("the DSSE payload type is not application/vnd.in-toto+json")]
    EnvelopePayloadType,
    /// The signature is not by this key, or over something else.
    #[error("{}", invalid_signature(*.0))]
    SignatureInvalid(KeyKind),
    /// The signed payload is not accepted as JSON.
    #[error("cannot read the signed payload: {0}")]
    PayloadJson(JsonError),
    /// The payload is not a simple-signing claim of cosign.
    #[error("the signed payload is not a cosign container image signature")]
    PayloadType,
    /// The payload names no digest of an image, or not a sha256 one.
    #[error("invalid or missing digest in claim")]
    ClaimWithoutDigest,
    /// The payload names another image.
    #[error("invalid or missing digest in claim: {claimed}")]
    ClaimMismatch {
        /// The image that was signed.
        claimed: Digest,
    },
    /// The payload is not an in-toto statement.
    #[error("the signed payload is not an in-toto statement")]
    StatementMalformed,
    /// The statement is an attestation of something else than a cosign signature.
    #[error("the bundle is an attestation, not a signature (predicate type is not {SIGNATURE_PREDICATE})")]
    PredicateType,
    /// The statement is a cosign signature, where an attestation is asked for.
    #[error("the statement is a signature, not an attestation (predicate type {SIGNATURE_PREDICATE})")]
    NoAttestation,
    /// No subject of the statement is the image.
    #[error("no subject of the signed statement has the digest of the image")]
    SubjectMismatch,
    /// The bundle says that it signs another artifact.
    #[error("the digest in the bundle is not that of the artifact")]
    ArtifactMismatch,
    /// A required annotation is not there or has another value.
    #[error("missing or incorrect annotation `{key}`")]
    AnnotationMismatch {
        /// The first required annotation that is not met.
        key: String,
    },
    /// No entry of a transparency log comes with the signature.
    #[error("signature not found in transparency log")]
    LogEntryMissing,
    /// The entry cannot be read or is of a kind that is not supported.
    #[error("cannot read the transparency log entry")]
    LogEntryMalformed,
    /// An entry comes with neither a signed promise nor a proof.
    #[error("the transparency log entry carries no proof")]
    LogEntryUnproven,
    /// The entry is of a kind that cannot be compared with what was signed.
    #[error("a transparency log entry of this kind does not fit the signature")]
    LogUnsupported,
    /// The entry is by a log that is not trusted.
    #[error("the transparency log is not trusted")]
    LogUnknown,
    /// The log's signature or Merkle proof does not hold.
    #[error("the transparency log's proof does not hold")]
    LogProofInvalid,
    /// The entry is about another signature, key or payload.
    #[error("the transparency log entry is for another signature")]
    LogEntryForeign,
    /// The entry was made in the future.
    #[error("the transparency log entry is from the future")]
    LogEntryInFuture,
    /// A timestamp token is not one, or of a kind that is not supported.
    #[error("cannot read the signed timestamp")]
    TimestampMalformed,
    /// A timestamp token is about something else.
    #[error("the signed timestamp is for another signature")]
    TimestampForeign,
    /// A timestamp token is by no authority that is trusted.
    #[error("the timestamp authority is not trusted")]
    TimestampUnknownAuthority,
    /// A timestamp token names an authority that did not sign it.
    #[error("the timestamp authority's signature does not hold")]
    TimestampInvalid,
    /// The certificate that signed a token must not sign timestamps, or does not lead to its authority.
    #[error("the timestamp authority's certificate does not hold")]
    TimestampSigner,
    /// A timestamp token is from a time at which its authority is not trusted.
    #[error("the signed timestamp is outside of its authority's validity")]
    TimestampOutsideWindow,
    /// A timestamp token is from a time that has not come.
    #[error("the signed timestamp is from the future")]
    TimestampInFuture,
    /// No certificate comes with the signature, and the attestor is known by nothing else.
    #[error("no certificate found on signature")]
    CertificateMissing,
    /// The signature comes with another certificate than the attestor's.
    #[error("the certificate of the signature is not the one that is asked for")]
    CertificateMismatch,
    /// Neither a log nor a timestamp says when the signature was made.
    #[error("nothing proves when the signature was made: no signed entry timestamp and no trusted timestamp")]
    TimeUnproven,
    /// A certificate cannot be read.
    #[error("{0}")]
    Certificate(CertificateError),
    /// The signer's certificate was not valid when it signed.
    #[error("x509: certificate has expired or is not yet valid")]
    CertificateTime,
    /// The key of the certificate, or of one of its issuers, must not be used for this.
    #[error("x509: certificate specifies an incompatible key usage")]
    CertificateUsage,
    /// The certificate does not lead to a trusted authority.
    #[error("{0}")]
    CertificateChain(ChainFault),
    /// No certificate transparency log promises to publish the certificate.
    #[error("certificate does not include required embedded SCT")]
    SctMissing,
    /// The list of promises cannot be read.
    #[error("cannot read the certificate's embedded SCT")]
    SctMalformed,
    /// The promises are by logs that are not trusted.
    #[error("ctfe public key not found for embedded SCT")]
    SctUnknown,
    /// The promise of a trusted log does not hold.
    #[error("unable to verify embedded SCT")]
    SctInvalid,
    /// No name of the certificate is the required one.
    #[error("subject mismatch: expected {expected}, received {received}")]
    SubjectNameMismatch {
        /// What the policy asks for.
        expected: String,
        /// The names that the certificate has.
        received: String,
    },
    /// The certificate names two issuers.
    #[error("issuer mismatch: the certificate names two different issuers")]
    IssuerAmbiguous,
    /// The certificate's issuer is not the required one.
    #[error("issuer mismatch: expected {expected}, received {received}")]
    IssuerMismatch {
        /// What the policy asks for.
        expected: String,
        /// The issuer that the certificate names.
        received: String,
    },
    /// An extension of the certificate has not the required value.
    #[error("extension mismatch: expected {expected} for key {key}, received {received}")]
    ExtensionMismatch {
        /// The extension, as the policy writes it.
        key: String,
        /// What the policy asks for.
        expected: String,
        /// What the certificate says.
        received: String,
    },
}

/// Why a certificate does not lead to a trusted authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// No authority is trusted, or has a valid root, at the time.
    #[error("no certificate authority is valid at the time of the signature")]
    NoAuthorityAtTime,
    /// No authority issued it.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// A certificate between it and the authority was not valid.
    #[error("x509: an issuing certificate has expired or is not yet valid")]
    Expired,
    /// It may itself issue certificates.
    #[error("x509: the certificate of an authority cannot sign")]
    AuthorityAsLeaf,
    /// A certificate between it and the authority must not issue certificates.
    #[error("x509: certificate is not authorized to sign other certificates")]
    MayNotIssue,
    /// A name is not one that the authority may give.
    #[error("x509: a name of the certificate is not permitted by its issuer's name constraints")]
    NameConstraint,
    /// It is of an X.509 version without extensions.
    #[error("x509: the certificate is of a version before 3, which is not read: issue it with extensions")]
    OldVersion,
    /// Somebody demands that an extension be understood that is not.
    #[error("x509: unhandled critical extension")]
    CriticalExtension,
}

/// What has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Bytes of a simple-signing payload.
    Payload,
    /// Bytes of a bundle.
    Bundle,
    /// Bytes of an attestation's envelope.
    Attestation,
    /// Bytes of the signature annotation.
    Signature,
    /// Bytes of the log annotation.
    LogAnnotation,
    /// Bytes of an annotation with certificates.
    CertificateAnnotation,
    /// Bytes of the timestamp annotation.
    TimestampAnnotation,
    /// Log entries of a bundle.
    LogEntries,
    /// Timestamps of a bundle.
    Timestamps,
    /// Bytes of a timestamp token.
    TimestampToken,
    /// Certificates between a signer's and an authority's.
    Intermediates,
    /// Certificate transparency timestamps of a certificate.
    CertificateTimestamps,
    /// Hashes in one inclusion proof.
    ProofHashes,
    /// Signatures of one checkpoint.
    CheckpointSignatures,
    /// Subjects of a statement.
    Subjects,
    /// Digests of one subject.
    SubjectDigests,
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Payload => "the signed payload",
            Self::Bundle => "the bundle",
            Self::Attestation => "the attestation",
            Self::Signature => "the signature annotation",
            Self::LogAnnotation => "the transparency log annotation",
            Self::CertificateAnnotation => "the certificate annotation",
            Self::TimestampAnnotation => "the timestamp annotation",
            Self::LogEntries => "the number of transparency log entries",
            Self::Timestamps => "the number of timestamps",
            Self::TimestampToken => "the signed timestamp",
            Self::Intermediates => "the number of intermediate certificates",
            Self::CertificateTimestamps => "the number of embedded SCTs",
            Self::CheckpointSignatures => "the number of signatures of a checkpoint",
            Self::ProofHashes => "the number of hashes in an inclusion proof",
            Self::Subjects => "the number of subjects",
            Self::SubjectDigests => "the number of digests of a subject",
        })
    }
}

/// A part of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleField {
    /// `verificationMaterial`.
    VerificationMaterial,
    /// `verificationMaterial.tlogEntries`.
    LogEntries,
    /// `verificationMaterial.timestampVerificationData`.
    Timestamps,
    /// `dsseEnvelope` or `messageSignature`.
    Content,
    /// `dsseEnvelope.payload`.
    Payload,
    /// `dsseEnvelope.signatures`, or `messageSignature.signature`.
    Signatures,
    /// `messageSignature.messageDigest`.
    MessageDigest,
    /// `verificationMaterial.certificate` or `x509CertificateChain`.
    Certificates,
}

impl std::fmt::Display for BundleField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::VerificationMaterial => "verification material",
            Self::LogEntries => "list of log entries",
            Self::Timestamps => "list of timestamps",
            Self::Content => "content",
            Self::Payload => "payload",
            Self::Signatures => "list of signatures",
            Self::MessageDigest => "message digest",
            Self::Certificates => "certificate or chain",
        })
    }
}

impl Rejection {
    /// The stable reason for a denial that rests on this rejection alone.
    #[must_use]
    pub const fn reason(&self) -> DenialReason {
        match self {
            Self::LimitExceeded { .. }
            | Self::BundleJson(JsonError::TooManyValues { .. })
            | Self::EnvelopeJson(JsonError::TooManyValues { .. })
            | Self::PayloadJson(JsonError::TooManyValues { .. }) => DenialReason::LimitExceeded,
            // It is no signature at all: an image that only has attestations is not signed.
            Self::PredicateType => DenialReason::SignatureNotFound,
            Self::NoAttestation => DenialReason::AttestationNotFound,
            Self::AnnotationMismatch { .. } => DenialReason::AnnotationMismatch,
            Self::LogEntryMissing
            | Self::LogEntryMalformed
            | Self::LogEntryUnproven
            | Self::LogUnsupported
            | Self::LogUnknown
            | Self::LogProofInvalid
            | Self::LogEntryForeign
            | Self::LogEntryInFuture => DenialReason::TransparencyLog,
            Self::TimestampMalformed
            | Self::TimestampForeign
            | Self::TimestampUnknownAuthority
            | Self::TimestampInvalid
            | Self::TimestampSigner
            | Self::TimestampOutsideWindow
            | Self::TimestampInFuture
            | Self::CertificateMissing
            | Self::CertificateMismatch
            | Self::TimeUnproven
            | Self::Certificate(_)
            | Self::CertificateTime
            | Self::CertificateUsage
            | Self::CertificateChain(_)
            | Self::SctMissing
            | Self::SctMalformed
            | Self::SctUnknown
            | Self::SctInvalid => DenialReason::Certificate,
            Self::SubjectNameMismatch { .. }
            | Self::IssuerAmbiguous
            | Self::IssuerMismatch { .. }
            | Self::ExtensionMismatch { .. } => DenialReason::IdentityMismatch,
            Self::SignatureMissing
            | Self::SignatureEncoding
            | Self::BundleJson(_)
            | Self::BundleMediaType
            | Self::BundleField(_)
            | Self::CertificateBundle
            | Self::MessageSignature
            | Self::EnvelopeJson(_)
            | Self::EnvelopeSignatures { .. }
            | Self::EnvelopePayloadType
            | Self::SignatureInvalid(_)
            | Self::PayloadJson(_)
            | Self::PayloadType
            | Self::ClaimWithoutDigest
            | Self::ClaimMismatch { .. }
            | Self::StatementMalformed
            | Self::SubjectMismatch
            | Self::ArtifactMismatch => DenialReason::SignatureInvalid,
        }
    }
}

/// The texts of cosign, by type of key.
const fn invalid_signature(key: KeyKind) -> &'static str {
    match key {
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
            "invalid signature when validating ASN.1 encoded signature"
        }
        KeyKind::Rsa => "crypto/rsa: verification error",
        KeyKind::Ed25519 => "failed to verify signature",
    }
}
