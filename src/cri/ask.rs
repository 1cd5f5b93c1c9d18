//! Questions of our own to the runtime, on a connection of their own.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::Code;

use super::wire::{ImageSpec, ImageStatusRequest, ImageStatusResponse};
use super::{Refusal, Upstream, unary};

/// The id of the image that CRI knows under `name`; none if it knows no such image.
///
/// # Errors
/// The [`Refusal`] that a call would have got: nobody there, no answer in time, or an error.
pub async fn image_id(socket: &Path, name: &str) -> Result<Option<String>, Refusal> {
    image_id_on(&Upstream::new(socket.into()), name).await
}

pub(super) async fn image_id_on(upstream: &Upstream, name: &str) -> Result<Option<String>, Refusal> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let request = ImageStatusRequest { image, verbose: false };
    let status: ImageStatusResponse = call(upstream, unary::IMAGE_STATUS, &request).await?;
    Ok(status.image.map(|image| image.id).filter(|id| !id.is_empty()))
}

pub(super) async fn call<M: Message + Default>(
    upstream: &Upstream,
    method: &'static str,
    request: &impl Message,
) -> Result<M, Refusal> {
    let (metadata, message) = (unary::own_metadata(), request.encode_to_vec());
    let asking = unary::exchange(upstream, method, &metadata, &message);
    let answer = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| Refusal::new(Code::DeadlineExceeded, "containerd does not answer in time"))??;
    let status = answer.status();
    if status.code() != Code::Ok {
        return Err(Refusal::new(status.code(), status.message()));
    }
    answer.message(method)
}

/// containerd lists hundreds of containers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
