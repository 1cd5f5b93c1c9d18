//! Kyverno policies: which rules cover an image, and what they make of the evidence.
//!
//! Pure: documents, references, pod facts and evidence are arguments. In order:
//! `load` turns documents into [`Entry`] values (unknown or unsupported fields are errors),
//! [`PolicySet::matching`] says which entries apply to one pull, [`judge`] what one entry makes of
//! the evidence, and [`evaluate`] makes the decision and, if it allows, the only kind of value that
//! lets a pull through: [`evaluate::Permit`].

mod blank;
mod condition;
mod context;
mod entry;
pub mod evaluate;
mod exception;
mod extract;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod jmespath;
mod judge;
mod kinds;
mod kyverno;
mod load;
mod manifest;
mod matching;
mod pods;
mod report;
mod resource;
mod rule_context;
mod scalar;
pub(crate) mod spelling;
mod standing;
mod stored_image;
mod variables;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use condition::{Checked, Outcome};
pub use entry::{Action, Entry, FailurePolicy, Forms, RekorLookup};
pub use extract::{ExtractError, ExtractedImage};
pub use judge::{EntryVerdict, Evidence, Explanation, Leaf, Pull, Satisfied, Statement, judge};
pub use load::{
    Compatibility, LoadOptions, NamedSecret, OnlineRekor, PolicySource, Remark, RootSource, Severity,
};
pub use manifest::{Manifest, Placed};
pub use pods::PodFacts;
pub use report::{Answer, RuleReport, Status, cause, told};
pub use resource::{Resource, ResourceError, View};
pub use stored_image::{DocumentError, Stored, StoredImage, StoredImages};

use crate::oci::{Digest, Reference, wildcard};
use condition::Conditions;
use exception::Exception;
use extract::Extractors;
use kinds::PodController;
use pods::{PodFactsRead, PodMatch};
use rule_context::{ConfigMaps, RuleContext};

/// All policies of one snapshot.
#[derive(Debug, Clone)]
pub struct PolicySet {
    policies: Vec<Policy>,
    exceptions: Vec<Exception>,
    /// What rules may read: the ConfigMaps of the policy folder.
    maps: Arc<ConfigMaps>,
    /// How they were loaded, and how what is filled in for a pull is.
    options: LoadOptions,
    compatibility: Compatibility,
    fingerprint: Digest,
}

/// What loading gave.
#[derive(Debug)]
pub struct Loaded {
    /// The policies.
    pub set: PolicySet,
    /// What is worth knowing: warnings, skipped documents, fields without meaning.
    pub notices: Vec<Remark>,
    /// The secrets that the policies name for registries, in the order of the files.
    pub secrets: Vec<NamedSecret>,
}

/// A policy after loading.
#[derive(Debug, Clone)]
struct Policy {
    name: String,
    namespace: Option<String>,
    apply_rules: ApplyRules,
    default_action: Action,
    overrides: Vec<(Action, Vec<String>)>,
    rules: Vec<Rule>,
    /// The kinds that make pods to which its rules about pods extend.
    controllers: BTreeSet<PodController>,
}

/// How many of a policy's rules are applied to one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApplyRules {
    /// All that cover it.
    All,
    /// In their order, until one of them passed or failed.
    One,
}

/// A rule after loading.
#[derive(Debug, Clone)]
struct Rule {
    name: String,
    includes: PodMatch,
    excludes: PodMatch,
    extractors: Arc<Extractors>,
    context: RuleContext,
    preconditions: Option<Conditions>,
    entries: Vec<Arc<Entry>>,
    own_action: Option<Action>,
    basis: Basis,
    /// The pod facts on which it depends whether it is applied, and how.
    reads: PodFactsRead,
}

/// The images that one rule finds in a resource.
#[derive(Debug, Clone)]
pub struct RuleImages {
    /// The policy, `name` or `namespace/name`.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// Whether it refuses or reports.
    pub action: Action,
    /// The images, covered by it or not.
    pub images: Result<Vec<ExtractedImage>, ExtractError>,
}

/// One rule that covers an image.
#[derive(Debug, Clone)]
pub struct Application {
    /// The policy, `name` or `namespace/name`.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// Whether it refuses or reports.
    pub action: Action,
    /// Why it is not applied although it covers the image, in Kyverno's words: none of its entries is
    /// judged then.
    pub skipped: Option<String>,
    /// What it follows from.
    pub basis: Basis,
    /// The image that a registry has to be asked for before it can be said. Until then none of its entries
    /// can be decided.
    pub asks_for: Option<Reference>,
    /// Its entries that cover the image.
    pub entries: Vec<Covered>,
}

/// What a rule's answer follows from, beyond the question of whether it covers the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Repository and digest.
    Image,
    /// The time too: whether it is applied at all may change without anything else.
    Time,
    /// The pod or the reference's text too: a precondition, an exception's condition or a field reads them.
    /// What is not known of a pull fits in `match` (rule M3); what reads it has another answer for each.
    Pull,
    /// What registries say of this or another image at the time of the pull.
    Registries,
}

/// One entry that covers an image.
#[derive(Debug, Clone)]
pub struct Covered {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Whether it is to be judged.
    pub coverage: Coverage,
    /// What its passing or failing means for the rules behind it.
    pub following: Following,
}

/// What the passing or failing of an entry means for the rules behind its own in the same policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// They are applied too.
    Applied,
    /// They are not (`applyRules: One`).
    NotApplied,
}

/// What an entry says of an image before any evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// To be judged.
    Judged,
    /// One of `skipImageReferences` matches every form, or the rule is not applied.
    Skipped,
}

/// How many rules there are of each kind (rule D1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Policies.
    pub policies: usize,
    /// Rules that refuse, in some namespace at least.
    pub refusing: usize,
    /// Rules that only report.
    pub reporting: usize,
}

impl PolicySet {
    /// Loads all sources, or says everything that is wrong with them.
    ///
    /// # Errors
    /// Every error of every file, with line and field.
    pub fn load(sources: &[PolicySource], options: &LoadOptions) -> Result<Loaded, Vec<Remark>> {
        let mut loader = load::Loader::new(options);
        sources.iter().for_each(|source| loader.read(source));
        loader.load();
        let load::Loader {
            mut policies, mut exceptions, maps, excepted, secrets, errors, mut notices, ..
        } = loader;
        if !errors.is_empty() {
            return Err(errors);
        }
        policies.sort_by(|left: &Policy, right| left.name.cmp(&right.name));
        exceptions.sort_by(|left: &Exception, right| left.name.cmp(&right.name));
        notices.extend(excepted.iter().flat_map(|named| named.warnings(&policies)));
        for policy in &mut policies {
            policy.settle_reads(&exceptions);
        }
        // Everything that decides, in one text: rules, actions, entries, trust, exceptions.
        let described: Vec<String> = policies.iter().map(Policy::describe).collect();
        let text = format!("{:?} {} {exceptions:?} {maps:?}", options.compatibility, described.join("\n"));
        let set = Self {
            policies,
            exceptions,
            maps: Arc::new(maps),
            options: options.clone(),
            compatibility: options.compatibility,
            fingerprint: Digest::of(text.as_bytes()),
        };
        Ok(Loaded { set, notices, secrets })
    }

    /// Whether there is no `verifyImages` rule at all (rule D5).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.iter().all(|policy| policy.rules.is_empty())
    }

    /// Whether any attestor uses the node's trust root: without one it is not needed (rule O3).
    #[must_use]
    pub fn uses_trust_root(&self) -> bool {
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        rules.flat_map(|rule| &rule.entries).any(|entry| entry.uses_trust_root())
    }

    /// Changes with anything in the policies.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The images that each rule finds in the resource of `pod`; none for a pull.
    #[must_use]
    pub fn extract(&self, pod: &PodFacts) -> Vec<RuleImages> {
        let Some(resource) = &pod.resource else { return Vec::new() };
        let mut found = Vec::new();
        for policy in self.policies.iter().filter(|policy| policy.is_about(pod)) {
            for rule in policy.rules_about(pod) {
                found.push(RuleImages {
                    policy: policy.name.clone(),
                    rule: rule.name.clone(),
                    action: policy.action(&rule, pod.namespace.as_deref()),
                    images: rule.extractors.images(resource),
                });
            }
        }
        found
    }

    /// How many rules refuse and how many report.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { policies: self.policies.len(), ..Counts::default() };
        for policy in &self.policies {
            for rule in &policy.rules {
                match policy.action(rule, None) {
                    Action::Enforce => counts.refusing += 1,
                    Action::Audit => counts.reporting += 1,
                }
            }
        }
        counts
    }

    /// Rules that depend on the pod, as `policy/rule`: ImageStatus cannot tell them apart (rule S3).
    #[must_use]
    pub fn pull_only_rules(&self) -> Vec<String> {
        let mut names = Vec::new();
        for policy in &self.policies {
            for rule in policy.rules.iter().filter(|rule| rule.reads.any()) {
                names.push(format!("{}/{}", policy.name, rule.name));
            }
        }
        names
    }
}

impl Policy {
    fn is_about(&self, pod: &PodFacts) -> bool {
        match (&self.namespace, &pod.namespace) {
            (Some(own), Some(namespace)) => own == namespace,
            // Rule M3: no namespace is every namespace.
            (Some(_), None) | (None, _) => true,
        }
    }

    /// Whether a rule is applied depends on what its exceptions read too and, with `applyRules: One`, on
    /// what the rules before it read.
    fn settle_reads(&mut self, exceptions: &[Exception]) {
        let mut before = PodFactsRead::default();
        for rule in &mut self.rules {
            for exception in exceptions.iter().filter(|exception| exception.names(&self.name, &rule.name)) {
                rule.reads = rule.reads.and(exception.reads());
                rule.basis = rule.basis.max(exception.basis());
            }
            if self.apply_rules == ApplyRules::One {
                before = before.and(rule.reads);
                rule.reads = before;
            }
        }
    }

    /// The rules whose `match` takes `pod` in and whose `exclude` leaves it there. For a controller's
    /// resource also those that stand for rules about the pods it makes.
    fn rules_about<'a>(&'a self, pod: &'a PodFacts) -> impl Iterator<Item = Cow<'a, Rule>> {
        let controller = pod.resource.as_ref().and_then(|resource| PodController::named(resource.kind()));
        let controller = controller.filter(|controller| self.controllers.contains(controller));
        let standing = controller.into_iter().flat_map(|controller| {
            self.rules.iter().filter_map(move |rule| rule.autogen_for(controller)).map(Cow::Owned)
        });
        let all = self.rules.iter().map(Cow::Borrowed).chain(standing);
        all.filter(|rule| rule.includes.includes(pod) && !rule.excludes.excludes(pod))
    }

    /// Everything that decides. Entries by their fingerprints: trust roots are long.
    fn describe(&self) -> String {
        let mut text = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            self.name, self.namespace, self.apply_rules, self.default_action, self.overrides
        );
        for rule in &self.rules {
            let entries: Vec<_> = rule
                .entries
                .iter()
                .map(|entry| (entry.fingerprint(), entry.trust_fingerprint(), entry.failure_policy()))
                .collect();
            text.push_str(&format!(
                "\n{:?} {:?} {:?} {:?} {:?} {:?} {entries:?}",
                rule.name,
                rule.includes,
                rule.excludes,
                rule.context,
                rule.preconditions.as_ref().map(Conditions::describe),
                rule.own_action
            ));
        }
        text
    }

    /// Kyverno's order: the entries' own action, the first override that fits, the policy's.
    fn action(&self, rule: &Rule, namespace: Option<&str>) -> Action {
        if let Some(action) = rule.own_action {
            return action;
        }
        let Some(namespace) = namespace else {
            // Rule M3: as if in every namespace that an override names; the strictest counts.
            let overrides = self.overrides.iter().map(|(action, _)| *action);
            return overrides.max().unwrap_or(self.default_action).max(self.default_action);
        };
        let fits = |patterns: &[String]| patterns.iter().any(|pattern| wildcard::matches(pattern, namespace));
        self.overrides
            .iter()
            .find(|(_, namespaces)| fits(namespaces))
            .map_or(self.default_action, |(action, _)| *action)
    }
}

impl Rule {
    /// Whether `reference` is among what it finds in a resource. A pull is of that image and no other; where
    /// the rule cannot tell, it is taken to be there.
    fn finds(&self, reference: &Reference, pod: &PodFacts) -> bool {
        let Some(resource) = &pod.resource else { return true };
        match self.extractors.images(resource) {
            Ok(images) => images.iter().any(|image| image.reference == *reference),
            Err(_) => true,
        }
    }

    /// The rule that autogen makes of a rule about pods, for one kind of controller.
    fn autogen_for(&self, controller: PodController) -> Option<Self> {
        let about_pods =
            self.includes.names_pod() && (self.excludes.names_pod() || !self.excludes.names_kinds());
        if !about_pods || self.name.starts_with("autogen-") {
            return None;
        }
        let name = controller.rule_name(&self.name);
        // Upstream leaves them behind; the built-in places of a controller count.
        let extractors = Arc::<Extractors>::default();
        let renamed = |entry: &Arc<Entry>| {
            let (rule, extractors) = (name.clone(), Arc::clone(&extractors));
            let entry = Entry { rule, view: View::Template, extractors, ..Entry::clone(entry) };
            Arc::new(entry.sealed())
        };
        Some(Self {
            includes: self.includes.autogen_for(controller),
            excludes: self.excludes.autogen_for(controller),
            entries: self.entries.iter().map(renamed).collect(),
            extractors,
            name,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod apply_rules_tests;
#[cfg(test)]
mod blank_tests;
#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod evaluate_tests;
#[cfg(test)]
mod exception_tests;
#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod matching_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod resource_tests;
#[cfg(test)]
mod rule_context_tests;
#[cfg(test)]
mod standing_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_tests;
#[cfg(test)]
mod validation_tests;
