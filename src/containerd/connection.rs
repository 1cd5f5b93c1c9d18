//! A connection to containerd: hyper's HTTP/2 client on a unix socket, without layers in between.
//!
//! Made at the first call and again whenever it is found dead, so that a restart of containerd costs
//! the calls of that moment and no more. Nothing is cached about a failure. A request is sent a
//! second time only if hyper hands it back unsent; a call that may have reached containerd is never
//! repeated. The task that drives it runs on the runtime of the call that made it: a caller that
//! minds its latency has a connection of its own.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http::Response;
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// Why containerd did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Nobody listens on the socket.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection could not be made in time.
    #[error("cannot connect in time")]
    Slow,
    /// The connection or the stream ended before an answer.
    #[error("connection lost")]
    Lost(#[source] hyper::Error),
}

/// A lazy connection to containerd's socket.
#[derive(Debug)]
pub struct Connection<B> {
    socket: Arc<Path>,
    open: Mutex<Option<Open<B>>>,
}

#[derive(Debug)]
struct Open<B> {
    sender: SendRequest<B>,
    _driver: AbortOnDropHandle<()>,
}

impl<B> Connection<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// A connection to `socket` that is made at the first call.
    #[must_use]
    pub fn new(socket: Arc<Path>) -> Self {
        Self { socket, open: Mutex::new(None) }
    }

    /// Sends one request and waits for the head of its answer. Dropping the future, or later the
    /// body of the answer, resets the stream.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn send(&self, mut request: Request<B>) -> Result<Response<Incoming>, ConnectionError> {
        let mut sender = self.sender().await?;
        for _ in 0..RESENDS {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    let Some(unsent) = error.take_message() else {
                        return Err(ConnectionError::Lost(error.into_error()));
                    };
                    request = unsent;
                    sender = self.sender().await?;
                }
            }
        }
        sender.send_request(request).await.map_err(ConnectionError::Lost)
    }

    async fn sender(&self) -> Result<SendRequest<B>, ConnectionError> {
        if let Some(sender) = self.live() {
            return Ok(sender);
        }
        let fresh = tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.socket))
            .await
            .map_err(|_| ConnectionError::Slow)??;
        let mut held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls in flight use the one that is there; a second one would cut them off when it replaced it.
        let open = match held.take() {
            Some(open) if !open.sender.is_closed() => open,
            _ => fresh,
        };
        Ok(held.insert(open).sender.clone())
    }

    fn live(&self) -> Option<SendRequest<B>> {
        let held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|open| &open.sender).filter(|sender| !sender.is_closed()).cloned()
    }
}

async fn connect<B>(socket: &Path) -> Result<Open<B>, ConnectionError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let stream = UnixStream::connect(socket).await.map_err(ConnectionError::Connect)?;
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectionError::Lost)?;
    let driver = tokio::spawn(async move {
        // Its error reaches every call that was in flight.
        let _ = driver.await;
    });
    Ok(Open { sender, _driver: AbortOnDropHandle::new(driver) })
}

/// Per stream: holds one large ListImages answer without a pause.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Per connection: a few such streams.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Metadata of one call; status details of containerd stay far below.
pub const HEADER_LIMIT: u32 = 1024 * 1024;
/// For a local socket; the kernel answers at once unless the backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an unsent request is tried on another connection.
const RESENDS: usize = 2;
