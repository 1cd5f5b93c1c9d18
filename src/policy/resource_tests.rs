//! Resources of `pullgate apply`: which rules are about them, autogen, and what `imageExtractors` may say.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM
5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==
-----END PUBLIC KEY-----";

fn load(documents: &[Value]) -> Result<Loaded, Vec<Remark>> {
    let text: Vec<String> = documents.iter().map(Value::to_string).collect();
    let source = PolicySource { file: "p.yaml".into(), text: text.join("\n---\n") };
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable("none".to_owned()),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::UNIX_EPOCH,
    };
    PolicySet::load(&[source], &options)
}

fn document(kind: &str, metadata: Value, rules: Vec<Value>) -> Value {
    json!({ "apiVersion": "kyverno.io/v1", "kind": kind, "metadata": metadata,
            "spec": { "validationFailureAction": "Enforce", "rules": rules } })
}

fn rule(more: Value) -> Value {
    let keys = json!({ "publicKeys": KEY, "rekor": { "ignoreTlog": true } });
    let entry = json!({ "imageReferences": ["*"], "mutateDigest": false, "attestors": [{ "entries": [{ "keys": keys }] }] });
    let mut rule = json!({ "name": "rule", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry] });
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn set(rules: Vec<Value>) -> PolicySet {
    load(&[document("ClusterPolicy", json!({ "name": "check" }), rules)]).unwrap().set
}

fn resource(api_version: &str, kind: &str, rest: Value) -> PodFacts {
    let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "it" } });
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    Resource::new(object).unwrap().facts("default")
}

fn pod_spec(image: &str) -> Value {
    json!({ "containers": [{ "name": "app", "image": image }] })
}

fn pod(metadata: Value) -> PodFacts {
    resource("v1", "Pod", json!({ "metadata": metadata, "spec": pod_spec("a.io/b:1") }))
}

fn controller(api_version: &str, kind: &str) -> PodFacts {
    let template = json!({ "template": { "spec": pod_spec("a.io/b:1") } });
    let spec = if kind == "CronJob" { json!({ "jobTemplate": { "spec": template } }) } else { template };
    resource(api_version, kind, json!({ "spec": spec }))
}

/// The rules that cover `a.io/b:1` in the resource.
fn rules(set: &PolicySet, pod: &PodFacts) -> Vec<String> {
    let applications = set.matching(&Reference::parse("a.io/b:1").unwrap(), pod, SystemTime::UNIX_EPOCH);
    for application in &applications {
        assert_eq!(
            application.entries[0].entry.rule(),
            application.rule,
            "denials name the rule by its entry"
        );
    }
    applications.into_iter().map(|application| application.rule).collect()
}

#[test]
fn match_and_exclude_read_the_resource() {
    let in_match =
        |resources: Value| set(vec![rule(json!({ "match": { "any": [{ "resources": resources }] } }))]);
    let here = pod(
        json!({ "name": "web-1", "namespace": "prod", "labels": { "app": "web" }, "annotations": { "a": "b" } }),
    );
    for (resources, fits) in [
        (json!({ "kinds": ["Pod"] }), true),
        (json!({ "kinds": ["v1/Pod"] }), true),
        (json!({ "kinds": ["*"] }), true),
        (json!({ "kinds": ["Service", "Pod"] }), true),
        (json!({ "kinds": ["Deployment"] }), false),
        (json!({ "kinds": ["apps/v1/Pod"] }), false),
        (json!({ "kinds": ["Pod"], "namespaces": ["pr*"] }), true),
        (json!({ "kinds": ["Pod"], "namespaces": ["dev"] }), false),
        (json!({ "kinds": ["Pod"], "names": ["db-*", "web-?"] }), true),
        (json!({ "kinds": ["Pod"], "name": "web" }), false),
        (json!({ "kinds": ["Pod"], "annotations": { "a": "*" } }), true),
        (json!({ "kinds": ["Pod"], "annotations": { "c": "*" } }), false),
        (json!({ "kinds": ["Pod"], "selector": { "matchLabels": { "app": "w*" } } }), true),
        (json!({ "kinds": ["Pod"], "selector": { "matchLabels": { "app": "db" } } }), false),
        (json!({ "kinds": ["Pod"], "operations": ["UPDATE", "CREATE"] }), true),
        (json!({ "kinds": ["Pod"], "operations": ["DELETE"] }), false),
    ] {
        let expected: &[&str] = if fits { &["rule"] } else { &[] };
        assert_eq!(rules(&in_match(resources.clone()), &here), expected, "match {resources}");
        // Not the same filter twice: such a rule is refused.
        let all = json!({ "any": [{ "resources": { "kinds": ["Pod"], "names": ["*"] } }] });
        let exclude = json!({ "match": all, "exclude": { "any": [{ "resources": resources }] } });
        let exclude = set(vec![rule(exclude)]);
        let expected: &[&str] = if fits { &[] } else { &["rule"] };
        assert_eq!(rules(&exclude, &here), expected, "exclude {resources}");
    }
    // Of a resource nothing is missing: what it does not have does not fit.
    let bare = pod(json!({ "generateName": "web-" }));
    for (resources, fits) in [
        (json!({ "kinds": ["Pod"], "selector": { "matchLabels": { "app": "web" } } }), false),
        (json!({ "kinds": ["Pod"], "annotations": { "a": "b" } }), false),
        (json!({ "kinds": ["Pod"], "names": ["web-*"] }), true),
        (json!({ "kinds": ["Pod"], "namespaces": ["default"] }), true),
    ] {
        assert_eq!(rules(&in_match(resources.clone()), &bare).len(), usize::from(fits), "{resources}");
    }
}

#[test]
fn a_namespaced_policy_is_about_its_namespace() {
    let metadata = json!({ "name": "check", "namespace": "team" });
    let set = load(&[document("Policy", metadata, vec![rule(json!({}))])]).unwrap().set;
    assert_eq!(rules(&set, &pod(json!({ "name": "a", "namespace": "team" }))), ["rule"]);
    assert!(rules(&set, &pod(json!({ "name": "a" }))).is_empty());
}

#[test]
fn rules_about_pods_extend_to_their_controllers() {
    let about_pods = set(vec![rule(json!({}))]);
    for (api_version, kind, name) in [
        ("apps/v1", "DaemonSet", "autogen-rule"),
        ("apps/v1", "Deployment", "autogen-rule"),
        ("apps/v1", "ReplicaSet", "autogen-rule"),
        ("apps/v1", "StatefulSet", "autogen-rule"),
        ("batch/v1", "Job", "autogen-rule"),
        ("v1", "ReplicationController", "autogen-rule"),
        ("batch/v1", "CronJob", "autogen-cronjob-rule"),
    ] {
        assert_eq!(rules(&about_pods, &controller(api_version, kind)), [name], "{kind}");
    }
    // Another group's kind of the same name makes pods of its own.
    assert!(rules(&about_pods, &controller("batch.volcano.sh/v1alpha1", "Job")).is_empty());
    assert_eq!(rules(&about_pods, &pod(json!({}))), ["rule"]);
    let pull = PodFacts { namespace: Some("default".into()), ..PodFacts::default() };
    assert_eq!(rules(&about_pods, &pull), ["rule"]);
}

#[test]
fn autogen_leaves_alone_what_kyverno_leaves_alone() {
    let filter = |resources: Value| json!({ "match": { "any": [{ "resources": resources }] } });
    let mut names_pods_too = rule(json!({ "name": "other" }));
    names_pods_too["match"] = json!({ "any": [{ "resources": { "kinds": ["Pod"], "names": ["a"] } }] });
    for (what, more, extends) in [
        ("a namespace", filter(json!({ "kinds": ["Pod"], "namespaces": ["default"] })), true),
        ("another namespace", filter(json!({ "kinds": ["Pod"], "namespaces": ["other"] })), false),
        ("a name", filter(json!({ "kinds": ["Pod"], "names": ["*"] })), false),
        ("a label", filter(json!({ "kinds": ["Pod"], "selector": { "matchLabels": { "a": "*" } } })), false),
        ("an annotation", filter(json!({ "kinds": ["Pod"], "annotations": { "a": "*" } })), false),
        ("other kinds beside it", filter(json!({ "kinds": ["Pod", "Service"] })), false),
        ("its version too", filter(json!({ "kinds": ["v1/Pod"] })), false),
        ("a pattern", filter(json!({ "kinds": ["Po?"] })), false),
        ("all", json!({ "match": { "all": [{ "resources": { "kinds": ["Pod"] } }] } }), true),
        ("resources", json!({ "match": { "resources": { "kinds": ["Pod"] } } }), true),
        ("a name of its own", json!({ "name": "autogen-rule" }), false),
        (
            "pods left out",
            json!({ "exclude": { "any": [{ "resources": { "kinds": ["Pod"], "namespaces": ["default"] } }] } }),
            false,
        ),
        (
            "pods elsewhere left out",
            json!({ "exclude": { "any": [{ "resources": { "kinds": ["Pod"], "namespaces": ["b"] } }] } }),
            true,
        ),
        (
            "other kinds left out",
            json!({ "exclude": { "any": [{ "resources": { "kinds": ["Service"] } }] } }),
            false,
        ),
        (
            "names left out",
            json!({ "exclude": { "any": [{ "resources": { "kinds": ["Pod"], "names": ["a"] } }] } }),
            false,
        ),
    ] {
        let set = set(vec![rule(more)]);
        assert_eq!(rules(&set, &controller("apps/v1", "Deployment")).len(), usize::from(extends), "{what}");
    }
    // One rule that cannot be rewritten keeps all from it, verifyImages or not.
    for other in [
        names_pods_too,
        json!({ "name": "other", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "generate": {} }),
        json!({ "name": "other", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "mutate": { "patchesJson6902": "x" } }),
    ] {
        let set = set(vec![rule(json!({})), other.clone()]);
        assert!(rules(&set, &controller("apps/v1", "Deployment")).is_empty(), "{other}");
    }
    // A rule that names the controller itself is about it under its own name.
    let own = set(vec![rule(filter(json!({ "kinds": ["Deployment"] })))]);
    assert_eq!(rules(&own, &controller("apps/v1", "Deployment")), ["rule"]);
}

#[test]
fn an_annotation_says_to_which_controllers_rules_extend() {
    let extends = |controllers: &str| {
        let annotations = json!({ "pod-policies.kyverno.io/autogen-controllers": controllers });
        let metadata = json!({ "name": "check", "annotations": annotations });
        let loaded = load(&[document("ClusterPolicy", metadata, vec![rule(json!({}))])]).unwrap();
        let found = [("apps/v1", "Deployment"), ("batch/v1", "CronJob")]
            .map(|(api_version, kind)| !rules(&loaded.set, &controller(api_version, kind)).is_empty());
        let is_about_it = |notice: &&Remark| {
            notice.severity == Severity::Warning && notice.message.contains("autogen-controllers")
        };
        (found, loaded.notices.iter().filter(is_about_it).count())
    };
    assert_eq!(extends("all"), ([true, true], 0));
    assert_eq!(extends("none"), ([false, false], 0));
    assert_eq!(extends("Deployment"), ([true, false], 0));
    assert_eq!(extends("StatefulSet, CronJob"), ([false, true], 0));
    assert_eq!(extends("Deploymet"), ([false, false], 1));
}

#[test]
fn a_rule_with_extractors_covers_what_they_find() {
    let task = json!({ "match": { "any": [{ "resources": { "kinds": ["tekton.dev/v1beta1/Task"] } }] },
                       "imageExtractors": { "Task": [{ "path": "/spec/steps/*/image" }] } });
    let set = set(vec![rule(task)]);
    let steps = |image: &str| json!({ "spec": { "steps": [{ "image": image }], "sidecars": [{ "image": "a.io/b:1" }] } });
    let here = resource("tekton.dev/v1beta1", "Task", steps("a.io/b:1"));
    assert_eq!(rules(&set, &here), ["rule"]);
    assert!(rules(&set, &resource("tekton.dev/v1beta1", "Task", steps("a.io/other:1"))).is_empty());
    assert!(rules(&set, &resource("tekton.dev/v1", "Task", steps("a.io/b:1"))).is_empty());
    let found: Vec<_> = set.extract(&here).into_iter().map(|found| (found.rule, found.images)).collect();
    let image = ExtractedImage {
        group: "custom".into(),
        key: "/spec/steps/0/image".into(),
        pointer: "/spec/steps/0/image".into(),
        reference: Reference::parse("a.io/b:1").unwrap(),
    };
    assert_eq!(found, [("rule".to_owned(), Ok(vec![image]))]);
    // Where it cannot tell, it covers every image, and says why.
    let odd = resource("tekton.dev/v1beta1", "Task", json!({ "spec": { "steps": "x" } }));
    assert_eq!(rules(&set, &odd), ["rule"]);
    let errors: Vec<_> = set.extract(&odd).into_iter().map(|found| found.images).collect();
    assert_eq!(errors, [Err(ExtractError::NoElements("/spec/steps".into()))]);
    assert!(set.extract(&PodFacts::default()).is_empty(), "a pull is of one image");
}

#[test]
fn extractors_mean_nothing_for_pulls() {
    let only_init = json!({ "imageExtractors": { "Pod": [{ "path": "/spec/initContainers/*/image" }] } });
    let loaded =
        load(&[document("ClusterPolicy", json!({ "name": "check" }), vec![rule(only_init)])]).unwrap();
    assert_eq!(rules(&loaded.set, &PodFacts::default()), ["rule"]);
    assert!(rules(&loaded.set, &pod(json!({}))).is_empty(), "that pod has no init containers");
    assert!(
        loaded.notices.iter().any(|notice| notice.message
            == "check/rule: imageExtractors means nothing on a node: a pull names its image itself"),
        "{:?}",
        loaded.notices
    );
}

#[test]
fn extractors_that_find_nothing_are_load_errors() {
    let errors = |extractors: Value, pins: bool| {
        let mut rule = rule(json!({ "imageExtractors": extractors }));
        rule["verifyImages"][0]["mutateDigest"] = json!(pins);
        let errors = load(&[document("ClusterPolicy", json!({ "name": "check" }), vec![rule])]);
        errors.err().unwrap_or_default().into_iter().map(|error| error.message).collect::<Vec<_>>()
    };
    let expression = "trim_prefix(@, 'docker://')";
    for (extractors, pins, expected) in [
        (json!({ "Task": [] }), false, "check/rule: imageExtractors.Task: no extractors found for Task"),
        (
            json!({ "Task": [{}] }),
            false,
            "check/rule: imageExtractors.Task[0]: path is missing: it names the field that holds the image",
        ),
        (
            json!({ "Task": [{ "path": " / " }] }),
            false,
            "check/rule: imageExtractors.Task[0]: path is missing: it names the field that holds the image",
        ),
        (
            json!({ "Task": [{ "path": "/spec/*" }] }),
            false,
            "check/rule: imageExtractors.Task[0]: path ends in `*`; put the field that holds the image into value",
        ),
        (
            json!({ "Task": [{ "path": "/a", "jmesPath": expression }] }),
            true,
            "check/rule: imageExtractors.Task[0]: jmespath may not be used in an image extractor when mutating digests with verify images; set mutateDigest: false",
        ),
        (
            json!({ "Task": [{ "path": "/a", "jmesPath": "no_such(@)" }] }),
            false,
            "check/rule: imageExtractors.Task[0]: jmesPath: incorrect query no_such(@): unknown function: no_such",
        ),
        (
            json!({ "Task": [{ "path": "/a", "jmesPath": "time_now()" }] }),
            false,
            "check/rule: imageExtractors.Task[0]: jmesPath reads the time; which image is named must not depend on it",
        ),
    ] {
        assert_eq!(
            errors(extractors.clone(), pins).first().map(String::as_str),
            Some(expected),
            "{extractors}"
        );
    }
    assert_eq!(errors(json!({ "Task": [{ "path": "/ spec / steps /*/image " }] }), true), [""; 0]);
}

#[test]
fn d2_rules_that_come_to_one_name_are_judged_each_for_itself() {
    let named = |name: &str, references: Value| {
        let mut rule = rule(json!({ "name": name }));
        rule["verifyImages"][0]["imageReferences"] = references;
        rule
    };
    let long = "a".repeat(60);
    let set =
        set(vec![named(&format!("{long}1"), json!(["*"])), named(&format!("{long}2"), json!(["a.io/*"]))]);
    let pod = controller("apps/v1", "Deployment");
    let reference = Reference::parse("a.io/b:1").unwrap();
    let applications = set.matching(&reference, &pod, SystemTime::UNIX_EPOCH);
    let names: BTreeSet<_> = applications.iter().map(|application| application.rule.as_str()).collect();
    assert_eq!((applications.len(), names.len()), (2, 1), "upstream cuts both to the same name");
    let mut pull = tests::Pull::new(&tests::policy(tests::none(), tests::none(), tests::none()));
    (pull.set, pull.pod, pull.reference) = (set, pod, reference);
    let first = applications[0].entries[0].entry.fingerprint();
    let decision = pull.decide(|entry| {
        if entry.fingerprint() == first { tests::satisfied(entry) } else { tests::denied(entry) }
    });
    assert!(matches!(&decision, evaluate::Decision::Deny(_)), "{decision:?}");
}
