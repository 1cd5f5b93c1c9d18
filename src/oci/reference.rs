//! Image references, in every form under which a policy may know them.
//!
//! One text from the kubelet has two readings that matter: Kyverno's canonical form (policies are
//! written against it; it inserts no `library/`) and containerd's normalised form (what is pulled
//! and recorded). A rule covers a reference if it matches either, so both are computed here, once,
//! from one parse of the docker/distribution grammar.
//!
//! The repository key lower-cases the host and drops the default port 443: `GHCR.io:443/org/app`
//! reaches the same registry as `ghcr.io/org/app` and must not dodge a policy written for it.
//!
//! A bare image id (`sha256:<hex>` or 64 hex digits) also parses as a repository with a tag, so it
//! is told apart before the grammar is tried.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, DigestError};

/// What an image field of a CRI request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedImage {
    /// An image id, whole or with its `sha256:` prefix; never matched against policy.
    Id(String),
    /// A name with a tag, a digest or both.
    Reference(Reference),
}

/// A repository in containerd's normalised form, with the host in lower case and without `:443`; what is
/// read back from a file too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Repository {
    host: String,
    path: String,
}

/// A repository as it was written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    path: String,
}

/// An image reference: repository, tag, digest, and the texts that policies match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    text: String,
    repository: Repository,
    containerd_name: String,
    kyverno_name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("image reference is empty")]
    Empty,
    /// Longer than 255 characters of name, or 4096 in all.
    #[error("image reference is longer than {0} characters")]
    TooLong(usize),
    /// Does not fit the docker/distribution grammar.
    #[error("`{0}` is not an image reference")]
    Malformed(String),
    /// The digest part is not one we accept.
    #[error("image reference `{0}`: {1}")]
    Digest(String, #[source] DigestError),
}

impl RequestedImage {
    /// Tells an id from a reference. Ids are `sha256:<hex>` or 12 to 64 bare hex digits that are not
    /// a plausible short name: containerd looks names up first, so only the full 64 digits are
    /// taken for an id here.
    ///
    /// # Errors
    /// Whatever [`Reference::parse`] refuses.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.len() == 64 && hex(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        if let Some(digits) = text.strip_prefix("sha256:")
            && !digits.is_empty()
            && hex(digits)
        {
            return Ok(Self::Id(text.to_owned()));
        }
        Reference::parse(text).map(Self::Reference)
    }
}

impl Repository {
    /// Parses a repository without tag or digest, as in Kyverno's `repository` field.
    ///
    /// # Errors
    /// [`ReferenceError`] if it does not fit the grammar or carries a tag or digest.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let reference = Reference::parse(text)?;
        let tagged = text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        if tagged {
            return Err(malformed(text));
        }
        Ok(reference.repository)
    }

    /// Reads what its `Display` wrote, where the first component always is the host: [`Self::parse`] takes
    /// one without dot and port (of `Registry/app`) for part of a path at docker.io.
    ///
    /// # Errors
    /// [`ReferenceError`] if it does not fit the grammar or has no host.
    pub fn from_key(text: &str) -> Result<Self, ReferenceError> {
        let (host, path) = text.split_once('/').ok_or_else(|| malformed(text))?;
        let written = Self { host: host.to_owned(), path: path.to_owned() };
        // In upper case it is a host for the docker rule too.
        let named = host.contains(['.', ':']) || host == "localhost";
        let host = if named { host.to_owned() } else { host.to_ascii_uppercase() };
        if Self::parse(&format!("{host}/{path}"))? == written { Ok(written) } else { Err(malformed(text)) }
    }

    /// The registry's name, with its port where that is not 443.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the repository inside its registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl TryFrom<Written> for Repository {
    type Error = ReferenceError;

    fn try_from(written: Written) -> Result<Self, ReferenceError> {
        let read = Self::from_key(&format!("{}/{}", written.host, written.path))?;
        if read.host == written.host { Ok(read) } else { Err(malformed(&written.host)) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Reference {
    /// Parses a reference as containerd and Kyverno do; `latest` is the tag only where there is
    /// neither tag nor digest.
    ///
    /// # Errors
    /// [`ReferenceError`]; digests other than sha256 are refused.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > TEXT_LIMIT {
            return Err(ReferenceError::TooLong(TEXT_LIMIT));
        }
        let captures = GRAMMAR.captures(text).ok_or_else(|| malformed(text))?;
        let part = |name| captures.name(name).map(|found| found.as_str());
        let name = part("name").ok_or_else(|| malformed(text))?;
        let digest = match part("digest") {
            Some(digest) => {
                Some(digest.parse().map_err(|error| ReferenceError::Digest(text.to_owned(), error))?)
            }
            None => None,
        };
        let tag = match (part("tag"), digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };

        let (domain, remainder) = split_domain(name);
        if !PATH.is_match(remainder) {
            return Err(malformed(text));
        }
        // `host:0443` dials port 443 and would dodge a policy written for the host.
        if let Some((_, port)) = domain.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
            && (port.starts_with('0') || port.parse::<u16>().is_err())
        {
            return Err(malformed(text));
        }
        let containerd_host = if domain == "index.docker.io" { "docker.io" } else { domain };
        let containerd_name = format!("{containerd_host}/{}", docker_path(containerd_host, remainder));
        let lower_case = containerd_host.to_ascii_lowercase();
        let host = match lower_case.strip_suffix(":443").unwrap_or(&lower_case) {
            "index.docker.io" => "docker.io",
            host => host,
        };
        let repository = Repository { host: host.to_owned(), path: docker_path(host, remainder) };
        // As distribution counts: with Docker Hub's `library/`.
        if repository.path.len() > NAME_LIMIT {
            return Err(ReferenceError::TooLong(NAME_LIMIT));
        }
        Ok(Self {
            text: text.to_owned(),
            repository,
            containerd_name,
            kyverno_name: format!("{domain}/{remainder}"),
            tag,
            digest,
        })
    }

    /// The text as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The repository key: what verdicts, admissions and registry requests use.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, `latest` included; with a digest beside it the tag is unverified text.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference carries one.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Kyverno's canonical form: `registry/path@digest`, or `registry/path:tag`.
    #[must_use]
    pub fn kyverno_form(&self) -> String {
        self.suffixed(&self.kyverno_name)
    }

    /// containerd's normalised form with the host in lower case and without the default port.
    #[must_use]
    pub fn normalised_form(&self) -> String {
        self.suffixed(&self.repository.to_string())
    }

    /// The normalised form without docker's `library/`, as a policy may write it. None where that would be
    /// another image: docker puts it before a single component only.
    #[must_use]
    pub fn short_form(&self) -> Option<String> {
        let short = self.repository.path.strip_prefix("library/")?;
        (self.repository.host == "docker.io" && !short.contains('/'))
            .then(|| self.suffixed(&format!("docker.io/{short}")))
    }

    /// The names without tag and digest, in Kyverno's and in normalised form.
    #[must_use]
    pub fn names(&self) -> [String; 2] {
        [self.kyverno_name.clone(), self.repository.to_string()]
    }

    /// The name of containerd's tag record (`host/path:tag`); none where a digest is present, since
    /// containerd drops the tag then.
    #[must_use]
    pub fn containerd_tag_name(&self) -> Option<String> {
        match (&self.tag, self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.containerd_name)),
            _ => None,
        }
    }

    /// containerd's name for this repository at `digest`: what is forwarded.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> String {
        format!("{}@{digest}", self.containerd_name)
    }

    fn suffixed(&self, name: &str) -> String {
        match (&self.tag, self.digest) {
            (_, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, None) => name.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The docker rule: a first component is a registry if it has a dot or a colon, is `localhost`, or
/// is not all lower case.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => ("docker.io", name),
    }
}

fn docker_path(host: &str, remainder: &str) -> String {
    if host == "docker.io" && !remainder.contains('/') {
        format!("library/{remainder}")
    } else {
        remainder.to_owned()
    }
}

fn malformed(text: &str) -> ReferenceError {
    ReferenceError::Malformed(text.chars().filter(|c| !c.is_control()).take(120).collect())
}

/// The grammar's own limit for a repository path.
const NAME_LIMIT: usize = 255;
/// Longer than any valid reference; refused before the grammar is tried.
const TEXT_LIMIT: usize = 4096;

/// docker/distribution `reference` grammar: `name [":" tag] ["@" digest]`.
static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\A(?P<name>",
        r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])",
        r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?/|\[[a-fA-F0-9:]+\](?::[0-9]+)?/)?",
        r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)",
        r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?",
        r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?\z",
    ))
    .expect("a constant pattern that a test compiles")
});

static PATH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\A[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\z")
        .expect("a constant pattern that a test compiles")
});

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn m2_gives_kyvernos_and_containerds_form() {
        let digest = format!("sha256:{HEX}");
        let table = [
            ("nginx", "docker.io/nginx:latest", "docker.io/library/nginx:latest"),
            ("nginx:1", "docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("docker.io/library/nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
            ("index.docker.io/x", "index.docker.io/x:latest", "docker.io/library/x:latest"),
            ("org/app", "docker.io/org/app:latest", "docker.io/org/app:latest"),
            ("ghcr.io:443/org/app:v1", "ghcr.io:443/org/app:v1", "ghcr.io/org/app:v1"),
            ("GHCR.io/org/app:v1", "GHCR.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("Foo/bar", "Foo/bar:latest", "foo/bar:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ];
        for (text, kyverno, normalised) in table {
            let parsed = reference(text);
            assert_eq!(
                (parsed.kyverno_form(), parsed.normalised_form()),
                (kyverno.into(), normalised.into()),
                "{text}"
            );
        }
        let pinned = reference(&format!("ghcr.io/org/app:v1@{digest}"));
        assert_eq!(pinned.kyverno_form(), format!("ghcr.io/org/app@{digest}"));
        assert_eq!(pinned.tag(), Some("v1"));
        assert_eq!(pinned.digest(), Some(digest.parse().unwrap()));
    }

    #[test]
    fn m2_reads_upstreams_references() {
        let pinned = format!("docker.io/test/centos@sha256:{HEX}");
        for (text, form, tag) in [
            ("docker.io/test/nginx:v10.3", "docker.io/test/nginx:v10.3", Some("v10.3")),
            ("test/nginx", "docker.io/test/nginx:latest", Some("latest")),
            ("localhost:4443/test/nginx", "localhost:4443/test/nginx:latest", Some("latest")),
            ("localhost/netd:v0.4.4-gke.0", "localhost/netd:v0.4.4-gke.0", Some("v0.4.4-gke.0")),
            ("myregistry.org/test/nginx:v10.3", "myregistry.org/test/nginx:v10.3", Some("v10.3")),
            (&pinned, &pinned, None),
            (&format!("test/centos@sha256:{HEX}"), &pinned, None),
        ] {
            let parsed = reference(text);
            assert_eq!((parsed.kyverno_form().as_str(), parsed.tag()), (form, tag), "{text}");
        }
    }

    #[test]
    fn m2_the_short_form_is_of_a_single_component_at_docker_io() {
        assert_eq!(reference("library/nginx").short_form().as_deref(), Some("docker.io/nginx:latest"));
        assert_eq!(reference("docker.io/library/a/b").short_form(), None);
        assert_eq!(reference("ghcr.io/library/nginx").short_form(), None);
    }

    #[test]
    fn m6_a_tag_beside_a_digest_names_no_record() {
        assert_eq!(reference(&format!("a.io/b:v1@sha256:{HEX}")).containerd_tag_name(), None);
        assert_eq!(reference("a.io:443/b").containerd_tag_name().as_deref(), Some("a.io:443/b:latest"));
    }

    #[test]
    fn m5_tells_ids_from_references() {
        for id in [HEX, &format!("sha256:{HEX}"), "sha256:e3b0c4"] {
            assert_eq!(RequestedImage::parse(id).unwrap(), RequestedImage::Id(id.to_owned()));
        }
        assert!(matches!(RequestedImage::parse("busybox").unwrap(), RequestedImage::Reference(_)));
        assert!(matches!(RequestedImage::parse("sha256:latest").unwrap(), RequestedImage::Reference(_)));
    }

    #[test]
    fn refuses_what_the_grammar_refuses() {
        for odd in [
            "",
            " ",
            "UPPER",
            "++",
            "a//b",
            "a.io/B",
            "a b",
            "a:",
            "a@",
            "a@sha256:00",
            "-a",
            "a.io/../b",
            "a.io/b:t@",
            "a\n",
            "a.io/b\0",
            "[::1/b",
            "a.io:0443/b",
            "a.io:05000/b",
            "a.io:65536/b",
            "a.io:/b",
        ] {
            assert!(Reference::parse(odd).is_err(), "{odd:?}");
        }
        assert!(matches!(
            Reference::parse(&format!("a.io/b@sha512:{HEX}{HEX}")),
            Err(ReferenceError::Digest(_, DigestError::Algorithm(_)))
        ));
        assert!(Reference::parse(&format!("a.io/{}", "a/".repeat(200) + "b")).is_err());
    }

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        assert_eq!(Repository::parse("ghcr.io/org/sigs").unwrap().to_string(), "ghcr.io/org/sigs");
        assert_eq!(Repository::parse("localhost:5000/sigs").unwrap().host(), "localhost:5000");
        assert!(Repository::parse("ghcr.io/org/sigs:v1").is_err());
    }

    #[test]
    fn a_repository_is_read_back_from_what_it_is_printed_as() {
        for text in ["nginx", "Registry/app", "GHCR.io:443/org/app", "localhost/a", "[::1]:5000/a"] {
            let repository = Repository::parse(text).unwrap();
            assert_eq!(Repository::from_key(&repository.to_string()), Ok(repository), "{text}");
        }
        assert!(Repository::from_key("app").is_err());
        assert!(Repository::from_key("ghcr.io/org/app:v1").is_err());
    }

    #[test]
    fn a_repository_in_a_file_is_one_or_an_error() {
        let read = |host: &str, path: &str| {
            serde_json::from_value::<Repository>(serde_json::json!({ "host": host, "path": path }))
        };
        for text in ["nginx", "Registry/app", "GHCR.io:443/org/app", "[::1]:5000/a"] {
            let repository = Repository::parse(text).unwrap();
            assert_eq!(read(repository.host(), repository.path()).unwrap(), repository);
        }
        for (host, path) in [
            ("", "a"),
            ("a.io", ""),
            ("a.io", "../b"),
            ("a.io", "b:v1"),
            ("a.io/b", "c"),
            ("A.io", "b"),
            ("a.io:443", "b"),
            ("user@a.io", "b"),
            ("a.io", "b?c"),
        ] {
            assert!(read(host, path).is_err(), "{host} {path}");
        }
    }
}
