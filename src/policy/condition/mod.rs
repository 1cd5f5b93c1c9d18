//! Conditions: do these values of a policy and its data compare as the policy says?
//!
//! A list of blocks all of which must hold. A block holds if one of its `any` does, where there are any,
//! and every one of its `all`. `any` stops at the first that holds, `all` at the first that does not, and
//! the list at the first block that does not.
//!
//! Key and value are [`Template`]s, filled in before they are compared; one that has no value is an error
//! of the whole evaluation, and every caller takes an error for a refusal. For attestations *all* conditions
//! are filled in first, those too that would not have been looked at ([`Order::AllFirst`]); elsewhere each
//! when it is reached ([`Order::AsReached`]).
//!
//! What is compared may be anyone's data: comparing is charged to the verdict's budget before it is done.
//! Semantics: Kyverno 1.19, "Preconditions" of its documentation, and `tests/kyverno`.

mod membership;
pub(super) mod operator;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::jmespath::{Budget, EvaluationError, Reads, Scope};
use super::variables::{SubstitutionError, Template, cut};
use operator::Operator;

/// A list of blocks, all of which must hold.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    pub(super) blocks: Vec<Block>,
    pub(super) order: Order,
}

/// One of `any` and every one of `all` must hold.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// An empty list never holds; none asks for nothing.
    pub(super) any: Option<Vec<Condition>>,
    pub(super) all: Vec<Condition>,
}

/// One comparison.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// Its place among the conditions: `[0].all[1]`.
    pub(super) path: String,
    pub(super) key: Template,
    pub(super) operator: Operator,
    pub(super) value: Template,
    /// What to say of it; a text, or null where there is none.
    pub(super) message: Template,
}

/// When variables are filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Order {
    /// All before any condition is compared, messages included: `attestations[].conditions`.
    AllFirst,
    /// When a condition is reached: `preconditions`, `deny` and exceptions.
    AsReached,
}

/// What the conditions say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evaluation {
    pub(super) outcome: Outcome,
    /// The messages of the conditions that decided, joined by `; `.
    pub(super) message: String,
    /// Every condition that was compared, in order.
    pub(super) checked: Vec<Checked>,
}

/// Whether conditions hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// They do.
    Holds,
    /// They do not.
    Fails,
}

/// One condition that was compared, for `--explain`. Texts are cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Its place: `[0].all[1]`.
    pub condition: String,
    /// The key, filled in, as JSON.
    pub key: String,
    /// The operator.
    pub operator: String,
    /// The value, filled in, as JSON.
    pub value: String,
    /// Whether it holds.
    pub outcome: Outcome,
    /// The policy's message for it; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Why conditions could not be evaluated. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum ConditionError {
    /// Some condition of an attestation cannot be filled in.
    #[error("failed to substitute variables in attestation conditions: {0}")]
    Any(#[source] SubstitutionError),
    /// The key of the condition that was reached cannot.
    #[error("failed to substitute variables in condition key: {0}")]
    Key(#[source] SubstitutionError),
    /// Its value cannot.
    #[error("failed to substitute variables in condition value: {0}")]
    Value(#[source] SubstitutionError),
    /// The message of a condition of an attestation is no text.
    #[error("the message of condition {path} does not become a string")]
    Message {
        /// Where it stands.
        path: String,
    },
    /// Comparing would cost more than the verdict has left.
    #[error("condition {path}: {cause}")]
    Budget {
        /// Where it stands.
        path: String,
        /// What is spent.
        #[source]
        cause: EvaluationError,
    },
}

impl Conditions {
    /// Evaluates them over `scope`.
    ///
    /// # Errors
    /// A variable without a value, or a budget that is spent. Never a reason to allow.
    pub(super) fn evaluate<'a>(
        &'a self,
        scope: &'a Scope<'a>,
        budget: &mut Budget,
    ) -> Result<Evaluation, ConditionError> {
        let mut run = Run { order: self.order, scope, budget, filled: BTreeMap::new(), checked: Vec::new() };
        if self.order == Order::AllFirst {
            for condition in self.all() {
                let filled = run.fill(condition)?;
                run.filled.insert(&condition.path, filled);
            }
        }
        let mut messages = Vec::new();
        let mut outcome = Outcome::Holds;
        for block in &self.blocks {
            let (of_block, said) = run.block(block)?;
            if of_block == Outcome::Fails {
                (outcome, messages) = (of_block, said);
                break;
            }
            messages.extend(said);
        }
        messages.retain(|message| !message.is_empty());
        Ok(Evaluation { outcome, message: messages.join("; "), checked: run.checked })
    }

    /// What the outcome depends on.
    pub(super) fn reads(&self) -> Reads {
        let mut reads = Reads::none();
        for condition in self.all() {
            reads.add(&condition.key.reads());
            reads.add(&condition.value.reads());
            if self.order == Order::AllFirst {
                reads.add(&condition.message.reads());
            }
        }
        reads
    }

    /// Everything that can make a difference to the outcome, as canonical JSON (rule C1).
    pub(super) fn describe(&self) -> Value {
        let list = |conditions: &[Condition]| -> Value {
            conditions.iter().map(|condition| condition.describe(self.order)).collect()
        };
        let blocks: Value = self
            .blocks
            .iter()
            .map(|block| json!({ "any": block.any.as_deref().map(list), "all": list(&block.all) }))
            .collect();
        json!({ "order": self.order, "blocks": blocks })
    }

    fn all(&self) -> impl Iterator<Item = &Condition> {
        self.blocks.iter().flat_map(|block| block.any.iter().flatten().chain(&block.all))
    }
}

impl Condition {
    fn describe(&self, order: Order) -> Value {
        // A message without variables says nothing that decides.
        let message = order == Order::AllFirst && !self.message.is_plain();
        json!({
            "key": self.key.source(), "operator": self.operator.name(), "value": self.value.source(),
            "message": message.then(|| self.message.source()),
        })
    }
}

/// One evaluation.
struct Run<'a, 'b> {
    order: Order,
    scope: &'a Scope<'a>,
    budget: &'b mut Budget,
    /// What was filled in before it was reached, by its place.
    filled: BTreeMap<&'a str, Filled<'a>>,
    checked: Vec<Checked>,
}

/// A condition with its variables filled in.
struct Filled<'a> {
    key: Cow<'a, Value>,
    value: Cow<'a, Value>,
    message: String,
}

impl<'a> Run<'a, '_> {
    /// Whether a block holds, and the messages of the conditions that say so.
    fn block(&mut self, block: &'a Block) -> Result<(Outcome, Vec<String>), ConditionError> {
        let (mut held, mut failed) = (Vec::new(), Vec::new());
        let mut outcome = Outcome::Holds;
        if let Some(any) = &block.any {
            outcome = Outcome::Fails;
            for condition in any {
                let (of_one, message) = self.check(condition)?;
                match of_one {
                    Outcome::Holds => {
                        held.push(message);
                        outcome = Outcome::Holds;
                        break;
                    }
                    Outcome::Fails => failed.push(message),
                }
            }
        }
        for condition in &block.all {
            let (of_one, message) = self.check(condition)?;
            match of_one {
                Outcome::Holds => held.push(message),
                Outcome::Fails => {
                    failed.push(message);
                    outcome = Outcome::Fails;
                    break;
                }
            }
        }
        Ok((outcome, if outcome == Outcome::Holds { held } else { failed }))
    }

    fn check(&mut self, condition: &'a Condition) -> Result<(Outcome, String), ConditionError> {
        let filled = match self.filled.remove(condition.path.as_str()) {
            Some(filled) => filled,
            None => self.fill(condition)?,
        };
        let cost = cost(&filled.key, &filled.value);
        self.budget
            .step(cost)
            .map_err(|cause| ConditionError::Budget { path: condition.path.clone(), cause })?;
        let outcome = match condition.operator.holds(&filled.key, &filled.value) {
            true => Outcome::Holds,
            false => Outcome::Fails,
        };
        self.checked.push(Checked {
            condition: condition.path.clone(),
            key: shown(&filled.key),
            operator: condition.operator.name().to_owned(),
            value: shown(&filled.value),
            outcome,
            message: filled.message.clone(),
        });
        Ok((outcome, filled.message))
    }

    fn fill(&mut self, condition: &'a Condition) -> Result<Filled<'a>, ConditionError> {
        let (of_key, of_value): (fn(_) -> _, fn(_) -> _) = match self.order {
            Order::AllFirst => (ConditionError::Any, ConditionError::Any),
            Order::AsReached => (ConditionError::Key, ConditionError::Value),
        };
        let key = condition.key.substitute(self.scope, self.budget).map_err(of_key)?;
        let value = condition.value.substitute(self.scope, self.budget).map_err(of_value)?;
        let message = match (condition.message.substitute(self.scope, self.budget), self.order) {
            (Ok(message), _) => message,
            (Err(cause), Order::AllFirst) => return Err(ConditionError::Any(cause)),
            // It only says what happened.
            (Err(_), Order::AsReached) => Cow::Borrowed(condition.message.source()),
        };
        let message = match message.as_ref() {
            Value::String(text) => cut(text, MESSAGE_LIMIT).into_owned(),
            Value::Null => String::new(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => match self.order {
                Order::AllFirst => {
                    return Err(ConditionError::Message { path: condition.path.clone() });
                }
                Order::AsReached => shown(&message),
            },
        };
        Ok(Filled { key, value, message })
    }
}

/// What comparing may take: every element with every other. Two texts are told apart within the shorter
/// one, unless one is a pattern with `*`: then each of its characters may meet each of the text's.
fn cost(key: &Value, value: &Value) -> usize {
    let (key, value) = (Size::of(key), Size::of(value));
    let pairs = key.elements.saturating_mul(value.elements);
    let plain = key.bytes.saturating_mul(value.elements).min(value.bytes.saturating_mul(key.elements));
    let patterns = key.starred.saturating_mul(value.bytes);
    let characters = [value.starred.saturating_mul(key.bytes), patterns, key.bytes, value.bytes]
        .into_iter()
        .fold(plain, usize::saturating_add);
    pairs.saturating_add(characters / CHARACTERS_A_STEP)
}

#[derive(Clone, Copy)]
struct Size {
    elements: usize,
    bytes: usize,
    /// Bytes of texts with a `*`.
    starred: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let text = |text: &str| {
            let starred = if text.contains('*') { text.len() } else { 0 };
            Self { elements: 1, bytes: text.len(), starred }
        };
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self { elements: 1, bytes: 1, starred: 0 },
            Value::String(string) => text(string),
            Value::Array(items) => {
                let size = items.iter().map(Self::of).fold(Self { elements: 0, ..text("") }, Self::and);
                Self { elements: items.len().max(1), ..size }
            }
            Value::Object(members) => {
                let each = members.iter().flat_map(|(key, member)| [text(key), Self::of(member)]);
                Self { elements: 1, ..each.fold(text(""), Self::and) }
            }
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            elements: self.elements.saturating_add(other.elements),
            bytes: self.bytes.saturating_add(other.bytes),
            starred: self.starred.saturating_add(other.starred),
        }
    }
}

/// A value as compact JSON, cut without writing it out whole.
fn shown(value: &Value) -> String {
    let mut head = Head(Vec::new());
    // Ends with an error where there is more than is shown.
    let whole = serde_json::to_writer(&mut head, value).is_ok();
    let text = String::from_utf8_lossy(&head.0);
    if whole { text.into_owned() } else { format!("{}…", text.trim_end_matches('\u{fffd}')) }
}

struct Head(Vec<u8>);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = VALUE_LIMIT.saturating_sub(self.0.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.0.extend_from_slice(taken);
        // Zero bytes taken of some is an error for whoever writes.
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Characters that are compared in the time of one step of an expression.
const CHARACTERS_A_STEP: usize = 16;
/// Characters of a message that are kept.
const MESSAGE_LIMIT: usize = 1024;
/// Bytes of a value that are shown.
const VALUE_LIMIT: usize = 512;

#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod operator_properties;
#[cfg(test)]
mod operator_tests;
#[cfg(test)]
mod tests;
