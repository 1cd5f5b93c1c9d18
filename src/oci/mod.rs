//! Names and documents of the OCI image and distribution specifications, as values that cannot be invalid.
//!
//! Everything here parses foreign text: references from the kubelet, digests and manifests from
//! registries. Parsing is strict, bounded and free of I/O; what does not fit the grammar is an
//! error, never a guess.

mod digest;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod json;
mod manifest;
mod reference;
pub mod wildcard;

pub use digest::{Digest, DigestError};
pub use json::JsonError;
pub use manifest::{
    ChildError, Descriptor, ImageManifest, Index, IndexEntry, MANIFEST_LIMIT, Manifest, ManifestError,
    Platform, media_type,
};
pub use reference::{Reference, ReferenceError, Repository, RequestedImage};

#[cfg(test)]
mod wildcard_tests;
