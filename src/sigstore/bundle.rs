//! Sigstore bundles: versions 0.1, 0.2 and 0.3, with a key, a certificate or a chain, around a DSSE
//! envelope or a message signature.
//!
//! The key hint is not read: it is a claim. Fields that are not known are left alone; a bundle with two
//! contents, or two kinds of material, is refused. Numbers may be texts and `null` is absent, as in the
//! proto3 JSON mapping. The rules of each version on what proves a log entry are applied to every entry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::sigstore::certificate::Certificate;
use crate::sigstore::json;
use crate::sigstore::key::HashAlgorithm;
use crate::sigstore::log_entry::{Demand, Entry};
use crate::sigstore::material::{
    CERTIFICATE_LIST_LIMIT, Certificates, ENTRY_LIMIT, Envelope, INTERMEDIATE_LIMIT, Material, Message,
    limit, unreadable,
};
use crate::sigstore::rejection::{BundleField, Limited, Rejection};
use crate::sigstore::verify::SignatureForm;

/// How strictly the rules on certificate chains are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chains {
    /// As the specification has it: no root in a chain, and no chain in version 0.3.
    Specified,
    /// As they are found in registries: cosign can be told to write chains into version 0.3.
    Found,
}

/// Takes a bundle of at most `size` bytes apart.
pub(super) fn read(bytes: &[u8], size: usize, chains: Chains) -> Result<Material, Rejection> {
    limit(Limited::Bundle, bytes.len(), size)?;
    let bundle = json::parse(bytes).map_err(Rejection::BundleJson)?;
    let version = Version::of(&bundle).ok_or(Rejection::BundleMediaType)?;
    let material = json::field(&bundle, "verificationMaterial")
        .ok_or(Rejection::BundleField(BundleField::VerificationMaterial))?;
    let entries = list(material, "tlogEntries", BundleField::LogEntries)?;
    limit(Limited::LogEntries, entries.len(), ENTRY_LIMIT)?;
    let timestamps = match json::field(material, "timestampVerificationData") {
        Some(data) => list(data, "rfc3161Timestamps", BundleField::Timestamps)?,
        None => &[],
    };
    limit(Limited::Timestamps, timestamps.len(), ENTRY_LIMIT)?;
    let certificates = certificates(material, version, chains)?;
    let (message, signature) =
        match (json::field(&bundle, "dsseEnvelope"), json::field(&bundle, "messageSignature")) {
            (Some(found), None) => {
                let (envelope, signature) = envelope(found)?;
                (Message::Envelope(envelope), signature)
            }
            (None, Some(message)) => message_signature(message)?,
            (None, None) | (Some(_), Some(_)) => return Err(Rejection::BundleField(BundleField::Content)),
        };
    let demand = match version {
        Version::First => Demand::Promise,
        Version::Second | Version::Third => Demand::Proof,
    };
    Ok(Material {
        form: SignatureForm::Bundle,
        message,
        signature,
        certificates,
        entries: deferred(entries.iter().map(|entry| Entry::of_bundle(entry, demand)).collect())?,
        timestamps: timestamps.iter().map(timestamp).collect(),
    })
}

/// The envelope and its one signature.
pub(super) fn envelope(envelope: &Value) -> Result<(Envelope, Vec<u8>), Rejection> {
    let payload_type = json::field(envelope, "payloadType").and_then(Value::as_str);
    let payload_type = payload_type.ok_or(Rejection::EnvelopePayloadType)?.to_owned();
    let payload = bytes(envelope, "payload").ok_or(Rejection::BundleField(BundleField::Payload))?;
    let signatures = list(envelope, "signatures", BundleField::Signatures)?;
    let [signature] = signatures else {
        return Err(Rejection::EnvelopeSignatures { found: signatures.len() });
    };
    let signature = json::field(signature, "sig")
        .and_then(Value::as_str)
        .ok_or(Rejection::BundleField(BundleField::Signatures))?;
    let signature = STANDARD.decode(signature).map_err(|_| Rejection::SignatureEncoding)?;
    Ok((Envelope { payload_type, payload, stored: None }, signature))
}

/// Tells an exceeded limit at once, and anything else only to who looks.
pub(super) fn deferred<T>(read: Result<T, Rejection>) -> Result<Result<T, Rejection>, Rejection> {
    match read {
        Err(exceeded @ Rejection::LimitExceeded { .. }) => Err(exceeded),
        read => Ok(read),
    }
}

fn message_signature(message: &Value) -> Result<(Message, Vec<u8>), Rejection> {
    let signature = json::field(message, "signature")
        .and_then(Value::as_str)
        .ok_or(Rejection::BundleField(BundleField::Signatures))?;
    let signature = STANDARD.decode(signature).map_err(|_| Rejection::SignatureEncoding)?;
    let digest = match json::field(message, "messageDigest") {
        None => None,
        Some(digest) => {
            let algorithm =
                json::field(digest, "algorithm").and_then(Value::as_str).and_then(protobuf_algorithm);
            let digest = algorithm.zip(bytes(digest, "digest"));
            Some(digest.ok_or(Rejection::BundleField(BundleField::MessageDigest))?)
        }
    };
    Ok((Message::Artifact(digest), signature))
}

fn certificates(
    material: &Value,
    version: Version,
    chains: Chains,
) -> Result<Result<Certificates, Rejection>, Rejection> {
    let (key, single, chain) = (
        json::field(material, "publicKey"),
        json::field(material, "certificate"),
        json::field(material, "x509CertificateChain"),
    );
    match (key, single, chain) {
        (Some(key), None, None) if key.is_object() => Ok(Ok(Certificates::default())),
        (None, Some(single), None) => {
            Ok(certificate(single).and_then(|leaf| Certificates::new(Some(leaf), Vec::new())))
        }
        (None, None, Some(chain)) => {
            if version == Version::Third && chains == Chains::Specified {
                return Err(Rejection::BundleField(BundleField::Certificates));
            }
            let listed = list(chain, "certificates", BundleField::Certificates)?;
            if listed.len() > CERTIFICATE_LIST_LIMIT {
                let (what, limit) = (Limited::Intermediates, INTERMEDIATE_LIMIT);
                return Err(Rejection::LimitExceeded { what, limit });
            }
            if listed.is_empty() {
                return Err(Rejection::BundleField(BundleField::Certificates));
            }
            deferred(listed.iter().map(certificate).collect::<Result<Vec<_>, _>>().and_then(|mut others| {
                let leaf = others.remove(0);
                let rooted = others.iter().any(|found| found.is_authority() && found.self_issued());
                if rooted && chains == Chains::Specified {
                    return Err(Rejection::BundleField(BundleField::Certificates));
                }
                Certificates::new(Some(leaf), others)
            }))
        }
        _ => Err(Rejection::BundleField(BundleField::VerificationMaterial)),
    }
}

fn certificate(value: &Value) -> Result<Certificate, Rejection> {
    let der = bytes(value, "rawBytes").ok_or(Rejection::BundleField(BundleField::Certificates))?;
    Certificate::from_der(&der).map_err(unreadable)
}

fn timestamp(value: &Value) -> Result<Vec<u8>, Rejection> {
    bytes(value, "signedTimestamp").ok_or(Rejection::BundleField(BundleField::Timestamps))
}

/// A list; absent counts as empty, as in the proto3 JSON mapping.
fn list<'a>(parent: &'a Value, name: &str, field: BundleField) -> Result<&'a [Value], Rejection> {
    match json::field(parent, name) {
        None => Ok(&[]),
        Some(value) => value.as_array().map(Vec::as_slice).ok_or(Rejection::BundleField(field)),
    }
}

/// Bytes in base64.
fn bytes(parent: &Value, name: &str) -> Option<Vec<u8>> {
    STANDARD.decode(json::field(parent, name)?.as_str()?).ok()
}

/// A hash as sigstore's protobuf definitions name it.
pub(super) fn protobuf_algorithm(name: &str) -> Option<HashAlgorithm> {
    match name {
        "SHA2_256" => Some(HashAlgorithm::Sha256),
        "SHA2_384" => Some(HashAlgorithm::Sha384),
        "SHA2_512" => Some(HashAlgorithm::Sha512),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
    Third,
}

impl Version {
    fn of(bundle: &Value) -> Option<Self> {
        match json::field(bundle, "mediaType")?.as_str()? {
            "application/vnd.dev.sigstore.bundle+json;version=0.1" => Some(Self::First),
            "application/vnd.dev.sigstore.bundle+json;version=0.2" => Some(Self::Second),
            "application/vnd.dev.sigstore.bundle+json;version=0.3"
            | "application/vnd.dev.sigstore.bundle.v0.3+json" => Some(Self::Third),
            _ => None,
        }
    }
}

/// The payload type of an in-toto statement.
pub(super) const STATEMENT_PAYLOAD: &str = "application/vnd.in-toto+json";

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
