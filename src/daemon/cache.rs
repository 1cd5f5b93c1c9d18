//! What the commands of `pullgate cache` ask, answered by the daemon, or by the command itself in a folder
//! that no daemon holds.
//!
//! A request is about one image, or a page of a list without evidence: neither side has more than that in
//! memory for it, and whoever asks can stop between two. What an import believes is decided in
//! `admission`, here it only becomes JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::control::Response;
use crate::admission::{Gate, Imported, Judgement};
use crate::cache::archive::{EVIDENCE_LIMIT, ImageEvidence, TAGS_LIMIT};
use crate::cache::{Held, ImageName, Listed, NotKept, Origin, Page, Selection, Store};
use crate::oci::{Digest, Reference, Repository, RequestedImage};
use crate::outcome::{Denial, Fault};
use crate::policy::evaluate::Decision;

/// A page of the images that are admitted, or that there is evidence of, as `cache list` prints them.
pub async fn list(store: &Store, after: Option<ImageName>, most: usize) -> Response {
    let now = store.now();
    let row = |listed: Listed| {
        let (source, id, at) = match (listed.admission, listed.evidence) {
            (Some(admission), _) => (admission.source, admission.image_id, admission.at),
            (None, Some((at, origin))) => (word(origin).to_owned(), None, at),
            (None, None) => return None,
        };
        Some(json!({
            "image": listed.image,
            "source": source,
            "imageId": id,
            "ageSeconds": now.seconds().saturating_sub(at.seconds()),
        }))
    };
    match aside(store, move |store| store.list(after.as_ref(), most)).await {
        Ok(Page { rows, next }) => {
            let items: Vec<_> = rows.into_iter().filter_map(row).collect();
            Response::good(json!({ "items": items, "next": next }))
        }
        Err(response) => response,
    }
}

/// What takes a while, beside the threads that serve everyone.
async fn aside<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(Store) -> T + Send + 'static,
) -> Result<T, Response> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(store)).await.map_err(Response::bad)
}

/// One image, as `cache show` prints it.
pub async fn show(store: &Store, image: &str) -> Response {
    let Some((repository, digest)) = image_of(image) else {
        return Response::bad(format_args!("`{image}` is not repository@sha256:…"));
    };
    let (admission, kept) =
        (store.admission(&repository, &digest), store.evidence(&repository, &digest).await);
    if admission.is_none() && kept.is_none() {
        return Response::bad(format_args!("{image} is not in the cache"));
    }
    let admitted = admission.as_ref();
    Response::good(json!({
        "image": ImageName { repository, digest },
        "source": admitted.map(|admission| &admission.source),
        "imageId": admitted.and_then(|admission| admission.image_id.as_deref()),
        "snapshot": admitted.map(|admission| admission.snapshot),
        "admittedAt": admitted.map(|admission| admission.at.seconds()),
        "evidence": kept.as_ref().map_or(0, |kept| kept.pieces.len()),
        "evidenceBytes": kept.as_ref().map_or(0, |kept| kept.pieces.iter().map(Vec::len).sum::<usize>()),
        "evidenceOrigin": kept.as_ref().map(|kept| kept.origin),
        "fetchedAt": kept.map(|kept| kept.at.seconds()),
    }))
}

/// Forgets all, a repository or an image.
pub async fn purge(store: &Store, image: Option<&str>) -> Response {
    let which = match image {
        None => Selection::Everything,
        Some(text) => match scope(text) {
            Ok(which) => which,
            Err(error) => return Response::bad(error),
        },
    };
    if !store.opened(Duration::from_secs(30)).await {
        return Response::bad("the cache is still being opened, try again");
    }
    let purged = store.purge(&which);
    if !store.flush().await {
        return Response::bad(format_args!(
            "{purged} images forgotten in memory, but the disk cannot be written"
        ));
    }
    Response::good(json!({ "message": format!("{purged} images forgotten"), "purged": purged }))
}

/// A page of the images with evidence that `cache export` takes: all, or those of these repositories and images.
pub async fn exportable(store: &Store, wanted: &[String], after: Option<ImageName>, most: usize) -> Response {
    let scopes: Result<Vec<_>, _> = wanted.iter().map(|text| scope(text)).collect();
    let scopes = match scopes {
        Ok(scopes) => scopes,
        Err(error) => return Response::bad(error),
    };
    if !store.opened(Duration::from_secs(30)).await {
        return Response::bad("the cache is still being opened, try again");
    }
    let named = move |repository: &Repository, digest: &Digest| {
        scopes.is_empty() || scopes.iter().any(|scope| scope.names(repository, digest))
    };
    let Page { rows, next } = match aside(store, move |store| store.held(after.as_ref(), most, named)).await {
        Ok(page) => page,
        Err(response) => return response,
    };
    let (large, small): (Vec<_>, Vec<_>) = rows.into_iter().partition(|held| held.bytes > EVIDENCE_LIMIT);
    let row = |held: &Held| {
        let tags = held.tags.get(..TAGS_LIMIT).unwrap_or(&held.tags);
        json!({ "image": held.image, "bytes": held.bytes, "tags": tags })
    };
    Response::good(json!({
        "now": store.now().seconds(),
        "images": small.iter().map(row).collect::<Vec<_>>(),
        "leftOut": large.into_iter().map(|held| held.image).collect::<Vec<_>>(),
        "next": next,
    }))
}

/// The evidence of one image; null if it is not there any more.
pub async fn export(store: &Store, image: &ImageName) -> Response {
    Response::good(json!(store.export_evidence(image).await))
}

/// Verifies the evidence of one image from a file, and keeps it if it holds.
pub async fn import(gate: &Gate, evidence: ImageEvidence) -> Response {
    let image = String::from(evidence.image.clone());
    let imported = gate.import(evidence).await;
    let (result, denials, fault) = match &imported {
        Imported::Kept => ("kept", &[][..], None),
        Imported::Known => ("known", &[][..], None),
        Imported::NotAsked(_) => ("not-asked", &[][..], None),
        Imported::NotKept(NotKept::Expired) => ("expired", &[][..], None),
        Imported::NotKept(NotKept::Full) => ("full", &[][..], None),
        Imported::NotKept(NotKept::Unwritten) => ("unwritten", &[][..], None),
        Imported::Denied(denials) => ("denied", denials.as_slice(), None),
        Imported::Undecided(fault) => ("undecided", &[][..], Some(fault)),
    };
    tracing::info!(image, result, "evidence from a file");
    Response::good(json!({
        "image": image, "result": result, "denials": denied(denials), "fault": fault.map(faulty),
    }))
}

/// Verifies one image ahead of its pull.
pub async fn prewarm(gate: &Gate, image: &str) -> Response {
    let reference = match reference(image) {
        Ok(reference) => reference,
        Err(error) => return Response::bad(error),
    };
    let judgement = gate.prewarm(reference.clone()).await;
    Response::good(Value::Object(judged(&reference, &judgement)))
}

/// The name of an image that is to be verified.
///
/// # Errors
/// In one line, why it is none.
pub fn reference(image: &str) -> Result<Reference, String> {
    match RequestedImage::parse(image) {
        Ok(RequestedImage::Reference(reference)) => Ok(reference),
        Ok(RequestedImage::Id(_)) => {
            Err(format!("`{image}` is an image id; name the image by its repository"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What came of one image, as JSON.
#[must_use]
pub fn judged(image: &Reference, judgement: &Judgement) -> Map<String, Value> {
    let (verdict, source, denials, fault) = match &judgement.decision {
        Decision::Allow(permit) => {
            ("allowed", Some(permit.source().word()), permit.would_deny(), permit.would_fault())
        }
        Decision::Deny(denials) => ("denied", None, denials.as_slice(), None),
        Decision::Undecided(fault) => ("undecided", None, &[][..], Some(fault)),
    };
    let members = [
        ("image", json!(image.text())),
        ("digest", json!(judgement.digest)),
        ("verdict", json!(verdict)),
        ("source", json!(source)),
        ("denials", denied(denials)),
        ("fault", json!(fault.map(faulty))),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn denied(denials: &[Denial]) -> Value {
    let described = |denial: &Denial| {
        json!({
            "policy": denial.policy, "rule": denial.rule, "reason": denial.reason,
            "cause": denial.cause, "why": denial.reason.plainly(), "message": denial.detail,
        })
    };
    denials.iter().map(described).collect()
}

fn faulty(fault: &Fault) -> Value {
    json!({ "reason": fault.reason, "message": fault.message })
}

const fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Fetched => "evidence",
        Origin::Imported => "imported",
    }
}

fn scope(text: &str) -> Result<Selection, crate::oci::ReferenceError> {
    match image_of(text) {
        Some((repository, digest)) => Ok(Selection::Image(repository, digest)),
        None => Repository::parse(text).map(Selection::Repository),
    }
}

fn image_of(text: &str) -> Option<(Repository, Digest)> {
    let reference = Reference::parse(text).ok()?;
    Some((reference.repository().clone(), reference.digest()?))
}

/// Images on a page of a list: some MiB.
pub const PAGE: usize = 10_000;
