//! Fuzz targets of this layer.

use bytes::Bytes;
use prost::Message as _;

use super::frame::{self, FrameError, REQUEST_LIMIT};
use super::wire::{self, PullImageRequest, WireError};
use crate::oci::{Digest, Reference};

/// The body of a call whose content is read.
pub(crate) fn frame(data: &[u8]) -> Option<()> {
    let bytes = Bytes::copy_from_slice(data);
    let message = frame::decode(&bytes, REQUEST_LIMIT).ok()?;
    assert_eq!(frame::decode(&bytes, message.len()).as_ref(), Ok(&message), "the limit itself is refused");
    if let Some(less) = message.len().checked_sub(1) {
        assert_eq!(frame::decode(&bytes, less), Err(FrameError::TooLong(less)));
    }
    assert_eq!(frame::encode(&message), Ok(bytes), "more in it than one message");
    Some(())
}

/// A PullImageRequest, and the edit that pins it.
pub(crate) fn pull_image(data: &[u8]) -> Option<()> {
    let request = wire::pull_image_request(data).ok()?;
    let image = request.image.as_ref().map(|spec| spec.image.clone()).unwrap_or_default();
    let name = Reference::parse(&image)
        .map_or_else(|_| "docker.io/library/a:b".to_owned(), |image| image.pinned(Digest::of(data)));
    let spliced = wire::splice_image(data, &name).expect("what can be judged can be pinned");

    // Every byte around the name is as it was.
    let (before, after) = (around(data), around(&spliced));
    assert_eq!(before, after, "more than the name changed");
    let mut expected = request;
    if let Some(spec) = &mut expected.image {
        spec.image.clone_from(&name);
    }
    assert_eq!(PullImageRequest::decode(spliced.as_slice()).as_ref(), Ok(&expected));
    match wire::pull_image_request(&spliced) {
        Ok(read) => assert_eq!(read, expected),
        // The other names were those of the first one.
        Err(error) => assert!(matches!(error, WireError::OtherImage(_)), "{error}"),
    }
    assert_eq!(wire::splice_image(&spliced, &image), wire::splice_image(data, &image), "does not come back");
    Some(())
}

/// What is before, behind and between the two fields that hold the name.
fn around(message: &[u8]) -> [&[u8]; 4] {
    let (spec, image) = wire::image_value(message).ok().flatten().expect("it names an image");
    let part = |from, to| message.get(from..to).expect("a part of the message");
    [
        part(0, spec.start),
        part(spec.value.start, image.start),
        part(image.end, spec.value.end),
        part(spec.value.end, message.len()),
    ]
}

/// An ImageStatusRequest.
pub(crate) fn image_status(data: &[u8]) -> Option<()> {
    let name = wire::image_status_name(data).ok()?;
    if let Ok(request) = PullImageRequest::decode(data) {
        assert_eq!(request.image.map(|spec| spec.image).unwrap_or_default(), name, "two readers, two images");
    }
    Some(())
}
