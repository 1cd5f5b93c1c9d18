//! What registries say of the images that rules ask for (`context[].imageRegistry`).
//!
//! The policies say what they miss, one image a rule at a time, since a name may hold what an earlier answer
//! said; here it is asked, until they miss nothing. The judged image is looked up as the digest that is
//! judged, whatever its tag means by now. Of an index the manifest for this machine counts. Credentials of the
//! pull go to the image's own registry alone.
//!
//! All of it ends within one time limit, in one of the slots of verification, and is bounded in number and
//! bytes. Nothing is kept: each pull asks anew. Once the image's own registry answered anything, no fault is
//! one in which nobody answered (rule D4), and another registry that is away never is.

use std::time::SystemTime;

use super::audit::{Phase, Phases};
use super::resolve::Resolved;
use super::{Gate, PullRequest, Snapshot, verification};
use crate::oci::{Manifest, Platform, Reference};
use crate::outcome::{Contact, Fault, FaultReason};
use crate::policy::{Application, Stored, StoredImage, StoredImages};
use crate::registry::{self, Budget, Credentials};

/// The rules that cover the image, with what they asked for.
pub(super) struct Informed {
    pub(super) applications: Vec<Application>,
    /// Whether the image's own registry answered anything.
    pub(super) contact: Contact,
}

impl Gate {
    /// `applications` with what they ask for, where they ask for anything.
    pub(super) async fn informed(
        &self,
        snapshot: &Snapshot,
        request: &PullRequest,
        applications: Vec<Application>,
        resolved: &Resolved,
        phases: &mut Phases,
    ) -> Informed {
        let mut informed = Informed { applications, contact: Contact::None };
        let mut wanted = asked_for(&informed.applications);
        if wanted.is_empty() {
            return informed;
        }
        // Without a slot the rules stay undecided.
        let host = request.reference.repository().host();
        let Some(_slot) = self.slots.take(host).await else { return informed };
        let mut inquiry = Inquiry {
            registry: &self.registry,
            request,
            resolved,
            budget: Budget::verdict(),
            contact: Contact::None,
        };
        let deadline = tokio::time::Instant::now() + self.settings.verification;
        // Standing still: a name that is made of the time is one name.
        let now = SystemTime::now();
        let mut images = StoredImages::default();
        while !wanted.is_empty() {
            for reference in &wanted {
                if images.len() == IMAGES {
                    images.close(Stored::Nothing(format!("no more than {IMAGES} images are asked for")));
                    break;
                }
                let asking = tokio::time::timeout_at(deadline, inquiry.stored(reference)).await;
                let stored = asking.unwrap_or_else(|_| Stored::Unreachable(verification::timed_out()));
                images.insert(reference, stored);
            }
            if inquiry.contact == Contact::Answered {
                images.answered();
            }
            let policies = &snapshot.policies;
            informed.applications = policies.matching_with(&request.reference, &request.pod, now, &images);
            wanted = asked_for(&informed.applications);
        }
        phases.end(Phase::Verify);
        Informed { contact: inquiry.contact, ..informed }
    }
}

/// The images that are missing, each once.
fn asked_for(applications: &[Application]) -> Vec<Reference> {
    let mut wanted: Vec<Reference> = Vec::new();
    for reference in applications.iter().filter_map(|application| application.asks_for.as_ref()) {
        if !wanted.iter().any(|known| known.normalised_form() == reference.normalised_form()) {
            wanted.push(reference.clone());
        }
    }
    wanted
}

/// The questions of one pull.
struct Inquiry<'a> {
    registry: &'a registry::Client,
    request: &'a PullRequest,
    /// What is judged.
    resolved: &'a Resolved,
    budget: Budget,
    /// Whether the image's own registry answered anything.
    contact: Contact,
}

impl Inquiry<'_> {
    async fn stored(&mut self, wanted: &Reference) -> Stored {
        match self.documents(wanted).await {
            Ok(stored) => stored,
            // Absent is an answer.
            Err(fault) if fault.reason == FaultReason::ImageNotFound => Stored::Nothing(fault.message),
            Err(fault) => Stored::Unreachable(fault),
        }
    }

    async fn documents(&mut self, wanted: &Reference) -> Result<Stored, Fault> {
        let (registry, repository) = (self.registry, wanted.repository());
        let own = repository.host() == self.request.reference.repository().host();
        // It was waited for a moment ago.
        if let Some(fault) = self.resolved.fault.as_ref().filter(|_| own) {
            return Err(fault.clone());
        }
        let credentials = if own { &self.request.credentials } else { &Credentials::Anonymous };
        let digest = match StoredImages::judged_as(wanted, &self.request.reference, self.resolved.digest) {
            Some(digest) => digest,
            None => self.heard(own, registry.resolve(wanted, credentials).await)?.digest,
        };
        let asked = registry.manifest_as_stored(repository, &digest, credentials).await;
        let (index, image, manifest) = match self.heard(own, asked)? {
            (Manifest::Image(image), bytes) => (None, image, bytes),
            (Manifest::Index(index), bytes) => {
                let child = match index.child(&platform()) {
                    Ok(child) => child.digest,
                    Err(error) => return Ok(Stored::Nothing(error.to_string())),
                };
                let asked = registry.manifest_as_stored(repository, &child, credentials).await;
                match self.heard(own, asked)? {
                    (Manifest::Image(image), manifest) => (Some(bytes), image, manifest),
                    (Manifest::Index(_), _) => {
                        return Ok(Stored::Nothing("the index holds an index".to_owned()));
                    }
                }
            }
        };
        let asked = registry.configuration(repository, &image.config, credentials).await;
        let configuration = self.heard(own, asked)?;
        let bytes = index.as_ref().map_or(0, Vec::len) + manifest.len() + configuration.len();
        if self.budget.take(bytes).is_none() {
            return Ok(Stored::Nothing("more is stored of the images than is read".to_owned()));
        }
        Ok(match StoredImage::read(digest, index.as_deref(), &manifest, &configuration) {
            Ok(image) => Stored::Found(image.into()),
            Err(error) => Stored::Nothing(error.to_string()),
        })
    }

    /// Notes whether the image's own registry answered. That another one did not is no reason to let the
    /// image pass.
    fn heard<T>(&mut self, own: bool, result: Result<T, Fault>) -> Result<T, Fault> {
        let contact = result.as_ref().map_or_else(|fault| fault.contact, |_| Contact::Answered);
        if own && contact == Contact::Answered {
            self.contact = contact;
        }
        result.map_err(|fault| if own { fault } else { Fault { contact: Contact::Answered, ..fault } })
    }
}

/// What runs on this machine.
pub(super) fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    };
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Platform::default() }
}

/// Images that the rules of one pull may ask for, the judged one included.
const IMAGES: usize = 8;
