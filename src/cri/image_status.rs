//! `ImageStatus`: containerd is asked first, the gate says what the kubelet sees of its answer.
//!
//! The gate asks for the record of the name at the same time (rule S1); whether the two belong
//! together is for the gate to see.
//! An error of containerd is passed on unasked. What is shown is containerd's answer byte for byte;
//! what is hidden is an empty answer, as for an image that is not there.

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Code;

use super::body::RelayBody;
use super::proxy::Shared;
use super::unary::{self, IMAGE_STATUS};
use super::wire::{self, ImageStatusResponse};
use super::{Gate, ImageFacts, Refusal, Upstream, Visibility};

pub(super) async fn relay<G: Gate>(
    shared: &Shared<G>,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Result<Response<RelayBody>, Refusal> {
    let (metadata, message, name) = unary::open(request, "ImageStatus", wire::image_status_name).await?;

    let (answer, asked) =
        tokio::join!(unary::exchange(upstream, IMAGE_STATUS, &metadata, &message), shared.gate.ask(&name));
    let answer = answer?;
    if answer.status().code() != Code::Ok {
        return Ok(answer.into_response(None));
    }
    let facts = answer.message::<ImageStatusResponse>("ImageStatus")?.image.map(|image| ImageFacts {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
    });
    match shared.gate.image_status(&name, asked, facts).await {
        Visibility::Show => Ok(answer.into_response(None)),
        Visibility::Hide => unary::answer(&ImageStatusResponse::default()),
        Visibility::Refuse(refusal) => Err(refusal),
    }
}
