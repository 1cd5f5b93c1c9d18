//! Preconditions and conditions of exceptions: when a rule that covers an image is applied to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::evaluate::{Decision, Source};
use super::tests::{KEY, Pull, denied, load, none, options, permit, pod, policy, reference, satisfied};
use super::*;
use crate::outcome::{Contact, FaultReason};

fn equals(key: &str, value: &str) -> Value {
    json!({ "all": [{ "key": key, "operator": "Equals", "value": value }] })
}

fn only_if(preconditions: Value) -> String {
    policy(none(), json!({ "preconditions": preconditions }), none())
}

fn labelled(label: &str) -> PodFacts {
    PodFacts { labels: [("team".to_owned(), label.to_owned())].into(), ..pod("prod") }
}

/// Whether the rule is applied to the image; why not, or why that is not known.
fn standing(set: &PolicySet, image: &str, pod: &PodFacts) -> Result<(), String> {
    let applications = set.matching(&reference(image), pod, SystemTime::UNIX_EPOCH);
    let covered = &applications[0].entries[0];
    assert_eq!(applications[0].skipped.is_some(), covered.coverage == Coverage::Skipped);
    match (&applications[0].skipped, covered.entry.undecidable()) {
        (Some(reason), None) => Err(format!("skipped: {reason}")),
        (None, Some(fault)) => {
            assert_eq!((fault.reason, fault.contact), (FaultReason::PolicyUnresolved, Contact::Answered));
            Err(format!("undecided: {}", fault.message))
        }
        (None, None) => Ok(()),
        (Some(_), Some(_)) => panic!("both"),
    }
}

const APP: &str = "ghcr.io/org/app:1";
const TEAM: &str = "{{ request.object.metadata.labels.team || '' }}";
const NOT_MET: &str = "skipped: preconditions not met";

#[test]
fn a_rule_is_skipped_where_its_preconditions_are_not_met() {
    let set = load(&only_if(equals(TEAM, "a"))).unwrap().set;
    assert_eq!(standing(&set, APP, &labelled("a")), Ok(()));
    assert_eq!(standing(&set, APP, &labelled("b")), Err(NOT_MET.to_owned()));
    assert_eq!(standing(&set, APP, &pod("prod")), Err(NOT_MET.to_owned()));
    // The old form: a list.
    let list =
        json!([{ "key": "{{ image.tag }}", "operator": "NotEquals", "value": "1", "message": "tag 1" }]);
    let set = load(&only_if(list)).unwrap().set;
    assert_eq!(standing(&set, APP, &pod("a")), Err(format!("{NOT_MET}; tag 1")));
    assert_eq!(standing(&set, "ghcr.io/org/app:2", &pod("a")), Ok(()));
}

#[test]
fn a_skipped_pull_passes_and_an_undecided_one_does_not() {
    let mut pull = Pull::new(&only_if(equals("{{ request.object.metadata.labels.team }}", "a")));
    let verdict = |entry: &Entry| match entry.undecidable() {
        Some(fault) => EntryVerdict::Undecided(fault),
        None => denied(entry),
    };
    pull.pod = labelled("b");
    assert_eq!(permit(pull.ask(evaluate::before_resolving).unwrap()).source(), Source::Skipped);
    pull.pod = labelled("a");
    assert!(matches!(pull.decide(verdict), Decision::Deny(_)));
    pull.pod = pod("prod");
    assert_eq!(
        standing(&pull.set, APP, &pull.pod),
        Err("undecided: check/rule: failed to evaluate preconditions: failed to substitute variables in condition key: failed to resolve request.object.metadata.labels.team at path /0/all/0/key: JMESPath query failed: Unknown key \"labels\" in path".to_owned())
    );
    assert!(
        matches!(pull.decide(verdict), Decision::Undecided(fault) if fault.reason == FaultReason::PolicyUnresolved)
    );
}

#[test]
fn d4_an_undecided_rule_passes_under_ignore_only_where_upstream_is_followed() {
    let text = policy(
        json!({ "failurePolicy": "Ignore" }),
        json!({ "preconditions": equals("{{ missing }}", "a") }),
        none(),
    );
    let mut pull = Pull::new(&text);
    let verdict = |entry: &Entry| EntryVerdict::Undecided(entry.undecidable().unwrap());
    assert!(matches!(pull.decide(verdict), Decision::Undecided(_)));
    let strict = LoadOptions { compatibility: Compatibility::Strict, ..options() };
    let source = PolicySource { file: "p.yaml".into(), text: text.clone() };
    pull.set = PolicySet::load(&[source], &strict).unwrap().set;
    assert_eq!(permit(pull.decide(verdict)).source(), Source::Ignored);
    let source = PolicySource { file: "p.yaml".into(), text: text.replace("Ignore", "Fail") };
    pull.set = PolicySet::load(&[source], &strict).unwrap().set;
    assert!(matches!(pull.decide(verdict), Decision::Undecided(_)));
}

#[test]
fn m3_preconditions_on_a_pod_that_is_not_known_count_as_met() {
    let set = load(&only_if(equals("{{ request.namespace || '' }}", "prod"))).unwrap().set;
    assert_eq!(standing(&set, APP, &pod("dev")), Err(NOT_MET.to_owned()));
    assert_eq!(standing(&set, APP, &PodFacts::default()), Ok(()));
    assert_eq!(set.pull_only_rules(), ["check/rule"], "s3");
    // What is asked of the image alone is known.
    let set = load(&only_if(equals("{{ image.name }}", "other"))).unwrap().set;
    assert_eq!(standing(&set, APP, &PodFacts::default()), Err(NOT_MET.to_owned()));
}

#[test]
fn m2_preconditions_that_one_form_of_the_reference_meets_are_met() {
    let rule = json!({ "preconditions": equals("{{ image.registry }}", "docker.io") });
    let text = policy(none(), rule, json!({ "imageReferences": ["*"] }));
    let set = load(&text).unwrap().set;
    for image in ["docker.io/library/a:1", "index.docker.io/library/a:1", "a:1"] {
        assert_eq!(standing(&set, image, &pod("a")), Ok(()), "{image}");
    }
    assert_eq!(standing(&set, "quay.io/a:1", &pod("a")), Err(NOT_MET.to_owned()));
    let strict = LoadOptions { compatibility: Compatibility::Strict, ..options() };
    let source = PolicySource { file: "p.yaml".into(), text };
    let set = PolicySet::load(&[source], &strict).unwrap().set;
    assert_eq!(standing(&set, "index.docker.io/library/a:1", &pod("a")), Err(NOT_MET.to_owned()));
}

#[test]
fn preconditions_read_the_rules_context() {
    let rule = |context: Value, preconditions: Value| {
        let rule = json!({ "context": context, "preconditions": preconditions });
        load(&policy(none(), rule, none())).unwrap().set
    };
    let context = json!([{ "name": "team", "variable": { "jmesPath": "request.object.metadata.labels.team", "default": "none" } }]);
    let set = rule(context, equals("{{ team }}", "a"));
    assert_eq!(standing(&set, APP, &labelled("a")), Ok(()));
    assert_eq!(standing(&set, APP, &pod("prod")), Err(NOT_MET.to_owned()));
    let missing = json!([{ "name": "map", "configMap": { "name": "missing" } }]);
    let set = rule(missing, equals("{{ map.data.a }}", "a"));
    assert!(
        standing(&set, APP, &pod("a"))
            .unwrap_err()
            .starts_with("undecided: check/rule: failed to load context: ")
    );
}

#[test]
fn apply_rules_one_goes_on_behind_a_rule_whose_preconditions_are_not_met() {
    let rule = |name: &str, preconditions: Value| {
        let text = policy(none(), json!({ "name": name, "preconditions": preconditions }), none());
        serde_json::from_str::<Value>(&text).unwrap()["spec"]["rules"][0].clone()
    };
    let rules = [rule("a", equals("{{ request.namespace || '' }}", "dev")), rule("b", json!({}))];
    let mut pull = Pull::new(&policy(json!({ "applyRules": "One", "rules": rules }), none(), none()));
    let verdict = |entry: &Entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) };
    for (pod, refused) in [(pod("dev"), false), (pod("prod"), true), (PodFacts::default(), true)] {
        pull.pod = pod;
        assert_eq!(matches!(pull.decide(verdict), Decision::Deny(_)), refused, "{:?}", pull.pod.namespace);
    }
}

#[test]
fn preconditions_are_part_of_the_policies_fingerprint() {
    let print = |value: &str| load(&only_if(equals(TEAM, value))).unwrap().set.fingerprint();
    assert_ne!(print("a"), print("b"));
    assert_eq!(print("a"), print("a"));
}

#[test]
fn preconditions_read_the_clock() {
    let set = load(&only_if(equals("{{ time_now_utc() }}", "1970-01-01T00:00:00Z"))).unwrap().set;
    let applied = |now: SystemTime| set.matching(&reference(APP), &pod("a"), now)[0].skipped.is_none();
    assert!(applied(SystemTime::UNIX_EPOCH) && !applied(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
}

// Exceptions.

fn excepted(conditions: Value, matching: Value, context: Value) -> PolicySet {
    let exception = json!({
        "apiVersion": "kyverno.io/v2", "kind": "PolicyException", "metadata": { "name": "e", "namespace": "team" },
        "spec": {
            "exceptions": [{ "policyName": "check", "ruleNames": ["rule"] }],
            "match": { "any": [{ "resources": matching }] },
            "conditions": conditions,
        },
    });
    let text = policy(none(), json!({ "context": context }), json!({ "imageReferences": ["*"] }));
    load(&format!("{exception}\n---\n{text}")).unwrap().set
}

const EXCEPTED: &str = "skipped: rule is skipped due to policy exceptions team/e";

#[test]
fn an_exception_fits_where_its_conditions_hold_too() {
    let set = excepted(equals(TEAM, "a"), json!({ "kinds": ["Pod"], "namespaces": ["prod"] }), json!([]));
    assert_eq!(standing(&set, APP, &labelled("a")), Err(EXCEPTED.to_owned()));
    assert_eq!(standing(&set, APP, &labelled("b")), Ok(()));
    assert_eq!(standing(&set, APP, &PodFacts { namespace: Some("dev".into()), ..labelled("a") }), Ok(()));
    assert_eq!(set.pull_only_rules(), ["check/rule"], "s3");
}

#[test]
fn m3_conditions_that_cannot_be_evaluated_make_no_exception() {
    let set = excepted(
        equals("{{ request.object.metadata.labels.team }}", "a"),
        json!({ "kinds": ["Pod"] }),
        json!([]),
    );
    assert_eq!(standing(&set, APP, &pod("prod")), Ok(()));
    // Nor do those that what is not known of a pull would meet.
    let differs = json!({ "all": [{ "key": TEAM, "operator": "NotEquals", "value": "a" }] });
    let set = excepted(differs, json!({ "kinds": ["Pod"] }), json!([]));
    assert_eq!(standing(&set, APP, &labelled("b")), Err(EXCEPTED.to_owned()));
    assert_eq!(standing(&set, APP, &PodFacts::default()), Ok(()));
}

#[test]
fn m2_an_exception_fits_for_every_form_of_the_reference() {
    let set =
        excepted(equals("{{ image.registry }}", "index.docker.io"), json!({ "kinds": ["Pod"] }), json!([]));
    assert_eq!(standing(&set, "index.docker.io/library/a:1", &pod("a")), Ok(()));
    let set = excepted(equals("{{ image.registry }}", "quay.io"), json!({ "kinds": ["Pod"] }), json!([]));
    assert_eq!(standing(&set, "quay.io/a:1", &pod("a")), Err(EXCEPTED.to_owned()));
}

#[test]
fn conditions_of_an_exception_read_the_rules_context() {
    let context = json!([{ "name": "allowed", "variable": { "value": ["a", "b"] } }]);
    let conditions = json!({ "any": [{ "key": TEAM, "operator": "AnyIn", "value": "{{ allowed }}" }] });
    let set = excepted(conditions, json!({ "kinds": ["Pod"] }), context);
    assert_eq!(standing(&set, APP, &labelled("b")), Err(EXCEPTED.to_owned()));
    assert_eq!(standing(&set, APP, &labelled("c")), Ok(()));
}

// What conditions on attestations know.

#[test]
fn c1_what_conditions_read_of_the_context_is_part_of_the_entry() {
    let keys = json!({ "publicKeys": KEY, "rekor": { "ignoreTlog": true } });
    let attestation = json!({ "type": "a", "attestors": [{ "entries": [{ "keys": keys }] }],
        "conditions": [{ "all": [{ "key": "{{ by }}", "operator": "Equals", "value": "{{ team }}" }] }] });
    let rule = |variable: Value| {
        let context = json!({ "context": [{ "name": "team", "variable": variable }] });
        let text = policy(none(), context, json!({ "attestations": [attestation] }));
        load(&text).unwrap().set
    };
    let of = |set: &PolicySet, pod: &PodFacts| {
        let applications = set.matching(&reference(APP), pod, SystemTime::UNIX_EPOCH);
        Arc::clone(&applications[0].entries[0].entry)
    };
    let per_pull = rule(json!({ "jmesPath": "request.object.metadata.labels.team", "default": "none" }));
    let prints: Vec<_> = [labelled("a"), labelled("b"), pod("prod")]
        .iter()
        .map(|pod| of(&per_pull, pod).fingerprint())
        .collect();
    assert!(prints[0] != prints[1] && prints[1] != prints[2]);
    // The same value, the same question.
    let fixed = rule(json!({ "value": "a" }));
    assert_eq!(of(&fixed, &labelled("x")).fingerprint(), prints[0]);
    assert!(fixed.pull_only_rules().is_empty());
    assert_eq!(per_pull.pull_only_rules(), ["check/rule"]);
}

#[test]
fn a_name_stands_for_one_thing() {
    let attestation = json!({ "type": "a", "name": "sbom", "attestors": [{ "entries": [{ "keys": { "publicKeys": KEY } }] }] });
    let context = json!({ "context": [{ "name": "sbom", "variable": { "value": "{{ image.tag }}" } }] });
    let errors = load(&policy(none(), context, json!({ "attestations": [attestation] }))).unwrap_err();
    assert!(
        errors.iter().any(|error| error.message
            == "check/rule: context and an attestation have the name `sbom`; choose another"),
        "{errors:?}"
    );
}
