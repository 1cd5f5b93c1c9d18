//! Sigstore bundles: manifests that refer to an image (OCI distribution 1.1, referrers).
//!
//! The referrers API is asked first; where a registry has none, the index at the tag
//! `sha256-<hex>`. That a host has none is remembered for an hour, but only from an answer that
//! cannot mean "no such repository" or "no such manifest".
//!
//! The type of a referrer is a hint. Some producers list a bundle under the type of the empty
//! configuration, or under none (cosign 3 on registries without the API), so these are opened and
//! judged by their own type. A filter of the registry would hide them: if the filtered list has no
//! bundle, the whole list is asked for.
//!
//! A bundle manifest has exactly one layer, of the bundle type, uncompressed, of at most 1 MiB.
//! What is otherwise is passed over, and so is a listed manifest that is gone: stale entries are
//! the rule at fallback tags. Bounds: 1000 descriptors read, 50 opened, the verdict's budget; what
//! was found before a bound counts. To find nothing before a bound is no answer.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::LINK;
use http::{Method, StatusCode};
use reqwest::Url;

use super::http::{Answer, Host, Scheme, Step};
use super::{
    Ask, Client, EVIDENCE_LIMIT, EvidenceRequest, ManifestAccess, PARALLEL, RequestClass, check_digest,
    network_host, read_manifest, stored_fault,
};
use crate::oci::{Descriptor, Index, IndexEntry, MANIFEST_LIMIT, Manifest, media_type};
use crate::outcome::{Fault, FaultReason, Lookup};
use crate::sigstore::SignatureEvidence;

impl Client {
    /// The bundles that refer to the image, in the order of the list (untyped entries last). `Found` with an empty list
    /// means that bundles are listed but none can be read.
    pub async fn bundles(&self, request: EvidenceRequest<'_>) -> Lookup<Vec<SignatureEvidence>> {
        let step = Step::new(format!("bundles of {}@{}", request.repository, request.digest));
        match self.all_bundles(&step, &request).await {
            Ok(Some(found)) => Lookup::Found(found),
            Ok(None) => Lookup::Absent,
            Err(fault) => Lookup::Unreachable(fault),
        }
    }

    async fn all_bundles(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
    ) -> Result<Option<Vec<SignatureEvidence>>, Fault> {
        let Some(List { mut candidates, mut end, .. }) = self.referrers(step, request).await? else {
            return Ok(None);
        };
        // What is listed as a bundle first, so that nothing else uses up the bounds.
        candidates.sort_by_key(|candidate| candidate.listed);
        let listed = candidates.first().is_some_and(|candidate| candidate.listed == Listed::Bundle);
        let all = candidates.len();
        // Taken by the listed sizes and in order, so that the same ones are read each time.
        let affordable: Vec<Candidate> = candidates
            .into_iter()
            .take(OPENED_LIMIT)
            .map_while(|candidate| request.budget.take(candidate.size).map(|()| candidate))
            .collect();
        if affordable.len() < all {
            end = End::Cut;
        }
        let layers: Vec<Option<Descriptor>> = stream::iter(affordable)
            .map(|candidate| async move { self.bundle_layer(step, request, candidate).await })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let opened = layers.iter().flatten().count();
        let readable: Vec<(Descriptor, usize)> = layers
            .into_iter()
            .flatten()
            .filter_map(|layer| {
                let size = usize::try_from(layer.size).ok().filter(|size| *size <= EVIDENCE_LIMIT)?;
                Some((layer, size))
            })
            .map_while(|(layer, size)| request.budget.take(size).map(|()| (layer, size)))
            .collect();
        let bundles: Vec<SignatureEvidence> = stream::iter(readable)
            .map(|(layer, size)| async move {
                let json = self.blob(step, request, &layer.digest, size).await?;
                Ok::<_, Fault>(SignatureEvidence::Bundle { json })
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        match (listed || opened > 0, end) {
            (true, _) => Ok(Some(bundles)),
            (false, End::Reached) => Ok(None),
            (false, End::Cut) => Err(step.fault(FaultReason::RegistryError, "more referrers than are read")),
        }
    }

    /// The list, by API or fallback tag; none if there is neither.
    async fn referrers(&self, step: &Step, request: &EvidenceRequest<'_>) -> Result<Option<List>, Fault> {
        let name = network_host(request.repository.host());
        let host = self.transport.host(name);
        if !lacks_referrers(&host) {
            let filtered = self.pages(step, request, &host, Filter::Bundles).await?;
            let list = match filtered {
                Some(Pages { list, filter: Filter::Bundles }) if list.candidates.is_empty() => {
                    self.pages(step, request, &host, Filter::Nothing).await?
                }
                other => other,
            };
            if let Some(pages) = list {
                return Ok(Some(pages.list));
            }
        }
        match self.tagged_manifest(step, request, &request.digest.cosign_tag("")).await? {
            Some(Manifest::Index(index)) => {
                let mut list = List::default();
                list.extend(index);
                Ok(Some(list))
            }
            Some(Manifest::Image(_)) => {
                Err(step.fault(FaultReason::RegistryError, "a manifest where an index is due"))
            }
            None => Ok(None),
        }
    }

    /// All pages of the referrers API; none if the registry has no such API.
    async fn pages(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        host: &Host,
        filter: Filter,
    ) -> Result<Option<Pages>, Fault> {
        let query = match filter {
            Filter::Bundles => BUNDLE_QUERY,
            Filter::Nothing => "",
        };
        let ask = Ask {
            class: RequestClass::Referrers,
            method: Method::GET,
            tail: format!("referrers/{}{query}", request.digest),
            accept: media_type::OCI_INDEX,
            limit: MANIFEST_LIMIT.min(request.budget.remaining()),
        };
        let mut answer = self.ask(step, request.repository, request.credentials, ask.clone()).await?;
        let applied = answer.header(FILTERS_APPLIED).is_some_and(|names| names.contains("artifactType"));
        let filter = if applied { filter } else { Filter::Nothing };
        let mut list = List::default();
        for page in 0..PAGES_LIMIT {
            if page == 0 && no_api(step, request, host, &answer)? {
                return Ok(None);
            }
            if !answer.status.is_success() {
                return Err(stored_fault(step, &answer));
            }
            request
                .budget
                .take(answer.body.len())
                .ok_or_else(|| step.fault(FaultReason::RegistryError, "more evidence than is read"))?;
            match read_manifest(step, &answer)?.0 {
                Manifest::Index(index) => list.extend(index),
                Manifest::Image(_) => {
                    return Err(step.fault(FaultReason::RegistryError, "a manifest where an index is due"));
                }
            }
            let Some(link) = next_link(&answer) else {
                return Ok(Some(Pages { list, filter }));
            };
            if list.end == End::Cut {
                break;
            }
            answer = self.page(step, request, host, &ask, &link).await?;
        }
        list.end = End::Cut;
        Ok(Some(Pages { list, filter }))
    }

    /// The page at `link`, which must lie on the same registry.
    async fn page(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        host: &Host,
        ask: &Ask,
        link: &str,
    ) -> Result<Answer, Fault> {
        let name = network_host(request.repository.host());
        let scheme = self.transport.schemes(name, host).first().copied().unwrap_or(Scheme::Https);
        let mut call = ask.call(step, scheme, name, request.repository)?;
        let next: Option<Url> = call.url.join(link).ok().filter(|next| next.origin() == call.url.origin());
        call.url =
            next.ok_or_else(|| step.fault(FaultReason::RegistryError, "registry's next page is elsewhere"))?;
        call.limit = MANIFEST_LIMIT.min(request.budget.remaining());
        self.ask_at(step, request, &call).await
    }

    /// The one layer of a bundle manifest; none if it is not one.
    async fn bundle_layer(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        candidate: Candidate,
    ) -> Result<Option<Descriptor>, Fault> {
        let digest = candidate.entry.digest;
        let ask = Ask::manifest(&digest.to_string(), candidate.size);
        let answer = self.ask(step, request.repository, request.credentials, ask).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Err(step.status_fault(&answer));
        }
        check_digest(step, &answer.body, &digest)?;
        // The bytes are what was listed, so what they are is final.
        let Ok(Manifest::Image(mut image)) = Manifest::parse(answer.header("content-type"), &answer.body)
        else {
            return Ok(None);
        };
        if image.layers.len() != 1 || image.subject.is_some_and(|subject| subject.digest != *request.digest) {
            return Ok(None);
        }
        Ok(image.layers.pop().filter(|layer| is_bundle(&layer.media_type)))
    }
}

/// The referrers that may be bundles.
#[derive(Default)]
struct List {
    candidates: Vec<Candidate>,
    read: usize,
    end: End,
}

struct Pages {
    list: List,
    /// What the registry says that it applied.
    filter: Filter,
}

struct Candidate {
    entry: IndexEntry,
    size: usize,
    listed: Listed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    Bundles,
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Listed {
    Bundle,
    Untyped,
}

/// Whether the list was read to its end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Reached,
    Cut,
}

impl List {
    fn extend(&mut self, index: Index) {
        for entry in index.manifests {
            if self.read == DESCRIPTORS_LIMIT {
                self.end = End::Cut;
                return;
            }
            self.read += 1;
            let listed = match entry.artifact_type.as_deref() {
                Some(kind) if is_bundle(kind) => Listed::Bundle,
                None | Some("" | media_type::OCI_EMPTY) => Listed::Untyped,
                Some(_) => continue,
            };
            let Some(size) = usize::try_from(entry.size).ok().filter(|size| *size <= MANIFEST_LIMIT) else {
                continue;
            };
            self.candidates.push(Candidate { entry, size, listed });
        }
    }
}

fn is_bundle(kind: &str) -> bool {
    kind.starts_with(media_type::BUNDLE_PREFIX) && !kind.contains("+gzip") && !kind.contains("+zstd")
}

fn lacks_referrers(host: &Host) -> bool {
    let since = *host.without_referrers.lock().unwrap_or_else(PoisonError::into_inner);
    since.is_some_and(|since| since.elapsed() < WITHOUT_REFERRERS)
}

/// Whether the answer means that there is no referrers API, or that nothing is to be had from it
/// and the fallback tag decides. Remembers the first.
fn no_api(step: &Step, request: &EvidenceRequest<'_>, host: &Host, answer: &Answer) -> Result<bool, Fault> {
    let status = answer.status.as_u16();
    let served = request.manifest == ManifestAccess::Served;
    match status {
        400 | 404 | 405 | 406 => {
            let code = answer.registry_error().map(|words| words.code).unwrap_or_default();
            // With the API, a manifest that is there has a list, if an empty one.
            if served || matches!(code.as_str(), "" | "UNSUPPORTED") {
                *host.without_referrers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            Ok(true)
        }
        // The tag decides, by rule D4.
        401 | 403 if served => Ok(true),
        // Web servers that answer everything with their start page.
        200 => {
            let kind = answer.header("content-type").unwrap_or_default();
            Ok(kind.split(';').next().unwrap_or_default().trim() != media_type::OCI_INDEX)
        }
        _ => Err(step.status_fault(answer)),
    }
}

/// The target of `Link: <target>; rel="next"`.
fn next_link(answer: &Answer) -> Option<String> {
    answer.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|text| {
        let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|part| matches!(part.trim(), r#"rel="next""# | "rel=next"));
        next.then(|| target.to_owned())
    })
}

/// The type that cosign 3 writes.
const BUNDLE_QUERY: &str = "?artifactType=application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
const FILTERS_APPLIED: &str = "oci-filters-applied";
/// design.md, Bounds.
const DESCRIPTORS_LIMIT: usize = 1000;
/// design.md, Bounds.
const OPENED_LIMIT: usize = 50;
/// 50 descriptors a page are the least that registries in use give.
const PAGES_LIMIT: usize = 20;
/// Registries learn new APIs.
const WITHOUT_REFERRERS: Duration = Duration::from_secs(3600);
