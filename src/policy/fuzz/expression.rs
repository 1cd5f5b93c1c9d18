//! Expressions, conditions and the values that they compare. The data is anyone's who can sign.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::policy::condition::operator::Operator;
use crate::policy::jmespath::{Budget, Clock, EvaluationError, Expression, Names, Scope};
use crate::policy::scalar::{GoDuration, GoTime, Quantity, Version, VersionRange};

/// An expression, a byte 0xff, and the object that it is evaluated on, in JSON.
pub(crate) fn jmespath(data: &[u8]) -> Option<()> {
    let [text, data] = parts(data)?;
    let text = str::from_utf8(text).ok()?;
    let data: Map<String, Value> = serde_json::from_slice(data).ok()?;
    let expression = Expression::parse(text).ok()?;
    let again = Expression::parse(expression.text()).expect("it was parsed before");
    assert_eq!(again.reads(), expression.reads());

    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let found = search(&expression, &data, now);
    assert_eq!(search(&again, &data, now), found, "the same expression, another value");
    let mut read = data.clone();
    if let Names::Only(names) = &expression.reads().names {
        read.retain(|name, _| names.contains(name));
        assert_eq!(search(&expression, &read, now), found, "it reads more than it says");
    }
    if expression.reads().clock == Clock::Ignored {
        let later = now + Duration::from_secs(100_000);
        assert_eq!(search(&expression, &data, later), found, "it reads the clock and does not say so");
    }
    Some(())
}

fn search(
    expression: &Expression,
    data: &Map<String, Value>,
    now: SystemTime,
) -> Result<Value, EvaluationError> {
    let scope = Scope::new(now).object(data);
    expression.search(&scope, &mut Budget::limited(20_000, 1 << 20)).map(|value| value.into_owned())
}

/// The name of an operator, a key and a value, both JSON, with 0xff between.
pub(crate) fn condition(data: &[u8]) -> Option<()> {
    let [name, key, value] = parts(data)?;
    let operator = Operator::parse(str::from_utf8(name).ok()?).ok()?;
    assert_eq!(Operator::parse(operator.name()), Ok(operator));
    let (key, value): (Value, Value) =
        (serde_json::from_slice(key).ok()?, serde_json::from_slice(value).ok()?);
    operator.holds(&key, &value);
    let holds = |name: &str| Operator::parse(name).is_ok_and(|operator| operator.holds(&key, &value));
    assert!(holds("Equals") != holds("NotEquals") || key.is_null(), "equal and not, or neither");
    for (one, other) in
        [("In", "NotIn"), ("GreaterThan", "LessThanOrEquals"), ("LessThan", "GreaterThanOrEquals")]
    {
        assert!(!(holds(one) && holds(other)), "{one} and {other}");
    }
    Some(())
}

/// A duration, quantity, version, range of versions or time; or a layout, a byte 0xff, and a time.
pub(crate) fn scalar(data: &[u8]) -> Option<()> {
    if let Some([layout, text]) = parts(data) {
        let time = GoTime::parse(str::from_utf8(layout).ok()?, str::from_utf8(text).ok()?)?;
        return same_again(time, GoTime::parse_rfc3339);
    }
    let text = str::from_utf8(data).ok()?;
    let mut known = None;
    if let Some(duration) = GoDuration::parse(text) {
        for other in [duration, GoDuration::from_nanoseconds(i64::MIN), GoDuration::from_nanoseconds(7)] {
            let _ = (
                duration.plus(other),
                duration.minus(other),
                duration.ratio(other),
                duration.remainder(other),
            );
        }
        let _ = (duration.times(1e300), duration.divided_by(1e-300));
        assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
        known = Some(());
    }
    if let Some(quantity) = Quantity::parse(text) {
        for other in Quantity::parse("1n").into_iter().chain([quantity]) {
            let _ = (
                quantity.plus(other),
                quantity.minus(other),
                quantity.ratio(other),
                quantity.remainder(other),
            );
        }
        let _ = (quantity.times(1e300), quantity.divided_by(1e-300));
        assert!(Quantity::parse(&quantity.to_string()) == Some(quantity), "{quantity} is another quantity");
        known = Some(());
    }
    if let Some(version) = Version::parse(text) {
        known = same_again(version, Version::parse);
    }
    if let Some(range) = VersionRange::parse(text) {
        range.admits(&Version::zero());
        known = Some(());
    }
    if let Some(time) = GoTime::parse_rfc3339(text) {
        let _ = (time.truncated(GoDuration::from_nanoseconds(i64::MAX)), time.since(time), time.in_utc());
        known = same_again(time, GoTime::parse_rfc3339);
    }
    known
}

/// What is printed must be read, and printed the same.
fn same_again<T: Display>(value: T, parse: impl Fn(&str) -> Option<T>) -> Option<()> {
    let printed = value.to_string();
    let again = parse(&printed).unwrap_or_else(|| panic!("`{printed}` is printed and not read"));
    assert_eq!(again.to_string(), printed);
    Some(())
}

/// As many parts as asked for, with 0xff between.
fn parts<const COUNT: usize>(data: &[u8]) -> Option<[&[u8]; COUNT]> {
    data.split(|byte| *byte == 0xff).collect::<Vec<_>>().try_into().ok()
}
