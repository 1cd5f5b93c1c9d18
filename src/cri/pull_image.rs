//! `PullImage`: judged, pinned, forwarded, named.
//!
//! Order: read the request strictly (M1, M5); ask the gate; exchange the image for the pinned name in
//! the original bytes; forward with the caller's metadata; tell the gate how it ended (C3, O4); write
//! the tag record after a pull by tag (T1 to T3); pass containerd's answer on. Any step that fails
//! answers an error; containerd has nothing before the gate allowed it.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Code;

use super::body::RelayBody;
use super::proxy::{Shared, stopping};
use super::tags::TagPull;
use super::unary::{self, PULL_IMAGE};
use super::wire::{self, PullImageRequest, PullImageResponse};
use super::{Forward, Gate, PodIdentity, PullAnswer, PullCall, PullOutcome, PullPlan, Refusal, Upstream};
use crate::oci::{Digest, Reference, RequestedImage};

pub(super) async fn relay<G: Gate>(
    shared: &Shared<G>,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Result<Response<RelayBody>, Refusal> {
    let (metadata, message, request) = unary::open(request, "PullImage", wire::pull_image_request).await?;
    let call = call(request)?;
    let image = call.image.clone();

    // Taken before the gate resolves the tag, so that no newer pull is forgotten meanwhile (T1).
    let slot = image.containerd_tag_name().map(|name| shared.tags.enter(name));
    let gate = Arc::clone(&shared.gate);
    let judging = shared.on_workers(async move { gate.pull(call).await });
    let PullPlan { forward, ticket } = tokio::select! {
        plan = judging => plan?,
        () = shared.shutdown.cancelled() => return Err(stopping()),
    };
    let in_flight = shared.pulls.token();
    if shared.shutdown.is_cancelled() {
        return Err(stopping());
    }

    let forwarded = match &forward {
        Forward::AsSent => message,
        Forward::Pinned { name, digest, .. } => {
            check_pinned(&image, name, digest)?;
            wire::splice_image(&message, name).map_err(internal)?.into()
        }
    };
    // containerd names the tag itself: what it is called must be what was pulled, until that is on record (T1).
    let _unmoved = match (&forward, &slot) {
        (Forward::AsSent, Some(slot)) => Some(slot.unmoved().await),
        (Forward::AsSent, None) | (Forward::Pinned { .. }, _) => None,
    };
    let answer = match unary::exchange(upstream, PULL_IMAGE, &metadata, &forwarded).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let outcome = PullOutcome::Failed { code: refusal.code, message: refusal.message.clone() };
            return match pulled(shared, ticket, outcome).await? {
                PullAnswer::PassOn => Err(refusal),
                PullAnswer::Present { image_id } => present(image_id),
            };
        }
    };
    let status = answer.status();
    if status.code() != Code::Ok {
        let outcome = PullOutcome::Failed { code: status.code(), message: status.message().to_owned() };
        return match pulled(shared, ticket, outcome).await? {
            PullAnswer::PassOn => Ok(answer.into_response(Some(in_flight))),
            PullAnswer::Present { image_id } => present(image_id),
        };
    }

    let image_id = answer.message::<PullImageResponse>("PullImage")?.image_ref;
    let outcome = PullOutcome::Pulled { image_id: image_id.clone() };
    if let PullAnswer::Present { image_id } = pulled(shared, ticket, outcome).await? {
        return present(image_id);
    }
    // Held until the answer is handed over (T1).
    let _named = match (&forward, &slot) {
        (Forward::Pinned { name, digest, resolved: Some(resolved) }, Some(slot)) => {
            let pull = TagPull { pinned: name, digest, resolved: *resolved, image_id: &image_id };
            Some(slot.record(shared, upstream, &pull).await?)
        }
        // By digest, or not resolved by this request: no record (T2, M6, O2).
        (Forward::Pinned { .. } | Forward::AsSent, _) => None,
    };
    Ok(answer.into_response(Some(in_flight)))
}

async fn pulled<G: Gate>(
    shared: &Shared<G>,
    ticket: G::Ticket,
    outcome: PullOutcome,
) -> Result<PullAnswer, Refusal> {
    let gate = Arc::clone(&shared.gate);
    shared.on_workers(async move { gate.pulled(ticket, outcome).await }).await
}

fn call(request: PullImageRequest) -> Result<PullCall, Refusal> {
    let text = request.image.map(|spec| spec.image).unwrap_or_default();
    let image = match RequestedImage::parse(&text) {
        Ok(RequestedImage::Reference(image)) => image,
        Ok(RequestedImage::Id(_)) => {
            return Err(Refusal::new(Code::InvalidArgument, "pullgate: an image id cannot be pulled"));
        }
        Err(error) => return Err(Refusal::new(Code::InvalidArgument, format!("pullgate: {error}"))),
    };
    let sandbox = request.sandbox_config.unwrap_or_default();
    let metadata = sandbox.metadata.unwrap_or_default();
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let pod = PodIdentity {
        namespace: some(metadata.namespace),
        name: some(metadata.name),
        labels: sandbox.labels,
        annotations: sandbox.annotations,
    };
    Ok(PullCall { image, pod, auth: request.auth })
}

/// The pinned name must be the image that was asked for, at the digest that was decided.
fn check_pinned(image: &Reference, name: &str, digest: &Digest) -> Result<(), Refusal> {
    match Reference::parse(name) {
        Ok(pinned) if pinned.repository() == image.repository() && pinned.digest() == Some(*digest) => Ok(()),
        _ => Err(Refusal::new(Code::Internal, "pullgate: the decision is for another image")),
    }
}

fn present(image_id: String) -> Result<Response<RelayBody>, Refusal> {
    unary::answer(&PullImageResponse { image_ref: image_id })
}

fn internal(error: wire::WireError) -> Refusal {
    Refusal::new(Code::Internal, format!("pullgate: PullImage: {error}"))
}
