//! Where the present code runs: in which run, under which orchestrator.
//!
//! The context is set on the thread each time a body is polled, and taken off after; code that a body gives to
//! `tokio::spawn` has none unless it is wrapped in [`InCurrentRun`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as Polling, Poll};

use crate::backend::record::{Event, LogRecord};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::orchestrator::{Inner, Orchestrator};
use crate::run::Run;
use crate::transaction;

/// What the thread is doing for us at the moment.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) part: Part,
    pub(crate) transaction: Option<Arc<transaction::Shared>>,
}

/// What code is part of.
#[derive(Clone, Default)]
pub(crate) enum Part {
    #[default]
    Nothing,
    /// A scope of an orchestrator.
    Scope(Arc<Inner>),
    Run {
        run: Arc<Run>,
        attempt: u32,
        /// Whether this is code that the body gave away, so that the run does not wait for it.
        aside: bool,
    },
}

crate::sync::thread_local! {
    static PLACE: RefCell<Place> =
        const { RefCell::new(Place { part: Part::Nothing, transaction: None }) };
}

impl Place {
    pub(crate) fn of(run: Arc<Run>, attempt: u32) -> Self {
        let transaction = run.transaction().cloned();
        Self { part: Part::Run { run, attempt, aside: false }, transaction }
    }

    /// A place under an orchestrator, outside of any run.
    pub(crate) fn under(orchestrator: &Arc<Inner>) -> Self {
        Self { part: Part::Scope(Arc::clone(orchestrator)), transaction: None }
    }

    /// The same place in code that the body gives away.
    fn aside(mut self) -> Self {
        if let Part::Run { aside, .. } = &mut self.part {
            *aside = true;
        }
        self
    }

    /// The same place inside a transaction.
    pub(crate) fn in_transaction(self, transaction: Arc<transaction::Shared>) -> Self {
        Self { transaction: Some(transaction), ..self }
    }

    /// Where the present code runs.
    pub(crate) fn current() -> Self {
        PLACE.with_borrow(Clone::clone)
    }

    /// Runs `work` in this place. The place moves into the thread and back, so nothing is counted up or down.
    pub(crate) fn within<R>(&mut self, work: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a mut Place);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                swap(self.0);
            }
        }
        fn swap(place: &mut Place) {
            // A thread that is being torn down has no place left; there is nothing to restore then.
            let _ = PLACE.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), place));
        }
        swap(self);
        let restore = Restore(self);
        let result = work();
        drop(restore);
        result
    }

    pub(crate) fn inner(&self) -> Option<&Arc<Inner>> {
        match &self.part {
            Part::Nothing => None,
            Part::Scope(orchestrator) => Some(orchestrator),
            Part::Run { run, .. } => Some(&run.scope().orchestrator),
        }
    }

    pub(crate) const fn run(&self) -> Option<&Arc<Run>> {
        if let Part::Run { run, .. } = &self.part { Some(run) } else { None }
    }

    /// The run, and which attempt of it the code is part of.
    pub(crate) fn opener(&self) -> Option<(Arc<Run>, u32)> {
        if let Part::Run { run, attempt, .. } = &self.part { Some((Arc::clone(run), *attempt)) } else { None }
    }
}

/// Calls `look` with the run whose body the present code belongs to.
pub(crate) fn with_run<R>(look: impl FnOnce(Option<&Arc<Run>>) -> R) -> R {
    PLACE.with_borrow(|place| look(place.run()))
}

/// Calls `look` if that is the run whose body the present code belongs to.
pub(crate) fn if_run_is<R>(run: &Weak<Run>, look: impl FnOnce(&Arc<Run>) -> R) -> Option<R> {
    // A thread that is being torn down has no place left.
    let look = |place: &RefCell<Place>| {
        let place = place.try_borrow().ok()?;
        place.run().filter(|current| Arc::as_ptr(current) == run.as_ptr()).map(look)
    };
    PLACE.try_with(look).ok().flatten()
}

/// Calls `look` with the run whose body the present code is, unless the body gave it away.
pub(crate) fn with_body<R>(look: impl FnOnce(&Arc<Run>) -> Option<R>) -> Option<R> {
    PLACE.with_borrow(|place| if let Part::Run { run, aside: false, .. } = &place.part { look(run) } else { None })
}

/// Calls `look` with the transaction that the present code is part of.
pub(crate) fn with_transaction<R>(look: impl FnOnce(Option<&Arc<transaction::Shared>>) -> R) -> R {
    PLACE.with_borrow(|place| look(place.transaction.as_ref()))
}

/// Kind and name of the run whose body the present code belongs to, for log lines, and whether a flow run goes on that ends only
/// after it.
pub(crate) fn current_run_label() -> Option<(&'static str, Arc<str>, bool)> {
    with_run(|run| run.map(|run| (run.kind(), run.name(), run.is_in_active_flow())))
}

/// Keeps a log line with the run whose body the present code belongs to.
pub(crate) fn record_log(level: &'static str, target: &str, message: String) {
    with_run(|run| {
        let Some(run) = run else { return };
        let orchestrator = &run.scope().orchestrator;
        let record =
            LogRecord { run: run.id(), at: orchestrator.clock.now(), level, target: target.to_owned(), message };
        if orchestrator.journal.is_immediate() {
            // Whoever goes through the lines of a flow run finds only those of runs that are known.
            run.flush();
        }
        orchestrator.journal.push(Event::Log(record));
    });
}

/// What a body can know about its own run.
///
/// Outside of a run every answer is empty: no id, no tags, attempt 0, not cancelled.
#[derive(Clone)]
pub struct RunContext {
    run: Option<Arc<Run>>,
    attempt: u32,
}

impl RunContext {
    /// The context of the code that calls this.
    #[must_use]
    pub fn current() -> Self {
        let (run, attempt) = PLACE.with_borrow(Place::opener).unzip();
        Self { run, attempt: attempt.unwrap_or(0) }
    }

    /// The context of the code that calls this, if it is part of a run.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        Some(Self::current()).filter(|context| context.run.is_some())
    }

    /// Which attempt this is, counted from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The run's id, of either kind.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.run.as_ref().map(|run| run.id())
    }

    /// The task run's id; `None` in the body of a flow.
    #[must_use]
    pub fn task_run_id(&self) -> Option<TaskRunId> {
        self.run_id().and_then(RunId::as_task)
    }

    /// The id of the flow run: of this one in the body of a flow, of the enclosing one in the body of a task.
    #[must_use]
    pub fn flow_run_id(&self) -> Option<FlowRunId> {
        let run = self.run.as_ref()?;
        run.id().as_flow().or(run.flow_run())
    }

    /// The run's name; empty outside of a run.
    #[must_use]
    pub fn run_name(&self) -> String {
        self.run.as_ref().map(|run| run.name().to_string()).unwrap_or_default()
    }

    /// The display name of the task or flow; empty outside of a run.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.run.as_ref().map_or("", |run| run.def().name)
    }

    /// The display name of the flow; empty outside of a flow.
    #[must_use]
    pub fn flow_name(&self) -> &'static str {
        let flow = self.run.as_ref().and_then(|run| run.origins().find(|run| run.is_flow()));
        flow.map_or("", |flow| flow.def().name)
    }

    /// The run's tags, sorted.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let tags = self.run.as_ref().map(|run| run.tags().iter().map(|tag| tag.to_string()).collect());
        tags.unwrap_or_default()
    }

    /// The parameters of the flow run, as recorded; null outside of a flow.
    #[must_use]
    pub fn parameters(&self) -> serde_json::Value {
        let scope = self.run.as_ref().map(|run| run.scope());
        scope.and_then(|scope| scope.parameters.get().cloned()).unwrap_or_default()
    }

    /// Whether the run was asked to end, or this attempt is over because it took too long. Bodies without an `await` should look now and then, and return.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_cancelled() || run.has_ended() || run.run_count() != self.attempt)
    }
}

impl std::fmt::Debug for RunContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunContext").field("run", &self.run).field("attempt", &self.attempt).finish()
    }
}

/// Futures that take the run they were made in along, wherever they are polled.
pub trait InCurrentRun: Future + Sized {
    /// Makes this future part of the run whose body calls this: for `tokio::spawn`, or a thread, within a body. Runs that are
    /// called there without it belong to nobody: no flow waits for them.
    ///
    /// ```
    /// use orchestrator_core::InCurrentRun;
    ///
    /// # async fn body() {
    /// tokio::spawn(async { /* tasks called here belong to the run */ }.in_current_run());
    /// # }
    /// ```
    fn in_current_run(self) -> Placed<Self> {
        Placed::new(Place::current().aside(), self)
    }
}

impl<F: Future> InCurrentRun for F {}

/// A future that is polled in a place of its own; made by [`InCurrentRun::in_current_run`].
#[must_use = "futures do nothing unless awaited"]
pub struct Placed<F> {
    place: Place,
    future: Pin<Box<F>>,
}

impl<F> Placed<F> {
    pub(crate) fn new(place: Place, future: F) -> Self {
        Self { place, future: Box::pin(future) }
    }
}

impl<F> std::fmt::Debug for Placed<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Placed")
    }
}

impl<F: Future> Future for Placed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let future = this.future.as_mut();
        this.place.within(|| future.poll(cx))
    }
}

impl Orchestrator {
    /// The orchestrator under which the present code runs: that of the run or [`scope`](Self::scope) around it, else
    /// the installed one, else one made from the environment.
    #[must_use]
    pub fn current() -> Self {
        let inner = PLACE.with_borrow(|place| place.inner().cloned());
        inner.map_or_else(Self::process_default, Self::from_inner)
    }
}
