//! One `verifyImages[]` element: references, storage forms, attestors, the deprecated aliases.

use serde_saphyr::Spanned;

use super::{Compatibility, Loader, yaml};
use crate::oci::{Digest, Repository};
use crate::policy::entry::{Entry, FailurePolicy, Forms};
use crate::policy::pods::PodFactsRead;

impl Loader<'_> {
    pub(super) fn entry(&mut self, line: u64, place: &str, entry: &yaml::VerifyImages) -> Option<Entry> {
        self.unsupported(
            place,
            &[
                ("attestations", &entry.attestations),
                ("validate", &entry.validate),
                ("imageRegistryCredentials", &entry.image_registry_credentials),
                ("issuer", &entry.issuer),
                ("subject", &entry.subject),
                ("roots", &entry.roots),
                ("additionalExtensions", &entry.additional_extensions),
            ],
        );
        self.meaningless(place, &[("useCache", &entry.use_cache)]);
        if let Some(flag) = entry.cosign_oci11.as_ref().filter(|flag| flag.value) {
            self.error(flag.referenced.line(), format!("{place}: cosignOCI11 is not supported yet"));
        }
        let strict = self.options.compatibility == Compatibility::Strict;
        let forms = match entry.kind.as_ref().map(|kind| (kind.value.as_str(), kind.referenced)) {
            None | Some(("Cosign", _)) if strict => Forms::Legacy,
            None | Some(("Cosign", _)) => Forms::LegacyThenBundles,
            Some(("SigstoreBundle", _)) => Forms::Bundles,
            Some(("Notary", at)) => {
                self.error(at.line(), format!("{place}: type Notary is not supported"));
                return None;
            }
            Some((other, at)) => {
                self.error(at.line(), format!("{place}: type `{other}` is not Cosign or SigstoreBundle"));
                return None;
            }
        };
        let mut references = entry.image_references.clone();
        references.extend(entry.image.clone());
        if references.is_empty() {
            self.error(line, format!("{place}: An image reference is required (imageReferences)"));
        }
        for text in references.iter().chain(&entry.skip_image_references) {
            if text.contains("{{") {
                self.error(line, format!("{place}: imageReferences must not hold variables: `{text}`"));
            }
        }
        let mut sets = Vec::new();
        for (index, set) in entry.attestors.iter().enumerate() {
            sets.extend(self.attestor_set(
                line,
                &format!("{place}.attestors[{index}]"),
                set,
                &entry.annotations,
                0,
            ));
        }
        match &entry.key {
            Some(key) => {
                let keys = yaml::Keys { public_keys: Some(key.clone()), ..yaml::Keys::default() };
                let keys = Spanned::new(keys, key.referenced, key.defined);
                let attestor = yaml::Attestor { keys: Some(keys), ..yaml::Attestor::default() };
                let entries = Some(Spanned::new(vec![attestor], key.referenced, key.defined));
                let set = yaml::AttestorSet { count: None, entries };
                sets.extend(self.attestor_set(line, &format!("{place}.key"), &set, &entry.annotations, 0));
            }
            // Upstream turns annotations without a key into "any certificate of the public Fulcio".
            None if !entry.annotations.is_empty() && entry.attestors.is_empty() => {
                self.error(line, format!("{place}: annotations need a key or attestors; without them nobody in particular must have signed"));
            }
            None => {}
        }
        let repository = self.repository(place, entry.repository.as_ref());
        if repository.is_some() && forms == Forms::Bundles {
            self.notice(
                line,
                format!("{place}: repository is read for type SigstoreBundle too; upstream ignores it there"),
            );
        }
        let placeholder = Digest::of(b"");
        Some(Entry {
            policy: String::new(),
            rule: String::new(),
            index: 0,
            references,
            skipped: entry.skip_image_references.clone(),
            forms,
            sets,
            repository,
            mutate_digest: entry.mutate_digest.unwrap_or(true),
            verify_digest: entry.verify_digest.unwrap_or(true),
            required: entry.required.unwrap_or(true),
            failure_policy: FailurePolicy::Fail,
            reads: PodFactsRead::default(),
            fingerprint: placeholder,
            trust_fingerprint: None,
        })
    }

    pub(super) fn repository(&mut self, place: &str, text: Option<&Spanned<String>>) -> Option<Repository> {
        let text = text.filter(|text| !text.value.is_empty())?;
        match Repository::parse(&text.value) {
            Ok(repository) => Some(repository),
            Err(error) => {
                self.error(text.referenced.line(), format!("{place}: repository: {error}"));
                None
            }
        }
    }
}
