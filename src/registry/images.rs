//! Manifests and configurations of images, byte for byte: what rules read of an image by
//! `context[].imageRegistry`.
//!
//! Every document is asked for by its digest and hashed against it, and no longer than its limit. Which
//! manifest of an index is meant is the caller's to say.

use super::http::Step;
use super::{Ask, Budget, Client, Credentials, EvidenceRequest, ManifestAccess, check_digest, read_manifest};
use crate::oci::{Descriptor, Digest, MANIFEST_LIMIT, Manifest, Repository};
use crate::outcome::{Fault, FaultReason};

impl Client {
    /// The manifest of that digest with its bytes, which were hashed.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn manifest_as_stored(
        &self,
        repository: &Repository,
        digest: &Digest,
        credentials: &Credentials,
    ) -> Result<(Manifest, Vec<u8>), Fault> {
        let step = Step::new(format!("{repository}@{digest}"));
        let ask = Ask::manifest(&digest.to_string(), MANIFEST_LIMIT);
        let asking = self.ask(&step, repository, credentials, ask);
        let answer = self.transport.look_up(&step, asking).await?;
        if !answer.status.is_success() {
            return Err(step.status_fault(&answer));
        }
        check_digest(&step, &answer.body, digest)?;
        let (manifest, _) = read_manifest(&step, &answer)?;
        Ok((manifest, answer.body))
    }

    /// The configuration that a manifest in `repository` names.
    ///
    /// # Errors
    /// As [`Self::manifest`]; `registry-error` also for one that is larger than is read, or not there.
    pub async fn configuration(
        &self,
        repository: &Repository,
        config: &Descriptor,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, Fault> {
        let step = Step::new(format!("configuration {} of {repository}", config.digest));
        let size = usize::try_from(config.size).ok().filter(|size| *size <= CONFIGURATION_LIMIT);
        let size = size.ok_or_else(|| {
            let text = format!("it is larger than the {CONFIGURATION_LIMIT} bytes that are read");
            step.fault(FaultReason::RegistryError, &text)
        })?;
        let request = EvidenceRequest {
            repository,
            digest: &config.digest,
            credentials,
            manifest: ManifestAccess::Served,
            budget: &Budget::of(0),
        };
        self.transport.look_up(&step, self.blob(&step, &request, &config.digest, size)).await
    }
}

/// Those of real images have some tens of kilobytes, with long histories some hundreds.
const CONFIGURATION_LIMIT: usize = 1024 * 1024;
