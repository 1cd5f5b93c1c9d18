//! Which images a resource names: the built-in places of pods and their controllers, and a rule's `imageExtractors`.
//!
//! A rule that lists a kind in `imageExtractors` looks there and nowhere else; of other kinds the
//! built-in places count, and kinds without any hold no images. What is not there holds none; what has
//! another shape than the path expects is an error of the rule, since an image could hide in it. A text
//! of blanks is no image, as upstream; an expression may make an image of another text. Unlike upstream, extractors of one name do not replace each
//! other's images, nor containers of one name each other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;

use super::jmespath::{Budget, Expression, Scope};
use super::kinds::PodController;
use super::resource::Resource;
use crate::oci::{Reference, ReferenceError};

/// One image that a resource names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedImage {
    /// The list it is found in: `containers`, or the extractor's name (`images.<group>` in variables).
    pub group: String,
    /// What tells it from others in that list: the container's name, or the pointer.
    pub key: String,
    /// Where it is written, as a JSON pointer.
    pub pointer: String,
    /// The image.
    pub reference: Reference,
}

/// Why a rule cannot tell which images a resource names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// Something else than a map on the way of a path.
    #[error("invalid image config at {0}: a map is expected")]
    NotAMap(String),
    /// A `*` over something that has no elements.
    #[error("invalid type at {0}: a list or a map is expected")]
    NoElements(String),
    /// The field that tells images apart is missing or not a text.
    #[error("invalid key at {0}: the field `{1}` must be a text")]
    Key(String, String),
    /// The expression has no value on the text.
    #[error("failed to apply jmespath {0}: {1}")]
    Expression(String, String),
    /// The expression makes something else than a text of it.
    #[error("jmespath {0} must produce a string, but produced {1}")]
    NoText(String, Value),
    /// The text is no image reference.
    #[error("invalid image '{0}' ({1})")]
    Image(String, #[source] ReferenceError),
}

/// Where a rule finds images, by kind; empty where it says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Extractors(pub(super) BTreeMap<String, Vec<Extractor>>);

/// One place of a kind in which images are written.
#[derive(Debug, Clone)]
pub(super) struct Extractor {
    pub(super) group: String,
    /// The keys on the way; `*` is every element.
    pub(super) path: Vec<String>,
    /// The field that holds the image.
    pub(super) value: String,
    /// The field that tells images apart; the pointer where there is none.
    pub(super) key: Option<String>,
    /// Makes the image of the text; does not read the time.
    pub(super) expression: Option<Expression>,
}

impl Extractors {
    /// Everything that decides which images are found; none where it is the kind alone.
    pub(super) fn describe(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| format!("{:?}", self.0))
    }

    /// The images of `resource`, in the order of the extractors and then of the resource.
    pub(super) fn images(&self, resource: &Resource) -> Result<Vec<ExtractedImage>, ExtractError> {
        let mut images = Vec::new();
        match self.0.get(resource.kind()) {
            Some(own) => own.iter().try_for_each(|extractor| extractor.images(resource, &mut images))?,
            None => built_in(resource.kind())
                .iter()
                .try_for_each(|extractor| extractor.images(resource, &mut images))?,
        }
        Ok(images)
    }
}

impl Resource {
    /// The images in the built-in places of its kind, whatever any rule says.
    ///
    /// # Errors
    /// [`ExtractError`] where it has another shape than its kind.
    pub fn images(&self) -> Result<Vec<ExtractedImage>, ExtractError> {
        Extractors::default().images(self)
    }
}

/// The lists of containers of a pod, or of a controller's template.
fn built_in(kind: &str) -> Vec<Extractor> {
    let pod = match (kind, PodController::named(kind)) {
        ("Pod", _) => "",
        (_, Some(controller)) => controller.template(),
        (_, None) => return Vec::new(),
    };
    let extractor = |list: &&str| Extractor {
        group: (*list).to_owned(),
        path: pod
            .split('/')
            .filter(|part| !part.is_empty())
            .chain(["spec", list, "*"])
            .map(str::to_owned)
            .collect(),
        value: "image".to_owned(),
        key: Some("name".to_owned()),
        expression: None,
    };
    ["initContainers", "containers", "ephemeralContainers"].iter().map(extractor).collect()
}

impl Extractor {
    fn images(&self, resource: &Resource, found: &mut Vec<ExtractedImage>) -> Result<(), ExtractError> {
        self.descend(resource.object(), &self.path, "", found)
    }

    fn descend(
        &self,
        value: &Value,
        path: &[String],
        pointer: &str,
        found: &mut Vec<ExtractedImage>,
    ) -> Result<(), ExtractError> {
        if value.is_null() {
            return Ok(());
        }
        let Some((first, rest)) = path.split_first() else {
            return self.image(value, pointer, found);
        };
        match (first.as_str(), value) {
            ("*", Value::Array(elements)) => elements.iter().enumerate().try_for_each(|(index, element)| {
                self.descend(element, rest, &format!("{pointer}/{index}"), found)
            }),
            ("*", Value::Object(members)) => members
                .iter()
                .try_for_each(|(key, member)| self.descend(member, rest, &below(pointer, key), found)),
            ("*", Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                Err(ExtractError::NoElements(place(pointer)))
            }
            (key, Value::Object(members)) => members
                .get(key)
                .map_or(Ok(()), |member| self.descend(member, rest, &below(pointer, key), found)),
            (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                Err(ExtractError::NotAMap(place(pointer)))
            }
        }
    }

    fn image(
        &self,
        value: &Value,
        pointer: &str,
        found: &mut Vec<ExtractedImage>,
    ) -> Result<(), ExtractError> {
        let members = value.as_object().ok_or_else(|| ExtractError::NotAMap(place(pointer)))?;
        let own = below(pointer, &self.value);
        let key = match &self.key {
            None => own.clone(),
            Some(field) => match members.get(field).and_then(Value::as_str) {
                Some(key) => key.to_owned(),
                None => return Err(ExtractError::Key(place(pointer), field.clone())),
            },
        };
        // The image may be left out, as in a pod that somebody else completes.
        let text = match members.get(&self.value).and_then(Value::as_str) {
            Some(text) if !text.trim().is_empty() => text,
            Some(_) | None => return Ok(()),
        };
        let text = self.transformed(text)?;
        let reference =
            Reference::parse(&text).map_err(|error| ExtractError::Image(text.into_owned(), error))?;
        found.push(ExtractedImage { group: self.group.clone(), key, pointer: own, reference });
        Ok(())
    }

    /// What the expression makes of the text.
    fn transformed<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, ExtractError> {
        let Some(expression) = &self.expression else { return Ok(Cow::Borrowed(text)) };
        let (value, timeless) = (Value::String(text.to_owned()), Scope::new(SystemTime::UNIX_EPOCH));
        let name = || expression.text().to_owned();
        match expression.search_in(&value, &timeless, &mut Budget::of_verdict()).map(Cow::into_owned) {
            Ok(Value::String(text)) => Ok(Cow::Owned(text)),
            Ok(other) => Err(ExtractError::NoText(name(), other)),
            Err(error) => Err(ExtractError::Expression(name(), error.to_string())),
        }
    }
}

/// A JSON pointer to a member (RFC 6901).
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A pointer for people: the whole object has no name of its own.
fn place(pointer: &str) -> String {
    if pointer.is_empty() { "/".to_owned() } else { pointer.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn extractor(path: &str, value: &str, key: Option<&str>, group: &str) -> Extractor {
        Extractor {
            group: group.to_owned(),
            path: path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            value: value.to_owned(),
            key: key.map(str::to_owned),
            expression: None,
        }
    }

    fn images(extractors: &Extractors, kind: &str, rest: Value) -> Result<Vec<[String; 4]>, String> {
        let mut object = json!({ "apiVersion": "example.dev/v1", "kind": kind });
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let found = extractors.images(&Resource::new(object).unwrap()).map_err(|error| error.to_string())?;
        let line =
            |image: ExtractedImage| [image.group, image.key, image.pointer, image.reference.kyverno_form()];
        Ok(found.into_iter().map(line).collect())
    }

    fn lines(lines: &[[&str; 4]]) -> Result<Vec<[String; 4]>, String> {
        Ok(lines.iter().map(|line| line.map(str::to_owned)).collect())
    }

    #[test]
    fn pods_and_controllers_have_their_images_where_kyverno_finds_them() {
        let pod = json!({
            "initContainers": [{ "name": "init", "image": format!("example.dev:10443/name:tag@{DIGEST}") }],
            "containers": [{ "name": "first", "image": "nginx" }, { "name": "second", "image": "org/app:v1" }],
            "ephemeralContainers": [{ "name": "debug", "image": "index.docker.io/busybox:1" }],
        });
        let under = |prefix: &str| {
            [
                ["initContainers", "init", "initContainers/0", &format!("example.dev:10443/name@{DIGEST}")],
                ["containers", "first", "containers/0", "docker.io/nginx:latest"],
                ["containers", "second", "containers/1", "docker.io/org/app:v1"],
                ["ephemeralContainers", "debug", "ephemeralContainers/0", "index.docker.io/busybox:1"],
            ]
            .map(|[group, key, at, image]| {
                [group.to_owned(), key.to_owned(), format!("{prefix}/{at}/image"), image.to_owned()]
            })
            .to_vec()
        };
        let none = Extractors::default();
        assert_eq!(images(&none, "Pod", json!({ "spec": pod })), Ok(under("/spec")));
        for controller in
            ["DaemonSet", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "Job"]
        {
            let object = json!({ "spec": { "template": { "spec": pod } } });
            assert_eq!(images(&none, controller, object), Ok(under("/spec/template/spec")), "{controller}");
        }
        let object = json!({ "spec": { "jobTemplate": { "spec": { "template": { "spec": pod } } } } });
        assert_eq!(images(&none, "CronJob", object), Ok(under("/spec/jobTemplate/spec/template/spec")));
        for other in ["Task", "PodTemplate", "ConfigMap"] {
            assert_eq!(images(&none, other, json!({ "spec": pod })), Ok(Vec::new()), "{other}");
        }
    }

    #[test]
    fn extractors_find_images_of_custom_kinds() {
        let steps = json!({ "spec": { "steps": [
            { "name": "one", "image": "ubuntu", "args": ["x"] },
            { "image": "gcr.io/org/build", "command": ["echo"] },
        ] } });
        let of = |own: Vec<Extractor>| Extractors(BTreeMap::from([("Task".to_owned(), own)]));
        let by_pointer = of(vec![extractor("/spec/steps/*", "image", None, "custom")]);
        assert_eq!(
            images(&by_pointer, "Task", steps.clone()),
            lines(&[
                ["custom", "/spec/steps/0/image", "/spec/steps/0/image", "docker.io/ubuntu:latest"],
                ["custom", "/spec/steps/1/image", "/spec/steps/1/image", "gcr.io/org/build:latest"],
            ])
        );
        let by_name = of(vec![extractor("/spec/steps/*", "image", Some("name"), "steps")]);
        assert_eq!(
            images(&by_name, "Task", steps.clone()),
            Err("invalid key at /spec/steps/1: the field `name` must be a text".to_owned())
        );
        let only_named = json!({ "spec": { "steps": [{ "name": "one", "image": "ubuntu" }] } });
        assert_eq!(
            images(&by_name, "Task", only_named),
            lines(&[["steps", "one", "/spec/steps/0/image", "docker.io/ubuntu:latest"]])
        );
        // Another kind than the one that is listed.
        assert_eq!(images(&by_name, "TaskRun", steps), Ok(Vec::new()));
    }

    #[test]
    fn a_star_goes_through_lists_and_maps_and_pointers_are_escaped() {
        let of = |path| {
            Extractors(BTreeMap::from([("Kind".to_owned(), vec![extractor(path, "image", None, "c")])]))
        };
        let maps = json!({ "spec": { "b/c~d": { "image": "x:1" }, "a": { "image": "y:1" }, "null": null } });
        assert_eq!(
            images(&of("/spec/*"), "Kind", maps),
            lines(&[
                ["c", "/spec/a/image", "/spec/a/image", "docker.io/y:1"],
                ["c", "/spec/b~1c~0d/image", "/spec/b~1c~0d/image", "docker.io/x:1"],
            ])
        );
        let nested = json!({ "jobs": [{ "steps": { "s": [{ "image": "x:1" }] } }] });
        assert_eq!(
            images(&of("/jobs/*/steps/*/*"), "Kind", nested),
            lines(&[["c", "/jobs/0/steps/s/0/image", "/jobs/0/steps/s/0/image", "docker.io/x:1"]])
        );
        assert_eq!(
            images(&of(""), "Kind", json!({ "image": "x:1" })),
            lines(&[["c", "/image", "/image", "docker.io/x:1"]])
        );
    }

    #[test]
    fn what_is_not_there_holds_no_image_and_another_shape_is_an_error() {
        let of = |path| {
            Extractors(BTreeMap::from([("Kind".to_owned(), vec![extractor(path, "image", None, "c")])]))
        };
        for (path, object, expected) in [
            ("/spec/steps/*", json!({}), Ok(())),
            ("/spec/steps/*", json!({ "spec": null }), Ok(())),
            ("/spec/steps/*", json!({ "spec": { "steps": null } }), Ok(())),
            ("/spec/steps/*", json!({ "spec": { "steps": [{}, { "image": " " }, { "image": 1 }] } }), Ok(())),
            ("/spec/steps/*", json!({ "spec": [] }), Err("invalid image config at /spec: a map is expected")),
            (
                "/spec/steps",
                json!({ "spec": { "steps": [] } }),
                Err("invalid image config at /spec/steps: a map is expected"),
            ),
            (
                "/spec/steps/*",
                json!({ "spec": { "steps": ["x"] } }),
                Err("invalid image config at /spec/steps/0: a map is expected"),
            ),
            (
                "/spec/steps/*",
                json!({ "spec": { "steps": "x" } }),
                Err("invalid type at /spec/steps: a list or a map is expected"),
            ),
            (
                "/spec",
                json!({ "spec": { "image": "A b" } }),
                Err("invalid image 'A b' (`A b` is not an image reference)"),
            ),
        ] {
            let expected = expected.map(|()| Vec::new()).map_err(str::to_owned);
            assert_eq!(images(&of(path), "Kind", object.clone()), expected, "{path} {object}");
        }
        let container = json!({ "spec": { "containers": [{ "image": "x" }] } });
        assert_eq!(
            images(&Extractors::default(), "Pod", container),
            Err("invalid key at /spec/containers/0: the field `name` must be a text".to_owned())
        );
    }

    #[test]
    fn an_expression_makes_an_image_of_another_text() {
        let of = |expression: &str| {
            let expression = Some(Expression::parse(expression).unwrap());
            let own = Extractor { expression, ..extractor("/spec/source/registry", "url", None, "custom") };
            Extractors(BTreeMap::from([("DataVolume".to_owned(), vec![own])]))
        };
        let volume = json!({ "spec": { "source": { "registry": { "url": "docker://kubevirt/fedora" } } } });
        let pointer = "/spec/source/registry/url";
        for (expression, expected) in [
            ("trim_prefix(@, 'docker://')", lines(&[["custom", pointer, pointer, "docker.io/kubevirt/fedora:latest"]])),
            ("length(@)", Err("jmespath length(@) must produce a string, but produced 24".to_owned())),
            ("@.name", Err("jmespath @.name must produce a string, but produced null".to_owned())),
            ("keys(@)", Err("failed to apply jmespath keys(@): JMESPath query failed: Invalid type for: docker://kubevirt/fedora, expected: []jmespath.JpType{\"object\"}".to_owned())),
            ("@", Err("invalid image 'docker://kubevirt/fedora' (`docker://kubevirt/fedora` is not an image reference)".to_owned())),
        ] {
            let found = images(&of(expression), "DataVolume", volume.clone());
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn extractors_and_containers_of_one_name_lose_nothing() {
        let own = vec![extractor("/a", "image", None, "same"), extractor("/b", "image", None, "same")];
        let extractors = Extractors(BTreeMap::from([("Kind".to_owned(), own)]));
        let object = json!({ "a": { "image": "x:1" }, "b": { "image": "y:1" } });
        assert_eq!(images(&extractors, "Kind", object).unwrap().len(), 2);
        let twice = json!({ "spec": { "containers": [{ "name": "a", "image": "x:1" }, { "name": "a", "image": "y:1" }] } });
        assert_eq!(images(&extractors, "Pod", twice).unwrap().len(), 2);
    }
}
