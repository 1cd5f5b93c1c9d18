//! `applyRules: One`: which rules are still applied behind one that passed, failed, was skipped or
//! could not be decided.

use serde_json::{Value, json};

use super::evaluate::{Decision, Forward, Source};
use super::tests::{Pull, denied, fault, none, permit, pod, policy, satisfied};
use super::*;
use crate::outcome::{Contact, FaultReason};

/// A policy of rules, each a name with fields of its own and of its entry.
fn rules(apply: &str, rules: &[(&str, Value, Value)]) -> String {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(name, rule, entry)| {
            let text = policy(none(), rule.clone(), entry.clone());
            let mut rule = serde_json::from_str::<Value>(&text).unwrap()["spec"]["rules"][0].clone();
            rule["name"] = json!(name);
            for (field, value) in entry.as_object().into_iter().flatten() {
                rule["verifyImages"][0][field] = value.clone();
            }
            rule
        })
        .collect();
    policy(json!({ "applyRules": apply, "rules": rules }), none(), none())
}

fn plain(apply: &str) -> Pull {
    Pull::new(&rules(apply, &[("a", none(), none()), ("b", none(), none())]))
}

fn undecided(_: &Entry) -> EntryVerdict {
    EntryVerdict::Undecided(fault(Contact::Answered))
}

/// The rules that a decision refuses or would refuse.
fn names(decision: &Decision) -> Vec<&str> {
    let denials = match decision {
        Decision::Deny(denials) => denials,
        Decision::Allow(permit) => permit.would_deny(),
        Decision::Undecided(fault) => panic!("{fault}"),
    };
    denials.iter().map(|denial| denial.rule.as_str()).collect()
}

#[test]
fn all_is_the_default_and_applies_every_rule() {
    let pull = plain("All");
    let decision = pull.decide(|entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) });
    assert_eq!(names(&decision), ["b"]);
}

#[test]
fn rules_behind_one_that_passed_are_not_applied() {
    let decision =
        plain("One").decide(|entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) });
    let permit = permit(decision);
    assert_eq!((permit.source(), permit.would_deny().len()), (Source::Verified, 0));
    assert!(matches!(permit.forward(), Forward::Pinned(_)));
}

#[test]
fn d2_a_rule_that_is_not_applied_allows_nothing_that_an_earlier_one_refuses() {
    let decision =
        plain("One").decide(|entry| if entry.rule() == "a" { denied(entry) } else { satisfied(entry) });
    assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
    let decision = plain("One").decide(denied);
    assert_eq!(names(&decision), ["a"], "the second rule is not applied, so it fails nothing");
}

#[test]
fn an_undecided_rule_does_not_stop_later_ones_and_nothing_makes_up_for_it() {
    let decision =
        plain("One").decide(|entry| if entry.rule() == "a" { undecided(entry) } else { denied(entry) });
    assert_eq!(names(&decision), ["b"]);
    let decision =
        plain("One").decide(|entry| if entry.rule() == "a" { undecided(entry) } else { satisfied(entry) });
    assert!(matches!(decision, Decision::Undecided(_)), "{decision:?}");
}

#[test]
fn an_entry_that_passed_stops_later_rules_though_another_of_its_rule_is_undecided() {
    let text = rules("One", &[("a", none(), none()), ("b", none(), none())]);
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let entries = document["spec"]["rules"][0]["verifyImages"].as_array_mut().unwrap();
    entries.push(entries[0].clone());
    let decision = Pull::new(&document.to_string()).decide(|entry| match (entry.rule(), entry.index()) {
        ("a", 0) => satisfied(entry),
        ("a", _) => undecided(entry),
        _ => denied(entry),
    });
    assert!(
        matches!(&decision, Decision::Undecided(fault) if fault.reason == FaultReason::RegistryUnreachable),
        "{decision:?}"
    );
}

#[test]
fn a_skipped_rule_does_not_stop_later_ones() {
    let pull = Pull::new(&rules(
        "One",
        &[("a", none(), json!({ "skipImageReferences": ["ghcr.io/org/app*"] })), ("b", none(), none())],
    ));
    assert_eq!(names(&pull.decide(denied)), ["b"]);
}

#[test]
fn a_failing_audit_rule_stops_later_ones_as_upstream() {
    let pull = Pull::new(&rules(
        "One",
        &[("a", none(), json!({ "failureAction": "Audit" })), ("b", none(), none())],
    ));
    let permit = permit(pull.decide(denied));
    assert_eq!(
        (permit.source(), permit.forward(), permit.would_deny().len()),
        (Source::Audited, &Forward::AsSent, 1)
    );
}

#[test]
fn other_policies_are_applied_all_the_same() {
    let second = policy(none(), none(), none()).replace(r#""name":"check""#, r#""name":"other""#);
    let pull = Pull::new(&format!(
        "{}\n---\n{second}",
        rules("One", &[("a", none(), none()), ("b", none(), none())])
    ));
    let decision =
        pull.decide(|entry| if entry.policy() == "other" { denied(entry) } else { satisfied(entry) });
    assert_eq!(names(&decision), ["rule"]);
}

#[test]
fn m3_a_pull_without_a_namespace_is_not_done_with_by_a_rule_about_one() {
    let about_dev =
        json!({ "match": { "any": [{ "resources": { "kinds": ["Pod"], "namespaces": ["dev"] } }] } });
    let mut pull = Pull::new(&rules("One", &[("a", about_dev, none()), ("b", none(), none())]));
    let verdict = |entry: &Entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) };
    for (pod, refusing) in
        [(pod("dev"), &[][..]), (pod("prod"), &["b"][..]), (PodFacts::default(), &["b"][..])]
    {
        pull.pod = pod;
        assert_eq!(names(&pull.decide(verdict)), refusing, "{:?}", pull.pod.namespace);
    }
    assert_eq!(
        pull.set.pull_only_rules(),
        ["check/a", "check/b"],
        "s3: what b refuses depends on what a reads"
    );
    let but_dev = json!({ "exclude": { "any": [{ "resources": { "namespaces": ["prod"] } }] } });
    pull.set = Pull::new(&rules("One", &[("a", but_dev, none()), ("b", none(), none())])).set;
    assert_eq!(names(&pull.decide(verdict)), ["b"], "it may be excluded");
}

#[test]
fn m2_a_form_that_only_we_look_at_does_not_keep_later_rules_away() {
    let mut pull = Pull::new(&rules(
        "One",
        &[
            ("a", none(), json!({ "imageReferences": ["docker.io/library/nginx:*"] })),
            ("b", none(), json!({ "imageReferences": ["*"] })),
        ],
    ));
    let verdict = |entry: &Entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) };
    for (image, refusing) in [("docker.io/library/nginx:1", &[][..]), ("nginx:1", &["b"][..])] {
        pull.reference = Reference::parse(image).unwrap();
        assert_eq!(names(&pull.decide(verdict)), refusing, "{image}");
    }
}

#[test]
fn an_entry_that_asks_for_no_signature_keeps_no_rule_away() {
    let pull = Pull::new(&rules(
        "One",
        &[("a", none(), json!({ "attestors": [], "required": false })), ("b", none(), none())],
    ));
    let decision = pull.decide(|entry| if entry.rule() == "a" { satisfied(entry) } else { denied(entry) });
    assert_eq!(names(&decision), ["b"]);
}

#[test]
fn how_rules_are_applied_is_part_of_the_policies_fingerprint() {
    assert_ne!(plain("All").set.fingerprint(), plain("One").set.fingerprint());
}
