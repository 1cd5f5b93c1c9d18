//! The database thread: the only place that touches sled and the export file.
//!
//! The database is open while it is used and closed when it rests: memory answers everything that is
//! asked often, and sled keeps what it once read, several times the size of that (its cache drops
//! nothing before some 16 000 pages were asked for). For the same reason memory is read from the
//! export ([`Export`]) where that says what the database says: after an orderly end, and mostly after
//! a crash. A lock file beside it (`<path>.lock`) keeps other processes out all the time.
//!
//! sled 0.34 may panic on damaged files and promises no format, so it is opened and used behind
//! `catch_unwind`, on one thread of its own. What it cannot open, unless another process holds it or
//! the system refuses it for now (a full disk, no descriptors), is moved aside (`<path>.damaged-1`, `-2`;
//! older ones are deleted) and rebuilt from the last export. Losing both costs verifications, never a wrong
//! verdict. What was taken back does not come back by that ([`mark`]).

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::export::{Export, WriteRecord};
use super::mark::{self, Mark};
use super::record::Kind;

/// What the store asks of its thread.
pub(super) enum Job {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<Vec<u8>>),
    /// Removes what must not come back, whatever is lost.
    TakeBack(Vec<Vec<u8>>),
    Get(Vec<u8>, tokio::sync::oneshot::Sender<Option<Vec<u8>>>),
    Flush(tokio::sync::oneshot::Sender<bool>),
    Close,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{path} is held by a running daemon")]
    Held {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be opened even after it was moved aside.
    #[error("{path} cannot be opened: {cause}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What sled said.
        cause: String,
    },
}

/// Writes every record that memory keeps and that outlives the process.
pub(super) type Records = Box<dyn Fn(WriteRecord<'_>) -> io::Result<()> + Send>;

/// The database, open while it is used.
pub(super) struct Engine {
    path: PathBuf,
    /// Held as long as the engine lives, also while the database is closed.
    _lock: File,
    db: Option<sled::Db>,
    export: Export,
    /// What the database and exports carry that are read.
    mark: Mark,
    /// What could not be taken back yet.
    pending: Pending,
    records: Records,
    /// How long it must be idle before it is closed.
    rest: Duration,
    used: Instant,
    /// Since when the database says more than the export.
    outdated: Option<Instant>,
    failing: bool,
    /// When it could last not be opened.
    refused: Option<Instant>,
    /// Writes that failed since the start.
    pub(super) faults: u64,
}

/// Removals that the disk could not be told of yet.
#[derive(Default)]
struct Pending {
    keys: BTreeSet<Vec<u8>>,
    /// The marks that the database may carry.
    marks: Vec<Mark>,
    /// Whether no export is read since that has them.
    outdated: bool,
    /// Whether the file has a new mark since.
    marked: bool,
    /// When the disk was last told.
    tried: Option<Instant>,
}

enum Opened {
    Fine(sled::Db),
    Locked,
    /// By the system, which says nothing of what is in it.
    Refused(String),
    Damaged(String),
}

/// What is done with each record while the database is read (blobs are not).
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

impl Engine {
    /// Takes the database at `path`, waiting `patience` for a lock that another process holds, and
    /// shows every record but the blobs to `visit`. Exports are made of `records`.
    pub(super) fn open(
        path: &Path,
        patience: Duration,
        records: Records,
        visit: Visit<'_>,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let lock = lock(path, now + patience)?;
        let mark = mark::read(&with_ending(path, ".mark")).map_err(|error| unusable(path, &error))?;
        let mut engine = Self {
            path: path.to_owned(),
            _lock: lock,
            db: None,
            export: Export::of(path),
            mark,
            pending: Pending::default(),
            records,
            rest: REST,
            used: now,
            outdated: None,
            failing: false,
            refused: None,
            faults: 0,
        };
        if !engine.export.read_current(&mark, visit) {
            engine.reopen(now + patience, Some(visit))?;
            engine.outdated = Some(now);
        }
        Ok(engine)
    }

    fn reopen(&mut self, give_up: Instant, mut visit: Option<Visit<'_>>) -> Result<(), StoreError> {
        let start = Instant::now();
        // One that is there but empty was emptied: reading the export would undo a purge.
        let (mut moved, mut rebuilt) = (false, !self.path.exists());
        let db = loop {
            match open_guarded(&self.path, &self.mark, &self.pending.marks, again(&mut visit)) {
                Opened::Fine(db) => break db,
                Opened::Locked if Instant::now() < give_up => std::thread::sleep(LOCK_PAUSE),
                Opened::Locked => return Err(StoreError::Held { path: self.path.clone() }),
                Opened::Refused(cause) => {
                    return Err(StoreError::Unusable { path: self.path.clone(), cause });
                }
                Opened::Damaged(cause) if moved => {
                    return Err(StoreError::Unusable { path: self.path.clone(), cause });
                }
                Opened::Damaged(cause) => {
                    tracing::error!(path = %self.path.display(), cause, "cache is damaged: moved aside and rebuilt from its last export");
                    move_aside(&self.path).map_err(|error| unusable(&self.path, &error))?;
                    (moved, rebuilt) = (true, true);
                }
            }
        };
        self.db = Some(db);
        // A large one takes long to open: it stays open longer.
        self.rest = REST.max(start.elapsed() * REST_FACTOR);
        self.used = Instant::now();
        if rebuilt {
            let export = Export::of(&self.path);
            export.read_any(&self.mark.clone(), &mut |key, value| {
                if let Some(visit) = again(&mut visit) {
                    visit(key, value);
                }
                self.insert(key, value);
            });
        }
        Ok(())
    }

    /// Drops the database, and with it the memory that it takes (its page table, buffers, threads),
    /// once nothing has needed it for a while.
    fn close_if_idle(&mut self) {
        if self.db.is_some() && self.outdated.is_none() && self.used.elapsed() >= self.rest {
            self.guarded(|db| db.flush());
            self.close();
        }
    }

    fn close(&mut self) {
        let db = self.db.take();
        // Dropping it may write, and so may panic.
        drop(std::panic::catch_unwind(AssertUnwindSafe(|| drop(db))));
    }

    /// Works until the store is gone or says so.
    pub(super) fn work(mut self, jobs: &Receiver<Job>) {
        loop {
            let wait = match (self.outdated, &self.db) {
                (Some(since), _) => EXPORT_EVERY.saturating_sub(since.elapsed()),
                (None, Some(_)) => self.rest.saturating_sub(self.used.elapsed()),
                (None, None) => NEVER,
            };
            let wait = if self.pending.keys.is_empty() { wait } else { wait.min(AGAIN) };
            match jobs.recv_timeout(wait) {
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(job) => self.do_it(job),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.settle_in_time();
            if self.outdated.is_some_and(|since| since.elapsed() >= EXPORT_EVERY) {
                self.export();
            }
            self.close_if_idle();
        }
        self.refused = None;
        self.settle();
        if self.outdated.is_some() {
            self.export();
        }
        if self.db.is_some() {
            self.guarded(|db| db.flush());
        }
    }

    /// Does one job; [`Job::Close`] is for [`Engine::work`] alone.
    pub(super) fn do_it(&mut self, job: Job) {
        match job {
            Job::Put(key, value) => self.put(&key, &value),
            Job::Remove(keys) => keys.iter().for_each(|key| self.remove(key)),
            Job::TakeBack(keys) => self.take_back(keys),
            Job::Get(key, answer) => {
                let taken_back = self.pending.keys.contains(&key);
                let value = if taken_back { None } else { self.guarded(|db| db.get(&key)).flatten() };
                drop(answer.send(value.map(|value| value.to_vec())));
            }
            // What was written before it was closed was flushed then.
            Job::Flush(answer) => {
                let flushed = self.settle()
                    && match self.db {
                        Some(_) => self.guarded(|db| db.flush()).is_some(),
                        None => !self.failing,
                    };
                let _ = answer.send(flushed);
            }
            Job::Close => {}
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let written = self.settle_in_time() && self.outdate() && self.insert(key, value);
        self.say_once(written);
    }

    fn remove(&mut self, key: &[u8]) {
        let written = self.settle_in_time() && self.outdate() && self.guarded(|db| db.remove(key)).is_some();
        self.say_once(written);
    }

    /// What cannot be written at once is made up for before anything else is.
    fn take_back(&mut self, keys: Vec<Vec<u8>>) {
        self.pending.keys.extend(keys);
        if !self.pending.marks.contains(&self.mark) {
            self.pending.marks.push(self.mark);
        }
        (self.pending.outdated, self.pending.marked) = (false, false);
        let settled = self.settle();
        self.say_once(settled);
    }

    /// The same as [`Self::settle`], not more often than a disk that takes nothing may be asked.
    fn settle_in_time(&mut self) -> bool {
        let just_tried = self.pending.tried.is_some_and(|since| since.elapsed() < AGAIN);
        let just_tried = just_tried && self.db.is_none();
        self.pending.keys.is_empty() || (!just_tried && self.settle())
    }

    /// Tells the disk of what is pending; whether nothing is any more.
    ///
    /// The mark's file comes before the database and the mark in there last: after a crash in between nothing is
    /// read rather than what was taken back. It is opened first, which may take long. While the process lives, all
    /// else is served.
    fn settle(&mut self) -> bool {
        if self.pending.keys.is_empty() {
            return true;
        }
        self.pending.tried = Some(Instant::now());
        self.pending.outdated = self.pending.outdated || self.outdate();
        let open = self.guarded(|_| Ok(())).is_some();
        if !self.pending.marked {
            match mark::renew(&with_ending(&self.path, ".mark")) {
                Ok(mark) => (self.mark, self.pending.marked) = (mark, true),
                Err(error) => tracing::debug!(%error, "cache mark"),
            }
        }
        // Again, since an export may have come in between that lacks what was not written meanwhile.
        if !open || !self.pending.marked || !self.outdate() {
            return false;
        }
        let mut removals = sled::Batch::default();
        self.pending.keys.iter().for_each(|key| removals.remove(key.as_slice()));
        let mark = self.mark;
        let written = self.guarded(|db| {
            db.apply_batch(removals)?;
            db.flush()?;
            db.insert(MARK, mark.as_slice())?;
            db.flush()
        });
        if written.is_some() {
            self.pending = Pending::default();
            self.failing = false;
        } else {
            // After an error sled takes nothing more: it is opened again.
            self.close();
            self.refused = Some(Instant::now());
        }
        written.is_some()
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.guarded(|db| db.insert(key, value)).is_some()
    }

    /// The next start must not read an export that lacks what is written now.
    fn outdate(&mut self) -> bool {
        if self.outdated.is_some() {
            return true;
        }
        let outdated = self.export.outdate();
        if let Err(error) = &outdated {
            tracing::debug!(%error, "cache export");
        } else {
            self.outdated = Some(Instant::now());
        }
        outdated.is_ok()
    }

    /// Disk full and the like are said once a burst; memory serves until restart.
    fn say_once(&mut self, written: bool) {
        if !written {
            self.faults += 1;
        }
        if !written && !self.failing {
            tracing::error!(path = %self.path.display(), "cache cannot be written: memory serves until restart");
        }
        self.failing = !written;
    }

    /// Works on the database, opening it if need be.
    fn guarded<T>(&mut self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        self.used = Instant::now();
        if self.db.is_none() {
            if self.refused.is_some_and(|since| since.elapsed() < AGAIN) {
                return None;
            }
            let opened = self.reopen(self.used, None);
            self.refused = opened.is_err().then(Instant::now);
            if let Err(error) = opened {
                tracing::debug!(%error, "cache database");
                return None;
            }
        }
        let db = self.db.as_ref()?;
        match std::panic::catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cache database");
                None
            }
            Err(_) => None,
        }
    }

    fn export(&mut self) {
        self.guarded(|db| db.flush());
        match self.export.write(&self.mark, &self.records) {
            Ok(()) => self.outdated = None,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cache export cannot be written");
                // Tried again after as long; the database has everything meanwhile.
                self.outdated = Some(Instant::now());
            }
        }
    }
}

/// The same visitor, borrowed for a moment.
fn again<'a>(visit: &'a mut Option<Visit<'_>>) -> Option<Visit<'a>> {
    match visit {
        Some(visit) => Some(&mut **visit),
        None => None,
    }
}

/// Takes the lock beside the database. sled has one of its own, but lets go of it when it is closed.
fn lock(path: &Path, give_up: Instant) -> Result<File, StoreError> {
    let file = File::create(with_ending(path, ".lock")).map_err(|error| unusable(path, &error))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Held { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
        }
    }
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unusable { path: path.to_owned(), cause: error.to_string() }
}

/// `before` are marks that are taken too.
fn open_guarded(path: &Path, mark: &Mark, before: &[Mark], visit: Option<Visit<'_>>) -> Opened {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).mode(sled::Mode::LowSpace);
    // Opening walks the log; reading finds what opening does not look at. Blobs are most of the
    // database and are read, and checked, one at a time when they are needed.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let db = config.open()?;
        if !db.was_recovered() {
            db.insert(MARK, mark.as_slice())?;
            // Without it the database would not be read again.
            db.flush()?;
        } else if db.get(MARK)?.is_none_or(|found| found != mark && !before.iter().any(|mark| found == mark))
        {
            return Err(sled::Error::Unsupported(OLDER.to_owned()));
        }
        if let Some(visit) = visit {
            for kind in SMALL {
                for pair in db.scan_prefix([kind.letter()]) {
                    let (key, value) = pair?;
                    visit(&key, &value);
                }
            }
        }
        Ok::<_, sled::Error>(db)
    }));
    match opened {
        Ok(Ok(db)) => Opened::Fine(db),
        Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Opened::Locked,
        Ok(Err(sled::Error::Io(error))) if is_passing(&error) => Opened::Refused(error.to_string()),
        Ok(Err(error)) => Opened::Damaged(error.to_string()),
        Err(_) => Opened::Damaged("reading it panicked".to_owned()),
    }
}

/// A disk that is full and a want of descriptors or of rights pass: they are no damage.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
        || matches!(
            error.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::Interrupted
        )
}

/// sled wraps the failed lock into an error of kind Other whose text names it.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn move_aside(path: &Path) -> io::Result<()> {
    let (first, second) = (with_ending(path, ".damaged-1"), with_ending(path, ".damaged-2"));
    if first.exists() {
        if second.exists() {
            remove_any(&second)?;
        }
        std::fs::rename(&first, &second)?;
    }
    std::fs::rename(path, &first)
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Rule C4: the export is at most this far behind.
const EXPORT_EVERY: Duration = Duration::from_secs(10);
/// The kinds of record that memory keeps and the export carries: all but blobs.
const SMALL: [Kind; 4] = [Kind::Admission, Kind::Evidence, Kind::Tag, Kind::Verdict];
/// The key of the mark, which is of no kind of record.
const MARK: &[u8] = b"mark";
const OLDER: &str = "it is from before something was taken back";
/// How long the database stays open after its last use, at least.
const REST: Duration = Duration::from_secs(10);
/// And at least as many times as long as opening it takes: then that is a twentieth of the time.
const REST_FACTOR: u32 = 20;
/// Before one that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// A closed database has nothing to do but what it is asked.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// sled's page cache; verdicts and admissions are served from our own maps.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
