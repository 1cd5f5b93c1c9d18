//! Policy exceptions: what they let out, for whom, and what is wrong with one.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::evaluate::{Approved, Case, Mode, Source, Unmatched, before_resolving};
use super::tests::{load, none, pod, policy, reference};
use super::*;

/// An exception for the rule of [`policy`], with `spec` fields added.
fn exception(spec: Value) -> String {
    let mut document = json!({
        "apiVersion": "kyverno.io/v2", "kind": "PolicyException",
        "metadata": { "name": "bootstrap", "namespace": "team" },
        "spec": {
            "exceptions": [{ "policyName": "check", "ruleNames": ["rule"] }],
            "match": { "any": [{ "resources": { "kinds": ["Pod"], "namespaces": ["dev-*"] } }] },
        },
    });
    if let (Some(base), Value::Object(more)) = (document["spec"].as_object_mut(), spec) {
        base.extend(more);
    }
    document.to_string()
}

fn with(exception: &str) -> Loaded {
    load(&format!("{}\n---\n{exception}", policy(none(), none(), none()))).unwrap()
}

fn coverage(set: &PolicySet, pod: &PodFacts) -> (Coverage, Option<String>) {
    let applications = set.matching(&reference("ghcr.io/org/app"), pod, SystemTime::UNIX_EPOCH);
    (applications[0].entries[0].coverage, applications[0].skipped.clone())
}

const SKIPPED: &str = "rule is skipped due to policy exceptions team/bootstrap";

#[test]
fn lets_out_the_pods_that_it_matches_and_no_others() {
    let set = with(&exception(none())).set;
    assert_eq!(coverage(&set, &pod("dev-a")), (Coverage::Skipped, Some(SKIPPED.to_owned())));
    assert_eq!(coverage(&set, &pod("prod")), (Coverage::Judged, None));
}

#[test]
fn m2_a_pull_without_a_namespace_is_not_excepted() {
    let set = with(&exception(none())).set;
    assert_eq!(coverage(&set, &PodFacts::default()), (Coverage::Judged, None));
    let labelled = exception(json!({ "match": { "any": [{ "resources": {
        "kinds": ["Pod"], "selector": { "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] } } }] } }));
    assert_eq!(coverage(&with(&labelled).set, &PodFacts::default()), (Coverage::Judged, None));
    assert_eq!(coverage(&with(&labelled).set, &pod("any")).0, Coverage::Skipped);
}

#[test]
fn a_pull_of_an_excepted_image_is_a_skipped_one() {
    let set = with(&exception(none())).set;
    let (reference, pod) = (reference("ghcr.io/org/app"), pod("dev-a"));
    let applications = set.matching(&reference, &pod, SystemTime::UNIX_EPOCH);
    let decision = before_resolving(&Case {
        reference: &reference,
        pod: &pod,
        policies: &set,
        applications: &applications,
        mode: Mode::Enforce,
        unmatched: Unmatched::Deny,
        exempt_namespaces: &[],
        approved: &Approved::default(),
    });
    let Some(evaluate::Decision::Allow(permit)) = decision else { panic!("{decision:?}") };
    assert_eq!(permit.source(), Source::Skipped);
}

#[test]
fn policies_are_named_exactly_and_rules_by_wildcards() {
    let rules = |policy: &str, rules: &[&str]| {
        let set =
            with(&exception(json!({ "exceptions": [{ "policyName": policy, "ruleNames": rules }] }))).set;
        coverage(&set, &pod("dev-a")).0
    };
    for (policy, patterns, wanted) in [
        ("check", &["r*e"][..], Coverage::Skipped),
        ("check", &["other", "rule"][..], Coverage::Skipped),
        ("check", &["*"][..], Coverage::Skipped),
        ("check", &["Rule"][..], Coverage::Judged),
        ("check", &["autogen-rule"][..], Coverage::Judged),
        ("team/check", &["rule"][..], Coverage::Judged),
        ("*", &["*"][..], Coverage::Judged),
    ] {
        assert_eq!(rules(policy, patterns), wanted, "{policy} {patterns:?}");
    }
    let namespaced = policy(none(), none(), none())
        .replace("ClusterPolicy", "Policy")
        .replace(r#""name":"check""#, r#""name":"check","namespace":"dev-a""#);
    let named = exception(json!({ "exceptions": [{ "policyName": "dev-a/check", "ruleNames": ["rule"] }] }));
    let set = load(&format!("{namespaced}\n---\n{named}")).unwrap().set;
    assert_eq!(coverage(&set, &pod("dev-a")).0, Coverage::Skipped);
}

#[test]
fn only_the_excepted_rule_is_skipped() {
    let mut document: Value = serde_json::from_str(&policy(none(), none(), none())).unwrap();
    let mut second = document["spec"]["rules"][0].clone();
    second["name"] = json!("second");
    document["spec"]["rules"].as_array_mut().unwrap().push(second);
    let set = load(&format!("{document}\n---\n{}", exception(none()))).unwrap().set;
    let applications = set.matching(&reference("ghcr.io/org/app"), &pod("dev-a"), SystemTime::UNIX_EPOCH);
    let coverages: Vec<_> =
        applications.iter().map(|rule| (rule.rule.as_str(), rule.entries[0].coverage)).collect();
    assert_eq!(coverages, [("rule", Coverage::Skipped), ("second", Coverage::Judged)]);
}

#[test]
fn several_exceptions_are_all_named_in_order() {
    let other = exception(none()).replace("bootstrap", "another");
    let set = with(&format!("{}\n---\n{other}", exception(none()))).set;
    assert_eq!(
        coverage(&set, &pod("dev-a")).1.unwrap(),
        "rule is skipped due to policy exceptions team/another, team/bootstrap"
    );
}

#[test]
fn s3_a_rule_with_an_exception_by_pod_is_enforced_at_pull_only() {
    assert_eq!(with(&exception(none())).set.pull_only_rules(), ["check/rule"]);
    let every_pod = exception(json!({ "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] } }));
    assert!(with(&every_pod).set.pull_only_rules().is_empty());
    let of_another = exception(json!({ "exceptions": [{ "policyName": "check", "ruleNames": ["other"] }] }));
    assert!(with(&of_another).set.pull_only_rules().is_empty());
}

#[test]
fn exceptions_are_part_of_the_policies_fingerprint() {
    let plain = load(&policy(none(), none(), none())).unwrap().set.fingerprint();
    let excepted = with(&exception(none())).set.fingerprint();
    let wider = exception(none()).replace("dev-*", "*");
    assert_ne!(plain, excepted);
    assert_ne!(excepted, with(&wider).set.fingerprint());
    assert_eq!(excepted, with(&exception(none())).set.fingerprint());
}

#[test]
fn says_what_names_nothing_that_is_loaded() {
    let remarks = |spec: Value| -> Vec<(Severity, String)> {
        let notices = with(&exception(spec)).notices;
        notices.into_iter().map(|remark| (remark.severity, remark.to_string())).collect()
    };
    let named = |policy: &str, rules: &[&str]| json!({ "exceptions": [{ "policyName": policy, "ruleNames": rules }] });
    assert!(remarks(named("check", &["ru*", "autogen-rule"])).is_empty());
    assert_eq!(
        remarks(named("check", &["rule", "rulle"])),
        [(
            Severity::Warning,
            "p.yaml:3: exception team/bootstrap: policy `check` has no verifyImages rule `rulle`".to_owned()
        )]
    );
    assert_eq!(
        remarks(named("chekc", &["rule"])),
        [(
            Severity::Warning,
            "p.yaml:3: exception team/bootstrap: policy `chekc` is not loaded, so nothing of it is excepted"
                .to_owned()
        )]
    );
    assert_eq!(
        remarks(json!({ "background": true, "podSecurity": [{ "controlName": "Capabilities" }] }))
            .into_iter()
            .map(|(severity, _)| severity)
            .collect::<Vec<_>>(),
        [Severity::Notice, Severity::Notice]
    );
}

#[test]
fn what_is_wrong_with_an_exception_is_a_load_error() {
    for (text, wanted) in [
        (exception(none()).replace(r#""name":"bootstrap","#, ""), "metadata.name is missing"),
        (format!("{0}\n---\n{0}", exception(none())), "PolicyException `team/bootstrap` is defined twice"),
        (exception(none()).replace("kyverno.io/v2", "kyverno.io/v2alpha1"), "only kyverno.io/v2 and v2beta1"),
        (exception(json!({ "exceptions": [] })), "exceptions is empty"),
        (exception(json!({ "exceptions": [{ "ruleNames": ["rule"] }] })), "requires a policy name"),
        (exception(json!({ "exceptions": [{ "policyName": "check" }] })), "ruleNames is empty"),
        (exception(json!({ "match": null })), "match is missing"),
        (exception(json!({ "match": {} })), "match cannot be empty"),
        (exception(json!({ "match": { "any": [{}] } })), "a filter without resources"),
        (
            exception(json!({ "match": { "resources": { "kinds": ["Pod"] } } })),
            "match takes any or all, nothing else",
        ),
        (
            exception(json!({ "match": { "any": [{ "subjects": [{ "kind": "User", "name": "x" }] }] } })),
            "a node does not know who created a pod",
        ),
        (
            exception(
                json!({ "match": { "any": [{ "resources": { "kinds": ["Pod"], "namespaceSelector": { "matchLabels": { "a": "b" } } } }] } }),
            ),
            "a node does not know the labels of namespaces",
        ),
        (
            exception(json!({ "conditions": { "all": [{ "key": "a" }] } })),
            "exception team/bootstrap: conditions[0].all[0]: operator is missing",
        ),
        (exception(json!({ "bogus": 1 })), "bogus"),
        (
            exception(json!({ "exceptions": [{ "policyName": "check", "ruleNames": ["a"], "bogus": 1 }] })),
            "bogus",
        ),
        (
            exception(none()).replace(r#""kind":"PolicyException""#, r#""kind":"PolicyException","bogus":1"#),
            "bogus",
        ),
    ] {
        let errors = load(&format!("{}\n---\n{text}", policy(none(), none(), none()))).expect_err(wanted);
        assert!(
            errors.iter().any(|error| error.line >= 3 && error.message.contains(wanted)),
            "wanted {wanted:?}, got {errors:?}"
        );
    }
}
