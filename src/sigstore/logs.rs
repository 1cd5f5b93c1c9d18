//! The keys of logs: transparency logs for signatures, and certificate transparency logs.
//!
//! A log is known by its id, which is sha256 of its key unless a trust root says otherwise (Rekor v2's
//! checkpoint ids). A key counts only for times within its window.

use std::time::SystemTime;

use crate::oci::Digest;
use crate::sigstore::key::PublicKey;

/// Logs of one trust domain.
#[derive(Clone, Debug)]
pub struct Logs {
    logs: Vec<LogKey>,
    fingerprint: Digest,
}

/// The key of one log.
#[derive(Clone, Debug)]
pub(super) struct LogKey {
    /// The log's id, as entries and SCTs carry it.
    pub(super) id: Vec<u8>,
    pub(super) key: PublicKey,
    pub(super) window: Window,
    /// The origin of the log's checkpoints, where a trust root names it.
    pub(super) origin: Option<String>,
}

/// When a key or an authority may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: Option<SystemTime>,
    /// The last moment that counts.
    pub(super) end: Option<SystemTime>,
}

impl Logs {
    /// Logs with these keys, without limits in time.
    #[must_use]
    pub fn from_keys(keys: &[PublicKey]) -> Self {
        let log = |key: &PublicKey| LogKey {
            id: key.fingerprint().as_bytes().to_vec(),
            key: key.clone(),
            window: Window::ALWAYS,
            origin: None,
        };
        let mut logs: Vec<LogKey> = Vec::new();
        for key in keys {
            if logs.iter().all(|log| log.key != *key) {
                logs.push(log(key));
            }
        }
        Self::new(logs)
    }

    pub(super) fn new(logs: Vec<LogKey>) -> Self {
        let text: Vec<String> = logs
            .iter()
            .map(|log| {
                format!(
                    "{} {} {:?} {:?}",
                    hex::encode(&log.id),
                    log.key.fingerprint(),
                    log.window,
                    log.origin
                )
            })
            .collect();
        Self { fingerprint: Digest::of(text.join("\n").as_bytes()), logs }
    }

    /// Changes with any key, id or window.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    pub(super) fn all(&self) -> &[LogKey] {
        &self.logs
    }
}

impl LogKey {
    /// The id of the log if `origin` is its name: sha256 of both, as in signed notes (Ed25519 only).
    pub(super) fn note_id(&self, origin: &str) -> Option<Vec<u8>> {
        let key = self.key.ed25519()?;
        Some(Digest::of(&[origin.as_bytes(), b"\n\x01", key].concat()).as_bytes().to_vec())
    }
}

impl Window {
    pub(super) const ALWAYS: Self = Self { start: None, end: None };

    /// Both ends belong to it.
    pub(super) fn holds(&self, time: SystemTime) -> bool {
        self.start.is_none_or(|start| start <= time) && self.end.is_none_or(|end| time <= end)
    }
}
