//! Evidence from another node: what of an imported file is let into the cache.
//!
//! Whoever wrote the file may have written it against this node, so nothing in it is believed. A verdict, an
//! admission or a credential has no place in it (`cache::archive`). Each image is verified anew, by the
//! policies and trust roots in force here, offline, from the imported pieces alone. It is kept if all that
//! covers it holds and a rule that asks for a proof has one, and of it only the pieces that lie where such a
//! rule looks. What does not verify leaves nothing behind.
//!
//! Signatures prove who signed what. They do not prove that the registry still has them: one that was
//! withdrawn verifies for ever. A look at the registry would tell, and an import takes none. So:
//!
//! - **Imported evidence is never fresh.** It serves only where rule O1 lets evidence past `cache.fresh`
//!   serve, while no host of the registry answers. Where one does, its answer counts: what a fresh look
//!   would refuse, an import does not let pass.
//! - It ends with `cache.stale`, counted from when it was fetched as the file claims, and no later than now. A
//!   lie gains at most `cache.stale` from the import. With `cache.stale: 0s` nothing is imported.
//! - **No verdict, admission or tag is recorded** (rule O2). Which digest a tag meant elsewhere is signed by
//!   nobody: believing it would let the writer of the file choose an older signed image for this node.
//! - What this node fetched of an image stays as long as it is fresh and satisfies the policies. Of what is
//!   past that, and of what was imported before, the younger is kept. Imported evidence makes no room for
//!   itself.
//!
//! An admission comes as ever, by a pull or by the background's look at a present image (rule S6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::evidence::{decoded, encoded, kept_in, places};
use super::resolve::Resolved;
use super::{Gate, PullRequest, verdict_key, verification};
use crate::cache::archive::{ImageEvidence, Piece};
use crate::cache::{Age, ImageName, NotKept};
use crate::oci::{Reference, Repository};
use crate::outcome::{Contact, Denial, Fault, FaultReason};
use crate::policy::evaluate::{self, Decision, Permit, Resolution, Source};
use crate::policy::{Coverage, Entry, EntryVerdict, Evidence, PodFacts};
use crate::registry::Credentials;

/// What became of one image.
#[derive(Debug)]
pub enum Imported {
    /// It verifies, and its evidence is kept.
    Kept,
    /// What is here already satisfies the policies.
    Known,
    /// It does not verify.
    Denied(Vec<Denial>),
    /// No answer was reached.
    Undecided(Fault),
    /// It would pass without evidence, from this source.
    NotAsked(Source),
    /// It verifies, and is not kept all the same.
    NotKept(NotKept),
}

/// Evidence that everything which covers its image was asked about.
struct Judged {
    decision: Decision,
    /// Whether an entry that asks for evidence is satisfied.
    proven: bool,
    /// What of it lies where such entries look.
    evidence: Evidence,
}

impl Gate {
    /// Verifies imported evidence, and keeps what proves something. Asks nobody.
    pub async fn import(&self, imported: ImageEvidence) -> Imported {
        let ImageEvidence { image, fetched_at, tags: _, pieces } = imported;
        let reference = Reference::parse(&format!("{}@{}", image.repository, image.digest)).ok();
        let Some(reference) = reference.filter(|reference| *reference.repository() == image.repository)
        else {
            return Imported::Undecided(Fault::new(FaultReason::ReferenceInvalid, "no image has this name"));
        };
        self.store.opened(self.settings.verification).await;
        if let Some(kept) = self.store.evidence(&image.repository, &image.digest).await {
            let younger =
                kept.age == Age::Fresh || kept.at.seconds() >= fetched_at.min(self.store.now().seconds());
            let known = self.judge_offline(&reference, &image, decoded(&kept.pieces)).await;
            if younger && known.proven && matches!(known.decision, Decision::Allow(_)) {
                return Imported::Known;
            }
        }
        let pieces: Vec<_> = pieces.into_iter().map(|Piece(bytes)| bytes).collect();
        let Judged { decision, proven, evidence } =
            self.judge_offline(&reference, &image, decoded(&pieces)).await;
        let permit = match decision {
            Decision::Allow(permit) => permit,
            Decision::Deny(denials) => return Imported::Denied(denials),
            Decision::Undecided(fault) => return Imported::Undecided(fault),
        };
        // Audit and `failurePolicy: Ignore` let pass what is not proven.
        if let Some(fault) = permit.would_fault() {
            return Imported::Undecided(fault.clone());
        }
        if !permit.would_deny().is_empty() {
            return Imported::Denied(permit.would_deny().to_vec());
        }
        if !proven {
            return Imported::NotAsked(permit.source());
        }
        if let Err(not_kept) = self.store.put_imported(&image, &encoded(&evidence), fetched_at) {
            return Imported::NotKept(not_kept);
        }
        // Read back: a long file must not overrun the queue of a slow disk, and a full one is told.
        match self.store.evidence(&image.repository, &image.digest).await {
            Some(_) => Imported::Kept,
            None => Imported::NotKept(NotKept::Unwritten),
        }
    }

    /// Whether what is stored, of whatever age, proves this image under the snapshot in force.
    pub(super) async fn stored_proves(&self, reference: &Reference, image: &ImageName) -> bool {
        let Some(pieces) = self.store.evidence_of_any_age(image).await else { return false };
        let Judged { decision, proven, .. } = self.judge_offline(reference, image, decoded(&pieces)).await;
        let proves = |permit: &Permit| permit.would_deny().is_empty() && permit.would_fault().is_none();
        proven && matches!(&decision, Decision::Allow(permit) if proves(permit))
    }

    /// Judges an image by this evidence alone.
    async fn judge_offline(&self, reference: &Reference, image: &ImageName, evidence: Evidence) -> Judged {
        let snapshot = self.current.take();
        let request = PullRequest {
            reference: reference.clone(),
            pod: PodFacts::default(),
            credentials: Credentials::Anonymous,
        };
        let applications = snapshot.policies.matching(reference, &request.pod, SystemTime::now());
        let case = snapshot.case(reference, &request.pod, &applications);
        if let Some(decision) = evaluate::before_verifying(&case, image.digest) {
            return Judged { decision, proven: false, evidence: Evidence::default() };
        }
        let covered = applications.iter().flat_map(|application| &application.entries);
        let entries: Vec<&Arc<Entry>> = covered
            .filter(|covered| covered.coverage == Coverage::Judged)
            .map(|covered| &covered.entry)
            .collect();
        let looked_in: BTreeSet<Repository> =
            entries.iter().flat_map(|entry| places(entry, &image.repository)).collect();
        let evidence = kept_in(evidence, &looked_in);
        let wanted: Vec<_> = entries
            .iter()
            .map(|entry| (Arc::clone(entry), verdict_key(entry, &request, image.digest)))
            .collect();
        let resolved = Resolved {
            digest: image.digest,
            resolution: Resolution::NotAsked,
            contact: Contact::None,
            fault: None,
        };
        let job = self.job(&request, resolved, wanted.clone());
        // On a task of its own: whatever the pieces do to a parser ends there.
        let judging = tokio::spawn(job.offline(evidence.clone(), looked_in));
        let outcomes = judging
            .await
            .unwrap_or_else(|_| wanted.iter().map(|(entry, _)| verification::broken(entry)).collect());
        let judged: Vec<_> = outcomes.into_iter().map(|outcome| outcome.judged).collect();
        let proven = judged.iter().zip(&wanted).any(|(judged, (entry, _))| {
            entry.needs_evidence() && matches!(judged.verdict, EntryVerdict::Satisfied(_))
        });
        let decision = evaluate::decide(&case, image.digest, Resolution::NotAsked, &judged);
        Judged { decision, proven, evidence }
    }
}
