//! What a pull comes to while a registry fails, for each way to fail and all that a node may know of the
//! image: the tables of `docs/outages.md`, cell by cell, before a real registry.
//!
//! The tables follow from rules D4, O1, O2, S4, S5, C2 and E1. In every cell also: an image that nobody
//! signed does not pass, a verified one stays visible to the kubelet, the text for the kubelet is of the
//! right kind, and once the registry works again pulls pass by themselves.

mod cell;
mod stage;

use std::{thread, time::Duration};

use pullgate::{config::Config, daemon};

use cell::{By, SCALE, State};

/// One test for each row.
macro_rules! rows {
    ($($test:ident: $fault:literal,)*) => {
        $(#[test] fn $test() { check($fault); })*

        const ROWS: &[&str] = &[$($fault,)*];
    };
}

rows! {
    o1_o2_a_registry_that_works: "works",
    d4_o1_o2_s4_connections_are_refused: "refuses connections",
    d4_o1_o2_s4_a_name_does_not_resolve: "has a name that does not resolve",
    d4_o1_o2_s4_a_registry_is_silent: "accepts connections and says nothing",
    d4_o1_o2_s4_an_authority_is_unknown: "shows a certificate of an unknown authority",
    d4_o1_o2_s4_a_certificate_is_expired: "shows an expired certificate",
    d4_answers_break_off: "breaks off in the middle of its answers",
    d4_e5_answers_drip: "sends a byte at a time",
    d4_answers_do_not_end: "sends without end",
    d4_answers_are_shorter_than_announced: "announces more than it sends",
    d4_answers_are_other_bytes: "sends other bytes than it should",
    d4_e1_answers_are_401: "answers 401",
    d4_e1_answers_are_403: "answers 403",
    d4_e1_c2_answers_are_404: "answers 404",
    d4_e1_answers_are_429: "answers 429",
    d4_e1_answers_are_429_for_a_second: "answers 429 and asks for a second",
    d4_e1_answers_are_429_for_a_minute: "answers 429 and asks for a minute",
    d4_e1_answers_are_500: "answers 500",
    d4_e1_answers_are_503: "answers 503",
    d4_redirects_go_in_a_circle: "redirects in a circle",
    d4_redirects_lead_to_a_host_that_has_it: "redirects to a host that has it",
    d4_redirects_lead_nowhere: "redirects to a host that is away",
}

#[test]
fn every_row_of_the_tables_is_a_test() {
    for by in [By::Tag, By::Digest] {
        let rows: Vec<_> = table(by).iter().map(|row| row[0].clone()).collect();
        assert_eq!(rows, ROWS, "{by:?}");
        assert!(table(by).iter().all(|row| row.len() == State::ALL.len() + 2), "{by:?}");
    }
}

#[test]
fn o1_a_registry_that_lets_all_time_run_out_leaves_some_for_what_is_stored() {
    for seconds in [1, 60] {
        let mut config = Config::with_policies(Vec::new());
        config.limits.verification = Duration::from_secs(seconds);
        let timeouts = daemon::registry_options(&config).expect("no file is named").timeouts;
        assert_eq!(timeouts.look_up, Duration::from_secs(seconds) / 2);
    }
}

fn check(fault: &'static str) {
    if !nix::unistd::geteuid().is_root() {
        return crate::kit::skip(fault, "root is needed");
    }
    let cells: Vec<_> =
        State::ALL.into_iter().flat_map(|state| [(state, By::Tag), (state, By::Digest)]).collect();
    let seen: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = cells
            .iter()
            .map(|&(state, by)| scope.spawn(move || (state, by, cell::see(fault, state, by))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut failures = Vec::new();
    for (column, (state, by, seen)) in seen.into_iter().enumerate().map(|(at, cell)| (1 + at / 2, cell)) {
        let table = table(by);
        let row = table.iter().find(|row| row[0] == fault).expect("a row");
        let name = format!("{fault} / {state:?} / by {by:?}");
        if seen.word != row[column] {
            failures.push(format!("{name}: wanted {}, got {}", row[column], seen.word));
        }
        let limit = limit(fault, row.last().expect("a column"));
        if seen.took > limit {
            failures.push(format!("{name}: took {:?}, at most {limit:?} is promised", seen.took));
        }
        failures.extend(seen.wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    assert!(failures.is_empty(), "{} of 18 cells and more:\n{}", failures.len(), failures.join("\n"));
}

/// The time that the table promises, by the limits of the cells, and something for a busy machine.
fn limit(fault: &str, promised: &str) -> Duration {
    let seconds = promised.strip_suffix(" s").and_then(|text| text.parse().ok()).expect("seconds");
    let promised = Duration::from_secs(seconds);
    let waited_out = [stage::SILENT, "sends a byte at a time"].contains(&fault);
    let scaled = if waited_out { promised / SCALE } else { promised };
    scaled + Duration::from_secs(5)
}

/// The rows of a table in the document, cell by cell.
fn table(by: By) -> Vec<Vec<String>> {
    let document = include_str!("../../docs/outages.md");
    let (tags, digests) = document
        .split_once("## Pulled by tag")
        .and_then(|(_, tables)| tables.split_once("## Pulled by digest"))
        .expect("two tables");
    let text = if by == By::Tag { tags } else { digests };
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.ends_with(" s |"));
    rows.map(|row| {
        row.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    })
    .collect()
}
