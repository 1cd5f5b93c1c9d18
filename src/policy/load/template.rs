//! `verifyImages[]` elements with variables in them: where these are, and what becomes of the element.
//!
//! What reads the policy folder alone is filled in here, what reads the pull when there is one, and either
//! goes through the loader as if it had been written so. What cannot be filled in is an element that
//! cannot be judged. Conditions and `validate` are not touched: they have variables of their own.
//!
//! At load the element is looked at once with samples in place of what is not known yet, so that whatever
//! else is wrong with it is an error of the policy. The sample is never judged.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::{LoadOptions, Loader, yaml};
use crate::outcome::{Fault, FaultReason};
use crate::policy::blank::{Blank, Field, Form, Usage, name_of};
use crate::policy::entry::{Entry, Unfilled};
use crate::policy::jmespath::{Budget, Scope};
use crate::policy::rule_context::Values;

impl Loader<'_> {
    /// An element that is `raw` in the document. `fixed` holds the names whose values are known.
    pub(super) fn entry_or_form(
        &mut self,
        line: u64,
        place: &str,
        entry: &yaml::VerifyImages,
        raw: &Value,
        fixed: &Values,
    ) -> Option<Entry> {
        let before = self.errors.len();
        let fields = self.fields(line, place, raw);
        if fields.is_empty() && self.errors.len() == before {
            return self.entry(line, place, entry);
        }
        for pointer in scalars(raw) {
            let field = name_of(&pointer);
            self.error(line, format!("{place}: {field} is no text; write it in quotes"));
        }
        if self.errors.len() > before {
            return None;
        }
        let form = Form { element: raw.clone(), fields, fixed: fixed.clone() };
        let unfilled = if form.is_fixed() {
            let scope = fixed
                .iter()
                .fold(Scope::new(SystemTime::UNIX_EPOCH), |scope, (name, value)| scope.name(name, value));
            match form.fill(&scope, &mut Budget::of_verdict()) {
                Ok(element) => {
                    let element = self.element(line, &element)?;
                    return self.entry(line, place, &element);
                }
                Err(cause) => {
                    self.warning(
                        line,
                        format!(
                            "{place}: {cause}; until that is mended, every image that it covers is undecided"
                        ),
                    );
                    Unfilled::Never(Fault::new(FaultReason::PolicyUnresolved, format!("{place}: {cause}")))
                }
            }
        } else {
            let blank = Blank::new(form.clone(), place.to_owned(), self.file.clone());
            Unfilled::UntilPull(Arc::new(blank))
        };
        let sample = self.element(line, &form.sample())?;
        self.entry(line, place, &sample).map(|entry| entry.form(unfilled))
    }

    /// The texts of an element that hold variables.
    fn fields(&mut self, line: u64, place: &str, raw: &Value) -> Vec<Field> {
        let mut found = Fields { line, place, fields: Vec::new() };
        for name in WITH_VARIABLES {
            if let Some(value) = raw.get(name) {
                let (usage, inside) = meaning(name, Inside::Element);
                self.collect(&mut found, value, &format!("/{name}"), usage, inside);
            }
        }
        found.fields
    }

    fn collect(
        &mut self,
        found: &mut Fields<'_>,
        value: &Value,
        pointer: &str,
        usage: Usage,
        inside: Inside,
    ) {
        let (line, place) = (found.line, found.place);
        match value {
            Value::String(text) if text.contains("{{") => {
                let template = self.template_of(&format!("{place}: {pointer}"), line, value, value, pointer);
                let pointer = pointer.to_owned();
                found.fields.extend(template.map(|text| Field { pointer, text, usage }));
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(found, item, &format!("{pointer}/{index}"), usage, inside);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    if key.contains("{{") {
                        self.error(line, format!("{place}: the key `{key}` must not hold variables"));
                    }
                    if inside == Inside::Element && UNTOUCHED.contains(&key.as_str()) {
                        continue;
                    }
                    let (usage, inside) = match inside {
                        Inside::Element => meaning(key, inside),
                        Inside::Map => (usage, inside),
                    };
                    let key = key.replace('~', "~0").replace('/', "~1");
                    self.collect(found, member, &format!("{pointer}/{key}"), usage, inside);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// An element that was put together, at the line of the one it stands for.
    fn element(&mut self, line: u64, element: &Value) -> Option<yaml::VerifyImages> {
        let blank_lines = usize::try_from(line.saturating_sub(1)).unwrap_or_default();
        // JSON is YAML, and its escapes keep every text a text.
        let text = format!("{}{element}", "\n".repeat(blank_lines));
        match serde_saphyr::from_str(&text) {
            Ok(element) => Some(element),
            Err(error) => {
                self.yaml_error(&error);
                None
            }
        }
    }
}

/// Fills in the form that `entry` is.
///
/// # Errors
/// Why it cannot be, in one line.
pub(in crate::policy) fn fill_in(
    entry: &Entry,
    blank: &Blank,
    scope: &Scope<'_>,
    options: &LoadOptions,
    budget: &mut Budget,
) -> Result<Arc<Entry>, String> {
    let element = blank.form.fill(scope, budget).map_err(|cause| cause.to_string())?;
    // The fingerprint of the form holds what else the entry is made of: its rule, and what its conditions
    // know of this very pull.
    let make = || {
        let mut loader = Loader::new(options);
        loader.file.clone_from(&blank.file);
        let filled = loader.element(0, &element).and_then(|yaml| loader.entry(0, &blank.place, &yaml));
        match (filled, loader.errors.first()) {
            (Some(filled), None) => Ok(entry.filled_in(filled)),
            (_, Some(error)) => Err(error.message.clone()),
            (None, None) => Err("it is not an element".to_owned()),
        }
    };
    // What images hold is of any size, and another for each image: it is not kept.
    if entry.reads.registries {
        return make().map(Arc::new);
    }
    blank.kept(&format!("{} {} {element}", entry.rule, entry.fingerprint), make)
}

/// What is found, and where.
struct Fields<'a> {
    line: u64,
    place: &'a str,
    fields: Vec<Field>,
}

/// Whether the keys of an object are Kyverno's or the author's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Element,
    Map,
}

/// What the text of a field is.
fn meaning(field: &str, inside: Inside) -> (Usage, Inside) {
    let usage = match field {
        "key" | "publicKeys" | "pubkey" | "pubKey" => Usage::Keys,
        "cert" | "certChain" | "roots" | "tsaCertChain" => Usage::Certificates,
        "url" => Usage::Address,
        "subject" | "issuer" => Usage::Pattern,
        "subjectRegExp" | "issuerRegExp" => Usage::Regexp,
        "additionalExtensions" => return (Usage::Pattern, Inside::Map),
        "annotations" => return (Usage::Text, Inside::Map),
        _ => Usage::Text,
    };
    (usage, inside)
}

/// Where variables are filled in. Which images an element is about, and what happens when it fails, is known
/// before there is a pull.
const WITH_VARIABLES: [&str; 9] = [
    "attestors",
    "attestations",
    "repository",
    "key",
    "issuer",
    "subject",
    "roots",
    "annotations",
    "additionalExtensions",
];
/// Fields below them that are numbers and switches.
const NOT_TEXT: [&str; 3] = ["count", "ignoreTlog", "ignoreSCT"];
/// What below them has variables of its own, or none.
const UNTOUCHED: [&str; 3] = ["conditions", "name", "signatureAlgorithm"];

/// The fields of an element that are texts and are not written as such. An element with variables is put
/// together from a document without types, which reads `1.10` as a number and would ask for `1.1`.
fn scalars(raw: &Value) -> Vec<String> {
    fn look(value: &Value, pointer: &str, key: &str, inside: Inside, found: &mut Vec<String>) {
        match value {
            Value::Number(_) | Value::Bool(_) | Value::Null => {
                if inside == Inside::Map || !NOT_TEXT.contains(&key) {
                    found.push(pointer.to_owned());
                }
            }
            Value::String(_) => {}
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    look(item, &format!("{pointer}/{index}"), key, inside, found);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    // The values of conditions have types of their own.
                    if inside == Inside::Element && key == "conditions" {
                        continue;
                    }
                    let inside = if inside == Inside::Map { inside } else { meaning(key, inside).1 };
                    let step = key.replace('~', "~0").replace('/', "~1");
                    look(member, &format!("{pointer}/{step}"), key, inside, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    for name in WITH_VARIABLES {
        if let Some(value) = raw.get(name) {
            let inside = meaning(name, Inside::Element).1;
            look(value, &format!("/{name}"), name, inside, &mut found);
        }
    }
    found
}

/// Every text in `value` that holds variables.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.contains("{{") => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(members) => {
            let keys = members.keys().filter(|key| key.contains("{{")).cloned();
            keys.chain(members.values().flat_map(texts)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
