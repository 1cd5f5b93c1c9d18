//! What is a variable and what becomes of it. Inputs and results are those of upstream's `vars_test.go`,
//! `variables_test.go` and its tests of the regular expressions, where they are about conditions; what
//! differs is said.

use std::time::SystemTime;

use serde_json::json;

use super::*;
use crate::policy::jmespath::{Clock, Names};

/// Data for every test here.
fn data() -> Value {
    json!({
        "request": {
            "namespace": "n1",
            "object": {
                "metadata": {
                    "name": "temp",
                    "namespace": "n1",
                    "annotations": { "test": "name", "target": "nested_target", "targetnew": "target" },
                },
                "spec": { "namespace": "n1", "name": "temp1" },
            },
            "userInfo": { "username": "user1" },
        },
        "foo": "bar", "foo2": "bar2",
        "array": ["value1", "value2"],
        "map": { "key2": "a<b", "key1": 1.0 },
        "int": 5, "float": -5.5, "large": 1_000_000, "huge": 1e21, "bool": false, "null": null,
        "hostile": "{{ request.object.metadata.name }}",
        "shallow": "{{ DO_NOT_SUBSTITUTE_ME {{OR_ME}} }}",
        "escaped": "\\{{ a }}",
        "quotes": "it's \"a\" `b` \\d {{ foo }} $(x)",
        "key": "map",
        "my-key": "app.kubernetes.io/name",
        "labels": { "app.kubernetes.io/name": "web", "it's \"a\" `b` \\d {{ foo }} $(x)": "odd" },
    })
}

fn fill_with(source: Value, data: &Value, budget: &mut Budget) -> Result<Value, String> {
    let template = Template::parse(source, "/0/all/0/key").map_err(|error| error.to_string())?;
    let scope = Scope::new(SystemTime::UNIX_EPOCH).object(data.as_object().unwrap());
    let filled = template.substitute(&scope, budget);
    filled.map(Cow::into_owned).map_err(|error| error.to_string())
}

fn fill(source: Value) -> Result<Value, String> {
    fill_with(source, &data(), &mut Budget::of_verdict())
}

fn text(source: &str) -> Result<Value, String> {
    fill(json!(source))
}

#[test]
fn variables_are_found_as_upstream_finds_them() {
    for (source, filled) in [
        ("tag: {{ foo }}", json!("tag: bar")),
        ("{{foo}}-{{foo2}}", json!("bar-bar2")),
        ("{{foo}}{{foo2}}", json!("barbar2")),
        ("\"{{ foo }}\"", json!("\"bar\"")),
        ("/s/{{ foo }}/r", json!("/s/bar/r")),
        ("{{ foo }} {{foo}} {{foo}}", json!("bar bar bar")),
        ("{{ foo }} \\{{foo}} {{foo}}", json!("bar {{foo}} bar")),
        ("\\{{ foo }}", json!("{{ foo }}")),
        ("\\\\{{ foo }}", json!("\\{{ foo }}")),
        ("just-a-string", json!("just-a-string")),
        ("", json!("")),
        ("a } b }} c { d", json!("a } b }} c { d")),
        ("{{foo}}}", json!("bar}")),
        ("{{\n foo\t}}", json!("bar")),
        ("{{ {a: foo} }}", json!({ "a": "bar" })),
        ("{{{a: foo}}}", json!({ "a": "bar" })),
        ("{{ [{a: foo}, {b: foo2}][1] }}", json!({ "b": "bar2" })),
        ("{{ `{}` }}", json!({})),
    ] {
        assert_eq!(text(source), Ok(filled), "{source}");
    }
}

#[test]
fn what_upstream_would_keep_as_text_is_an_error_of_the_policy() {
    for (source, cause) in [
        ("{{request.object", Malformed::Unclosed),
        ("{{ foo {{foo2}}", Malformed::Unclosed),
        ("{{ foo }", Malformed::Braces),
        ("{{ {a: {b: foo}} }}", Malformed::Braces),
        ("{{ foo } }}", Malformed::Braces),
        ("{{}}", Malformed::Empty),
        ("{{ - }}", Malformed::Empty),
        ("{{ \\{{ foo }} }}", Malformed::Ambiguous),
        ("\\{{{foo}}}", Malformed::Ambiguous),
        ("{{{{foo}}}}", Malformed::Ambiguous),
        ("{{a.{{a.{{a.{{a.{{foo}}}}}}}}}}", Malformed::Depth),
    ] {
        let error = Template::parse(json!(source), "").unwrap_err();
        assert_eq!(error, TemplateError::Malformed { text: source.to_owned(), cause }, "{source}");
    }
    for (source, message) in [
        ("{{ a..b }}", "incorrect query a..b: "),
        ("{{ nonsense(a) }}", "incorrect query nonsense(a): unknown function: nonsense"),
        ("{{ nonsense('{{ foo }}') }}", "incorrect query nonsense('{{ foo }}'): unknown function: nonsense"),
        ("{{ nonsense({{ foo }}) }}", "incorrect query nonsense({{ foo }}): unknown function: nonsense"),
        ("{{ length('{{ foo }}', a) }}", "incorrect query length('{{ foo }}', a): "),
        ("{{ 'a' '{{ foo }}' }}", "incorrect query 'a' '{{ foo }}': "),
        ("{{@}}", "`{{@}}` stands for"),
        ("{{ regex_match('(443)', '{{@}}') }}", "`{{@}}` stands for"),
    ] {
        let error = text(source).unwrap_err();
        assert!(error.starts_with(message), "{source}: {error}");
    }
}

#[test]
fn alone_a_variable_keeps_its_type_and_in_text_it_becomes_text() {
    for (variable, alone, inside) in [
        ("null", json!(null), "null"),
        ("array", json!(["value1", "value2"]), "[\"value1\",\"value2\"]"),
        ("map", json!({ "key1": 1.0, "key2": "a<b" }), "{\"key1\":1,\"key2\":\"a\\u003cb\"}"),
        ("int", json!(5), "5"),
        ("float", json!(-5.5), "-5.5"),
        ("large", json!(1_000_000), "1000000"),
        ("huge", json!(1e21), "1e+21"),
        ("bool", json!(false), "false"),
        ("foo", json!("bar"), "bar"),
    ] {
        assert_eq!(text(&format!("{{{{ {variable} }}}}")), Ok(alone), "{variable}");
        let filled = text(&format!("content = {{{{ {variable} }}}}"));
        assert_eq!(filled, Ok(json!(format!("content = {inside}"))), "{variable}");
        // A blank is text.
        assert_eq!(text(&format!("{{{{ {variable} }}}} ")), Ok(json!(format!("{inside} "))), "{variable}");
    }
}

#[test]
fn whole_documents_are_filled_in_keys_included() {
    let source = json!({
        "kind": "ClusterRole",
        "name": "ns-owner-{{request.object.metadata.namespace}}-{{request.userInfo.username}}-bindings",
        "{{ foo }}": { "plain": [true, 1, null, "\\{{ x }}"], "{{ foo }}-{{ foo2 }}": ["{{ array }}", "{{ int }}"] },
    });
    let filled = json!({
        "kind": "ClusterRole",
        "name": "ns-owner-n1-user1-bindings",
        "bar": { "plain": [true, 1, null, "{{ x }}"], "bar-bar2": [["value1", "value2"], 5] },
    });
    assert_eq!(fill(source), Ok(filled));
    let key = |source: &str| fill(json!({ source: 1 }));
    assert_eq!(
        key("{{ int }}"),
        Err("expected string after substituting variables in key \"{{ int }}\"".to_owned())
    );
    assert_eq!(
        key("{{ null }}"),
        Err("expected string after substituting variables in key \"{{ null }}\"".to_owned()),
        "upstream keeps the key as it is written"
    );
    assert_eq!(
        fill(json!({ "bar": 1, "{{ foo }}": 2 })),
        Err("two keys become \"bar\" after substituting variables".to_owned()),
        "upstream takes either"
    );
    assert_eq!(
        fill(json!({ "{{{{": 1 })).unwrap_err(),
        TemplateError::Malformed { text: "{{{{".into(), cause: Malformed::Ambiguous }.to_string()
    );
}

#[test]
fn q18_what_comes_from_data_is_never_read_again() {
    let hostile = json!("{{ request.object.metadata.name }}");
    assert_eq!(text("{{ hostile }}"), Ok(hostile), "upstream: temp");
    assert_eq!(
        text("a {{ hostile }} b"),
        Ok(json!("a {{ request.object.metadata.name }} b")),
        "upstream: a temp b"
    );
    assert_eq!(text("{{ [hostile] }}"), Ok(json!(["{{ request.object.metadata.name }}"])));
    // Nor can data and text around it become a variable together.
    let halves = json!({ "open": "{{ foo ", "close": "}}", "slash": "\\" });
    let joined = |source: &str| fill_with(json!(source), &halves, &mut Budget::of_verdict());
    assert_eq!(joined("{{ open }}{{ close }}"), Ok(json!("{{ foo }}")));
    assert_eq!(joined("{{ slash }}{{ slash }}"), Ok(json!("\\\\")));
    assert_eq!(text("{{ escaped }}"), Ok(json!("\\{{ a }}")));
    assert_eq!(text("x {{ escaped }}"), Ok(json!("x \\{{ a }}")), "upstream: x {{ a }}");
}

#[test]
fn a_shallow_variable_is_a_text() {
    let shallow = "{{ DO_NOT_SUBSTITUTE_ME {{OR_ME}} }}";
    assert_eq!(text("{{- shallow }} {{foo}}"), Ok(json!(format!("{shallow} bar"))));
    assert_eq!(text("{{foo}} {{- shallow }} {{foo2}}"), Ok(json!(format!("bar {shallow} bar2"))));
    assert_eq!(text("{{- int }}"), Ok(json!(5)));
    assert_eq!(text("a {{- null }}"), Ok(json!("a null")));
    assert_eq!(
        text("a {{- int }}"),
        Err("failed to resolve int at path /0/all/0/key: the result is not a string".to_owned())
    );
}

#[test]
fn errors_are_upstreams() {
    assert_eq!(
        text("{{request.object.metadata.name1}}"),
        Err("failed to resolve request.object.metadata.name1 at path /0/all/0/key: JMESPath query failed: Unknown key \"name1\" in path".to_owned())
    );
    assert_eq!(
        fill(json!({ "a/b": [{ "c": "x {{ missing }}" }] })),
        Err("failed to resolve missing at path /0/all/0/key/a\\/b/0/c: JMESPath query failed: Unknown key \"missing\" in path".to_owned())
    );
    assert_eq!(text("{{ missing || 'none' }}"), Ok(json!("none")));
    let long = format!("{{{{ missing.{} }}}}", "key.".repeat(100) + "b");
    let error = text(&long).unwrap_err();
    assert!(error.len() < 450 && error.contains('…'), "{error}");
}

#[test]
fn variables_in_variables_are_read_first() {
    for (source, filled) in [
        ("{{request.object.metadata.{{request.object.metadata.annotations.test}}}}", json!("temp")),
        (
            "{{request.object.metadata.annotations.{{request.object.metadata.annotations.targetnew}}}}",
            json!("nested_target"),
        ),
        (
            "\\{{request.object.metadata.annotations.{{request.object.metadata.annotations.targetnew}}}}",
            json!("{{request.object.metadata.annotations.target}}"),
        ),
        ("{{ {{ key }}.key1 }}", json!(1.0)),
        ("{{ array[{{ `1` }}] }}", json!("value2")),
        ("{{ array[{{ '0' }}] }}", json!("value1")),
        ("{{ `{{ int }}` }}", json!(5)),
        ("{{ {a: {{ key }}.key1} }}", json!({ "a": 1.0 })),
        ("{{ labels.\"{{ \"my-key\" }}\" }}", json!("web")),
        ("{{ labels.\"{{ quotes }}\" }}", json!("odd")),
        ("{{ length('{{ foo }}') }}", json!(3)),
        ("{{ '{{ map }}' }}", json!("{\"key1\":1,\"key2\":\"a\\u003cb\"}")),
        ("{{ 'a {{ {{ key }}.key1 }} b' }}", json!("a 1 b")),
        ("{{ '{{- shallow }}' }}", json!("{{ DO_NOT_SUBSTITUTE_ME {{OR_ME}} }}")),
        ("{{ \"{{ key }}\".key1 }} {{ '`' }}", json!("1 `")),
    ] {
        assert_eq!(text(source), Ok(filled), "{source}");
    }
}

#[test]
fn what_is_put_into_an_expression_cannot_change_what_it_is() {
    let quotes = data()["quotes"].clone();
    assert_eq!(text("{{ '{{ quotes }}' }}"), Ok(quotes.clone()));
    assert_eq!(text("{{ 'a{{ quotes }}b{{ quotes }}' }}"), {
        let quotes = quotes.as_str().unwrap();
        Ok(json!(format!("a{quotes}b{quotes}")))
    });
    let secrets = |value: &str| json!({ "secret": "s", "value": value, "a": { "b": 1 } });
    let filled =
        |source: &str, value: &str| fill_with(json!(source), &secrets(value), &mut Budget::of_verdict());
    for value in [
        "') || secret || ('",
        "', secret, '",
        "' | secret",
        "\\",
        "\\'",
        "x\\",
        "`",
        "` || secret || `",
        "\u{0}\n",
    ] {
        assert_eq!(filled("{{ '{{ value }}' }}", value), Ok(json!(value)), "{value:?}");
        assert_eq!(filled("{{ join('', ['{{ value }}']) }}", value), Ok(json!(value)), "{value:?}");
        let missing = filled("{{ a.\"{{ value }}\" || 'none' }}", value);
        assert_eq!(missing, Ok(json!("none")), "{value:?}");
    }
    let unsafe_value =
        "failed to resolve value at path /0/all/0/key: its value cannot be put into an expression".to_owned();
    for value in ["b || secret", "b.c", "b-c", "", " b", "b ", "@", "*", "é", "1b", "b(", "`1`", "'x'"] {
        assert_eq!(filled("{{ a.{{ value }} }}", value), Err(unsafe_value.clone()), "{value:?}");
        assert_eq!(filled("{{ `{{ value }}` }}", value), Err(unsafe_value.clone()), "{value:?}");
        assert_eq!(filled("{{ `\"{{ value }}\"` }}", value), Err(unsafe_value.clone()), "{value:?}");
    }
    for source in
        ["{{ map.{{ map }} }}", "{{ map.{{ null }} }}", "{{ map.{{ bool }} }}", "{{ map.{{ float }} }}"]
    {
        assert!(
            text(source).unwrap_err().ends_with("its value cannot be put into an expression"),
            "{source}"
        );
    }
    assert!(text("{{ labels.\"{{ int }}\" }}").unwrap_err().ends_with("cannot be put into an expression"));
}

#[test]
fn where_a_string_ends_must_be_plain_beside_a_variable() {
    for (source, cause) in [
        ("{{ f('\\'{{ foo }}') }}", nested::NestingError::BackslashQuote),
        ("{{ f('\\\\', '{{ foo }}') }}", nested::NestingError::BackslashQuote),
        ("{{ f(\"\\\"\", '{{ foo }}') }}", nested::NestingError::BackslashQuote),
        ("{{ f(`\\``, '{{ foo }}') }}", nested::NestingError::BackslashQuote),
        ("{{ f('{{ foo }}) }}", nested::NestingError::Unclosed),
    ] {
        match Template::parse(json!(source), "") {
            Err(TemplateError::Nested { cause: found, .. }) => assert_eq!(found, cause, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
    // Backslashes elsewhere mean nothing special.
    assert_eq!(text("{{ '^\\w\\.{{ foo }}$' }}"), Ok(json!("^\\w\\.bar$")));
}

#[test]
fn an_expression_that_is_put_together_may_be_none() {
    let error = text("{{ array[{{ foo }}] }}").unwrap_err();
    assert!(
        error.starts_with(
            "failed to resolve array[{{ foo }}] at path /0/all/0/key: incorrect query array[bar]: "
        ),
        "{error}"
    );
    assert_eq!(
        text("{{ map.{{ foo }} }}"),
        Err("failed to resolve map.{{ foo }} at path /0/all/0/key: JMESPath query failed: Unknown key \"bar\" in path".to_owned())
    );
    assert!(text("{{request.object.metadata.{{request.object.metadata.annotations.test2}}}}").is_err());
    assert!(text("{{request.object.metadata2.{{request.object.metadata.annotations.test}}}}").is_err());
}

#[test]
fn texts_that_are_made_are_charged() {
    let data = json!({ "big": "x".repeat(1000), "list": ["x".repeat(1000)] });
    for source in [
        json!("a {{ big }}"),
        json!("{{ '{{ big }}' }}"),
        json!("a {{ list }}"),
        json!(["{{ list }}"]),
        json!({ "a": "{{ list }}", "b": "{{ foo }}" }),
    ] {
        let error = fill_with(source.clone(), &data, &mut Budget::limited(10_000, 500)).unwrap_err();
        assert!(error.ends_with("JMESPath query failed: it makes more than 500 bytes"), "{source}: {error}");
    }
    // What is part of the data is not copied.
    assert!(fill_with(json!("{{ list }}"), &data, &mut Budget::limited(10_000, 0)).is_ok());
}

#[test]
fn reads_are_those_of_every_variable() {
    let reads = |source: Value| Template::parse(source, "").unwrap().reads();
    let names = |source: Value| match reads(source).names {
        Names::Only(names) => Some(names.into_iter().collect::<Vec<_>>()),
        Names::Everything => None,
    };
    assert_eq!(names(json!("plain \\{{ a }}")), Some(Vec::new()));
    assert_eq!(
        names(json!([{ "{{ a }}": "x {{ b.c }} {{ c }}" }, "{{ d || e }}"])),
        Some(["a", "b", "c", "d", "e"].map(str::to_owned).to_vec())
    );
    assert_eq!(names(json!("{{ a.{{ b }} }}")), None, "what the whole reads depends on data");
    assert_eq!(names(json!("{{ a.\"{{ b }}\" }}")), None);
    // A raw string names nothing.
    let inside = names(json!("{{ join(c, ['x{{ a.b }}', '{{ length('{{ d }}') }}']) }}")).unwrap();
    let [placeholder, rest @ ..] = inside.as_slice() else { panic!("{inside:?}") };
    assert_eq!((placeholder.as_str(), rest), ("\u{1}", ["a", "c", "d"].map(str::to_owned).as_slice()));
    assert_eq!(reads(json!("{{ a.{{ b }} }}")).clock, Clock::Read);
    assert_eq!(reads(json!("{{ a }}")).clock, Clock::Ignored);
    assert!(Template::parse(json!(["\\{{ a }}", { "b": 1 }]), "").unwrap().is_plain());
}

#[test]
fn references_are_resolved_at_load() {
    let document = json!({
        "metadata": { "name": "temp", "annotations": {
            "test": "$(../../../spec/namespace)", "absolute": "a $(/spec/namespace)-$(./../test2) b",
            "test2": "\\$(ENV_VAR)", "test3": "\\${ENV_VAR}", "test5": "\\$(NODE_NAME)/postgres/\\$(POD_NAME)",
            "blank": "$(date +%s) $()", "here": "$(./../../name)",
        } },
        "spec": { "namespace": "n1", "number": 1, "variable": "{{ foo }}", "reference": "$(/spec/namespace)" },
    });
    let annotations = &document["metadata"]["annotations"];
    let resolved = |name: &str| {
        resolve_references(&annotations[name], &document, &format!("/metadata/annotations/{name}"))
            .map_err(|error| error.to_string())
    };
    for (name, value) in [
        ("test", "n1"),
        ("test2", "$(ENV_VAR)"),
        ("test3", "\\${ENV_VAR}"),
        ("test5", "$(NODE_NAME)/postgres/$(POD_NAME)"),
        ("blank", "$(date +%s) $()"),
        ("here", "temp"),
    ] {
        assert_eq!(resolved(name), Ok(json!(value)), "{name}");
    }
    // Upstream reads up to the last parenthesis of the word, and then finds nothing.
    assert!(resolved("absolute").unwrap_err().contains("it must be one path"));
    for (reference, cause) in [
        ("$(/spec/missing)", reference::ReferenceCause::Nothing),
        ("$(/spec)", reference::ReferenceCause::Nothing),
        ("$(/spec/number)", reference::ReferenceCause::NotText),
        ("$(/spec/variable)", reference::ReferenceCause::NotPlain),
        ("$(/spec/reference)", reference::ReferenceCause::NotPlain),
        ("$(>=/spec/namespace)", reference::ReferenceCause::Path),
    ] {
        let inside = reference.trim_start_matches("$(").trim_end_matches(')').to_owned();
        let expected = TemplateError::Reference { reference: inside, cause };
        for value in [json!(reference), json!([{ "a": reference }]), json!({ reference: 1 })] {
            assert_eq!(resolve_references(&value, &document, "/x"), Err(expected.clone()), "{value}");
        }
    }
    for (base, path, expected) in [
        (
            "/spec/containers/0/resources/requests/memory",
            "./../../limits/memory",
            "/spec/containers/0/resources/limits/memory",
        ),
        (
            "/spec/containers/0/resources/requests/memory",
            "../../limits/memory",
            "/spec/containers/0/resources/limits/memory",
        ),
        ("/spec/a", "../../../../x", "/x"),
    ] {
        let mut document = json!({ "x": "text", "spec": { "containers": [{ "resources": { "limits": { "memory": "text" } } }] } });
        document["at"] = json!(expected);
        assert_eq!(
            resolve_references(&json!(format!("$({path})")), &document, base),
            Ok(json!("text")),
            "{path}"
        );
    }
}
