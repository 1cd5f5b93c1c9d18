//! cosign's layers: `.sig` with a simple-signing payload, `.att` with a DSSE envelope, and their
//! annotations.
//!
//! ```json
//! {"critical":{"identity":{"docker-reference":"registry/name"},
//!              "image":{"docker-manifest-digest":"sha256:.."},
//!              "type":"cosign container image signature"},
//!  "optional":null}
//! ```
//!
//! The signature is over the exact bytes of the layer, which are never written anew; that of an
//! envelope is in the envelope. `docker-reference` is free text of the signer and is not checked, as in
//! cosign: the digest is what is signed. An annotation that is there but empty counts as not there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::oci::{Digest, Repository};
use crate::sigstore::bundle::{self, deferred};
use crate::sigstore::certificate::Certificate;
use crate::sigstore::json;
use crate::sigstore::log_entry::Entry;
use crate::sigstore::material::{
    ATTESTATION_LIMIT, CERTIFICATE_LIST_LIMIT, Certificates, Envelope, Material, Message, PAYLOAD_LIMIT,
    limit, unreadable,
};
use crate::sigstore::rejection::{Limited, Rejection};
use crate::sigstore::verify::SignatureForm;

/// The payload that cosign signs for an image in `repository` where it is told no annotations. Nearly all
/// are this one, so who knows the digest of a payload need not fetch it (`payload.Cosign` of sigstore/sigstore).
#[must_use]
pub fn standard_payload(repository: &Repository, image: &Digest) -> Vec<u8> {
    // As go-containerregistry names Docker Hub.
    let host = if repository.host() == "docker.io" { "index.docker.io" } else { repository.host() };
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{host}/{}"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        repository.path()
    )
    .into_bytes()
}

/// What a signer says in a payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) digest: Digest,
    /// The pairs of `optional` whose value is a string.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Takes a `.sig` layer apart.
pub(super) fn signature_layer(
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
) -> Result<Material, Rejection> {
    limit(Limited::Payload, payload.len(), PAYLOAD_LIMIT)?;
    let text = annotation(annotations, SIGNATURE).ok_or(Rejection::SignatureMissing)?;
    limit(Limited::Signature, text.len(), SIGNATURE_LIMIT)?;
    let signature = STANDARD.decode(text).map_err(|_| Rejection::SignatureEncoding)?;
    material(annotations, Message::Claim(payload.to_vec()), signature)
}

/// Takes an `.att` layer apart.
pub(super) fn attestation_layer(
    envelope: &[u8],
    annotations: &BTreeMap<String, String>,
) -> Result<Material, Rejection> {
    limit(Limited::Attestation, envelope.len(), ATTESTATION_LIMIT)?;
    let parsed = json::parse(envelope).map_err(Rejection::EnvelopeJson)?;
    let (parts, signature) = bundle::envelope(&parsed)?;
    let message = Message::Envelope(Envelope { stored: Some(envelope.to_vec()), ..parts });
    material(annotations, message, signature)
}

/// Reads a payload whose signature holds.
pub(super) fn claim(payload: &[u8]) -> Result<Claim, Rejection> {
    let claim = json::parse_signed(payload).map_err(Rejection::PayloadJson)?;
    if claim.pointer("/critical/type").and_then(Value::as_str) != Some(CLAIM_TYPE) {
        return Err(Rejection::PayloadType);
    }
    let digest = claim
        .pointer("/critical/image/docker-manifest-digest")
        .and_then(Value::as_str)
        .and_then(|digest| digest.parse().ok())
        .ok_or(Rejection::ClaimWithoutDigest)?;
    let annotations = match json::field(&claim, "optional") {
        None => BTreeMap::new(),
        Some(Value::Object(pairs)) => strings(pairs),
        Some(_) => return Err(Rejection::PayloadType),
    };
    Ok(Claim { digest, annotations })
}

/// The pairs with a string as their value. Others cannot equal what a policy wants, which is a string.
pub(super) fn strings(pairs: &serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    pairs.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn material(
    annotations: &BTreeMap<String, String>,
    message: Message,
    signature: Vec<u8>,
) -> Result<Material, Rejection> {
    let read = [
        (LOG_BUNDLE, Limited::LogAnnotation),
        (CERTIFICATE, Limited::CertificateAnnotation),
        (CHAIN, Limited::CertificateAnnotation),
        (TIMESTAMP, Limited::TimestampAnnotation),
    ];
    for (name, what) in read {
        limit(what, annotations.get(name).map_or(0, String::len), PAYLOAD_LIMIT)?;
    }
    let entries: Result<Vec<_>, _> =
        annotation(annotations, LOG_BUNDLE).map(Entry::of_layer).into_iter().collect();
    let timestamps = annotation(annotations, TIMESTAMP).map(timestamp).into_iter().collect();
    Ok(Material {
        form: SignatureForm::CosignLayer,
        message,
        signature,
        certificates: deferred(certificates(annotations))?,
        entries: deferred(entries)?,
        timestamps,
    })
}

fn certificates(annotations: &BTreeMap<String, String>) -> Result<Certificates, Rejection> {
    let list = |name| match annotation(annotations, name) {
        Some(pem) => Certificate::list_from_pem(pem, CERTIFICATE_LIST_LIMIT).map_err(unreadable),
        None => Ok(Vec::new()),
    };
    // As in cosign, the first certificate is the signer's.
    Certificates::new(list(CERTIFICATE)?.into_iter().next(), list(CHAIN)?)
}

/// The token in `{"SignedRFC3161Timestamp":"<base64>"}`.
fn timestamp(annotation: &str) -> Result<Vec<u8>, Rejection> {
    let parsed = json::parse(annotation.as_bytes()).map_err(|_| Rejection::TimestampMalformed)?;
    json::field(&parsed, "SignedRFC3161Timestamp")
        .and_then(Value::as_str)
        .and_then(|token| STANDARD.decode(token).ok())
        .ok_or(Rejection::TimestampMalformed)
}

fn annotation<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    annotations.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// The annotation with the base64 signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The annotation with the log entry, a JSON object.
const LOG_BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// The annotation with the signer's certificate, PEM.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// The annotation with the certificates from the signer's issuer to the root, PEM.
const CHAIN: &str = "dev.sigstore.cosign/chain";
/// The annotation with an RFC 3161 response, a JSON object.
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// `critical.type`.
const CLAIM_TYPE: &str = "cosign container image signature";
/// RSA-8192 needs 1368 characters.
const SIGNATURE_LIMIT: usize = 16 << 10;
