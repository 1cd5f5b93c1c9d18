//! One text of a policy, cut into plain pieces and variables.
//!
//! What is a variable is upstream's rule: `{{ … }}` that no backslash stands before, whose inside may
//! hold single braces (`{{ a.{b: c} }}`), not nested ones, and other variables, which are read first.
//! `\{{` stands for the two braces themselves. Where upstream finds no variable behind `{{` it keeps the
//! text as it is, and a condition silently compares with something else than was meant: here that is
//! [`Malformed`].

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it is meant, `\{{` already unescaped.
    Plain(String),
    /// `{{ … }}`.
    Variable(Body),
}

/// The inside of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Its pieces, without blanks at both ends and without the `-` of `{{- … }}`.
    pub(super) pieces: Vec<Piece>,
    /// `{{- … }}`: the result must be a text where there is other text around it.
    pub(super) shallow: bool,
}

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum Malformed {
    /// No `}}`.
    #[error("`{{{{` is not closed (write `\\{{{{` where it is no variable)")]
    Unclosed,
    /// Nothing in it.
    #[error("a variable is empty")]
    Empty,
    /// `{ { } }`, or a brace that does not pair.
    #[error("braces inside a variable must pair and must not be nested (write another expression)")]
    Braces,
    /// `\{{` inside of a variable, `\{{{`, or `{{{{`.
    #[error("`\\{{{{` inside a variable, `\\{{{{{{` and `{{{{{{{{` can be read in several ways")]
    Ambiguous,
    /// Variables in variables, too many levels of them.
    #[error("variables are nested more than {DEPTH_LIMIT} levels deep")]
    Depth,
}

/// Cuts `text`.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Malformed> {
    let mut reader = Reader { rest: text };
    let mut pieces = Pieces::default();
    while !reader.rest.is_empty() {
        if reader.take(ESCAPED) {
            if reader.rest.starts_with('{') {
                return Err(Malformed::Ambiguous);
            }
            pieces.text(OPEN);
        } else if reader.take(OPEN) {
            pieces.0.push(Piece::Variable(reader.variable(0)?));
        } else {
            reader.one(&mut pieces);
        }
    }
    Ok(pieces.0)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// One character as it is.
    fn one(&mut self, pieces: &mut Pieces) {
        let mut characters = self.rest.chars();
        if let Some(character) = characters.next() {
            pieces.text(character.encode_utf8(&mut [0; 4]));
        }
        self.rest = characters.as_str();
    }

    /// Behind `{{`, up to and with its `}}`.
    fn variable(&mut self, depth: usize) -> Result<Body, Malformed> {
        if depth == DEPTH_LIMIT {
            return Err(Malformed::Depth);
        }
        if self.rest.starts_with(OPEN) {
            return Err(Malformed::Ambiguous);
        }
        let mut pieces = Pieces::default();
        while !self.take(CLOSE) {
            if self.rest.starts_with('{') && !self.rest.starts_with(OPEN) {
                self.one(&mut pieces);
                while !self.rest.starts_with('}') {
                    self.inside(depth, &mut pieces)?;
                }
                self.one(&mut pieces);
            } else {
                self.inside(depth, &mut pieces)?;
            }
        }
        body(pieces.0)
    }

    /// What may stand both in a variable and between its single braces.
    fn inside(&mut self, depth: usize, pieces: &mut Pieces) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Err(Malformed::Unclosed)
        } else if self.rest.starts_with(ESCAPED) {
            Err(Malformed::Ambiguous)
        } else if self.take(OPEN) {
            pieces.0.push(Piece::Variable(self.variable(depth + 1)?));
            Ok(())
        } else if self.rest.starts_with(['{', '}']) {
            Err(Malformed::Braces)
        } else {
            self.one(pieces);
            Ok(())
        }
    }
}

/// Takes blanks at both ends away, and the `-` of a shallow variable.
fn body(mut pieces: Vec<Piece>) -> Result<Body, Malformed> {
    trim_start(&mut pieces);
    let mut shallow = false;
    if let Some(Piece::Plain(text)) = pieces.first_mut()
        && let Some(rest) = text.strip_prefix('-')
    {
        *text = rest.to_owned();
        shallow = true;
        trim_start(&mut pieces);
    }
    if let Some(Piece::Plain(text)) = pieces.last_mut() {
        text.truncate(text.trim_end().len());
        if text.is_empty() {
            pieces.pop();
        }
    }
    if pieces.is_empty() { Err(Malformed::Empty) } else { Ok(Body { pieces, shallow }) }
}

fn trim_start(pieces: &mut Vec<Piece>) {
    if let Some(Piece::Plain(text)) = pieces.first_mut() {
        *text = text.trim_start().to_owned();
        if text.is_empty() {
            pieces.remove(0);
        }
    }
}

/// Pieces with no two plain ones in a row.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, text: &str) {
        if let Some(Piece::Plain(last)) = self.0.last_mut() {
            last.push_str(text);
        } else {
            self.0.push(Piece::Plain(text.to_owned()));
        }
    }
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const ESCAPED: &str = "\\{{";
/// Deeper nesting is not seen in policies.
const DEPTH_LIMIT: usize = 4;
