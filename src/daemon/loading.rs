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
use crate::policy::{Compatibility, LoadOptions, OnlineRekor, PolicySet, PolicySource, Remark, RootSource};
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
    let options = LoadOptions {
        compatibility,
        trust_root: RootSource::Ready(Arc::new(trust_root)),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
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
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good()?)),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
    let loaded = PolicySet::load(&[], &options).map_err(LoadError::Policy)?;
    Ok(snapshot(config, loaded.set, approved(&config.policy.approved).unwrap_or_default()))
}

/// The policies on disk, else the last good ones, else none, with what is wrong.
///
/// # Errors
/// Only if not even an empty set of policies loads.
pub(super) fn at_start(config: &Config, state: &Path) -> Result<(Fresh, Option<String>), LoadError> {
    let error = match load(config) {
        Ok((fresh, sources)) => {
            keep(state, &sources);
            return Ok((fresh, None));
        }
        Err(error) => error,
    };
    tracing::error!(%error, "policies do not load");
    match sources::kept(state) {
        Ok(Some(kept)) => match build(config, &kept) {
            Ok(fresh) => return Ok((fresh, Some(format!("{error}; the last good policies are in force")))),
            Err(again) => tracing::error!(error = %again, "the last good policies do not load either"),
        },
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the last good policies cannot be read"),
    }
    let snapshot = empty(config)?;
    Ok((
        Fresh { snapshot, notices: Vec::new() },
        Some(format!("{error}; no policy is in force, pulls are refused")),
    ))
}

/// A new snapshot, and what is wrong with it. Break-glass must need nothing good: with `mode: audit`
/// the last good policies are taken where the new ones do not load, and none where those do not
/// load either (rule E8).
///
/// # Errors
/// In one line, what does not load; the snapshot in force stays.
pub(super) fn again(path: &Path, state: &Path) -> Result<(Fresh, Option<String>), String> {
    let config = Config::load(path).map_err(|error| error.to_string())?;
    let error = match load(&config) {
        Ok((fresh, sources)) => {
            keep(state, &sources);
            return Ok((fresh, None));
        }
        Err(error) => error.to_string(),
    };
    if config.policy.mode != config::Mode::Audit {
        return Err(error);
    }
    if let Ok(Some(kept)) = sources::kept(state)
        && let Ok(fresh) = build(&config, &kept)
    {
        return Ok((fresh, Some(format!("{error}; audit mode with the last good policies is in force"))));
    }
    let snapshot = empty(&config).map_err(|error| error.to_string())?;
    let none = format!("{error}; audit mode without any policy is in force");
    Ok((Fresh { snapshot, notices: Vec::new() }, Some(none)))
}

fn keep(state: &Path, sources: &[PolicySource]) {
    if let Err(error) = sources::keep(state, sources) {
        tracing::warn!(%error, path = %state.display(), "the policies cannot be kept for a later start");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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

        fn again(&self, mode: &str, policy: &str) -> Result<(Fresh, Option<String>), String> {
            again(&self.config(mode, policy), self.0.path())
        }

        fn at_start(&self, mode: &str, policy: &str) -> (Fresh, Option<String>) {
            at_start(&Config::load(&self.config(mode, policy)).unwrap(), self.0.path()).unwrap()
        }
    }

    fn loaded((fresh, degraded): (Fresh, Option<String>)) -> (usize, Mode, Option<String>) {
        (fresh.snapshot.policies.counts().policies, fresh.snapshot.mode, degraded)
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
        assert!(files.again("enforce", BROKEN).is_err_and(|error| error.contains("unknown field")));
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
        assert_eq!(again(&config, files.0.path()).unwrap().0.snapshot.mode, Mode::Audit);
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
