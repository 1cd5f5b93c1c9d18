//! Results by rule: each word in Kyverno's shape, and never a better one than the decision.

use std::time::SystemTime;

use serde_json::json;

use super::evaluate::{
    Decision, Judged, Mode, Resolution, Source, Unmatched, before_resolving, decide, unresolved,
};
use super::tests::{Pull, digest, fault, none, policy, reference, satisfied};
use super::*;
use crate::outcome::{Contact, Denial, DenialReason, Fault, FaultReason};

const IMAGE: &str = "ghcr.io/org/app:v1";

/// What the rules say where each entry has this verdict; `None` where the image could not be resolved.
fn said(pull: &Pull, verdict: Option<&dyn Fn(&Entry) -> EntryVerdict>) -> Vec<(String, Status, String)> {
    let applications = pull.set.matching(&pull.reference, &pull.pod, SystemTime::UNIX_EPOCH);
    let covered = applications.iter().flat_map(|application| &application.entries);
    let judged: Vec<_> = covered
        .filter_map(|covered| {
            Some(Judged {
                policy: covered.entry.policy().into(),
                rule: covered.entry.rule().into(),
                index: covered.entry.index(),
                verdict: verdict?(&covered.entry),
                source: Source::Verified,
            })
        })
        .collect();
    let decision = pull
        .ask(|case| match before_resolving(case) {
            Some(settled) => Some(settled),
            None if verdict.is_none() => Some(unresolved(case, fault(Contact::None))),
            None => Some(decide(case, digest(), Resolution::Answered, &judged)),
        })
        .unwrap();
    let answer = Answer {
        reference: &pull.reference,
        applications: &applications,
        decision: &decision,
        judged: &judged,
        mode: pull.mode,
    };
    let named = |result: RuleReport| {
        let by = if result.policy.is_empty() {
            String::new()
        } else {
            format!("{}/{}", result.policy, result.rule)
        };
        (by, result.status, result.message)
    };
    answer.results().into_iter().map(named).collect()
}

fn one(status: Status, message: impl Into<String>) -> Vec<(String, Status, String)> {
    vec![("check/rule".to_owned(), status, message.into())]
}

fn failing(entry: &Entry) -> EntryVerdict {
    EntryVerdict::Denied(Denial {
        reason: DenialReason::SignatureInvalid,
        policy: entry.policy().into(),
        rule: entry.rule().into(),
        cause: "invalid signature".into(),
        detail: format!("failed to verify image {IMAGE}: why"),
    })
}

fn away(_: &Entry) -> EntryVerdict {
    EntryVerdict::Undecided(fault(Contact::Answered))
}

#[test]
fn a_rule_says_what_kyverno_says() {
    let audit = json!({ "validationFailureAction": "Audit" });
    let attestations = json!({ "attestations": [{ "type": "t" }] });
    let nothing = json!({ "attestors": [], "required": false });
    let enforce = Pull::new(&policy(none(), none(), none()));
    let audited = Pull::new(&policy(audit, none(), none()));
    let verified = format!("verified image signatures for {IMAGE}");
    assert_eq!(said(&enforce, Some(&satisfied)), one(Status::Pass, &verified));
    assert_eq!(said(&audited, Some(&satisfied)), one(Status::Pass, &verified));
    let attested = Pull::new(&policy(none(), none(), attestations));
    assert_eq!(
        said(&attested, Some(&satisfied)),
        one(Status::Pass, format!("verified image attestations for {IMAGE}"))
    );
    let unsigned = Pull::new(&policy(none(), none(), nothing));
    assert_eq!(said(&unsigned, Some(&satisfied)), one(Status::Pass, "image verified"));
    let why = format!("failed to verify image {IMAGE}: why");
    assert_eq!(said(&enforce, Some(&failing)), one(Status::Fail, &why));
    assert_eq!(said(&audited, Some(&failing)), one(Status::Warn, format!("would deny: {why}")));
    assert_eq!(
        said(&enforce, Some(&away)),
        one(Status::Error, format!("failed to verify image {IMAGE}: away"))
    );
    assert_eq!(
        said(&audited, Some(&away)),
        one(Status::Warn, format!("failed to verify image {IMAGE}, allowed (Audit): away"))
    );
}

#[test]
fn what_could_not_be_resolved_is_every_rules_error() {
    let enforce = Pull::new(&policy(none(), none(), none()));
    assert_eq!(said(&enforce, None), one(Status::Error, format!("failed to verify image {IMAGE}: away")));
    let ignored = Pull::new(&policy(json!({ "failurePolicy": "Ignore" }), none(), none()));
    assert_eq!(
        said(&ignored, None),
        one(Status::Warn, format!("failed to verify image {IMAGE}, allowed (ignored): away"))
    );
}

#[test]
fn what_is_skipped_or_exempt_is_said() {
    let skipping = Pull::new(&policy(none(), none(), json!({ "skipImageReferences": ["ghcr.io/*"] })));
    assert_eq!(
        said(&skipping, Some(&satisfied)),
        one(Status::Skip, format!("skipping image reference image {IMAGE}, policy check ruleName rule"))
    );
    let mut exempt = Pull::new(&policy(none(), none(), none()));
    exempt.pod.namespace = Some("kube-system".into());
    assert_eq!(
        said(&exempt, None),
        one(
            Status::Skip,
            format!("image {IMAGE} is not judged: its namespace is exempt (policy.exemptNamespaces)")
        )
    );
}

#[test]
fn an_image_that_no_rule_covers_has_no_results_unless_it_is_refused() {
    let mut pull = Pull::new(&policy(none(), none(), none()));
    pull.reference = reference("quay.io/other:v1");
    assert_eq!(said(&pull, None), []);
    pull.unmatched = Unmatched::Deny;
    let message = "no policy covers this image: quay.io/other:v1";
    assert_eq!(said(&pull, None), [(String::new(), Status::Fail, message.to_owned())]);
    pull.mode = Mode::Audit;
    assert_eq!(said(&pull, None), [(String::new(), Status::Warn, format!("would deny: {message}"))]);
}

#[test]
fn with_apply_rules_one_later_rules_are_skipped() {
    let text = policy(json!({ "applyRules": "One" }), none(), none());
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules = document["spec"]["rules"].as_array_mut().unwrap();
    let mut second = rules[0].clone();
    second["name"] = json!("second");
    rules.push(second);
    let pull = Pull::new(&document.to_string());
    let not_applied = "rule is not applied: an earlier rule of its policy was (applyRules: One)";
    let results: Vec<_> =
        said(&pull, Some(&satisfied)).into_iter().map(|(_, status, message)| (status, message)).collect();
    assert_eq!(
        results,
        [
            (Status::Pass, format!("verified image signatures for {IMAGE}")),
            (Status::Skip, not_applied.to_owned())
        ]
    );
}

#[test]
fn a_decision_that_no_rule_explains_is_still_said() {
    let pull = Pull::new(&policy(none(), none(), none()));
    let applications = pull.set.matching(&pull.reference, &pull.pod, SystemTime::UNIX_EPOCH);
    let judged = [Judged {
        policy: "check".into(),
        rule: "rule".into(),
        index: 0,
        verdict: EntryVerdict::Satisfied(Satisfied::remembered(digest())),
        source: Source::Verified,
    }];
    let decision = Decision::Undecided(fault(Contact::Answered));
    let answer = Answer {
        reference: &pull.reference,
        applications: &applications,
        decision: &decision,
        judged: &judged,
        mode: Mode::Enforce,
    };
    let statuses: Vec<_> = answer.results().iter().map(|result| result.status).collect();
    assert_eq!(statuses, [Status::Pass, Status::Error]);
}

#[test]
fn an_image_that_is_not_there_is_said_to_be_so() {
    let reference = Reference::parse(IMAGE).unwrap();
    let missing = Fault::new(FaultReason::ImageNotFound, format!("{IMAGE}: registry answered 404"));
    assert_eq!(told(&reference, &missing), "no such image in ghcr.io (registry answered 404)");
    let broken = Fault::new(FaultReason::RegistryError, format!("{IMAGE}: registry answered 500"));
    assert_eq!(told(&reference, &broken), "registry answered 500");
}
