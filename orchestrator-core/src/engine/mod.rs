//! The engine: one plain function decides ([`machine`]), one loop carries out ([`driver`]), one future runs the
//! user's body once ([`attempt`]), and what must hold before a body runs stands in one list ([`rules`]).

pub(crate) mod attempt;
mod driver;
pub(crate) mod machine;
pub(crate) mod panics;
pub(crate) mod rules;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::body::{ArgEncoder, Attempt, Codec, Erased};
use crate::cache::canonical::EncodeError;
use crate::error::{Cause, FailureKind, TaskError};
use crate::orchestrator::Inner;
use crate::run::{Outcome, Run};
use crate::state::StateName;
use crate::testing::Fakes;

/// One submitted call, without its types.
pub(crate) trait Call: Send {
    /// Names each run that must have ended before [`resolve`](Self::resolve).
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>));
    /// Takes the results of the upstream runs.
    fn resolve(&mut self) -> Result<(), TaskError>;
    /// The body, or what a test put in its place, ready to be executed once; the last attempt is given the arguments
    /// themselves.
    fn attempt(&mut self, last: bool, fakes: &Fakes) -> Attempt;
    /// The run's name, if a template makes it.
    fn run_name(&self) -> Option<String>;
    /// What the `cache_key` function says, if there is one.
    fn cache_key(&self) -> Option<Option<String>>;
    /// Writes the arguments.
    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), EncodeError>;
    /// How results are stored.
    fn codec(&self) -> Option<&'static Codec>;
    /// Whether `value` is of the type that the body gives.
    fn gives(&self, value: &Erased) -> bool;
}

/// Gives a run to the runtime.
pub(crate) fn start(run: Arc<Run>, call: Box<dyn Call>) {
    let handle = run.scope.handle.clone().expect("a run without a runtime is refused before it starts");
    // The watch exists before the first poll: a runtime that is shut down drops the future without one.
    handle.spawn(supervise(Watch { run: Some(run), outcome: None }, call));
}

/// Drives a run to its end, and sees to it that it has one.
async fn supervise(mut watch: Watch, call: Box<dyn Call>) {
    // Only root runs wait for the journal: all others leave its counts alone.
    let root = root_of(watch.run()).map(|orchestrator| (orchestrator.journal.lost().0, orchestrator));
    let mut end = drive_watched(watch.run(), call).await;
    if let Some((lost_before, orchestrator)) = &root
        && orchestrator.strict
        && end.outcome.is_ok()
    {
        // Before the run says that it completed: what it did so far has to be stored.
        watch.run().flush();
        Box::pin(orchestrator.journal.committed()).await;
        if let (lost, Some(why)) = orchestrator.journal.lost()
            && lost > *lost_before
        {
            let message = format!("its history was not stored: {why}");
            let error = watch.run().error(FailureKind::Crashed, Cause::Said(message.clone()));
            end = driver::End { state: StateName::Crashed, message: Some(message.into()), outcome: Err(error) };
        }
    }
    watch.run().conclude(end.state, end.message, end.outcome.as_ref().err());
    watch.outcome = Some(end.outcome);
    if let Some((_, orchestrator)) = &root {
        // Nobody is told of the end of a root run before it is stored. What cannot be stored was reported.
        Box::pin(orchestrator.journal.committed()).await;
    }
    let outcome = watch.outcome.take().expect("put there above");
    let run = watch.run.take().expect("the run is taken out once");
    run.end(outcome).wake();
}

/// The orchestrator of a run that no other run started, if its history has to be waited for.
fn root_of(run: &Run) -> Option<Arc<Inner>> {
    let orchestrator = &run.scope.orchestrator;
    (run.parent.is_none() && !orchestrator.journal.is_immediate()).then(|| Arc::clone(orchestrator))
}

/// Drives a run and sees to it that a cancellation, or the end of its last child, reaches the driver.
async fn drive_watched(run: &Arc<Run>, call: Box<dyn Call>) -> driver::End {
    let mut drive = pin!(driver::drive(run, call));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(end) = drive.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            run.flush();
            run.register_driver(cx.waker());
            // A signal that came before the waker was registered has woken nobody.
            if !run.take_signal() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Ends the run as crashed if its driver goes away: the runtime was shut down, or the engine panicked.
struct Watch {
    run: Option<Arc<Run>>,
    /// The outcome of a run whose terminal state is written already.
    outcome: Option<Outcome>,
}

impl Watch {
    fn run(&self) -> &Arc<Run> {
        self.run.as_ref().expect("the run is taken out at its end")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let said = if std::thread::panicking() {
                "the engine panicked, which is a bug in orchestrator"
            } else {
                "the tokio runtime was shut down while the run was active"
            };
            run.cancel_children();
            let error = run.error(FailureKind::Crashed, Cause::Said(said.to_owned()));
            run.conclude(StateName::Crashed, Some(said.into()), Some(&error));
            Err(error)
        });
        let orchestrator = Arc::clone(&run.scope.orchestrator);
        let last = Arc::clone(&run);
        run.end(outcome).wake();
        // The process may be about to end: the last of these runs sees to it that all of them are stored.
        if last.is_last() {
            orchestrator.journal.commit();
        }
    }
}
