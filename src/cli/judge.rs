//! The gate without a node: by what `verify` and `apply` judge, and the judging itself.
//!
//! Policies, trust and registries are the config's unless the command line names others; credentials
//! come from docker's config files. Several images are judged at once, and answered in the order they were
//! asked in. Nothing is recorded: the cache lives as long as the command.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::runtime::Runtime;

use super::args::{Basis, DEFAULT_CONFIG, UnmatchedArgument};
use super::{Exit, complain};
use crate::admission::audit::{Audit, Phases};
use crate::admission::{Gate, Judgement, PullRequest, ServePresent, Settings, Snapshot};
use crate::cache::Store;
use crate::config::{self, Config};
use crate::daemon::loading::{self, Fresh, TrustUse};
use crate::daemon::{cache_options, read_sources, registry_options, roots};
use crate::oci::Reference;
use crate::policy::evaluate::Decision;
use crate::policy::{PodFacts, PolicySource};
use crate::registry::{self, Credentials, DockerConfig};
use crate::trust::{Anchor, Keeping, Origin};

/// The policies in force, with everything that decides beside them.
pub(super) struct Rules {
    config: Config,
    snapshot: Arc<Snapshot>,
    /// Of the secrets that they name.
    logins: DockerConfig,
}

/// A gate that decides by these rules.
pub(super) struct Judge {
    gate: Gate,
    snapshot: Arc<Snapshot>,
}

impl Rules {
    /// Loads what the command line or the config names.
    ///
    /// # Errors
    /// In one line: what cannot be read or does not load, and the way out.
    pub(super) fn load(basis: &Basis, runtime: &Runtime) -> Result<Self, String> {
        let config = read_config(basis)?;
        // Policies with keys alone never read it, and would hide that its name is wrong.
        if let Some(file) = &basis.trusted_root {
            std::fs::metadata(file).map_err(|error| {
                format!("--trusted-root {}: {error}; name a trusted_root.json", file.display())
            })?;
        }
        let sources = read_sources(&config.policy.paths).map_err(|error| error.to_string())?;
        let fresh = with_trust_root(basis, &config, &sources, runtime)?;
        if fresh.snapshot.policies.is_empty() {
            return Err(
                "no policy loaded: name one with --policy, or put it where the config's policy.paths say"
                    .to_owned(),
            );
        }
        Ok(Self { config, snapshot: Arc::new(fresh.snapshot), logins: fresh.logins })
    }

    /// The snapshot that decides.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The gate for `images`.
    ///
    /// # Errors
    /// In one line: which setting of registries or credentials cannot be used.
    pub(super) fn judge<'a>(
        mut self,
        basis: &Basis,
        images: impl IntoIterator<Item = &'a Reference>,
    ) -> Result<Judge, String> {
        if basis.plain_http {
            let hosts = images.into_iter().map(|image| image.repository().host().to_owned());
            self.config.registry.plain_http.extend(hosts);
        }
        let snapshot = Arc::clone(&self.snapshot);
        let store = Store::in_memory(cache_options(&self.config));
        Ok(Judge { gate: self.gate(basis, store)?, snapshot })
    }

    /// A gate with this cache.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub(super) fn gate(self, basis: &Basis, store: Store) -> Result<Gate, String> {
        let config = &self.config;
        let mut options = registry_options(config).map_err(|error| error.to_string())?;
        options.docker_configs = docker_configs(basis, options.docker_configs)?;
        let registry = registry::Client::new(&options).map_err(|error| error.to_string())?;
        registry.sign_in_with(self.logins);
        let settings = Settings {
            verification: config.limits.verification,
            concurrency: config.limits.concurrency.get(),
            serve_present: ServePresent::Never,
            shown: None,
            salt: Vec::new(),
        };
        let audit = Arc::new(Audit::new(&mut MetricsRegistry::default()));
        Ok(Gate::new(self.snapshot, Arc::new(registry), store, audit, settings))
    }
}

impl Judge {
    /// One judgement a request, in their order.
    pub(super) async fn all(&self, requests: &[(Reference, PodFacts)]) -> Vec<Judgement> {
        let progress = progress(requests.len());
        let judgements = futures_util::stream::iter(requests)
            .map(|(reference, pod)| async {
                let judgement = self.one(reference, pod).await;
                progress.inc(1);
                judgement
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        progress.finish_and_clear();
        judgements
    }

    async fn one(&self, reference: &Reference, pod: &PodFacts) -> Judgement {
        // The registry client finds those of the docker config files.
        let credentials = Credentials::Anonymous;
        let request = PullRequest { reference: reference.clone(), pod: pod.clone(), credentials };
        self.gate.judge(&self.snapshot, &request, &mut Phases::start()).await
    }
}

/// What one judgement makes of the exit code.
pub(super) fn exit(judgement: &Judgement, fail_on_audit: bool) -> Exit {
    match &judgement.decision {
        Decision::Allow(permit) if fail_on_audit && !permit.would_deny().is_empty() => Exit::No,
        Decision::Allow(_) => Exit::Done,
        Decision::Deny(_) => Exit::No,
        Decision::Undecided(_) => Exit::Unknown,
    }
}

/// A denial outweighs what could not be found out.
pub(super) fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let exits: Vec<_> = exits.into_iter().collect();
    [Exit::No, Exit::Unknown].into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Done)
}

/// The policies with the trust root that the command line or else the config names. A mirror is asked only
/// where a policy needs it, and what the daemon on this machine has is younger than a day no more.
fn with_trust_root(
    basis: &Basis,
    config: &Config,
    sources: &[PolicySource],
    runtime: &Runtime,
) -> Result<Fresh, String> {
    let (origin, keeping) = match (&basis.trusted_root, &basis.tuf_mirror, &basis.tuf_root) {
        (Some(path), _, _) => (Origin::File(path.clone()), Keeping::Nowhere),
        (None, Some(mirror), Some(root)) => {
            (Origin::Tuf { mirror: mirror.clone(), root: root.clone() }, Keeping::Nowhere)
        }
        (None, _, _) => {
            let state = config.cache.path.parent().unwrap_or_else(|| Path::new("/"));
            (config.trust.root.clone(), Keeping::ReadOnly(roots::folder(state)))
        }
    };
    let domain = roots::domain(config, origin, keeping).map_err(|error| error.to_string())?;
    let domain = domain.within(config.limits.verification);
    let now = SystemTime::now();
    let build = |rooted: &_| loading::build(config, sources, rooted).map_err(|error| error.to_string());
    let mut rooted = domain.root(now);
    let mut fresh = build(&rooted)?;
    let old = |anchor: &Anchor| now.duration_since(anchor.confirmed).is_ok_and(|age| age > DAY);
    let ask = match &fresh.trust {
        TrustUse::Unused => false,
        TrustUse::Anchored(anchor) => old(anchor),
        TrustUse::Missing => true,
    };
    if ask && matches!(domain.origin(), Origin::Tuf { .. }) {
        match (runtime.block_on(domain.refresh(now)), &rooted) {
            (Err(error), Ok(_)) => {
                complain(format_args!("{}; what was fetched before is used", domain.origin().explain(&error)))
            }
            (refreshed, _) => {
                rooted = refreshed;
                fresh = build(&rooted)?;
            }
        }
    }
    if let (TrustUse::Missing, Err(error)) = (&fresh.trust, &rooted) {
        let missing = domain.origin().explain(error);
        if error.is_settled() {
            return Err(missing);
        }
        complain(missing);
    }
    Ok(fresh)
}

fn read_config(basis: &Basis) -> Result<Config, String> {
    let mut config = match (&basis.config, basis.policy.is_empty()) {
        (Some(path), _) => Config::load(path).map_err(|error| error.to_string())?,
        (None, true) => Config::load(Path::new(DEFAULT_CONFIG))
            .map_err(|error| format!("{error}; name policies with --policy, or a config with --config"))?,
        (None, false) => Config::with_policies(basis.policy.clone()),
    };
    if !basis.policy.is_empty() {
        config.policy.paths.clone_from(&basis.policy);
    }
    if let Some(unmatched) = basis.unmatched {
        config.policy.unmatched = match unmatched {
            UnmatchedArgument::Allow => config::Unmatched::Allow,
            UnmatchedArgument::Deny => config::Unmatched::Deny,
        };
    }
    Ok(config)
}

/// `--docker-config`, the config's files, then the user's own; a missing file of the user is no error.
fn docker_configs(basis: &Basis, of_config: Vec<DockerConfig>) -> Result<Vec<DockerConfig>, String> {
    let mut configs = Vec::new();
    if let Some(folder) = &basis.docker_config {
        let path = folder.join("config.json");
        configs.push(DockerConfig::read(&path).map_err(|error| error.to_string())?);
    }
    configs.extend(of_config);
    let own = std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    if let Some(text) = own.and_then(|folder| std::fs::read_to_string(folder.join("config.json")).ok()) {
        configs.extend(DockerConfig::parse(&text).ok());
    }
    Ok(configs)
}

/// A bar for several images on a terminal; nothing otherwise.
fn progress(images: usize) -> ProgressBar {
    if images < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(images).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("verifying {pos}/{len} [{bar:30}] {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Images verified at once; the registry client bounds requests to one host.
const AT_ONCE: usize = 8;
/// Sigstore signs its timestamp metadata anew every few days.
const DAY: Duration = Duration::from_secs(24 * 3600);
