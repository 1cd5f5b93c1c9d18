//! Loading and matching, as tables; and a pull to be decided, for other tests too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::evaluate::{Approved, Case, Decision, Judged, Mode, Resolution, Source, Unmatched, decide};
use super::kyverno::FIELDS;
use super::*;
use crate::outcome::{Contact, Denial, DenialReason, Fault, FaultReason};
use crate::sigstore::TrustRoot;

/// The key of the source page's first example.
pub(super) const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM
5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==
-----END PUBLIC KEY-----";

pub(super) fn options() -> LoadOptions {
    LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good().unwrap())),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::UNIX_EPOCH,
    }
}

pub(super) fn load(text: &str) -> Result<Loaded, Vec<Remark>> {
    PolicySet::load(&[PolicySource { file: PathBuf::from("p.yaml"), text: text.to_owned() }], &options())
}

/// A policy with `spec`, `rule` and `entry` fields added, as JSON (which is YAML).
pub(super) fn policy(spec: serde_json::Value, rule: serde_json::Value, entry: serde_json::Value) -> String {
    let merge = |mut base: serde_json::Value, more: serde_json::Value| {
        if let (Some(base), serde_json::Value::Object(more)) = (base.as_object_mut(), more) {
            base.extend(more);
        }
        base
    };
    let keys = serde_json::json!({ "publicKeys": KEY, "rekor": { "ignoreTlog": true } });
    let entry = merge(
        serde_json::json!({ "imageReferences": ["ghcr.io/org/*"], "attestors": [{ "entries": [{ "keys": keys }] }] }),
        entry,
    );
    let rule = merge(
        serde_json::json!({ "name": "rule", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry] }),
        rule,
    );
    let spec = merge(serde_json::json!({ "validationFailureAction": "Enforce", "rules": [rule] }), spec);
    serde_json::json!({ "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "check" }, "spec": spec })
        .to_string()
}

pub(super) fn none() -> serde_json::Value {
    serde_json::json!({})
}

pub(super) fn set(text: &str) -> PolicySet {
    load(text).unwrap().set
}

pub(super) fn pod(namespace: &str) -> PodFacts {
    PodFacts { namespace: Some(namespace.into()), name: Some("pod".into()), ..PodFacts::default() }
}

pub(super) fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn loads_the_source_pages_first_policy_with_the_crds_defaults() {
    let text = format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: check-image\nspec:\n  validationFailureAction: Enforce\n  background: false\n  webhookTimeoutSeconds: 30\n  failurePolicy: Fail\n  rules:\n    - name: check-image\n      match:\n        any:\n        - resources:\n            kinds:\n              - Pod\n      verifyImages:\n      - imageReferences:\n        - \"ghcr.io/kyverno/test-verify-image*\"\n        attestors:\n        - count: 1\n          entries:\n          - keys:\n              publicKeys: |-\n                {}\n",
        KEY.replace('\n', "\n                ")
    );
    let loaded = load(&text).unwrap();
    let lines: Vec<_> = loaded.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "p.yaml:7: check-image: background means nothing on a node: images on the node are judged at start, after a reload and daily",
            "p.yaml:8: check-image: webhookTimeoutSeconds means nothing on a node: limits.verification bounds a pull"
        ]
    );
    let covering = loaded.set.matching(
        &reference("ghcr.io/kyverno/test-verify-image:signed"),
        &pod("default"),
        SystemTime::UNIX_EPOCH,
    );
    let entry = &covering[0].entries[0].entry;
    assert_eq!((covering[0].action, entry.failure_policy), (Action::Enforce, FailurePolicy::Fail));
    assert_eq!((entry.mutate_digest, entry.verify_digest, entry.required), (true, true, true));
    assert_eq!(entry.forms(), Forms::LegacyThenBundles);
    assert_eq!(loaded.set.counts(), Counts { policies: 1, refusing: 1, reporting: 0 });
}

#[test]
fn an_unknown_field_is_an_error_with_file_and_line() {
    let text = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: a}\nspec:\n  rules: []\n  bogus: 1\n";
    let errors: Vec<_> = load(text).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("p.yaml:6:") && errors[0].contains("bogus"), "{errors:?}");
}

#[test]
fn every_struct_refuses_a_bogus_key() {
    assert_eq!(FIELDS.len(), 33, "a new type needs a line in the list below");
    for (name, fields) in FIELDS {
        assert!(!fields.contains(&"bogus"), "{name}");
    }
    let bogus = serde_json::json!({ "bogus": 1 });
    let inside = |path: &str| -> String {
        let mut document: serde_json::Value = serde_json::from_str(&policy(
            serde_json::json!({ "webhookConfiguration": {}, "validationFailureActionOverrides": [{ "action": "Audit", "namespaces": ["a"] }] }),
            serde_json::json!({ "exclude": { "all": [{ "resources": { "names": ["a"], "selector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } } }] },
                                "imageExtractors": { "Task": [{ "path": "/a" }] } }),
            serde_json::json!({
                "attestors": [{ "entries": [
                    { "keys": { "publicKeys": KEY, "rekor": {}, "ctlog": {} } },
                    { "certificates": {} },
                    { "keyless": {} },
                ] }],
                "attestations": [{ "conditions": [{ "any": [{}] }] }],
                "validate": { "deny": { "conditions": [{}] } },
                "imageRegistryCredentials": {},
            }),
        ))
        .unwrap();
        document
            .pointer_mut(path)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .extend(bogus.as_object().unwrap().clone());
        document.to_string()
    };
    for path in [
        "",
        "/spec",
        "/spec/webhookConfiguration",
        "/spec/validationFailureActionOverrides/0",
        "/spec/rules/0",
        "/spec/rules/0/match",
        "/spec/rules/0/match/any/0",
        "/spec/rules/0/match/any/0/resources",
        "/spec/rules/0/exclude",
        "/spec/rules/0/exclude/all/0/resources/selector",
        "/spec/rules/0/exclude/all/0/resources/selector/matchExpressions/0",
        "/spec/rules/0/imageExtractors/Task/0",
        "/spec/rules/0/verifyImages/0",
        "/spec/rules/0/verifyImages/0/attestors/0",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/0",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/0/keys",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/0/keys/rekor",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/0/keys/ctlog",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/1/certificates",
        "/spec/rules/0/verifyImages/0/attestors/0/entries/2/keyless",
        "/spec/rules/0/verifyImages/0/attestations/0",
        "/spec/rules/0/verifyImages/0/imageRegistryCredentials",
        "/spec/rules/0/verifyImages/0/attestations/0/conditions/0",
        "/spec/rules/0/verifyImages/0/attestations/0/conditions/0/any/0",
        "/spec/rules/0/verifyImages/0/validate",
        "/spec/rules/0/verifyImages/0/validate/deny",
        "/spec/rules/0/verifyImages/0/validate/deny/conditions/0",
    ] {
        let errors = load(&inside(path)).unwrap_err();
        assert!(
            errors.iter().any(|error| error.line > 0 && error.message.contains("bogus")),
            "{path}: {errors:?}"
        );
    }
}

#[test]
fn what_cannot_be_honoured_is_a_load_error_that_names_the_field() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let entry = |text: &str| policy(none(), none(), json(text));
    let rule = |text: &str| policy(none(), json(text), none());
    let spec = |text: &str| policy(json(text), none(), none());
    let attestor = |text: &str| entry(&format!(r#"{{"attestors":[{{"entries":[{text}]}}]}}"#));
    let keys = |text: &str| attestor(&format!(r#"{{"keys":{text}}}"#));
    for (text, wanted) in [
        (entry(r#"{"attestations":[{"name":"x"}]}"#), "attestations[0]: missing type"),
        (entry(r#"{"attestations":[{"type":"a","predicateType":"b"}]}"#), "type and predicateType differ"),
        (entry(r#"{"type":"{{ x }}"}"#), "type `{{ x }}` is not Cosign"),
        (entry(r#"{"failureAction":"{{ x }}"}"#), "failureAction `{{ x }}`"),
        (entry(r#"{"skipImageReferences":["{{ x }}"]}"#), "must not hold variables"),
        (entry(r#"{"type":"Notary"}"#), "type Notary is not supported"),
        (entry(r#"{"type":"Other"}"#), "type `Other`"),
        (
            entry(r#"{"imageRegistryCredentials":{"providers":["amazon","other"]}}"#),
            "imageRegistryCredentials.providers: `other` is not one of default, amazon",
        ),
        (entry(r#"{"imageReferences":[]}"#), "An image reference is required"),
        (entry(r#"{"imageReferences":["{{ x }}"]}"#), "must not hold variables"),
        (entry(r#"{"key":"x","issuer":"https://x"}"#), "issuer has no effect beside key"),
        (entry(r#"{"subject":"x"}"#), "subject has no effect without issuer"),
        (entry(r#"{"roots":"x"}"#), "roots has no effect without issuer"),
        (entry(r#"{"additionalExtensions":{"a":"b"}}"#), "additionalExtensions has no effect without issuer"),
        (entry(r#"{"repository":"UPPER//x"}"#), "repository"),
        (entry(r#"{"failureAction":"Maybe"}"#), "failureAction `Maybe`"),
        (entry(r#"{"attestors":[],"annotations":{"a":"b"}}"#), "annotations need a key"),
        (entry(r#"{"attestors":[{"entries":[]}]}"#), "An entry is required"),
        (
            entry(r#"{"attestors":[{"count":2,"entries":[{"keys":{}}]}]}"#),
            "A public key, kms key or secret is required",
        ),
        (attestor("{}"), "keys, certificates, keyless, or a nested attestor is required"),
        (attestor(r#"{"keyless":{"subject":"*"}}"#), "Either Rekor URL or roots are required"),
        (attestor(r#"{"keyless":{}}"#), "Either Rekor URL or roots are required"),
        (attestor(r#"{"keyless":{"rekor":{"ignoreTlog":true}}}"#), "rekor.url: An URL is required"),
        (attestor(r#"{"certificates":{}}"#), "cert or certChain required"),
        (attestor(r#"{"certificates":{"cert":"x"}}"#), "certificates.cert: "),
        (attestor(r#"{"certificates":{"certChain":"x"}}"#), "certificates.certChain: "),
        (keys(r#"{"kms":"awskms://x"}"#), "keys.kms cannot be used"),
        (keys(r#"{"secret":{"name":"x"}}"#), "keys.secret cannot be used"),
        (keys(r#"{"publicKeys":"k8s://a/b"}"#), "key reference"),
        (
            keys(r#"{"publicKeys":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}"#),
            "certificate",
        ),
        (
            keys(r#"{"publicKeys":"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}"#),
            "keys.publicKeys",
        ),
        (
            keys(r#"{"publicKeys":"-----BEGIN PUBLIC KEY-----\nAAAA","signatureAlgorithm":"sha224"}"#),
            "invalid signature algorithm provided sha224",
        ),
        (rule(r#"{"context":[{"name":"x"}]}"#), "exactly one of configMap"),
        (
            rule(r#"{"preconditions":{"all":[{"key":"a"}]}}"#),
            "check/rule: preconditions[0].all[0]: operator is missing",
        ),
        (
            rule(r#"{"celPreconditions":[{"name":"a","expression":"true"}]}"#),
            "celPreconditions cannot be used: it is CEL",
        ),
        (rule(r#"{"match":{}}"#), "match cannot be empty"),
        (
            rule(
                r#"{"match":{"any":[{"resources":{"kinds":["Pod"],"namespaceSelector":{"matchLabels":{"a":"b"}}}}]}}"#,
            ),
            "match.resources.namespaceSelector cannot be used",
        ),
        (
            rule(r#"{"exclude":{"any":[{"subjects":[{"kind":"User","name":"x"}]}]}}"#),
            "exclude.subjects cannot be used",
        ),
        (rule(r#"{"exclude":{"any":[{"clusterRoles":["admin"]}]}}"#), "exclude.clusterRoles cannot be used"),
        (rule(r#"{"validate":{"message":"x"}}"#), "validate cannot be used"),
        (rule(r#"{"verifyImages":[]}"#), "verifyImages is empty"),
        (spec(r#"{"applyRules":"Two"}"#), "applyRules `Two` is not All or One"),
        (spec(r#"{"failurePolicy":"Sometimes"}"#), "failurePolicy `Sometimes`"),
        (spec(r#"{"failurePolicy":"Fail","webhookConfiguration":{"failurePolicy":"Fail"}}"#), "both set"),
        (
            spec(r#"{"webhookConfiguration":{"matchConditions":[{"name":"x","expression":"true"}]}}"#),
            "matchConditions cannot be used",
        ),
        (
            spec(
                r#"{"validationFailureActionOverrides":[{"action":"Audit","namespaceSelector":{"matchLabels":{"a":"b"}}}]}"#,
            ),
            "namespaceSelector cannot be used",
        ),
        (policy(none(), none(), none()).replace("ClusterPolicy", "Policy"), "needs metadata.namespace"),
        (
            policy(none(), none(), none()).replace("kyverno.io/v1", "kyverno.io/v3"),
            "apiVersion `kyverno.io/v3`",
        ),
        (policy(none(), none(), none()).replace("ClusterPolicy", "List"), "kind `List` of `kyverno.io/v1`"),
        (format!("{0}\n---\n{0}", policy(none(), none(), none())), "defined twice"),
        (policy(none(), none(), none()).replace("ClusterPolicy", "Clusterpolicy"), "is it misspelt?"),
        (
            "apiVersion: policies.kyverno.io/v1\nkind: ImageValidatingPolicy".to_owned(),
            "not read here; write its rules as verifyImages",
        ),
        ("metadata: {name: a}".to_owned(), "not known"),
        ("a: [".to_owned(), ""),
    ] {
        let errors = load(&text).expect_err(wanted);
        assert!(
            errors.iter().any(|error| error.message.contains(wanted)),
            "wanted {wanted:?}, got {errors:?}"
        );
    }
}

#[test]
fn other_kinds_and_rules_are_skipped_with_a_notice() {
    let text = format!(
        "kind: Secret\napiVersion: v1\ndata: {{a: b}}\n---\n{}",
        policy(none(), serde_json::json!({ "verifyImages": null, "mutate": {} }), none())
    );
    let loaded = load(&text).unwrap();
    assert!(loaded.set.is_empty());
    assert_eq!(loaded.notices.len(), 2, "{:?}", loaded.notices);
}

#[test]
fn several_keys_in_one_text_are_several_attestors() {
    let two = format!("{KEY}\n{KEY}");
    let entry = serde_json::json!({ "attestors": [{ "count": 1, "entries": [{ "keys": { "publicKeys": two, "rekor": { "ignoreTlog": true } } }] }] });
    let set = set(&policy(none(), none(), entry));
    let entry = &set.policies[0].rules[0].entries[0];
    assert_eq!((entry.sets[0].attestors.len(), entry.sets[0].required), (2, 1));
    assert_eq!(entry.trust_fingerprint(), None, "o3: keys without a log touch no trust root");
}

#[test]
fn m2_covers_every_form_of_a_reference() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let with = |pattern: &str, skip: &str| {
        set(&policy(
            none(),
            none(),
            serde_json::json!({ "imageReferences": [pattern], "skipImageReferences": [skip] }),
        ))
    };
    for (pattern, image, covered) in [
        ("ghcr.io/org/*", "ghcr.io/org/app:v1".to_owned(), true),
        ("ghcr.io/org/app:*", format!("ghcr.io/org/app@{digest}"), true),
        ("ghcr.io/org/app:*", format!("ghcr.io/org/app:v1@{digest}"), true),
        ("ghcr.io/org/app:*", format!("ghcr.io/org/apple@{digest}"), false),
        ("ghcr.io/org/*", "GHCR.io:443/org/app".to_owned(), true),
        ("docker.io/nginx:*", "nginx".to_owned(), true),
        ("docker.io/library/nginx:*", "nginx".to_owned(), true),
        ("docker.io/library/nginx:*", "index.docker.io/nginx".to_owned(), true),
        ("nginx", "nginx".to_owned(), false),
        ("docker.io/nginx:*", "docker.io/library/nginx".to_owned(), true),
        ("GHCR.io/org/*", "ghcr.io/org/app".to_owned(), true),
    ] {
        assert_eq!(with(pattern, "").covers(&reference(&image)), covered, "{pattern} {image}");
    }
    // What takes an image out must fit every form.
    let both =
        with("*", "docker.io/nginx:*").matching(&reference("nginx"), &pod("a"), SystemTime::UNIX_EPOCH);
    assert_eq!(both[0].entries[0].coverage, Coverage::Judged);
    let all = with("*", "*nginx:*").matching(&reference("nginx"), &pod("a"), SystemTime::UNIX_EPOCH);
    assert_eq!(all[0].entries[0].coverage, Coverage::Skipped);
}

#[test]
fn m3_actions_and_namespaces() {
    let overrides = serde_json::json!({ "validationFailureAction": "Audit", "validationFailureActionOverrides": [
        { "action": "Enforce", "namespaces": ["prod-*"] } ] });
    let set = set(&policy(overrides, none(), none()));
    let action =
        |pod: &PodFacts| set.matching(&reference("ghcr.io/org/a"), pod, SystemTime::UNIX_EPOCH)[0].action;
    assert_eq!(action(&pod("prod-a")), Action::Enforce);
    assert_eq!(action(&pod("dev")), Action::Audit);
    assert_eq!(action(&PodFacts::default()), Action::Enforce, "no namespace: the strictest");
    assert_eq!(set.pull_only_rules(), ["check/rule"]);
    let namespaced = policy(none(), none(), none())
        .replace("ClusterPolicy", "Policy")
        .replace(r#""name":"check""#, r#""name":"check","namespace":"team""#);
    let namespaced = self::set(&namespaced);
    assert!(
        namespaced.matching(&reference("ghcr.io/org/a"), &pod("other"), SystemTime::UNIX_EPOCH).is_empty()
    );
    assert_eq!(
        namespaced.matching(&reference("ghcr.io/org/a"), &pod("team"), SystemTime::UNIX_EPOCH)[0].policy,
        "team/check"
    );
    assert_eq!(
        namespaced.matching(&reference("ghcr.io/org/a"), &PodFacts::default(), SystemTime::UNIX_EPOCH).len(),
        1
    );
}

#[test]
fn c1_the_fingerprint_changes_with_what_is_asked_and_nothing_else() {
    let print = |entry: serde_json::Value, spec: serde_json::Value| {
        set(&policy(spec, none(), entry)).policies[0].rules[0].entries[0].fingerprint()
    };
    let plain = print(none(), none());
    assert_eq!(
        plain,
        print(
            serde_json::json!({ "mutateDigest": true, "useCache": false }),
            serde_json::json!({ "background": true })
        )
    );
    for other in [
        serde_json::json!({ "required": false }),
        serde_json::json!({ "repository": "ghcr.io/sigs" }),
        serde_json::json!({ "type": "SigstoreBundle" }),
        serde_json::json!({ "attestors": [{ "entries": [{ "keys": { "publicKeys": KEY, "rekor": { "ignoreTlog": true } }, "annotations": { "a": "b" } }] }] }),
    ] {
        assert_ne!(plain, print(other.clone(), none()), "{other}");
    }
}

#[test]
fn c1_which_key_goes_with_which_log_is_part_of_the_fingerprint() {
    let other = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEzDB0FiCzAWf/BhHLpikFs6p853/G
3A/jt+GFbOJjpnr7vJyb28x4XnR1M5pwUUcpzIZkIgSsd+XcTnrBPVoiyw==
-----END PUBLIC KEY-----";
    let print = |first: &str, second: &str| {
        let keys =
            |log: &str| serde_json::json!({ "keys": { "publicKeys": KEY, "rekor": { "pubkey": log } } });
        let entry = serde_json::json!({ "attestors": [{ "entries": [keys(first)] }, { "entries": [keys(second)], "count": 1 }] });
        set(&policy(none(), none(), entry)).policies[0].rules[0].entries[0].fingerprint()
    };
    assert_ne!(print(KEY, other), print(other, KEY));
}

// Deciding.

pub(super) struct Pull {
    pub(super) set: PolicySet,
    pub(super) reference: Reference,
    pub(super) pod: PodFacts,
    pub(super) mode: Mode,
    pub(super) unmatched: Unmatched,
    pub(super) approved: Approved,
    /// What registries say of images.
    pub(super) images: StoredImages,
}

impl Pull {
    pub(super) fn new(text: &str) -> Self {
        Self {
            set: set(text),
            reference: reference("ghcr.io/org/app:v1"),
            pod: pod("default"),
            mode: Mode::Enforce,
            unmatched: Unmatched::Allow,
            approved: Approved::default(),
            images: StoredImages::default(),
        }
    }

    pub(super) fn ask(&self, question: impl FnOnce(&Case<'_>) -> Option<Decision>) -> Option<Decision> {
        let now = SystemTime::UNIX_EPOCH;
        let applications = self.set.matching_with(&self.reference, &self.pod, now, &self.images);
        question(&Case {
            reference: &self.reference,
            pod: &self.pod,
            policies: &self.set,
            applications: &applications,
            mode: self.mode,
            unmatched: self.unmatched,
            exempt_namespaces: &["kube-system".to_owned()],
            approved: &self.approved,
        })
    }

    pub(super) fn decide(&self, verdict: impl Fn(&Entry) -> EntryVerdict) -> Decision {
        self.decide_by(Resolution::Answered, verdict)
    }

    /// The same where no registry was asked for the digest.
    pub(super) fn decide_unasked(&self, verdict: impl Fn(&Entry) -> EntryVerdict) -> Decision {
        self.decide_by(Resolution::NotAsked, verdict)
    }

    fn decide_by(&self, resolution: Resolution, verdict: impl Fn(&Entry) -> EntryVerdict) -> Decision {
        self.ask(|case| {
            let judged: Vec<_> = case
                .applications
                .iter()
                .flat_map(|application| &application.entries)
                .map(|covered| Judged {
                    policy: covered.entry.policy().into(),
                    rule: covered.entry.rule().into(),
                    index: covered.entry.index(),
                    verdict: verdict(&covered.entry),
                    source: Source::Verified,
                })
                .collect();
            Some(decide(case, digest(), resolution, &judged))
        })
        .unwrap()
    }
}

pub(super) fn digest() -> Digest {
    Digest::of(b"image")
}

pub(super) fn satisfied(_: &Entry) -> EntryVerdict {
    EntryVerdict::Satisfied(Satisfied::remembered(digest()))
}

pub(super) fn denied(entry: &Entry) -> EntryVerdict {
    EntryVerdict::Denied(Denial {
        reason: DenialReason::SignatureInvalid,
        policy: entry.policy().into(),
        rule: entry.rule().into(),
        cause: "invalid signature".into(),
        detail: String::new(),
    })
}

pub(super) fn fault(contact: Contact) -> Fault {
    Fault { reason: FaultReason::RegistryUnreachable, contact, message: "away".into() }
}

pub(super) fn permit(decision: Decision) -> evaluate::Permit {
    match decision {
        Decision::Allow(permit) => permit,
        other @ (Decision::Deny(_) | Decision::Undecided(_)) => panic!("{other:?}"),
    }
}
