//! Admissions: that a permit was given for an image (rule C3).

use std::collections::BTreeSet;

use super::engine::Job;
use super::memory::{IdPrefix, ImageRef};
use super::record::{Admission, Kind, image_key};
use super::{Durability, Store};
use crate::oci::{Digest, Repository};

impl Store {
    /// Records that an image was admitted, keeping the pullers of an earlier admission.
    pub fn admit(&self, admission: Admission, durable: Durability) {
        self.admit_if(admission, durable, |_| true);
    }

    /// The same in the place of `known`: not if another was recorded since that was read.
    pub fn admit_in_place_of(&self, known: Option<&Admission>, admission: Admission, durable: Durability) {
        self.admit_if(admission, durable, |now| now == known);
    }

    fn admit_if(
        &self,
        mut admission: Admission,
        durable: Durability,
        may_replace: impl FnOnce(Option<&Admission>) -> bool,
    ) {
        let mut state = self.state();
        let used = state.tick();
        let known = state.admissions.get_key_value(&ImageRef(&admission.repository, &admission.digest));
        let known = known.map(|(image, admitted)| admitted.record(image));
        if !may_replace(known.as_ref()) {
            return;
        }
        for puller in known.into_iter().flat_map(|known| known.pulled_by) {
            if !admission.pulled_by.contains(&puller) && admission.pulled_by.len() < PULLERS {
                admission.pulled_by.push(puller);
            }
        }
        let image = state.image(&admission.repository, admission.digest);
        let admitted = state.admitted(&admission, durable, used);
        state.admissions.insert(image, admitted);
        let removed = state.evict_admissions(self.shared.options.max_entries);
        drop(state);
        if durable == Durability::Durable {
            let key = image_key(&admission.repository, &admission.digest);
            self.write(Kind::Admission, key.as_bytes(), &admission);
        }
        self.remove_images(Kind::Admission, &removed);
    }

    /// The admission of an image.
    #[must_use]
    pub fn admission(&self, repository: &Repository, digest: &Digest) -> Option<Admission> {
        let mut state = self.state();
        let used = state.tick();
        let (_, image, admitted) = state.admissions.get_full_mut(&ImageRef(repository, digest))?;
        admitted.touch(used);
        Some(admitted.record(image))
    }

    /// The admissions whose image id starts with `prefix`; `sha256:` may be left out.
    #[must_use]
    pub fn admissions_of_id(&self, prefix: &str) -> Vec<Admission> {
        let Some(prefix) = IdPrefix::new(prefix) else { return Vec::new() };
        let state = self.state();
        let of_id = state.admissions.iter().filter(|(_, admitted)| admitted.has_id(&prefix));
        of_id.map(|(image, admitted)| admitted.record(image)).collect()
    }

    /// Every admission of a repository.
    #[must_use]
    pub fn admissions_in(&self, repository: &Repository) -> Vec<Admission> {
        let state = self.state();
        let of_it = state.admissions.iter().filter(|(image, _)| *image.repository == *repository);
        of_it.map(|(image, admitted)| admitted.record(image)).collect()
    }

    /// Takes this very admission back; whether it was still the one of its image.
    pub fn withdraw(&self, admission: &Admission) -> bool {
        let Admission { repository, digest, .. } = admission;
        let mut state = self.state();
        let known = state.admissions.get_key_value(&ImageRef(repository, digest));
        if known.is_none_or(|(image, admitted)| admitted.record(image) != *admission) {
            return false;
        }
        state.admissions.swap_remove(&ImageRef(repository, digest));
        drop(state);
        let key = Kind::Admission.key(image_key(repository, digest).as_bytes());
        self.send_surely(Job::TakeBack(vec![key]));
        true
    }

    /// Says which images are on the node: they are evicted last (rule C5).
    pub fn mark_present(&self, digests: BTreeSet<Digest>) {
        self.state().present = Some(digests);
    }
}

/// Keyed hashes of credentials kept for one image.
const PULLERS: usize = 16;
