//! The in-toto statement in a bundle that is a signature.
//!
//! cosign 3 signs `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":".."},
//! "annotations":{..}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`. Only
//! this predicate type is a signature: an SBOM by the same key does not vouch for the image.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::oci::Digest;
use crate::sigstore::cosign::{limit, strings};
use crate::sigstore::json;
use crate::sigstore::rejection::{Limited, Rejection, SIGNATURE_PREDICATE};

/// Statement types of in-toto.
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// Limits of sigstore-go after CVE-2024-45395.
const SUBJECT_LIMIT: usize = 1024;
const SUBJECT_DIGEST_LIMIT: usize = 32;

/// Reads a statement whose signature holds: the annotations of each subject that is the image,
/// one map a subject. Empty where the statement is about other images only.
pub(super) fn signed_annotations(
    payload: &[u8],
    subject: &Digest,
) -> Result<Vec<BTreeMap<String, String>>, Rejection> {
    let statement = json::parse(payload).map_err(Rejection::PayloadJson)?;
    let text = |name| json::field(&statement, name).and_then(Value::as_str);
    if !text("_type").is_some_and(|found| STATEMENT_TYPES.contains(&found)) {
        return Err(Rejection::StatementMalformed);
    }
    match text("predicateType") {
        Some(SIGNATURE_PREDICATE) => {}
        Some(_) => return Err(Rejection::PredicateType),
        None => return Err(Rejection::StatementMalformed),
    }
    let subjects =
        json::field(&statement, "subject").and_then(Value::as_array).ok_or(Rejection::StatementMalformed)?;
    limit(Limited::Subjects, subjects.len(), SUBJECT_LIMIT)?;
    let wanted = subject.hex();
    let mut found = Vec::new();
    for candidate in subjects {
        let digests = json::field(candidate, "digest")
            .and_then(Value::as_object)
            .ok_or(Rejection::StatementMalformed)?;
        limit(Limited::SubjectDigests, digests.len(), SUBJECT_DIGEST_LIMIT)?;
        if digests.get("sha256").and_then(Value::as_str) == Some(&wanted) {
            found.push(match json::field(candidate, "annotations") {
                None => BTreeMap::new(),
                Some(Value::Object(pairs)) => strings(pairs),
                Some(_) => return Err(Rejection::StatementMalformed),
            });
        }
    }
    Ok(found)
}
