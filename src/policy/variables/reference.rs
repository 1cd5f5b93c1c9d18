//! `$(./../path)`: text of the same document, put in at load.
//!
//! A document is one list of conditions, or one value; a path is absolute (`/0/all/1/value`) or starts from
//! the text it stands in. As upstream, only texts can be put in. What is put in must be plain: a
//! variable or another reference in it would be read a second time, so it is refused.
//! `\$(…)` stands for itself, and so does what upstream does not take for a reference (`$(date +%s)`: a
//! blank).

use serde_json::{Map, Value};

use super::TemplateError;

/// `value`, which stands at `path` of `document`, with its references resolved.
pub(in crate::policy) fn resolve(
    value: &Value,
    document: &Value,
    path: &str,
) -> Result<Value, TemplateError> {
    if mentions(value) { resolved(value, document, path) } else { Ok(value.clone()) }
}

fn mentions(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains(OPEN),
        Value::Array(items) => items.iter().any(mentions),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains(OPEN) || mentions(value)),
    }
}

fn resolved(value: &Value, document: &Value, path: &str) -> Result<Value, TemplateError> {
    Ok(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::String(in_text(text, document, path)?),
        Value::Array(items) => {
            let each = items.iter().enumerate();
            let each = each.map(|(index, item)| resolved(item, document, &format!("{path}/{index}")));
            Value::Array(each.collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let mut all = Map::new();
            for (key, member) in members {
                let member = resolved(member, document, &format!("{path}/{}", segment(key)))?;
                all.insert(in_text(key, document, path)?, member);
            }
            Value::Object(all)
        }
    })
}

fn in_text(text: &str, document: &Value, path: &str) -> Result<String, TemplateError> {
    let mut found = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        let word = behind.split(' ').next().unwrap_or(behind);
        let inside = word.rfind(')').and_then(|end| behind.split_at_checked(end));
        match (before.strip_suffix('\\'), inside) {
            // At least one character, and no blank before the last `)`: else it is no reference.
            (_, None | Some(("", _))) => {
                found.push_str(before);
                found.push_str(OPEN);
                rest = behind;
            }
            (Some(before), Some(_)) => {
                found.push_str(before);
                found.push_str(OPEN);
                rest = behind;
            }
            (None, Some((inside, behind))) => {
                found.push_str(before);
                found.push_str(target(inside, document, path)?);
                rest = behind.strip_prefix(')').unwrap_or(behind);
            }
        }
    }
    found.push_str(rest);
    Ok(found)
}

fn target<'a>(inside: &str, document: &'a Value, path: &str) -> Result<&'a str, TemplateError> {
    let failed = |cause| TemplateError::Reference { reference: inside.to_owned(), cause };
    if !inside.starts_with(['.', '/']) || inside.contains([')', '$']) {
        return Err(failed(ReferenceCause::Path));
    }
    let base = if inside.starts_with('/') { "" } else { path };
    let absolute = clean(base.split('/').chain(inside.split('/')));
    match at(document, "", &absolute) {
        Some(Value::String(text)) if text.contains("{{") || text.contains(OPEN) => {
            Err(failed(ReferenceCause::NotPlain))
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(failed(ReferenceCause::NotText)),
        None => Err(failed(ReferenceCause::Nothing)),
    }
}

/// An absolute path without empty, `.` and `..` segments.
fn clean<'a>(segments: impl Iterator<Item = &'a str>) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in segments {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    kept.iter().map(|segment| format!("/{segment}")).collect()
}

/// The leaf at a path.
fn at<'a>(value: &'a Value, path: &str, wanted: &str) -> Option<&'a Value> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            (path == wanted).then_some(value)
        }
        Value::Array(items) => {
            let mut each = items.iter().enumerate();
            each.find_map(|(index, item)| at(item, &format!("{path}/{index}"), wanted))
        }
        Value::Object(members) => {
            members.iter().find_map(|(key, item)| at(item, &format!("{path}/{}", segment(key)), wanted))
        }
    }
}

/// A key as a segment of a path.
pub(super) fn segment(key: &str) -> String {
    key.replace('/', "\\/")
}

/// Why a reference is not resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum ReferenceCause {
    /// Not a path; operators (`$(>=./path)`) are for validation patterns.
    #[error("it must be one path that starts with `.` or `/` (write `\\$(` where it is no reference)")]
    Path,
    /// No leaf there.
    #[error("there is nothing at this path of the conditions")]
    Nothing,
    /// A leaf that is no text.
    #[error("what it points to is not a text")]
    NotText,
    /// Text with variables or references.
    #[error("what it points to holds a variable or a reference; write it out")]
    NotPlain,
}

const OPEN: &str = "$(";
