//! Image manifests and indexes, read strictly.
//!
//! A registry is not trusted to label what it serves. The media type that the answer carries, the
//! `mediaType` inside and the shape must agree; a document with both `manifests` and `layers` is
//! refused (CVE-2021-41190: one document read as two things). Bytes are kept by the caller, since
//! the digest is over them and not over what was read.
//!
//! Whoever serves a manifest needs no key, so the number of values in it is bounded before it is read: 4 MiB of
//! tiny annotations take some twenty times as much in memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// The largest manifest that is read: 4 MiB, as containerd and the distribution specification.
pub const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;

/// Media types of manifests and signatures.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// cosign's simple signing payload, one layer a signature.
    pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    /// A DSSE envelope, one layer an attestation.
    pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
    /// The common start of the media types of Sigstore bundles.
    pub const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
    /// The empty configuration that artifact manifests carry.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// What a manifest, layer or configuration is: type, digest and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of what is described.
    pub media_type: String,
    /// Digest of what is described.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Free annotations; cosign keeps signatures here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// Media type of the manifest.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on; none for what is no image.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What kind of artifact the manifest is, in referrers answers.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Annotations copied from the manifest, in referrers answers.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What an image runs on. A part that is empty is not said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Platform {
    /// The operating system, as Go names it.
    #[serde(default)]
    pub os: String,
    /// The processor, as Go names it.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the processor.
    #[serde(default, deserialize_with = "null_as_default")]
    pub variant: String,
    /// What the operating system must have besides.
    #[serde(default, rename = "os.features", deserialize_with = "null_as_default")]
    pub os_features: Vec<String>,
}

/// What containerd makes of a manifest of an index on some machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It takes it before any that is none.
    Exact,
    /// It may.
    Possible,
    /// It does where there is nothing better: the processor runs that code too.
    Fallback,
    /// It does not.
    None,
}

/// Why it cannot be told which image of an index is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChildError {
    /// None fits.
    #[error("the index has no manifest for {0}")]
    None(Platform),
    /// Several may.
    #[error("the index has {1} manifests that may be the one for {0}")]
    Several(Platform, usize),
}

/// An image (or artifact) manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2 in every version of the format.
    pub schema_version: u32,
    /// The type that the document gives itself.
    #[serde(default)]
    pub media_type: Option<String>,
    /// What kind of artifact this is; absent for plain images.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The configuration; its digest is containerd's image id.
    pub config: Descriptor,
    /// Layers, in order.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to, for signatures and attestations.
    #[serde(default)]
    pub subject: Option<Descriptor>,
}

/// An index of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2 in every version of the format.
    pub schema_version: u32,
    /// The type that the document gives itself.
    #[serde(default)]
    pub media_type: Option<String>,
    /// The manifests listed; some registries write `null` for none.
    #[serde(deserialize_with = "null_as_default")]
    pub manifests: Vec<IndexEntry>,
}

/// A manifest of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is held at a time; a box would buy nothing")]
pub enum Manifest {
    /// One image or artifact.
    Image(ImageManifest),
    /// Several, by platform.
    Index(Index),
}

/// Why a document is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Over [`MANIFEST_LIMIT`].
    #[error("manifest is larger than {MANIFEST_LIMIT} bytes")]
    TooLarge,
    /// More values than are read.
    #[error("manifest has more than {VALUES_LIMIT} values")]
    TooManyValues,
    /// Not JSON, or a field is missing or of another type.
    #[error("manifest cannot be read")]
    Json(#[source] serde_json::Error),
    /// `schemaVersion` is not 2.
    #[error("manifest has schema version {0}, only 2 is read")]
    SchemaVersion(u32),
    /// Carries both `manifests` and `layers` or `config`.
    #[error("manifest is both an index and an image")]
    Ambiguous,
    /// The media types around and inside disagree, or are not ones of a manifest.
    #[error("manifest has media type `{declared}`, but is {shape}")]
    MediaType {
        /// What was declared.
        declared: String,
        /// What its shape is.
        shape: &'static str,
    },
}

impl Manifest {
    /// Reads a manifest that was served as `content_type` (parameters after `;` are ignored).
    ///
    /// # Errors
    /// [`ManifestError`]: too large, not JSON, ambiguous, or of another type than declared.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_LIMIT {
            return Err(ManifestError::TooLarge);
        }
        Count::of(bytes)?;
        let shape: Shape = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let manifest = match (shape.manifests, shape.layers || shape.config) {
            (true, true) => return Err(ManifestError::Ambiguous),
            (true, false) => Self::Index(serde_json::from_slice(bytes).map_err(ManifestError::Json)?),
            (false, _) => Self::Image(serde_json::from_slice(bytes).map_err(ManifestError::Json)?),
        };
        let (version, inner, shape, allowed) = match &manifest {
            Self::Image(image) => (image.schema_version, &image.media_type, "an image manifest", IMAGE_TYPES),
            Self::Index(index) => (index.schema_version, &index.media_type, "an index", INDEX_TYPES),
        };
        if version != 2 {
            return Err(ManifestError::SchemaVersion(version));
        }
        let outer = content_type.map(|value| value.split(';').next().unwrap_or(value).trim());
        for declared in [outer, inner.as_deref()].into_iter().flatten() {
            if !allowed.contains(&declared) {
                let declared = declared.chars().filter(|c| !c.is_control()).take(100).collect();
                return Err(ManifestError::MediaType { declared, shape });
            }
        }
        if let (Some(outer), Some(inner)) = (outer, inner.as_deref())
            && outer != inner
        {
            let declared = format!("{outer}, inside {inner}");
            return Err(ManifestError::MediaType { declared, shape });
        }
        Ok(manifest)
    }
}

impl Index {
    /// The one manifest that is taken on `platform`.
    ///
    /// # Errors
    /// [`ChildError`] where there is none, and where containerd might take another one of several: those of
    /// other variants of the processor, and those that do not say what they run on, count. Where the only one
    /// is such, so do those of processors whose code this one runs too: containerd may pass over the first.
    pub fn child(&self, platform: &Platform) -> Result<&IndexEntry, ChildError> {
        let fit = |entry: &IndexEntry| entry.platform.as_ref().map_or(Fit::Possible, |own| own.fit(platform));
        let (mut candidates, mut fallbacks) = (Vec::new(), 0);
        for entry in &self.manifests {
            match fit(entry) {
                fit @ (Fit::Exact | Fit::Possible) => candidates.push((entry, fit)),
                Fit::Fallback => fallbacks += 1,
                Fit::None => {}
            }
        }
        match candidates.as_slice() {
            [] => Err(ChildError::None(platform.clone())),
            [(child, fit)] if *fit == Fit::Exact || fallbacks == 0 => Ok(child),
            several => Err(ChildError::Several(platform.clone(), several.len() + fallbacks)),
        }
    }
}

impl Platform {
    /// What it is on a machine that is `wanted`, by whatever name containerd knows it. What Go may make other
    /// letters of, as its lower case of a dotted capital I is a plain one, may be anything.
    fn fit(&self, wanted: &Self) -> Fit {
        let processor = self.architecture.to_ascii_lowercase();
        let processor = match processor.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            "armhf" | "armel" => "arm",
            other => other,
        };
        let os = self.os.is_empty() || !self.os.is_ascii() || self.os.eq_ignore_ascii_case(&wanted.os);
        let fallback =
            matches!((wanted.architecture.as_str(), processor), ("amd64", "386") | ("arm64", "arm"));
        if !os {
            Fit::None
        } else if processor == wanted.architecture && self.os.is_ascii() && self.is_plain(processor) {
            Fit::Exact
        } else if processor == wanted.architecture || processor.is_empty() || !processor.is_ascii() {
            Fit::Possible
        } else if fallback {
            Fit::Fallback
        } else {
            Fit::None
        }
    }

    /// Whether every machine with this processor runs it.
    fn is_plain(&self, processor: &str) -> bool {
        let variant = self.variant.to_ascii_lowercase();
        let first =
            matches!((processor, variant.as_str()), (_, "") | ("amd64", "v1") | ("arm64", "v8" | "8"));
        first && self.os_features.is_empty()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// Reads any value and keeps nothing of it but how many there were.
#[derive(Clone, Copy)]
struct Count<'a>(&'a Cell<usize>);

impl Count<'_> {
    /// Whether there are no more than are read. What is no JSON is left to the reader.
    fn of(bytes: &[u8]) -> Result<(), ManifestError> {
        let found = Cell::new(0);
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let counted = Count(&found).deserialize(&mut deserializer);
        if counted.is_err() && found.get() > VALUES_LIMIT {
            Err(ManifestError::TooManyValues)
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > VALUES_LIMIT {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_key::<serde::de::IgnoredAny>()?.is_some() {
            access.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// Which members are there at all; `null` counts as there.
#[derive(Deserialize)]
struct Shape {
    #[serde(default, deserialize_with = "present")]
    manifests: bool,
    #[serde(default, deserialize_with = "present")]
    layers: bool,
    #[serde(default, deserialize_with = "present")]
    config: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A thousand layers with cosign's annotations, or as many referrers with theirs, have some ten thousand.
const VALUES_LIMIT: usize = 1 << 16;
pub(super) const IMAGE_TYPES: &[&str] = &[media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];
pub(super) const INDEX_TYPES: &[&str] = &[media_type::OCI_INDEX, media_type::DOCKER_LIST];

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
