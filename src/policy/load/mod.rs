//! From documents to entries: defaults, aliases, and a clear no to what cannot be honoured.
//!
//! Nothing a policy says is ignored silently. A field that is not supported yet, or that cannot be
//! known on a node, is an error that names file, line, field and the way out; a field that means
//! nothing on a node is a notice. All errors of all files are collected before giving up.

mod attestation;
mod attestor;
mod autogen;
mod entry;
mod exception;
mod extractor;
mod list;
mod matching;
mod remark;
mod rule;
mod trust;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_saphyr::Spanned;

pub(super) use exception::Named;
pub use remark::{Remark, Severity};

use super::entry::{Action, FailurePolicy};
use super::exception::Exception;
use super::kyverno as yaml;
use super::{ApplyRules, Policy};
use crate::sigstore::TrustRoot;

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Its name, for messages.
    pub file: PathBuf,
    /// Its content: YAML or JSON, several documents allowed.
    pub text: String,
}

/// Whether to follow upstream Kyverno where the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compatibility {
    /// All forms of a reference, both storage forms.
    #[default]
    Default,
    /// Kyverno's canonical form alone; `type: Cosign` reads `.sig` tags alone.
    Strict,
}

/// What loading needs besides the files.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How close to upstream.
    pub compatibility: Compatibility,
    /// The node's trust root, for attestors that bring no trust of their own.
    pub trust_root: RootSource,
    /// Whether transparency logs may be asked for entries that do not come with a signature.
    pub online_rekor: OnlineRekor,
    /// What the ends of certificates in policies are compared with, for warnings only.
    pub now: SystemTime,
}

/// The node's trust root.
#[derive(Debug, Clone)]
pub enum RootSource {
    /// At hand.
    Ready(Arc<TrustRoot>),
    /// It could not be loaded: whatever needs it is undecided, with this one-line cause.
    Unavailable(String),
}

/// Whether transparency logs may be asked (`trust.onlineRekor`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlineRekor {
    /// What comes with a signature has to do.
    Never,
    /// At the addresses that policies name.
    Allowed,
}

/// Everything that loading one file can say.
pub(super) struct Loader<'a> {
    options: &'a LoadOptions,
    file: PathBuf,
    seen: &'a mut BTreeSet<String>,
    pub(super) policies: Vec<Policy>,
    pub(super) exceptions: Vec<Exception>,
    /// What the exceptions name, to be compared with what is loaded.
    pub(super) excepted: Vec<Named>,
    pub(super) errors: Vec<Remark>,
    pub(super) notices: Vec<Remark>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    kind: Option<Spanned<String>>,
}

impl Head {
    fn line(&self) -> u64 {
        self.kind.as_ref().map_or(0, |kind| kind.referenced.line())
    }
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Policy,
    Exception,
    List,
}

impl<'a> Loader<'a> {
    pub(super) const fn new(options: &'a LoadOptions, file: PathBuf, seen: &'a mut BTreeSet<String>) -> Self {
        Self {
            options,
            file,
            seen,
            policies: Vec::new(),
            exceptions: Vec::new(),
            excepted: Vec::new(),
            errors: Vec::new(),
            notices: Vec::new(),
        }
    }

    pub(super) fn file(&mut self, text: &str) {
        if text.len() > TEXT_LIMIT {
            self.error(0, format!("larger than {TEXT_LIMIT} bytes; split it"));
            return;
        }
        for document in documents(text) {
            if document.trim().is_empty() {
                continue;
            }
            match serde_saphyr::from_multiple::<Option<Head>>(&document) {
                Ok(heads) if heads.len() <= 1 => {
                    if let Some(head) = heads.into_iter().flatten().next() {
                        self.document(&head, &document);
                    }
                }
                Ok(_) => self.error(0, "several documents that are not separated by a line `---`".to_owned()),
                Err(error) => self.yaml_error(&error),
            }
        }
    }

    fn document(&mut self, head: &Head, text: &str) {
        let line = head.line();
        match self.sort(head) {
            Some(Sort::Policy) => match serde_saphyr::from_str(text) {
                Ok(document) => self.policy(line, &document),
                Err(error) => self.yaml_error(&error),
            },
            Some(Sort::Exception) => match serde_saphyr::from_str(text) {
                Ok(document) => self.exception(line, &document),
                Err(error) => self.yaml_error(&error),
            },
            Some(Sort::List) => self.list(line, text),
            None => {}
        }
    }

    /// By its kind; none where it is not read, which is said.
    fn sort(&mut self, head: &Head) -> Option<Sort> {
        let (kind, line) = (head.kind.as_ref().map_or("", |kind| kind.value.as_str()), head.line());
        let ours = head.api_version.split('/').next() == Some("kyverno.io");
        match (head.api_version.as_str(), kind) {
            ("kyverno.io/v1" | "kyverno.io/v2beta1", "ClusterPolicy" | "Policy") => Some(Sort::Policy),
            ("kyverno.io/v2" | "kyverno.io/v2beta1", "PolicyException") => Some(Sort::Exception),
            ("v1", "List") => Some(Sort::List),
            (version, kind @ ("ClusterPolicy" | "Policy" | "PolicyException")) if ours => {
                let read = if kind == "PolicyException" { "v2" } else { "v1" };
                self.error(
                    line,
                    format!("apiVersion `{version}` is not supported, only kyverno.io/{read} and v2beta1"),
                );
                None
            }
            (version, kind)
                if kind.is_empty()
                    || kind == "List"
                    || (ours && !WITHOUT_IMAGES.contains(&kind))
                    || version.starts_with("policies.kyverno.io/") =>
            {
                self.error(line, format!("kind `{kind}` of `{version}` is not supported; is it misspelt?"));
                None
            }
            (version, kind) => {
                self.notice(
                    line,
                    format!("kind `{kind}` of `{version}` is skipped: it has no verifyImages rules"),
                );
                None
            }
        }
    }

    fn policy(&mut self, line: u64, document: &yaml::Document) {
        let (name, namespace) = names(document.metadata.as_ref());
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
        for rule in &spec.rules {
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
            if let Some(rule) = self.rule(line, &policy, failure_policy, rule) {
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
                    overrides.push((action, item.namespaces.clone().unwrap_or_else(|| vec!["*".to_owned()])))
                }
                None => self.error(line, format!("policy `{name}`: an override has no action")),
            }
        }
        overrides
    }

    fn action(&mut self, line: u64, name: &str, field: &str, text: Option<&str>) -> Option<Action> {
        match text? {
            "Enforce" | "enforce" => Some(Action::Enforce),
            "Audit" | "audit" => Some(Action::Audit),
            other => {
                self.error(line, format!("policy `{name}`: {field} `{other}` is not Audit or Enforce"));
                None
            }
        }
    }
}

/// `name` and `namespace`, empty where they are not given.
fn names(metadata: Option<&serde_json::Value>) -> (String, String) {
    let text = |field: &str| {
        let value = metadata.and_then(|metadata| metadata.get(field));
        value.and_then(serde_json::Value::as_str).unwrap_or("").to_owned()
    };
    (text("name"), text("namespace"))
}

/// The documents of a file, each with as many empty lines before it as it has in the file, so that
/// line numbers stay true.
fn documents(text: &str) -> Vec<String> {
    let mut documents = Vec::new();
    let mut current = String::new();
    for (number, line) in text.lines().enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if marker {
            documents.push(std::mem::replace(&mut current, "\n".repeat(number)));
        }
        current.push_str(line);
        current.push('\n');
    }
    documents.push(current);
    documents
}

/// Kinds of kyverno.io that verify no images.
const WITHOUT_IMAGES: &[&str] = &[
    "CleanupPolicy",
    "ClusterCleanupPolicy",
    "GlobalContextEntry",
    "UpdateRequest",
    "PolicyReport",
    "ClusterPolicyReport",
];
/// Why a field of a policy means nothing here.
const OTHER_RULES: &str = "it is about mutate or generate rules";
/// Upstream's copies of a rule for controllers.
/// Far more than the API server stores for one object.
const TEXT_LIMIT: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicySet;

    #[test]
    fn pitfall_23_aliases_do_not_multiply() {
        // Nine levels of nine aliases each: a billion texts.
        let mut text = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nbomb:\n  - &l0 [x]\n".to_owned();
        for level in 0..9 {
            let aliases = vec![format!("*l{level}"); 9].join(", ");
            text.push_str(&format!("  - &l{} [{aliases}]\n", level + 1));
        }
        let options = LoadOptions {
            compatibility: Compatibility::Default,
            trust_root: RootSource::Unavailable("not asked for".into()),
            online_rekor: OnlineRekor::Never,
            now: SystemTime::UNIX_EPOCH,
        };
        let source = PolicySource { file: "bomb.yaml".into(), text };
        let errors: Vec<_> =
            PolicySet::load(&[source], &options).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("bomb.yaml:10: budget breached"), "{errors:?}");
    }
}
