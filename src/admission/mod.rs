//! One pull from request to permit: the story of the gate.
//!
//! [`Gate::admit`] reads top to bottom: take one snapshot, match the policies, settle what needs no
//! digest, resolve the tag once, look verdicts up, verify what is left (once for all who ask the
//! same, bounded in time and number), decide, record, say so. Verdicts and permits are made in
//! `policy`; here they are only brought together.
//!
//! What can fail is a [`Fault`] and goes to `policy::evaluate`, which alone may turn it into anything
//! but a refusal. A panic or an expired limit during verification is a fault like any other.
//! [`Gate::image_status`] answers from records, without network (rules S1, S2), and
//! [`Gate::decide_present`] is the background's look at an image that is on the node (S4 to S6).

pub mod audit;
mod evidence;
mod flight;
mod guard;
mod present;
mod snapshot;
mod verification;
pub mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;

pub use present::{Background, ImageFacts, Record, Shown, WouldDeny};
pub use snapshot::Snapshot;

use crate::cache::{Admission, Durability, Store, VerdictKey};
use crate::oci::{Digest, Manifest, Reference};
use crate::outcome::{Contact, Denial, Fault};
use crate::policy::evaluate::{self, Case, Decision, Forward, Judged, Permit, Resolution, Source};
use crate::policy::{Application, Coverage, Entry, EntryVerdict, Explanation, PodFacts, Satisfied};
use crate::registry::{self, Credentials};
use audit::{Audit, Phase, Phases, VerdictLine};
use flight::{Flights, Sharing};
use guard::Guard;
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
    denials: Mutex<BTreeMap<Question, (Instant, Vec<Outcome>)>>,
    slots: Arc<Semaphore>,
    audit: Arc<Audit>,
    guard: Guard,
    settings: Settings,
    present: present::State,
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
    /// One tree an entry that was verified.
    pub explanations: Vec<Explanation>,
}

/// A permitted pull on its way to containerd.
#[derive(Debug)]
pub struct Admitted {
    /// The permit.
    pub permit: Permit,
    /// Whether a registry gave the digest in this request: only then a tag record is written (T2).
    pub resolution: Resolution,
    request: PullRequest,
    snapshot: Digest,
    forwarded: Instant,
}

/// A flight and the credential that asked.
type Question = (Digest, Digest);

/// One judged entry with its tree.
#[derive(Debug, Clone)]
struct Outcome {
    judged: Judged,
    explanation: Explanation,
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
        Self {
            current: Current::new(snapshot),
            registry,
            store,
            flights: Flights::new(),
            denials: Mutex::new(BTreeMap::new()),
            slots: Arc::new(Semaphore::new(settings.concurrency.max(1))),
            audit,
            guard: Guard::open(settings.shown.as_deref(), SystemTime::now()),
            settings,
            present: present::State::default(),
        }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.take()
    }

    /// Puts a new snapshot in force. Requests under way keep theirs.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.current.swap(snapshot);
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
            Decision::Undecided(fault) => return Err(Refusal::undecided(image, &fault)),
        };
        let admitted = Admitted {
            permit,
            resolution: judgement.resolution,
            request,
            snapshot: snapshot.fingerprint,
            forwarded: Instant::now(),
        };
        if let (Forward::Pinned(_), Some(digest)) = (admitted.permit.forward(), admitted.permit.digest()) {
            self.record(&admitted, digest, None);
            if let (Resolution::Answered, Some(tag)) =
                (admitted.resolution, tag_key(&admitted.request.reference))
            {
                self.store.put_tag(&tag, digest);
            }
        }
        Ok(admitted)
    }

    /// Judges one image without recording or saying anything: what `pullgate verify` asks.
    pub async fn judge(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        phases: &mut Phases,
    ) -> Judgement {
        let applications = snapshot.policies.matching(&request.reference, &request.pod);
        let case = snapshot.case(&request.reference, &request.pod, &applications);
        let mut judgement = Judgement {
            decision: Decision::Undecided(Fault::new(crate::outcome::FaultReason::Internal, "not judged")),
            digest: request.reference.digest(),
            resolution: Resolution::NotAsked,
            resolve_fault: None,
            applications: applications.clone(),
            explanations: Vec::new(),
        };
        if let Some(decision) = evaluate::before_resolving(&case) {
            return Judgement { decision, ..judgement };
        }
        let digest = match self.resolve(request).await {
            Ok(resolved) => {
                judgement.resolution = resolved.resolution;
                judgement.resolve_fault = resolved.fault;
                resolved.digest
            }
            Err(fault) => {
                phases.end(Phase::Resolve);
                return Judgement { decision: evaluate::unresolved(&case, fault), ..judgement };
            }
        };
        judgement.digest = Some(digest);
        phases.end(Phase::Resolve);
        if let Some(decision) = evaluate::before_verifying(&case, digest) {
            return Judgement { decision, ..judgement };
        }
        let outcomes =
            self.outcomes(snapshot, request, &applications, digest, judgement.resolution, phases).await;
        let judged: Vec<_> = outcomes.iter().map(|outcome| outcome.judged.clone()).collect();
        judgement.explanations = outcomes.into_iter().map(|outcome| outcome.explanation).collect();
        let decision = evaluate::decide(&case, digest, judgement.resolution, &judged);
        let decision = match decision {
            Decision::Deny(denials) => {
                let looking = self.by_index(snapshot, request, &case, digest);
                let by_index = tokio::time::timeout(self.settings.verification, looking).await.ok().flatten();
                by_index.map_or(Decision::Deny(denials), Decision::Allow)
            }
            decision @ (Decision::Allow(_) | Decision::Undecided(_)) => decision,
        };
        Judgement { decision, ..judgement }
    }

    /// Rule D7: a child manifest passes by an index of the same repository that was admitted, lists
    /// it, and satisfies every entry itself.
    async fn by_index(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        case: &Case<'_>,
        child: Digest,
    ) -> Option<Permit> {
        // A tag stands for the index itself; only a digest can name a child.
        request.reference.digest()?;
        let repository = request.reference.repository();
        let mut admitted = self.store.admissions_in(repository);
        admitted.sort_by_key(|admission| (std::cmp::Reverse(admission.at.seconds()), admission.digest));
        let others = admitted.iter().filter(|admission| admission.digest != child && is_proof(admission));
        for admission in others.take(INDEXES) {
            let fetching = self.registry.manifest(repository, &admission.digest, &request.credentials);
            let Ok(Ok(Manifest::Index(index))) =
                tokio::time::timeout(self.settings.verification, fetching).await
            else {
                continue;
            };
            if !index.manifests.iter().any(|entry| entry.digest == child) {
                continue;
            }
            let mut phases = Phases::start();
            let resolution = Resolution::Answered;
            let outcomes = self
                .outcomes(snapshot, request, case.applications, admission.digest, resolution, &mut phases)
                .await;
            let judged: Vec<_> = outcomes.into_iter().map(|outcome| outcome.judged).collect();
            if let Some(permit) = evaluate::by_index(case, child, admission.digest, &index, &judged) {
                return Some(permit);
            }
        }
        None
    }

    /// Tag to digest, once for this request; the digest last verified where no registry answers (O2).
    async fn resolve(&self, request: &PullRequest) -> Result<Resolved, Fault> {
        if let Some(digest) = request.reference.digest() {
            return Ok(Resolved { digest, resolution: Resolution::NotAsked, fault: None });
        }
        let resolving = self.registry.resolve(&request.reference, &request.credentials);
        let resolved = match tokio::time::timeout(self.settings.verification, resolving).await {
            Ok(resolved) => resolved,
            Err(_) => Err(verification::timed_out(request.reference.text())),
        };
        match resolved {
            Ok(image) => Ok(Resolved { digest: image.digest, resolution: Resolution::Answered, fault: None }),
            Err(fault) if fault.contact == Contact::None => {
                let known = tag_key(&request.reference).and_then(|tag| self.store.tag(&tag));
                match known {
                    Some(digest) => {
                        Ok(Resolved { digest, resolution: Resolution::NotAsked, fault: Some(fault) })
                    }
                    None => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        }
    }

    /// A verdict for every entry that is to be judged: from the cache, or verified now.
    async fn outcomes(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &PullRequest,
        applications: &[Application],
        digest: Digest,
        resolution: Resolution,
        phases: &mut Phases,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut wanted: Vec<(Arc<Entry>, VerdictKey)> = Vec::new();
        let covered = applications.iter().flat_map(|application| &application.entries);
        for covered in covered.filter(|covered| covered.coverage == Coverage::Judged) {
            let entry = &covered.entry;
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
        let question = format!("{} {by_digest} {resolution:?} {}", snapshot.fingerprint, keys.join("\n"));
        let flight = Digest::of(question.as_bytes());
        if let Some(denied) = self.remembered_denial(flight, credential) {
            outcomes.extend(denied);
            return outcomes;
        }
        let job = verification::Job {
            registry: Arc::clone(&self.registry),
            store: self.store.clone(),
            slots: Arc::clone(&self.slots),
            audit: Arc::clone(&self.audit),
            limit: self.settings.verification,
            request: request.clone(),
            digest,
            resolution,
            wanted: wanted.clone(),
        };
        let share = |outcomes: &Vec<Outcome>| {
            let satisfied = |outcome: &Outcome| matches!(outcome.judged.verdict, EntryVerdict::Satisfied(_));
            if outcomes.iter().all(satisfied) { Sharing::Everybody } else { Sharing::SameCredentials }
        };
        let verified = self.flights.join(flight, credential, share, || job.clone().run()).await;
        phases.end(Phase::Verify);
        let verified =
            verified.unwrap_or_else(|| wanted.iter().map(|(entry, _)| verification::broken(entry)).collect());
        self.remember_denial(flight, credential, &verified);
        outcomes.extend(verified);
        outcomes
    }

    /// A definite denial is remembered for 5 s per question and credential; faults never are (C2).
    fn remembered_denial(&self, flight: Digest, credential: Digest) -> Option<Vec<Outcome>> {
        let denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, outcomes) = denials.get(&(flight, credential))?;
        (at.elapsed() < DENIAL_MEMORY).then(|| outcomes.clone())
    }

    fn remember_denial(&self, flight: Digest, credential: Digest, outcomes: &[Outcome]) {
        let denied = |outcome: &Outcome| matches!(outcome.judged.verdict, EntryVerdict::Denied(_));
        let undecided = |outcome: &Outcome| {
            matches!(outcome.judged.verdict, EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles)
        };
        if outcomes.iter().any(undecided) || !outcomes.iter().any(denied) {
            return;
        }
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denials.retain(|_, (at, _)| at.elapsed() < DENIAL_MEMORY);
        if denials.len() < DENIALS {
            denials.insert((flight, credential), (Instant::now(), outcomes.to_vec()));
        }
    }

    /// Hears that containerd pulled the image: the admission learns its id, and the name may not be
    /// hidden for a while (rules C3, S2). `target` is what containerd's record says, for images that
    /// were forwarded as sent.
    pub fn pulled(&self, admitted: &Admitted, image_id: &str, target: Option<Digest>) {
        self.audit.phase(Phase::Forward, admitted.forwarded.elapsed());
        // What was forwarded as sent is what containerd resolved, whatever we knew.
        let digest = match admitted.permit.forward() {
            Forward::Pinned(_) => admitted.permit.digest(),
            Forward::AsSent => admitted.request.reference.digest().or(target),
        };
        if let Some(digest) = digest {
            self.record(admitted, digest, Some(image_id.to_owned()));
            let reference = &admitted.request.reference;
            let name = reference.containerd_tag_name().unwrap_or_else(|| reference.pinned(digest));
            self.set_denied(&name, digest, admitted.permit.would_deny());
        }
        let now = SystemTime::now();
        let reference = &admitted.request.reference;
        self.guard.present(&shown_name(reference), now);
        self.guard.present(image_id, now);
    }

    /// Whether a present image may be served although containerd's pull failed without an answer
    /// (rule O4). The caller has established that the digest is present under `image_id`.
    pub async fn may_serve_present(&self, admitted: &Admitted) -> Option<(Digest, String)> {
        let digest = admitted.permit.digest()?;
        let usable = matches!(
            admitted.permit.source(),
            Source::Verified | Source::Fresh | Source::Stale | Source::Approved
        );
        if !usable || self.settings.serve_present == ServePresent::Never {
            return None;
        }
        let repository = admitted.request.reference.repository();
        let admission = self.store.admission(repository, &digest).filter(is_proof)?;
        // Our own request with these credentials must have had no answer either.
        let asking = self.registry.manifest(repository, &digest, &admitted.request.credentials);
        match tokio::time::timeout(self.settings.verification, asking).await {
            Ok(Err(fault)) if fault.contact == Contact::None => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return None,
        }
        let image_id = admission.image_id.clone()?;
        let anonymous = admitted.request.credentials == Credentials::Anonymous;
        let allowed = match self.settings.serve_present {
            ServePresent::Never => false,
            ServePresent::Anonymous => anonymous,
            ServePresent::Credentials | ServePresent::Namespace => {
                anonymous || admission.pulled_by.contains(&self.puller(&admitted.request))
            }
        };
        allowed.then_some((digest, image_id))
    }

    fn record(&self, admitted: &Admitted, digest: Digest, image_id: Option<String>) {
        let source = admitted.permit.source();
        let repository = admitted.request.reference.repository();
        let known = self.store.admission(repository, &digest).filter(is_proof);
        if known.is_some() && source == Source::Ignored {
            return;
        }
        let image_id = image_id.or_else(|| known.and_then(|known| known.image_id));
        let pulled_by = if image_id.is_some() { vec![self.puller(&admitted.request)] } else { Vec::new() };
        let admission = Admission {
            repository: admitted.request.reference.repository().clone(),
            digest,
            source: source.word().to_owned(),
            snapshot: admitted.snapshot,
            image_id,
            at: self.store.now(),
            pulled_by,
        };
        let durability =
            if source == Source::Ignored { Durability::ThisProcess } else { Durability::Durable };
        self.store.admit(admission, durability);
    }

    /// Who pulls, as a keyed hash: host, user and password, and the namespace where that counts.
    fn puller(&self, request: &PullRequest) -> Digest {
        let credential =
            request.credentials.keyed_hash(&self.settings.salt, request.reference.repository().host());
        match self.settings.serve_present {
            ServePresent::Namespace => {
                let namespace = request.pod.namespace.as_deref().unwrap_or("");
                Digest::of(format!("{credential} {namespace}").as_bytes())
            }
            ServePresent::Never | ServePresent::Anonymous | ServePresent::Credentials => credential,
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
            .map(|denial| format!("{}/{}: {}", denial.policy, denial.rule, denial.detail))
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

struct Resolved {
    digest: Digest,
    resolution: Resolution,
    fault: Option<Fault>,
}

fn verdict_key(entry: &Entry, request: &PullRequest, digest: Digest) -> VerdictKey {
    VerdictKey {
        repository: request.reference.repository().clone(),
        digest,
        entry: entry.fingerprint(),
        trust: entry.trust_fingerprint(),
        pod: entry.pod_fingerprint(&request.pod),
    }
}

fn remembered(entry: &Entry, digest: Digest, source: Source) -> Outcome {
    let explanation = Explanation {
        rule: format!("{}/{}", entry.policy(), entry.rule()),
        entry: entry.index(),
        attestors: Vec::new(),
    };
    Outcome {
        judged: judged(entry, EntryVerdict::Satisfied(Satisfied::remembered(digest)), source),
        explanation,
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

/// Whether an admission rests on verdicts, and not on a rule that let the image pass.
fn is_proof(admission: &Admission) -> bool {
    [Source::Verified, Source::Fresh, Source::Stale].iter().any(|source| source.word() == admission.source)
}

/// The key under which the digest of a tag is kept; none where the reference carries a digest.
fn tag_key(reference: &Reference) -> Option<String> {
    reference.digest().is_none().then(|| reference.normalised_form())
}

/// One name for all spellings of a reference.
fn shown_name(reference: &Reference) -> String {
    reference.normalised_form()
}

impl Snapshot {
    /// The question that a pull of `reference` for `pod` puts to the policies.
    #[must_use]
    pub fn case<'a>(
        &'a self,
        reference: &'a Reference,
        pod: &'a PodFacts,
        applications: &'a [Application],
    ) -> Case<'a> {
        Case {
            reference,
            pod,
            policies: &self.policies,
            applications,
            mode: self.mode,
            unmatched: self.unmatched,
            exempt_namespaces: &self.exempt_namespaces,
            approved: &self.approved,
        }
    }
}

/// Admitted images of one repository that are looked at as an index of a denied child.
const INDEXES: usize = 20;
/// How long a pull waits for the cache to be read at start.
const CACHE_PATIENCE: Duration = Duration::from_secs(1);
/// Rule C2.
const DENIAL_MEMORY: Duration = Duration::from_secs(5);
/// Denials remembered at once; the kubelet's own limits keep it far below.
const DENIALS: usize = 1024;
