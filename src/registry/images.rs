//! Manifests and configurations of images, byte for byte: what rules read of an image by
//! `context[].imageRegistry`.
//!
//! Every document is asked for by its digest and hashed against it, and no longer than its limit. Which
//! manifest of an index is meant is the caller's to say.

use super::http::Step;
use super::route::{Failures, Route};
use super::search::Search;
use super::{Ask, Budget, Client, Credentials, EvidenceRequest, ManifestAccess, read_manifest};
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
        let (request, ask) =
            (request(repository, digest, credentials), Ask::manifest(&digest.to_string(), MANIFEST_LIMIT));
        let looking = async {
            let route = self.route(&step, repository).await?;
            let answer = self.listed(anywhere(&step, &request, &route)?, &ask, digest).await;
            let answer = answer.map_err(|failures| failures.fault(&step))?;
            Ok((read_manifest(&step, &answer)?.0, answer.body))
        };
        self.transport.look_up(&step, looking).await
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
        let request = request(repository, &config.digest, credentials);
        let looking = async {
            let route = self.route(&step, repository).await?;
            self.blob(anywhere(&step, &request, &route)?, &config.digest, size).await
        };
        self.transport.look_up(&step, looking).await
    }
}

fn request<'a>(
    repository: &'a Repository,
    digest: &'a Digest,
    credentials: &'a Credentials,
) -> EvidenceRequest<'a> {
    static NONE: Budget = Budget::of(0);
    EvidenceRequest { repository, digest, credentials, manifest: ManifestAccess::Unknown, budget: &NONE }
}

/// A look-up at the first host.
fn anywhere<'a>(
    step: &'a Step,
    request: &'a EvidenceRequest<'a>,
    route: &'a Route,
) -> Result<Search<'a>, Fault> {
    route.expect_pulling(step);
    let at = route.pulling().next().ok_or_else(|| Failures::default().fault(step))?;
    Ok(Search { whole: step, step, request, route, at })
}

/// Those of real images have some tens of kilobytes, with long histories some hundreds.
const CONFIGURATION_LIMIT: usize = 1024 * 1024;
