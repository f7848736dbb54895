//! The future of a flow run whose types nobody here knows.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::Value;

use super::{Wait, WaitState};
use crate::backend::record::FlowRun;
use crate::error::FlowError;
use crate::id::{FlowRunId, RunId};
use crate::registry::Entry;
use crate::run::{Run, Stop};
use crate::state::State;

/// A flow run that was started by name, or resumed; made by [`run_flow`](crate::Orchestrator::run_flow) and
/// [`Resume::start`](crate::Resume::start).
///
/// The run goes on whether or not this is polled. Awaiting it, or a reference to it, gives the [`FlowRun`] as it is in
/// the history when the run has completed, and else the error that a [`FlowFuture`](crate::FlowFuture) gives;
/// [`wait`](Self::wait) is never an error.
#[must_use = "the run goes on, but nobody learns of its outcome: await it, or wait for it"]
pub struct StartedFlow {
    wait: Wait,
    entry: Option<Entry>,
}

impl StartedFlow {
    pub(crate) const fn new(run: Arc<Run>, entry: Option<Entry>) -> Self {
        Self { wait: Wait::new(run), entry }
    }

    fn run(&self) -> &Arc<Run> {
        self.wait.run()
    }

    /// The run's id.
    #[must_use]
    pub fn run_id(&self) -> FlowRunId {
        self.run().id().as_flow().expect("the future of a flow run")
    }

    /// The run's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.run().name().to_string()
    }

    /// The state that the run is in now.
    #[must_use]
    pub fn state(&self) -> State {
        self.run().state()
    }

    /// Asks the run, and every run that it started, to end.
    pub fn cancel(&self) {
        self.run().cancel(Stop::Request);
    }

    /// Waits until the run has ended, however it ended, and gives its final state.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait does nothing to the run.
    pub fn wait(&self) -> WaitState {
        WaitState::new(Arc::clone(self.run()))
    }

    /// The result as JSON, once the run has completed; `None` before that, and if its type is not `Serialize`.
    #[must_use]
    pub fn result(&self) -> Option<Value> {
        self.entry?.to_json(self.run().outcome()?.as_ref().ok()?)
    }
}

impl From<&StartedFlow> for RunId {
    fn from(started: &StartedFlow) -> Self {
        started.run().id()
    }
}

impl Clone for StartedFlow {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(self.run()), self.entry)
    }
}

impl std::fmt::Debug for StartedFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = self.run();
        f.debug_struct("StartedFlow").field("run", &run.name()).field("state", &run.state().name).finish()
    }
}

/// # Cancel safety
///
/// Dropping the future does nothing to the run.
impl Future for StartedFlow {
    type Output = Result<FlowRun, FlowError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.wait.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => Poll::Ready(match self.run().outcome() {
                Some(Err(error)) => Err(error.clone().into()),
                Some(Ok(_)) | None => Ok(self.run().to_flow_run()),
            }),
        }
    }
}

impl IntoFuture for &StartedFlow {
    type Output = Result<FlowRun, FlowError>;
    type IntoFuture = StartedFlow;

    fn into_future(self) -> StartedFlow {
        self.clone()
    }
}
