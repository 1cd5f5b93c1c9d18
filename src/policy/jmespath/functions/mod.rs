//! The functions of the standard and of Kyverno, in one table.
//!
//! A row says what a function takes; calls are checked against it before the function runs, in
//! upstream's words, so that a function only ever sees what it takes. What a function visits and makes
//! is charged to the budget before the work is done.

mod arithmetic;
mod certificates;
mod collections;
mod documents;
mod encoding;
mod random;
mod regexes;
mod strings;
mod time;

use std::borrow::Cow;
use std::fmt;

pub(in crate::policy) use documents::json_text;
pub(super) use random::Random;
pub(super) use regexes::LastPattern;

use super::EvaluationError;
use super::datum::{Datum, List, Object, View};
use super::interpret::{Evaluated, Interpreter};
use super::syntax::{Argument, Node};
use crate::policy::scalar;

/// A row of the table.
pub(super) struct Function {
    pub(super) name: &'static str,
    takes: &'static [&'static [Kind]],
    repeats: Repeats,
    clock: Clock,
    /// What is wrong with a first argument that is a literal.
    unusable: fn(&str) -> Option<String>,
    run: Run,
}

type Run = for<'a> fn(&Arguments<'a>, &mut Interpreter<'a, '_>) -> Evaluated<'a>;

/// Whether the last argument may be repeated.
#[derive(Clone, Copy)]
enum Repeats {
    Last,
    Nothing,
}

/// When a function reads the time of the verdict.
#[derive(Clone, Copy)]
enum Clock {
    Never,
    Always,
    /// If the argument at this index is an empty text.
    IfEmpty(usize),
}

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Array,
    Object,
    Numbers,
    Texts,
    Any,
    Reference,
}

/// How many arguments a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) enum Arity {
    /// As many.
    Exactly(usize),
    /// As many or more.
    AtLeast(usize),
}

/// The arguments of one call.
pub(super) struct Arguments<'a> {
    function: &'static str,
    given: Vec<Given<'a>>,
}

/// One argument of a call.
pub(super) enum Given<'a> {
    Value(Datum<'a>),
    Expression(&'a Node),
}

/// Why a function has no value for its arguments, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum FunctionError {
    /// An argument is of a type that the function does not take.
    #[error("Invalid type for: {value}, expected: []jmespath.JpType{{{expected}}}")]
    Type {
        /// The argument as Go prints it, cut.
        value: String,
        /// The types.
        expected: String,
    },
    /// An argument is of the right type in general and not here.
    #[error("JMESPath function '{function}': argument #{position} is not of type {expected}")]
    Argument {
        /// The function.
        function: &'static str,
        /// Which argument, from 1.
        position: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// An argument has no meaning for the function.
    #[error("JMESPath function '{function}': {reason}")]
    Failed {
        /// The function.
        function: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What the expression of a function gives cannot be put in an order.
    #[error("{0}")]
    Order(OrderError),
}

/// Why elements have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum OrderError {
    /// The first key is neither.
    #[error("invalid type, must be number of string")]
    First,
    /// The first key is a number and another is not.
    #[error("invalid type, must be number")]
    Number,
    /// The first key is a string and another is not.
    #[error("invalid type, must be string")]
    Text,
    /// The same, in a sort.
    #[error("error in sort_by comparison")]
    Sort,
}

const fn row(name: &'static str, takes: &'static [&'static [Kind]], run: Run) -> Function {
    Function { name, takes, repeats: Repeats::Nothing, clock: Clock::Never, unusable: |_| None, run }
}

/// A row whose last argument may be repeated.
const fn repeating(name: &'static str, takes: &'static [&'static [Kind]], run: Run) -> Function {
    Function { repeats: Repeats::Last, ..row(name, takes, run) }
}

/// The function of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    TABLES.into_iter().flatten().find(|function| function.name == name)
}

impl Function {
    const fn reading(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    const fn checking(self, unusable: fn(&str) -> Option<String>) -> Self {
        Self { unusable, ..self }
    }

    pub(super) const fn arity(&self) -> Arity {
        match self.repeats {
            Repeats::Last => Arity::AtLeast(self.takes.len()),
            Repeats::Nothing => Arity::Exactly(self.takes.len()),
        }
    }

    /// Whether the function evaluates its argument at `index` (from 0) itself.
    pub(super) fn takes_reference(&self, index: usize) -> bool {
        self.kinds(index).contains(&Kind::Reference)
    }

    /// Whether a call with these arguments may read the time of the verdict.
    pub(super) fn reads_clock(&self, arguments: &[Argument]) -> bool {
        match self.clock {
            Clock::Never => false,
            Clock::Always => true,
            Clock::IfEmpty(index) => {
                let literal = arguments.get(index).and_then(Argument::as_text);
                literal.is_none_or(str::is_empty)
            }
        }
    }

    /// What is wrong with literals among the arguments, whatever the rest is.
    pub(super) fn unusable(&self, arguments: &[Argument]) -> Option<String> {
        (self.unusable)(arguments.first()?.as_text()?)
    }

    /// Checks the arguments and runs the function.
    pub(super) fn call<'a>(&self, arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
        for (index, given) in arguments.given.iter().enumerate() {
            if let Given::Value(value) = given {
                check(self.kinds(index), value, run)?;
            }
        }
        (self.run)(arguments, run)
    }

    fn kinds(&self, index: usize) -> &'static [Kind] {
        self.takes.get(index).or(self.takes.last()).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Arity {
    pub(super) const fn takes(self, count: usize) -> bool {
        match self {
            Self::Exactly(wanted) => count == wanted,
            Self::AtLeast(wanted) => count >= wanted,
        }
    }
}

impl fmt::Display for Arity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(count) => write!(f, "{count}"),
            Self::AtLeast(count) => write!(f, "{count} or more"),
        }
    }
}

impl<'a> Arguments<'a> {
    pub(super) const fn new(function: &'static str, given: Vec<Given<'a>>) -> Self {
        Self { function, given }
    }

    fn values(&self) -> impl Iterator<Item = &Datum<'a>> {
        self.given.iter().filter_map(|given| match given {
            Given::Value(value) => Some(value),
            Given::Expression(_) => None,
        })
    }

    fn value(&self, index: usize) -> Result<&Datum<'a>, EvaluationError> {
        match self.given.get(index) {
            Some(Given::Value(value)) => Ok(value),
            _ => Err(self.not(index, "value")),
        }
    }

    fn expression(&self, index: usize) -> Result<&'a Node, EvaluationError> {
        match self.given.get(index) {
            Some(Given::Expression(node)) => Ok(node),
            _ => Err(self.not(index, "expref")),
        }
    }

    fn text(&self, index: usize) -> Result<&str, EvaluationError> {
        self.value(index)?.as_text().ok_or_else(|| self.not(index, "string"))
    }

    fn number(&self, index: usize) -> Result<f64, EvaluationError> {
        self.value(index)?.as_number().ok_or_else(|| self.not(index, "float64"))
    }

    fn list(&self, index: usize) -> Result<List<'_, 'a>, EvaluationError> {
        self.value(index)?.as_list().ok_or_else(|| self.not(index, "Array"))
    }

    fn object(&self, index: usize) -> Result<Object<'_, 'a>, EvaluationError> {
        self.value(index)?.as_object().ok_or_else(|| self.not(index, "Object"))
    }

    /// A text, or a number as text.
    fn text_or_number(&self, index: usize) -> Result<Cow<'_, str>, EvaluationError> {
        text_or_number(self.value(index)?).ok_or_else(|| self.not(index, "String or Real"))
    }

    /// The error for an argument that is not what this function wants here.
    fn not(&self, index: usize, expected: &'static str) -> EvaluationError {
        FunctionError::Argument { function: self.function, position: index + 1, expected }.into()
    }

    /// The error for what cannot be done here: no construct turns it into null.
    fn refused(&self, reason: impl Into<String>) -> EvaluationError {
        EvaluationError::Refused { function: self.function, reason: reason.into() }
    }

    /// The error for arguments without a meaning.
    fn failed(&self, reason: impl Into<String>) -> EvaluationError {
        FunctionError::Failed { function: self.function, reason: reason.into() }.into()
    }
}

/// A text, or a number with the digits of a 32-bit float (sic).
fn text_or_number<'v>(value: &'v Datum<'_>) -> Option<Cow<'v, str>> {
    if let Some(text) = value.as_text() {
        return Some(Cow::Borrowed(text));
    }
    #[expect(clippy::cast_possible_truncation, reason = "upstream prints 32 bits")]
    let short = value.as_number()? as f32;
    Some(Cow::Owned(short.to_string()))
}

fn check(kinds: &[Kind], value: &Datum<'_>, run: &mut Interpreter<'_, '_>) -> Result<(), EvaluationError> {
    let mut fits = false;
    for kind in kinds {
        fits |= match (kind, value.view()) {
            (Kind::Any, _)
            | (Kind::Number, View::Number(_))
            | (Kind::Array, View::List(_))
            | (Kind::Object, View::Object(_)) => true,
            // What is linear in the text is charged here, once for all functions.
            (Kind::Text, View::Text(text)) => {
                run.budget.step(text.len() / TEXT_PER_STEP)?;
                true
            }
            (Kind::Numbers, View::List(list)) => {
                run.budget.step(list.len())?;
                list.iter().all(|element| matches!(element.view(), View::Number(_)))
            }
            (Kind::Texts, View::List(list)) => {
                run.budget.step(list.len())?;
                list.iter().all(|element| matches!(element.view(), View::Text(_)))
            }
            _ => false,
        };
    }
    if fits {
        return Ok(());
    }
    let expected: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
    Err(FunctionError::Type { value: printed(value), expected: expected.join(", ") }.into())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "number",
            Self::Text => "string",
            Self::Array => "array",
            Self::Object => "object",
            Self::Numbers => "array[number]",
            Self::Texts => "array[string]",
            Self::Any => "any",
            Self::Reference => "expref",
        })
    }
}

/// A value for a message, as Go's `%v` prints it, cut.
fn printed(value: &Datum<'_>) -> String {
    let mut out = String::new();
    print(value, &mut out);
    cut(&out)
}

fn print(value: &Datum<'_>, out: &mut String) {
    // More than a message shows: what is left of a large value is not walked.
    if out.len() > 4 * SHOWN {
        return;
    }
    match value.view() {
        View::Null => out.push_str("<nil>"),
        View::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        View::Number(number) => out.push_str(&scalar::float_text(number)),
        View::Text(text) => out.push_str(&cut(text)),
        View::List(list) => {
            out.push('[');
            for (index, element) in list.iter().take(SHOWN).enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                print(&element, out);
            }
            out.push(']');
        }
        View::Object(object) => {
            out.push_str("map[");
            for (index, (name, field)) in object.iter().take(SHOWN).enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                out.push_str(&cut(&name));
                out.push(':');
                print(&field, out);
            }
            out.push(']');
        }
    }
}

/// A text for a message.
fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Every function, by subject.
pub(super) const TABLES: [&[Function]; 9] = [
    arithmetic::FUNCTIONS,
    certificates::FUNCTIONS,
    collections::FUNCTIONS,
    documents::FUNCTIONS,
    encoding::FUNCTIONS,
    random::FUNCTIONS,
    regexes::FUNCTIONS,
    strings::FUNCTIONS,
    time::FUNCTIONS,
];
/// Bytes of text that count as one step: a word of a scan.
const TEXT_PER_STEP: usize = 64;
/// Characters of a text, and elements of an array, in a message.
const SHOWN: usize = 80;

#[cfg(test)]
mod tests;
