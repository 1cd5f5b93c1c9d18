//! Reading the database into memory.

use std::sync::PoisonError;

use super::Shared;
use super::memory::Verdict;
use super::record::{Admission, EvidenceRecord, Kind, TagRecord, VerdictRecord, decode, image_key};
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
            let VerdictRecord { key, at } = decode(key, sealed)?;
            let hash = key.hash();
            if rest != hash.as_bytes() {
                return None;
            }
            let mut state = lock();
            let image = state.image(&key.repository, key.digest);
            state.verdicts.entry(hash).or_insert(Verdict { image, at, used: 0 });
        }
        Some(Kind::Admission) => {
            let record: Admission = decode(key, sealed)?;
            if rest != image_key(&record.repository, &record.digest).as_bytes() {
                return None;
            }
            let mut state = lock();
            let image = state.image(&record.repository, record.digest);
            let admitted = state.admitted(&record, 0);
            state.admissions.entry(image).or_insert(admitted);
        }
        Some(Kind::Evidence) => {
            let record: EvidenceRecord = decode(key, sealed)?;
            let (repository, digest) = std::str::from_utf8(rest).ok()?.rsplit_once('@')?;
            let (repository, digest): (_, Digest) =
                (Repository::parse(repository).ok()?, digest.parse().ok()?);
            let mut state = lock();
            let image = state.image(&repository, digest);
            if !state.evidence.contains_key(&image) {
                state.keep_evidence(image, &record);
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
