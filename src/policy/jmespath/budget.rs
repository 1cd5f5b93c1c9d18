//! What the expressions of one verdict may cost.
//!
//! Predicates are written by whoever signs; expressions walk them in loops inside loops. Every value
//! that an expression visits is a step, every byte that it makes is output. Reaching either limit is
//! an error of the evaluation and never a value: no construct swallows it.

use super::EvaluationError;

/// Steps and bytes that are left; shared by all expressions of one verdict.
#[derive(Debug)]
pub(in crate::policy) struct Budget {
    steps: Left,
    output: Left,
}

#[derive(Debug)]
struct Left {
    limit: u64,
    used: u64,
}

impl Budget {
    /// What one verdict gets.
    pub(in crate::policy) const fn of_verdict() -> Self {
        Self::limited(STEPS, OUTPUT)
    }

    /// A budget of `steps` values to visit and `output` bytes to make.
    pub(in crate::policy) const fn limited(steps: u64, output: u64) -> Self {
        Self { steps: Left { limit: steps, used: 0 }, output: Left { limit: output, used: 0 } }
    }

    /// Takes `count` steps.
    pub(in crate::policy) fn step(&mut self, count: usize) -> Result<(), EvaluationError> {
        let limit = self.steps.limit;
        self.steps.take(count).ok_or(EvaluationError::TooManySteps { limit })
    }

    /// Takes `bytes` of output, before they are allocated.
    pub(in crate::policy) fn output(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        let limit = self.output.limit;
        self.output.take(bytes).ok_or(EvaluationError::TooMuchOutput { limit })
    }
}

impl Left {
    fn take(&mut self, count: usize) -> Option<()> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        // What did not fit is spent all the same: nothing later fits either.
        self.used = self.used.saturating_add(count);
        (self.used <= self.limit).then_some(())
    }
}

/// A few seconds of a processor. Fifty conditions on the largest predicate that is read take a third of it.
const STEPS: u64 = 20_000_000;
/// Three times the largest predicate that is read.
const OUTPUT: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let mut budget = Budget::limited(10, 100);
        assert_eq!(budget.step(10), Ok(()));
        assert_eq!(budget.step(1), Err(EvaluationError::TooManySteps { limit: 10 }));
        assert_eq!(budget.output(100), Ok(()));
        assert_eq!(budget.output(usize::MAX), Err(EvaluationError::TooMuchOutput { limit: 100 }));
        assert_eq!(budget.output(0), Err(EvaluationError::TooMuchOutput { limit: 100 }));
    }
}
