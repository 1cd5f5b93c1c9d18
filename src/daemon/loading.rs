//! From config and policy files to a [`Snapshot`], whole or not at all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::sources::{self, SourceError};
use crate::admission::Snapshot;
use crate::config::{self, Config};
use crate::oci::Digest;
use crate::policy::evaluate::{Approved, ApprovedError, Mode, Unmatched};
use crate::policy::{Compatibility, LoadOptions, PolicySet, PolicySource, Remark};
use crate::sigstore::{TrustRoot, TrustRootError};

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A policy file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Policies do not load. The first error stands for all; `pullgate check` prints every one.
    #[error("{}{}", .0.first().map(ToString::to_string).unwrap_or_default(), more(.0.len()))]
    Policy(Vec<Remark>),
    /// The list of approved images cannot be read.
    #[error("policy.approved: cannot read {path}: {source}")]
    ApprovedFile {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// The list of approved images belongs to somebody else.
    #[error("policy.approved: {path} must belong to root and be writable by root alone")]
    ApprovedOwner {
        /// The file.
        path: PathBuf,
    },
    /// A line of that list is not one.
    #[error("policy.approved: {path}: {source}")]
    Approved {
        /// The file.
        path: PathBuf,
        /// The line.
        #[source]
        source: ApprovedError,
    },
    /// The trust root cannot be read.
    #[error("trust.root: cannot read {path}: {source}")]
    TrustFile {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// The trust root is not one.
    #[error("trust.root: {0}")]
    Trust(#[from] TrustRootError),
}

/// A snapshot and what is worth saying about it.
pub struct Fresh {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Notices of the policies.
    pub notices: Vec<Remark>,
}

/// Builds a snapshot from the files that `config` names.
///
/// # Errors
/// [`LoadError`]; nothing is half loaded.
pub fn load(config: &Config) -> Result<(Fresh, Vec<PolicySource>), LoadError> {
    let sources = sources::read(&config.policy.paths)?;
    let fresh = build(config, &sources)?;
    Ok((fresh, sources))
}

/// Builds a snapshot from these sources.
///
/// # Errors
/// [`LoadError`].
pub fn build(config: &Config, sources: &[PolicySource]) -> Result<Fresh, LoadError> {
    let trust_root = trust_root(&config.trust.root)?;
    build_with(config, sources, trust_root)
}

/// Builds a snapshot with another trust root than the config's.
///
/// # Errors
/// [`LoadError`].
pub fn build_with(
    config: &Config,
    sources: &[PolicySource],
    trust_root: TrustRoot,
) -> Result<Fresh, LoadError> {
    let compatibility = match config.policy.compatibility {
        config::Compatibility::Default => Compatibility::Default,
        config::Compatibility::Strict => Compatibility::Strict,
    };
    let options = LoadOptions { compatibility, trust_root: Arc::new(trust_root) };
    let loaded = PolicySet::load(sources, &options).map_err(LoadError::Policy)?;
    let approved = approved(&config.policy.approved)?;
    Ok(Fresh { snapshot: snapshot(config, loaded.set, approved), notices: loaded.notices })
}

/// A snapshot without any policy: pulls are refused with `no policy loaded` (rule D5).
///
/// # Errors
/// Only if an empty set of policies does not load.
pub fn empty(config: &Config) -> Result<Snapshot, LoadError> {
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: Arc::new(TrustRoot::public_good()?),
    };
    let loaded = PolicySet::load(&[], &options).map_err(LoadError::Policy)?;
    Ok(snapshot(config, loaded.set, approved(&config.policy.approved).unwrap_or_default()))
}

fn snapshot(config: &Config, policies: PolicySet, approved: Approved) -> Snapshot {
    let mode = match config.policy.mode {
        config::Mode::Enforce => Mode::Enforce,
        config::Mode::Audit => Mode::Audit,
    };
    let unmatched = match config.policy.unmatched {
        config::Unmatched::Allow => Unmatched::Allow,
        config::Unmatched::Deny => Unmatched::Deny,
    };
    let exempt_namespaces = config.policy.exempt_namespaces.clone();
    let text = format!(
        "{} {mode:?} {unmatched:?} {exempt_namespaces:?} {:?}",
        policies.fingerprint(),
        approved.list()
    );
    let fingerprint = Digest::of(text.as_bytes());
    Snapshot {
        policies,
        mode,
        unmatched,
        exempt_namespaces,
        approved,
        loaded_at: SystemTime::now(),
        fingerprint,
    }
}

fn trust_root(root: &config::TrustRoot) -> Result<TrustRoot, LoadError> {
    match root {
        config::TrustRoot::PublicGood => Ok(TrustRoot::public_good()?),
        config::TrustRoot::File(path) => trust_root_file(path),
    }
}

/// Reads a `trusted_root.json`.
///
/// # Errors
/// [`LoadError`].
pub fn trust_root_file(path: &Path) -> Result<TrustRoot, LoadError> {
    let bytes = fs::read(path).map_err(|source| LoadError::TrustFile { path: path.to_owned(), source })?;
    Ok(TrustRoot::from_json(&bytes)?)
}

/// A list that is not there approves nothing; one that anybody else could write is refused.
fn approved(path: &Path) -> Result<Approved, LoadError> {
    let failed = |source| LoadError::ApprovedFile { path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Approved::default()),
        Err(error) => return Err(failed(error)),
    };
    let own = nix::unistd::geteuid().as_raw();
    if !(metadata.uid() == 0 || metadata.uid() == own) || metadata.mode() & 0o022 != 0 {
        return Err(LoadError::ApprovedOwner { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Approved::parse(&text).map_err(|source| LoadError::Approved { path: path.to_owned(), source })
}

fn more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(" (and {} more: run `pullgate check`)", count - 1),
    }
}
