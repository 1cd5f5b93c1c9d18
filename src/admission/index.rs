//! A child manifest and the index that lists it (rule D7).
//!
//! A child passes if an index of the same repository that was admitted by proof lists it, and that
//! index satisfies every entry now. Which admitted indexes list the child is asked of the registry, by
//! digest and with the credentials of the pull: within one time limit, in a slot of the verifications,
//! and once for all who ask the same at once. The verdicts on an index are those of any image. Which index
//! it was is kept with the admission of the child, for when no registry answers.

use std::cmp::Reverse;
use std::sync::Arc;

use super::audit::Phases;
use super::flight::Sharing;
use super::resolve::Resolved;
use super::{Gate, PullRequest, Snapshot, is_proof};
use crate::oci::{Digest, Index, Manifest};
use crate::outcome::Contact;
use crate::policy::evaluate::{self, Case, Judged, Permit, Resolution};

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
    pub(super) async fn by_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
    ) -> Option<(Permit, Digest)> {
        // A tag stands for the index itself; only a digest can name a child.
        request.reference.digest()?;
        let repository = request.reference.repository();
        let mut admitted = self.store.admissions_in(repository);
        admitted.sort_by_key(|admission| (Reverse(admission.at.seconds()), admission.digest));
        let others = admitted.iter().filter(|admission| admission.digest != child && is_proof(admission));
        for admission in others.take(INDEXES) {
            let Some(index) = self.index(request, admission.digest).await else { continue };
            if !index.manifests.iter().any(|entry| entry.digest == child) {
                continue;
            }
            let judged = self.judge_index(snapshot, request, case, admission.digest, Contact::Answered).await;
            if let Some(permit) = evaluate::by_index(case, child, admission.digest, &index, &judged) {
                return Some((permit, admission.digest));
            }
        }
        None
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
        let judged = self.judge_index(snapshot, request, case, parent, Contact::None).await;
        Some((evaluate::by_parent(case, child, parent, &judged)?, parent))
    }

    /// What the entries that the child is judged by say of the index, which a registry gave or was not asked for.
    async fn judge_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        digest: Digest,
        contact: Contact,
    ) -> Vec<Judged> {
        let resolution = match contact {
            Contact::Answered => Resolution::Answered,
            Contact::None => Resolution::NotAsked,
        };
        let index = Resolved { digest, resolution, contact, fault: None };
        let outcomes = self.outcomes(snapshot, request, case.applications, index, &mut Phases::start()).await;
        outcomes.into_iter().map(|outcome| outcome.judged).collect()
    }

    /// The manifest of `digest`, if it is an index that the registry serves to these credentials.
    async fn index(&self, request: &PullRequest, digest: Digest) -> Option<Index> {
        let repository = request.reference.repository().clone();
        let credential = request.credentials.keyed_hash(&self.settings.salt, repository.host());
        let question = Digest::of(format!("{repository}@{digest}").as_bytes());
        let work = || {
            let (registry, slots) = (Arc::clone(&self.registry), Arc::clone(&self.slots));
            let (repository, credentials) = (repository.clone(), request.credentials.clone());
            let limit = self.settings.verification;
            async move {
                let _slot = slots.take(repository.host()).await?;
                let asking = registry.manifest(&repository, &digest, &credentials);
                match tokio::time::timeout(limit, asking).await {
                    Ok(Ok(Manifest::Index(index))) => Some(index),
                    Ok(Ok(Manifest::Image(_)) | Err(_)) | Err(_) => None,
                }
            }
        };
        // What was served to others says nothing of what these credentials may see.
        self.indexes.join(question, credential, |_| Sharing::SameCredentials, work).await.flatten()
    }
}

/// Admitted images of one repository that are looked at as an index of a denied child.
const INDEXES: usize = 20;
