//! The values of the configuration's keys, parsed at the edge.
//!
//! Every value is taken as text first, so that `10` for a duration is told to lack a unit instead
//! of "invalid type". A path is absolute: the daemon has no folder that an administrator would
//! expect relative paths to start from.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use crate::trust::{Mirror, Origin};

/// A Unix socket, written as `unix:///run/….sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The path, without the scheme.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn fixed(path: &'static str) -> Self {
        Self(PathBuf::from(path))
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(path) = text.strip_prefix("unix://") else {
            return Err(D::Error::custom(format_args!(
                "`{text}` is not a Unix socket: write it as unix:///run/….sock"
            )));
        };
        let path = absolute::<D::Error>(path)?;
        if path.as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(D::Error::custom(format_args!(
                "the path is longer than the {SOCKET_PATH_LIMIT} bytes a Unix socket can have: choose a shorter one"
            )));
        }
        Ok(Self(path))
    }
}

/// An amount of bytes, written as `1GiB`, `512MiB`, `64KiB`, or with the decimal `GB`, `MB`, `kB`; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub(super) const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (count, unit) = text.split_at(digits);
        let unit = match unit.trim_start_matches(' ') {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        let bytes = count.parse::<u64>().ok()?.checked_mul(unit)?;
        (bytes > 0).then_some(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format_args!("`{text}` is not a size: write it as 512MiB or 1GiB"))
        })
    }
}

pub(super) fn trust_root<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Origin>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "public-good" {
        return Ok(Some(Origin::PublicGood));
    }
    if !text.starts_with('/') {
        return Err(D::Error::custom(format_args!(
            "`{text}` is no trust root: write public-good, or the absolute path of a trusted_root.json"
        )));
    }
    Ok(Some(Origin::File(PathBuf::from(text))))
}

pub(super) fn mirror<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mirror, D::Error> {
    let text = String::deserialize(deserializer)?;
    Mirror::parse(&text).map_err(|error| D::Error::custom(format_args!("`{text}` {error}")))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format_args!(
            "`{text}` is not a duration: write it with its unit, as 10s, 24h or 0s"
        ))
    })
}

pub(super) fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration(deserializer)?;
    if duration.is_zero() {
        return Err(D::Error::custom("must be more than 0s: with no time nothing could be verified"));
    }
    Ok(duration)
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format_args!("`{text}` is not a whole number of 1 or more")))
}

pub(super) fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom("must not be empty: remove the key to have the default"));
    }
    Ok(text)
}

pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.iter().any(String::is_empty) {
        return Err(D::Error::custom("has an empty entry: remove it, or the whole list with []"));
    }
    Ok(names)
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    absolute(&String::deserialize(deserializer)?)
}

pub(super) fn absolute_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|path| absolute(path)).collect()
}

/// Folders with a colon between them, as in containerd's `config_path`.
pub(super) fn search_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.split(':').try_for_each(|path| absolute(path).map(drop))?;
    Ok(PathBuf::from(text))
}

pub(super) fn policy_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = absolute_paths(deserializer)?;
    if paths.is_empty() {
        return Err(D::Error::custom("is empty: name the files or folders that hold the policies"));
    }
    Ok(paths)
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(format_args!(
            "`{text}` is not an address with a port: write it as \"127.0.0.1:9477\", or as \"\" for none"
        ))
    })
}

fn absolute<E: Error>(path: &str) -> Result<PathBuf, E> {
    if !path.starts_with('/') {
        return Err(E::custom(format_args!("`{path}` is not an absolute path: begin it with /")));
    }
    Ok(PathBuf::from(path))
}

/// `sun_path` of `struct sockaddr_un`, less its terminating zero (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;
