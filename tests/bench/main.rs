//! The benchmark behind `make bench`: pullgate beside containerd alone, and beside cosign.
//!
//! A program, not a test: it prints one row of a Markdown table for each bar, `PASS` or `MISS`.
//! Ratios are taken within one run, the two sides in turn. What cannot be measured is a row too.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "it ends by a panic and says why; its output is its purpose"
)]

#[allow(dead_code, unused_imports, unused_macros, reason = "the benchmark needs a part of the tests' kit")]
#[path = "../it/kit/mod.rs"]
mod kit;

mod cache;
mod delay;
mod load;
mod node;
mod policies;
mod report;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kit::Node;
use report::Row;

type Measurement = fn(&Node) -> Vec<Row>;

/// In this order: ImageStatus comes first, while containerd knows one image.
const ALL: [(&str, Measurement); 14] = [
    ("status", node::status),
    ("pull", node::pull),
    ("flight", node::flight),
    ("list", node::list),
    ("memory", node::memory),
    ("start", node::start),
    ("hostile", load::hostile),
    ("many", load::many),
    ("million", cache::million),
    ("verify", verify::verify),
    ("kinds", verify::kinds),
    ("delay", delay::delay),
    ("rules", policies::rules),
    ("sbom", policies::sbom),
];

fn main() {
    // cargo says --bench.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, entries] = arguments.as_slice()
        && flag == cache::FLAG
    {
        return cache::look_up(entries.parse().expect("a number of entries"));
    }
    println!("| what | figure | bar | |\n|---|---|---|---|");
    kit::on_containerd("2", "benchmark", measure);
    if asked_for("lookup") {
        show("lookup", cache::lookup);
    }
}

fn measure(node: &Node) {
    for (name, measurement) in ALL {
        if asked_for(name) {
            show(name, || measurement(node));
        }
    }
}

/// Whether a measurement was named; without any name all are.
fn asked_for(name: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).peekable();
    names.peek().is_none() || names.any(|asked| asked == name)
}

/// One that fails must not cost the others.
fn show(name: &str, measurement: impl FnOnce() -> Vec<Row>) {
    let rows = catch_unwind(AssertUnwindSafe(measurement));
    for row in rows.unwrap_or_else(|_| vec![Row::missing(name, "failed; the reason is above")]) {
        println!("{row}");
    }
}
