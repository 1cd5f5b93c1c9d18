//! From documents to entries: defaults, aliases, and a clear no to what cannot be honoured.
//!
//! Nothing a policy says is ignored silently. A field that is not supported yet, or that cannot be
//! known on a node, is an error that names file, line, field and the way out; a field that means
//! nothing on a node is a notice. All errors of all files are collected before giving up.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::entry::{Action, Attestor, AttestorSet, Entry, FailurePolicy, Forms};
use super::kyverno as yaml;
use super::pods::{LabelExpression, LabelOperator, LabelSelector, PodFilter, PodMatch};
use super::{Policy, Rule, wildcard};
use crate::oci::{Digest, Repository};
use crate::sigstore::{
    self, HashAlgorithm, KeySigner, LogTrust, Logs, PublicKey, Signer, TimestampAuthorities, TrustRoot,
};

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Its name, for messages.
    pub file: PathBuf,
    /// Its content: YAML or JSON, several documents allowed.
    pub text: String,
}

/// Whether to follow upstream Kyverno where the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compatibility {
    /// All forms of a reference, both storage forms.
    #[default]
    Default,
    /// Kyverno's canonical form alone; `type: Cosign` reads `.sig` tags alone.
    Strict,
}

/// What loading needs besides the files.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How close to upstream.
    pub compatibility: Compatibility,
    /// The trust root for attestors that need a transparency log and name no key of their own.
    pub trust_root: Arc<TrustRoot>,
}

/// Something about a policy file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: u64,
    /// What is the matter, with the field and the way out.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

/// Everything that loading one file can say.
pub(super) struct Loader<'a> {
    options: &'a LoadOptions,
    file: PathBuf,
    seen: &'a mut BTreeSet<String>,
    pub(super) policies: Vec<Policy>,
    pub(super) errors: Vec<Remark>,
    pub(super) notices: Vec<Remark>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl<'a> Loader<'a> {
    pub(super) const fn new(options: &'a LoadOptions, file: PathBuf, seen: &'a mut BTreeSet<String>) -> Self {
        Self { options, file, seen, policies: Vec::new(), errors: Vec::new(), notices: Vec::new() }
    }

    pub(super) fn file(&mut self, text: &str) {
        if text.len() > TEXT_LIMIT {
            self.error(0, format!("larger than {TEXT_LIMIT} bytes; split it"));
            return;
        }
        for document in documents(text) {
            if document.trim().is_empty() {
                continue;
            }
            match serde_saphyr::from_multiple::<Option<Head>>(&document) {
                Ok(heads) if heads.len() <= 1 => {
                    if let Some(head) = heads.into_iter().flatten().next() {
                        self.document(&head, &document);
                    }
                }
                Ok(_) => self.error(0, "several documents that are not separated by a line `---`".to_owned()),
                Err(error) => self.yaml_error(&error),
            }
        }
    }

    fn document(&mut self, head: &Head, text: &str) {
        let line =
            text.lines().position(|line| line.trim_start().starts_with("kind")).map_or(0, |at| at as u64 + 1);
        if head.kind == "List" {
            self.error(
                line,
                "kind `List` is not read; write each policy as a document of its own".to_owned(),
            );
            return;
        }
        let ours = head.api_version.split('/').next() == Some("kyverno.io");
        match (head.api_version.as_str(), head.kind.as_str()) {
            ("kyverno.io/v1" | "kyverno.io/v2beta1", "ClusterPolicy" | "Policy") => {}
            (_, "PolicyException") if ours => {
                self.error(line, "kind `PolicyException` is not supported yet".to_owned());
                return;
            }
            (version, "ClusterPolicy" | "Policy") if ours => {
                self.error(
                    line,
                    format!("apiVersion `{version}` is not supported, only kyverno.io/v1 and v2beta1"),
                );
                return;
            }
            (version, kind)
                if kind.is_empty()
                    || (ours && !WITHOUT_IMAGES.contains(&kind))
                    || version.starts_with("policies.kyverno.io/") =>
            {
                self.error(line, format!("kind `{kind}` of `{version}` is not supported; is it misspelt?"));
                return;
            }
            (version, kind) => {
                self.notice(
                    line,
                    format!("kind `{kind}` of `{version}` is skipped: it has no verifyImages rules"),
                );
                return;
            }
        }
        match serde_saphyr::from_str::<yaml::Document>(text) {
            Ok(document) => self.policy(line, &document),
            Err(error) => self.yaml_error(&error),
        }
    }

    fn policy(&mut self, line: u64, document: &yaml::Document) {
        let text = |field: &str| {
            let value = document.metadata.as_ref().and_then(|metadata| metadata.get(field));
            value.and_then(serde_json::Value::as_str).unwrap_or("").to_owned()
        };
        let (name, namespace) = (text("name"), text("namespace"));
        if name.is_empty() {
            return self.error(line, "metadata.name is missing".to_owned());
        }
        let namespaced = document.kind == "Policy";
        if namespaced && namespace.is_empty() {
            return self.error(line, format!("policy `{name}`: kind Policy needs metadata.namespace"));
        }
        let name = if namespaced { format!("{namespace}/{name}") } else { name };
        if !self.seen.insert(format!("{} {name}", document.kind)) {
            return self.error(line, format!("{} `{name}` is defined twice", document.kind));
        }
        let Some(spec) = &document.spec else {
            return self.error(line, format!("policy `{name}`: spec is missing"));
        };
        self.meaningless(
            &name,
            &[
                ("background", &spec.background),
                ("webhookTimeoutSeconds", &spec.webhook_timeout_seconds),
                ("emitWarning", &spec.emit_warning),
                ("schemaValidation", &spec.schema_validation),
                ("mutateExistingOnPolicyUpdate", &spec.mutate_existing_on_policy_update),
                ("generateExistingOnPolicyUpdate", &spec.generate_existing_on_policy_update),
                ("generateExisting", &spec.generate_existing),
                ("useServerSideApply", &spec.use_server_side_apply),
                ("skipBackgroundRequests", &spec.skip_background_requests),
            ],
        );
        if let Some(webhook) = &spec.webhook_configuration {
            self.meaningless(&name, &[("webhookConfiguration.timeoutSeconds", &webhook.timeout_seconds)]);
            self.refuse(
                &name,
                "webhookConfiguration.matchConditions",
                &webhook.match_conditions,
                "it is CEL over an admission request, which a node never sees; use match and exclude",
            );
        }
        if let Some(apply) = spec.apply_rules.as_ref().filter(|apply| apply.value != "All") {
            self.error(
                apply.referenced.line(),
                format!("policy `{name}`: applyRules `{}` is not supported yet, only All", apply.value),
            );
        }
        let webhook_failure =
            spec.webhook_configuration.as_ref().and_then(|webhook| webhook.failure_policy.as_deref());
        let failure_policy = match (spec.failure_policy.as_deref(), webhook_failure) {
            (Some(_), Some(_)) => return self.error(line, format!("policy `{name}`: failurePolicy and webhookConfiguration.failurePolicy are both set; keep one")),
            (None | Some("Fail"), None) | (None, Some("Fail")) => FailurePolicy::Fail,
            (Some("Ignore"), None) | (None, Some("Ignore")) => FailurePolicy::Ignore,
            (Some(other), None) | (None, Some(other)) => return self.error(line, format!("policy `{name}`: failurePolicy `{other}` is not Fail or Ignore")),
        };
        let overrides = self.overrides(line, &name, namespaced, spec);
        let default_action =
            self.action(line, &name, "validationFailureAction", spec.validation_failure_action.as_deref());
        let mut policy = Policy {
            name: name.clone(),
            namespace: namespaced.then_some(namespace),
            default_action: default_action.unwrap_or(Action::Audit),
            overrides,
            rules: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for rule in &spec.rules {
            if rule.name.is_empty() {
                self.error(line, format!("policy `{name}`: a rule has no name"));
            } else if !names.insert(rule.name.as_str()) {
                self.error(line, format!("policy `{name}`: rule `{}` is defined twice", rule.name));
            }
            if rule.verify_images.is_none() {
                self.notice(
                    line,
                    format!("policy `{name}`: rule `{}` is skipped: it has no verifyImages", rule.name),
                );
                continue;
            }
            if let Some(rule) = self.rule(line, &policy, failure_policy, rule) {
                policy.rules.push(rule);
            }
        }
        if spec.admission == Some(false) {
            return self.notice(
                line,
                format!(
                    "policy `{name}` has admission: false: it never refuses upstream, so it is not applied"
                ),
            );
        }
        self.policies.push(policy);
    }

    fn overrides(
        &mut self,
        line: u64,
        name: &str,
        namespaced: bool,
        spec: &yaml::Spec,
    ) -> Vec<(Action, Vec<String>)> {
        let list = &spec.validation_failure_action_overrides;
        if namespaced && !list.is_empty() {
            self.error(
                line,
                format!("policy `{name}`: validationFailureActionOverrides is for ClusterPolicy only"),
            );
        }
        let mut overrides = Vec::new();
        for item in list {
            self.refuse(
                name,
                "validationFailureActionOverrides.namespaceSelector",
                &item.namespace_selector,
                "a node does not know the labels of namespaces; name the namespaces",
            );
            match self.action(line, name, "validationFailureActionOverrides.action", item.action.as_deref()) {
                Some(action) => {
                    overrides.push((action, item.namespaces.clone().unwrap_or_else(|| vec!["*".to_owned()])))
                }
                None => self.error(line, format!("policy `{name}`: an override has no action")),
            }
        }
        overrides
    }

    fn action(&mut self, line: u64, name: &str, field: &str, text: Option<&str>) -> Option<Action> {
        match text? {
            "Enforce" | "enforce" => Some(Action::Enforce),
            "Audit" | "audit" => Some(Action::Audit),
            other => {
                self.error(line, format!("policy `{name}`: {field} `{other}` is not Audit or Enforce"));
                None
            }
        }
    }

    fn rule(
        &mut self,
        line: u64,
        policy: &Policy,
        failure_policy: FailurePolicy,
        rule: &yaml::Rule,
    ) -> Option<Rule> {
        let place = format!("{}/{}", policy.name, rule.name);
        self.unsupported(
            &place,
            &[
                ("context", &rule.context),
                ("preconditions", &rule.preconditions),
                ("celPreconditions", &rule.cel_preconditions),
            ],
        );
        self.meaningless(
            &place,
            &[
                ("imageExtractors", &rule.image_extractors),
                ("skipBackgroundRequests", &rule.skip_background_requests),
                ("reportProperties", &rule.report_properties),
            ],
        );
        for (field, value) in
            [("mutate", &rule.mutate), ("validate", &rule.validate), ("generate", &rule.generate)]
        {
            self.refuse(&place, field, value, "a rule is of one kind; put it into a rule of its own");
        }
        let Some(matches) = &rule.match_resources else {
            self.error(line, format!("{place}: match is missing"));
            return None;
        };
        let before = self.errors.len();
        let includes = self.pod_match(line, &place, matches, Side::Match);
        let excludes = rule
            .exclude
            .as_ref()
            .map(|exclude| self.pod_match(line, &place, exclude, Side::Exclude))
            .unwrap_or_default();
        if !includes.is_about_pods() {
            self.notice(
                line,
                format!("{place}: its match selects no pods, so it is never applied on a node"),
            );
        }
        let namespace = super::pods::PodFactsRead {
            namespace: policy.namespace.is_some() || !policy.overrides.is_empty(),
            ..Default::default()
        };
        let reads = includes.reads().and(excludes.reads()).and(namespace);
        let mut entries = Vec::new();
        let mut actions = Vec::new();
        for (index, entry) in rule.verify_images.iter().flatten().enumerate() {
            let place = format!("{place}: verifyImages[{index}]");
            if let Some(action) = self.action(line, &place, "failureAction", entry.failure_action.as_deref())
            {
                actions.push(action);
            }
            if let Some(draft) = self.entry(line, &place, entry) {
                let entry = Entry {
                    policy: policy.name.clone(),
                    rule: rule.name.clone(),
                    index,
                    failure_policy,
                    reads,
                    ..draft
                };
                entries.push(Arc::new(entry.sealed()));
            }
        }
        if rule.verify_images.as_ref().is_some_and(Vec::is_empty) {
            self.error(line, format!("{place}: verifyImages is empty"));
        }
        if self.errors.len() > before {
            return None;
        }
        // Kyverno: Enforce in any entry wins for the rule, else the first entry that says anything.
        let own_action = actions.iter().copied().max();
        Some(Rule { name: rule.name.clone(), includes, excludes, entries, own_action, reads })
    }

    fn entry(&mut self, line: u64, place: &str, entry: &yaml::VerifyImages) -> Option<Entry> {
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
            reads: super::pods::PodFactsRead::default(),
            fingerprint: placeholder,
            trust_fingerprint: None,
        })
    }

    fn attestor_set(
        &mut self,
        line: u64,
        place: &str,
        set: &yaml::AttestorSet,
        annotations: &std::collections::BTreeMap<String, String>,
        depth: usize,
    ) -> Option<AttestorSet> {
        if depth > NESTING {
            self.error(line, format!("{place}: attestor sets are nested deeper than {NESTING}"));
            return None;
        }
        let Some(entries) = set.entries.as_ref().filter(|entries| !entries.value.is_empty()) else {
            self.error(line, format!("{place}: An entry is required"));
            return None;
        };
        let line = entries.referenced.line();
        let mut attestors = Vec::new();
        let before = self.errors.len();
        for (index, attestor) in entries.value.iter().enumerate() {
            self.attestor(
                line,
                &format!("{place}.entries[{index}]"),
                attestor,
                annotations,
                depth,
                &mut attestors,
            );
        }
        let required = match &set.count {
            None => attestors.len(),
            Some(count) if count.value == 0 => attestors.len(),
            Some(count) => match usize::try_from(count.value) {
                Ok(wanted) if wanted <= entries.value.len() => wanted,
                _ => {
                    self.error(
                        count.referenced.line(),
                        format!("{place}: Count cannot exceed length of entries, nor be negative"),
                    );
                    return None;
                }
            },
        };
        (self.errors.len() == before && !attestors.is_empty()).then_some(AttestorSet { required, attestors })
    }

    fn attestor(
        &mut self,
        line: u64,
        place: &str,
        attestor: &yaml::Attestor,
        annotations: &std::collections::BTreeMap<String, String>,
        depth: usize,
        out: &mut Vec<Attestor>,
    ) {
        self.unsupported(place, &[("certificates", &attestor.certificates), ("keyless", &attestor.keyless)]);
        let kinds = [
            attestor.certificates.is_some(),
            attestor.keyless.is_some(),
            attestor.keys.is_some(),
            attestor.attestor.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() != 1 {
            return self.error(line, format!("{place}: keys, certificates, keyless, or a nested attestor is required, and only one of them"));
        }
        let repository = self.repository(place, attestor.repository.as_ref());
        if let Some(nested) = &attestor.attestor {
            if repository.is_some() || !attestor.annotations.is_empty() {
                self.error(line, format!("{place}: repository and annotations have no effect beside a nested attestor; put them inside"));
            }
            out.extend(
                self.attestor_set(line, &format!("{place}.attestor"), nested, annotations, depth + 1)
                    .map(Attestor::Set),
            );
            return;
        }
        let Some(keys) = &attestor.keys else { return };
        let annotations = if attestor.annotations.is_empty() { annotations } else { &attestor.annotations };
        // Kyverno: the algorithm beside the keys is the one that is read for keys.
        let hash = self
            .hash(place, keys.value.signature_algorithm.as_ref().or(attestor.signature_algorithm.as_ref()));
        let log = self.log(place, &keys.value);
        let (Some(hash), Some(log)) = (hash, log) else { return };
        for key in self.public_keys(keys.referenced, place, &keys.value) {
            let signer = sigstore::Attestor {
                signer: Signer::Key(KeySigner { key, hash }),
                annotations: annotations.clone(),
                log: log.clone(),
                timestamps: Arc::new(TimestampAuthorities::none()),
            };
            out.push(Attestor::Signer { signer: Box::new(signer), repository: repository.clone() });
        }
    }

    fn public_keys(&mut self, at: Location, place: &str, keys: &yaml::Keys) -> Vec<PublicKey> {
        self.unsupported(place, &[("keys.kms", &keys.kms), ("keys.secret", &keys.secret)]);
        let Some(text) = keys.public_keys.as_ref().filter(|text| !text.value.trim().is_empty()) else {
            if keys.kms.is_none() && keys.secret.is_none() {
                self.error(at.line(), format!("{place}: A public key, kms key or secret is required"));
            }
            return Vec::new();
        };
        let line = text.referenced.line();
        let trimmed = text.value.trim();
        if !trimmed.starts_with("-----BEGIN") {
            let reference: String = trimmed.chars().take(60).collect();
            self.error(line, format!("{place}: keys.publicKeys `{reference}` is a key reference, which is not supported yet; write the PEM of the public key"));
            return Vec::new();
        }
        // As upstream: cut behind each END line; one attestor a key.
        let mut found = Vec::new();
        for piece in trimmed.split_inclusive(END_OF_KEY).filter(|piece| !piece.trim().is_empty()) {
            match PublicKey::from_pem(piece.trim()) {
                Ok(key) => found.push(key),
                Err(error) => self.error(line, format!("{place}: keys.publicKeys: {error}")),
            }
        }
        found
    }

    fn hash(&mut self, place: &str, text: Option<&Spanned<String>>) -> Option<HashAlgorithm> {
        match text.map(|text| text.value.as_str()) {
            None | Some("" | "sha256") => Some(HashAlgorithm::Sha256),
            Some("sha384") => Some(HashAlgorithm::Sha384),
            Some("sha512") => Some(HashAlgorithm::Sha512),
            Some(other) => {
                let line = text.map_or(0, |text| text.referenced.line());
                self.error(line, format!("{place}: invalid signature algorithm provided {other} (sha256, sha384 and sha512 are supported)"));
                None
            }
        }
    }

    fn log(&mut self, place: &str, keys: &yaml::Keys) -> Option<LogTrust> {
        if let Some(ctlog) = &keys.ctlog {
            // A key has no certificate, so no SCT either: ignoreSCT says nothing about it.
            self.unsupported(place, &[("ctlog.tsaCertChain", &ctlog.tsa_cert_chain)]);
            self.meaningless(place, &[("ctlog.pubkey", &ctlog.pubkey), ("ctlog.pubKey", &ctlog.pub_key)]);
            if ctlog.ignore_sct {
                self.notice(
                    0,
                    format!("{place}: ctlog.ignoreSCT means nothing for keys: they have no certificate"),
                );
            }
        }
        let Some(rekor) = &keys.rekor else {
            return Some(LogTrust::Required(self.options.trust_root.logs()));
        };
        if let Some(url) = rekor.url.as_ref().filter(|url| !url.value.is_empty()) {
            self.notice(url.referenced.line(), format!("{place}: rekor.url is not asked: log entries are verified as they come with the signature"));
        }
        if rekor.pubkey.is_some() && rekor.pub_key.is_some() {
            self.error(0, format!("{place}: rekor.pubkey and rekor.pubKey are both set; keep pubkey"));
            return None;
        }
        if let Some(spelling) = &rekor.pub_key {
            self.notice(
                spelling.referenced.line(),
                format!("{place}: rekor.pubKey is read as pubkey; a cluster ignores this spelling"),
            );
        }
        if rekor.ignore_tlog {
            return Some(LogTrust::Ignored);
        }
        let Some(pem) =
            rekor.pubkey.as_ref().or(rekor.pub_key.as_ref()).filter(|pem| !pem.value.trim().is_empty())
        else {
            return Some(LogTrust::Required(self.options.trust_root.logs()));
        };
        let line = pem.referenced.line();
        let mut found = Vec::new();
        for piece in pem.value.trim().split_inclusive(END_OF_KEY).filter(|piece| !piece.trim().is_empty()) {
            match PublicKey::from_pem(piece.trim()) {
                Ok(key) => found.push(key),
                Err(error) => {
                    self.error(line, format!("{place}: rekor.pubkey: {error}"));
                    return None;
                }
            }
        }
        Some(LogTrust::Required(Arc::new(Logs::from_keys(&found))))
    }

    fn repository(&mut self, place: &str, text: Option<&Spanned<String>>) -> Option<Repository> {
        let text = text.filter(|text| !text.value.is_empty())?;
        match Repository::parse(&text.value) {
            Ok(repository) => Some(repository),
            Err(error) => {
                self.error(text.referenced.line(), format!("{place}: repository: {error}"));
                None
            }
        }
    }

    fn pod_match(&mut self, line: u64, place: &str, block: &yaml::MatchResources, side: Side) -> PodMatch {
        let word = side.word();
        let legacy = yaml::Filter {
            resources: block.resources.clone(),
            roles: block.roles.clone(),
            cluster_roles: block.cluster_roles.clone(),
            subjects: block.subjects.clone(),
        };
        let inline = legacy.resources.is_some()
            || legacy.roles.is_some()
            || legacy.cluster_roles.is_some()
            || legacy.subjects.is_some();
        let (any, all) = match (&block.any, &block.all, inline) {
            (Some(any), None, false) => (any.clone(), Vec::new()),
            (None, Some(all), false) => (Vec::new(), all.clone()),
            (None, None, true) => (vec![legacy], Vec::new()),
            (None, None, false) => {
                if side == Side::Match {
                    self.error(line, format!("{place}: match cannot be empty"));
                }
                (Vec::new(), Vec::new())
            }
            _ => {
                self.error(line, format!("{place}: {word} takes one of any, all or resources"));
                (Vec::new(), Vec::new())
            }
        };
        PodMatch {
            any: any.iter().filter_map(|filter| self.filter(line, place, filter, side)).collect(),
            all: all.iter().filter_map(|filter| self.filter(line, place, filter, side)).collect(),
        }
    }

    fn filter(&mut self, line: u64, place: &str, filter: &yaml::Filter, side: Side) -> Option<PodFilter> {
        let word = side.word();
        for (field, value) in [
            ("roles", &filter.roles),
            ("clusterRoles", &filter.cluster_roles),
            ("subjects", &filter.subjects),
        ] {
            match side {
                // Without it a pull would be judged as if nobody were excluded, or everybody matched.
                Side::Exclude => self.refuse(
                    place,
                    &format!("exclude.{field}"),
                    value,
                    "a node does not know who created a pod",
                ),
                Side::Match => self.refuse(
                    place,
                    &format!("match.{field}"),
                    value,
                    "a node does not know who created a pod; match on resources",
                ),
            }
        }
        let Some(resources) = &filter.resources else {
            self.error(line, format!("{place}: {word} has a filter without resources"));
            return None;
        };
        self.refuse(
            place,
            &format!("{word}.resources.namespaceSelector"),
            &resources.namespace_selector,
            "a node does not know the labels of namespaces; name the namespaces",
        );
        let mut names = resources.names.clone();
        names.extend(resources.name.clone());
        let empty = resources.kinds.is_empty()
            && names.is_empty()
            && resources.namespaces.is_empty()
            && resources.annotations.is_empty()
            && resources.selector.is_none()
            && resources.operations.is_empty();
        if empty {
            self.error(line, format!("{place}: {word} has an empty filter"));
            return None;
        }
        let selector = resources.selector.as_ref().map(|selector| LabelSelector {
            labels: selector.match_labels.clone(),
            expressions: selector
                .match_expressions
                .iter()
                .filter_map(|expression| self.expression(place, expression))
                .collect(),
        });
        Some(PodFilter {
            pods: resources.kinds.is_empty() || resources.kinds.iter().any(|kind| selects_pods(kind)),
            creates: resources.operations.is_empty()
                || resources.operations.iter().any(|operation| operation == "CREATE"),
            names,
            namespaces: resources.namespaces.clone(),
            annotations: resources.annotations.clone(),
            selector,
        })
    }

    fn expression(&mut self, place: &str, expression: &yaml::Expression) -> Option<LabelExpression> {
        let Some(operator) = &expression.operator else {
            self.error(0, format!("{place}: a selector expression on `{}` has no operator", expression.key));
            return None;
        };
        let line = operator.referenced.line();
        let (operator, takes_values) = match operator.value.as_str() {
            "In" => (LabelOperator::In, true),
            "NotIn" => (LabelOperator::NotIn, true),
            "Exists" => (LabelOperator::Exists, false),
            "DoesNotExist" => (LabelOperator::DoesNotExist, false),
            other => {
                self.error(
                    line,
                    format!("{place}: selector operator `{other}` is not In, NotIn, Exists or DoesNotExist"),
                );
                return None;
            }
        };
        if takes_values == expression.values.is_empty() || expression.key.is_empty() {
            self.error(
                line,
                format!(
                    "{place}: selector expression on `{}` has the wrong values for its operator",
                    expression.key
                ),
            );
            return None;
        }
        Some(LabelExpression { key: expression.key.clone(), operator, values: expression.values.clone() })
    }

    fn unsupported(&mut self, place: &str, fields: &[(&str, &Option<yaml::Unread>)]) {
        for (field, value) in fields {
            self.refuse(place, field, value, "it is not supported yet");
        }
    }

    fn meaningless(&mut self, place: &str, fields: &[(&str, &Option<yaml::Unread>)]) {
        for (field, value) in fields {
            if let Some(value) = value {
                self.notice(value.referenced.line(), format!("{place}: {field} means nothing on a node"));
            }
        }
    }

    fn refuse(&mut self, place: &str, field: &str, value: &Option<yaml::Unread>, why: &str) {
        let Some(value) = value else { return };
        // What is written as empty asks for nothing.
        let empty = match &value.value {
            serde_json::Value::Null => true,
            serde_json::Value::Array(items) => items.is_empty(),
            serde_json::Value::Object(members) => {
                members.is_empty() && field != "keyless" && field != "certificates"
            }
            serde_json::Value::String(text) => text.is_empty(),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => false,
        };
        if empty {
            self.notice(value.referenced.line(), format!("{place}: {field} is empty"));
        } else {
            self.error(value.referenced.line(), format!("{place}: {field} cannot be used: {why}"));
        }
    }

    fn yaml_error(&mut self, error: &serde_saphyr::Error) {
        let error = error.without_snippet();
        let line = error.location().map_or(0, |location| location.line());
        let message = error.to_string().lines().next().unwrap_or("not YAML").chars().take(300).collect();
        self.error(line, message);
    }

    fn error(&mut self, line: u64, message: String) {
        self.errors.push(Remark { file: self.file.clone(), line, message });
    }

    fn notice(&mut self, line: u64, message: String) {
        self.notices.push(Remark { file: self.file.clone(), line, message });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Match,
    Exclude,
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Exclude => "exclude",
        }
    }
}

/// Whether a kind selector (`Kind`, `Version/Kind`, `Group/Version/Kind`, `Kind/sub`) takes in v1 Pod.
fn selects_pods(selector: &str) -> bool {
    let parts: Vec<&str> = selector.split(['/', '.']).collect();
    let is_pod = |kind: &str| wildcard::matches(kind, "Pod");
    match parts.as_slice() {
        [kind] | [kind, "ephemeralcontainers"] => is_pod(kind),
        [version, kind] => wildcard::matches(version, "v1") && is_pod(kind),
        ["" | "*", version, kind] => wildcard::matches(version, "v1") && is_pod(kind),
        _ => false,
    }
}

/// The documents of a file, each with as many empty lines before it as it has in the file, so that
/// line numbers stay true.
fn documents(text: &str) -> Vec<String> {
    let mut documents = Vec::new();
    let mut current = String::new();
    for (number, line) in text.lines().enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if marker {
            documents.push(std::mem::replace(&mut current, "\n".repeat(number)));
        }
        current.push_str(line);
        current.push('\n');
    }
    documents.push(current);
    documents
}

/// Kinds of kyverno.io that verify no images.
const WITHOUT_IMAGES: &[&str] = &[
    "CleanupPolicy",
    "ClusterCleanupPolicy",
    "GlobalContextEntry",
    "UpdateRequest",
    "PolicyReport",
    "ClusterPolicyReport",
];
const END_OF_KEY: &str = "-----END PUBLIC KEY-----";
/// Deeper nesting than anyone writes; bounds recursion.
const NESTING: usize = 16;
/// Far more than the API server stores for one object.
const TEXT_LIMIT: usize = 8 * 1024 * 1024;
