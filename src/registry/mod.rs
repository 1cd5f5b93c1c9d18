//! What a registry says about an image: its digest, its manifest, the signatures stored for it.
//!
//! Decides nothing about images. It answers in three values: there, definitely not there, or a
//! [`Fault`]. A registry is not trusted: every body is bounded and, where its digest is known,
//! hashed against it; a manifest must be what it is labelled as; credentials stay with the host
//! they are for. What a registry *claims* (a tag's digest, a list of referrers) is only ever a
//! claim: the caller pins the digest and verifies the signatures.
//!
//! Few round trips: no ping, no manifest before its tag's digest is needed, one token for all who
//! wait for it, and what a host lacks (authentication, a referrers API) is remembered. Order of one
//! look-up: scheme ([`Client`]), authorization (`auth`), slot, redirects and body (`http`).
//!
//! All bounds are those of design.md; every wait ends by [`Timeouts`], and the whole of a
//! verification by the caller's own deadline. Dropping a future stops its requests.

mod address;
mod auth;
mod cause;
mod connections;
mod credentials;
mod folders;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod helper;
mod hosts;
mod http;
mod images;
mod names;
mod referrers;
mod rekor;
mod requests;
mod retry;
mod route;
mod search;
mod signatures;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{Method, StatusCode};

pub use self::credentials::{Audience, AuthConfig, Credentials, DockerConfig, DockerConfigError};
pub use self::referrers::{ReferrerForms, SIGNATURE_PREDICATE, Wanted};
pub use self::rekor::{LOG_BUNDLE, LogQuestion};
pub use self::requests::{RequestClass, RequestCounts};

use self::auth::Tokens;
use self::folders::Folders;
use self::helper::Helpers;
use self::http::{Answer, Step, Transport};
use self::rekor::LogMemory;
use self::route::{Endpoint, Failures};
use self::search::{Further, Unread};
use crate::oci::{Digest, MANIFEST_LIMIT, Manifest, Reference, Repository};
use crate::outcome::{Fault, FaultReason, Lookup};
use crate::sigstore::SignatureEvidence;

/// Looks things up in registries. One for the whole process; shared behind an `Arc`.
pub struct Client {
    transport: Transport,
    tokens: Tokens,
    docker_configs: Vec<DockerConfig>,
    /// Of the secrets that policies name; before the others, and anew with each reload.
    policy_logins: Mutex<Arc<DockerConfig>>,
    helpers: Helpers,
    folders: Arc<Folders>,
    log: LogMemory,
}

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Hosts (with their port) that speak plain HTTP. Loopback hosts with a port need not be listed.
    pub plain_http: Vec<String>,
    /// Certificate authorities besides the system's.
    pub certificate_authorities: Vec<CertificateAuthority>,
    /// containerd's `config_path`: folders with a `hosts.toml` for each registry, a colon between them. None: no
    /// registry has mirrors.
    pub config_path: Option<PathBuf>,
    /// Credentials of this machine, for requests that bring none; the first entry that fits counts.
    pub docker_configs: Vec<DockerConfig>,
    /// Requests to one host at once.
    pub concurrency_per_host: NonZeroUsize,
    /// How long is waited.
    pub timeouts: Timeouts,
}

/// A file of certificate authorities.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    /// Its name, for messages.
    pub name: String,
    /// Its content: one or more PEM certificates.
    pub pem: Vec<u8>,
}

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until the connection is up, TLS included.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// In all, redirects and body included, once the host has a free slot.
    pub request: Duration,
    /// All requests together that resolve a tag or fetch a manifest by digest, their waiting included:
    /// from the outside it could not be told whether anyone answered (rule D4). Of several hosts each but the last
    /// has half of what is left of it, for evidence too.
    pub look_up: Duration,
}

/// An image's repository and the digest that its reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Where it is.
    pub repository: Repository,
    /// What it is, by the registry's claim or by the reference itself.
    pub digest: Digest,
}

/// Of which image evidence is looked for, where and as whom.
#[derive(Debug, Clone, Copy)]
pub struct EvidenceRequest<'a> {
    /// Where: the image's repository, or another one for signatures.
    pub repository: &'a Repository,
    /// The image.
    pub digest: &'a Digest,
    /// As whom; [`Credentials::Anonymous`] where the pull's are for another host.
    pub credentials: &'a Credentials,
    /// Whether this registry has shown that it lets these credentials in.
    pub manifest: ManifestAccess,
    /// The bytes that this verdict may still read.
    pub budget: &'a Budget,
}

/// Whether the image's manifest in the same repository was served (by HEAD or GET) to the same
/// credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestAccess {
    /// It was: a 401 or 403 for a signature tag then means that there is none (rule D4).
    Served,
    /// Nobody asked for it: each host is asked once its answer is a 401 or 403.
    NotAsked,
    /// Not known: a 401 or 403 is a fault.
    Unknown,
}

/// What a look-up for evidence came to.
#[derive(Debug)]
pub struct Looked {
    /// What was found.
    pub lookup: Lookup<Fetched>,
    /// Where one host said that nothing is there: why another could not say.
    pub doubt: Option<Fault>,
}

/// What a look-up found.
#[derive(Debug)]
pub struct Fetched {
    /// The evidence, in a fixed order.
    pub pieces: Vec<SignatureEvidence>,
    /// What was left for later.
    pub rest: Rest,
}

/// What a look-up left for later: what hints say is not what is looked for, and the hosts after the one
/// that had evidence. Hints are not signed, and a mirror may be behind: it is to be read
/// ([`Client::rest`]) before anything is refused.
#[derive(Debug)]
#[must_use]
pub struct Rest {
    unread: Option<Unread>,
    further: Option<Further>,
}

/// What was read later.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// The evidence.
    pub pieces: Vec<SignatureEvidence>,
    /// Why some of it could not be read. It takes nothing from what was, and keeps a denial from being
    /// definite.
    pub fault: Option<Fault>,
}

/// What there is to say of the files about registries, a line each with file and place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints {
    /// Files that cannot be read or understood: their registries are asked for nothing.
    pub errors: Vec<String>,
    /// What has no effect.
    pub without_effect: Vec<String>,
}

/// What one verdict may spend on evidence, over all look-ups: bytes, and one wait for a silent host.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
    whole: usize,
    /// The hosts that gave no answer, of registries with several, and what was said of it.
    silent: Mutex<BTreeMap<String, Fault>>,
}

/// Why the client cannot be set up, or credentials cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file of certificate authorities holds none, or a broken one.
    #[error("{0}: not a file of PEM certificates")]
    CertificateAuthority(String),
    /// TLS could not be set up.
    #[error("registry client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The system gives no random bytes.
    #[error("system gives no random bytes")]
    Randomness,
    /// The `auth` field of credentials is not base64 of `user:password`.
    #[error("`auth` of registry credentials is not base64 of user:password")]
    Auth,
    /// A docker config file names a credential helper that cannot be one.
    #[error(
        "`{0}` is not the name of a credential helper: letters, digits, - and _, without `docker-credential-`"
    )]
    HelperName(String),
    /// A docker config file is not one.
    #[error("docker config file cannot be read at line {line} column {column}")]
    DockerConfig {
        /// Where reading stopped.
        line: usize,
        /// Where in the line.
        column: usize,
    },
}

impl Client {
    /// Sets up TLS; opens no connection.
    ///
    /// # Errors
    /// [`RegistryError`] if a certificate authority cannot be read.
    pub fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self {
            transport: Transport::new(options)?,
            tokens: Tokens::new()?,
            docker_configs: options.docker_configs.clone(),
            policy_logins: Mutex::default(),
            helpers: Helpers::of_path(),
            folders: Arc::new(Folders::new(options.config_path.as_deref().unwrap_or(Path::new("")))),
            log: LogMemory::default(),
        })
    }

    /// Takes the logins that policies name from now on, and no others.
    pub fn sign_in_with(&self, logins: DockerConfig) {
        *self.policy_logins.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(logins);
    }

    fn policy_logins(&self) -> Arc<DockerConfig> {
        Arc::clone(&self.policy_logins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The digest that `reference` stands for. With a digest in it: that, without a request. Else
    /// one HEAD, and a GET where its answer has no digest.
    ///
    /// # Errors
    /// A [`Fault`]: `registry-denied` for 401 and 403, `image-not-found` for 404, `registry-error`
    /// for another answer, `registry-unreachable` or `timeout` without one.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<ResolvedImage, Fault> {
        let repository = reference.repository().clone();
        if let Some(digest) = reference.digest() {
            return Ok(ResolvedImage { repository, digest });
        }
        let step = Step::new(reference.normalised_form());
        let tag = reference
            .tag()
            .ok_or_else(|| step.fault(FaultReason::ReferenceInvalid, "neither tag nor digest"))?;
        let resolving = self.resolve_tag(&step, &repository, tag, credentials);
        let digest = self.transport.look_up(&step, resolving).await?;
        Ok(ResolvedImage { repository, digest })
    }

    async fn resolve_tag(
        &self,
        step: &Step,
        repository: &Repository,
        tag: &str,
        credentials: &Credentials,
    ) -> Result<Digest, Fault> {
        let route = self.route(step, repository).await?;
        route.expect_resolving(step);
        let mut failures = Failures::default();
        let hosts: Vec<&Endpoint> = route.resolving().collect();
        for (asked, endpoint) in hosts.iter().enumerate() {
            let here = route.step(step, endpoint);
            let resolving = self.resolve_at(&here, endpoint, repository, tag, credentials);
            match self.transport.in_turn(&here, asked + 1 == hosts.len(), resolving).await {
                Ok(digest) => return Ok(digest),
                Err(fault) => failures.add(fault),
            }
        }
        Err(failures.fault(step))
    }

    async fn resolve_at(
        &self,
        step: &Step,
        endpoint: &Endpoint,
        repository: &Repository,
        tag: &str,
        credentials: &Credentials,
    ) -> Result<Digest, Fault> {
        let head = Ask {
            class: RequestClass::Resolve,
            method: Method::HEAD,
            tail: format!("manifests/{tag}"),
            accept: MANIFEST_TYPES,
            limit: 0,
            link: None,
        };
        let answer = self.ask_at(step, endpoint, repository, credentials, &head).await?;
        let no_head = matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        if !answer.status.is_success() && !no_head {
            return Err(step.status_fault(&answer));
        }
        if answer.status.is_success()
            && let Some(digest) = claimed_digest(step, &answer)?
        {
            return Ok(digest);
        }
        let get = Ask::manifest(tag, MANIFEST_LIMIT);
        let answer = self.ask_at(step, endpoint, repository, credentials, &get).await?;
        if !answer.status.is_success() {
            return Err(step.status_fault(&answer));
        }
        Ok(read_manifest(step, &answer)?.1)
    }

    /// The manifest of that digest; its bytes were hashed.
    ///
    /// # Errors
    /// As [`Self::resolve`]; `registry-error` for other bytes than the digest's, or no manifest.
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        credentials: &Credentials,
    ) -> Result<Manifest, Fault> {
        Ok(self.manifest_as_stored(repository, digest, credentials).await?.0)
    }

    /// What is wrong or without effect in the files about registries ([`RegistryOptions::config_path`]).
    #[must_use]
    pub fn configuration_complaints(&self) -> Complaints {
        self.folders.complaints()
    }

    /// Requests sent since the client was made.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.transport.counts()
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            certificate_authorities: Vec::new(),
            config_path: None,
            docker_configs: Vec::new(),
            concurrency_per_host: NonZeroUsize::MIN.saturating_add(3),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            request: Duration::from_secs(30),
            look_up: Duration::from_secs(30),
        }
    }
}

impl Rest {
    /// Whether nothing was left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.unread.is_none() && self.further.is_none()
    }

    const fn of(unread: Option<Unread>) -> Self {
        Self { unread, further: None }
    }
}

impl From<Lookup<Fetched>> for Looked {
    fn from(lookup: Lookup<Fetched>) -> Self {
        Self { lookup, doubt: None }
    }
}

impl Budget {
    /// The budget of one verdict: 32 MiB.
    #[must_use]
    pub const fn verdict() -> Self {
        Self::of(32 * 1024 * 1024)
    }

    /// A budget of so many bytes.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes), whole: bytes, silent: Mutex::new(BTreeMap::new()) }
    }

    /// What is left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing if there are not so many.
    pub fn take(&self, bytes: usize) -> Option<()> {
        self.take_beside(0, bytes)
    }

    /// Takes `bytes`, or nothing if there are not so many beside those that are kept for somebody else.
    fn take_beside(&self, kept: usize, bytes: usize) -> Option<()> {
        let take = |left: usize| left.checked_sub(bytes).filter(|rest| *rest >= kept || bytes == 0);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(drop)
    }

    /// Why a host is not waited for again.
    fn silence(&self, host: &Endpoint) -> Option<Fault> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).get(host.key()).cloned()
    }

    fn note_silent(&self, host: &Endpoint, fault: &Fault) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(host.key().to_owned(), fault.clone());
    }
}

/// One question to a repository; `tail` follows `/v2/<path>/`.
#[derive(Clone)]
struct Ask {
    class: RequestClass,
    method: Method,
    tail: String,
    accept: &'static str,
    limit: usize,
    /// What the host itself said is asked instead, which must lie on it: the next page of a list.
    link: Option<String>,
}

impl Ask {
    fn manifest(tag_or_digest: &str, limit: usize) -> Self {
        Self {
            class: RequestClass::Manifest,
            method: Method::GET,
            tail: format!("manifests/{tag_or_digest}"),
            accept: MANIFEST_TYPES,
            limit,
            link: None,
        }
    }
}

/// `Docker-Content-Digest`; none if it is missing.
fn claimed_digest(step: &Step, answer: &Answer) -> Result<Option<Digest>, Fault> {
    if !answer.headers.contains_key(CONTENT_DIGEST) {
        return Ok(None);
    }
    let odd = || step.fault(FaultReason::RegistryError, "registry's digest header is not a sha256 digest");
    let text = answer.header(CONTENT_DIGEST).ok_or_else(odd)?;
    text.parse().map(Some).map_err(|_| odd())
}

/// Reads a manifest and hashes it; the digest that the answer claims must be its own.
fn read_manifest(step: &Step, answer: &Answer) -> Result<(Manifest, Digest), Fault> {
    let digest = Digest::of(&answer.body);
    if claimed_digest(step, answer)?.is_some_and(|claimed| claimed != digest) {
        return Err(
            step.fault(FaultReason::RegistryError, "registry's manifest has another digest than it says")
        );
    }
    let manifest = Manifest::parse(answer.header("content-type"), &answer.body)
        .map_err(|error| step.fault(FaultReason::RegistryError, &error.to_string()))?;
    Ok((manifest, digest))
}

fn check_digest(step: &Step, body: &[u8], digest: &Digest) -> Result<(), Fault> {
    if Digest::of(body) == *digest {
        return Ok(());
    }
    Err(step.fault(FaultReason::RegistryError, "registry sent other bytes than the digest names"))
}

const CONTENT_DIGEST: &str = "docker-content-digest";
/// All four kinds of manifest, so that a tag resolves to the same digest as for containerd.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// design.md, Bounds: payloads and bundles.
const EVIDENCE_LIMIT: usize = 1024 * 1024;
/// design.md, Bounds: attestations, in whatever form.
const ATTESTATION_LIMIT: usize = 10 * 1024 * 1024;
/// Requests of one look-up at once; the host's slots bound all look-ups together.
const PARALLEL: usize = 4;

#[cfg(test)]
pub(crate) mod tests;
