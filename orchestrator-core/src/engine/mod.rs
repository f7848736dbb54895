//! The engine: one plain function decides ([`machine`]), one loop carries out ([`driver`]), one future runs the
//! user's body once ([`attempt`]), and what must hold before a body runs stands in one list ([`rules`]).

pub(crate) mod attempt;
mod driver;
pub(crate) mod machine;
pub(crate) mod panics;
pub(crate) mod rules;

pub(crate) use driver::{End, record_parameters, resolve};

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::body::{ArgEncoder, ArgError, Attempt, Codec, Erased};
use crate::cache::{self, Claim, Kept};
use crate::error::{BodyError, Cause, FailureKind, TaskError};
use crate::hook::{self, ResultHooks};
use crate::journal::Awaited;
use crate::orchestrator::Inner;
use crate::persist;
use crate::run::{Outcome, Run, Stop};
use crate::state::{StateName, StateType};
use crate::sync;
use crate::testing::Fakes;
use crate::transaction::Staged;

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
    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), ArgError>;
    /// The hooks for the end of the run's transaction.
    fn result_hooks(&self) -> ResultHooks;
    /// How results are stored.
    fn codec(&self) -> Option<&'static Codec>;
    /// Whether `value` is of the type that the body gives.
    fn gives(&self, value: &Erased) -> bool;
}

/// Gives a run to the runtime.
pub(crate) fn start(run: Arc<Run>, call: Box<dyn Call>) {
    let handle = run.scope.handle.clone().expect("a run without a runtime is refused before it starts");
    // The watch exists before the first poll: a runtime that is shut down drops the future without one.
    sync::spawn(&handle, supervise(Watch { run: Some(run), outcome: None, panicked: false }, call));
}

/// Drives a run to its end, and sees to it that it has one.
async fn supervise(mut watch: Watch, call: Box<dyn Call>) {
    let left = {
        let Watch { run, outcome, panicked } = &mut watch;
        let run = run.as_ref().expect("the run is taken out at its end");
        // Pinned here: handed over by value it would have its place twice in this future.
        let life = pin!(live(run, call, outcome));
        match watched(run, life).await {
            Ok(left) => left,
            Err(Panicked) => {
                *panicked = true;
                return;
            }
        }
    };
    if let Some(stored) = left {
        return persist::leave(stored, watch);
    }
    // A run may have become a root meanwhile.
    let root = watch.run.as_deref().and_then(root_of);
    if let Some(orchestrator) = root {
        // Nobody is told of the end of a root run before it is stored. What cannot be stored was reported.
        Box::pin(orchestrator.journal.committed()).await;
        if let (Some(why), Some(run), Some(Ok(_))) = (orchestrator.fenced(), &watch.run, &watch.outcome)
            && !Box::pin(is_recorded(run)).await
        {
            let error = run.error(FailureKind::Crashed, Cause::Said(why.to_string()));
            panics::let_go(watch.outcome.replace(Err(error)));
        }
    }
    let outcome = watch.outcome.take().expect("a run that was lived has an outcome");
    let run = watch.run.take().expect("the run is taken out once");
    if run.parent.is_none() {
        run.scope.kept.let_go();
    }
    run.end(outcome).wake();
}

/// All that happens in a run, up to the end of its hooks. The outcome is there as soon as the terminal state is. What is
/// given back is all that the run waits for before it has ended.
async fn live(run: &Arc<Run>, call: Box<dyn Call>, outcome: &mut Option<Outcome>) -> Option<Awaited> {
    let strict = run.scope.orchestrator.strict;
    let lost_before = if strict { run.scope.orchestrator.journal.lost().0 } else { 0 };
    let mut end = driver::drive(run, call).await;
    if strict
        && end.outcome.is_ok()
        && let Some(orchestrator) = root_of(run)
    {
        // Before the run says that it completed: what it did so far has to be stored.
        run.flush();
        Box::pin(orchestrator.journal.committed()).await;
        if let (lost, Some(why)) = orchestrator.journal.lost()
            && lost > lost_before
        {
            let message = format!("its history was not stored: {why}");
            let error = run.error(FailureKind::Crashed, Cause::Said(message.clone()));
            end.state = StateName::Crashed;
            end.message = Some(message.into());
            end.outcome = Err(error);
        }
    }
    let persists = end.state == StateName::Completed && end.hooks.is_none() && run.transaction.is_none();
    if persists && persist::identity(run).is_some() {
        let nothing_follows = |state| run.def.hooks.of(state).is_empty();
        if end.claim.is_none()
            && nothing_follows(StateName::Completed)
            && nothing_follows(StateName::Crashed)
            && root_of(run).is_none()
            && let Some(stored) = persist::send(run, &end, outcome)
        {
            return Some(stored);
        }
        // Before anybody learns that the run completed.
        Box::pin(persist::complete(run, &mut end, outcome)).await;
    } else {
        run.conclude(end.state, end.message, end.outcome.as_ref().err());
        *outcome = Some(end.outcome);
    }
    let result = outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).cloned();
    let hooks = run.def.hooks.of(end.state);
    if !hooks.is_empty() {
        Box::pin(hook::call(run, hooks)).await;
    }
    if let (StateName::Completed, Some(result)) = (end.state, result)
        && let Some(committed) = keep(run, result, end.hooks, end.claim, end.codec)
        && let Some(error) = committed.await
    {
        *outcome = Some(Err(error));
    }
    attempt::closed(run).await;
    None
}

/// Puts the result of a run into the cache, or stages it in the run's transaction. A run with hooks that is part of none
/// is committed by what is given back, which gives an error if that goes wrong. The claim is given up when whoever waits
/// for it finds the result.
fn keep(
    run: &Arc<Run>,
    result: Erased,
    hooks: Option<Box<ResultHooks>>,
    claim: Option<Claim>,
    codec: Option<&'static Codec>,
) -> Option<Pin<Box<dyn Future<Output = Option<TaskError>> + Send>>> {
    let cache = claim.as_ref().map(|claim| claim.key);
    let transaction = run.transaction.as_ref().filter(|_| run.visible);
    if transaction.is_none() && hooks.is_none() {
        if let Some(key) = cache {
            cache::insert(run, key, codec, &result, run.scope.orchestrator.clock.now());
        }
        return None;
    }
    let hooks = hooks.map(|hooks| *hooks).unwrap_or_default();
    let completed = run.scope.orchestrator.clock.now();
    let staged = Staged { run: Arc::clone(run), result, hooks, kept: Kept { cache, codec }, completed, within: None };
    let alone = match transaction {
        Some(transaction) => transaction.stage(staged)?,
        None => staged,
    };
    let run = Arc::clone(run);
    Some(Box::pin(async move {
        let committed = crate::transaction::commit_alone(alone).await;
        drop(claim);
        committed.err().map(|error| run.error(error.kind(), Cause::Body(BodyError::new(error))))
    }))
}

/// The orchestrator of a run that no other run waits for, if its history has to be waited for: all others leave the
/// journal's counts alone.
fn root_of(run: &Run) -> Option<Arc<Inner>> {
    let orchestrator = &run.scope.orchestrator;
    (run.above().is_none() && !orchestrator.journal.is_immediate()).then(|| Arc::clone(orchestrator))
}

/// Whether the history says that a run completed.
async fn is_recorded(run: &Run) -> bool {
    let (orchestrator, id) = (Arc::clone(&run.scope.orchestrator), run.id());
    let states = tokio::task::spawn_blocking(move || orchestrator.backend.states(id)).await;
    let last = states.ok().and_then(Result::ok).and_then(|mut states| states.pop());
    last.is_some_and(|state| state.kind == StateType::Completed)
}

/// The engine panicked; the panic hook has told where.
struct Panicked;

/// Sees to it that a cancellation, or the end of the run's last child, reaches what the run does.
async fn watched<T>(run: &Arc<Run>, mut life: Pin<&mut impl Future<Output = T>>) -> Result<T, Panicked> {
    poll_fn(|cx| {
        loop {
            match panics::shield(|| life.as_mut().poll(cx)) {
                Some(Poll::Pending) => {}
                Some(Poll::Ready(left)) => return Poll::Ready(Ok(left)),
                None => return Poll::Ready(Err(Panicked)),
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
pub(crate) struct Watch {
    run: Option<Arc<Run>>,
    /// The outcome of a run whose terminal state is written already.
    outcome: Option<Outcome>,
    panicked: bool,
}

impl Watch {
    /// The run, until it has ended.
    pub(crate) fn run(&self) -> Option<&Arc<Run>> {
        self.run.as_ref()
    }

    /// Ends a run whose result was sent to the store, when that has it or lost it.
    pub(crate) fn end(mut self, stored: Result<(), Arc<str>>) {
        let Self { run: Some(run), outcome, .. } = &mut self else { return };
        if panics::shield(|| persist::settle(run, outcome, stored)).is_none() {
            self.panicked = true;
        } else if let (Some(run), Some(outcome)) = (self.run.take(), self.outcome.take()) {
            run.end(outcome).wake();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        persist::reveal(&run);
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let said = if self.panicked {
                "the engine panicked, which is a bug in orchestrator"
            } else {
                "the tokio runtime was shut down while the run was active"
            };
            run.cancel_children(Stop::Crashed);
            let error = run.error(FailureKind::Crashed, Cause::Said(said.to_owned()));
            // A state that is terminal stays.
            if !run.state().is_terminal() {
                run.conclude(StateName::Crashed, Some(said.into()), Some(&error));
                hook::call_without_runtime(&run, run.def.hooks.on_crashed);
            }
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
