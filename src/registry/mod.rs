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

mod auth;
mod cause;
mod credentials;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg_attr(not(any(test, feature = "fuzzing")), expect(dead_code, reason = "used by the next piece"))]
mod hosts;
mod http;
mod images;
mod referrers;
mod rekor;
mod requests;
mod retry;
mod signatures;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{Method, StatusCode};
use reqwest::Url;

pub use self::credentials::{AuthConfig, Credentials, DockerConfig, DockerConfigError};
pub use self::referrers::{ReferrerForms, SIGNATURE_PREDICATE, Wanted};
pub use self::rekor::{LOG_BUNDLE, LogQuestion};
pub use self::requests::{RequestClass, RequestCounts};

use self::auth::{Asker, Tokens};
use self::http::{Answer, Call, Host, Scheme, Step, Transport};
use self::referrers::UnreadReferrers;
use self::rekor::LogMemory;
use self::signatures::Layer;
use crate::oci::{Digest, MANIFEST_LIMIT, Manifest, Reference, Repository};
use crate::outcome::{Fault, FaultReason, Lookup};
use crate::sigstore::SignatureEvidence;

/// Looks things up in registries. One for the whole process; shared behind an `Arc`.
pub struct Client {
    transport: Transport,
    tokens: Tokens,
    docker_configs: Vec<DockerConfig>,
    log: LogMemory,
}

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Hosts (with their port) that speak plain HTTP. Loopback hosts with a port need not be listed.
    pub plain_http: Vec<String>,
    /// Certificate authorities besides the system's.
    pub certificate_authorities: Vec<CertificateAuthority>,
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
    /// from the outside it could not be told whether anyone answered (rule D4).
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
    /// Not known: a 401 or 403 is a fault.
    Unknown,
}

/// What a look-up found.
#[derive(Debug)]
pub struct Fetched {
    /// The evidence, in a fixed order.
    pub pieces: Vec<SignatureEvidence>,
    /// What was left for later.
    pub rest: Rest,
}

/// What a look-up left for later, since hints say that it is not what is looked for. Hints are not
/// signed: it is to be read ([`Client::rest`]) before anything is refused.
#[derive(Debug)]
#[must_use]
pub struct Rest(Option<Unread>);

#[derive(Debug)]
enum Unread {
    Layers(Vec<Layer>),
    Referrers(Box<UnreadReferrers>),
}

/// The bytes of evidence that one verdict may read, over all look-ups.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

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
            log: LogMemory::default(),
        })
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
        let head = Ask {
            class: RequestClass::Resolve,
            method: Method::HEAD,
            tail: format!("manifests/{tag}"),
            accept: MANIFEST_TYPES,
            limit: 0,
        };
        let answer = self.ask(step, repository, credentials, head).await?;
        let no_head = matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        if !answer.status.is_success() && !no_head {
            return Err(step.status_fault(&answer));
        }
        if answer.status.is_success()
            && let Some(digest) = claimed_digest(step, &answer)?
        {
            return Ok(digest);
        }
        let answer = self.ask(step, repository, credentials, Ask::manifest(tag, MANIFEST_LIMIT)).await?;
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

    /// Reads what a look-up of the same request left for later.
    ///
    /// # Errors
    /// A [`Fault`] as in [`Lookup::Unreachable`].
    pub async fn rest(
        &self,
        request: EvidenceRequest<'_>,
        rest: Rest,
    ) -> Result<Vec<SignatureEvidence>, Fault> {
        let step = Step::new(format!("evidence for {}@{}", request.repository, request.digest));
        match rest.0 {
            Some(Unread::Layers(layers)) => {
                self.read_layers(&step, &request, layers, ATTESTATION_LIMIT).await
            }
            Some(Unread::Referrers(unread)) => self.later_referrers(&step, &request, *unread).await,
            None => Ok(Vec::new()),
        }
    }

    /// Requests sent since the client was made.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.transport.counts()
    }

    async fn ask(
        &self,
        step: &Step,
        repository: &Repository,
        credentials: &Credentials,
        ask: Ask,
    ) -> Result<Answer, Fault> {
        let name = network_host(repository.host());
        let host = self.transport.host(name);
        let asker = self.asker(repository, credentials, &host);
        let schemes = self.transport.schemes(name, &host);
        let mut refused = None;
        for scheme in schemes {
            let heard = step.heard();
            let call = ask.call(step, *scheme, name, repository)?;
            let result = self.tokens.send(&self.transport, step, &call, asker).await;
            if schemes.len() == 1 {
                return result;
            }
            // A TLS server answers plain HTTP with 400, an alert or a closed connection: no answer of the
            // registry, unless it does not speak TLS after all.
            if step.spoken() || result.is_ok() && *scheme == Scheme::Https {
                host.remember_scheme(*scheme);
                return result;
            }
            match result {
                Err(fault) if fault.reason == FaultReason::Timeout => return Err(fault),
                Err(fault) => refused = refused.filter(Result::is_ok).or(Some(Err(fault))),
                Ok(answer) => {
                    refused = Some(Ok(answer));
                    step.set_heard(heard);
                }
            }
        }
        if let Some(Ok(_)) = refused {
            step.set_heard(true);
        }
        refused.unwrap_or_else(|| Err(step.fault(FaultReason::Internal, "no scheme to try")))
    }

    /// A further page, at an address that the registry gave.
    async fn ask_at(&self, step: &Step, request: &EvidenceRequest<'_>, call: &Call) -> Result<Answer, Fault> {
        let host = self.transport.host(network_host(request.repository.host()));
        let asker = self.asker(request.repository, request.credentials, &host);
        self.tokens.send(&self.transport, step, call, asker).await
    }

    /// The request's own credentials; where it has none, this machine's for the repository.
    fn asker<'a>(&'a self, repository: &'a Repository, own: &'a Credentials, host: &'a Host) -> Asker<'a> {
        let stored = || self.docker_configs.iter().find_map(|config| config.credentials(repository));
        let credentials = match own {
            Credentials::Anonymous => stored().unwrap_or(own),
            Credentials::Basic { .. } | Credentials::IdentityToken(_) | Credentials::RegistryToken(_) => own,
        };
        Asker { repository, credentials, host }
    }

    /// The blob of that digest and of at most `size` bytes.
    async fn blob(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        digest: &Digest,
        size: usize,
    ) -> Result<Vec<u8>, Fault> {
        let ask = Ask {
            class: RequestClass::Blob,
            method: Method::GET,
            tail: format!("blobs/{digest}"),
            accept: "*/*",
            limit: size,
        };
        let answer = self.ask(step, request.repository, request.credentials, ask).await?;
        if !answer.status.is_success() {
            return Err(stored_fault(step, &answer));
        }
        check_digest(step, &answer.body, digest)?;
        Ok(answer.body)
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            certificate_authorities: Vec::new(),
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
        self.0.is_none()
    }

    fn of_layers(layers: Vec<Layer>) -> Self {
        Self(Some(layers).filter(|layers| !layers.is_empty()).map(Unread::Layers))
    }
}

impl From<Result<Option<Fetched>, Fault>> for Lookup<Fetched> {
    fn from(result: Result<Option<Fetched>, Fault>) -> Self {
        match result {
            Ok(Some(found)) => Self::Found(found),
            Ok(None) => Self::Absent,
            Err(fault) => Self::Unreachable(fault),
        }
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
        Self(AtomicUsize::new(bytes))
    }

    /// What is left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing if there are not so many.
    pub fn take(&self, bytes: usize) -> Option<()> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .ok()
            .map(drop)
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
}

impl Ask {
    fn manifest(tag_or_digest: &str, limit: usize) -> Self {
        Self {
            class: RequestClass::Manifest,
            method: Method::GET,
            tail: format!("manifests/{tag_or_digest}"),
            accept: MANIFEST_TYPES,
            limit,
        }
    }

    fn call(&self, step: &Step, scheme: Scheme, host: &str, repository: &Repository) -> Result<Call, Fault> {
        let text = format!("{}://{host}/v2/{}/{}", scheme.name(), repository.path(), self.tail);
        let url = Url::parse(&text)
            .map_err(|_| step.fault(FaultReason::ReferenceInvalid, "registry's name is not one of a host"))?;
        Ok(Call {
            class: self.class,
            method: self.method.clone(),
            url,
            accept: self.accept,
            authorization: None,
            post: None,
            limit: self.limit,
        })
    }
}

/// Docker Hub's API is not at the name that its references carry.
fn network_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
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

/// For something that a manifest lists: if that is not there, the registry is broken, and the image
/// itself may well be there.
fn stored_fault(step: &Step, answer: &Answer) -> Fault {
    if answer.status == StatusCode::NOT_FOUND {
        return step.fault(FaultReason::RegistryError, "registry lists what it does not have");
    }
    step.status_fault(answer)
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
