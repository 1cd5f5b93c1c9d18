//! A hostile or faulty host between clients and a real registry: a reverse proxy that a test
//! tells, request by request, to pass, to answer by itself, or to ask for something else.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{block_on, registry::Registry, runtime};

/// A request as the proxy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// What to do with a request.
pub(crate) enum Action {
    /// Ask the registry.
    Pass,
    /// Ask the registry for this path instead.
    Instead(String),
    /// Answer without asking.
    Answer(StatusCode, Vec<(header::HeaderName, String)>, String),
    /// Ask the registry, and break off in the middle of its answer.
    Cut,
    /// Ask the registry, and hand on a byte of its answer at a time, that long after the other.
    Drip(Duration),
    /// Ask the registry, and go on sending behind its answer.
    Endless,
    /// Ask the registry, and announce more than it sends.
    Short,
    /// Ask the registry, and add a byte to its answer.
    Alter,
}

type Decide = dyn Fn(&Seen) -> Action + Send + Sync;

/// A running proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy before a registry.
    pub(crate) fn before(
        registry: &Registry,
        decide: impl Fn(&Seen) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::before_host(registry.host(), decide)
    }

    /// The same before any `host:port`.
    pub(crate) fn before_host(
        upstream: &str,
        decide: impl Fn(&Seen) -> Action + Send + Sync + 'static,
    ) -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let context = Arc::new(Context {
            upstream: upstream.to_owned(),
            seen: Arc::clone(&seen),
            decide: Box::new(decide),
            client: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
        });
        let accepting = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let context = Arc::clone(&context);
                let service = service_fn(move |request| {
                    let context = Arc::clone(&context);
                    async move { Ok::<_, Infallible>(context.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { host, seen, accepting }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic while held").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What becomes of the registry's answer on its way.
enum Fate {
    Whole,
    Cut,
    Drip(Duration),
    Endless,
    Short,
    Alter,
}

impl Fate {
    fn of(self, body: Bytes) -> Body {
        match self {
            Self::Whole => whole(body),
            Self::Short => after_a_while(body, None),
            Self::Endless => {
                let more = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 64 * 1024]))));
                StreamBody::new(stream::iter([Ok(Frame::data(body))]).chain(more)).boxed_unsync()
            }
            Self::Alter => whole([&body, &b" "[..]].concat()),
            Self::Cut => {
                let half = body.slice(..body.len() / 2);
                after_a_while(half, Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
            Self::Drip(pause) => {
                let drops = stream::unfold(body, move |mut body| async move {
                    if body.is_empty() {
                        return None;
                    }
                    tokio::time::sleep(pause).await;
                    Some((Ok(Frame::data(body.split_to(1))), body))
                });
                StreamBody::new(drops).boxed_unsync()
            }
        }
    }

    /// What the headers say of the body's length; the answer to HEAD keeps the length of what it does
    /// not carry.
    fn announce(&self, body: &Bytes, headers: &mut HeaderMap) {
        let length = match self {
            Self::Whole | Self::Cut | Self::Drip(_) => return,
            Self::Endless => {
                headers.remove(header::CONTENT_LENGTH);
                return;
            }
            Self::Short => body.len() + 10,
            Self::Alter => body.len() + 1,
        };
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

/// A body of a length that hyper does not know, so that headers may lie about it. It ends when what was
/// written is sent.
fn after_a_while(body: Bytes, end: Option<io::Result<Frame<Bytes>>>) -> Body {
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        end
    });
    let end = end.filter_map(std::future::ready);
    StreamBody::new(stream::iter([Ok(Frame::data(body))]).chain(end)).boxed_unsync()
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

struct Context {
    upstream: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    decide: Box<Decide>,
    client: reqwest::Client,
}

impl Context {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let seen = Seen { method: head.method, path, headers: head.headers };
        let action = (self.decide)(&seen);
        self.seen.lock().expect("no panic while held").push(seen.clone());
        let fate = match action {
            _ if seen.method == Method::HEAD => Fate::Whole,
            Action::Cut => Fate::Cut,
            Action::Drip(pause) => Fate::Drip(pause),
            Action::Endless => Fate::Endless,
            Action::Short => Fate::Short,
            Action::Alter => Fate::Alter,
            Action::Pass | Action::Instead(_) | Action::Answer(..) => Fate::Whole,
        };
        let path = match action {
            Action::Pass
            | Action::Cut
            | Action::Drip(_)
            | Action::Endless
            | Action::Short
            | Action::Alter => seen.path,
            Action::Instead(path) => path,
            Action::Answer(status, headers, body) => {
                let mut response = Response::new(whole(body));
                *response.status_mut() = status;
                for (name, value) in headers {
                    response.headers_mut().insert(name, value.parse().expect("a header value"));
                }
                return response;
            }
        };
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut headers = seen.headers;
        headers.remove(header::HOST);
        let url = format!("http://{}{path}", self.upstream);
        let answer = self.client.request(seen.method, url).headers(headers).body(body).send().await;
        let Ok(answer) = answer else {
            let mut response = Response::new(whole("the registry does not answer"));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return response;
        };
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::TRANSFER_ENCODING);
        let body = answer.bytes().await.unwrap_or_default();
        fate.announce(&body, &mut headers);
        let mut response = Response::new(fate.of(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
