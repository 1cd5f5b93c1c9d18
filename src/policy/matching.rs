//! Which rules cover an image, by every form of its name.
//!
//! A pattern covers a reference if it fits any of its forms; what takes an image out must fit all of
//! them (rule M2), and surely, where not everything is known of the pod (rule M3).

use std::sync::Arc;
use std::time::SystemTime;

use super::{
    Application, ApplyRules, Compatibility, Coverage, Covered, Following, PodFacts, PolicySet, Rule,
    StoredImages,
    standing::{Asked, Settled},
    wildcard,
};
use crate::oci::Reference;

impl PolicySet {
    /// The rules that cover `reference` for `pod`, sorted by policy, rules in their own order. Variables of
    /// theirs may read the time `now`.
    #[must_use]
    pub fn matching(&self, reference: &Reference, pod: &PodFacts, now: SystemTime) -> Vec<Application> {
        self.matching_with(reference, pod, now, &StoredImages::default())
    }

    /// The same by what is known of other images, or of this one. What is still missing is asked for
    /// ([`Application::asks_for`]), one image a rule.
    #[must_use]
    pub fn matching_with(
        &self,
        reference: &Reference,
        pod: &PodFacts,
        now: SystemTime,
        images: &StoredImages,
    ) -> Vec<Application> {
        let asked = Asked { reference, pod, now, images };
        let mut applications = Vec::new();
        for policy in self.policies.iter().filter(|policy| policy.is_about(pod)) {
            for rule in policy.rules_about(pod).filter(|rule| rule.finds(reference, pod)) {
                let mut entries = self.covering(&rule, reference);
                if !entries.is_empty() {
                    if policy.apply_rules == ApplyRules::One {
                        self.end_with_one(&mut entries, &rule, asked);
                    }
                    let Settled { skipped, asks_for } = self.settle(&policy.name, &rule, asked, &mut entries);
                    applications.push(Application {
                        policy: policy.name.clone(),
                        rule: rule.name.clone(),
                        action: policy.action(&rule, pod.namespace.as_deref()),
                        skipped,
                        basis: rule.basis,
                        asks_for,
                        entries,
                    });
                }
            }
        }
        applications
    }

    /// Whether any rule covers `reference` in whatever namespace (rule S1).
    #[must_use]
    pub fn covers(&self, reference: &Reference) -> bool {
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        rules
            .filter(|rule| rule.includes.is_about_pods())
            .any(|rule| !self.covering(rule, reference).is_empty())
    }

    fn covering(&self, rule: &Rule, reference: &Reference) -> Vec<Covered> {
        let mut covered = Vec::new();
        for entry in &rule.entries {
            if !entry.references.iter().any(|pattern| self.fits_any(pattern, reference)) {
                continue;
            }
            let skipped = entry.skipped.iter().any(|pattern| self.fits_all(pattern, reference));
            let coverage = if skipped { Coverage::Skipped } else { Coverage::Judged };
            covered.push(Covered { entry: Arc::clone(entry), coverage, following: Following::Applied });
        }
        covered
    }

    /// `applyRules: One`. What keeps later rules away must fit for certain (rules M2, M3): a pull that
    /// leaves its namespace out is not done with by a rule about some namespaces. An entry that asks
    /// for no signature decides nothing, so it ends nothing.
    fn end_with_one(&self, entries: &mut [Covered], rule: &Rule, asked: Asked<'_>) {
        let Asked { reference, pod, .. } = asked;
        if rule.preconditions.as_ref().is_some_and(|preconditions| asked.lacks(&preconditions.reads())) {
            return;
        }
        if !rule.includes.surely_includes(pod) || rule.excludes.may_exclude(pod) {
            return;
        }
        for covered in entries {
            let entry = &covered.entry;
            let certain = entry.references.iter().any(|pattern| self.fits_all(pattern, reference));
            if certain && entry.needs_evidence() {
                covered.following = Following::NotApplied;
            }
        }
    }

    /// Rule M2: a pattern covers if it fits any form.
    fn fits_any(&self, pattern: &str, reference: &Reference) -> bool {
        if wildcard::matches(pattern, &reference.kyverno_form()) {
            return true;
        }
        if self.compatibility == Compatibility::Strict {
            return false;
        }
        // Hosts are the same in upper and lower case, in the policy too.
        let lower = lower_host(pattern);
        let without_tag = without_tag(&lower);
        wildcard::matches(&lower, &reference.normalised_form())
            || reference.short_form().is_some_and(|form| wildcard::matches(&lower, &form))
            || (reference.digest().is_some()
                && reference.names().iter().any(|name| wildcard::matches(without_tag, name)))
    }

    /// Rule M2: what takes an image out of a rule must fit all forms.
    fn fits_all(&self, pattern: &str, reference: &Reference) -> bool {
        if !wildcard::matches(pattern, &reference.kyverno_form()) {
            return false;
        }
        self.compatibility == Compatibility::Strict
            || wildcard::matches(pattern, &reference.normalised_form())
    }
}

/// A pattern with its first component in lower case, where that is a host.
fn lower_host(pattern: &str) -> String {
    match pattern.split_once('/') {
        Some((host, rest)) => format!("{}/{rest}", host.to_ascii_lowercase()),
        None => pattern.to_owned(),
    }
}

/// A pattern without its tag: what a digest reference is held against, so that adding a digest does
/// not dodge `repo:*`.
pub(super) fn without_tag(pattern: &str) -> &str {
    let last = pattern.rfind('/').map_or(0, |at| at + 1);
    let (head, tail) = pattern.split_at(last);
    let cut = tail.find([':', '@']).unwrap_or(tail.len());
    pattern.get(..head.len() + cut).unwrap_or(pattern)
}
