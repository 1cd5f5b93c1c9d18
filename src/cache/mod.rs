//! The cache of verified digests and of the evidence that they rest on (rules C1 to C6).
//!
//! It keeps allowing verdicts, admissions, tags and evidence; a denial cannot be written. Look-ups of
//! verdicts and admissions are answered from memory; writes go to memory first and then, through a
//! queue, to the database thread (`engine`). Until that thread has opened the database, everything is
//! "not there" and is decided anew. Disk full, damage and loss cost verifications, never a verdict.
//!
//! Evidence is kept content-addressed and hashed again when it is read. Its form is the caller's;
//! here it is bytes. The records and their form on disk are described in `record`.

mod age;
mod engine;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use age::{Age, Clock, Stamp};
pub use engine::StoreError;
pub use record::{Admission, VerdictKey};

use crate::oci::{Digest, Repository};
use engine::{Engine, Job};
use record::{EvidenceRecord, Kind, TagRecord, VerdictRecord, decode, encode, image_key, open, seal};

/// Where the cache is and how much it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the database; the export lies beside it.
    pub path: PathBuf,
    /// Most verdicts, and most admissions.
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
    state: Mutex<State>,
    jobs: SyncSender<Job>,
    phase: AtomicU8,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    verdicts: HashMap<Digest, (VerdictRecord, u64)>,
    admissions: HashMap<String, (Admission, u64)>,
    evidence: HashMap<String, (EvidenceRecord, u64)>,
    tags: HashMap<String, TagRecord>,
    blobs: HashMap<Digest, u64>,
    /// Images that are on the node: evicted last.
    present: BTreeSet<Digest>,
    uses: u64,
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
        let (store, open) = Self::prepare(options);
        let shared = Arc::clone(&store.shared);
        let thread = std::thread::Builder::new().name("pullgate-cache".to_owned()).spawn(move || match open
            .engine(&shared.options)
        {
            Ok(engine) => open.run(engine, &shared),
            Err(error) => {
                tracing::error!(%error, "cache is not available: memory serves until restart");
                shared.phase.store(Phase::MemoryOnly as u8, Ordering::Release);
                drop(shared);
                open.ignore();
            }
        });
        if let Ok(thread) = thread {
            *store.shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        store
    }

    /// A cache without a disk, which ends with the process.
    #[must_use]
    pub fn in_memory(options: Options) -> Self {
        let (store, _closed) = Self::prepare(options);
        store.shared.phase.store(Phase::MemoryOnly as u8, Ordering::Release);
        store
    }

    /// Waits until the database was read, at most `patience`; whether it was, or never will be.
    pub async fn opened(&self, patience: Duration) -> bool {
        let give_up = tokio::time::Instant::now() + patience;
        while self.phase() == Phase::Opening {
            if tokio::time::Instant::now() >= give_up {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Opens the cache and waits until it is read.
    ///
    /// # Errors
    /// [`StoreError::Held`] if a daemon has it open, or [`StoreError::Unusable`].
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let (store, open) = Self::prepare(options);
        let engine = open.engine(&store.shared.options)?;
        let shared = Arc::clone(&store.shared);
        let (ready, is_ready) = sync_channel(1);
        let thread = std::thread::Builder::new().name("pullgate-cache".to_owned()).spawn(move || {
            open.run_and_say(engine, &shared, Some(ready));
        });
        if let Ok(thread) = thread {
            *store.shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        // The sender is dropped when everything is read.
        let _ = is_ready.recv();
        Ok(store)
    }

    fn prepare(options: Options) -> (Self, Opening) {
        let (jobs, receiver) = sync_channel(QUEUE);
        let shared = Shared {
            options,
            state: Mutex::new(State::default()),
            jobs,
            phase: AtomicU8::new(Phase::Opening as u8),
            thread: Mutex::new(None),
        };
        (Self { shared: Arc::new(shared) }, Opening { receiver })
    }

    /// Whether the database serves.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.shared.phase.load(Ordering::Acquire) {
            0 => Phase::Opening,
            1 => Phase::Open,
            _ => Phase::MemoryOnly,
        }
    }

    /// Now, by the store's clocks.
    #[must_use]
    pub fn now(&self) -> Stamp {
        (self.shared.options.clock.now)()
    }

    /// The age of the verdict for `key`, if there is one that is not expired.
    #[must_use]
    pub fn verdict(&self, key: &VerdictKey) -> Option<Age> {
        let mut state = self.state();
        let used = state.tick();
        let (record, last) = state.verdicts.get_mut(&key.hash())?;
        if record.key != *key {
            return None;
        }
        *last = used;
        let at = record.at;
        drop(state);
        self.current(at)
    }

    /// Keeps an allowing verdict that rests on evidence of the time `at`.
    pub fn put_verdict(&self, key: VerdictKey, at: Stamp) {
        let hash = key.hash();
        let record = VerdictRecord { key, at };
        self.write(Kind::Verdict, hash.as_bytes(), &record);
        let mut state = self.state();
        let used = state.tick();
        state.verdicts.insert(hash, (record, used));
        let removed = state.evict_verdicts(self.shared.options.max_entries);
        drop(state);
        self.remove_all(Kind::Verdict, removed.iter().map(|hash| hash.as_bytes().to_vec()));
    }

    /// Records that an image was admitted, keeping the pullers of an earlier admission.
    pub fn admit(&self, mut admission: Admission, durable: Durability) {
        let key = image_key(&admission.repository, &admission.digest);
        let mut state = self.state();
        let used = state.tick();
        if let Some((known, _)) = state.admissions.get(&key) {
            for puller in &known.pulled_by {
                if !admission.pulled_by.contains(puller) && admission.pulled_by.len() < PULLERS {
                    admission.pulled_by.push(*puller);
                }
            }
        }
        state.admissions.insert(key.clone(), (admission.clone(), used));
        let removed = state.evict_admissions(self.shared.options.max_entries);
        drop(state);
        if durable == Durability::Durable {
            self.write(Kind::Admission, key.as_bytes(), &admission);
        }
        self.remove_all(Kind::Admission, removed.into_iter().map(String::into_bytes));
    }

    /// The admission of an image.
    #[must_use]
    pub fn admission(&self, repository: &Repository, digest: &Digest) -> Option<Admission> {
        let mut state = self.state();
        let used = state.tick();
        let (admission, last) = state.admissions.get_mut(&image_key(repository, digest))?;
        *last = used;
        Some(admission.clone())
    }

    /// The admissions whose image id starts with `prefix`; `sha256:` may be left out.
    #[must_use]
    pub fn admissions_of_id(&self, prefix: &str) -> Vec<Admission> {
        let digits = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
        let wanted = digits(prefix);
        let state = self.state();
        let is_it = |id: &str| !wanted.is_empty() && digits(id).starts_with(&wanted);
        let all = state.admissions.values().map(|(admission, _)| admission);
        all.filter(|admission| admission.image_id.as_deref().is_some_and(is_it)).cloned().collect()
    }

    /// Every admission of a repository.
    #[must_use]
    pub fn admissions_in(&self, repository: &Repository) -> Vec<Admission> {
        let state = self.state();
        let all = state.admissions.values().map(|(admission, _)| admission);
        all.filter(|admission| admission.repository == *repository).cloned().collect()
    }

    /// Every admission, sorted by image.
    #[must_use]
    pub fn admissions(&self) -> Vec<Admission> {
        let state = self.state();
        let mut all: Vec<_> = state.admissions.values().map(|(admission, _)| admission.clone()).collect();
        drop(state);
        all.sort_by(|left, right| (&left.repository, &left.digest).cmp(&(&right.repository, &right.digest)));
        all
    }

    /// Takes an admission back.
    pub fn withdraw(&self, repository: &Repository, digest: &Digest) {
        let key = image_key(repository, digest);
        self.state().admissions.remove(&key);
        self.remove_all(Kind::Admission, [key.into_bytes()]);
    }

    /// Keeps what verdicts about an image rest on, in place of what was kept before.
    pub fn put_evidence(&self, repository: &Repository, digest: &Digest, pieces: Vec<Vec<u8>>) {
        let key = image_key(repository, digest);
        let blobs: Vec<_> = pieces.iter().map(|piece| Digest::of(piece)).collect();
        for (blob, piece) in blobs.iter().zip(&pieces) {
            let key = Kind::Blob.key(blob.as_bytes());
            let sealed = seal(&key, piece);
            self.send(Job::Put(key, sealed));
        }
        let record = EvidenceRecord { blobs: blobs.clone(), at: self.now() };
        self.write(Kind::Evidence, key.as_bytes(), &record);
        let mut state = self.state();
        let used = state.tick();
        for (blob, piece) in blobs.into_iter().zip(&pieces) {
            state.blobs.insert(blob, u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        state.evidence.insert(key, (record, used));
        let (sets, blobs) = state.evict_evidence(self.shared.options.max_size);
        drop(state);
        self.remove_all(Kind::Evidence, sets.into_iter().map(String::into_bytes));
        self.remove_all(Kind::Blob, blobs.into_iter().map(|blob| blob.as_bytes().to_vec()));
    }

    /// What verdicts about an image rest on, and how old it is. `None` unless every piece is there
    /// and has its own digest.
    pub async fn evidence(&self, repository: &Repository, digest: &Digest) -> Option<Kept> {
        let record = {
            let mut state = self.state();
            let used = state.tick();
            let (record, last) = state.evidence.get_mut(&image_key(repository, digest))?;
            *last = used;
            record.clone()
        };
        let age = self.current(record.at)?;
        let mut pieces = Vec::new();
        for blob in &record.blobs {
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
        Some(Kept { pieces, age, at: record.at })
    }

    /// Remembers which digest a tag was verified as.
    pub fn put_tag(&self, name: &str, digest: Digest) {
        let record = TagRecord { digest, at: self.now() };
        self.write(Kind::Tag, name.as_bytes(), &record);
        let mut state = self.state();
        state.tags.insert(name.to_owned(), record);
        let mut removed = Vec::new();
        if state.tags.len() > self.shared.options.max_entries {
            let mut all: Vec<_> =
                state.tags.iter().map(|(name, tag)| (tag.at.seconds(), name.clone())).collect();
            all.sort_unstable();
            removed.extend(all.into_iter().take(1 + state.tags.len() / 10).map(|(_, name)| name));
            for name in &removed {
                state.tags.remove(name);
            }
        }
        drop(state);
        self.remove_all(Kind::Tag, removed.into_iter().map(String::into_bytes));
    }

    /// The digest a tag was last verified as, if that is not expired.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<Digest> {
        let record = self.state().tags.get(name).cloned()?;
        self.current(record.at).map(|_| record.digest)
    }

    /// Says which images are on the node: they are evicted last (rule C5).
    pub fn mark_present(&self, digests: BTreeSet<Digest>) {
        self.state().present = digests;
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            verdicts: state.verdicts.len(),
            admissions: state.admissions.len(),
            evidence: state.evidence.len(),
            evidence_bytes: state.blobs.values().sum(),
        }
    }

    /// Forgets what `which` names, and says how many admissions that were.
    pub fn purge(&self, which: &Purge) -> usize {
        let mut state = self.state();
        let (mut admissions, mut verdicts, mut evidence) = (Vec::new(), Vec::new(), Vec::new());
        for (key, (admission, _)) in &state.admissions {
            if which.names(&admission.repository, &admission.digest) {
                admissions.push(key.clone());
            }
        }
        for (hash, (verdict, _)) in &state.verdicts {
            if which.names(&verdict.key.repository, &verdict.key.digest) {
                verdicts.push(*hash);
            }
        }
        for key in state.evidence.keys() {
            if which.names_key(key) {
                evidence.push(key.clone());
            }
        }
        let tags: Vec<String> = match which {
            Purge::Everything => state.tags.keys().cloned().collect(),
            Purge::Repository(repository) | Purge::Image(repository, _) => {
                let start = format!("{repository}:");
                state.tags.keys().filter(|name| name.starts_with(&start)).cloned().collect()
            }
        };
        for key in &admissions {
            state.admissions.remove(key);
        }
        for hash in &verdicts {
            state.verdicts.remove(hash);
        }
        for key in &evidence {
            state.evidence.remove(key);
        }
        for name in &tags {
            state.tags.remove(name);
        }
        let (_, blobs) = state.evict_evidence(self.shared.options.max_size);
        drop(state);
        let count = admissions.len();
        self.remove_all(Kind::Admission, admissions.into_iter().map(String::into_bytes));
        self.remove_all(Kind::Verdict, verdicts.iter().map(|hash| hash.as_bytes().to_vec()));
        self.remove_all(Kind::Evidence, evidence.into_iter().map(String::into_bytes));
        self.remove_all(Kind::Tag, tags.into_iter().map(String::into_bytes));
        self.remove_all(Kind::Blob, blobs.iter().map(|blob| blob.as_bytes().to_vec()));
        count
    }

    /// Waits until everything written so far is on disk; whether it is.
    pub async fn flush(&self) -> bool {
        let (answer, flushed) = tokio::sync::oneshot::channel();
        self.send(Job::Flush(answer));
        matches!(tokio::time::timeout(FLUSH_PATIENCE, flushed).await, Ok(Ok(true)))
    }

    /// Ends the thread after its last export. Blocks; called at the end of the process.
    pub fn close(&self) {
        // A full queue must not lose the word to stop.
        drop(self.shared.jobs.send(Job::Close));
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
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
        let keys: Vec<_> = keys.into_iter().map(|rest| kind.key(&rest)).collect();
        if keys.is_empty() {
            return;
        }
        // What is forgotten must not come back: a full queue is waited for, on a thread of its own.
        if let Err(TrySendError::Full(job)) = self.shared.jobs.try_send(Job::Remove(keys)) {
            let jobs = self.shared.jobs.clone();
            drop(std::thread::spawn(move || jobs.send(job)));
        }
    }

    /// A queue that is full (a disk that hangs) drops the write: memory serves, nobody waits.
    fn send(&self, job: Job) {
        if self.shared.jobs.try_send(job).is_err() {
            tracing::debug!("cache queue is full: a write was dropped");
        }
    }
}

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

/// Whether a record outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It does.
    Durable,
    /// It does not (ignored admissions, rule C3).
    ThisProcess,
}

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// All of it.
    Everything,
    /// One repository.
    Repository(Repository),
    /// One image.
    Image(Repository, Digest),
}

impl Purge {
    fn names(&self, repository: &Repository, digest: &Digest) -> bool {
        match self {
            Self::Everything => true,
            Self::Repository(wanted) => wanted == repository,
            Self::Image(wanted, image) => wanted == repository && image == digest,
        }
    }

    fn names_key(&self, key: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Repository(wanted) => {
                key.rsplit_once('@').is_some_and(|(name, _)| name == wanted.to_string())
            }
            Self::Image(wanted, image) => key == image_key(wanted, image),
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn evict_verdicts(&mut self, most: usize) -> Vec<Digest> {
        if self.verdicts.len() <= most {
            return Vec::new();
        }
        let present = &self.present;
        let mut all: Vec<_> = self
            .verdicts
            .iter()
            .map(|(hash, (record, used))| ((present.contains(&record.key.digest), *used), *hash))
            .collect();
        all.sort_unstable();
        // A tenth at once, so that a full cache does not sort for each new verdict.
        let removed: Vec<_> =
            all.into_iter().take(self.verdicts.len() - most + most / 10).map(|(_, hash)| hash).collect();
        for hash in &removed {
            self.verdicts.remove(hash);
        }
        removed
    }

    fn evict_admissions(&mut self, most: usize) -> Vec<String> {
        if self.admissions.len() <= most {
            return Vec::new();
        }
        let present = &self.present;
        let mut all: Vec<_> = self
            .admissions
            .iter()
            .map(|(key, (admission, used))| ((present.contains(&admission.digest), *used), key.clone()))
            .collect();
        all.sort_unstable();
        let removed: Vec<_> =
            all.into_iter().take(self.admissions.len() - most + most / 10).map(|(_, key)| key).collect();
        for key in &removed {
            self.admissions.remove(key);
        }
        removed
    }

    /// Drops the oldest sets of evidence until the rest fits, and the blobs that no set names.
    fn evict_evidence(&mut self, most: u64) -> (Vec<String>, Vec<Digest>) {
        let mut sets = Vec::new();
        let mut size: u64 = self.blobs.values().sum();
        if size > most {
            let mut all: Vec<_> = self.evidence.iter().map(|(key, (_, used))| (*used, key.clone())).collect();
            all.sort_unstable();
            for (_, key) in all {
                if size <= most {
                    break;
                }
                if let Some((record, _)) = self.evidence.remove(&key) {
                    let freed: u64 = record.blobs.iter().filter_map(|blob| self.blobs.get(blob)).sum();
                    size = size.saturating_sub(freed);
                }
                sets.push(key);
            }
        }
        let named: BTreeSet<Digest> =
            self.evidence.values().flat_map(|(record, _)| record.blobs.iter().copied()).collect();
        let orphans: Vec<_> = self.blobs.keys().filter(|blob| !named.contains(blob)).copied().collect();
        for blob in &orphans {
            self.blobs.remove(blob);
        }
        (sets, orphans)
    }
}

struct Opening {
    receiver: std::sync::mpsc::Receiver<Job>,
}

impl Opening {
    fn engine(&self, options: &Options) -> Result<Engine, StoreError> {
        if let Some(parent) = options.path.parent() {
            drop(std::fs::create_dir_all(parent));
        }
        Engine::open(&options.path, options.patience)
    }

    fn run(self, engine: Engine, shared: &Arc<Shared>) {
        self.run_and_say(engine, shared, None);
    }

    fn run_and_say(self, mut engine: Engine, shared: &Arc<Shared>, ready: Option<SyncSender<()>>) {
        load(&mut engine, shared);
        shared.phase.store(Phase::Open as u8, Ordering::Release);
        drop(ready);
        engine.work(&self.receiver);
    }

    /// Drains what is sent, so that nobody waits for an answer.
    fn ignore(self) {
        while let Ok(job) = self.receiver.recv() {
            match job {
                Job::Close => break,
                Job::Put(..) | Job::Remove(_) | Job::Get(..) | Job::Flush(_) => {}
            }
        }
    }
}

/// Reads every small record into memory; what was written since the start is newer and stays.
fn load(engine: &mut Engine, shared: &Shared) {
    for (key, sealed) in engine.small_records() {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = key.get(1..).unwrap_or_default();
        let text = || String::from_utf8(rest.to_vec()).ok();
        let kept = match Kind::of(&key) {
            Some(Kind::Verdict) => decode::<VerdictRecord>(&key, &sealed).is_some_and(|record| {
                let hash = record.key.hash();
                let own = rest == hash.as_bytes();
                if own {
                    state.verdicts.entry(hash).or_insert((record, 0));
                }
                own
            }),
            Some(Kind::Admission) => {
                decode::<Admission>(&key, &sealed).zip(text()).is_some_and(|(record, name)| {
                    let own = name == image_key(&record.repository, &record.digest);
                    if own {
                        state.admissions.entry(name).or_insert((record, 0));
                    }
                    own
                })
            }
            Some(Kind::Evidence) => {
                decode::<EvidenceRecord>(&key, &sealed).zip(text()).is_some_and(|(record, name)| {
                    for blob in &record.blobs {
                        // Its size is not known before it is read; an ordinary signature's stands for it.
                        state.blobs.entry(*blob).or_insert(ORDINARY_BLOB);
                    }
                    state.evidence.entry(name).or_insert((record, 0));
                    true
                })
            }
            Some(Kind::Tag) => {
                decode::<TagRecord>(&key, &sealed).zip(text()).is_some_and(|(record, name)| {
                    state.tags.entry(name).or_insert(record);
                    true
                })
            }
            Some(Kind::Blob) | None => true,
        };
        drop(state);
        if !kept {
            tracing::warn!("a cache record does not check out and is dropped");
            engine.remove(&key);
        }
    }
}

/// How long a read from the database is waited for.
const DISK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a flush is.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// Writes that wait for the disk. A pull makes about five.
const QUEUE: usize = 4096;
/// Keyed hashes of credentials kept for one image.
const PULLERS: usize = 16;
/// Bytes of a simple-signing layer with its annotations.
const ORDINARY_BLOB: u64 = 2048;
