//! The fields of CRI messages that are read, and the one edit that is made.
//!
//! Field numbers are those of kubernetes/cri-api `pkg/apis/runtime/v1/api.proto` (v0.28 to v0.37).
//! A decoded copy is only looked at. What goes to containerd are the original bytes with the value
//! of `ImageSpec.image` exchanged (rule M1): prost drops fields it does not know, and a newer
//! kubelet must not lose any. The bytes are therefore walked by a small reader of the protobuf wire
//! format, which also finds what a decoder would merge in silence: a second `image`, at either
//! level, for which two readers could see two names.
//!
//! Refused: broken wire format, groups, a missing or second image, other names beside it that name
//! another image. After the edit the bytes are decoded again and compared with the first copy.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use prost::Message;

use crate::oci::Reference;

/// `PullImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    pub(super) auth: Option<AuthConfig>,
    #[prost(message, optional, tag = "3")]
    pub(super) sandbox_config: Option<PodSandboxConfig>,
}

/// `ImageSpec`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) annotations: BTreeMap<String, String>,
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
    #[prost(string, tag = "19")]
    pub(super) runtime_handler: String,
    #[prost(string, tag = "20")]
    pub(super) image_ref: String,
}

/// The registry credentials of one pull, as the kubelet sends them. Never printed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct AuthConfig {
    /// User name; empty if another form is used.
    #[prost(string, tag = "1")]
    pub username: String,
    /// Password of `username`.
    #[prost(string, tag = "2")]
    pub password: String,
    /// Base64 of `user:password`, instead of the two fields.
    #[prost(string, tag = "3")]
    pub auth: String,
    /// The registry that these are for; empty means the image's own.
    #[prost(string, tag = "4")]
    pub server_address: String,
    /// OAuth2 refresh token.
    #[prost(string, tag = "5")]
    pub identity_token: String,
    /// Bearer token for the registry; containerd does not support it.
    #[prost(string, tag = "6")]
    pub registry_token: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthConfig(redacted)")
    }
}

/// `PodSandboxConfig`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<PodSandboxMetadata>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(super) attempt: u32,
}

/// `PullImageResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PullImageResponse {
    #[prost(string, tag = "1")]
    pub(super) image_ref: String,
}

/// `ImageStatusRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<ImageSpec>,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// `ImageStatusResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

/// `Image`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) repo_tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) repo_digests: Vec<String>,
}

/// Why a request is not one that can be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// Not the protobuf wire format.
    #[error("request is not a protobuf message")]
    Malformed,
    /// The walker reads it, the decoder does not.
    #[error("request cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// No image is named.
    #[error("request names no image")]
    NoImage,
    /// `image` occurs twice.
    #[error("request names more than one image")]
    SecondImage,
    /// A field beside `image` names another image.
    #[error("`{0}` names another image than `image`")]
    OtherImage(&'static str),
    /// The edited bytes do not decode to the edited copy.
    #[error("request changed by more than its image")]
    Changed,
}

/// Decodes a PullImageRequest and refuses one that names more than one image (rule M1).
pub(super) fn pull_image_request(bytes: &[u8]) -> Result<PullImageRequest, WireError> {
    image_value(bytes)?.ok_or(WireError::NoImage)?;
    let request = PullImageRequest::decode(bytes)?;
    let spec = request.image.as_ref().ok_or(WireError::NoImage)?;
    if spec.image.is_empty() {
        return Err(WireError::NoImage);
    }
    for (field, other) in
        [("user_specified_image", &spec.user_specified_image), ("image_ref", &spec.image_ref)]
    {
        if !other.is_empty() && !same_image(&spec.image, other) {
            return Err(WireError::OtherImage(field));
        }
    }
    Ok(request)
}

/// The image that an ImageStatusRequest asks for, empty if it names none. A second one is refused.
pub(super) fn image_status_name(bytes: &[u8]) -> Result<String, WireError> {
    image_value(bytes)?;
    let request = ImageStatusRequest::decode(bytes)?;
    Ok(request.image.map(|spec| spec.image).unwrap_or_default())
}

/// `original` with `ImageSpec.image` exchanged for `name`, every other byte as it was.
pub(super) fn splice_image(original: &[u8], name: &str) -> Result<Vec<u8>, WireError> {
    let (spec, value) = image_value(original)?.ok_or(WireError::NoImage)?;
    let before = original.get(spec.value.start..value.start).ok_or(WireError::Malformed)?;
    let after = original.get(value.end..spec.value.end).ok_or(WireError::Malformed)?;
    let mut inner = Vec::with_capacity(before.len() + name.len() + after.len() + 2);
    inner.extend_from_slice(before);
    push_field(&mut inner, name.as_bytes());
    inner.extend_from_slice(after);

    let mut spliced = Vec::with_capacity(original.len() + name.len() + 8);
    spliced.extend_from_slice(original.get(..spec.start).ok_or(WireError::Malformed)?);
    push_field(&mut spliced, &inner);
    spliced.extend_from_slice(original.get(spec.value.end..).ok_or(WireError::Malformed)?);

    let mut expected = PullImageRequest::decode(original)?;
    name.clone_into(&mut expected.image.get_or_insert_default().image);
    image_value(&spliced)?.ok_or(WireError::Changed)?;
    if PullImageRequest::decode(spliced.as_slice())? != expected {
        return Err(WireError::Changed);
    }
    Ok(spliced)
}

/// Whether two texts name one image: as given, or as containerd normalises them (the kubelet
/// appends `:latest` to one of them only).
fn same_image(one: &str, other: &str) -> bool {
    let normalised = |text: &str| Reference::parse(text).map(|name| name.normalised_form());
    one == other || matches!((normalised(one), normalised(other)), (Ok(one), Ok(other)) if one == other)
}

/// Field 1 of the message and field 1 in it, as a span without the inner tag: `value.start` is where
/// the inner tag starts. Nothing if either is missing; refused if either occurs twice.
pub(super) fn image_value(bytes: &[u8]) -> Result<Option<(Field, Range<usize>)>, WireError> {
    let Some(spec) = only_field(bytes, 0..bytes.len())? else {
        return Ok(None);
    };
    let image = only_field(bytes, spec.value.clone())?;
    Ok(image.map(|image| (spec, image.start..image.value.end)))
}

/// The only length-delimited field 1 in `within`.
fn only_field(bytes: &[u8], within: Range<usize>) -> Result<Option<Field>, WireError> {
    let mut found = None;
    let mut walker = Walker { bytes: bytes.get(..within.end).ok_or(WireError::Malformed)?, at: within.start };
    while let Some(field) = walker.next()? {
        if field.number != 1 {
            continue;
        }
        if field.wire_type != LENGTH_DELIMITED {
            return Err(WireError::Malformed);
        }
        if found.replace(field).is_some() {
            return Err(WireError::SecondImage);
        }
    }
    Ok(found)
}

/// Appends field 1, length-delimited.
fn push_field(to: &mut Vec<u8>, value: &[u8]) {
    to.push((1 << 3) | LENGTH_DELIMITED);
    prost::encoding::encode_varint(value.len() as u64, to);
    to.extend_from_slice(value);
}

/// One field of a message: where its tag starts and where its value lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    number: u32,
    wire_type: u8,
    pub(super) start: usize,
    pub(super) value: Range<usize>,
}

/// Walks the fields of one message without reading into them.
struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walker<'_> {
    fn next(&mut self) -> Result<Option<Field>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::Malformed)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(WireError::Malformed);
        }
        let wire_type = (tag & 7) as u8;
        let from = match wire_type {
            VARINT => {
                let from = self.at;
                self.varint()?;
                from
            }
            FIXED64 => self.skip(8)?,
            LENGTH_DELIMITED => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Malformed)?;
                self.skip(length)?
            }
            FIXED32 => self.skip(4)?,
            // Groups (3, 4) are in no CRI message; 6 and 7 do not exist.
            _ => return Err(WireError::Malformed),
        };
        Ok(Some(Field { number, wire_type, start, value: from..self.at }))
    }

    fn skip(&mut self, length: usize) -> Result<usize, WireError> {
        let from = self.at;
        let end = from.checked_add(length).filter(|end| *end <= self.bytes.len());
        self.at = end.ok_or(WireError::Malformed)?;
        Ok(from)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut rest = self.bytes.get(self.at..).ok_or(WireError::Malformed)?;
        let value = prost::encoding::decode_varint(&mut rest).map_err(|_| WireError::Malformed)?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
