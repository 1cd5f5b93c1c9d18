//! The slots of verification: how many images are verified at once, and how many of them from one registry.
//!
//! A registry that hangs, or sends a byte now and then, holds a slot until some time runs out. The images of
//! one host have at most half of the slots, so that the other half goes on for everybody else; that costs
//! them nothing, since one host is sent few requests at once anyway. The share of the host is waited for first:
//! who waits for it keeps no slot from others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All slots.
pub(super) struct Slots {
    all: Arc<Semaphore>,
    share: usize,
    /// What each host has left of its share.
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// One slot, for as long as it is held.
pub(super) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_host: OwnedSemaphorePermit,
}

impl Slots {
    /// So many, but one at least.
    pub(super) fn new(slots: usize) -> Self {
        let (all, share) = (slots.max(1), slots.div_ceil(2).max(1));
        Self { all: Arc::new(Semaphore::new(all)), share, hosts: Mutex::default() }
    }

    /// Waits for a slot for an image of `host`. None only if there are no slots any more.
    pub(super) async fn take(&self, host: &str) -> Option<Slot> {
        let of_host = self.of(host).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { _of_all: of_all, _of_host: of_host })
    }

    /// How many nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }

    /// Takes so many from everybody.
    #[cfg(test)]
    pub(super) async fn hold(&self, slots: u32) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_many_owned(slots).await.unwrap()
    }

    fn of(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host) {
            return Arc::clone(known);
        }
        // Names come from pods: forget the idle ones before there are too many.
        if hosts.len() >= HOSTS_LIMIT {
            hosts.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = Arc::new(Semaphore::new(self.share));
        hosts.insert(host.to_owned(), Arc::clone(&share));
        share
    }
}

/// More registries than one node uses.
const HOSTS_LIMIT: usize = 1024;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn now(slots: &Slots, host: &str) -> Option<Slot> {
        slots.take(host).now_or_never().flatten()
    }

    #[test]
    fn one_host_has_half_of_the_slots_at_most() {
        let slots = Slots::new(4);
        let first = (now(&slots, "a").unwrap(), now(&slots, "a").unwrap());
        assert!(now(&slots, "a").is_none(), "its half is taken");
        let others = (now(&slots, "b").unwrap(), now(&slots, "c").unwrap());
        assert!(now(&slots, "c").is_none(), "no slot is left");
        drop(first);
        assert!(now(&slots, "b").is_some());
        drop(others);
        assert!(now(&slots, "a").is_some());
    }

    #[test]
    fn who_waits_for_its_host_keeps_no_slot_from_others() {
        let slots = Slots::new(3);
        let held = (now(&slots, "a").unwrap(), now(&slots, "a").unwrap());
        let mut waiting = Box::pin(slots.take("a"));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(now(&slots, "b").is_some());
        drop(held);
        assert!(waiting.now_or_never().flatten().is_some());
    }

    #[test]
    fn a_single_slot_serves_every_host() {
        let slots = Slots::new(0);
        assert!(now(&slots, "a").is_some());
        let _held = now(&slots, "a").unwrap();
        assert!(now(&slots, "b").is_none());
    }

    #[test]
    fn hosts_that_nobody_waits_for_are_forgotten() {
        let slots = Slots::new(2);
        let _held = now(&slots, "held").unwrap();
        for number in 0..2 * HOSTS_LIMIT {
            assert!(now(&slots, &format!("host-{number}")).is_some());
        }
        assert!(slots.hosts.lock().unwrap().len() <= HOSTS_LIMIT);
        assert!(now(&slots, "held").is_none(), "its share is still taken");
    }
}
