//! Functions of numbers, quantities and durations.
//!
//! An operand is a number, or a text that is a Kubernetes quantity, or a text that is a Go duration: tried
//! in this order, so `"1"` and `"5m"` are quantities. Both operands of a sum are of one kind; products and
//! quotients mix with numbers. A result that its type cannot carry is an error that nothing swallows:
//! upstream's infinities and wrapped sums do not decide anything here.

use super::Kind::{Any, Array, Number, Numbers};
use super::{Arguments, Function, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};
use crate::policy::scalar::{self, ArithmeticError, GoDuration, Quantity};

pub(super) const FUNCTIONS: &[Function] = &[
    row("abs", &[&[Number]], abs),
    row("add", &[&[Any], &[Any]], add),
    row("avg", &[&[Numbers]], avg),
    row("ceil", &[&[Number]], ceil),
    row("divide", &[&[Any], &[Any]], divide),
    row("floor", &[&[Number]], floor),
    row("modulo", &[&[Any], &[Any]], modulo),
    row("multiply", &[&[Any], &[Any]], multiply),
    row("round", &[&[Number], &[Number]], round),
    row("subtract", &[&[Any], &[Any]], subtract),
    row("sum", &[&[Array]], sum),
    row("to_number", &[&[Any]], to_number),
];

fn abs<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Datum::number(arguments.number(0)?.abs())
}

fn ceil<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Datum::number(arguments.number(0)?.ceil())
}

fn floor<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Datum::number(arguments.number(0)?.floor())
}

/// Of nothing there is no average, and Go's is not a number.
fn avg<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let list = arguments.list(0)?;
    run.budget.step(list.len())?;
    let (mut total, mut count) = (0.0, 0.0);
    for number in list.iter().filter_map(|element| element.as_number()) {
        total += number;
        count += 1.0;
    }
    Datum::number(total / count)
}

fn round<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (number, places) = (arguments.number(0)?, arguments.number(1)?);
    let places = scalar::integral(places)
        .ok_or_else(|| arguments.failed("Non-integer argument(s) passed for round off"))?;
    if places < 0 {
        return Err(arguments.failed("argument is out of bounds"));
    }
    let shift = 10_f64.powi(i32::try_from(places).unwrap_or(i32::MAX));
    Datum::number((number * shift).round() / shift)
}

/// The number that a text is; null for everything else.
fn to_number<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let value = arguments.value(0)?;
    let number = value.as_number().or_else(|| scalar::parse_float(value.as_text()?));
    Ok(number.map_or(Datum::Null, Datum::Number))
}

fn sum<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mut elements = arguments.list(0)?.iter();
    let Some(first) = elements.next() else {
        return Err(arguments.failed("at least one element in the array is required"));
    };
    // A single element is not looked at, as upstream.
    elements.try_fold(first, |total, element| {
        run.budget.step(1)?;
        added(arguments, &total, &element, run)
    })
}

fn add<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    added(arguments, arguments.value(0)?, arguments.value(1)?, run)
}

fn added<'a>(
    arguments: &Arguments<'a>,
    left: &Datum<'a>,
    right: &Datum<'a>,
    run: &mut Interpreter<'a, '_>,
) -> Evaluated<'a> {
    let result = match (Operand::of(arguments, left)?, Operand::of(arguments, right)?) {
        (Operand::Number(left), Operand::Number(right)) => Ok(Operand::Number(left + right)),
        (Operand::Quantity(left), Operand::Quantity(right)) => left.plus(right).map(Operand::Quantity),
        (Operand::Duration(left), Operand::Duration(right)) => left.plus(right).map(Operand::Duration),
        _ => return Err(mismatch(arguments)),
    };
    finished(arguments, result, run)
}

fn subtract<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let result = match operands(arguments)? {
        (Operand::Number(left), Operand::Number(right)) => Ok(Operand::Number(left - right)),
        (Operand::Quantity(left), Operand::Quantity(right)) => left.minus(right).map(Operand::Quantity),
        (Operand::Duration(left), Operand::Duration(right)) => left.minus(right).map(Operand::Duration),
        _ => return Err(mismatch(arguments)),
    };
    finished(arguments, result, run)
}

fn multiply<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let result = match operands(arguments)? {
        (Operand::Number(left), Operand::Number(right)) => Ok(Operand::Number(left * right)),
        (Operand::Quantity(quantity), Operand::Number(factor))
        | (Operand::Number(factor), Operand::Quantity(quantity)) => {
            quantity.times(factor).map(Operand::Quantity)
        }
        (Operand::Duration(duration), Operand::Number(factor))
        | (Operand::Number(factor), Operand::Duration(duration)) => {
            duration.times(factor).map(Operand::Duration)
        }
        _ => return Err(mismatch(arguments)),
    };
    finished(arguments, result, run)
}

fn divide<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let result = match operands(arguments)? {
        (Operand::Number(_), Operand::Number(0.0)) => Err(ArithmeticError::ZeroDivisor),
        (Operand::Number(left), Operand::Number(right)) => Ok(Operand::Number(left / right)),
        (Operand::Quantity(left), Operand::Quantity(right)) => left.ratio(right).map(Operand::Number),
        (Operand::Quantity(left), Operand::Number(right)) => left.divided_by(right).map(Operand::Quantity),
        (Operand::Duration(left), Operand::Duration(right)) => left.ratio(right).map(Operand::Number),
        (Operand::Duration(left), Operand::Number(right)) => left.divided_by(right).map(Operand::Duration),
        _ => return Err(mismatch(arguments)),
    };
    finished(arguments, result, run)
}

fn modulo<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let result = match operands(arguments)? {
        (Operand::Number(left), Operand::Number(right)) => remainder(left, right).map(Operand::Number),
        (Operand::Quantity(left), Operand::Quantity(right)) => left.remainder(right).map(Operand::Quantity),
        (Operand::Duration(left), Operand::Duration(right)) => left.remainder(right).map(Operand::Duration),
        _ => return Err(mismatch(arguments)),
    };
    finished(arguments, result, run)
}

/// Of whole numbers; with the sign of the first.
fn remainder(left: f64, right: f64) -> Result<f64, ArithmeticError> {
    if scalar::integral(left).is_none() || scalar::integral(right).is_none() {
        return Err(ArithmeticError::NotIntegral);
    }
    if right == 0.0 {
        return Err(ArithmeticError::ZeroDivisor);
    }
    Ok(left % right)
}

/// What is computed with.
#[derive(Clone, Copy)]
enum Operand {
    Number(f64),
    Quantity(Quantity),
    Duration(GoDuration),
}

impl Operand {
    fn of(arguments: &Arguments<'_>, value: &Datum<'_>) -> Result<Self, EvaluationError> {
        if let Some(number) = value.as_number() {
            return Ok(Self::Number(number));
        }
        let text = value.as_text();
        let quantity = text.and_then(Quantity::parse).map(Self::Quantity);
        let duration = || text.and_then(GoDuration::parse).map(Self::Duration);
        quantity.or_else(duration).ok_or_else(|| arguments.failed("invalid operand"))
    }
}

fn operands(arguments: &Arguments<'_>) -> Result<(Operand, Operand), EvaluationError> {
    let left = Operand::of(arguments, arguments.value(0)?)?;
    Ok((left, Operand::of(arguments, arguments.value(1)?)?))
}

fn mismatch(arguments: &Arguments<'_>) -> EvaluationError {
    arguments.failed("Types mismatch")
}

fn finished<'a>(
    arguments: &Arguments<'a>,
    result: Result<Operand, ArithmeticError>,
    run: &mut Interpreter<'a, '_>,
) -> Evaluated<'a> {
    match result {
        Ok(Operand::Number(number)) => Datum::number(number),
        Ok(Operand::Quantity(quantity)) => Datum::text(&quantity.to_string(), run.budget),
        Ok(Operand::Duration(duration)) => Datum::text(&duration.to_string(), run.budget),
        Err(ArithmeticError::ZeroDivisor) => Err(arguments.failed("Zero divisor passed")),
        Err(ArithmeticError::NotIntegral) => {
            Err(arguments.failed("Non-integer argument(s) passed for modulo"))
        }
        Err(ArithmeticError::OutOfRange) => {
            Err(arguments.refused("gives a number that is too large or too fine"))
        }
    }
}
