//! What functions give. `facts.txt` beside this file is upstream's word; here is the rest.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};

use crate::policy::jmespath::tests::{check, evaluated, now};
use crate::policy::jmespath::{Budget, Clock, EvaluationError, Expression, Scope};

#[test]
fn functions_give_what_they_give_upstream() {
    let rows = include_str!("facts.txt").lines().filter(|row| !row.starts_with('#'));
    let mut count = 0;
    for row in rows {
        let (text, expected) = row.rsplit_once(" => ").unwrap();
        let expected = match expected.strip_prefix('!') {
            Some(message) => Err(message.to_owned()),
            None => Ok(serde_json::from_str::<Value>(expected).unwrap()),
        };
        match (evaluated(text, &json!({})), expected) {
            // Whole numbers are read as integers there and may be floats here.
            (Ok(found), Ok(expected)) => assert!(same(&found, &expected), "{text}: {found}"),
            (found, expected) => assert_eq!(found, expected, "{text}"),
        }
        count += 1;
    }
    assert!(count > 300, "{count} facts");
}

fn same(left: &Value, right: &Value) -> bool {
    let data = json!({"left": left, "right": right});
    evaluated("left == right", &data) == Ok(json!(true))
}

#[test]
fn every_function_of_upstream_is_there() {
    let table = [
        "abs add avg base64_decode base64_encode ceil compare contains divide ends_with equal_fold floor",
        "image_normalize is_external_url items join keys label_match length lookup map max max_by md5 merge min",
        "min_by modulo multiply not_null object_from_lists parse_json parse_yaml path_canonicalize pattern_match",
        "random regex_match regex_replace_all regex_replace_all_literal replace replace_all reverse round",
        "semver_compare sha1 sha256 sort sort_by split starts_with subtract sum time_add time_after time_before",
        "time_between time_diff time_now time_now_utc time_parse time_since time_to_cron time_truncate time_utc",
        "to_array to_boolean to_lower to_number to_string to_upper trim trim_prefix truncate type values",
        "x509_decode",
    ];
    let mut names: Vec<&str> = super::TABLES.into_iter().flatten().map(|function| function.name).collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), table.join(" "));
}

#[test]
fn the_clock_is_the_scopes_and_is_said_to_be_read() {
    check(
        &json!({"layout": ""}),
        &[
            ("time_now()", Ok(json!("2023-11-14T22:13:20Z"))),
            ("time_now_utc()", Ok(json!("2023-11-14T22:13:20Z"))),
            ("time_since('', '2023-11-14T22:13:00Z', '')", Ok(json!("20s"))),
            ("time_since('2006-01-02', '2023-11-14', layout)", Ok(json!("22h13m20s"))),
        ],
    );
    for (text, clock) in [
        ("time_now()", Clock::Read),
        ("to_upper(time_now_utc())", Clock::Read),
        ("random('[a-z]')", Clock::Read),
        ("time_since('', a, '')", Clock::Read),
        ("time_since('', a, b)", Clock::Read),
        ("map(&time_since('', @, ``\"\"``), a)", Clock::Read),
        ("time_since('', a, '2023-11-14T22:13:00Z')", Clock::Ignored),
        ("time_diff(a, b)", Clock::Ignored),
        ("time_parse('1', a)", Clock::Ignored),
    ] {
        let text = text.replace("``", "`");
        assert_eq!(Expression::parse(&text).unwrap().reads().clock, clock, "{text}");
    }
}

#[test]
fn random_texts_match_their_pattern_and_depend_on_the_time_alone() {
    let text = "random('(?:ab|c)[0-9a-f]{8}x?z*\\d')";
    let at = |seconds| {
        let scope = Scope::new(now() + Duration::from_secs(seconds));
        let expression = Expression::parse(text).unwrap();
        let value = expression.search(&scope, &mut Budget::of_verdict()).map(Cow::into_owned).unwrap();
        value.as_str().unwrap().to_owned()
    };
    assert_eq!(at(0), at(0));
    assert_ne!(at(0), at(1));
    let regex = regex::Regex::new("^(?:ab|c)[0-9a-f]{8}x?z*[0-9]$").unwrap();
    assert!((0..100).all(|seconds| regex.is_match(&at(seconds))), "{}", at(0));
    assert_eq!(evaluated("random('a{3}') == random('aaa')", &json!({})), Ok(json!(true)));
    assert_eq!(
        evaluated("random('')", &json!({})),
        Err("JMESPath function 'random': no pattern provided".into())
    );
    assert_eq!(
        evaluated("random('(')", &json!({})),
        Err("function `random` does not take the regular expression `(`: unclosed group".into())
    );
}

#[test]
fn what_a_node_cannot_answer_is_refused_and_never_null() {
    let data = json!({"url": "http://example.com", "n": 1e308, "t": "9999-12-31T23:59:59Z", "q": "999P", "b": "//79"});
    let refused = |function: &str, reason: &str| format!("function `{function}` {reason}");
    let lookup = "answers for IP addresses only: names are not looked up on a node";
    for (text, expected) in [
        ("is_external_url(url)", refused("is_external_url", lookup)),
        ("is_external_url('http://0x7f.1')", refused("is_external_url", lookup)),
        ("is_external_url('10.0.0.1')", refused("is_external_url", lookup)),
        ("multiply(n, n)", "the result is not a finite number".into()),
        ("avg(`[]`)", "the result is not a finite number".into()),
        ("multiply(q, n)", refused("multiply", "gives a number that is too large or too fine")),
        ("time_add(t, '1s')", refused("time_add", "gives a year that is not between 0 and 9999")),
        ("base64_decode(b)", refused("base64_decode", "gives bytes that are no text")),
    ] {
        assert_eq!(evaluated(text, &data), Err(expected.clone()), "{text}");
        for swallows in ["[]", "[?@]", ".*"] {
            let text = format!("{text}{swallows} || 'a'");
            assert_eq!(evaluated(&text, &data), Err(expected.clone()), "{text}");
        }
    }
}

#[test]
fn a_text_that_does_not_parse_does_not_pass_for_nothing() {
    let data = json!({"d": "[1", "deep": "[".repeat(200) + &"]".repeat(200), "q": "-"});
    for text in [
        "parse_json(d)",
        "parse_json(deep)",
        "parse_yaml(d)",
        "parse_yaml(deep)",
        "add(q, q)",
        "x509_decode(d)",
    ] {
        let error = evaluated(text, &data).unwrap_err();
        for swallows in ["[]", "[?@]", ".*"] {
            let text = format!("{text}{swallows} || 'a'");
            assert_eq!(evaluated(&text, &data), Err(error.clone()), "{text}");
        }
    }
    // Wrong types are the same for upstream: null.
    check(&data, &[("length(`1`)[] || 'a'", Ok(json!("a"))), ("lookup(`{}`, `1`)[]", Ok(json!(null)))]);
}

#[test]
fn certificates_are_decoded_as_upstream_decodes_them() {
    let decoded = |pem: &str| evaluated("x509_decode(d)", &json!({"d": pem}));
    let expected = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let certificate = decoded(include_str!("../../../../tests/fixtures/jmespath/certificate.pem")).unwrap();
    assert!(same(
        &certificate,
        &expected(include_str!("../../../../tests/fixtures/jmespath/certificate.json"))
    ));
    let request = decoded(include_str!("../../../../tests/fixtures/jmespath/request.pem")).unwrap();
    assert!(same(&request, &expected(include_str!("../../../../tests/fixtures/jmespath/request.json"))));

    let constrained = include_str!("../../../../tests/fixtures/jmespath/constrained.pem");
    for field in ["PermittedDNSDomains", "ExcludedIPRanges", "Policies", "InhibitAnyPolicyZero", "URIs"] {
        let found = evaluated(&format!("x509_decode(d).{field}"), &json!({"d": constrained}));
        assert_eq!(found, Err(format!("Unknown key \"{field}\" in path")));
    }
    let failed = |reason: &str| Err(format!("JMESPath function 'x509_decode': {reason}"));
    let ecdsa = include_str!("../../../../tests/fixtures/jmespath/ecdsa.pem");
    assert_eq!(decoded(ecdsa), failed("certificate should use rsa algorithm"));
    assert_eq!(decoded("xyz"), failed("failed to decode PEM block"));
    let key = constrained.replace("CERTIFICATE", "PUBLIC KEY");
    assert_eq!(decoded(&key), failed("PEM block neither contains a CERTIFICATE or CERTIFICATE REQUEST"));
    let request_as_certificate =
        include_str!("../../../../tests/fixtures/jmespath/request.pem").replace(" REQUEST", "");
    assert!(decoded(&request_as_certificate).unwrap_err().contains("malformed certificate"));
    let large = format!("{}{}", "x".repeat(70_000), constrained);
    let refused = "function `x509_decode` takes certificates of 64 KiB at most";
    assert_eq!(decoded(&large), Err(refused.to_owned()));
}

#[test]
fn regular_expressions_that_mean_something_else_in_go_are_refused() {
    for (pattern, reason) in [
        ("(", "unclosed group"),
        (r"\pL", r"classes of Unicode (`\p`) are not supported"),
        (r"[\p{Greek}]", r"classes of Unicode (`\p`) are not supported"),
        (r"\Qa\E", "unrecognized escape sequence"),
        ("[a[b]]", r"`[` inside of brackets must be written `\[`"),
        ("[a&&b]", "`&&`, `--` and `~~` inside of brackets must be escaped"),
        ("(?x)a b", "Go has no such flag"),
        ("(?-u:a)", "Go has no such flag"),
        (r"\b{start}a", "Go has no such boundary"),
        (r"a{900}{900}", "it is too large when compiled"),
    ] {
        let refused = format!("does not take the regular expression `{pattern}`: {reason}");
        // A literal is refused when a policy is loaded, a pattern of the data when it is used.
        let literal = Expression::parse(&format!("regex_match('{pattern}', a)")).unwrap_err();
        assert_eq!(literal.problem.to_string(), format!("function `regex_match` {refused}"));
        let found = evaluated("regex_replace_all(p, 'a', 'b')[] || 'a'", &json!({"p": pattern}));
        assert_eq!(found, Err(format!("function `regex_replace_all` {refused}")));
    }
}

#[test]
fn documents_of_several_lines_are_read() {
    let yaml = |text: &str| evaluated("parse_yaml(d)", &json!({"d": text}));
    assert_eq!(yaml("\n- 1\n- a: b"), Ok(json!([1, {"a": "b"}])));
    assert_eq!(yaml("\n---\nfoo: ~\nbar: null\n"), Ok(json!({"foo": null, "bar": null})));
    assert_eq!(
        yaml("spec:\n  test: 1\n  test2:\n    - 2\n    - 3\n"),
        Ok(json!({"spec": {"test": 1, "test2": [2, 3]}}))
    );
    assert_eq!(yaml("bar: >\n  folded\n  text\n"), Ok(json!({"bar": "folded text\n"})));
    assert_eq!(yaml("a: &x {p: 1}\nb: {<<: *x, q: 2}"), Ok(json!({"a": {"p": 1}, "b": {"p": 1, "q": 2}})));
    assert_eq!(yaml("a: 1\na: 2"), Ok(json!({"a": 2})));
    assert_eq!(evaluated("base64_decode(d)", &json!({"d": "SGVs\r\nbG8=\n"})), Ok(json!("Hello")));
    for (text, start) in
        [("a: .inf", "JMESPath function 'parse_yaml': "), ("[1, 2", "JMESPath function 'parse_yaml': ")]
    {
        assert!(yaml(text).unwrap_err().starts_with(start), "{text}");
    }
    let json = |text: &str| evaluated("parse_json(d)", &json!({"d": text}));
    assert_eq!(json(" [1] "), Ok(json!([1])));
    for broken in ["", "[1", "1 2", "{a: 1}", "1e999", "nul"] {
        assert!(json(broken).unwrap_err().starts_with("JMESPath function 'parse_json': "), "{broken}");
    }
    // Deeper than the parsers go.
    for text in ["parse_json(d)", "parse_yaml(d)"] {
        let deep = json!({"d": "[".repeat(5000) + &"]".repeat(5000)});
        assert!(evaluated(text, &deep).is_err(), "{text}");
    }
}

#[test]
fn short_texts_cannot_become_large_values() {
    let nested = "&a [0,0,0,0,0,0,0,0,0,0]".to_owned();
    let aliases = (0..8).fold(nested, |text, level| {
        let name = char::from(b'a' + level);
        let next = char::from(b'b' + level);
        format!("[{text}, &{next} [*{name},*{name},*{name},*{name},*{name},*{name},*{name},*{name}]]")
    });
    let data = json!({
        "zeros": "[".to_owned() + &"0,".repeat(100_000) + "0]",
        "aliases": aliases,
        "text": "a".repeat(10_000),
        "template": "$0".repeat(1000),
    });
    for text in [
        "parse_json(zeros)",
        "parse_yaml(zeros)",
        "parse_yaml(aliases)",
        "replace_all(text, 'a', text)",
        "regex_replace_all('a+', text, template)",
        "regex_replace_all_literal('a', text, text)",
        "random('a{1000}{1000}{1000}')",
        "join(text, split(text, ''))",
        "split(text, '')",
        "to_string([text, text, text, text, text, text, text, text, text, text, text])",
    ] {
        let scope = Scope::new(now()).object(data.as_object().unwrap());
        let expression = Expression::parse(text).unwrap();
        let limit = 100_000;
        let found = expression.search(&scope, &mut Budget::limited(u64::MAX, limit)).map(Cow::into_owned);
        assert_eq!(found, Err(EvaluationError::TooMuchOutput { limit }), "{text}");
    }
}

#[test]
fn long_work_is_charged() {
    let data = json!({"text": "ab".repeat(500_000), "list": (0..2000).collect::<Vec<_>>()});
    for text in [
        "contains(text, 'c')",
        "to_upper(text)",
        "regex_match('(a|b)*c', text)",
        "pattern_match('*a*b*c', text)",
        "trim(text, 'abcdefgh')",
        "sort(list)",
        "sort_by(list, &@)",
        "max_by(list, &@)",
        "map(&regex_match(to_string(@), 'a'), list)",
        "list == list",
        "sum(list)",
        "avg(list)",
    ] {
        let scope = Scope::new(now()).object(data.as_object().unwrap());
        let expression = Expression::parse(text).unwrap();
        let found = expression.search(&scope, &mut Budget::limited(1000, u64::MAX)).map(Cow::into_owned);
        assert_eq!(found, Err(EvaluationError::TooManySteps { limit: 1000 }), "{text}");
    }
}
