//! The dialect: what is swallowed and what is not, and what bounds an evaluation. Expected values are
//! those of the fork that Kyverno pins.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::functions::TABLES;
use super::*;
use crate::policy::fuzz;

/// Evaluates `text` on `data`, an object; errors without upstream's prefix.
pub(super) fn evaluated(text: &str, data: &Value) -> Result<Value, String> {
    let expression = Expression::parse(text).map_err(|error| error.to_string())?;
    let scope = Scope::new(now()).object(data.as_object().expect("a root is an object"));
    match expression.search(&scope, &mut Budget::of_verdict()) {
        Ok(value) => Ok(value.into_owned()),
        Err(error) => {
            let message = error.to_string();
            Err(message.strip_prefix("JMESPath query failed: ").expect("upstream's prefix").to_owned())
        }
    }
}

/// Checks rows of an expression and what it gives on `data`.
pub(super) fn check(data: &Value, table: &[(&str, Result<Value, &str>)]) {
    for (text, expected) in table {
        assert_eq!(evaluated(text, data), expected.clone().map_err(str::to_owned), "{text}");
    }
}

/// 2023-11-14T22:13:20Z.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[test]
fn unknown_keys_are_errors_except_where_the_fork_swallows_them() {
    const UNKNOWN: &str = r#"Unknown key "x" in path"#;
    const TYPE: &str = r#"Invalid type for: 1, expected: []jmespath.JpType{"string", "array", "object"}"#;
    let data = json!({
        "a": {"b": 1},
        "l": [{"b": 1}, {"c": 2}],
        "n": null,
        "o": {"q": {"b": 2}, "r": {"b": 1}},
        "t": "text",
    });
    check(
        &data,
        &[
            ("a", Ok(json!({"b": 1}))),
            ("x", Err(UNKNOWN)),
            ("a.x", Err(UNKNOWN)),
            ("x.b", Err(UNKNOWN)),
            ("a.x.y", Err(UNKNOWN)),
            ("x[0]", Err(UNKNOWN)),
            ("l[5]", Ok(json!(null))),
            ("l.x", Ok(json!(null))),
            ("t.x", Ok(json!(null))),
            ("n.x", Ok(json!(null))),
            ("x == `1`", Ok(json!(false))),
            ("x != `1`", Ok(json!(true))),
            ("`1` == x.y", Ok(json!(false))),
            ("x < `1`", Ok(json!(null))),
            ("n < `1`", Ok(json!(null))),
            ("x || 'none'", Ok(json!("none"))),
            ("a.x.y || 'none'", Ok(json!("none"))),
            ("a.x || x", Ok(json!(null))),
            ("x || y", Ok(json!(null))),
            ("x && 'a'", Ok(json!(null))),
            ("'a' && x", Err(UNKNOWN)),
            ("'a' && x && 'b'", Ok(json!(null))),
            ("!x", Ok(json!(true))),
            ("!a.x", Ok(json!(null))),
            ("x | 'a'", Ok(json!("a"))),
            ("x | @", Ok(json!(null))),
            ("a | x", Ok(json!(null))),
            ("a | x | 'b'", Ok(json!("b"))),
            ("a.x | y", Ok(json!(null))),
            ("[x, a.b]", Ok(json!([null, 1]))),
            ("{p: x, q: a.b}", Ok(json!({"p": null, "q": 1}))),
            ("x.[y]", Err(UNKNOWN)),
            ("n.[y]", Ok(json!(null))),
            ("n.{y: z}", Ok(json!(null))),
            ("x[*]", Ok(json!(null))),
            ("a.x[*].y", Ok(json!(null))),
            ("l[*].x", Ok(json!([]))),
            ("l[*].b", Ok(json!([1]))),
            ("l[*].b.c", Ok(json!([]))),
            ("l[1:].x", Ok(json!([]))),
            ("x[0:1]", Ok(json!(null))),
            ("x[]", Ok(json!(null))),
            ("a.x[].y", Ok(json!(null))),
            ("l[].x", Ok(json!([]))),
            ("l[].b", Ok(json!([1]))),
            ("l[?x]", Ok(json!([]))),
            ("l[?x == 'y']", Ok(json!([]))),
            ("l[?!x].b", Ok(json!([1]))),
            ("l[?b == `1`].x", Ok(json!([]))),
            ("x[?y]", Ok(json!(null))),
            ("o.*.b", Ok(json!([2, 1]))),
            ("o.*.x", Ok(json!([]))),
            ("x.*.b", Ok(json!(null))),
            ("to_string(x)", Ok(json!("null"))),
            (
                "length(x)",
                Err(r#"Invalid type for: <nil>, expected: []jmespath.JpType{"string", "array", "object"}"#),
            ),
            ("not_null(x, a.x, 'z')", Ok(json!("z"))),
            ("length(`1`)", Err(TYPE)),
            ("length(`1`)[]", Ok(json!(null))),
            ("length(`1`)[*]", Err(TYPE)),
            ("length(`1`)[?a]", Ok(json!(null))),
            ("length(`1`).*", Ok(json!(null))),
            ("length(`1`) || 'a'", Err(TYPE)),
            ("[length(`1`)]", Err(TYPE)),
            ("l[*].length(b)", Err(TYPE)),
            ("l[::0]", Err("Invalid slice, step cannot be 0")),
            ("l[::0][]", Ok(json!(null))),
            ("map(&b, l)", Ok(json!([1, null]))),
            ("map(&x, l)", Ok(json!([null, null]))),
            ("max_by(l, &b)", Err("invalid type, must be number")),
            ("max_by(l, &x)", Err("invalid type, must be number of string")),
            ("sort_by(l, &b)", Err("error in sort_by comparison")),
            ("sort_by(o.*, &b)", Ok(json!([{"b": 1}, {"b": 2}]))),
            ("sort_by(o.*, &x)", Err("invalid type, must be number of string")),
            ("min_by(o.*, &b)", Ok(json!({"b": 1}))),
            ("a.b", Ok(json!(1))),
        ],
    );
}

#[test]
fn the_message_is_upstreams() {
    let scope = Scope::new(now());
    let expression = Expression::parse(" gone.b ").unwrap();
    assert_eq!(expression.text(), "gone.b");
    let error = expression.search(&scope, &mut Budget::of_verdict()).unwrap_err();
    assert_eq!(error, EvaluationError::UnknownKey { key: "gone".into() });
    assert_eq!(error.to_string(), "JMESPath query failed: Unknown key \"gone\" in path");
}

#[test]
fn a_value_of_the_data_is_borrowed() {
    let data = json!({"a": {"b": [1, 2]}});
    let scope = Scope::new(now()).object(data.as_object().unwrap());
    let expression = Expression::parse("a.b || c").unwrap();
    let Cow::Borrowed(value) = expression.search(&scope, &mut Budget::limited(10, 0)).unwrap() else {
        panic!("copied")
    };
    assert!(std::ptr::eq(value, &data["a"]["b"]));
}

#[test]
fn the_root_as_a_whole_is_the_layers_together() {
    let (image, predicate) = (json!("real"), json!({"image": "forged", "b": 1}));
    let scope = Scope::new(now()).name("image", &image).object(predicate.as_object().unwrap());
    for (text, expected) in [
        ("@", json!({"b": 1, "image": "real"})),
        ("keys(@)", json!(["b", "image"])),
        ("length(@)", json!(2)),
        ("values(@)", json!([1, "real"])),
        ("*", json!([1, "real"])),
        ("@ == `{\"image\": \"real\", \"b\": 1.0}`", json!(true)),
        ("[@][0].image", json!("real")),
        ("merge(@, {b: image}).b", json!("real")),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(*expression.search(&scope, &mut Budget::of_verdict()).unwrap(), expected, "{text}");
    }
}

#[test]
fn numbers_are_floats_and_whole_ones_are_written_whole() {
    let data = json!({"i": 1, "f": 1.0, "big": 9_007_199_254_740_993_u64, "o": {"i": 1}});
    check(
        &data,
        &[
            ("i == f", Ok(json!(true))),
            ("o == `{\"i\": 1.0}`", Ok(json!(true))),
            ("big == `9007199254740992`", Ok(json!(true))),
            ("[i, f]", Ok(json!([1, 1.0]))),
            ("length('abc')", Ok(json!(3))),
            ("contains(`[1.0]`, i)", Ok(json!(true))),
            ("i < `1.5`", Ok(json!(true))),
            ("i >= f", Ok(json!(true))),
            ("'1' < '2'", Ok(json!(null))),
        ],
    );
}

#[test]
fn slices_are_cut_to_the_array() {
    let data = json!({"l": [0, 1, 2, 3]});
    check(
        &data,
        &[
            ("l[1:3]", Ok(json!([1, 2]))),
            ("l[-3:-1]", Ok(json!([1, 2]))),
            ("l[:]", Ok(json!([0, 1, 2, 3]))),
            ("l[::-1]", Ok(json!([3, 2, 1, 0]))),
            ("l[2::-1]", Ok(json!([2, 1, 0]))),
            ("l[9::-3]", Ok(json!([3, 0]))),
            ("l[-9:9]", Ok(json!([0, 1, 2, 3]))),
            ("l[:-9:-1]", Ok(json!([3, 2, 1, 0]))),
            ("l[3:1]", Ok(json!([]))),
            ("l[-1]", Ok(json!(3))),
            ("l[-9]", Ok(json!(null))),
            ("l[::-2147483647]", Ok(json!([3]))),
        ],
    );
}

#[test]
fn texts_that_are_no_expressions_are_refused() {
    for (text, problem) in [
        ("", "invalid query (nil)"),
        (" \n", "invalid query (nil)"),
        ("nope(a)", "unknown function: nope"),
        ("length()", "incorrect number of args: `length` takes 1, not 0"),
        ("not_null()", "incorrect number of args: `not_null` takes 1 or more, not 0"),
        ("sort_by(a, b)", "argument #2 of `sort_by` must be an expression reference (`&`)"),
        ("length(&a)", "an expression reference (`&`) can only be the argument of a function that takes one"),
        ("a.&b", "an expression reference (`&`) can only be the argument of a function that takes one"),
        ("a.", "Expected identifier, '*', '{', '[', '&', or '[?' -- found Eof (at character 2)"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert_eq!(error.problem.to_string(), problem, "{text}");
        assert_eq!(error.to_string(), format!("incorrect query {}: {problem}", text.trim()), "{text}");
    }
}

#[test]
fn long_and_deep_texts_are_refused_before_they_are_parsed() {
    let problem = |text: String| Expression::parse(&text).unwrap_err().problem;
    assert_eq!(problem("a".repeat(8193)), Problem::TooLong { limit: 8192 });
    for deep in ["!", "(", "[", "{a:", "length(", "a[?", "*.", "[*]", "&"] {
        assert_eq!(problem(deep.repeat(257)), Problem::TooManyForks { limit: 256 }, "{deep}");
    }
    for deep in [
        format!("{}a", "!".repeat(256)),
        format!("a{}", "[*]".repeat(85)),
        format!("a{}", "==a".repeat(2000)),
    ] {
        assert_eq!(problem(deep), Problem::TooDeep { limit: 64 });
    }
    // Brackets inside of texts do not count, and chains may be long.
    for fine in [
        format!("'{}'", "[".repeat(8000)),
        format!("a{}", ".a".repeat(4000)),
        format!("a{}", "||a".repeat(2000)),
    ] {
        assert!(Expression::parse(&fine).is_ok());
    }
}

#[test]
fn the_deepest_texts_fit_a_small_stack() {
    let deep = [
        format!("{}a{}", "(".repeat(256), ")".repeat(256)),
        format!("{}a", "!".repeat(256)),
        format!("a{}", "[*]".repeat(128)),
        format!("{}a{}", "[".repeat(60), "]".repeat(60)),
        format!("{}a{}", "length(".repeat(60), ")".repeat(60)),
        format!("a{}", ".a".repeat(4095)),
        format!("a{}", "[]".repeat(256)),
        format!("a{}", "==a".repeat(2700)),
    ];
    let small = std::thread::Builder::new().stack_size(1 << 20);
    let work = move || {
        for text in deep {
            if let Ok(expression) = Expression::parse(&text) {
                let scope = Scope::new(now());
                drop(expression.search(&scope, &mut Budget::of_verdict()));
            }
        }
    };
    small.spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_large_predicate_is_walked_without_being_copied() {
    let components: Vec<Value> = (0..20_000)
        .map(|n| json!({"name": "n".repeat(500), "licenses": [{"expression": if n == 7 { "AGPL" } else { "MIT" }}]}))
        .collect();
    let data = json!({"components": components});
    let scope = Scope::new(now()).object(data.as_object().unwrap());
    let search = |text: &str, steps: u64, output: u64| {
        let expression = Expression::parse(text).unwrap();
        expression.search(&scope, &mut Budget::limited(steps, output)).map(Cow::into_owned)
    };
    // 10 MB of names: none of them is made again.
    let licences = "components[].licenses[].expression | contains(@, 'AGPL')";
    assert_eq!(search(licences, 500_000, 4 << 20), Ok(json!(true)));
    assert_eq!(
        search("components[?licenses[?expression == 'AGPL']] | length(@)", 500_000, 4 << 10),
        Ok(json!(1))
    );
    // What would be made is charged first.
    assert_eq!(
        search("components[].name", 500_000, 4 << 20),
        Err(EvaluationError::TooMuchOutput { limit: 4 << 20 })
    );
    assert_eq!(
        search("components[].{n: name}", 500_000, 1000),
        Err(EvaluationError::TooMuchOutput { limit: 1000 })
    );
    assert_eq!(
        search("components[?name == 'x']", 1000, 4 << 20),
        Err(EvaluationError::TooManySteps { limit: 1000 })
    );
}

#[test]
fn a_reached_limit_is_swallowed_nowhere() {
    let data = json!({"l": vec![1; 200], "t": "t".repeat(2000)});
    let scope = Scope::new(now()).object(data.as_object().unwrap());
    for text in [
        "l[] || 'a'",
        "l[][]",
        "l[][?@]",
        "merge({a: l[]}).*",
        "!(l[])",
        "l[] | 'a'",
        "not_null(l[], 'a')",
        "l[] == 'a'",
    ] {
        let expression = Expression::parse(text).unwrap();
        let error = expression.search(&scope, &mut Budget::limited(50, 10_000));
        assert_eq!(error, Err(EvaluationError::TooManySteps { limit: 50 }), "{text}");
        let error = expression.search(&scope, &mut Budget::limited(10_000, 50));
        assert_eq!(error, Err(EvaluationError::TooMuchOutput { limit: 50 }), "{text}");
    }
}

#[test]
fn one_budget_serves_all_expressions() {
    let scope = Scope::new(now());
    let expression = Expression::parse("'a'").unwrap();
    let mut budget = Budget::limited(2, 0);
    assert!(expression.search(&scope, &mut budget).is_ok());
    assert!(expression.search(&scope, &mut budget).is_ok());
    assert_eq!(expression.search(&scope, &mut budget), Err(EvaluationError::TooManySteps { limit: 2 }));
}

#[test]
fn differs_from_upstream() {
    let data = json!({
        "o": {"p": {"b": {"c": 1}}, "q": {"b": {"c": 2}}},
        "l": [{"b": 2}, {"b": 1}],
        "nested": [[1], {"a": 1}],
    });
    check(
        &data,
        &[
            ("o.*.b.c", Ok(json!([1, 2]))),
            ("l[*].{x: b}.x", Ok(json!([2, 1]))),
            ("o.*.to_string(@)", Ok(json!([r#"{"b":{"c":1}}"#, r#"{"b":{"c":2}}"#]))),
            ("keys(o)", Ok(json!(["p", "q"]))),
            ("contains(nested, `[1]`)", Ok(json!(true))),
            ("contains(nested, `{\"a\": 2}`)", Ok(json!(false))),
            (
                "merge(o, l)",
                Err(r#"Invalid type for: [map[b:2] map[b:1]], expected: []jmespath.JpType{"object"}"#),
            ),
            ("compare('a', 'b') == `-1`", Ok(json!(true))),
            ("compare('a', 'b') < `0`", Ok(json!(true))),
            ("map(&k, items(o, 'k', 'v'))", Ok(json!(["p", "q"]))),
            ("type(items(o, 'k', 'v'))", Ok(json!("array"))),
            ("[sort_by(l, &b)[0].b, l[0].b]", Ok(json!([1, 2]))),
            ("to_number('0x1p4')", Ok(json!(null))),
            (r"'a\\'", Ok(json!(r"a\\"))),
            (r"length('a\\')", Ok(json!(3))),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, the same value twice, and no more is read than is said.
    #[test]
    fn any_expression_on_any_data_holds_what_the_fuzz_target_asserts(
        text in expressions(),
        data in prop::collection::btree_map("[abcd]", values(), 0..4),
    ) {
        let data = serde_json::to_vec(&data).unwrap();
        fuzz::jmespath(&[text.as_bytes(), &[0xff], &data].concat());
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-3..30_i32).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "b",
            "1",
            "12Ki",
            "5m",
            "1h",
            "2023-01-12T17:37:00Z",
            "{\"a\": [1]}",
            "a: [b]",
            "1.2.3",
            ">=1.0.0",
            "a*",
            "(a)|b",
            "äß",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abcd]", inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "a", "b", "c", "d", "@", "[0]", "[-1]", "*", "[]", "[*]", "[::-1]", "''", "'a'"
        ])
        .prop_map(str::to_owned),
        values().prop_map(|value| format!("`{}`", value.to_string().replace('`', "\\`"))),
    ];
    let functions: Vec<_> = TABLES.into_iter().flatten().collect();
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let two = || (inner.clone(), inner.clone());
        let call = (prop::sample::select(functions.clone()), prop::collection::vec(inner.clone(), 4))
            .prop_map(|(function, arguments)| {
                let count = (1..=4).find(|count| function.arity().takes(*count)).unwrap_or(0);
                let arguments = arguments.iter().take(count).enumerate().map(|(index, argument)| {
                    format!("{}{argument}", if function.takes_reference(index) { "&" } else { "" })
                });
                format!("{}({})", function.name, arguments.collect::<Vec<_>>().join(", "))
            });
        prop_oneof![
            3 => call,
            1 => (two(), prop::sample::select(vec![".", "|", "||", "&&", "==", "!=", "<", ">="]))
                .prop_map(|((left, right), operator)| format!("{left} {operator} {right}")),
            1 => two().prop_map(|(base, each)| format!("({base})[*].{each}")),
            1 => two().prop_map(|(base, predicate)| format!("({base})[?{predicate}]")),
            1 => two().prop_map(|(base, each)| format!("({base})[] | [].{each}")),
            1 => two().prop_map(|(left, right)| format!("[{left}, {right}]")),
            1 => two().prop_map(|(left, right)| format!("{{a: {left}, b: {right}}}")),
            1 => inner.clone().prop_map(|operand| format!("!({operand})")),
        ]
    })
}
