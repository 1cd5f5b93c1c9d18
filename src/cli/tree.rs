//! The tree of a decision, for `--explain`: rules, entries, attestors, what each found and why it did not
//! count, conditions with what they compared. As text, and the same as JSON.
//!
//! Certificates, attestations and registries say things here that anybody may have written. A line of text
//! is therefore always one line, cut, without control characters and without those that change the direction
//! of what stands beside them ([`plain`]). In JSON texts are whole, and the same is escaped ([`shown`]).

use serde_json::{Value, json};

use crate::admission::Judgement;
use crate::oci::Reference;
use crate::outcome::{Denial, Fault};
use crate::policy::evaluate::{Decision, Judged};
use crate::policy::{
    Application, Checked, Coverage, Covered, EntryVerdict, Explanation, Leaf, Outcome, cause,
};

/// Everything about one image, a line each, indented by two.
pub(super) fn lines(image: &Reference, judgement: &Judgement) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    for application in &judgement.applications {
        let Application { policy, rule, action, .. } = application;
        lines.add(1, &format!("{policy}/{rule} ({action:?})"));
        if let Some(message) = &application.skipped {
            lines.add(2, message);
            continue;
        }
        for covered in &application.entries {
            lines.add(
                2,
                &format!(
                    "verifyImages[{}]: {}",
                    covered.entry.index(),
                    Became::of(judgement, covered).text(image)
                ),
            );
            if let Some(tree) = explained(judgement, covered) {
                tree.attestors.iter().for_each(|leaf| lines.leaf(tree.entry, leaf));
                tree.denies.iter().for_each(|checked| lines.condition(2, "validate.deny", checked));
            }
        }
    }
    for denial in denials(&judgement.decision) {
        lines.add(1, &denial.detail);
    }
    lines.0
}

/// The same, one element an entry.
pub(super) fn described(judgement: &Judgement) -> Value {
    let of_entry = |application: &Application, covered: &Covered| {
        let became = Became::of(judgement, covered);
        let why = match became {
            Became::Skipped => application.skipped.as_ref().map(|message| json!({ "message": message })),
            Became::NotJudged | Became::Satisfied => None,
            Became::Denied(denial) => Some(json!({
                "reason": denial.reason, "cause": denial.cause, "why": denial.reason.plainly(),
                "message": denial.detail,
            })),
            Became::Undecided(fault) => Some(json!({ "reason": fault.reason, "message": fault.message })),
        };
        let tree = explained(judgement, covered);
        json!({
            "rule": rule_of(covered),
            "action": format!("{:?}", application.action),
            "entry": covered.entry.index(),
            "verdict": became.word(),
            "why": why,
            "attestors": tree.map_or(&[][..], |tree| &tree.attestors),
            "denies": tree.map_or(&[][..], |tree| &tree.denies),
        })
    };
    let of_rule = |application: &Application| {
        application.entries.iter().map(|covered| of_entry(application, covered)).collect::<Vec<_>>()
    };
    judgement.applications.iter().flat_map(of_rule).collect()
}

/// One line that a terminal shows as it is.
pub(super) fn plain(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if line.len() >= LINE_LIMIT {
            line.push('…');
            break;
        }
        match steers(letter) {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

/// JSON that a terminal shows as it is: what steers it can only be inside of texts, and is escaped there.
pub(super) fn shown(json: &Value) -> String {
    let mut text = String::new();
    for letter in json.to_string().chars() {
        match steers(letter) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => text.push(letter),
        }
    }
    text
}

/// Whether a terminal does something else with it than show it: controls, ends of lines, and what makes the
/// letters beside it read from right to left.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, depth: usize, text: &str) {
        self.0.push(format!("{}{}", "  ".repeat(depth), plain(text)));
    }

    fn leaf(&mut self, entry: usize, leaf: &Leaf) {
        let Leaf { path, repository, signatures, satisfied, causes, statements } = leaf;
        let of_attestation = path.starts_with(".attestations");
        let (verdict, noun) = (
            if *satisfied { "satisfied" } else { "not satisfied" },
            if of_attestation { "attestations" } else { "signatures" },
        );
        self.add(2, &format!("verifyImages[{entry}]{path}: {verdict}, {signatures} {noun} in {repository}"));
        // Why a statement does not meet its conditions stands beside it.
        let causes: Vec<_> = causes
            .iter()
            .filter(|cause| statements.iter().all(|statement| statement.cause != **cause))
            .collect();
        for same in causes.chunk_by(|one, other| one == other) {
            match same {
                [cause] => self.add(3, &format!("does not count: {cause}")),
                [cause, ..] => self.add(3, &format!("{} do not count: {cause}", same.len())),
                [] => {}
            }
        }
        for (index, statement) in statements.iter().enumerate() {
            let verdict = match statement.outcome {
                Outcome::Holds => "meets its conditions".to_owned(),
                Outcome::Fails => format!("does not meet its conditions: {}", statement.cause),
            };
            self.add(3, &format!("attestation {index}: {verdict}"));
            statement.conditions.iter().for_each(|checked| self.condition(4, "conditions", checked));
        }
        if *satisfied && !of_attestation {
            self.add(3, "counts: one signature that meets all that the attestor asks for");
        }
    }

    /// One condition with what it compared.
    fn condition(&mut self, depth: usize, of: &str, checked: &Checked) {
        let Checked { condition, key, operator, value, outcome, message } = checked;
        let outcome = match outcome {
            Outcome::Holds => "holds",
            Outcome::Fails => "does not hold",
        };
        let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
        self.add(depth, &format!("{of}{condition}: {key} {operator} {value}: {outcome}{message}"));
    }
}

/// What became of one entry.
#[derive(Clone, Copy)]
enum Became<'a> {
    Skipped,
    NotJudged,
    Satisfied,
    Denied(&'a Denial),
    Undecided(&'a Fault),
}

impl<'a> Became<'a> {
    fn of(judgement: &'a Judgement, covered: &Covered) -> Self {
        match (covered.coverage, judged(judgement, covered).map(|judged| &judged.verdict)) {
            (Coverage::Skipped, _) => Self::Skipped,
            (Coverage::Judged, None | Some(EntryVerdict::NeedsBundles)) => Self::NotJudged,
            (Coverage::Judged, Some(EntryVerdict::Satisfied(_))) => Self::Satisfied,
            (Coverage::Judged, Some(EntryVerdict::Denied(denial))) => Self::Denied(denial),
            (Coverage::Judged, Some(EntryVerdict::Undecided(fault))) => Self::Undecided(fault),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::NotJudged => "not judged",
            Self::Satisfied => "satisfied",
            Self::Denied(_) => "denied",
            Self::Undecided(_) => "undecided",
        }
    }

    /// The word, and why.
    fn text(self, image: &Reference) -> String {
        let word = self.word();
        match self {
            Self::Skipped => format!("{word} (skipImageReferences)"),
            Self::NotJudged | Self::Satisfied => word.to_owned(),
            Self::Denied(denial) => format!("{word}: {}", denial.told()),
            Self::Undecided(fault) => format!("{word}: {}", cause(image, fault)),
        }
    }
}

fn judged<'a>(judgement: &'a Judgement, covered: &Covered) -> Option<&'a Judged> {
    Judged::of(&covered.entry, &judgement.judged)
}

fn explained<'a>(judgement: &'a Judgement, covered: &Covered) -> Option<&'a Explanation> {
    let (rule, index) = (rule_of(covered), covered.entry.index());
    judgement.explanations.iter().find(|tree| tree.rule == rule && tree.entry == index)
}

fn rule_of(covered: &Covered) -> String {
    format!("{}/{}", covered.entry.policy(), covered.entry.rule())
}

fn denials(decision: &Decision) -> &[Denial] {
    match decision {
        Decision::Allow(permit) => permit.would_deny(),
        Decision::Deny(denials) => denials,
        Decision::Undecided(_) => &[],
    }
}

/// Bytes of a line that are shown; more than a key, a value and a message together.
const LINE_LIMIT: usize = 4096;

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
