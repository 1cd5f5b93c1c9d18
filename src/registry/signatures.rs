//! Legacy cosign signatures: the layers of the manifest at the tag `sha256-<hex>.sig`.
//!
//! Each layer of type simple signing is one signature: its bytes are the payload, its annotations
//! carry the rest. Other layers are passed over, compressed ones too (nothing is decompressed).
//!
//! Bounds: the first 1000 signature layers, 1 MiB a payload, the verdict's budget. What lies beyond
//! a bound is not read and does not count; what was read before it does. A payload that is listed
//! but broken (missing, longer than listed, cut, other bytes) makes the look-up unreachable: the
//! registry's state is not one that an answer can rest on.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::http::Step;
use super::{Ask, Client, EVIDENCE_LIMIT, EvidenceRequest, ManifestAccess, PARALLEL, read_manifest};
use crate::oci::{Descriptor, Digest, MANIFEST_LIMIT, Manifest, media_type};
use crate::outcome::{Fault, FaultReason, Lookup};
use crate::sigstore::SignatureEvidence;

impl Client {
    /// The signatures at the `.sig` tag, in the order of the manifest. `Found` with an empty list
    /// means that the tag is there but nothing in it can be a signature.
    pub async fn signatures(&self, request: EvidenceRequest<'_>) -> Lookup<Vec<SignatureEvidence>> {
        match self.cosign_layers(request).await {
            Ok(Some(found)) => Lookup::Found(found),
            Ok(None) => Lookup::Absent,
            Err(fault) => Lookup::Unreachable(fault),
        }
    }

    async fn cosign_layers(
        &self,
        request: EvidenceRequest<'_>,
    ) -> Result<Option<Vec<SignatureEvidence>>, Fault> {
        let step = Step::new(format!("signatures of {}@{}", request.repository, request.digest));
        let tag = request.digest.cosign_tag(".sig");
        let Some(manifest) = self.tagged_manifest(&step, &request, &tag).await? else {
            return Ok(None);
        };
        let image = match manifest {
            Manifest::Image(image) => image,
            Manifest::Index(_) => {
                return Err(step.fault(FaultReason::RegistryError, "an index where a manifest is due"));
            }
        };
        let layers = readable(image.layers, &request);
        let mut wanted: Vec<(Digest, usize)> = Vec::new();
        for (layer, size) in &layers {
            // Several signatures over one payload are the rule.
            if !wanted.iter().any(|(digest, _)| *digest == layer.digest) {
                wanted.push((layer.digest, *size));
            }
        }
        let payloads: BTreeMap<Digest, Vec<u8>> = stream::iter(wanted)
            .map(|(digest, size)| {
                let (step, request) = (&step, &request);
                async move { Ok::<_, Fault>((digest, self.blob(step, request, &digest, size).await?)) }
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let evidence = layers.into_iter().filter_map(|(layer, _)| {
            let payload = payloads.get(&layer.digest)?.clone();
            Some(SignatureEvidence::CosignLayer {
                payload,
                annotations: layer.annotations.unwrap_or_default(),
            })
        });
        Ok(Some(evidence.collect()))
    }

    /// The manifest at a tag that is derived from a digest; none if the tag is not there (rule D4
    /// says what a 401 or 403 means).
    pub(super) async fn tagged_manifest(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        tag: &str,
    ) -> Result<Option<Manifest>, Fault> {
        let limit = MANIFEST_LIMIT.min(request.budget.remaining());
        let answer =
            self.ask(step, request.repository, request.credentials, Ask::manifest(tag, limit)).await?;
        match (answer.status.as_u16(), request.manifest) {
            (404, _) | (401 | 403, ManifestAccess::Served) => return Ok(None),
            (200, _) => {}
            _ => return Err(step.status_fault(&answer)),
        }
        request
            .budget
            .take(answer.body.len())
            .ok_or_else(|| step.fault(FaultReason::RegistryError, "more evidence than is read"))?;
        Ok(Some(read_manifest(step, &answer)?.0))
    }
}

/// The signature layers that the bounds allow, with their sizes. The budget is taken by the listed
/// sizes and in order, so that the same layers are read whatever arrives first.
fn readable(layers: Vec<Descriptor>, request: &EvidenceRequest<'_>) -> Vec<(Descriptor, usize)> {
    layers
        .into_iter()
        .filter(|layer| layer.media_type == media_type::SIMPLE_SIGNING)
        .take(LAYERS_LIMIT)
        .filter_map(|layer| {
            let size = usize::try_from(layer.size).ok().filter(|size| *size <= EVIDENCE_LIMIT)?;
            Some((layer, size))
        })
        .map_while(|(layer, size)| request.budget.take(size).map(|()| (layer, size)))
        .collect()
}

/// design.md, Bounds.
const LAYERS_LIMIT: usize = 1000;
