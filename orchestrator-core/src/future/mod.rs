//! Futures of runs: cheap handles that can be awaited, passed on, and dropped without harm to the run.

pub(crate) mod cycle;
mod join;
mod map;
mod started;
mod stream;
mod tally;
mod wait;

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{FlowError, TaskError};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::input::{owned, result_of};
use crate::run::{Run, Stop};
use crate::state::State;

pub use map::{JoinAll, MapFuture, Settled, join_all};
pub use started::StartedFlow;
pub use stream::{AsCompleted, Indexed, as_completed};
pub use tally::{Tally, all_completed};
pub(crate) use wait::Wait;
pub use wait::{Awaitable, Shared, Upstream, WaitState, wait_all};

/// A result that can be awaited by value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be awaited by value",
    label = "not `Clone + Send + Sync + 'static`",
    note = "awaiting gives a clone of the result: await `.shared()` of a task's or a flow's future for an `Arc<{Self}>`, or derive `Clone`",
    note = "a task that takes `&{Self}`, or `&[{Self}]` of a map, borrows the result"
)]
pub trait ByClone: Clone + Send + Sync + 'static {}
#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> ByClone for T {}

macro_rules! run_future {
    ($(#[$doc:meta])* $name:ident, $id:ident, $error:ident, $as_id:ident, $what:literal) => {
        $(#[$doc])*
        pub struct $name<T> {
            wait: Wait,
            output: PhantomData<fn() -> T>,
        }

        impl<T> $name<T> {
            pub(crate) fn new(run: Arc<Run>) -> Self {
                Self { wait: Wait::new(run), output: PhantomData }
            }

            pub(crate) fn as_run(&self) -> &Arc<Run> {
                self.wait.run()
            }

            pub(crate) fn run(&self) -> Arc<Run> {
                Arc::clone(self.wait.run())
            }

            pub(crate) fn into_run(self) -> Arc<Run> {
                self.wait.into_run()
            }

            /// The run's id.
            #[must_use]
            pub fn run_id(&self) -> $id {
                self.as_run().id().$as_id().expect("the future of a run of this kind")
            }

            /// The state that the run is in now.
            #[must_use]
            pub fn state(&self) -> State {
                self.as_run().state()
            }

            /// Asks the run, and every run that it started, to end. Awaiting it then gives an error that
            /// [`is_cancelled`](TaskError::is_cancelled), unless it ended first.
            ///
            /// A run that is cancelled this way does not fail the flow that it belongs to.
            pub fn cancel(&self) {
                self.as_run().cancel(Stop::Request);
            }

            /// Says that the run may fail: its failure does not fail what started it, which still waits for it.
            ///
            /// Only this run's own failure is meant. A run that takes its result does not start, and that is another
            /// failure.
            pub fn tolerate(self) -> Self {
                self.as_run().observe();
                self
            }

            /// Lets the run go its own way: what started it neither waits for it, nor fails with it, nor ends it when it
            /// is cancelled or times out.
            ///
            /// From now on the run is on its own, like one that was submitted outside of any flow: a signal still
            /// cancels it, and [`shutdown`](crate::Orchestrator::shutdown) cancels it and waits for it. Neither a pause of
            /// the flow nor its `max_concurrent_tasks` holds it up; an attempt that has begun counts there until it
            /// ends. The history keeps where it came from.
            pub fn detach(self) -> Self {
                self.as_run().detach();
                self
            }

            /// Waits until the run has ended, however it ended, and gives its final state.
            ///
            /// A body that asks for the end of a run which waits for that body's own run would wait for ever. Awaiting
            /// the result is an error there; this gives the state that the run is in, which is not
            /// [terminal](State::is_terminal) then.
            ///
            /// # Cancel safety
            ///
            /// Dropping the wait does nothing to the run.
            pub fn wait(&self) -> WaitState {
                WaitState::new(self.run())
            }
        }

        impl<T: Send + Sync + 'static> $name<T> {
            /// Waits for the result without taking it: all who share it read the same value.
            ///
            /// # Cancel safety
            ///
            /// Dropping the wait does nothing to the run.
            pub fn shared(&self) -> Shared<T, $error> {
                Shared::new(self.run())
            }
        }

        impl<T> From<&$name<T>> for RunId {
            fn from(future: &$name<T>) -> Self {
                future.as_run().id()
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self::new(self.run())
            }
        }

        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let run = self.as_run();
                f.debug_struct(stringify!($name)).field("run", &run.name()).field("state", &run.state().name).finish()
            }
        }

        /// # Cancel safety
        ///
        /// Dropping the future does nothing to the run. The value is a clone of the result, see `shared` for a wait
        /// without one.
        impl<T: ByClone> Future for $name<T> {
            type Output = Result<T, $error>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                match self.wait.poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(())) => Poll::Ready(owned(self.run()).map_err($error::from)),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                }
            }
        }

        impl<T: ByClone> IntoFuture for &$name<T> {
            type Output = Result<T, $error>;
            type IntoFuture = $name<T>;

            fn into_future(self) -> $name<T> {
                self.clone()
            }
        }
    };
}

run_future!(
    /// The result of a task run, to come.
    ///
    /// The run was submitted already and goes on whether or not this is polled. Awaiting gives `Result<T, TaskError>`;
    /// passing it (or a reference to it) to another task makes that task depend on it.
    ///
    /// A body that awaits a run which can only end after the body's own run is given an error instead of waiting for
    /// ever: that run itself, one that it is part of, or one that waits for it by way of results, of `wait_for` and of
    /// runs that were started. Not found are two bodies that await each other's runs, and what comes to depend on a run
    /// after the wait has begun.
    TaskFuture, TaskRunId, TaskError, as_task, "task"
);
run_future!(
    /// The result of a flow run, to come; like [`TaskFuture`].
    ///
    /// It is ready when the run has ended, every run that it started has ended, and all of that is in the history.
    FlowFuture, FlowRunId, FlowError, as_flow, "flow"
);

/// The result of an ended run, shared.
fn shared<T: Send + Sync + 'static>(run: &Arc<Run>) -> Result<Arc<T>, TaskError> {
    result_of(Arc::clone(run))
}
