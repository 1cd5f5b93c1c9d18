//! Judging one stored signature against one attestor, at a time that is an argument.
//!
//! All conditions hold on the *same* signature (rule D3): an identity of one and an annotation of
//! another do not add up. In order:
//!
//! 1. limits, while the material is read;
//! 2. the key: the attestor's, or that of the certificate that came along;
//! 3. the signature, over the exact bytes;
//! 4. each entry of a log that the attestor believes, if it wants the signature to be logged;
//! 5. each timestamp by an authority that the attestor believes;
//! 6. the certificate: its chain at every time that was proven, its SCT, whom it names;
//! 7. what the bytes say: type, digest, annotations.
//!
//! Of an attestation the names of the certificate are looked at last, so that a statement which fails for
//! nothing but its signer can be told from one that is not about the image ([`StatementRejection`]).
//!
//! Nothing of a payload is read before its signature holds.
//!
//! A signer may write to several logs and ask several timestamp authorities, and an attestor believes some
//! of them. What the others say proves nothing and is no reason to refuse, unless it is the only word on
//! a time that is needed. What one of those that are believed is named for must hold, whatever else does.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde_json::Value;

use crate::oci::Digest;
use crate::sigstore::attestor::{Attestor, Signer};
use crate::sigstore::authorities::TimestampAuthorities;
use crate::sigstore::bundle::{self, Chains};
use crate::sigstore::certificate::Certificate;
use crate::sigstore::key::{HashAlgorithm, PublicKey};
use crate::sigstore::log_body::Logged;
use crate::sigstore::material::{ATTESTATION_LIMIT, Certificates, Material, Message, PAYLOAD_LIMIT, Signed};
use crate::sigstore::rejection::{Limited, Rejection};
use crate::sigstore::statement::{SIGNATURE_PREDICATE, Statement, carries};
use crate::sigstore::{
    Authorities, Identity, SctTrust, SignatureEvidence, chain, cosign, log, sct, timestamp,
};

/// How a signature is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// A layer of a `.sig` or `.att` manifest.
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
    proven: Proven,
}

/// Proof that one attestation met all conditions of one attestor. Only [`verify_statement`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedStatement {
    digest: Digest,
    predicate_type: String,
    predicate: Value,
    annotations: BTreeMap<String, String>,
    proven: Proven,
}

/// Proof that one bundle is a signature of one attestor over an artifact. Only [`verify_artifact`]
/// makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VerifiedArtifact {
    predicate_type: Option<String>,
    proven: Proven,
}

/// What is proven of a signature, whatever it says. Only `check` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Proven {
    key_fingerprint: Digest,
    form: SignatureForm,
    signer: Option<Certificate>,
    holds_until: Option<SystemTime>,
}

/// Why one piece is not an attestation of one attestor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementRejection {
    /// The first condition that does not hold.
    pub rejection: Rejection,
    /// The predicate type, where the statement is about the image and everything holds but the identity
    /// or the annotations: somebody whom the attestor's authorities know says so, and it is not the attestor.
    pub unfit: Option<String>,
}

impl From<Rejection> for StatementRejection {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, unfit: None }
    }
}

/// What a bundle must be about.
#[derive(Debug, Clone, Copy)]
pub enum Artifact<'a> {
    /// All its bytes.
    Bytes(&'a [u8]),
    /// Its sha256.
    Digest(Digest),
}

impl Proven {
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

    /// Until when this may be believed, if nothing proves when the signature was made: the first end among
    /// the certificate and those that vouch for it, the authority's included.
    #[must_use]
    pub const fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }
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

    /// Who signed, and until when that may be believed.
    pub const fn proven(&self) -> &Proven {
        &self.proven
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

    /// The predicate itself.
    #[must_use]
    pub fn into_predicate(self) -> Value {
        self.predicate
    }

    /// The annotations of the subject that are texts.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Who signed, and until when that may be believed.
    pub const fn proven(&self) -> &Proven {
        &self.proven
    }
}

impl VerifiedArtifact {
    /// The type of the predicate, if what was signed is a statement about the artifact.
    #[must_use]
    pub fn predicate_type(&self) -> Option<&str> {
        self.predicate_type.as_deref()
    }

    /// Who signed, and until when that may be believed.
    pub const fn proven(&self) -> &Proven {
        &self.proven
    }
}

/// Verifies that `evidence` is a signature of `attestor` over the image with the digest `subject`: a
/// `.sig` layer, or a bundle with cosign's predicate type for signatures.
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
    let material = match evidence {
        SignatureEvidence::CosignLayer { payload, annotations } => {
            cosign::signature_layer(payload, annotations)?
        }
        SignatureEvidence::Bundle { json } if json.len() > PAYLOAD_LIMIT => return Err(too_large(json)),
        SignatureEvidence::Bundle { json } => bundle::read(json, PAYLOAD_LIMIT, Chains::Found)?,
        SignatureEvidence::AttestationLayer { .. } => return Err(Rejection::PredicateType),
    };
    let (proven, annotations) = match &material.message {
        Message::Claim(payload) => {
            let proven = check(&material, &Signed::Bytes(Cow::Borrowed(payload)), attestor, now)?;
            let claim = cosign::claim(payload)?;
            if claim.digest != *subject {
                return Err(Rejection::ClaimMismatch { claimed: claim.digest });
            }
            carries(&claim.annotations, &attestor.annotations)?;
            (proven, claim.annotations)
        }
        Message::Envelope(envelope) => {
            Statement::is_in(envelope)?;
            let signed = Signed::Bytes(Cow::Owned(envelope.signed_bytes()));
            let proven = check(&material, &signed, attestor, now)?;
            let statement = Statement::read(envelope, subject)?;
            if statement.predicate_type != SIGNATURE_PREDICATE {
                return Err(Rejection::PredicateType);
            }
            (proven, statement.annotations(&attestor.annotations)?.clone())
        }
        Message::Artifact(_) => return Err(Rejection::MessageSignature),
    };
    Ok(VerifiedSignature { digest: *subject, annotations, proven })
}

/// Why a bundle of more bytes than a signature has is none: an SBOM that says that it is one does not become
/// a signature that is too large. Nobody vouches for what it says, and it only chooses the words.
fn too_large(json: &[u8]) -> Rejection {
    let says_other = |material: Material| match &material.message {
        Message::Envelope(envelope) => {
            Statement::claimed_type(envelope).is_some_and(|claimed| claimed != SIGNATURE_PREDICATE)
        }
        Message::Claim(_) | Message::Artifact(_) => false,
    };
    if bundle::read(json, ATTESTATION_LIMIT, Chains::Found).is_ok_and(says_other) {
        Rejection::PredicateType
    } else {
        Rejection::LimitExceeded { what: Limited::Bundle, limit: PAYLOAD_LIMIT }
    }
}

/// Verifies that `evidence` is an attestation of `attestor` about the image with the digest `subject`: an
/// `.att` layer or a bundle, with any predicate type but that of signatures.
///
/// `now` is what all times are compared with.
///
/// # Errors
/// The first condition that does not hold; identity and annotations are looked at last.
pub fn verify_statement(
    evidence: &SignatureEvidence,
    subject: &Digest,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<VerifiedStatement, StatementRejection> {
    let material = match evidence {
        SignatureEvidence::CosignLayer { .. } => return Err(Rejection::NoAttestation.into()),
        SignatureEvidence::Bundle { json } => bundle::read(json, ATTESTATION_LIMIT, Chains::Found)?,
        SignatureEvidence::AttestationLayer { envelope, annotations } => {
            cosign::attestation_layer(envelope, annotations)?
        }
    };
    let Message::Envelope(envelope) = &material.message else {
        return Err(Rejection::MessageSignature.into());
    };
    Statement::is_in(envelope)?;
    let signed = Signed::Bytes(Cow::Owned(envelope.signed_bytes()));
    let (proven, identity) = prove(&material, &signed, attestor, now)?;
    let statement = match &identity {
        Ok(()) => Statement::read(envelope, subject)?,
        Err(_) => Statement::read_strangers(envelope, subject)?,
    };
    if statement.predicate_type == SIGNATURE_PREDICATE {
        return Err(Rejection::NoAttestation.into());
    }
    let annotations = identity.and_then(|()| statement.annotations(&attestor.annotations).cloned());
    let Statement { predicate_type, predicate, .. } = statement;
    let annotations = match annotations {
        Ok(annotations) => annotations,
        Err(rejection) => return Err(StatementRejection { rejection, unfit: Some(predicate_type) }),
    };
    Ok(VerifiedStatement { digest: *subject, predicate_type, predicate, annotations, proven })
}

/// Verifies that `bundle` is a signature of `attestor` over `artifact`, or a statement about it.
///
/// The attestor's annotations can only be met by a statement. `now` is what all times are compared with.
///
/// # Errors
/// The first condition that does not hold.
pub fn verify_artifact(
    bundle: &[u8],
    artifact: &Artifact<'_>,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<VerifiedArtifact, Rejection> {
    let material = bundle::read(bundle, ATTESTATION_LIMIT, Chains::Specified)?;
    let (proven, predicate_type) = match &material.message {
        Message::Artifact(claimed) => {
            let signed = artifact.signed();
            if let Some((algorithm, digest)) = claimed
                && signed.digest(*algorithm).as_ref() != Some(digest)
            {
                return Err(Rejection::ArtifactMismatch);
            }
            let proven = check(&material, &signed, attestor, now)?;
            carries(&BTreeMap::new(), &attestor.annotations)?;
            (proven, None)
        }
        Message::Envelope(envelope) => {
            Statement::is_in(envelope)?;
            let signed = Signed::Bytes(Cow::Owned(envelope.signed_bytes()));
            let proven = check(&material, &signed, attestor, now)?;
            let statement = Statement::read(envelope, &artifact.sha256())?;
            statement.annotations(&attestor.annotations)?;
            (proven, Some(statement.predicate_type))
        }
        // A bundle holds none.
        Message::Claim(_) => return Err(Rejection::PayloadType),
    };
    Ok(VerifiedArtifact { predicate_type, proven })
}

impl<'a> Artifact<'a> {
    fn signed(&self) -> Signed<'a> {
        match self {
            Self::Bytes(bytes) => Signed::Bytes(Cow::Borrowed(bytes)),
            Self::Digest(digest) => Signed::Sha256(*digest.as_bytes()),
        }
    }

    fn sha256(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest::of(bytes),
            Self::Digest(digest) => *digest,
        }
    }
}

/// Steps 2 to 6.
fn check(
    material: &Material,
    signed: &Signed<'_>,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<Proven, Rejection> {
    let (proven, identity) = prove(material, signed, attestor, now)?;
    identity.map(|()| proven)
}

/// The same, with whom the certificate names apart: nothing is proven unless both are good.
fn prove(
    material: &Material,
    signed: &Signed<'_>,
    attestor: &Attestor,
    now: SystemTime,
) -> Result<(Proven, Result<(), Rejection>), Rejection> {
    let claimed = Claimed::of(material, attestor)?;
    let envelope = match &material.message {
        Message::Envelope(envelope) => Some(envelope),
        Message::Claim(_) | Message::Artifact(_) => None,
    };
    let signature = &material.signature;
    let scheme = match signed {
        Signed::Bytes(bytes) => claimed.key.verify(bytes, signature, claimed.hash),
        Signed::Sha256(digest) => claimed.key.verify_digest(digest, signature, HashAlgorithm::Sha256),
    };
    let scheme = scheme.ok_or(Rejection::SignatureInvalid(claimed.key.kind()))?;

    let mut times = BTreeSet::new();
    let mut log_ended = None;
    if let Some(logs) = attestor.log.logs() {
        let entries = material.entries.as_ref().map_err(Clone::clone)?;
        let (key, certificate) = (claimed.key, claimed.carried);
        let logged = Logged { signed, envelope, signature, scheme, key, certificate };
        let seen = log::verify(entries, logs, &logged, now)?;
        times.extend(seen.times);
        log_ended = seen.ended;
    }
    let stamps = timestamps(material, &attestor.timestamps, now)?;
    times.extend(stamps.times);
    // The first time is the nearest to the signing, and whoever has the key of a retired log may have it log anything.
    if times.first().is_some_and(|first| log_ended.is_some_and(|ended| ended < *first)) {
        return Err(Rejection::LogUnknown);
    }

    let (key_fingerprint, form) = (claimed.key.fingerprint(), material.form);
    let Some((leaf, trust)) = claimed.certificate else {
        return Ok((Proven { key_fingerprint, form, signer: None, holds_until: None }, Ok(())));
    };
    let undated = times.is_empty();
    if undated {
        // Not as if it were not there: then the certificate would be judged as of now.
        if stamps.by_strangers > 0 {
            return Err(Rejection::TimestampUnknownAuthority);
        }
        if attestor.log.logs().is_some() {
            return Err(Rejection::TimeUnproven);
        }
        times.insert(now);
    }
    let until = certificate(leaf, &trust, &times)?;
    let holds_until = until.filter(|_| undated);
    let identity = trust.identity.map_or(Ok(()), |identity| identity.matches(leaf));
    Ok((Proven { key_fingerprint, form, signer: Some(leaf.clone()), holds_until }, identity))
}

/// Who the signer is said to be.
struct Claimed<'a> {
    key: &'a PublicKey,
    hash: HashAlgorithm,
    /// The certificate that a log entry must be about, since it came with the signature.
    carried: Option<&'a Certificate>,
    /// The certificate that is to be verified.
    certificate: Option<(&'a Certificate, CertificateTrust<'a>)>,
}

/// What a certificate is verified with.
struct CertificateTrust<'a> {
    intermediates: &'a [Certificate],
    authorities: &'a Authorities,
    sct: &'a SctTrust,
    /// None where the policy names the certificate itself.
    identity: Option<&'a Identity>,
}

impl<'a> Claimed<'a> {
    fn of(material: &'a Material, attestor: &'a Attestor) -> Result<Self, Rejection> {
        match &attestor.signer {
            Signer::Key(signer) => {
                // As in cosign: beside a layer's signature a certificate says nothing about a key.
                if material.form == SignatureForm::Bundle
                    && material.certificates()?.leaf.as_ref().is_some_and(|leaf| *leaf.key() != signer.key)
                {
                    return Err(Rejection::CertificateBundle);
                }
                Ok(Self { key: &signer.key, hash: signer.hash, carried: None, certificate: None })
            }
            Signer::Certificate(signer) => {
                let carried = material.certificates()?.leaf.as_ref();
                if carried.is_some_and(|carried| *carried != signer.certificate) {
                    return Err(Rejection::CertificateMismatch);
                }
                let trust = CertificateTrust {
                    intermediates: &signer.intermediates,
                    authorities: &signer.authorities,
                    sct: &signer.sct,
                    identity: None,
                };
                Ok(Self {
                    key: signer.certificate.key(),
                    hash: signer.hash,
                    carried,
                    certificate: Some((&signer.certificate, trust)),
                })
            }
            Signer::Identity(signer) => {
                let Certificates { leaf, intermediates } = material.certificates()?;
                let leaf = leaf.as_ref().ok_or(Rejection::CertificateMissing)?;
                let trust = CertificateTrust {
                    intermediates,
                    authorities: &signer.authorities,
                    sct: &signer.sct,
                    identity: Some(&signer.identity),
                };
                Ok(Self {
                    key: leaf.key(),
                    hash: HashAlgorithm::Sha256,
                    carried: Some(leaf),
                    certificate: Some((leaf, trust)),
                })
            }
        }
    }
}

/// What the timestamps of a signature say.
#[derive(Default)]
struct Stamps {
    times: Vec<SystemTime>,
    /// How many are by authorities that the attestor does not believe.
    by_strangers: usize,
}

/// The times of all timestamps. They are over the signature; beside an envelope that is a layer, cosign 2
/// has them over the envelope.
fn timestamps(
    material: &Material,
    authorities: &TimestampAuthorities,
    now: SystemTime,
) -> Result<Stamps, Rejection> {
    let mut stamps = Stamps::default();
    if authorities.is_empty() {
        return Ok(stamps);
    }
    let stored = match &material.message {
        Message::Envelope(envelope) => envelope.stored.as_deref(),
        Message::Claim(_) | Message::Artifact(_) => None,
    };
    for token in material.timestamps.as_ref().map_err(Clone::clone)? {
        let time = match (timestamp::verify(token, &material.signature, authorities), stored) {
            (Err(Rejection::TimestampForeign), Some(stored)) => timestamp::verify(token, stored, authorities),
            (time, _) => time,
        };
        match time {
            Ok(time) if time > now => return Err(Rejection::TimestampInFuture),
            Ok(time) => stamps.times.push(time),
            Err(Rejection::TimestampUnknownAuthority) => stamps.by_strangers += 1,
            Err(rejection) => return Err(rejection),
        }
    }
    Ok(stamps)
}

/// Whether the certificate was good at every one of the times, and is in a log; the last moment at which
/// it and all that vouch for it are good.
fn certificate(
    leaf: &Certificate,
    trust: &CertificateTrust<'_>,
    times: &BTreeSet<SystemTime>,
) -> Result<Option<SystemTime>, Rejection> {
    let mut until = None;
    for time in times {
        let path = chain::verify(leaf, trust.intermediates, trust.authorities, *time)?;
        if let Some(logs) = trust.sct.logs() {
            sct::verify(leaf, &path.issuer, logs)?;
        }
        until = [until, Some(path.until)].into_iter().flatten().min();
    }
    Ok(until)
}

#[cfg(test)]
#[path = "attestation_tests.rs"]
mod attestation_tests;
#[cfg(test)]
#[path = "certificate_verify_tests.rs"]
mod certificate_tests;
#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
