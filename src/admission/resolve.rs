//! Tag to digest: asked of the registry once a request, never twice.
//!
//! Where no host gave any answer, the digest that the tag was last verified as is used (rule O2); it
//! is marked as not asked for, so that no tag record is written from it (rule T2). Any answer, also a
//! refusal, is the registry's word and no reason to look into the past.

use super::{Gate, PullRequest};
use crate::oci::{Digest, Reference};
use crate::outcome::{Contact, Fault};
use crate::policy::evaluate::Resolution;

/// A digest, and how it became known.
pub(super) struct Resolved {
    pub(super) digest: Digest,
    pub(super) resolution: Resolution,
    /// Whether the image's own registry answered anything in this request.
    pub(super) contact: Contact,
    /// Why the registry could not be asked, if the digest is the one last verified.
    pub(super) fault: Option<Fault>,
}

impl Gate {
    /// Tag to digest, once for this request; the digest last verified where no registry answers (O2).
    pub(super) async fn resolve(&self, request: &PullRequest) -> Result<Resolved, Fault> {
        if let Some(digest) = request.reference.digest() {
            let contact = Contact::None;
            return Ok(Resolved { digest, resolution: Resolution::NotAsked, contact, fault: None });
        }
        match self.registry.resolve(&request.reference, &request.credentials).await {
            Ok(image) => Ok(Resolved {
                digest: image.digest,
                resolution: Resolution::Answered,
                contact: Contact::Answered,
                fault: None,
            }),
            Err(fault) if fault.contact == Contact::None => {
                let known = tag_key(&request.reference).and_then(|tag| self.store.tag(&tag));
                match known {
                    Some(digest) => Ok(Resolved {
                        digest,
                        resolution: Resolution::NotAsked,
                        contact: Contact::None,
                        fault: Some(fault),
                    }),
                    None => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        }
    }
}

/// The key under which the digest of a tag is kept; none where the reference carries a digest.
pub(super) fn tag_key(reference: &Reference) -> Option<String> {
    reference.digest().is_none().then(|| reference.normalised_form())
}
