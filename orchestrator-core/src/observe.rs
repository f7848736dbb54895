//! Observers: code that sees every event after it happened, such as the terminal's progress line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::record::RunInfo;
use crate::engine::panics;
use crate::error::TaskError;
use crate::state::{StateName, Transition};

/// Something that happened to a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Observed<'a> {
    /// The run.
    pub run: &'a RunInfo,
    /// The run's name at that moment.
    pub name: &'a str,
    /// Whether the program chose that name; else it is function and number, or for a flow run a random one.
    pub named: bool,
    /// The state that it entered.
    pub transition: &'a Transition,
    /// How often its body had been started by then.
    pub run_count: u32,
    /// On a terminal state, the time since the body was first started; `None` if it never was.
    pub duration: Option<Duration>,
    /// On a terminal state that is not Completed, why.
    pub error: Option<&'a TaskError>,
}

/// Sees every run that is submitted, and every transition after it happened, on the thread where it happened.
///
/// An observer must not block: the run waits for it. A panic of an observer is reported, and the run goes on.
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// A run entered a state.
    fn on_transition(&self, event: &Observed<'_>);

    /// A run was submitted: it is Pending.
    fn on_submit(&self, _event: &Observed<'_>) {}

    /// Whether it looks at task runs that enter that state; for Pending, at those that are submitted, too. Flow runs it sees in
    /// any case.
    ///
    /// Asked once, when the orchestrator is built, so that nothing is made ready that nobody looks at. As long as others
    /// look, it may be shown what it does not look at.
    fn watches(&self, _state: StateName) -> bool {
        true
    }

    /// The journal gave up on a number of events, and why.
    fn on_loss(&self, _lost: u64, _why: &str) {}
}

/// Those that see what happens under one orchestrator.
#[derive(Debug)]
pub(crate) struct Observers {
    all: Vec<Arc<dyn Observer>>,
    /// The states in which any of them looks at task runs: a bit for each.
    states: u32,
}

const fn bit(state: StateName) -> u32 {
    1 << state as u32
}

impl Observers {
    pub(crate) fn new(all: Vec<Arc<dyn Observer>>) -> Self {
        // They are code of others: one that cannot say it looks at all.
        let watches = |state| all.iter().any(|one| panics::shield(|| one.watches(state)).unwrap_or(true));
        let states = StateName::ALL.into_iter().filter(|state| watches(*state)).map(bit).fold(0, |all, bit| all | bit);
        Self { all, states }
    }

    /// Whether any of them looks at a run that enters that state.
    pub(crate) const fn watch(&self, is_flow: bool, state: StateName) -> bool {
        if is_flow { !self.all.is_empty() } else { self.states & bit(state) != 0 }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn Observer> {
        self.all.iter().map(|observer| &**observer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Looks(&'static [StateName]);

    impl Observer for Looks {
        fn on_transition(&self, _: &Observed<'_>) {}

        fn watches(&self, state: StateName) -> bool {
            assert_ne!(state, StateName::Late, "it cannot say");
            self.0.contains(&state)
        }
    }

    #[test]
    fn they_watch_what_any_of_them_looks_at_and_each_flow_run() {
        let watched = |observers: &[&'static [StateName]]| {
            let all = observers.iter().map(|states| Arc::new(Looks(states)) as Arc<dyn Observer>).collect();
            let observers = Observers::new(all);
            let of = |is_flow| StateName::ALL.into_iter().filter(|state| observers.watch(is_flow, *state)).collect();
            let [tasks, flows]: [Vec<StateName>; 2] = [of(false), of(true)];
            (tasks, flows.len())
        };
        assert_eq!(watched(&[]), (Vec::new(), 0));
        let (tasks, flows) = watched(&[&[StateName::Failed], &[StateName::Pending, StateName::Failed]]);
        assert_eq!(tasks, [StateName::Late, StateName::Pending, StateName::Failed]);
        assert_eq!(flows, StateName::ALL.len());
    }
}
