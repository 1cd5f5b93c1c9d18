//! From config and policy files to a [`Snapshot`], whole or not at all.

use std::collections::BTreeSet;
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
use crate::policy::{
    Compatibility, LoadOptions, NamedSecret, OnlineRekor, PolicySet, PolicySource, Remark, RootSource,
    Severity,
};
use crate::registry::{DockerConfig, DockerConfigError};
use crate::trust::{Anchor, TrustError};

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
}

/// A snapshot and what is worth saying about it.
pub struct Fresh {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Notices of the policies.
    pub notices: Vec<Remark>,
    /// What the policies have of the trust root.
    pub trust: TrustUse,
    /// Of the secrets that the policies name.
    pub logins: DockerConfig,
}

/// What the policies of a snapshot have of the node's trust root.
#[derive(Debug, Clone)]
pub enum TrustUse {
    /// They ask for none (rule O3).
    Unused,
    /// It is this one.
    Anchored(Anchor),
    /// They need one and there is none: what needs it is undecided.
    Missing,
}

/// Builds a snapshot from the files that `config` names. A trust root that is not there is no error
/// here: [`Fresh::trust`] says whether anything needs it.
///
/// # Errors
/// [`LoadError`]; nothing is half loaded.
pub fn load(
    config: &Config,
    rooted: &Result<Anchor, TrustError>,
) -> Result<(Fresh, Vec<PolicySource>), LoadError> {
    let sources = sources::read(&config.policy.paths)?;
    let fresh = build(config, &sources, rooted)?;
    Ok((fresh, sources))
}

/// Builds a snapshot from these sources.
///
/// # Errors
/// [`LoadError`].
pub fn build(
    config: &Config,
    sources: &[PolicySource],
    rooted: &Result<Anchor, TrustError>,
) -> Result<Fresh, LoadError> {
    let compatibility = match config.policy.compatibility {
        config::Compatibility::Default => Compatibility::Default,
        config::Compatibility::Strict => Compatibility::Strict,
    };
    let online_rekor = match config.trust.online_rekor {
        config::OnlineRekor::Never => OnlineRekor::Never,
        config::OnlineRekor::Allowed => OnlineRekor::Allowed,
    };
    let trust_root = match rooted {
        Ok(anchor) => RootSource::Ready(Arc::clone(&anchor.root)),
        // The kubelet compares these texts: no address that comes and goes, no time (rule E2).
        Err(error) => RootSource::Unavailable(format!("trust root is not available: {}", error.cause())),
    };
    let options = LoadOptions { compatibility, trust_root, online_rekor, now: SystemTime::now() };
    let loaded = PolicySet::load(sources, &options).map_err(LoadError::Policy)?;
    let approved = approved(&config.policy.approved)?;
    let trust = match (loaded.set.uses_trust_root(), rooted) {
        (false, _) => TrustUse::Unused,
        (true, Ok(anchor)) => TrustUse::Anchored(anchor.clone()),
        (true, Err(_)) => TrustUse::Missing,
    };
    let mut notices = loaded.notices;
    let logins = logins(&config.registry.secrets, &loaded.secrets, &mut notices);
    Ok(Fresh { snapshot: snapshot(config, loaded.set, approved), notices, trust, logins })
}

/// A snapshot without any policy: pulls are refused with `no policy loaded` (rule D5).
///
/// # Errors
/// Only if an empty set of policies does not load.
pub fn empty(config: &Config) -> Result<Fresh, LoadError> {
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable("no policy is in force".to_owned()),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
    let loaded = PolicySet::load(&[], &options).map_err(LoadError::Policy)?;
    let approved = approved(&config.policy.approved).unwrap_or_default();
    let snapshot = snapshot(config, loaded.set, approved);
    Ok(Fresh { snapshot, notices: Vec::new(), trust: TrustUse::Unused, logins: DockerConfig::default() })
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

/// The secrets that policies name, from the files that stand for them: each once, in the order of the policies.
/// One that the node has not is worth a remark and no more: what cannot be fetched without it is not let pass.
fn logins(folder: &Path, named: &[NamedSecret], notices: &mut Vec<Remark>) -> DockerConfig {
    let (mut logins, mut seen) = (DockerConfig::default(), BTreeSet::new());
    for secret in named.iter().filter(|secret| seen.insert(&secret.name)) {
        let path = folder.join(format!("{}.json", secret.name));
        match DockerConfig::read(&path) {
            Ok(config) => logins.add_logins(config),
            Err(DockerConfigError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let text = format!(
                    "`{}` is not on this node: evidence is fetched with the credentials of the pull itself, or a login of registry.dockerConfig; to use the secret put what it has under .dockerconfigjson at {}",
                    secret.name,
                    path.display()
                );
                notices.push(secret.remark(Severity::Notice, &text));
            }
            Err(error) => {
                notices.push(
                    secret.remark(Severity::Warning, &format!("`{}` is not used: {error}", secret.name)),
                );
            }
        }
    }
    logins
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_policies_name_are_read_from_their_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("team")).unwrap();
        fs::write(folder.path().join("team/good.json"), r#"{"auths":{"a.test":{"auth":"YTpi"}}}"#).unwrap();
        fs::write(folder.path().join("broken.json"), r#"{"auths":{"a.test":{"auth":"hunter2"}}}"#).unwrap();
        let named: Vec<_> = ["team/good", "broken", "missing", "team/good", "missing"]
            .map(|name| NamedSecret { file: "p".into(), line: 7, place: "s".into(), name: name.into() })
            .into();
        let mut notices = Vec::new();
        let logins = logins(folder.path(), &named, &mut notices);
        assert_eq!(format!("{logins:?}"), r#"{"a.test"}"#);
        let texts: Vec<_> = notices.iter().map(Remark::diagnostic).collect();
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(texts.len(), 2, "{texts:?}");
        let broken = format!("p:7: warning: s: `broken` is not used: {}: ", at("broken.json"));
        assert!(texts[0].starts_with(&broken) && !texts[0].contains("hunter2"), "{}", texts[0]);
        assert!(texts[1].starts_with("p:7: notice: s: `missing` is not on this node: "), "{}", texts[1]);
        assert!(texts[1].ends_with(&at("missing.json")), "{}", texts[1]);
    }
}
