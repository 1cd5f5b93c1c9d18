//! The length-prefixed frame of gRPC, as inspected methods may send it.
//!
//! An inspected call carries exactly one uncompressed frame of bounded length and nothing after it.
//! Everything else is refused rather than read generously: what this module and containerd would
//! read differently could name two images. Flowing calls never come here.
//!
//! Specification: grpc/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use tonic::Code;

use super::Refusal;

/// The largest request of an inspected method.
pub(super) const REQUEST_LIMIT: usize = 4 * 1024 * 1024;
/// The largest answer of an inspected method: containerd's own send limit.
pub(super) const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// One byte of compression flag, four of length.
const PREFIX: usize = 5;

/// Why bytes are not exactly one uncompressed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// The compression flag is set.
    #[error("compressed messages are not read")]
    Compressed,
    /// Longer than this many bytes.
    #[error("message is larger than {0} bytes")]
    TooLong(usize),
    /// Fewer bytes than one frame.
    #[error("message is cut short")]
    Short,
    /// More bytes than one frame.
    #[error("more than one message")]
    Trailing,
    /// The peer went away, or broke HTTP/2, before the end.
    #[error("message did not arrive")]
    Broken,
}

impl FrameError {
    /// The answer to a request with this fault.
    pub(super) fn refusal(self, method: &str) -> Refusal {
        let code = match self {
            Self::Compressed => Code::Unimplemented,
            Self::TooLong(_) => Code::ResourceExhausted,
            Self::Short | Self::Trailing => Code::InvalidArgument,
            Self::Broken => Code::Cancelled,
        };
        Refusal::new(code, format!("pullgate: {method}: {self}"))
    }
}

/// Reads `body` to its end and returns the bytes of its only message, without the prefix.
pub(super) async fn read_message<B>(body: B, limit: usize) -> Result<Bytes, FrameError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (bytes, _) = read_all(body, limit).await?;
    decode(&bytes, limit)
}

/// Reads `body` to its end: all data, framed as it came, and the trailers.
pub(super) async fn read_all<B>(
    mut body: B,
    limit: usize,
) -> Result<(Bytes, Option<http::HeaderMap>), FrameError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| FrameError::Broken)?;
        match frame.into_data() {
            Ok(data) => {
                if joined.len() + whole.len() + data.len() > limit + PREFIX {
                    return Err(FrameError::TooLong(limit));
                }
                if whole.is_empty() && joined.is_empty() {
                    whole = data;
                } else {
                    joined.extend_from_slice(&std::mem::take(&mut whole));
                    joined.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let bytes = if joined.is_empty() { whole } else { joined.freeze() };
    Ok((bytes, trailers))
}

/// The message in `bytes`, which must be exactly one uncompressed frame.
pub(super) fn decode(bytes: &Bytes, limit: usize) -> Result<Bytes, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(FrameError::Short);
    };
    let [flag, a, b, c, d] = *prefix;
    if flag != 0 {
        return Err(FrameError::Compressed);
    }
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLong(limit));
    }
    match rest.len() {
        held if held < length => Err(FrameError::Short),
        held if held > length => Err(FrameError::Trailing),
        _ => Ok(bytes.slice(PREFIX..)),
    }
}

/// One uncompressed frame around `message`.
///
/// # Errors
/// [`FrameError::TooLong`] for what does not fit a frame's length.
pub(super) fn encode(message: &[u8]) -> Result<Bytes, FrameError> {
    let length = u32::try_from(message.len()).map_err(|_| FrameError::TooLong(REQUEST_LIMIT))?;
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.extend_from_slice(message);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn a_frame_decodes_to_what_was_encoded() {
        for message in [&b""[..], b"x", &[7; 70_000]] {
            let frame = encode(message).unwrap();
            assert_eq!(decode(&frame, REQUEST_LIMIT).unwrap(), message);
        }
    }

    #[test]
    fn m7_refuses_all_but_one_uncompressed_frame() {
        let one = encode(b"abc").unwrap();
        let mut two = one.to_vec();
        two.extend_from_slice(&one);
        let mut compressed = one.to_vec();
        compressed[0] = 1;
        let table = [
            (Vec::new(), FrameError::Short),
            (vec![0, 0, 0], FrameError::Short),
            (one[..7].to_vec(), FrameError::Short),
            (two, FrameError::Trailing),
            ([&one[..], &[0]].concat(), FrameError::Trailing),
            (compressed, FrameError::Compressed),
            (vec![0, 0xff, 0xff, 0xff, 0xff, 1], FrameError::TooLong(10)),
            (encode(&[0; 11]).unwrap().to_vec(), FrameError::TooLong(10)),
        ];
        for (bytes, error) in table {
            assert_eq!(decode(&Bytes::from(bytes.clone()), 10), Err(error), "{bytes:?}");
        }
        assert_eq!(decode(&encode(&[0; 10]).unwrap(), 10).unwrap().len(), 10);
    }

    #[tokio::test]
    async fn m7_stops_reading_at_the_limit() {
        let body = Full::new(encode(&[0; 11]).unwrap());
        assert_eq!(read_message(body, 10).await, Err(FrameError::TooLong(10)));
        let body = Full::new(encode(&[0; 10]).unwrap());
        assert_eq!(read_message(body, 10).await.unwrap().len(), 10);
    }

    #[test]
    fn m7_refusals_have_their_codes() {
        let table = [
            (FrameError::Compressed, Code::Unimplemented),
            (FrameError::TooLong(1), Code::ResourceExhausted),
            (FrameError::Short, Code::InvalidArgument),
            (FrameError::Trailing, Code::InvalidArgument),
        ];
        for (error, code) in table {
            assert_eq!(error.refusal("PullImage").code, code);
        }
    }
}
