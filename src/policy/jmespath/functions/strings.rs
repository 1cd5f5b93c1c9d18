//! Functions of texts.
//!
//! Lengths and positions are counted in characters, as Go counts runes. Case mapping is Go's: one
//! character for one character, whatever the language.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::Kind::{Number, Text, Texts};
use super::{Arguments, Function, row};
use crate::oci::{Reference, wildcard};
use crate::policy::jmespath::datum::Datum;
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};
use crate::policy::scalar::{Version, VersionRange};

pub(super) const FUNCTIONS: &[Function] = &[
    row("compare", &[&[Text], &[Text]], compare),
    row("ends_with", &[&[Text], &[Text]], ends_with),
    row("equal_fold", &[&[Text], &[Text]], equal_fold),
    row("image_normalize", &[&[Text]], image_normalize),
    row("join", &[&[Text], &[Texts]], join),
    row("path_canonicalize", &[&[Text]], path_canonicalize),
    row("pattern_match", &[&[Text], &[Text, Number]], pattern_match),
    row("replace", &[&[Text], &[Text], &[Text], &[Number]], replace),
    row("replace_all", &[&[Text], &[Text], &[Text]], replace_all),
    row("semver_compare", &[&[Text], &[Text]], semver_compare),
    row("split", &[&[Text], &[Text]], split),
    row("starts_with", &[&[Text], &[Text]], starts_with),
    row("to_boolean", &[&[Text]], to_boolean),
    row("to_lower", &[&[Text]], to_lower),
    row("to_upper", &[&[Text]], to_upper),
    row("trim", &[&[Text], &[Text]], trim),
    row("trim_prefix", &[&[Text], &[Text]], trim_prefix),
    row("truncate", &[&[Text], &[Number]], truncate),
];

fn compare<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let order = arguments.text(0)?.cmp(arguments.text(1)?);
    Datum::number(f64::from(order as i8))
}

fn starts_with<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Ok(Datum::Bool(arguments.text(0)?.starts_with(arguments.text(1)?)))
}

fn ends_with<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    Ok(Datum::Bool(arguments.text(0)?.ends_with(arguments.text(1)?)))
}

/// Equal but for case, by Unicode's simple folding.
fn equal_fold<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (mut left, mut right) = (arguments.text(0)?.chars(), arguments.text(1)?.chars());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ok(Datum::Bool(true)),
            (Some(left), Some(right)) if left == right || left.eq_ignore_ascii_case(&right) => {}
            (Some(left), Some(right)) => {
                run.budget.step(1)?;
                if !folds(left, right) {
                    return Ok(Datum::Bool(false));
                }
            }
            _ => return Ok(Datum::Bool(false)),
        }
    }
}

fn folds(left: char, right: char) -> bool {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(left, left)]);
    class.try_case_fold_simple().is_ok()
        && class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&right))
}

fn join<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (separator, list) = (arguments.text(0)?, arguments.list(1)?);
    let mut joined = String::new();
    for (index, element) in list.iter().enumerate() {
        let Some(part) = element.as_text() else { return Err(arguments.not(1, "array[string]")) };
        run.budget.output(part.len() + separator.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(part);
    }
    Ok(Datum::Text(joined.into()))
}

fn split<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (text, separator) = (arguments.text(0)?, arguments.text(1)?);
    let mut parts = Vec::new();
    let mut keep = |part: &str| {
        let part = Datum::text(part, run.budget)?;
        run.keep(&mut parts, part)
    };
    if separator.is_empty() {
        // Rust would begin and end with an empty part.
        let mut buffer = [0; 4];
        text.chars().try_for_each(|character| keep(character.encode_utf8(&mut buffer)))?;
    } else {
        text.split(separator).try_for_each(keep)?;
    }
    Ok(Datum::list(parts))
}

fn replace<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let count = arguments.number(3)?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and no text has more matches")]
    let count = count as i64;
    // Any negative count means all.
    replaced(arguments, usize::try_from(count).unwrap_or(usize::MAX), run)
}

fn replace_all<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    replaced(arguments, usize::MAX, run)
}

fn replaced<'a>(arguments: &Arguments<'a>, count: usize, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (text, old, new) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    let matches = text.matches(old).take(count).count();
    run.budget.output(matches.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(Datum::Text(text.replacen(old, new, count).into()))
}

fn to_lower<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    mapped(arguments.text(0)?, lower, run)
}

fn to_upper<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    mapped(arguments.text(0)?, upper, run)
}

fn mapped<'a>(text: &str, map: fn(char) -> char, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mapped: String = text.chars().map(map).collect();
    run.budget.output(mapped.len())?;
    Ok(Datum::Text(mapped.into()))
}

fn lower(character: char) -> char {
    let mut mapped = character.to_lowercase();
    // One character becomes two: the first is what Unicode's simple mapping has.
    mapped.next().unwrap_or(character)
}

fn upper(character: char) -> char {
    let mut mapped = character.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(upper), None) => upper,
        // No simple mapping, except for the Greek letters with an iota below.
        _ => match character {
            '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
                char::from_u32(u32::from(character) + 8).unwrap_or(character)
            }
            '\u{1fb3}' => '\u{1fbc}',
            '\u{1fc3}' => '\u{1fcc}',
            '\u{1ff3}' => '\u{1ffc}',
            _ => character,
        },
    }
}

fn trim<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (text, cut) = (arguments.text(0)?, arguments.text(1)?);
    run.budget.step((text.len() / super::TEXT_PER_STEP).saturating_mul(cut.len()))?;
    Datum::text(text.trim_matches(|found| cut.contains(found)), run.budget)
}

fn trim_prefix<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let text = arguments.text(0)?;
    Datum::text(text.strip_prefix(arguments.text(1)?).unwrap_or(text), run.budget)
}

fn truncate<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (text, length) = (arguments.text(0)?, arguments.number(1)?);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates: less than nothing is nothing, and no text is longer"
    )]
    let length = length as usize;
    let end = text.char_indices().nth(length).map_or(text.len(), |(end, _)| end);
    Datum::text(text.get(..end).unwrap_or(text), run.budget)
}

fn to_boolean<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let text = arguments.text(0)?;
    match text.chars().map(lower).collect::<String>().as_str() {
        "true" => Ok(Datum::Bool(true)),
        "false" => Ok(Datum::Bool(false)),
        _ => {
            let shown = super::cut(text);
            Err(arguments
                .failed(format!("lowercase argument must be 'true' or 'false' (provided: '{shown}')")))
        }
    }
}

fn pattern_match<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (pattern, text) = (arguments.text(0)?, arguments.text_or_number(1)?);
    run.budget.step((text.len() / super::TEXT_PER_STEP).saturating_mul(pattern.len()))?;
    Ok(Datum::Bool(wildcard::matches(pattern, &text)))
}

/// The path without empty and dot components, as Go's `filepath.Join` of it alone.
fn path_canonicalize<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let path = arguments.text(0)?;
    let rooted = path.starts_with('/');
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if matches!(components.last(), Some(&last) if last != "..") => {
                components.pop();
            }
            ".." if rooted => {}
            _ => components.push(component),
        }
    }
    let joined = components.join("/");
    Datum::text(
        &match (rooted, joined.is_empty()) {
            (true, _) => format!("/{joined}"),
            (false, true) if !path.is_empty() => ".".to_owned(),
            (false, _) => joined,
        },
        run.budget,
    )
}

/// Whether a range admits a version; a text that is no version counts as 0.0.0.
fn semver_compare<'a>(arguments: &Arguments<'a>, _run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let (version, range) = (arguments.text(0)?, arguments.text(1)?);
    let admitted = VersionRange::parse(range)
        .ok_or_else(|| arguments.failed(format!("`{}` is no range of versions", super::cut(range))))?;
    Ok(Datum::Bool(admitted.admits(&Version::parse(version).unwrap_or(Version::zero()))))
}

fn image_normalize<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let image = arguments.text(0)?;
    match Reference::parse(image) {
        Ok(reference) => Datum::text(&reference.kyverno_form(), run.budget),
        Err(error) => Err(arguments.failed(format!("bad image: {error}"))),
    }
}
