//! A child manifest and the index that lists it (rule D7).
//!
//! A child passes if an index of the same repository that was admitted by proof lists it, and that
//! index satisfies every entry now. Which admitted indexes list the child is asked of the registry, by
//! digest and with the credentials of the pull: within one time limit, in a slot of the verifications,
//! and once for all who ask the same at once. The verdicts on an index are those of any image. Which index
//! it was is kept with the admission of the child, for when no registry answers. What could not be found out
//! is a fault: a child is denied only where no index vouches for it (rule D4).

use std::cmp::Reverse;
use std::sync::Arc;

use super::audit::Phases;
use super::flight::Sharing;
use super::resolve::Resolved;
use super::{Gate, Outcome, PullRequest, Snapshot, is_proof};
use crate::oci::{Digest, Index, Manifest};
use crate::outcome::{Contact, Fault, FaultReason};
use crate::policy::evaluate::{self, Case, Judged, Permit, Resolution};
use crate::policy::{Action, Application, EntryVerdict};

impl Gate {
    /// Rule D7: a child manifest passes by its own signature, or by an index of the same repository that
    /// was admitted, lists it, and satisfies every entry itself.
    ///
    /// | signed | index | its children, by digest |
    /// |---|---|---|
    /// | index only | passes | pass once the index was admitted in this repository |
    /// | one child only | refused | that child passes, the others do not |
    /// | both | passes | pass |
    ///
    /// An index says something of its children because it is signed, never the other way round: one that
    /// lists a good child admits neither itself nor another child. The same index in another repository, and
    /// one that only a rule let pass, admit nothing. What a tag stands for is judged as what it is.
    ///
    /// `in_doubt` is set where it is doubtful whether an index that lists the child is denied.
    ///
    /// # Errors
    /// What kept it from being found out. The index that admitted the child before is looked at first, and
    /// while there is one no other's manifest counts: an image beside it that cannot be read for long is no
    /// reason never to decide.
    pub(super) async fn by_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
        in_doubt: &mut bool,
    ) -> Result<Option<(Permit, Digest)>, Fault> {
        // A tag stands for the index itself; only a digest can name a child.
        if request.reference.digest().is_none() {
            return Ok(None);
        }
        let looking = self.among_admitted(snapshot, request, case, child, in_doubt);
        match tokio::time::timeout(self.settings.verification, looking).await {
            // The registry answered for the child: no fault here is one that a rule may ignore.
            Ok(found) => found.map_err(|fault| Fault { contact: Contact::Answered, ..fault }),
            Err(_) => {
                Err(Fault::new(FaultReason::Timeout, "looking for an index that lists it took too long"))
            }
        }
    }

    async fn among_admitted(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
        in_doubt: &mut bool,
    ) -> Result<Option<(Permit, Digest)>, Fault> {
        let repository = request.reference.repository();
        let mut admitted = self.store.admissions_in(repository);
        admitted.retain(|admission| admission.digest != child && is_proof(admission));
        let parent = self.store.admission(repository, &child).and_then(|admission| admission.parent);
        let parent = parent.filter(|parent| admitted.iter().any(|admission| admission.digest == *parent));
        admitted.sort_by_key(|admission| {
            (Some(admission.digest) != parent, Reverse(admission.at.seconds()), admission.digest)
        });
        // The first by its digest: the text is the same at each try (rule E2).
        let mut unknown: Option<(Digest, Fault)> = None;
        let mut note = |index: Digest, fault: Fault| {
            if unknown.as_ref().is_none_or(|(first, _)| index < *first) {
                unknown = Some((index, fault));
            }
        };
        for admission in admitted.iter().take(INDEXES) {
            let index = match self.index(request, admission.digest).await {
                Ok(Some(index)) => index,
                Ok(None) => continue,
                Err(fault) => {
                    if parent.is_none_or(|parent| parent == admission.digest) {
                        note(admission.digest, fault);
                    }
                    continue;
                }
            };
            if !index.manifests.iter().any(|entry| entry.digest == child) {
                continue;
            }
            let outcomes =
                self.judge_index(snapshot, request, case, admission.digest, Contact::Answered).await;
            *in_doubt |= is_doubtful(case, &outcomes);
            match evaluate::by_parent(case, child, admission.digest, &judged(outcomes)) {
                Ok(Some(permit)) => return Ok(Some((permit, admission.digest))),
                Ok(None) => {}
                Err(fault) => note(admission.digest, fault),
            }
        }
        unknown.map_or(Ok(None), |(_, fault)| Err(fault))
    }

    /// The same while no registry answers (rule O1), by the index that admitted the child before: what it
    /// lists never changes.
    pub(super) async fn by_known_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
    ) -> Option<(Permit, Digest)> {
        request.reference.digest()?;
        let proof = |digest| self.store.admission(request.reference.repository(), &digest).filter(is_proof);
        let parent = proof(proof(child)?.parent?)?.digest;
        let outcomes = self.judge_index(snapshot, request, case, parent, Contact::None).await;
        Some((evaluate::by_parent(case, child, parent, &judged(outcomes)).ok()??, parent))
    }

    /// What the entries that the child is judged by say of the index, which a registry gave or was not asked for.
    async fn judge_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        digest: Digest,
        contact: Contact,
    ) -> Vec<Outcome> {
        let resolution = match contact {
            Contact::Answered => Resolution::Answered,
            Contact::None => Resolution::NotAsked,
        };
        let index = Resolved { digest, resolution, contact, fault: None };
        self.outcomes(snapshot, request, case.applications, index, &mut Phases::start()).await
    }

    /// The manifest of `digest`, if it is there and an index, as the registry serves it to these credentials.
    async fn index(&self, request: &PullRequest, digest: Digest) -> Result<Option<Index>, Fault> {
        let repository = request.reference.repository().clone();
        let credential = request.credentials.keyed_hash(&self.settings.salt, repository.host());
        let question = Digest::of(format!("{repository}@{digest}").as_bytes());
        let work = || {
            let (registry, slots) = (Arc::clone(&self.registry), Arc::clone(&self.slots));
            let (repository, credentials) = (repository.clone(), request.credentials.clone());
            let limit = self.settings.verification;
            async move {
                let Some(_slot) = slots.take(repository.host()).await else {
                    return Err(Fault::new(FaultReason::Internal, "no slot is left to look at an index"));
                };
                let asking = registry.manifest(&repository, &digest, &credentials);
                match tokio::time::timeout(limit, asking).await {
                    Ok(Ok(Manifest::Index(index))) => Ok(Some(index)),
                    Ok(Ok(Manifest::Image(_))) => Ok(None),
                    // Not there, or not for these credentials.
                    Ok(Err(Fault {
                        reason: FaultReason::ImageNotFound | FaultReason::RegistryDenied,
                        ..
                    })) => Ok(None),
                    Ok(Err(fault)) => Err(fault),
                    Err(_) => Err(Fault::new(FaultReason::Timeout, "the registry did not answer in time")),
                }
            }
        };
        // What was served to others says nothing of what these credentials may see.
        let found = self.indexes.join(question, credential, |_| Sharing::SameCredentials, work).await;
        found.unwrap_or_else(|| Err(Fault::new(FaultReason::Internal, "looking at an index broke off")))
    }
}

/// Whether all that denies an image is in doubt.
fn is_doubtful(case: &Case<'_>, outcomes: &[Outcome]) -> bool {
    let refuses = |Judged { policy, rule, verdict, .. }: &Judged| {
        let enforced = |application: &&Application| application.action == Action::Enforce;
        let mut of_it = case.applications.iter().filter(enforced);
        matches!(verdict, EntryVerdict::Denied(_))
            && of_it.any(|application| application.policy == *policy && application.rule == *rule)
    };
    let mut denied = outcomes.iter().filter(|outcome| refuses(&outcome.judged)).peekable();
    denied.peek().is_some() && denied.all(|outcome| outcome.in_doubt)
}

fn judged(outcomes: Vec<Outcome>) -> Vec<Judged> {
    outcomes.into_iter().map(|outcome| outcome.judged).collect()
}

/// Admitted images of one repository that are looked at as an index of a denied child.
const INDEXES: usize = 20;
