//! The relay of one test, its gate, and a client that sees every byte.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_cri::v1;
use prost::Message as _;
use pullgate::containerd;
use pullgate::cri::{
    self, Forward, Gate, ImageFacts, Proxy, ProxyOptions, PullAnswer, PullCall, PullOutcome, PullPlan,
    Refusal, Visibility,
};
use pullgate::oci::Digest;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fake::{Body, Fake, framed};

/// A gate that does as the test says.
#[derive(Debug)]
pub(crate) struct TestGate {
    pub(crate) plans: Mutex<Vec<Result<Forward, Refusal>>>,
    pub(crate) calls: Mutex<Vec<PullCall>>,
    pub(crate) outcomes: Mutex<Vec<PullOutcome>>,
    pub(crate) present: Mutex<Option<String>>,
    pub(crate) visibility: Mutex<Visibility>,
    pub(crate) asked: Mutex<Vec<(String, Option<ImageFacts>)>>,
    /// Plans wait for a permit each if there is one.
    pub(crate) hold: Option<Arc<Semaphore>>,
    pub(crate) judging: mpsc::UnboundedSender<String>,
}

impl Gate for TestGate {
    type Ticket = ();
    type Asked = ();

    async fn pull(&self, call: PullCall) -> Result<PullPlan<()>, Refusal> {
        let plan = self.plans.lock().unwrap().pop().unwrap_or(Ok(Forward::AsSent));
        self.calls.lock().unwrap().push(call.clone());
        let _ = self.judging.send(call.image.text().to_owned());
        assert!(!call.image.text().contains("panic"), "asked to");
        if let Some(hold) = &self.hold {
            hold.acquire().await.unwrap().forget();
        }
        plan.map(|forward| PullPlan { forward, ticket: () })
    }

    async fn pulled(&self, (): (), outcome: PullOutcome) -> Result<PullAnswer, Refusal> {
        self.outcomes.lock().unwrap().push(outcome);
        Ok(match self.present.lock().unwrap().clone() {
            Some(image_id) => PullAnswer::Present { image_id },
            None => PullAnswer::PassOn,
        })
    }

    async fn ask(&self, _: &str) {}

    async fn image_status(&self, name: &str, (): (), answer: Option<ImageFacts>) -> Visibility {
        self.asked.lock().unwrap().push((name.to_owned(), answer));
        self.visibility.lock().unwrap().clone()
    }
}

pub(crate) struct Relay {
    pub(crate) fake: Fake,
    pub(crate) gate: Arc<TestGate>,
    pub(crate) judging: mpsc::UnboundedReceiver<String>,
    pub(crate) proxy: Arc<Proxy<TestGate>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    pub(crate) socket: PathBuf,
    _folder: tempfile::TempDir,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: HeaderMap,
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Clone)]
pub(crate) struct Caller(SendRequest<Body>);

impl Relay {
    pub(crate) fn start() -> Self {
        Self::with(None, current_user())
    }

    pub(crate) fn with(hold: Option<Arc<Semaphore>>, user: u32) -> Self {
        Self::with_options(hold, user, |options| options)
    }

    pub(crate) fn draining(drain: Duration) -> Self {
        Self::with_options(None, current_user(), |options| ProxyOptions { drain, ..options })
    }

    fn with_options(
        hold: Option<Arc<Semaphore>>,
        user: u32,
        change: impl FnOnce(ProxyOptions) -> ProxyOptions,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let upstream = folder.path().join("c.sock");
        let socket = folder.path().join("run/p.sock");
        let fake = Fake::start(&upstream);
        let (sender, judging) = mpsc::unbounded_channel();
        let gate = Arc::new(TestGate {
            plans: Mutex::default(),
            calls: Mutex::default(),
            outcomes: Mutex::default(),
            present: Mutex::default(),
            visibility: Mutex::new(Visibility::Show),
            asked: Mutex::default(),
            hold,
            judging: sender,
        });
        let shutdown = CancellationToken::new();
        let options = ProxyOptions {
            allowed_users: BTreeSet::from([user]),
            tag_visible_within: Duration::from_secs(2),
            ..ProxyOptions::new(&upstream)
        };
        let options = change(options);
        let client = containerd::Client::new(upstream);
        let proxy = Arc::new(Proxy::new(options, Arc::clone(&gate), client, shutdown.clone()));
        let listener = cri::socket::bind(&socket).unwrap();
        let serving = Arc::clone(&proxy);
        let served = tokio::spawn(async move { serving.serve(listener).await });
        Self { fake, gate, judging, proxy, shutdown, served, socket, _folder: folder }
    }

    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(&self.socket).await
    }

    pub(crate) fn plan(&self, plan: Result<Forward, Refusal>) {
        self.gate.plans.lock().unwrap().insert(0, plan);
    }

    /// A pull of `image` that the gate pins to `digest`, which has the id `id`.
    pub(crate) fn pins(&self, image: &str, digest: &str, id: &str, resolved: Option<u64>) -> Bytes {
        self.fake.state.image(digest, id);
        let name = pullgate::oci::Reference::parse(image).unwrap().pinned(digest.parse().unwrap());
        let digest: Digest = digest.parse().unwrap();
        self.plan(Ok(Forward::Pinned { name, digest, resolved }));
        pull_request(image)
    }
}

impl Caller {
    pub(crate) async fn connect(socket: &std::path::Path) -> Self {
        Self::try_connect(socket).await.unwrap()
    }

    pub(crate) async fn try_connect(socket: &std::path::Path) -> hyper::Result<Self> {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self(sender))
    }

    pub(crate) async fn begin(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Body,
    ) -> hyper::Result<http::Response<Incoming>> {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0.clone().send_request(request.body(body).unwrap()).await
    }

    pub(crate) async fn call(&self, path: &str, message: impl Into<Bytes>) -> Answer {
        self.raw(path, &[], framed(&message.into())).await
    }

    pub(crate) async fn raw(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        bytes: Bytes,
    ) -> Answer {
        let response = self.begin(path, headers, whole(bytes)).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        Answer { head: head.headers, data: body.to_bytes(), trailers }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> (tonic::Code, String) {
        let status = self
            .trailers
            .as_ref()
            .and_then(tonic::Status::from_header_map)
            .or_else(|| tonic::Status::from_header_map(&self.head))
            .unwrap();
        (status.code(), status.message().to_owned())
    }
}

pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn pull_request(image: &str) -> Bytes {
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }),
        auth: Some(v1::AuthConfig {
            username: "u".into(),
            password: "p".into(),
            ..v1::AuthConfig::default()
        }),
        sandbox_config: Some(v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "pod".into(),
                namespace: "ns".into(),
                ..v1::PodSandboxMetadata::default()
            }),
            ..v1::PodSandboxConfig::default()
        }),
    };
    let mut bytes = request.encode_to_vec();
    bytes.extend_from_slice(b"\x9a\x06\x05later");
    bytes.into()
}

pub(crate) fn status_request(image: &str) -> Bytes {
    let image = Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() });
    v1::ImageStatusRequest { image, verbose: false }.encode_to_vec().into()
}

/// The user who runs the tests; on a node only root is allowed.
pub(crate) fn current_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}
