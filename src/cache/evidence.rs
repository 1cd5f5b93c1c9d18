//! Evidence: what verdicts rest on, content-addressed (rule C6).

use std::time::Duration;

use super::age::{Age, Stamp};
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
}

impl Store {
    /// Keeps what verdicts about an image rest on, fetched at the time `at`, in place of what was kept before.
    pub fn put_evidence(&self, repository: &Repository, digest: &Digest, pieces: Vec<Vec<u8>>, at: Stamp) {
        let blobs: Vec<_> = pieces.iter().map(|piece| Digest::of(piece)).collect();
        let sizes = pieces.iter().map(|piece| u32::try_from(piece.len()).unwrap_or(u32::MAX)).collect();
        let record = EvidenceRecord { blobs, sizes, at };
        let mut state = self.state();
        let image = state.image(repository, *digest);
        let mut orphans = state.keep_evidence(image, &record);
        let Options { max_entries, max_size, .. } = self.shared.options;
        let removed = state.evict_evidence(max_entries, max_size, &mut orphans);
        drop(state);
        for (blob, piece) in record.blobs.iter().zip(&pieces) {
            let key = Kind::Blob.key(blob.as_bytes());
            let sealed = seal(&key, piece);
            self.send(Job::Put(key, sealed));
        }
        self.write(Kind::Evidence, image_key(repository, digest).as_bytes(), &record);
        self.remove_evidence(&removed, &orphans);
    }

    /// What verdicts about an image rest on, and how old it is. `None` unless every piece is there
    /// and has its own digest.
    pub async fn evidence(&self, repository: &Repository, digest: &Digest) -> Option<Kept> {
        let (blobs, at) = {
            let mut state = self.state();
            let used = state.tick();
            state.evidence.get_mut(&ImageRef(repository, digest))?.touch(used)
        };
        let age = self.current(at)?;
        let mut pieces = Vec::new();
        for blob in &blobs {
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
        Some(Kept { pieces, age, at })
    }

    pub(super) fn remove_evidence(&self, images: &[ImageKey], orphans: &Orphans) {
        self.remove_images(Kind::Evidence, images);
        self.remove_all(Kind::Blob, orphans.0.iter().map(|blob| blob.as_bytes().to_vec()));
    }
}

/// How long a read from the database is waited for.
const DISK_PATIENCE: Duration = Duration::from_secs(2);
