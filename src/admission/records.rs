//! What is remembered of permits: admissions, who pulled, and what may be served in an outage.
//!
//! An admission that rests on verdicts is a *proof* ([`is_proof`]): it outlives snapshots until the
//! background takes it back, and only it hands its image id on. What a rule let pass was forwarded as
//! sent, so the id it came back with is that of whatever containerd resolved, and proves nothing.

use std::time::SystemTime;

use super::audit::Phase;
use super::{Admitted, Gate, PullRequest, ServePresent};
use crate::cache::{Admission, Durability, ImageName};
use crate::oci::{Digest, Reference};
use crate::outcome::Contact;
use crate::policy::evaluate::{Forward, Source};
use crate::registry::Credentials;

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
        if let Some(digest) = digest {
            self.record(admitted, digest, Some(image_id.to_owned()));
            let reference = &admitted.request.reference;
            let name = reference.containerd_tag_name().unwrap_or_else(|| reference.pinned(digest));
            let image = ImageName { repository: reference.repository().clone(), digest };
            let would_deny = admitted.permit.would_deny();
            if admitted.permit.would_fault().is_none() || !would_deny.is_empty() {
                self.decided(&name, image, would_deny);
            }
        }
        let now = SystemTime::now();
        let reference = &admitted.request.reference;
        self.guard.present(&shown_name(reference), now);
        self.guard.present(image_id, now);
    }

    /// Whether a present image may be served although containerd's pull failed without an answer
    /// (rule O4). The caller has established that the digest is present under `image_id`.
    pub async fn may_serve_present(&self, admitted: &Admitted) -> Option<(Digest, String)> {
        let digest = admitted.permit.digest()?;
        let usable = matches!(
            admitted.permit.source(),
            Source::Verified | Source::Fresh | Source::Stale | Source::Approved
        );
        if !usable || self.settings.serve_present == ServePresent::Never {
            return None;
        }
        let repository = admitted.request.reference.repository();
        let admission = self.store.admission(repository, &digest).filter(is_proof)?;
        // Our own request with these credentials must have had no answer either.
        let asking = self.registry.manifest(repository, &digest, &admitted.request.credentials);
        match tokio::time::timeout(self.settings.verification, asking).await {
            Ok(Err(fault)) if fault.contact == Contact::None => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return None,
        }
        let image_id = admission.image_id.clone()?;
        let anonymous = admitted.request.credentials == Credentials::Anonymous;
        let allowed = match self.settings.serve_present {
            ServePresent::Never => false,
            ServePresent::Anonymous => anonymous,
            ServePresent::Credentials | ServePresent::Namespace => {
                anonymous || admission.pulled_by.contains(&self.puller(&admitted.request))
            }
        };
        allowed.then_some((digest, image_id))
    }

    /// Records a permit (rule C3). Of an earlier admission only a proof hands its image id on, and a
    /// permit under `failurePolicy: Ignore` replaces none.
    pub(super) fn record(&self, admitted: &Admitted, digest: Digest, image_id: Option<String>) {
        let source = admitted.permit.source();
        let repository = admitted.request.reference.repository();
        let known = self.store.admission(repository, &digest).filter(is_proof);
        if known.is_some() && source == Source::Ignored {
            return;
        }
        let image_id = image_id.or_else(|| known.and_then(|known| known.image_id));
        let pulled_by = if image_id.is_some() { vec![self.puller(&admitted.request)] } else { Vec::new() };
        let admission = Admission {
            repository: admitted.request.reference.repository().clone(),
            digest,
            source: source.word().to_owned(),
            snapshot: admitted.snapshot,
            image_id,
            at: self.store.now(),
            pulled_by,
        };
        let durability =
            if source == Source::Ignored { Durability::ThisProcess } else { Durability::Durable };
        self.store.admit(admission, durability);
    }

    /// Who pulls, as a keyed hash: host, user and password, and the namespace where that counts.
    fn puller(&self, request: &PullRequest) -> Digest {
        let credential =
            request.credentials.keyed_hash(&self.settings.salt, request.reference.repository().host());
        match self.settings.serve_present {
            ServePresent::Namespace => {
                let namespace = request.pod.namespace.as_deref().unwrap_or("");
                Digest::of(format!("{credential} {namespace}").as_bytes())
            }
            ServePresent::Never | ServePresent::Anonymous | ServePresent::Credentials => credential,
        }
    }
}

/// Whether an admission rests on verdicts, and not on a rule that let the image pass.
pub(super) fn is_proof(admission: &Admission) -> bool {
    [Source::Verified, Source::Fresh, Source::Stale].iter().any(|source| source.word() == admission.source)
}

/// One name for all spellings of a reference.
pub(super) fn shown_name(reference: &Reference) -> String {
    reference.normalised_form()
}
