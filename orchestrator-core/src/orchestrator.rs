//! The orchestrator: what all runs of a process share, and the questions one can ask about them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::active::About;
use crate::backend::memory::MemoryBackend;
use crate::backend::record::{FlowRun, FlowRunQuery, LogLine, Process, SharedList, TaskRun};
use crate::backend::{BackendError, Guarded, StateBackend};
use crate::builder::OrchestratorBuilder;
use crate::cache::{Flights, Fresh, Reader};
use crate::clock::Clock;
use crate::concurrency::{Limit, Limits, SetLimit, Store};
use crate::context::{Place, Placed};
use crate::engine::{Launcher, panics};
use crate::error::{Error, ErrorKind};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::journal::Journal;
use crate::keeper::{Keeper, Role};
use crate::observe::{Observer, Observers};
use crate::options::Defaults;
use crate::recovery::{self, Recovery};
use crate::results::{Results, Sweeper};
use crate::retention::Retention;
use crate::retention::upkeep::Upkeep;
use crate::run::{Children, Holds, Stop};
use crate::scope::{Counts, Scope};
use crate::state::State;
use crate::testing::Kit;

/// Runs tasks and flows, and remembers what they did. A cheap handle: clones are the same orchestrator.
///
/// Programs need none of their own: the first run makes one from the environment. Make one to set options, to have
/// several, or to look at runs.
///
/// ```
/// use orchestrator_core::Orchestrator;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let orchestrator = Orchestrator::in_memory();
/// let answer = orchestrator.scope(async { 42 }).await;
/// assert_eq!(answer, 42);
/// # }
/// ```
#[derive(Clone)]
pub struct Orchestrator {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn StateBackend>,
    pub(crate) journal: Journal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) defaults: Defaults,
    pub(crate) limits: Arc<Limits>,
    pub(crate) flights: Flights,
    pub(crate) fresh: Arc<Fresh>,
    pub(crate) reader: Reader,
    pub(crate) results: Arc<Results>,
    pub(crate) observers: Observers,
    /// Threads for sync bodies.
    pub(crate) workers: Arc<Semaphore>,
    /// Runs that no other run started.
    pub(crate) roots: Children,
    /// What else keeps it from ending.
    pub(crate) holds: Holds,
    pub(crate) process: &'static Process,
    /// What the orchestrator is in a store that it shares with others. Dropped after the journal, which may still write.
    pub(crate) keeper: Option<Keeper>,
    /// Whether a run whose history cannot be stored fails.
    pub(crate) strict: bool,
    /// Whether signals cancel the runs.
    pub(crate) signals: bool,
    /// What runs outside of flows share, for the runtime that was used last. Runs keep it alive, not the orchestrator,
    /// which it refers to.
    outside: Mutex<Weak<Scope>>,
    /// The numbers of runs outside of flows.
    counts: Arc<Counts>,
    /// How long history is kept.
    pub(crate) retention: Retention,
    /// Removes old runs in the background, until it is dropped.
    #[expect(dead_code, reason = "it is held to be dropped")]
    upkeep: Option<Upkeep>,
    /// What it does about runs that crashed with their process.
    pub(crate) recovery: Recovery,
    /// What tests put into the orchestrator.
    pub(crate) testing: Kit,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator").field("backend", &self.backend.location()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// The installed orchestrator, or the one that was made from the environment.
static PROCESS_DEFAULT: RwLock<Option<Orchestrator>> = RwLock::new(None);

/// What helps where an orchestrator was found to be gone.
const BEGIN_ANEW: &str = "build a new orchestrator, or start the program again";

/// What an [`Inner`] is made of.
pub(crate) struct Parts {
    pub(crate) backend: Arc<dyn StateBackend>,
    pub(crate) results: Arc<Results>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) defaults: Defaults,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) workers: usize,
    pub(crate) strict: bool,
    pub(crate) signals: bool,
    pub(crate) lease: Duration,
    pub(crate) role: Role,
    pub(crate) retention: Retention,
    pub(crate) recovers: recovery::Scope,
}

impl Orchestrator {
    /// Starts to make an orchestrator with options.
    pub fn builder() -> OrchestratorBuilder {
        OrchestratorBuilder::new()
    }

    /// An orchestrator whose history and cache end with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder().build_over(Arc::new(MemoryBackend::new()))
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        panics::install_hook();
        let Parts {
            backend,
            results,
            clock,
            defaults,
            observers,
            workers,
            strict,
            signals,
            lease,
            role,
            retention,
            recovers,
        } = parts;
        let backend: Arc<dyn StateBackend> = Arc::new(Guarded::around(backend));
        let fresh = Arc::new(Fresh::default());
        let keeper = Keeper::start(&backend, &clock, lease, role);
        let membership = keeper.as_ref().map(|keeper| Arc::clone(keeper.membership()));
        let journal = Journal::new(Arc::clone(&backend), membership.clone(), observers.clone(), Arc::clone(&fresh));
        let limits = match &keeper {
            Some(keeper) => Limits::in_store(Store {
                backend: Arc::clone(&backend),
                lookout: keeper.lookout(),
                clock: Arc::clone(&clock),
                journal: journal.settlement(),
            }),
            None => Limits::new(Arc::clone(&clock)),
        };
        let runtime = Handle::try_current().ok();
        let sweeper = Sweeper { backend: Arc::clone(&backend), results: Arc::clone(&results), runtime };
        let inner = Arc::new(Inner {
            // Whoever only looks leaves everything as it is.
            upkeep: if role == Role::Works { Upkeep::start(&sweeper, &clock, retention) } else { None },
            retention,
            process: membership.as_ref().map_or_else(crate::process::this_process, |member| member.process()),
            journal,
            limits: Arc::new(limits),
            reader: Reader::new(Arc::clone(&backend)),
            backend,
            results,
            clock,
            defaults,
            flights: Flights::default(),
            fresh,
            observers: Observers::new(observers),
            workers: Arc::new(Semaphore::new(workers.clamp(1, Semaphore::MAX_PERMITS))),
            roots: Children::default(),
            holds: Holds::default(),
            keeper,
            strict,
            signals,
            outside: Mutex::default(),
            counts: Arc::default(),
            recovery: Recovery::new(if role == Role::Works { recovers } else { recovery::Scope::Nothing }),
            testing: Kit::default(),
        });
        if let Some(keeper) = &inner.keeper {
            keeper.keep_runs_of(&inner);
        }
        Self { inner }
    }

    pub(crate) const fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) const fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn into_inner(self) -> Arc<Inner> {
        self.inner
    }

    /// Makes this the orchestrator of all runs in the process that are under no other.
    pub fn install(&self) {
        *PROCESS_DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
    }

    /// The installed orchestrator; makes one from the environment if there is none.
    pub(crate) fn process_default() -> Self {
        if let Some(installed) = &*PROCESS_DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
            return installed.clone();
        }
        let mut slot = PROCESS_DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*slot {
            return made.clone();
        }
        let made = Self::builder().build_anyway();
        *slot = Some(made.clone());
        drop(slot);
        // Code of the user's runs here.
        recovery::begin(&made.inner);
        made
    }

    /// The orchestrator in scope, or the installed one; none is made.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        let scope = Place::current().inner().cloned().map(Self::from_inner);
        scope.or_else(|| PROCESS_DEFAULT.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Runs a future under this orchestrator: every run that it submits belongs to it.
    pub fn scope<F: Future>(&self, future: F) -> Placed<F> {
        Placed::new(Place::under(&self.inner), future)
    }

    /// Where history and cache are kept, for people: `memory`, or a path.
    #[must_use]
    pub fn location(&self) -> String {
        self.inner.backend.location()
    }

    /// How long a body is given to stop when its run is cancelled, as
    /// [`OrchestratorBuilder::cancel_grace`](crate::OrchestratorBuilder::cancel_grace) sets it.
    #[must_use]
    pub fn cancel_grace(&self) -> Duration {
        self.inner.defaults.cancel_grace
    }

    /// How many events could not be stored.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.inner.journal.lost().0
    }

    /// Asks the backend, which knows all that happened so far, but for what active runs have not told.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn StateBackend, &Inner) -> Result<R, BackendError> + Send + 'static,
    ) -> Result<R, Error> {
        self.ask_about(About::Nothing, question).await
    }

    /// Asks the backend about one run. Only if the answer is not that of a run which is over, what the run itself
    /// has to tell is looked for.
    async fn ask_about_run<R: Send + 'static>(
        &self,
        id: RunId,
        question: impl Fn(&dyn StateBackend) -> Result<R, BackendError> + Send + 'static,
        is_over: fn(&R) -> bool,
    ) -> Result<R, Error> {
        let ask = move |backend: &dyn StateBackend, inner: &Inner| {
            let answer = question(backend)?;
            if is_over(&answer) {
                return Ok(answer);
            }
            // One that has ended meanwhile has told the journal itself.
            inner.tell_of(About::Run(id));
            inner.journal.commit();
            question(backend)
        };
        self.ask(ask).await
    }

    /// Asks the backend, which knows all that happened so far, also to the active runs that the question is about.
    pub(crate) async fn ask_about<R: Send + 'static>(
        &self,
        about: About,
        question: impl FnOnce(&dyn StateBackend, &Inner) -> Result<R, BackendError> + Send + 'static,
    ) -> Result<R, Error> {
        let inner = Arc::clone(&self.inner);
        let answer = move || {
            inner.tell_of(about);
            inner.journal.commit();
            let answer = question(&*inner.backend, &inner);
            if let Some(keeper) = &inner.keeper {
                keeper.membership().heard(&answer);
            }
            answer
        };
        let answer = if self.inner.journal.is_immediate() {
            answer()
        } else {
            tokio::task::spawn_blocking(answer).await.map_err(|_| Error::new(ErrorKind::ShutDown))?
        };
        answer.map_err(Error::from)
    }

    /// The flow run of that id.
    ///
    /// # Errors
    ///
    /// If there is none, or if the backend cannot be read.
    pub async fn flow_run(&self, id: FlowRunId) -> Result<FlowRun, Error> {
        let is_over = |found: &Option<FlowRun>| found.as_ref().is_some_and(|run| run.state.is_terminal());
        let found = self.ask_about_run(id.into(), move |backend| backend.flow_run(id), is_over).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound(format!("there is no flow run {id}"))))
    }

    /// The flow runs that match, newest first.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn flow_runs(&self, query: &FlowRunQuery) -> Result<Vec<FlowRun>, Error> {
        let query = query.clone();
        self.ask_about(About::FlowRuns, move |backend, inner| backend.flow_runs(&query, inner.clock.now())).await
    }

    /// The task runs that belong to a flow run, in the order of their submission.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn task_runs(&self, flow_run_id: FlowRunId) -> Result<Vec<TaskRun>, Error> {
        self.ask_about(About::TaskRuns(Some(flow_run_id)), move |backend, _| backend.task_runs(flow_run_id)).await
    }

    /// The task run of that id.
    ///
    /// # Errors
    ///
    /// If there is none, or if the backend cannot be read.
    pub async fn task_run(&self, id: TaskRunId) -> Result<TaskRun, Error> {
        let is_over = |found: &Option<TaskRun>| found.as_ref().is_some_and(|run| run.state.is_terminal());
        let found = self.ask_about_run(id.into(), move |backend| backend.task_run(id), is_over).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound(format!("there is no task run {id}"))))
    }

    /// The whole history of a run, oldest first.
    ///
    /// # Errors
    ///
    /// If there is no such run, or if the backend cannot be read.
    pub async fn states(&self, run_id: impl Into<RunId>) -> Result<Vec<State>, Error> {
        let id = run_id.into();
        let is_over = |states: &Vec<State>| states.last().is_some_and(State::is_terminal);
        let states = self.ask_about_run(id, move |backend| backend.states(id), is_over).await?;
        if states.is_empty() {
            return Err(Error::new(ErrorKind::NotFound(format!("there is no run {id}"))));
        }
        Ok(states)
    }

    /// The log lines of a run, oldest first: `tracing` events that its body emitted.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn logs(&self, run_id: impl Into<RunId>) -> Result<Vec<LogLine>, Error> {
        let id = run_id.into();
        self.ask(move |backend, _| backend.logs(id)).await
    }

    /// Asks a run, and every run that it started, to end; waits until it has. It may belong to another process, or another
    /// orchestrator, over the same store: that notices within a moment.
    ///
    /// The run may end in another state than Cancelled, because it was about to, or because its process went away: its
    /// record says so.
    ///
    /// A run that cancels itself, or one that it is part of, is not waited for: its body is stopped at its next await. A
    /// result that it gives before stands.
    ///
    /// # Errors
    ///
    /// If no run of that id is active ([`Error::is_not_found`]): none is known, or it has ended; as Crashed, if its process
    /// has gone away. If the store fails, where the run belongs to another process.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the run ends even if the future is dropped; one of another process perhaps not.
    pub async fn cancel(&self, run_id: impl Into<RunId>) -> Result<(), Error> {
        let id = run_id.into();
        let Some(run) = self.inner.active_run(id) else {
            if self.inner.backend.shared().is_some() {
                return self.cancel_elsewhere(id).await;
            }
            return Err(Error::new(ErrorKind::NotFound(format!("no run {id} is active in this process"))));
        };
        run.cancel(Stop::Request);
        let inside = crate::context::with_run(|current| {
            current.is_some_and(|current| current.lineage().any(|ancestor| Arc::ptr_eq(ancestor, &run)))
        });
        // A run that cancels itself would wait for its own end.
        if !inside {
            crate::future::WaitState::new(run).await;
        }
        Ok(())
    }

    /// Creates or changes a limit: await the result, after `.slot_decay(per_second)` for a rate limit, or `.inactive()`
    /// for one that limits nothing for the time being.
    ///
    /// ```
    /// # use orchestrator_core::Orchestrator;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), orchestrator_core::Error> {
    /// let orchestrator = Orchestrator::in_memory();
    /// orchestrator.limit("db", 4).await?;
    /// orchestrator.limit("api", 10).slot_decay(5.0).await?;
    /// assert_eq!(orchestrator.limits().await?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit(&self, name: impl Into<String>, slots: u32) -> SetLimit {
        SetLimit::new(self.clone(), name.into(), slots)
    }

    /// Every limit, by name.
    ///
    /// # Errors
    ///
    /// If the store cannot be read in which processes share the limits.
    pub async fn limits(&self) -> Result<Vec<Limit>, Error> {
        self.inner.limits.list().await
    }

    /// Removes a limit; says whether there was one. Whoever waits for its slots is refused, as is everybody who asks for
    /// them later. Slots that are held of it count if it is created again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written in which processes share the limits.
    pub async fn remove_limit(&self, name: impl Into<String>) -> Result<bool, Error> {
        self.inner.limits.remove(name.into()).await
    }

    /// Ends the orchestrator: no run is started any more, active ones are cancelled and waited for, and all that
    /// happened is stored. Calling it again does no harm.
    ///
    /// # Errors
    ///
    /// If some of what happened could not be stored, or if the store could not be told that the orchestrator has ended;
    /// others notice that when its lease is over.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.inner.roots.close();
        self.inner.journal.end();
        if self.inner.keeper.is_some() {
            self.ask(|_, inner| {
                recovery::interrupt(inner);
                Ok(())
            })
            .await?;
        }
        loop {
            let idle = self.inner.roots.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            self.inner.cancel_all(Stop::ShutDown);
            if self.inner.roots.is_idle() {
                break;
            }
            idle.await;
        }
        let ended = self.ask(|_, inner| {
            inner.journal.close();
            inner.limits.close();
            inner.keeper.as_ref().map_or(Ok(()), Keeper::leave)
        });
        let ended = ended.await;
        self.inner.results.unkept.tell();
        match self.inner.journal.lost() {
            (0, _) => ended,
            (lost, why) => Err(Error::from(
                BackendError::new(crate::backend::BackendErrorKind::Other, format!("store {lost} events"))
                    .because(why.unwrap_or_default()),
            )),
        }
    }
}

impl Drop for Inner {
    /// Slots may be held for longer, in results or in statics: the thread that asks the store for them ends here.
    fn drop(&mut self) {
        self.journal.close();
        self.limits.close();
    }
}

impl Inner {
    /// What runs outside of flows share on that runtime.
    pub(crate) fn root_scope(self: &Arc<Self>, handle: Option<Handle>) -> Arc<Scope> {
        if self.keeper.is_some() {
            // It may have been made outside of a runtime, or by somebody else a moment ago.
            recovery::begin(self);
        }
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |scope: &Arc<Scope>| scope.handle().map(Handle::id) == handle.as_ref().map(Handle::id);
        if let Some(scope) = outside.upgrade().filter(same) {
            return scope;
        }
        if let (true, Some(handle)) = (self.signals, &handle) {
            crate::signals::watch(self, handle);
        }
        if let Some(handle) = handle.as_ref().filter(|_| self.keeper.is_some()) {
            self.recovery.runs_on(handle);
        }
        let counts = Arc::clone(&self.counts);
        let scope = Scope::new(
            Arc::clone(self),
            handle.map(Launcher::new),
            None,
            SharedList::default(),
            None,
            (self.defaults.persist, Arc::default()),
            counts,
        );
        *outside = Arc::downgrade(&scope);
        scope
    }

    /// Why nothing is recorded any more of what the orchestrator does, if it was found to be gone.
    pub(crate) fn fenced(&self) -> Option<&Arc<str>> {
        self.keeper.as_ref()?.membership().fenced()
    }

    /// Why no run is started any more.
    pub(crate) fn why_closed(&self) -> String {
        match self.fenced() {
            Some(why) => format!("{why}, and it starts no run any more: {BEGIN_ANEW}"),
            None => "the orchestrator is shut down".to_owned(),
        }
    }

    /// Ends all runs: they are somebody else's by now.
    pub(crate) fn give_up(&self, why: &str) {
        self.roots.close();
        let runs = self.roots.active().len();
        panics::shield(|| {
            let ending = match runs {
                0 => "no run was active".to_owned(),
                1 => "the run that was active is ended as Crashed".to_owned(),
                runs => format!("the {runs} runs that were active are ended as Crashed"),
            };
            tracing::error!(target: "orchestrator", "{why}. Here {ending}, and no run is started any more: {BEGIN_ANEW}");
        });
        self.cancel_all(Stop::Crashed);
    }

    pub(crate) fn cancel_all(&self, by: Stop) {
        for run in self.roots.active().iter().filter(|run| !self.recovery.interrupts(run)) {
            run.cancel(by);
        }
    }
}
