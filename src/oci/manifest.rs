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
mod tests {
    use super::*;

    fn image(inner: &str) -> Vec<u8> {
        let digest = Digest::of(b"{}");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{inner}","config":{{"mediaType":"x","digest":"{digest}","size":2}},"layers":[]}}"#
        )
        .into_bytes()
    }

    #[test]
    fn reads_an_image_and_an_index() {
        let bytes = image(media_type::OCI_MANIFEST);
        assert!(matches!(Manifest::parse(Some(media_type::OCI_MANIFEST), &bytes), Ok(Manifest::Image(_))));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":1,"annotations":null}}]}}"#,
            Digest::of(b"x")
        );
        assert!(matches!(
            Manifest::parse(Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), index.as_bytes()),
            Ok(Manifest::Index(_))
        ));
    }

    #[test]
    fn pitfall_19_refuses_media_types_that_disagree() {
        let bytes = image(media_type::OCI_MANIFEST);
        for declared in [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, "text/html"] {
            assert!(
                matches!(Manifest::parse(Some(declared), &bytes), Err(ManifestError::MediaType { .. })),
                "{declared}"
            );
        }
        assert!(matches!(
            Manifest::parse(None, &image(media_type::OCI_INDEX)),
            Err(ManifestError::MediaType { .. })
        ));
    }

    #[test]
    fn pitfall_19_refuses_a_document_that_is_both() {
        for both in [
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":null,"config":{}}"#,
        ] {
            assert!(
                matches!(Manifest::parse(None, both.as_bytes()), Err(ManifestError::Ambiguous)),
                "{both}"
            );
        }
    }

    #[test]
    fn reads_null_manifests_as_none() {
        let empty = br#"{"schemaVersion":2,"manifests":null}"#;
        assert!(
            matches!(Manifest::parse(None, empty), Ok(Manifest::Index(index)) if index.manifests.is_empty())
        );
    }

    #[test]
    fn pitfall_06_refuses_more_values_than_are_read() {
        // The document, its version and its list count too.
        let document = |values: usize| {
            let list = vec!["0"; values - 3].join(",");
            format!(r#"{{"schemaVersion":2,"x":[{list}]}}"#).into_bytes()
        };
        assert!(matches!(Manifest::parse(None, &document(VALUES_LIMIT)), Err(ManifestError::Json(_))));
        let too_many = Manifest::parse(None, &document(VALUES_LIMIT + 1));
        assert!(matches!(too_many, Err(ManifestError::TooManyValues)));
        let annotations: Vec<_> = (0..VALUES_LIMIT).map(|number| format!(r#""{number}":"""#)).collect();
        let crowded = String::from_utf8(image(media_type::OCI_MANIFEST)).unwrap();
        let annotated = format!(r#""size":2,"annotations":{{{}}}"#, annotations.join(","));
        let crowded = crowded.replace(r#""size":2"#, &annotated).into_bytes();
        assert!(crowded.len() < MANIFEST_LIMIT);
        assert!(matches!(Manifest::parse(None, &crowded), Err(ManifestError::TooManyValues)));
    }

    #[test]
    fn the_child_of_an_index_is_taken_only_where_there_is_no_other() {
        let platform = |text: &str| {
            let (os, architecture) = text.split_once('/').unwrap();
            let (os, architecture) = (os.to_owned(), architecture.to_owned());
            Platform { os, architecture, ..Platform::default() }
        };
        let child = |platforms: &[&str]| {
            let entry = |(number, text): (usize, &&str)| IndexEntry {
                media_type: String::new(),
                digest: Digest::of(number.to_string().as_bytes()),
                size: 1,
                platform: (!text.is_empty()).then(|| platform(text)),
                artifact_type: None,
                annotations: None,
            };
            let manifests: Vec<_> = platforms.iter().enumerate().map(entry).collect();
            let index = Index { schema_version: 2, media_type: None, manifests };
            let digest = index.child(&platform("linux/amd64"))?.digest;
            Ok(index.manifests.iter().position(|entry| entry.digest == digest).unwrap())
        };
        let none = Err(ChildError::None(platform("linux/amd64")));
        let several = |count| Err(ChildError::Several(platform("linux/amd64"), count));
        for (platforms, expected) in [
            (&["linux/arm64", "linux/amd64", "unknown/unknown"][..], Ok(1)),
            (&["windows/amd64", "Linux/x86_64"], Ok(1)),
            (&[""], Ok(0)),
            (&["/"], Ok(0)),
            (&[], none.clone()),
            (&["linux/arm64", "linux/386", "windows/amd64"], none),
            (&["linux/amd64", "linux/amd64"], several(2)),
            (&["linux/x86-64", "linux/amd64"], several(2)),
            (&["linux/amd64", "", "linux/"], several(3)),
        ] {
            assert_eq!(child(platforms), expected, "{platforms:?}");
        }
        assert_eq!(
            several(2).unwrap_err().to_string(),
            "the index has 2 manifests that may be the one for linux/amd64"
        );
    }

    /// What containerd's `platforms.Only` takes was looked up in its source and in Go's `strings.ToLower`.
    #[test]
    fn pitfall_19_a_child_that_containerd_may_pass_over_is_taken_only_where_it_would_take_no_other() {
        let child = |wanted: &str, platforms: &[&str]| {
            let listed: Vec<_> = platforms
                .iter()
                .enumerate()
                .map(|(number, platform)| {
                    let digest = Digest::of(number.to_string().as_bytes());
                    format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"platform":{{{platform}}}}}"#)
                })
                .collect();
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","));
            let Manifest::Index(index) = Manifest::parse(None, text.as_bytes()).unwrap() else {
                panic!("{text}")
            };
            let wanted =
                Platform { os: "linux".to_owned(), architecture: wanted.to_owned(), ..Platform::default() };
            let digest = index.child(&wanted).map(|entry| entry.digest);
            digest.map(|digest| index.manifests.iter().position(|entry| entry.digest == digest).unwrap())
        };
        let several = |wanted: &str, count| {
            let wanted =
                Platform { os: "linux".to_owned(), architecture: wanted.to_owned(), ..Platform::default() };
            Err(ChildError::Several(wanted, count))
        };
        let (amd64, x86) = (r#""os":"linux","architecture":"amd64""#, r#""os":"linux","architecture":"386""#);
        let (arm64, arm) =
            (r#""os":"linux","architecture":"arm64""#, r#""os":"linux","architecture":"arm","variant":"v7""#);
        let with = |platform: &str, more: &str| format!("{platform},{more}");
        let variant = |platform: &str, name: &str| format!(r#"{platform},"variant":"{name}""#);
        let features = with(amd64, r#""os.features":["sse9"]"#);
        // Go's lower case of this letter is a plain `i`.
        let dotted = [
            amd64.replace("linux", "l\u{130}nux"),
            amd64.replace("amd64", "\u{ff41}md64"),
            x86.replace("386", "\u{130}386"),
        ];
        for odd in &dotted {
            assert_eq!(child("amd64", &[odd, amd64]), several("amd64", 2), "{odd}");
            assert_eq!(child("amd64", &[odd]), Ok(0), "{odd}");
        }
        for (odd, fallback) in [
            (variant(amd64, "v3"), x86.replace("386", "i386")),
            (variant(amd64, "v\u{130}"), x86.to_owned()),
            (with(r#""os":"linux""#, r#""architecture":"""#), x86.to_owned()),
            (features.clone(), x86.to_owned()),
            (features, x86.replace(r#""os":"linux","#, "")),
        ] {
            assert_eq!(child("amd64", &[&odd, &fallback]), several("amd64", 2), "{odd}");
            assert_eq!(child("amd64", &[&odd]), Ok(0), "{odd}");
        }
        for odd in [variant(arm64, "v9"), variant(arm64, "v8.2")] {
            for fallback in [arm, r#""architecture":"armhf""#, r#""architecture":"ArmEL""#] {
                assert_eq!(child("arm64", &[fallback, &odd]), several("arm64", 2), "{odd} {fallback}");
            }
            assert_eq!(child("arm64", &[&odd, x86]), Ok(0), "{odd}");
        }
        // What is there for this very machine goes before what it could run too.
        for plain in
            [amd64.to_owned(), variant(amd64, "V1"), with(amd64, r#""variant":null,"os.features":null"#)]
        {
            assert_eq!(child("amd64", &[x86, &plain, arm]), Ok(1), "{plain}");
        }
        for plain in [arm64.to_owned(), variant(arm64, "v8"), variant(arm64, "8")] {
            assert_eq!(child("arm64", &[arm, &plain, x86]), Ok(1), "{plain}");
        }
        assert_eq!(child("s390x", &[r#""os":"linux","architecture":"s390x","variant":"z""#, x86]), Ok(0));
    }

    #[test]
    fn refuses_what_is_too_large_or_not_json() {
        assert!(matches!(
            Manifest::parse(None, &vec![b' '; MANIFEST_LIMIT + 1]),
            Err(ManifestError::TooLarge)
        ));
        assert!(matches!(Manifest::parse(None, b"<html>"), Err(ManifestError::Json(_))));
        assert!(matches!(
            Manifest::parse(None, br#"{"schemaVersion":1,"manifests":[]}"#),
            Err(ManifestError::SchemaVersion(1))
        ));
    }
}
