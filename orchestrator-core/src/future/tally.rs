//! What became of many runs, in numbers.

use std::fmt;

use crate::error::{Cause, FailureKind, TaskError};

/// How many of several runs ended how.
///
/// ```
/// use orchestrator_core::{Tally, TaskError};
///
/// # async fn check(outcomes: Vec<Result<u32, TaskError>>) -> Result<(), TaskError> {
/// // What `map.settled().await` gives.
/// let tally = Tally::of(&outcomes);
/// println!("{tally}"); // 2 of 10 runs failed: task run 'fetch-3' failed: connection refused
/// tally.at_most(3)
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tally {
    /// How many runs there were.
    pub total: usize,
    /// How many gave a result.
    pub completed: usize,
    /// How many failed, with an error or a panic, or were refused.
    pub failed: usize,
    /// How many took too long.
    pub timed_out: usize,
    /// How many were cancelled.
    pub cancelled: usize,
    /// How many were not started because something upstream did not complete.
    pub not_ready: usize,
    /// How many were lost because the runtime or machine under them went away.
    pub crashed: usize,
    first: Option<TaskError>,
}

impl Tally {
    /// Counts the outcomes.
    pub fn of<T>(outcomes: &[Result<T, TaskError>]) -> Self {
        let mut tally = Self { total: outcomes.len(), ..Self::default() };
        for outcome in outcomes {
            let Err(error) = outcome else {
                tally.completed += 1;
                continue;
            };
            *match error.0.kind {
                FailureKind::Failed | FailureKind::Panicked | FailureKind::Refused => &mut tally.failed,
                FailureKind::TimedOut => &mut tally.timed_out,
                FailureKind::Cancelled => &mut tally.cancelled,
                FailureKind::NotReady => &mut tally.not_ready,
                FailureKind::Crashed => &mut tally.crashed,
            } += 1;
            tally.first.get_or_insert_with(|| error.clone());
        }
        tally
    }

    /// How many did not complete, for whatever reason.
    #[must_use]
    pub const fn not_completed(&self) -> usize {
        self.total - self.completed
    }

    /// The failure of the first run that did not complete.
    #[must_use]
    pub const fn first_failure(&self) -> Option<&TaskError> {
        self.first.as_ref()
    }

    /// Accepts that up to so many runs did not complete.
    ///
    /// # Errors
    ///
    /// If more did not. The error says what the tally's `Display` says, and its source is the first failure.
    pub fn at_most(&self, failures: usize) -> Result<(), TaskError> {
        match &self.first {
            Some(first) if self.not_completed() > failures => {
                Err(TaskError::new(FailureKind::Failed, None, Cause::Several(self.to_string(), first.clone())))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = &self.first else {
            return write!(f, "{} of {} runs completed", self.completed, self.total);
        };
        let all_failed = self.failed == self.not_completed();
        let what = if all_failed { "failed" } else { "did not complete" };
        write!(f, "{} of {} runs {what}: {}", self.not_completed(), self.total, first.first_cause())
    }
}

/// The results of runs that have all completed.
///
/// # Errors
///
/// If one did not: the error says how many, and its source is the first failure. Awaiting a map gives the first failure
/// itself instead, and at once.
pub fn all_completed<T>(outcomes: Vec<Result<T, TaskError>>) -> Result<Vec<T>, TaskError> {
    Tally::of(&outcomes).at_most(0)?;
    outcomes.into_iter().collect()
}
