//! The documents of a file: which there are, of which kinds, and each as its kind.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::mistakes::{self, Attempt};
use super::{Loader, PolicySource, yaml};

/// One document as it is written.
pub(super) struct Parsed {
    pub(super) file: PathBuf,
    /// Where its kind stands.
    pub(super) line: u64,
    pub(super) item: Item,
    /// The same without types, where it holds variables.
    pub(super) raw: Option<Value>,
}

/// A document as its kind.
pub(super) enum Item {
    Policy(Box<yaml::Document>),
    Exception(Box<yaml::ExceptionDocument>),
    ConfigMap(Box<yaml::ConfigMapDocument>),
}

#[derive(Deserialize)]
pub(super) struct Head {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    kind: Option<Spanned<String>>,
}

impl Head {
    pub(super) fn line(&self) -> u64 {
        self.kind.as_ref().map_or(0, |kind| kind.referenced.line())
    }
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Policy,
    Exception,
    ConfigMap,
    List,
}

impl Loader<'_> {
    /// Reads the documents of a file; [`Self::load`] loads them.
    pub(in crate::policy) fn read(&mut self, source: &PolicySource) {
        self.file.clone_from(&source.file);
        if source.text.len() > TEXT_LIMIT {
            self.error(0, format!("larger than {TEXT_LIMIT} bytes; split it"));
            return;
        }
        let written = documents(&source.text).filter(|document| !document.trim().is_empty());
        for (count, document) in written.enumerate() {
            if count == DOCUMENTS_LIMIT {
                self.error(0, format!("more than {DOCUMENTS_LIMIT} documents; split it"));
                return;
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
        match self.sort(head) {
            Some(Sort::Policy) => self.typed(head.line(), text, Item::Policy),
            Some(Sort::Exception) => self.typed(head.line(), text, Item::Exception),
            Some(Sort::ConfigMap) => self.typed(head.line(), text, Item::ConfigMap),
            Some(Sort::List) => self.list(head.line(), text),
            None => {}
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, line: u64, text: &str, item: impl Fn(Box<T>) -> Item) {
        let Attempt { item: read, text, mistakes } = mistakes::read::<T>(text);
        mistakes.iter().for_each(|error| self.yaml_error(error));
        if let Some(read) = read {
            self.parsed(line, item(Box::new(read)), raw(&text));
        }
    }

    pub(super) fn parsed(&mut self, line: u64, item: Item, raw: Option<Value>) {
        self.documents.push(Parsed { file: self.file.clone(), line, item, raw });
    }

    /// By its kind; none where it is not read, which is said.
    pub(super) fn sort(&mut self, head: &Head) -> Option<Sort> {
        let (kind, line) = (head.kind.as_ref().map_or("", |kind| kind.value.as_str()), head.line());
        let ours = head.api_version.split('/').next() == Some("kyverno.io");
        match (head.api_version.as_str(), kind) {
            ("kyverno.io/v1" | "kyverno.io/v2beta1", "ClusterPolicy" | "Policy") => Some(Sort::Policy),
            ("kyverno.io/v2" | "kyverno.io/v2beta1", "PolicyException") => Some(Sort::Exception),
            ("v1", "ConfigMap") => Some(Sort::ConfigMap),
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
                if kind.is_empty() || kind == "List" || (ours && !WITHOUT_IMAGES.contains(&kind)) =>
            {
                self.error(line, format!("kind `{kind}` of `{version}` is not known; is it misspelt?"));
                None
            }
            (version, kind) if version.starts_with("policies.kyverno.io/") => {
                self.error(
                    line,
                    format!("kind `{kind}` of `{version}` is not read here; write its rules as verifyImages of a kyverno.io/v1 ClusterPolicy, or move the document out of the policy folder"),
                );
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
}

/// A document without types, if there are variables in it.
pub(super) fn raw(text: &str) -> Option<Value> {
    if text.contains("{{") { serde_saphyr::from_str(text).ok() } else { None }
}

/// The documents of a file, each with as many empty lines before it as it has in the file, so that
/// line numbers stay true. One at a time: together those lines would be far more than the file.
pub(in crate::policy) fn documents(text: &str) -> impl Iterator<Item = String> {
    let begins = |line: &str| {
        let behind = line.strip_prefix("---");
        behind.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
    };
    let mut lines = text.lines().enumerate().peekable();
    std::iter::from_fn(move || {
        let (number, first) = lines.next()?;
        let mut document = format!("{}{first}\n", "\n".repeat(number));
        while let Some((_, line)) = lines.next_if(|(_, line)| !begins(line)) {
            document.push_str(line);
            document.push('\n');
        }
        Some(document)
    })
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
/// As many as a file of policies has; each costs as much as the whole file before it has lines.
const DOCUMENTS_LIMIT: usize = 1000;
/// Far more than the API server stores for one object.
const TEXT_LIMIT: usize = 8 * 1024 * 1024;
