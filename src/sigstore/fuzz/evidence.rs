//! Signatures and attestations as registries serve them, and what they say.

#![expect(clippy::indexing_slicing, reason = "of JSON it is `null` for what is not there")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{TRUST, cosign_image, image, is_genuine, now};
use crate::sigstore::bundle::{self, Chains, STATEMENT_PAYLOAD};
use crate::sigstore::cosign;
use crate::sigstore::json::{self as strict, JsonError};
use crate::sigstore::material::{ATTESTATION_LIMIT, Envelope};
use crate::sigstore::statement::Statement;
use crate::sigstore::{Artifact, SignatureEvidence, verify_artifact, verify_signature, verify_statement};

/// What message signatures among the seeds are over.
pub(super) const ARTIFACT: &[u8] = b"an artifact";

/// A Sigstore bundle.
pub(crate) fn bundle(data: &[u8]) -> Option<()> {
    let read = |bytes: &[u8], chains| bundle::read(bytes, ATTESTATION_LIMIT, chains);
    let material = format!("{:?}", read(data, Chains::Found).ok()?);
    if let Ok(strict) = read(data, Chains::Specified) {
        assert_eq!(format!("{strict:?}"), material, "more is read where less is allowed");
    }
    let parsed: Value = serde_json::from_slice(data).expect("what was read strictly is JSON");
    let again = read(parsed.to_string().as_bytes(), Chains::Found).expect("the same JSON");
    assert_eq!(format!("{again:?}"), material, "the same JSON reads differently");

    let envelope = Some(&parsed["dsseEnvelope"]).filter(|envelope| !envelope.is_null());
    let message = envelope.map_or_else(|| ARTIFACT.to_vec(), signed_bytes);
    let evidence = SignatureEvidence::Bundle { json: data.to_vec() };
    let of_image = verified(&evidence, &message);
    let of_artifact = |artifact| {
        let by = |attestor| verify_artifact(data, &artifact, attestor, now()).is_ok();
        TRUST.attestors.iter().any(by)
    };
    let any = [Artifact::Bytes(ARTIFACT), Artifact::Digest(image())].map(of_artifact).contains(&true);
    assert!(!any || is_genuine(&message), "verifies, and nobody signed it");
    of_image.or(any.then_some(()))
}

/// A `.sig` layer: payload, signature, log entry, certificate, chain and timestamp, with 0xff between.
pub(crate) fn signature(data: &[u8]) -> Option<()> {
    let (payload, annotations) = layer(data, &SIGNATURE_ANNOTATIONS)?;
    let message = payload.clone();
    cosign::signature_layer(&payload, &annotations).ok()?;
    verified(&SignatureEvidence::CosignLayer { payload, annotations }, &message)
}

/// An `.att` layer: envelope, log entry, certificate, chain and timestamp, with 0xff between.
pub(crate) fn attestation(data: &[u8]) -> Option<()> {
    let (envelope, annotations) = layer(data, &SIGNATURE_ANNOTATIONS[1..])?;
    cosign::attestation_layer(&envelope, &annotations).ok()?;
    let message = signed_bytes(&serde_json::from_slice(&envelope).expect("what was read strictly is JSON"));
    verified(&SignatureEvidence::AttestationLayer { envelope, annotations }, &message)
}

/// A simple-signing payload.
pub(crate) fn simple_signing(data: &[u8]) -> Option<()> {
    let claim = cosign::claim(data).ok()?;
    let parsed: Value = serde_json::from_slice(data).expect("what was read strictly is JSON");
    assert_eq!(
        cosign::claim(parsed.to_string().as_bytes()).as_ref(),
        Ok(&claim),
        "the same JSON reads differently"
    );
    assert_eq!(parsed["critical"]["image"]["docker-manifest-digest"], claim.digest.to_string());
    for (key, value) in &claim.annotations {
        assert_eq!(parsed["optional"][key], *value);
    }
    Some(())
}

/// An in-toto statement.
pub(crate) fn statement(data: &[u8]) -> Option<()> {
    let read = |payload: &[u8]| {
        let payload_type = STATEMENT_PAYLOAD.to_owned();
        Statement::read(&Envelope { payload_type, payload: payload.to_vec(), stored: None }, &image())
    };
    let statement = read(data).ok()?;
    let parsed: Value = serde_json::from_slice(data).expect("what was read strictly is JSON");
    assert_eq!(statement.predicate_type, parsed["predicateType"].as_str().unwrap_or_default());
    assert_eq!(statement.predicate, parsed["predicate"]);
    let names_it = |subject: &Value| subject["digest"]["sha256"] == image().hex();
    assert!(parsed["subject"].as_array().is_some_and(|list| list.iter().any(names_it)), "of another image");
    assert!(statement.annotations(&[].into()).is_ok());
    Some(())
}

/// Any JSON.
pub(crate) fn json(data: &[u8]) -> Option<()> {
    let lenient = serde_json::from_slice::<Value>(data).ok();
    match strict::parse(data) {
        Ok(value) => assert_eq!(Some(value), lenient, "read differently than by serde_json"),
        Err(JsonError::Malformed) => {
            assert_eq!(lenient, None, "serde_json reads it");
            return None;
        }
        Err(JsonError::RepeatedKey | JsonError::Respelt | JsonError::TooManyValues { .. }) => return None,
    }
    Some(())
}

/// Whether anyone verifies it, as a signature or as an attestation.
fn verified(evidence: &SignatureEvidence, message: &[u8]) -> Option<()> {
    let by = |attestor| {
        [image(), cosign_image()].iter().any(|image| {
            verify_signature(evidence, image, attestor, now()).is_ok()
                || verify_statement(evidence, image, attestor, now()).is_ok()
        })
    };
    let verified = TRUST.attestors.iter().any(by);
    assert!(!verified || is_genuine(message), "verifies, and nobody signed it");
    verified.then_some(())
}

/// The pre-authentication encoding of an envelope, as DSSE 1.0 has it.
pub(super) fn signed_bytes(envelope: &Value) -> Vec<u8> {
    let text = |name: &str| envelope[name].as_str().expect("a text, as it was read").to_owned();
    let (kind, payload) = (text("payloadType"), STANDARD.decode(text("payload")).expect("as it was read"));
    [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes(), payload].concat()
}

/// The layer and its annotations; empty ones are left out.
fn layer(data: &[u8], names: &[&str]) -> Option<(Vec<u8>, BTreeMap<String, String>)> {
    let mut parts = data.split(|byte| *byte == 0xff);
    let layer = parts.next()?.to_vec();
    let mut annotations = BTreeMap::new();
    for (name, part) in names.iter().zip(parts) {
        let text = str::from_utf8(part).ok()?;
        if !text.is_empty() {
            annotations.insert((*name).to_owned(), text.to_owned());
        }
    }
    Some((layer, annotations))
}

pub(super) const SIGNATURE_ANNOTATIONS: [&str; 5] = [
    "dev.cosignproject.cosign/signature",
    "dev.sigstore.cosign/bundle",
    "dev.sigstore.cosign/certificate",
    "dev.sigstore.cosign/chain",
    "dev.sigstore.cosign/rfc3161timestamp",
];
