//! Evidence: what verdicts rest on, content-addressed (rule C6).
//!
//! Evidence that was imported is marked as such for as long as it is kept: it is never fresh, whatever its
//! age, and serves within `cache.stale` like evidence past `cache.fresh` (rule O1). It never makes room for
//! itself, and what is fetched from a registry takes its place.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::age::{Age, Stamp};
use super::archive::{ImageEvidence, ImageName, Piece};
use super::engine::Job;
use super::memory::{ImageKey, ImageRef, Orphans};
use super::record::{EvidenceRecord, Kind, image_key, open, seal};
use super::{Options, Store};
use crate::oci::{Digest, Repository};

/// Evidence as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The pieces, in order.
    pub pieces: Vec<Vec<u8>>,
    /// How far they may be trusted by their age.
    pub age: Age,
    /// When they were fetched.
    pub at: Stamp,
    /// Where they are from.
    pub origin: Origin,
}

/// One image with evidence, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The image.
    pub image: ImageName,
    /// Bytes of its evidence.
    pub bytes: u64,
    /// When it was fetched.
    pub at: Stamp,
    /// Where it is from.
    pub origin: Origin,
    /// The tags that were last verified as this digest.
    pub tags: Vec<String>,
}

/// Where evidence is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This node fetched it.
    #[default]
    Fetched,
    /// An administrator imported it.
    Imported,
}

/// Why imported evidence is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKept {
    /// Past `cache.stale`.
    Expired,
    /// `cache.maxSize` or `cache.maxEntries` is reached.
    Full,
    /// The disk does not take it.
    Unwritten,
}

impl Origin {
    /// For records, which say only what is not ordinary.
    pub(super) const fn is_fetched(&self) -> bool {
        matches!(self, Self::Fetched)
    }
}

impl Store {
    /// Keeps what verdicts about an image rest on, fetched at the time `at`, in place of what was kept before.
    pub fn put_evidence(&self, repository: &Repository, digest: &Digest, pieces: Vec<Vec<u8>>, at: Stamp) {
        self.put_evidence_from(Origin::Fetched, repository, digest, &pieces, at);
    }

    /// The same where some of it may have been imported: then none of it is fresh.
    pub fn put_evidence_from(
        &self,
        origin: Origin,
        repository: &Repository,
        digest: &Digest,
        pieces: &[Vec<u8>],
        at: Stamp,
    ) {
        self.keep(repository, digest, pieces, &EvidenceRecord::of(pieces, at, origin));
    }

    /// Keeps evidence that was imported, in place of what was kept before. Its time is a claim: `fetched_at`,
    /// in seconds since 1970, counts no later than now.
    ///
    /// # Errors
    /// [`NotKept`] where that is too long ago, or where other evidence would have to go.
    pub fn put_imported(
        &self,
        image: &ImageName,
        pieces: &[Vec<u8>],
        fetched_at: u64,
    ) -> Result<(), NotKept> {
        let at = self.now().earlier(fetched_at);
        self.age_of(at, Origin::Imported).ok_or(NotKept::Expired)?;
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let Options { max_entries, max_size, .. } = self.shared.options;
        {
            let state = self.state();
            let room = state.blob_bytes().saturating_add(bytes) <= max_size;
            if !room || state.evidence.len() >= max_entries {
                return Err(NotKept::Full);
            }
        }
        self.keep(
            &image.repository,
            &image.digest,
            pieces,
            &EvidenceRecord::of(pieces, at, Origin::Imported),
        );
        Ok(())
    }

    fn keep(&self, repository: &Repository, digest: &Digest, pieces: &[Vec<u8>], record: &EvidenceRecord) {
        let mut state = self.state();
        let image = state.image(repository, *digest);
        let used = state.tick();
        let mut orphans = state.keep_evidence(image, record, used);
        let Options { max_entries, max_size, .. } = self.shared.options;
        let removed = state.evict_evidence(max_entries, max_size, &mut orphans);
        drop(state);
        for (blob, piece) in record.blobs.iter().zip(pieces) {
            let key = Kind::Blob.key(blob.as_bytes());
            let sealed = seal(&key, piece);
            self.send(Job::Put(key, sealed));
        }
        self.write(Kind::Evidence, image_key(repository, digest).as_bytes(), record);
        self.remove_evidence(&removed, &orphans);
    }

    /// What verdicts about an image rest on, and how old it is. `None` unless every piece is there
    /// and has its own digest.
    pub async fn evidence(&self, repository: &Repository, digest: &Digest) -> Option<Kept> {
        let record = {
            let mut state = self.state();
            let used = state.tick();
            state.evidence.get_mut(&ImageRef(repository, digest))?.touch(used);
            state.evidence.get(&ImageRef(repository, digest))?.record(&state)
        };
        self.kept(record).await
    }

    /// The pieces alone, of whatever age. It counts as no use.
    pub async fn evidence_of_any_age(&self, image: &ImageName) -> Option<Vec<Vec<u8>>> {
        let record = {
            let state = self.state();
            state.evidence.get(&ImageRef(&image.repository, &image.digest))?.record(&state)
        };
        self.pieces(&record.blobs).await
    }

    /// Those that serve, ready to travel. It counts as no use (rule C5), and tags are left to [`Self::held`].
    pub async fn export_evidence(&self, image: &ImageName) -> Option<ImageEvidence> {
        let record = {
            let state = self.state();
            state.evidence.get(&ImageRef(&image.repository, &image.digest))?.record(&state)
        };
        let Kept { pieces, at, .. } = self.kept(record).await?;
        let pieces = pieces.into_iter().map(Piece).collect();
        Some(ImageEvidence { image: image.clone(), fetched_at: at.seconds(), tags: Vec::new(), pieces })
    }

    async fn kept(&self, record: EvidenceRecord) -> Option<Kept> {
        let EvidenceRecord { blobs, at, origin, .. } = record;
        let age = self.age_of(at, origin)?;
        let pieces = self.pieces(&blobs).await?;
        Some(Kept { pieces, age, at, origin })
    }

    async fn pieces(&self, blobs: &[Digest]) -> Option<Vec<Vec<u8>>> {
        let mut pieces = Vec::new();
        for blob in blobs {
            let key = Kind::Blob.key(blob.as_bytes());
            let (answer, value) = tokio::sync::oneshot::channel();
            self.send(Job::Get(key.clone(), answer));
            // A disk that hangs must not hold a verification up: the registry is asked then.
            let sealed = tokio::time::timeout(DISK_PATIENCE, value).await.ok()?.ok().flatten()?;
            let piece = open(&key, &sealed)?.to_vec();
            if Digest::of(&piece) != *blob {
                return None;
            }
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// How far evidence may be trusted by its age; imported evidence is past `fresh` from the start.
    pub(super) fn age_of(&self, at: Stamp, origin: Origin) -> Option<Age> {
        match origin {
            Origin::Fetched => self.current(at),
            Origin::Imported => match at.age(self.now(), Duration::ZERO, self.shared.options.stale) {
                Age::Stale => Some(Age::Stale),
                Age::Fresh | Age::Expired => None,
            },
        }
    }

    pub(super) fn remove_evidence(&self, images: &[ImageKey], orphans: &Orphans) {
        self.remove_images(Kind::Evidence, images);
        self.remove_all(Kind::Blob, orphans.0.iter().map(|blob| blob.as_bytes().to_vec()));
    }
}

/// How long a read from the database is waited for.
const DISK_PATIENCE: Duration = Duration::from_secs(2);
