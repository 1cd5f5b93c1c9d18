//! Which pods `match` and `exclude` are about: upstream's tables, as far as a node knows the facts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::tests::{load, none, policy, reference, set};
use super::*;

/// Whether a rule with `resources` in its `match` is about `pod`; with it in `exclude`, it is about the others.
fn fits(resources: &Value, pod: &PodFacts) -> bool {
    let about = |rule: Value| {
        let set = set(&policy(none(), rule, none()));
        !set.matching(&reference("ghcr.io/org/app:v1"), pod, SystemTime::UNIX_EPOCH).is_empty()
    };
    let filter = json!({ "any": [{ "resources": resources }] });
    let matched = about(json!({ "match": filter }));
    assert_eq!(about(json!({ "exclude": filter })), !matched, "exclude {resources}");
    assert_eq!(about(json!({ "match": { "all": filter["any"] } })), matched, "all {resources}");
    assert_eq!(about(json!({ "match": { "resources": resources } })), matched, "{resources}");
    matched
}

fn pairs(pairs: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(pairs.clone()).expect("texts")
}

fn pod() -> PodFacts {
    PodFacts { namespace: Some("default".into()), name: Some("foo".into()), ..PodFacts::default() }
}

#[test]
fn names_are_wildcards() {
    for (resources, expected) in [
        (json!({ "names": ["*"] }), true),
        (json!({ "names": ["foo"] }), true),
        (json!({ "names": ["bar"] }), false),
        (json!({ "names": ["bar", "f?o"] }), true),
        (json!({ "names": [""] }), false),
        (json!({ "name": "f?o" }), true),
        (json!({ "name": "bar" }), false),
        // An empty name asks for nothing.
        (json!({ "name": "", "kinds": ["Pod", "Job"] }), true),
        (json!({ "name": "", "names": ["bar"] }), false),
    ] {
        assert_eq!(fits(&resources, &pod()), expected, "{resources}");
    }
}

#[test]
fn a_filter_with_an_empty_name_alone_is_empty() {
    let rule = json!({ "match": { "any": [{ "resources": { "name": "" } }] } });
    let errors = load(&policy(none(), rule, none())).unwrap_err();
    assert!(errors[0].to_string().ends_with("match has an empty filter"), "{}", errors[0]);
}

#[test]
fn namespaces_are_wildcards() {
    for (patterns, namespace, expected) in [
        (json!(["default"]), "default", true),
        (json!(["production", "staging"]), "default", false),
        (json!(["staging", "production", "development"]), "production", true),
        (json!(["prod-*"]), "prod-us-east", true),
        (json!(["team-*-prod"]), "team-alpha-prod", true),
        (json!(["team-*-prod"]), "team-alpha-dev", false),
        (json!(["dev-*", "test-*", "prod-*"]), "test-environment", true),
        (json!(["staging", "prod-*"]), "development", false),
        (json!(["kube-*"]), "kube-system", true),
        (json!(["*-system"]), "kube-system", true),
        (json!(["kube-*-system"]), "kube-test-system", true),
        (json!(["prod-*"]), "staging-app", false),
        (json!(["defaultx"]), "default", false),
        (json!(["*"]), "any-namespace", true),
        (json!([""]), "default", false),
        (json!([""]), "", true),
    ] {
        let pod = PodFacts { namespace: Some(namespace.into()), ..pod() };
        assert_eq!(fits(&json!({ "namespaces": patterns }), &pod), expected, "{patterns} {namespace}");
    }
}

#[test]
fn every_annotation_wanted_fits_one_that_is_there() {
    for (wanted, actual, expected) in [
        (json!({ "test/*": "*" }), json!({}), false),
        (json!({ "test/*": "*" }), json!({ "tes1/test": "*" }), false),
        (json!({ "test/*": "*" }), json!({ "test/test": "*" }), true),
        (json!({ "test/*": "*" }), json!({ "test/bar": "foo" }), true),
        (json!({ "test/b*": "*" }), json!({ "test/bar": "foo" }), true),
        (json!({ "test/b*": "*", "test2/*": "*" }), json!({ "test/bar": "foo" }), false),
        (json!({ "test/b*": "*", "test2/*": "*" }), json!({ "test/bar": "foo", "test2/123": "bar" }), true),
        (
            json!({ "test/b*": "*", "test2/*": "*" }),
            json!({ "test/bar": "foo", "test2/123": "bar", "test3/123": "bar2" }),
            true,
        ),
        (json!({ "a": "?" }), json!({ "a": "" }), false),
        (json!({ "a": "b" }), json!({ "A": "b" }), false),
    ] {
        let pod = PodFacts { annotations: pairs(&actual), ..pod() };
        assert_eq!(fits(&json!({ "annotations": wanted }), &pod), expected, "{wanted} {actual}");
    }
}

#[test]
fn labels_wanted_are_pairs_with_wildcards() {
    let two = json!({ "test.io/scale": "foo", "test.io/functional": "bar" });
    for (wanted, actual, expected) in [
        (json!({ "test.io/*": "bar" }), json!({ "foo": "bar" }), false),
        (json!({ "scale.test.io/*": "bar" }), json!({ "foo": "bar" }), false),
        (json!({ "test.io/*": "bar" }), two.clone(), true),
        (json!({ "test.io/*": "*" }), two.clone(), true),
        (json!({ "test.io/*": "a*" }), two.clone(), false),
        (json!({ "test.io/scale": "f??" }), two.clone(), true),
        (json!({ "*": "*" }), two.clone(), true),
        (json!({ "test.io/functional": "foo" }), two.clone(), false),
        (json!({ "test.io/functional": "bar", "test.io/s*": "f*" }), two.clone(), true),
        (json!({ "test.io/functional": "bar", "test.io/s*": "b*" }), two, false),
        (json!({ "*": "*" }), json!({}), false),
        // No label has such a key.
        (json!({ "abc/def/ghi": "*" }), json!({}), false),
    ] {
        let pod = PodFacts { labels: pairs(&actual), ..pod() };
        let resources = json!({ "selector": { "matchLabels": wanted } });
        assert_eq!(fits(&resources, &pod), expected, "{wanted} {actual}");
    }
}

#[test]
fn expressions_on_labels_are_kubernetes_own() {
    let pod = PodFacts { labels: pairs(&json!({ "app": "web", "tier": "" })), ..pod() };
    for (key, operator, values, expected) in [
        ("app", "In", json!(["db", "web"]), true),
        ("app", "In", json!(["w*"]), false),
        ("none", "In", json!(["web"]), false),
        ("app", "NotIn", json!(["web"]), false),
        ("app", "NotIn", json!(["w*"]), true),
        ("none", "NotIn", json!(["web"]), true),
        ("tier", "Exists", json!([]), true),
        ("t*", "Exists", json!([]), false),
        ("none", "Exists", json!([]), false),
        ("none", "DoesNotExist", json!([]), true),
        ("tier", "DoesNotExist", json!([]), false),
    ] {
        let expression = json!({ "key": key, "operator": operator, "values": values });
        let resources = json!({ "selector": { "matchExpressions": [expression] } });
        assert_eq!(fits(&resources, &pod), expected, "{resources}");
    }
}

#[test]
fn every_part_of_a_filter_must_fit() {
    let pod = PodFacts { labels: pairs(&json!({ "app": "web" })), ..pod() };
    let whole = json!({
        "kinds": ["Pod"], "operations": ["CREATE"], "names": ["f*"], "namespaces": ["default"],
        "selector": { "matchLabels": { "app": "web" } },
    });
    assert!(fits(&whole, &pod));
    for (part, other) in [
        ("kinds", json!(["Service"])),
        ("operations", json!(["UPDATE", "DELETE"])),
        ("names", json!(["bar"])),
        ("namespaces", json!(["prod"])),
        ("selector", json!({ "matchLabels": { "app": "db" } })),
        ("annotations", json!({ "a": "*" })),
    ] {
        let mut changed = whole.clone();
        changed[part] = other;
        assert!(!fits(&changed, &pod), "{part}");
    }
}

#[test]
fn a_policy_of_a_namespace_is_about_no_other() {
    let text = policy(none(), none(), none());
    let mut document: Value = serde_json::from_str(&text).expect("JSON");
    document["kind"] = json!("Policy");
    document["metadata"]["namespace"] = json!("development");
    let set = set(&document.to_string());
    for (namespace, applies) in [("development", true), ("production", false), ("dev*", false)] {
        let pod = PodFacts { namespace: Some(namespace.into()), ..pod() };
        let found = set.matching(&reference("ghcr.io/org/app:v1"), &pod, SystemTime::UNIX_EPOCH);
        assert_eq!(!found.is_empty(), applies, "{namespace}");
    }
}

#[test]
fn images_are_matched_by_any_pattern() {
    for (image, patterns, expected) in [
        ("nginx:latest", json!(["docker.io/nginx:latest"]), true),
        ("nginx:latest", json!(["docker.io/nginx:*"]), true),
        ("ghcr.io/repo/img:v1", json!(["ghcr.io/*"]), true),
        ("redis:6", json!(["docker.io/nginx:*"]), false),
        ("busybox:1.36", json!(["docker.io/nginx:*", "docker.io/busybox:*"]), true),
        ("busybox:1.36", json!(["busybox:*"]), false),
        ("busybox:1.36", json!(["*busybox:*"]), true),
    ] {
        let set = set(&policy(none(), none(), json!({ "imageReferences": patterns })));
        assert_eq!(
            !set.matching(&reference(image), &pod(), SystemTime::UNIX_EPOCH).is_empty(),
            expected,
            "{image} {patterns}"
        );
    }
}
