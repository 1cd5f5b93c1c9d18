//! What can be meant but hardly is: policies that load, and then refuse everything, ask for nothing or never
//! apply.
//!
//! Warnings alone, each with its line and the way out. Nothing here changes what a policy says. Others stand
//! where the field they are about is read; `docs/policies.md` has them all.

use serde_saphyr::Spanned;

use super::{Loader, yaml};
use crate::policy::Policy;
use crate::policy::context::RESERVED;
use crate::policy::entry::{Action, Entry};
use crate::policy::jmespath::{Names, Reads};
use crate::policy::rule_context::RuleContext;

impl Loader<'_> {
    /// `entry` of a rule whose own action is `own_action`, as it was `written`.
    pub(super) fn lint(
        &mut self,
        line: u64,
        rule: &str,
        policy: &Policy,
        own_action: Option<Action>,
        entry: &Entry,
        written: &yaml::VerifyImages,
    ) {
        let place = format!("{rule}: verifyImages[{}]", entry.index);
        if !entry.needs_evidence() {
            let line = written.image_references.first().map_or(line, |pattern| pattern.referenced.line());
            let says = if entry.required {
                "so every image that it covers is refused"
            } else {
                "and required is false, so it verifies nothing"
            };
            self.warning(line, format!("{place}: no attestors and no attestations, {says}; add attestors"));
        }
        let enforces = match own_action {
            Some(action) => action == Action::Enforce,
            None => {
                policy.default_action == Action::Enforce
                    || policy.overrides.iter().any(|(action, _)| *action == Action::Enforce)
            }
        };
        let by_tag = entry.references.iter().any(|pattern| !pattern.contains('@'));
        if enforces && by_tag && entry.verify_digest && !entry.mutate_digest {
            let line = written.mutate_digest.as_ref().map_or(line, |flag| flag.referenced.line());
            self.warning(line, format!("{place}: mutateDigest is false and verifyDigest is true, so every pull by a tag is refused, however it is signed; take mutateDigest out, or set verifyDigest to false"));
        }
    }

    /// Names that have no value at any pull: neither ours nor of the rule's context.
    pub(super) fn warn_of_names(&mut self, line: u64, place: &str, reads: &Reads, context: &RuleContext) {
        let Names::Only(names) = &reads.names else { return };
        let of_context = |name: &str| context.entries.iter().any(|entry| entry.name == name);
        for name in names.iter().filter(|name| !RESERVED.contains(&name.as_str()) && !of_context(name)) {
            self.warning(line, format!("{place} read `{name}`, which has no value on a node; known are image, images, request and the names of the rule's context"));
        }
    }

    /// Patterns that no namespace's name can fit.
    pub(super) fn warn_of_namespaces(&mut self, place: &str, field: &str, patterns: &[Spanned<String>]) {
        for pattern in patterns.iter().filter(|pattern| !fits_some_namespace(&pattern.value)) {
            let (line, text) = (pattern.referenced.line(), &pattern.value);
            self.warning(line, format!("{place}: {field}: no namespace can have the name `{text}`, so it fits no pod; a name is at most 63 of a-z, 0-9 and -, and neither begins nor ends with -"));
        }
    }
}

/// Whether a name that a namespace can have (a DNS-1123 label) fits `pattern`.
fn fits_some_namespace(pattern: &str) -> bool {
    let inside = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '*' | '?');
    let at_the_edge = |letter: Option<char>| letter.is_some_and(|letter| letter != '-');
    pattern.chars().all(inside)
        && pattern.chars().filter(|letter| *letter != '*').count() <= LABEL_LIMIT
        && at_the_edge(pattern.chars().next())
        && at_the_edge(pattern.chars().next_back())
}

/// Characters of a DNS-1123 label.
const LABEL_LIMIT: usize = 63;

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
