//! The `In` family of operators: whether elements of a key are in a value.
//!
//! Everything is compared as text. A value is an array, a text that is a JSON array of texts, a range
//! (`1-10`, `1h-2h`, `1Ki-1Mi`, both ends included), or one text. A value that is none of these, such as a
//! number as JSON in a text, makes every operator fail, the negated ones too.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::oci::wildcard;
use crate::policy::scalar::{GoDuration, Quantity, element_text, value_text};

/// Which elements of the key must be in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// One of them.
    Any,
    /// Every one.
    All,
    /// Not every one.
    AnyNot,
    /// None.
    AllNot,
}

/// Whether the elements of `key` are in `value`.
pub(super) fn holds(membership: Membership, key: &Value, value: &Value) -> bool {
    let positive = matches!(membership, Membership::Any | Membership::All);
    match key {
        Value::Null | Value::Object(_) => false,
        Value::Array(elements) => {
            let texts: Vec<_> = elements.iter().map(element).collect();
            Members::of(membership, &texts, value).is_some_and(|members| members.hold(membership, &texts))
        }
        Value::String(text) => contains(text, value, Dialect::Current) == Some(positive),
        Value::Bool(_) | Value::Number(_) => {
            contains(&value_text(key), value, Dialect::Current) == Some(positive)
        }
    }
}

/// Whether `key`, or every element of it, is in `value` for the deprecated `In`. `None` is neither.
pub(super) fn is_in(key: &Value, value: &Value) -> Option<bool> {
    match key {
        Value::Null | Value::Object(_) => None,
        Value::Array(elements) => is_subset(elements, value),
        Value::String(text) => contains(text, value, Dialect::Deprecated),
        Value::Bool(_) | Value::Number(_) => contains(&value_text(key), value, Dialect::Deprecated),
    }
}

/// Whose reading of a text as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Ranges, and any text.
    Current,
    /// JSON only.
    Deprecated,
}

/// Whether `value` contains a key that is one text.
fn contains(key: &str, value: &Value, dialect: Dialect) -> Option<bool> {
    match value {
        Value::Array(elements) => Some(elements.iter().any(|member| alike(key, &element(member)))),
        Value::String(text) => {
            if wildcard::matches(text, key) {
                return Some(true);
            }
            if dialect == Dialect::Current
                && let Some(range) = Range::parse(text)
            {
                return Some(range.includes(key));
            }
            match (json_texts(text), dialect) {
                (Json::Texts(members), _) => Some(members.iter().any(|member| member == key)),
                (Json::None, Dialect::Current) => Some(false),
                (Json::None, Dialect::Deprecated) | (Json::Other, _) => None,
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Whether every text of a key is literally in `value`. `None` if either has something else than texts.
fn is_subset(elements: &[Value], value: &Value) -> Option<bool> {
    let texts = |values: &[Value]| -> Option<Vec<String>> {
        values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let key = texts(elements)?;
    let members = match value {
        Value::Array(elements) => texts(elements)?,
        Value::String(text) if key.len() == 1 && key.first() == Some(text) => return Some(true),
        Value::String(text) => match json_texts(text) {
            Json::Texts(members) => members,
            Json::Other | Json::None => return None,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let members: BTreeSet<String> = members.into_iter().collect();
    Some(key.iter().all(|text| members.contains(text)))
}

/// What the elements of a key are looked for in.
enum Members<'a> {
    Range(Range<'a>),
    Texts(Vec<Cow<'a, str>>),
}

impl<'a> Members<'a> {
    fn of(membership: Membership, key: &[Cow<'_, str>], value: &'a Value) -> Option<Self> {
        Some(Self::Texts(match value {
            Value::Array(elements) => elements.iter().map(element).collect(),
            Value::Number(_) | Value::Bool(_)
                if matches!(membership, Membership::Any | Membership::AnyNot) =>
            {
                vec![Cow::Owned(value_text(value))]
            }
            // One text and the same is in it, whatever else it could be.
            Value::String(text) if key.len() == 1 && key.first().is_some_and(|only| only == text) => {
                vec![Cow::Borrowed(text.as_str())]
            }
            Value::String(text) => {
                if let Some(range) = Range::parse(text) {
                    return Some(Self::Range(range));
                }
                match json_texts(text) {
                    Json::Texts(members) => members.into_iter().map(Cow::Owned).collect(),
                    Json::Other => return None,
                    Json::None => vec![Cow::Borrowed(text.as_str())],
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        }))
    }

    fn hold(&self, membership: Membership, key: &[Cow<'_, str>]) -> bool {
        let mut key = key.iter();
        match membership {
            Membership::Any => key.any(|text| self.include(text)),
            Membership::All => key.all(|text| self.include(text)),
            Membership::AnyNot => key.any(|text| self.exclude(text)),
            Membership::AllNot => !key.any(|text| self.include(text)),
        }
    }

    fn include(&self, text: &str) -> bool {
        match self {
            Self::Range(range) => range.includes(text),
            Self::Texts(members) => members.iter().any(|member| alike(text, member)),
        }
    }

    /// What cannot be compared with a range is neither in it nor outside.
    fn exclude(&self, text: &str) -> bool {
        match self {
            Self::Range(range) => range.excludes(text),
            Self::Texts(_) => !self.include(text),
        }
    }
}

/// Both ends included.
struct Range<'a> {
    text: &'a str,
    least: &'a str,
    most: &'a str,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let least = range_end(text)?;
        let most = text.strip_prefix(least)?.strip_prefix('-')?;
        (range_end(most)? == most).then_some(Self { text, least, most })
    }

    fn includes(&self, text: &str) -> bool {
        text == self.text
            || (compare(text, self.least).is_some_and(Ordering::is_ge)
                && compare(text, self.most).is_some_and(Ordering::is_le))
    }

    fn excludes(&self, text: &str) -> bool {
        text != self.text
            && (compare(text, self.least).is_some_and(Ordering::is_lt)
                || compare(text, self.most).is_some_and(Ordering::is_gt))
    }
}

/// The number with letters behind it that a text begins with.
fn range_end(text: &str) -> Option<&str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut length = usize::from(text.starts_with(['-', '+']));
    let whole = digits(text.get(length..)?);
    if whole == 0 {
        return None;
    }
    length += whole;
    if let Some(fraction) = text.get(length..)?.strip_prefix('.') {
        let fraction = digits(fraction);
        length += if fraction > 0 { fraction + 1 } else { 0 };
    }
    length += text.get(length..)?.bytes().take_while(u8::is_ascii_alphabetic).count();
    text.get(..length)
}

/// As durations if both are, else as quantities if both are.
fn compare(text: &str, end: &str) -> Option<Ordering> {
    if let (Some(duration), Some(end)) = (GoDuration::parse(text), GoDuration::parse(end)) {
        return Some(duration.cmp(&end));
    }
    Some(Quantity::parse(text)?.cmp(&Quantity::parse(end)?))
}

/// Whether one of them fits the other as a wildcard.
fn alike(key: &str, member: &str) -> bool {
    wildcard::matches(key, member) || wildcard::matches(member, key)
}

fn element(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(element_text(value))
        }
    }
}

/// A text read as a JSON array of texts.
enum Json {
    Texts(Vec<String>),
    /// JSON, and something else.
    Other,
    /// No JSON.
    None,
}

fn json_texts(text: &str) -> Json {
    // As Go: null is an empty array, and an empty text as an element.
    if let Ok(texts) = serde_json::from_str::<Option<Vec<Option<String>>>>(text) {
        return Json::Texts(texts.into_iter().flatten().map(Option::unwrap_or_default).collect());
    }
    if serde_json::from_str::<IgnoredAny>(text).is_ok() { Json::Other } else { Json::None }
}
