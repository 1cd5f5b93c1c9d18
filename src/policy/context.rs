//! What expressions can read while one image is judged.
//!
//! | name | what it is |
//! |---|---|
//! | `image` | the reference, as Kyverno reads it: what was asked for, so `digest` is empty where it carries none |
//! | `images` | the same as `images.containers.container`: a pull does not say which container it is for. In `pullgate apply` all images of the resource, by their lists and names |
//! | `request` | an admission of the pod, as far as a pull tells of it: `operation` is CREATE; `namespace`, and `object` with apiVersion, kind, metadata and one container. In `pullgate apply` the object is the resource |
//! | names of attestations | the predicate, once its attestation is satisfied |
//! | names of the rule's `context` | as the rule says |
//! | anything else | a field of the predicate that is judged, if one is |
//!
//! The first that has a name wins. Upstream merges the predicate over everything; here a predicate
//! cannot replace what is known of the image, the pod or another attestation. What a node does not know
//! (who asked, the rest of the pod, the old object) is not there, and reading it is an error.
//! Semantics: Kyverno 1.19 (`pkg/engine/context`), "Variables" of its documentation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::PodFacts;
use super::extract::Extractors;
use super::jmespath::{Names, Reads, Scope};
use super::pods::PodFactsRead;
use super::resource::{Resource, View};
use super::rule_context::Values;
use crate::oci::Reference;

/// Everything but the predicate that is judged.
#[derive(Debug, Clone)]
pub(super) struct Context {
    image: Value,
    images: Value,
    request: Value,
    attestations: BTreeMap<String, Value>,
    variables: Values,
    now: SystemTime,
}

impl Context {
    /// What is known before any evidence. Of a resource, `extractors` say which images it names.
    pub(super) fn new(
        reference: &Reference,
        pod: &PodFacts,
        view: View,
        extractors: &Extractors,
        now: SystemTime,
    ) -> Self {
        let images = match &pod.resource {
            Some(resource) => images(resource, extractors, reference),
            None => {
                json!({ "containers": { CONTAINER: listed(reference, "/spec/containers/0/image") } })
            }
        };
        Self {
            image: Value::Object(image(reference)),
            images,
            request: request(reference, pod, view),
            attestations: BTreeMap::new(),
            variables: Values::new(),
            now,
        }
    }

    /// Makes a predicate known under the name of its attestation.
    pub(super) fn attestation(&mut self, name: &str, predicate: Value) {
        self.attestations.insert(name.to_owned(), predicate);
    }

    /// Takes what is known under the name of an attestation away.
    pub(super) fn forget(&mut self, name: &str) -> Option<Value> {
        self.attestations.remove(name)
    }

    /// What is known of an attestation, by name.
    pub(super) fn predicate(&self, name: &str) -> Option<&Value> {
        self.attestations.get(name)
    }

    /// Makes a name of the rule's context known.
    pub(super) fn variable(&mut self, name: &str, value: Arc<Value>) {
        self.variables.insert(name.to_owned(), value);
    }

    /// The names of the rule's context with their values.
    pub(super) const fn variables(&self) -> &Values {
        &self.variables
    }

    /// What an expression starts from. The fields of `predicate` are weaker than all else.
    pub(super) fn scope<'a>(&'a self, predicate: Option<&'a Map<String, Value>>) -> Scope<'a> {
        let mut scope = Scope::new(self.now)
            .name("image", &self.image)
            .name("images", &self.images)
            .name("request", &self.request);
        for (name, value) in &self.attestations {
            scope = scope.name(name, value);
        }
        for (name, value) in &self.variables {
            scope = scope.name(name, value);
        }
        match predicate {
            Some(predicate) => scope.object(predicate),
            None => scope,
        }
    }
}

/// Names that always stand for what this module puts there.
pub(super) const RESERVED: [&str; 3] = ["image", "images", "request"];

/// Names that upstream knows at admission and a node does not. A predicate must not stand in for them.
pub(super) const UNKNOWN: [&str; 2] = ["serviceAccountName", "serviceAccountNamespace"];

/// The facts beside repository and digest on which an expression with these reads may depend (rule C1).
pub(super) fn facts(reads: &Reads) -> PodFactsRead {
    let reads = |name: &str| match &reads.names {
        Names::Only(names) => names.contains(name),
        Names::Everything => true,
    };
    if reads("request") {
        PodFactsRead::all()
    } else {
        PodFactsRead { reference: reads("image") || reads("images"), ..PodFactsRead::default() }
    }
}

/// Kyverno's parts of a reference.
fn image(reference: &Reference) -> Map<String, Value> {
    let digest = reference.digest().map(|digest| digest.to_string()).unwrap_or_default();
    let tag = reference.tag().unwrap_or_default();
    let [name, _] = reference.names();
    let (registry, path) = name.split_once('/').unwrap_or(("", &name));
    let last = path.rsplit('/').next().unwrap_or(path);
    let parts = [
        ("reference", reference.kyverno_form()),
        ("referenceWithTag", format!("{name}:{tag}")),
        ("registry", registry.to_owned()),
        ("path", path.to_owned()),
        ("name", last.to_owned()),
        ("tag", tag.to_owned()),
        ("digest", digest),
    ];
    parts.into_iter().map(|(part, text)| (part.to_owned(), Value::String(text))).collect()
}

/// An image as one of a list: what is empty is not there.
fn listed(reference: &Reference, pointer: &str) -> Value {
    let mut parts = image(reference);
    parts.retain(|_, part| part != "");
    parts.insert("jsonPointer".to_owned(), json!(pointer));
    Value::Object(parts)
}

/// The images of a resource, by list and name: those in the built-in places of its kind and, as upstream
/// adds them, those that the rule's extractors find. The one that is judged stands there as `judged` is
/// written. Where it cannot be told which there are, there are none, and the rule has an error of its own.
fn images(resource: &Resource, extractors: &Extractors, judged: &Reference) -> Value {
    let name = judged.normalised_form();
    let mut lists: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for image in [resource.images(), extractors.images(resource)].into_iter().flatten().flatten() {
        let same = image.reference.normalised_form() == name;
        let reference = if same { judged } else { &image.reference };
        lists.entry(image.group).or_default().insert(image.key, listed(reference, &image.pointer));
    }
    json!(lists)
}

/// The admission request for the resource, or for a pod with this one container.
fn request(reference: &Reference, pod: &PodFacts, view: View) -> Value {
    let object = match &pod.resource {
        Some(resource) => resource.seen(view),
        None => json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(pod),
            "spec": { "containers": [{ "image": reference.text() }] },
        }),
    };
    let mut request = json!({ "operation": "CREATE", "object": object });
    if let (Some(request), Some(namespace)) = (request.as_object_mut(), &pod.namespace) {
        request.insert("namespace".to_owned(), json!(namespace));
    }
    request
}

fn metadata(pod: &PodFacts) -> Map<String, Value> {
    let mut metadata = Map::new();
    for (field, fact) in [("name", &pod.name), ("namespace", &pod.namespace)] {
        if let Some(fact) = fact {
            metadata.insert(field.to_owned(), json!(fact));
        }
    }
    for (field, pairs) in [("labels", &pod.labels), ("annotations", &pod.annotations)] {
        if !pairs.is_empty() {
            metadata.insert(field.to_owned(), json!(pairs));
        }
    }
    metadata
}

/// Stands for the name of the container.
const CONTAINER: &str = "container";

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
