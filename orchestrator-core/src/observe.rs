//! Observers: code that sees every event after it happened, such as the terminal's progress line.

use std::fmt;
use std::time::Duration;

use crate::backend::record::RunInfo;
use crate::error::TaskError;
use crate::state::Transition;

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

    /// The journal gave up on a number of events, and why.
    fn on_loss(&self, _lost: u64, _why: &str) {}
}
