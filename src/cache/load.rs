//! Records on their way from the disk into memory, and all of them on their way back.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::export::WriteRecord;
use super::memory::State;
use super::record::{Admission, EvidenceRecord, Kind, TagRecord, VerdictRecord, decode, encode, image_key};
use super::{Durability, Shared};
use crate::oci::{Digest, Repository};

/// Takes one record in; whether it checks out. What was written since the start is newer and stays.
pub(super) fn take_in(shared: &Shared, key: &[u8], sealed: &[u8]) -> bool {
    let taken = try_take_in(shared, key, sealed).is_some();
    if !taken {
        tracing::warn!("a cache record does not check out and is dropped");
    }
    taken
}

/// `None` if the record is not one.
fn try_take_in(shared: &Shared, key: &[u8], sealed: &[u8]) -> Option<()> {
    let rest = key.get(1..).unwrap_or_default();
    let lock = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    match Kind::of(key) {
        Some(Kind::Verdict) => {
            let record: VerdictRecord = decode(key, sealed)?;
            let hash = record.key.hash();
            if rest != hash.as_bytes() {
                return None;
            }
            let mut state = lock();
            let used = state.used_on_disk(record.at);
            let verdict = state.verdict(&record, used);
            state.verdicts.entry(hash).or_insert(verdict);
        }
        Some(Kind::Admission) => {
            let record: Admission = decode(key, sealed)?;
            if rest != image_key(&record.repository, &record.digest).as_bytes() {
                return None;
            }
            let mut state = lock();
            let image = state.image(&record.repository, record.digest);
            let used = state.used_on_disk(record.at);
            let admitted = state.admitted(&record, Durability::Durable, used);
            state.admissions.entry(image).or_insert(admitted);
        }
        Some(Kind::Evidence) => {
            let record: EvidenceRecord = decode(key, sealed)?;
            let (repository, digest) = std::str::from_utf8(rest).ok()?.rsplit_once('@')?;
            let (repository, digest): (_, Digest) =
                (Repository::from_key(repository).ok()?, digest.parse().ok()?);
            let mut state = lock();
            let image = state.image(&repository, digest);
            if !state.evidence.contains_key(&image) {
                let used = state.used_on_disk(record.at);
                state.keep_evidence(image, &record, used);
            }
        }
        Some(Kind::Tag) => {
            let record: TagRecord = decode(key, sealed)?;
            let name = String::from_utf8(rest.to_vec()).ok()?;
            lock().tags.entry(name).or_insert(record);
        }
        Some(Kind::Blob) | None => {}
    }
    Some(())
}

/// Writes every record that outlives the process, sealed as in the database.
///
/// The lock is given back every few records. What changes meanwhile may be missed or written twice;
/// the thread that calls this hears of each change afterwards, and makes the next export for it.
pub(super) fn write_all(memory: &Mutex<State>, write: WriteRecord<'_>) -> io::Result<()> {
    let mut at = 0;
    loop {
        let records = {
            let state = memory.lock().unwrap_or_else(PoisonError::into_inner);
            some_records(&state, at)
        };
        let Some(records) = records else { return Ok(()) };
        for (key, sealed) in records {
            write(&key, &sealed)?;
        }
        at += SOME;
    }
}

/// Some records from each map, from `at` on; `None` at the end of all.
fn some_records(state: &State, at: usize) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let longest = state.verdicts.len().max(state.admissions.len()).max(state.evidence.len());
    if at >= longest.max(state.tags.len()) {
        return None;
    }
    let mut records = Vec::new();
    for (hash, verdict) in state.verdicts.iter().skip(at).take(SOME) {
        records.extend(sealed(Kind::Verdict, hash.as_bytes(), &verdict.record()));
    }
    for (image, admitted) in state.admissions.iter().skip(at).take(SOME) {
        if admitted.is_durable() {
            let key = image_key(&image.repository, &image.digest);
            records.extend(sealed(Kind::Admission, key.as_bytes(), &admitted.record(image)));
        }
    }
    for (image, evidence) in state.evidence.iter().skip(at).take(SOME) {
        let key = image_key(&image.repository, &image.digest);
        records.extend(sealed(Kind::Evidence, key.as_bytes(), &evidence.record(state)));
    }
    for (name, tag) in state.tags.iter().skip(at).take(SOME) {
        records.extend(sealed(Kind::Tag, name.as_bytes(), tag));
    }
    Some(records)
}

fn sealed<T: serde::Serialize>(kind: Kind, rest: &[u8], record: &T) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = kind.key(rest);
    let sealed = encode(&key, record)?;
    Some((key, sealed))
}

/// Records of each kind under one lock: well under a millisecond.
const SOME: usize = 64;
