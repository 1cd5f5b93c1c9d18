//! Fetching what verdicts rest on: signatures by tag and bundles by referrer, three-valued.
//!
//! What is asked of the registry is the union over the entries, each repository once. Bundles are
//! asked for only where the legacy form did not satisfy. Found, absent and unreachable stay apart
//! all the way into the verdict.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use crate::oci::Repository;
use crate::outcome::Lookup;
use crate::policy::{Entry, Evidence};
use crate::registry::{self, Budget, Credentials, EvidenceRequest, ManifestAccess, ResolvedImage};
use crate::sigstore::SignatureEvidence;

/// Fetches the evidence of one image.
pub(super) struct Fetcher<'a> {
    pub(super) registry: &'a registry::Client,
    pub(super) image: &'a ResolvedImage,
    pub(super) credentials: &'a Credentials,
    /// Whether the image's own repository served its manifest in this request.
    pub(super) manifest: ManifestAccess,
    pub(super) budget: &'a Budget,
}

/// Which storage form is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Legacy,
    Bundles,
}

impl Fetcher<'_> {
    /// Asks every repository that `entries` name for `form`, in parallel, and adds the answers.
    pub(super) async fn add(&self, form: Form, entries: &[&Entry], evidence: &mut Evidence) {
        let repositories: BTreeSet<Repository> =
            entries.iter().flat_map(|entry| entry.repositories(&self.image.repository)).collect();
        let known = match form {
            Form::Legacy => &mut evidence.legacy,
            Form::Bundles => &mut evidence.bundles,
        };
        let wanted: Vec<_> = repositories.into_iter().filter(|wanted| !known.contains_key(wanted)).collect();
        let answers = join_all(wanted.iter().map(|repository| self.ask(form, repository))).await;
        known.extend(wanted.into_iter().zip(answers));
    }

    async fn ask(&self, form: Form, repository: &Repository) -> Lookup<Vec<SignatureEvidence>> {
        // Another repository has shown nothing yet about these credentials.
        let own = *repository == self.image.repository;
        let request = EvidenceRequest {
            repository,
            digest: &self.image.digest,
            credentials: self.credentials,
            manifest: if own { self.manifest } else { ManifestAccess::Unknown },
            budget: self.budget,
        };
        match form {
            Form::Legacy => self.registry.signatures(request).await,
            Form::Bundles => self.registry.bundles(request).await,
        }
    }
}

/// The evidence in one list, with the repository and form each piece was found in: what the cache keeps.
pub(super) fn found(evidence: &Evidence) -> Vec<Stored> {
    let pieces = |form: StoredForm, map: &BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>| {
        let mut pieces = Vec::new();
        for (repository, lookup) in map {
            if let Lookup::Found(signatures) = lookup {
                pieces.extend(signatures.iter().map(|signature| Stored {
                    form,
                    repository: repository.clone(),
                    signature: signature.clone(),
                }));
            }
        }
        pieces
    };
    let mut all = pieces(StoredForm::Legacy, &evidence.legacy);
    all.extend(pieces(StoredForm::Bundles, &evidence.bundles));
    all
}

/// Stored pieces as evidence again. Repositories without a piece count as not asked yet.
pub(super) fn restored(pieces: Vec<Stored>) -> Evidence {
    let mut evidence = Evidence::default();
    for piece in pieces {
        let map = match piece.form {
            StoredForm::Legacy => &mut evidence.legacy,
            StoredForm::Bundles => &mut evidence.bundles,
        };
        match map.entry(piece.repository).or_insert_with(|| Lookup::Found(Vec::new())) {
            Lookup::Found(signatures) => signatures.push(piece.signature),
            Lookup::Absent | Lookup::Unreachable(_) => {}
        }
    }
    evidence
}

/// One piece of evidence as the cache keeps it (rule C6).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    form: StoredForm,
    repository: Repository,
    signature: SignatureEvidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredForm {
    Legacy,
    Bundles,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Fault, FaultReason};

    #[test]
    fn c6_what_is_stored_is_what_was_found() {
        let repository = Repository::parse("a.io/b").unwrap();
        let bundle = |json: &[u8]| SignatureEvidence::Bundle { json: json.to_vec() };
        let mut evidence = Evidence::default();
        evidence.bundles.insert(repository.clone(), Lookup::Found(vec![bundle(b"1"), bundle(b"2")]));
        evidence.legacy.insert(repository, Lookup::Unreachable(Fault::new(FaultReason::Timeout, "m")));
        let back = restored(found(&evidence));
        assert_eq!(back.bundles, evidence.bundles);
        assert!(back.legacy.is_empty());
    }
}
