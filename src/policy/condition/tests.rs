//! Blocks, short circuits, messages and costs. The operators have their own tests.

use std::time::SystemTime;

use super::*;

fn template(value: Value) -> Template {
    Template::parse(value, "/x").unwrap()
}

/// A condition that holds if its key is `yes`; its message is its key in upper case.
fn condition(path: &str, key: &str) -> Condition {
    Condition {
        path: path.to_owned(),
        key: template(json!(key)),
        operator: Operator::parse("Equals").unwrap(),
        value: template(json!("yes")),
        message: template(json!(format!("{path} failed"))),
    }
}

fn list(kind: &str, keys: &[&str]) -> Vec<Condition> {
    keys.iter().enumerate().map(|(at, key)| condition(&format!("{kind}{at}"), key)).collect()
}

fn conditions(order: Order, blocks: &[(Option<&[&str]>, &[&str])]) -> Conditions {
    let blocks = blocks.iter().enumerate().map(|(at, (any, all))| Block {
        any: any.map(|keys| list(&format!("{at}any"), keys)),
        all: list(&format!("{at}all"), all),
    });
    Conditions { blocks: blocks.collect(), order }
}

fn evaluate(conditions: &Conditions) -> Result<Evaluation, String> {
    let data = json!({ "yes": "yes", "no": "no" });
    let scope = Scope::new(SystemTime::UNIX_EPOCH).object(data.as_object().unwrap());
    conditions.evaluate(&scope, &mut Budget::of_verdict()).map_err(|error| error.to_string())
}

#[test]
fn blocks_hold_by_one_of_any_and_every_one_of_all() {
    type Blocks<'a> = &'a [(Option<&'a [&'a str]>, &'a [&'a str])];
    let (yes, no) = ("yes", "no");
    let cases: &[(Blocks<'_>, Outcome, &str, &[&str])] = &[
        (&[], Outcome::Holds, "", &[]),
        (&[(None, &[])], Outcome::Holds, "", &[]),
        (&[(Some(&[]), &[])], Outcome::Fails, "", &[]),
        (&[(None, &[yes, yes])], Outcome::Holds, "0all0 failed; 0all1 failed", &["0all0", "0all1"]),
        (&[(None, &[yes, no, no])], Outcome::Fails, "0all1 failed", &["0all0", "0all1"]),
        (&[(Some(&[no, yes, no]), &[])], Outcome::Holds, "0any1 failed", &["0any0", "0any1"]),
        (&[(Some(&[no, no]), &[])], Outcome::Fails, "0any0 failed; 0any1 failed", &["0any0", "0any1"]),
        (
            &[(Some(&[no, yes]), &[no])],
            Outcome::Fails,
            "0any0 failed; 0all0 failed",
            &["0any0", "0any1", "0all0"],
        ),
        (&[(Some(&[no]), &[yes])], Outcome::Fails, "0any0 failed", &["0any0", "0all0"]),
        (
            &[(None, &[yes]), (None, &[yes])],
            Outcome::Holds,
            "0all0 failed; 1all0 failed",
            &["0all0", "1all0"],
        ),
        (&[(None, &[no]), (None, &[yes])], Outcome::Fails, "0all0 failed", &["0all0"]),
        (&[(None, &[yes]), (Some(&[no]), &[])], Outcome::Fails, "1any0 failed", &["0all0", "1any0"]),
    ];
    for order in [Order::AllFirst, Order::AsReached] {
        for (blocks, outcome, message, reached) in cases {
            let found = evaluate(&conditions(order, blocks)).unwrap();
            assert_eq!((found.outcome, found.message.as_str()), (*outcome, *message), "{blocks:?}");
            let checked: Vec<_> = found.checked.iter().map(|checked| checked.condition.as_str()).collect();
            assert_eq!(checked, *reached, "{blocks:?}");
        }
    }
}

#[test]
fn variables_are_filled_in_before_all_or_when_they_are_reached() {
    let reached =
        |order, any: &[&str]| evaluate(&conditions(order, &[(Some(any), &[])])).map(|found| found.outcome);
    let unknown =
        "failed to resolve missing at path /x: JMESPath query failed: Unknown key \"missing\" in path";
    assert_eq!(
        reached(Order::AllFirst, &["{{ yes }}", "{{ missing }}"]),
        Err(format!("failed to substitute variables in attestation conditions: {unknown}"))
    );
    assert_eq!(reached(Order::AsReached, &["{{ yes }}", "{{ missing }}"]), Ok(Outcome::Holds));
    assert_eq!(
        reached(Order::AsReached, &["{{ no }}", "{{ missing }}"]),
        Err(format!("failed to substitute variables in condition key: {unknown}"))
    );
    let mut of_value = conditions(Order::AsReached, &[(None, &["a"])]);
    of_value.blocks[0].all[0].value = template(json!("{{ missing }}"));
    assert_eq!(
        evaluate(&of_value).map(|found| found.outcome),
        Err(format!("failed to substitute variables in condition value: {unknown}"))
    );
}

#[test]
fn messages_are_texts_with_variables() {
    let with = |order, message: Value| {
        let mut conditions = conditions(order, &[(None, &["a"])]);
        conditions.blocks[0].all[0].message = template(message);
        evaluate(&conditions).map(|found| found.message)
    };
    for order in [Order::AllFirst, Order::AsReached] {
        assert_eq!(with(order, json!("say {{ no }}")), Ok("say no".to_owned()));
        assert_eq!(with(order, Value::Null), Ok(String::new()));
        let long = with(order, json!("é".repeat(2000))).unwrap();
        assert_eq!((long.chars().count(), long.ends_with('…')), (1025, true));
        assert_eq!(with(order, json!("a\nb")), Ok("a b".to_owned()));
    }
    // It is only text where it is not filled in with the rest.
    assert_eq!(with(Order::AsReached, json!("{{ missing }}")), Ok("{{ missing }}".to_owned()));
    assert!(with(Order::AllFirst, json!("{{ missing }}")).is_err());
    assert_eq!(with(Order::AsReached, json!("{{ `1` }}")), Ok("1".to_owned()));
    assert_eq!(
        with(Order::AllFirst, json!("{{ `1` }}")),
        Err("the message of condition 0all0 does not become a string".to_owned())
    );
}

#[test]
fn values_are_shown_cut() {
    for (value, text) in [
        (json!("a\"b"), "\"a\\\"b\"".to_owned()),
        (json!({ "a": [1, null] }), "{\"a\":[1,null]}".to_owned()),
        (json!("x".repeat(600)), format!("\"{}…", "x".repeat(511))),
        (json!("é".repeat(600)), format!("\"{}…", "é".repeat(255))),
        (json!(vec![1; 1000]), format!("[{}…", "1,".repeat(256).trim_end_matches(','))),
    ] {
        assert_eq!(shown(&value), text);
    }
}

#[test]
fn comparing_is_charged_by_what_it_may_take() {
    let text = |length: usize| "x".repeat(length);
    for (key, value, steps) in [
        (json!(1), json!(2), 1),
        (json!("short"), json!("text"), 1),
        // Two texts: up to the end of the shorter one, each once more to be read.
        (json!(text(1600)), json!(text(16)), 1 + 1 + 101),
        // Patterns: each character may meet each.
        (json!(text(1600)), json!("*aaaaaaaaaaaaaa*"), 1 + 1 + 1600 + 101),
        (json!("*aaaaaaaaaaaaaa*"), json!(text(1600)), 1 + 1 + 1600 + 101),
        // Lists: each element with each.
        (json!(vec!["aaaa"; 100]), json!(vec!["bbbb"; 50]), 5000 + 1250 + 37),
        (json!({ "k": vec!["aaaa"; 100] }), json!([]), 1 + 25),
    ] {
        assert_eq!(cost(&key, &value), steps, "{key} {value}");
    }
    let mut conditions = conditions(Order::AsReached, &[(None, &[&text(1600)])]);
    conditions.blocks[0].all[0].value = template(json!(text(1600)));
    let scope = Scope::new(SystemTime::UNIX_EPOCH);
    let spent = conditions.evaluate(&scope, &mut Budget::limited(200, 1 << 20)).map(|found| found.outcome);
    let cause = EvaluationError::TooManySteps { limit: 200 };
    assert_eq!(spent, Err(ConditionError::Budget { path: "0all0".to_owned(), cause }));
    assert!(conditions.evaluate(&scope, &mut Budget::limited(1000, 1 << 20)).is_ok());
}
