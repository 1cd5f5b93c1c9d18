//! Fetching what verdicts rest on, three-valued: found, absent and unreachable stay apart all the way
//! into the verdict.
//!
//! What is asked of the registry is the union over the entries, each repository once and nothing that
//! no entry asks for. In this order, each step only for entries that the ones before did not satisfy:
//!
//! 1. in parallel: the tags `.sig` where an entry has attestors and `.att` where it has attestations, and the
//!    list of referrers where an entry counts bundles alone, or where only bundles satisfied before ([`Bundled`])
//! 2. the list of referrers: bundles, and cosign's experimental form
//! 3. what hints (predicate types in annotations) said is something else
//! 4. the transparency log, for layers that do not carry their entry: from stored evidence of the same
//!    layer, else from the log that the policy names
//!
//! Steps 3 and 4 add to what is there. Where they meet a fault, what was denied becomes undecided.
//!
//! The form of a piece in the cache: one line of JSON (`form`, `repository`, `kind`, `annotations`),
//! then the exact bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::oci::Repository;
use crate::outcome::{Contact, Fault, FaultReason, Lookup};
use crate::policy::{Entry, Evidence, Forms, RekorLookup};
use crate::registry::{
    self, Budget, Credentials, EvidenceRequest, Fetched, LOG_BUNDLE, Later, LogQuestion, Looked,
    ManifestAccess, ReferrerForms, ResolvedImage, Rest, SIGNATURE_PREDICATE, Wanted,
};
use crate::sigstore::SignatureEvidence;

/// Fetches the evidence of one image.
pub(super) struct Fetcher<'a> {
    pub(super) registry: &'a registry::Client,
    pub(super) image: &'a ResolvedImage,
    pub(super) credentials: &'a Credentials,
    /// Whether the image's own repository served its manifest in this request.
    pub(super) manifest: ManifestAccess,
    /// Whether the image's own registry answered anything; none if it was not asked.
    pub(super) contact: Option<Contact>,
    pub(super) budget: &'a Budget,
    /// What was left for later, and where it belongs.
    pub(super) rests: Vec<(Form, Repository, Rest)>,
    /// Where one host said that nothing is there, and another could not say.
    pub(super) doubts: BTreeMap<Repository, Fault>,
    /// The hosts that let a time run out, with what was said of it. They are not asked again for this
    /// verdict: that would only take as long again, step by step.
    pub(super) slow: BTreeMap<String, Fault>,
}

/// Where evidence is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// `.sig` tags.
    Legacy,
    /// `.att` tags.
    Attestations,
    /// The list of referrers.
    Bundles,
}

/// What a step added to the evidence.
#[derive(Debug, Default)]
pub(super) struct More {
    /// The repositories of which more is known.
    pub(super) added: BTreeSet<Repository>,
    /// Where it could not be found out.
    pub(super) faults: BTreeMap<Repository, Fault>,
}

/// One look-up.
pub(super) struct Ask {
    form: Form,
    pub(super) repository: Repository,
    wanted: Wanted,
}

/// The repositories of images whose signatures were found among the referrers and not at tags. Their lists
/// are asked for along with the tags, one step sooner. It changes no answer, only the order.
#[derive(Debug, Default)]
pub(super) struct Bundled(Mutex<BTreeSet<Repository>>);

impl Bundled {
    pub(super) fn holds(&self, repository: &Repository) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(repository)
    }

    /// Learns from what satisfied.
    pub(super) fn note(&self, repository: &Repository, evidence: &Evidence) {
        let found = |pieces: &BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>| {
            pieces.values().any(|lookup| matches!(lookup, Lookup::Found(_)))
        };
        let tagged = found(&evidence.legacy) || found(&evidence.attestations);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tagged || !found(&evidence.bundles) {
            known.remove(repository);
        } else if known.contains(repository) || known.len() < BUNDLED {
            known.insert(repository.clone());
        }
    }
}

/// Repositories remembered in [`Bundled`]; a hundred bytes each.
const BUNDLED: usize = 4096;

impl Fetcher<'_> {
    /// Steps 1 and 2: looks up what is named and was not looked up before.
    pub(super) async fn add(&mut self, mut asks: Vec<Ask>, evidence: &mut Evidence) {
        asks.retain(|ask| !ask.form.map(evidence).contains_key(&ask.repository));
        let answers = join_all(asks.iter().map(|ask| self.ask(ask))).await;
        for (ask, answer) in asks.into_iter().zip(answers) {
            self.note_contact(&ask.repository, &answer);
            if let Some(fault) = answer.doubt {
                self.doubts.entry(ask.repository.clone()).or_insert(fault);
            }
            let lookup = match answer.lookup {
                Lookup::Found(Fetched { pieces, rest }) => {
                    if !rest.is_empty() {
                        self.rests.push((ask.form, ask.repository.clone(), rest));
                    }
                    Lookup::Found(pieces)
                }
                Lookup::Absent => Lookup::Absent,
                Lookup::Unreachable(fault) => {
                    self.note_slow(&ask.repository, Some(&fault));
                    Lookup::Unreachable(fault)
                }
            };
            ask.form.map(evidence).insert(ask.repository, lookup);
        }
    }

    /// The look-ups for the tags that `entries` name.
    pub(super) fn tags(&self, entries: &[&Entry]) -> Vec<Ask> {
        let none = || Wanted { forms: ReferrerForms::All, predicates: BTreeSet::new() };
        let mut asks: Vec<Ask> = Vec::new();
        let tagged = entries.iter().filter(|entry| entry.forms() != Forms::Bundles);
        let signatures: BTreeSet<Repository> =
            tagged.clone().flat_map(|entry| entry.repositories(&self.image.repository)).collect();
        asks.extend(signatures.into_iter().map(|repository| Ask {
            form: Form::Legacy,
            repository,
            wanted: none(),
        }));
        let mut attestations: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
        for (repository, predicates) in tagged.flat_map(|entry| entry.attestations(&self.image.repository)) {
            attestations.entry(repository).or_default().extend(predicates);
        }
        asks.extend(attestations.into_iter().map(|(repository, predicates)| Ask {
            form: Form::Attestations,
            repository,
            wanted: Wanted { predicates, ..none() },
        }));
        asks
    }

    /// The look-ups for the lists of referrers that `entries` name.
    pub(super) fn referrers(&self, entries: &[&Entry]) -> Vec<Ask> {
        let mut asks: BTreeMap<Repository, Wanted> = BTreeMap::new();
        for entry in entries {
            let forms = match entry.forms() {
                Forms::Legacy => continue,
                Forms::LegacyThenBundles => ReferrerForms::All,
                Forms::LegacyAndArtifacts => ReferrerForms::Artifacts,
                Forms::Bundles => ReferrerForms::Bundles,
            };
            let signature = || BTreeSet::from([SIGNATURE_PREDICATE.to_owned()]);
            let signatures = entry.repositories(&self.image.repository).into_iter();
            let places = signatures.map(|repository| (repository, signature()));
            for (repository, predicates) in places.chain(entry.attestations(&self.image.repository)) {
                let wanted = asks.entry(repository).or_insert(Wanted { forms, predicates: BTreeSet::new() });
                wanted.predicates.extend(predicates);
                if wanted.forms != forms {
                    wanted.forms = ReferrerForms::All;
                }
            }
        }
        asks.into_iter().map(|(repository, wanted)| Ask { form: Form::Bundles, repository, wanted }).collect()
    }

    /// Step 3: reads what was left for later in the repositories that `entries` name.
    pub(super) async fn add_rest(&mut self, entries: &[&Entry], evidence: &mut Evidence) -> More {
        let named: BTreeSet<Repository> = entries.iter().flat_map(|entry| self.places(entry)).collect();
        let (wanted, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rests)
            .into_iter()
            .partition(|(_, repository, _)| named.contains(repository));
        self.rests = others;
        let this = &*self;
        let answers = join_all(wanted.into_iter().map(|(form, repository, rest)| async move {
            let later = match this.slow.get(repository.host()) {
                Some(fault) => Later { fault: Some(fault.clone()), ..Later::default() },
                None => this.registry.rest(this.request(&repository), rest).await,
            };
            (form, repository, later)
        }))
        .await;
        let mut more = More::default();
        for (form, repository, Later { pieces, fault }) in answers {
            self.note_slow(&repository, fault.as_ref());
            if !pieces.is_empty() {
                extend(form.map(evidence), &repository, pieces);
                more.added.insert(repository.clone());
            }
            if let Some(fault) = fault {
                more.faults.insert(repository, fault);
            }
        }
        more
    }

    /// Step 4: attaches log entries to the layers that have none.
    pub(super) async fn add_log_entries(
        &self,
        entries: &[&Entry],
        stored: &Evidence,
        evidence: &mut Evidence,
    ) -> More {
        let mut more = More::default();
        let known = &*evidence;
        let answers: Vec<_> = stream::iter(self.questions(entries, known))
            .map(|question| async move {
                let layer = question.layer(known)?;
                let answer = match stored_log_entries(stored, &question.repository, layer) {
                    found if found.is_empty() => {
                        let (url, key) = (question.lookup.url.as_str(), question.lookup.key.as_ref());
                        self.registry.log_entries(LogQuestion { url, evidence: layer, key }).await
                    }
                    found => Lookup::Found(found),
                };
                Some((question, answer))
            })
            .buffered(QUESTIONS_AT_ONCE)
            .collect()
            .await;
        for (question, answer) in answers.into_iter().flatten() {
            match answer {
                Lookup::Found(bundles) => {
                    let size = question.layer(evidence).map_or(0, |layer| bytes(layer).len());
                    let pieces: Vec<_> = bundles
                        .into_iter()
                        .take_while(|_| self.budget.take(size).is_some())
                        .filter_map(|entry| with_log_entry(question.layer(evidence)?, entry))
                        .collect();
                    extend(question.form.map(evidence), &question.repository, pieces);
                    more.added.insert(question.repository);
                }
                Lookup::Absent => {}
                Lookup::Unreachable(fault) => {
                    more.faults.insert(question.repository, fault);
                }
            }
        }
        more
    }

    /// The layers to be looked up, each once a log and key.
    fn questions(&self, entries: &[&Entry], evidence: &Evidence) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for entry in entries {
            for lookup in entry.rekor_lookups() {
                for form in Form::ALL {
                    for repository in self.places(entry) {
                        let Some(Lookup::Found(pieces)) = form.of(evidence).get(&repository) else {
                            continue;
                        };
                        let bare = pieces.iter().enumerate().filter(|(_, piece)| lacks_log_entry(piece));
                        questions.extend(bare.map(|(index, _)| Question {
                            form,
                            repository: repository.clone(),
                            index,
                            lookup: lookup.clone(),
                        }));
                        // A bound refuses only what was not satisfied before it.
                        questions.truncate(QUESTIONS);
                    }
                }
            }
        }
        questions
    }

    /// Everything that is asked of a host of the image's registry says whether that is there.
    fn note_contact(&mut self, repository: &Repository, answer: &Looked) {
        if repository.host() != self.image.repository.host() {
            return;
        }
        let contact = match &answer.lookup {
            Lookup::Found(_) | Lookup::Absent => Contact::Answered,
            Lookup::Unreachable(fault) => fault.contact,
        };
        if self.contact != Some(Contact::Answered) {
            self.contact = Some(contact);
        }
    }

    pub(super) fn note_slow(&mut self, repository: &Repository, fault: Option<&Fault>) {
        if let Some(fault) = fault.filter(|fault| fault.reason == FaultReason::Timeout) {
            self.slow.entry(repository.host().to_owned()).or_insert_with(|| fault.clone());
        }
    }

    async fn ask(&self, ask: &Ask) -> Looked {
        if let Some(fault) = self.slow.get(ask.repository.host()) {
            return Lookup::Unreachable(fault.clone()).into();
        }
        let request = self.request(&ask.repository);
        match ask.form {
            Form::Legacy => self.registry.signatures(request).await,
            Form::Attestations => self.registry.attestations(request, &ask.wanted.predicates).await,
            Form::Bundles => self.registry.referrers(request, &ask.wanted).await,
        }
    }

    fn request<'b>(&'b self, repository: &'b Repository) -> EvidenceRequest<'b> {
        // Another repository has shown nothing yet about these credentials, and another registry is not
        // who they are for: it would only have to ask for them.
        let own = *repository == self.image.repository;
        let theirs = repository.host() == self.image.repository.host();
        EvidenceRequest {
            repository,
            digest: &self.image.digest,
            credentials: if theirs { self.credentials } else { &Credentials::Anonymous },
            manifest: if own { self.manifest } else { ManifestAccess::Unknown },
            budget: self.budget,
        }
    }

    /// Every repository that an entry looks in.
    pub(super) fn places(&self, entry: &Entry) -> BTreeSet<Repository> {
        places(entry, &self.image.repository)
    }
}

/// Every repository that an entry looks in for an image of this repository.
pub(super) fn places(entry: &Entry, repository: &Repository) -> BTreeSet<Repository> {
    let mut places: BTreeSet<Repository> = entry.repositories(repository).into_iter().collect();
    places.extend(entry.attestations(repository).into_keys());
    places
}

impl Form {
    const ALL: [Self; 3] = [Self::Legacy, Self::Attestations, Self::Bundles];

    const fn of(self, evidence: &Evidence) -> &BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>> {
        match self {
            Self::Legacy => &evidence.legacy,
            Self::Attestations => &evidence.attestations,
            Self::Bundles => &evidence.bundles,
        }
    }

    const fn map(self, evidence: &mut Evidence) -> &mut BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>> {
        match self {
            Self::Legacy => &mut evidence.legacy,
            Self::Attestations => &mut evidence.attestations,
            Self::Bundles => &mut evidence.bundles,
        }
    }
}

/// A layer to be looked up in a log, by its place: attestations are too large to be copied for it.
struct Question {
    form: Form,
    repository: Repository,
    index: usize,
    lookup: RekorLookup,
}

impl Question {
    fn layer<'a>(&self, evidence: &'a Evidence) -> Option<&'a SignatureEvidence> {
        match self.form.of(evidence).get(&self.repository)? {
            Lookup::Found(pieces) => pieces.get(self.index),
            Lookup::Absent | Lookup::Unreachable(_) => None,
        }
    }
}

/// The log entries that stored evidence has for the same layer: whoever gave them, they prove what
/// they prove.
fn stored_log_entries(stored: &Evidence, repository: &Repository, layer: &SignatureEvidence) -> Vec<String> {
    let mut found = Vec::new();
    for form in Form::ALL {
        let Some(Lookup::Found(pieces)) = form.of(stored).get(repository) else {
            continue;
        };
        let same = pieces.iter().filter(|piece| is_same_layer(piece, layer));
        found.extend(same.filter_map(|piece| annotations(piece)?.get(LOG_BUNDLE).cloned()));
    }
    found
}

/// Whether two layers differ in their log entry at most.
fn is_same_layer(one: &SignatureEvidence, other: &SignatureEvidence) -> bool {
    let rest = |piece| {
        annotations(piece)
            .map(|annotations| annotations.iter().filter(|(name, _)| *name != LOG_BUNDLE).collect::<Vec<_>>())
    };
    std::mem::discriminant(one) == std::mem::discriminant(other)
        && bytes(one) == bytes(other)
        && rest(one) == rest(other)
}

fn lacks_log_entry(piece: &SignatureEvidence) -> bool {
    annotations(piece).is_some_and(|annotations| !annotations.contains_key(LOG_BUNDLE))
}

fn with_log_entry(layer: &SignatureEvidence, entry: String) -> Option<SignatureEvidence> {
    let mut piece = layer.clone();
    match &mut piece {
        SignatureEvidence::CosignLayer { annotations, .. }
        | SignatureEvidence::AttestationLayer { annotations, .. } => {
            annotations.insert(LOG_BUNDLE.to_owned(), entry);
            Some(piece)
        }
        SignatureEvidence::Bundle { .. } => None,
    }
}

const fn annotations(piece: &SignatureEvidence) -> Option<&BTreeMap<String, String>> {
    match piece {
        SignatureEvidence::CosignLayer { annotations, .. }
        | SignatureEvidence::AttestationLayer { annotations, .. } => Some(annotations),
        SignatureEvidence::Bundle { .. } => None,
    }
}

fn bytes(piece: &SignatureEvidence) -> &[u8] {
    match piece {
        SignatureEvidence::CosignLayer { payload, .. } => payload,
        SignatureEvidence::AttestationLayer { envelope, .. } => envelope,
        SignatureEvidence::Bundle { json } => json,
    }
}

/// Adds pieces to what a repository has.
fn extend(
    map: &mut BTreeMap<Repository, Lookup<Vec<SignatureEvidence>>>,
    repository: &Repository,
    more: Vec<SignatureEvidence>,
) {
    match map.entry(repository.clone()).or_insert_with(|| Lookup::Found(Vec::new())) {
        // Two hosts of one registry may well have the same ones, and only so many are verified.
        Lookup::Found(pieces) => {
            for piece in more {
                if !pieces.contains(&piece) {
                    pieces.push(piece);
                }
            }
        }
        // Nothing is left for later, and no layer is there, unless something was found.
        Lookup::Absent | Lookup::Unreachable(_) => {}
    }
}

/// The evidence in one list: what the cache keeps (rule C6).
pub(super) fn encoded(evidence: &Evidence) -> Vec<Vec<u8>> {
    let forms = [
        (Form::Legacy, &evidence.legacy),
        (Form::Attestations, &evidence.attestations),
        (Form::Bundles, &evidence.bundles),
    ];
    let mut all = Vec::new();
    for (form, map) in forms {
        for (repository, lookup) in map {
            if let Lookup::Found(pieces) = lookup {
                all.extend(pieces.iter().filter_map(|piece| encode(form, repository, piece)));
            }
        }
    }
    all
}

/// Of what is stored, what was not asked for this time.
pub(super) fn not_asked(stored: &Evidence, asked: &Evidence) -> Evidence {
    stored_where(stored, asked, |answer| answer.is_none())
}

/// Of what is stored, what could not be reached this time.
pub(super) fn not_reached(stored: &Evidence, asked: &Evidence) -> Evidence {
    stored_where(stored, asked, |answer| matches!(answer, Some(Lookup::Unreachable(_))))
}

/// What was asked, with what is stored in the place of what could not be reached.
pub(super) fn asked_or_stored(asked: &Evidence, stored: &Evidence) -> Evidence {
    let (mut known, mut kept) = (asked.clone(), not_reached(stored, asked));
    for form in Form::ALL {
        form.map(&mut known).append(form.map(&mut kept));
    }
    known
}

fn stored_where(
    stored: &Evidence,
    asked: &Evidence,
    stays: impl Fn(Option<&Lookup<Vec<SignatureEvidence>>>) -> bool,
) -> Evidence {
    let mut rest = stored.clone();
    for form in Form::ALL {
        form.map(&mut rest).retain(|repository, _| stays(form.of(asked).get(repository)));
    }
    rest
}

/// What of it is in one of these repositories.
pub(super) fn kept_in(mut evidence: Evidence, places: &BTreeSet<Repository>) -> Evidence {
    for form in Form::ALL {
        form.map(&mut evidence).retain(|repository, _| places.contains(repository));
    }
    evidence
}

/// The same, with everything else in these repositories known to be absent.
pub(super) fn with_the_rest_absent(mut evidence: Evidence, places: &BTreeSet<Repository>) -> Evidence {
    for form in Form::ALL {
        for place in places {
            form.map(&mut evidence).entry(place.clone()).or_insert(Lookup::Absent);
        }
    }
    evidence
}

/// Stored pieces as evidence again. Repositories without a piece count as not asked yet. A piece that
/// does not decode is left out: evidence that is missing never satisfies anything.
pub(super) fn decoded(pieces: &[Vec<u8>]) -> Evidence {
    let mut evidence = Evidence::default();
    for (form, repository, piece) in pieces.iter().filter_map(|piece| decode(piece)) {
        extend(form.map(&mut evidence), &repository, vec![piece]);
    }
    evidence
}

fn encode(form: Form, repository: &Repository, piece: &SignatureEvidence) -> Option<Vec<u8>> {
    let kind = match piece {
        SignatureEvidence::CosignLayer { .. } => PieceKind::Signature,
        SignatureEvidence::AttestationLayer { .. } => PieceKind::Attestation,
        SignatureEvidence::Bundle { .. } => PieceKind::Bundle,
    };
    let annotations = annotations(piece).cloned().unwrap_or_default();
    let head = PieceHead { form, repository: repository.clone(), kind, annotations };
    let mut encoded = serde_json::to_vec(&head).ok()?;
    encoded.push(b'\n');
    encoded.extend_from_slice(bytes(piece));
    Some(encoded)
}

fn decode(encoded: &[u8]) -> Option<(Form, Repository, SignatureEvidence)> {
    // JSON on one line has no line feed in it.
    let end = encoded.iter().position(|byte| *byte == b'\n')?;
    let (head, bytes) = encoded.split_at_checked(end)?;
    let bytes = bytes.get(1..)?.to_vec();
    let PieceHead { form, repository, kind, annotations } = serde_json::from_slice(head).ok()?;
    let piece = match kind {
        PieceKind::Signature => SignatureEvidence::CosignLayer { payload: bytes, annotations },
        PieceKind::Attestation => SignatureEvidence::AttestationLayer { envelope: bytes, annotations },
        PieceKind::Bundle => SignatureEvidence::Bundle { json: bytes },
    };
    Some((form, repository, piece))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceHead {
    form: Form,
    repository: Repository,
    kind: PieceKind,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PieceKind {
    Signature,
    Attestation,
    Bundle,
}

/// Log look-ups for one verdict.
const QUESTIONS: usize = 32;
const QUESTIONS_AT_ONCE: usize = 4;

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
