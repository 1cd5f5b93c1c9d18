//! Which present images are served while their registry is away (rule O4).
//!
//! Asked once containerd's own pull failed without an answer. An image is served if the permit of this very
//! pull rests on its digest, our own request with the credentials of this pull gets no answer from any host
//! either, and `outage.servePresent` names who pulls:
//!
//! | mode | who |
//! |---|---|
//! | `never` | nobody |
//! | `anonymous` | pulls without credentials |
//! | `credentials` | also the same host, user and password that containerd once pulled it with |
//! | `namespace` | also the same user of the host, whatever the password is by now, in the same namespace |
//!
//! Only a pull that containerd carried out proves credentials: one that was judged, or served from here, adds
//! nobody. An image that came otherwise than by a pull (an import, a copy) was pulled by nobody, so only pulls
//! without credentials get it, and which image id it has is for the caller to find out.

use super::{Admitted, Gate, PullRequest, ServePresent, records};
use crate::oci::Digest;
use crate::outcome::Contact;
use crate::registry::Credentials;

/// An image that may be served if containerd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servable {
    /// What was verified.
    pub digest: Digest,
    /// The id under which containerd once pulled it; none if it never did.
    pub image_id: Option<String>,
}

impl Gate {
    /// Whether a present image may be served although containerd's pull failed without an answer.
    pub async fn may_serve_present(&self, admitted: &Admitted) -> Option<Servable> {
        let digest = admitted.permit.digest().filter(|_| records::is_by_digest(admitted.permit.source()))?;
        let request = &admitted.request;
        let repository = request.reference.repository();
        let admission = self.store.admission(repository, &digest).filter(records::knows_its_id)?;
        let anonymous = request.credentials == Credentials::Anonymous;
        let pulled_it = |puller: Option<Digest>| puller.is_some_and(|it| admission.pulled_by.contains(&it));
        let allowed = match self.settings.serve_present {
            ServePresent::Never => false,
            ServePresent::Anonymous => anonymous,
            ServePresent::Credentials => anonymous || pulled_it(Some(self.credential(request))),
            ServePresent::Namespace => {
                anonymous || pulled_it(Some(self.credential(request))) || pulled_it(self.tenant(request))
            }
        };
        if !allowed {
            return None;
        }
        let asking = self.registry.manifest(repository, &digest, &request.credentials);
        match tokio::time::timeout(self.settings.verification, asking).await {
            Ok(Err(fault)) if fault.contact == Contact::None => {
                Some(Servable { digest, image_id: admission.image_id })
            }
            Ok(Ok(_) | Err(_)) | Err(_) => None,
        }
    }

    /// Who pulls, in every form in which it may count later.
    pub(super) fn pullers(&self, request: &PullRequest) -> Vec<Digest> {
        [Some(self.credential(request)), self.tenant(request)].into_iter().flatten().collect()
    }

    fn credential(&self, request: &PullRequest) -> Digest {
        request.credentials.keyed_hash(&self.settings.salt, request.reference.repository().host())
    }

    /// Whoever has no user, or is in no namespace, is known by the credentials alone.
    fn tenant(&self, request: &PullRequest) -> Option<Digest> {
        let namespace = request.pod.namespace.as_deref()?;
        let host = request.reference.repository().host();
        request.credentials.keyed_hash_of_user(&self.settings.salt, host, namespace)
    }
}
