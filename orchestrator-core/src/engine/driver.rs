//! Carries out what the machine decides, and writes the run's states.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::attempt::{self, Ended, children_ended, closed, unless_cancelled};
use super::machine::{Decision, Event, Machine, jittered};
use super::panics;
use super::rules::{self, Holding, Taken, Verdict};
use crate::backend::record;
use crate::body::{ArgEncoder, Codec, Erased};
use crate::cache::Claim;
use crate::error::{Cause, FailureKind, TaskError};
use crate::hook::{self, ResultHooks};
use crate::pause;
use crate::persist::{self, Resolved};
use crate::run::{Outcome, Run, Stop, Waits};
use crate::state::{StateName, StateType};

/// How a run ends: all that is left to do is to say so.
pub(crate) struct End {
    pub(crate) state: StateName,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) outcome: Outcome,
    /// The right to put the result into the cache.
    pub(crate) claim: Option<Claim>,
    pub(crate) codec: Option<&'static Codec>,
    pub(crate) hooks: Option<Box<ResultHooks>>,
}

/// Drives a run from the moment when its upstream runs have ended.
pub(super) async fn drive(run: &Arc<Run>, mut call: Box<dyn Call>) -> End {
    let mut machine = Machine::new(run.options().retries());
    let mut holding = Holding::default();
    let mut result: Option<Erased> = None;
    let mut failure: Option<TaskError> = None;
    let mut delayed = false;
    let mut event = if run.is_cancelled() {
        Event::CancelRequested
    } else {
        // Code of the user may run here: `Clone`, `Display`, `Serialize`.
        match panics::catch(|| prepare(run, &mut *call)).flatten() {
            Ok(Ok(())) => Event::InputsReady,
            Ok(Err(error)) => {
                failure = Some(error);
                Event::UpstreamFailed
            }
            Err(said) => {
                failure = Some(run.error(FailureKind::Panicked, Cause::Said(said)));
                Event::Refused
            }
        }
    };
    let state = loop {
        event = match machine.on(event) {
            Decision::Apply(rule) => match rules::apply(rule, run, &mut *call, &mut holding).await {
                Verdict::Accept => Event::Passed,
                Verdict::Reject(value) => {
                    result = Some(value);
                    Event::Answered
                }
                Verdict::Abort(error) => {
                    failure = Some(error);
                    Event::Refused
                }
                Verdict::Again(flight) => {
                    // Nothing is held while somebody else computes the same: that one may need it.
                    holding.taken = Taken::default();
                    let _noted = run.waits_for(flight.note());
                    match Box::pin(unless_cancelled(run, flight.landed())).await {
                        Some(()) => Event::StartOver,
                        None => Event::CancelRequested,
                    }
                }
                Verdict::StartOver => Event::StartOver,
                Verdict::Cancelled => Event::CancelRequested,
            },
            Decision::Attempt { state, last } => {
                // Without a delay in between, nothing else tells why there is another attempt.
                let again = (state == StateName::Retrying && !delayed)
                    .then(|| after_failure(&machine, failure.as_ref()).into());
                delayed = false;
                run.begin_attempt(state, again);
                if run.is_flow() {
                    // The history has a flow run before it has anything that is part of it.
                    run.flush();
                }
                if run.is_flow() && run.visible {
                    run.scope.calls.start_over();
                    if run.run_count() > 1 {
                        run.scope.kept.may_be_there();
                    }
                }
                pause::attempt_begins(run);
                let hooks = run.def.hooks.of(state);
                let told = hooks.is_empty() || Box::pin(unless_cancelled(run, hook::call(run, hooks))).await.is_some();
                let fakes = &run.scope.orchestrator.testing.fakes;
                let ended = match told.then(|| panics::catch(|| call.attempt(last, fakes))) {
                    Some(Ok(attempt)) => attempt::execute(run, attempt, run.run_count()).await,
                    Some(Err(said)) => Ended::panicked(run, said),
                    None => Ended::Cancelled,
                };
                pause::attempt_ended(run, matches!(ended, Ended::Cancelled));
                match ended {
                    Ended::Completed(value) => {
                        result = Some(value);
                        Event::Succeeded
                    }
                    Ended::Failed { error, retryable } => {
                        let event = Event::Failed { retryable, delay: delay(run, &machine) };
                        panics::let_go(failure.replace(error));
                        event
                    }
                    Ended::TimedOut(limit) => {
                        let said = format!("attempt {} took longer than {limit:?}", machine.begun());
                        let error = run.error(FailureKind::TimedOut, Cause::Said(said));
                        panics::let_go(failure.replace(error));
                        Event::TimedOut { delay: delay(run, &machine) }
                    }
                    Ended::Cancelled => Event::CancelRequested,
                }
            }
            Decision::Delay(delay) => {
                holding.taken = Taken::default();
                delayed = true;
                let wait = crate::terminal::short(delay);
                let message = format!("{}; the next starts in {wait}", after_failure(&machine, failure.as_ref()));
                run.enter(StateName::AwaitingRetry, Some(message.into()));
                let _noted = run.waits_for(Waits::Retry(run.scope.orchestrator.clock.now().after(delay)));
                match Box::pin(unless_cancelled(run, tokio::time::sleep(delay))).await {
                    Some(()) => Event::DelayOver,
                    None => Event::CancelRequested,
                }
            }
            Decision::Cancel => {
                holding.taken = Taken::default();
                run.enter_cancelling();
                run.cancel_children(run.stopped_by().unwrap_or(Stop::Request));
                children_ended(run).await;
                break StateName::Cancelled;
            }
            Decision::End(state) => break state,
        };
        if matches!(event, Event::Failed { .. } | Event::TimedOut { .. }) {
            holding.taken = Taken::default();
        }
    };
    let Holding { claim, taken, .. } = holding;
    drop(taken);
    let completed = state == StateName::Completed;
    let claim = claim.filter(|_| completed);
    let persists = completed && persist::identity(run).is_some();
    let codec = if claim.is_some() || persists { call.codec() } else { None };
    let hooks = completed.then(|| call.result_hooks()).filter(|hooks| !hooks.is_empty()).map(Box::new);
    panics::let_go(call);
    if run.def.hooks.of(state).is_empty() && hooks.is_none() {
        closed(run).await;
    } else {
        // Its hooks may submit runs.
        run.reopen();
        children_ended(run).await;
    }
    let (state, outcome) = end(run, state, result, failure);
    let message = match &outcome {
        Ok(_) if state == StateName::Cached => {
            run.answered_by().map(|by| format!("its result was persisted by run {by}").into())
        }
        Ok(_) => None,
        Err(error) => Some(error.0.reason().into()),
    };
    End { state, message, outcome, claim, codec, hooks }
}

/// Takes the results of the upstream runs, and gives the run its name and its recorded parameters.
fn prepare(run: &Arc<Run>, call: &mut dyn Call) -> Resolved {
    let resolved = match persist::take_resolved(run) {
        Some(resolved) => resolved?,
        None => resolve(run, call).inspect(|()| persist::identify(run, call)),
    };
    if resolved.is_err() || !run.visible || run.is_resumed() {
        return Ok(resolved);
    }
    if run.overrides.get().is_none_or(|options| options.run_name.is_none())
        && let Some(name) = call.run_name()
    {
        run.rename(name);
    }
    if let Some(id) = run.id().as_flow() {
        let json = record_parameters(run, call).to_string();
        run.scope.orchestrator.journal.push(record::Event::Parameters { run: id, json });
    }
    Ok(Ok(()))
}

/// Takes the results of the upstream runs, once.
pub(crate) fn resolve(run: &Run, call: &mut dyn Call) -> Result<(), TaskError> {
    // From here on a failure upstream is this run's to tell.
    call.visit(&mut |upstream| upstream.observe());
    // Told by its first cause: what lies between is a consequence, like this one.
    call.resolve().map_err(|error| run.error(FailureKind::NotReady, Cause::Upstream(error.first_cause())))
}

/// The parameters of a flow run, as they are recorded.
pub(crate) fn record_parameters<'r>(run: &'r Run, call: &dyn Call) -> &'r serde_json::Value {
    if run.scope.parameters.get().is_none() {
        let mut parameters = serde_json::Map::new();
        // A parameter that cannot be encoded is recorded as a note that says so.
        let _ = call.encode(ArgEncoder::record(&mut parameters));
        let _ = run.scope.parameters.set(serde_json::Value::Object(parameters));
    }
    run.scope.parameters.get().expect("they were set just now")
}

/// How long to wait after the attempt that just failed.
fn delay(run: &Run, machine: &Machine) -> Duration {
    if !machine.may_retry() {
        return Duration::ZERO;
    }
    let options = run.options();
    let delay = options.retry_delay(machine.begun() - 1);
    match options.retry_jitter() {
        jitter if jitter > 0.0 => jittered(delay, jitter, fastrand::f64()),
        _ => delay,
    }
}

/// What a retry says of the attempt before it. The machine has counted the retry already if it has begun.
fn after_failure(machine: &Machine, failure: Option<&TaskError>) -> String {
    let reason = failure.map(|error| error.0.reason()).unwrap_or_default();
    format!("attempt {} of {} failed: {reason}", machine.failed(), machine.allowed())
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
        let grace = run.scope.orchestrator.defaults.cancel_grace;
        said.push_str(&format!("; its body did not stop within {grace:?} and was abandoned"));
    }
    said
}

fn end(run: &Arc<Run>, state: StateName, result: Option<Erased>, failure: Option<TaskError>) -> (StateName, Outcome) {
    if let Some(why) = run.scope.orchestrator.fenced() {
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
