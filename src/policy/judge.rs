//! What one entry makes of the evidence for one image.
//!
//! Three-valued to the end. An attestor is satisfied by one signature that meets all its conditions
//! (rule D3), or by one statement of exactly the wanted predicate type; a set by `required` of its
//! attestors; an entry by all of its sets, those of its attestors first, then those of its
//! attestations. What is not satisfied while something could not be reached, or without a trust root
//! that could not be loaded, is undecided, never denied; what is not satisfied by everything there is
//! is denied. Tags come first; bundles are asked for ([`EntryVerdict::NeedsBundles`]) only where they
//! did not satisfy.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::entry::{Attestor, AttestorSet, Entry, Forms, Signer};
use crate::oci::{Digest, Reference, Repository};
use crate::outcome::{Contact, Denial, DenialReason, Fault, Lookup};
use crate::sigstore::{self, Rejection, SignatureEvidence};

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
    /// the signatures it rests on (rule D8).
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
        Judgement { entry, reference, digest, evidence, now, leaves: Vec::new(), verified: 0, ends: None };
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
    /// The earliest end among the signatures that count.
    ends: Option<SystemTime>,
}

/// What an attestor must have signed.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// The image.
    Signature,
    /// A statement of this predicate type about it.
    Statement(&'a str),
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

/// Whether one piece of evidence is what an attestor wants.
enum Fit {
    Fits,
    /// A good statement, of another predicate type.
    OtherType,
    Rejected(Rejection),
}

impl<'a> Judgement<'a> {
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
                (path, set, Wanted::Statement(&attestation.predicate_type))
            })
        });
        let mut unreachable = None;
        for (path, set, wanted) in signatures.chain(statements) {
            match self.set(&path, set, wanted) {
                Answer::Satisfied => {}
                Answer::NeedsBundles => return EntryVerdict::NeedsBundles,
                Answer::Unreachable(fault) => unreachable = Some(telling(unreachable, fault)),
                // One set that fails for certain decides, whatever else could not be reached.
                Answer::Failed(failure) => return self.failed(&failure, wanted),
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

    fn signer(&mut self, path: &str, signer: &Signer, wanted: Wanted<'_>) -> Answer {
        let own = signer.repository.as_ref();
        let repository = self.entry.evidence_repository(own, self.reference.repository()).clone();
        let mut leaf = Leaf {
            path: format!("{path}{}", signer.kind.suffix()),
            repository: repository.to_string(),
            signatures: 0,
            satisfied: false,
            causes: Vec::new(),
        };
        let attestor = match &signer.attestor {
            Ok(attestor) => attestor,
            Err(fault) => {
                leaf.causes.push(fault.to_string());
                self.leaves.push(leaf);
                return Answer::Unreachable(fault.clone());
            }
        };
        let mut found = Found::default();
        for stored in self.stored(wanted) {
            self.search(stored.get(&repository), attestor, wanted, &mut leaf, &mut found);
            if leaf.satisfied {
                break;
            }
        }
        let satisfied = leaf.satisfied;
        let (reason, cause) = found.failure(&leaf.causes, wanted);
        let cause = format!("{}: {cause}", leaf.path);
        self.leaves.push(leaf);
        match (satisfied, found.not_asked, found.unreachable) {
            (true, _, _) => Answer::Satisfied,
            (false, true, _) => Answer::NeedsBundles,
            (false, false, Some(fault)) => Answer::Unreachable(fault),
            (false, false, None) => {
                Answer::Failed(Failure { causes: vec![(reason, cause)], satisfied: 0, required: 1 })
            }
        }
    }

    /// Where what is wanted may be stored, in the order in which it is looked at.
    fn stored(&self, wanted: Wanted<'_>) -> Vec<&'a Stored> {
        let evidence = self.evidence;
        let tags = match wanted {
            Wanted::Signature => &evidence.legacy,
            Wanted::Statement(_) => &evidence.attestations,
        };
        match self.entry.forms {
            Forms::Legacy => vec![tags],
            Forms::LegacyThenBundles | Forms::LegacyAndArtifacts => vec![tags, &evidence.bundles],
            Forms::Bundles => vec![&evidence.bundles],
        }
    }

    fn search(
        &mut self,
        lookup: Option<&Lookup<Vec<SignatureEvidence>>>,
        attestor: &sigstore::Attestor,
        wanted: Wanted<'_>,
        leaf: &mut Leaf,
        found: &mut Found,
    ) {
        let pieces = match lookup {
            None => {
                found.not_asked = true;
                return;
            }
            Some(Lookup::Absent) => return,
            Some(Lookup::Unreachable(fault)) => {
                leaf.causes.push(fault.to_string());
                found.unreachable = Some(telling(found.unreachable.take(), fault.clone()));
                return;
            }
            Some(Lookup::Found(pieces)) => pieces,
        };
        if pieces.is_empty() {
            // Something is stored there, though none of it can be a signature.
            found.reasons.push(DenialReason::SignatureInvalid);
            leaf.causes.push(format!("nothing that is stored there is {}", wanted.noun()));
        }
        for piece in in_order(pieces, self.entry.forms, wanted) {
            leaf.signatures += 1;
            if self.verified >= VERIFIED_LIMIT {
                found.reasons.push(DenialReason::LimitExceeded);
                leaf.causes.push(format!("more than {VERIFIED_LIMIT} signatures"));
                return;
            }
            self.verified += 1;
            match self.fit(piece, attestor, wanted) {
                Fit::Fits => {
                    leaf.satisfied = true;
                    return;
                }
                Fit::OtherType => {
                    found.other_type = true;
                    leaf.causes.push("an attestation of another predicate type".to_owned());
                }
                Fit::Rejected(rejection) => {
                    found.reasons.push(rejection.reason());
                    leaf.causes.push(rejection.to_string());
                }
            }
        }
    }

    fn fit(&mut self, piece: &SignatureEvidence, attestor: &sigstore::Attestor, wanted: Wanted<'_>) -> Fit {
        let (digest, end) = match wanted {
            Wanted::Signature => match sigstore::verify_signature(piece, self.digest, attestor, self.now) {
                Ok(verified) => (verified.digest(), verified.holds_until()),
                Err(rejection) => return Fit::Rejected(rejection),
            },
            Wanted::Statement(kind) => {
                match sigstore::verify_statement(piece, self.digest, attestor, self.now) {
                    Ok(verified) if verified.predicate_type() != kind => return Fit::OtherType,
                    Ok(verified) => (verified.digest(), verified.holds_until()),
                    Err(rejection) => return Fit::Rejected(rejection),
                }
            }
        };
        if digest != *self.digest {
            return Fit::Rejected(Rejection::SubjectMismatch);
        }
        self.ends = [self.ends, end].into_iter().flatten().min();
        Fit::Fits
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

/// What looking for one attestor's signature gave, besides the signature.
#[derive(Default)]
struct Found {
    reasons: Vec<DenialReason>,
    other_type: bool,
    unreachable: Option<Fault>,
    not_asked: bool,
}

impl Found {
    /// Why nothing fits, in Kyverno's words.
    fn failure(&self, causes: &[String], wanted: Wanted<'_>) -> (DenialReason, String) {
        let kind = match wanted {
            Wanted::Signature if causes.is_empty() => {
                return (DenialReason::SignatureNotFound, "no signatures found".to_owned());
            }
            Wanted::Signature => {
                let cause = format!("no matching signatures: {}", causes.join("\n "));
                return (most_telling(&self.reasons), cause);
            }
            Wanted::Statement(kind) => kind,
        };
        if self.other_type {
            let cause = format!("attestations not found for predicate type {kind}");
            return (DenialReason::AttestationNotFound, cause);
        }
        let mut reason = most_telling(&self.reasons);
        if reason == DenialReason::SignatureNotFound {
            reason = DenialReason::AttestationNotFound;
        } else if reason == DenialReason::SignatureInvalid {
            reason = DenialReason::AttestationInvalid;
        }
        (reason, format!("no matching attestations: {}", causes.join("\n ")))
    }
}

impl Wanted<'_> {
    const fn noun(self) -> &'static str {
        match self {
            Self::Signature => "a signature",
            Self::Statement(_) => "an attestation",
        }
    }
}

/// The pieces that an entry of `forms` counts and that can be what is wanted. Attestations that say
/// (without proof) that they are of the wanted type come first, so that the limit is spent on them.
fn in_order<'a>(
    pieces: &'a [SignatureEvidence],
    forms: Forms,
    wanted: Wanted<'_>,
) -> Vec<&'a SignatureEvidence> {
    let counts = |piece: &&SignatureEvidence| match piece {
        SignatureEvidence::Bundle { .. } => {
            matches!(forms, Forms::Bundles | Forms::LegacyThenBundles)
        }
        SignatureEvidence::CosignLayer { .. } => {
            forms != Forms::Bundles && matches!(wanted, Wanted::Signature)
        }
        SignatureEvidence::AttestationLayer { .. } => {
            forms != Forms::Bundles && matches!(wanted, Wanted::Statement(_))
        }
    };
    let says_other = |piece: &&SignatureEvidence| match (piece, wanted) {
        (SignatureEvidence::AttestationLayer { annotations, .. }, Wanted::Statement(kind)) => {
            annotations.get(PREDICATE_TYPE).is_some_and(|said| said != kind)
        }
        _ => false,
    };
    let mut pieces: Vec<_> = pieces.iter().filter(counts).collect();
    pieces.sort_by_key(says_other);
    pieces
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
    let nothing = [DenialReason::SignatureNotFound, DenialReason::AttestationNotFound];
    let telling = order.into_iter().find(|reason| reasons.contains(reason));
    let other = reasons.iter().find(|reason| !nothing.contains(reason)).or(reasons.first());
    telling.or(other.copied()).unwrap_or(DenialReason::SignatureNotFound)
}

/// Signatures and attestations verified for one entry (design bound); more than that is refused.
const VERIFIED_LIMIT: usize = 100;
/// The annotation in which cosign writes the predicate type of an attestation's layer.
const PREDICATE_TYPE: &str = "predicateType";
