//! How a snapshot comes into force: at start, and at a reload.
//!
//! At start something is always in force: the policies on disk, else the last good ones (rule D6),
//! else none (rule D5). At a reload all or nothing: where anything fails the old snapshot stays.
//! A trust root that is missing does not keep policies from starting, but is no reason to give up
//! one that is in use: a reload that would lose it fails, after the mirror was asked once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::loading::{self, Fresh, LoadError, TrustUse};
use super::{Daemon, DaemonError, announce, notify, notify_reloading, sources};
use crate::config::{self, Config};
use crate::policy::PolicySource;
use crate::trust::{Anchor, Origin, TrustError};

/// What came of loading.
pub(super) struct Loaded {
    pub(super) fresh: Fresh,
    /// What it was made of.
    pub(super) sources: Vec<PolicySource>,
    /// What is wrong with it.
    pub(super) degraded: Option<String>,
}

/// What came of a reload.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reloaded {
    /// In one line.
    message: String,
    /// What is wrong with what is in force now.
    degraded: Option<String>,
    /// The keys that changed and are not in force.
    needs_restart: Vec<&'static str>,
}

/// The policies on disk, else the last good ones, else none, with what is wrong.
pub(super) fn first(
    config: &Config,
    state: &Path,
    rooted: &Result<Anchor, TrustError>,
) -> Result<Loaded, DaemonError> {
    let error = match loading::load(config, rooted) {
        Ok((fresh, sources)) => {
            keep(state, &sources);
            return Ok(Loaded { fresh, sources, degraded: None });
        }
        Err(error) => error,
    };
    tracing::error!(%error, "policies do not load");
    match sources::kept(state) {
        Ok(Some(sources)) => match loading::build(config, &sources, rooted) {
            Ok(fresh) => {
                let degraded = Some(format!("{error}; the last good policies are in force"));
                return Ok(Loaded { fresh, sources, degraded });
            }
            Err(again) => tracing::error!(error = %again, "the last good policies do not load either"),
        },
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the last good policies cannot be read"),
    }
    let fresh = loading::empty(config).map_err(DaemonError::Snapshot)?;
    let degraded = Some(format!("{error}; no policy is in force, pulls are refused"));
    Ok(Loaded { fresh, sources: Vec::new(), degraded })
}

/// A new snapshot, and what is wrong with it. Break-glass must need nothing good: with `mode: audit`
/// the last good policies are taken where the new ones do not load, and none where those do not
/// load either (rule E8).
fn again(config: &Config, state: &Path, rooted: &Result<Anchor, TrustError>) -> Result<Loaded, LoadError> {
    let error = match loading::load(config, rooted) {
        Ok((fresh, sources)) => return Ok(Loaded { fresh, sources, degraded: None }),
        Err(error) => error,
    };
    if config.policy.mode != config::Mode::Audit {
        return Err(error);
    }
    if let Ok(Some(sources)) = sources::kept(state)
        && let Ok(fresh) = loading::build(config, &sources, rooted)
    {
        let degraded = Some(format!("{error}; audit mode with the last good policies is in force"));
        return Ok(Loaded { fresh, sources, degraded });
    }
    let fresh = loading::empty(config)?;
    let degraded = Some(format!("{error}; audit mode without any policy is in force"));
    Ok(Loaded { fresh, sources: Vec::new(), degraded })
}

fn keep(state: &Path, sources: &[PolicySource]) {
    if let Err(error) = sources::keep(state, sources) {
        tracing::warn!(%error, path = %state.display(), "the policies cannot be kept for a later start");
    }
}

impl Daemon {
    /// Loads config and policies anew; on any error the old snapshot stays.
    pub(super) async fn reload(&self) -> Result<Reloaded, String> {
        let _one = self.reloading.lock().await;
        notify_reloading();
        let reloaded = self.load_again().await;
        notify(&[sd_notify::NotifyState::Ready]);
        match reloaded {
            Ok(reloaded) => Ok(reloaded),
            Err(error) => {
                tracing::error!(error, "reload failed: the old policies stay in force");
                let error = format!("{error}; the policies loaded before stay in force");
                self.live().degraded = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn load_again(&self) -> Result<Reloaded, String> {
        let path = self.config_path.clone();
        let config = blocking(move || Config::load(&path)).await?.map_err(|error| error.to_string())?;
        let config = Arc::new(config);
        let domain = self.roots.domain_of(&config.trust.root);
        let (mut loaded, mut missing) = self.build(&config, domain.root(SystemTime::now())).await?;
        if missing.is_some() && matches!(domain.origin(), Origin::Tuf { .. }) && domain.trouble().is_none() {
            let asking = tokio::time::timeout(MIRROR_PATIENCE, domain.refresh(SystemTime::now()));
            let asked = asking.await.unwrap_or(Err(TrustError::Timeout(MIRROR_PATIENCE)));
            (loaded, missing) = self.build(&config, asked).await?;
        }
        let accepted =
            config.policy.mode == config::Mode::Audit || matches!(self.live().trust, TrustUse::Missing);
        if let Some(error) = missing.filter(|_| !accepted) {
            return Err(domain.origin().explain(&error));
        }
        if loaded.degraded.is_none() {
            keep(&self.state, &loaded.sources);
        }
        let counts = loaded.fresh.snapshot.policies.counts();
        let mut message = match &loaded.degraded {
            None => format!(
                "reloaded{}: {} policies, {} rules refuse, {} report",
                if config.policy.mode == config::Mode::Audit {
                    " (mode: audit, nothing is refused)"
                } else {
                    ""
                },
                counts.policies,
                counts.refusing,
                counts.reporting
            ),
            Some(degraded) => {
                tracing::error!(degraded, "reloaded, and the policies do not load");
                format!("reloaded, and the policies do not load: {degraded}")
            }
        };
        let needs_restart = self.started.needs_restart(&config);
        if let Some(warning) = after_restart(&needs_restart) {
            tracing::warn!("{warning}");
            message.push_str(&format!("; {warning}"));
        }
        let degraded = loaded.degraded.clone();
        {
            let mut live = self.live();
            live.degraded = loaded.degraded;
            live.config = config;
            live.sources = Arc::new(loaded.sources);
        }
        self.put_in_force(loaded.fresh);
        self.roots.adopt(domain);
        Ok(Reloaded { message, degraded, needs_restart })
    }

    /// Builds a snapshot; with it the reason why a trust root that it needs is missing.
    async fn build(
        &self,
        config: &Arc<Config>,
        rooted: Result<Anchor, TrustError>,
    ) -> Result<(Loaded, Option<TrustError>), String> {
        let (config, state) = (Arc::clone(config), self.state.clone());
        let (built, rooted) = blocking(move || (again(&config, &state, &rooted), rooted)).await?;
        let loaded = built.map_err(|error| error.to_string())?;
        let missing = match loaded.fresh.trust {
            TrustUse::Missing => rooted.err(),
            TrustUse::Unused | TrustUse::Anchored(_) => None,
        };
        Ok((loaded, missing))
    }

    /// Swaps a snapshot in. The caller holds `reloading`.
    pub(super) fn put_in_force(&self, fresh: Fresh) {
        announce(&fresh, &self.audit);
        self.roots.show(&fresh.trust);
        self.registry.sign_in_with(fresh.logins);
        self.gate.swap(Arc::new(fresh.snapshot));
        let mut live = self.live();
        live.notices = fresh.notices;
        live.trust = fresh.trust;
        live.to_look_at = None;
        drop(live);
        self.gate.look_again().notify_one();
    }
}

/// What a restart would put in force, in a line; none where that is nothing.
pub(super) fn after_restart(keys: &[&str]) -> Option<String> {
    let s = if keys.len() == 1 { "s" } else { "" };
    (!keys.is_empty()).then(|| format!("{} changed and count{s} after a restart only", keys.join(", ")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "loading panicked".to_owned())
}

/// A reload waits for a mirror only where nothing was fetched yet; whoever asked waits a minute.
const MIRROR_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::policy::evaluate::Mode;
    use crate::sigstore::TrustRoot;

    /// A state folder and a config whose policy file has this text.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn config(&self, mode: &str, policy: &str) -> PathBuf {
            let (config, file) = (self.0.path().join("config.yaml"), self.0.path().join("p.yaml"));
            fs::write(&file, policy).unwrap();
            let (file, approved) = (file.display(), self.0.path().join("approved.txt"));
            let approved = approved.display();
            let text = format!("policy: {{paths: [{file}], mode: {mode}, approved: {approved}}}\n");
            fs::write(&config, text).unwrap();
            config
        }

        fn again(&self, mode: &str, policy: &str) -> Result<Loaded, LoadError> {
            self.config(mode, policy);
            let loaded = self.again_as_configured(&rooted())?;
            if loaded.degraded.is_none() {
                keep(self.0.path(), &loaded.sources);
            }
            Ok(loaded)
        }

        fn again_as_configured(&self, rooted: &Result<Anchor, TrustError>) -> Result<Loaded, LoadError> {
            let config = Config::load(&self.0.path().join("config.yaml")).unwrap();
            again(&config, self.0.path(), rooted)
        }

        fn at_start(&self, mode: &str, policy: &str) -> Loaded {
            let config = Config::load(&self.config(mode, policy)).unwrap();
            first(&config, self.0.path(), &rooted()).unwrap()
        }
    }

    fn rooted() -> Result<Anchor, TrustError> {
        let root = Arc::new(TrustRoot::public_good().unwrap());
        Ok(Anchor { root, confirmed: SystemTime::now(), expires: None, version: None })
    }

    fn loaded(loaded: Loaded) -> (usize, Mode, Option<String>) {
        let snapshot = loaded.fresh.snapshot;
        (snapshot.policies.counts().policies, snapshot.mode, loaded.degraded)
    }

    fn ends(degraded: &Option<String>, words: &str) -> bool {
        degraded.as_ref().is_some_and(|text| text.contains("unknown field") && text.ends_with(words))
    }

    #[test]
    fn d6_broken_policies_at_start_leave_the_last_good_ones() {
        let files = Files::new();
        let (policies, _, degraded) = loaded(files.at_start("enforce", BROKEN));
        assert_eq!(policies, 0);
        assert!(ends(&degraded, "; no policy is in force, pulls are refused"), "{degraded:?}");
        assert_eq!(loaded(files.at_start("enforce", GOOD)), (1, Mode::Enforce, None));
        let (policies, mode, degraded) = loaded(files.at_start("enforce", BROKEN));
        assert_eq!((policies, mode), (1, Mode::Enforce));
        assert!(ends(&degraded, "; the last good policies are in force"), "{degraded:?}");
    }

    #[test]
    fn d6_broken_policies_at_a_reload_are_an_error() {
        let files = Files::new();
        assert_eq!(loaded(files.again("enforce", GOOD).unwrap()), (1, Mode::Enforce, None));
        assert!(
            files.again("enforce", BROKEN).is_err_and(|error| error.to_string().contains("unknown field"))
        );
    }

    #[test]
    fn e8_audit_mode_is_reached_with_policies_that_do_not_load() {
        let files = Files::new();
        files.again("enforce", GOOD).unwrap();
        let (policies, mode, degraded) = loaded(files.again("audit", BROKEN).unwrap());
        assert_eq!((policies, mode), (1, Mode::Audit));
        assert!(ends(&degraded, "; audit mode with the last good policies is in force"), "{degraded:?}");
        // The way back: good policies, and nothing is wrong any more.
        assert_eq!(loaded(files.again("enforce", GOOD).unwrap()), (1, Mode::Enforce, None));
    }

    #[test]
    fn e8_audit_mode_needs_no_state_folder_no_trust_root_and_no_list() {
        let files = Files::new();
        files.again("enforce", GOOD).unwrap();
        fs::write(files.0.path().join("policies.json"), "damaged").unwrap();
        let (policies, mode, degraded) = loaded(files.again("audit", BROKEN).unwrap());
        assert_eq!((policies, mode), (0, Mode::Audit));
        assert!(ends(&degraded, "; audit mode without any policy is in force"), "{degraded:?}");

        fs::write(files.0.path().join("approved.txt"), "nonsense\n").unwrap();
        let config = files.config("audit", GOOD);
        let text = fs::read_to_string(&config).unwrap() + "trust: {root: /nonexistent/root.json}\n";
        fs::write(&config, text).unwrap();
        let away = Err(TrustError::Timeout(MIRROR_PATIENCE));
        assert_eq!(files.again_as_configured(&away).unwrap().fresh.snapshot.mode, Mode::Audit);
    }

    const BROKEN: &str =
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: a}\nspec: {ruels: []}\n";
    const GOOD: &str = r#"
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: keyed}
spec:
  validationFailureAction: Enforce
  rules:
    - name: signed
      match: {any: [{resources: {kinds: [Pod]}}]}
      verifyImages:
        - imageReferences: ["ghcr.io/org/*"]
          attestors:
            - entries:
                - keys:
                    publicKeys: |-
                      -----BEGIN PUBLIC KEY-----
                      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM
                      5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==
                      -----END PUBLIC KEY-----
                    rekor: {ignoreTlog: true}
"#;
}
