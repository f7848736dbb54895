//! From the last attempt to the end: the terminal state, and what follows on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::attempt::closed;
use super::{launcher, panics};
use crate::body::{Codec, Erased};
use crate::cache::{self, Claim, Kept};
use crate::error::{BodyError, Cause, FailureKind, TaskError};
use crate::hook::{self, ResultHooks};
use crate::journal::Awaited;
use crate::orchestrator::Inner;
use crate::persist;
use crate::run::{Outcome, Run, Stop};
use crate::state::{StateName, StateType};
use crate::transaction::Staged;

/// How a run ends: all that is left to do is to say so.
pub(crate) struct End {
    pub(crate) state: StateName,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) outcome: Outcome,
    /// The right to put the result into the cache.
    pub(crate) claim: Option<Claim>,
    pub(crate) codec: Option<&'static Codec>,
    pub(crate) hooks: Option<Box<ResultHooks>>,
    /// How many events the journal had lost when the run began, where that matters.
    pub(super) lost_before: u64,
}

/// All that happens in a run from its last attempt to the end of its hooks and, if nobody waits for it but the program, to
/// the moment when all of it is stored. The outcome is there as soon as the terminal state is.
pub(super) async fn wind_down(mut watch: Watch, mut end: End) -> Watch {
    let Watch { run, outcome, .. } = &mut watch;
    let run = run.as_ref().expect("the run is taken out at its end");
    let strict = run.scope().orchestrator.strict;
    let is_told_otherwise = |error: &TaskError| error.is_cancelled() || error.is_crashed();
    if strict
        && !end.outcome.as_ref().is_err_and(is_told_otherwise)
        && let Some(orchestrator) = root_of(run)
    {
        // Before the run says how it ended: what it did so far has to be stored.
        run.flush();
        Box::pin(orchestrator.journal.committed()).await;
        if let (lost, Some(why)) = orchestrator.journal.lost()
            && lost > end.lost_before
        {
            let mut message = format!("its history was not stored: {why}");
            let cause = match end.outcome {
                Ok(_) => Cause::Said(message.clone()),
                Err(failed) => {
                    message.push_str(&format!("; it had failed: {}", failed.0.reason()));
                    Cause::Several(message.clone(), failed)
                }
            };
            let error = run.error(FailureKind::Crashed, cause);
            end.state = StateName::Crashed;
            end.message = Some(message.into());
            end.outcome = Err(error);
        }
    }
    let persists = end.state == StateName::Completed && end.hooks.is_none() && run.transaction().is_none();
    if persists && persist::identity(run).is_some() {
        // Before anybody learns that the run completed.
        Box::pin(persist::complete(run, &mut end, outcome)).await;
    } else {
        run.conclude(end.state, end.message, end.outcome.as_ref().err());
        *outcome = Some(end.outcome);
    }
    let result = outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).cloned();
    let hooks = run.def().hooks.of(end.state);
    if !hooks.is_empty() {
        Box::pin(hook::call(run, hooks)).await;
    }
    if let (StateName::Completed, Some(result)) = (end.state, result)
        && let Some(committed) = keep(run, result, end.hooks, end.claim, end.codec)
        && let Some(error) = committed.await
    {
        *outcome = Some(Err(error));
    }
    closed(run).await;
    // A run may have become a root meanwhile.
    if let Some(orchestrator) = root_of(run) {
        // Nobody is told of the end of a root run before it is stored. What cannot be stored was reported.
        Box::pin(orchestrator.journal.committed()).await;
        if let (Some(why), Some(Ok(_))) = (orchestrator.fenced(), &*outcome)
            && !Box::pin(is_recorded(run)).await
        {
            let error = run.error(FailureKind::Crashed, Cause::Said(why.to_string()));
            panics::let_go(outcome.replace(Err(error)));
        }
    }
    watch
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
    let transaction = run.transaction().filter(|_| run.visible);
    if transaction.is_none() && hooks.is_none() {
        if let Some(key) = cache {
            cache::insert(run, key, codec, &result, run.scope().orchestrator.clock.now());
        }
        return None;
    }
    let hooks = hooks.map(|hooks| *hooks).unwrap_or_default();
    let completed = run.scope().orchestrator.clock.now();
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
pub(super) fn root_of(run: &Run) -> Option<Arc<Inner>> {
    let orchestrator = &run.scope().orchestrator;
    (run.above().is_none() && !orchestrator.journal.is_immediate()).then(|| Arc::clone(orchestrator))
}

/// Whether the history says that a run completed.
async fn is_recorded(run: &Run) -> bool {
    let (orchestrator, id) = (Arc::clone(&run.scope().orchestrator), run.id());
    let states = tokio::task::spawn_blocking(move || orchestrator.backend.states(id)).await;
    let last = states.ok().and_then(Result::ok).and_then(|mut states| states.pop());
    last.is_some_and(|state| state.kind == StateType::Completed)
}

/// Ends a run: with its outcome once there is one, or as crashed if its driver goes away: the runtime was shut down, or the
/// engine panicked.
pub(crate) struct Watch {
    run: Option<Arc<Run>>,
    /// The outcome of a run whose terminal state is written already.
    outcome: Option<Outcome>,
    panicked: bool,
}

/// Tells everybody of the end of a run.
fn finish(run: Arc<Run>, outcome: Outcome) {
    let kept = run.parent.is_none().then(|| Arc::clone(&run.scope().kept));
    let wakes = run.end(outcome);
    if let Some(kept) = kept {
        // A method of the store, which may be somebody else's.
        panics::shield(|| kept.let_go());
    }
    launcher::after_the_body(wakes);
}

impl Watch {
    pub(super) const fn over(run: Arc<Run>) -> Self {
        Self::over_lost(run, false)
    }

    /// Over a run whose driver has gone away.
    pub(super) const fn over_lost(run: Arc<Run>, panicked: bool) -> Self {
        Self { run: Some(run), outcome: None, panicked }
    }

    /// The run, until it has ended.
    pub(crate) fn run(&self) -> Option<&Arc<Run>> {
        self.run.as_ref()
    }

    /// Gives the run to somebody else who ends it.
    pub(super) fn take(&mut self) -> Arc<Run> {
        self.run.take().expect("the run is taken out once")
    }

    /// Ends the run, whose terminal state is written.
    pub(super) fn end(mut self) {
        let outcome = self.outcome.take().expect("a run that was wound down has an outcome");
        self.ends_with(outcome);
    }

    /// The same with that outcome.
    pub(super) fn ends_with(&mut self, outcome: Outcome) {
        finish(self.take(), outcome);
    }

    /// Ends a run whose result was sent to the store, when that has it or lost it.
    pub(crate) fn end_stored(mut self, stored: Result<(), Arc<str>>) {
        let Self { run: Some(run), outcome, .. } = &mut self else { return };
        if panics::shield(|| persist::settle(run, outcome, stored)).is_none() {
            self.panicked = true;
        } else if let (Some(run), Some(outcome)) = (self.run.take(), self.outcome.take()) {
            finish(run, outcome);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        persist::reveal(&run);
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let said = if self.panicked || panics::is_of_engine() {
                "the engine panicked, which is a bug in orchestrator"
            } else {
                "the tokio runtime was shut down while the run was active"
            };
            run.cancel_children(Stop::Crashed);
            let error = run.error(FailureKind::Crashed, Cause::Said(said.to_owned()));
            // A state that is terminal stays.
            if !run.state().is_terminal() {
                run.conclude(StateName::Crashed, Some(said.into()), Some(&error));
                hook::call_without_runtime(&run, run.def().hooks.on_crashed);
            }
            Err(error)
        });
        run.leave_behind();
        let orchestrator = Arc::clone(&run.scope().orchestrator);
        let last = Arc::clone(&run);
        run.end(outcome).wake();
        // The process may be about to end: the last of these runs sees to it that all of them are stored.
        if last.is_last() {
            orchestrator.journal.see_to_all();
        }
    }
}

impl End {
    /// Whether there is nothing left to do but to enter the terminal state.
    pub(super) fn is_bare(&self, run: &Arc<Run>) -> bool {
        self.claim.is_none()
            && self.hooks.is_none()
            && run.def().hooks.of(self.state).is_empty()
            && run.transaction().is_none()
            && persist::identity(run).is_none()
            && root_of(run).is_none()
    }

    /// Enters the terminal state, and ends the run.
    pub(super) fn end(self, run: Arc<Run>) {
        let mut watch = Watch::over(run);
        if let Some(run) = &watch.run {
            let at = run.conclude(self.state, self.message, self.outcome.as_ref().err());
            // Those who watch take their time.
            if !run.is_watched(self.state) {
                launcher::ended_at(at);
            }
        }
        watch.outcome = Some(self.outcome);
        watch.end();
    }

    /// Sends a result that is to be kept, if there is nothing else to be done; gives back what says when it is stored, and
    /// the run, which is to be ended then.
    pub(super) fn send(&self, run: &Arc<Run>) -> Option<(Awaited, Watch)> {
        let has_no_hooks = |state| run.def().hooks.of(state).is_empty();
        let persists =
            self.state == StateName::Completed && run.transaction().is_none() && persist::identity(run).is_some();
        let is_alone = self.claim.is_none()
            && self.hooks.is_none()
            && has_no_hooks(StateName::Completed)
            && has_no_hooks(StateName::Crashed)
            && root_of(run).is_none();
        if !(persists && is_alone) {
            return None;
        }
        let mut watch = Watch::over(Arc::clone(run));
        let sent = persist::send(run, self, &mut watch.outcome);
        if sent.is_none() {
            // The driver goes on with it.
            watch.run = None;
        }
        Some((sent?, watch))
    }

    /// What the run's state, and what it has come to, mean for those who wait for it.
    pub(super) fn of(run: &Arc<Run>, state: StateName, result: Option<Erased>, failure: Option<TaskError>) -> Self {
        let (state, outcome) = end(run, state, result, failure);
        let message = match &outcome {
            Ok(_) if state == StateName::Cached => {
                run.answered_by().map(|by| format!("its result was persisted by run {by}").into())
            }
            Ok(_) => None,
            Err(error) => Some(error.0.reason().into()),
        };
        Self { state, message, outcome, claim: None, codec: None, hooks: None, lost_before: 0 }
    }
}

/// Who cancelled the run, and whether its body went along.
fn why_cancelled(run: &Run) -> String {
    let caller = |what: &str| {
        let name = run.parent.as_ref().map(|parent| parent.name());
        format!("'{}', which called it, {what}", name.as_deref().unwrap_or_default())
    };
    let mut said = match run.stopped_by().unwrap_or(Stop::Request) {
        Stop::CtrlC => "by Ctrl-C".to_owned(),
        Stop::Terminated => "by SIGTERM".to_owned(),
        Stop::ShutDown => "the orchestrator was shut down".to_owned(),
        Stop::Interrupted => "the program was to end before it had; it goes on another time".to_owned(),
        Stop::Request | Stop::TimedOut | Stop::Crashed | Stop::RolledBack
            if run.above().is_some_and(|parent| parent.is_cancelled()) =>
        {
            caller("was cancelled")
        }
        Stop::RolledBack => "the transaction that it is part of was rolled back".to_owned(),
        Stop::TimedOut => caller("timed out"),
        Stop::Crashed => caller("crashed"),
        Stop::Request => "on request".to_owned(),
    };
    if run.is_abandoned() {
        let grace = run.scope().orchestrator.defaults.cancel_grace;
        let grace = crate::terminal::short(grace);
        said.push_str(&format!("; its body did not stop within {grace} and was abandoned"));
    }
    said
}

fn end(run: &Arc<Run>, state: StateName, result: Option<Erased>, failure: Option<TaskError>) -> (StateName, Outcome) {
    if let Some(why) = run.scope().orchestrator.fenced() {
        panics::let_go((result, failure));
        return (StateName::Crashed, Err(run.error(FailureKind::Crashed, Cause::Said(why.to_string()))));
    }
    let interrupted = run.stopped_by() == Some(Stop::Interrupted);
    let outcome = if state == StateName::Cancelled {
        // Its body may have given a result before, or an error.
        panics::let_go((result, failure));
        let kind = if interrupted { FailureKind::Crashed } else { FailureKind::Cancelled };
        Err(run.error(kind, Cause::Said(why_cancelled(run))))
    } else {
        match (result, failure) {
            (Some(value), failure) if state.kind() == StateType::Completed => {
                panics::let_go(failure);
                Ok(value)
            }
            (_, Some(error)) => Err(error),
            (_, None) => unreachable!("whoever decides on a failure says which"),
        }
    };
    let crashed = outcome.as_ref().is_err_and(TaskError::is_crashed);
    let state = if crashed { StateName::Crashed } else { state };
    (state, outcome)
}
