//! One inspected call: a message to containerd, its answer whole.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, response};
use hyper::body::Incoming;
use prost::Message;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Status};

use super::body::{RelayBody, Whole};
use super::frame::{self, ANSWER_LIMIT, FrameError};
use super::wire::WireError;
use super::{Refusal, Upstream};

pub(super) const PULL_IMAGE: &str = "/runtime.v1.ImageService/PullImage";
pub(super) const IMAGE_STATUS: &str = "/runtime.v1.ImageService/ImageStatus";

/// containerd's answer to an inspected call, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    head: response::Parts,
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// The status, from the trailers or, in a trailers-only answer, from the head.
    pub(super) fn status(&self) -> Status {
        self.trailers
            .as_ref()
            .and_then(Status::from_header_map)
            .or_else(|| Status::from_header_map(&self.head.headers))
            .unwrap_or_else(|| Status::unknown("pullgate: containerd's answer has no status"))
    }

    /// Decodes the message of a successful answer.
    pub(super) fn message<M: Message + Default>(&self, method: &str) -> Result<M, Refusal> {
        let unreadable = || Refusal::new(Code::Internal, format!("pullgate: {method}: unreadable answer"));
        let message = frame::decode(&self.data, ANSWER_LIMIT).map_err(|_| unreadable())?;
        M::decode(message).map_err(|_| unreadable())
    }

    /// The answer, byte for byte. `in_flight` is held until it is sent.
    pub(super) fn into_response(self, in_flight: Option<TaskTrackerToken>) -> Response<RelayBody> {
        let whole = Whole { data: Some(self.data), trailers: self.trailers, in_flight };
        Response::from_parts(self.head, RelayBody::Whole(whole))
    }
}

/// Reads an inspected request: its metadata, its message as it came, and what `read` sees in it.
pub(super) async fn open<T>(
    request: Request<Incoming>,
    method: &'static str,
    read: impl FnOnce(&[u8]) -> Result<T, WireError>,
) -> Result<(HeaderMap, Bytes, T), Refusal> {
    let (head, body) = request.into_parts();
    let message =
        frame::read_message(body, frame::REQUEST_LIMIT).await.map_err(|error| error.refusal(method))?;
    let seen = read(&message)
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("pullgate: {method}: {error}")))?;
    Ok((head.headers, message, seen))
}

/// Sends `message` with the caller's metadata and reads the whole answer.
pub(super) async fn exchange(
    upstream: &Upstream,
    path: &'static str,
    metadata: &HeaderMap,
    message: &[u8],
) -> Result<Answer, Refusal> {
    let framed = frame::encode(message).map_err(|error| error.refusal(path))?;
    let mut request = Request::new(RelayBody::message(framed));
    metadata.clone_into(request.headers_mut());
    for name in [header::CONTENT_LENGTH, header::HOST] {
        request.headers_mut().remove(name);
    }
    // What comes back must be readable here; what goes out is not compressed.
    for name in ["grpc-encoding", "grpc-accept-encoding"] {
        request.headers_mut().remove(name);
    }
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream_uri(path)?;
    let (head, body) = upstream.send(request).await?.into_parts();
    let (data, trailers) = frame::read_all(body, ANSWER_LIMIT).await.map_err(|error| match error {
        FrameError::TooLong(_) => error.refusal(path),
        FrameError::Broken | FrameError::Compressed | FrameError::Short | FrameError::Trailing => {
            Refusal::new(Code::Unavailable, "pullgate: containerd went away during the call")
        }
    })?;
    Ok(Answer { head, data, trailers })
}

/// The metadata of a call of our own.
pub(super) fn own_metadata() -> HeaderMap {
    let mut metadata = HeaderMap::new();
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

/// A successful answer of our own with one message.
pub(super) fn answer(message: &impl Message) -> Result<Response<RelayBody>, Refusal> {
    let data = frame::encode(&message.encode_to_vec()).map_err(|error| error.refusal("answer"))?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let whole = Whole { data: Some(data), trailers: Some(trailers), in_flight: None };
    let mut response = Response::new(RelayBody::Whole(whole));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// `path` at `localhost`: the authority that grpc-go expects on a unix socket.
pub(super) fn upstream_uri(path: &str) -> Result<Uri, Refusal> {
    Uri::builder()
        .scheme("http")
        .authority("localhost")
        .path_and_query(path)
        .build()
        .map_err(|_| Refusal::new(Code::Unimplemented, "pullgate does not relay this path"))
}

/// The deadline in `grpc-timeout`; a value outside the grammar sets none, as containerd refuses it itself.
pub(super) fn deadline(metadata: &HeaderMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_reads_every_form_of_a_deadline() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("1m", Some(Duration::from_millis(1))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("999999999S", None),
            ("1", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1x", None),
        ];
        for (text, expected) in table {
            let mut metadata = HeaderMap::new();
            metadata.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(deadline(&metadata), expected, "{text}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }
}
