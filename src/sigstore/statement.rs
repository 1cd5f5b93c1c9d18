//! In-toto statements, version 0.1 and 1: what is said (the predicate) of which artifacts (the subjects).
//!
//! cosign 3 signs an image by a statement too: `{"_type":"https://in-toto.io/Statement/v1","subject":
//! [{"digest":{"sha256":".."},"annotations":{..}}],"predicateType":"https://sigstore.dev/cosign/sign/v1",
//! "predicate":{}}`. Only this predicate type is a signature: an SBOM by the same key does not vouch
//! for the image; and it is no attestation.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::oci::Digest;
use crate::sigstore::bundle::STATEMENT_PAYLOAD;
use crate::sigstore::cosign::strings;
use crate::sigstore::json::{self, JsonError};
use crate::sigstore::material::{Envelope, limit};
use crate::sigstore::rejection::{Limited, Rejection};

type Parse = fn(&[u8]) -> Result<Value, JsonError>;

/// A statement about the artifact that was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) predicate_type: String,
    /// `null` if there is none.
    pub(super) predicate: Value,
    /// The annotations of each subject that is the artifact; at least one.
    subjects: Vec<BTreeMap<String, String>>,
}

impl Statement {
    /// Reads an envelope whose signature holds; a subject must be the artifact.
    pub(super) fn read(envelope: &Envelope, artifact: &Digest) -> Result<Self, Rejection> {
        Self::read_as(envelope, artifact, json::parse_signed)
    }

    /// The same for an envelope by somebody else than the attestor: of it no more is read than of what
    /// anybody may store.
    pub(super) fn read_strangers(envelope: &Envelope, artifact: &Digest) -> Result<Self, Rejection> {
        Self::read_as(envelope, artifact, json::parse)
    }

    fn read_as(envelope: &Envelope, artifact: &Digest, parse: Parse) -> Result<Self, Rejection> {
        let mut statement = parse(&envelope.payload).map_err(Rejection::PayloadJson)?;
        let text = |name| json::field(&statement, name).and_then(Value::as_str);
        if !text("_type").is_some_and(|found| STATEMENT_TYPES.contains(&found)) {
            return Err(Rejection::StatementMalformed);
        }
        let predicate_type = text("predicateType").filter(|found| !found.is_empty());
        let predicate_type = predicate_type.ok_or(Rejection::StatementMalformed)?.to_owned();
        let listed = json::field(&statement, "subject")
            .and_then(Value::as_array)
            .ok_or(Rejection::StatementMalformed)?;
        limit(Limited::Subjects, listed.len(), SUBJECT_LIMIT)?;
        let wanted = artifact.hex();
        let mut subjects = Vec::new();
        for candidate in listed {
            let digests = json::field(candidate, "digest")
                .and_then(Value::as_object)
                .ok_or(Rejection::StatementMalformed)?;
            limit(Limited::SubjectDigests, digests.len(), SUBJECT_DIGEST_LIMIT)?;
            if digests.get("sha256").and_then(Value::as_str) == Some(&wanted) {
                subjects.push(match json::field(candidate, "annotations") {
                    None => BTreeMap::new(),
                    Some(Value::Object(pairs)) => strings(pairs),
                    Some(_) => return Err(Rejection::StatementMalformed),
                });
            }
        }
        if subjects.is_empty() {
            return Err(Rejection::SubjectMismatch);
        }
        let predicate = statement.get_mut("predicate").map(Value::take).unwrap_or_default();
        Ok(Self { predicate_type, predicate, subjects })
    }

    /// Whether what was signed is a statement at all, by the type that was signed along.
    pub(super) fn is_in(envelope: &Envelope) -> Result<(), Rejection> {
        if envelope.payload_type == STATEMENT_PAYLOAD { Ok(()) } else { Err(Rejection::EnvelopePayloadType) }
    }

    /// The predicate type that a payload claims, whether or not its signature holds.
    pub(super) fn claimed_type(envelope: &Envelope) -> Option<String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Claimed {
            predicate_type: String,
        }
        serde_json::from_slice(&envelope.payload).ok().map(|claimed: Claimed| claimed.predicate_type)
    }

    /// The annotations of the first subject that carries all of `wanted`.
    pub(super) fn annotations(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<&BTreeMap<String, String>, Rejection> {
        let mut first = None;
        for candidate in &self.subjects {
            match carries(candidate, wanted) {
                Ok(()) => return Ok(candidate),
                Err(rejection) => first = first.or(Some(rejection)),
            }
        }
        Err(first.unwrap_or(Rejection::SubjectMismatch))
    }
}

/// Each required pair is there, with equal text.
pub(super) fn carries(
    found: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    match wanted.iter().find(|(key, value)| found.get(*key) != Some(value)) {
        Some((key, _)) => Err(Rejection::AnnotationMismatch { key: key.clone() }),
        None => Ok(()),
    }
}

/// The predicate type of a cosign signature.
pub(super) const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// Limits of sigstore-go after CVE-2024-45395.
const SUBJECT_LIMIT: usize = 1024;
const SUBJECT_DIGEST_LIMIT: usize = 32;
