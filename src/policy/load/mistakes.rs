//! Every mistake of a document, not the first alone.
//!
//! The parser ends at the first. What it named is then blanked (a field that is not known by itself if
//! it has lines of its own, anything else with the rule around it) and the rest is read again, with all
//! its line numbers. Nothing that was changed so is ever in force: the document has an error already,
//! and what comes of the rest is looked at for further errors alone. Where it is not plain what to blank
//! (everything on one line, YAML that cannot be parsed), the first mistake is all that is said.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::{Error, Spanned};

/// A document as far as it can be read.
pub(super) struct Attempt<T> {
    /// The document, without the rules that have mistakes.
    pub(super) item: Option<T>,
    /// The text it was read from.
    pub(super) text: String,
    /// What is wrong; empty where the whole document was read.
    pub(super) mistakes: Vec<Error>,
}

/// Reads a document.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Attempt<T> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut mistakes: Vec<Error> = Vec::new();
    let mut places = Vec::new();
    let mut rules = None;
    let mut attempts = 0;
    loop {
        let text = if mistakes.is_empty() { text.to_owned() } else { lines.join("\n") };
        let error = match serde_saphyr::from_str::<T>(&text) {
            Ok(item) if mistakes.is_empty() => return Attempt { item: Some(item), text, mistakes },
            Ok(_) => break,
            Err(error) => error,
        };
        // What is no YAML any more was made so here.
        if !mistakes.is_empty() && serde_saphyr::from_str::<IgnoredAny>(&text).is_err() {
            return Attempt { item: None, text, mistakes };
        }
        let Some((line, column)) = error.location().map(|at| (at.line(), at.column())) else {
            mistakes.push(error);
            return Attempt { item: None, text, mistakes };
        };
        let rules = rules.get_or_insert_with(|| rules_of(&lines));
        let blanked = if places.contains(&line) {
            // What is left of something blanked is no mistake of the author's.
            blank_rule(&mut lines, rules, line)
        } else {
            let unknown = matches!(error.without_snippet(), Error::SerdeUnknownField { .. });
            let blanked =
                unknown && blank_field(&mut lines, line, column) || blank_rule(&mut lines, rules, line);
            places.push(line);
            mistakes.push(error);
            blanked
        };
        attempts += 1;
        // A list of which nothing is left is a mistake that was made here.
        let all = !rules.is_empty() && rules.iter().all(|rule| is_blank(&lines, *rule));
        if !blanked || all || attempts == ATTEMPTS_LIMIT {
            return Attempt { item: None, text, mistakes };
        }
    }
    // A rule that lacks a field may have mistakes that it would not have with it.
    let rules = rules.unwrap_or_default();
    let in_rules = places.iter().all(|line| blank_rule(&mut lines, &rules, *line));
    let text = lines.join("\n");
    let item = if in_rules { serde_saphyr::from_str(&text).ok() } else { None };
    Attempt { item, text, mistakes }
}

/// The lines of each rule, the first and the one after the last, from 1.
type Rules = Vec<(u64, u64)>;

fn rules_of(lines: &[String]) -> Rules {
    #[derive(serde::Deserialize)]
    struct Document {
        spec: Spec,
    }
    #[derive(serde::Deserialize)]
    struct Spec {
        rules: Vec<Spanned<IgnoredAny>>,
    }
    let Ok(document) = serde_saphyr::from_str::<Document>(&lines.join("\n")) else { return Vec::new() };
    let starts = document.spec.rules.iter().map(|rule| rule.referenced.line());
    let item = |start: u64| {
        let line = line(lines, start)?;
        line.trim_start().starts_with("- ").then(|| (start, block_end(lines, start)))
    };
    starts.filter_map(item).collect()
}

/// Blanks the rule that `line` is in.
fn blank_rule(lines: &mut [String], rules: &Rules, line: u64) -> bool {
    let Some((from, to)) = rules.iter().find(|(from, to)| (*from..*to).contains(&line)) else { return false };
    blank(lines, *from, *to);
    true
}

/// Blanks the field whose name begins there, if it has its lines to itself.
fn blank_field(lines: &mut [String], number: u64, column: u64) -> bool {
    let Some(before) = usize::try_from(column).ok().and_then(|column| column.checked_sub(1)) else {
        return false;
    };
    let Some((indent, _)) = line(lines, number).and_then(|line| line.split_at_checked(before)) else {
        return false;
    };
    // The dash of an item stays, for the fields below.
    if indent.contains(|letter| letter != ' ' && letter != '-') {
        return false;
    }
    let indent = indent.to_owned();
    // The items of a list may be indented no further than its name.
    let beyond = |line: &str| match within(line) {
        own if own == before => line.trim_start().starts_with("- "),
        own => own > before,
    };
    let end = (number + 1..).find(|next| line(lines, *next).is_none_or(|line| !beyond(line)));
    blank(lines, number, end.unwrap_or(number + 1));
    if let Some(line) = index(number).and_then(|index| lines.get_mut(index)) {
        *line = indent;
    }
    true
}

/// The line after the block that begins in line `start`.
fn block_end(lines: &[String], start: u64) -> u64 {
    let indent = line(lines, start).map_or(0, within);
    let ends = |next: &u64| line(lines, *next).is_none_or(|line| within(line) <= indent);
    (start + 1..).find(ends).unwrap_or(start + 1)
}

/// How far a line is indented; an empty one is within everything.
fn within(line: &str) -> usize {
    let text = line.trim_start_matches(' ');
    if text.is_empty() { usize::MAX } else { line.len() - text.len() }
}

fn blank(lines: &mut [String], from: u64, to: u64) {
    for line in (from..to).filter_map(index) {
        if let Some(line) = lines.get_mut(line) {
            line.clear();
        }
    }
}

fn is_blank(lines: &[String], (from, to): (u64, u64)) -> bool {
    (from..to).all(|number| line(lines, number).is_none_or(str::is_empty))
}

fn line(lines: &[String], number: u64) -> Option<&str> {
    lines.get(index(number)?).map(String::as_str)
}

fn index(number: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}

/// Readings of a document that has mistakes.
const ATTEMPTS_LIMIT: usize = 20;

#[cfg(test)]
mod tests {
    use crate::policy::tests::load;

    fn mistakes(text: &str) -> Vec<(u64, String)> {
        let errors = load(text).expect_err("has mistakes");
        errors.into_iter().map(|error| (error.line, error.message)).collect()
    }

    const HEAD: &str = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec:\n";
    /// 9 lines.
    const GOOD: &str = "    match: {any: [{resources: {kinds: [Pod]}}]}\n    verifyImages:\n    - imageReferences: [a/*]\n      attestors:\n      - entries:\n        - keyless:\n            issuer: https://i\n            subject: s\n            rekor: {url: https://r}\n";

    #[test]
    fn every_unknown_field_of_a_document_is_named() {
        let rule =
            GOOD.replace("imageReferences: [a/*]", "imageRefs:\n      - a/*\n      mutatDigest: false");
        let text = format!(
            "{HEAD}  backgrund: true\n  rules:\n  - nam: one\n{rule}  - name: two\n{}",
            GOOD.replace("issuer", "isuer")
        );
        assert_eq!(
            mistakes(&text),
            [
                (5, "unknown field `backgrund`; did you mean `background`?".to_owned()),
                (7, "unknown field `nam`; did you mean `name`?".to_owned()),
                (10, "unknown field `imageRefs`; did you mean `imageReferences`?".to_owned()),
                (12, "unknown field `mutatDigest`; did you mean `mutateDigest`?".to_owned()),
                (26, "unknown field `isuer`; did you mean `issuer`?".to_owned()),
            ]
        );
    }

    #[test]
    fn a_mistake_in_one_rule_hides_none_of_another() {
        let text = format!(
            "{HEAD}  rules:\n  - name: one\n{}  - name: two\n{}  - name: three\n{}  - name: two\n{GOOD}",
            GOOD.replace("[a/*]", "{a: b}"),
            GOOD.replace("keyless", "keyles"),
            GOOD.replace("    match: {any: [{resources: {kinds: [Pod]}}]}", "    exclude: {}"),
        );
        let found = mistakes(&text);
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [9, 22, 26], "{found:#?}");
        assert!(found[0].1.starts_with("expected sequence start"), "{found:#?}");
        assert_eq!(found[1].1, "unknown field `keyles`; did you mean `keyless`?");
        assert_eq!(found[2].1, "p/three: match is missing");
    }

    #[test]
    fn what_was_blanked_is_no_mistake_itself() {
        let entry = "    verifyImages:\n    - imageRefs: [a]\n";
        let text = format!("{HEAD}  rules:\n  - name: one\n{entry}  - name: two\n    verifyImages: {{}}\n");
        let lines: Vec<_> = mistakes(&text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [8, 10]);
    }

    #[test]
    fn where_it_is_not_plain_what_to_leave_out_the_first_is_said() {
        for text in [
            r#"{"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "spec": {"bogus": 1, "hokum": 2}}"#
                .to_owned(),
            format!("{HEAD}  rules: {{a: b}}\n  bogus: 1\n"),
            format!("{HEAD}  rules: [\n  bogus: 1\n"),
        ] {
            assert_eq!(mistakes(&text).len(), 1, "{text}");
        }
    }

    #[test]
    fn every_document_of_a_file_is_looked_at() {
        let text = format!(
            "{HEAD}  bogus: 1\n---\n{HEAD}  rules: []\n  hokum: 2\n---\nkind: Policy\napiVersion: kyverno.io/v1\n"
        );
        let lines: Vec<_> = mistakes(&text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [5, 12, 14]);
    }
}
