//! Denials of the last seconds (rule C2).
//!
//! A pod with several pull secrets, or several pods of one workload, ask the same at once; a definite
//! denial is remembered for [`MEMORY`] per question and credential. Faults are never remembered, and
//! a new snapshot forgets everything.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use crate::oci::Digest;
use crate::policy::EntryVerdict;

/// What was verified, and the credential that asked.
pub(super) type Question = (Digest, Digest);

/// The denials of the last seconds.
#[derive(Default)]
pub(super) struct Denials(Mutex<BTreeMap<Question, (Instant, Vec<Outcome>)>>);

impl Denials {
    /// The outcomes of the same question, if it was denied a moment ago.
    pub(super) fn of(&self, question: Question) -> Option<Vec<Outcome>> {
        let denials = self.lock();
        let (at, outcomes) = denials.get(&question)?;
        (at.elapsed() < MEMORY).then(|| outcomes.clone())
    }

    /// Remembers the outcomes if they are a definite denial.
    pub(super) fn keep(&self, question: Question, outcomes: &[Outcome]) {
        let denied = |outcome: &Outcome| matches!(outcome.judged.verdict, EntryVerdict::Denied(_));
        let undecided = |outcome: &Outcome| {
            matches!(outcome.judged.verdict, EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles)
        };
        if outcomes.iter().any(undecided) || !outcomes.iter().any(denied) {
            return;
        }
        let mut denials = self.lock();
        denials.retain(|_, (at, _)| at.elapsed() < MEMORY);
        if denials.len() < MOST {
            denials.insert(question, (Instant::now(), outcomes.to_vec()));
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Question, (Instant, Vec<Outcome>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rule C2.
const MEMORY: Duration = Duration::from_secs(5);
/// Denials remembered at once; the kubelet's own limits keep it far below.
const MOST: usize = 1024;
