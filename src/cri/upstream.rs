//! The connection to containerd that belongs to one accepted connection.
//!
//! Made at the first call and again whenever it is found dead, so that a restart of containerd costs
//! the calls of that moment and no more. Nothing is cached about a failure. A request is sent a
//! second time only if hyper hands it back unsent; a call that may have reached containerd is never
//! repeated.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::Refusal;
use super::body::RelayBody;

/// Why containerd did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
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

impl From<UpstreamError> for Refusal {
    /// E6: containerd away is UNAVAILABLE.
    fn from(error: UpstreamError) -> Self {
        Self::new(Code::Unavailable, format!("pullgate: containerd is not available: {error}"))
    }
}

/// A lazy connection to containerd's socket.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: Arc<Path>,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RelayBody>,
    _driver: AbortOnDropHandle<()>,
}

impl Upstream {
    pub(super) fn new(socket: Arc<Path>) -> Self {
        Self { socket, connection: Mutex::new(None) }
    }

    /// Sends one request and waits for the head of its answer. Dropping the future, or later the
    /// body of the answer, resets the stream.
    pub(super) async fn send(
        &self,
        mut request: Request<RelayBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut sender = self.sender().await?;
        for _ in 0..RESENDS {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    let Some(unsent) = error.take_message() else {
                        return Err(UpstreamError::Lost(error.into_error()));
                    };
                    request = unsent;
                    sender = self.sender().await?;
                }
            }
        }
        sender.send_request(request).await.map_err(UpstreamError::Lost)
    }

    async fn sender(&self) -> Result<SendRequest<RelayBody>, UpstreamError> {
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let fresh = tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.socket))
            .await
            .map_err(|_| UpstreamError::Slow)??;
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls in flight use the one that is there; a second one would cut them off when it replaced it.
        let connection = match held.take() {
            Some(open) if !open.sender.is_closed() => open,
            _ => fresh,
        };
        Ok(held.insert(connection).sender.clone())
    }

    fn open(&self) -> Option<SendRequest<RelayBody>> {
        let held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|connection| &connection.sender).filter(|sender| !sender.is_closed()).cloned()
    }
}

async fn connect(socket: &Path) -> Result<Connection, UpstreamError> {
    let stream = UnixStream::connect(socket).await.map_err(UpstreamError::Connect)?;
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(super::STREAM_WINDOW)
        .initial_connection_window_size(super::CONNECTION_WINDOW)
        .max_header_list_size(super::HEADER_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpstreamError::Lost)?;
    let driver = tokio::spawn(async move {
        // Its error reaches every call that was in flight.
        let _ = driver.await;
    });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
}

/// For a local socket; the kernel answers at once unless the backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an unsent request is tried on another connection.
const RESENDS: usize = 2;
