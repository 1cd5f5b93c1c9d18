//! Looks a signature up in a transparency log, for layers that do not carry their log entry.
//!
//! Old signers, and those with `--tlog-upload` at another place, leave the log's answer out of the
//! registry. Where a policy's attestor names a log (`rekor.url`) and the node allows it
//! (`trust.onlineRekor`), Rekor v1 is asked for the entry, and what it answers is attached as the
//! layer's bundle annotation: evidence like any other, which `sigstore` verifies afterwards. Nothing
//! that a log says is believed here.
//!
//! The question is the entry itself, proposed (`hashedrekord` for a signature, `dsse` for an
//! attestation): the log computes its hash and looks for that leaf, so that nobody can hide it by
//! logging more. Only if there is none, the log's search index is asked by hash, for entries of other
//! kinds (`rekord`, `intoto`).
//!
//! An answer without an entry is a definite nothing, and so is a refusal of the question (400, 422):
//! a log does not hold what it would not take. Everything else, and no answer, is
//! [`FaultReason::LogUnavailable`]: undecided, never absent. Bounds: one try, 10 s and 1 MiB an answer,
//! 32 entries read and 4 used, envelopes of 1 MiB sent (larger ones are asked for by hash), as many requests at once as to a registry. What was found is kept in
//! memory for ten minutes, at most 4 MiB: a log that signs with another key signs its old entries anew when it is
//! asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::{Answer, Call, Post, Step};
use super::{Client, RequestClass};
use crate::oci::Digest;
use crate::outcome::{Contact, Fault, FaultReason, Lookup};
use crate::sigstore::{PublicKey, SignatureEvidence};

/// A signature to look up.
#[derive(Debug, Clone, Copy)]
pub struct LogQuestion<'a> {
    /// The log, as a policy names it.
    pub url: &'a str,
    /// The signature or attestation.
    pub evidence: &'a SignatureEvidence,
    /// The signer's key; without it the certificate beside the signature.
    pub key: Option<&'a PublicKey>,
}

/// Entries that were found and when, by question.
#[derive(Default)]
pub(super) struct LogMemory(Mutex<HashMap<Digest, (Instant, Vec<String>)>>);

impl Client {
    /// The log entries of a layer, each as the value of its [`LOG_BUNDLE`] annotation.
    pub async fn log_entries(&self, question: LogQuestion<'_>) -> Lookup<Vec<String>> {
        let Some(asked) = Asked::of(&question) else {
            return Lookup::Absent;
        };
        if let Some(known) = self.log.recall(&asked.key, Instant::now()) {
            return Lookup::Found(known);
        }
        match self.ask_log(&asked).await {
            Ok(entries) if entries.is_empty() => Lookup::Absent,
            Ok(entries) => {
                self.log.keep(asked.key, &entries, Instant::now());
                Lookup::Found(entries)
            }
            Err(fault) => Lookup::Unreachable(unavailable(&question, &fault)),
        }
    }

    async fn ask_log(&self, asked: &Asked) -> Result<Vec<String>, Fault> {
        if let Some(proposed) = &asked.proposed {
            let proposed = json!({ "entries": [proposed] });
            let entries = asked.usable(self.retrieve(asked, &proposed).await?);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        let hash = json!({ "hash": asked.hash });
        let answer = self.post_log(asked, "api/v1/index/retrieve", &hash).await?;
        // Logs need not have a search index.
        let no_index = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED);
        if no_index || is_refusal(&answer) {
            return Ok(Vec::new());
        }
        let mut ids: Vec<String> = read(&answer)?;
        ids.truncate(QUERIES_LIMIT);
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(asked.usable(self.retrieve(asked, &json!({ "entryUUIDs": ids })).await?))
    }

    async fn retrieve(&self, asked: &Asked, body: &Value) -> Result<Vec<Entry>, Fault> {
        let answer = self.post_log(asked, "api/v1/log/entries/retrieve", body).await?;
        if is_refusal(&answer) {
            return Ok(Vec::new());
        }
        let found: Vec<BTreeMap<String, Entry>> = read(&answer)?;
        Ok(found.into_iter().flat_map(BTreeMap::into_values).take(ENTRIES_LIMIT).collect())
    }

    async fn post_log(&self, asked: &Asked, path: &str, body: &Value) -> Result<Answer, Fault> {
        let step = Step::new("transparency log");
        // No log is there.
        let odd = || Fault::unanswered(FaultReason::LogUnavailable, "its URL is not one");
        let url = Url::parse(&format!("{}/{path}", asked.url.trim_end_matches('/'))).map_err(|_| odd())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(odd());
        }
        let call = Call {
            class: RequestClass::Log,
            method: Method::POST,
            url,
            accept: "application/json",
            authorization: None,
            via: None,
            post: Some(Post { media_type: "application/json", body: body.to_string() }),
            limit: ANSWER_LIMIT,
        };
        match tokio::time::timeout(PATIENCE, self.transport.send_once(&step, &call)).await {
            Ok(answer) => answer,
            Err(_) => Err(step.fault(FaultReason::Timeout, "too slow")),
        }
    }
}

/// The question in the log's words.
struct Asked {
    url: String,
    /// None where it would be larger than is sent.
    proposed: Option<Value>,
    /// Of what is in the search index.
    hash: String,
    /// What an entry about this signature has in it.
    mark: Option<String>,
    key: Digest,
}

impl Asked {
    /// None where no log could have an entry: no signature, or no key to it.
    fn of(question: &LogQuestion<'_>) -> Option<Self> {
        let (bytes, annotations) = match question.evidence {
            SignatureEvidence::CosignLayer { payload, annotations } => (payload, annotations),
            SignatureEvidence::AttestationLayer { envelope, annotations } => (envelope, annotations),
            SignatureEvidence::Bundle { .. } => return None,
        };
        let pem = match (question.key, annotations.get(CERTIFICATE)) {
            (Some(key), _) => pem(key),
            (None, Some(certificate)) => certificate.clone(),
            (None, None) => return None,
        };
        let verifier = STANDARD.encode(pem);
        let hash = Digest::of(bytes);
        let (proposed, mark) = match question.evidence {
            SignatureEvidence::CosignLayer { .. } => {
                let signature = annotations.get(SIGNATURE).filter(|text| !text.is_empty())?;
                let data = json!({ "hash": { "algorithm": "sha256", "value": hash.hex() } });
                let signer = json!({ "content": signature, "publicKey": { "content": verifier } });
                let spec = json!({ "data": data, "signature": signer });
                let entry = json!({ "kind": "hashedrekord", "apiVersion": "0.0.1", "spec": spec });
                (Some(entry), Some(signature.clone()))
            }
            SignatureEvidence::AttestationLayer { .. } | SignatureEvidence::Bundle { .. } => {
                let envelope = std::str::from_utf8(bytes).ok()?;
                let entry = (envelope.len() <= PROPOSED_LIMIT).then(|| {
                    let content = json!({ "envelope": envelope, "verifiers": [verifier] });
                    let spec = json!({ "proposedContent": content });
                    json!({ "kind": "dsse", "apiVersion": "0.0.1", "spec": spec })
                });
                (entry, None)
            }
        };
        let mark_text = mark.as_deref().unwrap_or_default();
        let key = Digest::of(format!("{}\n{verifier}\n{hash}\n{mark_text}", question.url).as_bytes());
        Some(Self { url: question.url.to_owned(), proposed, hash: hash.to_string(), mark, key })
    }

    /// The entries that may be about this signature, as annotations.
    fn usable(&self, entries: Vec<Entry>) -> Vec<String> {
        let is_ours = |entry: &Entry| {
            let body = STANDARD.decode(&entry.body).unwrap_or_default();
            self.mark.as_ref().is_none_or(|mark| contains(&body, mark.as_bytes()))
        };
        entries.into_iter().filter(is_ours).filter_map(Entry::annotation).take(USED_LIMIT).collect()
    }
}

/// An entry in the log's answer; what it proves is not looked at here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    body: String,
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    log_index: i64,
    #[serde(default)]
    verification: Option<Verification>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    #[serde(default)]
    signed_entry_timestamp: Option<String>,
}

/// What cosign stores beside a signature, with its spelling.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Bundle {
    signed_entry_timestamp: String,
    payload: Payload,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

impl Entry {
    /// None without the log's signature: such an entry proves nothing in a layer.
    pub(super) fn annotation(self) -> Option<String> {
        let signed_entry_timestamp = self.verification?.signed_entry_timestamp?;
        let payload = Payload {
            body: self.body,
            integrated_time: self.integrated_time,
            log_index: self.log_index,
            log_id: self.log_id,
        };
        serde_json::to_string(&Bundle { signed_entry_timestamp, payload }).ok()
    }
}

impl LogMemory {
    fn recall(&self, key: &Digest, now: Instant) -> Option<Vec<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, entries) = known.get(key)?;
        (now.saturating_duration_since(*at) < KEPT).then(|| entries.clone())
    }

    fn keep(&self, key: Digest, entries: &[String], now: Instant) {
        let size = |entries: &[String]| entries.iter().map(String::len).sum::<usize>();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = known.values().map(|(_, entries)| size(entries)).sum();
        if kept + size(entries) > MEMORY_LIMIT {
            // They are also kept with the evidence; this only saves questions.
            known.clear();
        }
        known.insert(key, (now, entries.to_vec()));
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Fault> {
    let odd = || Fault::new(FaultReason::LogUnavailable, "");
    if !answer.status.is_success() {
        return Err(odd());
    }
    serde_json::from_slice(&answer.body).map_err(|_| odd())
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
}

/// In the words of a log, not of a registry. Somebody answered: the registry that gave the layer.
fn unavailable(question: &LogQuestion<'_>, fault: &Fault) -> Fault {
    let words = match (fault.reason, fault.contact) {
        (FaultReason::Timeout, _) => "does not answer in time",
        (_, Contact::None) => "cannot be reached",
        (_, Contact::Answered) => "gives no usable answer",
    };
    let url: String = question.url.chars().filter(|c| !c.is_control()).take(100).collect();
    Fault::new(FaultReason::LogUnavailable, format!("transparency log {url} {words}"))
}

fn pem(key: &PublicKey) -> String {
    let text = STANDARD.encode(key.spki_der());
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// The annotation of a layer that holds its log entry.
pub const LOG_BUNDLE: &str = "dev.sigstore.cosign/bundle";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// An entry is some kilobytes; an `intoto` one may carry its attestation along.
const ANSWER_LIMIT: usize = 1024 * 1024;
/// Of an envelope that is sent as a question; a larger one is asked for by its hash.
const PROPOSED_LIMIT: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
/// As many as are verified of a bundle.
const ENTRIES_LIMIT: usize = 32;
/// One a shard of the log is the rule.
const USED_LIMIT: usize = 4;
/// Rekor refuses more in one question.
const QUERIES_LIMIT: usize = 10;
const MEMORY_LIMIT: usize = 4 * 1024 * 1024;
/// How long an entry is not asked for again.
const KEPT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_asked_for_again_after_a_while() {
        let (memory, key, found) = (LogMemory::default(), Digest::of(b"x"), Instant::now());
        memory.keep(key, &["entry".to_owned()], found);
        for (later, known) in [(0, true), (599, true), (600, false)] {
            let entries = memory.recall(&key, found + Duration::from_secs(later));
            assert_eq!(entries.is_some(), known, "{later} s");
        }
    }
}
