//! Whom a certificate must name.
//!
//! As Kyverno: the subject is a wildcard pattern or a regular expression over any subject alternative
//! name (one that fits is enough); the issuer is a pattern and an expression, and each that is given must fit;
//! additional extensions are patterns, and each must fit. Patterns cover the whole text, expressions
//! any part of it, as in Go.
//!
//! Stricter than upstream: a certificate without names satisfies no subject; a certificate whose two
//! issuer extensions differ satisfies nothing; an extension that is not there satisfies no pattern. A
//! certificate without an issuer has the issuer "", as upstream: certificates of private authorities are asked
//! for with `issuerRegExp: .*`.
//!
//! Expressions are the `regex` crate's, which is linear in time and differs from Go's RE2 in
//! little: `\Q`, `\C` and `\pN` are load errors, and `\d`, `\w`, `\s`, `\b` mean more than ASCII, which
//! is why a text beyond ASCII fits no expression that has them.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::Look;
use serde_json::{Value, json};

use crate::oci::wildcard;
use crate::sigstore::certificate::{Certificate, FULCIO_LAST, SubjectKind};
use crate::sigstore::rejection::Rejection;

/// Whom a certificate must name.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Nobody in particular: any certificate of the authorities. Only where a policy says so.
    Anyone,
    /// A subject and an issuer that fit, and every extension.
    Named(Box<Named>),
}

/// The conditions on a certificate; all that are given must hold, and at least one is given.
#[derive(Clone, Debug)]
pub struct Named {
    subject: Option<String>,
    subject_regexp: Option<Expression>,
    issuer: Option<String>,
    issuer_regexp: Option<Expression>,
    extensions: Vec<Extension>,
}

/// The conditions as a policy writes them.
#[derive(Clone, Debug, Default)]
pub struct IdentityText<'a> {
    /// `subject`: a wildcard pattern over any subject alternative name; empty is not given.
    pub subject: &'a str,
    /// `subjectRegExp`: unanchored, as in Go; fits instead of `subject`.
    pub subject_regexp: &'a str,
    /// `issuer`: a wildcard pattern.
    pub issuer: &'a str,
    /// `issuerRegExp`.
    pub issuer_regexp: &'a str,
    /// `additionalExtensions`: by name or OID, wildcard patterns.
    ///
    /// An OID is `1.3.6.1.4.1.57264.1.n` with n from 1 to 24. Names are Kyverno's six, `oidcIssuer`,
    /// `githubWorkflowTrigger`, `githubWorkflowSha`, `githubWorkflowName`, `githubWorkflowRepository`,
    /// `githubWorkflowRef`, and Fulcio's own for the others: `buildSignerURI`, `buildSignerDigest`,
    /// `runnerEnvironment`, `sourceRepositoryURI`, `sourceRepositoryDigest`, `sourceRepositoryRef`,
    /// `sourceRepositoryIdentifier`, `sourceRepositoryOwnerURI`, `sourceRepositoryOwnerIdentifier`,
    /// `buildConfigURI`, `buildConfigDigest`, `buildTrigger`, `runInvocationURI`,
    /// `sourceRepositoryVisibilityAtSigning`, `deploymentEnvironment`, `tokenSubject`.
    pub extensions: BTreeMap<&'a str, &'a str>,
}

/// Why an identity cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A regular expression that does not compile, or is too large.
    #[error("{field} is not a regular expression that can be used: {cause}")]
    RegExp {
        /// Its field.
        field: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// An extension that is not one of Fulcio's.
    #[error("invalid certificate extension {name}")]
    Extension {
        /// As it is written.
        name: String,
    },
}

/// A regular expression that is ready.
#[derive(Clone, Debug)]
struct Expression {
    regex: Regex,
    anchors: Anchors,
    classes: Classes,
}

/// Whether an expression only fits whole texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchors {
    Both,
    Missing,
}

/// Whether an expression has classes that mean more than in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Classes {
    Same,
    Wider,
}

/// One of `additionalExtensions`.
#[derive(Clone, Debug)]
struct Extension {
    /// As the policy writes it.
    name: String,
    source: Source,
    pattern: String,
}

/// Where in a certificate an extension's value is.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Either of the two issuer extensions.
    Issuer,
    /// 1.3.6.1.4.1.57264.1.n.
    Arc(u32),
    /// The otherName with the last number 7.
    UserName,
}

impl Identity {
    /// Prepares the conditions; [`Identity::Anyone`] if none is given.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(text: &IdentityText<'_>) -> Result<Self, IdentityError> {
        let pattern = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let named = Named {
            subject: pattern(text.subject),
            subject_regexp: Expression::new("subjectRegExp", text.subject_regexp)?,
            issuer: pattern(text.issuer),
            issuer_regexp: Expression::new("issuerRegExp", text.issuer_regexp)?,
            extensions: text
                .extensions
                .iter()
                .map(|(name, pattern)| Extension::new(name, pattern))
                .collect::<Result<_, _>>()?,
        };
        let nothing = named.subject.is_none()
            && named.subject_regexp.is_none()
            && named.issuer.is_none()
            && named.issuer_regexp.is_none()
            && named.extensions.is_empty();
        Ok(if nothing { Self::Anyone } else { Self::Named(Box::new(named)) })
    }

    /// Everything it asks for, as canonical JSON.
    #[must_use]
    pub fn describe(&self) -> Value {
        let Self::Named(named) = self else { return json!("anyone") };
        let expression =
            |found: &Option<Expression>| found.as_ref().map(|found| found.regex.as_str().to_owned());
        let extensions: Vec<_> = named.extensions.iter().map(|found| (&found.name, &found.pattern)).collect();
        json!({
            "subject": named.subject,
            "subjectRegExp": expression(&named.subject_regexp),
            "issuer": named.issuer,
            "issuerRegExp": expression(&named.issuer_regexp),
            "extensions": extensions,
        })
    }

    /// The fields whose regular expression is not anchored at both ends: `check` warns of them.
    #[must_use]
    pub fn unanchored(&self) -> Vec<&'static str> {
        let Self::Named(named) = self else { return Vec::new() };
        [("subjectRegExp", &named.subject_regexp), ("issuerRegExp", &named.issuer_regexp)]
            .into_iter()
            .filter(|(_, found)| found.as_ref().is_some_and(|found| found.anchors == Anchors::Missing))
            .map(|(field, _)| field)
            .collect()
    }

    /// Whether `certificate` names it.
    pub(super) fn matches(&self, certificate: &Certificate) -> Result<(), Rejection> {
        let Self::Named(named) = self else { return Ok(()) };
        named.subject(certificate)?;
        named.issuer(certificate)?;
        named.extensions.iter().try_for_each(|extension| extension.matches(certificate))
    }
}

impl Named {
    fn subject(&self, certificate: &Certificate) -> Result<(), Rejection> {
        if self.subject.is_none() && self.subject_regexp.is_none() {
            return Ok(());
        }
        let fits = |text: &str| {
            self.subject.as_ref().is_some_and(|pattern| wildcard::matches(pattern, text))
                || self.subject_regexp.as_ref().is_some_and(|expression| expression.fits(text))
        };
        let subjects = certificate.subjects();
        if subjects.iter().any(|subject| fits(&subject.text)) {
            return Ok(());
        }
        let expression = self.subject_regexp.as_ref().map(|found| found.regex.as_str());
        let mut received: Vec<String> =
            subjects.iter().take(NAMES_SHOWN).map(|subject| shown(&subject.text)).collect();
        if subjects.len() > NAMES_SHOWN {
            received.push("…".to_owned());
        }
        Err(Rejection::SubjectNameMismatch {
            expected: shown(self.subject.as_deref().or(expression).unwrap_or_default()),
            received: received.join(", "),
        })
    }

    fn issuer(&self, certificate: &Certificate) -> Result<(), Rejection> {
        if certificate.contradicts_itself() {
            return Err(Rejection::IssuerAmbiguous);
        }
        let issuer = certificate.oidc_issuer().unwrap_or_default();
        let mismatch = |expected: &str| {
            Err(Rejection::IssuerMismatch { expected: shown(expected), received: shown(issuer) })
        };
        match (&self.issuer, &self.issuer_regexp) {
            (Some(pattern), _) if !wildcard::matches(pattern, issuer) => mismatch(pattern),
            (_, Some(expression)) if !expression.fits(issuer) => mismatch(expression.regex.as_str()),
            _ => Ok(()),
        }
    }
}

impl Extension {
    fn new(name: &str, pattern: &str) -> Result<Self, IdentityError> {
        let by_name = NAMES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source);
        let by_oid = || {
            let number = name.strip_prefix(FULCIO)?;
            // One way of writing it: no sign, no leading zero.
            match number.parse().ok().filter(|arc: &u32| arc.to_string() == number)? {
                7 => Some(Source::UserName),
                arc @ 1..=FULCIO_LAST => Some(Source::Arc(arc)),
                _ => None,
            }
        };
        let source = by_name.or_else(by_oid).ok_or_else(|| IdentityError::Extension { name: shown(name) })?;
        Ok(Self { name: name.to_owned(), source, pattern: pattern.to_owned() })
    }

    fn matches(&self, certificate: &Certificate) -> Result<(), Rejection> {
        let value = match self.source {
            Source::Issuer => certificate.oidc_issuer(),
            Source::Arc(arc) => certificate.fulcio_extension(arc),
            Source::UserName => {
                let subjects = certificate.subjects().iter();
                let mut names = subjects.filter(|subject| subject.kind == SubjectKind::FulcioName);
                names.next().map(|subject| subject.text.as_str())
            }
        };
        if value.is_some_and(|value| wildcard::matches(&self.pattern, value)) {
            return Ok(());
        }
        Err(Rejection::ExtensionMismatch {
            key: shown(&self.name),
            expected: shown(&self.pattern),
            received: shown(value.unwrap_or_default()),
        })
    }
}

impl Expression {
    fn new(field: &'static str, text: &str) -> Result<Option<Self>, IdentityError> {
        if text.is_empty() {
            return Ok(None);
        }
        let unusable = |cause: String| IdentityError::RegExp { field, cause };
        // The parser's own text shows the whole expression over several lines.
        let parsed = regex_syntax::parse(text).map_err(|error| {
            unusable(match error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                _ => "malformed".to_owned(),
            })
        })?;
        let regex = RegexBuilder::new(text)
            .size_limit(EXPRESSION_SIZE)
            .dfa_size_limit(EXPRESSION_SIZE)
            .build()
            .map_err(|_| unusable(format!("it needs more than {EXPRESSION_SIZE} bytes")))?;
        let properties = parsed.properties();
        // What every alternative begins and ends with.
        let both = properties.look_set_prefix().contains(Look::Start)
            && properties.look_set_suffix().contains(Look::End);
        let wider = ["\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "\\b", "\\B"];
        Ok(Some(Self {
            regex,
            anchors: if both { Anchors::Both } else { Anchors::Missing },
            classes: if wider.iter().any(|class| text.contains(class)) {
                Classes::Wider
            } else {
                Classes::Same
            },
        }))
    }

    fn fits(&self, text: &str) -> bool {
        (self.classes == Classes::Same || text.is_ascii()) && self.regex.is_match(text)
    }
}

/// Text of a certificate or a policy, cut and without control characters.
fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|found| if found.is_control() { '\u{fffd}' } else { found });
    let mut cut: String = characters.by_ref().take(TEXT_SHOWN).collect();
    if characters.next().is_some() {
        cut.push('…');
    }
    cut
}

const FULCIO: &str = "1.3.6.1.4.1.57264.1.";
/// Names by which extensions are asked for: Kyverno's, then Fulcio's (its Go field names).
const NAMES: [(&str, Source); 22] = [
    ("oidcIssuer", Source::Issuer),
    ("githubWorkflowTrigger", Source::Arc(2)),
    ("githubWorkflowSha", Source::Arc(3)),
    ("githubWorkflowName", Source::Arc(4)),
    ("githubWorkflowRepository", Source::Arc(5)),
    ("githubWorkflowRef", Source::Arc(6)),
    ("buildSignerURI", Source::Arc(9)),
    ("buildSignerDigest", Source::Arc(10)),
    ("runnerEnvironment", Source::Arc(11)),
    ("sourceRepositoryURI", Source::Arc(12)),
    ("sourceRepositoryDigest", Source::Arc(13)),
    ("sourceRepositoryRef", Source::Arc(14)),
    ("sourceRepositoryIdentifier", Source::Arc(15)),
    ("sourceRepositoryOwnerURI", Source::Arc(16)),
    ("sourceRepositoryOwnerIdentifier", Source::Arc(17)),
    ("buildConfigURI", Source::Arc(18)),
    ("buildConfigDigest", Source::Arc(19)),
    ("buildTrigger", Source::Arc(20)),
    ("runInvocationURI", Source::Arc(21)),
    ("sourceRepositoryVisibilityAtSigning", Source::Arc(22)),
    ("deploymentEnvironment", Source::Arc(23)),
    ("tokenSubject", Source::Arc(24)),
];
/// Compiled; Go has no such limit, and nobody writes such an expression.
const EXPRESSION_SIZE: usize = 1 << 20;
const TEXT_SHOWN: usize = 120;
const NAMES_SHOWN: usize = 5;

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
