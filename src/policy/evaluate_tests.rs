//! Decisions, as tables.

use super::evaluate::{
    Approved, Decision, Forward, Mode, Source, Unmatched, before_resolving, before_verifying, unresolved,
};
use super::tests::{Pull, denied, digest, fault, none, permit, pod, policy, reference, satisfied};
use super::*;
use crate::outcome::{Contact, DenialReason, FaultReason};

#[test]
fn a_verified_image_is_pinned_even_with_mutate_digest_false() {
    let pull = Pull::new(&policy(
        none(),
        none(),
        serde_json::json!({ "mutateDigest": false, "verifyDigest": false }),
    ));
    let permit = permit(pull.decide(satisfied));
    assert_eq!(permit.forward(), &Forward::Pinned(format!("ghcr.io/org/app@{}", digest())));
    assert_eq!((permit.source(), permit.digest()), (Source::Verified, Some(digest())));
}

#[test]
fn a_proof_of_another_digest_is_no_proof() {
    let pull = Pull::new(&policy(none(), none(), none()));
    let decision = pull.decide(|_| EntryVerdict::Satisfied(Satisfied::remembered(Digest::of(b"other"))));
    assert!(matches!(decision, Decision::Undecided(fault) if fault.reason == FaultReason::Internal));
}

#[test]
fn d1_audit_rules_never_refuse_and_audit_mode_refuses_nothing() {
    let audit = Pull::new(&policy(serde_json::json!({ "validationFailureAction": "Audit" }), none(), none()));
    let mut node_audit = Pull::new(&policy(none(), none(), none()));
    node_audit.mode = Mode::Audit;
    for pull in [&audit, &node_audit] {
        let permit = permit(pull.decide(denied));
        assert_eq!(
            (permit.forward(), permit.source(), permit.would_deny().len()),
            (&Forward::AsSent, Source::Audited, 1)
        );
        let away = self::permit(pull.decide(|_| EntryVerdict::Undecided(fault(Contact::Answered))));
        assert_eq!((away.source(), away.would_fault().is_some()), (Source::Audited, true));
    }
    let mut unmatched = Pull::new(&policy(none(), none(), none()));
    (unmatched.mode, unmatched.unmatched, unmatched.reference) =
        (Mode::Audit, Unmatched::Deny, reference("other.io/a"));
    assert_eq!(permit(unmatched.ask(before_resolving).unwrap()).source(), Source::Audited);
}

#[test]
fn d2_names_every_failing_rule() {
    let rule = |name: &str| {
        serde_json::from_str::<serde_json::Value>(&policy(
            none(),
            serde_json::json!({ "name": name }),
            none(),
        ))
        .unwrap()["spec"]["rules"][0]
            .clone()
    };
    let pull =
        Pull::new(&policy(serde_json::json!({ "rules": [rule("b"), rule("a"), rule("c")] }), none(), none()));
    let decision = pull.decide(|entry| if entry.rule() == "c" { satisfied(entry) } else { denied(entry) });
    let Decision::Deny(denials) = decision else { panic!("{decision:?}") };
    assert_eq!(denials.iter().map(|denial| denial.rule.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn d4_ignore_acts_only_where_nobody_answered() {
    for (policy_word, contact, passes) in [
        ("Ignore", Contact::None, true),
        ("Ignore", Contact::Answered, false),
        ("Fail", Contact::None, false),
    ] {
        let pull = Pull::new(&policy(serde_json::json!({ "failurePolicy": policy_word }), none(), none()));
        let decision = pull.ask(|case| Some(unresolved(case, fault(contact)))).unwrap();
        assert_eq!(
            matches!(&decision, Decision::Allow(permit) if permit.source() == Source::Ignored && *permit.forward() == Forward::AsSent),
            passes,
            "{policy_word} {contact:?}"
        );
        // Once a digest was resolved by an answer, a fault of the evidence never passes.
        let evidence = pull.decide(|_| EntryVerdict::Undecided(fault(contact)));
        assert!(matches!(evidence, Decision::Undecided(_)), "{policy_word} {contact:?}");
    }
}

#[test]
fn d5_no_policy_is_not_unmatched() {
    let mut pull = Pull::new("");
    let Some(Decision::Deny(denials)) = pull.ask(before_resolving) else { panic!("not denied") };
    assert_eq!((denials[0].reason, denials[0].cause.as_str()), (DenialReason::NoPolicy, "no policy loaded"));
    pull.mode = Mode::Audit;
    assert_eq!(permit(pull.ask(before_resolving).unwrap()).source(), Source::Audited);
}

#[test]
fn m3_m4_exempt_and_approved() {
    let mut pull = Pull::new(&policy(none(), none(), none()));
    assert!(pull.ask(before_resolving).is_none(), "has to be judged");
    pull.approved = Approved::parse(&format!("# bootstrap\nghcr.io/org/app@{}\n\n", digest())).unwrap();
    assert!(pull.ask(before_resolving).is_none());
    let approved = permit(pull.ask(|case| before_verifying(case, digest())).unwrap());
    assert_eq!((approved.source(), approved.digest()), (Source::Approved, Some(digest())));
    assert!(pull.ask(|case| before_verifying(case, Digest::of(b"other"))).is_none());
    pull.pod = pod("kube-system");
    assert_eq!(permit(pull.ask(before_resolving).unwrap()).source(), Source::Exempt);
    for odd in ["ghcr.io/org/app", "ghcr.io/org/app@sha256:00", "UPPER@sha256:00", "a:v1@sha256:00"] {
        assert_eq!(Approved::parse(odd).unwrap_err().line, 1, "{odd}");
    }
}

#[test]
fn unmatched_deny_refuses_and_skipped_passes() {
    let mut pull = Pull::new(&policy(
        none(),
        none(),
        serde_json::json!({ "skipImageReferences": ["ghcr.io/org/skip*"] }),
    ));
    pull.reference = reference("ghcr.io/org/skip:1");
    assert_eq!(permit(pull.ask(before_resolving).unwrap()).source(), Source::Skipped);
    pull.reference = reference("other.io/a");
    assert_eq!(permit(pull.ask(before_resolving).unwrap()).source(), Source::Unmatched);
    pull.unmatched = Unmatched::Deny;
    assert!(
        matches!(pull.ask(before_resolving), Some(Decision::Deny(denials)) if denials[0].reason == DenialReason::Unmatched)
    );
}
