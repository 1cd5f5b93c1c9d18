//! The decision, and the only place where a [`Permit`] is made.
//!
//! Three questions in the order of a pull. [`before_resolving`]: is it settled by a rule that needs
//! no digest (exempt namespace, no policy, unmatched, skipped)? [`unresolved`]: the registry gave no
//! digest; does `failurePolicy: Ignore` apply? [`decide`]: the digest is known and every entry was
//! judged.
//!
//! | decision | when |
//! |---|---|
//! | refuse | an Enforce rule is definitely not satisfied (D2: every failing rule is named) |
//! | undecided | an Enforce rule met a fault, and D4 does not let it pass |
//! | permit, pinned | every Enforce rule that is applied is satisfied, or the digest is approved |
//! | permit, pinned, ignored | an Enforce rule met a fault that upstream lets pass, under `compatibility: strict` |
//! | permit, as sent | exempt, unmatched, skipped, ignored, or only audit let it pass |
//! | the same, pinned | an Enforce rule read in a registry what decided that |
//!
//! A permit has three constructors: [`Permit::verified`], [`Permit::by_rule`], [`Permit::ignored`],
//! all private to this file. Nothing reaches containerd's PullImage without one.

use std::collections::BTreeSet;
use std::fmt;

use super::{
    Action, Application, Basis, Compatibility, Coverage, Covered, Entry, EntryVerdict, FailurePolicy,
    Following, PodFacts, PolicySet, wildcard,
};
use crate::oci::{Digest, DigestError, Reference, ReferenceError, Repository};
use crate::outcome::{Contact, Denial, DenialReason, Fault, FaultReason};

/// Whether the node refuses anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each rule's own action decides.
    Enforce,
    /// Nothing is refused.
    Audit,
}

/// What happens to an image that no rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// It passes as sent.
    Allow,
    /// It is refused.
    Deny,
}

/// Where an allow comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Verified in this request.
    Verified,
    /// A verdict younger than `cache.fresh`.
    Fresh,
    /// A verdict past it, while the registry cannot be reached.
    Stale,
    /// `skipImageReferences`.
    Skipped,
    /// Audit let it pass.
    Audited,
    /// Its namespace is exempt.
    Exempt,
    /// Its digest is approved.
    Approved,
    /// No rule covers it.
    Unmatched,
    /// A fault under `failurePolicy: Ignore`.
    Ignored,
}

impl Source {
    /// The word in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Skipped => "skipped",
            Self::Audited => "audited",
            Self::Exempt => "exempt",
            Self::Approved => "approved",
            Self::Unmatched => "unmatched",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Leave to pull one image.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    reference: Reference,
    forward: Forward,
    digest: Option<Digest>,
    source: Source,
    would_deny: Vec<Denial>,
    would_fault: Option<Fault>,
}

/// What is forwarded to containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// `repository@digest`.
    Pinned(String),
    /// The reference as it was sent.
    AsSent,
}

/// The outcome of judging one pull.
#[derive(Debug)]
#[must_use]
#[expect(clippy::large_enum_variant, reason = "made once a pull; a box would only hide the permit")]
pub enum Decision {
    /// It may be pulled.
    Allow(Permit),
    /// It may not: every failing rule, those that refuse first, each group sorted by policy and rule.
    Deny(Vec<Denial>),
    /// No answer was reached, so it may not.
    Undecided(Fault),
}

/// One judged entry.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The policy of the entry.
    pub policy: String,
    /// Its rule.
    pub rule: String,
    /// Its position in the rule.
    pub index: usize,
    /// Its verdict. [`EntryVerdict::NeedsBundles`] counts as our own fault.
    pub verdict: EntryVerdict,
    /// Where a satisfied verdict comes from: verified, fresh or stale.
    pub source: Source,
}

impl Judged {
    /// What was judged of `entry`. Rules of several documents, and the names that upstream cuts for
    /// controllers, may come to one name: then it is what does not hold.
    #[must_use]
    pub fn of<'a>(entry: &Entry, judged: &'a [Self]) -> Option<&'a Self> {
        let same = |judged: &&Self| {
            judged.policy == entry.policy() && judged.rule == entry.rule() && judged.index == entry.index()
        };
        let fails = |judged: &&Self| !matches!(judged.verdict, EntryVerdict::Satisfied(_));
        judged.iter().filter(same).find(fails).or_else(|| judged.iter().find(same))
    }
}

/// How the digest became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// A registry answered in this request.
    Answered,
    /// The reference carries it, or it is the one last verified: nobody was asked.
    NotAsked,
}

/// Everything about a pull that does not change while it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The image.
    pub reference: &'a Reference,
    /// The pod.
    pub pod: &'a PodFacts,
    /// The policies in force.
    pub policies: &'a PolicySet,
    /// The rules that cover the image, from [`PolicySet::matching`].
    pub applications: &'a [Application],
    /// Enforce or audit.
    pub mode: Mode,
    /// What happens to an image that no rule covers.
    pub unmatched: Unmatched,
    /// Patterns of namespaces that are not judged.
    pub exempt_namespaces: &'a [String],
    /// Approved digests.
    pub approved: &'a Approved,
}

/// The digests that an administrator approved (rule M4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approved(BTreeSet<(Repository, Digest)>);

/// Why a line of the approved list is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct ApprovedError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    #[source]
    pub cause: ApprovedCause,
}

/// What is wrong with a line of the approved list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovedCause {
    /// No `@`.
    #[error("not repository@sha256:…")]
    NoDigest,
    /// The part before `@`.
    #[error(transparent)]
    Repository(ReferenceError),
    /// The part behind it.
    #[error(transparent)]
    Digest(DigestError),
}

impl Approved {
    /// Reads `repository@sha256:…` lines; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// The first line that is neither.
    pub fn parse(text: &str) -> Result<Self, ApprovedError> {
        let mut approved = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let failed = |cause| ApprovedError { line: number + 1, cause };
            let (repository, digest) = line.split_once('@').ok_or_else(|| failed(ApprovedCause::NoDigest))?;
            let repository =
                Repository::parse(repository).map_err(|error| failed(ApprovedCause::Repository(error)))?;
            let digest = digest.parse().map_err(|error| failed(ApprovedCause::Digest(error)))?;
            approved.insert((repository, digest));
        }
        Ok(Self(approved))
    }

    /// Whether this digest of this repository is approved.
    #[must_use]
    pub fn holds(&self, repository: &Repository, digest: Digest) -> bool {
        self.0.contains(&(repository.clone(), digest))
    }

    /// Whether any digest of this repository is approved, so that a tag is worth resolving.
    #[must_use]
    pub fn names(&self, repository: &Repository) -> bool {
        self.0.iter().any(|(approved, _)| approved == repository)
    }

    /// Each as `repository@digest`, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.0.iter().map(|(repository, digest)| format!("{repository}@{digest}")).collect()
    }
}

impl Permit {
    /// Every rule that refuses is satisfied for `digest`, or `digest` is approved.
    fn verified(case: &Case<'_>, digest: Digest, source: Source) -> Self {
        let forward = Forward::Pinned(case.reference.pinned(digest));
        Self {
            reference: case.reference.clone(),
            forward,
            digest: Some(digest),
            source,
            would_deny: Vec::new(),
            would_fault: None,
        }
    }

    /// A rule lets it pass without a proof.
    fn by_rule(case: &Case<'_>, digest: Option<Digest>, source: Source) -> Self {
        let reference = case.reference.clone();
        Self {
            reference,
            forward: Forward::AsSent,
            digest,
            source,
            would_deny: Vec::new(),
            would_fault: None,
        }
    }

    /// A fault under `failurePolicy: Ignore`.
    fn ignored(case: &Case<'_>, digest: Option<Digest>, fault: Fault) -> Self {
        Self { would_fault: Some(fault), ..Self::by_rule(case, digest, Source::Ignored) }
    }

    /// Where a rule that refuses read in a registry what it makes of the image, that holds for the digest and
    /// not for what the tag may mean by then.
    fn pinned_if_read(self, case: &Case<'_>) -> Self {
        let read = |application: &Application| {
            application.basis == Basis::Registries && application.action == Action::Enforce
        };
        match self.digest {
            Some(digest) if case.mode == Mode::Enforce && case.applications.iter().any(read) => {
                Self { forward: Forward::Pinned(case.reference.pinned(digest)), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// The image.
    #[must_use]
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What to forward.
    #[must_use]
    pub const fn forward(&self) -> &Forward {
        &self.forward
    }

    /// The digest, where it is known.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The rules that do not hold but do not refuse.
    #[must_use]
    pub fn would_deny(&self) -> &[Denial] {
        &self.would_deny
    }

    /// The fault that was let pass.
    #[must_use]
    pub const fn would_fault(&self) -> Option<&Fault> {
        self.would_fault.as_ref()
    }
}

/// What is settled without a digest; `None` if the image has to be resolved.
#[must_use]
pub fn before_resolving(case: &Case<'_>) -> Option<Decision> {
    let digest = case.reference.digest();
    if case.pod.namespace.as_ref().is_some_and(|namespace| {
        case.exempt_namespaces.iter().any(|pattern| wildcard::matches(pattern, namespace))
    }) {
        return Some(Decision::Allow(Permit::by_rule(case, digest, Source::Exempt)));
    }
    let repository = case.reference.repository();
    match digest {
        Some(digest) if case.approved.holds(repository, digest) => {
            return Some(Decision::Allow(Permit::verified(case, digest, Source::Approved)));
        }
        // The tag may stand for an approved digest.
        None if case.approved.names(repository) => return None,
        Some(_) | None => {}
    }
    settled_by_rule(case, digest)
}

/// Whether a resolved image is settled without looking at any evidence.
#[must_use]
pub fn before_verifying(case: &Case<'_>, digest: Digest) -> Option<Decision> {
    if case.approved.holds(case.reference.repository(), digest) {
        return Some(Decision::Allow(Permit::verified(case, digest, Source::Approved)));
    }
    settled_by_rule(case, Some(digest))
}

fn settled_by_rule(case: &Case<'_>, digest: Option<Digest>) -> Option<Decision> {
    if case.policies.is_empty() {
        return Some(refused_by_gate(case, digest, DenialReason::NoPolicy, "no policy loaded"));
    }
    if case.applications.is_empty() {
        return Some(match case.unmatched {
            Unmatched::Allow => Decision::Allow(Permit::by_rule(case, digest, Source::Unmatched)),
            Unmatched::Deny => {
                refused_by_gate(case, digest, DenialReason::Unmatched, "no policy covers this image")
            }
        });
    }
    let judged = case.applications.iter().flat_map(|application| &application.entries);
    let all_skipped = judged.clone().all(|covered| covered.coverage == Coverage::Skipped);
    all_skipped.then(|| Decision::Allow(Permit::by_rule(case, digest, Source::Skipped).pinned_if_read(case)))
}

/// The image could not be resolved.
pub fn unresolved(case: &Case<'_>, fault: Fault) -> Decision {
    // Nothing that covers the image refuses: only an approved line made it worth resolving.
    if let Some(decision) = settled_by_rule(case, None) {
        return decision;
    }
    undecided(case, None, fault, Resolution::NotAsked)
}

/// Every entry that covers the image was judged for `digest`.
pub fn decide(case: &Case<'_>, digest: Digest, resolution: Resolution, judged: &[Judged]) -> Decision {
    let (mut refusing, mut reporting) = (Vec::new(), Vec::new());
    let (mut refusing_fault, mut reporting_fault, mut ignored_fault) = (None, None, None);
    let (mut satisfied, mut ignored, mut covered) = (0_usize, 0_usize, 0_usize);
    let mut source = Source::Fresh;
    // `applyRules: One`: the policy in which a rule passed or failed. Its later rules neither refuse nor
    // allow anything; a rule without a definite answer ends nothing.
    let mut done_with = None::<&str>;
    for application in case.applications {
        if done_with == Some(application.policy.as_str()) {
            continue;
        }
        if ends_policy(application, judged) {
            done_with = Some(&application.policy);
        }
        let enforced = application.action == Action::Enforce && case.mode == Mode::Enforce;
        for covering in application.entries.iter().filter(|entry| entry.coverage == Coverage::Judged) {
            covered += usize::from(enforced);
            let entry = &covering.entry;
            let verdict = Judged::of(entry, judged).map(|judged| (&judged.verdict, judged.source));
            match verdict {
                Some((EntryVerdict::Satisfied(proof), from)) if proof.digest() == digest => {
                    if enforced {
                        satisfied += 1;
                        source = older(source, from);
                    }
                }
                Some((EntryVerdict::Denied(denial), _)) => {
                    if enforced { &mut refusing } else { &mut reporting }.push(denial.clone());
                }
                Some((EntryVerdict::Undecided(fault), _)) => {
                    let slot = if !enforced {
                        &mut reporting_fault
                    } else if ignored_by_upstream(case, entry, fault) {
                        ignored += 1;
                        &mut ignored_fault
                    } else {
                        &mut refusing_fault
                    };
                    *slot = Some(telling(slot.take(), fault));
                }
                Some((EntryVerdict::Satisfied(_) | EntryVerdict::NeedsBundles, _)) | None => {
                    return Decision::Undecided(not_judged());
                }
            }
        }
    }
    for list in [&mut refusing, &mut reporting] {
        list.sort_by(|left, right| (&left.policy, &left.rule).cmp(&(&right.policy, &right.rule)));
    }
    if !refusing.is_empty() {
        refusing.append(&mut reporting);
        return Decision::Deny(refusing);
    }
    if let Some(fault) = refusing_fault {
        return undecided(case, Some(digest), fault, resolution);
    }
    if satisfied + ignored != covered {
        return Decision::Undecided(not_judged());
    }
    if let Some(fault) = ignored_fault {
        // What other policies proved of this digest must not go to another one.
        let forward = Forward::Pinned(case.reference.pinned(digest));
        let permit = Permit::ignored(case, Some(digest), fault);
        return Decision::Allow(Permit { forward, would_deny: reporting, ..permit });
    }
    let proven = covered > 0 || (reporting.is_empty() && reporting_fault.is_none());
    let permit = if proven {
        let source = if covered == 0 {
            judged.iter().fold(source, |source, judged| older(source, judged.source))
        } else {
            source
        };
        Permit::verified(case, digest, source)
    } else {
        Permit::by_rule(case, Some(digest), Source::Audited).pinned_if_read(case)
    };
    Decision::Allow(Permit { would_deny: reporting, would_fault: reporting_fault, ..permit })
}

/// `applyRules: One`: whether the rule passed or failed for certain, so that later ones of its policy are
/// not applied.
pub(super) fn ends_policy(application: &Application, judged: &[Judged]) -> bool {
    let ends = |covered: &&Covered| {
        covered.coverage == Coverage::Judged && covered.following == Following::NotApplied
    };
    application.entries.iter().filter(ends).any(|covered| {
        let verdict = Judged::of(&covered.entry, judged).map(|judged| &judged.verdict);
        matches!(verdict, Some(EntryVerdict::Satisfied(_) | EntryVerdict::Denied(_)))
    })
}

/// A child of an index: `parent` is that index, lists `child`, and is proven by `judged` to satisfy every
/// entry (rule D7). `None` if it is denied, or a rule only lets it pass.
///
/// # Errors
/// What kept it from being decided; of audit rules too, since what they say decides the same.
pub fn by_parent(
    case: &Case<'_>,
    child: Digest,
    parent: Digest,
    judged: &[Judged],
) -> Result<Option<Permit>, Fault> {
    let permit = match decide(case, parent, Resolution::Answered, judged) {
        Decision::Allow(permit) => permit,
        Decision::Deny(_) => return Ok(None),
        Decision::Undecided(fault) => return Err(fault),
    };
    match (permit.would_fault, permit.forward) {
        _ if !permit.would_deny.is_empty() || permit.digest != Some(parent) => Ok(None),
        (Some(fault), _) => Err(fault),
        (None, Forward::Pinned(_)) => Ok(Some(Permit::verified(case, child, permit.source))),
        (None, Forward::AsSent) => Ok(None),
    }
}

/// `compatibility: strict` under `failurePolicy: Ignore`: upstream lets a rule pass whose variables have no
/// value, and a failed connection at any time while signatures are verified. What happens to attestations
/// it calls a failure, whatever it is.
fn ignored_by_upstream(case: &Case<'_>, entry: &Entry, fault: &Fault) -> bool {
    let error = fault.reason == FaultReason::PolicyUnresolved
        || (fault.contact == Contact::None && entry.attestations.is_empty());
    error
        && case.policies.compatibility == Compatibility::Strict
        && entry.failure_policy() == FailurePolicy::Ignore
}

/// Of two faults the one that never passes, then by their texts, so that the answer does not depend on
/// timing.
fn telling(known: Option<Fault>, other: &Fault) -> Fault {
    let rank = |fault: &Fault| (fault.contact == Contact::Answered, fault.message.clone());
    match known {
        Some(known) if rank(&known) >= rank(other) => known,
        Some(_) | None => other.clone(),
    }
}

/// Faults become decisions here and nowhere else (rule D4).
fn undecided(case: &Case<'_>, digest: Option<Digest>, fault: Fault, resolution: Resolution) -> Decision {
    let judged = |application: &&Application| {
        application.entries.iter().any(|entry| entry.coverage == Coverage::Judged)
    };
    let mut refusing = case
        .applications
        .iter()
        .filter(judged)
        .filter(|application| application.action == Action::Enforce && case.mode == Mode::Enforce)
        .flat_map(|application| &application.entries)
        .peekable();
    if refusing.peek().is_none() {
        let permit = Permit::by_rule(case, digest, Source::Audited).pinned_if_read(case);
        return Decision::Allow(Permit { would_fault: Some(fault), ..permit });
    }
    let nobody_answered = fault.contact == Contact::None && resolution == Resolution::NotAsked;
    if nobody_answered && refusing.all(|covered| covered.entry.failure_policy() == FailurePolicy::Ignore) {
        return Decision::Allow(Permit::ignored(case, digest, fault).pinned_if_read(case));
    }
    Decision::Undecided(fault)
}

/// A refusal by the gate itself, which audit mode lets pass.
fn refused_by_gate(case: &Case<'_>, digest: Option<Digest>, reason: DenialReason, cause: &str) -> Decision {
    let denial = Denial {
        reason,
        policy: String::new(),
        rule: String::new(),
        cause: cause.to_owned(),
        detail: format!("{cause}: {}", case.reference.kyverno_form()),
    };
    match case.mode {
        Mode::Enforce => Decision::Deny(vec![denial]),
        Mode::Audit => {
            let permit = Permit::by_rule(case, digest, Source::Audited);
            Decision::Allow(Permit { would_deny: vec![denial], ..permit })
        }
    }
}

fn not_judged() -> Fault {
    Fault::new(FaultReason::Internal, "an entry was not judged")
}

/// Of two origins the one that says more about how old the proof is.
fn older(left: Source, right: Source) -> Source {
    let rank = |source: Source| match source {
        Source::Stale => 2,
        Source::Verified => 1,
        Source::Fresh
        | Source::Skipped
        | Source::Audited
        | Source::Exempt
        | Source::Approved
        | Source::Unmatched
        | Source::Ignored => 0,
    };
    if rank(right) > rank(left) { right } else { left }
}
