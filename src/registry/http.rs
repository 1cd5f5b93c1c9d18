//! One HTTP exchange with a registry: bounded in bytes, time, redirects and number at once.
//!
//! The peer is not trusted: bodies stop at the caller's limit, silence at the idle timeout, a
//! dripping peer at the request's deadline, redirect chains at three. `Authorization` goes to the
//! origin (scheme, host, port) that it was made for and is dropped at the first redirect to another
//! one. Nothing is decompressed: stored bytes are hashed as they come.
//!
//! Slots bound the requests to one host, and nothing bounds the hosts that pods name. So only small bodies are
//! read at once without a limit; the large ones of all hosts share [`LARGE_BODIES_KIB`], each taken before it
//! is read and given back when it was, and wait for one another within their request's time. One host has half
//! of that at most: one that announces much and sends little leaves room for the others. Several such hosts at once
//! can still keep the large bodies of others waiting until their time is over, which is a fault and never a verdict.
//!
//! Failures become [`Fault`]s here. Their texts are made of fixed words, the image and the
//! registry's own error code, never of a library's error text (rule E2). A [`Step`] remembers
//! whether anyone answered while one thing was looked up, which decides the fault's contact.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::address::{authority, has_port, is_loopback, redirect_target};
use super::cause::Cause;
use super::connections::{Connections, Via};
use super::requests::Counts;
use super::retry::{RETRY_PAUSES, retry_pause};
use super::{RegistryError, RegistryOptions, RequestClass, RequestCounts, Timeouts};
use crate::outcome::{Contact, Fault, FaultReason};

/// Sends requests; knows hosts by name.
pub(super) struct Transport {
    connections: Connections,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    plain_http: BTreeSet<String>,
    concurrency: usize,
    timeouts: Timeouts,
    counts: Counts,
    /// Of the memory for large bodies, in KiB.
    large_bodies: Semaphore,
}

/// What is known of one registry host.
pub(super) struct Host {
    slots: Semaphore,
    /// Of its share of the memory for large bodies, in KiB.
    large_bodies: Semaphore,
    /// The scheme that answered and when, for hosts where two are tried.
    scheme: Mutex<Option<(Scheme, Instant)>>,
    /// Since when the host is known to have no referrers API.
    pub(super) without_referrers: Mutex<Option<Instant>>,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// One request.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) class: RequestClass,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    pub(super) authorization: Option<HeaderValue>,
    /// What `hosts.toml` says of the host that this is about.
    pub(super) via: Option<Via>,
    /// What to post; a redirect of it is refused, since it may carry a secret.
    pub(super) post: Option<Post>,
    /// The largest body that is read.
    pub(super) limit: usize,
}

/// The body of a request.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) media_type: &'static str,
    pub(super) body: String,
}

/// One answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// One thing being looked up: its name in messages, who was asked so far, and whether anyone answered.
#[derive(Debug)]
pub(super) struct Step {
    subject: String,
    began: Instant,
    /// Of all hosts that are asked for it.
    contact: Arc<Contacts>,
    /// The one that is asked, as the route calls it.
    host: Option<String>,
    /// Answers to this step alone.
    answers: AtomicUsize,
    /// An answer came that a TLS server does not give to plain HTTP.
    spoken: AtomicBool,
    /// What answered a TLS handshake speaks no TLS.
    plain: AtomicBool,
}

#[derive(Debug, Default)]
struct Contacts {
    asked: AtomicBool,
    /// What we lack kept us from asking somebody.
    hindered: AtomicBool,
    answers: AtomicUsize,
    /// The hosts whose turn has not come.
    unasked: Mutex<BTreeSet<String>>,
}

impl Transport {
    pub(super) fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self {
            connections: Connections::new(options)?,
            hosts: Mutex::default(),
            plain_http: options.plain_http.iter().map(|host| host.to_ascii_lowercase()).collect(),
            concurrency: options.concurrency_per_host.get(),
            timeouts: options.timeouts,
            counts: Counts::default(),
            large_bodies: Semaphore::new(LARGE_BODIES_KIB),
        })
    }

    /// What is known of the host of that name.
    pub(super) fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        // Names come from pods: forget the idle ones before there are too many.
        if hosts.len() >= HOSTS_LIMIT {
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let host = Arc::new(Host {
            slots: Semaphore::new(self.concurrency),
            large_bodies: Semaphore::new(HOST_SHARE_KIB),
            scheme: Mutex::new(None),
            without_referrers: Mutex::new(None),
        });
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }

    /// Whether plain HTTP is taken of the host of that name: by the configuration, or on this machine.
    pub(super) fn takes_plain(&self, name: &str) -> bool {
        self.plain_http.contains(name) || is_loopback(name)
    }

    /// The schemes to try for the host of that name, in order. Plain HTTP only where configured, or
    /// first for loopback hosts with a port; an https host is never asked again in the clear.
    pub(super) fn schemes(&self, name: &str, host: &Host) -> &'static [Scheme] {
        if self.plain_http.contains(name) {
            return &[Scheme::Http];
        }
        // For a while: what listens on this machine may be another tomorrow.
        match host.scheme_since(SCHEME_KEPT) {
            Some(Scheme::Http) => &[Scheme::Http],
            Some(Scheme::Https) => &[Scheme::Https],
            None if has_port(name) && is_loopback(name) => &[Scheme::Http, Scheme::Https],
            None => &[Scheme::Https],
        }
    }

    pub(super) fn counts(&self) -> RequestCounts {
        self.counts.read()
    }

    /// Sends `call` and reads the answer, whatever its status. Asks again after 429 or 5xx, once for
    /// each of [`RETRY_PAUSES`], unless the registry wants a long pause.
    pub(super) async fn send(&self, step: &Step, call: &Call) -> Result<Answer, Fault> {
        for pause in RETRY_PAUSES {
            let answer = self.send_once(step, call).await?;
            let Some(pause) = retry_pause(&answer, pause) else {
                return Ok(answer);
            };
            tokio::time::sleep(pause).await;
        }
        self.send_once(step, call).await
    }

    /// What the requests of `step` come to, if they do so in time.
    pub(super) async fn look_up<T>(
        &self,
        step: &Step,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        step.within(self.timeouts.look_up, work).await
    }

    /// What the requests of `step` to one host come to. Unless it is the last to be asked, it has half of what is
    /// left of a look-up's time: one that is slow must not be the reason that the others are never asked.
    pub(super) async fn in_turn<T>(
        &self,
        step: &Step,
        last: bool,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        if last {
            return work.await;
        }
        let left = self.timeouts.look_up.saturating_sub(step.began.elapsed());
        step.within(left / 2, work).await
    }

    /// One request with its redirects, in a slot of the host. Waiting for the slot does not count
    /// against the request's time.
    pub(super) async fn send_once(&self, step: &Step, call: &Call) -> Result<Answer, Fault> {
        let host = self.host(&authority(&call.url));
        let closed = |_| step.fault(FaultReason::Internal, "registry client is closed");
        let _slot = host.slots.acquire().await.map_err(closed)?;
        step.within(self.timeouts.request, self.follow(step, call, &host)).await
    }

    async fn follow(&self, step: &Step, call: &Call, host: &Host) -> Result<Answer, Fault> {
        let mut url = call.url.clone();
        let mut authorization = call.authorization.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.exchange(step, call, url.clone(), authorization.clone()).await?;
            if !is_redirect(response.status()) {
                let mut answer = self.read(step, call, host, response).await?;
                if url.origin() != call.url.origin() {
                    // Only the registry itself may say where its secrets go.
                    answer.headers.remove(WWW_AUTHENTICATE);
                }
                return Ok(answer);
            }
            let next = redirect_target(&url, response.headers()).filter(|_| call.post.is_none()).ok_or_else(
                || step.fault(FaultReason::RegistryError, "registry redirects to where nobody should follow"),
            )?;
            if next.origin() != url.origin() {
                authorization = None;
            }
            url = next;
        }
        Err(step.fault(FaultReason::RegistryError, "registry redirects too often"))
    }

    async fn exchange(
        &self,
        step: &Step,
        call: &Call,
        url: Url,
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Fault> {
        let client = self.connections.client(call.via.as_ref(), &url);
        let client = client.map_err(|_| step.fault(FaultReason::Internal, "TLS cannot be set up"))?;
        let mut headers = call.via.as_ref().map(|via| via.headers(&url)).unwrap_or_default();
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(post) = &call.post {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(post.media_type));
        }
        let mut request = client.request(call.method.clone(), url).headers(headers);
        if let Some(post) = &call.post {
            request = request.body(post.body.clone());
        }
        self.counts.add(call.class);
        step.set_asked();
        let response = request.send().await.map_err(|error| step.transport_fault(&error))?;
        step.note_answer();
        if response.status() != StatusCode::BAD_REQUEST {
            step.spoken.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }

    /// Reads a body up to the limit. The body of an error is read as far as its words go, and is not
    /// missed if it breaks off.
    async fn read(
        &self,
        step: &Step,
        call: &Call,
        host: &Host,
        mut response: reqwest::Response,
    ) -> Result<Answer, Fault> {
        let status = response.status();
        let headers = response.headers().clone();
        let success = status.is_success();
        let limit = if success { call.limit } else { ERROR_BODY_LIMIT };
        let too_large =
            || step.fault(FaultReason::RegistryError, &format!("registry sent more than {limit} bytes"));
        let mut body = Vec::new();
        if call.method == Method::HEAD {
            return Ok(Answer { status, headers, body });
        }
        let announced = response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if success && announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let whole = announced.unwrap_or(limit).min(limit);
        // Where the length is told, nothing of a large body is read before there is room for it.
        let mut room = match announced {
            Some(length) if success && length > SMALL_BODY => Some(self.room(step, host, whole).await?),
            Some(_) | None => None,
        };
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= limit => {
                    if body.len() + chunk.len() > SMALL_BODY && body.capacity() < whole {
                        if room.is_none() {
                            room = Some(self.room(step, host, whole).await?);
                        }
                        // Not by doubling, which would take up to three times as much.
                        body.reserve_exact(whole.saturating_sub(body.len()));
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) if success => return Err(too_large()),
                Ok(_) => break,
                Err(_) if !success => break,
                Err(error) if error.is_timeout() => {
                    let words = "registry stopped in the middle of its answer";
                    return Err(step.fault(FaultReason::Timeout, words));
                }
                Err(_) => return Err(step.fault(FaultReason::RegistryError, "registry's answer broke off")),
            }
        }
        body.shrink_to_fit();
        Ok(Answer { status, headers, body })
    }

    #[cfg(test)]
    pub(super) fn large_bodies_left(&self) -> usize {
        self.large_bodies.available_permits()
    }

    /// Waits for the memory of a large body: for the host's share first, so that who waits for that keeps
    /// nothing from others.
    async fn room<'a>(&'a self, step: &Step, host: &'a Host, bytes: usize) -> Result<Room<'a>, Fault> {
        let kib = u32::try_from(bytes.div_ceil(1024).min(HOST_SHARE_KIB)).unwrap_or(u32::MAX);
        let closed = |_| step.fault(FaultReason::Internal, "registry client is closed");
        let of_host = host.large_bodies.acquire_many(kib).await.map_err(closed)?;
        let of_all = self.large_bodies.acquire_many(kib).await.map_err(closed)?;
        Ok(Room { _of_host: of_host, _of_all: of_all })
    }
}

/// The memory of a large body, while it is read.
struct Room<'a> {
    _of_host: SemaphorePermit<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Host {
    /// The scheme that answered, at any time.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner).map(|(scheme, _)| scheme)
    }

    fn scheme_since(&self, age: Duration) -> Option<Scheme> {
        let known = *self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(_, at)| at.elapsed() < age).map(|(scheme, _)| scheme)
    }

    pub(super) fn remember_scheme(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some((scheme, Instant::now()));
    }
}

impl Scheme {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Answer {
    /// The one value of a header; none if absent, not text, or there twice with two values.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.to_str().ok()?;
        values.all(|other| other.as_bytes() == first.as_bytes()).then_some(first)
    }

    /// The registry's own words for an error, if it gave any in the specified form.
    pub(super) fn registry_error(&self) -> Option<RegistryWords> {
        let errors: ErrorList = serde_json::from_slice(&self.body).ok()?;
        errors.errors.into_iter().next()
    }
}

impl Step {
    pub(super) fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            began: Instant::now(),
            contact: Arc::default(),
            host: None,
            answers: AtomicUsize::new(0),
            spoken: AtomicBool::new(false),
            plain: AtomicBool::new(false),
        }
    }

    /// The same thing, looked up at one host, by its name if there are others.
    pub(super) fn at(&self, host: String, name: Option<&str>) -> Self {
        let subject = name.map_or_else(|| self.subject.clone(), |name| format!("{} at {name}", self.subject));
        Self { contact: Arc::clone(&self.contact), host: Some(host), began: self.began, ..Self::new(subject) }
    }

    /// One try of it in one of two schemes: what the peer shows of its scheme in one try says nothing of the next.
    pub(super) fn in_scheme(&self) -> Self {
        Self {
            contact: Arc::clone(&self.contact),
            host: self.host.clone(),
            ..Self::new(self.subject.clone())
        }
    }

    /// A question to somebody else on the way to the same thing, whose answers are not the registry's.
    pub(super) fn aside(&self) -> Self {
        Self::new(self.subject.clone())
    }

    /// Says who is to be asked, in turn: before the last of them was, it is not known that nobody answers.
    pub(super) fn expect(&self, hosts: impl IntoIterator<Item = String>) {
        self.contact.unasked.lock().unwrap_or_else(PoisonError::into_inner).extend(hosts);
    }

    pub(super) fn set_asked(&self) {
        self.contact.asked.store(true, Ordering::Relaxed);
        if let Some(host) = &self.host {
            self.contact.unasked.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
        }
    }

    /// What `work` comes to, if it does so in time.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let late = |_| Err(self.fault(FaultReason::Timeout, "registry took too long"));
        tokio::time::timeout(limit, work).await.unwrap_or_else(late)
    }

    /// Whether what answered a TLS handshake speaks no TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// The name of what is looked up.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether the scheme that was tried is the host's.
    pub(super) fn spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// Whether this step had an answer over HTTP.
    pub(super) fn is_answered(&self) -> bool {
        self.answers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn note_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.contact.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// The answers to this step were none of the registry. Others ask for the same thing meanwhile, and what they
    /// heard stays.
    pub(super) fn take_answers_back(&self) {
        self.contact.answers.fetch_sub(self.answers.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A fault with the contact had so far.
    pub(super) fn fault(&self, reason: FaultReason, words: &str) -> Fault {
        let message = format!("{}: {words}", self.subject);
        Fault { contact: self.contact(), ..Fault::new(reason, message) }
    }

    /// Whether all hosts were asked, and none answered. Nobody is away who was not asked: what kept us
    /// from asking (no slot in time, hosts before it that used up the time, a name that is none, no descriptor) is no
    /// reason to let anything pass (rule D4).
    pub(super) fn contact(&self) -> Contact {
        let unasked = !self.contact.unasked.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let heard = self.contact.answers.load(Ordering::Relaxed) > 0;
        let hindered = self.contact.hindered.load(Ordering::Relaxed);
        if unasked || heard || hindered || !self.contact.asked.load(Ordering::Relaxed) {
            Contact::Answered
        } else {
            Contact::None
        }
    }

    /// The fault for an answer with a status that is not success.
    pub(super) fn status_fault(&self, answer: &Answer) -> Fault {
        let reason = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FaultReason::RegistryDenied,
            StatusCode::NOT_FOUND => FaultReason::ImageNotFound,
            _ => FaultReason::RegistryError,
        };
        let code = answer.status.as_u16();
        match answer.registry_error() {
            Some(words) => self.fault(reason, &format!("registry answered {code} {}", quote(&words))),
            None => self.fault(reason, &format!("registry answered {code}")),
        }
    }

    /// The fault for a request that got no whole answer. Only the kind of error is said: the
    /// library's text carries URLs, ports and addresses.
    pub(super) fn transport_fault(&self, error: &reqwest::Error) -> Fault {
        let cause = Cause::of(error);
        match cause {
            Cause::NotHttp => self.note_answer(),
            Cause::Lack => self.contact.hindered.store(true, Ordering::Relaxed),
            Cause::Certificate => self.spoken.store(true, Ordering::Relaxed),
            Cause::NotTls => self.plain.store(true, Ordering::Relaxed),
            Cause::Timeout | Cause::Refused | Cause::Name | Cause::Tls | Cause::Connection => {}
        }
        let (reason, words) = cause.told();
        self.fault(reason, words)
    }
}

/// One entry of the distribution specification's error list.
#[derive(Debug, Deserialize)]
pub(super) struct RegistryWords {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Deserialize)]
struct ErrorList {
    errors: Vec<RegistryWords>,
}

/// Registry text, in quotes: printable characters only, cut.
pub(super) fn quote(words: &RegistryWords) -> String {
    let text = format!("{}: {}", words.code, words.message);
    let clean = text.chars().filter(|c| !c.is_control() && !is_format(*c) && *c != '"');
    format!("\"{}\"", clean.take(WORDS_LIMIT).collect::<String>().trim_matches([':', ' ']))
}

/// Characters that reorder or hide text (Unicode's bidirectional controls and zero widths).
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// How long it is known which of two schemes a host of this machine speaks.
const SCHEME_KEPT: Duration = Duration::from_secs(600);
/// design.md, Bounds.
const REDIRECT_LIMIT: usize = 3;
/// Larger than ordinary manifests, signatures and bundles, so that these wait for nobody.
const SMALL_BODY: usize = 32 * 1024;
/// Of all hosts.
pub(super) const LARGE_BODIES_KIB: usize = 10 * 1024;
/// Of that for one host. A larger body (attestations have up to 10 MiB) counts as so much, and its host has one
/// at a time: two of the largest are 20 MiB at once.
const HOST_SHARE_KIB: usize = LARGE_BODIES_KIB / 2;
/// Enough for the specification's error list.
const ERROR_BODY_LIMIT: usize = 16 * 1024;
/// Of the registry's words, in characters: a message for the kubelet stays under 400 bytes.
const WORDS_LIMIT: usize = 120;
/// More registries than one node uses.
const HOSTS_LIMIT: usize = 1024;
