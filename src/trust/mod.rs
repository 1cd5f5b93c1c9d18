//! Where the node's Sigstore trust root comes from, and how it stays fresh.
//!
//! One node has one [`Origin`]: the public good root that is built in, a `trusted_root.json`, or a TUF
//! repository. Each is a trust domain of its own: none stands in for another, and none is added to another.
//!
//! * **File and built in** are as good as the program and the disk they are on; nothing expires.
//! * **TUF** begins at the pinned `root.json` of the configuration, never at what is found first.
//!   The mirror and everything kept on disk are input: both are verified from the pinned root each
//!   time ([`Domain::root`] for what is kept, [`Domain::refresh`] for the mirror).
//!
//! When metadata expire:
//! 1. a root that is in use stays in use in this process, with its age and expiry shown, until a
//!    refresh succeeds: an outage of the mirror must not stop a node, and a frozen mirror is seen;
//! 2. a process that starts uses what is kept only if nothing that vouches for it has expired.
//!    Otherwise there is no trust root ([`TrustError`]): signatures that need one are undecided until
//!    the mirror answers. Nodes without a mirror are given a `trusted_root.json` instead.
//! 3. expired metadata from a mirror are refused always.
//!
//! Versions never go back: the highest ones seen are kept with the metadata, also across restarts
//! and of refreshes that broke off. A refresh ends within [`REFRESH_LIMIT`]. No pull waits for any
//! of this; policies with keys and without a log use none of it (rule O3).

mod mirror;
mod record;
mod tuf;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::mirror::Reader;
pub use self::mirror::{Mirror, MirrorError};
use self::record::Record;
use self::tuf::Vouched;
use crate::sigstore::{TrustRoot, TrustRootError};

/// Where a trust root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Sigstore's public instance, as built in.
    PublicGood,
    /// A `trusted_root.json`.
    File(PathBuf),
    /// A TUF repository.
    Tuf {
        /// Where it is read.
        mirror: Mirror,
        /// The `root.json` that trust begins with.
        root: PathBuf,
    },
}

impl Origin {
    /// An error with what it is about, in one line: files name themselves, a mirror is named here.
    #[must_use]
    pub fn explain(&self, error: &TrustError) -> String {
        match self {
            Self::PublicGood | Self::File(_) => format!("trust root: {error}"),
            Self::Tuf { mirror, .. } => format!("trust root {mirror}: {error}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicGood => f.write_str("public-good (built in)"),
            Self::File(path) => path.display().fmt(f),
            Self::Tuf { mirror, .. } => mirror.fmt(f),
        }
    }
}

/// What becomes of TUF metadata after a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// Written to this folder, and read from it at the next start.
    Kept(PathBuf),
    /// Read from this folder, which belongs to somebody else.
    ReadOnly(PathBuf),
    /// Forgotten with the process.
    Nowhere,
}

/// A trust root and what vouches for it.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// The trust root.
    pub root: Arc<TrustRoot>,
    /// When its source last vouched for it: the last complete refresh, the file's last change, the
    /// release of what is built in.
    pub confirmed: SystemTime,
    /// When it stops being good for a new start; none: never.
    pub expires: Option<SystemTime>,
    /// The version of the TUF root metadata.
    pub version: Option<u64>,
}

/// Why there is no trust root, or no newer one.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes read at most.
        limit: u64,
    },
    /// The content is no trust root.
    #[error("{origin}: {}", chain(source))]
    Root {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: TrustRootError,
    },
    /// The pinned root metadata cannot be used.
    #[error("the pinned root.json cannot be used: {}", chain(.0))]
    Pinned(#[source] sigstore_tuf::Error),
    /// Nothing is kept of the repository.
    #[error("nothing was fetched from the mirror yet")]
    NotKept,
    /// What is kept cannot be read.
    #[error("cannot read what was fetched earlier, {}: {source}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// Metadata or target are not there, not signed, expired, or not what was announced.
    #[error("{}", chain(.0))]
    Tuf(#[source] sigstore_tuf::Error),
    /// The mirror offers what is older than what was seen.
    #[error("the mirror went back: {role} version {offered}, {seen} was seen before")]
    Rollback {
        /// The role.
        role: &'static str,
        /// The version seen.
        seen: u64,
        /// The version offered.
        offered: u64,
    },
    /// The mirror took too long.
    #[error("the mirror did not finish within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The clock shows a time that metadata cannot be compared with.
    #[error("the clock is out of range")]
    Clock,
}

impl TrustError {
    /// Whether only a change of files or configuration can help: waiting for the mirror does not.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        match self {
            Self::File { .. } | Self::TooLarge { .. } | Self::Root { .. } | Self::Pinned(_) => true,
            Self::NotKept
            | Self::Kept { .. }
            | Self::Tuf(_)
            | Self::Rollback { .. }
            | Self::Timeout(_)
            | Self::Clock => false,
        }
    }

    /// The same in fixed words: without addresses, versions and times.
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::File { .. } => "its file cannot be read",
            Self::TooLarge { .. } | Self::Root { .. } | Self::Pinned(_) => "its file cannot be used",
            Self::NotKept | Self::Kept { .. } => "nothing was fetched from the mirror yet",
            Self::Tuf(sigstore_tuf::Error::Expired { .. }) => "what the mirror gave last has expired",
            Self::Tuf(_) | Self::Rollback { .. } | Self::Timeout(_) | Self::Clock => {
                "what the mirror gave last does not verify"
            }
        }
    }
}

/// The trust root of one origin, kept fresh.
pub struct Domain {
    origin: Origin,
    keeping: Keeping,
    authorities: Vec<Vec<u8>>,
    limit: Duration,
    known: Mutex<Known>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// Of a TUF origin: what is in use.
    anchor: Option<Anchor>,
    /// What is kept, as far as this process knows.
    record: Option<(PathBuf, Record)>,
    /// Why the last refresh failed.
    trouble: Option<String>,
}

impl Domain {
    /// A domain. `authorities` are PEM certificates, in addition to the system's, for the mirror's TLS.
    #[must_use]
    pub fn new(origin: Origin, keeping: Keeping, authorities: Vec<Vec<u8>>) -> Self {
        Self {
            origin,
            keeping,
            authorities,
            limit: REFRESH_LIMIT,
            known: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// The same with another limit than [`REFRESH_LIMIT`].
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Where the trust root comes from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Why the last refresh failed; none if it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.known().trouble.clone()
    }

    /// The trust root, without network: a file is read anew, of a TUF repository it is the one in use or
    /// else the one kept, if everything that vouches for it verifies at `now`.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn root(&self, now: SystemTime) -> Result<Anchor, TrustError> {
        match &self.origin {
            Origin::PublicGood => {
                let root = TrustRoot::public_good().map_err(|source| self.unusable(source))?;
                Ok(Anchor {
                    root: Arc::new(root),
                    confirmed: SystemTime::UNIX_EPOCH + BUILT_IN,
                    expires: None,
                    version: None,
                })
            }
            Origin::File(path) => {
                let (bytes, changed) = read(path, TRUST_ROOT_LIMIT)?;
                let root = TrustRoot::from_json(&bytes).map_err(|source| self.unusable(source))?;
                Ok(Anchor { root: Arc::new(root), confirmed: changed, expires: None, version: None })
            }
            Origin::Tuf { mirror, root } => {
                if let Some(anchor) = self.known().anchor.clone() {
                    return Ok(anchor);
                }
                let (pinned, _) = read(root, PINNED_LIMIT)?;
                let Some(folder) = self.folder() else { return Err(TrustError::NotKept) };
                let path = Record::path(folder, mirror, &pinned);
                let record = Record::read(&path)
                    .map_err(|source| TrustError::Kept { path: path.clone(), source })?
                    .ok_or(TrustError::NotKept)?;
                let vouched = tuf::reload(&pinned, &record, now);
                let confirmed = SystemTime::UNIX_EPOCH + Duration::from_secs(record.confirmed);
                self.known().record = Some((path, record));
                let vouched = vouched?;
                let root = TrustRoot::from_json(&vouched.json).map_err(|source| self.unusable(source))?;
                // The record's own word for its age is not believed where it lies in the future.
                let anchor = anchor(root, &vouched, confirmed.min(now));
                self.known().anchor = Some(anchor.clone());
                Ok(anchor)
            }
        }
    }

    /// The trust root after asking the mirror; of the other origins the same as [`Domain::root`].
    ///
    /// # Errors
    /// [`TrustError`]; what was in use before stays in use.
    pub async fn refresh(&self, now: SystemTime) -> Result<Anchor, TrustError> {
        let Origin::Tuf { mirror, root } = &self.origin else { return self.root(now) };
        let _one = self.refreshing.lock().await;
        let refreshed = match tokio::time::timeout(self.limit, self.ask(mirror, root, now)).await {
            Ok(refreshed) => refreshed,
            Err(_) => Err(TrustError::Timeout(self.limit)),
        };
        let mut known = self.known();
        known.trouble = refreshed.as_ref().err().map(ToString::to_string);
        if let Ok(anchor) = &refreshed {
            known.anchor = Some(anchor.clone());
        }
        refreshed
    }

    async fn ask(&self, mirror: &Mirror, root: &Path, now: SystemTime) -> Result<Anchor, TrustError> {
        let (pinned, _) = read(root, PINNED_LIMIT)?;
        let path = self.folder().map(|folder| Record::path(folder, mirror, &pinned));
        let path = path.unwrap_or_default();
        let mut record = self.record(mirror, &path);
        let reader = Reader::open(mirror, &self.authorities).map_err(TrustError::Tuf)?;
        let usable = |json: &[u8]| TrustRoot::from_json(json).map_err(|source| self.unusable(source));
        let before = record.clone();
        let refreshed = tuf::refresh(&pinned, reader, &mut record, now, usable).await;
        self.known().record = Some((path.clone(), record.clone()));
        if matches!(self.keeping, Keeping::Kept(_)) && record != before {
            let writing = tokio::task::spawn_blocking({
                let path = path.clone();
                move || record.write(&path)
            });
            if let Err(error) = writing.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                tracing::warn!(%error, path = %path.display(), "what the TUF mirror gave cannot be kept");
            }
        }
        let (vouched, root) = refreshed?;
        Ok(anchor(root, &vouched, now))
    }

    /// What is known of the repository: from this process, from disk, or nothing.
    fn record(&self, mirror: &Mirror, path: &Path) -> Record {
        if let Some((of, record)) = &self.known().record
            && of == path
        {
            return record.clone();
        }
        if path.as_os_str().is_empty() {
            return Record::empty(mirror);
        }
        match Record::read(path) {
            Ok(Some(record)) => record,
            Ok(None) => Record::empty(mirror),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what the TUF mirror gave earlier cannot be read");
                Record::empty(mirror)
            }
        }
    }

    fn folder(&self) -> Option<&Path> {
        match &self.keeping {
            Keeping::Kept(folder) | Keeping::ReadOnly(folder) => Some(folder),
            Keeping::Nowhere => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unusable(&self, source: TrustRootError) -> TrustError {
        TrustError::Root { origin: self.origin.to_string(), source }
    }
}

fn anchor(root: TrustRoot, vouched: &Vouched, confirmed: SystemTime) -> Anchor {
    Anchor { root: Arc::new(root), confirmed, expires: Some(vouched.expires), version: Some(vouched.version) }
}

/// A file whole, with the time of its last change.
fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, SystemTime), TrustError> {
    let failed = |source| TrustError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let changed = file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(TrustError::TooLarge { path: path.to_owned(), limit });
    }
    Ok((bytes, changed))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors tell their causes themselves.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace(char::is_control, " ")
}

/// Time for one refresh, all its requests together.
pub const REFRESH_LIMIT: Duration = Duration::from_secs(60);
/// The public good root has 8 KiB.
const TRUST_ROOT_LIMIT: u64 = 1 << 20;
/// Sigstore's root metadata have 6 KiB.
const PINNED_LIMIT: u64 = 512 << 10;
/// The day on which sigstore-trust-root 0.15.1, which holds the built-in root, was released: 2026-10-23.
const BUILT_IN: Duration = Duration::from_secs(1_792_713_600);
