//! One rule: what kind it is, which pods it is about, its entries.

use std::sync::Arc;

use serde_json::Value;

use super::context::LoadedContext;
use super::matching::Side;
use super::{Loader, template, yaml};
use crate::policy::context::facts as facts_of;
use crate::policy::entry::{Action, Entry, FailurePolicy};
use crate::policy::jmespath::Clock;
use crate::policy::pods::PodFactsRead;
use crate::policy::{Basis, Policy, Rule};

impl Loader<'_> {
    pub(super) fn rule(
        &mut self,
        line: u64,
        policy: &Policy,
        failure_policy: FailurePolicy,
        rule: &yaml::Rule,
        raw: Option<&Value>,
    ) -> Option<Rule> {
        let place = format!("{}/{}", policy.name, rule.name);
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
        let extractors = Arc::new(self.extractors(&place, rule));
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
        let LoadedContext { context, fixed } = self.rule_context(&place, policy, rule, raw);
        let preconditions = rule
            .preconditions
            .as_ref()
            .map(|preconditions| self.conditions(&format!("{place}: preconditions"), Some(preconditions)));
        let preconditions = match preconditions {
            Some(preconditions) => Some(preconditions?),
            None => None,
        };
        if let Some(preconditions) = &preconditions {
            let place = format!("{place}: preconditions");
            self.warn_of_names(line, &place, &preconditions.reads(), &context);
        }
        let mut standing = context.reads();
        preconditions.iter().for_each(|preconditions| standing.add(&preconditions.reads()));
        let clock = standing.clock;
        let facts = includes.reads().and(excludes.reads()).and(namespace);
        let of_registries = PodFactsRead { registries: context.asks_registries(), ..Default::default() };
        let of_context = facts_of(&context.reads()).and(of_registries);
        let of_preconditions =
            preconditions.as_ref().map(|preconditions| facts_of(&preconditions.reads())).unwrap_or_default();
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
            let raw = raw.and_then(|raw| raw.get("verifyImages")?.get(index));
            let draft = match raw {
                Some(raw) => self.entry_or_form(line, &place, entry, raw, &fixed),
                None => self.entry(line, &place, entry),
            };
            if let Some(draft) = draft {
                self.warn_of_names(line, &format!("{place}: fields"), &draft.form_reads(), &context);
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
        let variables = Arc::new(fixed);
        let mut entries = Vec::new();
        let mut variable = of_context.and(of_preconditions);
        for draft in drafts {
            // As upstream: every `validate` of the rule is looked at after the attestations of each entry.
            let denies = if draft.attestations.is_empty() { Vec::new() } else { denies.clone() };
            let draft = Entry { denies, ..draft };
            let own = of_context.and(draft.facts_read()).and(facts_of(&draft.form_reads()));
            variable = variable.and(own);
            let reads = facts.and(own);
            let (variables, extractors) = (Arc::clone(&variables), Arc::clone(&extractors));
            let entry = Entry { reads, variables, extractors, ..draft };
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
        Some(Rule {
            name: rule.name.clone(),
            includes,
            excludes,
            extractors,
            context,
            preconditions,
            entries,
            own_action,
            basis: match (variable.registries, variable.any(), clock) {
                (true, _, _) => Basis::Registries,
                (false, true, _) => Basis::Pull,
                (false, false, Clock::Read) => Basis::Time,
                (false, false, Clock::Ignored) => Basis::Image,
            },
            reads: facts.and(variable),
        })
    }

    /// The rule's `context`, as far as anything reads it.
    fn rule_context(
        &mut self,
        place: &str,
        policy: &Policy,
        rule: &yaml::Rule,
        raw: Option<&Value>,
    ) -> LoadedContext {
        let readers = ["verifyImages", "preconditions"];
        let mut texts: Vec<_> = readers
            .into_iter()
            .filter_map(|field| raw.and_then(|raw| raw.get(field)))
            .flat_map(template::texts)
            .collect();
        let about = self.exceptions.iter().filter(|exception| exception.names(&policy.name, &rule.name));
        texts.extend(about.flat_map(|exception| exception.texts.clone()));
        let named = |entry: &yaml::VerifyImages| -> Vec<String> {
            let attestations = entry.attestations.iter().flat_map(|list| &list.value);
            attestations
                .filter_map(|attestation| Some(attestation.value.name.as_ref()?.value.clone()))
                .collect()
        };
        let names: Vec<_> = rule.verify_images.iter().flatten().flat_map(named).collect();
        for entry in rule.context.iter().filter(|entry| names.contains(&entry.value.name)) {
            self.error(
                entry.referenced.line(),
                format!(
                    "{place}: context and an attestation have the name `{}`; choose another",
                    entry.value.name
                ),
            );
        }
        self.context(place, policy.namespace.as_deref(), &rule.context, texts)
    }
}
