//! Documents as they are written for clusters: Lists, every field that the CRD knows, and what is said
//! of those without a meaning on a node.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::kyverno::FIELDS;
use super::tests::{load, none, pod, policy, reference};
use super::*;

#[test]
fn a_file_holds_at_most_a_thousand_documents() {
    let documents = |count: usize| vec!["a: 1\n"; count].join("---\n");
    let errors = |text: &str| load(text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    // None of them is of a kind, which is said of each.
    assert_eq!(errors(&documents(1000)).len(), 1000);
    let found = errors(&documents(1001));
    assert_eq!(found.len(), 1001);
    assert_eq!(found[1000], "p.yaml: more than 1000 documents; split it");
    // Each document is read behind as many empty lines as are before it.
    assert_eq!(errors(&"---\n".repeat(200_000)), ["p.yaml: more than 1000 documents; split it"]);
}

fn messages(loaded: &Loaded, severity: Severity) -> Vec<String> {
    let notices = loaded.notices.iter().filter(|remark| remark.severity == severity);
    notices.map(ToString::to_string).collect()
}

/// The fields of Kyverno 1.19's CRDs (`config/crds/kyverno`), v1 with v2beta1 and v2, below a type of ours.
const CRD: &[(&str, &[&str])] = &[
    ("Document", &["apiVersion", "kind", "metadata", "spec", "status"]),
    (
        "Spec",
        &[
            "admission",
            "applyRules",
            "background",
            "emitWarning",
            "failurePolicy",
            "generateExisting",
            "generateExistingOnPolicyUpdate",
            "mutateExistingOnPolicyUpdate",
            "rules",
            "schemaValidation",
            "useServerSideApply",
            "validationFailureAction",
            "validationFailureActionOverrides",
            "webhookConfiguration",
            "webhookTimeoutSeconds",
        ],
    ),
    ("WebhookConfiguration", &["failurePolicy", "matchConditions", "timeoutSeconds"]),
    ("ActionOverride", &["action", "namespaceSelector", "namespaces"]),
    (
        "Rule",
        &[
            "celPreconditions",
            "context",
            "exclude",
            "generate",
            "imageExtractors",
            "match",
            "mutate",
            "name",
            "preconditions",
            "reportProperties",
            "skipBackgroundRequests",
            "validate",
            "verifyImages",
        ],
    ),
    ("MatchResources", &["all", "any", "clusterRoles", "resources", "roles", "subjects"]),
    ("Filter", &["clusterRoles", "resources", "roles", "subjects"]),
    (
        "Resources",
        &[
            "annotations",
            "kinds",
            "name",
            "names",
            "namespaceSelector",
            "namespaces",
            "operations",
            "selector",
        ],
    ),
    ("Selector", &["matchExpressions", "matchLabels"]),
    ("Expression", &["key", "operator", "values"]),
    (
        "VerifyImages",
        &[
            "additionalExtensions",
            "annotations",
            "attestations",
            "attestors",
            "cosignOCI11",
            "failureAction",
            "image",
            "imageReferences",
            "imageRegistryCredentials",
            "issuer",
            "key",
            "mutateDigest",
            "repository",
            "required",
            "roots",
            "skipImageReferences",
            "subject",
            "type",
            "useCache",
            "validate",
            "verifyDigest",
        ],
    ),
    ("RegistryCredentials", &["allowInsecureRegistry", "providers", "secrets"]),
    ("Attestation", &["attestors", "conditions", "name", "predicateType", "type"]),
    ("AttestorSet", &["count", "entries"]),
    (
        "Attestor",
        &["annotations", "attestor", "certificates", "keyless", "keys", "repository", "signatureAlgorithm"],
    ),
    ("Keys", &["ctlog", "kms", "publicKeys", "rekor", "secret", "signatureAlgorithm"]),
    ("Certificates", &["cert", "certChain", "ctlog", "rekor"]),
    (
        "Keyless",
        &[
            "additionalExtensions",
            "ctlog",
            "issuer",
            "issuerRegExp",
            "rekor",
            "roots",
            "subject",
            "subjectRegExp",
        ],
    ),
    ("Rekor", &["ignoreTlog", "pubkey", "url"]),
    ("CtLog", &["ignoreSCT", "pubkey", "tsaCertChain"]),
    ("ExceptionDocument", &["apiVersion", "kind", "metadata", "spec"]),
    ("ExceptionSpec", &["background", "conditions", "exceptions", "match", "podSecurity"]),
    ("ExceptedRules", &["policyName", "ruleNames"]),
];

#[test]
fn every_field_of_the_crds_is_known() {
    for (name, wanted) in CRD {
        let known = FIELDS.iter().find(|(ours, _)| ours == name).map(|(_, fields)| *fields);
        let missing: Vec<_> = wanted.iter().filter(|field| !known.unwrap_or(&[]).contains(field)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn a_list_is_its_items_with_their_own_lines() {
    let text = format!(
        "apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n- {}\n- apiVersion: v1\n  kind: Secret\n- apiVersion: kyverno.io/v2\n  kind: PolicyException\n  metadata: {{name: e}}\n  spec:\n    background: true\n    exceptions: [{{policyName: check, ruleNames: [rule]}}]\n    match: {{any: [{{resources: {{kinds: [Pod]}}}}]}}\n",
        policy(none(), none(), none())
    );
    let loaded = load(&text).unwrap();
    assert_eq!(
        messages(&loaded, Severity::Notice),
        [
            "p.yaml:7: kind `Secret` of `v1` is skipped: it has no verifyImages rules",
            "p.yaml:12: exception e: background means nothing on a node: an exception counts whenever an image is judged",
        ]
    );
    let applications = loaded.set.matching(&reference("ghcr.io/org/a"), &pod("a"), SystemTime::UNIX_EPOCH);
    assert_eq!(applications[0].entries[0].coverage, Coverage::Skipped);
}

#[test]
fn what_is_wrong_in_a_list_is_an_error_at_its_line() {
    let good = policy(none(), none(), none());
    let list = |items: &str| format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    for (text, line, wanted) in [
        (list(&format!("- {good}\n- {good}\n")), 5, "ClusterPolicy `check` is defined twice"),
        (
            list(
                "- apiVersion: kyverno.io/v1\n  kind: ClusterPolicy\n  metadata: {name: a}\n  spec:\n    bogus: 1\n",
            ),
            8,
            "bogus",
        ),
        (list("- apiVersion: kyverno.io/v1\n  kind: Clusterpolicy\n"), 5, "is it misspelt?"),
        (list("- apiVersion: v1\n  kind: List\n  items: []\n"), 5, "a List inside a List"),
        (list("- metadata: {name: a}\n"), 0, "is it misspelt?"),
        (list(&format!("- {good}\nbogus: 1\n")), 0, "unknown field `bogus` of a List"),
        ("apiVersion: v1\nkind: List\nitems: {a: b}\n".to_owned(), 3, ""),
    ] {
        let errors = load(&text).expect_err(wanted);
        assert!(
            errors.iter().any(|error| (line == 0 || error.line == line) && error.message.contains(wanted)),
            "wanted {wanted:?} at {line}, got {errors:?}"
        );
    }
    let empty = load("apiVersion: v1\nkind: List\n").unwrap();
    assert_eq!(messages(&empty, Severity::Notice), ["p.yaml:2: kind `List` is empty"]);
}

#[test]
fn what_means_nothing_on_a_node_is_said_with_the_reason() {
    let spec = json!({
        "emitWarning": true, "schemaValidation": true, "mutateExistingOnPolicyUpdate": true, "generateExisting": true,
        "useServerSideApply": true, "webhookConfiguration": { "timeoutSeconds": 10, "matchConditions": [] },
    });
    let rule = json!({ "skipBackgroundRequests": true, "reportProperties": { "a": "b" }, "imageExtractors": { "Task": [{ "path": "/a" }] } });
    let text = policy(spec, rule, json!({ "useCache": false }));
    let text = text.replace(
        r#""metadata":{"#,
        r#""metadata":{"annotations":{"pod-policies.kyverno.io/autogen-controllers":"none"},"#,
    );
    let notices = messages(&load(&text).unwrap(), Severity::Notice);
    for wanted in [
        "check: emitWarning means nothing on a node: a pull has no place for warnings; what Audit finds is logged",
        "check: schemaValidation means nothing on a node: upstream no longer reads it either",
        "check: mutateExistingOnPolicyUpdate means nothing on a node: it is about mutate or generate rules",
        "check: generateExisting means nothing on a node: it is about mutate or generate rules",
        "check: useServerSideApply means nothing on a node: it is about mutate or generate rules",
        "check: webhookConfiguration.timeoutSeconds means nothing on a node: limits.verification bounds a pull",
        "check: webhookConfiguration.matchConditions is empty",
        "check: the annotation pod-policies.kyverno.io/autogen-controllers means nothing on a node: a pull is always for a pod, never for its controller",
        "check/rule: skipBackgroundRequests means nothing on a node: requests of Kyverno's own controllers never reach a node",
        "check/rule: reportProperties means nothing on a node: there are no policy reports here",
        "check/rule: imageExtractors means nothing on a node: a pull names its image itself",
        "check/rule: verifyImages[0]: useCache means nothing on a node: a verdict is kept for one digest and what was asked of it (cache.fresh)",
    ] {
        assert!(
            notices.iter().any(|notice| notice == &format!("p.yaml:1: {wanted}")),
            "{wanted}: {notices:#?}"
        );
    }
    assert_eq!(notices.len(), 12, "{notices:#?}");
}

#[test]
fn credentials_of_a_cluster_are_not_read_and_that_is_said() {
    let credentials = json!({ "imageRegistryCredentials": {
        "allowInsecureRegistry": true, "providers": ["default", "google", "azure", "amazon", "github"] } });
    let loaded = load(&policy(none(), none(), credentials)).unwrap();
    let notices = messages(&loaded, Severity::Notice);
    for field in ["allowInsecureRegistry", "providers"] {
        let start =
            format!("p.yaml:1: check/rule: verifyImages[0]: imageRegistryCredentials.{field} is not read: ");
        assert!(notices.iter().any(|notice| notice.starts_with(&start)), "{field}: {notices:#?}");
    }
    let quiet = json!({ "imageRegistryCredentials": { "allowInsecureRegistry": false, "secrets": [] } });
    assert!(load(&policy(none(), none(), quiet)).unwrap().notices.is_empty());
    // What is asked of the image is the same with and without them.
    let print = |entry: Value| load(&policy(none(), none(), entry)).unwrap().set.fingerprint();
    assert_eq!(
        print(none()),
        print(json!({ "imageRegistryCredentials": { "allowInsecureRegistry": true } }))
    );
}

#[test]
fn secrets_for_registries_are_named_with_their_place() {
    let secrets = |names: &[&str]| {
        load(&policy(none(), none(), json!({ "imageRegistryCredentials": { "secrets": names } })))
    };
    let loaded = secrets(&["login", "team-a/login.v2"]).unwrap();
    let named: Vec<_> = loaded.secrets.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(named, ["login", "team-a/login.v2"]);
    let remark = loaded.secrets[0].remark(Severity::Notice, "text").to_string();
    assert_eq!(remark, "p.yaml:1: check/rule: verifyImages[0]: imageRegistryCredentials.secrets: text");
    // They are names of files as well.
    for name in ["", "/", "a/", "/etc/x", "a/b/c", "..", "../x", "a/..", "A", "a_b", "a b", "{{ a }}", "-a"] {
        let errors = secrets(&[name]).map(|_| ()).unwrap_err();
        let wanted = format!("imageRegistryCredentials.secrets: `{name}` is not `name` or `namespace/name`");
        assert!(errors.iter().any(|error| error.message.ends_with(&wanted)), "{name}: {errors:?}");
    }
}

#[test]
fn mutate_digest_beside_audit_is_a_notice() {
    let notice = "p.yaml:1: check/rule: mutateDigest is true, its default, which a cluster refuses beside Audit; here what is verified is pinned, and what Audit lets pass is not";
    let audit = json!({ "validationFailureAction": "Audit" });
    for (spec, entry, said) in [
        (audit.clone(), none(), true),
        (audit.clone(), json!({ "mutateDigest": false }), false),
        (audit, json!({ "failureAction": "Enforce" }), false),
        (none(), none(), false),
        (none(), json!({ "failureAction": "Audit" }), true),
    ] {
        let loaded = load(&policy(spec.clone(), none(), entry.clone())).unwrap();
        let wanted: &[&str] = if said { &[notice] } else { &[] };
        assert_eq!(messages(&loaded, Severity::Notice), wanted, "{spec} {entry}");
    }
}

#[test]
fn a_policy_without_admission_is_not_applied_and_that_is_a_warning() {
    let loaded = load(&policy(json!({ "admission": false }), none(), none())).unwrap();
    assert!(loaded.set.is_empty());
    assert_eq!(
        messages(&loaded, Severity::Warning),
        [
            "p.yaml:1: policy `check` has admission: false: a cluster refuses that for verifyImages, and it is not applied here; take the field out"
        ]
    );
}
