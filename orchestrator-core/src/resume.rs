//! Letting a flow run go on that ended without having completed: its function runs again, under the same id.
//!
//! What the run had kept of its results it finds again (`persist.rs`); nothing else of what it did is known here. The store
//! decides who lets it go on (`take_over`), whether they are tasks of one process or processes.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use chrono::Utc;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::backend::record::{FlowRun, Resumer, TakeOver};
use crate::backend::{BackendError, BackendErrorKind, StateBackend};
use crate::clock::{Clock, Timestamp};
use crate::elsewhere::Pace;
use crate::engine::machine::may_follow;
use crate::engine::{OwnedCall, panics};
use crate::error::{Error, ErrorKind};
use crate::explain::{Elsewhere, clock};
use crate::future::StartedFlow;
use crate::id::{FlowRunId, RunId};
use crate::orchestrator::{Inner, Orchestrator};
use crate::process::this_process;
use crate::registry::{Flow, NoFlow};
use crate::results::Sweeper;
use crate::run::{Hold, Resumed, Run};
use crate::state::{State, StateName, StateType, Transition};
use crate::submit;

const NEVER_BEGAN: &str = "it never began, so that its parameters are not on record; call the flow again";

impl Orchestrator {
    /// Lets a flow run go on that failed, crashed or was cancelled: its function is called again, with the parameters that
    /// are on record, under the same id. Awaiting this waits until the run has ended again.
    ///
    /// Runs that the function calls as it did before are answered with the results that the flow run has kept, if they
    /// were [persisted](crate::Configured::persist), and shown as Cached. All else runs again: what was not persisted or
    /// had not completed, what has other inputs, tasks whose code was changed. Work staged in a transaction that was not
    /// committed is void.
    ///
    /// The history of the run goes on: its states, and the count of its attempts. What is counted for the call starts
    /// anew: the retries that it may use, and the numbers in the names of its task runs. Options that were set at the call
    /// are not on record, but for its name and tags: those of the attribute hold.
    ///
    /// A flow run that went on by itself after a crash, because its flow has `on_crash = "resume"`, is waited for.
    ///
    /// A flow run whose process cannot be seen from here, because it was on another machine or in another container, and
    /// whose lease is over, may have crashed: this waits until that is known, some 10 seconds, and says so in the log.
    ///
    /// A flow run that is Paused in this process, and waits for no input, is let on as by
    /// [`resume_paused`](Self::resume_paused).
    ///
    /// ```no_run
    /// use orchestrator_core::{FlowRunQuery, Orchestrator, StateType};
    ///
    /// # async fn resume_all(orchestrator: Orchestrator) -> Result<(), orchestrator_core::Error> {
    /// for run in orchestrator.flow_runs(&FlowRunQuery::new().state(StateType::Crashed)).await? {
    ///     let run = orchestrator.resume(run.id).await?; // waits for its end; `.start().await?` does not
    ///     println!("{} has completed after {} starts", run.name, run.run_count);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the flow run cannot be resumed ([`Error::is_not_resumable`]): it has completed; it is active, here or in another
    /// process; it is part of another run, which is to be resumed instead; somebody else was quicker to resume it; or its
    /// flow is not in this program, is generic, or takes parameters that are not on record. If the parameters on record do
    /// not fit the flow any more ([`Error::as_parameters`]). If there is no such run ([`Error::is_not_found`]), or if the
    /// backend fails. In all these cases nothing has changed.
    ///
    /// If the run is resumed and does not complete: [`Error::as_flow`] gives its error.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the run is resumed and goes on even if the future is dropped.
    pub fn resume(&self, flow_run_id: impl Into<RunId>) -> Resume {
        Resume { orchestrator: self.clone(), id: flow_run_id.into() }
    }
}

/// A flow run that is to be resumed; made by [`Orchestrator::resume`].
#[derive(Debug, Clone)]
#[must_use = "nothing is resumed until this is awaited"]
pub struct Resume {
    orchestrator: Orchestrator,
    id: RunId,
}

impl Resume {
    /// Resumes the flow run without waiting for its end.
    ///
    /// # Errors
    ///
    /// If the flow run cannot be resumed; see [`Orchestrator::resume`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the run is resumed even if the future is dropped.
    pub async fn start(self) -> Result<StartedFlow, Error> {
        let Self { orchestrator, id } = self;
        let RunId::Flow(id) = id else {
            return Err(refused(format!("run {id} is a task run: what is resumed is the flow run that it belongs to")));
        };
        let Ok(handle) = Handle::try_current() else {
            return Err(refused(format!("flow run {id} cannot be resumed: there is no tokio runtime here")));
        };
        // A task of its own: what the store has been told must not be cut short.
        let resumed = handle.spawn(async move { resume(&orchestrator, id).await });
        resumed.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::ShutDown)))
    }
}

impl IntoFuture for Resume {
    type Output = Result<FlowRun, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.start().await?.await?) })
    }
}

/// Says why it takes a while to know whether a run can be resumed.
fn tell_whom_it_waits_for(run: &FlowRun, elsewhere: &Elsewhere) {
    let wait = elsewhere.known_at.map_or(0, |at| (at - Utc::now()).num_seconds().max(0) + 1);
    let (name, state) = (&run.name, &run.state.name);
    tracing::warn!(
        target: "orchestrator",
        "flow run '{name}' is {state} in {elsewhere}. Waiting to know whether that is gone, for {wait} s at most",
    );
}

fn refused(said: String) -> Error {
    Error::new(ErrorKind::NotResumable(said))
}

async fn resume(orchestrator: &Orchestrator, id: FlowRunId) -> Result<StartedFlow, Error> {
    // A shutdown waits until it goes on, or nothing is taken over any more.
    let _hold = Hold::on_orchestrator(orchestrator.inner());
    let (mut pace, mut told) = (Pace::new(), false);
    let Ready { flow, call, record, take_over, resumed } = loop {
        if orchestrator.inner().roots.is_closed() {
            return Err(refused(format!("flow run {id} cannot be resumed: {}", orchestrator.inner().why_closed())));
        }
        if let Some(run) = orchestrator.inner().recovery.answer(id.into()) {
            return Ok(started(run));
        }
        if let Some(run) = orchestrator.inner().active_run(id.into()) {
            return active(orchestrator, run).await;
        }
        let Some(found) = orchestrator.ask(move |backend, inner| look(backend, inner, id)).await? else {
            return Err(Error::new(ErrorKind::NotFound(format!("there is no flow run {id}"))));
        };
        match found.waits_for() {
            Some(_) if std::mem::replace(&mut told, true) => {}
            Some(elsewhere) => tell_whom_it_waits_for(&found.record, elsewhere),
            None if orchestrator.inner().recovery.sees_to(id) => {}
            None => break found.ready(orchestrator.inner(), None)?,
        }
        pace.step(orchestrator).await?;
    };
    if !orchestrator.ask(move |backend, _| backend.take_over(&take_over)).await? {
        let run = orchestrator.flow_run(id).await?;
        let said = match run.state.kind.is_terminal() {
            true => format!("it was resumed meanwhile, and has ended as {}", run.state.name),
            false => format!("process {} on {} has resumed it meanwhile", run.pid, run.host),
        };
        return Err(cannot(&record, &said));
    }
    let run = submit::go_on(orchestrator.inner(), Handle::current(), (flow.def, call), &record, resumed);
    // What was written for it without a record is not found by it, and never will be.
    if let Some(sweeping) = (!orchestrator.inner().backend.in_process()).then(|| Sweeper::of(orchestrator.inner())) {
        drop(sweeping.start());
    }
    Ok(StartedFlow::new(run, Some(flow.entry)))
}

/// What a run that is active here needs to go on, if it needs anything.
async fn active(orchestrator: &Orchestrator, run: Arc<Run>) -> Result<StartedFlow, Error> {
    let state = run.state();
    if state.kind != StateType::Paused {
        let (name, state) = (run.name(), state.name);
        return Err(refused(format!("flow run '{name}' cannot be resumed: it is active in this process, as {state}")));
    }
    orchestrator.resume_paused(run.id(), ()).await?;
    Ok(started(run))
}

impl Orchestrator {
    /// Active flow runs that had crashed, went on by themselves (`on_crash = "resume"`), and that no call and no
    /// [`resume`](Self::resume) has asked for yet. [`shutdown`](Self::shutdown) interrupts them, so that they go on another
    /// time; whoever wants them to come to their end waits for each.
    #[must_use]
    pub fn recovered(&self) -> Vec<StartedFlow> {
        self.inner().recovery.unasked().into_iter().map(started).collect()
    }
}

fn started(run: Arc<Run>) -> StartedFlow {
    let entry = Flow::of_def(run.def()).map(|flow| flow.entry);
    StartedFlow::new(run, entry)
}

/// What became of a crashed flow run that is to go on by itself.
pub(crate) enum ByItself {
    GoesOn {
        parameters: Value,
        run: Arc<Run>,
    },
    /// Somebody else was quicker, or sees to it.
    LeftToOthers,
    /// It has crashed more often in a row than it may; told to one of those who ask.
    TooOften {
        name: String,
        budget: u32,
    },
}

/// Lets a crashed flow run go on that has done so `times` times in a row, if its flow says that it does; blocks.
pub(crate) fn by_itself(inner: &Arc<Inner>, handle: &Handle, id: FlowRunId, times: u32) -> Result<ByItself, Error> {
    let Some(found) = look(&*inner.backend, inner, id)? else { return Ok(ByItself::LeftToOthers) };
    let flow = Flow::of_run(&found.record).map_err(|none| without_flow(&found.record, &none))?;
    let (Some(budget), StateType::Crashed) = (flow.def.crash_budget, found.record.state.kind) else {
        return Ok(ByItself::LeftToOthers);
    };
    if times >= budget {
        let left = inner
            .backend
            .shared()
            .is_some_and(|shared| times == budget && matches!(shared.leave_crashed(id, times), Ok(true)));
        return Ok(if left { ByItself::TooOften { name: found.record.name, budget } } else { ByItself::LeftToOthers });
    }
    let Ready { flow, call, record, take_over, resumed } = found.ready(inner, Some((times + 1, budget)))?;
    let taken = inner.backend.take_over(&take_over);
    if let Some(keeper) = &inner.keeper {
        keeper.membership().heard(&taken);
    }
    if !taken? {
        panics::let_go(call);
        return Ok(ByItself::LeftToOthers);
    }
    if times > 0 {
        // Before the body may end the program again.
        warn_again(&record.name, times);
    }
    let run = submit::go_on(inner, handle.clone(), (flow.def, call), &record, resumed);
    Ok(ByItself::GoesOn { parameters: record.parameters, run })
}

/// Says of a run that went on by itself before, and got no further, how the program does without it.
fn warn_again(name: &str, times: u32) {
    tracing::warn!(
        target: "orchestrator",
        "flow run '{name}' goes on by itself again, though it has crashed {} times in a row without getting further. If it \
         is what ends the program, `ORCHESTRATOR_RESUME_CRASHED=false` lets everything else run",
        times + 1,
    );
}

fn cannot(record: &FlowRun, why: &dyn std::fmt::Display) -> Error {
    refused(cannot_for(record, why))
}

fn cannot_for(record: &FlowRun, why: &dyn std::fmt::Display) -> String {
    format!("flow run '{}' cannot be resumed: {why}", record.name)
}

fn without_flow(record: &FlowRun, none: &NoFlow) -> Error {
    match none {
        NoFlow::Unknown(why) => Error::new(ErrorKind::UnknownFlow(cannot_for(record, why))),
        NoFlow::Ambiguous(why) => refused(cannot_for(record, why)),
    }
}

/// The state that follows on the one in which a run had ended.
fn going_on(ended: &State, clock: &dyn Clock, itself: Option<(u32, u32)>) -> Transition {
    let after = Timestamp::from_micros(ended.timestamp.timestamp_micros().saturating_add(1));
    let mut message = format!("resumed after it had ended as {}", ended.name);
    if let Some((times, budget)) = itself {
        message.push_str(&format!(", by itself: {times} of {budget} times"));
    }
    Transition { message: Some(message.into()), ..Transition::new(StateName::Running, clock.now().max(after)) }
}

/// What the store knows of a run that is to be resumed.
struct Found {
    record: FlowRun,
    states: Vec<State>,
    /// The name and id of the run that it is part of at the end.
    root: Option<(String, RunId)>,
    /// Whose it is, if it has not ended.
    elsewhere: Option<Elsewhere>,
}

/// So often a run may change while it is looked at.
const LOOKS: usize = 1000;

/// A flow run and its states, of one moment: of two moments, they could be taken for a run that can be resumed, though it
/// was resumed in between and has completed. `None`: there is no such run.
fn look_at_once(backend: &dyn StateBackend, id: FlowRunId) -> Result<Option<(FlowRun, Vec<State>)>, BackendError> {
    for _ in 0..LOOKS {
        let Some(record) = backend.flow_run(id)? else { return Ok(None) };
        let states = backend.states(id.into())?;
        let is_same = |last: &State| last.name == record.state.name && last.timestamp == record.state.timestamp;
        // Without any it was removed just now.
        if states.last().is_none_or(is_same) {
            return Ok(Some((record, states)));
        }
        std::thread::yield_now();
    }
    let doing = format!("read flow run {id} in {}", backend.location());
    Err(BackendError::new(BackendErrorKind::Other, doing).because("its state is not the last of its states"))
}

fn look(backend: &dyn StateBackend, inner: &Inner, id: FlowRunId) -> Result<Option<Found>, BackendError> {
    let Some((mut record, mut states)) = look_at_once(backend, id)? else { return Ok(None) };
    if !record.state.is_terminal() && !backend.in_process() {
        // It may belong to a process that went away.
        if let Some(keeper) = &inner.keeper {
            keeper.lookout().look_at_owner_of(id.into());
        }
        let Some(again) = look_at_once(backend, id)? else { return Ok(None) };
        (record, states) = again;
    }
    let mut root = None;
    let mut parent = record.parent;
    while let Some(above) = parent {
        let (name, next) = match above {
            RunId::Flow(above) => backend.flow_run(above)?.map(|run| (run.name, run.parent)),
            RunId::Task(above) => backend.task_run(above)?.map(|run| (run.name, run.parent)),
        }
        .unwrap_or_default();
        root = Some((name, above));
        parent = next;
    }
    let elsewhere = if record.state.is_terminal() { None } else { Elsewhere::of_run(backend, inner, id.into())? };
    Ok(Some(Found { record, states, root, elsewhere }))
}

/// All that is needed to let a run go on.
struct Ready {
    flow: Flow,
    call: OwnedCall,
    record: FlowRun,
    take_over: TakeOver,
    resumed: Resumed,
}

impl Found {
    /// `itself`: it goes on by itself, for which time of how many.
    fn ready(self, inner: &Inner, itself: Option<(u32, u32)>) -> Result<Ready, Error> {
        if let Some(why) = self.why_not() {
            return Err(refused(why));
        }
        let Self { record, states, .. } = self;
        let Value::Object(parameters) = &record.parameters else {
            return Err(cannot(&record, &NEVER_BEGAN));
        };
        let flow = Flow::of_run(&record).map_err(|none| without_flow(&record, &none))?;
        if let Some(why) = flow.info().not_callable() {
            return Err(cannot(&record, &format_args!("{why}; call it again with the same parameters instead")));
        }
        let call = flow.call(parameters)?;
        let seq = u32::try_from(states.len()).unwrap_or(u32::MAX);
        let running = going_on(&record.state, &*inner.clock, itself);
        let by = match itself {
            Some((_, budget)) => Resumer::Itself { budget },
            None => Resumer::Somebody { on_crash: flow.def.crash_budget.is_some() },
        };
        let resumed = Resumed { seq: seq + 1, running: running.clone(), run_count: record.run_count };
        let take_over = TakeOver { run: record.id, seq, process: inner.process, running, by };
        Ok(Ready { flow, call, record, take_over, resumed })
    }

    /// Who may be gone, so that the run can be resumed as soon as that is known.
    fn waits_for(&self) -> Option<&Elsewhere> {
        let silent = self.elsewhere.as_ref().filter(|elsewhere| elsewhere.lease_over.is_some());
        silent.filter(|_| self.root.is_none() && Flow::of_run(&self.record).is_ok())
    }

    /// Why such a run cannot be resumed.
    fn why_not(&self) -> Option<String> {
        let Self { record, root, elsewhere, .. } = self;
        let FlowRun { name, state, host, pid, .. } = record;
        if let Some((root, id)) = root {
            return Some(match id {
                RunId::Flow(id) => {
                    format!("flow run '{name}' is part of flow run '{root}': resume that one, {id}, instead")
                }
                RunId::Task(_) => {
                    format!(
                        "flow run '{name}' cannot be resumed: it is part of task run '{root}', which belongs to no flow run"
                    )
                }
            });
        }
        if state.kind == StateType::Completed {
            return Some(format!("flow run '{name}' has completed: there is nothing to resume"));
        }
        if !state.is_terminal() {
            let mut said =
                format!("flow run '{name}' cannot be resumed: it is {} in process {pid} on {host}", state.name);
            if let Some(heard) = elsewhere.as_ref().filter(|_| *host != this_process().host).and_then(|of| of.heard) {
                let heard = clock(heard);
                said +=
                    &format!(", last heard of at {heard}; if that is gone, it can be resumed when its lease is over");
            }
            if state.kind == StateType::Paused {
                said += "; `resume_paused`, or `runs resume` at the command line, lets it on";
            }
            return Some(said);
        }
        let known = StateName::parse(&state.name).is_some_and(|name| may_follow(name, StateName::Running));
        (!known).then(|| format!("flow run '{name}' cannot be resumed: {NEVER_BEGAN}"))
    }
}
