//! From documents to entries: defaults, aliases, and a clear no to what cannot be honoured.
//!
//! Nothing a policy says is ignored silently. A field that is not supported yet, or that cannot be
//! known on a node, is an error that names file, line, field and the way out; a field that means
//! nothing on a node is a notice. All errors of all files are collected before giving up.

mod attestation;
mod attestor;
mod autogen;
mod condition;
mod context;
mod document;
mod entry;
mod exception;
mod extractor;
mod lint;
mod list;
mod matching;
mod mistakes;
mod policy;
mod remark;
mod rule;
mod template;
mod trust;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub(in crate::policy) use document::documents;
pub(super) use exception::Named;
pub(in crate::policy) use remark::yaml_error;
pub use remark::{NamedSecret, Remark, Severity};
pub(super) use template::fill_in;

use super::Policy;
use super::entry::Action;
use super::exception::Exception;
use super::kyverno as yaml;
use super::rule_context::ConfigMaps;
use crate::sigstore::TrustRoot;
use document::{Item, Parsed};

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

/// Everything that loading can say. Documents are read first, all of them, and then loaded: a policy may
/// need what another file holds.
pub(super) struct Loader<'a> {
    options: &'a LoadOptions,
    /// The file that is read or whose document is loaded, for remarks.
    file: PathBuf,
    documents: Vec<Parsed>,
    seen: BTreeSet<String>,
    pub(super) policies: Vec<Policy>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) maps: ConfigMaps,
    /// What the exceptions name, to be compared with what is loaded.
    pub(super) excepted: Vec<Named>,
    pub(super) secrets: Vec<NamedSecret>,
    pub(super) errors: Vec<Remark>,
    pub(super) notices: Vec<Remark>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(options: &'a LoadOptions) -> Self {
        Self {
            options,
            file: PathBuf::new(),
            documents: Vec::new(),
            seen: BTreeSet::new(),
            policies: Vec::new(),
            exceptions: Vec::new(),
            maps: ConfigMaps::new(),
            excepted: Vec::new(),
            secrets: Vec::new(),
            errors: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Loads everything that was read.
    pub(super) fn load(&mut self) {
        let documents = std::mem::take(&mut self.documents);
        for Parsed { file, line, item, raw } in &documents {
            self.file.clone_from(file);
            match item {
                Item::Exception(document) => self.exception(*line, document, raw.as_ref()),
                Item::ConfigMap(document) => self.config_map(*line, document),
                Item::Policy(_) => {}
            }
        }
        for Parsed { file, line, item, raw } in &documents {
            self.file.clone_from(file);
            match item {
                Item::Policy(document) => self.policy(*line, document, raw.as_ref()),
                Item::Exception(_) | Item::ConfigMap(_) => {}
            }
        }
        // In the order of the files, not of the loading.
        let files: Vec<_> = documents.iter().map(|document| document.file.clone()).collect();
        let place = |remark: &Remark| (files.iter().position(|file| *file == remark.file), remark.line);
        self.errors.sort_by_key(place);
        self.notices.sort_by_key(place);
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
