//! Looking for what one attestor must have signed: a signature of the image, or statements about it.
//!
//! Every piece of evidence that can be a signature is verified, at most [`VERIFIED_LIMIT`] for one verdict,
//! until one fits; for statements `statements` has the rule. Why each of the others does not is kept.

use std::time::SystemTime;

use super::{Answer, Failure, Judgement, Leaf, Stored, Wanted, most_telling, telling};
use crate::outcome::{DenialReason, Fault, Lookup};
use crate::policy::entry::{Forms, Signer};
use crate::sigstore::{self, Rejection, SignatureEvidence};

impl<'a> Judgement<'a> {
    pub(super) fn signer(&mut self, path: &str, signer: &Signer, wanted: Wanted<'_>) -> Answer {
        let own = signer.repository.as_ref();
        let repository = self.entry.evidence_repository(own, self.reference.repository()).clone();
        let mut leaf = Leaf {
            path: format!("{path}{}", signer.kind.suffix()),
            repository: repository.to_string(),
            signatures: 0,
            satisfied: false,
            causes: Vec::new(),
            statements: Vec::new(),
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
        for attestor in [Some(attestor), signer.besides.as_ref()].into_iter().flatten() {
            (leaf.satisfied, leaf.signatures) = (false, 0);
            for stored in self.stored(wanted) {
                self.search(stored.get(&repository), attestor, wanted, &mut leaf, &mut found);
                if leaf.satisfied || found.failed.is_some() {
                    break;
                }
            }
            if !leaf.satisfied {
                break;
            }
        }
        let satisfied = leaf.satisfied;
        let decided = found.failed.is_some();
        let (reason, cause) = found.failed.take().unwrap_or_else(|| found.failure(&leaf.causes, wanted));
        let cause = format!("{}: {cause}", leaf.path);
        self.leaves.push(leaf);
        match (satisfied, found.not_asked && !decided, found.unreachable) {
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
        let attestation = match wanted {
            Wanted::Signature => None,
            Wanted::Statement(attestation) => Some(attestation),
        };
        let pieces = pieces.iter().filter(|piece| counts(piece, self.entry.forms, wanted));
        match attestation {
            None => self.signatures(pieces, attestor, leaf, found),
            Some(attestation) => self.statements(pieces, attestor, attestation, leaf, found),
        }
    }

    fn signatures<'e>(
        &mut self,
        pieces: impl Iterator<Item = &'e SignatureEvidence>,
        attestor: &sigstore::Attestor,
        leaf: &mut Leaf,
        found: &mut Found,
    ) {
        for piece in pieces {
            leaf.signatures += 1;
            if !self.may_verify(leaf, found) {
                return;
            }
            self.verified += 1;
            match sigstore::verify_signature(piece, self.digest, attestor, self.now) {
                Ok(verified) if verified.digest() == *self.digest => {
                    self.ends_with(verified.proven().holds_until());
                    leaf.satisfied = true;
                    return;
                }
                Ok(_) => found.reject(leaf, &Rejection::SubjectMismatch),
                Err(rejection) => found.reject(leaf, &rejection),
            }
        }
    }

    /// Whether one more may be verified; where not, that is said.
    pub(super) fn may_verify(&self, leaf: &mut Leaf, found: &mut Found) -> bool {
        if self.verified < VERIFIED_LIMIT {
            return true;
        }
        found.reasons.push(DenialReason::LimitExceeded);
        leaf.causes.push(format!("more than {VERIFIED_LIMIT} signatures"));
        false
    }

    /// What was found counts no longer than this.
    pub(super) fn ends_with(&mut self, end: Option<SystemTime>) {
        self.ends = [self.ends, end].into_iter().flatten().min();
    }
}

/// What looking for one attestor's signature or statements gave, besides these.
#[derive(Default)]
pub(super) struct Found {
    pub(super) reasons: Vec<DenialReason>,
    pub(super) other_type: bool,
    /// Why the attestor is not satisfied, whatever else there is.
    pub(super) failed: Option<(DenialReason, String)>,
    unreachable: Option<Fault>,
    not_asked: bool,
}

impl Found {
    /// One piece that does not count.
    pub(super) fn reject(&mut self, leaf: &mut Leaf, rejection: &Rejection) {
        self.reasons.push(rejection.reason());
        leaf.causes.push(rejection.to_string());
    }

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
            Wanted::Statement(attestation) => &attestation.predicate_type,
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

/// Whether a piece is of a form that the entry counts and that can be what is wanted.
fn counts(piece: &SignatureEvidence, forms: Forms, wanted: Wanted<'_>) -> bool {
    match piece {
        SignatureEvidence::Bundle { .. } => {
            matches!(forms, Forms::Bundles | Forms::LegacyThenBundles)
        }
        SignatureEvidence::CosignLayer { .. } => {
            forms != Forms::Bundles && matches!(wanted, Wanted::Signature)
        }
        SignatureEvidence::AttestationLayer { .. } => {
            forms != Forms::Bundles && matches!(wanted, Wanted::Statement(_))
        }
    }
}

/// Signatures and attestations verified for one entry (design bound); more than that is refused.
const VERIFIED_LIMIT: usize = 100;
