//! Pauses inside a flow: its body waits, in the process, until somebody lets the flow run on.
//!
//! A pause belongs to the attempt in whose body it was asked for: it is over when it is resumed or dropped, when its
//! time is up, or when that attempt ends. [`table`] keeps the flow run's state in step.

mod resume;
mod table;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::backend::record::Pause;
use crate::context::{Part, Place};
use crate::error::{Error, ErrorKind};
use crate::run::Run;
use crate::state::StateType;
pub(crate) use resume::resume;
pub(crate) use table::Pauses;
use table::{Answer, Entry, Input, Parse, lock};

/// How long a pause lasts at most, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(3600);

const ATTEMPT_OVER: &str = "the attempt that paused it is over";

/// Pauses the flow run that the calling code is part of until
/// [`resume_paused`](crate::Orchestrator::resume_paused) lets it on, or an hour has passed.
///
/// Meanwhile the flow run is Paused, and the runs that it calls do not start; those that have started go on. In the
/// body of a task this pauses the flow run that the task belongs to. A flow run that was paused several times at once
/// goes on when all of these pauses are over.
///
/// ```
/// use std::time::Duration;
///
/// use orchestrator_core::{Error, pause_flow_run};
///
/// # async fn body() -> Result<(), Error> {
/// pause_flow_run().message("are the numbers right?").timeout(Duration::from_secs(600)).await?;
/// # Ok(())
/// # }
/// ```
pub fn pause_flow_run() -> PauseFlowRun {
    PauseFlowRun::new(None, parse_nothing, |_| ())
}

/// Pauses the flow run as [`pause_flow_run`] does, until somebody lets it on with an input.
///
/// The JSON Schema of the input is kept with the run, as [`FlowRun::pause`](crate::FlowRun::pause): whoever asks a
/// person can make a form of it. An input that is no `T` is refused, and the pause goes on.
///
/// ```
/// use orchestrator_core::{Error, pause_for_input};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Approval {
///     approved: bool,
///     note: Option<String>,
/// }
///
/// # async fn body() -> Result<(), Error> {
/// let Approval { approved, note } = pause_for_input().message("release it?").await?;
/// # let _ = (approved, note);
/// # Ok(())
/// # }
/// ```
pub fn pause_for_input<T: DeserializeOwned + JsonSchema + Send + 'static>() -> PauseFlowRun<T> {
    let parse: Parse = |value| serde_json::from_value::<T>(value).map(|input| Box::new(input) as Input);
    let take = |input: Input| *input.downcast::<T>().expect("inputs are made by the `parse` of the same pause");
    PauseFlowRun::new(Some(schemars::schema_for!(T).to_value()), parse, take)
}

fn parse_nothing(value: Value) -> Result<Input, serde_json::Error> {
    serde_json::from_value::<()>(value).map(|()| Box::new(()) as Input)
}

/// A pause of the enclosing flow run; made by [`pause_flow_run`] and [`pause_for_input`]. It begins when this is first
/// polled.
///
/// # Errors
///
/// If the time is up: [`Error::is_timed_out`] is true. If the code is not part of a flow, or the run that it is part of
/// has ended, is being cancelled, or is at a later attempt: [`Error::is_not_paused`] is true.
///
/// # Cancel safety
///
/// Dropping it ends the pause: the flow run goes on, unless it was paused by others as well. A pause that is kept but not
/// polled, as one that lost a `select!` by reference, goes on until it is resumed or its time is up; meanwhile the runs
/// that the flow calls do not start.
#[must_use = "nothing is paused until this is awaited"]
pub struct PauseFlowRun<T = ()> {
    place: Place,
    timeout: Duration,
    message: Option<String>,
    input_schema: Option<Value>,
    parse: Parse,
    take: fn(Input) -> T,
    stage: Stage,
    output: PhantomData<fn() -> T>,
}

enum Stage {
    New,
    Waiting(Waiting),
    Done,
}

/// A pause that has begun; dropping it ends it.
struct Waiting {
    flow: Arc<Run>,
    entry: Arc<Entry>,
    timer: Option<AbortHandle>,
}

impl<T> std::fmt::Debug for PauseFlowRun<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("PauseFlowRun");
        shown.field("timeout", &self.timeout).field("message", &self.message).finish_non_exhaustive()
    }
}

impl<T> PauseFlowRun<T> {
    fn new(input_schema: Option<Value>, parse: Parse, take: fn(Input) -> T) -> Self {
        let place = Place::current();
        let stage = Stage::New;
        Self { place, timeout: TIMEOUT, message: None, input_schema, parse, take, stage, output: PhantomData }
    }

    /// How long the pause lasts at most: an hour, unless this says otherwise. `Duration::MAX` is for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What the person is asked: kept with the run, and shown as the message of its state.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    fn begin(&mut self) -> Result<Waiting, Error> {
        let (owner, flow) = enclosing_flow(&self.place)?;
        let since = flow.scope().orchestrator.clock.now().to_datetime();
        let until = TimeDelta::from_std(self.timeout).ok().and_then(|timeout| since.checked_add_signed(timeout));
        let input_schema = self.input_schema.take();
        let message = match (&self.message, &input_schema) {
            (Some(message), _) => message.as_str(),
            (None, Some(_)) => "waits for an input",
            (None, None) => "waits to be resumed",
        };
        let message = message.into();
        let pause = Arc::new(Pause { since, until, message: self.message.take(), input_schema });
        let entry =
            Arc::new(Entry { pause, owner, parse: self.parse, answer: Default::default(), waker: Default::default() });
        flow.scope().pauses.begin(&flow, &entry, message)?;
        let mut waiting = Waiting { flow, entry, timer: None };
        if until.is_some() {
            waiting.end_after(self.timeout);
        }
        Ok(waiting)
    }
}

/// The run that the code at that place is part of, and the flow run that it would pause.
fn enclosing_flow(place: &Place) -> Result<(Arc<Run>, Arc<Run>), Error> {
    let Part::Run { run, attempt, .. } = &place.part else {
        return Err(refused("there is nothing to pause: the code is not part of a flow run".to_owned()));
    };
    let Some(flow) = flow_of(run) else {
        return Err(refused(format!("there is nothing to pause: task run '{}' is not part of a flow run", run.name())));
    };
    let why = if run.is_cancelled() {
        format!("'{}', which asks for it, is being cancelled", run.name())
    } else if run.has_ended() || run.run_count() != *attempt || !is_in_body(run) {
        format!("attempt {} of '{}', which asks for it, is over", attempt, run.name())
    } else {
        return Ok((Arc::clone(run), Arc::clone(flow)));
    };
    Err(refused(format!("flow run '{}' cannot be paused: {why}", flow.name())))
}

/// Whether an attempt goes on, and not the delay after it. The table of pauses knows that of flow runs.
fn is_in_body(run: &Run) -> bool {
    is_flow(run) || run.state().kind == StateType::Running
}

/// The innermost flow run that the run is, or is part of.
fn flow_of(run: &Arc<Run>) -> Option<&Arc<Run>> {
    run.lineage().find(|run| is_flow(run))
}

/// The expansion of a `map` over flows is none.
fn is_flow(run: &Run) -> bool {
    run.is_flow() && run.visible
}

fn refused(said: String) -> Error {
    Error::new(ErrorKind::NotPaused(said))
}

impl<T> Future for PauseFlowRun<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if matches!(this.stage, Stage::New) {
            this.stage = Stage::Done;
            this.stage = Stage::Waiting(this.begin()?);
        }
        let Stage::Waiting(waiting) = &mut this.stage else { panic!("a pause was polled after it was over") };
        let Poll::Ready(answer) = waiting.poll(cx) else { return Poll::Pending };
        this.stage = Stage::Done;
        Poll::Ready(answer.map(this.take))
    }
}

impl Waiting {
    /// Ends the pause when its time is up, whether or not anybody polls it then: whoever let go of it without dropping
    /// it may wait for what it keeps from starting.
    fn end_after(&mut self, timeout: Duration) {
        let (flow, entry) = (Arc::downgrade(&self.flow), Arc::downgrade(&self.entry));
        // Whoever polls may be a thread that knows of no runtime.
        let handle = self.flow.scope().handle().cloned().expect("a flow run that executes its body has a runtime");
        let runtime = handle.enter();
        let time_is_up = tokio::time::sleep(timeout);
        drop(runtime);
        let timer = handle.spawn(async move {
            time_is_up.await;
            let (Some(flow), Some(entry)) = (flow.upgrade(), entry.upgrade()) else { return };
            let said = format!("the pause was not resumed within {}", crate::terminal::short(timeout));
            let answer = || Some(Err(Error::new(ErrorKind::TimedOut(said.clone()))));
            end(&flow, &entry, &said, answer);
        });
        self.timer = Some(timer.abort_handle());
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.entry.waker.register(cx.waker());
        let answer = lock(&self.entry.answer).take();
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        end(&self.flow, &self.entry, "the pause was dropped", || None);
    }
}

/// Ends one pause, unless it is over already.
fn end(flow: &Arc<Run>, entry: &Arc<Entry>, why: &str, answer: impl FnMut() -> Option<Answer>) {
    flow.scope().pauses.end(flow, |other| Arc::ptr_eq(other, entry), why, answer);
}

/// The body of the run is executed from now on.
pub(crate) fn attempt_begins(run: &Run) {
    if is_flow(run) {
        run.scope().pauses.open();
    }
}

/// The body of the run is executed no longer: pauses that it has left behind, on a thread or in a task of its own, are
/// over. At the end of a flow run's attempt all of its pauses are.
pub(crate) fn attempt_ended(run: &Arc<Run>, cancelled: bool) {
    if is_flow(run) {
        run.scope().pauses.shut();
    }
    end_those_of(run, ATTEMPT_OVER);
    // The cancellation may have come too late to matter, but in time to keep the run Paused.
    if is_flow(run) && run.is_cancelled() && !cancelled {
        run.scope().pauses.leave(run, ATTEMPT_OVER);
    }
}

/// Ends the pauses that were asked for in the body of the run, which is to stop.
pub(crate) fn withdraw(run: &Arc<Run>) {
    end_those_of(run, "the run that paused it is being cancelled");
}

fn end_those_of(run: &Arc<Run>, why: &str) {
    if !run.scope().pauses.is_paused() {
        return;
    }
    let Some(flow) = flow_of(run) else { return };
    let all = Arc::ptr_eq(flow, run);
    let said = || format!("flow run '{}' is not paused any more: {why}", flow.name());
    let those = |entry: &Arc<Entry>| all || Arc::ptr_eq(&entry.owner, run);
    run.scope().pauses.end(flow, those, why, || Some(Err(refused(said()))));
}
