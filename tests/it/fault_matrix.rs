//! What a pull comes to while a registry fails, for each way to fail and all that a node may know of the
//! image: the tables of `docs/outages.md`, cell by cell, before a real registry.
//!
//! The tables follow from rules D4, O1, O2, O4, S4, S5, C2 and E1. The gate is in this process (`cell`), its clocks
//! in the cell's hand, for the verdicts of a registry alone and of one with a mirror; and the built daemon
//! in front of a real containerd (`node`) for what the kubelet sees. In every cell also: an image that nobody
//! signed does not pass, a verified one stays visible to the kubelet, the text for the kubelet is of the
//! right kind, it takes no longer than the table says, and once the registry works again pulls pass by themselves.

mod cell;
mod node;
mod stage;

use std::{thread, time::Duration};

use pullgate::{config::Config, daemon};

use cell::{By, Place, SCALE, State};

/// Three tests for each row.
macro_rules! rows {
    ($($test:ident: $fault:literal,)*) => {
        $(#[test] fn $test() { alone($fault); })*

        mod with_a_mirror {
            $(#[test] fn $test() { super::mirrored($fault); })*
        }

        mod on_a_node {
            $(#[test] fn $test() { super::on_node($fault); })*
        }

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
    for (heading, columns) in [
        (BY_TAG, State::ALL.len() + 1),
        (BY_DIGEST, State::ALL.len() + 1),
        (MIRRORED, MIRRORED_CELLS.len() + 1),
        (ON_A_NODE, node::Known::ALL.len() + 1),
    ] {
        let table = table(heading);
        assert_eq!(table.iter().map(|row| &row[0]).collect::<Vec<_>>(), ROWS, "{heading}");
        assert!(table.iter().all(|row| row.len() == 1 + columns), "{heading}");
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

/// A cell of the gate in this process.
type Cell = (State, By, Place);

/// A registry without mirrors, by tag and by digest.
fn alone(fault: &'static str) {
    let cells = |by| State::ALL.map(|state| (state, by, Place::Alone));
    check(fault, &[(BY_TAG, &cells(By::Tag)), (BY_DIGEST, &cells(By::Digest))]);
}

/// One with a mirror, by tag.
fn mirrored(fault: &'static str) {
    check(fault, &[(MIRRORED, &MIRRORED_CELLS.map(|(place, state)| (state, By::Tag, place)))]);
}

/// The cells of this row in these tables.
fn check(fault: &'static str, tables: &[(&str, &[Cell])]) {
    if !nix::unistd::geteuid().is_root() {
        return crate::kit::skip(fault, "root is needed");
    }
    let seen: Vec<_> = thread::scope(|scope| {
        let cells = tables.iter().flat_map(|(heading, cells)| {
            cells.iter().enumerate().map(move |(at, cell)| (*heading, 1 + at, *cell))
        });
        let threads: Vec<_> = cells
            .map(|(heading, column, (state, by, place))| {
                let see = move || cell::see(fault, state, by, place);
                (heading, column, format!("{place:?}, {state:?}, by {by:?}"), scope.spawn(see))
            })
            .collect();
        let joined = |(heading, column, name, thread): (_, _, _, thread::ScopedJoinHandle<'_, _>)| {
            (heading, column, name, thread.join().expect("no panic"))
        };
        threads.into_iter().map(joined).collect()
    });
    let mut failures = Vec::new();
    for (heading, column, name, seen) in seen {
        let cell::Seen { word, took, of_unsigned, recovered: [recovered, unsigned_recovered], wrong } = seen;
        let [row, works] = [fault, "works"].map(|fault| row(heading, fault));
        let mut fail = |what: String| failures.push(format!("{fault} / {name}: {what}"));
        if word != row[column] {
            fail(format!("wanted {}, got {word}", row[column]));
        }
        let limit = limit(fault, row.last().expect("a column"));
        if took > limit {
            fail(format!("took {took:?}, at most {limit:?} is promised"));
        }
        // Nobody has ever verified it, whatever is known of the signed one.
        let as_new = &row[column_of_new(heading, column)];
        let audits = heading != MIRRORED && State::ALL[column - 1] == State::NewAudited;
        let denied = if audits { "audited" } else { UNSIGNED };
        if of_unsigned != denied && (of_unsigned != *as_new || as_new == "verified") {
            fail(format!("unsigned: wanted {as_new} or {denied}, got {of_unsigned}"));
        }
        if recovered != works[column] && (recovered != "fresh" || works[column] == "signature-invalid") {
            fail(format!("once the registry works again: wanted {}, got {recovered}", works[column]));
        }
        if unsigned_recovered != denied {
            fail(format!(
                "unsigned, once the registry works again: wanted {denied}, got {unsigned_recovered}"
            ));
        }
        wrong.into_iter().for_each(fail);
    }
    assert!(failures.is_empty(), "{} things are wrong:\n{}", failures.len(), failures.join("\n"));
}

/// The column for an image that the node does not know, by the policy and with the hosts of another column.
fn column_of_new(heading: &str, column: usize) -> usize {
    if heading == MIRRORED {
        // Three for each place.
        return column - (column - 1) % 3;
    }
    // The first three are such columns.
    if column <= 3 { column } else { 1 }
}

/// The same through the daemon and containerd: the gate's words as by tag, and what the kubelet sees.
fn on_node(fault: &'static str) {
    if !nix::unistd::geteuid().is_root() {
        return crate::kit::skip(fault, "root is needed");
    }
    let (words, answers) = (row(BY_TAG, fault), row(ON_A_NODE, fault));
    let promised = limit(fault, words.last().expect("a column"));
    let mut failures = Vec::new();
    let event = answers.last().expect("a column");
    for (cell, wanted) in node::see(fault, "2").into_iter().zip(&answers[1..]) {
        let node::Seen { known, word, answer, took, text, forwarded, wrong } = cell;
        let mut fail = |what: String| failures.push(format!("{fault} / {known:?}: {what}"));
        let column = State::ALL.iter().position(|state| *state == known.state()).expect("a column");
        if word != words[1 + column] {
            fail(format!("the gate says {word}, not {}", words[1 + column]));
        }
        if answer != *wanted {
            fail(format!("wanted {wanted}, got {answer}"));
        }
        if known == node::Known::New && text != *event {
            fail(format!("the event says `{text}`"));
        }
        let limit = if forwarded { promised + node::CONTAINERDS_PATIENCE * 3 } else { promised };
        if took > limit && answer != "waits" {
            fail(format!("took {took:?}, at most {limit:?} is promised"));
        }
        wrong.into_iter().for_each(fail);
    }
    assert!(failures.is_empty(), "{} things are wrong:\n{}", failures.len(), failures.join("\n"));
}

/// The time that the table promises, by the limits of the cells, and something for a busy machine.
fn limit(fault: &str, promised: &str) -> Duration {
    let seconds = promised.strip_suffix(" s").and_then(|text| text.parse().ok()).expect("seconds");
    let promised = Duration::from_secs(seconds);
    let waited_out = [stage::SILENT, "sends a byte at a time"].contains(&fault);
    let scaled = if waited_out { promised / SCALE } else { promised };
    scaled + Duration::from_secs(10)
}

/// The rows of the last table below a heading of the document, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let document = include_str!("../../docs/outages.md");
    let (_, text) = document.split_once(&format!("\n## {heading}\n")).expect("a heading");
    let text = text.split("\n## ").next().unwrap_or_default();
    let (_, rows) = text.rsplit_once("|---|\n").expect("a table");
    let rows = rows.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    })
    .collect()
}

fn row(heading: &str, fault: &str) -> Vec<String> {
    table(heading).into_iter().find(|row| row[0] == fault).expect("a row")
}

/// The word for an image that nobody signed.
const UNSIGNED: &str = "signature-not-found";
const BY_TAG: &str = "Pulled by tag";
const BY_DIGEST: &str = "Pulled by digest";
const MIRRORED: &str = "With a mirror";
const ON_A_NODE: &str = "What the kubelet sees";

/// In the order of the columns.
const MIRRORED_CELLS: [(Place, State); 9] = [
    (Place::Mirror, State::New),
    (Place::Mirror, State::Fresh),
    (Place::Mirror, State::Stale),
    (Place::Registry, State::New),
    (Place::Registry, State::Fresh),
    (Place::Registry, State::Stale),
    (Place::Both, State::New),
    (Place::Both, State::Fresh),
    (Place::Both, State::Stale),
];
