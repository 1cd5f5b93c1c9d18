//! Elements with variables: what they become for a pull, and what keeps them from becoming anything.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::evaluate::{Decision, unresolved};
use super::tests::{KEY, Pull, load, none, pod, policy, reference, satisfied};
use super::*;
use crate::outcome::{Contact, Fault, FaultReason};

const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEzDB0FiCzAWf/BhHLpikFs6p853/G
3A/jt+GFbOJjpnr7vJyb28x4XnR1M5pwUUcpzIZkIgSsd+XcTnrBPVoiyw==
-----END PUBLIC KEY-----";

/// A ConfigMap `keys` in namespace `default`.
fn keys() -> String {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "keys" },
        "data": { "production": KEY, "dev": OTHER_KEY, "pattern": "https://github.com/org/*", "empty": " " } })
    .to_string()
}

fn context() -> Value {
    json!({ "context": [{ "name": "keys", "configMap": { "name": "keys" } }] })
}

/// A policy whose entry has these fields, beside the ConfigMap.
fn with(entry: Value) -> Result<Loaded, Vec<Remark>> {
    load(&format!("{}\n---\n{}", policy(none(), context(), entry), keys()))
}

fn attestor(attestor: Value) -> Value {
    json!({ "attestors": [{ "entries": [attestor] }] })
}

/// The entry for a pull; the cause where it cannot be judged.
fn entry(set: &PolicySet, pod: &PodFacts) -> Result<Arc<Entry>, String> {
    let applications = set.matching(&reference("ghcr.io/org/app:1"), pod, SystemTime::UNIX_EPOCH);
    let entry = Arc::clone(&applications[0].entries[0].entry);
    match entry.undecidable() {
        None => Ok(entry),
        Some(fault) => {
            assert_eq!((fault.reason, fault.contact), (FaultReason::PolicyUnresolved, Contact::Answered));
            Err(fault.message)
        }
    }
}

/// What is asked for by an entry that is written like this.
fn written(fields: Value) -> Digest {
    let set = load(&policy(none(), none(), fields)).unwrap().set;
    entry(&set, &pod("any")).unwrap().fingerprint()
}

fn labelled(label: &str) -> PodFacts {
    PodFacts { labels: [("who".to_owned(), label.to_owned())].into(), ..pod("prod") }
}

fn keyless(subject: &str) -> Value {
    attestor(
        json!({ "keyless": { "subject": subject, "issuer": "https://issuer.test", "rekor": { "url": "https://log.test" } } }),
    )
}

const WHO: &str = "{{ request.object.metadata.labels.who }}";

#[test]
fn what_the_policy_folder_says_is_filled_in_at_load() {
    let set = with(attestor(
        json!({ "keys": { "publicKeys": "{{ keys.data.production }}", "rekor": { "ignoreTlog": true } } }),
    ))
    .unwrap()
    .set;
    let filled = entry(&set, &PodFacts::default()).unwrap();
    assert_eq!(filled.fingerprint(), written(none()));
    assert_eq!(filled.trust_fingerprint(), None);
    assert!(set.pull_only_rules().is_empty() && !set.uses_trust_root());
    // A pattern of the folder may hold wildcards.
    let set = with(keyless("{{ keys.data.pattern }}")).unwrap().set;
    assert_eq!(entry(&set, &pod("a")).unwrap().fingerprint(), written(keyless("https://github.com/org/*")));
}

#[test]
fn what_reads_the_pull_is_filled_in_for_each() {
    let by_namespace = attestor(
        json!({ "keys": { "publicKeys": "{{ keys.data.{{ request.namespace }} }}", "rekor": { "ignoreTlog": true } } }),
    );
    let set = with(by_namespace).unwrap().set;
    let of = |namespace: &str| entry(&set, &pod(namespace)).map(|entry| entry.fingerprint());
    assert_eq!(of("production"), Ok(written(none())));
    let other = attestor(json!({ "keys": { "publicKeys": OTHER_KEY, "rekor": { "ignoreTlog": true } } }));
    assert_eq!(of("dev"), Ok(written(other)));
    assert_eq!(
        of("elsewhere"),
        Err("check/rule: failed to substitute variables: failed to resolve keys.data.{{ request.namespace }} at path /attestors/0/entries/0/keys/publicKeys: JMESPath query failed: Unknown key \"elsewhere\" in path".to_owned())
    );
    assert_eq!(
        entry(&set, &PodFacts::default()).map(drop),
        Err("check/rule: the pull does not say for which pod it is".to_owned())
    );
    assert_eq!(set.pull_only_rules(), ["check/rule"], "s3");
    assert!(!set.uses_trust_root(), "o3");
}

#[test]
fn a_namespace_cannot_change_what_an_expression_is() {
    let set =
        with(attestor(json!({ "keys": { "publicKeys": "{{ keys.data.\"{{ request.namespace }}\" }}" } })))
            .unwrap()
            .set;
    for hostile in ["production\" || keys.data.\"dev", "production.x", "x || `1`"] {
        let refused = entry(&set, &pod(hostile)).map(drop).unwrap_err();
        assert!(refused.contains("Unknown key"), "{refused}");
    }
}

#[test]
fn a_value_stays_one_text() {
    let annotated = |value: &str| {
        attestor(
            json!({ "annotations": { "who": value }, "keys": { "publicKeys": KEY, "rekor": { "ignoreTlog": true } } }),
        )
    };
    let set = with(annotated(&format!("by {WHO}"))).unwrap().set;
    for hostile in [
        "a",
        "a\", \"count\": 0",
        "}]}}",
        "a\nb: c",
        "- x",
        "'",
        "null",
        "&a *a",
        "a: b # c",
        "a\u{85}\u{2028}b",
    ] {
        let filled = entry(&set, &labelled(hostile));
        assert_eq!(
            filled.map(|entry| entry.fingerprint()),
            Ok(written(annotated(&format!("by {hostile}")))),
            "{hostile:?}"
        );
    }
}

#[test]
fn a_value_of_the_pull_widens_no_pattern() {
    let set = with(keyless(&format!("https://github.com/{WHO}/*"))).unwrap().set;
    let good = entry(&set, &labelled("org")).unwrap().fingerprint();
    assert_eq!(good, written(keyless("https://github.com/org/*")));
    for wildcard in ["*", "o?g", "org*"] {
        assert_eq!(
            entry(&set, &labelled(wildcard)).map(drop),
            Err("check/rule: failed to substitute variables: attestors[0].entries[0].keyless.subject: a value that depends on the pull holds a wildcard".to_owned()),
            "{wildcard}"
        );
    }
    // In a regular expression it stands for itself.
    let by = |field: &str, value: &str| {
        attestor(
            json!({ "keyless": { field: value, "issuer": "https://issuer.test", "rekor": { "url": "https://log.test" } } }),
        )
    };
    let set = with(by("subjectRegExp", &format!("^{WHO}$"))).unwrap().set;
    let filled = entry(&set, &labelled("a.b|.*")).unwrap().fingerprint();
    assert_eq!(filled, written(by("subjectRegExp", r"^a\.b\|\.\*$")));
    let extended = |value: &str| {
        attestor(
            json!({ "keyless": { "additionalExtensions": { "githubWorkflowRepository": value }, "issuer": "a", "rekor": { "url": "https://log.test" } } }),
        )
    };
    let set = with(extended(WHO)).unwrap().set;
    assert!(entry(&set, &labelled("*")).unwrap_err().contains("holds a wildcard"));
    assert_eq!(entry(&set, &labelled("org/app")).unwrap().fingerprint(), written(extended("org/app")));
}

#[test]
fn c1_a_filled_in_entry_knows_what_its_own_pull_says() {
    let context = json!({ "context": [
        { "name": "team", "variable": { "jmesPath": "request.object.metadata.labels.who" } },
    ] });
    let conditions = json!([{ "all": [{ "key": "{{ by }}", "operator": "Equals", "value": "{{ team }}" }] }]);
    let signer = json!({ "annotations": { "registry": "{{ image.registry }}" },
        "keys": { "publicKeys": KEY, "rekor": { "ignoreTlog": true } } });
    let fields = json!({ "attestors": [], "attestations": [
        { "type": "a", "attestors": [{ "entries": [signer] }], "conditions": conditions },
    ] });
    let set = load(&policy(none(), context, fields)).unwrap().set;
    let of = |label: &str| entry(&set, &labelled(label)).unwrap();
    let (one, two) = (of("one"), of("two"));
    assert_eq!(two.variables.get("team").map(|value| value.as_ref()), Some(&json!("two")));
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert!(Arc::ptr_eq(&one, &of("one")), "what is the same is loaded once");
}

#[test]
fn a_value_that_is_empty_takes_nothing_out_of_a_longer_text() {
    let by = |field: &str, value: &str| {
        attestor(
            json!({ "keyless": { field: value, "issuer": "https://issuer.test", "rekor": { "url": "https://log.test" } } }),
        )
    };
    let keys_of =
        |text: &str| attestor(json!({ "keys": { "publicKeys": text, "rekor": { "ignoreTlog": true } } }));
    for (fields, field) in [
        (keyless(&format!("{WHO}*")), "keyless.subject"),
        (by("subjectRegExp", &format!("^(acme|{WHO})")), "keyless.subjectRegExp"),
        (keys_of(&format!("{KEY}\n{WHO}")), "keys.publicKeys"),
        (keys_of(&format!("{KEY}\n{{{{ keys.data.empty }}}}")), "keys.publicKeys"),
    ] {
        let loaded = with(fields).unwrap();
        for label in ["", " "] {
            let refused = entry(&loaded.set, &labelled(label)).map(drop).unwrap_err();
            assert!(
                refused.ends_with(&format!("attestors[0].entries[0].{field} becomes empty")),
                "{refused}"
            );
        }
    }
}

#[test]
fn beside_variables_a_text_is_written_as_one() {
    let fields = json!({ "attestors": [{ "entries": [{
        "annotations": { "who": "{{ keys.data.pattern }}", "version": "1.10" },
        "keys": { "publicKeys": KEY, "rekor": { "ignoreTlog": true } },
    }] }] });
    let text = |version: &str| {
        let policy = policy(none(), context(), fields.clone()).replace("\"1.10\"", version);
        load(&format!("{policy}\n---\n{}", keys()))
    };
    assert!(text("\"1.10\"").is_ok());
    for version in ["1.10", "010", "true"] {
        let errors = text(version).expect_err(version);
        let wanted = "check/rule: verifyImages[0]: attestors[0].entries[0].annotations.version is no text; write it in quotes";
        assert_eq!(
            errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>(),
            [wanted],
            "{version}"
        );
    }
}

#[test]
fn what_cannot_be_filled_in_asks_for_no_less() {
    let cause = |subject: &str, pod: &PodFacts| {
        entry(&with(keyless(subject)).unwrap().set, pod).map(drop).unwrap_err()
    };
    for (subject, pod, wanted) in [
        (WHO, labelled(""), "attestors[0].entries[0].keyless.subject becomes empty"),
        (WHO, labelled(" \t"), "attestors[0].entries[0].keyless.subject becomes empty"),
        (WHO, pod("prod"), "Unknown key \"labels\" in path"),
        (
            "{{ request.object.metadata.labels }}",
            labelled("a"),
            "keyless.subject: the value of a variable is no text",
        ),
        (
            "{{ request.object.spec.containers[5] }}",
            labelled("a"),
            "keyless.subject: the value of a variable is no text",
        ),
        (WHO, labelled("{{ keys }}"), "keyless.subject must not hold variables"),
        ("{{ keys.data.missing }}", labelled("a"), "Unknown key \"missing\" in path"),
        ("{{ keys.data.empty }}", labelled("a"), "keyless.subject becomes empty"),
    ] {
        let found = cause(subject, &pod);
        assert!(found.contains(wanted), "{subject}: {wanted:?}, got {found:?}");
    }
    // A key reference stays what the loader makes of it.
    let set = with(attestor(json!({ "keys": { "publicKeys": WHO } }))).unwrap().set;
    assert_eq!(
        entry(&set, &labelled("k8s://ns/key")).map(drop),
        Err("check/rule: check/rule: verifyImages[0].attestors[0].entries[0]: keys.publicKeys `k8s://ns/key` is a key reference, which is not supported yet; write the PEM of the public key".to_owned())
    );
}

#[test]
fn an_undecided_entry_is_refused_and_never_allowed() {
    let text = format!("{}\n---\n{}", policy(none(), context(), keyless(WHO)), keys());
    let mut pull = Pull::new(&text);
    for pod in [pod("default"), PodFacts::default(), labelled("*")] {
        pull.pod = pod;
        let decision = pull.decide(|entry| match entry.undecidable() {
            Some(fault) => EntryVerdict::Undecided(fault),
            None => satisfied(entry),
        });
        assert!(
            matches!(&decision, Decision::Undecided(fault) if fault.reason == FaultReason::PolicyUnresolved),
            "{decision:?}"
        );
    }
    // As it is, without a pull, it is judged by nobody's attestor.
    let form = &pull.set.policies[0].rules[0].entries[0];
    let (digest, pod) = (tests::digest(), pod("default"));
    let asked = super::Pull { reference: &pull.reference, digest: &digest, pod: &pod };
    let (verdict, _) = judge(form, asked, &Evidence::default(), SystemTime::UNIX_EPOCH);
    assert_eq!(
        verdict,
        EntryVerdict::Undecided(Fault::new(FaultReason::Internal, "an entry was not filled in"))
    );
    let judgeable = Entry { unfilled: None, ..Entry::clone(form) };
    let (verdict, _) = judge(&judgeable, asked, &Evidence::default(), SystemTime::UNIX_EPOCH);
    assert!(matches!(verdict, EntryVerdict::Undecided(_)), "{verdict:?}");
}

#[test]
fn a_missing_config_map_concerns_the_images_of_its_rule_alone() {
    let entry_of = keyless("{{ keys.data.pattern }}");
    let loaded = load(&policy(none(), context(), entry_of)).unwrap();
    let warnings: Vec<_> = loaded
        .notices
        .iter()
        .filter(|remark| remark.severity == Severity::Warning)
        .map(|remark| remark.message.as_str())
        .collect();
    assert_eq!(
        warnings,
        [
            "check/rule: context[0]: failed to retrieve config map for context entry keys: failed to get configmap default/keys: there is no such document in the policy folder; until it is there, every image that the rule covers is undecided"
        ]
    );
    assert_eq!(
        entry(&loaded.set, &pod("a")).map(drop),
        Err("check/rule: failed to load context: failed to retrieve config map for context entry keys: failed to get configmap default/keys: there is no such document in the policy folder".to_owned())
    );
    assert!(loaded.set.matching(&reference("other.io/a"), &pod("a"), SystemTime::UNIX_EPOCH).is_empty());
    // No answer of a registry changes that.
    let pull = Pull::new(&policy(
        json!({ "failurePolicy": "Ignore" }),
        context(),
        keyless("{{ keys.data.pattern }}"),
    ));
    let away = Fault::new(FaultReason::RegistryError, "away");
    assert!(matches!(pull.ask(|case| Some(unresolved(case, away))), Some(Decision::Undecided(_))));
}

#[test]
fn the_last_entries_are_kept_by_what_they_were_made_from() {
    let set = with(keyless(WHO)).unwrap().set;
    let one = entry(&set, &labelled("one")).unwrap();
    assert!(Arc::ptr_eq(&one, &entry(&set, &labelled("one")).unwrap()));
    assert!(!Arc::ptr_eq(&one, &entry(&set, &labelled("two")).unwrap()));
    for other in 0..100 {
        entry(&set, &labelled(&format!("other-{other}"))).unwrap();
    }
    assert!(!Arc::ptr_eq(&one, &entry(&set, &labelled("one")).unwrap()), "not more than the last few");
    // What is read of the pull is in the key of the verdict as well (rule C1).
    let (pod, other) = (labelled("one"), PodFacts { name: Some("other".into()), ..labelled("one") });
    let image = reference("ghcr.io/org/app:1");
    assert_ne!(one.pod_fingerprint(&pod, &image), one.pod_fingerprint(&other, &image));
}

#[test]
fn what_else_is_wrong_with_a_form_is_a_load_error() {
    let two =
        |second: Value| json!({ "attestors": [{ "entries": [{ "keys": { "publicKeys": WHO } }, second] }] });
    for (fields, wanted) in [
        (
            two(json!({ "keys": { "publicKeys": "k8s://a/b" } })),
            "entries[1]: keys.publicKeys `k8s://a/b` is a key reference",
        ),
        (two(json!({})), "entries[1]: keys, certificates, keyless, or a nested attestor is required"),
        (
            json!({ "attestors": [{ "count": 5, "entries": [{ "keys": { "publicKeys": WHO } }] }] }),
            "Count cannot exceed",
        ),
        (
            attestor(
                json!({ "keyless": { "subject": "{{ serviceAccountName }}", "rekor": { "url": "a" } } }),
            ),
            "`serviceAccountName` is not known on a node",
        ),
        (
            attestor(json!({ "keyless": { "subject": "{{ a. }}", "rekor": { "url": "a" } } })),
            "verifyImages[0]: /attestors/0/entries/0/keyless/subject: ",
        ),
        (
            attestor(
                json!({ "keys": { "publicKeys": KEY }, "annotations": { "{{ keys.data.empty }}": "x" } }),
            ),
            "the key `{{ keys.data.empty }}` must not hold variables",
        ),
        (
            attestor(json!({ "keys": { "publicKeys": KEY, "signatureAlgorithm": "{{ keys.data.empty }}" } })),
            "invalid signature algorithm provided {{ keys.data.empty }}",
        ),
        (
            json!({ "imageReferences": ["{{ keys.data.pattern }}"], "repository": WHO }),
            "imageReferences must not hold variables",
        ),
    ] {
        let errors = with(fields.clone()).expect_err(wanted);
        assert!(
            errors.iter().any(|error| error.message.contains(wanted)),
            "{fields}: {wanted:?}, got {errors:?}"
        );
    }
}

#[test]
fn every_field_of_an_attestor_may_hold_variables() {
    let certificate = blank::SAMPLE_CERTIFICATE;
    for (fields, plain) in [
        (json!({ "key": "{{ keys.data.production }}" }), json!({ "key": KEY })),
        (
            json!({ "repository": "ghcr.io/sigs/{{ request.namespace }}" }),
            json!({ "repository": "ghcr.io/sigs/prod" }),
        ),
        (
            json!({ "repository": "{{ image.registry }}/{{ image.path }}-sigs" }),
            json!({ "repository": "ghcr.io/org/app-sigs" }),
        ),
        (
            json!({ "attestors": [], "issuer": WHO, "subject": WHO }),
            json!({ "attestors": [], "issuer": "me", "subject": "me" }),
        ),
        (
            attestor(
                json!({ "keys": { "publicKeys": KEY, "rekor": { "url": "https://{{ request.namespace }}.test", "pubkey": "{{ keys.data.dev }}" } } }),
            ),
            attestor(
                json!({ "keys": { "publicKeys": KEY, "rekor": { "url": "https://prod.test", "pubkey": OTHER_KEY } } }),
            ),
        ),
        (
            json!({ "attestations": [{ "type": format!("https://{WHO}.test"), "attestors": [{ "entries": [{ "attestor": { "entries": [{ "keys": { "publicKeys": "{{ keys.data.dev }}" } }] } }] }] }] }),
            json!({ "attestations": [{ "type": "https://me.test", "attestors": [{ "entries": [{ "attestor": { "entries": [{ "keys": { "publicKeys": OTHER_KEY } }] } }] }] }] }),
        ),
        (
            attestor(json!({ "certificates": { "cert": "{{ request.object.metadata.annotations.cert }}" } })),
            attestor(json!({ "certificates": { "cert": certificate } })),
        ),
    ] {
        let set = with(fields.clone()).unwrap().set;
        let pod =
            PodFacts { annotations: [("cert".to_owned(), certificate.to_owned())].into(), ..labelled("me") };
        assert_eq!(entry(&set, &pod).map(|entry| entry.fingerprint()), Ok(written(plain)), "{fields}");
    }
}

#[test]
fn a_form_and_what_it_reads_are_part_of_the_policies_fingerprint() {
    let print = |text: &str| load(text).unwrap().set.fingerprint();
    let of = |entry: Value| format!("{}\n---\n{}", policy(none(), context(), entry), keys());
    let plain = print(&of(keyless(WHO)));
    assert_ne!(plain, print(&of(keyless("{{ request.namespace }}"))));
    assert_ne!(plain, print(&of(keyless(WHO)).replace("org/*", "other/*")));
    assert_eq!(plain, print(&of(keyless(WHO))));
}
