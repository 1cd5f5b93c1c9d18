//! What a rule that covers an image says before any evidence: whether it is applied, and with which fields.
//!
//! In upstream's order: the rule's context, its preconditions, its exceptions, then the fields of its
//! entries. What has no value leaves the rule undecided for this image, never left out.
//!
//! What takes an image out of a rule must do so for certain. Preconditions are not met, and the conditions
//! of an exception are, only if that is so for every form of the reference (rule M2). A pull that does not say
//! for which pod it is has nothing that is read of a pod, whatever the policy would take in its place (rule
//! M3): such preconditions count as met, such exceptions do not fit, and the rest is undecided.

use std::sync::Arc;
use std::time::SystemTime;

use super::condition::{Conditions, Outcome};
use super::context::{self, Context};
use super::entry::Unfilled;
use super::exception::Exception;
use super::jmespath::{Budget, Reads};
use super::rule_context::{ContextError, Sources};
use super::{Compatibility, Coverage, Covered, PodFacts, PolicySet, Rule, StoredImages, exception, load};
use crate::oci::Reference;
use crate::outcome::{Fault, FaultReason};

/// One pull, before its digest is known.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) reference: &'a Reference,
    pub(super) pod: &'a PodFacts,
    pub(super) now: SystemTime,
    /// What registries said so far.
    pub(super) images: &'a StoredImages,
}

/// What became of a rule.
#[derive(Default)]
pub(super) struct Settled {
    /// Why it is skipped, if it is.
    pub(super) skipped: Option<String>,
    /// The image that is missing, if one is.
    pub(super) asks_for: Option<Reference>,
}

/// Why it cannot be said whether and how a rule is applied.
enum Unsettled {
    /// Something has no value.
    NoValue(String),
    /// A registry could not be asked.
    Unreachable(Fault),
    /// No registry was asked for this image yet.
    NotAsked(Box<Reference>),
}

impl From<String> for Unsettled {
    fn from(cause: String) -> Self {
        Self::NoValue(cause)
    }
}

impl From<ContextError> for Unsettled {
    fn from(error: ContextError) -> Self {
        let text = format!("{LOADING}: {error}");
        match error {
            ContextError::NotAsked(reference) => Self::NotAsked(reference),
            ContextError::Unreachable(fault) => Self::Unreachable(Fault { message: text, ..fault }),
            ContextError::ConfigMapName { .. }
            | ContextError::NoConfigMap { .. }
            | ContextError::OtherNamespace { .. }
            | ContextError::Substitution { .. }
            | ContextError::Query { .. }
            | ContextError::ImageReference { .. }
            | ContextError::NoImage { .. }
            | ContextError::ImageQuery { .. }
            | ContextError::Nothing { .. } => Self::NoValue(text),
        }
    }
}

impl Unsettled {
    /// The fault of a rule, and the image that it asks for.
    fn of(self, place: &str) -> (Fault, Option<Reference>) {
        match self {
            Self::NoValue(cause) => {
                (Fault::new(FaultReason::PolicyUnresolved, format!("{place}: {cause}")), None)
            }
            Self::Unreachable(fault) => {
                let message = format!("{place}: {}", fault.message);
                (Fault { message, ..fault }, None)
            }
            Self::NotAsked(reference) => {
                let message = format!("{place}: {reference} was not asked for");
                (Fault::new(FaultReason::Internal, message), Some(*reference))
            }
        }
    }
}

impl Asked<'_> {
    /// Whether something that is read of the pod is not known of this one.
    pub(super) fn lacks(&self, reads: &Reads) -> bool {
        self.pod.is_unknown() && context::facts(reads).of_pod()
    }
}

impl PolicySet {
    /// Settles `entries`, those of `rule` that cover the image.
    pub(super) fn settle(
        &self,
        policy: &str,
        rule: &Rule,
        asked: Asked<'_>,
        entries: &mut [Covered],
    ) -> Settled {
        let mut budget = Budget::of_verdict();
        let contexts = if self.reads_anything(policy, rule, entries) {
            self.contexts(rule, asked, entries, &mut budget)
        } else {
            Ok(Vec::new())
        };
        let standing = contexts.and_then(|contexts| {
            let skipped = self.skips(policy, rule, asked, &contexts, &mut budget)?;
            Ok((contexts, skipped))
        });
        let place = format!("{policy}/{}", rule.name);
        match standing {
            Err(cause) => {
                let (fault, asks_for) = cause.of(&place);
                // What `skipImageReferences` takes out needs no answer.
                let judged = entries.iter().any(|covered| covered.coverage == Coverage::Judged);
                for covered in entries {
                    covered.entry = Arc::new(covered.entry.not_decidable(fault.clone()));
                }
                Settled { skipped: None, asks_for: asks_for.filter(|_| judged) }
            }
            Ok((_, Some(reason))) => {
                entries.iter_mut().for_each(|covered| covered.coverage = Coverage::Skipped);
                Settled { skipped: Some(reason), asks_for: None }
            }
            Ok((contexts, None)) => {
                if let Some(context) = contexts.first() {
                    let fault =
                        |cause: &str| Fault::new(FaultReason::PolicyUnresolved, format!("{place}: {cause}"));
                    self.fill(rule, asked, context, entries, &mut budget, &fault);
                }
                Settled::default()
            }
        }
    }

    /// Whether anything about the rule is only known for a pull.
    fn reads_anything(&self, policy: &str, rule: &Rule, entries: &[Covered]) -> bool {
        let form = |covered: &Covered| matches!(covered.entry.unfilled, Some(Unfilled::UntilPull(_)));
        let conditional =
            |exception: &Exception| exception.conditions.is_some() && exception.names(policy, &rule.name);
        rule.preconditions.is_some()
            || !rule.context.is_fixed()
            || entries.iter().any(form)
            || self.exceptions.iter().any(conditional)
    }

    /// What can be read, for every form of the reference; what was asked for is the first.
    fn contexts(
        &self,
        rule: &Rule,
        asked: Asked<'_>,
        entries: &[Covered],
        budget: &mut Budget,
    ) -> Result<Vec<Context>, Unsettled> {
        let Asked { reference, pod, now, images } = asked;
        if asked.lacks(&rule.context.reads()) {
            return Err(Unsettled::NoValue(format!("{LOADING}: {NO_POD}")));
        }
        let normalised = match self.compatibility {
            Compatibility::Default => Reference::parse(&reference.normalised_form()).ok(),
            Compatibility::Strict => None,
        };
        let normalised = normalised.filter(|other| other.kyverno_form() != reference.kyverno_form());
        let view = entries.first().map(|covered| covered.entry.view).unwrap_or_default();
        let mut contexts = Vec::new();
        for form in [Some(reference), normalised.as_ref()].into_iter().flatten() {
            let mut context = Context::new(form, pod, view, &rule.extractors, now);
            rule.context.fill(&mut context, Sources { maps: &self.maps, images }, budget)?;
            contexts.push(context);
        }
        Ok(contexts)
    }

    /// Why the rule is not applied; none where it is.
    fn skips(
        &self,
        policy: &str,
        rule: &Rule,
        asked: Asked<'_>,
        contexts: &[Context],
        budget: &mut Budget,
    ) -> Result<Option<String>, String> {
        if let Some(preconditions) = &rule.preconditions
            && !asked.lacks(&preconditions.reads())
            && let Some(messages) = not_met(preconditions, contexts, budget)?
        {
            let texts = ["preconditions not met", &messages];
            let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
            return Ok(Some(texts.join("; ")));
        }
        Ok(exception::skips(&self.exceptions, (policy, &rule.name), asked, contexts, budget))
    }

    /// Fills in what the fields and conditions of the entries read.
    fn fill(
        &self,
        rule: &Rule,
        asked: Asked<'_>,
        context: &Context,
        entries: &mut [Covered],
        budget: &mut Budget,
        fault: &dyn Fn(&str) -> Fault,
    ) {
        let variables = (!rule.context.is_fixed()).then(|| Arc::new(context.variables().clone()));
        for covered in entries.iter_mut().filter(|covered| covered.coverage == Coverage::Judged) {
            if let Some(variables) = variables.as_ref().filter(|_| covered.entry.has_conditions()) {
                covered.entry = Arc::new(covered.entry.knowing(Arc::clone(variables)));
            }
            let Some(Unfilled::UntilPull(blank)) = &covered.entry.unfilled else { continue };
            let filled = if asked.lacks(&blank.form.reads()) {
                Err(NO_POD.to_owned())
            } else {
                load::fill_in(&covered.entry, blank, &context.scope(None), &self.options, budget)
            };
            covered.entry = match filled {
                Ok(entry) => entry,
                Err(cause) => Arc::new(covered.entry.not_decidable(fault(&cause))),
            };
        }
    }
}

/// What the preconditions say where they are met for no form; none where they are for one.
fn not_met(
    preconditions: &Conditions,
    contexts: &[Context],
    budget: &mut Budget,
) -> Result<Option<String>, String> {
    let mut messages = None;
    for context in contexts {
        let evaluation = preconditions
            .evaluate(&context.scope(None), budget)
            .map_err(|error| format!("failed to evaluate preconditions: {error}"))?;
        match evaluation.outcome {
            Outcome::Holds => return Ok(None),
            Outcome::Fails => messages = messages.or(Some(evaluation.message)),
        }
    }
    Ok(messages)
}

const LOADING: &str = "failed to load context";
const NO_POD: &str = "the pull does not say for which pod it is";
