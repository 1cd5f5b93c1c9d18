//! Functions of arrays and objects.
//!
//! Objects are walked in the order of their names, where Go's order is random. Elements are equal as
//! JSON is; upstream crashes where it compares two arrays or objects in `contains`.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Kind::{Any, Array, Number, Numbers, Object, Reference, Text, Texts};
use super::{Arguments, Function, FunctionError, OrderError, repeating, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::datum::{Datum, Fields, View};
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[
    row("contains", &[&[Array, Text], &[Any]], contains),
    row("items", &[&[Object, Array], &[Text], &[Text]], items),
    row("keys", &[&[Object]], keys),
    row("label_match", &[&[Object], &[Object]], label_match),
    row("length", &[&[Text, Array, Object]], length),
    row("lookup", &[&[Object, Array], &[Text, Number]], lookup),
    row("map", &[&[Reference], &[Array]], map),
    row("max", &[&[Numbers, Texts]], max),
    row("max_by", &[&[Array], &[Reference]], max_by),
    repeating("merge", &[&[Object]], merge),
    row("min", &[&[Numbers, Texts]], min),
    row("min_by", &[&[Array], &[Reference]], min_by),
    repeating("not_null", &[&[Any]], not_null),
    row("object_from_lists", &[&[Array], &[Array]], object_from_lists),
    row("reverse", &[&[Array, Text]], reverse),
    row("sort", &[&[Texts, Numbers]], sort),
    row("sort_by", &[&[Array], &[Reference]], sort_by),
    row("to_array", &[&[Any]], to_array),
    row("type", &[&[Any]], type_name),
    row("values", &[&[Object]], values),
];

fn contains<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let wanted = arguments.value(1)?;
    if let Some(text) = arguments.value(0)?.as_text() {
        return Ok(Datum::Bool(wanted.as_text().is_some_and(|part| text.contains(part))));
    }
    for element in arguments.list(0)?.iter() {
        if element.equals(wanted, run.budget)? {
            return Ok(Datum::Bool(true));
        }
    }
    Ok(Datum::Bool(false))
}

fn items<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (key_name, value_name) = (arguments.text(1)?, arguments.text(2)?);
    let mut pairs = Vec::new();
    let mut pair = |run: &mut Interpreter<'a, '_>, key: Datum<'a>, value: Datum<'a>| {
        let mut fields = Fields::new();
        run.set(&mut fields, Cow::Owned(key_name.to_owned()), key)?;
        run.set(&mut fields, Cow::Owned(value_name.to_owned()), value)?;
        run.keep(&mut pairs, Datum::object(fields))
    };
    if let Some(object) = arguments.value(0)?.as_object() {
        for (name, value) in object.iter() {
            let name = Datum::text(&name, run.budget)?;
            pair(run, name, value)?;
        }
    } else {
        for (index, value) in arguments.list(0)?.iter().enumerate() {
            pair(run, count(index)?, value)?;
        }
    }
    Ok(Datum::list(pairs))
}

fn keys<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mut names = Vec::new();
    for (name, _) in arguments.object(0)?.iter() {
        let name = Datum::text(&name, run.budget)?;
        run.keep(&mut names, name)?;
    }
    Ok(Datum::list(names))
}

fn values<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mut elements = Vec::new();
    for (_, value) in arguments.object(0)?.iter() {
        run.keep(&mut elements, value)?;
    }
    Ok(Datum::list(elements))
}

/// Whether every field of the first object is in the second.
fn label_match<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let labels = arguments.object(1)?;
    for (name, wanted) in arguments.object(0)?.iter() {
        match labels.field(&name) {
            Some(label) if label.equals(&wanted, run.budget)? => {}
            _ => return Ok(Datum::Bool(false)),
        }
    }
    Ok(Datum::Bool(true))
}

fn length<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let value = arguments.value(0)?;
    if let Some(text) = value.as_text() {
        return count(text.chars().count());
    }
    count(match value.as_object() {
        Some(object) => object.len(),
        None => arguments.list(0)?.len(),
    })
}

/// The field or the element; null if there is none.
fn lookup<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (collection, key) = (arguments.value(0)?, arguments.value(1)?);
    match (collection.view(), key.view()) {
        (View::Object(object), View::Text(name)) => Ok(object.field(name).unwrap_or(Datum::Null)),
        (View::Object(_), _) => Err(arguments.not(1, "String")),
        (_, View::Number(index)) => {
            let list = arguments.list(0)?;
            if index.fract() != 0.0 {
                let reason = format!("argument #2: expected an integer number but got: {index}");
                return Err(arguments.failed(reason));
            }
            if !(0.0..9_007_199_254_740_992.0).contains(&index) {
                return Ok(Datum::Null);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, and between 0 and 2^53"
            )]
            let index = index as u64;
            Ok(usize::try_from(index).ok().and_then(|index| list.element(index)).unwrap_or(Datum::Null))
        }
        _ => Err(arguments.not(1, "Number")),
    }
}

fn map<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let node = arguments.expression(0)?;
    let mut mapped = Vec::new();
    for element in arguments.list(1)?.iter() {
        let value = run.lenient(node, &element)?;
        run.keep(&mut mapped, value)?;
    }
    Ok(Datum::list(mapped))
}

fn merge<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mut merged = Fields::new();
    for index in 0..arguments.given.len() {
        for (name, value) in arguments.object(index)?.iter() {
            run.set(&mut merged, name, value)?;
        }
    }
    Ok(Datum::object(merged))
}

fn not_null<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Ok(arguments.values().find(|value| !value.is_null()).cloned().unwrap_or(Datum::Null))
}

fn object_from_lists<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (names, values) = (arguments.list(0)?, arguments.list(1)?);
    let mut fields = Fields::new();
    for (index, name) in names.iter().enumerate() {
        let name = if let View::Bool(name) = name.view() {
            name.to_string()
        } else {
            super::text_or_number(&name).ok_or_else(|| arguments.not(0, "StringArray"))?.into_owned()
        };
        let value = values.element(index).unwrap_or(Datum::Null);
        run.set(&mut fields, Cow::Owned(name), value)?;
    }
    Ok(Datum::object(fields))
}

fn reverse<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    if let Some(text) = arguments.value(0)?.as_text() {
        run.budget.output(text.len())?;
        return Ok(Datum::Text(text.chars().rev().collect::<String>().into()));
    }
    let mut elements = Vec::new();
    for element in arguments.list(0)?.iter().rev() {
        run.keep(&mut elements, element)?;
    }
    Ok(Datum::list(elements))
}

fn to_array<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let value = arguments.value(0)?.clone();
    if value.as_list().is_some() {
        return Ok(value);
    }
    let mut elements = Vec::new();
    run.keep(&mut elements, value)?;
    Ok(Datum::list(elements))
}

fn type_name<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let name = match arguments.value(0)?.view() {
        View::Null => "null",
        View::Bool(_) => "boolean",
        View::Number(_) => "number",
        View::Text(_) => "string",
        View::List(_) => "array",
        View::Object(_) => "object",
    };
    Datum::text(name, run.budget)
}

fn max<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    extreme(arguments, run, Ordering::Greater)
}

fn min<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    extreme(arguments, run, Ordering::Less)
}

/// The first of the largest or smallest elements; null if there are none.
fn extreme<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>, wanted: Ordering) -> Evaluated<'a> {
    let list = arguments.list(0)?;
    run.budget.step(list.len())?;
    let best =
        list.iter().reduce(|best, element| if order(&element, &best) == wanted { element } else { best });
    Ok(best.unwrap_or(Datum::Null))
}

fn max_by<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    extreme_by(arguments, run, Ordering::Greater)
}

fn min_by<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    extreme_by(arguments, run, Ordering::Less)
}

fn extreme_by<'a>(
    arguments: &Arguments<'a>,
    run: &mut Interpreter<'a, '_>,
    wanted: Ordering,
) -> Evaluated<'a> {
    let (list, node) = (arguments.list(0)?, arguments.expression(1)?);
    let mut elements = list.iter();
    let Some(mut best) = elements.next() else { return Ok(Datum::Null) };
    if elements.len() == 0 {
        return Ok(best);
    }
    let mut best_key = run.lenient(node, &best)?;
    let kind = KeyKind::of(&best_key)?;
    for element in elements {
        let key = run.lenient(node, &element)?;
        if !kind.fits(&key) {
            return Err(FunctionError::Order(kind.mismatch()).into());
        }
        if order(&key, &best_key) == wanted {
            (best, best_key) = (element, key);
        }
    }
    Ok(best)
}

fn sort<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let keyed = arguments.list(0)?.iter().map(|element| (element.clone(), element)).collect();
    sorted(keyed, run)
}

fn sort_by<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (list, node) = (arguments.list(0)?, arguments.expression(1)?);
    if list.len() < 2 {
        return Ok(arguments.value(0)?.clone());
    }
    let mut kind = None;
    let mut keyed = Vec::new();
    for element in list.iter() {
        let key = match (run.evaluate(node, &element), kind) {
            (Ok(key), _) => key,
            (Err(EvaluationError::UnknownKey { .. }), None) => Datum::Null,
            (Err(error), Some(_)) if error.is_upstreams() => {
                return Err(FunctionError::Order(OrderError::Sort).into());
            }
            (Err(error), _) => return Err(error),
        };
        let first = match kind {
            Some(first) => first,
            None => *kind.insert(KeyKind::of(&key)?),
        };
        if !first.fits(&key) {
            return Err(FunctionError::Order(OrderError::Sort).into());
        }
        run.budget.step(1)?;
        run.budget.output(size_of::<(Datum<'_>, Datum<'_>)>())?;
        keyed.push((key, element));
    }
    sorted(keyed, run)
}

/// The elements in the order of their keys, equal ones as they were.
fn sorted<'a>(mut keyed: Vec<(Datum<'a>, Datum<'a>)>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    // A stable merge sort compares at most n log n times.
    let rounds = usize::try_from(keyed.len().checked_ilog2().unwrap_or(0)).unwrap_or(usize::MAX);
    run.budget.step(keyed.len().saturating_mul(rounds))?;
    keyed.sort_by(|(left, _), (right, _)| order(left, right));
    let mut elements = Vec::new();
    for (_, element) in keyed {
        run.keep(&mut elements, element)?;
    }
    Ok(Datum::list(elements))
}

/// What the keys of one call are.
#[derive(Clone, Copy)]
enum KeyKind {
    Number,
    Text,
}

impl KeyKind {
    fn of(key: &Datum<'_>) -> Result<Self, EvaluationError> {
        match key.view() {
            View::Number(_) => Ok(Self::Number),
            View::Text(_) => Ok(Self::Text),
            View::Null | View::Bool(_) | View::List(_) | View::Object(_) => {
                Err(FunctionError::Order(OrderError::First).into())
            }
        }
    }

    fn fits(self, key: &Datum<'_>) -> bool {
        matches!((self, key.view()), (Self::Number, View::Number(_)) | (Self::Text, View::Text(_)))
    }

    const fn mismatch(self) -> OrderError {
        match self {
            Self::Number => OrderError::Number,
            Self::Text => OrderError::Text,
        }
    }
}

/// Numbers by value, texts by bytes; the callers have checked that both are of one kind.
fn order(left: &Datum<'_>, right: &Datum<'_>) -> Ordering {
    match (left.view(), right.view()) {
        (View::Number(left), View::Number(right)) => left.total_cmp(&right),
        (View::Text(left), View::Text(right)) => left.cmp(right),
        _ => Ordering::Equal,
    }
}

/// A count as a number.
fn count<'a>(count: usize) -> Evaluated<'a> {
    #[expect(clippy::cast_precision_loss, reason = "nothing in memory has 2^53 elements")]
    let number = count as f64;
    Datum::number(number)
}
