//! Values of the policy's text with `{{ … }}` in it: parsed once, at load, and filled in for each verdict.
//!
//! **Text that comes from data is never read again.** Upstream scans the result of a substitution for
//! more variables, so whoever writes a predicate could have expressions evaluated. Here the policy's own
//! text alone says where variables are; what is put in is text and stays text.
//!
//! Variables inside of variables (`{{ keys.{{ request.namespace }} }}`, `{{ f('{{ a.b }}') }}`) are the one
//! place where data becomes part of an expression. It must not change what the expression is, so it is put
//! in only where its end cannot be moved ([`nested`] has the rule); else there is no value.
//!
//! A whole text that is one variable keeps the JSON type of the result; in other text a string is put in
//! as it is, everything else as compact JSON. Keys of objects may hold variables and must become texts.
//! A variable without a value is an error with upstream's words; nothing here has a default.
//! Semantics: Kyverno 1.19 (`pkg/engine/variables`); differences in `tests/differences.md`.

mod nested;
mod reference;
mod text;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub(super) use reference::resolve as resolve_references;

use super::jmespath::{Budget, EvaluationError, Expression, ExpressionError, Reads, Scope, json_text};
use nested::Nested;
use text::{Body, Malformed, Piece};

/// A value of the policy's text, with its variables parsed.
#[derive(Debug, Clone)]
pub(super) struct Template {
    source: Value,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    /// Nothing to fill in; `\{{` is unescaped.
    Plain(Value),
    /// One variable and nothing around it.
    Whole(Variable),
    Text(Vec<Part>),
    List(Vec<Self>),
    Object(Vec<(Key, Self)>),
}

#[derive(Debug, Clone)]
struct Key {
    written: String,
    node: Node,
}

#[derive(Debug, Clone)]
enum Part {
    Plain(String),
    Variable(Variable),
}

#[derive(Debug, Clone)]
struct Variable {
    /// Where it stands, for messages.
    path: String,
    query: Query,
    shallow: bool,
}

#[derive(Debug, Clone)]
enum Query {
    Fixed(Expression),
    Nested(Nested),
}

/// Why a template is not one. Found at load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    /// The braces.
    #[error("`{text}`: {cause}")]
    Malformed {
        /// The text.
        text: String,
        /// What is wrong with it.
        cause: Malformed,
    },
    /// The expression.
    #[error("{0}")]
    Expression(#[from] ExpressionError),
    /// `{{@}}`.
    #[error(
        "`{{{{@}}}}` stands for the same place in the resource, which conditions have none of; write the path"
    )]
    Position,
    /// A variable inside of a variable.
    #[error("`{text}`: {cause}")]
    Nested {
        /// The outer variable.
        text: String,
        /// What is wrong with it.
        cause: nested::NestingError,
    },
    /// `$(…)`.
    #[error("reference `$({reference})`: {cause}")]
    Reference {
        /// What is between the parentheses.
        reference: String,
        /// What is wrong with it.
        cause: reference::ReferenceCause,
    },
}

/// Why a template has no value. The texts are upstream's where upstream has one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum SubstitutionError {
    /// The expression has no value.
    #[error("failed to resolve {expression} at path {path}: {cause}")]
    Query {
        /// The expression, cut.
        expression: String,
        /// Where it stands.
        path: String,
        /// Why.
        cause: EvaluationError,
    },
    /// A variable was put in, and what came out is no expression.
    #[error("failed to resolve {expression} at path {path}: {cause}")]
    Incorrect {
        /// The expression, cut.
        expression: String,
        /// Where it stands.
        path: String,
        /// Why.
        cause: ExpressionError,
    },
    /// The value of a variable inside of a variable could change what the expression is.
    #[error("failed to resolve {expression} at path {path}: its value cannot be put into an expression")]
    Unsafe {
        /// The inner expression, cut.
        expression: String,
        /// Where it stands.
        path: String,
    },
    /// `{{- … }}` in a text.
    #[error("failed to resolve {expression} at path {path}: the result is not a string")]
    NotText {
        /// The expression, cut.
        expression: String,
        /// Where it stands.
        path: String,
    },
    /// A key that is no text.
    #[error("expected string after substituting variables in key \"{key}\"")]
    KeyNotText {
        /// The key as it is written.
        key: String,
    },
    /// Two keys that become one.
    #[error("two keys become \"{key}\" after substituting variables")]
    KeyTwice {
        /// The key that they become, cut.
        key: String,
    },
    /// The verdict's budget is spent.
    #[error(transparent)]
    Budget(EvaluationError),
}

impl Template {
    /// Parses `source`. `path` is where it stands in its document, for messages.
    ///
    /// # Errors
    /// The first text in it that cannot be read.
    pub(super) fn parse(source: Value, path: &str) -> Result<Self, TemplateError> {
        let node = Node::parse(&source, path)?;
        Ok(Self { source, node })
    }

    /// What was parsed: what a fingerprint is made of.
    pub(super) const fn source(&self) -> &Value {
        &self.source
    }

    /// Whether there is any variable in it.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self.node, Node::Plain(_))
    }

    /// What its value depends on.
    pub(super) fn reads(&self) -> Reads {
        let mut reads = Reads::none();
        self.node.add_reads(&mut reads);
        reads
    }

    /// The text that the policy writes, with what `fill` says in place of each variable. Something else than
    /// a text has none.
    ///
    /// # Errors
    /// Those of `fill`.
    pub(super) fn text<E>(&self, mut fill: impl FnMut(Hole<'_>) -> Result<String, E>) -> Result<String, E> {
        match &self.node {
            Node::Plain(Value::String(text)) => Ok(text.clone()),
            Node::Whole(variable) => fill(Hole(variable)),
            Node::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Plain(plain) => text.push_str(plain),
                        Part::Variable(variable) => text.push_str(&fill(Hole(variable))?),
                    }
                }
                Ok(text)
            }
            Node::Plain(_) | Node::List(_) | Node::Object(_) => Ok(String::new()),
        }
    }

    /// The value with everything filled in: borrowed where it is part of the data.
    ///
    /// # Errors
    /// The first variable without a value, or that the budget is spent.
    pub(super) fn substitute<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, SubstitutionError> {
        self.node.fill(scope, budget)
    }
}

/// One variable of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole<'t>(&'t Variable);

impl<'t> Hole<'t> {
    /// What its value depends on.
    pub(super) fn reads(self) -> Reads {
        let mut reads = Reads::none();
        self.0.add_reads(&mut reads);
        reads
    }

    /// Its value.
    ///
    /// # Errors
    /// Why it has none.
    pub(super) fn value<'a>(
        self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, SubstitutionError>
    where
        't: 'a,
    {
        self.0.value(scope, budget)
    }
}

impl Node {
    fn parse(source: &Value, path: &str) -> Result<Self, TemplateError> {
        let node = match source {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Plain(source.clone()),
            Value::String(text) => Self::text(text, path)?,
            Value::Array(items) => {
                let each = items.iter().enumerate();
                let each = each.map(|(index, item)| Self::parse(item, &format!("{path}/{index}")));
                let nodes = each.collect::<Result<Vec<_>, _>>()?;
                match nodes.iter().map(Self::plain).collect() {
                    Some(items) => Self::Plain(Value::Array(items)),
                    None => Self::List(nodes),
                }
            }
            Value::Object(members) => {
                let each = members.iter().map(|(key, member)| {
                    let node = Self::text(key, path)?;
                    let member = Self::parse(member, &format!("{path}/{}", reference::segment(key)))?;
                    Ok::<_, TemplateError>((Key { written: key.clone(), node }, member))
                });
                let nodes = each.collect::<Result<Vec<_>, _>>()?;
                let plain = nodes.iter().map(|(key, node)| match key.node.plain() {
                    Some(Value::String(key)) => Some((key, node.plain()?)),
                    Some(_) | None => None,
                });
                match plain.collect::<Option<Map<_, _>>>() {
                    // As many as there were: escapes can make two keys one.
                    Some(members) if members.len() == nodes.len() => Self::Plain(Value::Object(members)),
                    Some(_) | None => Self::Object(nodes),
                }
            }
        };
        Ok(node)
    }

    fn text(text: &str, path: &str) -> Result<Self, TemplateError> {
        let pieces =
            text::pieces(text).map_err(|cause| TemplateError::Malformed { text: shown(text), cause })?;
        if let [Piece::Variable(body)] = pieces.as_slice() {
            return Variable::parse(body, path).map(Self::Whole);
        }
        let mut plain = String::new();
        let mut parts = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Plain(text) => {
                    plain.push_str(text);
                    parts.push(Part::Plain(text.clone()));
                }
                Piece::Variable(body) => parts.push(Part::Variable(Variable::parse(body, path)?)),
            }
        }
        let any = parts.iter().any(|part| matches!(part, Part::Variable(_)));
        Ok(if any { Self::Text(parts) } else { Self::Plain(Value::String(plain)) })
    }

    /// The value of a node without variables.
    fn plain(&self) -> Option<Value> {
        match self {
            Self::Plain(value) => Some(value.clone()),
            Self::Whole(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    fn add_reads(&self, reads: &mut Reads) {
        match self {
            Self::Plain(_) => {}
            Self::Whole(variable) => variable.add_reads(reads),
            Self::Text(parts) => {
                for part in parts {
                    match part {
                        Part::Plain(_) => {}
                        Part::Variable(variable) => variable.add_reads(reads),
                    }
                }
            }
            Self::List(nodes) => nodes.iter().for_each(|node| node.add_reads(reads)),
            Self::Object(members) => {
                for (key, node) in members {
                    key.node.add_reads(reads);
                    node.add_reads(reads);
                }
            }
        }
    }

    fn fill<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, SubstitutionError> {
        Ok(match self {
            Self::Plain(value) => Cow::Borrowed(value),
            Self::Whole(variable) => variable.value(scope, budget)?,
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Plain(plain) => push(&mut text, plain, budget)?,
                        Part::Variable(variable) => {
                            push(&mut text, &variable.text(scope, budget)?, budget)?;
                        }
                    }
                }
                Cow::Owned(Value::String(text))
            }
            Self::List(nodes) => {
                let each = nodes.iter().map(|node| owned(node.fill(scope, budget)?, budget));
                Cow::Owned(Value::Array(each.collect::<Result<_, _>>()?))
            }
            Self::Object(members) => {
                let mut object = Map::new();
                for (key, node) in members {
                    let name = match key.node.fill(scope, budget)?.as_ref() {
                        Value::String(name) => name.clone(),
                        Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::Array(_)
                        | Value::Object(_) => {
                            return Err(SubstitutionError::KeyNotText { key: key.written.clone() });
                        }
                    };
                    let member = owned(node.fill(scope, budget)?, budget)?;
                    if object.contains_key(&name) {
                        return Err(SubstitutionError::KeyTwice { key: shown(&name) });
                    }
                    object.insert(name, member);
                }
                Cow::Owned(Value::Object(object))
            }
        })
    }
}

impl Variable {
    fn parse(body: &Body, path: &str) -> Result<Self, TemplateError> {
        let query = match body.pieces.as_slice() {
            [Piece::Plain(text)] if text == "@" => return Err(TemplateError::Position),
            [Piece::Plain(text)] => Query::Fixed(Expression::parse(text)?),
            pieces => Query::Nested(Nested::parse(pieces, path)?),
        };
        Ok(Self { path: path.to_owned(), query, shallow: body.shallow })
    }

    fn add_reads(&self, reads: &mut Reads) {
        match &self.query {
            Query::Fixed(expression) => reads.add(expression.reads()),
            Query::Nested(nested) => reads.add(nested.reads()),
        }
    }

    /// The result with its JSON type.
    fn value<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, Value>, SubstitutionError> {
        match &self.query {
            Query::Fixed(expression) => expression.search(scope, budget).map_err(|cause| {
                let expression = shown(expression.text());
                SubstitutionError::Query { expression, path: self.path.clone(), cause }
            }),
            Query::Nested(nested) => nested.value(&self.path, scope, budget).map(Cow::Owned),
        }
    }

    /// The result as text.
    fn text<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Cow<'a, str>, SubstitutionError> {
        let value = self.value(scope, budget)?;
        if self.shallow && !matches!(value.as_ref(), Value::String(_) | Value::Null) {
            let expression = self.written();
            return Err(SubstitutionError::NotText { expression, path: self.path.clone() });
        }
        as_text(value, budget)
    }

    /// The expression as the policy writes it, cut.
    fn written(&self) -> String {
        match &self.query {
            Query::Fixed(expression) => shown(expression.text()),
            Query::Nested(nested) => shown(nested.written()),
        }
    }
}

/// A string as it is, anything else as compact JSON.
fn as_text<'a>(value: Cow<'a, Value>, budget: &mut Budget) -> Result<Cow<'a, str>, SubstitutionError> {
    match value {
        Cow::Borrowed(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Cow::Owned(Value::String(text)) => Ok(Cow::Owned(text)),
        value @ (Cow::Borrowed(_) | Cow::Owned(_)) => {
            json_text(&value, budget).map(Cow::Owned).map_err(SubstitutionError::Budget)
        }
    }
}

fn push(text: &mut String, more: &str, budget: &mut Budget) -> Result<(), SubstitutionError> {
    budget.output(more.len()).map_err(SubstitutionError::Budget)?;
    text.push_str(more);
    Ok(())
}

/// A value of its own, charged where it is copied.
fn owned(value: Cow<'_, Value>, budget: &mut Budget) -> Result<Value, SubstitutionError> {
    if let Cow::Borrowed(value) = &value {
        budget.output(weight(value)).map_err(SubstitutionError::Budget)?;
    }
    Ok(value.into_owned())
}

/// About how many bytes a copy takes.
pub(super) fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => {
                members.iter().map(|(key, member)| size_of::<String>() + key.len() + weight(member)).sum()
            }
        }
}

/// At most `limit` characters of a text, in one line.
pub(super) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    let long = text.char_indices().nth(limit).map(|(at, _)| at);
    let shown = text.get(..long.unwrap_or(text.len())).unwrap_or(text);
    if long.is_none() && !shown.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let end = if long.is_some() { "…" } else { "" };
    let line = shown.chars().map(|found| if found.is_control() { ' ' } else { found });
    Cow::Owned(line.collect::<String>() + end)
}

/// As much of an expression as messages show.
fn shown(expression: &str) -> String {
    cut(expression, SHOWN).into_owned()
}

/// Enough to recognise an expression by.
const SHOWN: usize = 256;

#[cfg(test)]
mod tests;
