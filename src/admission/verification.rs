//! One verification: evidence from disk while it is fresh, else from the registry, judged entry by
//! entry, within one time limit and one of a bounded number of slots.
//!
//! A slot is held while evidence is fetched and verified, never while something is forwarded; waiting
//! for one does not count against the limit. Where the registry cannot be reached, what is stored is
//! verified again offline, up to `cache.stale` (rule O1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::audit::Audit;
use super::evidence::{
    Bundled, Fetcher, More, asked_or_stored, decoded, encoded, not_asked, not_reached, with_the_rest_absent,
};
use super::slots::Slots;
use super::{Outcome, PullRequest, judged};
use crate::cache::{Age, Kept, Origin, Stamp, Store, VerdictKey};
use crate::oci::{Digest, Repository};
use crate::outcome::{Contact, DenialReason, Fault, FaultReason};
use crate::policy::evaluate::{Resolution, Source};
use crate::policy::{Entry, EntryVerdict, Evidence, Explanation, Forms, Pull, judge};
use crate::registry::{self, Budget, ManifestAccess, ResolvedImage};

/// What is to be verified.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) registry: Arc<registry::Client>,
    pub(super) store: Store,
    pub(super) slots: Arc<Slots>,
    pub(super) audit: Arc<Audit>,
    pub(super) limit: Duration,
    pub(super) request: PullRequest,
    pub(super) digest: Digest,
    pub(super) resolution: Resolution,
    /// Why the registry gave no digest, if this is the one last verified.
    pub(super) resolve_fault: Option<Fault>,
    /// Whether the image's own registry answered anything before, in this request.
    pub(super) contact: Contact,
    pub(super) wanted: Vec<(Arc<Entry>, VerdictKey)>,
    pub(super) bundled: Arc<Bundled>,
}

impl Job {
    /// Verifies every wanted entry. Allowing verdicts and the evidence of all are kept.
    pub(super) async fn run(self) -> Vec<Outcome> {
        let Some(_slot) = self.slots.take(self.request.reference.repository().host()).await else {
            return self.wanted.iter().map(|(entry, _)| broken(entry)).collect();
        };
        self.audit.verification();
        match tokio::time::timeout(self.limit, self.verify()).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                let fault = timed_out();
                self.wanted.iter().map(|(entry, _)| undecided(entry, fault.clone())).collect()
            }
        }
    }

    /// Judges by `evidence` alone: what of it is not in a repository of `looked_in` is not there. Nothing
    /// is kept.
    pub(super) async fn offline(self, evidence: Evidence, looked_in: BTreeSet<Repository>) -> Vec<Outcome> {
        let Some(_slot) = self.slots.take(self.request.reference.repository().host()).await else {
            return self.wanted.iter().map(|(entry, _)| broken(entry)).collect();
        };
        self.judge_all(&with_the_rest_absent(evidence, &looked_in), Source::Stale)
    }

    async fn verify(&self) -> Vec<Outcome> {
        let repository = self.request.reference.repository();
        let kept = self.store.evidence(repository, &self.digest).await;
        let stored = kept.as_ref().map_or_else(Evidence::default, |kept| decoded(&kept.pieces));
        if let Some(kept) = kept.as_ref().filter(|kept| kept.age == Age::Fresh) {
            let outcomes = self.judge_all(&stored, Source::Fresh);
            if outcomes.iter().all(is_satisfied) {
                // No younger than what it rests on.
                self.keep_verdicts(&outcomes, kept.at);
                return outcomes;
            }
        }
        let mut evidence = Evidence::default();
        let (mut outcomes, contact) = self.ask_registry(&stored, &mut evidence).await;
        if contact == Contact::Answered || self.contact == Contact::Answered {
            outcomes.iter_mut().for_each(answered);
        }
        let outcomes = match kept.as_ref().map(|kept| kept.age) {
            Some(Age::Fresh | Age::Stale) => self.with_stored(outcomes, &evidence, &stored),
            Some(Age::Expired) | None => outcomes,
        };
        if outcomes.iter().any(is_satisfied) {
            self.keep_evidence(&evidence, kept.as_ref().map(|kept| (kept, &stored)));
        }
        self.keep_verdicts(&outcomes, self.store.now());
        outcomes
    }

    /// What was fetched takes the place of what was kept. Other entries may rest on what was not asked for
    /// now: while that is fresh it stays. So does what could not be reached now, as long as it serves. All of
    /// it is as old as that, and from where that is.
    fn keep_evidence(&self, fetched: &Evidence, kept: Option<(&Kept, &Evidence)>) {
        let mut pieces = encoded(fetched);
        if pieces.is_empty() {
            return;
        }
        let (mut at, mut origin) = (self.store.now(), Origin::Fetched);
        if let Some((kept, stored)) = kept {
            let mut others = encoded(&not_reached(stored, fetched));
            if kept.age == Age::Fresh {
                others.extend(encoded(&not_asked(stored, fetched)));
            }
            if !others.is_empty() {
                pieces.extend(others);
                (at, origin) = (kept.at, kept.origin);
            }
        }
        let repository = self.request.reference.repository();
        self.store.put_evidence_from(origin, repository, &self.digest, &pieces, at);
    }

    /// Step by step, each only for the entries that the ones before did not satisfy (`evidence` says
    /// which steps). Also whether the image's own registry answered anything in this request: then no
    /// fault passes (rule D4).
    async fn ask_registry(&self, stored: &Evidence, evidence: &mut Evidence) -> (Vec<Outcome>, Contact) {
        let image =
            ResolvedImage { repository: self.request.reference.repository().clone(), digest: self.digest };
        let budget = Budget::verdict();
        let mut fetcher = Fetcher {
            registry: &self.registry,
            image: &image,
            credentials: &self.request.credentials,
            manifest: match self.resolution {
                Resolution::Answered => ManifestAccess::Served,
                Resolution::NotAsked => ManifestAccess::NotAsked,
            },
            contact: (self.resolution == Resolution::Answered).then_some(Contact::Answered),
            budget: &budget,
            rests: Vec::new(),
            doubts: BTreeMap::new(),
            slow: BTreeMap::new(),
        };
        fetcher.note_slow(&image.repository, self.resolve_fault.as_ref());
        let entries: Vec<&Entry> = self.wanted.iter().map(|(entry, _)| &**entry).collect();
        let mut probed = self.add_first(&mut fetcher, &entries, evidence).await;
        let mut outcomes = self.judge_all(evidence, Source::Verified);
        let wants_referrers =
            self.entries_where(&outcomes, |outcome| outcome.judged.verdict == EntryVerdict::NeedsBundles);
        if !wants_referrers.is_empty() {
            fetcher.add(fetcher.referrers(&wants_referrers), evidence).await;
            let places = wants_referrers.iter().flat_map(|entry| fetcher.places(entry)).collect();
            self.judge_again(&mut outcomes, &fetcher, evidence, More { added: places, ..More::default() });
        }
        let unsatisfied = self.entries_where(&outcomes, may_gain);
        if !unsatisfied.is_empty() {
            let more = fetcher.add_rest(&unsatisfied, evidence).await;
            self.judge_again(&mut outcomes, &fetcher, evidence, more);
        }
        let unlogged = self.entries_where(&outcomes, may_gain);
        let unlogged: Vec<&Entry> =
            unlogged.into_iter().filter(|entry| !entry.rekor_lookups().is_empty()).collect();
        if !unlogged.is_empty() {
            let more = fetcher.add_log_entries(&unlogged, stored, evidence).await;
            self.judge_again(&mut outcomes, &fetcher, evidence, more);
        }
        for (outcome, (entry, _)) in outcomes.iter_mut().zip(&self.wanted) {
            let places = fetcher.places(entry);
            outcome.in_doubt = fetcher.doubts.keys().any(|repository| places.contains(repository));
        }
        if self.resolution == Resolution::NotAsked && outcomes.iter().any(lacks_evidence) {
            self.say_if_gone(&image, &mut outcomes).await;
        }
        if outcomes.iter().any(is_satisfied) {
            self.bundled.note(&image.repository, evidence);
        }
        if fetcher.contact != Some(Contact::Answered) && outcomes.iter().any(is_away) && probed.is_none() {
            // One path that keeps silent is not yet a registry that is away.
            probed = Some(self.probe(&image).await);
        }
        let answered = [fetcher.contact, probed].contains(&Some(Contact::Answered));
        let contact = if answered { Contact::Answered } else { Contact::None };
        (outcomes, contact)
    }

    /// Step 1. A registry that keeps silent for a while is asked for the manifest beside: when the look-up
    /// times out it is known, without another time-out, whether the registry is away.
    async fn add_first(
        &self,
        fetcher: &mut Fetcher<'_>,
        entries: &[&Entry],
        evidence: &mut Evidence,
    ) -> Option<Contact> {
        let mut asks = fetcher.tags(entries);
        let bundles_alone: Vec<&Entry> =
            entries.iter().copied().filter(|entry| entry.forms() == Forms::Bundles).collect();
        let at_once: BTreeSet<Repository> =
            bundles_alone.iter().flat_map(|entry| fetcher.places(entry)).collect();
        let bundled = self.bundled.holds(&fetcher.image.repository);
        // One list a repository, with all that any entry wants of it.
        let lists = fetcher.referrers(entries).into_iter();
        asks.extend(lists.filter(|ask| bundled || at_once.contains(&ask.repository)));
        if fetcher.contact.is_some() {
            fetcher.add(asks, evidence).await;
            return None;
        }
        let probe = self.probe(fetcher.image);
        tokio::pin!(probe);
        let probed = {
            let looking = fetcher.add(asks, evidence);
            tokio::pin!(looking);
            if tokio::time::timeout(SILENCE, &mut looking).await.is_ok() {
                return None;
            }
            tokio::select! {
                () = &mut looking => None,
                contact = &mut probe => {
                    looking.await;
                    Some(contact)
                }
            }
        };
        // One that answered the look-up is there, whatever becomes of the probe.
        match (probed, fetcher.contact) {
            (None, Some(Contact::Answered)) => None,
            (None, Some(Contact::None) | None) => Some(probe.await),
            (Some(_), _) => probed,
        }
    }

    /// A digest was not resolved. Where the registry does not have the image either, that is what is
    /// wrong, and not that nothing is stored for it. Asked before such a denial alone.
    async fn say_if_gone(&self, image: &ResolvedImage, outcomes: &mut [Outcome]) {
        let asking = self.registry.manifest(&image.repository, &image.digest, &self.request.credentials);
        let Some(fault) = asking.await.err().filter(|fault| fault.reason == FaultReason::ImageNotFound)
        else {
            return;
        };
        for outcome in outcomes.iter_mut().filter(|outcome| lacks_evidence(outcome)) {
            outcome.judged.verdict = EntryVerdict::Undecided(fault.clone());
        }
    }

    fn entries_where(&self, outcomes: &[Outcome], test: impl Fn(&Outcome) -> bool) -> Vec<&Entry> {
        let all = self.wanted.iter().zip(outcomes);
        all.filter(|(_, outcome)| test(outcome)).map(|((entry, _), _)| &**entry).collect()
    }

    /// Judges what was not satisfied by more evidence. What is denied although something about it could
    /// not be found out is undecided.
    fn judge_again(&self, outcomes: &mut [Outcome], fetcher: &Fetcher<'_>, evidence: &Evidence, more: More) {
        for (outcome, (entry, _)) in outcomes.iter_mut().zip(&self.wanted) {
            let places = fetcher.places(entry);
            if !is_satisfied(outcome) && !places.is_disjoint(&more.added) {
                *outcome = self.judge_one(entry, evidence, Source::Verified);
            }
            let fault = more.faults.iter().find(|(repository, _)| places.contains(repository));
            if let (true, Some((_, fault))) = (may_gain(outcome), fault)
                && matches!(outcome.judged.verdict, EntryVerdict::Denied(_))
            {
                outcome.judged.verdict = EntryVerdict::Undecided(fault.clone());
            }
        }
    }

    /// Whether the image's own registry answers anything: asked before it counts as away (rule D4). One that
    /// let the time run out when the tag was resolved is not asked again.
    async fn probe(&self, image: &ResolvedImage) -> Contact {
        if self.resolve_fault.as_ref().is_some_and(|fault| fault.reason == FaultReason::Timeout) {
            return Contact::None;
        }
        let (repository, credentials) = (&image.repository, &self.request.credentials);
        match self.registry.manifest(repository, &image.digest, credentials).await {
            Ok(_) => Contact::Answered,
            Err(fault) => fault.contact,
        }
    }

    fn judge_all(&self, evidence: &Evidence, source: Source) -> Vec<Outcome> {
        self.wanted.iter().map(|(entry, _)| self.judge_one(entry, evidence, source)).collect()
    }

    fn judge_one(&self, entry: &Entry, evidence: &Evidence, source: Source) -> Outcome {
        let PullRequest { reference, pod, .. } = &self.request;
        let pull = Pull { reference, digest: &self.digest, pod };
        let (verdict, explanation) = judge(entry, pull, evidence, SystemTime::now());
        Outcome { judged: judged(entry, verdict, source), explanation, in_doubt: false }
    }

    /// Rule O1: what could not be asked is judged by what is stored; what was, by what was `asked` now.
    fn with_stored(&self, outcomes: Vec<Outcome>, asked: &Evidence, stored: &Evidence) -> Vec<Outcome> {
        if !outcomes.iter().any(is_away) {
            return outcomes;
        }
        let known = asked_or_stored(asked, stored);
        outcomes
            .into_iter()
            .zip(&self.wanted)
            .map(|(outcome, (entry, _))| {
                if !is_away(&outcome) {
                    return outcome;
                }
                let offline = self.judge_one(entry, &known, Source::Stale);
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

/// How long a look-up may take before the registry is asked for something else.
const SILENCE: Duration = Duration::from_secs(1);

/// The fault of a verification that took too long. The text carries no time, and no name, which those
/// who share it may not have in common (rule E2).
pub(super) fn timed_out() -> Fault {
    Fault::new(FaultReason::Timeout, "verification took too long")
}

/// The outcome of a verification that panicked or was never run.
pub(super) fn broken(entry: &Entry) -> Outcome {
    undecided(entry, Fault::new(FaultReason::Internal, "verification did not end"))
}

pub(super) fn undecided(entry: &Entry, fault: Fault) -> Outcome {
    let explanation = Explanation {
        rule: format!("{}/{}", entry.policy(), entry.rule()),
        entry: entry.index(),
        attestors: Vec::new(),
        denies: Vec::new(),
    };
    let judged = judged(entry, EntryVerdict::Undecided(fault), Source::Verified);
    Outcome { judged, explanation, in_doubt: false }
}

/// Marks the fault of an outcome as one in which somebody answered.
pub(super) fn answered(outcome: &mut Outcome) {
    match &mut outcome.judged.verdict {
        EntryVerdict::Undecided(fault) => fault.contact = Contact::Answered,
        EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_) | EntryVerdict::NeedsBundles => {}
    }
}

/// Whether it is denied because nothing is stored for the image.
fn lacks_evidence(outcome: &Outcome) -> bool {
    match &outcome.judged.verdict {
        EntryVerdict::Denied(denial) => {
            matches!(denial.reason, DenialReason::SignatureNotFound | DenialReason::AttestationNotFound)
        }
        EntryVerdict::Satisfied(_) | EntryVerdict::NeedsBundles | EntryVerdict::Undecided(_) => false,
    }
}

/// Whether more evidence can make a difference.
fn may_gain(outcome: &Outcome) -> bool {
    match &outcome.judged.verdict {
        EntryVerdict::Satisfied(_) | EntryVerdict::NeedsBundles => false,
        EntryVerdict::Denied(denial) => denial.reason != DenialReason::DigestMissing,
        EntryVerdict::Undecided(_) => true,
    }
}

/// Whether nobody answered.
const fn is_away(outcome: &Outcome) -> bool {
    match &outcome.judged.verdict {
        EntryVerdict::Undecided(fault) => matches!(fault.contact, Contact::None),
        EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_) | EntryVerdict::NeedsBundles => false,
    }
}

const fn is_satisfied(outcome: &Outcome) -> bool {
    matches!(outcome.judged.verdict, EntryVerdict::Satisfied(_))
}

#[cfg(test)]
#[path = "verification_tests.rs"]
mod tests;
