//! The look at every image on the node: at start, after a reload or purge, and daily (rule S6).
//!
//! The images of a registry are taken one after the other, so that a node with hundreds of them asks it
//! for one at a time; two registries are asked at once, so that a slow one does not hold all images
//! up. What an import brought is looked at once no more comes. A look that left something undecided, or that containerd did not answer, is repeated
//! soon. What an image is, and what follows from it, is decided in `admission`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;

use super::Daemon;
use crate::admission::Background;
use crate::containerd::ImageRecord;
use crate::cri;
use crate::oci::{Digest, Reference};

impl Daemon {
    /// Looks until the future is dropped.
    pub(super) async fn look_daily(self: Arc<Self>) {
        let (again, imported) = (self.gate.look_again(), &self.imported);
        keep_looking(|| self.look_at_present(), again, imported, tokio::time::sleep).await;
    }

    /// How many images stayed undecided; `None` if containerd could not be asked.
    async fn look_at_present(&self) -> Option<usize> {
        if !self.gate.store().opened(DAILY).await {
            return None;
        }
        let records = match self.containerd.image_records().await {
            Ok(records) => records,
            Err(error) => {
                tracing::debug!(%error, "images on the node cannot be listed yet");
                return None;
            }
        };
        let named: Vec<_> = records
            .into_iter()
            .filter(|record| !record.name.starts_with("sha256:") && Reference::parse(&record.name).is_ok())
            .collect();
        let digests: BTreeSet<Digest> = named.iter().map(|record| record.target.digest).collect();
        self.gate.store().mark_present(digests);
        self.gate.retain_present(
            &named.iter().map(|record| (record.name.as_str(), record.target.digest)).collect(),
        );
        self.live().to_look_at = Some(named.len());
        let left = AtomicUsize::new(named.len());
        let mut registries: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for record in named {
            if let Ok(reference) = Reference::parse(&record.name) {
                registries.entry(reference.repository().host().to_owned()).or_default().push(record);
            }
        }
        let looks = registries.into_values().map(|records| self.look_at(records, &left));
        let undecided = stream::iter(looks).buffer_unordered(REGISTRIES);
        let undecided = undecided.fold(0, |sum, of_registry| ready(sum + of_registry)).await;
        self.live().to_look_at = Some(0);
        self.report_running().await;
        Some(undecided)
    }

    /// Images of one registry; how many stayed undecided.
    async fn look_at(&self, records: Vec<ImageRecord>, left: &AtomicUsize) -> usize {
        let mut undecided = 0;
        for record in records {
            let verdict = self.gate.decide_present(&record.name, record.target.digest, None).await;
            undecided += usize::from(verdict == Background::Undecided);
            let before = left.fetch_sub(1, Ordering::Relaxed);
            self.live().to_look_at = Some(before.saturating_sub(1));
        }
        undecided
    }

    /// The containers that run of images which policy refuses, or would; for reports alone.
    pub(super) async fn running_of_denied(&self) -> Result<Vec<cri::Container>, cri::Refusal> {
        let images: BTreeSet<_> = self.gate.would_deny().into_iter().map(|denied| denied.image).collect();
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let socket = self.live().config.runtime.containerd.path().to_owned();
        cri::running_of(&socket, images).await
    }

    async fn report_running(&self) {
        match self.running_of_denied().await {
            Ok(running) => {
                self.audit.denied_containers.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
                for cri::Container { image, namespace, pod, container } in running {
                    tracing::warn!(
                        image,
                        namespace,
                        pod,
                        container,
                        "container runs of an image that policy refuses; it is left running"
                    );
                }
            }
            Err(error) => tracing::debug!(%error, "containers cannot be listed"),
        }
    }
}

/// Repeats `look`, which gives how many images stayed undecided, or `None` if it could not be done.
async fn keep_looking<L, P>(
    look: impl Fn() -> L,
    again: &Notify,
    imported: &Notify,
    sleep: impl Fn(Duration) -> P,
) where
    L: Future<Output = Option<usize>>,
    P: Future<Output = ()>,
{
    loop {
        let pause = match look().await {
            Some(0) => DAILY,
            Some(_) | None => SOON,
        };
        tokio::select! {
            () = again.notified() => {}
            () = imported.notified() => quiet(again, imported, &sleep).await,
            () = sleep(pause) => {}
        }
    }
}

/// Until nothing was imported for a while: each image of a long import would ask for a look.
async fn quiet<P: Future<Output = ()>>(again: &Notify, imported: &Notify, sleep: impl Fn(Duration) -> P) {
    loop {
        tokio::select! {
            biased;
            () = again.notified() => return,
            () = imported.notified() => {}
            () = sleep(QUIET) => return,
        }
    }
}

/// Rule S6.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// After a look that left something undecided.
const SOON: Duration = Duration::from_secs(60);
/// After the last image of an import.
const QUIET: Duration = Duration::from_secs(2);
/// Asked at once: verifications of pulls need their slots.
const REGISTRIES: usize = 2;

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// The pauses after looks that find what `found` says, one after the other.
    async fn pauses(found: &[Option<usize>]) -> Vec<Duration> {
        let (next, pauses) = (Cell::new(0), RefCell::new(Vec::new()));
        let look = || {
            let now = found.get(next.replace(next.get() + 1)).copied();
            async move {
                match now {
                    Some(found) => found,
                    None => std::future::pending().await,
                }
            }
        };
        let (all, again, imported) = (Notify::new(), Notify::new(), Notify::new());
        let sleep = |pause| {
            pauses.borrow_mut().push(pause);
            if pauses.borrow().len() == found.len() {
                all.notify_one();
            }
            ready(())
        };
        tokio::select! { () = keep_looking(look, &again, &imported, sleep) => {}, () = all.notified() => {} }
        pauses.into_inner()
    }

    #[tokio::test]
    async fn s6_every_present_image_is_looked_at_daily() {
        let day = Duration::from_secs(86_400);
        assert_eq!(pauses(&[Some(0), Some(0), Some(0)]).await, [day, day, day]);
    }

    #[tokio::test]
    async fn s6_a_look_that_left_something_undecided_is_repeated_soon() {
        let (soon, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        assert_eq!(pauses(&[Some(3), None, Some(0)]).await, [soon, soon, day]);
    }

    #[tokio::test]
    async fn s6_a_reload_or_purge_asks_for_a_look_at_once() {
        let (again, looks, third) = (Notify::new(), Cell::new(0), Notify::new());
        let look = || {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                third.notify_one();
            } else {
                again.notify_one();
            }
            async { Some(0) }
        };
        let (never, imported) = (|_| std::future::pending::<()>(), Notify::new());
        tokio::select! { () = keep_looking(look, &again, &imported, never) => {}, () = third.notified() => {} }
        assert_eq!(looks.get(), 3);
    }

    #[tokio::test]
    async fn s6_a_long_import_asks_for_one_look_once_it_is_over() {
        let (again, imported, looks, second) = (Notify::new(), Notify::new(), Cell::new(0), Notify::new());
        let look = || {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                second.notify_one();
            }
            async { Some(0) }
        };
        let calm = Notify::new();
        let sleep = |pause| {
            let calm = &calm;
            async move { if pause == QUIET { calm.notified().await } else { std::future::pending().await } }
        };
        let import = async {
            for _ in 0..100 {
                imported.notify_one();
                tokio::task::yield_now().await;
            }
            let during = looks.get();
            calm.notify_one();
            second.notified().await;
            during
        };
        let looking = keep_looking(look, &again, &imported, sleep);
        let during = tokio::select! { () = looking => None, during = import => Some(during) };
        assert_eq!(during, Some(1));
    }
}
