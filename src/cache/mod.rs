//! The cache of verified digests and of the evidence that they rest on (rules C1 to C6).
//!
//! It keeps allowing verdicts, admissions, tags and evidence; a denial cannot be written. Look-ups of
//! verdicts and admissions are answered from memory; writes go to memory first and then, through a
//! queue, to the database thread (`engine`). Until that thread has opened the database, everything is
//! "not there" and is decided anew. Disk full, damage and loss cost verifications, never a verdict.
//!
//! Evidence is kept content-addressed and hashed again when it is read. Its form is the caller's;
//! here it is bytes. The records and their form on disk are described in `record`, what memory keeps
//! of them in `memory`, and the file in which evidence travels in `archive`.

mod admissions;
mod age;
pub mod archive;
#[cfg(test)]
mod damage_tests;
mod engine;
mod evidence;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod load;
mod mark;
mod memory;
mod pages;
mod purge;
mod record;
#[cfg(test)]
mod tests;
mod verdicts;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use age::{Age, Clock, Stamp};
pub use archive::ImageName;
pub use engine::StoreError;
pub use evidence::{Held, Kept, NotKept, Origin};
pub use pages::{Listed, Page};
pub use purge::Selection;
pub use record::{Admission, VerdictKey};

use engine::{Engine, Job};
use export::WriteRecord;
use memory::{ImageKey, State};
use record::{Kind, encode, image_key};

/// Where the cache is and how much it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the database; the export lies beside it.
    pub path: PathBuf,
    /// Most verdicts, most admissions, most images with evidence, and most tags.
    pub max_entries: usize,
    /// Most bytes of evidence.
    pub max_size: u64,
    /// Until when a verdict needs no new look.
    pub fresh: Duration,
    /// Until when it is used while the registry is away.
    pub stale: Duration,
    /// How long a lock that another process holds is waited for.
    pub patience: Duration,
    /// The clocks.
    pub clock: Clock,
}

/// A handle to the cache; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    /// Also the cache thread's, which makes exports of it.
    state: Arc<Mutex<State>>,
    jobs: SyncSender<Job>,
    phase: watch::Sender<Phase>,
    thread: Mutex<Option<Thread>>,
}

/// The database thread.
struct Thread {
    handle: std::thread::JoinHandle<()>,
    /// Its sender goes with the thread.
    running: Receiver<()>,
}

/// Whether the database serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being opened; everything is decided anew.
    Opening,
    /// Open.
    Open,
    /// Cannot be opened; memory serves.
    MemoryOnly,
}

impl Phase {
    /// One word for status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::MemoryOnly => "memory only",
        }
    }
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Verdicts.
    pub verdicts: usize,
    /// Admissions.
    pub admissions: usize,
    /// Images with stored evidence.
    pub evidence: usize,
    /// Bytes of that evidence.
    pub evidence_bytes: u64,
}

impl Store {
    /// Starts opening the cache on a thread of its own and returns at once.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (store, jobs) = Self::prepare(options);
        store.run(move |shared| {
            let opened = open(&shared);
            if let Err(error) = &opened {
                tracing::error!(%error, "cache is not available: memory serves until restart");
                shared.phase.send_replace(Phase::MemoryOnly);
            }
            // It holds the sender: while the thread kept it, a store that is dropped would never end.
            drop(shared);
            match opened {
                Ok(engine) => engine.work(&jobs),
                Err(_) => ignore(&jobs),
            }
        });
        store
    }

    /// A cache without a disk, which ends with the process.
    #[must_use]
    pub fn in_memory(options: Options) -> Self {
        let (store, _closed) = Self::prepare(options);
        store.shared.phase.send_replace(Phase::MemoryOnly);
        store
    }

    /// Waits until the database was read, at most `patience`; whether it was, or never will be.
    pub async fn opened(&self, patience: Duration) -> bool {
        if self.phase() != Phase::Opening {
            return true;
        }
        let mut phase = self.shared.phase.subscribe();
        let opened = phase.wait_for(|phase| *phase != Phase::Opening);
        matches!(tokio::time::timeout(patience, opened).await, Ok(Ok(_)))
    }

    /// Opens the cache and waits until it is read.
    ///
    /// # Errors
    /// [`StoreError::Held`] if a daemon has it open, or [`StoreError::Unusable`].
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let (store, jobs) = Self::prepare(options);
        let engine = open(&store.shared)?;
        store.run(move |shared| {
            drop(shared);
            engine.work(&jobs);
        });
        Ok(store)
    }

    fn run(&self, work: impl FnOnce(Arc<Shared>) + Send + 'static) {
        let (alive, running) = sync_channel(1);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("pullgate-cache".to_owned()).spawn(move || {
            let _alive: SyncSender<()> = alive;
            work(shared);
        });
        match thread {
            Ok(handle) => *self.thread() = Some(Thread { handle, running }),
            Err(error) => {
                tracing::error!(%error, "cache has no thread: memory serves until restart");
                self.shared.phase.send_replace(Phase::MemoryOnly);
            }
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepare(options: Options) -> (Self, Receiver<Job>) {
        let (jobs, receiver) = sync_channel(QUEUE);
        let state = State::beginning((options.clock.now)());
        let shared = Shared {
            options,
            state: Arc::new(Mutex::new(state)),
            jobs,
            phase: watch::Sender::new(Phase::Opening),
            thread: Mutex::new(None),
        };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    /// Whether the database serves.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// Now, by the store's clocks.
    #[must_use]
    pub fn now(&self) -> Stamp {
        (self.shared.options.clock.now)()
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            verdicts: state.verdicts.len(),
            admissions: state.admissions.len(),
            evidence: state.evidence.len(),
            evidence_bytes: state.blob_bytes(),
        }
    }

    /// Waits until everything written so far is on disk; whether it is.
    pub async fn flush(&self) -> bool {
        let (answer, flushed) = tokio::sync::oneshot::channel();
        self.send(Job::Flush(answer));
        matches!(tokio::time::timeout(FLUSH_PATIENCE, flushed).await, Ok(Ok(true)))
    }

    /// Ends the thread after its last export. Blocks, at most half a minute: a disk that is full or
    /// hangs costs what was not written, not the end of the process.
    pub fn close(&self) {
        let Some(Thread { handle, running }) = self.thread().take() else { return };
        let give_up = Instant::now() + CLOSE_PATIENCE;
        // A full queue must not lose the word to stop.
        while let Err(TrySendError::Full(_)) = self.shared.jobs.try_send(Job::Close) {
            if Instant::now() >= give_up {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        match running.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("cache does not close: what the disk did not take yet is lost");
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(handle.join()),
        }
    }

    /// Whether a record of that time is not expired.
    #[must_use]
    pub fn is_current(&self, at: Stamp) -> bool {
        self.current(at).is_some()
    }

    fn current(&self, at: Stamp) -> Option<Age> {
        let options = &self.shared.options;
        match at.age(self.now(), options.fresh, options.stale) {
            Age::Expired => None,
            age @ (Age::Fresh | Age::Stale) => Some(age),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T: serde::Serialize>(&self, kind: Kind, rest: &[u8], record: &T) {
        let key = kind.key(rest);
        if let Some(sealed) = encode(&key, record) {
            self.send(Job::Put(key, sealed));
        }
    }

    fn remove_all(&self, kind: Kind, keys: impl IntoIterator<Item = Vec<u8>>) {
        self.send_surely(Job::Remove(keys.into_iter().map(|rest| kind.key(&rest)).collect()));
    }

    /// What is forgotten must not come back: a full queue is waited for, on a thread of its own.
    fn send_surely(&self, job: Job) {
        if matches!(&job, Job::Remove(keys) | Job::TakeBack(keys) if keys.is_empty()) {
            return;
        }
        if let Err(TrySendError::Full(job)) = self.shared.jobs.try_send(job) {
            let jobs = self.shared.jobs.clone();
            drop(std::thread::spawn(move || jobs.send(job)));
        }
    }

    fn remove_images(&self, kind: Kind, images: &[ImageKey]) {
        let keys = images.iter().map(|image| image_key(&image.repository, &image.digest).into_bytes());
        self.remove_all(kind, keys);
    }

    /// A queue that is full (a disk that hangs) drops the write: memory serves, nobody waits.
    fn send(&self, job: Job) {
        if self.shared.jobs.try_send(job).is_err() {
            tracing::debug!("cache queue is full: a write was dropped");
        }
    }
}

/// Whether a record outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It does.
    Durable,
    /// It does not (ignored admissions, rule C3).
    ThisProcess,
}

/// Opens the database and reads it; then the store is open.
fn open(shared: &Shared) -> Result<Engine, StoreError> {
    let options = &shared.options;
    if let Some(parent) = options.path.parent() {
        drop(std::fs::create_dir_all(parent));
    }
    let mut broken = Vec::new();
    let memory = Arc::clone(&shared.state);
    let records = Box::new(move |write: WriteRecord<'_>| load::write_all(&memory, write));
    let mut engine = Engine::open(&options.path, options.patience, records, &mut |key, sealed| {
        if !load::take_in(shared, key, sealed) {
            broken.push(key.to_vec());
        }
    })?;
    engine.do_it(Job::Remove(broken));
    shared.phase.send_replace(Phase::Open);
    Ok(engine)
}

/// Drains what is sent, so that nobody waits for an answer.
fn ignore(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Close => break,
            Job::Put(..) | Job::Remove(_) | Job::TakeBack(_) | Job::Get(..) | Job::Flush(_) => {}
        }
    }
}

/// How long a flush is.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last export is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// Writes that wait for the disk. A pull makes about five.
const QUEUE: usize = 4096;
