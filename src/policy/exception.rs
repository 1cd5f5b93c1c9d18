//! `PolicyException`: which rules do not apply to which pods.
//!
//! An exception takes an image out of a rule, so it must fit for certain: a pod fact that is not known
//! does not fit (rule M3). Policies are named exactly, `name` or `namespace/name`, their rules by
//! wildcards. Upstream: `MatchesException` in Kyverno's engine; a rule that is excepted is `skip`.

use super::condition::{Conditions, Outcome};
use super::context::{self, Context};
use super::jmespath::{Budget, Clock};
use super::pods::{PodFactsRead, PodMatch};
use super::standing::Asked;
use super::{Basis, wildcard};

/// One exception after loading.
#[derive(Debug, Clone)]
pub(super) struct Exception {
    /// `namespace/name`, or `name` where the document has no namespace.
    pub(super) name: String,
    /// What it lets out.
    pub(super) rules: Vec<ExceptedRules>,
    /// For which pods.
    pub(super) matches: PodMatch,
    /// Under which conditions, beside.
    pub(super) conditions: Option<Conditions>,
    /// The texts of these that hold variables.
    pub(super) texts: Vec<String>,
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

    /// Whether it surely fits: conditions that cannot be evaluated do not.
    fn fits(&self, asked: Asked<'_>, contexts: &[Context], budget: &mut Budget) -> bool {
        if !self.matches.excludes(asked.pod) {
            return false;
        }
        let Some(conditions) = &self.conditions else { return true };
        let holds = |context: &Context| match conditions.evaluate(&context.scope(None), budget) {
            Ok(evaluation) => evaluation.outcome == Outcome::Holds,
            Err(_) => false,
        };
        !asked.lacks(&conditions.reads()) && !contexts.is_empty() && contexts.iter().all(holds)
    }

    /// The facts on which it depends.
    pub(super) fn reads(&self) -> PodFactsRead {
        self.matches.reads().and(self.conditions_read())
    }

    /// What it makes a rule's being applied follow from.
    pub(super) fn basis(&self) -> Basis {
        let Some(conditions) = &self.conditions else { return Basis::Image };
        let reads = conditions.reads();
        match (context::facts(&reads).any(), reads.clock) {
            (true, _) => Basis::Pull,
            (false, Clock::Read) => Basis::Time,
            (false, Clock::Ignored) => Basis::Image,
        }
    }

    /// Those that its conditions read.
    fn conditions_read(&self) -> PodFactsRead {
        let conditions = self.conditions.as_ref();
        conditions.map(|conditions| context::facts(&conditions.reads())).unwrap_or_default()
    }
}

/// Why a rule of a policy is not applied, in Kyverno's words; `None` where no exception fits.
pub(super) fn skips(
    exceptions: &[Exception],
    (policy, rule): (&str, &str),
    asked: Asked<'_>,
    contexts: &[Context],
    budget: &mut Budget,
) -> Option<String> {
    let fitting: Vec<&str> = exceptions
        .iter()
        .filter(|exception| exception.names(policy, rule) && exception.fits(asked, contexts, budget))
        .map(|exception| exception.name.as_str())
        .collect();
    (!fitting.is_empty()).then(|| format!("rule is skipped due to policy exceptions {}", fitting.join(", ")))
}
