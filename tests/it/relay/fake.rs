//! A containerd of the test: CRI and the Images API on one socket, with faults on demand and with
//! fields and methods of a newer CRI.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use containerd_client::services::v1 as api;
use containerd_client::types::Descriptor;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_cri::v1;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What a handler tells the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A call that hangs has begun.
    Began(&'static str),
    /// Its work was dropped.
    Dropped(&'static str),
}

/// One call as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) records: Mutex<BTreeMap<String, api::Image>>,
    /// Image id of each manifest digest.
    pub(crate) ids: Mutex<HashMap<String, String>>,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Whether CRI takes up records that were written through the Images API.
    pub(crate) takes_up_records: AtomicBool,
    /// Whether CRI never answers ImageStatus.
    pub(crate) hangs: AtomicBool,
    pub(crate) pull: Mutex<Pull>,
    /// What it calls itself.
    pub(crate) name: Mutex<&'static str>,
    events: mpsc::UnboundedSender<Event>,
}

/// What PullImage does.
#[derive(Debug, Clone)]
pub(crate) enum Pull {
    Succeed,
    Fail(u8, &'static str),
    /// Until the semaphore has a permit.
    Wait(Arc<tokio::sync::Semaphore>),
}

pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    socket: PathBuf,
    server: Option<tokio::task::JoinHandle<()>>,
}

struct Reports(&'static str, mpsc::UnboundedSender<Event>);

impl Drop for Reports {
    fn drop(&mut self) {
        let _ = self.1.send(Event::Dropped(self.0));
    }
}

impl Fake {
    pub(crate) fn start(socket: &Path) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let state = State {
            records: Mutex::default(),
            ids: Mutex::default(),
            seen: Mutex::default(),
            takes_up_records: AtomicBool::new(true),
            hangs: AtomicBool::new(false),
            pull: Mutex::new(Pull::Succeed),
            name: Mutex::new("containerd"),
            events: sender,
        };
        let mut fake = Self { state: Arc::new(state), events, socket: socket.to_owned(), server: None };
        fake.listen();
        fake
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn listen(&mut self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let state = Arc::clone(&self.state);
        self.server = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                connections.spawn(
                    http2::Builder::new(TokioExecutor::new())
                        .auto_date_header(false)
                        .max_concurrent_streams(1000)
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        }));
    }

    /// Drops the listener and every connection, as a kill would.
    pub(crate) async fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub(crate) async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }
}

impl State {
    pub(crate) fn target(&self, name: &str) -> Option<String> {
        Some(self.records.lock().unwrap().get(name)?.target.as_ref()?.digest.clone())
    }

    /// The image behind the digest gets this id.
    pub(crate) fn image(&self, digest: &str, id: &str) {
        self.ids.lock().unwrap().insert(digest.to_owned(), id.to_owned());
    }

    pub(crate) fn add_record(&self, name: &str, digest: &str) {
        let target = Descriptor {
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            digest: digest.to_owned(),
            size: 7,
            annotations: HashMap::new(),
        };
        let image = api::Image { name: name.to_owned(), target: Some(target), ..api::Image::default() };
        self.records.lock().unwrap().insert(name.to_owned(), image);
    }

    pub(crate) fn calls(&self, method: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|call| call.path.ends_with(method)).cloned().collect()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let headers = request.headers().clone();
        match path.rsplit('/').next().unwrap() {
            "Echo" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("x-trailer", HeaderValue::from_static("kept"));
                let end = stream::once(async move { Ok(Frame::trailers(trailers)) });
                let data = request.into_body().into_data_stream().map(|data| data.map(Frame::data));
                self.seen.lock().unwrap().push(Seen { path, authority, headers, message: Bytes::new() });
                return with(StreamBody::new(data.chain(end)).boxed_unsync());
            }
            "HangBeforeHead" => {
                let _reports = Reports("head", self.events.clone());
                self.events.send(Event::Began("head")).unwrap();
                return std::future::pending().await;
            }
            "HangInBody" => {
                self.events.send(Event::Began("body")).unwrap();
                let reports = Reports("body", self.events.clone());
                let first = stream::once(async { Ok(Frame::data(framed(b"first"))) });
                let hang = stream::once(async move {
                    let _reports = reports;
                    std::future::pending().await
                });
                return with(StreamBody::new(first.chain(hang)).boxed_unsync());
            }
            "Count" => {
                let frames = (0..1000_u32).map(|n| Ok(Frame::data(framed(&n.to_be_bytes()))));
                let end = stream::once(async { Ok(Frame::trailers(status(0, ""))) });
                return with(StreamBody::new(stream::iter(frames).chain(end)).boxed_unsync());
            }
            _ => {}
        }
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = body.slice(5.min(body.len())..);
        self.seen.lock().unwrap().push(Seen {
            path: path.clone(),
            authority,
            headers,
            message: message.clone(),
        });
        match path.as_str() {
            "/runtime.v1.RuntimeService/Version" => encoded(&v1::VersionResponse {
                version: "0.1.0".into(),
                runtime_name: (*self.name.lock().unwrap()).to_owned(),
                ..v1::VersionResponse::default()
            }),
            "/runtime.v1.ImageService/PullImage" => self.pull_image(&message).await,
            "/runtime.v1.ImageService/ImageStatus" => {
                if self.hangs.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                self.image_status(&message)
            }
            "/runtime.v1.ImageService/ListImages" => reply(&vec![b'x'; 32 * 1024 * 1024]),
            "/runtime.v1.ImageService/ImageFsInfo" | "/runtime.v1.ImageService/Describe" => {
                reply(b"\x9a\x06\x01?")
            }
            "/containerd.services.images.v1.Images/Get" => {
                let name = api::GetImageRequest::decode(message).unwrap().name;
                match self.records.lock().unwrap().get(&name) {
                    Some(image) => encoded(&api::GetImageResponse { image: Some(image.clone()) }),
                    None => failure(5, "not found"),
                }
            }
            "/containerd.services.images.v1.Images/Create" => {
                let image = api::CreateImageRequest::decode(message).unwrap().image.unwrap();
                let mut records = self.records.lock().unwrap();
                if records.contains_key(&image.name) {
                    return failure(6, "already exists");
                }
                records.insert(image.name.clone(), image);
                encoded(&api::CreateImageResponse::default())
            }
            "/containerd.services.images.v1.Images/Update" => {
                let request = api::UpdateImageRequest::decode(message).unwrap();
                assert_eq!(request.update_mask.unwrap().paths, ["target"]);
                let image = request.image.unwrap();
                match self.records.lock().unwrap().get_mut(&image.name) {
                    Some(record) => record.target = image.target,
                    None => return failure(5, "not found"),
                }
                encoded(&api::UpdateImageResponse::default())
            }
            "/containerd.services.images.v1.Images/Delete" => {
                let name = api::DeleteImageRequest::decode(message).unwrap().name;
                self.records.lock().unwrap().remove(&name);
                reply(b"")
            }
            "/containerd.services.images.v1.Images/List" => {
                let images = self.records.lock().unwrap().values().cloned().collect();
                encoded(&api::ListImagesResponse { images })
            }
            "/containerd.services.version.v1.Version/Version" => {
                encoded(&api::VersionResponse { version: "v9".into(), revision: "abc".into() })
            }
            _ => failure(12, "unknown method of the fake"),
        }
    }

    async fn pull_image(&self, message: &Bytes) -> Response<Body> {
        let request = v1::PullImageRequest::decode(message.clone()).unwrap();
        let name = request.image.unwrap().image;
        let pull = self.pull.lock().unwrap().clone();
        match pull {
            Pull::Fail(code, message) => return failure(code, message),
            Pull::Wait(gate) => {
                let _reports = Reports("pull", self.events.clone());
                self.events.send(Event::Began("pull")).unwrap();
                gate.acquire().await.unwrap().forget();
            }
            Pull::Succeed => {}
        }
        let Some((_, digest)) = name.split_once('@') else {
            return reply(&pull_answer("sha256:as-sent"));
        };
        self.add_record(&name, digest);
        let id = self.ids.lock().unwrap().get(digest).cloned().unwrap();
        reply(&pull_answer(&id))
    }

    fn image_status(&self, message: &Bytes) -> Response<Body> {
        let name = v1::ImageStatusRequest::decode(message.clone()).unwrap().image.unwrap().image;
        let by_tag = !name.contains('@');
        let digest = self.target(&name).filter(|_| !by_tag || self.takes_up_records.load(Ordering::SeqCst));
        let id = digest.and_then(|digest| self.ids.lock().unwrap().get(&digest).cloned());
        let image = id.map(|id| v1::Image { id, repo_tags: vec![name], size: 9, ..v1::Image::default() });
        let mut bytes = v1::ImageStatusResponse { image, info: HashMap::new() }.encode_to_vec();
        bytes.extend_from_slice(UNKNOWN_FIELD);
        reply(&bytes)
    }
}

/// containerd's answer to a pull, with a field that nobody knows yet.
pub(crate) fn pull_answer(id: &str) -> Vec<u8> {
    let mut bytes = v1::PullImageResponse { image_ref: id.to_owned() }.encode_to_vec();
    bytes.extend_from_slice(UNKNOWN_FIELD);
    bytes
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}

fn with(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("x-head", HeaderValue::from_static("kept"));
    response
}

fn reply(message: &[u8]) -> Response<Body> {
    let frames = [Ok(Frame::data(framed(message))), Ok(Frame::trailers(status(0, "")))];
    with(StreamBody::new(stream::iter(frames)).boxed_unsync())
}

fn encoded(message: &impl Message) -> Response<Body> {
    reply(&message.encode_to_vec())
}

/// A trailers-only answer.
fn failure(code: u8, message: &'static str) -> Response<Body> {
    let mut response = with(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().extend(status(code, message));
    response
}

fn status(code: u8, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if !message.is_empty() {
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        trailers.insert("grpc-status-details-bin", HeaderValue::from_static("AAEC"));
    }
    trailers
}

/// Field 99, `later`.
const UNKNOWN_FIELD: &[u8] = b"\x9a\x06\x05later";
