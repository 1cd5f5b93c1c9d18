//! What one entry makes of the evidence for one image.
//!
//! Three-valued to the end. An attestor is satisfied by one signature that meets all its conditions
//! (rule D3); a set by `required` of its attestors; an entry by all of its sets. What is not
//! satisfied while something could not be reached is undecided, never denied; what is not satisfied
//! by everything there is is denied. The legacy form comes first; bundles are asked for
//! ([`EntryVerdict::NeedsBundles`]) only where it did not satisfy.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::entry::{Attestor, AttestorSet, Entry, Forms};
use crate::oci::{Digest, Reference, Repository};
use crate::outcome::{Contact, Denial, DenialReason, Fault, Lookup};
use crate::sigstore::{self, SignatureEvidence};

/// The signatures that are known, by the repository they were looked for in. A repository that is
/// not in a map was not asked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Layers of `.sig` tags.
    pub legacy: BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>,
    /// Bundles by referrer.
    pub bundles: BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>,
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
}

impl Satisfied {
    /// The digest that was judged.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// A verdict that the cache kept: it was made by [`judge`] under the same key (rule C1).
    #[must_use]
    pub const fn remembered(digest: Digest) -> Self {
        Self { digest }
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
    /// One an attestor, in order.
    pub attestors: Vec<Leaf>,
}

/// What one attestor found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// Its place in the policy, as Kyverno writes it.
    pub path: String,
    /// Where its signatures are looked for.
    pub repository: String,
    /// How many were there.
    pub signatures: usize,
    /// Whether one of them counts.
    pub satisfied: bool,
    /// Why each of the others does not, or why none was found.
    pub causes: Vec<String>,
}

/// Judges `entry` for the image `reference`, which is `digest`, at the time `now`.
#[must_use]
pub fn judge(
    entry: &Entry,
    reference: &Reference,
    digest: &Digest,
    evidence: &Evidence,
    now: SystemTime,
) -> (EntryVerdict, Explanation) {
    let mut judgement =
        Judgement { entry, reference, digest, evidence, now, leaves: Vec::new(), verified: 0 };
    let verdict = judgement.entry();
    let rule = format!("{}/{}", entry.policy, entry.rule);
    (verdict, Explanation { rule, entry: entry.index, attestors: judgement.leaves })
}

struct Judgement<'a> {
    entry: &'a Entry,
    reference: &'a Reference,
    digest: &'a Digest,
    evidence: &'a Evidence,
    now: SystemTime,
    leaves: Vec<Leaf>,
    verified: usize,
}

/// What an attestor or a set says.
enum Answer {
    Satisfied,
    /// The reason of each failed leaf, and its `<path>: <cause>`.
    Failed(Vec<(DenialReason, String)>),
    Unreachable(Fault),
    NeedsBundles,
}

impl Judgement<'_> {
    fn entry(&mut self) -> EntryVerdict {
        if self.entry.sets.is_empty() {
            if self.entry.required {
                let detail = format!("unverified image {}", self.reference.kyverno_form());
                return self.denied(DenialReason::SignatureInvalid, "unverified image", detail);
            }
            return self.with_digest();
        }
        let entry = self.entry;
        let mut unreachable = None;
        for (index, set) in entry.sets.iter().enumerate() {
            match self.set(&format!(".attestors[{index}]"), set) {
                Answer::Satisfied => {}
                Answer::NeedsBundles => return EntryVerdict::NeedsBundles,
                Answer::Unreachable(fault) => unreachable = Some(telling(unreachable, fault)),
                // One set that fails for certain decides, whatever else could not be reached.
                Answer::Failed(failures) => return self.failed(&failures),
            }
        }
        match unreachable {
            Some(fault) => EntryVerdict::Undecided(fault),
            None => self.with_digest(),
        }
    }

    /// Last, as upstream: `verifyDigest` with `mutateDigest: false` wants the digest in the reference itself.
    fn with_digest(&self) -> EntryVerdict {
        if self.entry.asks_for_digest(self.reference) {
            let detail = format!("missing digest for {}", self.reference.kyverno_form());
            return self.denied(DenialReason::DigestMissing, "missing digest", detail);
        }
        EntryVerdict::Satisfied(Satisfied { digest: *self.digest })
    }

    fn set(&mut self, path: &str, set: &AttestorSet) -> Answer {
        let (mut satisfied, mut failures, mut unreachable, mut needs_bundles) = (0, Vec::new(), None, false);
        for (index, attestor) in set.attestors.iter().enumerate() {
            let path = format!("{path}.entries[{index}]");
            let answer = match attestor {
                Attestor::Set(nested) => self.set(&format!("{path}.attestor"), nested),
                Attestor::Signer { signer, repository } => {
                    let repository =
                        self.entry.evidence_repository(repository.as_ref(), self.reference.repository());
                    self.signer(&format!("{path}.keys"), signer, &repository.clone())
                }
            };
            match answer {
                Answer::Satisfied => satisfied += 1,
                Answer::Failed(mut causes) => failures.append(&mut causes),
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
            (false, None) => Answer::Failed(failures),
        }
    }

    fn signer(&mut self, path: &str, signer: &sigstore::Attestor, repository: &Repository) -> Answer {
        let forms: &[_] = match self.entry.forms {
            Forms::Legacy => &[&self.evidence.legacy],
            Forms::Bundles => &[&self.evidence.bundles],
            Forms::LegacyThenBundles => &[&self.evidence.legacy, &self.evidence.bundles],
        };
        let mut leaf = Leaf {
            path: path.to_owned(),
            repository: repository.to_string(),
            signatures: 0,
            satisfied: false,
            causes: Vec::new(),
        };
        let mut reasons = Vec::new();
        let mut unreachable = None;
        let mut not_asked = false;
        for form in forms {
            match form.get(repository) {
                None => not_asked = true,
                Some(Lookup::Absent) => {}
                Some(Lookup::Unreachable(fault)) => {
                    leaf.causes.push(fault.to_string());
                    unreachable = Some(telling(unreachable, fault.clone()));
                }
                Some(Lookup::Found(signatures)) => {
                    // Something is stored there, though none of it can be a signature.
                    if signatures.is_empty() {
                        reasons.push(DenialReason::SignatureInvalid);
                        leaf.causes.push("nothing that is stored there is a signature".to_owned());
                    }
                    for signature in signatures {
                        leaf.signatures += 1;
                        if self.verified >= VERIFIED_LIMIT {
                            reasons.push(DenialReason::LimitExceeded);
                            leaf.causes.push(format!("more than {VERIFIED_LIMIT} signatures"));
                            break;
                        }
                        self.verified += 1;
                        match sigstore::verify_signature(signature, self.digest, signer, self.now) {
                            Ok(verified) => {
                                leaf.satisfied = verified.digest() == *self.digest;
                            }
                            Err(rejection) => {
                                reasons.push(rejection.reason());
                                leaf.causes.push(rejection.to_string());
                            }
                        }
                        if leaf.satisfied {
                            break;
                        }
                    }
                }
            }
            if leaf.satisfied {
                break;
            }
        }
        let satisfied = leaf.satisfied;
        let cause = match leaf.causes.as_slice() {
            [] => "no signatures found".to_owned(),
            causes => format!("no matching signatures: {}", causes.join("\n ")),
        };
        self.leaves.push(leaf);
        match (satisfied, not_asked, unreachable) {
            (true, _, _) => Answer::Satisfied,
            (false, true, _) => Answer::NeedsBundles,
            (false, false, Some(fault)) => Answer::Unreachable(fault),
            (false, false, None) => {
                Answer::Failed(vec![(most_telling(&reasons), format!("{path}: {cause}"))])
            }
        }
    }

    fn failed(&self, failures: &[(DenialReason, String)]) -> EntryVerdict {
        let reasons: Vec<_> = failures.iter().map(|(reason, _)| *reason).collect();
        let reason = most_telling(&reasons);
        let cause = if reason == DenialReason::SignatureNotFound {
            "signature not found"
        } else {
            "invalid signature"
        };
        let texts: Vec<_> = failures.iter().map(|(_, text)| text.as_str()).collect();
        let detail =
            format!("failed to verify image {}: {}", self.reference.kyverno_form(), texts.join("; "));
        self.denied(reason, cause, detail)
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
        DenialReason::LimitExceeded,
        DenialReason::TransparencyLog,
        DenialReason::AnnotationMismatch,
        DenialReason::Certificate,
        DenialReason::IdentityMismatch,
    ];
    let telling = order.into_iter().find(|reason| reasons.contains(reason));
    let other = reasons.iter().find(|reason| **reason != DenialReason::SignatureNotFound);
    telling.or(other.copied()).unwrap_or(DenialReason::SignatureNotFound)
}

/// Signatures verified for one entry (design bound); more than that is refused.
const VERIFIED_LIMIT: usize = 100;
