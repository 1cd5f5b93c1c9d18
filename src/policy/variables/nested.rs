//! A variable whose expression holds other variables: the one place where data becomes part of an expression.
//!
//! What is put in must not change what the expression is. Where it stands, known at load from the policy's
//! own text, says how:
//!
//! | where | what is put in |
//! |---|---|
//! | in a raw string `'…'` | the result as text, whatever it holds: the string becomes a JSON literal, encoded anew |
//! | in a quoted name `"…"` | a text, encoded as JSON |
//! | elsewhere, JSON literals included | a text that is a plain name (`[A-Za-z_][A-Za-z0-9_]*`), or an integer |
//!
//! Anything else has no value. A backslash before a quote is refused at load: parsers disagree about where
//! such a string ends. The results of inner variables are never scanned for variables.
//!
//! At load the expression is tried with samples in these places, so that a misspelt function is an error of
//! the policy. Where data only ever becomes raw strings, what the expression reads is known too.

use std::borrow::Cow;

use serde_json::Value;

use super::text::{Body, Piece};
use super::{Part, SubstitutionError, TemplateError, Variable, owned, push, shown};
use crate::policy::jmespath::{Budget, Expression, ExpressionError, Problem, Reads, Scope};

/// An expression that is put together for each verdict.
#[derive(Debug, Clone)]
pub(super) struct Nested {
    written: String,
    chunks: Vec<Chunk>,
    reads: Reads,
}

#[derive(Debug, Clone)]
enum Chunk {
    /// The policy's own text.
    Own(String),
    /// A variable that becomes a name or an integer.
    Word(Variable),
    /// The inside of a raw string that holds variables.
    Raw(Vec<Part>),
    /// The inside of a quoted name that holds variables.
    Name(Vec<Part>),
}

/// Why an expression with variables in it cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum NestingError {
    /// `\'`, `\"` or a backslash before a backtick.
    #[error("a backslash before a quote cannot stand in an expression that holds variables")]
    BackslashQuote,
    /// A quote without its pair.
    #[error("a quote is not closed")]
    Unclosed,
}

impl Nested {
    pub(super) fn parse(pieces: &[Piece], path: &str) -> Result<Self, TemplateError> {
        let written = written(pieces);
        let failed = |cause| TemplateError::Nested { text: shown(&written), cause };
        let mut builder = Builder { chunks: Vec::new(), quote: None };
        for piece in pieces {
            match piece {
                Piece::Plain(text) => builder.text(text).map_err(failed)?,
                Piece::Variable(body) => builder.variable(Variable::parse(body, path)?),
            }
        }
        if builder.quote.is_some() {
            return Err(failed(NestingError::Unclosed));
        }
        let reads = reads(&builder.chunks);
        let nested = Self { written, chunks: builder.chunks, reads };
        nested.try_out()?;
        Ok(nested)
    }

    /// What its value depends on.
    pub(super) const fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether it can be an expression at all.
    fn try_out(&self) -> Result<(), ExpressionError> {
        let tried = ["a", "0"].map(|word| Expression::parse(&sample(&self.chunks, "`\"a\"`", word)));
        let [Err(error), Err(_)] = tried else { return Ok(()) };
        let words = self.chunks.iter().any(|chunk| matches!(chunk, Chunk::Word(_)));
        // Whether it fits the grammar may depend on which word stands where.
        if words && matches!(error.problem, Problem::Grammar { .. }) {
            return Ok(());
        }
        Err(ExpressionError { text: self.written.clone(), problem: error.problem })
    }

    /// The expression as the policy writes it.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    pub(super) fn value(
        &self,
        path: &str,
        scope: &Scope<'_>,
        budget: &mut Budget,
    ) -> Result<Value, SubstitutionError> {
        let mut text = String::new();
        for chunk in &self.chunks {
            match chunk {
                Chunk::Own(own) => push(&mut text, own, budget)?,
                Chunk::Word(variable) => {
                    let value = variable.value(scope, budget)?;
                    let word = word(&value).ok_or_else(|| SubstitutionError::Unsafe {
                        expression: variable.written(),
                        path: path.to_owned(),
                    })?;
                    push(&mut text, &word, budget)?;
                }
                Chunk::Raw(parts) => {
                    let string = Value::String(filled(parts, scope, budget)?);
                    // Encoded, no backtick is left that could end the literal.
                    let literal = format!("`{}`", string.to_string().replace('`', "\\u0060"));
                    push(&mut text, &literal, budget)?;
                }
                Chunk::Name(parts) => {
                    push(&mut text, &name(parts, path, scope, budget)?, budget)?;
                }
            }
        }
        let expression = Expression::parse(&text).map_err(|cause| SubstitutionError::Incorrect {
            expression: shown(&self.written),
            path: path.to_owned(),
            cause,
        })?;
        let found = expression.search(scope, budget).map_err(|cause| SubstitutionError::Query {
            expression: shown(&self.written),
            path: path.to_owned(),
            cause,
        })?;
        owned(found, budget)
    }
}

/// What the policy's text has said so far.
struct Builder {
    chunks: Vec<Chunk>,
    /// The quote that is open, and what is inside of it.
    quote: Option<(char, Vec<Part>)>,
}

impl Builder {
    fn text(&mut self, text: &str) -> Result<(), NestingError> {
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character == '\\' && characters.peek().is_some_and(|next| QUOTES.contains(next)) {
                return Err(NestingError::BackslashQuote);
            }
            match &mut self.quote {
                Some((open, _)) if *open == character => self.close(),
                Some((_, parts)) => add(parts, character),
                None if QUOTES.contains(&character) => self.quote = Some((character, Vec::new())),
                None => self.own(character.encode_utf8(&mut [0; 4])),
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: Variable) {
        match &mut self.quote {
            Some((_, parts)) => parts.push(Part::Variable(variable)),
            None => self.chunks.push(Chunk::Word(variable)),
        }
    }

    fn close(&mut self) {
        let Some((quote, parts)) = self.quote.take() else { return };
        let holds_variables = parts.iter().any(|part| matches!(part, Part::Variable(_)));
        match quote {
            '\'' if holds_variables => self.chunks.push(Chunk::Raw(parts)),
            '"' if holds_variables => self.chunks.push(Chunk::Name(parts)),
            quote => {
                self.own(quote.encode_utf8(&mut [0; 4]));
                for part in parts {
                    match part {
                        Part::Plain(text) => self.own(&text),
                        Part::Variable(variable) => self.chunks.push(Chunk::Word(variable)),
                    }
                }
                self.own(quote.encode_utf8(&mut [0; 4]));
            }
        }
    }

    fn own(&mut self, text: &str) {
        if let Some(Chunk::Own(last)) = self.chunks.last_mut() {
            last.push_str(text);
        } else {
            self.chunks.push(Chunk::Own(text.to_owned()));
        }
    }
}

fn add(parts: &mut Vec<Part>, character: char) {
    if let Some(Part::Plain(last)) = parts.last_mut() {
        last.push(character);
    } else {
        parts.push(Part::Plain(character.to_string()));
    }
}

/// The expression with something in the place of each variable.
fn sample(chunks: &[Chunk], raw: &str, word: &str) -> String {
    let each = chunks.iter().map(|chunk| match chunk {
        Chunk::Own(own) => own,
        Chunk::Word(_) => word,
        Chunk::Raw(_) => raw,
        Chunk::Name(_) => "\"a\"",
    });
    each.collect()
}

/// What an expression of these chunks depends on: anything where data becomes a name.
fn reads(chunks: &[Chunk]) -> Reads {
    let mut reads = Reads::none();
    for chunk in chunks {
        match chunk {
            Chunk::Own(_) => {}
            Chunk::Word(_) | Chunk::Name(_) => return Reads::everything(),
            Chunk::Raw(parts) => {
                for part in parts {
                    match part {
                        Part::Plain(_) => {}
                        Part::Variable(variable) => variable.add_reads(&mut reads),
                    }
                }
            }
        }
    }
    // A field in its place, not a text: whether a function reads the clock may depend on the text.
    match Expression::parse(&sample(chunks, PLACEHOLDER, "")) {
        Ok(expression) => reads.add(expression.reads()),
        Err(_) => return Reads::everything(),
    }
    reads
}

/// A plain name or an integer.
fn word(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => {
            let mut bytes = text.bytes();
            let name = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let digits = !text.is_empty()
                && text.len() <= INTEGER_LIMIT
                && text.bytes().all(|byte| byte.is_ascii_digit());
            (name || digits).then_some(Cow::Borrowed(text))
        }
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(Cow::Owned(number.to_string())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The inside of a raw string.
fn filled(parts: &[Part], scope: &Scope<'_>, budget: &mut Budget) -> Result<String, SubstitutionError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Plain(plain) => push(&mut text, plain, budget)?,
            Part::Variable(variable) => push(&mut text, &variable.text(scope, budget)?, budget)?,
        }
    }
    Ok(text)
}

/// A quoted name. The policy's own text in it is JSON already.
fn name(
    parts: &[Part],
    path: &str,
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<String, SubstitutionError> {
    let mut text = String::from("\"");
    for part in parts {
        match part {
            Part::Plain(plain) => push(&mut text, plain, budget)?,
            Part::Variable(variable) => match variable.value(scope, budget)?.as_ref() {
                value @ Value::String(_) => {
                    let encoded = value.to_string();
                    let inside = encoded.strip_prefix('"').and_then(|encoded| encoded.strip_suffix('"'));
                    push(&mut text, inside.unwrap_or_default(), budget)?;
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    let expression = variable.written();
                    return Err(SubstitutionError::Unsafe { expression, path: path.to_owned() });
                }
            },
        }
    }
    text.push('"');
    Ok(text)
}

/// Pieces as the policy writes them, but for blanks.
fn written(pieces: &[Piece]) -> String {
    let each = pieces.iter().map(|piece| match piece {
        Piece::Plain(text) => text.clone(),
        Piece::Variable(Body { pieces, shallow }) => {
            format!("{{{{{} {} }}}}", if *shallow { "-" } else { "" }, written(pieces))
        }
    });
    each.collect()
}

const QUOTES: [char; 3] = ['\'', '"', '`'];
/// A name that no data has, and that no policy reads.
const PLACEHOLDER: &str = "\"\\u0001\"";
/// As many digits as a 64-bit number has.
const INTEGER_LIMIT: usize = 19;
