//! `PolicyException` documents, and a word about those that name nothing that is loaded.

use std::path::PathBuf;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::matching::Side;
use super::{Loader, Remark, Severity, template, yaml};
use crate::policy::exception::{ExceptedRules, Exception};
use crate::policy::{Policy, wildcard};

/// An exception's word for rules, until every policy is loaded.
pub(in crate::policy) struct Named {
    file: PathBuf,
    line: u64,
    place: String,
    excepted: ExceptedRules,
}

impl Named {
    /// What it names that is not loaded: it may be misspelt. `autogen-` rules are upstream's copies for
    /// controllers, which are no rules of a document.
    pub(in crate::policy) fn warnings(&self, policies: &[Policy]) -> Vec<Remark> {
        let Self { place, excepted, .. } = self;
        let name = &excepted.policy;
        let warning = |message| Remark {
            file: self.file.clone(),
            line: self.line,
            severity: Severity::Warning,
            message,
        };
        let Some(policy) = policies.iter().find(|policy| policy.name == *name) else {
            return vec![warning(format!(
                "{place}: policy `{name}` is not loaded, so nothing of it is excepted"
            ))];
        };
        let missing = |pattern: &&String| {
            !pattern.starts_with("autogen-")
                && !policy.rules.iter().any(|rule| wildcard::matches(pattern, &rule.name))
        };
        let missing = excepted.rules.iter().filter(missing);
        missing
            .map(|rule| warning(format!("{place}: policy `{name}` has no verifyImages rule `{rule}`")))
            .collect()
    }
}

impl Loader<'_> {
    /// `raw` is the document without types, where it holds variables.
    pub(super) fn exception(&mut self, line: u64, document: &yaml::ExceptionDocument, raw: Option<&Value>) {
        let (name, namespace) = super::names(document.metadata.as_ref());
        if name.is_empty() {
            return self.error(line, "metadata.name is missing".to_owned());
        }
        let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
        if !self.seen.insert(format!("PolicyException {name}")) {
            return self.error(line, format!("PolicyException `{name}` is defined twice"));
        }
        let place = format!("exception {name}");
        let Some(spec) = &document.spec else {
            return self.error(line, format!("{place}: spec is missing"));
        };
        self.meaningless(
            &place,
            &[
                ("background", &spec.background, "an exception counts whenever an image is judged"),
                ("podSecurity", &spec.pod_security, "it is about validate.podSecurity rules"),
            ],
        );
        let before = self.errors.len();
        let conditions = spec.conditions.as_ref();
        let conditions = conditions
            .and_then(|conditions| self.conditions(&format!("{place}: conditions"), Some(conditions)));
        let texts = raw.and_then(|raw| raw.get("spec")?.get("conditions")).map(template::texts);
        let rules: Vec<_> =
            spec.exceptions.iter().filter_map(|excepted| self.excepted_rules(&place, excepted)).collect();
        if spec.exceptions.is_empty() {
            self.error(line, format!("{place}: exceptions is empty; name a policy and its rules"));
        }
        let Some(block) = &spec.match_resources else {
            return self.error(line, format!("{place}: match is missing"));
        };
        let inline = block.resources.as_ref().is_some()
            || [&block.roles, &block.cluster_roles, &block.subjects].iter().any(|field| field.is_some());
        if inline {
            self.error(line, format!("{place}: match takes any or all, nothing else"));
        }
        let matches = self.pod_match(line, &place, block, Side::Match);
        if self.errors.len() > before {
            return;
        }
        if !matches.is_about_pods() {
            self.notice(line, format!("{place}: its match selects no pods, so it never fits on a node"));
        }
        let texts = texts.unwrap_or_default();
        self.exceptions.push(Exception { name, rules, matches, conditions, texts });
    }

    fn excepted_rules(
        &mut self,
        place: &str,
        excepted: &Spanned<yaml::ExceptedRules>,
    ) -> Option<ExceptedRules> {
        let (line, excepted) = (excepted.referenced.line(), &excepted.value);
        if excepted.policy_name.is_empty() {
            self.error(line, format!("{place}: An exception requires a policy name (policyName)"));
            return None;
        }
        if excepted.rule_names.is_empty() {
            self.error(line, format!("{place}: ruleNames is empty, so nothing of policy `{}` is excepted; name its rules, or `*`", excepted.policy_name));
            return None;
        }
        let excepted =
            ExceptedRules { policy: excepted.policy_name.clone(), rules: excepted.rule_names.clone() };
        let named =
            Named { file: self.file.clone(), line, place: place.to_owned(), excepted: excepted.clone() };
        self.excepted.push(named);
        Some(excepted)
    }
}
