//! One rule: what kind it is, which pods it is about, its entries.

use std::sync::Arc;

use super::matching::Side;
use super::{Loader, yaml};
use crate::policy::entry::{Action, Entry, FailurePolicy};
use crate::policy::pods::PodFactsRead;
use crate::policy::{Policy, Rule};

impl Loader<'_> {
    pub(super) fn rule(
        &mut self,
        line: u64,
        policy: &Policy,
        failure_policy: FailurePolicy,
        rule: &yaml::Rule,
    ) -> Option<Rule> {
        let place = format!("{}/{}", policy.name, rule.name);
        self.unsupported(&place, &[("context", &rule.context), ("preconditions", &rule.preconditions)]);
        self.refuse(
            &place,
            "celPreconditions",
            &rule.cel_preconditions,
            "it is CEL over an admission request, and upstream reads it for validate.cel alone; use preconditions",
        );
        self.meaningless(
            &place,
            &[
                (
                    "skipBackgroundRequests",
                    &rule.skip_background_requests,
                    "requests of Kyverno's own controllers never reach a node",
                ),
                ("reportProperties", &rule.report_properties, "there are no policy reports here"),
            ],
        );
        for (field, value) in
            [("mutate", &rule.mutate), ("validate", &rule.validate), ("generate", &rule.generate)]
        {
            self.refuse(&place, field, value, "a rule is of one kind; put it into a rule of its own");
        }
        let Some(matches) = &rule.match_resources else {
            self.error(line, format!("{place}: match is missing"));
            return None;
        };
        let before = self.errors.len();
        let extractors = self.extractors(&place, rule);
        let includes = self.pod_match(line, &place, matches, Side::Match);
        let excludes = rule
            .exclude
            .as_ref()
            .map(|exclude| self.pod_match(line, &place, exclude, Side::Exclude))
            .unwrap_or_default();
        if !includes.is_about_pods() {
            self.notice(
                line,
                format!("{place}: its match selects no pods, so it is never applied on a node"),
            );
        }
        if policy.namespace.is_some()
            && [&includes, &excludes].into_iter().any(|block| block.reads().namespace)
        {
            self.error(line, format!("{place}: Filtering namespaces not allowed in namespaced policies; take them out, or make it a ClusterPolicy"));
        }
        // Upstream refuses it: nothing is left of what that filter of match takes in.
        if includes.any.iter().any(|filter| excludes.any.contains(filter)) {
            self.error(
                line,
                format!("{place}: Rule is matching an empty set: exclude has a filter of match; take it out of both"),
            );
        }
        let namespace = PodFactsRead {
            namespace: policy.namespace.is_some() || !policy.overrides.is_empty(),
            ..Default::default()
        };
        let facts = includes.reads().and(excludes.reads()).and(namespace);
        let mut drafts = Vec::new();
        let mut denies = Vec::new();
        let mut actions = Vec::new();
        for (index, entry) in rule.verify_images.iter().flatten().enumerate() {
            let place = format!("{place}: verifyImages[{index}]");
            if let Some(action) = self.action(line, &place, "failureAction", entry.failure_action.as_deref())
            {
                actions.push(action);
            }
            denies.extend(self.validation(&place, entry));
            if let Some(draft) = self.entry(line, &place, entry) {
                drafts.push(Entry {
                    policy: policy.name.clone(),
                    rule: rule.name.clone(),
                    index,
                    failure_policy,
                    ..draft
                });
            }
        }
        if !denies.is_empty() && drafts.iter().all(|draft| draft.attestations.is_empty()) {
            self.warning(
                line,
                format!("{place}: validate is never evaluated: it is looked at after attestations, and there are none"),
            );
        }
        if rule.verify_images.as_ref().is_some_and(Vec::is_empty) {
            self.error(line, format!("{place}: verifyImages is empty"));
        }
        if self.errors.len() > before {
            return None;
        }
        let mut entries = Vec::new();
        let mut reads = facts;
        for draft in drafts {
            // As upstream: every `validate` of the rule is looked at after the attestations of each entry.
            let denies = if draft.attestations.is_empty() { Vec::new() } else { denies.clone() };
            let draft = Entry { denies, ..draft };
            let entry = Entry { reads: facts.and(draft.facts_read()), ..draft };
            reads = reads.and(entry.reads);
            entries.push(Arc::new(entry.sealed()));
        }
        // Kyverno: Enforce in any entry wins for the rule, else the first entry that says anything.
        let own_action = actions.iter().copied().max();
        if own_action.unwrap_or(policy.default_action) == Action::Audit
            && entries.iter().any(|entry| entry.mutate_digest)
        {
            self.notice(line, format!("{place}: mutateDigest is true, its default, which a cluster refuses beside Audit; here what is verified is pinned, and what Audit lets pass is not"));
        }
        let written = rule.verify_images.iter().flatten();
        for (entry, written) in entries.iter().zip(written) {
            self.lint(line, &place, policy, own_action, entry, written);
        }
        Some(Rule { name: rule.name.clone(), includes, excludes, extractors, entries, own_action, reads })
    }
}
