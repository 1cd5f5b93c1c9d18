//! `check`: config and policies, with every error and warning.

use std::path::Path;
use std::time::SystemTime;

use super::args::{Check, DEFAULT_CONFIG};
use super::{Exit, complain, say};
use crate::config::Config;
use crate::daemon::loading::{self, TrustUse};
use crate::daemon::{registry_options, roots, warnings};
use crate::policy::{Remark, Severity};
use crate::registry;
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
    let registry = registry_options(&config).and_then(|options| Ok(registry::Client::new(&options)?));
    let registry = match registry {
        Ok(registry) => registry,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
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
    let complaints = registry.configuration_complaints();
    warnings.extend(complaints.without_effect);
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
    let (lines, warned) = remarks(&warnings, &fresh.notices);
    lines.iter().for_each(say);
    let counts = fresh.snapshot.policies.counts();
    say(format_args!(
        "policies: {}; rules that refuse: {}; rules that only report: {}",
        counts.policies, counts.refusing, counts.reporting
    ));
    complaints.errors.iter().for_each(complain);
    if !complaints.errors.is_empty() || arguments.strict && warned { Exit::Usage } else { Exit::Done }
}

/// What there is to say besides errors: what is about everything, then what is about a file; how many last.
/// And whether there are warnings among it.
fn remarks(general: &[String], of_files: &[Remark]) -> (Vec<String>, bool) {
    let notices = of_files.iter().filter(|remark| remark.severity == Severity::Notice).count();
    let warnings = general.len() + (of_files.len() - notices);
    let mut lines: Vec<_> = general.iter().map(|warning| format!("warning: {warning}")).collect();
    lines.extend(of_files.iter().map(Remark::diagnostic));
    if !lines.is_empty() {
        lines.push(format!("{}, {}", counted(warnings, "warning"), counted(notices, "notice")));
    }
    (lines, warnings > 0)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_have_their_place_and_are_counted() {
        let remark = |line, severity, message: &str| Remark {
            file: "p.yaml".into(),
            line,
            severity,
            message: message.into(),
        };
        let notice = remark(0, Severity::Notice, "skipped");
        assert_eq!(remarks(&[], &[]), (vec![], false));
        assert_eq!(
            remarks(&[], std::slice::from_ref(&notice)),
            (vec!["p.yaml: notice: skipped".into(), "0 warnings, 1 notice".into()], false)
        );
        assert_eq!(
            remarks(&["no policy".into()], &[remark(3, Severity::Warning, "count is 0"), notice]),
            (
                vec![
                    "warning: no policy".into(),
                    "p.yaml:3: warning: count is 0".into(),
                    "p.yaml: notice: skipped".into(),
                    "2 warnings, 1 notice".into(),
                ],
                true
            )
        );
    }
}
