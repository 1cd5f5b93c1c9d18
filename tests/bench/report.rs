//! What a measurement gives: samples, and rows of a Markdown table with a bar each.

use std::{fmt, time::Duration};

/// One figure beside its bar.
pub(crate) struct Row {
    what: String,
    figure: String,
    bar: String,
    verdict: &'static str,
}

impl Row {
    /// A figure that must be at most `bar`.
    pub(crate) fn at_most(
        what: impl Into<String>,
        value: f64,
        figure: impl Into<String>,
        bar: f64,
        unit: &str,
    ) -> Self {
        let verdict = if value <= bar { "PASS" } else { "MISS" };
        Self { what: what.into(), figure: figure.into(), bar: format!("≤ {bar}{unit}"), verdict }
    }

    /// A figure that has no bar of its own.
    pub(crate) fn plain(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self { what: what.into(), figure: figure.into(), bar: "none".to_owned(), verdict: "" }
    }

    /// What could not be measured, and why.
    pub(crate) fn missing(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), figure: why.into(), bar: String::new(), verdict: "not measured" }
    }

    /// The same time twice, through the gate and without it, at one quantile.
    pub(crate) fn ratio(what: &str, quantile: f64, through: &Samples, direct: &Samples, bar: f64) -> Self {
        let (through, direct) = (through.at(quantile), direct.at(quantile));
        let ratio = through.as_secs_f64() / direct.as_secs_f64();
        let figure = format!("{ratio:.2} ({} / {})", time(through), time(direct));
        Self::at_most(format!("{what}, p{:.0}", quantile * 100.0), ratio, figure, bar, "")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "| {} | {} | {} | {} |", self.what, self.figure, self.bar, self.verdict)
    }
}

/// Times, in order of size.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn at(&self, quantile: f64) -> Duration {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of a small list"
        )]
        let index = ((self.0.len() - 1) as f64 * quantile).round() as usize;
        self.0[index]
    }

    pub(crate) fn median(&self) -> Duration {
        self.at(0.5)
    }
}

/// A time with three figures.
pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..10.0 => format!("{micros:.2} µs"),
        10.0..1_000.0 => format!("{micros:.0} µs"),
        1_000.0..100_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.0} ms", micros / 1e3),
    }
}

pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
