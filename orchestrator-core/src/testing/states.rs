//! Assertions on the states of one run.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::diff;
use crate::error::Error;
use crate::id::RunId;
use crate::orchestrator::Orchestrator;

/// Compares the states that a run went through so far, under the current orchestrator, with those named.
///
/// The run is an id, or a reference to a future: `assert_states(&run, ["Pending", "Running", "Completed"]).await`.
///
/// # Panics
///
/// When awaited, if they differ or if there is no such run: with both sequences, the run's name and its last message.
#[track_caller]
pub fn assert_states<S: Into<String>>(run: impl Into<RunId>, expected: impl IntoIterator<Item = S>) -> AssertStates {
    let expected: Vec<String> = expected.into_iter().map(Into::into).collect();
    let comparison = compare(Orchestrator::current(), run.into(), expected.join("\n"));
    AssertStates { comparison: Box::pin(comparison), place: Location::caller() }
}

/// A comparison of states, made when it is awaited; from [`assert_states`].
#[must_use = "it compares when it is awaited"]
pub struct AssertStates {
    comparison: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
    place: &'static Location<'static>,
}

impl fmt::Debug for AssertStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertStates").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Future for AssertStates {
    type Output = ();

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(said) = ready!(self.comparison.as_mut().poll(cx)) else { return Poll::Ready(()) };
        // The place where it is awaited, unless somebody else polls it.
        if Location::caller().file() == self.place.file() {
            panic!("{said}");
        }
        panic!("{said}\nasserted at {}", self.place);
    }
}

/// What to tell if the states are not the expected ones.
async fn compare(orchestrator: Orchestrator, run: RunId, expected: String) -> Option<String> {
    let states = match orchestrator.states(run).await {
        Ok(states) => states,
        Err(error) => return Some(format!("cannot compare the states of a run: {error}")),
    };
    let happened: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
    let what = match name(&orchestrator, run).await {
        Ok(name) => format!("the states of {name} are"),
        Err(error) => format!("the states of a run ({error}) are"),
    };
    let mut said = diff::difference(&what, &expected, &happened.join("\n"))?;
    if let Some(message) = states.iter().rev().find_map(|state| state.message.as_deref()) {
        said.push_str("\nits last message: ");
        said.push_str(message);
    }
    Some(said)
}

async fn name(orchestrator: &Orchestrator, run: RunId) -> Result<String, Error> {
    Ok(match run {
        RunId::Task(id) => format!("task run '{}'", orchestrator.task_run(id).await?.name),
        RunId::Flow(id) => format!("flow run '{}'", orchestrator.flow_run(id).await?.name),
    })
}
