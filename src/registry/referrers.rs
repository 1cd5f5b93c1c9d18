//! Evidence among an image's referrers (OCI distribution 1.1): bundles, and cosign's experimental form.
//!
//! The referrers API is asked first; where a registry has none, the index at the tag
//! `sha256-<hex>`. That a host has none is remembered for an hour, from an answer that does not say "no such
//! repository" or "no such manifest". Any front end may give one for a moment, so this saves a request where the
//! tag has something that satisfies, and is no reason to deny: before that the API is asked after all.
//!
//! | form | listed as | layers |
//! |---|---|---|
//! | bundle | `application/vnd.dev.sigstore.bundle…` | exactly one, of that type |
//! | signatures, `--registry-referrers-mode=oci-1-1` | `application/vnd.dev.cosign.artifact.sig.v1+json` | as at a `.sig` tag |
//! | attestations of newer cosign 3, legacy format | `application/vnd.in-toto+json` | as at an `.att` tag |
//!
//! The last two are the *artifacts*. They are read where [`ReferrerForms`] asks for them: for an entry of type
//! `Cosign` whenever this list is read at all, under `compatibility: strict` only with `cosignOCI11: true`.
//! Every listed artifact counts, not only the last one.
//!
//! Types and annotations of a list are hints. Some producers list a bundle under the type of the empty
//! configuration, or under none (cosign 3 on registries without the API), so these are opened and
//! judged by their own type. A filter of the registry would hide them: if the filtered list has no
//! bundle, the whole list is asked for. What is annotated with another predicate type than those looked
//! for, and what the filter left out, is left for later ([`Rest`]), and is read when what was read
//! first did not satisfy: a lying annotation hides nothing.
//!
//! A layer is uncompressed; a bundle has at most 1 MiB, 10 MiB where attestations are looked for.
//! What is otherwise is passed over, and so is a listed manifest that is gone by the word of the very host
//! that lists it: stale entries are the rule at fallback tags. Bounds: 1000 descriptors read, 50 opened,
//! 1000 layers of artifacts, the verdict's budget; what was found before a bound counts. To find nothing
//! before a bound is no answer.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use http::header::LINK;

use super::http::{Answer, Host, Step};
use super::route::Endpoint;
use super::search::{Question, Search, Unread, stored_fault};
use super::signatures::{LAYERS_LIMIT, Layer, LayerKind};
use super::{
    ATTESTATION_LIMIT, Ask, Client, EVIDENCE_LIMIT, EvidenceRequest, Fetched, Looked, ManifestAccess,
    PARALLEL, RequestClass, Rest, read_manifest,
};
use crate::oci::{
    Descriptor, Digest, ImageManifest, Index, IndexEntry, MANIFEST_LIMIT, Manifest, media_type,
};
use crate::outcome::{Fault, FaultReason};
use crate::sigstore::SignatureEvidence;

/// What is looked for among the referrers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// In which forms.
    pub forms: ReferrerForms,
    /// Of which predicate types; [`SIGNATURE_PREDICATE`] stands for signatures, in every form.
    pub predicates: BTreeSet<String>,
}

/// Which forms of referrers are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferrerForms {
    /// Bundles only.
    Bundles,
    /// Only cosign's experimental form.
    Artifacts,
    /// Both.
    All,
}

/// The predicate type of a signature that is stored as a bundle, as cosign 3 writes it.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Referrers that were left for later.
#[derive(Debug)]
pub(super) struct UnreadReferrers {
    /// The host whose list it is.
    pub(super) at: Endpoint,
    wanted: Wanted,
    candidates: Vec<Candidate>,
    opened: BTreeSet<Digest>,
    extent: Extent,
    found: Found,
    end: End,
}

impl Client {
    /// The evidence that refers to the image, in the order of the list (untyped entries last), without what is
    /// annotated as another type than those looked for. `Found` with an empty list means that some is
    /// listed but none can be read.
    pub async fn referrers(&self, request: EvidenceRequest<'_>, wanted: &Wanted) -> Looked {
        let step = Step::new(format!("bundles of {}@{}", request.repository, request.digest));
        self.search(&step, &request, &Question::Referrers(wanted.clone())).await
    }

    pub(super) async fn first_referrers(
        &self,
        search: Search<'_>,
        wanted: &Wanted,
    ) -> Result<Option<Fetched>, Fault> {
        let Some(Listing { list, extent }) = self.list(search, wanted).await? else {
            return Ok(None);
        };
        let (first, later): (Vec<_>, Vec<_>) =
            list.candidates.into_iter().partition(|candidate| candidate.listed != Listed::OtherPredicate);
        let unread = UnreadReferrers {
            at: search.at.clone(),
            wanted: wanted.clone(),
            candidates: later,
            opened: BTreeSet::new(),
            extent,
            found: Found::Nothing,
            end: list.end,
        };
        let (mut pieces, mut unread) = self.open(search, first, unread).await?;
        if unread.found == Found::Nothing && unread.candidates.is_empty() {
            // That there is nothing is not for a part to say.
            (pieces, unread) = self.open_rest(search, unread).await?;
        }
        if unread.is_exhausted() {
            return unread.answer(search.step, pieces);
        }
        Ok(Some(Fetched { pieces, rest: Rest::of(Some(Unread::Referrers(Box::new(unread)))) }))
    }

    /// What was left for later. As at first, to find nothing before a bound is no answer.
    pub(super) async fn later_referrers(
        &self,
        search: Search<'_>,
        unread: UnreadReferrers,
    ) -> Result<Vec<SignatureEvidence>, Fault> {
        let (pieces, unread) = self.open_rest(search, unread).await?;
        Ok(unread.answer(search.step, pieces)?.map(|fetched| fetched.pieces).unwrap_or_default())
    }

    /// Opens all that was left, of the whole list.
    async fn open_rest(
        &self,
        search: Search<'_>,
        mut unread: UnreadReferrers,
    ) -> Result<(Vec<SignatureEvidence>, UnreadReferrers), Fault> {
        let mut candidates = std::mem::take(&mut unread.candidates);
        if std::mem::replace(&mut unread.extent, Extent::Whole) == Extent::Part {
            let whole = self.pages(search, &unread.wanted, Filter::Nothing).await?;
            if let Some(Listing { list, .. }) = whole {
                candidates.extend(list.candidates);
                if list.end == End::Cut {
                    unread.end = End::Cut;
                }
            }
        }
        // What is in both lists is opened once.
        let mut seen = unread.opened.clone();
        candidates.retain(|candidate| seen.insert(candidate.entry.digest));
        self.open(search, candidates, unread).await
    }

    /// Opens candidates within the bounds and reads what they hold.
    async fn open(
        &self,
        search: Search<'_>,
        mut candidates: Vec<Candidate>,
        mut unread: UnreadReferrers,
    ) -> Result<(Vec<SignatureEvidence>, UnreadReferrers), Fault> {
        // What is listed as such first, so that nothing else uses up the bounds.
        candidates.sort_by_key(|candidate| candidate.listed);
        if candidates.iter().any(|candidate| candidate.listed != Listed::Untyped) {
            unread.found = Found::Something;
        }
        let all = candidates.len();
        // Taken by the listed sizes and in order, so that the same ones are read each time.
        let affordable: Vec<Candidate> = candidates
            .into_iter()
            .take(OPENED_LIMIT.saturating_sub(unread.opened.len()))
            .map_while(|candidate| search.take(candidate.size).map(|()| candidate))
            .collect();
        if affordable.len() < all {
            unread.end = End::Cut;
        }
        unread.opened.extend(affordable.iter().map(|candidate| candidate.entry.digest));
        let wanted = &unread.wanted;
        let layers: Vec<Vec<Layer>> = stream::iter(affordable)
            .map(|candidate| async move { self.referrer_layers(search, wanted, candidate).await })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let layers: Vec<Layer> = layers.into_iter().flatten().take(LAYERS_LIMIT).collect();
        if !layers.is_empty() {
            unread.found = Found::Something;
        }
        let pieces = self.read_layers(search, layers, unread.wanted.largest_bundle()).await?;
        Ok((pieces, unread))
    }

    /// The host's list, by API or fallback tag; none if there is neither.
    async fn list(&self, search: Search<'_>, wanted: &Wanted) -> Result<Option<Listing>, Fault> {
        let skipped = lacks_referrers(search.at.host());
        if !skipped && let Some(listing) = self.api_list(search, wanted).await? {
            return Ok(Some(listing));
        }
        match self.tagged_manifest(search, &search.request.digest.cosign_tag("")).await? {
            Some(Manifest::Index(index)) => {
                let mut list = List::default();
                list.extend(index, wanted);
                let extent = if skipped { Extent::Part } else { Extent::Whole };
                Ok(Some(Listing { list, extent }))
            }
            Some(Manifest::Image(_)) => {
                Err(search.step.fault(FaultReason::RegistryError, "a manifest where an index is due"))
            }
            None if skipped => self.api_list(search, wanted).await,
            None => Ok(None),
        }
    }

    /// The list by the API alone; none if there is no API.
    async fn api_list(&self, search: Search<'_>, wanted: &Wanted) -> Result<Option<Listing>, Fault> {
        let first = match wanted.forms {
            ReferrerForms::Bundles | ReferrerForms::All => Filter::Bundles,
            ReferrerForms::Artifacts => Filter::Nothing,
        };
        match self.pages(search, wanted, first).await? {
            Some(Listing { list, extent: Extent::Part }) if list.candidates.is_empty() => {
                self.pages(search, wanted, Filter::Nothing).await
            }
            other => Ok(other),
        }
    }

    /// All pages of the referrers API; none if the registry has no such API.
    async fn pages(
        &self,
        search: Search<'_>,
        wanted: &Wanted,
        filter: Filter,
    ) -> Result<Option<Listing>, Fault> {
        let Search { step, request, .. } = search;
        let query = match filter {
            Filter::Bundles => BUNDLE_QUERY,
            Filter::Nothing => "",
        };
        let ask = Ask {
            class: RequestClass::Referrers,
            method: Method::GET,
            tail: format!("referrers/{}{query}", request.digest),
            accept: media_type::OCI_INDEX,
            limit: MANIFEST_LIMIT.min(search.remaining()),
            link: None,
        };
        let mut answer = search.ask(self, &ask).await?;
        let said = answer.header(FILTERS_APPLIED).is_some_and(|names| names.contains("artifactType"));
        let mut list = List::default();
        for page in 0..PAGES_LIMIT {
            if page == 0 && self.no_api(search, &answer).await? {
                return Ok(None);
            }
            if !answer.status.is_success() {
                return Err(stored_fault(step, &answer));
            }
            search
                .take(answer.body.len())
                .ok_or_else(|| step.fault(FaultReason::RegistryError, "more evidence than is read"))?;
            match read_manifest(step, &answer)?.0 {
                Manifest::Index(index) => list.extend(index, wanted),
                Manifest::Image(_) => {
                    return Err(step.fault(FaultReason::RegistryError, "a manifest where an index is due"));
                }
            }
            let Some(link) = next_link(&answer) else {
                return Ok(Some(list.under(filter, said)));
            };
            if list.end == End::Cut {
                break;
            }
            let limit = MANIFEST_LIMIT.min(search.remaining());
            answer = search.ask(self, &Ask { limit, link: Some(link), ..ask.clone() }).await?;
        }
        list.end = End::Cut;
        Ok(Some(list.under(filter, said)))
    }

    /// Whether the answer means that there is no referrers API, or that nothing is to be had from it
    /// and the fallback tag decides. Remembers the first.
    async fn no_api(&self, search: Search<'_>, answer: &Answer) -> Result<bool, Fault> {
        match answer.status.as_u16() {
            400 | 404 | 405 | 406 => {
                let code = answer.registry_error().map(|words| words.code).unwrap_or_default();
                let served = search.request.manifest == ManifestAccess::Served && search.route.is_single();
                // With the API, a manifest that is there has a list, if an empty one.
                if served || matches!(code.as_str(), "" | "UNSUPPORTED") {
                    remember_without_referrers(search.at.host());
                }
                Ok(true)
            }
            // The tag decides, by rule D4.
            401 | 403 if self.serves_manifest(search).await => Ok(true),
            // Web servers that answer everything with their start page.
            200 => {
                let kind = answer.header("content-type").unwrap_or_default();
                Ok(kind.split(';').next().unwrap_or_default().trim() != media_type::OCI_INDEX)
            }
            _ => Err(search.step.status_fault(answer)),
        }
    }

    /// The layers of a referrer that count; none if it is of no form that is wanted.
    async fn referrer_layers(
        &self,
        search: Search<'_>,
        wanted: &Wanted,
        candidate: Candidate,
    ) -> Result<Vec<Layer>, Fault> {
        let digest = candidate.entry.digest;
        let ask = Ask::manifest(&digest.to_string(), candidate.size);
        let answer = match self.listed(search, &ask, &digest).await {
            Ok(answer) => answer,
            Err(failures) => return failures.unless_gone(search.step).map_or_else(|| Ok(Vec::new()), Err),
        };
        // The bytes are what was listed, so what they are is final.
        match Manifest::parse(answer.header("content-type"), &answer.body) {
            Ok(Manifest::Image(image))
                if image.subject.as_ref().is_none_or(|subject| subject.digest == *search.request.digest) =>
            {
                Ok(wanted.layers(image))
            }
            Ok(Manifest::Image(_) | Manifest::Index(_)) | Err(_) => Ok(Vec::new()),
        }
    }
}

impl Wanted {
    /// The layers of a referrer that count.
    fn layers(&self, image: ImageManifest) -> Vec<Layer> {
        let kind = |layer: &Descriptor| match layer.media_type.as_str() {
            media_type::SIMPLE_SIGNING if self.artifacts() && self.signatures() => Some(LayerKind::Signature),
            media_type::DSSE if self.artifacts() && self.attestations() => Some(LayerKind::Attestation),
            kind if self.bundles() && is_bundle(kind) => Some(LayerKind::Bundle),
            _ => None,
        };
        let single = image.layers.len() == 1;
        let layers = image
            .layers
            .into_iter()
            .filter_map(|descriptor| kind(&descriptor).map(|kind| Layer { kind, descriptor }));
        layers.filter(|layer| single || layer.kind != LayerKind::Bundle).collect()
    }

    /// What a list says of one of its entries; none if it is of no form that is wanted.
    fn listed(&self, entry: &IndexEntry) -> Option<Listed> {
        let hint = entry.annotations.as_ref().and_then(|annotations| annotations.get(PREDICATE_TYPE));
        let other = hint.is_some_and(|hint| !self.predicates.contains(hint));
        match entry.artifact_type.as_deref() {
            Some(kind) if is_bundle(kind) => {
                self.bundles().then_some(if other { Listed::OtherPredicate } else { Listed::Typed })
            }
            Some(SIGNATURE_ARTIFACT) => (self.artifacts() && self.signatures()).then_some(Listed::Typed),
            Some(ATTESTATION_ARTIFACT) => (self.artifacts() && self.attestations()).then_some(Listed::Typed),
            None | Some("" | media_type::OCI_EMPTY) => {
                Some(if other { Listed::OtherPredicate } else { Listed::Untyped })
            }
            Some(_) => None,
        }
    }

    fn bundles(&self) -> bool {
        matches!(self.forms, ReferrerForms::Bundles | ReferrerForms::All)
    }

    fn artifacts(&self) -> bool {
        matches!(self.forms, ReferrerForms::Artifacts | ReferrerForms::All)
    }

    fn signatures(&self) -> bool {
        self.predicates.contains(SIGNATURE_PREDICATE)
    }

    fn attestations(&self) -> bool {
        self.predicates.iter().any(|predicate| predicate != SIGNATURE_PREDICATE)
    }

    fn largest_bundle(&self) -> usize {
        if self.attestations() { ATTESTATION_LIMIT } else { EVIDENCE_LIMIT }
    }
}

impl UnreadReferrers {
    fn is_exhausted(&self) -> bool {
        self.candidates.is_empty() && self.extent == Extent::Whole
    }

    /// To find nothing before a bound is no answer.
    fn answer(&self, step: &Step, pieces: Vec<SignatureEvidence>) -> Result<Option<Fetched>, Fault> {
        match (self.found, self.end) {
            (Found::Something, _) => Ok(Some(Fetched { pieces, rest: Rest::of(None) })),
            (Found::Nothing, End::Reached) => Ok(None),
            (Found::Nothing, End::Cut) => {
                Err(step.fault(FaultReason::RegistryError, "more referrers than are read"))
            }
        }
    }
}

/// The referrers that may hold what is looked for.
#[derive(Default)]
pub(super) struct List {
    pub(super) candidates: Vec<Candidate>,
    pub(super) read: usize,
    end: End,
    /// An entry that the filter leaves out.
    unfiltered: bool,
}

struct Listing {
    list: List,
    extent: Extent,
}

/// Whether a list is all that the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// It is filtered, as far as can be told, or only the tag's.
    Part,
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) entry: IndexEntry,
    pub(super) size: usize,
    listed: Listed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    Bundles,
    Nothing,
}

/// What a list says of an entry, in the order in which entries are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Listed {
    Typed,
    Untyped,
    /// By its annotation of a type that nobody looks for.
    OtherPredicate,
}

/// Whether anything was there that could be evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Something,
}

/// Whether the list was read to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Reached,
    Cut,
}

impl List {
    /// Registries may leave the header out (olareg does for an answer that it has made before): only a
    /// list with something else in it was certainly not filtered.
    const fn under(self, asked: Filter, said: bool) -> Listing {
        let extent = match asked {
            Filter::Bundles if said || !self.unfiltered => Extent::Part,
            Filter::Bundles | Filter::Nothing => Extent::Whole,
        };
        Listing { list: self, extent }
    }

    pub(super) fn extend(&mut self, index: Index, wanted: &Wanted) {
        for entry in index.manifests {
            if self.read == DESCRIPTORS_LIMIT {
                self.end = End::Cut;
                return;
            }
            self.read += 1;
            self.unfiltered |= entry.artifact_type.as_deref() != Some(FILTERED_TYPE);
            let Some(listed) = wanted.listed(&entry) else {
                continue;
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

fn remember_without_referrers(host: &Host) {
    *host.without_referrers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// The target of `<target>; rel="next"` in `Link`.
pub(super) fn next_link(answer: &Answer) -> Option<String> {
    answer.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|text| {
        let mut rest = text;
        // Each target with what is said of it, up to the next.
        while let Some((target, after)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
            let said = after.split('<').next().unwrap_or_default().trim_end_matches([' ', '\t', ',']);
            if said.split(';').any(|part| matches!(part.trim(), r#"rel="next""# | "rel=next")) {
                return Some(target.to_owned());
            }
            rest = after;
        }
        None
    })
}

/// The type that cosign 3 writes, and the query for it.
const FILTERED_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const BUNDLE_QUERY: &str = "?artifactType=application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
const FILTERS_APPLIED: &str = "oci-filters-applied";
/// What cosign copies from the statement to the manifest, and registries from there to the list.
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const ATTESTATION_ARTIFACT: &str = "application/vnd.in-toto+json";
/// design.md, Bounds.
pub(super) const DESCRIPTORS_LIMIT: usize = 1000;
/// design.md, Bounds.
const OPENED_LIMIT: usize = 50;
/// 50 descriptors a page are the least that registries in use give.
const PAGES_LIMIT: usize = 20;
/// Registries learn new APIs.
const WITHOUT_REFERRERS: Duration = Duration::from_secs(3600);
