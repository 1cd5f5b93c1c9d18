//! `context` of rules and the ConfigMaps of the policy folder: what a name stands for, and what is wrong
//! with one.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::tests::{KEY, load, none, pod, policy, reference};
use super::*;

/// An entry that asks for the annotation `x` of this value.
fn asks_for(value: &str) -> Value {
    json!({ "attestors": [{ "entries": [{ "annotations": { "x": value }, "keys": { "publicKeys": KEY } }] }] })
}

fn config_map(namespace: &str, name: &str, data: Value) -> String {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": namespace }, "data": data })
        .to_string()
}

fn maps() -> String {
    [
        config_map("default", "m", json!({ "a": "of default", "list": r#"["x"]"#, "name": "n" })),
        config_map("team", "m", json!({ "a": "of team" })),
        config_map("team", "n", json!({ "a": "of n" })),
    ]
    .join("\n---\n")
}

fn loaded(context: Value, reads: &str) -> Result<Loaded, Vec<Remark>> {
    let text = policy(none(), json!({ "context": context }), asks_for(reads));
    load(&format!("{text}\n---\n{}", maps()))
}

/// What `reads` stands for, as the entry that asks for it says, for a pod in `namespace`.
fn value_in(context: Value, reads: &str, namespace: &str, candidates: &[&str]) -> Result<String, String> {
    let of = |set: &PolicySet| {
        let applications =
            set.matching(&reference("ghcr.io/org/app:1"), &pod(namespace), SystemTime::UNIX_EPOCH);
        let entry = Arc::clone(&applications[0].entries[0].entry);
        entry.undecidable().map_or_else(|| Ok(entry.fingerprint()), |fault| Err(fault.message))
    };
    let found = of(&loaded(context, reads).unwrap().set)?;
    let same = |candidate: &&&str| {
        of(&load(&policy(none(), none(), asks_for(candidate))).unwrap().set).unwrap() == found
    };
    Ok((*candidates.iter().find(same).expect("one of the candidates")).to_owned())
}

fn value(context: Value, reads: &str, candidates: &[&str]) -> Result<String, String> {
    value_in(context, reads, "team", candidates)
}

#[test]
fn a_variable_is_a_value_an_expression_or_both() {
    let variable = |variable: Value| json!([{ "name": "v", "variable": variable }]);
    for (given, reads, wanted) in [
        (json!({ "value": "plain" }), "{{ v }}", "plain"),
        (json!({ "value": { "a": { "b": "deep" } } }), "{{ v.a.b }}", "deep"),
        (json!({ "value": { "a": { "b": "deep" } }, "jmesPath": "a.b" }), "{{ v }}", "deep"),
        (json!({ "value": ["x", "y"], "jmesPath": "[1]" }), "{{ v }}", "y"),
        (json!({ "value": { "a": "x" }, "jmesPath": "a || b" }), "{{ v }}", "x"),
        (json!({ "value": "in {{ request.namespace }}" }), "{{ v }}", "in team"),
        (json!({ "value": { "of": "{{ request.namespace }}" }, "jmesPath": "of" }), "{{ v }}", "team"),
        (json!({ "jmesPath": "request.namespace" }), "{{ v }}", "team"),
        (json!({ "jmesPath": "image.name" }), "{{ v }}", "app"),
        (
            json!({ "jmesPath": "request.object.metadata.labels.who", "default": "nobody" }),
            "{{ v }}",
            "nobody",
        ),
        (json!({ "value": { "a": null }, "jmesPath": "a", "default": "nobody" }), "{{ v }}", "nobody"),
        (json!({ "value": {}, "jmesPath": "a.b", "default": "{{ request.namespace }}" }), "{{ v }}", "team"),
        (json!({ "default": "always" }), "{{ v }}", "always"),
        (json!({ "value": 7 }), "{{ v }}", "7"),
        (json!({ "value": true }), "is {{ v }}", "is true"),
        (json!({ "value": "\\{{ no }} variable" }), "{{ length(v) }}", "17"),
    ] {
        assert_eq!(value(variable(given.clone()), reads, &[wanted]).as_deref(), Ok(wanted), "{given}");
    }
}

#[test]
fn a_variable_without_a_value_leaves_the_rule_undecided() {
    let variable = |variable: Value| json!([{ "name": "v", "variable": variable }]);
    for (given, wanted) in [
        (
            json!({ "jmesPath": "request.object.metadata.labels.who" }),
            "failed to apply jmespath request.object.metadata.labels.who to variable v: JMESPath query failed: Unknown key \"labels\" in path",
        ),
        (
            json!({ "value": { "a": null }, "jmesPath": "a" }),
            "failed to add context entry for variable v since it evaluated to nil",
        ),
        (json!({ "value": {}, "jmesPath": "length('a', 'b') || a", "default": null }), ""),
        (
            json!({ "value": "{{ request.object.spec.serviceAccount }}" }),
            "failed to substitute variables in context entry v: failed to resolve request.object.spec.serviceAccount at path : JMESPath query failed: Unknown key \"serviceAccount\" in path",
        ),
        (
            json!({ "value": 1, "jmesPath": "length(@)" }),
            "failed to apply jmespath length(@) to variable v: ",
        ),
    ] {
        if wanted.is_empty() {
            assert!(loaded(variable(given), "{{ v }}").is_err());
            continue;
        }
        let cause = value(variable(given.clone()), "{{ v }}", &[]).unwrap_err();
        assert!(
            cause.starts_with(&format!("check/rule: failed to load context: {wanted}")),
            "{given}: {cause}"
        );
    }
}

#[test]
fn a_default_does_not_stand_in_for_what_is_cut_off() {
    // Three thousand times three thousand comparisons.
    let list = vec!["0"; 3000].join(",");
    let query = format!("[*].length(`[{list}]`[?@ == `1`])");
    let context =
        json!([{ "name": "v", "variable": { "value": vec![0; 3000], "jmesPath": query, "default": "x" } }]);
    let cause = value(context, "{{ v }}", &[]).unwrap_err();
    assert!(cause.contains("it takes more than"), "{cause}");
}

#[test]
fn entries_see_those_before_them_and_no_others() {
    let context = json!([
        { "name": "where", "variable": { "jmesPath": "request.namespace" } },
        { "name": "map", "configMap": { "name": "m", "namespace": "{{ where }}" } },
        { "name": "text", "variable": { "value": "{{ map.data.a }}!" } },
    ]);
    assert_eq!(value(context, "{{ text }}", &["of team!"]).as_deref(), Ok("of team!"));
    let backwards = json!([
        { "name": "text", "variable": { "value": "{{ map.data.a }}!" } },
        { "name": "map", "configMap": { "name": "m" } },
    ]);
    let cause = value(backwards, "{{ text }}", &[]).unwrap_err();
    assert!(cause.contains("Unknown key \"map\" in path"), "{cause}");
    // The last of a name counts, and one between them reads the first.
    let twice = json!([
        { "name": "v", "variable": { "value": "first" } },
        { "name": "w", "variable": { "value": "{{ v }}" } },
        { "name": "v", "variable": { "value": "second" } },
    ]);
    assert_eq!(value(twice, "{{ v }} {{ w }}", &["second first"]).as_deref(), Ok("second first"));
}

#[test]
fn a_config_map_is_found_by_namespace_and_name() {
    let map = |map: Value| json!([{ "name": "v", "configMap": map }]);
    let texts = ["of default", "of team", "of n", "m", "team"];
    for (given, reads, wanted) in [
        (json!({ "name": "m" }), "{{ v.data.a }}", "of default"),
        (json!({ "name": "m", "namespace": "team" }), "{{ v.data.a }}", "of team"),
        (json!({ "name": "m", "namespace": "{{ request.namespace }}" }), "{{ v.data.a }}", "of team"),
        (json!({ "name": "{{ 'n' }}", "namespace": "team" }), "{{ v.data.a }}", "of n"),
        (json!({ "name": "m" }), "{{ v.metadata.name }}", "m"),
        (json!({ "name": "m", "namespace": "team" }), "{{ v.metadata.namespace }}", "team"),
    ] {
        assert_eq!(value(map(given.clone()), reads, &texts).as_deref(), Ok(wanted), "{given}");
    }
    let cause = value_in(
        map(json!({ "name": "m", "namespace": "{{ request.namespace }}" })),
        "{{ v.data.a }}",
        "other",
        &[],
    );
    assert_eq!(
        cause,
        Err("check/rule: failed to load context: failed to retrieve config map for context entry v: failed to get configmap other/m: there is no such document in the policy folder".to_owned())
    );
    let cause = value(map(json!({ "name": "{{ request.object }}" })), "{{ v.data.a }}", &[]).unwrap_err();
    assert!(
        cause.contains("failed to substitute variables in context v configMap: expected string"),
        "{cause}"
    );
}

#[test]
fn a_namespaced_policy_reads_its_own_namespace_alone() {
    let set = |namespace: &str| {
        let context =
            json!({ "context": [{ "name": "v", "configMap": { "name": "m", "namespace": namespace } }] });
        let text = policy(none(), context, asks_for("{{ v.data.a }}"))
            .replace("ClusterPolicy", "Policy")
            .replace(r#""name":"check""#, r#""name":"check","namespace":"team""#);
        load(&format!("{text}\n---\n{}", maps())).unwrap().set
    };
    let cause = |set: &PolicySet| {
        let applications = set.matching(&reference("ghcr.io/org/app"), &pod("team"), SystemTime::UNIX_EPOCH);
        applications[0].entries[0].entry.undecidable().map(|fault| fault.message)
    };
    assert_eq!(cause(&set("")), None);
    assert_eq!(cause(&set("team")), None);
    assert_eq!(
        cause(&set("default")).unwrap(),
        "team/check/rule: failed to load context: failed to retrieve config map for context entry v: configMap namespace \"default\" is different from policy namespace \"team\""
    );
}

#[test]
fn what_nothing_reads_is_left_out() {
    let context = json!([
        { "name": "unread", "configMap": { "name": "missing" } },
        { "name": "indirect", "variable": { "value": "x" } },
        { "name": "v", "variable": { "jmesPath": "indirect" } },
    ]);
    let loaded = loaded(context, "{{ v }}").unwrap();
    let remarks: Vec<_> =
        loaded.notices.iter().map(|remark| (remark.severity, remark.message.as_str())).collect();
    assert_eq!(
        remarks,
        [(Severity::Notice, "check/rule: context[0]: nothing reads `unread`, so it is left out")]
    );
}

#[test]
fn what_may_be_read_under_another_spelling_is_kept() {
    let context = json!([
        { "name": "denied_prod", "variable": { "value": "x" } },
        { "name": "denied_dev", "variable": { "value": "y" } },
    ]);
    for (reads, wanted) in [
        ("{{ denied_{{ request.namespace }} || 'none' }}", "x"),
        ("{{ \"denied_{{ request.namespace }}\" || 'none' }}", "x"),
        ("{{ \"d\\u0065nied_prod\" || 'none' }}", "x"),
        ("{{ lookup(@, 'denied_prod') || 'none' }}", "x"),
    ] {
        let found = value_in(context.clone(), reads, "prod", &["x", "y", "none"]);
        assert_eq!(found.as_deref(), Ok(wanted), "{reads}");
    }
    let through = json!([
        { "name": "denied_prod", "variable": { "value": "x" } },
        { "name": "v", "variable": { "value": "{{ denied_{{ request.namespace }} || 'none' }}" } },
    ]);
    assert_eq!(value_in(through, "{{ v }}", "prod", &["x", "none"]).as_deref(), Ok("x"));
}

#[test]
fn s3_what_the_context_reads_makes_a_rule_one_of_pulls() {
    let of = |context: Value| loaded(context, "{{ v }}").unwrap().set.pull_only_rules();
    assert!(of(json!([{ "name": "v", "variable": { "value": "x" } }])).is_empty());
    assert_eq!(of(json!([{ "name": "v", "variable": { "jmesPath": "request.namespace" } }])), ["check/rule"]);
    assert_eq!(of(json!([{ "name": "v", "variable": { "jmesPath": "image.tag" } }])), ["check/rule"]);
}

#[test]
fn m3_a_pull_without_a_pod_does_not_choose_a_default() {
    let context =
        json!([{ "name": "v", "variable": { "jmesPath": "request.namespace", "default": "team" } }]);
    let set = loaded(context, "{{ v }}").unwrap().set;
    let applications =
        set.matching(&reference("ghcr.io/org/app"), &PodFacts::default(), SystemTime::UNIX_EPOCH);
    assert_eq!(
        applications[0].entries[0].entry.undecidable().unwrap().message,
        "check/rule: failed to load context: the pull does not say for which pod it is"
    );
}

#[test]
fn what_is_wrong_with_a_context_is_a_load_error() {
    let one = |entry: Value| loaded(json!([entry]), "{{ v }}");
    for (result, wanted) in [
        (one(json!({ "variable": { "value": "x" } })), "context[0]: it has no name"),
        (
            one(json!({ "name": "image", "variable": { "value": "x" } })),
            "the name `image` always stands for something else",
        ),
        (
            one(json!({ "name": "serviceAccountName", "variable": { "value": "x" } })),
            "always stands for something else",
        ),
        (one(json!({ "name": "v" })), "exactly one of configMap, variable"),
        (
            one(json!({ "name": "v", "variable": { "value": "x" }, "configMap": { "name": "m" } })),
            "exactly one of configMap, variable",
        ),
        (one(json!({ "name": "v", "variable": {} })), "variable has neither value, jmesPath nor default"),
        (one(json!({ "name": "v", "variable": { "jmesPath": "a." } })), "variable.jmesPath: "),
        (one(json!({ "name": "v", "variable": { "value": {}, "jmesPath": "a." } })), "variable.jmesPath: "),
        (
            one(json!({ "name": "v", "variable": { "jmesPath": "{{ request.namespace }}" } })),
            "variable.jmesPath must not hold variables",
        ),
        (one(json!({ "name": "v", "variable": { "value": "{{ a. }}" } })), "variable.value: "),
        (
            one(json!({ "name": "v", "variable": { "value": "{{ serviceAccountName }}" } })),
            "is not known on a node",
        ),
        (one(json!({ "name": "v", "configMap": {} })), "configMap.name is missing"),
        (one(json!({ "name": "v", "configMap": { "name": "{{ a. }}" } })), "configMap.name: "),
        (
            one(json!({ "name": "v", "apiCall": { "urlPath": "/api" } })),
            "apiCall cannot be used: a node does not ask the API server",
        ),
        (
            one(json!({ "name": "v", "globalReference": { "name": "x" } })),
            "globalReference cannot be used: it is kept by Kyverno",
        ),
        (one(json!({ "name": "v", "bogus": 1 })), "bogus"),
        (one(json!({ "name": "v", "variable": { "bogus": 1 } })), "bogus"),
        (one(json!({ "name": "v", "configMap": { "bogus": 1 } })), "bogus"),
        (load(&format!("{0}\n---\n{0}", config_map("a", "b", none()))), "ConfigMap `a/b` is defined twice"),
        (load(&config_map("a", "", none())), "metadata.name is missing"),
        (load(&config_map("a", "b", json!({ "c": ["d"] }))), ""),
        (load(&config_map("a", "b", none()).replace(r#""data""#, r#""bogus""#)), "bogus"),
    ] {
        let errors = result.map(|loaded| loaded.notices).expect_err(wanted);
        assert!(
            errors.iter().any(|error| error.line > 0 && error.message.contains(wanted)),
            "{wanted:?}, got {errors:?}"
        );
    }
}

#[test]
fn config_maps_may_stand_in_lists_and_in_other_files() {
    let map = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "a": "b" }, "binaryData": {} } ] });
    let context = json!({ "context": [{ "name": "v", "configMap": { "name": "m" } }] });
    let rule = policy(none(), context, asks_for("{{ v.data.a }}"));
    let source = |file: &str, text: String| PolicySource { file: file.into(), text };
    let sources = [source("a.yaml", rule), source("b.yaml", map.to_string())];
    let loaded = PolicySet::load(&sources, &tests::options()).unwrap();
    let remarks: Vec<_> = loaded.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        remarks,
        [
            "b.yaml:1: configMap default/m: binaryData means nothing on a node: upstream shows rules the data alone"
        ]
    );
}
