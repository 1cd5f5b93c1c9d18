//! Kyverno's operators: whether a key and a value compare as a condition says.
//!
//! Two-valued, as upstream: a pair that an operator cannot compare does not hold, and its negation holds
//! only where upstream's does. In order, texts are tried as durations, as quantities, then as numbers and
//! versions, and last as wildcards. A number that stands alone is a float, and its text Go's (`1e+06`);
//! inside an array it is an integer where it can be one.
//!
//! Wildcards work in both directions between the elements of the `In` family: a `*` in the data of a key
//! matches every element of the value. That is upstream's, and for the policy's author to mind.
//!
//! Nothing panics or wraps around. The time is bounded by the product of the sizes of key and value;
//! callers charge for that first. Semantics: Kyverno 1.19 (`pkg/engine/variables/operator`);
//! `tests/differences.md` lists what differs.

use std::cmp::Ordering;

use serde_json::Value;

use super::membership::{self, Membership};
use crate::oci::wildcard;
use crate::policy::scalar::{GoDuration, Quantity, Version, float, parse_float, whole_seconds};

/// A condition's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// Equality, with wildcards in the value.
    Equals,
    /// Its negation, except that null is neither.
    NotEquals,
    /// Numbers, quantities, durations and versions.
    Compares(Order),
    /// Durations and whole seconds only (deprecated).
    ComparesDurations(Order),
    /// Whether elements of the key are in the value.
    IsIn(Membership),
    /// Whether the key, or every element of it, is in the value (deprecated).
    In,
    /// Its negation (deprecated).
    NotIn,
}

/// What an order must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

/// No operator has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown operator `{name}`: one of Equals, NotEquals, AnyIn, AllIn, AnyNotIn, AllNotIn, \
         GreaterThan, GreaterThanOrEquals, LessThan, LessThanOrEquals"
)]
pub(crate) struct UnknownOperator {
    name: String,
}

impl Operator {
    /// Reads a name, in upper or lower case; `Equal` and `NotEqual` are old spellings.
    pub(crate) fn parse(name: &str) -> Result<Self, UnknownOperator> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("Equal") {
            return Ok(Self::Equals);
        }
        if is("NotEqual") {
            return Ok(Self::NotEquals);
        }
        let found = ALL.into_iter().find(|operator| is(operator.name()));
        found.ok_or_else(|| UnknownOperator { name: name.to_owned() })
    }

    /// The name in policies.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Equals => "Equals",
            Self::NotEquals => "NotEquals",
            Self::Compares(Order::Greater) => "GreaterThan",
            Self::Compares(Order::GreaterOrEqual) => "GreaterThanOrEquals",
            Self::Compares(Order::Less) => "LessThan",
            Self::Compares(Order::LessOrEqual) => "LessThanOrEquals",
            Self::ComparesDurations(Order::Greater) => "DurationGreaterThan",
            Self::ComparesDurations(Order::GreaterOrEqual) => "DurationGreaterThanOrEquals",
            Self::ComparesDurations(Order::Less) => "DurationLessThan",
            Self::ComparesDurations(Order::LessOrEqual) => "DurationLessThanOrEquals",
            Self::IsIn(Membership::Any) => "AnyIn",
            Self::IsIn(Membership::All) => "AllIn",
            Self::IsIn(Membership::AnyNot) => "AnyNotIn",
            Self::IsIn(Membership::AllNot) => "AllNotIn",
            Self::In => "In",
            Self::NotIn => "NotIn",
        }
    }

    /// What to use instead of a deprecated operator.
    pub(crate) const fn replacement(self) -> Option<&'static str> {
        match self {
            Self::In => Some("AllIn or AnyIn"),
            Self::NotIn => Some("AllNotIn or AnyNotIn"),
            Self::ComparesDurations(order) => Some(Self::Compares(order).name()),
            Self::Equals | Self::NotEquals | Self::Compares(_) | Self::IsIn(_) => None,
        }
    }

    /// Whether `key` and `value` compare so.
    pub(crate) fn holds(self, key: &Value, value: &Value) -> bool {
        match self {
            Self::Equals => equal(key, value),
            Self::NotEquals => !key.is_null() && !equal(key, value),
            Self::Compares(order) => compare(key, value).is_some_and(|found| order.admits(found)),
            Self::ComparesDurations(order) => {
                compare_durations(key, value).is_some_and(|found| order.admits(found))
            }
            Self::IsIn(membership) => membership::holds(membership, key, value),
            Self::In => membership::is_in(key, value) == Some(true),
            Self::NotIn => membership::is_in(key, value) == Some(false),
        }
    }
}

impl Order {
    const fn admits(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

fn equal(key: &Value, value: &Value) -> bool {
    match (key, value) {
        (Value::Bool(key), Value::Bool(value)) => key == value,
        (Value::Number(key), Value::Number(value)) => float(key) == float(value),
        (Value::Number(key), Value::String(value)) => parse_float(value) == Some(float(key)),
        (Value::String(text), _) => equal_text(text, key, value),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => same(key, value),
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
        ) => false,
    }
}

/// `text` is the key.
fn equal_text(text: &str, key: &Value, value: &Value) -> bool {
    if let Some(order) = mixed_durations(key, value) {
        return order.is_eq();
    }
    let Value::String(value) = value else { return false };
    match Quantity::parse(text) {
        // A quantity is never a wildcard match.
        Some(quantity) => Quantity::parse(value) == Some(quantity),
        None => wildcard::matches(value, text),
    }
}

/// Deep equality. `1` is `1.0`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left == right,
            _ => float(left) == float(right),
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

fn compare(key: &Value, value: &Value) -> Option<Ordering> {
    match key {
        Value::Number(number) => compare_number(float(number), key, value),
        Value::String(text) => {
            if let Some(order) = mixed_durations(key, value) {
                return Some(order);
            }
            if let Value::String(value) = value
                && let (Some(key), Some(value)) = (Quantity::parse(text), Quantity::parse(value))
            {
                return Some(key.cmp(&value));
            }
            if let Some(number) = parse_float(text) {
                return compare_number(number, &Value::from(number), value);
            }
            let version = Version::parse(text)?;
            Some(version.cmp(&Version::parse(value.as_str()?)?))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `number` is the key.
fn compare_number(number: f64, key: &Value, value: &Value) -> Option<Ordering> {
    if let Some(order) = mixed_durations(key, value) {
        return Some(order);
    }
    let value = match value {
        Value::Number(value) => float(value),
        Value::String(value) => parse_float(value)?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    number.partial_cmp(&value)
}

/// Two durations, or one and a number of seconds. The text `0` is a number.
fn mixed_durations(key: &Value, value: &Value) -> Option<Ordering> {
    let duration = |side: &Value| side.as_str().filter(|text| *text != "0").and_then(GoDuration::parse);
    let (of_key, of_value) = (duration(key), duration(value));
    if of_key.is_none() && of_value.is_none() {
        return None;
    }
    let length = |duration: Option<GoDuration>, side| match duration {
        Some(duration) => Some(i128::from(duration.nanoseconds())),
        None => seconds(side),
    };
    Some(length(of_key, key)?.cmp(&length(of_value, value)?))
}

/// Durations and numbers of seconds, in any mixture.
fn compare_durations(key: &Value, value: &Value) -> Option<Ordering> {
    let length = |side: &Value| match side {
        Value::String(text) => GoDuration::parse(text).map(|duration| i128::from(duration.nanoseconds())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => seconds(side),
    };
    Some(length(key)?.cmp(&length(value)?))
}

/// A number as whole seconds, in nanoseconds.
fn seconds(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => Some(whole_seconds(float(number))),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

const ALL: [Operator; 16] = [
    Operator::Equals,
    Operator::NotEquals,
    Operator::IsIn(Membership::Any),
    Operator::IsIn(Membership::All),
    Operator::IsIn(Membership::AnyNot),
    Operator::IsIn(Membership::AllNot),
    Operator::Compares(Order::Greater),
    Operator::Compares(Order::GreaterOrEqual),
    Operator::Compares(Order::Less),
    Operator::Compares(Order::LessOrEqual),
    Operator::In,
    Operator::NotIn,
    Operator::ComparesDurations(Order::Greater),
    Operator::ComparesDurations(Order::GreaterOrEqual),
    Operator::ComparesDurations(Order::Less),
    Operator::ComparesDurations(Order::LessOrEqual),
];
