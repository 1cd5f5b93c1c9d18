//! One policy: who it is, what its fields say for all its rules, and the rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Loader, yaml};
use crate::policy::entry::{Action, FailurePolicy};
use crate::policy::{ApplyRules, Policy};

impl Loader<'_> {
    /// `raw` is the document without types, where it holds variables.
    pub(super) fn policy(&mut self, line: u64, document: &yaml::Document, raw: Option<&Value>) {
        let (name, namespace) = super::names(document.metadata.as_ref());
        if name.is_empty() {
            return self.error(line, "metadata.name is missing".to_owned());
        }
        let namespaced = document.kind == "Policy";
        if namespaced && namespace.is_empty() {
            return self.error(line, format!("policy `{name}`: kind Policy needs metadata.namespace"));
        }
        let name = if namespaced { format!("{namespace}/{name}") } else { name };
        if !self.seen.insert(format!("{} {name}", document.kind)) {
            return self.error(line, format!("{} `{name}` is defined twice", document.kind));
        }
        let Some(spec) = &document.spec else {
            return self.error(line, format!("policy `{name}`: spec is missing"));
        };
        self.meaningless(
            &name,
            &[
                (
                    "background",
                    &spec.background,
                    "images on the node are judged at start, after a reload and daily",
                ),
                ("webhookTimeoutSeconds", &spec.webhook_timeout_seconds, "limits.verification bounds a pull"),
                (
                    "emitWarning",
                    &spec.emit_warning,
                    "a pull has no place for warnings; what Audit finds is logged",
                ),
                ("schemaValidation", &spec.schema_validation, "upstream no longer reads it either"),
                ("mutateExistingOnPolicyUpdate", &spec.mutate_existing_on_policy_update, OTHER_RULES),
                ("generateExistingOnPolicyUpdate", &spec.generate_existing_on_policy_update, OTHER_RULES),
                ("generateExisting", &spec.generate_existing, OTHER_RULES),
                ("useServerSideApply", &spec.use_server_side_apply, OTHER_RULES),
                ("skipBackgroundRequests", &spec.skip_background_requests, OTHER_RULES),
            ],
        );
        if let Some(webhook) = &spec.webhook_configuration {
            let timeout = &webhook.timeout_seconds;
            self.meaningless(
                &name,
                &[("webhookConfiguration.timeoutSeconds", timeout, "limits.verification bounds a pull")],
            );
            self.refuse(
                &name,
                "webhookConfiguration.matchConditions",
                &webhook.match_conditions,
                "it is CEL over an admission request, which a node never sees; use match and exclude",
            );
        }
        let apply_rules =
            match spec.apply_rules.as_ref().map(|apply| (apply.value.as_str(), apply.referenced)) {
                None | Some(("All", _)) => ApplyRules::All,
                Some(("One", _)) => ApplyRules::One,
                Some((other, at)) => {
                    self.error(at.line(), format!("policy `{name}`: applyRules `{other}` is not All or One"));
                    ApplyRules::All
                }
            };
        let webhook_failure =
            spec.webhook_configuration.as_ref().and_then(|webhook| webhook.failure_policy.as_deref());
        let failure_policy = match (spec.failure_policy.as_deref(), webhook_failure) {
            (Some(_), Some(_)) => return self.error(line, format!("policy `{name}`: failurePolicy and webhookConfiguration.failurePolicy are both set; keep one")),
            (None | Some("Fail"), None) | (None, Some("Fail")) => FailurePolicy::Fail,
            (Some("Ignore"), None) | (None, Some("Ignore")) => FailurePolicy::Ignore,
            (Some(other), None) | (None, Some(other)) => return self.error(line, format!("policy `{name}`: failurePolicy `{other}` is not Fail or Ignore")),
        };
        let overrides = self.overrides(line, &name, namespaced, spec);
        let default_action =
            self.action(line, &name, "validationFailureAction", spec.validation_failure_action.as_deref());
        let controllers = self.controllers(line, &name, document.metadata.as_ref(), spec);
        let mut policy = Policy {
            name: name.clone(),
            controllers,
            namespace: namespaced.then_some(namespace),
            apply_rules,
            default_action: default_action.unwrap_or(Action::Audit),
            overrides,
            rules: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let (line, rule) = (rule.referenced.line(), &rule.value);
            if rule.name.is_empty() {
                self.error(line, format!("policy `{name}`: a rule has no name"));
            } else if !names.insert(rule.name.as_str()) {
                self.error(line, format!("policy `{name}`: rule `{}` is defined twice", rule.name));
            }
            if rule.verify_images.is_none() {
                self.notice(
                    line,
                    format!("policy `{name}`: rule `{}` is skipped: it has no verifyImages", rule.name),
                );
                continue;
            }
            let raw = raw.and_then(|raw| raw.get("spec")?.get("rules")?.get(index));
            if let Some(rule) = self.rule(line, &policy, failure_policy, rule, raw) {
                policy.rules.push(rule);
            }
        }
        if spec.admission == Some(false) {
            return self.warning(line, format!("policy `{name}` has admission: false: a cluster refuses that for verifyImages, and it is not applied here; take the field out"));
        }
        self.policies.push(policy);
    }

    fn overrides(
        &mut self,
        line: u64,
        name: &str,
        namespaced: bool,
        spec: &yaml::Spec,
    ) -> Vec<(Action, Vec<String>)> {
        let list = &spec.validation_failure_action_overrides;
        if namespaced && !list.is_empty() {
            self.error(
                line,
                format!("policy `{name}`: validationFailureActionOverrides is for ClusterPolicy only"),
            );
        }
        let mut overrides = Vec::new();
        for item in list {
            self.refuse(
                name,
                "validationFailureActionOverrides.namespaceSelector",
                &item.namespace_selector,
                "a node does not know the labels of namespaces; name the namespaces",
            );
            match self.action(line, name, "validationFailureActionOverrides.action", item.action.as_deref()) {
                Some(action) => {
                    let names = item.namespaces.as_deref();
                    self.warn_of_namespaces(
                        &format!("policy `{name}`"),
                        "validationFailureActionOverrides.namespaces",
                        names.unwrap_or_default(),
                    );
                    let all = || vec!["*".to_owned()];
                    let names =
                        names.map_or_else(all, |names| names.iter().map(|name| name.value.clone()).collect());
                    overrides.push((action, names));
                }
                None => self.error(line, format!("policy `{name}`: an override has no action")),
            }
        }
        overrides
    }
}

/// Why a field of a policy means nothing here.
const OTHER_RULES: &str = "it is about mutate or generate rules";
