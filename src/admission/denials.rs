//! Denials of the last seconds (rule C2).
//!
//! A pod with several pull secrets, or several pods of one workload, ask the same at once; a definite
//! denial is remembered for [`MEMORY`] per question and credential. Faults are never remembered, and
//! a new snapshot forgets everything.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Outcome;
use crate::oci::Digest;
use crate::policy::EntryVerdict;

/// What was verified, and the credential that asked.
pub(super) type Question = (Digest, Digest);

/// The denials of the last seconds.
#[derive(Default)]
pub(super) struct Denials(Mutex<BTreeMap<Question, (Instant, Vec<Outcome>)>>);

impl Denials {
    /// The outcomes of the same question, if it was denied a moment before `now`.
    pub(super) fn of(&self, question: Question, now: Instant) -> Option<Vec<Outcome>> {
        let denials = self.lock();
        let (at, outcomes) = denials.get(&question)?;
        (now.duration_since(*at) < MEMORY).then(|| outcomes.clone())
    }

    /// Remembers the outcomes if they are a definite denial.
    pub(super) fn keep(&self, question: Question, outcomes: &[Outcome], now: Instant) {
        let denied = |outcome: &Outcome| matches!(outcome.judged.verdict, EntryVerdict::Denied(_));
        let undecided = |outcome: &Outcome| {
            matches!(outcome.judged.verdict, EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles)
        };
        if outcomes.iter().any(undecided) || !outcomes.iter().any(denied) {
            return;
        }
        let mut denials = self.lock();
        denials.retain(|_, (at, _)| now.duration_since(*at) < MEMORY);
        if denials.len() < MOST {
            denials.insert(question, (now, outcomes.to_vec()));
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Lets time pass for what is remembered.
    #[cfg(test)]
    pub(super) fn pass(&self, time: Duration) {
        for (at, _) in self.lock().values_mut() {
            *at = at.checked_sub(time).expect("the machine runs longer than that");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Question, (Instant, Vec<Outcome>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rule C2.
const MEMORY: Duration = Duration::from_secs(5);
/// Denials remembered at once; the kubelet's own limits keep it far below.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Denial, DenialReason, Fault, FaultReason};
    use crate::policy::evaluate::{Judged, Source};
    use crate::policy::{Explanation, Satisfied};

    fn outcome(verdict: EntryVerdict) -> Outcome {
        let judged =
            Judged { policy: "p".into(), rule: "r".into(), index: 0, verdict, source: Source::Verified };
        let explanation =
            Explanation { rule: "p/r".into(), entry: 0, attestors: Vec::new(), denies: Vec::new() };
        Outcome { judged, explanation, in_doubt: false }
    }

    fn denied() -> Outcome {
        outcome(EntryVerdict::Denied(Denial {
            reason: DenialReason::SignatureNotFound,
            policy: "p".into(),
            rule: "r".into(),
            cause: "signature not found".into(),
            detail: String::new(),
        }))
    }

    fn question(what: &str, who: &str) -> Question {
        (Digest::of(what.as_bytes()), Digest::of(who.as_bytes()))
    }

    #[test]
    fn c2_pitfall_28_a_denial_is_remembered_for_5_s_per_question_and_credential() {
        let (denials, start) = (Denials::default(), Instant::now());
        denials.keep(question("image", "ada"), &[denied()], start);
        let asked = |what, who, after: u64| {
            denials.of(question(what, who), start + Duration::from_millis(after)).is_some()
        };
        assert!(asked("image", "ada", 0) && asked("image", "ada", 4_999));
        assert!(!asked("image", "ada", 5_000), "past its time");
        assert!(!asked("image", "bob", 0), "another credential");
        assert!(!asked("other", "ada", 0), "another question");
        denials.clear();
        assert!(!asked("image", "ada", 0), "a new snapshot");
    }

    #[test]
    fn c2_faults_and_allows_are_never_remembered() {
        let now = Instant::now();
        let fault = outcome(EntryVerdict::Undecided(Fault::new(FaultReason::Timeout, "m")));
        let allowed = outcome(EntryVerdict::Satisfied(Satisfied::remembered(Digest::of(b"d"))));
        for outcomes in [vec![fault.clone()], vec![denied(), fault], vec![allowed], Vec::new()] {
            let denials = Denials::default();
            denials.keep(question("image", "ada"), &outcomes, now);
            assert!(denials.of(question("image", "ada"), now).is_none(), "{outcomes:?}");
        }
    }

    #[test]
    fn c2_denials_are_bounded_and_make_room_by_age_alone() {
        let (denials, start) = (Denials::default(), Instant::now());
        let remembered = |n: usize, now| denials.of(question(&n.to_string(), "ada"), now).is_some();
        for n in 0..=MOST {
            denials.keep(question(&n.to_string(), "ada"), &[denied()], start);
        }
        assert!((0..MOST).all(|n| remembered(n, start)));
        assert!(!remembered(MOST, start), "one too many");
        let later = start + MEMORY;
        denials.keep(question(&MOST.to_string(), "ada"), &[denied()], later);
        assert!(remembered(MOST, later));
        assert_eq!(denials.lock().len(), 1);
    }
}
