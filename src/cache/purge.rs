//! Forgetting: all, a repository or an image.

use std::collections::HashSet;

use super::Store;
use super::engine::Job;
use super::memory::{ImageKey, Orphans};
use super::record::{Kind, image_key};
use crate::oci::{Digest, Repository};

/// Which images are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Everything,
    /// One repository.
    Repository(Repository),
    /// One image.
    Image(Repository, Digest),
}

impl Selection {
    /// Whether it is about this image.
    #[must_use]
    pub fn names(&self, repository: &Repository, digest: &Digest) -> bool {
        match self {
            Self::Everything => true,
            Self::Repository(wanted) => wanted == repository,
            Self::Image(wanted, image) => wanted == repository && image == digest,
        }
    }
}

impl Store {
    /// Forgets what `which` names, and says how many images that were.
    pub fn purge(&self, which: &Selection) -> usize {
        let mut state = self.state();
        let (mut admissions, mut verdicts, mut orphans) = (Vec::new(), Vec::new(), Orphans::default());
        state.admissions.retain(|image, _| {
            let named = which.names(&image.repository, &image.digest);
            if named {
                admissions.push(image.clone());
            }
            !named
        });
        state.verdicts.retain(|hash, verdict| {
            let named = which.names(&verdict.image.repository, &verdict.image.digest);
            if named {
                verdicts.push(*hash);
            }
            !named
        });
        let evidence: Vec<_> = state
            .evidence
            .keys()
            .filter(|image| which.names(&image.repository, &image.digest))
            .cloned()
            .collect();
        for image in &evidence {
            state.forget_evidence(image, &mut orphans);
        }
        let start = match which {
            Selection::Everything => String::new(),
            Selection::Repository(repository) | Selection::Image(repository, _) => format!("{repository}:"),
        };
        let tags: Vec<_> = state.tags.keys().filter(|name| name.starts_with(&start)).cloned().collect();
        for name in &tags {
            state.tags.swap_remove(name);
        }
        drop(state);
        let images = admissions.iter().chain(&evidence).collect::<HashSet<_>>().len();
        let of_image = |image: &ImageKey| image_key(&image.repository, &image.digest).into_bytes();
        let of_digest = |digest: &Digest| digest.as_bytes().to_vec();
        let gone: Vec<_> = admissions
            .iter()
            .map(|image| Kind::Admission.key(&of_image(image)))
            .chain(evidence.iter().map(|image| Kind::Evidence.key(&of_image(image))))
            .chain(verdicts.iter().map(|hash| Kind::Verdict.key(&of_digest(hash))))
            .chain(orphans.0.iter().map(|blob| Kind::Blob.key(&of_digest(blob))))
            .chain(tags.iter().map(|name| Kind::Tag.key(name.as_bytes())))
            .collect();
        self.send_surely(Job::TakeBack(gone));
        images
    }
}
