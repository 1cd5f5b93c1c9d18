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
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout_at};
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

/// The newest resolution on record; its lock is the lock of the tag. Who writes the record has it alone,
/// pulls in which containerd itself names the tag share it.
type Slot = Arc<RwLock<Option<u64>>>;

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
pub(super) struct Named(#[expect(dead_code, reason = "held, never read")] OwnedRwLockWriteGuard<Option<u64>>);

/// No record of the tag is written while this is held.
#[derive(Debug)]
pub(super) struct Unmoved(
    #[expect(dead_code, reason = "held, never read")] OwnedRwLockReadGuard<Option<u64>>,
);

/// What CRI says of a tag record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visible {
    /// It shows the image that was pulled.
    Yes,
    /// It answers without it.
    No,
    /// It does not answer.
    Unknown,
}

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
    /// Holds the tag as it is, or as containerd itself makes it.
    pub(super) async fn unmoved(&self) -> Unmoved {
        Unmoved(Arc::clone(&self.slot).read_owned().await)
    }

    /// Writes the record, waits until CRI shows it, and reads what it was copied from again.
    pub(super) async fn record<G: Gate>(
        &self,
        shared: &Shared<G>,
        upstream: &Upstream,
        pull: &TagPull<'_>,
    ) -> Result<Named, Refusal> {
        let mut newest = Arc::clone(&self.slot).write_owned().await;
        let superseded = newest.is_some_and(|newest| newest > pull.resolved);
        let existing = if superseded { Existing::Keep } else { Existing::Replace };
        let containerd = &shared.containerd;
        let record = containerd.write_tag_record(&self.name, pull.pinned, pull.digest, existing).await;
        let record = record.map_err(|error| self.fault(&error))?;
        if let TagRecord::Kept(_) = record {
            return Err(self.refusal("the tag moved during the pull, try again"));
        }
        if !superseded {
            *newest = Some(pull.resolved);
        }

        let give_up = Instant::now() + shared.options.tag_visible_within;
        let visible = self.visible(upstream, pull.image_id, give_up).await?;
        if visible != Visible::Yes {
            shared.counts.tags_not_visible.fetch_add(1, Ordering::Relaxed);
            // One that was there before may be what another pod starts from at this moment, and a CRI
            // that keeps silent may show it by now.
            if (record, visible) == (TagRecord::Written, Visible::No)
                && let Err(error) = containerd.remove_tag_record(&self.name, pull.digest).await
            {
                tracing::warn!(tag = %self.name, %error, "tag record that CRI does not show is left behind");
            }
            return Err(self.refusal("tag record not visible"));
        }
        match containerd.image_target(pull.pinned).await {
            Ok(Some(target)) if target.digest == *pull.digest => Ok(Named(newest)),
            Ok(_) => Err(self.refusal("the image was removed during the pull, try again")),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Asks CRI for the tag until it answers with `image_id`; what it said last.
    async fn visible(
        &self,
        upstream: &Upstream,
        image_id: &str,
        give_up: Instant,
    ) -> Result<Visible, Refusal> {
        let image = ImageSpec { image: self.name.clone(), ..ImageSpec::default() };
        let message = ImageStatusRequest { image: Some(image), verbose: false }.encode_to_vec();
        let metadata = unary::own_metadata();
        let mut pause = FIRST_PAUSE;
        loop {
            let asking = unary::exchange(upstream, IMAGE_STATUS, &metadata, &message);
            let Ok(answer) = timeout_at(give_up, asking).await else { return Ok(Visible::Unknown) };
            let answer = answer?;
            let visible = if answer.status().code() == Code::Ok {
                match answer.message::<ImageStatusResponse>("ImageStatus")?.image {
                    Some(image) if image.id == image_id => return Ok(Visible::Yes),
                    Some(_) | None => Visible::No,
                }
            } else {
                Visible::Unknown
            };
            if Instant::now() + pause >= give_up {
                return Ok(visible);
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
        *second.slot.write().await = Some(7);
        drop(second);
        drop(other);
        assert_eq!(slots.lock().keys().collect::<Vec<_>>(), ["a:1"]);
        assert_eq!(*first.slot.read().await, Some(7));
        drop(first);
        assert!(slots.lock().is_empty());
        assert_eq!(*slots.enter("a:1".into()).slot.read().await, None);
    }

    #[tokio::test]
    async fn t1_a_record_waits_for_pulls_in_which_containerd_names_the_tag() {
        let slots = TagSlots::default();
        let [one, two, pinned] = [(); 3].map(|()| slots.enter("a:1".into()));
        let as_sent = [one.unmoved().await, two.unmoved().await];
        assert!(pinned.slot.try_write().is_err());
        drop(as_sent);
        assert!(pinned.slot.try_write().is_ok());
    }
}
