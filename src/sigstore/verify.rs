//! Judging one stored signature against one attestor.
//!
//! All conditions hold on the *same* signature (rule D3): a digest from one and an annotation from
//! another do not add up. In order: limits, the key's signature over the exact bytes, what those
//! bytes say (type, digest of the image, annotations), the transparency log. Nothing of a payload is
//! read before its signature holds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::oci::Digest;
use crate::sigstore::bundle::KeyBundle;
use crate::sigstore::log::{self, Signed};
use crate::sigstore::rejection::Rejection;
use crate::sigstore::{Attestor, KeyAttestor, SignatureEvidence, cosign, statement};

/// How a signature is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// A layer of a `.sig` manifest.
    CosignLayer,
    /// A Sigstore bundle.
    Bundle,
}

/// Proof that one signature met all conditions of one attestor. Only [`verify()`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedSignature {
    digest: Digest,
    annotations: BTreeMap<String, String>,
    key_fingerprint: Digest,
    form: SignatureForm,
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
}

/// Verifies that `evidence` is a signature of `attestor` over the image with the digest `subject`.
///
/// `now` is what the times in log entries are compared with.
///
/// # Errors
/// The first condition that does not hold.
pub fn verify(
    evidence: &SignatureEvidence,
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<VerifiedSignature, Rejection> {
    let Attestor::Key(attestor) = attestor;
    let (form, annotations) = match evidence {
        SignatureEvidence::CosignLayer { payload, annotations } => {
            (SignatureForm::CosignLayer, layer(payload, annotations, subject, attestor, now)?)
        }
        SignatureEvidence::Bundle { json } => (SignatureForm::Bundle, bundle(json, subject, attestor, now)?),
    };
    Ok(VerifiedSignature { digest: *subject, annotations, key_fingerprint: attestor.key.fingerprint(), form })
}

/// A `.sig` layer; the signed annotations.
fn layer(
    payload: &[u8],
    stored: &BTreeMap<String, String>,
    subject: &Digest,
    attestor: &KeyAttestor,
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
    attestor: &KeyAttestor,
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
    attestor: &'a KeyAttestor,
    message: &[u8],
    signature: &[u8],
    now: SystemTime,
) -> Result<Signed<'a>, Rejection> {
    let key = &attestor.key;
    match key.verify(message, signature, attestor.hash) {
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
