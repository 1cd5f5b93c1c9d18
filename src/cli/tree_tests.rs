//! The tree word for word, in both forms, with what an attacker would put into it.

use super::*;
use crate::oci::Digest;
use crate::outcome::{DenialReason, FaultReason};
use crate::policy::evaluate::{Resolution, Source};
use crate::policy::{
    Compatibility, LoadOptions, OnlineRekor, PodFacts, PolicySet, PolicySource, RootSource, Satisfied,
    Statement,
};

const IMAGE: &str = "registry.example.com/app:1";

fn image() -> Reference {
    Reference::parse(IMAGE).unwrap()
}

fn denial(cause: &str, detail: &str) -> Denial {
    Denial {
        reason: DenialReason::SignatureInvalid,
        policy: "signed-by-us".into(),
        rule: "our-registry".into(),
        cause: cause.into(),
        detail: detail.into(),
    }
}

/// The first shipped policy about its image.
fn judgement(decision: Decision, verdict: Option<EntryVerdict>, tree: Option<Explanation>) -> Judgement {
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable("not asked for".into()),
        online_rekor: OnlineRekor::Never,
        now: std::time::SystemTime::UNIX_EPOCH,
    };
    let text = include_str!("../../config/policies/01-one-key.yaml").to_owned();
    let source = PolicySource { file: "p.yaml".into(), text };
    let policies = PolicySet::load(&[source], &options).unwrap().set;
    let judged = |verdict| Judged {
        policy: "signed-by-us".into(),
        rule: "our-registry".into(),
        index: 0,
        verdict,
        source: Source::Verified,
    };
    Judgement {
        decision,
        digest: None,
        resolution: Resolution::NotAsked,
        resolve_fault: None,
        applications: policies.matching(&image(), &PodFacts::default(), std::time::SystemTime::UNIX_EPOCH),
        judged: verdict.into_iter().map(judged).collect(),
        explanations: tree.into_iter().collect(),
        parent: None,
        in_doubt: std::collections::BTreeSet::new(),
    }
}

fn leaf(path: &str, satisfied: bool, causes: &[&str], statements: Vec<Statement>) -> Leaf {
    Leaf {
        path: path.into(),
        repository: "registry.example.com/app".into(),
        signatures: 3,
        satisfied,
        causes: causes.iter().map(|cause| (*cause).to_owned()).collect(),
        statements,
    }
}

fn tree(attestors: Vec<Leaf>, denies: Vec<Checked>) -> Explanation {
    Explanation { rule: "signed-by-us/our-registry".into(), entry: 0, attestors, denies }
}

fn checked(condition: &str, outcome: Outcome, message: &str) -> Checked {
    Checked {
        condition: condition.into(),
        key: "\"a\"".into(),
        operator: "Equals".into(),
        value: "\"b\u{202e}\"".into(),
        outcome,
        message: message.into(),
    }
}

fn refused() -> Judgement {
    let failed = "attestation checks failed for app and predicate t: too old";
    let statements = vec![
        Statement { outcome: Outcome::Holds, cause: String::new(), conditions: vec![] },
        Statement {
            outcome: Outcome::Fails,
            cause: failed.into(),
            conditions: vec![checked("[0].all[1]", Outcome::Fails, "too old")],
        },
    ];
    let other = "an attestation of another predicate type";
    let attestors = vec![
        leaf(".attestors[0].entries[0].keys", true, &["invalid signature"], vec![]),
        leaf(
            ".attestors[0].entries[1].keyless",
            false,
            &["subject mismatch: received a\u{1b}[2J\nb"],
            vec![],
        ),
        leaf(".attestations[0].attestors[0].entries[0].keys", false, &[other, other, failed], statements),
    ];
    let detail = "failed to verify image registry.example.com/app:1: .attestors[0].entries[0].keys: x\n y";
    let denial = denial("invalid signature", detail);
    let tree = tree(attestors, vec![checked("[0].any[0]", Outcome::Holds, "")]);
    judgement(Decision::Deny(vec![denial.clone()]), Some(EntryVerdict::Denied(denial)), Some(tree))
}

#[test]
fn the_tree_says_what_was_found_and_why_it_does_not_count() {
    assert_eq!(
        lines(&image(), &refused()),
        [
            "  signed-by-us/our-registry (Audit)",
            "    verifyImages[0]: denied: invalid signature",
            "    verifyImages[0].attestors[0].entries[0].keys: satisfied, 3 signatures in registry.example.com/app",
            "      does not count: invalid signature",
            "      counts: one signature that meets all that the attestor asks for",
            "    verifyImages[0].attestors[0].entries[1].keyless: not satisfied, 3 signatures in registry.example.com/app",
            "      does not count: subject mismatch: received a\\u{1b}[2J\\nb",
            "    verifyImages[0].attestations[0].attestors[0].entries[0].keys: not satisfied, 3 attestations in registry.example.com/app",
            "      2 do not count: an attestation of another predicate type",
            "      attestation 0: meets its conditions",
            "      attestation 1: does not meet its conditions: attestation checks failed for app and predicate t: too old",
            "        conditions[0].all[1]: \"a\" Equals \"b\\u{202e}\": does not hold (too old)",
            "    validate.deny[0].any[0]: \"a\" Equals \"b\\u{202e}\": holds",
            "  failed to verify image registry.example.com/app:1: .attestors[0].entries[0].keys: x\\n y",
        ]
    );
}

#[test]
fn json_says_the_same() {
    let described = described(&refused());
    let entry = &described[0];
    assert_eq!(described.as_array().unwrap().len(), 1);
    assert_eq!(
        json!([entry["rule"], entry["action"], entry["entry"], entry["verdict"], entry["why"]]),
        json!(["signed-by-us/our-registry", "Audit", 0, "denied", {
            "reason": "signature-invalid",
            "cause": "invalid signature",
            "why": null,
            "message": "failed to verify image registry.example.com/app:1: .attestors[0].entries[0].keys: x\n y",
        }])
    );
    assert_eq!(
        entry["attestors"][1],
        json!({
            "path": ".attestors[0].entries[1].keyless",
            "repository": "registry.example.com/app",
            "signatures": 3,
            "satisfied": false,
            "causes": ["subject mismatch: received a\u{1b}[2J\nb"],
        })
    );
    assert_eq!(
        entry["attestors"][2]["statements"][1]["conditions"][0],
        json!({
            "condition": "[0].all[1]", "key": "\"a\"", "operator": "Equals", "value": "\"b\u{202e}\"",
            "outcome": "fails", "message": "too old",
        })
    );
    assert_eq!(entry["denies"][0]["condition"], "[0].any[0]");
}

#[test]
fn every_verdict_is_said() {
    let undecided = || Fault::new(FaultReason::RegistryError, format!("{IMAGE}: answered 500"));
    let of = |verdict: Option<EntryVerdict>| {
        let judgement = judgement(Decision::Undecided(undecided()), verdict, None);
        let verdict = described(&judgement)[0]["verdict"].as_str().unwrap().to_owned();
        (lines(&image(), &judgement)[1].clone(), verdict)
    };
    let line = |text: &str| format!("    verifyImages[0]: {text}");
    let satisfied = EntryVerdict::Satisfied(Satisfied::remembered(Digest::of(b"")));
    assert_eq!(of(Some(satisfied)), (line("satisfied"), "satisfied".into()));
    assert_eq!(of(None), (line("not judged"), "not judged".into()));
    assert_eq!(
        of(Some(EntryVerdict::Undecided(undecided()))),
        (line("undecided: answered 500"), "undecided".into())
    );
}

#[test]
fn entries_that_are_skipped_say_why() {
    let mut skipped = refused();
    skipped.applications[0].entries[0].coverage = Coverage::Skipped;
    assert_eq!(lines(&image(), &skipped)[1], "    verifyImages[0]: skipped (skipImageReferences)");
    skipped.applications[0].skipped = Some("rule skipped".into());
    assert_eq!(lines(&image(), &skipped)[1], "    rule skipped");
    let entry = &described(&skipped)[0];
    assert_eq!(
        (&entry["verdict"], &entry["why"]),
        (&json!("skipped"), &json!({ "message": "rule skipped" }))
    );
}

#[test]
fn nothing_in_a_line_steers_a_terminal() {
    assert_eq!(plain("ä a\\b"), "ä a\\b");
    assert_eq!(plain("\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{7f}"), "\\u{1b}]0;x\\u{7}\\r\\n\\u{9b}2J\\u{7f}");
    assert_eq!(plain("\u{202e}\u{2066}\u{2028}"), "\\u{202e}\\u{2066}\\u{2028}");
    assert_eq!(plain(&"a".repeat(5000)), format!("{}…", "a".repeat(4096)));
}

#[test]
fn json_stays_the_same_json_without_what_steers_a_terminal() {
    let value = json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}ä\"\\" });
    let text = shown(&value);
    assert_eq!(text, r#"{"a\u009b":"\u001b[2J\u007f\u202eä\"\\"}"#);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
}
