//! One pull from request to permit: the story of the gate.
//!
//! [`Gate::admit`] reads top to bottom: take one snapshot, match the policies, settle what needs no
//! digest, resolve the tag once, ask registries for what rules read of images, look verdicts up, verify what
//! is left (once for all who ask the same, bounded in time and number), decide, record, say so. Verdicts and permits are made in
//! `policy`; here they are only brought together.
//!
//! What can fail is a [`Fault`] and goes to `policy::evaluate`, which alone may turn it into anything
//! but a refusal. A panic or an expired limit during verification is a fault like any other.
//! [`Gate::image_status`] answers from records, without network (rules S1, S2), and
//! [`Gate::decide_present`] is the background's look at an image that is on the node (S4 to S6).

pub mod audit;
mod denials;
mod evidence;
mod findings;
mod flight;
mod guard;
mod images;
mod import;
mod index;
mod outage;
mod present;
mod records;
mod resolve;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;
mod verification;
pub mod words;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

pub use findings::{Undecided, WouldDeny, Wrong};
pub use import::Imported;
pub use outage::Servable;
pub use present::{Background, ImageFacts, Record, Shown};
pub use snapshot::Snapshot;

use crate::cache::{Store, VerdictKey};
use crate::oci::{Digest, Index, Reference};
use crate::outcome::{Contact, Denial, Fault, FaultReason};
use crate::policy::evaluate::{self, Decision, Forward, Judged, Permit, Resolution, Source};
use crate::policy::{Application, Coverage, Entry, EntryVerdict, Explanation, PodFacts, Satisfied};
use crate::registry::{self, Credentials};
use audit::{Audit, Phase, Phases, VerdictLine};
use denials::Denials;
use evidence::Bundled;
use flight::{Flights, Sharing};
use guard::Guard;
use images::Informed;
use records::{Arrival, is_by_digest, is_proof, shown_name};
use resolve::{Resolved, tag_key};
use slots::Slots;
use snapshot::Current;
use words::Refusal;

/// One pull, as it is asked for.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// The pod it is for.
    pub pod: PodFacts,
    /// The credentials of this very request.
    pub credentials: Credentials,
}

/// What bounds and feeds the gate.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time for the verification of one image.
    pub verification: Duration,
    /// Verifications at once.
    pub concurrency: usize,
    /// When a present image is served although the registry is away (rule O4).
    pub serve_present: ServePresent,
    /// Where the names that were shown lately are kept (rule S2).
    pub shown: Option<PathBuf>,
    /// Keys the hashes of credentials; made at installation.
    pub salt: Vec<u8>,
}

/// When a present image is served although the registry is away (rule O4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServePresent {
    /// Never.
    Never,
    /// For pulls without credentials.
    Anonymous,
    /// For the credentials that once pulled it.
    Credentials,
    /// For the credentials and the namespace that once pulled it.
    Namespace,
}

/// The gate.
pub struct Gate {
    current: Current,
    registry: Arc<registry::Client>,
    store: Store,
    flights: Flights<Digest, Vec<Outcome>>,
    indexes: Flights<Digest, Result<Option<Index>, Fault>>,
    denials: Denials,
    slots: Arc<Slots>,
    audit: Arc<Audit>,
    guard: Guard,
    settings: Settings,
    findings: findings::Findings,
    bundled: Arc<Bundled>,
    look_again: Arc<Notify>,
}

/// A decision with everything that led to it.
#[derive(Debug)]
pub struct Judgement {
    /// The decision.
    pub decision: Decision,
    /// The digest, where it became known.
    pub digest: Option<Digest>,
    /// Whether a registry gave it in this request.
    pub resolution: Resolution,
    /// The fault while resolving, if the digest is the one last verified.
    pub resolve_fault: Option<Fault>,
    /// The rules that cover the image.
    pub applications: Vec<Application>,
    /// One verdict an entry that was judged; none where the decision needed no evidence.
    pub judged: Vec<Judged>,
    /// One tree an entry that was verified.
    pub explanations: Vec<Explanation>,
    /// The index by which a child manifest passes, if it does (rule D7).
    pub parent: Option<Digest>,
    /// The rules (`policy/rule`) for which one host said that nothing is there while another could not say.
    pub in_doubt: BTreeSet<String>,
}

/// A permitted pull on its way to containerd.
#[derive(Debug)]
pub struct Admitted {
    /// The permit.
    pub permit: Permit,
    /// Whether a registry gave the digest in this request: only then a tag record is written (T2).
    pub resolution: Resolution,
    request: PullRequest,
    parent: Option<Digest>,
    snapshot: Digest,
    forwarded: Instant,
}

/// One judged entry with its tree.
#[derive(Debug, Clone)]
struct Outcome {
    judged: Judged,
    explanation: Explanation,
    /// Nothing is there by the word of one host, while another could not say: a pull is refused by it (rule
    /// D4), and what is present is not hidden (S4).
    in_doubt: bool,
}

impl Gate {
    /// A gate that decides by `snapshot`.
    #[must_use]
    pub fn new(
        snapshot: Arc<Snapshot>,
        registry: Arc<registry::Client>,
        store: Store,
        audit: Arc<Audit>,
        settings: Settings,
    ) -> Self {
        let guard = Guard::open(settings.shown.as_deref(), store.now());
        Self {
            current: Current::new(snapshot),
            registry,
            store,
            flights: Flights::new(),
            indexes: Flights::new(),
            denials: Denials::default(),
            slots: Arc::new(Slots::new(settings.concurrency)),
            audit,
            guard,
            settings,
            findings: findings::Findings::default(),
            bundled: Arc::default(),
            look_again: Arc::default(),
        }
    }

    /// Asks the background for a look at every present image.
    #[must_use]
    pub const fn look_again(&self) -> &Arc<Notify> {
        &self.look_again
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.take()
    }

    /// Puts a new snapshot in force. Requests under way keep theirs.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.current.swap(snapshot);
        self.denials.clear();
    }

    /// The cache.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Judges one pull and, if it may go on, records that before anything is forwarded.
    ///
    /// # Errors
    /// The [`Refusal`] for the kubelet.
    pub async fn admit(&self, request: PullRequest) -> Result<Admitted, Refusal> {
        let snapshot = self.current.take();
        let mut phases = Phases::start();
        // An ordinary database opens in milliseconds; a large one is not waited for (rule C5).
        self.store.opened(CACHE_PATIENCE).await;
        let judgement = self.judge(&snapshot, &request, &mut phases).await;
        self.say(&request, &judgement, &phases);
        let image = request.reference.text();
        let permit = match judgement.decision {
            Decision::Allow(permit) => permit,
            Decision::Deny(denials) => return Err(Refusal::denied(image, &denials)),
            Decision::Undecided(fault) => return Err(Refusal::undecided(&request.reference, &fault)),
        };
        let admitted = Admitted {
            permit,
            resolution: judgement.resolution,
            request,
            parent: judgement.parent,
            snapshot: snapshot.fingerprint,
            forwarded: Instant::now(),
        };
        if let (Forward::Pinned(_), Some(digest)) = (admitted.permit.forward(), admitted.permit.digest()) {
            self.record(&admitted, digest, Arrival::Awaited);
            self.keep_tag(&admitted.request.reference, &admitted.permit, admitted.resolution);
        }
        Ok(admitted)
    }

    /// Judges one image ahead of its pull, as whom the docker config files name. Its evidence, its verdicts
    /// and the digest of its tag are kept. Nothing is admitted by it, so it shows no image (rule S1) and serves
    /// nobody in an outage (rule O4).
    pub async fn prewarm(&self, reference: Reference) -> Judgement {
        let (pod, credentials) = (PodFacts::default(), Credentials::Anonymous);
        let request = PullRequest { reference, pod, credentials };
        self.store.opened(CACHE_PATIENCE).await;
        let judgement = self.judge(&self.current.take(), &request, &mut Phases::start()).await;
        if let Decision::Allow(permit) = &judgement.decision {
            self.keep_tag(&request.reference, permit, judgement.resolution);
        }
        judgement
    }

    /// What a tag was verified as, where a registry said so in this request (rule O2). What a rule let pass
    /// takes the place of nothing that was verified.
    fn keep_tag(&self, reference: &Reference, permit: &Permit, resolution: Resolution) {
        if let (Resolution::Answered, Some(tag), Some(digest)) =
            (resolution, tag_key(reference), permit.digest())
            && is_by_digest(permit.source())
        {
            self.store.put_tag(&tag, digest);
        }
    }

    /// Judges one image without recording or saying anything: what `pullgate verify` asks.
    pub async fn judge(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        phases: &mut Phases,
    ) -> Judgement {
        // Boxed: it is part of every future that judges.
        Box::pin(self.judge_image(snapshot, request, phases)).await
    }

    async fn judge_image(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        phases: &mut Phases,
    ) -> Judgement {
        let applications = snapshot.policies.matching(&request.reference, &request.pod, SystemTime::now());
        let case = snapshot.case(&request.reference, &request.pod, &applications);
        let mut judgement = Judgement {
            decision: Decision::Undecided(Fault::new(FaultReason::Internal, "not judged")),
            digest: request.reference.digest(),
            resolution: Resolution::NotAsked,
            resolve_fault: None,
            applications: applications.clone(),
            judged: Vec::new(),
            explanations: Vec::new(),
            parent: None,
            in_doubt: BTreeSet::new(),
        };
        if let Some(decision) = evaluate::before_resolving(&case) {
            return Judgement { decision, ..judgement };
        }
        let resolved = self.resolve(request).await;
        phases.end(Phase::Resolve);
        let mut resolved = match resolved {
            Ok(resolved) => resolved,
            Err(fault) => return Judgement { decision: evaluate::unresolved(&case, fault), ..judgement },
        };
        let digest = resolved.digest;
        judgement.digest = Some(digest);
        judgement.resolution = resolved.resolution;
        judgement.resolve_fault.clone_from(&resolved.fault);
        if let Some(decision) = evaluate::before_verifying(&case, digest) {
            return Judgement { decision, ..judgement };
        }
        let Informed { applications, contact } =
            self.informed(snapshot, request, applications, &resolved, phases).await;
        let case = snapshot.case(&request.reference, &request.pod, &applications);
        judgement.applications.clone_from(&applications);
        if let Some(decision) = evaluate::before_verifying(&case, digest) {
            return Judgement { decision, ..judgement };
        }
        if contact == Contact::Answered {
            resolved.contact = contact;
        }
        let mut outcomes = self.outcomes(snapshot, request, &applications, resolved, phases).await;
        if contact == Contact::Answered {
            outcomes.iter_mut().for_each(verification::answered);
        }
        let judged: Vec<_> = outcomes.iter().map(|outcome| outcome.judged.clone()).collect();
        let rule = |judged: &Judged| format!("{}/{}", judged.policy, judged.rule);
        let doubtful = outcomes.iter().filter(|outcome| outcome.in_doubt);
        judgement.in_doubt = doubtful.map(|outcome| rule(&outcome.judged)).collect();
        judgement.explanations = outcomes.into_iter().map(|outcome| outcome.explanation).collect();
        let decision = evaluate::decide(&case, digest, judgement.resolution, &judged);
        judgement.judged = judged;
        let mut index_in_doubt = false;
        let by_index = match &decision {
            Decision::Deny(_) => self.by_index(snapshot, request, &case, digest, &mut index_in_doubt).await,
            // One verification, which has its own limit: waiting for a slot does not count.
            Decision::Undecided(fault) if fault.contact == Contact::None => {
                Ok(self.by_known_index(snapshot, request, &case, digest).await)
            }
            Decision::Allow(_) | Decision::Undecided(_) => Ok(None),
        };
        if index_in_doubt {
            // It could vouch for the image whichever rule denies that itself.
            judgement.in_doubt.extend(judgement.judged.iter().map(rule));
        }
        match by_index {
            Ok(Some((permit, parent))) => {
                Judgement { decision: Decision::Allow(permit), parent: Some(parent), ..judgement }
            }
            Ok(None) => Judgement { decision, ..judgement },
            Err(fault) => Judgement { decision: Decision::Undecided(fault), ..judgement },
        }
    }

    /// A verdict for every entry that is to be judged: from the cache, or verified now.
    async fn outcomes(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        applications: &[Application],
        resolved: Resolved,
        phases: &mut Phases,
    ) -> Vec<Outcome> {
        let Resolved { digest, resolution, contact, fault } = resolved;
        let mut outcomes = Vec::new();
        let mut wanted: Vec<(Arc<Entry>, VerdictKey)> = Vec::new();
        let covered = applications.iter().flat_map(|application| &application.entries);
        for covered in covered.filter(|covered| covered.coverage == Coverage::Judged) {
            let entry = &covered.entry;
            if let Some(fault) = entry.undecidable() {
                // Nothing that is signed changes it, so nobody is asked.
                outcomes.push(verification::undecided(entry, fault));
                continue;
            }
            let key = verdict_key(entry, request, digest);
            // Whether the reference carries a digest is part of the answer, not of the key.
            let cached = if entry.needs_evidence() && !entry.asks_for_digest(&request.reference) {
                self.store.verdict(&key)
            } else {
                None
            };
            match cached {
                Some(crate::cache::Age::Fresh) => outcomes.push(remembered(entry, digest, Source::Fresh)),
                Some(crate::cache::Age::Stale | crate::cache::Age::Expired) | None => {
                    wanted.push((Arc::clone(entry), key));
                }
            }
        }
        phases.end(Phase::Cached);
        if wanted.is_empty() {
            return outcomes;
        }
        let credential =
            request.credentials.keyed_hash(&self.settings.salt, request.reference.repository().host());
        let keys: Vec<String> = wanted.iter().map(|(_, key)| format!("{key:?}")).collect();
        let by_digest = request.reference.digest().is_some();
        let question =
            format!("{} {by_digest} {resolution:?} {contact:?} {}", snapshot.fingerprint, keys.join("\n"));
        let flight = Digest::of(question.as_bytes());
        if let Some(denied) = self.denials.of((flight, credential), Instant::now()) {
            outcomes.extend(denied);
            return outcomes;
        }
        let job = self.job(request, Resolved { digest, resolution, contact, fault }, wanted.clone());
        let share = |outcomes: &Vec<Outcome>| {
            let satisfied = |outcome: &Outcome| matches!(outcome.judged.verdict, EntryVerdict::Satisfied(_));
            if outcomes.iter().all(satisfied) { Sharing::Everybody } else { Sharing::SameCredentials }
        };
        let verified = self.flights.join(flight, credential, share, || job.clone().run()).await;
        phases.end(Phase::Verify);
        let verified =
            verified.unwrap_or_else(|| wanted.iter().map(|(entry, _)| verification::broken(entry)).collect());
        self.denials.keep((flight, credential), &verified, Instant::now());
        outcomes.extend(verified);
        outcomes
    }

    fn job(
        &self,
        request: &PullRequest,
        resolved: Resolved,
        wanted: Vec<(Arc<Entry>, VerdictKey)>,
    ) -> verification::Job {
        verification::Job {
            registry: Arc::clone(&self.registry),
            store: self.store.clone(),
            slots: Arc::clone(&self.slots),
            audit: Arc::clone(&self.audit),
            limit: self.settings.verification,
            request: request.clone(),
            digest: resolved.digest,
            resolution: resolved.resolution,
            contact: resolved.contact,
            resolve_fault: resolved.fault,
            wanted,
            bundled: Arc::clone(&self.bundled),
        }
    }

    fn say(&self, request: &PullRequest, judgement: &Judgement, phases: &Phases) {
        let (verdict, reason, source, denials, fault): (_, _, _, &[Denial], Option<&Fault>) = match &judgement
            .decision
        {
            Decision::Allow(permit) => {
                let reason = permit.would_deny().first().map(|denial| denial.reason.code());
                let reason = reason.or(permit.would_fault().map(|fault| fault.reason.code())).unwrap_or("");
                ("allow", reason, permit.source().word(), permit.would_deny(), permit.would_fault())
            }
            Decision::Deny(denials) => {
                ("deny", denials.first().map_or("internal", |denial| denial.reason.code()), "", denials, None)
            }
            Decision::Undecided(fault) => ("undecided", fault.reason.code(), "", &[], Some(fault)),
        };
        let first = judgement.applications.first();
        let causes: Vec<String> = denials
            .iter()
            .map(|denial| match denial.reason.plainly() {
                Some(words) => format!("{}/{}: {} ({words})", denial.policy, denial.rule, denial.detail),
                None => format!("{}/{}: {}", denial.policy, denial.rule, denial.detail),
            })
            .chain(fault.map(ToString::to_string))
            .collect();
        let line = VerdictLine {
            image: request.reference.text(),
            digest: judgement.digest.map(|digest| digest.to_string()),
            namespace: request.pod.namespace.as_deref().unwrap_or(""),
            pod: request.pod.name.as_deref().unwrap_or(""),
            policy: denials
                .first()
                .map_or_else(|| first.map_or("", |first| &first.policy), |denial| &denial.policy),
            rule: denials
                .first()
                .map_or_else(|| first.map_or("", |first| &first.rule), |denial| &denial.rule),
            verdict,
            reason,
            source,
            causes: &causes.join("; "),
            would_deny: verdict == "allow" && !(denials.is_empty() && fault.is_none()),
        };
        self.audit.verdict(&line, phases);
    }
}

fn verdict_key(entry: &Entry, request: &PullRequest, digest: Digest) -> VerdictKey {
    verdict_key_of(env!("CARGO_PKG_VERSION"), entry, request, digest)
}

/// A release that refuses what an earlier one took decides anew, from the evidence on disk where that is
/// fresh: a verdict is also of the program that made it (rule C1).
fn verdict_key_of(release: &str, entry: &Entry, request: &PullRequest, digest: Digest) -> VerdictKey {
    VerdictKey {
        repository: request.reference.repository().clone(),
        digest,
        entry: Digest::of(format!("{release} {}", entry.fingerprint()).as_bytes()),
        trust: entry.trust_fingerprint(),
        pod: entry.pod_fingerprint(&request.pod, &request.reference),
    }
}

fn remembered(entry: &Entry, digest: Digest, source: Source) -> Outcome {
    let explanation = Explanation {
        rule: format!("{}/{}", entry.policy(), entry.rule()),
        entry: entry.index(),
        attestors: Vec::new(),
        denies: Vec::new(),
    };
    Outcome {
        judged: judged(entry, EntryVerdict::Satisfied(Satisfied::remembered(digest)), source),
        explanation,
        in_doubt: false,
    }
}

fn judged(entry: &Entry, verdict: EntryVerdict, source: Source) -> Judged {
    Judged {
        policy: entry.policy().to_owned(),
        rule: entry.rule().to_owned(),
        index: entry.index(),
        verdict,
        source,
    }
}

/// How long a pull waits for the cache to be read at start.
const CACHE_PATIENCE: Duration = Duration::from_secs(1);
