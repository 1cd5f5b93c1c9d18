//! Loading conditions: what a bad one is called, and what of an entry its verdicts are kept under.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::oci::Reference;
use crate::policy::jmespath::Clock;
use crate::policy::{
    Compatibility, Entry, LoadOptions, Loaded, OnlineRekor, PodFacts, PolicySet, PolicySource, Remark,
    RootSource, Severity,
};
use crate::sigstore::TrustRoot;

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM\n5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==\n-----END PUBLIC KEY-----";

fn load(text: &str) -> Result<Loaded, Vec<Remark>> {
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good().unwrap())),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::UNIX_EPOCH,
    };
    PolicySet::load(&[PolicySource { file: PathBuf::from("p.yaml"), text: text.to_owned() }], &options)
}

/// A policy whose second half is the given lines, which begin at line 20 inside of `verifyImages[0]`.
fn policy(lines: &str) -> String {
    let key = KEY.replace('\n', "\\n");
    let head = format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - name: r\n    match: {{any: [{{resources: {{kinds: [Pod]}}}}]}}\n    verifyImages:\n    - imageReferences: ['*']\n      attestations:\n      - type: t\n        name: sbom\n        attestors: [{{entries: [{{keys: {{publicKeys: \"{key}\", rekor: {{ignoreTlog: true}}}}}}]}}]\n"
    );
    let padding = "#\n".repeat(19 - head.lines().count());
    format!("{head}{padding}{lines}")
}

fn errors(lines: &str) -> Vec<String> {
    match load(&policy(lines)) {
        Ok(loaded) => panic!("loaded: {:?}", loaded.notices),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The same lines, one condition of the attestation each.
fn of_condition(fields: &str) -> Vec<String> {
    errors(&format!("        conditions:\n        - all:\n          - {{{fields}}}\n"))
}

#[test]
fn a_bad_condition_is_an_error_with_its_line() {
    let place = "p.yaml:22: p/r: verifyImages[0].attestations[0].conditions[0].all[0]";
    for (fields, message) in [
        ("operator: Equals, value: a", ": key is missing"),
        ("key: a, operator: Equals", ": value is missing"),
        ("key: a, value: a", ": operator is missing"),
        (
            "key: '{{ a', operator: Equals, value: a",
            ".key: `{{ a`: `{{` is not closed (write `\\{{` where it is no variable)",
        ),
        (
            "key: a, operator: Equals, value: ['{{ a }}', {b: '{{ c }'}]",
            ".value: `{{ c }`: braces inside a variable must pair and must not be nested (write another expression)",
        ),
        ("key: a, operator: Equals, value: a, message: '{{ a..b }}'", ".message: incorrect query a..b: "),
        (
            "key: '{{ nonsense(a) }}', operator: Equals, value: a",
            ".key: incorrect query nonsense(a): unknown function: nonsense",
        ),
        (
            "key: '{{@}}', operator: Equals, value: a",
            ".key: `{{@}}` stands for the same place in the resource, which conditions have none of; write the path",
        ),
        (
            "key: '{{ serviceAccountName }}', operator: Equals, value: a",
            ".key: `serviceAccountName` is not known on a node: a pull does not say who asked",
        ),
        (
            "key: '$(./../nothing)', operator: Equals, value: a",
            ".key: reference `$(./../nothing)`: there is nothing at this path of the conditions",
        ),
    ] {
        let found = of_condition(fields);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("{place}{message}")), "{found:?}");
    }
    assert_eq!(of_condition("key: '{{', operator: Equals").len(), 2, "every error is said");
    let unknown = of_condition("key: a, operator: Resembles, value: a");
    assert!(
        unknown.len() == 1 && unknown[0].starts_with(place) && unknown[0].contains("Resembles"),
        "{unknown:?}"
    );
    for (fields, word) in [
        ("key: a, operator: Equals, value: a, values: b", "values"),
        ("key: a, operator: [], value: a", "string"),
    ] {
        let found = of_condition(fields);
        assert!(
            found.len() == 1 && found[0].starts_with("p.yaml:22:") && found[0].contains(word),
            "{found:?}"
        );
    }
    // The old list is for other places.
    let bare =
        errors("        conditions:\n        - key: a\n          operator: Equals\n          value: a\n");
    let unknown = |line: u64, field: &str| {
        format!("p.yaml:{line}: unknown field `{field}`; remove it, or use one of any, all")
    };
    assert_eq!(bare, [unknown(21, "key"), unknown(22, "operator"), unknown(23, "value")]);
}

#[test]
fn deprecated_operators_are_named() {
    let lines = |operator: &str| {
        format!(
            "        conditions:\n        - all:\n          - {{key: a, operator: {operator}, value: a}}\n"
        )
    };
    let said = |operator: &str| -> Vec<String> {
        let notices = load(&policy(&lines(operator))).unwrap().notices;
        notices.iter().filter(|notice| notice.line == 22).map(ToString::to_string).collect()
    };
    let place = "p.yaml:22: p/r: verifyImages[0].attestations[0].conditions[0].all[0]";
    assert_eq!(said("In"), [format!("{place}: operator In is deprecated; use AllIn or AnyIn")]);
    assert_eq!(said("anyin"), Vec::<String>::new());
}

#[test]
fn a_condition_that_reads_the_clock_is_known_by_it() {
    let clock = |attestation: Value, more: Value| entry(attestation, more).clock;
    let key = "{{ a.{{ b }} }}";
    assert_eq!(clock(conditions(|_| {}), deny(|_| {})), Clock::Ignored);
    assert_eq!(clock(conditions(|all| all[0]["all"][0]["key"] = json!(key)), json!({})), Clock::Read);
    assert_eq!(clock(conditions(|all| all[0]["all"][0]["message"] = json!(key)), json!({})), Clock::Read);
    assert_eq!(clock(json!({}), deny(|all| all["all"][0]["value"] = json!([key]))), Clock::Read);
    let of_key = |key: &str| clock(conditions(|all| all[0]["all"][0]["key"] = json!(key)), json!({}));
    for (key, read) in [
        ("{{ time_now() }}", Clock::Read),
        ("{{ time_since('', '{{ metadata.scanFinishedOn }}', '') }}", Clock::Read),
        // Where the second time is empty it is the clock's.
        ("{{ time_since('', '{{ a }}', '{{ b }}') }}", Clock::Read),
        ("{{ time_since('', '{{ a }}', '2024-01-01T00:00:00Z') }}", Clock::Ignored),
        ("{{ regex_match('^https://x/', '{{ builder.id }}') }}", Clock::Ignored),
    ] {
        assert_eq!(of_key(key), read, "{key}");
    }
}

#[test]
fn references_point_into_the_conditions() {
    let reference = "        conditions:\n        - all:\n          - {key: '$(./../../1/value)', operator: Equals, value: a}\n          - {key: b, operator: Equals, value: text}\n";
    let entry = entry_of(&policy(reference));
    let conditions = entry.attestations[0].conditions.as_ref().unwrap();
    assert_eq!(conditions.blocks[0].all[0].key.source(), &json!("text"));
    let variable = reference.replace("text", "'{{ a }}'");
    assert_eq!(
        errors(&variable),
        [
            "p.yaml:22: p/r: verifyImages[0].attestations[0].conditions[0].all[0].key: reference `$(./../../1/value)`: what it points to holds a variable or a reference; write it out"
        ]
    );
}

#[test]
fn names_of_attestations_are_their_own() {
    let second = |name: &str| format!("      - type: u\n        name: {name}\n");
    let names = |name: &str| errors(&second(name));
    for reserved in ["image", "images", "request", "serviceAccountName"] {
        assert_eq!(
            names(reserved),
            [format!(
                "p.yaml:21: p/r: verifyImages[0].attestations[1]: name `{reserved}` stands for something else already; choose another"
            )]
        );
    }
    let twice = names("sbom");
    assert!(
        twice.len() == 1
            && twice[0]
                .ends_with("p/r: verifyImages[0]: two attestations have the name `sbom`; choose another"),
        "{twice:?}"
    );
    assert!(load(&policy(&second("other"))).is_ok());
}

#[test]
fn q20_validate_without_attestations_is_never_evaluated() {
    let with_attestations =
        policy("      validate: {deny: {conditions: [{key: a, operator: Equals, value: a}]}}\n");
    let without = with_attestations.replace(
        "      attestations:\n      - type: t\n        name: sbom\n        attestors",
        "      attestors",
    );
    let warnings = |text: &str| -> Vec<String> {
        let notices = load(text).unwrap().notices;
        let warnings = notices.iter().filter(|notice| notice.severity == Severity::Warning);
        warnings.map(ToString::to_string).collect()
    };
    assert_eq!(warnings(&with_attestations), Vec::<String>::new());
    assert_eq!(
        warnings(&without),
        [
            "p.yaml:6: p/r: validate is never evaluated: it is looked at after attestations, and there are none"
        ]
    );
    assert!(entry_of(&without).denies.is_empty());
    assert_eq!(
        errors("      validate: {deny: {conditions: 1}}\n").len(),
        1,
        "neither `any` and `all` nor a list"
    );
    assert_eq!(errors("      validate: {deny: {conditions: {key: a}}}\n").len(), 1);
    assert_eq!(errors("      validate: {deny: {conditions: [{any: []}]}}\n").len(), 1);
    assert_eq!(
        errors("      validate: {message: '{{', deny: {}}\n"),
        [
            "p.yaml:20: p/r: verifyImages[0].validate.message: `{{`: `{{` is not closed (write `\\{{` where it is no variable)"
        ]
    );
    let nothing = load(&policy("      validate: {message: m}\n")).unwrap();
    assert!(nothing.notices.iter().any(|notice| notice.to_string()
        == "p.yaml:20: p/r: verifyImages[0].validate: it has no deny, so it says nothing"));
}

#[test]
fn every_validate_of_a_rule_is_looked_at_after_the_attestations_of_each_entry() {
    let second = "      validate: {deny: {conditions: [{key: a, operator: Equals, value: a}]}}\n    - imageReferences: ['*']\n      required: false\n      validate: {deny: {conditions: [{key: b, operator: Equals, value: b}]}}\n";
    let loaded = load(&policy(second)).unwrap();
    let rule = &loaded.set.policies[0].rules[0];
    let denies: Vec<_> = rule.entries.iter().map(|entry| entry.denies.len()).collect();
    assert_eq!(denies, [2, 0]);
}

#[test]
fn scalars_are_read_as_a_cluster_reads_them() {
    let value = |text: &str| {
        let lines = format!(
            "        conditions:\n        - all:\n          - {{key: a, operator: Equals, value: {text}}}\n"
        );
        let entry = entry_of(&policy(&lines));
        entry.attestations[0].conditions.as_ref().unwrap().blocks[0].all[0].value.source().clone()
    };
    for (text, read) in [
        ("1", json!(1)),
        ("'1'", json!("1")),
        ("1.50", json!(1.5)),
        ("true", json!(true)),
        ("'true'", json!("true")),
        ("1h", json!("1h")),
        ("10Gi", json!("10Gi")),
        ("''", json!("")),
        ("[a, 1, '1', true]", json!(["a", 1, "1", true])),
        ("2022-01-01", json!("2022-01-01")),
        ("1.2.3", json!("1.2.3")),
        ("yes", json!(true)),
        ("0x1F", json!(31)),
    ] {
        assert_eq!(value(text), read, "{text}");
    }
}

fn entry_of(text: &str) -> Arc<Entry> {
    match load(text) {
        Ok(loaded) => Arc::clone(&loaded.set.policies[0].rules[0].entries[0]),
        Err(errors) => panic!("{errors:?}"),
    }
}

// Rule C1.

/// An entry with one attestation and a second one for contrast.
fn entry(attestation: Value, more: Value) -> Arc<Entry> {
    let attestors =
        json!([{ "entries": [{ "keys": { "publicKeys": KEY, "rekor": { "ignoreTlog": true } } }] }]);
    let mut first = json!({ "type": "t", "attestors": attestors });
    first.as_object_mut().unwrap().extend(attestation.as_object().unwrap().clone());
    let mut fields =
        json!({ "imageReferences": ["*"], "attestations": [first, { "type": "u", "attestors": attestors }] });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "p" },
        "spec": { "rules": [{
            "name": "r", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [fields],
        }] },
    });
    entry_of(&policy.to_string())
}

fn conditions(change: impl FnOnce(&mut Value)) -> Value {
    let mut conditions =
        json!([{ "all": [{ "key": "{{ a }}", "operator": "Equals", "value": "b", "message": "m" }] }]);
    change(&mut conditions);
    json!({ "conditions": conditions })
}

fn deny(change: impl FnOnce(&mut Value)) -> Value {
    let mut conditions =
        json!({ "all": [{ "key": "{{ a }}", "operator": "Equals", "value": "b", "message": "m" }] });
    change(&mut conditions);
    json!({ "validate": { "message": "m", "deny": { "conditions": conditions } } })
}

#[test]
fn c1_everything_that_can_change_a_verdict_changes_the_fingerprint() {
    let none = || json!({});
    let entries = [
        entry(none(), none()),
        entry(json!({ "name": "n" }), none()),
        entry(json!({ "name": "m" }), none()),
        entry(conditions(|_| {}), none()),
        entry(conditions(|all| all[0]["all"][0]["key"] = json!("{{ c }}")), none()),
        entry(conditions(|all| all[0]["all"][0]["operator"] = json!("NotEquals")), none()),
        entry(conditions(|all| all[0]["all"][0]["value"] = json!("c")), none()),
        entry(conditions(|all| all[0]["all"][0]["value"] = json!(["b"])), none()),
        // A message with variables can fail an attestation.
        entry(conditions(|all| all[0]["all"][0]["message"] = json!("{{ a }}")), none()),
        entry(conditions(|all| all[0]["any"] = all[0]["all"].clone()), none()),
        entry(conditions(|all| all[0] = json!({ "any": all[0]["all"].clone() })), none()),
        entry(conditions(|all| all.as_array_mut().unwrap().push(json!({ "all": [] }))), none()),
        entry(none(), deny(|_| {})),
        entry(none(), deny(|all| all["all"][0]["key"] = json!("{{ c }}"))),
        entry(none(), deny(|all| all["all"][0]["operator"] = json!("NotEquals"))),
        entry(none(), deny(|all| all["all"][0]["value"] = json!("c"))),
        entry(none(), deny(|all| all["any"] = json!([]))),
        entry(none(), deny(|all| *all = json!({}))),
    ];
    for (at, one) in entries.iter().enumerate() {
        for (other_at, other) in entries.iter().enumerate() {
            let same = one.fingerprint() == other.fingerprint();
            assert_eq!(same, at == other_at, "{at} {other_at}");
        }
    }
}

#[test]
fn c1_what_only_says_what_happened_does_not() {
    let fingerprint = |attestation: Value, more: Value| entry(attestation, more).fingerprint();
    let other = |all: &mut Value| all[0]["all"][0]["message"] = json!("n");
    assert_eq!(fingerprint(conditions(|_| {}), json!({})), fingerprint(conditions(other), json!({})));
    let plain = fingerprint(json!({}), deny(|_| {}));
    let message = deny(|all| all["all"][0]["message"] = json!("{{ a }}"));
    assert_eq!(plain, fingerprint(json!({}), message));
    let mut message = deny(|_| {});
    message["validate"]["message"] = json!("{{ a }}");
    assert_eq!(plain, fingerprint(json!({}), message));
}

#[test]
fn c1_what_a_condition_reads_of_the_pull_is_part_of_the_key() {
    let pod = PodFacts { namespace: Some("a".into()), name: Some("p".into()), ..PodFacts::default() };
    let facts: [(&str, PodFacts, &str); 6] = [
        ("namespace", PodFacts { namespace: Some("b".into()), ..pod.clone() }, "r.test/app:1"),
        ("name", PodFacts { name: Some("q".into()), ..pod.clone() }, "r.test/app:1"),
        ("labels", PodFacts { labels: [("a".into(), "b".into())].into(), ..pod.clone() }, "r.test/app:1"),
        (
            "annotations",
            PodFacts { annotations: [("a".into(), "b".into())].into(), ..pod.clone() },
            "r.test/app:1",
        ),
        ("tag", pod.clone(), "r.test/app:2"),
        ("digest", pod.clone(), &format!("r.test/app:1@sha256:{}", "0".repeat(64))),
    ];
    let told_apart = |entry: &Entry| -> Vec<&str> {
        let reference = |text: &str| Reference::parse(text).unwrap();
        let usual = entry.pod_fingerprint(&pod, &reference("r.test/app:1"));
        let other =
            facts.iter().filter(|(_, pod, text)| entry.pod_fingerprint(pod, &reference(text)) != usual);
        other.map(|(name, _, _)| *name).collect()
    };
    let reading = |key: &str| {
        let in_attestation = entry(conditions(|all| all[0]["all"][0]["key"] = json!(key)), json!({}));
        let in_value = entry(conditions(|all| all[0]["all"][0]["value"] = json!([key])), json!({}));
        let in_deny = entry(json!({}), deny(|all| all["all"][0]["key"] = json!(key)));
        let all = [in_attestation, in_value, in_deny].map(|entry| told_apart(&entry));
        assert_eq!(all[0], all[1], "{key}");
        assert_eq!(all[0], all[2], "{key}");
        all[0].clone()
    };
    let everything = ["namespace", "name", "labels", "annotations", "tag", "digest"];
    assert_eq!(reading("{{ a.request }}"), Vec::<&str>::new());
    assert_eq!(reading("{{ request.namespace }}"), everything);
    assert_eq!(reading("{{ a || request.object }}"), everything);
    assert_eq!(reading("{{ image.tag }}"), ["tag", "digest"]);
    assert_eq!(reading("{{ images.containers }}"), ["tag", "digest"]);
    assert_eq!(reading("{{ a.{{ b }} }}"), everything, "what is read depends on data");
    assert_eq!(reading("{{ keys(@) }}"), everything);
    assert_eq!(reading("{{ regex_match('^x', '{{ builder.id }}') }}"), Vec::<&str>::new());
    assert_eq!(reading("{{ regex_match('^x', '{{ image.tag }}') }}"), ["tag", "digest"]);
}

#[test]
fn s3_rules_whose_conditions_read_the_pull_are_enforced_at_pull_only() {
    let lines = |key: &str| {
        format!(
            "        conditions:\n        - all:\n          - {{key: '{key}', operator: Equals, value: a}}\n"
        )
    };
    let rules = |key: &str| load(&policy(&lines(key))).unwrap().set.pull_only_rules();
    assert_eq!(rules("{{ a }}"), Vec::<String>::new());
    assert_eq!(rules("{{ request.namespace }}"), ["p/r"]);
    assert_eq!(rules("{{ image.tag }}"), ["p/r"]);
}
