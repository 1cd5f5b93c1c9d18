//! What the value of an expression depends on, found without evaluating it.
//!
//! The caller keys its verdicts by this, so the answer may name too much and never too little. Each node
//! is followed with what it is evaluated on: the root, or something taken from it. Where the root itself
//! gets out (`@`, a list that holds it, an argument), everything is read.

use std::collections::BTreeSet;

use super::syntax::{Argument, Node};

/// What an expression depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Reads {
    /// Names of the root object.
    pub(in crate::policy) names: Names,
    /// The time of the verdict.
    pub(in crate::policy) clock: Clock,
}

/// Names of the root object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum Names {
    /// These and no others, present or not.
    Only(BTreeSet<String>),
    /// Any, also such as the expression does not name.
    Everything,
}

/// Whether the time of the verdict is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) enum Clock {
    /// It may be.
    Read,
    /// It is not.
    Ignored,
}

pub(super) fn of(node: &Node) -> Reads {
    let mut reads = Reads::none();
    let value = reads.follow(node, Origin::Root);
    reads.escape(value);
    reads
}

/// What a node is evaluated on, or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The root object, or possibly it.
    Root,
    /// A part of it whose name is already known to be read, or nothing of it.
    Part,
}

impl Reads {
    /// Of what reads nothing.
    pub(in crate::policy) const fn none() -> Self {
        Self { names: Names::Only(BTreeSet::new()), clock: Clock::Ignored }
    }

    /// Of what may read anything.
    pub(in crate::policy) const fn everything() -> Self {
        Self { names: Names::Everything, clock: Clock::Read }
    }

    /// Adds what something else depends on.
    pub(in crate::policy) fn add(&mut self, other: &Self) {
        match (&mut self.names, &other.names) {
            (Names::Only(names), Names::Only(more)) => names.extend(more.iter().cloned()),
            (names, Names::Everything) => *names = Names::Everything,
            (Names::Everything, Names::Only(_)) => {}
        }
        if other.clock == Clock::Read {
            self.clock = Clock::Read;
        }
    }

    fn follow(&mut self, node: &Node, input: Origin) -> Origin {
        match node {
            Node::Current => return input,
            Node::Field(name) => {
                if let (Origin::Root, Names::Only(names)) = (input, &mut self.names) {
                    names.insert(name.clone());
                }
            }
            // Of an object both are null, whatever it holds.
            Node::Index(_) | Node::Slice { .. } | Node::Literal(_) => {}
            Node::Path(nodes) | Node::Pipe(nodes) => {
                return nodes.iter().fold(input, |origin, node| self.follow(node, origin));
            }
            Node::Or(nodes) | Node::And(nodes) => {
                let mut result = Origin::Part;
                for node in nodes {
                    if self.follow(node, input) == Origin::Root {
                        // Its being empty is asked for.
                        self.escape(Origin::Root);
                        result = Origin::Root;
                    }
                }
                return result;
            }
            Node::Not(node) | Node::Flatten(node) => self.used(node, input),
            Node::Comparison { left, right, .. } => {
                self.used(left, input);
                self.used(right, input);
            }
            Node::MultiList(nodes) => nodes.iter().for_each(|node| self.used(node, input)),
            Node::MultiHash(fields) => fields.iter().for_each(|(_, node)| self.used(node, input)),
            Node::Projection { base, each } | Node::Values { base, each } => {
                self.used(base, input);
                self.used(each, Origin::Part);
            }
            Node::Filter { base, predicate, each } => {
                self.used(base, input);
                self.used(predicate, Origin::Part);
                self.used(each, Origin::Part);
            }
            Node::Call { function, arguments } => {
                if function.reads_clock(arguments) {
                    self.clock = Clock::Read;
                }
                for argument in arguments {
                    match argument {
                        Argument::Value(node) => self.used(node, input),
                        Argument::Expression(node) => self.used(node, Origin::Part),
                    }
                }
            }
        }
        Origin::Part
    }

    /// Follows a node whose value is used as a whole.
    fn used(&mut self, node: &Node, input: Origin) {
        let value = self.follow(node, input);
        self.escape(value);
    }

    fn escape(&mut self, value: Origin) {
        if value == Origin::Root {
            self.names = Names::Everything;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::jmespath::Expression;

    fn names(text: &str) -> Option<Vec<String>> {
        match Expression::parse(text).unwrap().reads().names.clone() {
            Names::Only(names) => Some(names.into_iter().collect()),
            Names::Everything => None,
        }
    }

    #[test]
    fn names_of_the_root_are_told_from_other_keys() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a.b.c", &["a"]),
            ("a[0].b", &["a"]),
            ("a || b", &["a", "b"]),
            ("a && b", &["a", "b"]),
            ("!a", &["a"]),
            ("a == b", &["a", "b"]),
            ("a | b", &["a"]),
            ("@ | a", &["a"]),
            ("@.a", &["a"]),
            ("(a || b).c", &["a", "b"]),
            ("[a, b.x][].c", &["a", "b"]),
            ("{x: a, y: b} | x", &["a", "b"]),
            ("a[?b == c].d", &["a"]),
            ("a.*.b", &["a"]),
            ("a[].b[].c", &["a"]),
            ("length(a)", &["a"]),
            ("map(&b, a)", &["a"]),
            ("sort_by(a, &b)[0]", &["a"]),
            ("'text'", &[]),
            ("`{\"a\": 1}`.a", &[]),
            ("[0]", &[]),
        ] {
            assert_eq!(names(text), Some(expected.iter().map(|name| (*name).to_owned()).collect()), "{text}");
        }
    }

    #[test]
    fn the_root_as_a_whole_is_everything() {
        for text in [
            "@",
            "*",
            "keys(@)",
            "[@]",
            "{a: @}",
            "@ == a",
            "!@",
            "a || @",
            "(@ || b).a",
            "@[]",
            "[@, b].a",
            "* | a",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }
}
