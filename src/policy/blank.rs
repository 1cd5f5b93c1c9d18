//! `verifyImages[]` elements that are filled in for each pull.
//!
//! An element whose fields hold variables is a form. What goes in may be anyone's text, a pod's labels
//! say, so it goes into texts alone and never into the form's shape; where a field is a pattern, a value
//! that reads the pull must not hold wildcards, and in a regular expression it stands for itself. A value
//! that is empty would ask for nothing, so it is a fault, and so is everything else that keeps a form
//! from being filled in: then the element is undecided, never one that asks for less.
//!
//! The filled-in element is loaded as any other, so its fingerprints are its own (rule C1). The last few
//! are kept by all that they were made from: the text, and what their conditions know of the pull.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::entry::Entry;
use super::jmespath::{Budget, Reads, Scope};
use super::rule_context::{Values, follows_from};
use super::variables::{Hole, SubstitutionError, Template};
use crate::oci::Digest;

/// An element with fields to be filled in.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// As it is written.
    pub(super) element: Value,
    pub(super) fields: Vec<Field>,
    /// Values that follow from the policy folder alone.
    pub(super) fixed: Values,
}

/// One text with variables in it.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Its JSON pointer in the element.
    pub(super) pointer: String,
    pub(super) text: Template,
    pub(super) usage: Usage,
}

/// What a field's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Public keys, as PEM.
    Keys,
    /// Certificates, as PEM.
    Certificates,
    /// An http address.
    Address,
    /// A pattern with wildcards.
    Pattern,
    /// A regular expression.
    Regexp,
    /// Itself.
    Text,
}

/// Why a form cannot be filled in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum FillError {
    /// A variable has no value.
    #[error("failed to substitute variables: {0}")]
    Substitution(#[from] SubstitutionError),
    /// A variable is a list, an object or null.
    #[error("failed to substitute variables: {field}: the value of a variable is no text")]
    NotText {
        /// The field.
        field: String,
    },
    /// Nothing is left to ask for.
    #[error("failed to substitute variables: {field} becomes empty")]
    Empty {
        /// The field.
        field: String,
    },
    /// A value of the pull would widen a pattern.
    #[error("failed to substitute variables: {field}: a value that depends on the pull holds a wildcard")]
    Wildcard {
        /// The field.
        field: String,
    },
}

impl Form {
    /// Whether all of it follows from the policy folder.
    pub(super) fn is_fixed(&self) -> bool {
        follows_from(&self.reads(), &self.fixed)
    }

    /// What its fields read.
    pub(super) fn reads(&self) -> Reads {
        let mut reads = Reads::none();
        self.fields.iter().for_each(|field| reads.add(&field.text.reads()));
        reads
    }

    /// The element with its fields filled in.
    ///
    /// # Errors
    /// The first field that cannot be.
    pub(super) fn fill(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, FillError> {
        let mut element = self.element.clone();
        for field in &self.fields {
            let text = field.text.text(|hole| self.value(field, hole, scope, budget))?;
            if text.trim().is_empty() {
                return Err(FillError::Empty { field: field.name() });
            }
            put(&mut element, &field.pointer, text);
        }
        Ok(element)
    }

    /// The text that goes into one place of a field.
    fn value(
        &self,
        field: &Field,
        hole: Hole<'_>,
        scope: &Scope<'_>,
        budget: &mut Budget,
    ) -> Result<String, FillError> {
        let text = match hole.value(scope, budget)?.as_ref() {
            Value::String(text) => text.clone(),
            number @ (Value::Number(_) | Value::Bool(_)) => number.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(FillError::NotText { field: field.name() });
            }
        };
        // In a longer text it would leave nothing but a wildcard, or one key less.
        if text.trim().is_empty() {
            return Err(FillError::Empty { field: field.name() });
        }
        // What the policy folder says may be a pattern; what a pull says is one name.
        match field.usage {
            _ if follows_from(&hole.reads(), &self.fixed) => Ok(text),
            Usage::Pattern if text.contains(['*', '?']) => Err(FillError::Wildcard { field: field.name() }),
            Usage::Regexp => Ok(regex::escape(&text)),
            Usage::Pattern | Usage::Keys | Usage::Certificates | Usage::Address | Usage::Text => Ok(text),
        }
    }

    /// The element with samples in its fields, to be looked at before there is any pull.
    pub(super) fn sample(&self) -> Value {
        let mut element = self.element.clone();
        for field in &self.fields {
            let written = || field.text.text(|_| Ok::<_, std::convert::Infallible>("sample".to_owned()));
            let text = match (field.usage, written()) {
                (Usage::Keys, _) => SAMPLE_KEY.to_owned(),
                (Usage::Certificates, _) => SAMPLE_CERTIFICATE.to_owned(),
                (Usage::Address, Ok(text)) if !text.starts_with("http") => format!("https://{text}.invalid"),
                (Usage::Address | Usage::Pattern | Usage::Regexp | Usage::Text, Ok(text)) => text,
            };
            put(&mut element, &field.pointer, text);
        }
        element
    }
}

impl Field {
    fn name(&self) -> String {
        name_of(&self.pointer)
    }
}

/// A JSON pointer as Kyverno writes it: `attestors[0].entries[1].keys.publicKeys`.
pub(super) fn name_of(pointer: &str) -> String {
    let mut name = String::new();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            name.push_str(&format!("[{part}]"));
        } else {
            let dot = if name.is_empty() { "" } else { "." };
            name.push_str(&format!("{dot}{}", part.replace("~1", "/").replace("~0", "~")));
        }
    }
    name
}

fn put(element: &mut Value, pointer: &str, text: String) {
    if let Some(place) = element.pointer_mut(pointer) {
        *place = Value::String(text);
    }
}

/// A form that is filled in for each pull.
#[derive(Debug)]
pub(super) struct Blank {
    pub(super) form: Form,
    /// Where it stands, for messages.
    pub(super) place: String,
    pub(super) file: PathBuf,
    kept: Mutex<VecDeque<(Digest, Arc<Entry>)>>,
}

impl Blank {
    pub(super) fn new(form: Form, place: String, file: PathBuf) -> Self {
        Self { form, place, file, kept: Mutex::new(VecDeque::new()) }
    }

    /// The entry that was made of this text, or the one that `make` makes of it now.
    pub(super) fn kept<E>(
        &self,
        text: &str,
        make: impl FnOnce() -> Result<Entry, E>,
    ) -> Result<Arc<Entry>, E> {
        let digest = Digest::of(text.as_bytes());
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entry)) = lock().iter().find(|(known, _)| *known == digest) {
            return Ok(Arc::clone(entry));
        }
        let entry = Arc::new(make()?);
        let mut kept = lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((digest, Arc::clone(&entry)));
        Ok(entry)
    }
}

/// Filled-in elements that are kept: about as many as a node has namespaces.
const KEPT: usize = 64;
/// Keys and certificates that nobody has: they only stand where others will be.
const SAMPLE_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmX5pp5ZVT2CKM7LBw1iaO+Bsii0e
zw/6Z90QHjn40fmsJT3MHc66qydZMeu86/4nhzq/swk1UGaEr1ksljE1pw==
-----END PUBLIC KEY-----";
pub(super) const SAMPLE_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUQO8yPdCXBv2hGDPuUylOzgOwcrcwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGc2FtcGxlMCAXDTI2MTEyNTE2NDgxMloYDzIxMjYxMTAxMTY0
ODEyWjARMQ8wDQYDVQQDDAZzYW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASZfmmnllVPYIozssHDWJo74GyKLR7PD/pn3RAeOfjR+awlPcwdzrqrJ1kx67zr
/ieHOr+zCTVQZoSvWSyWMTWno1MwUTAdBgNVHQ4EFgQUhe9njEZQM3I4RPkXPKMC
4H2J5yIwHwYDVR0jBBgwFoAUhe9njEZQM3I4RPkXPKMC4H2J5yIwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiA04bNitFz2owEpAmpPkAzst0f7l1FS
2vBAc/E59uUjTgIgfoXLSQCwVMYVVsPE6DFm6v/MtJcxcKXpNzSO3VPdEA0=
-----END CERTIFICATE-----
";
