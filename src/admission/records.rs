//! What is remembered of permits: admissions, and who pulled.
//!
//! An admission that rests on verdicts is a *proof* ([`is_proof`]): it outlives snapshots until the
//! background takes it back. It hands its image id on, as does that of an approved digest. What a rule let
//! pass was forwarded as sent, so the id it came back with is that of whatever containerd resolved, and
//! proves nothing. Who pulls is remembered once containerd did it, never before: a permit proves no credentials.

use super::audit::Phase;
use super::{Admitted, Gate};
use crate::cache::{Admission, Durability, ImageName};
use crate::oci::{Digest, Reference};
use crate::policy::evaluate::{Forward, Source};

/// How an image that was permitted came to be on the node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arrival<'a> {
    /// It was not forwarded yet.
    Awaited,
    /// containerd pulled it, under this id.
    Pulled(&'a str),
    /// It was there, under this id, and nobody could be asked.
    Served(&'a str),
}

impl Gate {
    /// Hears that containerd pulled the image: the admission learns its id, and the name may not be
    /// hidden for a while (rules C3, S2). `target` is what containerd's record says, for images that
    /// were forwarded as sent.
    pub fn pulled(&self, admitted: &Admitted, image_id: &str, target: Option<Digest>) {
        self.audit.phase(Phase::Forward, admitted.forwarded.elapsed());
        // What was forwarded as sent is what containerd resolved, whatever we knew.
        let digest = match admitted.permit.forward() {
            Forward::Pinned(_) => admitted.permit.digest(),
            Forward::AsSent => admitted.request.reference.digest().or(target),
        };
        self.arrived(admitted, digest, Arrival::Pulled(image_id));
    }

    /// Hears that the image was answered as it is on the node (rule O4). Nobody pulled it.
    pub fn served(&self, admitted: &Admitted, image_id: &str) {
        self.audit.phase(Phase::Forward, admitted.forwarded.elapsed());
        self.arrived(admitted, admitted.permit.digest(), Arrival::Served(image_id));
    }

    fn arrived(&self, admitted: &Admitted, digest: Option<Digest>, arrival: Arrival<'_>) {
        let reference = &admitted.request.reference;
        if let Some(digest) = digest {
            self.record(admitted, digest, arrival);
            let name = reference.containerd_tag_name().unwrap_or_else(|| reference.pinned(digest));
            let image = ImageName { repository: reference.repository().clone(), digest };
            let would_deny = admitted.permit.would_deny();
            if admitted.permit.would_fault().is_none() || !would_deny.is_empty() {
                self.decided(&name, image, would_deny);
            }
        }
        let now = self.store.now();
        self.guard.present(&shown_name(reference), now);
        if let Some(image_id) = arrival.image_id() {
            self.guard.present(image_id, now);
        }
    }

    /// Records a permit (rule C3). Of an earlier admission only one of the digest hands its image id on, and
    /// what a rule or a fault lets pass replaces no proof: that holds for every pod, not only for this one.
    pub(super) fn record(&self, admitted: &Admitted, digest: Digest, arrival: Arrival<'_>) {
        let source = admitted.permit.source();
        let repository = admitted.request.reference.repository();
        let known = self.store.admission(repository, &digest).filter(knows_its_id);
        if !is_by_digest(source) && known.as_ref().is_some_and(is_proof) {
            return;
        }
        let image_id = arrival.image_id().map(str::to_owned);
        let (known_id, known_parent) = known.map_or((None, None), |known| (known.image_id, known.parent));
        let admission = Admission {
            repository: repository.clone(),
            digest,
            source: source.word().to_owned(),
            snapshot: admitted.snapshot,
            image_id: image_id.or(known_id),
            at: self.store.now(),
            pulled_by: match arrival {
                Arrival::Pulled(_) => self.pullers(&admitted.request),
                Arrival::Awaited | Arrival::Served(_) => Vec::new(),
            },
            parent: admitted.parent.or(known_parent),
            undecided_since: None,
        };
        let durability =
            if source == Source::Ignored { Durability::ThisProcess } else { Durability::Durable };
        self.store.admit(admission, durability);
        // The look that the newer snapshot asked for may have been here already (rule S5).
        if admitted.snapshot != self.current.take().fingerprint {
            self.look_again.notify_one();
        }
    }
}

impl<'a> Arrival<'a> {
    const fn image_id(self) -> Option<&'a str> {
        match self {
            Self::Awaited => None,
            Self::Pulled(image_id) | Self::Served(image_id) => Some(image_id),
        }
    }
}

/// Whether a permit of this source rests on the digest, and was forwarded as that.
pub(super) const fn is_by_digest(source: Source) -> bool {
    match source {
        Source::Verified | Source::Fresh | Source::Stale | Source::Approved => true,
        Source::Skipped | Source::Audited | Source::Exempt | Source::Unmatched | Source::Ignored => false,
    }
}

/// Whether the image id of an admission is that of its digest.
pub(super) fn knows_its_id(admission: &Admission) -> bool {
    is_proof(admission) || admission.source == Source::Approved.word()
}

/// Whether an admission rests on verdicts, and not on a rule that let the image pass.
pub(super) fn is_proof(admission: &Admission) -> bool {
    [Source::Verified, Source::Fresh, Source::Stale].iter().any(|source| source.word() == admission.source)
}

/// One name for all spellings of a reference.
pub(super) fn shown_name(reference: &Reference) -> String {
    reference.normalised_form()
}
