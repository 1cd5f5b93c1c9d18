//! Numbers as Go reads and prints them, and Go's `%v` text of JSON values.
//!
//! Kyverno compares many values as text. A number that stands alone has become a float on the way
//! (`1000000` is `1e+06`); one inside an array or object is an integer where it can be one (`1000000`).
//! Read are decimal texts only: hexadecimal digits, underscores, `inf` and `nan`, which Go takes, are
//! no numbers here.

use std::fmt::Write;

use serde_json::{Number, Value};

/// Go's `%v` of a float: `1.5`, `1e+06`, `1e-07`.
pub(crate) fn float_text(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    // The shortest digits that read back as the same float. Where two are as near, Go takes the even
    // one: what rounding to that many digits gives.
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let places = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let rounded = format!("{number:.places$e}");
    let digits = rounded.split_once('e').map_or(digits, |(digits, _)| digits);
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let places = number.to_string().split_once('.').map_or(0, |(_, fraction)| fraction.len());
        return format!("{number:.places$}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Go's `%v` of a value that stands alone.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::Number(number) => float_text(float(number)),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            element_text(value)
        }
    }
}

/// Go's `%v` of a value inside an array or object.
pub(crate) fn element_text(value: &Value) -> String {
    let mut text = String::new();
    write_element(value, &mut text);
    text
}

/// A JSON number as Kyverno holds it. Numbers that no float can carry do not come out of the parser.
pub(crate) fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::INFINITY)
}

/// What `strconv.ParseInt` reads in base 10.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// What `strconv.ParseFloat` reads, as far as it is decimal and finite.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The integer that a float is, if it is one and fits.
#[expect(clippy::cast_possible_truncation, reason = "it is integral and in range")]
pub(crate) fn integral(number: f64) -> Option<i64> {
    // 2^63 is exact as a float; i64::MAX is not.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    (fits && number.trunc() == number).then_some(number as i64)
}

/// A number as whole seconds in nanoseconds, cut; more than any duration where it is.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is cut, and the largest is large enough")]
pub(crate) fn whole_seconds(number: f64) -> i128 {
    (number as i128).saturating_mul(1_000_000_000)
}

fn write_element(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&element_number_text(number)),
        Value::String(string) => text.push_str(string),
        Value::Array(elements) => {
            text.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                write_element(element, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push_str("map[");
            for (index, (name, member)) in members.into_iter().enumerate() {
                let space = if index > 0 { " " } else { "" };
                // Writing to a string does not fail.
                let _ = write!(text, "{space}{name}:");
                write_element(member, text);
            }
            text.push(']');
        }
    }
}

/// An integer where it is one. A float that is whole is one too: Go writes it as JSON without a point.
fn element_number_text(number: &Number) -> String {
    if let Some(integer) = number.as_i64() {
        return integer.to_string();
    }
    let number = float(number);
    match parse_int(&number.to_string()) {
        Some(integer) => integer.to_string(),
        None => float_text(number),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prints_floats_as_go() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100_000.0, "100000"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (123_456_789.5, "1.234567895e+08"),
            (1e20, "1e+20"),
            (1e21, "1e+21"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            // Exactly between two texts: the even one.
            (2_184_864_442_288_408.0 + 0.25, "2.1848644422884082e+15"),
            (100_000.0 + 1.0 / 4096.0, "100000.00024414062"),
        ] {
            assert_eq!(float_text(number), text);
        }
    }

    #[test]
    fn prints_values_as_go() {
        for (value, alone, inside) in [
            (json!(1_000_000), "1e+06", "1000000"),
            (json!(1e6), "1e+06", "1000000"),
            (json!(-0.0), "-0", "0"),
            (json!(1.5), "1.5", "1.5"),
            (json!(9_007_199_254_740_993_i64), "9.007199254740992e+15", "9007199254740993"),
            (json!(1.152_921_504_606_847e18), "1.152921504606847e+18", "1152921504606847000"),
            (json!(1e19), "1e+19", "1e+19"),
            (json!(u64::MAX), "1.8446744073709552e+19", "1.8446744073709552e+19"),
            (json!(null), "<nil>", "<nil>"),
            (json!(true), "true", "true"),
            (json!("a b"), "a b", "a b"),
            (json!([1, "a", null, [2.5]]), "[1 a <nil> [2.5]]", "[1 a <nil> [2.5]]"),
            (json!({"b": 1, "a": {"c": []}}), "map[a:map[c:[]] b:1]", "map[a:map[c:[]] b:1]"),
            (json!({}), "map[]", "map[]"),
        ] {
            assert_eq!((value_text(&value), element_text(&value)), (alone.to_owned(), inside.to_owned()));
        }
    }

    #[test]
    fn reads_decimal_numbers() {
        for (text, number) in [
            ("1", Some(1.0)),
            ("-1.5e3", Some(-1500.0)),
            ("+.5", Some(0.5)),
            ("1.", Some(1.0)),
            ("1E2", Some(100.0)),
            ("1e400", None),
            ("inf", None),
            ("NaN", None),
            ("0x10", None),
            ("1_0", None),
            ("", None),
            ("e5", None),
            (" 1", None),
        ] {
            assert_eq!(parse_float(text), number, "{text}");
        }
        for (text, number) in [
            ("7", Some(7)),
            ("+7", Some(7)),
            ("-007", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("7.0", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(parse_int(text), number, "{text}");
        }
    }

    #[test]
    fn integers_are_whole_and_fit() {
        for (number, integer) in [
            (3.0, Some(3)),
            (-0.0, Some(0)),
            (3.5, None),
            (-9_223_372_036_854_775_808.0, Some(i64::MIN)),
            (9_223_372_036_854_775_808.0, None),
            (f64::INFINITY, None),
            (f64::NAN, None),
        ] {
            assert_eq!(integral(number), integer);
        }
    }
}
