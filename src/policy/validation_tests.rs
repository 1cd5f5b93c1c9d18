//! What Kyverno 1.19 accepts and refuses of a policy, and which results block, by its own tests
//! (`api/kyverno/v1/*_test.go`, `pkg/webhooks/utils/block_test.go`): inputs and answers, in our words.
//! Where ours differ, the row says so, and `tests/differences.md` why.

use serde_json::{Value, json};

use super::evaluate::{Decision, unresolved};
use super::tests::{KEY, Pull, denied, fault, load, none, policy};
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
    let twice: Value = serde_json::from_str(&rule(none())).unwrap();
    let twice =
        policy(json!({ "rules": [twice["spec"]["rules"][0], twice["spec"]["rules"][0]] }), none(), none());
    let errors = load(&twice).unwrap_err();
    assert!(errors.iter().any(|error| error.message.contains("rule `rule` is defined twice")), "{errors:?}");
}

#[test]
fn which_results_block() {
    /// A result of the one rule, and whether nobody answered.
    #[derive(Debug, Clone, Copy)]
    enum Result {
        Fail,
        Error(Contact),
    }
    let blocks = |action: &str, failure_policy: &str, result: Result| {
        let spec = json!({ "validationFailureAction": action, "failurePolicy": failure_policy });
        let pull = Pull::new(&policy(spec, none(), none()));
        let decision = match result {
            Result::Fail => pull.decide(denied),
            Result::Error(contact) => pull.ask(|case| Some(unresolved(case, fault(contact)))).unwrap(),
        };
        match decision {
            Decision::Allow(_) => false,
            Decision::Deny(_) | Decision::Undecided(_) => true,
        }
    };
    let socket = Result::Error(Contact::None);
    for (action, failure_policy, result, upstream, ours) in [
        ("Enforce", "Fail", Result::Fail, true, true),
        ("Enforce", "Ignore", Result::Fail, true, true),
        ("Audit", "Fail", Result::Fail, false, false),
        ("Audit", "Ignore", Result::Fail, false, false),
        ("Enforce", "Fail", socket, true, true),
        ("Enforce", "Ignore", socket, false, false),
        // An Audit rule never refuses (rule D1).
        ("Audit", "Fail", socket, true, false),
        ("Audit", "Ignore", socket, false, false),
        // What a registry answers is a `fail` upstream, so Ignore does not help there either.
        ("Enforce", "Ignore", Result::Error(Contact::Answered), true, true),
        ("Audit", "Fail", Result::Error(Contact::Answered), false, false),
    ] {
        assert_eq!(
            blocks(action, failure_policy, result),
            ours,
            "{action} {failure_policy} {result:?}, upstream {upstream}"
        );
    }
}
