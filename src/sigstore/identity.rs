//! Whom a certificate must name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sigstore::certificate::Certificate;
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
    _subject: (),
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

impl Identity {
    /// Prepares the conditions; [`Identity::Anyone`] if none is given.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(_text: &IdentityText<'_>) -> Result<Self, IdentityError> {
        Err(IdentityError::Extension { name: String::new() })
    }

    /// Everything it asks for, as canonical JSON.
    #[must_use]
    pub fn describe(&self) -> Value {
        Value::Null
    }

    /// Whether a regular expression of it is not anchored at both ends: `check` warns of it.
    #[must_use]
    pub fn unanchored(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Whether `certificate` names it.
    pub(super) fn matches(&self, _certificate: &Certificate) -> Result<(), Rejection> {
        Err(Rejection::Unsupported)
    }
}
