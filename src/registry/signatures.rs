//! Layers at tags: signatures at `sha256-<hex>.sig`, attestations at `sha256-<hex>.att`.
//!
//! Each layer of type simple signing is one signature, each of type DSSE envelope one attestation:
//! its bytes are what is signed, its annotations carry the rest. Other layers are passed over,
//! compressed ones too (nothing is decompressed).
//!
//! An attestation's annotation `predicateType` is a hint and no more, since nobody signs it: layers
//! that name another type than those looked for are left for later ([`Rest`]), and are read when
//! what was read first did not satisfy.
//!
//! The payload that cosign writes without annotations follows from the image. A layer with its digest is not
//! fetched.
//!
//! Bounds: the first 1000 layers, 1 MiB a signature's payload, 10 MiB an attestation, the verdict's
//! budget. What lies beyond a bound is not read and does not count; what was read before it does. A
//! layer that is listed but broken (missing, longer than listed, cut, other bytes) makes the look-up
//! unreachable: the registry's state is not one that an answer can rest on.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::http::Step;
use super::search::{Question, Search, Unread};
use super::{
    ATTESTATION_LIMIT, Ask, Client, EVIDENCE_LIMIT, EvidenceRequest, Fetched, Looked, PARALLEL, Rest,
    read_manifest,
};
use crate::oci::{Descriptor, Digest, MANIFEST_LIMIT, Manifest, media_type};
use crate::outcome::{Fault, FaultReason};
use crate::sigstore::{SignatureEvidence, standard_payload};

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerKind {
    Signature,
    Attestation,
    Bundle,
}

/// A layer that may be read, and what it is read as.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) kind: LayerKind,
    pub(super) descriptor: Descriptor,
}

impl Client {
    /// The signatures at the `.sig` tag, in the order of the manifest. `Found` with an empty list
    /// means that the tag is there but nothing in it can be a signature.
    pub async fn signatures(&self, request: EvidenceRequest<'_>) -> Looked {
        let step = Step::new(format!("signatures of {}@{}", request.repository, request.digest));
        let question = Question::Tagged { kind: LayerKind::Signature, predicates: BTreeSet::new() };
        self.search(&step, &request, &question).await
    }

    /// The attestations at the `.att` tag, in the order of the manifest, those first that may be of
    /// one of the `predicates`.
    pub async fn attestations(&self, request: EvidenceRequest<'_>, predicates: &BTreeSet<String>) -> Looked {
        let step = Step::new(format!("attestations of {}@{}", request.repository, request.digest));
        let question = Question::Tagged { kind: LayerKind::Attestation, predicates: predicates.clone() };
        self.search(&step, &request, &question).await
    }

    pub(super) async fn tagged_layers(
        &self,
        search: Search<'_>,
        kind: LayerKind,
        predicates: &BTreeSet<String>,
    ) -> Result<Option<Fetched>, Fault> {
        let tag = search.request.digest.cosign_tag(kind.suffix());
        let Some(manifest) = self.tagged_manifest(search, &tag).await? else {
            return Ok(None);
        };
        let image = match manifest {
            Manifest::Image(image) => image,
            Manifest::Index(_) => {
                return Err(search
                    .step
                    .fault(FaultReason::RegistryError, "an index where a manifest is due"));
            }
        };
        let layers = image.layers.into_iter().filter(|layer| layer.media_type == kind.media_type());
        let layers = layers.take(LAYERS_LIMIT).map(|descriptor| Layer { kind, descriptor });
        let (first, later): (Vec<_>, Vec<_>) = layers.partition(|layer| {
            let hint = layer.annotation(PREDICATE_TYPE);
            kind == LayerKind::Signature || hint.is_none_or(|hint| predicates.contains(hint))
        });
        let pieces = self.read_layers(search, first, ATTESTATION_LIMIT).await?;
        let unread = (!later.is_empty()).then(|| Unread::Layers { at: search.at.clone(), layers: later });
        Ok(Some(Fetched { pieces, rest: Rest::of(unread) }))
    }

    /// Reads the layers that the bounds allow, in order. The budget is taken by the listed sizes and
    /// in order, so that the same layers are read whatever arrives first.
    pub(super) async fn read_layers(
        &self,
        search: Search<'_>,
        layers: Vec<Layer>,
        largest_bundle: usize,
    ) -> Result<Vec<SignatureEvidence>, Fault> {
        let layers: Vec<(Layer, usize)> = layers
            .into_iter()
            .filter_map(|layer| {
                let limit = layer.kind.limit(largest_bundle);
                let size = usize::try_from(layer.descriptor.size).ok().filter(|size| *size <= limit)?;
                Some((layer, size))
            })
            .map_while(|(layer, size)| search.take(size).map(|()| (layer, size)))
            .collect();
        let mut wanted: Vec<(Digest, usize)> = Vec::new();
        // What is known already: bytes of that digest are the layer's, wherever they come from.
        let standard = standard_payload(search.request.repository, search.request.digest);
        let standard = (Digest::of(&standard), standard);
        let mut bytes = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (layer, size) in &layers {
            // Several signatures over one payload are the rule.
            if !seen.insert(layer.descriptor.digest) {
                continue;
            }
            if layer.descriptor.digest == standard.0 && *size == standard.1.len() {
                bytes.insert(standard.0, standard.1.clone());
            } else {
                wanted.push((layer.descriptor.digest, *size));
            }
        }
        let fetched: BTreeMap<Digest, Vec<u8>> =
            stream::iter(wanted)
                .map(|(digest, size)| async move {
                    Ok::<_, Fault>((digest, self.blob(search, &digest, size).await?))
                })
                .buffered(PARALLEL)
                .try_collect()
                .await?;
        bytes.extend(fetched);
        let evidence = layers.into_iter().filter_map(|(layer, _)| {
            let bytes = bytes.get(&layer.descriptor.digest)?.clone();
            Some(layer.evidence(bytes))
        });
        Ok(evidence.collect())
    }

    /// The manifest at a tag that is derived from a digest; none if the tag is not there (rule D4
    /// says what a 401 or 403 means).
    pub(super) async fn tagged_manifest(
        &self,
        search: Search<'_>,
        tag: &str,
    ) -> Result<Option<Manifest>, Fault> {
        let Search { step, .. } = search;
        let limit = MANIFEST_LIMIT.min(search.remaining());
        let answer = search.ask(self, &Ask::manifest(tag, limit)).await?;
        match answer.status.as_u16() {
            404 => return Ok(None),
            401 | 403 if self.serves_manifest(search).await => return Ok(None),
            200 => {}
            _ => return Err(step.status_fault(&answer)),
        }
        search
            .take(answer.body.len())
            .ok_or_else(|| step.fault(FaultReason::RegistryError, "more evidence than is read"))?;
        Ok(Some(read_manifest(step, &answer)?.0))
    }
}

impl LayerKind {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Signature => ".sig",
            Self::Attestation => ".att",
            Self::Bundle => "",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Signature => media_type::SIMPLE_SIGNING,
            Self::Attestation => media_type::DSSE,
            Self::Bundle => media_type::BUNDLE_PREFIX,
        }
    }

    const fn limit(self, largest_bundle: usize) -> usize {
        match self {
            Self::Signature => EVIDENCE_LIMIT,
            Self::Attestation => ATTESTATION_LIMIT,
            Self::Bundle => largest_bundle,
        }
    }
}

impl Layer {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.descriptor.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn evidence(self, bytes: Vec<u8>) -> SignatureEvidence {
        let annotations = self.descriptor.annotations.unwrap_or_default();
        match self.kind {
            LayerKind::Signature => SignatureEvidence::CosignLayer { payload: bytes, annotations },
            LayerKind::Attestation => SignatureEvidence::AttestationLayer { envelope: bytes, annotations },
            LayerKind::Bundle => SignatureEvidence::Bundle { json: bytes },
        }
    }
}

/// design.md, Bounds.
pub(super) const LAYERS_LIMIT: usize = 1000;
/// What cosign writes beside an attestation.
const PREDICATE_TYPE: &str = "predicateType";
