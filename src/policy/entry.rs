//! A `verifyImages` entry after loading: everything resolved, nothing left to parse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::blank::Blank;
use super::condition::Conditions;
use super::extract::Extractors;
use super::jmespath::{Budget, Clock, Reads, Scope};
use super::pods::PodFactsRead;
use super::resource::View;
use super::rule_context::Values;
use super::variables::{Template, cut};
use super::{PodFacts, context};
use crate::oci::{Digest, Reference, Repository};
use crate::outcome::{Fault, FaultReason};
use crate::sigstore::{self, PublicKey};

/// Whether a failing rule refuses or only reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Action {
    /// Report only.
    Audit,
    /// Refuse.
    Enforce,
}

/// What a fault means for a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum FailurePolicy {
    /// Refuse.
    Fail,
    /// Let pass, within rule D4.
    Ignore,
}

/// Which storage forms count (`type` of the entry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Forms {
    /// `.sig` tags first, bundles where those did not satisfy.
    LegacyThenBundles,
    /// `.sig` and `.att` tags only: `type: Cosign` under `compatibility: strict`.
    Legacy,
    /// The same and the experimental OCI 1.1 form: `cosignOCI11` under `compatibility: strict`.
    LegacyAndArtifacts,
    /// Bundles only: `type: SigstoreBundle`.
    Bundles,
}

/// A set of attestors of which `required` must be satisfied.
#[derive(Debug, Clone)]
pub(super) struct AttestorSet {
    pub(super) required: usize,
    pub(super) attestors: Vec<Attestor>,
}

/// One attestor of a set.
#[derive(Debug, Clone)]
pub(super) enum Attestor {
    Signer(Signer),
    Set(AttestorSet),
}

/// An attestor that is not a set of others.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub(super) kind: SignerKind,
    /// What must hold of a signature; a fault where that needs the node's trust root and there is none.
    pub(super) attestor: Result<Box<sigstore::Attestor>, Fault>,
    /// What must hold of some signature besides: under `compatibility: strict` the annotations of an identity
    /// may stand on another signature than its own.
    pub(super) besides: Option<Box<sigstore::Attestor>>,
    /// Whether the node's trust root is part of it.
    pub(super) root: RootUse,
    pub(super) repository: Option<Repository>,
    /// Where log entries may be looked up that do not come with a signature.
    pub(super) lookup: Option<RekorLookup>,
}

/// Which field of a policy an attestor comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) enum SignerKind {
    Keys,
    Certificates,
    Keyless,
    /// None: an attestation without attestors.
    Unnamed,
}

impl SignerKind {
    /// The end of its path in messages.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Keys => ".keys",
            Self::Certificates => ".certificates",
            Self::Keyless => ".keyless",
            Self::Unnamed => "",
        }
    }
}

/// Whether an attestor uses the node's trust root (rule O3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootUse {
    Needed,
    Untouched,
}

/// One `attestations[]` element: all its sets must hold over the statements of its type, and its
/// conditions on each of these.
#[derive(Debug, Clone)]
pub(super) struct Attestation {
    pub(super) predicate_type: String,
    /// Under which name later conditions know the predicate.
    pub(super) name: Option<String>,
    pub(super) sets: Vec<AttestorSet>,
    pub(super) conditions: Option<Conditions>,
}

/// `validate.deny`: what must not hold once all attestations of an entry do.
#[derive(Debug, Clone)]
pub(super) struct Deny {
    /// `validate.message`.
    pub(super) message: Option<Template>,
    pub(super) conditions: Conditions,
}

impl Deny {
    /// What to say where the conditions hold: `validate.message` and their own messages. A variable in it
    /// that has no value leaves it out: it only says what happened.
    pub(super) fn text<'a>(&'a self, own: &str, scope: &'a Scope<'a>, budget: &mut Budget) -> String {
        let message = self.message.as_ref().and_then(|message| message.substitute(scope, budget).ok());
        let message = message.as_deref().and_then(Value::as_str).map(|text| cut(text, MESSAGE_LIMIT));
        match (message.as_deref().unwrap_or_default(), own) {
            ("", "") => "validation error: imageVerify failed".to_owned(),
            ("", text) | (text, "") => text.to_owned(),
            (message, own) => format!("{message}; {own}"),
        }
    }
}

/// A transparency log to ask for entries that do not come with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekorLookup {
    /// Its address (`rekor.url`), http or https.
    pub url: String,
    /// The key that entries are looked up for; none where it is the signature's own certificate's.
    pub key: Option<PublicKey>,
}

/// One `verifyImages[]` element of a rule.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) policy: String,
    pub(super) rule: String,
    pub(super) index: usize,
    pub(super) references: Vec<String>,
    pub(super) skipped: Vec<String>,
    pub(super) forms: Forms,
    pub(super) cosign_oci11: bool,
    pub(super) sets: Vec<AttestorSet>,
    pub(super) attestations: Vec<Attestation>,
    /// Those of all entries of the rule, in order; none where there are no attestations.
    pub(super) denies: Vec<Deny>,
    pub(super) repository: Option<Repository>,
    pub(super) mutate_digest: bool,
    pub(super) verify_digest: bool,
    pub(super) required: bool,
    pub(super) failure_policy: FailurePolicy,
    pub(super) reads: PodFactsRead,
    /// What the rule's variables read of a resource.
    pub(super) view: View,
    /// Which images of a resource they read.
    pub(super) extractors: Arc<Extractors>,
    /// Whether its answer may change with time alone.
    pub(super) clock: Clock,
    /// What its conditions know of the rule's context.
    pub(super) variables: Arc<Values>,
    /// Why it cannot be judged as it is; it then has a sample's attestors, which nobody satisfies.
    pub(super) unfilled: Option<Unfilled>,
    pub(super) fingerprint: Digest,
    pub(super) trust_fingerprint: Option<Digest>,
}

/// Why an entry cannot be judged as it is.
#[derive(Debug, Clone)]
pub(super) enum Unfilled {
    /// Its fields are filled in for each pull.
    UntilPull(Arc<Blank>),
    /// They cannot be, or its rule cannot be evaluated.
    Never(Fault),
}

impl Entry {
    /// The policy, `name` or `namespace/name`.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The rule in it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The position in the rule's `verifyImages`.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// What a fault means for this entry's policy.
    #[must_use]
    pub const fn failure_policy(&self) -> FailurePolicy {
        self.failure_policy
    }

    /// Which storage forms count.
    #[must_use]
    pub const fn forms(&self) -> Forms {
        self.forms
    }

    /// Whether a verified image gets its digest written into the resource (`mutateDigest`).
    #[must_use]
    pub const fn pins_digest(&self) -> bool {
        self.mutate_digest
    }

    /// Whether anything has to be fetched to judge it.
    #[must_use]
    pub const fn needs_evidence(&self) -> bool {
        !self.sets.is_empty() || !self.attestations.is_empty()
    }

    /// Whether any attestor uses the node's trust root (rule O3).
    #[must_use]
    pub fn uses_trust_root(&self) -> bool {
        self.signers().iter().any(|signer| signer.root == RootUse::Needed)
    }

    /// Whether it refuses `reference` for want of a digest, whatever is signed: `verifyDigest` with
    /// `mutateDigest: false` looks at the reference itself.
    #[must_use]
    pub const fn asks_for_digest(&self, reference: &Reference) -> bool {
        !self.mutate_digest && self.verify_digest && reference.digest().is_none()
    }

    /// Changes with anything that this entry asks for (rule C1).
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Changes with the log keys or trust roots it uses; none for keys without a log (rules C1, O3).
    #[must_use]
    pub const fn trust_fingerprint(&self) -> Option<Digest> {
        self.trust_fingerprint
    }

    /// What the rule reads of the pod and of the reference's text, and nothing else (rule C1).
    #[must_use]
    pub fn pod_fingerprint(&self, pod: &PodFacts, reference: &Reference) -> Digest {
        self.reads.fingerprint(pod, self.view, reference)
    }

    /// The facts that its conditions read.
    pub(super) fn facts_read(&self) -> PodFactsRead {
        self.conditions()
            .fold(PodFactsRead::default(), |facts, conditions| facts.and(context::facts(&conditions.reads())))
    }

    fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        let of_attestations =
            self.attestations.iter().filter_map(|attestation| attestation.conditions.as_ref());
        of_attestations.chain(self.denies.iter().map(|deny| &deny.conditions))
    }

    /// The fault for which it cannot be judged, whatever is signed.
    #[must_use]
    pub fn undecidable(&self) -> Option<Fault> {
        match self.unfilled.as_ref()? {
            Unfilled::UntilPull(_) => Some(Fault::new(FaultReason::Internal, "an entry was not filled in")),
            Unfilled::Never(fault) => Some(fault.clone()),
        }
    }

    /// The same entry, not to be judged.
    pub(super) fn not_decidable(&self, fault: Fault) -> Self {
        Self { unfilled: Some(Unfilled::Never(fault)), ..self.clone() }
    }

    /// A form: everything but its attestors, in whose place is one that nobody satisfies.
    pub(super) fn form(mut self, unfilled: Unfilled) -> Self {
        let fault = Fault::new(FaultReason::Internal, "an entry was not filled in");
        self.each_signer(&mut |signer| signer.attestor = Err(fault.clone()));
        let nobody = Signer {
            kind: SignerKind::Unnamed,
            attestor: Err(fault),
            besides: None,
            root: RootUse::Untouched,
            repository: None,
            lookup: None,
        };
        self.sets.push(AttestorSet { required: 1, attestors: vec![Attestor::Signer(nobody)] });
        Self { unfilled: Some(unfilled), ..self }
    }

    /// What a form became, in the place of the form.
    pub(super) fn filled_in(&self, filled: Self) -> Self {
        let form = self.clone();
        Self {
            policy: form.policy,
            rule: form.rule,
            index: form.index,
            denies: form.denies,
            failure_policy: form.failure_policy,
            reads: form.reads,
            view: form.view,
            extractors: form.extractors,
            variables: form.variables,
            ..filled
        }
        .sealed()
    }

    /// Whether it has conditions, which may read the rule's context.
    pub(super) fn has_conditions(&self) -> bool {
        self.conditions().next().is_some()
    }

    /// The same with what a pull makes of the rule's context.
    pub(super) fn knowing(&self, variables: Arc<Values>) -> Self {
        Self { variables, ..self.clone() }.sealed()
    }

    /// What its fields read, where they are filled in for each pull.
    pub(super) fn form_reads(&self) -> Reads {
        match &self.unfilled {
            Some(Unfilled::UntilPull(blank)) => blank.form.reads(),
            Some(Unfilled::Never(_)) | None => Reads::none(),
        }
    }

    fn each_signer(&mut self, change: &mut dyn FnMut(&mut Signer)) {
        let of_attestations = self.attestations.iter_mut().flat_map(|attestation| &mut attestation.sets);
        for set in self.sets.iter_mut().chain(of_attestations) {
            set.each_signer(change);
        }
    }

    /// The repositories in which signatures of an image of `image` are looked for; none where the
    /// entry has no attestors.
    #[must_use]
    pub fn repositories(&self, image: &Repository) -> Vec<Repository> {
        let found: BTreeSet<_> = signers_of(&self.sets)
            .iter()
            .map(|signer| self.evidence_repository(signer.repository.as_ref(), image).clone())
            .collect();
        found.into_iter().collect()
    }

    /// The repositories in which attestations of an image of `image` are looked for, each with the
    /// predicate types that are wanted there.
    #[must_use]
    pub fn attestations(&self, image: &Repository) -> BTreeMap<Repository, BTreeSet<String>> {
        let mut found: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
        for attestation in &self.attestations {
            for signer in signers_of(&attestation.sets) {
                let repository = self.evidence_repository(signer.repository.as_ref(), image).clone();
                found.entry(repository).or_default().insert(attestation.predicate_type.clone());
            }
        }
        found
    }

    /// Where entries of transparency logs may be looked up: none unless looking up is allowed.
    #[must_use]
    pub fn rekor_lookups(&self) -> Vec<RekorLookup> {
        let mut lookups: Vec<RekorLookup> = Vec::new();
        for lookup in self.signers().into_iter().filter_map(|signer| signer.lookup.as_ref()) {
            if !lookups.contains(lookup) {
                lookups.push(lookup.clone());
            }
        }
        lookups
    }

    fn signers(&self) -> Vec<&Signer> {
        let of_attestations = self.attestations.iter().flat_map(|attestation| signers_of(&attestation.sets));
        signers_of(&self.sets).into_iter().chain(of_attestations).collect()
    }

    /// Where an attestor's evidence is: its own repository, the entry's, or the image's.
    pub(super) fn evidence_repository<'a>(
        &'a self,
        own: Option<&'a Repository>,
        image: &'a Repository,
    ) -> &'a Repository {
        own.or(self.repository.as_ref()).unwrap_or(image)
    }

    /// Fills in what follows from everything else: the clock and the fingerprints.
    pub(super) fn sealed(mut self) -> Self {
        self.clock =
            self.conditions().fold(Clock::Ignored, |clock, conditions| match conditions.reads().clock {
                Clock::Read => Clock::Read,
                Clock::Ignored => clock,
            });
        let mut trust = BTreeSet::new();
        for signer in self.signers() {
            match &signer.attestor {
                Ok(attestor) => trust.extend(attestor.trust().iter().map(ToString::to_string)),
                Err(_) => drop(trust.insert(NO_TRUST_ROOT.to_owned())),
            }
        }
        let sets: Vec<_> = self.sets.iter().map(describe).collect();
        let attestations: Vec<_> = self
            .attestations
            .iter()
            .map(|attestation| {
                let sets: Vec<_> = attestation.sets.iter().map(describe).collect();
                let conditions = attestation.conditions.as_ref().map(Conditions::describe);
                json!({ "type": attestation.predicate_type, "name": attestation.name, "sets": sets,
                        "conditions": conditions })
            })
            .collect();
        let denies: Vec<_> = self.denies.iter().map(|deny| deny.conditions.describe()).collect();
        // serde_json's maps are sorted, so this text is canonical.
        let text = json!({
            "schema": FINGERPRINT_SCHEMA, "policy": self.policy, "rule": self.rule, "index": self.index,
            "references": self.references, "skipped": self.skipped, "forms": self.forms, "oci11": self.cosign_oci11,
            "sets": sets, "attestations": attestations, "denies": denies,
            "repository": self.repository, "mutateDigest": self.mutate_digest, "verifyDigest": self.verify_digest,
            "required": self.required, "form": self.unfilled.as_ref().map(Unfilled::describe),
            "variables": self.has_conditions().then_some(&self.variables),
            "extractors": self.extractors.describe(),
        });
        self.fingerprint = Digest::of(text.to_string().as_bytes());
        self.trust_fingerprint = if trust.is_empty() {
            None
        } else {
            let all: Vec<String> = trust.into_iter().collect();
            Some(Digest::of(all.join("\n").as_bytes()))
        };
        self
    }
}

impl AttestorSet {
    fn each_signer(&mut self, change: &mut dyn FnMut(&mut Signer)) {
        for attestor in &mut self.attestors {
            match attestor {
                Attestor::Signer(signer) => change(signer),
                Attestor::Set(nested) => nested.each_signer(change),
            }
        }
    }
}

fn describe(set: &AttestorSet) -> Value {
    let attestors: Vec<Value> = set
        .attestors
        .iter()
        .map(|attestor| match attestor {
            Attestor::Set(nested) => describe(nested),
            Attestor::Signer(signer) => {
                // What cannot be judged satisfies nothing, so it need not be told from others like it.
                let attestor =
                    signer.attestor.as_ref().map_or_else(|_| json!(NO_TRUST_ROOT), |found| found.describe());
                let besides = signer.besides.as_ref().map(|besides| besides.describe());
                json!({ "kind": signer.kind, "attestor": attestor, "besides": besides, "repository": signer.repository,
                        "rekor": signer.lookup.as_ref().map(|lookup| &lookup.url) })
            }
        })
        .collect();
    json!({ "required": set.required, "attestors": attestors })
}

impl Unfilled {
    fn describe(&self) -> Value {
        match self {
            Self::UntilPull(blank) => blank.form.element.clone(),
            Self::Never(fault) => json!(fault.message),
        }
    }
}

/// The signers of `sets`, at any depth, in order.
fn signers_of(sets: &[AttestorSet]) -> Vec<&Signer> {
    let mut found = Vec::new();
    for attestor in sets.iter().flat_map(|set| &set.attestors) {
        match attestor {
            Attestor::Signer(signer) => found.push(signer),
            Attestor::Set(nested) => found.append(&mut signers_of(std::slice::from_ref(nested))),
        }
    }
    found
}

/// Characters of a message that are kept.
const MESSAGE_LIMIT: usize = 1024;
/// Stands for the trust of attestors that need a trust root that is not there; no fingerprint of a
/// real one looks like it.
const NO_TRUST_ROOT: &str = "no trust root";

/// Changes when the meaning of a stored verdict changes.
const FINGERPRINT_SCHEMA: u32 = 4;
