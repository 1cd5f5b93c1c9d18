//! What is kept, and the form it has on disk.
//!
//! A database key is one letter for the kind, and the record's own key. A value is
//! `[version: 1 byte][crc32 of version, key and body: 4 bytes, little endian][body: JSON]`. The key is
//! part of the checksum, so a record that was moved to another key is refused like one whose bytes
//! changed. What does not check out is dropped: it costs a verification, never a wrong verdict.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::age::Stamp;
use super::evidence::Origin;
use crate::oci::{Digest, Repository};

/// What a verdict is about (rule C1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictKey {
    /// The image's repository.
    pub repository: Repository,
    /// The image.
    pub digest: Digest,
    /// What the entry asks for.
    pub entry: Digest,
    /// The trust material that the entry uses.
    pub trust: Option<Digest>,
    /// The pod facts that the entry reads.
    pub pod: Digest,
}

/// An allowing verdict; there is no record of a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictRecord {
    pub(super) key: VerdictKey,
    pub(super) at: Stamp,
    /// The second in which it ends, where it rests on a certificate that nobody dated (rule D8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
}

/// That a permit was given for an image (rule C3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admission {
    /// The image's repository.
    pub repository: Repository,
    /// The image.
    pub digest: Digest,
    /// Where the permit came from, as logs and metrics name it.
    pub source: String,
    /// The snapshot under which it was given.
    pub snapshot: Digest,
    /// containerd's image id, once known.
    pub image_id: Option<String>,
    /// When.
    pub at: Stamp,
    /// Who pulled it: keyed hashes of credentials (rule O4).
    pub pulled_by: Vec<Digest>,
    /// The index by which a child manifest was admitted (rule D7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Since when a later snapshot could not be decided, by the word of a registry (rule S5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided_since: Option<Stamp>,
}

/// The evidence that verdicts about one image rest on (rule C6): digests of blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvidenceRecord {
    pub(super) blobs: Vec<Digest>,
    /// Their sizes in bytes.
    #[serde(default)]
    pub(super) sizes: Vec<u32>,
    pub(super) at: Stamp,
    #[serde(default, skip_serializing_if = "Origin::is_fetched")]
    pub(super) origin: Origin,
}

/// Which digest a tag was last verified as (rule O2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TagRecord {
    pub(super) digest: Digest,
    pub(super) at: Stamp,
}

/// The kinds of record, with the letter their keys start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Verdict,
    Admission,
    Evidence,
    Blob,
    Tag,
}

impl Kind {
    pub(super) const fn letter(self) -> u8 {
        match self {
            Self::Verdict => b'v',
            Self::Admission => b'a',
            Self::Evidence => b'e',
            Self::Blob => b'b',
            Self::Tag => b't',
        }
    }

    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let all = [Self::Verdict, Self::Admission, Self::Evidence, Self::Blob, Self::Tag];
        all.into_iter().find(|kind| key.first() == Some(&kind.letter()))
    }

    pub(super) fn key(self, rest: &[u8]) -> Vec<u8> {
        let mut key = vec![self.letter()];
        key.extend_from_slice(rest);
        key
    }
}

impl EvidenceRecord {
    /// The record of these pieces.
    pub(super) fn of(pieces: &[Vec<u8>], at: Stamp, origin: Origin) -> Self {
        let sizes = pieces.iter().map(|piece| u32::try_from(piece.len()).unwrap_or(u32::MAX)).collect();
        let blobs = pieces.iter().map(|piece| Digest::of(piece)).collect();
        Self { blobs, sizes, at, origin }
    }
}

impl VerdictKey {
    pub(super) fn hash(&self) -> Digest {
        let parts = (&self.repository, &self.digest, &self.entry, &self.trust, &self.pod);
        Digest::of(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
    }
}

/// `repository@digest`, the key of admissions and evidence.
pub(super) fn image_key(repository: &Repository, digest: &Digest) -> String {
    format!("{repository}@{digest}")
}

/// Seals bytes for `key`.
pub(super) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut sealed = vec![VERSION];
    sealed.extend_from_slice(&checksum(key, body).to_le_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// The body of a sealed value, if it is one of this version for this very key.
pub(super) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (head, body) = sealed.split_at_checked(HEAD)?;
    let (version, sum) = head.split_first()?;
    (*version == VERSION && sum == checksum(key, body).to_le_bytes()).then_some(body)
}

pub(super) fn decode<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Option<T> {
    serde_json::from_slice(open(key, sealed)?).ok()
}

pub(super) fn encode<T: Serialize>(key: &[u8], record: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(record).ok().map(|body| seal(key, &body))
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[VERSION]);
    hasher.update(&u64::try_from(key.len()).unwrap_or(0).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

const VERSION: u8 = 1;
const HEAD: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c4_a_changed_moved_or_foreign_record_is_refused() {
        let sealed = seal(b"a1", b"body");
        assert_eq!(open(b"a1", &sealed), Some(&b"body"[..]));
        assert_eq!(open(b"a2", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(b"a1", &changed), None, "byte {at}");
            assert_eq!(open(b"a1", &sealed[..at]), None, "cut at {at}");
        }
    }
}
