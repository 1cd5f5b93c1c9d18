//! The simple-signing payload of a cosign `.sig` layer, and the layer's annotations.
//!
//! ```json
//! {"critical":{"identity":{"docker-reference":"registry/name"},
//!              "image":{"docker-manifest-digest":"sha256:.."},
//!              "type":"cosign container image signature"},
//!  "optional":null}
//! ```
//!
//! The signature is over the exact bytes of the layer, which are never written anew. `docker-reference`
//! is free text of the signer and is not checked, as in cosign: the digest is what is signed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::oci::Digest;
use crate::sigstore::json;
use crate::sigstore::rejection::{Limited, Rejection};

/// The annotation with the base64 signature.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The annotation with the log entry, a JSON object.
pub(super) const LOG_BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// `critical.type`.
const CLAIM_TYPE: &str = "cosign container image signature";
/// The limit for payloads and for the log annotation.
pub(super) const PAYLOAD_LIMIT: usize = 1 << 20;
/// RSA-8192 needs 1368 characters.
const SIGNATURE_LIMIT: usize = 16 << 10;

/// What a signer says in a payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) digest: Digest,
    /// The pairs of `optional` whose value is a string.
    pub(super) annotations: BTreeMap<String, String>,
}

/// The signature of a layer, after the limits on everything in the layer that will be read.
pub(super) fn signature(
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Rejection> {
    limit(Limited::Payload, payload.len(), PAYLOAD_LIMIT)?;
    limit(Limited::LogAnnotation, annotations.get(LOG_BUNDLE).map_or(0, String::len), PAYLOAD_LIMIT)?;
    // A layer of an attestation has the annotation, but empty.
    let text =
        annotations.get(SIGNATURE).filter(|text| !text.is_empty()).ok_or(Rejection::SignatureMissing)?;
    limit(Limited::Signature, text.len(), SIGNATURE_LIMIT)?;
    STANDARD.decode(text).map_err(|_| Rejection::SignatureEncoding)
}

/// Reads a payload whose signature holds.
pub(super) fn claim(payload: &[u8]) -> Result<Claim, Rejection> {
    let claim = json::parse(payload).map_err(Rejection::PayloadJson)?;
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

/// Refuses what is more than `limit`.
pub(super) const fn limit(what: Limited, size: usize, limit: usize) -> Result<(), Rejection> {
    if size > limit { Err(Rejection::LimitExceeded { what, limit }) } else { Ok(()) }
}
