//! What expressions see of a pull.

use serde_json::json;

use super::*;
use crate::policy::extract::Extractor;
use crate::policy::jmespath::{Budget, Expression};
use crate::policy::resource::Resource;

fn context(reference: &str, pod: &PodFacts) -> Context {
    with(reference, pod, View::Template, &Extractors::default())
}

fn with(reference: &str, pod: &PodFacts, view: View, extractors: &Extractors) -> Context {
    Context::new(&Reference::parse(reference).unwrap(), pod, view, extractors, SystemTime::UNIX_EPOCH)
}

fn read(context: &Context, predicate: &Value, text: &str) -> Result<Value, String> {
    let scope = context.scope(predicate.as_object());
    let expression = Expression::parse(text).unwrap();
    let found = expression.search(&scope, &mut Budget::of_verdict());
    found.map(std::borrow::Cow::into_owned).map_err(|error| error.to_string())
}

#[test]
fn the_image_is_what_was_asked_for() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = |text: &str| {
        let context = context(text, &PodFacts::default());
        (read(&context, &json!({}), "image").unwrap(), read(&context, &json!({}), "images").unwrap())
    };
    let listed = |image: &Value| {
        let parts = image.as_object().unwrap().clone().into_iter().filter(|(_, part)| part != "");
        let mut image: Map<_, _> = parts.collect();
        image.insert("jsonPointer".into(), json!("/spec/containers/0/image"));
        json!({ "containers": { "container": image } })
    };
    for (text, reference, with_tag, registry, path, name, tag, digest) in [
        (
            "nginx",
            "docker.io/nginx:latest",
            "docker.io/nginx:latest",
            "docker.io",
            "nginx",
            "nginx",
            "latest",
            "",
        ),
        (
            "ghcr.io/org/team/app:v1",
            "ghcr.io/org/team/app:v1",
            "ghcr.io/org/team/app:v1",
            "ghcr.io",
            "org/team/app",
            "app",
            "v1",
            "",
        ),
        (
            &format!("localhost:5000/a@{digest}"),
            &format!("localhost:5000/a@{digest}"),
            "localhost:5000/a:",
            "localhost:5000",
            "a",
            "a",
            "",
            &digest,
        ),
        (
            &format!("r.test/a:1@{digest}"),
            &format!("r.test/a@{digest}"),
            "r.test/a:1",
            "r.test",
            "a",
            "a",
            "1",
            &digest,
        ),
    ] {
        let expected = json!({
            "reference": reference, "referenceWithTag": with_tag, "registry": registry, "path": path,
            "name": name, "tag": tag, "digest": digest,
        });
        let (one, all) = image(text);
        assert_eq!(one, expected, "{text}");
        assert_eq!(all, listed(&expected), "{text}");
    }
}

#[test]
fn the_request_is_what_a_pull_tells_of_the_pod() {
    let pod = PodFacts {
        namespace: Some("prod".into()),
        name: Some("web-0".into()),
        labels: [("app".into(), "web".into())].into(),
        annotations: [("note".into(), "x".into())].into(),
        resource: None,
    };
    let metadata = json!({ "name": "web-0", "namespace": "prod", "labels": { "app": "web" }, "annotations": { "note": "x" } });
    let object = |metadata: Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [{ "image": "nginx:1" }] } });
    let request = |pod: &PodFacts| read(&context("nginx:1", pod), &json!({}), "request").unwrap();
    assert_eq!(
        request(&pod),
        json!({ "operation": "CREATE", "namespace": "prod", "object": object(metadata) })
    );
    assert_eq!(request(&PodFacts::default()), json!({ "operation": "CREATE", "object": object(json!({})) }));
}

#[test]
fn the_request_of_a_resource_is_about_the_resource() {
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "nginx:1" }] } });
    let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": { "template": template } });
    let pod = Resource::new(object.clone()).unwrap().facts("prod");
    let request = |view: View| {
        let context = with("nginx:1", &pod, view, &Extractors::default());
        read(&context, &json!({}), "request").unwrap()
    };
    assert_eq!(request(View::Whole), json!({ "operation": "CREATE", "namespace": "prod", "object": object }));
    let seen = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": template["metadata"], "spec": template["spec"] });
    assert_eq!(request(View::Template)["object"], seen);
}

#[test]
fn what_is_known_is_stronger_than_a_predicate() {
    let mut context = context("nginx", &PodFacts::default());
    context.attestation("sbom", json!({ "id": "real" }));
    let forged = json!({ "image": 1, "images": 1, "request": 1, "sbom": { "id": "forged" }, "own": 1 });
    let read = |context: &Context, text: &str| read(context, &forged, text);
    assert_eq!(read(&context, "image.name"), Ok(json!("nginx")));
    assert_eq!(read(&context, "images.containers.container.name"), Ok(json!("nginx")));
    assert_eq!(read(&context, "request.operation"), Ok(json!("CREATE")));
    assert_eq!(read(&context, "sbom.id"), Ok(json!("real")));
    assert_eq!(read(&context, "own"), Ok(json!(1)));
    assert_eq!(context.forget("sbom"), Some(json!({ "id": "real" })));
    assert_eq!(read(&context, "sbom.id"), Ok(json!("forged")));
    assert_eq!(
        read(&context, "element"),
        Err("JMESPath query failed: Unknown key \"element\" in path".to_owned())
    );
}

#[test]
fn the_images_of_a_resource_are_all_that_it_names() {
    let images = |api_version: &str, kind: &str, rest: Value, judged: &str, extractors: &Extractors| {
        let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "d" } });
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let pod = Resource::new(object).unwrap().facts("prod");
        read(&with(judged, &pod, View::Template, extractors), &json!({}), "images").unwrap()
    };
    let image = |registry: &str, path: &str, name: &str, tag: &str, pointer: &str| {
        let reference = format!("{registry}/{path}:{tag}");
        json!({ "reference": reference, "referenceWithTag": reference, "registry": registry, "path": path,
                "name": name, "tag": tag, "jsonPointer": pointer })
    };
    let pod = json!({
        "initContainers": [{ "name": "init", "image": "ghcr.io/org/init:1" }],
        "containers": [{ "name": "app", "image": "nginx" }, { "name": "none" }],
    });
    let none = Extractors::default();
    let template = json!({ "spec": { "template": { "spec": pod } } });
    let of_deployment = images("apps/v1", "Deployment", template, "nginx", &none);
    let nginx = image("docker.io", "nginx", "nginx", "latest", "/spec/template/spec/containers/0/image");
    let init = image("ghcr.io", "org/init", "init", "1", "/spec/template/spec/initContainers/0/image");
    assert_eq!(of_deployment, json!({ "containers": { "app": nginx }, "initContainers": { "init": init } }));
    // Rule M2: what is judged in another form of its name stands there in that form.
    let of_pod = images("v1", "Pod", json!({ "spec": pod }), "docker.io/library/nginx", &none);
    let nginx = image("docker.io", "library/nginx", "nginx", "latest", "/spec/containers/0/image");
    assert_eq!(of_pod["containers"]["app"], nginx);

    let extractors = |kind: &str, path: &[&str], group: &str, key: Option<&str>| {
        let extractor = Extractor {
            group: group.to_owned(),
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            value: "image".to_owned(),
            key: key.map(str::to_owned),
            expression: None,
        };
        Extractors(BTreeMap::from([(kind.to_owned(), vec![extractor])]))
    };
    let steps = json!({ "spec": { "steps": [{ "name": "build", "image": "ghcr.io/org/build:2" }] } });
    for (key, name) in [(Some("name"), "build"), (None, "/spec/steps/0/image")] {
        let of_task = extractors("Task", &["spec", "steps", "*"], "custom", key);
        let found = images("tekton.dev/v1", "Task", steps.clone(), "ghcr.io/org/build:2", &of_task);
        let build = image("ghcr.io", "org/build", "build", "2", "/spec/steps/0/image");
        assert_eq!(found, json!({ "custom": { name: build } }));
    }
    // As upstream: what an extractor finds is added to what its kind has.
    let of_init = extractors("Pod", &["spec", "initContainers", "*"], "init", None);
    let of_pod = images("v1", "Pod", json!({ "spec": pod }), "nginx", &of_init);
    let lists: Vec<_> = of_pod.as_object().unwrap().keys().collect();
    assert_eq!(lists, ["containers", "init", "initContainers"]);
    // What cannot be told is not there.
    let broken = json!({ "spec": { "steps": ["x"] } });
    let of_task = extractors("Task", &["spec", "steps", "*"], "custom", None);
    assert_eq!(images("tekton.dev/v1", "Task", broken, "nginx", &of_task), json!({}));
}
