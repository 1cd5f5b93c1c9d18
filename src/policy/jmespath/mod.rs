//! Kyverno's dialect of JMESPath, in which policies ask questions of predicates and images.
//!
//! [`Expression::parse`] bounds the text, parses it (the `jmespath` crate gives the grammar) and turns it
//! into a tree of our own; [`Expression::search`] walks that tree over a [`Scope`] within a [`Budget`].
//! The expression is the policy author's, the data may be anyone's who can sign a predicate.
//!
//! What differs from the standard: selecting a key that an object does not have is an error, which some
//! constructs turn into null (`interpret` has the list, taken from the fork that Kyverno pins). Upstream's
//! functions are in `functions`. Nothing here reads a clock, a network or a file: the time is the
//! scope's, `random` is seeded from it, and `is_external_url` answers for addresses but not for names.
//!
//! Unknown functions and wrong numbers of arguments are errors of the text, found when a policy is
//! loaded; upstream finds them when it evaluates. A reached limit is an error that nothing swallows.
//! Semantics: Kyverno 1.19, "JMESPath" of its documentation; differences in `tests/differences.md`.

mod budget;
mod datum;
mod functions;
mod interpret;
mod reads;
mod scope;
mod syntax;

use std::borrow::Cow;

use serde_json::Value;

pub(in crate::policy) use budget::Budget;
pub(in crate::policy) use functions::{FunctionError, json_text};
pub(in crate::policy) use reads::{Clock, Names, Reads};
pub(in crate::policy) use scope::Scope;
pub(in crate::policy) use syntax::{ExpressionError, Problem};

use datum::Datum;

/// An expression that is well formed and calls only functions that exist.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Expression {
    text: String,
    node: syntax::Node,
    reads: Reads,
}

/// Why an expression has no value. The texts are upstream's where upstream has one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(in crate::policy) enum EvaluationError {
    /// An object on the way has no such key.
    #[error("JMESPath query failed: Unknown key \"{key}\" in path")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// `[a:b:0]`.
    #[error("JMESPath query failed: Invalid slice, step cannot be 0")]
    SliceStep,
    /// A function does not take its arguments.
    #[error("JMESPath query failed: {0}")]
    Function(#[from] FunctionError),
    /// A function would need what a node does not have, or more than is given to it here.
    #[error("JMESPath query failed: function `{function}` {reason}")]
    Refused {
        /// The function.
        function: &'static str,
        /// What is missing, as a predicate of the function.
        reason: String,
    },
    /// A computation ends in infinity or in no number.
    #[error("JMESPath query failed: the result is not a finite number")]
    NotFinite,
    /// The expressions of the verdict visit too many values.
    #[error("JMESPath query failed: it takes more than {limit} steps")]
    TooManySteps {
        /// What the verdict had.
        limit: u64,
    },
    /// The expressions of the verdict make too much output.
    #[error("JMESPath query failed: it makes more than {limit} bytes")]
    TooMuchOutput {
        /// What the verdict had.
        limit: u64,
    },
}

impl Expression {
    /// Parses `text`, blanks around it dropped.
    ///
    /// # Errors
    /// What is wrong with it, with the text as upstream shows it.
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let text = text.trim();
        let node = syntax::parse(text)?;
        let reads = reads::of(&node);
        Ok(Self { text: text.to_owned(), node, reads })
    }

    /// The text that was parsed.
    pub(in crate::policy) fn text(&self) -> &str {
        &self.text
    }

    /// What the value depends on.
    pub(in crate::policy) const fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The value of the expression for `scope`: borrowed where it is part of the data.
    ///
    /// # Errors
    /// A key that is missing, a function that refuses its arguments, or a reached limit.
    pub(in crate::policy) fn search<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, EvaluationError> {
        interpret::search(&self.node, &Datum::Root(scope), scope, budget)
    }

    /// The value of the expression on `value`, which is what `@` is; of `scope` only the time counts.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub(in crate::policy) fn search_in<'a>(
        &'a self,
        value: &'a Value,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, EvaluationError> {
        interpret::search(&self.node, &Datum::Json(value), scope, budget)
    }
}

impl EvaluationError {
    /// Whether upstream has this error in the same cases. Only such errors are swallowed where upstream
    /// swallows: what one of two parsers does not understand must not become null.
    pub(in crate::policy) const fn is_upstreams(&self) -> bool {
        match self {
            Self::UnknownKey { .. } | Self::SliceStep => true,
            Self::Function(error) => match error {
                FunctionError::Type { .. } | FunctionError::Argument { .. } | FunctionError::Order(_) => true,
                FunctionError::Failed { .. } => false,
            },
            Self::Refused { .. }
            | Self::NotFinite
            | Self::TooManySteps { .. }
            | Self::TooMuchOutput { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
