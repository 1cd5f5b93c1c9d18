//! Judging one stored signature against one attestor.
//!
//! All conditions hold on the *same* signature (rule D3): a digest from one and an annotation from
//! another do not add up. In order: limits, the key's signature over the exact bytes, what those
//! bytes say (type, digest of the image, annotations), the transparency log. Nothing of a payload is
//! read before its signature holds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use crate::oci::Digest;
use crate::sigstore::bundle::KeyBundle;
use crate::sigstore::log::{self, Signed};
use crate::sigstore::rejection::Rejection;
use crate::sigstore::{Attestor, Certificate, KeySigner, SignatureEvidence, Signer, cosign, statement};

/// How a signature is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// A layer of a `.sig` manifest.
    CosignLayer,
    /// A Sigstore bundle.
    Bundle,
}

/// Proof that one signature met all conditions of one attestor. Only [`verify_signature`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedSignature {
    digest: Digest,
    annotations: BTreeMap<String, String>,
    key_fingerprint: Digest,
    form: SignatureForm,
    signer: Option<Certificate>,
    holds_until: Option<SystemTime>,
}

/// Proof that one attestation met all conditions of one attestor. Only [`verify_statement`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedStatement {
    digest: Digest,
    predicate_type: String,
    predicate: Value,
    annotations: BTreeMap<String, String>,
    form: SignatureForm,
    signer: Option<Certificate>,
    holds_until: Option<SystemTime>,
}

/// Proof that one bundle is a signature of one attestor over an artifact. Only [`verify_artifact`]
/// makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedArtifact {
    key_fingerprint: Digest,
    predicate_type: Option<String>,
    signer: Option<Certificate>,
    holds_until: Option<SystemTime>,
}

/// What a bundle must be about.
#[derive(Debug, Clone, Copy)]
pub enum Artifact<'a> {
    /// All its bytes.
    Bytes(&'a [u8]),
    /// Its sha256.
    Digest(Digest),
}

impl VerifiedSignature {
    /// The digest that the signature names: the one that was asked for.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// All signed annotations that are texts, also those that were not required.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// sha256 of the SPKI of the key that signed.
    #[must_use]
    pub const fn key_fingerprint(&self) -> Digest {
        self.key_fingerprint
    }

    /// How the signature is stored.
    #[must_use]
    pub const fn form(&self) -> SignatureForm {
        self.form
    }

    /// The certificate of who signed; none for a key.
    #[must_use]
    pub const fn signer(&self) -> Option<&Certificate> {
        self.signer.as_ref()
    }

    /// Until when this may be believed, if nothing proves when the signature was made: the end of the
    /// certificate.
    #[must_use]
    pub const fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }
}

impl VerifiedStatement {
    /// The digest that the statement names: the one that was asked for.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The type of the predicate.
    #[must_use]
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// The predicate; `null` if the statement has none.
    #[must_use]
    pub const fn predicate(&self) -> &Value {
        &self.predicate
    }

    /// The annotations of the subject that are texts.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// How the attestation is stored.
    #[must_use]
    pub const fn form(&self) -> SignatureForm {
        self.form
    }

    /// The certificate of who signed; none for a key.
    #[must_use]
    pub const fn signer(&self) -> Option<&Certificate> {
        self.signer.as_ref()
    }

    /// Until when this may be believed, if nothing proves when the signature was made: the end of the
    /// certificate.
    #[must_use]
    pub const fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }
}

impl VerifiedArtifact {
    /// sha256 of the SPKI of the key that signed.
    #[must_use]
    pub const fn key_fingerprint(&self) -> Digest {
        self.key_fingerprint
    }

    /// The type of the predicate, if what was signed is a statement about the artifact.
    #[must_use]
    pub fn predicate_type(&self) -> Option<&str> {
        self.predicate_type.as_deref()
    }

    /// The certificate of who signed; none for a key.
    #[must_use]
    pub const fn signer(&self) -> Option<&Certificate> {
        self.signer.as_ref()
    }

    /// Until when this may be believed, if nothing proves when the signature was made: the end of the
    /// certificate.
    #[must_use]
    pub const fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }
}

/// Verifies that `evidence` is a signature of `attestor` over the image with the digest `subject`.
///
/// `now` is what all times are compared with.
///
/// # Errors
/// The first condition that does not hold.
pub fn verify_signature(
    evidence: &SignatureEvidence,
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<VerifiedSignature, Rejection> {
    let key = key(attestor)?;
    let (form, annotations) = match evidence {
        SignatureEvidence::CosignLayer { payload, annotations } => {
            (SignatureForm::CosignLayer, layer(payload, annotations, subject, attestor, now)?)
        }
        SignatureEvidence::Bundle { json } => (SignatureForm::Bundle, bundle(json, subject, attestor, now)?),
        SignatureEvidence::AttestationLayer { .. } => return Err(Rejection::PredicateType),
    };
    let key_fingerprint = key.key.fingerprint();
    Ok(VerifiedSignature {
        digest: *subject,
        annotations,
        key_fingerprint,
        form,
        signer: None,
        holds_until: None,
    })
}

/// Verifies that `evidence` is an attestation of `attestor` about the image with the digest `subject`.
///
/// # Errors
/// The first condition that does not hold.
pub fn verify_statement(
    _evidence: &SignatureEvidence,
    _subject: &Digest,
    _attestor: &Attestor,
    _now: SystemTime,
) -> Result<VerifiedStatement, Rejection> {
    Err(Rejection::Unsupported)
}

/// Verifies that `bundle` is a signature of `attestor` over `artifact`, or a statement about it.
///
/// # Errors
/// The first condition that does not hold.
pub fn verify_artifact(
    _bundle: &[u8],
    _artifact: &Artifact<'_>,
    _attestor: &Attestor,
    _now: SystemTime,
) -> Result<VerifiedArtifact, Rejection> {
    Err(Rejection::Unsupported)
}

const fn key(attestor: &Attestor) -> Result<&KeySigner, Rejection> {
    match &attestor.signer {
        Signer::Key(key) => Ok(key),
        Signer::Certificate(_) | Signer::Identity(_) => Err(Rejection::Unsupported),
    }
}

/// A `.sig` layer; the signed annotations.
fn layer(
    payload: &[u8],
    stored: &BTreeMap<String, String>,
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<BTreeMap<String, String>, Rejection> {
    let signature = cosign::signature(payload, stored)?;
    let signed = signed(attestor, payload, &signature, now)?;
    let claim = cosign::claim(payload)?;
    if claim.digest != *subject {
        return Err(Rejection::ClaimMismatch { claimed: claim.digest });
    }
    carries(&claim.annotations, &attestor.annotations)?;
    let log_bundle = stored.get(cosign::LOG_BUNDLE).map(String::as_str);
    log::check_layer(&attestor.log, signed, payload, &signature, log_bundle)?;
    Ok(claim.annotations)
}

/// A bundle; the signed annotations.
fn bundle(
    json: &[u8],
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<BTreeMap<String, String>, Rejection> {
    let KeyBundle { envelope, log_entries } = KeyBundle::parse(json)?;
    let signed = signed(attestor, &envelope.signed_bytes(), &envelope.signature, now)?;
    let candidates = statement::signed_annotations(&envelope.payload, subject)?;
    // A statement may name the image more than once; all required annotations are on one subject.
    let fits = |candidate: &&BTreeMap<_, _>| carries(candidate, &attestor.annotations).is_ok();
    let annotations =
        candidates.iter().find(fits).or_else(|| candidates.first()).ok_or(Rejection::SubjectMismatch)?;
    carries(annotations, &attestor.annotations)?;
    log::check_bundle(&attestor.log, signed, &envelope, &log_entries, subject)?;
    Ok(annotations.clone())
}

fn signed<'a>(
    attestor: &'a Attestor,
    message: &[u8],
    signature: &[u8],
    now: SystemTime,
) -> Result<Signed<'a>, Rejection> {
    let KeySigner { key, hash } = key(attestor)?;
    match key.verify(message, signature, *hash) {
        Some(scheme) => Ok(Signed { key, scheme, now }),
        None => Err(Rejection::SignatureInvalid(key.kind())),
    }
}

/// Each required pair is there, with equal text.
fn carries(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Result<(), Rejection> {
    match wanted.iter().find(|(key, value)| found.get(*key) != Some(value)) {
        Some((key, _)) => Err(Rejection::AnnotationMismatch { key: key.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
