//! Hooks: functions of the user's that are called when a run enters a state, or when its transaction ends.
//!
//! The macros hand over each hook as two plain functions: one calls it, the other says whether it is async, which the
//! compiler finds out from what the hook returns. Nothing that a hook does changes the state of its run.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::record::{FlowRun, TaskRun};
use crate::body::{Erased, Probe};
use crate::context::Place;
use crate::engine::attempt::unless_cancelled;
use crate::engine::panics::{self, Contained};
use crate::error::{BodyError, chain};
use crate::orchestrator::Inner;
use crate::run::{Run, Stop};
use crate::state::{State, StateName};
use crate::terminal::short;

/// The hooks of a task or flow, by the states that they are called for.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are the options of the attributes, documented there")]
pub struct Hooks {
    pub on_running: &'static [Hook],
    pub on_completion: &'static [Hook],
    pub on_failure: &'static [Hook],
    pub on_cancellation: &'static [Hook],
    pub on_crashed: &'static [Hook],
}

impl Hooks {
    /// No hooks.
    pub const NONE: Self =
        Self { on_running: &[], on_completion: &[], on_failure: &[], on_cancellation: &[], on_crashed: &[] };

    pub(crate) const fn are_none(&self) -> bool {
        let Self { on_running, on_completion, on_failure, on_cancellation, on_crashed } = self;
        let on_end = on_failure.is_empty() && on_cancellation.is_empty() && on_crashed.is_empty();
        on_running.is_empty() && on_completion.is_empty() && on_end
    }

    /// The hooks that are called when a run enters a state of that name.
    pub(crate) const fn of(&self, state: StateName) -> &'static [Hook] {
        match state {
            StateName::Running | StateName::Retrying => self.on_running,
            StateName::Completed | StateName::Cached => self.on_completion,
            StateName::Failed | StateName::TimedOut => self.on_failure,
            StateName::Cancelled => self.on_cancellation,
            StateName::Crashed => self.on_crashed,
            StateName::Scheduled
            | StateName::Late
            | StateName::AwaitingRetry
            | StateName::AwaitingConcurrencySlot
            | StateName::Pending
            | StateName::RolledBack
            | StateName::NotReady
            | StateName::Cancelling
            | StateName::Paused
            | StateName::Suspended => &[],
        }
    }
}

/// A hook that looks at a run and its state.
pub struct Hook {
    name: &'static str,
    call: Call,
    is_async: fn() -> bool,
}

enum Call {
    Task(for<'a> fn(&'a TaskRun, &'a State) -> HookReturn<'a>),
    Flow(for<'a> fn(&'a FlowRun, &'a State) -> HookReturn<'a>),
}

impl Hook {
    /// A hook of a task.
    pub const fn of_task(
        name: &'static str,
        call: for<'a> fn(&'a TaskRun, &'a State) -> HookReturn<'a>,
        is_async: fn() -> bool,
    ) -> Self {
        Self { name, call: Call::Task(call), is_async }
    }

    /// A hook of a flow.
    pub const fn of_flow(
        name: &'static str,
        call: for<'a> fn(&'a FlowRun, &'a State) -> HookReturn<'a>,
        is_async: fn() -> bool,
    ) -> Self {
        Self { name, call: Call::Flow(call), is_async }
    }

    fn call<'a>(&self, seen: &'a Seen) -> HookReturn<'a> {
        match (&self.call, &seen.run) {
            (Call::Task(call), Record::Task(run)) => call(run, &seen.state),
            (Call::Flow(call), Record::Flow(run)) => call(run, &seen.state),
            (Call::Task(_), Record::Flow(_)) | (Call::Flow(_), Record::Task(_)) => {
                unreachable!("the hooks of a function are of its own kind")
            }
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hook").field(&self.name).finish()
    }
}

/// A hook that looks at the result of a run.
pub struct ResultHook {
    name: &'static str,
    call: for<'a> fn(&'a Erased) -> HookReturn<'a>,
    is_async: fn() -> bool,
}

impl ResultHook {
    /// A hook of a task.
    pub const fn new(
        name: &'static str,
        call: for<'a> fn(&'a Erased) -> HookReturn<'a>,
        is_async: fn() -> bool,
    ) -> Self {
        Self { name, call, is_async }
    }

    /// The hook's name, as written in the attribute.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Calls the hook in that place.
    pub(crate) async fn run(&self, place: Place, result: &Erased) -> Result<(), HookFailure> {
        let call = self.call;
        if (self.is_async)() {
            return in_place(place, || call(result)).await;
        }
        let result = Arc::clone(result);
        on_a_thread(place, move || call(&result).into_done()).await
    }
}

impl fmt::Debug for ResultHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResultHook").field(&self.name).finish()
    }
}

/// The hooks of one run's result.
#[derive(Debug, Default)]
pub(crate) struct ResultHooks {
    pub(crate) on_commit: Vec<ResultHook>,
    pub(crate) on_rollback: Vec<ResultHook>,
}

impl ResultHooks {
    pub(crate) const fn is_empty(&self) -> bool {
        self.on_commit.is_empty() && self.on_rollback.is_empty()
    }
}

/// What a run looks like to its hooks.
struct Seen {
    run: Record,
    state: State,
}

enum Record {
    Task(TaskRun),
    Flow(FlowRun),
}

/// A run that crashed with its process, as it is in the history.
pub(crate) struct Crashed(Seen);

impl Crashed {
    pub(crate) fn task(run: TaskRun, state: State) -> Self {
        Self(Seen { run: Record::Task(TaskRun { state: state.clone(), ..run }), state })
    }

    pub(crate) fn flow(run: FlowRun, state: State) -> Self {
        Self(Seen { run: Record::Flow(FlowRun { state: state.clone(), ..run }), state })
    }

    fn title(&self) -> String {
        match &self.0.run {
            Record::Task(run) => format!("Task run '{}'", run.name),
            Record::Flow(run) => format!("Flow run '{}'", run.name),
        }
    }
}

/// Calls the hooks of a run that is no run of this process: runs that they start are roots. They are given some time, and
/// then left.
pub(crate) async fn call_of_crashed(orchestrator: &Arc<Inner>, crashed: Crashed, hooks: &'static [Hook]) {
    let crashed = Arc::new(crashed);
    let title = crashed.title();
    let calls = async {
        for hook in hooks {
            let place = Place::under(orchestrator);
            let outcome = if (hook.is_async)() {
                in_place(place, || hook.call(&crashed.0)).await
            } else {
                let crashed = Arc::clone(&crashed);
                on_a_thread(place, move || hook.call(&crashed.0).into_done()).await
            };
            if let Err(failure) = outcome {
                let name = hook.name;
                panics::shield(|| {
                    tracing::error!(target: "orchestrator", "{title}: the hook '{name}' for Crashed {failure}");
                });
            }
        }
    };
    let grace = orchestrator.defaults.cancel_grace;
    if tokio::time::timeout(grace, calls).await.is_err() {
        panics::shield(|| {
            tracing::error!(target: "orchestrator", "{title}: its hooks took longer than {} and are left", short(grace));
        });
    }
}

/// Calls the hooks for the state that the run has just entered, one after the other; what goes wrong is logged. Once the
/// run is cancelled they are given some time, and then left: a hook that does not return keeps nobody from ending.
pub(crate) async fn call(run: &Arc<Run>, hooks: &'static [Hook]) {
    let mut calls = pin!(call_all(run, hooks));
    if unless_cancelled(run, calls.as_mut()).await.is_some() {
        return;
    }
    let grace = run.scope().orchestrator.defaults.cancel_grace;
    if tokio::time::timeout(grace, calls).await.is_err() {
        took_too_long(run, grace);
    }
}

fn took_too_long(run: &Run, grace: Duration) {
    let (kind, name) = (run.kind(), run.name());
    panics::shield(|| {
        tracing::error!(target: "orchestrator", "{kind} '{name}': its hooks took longer than {} and are left", short(grace));
    });
}

async fn call_all(run: &Arc<Run>, hooks: &'static [Hook]) {
    let seen = Arc::new(look(run));
    for hook in hooks {
        // The run is somebody else's by now, and so are its hooks; or it goes on another time.
        if run.scope().orchestrator.fenced().is_some() || run.stopped_by() == Some(Stop::Interrupted) {
            return;
        }
        let place = Place::of(Arc::clone(run), run.run_count());
        let outcome = if (hook.is_async)() {
            in_place(place, || hook.call(&seen)).await
        } else {
            let seen = Arc::clone(&seen);
            on_a_thread(place, move || hook.call(&seen).into_done()).await
        };
        if let Err(failure) = outcome {
            report(run, hook, &failure);
        }
    }
}

/// Calls the hooks of a run whose runtime is gone: on a thread with a small runtime of its own.
pub(crate) fn call_without_runtime(run: &Arc<Run>, hooks: &'static [Hook]) {
    if hooks.is_empty() {
        return;
    }
    let called = Arc::clone(run);
    let thread = std::thread::Builder::new().name("orchestrator-hooks".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let grace = called.scope().orchestrator.defaults.cancel_grace;
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                if tokio::time::timeout(grace, call(&called, hooks)).await.is_err() {
                    took_too_long(&called, grace);
                }
            }),
            Err(error) => {
                let (kind, name) = (called.kind(), called.name());
                tracing::error!(target: "orchestrator", "{kind} '{name}': its hooks are not called: {error}");
            }
        }
    });
    if let Ok(thread) = thread {
        // What a hook does wrong was reported; the thread has nothing else to say.
        let _ = thread.join();
    }
}

fn look(run: &Run) -> Seen {
    let state = run.state();
    let record = match run.id() {
        crate::id::RunId::Task(_) => Record::Task(run.to_task_run()),
        crate::id::RunId::Flow(_) => Record::Flow(run.to_flow_run()),
    };
    Seen { run: record, state }
}

fn report(run: &Arc<Run>, hook: &Hook, failure: &HookFailure) {
    let state = run.state().name;
    // Told as part of the run, so that its log has it.
    Place::of(Arc::clone(run), run.run_count()).within(|| {
        panics::shield(|| {
            tracing::error!(
                target: "orchestrator",
                "{} '{}': the hook '{}' for {state} {failure}; the run stays as it is",
                run.kind(),
                run.name(),
                hook.name,
            );
        });
    });
}

/// Polls what an async hook does.
async fn in_place<'a>(mut place: Place, call: impl FnOnce() -> HookReturn<'a>) -> Result<(), HookFailure> {
    let returned = place.within(|| panics::catch(call)).map_err(HookFailure::panicked)?;
    match returned {
        HookReturn::Done(outcome) => outcome,
        HookReturn::Later(future) => Contained::new(place, future).await.map_err(HookFailure::panicked)?,
    }
}

/// Calls a sync hook, which may block, on the blocking pool; beneath sync bodies, which may fill that, on a thread of its
/// own.
async fn on_a_thread(
    mut place: Place,
    call: impl FnOnce() -> Result<(), HookFailure> + Send + 'static,
) -> Result<(), HookFailure> {
    let own_thread = place.run().is_some_and(|run| run.is_below_sync());
    let called = move || place.within(|| panics::catch(call));
    let outcome = if own_thread {
        let (sender, outcome) = tokio::sync::oneshot::channel();
        let handle = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("orchestrator-hook".to_owned());
        let started = thread.spawn(move || {
            let _runtime = handle.enter();
            // Nobody is told if the run was given up meanwhile.
            let _ = sender.send(called());
        });
        started.map_err(|error| HookFailure::said(format!("there is no thread for it: {error}")))?;
        outcome.await.ok()
    } else {
        tokio::task::spawn_blocking(called).await.ok()
    };
    match outcome {
        Some(outcome) => outcome.map_err(HookFailure::panicked)?,
        None => Err(HookFailure::said("it was not called: the runtime is shut down".to_owned())),
    }
}

/// Why a hook did not do what it should.
pub struct HookFailure(pub(crate) BodyError);

impl HookFailure {
    fn said(said: String) -> Self {
        Self(BodyError::new(said))
    }

    fn panicked(said: String) -> Self {
        Self::said(said)
    }
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}", chain(self.0.as_dyn()))
    }
}

impl fmt::Debug for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a hook gave: its outcome, or a future of it.
pub enum HookReturn<'a> {
    /// The hook is sync.
    Done(Result<(), HookFailure>),
    /// The hook is async.
    Later(Pin<Box<dyn Future<Output = Result<(), HookFailure>> + Send + 'a>>),
}

impl HookReturn<'_> {
    fn into_done(self) -> Result<(), HookFailure> {
        match self {
            Self::Done(outcome) => outcome,
            Self::Later(_) => unreachable!("an async hook is not called here"),
        }
    }
}

impl fmt::Debug for HookReturn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done(_) => "HookReturn::Done",
            Self::Later(_) => "HookReturn::Later",
        })
    }
}

/// What a hook may return.
#[diagnostic::on_unimplemented(
    message = "a hook cannot return `{Self}`",
    label = "this hook",
    note = "a hook returns nothing or a `Result<(), E>`, and may be async"
)]
pub trait HookOutcome {
    /// The outcome as the runtime sees it.
    #[doc(hidden)]
    fn into_outcome(self) -> Result<(), HookFailure>;
}

impl HookOutcome for () {
    fn into_outcome(self) -> Result<(), HookFailure> {
        Ok(())
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static> HookOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), HookFailure> {
        self.map_err(|error| HookFailure(BodyError::new(error)))
    }
}

/// The kind of hooks that return a future: method look-up finds this first.
pub trait HookKindAsync {
    /// The kind.
    fn hook_kind(&self) -> AsyncHook {
        AsyncHook
    }
}

impl<F: Future> HookKindAsync for &Probe<F> {}

/// The kind of all other hooks.
pub trait HookKindSync {
    /// The kind.
    fn hook_kind(&self) -> SyncHook {
        SyncHook
    }
}

impl<R> HookKindSync for Probe<R> {}

/// Hooks that return a future.
#[derive(Debug, Clone, Copy)]
pub struct AsyncHook;

/// Hooks that return their outcome.
#[derive(Debug, Clone, Copy)]
pub struct SyncHook;

impl AsyncHook {
    /// Takes what the hook returned.
    pub fn run<'a, F>(self, future: F) -> HookReturn<'a>
    where
        F: Future + Send + 'a,
        F::Output: HookOutcome,
    {
        HookReturn::Later(Box::pin(async move { future.await.into_outcome() }))
    }

    /// Whether hooks of this kind are async.
    #[must_use]
    pub const fn is_async(self) -> bool {
        true
    }
}

impl SyncHook {
    /// Takes what the hook returned.
    pub fn run<'a>(self, outcome: impl HookOutcome) -> HookReturn<'a> {
        HookReturn::Done(outcome.into_outcome())
    }

    /// Whether hooks of this kind are async.
    #[must_use]
    pub const fn is_async(self) -> bool {
        false
    }
}

/// A probe of a value's type.
pub const fn probe_of<T>(_: &T) -> Probe<T> {
    Probe::NEW
}

/// A probe of what a hook on states returns.
pub fn probe_hook<A: 'static, B: 'static, R>(_: impl Fn(&'static A, &'static B) -> R) -> Probe<R> {
    Probe::NEW
}

/// A probe of what a hook on results returns.
pub fn probe_result_hook<A: 'static, R>(_: impl Fn(&'static A) -> R) -> Probe<R> {
    Probe::NEW
}

/// The result of a run as what it is.
#[must_use]
pub fn result_of_type<T: 'static>(result: &Erased) -> &T {
    result.downcast_ref().expect("a run's hooks are called with its own result")
}
