//! `check`: config and policies, with every error and warning.

use std::path::Path;
use std::time::SystemTime;

use super::args::{Check, DEFAULT_CONFIG};
use super::{Exit, complain, say};
use crate::config::Config;
use crate::daemon::loading::{self, TrustUse};
use crate::daemon::{registry_options, roots, warnings};
use crate::policy::Severity;
use crate::trust::Keeping;

/// `pullgate check`
pub(super) fn run(arguments: &Check) -> Exit {
    let mut config = match (&arguments.config, arguments.policy.is_empty()) {
        (Some(path), _) => Config::load(path),
        (None, true) => Config::load(DEFAULT_CONFIG.as_ref()),
        (None, false) => Ok(Config::with_policies(arguments.policy.clone())),
    };
    if let (Ok(config), false) = (&mut config, arguments.policy.is_empty()) {
        config.policy.paths.clone_from(&arguments.policy);
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    if let Err(error) = registry_options(&config) {
        complain(error);
        return Exit::Usage;
    }
    let trust = &config.trust.root;
    let kept = roots::folder(config.cache.path.parent().unwrap_or_else(|| Path::new("/")));
    let rooted = match roots::domain(&config, trust.clone(), Keeping::ReadOnly(kept)) {
        Ok(domain) => domain.root(SystemTime::now()),
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let fresh = match loading::load(&config, &rooted) {
        Ok((fresh, _)) => fresh,
        Err(loading::LoadError::Policy(errors)) => {
            for error in errors {
                complain(error);
            }
            return Exit::Usage;
        }
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let mut warnings = warnings(&fresh.snapshot);
    for remark in &fresh.notices {
        match remark.severity {
            Severity::Error | Severity::Warning => warnings.push(remark.to_string()),
            Severity::Notice => say(format_args!("notice: {remark}")),
        }
    }
    if let (TrustUse::Missing, Err(error)) = (&fresh.trust, &rooted) {
        let missing = trust.explain(error);
        if error.is_settled() {
            complain(missing);
            return Exit::Usage;
        }
        warnings.push(format!(
            "{missing}; until the daemon has fetched it, signatures that need it are undecided"
        ));
    }
    for warning in &warnings {
        say(format_args!("warning: {warning}"));
    }
    let counts = fresh.snapshot.policies.counts();
    say(format_args!(
        "{} policies: {} rules refuse, {} only report",
        counts.policies, counts.refusing, counts.reporting
    ));
    if arguments.strict && !warnings.is_empty() { Exit::Usage } else { Exit::Done }
}
