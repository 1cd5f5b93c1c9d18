//! A value while an expression is evaluated: a reference into the data, or something that was made.
//!
//! Data is never copied on the way: a projection over a large predicate is a list of references. Only
//! what `search` returns is built as JSON, and every byte of it is charged to the budget.
//!
//! Numbers are 64-bit floats, as in Go after decoding JSON: `1` and `1.0` are equal, integers beyond
//! 2^53 are rounded when they are compared or computed with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Number, Value};

use super::EvaluationError;
use super::budget::Budget;
use super::scope::Scope;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Datum<'a> {
    /// Part of the data, or a literal of the expression.
    Json(&'a Value),
    /// The whole object that the expression starts from.
    Root(&'a Scope<'a>),
    Null,
    Bool(bool),
    /// Always finite: [`Datum::number`] refuses the rest.
    Number(f64),
    Text(Rc<str>),
    List(Rc<Vec<Self>>),
    Object(Rc<Fields<'a>>),
}

/// The fields of an object that was made.
pub(super) type Fields<'a> = BTreeMap<Cow<'a, str>, Datum<'a>>;

/// A datum by its JSON type.
#[derive(Clone, Copy)]
pub(super) enum View<'v, 'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'v str),
    List(List<'v, 'a>),
    Object(Object<'v, 'a>),
}

/// Elements of an array.
#[derive(Clone, Copy)]
pub(super) enum List<'v, 'a> {
    Json(&'a [Value]),
    Made(&'v [Datum<'a>]),
}

/// Fields of an object.
#[derive(Clone, Copy)]
pub(super) enum Object<'v, 'a> {
    Json(&'a Map<String, Value>),
    Made(&'v Fields<'a>),
    Root(&'a Scope<'a>),
}

impl<'a> Datum<'a> {
    /// A number, which JSON only has if it is finite.
    pub(super) fn number(value: f64) -> Result<Self, EvaluationError> {
        if value.is_finite() { Ok(Self::Number(value)) } else { Err(EvaluationError::NotFinite) }
    }

    /// A text, charged to the budget.
    pub(super) fn text(text: &str, budget: &mut Budget) -> Result<Self, EvaluationError> {
        budget.output(text.len())?;
        Ok(Self::Text(text.into()))
    }

    /// A list whose elements were charged when they were collected.
    pub(super) fn list(elements: Vec<Self>) -> Self {
        Self::List(Rc::new(elements))
    }

    /// An object whose fields were charged when they were collected.
    pub(super) fn object(fields: Fields<'a>) -> Self {
        Self::Object(Rc::new(fields))
    }

    pub(super) fn view(&self) -> View<'_, 'a> {
        match self {
            Self::Json(Value::Null) | Self::Null => View::Null,
            Self::Json(Value::Bool(value)) => View::Bool(*value),
            // Without arbitrary precision every JSON number has a float.
            Self::Json(Value::Number(number)) => View::Number(number.as_f64().unwrap_or(0.0)),
            Self::Json(Value::String(text)) => View::Text(text),
            Self::Json(Value::Array(elements)) => View::List(List::Json(elements)),
            Self::Json(Value::Object(fields)) => View::Object(Object::Json(fields)),
            Self::Root(scope) => View::Object(Object::Root(scope)),
            Self::Bool(value) => View::Bool(*value),
            Self::Number(number) => View::Number(*number),
            Self::Text(text) => View::Text(text),
            Self::List(elements) => View::List(List::Made(elements)),
            Self::Object(fields) => View::Object(Object::Made(fields)),
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let View::Text(text) = self.view() { Some(text) } else { None }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        if let View::Number(number) = self.view() { Some(number) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<List<'_, 'a>> {
        if let View::List(list) = self.view() { Some(list) } else { None }
    }

    pub(super) fn as_object(&self) -> Option<Object<'_, 'a>> {
        if let View::Object(object) = self.view() { Some(object) } else { None }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.view(), View::Null)
    }

    /// Null, false, and empty texts, arrays and objects count as false; the number 0 does not.
    pub(super) fn is_falsy(&self) -> bool {
        match self.view() {
            View::Null => true,
            View::Bool(value) => !value,
            View::Number(_) => false,
            View::Text(text) => text.is_empty(),
            View::List(list) => list.is_empty(),
            View::Object(object) => object.is_empty(),
        }
    }

    /// Whether both are the same JSON, numbers compared as floats.
    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, EvaluationError> {
        budget.step(1)?;
        Ok(match (self.view(), other.view()) {
            (View::Null, View::Null) => true,
            (View::Bool(left), View::Bool(right)) => left == right,
            (View::Number(left), View::Number(right)) => left == right,
            (View::Text(left), View::Text(right)) => left == right,
            (View::List(left), View::List(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right.iter()) {
                    if !left.equals(&right, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (View::Object(left), View::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (name, left) in left.iter() {
                    let Some(right) = right.field(&name) else { return Ok(false) };
                    if !left.equals(&right, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// The JSON of the datum: borrowed where it is part of the data.
    pub(super) fn into_json(self, budget: &mut Budget) -> Result<Cow<'a, Value>, EvaluationError> {
        if let Self::Json(value) = self {
            Ok(Cow::Borrowed(value))
        } else {
            self.build(budget).map(Cow::Owned)
        }
    }

    fn build(&self, budget: &mut Budget) -> Result<Value, EvaluationError> {
        budget.step(1)?;
        budget.output(size_of::<Value>())?;
        Ok(match self.view() {
            View::Null => Value::Null,
            View::Bool(value) => Value::Bool(value),
            View::Number(number) => {
                if let Self::Json(value) = self {
                    return Ok((*value).clone());
                }
                Value::Number(json_number(number))
            }
            View::Text(text) => {
                budget.output(text.len())?;
                Value::String(text.to_owned())
            }
            View::List(list) => {
                let elements: Result<Vec<_>, _> = list.iter().map(|element| element.build(budget)).collect();
                Value::Array(elements?)
            }
            View::Object(object) => {
                let mut fields = Map::new();
                for (name, field) in object.iter() {
                    budget.output(name.len() + size_of::<String>())?;
                    fields.insert(name.into_owned(), field.build(budget)?);
                }
                Value::Object(fields)
            }
        })
    }
}

impl From<Value> for Datum<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(0.0)),
            Value::String(text) => Self::Text(text.into()),
            Value::Array(elements) => Self::list(elements.into_iter().map(Self::from).collect()),
            Value::Object(fields) => Self::object(
                fields.into_iter().map(|(name, value)| (Cow::Owned(name), Self::from(value))).collect(),
            ),
        }
    }
}

impl<'v, 'a> List<'v, 'a> {
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Json(elements) => elements.len(),
            Self::Made(elements) => elements.len(),
        }
    }

    pub(super) const fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub(super) fn element(self, index: usize) -> Option<Datum<'a>> {
        match self {
            Self::Json(elements) => elements.get(index).map(Datum::Json),
            Self::Made(elements) => elements.get(index).cloned(),
        }
    }

    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = Datum<'a>> + DoubleEndedIterator + 'v
    where
        'a: 'v,
    {
        (0..self.len()).map(move |index| self.element(index).unwrap_or(Datum::Null))
    }
}

impl<'v, 'a> Object<'v, 'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Json(fields) => fields.len(),
            Self::Made(fields) => fields.len(),
            Self::Root(scope) => scope.entries().len(),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Json(fields) => fields.is_empty(),
            Self::Made(fields) => fields.is_empty(),
            Self::Root(scope) => scope.width() == 0,
        }
    }

    /// At least the number of fields, without merging layers.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Json(fields) => fields.len(),
            Self::Made(fields) => fields.len(),
            Self::Root(scope) => scope.width(),
        }
    }

    pub(super) fn field(self, name: &str) -> Option<Datum<'a>> {
        match self {
            Self::Json(fields) => fields.get(name).map(Datum::Json),
            Self::Made(fields) => fields.get(name).cloned(),
            Self::Root(scope) => scope.value(name).map(Datum::Json),
        }
    }

    /// The fields, sorted by name: Go's order is random, a verdict's must not be.
    pub(super) fn iter(self) -> Box<dyn Iterator<Item = (Cow<'a, str>, Datum<'a>)> + 'v>
    where
        'a: 'v,
    {
        match self {
            Self::Json(fields) => Box::new(
                fields.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), Datum::Json(value))),
            ),
            Self::Made(fields) => Box::new(fields.iter().map(|(name, value)| (name.clone(), value.clone()))),
            Self::Root(scope) => {
                let entries = scope.entries().into_iter();
                Box::new(entries.map(|(name, value)| (Cow::Borrowed(name), Datum::Json(value))))
            }
        }
    }
}

/// Whole numbers without a fraction, as Go writes them.
fn json_number(number: f64) -> Number {
    if number.fract() == 0.0 && number.abs() < I64_LIMIT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^63")]
        let whole = number as i64;
        return Number::from(whole);
    }
    // Finite by construction.
    Number::from_f64(number).unwrap_or_else(|| Number::from(0))
}

/// 2^63.
const I64_LIMIT: f64 = 9_223_372_036_854_775_808.0;
