//! What Kyverno 1.19 accepts and refuses of a policy, and which results block, by its own tests
//! (`api/kyverno/v1/*_test.go`, `pkg/webhooks/utils/block_test.go`): inputs and answers, in our words.
//! Where ours differ, the row says so, and `tests/differences.md` why.

use serde_json::{Value, json};

use super::evaluate::{Decision, Forward, Source, unresolved};
use super::tests::{KEY, Pull, denied, digest, fault, load, none, options, permit, policy, satisfied};
use super::*;
use crate::outcome::Contact;

/// What loading says of an entry with these fields and no attestors of its own.
fn entry(fields: &Value) -> Result<Loaded, Vec<Remark>> {
    let mut document: Value = serde_json::from_str(&policy(none(), none(), none())).unwrap();
    document["spec"]["rules"][0]["verifyImages"][0] = fields.clone();
    load(&document.to_string())
}

fn accepts(fields: &Value) {
    if let Err(errors) = entry(fields) {
        panic!("{fields}: {errors:?}");
    }
}

fn refuses(fields: &Value, wanted: &str) {
    let errors = entry(fields).expect_err(&fields.to_string());
    assert!(
        errors.iter().any(|error| error.message.contains(wanted)),
        "{fields}: {wanted:?}, got {errors:?}"
    );
}

fn attestors(attestor: Value) -> Value {
    json!({ "imageReferences": ["*"], "attestors": [{ "entries": [attestor] }] })
}

#[test]
fn aliases_and_fields_of_an_entry() {
    let images = json!(["bla"]);
    accepts(&json!({ "imageReferences": images, "key": KEY }));
    accepts(&json!({ "imageReferences": images }));
    accepts(&json!({ "image": "bla", "key": KEY }));
    accepts(&json!({ "imageReferences": ["*"], "attestors": [] }));
    accepts(&json!({ "imageReferences": ["*"], "attestations": [{ "predicateType": "foo" }] }));
    // Upstream refuses an issuer without roots since 1.8; the source page's policies have one.
    accepts(&json!({ "imageReferences": images, "issuer": "bla", "subject": "*" }));
    refuses(&json!({ "image": "", "key": KEY }), "An image reference is required");
    refuses(&json!({ "key": KEY }), "An image reference is required");
    // Upstream finds out when it verifies.
    refuses(&json!({ "imageReferences": images, "key": "bla" }), "`bla` is a key reference");
    refuses(
        &json!({ "imageReferences": images, "issuer": "bla", "subject": "bla", "roots": "bla" }),
        "keyless.roots",
    );
}

#[test]
fn attestors_and_their_sets() {
    let keys = |text: &str| json!({ "keys": { "publicKeys": text } });
    accepts(&attestors(keys(KEY)));
    accepts(&attestors(
        json!({ "keyless": { "rekor": { "url": "https://rekor.sigstore.dev" }, "issuer": "bla", "subject": "bla" } }),
    ));
    accepts(&attestors(json!({ "attestor": { "count": 1, "entries": [keys(KEY), keys(KEY)] } })));
    for algorithm in ["sha256", "sha384", "sha512"] {
        accepts(&attestors(json!({ "keys": { "publicKeys": KEY, "signatureAlgorithm": algorithm } })));
    }
    let set = |set: Value| json!({ "imageReferences": ["*"], "attestors": [set] });
    accepts(&set(json!({ "count": 1, "entries": [keys(KEY), keys(KEY)] })));
    refuses(&set(json!({ "entries": [] })), "An entry is required");
    refuses(&set(json!({})), "An entry is required");
    refuses(&set(json!({ "count": 2, "entries": [keys(KEY)] })), "Count cannot exceed length of entries");
    refuses(
        &attestors(json!({ "attestor": { "count": 2, "entries": [keys(KEY)] } })),
        "Count cannot exceed length of entries",
    );
    refuses(&attestors(json!({})), "keys, certificates, keyless, or a nested attestor is required");
    refuses(
        &attestors(json!({ "keys": { "publicKeys": KEY }, "certificates": { "cert": "x" } })),
        "keys, certificates, keyless, or a nested attestor is required",
    );
    refuses(&attestors(json!({ "keys": {} })), "A public key, kms key or secret is required");
    refuses(
        &attestors(json!({ "keys": { "publicKeys": KEY, "signatureAlgorithm": "sha1" } })),
        "invalid signature algorithm provided sha1",
    );
    // Upstream takes it; no key of ours verifies it.
    refuses(
        &attestors(json!({ "keys": { "publicKeys": KEY, "signatureAlgorithm": "sha224" } })),
        "invalid signature algorithm provided sha224",
    );
    refuses(&attestors(json!({ "certificates": {} })), "cert or certChain required");
    refuses(
        &attestors(json!({ "keyless": { "issuer": "a", "subject": "b" } })),
        "Either Rekor URL or roots are required",
    );
    refuses(&attestors(json!({ "keyless": { "rekor": {} } })), "An URL is required");
}

#[test]
fn policies_and_rules() {
    let matching = |resources: Value| json!({ "match": { "any": [{ "resources": resources }] } });
    let namespaced = |rule: Value| {
        policy(none(), rule, none())
            .replace("ClusterPolicy", "Policy")
            .replace(r#""name":"check""#, r#""name":"check","namespace":"team""#)
    };
    let rule = |rule: Value| policy(none(), rule, none());
    for (text, wanted) in [
        (
            rule(matching(json!({ "kinds": ["Pod"], "name": "a", "names": ["b"] }))),
            "Both name and names can not be specified together",
        ),
        (
            rule(matching(json!({ "kinds": ["Pod"], "selector": {} }))),
            "The requirements are not specified in selector",
        ),
        (
            rule(json!({ "exclude": { "any": [{ "resources": { "selector": {} } }] } })),
            "The requirements are not specified in selector",
        ),
        (
            rule(
                json!({ "match": { "any": [{ "resources": { "kinds": ["Pod"] } }], "all": [{ "resources": { "kinds": ["Pod"] } }] } }),
            ),
            "match takes one of any, all or resources",
        ),
        (
            namespaced(matching(json!({ "kinds": ["Pod"], "namespaces": ["a"] }))),
            "Filtering namespaces not allowed in namespaced policies",
        ),
        (
            rule(json!({ "exclude": { "any": [{ "resources": { "kinds": ["Pod"] } }] } })),
            "Rule is matching an empty set",
        ),
        (
            rule(
                json!({ "match": { "resources": { "kinds": ["Pod"], "selector": { "matchLabels": { "a": "b" } } } },
                "exclude": { "resources": { "kinds": ["Pod"], "selector": { "matchLabels": { "a": "b" } } } } }),
            ),
            "Rule is matching an empty set",
        ),
        (rule(json!({ "name": "" })), "a rule has no name"),
        (rule(json!({ "mutate": { "a": 1 } })), "a rule is of one kind"),
        (
            policy(
                json!({ "failurePolicy": "Fail", "webhookConfiguration": { "failurePolicy": "Ignore" } }),
                none(),
                none(),
            ),
            "failurePolicy and webhookConfiguration.failurePolicy are both set",
        ),
    ] {
        let errors = load(&text).expect_err(wanted);
        assert!(errors.iter().any(|error| error.message.contains(wanted)), "{wanted:?}, got {errors:?}");
    }
    assert!(load(&namespaced(none())).is_ok());
    let narrower = json!({ "exclude": { "any": [{ "resources": { "kinds": ["Pod"], "names": ["a"] } }] } });
    assert!(load(&rule(narrower)).is_ok());
    let twice: Value = serde_json::from_str(&rule(none())).unwrap();
    let twice =
        policy(json!({ "rules": [twice["spec"]["rules"][0], twice["spec"]["rules"][0]] }), none(), none());
    let errors = load(&twice).unwrap_err();
    assert!(errors.iter().any(|error| error.message.contains("rule `rule` is defined twice")), "{errors:?}");
}

/// A result of the one rule.
#[derive(Debug, Clone, Copy)]
enum RuleResult {
    Fail,
    /// Whether anybody answered, while the image was resolved.
    Unresolved(Contact),
    /// The same, while signatures were looked for.
    NoEvidence(Contact),
}

impl RuleResult {
    fn decision(self, pull: &Pull) -> Decision {
        match self {
            Self::Fail => pull.decide(denied),
            Self::Unresolved(contact) => pull.ask(|case| Some(unresolved(case, fault(contact)))).unwrap(),
            Self::NoEvidence(contact) => pull.decide(|_| EntryVerdict::Undecided(fault(contact))),
        }
    }
}

fn pull(action: &str, failure_policy: &str, compatibility: Compatibility, entry: Value) -> Pull {
    let spec = json!({ "validationFailureAction": action, "failurePolicy": failure_policy });
    let text = policy(spec, none(), entry);
    let source = PolicySource { file: "p.yaml".into(), text: text.clone() };
    let set = PolicySet::load(&[source], &LoadOptions { compatibility, ..options() }).unwrap().set;
    Pull { set, ..Pull::new(&text) }
}

fn blocks(decision: &Decision) -> bool {
    match decision {
        Decision::Allow(_) => false,
        Decision::Deny(_) | Decision::Undecided(_) => true,
    }
}

#[test]
fn d4_which_results_block() {
    use Contact::{Answered, None as Nobody};
    use RuleResult::{Fail, NoEvidence, Unresolved};
    // Upstream, then ours by default and under `compatibility: strict`.
    for (action, failure_policy, result, upstream, default, strict) in [
        ("Enforce", "Fail", Fail, true, true, true),
        ("Enforce", "Ignore", Fail, true, true, true),
        ("Audit", "Fail", Fail, false, false, false),
        ("Audit", "Ignore", Fail, false, false, false),
        ("Enforce", "Fail", Unresolved(Nobody), true, true, true),
        ("Enforce", "Ignore", Unresolved(Nobody), false, false, false),
        ("Enforce", "Fail", NoEvidence(Nobody), true, true, true),
        // Whoever can cut one connection could switch verification off.
        ("Enforce", "Ignore", NoEvidence(Nobody), false, true, false),
        // An Audit rule never refuses (rule D1).
        ("Audit", "Fail", Unresolved(Nobody), true, false, false),
        ("Audit", "Fail", NoEvidence(Nobody), true, false, false),
        ("Audit", "Ignore", Unresolved(Nobody), false, false, false),
        // What a registry answers is a failure upstream, so Ignore does not help.
        ("Enforce", "Ignore", Unresolved(Answered), true, true, true),
        ("Enforce", "Ignore", NoEvidence(Answered), true, true, true),
        ("Audit", "Fail", NoEvidence(Answered), false, false, false),
    ] {
        for (compatibility, wanted) in [(Compatibility::Default, default), (Compatibility::Strict, strict)] {
            let decision = result.decision(&pull(action, failure_policy, compatibility, none()));
            assert_eq!(
                blocks(&decision),
                wanted,
                "{action} {failure_policy} {result:?} {compatibility:?}, upstream {upstream}"
            );
        }
    }
}

#[test]
fn d4_what_strict_ignores_is_pinned_and_never_counts_as_verified() {
    let by_strict = |entry: Value| pull("Enforce", "Ignore", Compatibility::Strict, entry);
    let away = RuleResult::NoEvidence(Contact::None);
    let permit = permit(away.decision(&by_strict(none())));
    assert_eq!((permit.source(), permit.digest()), (Source::Ignored, Some(digest())));
    assert_eq!(permit.forward(), &Forward::Pinned(format!("ghcr.io/org/app@{}", digest())));
    assert_eq!(permit.would_fault(), Some(&fault(Contact::None)));
    // Of attestations upstream says that they fail, whatever the cause.
    let attested = json!({ "attestors": [], "attestations": [{ "type": "a", "attestors": [{ "entries": [{ "keys": { "publicKeys": KEY } }] }] }] });
    assert!(blocks(&away.decision(&by_strict(attested))));
}

#[test]
fn d4_what_strict_ignores_of_one_rule_makes_good_for_no_other() {
    let mut document: Value =
        serde_json::from_str(&policy(json!({ "failurePolicy": "Ignore" }), none(), none())).unwrap();
    let rules = document["spec"]["rules"].as_array_mut().unwrap();
    let mut second = rules[0].clone();
    second["name"] = json!("second");
    rules.push(second);
    let of_fail = policy(json!({ "failurePolicy": "Fail" }), none(), none())
        .replace(r#""name":"check""#, r#""name":"other""#);
    let text = format!("{document}\n---\n{of_fail}");
    let source = PolicySource { file: "p.yaml".into(), text: text.clone() };
    let options = LoadOptions { compatibility: Compatibility::Strict, ..options() };
    let pull = Pull { set: PolicySet::load(&[source], &options).unwrap().set, ..Pull::new(&text) };
    let away = || EntryVerdict::Undecided(fault(Contact::None));
    // The rule of the policy that does not ignore.
    let decision = pull.decide(|entry| if entry.policy() == "other" { away() } else { satisfied(entry) });
    assert!(matches!(decision, Decision::Undecided(_)), "{decision:?}");
    let decision = pull.decide(|entry| if entry.rule() == "second" { denied(entry) } else { away() });
    assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
    let decision = pull.decide(|entry| if entry.policy() == "other" { satisfied(entry) } else { away() });
    assert_eq!(permit(decision).source(), Source::Ignored);
}
