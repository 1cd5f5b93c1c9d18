//! The transparency log: was this very signature, by this very key, over this very payload, logged?
//!
//! At least one entry must be by a log to believe. Each entry by such a log must be proven, and about the
//! signature at hand: an entry of another artifact is genuine too (CVE-2022-36056, CVE-2026-22703), and
//! one that is not proven says nothing. Each proof that it carries must hold. Entries by other logs
//! count as not there: a signer may write to several.
//!
//! * A promise (Rekor v1) is the log's signature over the canonical JSON of body, time, log and index,
//!   by a key that was valid at that time. Only a promise proves a time (CVE-2026-48816), which must not be after `now`.
//!   A log that promises none has not seen what was signed after its key had ended.
//! * An inclusion proof leads from the body to the root of a checkpoint that the log signed. Rekor v1
//!   repeats index, size and root outside of the checkpoint, and its index there is that in the shard; of
//!   Rekor v2's only the checkpoint and the entry's own index are believed. Signatures of others on
//!   a checkpoint (witnesses) are not looked at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sigstore_merkle::{hash_leaf, verify_inclusion_proof};
use sigstore_types::Checkpoint;

use crate::sigstore::key::HashAlgorithm;
use crate::sigstore::log_body::{self, Logged};
use crate::sigstore::log_entry::{Entry, Kind, Proof};
use crate::sigstore::logs::{LogKey, Logs};
use crate::sigstore::rejection::Rejection;

/// When logs saw a signature.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The times that they promise; there may be none although it is logged.
    pub(super) times: Vec<SystemTime>,
    /// Of the logs that promise none, the last moment at which the one that ended first was believed.
    pub(super) ended: Option<SystemTime>,
}

/// Whether the signature is logged.
pub(super) fn verify(
    entries: &[Entry],
    logs: &Logs,
    logged: &Logged<'_>,
    now: SystemTime,
) -> Result<Seen, Rejection> {
    if entries.is_empty() {
        return Err(Rejection::LogEntryMissing);
    }
    let known: Vec<_> = entries.iter().filter_map(|entry| Some((entry, log_of(entry, logs)?))).collect();
    if known.is_empty() {
        return Err(Rejection::LogUnknown);
    }
    let mut seen = Seen::default();
    for (entry, log) in known {
        match proven(entry, log, now)? {
            Some(time) => seen.times.push(time),
            None => seen.ended = [seen.ended, log.window.end].into_iter().flatten().min(),
        }
        log_body::compare(entry, logged)?;
    }
    Ok(seen)
}

/// Whether the log has the entry; the time that it promises.
pub(super) fn proven(entry: &Entry, log: &LogKey, now: SystemTime) -> Result<Option<SystemTime>, Rejection> {
    if entry.promise.is_none() && entry.proof.is_none() {
        return Err(Rejection::LogEntryUnproven);
    }
    if let Some(proof) = &entry.proof {
        // Without a time of its own, an entry of an expired key counts, unless another time is later.
        if log.window.start.is_some_and(|start| now < start) {
            return Err(Rejection::LogUnknown);
        }
        included(entry, proof, log)?;
    }
    match &entry.promise {
        Some(promise) => promised(entry, promise, log, now).map(Some),
        None => Ok(None),
    }
}

/// The log that an entry names. A log of which only the key is known has two ids: Rekor v1's, and the one
/// that follows from the name in a checkpoint.
pub(super) fn log_of<'a>(entry: &Entry, logs: &'a Logs) -> Option<&'a LogKey> {
    let origin = entry.proof.as_ref().map(|proof| proof.checkpoint.origin());
    logs.all().iter().find(|log| {
        log.id == entry.log
            || log.origin.is_none()
                && origin.and_then(|origin| log.note_id(origin)) == Some(entry.log.clone())
    })
}

fn promised(entry: &Entry, promise: &[u8], log: &LogKey, now: SystemTime) -> Result<SystemTime, Rejection> {
    if entry.kind == Kind::HashedRekordV2 || entry.integrated == 0 {
        return Err(Rejection::LogEntryMalformed);
    }
    let time =
        UNIX_EPOCH.checked_add(Duration::from_secs(entry.integrated)).ok_or(Rejection::LogEntryMalformed)?;
    if !log.window.holds(time) {
        return Err(Rejection::LogUnknown);
    }
    // RFC 8785: keys in code point order, no blanks; neither base64 nor hex needs an escape.
    let promised = format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
        STANDARD.encode(&entry.body),
        entry.integrated,
        hex::encode(&entry.log),
        entry.index
    );
    if log.key.verify(promised.as_bytes(), promise, HashAlgorithm::Sha256).is_none() {
        return Err(Rejection::LogProofInvalid);
    }
    if time > now {
        return Err(Rejection::LogEntryInFuture);
    }
    Ok(time)
}

fn included(entry: &Entry, proof: &Proof, log: &LogKey) -> Result<(), Rejection> {
    let checkpoint = &proof.checkpoint;
    let (index, size) = if entry.kind == Kind::HashedRekordV2 {
        if log.origin.as_deref().is_some_and(|origin| origin != checkpoint.origin()) {
            return Err(Rejection::LogProofInvalid);
        }
        (entry.index, checkpoint.tree_size())
    } else {
        if proof.root.as_ref() != Some(checkpoint.root_hash()) {
            return Err(Rejection::LogProofInvalid);
        }
        (proof.index, proof.size)
    };
    let leaf = hash_leaf(&entry.body);
    verify_inclusion_proof(&leaf, index, size, &proof.hashes, checkpoint.root_hash())
        .map_err(|_| Rejection::LogProofInvalid)?;
    if signed_by(checkpoint, &entry.log, log) { Ok(()) } else { Err(Rejection::LogProofInvalid) }
}

/// Whether the log signed the checkpoint. Which signature is the log's is said by the first bytes of its
/// id; others may have the same ones.
pub(super) fn signed_by(checkpoint: &Checkpoint, id: &[u8], log: &LogKey) -> bool {
    checkpoint.signatures().iter().filter(|signature| id.starts_with(signature.key_id.as_bytes())).any(
        |found| {
            let signature = found.signature.as_bytes();
            log.key.verify(checkpoint.signed_data(), signature, HashAlgorithm::Sha256).is_some()
        },
    )
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
