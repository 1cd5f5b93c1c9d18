//! Sigstore bundles v0.3 that are signed with a key, as cosign 3 attaches them to an image.
//!
//! Taken from a bundle: one DSSE envelope with one signature, and the raw log entries. Not taken: the
//! key hint, which is a claim, and timestamps, since a key of a policy has no validity that a time
//! could fall into. Fields that are not known are left alone; a bundle with two contents is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::sigstore::cosign::limit;
use crate::sigstore::json;
use crate::sigstore::rejection::{BundleField, Limited, Rejection};

/// A bundle's parts, none of them verified.
#[derive(Debug)]
pub(super) struct KeyBundle {
    pub(super) envelope: Envelope,
    pub(super) log_entries: Vec<Value>,
}

/// A DSSE envelope with its one signature.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl KeyBundle {
    /// Takes a bundle apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        limit(Limited::Bundle, bytes.len(), BUNDLE_LIMIT)?;
        let bundle = json::parse(bytes).map_err(Rejection::BundleJson)?;
        let media_type = json::field(&bundle, "mediaType").and_then(Value::as_str);
        if !media_type.is_some_and(|found| MEDIA_TYPES.contains(&found)) {
            return Err(Rejection::BundleMediaType);
        }
        let material = object(&bundle, "verificationMaterial", BundleField::VerificationMaterial)?;
        let log_entries = list(material, "tlogEntries", BundleField::LogEntries)?;
        limit(Limited::LogEntries, log_entries.len(), ENTRY_LIMIT)?;
        if let Some(data) = json::field(material, "timestampVerificationData") {
            let timestamps = list(data, "rfc3161Timestamps", BundleField::Timestamps)?;
            limit(Limited::Timestamps, timestamps.len(), ENTRY_LIMIT)?;
        }
        let has = |name| json::field(material, name).is_some();
        if has("certificate") || has("x509CertificateChain") {
            return Err(Rejection::CertificateBundle);
        }
        object(material, "publicKey", BundleField::VerificationMaterial)?;
        let envelope = match (json::field(&bundle, "dsseEnvelope"), json::field(&bundle, "messageSignature"))
        {
            (Some(envelope), None) => Envelope::parse(envelope)?,
            (None, Some(_)) => return Err(Rejection::MessageSignature),
            (None, None) | (Some(_), Some(_)) => return Err(Rejection::BundleField(BundleField::Content)),
        };
        Ok(Self { envelope, log_entries: log_entries.to_vec() })
    }
}

impl Envelope {
    fn parse(envelope: &Value) -> Result<Self, Rejection> {
        if json::field(envelope, "payloadType").and_then(Value::as_str) != Some(PAYLOAD_TYPE) {
            return Err(Rejection::EnvelopePayloadType);
        }
        let payload = json::field(envelope, "payload")
            .and_then(Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(Rejection::BundleField(BundleField::Payload))?;
        let signatures = list(envelope, "signatures", BundleField::Signatures)?;
        let [signature] = signatures else {
            return Err(Rejection::EnvelopeSignatures { found: signatures.len() });
        };
        let signature = json::field(signature, "sig")
            .and_then(Value::as_str)
            .ok_or(Rejection::BundleField(BundleField::Signatures))?;
        let signature = STANDARD.decode(signature).map_err(|_| Rejection::SignatureEncoding)?;
        Ok(Self { payload, signature })
    }

    /// The pre-authentication encoding: what the signature is over (DSSE 1.0).
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len()).into_bytes();
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

fn object<'a>(parent: &'a Value, name: &str, field: BundleField) -> Result<&'a Value, Rejection> {
    json::field(parent, name).filter(|value| value.is_object()).ok_or(Rejection::BundleField(field))
}

/// A list; absent counts as empty, as in the proto3 JSON mapping.
fn list<'a>(parent: &'a Value, name: &str, field: BundleField) -> Result<&'a [Value], Rejection> {
    match json::field(parent, name) {
        None => Ok(&[]),
        Some(value) => value.as_array().map(Vec::as_slice).ok_or(Rejection::BundleField(field)),
    }
}

/// The payload type of an in-toto statement.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Both spellings of version 0.3; cosign writes no older one to a registry.
const MEDIA_TYPES: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
const BUNDLE_LIMIT: usize = 1 << 20;
/// Limit of sigstore-go after CVE-2024-45395, for log entries and for timestamps.
const ENTRY_LIMIT: usize = 32;
