//! Functions of times.
//!
//! Times are RFC 3339 unless a function takes a Go layout. Now is the scope's time, in UTC: upstream's
//! `time_now` is in the zone of its machine. Years are 0 to 9999; a result beyond is an error that nothing
//! swallows.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::Kind::Text;
use super::{Arguments, Clock, Function, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};
use crate::policy::scalar::{self, GoDuration, GoTime};

pub(super) const FUNCTIONS: &[Function] = &[
    row("time_add", &[&[Text], &[Text]], add),
    row("time_after", &[&[Text], &[Text]], after),
    row("time_before", &[&[Text], &[Text]], before),
    row("time_between", &[&[Text], &[Text], &[Text]], between),
    row("time_diff", &[&[Text], &[Text]], diff),
    row("time_now", &[], now).reading(Clock::Always),
    row("time_now_utc", &[], now).reading(Clock::Always),
    row("time_parse", &[&[Text], &[Text]], parse),
    row("time_since", &[&[Text], &[Text], &[Text]], since).reading(Clock::IfEmpty(2)),
    row("time_to_cron", &[&[Text]], to_cron),
    row("time_truncate", &[&[Text], &[Text]], truncate),
    row("time_utc", &[&[Text]], utc),
];

fn add<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let sum = time(arguments, 0)?.plus(duration(arguments, 1)?);
    printed(arguments, sum, run)
}

fn truncate<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let truncated = time(arguments, 0)?.truncated(duration(arguments, 1)?);
    printed(arguments, truncated, run)
}

fn utc<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let utc = time(arguments, 0)?.in_utc();
    printed(arguments, utc, run)
}

fn now<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let now = current(arguments, run)?;
    printed(arguments, Some(now), run)
}

fn before<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Ok(Datum::Bool(time(arguments, 0)? < time(arguments, 1)?))
}

fn after<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Ok(Datum::Bool(time(arguments, 0)? > time(arguments, 1)?))
}

/// The ends themselves are not between.
fn between<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (time, start, end) = (time(arguments, 0)?, time(arguments, 1)?, time(arguments, 2)?);
    Ok(Datum::Bool(time.cmp(&start) == Ordering::Greater && time.cmp(&end) == Ordering::Less))
}

fn diff<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (start, end) = (time(arguments, 0)?, time(arguments, 1)?);
    Datum::text(&end.since(start).to_string(), run.budget)
}

/// From the first time to the second, or to now; an empty layout is RFC 3339.
fn since<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let layout = arguments.text(0)?;
    let at =
        |index| if layout.is_empty() { time(arguments, index) } else { laid_out(arguments, layout, index) };
    let start = at(1)?;
    let end = if arguments.text(2)?.is_empty() { current(arguments, run)? } else { at(2)? };
    Datum::text(&end.since(start).to_string(), run.budget)
}

/// A time in RFC 3339. A layout that is a number means seconds since 1970.
fn parse<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let layout = arguments.text(0)?;
    if scalar::parse_int(layout).is_none() {
        let time = laid_out(arguments, layout, 1)?;
        return printed(arguments, Some(time), run);
    }
    let text = arguments.text(1)?;
    let seconds = scalar::parse_int(text)
        .ok_or_else(|| arguments.failed(format!("`{}` is no number of seconds", super::cut(text))))?;
    printed(arguments, GoTime::from_unix(seconds), run)
}

fn to_cron<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let civil = time(arguments, 0)?.civil();
    let (minute, hour, day, month) = (civil.minute(), civil.hour(), civil.day(), civil.month());
    let weekday = civil.weekday().to_sunday_zero_offset();
    Datum::text(&format!("{minute} {hour} {day} {month} {weekday}"), run.budget)
}

fn time(arguments: &Arguments<'_>, index: usize) -> Result<GoTime, EvaluationError> {
    let text = arguments.text(index)?;
    GoTime::parse_rfc3339(text)
        .ok_or_else(|| arguments.failed(format!("`{}` is no time of RFC 3339", super::cut(text))))
}

fn laid_out(arguments: &Arguments<'_>, layout: &str, index: usize) -> Result<GoTime, EvaluationError> {
    let text = arguments.text(index)?;
    GoTime::parse(layout, text).ok_or_else(|| {
        arguments.failed(format!("`{}` is no time of the layout `{}`", super::cut(text), super::cut(layout)))
    })
}

fn duration(arguments: &Arguments<'_>, index: usize) -> Result<GoDuration, EvaluationError> {
    let text = arguments.text(index)?;
    GoDuration::parse(text).ok_or_else(|| arguments.failed(format!("`{}` is no duration", super::cut(text))))
}

fn current(arguments: &Arguments<'_>, run: &Interpreter<'_, '_>) -> Result<GoTime, EvaluationError> {
    let now = Timestamp::try_from(run.scope.now()).ok().and_then(GoTime::from_timestamp);
    now.ok_or_else(|| arguments.refused(YEARS))
}

fn printed<'a>(
    arguments: &Arguments<'a>,
    time: Option<GoTime>,
    run: &mut Interpreter<'a, '_>,
) -> Evaluated<'a> {
    let time = time.ok_or_else(|| arguments.refused(YEARS))?;
    Datum::text(&time.to_string(), run.budget)
}

const YEARS: &str = "gives a year that is not between 0 and 9999";
