//! Single flight: the same verification asked for many times at once is done once (rule F1).
//!
//! A flight runs in its own task, so that the caller who started it may be cancelled without
//! hurting the others; when the last waiter has left, the task is aborted. An allowing result is
//! shared with every waiter. Denials and faults may depend on who asked, so they are shared only
//! between equal credentials; a waiter with others starts anew.
//!
//! A panic in the work drops the result: every waiter gets `None` and must treat it as a fault.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::oci::Digest;

/// Who may have the result of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Everybody who waits.
    Everybody,
    /// Those who asked with the same credentials.
    SameCredentials,
}

/// The flights under way.
pub(super) struct Flights<K, V> {
    slots: Arc<Mutex<HashMap<K, Slot<V>>>>,
    /// Of the next flight, whatever its key: a late seat must not be one of another flight.
    next: AtomicU64,
}

struct Slot<V> {
    number: u64,
    waiters: usize,
    credential: Digest,
    result: watch::Receiver<Option<V>>,
    task: AbortHandle,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Mutex::new(HashMap::new())), next: AtomicU64::new(0) }
    }

    /// Joins the flight of `key`, or starts one with `work`. `None` if the work panicked.
    pub(super) async fn join<W, F>(
        &self,
        key: K,
        credential: Digest,
        sharing: impl Fn(&V) -> Sharing,
        work: W,
    ) -> Option<V>
    where
        W: Fn() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        loop {
            let seat = self.board(&key, credential, &work);
            let mut result = seat.result.clone();
            let value = match result.wait_for(Option::is_some).await {
                Ok(value) => value.clone(),
                Err(_) => None,
            };
            let same = seat.credential == credential;
            drop(seat);
            match value {
                Some(value) if same || sharing(&value) == Sharing::Everybody => return Some(value),
                Some(_) => {}
                None if same => return None,
                None => {}
            }
        }
    }

    fn board<W, F>(&self, key: &K, credential: Digest, work: &W) -> Seat<K, V>
    where
        W: Fn() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // A finished flight is not joined: its result belongs to those who waited for it.
        let open =
            slots.get_mut(key).filter(|slot| slot.result.borrow().is_none() && !slot.task.is_finished());
        if let Some(slot) = open {
            slot.waiters += 1;
            return self.seat(key, slot);
        }
        let (sender, result) = watch::channel(None);
        let future = work();
        let task = tokio::spawn(async move {
            let value = future.await;
            sender.send_replace(Some(value));
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { number, waiters: 1, credential, result, task: task.abort_handle() };
        let seat = self.seat(key, &slot);
        slots.insert(key.clone(), slot);
        seat
    }

    fn seat(&self, key: &K, slot: &Slot<V>) -> Seat<K, V> {
        Seat {
            slots: Arc::clone(&self.slots),
            key: key.clone(),
            number: slot.number,
            credential: slot.credential,
            result: slot.result.clone(),
        }
    }
}

/// One waiter's place in a flight; dropping the last one ends the flight.
struct Seat<K: Hash + Eq, V> {
    slots: Arc<Mutex<HashMap<K, Slot<V>>>>,
    key: K,
    number: u64,
    credential: Digest,
    result: watch::Receiver<Option<V>>,
}

impl<K: Hash + Eq, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(&self.key).filter(|slot| slot.number == self.number) else {
            return;
        };
        slot.waiters -= 1;
        if slot.waiters == 0 {
            slot.task.abort();
            slots.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
