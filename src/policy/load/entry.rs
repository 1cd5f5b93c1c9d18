//! One `verifyImages[]` element: references, storage forms, attestors, attestations, the deprecated
//! aliases.
//!
//! Where upstream would drop a deprecated field and so trust more than it says (`key` or `issuer` beside
//! attestations, annotations without anybody to sign them), it is applied, or refused with the way out.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::attestor::{Context, Purpose};
use super::trust::{Logged, Origin};
use super::{Compatibility, Loader, NamedSecret, yaml};
use crate::oci::{Digest, Repository};
use crate::policy::entry::{AttestorSet, Deny, Entry, FailurePolicy, Forms};
use crate::policy::jmespath::Clock;
use crate::policy::matching::without_tag;
use crate::policy::pods::PodFactsRead;
use crate::policy::resource::View;
use crate::policy::wildcard;
use crate::sigstore::Authorities;

impl Loader<'_> {
    pub(super) fn entry(&mut self, line: u64, place: &str, entry: &yaml::VerifyImages) -> Option<Entry> {
        self.registry_credentials(place, entry.image_registry_credentials.as_ref());
        self.meaningless(
            place,
            &[(
                "useCache",
                &entry.use_cache,
                "a verdict is kept for one digest and what was asked of it (cache.fresh)",
            )],
        );
        let forms = self.forms(place, entry)?;
        let listed = entry.image_references.iter().map(|pattern| pattern.value.clone());
        let mut references: Vec<_> = listed.collect();
        references.extend(entry.image.clone().filter(|image| !image.is_empty()));
        if references.is_empty() {
            self.error(line, format!("{place}: An image reference is required (imageReferences)"));
        }
        for text in references.iter().chain(&entry.skip_image_references) {
            if text.contains("{{") {
                self.error(line, format!("{place}: imageReferences must not hold variables: `{text}`"));
            }
        }
        if self.options.compatibility == Compatibility::Strict {
            for pattern in &entry.image_references {
                self.warn_of_digests(pattern.referenced.line(), place, &pattern.value);
            }
            entry.image.iter().for_each(|pattern| self.warn_of_digests(line, place, pattern));
        }
        let context =
            Context { annotations: &entry.annotations, roots: &Origin::Root, purpose: Purpose::Image };
        let mut sets = Vec::new();
        for (index, set) in entry.attestors.iter().enumerate() {
            sets.extend(self.attestor_set(line, &format!("{place}.attestors[{index}]"), set, context, 0));
        }
        let attestations = entry.attestations.as_ref().filter(|list| !list.value.is_empty());
        let roots = self.default_roots(place, entry);
        let legacy = self.legacy(line, place, entry, &roots, attestations.is_some());
        let listed = attestations.map_or(&[][..], |list| &list.value);
        let attestations: Vec<_> = listed
            .iter()
            .enumerate()
            .filter_map(|(index, attestation)| {
                let place = format!("{place}.attestations[{index}]");
                self.attestation(&place, attestation, &entry.annotations, legacy.as_ref(), &roots)
            })
            .collect();
        let mut names = BTreeSet::new();
        for name in attestations.iter().filter_map(|attestation| attestation.name.as_ref()) {
            if !names.insert(name) {
                self.error(line, format!("{place}: two attestations have the name `{name}`; choose another"));
            }
        }
        if listed.is_empty() {
            sets.extend(legacy);
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
            cosign_oci11: entry.cosign_oci11.as_ref().is_some_and(|flag| flag.value)
                && forms != Forms::Bundles,
            sets,
            attestations,
            denies: Vec::new(),
            repository,
            mutate_digest: entry.mutate_digest.as_ref().is_none_or(|flag| flag.value),
            verify_digest: entry.verify_digest.unwrap_or(true),
            required: entry.required.unwrap_or(true),
            failure_policy: FailurePolicy::Fail,
            reads: PodFactsRead::default(),
            view: View::Whole,
            extractors: Arc::default(),
            clock: Clock::Ignored,
            fingerprint: placeholder,
            variables: Arc::default(),
            unfilled: None,
            trust_fingerprint: None,
        })
    }

    /// They name things of a cluster. A node has better: the kubelet sends each pull with the very
    /// credentials that it found for the pod, in its `imagePullSecrets` and by its credential providers. A
    /// secret serves where the pull has none, if the node has it as a file.
    pub(super) fn registry_credentials(
        &mut self,
        place: &str,
        credentials: Option<&yaml::RegistryCredentials>,
    ) {
        let Some(credentials) = credentials else { return };
        let place = format!("{place}: imageRegistryCredentials");
        if let Some(list) = credentials.providers.as_ref().filter(|list| !list.value.is_empty()) {
            self.notice(list.referenced.line(), format!("{place}.providers is not read: evidence is fetched with the credentials of the pull itself, which the kubelet takes from the pod's imagePullSecrets and its credential providers; a registry of its own for signatures needs a login or a credential helper in registry.dockerConfig"));
        }
        if let Some(secrets) = &credentials.secrets {
            let line = secrets.referenced.line();
            for secret in &secrets.value {
                if is_secret_name(secret) {
                    let (file, place) = (self.file.clone(), format!("{place}.secrets"));
                    self.secrets.push(NamedSecret { file, line, place, name: secret.clone() });
                } else {
                    self.error(
                        line,
                        format!("{place}.secrets: `{secret}` is not `name` or `namespace/name`"),
                    );
                }
            }
        }
        for provider in credentials.providers.iter().flat_map(|list| &list.value) {
            if !PROVIDERS.contains(&provider.as_str()) {
                let line = credentials.providers.as_ref().map_or(0, |list| list.referenced.line());
                self.error(
                    line,
                    format!("{place}.providers: `{provider}` is not one of {}", PROVIDERS.join(", ")),
                );
            }
        }
        // Whoever may write a policy does not thereby decide that the node talks to somebody unproven.
        if let Some(insecure) = credentials.allow_insecure_registry.as_ref().filter(|flag| flag.value) {
            self.notice(insecure.referenced.line(), format!("{place}.allowInsecureRegistry is not read: the node says which registries are asked by plain HTTP or without a known certificate, for pulls and evidence alike (registry.plainHttp, registry.caFiles)"));
        }
    }

    /// `validate`, where it has something to deny.
    pub(super) fn validation(&mut self, place: &str, entry: &yaml::VerifyImages) -> Option<Deny> {
        let validate = entry.validate.as_ref()?;
        let place = format!("{place}.validate");
        let Some(deny) = &validate.value.deny else {
            self.notice(validate.referenced.line(), format!("{place}: it has no deny, so it says nothing"));
            return None;
        };
        let conditions = self.conditions(&format!("{place}.deny.conditions"), deny.value.conditions.as_ref());
        let message = validate.value.message.as_ref().map(|message| {
            let text = Value::String(message.value.clone());
            self.template_of(&format!("{place}.message"), message.referenced.line(), &text, &text, "")
        });
        let message = match message {
            Some(message) => Some(message?),
            None => None,
        };
        Some(Deny { message, conditions: conditions? })
    }

    fn forms(&mut self, place: &str, entry: &yaml::VerifyImages) -> Option<Forms> {
        let strict = self.options.compatibility == Compatibility::Strict;
        let artifacts = entry.cosign_oci11.as_ref().filter(|flag| flag.value);
        match entry.kind.as_ref().map(|kind| (kind.value.as_str(), kind.referenced)) {
            None | Some(("Cosign", _)) if strict && artifacts.is_some() => Some(Forms::LegacyAndArtifacts),
            None | Some(("Cosign", _)) if strict => Some(Forms::Legacy),
            None | Some(("Cosign", _)) => Some(Forms::LegacyThenBundles),
            Some(("SigstoreBundle", _)) => {
                if let Some(flag) = artifacts {
                    self.notice(
                        flag.referenced.line(),
                        format!("{place}: cosignOCI11 has no effect for type SigstoreBundle"),
                    );
                }
                Some(Forms::Bundles)
            }
            Some(("Notary", at)) => {
                self.error(at.line(), format!("{place}: type Notary is not supported"));
                None
            }
            Some((other, at)) => {
                self.error(at.line(), format!("{place}: type `{other}` is not Cosign or SigstoreBundle"));
                None
            }
        }
    }

    /// The one attestor that `key`, or `issuer` with `subject`, `roots` and `additionalExtensions` stand for.
    fn legacy(
        &mut self,
        line: u64,
        place: &str,
        entry: &yaml::VerifyImages,
        roots: &Origin<Authorities>,
        attestations: bool,
    ) -> Option<AttestorSet> {
        let given = |text: &&Spanned<String>| !text.value.trim().is_empty();
        let (key, issuer) = (entry.key.as_ref().filter(given), entry.issuer.as_ref().filter(given));
        self.without_effect(place, entry);
        let purpose = if attestations { Purpose::Attestation } else { Purpose::Image };
        let context = Context { annotations: &entry.annotations, roots, purpose };
        let (field, at, attestor) = match (key, issuer) {
            (None, None) => {
                if self.options.compatibility == Compatibility::Strict {
                    return self.unsigned_annotations(line, place, entry, attestations);
                }
                if !entry.annotations.is_empty() && entry.attestors.is_empty() {
                    self.error(line, format!("{place}: annotations need a key or attestors; without them nobody in particular must have signed"));
                }
                return None;
            }
            (Some(key), _) => {
                let keys = yaml::Keys { public_keys: Some(key.clone()), ..yaml::Keys::default() };
                let keys = Some(Spanned::new(keys, key.referenced, key.defined));
                ("key", key, yaml::Attestor { keys, ..yaml::Attestor::default() })
            }
            (None, Some(issuer)) => {
                let url =
                    Spanned::new(super::trust::PUBLIC_REKOR.to_owned(), issuer.referenced, issuer.defined);
                let rekor = yaml::Rekor { url: Some(url), ..yaml::Rekor::default() };
                let keyless = yaml::Keyless {
                    issuer: Some(issuer.clone()),
                    subject: entry.subject.clone(),
                    roots: entry.roots.clone(),
                    additional_extensions: entry.additional_extensions.clone(),
                    rekor: Some(Spanned::new(rekor, issuer.referenced, issuer.defined)),
                    ..yaml::Keyless::default()
                };
                let keyless = Some(Spanned::new(keyless, issuer.referenced, issuer.defined));
                ("issuer", issuer, yaml::Attestor { keyless, ..yaml::Attestor::default() })
            }
        };
        if attestations {
            let line = at.referenced.line();
            self.notice(line, format!("{place}: {field} is asked of every attestation; a cluster drops it beside attestations and trusts anybody's certificate"));
        }
        let entries = Some(Spanned::new(vec![attestor], at.referenced, at.defined));
        let set = yaml::AttestorSet { count: None, entries };
        self.attestor_set(at.referenced.line(), &format!("{place}.{field}"), &set, context, 0)
    }

    /// `annotations` without anybody to sign them, as upstream reads them: beside `image` any certificate of
    /// the trust root counts, else they mean nothing.
    fn unsigned_annotations(
        &mut self,
        line: u64,
        place: &str,
        entry: &yaml::VerifyImages,
        attestations: bool,
    ) -> Option<AttestorSet> {
        let image = entry.image.as_ref().is_some_and(|image| !image.is_empty());
        if entry.annotations.is_empty() || !image || attestations {
            return None;
        }
        self.warning(line, format!("{place}: annotations beside image without key or issuer: under compatibility: strict anybody's certificate with them counts, as upstream; add attestors"));
        let sct = Logged::Required(Origin::Root);
        let anybody = self.anybody(&entry.annotations, &Origin::Root, sct);
        Some(AttestorSet { required: 1, attestors: vec![anybody] })
    }

    /// A pattern with a tag does not fit a digest upstream, so that adding one avoids the rule.
    fn warn_of_digests(&mut self, line: u64, place: &str, pattern: &str) {
        let name = without_tag(pattern).replace(['*', '?'], "a");
        if name.len() == pattern.len() || pattern.contains('@') {
            return;
        }
        let digest = Digest::of(b"");
        if !wildcard::matches(pattern, &format!("{name}@{digest}")) {
            self.warning(line, format!("{place}: imageReferences `{pattern}` does not fit a reference by digest under compatibility: strict, as upstream, so naming the digest avoids the rule; add `{}@*`", without_tag(pattern)));
        }
    }

    /// What upstream drops silently is refused: the policy means less trust than it would give.
    fn without_effect(&mut self, place: &str, entry: &yaml::VerifyImages) {
        let given = |text: &&Spanned<String>| !text.value.trim().is_empty();
        let key = entry.key.as_ref().filter(given).is_some();
        let issuer = entry.issuer.as_ref().filter(given);
        let unsigned = entry
            .attestations
            .as_ref()
            .is_some_and(|list| list.value.iter().any(|attestation| attestation.value.attestors.is_empty()));
        let beside_key = "has no effect beside key; put it into attestors[].entries[].keyless";
        let alone = "has no effect without issuer; put it into attestors[].entries[].keyless";
        let extensions = entry.additional_extensions.as_ref().filter(|map| !map.value.is_empty());
        for (field, at) in [
            ("issuer", issuer.map(|text| text.referenced)),
            ("subject", entry.subject.as_ref().filter(given).map(|text| text.referenced)),
            ("roots", entry.roots.as_ref().filter(given).map(|text| text.referenced)),
            ("additionalExtensions", extensions.map(|map| map.referenced)),
        ] {
            let Some(at) = at else { continue };
            if key {
                self.error(at.line(), format!("{place}: {field} {beside_key}"));
            } else if issuer.is_none() && !(field == "roots" && unsigned) {
                self.error(at.line(), format!("{place}: {field} {alone}"));
            }
        }
    }

    /// `roots` without `key` and `issuer`: the authorities for attestations without attestors.
    fn default_roots(&mut self, place: &str, entry: &yaml::VerifyImages) -> Origin<Authorities> {
        let given = |text: &&Spanned<String>| !text.value.trim().is_empty();
        let alone =
            entry.key.as_ref().filter(given).is_none() && entry.issuer.as_ref().filter(given).is_none();
        match entry.roots.as_ref().filter(given).filter(|_| alone) {
            None => Origin::Root,
            // Without a certificate in it, it is an error, and nothing is loaded.
            Some(roots) => Origin::roots(self.pem_certificates(
                place,
                "roots",
                Some(roots),
                super::attestor::ROOTS_LIMIT,
            )),
        }
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

/// Of a secret in the namespace of the admission controller, or with its own: such names are file names too.
fn is_secret_name(text: &str) -> bool {
    let is_outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = |part: &str| {
        part.len() <= 253
            && part.bytes().all(|byte| is_outer(byte) || matches!(byte, b'-' | b'.'))
            && [part.bytes().next(), part.bytes().last()].into_iter().all(|byte| byte.is_some_and(is_outer))
    };
    text.split('/').count() <= 2 && text.split('/').all(is_name)
}

/// Upstream's names for the sources of credentials in a cloud.
const PROVIDERS: &[&str] = &["default", "amazon", "azure", "google", "github"];
