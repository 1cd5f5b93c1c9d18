//! A Kubernetes object whose images are judged before anything pulls them (`pullgate apply`).
//!
//! Only what decides is checked: it is an object with an API version and a kind, and its metadata has
//! the shapes that the API server would accept. The rest is read where a rule points at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::PodFacts;
use super::kinds::PodController;

/// One Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    api_version: String,
    kind: String,
    object: Value,
}

/// Why a value is not a Kubernetes object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A list, a text, a number.
    #[error("not a Kubernetes object: a map with apiVersion and kind is expected")]
    NotAnObject,
    /// A field that must be there is missing, or is not a text.
    #[error("{0} is missing or not a text")]
    Text(&'static str),
    /// A field has another shape than the API server accepts.
    #[error("{0} must map texts to texts; put numbers and booleans in quotes")]
    Texts(&'static str),
}

/// Which object a rule's variables read as `request.object`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// The object itself.
    #[default]
    Whole,
    /// The pod that a controller makes: its metadata and spec are those of the template.
    Template,
}

impl Resource {
    /// Takes an object as it is written.
    ///
    /// # Errors
    /// [`ResourceError`] where no API server would take it.
    pub fn new(object: Value) -> Result<Self, ResourceError> {
        let members = object.as_object().ok_or(ResourceError::NotAnObject)?;
        let text = |field| match members.get(field).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            Some(_) | None => Err(ResourceError::Text(field)),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        if let Some(metadata) = members.get("metadata").filter(|metadata| !metadata.is_null()) {
            let metadata = metadata.as_object().ok_or(ResourceError::Texts("metadata"))?;
            for (field, path) in [
                ("name", "metadata.name"),
                ("generateName", "metadata.generateName"),
                ("namespace", "metadata.namespace"),
            ] {
                if metadata.get(field).is_some_and(|value| !(value.is_null() || value.is_string())) {
                    return Err(ResourceError::Text(path));
                }
            }
            texts(metadata, "labels", "metadata.labels")?;
            texts(metadata, "annotations", "metadata.annotations")?;
        }
        Ok(Self { api_version, kind, object })
    }

    /// Its API version, `group/version` or `version`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole object.
    #[must_use]
    pub const fn object(&self) -> &Value {
        &self.object
    }

    /// The object as a rule's variables see it.
    #[must_use]
    pub fn seen(&self, view: View) -> Value {
        let template = PodController::named(&self.kind)
            .filter(|_| view == View::Template)
            .and_then(|controller| self.object.pointer(controller.template()));
        let Some(template) = template else { return self.object.clone() };
        let mut object = self.object.clone();
        for field in ["metadata", "spec"] {
            if let Some(members) = object.as_object_mut() {
                members.insert(field.to_owned(), template.get(field).cloned().unwrap_or_default());
            }
        }
        object
    }

    /// What `match` and `exclude` read of it; `namespace` is where it goes if it does not say.
    #[must_use]
    pub fn facts(self, namespace: &str) -> PodFacts {
        let text = |field: &str| {
            let value = self.object.pointer(field).and_then(Value::as_str);
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let pairs = |field: &str| {
            let members = self.object.pointer(field).and_then(Value::as_object);
            let pairs = members.into_iter().flatten();
            pairs
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<BTreeMap<_, _>>()
        };
        PodFacts {
            namespace: Some(text("/metadata/namespace").unwrap_or_else(|| namespace.to_owned())),
            name: Some(text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default()),
            labels: pairs("/metadata/labels"),
            annotations: pairs("/metadata/annotations"),
            resource: Some(Arc::new(self)),
        }
    }
}

fn texts(metadata: &Map<String, Value>, field: &str, path: &'static str) -> Result<(), ResourceError> {
    match metadata.get(field) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(members)) if members.values().all(Value::is_string) => Ok(()),
        Some(_) => Err(ResourceError::Texts(path)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refuses_what_no_api_server_takes() {
        for (object, error) in [
            (json!([]), "not a Kubernetes object: a map with apiVersion and kind is expected"),
            (json!("text"), "not a Kubernetes object: a map with apiVersion and kind is expected"),
            (json!({ "apiVersion": "v1" }), "kind is missing or not a text"),
            (json!({ "kind": "Pod" }), "apiVersion is missing or not a text"),
            (json!({ "kind": "Pod", "apiVersion": 1 }), "apiVersion is missing or not a text"),
            (json!({ "kind": "", "apiVersion": "v1" }), "kind is missing or not a text"),
            (
                json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "labels": { "a": 1 } } }),
                "metadata.labels must map texts to texts; put numbers and booleans in quotes",
            ),
            (
                json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "annotations": ["a"] } }),
                "metadata.annotations must map texts to texts; put numbers and booleans in quotes",
            ),
            (
                json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": 1 } }),
                "metadata.name is missing or not a text",
            ),
        ] {
            assert_eq!(Resource::new(object.clone()).unwrap_err().to_string(), error, "{object}");
        }
    }

    #[test]
    fn match_reads_its_metadata() {
        let object = json!({ "kind": "Job", "apiVersion": "batch/v1", "metadata": {
            "generateName": "run-", "labels": { "a": "b" }, "annotations": null } });
        let facts = Resource::new(object.clone()).unwrap().facts("default");
        let expected = PodFacts {
            namespace: Some("default".into()),
            name: Some("run-".into()),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            annotations: BTreeMap::new(),
            resource: Some(Arc::new(Resource::new(object).unwrap())),
        };
        assert_eq!(facts, expected);
        let named =
            json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "a", "namespace": "b" } });
        let facts = Resource::new(named).unwrap().facts("default");
        assert_eq!((facts.namespace.as_deref(), facts.name.as_deref()), (Some("b"), Some("a")));
    }

    #[test]
    fn a_controller_is_seen_as_the_pod_it_makes() {
        let pod = json!({ "metadata": { "labels": { "app": "x" } }, "spec": { "containers": [] } });
        let seen = |api_version: &str, kind: &str, spec: Value, view| {
            let object =
                json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "a" }, "spec": spec });
            let seen = Resource::new(object).unwrap().seen(view);
            (seen["metadata"].clone(), seen["spec"].clone())
        };
        let template = (pod["metadata"].clone(), pod["spec"].clone());
        let deployment = json!({ "replicas": 1, "template": pod });
        assert_eq!(seen("apps/v1", "Deployment", deployment.clone(), View::Template), template);
        assert_eq!(
            seen("apps/v1", "Deployment", deployment.clone(), View::Whole),
            (json!({ "name": "a" }), deployment)
        );
        let cron_job = json!({ "jobTemplate": { "spec": { "template": pod } } });
        assert_eq!(seen("batch/v1", "CronJob", cron_job, View::Template), template);
        let other = json!({ "template": pod });
        assert_eq!(seen("v1", "Other", other.clone(), View::Template), (json!({ "name": "a" }), other));
    }
}
