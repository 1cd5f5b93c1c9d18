//! A registry of ours over a real socket, for faults and hostile answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Answers on its own port until dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// How much of a [`Body::Cut`] is missing.
const CUT: usize = 4;

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method and target, as in `GET /v2/`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    /// `x-secret`, a header of `hosts.toml` in tests.
    pub(crate) secret: Option<String>,
    pub(crate) body: String,
}

/// One answer.
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

pub(crate) enum Body {
    Whole(Vec<u8>),
    /// Breaks off [`CUT`] bytes before its announced end.
    Cut(Vec<u8>),
    /// Goes silent after these bytes.
    Stalls(Vec<u8>),
    /// Never ends.
    Endless,
    /// Not even a status line comes.
    Silence,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&log), Arc::new(answer));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move {
                        let request = Seen::read(request).await;
                        let reply = answer(&request);
                        seen.lock().unwrap().push(request);
                        if matches!(reply.body, Body::Silence) {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(reply.into_response())
                    }
                });
                connections.spawn(async move {
                    // The client hangs up on answers it does not want.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { address, log, task }
    }

    /// A repository of this registry.
    pub(crate) fn repository(&self, path: &str) -> crate::oci::Repository {
        crate::oci::Repository::parse(&format!("{}/{path}", self.address)).unwrap()
    }

    pub(crate) fn reference(&self, rest: &str) -> crate::oci::Reference {
        crate::oci::Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    async fn read(request: Request<Incoming>) -> Self {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (authorization, secret) = (header("authorization"), header("x-secret"));
        let line = format!("{} {}", request.method(), request.uri());
        let body =
            request.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        Self { line, authorization, secret, body: String::from_utf8(body).unwrap() }
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    /// An error in the specified form.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
    }

    pub(crate) fn manifest(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body).header("content-type", media_type)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap();
        self
    }

    /// Without the last bytes of the body.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        if let Body::Whole(body) = &mut self.body {
            body.truncate(body.len() - bytes);
        }
        self
    }

    fn into_response(self) -> Response<BoxBody<Bytes, io::Error>> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let pieces = |bytes: Vec<u8>| stream::iter([Ok(Frame::data(Bytes::from(bytes)))]);
        let body = match self.body {
            Body::Whole(bytes) => Full::from(bytes).map_err(|never| match never {}).boxed(),
            Body::Cut(bytes) => {
                response = response.header("content-length", bytes.len() + CUT);
                // Pending once, so that what came before is sent.
                let end = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(io::Error::other("cut"))
                });
                BodyExt::boxed(StreamBody::new(pieces(bytes).chain(end)))
            }
            Body::Stalls(bytes) => BodyExt::boxed(StreamBody::new(pieces(bytes).chain(stream::pending()))),
            Body::Endless => {
                let piece = Bytes::from(vec![b' '; 64 * 1024]);
                BodyExt::boxed(StreamBody::new(stream::repeat_with(move || Ok(Frame::data(piece.clone())))))
            }
            Body::Silence => Full::default().map_err(|never| match never {}).boxed(),
        };
        response.body(body).unwrap()
    }
}
