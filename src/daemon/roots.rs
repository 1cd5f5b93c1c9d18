//! The trust root in the daemon: kept fresh in the background, shown in status and metrics.
//!
//! No pull waits for it. A refresh that brings another trust root builds a new snapshot from the
//! policies in force, as they were loaded: files that are being edited are read at a reload only.
//! Nothing is asked while no policy needs a trust root (rule O3).

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::loading::{self, TrustUse};
use super::{Daemon, DaemonError, registry_options};
use crate::config::Config;
use crate::trust::{Anchor, Domain, Keeping, Origin};

/// The domain that the config names, and what is told of it.
pub(super) struct Roots {
    folder: PathBuf,
    authorities: Vec<Vec<u8>>,
    domain: Mutex<Arc<Domain>>,
    /// Another domain, or another need of it.
    changed: Notify,
    confirmed: Gauge<i64, AtomicI64>,
    expires: Gauge<i64, AtomicI64>,
}

/// The domain of `origin`; certificate authorities are the config's.
///
/// # Errors
/// [`DaemonError::CaFile`].
pub fn domain(config: &Config, origin: Origin, keeping: Keeping) -> Result<Domain, DaemonError> {
    Ok(Domain::new(origin, keeping, authorities(config)?))
}

/// Where a daemon with this state folder keeps what mirrors give.
#[must_use]
pub fn folder(state: &Path) -> PathBuf {
    state.join("tuf")
}

impl Roots {
    pub(super) fn new(config: &Config, state: &Path, registry: &mut Registry) -> Result<Self, DaemonError> {
        let (confirmed, expires) = (Gauge::default(), Gauge::default());
        registry.register(
            "trust_root_timestamp_seconds",
            "When its source last vouched for the trust root in use; 0: none is in use",
            confirmed.clone(),
        );
        registry.register(
            "trust_root_expiry_timestamp_seconds",
            "When that expires; 0: never",
            expires.clone(),
        );
        let folder = folder(state);
        let domain = domain(config, config.trust.root.clone(), Keeping::Kept(folder.clone()))?;
        let domain = Mutex::new(Arc::new(domain));
        Ok(Self {
            folder,
            authorities: authorities(config)?,
            domain,
            changed: Notify::new(),
            confirmed,
            expires,
        })
    }

    pub(super) fn domain(&self) -> Arc<Domain> {
        Arc::clone(&self.domain.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The domain in use, if it is of that origin; else a new one, which is not in use yet.
    pub(super) fn domain_of(&self, origin: &Origin) -> Arc<Domain> {
        let domain = self.domain();
        if domain.origin() == origin {
            return domain;
        }
        let keeping = Keeping::Kept(self.folder.clone());
        Arc::new(Domain::new(origin.clone(), keeping, self.authorities.clone()))
    }

    /// Puts a domain in use after a reload, which asks the mirror soon, however young its answer is.
    pub(super) fn adopt(&self, domain: Arc<Domain>) {
        *self.domain.lock().unwrap_or_else(PoisonError::into_inner) = domain;
        self.changed.notify_one();
    }

    /// Sets the metrics.
    pub(super) fn show(&self, trust: &TrustUse) {
        let (confirmed, expires) = match trust {
            TrustUse::Anchored(anchor) => (seconds(anchor.confirmed), anchor.expires.map_or(0, seconds)),
            TrustUse::Unused | TrustUse::Missing => (0, 0),
        };
        self.confirmed.set(i64::try_from(confirmed).unwrap_or(i64::MAX));
        self.expires.set(i64::try_from(expires).unwrap_or(i64::MAX));
    }
}

impl Daemon {
    /// Refreshes the trust root for as long as the daemon runs.
    pub(super) async fn keep_trust_root_fresh(self: Arc<Self>) {
        let mut failures = 0;
        let mut asked = false;
        loop {
            let domain = self.roots.domain();
            let trust = self.live().trust.clone();
            let now = SystemTime::now();
            let pause = match (domain.origin(), &trust) {
                (Origin::PublicGood | Origin::File(_), _) | (_, TrustUse::Unused) => None,
                (Origin::Tuf { .. }, TrustUse::Missing) => Some(pause(None, failures, now)),
                (Origin::Tuf { .. }, TrustUse::Anchored(_)) if asked => Some(Duration::ZERO),
                (Origin::Tuf { .. }, TrustUse::Anchored(anchor)) => Some(pause(Some(anchor), failures, now)),
            };
            let changed = self.roots.changed.notified();
            let woken = match pause {
                None => {
                    changed.await;
                    true
                }
                Some(pause) => tokio::time::timeout(pause, changed).await.is_ok(),
            };
            if woken {
                (failures, asked) = (0, true);
                continue;
            }
            asked = false;
            match domain.refresh(SystemTime::now()).await {
                Ok(anchor) => {
                    failures = 0;
                    self.anchored(&domain, anchor).await;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, mirror = %domain.origin(), failures, "trust root: refresh failed");
                }
            }
        }
    }

    /// Takes a refreshed trust root into use: a new snapshot, if it is another one.
    async fn anchored(&self, domain: &Arc<Domain>, anchor: Anchor) {
        let _one = self.reloading.lock().await;
        if !Arc::ptr_eq(domain, &self.roots.domain()) {
            return;
        }
        let (config, sources, trust) = {
            let live = self.live();
            (Arc::clone(&live.config), Arc::clone(&live.sources), live.trust.clone())
        };
        match trust {
            TrustUse::Unused => return,
            TrustUse::Anchored(in_use) if in_use.root.fingerprint() == anchor.root.fingerprint() => {
                let trust = TrustUse::Anchored(anchor);
                self.roots.show(&trust);
                self.live().trust = trust;
                return;
            }
            TrustUse::Anchored(_) | TrustUse::Missing => {}
        }
        let version = anchor.version;
        let building = tokio::task::spawn_blocking(move || loading::build(&config, &sources, &Ok(anchor)));
        match building.await {
            Ok(Ok(fresh)) => {
                tracing::info!(source = %domain.origin(), version, "trust root changed");
                self.put_in_force(fresh);
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "trust root changed, but the policies do not load with it")
            }
            Err(error) => tracing::error!(%error, "trust root changed, but loading the policies failed"),
        }
    }

    /// What status says of the trust root, and what is wrong with it.
    pub(super) fn trust_status(&self, trust: &TrustUse, now: SystemTime) -> (Value, Option<String>) {
        let domain = self.roots.domain();
        let mut status = Map::new();
        status.insert("source".to_owned(), json!(domain.origin().to_string()));
        let anchor = match trust {
            TrustUse::Unused => {
                status.insert("state".to_owned(), json!("unused"));
                return (Value::Object(status), None);
            }
            TrustUse::Missing => {
                let trouble =
                    domain.trouble().or_else(|| domain.root(now).err().map(|error| error.to_string()));
                let trouble = trouble.unwrap_or_default();
                status.insert("state".to_owned(), json!("unavailable"));
                status.insert("trouble".to_owned(), json!(trouble));
                let degraded = format!("no trust root ({trouble}): signatures that need one are undecided");
                return (Value::Object(status), Some(degraded));
            }
            TrustUse::Anchored(anchor) => anchor,
        };
        status.insert("state".to_owned(), json!("in use"));
        status.insert("fingerprint".to_owned(), json!(anchor.root.fingerprint()));
        status.insert("confirmedAt".to_owned(), json!(seconds(anchor.confirmed)));
        let age = now.duration_since(anchor.confirmed).unwrap_or_default();
        status.insert("ageSeconds".to_owned(), json!(age.as_secs()));
        if let Some(version) = anchor.version {
            status.insert("version".to_owned(), json!(version));
        }
        let trouble = domain.trouble();
        if let Some(trouble) = &trouble {
            status.insert("trouble".to_owned(), json!(trouble));
        }
        let mut degraded = None;
        if let Some(expires) = anchor.expires {
            status.insert("expiresAt".to_owned(), json!(seconds(expires)));
            if expires < now {
                let trouble = trouble.unwrap_or_else(|| "no refresh yet".to_owned());
                degraded = Some(format!(
                    "the trust root has expired ({trouble}): it stays in use until pullgate restarts"
                ));
            }
        }
        (Value::Object(status), degraded)
    }
}

/// Until the next refresh: a day after the last one, earlier where metadata expire within two; after
/// failures with a growing pause.
fn pause(anchor: Option<&Anchor>, failures: u32, now: SystemTime) -> Duration {
    if failures > 0 {
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
        return pause + pause.mul_f64(chance() / 4.0);
    }
    let Some(anchor) = anchor else { return Duration::ZERO };
    let lifetime = anchor.expires.and_then(|expires| expires.duration_since(anchor.confirmed).ok());
    let interval = lifetime.map_or(DAILY, |lifetime| (lifetime / 2).clamp(LEAST, DAILY));
    let age = now.duration_since(anchor.confirmed).unwrap_or(interval);
    let rest = interval.saturating_sub(age);
    // Nodes that started together need not ask together.
    rest - rest.mul_f64(chance() / 10.0)
}

/// Something in 0 to 1.
fn chance() -> f64 {
    f64::from(u16::try_from(RandomState::new().hash_one(0) & 0xffff).unwrap_or(0)) / f64::from(u16::MAX)
}

fn authorities(config: &Config) -> Result<Vec<Vec<u8>>, DaemonError> {
    let options = registry_options(config)?;
    Ok(options.certificate_authorities.into_iter().map(|authority| authority.pem).collect())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sigstore signs its timestamp metadata anew every few days.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// However soon metadata expire.
const LEAST: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigstore::TrustRoot;

    fn anchor(confirmed: SystemTime, lifetime: Option<Duration>) -> Anchor {
        let root = Arc::new(TrustRoot::public_good().unwrap());
        Anchor { root, confirmed, expires: lifetime.map(|lifetime| confirmed + lifetime), version: Some(1) }
    }

    #[test]
    fn refreshes_daily_and_earlier_where_metadata_expire_sooner() {
        let now = SystemTime::now();
        let within = |pause: Duration, most: Duration| pause <= most && pause >= most.mul_f64(0.9);
        assert!(within(pause(Some(&anchor(now, Some(7 * DAILY))), 0, now), DAILY));
        assert!(within(pause(Some(&anchor(now, Some(DAILY))), 0, now), DAILY / 2));
        assert!(within(pause(Some(&anchor(now - DAILY / 2, Some(7 * DAILY))), 0, now), DAILY / 2));
        assert_eq!(pause(Some(&anchor(now - 2 * DAILY, Some(7 * DAILY))), 0, now), Duration::ZERO);
        assert!(within(pause(Some(&anchor(now, Some(Duration::ZERO))), 0, now), LEAST));
        // A root from the future is asked for at once.
        assert_eq!(pause(Some(&anchor(now + DAILY, None)), 0, now), Duration::ZERO);
        assert_eq!(pause(None, 0, now), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_with_failures_to_an_hour() {
        let now = SystemTime::now();
        for (failures, least) in [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (u32::MAX, 3600)] {
            let (pause, least) = (pause(None, failures, now), Duration::from_secs(least));
            assert!(pause >= least && pause <= least.mul_f64(1.25), "{failures}: {pause:?}");
        }
    }
}
