//! The database thread: the only place that touches sled and the export file.
//!
//! sled 0.34 may panic on damaged files and promises no format, so it is opened and used behind
//! `catch_unwind`, on one thread of its own. What it cannot open, unless another process holds it,
//! is moved aside (`<path>.damaged-1`, `-2`; older ones are deleted) and rebuilt from the export: a
//! file of all small records, written at most every [`EXPORT_EVERY`] (temporary file, fsync,
//! rename) as `[digest of the rest: 32 bytes]` and then `[key length][key][value length][value]`, lengths
//! in 4 bytes little endian. Losing both costs verifications, never a wrong verdict.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::record::Kind;
use crate::oci::Digest;

/// What the store asks of its thread.
pub(super) enum Job {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<Vec<u8>>),
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

/// An open database.
pub(super) struct Engine {
    db: sled::Db,
    export: PathBuf,
    dirty: bool,
    exported: Instant,
    failing: bool,
    /// Writes that failed since the start.
    pub(super) faults: u64,
}

enum Opened {
    Fine(sled::Db),
    Locked,
    Damaged(String),
}

impl Engine {
    /// Opens the database at `path`, waiting `patience` for a lock that another process holds.
    pub(super) fn open(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let give_up = Instant::now() + patience;
        let mut rebuilt = false;
        let db = loop {
            match open_guarded(path) {
                Opened::Fine(db) => break db,
                Opened::Locked if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(50)),
                Opened::Locked => return Err(StoreError::Held { path: path.to_owned() }),
                Opened::Damaged(cause) if rebuilt => {
                    return Err(StoreError::Unusable { path: path.to_owned(), cause });
                }
                Opened::Damaged(cause) => {
                    tracing::error!(path = %path.display(), cause, "cache is damaged: moved aside and rebuilt from its last export");
                    move_aside(path).map_err(|error| StoreError::Unusable {
                        path: path.to_owned(),
                        cause: error.to_string(),
                    })?;
                    rebuilt = true;
                }
            }
        };
        let export = with_ending(path, ".export");
        let mut engine =
            Self { db, export, dirty: false, exported: Instant::now(), failing: false, faults: 0 };
        if rebuilt || engine.guarded(|db| Ok(db.is_empty())).unwrap_or(true) {
            for (key, value) in read_export(&engine.export).unwrap_or_default() {
                engine.put(&key, &value);
            }
        }
        Ok(engine)
    }

    /// Every record but the blobs.
    pub(super) fn small_records(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.guarded(|db| {
            let pairs = db.iter().filter_map(Result::ok);
            let small = pairs.filter(|(key, _)| Kind::of(key).is_some_and(|kind| kind != Kind::Blob));
            Ok(small.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
        });
        all.unwrap_or_default()
    }

    /// Works until the store is gone or says so.
    pub(super) fn work(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(EXPORT_EVERY) {
                Ok(Job::Put(key, value)) => self.put(&key, &value),
                Ok(Job::Remove(keys)) => keys.iter().for_each(|key| self.remove(key)),
                Ok(Job::Get(key, answer)) => {
                    let value = self.guarded(|db| db.get(&key)).flatten().map(|value| value.to_vec());
                    drop(answer.send(value));
                }
                Ok(Job::Flush(answer)) => {
                    let flushed = self.guarded(|db| db.flush()).is_some();
                    let _ = answer.send(flushed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.dirty && self.exported.elapsed() >= EXPORT_EVERY {
                self.export();
            }
        }
        if self.dirty {
            self.export();
        }
        self.guarded(|db| db.flush());
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let written = self.guarded(|db| db.insert(key, value)).is_some();
        self.dirty = true;
        self.say_once(written);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let written = self.guarded(|db| db.remove(key)).is_some();
        self.dirty = true;
        self.say_once(written);
    }

    /// Disk full and the like are said once a burst; memory serves until restart.
    fn say_once(&mut self, written: bool) {
        if !written {
            self.faults += 1;
        }
        if !written && !self.failing {
            tracing::error!(path = %self.export.display(), "cache cannot be written: memory serves until restart");
        }
        self.failing = !written;
    }

    fn guarded<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work(&self.db))) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cache database");
                None
            }
            Err(_) => None,
        }
    }

    fn export(&mut self) {
        let mut body = Vec::new();
        for (key, value) in self.small_records() {
            for part in [key, value] {
                body.extend_from_slice(&u32::try_from(part.len()).unwrap_or(0).to_le_bytes());
                body.extend_from_slice(&part);
            }
        }
        let temporary = with_ending(&self.export, ".new");
        let written = std::fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(Digest::of(&body).as_bytes())?;
            file.write_all(&body)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.export)
        });
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.export.display(), "cache export cannot be written");
        }
        self.dirty = false;
        self.exported = Instant::now();
    }
}

fn open_guarded(path: &Path) -> Opened {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).mode(sled::Mode::LowSpace);
    // Opening walks the log; reading once more finds what opening does not look at.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let db = config.open()?;
        for pair in db.iter() {
            pair?;
        }
        Ok::<_, sled::Error>(db)
    }));
    match opened {
        Ok(Ok(db)) => Opened::Fine(db),
        Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Opened::Locked,
        Ok(Err(error)) => Opened::Damaged(error.to_string()),
        Err(_) => Opened::Damaged("reading it panicked".to_owned()),
    }
}

/// sled wraps the failed lock into an error of kind Other whose text names it.
fn is_lock(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn move_aside(path: &Path) -> std::io::Result<()> {
    let (first, second) = (with_ending(path, ".damaged-1"), with_ending(path, ".damaged-2"));
    if first.exists() {
        if second.exists() {
            remove_any(&second)?;
        }
        std::fs::rename(&first, &second)?;
    }
    std::fs::rename(path, &first)
}

fn remove_any(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

fn read_export(path: &Path) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = std::fs::read(path).ok()?;
    let (sum, mut rest) = bytes.split_at_checked(32)?;
    if Digest::of(rest).as_bytes() != sum {
        tracing::error!(path = %path.display(), "cache export is damaged: starting empty");
        return None;
    }
    let mut records = Vec::new();
    while !rest.is_empty() {
        let mut part = || {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let (part, behind) =
                behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            rest = behind;
            Some(part.to_vec())
        };
        records.push((part()?, part()?));
    }
    Some(records)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Rule C4: the export is at most this far behind.
const EXPORT_EVERY: Duration = Duration::from_secs(10);
/// sled's page cache; verdicts and admissions are served from our own maps.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
