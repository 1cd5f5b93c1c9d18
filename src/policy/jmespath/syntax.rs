//! From text to tree: limits first, then the grammar, then what the grammar leaves open.
//!
//! The `jmespath` crate's parser is recursive, so the length and the nesting of the text are bounded
//! before it is called. Its tree is then turned into one whose chains (`a.b.c`, `a || b || c`, `a | b`) are
//! lists, so that its depth is bounded as well, and in which functions are resolved.
//!
//! The crate has one node for `a.b` and `a | b`, which differ here (a pipe swallows unknown keys); the
//! character at the node's offset tells them apart.

use jmespath::ErrorReason;
use jmespath::ast::{Ast, Comparator, KeyValuePair};
use serde_json::Value;

use super::functions::{self, Arity, Function};

/// One step of an expression.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// `@`.
    Current,
    /// `name`.
    Field(String),
    /// `[2]`, `[-1]`.
    Index(i64),
    /// `[a:b:c]`.
    Slice { start: Option<i64>, stop: Option<i64>, step: i64 },
    /// A raw text or a JSON value.
    Literal(Value),
    /// `a.b[0].c`: each is evaluated on the value of the one before.
    Path(Vec<Self>),
    /// `a | b`.
    Pipe(Vec<Self>),
    /// `a || b`.
    Or(Vec<Self>),
    /// `a && b`.
    And(Vec<Self>),
    /// `!a`.
    Not(Box<Self>),
    /// `a == b`.
    Comparison { comparator: Comparator, left: Box<Self>, right: Box<Self> },
    /// `[a, b]`.
    MultiList(Vec<Self>),
    /// `{a: b}`.
    MultiHash(Vec<(String, Self)>),
    /// `a[*].b`, `a[1:2].b`.
    Projection { base: Box<Self>, each: Box<Self> },
    /// `a.*.b`.
    Values { base: Box<Self>, each: Box<Self> },
    /// `a[?p].b`.
    Filter { base: Box<Self>, predicate: Box<Self>, each: Box<Self> },
    /// The left side of `a[].b`.
    Flatten(Box<Self>),
    /// `f(a, &b)`.
    Call { function: &'static Function, arguments: Vec<Argument> },
}

/// What stands between the parentheses of a call.
#[derive(Debug, Clone)]
pub(super) enum Argument {
    /// Evaluated before the call.
    Value(Node),
    /// `&a`: evaluated by the function, for each element.
    Expression(Node),
}

impl Argument {
    /// The text that the argument is, whatever it is evaluated on.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Value(Node::Literal(literal)) => literal.as_str(),
            Self::Value(_) | Self::Expression(_) => None,
        }
    }
}

/// A text that is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("incorrect query {}: {problem}", shown(.text))]
pub(in crate::policy) struct ExpressionError {
    /// The whole text.
    pub(in crate::policy) text: String,
    /// What is wrong with it.
    pub(in crate::policy) problem: Problem,
}

/// What is wrong with the text of an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum Problem {
    /// Nothing there.
    #[error("invalid query (nil)")]
    Empty,
    /// Refused before it is parsed.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Refused before it is parsed: each of them may nest.
    #[error("it has more than {limit} brackets and operators that nest")]
    TooManyForks {
        /// The limit.
        limit: usize,
    },
    /// Refused before it is evaluated.
    #[error("it is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Does not fit the grammar.
    #[error("{reason} (at character {offset})")]
    Grammar {
        /// The parser's words.
        reason: String,
        /// Where it stopped.
        offset: usize,
    },
    /// No function has this name.
    #[error("unknown function: {name}")]
    UnknownFunction {
        /// As it is written.
        name: String,
    },
    /// More or fewer arguments than the function takes.
    #[error("incorrect number of args: `{function}` takes {arity}, not {found}")]
    Arguments {
        /// The function.
        function: &'static str,
        /// What it takes.
        arity: Arity,
        /// What is written.
        found: usize,
    },
    /// `&a` where no function evaluates it.
    #[error("an expression reference (`&`) can only be the argument of a function that takes one")]
    Reference,
    /// A literal that the function refuses whatever the data is.
    #[error("function `{function}` {reason}")]
    Literal {
        /// The function.
        function: &'static str,
        /// What is wrong, as a predicate of the function.
        reason: String,
    },
    /// The function evaluates an expression itself and is given a value.
    #[error("argument #{position} of `{function}` must be an expression reference (`&`)")]
    NoReference {
        /// The function.
        function: &'static str,
        /// Which argument, from 1.
        position: usize,
    },
}

/// Parses a text that is already trimmed.
pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    tree(text).map_err(|problem| ExpressionError { text: text.to_owned(), problem })
}

fn tree(text: &str) -> Result<Node, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > TEXT_LIMIT {
        return Err(Problem::TooLong { limit: TEXT_LIMIT });
    }
    if forks(text) > FORK_LIMIT {
        return Err(Problem::TooManyForks { limit: FORK_LIMIT });
    }
    let ast = jmespath::parse(text).map_err(|error| Problem::Grammar {
        reason: match error.reason {
            ErrorReason::Parse(reason) => reason,
            ErrorReason::Runtime(reason) => reason.to_string(),
        },
        offset: error.offset,
    })?;
    Reader { text }.node(ast, 0)
}

/// How many characters there are at which the parser recurses: brackets, prefixes and projections.
/// Its depth cannot be more than a few calls for each.
fn forks(text: &str) -> usize {
    let mut count = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' | b'"' | b'`' => {
                while let Some(inner) = bytes.next() {
                    if inner == b'\\' {
                        bytes.next();
                    } else if inner == byte {
                        break;
                    }
                }
            }
            b'(' | b'[' | b'{' | b'!' | b'&' | b'*' => count += 1,
            _ => {}
        }
    }
    count
}

struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn node(&self, ast: Ast, depth: usize) -> Result<Node, Problem> {
        // Comparisons and flattenings nest on the left, where the parser does not recurse.
        if depth > DEPTH_LIMIT {
            return Err(Problem::TooDeep { limit: DEPTH_LIMIT });
        }
        let boxed = |ast: Box<Ast>| self.node(*ast, depth + 1).map(Box::new);
        Ok(match ast {
            Ast::Identity { .. } => Node::Current,
            Ast::Field { name, .. } => Node::Field(name),
            Ast::Index { idx, .. } => Node::Index(idx.into()),
            Ast::Slice { start, stop, step, .. } => {
                Node::Slice { start: start.map(i64::from), stop: stop.map(i64::from), step: step.into() }
            }
            Ast::Literal { value, offset } => {
                Node::Literal(serde_json::to_value(&*value).map_err(|error| Problem::Grammar {
                    reason: format!("unusable literal: {error}"),
                    offset,
                })?)
            }
            Ast::Subexpr { .. } | Ast::Or { .. } | Ast::And { .. } => self.chain(ast, depth)?,
            Ast::Not { node, .. } => Node::Not(boxed(node)?),
            Ast::Comparison { comparator, lhs, rhs, .. } => {
                Node::Comparison { comparator, left: boxed(lhs)?, right: boxed(rhs)? }
            }
            Ast::MultiList { elements, .. } => {
                let nodes: Result<_, _> =
                    elements.into_iter().map(|element| self.node(element, depth + 1)).collect();
                Node::MultiList(nodes?)
            }
            Ast::MultiHash { elements, .. } => {
                let field = |KeyValuePair { key, value }| Ok((key, self.node(value, depth + 1)?));
                let fields: Result<_, _> = elements.into_iter().map(field).collect();
                Node::MultiHash(fields?)
            }
            Ast::Projection { lhs, rhs, .. } => match (*lhs, *rhs) {
                (Ast::ObjectValues { node, .. }, each) => {
                    Node::Values { base: boxed(node)?, each: boxed(Box::new(each))? }
                }
                (base, Ast::Condition { predicate, then, .. }) => Node::Filter {
                    base: boxed(Box::new(base))?,
                    predicate: boxed(predicate)?,
                    each: boxed(then)?,
                },
                (base, each) => {
                    Node::Projection { base: boxed(Box::new(base))?, each: boxed(Box::new(each))? }
                }
            },
            Ast::Flatten { node, .. } => Node::Flatten(boxed(node)?),
            Ast::Function { name, args, .. } => self.call(&name, args, depth)?,
            Ast::Expref { .. } => return Err(Problem::Reference),
            // The parser makes these only inside of a projection.
            Ast::Condition { offset, .. } | Ast::ObjectValues { offset, .. } => {
                return Err(Problem::Grammar { reason: "misplaced projection".to_owned(), offset });
            }
        })
    }

    /// A left-leaning chain of one kind, as a list.
    fn chain(&self, mut rest: Ast, depth: usize) -> Result<Node, Problem> {
        let (link, mut links) = (self.link(&rest), Vec::new());
        while self.link(&rest) == link
            && let Ast::Subexpr { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } | Ast::And { lhs, rhs, .. } = rest
        {
            links.push(self.node(*rhs, depth + 1)?);
            rest = *lhs;
        }
        links.push(self.node(rest, depth + 1)?);
        links.reverse();
        Ok(match link {
            Some(Link::Or) => Node::Or(links),
            Some(Link::And) => Node::And(links),
            Some(Link::Pipe) => Node::Pipe(links),
            Some(Link::Path) | None => path(links),
        })
    }

    /// What joins the sides of a chain's node, told by what stands at its offset.
    fn link(&self, ast: &Ast) -> Option<Link> {
        if let Ast::Subexpr { offset, .. } = ast {
            let pipe = self.text.as_bytes().get(*offset) == Some(&b'|');
            return Some(if pipe { Link::Pipe } else { Link::Path });
        }
        if matches!(ast, Ast::Or { .. }) {
            return Some(Link::Or);
        }
        matches!(ast, Ast::And { .. }).then_some(Link::And)
    }

    fn call(&self, name: &str, args: Vec<Ast>, depth: usize) -> Result<Node, Problem> {
        let function =
            functions::find(name).ok_or_else(|| Problem::UnknownFunction { name: name.to_owned() })?;
        let arity = function.arity();
        if !arity.takes(args.len()) {
            return Err(Problem::Arguments { function: function.name, arity, found: args.len() });
        }
        let mut arguments = Vec::with_capacity(args.len());
        for (index, ast) in args.into_iter().enumerate() {
            let wants_reference = function.takes_reference(index);
            let argument = match (ast, wants_reference) {
                (Ast::Expref { ast, .. }, true) => Argument::Expression(self.node(*ast, depth + 1)?),
                (_, true) => {
                    return Err(Problem::NoReference { function: function.name, position: index + 1 });
                }
                (ast, false) => Argument::Value(self.node(ast, depth + 1)?),
            };
            arguments.push(argument);
        }
        if let Some(reason) = function.unusable(&arguments) {
            return Err(Problem::Literal { function: function.name, reason });
        }
        Ok(Node::Call { function, arguments })
    }
}

/// The crate reads `a[0:1].b` as `a` and then a projection of the slice; it is a projection of `a[0:1]`, which
/// swallows what is unknown in `a`.
fn path(links: Vec<Node>) -> Node {
    let mut nodes = Vec::with_capacity(links.len());
    for link in links {
        let of_slice = matches!(&link, Node::Projection { base, .. } if matches!(**base, Node::Slice { .. }));
        if of_slice && let Node::Projection { base, each } = link {
            nodes.push(*base);
            let base = Box::new(Node::Path(std::mem::take(&mut nodes)));
            nodes.push(Node::Projection { base, each });
        } else {
            nodes.push(link);
        }
    }
    Node::Path(nodes)
}

/// What joins the links of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Path,
    Pipe,
    Or,
    And,
}

/// The text for a message: one line, cut.
fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|found| if found.is_control() { ' ' } else { found });
    let mut cut: String = characters.by_ref().take(TEXT_SHOWN).collect();
    if characters.next().is_some() {
        cut.push('…');
    }
    cut
}

/// Longer than any expression in the public collections of policies by a factor of ten.
const TEXT_LIMIT: usize = 8 << 10;
/// Keeps the parser's recursion within half a megabyte of stack.
const FORK_LIMIT: usize = 256;
/// Keeps the interpreter's recursion within half a megabyte of stack.
const DEPTH_LIMIT: usize = 64;
/// Enough to recognise an expression by.
const TEXT_SHOWN: usize = 256;
