//! What each rule says of one image, in Kyverno's words: what `pullgate apply` prints.
//!
//! Nothing is decided here. A rule's result follows from the decision, which names the rules that do
//! not hold, and from the verdicts it was made of. `fail` and `error` refuse; what would refuse but
//! for Audit is `warn`, and so is what an outage let pass.

use serde::Serialize;

use super::evaluate::{Decision, Judged, Mode, Permit, Source, ends_policy};
use super::{Action, Application, Coverage, EntryVerdict};
use crate::oci::Reference;
use crate::outcome::{Denial, Fault, FaultReason};

/// Kyverno's words for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The rule holds.
    Pass,
    /// It does not, and refuses.
    Fail,
    /// It does not hold or could not be judged, and lets pass.
    Warn,
    /// It could not be judged, and refuses.
    Error,
    /// It is not about the image after all.
    Skip,
}

impl Status {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Skip => "skip",
        }
    }
}

/// What one rule says of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// The policy; empty where the gate itself refuses.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// The word.
    pub status: Status,
    /// Why, with the image.
    pub message: String,
}

/// A judged image.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The image.
    pub reference: &'a Reference,
    /// The rules that cover it.
    pub applications: &'a [Application],
    /// What was decided.
    pub decision: &'a Decision,
    /// Of what it was made; none where it needed no evidence.
    pub judged: &'a [Judged],
    /// Whether the node refuses anything at all.
    pub mode: Mode,
}

impl Answer<'_> {
    /// One result a rule, in their order. What no rule says, the gate does.
    #[must_use]
    pub fn results(&self) -> Vec<RuleReport> {
        let mut results = Vec::new();
        let mut done_with = None;
        for application in self.applications {
            let (status, message) = if done_with == Some(&application.policy) {
                (
                    Status::Skip,
                    "rule is not applied: an earlier rule of its policy was (applyRules: One)".to_owned(),
                )
            } else {
                self.result(application)
            };
            if ends_policy(application, self.judged) {
                done_with = Some(&application.policy);
            }
            let (policy, rule) = (application.policy.clone(), application.rule.clone());
            results.push(RuleReport { policy, rule, status, message });
        }
        results.extend(self.by_gate(&results));
        results
    }

    fn result(&self, application: &Application) -> (Status, String) {
        let image = self.reference.kyverno_form();
        let (policy, rule) = (&application.policy, &application.rule);
        let refuses = application.action == Action::Enforce && self.mode == Mode::Enforce;
        if let Some(reason) = &application.skipped {
            return (Status::Skip, reason.clone());
        }
        if application.entries.iter().all(|covered| covered.coverage == Coverage::Skipped) {
            return (
                Status::Skip,
                format!("skipping image reference image {image}, policy {policy} ruleName {rule}"),
            );
        }
        let denial = self.denials().iter().find(|denial| denial.policy == *policy && denial.rule == *rule);
        match (denial, self.permit(), self.fault(application)) {
            (Some(denial), _, _) if refuses => (Status::Fail, denial.detail.clone()),
            (Some(denial), _, _) => (Status::Warn, format!("would deny: {}", denial.detail)),
            (None, Some(_), Some(fault)) => {
                let let_pass = if refuses { "ignored" } else { "Audit" };
                let cause = cause(self.reference, fault);
                (Status::Warn, format!("failed to verify image {image}, allowed ({let_pass}): {cause}"))
            }
            (None, Some(permit), None) if permit.source() == Source::Exempt => (
                Status::Skip,
                format!("image {image} is not judged: its namespace is exempt (policy.exemptNamespaces)"),
            ),
            (None, Some(permit), None) => (Status::Pass, passed(application, permit, &image)),
            (None, None, Some(fault)) => {
                let status = if refuses { Status::Error } else { Status::Warn };
                (status, format!("failed to verify image {image}: {}", cause(self.reference, fault)))
            }
            (None, None, None) if self.holds(application) => (Status::Pass, verified(application, &image)),
            (None, None, None) => {
                (Status::Error, format!("failed to verify image {image}: it was not judged"))
            }
        }
    }

    /// What is not any rule's: an image that none covers, or a fault that none met.
    fn by_gate(&self, results: &[RuleReport]) -> Option<RuleReport> {
        let said = |status: Status| results.iter().any(|result| result.status == status);
        let (status, message) = match self.decision {
            Decision::Undecided(fault) if !said(Status::Error) => {
                let (image, cause) = (self.reference.kyverno_form(), cause(self.reference, fault));
                (Status::Error, format!("failed to verify image {image}: {cause}"))
            }
            Decision::Deny(denials) if !said(Status::Fail) => (
                Status::Fail,
                denials.iter().map(|denial| denial.detail.as_str()).collect::<Vec<_>>().join("; "),
            ),
            Decision::Allow(permit) => {
                let denial = permit.would_deny().iter().find(|denial| denial.policy.is_empty())?;
                (Status::Warn, format!("would deny: {}", denial.detail))
            }
            Decision::Undecided(_) | Decision::Deny(_) => return None,
        };
        Some(RuleReport { policy: String::new(), rule: String::new(), status, message })
    }

    fn denials(&self) -> &[Denial] {
        match self.decision {
            Decision::Allow(permit) => permit.would_deny(),
            Decision::Deny(denials) => denials,
            Decision::Undecided(_) => &[],
        }
    }

    const fn permit(&self) -> Option<&Permit> {
        match self.decision {
            Decision::Allow(permit) => Some(permit),
            Decision::Deny(_) | Decision::Undecided(_) => None,
        }
    }

    /// The fault that the rule met; where nothing was judged, the one that kept it from it.
    fn fault<'b>(&'b self, application: &'b Application) -> Option<&'b Fault> {
        if self.judged.is_empty() {
            return match self.decision {
                Decision::Allow(permit) => permit.would_fault(),
                Decision::Undecided(fault) => Some(fault),
                Decision::Deny(_) => None,
            };
        }
        self.of(application).find_map(|judged| match &judged.verdict {
            EntryVerdict::Undecided(fault) => Some(fault),
            EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_) | EntryVerdict::NeedsBundles => None,
        })
    }

    fn holds(&self, application: &Application) -> bool {
        let mut verdicts = self.of(application).map(|judged| &judged.verdict).peekable();
        verdicts.peek().is_some() && verdicts.all(|verdict| matches!(verdict, EntryVerdict::Satisfied(_)))
    }

    fn of<'b>(&'b self, application: &'b Application) -> impl Iterator<Item = &'b Judged> {
        let same = |judged: &&Judged| judged.policy == application.policy && judged.rule == application.rule;
        self.judged.iter().filter(same)
    }
}

fn passed(application: &Application, permit: &Permit, image: &str) -> String {
    if permit.source() == Source::Approved {
        return format!("image {image} is approved (policy.approved)");
    }
    verified(application, image)
}

fn verified(application: &Application, image: &str) -> String {
    let judged = || application.entries.iter().filter(|covered| covered.coverage == Coverage::Judged);
    if judged().any(|covered| !covered.entry.denies.is_empty()) {
        format!("verifyImages validation is passed in {} rule", application.rule)
    } else if judged().any(|covered| !covered.entry.attestations.is_empty()) {
        format!("verified image attestations for {image}")
    } else if judged().any(|covered| covered.entry.needs_evidence()) {
        format!("verified image signatures for {image}")
    } else {
        "image verified".to_owned()
    }
}

/// What is to be said of a fault behind the name of the image: faults name the thing that was looked
/// up, which mostly is the image itself.
#[must_use]
pub fn cause<'a>(reference: &Reference, fault: &'a Fault) -> &'a str {
    let names = [reference.text().to_owned(), reference.normalised_form()];
    let rest = names.iter().find_map(|name| fault.message.strip_prefix(name.as_str())?.strip_prefix(": "));
    rest.unwrap_or(&fault.message)
}

/// The same for people who read a line to its end: an image that is not there is said to be so.
#[must_use]
pub fn told(reference: &Reference, fault: &Fault) -> String {
    let cause = cause(reference, fault);
    if fault.reason == FaultReason::ImageNotFound {
        format!("no such image in {} ({cause})", reference.repository().host())
    } else {
        cause.to_owned()
    }
}
