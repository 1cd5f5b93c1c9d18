//! Files of Kubernetes resources, and digests written back into them.
//!
//! A file holds documents separated by `---`; a `List`, or a typed list as `PodList`, holds resources as
//! its items. Digests are put into the text as it was written, so that order, comments and quoting
//! stay. The edited text is read again and compared with what is wanted: where it does not say
//! exactly that (an alias, a text over several lines), the document is written anew as JSON, which
//! is YAML, and its comments and order are lost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::load::{PolicySource, Remark, Severity, documents, yaml_error};
use super::resource::Resource;

/// One document of a file of resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    file: PathBuf,
    line: u64,
    /// With as many empty lines before it as it has in its file.
    text: String,
    value: Value,
    resources: Vec<Placed>,
}

/// A resource in its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Where it is, as a JSON pointer; empty for the document itself.
    pub pointer: String,
    /// The resource.
    pub resource: Resource,
}

impl Manifest {
    /// Reads the documents of one file; empty ones are left out.
    ///
    /// # Errors
    /// What is not YAML, or not a resource, each with its line.
    pub fn read(source: &PolicySource) -> Result<Vec<Self>, Vec<Remark>> {
        let (mut manifests, mut errors) = (Vec::new(), Vec::new());
        for text in documents(&source.text) {
            match Self::document(source, text) {
                Ok(manifest) => manifests.extend(manifest),
                Err((line, message)) => {
                    errors.push(Remark {
                        file: source.file.clone(),
                        line,
                        severity: Severity::Error,
                        message,
                    });
                }
            }
        }
        if errors.is_empty() { Ok(manifests) } else { Err(errors) }
    }

    fn document(source: &PolicySource, text: String) -> Result<Option<Self>, (u64, String)> {
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| yaml_error(&error))?;
        let mut read = read.into_iter();
        // What is only comments is no document.
        let Some(value) = read.next() else { return Ok(None) };
        let marked = |line: &str| !line.is_empty() && !line.starts_with("---") && !line.starts_with('#');
        let line = text.lines().position(marked).map_or(0, |at| u64::try_from(at + 1).unwrap_or(0));
        if read.next().is_some() {
            return Err((line, "several documents that are not separated by a line `---`".to_owned()));
        }
        let resources = placed(&value).map_err(|message| (line, message))?;
        Ok(Some(Self { file: source.file.clone(), line, text, value, resources }))
    }

    /// Its file.
    #[must_use]
    pub const fn file(&self) -> &PathBuf {
        &self.file
    }

    /// The line it begins in, from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// Its resources: itself, or the items of a list.
    #[must_use]
    pub fn resources(&self) -> &[Placed] {
        &self.resources
    }

    /// The document as YAML, with each text at a pointer of `changes` replaced.
    #[must_use]
    pub fn with(&self, changes: &BTreeMap<String, String>) -> String {
        let mut wanted = self.value.clone();
        for (pointer, text) in changes {
            if let Some(place) = wanted.pointer_mut(pointer) {
                *place = Value::String(text.clone());
            }
        }
        let says_so = |text: &String| serde_saphyr::from_str::<Value>(text).is_ok_and(|read| read == wanted);
        match self.edited(changes).filter(says_so) {
            Some(text) => separate(&text),
            // A value of serde_json has a text, always.
            None => format!("---\n{wanted:#}\n"),
        }
    }

    fn edited(&self, changes: &BTreeMap<String, String>) -> Option<String> {
        if changes.is_empty() {
            return Some(self.text.clone());
        }
        let root: Spanned<Node> = serde_saphyr::from_str(&self.text).ok()?;
        let mut edits = Vec::new();
        for (pointer, new) in changes {
            let node = pointer.split('/').skip(1).try_fold(&root, |node, part| node.value.below(part))?;
            let old = self.value.pointer(pointer)?.as_str()?;
            let start = usize::try_from(node.referenced.span().byte_offset()?).ok()?;
            let rest = self.text.get(start..)?;
            let quote = ["", "\"", "'"]
                .into_iter()
                .find(|quote| rest.starts_with(&format!("{quote}{old}{quote}")))?;
            edits.push((start + quote.len(), old.len(), new));
        }
        edits.sort_unstable_by(|left, right| right.cmp(left));
        let mut text = self.text.clone();
        for (start, length, new) in edits {
            text.replace_range(start..start + length, new);
        }
        Some(text)
    }
}

/// The resources of a document.
fn placed(value: &Value) -> Result<Vec<Placed>, String> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let items = value.get("items").and_then(Value::as_array);
    let (Some(of), Some(items)) = (kind.strip_suffix("List"), items) else {
        let resource = Resource::new(value.clone()).map_err(|error| error.to_string())?;
        return Ok(vec![Placed { pointer: String::new(), resource }]);
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let mut item = item.clone();
        if let (Some(members), false) = (item.as_object_mut(), of.is_empty()) {
            inherit(members, "kind", Some(Value::String(of.to_owned())));
            inherit(members, "apiVersion", value.get("apiVersion").cloned());
        }
        let resource = Resource::new(item).map_err(|error| format!("items[{index}]: {error}"))?;
        if resource.kind().ends_with("List") && resource.object().get("items").is_some() {
            return Err(format!("items[{index}]: a list inside a list is not read; take it out"));
        }
        found.push(Placed { pointer: format!("/items/{index}"), resource });
    }
    Ok(found)
}

/// The items of a typed list leave out what the list says.
fn inherit(item: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    if let (None, Some(value)) = (item.get(field), value) {
        item.insert(field.to_owned(), value);
    }
}

/// A document with the mark that separates it from the one before.
fn separate(text: &str) -> String {
    let text = text.trim_start_matches('\n');
    if text.starts_with("---") { text.to_owned() } else { format!("---\n{text}") }
}

/// A document with the place of each of its values.
enum Node {
    Text,
    List(Vec<Spanned<Self>>),
    Map(BTreeMap<String, Spanned<Self>>),
}

impl Node {
    fn below(&self, part: &str) -> Option<&Spanned<Self>> {
        match self {
            Self::Text => None,
            Self::List(elements) => elements.get(part.parse::<usize>().ok()?),
            Self::Map(members) => members.get(&part.replace("~1", "/").replace("~0", "~")),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(yaml: D) -> Result<Self, D::Error> {
        yaml.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty,)*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> { Ok(Node::Text) })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str, }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Text)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Text)
    }

    fn visit_some<D: Deserializer<'de>>(self, yaml: D) -> Result<Node, D::Error> {
        Node::deserialize(yaml)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            members.insert(key, value);
        }
        Ok(Node::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Manifest>, Vec<String>> {
        Manifest::read(&PolicySource { file: "r.yaml".into(), text: text.to_owned() })
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn changed(text: &str, changes: &[(&str, &str)]) -> String {
        let changes = changes.iter().map(|(at, new)| ((*at).to_owned(), (*new).to_owned())).collect();
        read(text).unwrap().iter().map(|manifest| manifest.with(&changes)).collect()
    }

    #[test]
    fn a_file_holds_documents_and_lists() {
        let text = "# only a comment\n---\napiVersion: v1\nkind: Pod\n---\n# nothing\n--- # a list\n{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n  {\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\"},\n  {\"apiVersion\": \"v1\", \"kind\": \"Service\"}]}\n---\nkind: PodList\napiVersion: v1\nitems: [{metadata: {name: a}}]\n";
        let found: Vec<_> = read(text)
            .unwrap()
            .iter()
            .map(|manifest| {
                let resources: Vec<_> = manifest
                    .resources()
                    .iter()
                    .map(|placed| format!("{}={}", placed.pointer, placed.resource.kind()))
                    .collect();
                (manifest.line(), resources.join(" "))
            })
            .collect();
        let expected = [(3, "=Pod"), (8, "/items/0=Deployment /items/1=Service"), (12, "/items/0=Pod")];
        assert_eq!(found, expected.map(|(line, resources)| (line, resources.to_owned())));
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_no_resource_is_said_with_its_line() {
        for (text, expected) in [
            ("kind: Pod\n", "r.yaml:1: apiVersion is missing or not a text"),
            (
                "apiVersion: v1\n---\napiVersion: v1\nkind: Pod\n---\n\nspec: {}\n",
                "r.yaml:1: kind is missing or not a text|r.yaml:7: apiVersion is missing or not a text",
            ),
            ("just text\n", "r.yaml:1: not a Kubernetes object: a map with apiVersion and kind is expected"),
            (
                "apiVersion: v1\nkind: List\nitems: [{kind: Pod}]\n",
                "r.yaml:1: items[0]: apiVersion is missing or not a text",
            ),
            (
                "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]\n",
                "r.yaml:1: items[0]: a list inside a list is not read; take it out",
            ),
            (
                "apiVersion: v1\nkind: Pod\nkind: Pod\n",
                "r.yaml:3: duplicate mapping key: kind at line 3, column 1",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().join("|"), expected, "{text:?}");
        }
        let broken = read("apiVersion: v1\nkind: [\n").unwrap_err();
        assert!(broken[0].starts_with("r.yaml:"), "{broken:?}");
    }

    #[test]
    fn digests_are_put_into_the_text_as_it_is() {
        let text = "apiVersion: v1 # first\nkind: Pod\nmetadata: {name: é}\nspec:\n  # the app\n  containers:\n  - name: a\n    image: a.io/b:1   # comment\n  - {image: \"a.io/c:1\", name: b}\n  - image: 'a.io/d:1'\n";
        let changes = [
            ("/spec/containers/0/image", "a.io/b:1@sha256:00"),
            ("/spec/containers/1/image", "a.io/c:1@sha256:11"),
            ("/spec/containers/2/image", "a.io/d:1@sha256:22"),
        ];
        let expected = format!("---\n{text}")
            .replace("a.io/b:1", "a.io/b:1@sha256:00")
            .replace("a.io/c:1", "a.io/c:1@sha256:11")
            .replace("a.io/d:1", "a.io/d:1@sha256:22");
        assert_eq!(changed(text, &changes), expected);
        let second = format!("---\napiVersion: v1\nkind: Service\n--- # kept\n{text}");
        let found = read(&second).unwrap();
        let changes = changes.iter().map(|(at, new)| ((*at).to_owned(), (*new).to_owned())).collect();
        assert_eq!(found[0].with(&BTreeMap::new()), "---\napiVersion: v1\nkind: Service\n");
        assert_eq!(found[1].with(&changes), expected.replacen("---\n", "--- # kept\n", 1));
    }

    #[test]
    fn json_and_escaped_keys_are_edited_too() {
        let text = "{\"apiVersion\": \"v1\", \"kind\": \"X\", \"a/b~c\": [{\"image\": \"x:1\"}]}\n";
        let edited = changed(text, &[("/a~1b~0c/0/image", "x:1@sha256:00")]);
        assert_eq!(edited, format!("---\n{}", text.replace("x:1", "x:1@sha256:00")));
    }

    #[test]
    fn what_cannot_be_edited_is_written_anew() {
        let both = [("/a", "x:1@sha256:00"), ("/b", "x:1@sha256:00")];
        for (text, changes) in [
            ("apiVersion: v1\nkind: X\na: &image x:1\nb: *image\n", &both[1..]),
            ("apiVersion: v1\nkind: X\na: &image x:1\nb: *image\n", &both[..1]),
            ("apiVersion: v1\nkind: X\na: |-\n  x:1\nb: 2\n", &both[..1]),
            ("apiVersion: v1\nkind: X\na: \"x\\u003a1\"\n", &both[..1]),
            (
                "apiVersion: v1\nkind: X\nbase: &base {b: x:1}\nc: {<<: *base}\n",
                &[("/c/b", "x:1@sha256:00")][..],
            ),
        ] {
            let edited = changed(text, changes);
            let mut wanted: Value = serde_saphyr::from_str(text).unwrap();
            for (at, new) in changes {
                *wanted.pointer_mut(at).unwrap() = Value::String((*new).to_owned());
            }
            assert_eq!(serde_saphyr::from_str::<Value>(&edited).unwrap(), wanted, "{text:?}: {edited}");
        }
    }
}
