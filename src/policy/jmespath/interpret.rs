//! Walks the tree of an expression.
//!
//! Selecting a key that an object does not have is an error ([`EvaluationError::UnknownKey`]). On the way
//! up it becomes null, exactly as in the fork that Kyverno pins, in:
//! - both sides of comparisons and of `||`, all but the last of `&&`, the operand of `!`;
//! - each stage of a pipe, arguments of functions, elements of multi-selects;
//! - the left side of `[*]` and slices, and in every projection the element's expression and the filter's
//!   predicate.
//!
//! It goes on through `a.b` and `a[0]`. The left sides of `[]`, `[?…]` and `.*` turn all errors into null
//! upstream; here they do so with unknown keys and with wrong types only. A document that does not parse,
//! or a reached limit, must not pass for nothing. A key of anything but an object is null without an error.
//!
//! The recursion is bounded by the depth of the tree, which `syntax` bounds.

use std::borrow::Cow;

use jmespath::ast::Comparator;
use serde_json::Value;

use super::EvaluationError;
use super::budget::Budget;
use super::datum::{Datum, Fields};
use super::functions::{Arguments, Function, Given, LastPattern, Random};
use super::scope::Scope;
use super::syntax::{Argument, Node};

pub(super) type Evaluated<'a> = Result<Datum<'a>, EvaluationError>;

/// One evaluation: what it starts from and what it may still cost.
#[derive(Debug)]
pub(super) struct Interpreter<'a, 'b> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) budget: &'b mut Budget,
    /// What `random` has left to give.
    pub(super) random: Random,
    /// The expression that the functions of regular expressions used last.
    pub(super) pattern: LastPattern,
}

/// The value of `node` on `input`; the time is the scope's.
pub(super) fn search<'a>(
    node: &'a Node,
    input: &Datum<'a>,
    scope: &'a Scope<'a>,
    budget: &mut Budget,
) -> Result<Cow<'a, Value>, EvaluationError> {
    let (random, pattern) = (Random::seeded(scope.now()), LastPattern::default());
    let mut interpreter = Interpreter { scope, budget, random, pattern };
    let value = interpreter.evaluate(node, input)?;
    value.into_json(budget)
}

impl<'a> Interpreter<'a, '_> {
    /// The value of `node` on `input`.
    pub(super) fn evaluate(&mut self, node: &'a Node, input: &Datum<'a>) -> Evaluated<'a> {
        self.budget.step(1)?;
        match node {
            Node::Current => Ok(input.clone()),
            Node::Field(name) => field(name, input),
            Node::Index(index) => Ok(element(*index, input)),
            Node::Slice { start, stop, step } => self.slice([*start, *stop], *step, input),
            Node::Literal(value) => Ok(Datum::Json(value)),
            Node::Path(nodes) => self.path(nodes, input),
            Node::Pipe(nodes) => self.pipe(nodes, input),
            Node::Or(nodes) => self.first_truthy(nodes, input),
            Node::And(nodes) => self.first_falsy(nodes, input),
            Node::Not(node) => Ok(Datum::Bool(self.lenient(node, input)?.is_falsy())),
            Node::Comparison { comparator, left, right } => self.compare(comparator, left, right, input),
            Node::MultiList(nodes) => self.multi_list(nodes, input),
            Node::MultiHash(fields) => self.multi_hash(fields, input),
            Node::Projection { base, each } => {
                let base = self.lenient(base, input)?;
                self.project(&base, None, each)
            }
            Node::Filter { base, predicate, each } => {
                let base = self.forgiving(base, input)?;
                self.project(&base, Some(predicate), each)
            }
            Node::Values { base, each } => self.values(base, each, input),
            Node::Flatten(base) => self.flatten(base, input),
            Node::Call { function, arguments } => self.call(function, arguments, input),
        }
    }

    /// The value, with null for an unknown key.
    pub(super) fn lenient(&mut self, node: &'a Node, input: &Datum<'a>) -> Evaluated<'a> {
        match self.evaluate(node, input) {
            Err(EvaluationError::UnknownKey { .. }) => Ok(Datum::Null),
            other => other,
        }
    }

    /// The value, with null for the errors that upstream has in the same cases.
    fn forgiving(&mut self, node: &'a Node, input: &Datum<'a>) -> Evaluated<'a> {
        match self.evaluate(node, input) {
            Err(error) if error.is_upstreams() => Ok(Datum::Null),
            other => other,
        }
    }

    fn path(&mut self, nodes: &'a [Node], input: &Datum<'a>) -> Evaluated<'a> {
        let mut value = input.clone();
        for node in nodes {
            value = self.evaluate(node, &value)?;
        }
        Ok(value)
    }

    fn pipe(&mut self, nodes: &'a [Node], input: &Datum<'a>) -> Evaluated<'a> {
        let mut value = input.clone();
        for node in nodes {
            value = self.lenient(node, &value)?;
        }
        Ok(value)
    }

    fn first_truthy(&mut self, nodes: &'a [Node], input: &Datum<'a>) -> Evaluated<'a> {
        let mut value = Datum::Null;
        for node in nodes {
            value = self.lenient(node, input)?;
            if !value.is_falsy() {
                break;
            }
        }
        Ok(value)
    }

    fn first_falsy(&mut self, nodes: &'a [Node], input: &Datum<'a>) -> Evaluated<'a> {
        let Some((last, rest)) = nodes.split_last() else { return Ok(Datum::Null) };
        for node in rest {
            let value = self.lenient(node, input)?;
            if value.is_falsy() {
                return Ok(value);
            }
        }
        self.evaluate(last, input)
    }

    fn compare(
        &mut self,
        comparator: &Comparator,
        left: &'a Node,
        right: &'a Node,
        input: &Datum<'a>,
    ) -> Evaluated<'a> {
        let left = self.lenient(left, input)?;
        let right = self.lenient(right, input)?;
        let order: fn(&f64, &f64) -> bool = match comparator {
            Comparator::Equal => return Ok(Datum::Bool(left.equals(&right, self.budget)?)),
            Comparator::NotEqual => return Ok(Datum::Bool(!left.equals(&right, self.budget)?)),
            Comparator::LessThan => f64::lt,
            Comparator::LessThanEqual => f64::le,
            Comparator::GreaterThan => f64::gt,
            Comparator::GreaterThanEqual => f64::ge,
        };
        Ok(match (left.as_number(), right.as_number()) {
            (Some(left), Some(right)) => Datum::Bool(order(&left, &right)),
            _ => Datum::Null,
        })
    }

    fn multi_list(&mut self, nodes: &'a [Node], input: &Datum<'a>) -> Evaluated<'a> {
        if input.is_null() {
            return Ok(Datum::Null);
        }
        let mut elements = Vec::with_capacity(nodes.len());
        for node in nodes {
            let value = self.lenient(node, input)?;
            self.keep(&mut elements, value)?;
        }
        Ok(Datum::list(elements))
    }

    fn multi_hash(&mut self, wanted: &'a [(String, Node)], input: &Datum<'a>) -> Evaluated<'a> {
        if input.is_null() {
            return Ok(Datum::Null);
        }
        let mut fields = Fields::new();
        for (name, node) in wanted {
            let value = self.lenient(node, input)?;
            self.set(&mut fields, Cow::Borrowed(name), value)?;
        }
        Ok(Datum::object(fields))
    }

    /// The values of `each` on the elements, nulls left out; null if `base` is no array.
    fn project(&mut self, base: &Datum<'a>, predicate: Option<&'a Node>, each: &'a Node) -> Evaluated<'a> {
        let Some(list) = base.as_list() else { return Ok(Datum::Null) };
        let mut elements = Vec::new();
        for element in list.iter() {
            if let Some(predicate) = predicate
                && self.lenient(predicate, &element)?.is_falsy()
            {
                continue;
            }
            let value = self.lenient(each, &element)?;
            if !value.is_null() {
                self.keep(&mut elements, value)?;
            }
        }
        Ok(Datum::list(elements))
    }

    fn values(&mut self, base: &'a Node, each: &'a Node, input: &Datum<'a>) -> Evaluated<'a> {
        let base = self.forgiving(base, input)?;
        let Some(object) = base.as_object() else { return Ok(Datum::Null) };
        let mut elements = Vec::new();
        for (_, field) in object.iter() {
            let value = self.lenient(each, &field)?;
            if !value.is_null() {
                self.keep(&mut elements, value)?;
            }
        }
        Ok(Datum::list(elements))
    }

    fn flatten(&mut self, base: &'a Node, input: &Datum<'a>) -> Evaluated<'a> {
        let base = self.forgiving(base, input)?;
        let Some(list) = base.as_list() else { return Ok(Datum::Null) };
        let mut elements = Vec::new();
        for element in list.iter() {
            if let Some(inner) = element.as_list() {
                for element in inner.iter() {
                    self.keep(&mut elements, element)?;
                }
            } else {
                self.keep(&mut elements, element)?;
            }
        }
        Ok(Datum::list(elements))
    }

    fn slice(&mut self, ends: [Option<i64>; 2], step: i64, input: &Datum<'a>) -> Evaluated<'a> {
        let Some(list) = input.as_list() else { return Ok(Datum::Null) };
        if step == 0 {
            return Err(EvaluationError::SliceStep);
        }
        let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
        // The last index before the first element and the first behind the last.
        let (lowest, highest) = if step < 0 { (-1, length - 1) } else { (0, length) };
        let cap = |end: i64| if end < 0 { (end + length).max(lowest) } else { end.min(highest) };
        let [start, stop] = ends;
        let start = start.map_or(if step < 0 { highest } else { lowest }, cap);
        let stop = stop.map_or(if step < 0 { lowest } else { highest }, cap);
        let mut elements = Vec::new();
        let mut index = start;
        while if step > 0 { index < stop } else { index > stop } {
            let Some(element) = usize::try_from(index).ok().and_then(|index| list.element(index)) else {
                break;
            };
            self.keep(&mut elements, element)?;
            index += step;
        }
        Ok(Datum::list(elements))
    }

    fn call(
        &mut self,
        function: &'static Function,
        arguments: &'a [Argument],
        input: &Datum<'a>,
    ) -> Evaluated<'a> {
        let mut given = Vec::with_capacity(arguments.len());
        for argument in arguments {
            given.push(match argument {
                Argument::Value(node) => Given::Value(self.lenient(node, input)?),
                Argument::Expression(node) => Given::Expression(node),
            });
        }
        function.call(&Arguments::new(function.name, given), self)
    }

    /// Adds an element to a list that is being made.
    pub(super) fn keep(
        &mut self,
        elements: &mut Vec<Datum<'a>>,
        element: Datum<'a>,
    ) -> Result<(), EvaluationError> {
        self.budget.step(1)?;
        self.budget.output(size_of::<Datum<'_>>())?;
        elements.push(element);
        Ok(())
    }

    /// Sets a field of an object that is being made.
    pub(super) fn set(
        &mut self,
        fields: &mut Fields<'a>,
        name: Cow<'a, str>,
        value: Datum<'a>,
    ) -> Result<(), EvaluationError> {
        self.budget.step(1)?;
        self.budget.output(size_of::<(Cow<'_, str>, Datum<'_>)>() + name.len())?;
        fields.insert(name, value);
        Ok(())
    }
}

fn field<'a>(name: &str, input: &Datum<'a>) -> Evaluated<'a> {
    let Some(object) = input.as_object() else { return Ok(Datum::Null) };
    object.field(name).ok_or_else(|| EvaluationError::UnknownKey { key: name.to_owned() })
}

fn element<'a>(index: i64, input: &Datum<'a>) -> Datum<'a> {
    let Some(list) = input.as_list() else { return Datum::Null };
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let index = if index < 0 { index + length } else { index };
    usize::try_from(index).ok().and_then(|index| list.element(index)).unwrap_or(Datum::Null)
}
