//! What happens next in a run: a plain function from event to decision, without I/O, clock or locks.
//!
//! `docs/state-machine.md` shows it as a diagram; a test compares the two.

use std::time::Duration;

use super::rules::{ENTERING, Rule};
use crate::state::StateName;

/// Something that happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Every upstream run ended and the arguments are there: sent first, unless one of the next two is.
    InputsReady,
    /// An upstream run did not complete: sent first.
    UpstreamFailed,
    /// A rule has nothing against an attempt.
    Passed,
    /// No rule has anything against an attempt.
    AllPassed,
    /// A rule found the result: sent by the cache look-up.
    Answered,
    /// Somebody else computed the same meanwhile: look again.
    StartOver,
    /// A rule says that the run can never start: an unknown limit, a cycle of slots.
    Refused,
    /// The body gave a result.
    Succeeded,
    /// The body failed, panicked, or left a child's failure unobserved.
    Failed { retryable: bool, delay: Duration },
    /// The attempt overran its timeout.
    TimedOut { delay: Duration },
    /// The delay before a retry is over.
    DelayOver,
    /// The run was asked to end: sent at any time.
    CancelRequested,
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision does nothing unless it is carried out"]
pub(crate) enum Decision {
    /// Ask this rule.
    Apply(Rule),
    /// Enter the state and run the body.
    Attempt { state: StateName, last: bool },
    /// Give everything back, enter AwaitingRetry and wait.
    Delay(Duration),
    /// Enter Cancelling, wait for what the run started, and end as Cancelled.
    Cancel,
    /// Enter the terminal state.
    End(StateName),
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Attempts that may be made: retries and one.
    allowed: u32,
    /// Attempts that were begun.
    begun: u32,
    /// Attempts that failed.
    failed: u32,
    /// The next rule to ask.
    rule: u8,
    /// Whether a delay lies between the last attempt that failed and the next.
    delayed: bool,
}

impl Machine {
    pub(crate) const fn new(retries: u32) -> Self {
        Self { allowed: retries.saturating_add(1), begun: 0, failed: 0, rule: 0, delayed: false }
    }

    /// How many attempts were begun.
    pub(crate) const fn begun(&self) -> u32 {
        self.begun
    }

    /// How many attempts have failed, asked when another one may follow.
    pub(crate) const fn failed(&self) -> u32 {
        self.failed
    }

    /// Whether a delay lies between the last attempt that failed and the next.
    pub(crate) const fn is_delayed(&self) -> bool {
        self.delayed
    }

    /// How many attempts may be made.
    pub(crate) const fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Whether a failed attempt may be followed by another.
    pub(crate) const fn may_retry(&self) -> bool {
        self.begun < self.allowed
    }

    pub(crate) fn on(&mut self, event: Event) -> Decision {
        match event {
            Event::InputsReady | Event::DelayOver | Event::StartOver => self.enter(),
            Event::UpstreamFailed => Decision::End(StateName::NotReady),
            Event::Passed => self.next_rule(),
            Event::AllPassed => self.attempt(),
            Event::Answered => Decision::End(StateName::Cached),
            Event::Refused => Decision::End(StateName::Failed),
            Event::Succeeded => Decision::End(StateName::Completed),
            Event::Failed { retryable, delay } if retryable && self.may_retry() => self.again(delay),
            Event::TimedOut { delay } if self.may_retry() => self.again(delay),
            Event::Failed { .. } => Decision::End(StateName::Failed),
            Event::TimedOut { .. } => Decision::End(StateName::TimedOut),
            Event::CancelRequested => Decision::Cancel,
        }
    }

    fn again(&mut self, delay: Duration) -> Decision {
        (self.failed, self.delayed) = (self.begun, !delay.is_zero());
        if self.delayed { Decision::Delay(delay) } else { self.enter() }
    }

    fn enter(&mut self) -> Decision {
        self.rule = 0;
        self.next_rule()
    }

    fn next_rule(&mut self) -> Decision {
        while let Some(entry) = ENTERING.get(usize::from(self.rule)) {
            self.rule += 1;
            if entry.each_attempt || self.begun == 0 {
                return Decision::Apply(entry.rule);
            }
        }
        self.attempt()
    }

    fn attempt(&mut self) -> Decision {
        self.begun += 1;
        let state = if self.begun == 1 { StateName::Running } else { StateName::Retrying };
        Decision::Attempt { state, last: !self.may_retry() }
    }
}

/// The states that may follow each state, and any that is not terminal may be followed by Crashed. Terminal ones have no
/// successor, but for a run that completed and is undone, and for a flow run that did not complete and is resumed.
pub(crate) const TRANSITIONS: [(StateName, &[StateName]); 12] = {
    use StateName as S;
    let ended: &[StateName] = &[
        S::Completed,
        S::Failed,
        S::TimedOut,
        S::AwaitingRetry,
        S::AwaitingConcurrencySlot,
        S::Retrying,
        S::Paused,
        S::Cancelling,
        S::Crashed,
    ];
    [
        (
            S::Pending,
            &[S::Running, S::AwaitingConcurrencySlot, S::Cached, S::NotReady, S::Failed, S::Cancelling, S::Crashed],
        ),
        // Once for the flow's capacity, once for named slots.
        (
            S::AwaitingConcurrencySlot,
            &[S::AwaitingConcurrencySlot, S::Running, S::Retrying, S::Cached, S::Failed, S::Cancelling, S::Crashed],
        ),
        (S::Running, ended),
        (S::Retrying, ended),
        (S::AwaitingRetry, &[S::Retrying, S::AwaitingConcurrencySlot, S::Failed, S::Cancelling, S::Crashed]),
        (S::Paused, &[S::Running, S::Cancelling, S::Crashed]),
        (S::Cancelling, &[S::Cancelled, S::Crashed]),
        (S::Completed, &[S::RolledBack]),
        (S::Failed, &[S::Running]),
        (S::TimedOut, &[S::Running]),
        (S::Crashed, &[S::Running]),
        (S::Cancelled, &[S::Running]),
    ]
};

/// Whether a run may go from one state to the other.
pub(crate) fn may_follow(from: StateName, to: StateName) -> bool {
    TRANSITIONS.iter().any(|(state, next)| *state == from && next.contains(&to))
}

/// A delay spread at random around its median.
///
/// `roll` is uniform in `0..1`. The delay is drawn from an exponential distribution with `delay` as its median, cut
/// off at `delay * (1 + jitter)` above and, so that the median stays where it is, at the same share of probability
/// below: for a jitter of 0.5 at 0.63 of the delay. This is the clamped interval of Prefect's `retry_jitter_factor`.
pub(crate) fn jittered(delay: Duration, jitter: f64, roll: f64) -> Duration {
    if jitter <= 0.0 || delay.is_zero() {
        return delay;
    }
    let tail = 2.0_f64.powf(-(1.0 + jitter));
    let share = tail + roll.clamp(0.0, 1.0) * (1.0 - 2.0 * tail);
    let multiple = -(1.0 - share).log2();
    Duration::try_from_secs_f64(delay.as_secs_f64() * multiple).unwrap_or(delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;
    const LATER: Duration = Duration::from_secs(1);

    /// Feeds events and lists the states that a run with those events shows after Pending.
    fn states(retries: u32, events: &[Event]) -> Vec<StateName> {
        let mut machine = Machine::new(retries);
        let mut shown = Vec::new();
        for event in events {
            let mut decision = machine.on(*event);
            while let Decision::Apply(_) = decision {
                decision = machine.on(Event::Passed);
            }
            match decision {
                Decision::Attempt { state, .. } | Decision::End(state) => shown.push(state),
                Decision::Delay(_) => shown.push(StateName::AwaitingRetry),
                Decision::Cancel => shown.extend([StateName::Cancelling, StateName::Cancelled]),
                Decision::Apply(_) => unreachable!("every rule was passed"),
            }
        }
        shown
    }

    #[test]
    fn each_row_of_the_table_of_states() {
        use Event::*;
        use StateName as S;
        let failed = |delay| Failed { retryable: true, delay };
        assert_eq!(states(0, &[InputsReady, Succeeded]), [S::Running, S::Completed]);
        assert_eq!(
            states(2, &[InputsReady, failed(NOW), failed(NOW), failed(NOW)]),
            [S::Running, S::Retrying, S::Retrying, S::Failed]
        );
        assert_eq!(
            states(1, &[InputsReady, failed(LATER), DelayOver, Succeeded]),
            [S::Running, S::AwaitingRetry, S::Retrying, S::Completed]
        );
        assert_eq!(states(3, &[UpstreamFailed]), [S::NotReady]);
        assert_eq!(
            states(1, &[InputsReady, TimedOut { delay: NOW }, TimedOut { delay: NOW }]),
            [S::Running, S::Retrying, S::TimedOut]
        );
        assert_eq!(states(3, &[InputsReady, Failed { retryable: false, delay: LATER }]), [S::Running, S::Failed]);
        assert_eq!(states(3, &[InputsReady, CancelRequested]), [S::Running, S::Cancelling, S::Cancelled]);
        let mut machine = Machine::new(0);
        assert_eq!(machine.on(InputsReady), Decision::Apply(Rule::CacheLookUp));
        assert_eq!(machine.on(Answered), Decision::End(S::Cached));
    }

    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let page = include_str!("../../../docs/state-machine.md");
        let mut documented: Vec<(String, String)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix('|')?.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
                let (from, to) = (cells.next()?, cells.next()?);
                (StateName::parse(&from).is_some() && StateName::parse(&to).is_some()).then_some((from, to))
            })
            .collect();
        let mut in_force: Vec<(String, String)> = TRANSITIONS
            .iter()
            .flat_map(|(from, next)| next.iter().map(|to| (from.to_string(), to.to_string())))
            .collect();
        documented.sort();
        in_force.sort();
        assert_eq!(documented, in_force);
    }

    #[test]
    fn a_retry_does_not_look_into_the_cache_again() {
        let mut machine = Machine::new(1);
        let mut asked = Vec::new();
        let mut decision = machine.on(Event::InputsReady);
        while let Decision::Apply(rule) = decision {
            asked.push(rule);
            decision = machine.on(Event::Passed);
        }
        assert_eq!(asked.first(), Some(&Rule::CacheLookUp));
        let first = machine.on(Event::Failed { retryable: true, delay: NOW });
        assert!(matches!(first, Decision::Apply(rule) if rule != Rule::CacheLookUp));
    }

    proptest! {
        #[test]
        fn attempts_never_exceed_retries_and_one(retries in 0_u32..6, rolls: Vec<(u8, bool)>) {
            let mut machine = Machine::new(retries);
            let mut event = Event::InputsReady;
            let mut attempts = 0;
            for (roll, late) in rolls {
                let delay = if late { LATER } else { NOW };
                let decision = machine.on(event);
                event = match decision {
                    Decision::Apply(_) => Event::Passed,
                    Decision::Attempt { last, .. } => {
                        attempts += 1;
                        prop_assert_eq!(last, attempts == retries + 1);
                        match roll % 3 {
                            0 => Event::Failed { retryable: roll & 8 == 0, delay },
                            1 => Event::TimedOut { delay },
                            _ => Event::Failed { retryable: true, delay },
                        }
                    }
                    Decision::Delay(delay) => {
                        prop_assert!(!delay.is_zero());
                        Event::DelayOver
                    }
                    Decision::Cancel | Decision::End(_) => break,
                };
                prop_assert!(attempts <= retries + 1);
            }
        }

        #[test]
        fn jitter_stays_within_its_bounds(seconds in 0.001_f64..1e5, jitter in 0.0_f64..3.0, roll in 0.0_f64..1.0) {
            let delay = Duration::from_secs_f64(seconds);
            let multiple = jittered(delay, jitter, roll).as_secs_f64() / delay.as_secs_f64();
            prop_assert!(multiple <= 1.0 + jitter + 1e-6);
            let power = 2.0_f64.powf(1.0 + jitter);
            prop_assert!(multiple >= (power / (power - 1.0)).log2() - 1e-6, "{multiple}");
        }
    }

    #[test]
    fn jitter_keeps_the_median_and_the_published_lower_ends() {
        for (jitter, low) in [(0.1, 0.906), (0.3, 0.752), (0.5, 0.629), (1.0, 0.415), (2.0, 0.193)] {
            let at = |roll| jittered(Duration::from_secs(1000), jitter, roll).as_secs_f64() / 1000.0;
            assert!((at(0.0) - low).abs() < 0.001, "{jitter}: {}", at(0.0));
            assert!((at(0.5) - 1.0).abs() < 1e-9);
            assert!((at(1.0) - 1.0 - jitter).abs() < 1e-9);
        }
    }
}
