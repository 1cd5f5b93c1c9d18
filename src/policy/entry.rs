//! A `verifyImages` entry after loading: everything resolved, nothing left to parse.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::PodFacts;
use super::pods::PodFactsRead;
use crate::oci::{Digest, Repository};
use crate::sigstore;

/// Whether a failing rule refuses or only reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Action {
    /// Report only.
    Audit,
    /// Refuse.
    Enforce,
}

/// What a fault means for a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum FailurePolicy {
    /// Refuse.
    Fail,
    /// Let pass, within rule D4.
    Ignore,
}

/// Which storage forms count (`type` of the entry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Forms {
    /// `.sig` tags first, bundles where those did not satisfy.
    LegacyThenBundles,
    /// `.sig` tags only: `type: Cosign` under `compatibility: strict`.
    Legacy,
    /// Bundles only: `type: SigstoreBundle`.
    Bundles,
}

/// A set of attestors of which `required` must be satisfied.
#[derive(Debug, Clone)]
pub(super) struct AttestorSet {
    pub(super) required: usize,
    pub(super) attestors: Vec<Attestor>,
}

/// One attestor of a set. There is none without key material.
#[derive(Debug, Clone)]
pub(super) enum Attestor {
    Signer { signer: Box<sigstore::Attestor>, repository: Option<Repository> },
    Set(AttestorSet),
}

/// One `verifyImages[]` element of a rule.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) policy: String,
    pub(super) rule: String,
    pub(super) index: usize,
    pub(super) references: Vec<String>,
    pub(super) skipped: Vec<String>,
    pub(super) forms: Forms,
    pub(super) sets: Vec<AttestorSet>,
    pub(super) repository: Option<Repository>,
    pub(super) mutate_digest: bool,
    pub(super) verify_digest: bool,
    pub(super) required: bool,
    pub(super) failure_policy: FailurePolicy,
    pub(super) reads: PodFactsRead,
    pub(super) fingerprint: Digest,
    pub(super) trust_fingerprint: Option<Digest>,
}

impl Entry {
    /// The policy, `name` or `namespace/name`.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The rule in it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The position in the rule's `verifyImages`.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// What a fault means for this entry's policy.
    #[must_use]
    pub const fn failure_policy(&self) -> FailurePolicy {
        self.failure_policy
    }

    /// Which storage forms count.
    #[must_use]
    pub const fn forms(&self) -> Forms {
        self.forms
    }

    /// Whether anything has to be fetched to judge it.
    #[must_use]
    pub const fn needs_evidence(&self) -> bool {
        !self.sets.is_empty()
    }

    /// Whether it refuses `reference` for want of a digest, whatever is signed: `verifyDigest` with
    /// `mutateDigest: false` looks at the reference itself.
    #[must_use]
    pub const fn asks_for_digest(&self, reference: &crate::oci::Reference) -> bool {
        !self.mutate_digest && self.verify_digest && reference.digest().is_none()
    }

    /// Changes with anything that this entry asks for (rule C1).
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Changes with the log keys or trust roots it uses; none for keys without a log (rules C1, O3).
    #[must_use]
    pub const fn trust_fingerprint(&self) -> Option<Digest> {
        self.trust_fingerprint
    }

    /// The pod facts that the rule reads, and nothing else (rule C1).
    #[must_use]
    pub fn pod_fingerprint(&self, pod: &PodFacts) -> Digest {
        self.reads.fingerprint(pod)
    }

    /// The repositories in which evidence for an image of `image` is looked for.
    #[must_use]
    pub fn repositories(&self, image: &Repository) -> Vec<Repository> {
        let mut found = BTreeSet::new();
        for set in &self.sets {
            self.collect(set, image, &mut found);
        }
        found.into_iter().collect()
    }

    fn collect(&self, set: &AttestorSet, image: &Repository, found: &mut BTreeSet<Repository>) {
        for attestor in &set.attestors {
            match attestor {
                Attestor::Set(nested) => self.collect(nested, image, found),
                Attestor::Signer { repository, .. } => {
                    found.insert(self.evidence_repository(repository.as_ref(), image).clone());
                }
            }
        }
    }

    /// Where an attestor's evidence is: its own repository, the entry's, or the image's.
    pub(super) fn evidence_repository<'a>(
        &'a self,
        own: Option<&'a Repository>,
        image: &'a Repository,
    ) -> &'a Repository {
        own.or(self.repository.as_ref()).unwrap_or(image)
    }

    /// Fills the fingerprints in, once everything else is there.
    pub(super) fn sealed(mut self) -> Self {
        let mut trust = BTreeSet::new();
        let sets: Vec<_> = self.sets.iter().map(|set| describe(set, &mut trust)).collect();
        // serde_json's maps are sorted, so this text is canonical.
        let text = json!({
            "schema": FINGERPRINT_SCHEMA, "policy": self.policy, "rule": self.rule, "index": self.index,
            "references": self.references, "skipped": self.skipped, "forms": self.forms, "sets": sets,
            "repository": self.repository, "mutateDigest": self.mutate_digest, "verifyDigest": self.verify_digest,
            "required": self.required,
        });
        self.fingerprint = Digest::of(text.to_string().as_bytes());
        self.trust_fingerprint = if trust.is_empty() {
            None
        } else {
            let all: Vec<String> = trust.iter().map(Digest::to_string).collect();
            Some(Digest::of(all.join("\n").as_bytes()))
        };
        self
    }
}

fn describe(set: &AttestorSet, trust: &mut BTreeSet<Digest>) -> Value {
    let attestors: Vec<Value> = set
        .attestors
        .iter()
        .map(|attestor| match attestor {
            Attestor::Set(nested) => describe(nested, trust),
            Attestor::Signer { signer, repository } => {
                trust.extend(signer.trust());
                json!({ "attestor": signer.describe(), "repository": repository })
            }
        })
        .collect();
    json!({ "required": set.required, "attestors": attestors })
}

/// Changes when the meaning of a stored verdict changes.
const FINGERPRINT_SCHEMA: u32 = 3;
