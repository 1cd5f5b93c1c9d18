//! Looking for what one attestor must have signed: a signature of the image, or a statement about it.
//!
//! Every piece of evidence that can be it is verified, at most [`VERIFIED_LIMIT`] for one verdict, until
//! one fits. Why each of the others does not is kept.

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
                Ok(verified) => (verified.digest(), verified.proven().holds_until()),
                Err(rejection) => return Fit::Rejected(rejection),
            },
            Wanted::Statement(kind) => {
                match sigstore::verify_statement(piece, self.digest, attestor, self.now) {
                    Ok(verified) if verified.predicate_type() != kind => return Fit::OtherType,
                    Ok(verified) => (verified.digest(), verified.proven().holds_until()),
                    Err(rejected) => return Fit::Rejected(rejected.rejection),
                }
            }
        };
        if digest != *self.digest {
            return Fit::Rejected(Rejection::SubjectMismatch);
        }
        self.ends = [self.ends, end].into_iter().flatten().min();
        Fit::Fits
    }
}

/// Whether one piece of evidence is what an attestor wants.
enum Fit {
    Fits,
    /// A good statement, of another predicate type.
    OtherType,
    Rejected(Rejection),
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

/// Signatures and attestations verified for one entry (design bound); more than that is refused.
const VERIFIED_LIMIT: usize = 100;
/// The annotation in which cosign writes the predicate type of an attestation's layer.
const PREDICATE_TYPE: &str = "predicateType";
