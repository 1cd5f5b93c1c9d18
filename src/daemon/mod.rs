//! The running daemon: start-up, reload, background, status, shutdown.
//!
//! In order: listen (the kubelet must find a socket), start opening the cache, load the policies
//! (or the last good ones, rule D6; or none, rule D5), serve, say READY=1. SIGHUP and
//! `pullgate reload` load everything anew; if anything in it fails, the old snapshot stays and status
//! says so. SIGTERM drains (rule E6). Only a bad `config.yaml` at start ends the daemon at once.

mod background;
pub mod cache;
pub mod control;
mod gate;
pub mod loading;
pub mod logging;
pub mod metrics;
mod reload;
pub mod roots;
mod sources;

use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry as MetricsRegistry;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::audit::Audit;
use crate::admission::{Gate, ServePresent, Settings, Snapshot};
use crate::cache::{Clock, Options, Store};
use crate::config::{self, Config};
use crate::cri::{Proxy, ProxyOptions, socket};
use crate::policy::{PolicySource, Remark, Severity};
use crate::registry::{self, CertificateAuthority, DockerConfig, RegistryOptions, Timeouts};
use crate::{containerd, cri};
use control::{Answer, Request, Response};
use gate::NodeGate;
use loading::{Fresh, TrustUse};
use roots::Roots;

pub use sources::{SourceError, read as read_sources};

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The image socket cannot be made.
    #[error("listen: {0}")]
    Socket(#[from] socket::SocketError),
    /// Another socket cannot be made.
    #[error("{what} {path}: {source}")]
    Bind {
        /// Which one.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What binding said.
        #[source]
        source: std::io::Error,
    },
    /// The registry client cannot be set up.
    #[error("registry: {0}")]
    Registry(#[from] registry::RegistryError),
    /// A file of certificate authorities cannot be read.
    #[error("registry.caFiles: cannot read {path}: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// A file of registry credentials cannot be used.
    #[error("registry.dockerConfig: {0}")]
    DockerConfig(#[source] registry::DockerConfigError),
    /// The state folder cannot be used.
    #[error("state folder {path}: {source}")]
    State {
        /// The folder.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// No snapshot at all could be made.
    #[error("{0}")]
    Snapshot(loading::LoadError),
    /// The runtime is CRI-O.
    #[error(
        "runtime.endpoint: {0} is CRI-O, which pullgate does not support: verify with CRI-O's own policy.json, or use containerd"
    )]
    CriO(PathBuf),
    /// Signals cannot be listened for.
    #[error("signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// What status, reload and the background share.
struct Daemon {
    config_path: PathBuf,
    /// What it began with: much of it holds until the next start.
    started: Arc<Config>,
    gate: Arc<Gate>,
    registry: Arc<registry::Client>,
    audit: Arc<Audit>,
    containerd: containerd::Client,
    counts: Arc<cri::Counts>,
    state: PathBuf,
    roots: Roots,
    live: Mutex<Live>,
    reloading: tokio::sync::Mutex<()>,
    /// Evidence was imported.
    imported: Notify,
}

/// What changes with a reload.
struct Live {
    degraded: Option<String>,
    notices: Vec<Remark>,
    /// Names of images that the look which is under way has still to decide; none before the first look
    /// under these policies.
    to_look_at: Option<usize>,
    /// What the snapshot was built from, for another trust root.
    config: Arc<Config>,
    sources: Arc<Vec<PolicySource>>,
    trust: TrustUse,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`DaemonError`] for what cannot be set up at start.
pub async fn run(config_path: &Path, config: Config) -> Result<(), DaemonError> {
    let config = Arc::new(config);
    // Before anything answers: whoever sees the daemon may stop it or have it reload.
    let mut hang_up = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    // The control socket first: who sees the image socket may ask for status.
    let control_path = config.control.listen.path().to_owned();
    let control_listener = control::bind(&control_path).map_err(|source| DaemonError::Bind {
        what: "control.listen",
        path: control_path,
        source,
    })?;
    let listener = listen(&config)?;
    refuse_crio(config.runtime.endpoint.path()).await?;
    let state = config.cache.path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    let state_error = |source| DaemonError::State { path: state.clone(), source };
    std::fs::create_dir_all(&state).map_err(state_error)?;
    let salt = salt(&state).map_err(state_error)?;
    let store = Store::start(cache_options(&config));
    let mut metrics_registry = MetricsRegistry::with_prefix("pullgate");
    let audit = Arc::new(Audit::new(&mut metrics_registry));
    let registry = Arc::new(registry::Client::new(&registry_options(&config)?)?);
    let complaints = registry.configuration_complaints();
    for complaint in complaints.errors {
        tracing::error!("{complaint}; nothing is pulled from that registry until it is put right");
    }
    for complaint in complaints.without_effect {
        tracing::warn!("{complaint}");
    }
    let roots = Roots::new(&config, &state, &mut metrics_registry)?;
    let loaded = reload::first(&config, &state, &roots.domain().root(SystemTime::now()))?;
    let fresh = loaded.fresh;
    announce(&fresh, &audit);
    roots.show(&fresh.trust);
    registry.sign_in_with(fresh.logins);
    let settings = Settings {
        verification: config.limits.verification,
        concurrency: config.limits.concurrency.get(),
        serve_present: match config.outage.serve_present {
            config::ServePresent::Never => ServePresent::Never,
            config::ServePresent::Anonymous => ServePresent::Anonymous,
            config::ServePresent::Credentials => ServePresent::Credentials,
            config::ServePresent::Namespace => ServePresent::Namespace,
        },
        shown: Some(state.join("shown")),
        salt,
    };
    let gate = Arc::new(Gate::new(
        Arc::new(fresh.snapshot),
        Arc::clone(&registry),
        store.clone(),
        Arc::clone(&audit),
        settings,
    ));
    let containerd = containerd::Client::new(config.runtime.containerd.path());
    let shutdown = CancellationToken::new();
    let node = Arc::new(NodeGate::new(Arc::clone(&gate), config.runtime.containerd.path()));
    let mut proxy_options = ProxyOptions::new(config.runtime.endpoint.path());
    proxy_options.drain = config.drain;
    proxy_options.allowed_users.insert(nix::unistd::geteuid().as_raw());
    let proxy = Proxy::new(proxy_options, node, containerd.clone(), shutdown.clone());
    let daemon = Arc::new(Daemon {
        config_path: config_path.to_owned(),
        started: Arc::clone(&config),
        gate,
        registry,
        audit,
        containerd,
        counts: proxy.counts(),
        state,
        roots,
        live: Mutex::new(Live {
            degraded: loaded.degraded,
            notices: fresh.notices,
            to_look_at: None,
            config: Arc::clone(&config),
            sources: Arc::new(loaded.sources),
            trust: fresh.trust,
        }),
        reloading: tokio::sync::Mutex::new(()),
        imported: Notify::new(),
    });

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(control::serve(control_listener, Arc::clone(&daemon)));
    if let Some(address) = config.metrics.listen {
        match metrics::bind(address).await {
            Ok(listener) => drop(tasks.spawn(metrics::serve(listener, Arc::new(metrics_registry)))),
            Err(error) => tracing::warn!(%error, %address, "metrics page cannot be served"),
        }
    }
    tasks.spawn(Arc::clone(&daemon).look_daily());
    tasks.spawn(Arc::clone(&daemon).watch_containerd());
    tasks.spawn(Arc::clone(&daemon).keep_trust_root_fresh());
    tasks.spawn(watchdog());
    notify(&[sd_notify::NotifyState::Ready]);

    let serving = proxy.serve(listener);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            () = &mut serving => break,
            _ = hang_up.recv() => {
                let daemon = Arc::clone(&daemon);
                tasks.spawn(async move { drop(daemon.reload().await) });
            }
            _ = terminate.recv(), if !shutdown.is_cancelled() => shutdown.cancel(),
            _ = interrupt.recv(), if !shutdown.is_cancelled() => shutdown.cancel(),
        }
        if shutdown.is_cancelled() {
            notify(&[sd_notify::NotifyState::Stopping]);
            // Ends by itself: the relay bounds its drain.
            serving.await;
            break;
        }
    }
    tasks.shutdown().await;
    drop(tokio::task::spawn_blocking(move || store.close()).await);
    Ok(())
}

/// The socket that systemd hands over, or our own.
fn listen(config: &Config) -> Result<UnixListener, DaemonError> {
    let mut handed = listenfd::ListenFd::from_env();
    match handed.take_unix_listener(0) {
        Ok(Some(listener)) => Ok(socket::handed_over(listener)?),
        Ok(None) => Ok(socket::bind(config.listen.path())?),
        Err(source) => Err(DaemonError::Bind {
            what: "socket handed over",
            path: config.listen.path().to_owned(),
            source,
        }),
    }
}

/// A runtime that does not answer yet may still be containerd.
async fn refuse_crio(endpoint: &Path) -> Result<(), DaemonError> {
    match cri::runtime_name(endpoint).await {
        Ok(name) if cri::is_crio(&name) => Err(DaemonError::CriO(endpoint.to_owned())),
        Ok(name) => {
            tracing::debug!(name, "container runtime");
            Ok(())
        }
        Err(error) => {
            tracing::info!(%error, endpoint = %endpoint.display(), "the container runtime does not answer yet");
            Ok(())
        }
    }
}

/// Says what a new snapshot does (rules D1, S3).
fn announce(fresh: &Fresh, audit: &Audit) {
    let snapshot = &fresh.snapshot;
    let counts = snapshot.policies.counts();
    tracing::info!(
        policies = counts.policies, refusing = counts.refusing, reporting = counts.reporting,
        mode = ?snapshot.mode, fingerprint = %snapshot.fingerprint, "policies loaded"
    );
    for warning in warnings(snapshot) {
        tracing::warn!("{warning}");
    }
    for notice in &fresh.notices {
        match notice.severity {
            Severity::Error | Severity::Warning => tracing::warn!("{notice}"),
            Severity::Notice => tracing::info!("{notice}"),
        }
    }
    let pull_only = snapshot.policies.pull_only_rules();
    audit.pull_only_rules.set(i64::try_from(pull_only.len()).unwrap_or(i64::MAX));
    let loaded = snapshot.loaded_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    audit.snapshot_loaded.set(i64::try_from(loaded).unwrap_or(i64::MAX));
}

/// What an administrator should know about a snapshot.
#[must_use]
pub fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let mut warnings = Vec::new();
    if snapshot.policies.is_empty() {
        warnings.push("no policy loaded: every pull is refused (in audit mode: let pass)".to_owned());
    } else if snapshot.policies.counts().refusing == 0 {
        warnings.push("no rule refuses anything: all are Audit (validationFailureAction)".to_owned());
    }
    for rule in snapshot.policies.pull_only_rules() {
        warnings.push(format!(
            "rule {rule} depends on the pod, on how the image is named, or on what a registry says at the pull: enforced at pull only; use imagePullPolicy Always"
        ));
    }
    warnings
}

/// The cache as the config says.
#[must_use]
pub fn cache_options(config: &Config) -> Options {
    Options {
        path: config.cache.path.clone(),
        max_entries: config.cache.max_entries.get(),
        max_size: config.cache.max_size.bytes(),
        fresh: config.cache.fresh,
        stale: config.cache.stale.unwrap_or(Duration::ZERO),
        patience: Duration::from_secs(10),
        clock: Clock::system(),
    }
}

/// Registries as the config says.
///
/// # Errors
/// [`DaemonError::CaFile`] and [`DaemonError::DockerConfig`].
pub fn registry_options(config: &Config) -> Result<RegistryOptions, DaemonError> {
    let mut certificate_authorities = Vec::new();
    for path in &config.registry.ca_files {
        let pem = std::fs::read(path).map_err(|source| DaemonError::CaFile { path: path.clone(), source })?;
        certificate_authorities.push(CertificateAuthority { name: path.display().to_string(), pem });
    }
    let docker_configs = config.registry.docker_config.iter().map(|path| DockerConfig::read(path));
    Ok(RegistryOptions {
        docker_configs: docker_configs.collect::<Result<_, _>>().map_err(DaemonError::DockerConfig)?,
        plain_http: config.registry.plain_http.clone(),
        config_path: Some(config.registry.config_path.clone()),
        certificate_authorities,
        concurrency_per_host: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
        // A registry that lets all of it run out leaves time for what is stored (rule O1).
        timeouts: Timeouts { look_up: config.limits.verification / 2, ..Timeouts::default() },
    })
}

/// The key of credential hashes: made once, readable by us alone.
fn salt(state: &Path) -> std::io::Result<Vec<u8>> {
    let path = state.join("salt");
    match std::fs::read(&path) {
        Ok(salt) if salt.len() == SALT => return Ok(salt),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut salt = vec![0; SALT];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut salt)?;
    let temporary = state.join("salt.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    std::io::Write::write_all(&mut file, &salt)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    Ok(salt)
}

/// Tells systemd that we live, as often as it asks for.
async fn watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(interval / 3);
    loop {
        ticks.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

impl Daemon {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the metric of containerd's state.
    async fn watch_containerd(self: Arc<Self>) {
        loop {
            let up = self.containerd.version().await.is_ok();
            self.audit.upstream_up.set(i64::from(up));
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }

    async fn status(&self, would_deny: bool) -> Value {
        let snapshot = self.gate.snapshot();
        let counts = snapshot.policies.counts();
        let version = tokio::time::timeout(Duration::from_secs(2), self.containerd.version()).await;
        let containerd = match version {
            Ok(Ok(version)) => json!({ "up": true, "version": version.version }),
            Ok(Err(_)) | Err(_) => json!({ "up": false }),
        };
        let store = self.gate.store();
        let kept = store.counts();
        let loaded =
            snapshot.loaded_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let wrong = self.gate.wrong();
        let running = if would_deny { self.running_of_denied().await.ok() } else { None };
        let trust = self.live().trust.clone();
        let (trust_root, without) = self.trust_status(&trust, SystemTime::now());
        let live = self.live();
        let needs_restart = self.started.needs_restart(&live.config);
        let mut warned = warnings(&snapshot);
        warned.extend(reload::after_restart(&needs_restart));
        let degraded: Vec<_> = live.degraded.iter().chain(&without).map(String::as_str).collect();
        let mut body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mode": snapshot.mode,
            "unmatched": snapshot.unmatched,
            "policies": { "loaded": counts.policies, "refusing": counts.refusing, "reporting": counts.reporting },
            "pullOnlyRules": snapshot.policies.pull_only_rules(),
            "exemptNamespaces": snapshot.exempt_namespaces,
            "approved": snapshot.approved.list(),
            "snapshot": { "fingerprint": snapshot.fingerprint, "loadedAt": loaded },
            "containerd": containerd,
            "cache": { "state": store.phase().word(), "verdicts": kept.verdicts, "admissions": kept.admissions, "evidenceImages": kept.evidence },
            "images": { "undecided": wrong.undecided, "denied": wrong.denied, "toLookAt": live.to_look_at },
            "connections": self.counts.connections.load(std::sync::atomic::Ordering::Relaxed),
            "needsRestart": needs_restart,
            "warnings": warned,
            "notices": live.notices.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "trustRoot": trust_root,
            "degraded": (!degraded.is_empty()).then(|| degraded.join("; ")),
        });
        drop(live);
        if let Some(body) = body.as_object_mut().filter(|_| would_deny) {
            body.insert("wouldDeny".to_owned(), json!(self.gate.would_deny()));
            body.insert("undecided".to_owned(), json!(self.gate.undecided()));
            // Null: containerd could not be asked.
            body.insert("wouldDenyRunning".to_owned(), json!(running));
        }
        body
    }
}

impl Answer for Daemon {
    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Status { would_deny } => Response::good(self.status(would_deny).await),
            Request::Reload {} => match self.reload().await {
                Ok(reloaded) => Response::good(json!(reloaded)),
                Err(error) => Response::bad(error),
            },
            Request::CacheList { after } => cache::list(self.gate.store(), after, cache::PAGE).await,
            Request::CacheShow { image } => cache::show(self.gate.store(), &image).await,
            Request::CachePurge { image } => {
                let answer = cache::purge(self.gate.store(), image.as_deref()).await;
                self.gate.look_again().notify_one();
                answer
            }
            Request::CacheExportable { images, after } => {
                cache::exportable(self.gate.store(), &images, after, cache::PAGE).await
            }
            Request::CacheExport { image } => cache::export(self.gate.store(), &image).await,
            Request::CacheImport { evidence } => {
                let answer = cache::import(&self.gate, evidence).await;
                // What is present and was not decided may be decided now (rule S6).
                self.imported.notify_one();
                answer
            }
            Request::CachePrewarm { image } => cache::prewarm(&self.gate, &image).await,
        }
    }
}

/// systemd wants the time with the word.
fn notify_reloading() {
    if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
        notify(&[sd_notify::NotifyState::Reloading, now]);
    }
}

/// Bytes of the key of credential hashes.
const SALT: usize = 32;
