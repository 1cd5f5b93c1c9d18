//! Images that are on the node: what ImageStatus shows, and the background's look at them.
//!
//! ImageStatus is answered from admissions, without network (rule S1). A name whose record's target
//! has an admission is shown; so is one that no rule covers; anything else is answered as absent, so
//! that the kubelet pulls it and it is judged then. Within the window of rule S2 it is an error
//! instead. In audit mode and without any policy everything is shown.
//!
//! The background decides every present image at start, after a reload and daily, from stored
//! evidence first (rule S6). Until it has, an old admission stands (rule S5); a definite denial takes
//! it back, age and faults never do (rule S4), nor does one host's "not there" while another cannot say.
//! Rules that depend on the pod are left out for images that have an admission: no pod is known here
//! (rule S3).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::audit::Phases;
use super::findings::{Undecided, WouldDeny, Wrong};
use super::{Gate, PullRequest, Snapshot, is_proof, shown_name};
use crate::cache::{Admission, Age, Durability, ImageName, Phase, Stamp};
use crate::oci::{Digest, Reference, RequestedImage};
use crate::outcome::{Denial, Fault, FaultReason};
use crate::policy::evaluate::{Decision, Mode, Source, Unmatched};
use crate::policy::{Action, Basis, Coverage, Covered, PodFacts};
use crate::registry::Credentials;

/// What containerd says of the image that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The image id.
    pub id: String,
    /// All its names, tags and digests.
    pub names: Vec<String>,
}

impl ImageFacts {
    /// Whether this is the image that `digest` names. An image never changes, so that holds whenever
    /// the digest was read; an imported image may lack it.
    #[must_use]
    pub fn carries(&self, digest: Digest) -> bool {
        let digest = digest.to_string();
        self.names.iter().any(|name| name.rsplit_once('@').is_some_and(|(_, found)| found == digest))
    }
}

/// containerd's record of the name that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Its target.
    Target(Digest),
    /// There is none.
    Absent,
    /// containerd could not be asked.
    Unknown,
}

/// What ImageStatus answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// containerd's answer.
    Show,
    /// Absent.
    Hide,
    /// An error with this text, under UNKNOWN.
    Refuse(String),
}

/// What the background made of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Admitted, or nothing covers it.
    Fine,
    /// Definitely refused.
    Denied,
    /// No answer was reached.
    Undecided,
}

impl Gate {
    /// Whether the image that was asked for as `asked` is shown. `image` is that text, parsed; `record`
    /// is what containerd's record of the name said no earlier than the answer, or a target that the
    /// answer carries itself.
    pub fn image_status(
        &self,
        asked: &str,
        image: Option<&RequestedImage>,
        record: Record,
        facts: &ImageFacts,
    ) -> Shown {
        let snapshot = self.current.take();
        let now = self.store.now();
        if snapshot.mode == Mode::Audit || snapshot.policies.is_empty() {
            self.note_shown(image, facts, now);
            return Shown::Show;
        }
        let (known, name) = match image {
            Some(RequestedImage::Reference(reference)) => {
                // containerd finds an image by a prefix of its id too; only names have records.
                match record {
                    Record::Absent if is_id_of(asked, &facts.id) => {
                        (self.id_is_known(&snapshot, facts), facts.id.clone())
                    }
                    Record::Unknown if is_id_of(asked, &facts.id) => (Known::CannotTell, facts.id.clone()),
                    Record::Target(_) | Record::Absent | Record::Unknown => {
                        let known = self.name_is_known(&snapshot, reference, record, facts);
                        (known, shown_name(reference))
                    }
                }
            }
            Some(RequestedImage::Id(_)) | None => (self.id_is_known(&snapshot, facts), facts.id.clone()),
        };
        match known {
            Known::Yes => {
                self.note_shown(image, facts, now);
                Shown::Show
            }
            // What was asked for, not what else the image is called: another name of it may be shown for good.
            Known::No if self.guard.may_hide(&name, now) => {
                self.audit.hidden(asked);
                Shown::Hide
            }
            Known::No => Shown::Refuse(format!(
                "SignatureValidationFailed: {asked}: no longer admitted; it is verified again when it is pulled"
            )),
            Known::CannotTell => Shown::Refuse(format!("{asked}: its record cannot be read now, try again")),
        }
    }

    /// Whether nothing is ever hidden, so that no store has to be asked (rules D5, E8).
    #[must_use]
    pub fn shows_everything(&self) -> bool {
        let snapshot = self.current.take();
        snapshot.mode == Mode::Audit || snapshot.policies.is_empty()
    }

    fn note_shown(&self, image: Option<&RequestedImage>, facts: &ImageFacts, now: Stamp) {
        if let Some(RequestedImage::Reference(reference)) = image {
            self.guard.present(&shown_name(reference), now);
        }
        self.guard.present(&facts.id, now);
    }

    fn name_is_known(
        &self,
        snapshot: &Snapshot,
        reference: &Reference,
        record: Record,
        facts: &ImageFacts,
    ) -> Known {
        if !snapshot.policies.covers(reference) && snapshot.unmatched == Unmatched::Allow {
            return Known::Yes;
        }
        let digest = match (reference.digest(), record) {
            (Some(digest), _) | (None, Record::Target(digest)) => digest,
            (None, Record::Absent) => return Known::No,
            (None, Record::Unknown) => return Known::CannotTell,
        };
        let approved = snapshot.approved.holds(reference.repository(), digest);
        let admission = self.store.admission(reference.repository(), &digest);
        if !approved && !admission.as_ref().is_some_and(|admission| self.stands(snapshot, admission)) {
            return self.unknown();
        }
        // CRI takes a moved tag up later than containerd: the answer may still be the image before.
        let id = admission.and_then(|admission| admission.image_id);
        if facts.carries(digest) || id.is_none_or(|id| id == facts.id) {
            Known::Yes
        } else {
            Known::CannotTell
        }
    }

    /// Without a store nothing can be said of what it would hold (rule S2).
    fn unknown(&self) -> Known {
        match self.store.phase() {
            Phase::Open => Known::No,
            Phase::Opening | Phase::MemoryOnly => Known::CannotTell,
        }
    }

    /// A proof stands until the background takes it back (S4). What a rule let pass stands under that
    /// snapshot, under another one at most `cache.stale` (S5); what was ignored, ten minutes (C3).
    fn stands(&self, snapshot: &Snapshot, admission: &Admission) -> bool {
        if admission.source == Source::Ignored.word() {
            let age = admission.at.age(self.store.now(), IGNORED_FOR, IGNORED_FOR);
            return age == Age::Fresh;
        }
        is_proof(admission)
            || admission.snapshot == snapshot.fingerprint
            || self.store.is_current(admission.at)
    }

    fn id_is_known(&self, snapshot: &Snapshot, facts: &ImageFacts) -> Known {
        let by_id = self.store.admissions_of_id(&facts.id);
        if by_id.iter().any(|admission| self.stands(snapshot, admission)) {
            return Known::Yes;
        }
        let names: Vec<_> = facts.names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
        // An admission that the background made knows the digest, not yet the id.
        let admitted = |name: &Reference| {
            let admission = name.digest().and_then(|digest| self.store.admission(name.repository(), &digest));
            admission.is_some_and(|admission| self.stands(snapshot, &admission))
        };
        if names.iter().any(admitted) {
            return Known::Yes;
        }
        let uncovered = names.iter().all(|name| !snapshot.policies.covers(name));
        let complete = !names.is_empty() && names.len() == facts.names.len();
        if complete && uncovered && snapshot.unmatched == Unmatched::Allow {
            Known::Yes
        } else {
            self.unknown()
        }
    }

    /// Decides one present image under the snapshot in force, from stored evidence first.
    pub async fn decide_present(&self, name: &str, digest: Digest, image_id: Option<String>) -> Background {
        let Ok(RequestedImage::Reference(reference)) = RequestedImage::parse(name) else {
            return Background::Fine;
        };
        let Ok(pinned) = Reference::parse(&reference.pinned(digest)) else {
            return Background::Fine;
        };
        let image = ImageName { repository: reference.repository().clone(), digest };
        let snapshot = self.current.take();
        if !snapshot.policies.covers(&reference) && !snapshot.policies.covers(&pinned) {
            self.decided(name, image, &[]);
            return Background::Fine;
        }
        let known = self.store.admission(reference.repository(), &digest);
        // What a rule let pass under this very snapshot is settled. An exempt namespace is not known
        // here: its images stay as long as any namespace is exempt.
        let settled = known.as_ref().is_some_and(|known| {
            let exempt = known.source == Source::Exempt.word() && !snapshot.exempt_namespaces.is_empty();
            let let_pass = !is_proof(known) && known.source != Source::Ignored.word();
            let_pass && (known.snapshot == snapshot.fingerprint || exempt)
        });
        // What a rule lets pass for a time is settled for no longer than this look.
        let for_a_time = || {
            let rules = snapshot.policies.matching(&pinned, &PodFacts::default(), SystemTime::now());
            rules.iter().any(|rule| rule.basis == Basis::Time)
        };
        if settled && snapshot.mode == Mode::Enforce && !for_a_time() {
            // What Audit let pass is what there is to report.
            if known.is_some_and(|known| known.source != Source::Audited.word()) {
                self.decided(name, image, &[]);
            }
            return Background::Fine;
        }
        let request =
            PullRequest { reference: pinned, pod: PodFacts::default(), credentials: Credentials::Anonymous };
        let judgement = self.judge(&snapshot, &request, &mut Phases::start()).await;
        match judgement.decision {
            Decision::Allow(permit) => {
                // What passes only because nothing is refused, or a fault is ignored, was not decided.
                let fault = permit
                    .would_fault()
                    .filter(|_| permit.would_deny().is_empty() || permit.source() == Source::Ignored);
                match fault {
                    Some(fault) => return self.undecided_now(name, image, fault.clone()),
                    None => self.decided(name, image, permit.would_deny()),
                }
                let renewed = known.as_ref().is_none_or(|known| {
                    known.snapshot != snapshot.fingerprint
                        || !is_proof(known)
                        || known.undecided_since.is_some()
                });
                let proof = known.as_ref().filter(|known| is_proof(known));
                let image_id = image_id.or_else(|| proof.and_then(|known| known.image_id.clone()));
                let parent = proof.and_then(|known| known.parent);
                // No pod is known here, nor the name that a pull gives, nor how long the answer holds.
                let about_the_image =
                    judgement.applications.iter().all(|application| application.basis == Basis::Image);
                if renewed
                    && about_the_image
                    && is_judged_alike(&snapshot, &reference, &request.reference)
                    && permit.digest().is_some()
                    && permit.would_deny().is_empty()
                    && permit.would_fault().is_none()
                {
                    let admission = Admission {
                        repository: request.reference.repository().clone(),
                        digest,
                        source: permit.source().word().to_owned(),
                        snapshot: snapshot.fingerprint,
                        image_id,
                        at: self.store.now(),
                        pulled_by: Vec::new(),
                        parent: judgement.parent.or(parent),
                        undecided_since: None,
                    };
                    // A pull that ended meanwhile knows more.
                    self.store.admit_in_place_of(known.as_ref(), admission, Durability::Durable);
                }
                if permit.would_deny().is_empty() { Background::Fine } else { Background::Denied }
            }
            Decision::Deny(denials) => {
                let rule = |denial: &Denial| format!("{}/{}", denial.policy, denial.rule);
                // One host's "not there" is no definite denial while another of them could not say.
                let definite = |denial: &Denial| !judgement.in_doubt.contains(&rule(denial));
                if !denials.iter().any(definite) {
                    let fault = Fault::new(FaultReason::RegistryError, IN_DOUBT);
                    return self.undecided_now(name, image, fault);
                }
                // A registry that shows strangers nothing says nothing about signatures either.
                let asking =
                    self.registry.manifest(request.reference.repository(), &digest, &request.credentials);
                match tokio::time::timeout(self.settings.verification, asking).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(fault)) => {
                        self.bound(&request.reference, &image, known.as_ref(), &fault).await;
                        return self.undecided_now(name, image, fault);
                    }
                    Err(_) => {
                        let fault = Fault::new(FaultReason::Timeout, "the registry did not answer in time");
                        return self.undecided_now(name, image, fault);
                    }
                }
                self.decided(name, image, &denials);
                let pod_dependent = snapshot.policies.pull_only_rules();
                let refuses = |denial: &Denial| {
                    judgement.applications.iter().any(|application| {
                        application.action == Action::Enforce
                            && application.policy == denial.policy
                            && application.rule == denial.rule
                    })
                };
                let plain = |denial: &Denial| !pod_dependent.contains(&rule(denial));
                // The gate's own refusals (`unmatched`) name no rule and count as plain ones.
                let taken_back = |denial: &Denial| {
                    definite(denial) && (denial.policy.is_empty() || (refuses(denial) && plain(denial)))
                };
                if let Some(known) = &known
                    && denials.iter().any(taken_back)
                    && self.store.withdraw(known)
                {
                    tracing::warn!(image = name, %digest, "present image is no longer admitted: hidden from ImageStatus");
                }
                Background::Denied
            }
            Decision::Undecided(fault) => {
                self.bound(&request.reference, &image, known.as_ref(), &fault).await;
                self.undecided_now(name, image, fault)
            }
        }
    }

    /// Rule S5: a proof of another snapshot stands at most `cache.stale` once a registry that answers was found
    /// to show strangers nothing, and what is stored does not prove the image any more.
    async fn bound(
        &self,
        reference: &Reference,
        image: &ImageName,
        known: Option<&Admission>,
        fault: &Fault,
    ) {
        let Some(known) =
            known.filter(|known| is_proof(known) && known.snapshot != self.current.take().fingerprint)
        else {
            return;
        };
        // Anything else is no word of a registry about this image (rule S4).
        let shows_nothing = matches!(fault.reason, FaultReason::RegistryDenied | FaultReason::ImageNotFound);
        if !shows_nothing || self.stored_proves(reference, image).await {
            return;
        }
        let Some(since) = known.undecided_since else {
            let marked = Admission { undecided_since: Some(self.store.now()), ..known.clone() };
            return self.store.admit_in_place_of(Some(known), marked, Durability::Durable);
        };
        if !self.store.is_current(since) && self.store.withdraw(known) {
            tracing::warn!(
                image = %reference,
                "present image could not be decided under the policies in force for cache.stale: hidden from ImageStatus"
            );
        }
    }

    /// The present images that policy refuses, or would.
    #[must_use]
    pub fn would_deny(&self) -> Vec<WouldDeny> {
        self.findings.would_deny()
    }

    /// The present images of which the last look could not say whether policy refuses them.
    #[must_use]
    pub fn undecided(&self) -> Vec<Undecided> {
        self.findings.without_answer()
    }

    /// How many images those are.
    #[must_use]
    pub fn wrong(&self) -> Wrong {
        self.findings.count()
    }

    /// Forgets what was found of images that are no longer there; `present` has names and their targets.
    pub fn retain_present(&self, present: &BTreeSet<(&str, Digest)>) {
        self.findings.retain(present);
        self.show_findings();
    }

    /// A definite answer about an image on the node.
    pub(super) fn decided(&self, name: &str, image: ImageName, denials: &[Denial]) {
        self.findings.decided(name, image, denials);
        self.show_findings();
    }

    fn undecided_now(&self, name: &str, image: ImageName, fault: Fault) -> Background {
        self.findings.undecided(name, image, fault);
        self.show_findings();
        Background::Undecided
    }

    fn show_findings(&self) {
        let Wrong { denied, undecided } = self.findings.count();
        self.audit.denied_images.set(i64::try_from(denied).unwrap_or(i64::MAX));
        self.audit.undecided_images.set(i64::try_from(undecided).unwrap_or(i64::MAX));
    }
}

enum Known {
    Yes,
    No,
    CannotTell,
}

/// Whether the tag is covered as its digest is, by the same entries and by some: an admission shows both.
fn is_judged_alike(snapshot: &Snapshot, tagged: &Reference, pinned: &Reference) -> bool {
    let now = SystemTime::now();
    let covering = |reference: &Reference| -> Vec<_> {
        let applications = snapshot.policies.matching(reference, &PodFacts::default(), now);
        let covered = applications.iter().flat_map(|application| &application.entries);
        let described = covered.map(|Covered { entry, coverage, .. }| {
            let by_digest = *coverage == Coverage::Judged && entry.asks_for_digest(reference);
            (entry.policy().to_owned(), entry.rule().to_owned(), entry.index(), *coverage, by_digest)
        });
        described.collect()
    };
    let by_digest = covering(pinned);
    !by_digest.is_empty() && covering(tagged) == by_digest
}

/// A truncated id parses as a reference.
fn is_id_of(asked: &str, id: &str) -> bool {
    let digits = asked.strip_prefix("sha256:").unwrap_or(asked);
    !digits.is_empty() && id.strip_prefix("sha256:").unwrap_or(id).starts_with(digits)
}

/// Rule C3.
const IGNORED_FOR: Duration = Duration::from_secs(600);
/// What is said of a denial that rests on one host's word while another could not be asked.
const IN_DOUBT: &str = "one host of the registry has no signature, and another could not say";
