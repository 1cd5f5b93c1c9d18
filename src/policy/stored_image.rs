//! What registries say of images: the evidence for `context[].imageRegistry`.
//!
//! A rule names an image, perhaps with variables of the pull, and reads its manifest and configuration. This
//! layer asks nobody: it says which images it needs ([`PolicySet::matching_with`]), is told of each what a
//! registry answered ([`Stored`]), and is asked again. A tag that is the judged image's own stands for the
//! digest that is judged, never for what the tag means by then ([`StoredImages::judged_as`]).
//!
//! There, definitely not there and not known stay apart: what is not there is a variable without a value, what
//! is not known is a fault with the registry's own reason. Both leave the rule undecided.
//! Specification: 3.5; the names of the parts are upstream's.
//!
//! [`PolicySet::matching_with`]: super::PolicySet::matching_with

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::variables::weight;
use crate::oci::{Digest, JsonError, Reference, json};
use crate::outcome::{Contact, Fault};

/// The documents of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImage {
    digest: Digest,
    index: Value,
    manifest: Value,
    configuration: Value,
    /// About how many bytes a copy of these takes.
    weight: usize,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// It is there.
    Found(Arc<StoredImage>),
    /// It is not, or is no image of which these can be told; in one line.
    Nothing(String),
    /// It could not be found out.
    Unreachable(Fault),
}

/// What is known of images, by their names.
#[derive(Debug, Clone, Default)]
pub struct StoredImages {
    known: BTreeMap<String, Stored>,
    /// What is said of all others; none while they may be asked for.
    others: Option<Stored>,
}

/// Why the documents of an image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{document} cannot be read: {cause}")]
pub struct DocumentError {
    document: &'static str,
    #[source]
    cause: JsonError,
}

impl StoredImage {
    /// Reads the documents of the image `digest`: its index, if it is one, and the manifest and configuration
    /// that a node takes. Whoever calls has hashed them.
    ///
    /// # Errors
    /// [`DocumentError`] for the first that is not JSON, or that containerd might read differently.
    pub fn read(
        digest: Digest,
        index: Option<&[u8]>,
        manifest: &[u8],
        configuration: &[u8],
    ) -> Result<Self, DocumentError> {
        let read = |document, bytes: &[u8]| {
            json::parse_of_image(bytes).map_err(|cause| DocumentError { document, cause })
        };
        let index = index.map_or(Ok(Value::Null), |bytes| read("index", bytes))?;
        let (manifest, configuration) = (read("manifest", manifest)?, read("configuration", configuration)?);
        let weight = [&index, &manifest, &configuration].map(weight).iter().sum();
        Ok(Self { digest, index, manifest, configuration, weight })
    }

    /// About how many bytes of documents a rule sees.
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    /// What a rule that asks for `reference` sees.
    pub(super) fn seen(&self, reference: &Reference) -> Value {
        let repository = reference.repository();
        // As upstream's library writes Docker Hub.
        let registry = if repository.host() == "docker.io" { "index.docker.io" } else { repository.host() };
        let digest = reference.digest().map(|digest| digest.to_string());
        let identifier: Vec<&str> = reference.tag().into_iter().chain(digest.as_deref()).collect();
        json!({
            "image": reference.text(),
            "resolvedImage": format!("{registry}/{}@{}", repository.path(), self.digest),
            "registry": registry,
            "repository": repository.path(),
            "identifier": identifier.join("@"),
            "manifestList": self.index,
            "manifest": self.manifest,
            "configData": self.configuration,
        })
    }
}

impl StoredImages {
    /// The digest at which the image `wanted` is looked up while `judged` is judged as `digest`; none where
    /// its tag has to be resolved. The tag beside a digest is text (rule M6), so it is the judged image's too.
    #[must_use]
    pub fn judged_as(wanted: &Reference, judged: &Reference, digest: Digest) -> Option<Digest> {
        let same = || wanted.repository() == judged.repository() && wanted.tag() == judged.tag();
        wanted.digest().or_else(|| same().then_some(digest))
    }

    /// Takes note of what a registry said of `reference`.
    pub fn insert(&mut self, reference: &Reference, stored: Stored) {
        self.known.insert(reference.normalised_form(), stored);
    }

    /// Says this of every other image: none is asked for any more.
    pub fn close(&mut self, others: Stored) {
        self.others = Some(others);
    }

    /// What is known of `reference`; none where nobody was asked.
    pub(super) fn of(&self, reference: &Reference) -> Option<&Stored> {
        self.known.get(&reference.normalised_form()).or(self.others.as_ref())
    }

    /// How many images something is known of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is known of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Marks every fault as one in which somebody answered (rule D4).
    pub fn answered(&mut self) {
        for stored in self.known.values_mut().chain(&mut self.others) {
            match stored {
                Stored::Unreachable(fault) => fault.contact = Contact::Answered,
                Stored::Found(_) | Stored::Nothing(_) => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "stored_image_tests.rs"]
mod tests;
