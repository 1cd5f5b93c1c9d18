//! The transparency log: was this very signature, by this very key, over this very payload, logged?
//!
//! A log entry proves nothing by being genuine. It must be about the signature at hand, or the entry
//! of any other artifact will do (CVE-2022-36056, CVE-2026-22703). The proofs and the comparison of
//! the entry's body are sigstore-verify's; this module gives it what was verified before, never
//! a second reading of the same text, and adds:
//!
//! * there is an entry, and *each* entry carries a proof (sigstore-verify is content with one);
//! * the body of an entry is of the kind that the bundle says, and repeats no key;
//! * a signed time is not later than `now`.
//!
//! sigstore-verify also reads the machine's clock, for the same question and for log keys whose
//! validity has not begun. That can only refuse more.
//!
//! A `.sig` layer becomes a v0.1 bundle with a message signature, whose log entry is the layer's
//! annotation (`SignedEntryTimestamp` over `Payload`); only `hashedrekord` 0.0.1 entries are read there.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_trust_root::TrustedRoot;
use sigstore_types::bundle::{
    MessageDigest, MessageSignature, PublicKeyIdentifier, VerificationMaterial, VerificationMaterialContent,
};
use sigstore_types::dsse::DsseSignature;
use sigstore_types::{
    Artifact, Bundle, DerPublicKey, DigestBytes, DsseEnvelope, MediaType, PayloadBytes, Sha256Hash,
    SignatureBytes, SignatureContent, TransparencyLogEntry,
};
use sigstore_verify::{Error, PublicKeyVerificationPolicy, TransparencyLogError, Verifier};

use crate::oci::Digest;
use crate::sigstore::LogTrust;
use crate::sigstore::bundle::{Envelope, PAYLOAD_TYPE};
use crate::sigstore::cosign::limit;
use crate::sigstore::json;
use crate::sigstore::key::{HashAlgorithm, KeyKind, PublicKey, Scheme};
use crate::sigstore::logs::Logs;
use crate::sigstore::rejection::{Limited, Rejection};

/// A signature that holds, and when it is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) key: &'a PublicKey,
    pub(super) scheme: Scheme,
    pub(super) now: SystemTime,
}

/// Demands that a `.sig` layer's signature is logged, unless the log is ignored.
///
/// `annotation` is the layer's `dev.sigstore.cosign/bundle`.
pub(super) fn check_layer(
    trust: &LogTrust,
    signed: Signed<'_>,
    payload: &[u8],
    signature: &[u8],
    annotation: Option<&str>,
) -> Result<(), Rejection> {
    with_logs(trust, |logs| {
        let annotation = annotation.ok_or(Rejection::LogEntryMissing)?;
        let digest = match signed.scheme {
            Scheme::Ecdsa(HashAlgorithm::Sha256)
            | Scheme::RsaPkcs1(HashAlgorithm::Sha256)
            | Scheme::Ed25519 => (sigstore_types::HashAlgorithm::Sha2256, &aws_lc_rs::digest::SHA256),
            Scheme::Ecdsa(HashAlgorithm::Sha384) | Scheme::RsaPkcs1(HashAlgorithm::Sha384) => {
                (sigstore_types::HashAlgorithm::Sha2384, &aws_lc_rs::digest::SHA384)
            }
            Scheme::RsaPkcs1(HashAlgorithm::Sha512) => {
                (sigstore_types::HashAlgorithm::Sha2512, &aws_lc_rs::digest::SHA512)
            }
            Scheme::Ecdsa(HashAlgorithm::Sha512) | Scheme::RsaPss(_) | Scheme::Ed25519ph => {
                return Err(Rejection::LogUnsupported(signed.key.kind()));
            }
        };
        if signed.key.kind() == KeyKind::EcdsaP521 {
            return Err(Rejection::LogUnsupported(KeyKind::EcdsaP521));
        }
        let entry = layer_entry(annotation)?;
        let hashed = DigestBytes::new(aws_lc_rs::digest::digest(digest.1, payload).as_ref().to_vec());
        let message = MessageSignature::new(SignatureBytes::from_bytes(signature))
            .with_message_digest(MessageDigest::new(digest.0, hashed));
        let content = SignatureContent::MessageSignature(message);
        check(logs, signed, MediaType::Bundle0_1, content, vec![entry], payload.into())
    })
}

/// Demands that a bundle's signature is logged, unless the log is ignored.
pub(super) fn check_bundle(
    trust: &LogTrust,
    signed: Signed<'_>,
    envelope: &Envelope,
    entries: &[Value],
    subject: &Digest,
) -> Result<(), Rejection> {
    with_logs(trust, |logs| {
        if entries.is_empty() {
            return Err(Rejection::LogEntryMissing);
        }
        // For envelopes sigstore-verify knows one hash for each type of key.
        match (signed.key.kind(), signed.scheme) {
            (KeyKind::EcdsaP256, Scheme::Ecdsa(HashAlgorithm::Sha256))
            | (KeyKind::EcdsaP384, Scheme::Ecdsa(HashAlgorithm::Sha384))
            | (KeyKind::Rsa, Scheme::RsaPkcs1(HashAlgorithm::Sha256))
            | (KeyKind::Ed25519, Scheme::Ed25519) => {}
            (kind, _) => return Err(Rejection::LogUnsupported(kind)),
        }
        let entries = entries.iter().map(bundle_entry).collect::<Result<Vec<_>, _>>()?;
        let signature =
            DsseSignature::new(SignatureBytes::from_bytes(&envelope.signature), Default::default());
        let payload = PayloadBytes::from_bytes(&envelope.payload);
        let content = SignatureContent::DsseEnvelope(DsseEnvelope::new(PAYLOAD_TYPE, payload, signature));
        let artifact = Sha256Hash::new(*subject.as_bytes()).into();
        check(logs, signed, MediaType::Bundle0_3, content, entries, artifact)
    })
}

fn with_logs(trust: &LogTrust, check: impl FnOnce(&Logs) -> Result<(), Rejection>) -> Result<(), Rejection> {
    match trust {
        LogTrust::Ignored => Ok(()),
        LogTrust::Required(logs) => check(logs),
    }
}

/// A verifier that believes these logs. Their windows are checked here.
fn verifier(logs: &Logs) -> Result<Verifier, Rejection> {
    let mut found = Vec::new();
    for log in logs.all() {
        let details = match log.key.kind() {
            KeyKind::EcdsaP256 => "PKIX_ECDSA_P256_SHA_256",
            KeyKind::EcdsaP384 => "PKIX_ECDSA_P384_SHA_384",
            KeyKind::Rsa => "PKIX_RSA_PKCS1V15_2048_SHA256",
            KeyKind::Ed25519 => "PKIX_ED25519",
            KeyKind::EcdsaP521 => return Err(Rejection::LogTrustUnusable),
        };
        found.push(json!({
            "baseUrl": "",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": STANDARD.encode(log.key.spki_der()),
                "keyDetails": details,
                "validFor": {"start": "1970-01-01T00:00:00Z"},
            },
            "logId": {"keyId": STANDARD.encode(&log.id)},
        }));
    }
    if found.is_empty() {
        return Err(Rejection::LogTrustUnusable);
    }
    let root = json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": found,
    });
    TrustedRoot::from_json(&root.to_string())
        .ok()
        .and_then(|root| Verifier::new(&root).ok())
        .ok_or(Rejection::LogTrustUnusable)
}

fn check(
    logs: &Logs,
    signed: Signed<'_>,
    media_type: MediaType,
    content: SignatureContent,
    entries: Vec<TransparencyLogEntry>,
    artifact: Artifact<'_>,
) -> Result<(), Rejection> {
    for entry in &entries {
        if entry.inclusion_promise.is_none() && entry.inclusion_proof.is_none() {
            return Err(Rejection::LogEntryUnproven);
        }
        let id = entry.log_id.key_id.as_bytes();
        let log = logs.all().iter().find(|log| log.id == id).ok_or(Rejection::LogUnknown)?;
        let time = entry.integrated_time.filter(|_| entry.inclusion_promise.is_some());
        if !log.window.holds(time.map_or(signed.now, SystemTime::from)) {
            return Err(Rejection::LogUnknown);
        }
        let hashes = entry.inclusion_proof.as_ref().map_or(0, |proof| proof.hashes.len());
        limit(Limited::ProofHashes, hashes, PROOF_LIMIT)?;
    }
    let hint = PublicKeyIdentifier::new(STANDARD.encode(signed.key.fingerprint().as_bytes()));
    let material = VerificationMaterial::new(VerificationMaterialContent::PublicKey(hint));
    let bundle = Bundle::new(media_type, material.with_tlog_entries(entries), content);
    let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(signed.key.spki_der()));
    let proven = verifier(logs)?.verify(artifact, &bundle, &policy).map_err(|error| rejection(&error))?;
    if !proven.tlog_verified() {
        return Err(Rejection::LogEntryUnproven);
    }
    let now = signed.now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if proven.verified_timestamps().iter().any(|time| time.as_second() > now) {
        return Err(Rejection::LogEntryInFuture);
    }
    Ok(())
}

/// The log entry of a layer's annotation, in the form of a bundle's entry.
fn layer_entry(annotation: &str) -> Result<TransparencyLogEntry, Rejection> {
    let bundle = json::parse(annotation.as_bytes()).map_err(|_| Rejection::LogEntryMalformed)?;
    let payload = json::field(&bundle, "Payload");
    let part = |name| payload.and_then(|payload| json::field(payload, name));
    let number = |name| part(name).and_then(Value::as_u64);
    let text = |name| part(name).and_then(Value::as_str);
    let entry = || {
        let log_id = hex::decode(text("logID")?).ok()?;
        Some(json!({
            "logIndex": number("logIndex")?.to_string(),
            "logId": {"keyId": STANDARD.encode(log_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
            "integratedTime": number("integratedTime")?.to_string(),
            "inclusionPromise": {
                "signedEntryTimestamp": json::field(&bundle, "SignedEntryTimestamp")?,
            },
            "canonicalizedBody": text("body")?,
        }))
    };
    bundle_entry(&entry().ok_or(Rejection::LogEntryMalformed)?)
}

/// Reads a bundle's entry, whose body must be of the kind that the entry says.
fn bundle_entry(entry: &Value) -> Result<TransparencyLogEntry, Rejection> {
    let entry: TransparencyLogEntry =
        serde_json::from_value(entry.clone()).map_err(|_| Rejection::LogEntryMalformed)?;
    let body = json::parse(entry.canonicalized_body.as_bytes()).map_err(|_| Rejection::LogEntryMalformed)?;
    let text = |name| json::field(&body, name).and_then(Value::as_str);
    let kind = (text("kind"), text("apiVersion"));
    if kind != (Some(entry.kind_version.kind()), Some(entry.kind_version.version())) {
        return Err(Rejection::LogEntryMalformed);
    }
    Ok(entry)
}

/// sigstore-verify's answer in our words. What is not about the log was verified before, so that a
/// disagreement about it is about what the entry says.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enums are open; what is not named denies as well")]
fn rejection(error: &Error) -> Rejection {
    let Error::TransparencyLog(error) = error else {
        return match error {
            Error::InvalidTrustRoot(_) | Error::TrustRoot(_) | Error::TrustedCertificate(_) => {
                Rejection::LogTrustUnusable
            }
            Error::Bundle(sigstore_verify::bundle::Error::MissingInclusionProof(_)) => {
                Rejection::LogEntryUnproven
            }
            Error::Bundle(_) => Rejection::LogProofInvalid,
            Error::UnsupportedBundle(_) | Error::Types(_) | Error::Crypto(_) => Rejection::LogEntryMalformed,
            _ => Rejection::LogEntryForeign,
        };
    };
    match error {
        TransparencyLogError::UnknownLog { .. } => Rejection::LogUnknown,
        TransparencyLogError::InclusionProof(_)
        | TransparencyLogError::Checkpoint(_)
        | TransparencyLogError::InclusionPromise(_) => Rejection::LogProofInvalid,
        TransparencyLogError::IntegratedTime(_) => Rejection::LogEntryInFuture,
        TransparencyLogError::MalformedEntry(_) => Rejection::LogEntryMalformed,
        TransparencyLogError::EntryMismatch(_) => Rejection::LogEntryForeign,
        // The enum is open; a cause that is not known yet is a proof that does not hold.
        _ => Rejection::LogProofInvalid,
    }
}

/// A tree of 2^64 leaves needs 64.
const PROOF_LIMIT: usize = 64;

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
