//! The statements of one attestor: which count as its own, and whether they meet the conditions.
//!
//! As upstream, in the order in which they are stored:
//!
//! 1. A statement is **kept** if its signature holds by the attestor's key or authorities (log, timestamps,
//!    chain and SCT included) and it is about the image. Whoever else signed something there changes nothing.
//! 2. Of the kept ones those of exactly the wanted predicate type count, and **every one of them** must fit:
//!    the identity and annotations of the attestor, then the conditions. The first that does not decides.
//!    So somebody with a certificate of the same authorities can make an image fail by a layer of the wanted
//!    type, and nobody can make it pass. In bundles an identity that does not fit is passed over, as there
//!    upstream does not keep it.
//! 3. Without conditions it is enough that one is kept. One predicate at least must be an object.
//! 4. The first of them with an object for a predicate is what the attestation's name stands for from then
//!    on, its own conditions included; it stands for nothing if the attestor is not satisfied.
//!
//! "Every one" is about honest publishers: who may write into the registry may also take a statement away.
//! Therefore layers whose (unsigned) annotation says another type are looked at only where no other is of
//! the wanted type, and the first place that has one (tags, then bundles) decides. Statements that are proven
//! to be of another type are not counted against the limit; where not all that may count can be verified,
//! the attestor is not satisfied.

use serde_json::Value;

use super::search::Found;
use super::{Judgement, Leaf, Statement, TEXT_LIMIT};
use crate::outcome::DenialReason;
use crate::policy::condition::{Checked, Outcome};
use crate::policy::entry::Attestation;
use crate::policy::variables::cut;
use crate::sigstore::{self, Rejection, SignatureEvidence};

impl Judgement<'_> {
    pub(super) fn statements<'e>(
        &mut self,
        pieces: impl Iterator<Item = &'e SignatureEvidence>,
        attestor: &sigstore::Attestor,
        attestation: &Attestation,
        leaf: &mut Leaf,
        found: &mut Found,
    ) {
        let says_other = |piece: &&SignatureEvidence| match piece {
            SignatureEvidence::AttestationLayer { annotations, .. } => {
                annotations.get(PREDICATE_TYPE).is_some_and(|said| *said != attestation.predicate_type)
            }
            SignatureEvidence::CosignLayer { .. } | SignatureEvidence::Bundle { .. } => false,
        };
        let (others, first): (Vec<_>, Vec<_>) = pieces.partition(says_other);
        let known = attestation.name.as_ref().map(|name| (name, self.context.forget(name)));
        for group in [first, others] {
            self.group(&group, attestor, attestation, leaf, found);
            if leaf.satisfied {
                return;
            }
            if found.failed.is_some() {
                break;
            }
        }
        // Its predicate is not known by the name after all.
        if let Some((name, known)) = known {
            self.context.forget(name);
            if let Some(known) = known {
                self.context.attestation(name, known);
            }
        }
    }

    fn group(
        &mut self,
        pieces: &[&SignatureEvidence],
        attestor: &sigstore::Attestor,
        attestation: &Attestation,
        leaf: &mut Leaf,
        found: &mut Found,
    ) {
        let kind = &attestation.predicate_type;
        let (mut kept, mut objects) = (0_usize, 0_usize);
        for piece in pieces {
            leaf.signatures += 1;
            if !self.may_verify(leaf, found) {
                if kept > 0 {
                    let cause = "not every attestation of this type could be verified".to_owned();
                    found.failed = Some((DenialReason::LimitExceeded, cause));
                }
                return;
            }
            let verified = match sigstore::verify_statement(piece, self.digest, attestor, self.now) {
                Ok(verified) if verified.predicate_type() == kind => verified,
                Ok(_) => {
                    found.other_type = true;
                    leaf.causes.push("an attestation of another predicate type".to_owned());
                    continue;
                }
                Err(rejected) if rejected.unfit.as_ref().is_some_and(|other| other != kind) => {
                    leaf.causes.push("an attestation of another predicate type by somebody else".to_owned());
                    continue;
                }
                Err(rejected) => {
                    self.verified += 1;
                    found.reject(leaf, &rejected.rejection);
                    // The signature holds, so upstream keeps a layer; of a bundle the identity is a part.
                    let layer = matches!(piece, SignatureEvidence::AttestationLayer { .. });
                    if rejected.unfit.is_some() && layer {
                        found.failed = Some((rejected.rejection.reason(), rejected.rejection.to_string()));
                        return;
                    }
                    continue;
                }
            };
            self.verified += 1;
            if verified.digest() != *self.digest {
                found.reject(leaf, &Rejection::SubjectMismatch);
                continue;
            }
            kept += 1;
            self.ends_with(verified.proven().holds_until());
            let predicate = verified.into_predicate();
            objects += usize::from(predicate.is_object());
            let (cause, conditions) = self.meets(attestation, predicate, objects);
            let outcome = if cause.is_none() { Outcome::Holds } else { Outcome::Fails };
            leaf.statements.push(Statement { outcome, cause: cause.clone().unwrap_or_default(), conditions });
            if let Some(cause) = cause {
                leaf.causes.push(cause.clone());
                found.failed = Some((DenialReason::ConditionFailed, cause));
                return;
            }
        }
        if kept > 0 && objects == 0 {
            let cause = "predicate not found in any statement".to_owned();
            leaf.causes.push(cause.clone());
            found.failed = Some((DenialReason::AttestationInvalid, cause));
        }
        leaf.satisfied = kept > 0 && objects > 0;
    }

    /// Why a predicate does not meet the conditions; `None` if it does. The first object, of `objects` so
    /// far, becomes known by the attestation's name.
    fn meets(
        &mut self,
        attestation: &Attestation,
        predicate: Value,
        objects: usize,
    ) -> (Option<String>, Vec<Checked>) {
        let named = match &attestation.name {
            Some(name) if predicate.is_object() && objects == 1 => Some(name),
            Some(_) | None => None,
        };
        let kept;
        let predicate = match named {
            Some(name) => {
                self.context.attestation(name, predicate);
                self.context.predicate(name)
            }
            None => {
                kept = predicate;
                Some(&kept)
            }
        };
        let Some(conditions) = &attestation.conditions else { return (None, Vec::new()) };
        let Some(fields) = predicate.and_then(Value::as_object) else {
            let cause = "failed to check attestations: failed to extract predicate from statement";
            return (Some(cause.to_owned()), Vec::new());
        };
        let scope = self.context.scope(Some(fields));
        match conditions.evaluate(&scope, &mut self.budget) {
            Ok(evaluation) => {
                let cause = match evaluation.outcome {
                    Outcome::Holds => None,
                    Outcome::Fails => Some(format!(
                        "attestation checks failed for {} and predicate {}: {}",
                        self.reference.kyverno_form(),
                        attestation.predicate_type,
                        evaluation.message
                    )),
                };
                (cause, evaluation.checked)
            }
            Err(error) => {
                let text = cut(&error.to_string(), TEXT_LIMIT).into_owned();
                (Some(format!("failed to check attestations: {text}")), Vec::new())
            }
        }
    }
}

/// The annotation in which cosign writes the predicate type of an attestation's layer.
const PREDICATE_TYPE: &str = "predicateType";
