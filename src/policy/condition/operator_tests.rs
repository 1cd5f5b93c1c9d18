//! Which operators hold for a key and a value: all sixteen, for every pair of upstream's own tests and the
//! edges between them. What upstream says otherwise is in `differs_from_upstream`.

use serde_json::Value;

use super::operator::Operator;

/// Each line is a key, a value, and the operators that hold; `d>` compares durations.
pub(super) fn check(table: &str) {
    for line in table.trim().lines() {
        let mut cells = line.split(" |").map(str::trim);
        let (Some(key), Some(value), Some(expected), None) =
            (cells.next(), cells.next(), cells.next(), cells.next())
        else {
            panic!("a line has three cells: {line}")
        };
        assert_eq!(holding(key, value), expected, "{key} {value}");
    }
}

fn holding(key: &str, value: &str) -> String {
    let (key, value): (Value, Value) =
        (serde_json::from_str(key).expect(key), serde_json::from_str(value).expect(value));
    let holding = OPERATORS.iter().filter(|(_, name)| operator(name).holds(&key, &value));
    holding.map(|(sign, _)| *sign).collect::<Vec<_>>().join(" ")
}

fn operator(name: &str) -> Operator {
    Operator::parse(name).expect(name)
}

pub(super) const OPERATORS: [(&str, &str); 16] = [
    ("=", "Equals"),
    ("!=", "NotEquals"),
    (">", "GreaterThan"),
    (">=", "GreaterThanOrEquals"),
    ("<", "LessThan"),
    ("<=", "LessThanOrEquals"),
    ("AnyIn", "AnyIn"),
    ("AllIn", "AllIn"),
    ("AnyNotIn", "AnyNotIn"),
    ("AllNotIn", "AllNotIn"),
    ("In", "In"),
    ("NotIn", "NotIn"),
    ("d>", "DurationGreaterThan"),
    ("d>=", "DurationGreaterThanOrEquals"),
    ("d<", "DurationLessThan"),
    ("d<=", "DurationLessThanOrEquals"),
];

#[test]
fn names_are_read_in_any_case() {
    for (_, name) in OPERATORS {
        assert_eq!(operator(name).name(), name);
        assert_eq!(operator(&name.to_lowercase()), operator(name));
        assert_eq!(operator(&name.to_uppercase()), operator(name));
    }
    assert_eq!(operator("equal"), operator("Equals"));
    assert_eq!(operator("NotEqual"), operator("NotEquals"));
    for unknown in ["", "Like", "Equals ", "=", "DurationEquals"] {
        let error = Operator::parse(unknown).expect_err(unknown).to_string();
        assert!(error.starts_with(&format!("unknown operator `{unknown}`: one of Equals, ")), "{error}");
    }
}

#[test]
fn deprecated_operators_have_replacements() {
    let replaced: Vec<_> = OPERATORS
        .into_iter()
        .filter_map(|(_, name)| operator(name).replacement().map(|replacement| (name, replacement)))
        .collect();
    assert_eq!(
        replaced,
        [
            ("In", "AllIn or AnyIn"),
            ("NotIn", "AllNotIn or AnyNotIn"),
            ("DurationGreaterThan", "GreaterThan"),
            ("DurationGreaterThanOrEquals", "GreaterThanOrEquals"),
            ("DurationLessThan", "LessThan"),
            ("DurationLessThanOrEquals", "LessThanOrEquals"),
        ]
    );
}

#[test]
fn compares_numbers() {
    check(NUMBERS);
}

#[test]
fn compares_durations() {
    check(DURATIONS);
}

#[test]
fn compares_quantities() {
    check(QUANTITIES);
}

#[test]
fn compares_texts_and_versions() {
    check(TEXTS);
}

#[test]
fn compares_other_types() {
    check(OTHERS);
}

#[test]
fn differs_from_upstream() {
    check(DIFFERENT);
}

/// Numbers against numbers, and texts that are numbers.
const NUMBERS: &str = r#"
1 | 1 | = >= <= d>= d<=
1.0 | 1.0 | = >= <= d>= d<=
1 | 2 | != < <= d< d<=
1.0 | 2.0 | != < <= d< d<=
1 | "2" | != < <=
1.0 | "2.0" | != < <=
10 | 1 | != > >= d> d>=
1.5 | 1.0 | != > >= d>= d<=
1.5 | 1 | != > >= d>= d<=
1 | 10 | != < <= d< d<=
1.0 | 1.5 | != < <= d>= d<=
1 | 1.5 | != < <= d>= d<=
100 | "10" | != > >=
1 | "10" | != < <=
-5 | 1 | != < <= d< d<=
-5 | -10 | != > >= d> d>=
1 | -10 | != > >= d> d>=
1.0 | 1 | = >= <= d>= d<=
64 | "64" | = >= <= AnyIn AllIn In
64 | "default" | != AnyNotIn AllNotIn
3.14 | "3.14" | = >= <= AnyIn AllIn In
3.14 | "default" | != AnyNotIn AllNotIn
120 | 60 | != > >= d> d>=
60 | 120 | != < <= d< d<=
3600 | 1800 | != > >= d> d>=
120.5 | 60.5 | != > >= d> d>=
120.5 | 60 | != > >= d> d>=
60 | 60 | = >= <= d>= d<=
30 | 60 | != < <= d< d<=
42 | 42 | = >= <= d>= d<=
42 | 43 | != < <= d< d<=
100 | 100 | = >= <= d>= d<=
42 | 42.5 | != < <= d>= d<=
42 | "42" | = >= <= AnyIn AllIn In
42 | "invalid" | != AnyNotIn AllNotIn
3.14 | 3.14 | = >= <= d>= d<=
3.14 | 2.71 | != > >= d> d>=
3.14 | "invalid" | != AnyNotIn AllNotIn
5 | 5.5 | != < <= d>= d<=
10 | 5 | != > >= d> d>=
5 | 10 | != < <= d< d<=
5 | 5 | = >= <= d>= d<=
10 | 10 | = >= <= d>= d<=
10.5 | 10.4 | != > >= d>= d<=
10.4 | 10.5 | != < <= d>= d<=
100 | 200 | != < <= d< d<=
1000000 | "1000000" | = >= <=
1000000 | "1e+06" | = >= <= AnyIn AllIn In
1.5 | "1.50" | = >= <=
2 | "2.0" | = >= <=
2 | "x2" | != AnyNotIn AllNotIn
-0.5 | "-0.5" | = >= <= AnyIn AllIn In
10 | "9" | != > >=
10 | "9Ki" | != AnyNotIn AllNotIn
10 | "1e1" | = >= <=
0 | "0" | = >= <= AnyIn AllIn In d>= d<=
"#;

/// Durations against each other, and numbers of seconds.
const DURATIONS: &str = r#"
"1h" | "1h" | = >= <= AnyIn AllIn In d>= d<=
"1h" | "60m" | = >= <= AnyNotIn AllNotIn d>= d<=
"1h" | "5h" | != < <= AnyNotIn AllNotIn d< d<=
"1h" | "30m" | != > >= AnyNotIn AllNotIn d> d>=
"1h" | 3600 | = >= <= d>= d<=
"2h" | 3600 | != > >= d> d>=
"10h" | "1h" | != > >= AnyNotIn AllNotIn d> d>=
3600 | "1h" | != >= <= AnyNotIn AllNotIn d>= d<=
3600 | "30m" | != > >= AnyNotIn AllNotIn d> d>=
"30m" | 3600 | != < <= d< d<=
"2h" | "1h" | != > >= AnyNotIn AllNotIn d> d>=
"1h" | "2h" | != < <= AnyNotIn AllNotIn d< d<=
"60m" | "1h" | = >= <= AnyNotIn AllNotIn d>= d<=
"61m" | "1h" | != > >= AnyNotIn AllNotIn d> d>=
120 | "1m" | != > >= AnyNotIn AllNotIn d> d>=
"30m" | "1h" | != < <= AnyNotIn AllNotIn d< d<=
"500m" | "0.5" | = >= <=
"90m" | "1h30m" | = >= <= AnyNotIn AllNotIn d>= d<=
"30s" | "45s" | != < <= AnyNotIn AllNotIn d< d<=
"0s" | "1h" | != < <= AnyNotIn AllNotIn d< d<=
"2m" | 60 | != > >= d> d>=
"1h" | 120 | != > >= d> d>=
"30s" | 10 | != > >= d> d>=
120 | "2m" | != >= <= AnyNotIn AllNotIn d>= d<=
60 | "1m" | != >= <= AnyNotIn AllNotIn d>= d<=
"1h" | true | !=
"1h" | {} | !=
0 | "0s" | != >= <= AnyNotIn AllNotIn d>= d<=
"0" | "0s" | != >= <= AnyNotIn AllNotIn d>= d<=
"0s" | "0" | != d>= d<=
"100m" | "0.1" | = >= <=
"100m" | 6000 | = >= <= d>= d<=
"1h" | "1h0m0s" | = >= <= AnyNotIn AllNotIn d>= d<=
"1h" | "3600" | !=
"1h" | "*" | = AnyIn AllIn In
"1.9s" | 1 | != > >= d> d>=
"1h" | 3600.9 | = >= <= d>= d<=
3599.9 | "1h" | != < <= AnyNotIn AllNotIn d< d<=
-3600 | "-1h" | != >= <= AnyNotIn AllNotIn d>= d<=
"1h" | "3599999ms" | != > >= AnyNotIn AllNotIn d> d>=
"60" | "1m" | != > >= AnyNotIn AllNotIn
"#;

/// Quantities, and what is none beside them.
const QUANTITIES: &str = r#"
"1024" | "1Ki" | = >= <= AnyNotIn AllNotIn
"1Ki" | "1024" | = >= <=
"1Gi" | "1Gi" | = >= <= AnyIn AllIn In
"1Gi" | "1024Mi" | = >= <= AnyNotIn AllNotIn
"1Gi" | "10Gi" | != < <= AnyNotIn AllNotIn
"10Gi" | "1024Mi" | != > >= AnyNotIn AllNotIn
"1023" | "1Ki" | != < <= AnyNotIn AllNotIn
"1Ki" | "1023" | != > >=
"1025" | "1Ki" | != > >= AnyNotIn AllNotIn
"10Gi" | "1Gi" | != > >= AnyNotIn AllNotIn
"1Gi" | "1Mi" | != > >= AnyNotIn AllNotIn
"10Mi" | "10Mi" | = >= <= AnyIn AllIn In
"10" | 1 | != > >=
"100" | "10" | != > >=
"10" | "10" | = >= <= AnyIn AllIn In
"1" | "10" | != < <=
"1" | 10 | != < <=
"1Ki" | "1025" | != < <=
"1Mi" | "1Gi" | != < <= AnyNotIn AllNotIn
"100Mi" | "100Mi" | = >= <= AnyIn AllIn In
"100Mi" | "200Mi" | != < <= AnyNotIn AllNotIn
"100Mi" | "not-a-quantity" | != AnyNotIn AllNotIn
"100" | 50 | != > >=
"50" | "100" | != < <=
"200Mi" | "100Mi" | != > >= AnyNotIn AllNotIn
"1Gi" | "2Gi" | != < <= AnyNotIn AllNotIn
"0" | "0" | = >= <= AnyIn AllIn In d>= d<=
"0" | 0 | != >= <= d>= d<=
"0" | "-0" | = >= <= d>= d<=
"5" | "5.0" | = >= <=
"5" | 5 | != >= <=
"5" | "5*" | != AnyIn AllIn In
"5" | "" | != AnyNotIn AllNotIn
"1Ki" | "1*" | != AnyIn AllIn In
"1K" | "1*" | = AnyIn AllIn In
"1Ki" | 1024 | !=
"1.5Gi" | "1536Mi" | = >= <= AnyNotIn AllNotIn
"-1Ki" | "-1024" | = >= <=
"1.0" | "1.0.0" | != AnyNotIn AllNotIn
"3" | "5" | != < <=
"#;

/// Versions, wildcards and other texts.
const TEXTS: &str = r#"
"string" | "string" | = AnyIn AllIn In
"string" | "not string" | != AnyNotIn AllNotIn
"string" | 1 | !=
"1.5.2" | "1.5.2" | = >= <= AnyIn AllIn In
"1.5.2" | "1.5.*" | = AnyIn AllIn In
"1.5.0" | "1.5.5" | != < <= AnyNotIn AllNotIn
"1.5.2" | "1.5.5" | != < <= AnyNotIn AllNotIn
"1.5.0" | "1.5.0" | = >= <= AnyIn AllIn In
"1.5.5" | "1.5.0" | != > >= AnyNotIn AllNotIn
"1.5.5" | "1.5.5" | = >= <= AnyIn AllIn In
"kyverno" | "kyverno" | = AnyIn AllIn In
"kyverno" | "default" | != AnyNotIn AllNotIn
"hello" | "hello" | = AnyIn AllIn In
"hello" | "world" | != AnyNotIn AllNotIn
"hello-world" | "hello-*" | = AnyIn AllIn In
"goodbye-world" | "hello-*" | != AnyNotIn AllNotIn
"hello" | 123 | !=
"apple" | 12345 | !=
"1.2.3" | "1.2.2" | != > >= AnyNotIn AllNotIn
"1.1.0" | "1.2.0" | != < <= AnyNotIn AllNotIn
"1.2.0" | "1.2.0" | = >= <= AnyIn AllIn In
"not-a-number" | 5 | !=
"a" | null | !=
"5*" | "5" | !=
"" | "" | = AnyIn AllIn In
"" | "*" | = AnyIn AllIn In
"" | "?" | != AnyNotIn AllNotIn
"abc" | "" | != AnyNotIn AllNotIn
"abc" | "a?c" | = AnyIn AllIn In
"a?c" | "abc" | != AnyNotIn AllNotIn
"äb" | "?b" | = AnyIn AllIn In
"1.0.0" | "1.0.0+b" | != >= <= AnyNotIn AllNotIn
"1.0.0-rc.1" | "1.0.0" | != < <= AnyNotIn AllNotIn
"1.10.0" | "1.9.0" | != > >= AnyNotIn AllNotIn
"v1.0.0" | "v0.9.0" | != AnyNotIn AllNotIn
"1.0.0" | 1 | !=
"abc" | "abd" | != AnyNotIn AllNotIn
"#;

/// Booleans, null and objects.
const OTHERS: &str = r#"
true | true | =
false | false | =
{"foo":"bar"} | {"foo":"bar"} | =
true | false | !=
false | true | !=
true | "false" | !=
false | "true" | !=
{"foo":"bar"} | {"bar":"foo"} | !=
true | "true" | != AnyIn AllIn In
{"foo":"bar"} | {"foo":"baz"} | !=
{"foo":"bar"} | "not a map" | !=
{} | {} | =
true | 5 | !=
null | 5 |
true | "1h" | != AnyNotIn AllNotIn
null | null |
null | "a" |
true | "t*" | != AnyIn AllIn In
true | 1 | !=
{"a":1,"b":[1,2]} | {"b":[1,2],"a":1} | =
{"a":1} | {"a":"1"} | !=
{} | "*" | !=
"#;

/// Where upstream says something else; `tests/differences.md` has the reasons.
const DIFFERENT: &str = r#"
["a"] | "a" | != AnyIn AllIn In
["-3"] | "-5-3" | != AnyIn AllIn
["x"] | "-5-3" | != AllNotIn
10000000000 | "1h" | != > >= AnyNotIn AllNotIn d> d>=
1e300 | "1h" | != > >= AnyNotIn AllNotIn d> d>=
"1h" | 10000000000 | != < <= d< d<=
"2500000h0m0.000000001s" | "2500000h" | != > >= AnyNotIn AllNotIn d> d>=
10 | "Inf" | != AnyNotIn AllNotIn
16 | "0x1p4" | != AnyNotIn AllNotIn
1000 | "1_000" | != AnyNotIn AllNotIn
"-" | "." | != AnyNotIn AllNotIn
"Ki" | "Mi" | != AnyNotIn AllNotIn
"1e4294967296" | "1" | !=
"5" | "|1-10" | != AnyNotIn AllNotIn
["a",1] | ["a",1] | = AnyIn AllIn
"m" | "1m" | != AnyNotIn AllNotIn
"#;
