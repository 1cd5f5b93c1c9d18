//! One verification: evidence from disk while it is fresh, else from the registry, judged entry by
//! entry, within one time limit and one of a bounded number of slots.
//!
//! A slot is held while evidence is fetched and verified, never while something is forwarded; waiting
//! for one does not count against the limit. Where the registry cannot be reached, what is stored is
//! verified again offline, up to `cache.stale` (rule O1).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::audit::Audit;
use super::evidence::{Fetcher, Form, Stored, found, restored};
use super::{Outcome, PullRequest, judged};
use crate::cache::{Age, Stamp, Store, VerdictKey};
use crate::oci::Digest;
use crate::outcome::{Contact, Fault, FaultReason};
use crate::policy::evaluate::{Resolution, Source};
use crate::policy::{Entry, EntryVerdict, Evidence, Explanation, Forms, judge};
use crate::registry::{self, Budget, ManifestAccess, ResolvedImage};

/// What is to be verified.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) registry: Arc<registry::Client>,
    pub(super) store: Store,
    pub(super) slots: Arc<Semaphore>,
    pub(super) audit: Arc<Audit>,
    pub(super) limit: Duration,
    pub(super) request: PullRequest,
    pub(super) digest: Digest,
    pub(super) resolution: Resolution,
    pub(super) wanted: Vec<(Arc<Entry>, VerdictKey)>,
}

impl Job {
    /// Verifies every wanted entry. Allowing verdicts and the evidence of all are kept.
    pub(super) async fn run(self) -> Vec<Outcome> {
        let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return self.wanted.iter().map(|(entry, _)| broken(entry)).collect();
        };
        self.audit.verification();
        match tokio::time::timeout(self.limit, self.verify()).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                let fault = timed_out(self.request.reference.text());
                self.wanted.iter().map(|(entry, _)| undecided(entry, fault.clone())).collect()
            }
        }
    }

    async fn verify(&self) -> Vec<Outcome> {
        let repository = self.request.reference.repository();
        let kept = self.store.evidence(repository, &self.digest).await;
        let stored = kept.as_ref().map_or_else(Evidence::default, |kept| decode(&kept.pieces));
        if let Some(kept) = kept.as_ref().filter(|kept| kept.age == Age::Fresh) {
            let outcomes = self.judge_all(&stored, Source::Fresh);
            if outcomes.iter().all(is_satisfied) {
                // No younger than what it rests on.
                self.keep_verdicts(&outcomes, kept.at);
                return outcomes;
            }
        }
        let mut evidence = Evidence::default();
        let (mut outcomes, contact) = self.ask_registry(&mut evidence).await;
        if contact == Contact::Answered {
            outcomes.iter_mut().for_each(answered);
        }
        let outcomes = match kept.map(|kept| kept.age) {
            Some(Age::Fresh | Age::Stale) => self.with_stored(outcomes, &stored),
            Some(Age::Expired) | None => outcomes,
        };
        let pieces = encode(&found(&evidence));
        if !pieces.is_empty() && outcomes.iter().any(is_satisfied) {
            self.store.put_evidence(repository, &self.digest, pieces);
        }
        self.keep_verdicts(&outcomes, self.store.now());
        outcomes
    }

    /// The legacy form first; bundles where an entry asks for them. Also whether the image's own
    /// registry answered anything in this request: then no fault passes (rule D4).
    async fn ask_registry(&self, evidence: &mut Evidence) -> (Vec<Outcome>, Contact) {
        let image =
            ResolvedImage { repository: self.request.reference.repository().clone(), digest: self.digest };
        let budget = Budget::verdict();
        let (manifest, contact) = match self.resolution {
            Resolution::Answered => (ManifestAccess::Served, Contact::Answered),
            Resolution::NotAsked => self.probe(&image).await,
        };
        let fetcher = Fetcher {
            registry: &self.registry,
            image: &image,
            credentials: &self.request.credentials,
            manifest,
            budget: &budget,
        };
        let entries: Vec<&Entry> = self.wanted.iter().map(|(entry, _)| &**entry).collect();
        let legacy: Vec<&Entry> =
            entries.iter().copied().filter(|entry| entry.forms() != Forms::Bundles).collect();
        fetcher.add(Form::Legacy, &legacy, evidence).await;
        let outcomes = self.judge_all(evidence, Source::Verified);
        let wants_bundles: Vec<&Entry> = entries
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.judged.verdict == EntryVerdict::NeedsBundles)
            .map(|(entry, _)| *entry)
            .collect();
        if wants_bundles.is_empty() {
            return (outcomes, contact);
        }
        fetcher.add(Form::Bundles, &wants_bundles, evidence).await;
        (self.judge_all(evidence, Source::Verified), contact)
    }

    /// A digest reference was not resolved, so whether the registry lets these credentials in is not
    /// known: it decides what a 401 or 403 for a signature means (rule D4).
    async fn probe(&self, image: &ResolvedImage) -> (ManifestAccess, Contact) {
        match self.registry.manifest(&image.repository, &image.digest, &self.request.credentials).await {
            Ok(_) => (ManifestAccess::Served, Contact::Answered),
            Err(fault) => (ManifestAccess::Unknown, fault.contact),
        }
    }

    fn judge_all(&self, evidence: &Evidence, source: Source) -> Vec<Outcome> {
        self.wanted.iter().map(|(entry, _)| self.judge_one(entry, evidence, source)).collect()
    }

    fn judge_one(&self, entry: &Entry, evidence: &Evidence, source: Source) -> Outcome {
        let (verdict, explanation) =
            judge(entry, &self.request.reference, &self.digest, evidence, SystemTime::now());
        Outcome { judged: judged(entry, verdict, source), explanation }
    }

    /// Rule O1: what could not be asked is judged by what is stored.
    fn with_stored(&self, outcomes: Vec<Outcome>, stored: &Evidence) -> Vec<Outcome> {
        let away = |outcome: &Outcome| match &outcome.judged.verdict {
            EntryVerdict::Undecided(fault) => fault.contact == Contact::None,
            EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_) | EntryVerdict::NeedsBundles => false,
        };
        outcomes
            .into_iter()
            .zip(&self.wanted)
            .map(|(outcome, (entry, _))| {
                if !away(&outcome) {
                    return outcome;
                }
                let offline = self.judge_one(entry, stored, Source::Stale);
                if is_satisfied(&offline) { offline } else { outcome }
            })
            .collect()
    }

    /// Only what was verified now makes a verdict young again.
    fn keep_verdicts(&self, outcomes: &[Outcome], at: Stamp) {
        for (outcome, (entry, key)) in outcomes.iter().zip(&self.wanted) {
            if let EntryVerdict::Satisfied(satisfied) = &outcome.judged.verdict
                && outcome.judged.source != Source::Stale
                && entry.needs_evidence()
            {
                self.store.put_verdict(key.clone(), at, satisfied.holds_until());
            }
        }
    }
}

/// The fault of a verification that took too long. The text carries no time (rule E2).
pub(super) fn timed_out(image: &str) -> Fault {
    Fault::new(FaultReason::Timeout, format!("{image}: verification took too long"))
}

/// The outcome of a verification that panicked or was never run.
pub(super) fn broken(entry: &Entry) -> Outcome {
    undecided(entry, Fault::new(FaultReason::Internal, "verification did not end"))
}

fn undecided(entry: &Entry, fault: Fault) -> Outcome {
    let explanation = Explanation {
        rule: format!("{}/{}", entry.policy(), entry.rule()),
        entry: entry.index(),
        attestors: Vec::new(),
    };
    Outcome { judged: judged(entry, EntryVerdict::Undecided(fault), Source::Verified), explanation }
}

/// Marks the fault of an outcome as one in which somebody answered.
fn answered(outcome: &mut Outcome) {
    match &mut outcome.judged.verdict {
        EntryVerdict::Undecided(fault) => fault.contact = Contact::Answered,
        EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_) | EntryVerdict::NeedsBundles => {}
    }
}

const fn is_satisfied(outcome: &Outcome) -> bool {
    matches!(outcome.judged.verdict, EntryVerdict::Satisfied(_))
}

fn encode(pieces: &[Stored]) -> Vec<Vec<u8>> {
    pieces.iter().filter_map(|piece| serde_json::to_vec(piece).ok()).collect()
}

/// A piece that does not decode is left out: evidence that is missing never satisfies anything.
fn decode(pieces: &[Vec<u8>]) -> Evidence {
    restored(pieces.iter().filter_map(|piece| serde_json::from_slice(piece).ok()).collect())
}
