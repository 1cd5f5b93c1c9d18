//! A child manifest and the index that lists it (rule D7).
//!
//! A child passes if an index of the same repository that was admitted by proof lists it, and that
//! index satisfies every entry now. Which admitted indexes list the child is asked of the registry, by
//! digest and with the credentials of the pull: within one time limit, in a slot of the verifications,
//! and once for all who ask the same at once. The verdicts on an index are those of any image.

use std::cmp::Reverse;
use std::sync::Arc;

use super::audit::Phases;
use super::{Gate, PullRequest, Snapshot, is_proof};
use crate::oci::{Digest, Manifest};
use crate::policy::evaluate::{self, Case, Permit, Resolution};

impl Gate {
    /// Rule D7: a child manifest passes by an index of the same repository that was admitted, lists
    /// it, and satisfies every entry itself.
    pub(super) async fn by_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
    ) -> Option<Permit> {
        // A tag stands for the index itself; only a digest can name a child.
        request.reference.digest()?;
        let repository = request.reference.repository();
        let mut admitted = self.store.admissions_in(repository);
        admitted.sort_by_key(|admission| (Reverse(admission.at.seconds()), admission.digest));
        let others = admitted.iter().filter(|admission| admission.digest != child && is_proof(admission));
        for admission in others.take(INDEXES) {
            let fetching = self.registry.manifest(repository, &admission.digest, &request.credentials);
            let Ok(Ok(Manifest::Index(index))) =
                tokio::time::timeout(self.settings.verification, fetching).await
            else {
                continue;
            };
            if !index.manifests.iter().any(|entry| entry.digest == child) {
                continue;
            }
            let mut phases = Phases::start();
            let resolution = Resolution::Answered;
            let outcomes = self
                .outcomes(snapshot, request, case.applications, admission.digest, resolution, &mut phases)
                .await;
            let judged: Vec<_> = outcomes.into_iter().map(|outcome| outcome.judged).collect();
            if let Some(permit) = evaluate::by_index(case, child, admission.digest, &index, &judged) {
                return Some(permit);
            }
        }
        None
    }
}

/// Admitted images of one repository that are looked at as an index of a denied child.
const INDEXES: usize = 20;
