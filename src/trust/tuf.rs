//! One run of the TUF workflow, from a mirror or from what is kept, always from the pinned root.
//!
//! Order: newest root reachable from the pinned one, timestamp, snapshot, targets, then the target
//! `trusted_root.json`; signatures, thresholds, versions, hashes, lengths and expiries are checked by
//! the TUF client at each step, with the same `now`. On top of that nothing may be older than the
//! record's floor, which outlives broken-off refreshes and restarts.

use std::time::{Duration, SystemTime};

use sigstore_tuf::transport::UpdaterConfig;
use sigstore_tuf::{Error, Repository, Root, Updater};

use super::TrustError;
use super::record::{Floor, Record, Shelf};
use crate::oci::Digest;

/// A trust root as TUF vouches for it.
#[derive(Debug)]
pub(super) struct Vouched {
    /// The bytes of `trusted_root.json`.
    pub(super) json: Vec<u8>,
    /// When the first of the metadata that vouch for it expires.
    pub(super) expires: SystemTime,
    /// The version of the root metadata.
    pub(super) version: u64,
    floor: Floor,
}

/// Asks the mirror. `record` learns what was seen, also where the refresh fails; the caller keeps it.
/// `usable` says whether the target is a trust root at all: what is not is not kept as the last good one.
pub(super) async fn refresh<T>(
    pinned: &[u8],
    mirror: impl Repository + 'static,
    record: &mut Record,
    now: SystemTime,
    usable: impl FnOnce(&[u8]) -> Result<T, TrustError>,
) -> Result<(Vouched, T), TrustError> {
    let shelf = Shelf::new(record.metadata.clone());
    let updater = Updater::new(mirror, pinned).map_err(TrustError::Pinned)?.with_config(limits());
    let first = updater.trusted().root().version;
    let mut updater = updater.with_store(shelf.clone());
    let walked = walk(&mut updater, &record.floor, now).await;
    let seen = floor(&updater);
    let result = walked.and_then(|vouched| {
        let used = usable(&vouched.json)?;
        Ok((vouched, used))
    });
    match &result {
        Ok((vouched, _)) => {
            record.metadata = shelf.complete(first..=seen.root);
            record.floor.clone_from(&vouched.floor);
            record.confirmed = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        }
        // What is complete stays together; only roots, which stand alone, and versions are learnt.
        Err(_) => {
            record.metadata.extend(shelf.roots(first..=seen.root));
            record.floor = record.floor.raised_to(seen);
        }
    }
    result
}

/// Verifies what is kept, without any network.
pub(super) fn reload(pinned: &[u8], record: &Record, now: SystemTime) -> Result<Vouched, TrustError> {
    if record.confirmed == 0 {
        return Err(TrustError::NotKept);
    }
    let shelf = Shelf::new(record.metadata.clone());
    let mut updater = Updater::new(shelf.clone(), pinned)
        .map_err(TrustError::Pinned)?
        .with_config(limits())
        .with_store(shelf);
    // The last complete set may be older than what a broken-off refresh has seen since.
    let floor = Floor::default();
    futures_util::FutureExt::now_or_never(walk(&mut updater, &floor, now)).unwrap_or(Err(TrustError::NotKept))
}

async fn walk(updater: &mut Updater, floor: &Floor, now: SystemTime) -> Result<Vouched, TrustError> {
    let time = jiff::Timestamp::try_from(now).map_err(|_| TrustError::Clock)?;
    updater.refresh(time).await.map_err(TrustError::Tuf)?;
    let seen = self::floor(updater);
    floor.allows(&seen)?;
    let json = updater.get_target(TARGET, time).await.map_err(TrustError::Tuf)?;
    let trusted = updater.trusted();
    let expiries = [
        Some(trusted.root().expires),
        trusted.timestamp().map(|role| role.expires),
        trusted.snapshot().map(|role| role.expires),
        trusted.targets_role("targets").map(|role| role.expires),
    ];
    let expires = expiries.into_iter().flatten().min().ok_or(TrustError::Tuf(Error::NotRefreshed))?;
    Ok(Vouched { json, expires: system_time(expires), version: seen.root, floor: floor.raised_to(seen) })
}

/// The versions that are verified so far.
fn floor(updater: &Updater) -> Floor {
    let trusted = updater.trusted();
    let timestamp = trusted.timestamp();
    let pinned = timestamp.and_then(|role| role.snapshot_meta()).map_or(0, |pin| pin.version);
    let snapshot = trusted.snapshot();
    let targets = snapshot.and_then(|role| role.meta.get("targets.json")).map_or(0, |pin| pin.version);
    Floor {
        root: trusted.root().version,
        timestamp: timestamp.map_or(0, |role| role.version),
        snapshot: pinned.max(snapshot.map_or(0, |role| role.version)),
        targets,
        keys: keys(trusted.root()),
    }
}

impl Floor {
    fn allows(&self, seen: &Self) -> Result<(), TrustError> {
        let mut roles = vec![("root", self.root, seen.root)];
        if self.keys == seen.keys {
            roles.push(("timestamp", self.timestamp, seen.timestamp));
            roles.push(("snapshot", self.snapshot, seen.snapshot));
            roles.push(("targets", self.targets, seen.targets));
        }
        match roles.into_iter().find(|(_, floor, offered)| offered < floor) {
            Some((role, seen, offered)) => Err(TrustError::Rollback { role, seen, offered }),
            None => Ok(()),
        }
    }

    /// The higher of both, role by role; under new keys only what they signed counts.
    fn raised_to(&self, seen: Self) -> Self {
        let root = self.root.max(seen.root);
        if self.keys != seen.keys {
            // A root below the floor says nothing about keys.
            return if seen.root < self.root { self.clone() } else { seen };
        }
        Self {
            root,
            timestamp: self.timestamp.max(seen.timestamp),
            snapshot: self.snapshot.max(seen.snapshot),
            targets: self.targets.max(seen.targets),
            keys: seen.keys,
        }
    }
}

fn keys(root: &Root) -> String {
    let mut ids = String::new();
    for role in ["timestamp", "snapshot"] {
        let mut keys = root.role(role).map(|keys| keys.keyids.clone()).unwrap_or_default();
        keys.sort();
        ids.push_str(&format!("{role} {} ", keys.join(" ")));
    }
    Digest::of(ids.as_bytes()).to_string()
}

fn limits() -> UpdaterConfig {
    let mut limits = UpdaterConfig::default();
    limits.root_max_length = 512 << 10;
    limits.timestamp_max_length = 16 << 10;
    limits.snapshot_max_length = 1 << 20;
    limits.targets_max_length = 2 << 20;
    limits.target_max_length = super::TRUST_ROOT_LIMIT;
    limits.max_root_rotations = 64;
    limits.max_delegations = 8;
    limits
}

fn system_time(time: jiff::Timestamp) -> SystemTime {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The name under which Sigstore's repositories hold the trust root.
const TARGET: &str = "trusted_root.json";
