//! The bodies that the relay passes on, in both directions.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Status};

/// A body on its way through the relay.
#[derive(Debug)]
pub(super) enum RelayBody {
    /// A request, frame by frame. If the caller goes away, containerd sees the stream reset.
    Request(Incoming),
    /// An answer, frame by frame. If containerd goes away in the middle, the call ends with
    /// UNAVAILABLE (rule E6) instead of a reset, which clients report as INTERNAL.
    Answer(Incoming),
    /// Nothing: a trailers-only answer, or the rest of an answer that was cut.
    Empty,
    /// Bytes that were read whole.
    Whole(Whole),
}

/// Bytes that were read whole, and what the call holds until they are sent.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) data: Option<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    /// Counts a forwarded pull as in flight (rule E6).
    #[expect(dead_code, reason = "held, never read")]
    pub(super) in_flight: Option<TaskTrackerToken>,
}

impl RelayBody {
    /// One message of a request, framed.
    pub(super) fn message(data: Bytes) -> Self {
        Self::Whole(Whole { data: Some(data), ..Whole::default() })
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Request(incoming) => Pin::new(incoming).poll_frame(context),
            Self::Answer(incoming) => match Pin::new(incoming).poll_frame(context) {
                Poll::Ready(Some(Err(_))) => {
                    *self = Self::Empty;
                    Poll::Ready(Some(Ok(Frame::trailers(cut_trailers()))))
                }
                other @ (Poll::Ready(_) | Poll::Pending) => other,
            },
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) => {
                let data = whole.data.take().filter(|data| !data.is_empty());
                let frame = data.map(Frame::data).or_else(|| whole.trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Request(incoming) | Self::Answer(incoming) => incoming.is_end_stream(),
            Self::Empty => true,
            Self::Whole(whole) => whole.data.as_ref().is_none_or(Bytes::is_empty) && whole.trailers.is_none(),
        }
    }
}

fn cut_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let status = Status::new(Code::Unavailable, "pullgate: containerd went away during the call");
    // Fails only for a message that is no header value; this one is.
    let _ = status.add_header(&mut trailers);
    trailers
}
