//! The tag record after a pull by digest (rules T1 to T3).
//!
//! containerd knows the pulled image by its digest only; without the tag the kubelet finds no image,
//! takes the user for root and runs a `USER 1000` image as uid 0. So the record is written through
//! containerd's API, and the pull is answered only once CRI shows it with the id that was pulled.
//!
//! A slot exists for a tag from before its resolution until the last pull of it has ended. It holds
//! the lock of the tag and the order of the newest resolution on record, which is all that must be
//! remembered: a pull that resolved earlier is in flight then, and holds the slot.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::OwnedMutexGuard;
use tonic::Code;

use super::proxy::Shared;
use super::unary::{self, IMAGE_STATUS};
use super::wire::{ImageSpec, ImageStatusRequest, ImageStatusResponse};
use super::{Gate, Refusal, Upstream};
use crate::containerd::{ContainerdError, Existing, TagRecord};
use crate::oci::Digest;

/// The tags that are being pulled.
#[derive(Debug, Default)]
pub(super) struct TagSlots {
    slots: Mutex<HashMap<String, Slot>>,
}

/// The newest resolution on record; its lock is the lock of the tag.
type Slot = Arc<tokio::sync::Mutex<Option<u64>>>;

/// One pull's hold on a tag.
#[derive(Debug)]
pub(super) struct TagSlot<'a> {
    slots: &'a TagSlots,
    name: String,
    slot: Slot,
}

/// A successful pull by tag.
#[derive(Debug)]
pub(super) struct TagPull<'a> {
    pub(super) pinned: &'a str,
    pub(super) digest: &'a Digest,
    pub(super) resolved: u64,
    pub(super) image_id: &'a str,
}

/// The tag stands as pulled and cannot be moved while this is held.
#[derive(Debug)]
pub(super) struct Named(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<Option<u64>>);

impl TagSlots {
    /// Holds the slot of the tag `name`.
    pub(super) fn enter(&self, name: String) -> TagSlot<'_> {
        let slot = Arc::clone(self.lock().entry(name.clone()).or_default());
        TagSlot { slots: self, name, slot }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TagSlot<'_> {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        // The map's and ours: nobody else holds it, and nobody can get it while the map is locked.
        if Arc::strong_count(&self.slot) <= 2 {
            slots.remove(&self.name);
        }
    }
}

impl TagSlot<'_> {
    /// Writes the record, waits until CRI shows it, and reads what it was copied from again.
    pub(super) async fn record<G: Gate>(
        &self,
        shared: &Shared<G>,
        upstream: &Upstream,
        pull: &TagPull<'_>,
    ) -> Result<Named, Refusal> {
        let mut newest = Arc::clone(&self.slot).lock_owned().await;
        let superseded = newest.is_some_and(|newest| newest > pull.resolved);
        let existing = if superseded { Existing::Keep } else { Existing::Replace };
        let containerd = &shared.containerd;
        match containerd.write_tag_record(&self.name, pull.pinned, pull.digest, existing).await {
            Ok(TagRecord::Written | TagRecord::Unchanged) => {}
            Ok(TagRecord::Kept(_)) => {
                return Err(self.refusal("the tag moved during the pull, try again"));
            }
            Err(error) => return Err(self.fault(&error)),
        }
        if !superseded {
            *newest = Some(pull.resolved);
        }

        let visible =
            tokio::time::timeout(shared.options.tag_visible_within, self.visible(upstream, pull.image_id))
                .await;
        match visible {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => return Err(refusal),
            Err(_) => {
                shared.counts.tags_not_visible.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = containerd.remove_tag_record(&self.name, pull.digest).await {
                    tracing::warn!(tag = %self.name, %error, "tag record that CRI does not show is left behind");
                }
                return Err(self.refusal("tag record not visible"));
            }
        }
        match containerd.image_target(pull.pinned).await {
            Ok(Some(target)) if target.digest == *pull.digest => Ok(Named(newest)),
            Ok(_) => Err(self.refusal("the image was removed during the pull, try again")),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Asks CRI for the tag until it answers with `image_id`.
    async fn visible(&self, upstream: &Upstream, image_id: &str) -> Result<(), Refusal> {
        let image = ImageSpec { image: self.name.clone(), ..ImageSpec::default() };
        let message = ImageStatusRequest { image: Some(image), verbose: false }.encode_to_vec();
        let metadata = unary::own_metadata();
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = unary::exchange(upstream, IMAGE_STATUS, &metadata, &message).await?;
            if answer.status().code() == Code::Ok {
                let shown = answer.message::<ImageStatusResponse>("ImageStatus")?.image;
                if shown.is_some_and(|image| image.id == image_id) {
                    return Ok(());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The kubelet tries again.
    fn refusal(&self, why: &str) -> Refusal {
        Refusal::new(Code::Unavailable, format!("pullgate: {}: {why}", self.name))
    }

    fn fault(&self, error: &ContainerdError) -> Refusal {
        match error {
            ContainerdError::Unavailable(_) | ContainerdError::Pinned(_) | ContainerdError::Contended(_) => {
                self.refusal(&format!("{error}"))
            }
            ContainerdError::Call { .. } | ContainerdError::Target(_) | ContainerdError::Digest(..) => {
                Refusal::new(Code::Internal, format!("pullgate: {}: {error}", self.name))
            }
        }
    }
}

/// Between two questions to CRI.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn t1_a_slot_lasts_until_its_last_pull_ends() {
        let slots = TagSlots::default();
        let first = slots.enter("a:1".into());
        let second = slots.enter("a:1".into());
        let other = slots.enter("b:1".into());
        *second.slot.lock().await = Some(7);
        drop(second);
        drop(other);
        assert_eq!(slots.lock().keys().collect::<Vec<_>>(), ["a:1"]);
        assert_eq!(*first.slot.lock().await, Some(7));
        drop(first);
        assert!(slots.lock().is_empty());
        assert_eq!(*slots.enter("a:1".into()).slot.lock().await, None);
    }
}
