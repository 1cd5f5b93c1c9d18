//! What there is to say about a policy file, and how the loader says it.

use std::fmt;
use std::path::PathBuf;

use super::{Loader, yaml};
use crate::policy::spelling::way_out;

/// Something about a policy file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What is the matter, with the field and the way out.
    pub message: String,
}

/// A secret that a policy names for the registries it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSecret {
    /// The file of the policy.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
    /// The field.
    pub place: String,
    /// `name`, or `namespace/name`; both are names of files as well.
    pub name: String,
}

impl NamedSecret {
    /// What is to be said where the secret is named.
    #[must_use]
    pub fn remark(&self, severity: Severity, text: &str) -> Remark {
        let message = format!("{}: {text}", self.place);
        Remark { file: self.file.clone(), line: self.line, severity, message }
    }
}

/// How much a remark matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// It can, but perhaps does not do what was meant.
    Warning,
    /// Good to know.
    Notice,
}

impl Severity {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

impl Remark {
    /// With its severity, as compilers write it and editors read it: `file:line: warning: message`.
    #[must_use]
    pub fn diagnostic(&self) -> String {
        format!("{}: {}: {}", self.place(), self.severity.word(), self.message)
    }

    fn place(&self) -> String {
        match self.line {
            0 => self.file.display().to_string(),
            line => format!("{}:{line}", self.file.display()),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)
    }
}

/// What a parser says, in one line, and where.
pub(in crate::policy) fn yaml_error(error: &serde_saphyr::Error) -> (u64, String) {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        return (line, format!("unknown field `{}`; {}", cut(field), way_out(field, expected)));
    }
    // The parser's hint is for programs, not for people who write policies.
    let text = error.to_string().replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    (line, cut(text.lines().next().unwrap_or("not YAML")))
}

/// A text of the file or about it, at most [`MESSAGE_LIMIT`] characters of it, and no part of a word.
fn cut(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(MESSAGE_LIMIT) else { return text.to_owned() };
    let kept = text.get(..end).unwrap_or(text);
    let whole = kept.rfind(' ').and_then(|space| kept.get(..space)).unwrap_or(kept);
    format!("{whole} …")
}

/// A line that is read whole.
const MESSAGE_LIMIT: usize = 300;

impl Loader<'_> {
    /// Fields that are accepted and have no effect, each with the reason.
    pub(super) fn meaningless(&mut self, place: &str, fields: &[(&str, &Option<yaml::Unread>, &str)]) {
        for (field, value, why) in fields {
            if let Some(value) = value {
                self.notice(
                    value.referenced.line(),
                    format!("{place}: {field} means nothing on a node: {why}"),
                );
            }
        }
    }

    pub(super) fn refuse(&mut self, place: &str, field: &str, value: &Option<yaml::Unread>, why: &str) {
        let Some(value) = value else { return };
        // What is written as empty asks for nothing.
        let empty = match &value.value {
            serde_json::Value::Null => true,
            serde_json::Value::Array(items) => items.is_empty(),
            serde_json::Value::Object(members) => members.is_empty(),
            serde_json::Value::String(text) => text.is_empty(),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => false,
        };
        if empty {
            self.notice(value.referenced.line(), format!("{place}: {field} is empty"));
        } else {
            self.error(value.referenced.line(), format!("{place}: {field} cannot be used: {why}"));
        }
    }

    pub(super) fn yaml_error(&mut self, error: &serde_saphyr::Error) {
        let (line, message) = yaml_error(error);
        self.error(line, message);
    }

    /// Refuses what looks like a variable and is not filled in here: taken literally it would fit nothing, or
    /// everything.
    pub(super) fn without_variables(&mut self, line: u64, place: &str, field: &str, text: &str) {
        if text.contains("{{") {
            self.error(
                line,
                format!("{place}: {field} must not hold variables, nor become a text with `{{{{`"),
            );
        }
    }

    pub(super) fn error(&mut self, line: u64, message: String) {
        self.errors.push(Remark { file: self.file.clone(), line, severity: Severity::Error, message });
    }

    pub(super) fn warning(&mut self, line: u64, message: String) {
        self.notices.push(Remark { file: self.file.clone(), line, severity: Severity::Warning, message });
    }

    pub(super) fn notice(&mut self, line: u64, message: String) {
        self.notices.push(Remark { file: self.file.clone(), line, severity: Severity::Notice, message });
    }
}
