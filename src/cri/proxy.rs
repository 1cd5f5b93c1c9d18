//! The listener, its connections, and the way of one call through them.
//!
//! Each accepted connection has one connection of its own to containerd. Only peers whose user id is
//! allowed are served. All of it runs on one thread with a runtime of its own, so that a call needs
//! no other thread to wake up on its way to containerd and back; what the gate does for a pull runs
//! on the runtime that [`Proxy::new`] was called on, and never delays a call that only passes
//! through. An error of `accept` is counted and waited out; it never ends the listener.
//!
//! Stopping: no connection is accepted, new calls are refused, verifications are cancelled; forwarded
//! pulls have [`ProxyOptions::drain`] to end, everything else a moment, then all is dropped.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::Code;

use super::body::RelayBody;
use super::route::{Route, route};
use super::tags::TagSlots;
use super::{Gate, Refusal, Upstream, image_status, pull_image, unary};
use crate::containerd;
use crate::containerd::connection::{CONNECTION_WINDOW, HEADER_LIMIT, STREAM_WINDOW};

/// How the relay is set up.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The CRI image socket that calls go to; usually containerd's own.
    pub upstream: PathBuf,
    /// The user ids whose processes may connect: root, and nobody else on a node.
    pub allowed_users: BTreeSet<u32>,
    /// How long CRI may take to show a tag record (rule T3).
    pub tag_visible_within: Duration,
    /// How long forwarded pulls may go on after the shutdown (rule E6).
    pub drain: Duration,
}

impl ProxyOptions {
    /// As on a node: calls go to `upstream`, only root may connect, 5 s for a tag, 30 s to drain.
    #[must_use]
    pub fn new(upstream: impl Into<PathBuf>) -> Self {
        Self {
            upstream: upstream.into(),
            allowed_users: BTreeSet::from([0]),
            tag_visible_within: TAG_VISIBLE_WITHIN,
            drain: DRAIN,
        }
    }
}

/// What the relay counts, from its start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted and served.
    pub connections: AtomicU64,
    /// Connections of other users, or beyond the limit.
    pub refused_connections: AtomicU64,
    /// Errors of `accept`.
    pub accept_errors: AtomicU64,
    /// Calls of ImageService methods that we do not know, passed on.
    pub unknown_methods: AtomicU64,
    /// Pulls that failed because CRI did not show the tag (rule T3).
    pub tags_not_visible: AtomicU64,
    /// Calls in which we panicked.
    pub panics: AtomicU64,
}

/// The relay.
#[derive(Debug)]
pub struct Proxy<G> {
    shared: Arc<Shared<G>>,
}

/// What every call of a relay uses.
#[derive(Debug)]
pub(super) struct Shared<G> {
    pub(super) gate: Arc<G>,
    pub(super) containerd: containerd::Client,
    pub(super) tags: TagSlots,
    /// Forwarded pulls that are not answered yet.
    pub(super) pulls: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) counts: Arc<Counts>,
    pub(super) options: ProxyOptions,
    /// Where the gate judges pulls.
    workers: Handle,
}

impl<G> Shared<G> {
    /// Runs what the gate does for a pull off the relay's thread; dropping the future ends it.
    pub(super) async fn on_workers<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        match AbortOnDropHandle::new(self.workers.spawn(work)).await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                // Counted and answered where the call's own panics are.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(stopping()),
            },
        }
    }
}

impl<G: Gate> Proxy<G> {
    /// A relay that asks `gate`, writes tag records through `containerd`, and stops at `shutdown`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: pulls are judged on the one it is made on.
    #[must_use]
    pub fn new(
        options: ProxyOptions,
        gate: Arc<G>,
        containerd: containerd::Client,
        shutdown: CancellationToken,
    ) -> Self {
        let shared = Shared {
            gate,
            containerd,
            tags: TagSlots::default(),
            pulls: TaskTracker::new(),
            shutdown,
            counts: Arc::default(),
            options,
            workers: Handle::current(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The counters, for metrics and status.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Serves `listener` until the shutdown, then drains (rule E6). Dropping the future cuts all off.
    ///
    /// Serving ends at once, with a line in the log, if the relay's thread cannot be started.
    pub async fn serve(&self, listener: UnixListener) {
        let (ended, has_ended) = oneshot::channel::<()>();
        let given_up = CancellationToken::new();
        let _on_drop = given_up.clone().drop_guard();
        let proxy = Self { shared: Arc::clone(&self.shared) };
        let started = listener.into_std().and_then(|listener| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name("pullgate-relay".to_owned()).spawn(move || {
                let serving = async {
                    match UnixListener::from_std(listener) {
                        Ok(listener) => proxy.accept(listener).await,
                        Err(error) => tracing::error!(%error, "the relay cannot serve its socket"),
                    }
                };
                runtime.block_on(given_up.run_until_cancelled(serving));
                // Connections that are still open go with the runtime, before anybody hears of the end.
                drop(runtime);
                drop(ended);
            })
        });
        match started {
            Ok(_) => drop(has_ended.await),
            Err(error) => tracing::error!(%error, "the relay cannot start"),
        }
    }

    async fn accept(&self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        let mut pause = None;
        loop {
            let accepted = async {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                listener.accept().await
            };
            tokio::select! {
                () = self.shared.shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = accepted => match accepted {
                    Ok((stream, _)) => {
                        pause = None;
                        if self.admits(&stream, connections.len()) {
                            connections.spawn(connection(Arc::clone(&self.shared), stream));
                        }
                    }
                    Err(error) => {
                        self.shared.counts.accept_errors.fetch_add(1, Ordering::Relaxed);
                        let next = pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE));
                        tracing::warn!(%error, pause = ?next, "cannot accept a connection");
                        pause = Some(next);
                    }
                },
            }
        }
        drop(listener);
        self.shared.pulls.close();
        if tokio::time::timeout(self.shared.options.drain, self.shared.pulls.wait()).await.is_err() {
            tracing::warn!("drain took too long: pulls under way are given up");
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(CALLS_END_WITHIN, ended).await.is_err() {
            connections.shutdown().await;
        }
    }

    /// Whether a new connection is served: SO_PEERCRED names an allowed user, and there is room.
    fn admits(&self, stream: &UnixStream, open: usize) -> bool {
        let user = stream.peer_cred().map(|peer| peer.uid()).ok();
        let allowed = user.is_some_and(|user| self.shared.options.allowed_users.contains(&user));
        let count = if allowed && open < CONNECTION_LIMIT {
            &self.shared.counts.connections
        } else {
            tracing::warn!(?user, open, "connection refused");
            &self.shared.counts.refused_connections
        };
        count.fetch_add(1, Ordering::Relaxed);
        allowed && open < CONNECTION_LIMIT
    }
}

async fn connection<G: Gate>(shared: Arc<Shared<G>>, stream: UnixStream) {
    let upstream = Arc::new(Upstream::new(shared.options.upstream.as_path().into()));
    let shutdown = shared.shutdown.clone();
    let service = service_fn(move |request| {
        let (shared, upstream) = (Arc::clone(&shared), Arc::clone(&upstream));
        async move { Ok::<_, Infallible>(guarded(&shared, &upstream, request).await) }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(STREAM_LIMIT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// One call. A panic in it is this call's alone.
async fn guarded<G: Gate>(
    shared: &Shared<G>,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Response<RelayBody> {
    match AssertUnwindSafe(Box::pin(relay(shared, upstream, request))).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.response(),
        Err(_) => {
            shared.counts.panics.fetch_add(1, Ordering::Relaxed);
            Refusal::new(Code::Internal, "pullgate: internal fault").response()
        }
    }
}

async fn relay<G: Gate>(
    shared: &Shared<G>,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Result<Response<RelayBody>, Refusal> {
    if shared.shutdown.is_cancelled() {
        return Err(stopping());
    }
    if request.method() != Method::POST {
        return Err(Refusal::new(Code::Unimplemented, "pullgate relays gRPC only"));
    }
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let deadline = unary::deadline(request.headers());
    match route(path) {
        Route::Flow => flow(upstream, request).await,
        Route::FlowUnknown(method) => {
            shared.counts.unknown_methods.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(target: "pullgate::audit", method, "unknown ImageService method passed on");
            flow(upstream, request).await
        }
        Route::PullImage => within(deadline, pull_image::relay(shared, upstream, request)).await,
        Route::ImageStatus => within(deadline, image_status::relay(shared, upstream, request)).await,
        Route::Refuse(refusal) => Err(refusal),
    }
}

/// Passes a call through, frame by frame.
async fn flow(upstream: &Upstream, request: Request<Incoming>) -> Result<Response<RelayBody>, Refusal> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    head.uri = unary::upstream_uri(path)?;
    head.headers.remove(header::HOST);
    // Ours, of the accepted connection; hyper would look for its own in them.
    head.extensions.clear();
    let response = upstream.send(Request::from_parts(head, RelayBody::Request(body))).await?;
    Ok(response.map(RelayBody::Answer))
}

/// Our own expiry is DEADLINE_EXCEEDED (rule E1).
async fn within<T>(
    deadline: Option<Duration>,
    call: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let Some(deadline) = deadline else {
        return call.await;
    };
    tokio::time::timeout(deadline, call)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Code::DeadlineExceeded, "context deadline exceeded")))
}

/// The answer to a call that comes, or is not forwarded yet, while we stop.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Unavailable, "pullgate is stopping")
}

/// A kubelet has one connection, a crictl one each.
const CONNECTION_LIMIT: usize = 512;
/// Calls at once on one connection; the kubelet stays far below.
const STREAM_LIMIT: u32 = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Rule T3. CRI shows a record after 0.8 ms (median) to 8 ms on an idle node.
const TAG_VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// Rule E6.
const DRAIN: Duration = Duration::from_secs(30);
/// For calls that are no pull; an endless stream of events is cut after it.
const CALLS_END_WITHIN: Duration = Duration::from_secs(2);
