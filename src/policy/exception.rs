//! `PolicyException`: which rules do not apply to which pods.
//!
//! An exception takes an image out of a rule, so it must fit for certain: a pod fact that is not known
//! does not fit (rule M3). Policies are named exactly, `name` or `namespace/name`, their rules by
//! wildcards. Upstream: `MatchesException` in Kyverno's engine; a rule that is excepted is `skip`.

use super::PodFacts;
use super::pods::{PodFactsRead, PodMatch};
use super::wildcard;

/// One exception after loading.
#[derive(Debug, Clone)]
pub(super) struct Exception {
    /// `namespace/name`, or `name` where the document has no namespace.
    pub(super) name: String,
    /// What it lets out.
    pub(super) rules: Vec<ExceptedRules>,
    /// For which pods.
    pub(super) matches: PodMatch,
}

/// Rules of one policy.
#[derive(Debug, Clone)]
pub(super) struct ExceptedRules {
    /// The policy, `name` or `namespace/name`; no wildcards.
    pub(super) policy: String,
    /// Patterns of its rules' names.
    pub(super) rules: Vec<String>,
}

impl Exception {
    /// Whether it is about this rule of this policy.
    pub(super) fn names(&self, policy: &str, rule: &str) -> bool {
        self.rules.iter().any(|excepted| {
            excepted.policy == policy && excepted.rules.iter().any(|pattern| wildcard::matches(pattern, rule))
        })
    }

    /// Whether it surely fits `pod`.
    fn fits(&self, pod: &PodFacts) -> bool {
        self.matches.excludes(pod)
    }

    /// The pod facts on which it depends.
    pub(super) fn reads(&self) -> PodFactsRead {
        self.matches.reads()
    }
}

/// Why `rule` of `policy` is not applied to `pod`, in Kyverno's words; `None` where no exception fits.
pub(super) fn skips(exceptions: &[Exception], policy: &str, rule: &str, pod: &PodFacts) -> Option<String> {
    let fitting: Vec<&str> = exceptions
        .iter()
        .filter(|exception| exception.names(policy, rule) && exception.fits(pod))
        .map(|exception| exception.name.as_str())
        .collect();
    (!fitting.is_empty()).then(|| format!("rule is skipped due to policy exceptions {}", fitting.join(", ")))
}
