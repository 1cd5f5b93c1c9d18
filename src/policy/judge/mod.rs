//! What one entry makes of the evidence for one image.
//!
//! Three-valued to the end. An attestor is satisfied by one signature that meets all its conditions
//! (rule D3), or by its statements of exactly the wanted predicate type, every one of which must meet the
//! attestation's conditions (`statements` has the rule); a set by `required` of its attestors; an entry by
//! all of its sets, those of its attestors first, then those of its attestations, and by no `validate.deny`
//! of its rule. What is not satisfied while something could not be reached, or without a trust root
//! that could not be loaded, is undecided, never denied; what is not satisfied by everything there is
//! is denied. Tags come first; bundles are asked for ([`EntryVerdict::NeedsBundles`]) only where they
//! did not satisfy.
//!
//! Conditions that cannot be evaluated (a variable without a value, a budget that is spent) are not met: a
//! denial, as upstream. All expressions of one verdict share one budget.

mod search;
mod statements;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::PodFacts;
use super::condition::{Checked, Outcome};
use super::context::Context;
use super::entry::{Attestation, Attestor, AttestorSet, Entry};
use super::jmespath::{Budget, Clock};
use super::variables::cut;
use crate::oci::{Digest, Reference, Repository};
use crate::outcome::{Contact, Denial, DenialReason, Fault, Lookup};
use crate::sigstore::SignatureEvidence;

/// What one repository says of one form of evidence.
type Stored = BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>;

/// The evidence that is known, by the repository it was looked for in. A repository that is not in a
/// map was not asked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Layers of `.sig` tags.
    pub legacy: Stored,
    /// Layers of `.att` tags.
    pub attestations: Stored,
    /// What refers to the image: bundles, signatures and attestations mixed, and the layers of the
    /// experimental OCI 1.1 form.
    pub bundles: Stored,
}

/// What an entry says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryVerdict {
    /// Everything the entry asks for is proven.
    Satisfied(Satisfied),
    /// It is not, by a definite answer.
    Denied(Denial),
    /// There is no definite answer.
    Undecided(Fault),
    /// Fetch the bundles and ask again.
    NeedsBundles,
}

/// Proof that an entry is satisfied; only [`judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Satisfied {
    digest: Digest,
    holds_until: Option<SystemTime>,
}

impl Satisfied {
    /// The digest that was judged.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Until when it may be believed: the earliest end of a certificate without a proven time among
    /// the signatures it rests on (rule D8), and an hour where a condition reads the clock.
    #[must_use]
    pub const fn holds_until(&self) -> Option<SystemTime> {
        self.holds_until
    }

    /// A verdict that the cache kept, and keeps no longer than it holds: it was made by [`judge`] under
    /// the same key (rule C1).
    #[must_use]
    pub const fn remembered(digest: Digest) -> Self {
        Self { digest, holds_until: None }
    }
}

/// The tree of one entry's decision, for `--explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Policy and rule.
    pub rule: String,
    /// The entry's position.
    pub entry: usize,
    /// One an attestor, in order; those of attestations behind those of signatures.
    pub attestors: Vec<Leaf>,
    /// What `validate.deny` compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denies: Vec<Checked>,
}

/// What one attestor found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// Its place in the policy, as Kyverno writes it.
    pub path: String,
    /// Where its signatures or attestations are looked for.
    pub repository: String,
    /// How many were there.
    pub signatures: usize,
    /// Whether one of them counts.
    pub satisfied: bool,
    /// Why each of the others does not, or why none was found.
    pub causes: Vec<String>,
    /// Its statements of the wanted type, in order, up to the first that does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<Statement>,
}

/// One statement of the wanted type that the attestor signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Whether it meets the conditions.
    pub outcome: Outcome,
    /// Why not; empty if it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The conditions that were compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Checked>,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// The image, as it is asked for.
    pub reference: &'a Reference,
    /// Its digest.
    pub digest: &'a Digest,
    /// The pod it is for.
    pub pod: &'a PodFacts,
}

/// Judges `entry` for one pull at the time `now`.
#[must_use]
pub fn judge(
    entry: &Entry,
    pull: Pull<'_>,
    evidence: &Evidence,
    now: SystemTime,
) -> (EntryVerdict, Explanation) {
    judge_within(entry, pull, evidence, now, Budget::of_verdict())
}

/// The same with a budget of one's own.
pub(super) fn judge_within(
    entry: &Entry,
    pull: Pull<'_>,
    evidence: &Evidence,
    now: SystemTime,
    budget: Budget,
) -> (EntryVerdict, Explanation) {
    if let Some(fault) = entry.undecidable() {
        let rule = format!("{}/{}", entry.policy, entry.rule);
        let explanation = Explanation { rule, entry: entry.index, attestors: Vec::new(), denies: Vec::new() };
        return (EntryVerdict::Undecided(fault), explanation);
    }
    let Pull { reference, digest, pod } = pull;
    let mut context = Context::new(reference, pod, entry.view, &entry.extractors, now);
    for (name, value) in entry.variables.as_ref() {
        context.variable(name, Arc::clone(value));
    }
    let mut judgement = Judgement {
        entry,
        reference,
        digest,
        evidence,
        now,
        context,
        budget,
        leaves: Vec::new(),
        denies: Vec::new(),
        verified: 0,
        ends: match entry.clock {
            Clock::Read => Some(now.checked_add(CLOCK_HOLDS).unwrap_or(now)),
            Clock::Ignored => None,
        },
    };
    let verdict = judgement.entry();
    let rule = format!("{}/{}", entry.policy, entry.rule);
    let Judgement { leaves, denies, .. } = judgement;
    (verdict, Explanation { rule, entry: entry.index, attestors: leaves, denies })
}

struct Judgement<'a> {
    entry: &'a Entry,
    reference: &'a Reference,
    digest: &'a Digest,
    evidence: &'a Evidence,
    now: SystemTime,
    context: Context,
    budget: Budget,
    leaves: Vec<Leaf>,
    denies: Vec<Checked>,
    verified: usize,
    /// The earliest end among the signatures that count.
    ends: Option<SystemTime>,
}

/// What an attestor must have signed.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// The image.
    Signature,
    /// What this attestation asks for.
    Statement(&'a Attestation),
}

impl<'a> Wanted<'a> {
    /// The name by which it becomes known to conditions.
    fn name(self) -> Option<&'a str> {
        match self {
            Self::Signature => None,
            Self::Statement(attestation) => attestation.name.as_deref(),
        }
    }
}

/// What an attestor or a set says.
enum Answer {
    Satisfied,
    Failed(Failure),
    Unreachable(Fault),
    NeedsBundles,
}

struct Failure {
    /// The reason of each failed leaf, and its `<path>: <cause>`.
    causes: Vec<(DenialReason, String)>,
    satisfied: usize,
    required: usize,
}

impl Judgement<'_> {
    fn entry(&mut self) -> EntryVerdict {
        let entry = self.entry;
        if !entry.needs_evidence() {
            if entry.required {
                let detail = format!("unverified image {}", self.reference.kyverno_form());
                return self.denied(DenialReason::SignatureInvalid, "unverified image", detail);
            }
            return self.with_digest();
        }
        let signatures = entry
            .sets
            .iter()
            .enumerate()
            .map(|(index, set)| (format!(".attestors[{index}]"), set, Wanted::Signature));
        let statements = entry.attestations.iter().enumerate().flat_map(|(outer, attestation)| {
            attestation.sets.iter().enumerate().map(move |(index, set)| {
                let path = format!(".attestations[{outer}].attestors[{index}]");
                (path, set, Wanted::Statement(attestation))
            })
        });
        let (mut unreachable, mut unknown_name) = (None, false);
        for (path, set, wanted) in signatures.chain(statements) {
            match self.set(&path, set, wanted) {
                Answer::Satisfied => {}
                Answer::NeedsBundles => return EntryVerdict::NeedsBundles,
                Answer::Unreachable(fault) => {
                    unreachable = Some(telling(unreachable, fault));
                    unknown_name |= wanted.name().is_some();
                }
                // What could not be reached may be what the conditions read.
                Answer::Failed(failure) if unknown_name && failure.by_condition() => {}
                // One set that fails for certain decides, whatever else could not be reached.
                Answer::Failed(failure) => return self.failed(&failure, wanted),
            }
        }
        match unreachable {
            Some(fault) => EntryVerdict::Undecided(fault),
            None => self.denied_by_rule().unwrap_or_else(|| self.with_digest()),
        }
    }

    /// `validate.deny`, once every attestation is satisfied.
    fn denied_by_rule(&mut self) -> Option<EntryVerdict> {
        let entry = self.entry;
        for deny in &entry.denies {
            let scope = self.context.scope(None);
            let text = match deny.conditions.evaluate(&scope, &mut self.budget) {
                Ok(evaluation) => {
                    self.denies.extend(evaluation.checked);
                    match evaluation.outcome {
                        Outcome::Fails => continue,
                        Outcome::Holds => deny.text(&evaluation.message, &scope, &mut self.budget),
                    }
                }
                Err(error) => {
                    format!("failed to check deny conditions: {}", cut(&error.to_string(), TEXT_LIMIT))
                }
            };
            let detail = format!("validation in verifyImages failed: {text}");
            return Some(self.denied(DenialReason::ConditionFailed, "validation failed", detail));
        }
        None
    }

    /// Last, as upstream: `verifyDigest` with `mutateDigest: false` wants the digest in the reference itself.
    fn with_digest(&self) -> EntryVerdict {
        if self.entry.asks_for_digest(self.reference) {
            let detail = format!("missing digest for {}", self.reference.kyverno_form());
            return self.denied(DenialReason::DigestMissing, "missing digest", detail);
        }
        EntryVerdict::Satisfied(Satisfied { digest: *self.digest, holds_until: self.ends })
    }

    fn set(&mut self, path: &str, set: &AttestorSet, wanted: Wanted<'_>) -> Answer {
        let (mut satisfied, mut causes, mut unreachable, mut needs_bundles) = (0, Vec::new(), None, false);
        for (index, attestor) in set.attestors.iter().enumerate() {
            let path = format!("{path}.entries[{index}]");
            let answer = match attestor {
                Attestor::Set(nested) => self.set(&format!("{path}.attestor"), nested, wanted),
                Attestor::Signer(signer) => self.signer(&path, signer, wanted),
            };
            match answer {
                Answer::Satisfied => satisfied += 1,
                Answer::Failed(mut failure) => causes.append(&mut failure.causes),
                Answer::Unreachable(fault) => unreachable = Some(telling(unreachable, fault)),
                Answer::NeedsBundles => needs_bundles = true,
            }
            if satisfied >= set.required {
                return Answer::Satisfied;
            }
        }
        match (needs_bundles, unreachable) {
            (true, _) => Answer::NeedsBundles,
            (false, Some(fault)) => Answer::Unreachable(fault),
            (false, None) => Answer::Failed(Failure { causes, satisfied, required: set.required }),
        }
    }

    fn failed(&self, failure: &Failure, wanted: Wanted<'_>) -> EntryVerdict {
        let reasons: Vec<_> = failure.causes.iter().map(|(reason, _)| *reason).collect();
        let texts: Vec<_> = failure.causes.iter().map(|(_, text)| text.as_str()).collect();
        let (reason, texts) = (most_telling(&reasons), texts.join("; "));
        match wanted {
            Wanted::Signature => {
                let cause = if reason == DenialReason::SignatureNotFound {
                    "signature not found"
                } else {
                    "invalid signature"
                };
                let detail = format!("failed to verify image {}: {texts}", self.reference.kyverno_form());
                self.denied(reason, cause, detail)
            }
            Wanted::Statement(_) => {
                let cause = if reason == DenialReason::AttestationNotFound {
                    "attestation not found"
                } else if reason == DenialReason::ConditionFailed {
                    "attestation conditions not met"
                } else {
                    "invalid attestation"
                };
                let (satisfied, required) = (failure.satisfied, failure.required);
                let detail = format!(
                    "image attestations verification failed, verifiedCount: {satisfied}, requiredCount: {required}, error: {texts}"
                );
                self.denied(reason, cause, detail)
            }
        }
    }

    fn denied(&self, reason: DenialReason, cause: &str, detail: String) -> EntryVerdict {
        EntryVerdict::Denied(Denial {
            reason,
            policy: self.entry.policy.clone(),
            rule: self.entry.rule.clone(),
            cause: cause.to_owned(),
            detail,
        })
    }
}

impl Failure {
    /// Whether conditions that are not met are among the causes.
    fn by_condition(&self) -> bool {
        self.causes.iter().any(|(reason, _)| *reason == DenialReason::ConditionFailed)
    }
}

/// Of two faults the one in which somebody answered: it is the one that never passes (rule D4).
fn telling(known: Option<Fault>, other: Fault) -> Fault {
    match known {
        Some(known) if known.contact == Contact::Answered || other.contact == Contact::None => known,
        Some(_) | None => other,
    }
}

/// Of several reasons the one that got furthest: a right signature without the annotation says more
/// than a wrong key.
fn most_telling(reasons: &[DenialReason]) -> DenialReason {
    let order = [
        DenialReason::ConditionFailed,
        DenialReason::LimitExceeded,
        DenialReason::TransparencyLog,
        DenialReason::AnnotationMismatch,
        DenialReason::Certificate,
        DenialReason::IdentityMismatch,
    ];
    let nothing = [DenialReason::SignatureNotFound, DenialReason::AttestationNotFound];
    let telling = order.into_iter().find(|reason| reasons.contains(reason));
    let other = reasons.iter().find(|reason| !nothing.contains(reason)).or(reasons.first());
    telling.or(other.copied()).unwrap_or(DenialReason::SignatureNotFound)
}

/// How long a verdict holds whose conditions read the clock: upstream's cache keeps one as long.
const CLOCK_HOLDS: Duration = Duration::from_secs(60 * 60);
/// Characters of an error that a detail shows.
const TEXT_LIMIT: usize = 1024;
