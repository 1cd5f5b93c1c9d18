//! The node's configuration: `/etc/pullgate/config.yaml` as values that cannot be invalid.
//!
//! Trusts the file (it is the administrator's) but not its spelling: unknown keys, repeated keys,
//! values without a unit, relative paths and combinations that cannot work are refused, never
//! corrected, because a setting that is silently not in force is worse than one that is missing.
//! Every key has a default except `policy.paths`. JSON is accepted, being YAML.
//!
//! Errors name the file, the line, the key and the way out; the command line ends with exit code 2.
//!
//! What a key points at (policies, certificates, `registry.configPath` with its `hosts.toml`,
//! credential files) is read by the part that uses it, not here: this module opens one file.
//! Parts below get the values they need, never the whole [`Config`].

mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod lasting;
mod value;

use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::options::DuplicateKeyPolicy;

pub use self::error::ConfigError;
pub use self::value::{ByteSize, SocketPath};
use crate::trust::{Mirror, Origin};

/// Where the configuration is read from when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/pullgate/config.yaml";

/// A configuration is a page of text; a file past this is not one.
const FILE_LIMIT: u64 = 1 << 20;

/// Everything a node administrator can set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the kubelet's image calls come in, unless systemd hands a socket over.
    #[serde(default = "default::listen")]
    pub listen: SocketPath,
    /// The container runtime behind the gate.
    #[serde(default)]
    pub runtime: Runtime,
    /// What is demanded of an image.
    pub policy: Policy,
    /// How registries are reached.
    #[serde(default)]
    pub registry: Registry,
    /// The store of verdicts and their evidence.
    #[serde(default)]
    pub cache: Cache,
    /// What happens while a registry cannot be reached.
    #[serde(default)]
    pub outage: Outage,
    /// What signatures without a key are anchored in.
    #[serde(default)]
    pub trust: Trust,
    /// How much work one node does at once, and how long.
    #[serde(default)]
    pub limits: Limits,
    /// How long forwarded pulls may take to end when the daemon stops.
    #[serde(default = "default::drain", deserialize_with = "value::duration")]
    pub drain: Duration,
    /// The socket of `pullgate status`, `reload` and `cache`.
    #[serde(default)]
    pub control: Control,
    /// The Prometheus endpoint.
    #[serde(default)]
    pub metrics: Metrics,
    /// What is logged, and how.
    #[serde(default)]
    pub log: Log,
}

impl Config {
    /// Reads a configuration that someone named: it must be there.
    ///
    /// # Errors
    ///
    /// The file is missing, unreadable, too large, not UTF-8, or not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &read(path)?)
    }

    /// Every default, with these policies: for a command that names its policies itself and finds no configuration.
    #[must_use]
    pub fn with_policies(paths: Vec<PathBuf>) -> Self {
        Self {
            listen: default::listen(),
            runtime: Runtime::default(),
            policy: Policy {
                paths,
                unmatched: Unmatched::Allow,
                mode: Mode::Enforce,
                compatibility: Compatibility::Default,
                exempt_namespaces: default::exempt_namespaces(),
                approved: default::approved(),
            },
            registry: Registry::default(),
            cache: Cache::default(),
            outage: Outage::default(),
            trust: Trust::default(),
            limits: Limits::default(),
            drain: default::drain(),
            control: Control::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }

    /// Parses the text of a configuration; `path` is for messages.
    ///
    /// # Errors
    ///
    /// The text is not a valid configuration.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            // `yes` and `on` are not booleans, `010` is not 8.
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            with_snippet: false,
        };
        let mut key = String::new();
        let config = serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
            serde_path_to_error::deserialize::<_, Self>(document).map_err(|error| {
                key = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| ConfigError::invalid(path, key, &error))?;
        config.refuse_loops(path)?;
        Ok(config)
    }

    /// Two roles on one socket would make the gate call itself, or answer image calls on the control socket.
    fn refuse_loops(&self, path: &Path) -> Result<(), ConfigError> {
        let pairs = [
            ("listen", &self.listen, "runtime.endpoint", &self.runtime.endpoint),
            ("listen", &self.listen, "runtime.containerd", &self.runtime.containerd),
            ("listen", &self.listen, "control.listen", &self.control.listen),
            ("control.listen", &self.control.listen, "runtime.endpoint", &self.runtime.endpoint),
        ];
        for (first, one, second, other) in pairs {
            if one == other {
                return Err(ConfigError::SameSocket {
                    path: path.to_owned(),
                    first,
                    second,
                    socket: one.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The text of a configuration.
fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: FILE_LIMIT });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}

/// `runtime`: the container runtime behind the gate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Where image calls go: containerd, or another image proxy.
    pub endpoint: SocketPath,
    /// containerd's own API, for tag records.
    pub containerd: SocketPath,
    /// The containerd namespace that CRI uses.
    #[serde(deserialize_with = "value::not_empty")]
    pub namespace: String,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            endpoint: SocketPath::fixed("/run/containerd/containerd.sock"),
            containerd: SocketPath::fixed("/run/containerd/containerd.sock"),
            namespace: "k8s.io".to_owned(),
        }
    }
}

/// `policy`: what is demanded of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// Files or folders of Kyverno policies.
    #[serde(deserialize_with = "value::policy_paths")]
    pub paths: Vec<PathBuf>,
    /// What happens to an image that no rule covers.
    #[serde(default = "default::unmatched")]
    pub unmatched: Unmatched,
    /// Whether anything is refused at all.
    #[serde(default = "default::mode")]
    pub mode: Mode,
    /// How closely Kyverno is followed where the gate differs from it.
    #[serde(default = "default::compatibility")]
    pub compatibility: Compatibility,
    /// Namespaces that are never judged.
    #[serde(default = "default::exempt_namespaces", deserialize_with = "value::names")]
    pub exempt_namespaces: Vec<String>,
    /// A list of `repository@sha256:…` lines that are always let through.
    #[serde(default = "default::approved", deserialize_with = "value::absolute_path")]
    pub approved: PathBuf,
}

/// `policy.unmatched`: an image that no rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// It is let through.
    Allow,
    /// It is refused.
    Deny,
}

/// `policy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each rule's own action decides.
    Enforce,
    /// Nothing is refused; what would be is reported.
    Audit,
}

/// `policy.compatibility`: where the gate and upstream Kyverno differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// The gate's own answer.
    Default,
    /// Upstream's answer.
    Strict,
}

/// `registry`: how registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Registry {
    /// containerd's folder of `hosts.toml` files, or several with a colon between them.
    #[serde(deserialize_with = "value::search_path")]
    pub config_path: PathBuf,
    /// Further credential files; the CRI request's own credentials come first.
    #[serde(deserialize_with = "value::absolute_paths")]
    pub docker_config: Vec<PathBuf>,
    /// The folder of the secrets that policies name in `imageRegistryCredentials`: `NAME.json` or
    /// `NAMESPACE/NAME.json`, each with what the secret has under `.dockerconfigjson`.
    #[serde(deserialize_with = "value::absolute_path")]
    pub secrets: PathBuf,
    /// Certificate authorities in addition to the system's.
    #[serde(deserialize_with = "value::absolute_paths")]
    pub ca_files: Vec<PathBuf>,
    /// Hosts, with a port where there is one, that are spoken to without TLS.
    #[serde(deserialize_with = "value::names")]
    pub plain_http: Vec<String>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            config_path: PathBuf::from("/etc/containerd/certs.d"),
            docker_config: Vec::new(),
            secrets: PathBuf::from("/etc/pullgate/secrets"),
            ca_files: Vec::new(),
            plain_http: Vec::new(),
        }
    }
}

/// `cache`: the store of verdicts and their evidence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CacheKeys")]
pub struct Cache {
    /// The folder it lies in.
    pub path: PathBuf,
    /// For how long a verdict holds without another look at the registry.
    pub fresh: Duration,
    /// For how long stored evidence serves while the registry cannot be reached; none: never.
    pub stale: Option<Duration>,
    /// Verdicts kept at most.
    pub max_entries: NonZeroUsize,
    /// Size on disk at most.
    pub max_size: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        let CacheKeys { path, fresh, stale, max_entries, max_size } = CacheKeys::default();
        Self { path, fresh, stale: Some(stale), max_entries, max_size }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct CacheKeys {
    #[serde(deserialize_with = "value::absolute_path")]
    path: PathBuf,
    #[serde(deserialize_with = "value::duration")]
    fresh: Duration,
    #[serde(deserialize_with = "value::duration")]
    stale: Duration,
    #[serde(deserialize_with = "value::count")]
    max_entries: NonZeroUsize,
    max_size: ByteSize,
}

impl Default for CacheKeys {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/pullgate/cache"),
            fresh: Duration::from_secs(24 * 60 * 60),
            stale: Duration::from_secs(7 * 24 * 60 * 60),
            max_entries: NonZeroUsize::new(50_000).expect("not zero"),
            max_size: ByteSize::gib(1),
        }
    }
}

impl TryFrom<CacheKeys> for Cache {
    type Error = &'static str;

    fn try_from(keys: CacheKeys) -> Result<Self, Self::Error> {
        let CacheKeys { path, fresh, stale, max_entries, max_size } = keys;
        if !stale.is_zero() && stale < fresh {
            return Err("`stale` is shorter than `fresh`: set it to the same or more, or to 0s for never");
        }
        Ok(Self { path, fresh, stale: (!stale.is_zero()).then_some(stale), max_entries, max_size })
    }
}

/// `outage`: what happens while a registry cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Outage {
    /// Which pulls are answered with the verified image that is present.
    pub serve_present: ServePresent,
}

impl Default for Outage {
    fn default() -> Self {
        Self { serve_present: ServePresent::Anonymous }
    }
}

/// `outage.servePresent`: who gets a present image while its registry is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServePresent {
    /// Nobody.
    Never,
    /// Pulls without credentials.
    Anonymous,
    /// Also pulls with the very credentials that once pulled it.
    Credentials,
    /// Also pulls from the namespace and user that once pulled it.
    Namespace,
}

/// `trust`: what signatures without a key are anchored in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TrustKeys")]
pub struct Trust {
    /// Where the Sigstore trust root comes from: `root` or `tuf`.
    pub root: Origin,
    /// Whether a transparency log may be asked for the entry of a signature that carries none.
    pub online_rekor: OnlineRekor,
}

impl Default for Trust {
    fn default() -> Self {
        Self { root: Origin::PublicGood, online_rekor: OnlineRekor::Never }
    }
}

/// `trust.onlineRekor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlineRekor {
    /// Log entries are verified offline, or not there.
    Never,
    /// Policies that name a `rekor.url` have it asked.
    Allowed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TrustKeys {
    #[serde(default, deserialize_with = "value::trust_root")]
    root: Option<Origin>,
    tuf: Option<TufKeys>,
    #[serde(default)]
    online_rekor: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TufKeys {
    #[serde(deserialize_with = "value::mirror")]
    mirror: Mirror,
    #[serde(deserialize_with = "value::absolute_path")]
    root: PathBuf,
}

impl TryFrom<TrustKeys> for Trust {
    type Error = &'static str;

    fn try_from(keys: TrustKeys) -> Result<Self, Self::Error> {
        let root = match (keys.root, keys.tuf) {
            (Some(_), Some(_)) => {
                return Err("`root` and `tuf` exclude each other: a node has one trust root");
            }
            (None, Some(tuf)) => Origin::Tuf { mirror: tuf.mirror, root: tuf.root },
            (root, None) => root.unwrap_or(Origin::PublicGood),
        };
        let online_rekor = if keys.online_rekor { OnlineRekor::Allowed } else { OnlineRekor::Never };
        Ok(Self { root, online_rekor })
    }
}

/// `limits`: how much work one node does at once, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The time for the verification of one image. The kubelet sets none.
    #[serde(deserialize_with = "value::positive_duration")]
    pub verification: Duration,
    /// Verifications at once.
    #[serde(deserialize_with = "value::count")]
    pub concurrency: NonZeroUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { verification: Duration::from_secs(60), concurrency: NonZeroUsize::new(16).expect("not zero") }
    }
}

/// `control`: the socket of `pullgate status`, `reload` and `cache`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Where it is; root only.
    pub listen: SocketPath,
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: SocketPath::fixed("/run/pullgate/control.sock") }
    }
}

/// `metrics`: the Prometheus endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port; none: off.
    #[serde(deserialize_with = "value::address")]
    pub listen: Option<SocketAddr>,
}

impl Default for Metrics {
    fn default() -> Self {
        // Not a port that node_exporter and its kin are known by.
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9477))) }
    }
}

/// `log`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// In which form.
    pub format: LogFormat,
    /// From which severity on.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: LogLevel::Info }
    }
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// journald fields where journald listens, text otherwise.
    Auto,
    /// journald fields.
    Journald,
    /// One JSON object a line.
    Json,
    /// Text.
    Text,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a hand.
    Error,
    /// And what may soon.
    Warn,
    /// And one line a verdict.
    Info,
    /// And the steps of each verdict.
    Debug,
    /// And the calls on the wire, without their contents.
    Trace,
}

impl LogLevel {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Defaults of single keys; a section's own stand in its `Default`.
mod default {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{Compatibility, Mode, SocketPath, Unmatched};

    pub(super) fn listen() -> SocketPath {
        SocketPath::fixed("/run/pullgate/pullgate.sock")
    }

    pub(super) const fn drain() -> Duration {
        Duration::from_secs(30)
    }

    pub(super) const fn unmatched() -> Unmatched {
        Unmatched::Allow
    }

    pub(super) const fn mode() -> Mode {
        Mode::Enforce
    }

    pub(super) const fn compatibility() -> Compatibility {
        Compatibility::Default
    }

    /// Kyverno's own defaults, and the namespaces without which a node does not come up.
    pub(super) fn exempt_namespaces() -> Vec<String> {
        ["kube-system", "kube-public", "kube-node-lease"].map(str::to_owned).to_vec()
    }

    pub(super) fn approved() -> PathBuf {
        PathBuf::from("/etc/pullgate/approved.txt")
    }
}

#[cfg(test)]
mod tests;
