//! Laws of the operators, for arbitrary values and hostile texts.

use proptest::prelude::*;
use serde_json::Value;

use super::operator::Operator;
use super::operator_tests::OPERATORS;

fn holds(operator: &str, key: &Value, value: &Value) -> bool {
    Operator::parse(operator).expect(operator).holds(key, value)
}

/// Texts that operators read as something.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab*?]{0,6}",
        "[-+]?[0-9]{1,3}(\\.[0-9])?(s|m|h|Ki|Mi|k|e3)?",
        "[-+]?[0-9]{1,2}[a-z]?!?-[-+]?[0-9]{1,2}[a-z]?",
        "[0-9]\\.[0-9]\\.[0-9](-[a-z]{1,2})?",
        "\\[(\"[ab*]\")?(,\"[ab]\")?\\]|null|true|\\{\\}",
        "[0-9]{0,40}e?[0-9]{0,12}",
        any::<String>(),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => (-5_i64..5).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ab]{0,2}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn everything_but_null_equals_or_not(key in value(), value in value()) {
        prop_assert_eq!(holds("Equals", &key, &key), !key.is_null());
        let (equals, differs) = (holds("Equals", &key, &value), holds("NotEquals", &key, &value));
        prop_assert_eq!(equals || differs, !key.is_null());
        prop_assert!(!(equals && differs));
    }

    #[test]
    fn what_can_be_compared_has_one_order(key in value(), value in value()) {
        for prefix in ["", "Duration"] {
            let holds = |name: &str, key, value| holds(&format!("{prefix}{name}"), key, value);
            let less = holds("LessThan", &key, &value);
            let greater = holds("GreaterThan", &key, &value);
            let least = holds("GreaterThanOrEquals", &key, &value);
            let most = holds("LessThanOrEquals", &key, &value);
            prop_assert!(!(less && greater));
            // Neither, or both of those that include equality, and none of those that do not.
            prop_assert_eq!(least || most, less || greater || (least && most));
            prop_assert_eq!(less, most && !least);
            prop_assert_eq!(greater, least && !most);
            // The text of a number is one of seconds beside a duration only as the key.
            let comparable = ["GreaterThanOrEquals", "LessThanOrEquals"];
            if (least || most) && comparable.iter().any(|name| holds(name, &value, &key)) {
                prop_assert_eq!(greater, holds("LessThan", &value, &key));
                prop_assert_eq!(least, holds("LessThanOrEquals", &value, &key));
            }
        }
    }

    #[test]
    fn nothing_is_in_a_value_and_not(key in value(), value in value()) {
        for (positive, negative) in [("AnyIn", "AllNotIn"), ("AllIn", "AnyNotIn"), ("In", "NotIn")] {
            let both = holds(positive, &key, &value) && holds(negative, &key, &value);
            prop_assert!(!both, "{} {}", positive, negative);
        }
    }

    #[test]
    fn one_element_is_in_an_array_or_not(element in scalar(), others in proptest::collection::vec(scalar(), 0..4)) {
        let (key, array) = (Value::from(vec![element]), Value::from(others));
        for (positive, negative) in [("AnyIn", "AllNotIn"), ("AllIn", "AnyNotIn")] {
            prop_assert_eq!(holds(positive, &key, &array), !holds(negative, &key, &array));
        }
        prop_assert_eq!(holds("AnyIn", &key, &array), holds("AllIn", &key, &array));
    }
}

#[test]
fn hostile_values_end() {
    let stars = "*a".repeat(200) + "b";
    let text = "a".repeat(2_000);
    let digits = "9".repeat(10_000);
    let deep = "[".repeat(100_000);
    let texts = [
        stars.clone(),
        text,
        digits.clone(),
        format!("1e{digits}"),
        format!("0.{digits}h"),
        format!("{digits}-{digits}"),
        deep.clone() + &"]".repeat(100_000),
        deep,
        "1.".repeat(10_000),
    ];
    let mut values: Vec<Value> = texts.iter().map(|text| Value::from(text.as_str())).collect();
    values.push(Value::from(texts.to_vec()));
    for (_, name) in OPERATORS {
        for key in &values {
            for value in &values {
                // A matcher that tries all ways, or a number of its digits' size, would not end.
                assert!(!(name == "NotEquals" && holds(name, key, value) && holds("Equals", key, value)));
            }
        }
    }
    assert!(!holds("Equals", &Value::from("a".repeat(2_000)), &Value::from(stars)));
}
