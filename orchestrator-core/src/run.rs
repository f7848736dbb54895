//! One run: its identity, its state, who waits for it, and which runs it started.
//!
//! A run is shared by its futures, its driver and, while it is active, its parent. Its states are written by the driver, but for
//! those of a pause.

mod children;
mod track;
mod waiters;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::backend::record::{CacheKey, CacheLook, CacheReason, Event, FlowRun, RunEvent, RunInfo, TaskRun, Times};
use crate::body::Erased;
use crate::cache::Elsewhere;
use crate::clock::Timestamp;
use crate::def::Def;
use crate::engine::Call;
use crate::engine::launcher;
use crate::engine::machine::may_follow;
use crate::engine::panics;
use crate::engine::plain;
use crate::engine::rules;
use crate::error::{Cause, FailedRun, FailureKind, TaskError};
use crate::id::{RunId, TaskRunId};
use crate::journal::{Awaited, Enqueued};
use crate::observe::{Observed, Observer};
use crate::options::{Effective, Overrides};
use crate::orchestrator::Inner;
use crate::persist::Identified;
use crate::scope::Scope;
use crate::state::{State, StateName, Transition};
use crate::sync::{AtomicBool, AtomicU16, AtomicU32, AtomicWaker, Mutex, MutexGuard};
use crate::transaction;
pub(crate) use children::{Children, Hold};
use track::Track;
use waiters::Waiters;
pub(crate) use waiters::{Group, Waiter};

/// How a run ended.
pub(crate) type Outcome = Result<Erased, TaskError>;

/// One run of a task or flow.
pub struct Run {
    pub(crate) info: RunInfo,
    pub(crate) overrides: Overrides,
    /// What it shares with others: its own as a flow run; absent where it is that of the parent.
    own_scope: Option<Arc<Scope>>,
    pub(crate) parent: Option<Arc<Run>>,
    bound: Option<Box<Bound>>,
    /// Whether the run is seen by people: the expansion of a `map` is not.
    pub(crate) visible: bool,
    /// Whether no rule has a say about it because of what it is.
    pub(crate) asks_for_nothing: bool,
    /// Whether nothing concerns it but its body, because of what it is.
    pub(crate) is_plain: bool,
    /// Whether there was any other run to wait for, be it one that people do not see.
    has_upstream: bool,
    /// Whether one of the runs above has a sync body, which may block its thread on this one.
    below_sync: bool,
    /// Whether a run takes this one's result, or took it.
    taken: AtomicBool,
    /// How many runs are above this one.
    depth: u32,
    flags: AtomicU16,
    /// Upstream runs that have not ended, plus one until all of them are known.
    waiting_for: AtomicU32,
    run_count: AtomicU32,
    /// Requests for slots that the run holds, each once for each limit.
    held: AtomicU32,
    driver: AtomicWaker,
    outcome: OnceLock<Outcome>,
    cell: Mutex<Cell>,
    children: OnceLock<Box<Children>>,
}

/// What a run has from its beginning that most have not.
struct Bound {
    /// The transaction that the run was submitted in.
    transaction: Option<Arc<transaction::Shared>>,
    /// What identifies the call, where results are kept for the flow run.
    identified: Option<Identified>,
}

/// Where a run comes from.
pub(crate) struct Origin {
    pub(crate) overrides: Overrides,
    /// Absent where it is that of the parent.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) parent: Option<Arc<Run>>,
    pub(crate) transaction: Option<Arc<transaction::Shared>>,
    pub(crate) identified: Option<Identified>,
    pub(crate) visible: bool,
    pub(crate) created: Timestamp,
    pub(crate) resumed: Option<Resumed>,
}

/// A flow run that goes on after it had ended.
pub(crate) struct Resumed {
    /// How many states it has, the present one included.
    pub(crate) seq: u32,
    /// The state that it is in.
    pub(crate) running: Transition,
    /// How often its body had been started.
    pub(crate) run_count: u32,
}

impl Drop for Run {
    /// A chain of parents must not become a chain of calls.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut run) = next.and_then(Arc::into_inner) {
            next = run.parent.take();
        }
    }
}

const CANCEL: u16 = 1;
const OBSERVED: u16 = 2;
const LAUNCHED: u16 = 4;
const SIGNAL: u16 = 8;
const DISCARDED: u16 = 16;
/// In the table of what started it, or of the roots.
const ENTERED: u16 = 32;
const CLOSED: u16 = 64;
const DETACHED: u16 = 128;
const ABANDONED: u16 = 256;
/// Three bits for who asked the run to end.
const STOP: u32 = 9;
const RESUMED: u16 = 1 << 12;
/// Out of that table.
const LEFT: u16 = 1 << 13;
/// The journal looks at it when it stores the next batch.
const LISTED: u16 = 1 << 14;
/// Its template has named it.
const RENAMED: u16 = 1 << 15;

/// Who asked a run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Stop {
    /// A call of `cancel`.
    Request,
    CtrlC,
    Terminated,
    ShutDown,
    /// The attempt that started it overran its timeout.
    TimedOut,
    /// What started it went away.
    Crashed,
    /// The transaction that it is part of did not complete.
    RolledBack,
    /// The orchestrator is shut down, and the run, which went on by itself, is to go on another time.
    Interrupted,
}

impl Stop {
    const ALL: [Self; 8] = [
        Self::Request,
        Self::CtrlC,
        Self::Terminated,
        Self::ShutDown,
        Self::TimedOut,
        Self::Crashed,
        Self::RolledBack,
        Self::Interrupted,
    ];
}

/// Names the runs in a result.
pub(crate) type VisitResult = fn(&Erased, &mut dyn FnMut(&Arc<Run>));

/// What changes while a run goes on.
struct Cell {
    track: Track,
    waiters: Waiters,
    /// The body and its arguments, until the run is launched; not of one that begins as launched.
    call: Option<Box<dyn Call>>,
    rare: Option<Box<Rare>>,
}

/// What few runs need.
#[derive(Default)]
struct Rare {
    /// The name that its template gave it.
    renamed: Option<Arc<str>>,
    /// What it found in the cache, if it looked.
    looked: Option<Arc<CacheLook>>,
    /// What the driver waits for without a state that says so.
    waits: Option<Waits>,
}

impl Cell {
    fn looked(&self) -> Option<Arc<CacheLook>> {
        self.rare.as_ref()?.looked.clone()
    }

    /// Enters a state, later than the one before; gives back when.
    fn enter(&mut self, transition: Transition) -> Timestamp {
        let (before, name) = (self.track.name(), transition.name);
        debug_assert!(may_follow(before, name), "no way leads from {before} to {name}");
        let at = transition.at.max(self.track.since().after(Duration::from_micros(1)));
        self.track.enter(Transition { at, ..transition });
        at
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("id", &self.info.id).field("state", &self.state().name).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The scope of a run: its own, or that of its parent, which has one of its own then. So the many tasks of a flow do not count
/// the references to one scope up and down.
fn scope_of<'r>(own: Option<&'r Arc<Scope>>, parent: Option<&'r Arc<Run>>) -> &'r Arc<Scope> {
    own.or_else(|| parent.and_then(|parent| parent.own_scope())).expect("a run without a scope has a parent with one")
}

impl Run {
    /// A run without a call begins as launched: whoever has the call starts it.
    pub(crate) fn new(info: RunInfo, origin: Origin, call: Option<Box<dyn Call>>) -> Arc<Self> {
        let shared = scope_of(origin.scope.as_ref(), origin.parent.as_ref());
        let asks_for_nothing =
            origin.identified.is_none() && rules::ask_for_nothing(info.def, origin.overrides.get(), &info.tags, shared);
        let is_plain = asks_for_nothing && plain::is_plain(info.def, &origin, shared);
        let Origin { overrides, scope, parent, transaction, identified, visible, created, resumed } = origin;
        let is_bound = transaction.is_some() || identified.is_some();
        let bound = is_bound.then(|| Box::new(Bound { transaction, identified }));
        let below_sync = parent.as_ref().is_some_and(|parent| parent.below_sync || !parent.def().is_async);
        let depth = parent.as_ref().map_or(0, |parent| parent.depth.saturating_add(1));
        let has_upstream = call.is_some() && resumed.is_none();
        let flags = if resumed.is_some() { RESUMED } else { 0 } | if call.is_none() { LAUNCHED } else { 0 };
        let (track, run_count) = match resumed {
            None => (Track::new(Transition { name: StateName::Pending, at: created, message: None }, 0), 0),
            // Whoever took it over has written its state.
            Some(Resumed { seq, running, run_count }) => (Track::new(running, seq), run_count),
        };
        Arc::new(Self {
            info,
            overrides,
            own_scope: scope,
            parent,
            bound,
            visible,
            asks_for_nothing,
            is_plain,
            has_upstream,
            below_sync,
            taken: AtomicBool::new(false),
            depth,
            flags: AtomicU16::new(flags),
            waiting_for: AtomicU32::new(1),
            run_count: AtomicU32::new(run_count),
            held: AtomicU32::new(0),
            driver: AtomicWaker::new(),
            outcome: OnceLock::new(),
            cell: Mutex::new(Cell { track, waiters: Waiters::None, call, rare: None }),
            children: OnceLock::new(),
        })
    }

    pub(crate) fn id(&self) -> RunId {
        self.info.id
    }

    /// The function, with what its attribute says.
    pub(crate) const fn def(&self) -> &'static Def {
        self.info.def
    }

    /// What the run shares with others.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        scope_of(self.own_scope.as_ref(), self.parent.as_ref())
    }

    /// The scope that a run which this one calls may leave to it.
    pub(crate) const fn own_scope(&self) -> Option<&Arc<Scope>> {
        self.own_scope.as_ref()
    }

    pub(crate) fn name(&self) -> Arc<str> {
        let renamed = self.flag(RENAMED).then(|| lock(&self.cell).rare.as_ref()?.renamed.clone()).flatten();
        renamed.unwrap_or_else(|| self.info.name().into())
    }

    /// The transaction that the run was submitted in.
    pub(crate) fn transaction(&self) -> Option<&Arc<transaction::Shared>> {
        self.bound.as_ref()?.transaction.as_ref()
    }

    /// What identifies the call, where results are kept for the flow run.
    pub(crate) fn identified(&self) -> Option<&Identified> {
        self.bound.as_ref()?.identified.as_ref()
    }

    /// `Task run` or `Flow run`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.info.id {
            RunId::Task(_) => "Task run",
            RunId::Flow(_) => "Flow run",
        }
    }

    pub(crate) fn options(&self) -> Effective<'_> {
        Effective { def: self.def(), call: self.overrides.get(), defaults: &self.scope().orchestrator.defaults }
    }

    pub(crate) fn is_flow(&self) -> bool {
        self.info.id.as_flow().is_some()
    }

    /// Whether nothing was taken from other runs, and nothing of the user's called, before the body is. What takes other
    /// runs' results begins after they have ended, on whatever threads.
    pub(crate) fn begins_at_once(&self) -> bool {
        !self.has_upstream && self.identified().is_none() && !self.flag(RENAMED)
    }

    /// Whether the run goes on after it had ended.
    pub(crate) fn is_resumed(&self) -> bool {
        self.flag(RESUMED)
    }

    pub(crate) const fn is_below_sync(&self) -> bool {
        self.below_sync
    }

    fn flag(&self, flag: u16) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    /// Sets a flag; says whether it was set before.
    fn raise(&self, flag: u16) -> bool {
        self.flags.fetch_or(flag, Ordering::AcqRel) & flag != 0
    }

    pub(crate) fn state(&self) -> State {
        State::from(&lock(&self.cell).track.current())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    pub(crate) fn run_count(&self) -> u32 {
        self.run_count.load(Ordering::Acquire)
    }

    /// Counts slots that are taken, or given back: under the lock of the limits, as all that looks at the number.
    pub(crate) fn count_slots(&self, taken: bool) {
        let held = self.held.load(Ordering::Relaxed);
        self.held.store(if taken { held + 1 } else { held - 1 }, Ordering::Relaxed);
    }

    pub(crate) fn holds_slots(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Marks the outcome as looked at: its failure no longer fails the parent.
    pub(crate) fn observe(&self) {
        if !matches!(self.outcome.get(), Some(Ok(_))) {
            self.raise(OBSERVED);
        }
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.flag(OBSERVED)
    }

    /// The error that says why this run did not complete.
    pub(crate) fn error(&self, kind: FailureKind, cause: Cause) -> TaskError {
        let run = FailedRun { id: self.info.id, name: self.name(), function: self.info.function() };
        TaskError::new(kind, self.visible.then_some(run), cause)
    }

    /// The run that waits for this one because it started it.
    pub(crate) fn above(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref().filter(|_| !self.flag(DETACHED))
    }

    /// This run and the runs that wait for it because they started it, innermost first.
    pub(crate) fn lineage(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |run| run.above())
    }

    /// This run and the runs in whose bodies it was submitted, innermost first, whether or not they wait for it.
    pub(crate) fn origins(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |run| run.parent.as_ref())
    }

    /// Whether this run is `above` or part of it, so that `above` ends only after it.
    pub(crate) fn is_part_of(self: &Arc<Self>, above: &Arc<Self>) -> bool {
        if self.depth <= above.depth {
            return Arc::ptr_eq(self, above);
        }
        self.lineage().any(|ancestor| Arc::ptr_eq(ancestor, above))
    }

    /// The run as the history would show it.
    pub(crate) fn to_task_run(&self) -> TaskRun {
        let (state, times) = self.state_and_times();
        let name = self.name().to_string();
        let run = TaskRun::of(&self.info, name, &self.info.upstream, state, self.run_count(), times);
        let looked = lock(&self.cell).looked();
        TaskRun { cache: looked.map(|look| CacheLook::clone(&look)), ..run }
    }

    /// The run as the history would show it.
    pub(crate) fn to_flow_run(&self) -> FlowRun {
        let (state, times) = self.state_and_times();
        let parameters = self.scope().parameters.get().cloned().unwrap_or_default();
        let times = Times { started: self.scope().first_started.get().copied().or(times.started), ..times };
        let name = self.name().to_string();
        FlowRun::of(&self.info, name, &self.info.upstream, state, self.run_count(), times, parameters)
    }

    fn state_and_times(&self) -> (State, Times) {
        let cell = lock(&self.cell);
        let current = cell.track.current();
        let ended = current.name.kind().is_terminal().then_some(current.at);
        (State::from(&current), Times { created: self.info.id.created(), started: cell.track.started(), ended })
    }

    // --- states, written by the driver alone; Paused, and Running after it, by whoever pauses and resumes ---

    /// Enters a state that is not terminal.
    pub(crate) fn enter(&self, name: StateName, message: Option<Arc<str>>) {
        self.enter_at(name, message, self.scope().orchestrator.clock.now());
    }

    fn enter_at(&self, name: StateName, message: Option<Arc<str>>, at: Timestamp) {
        debug_assert!(!name.kind().is_terminal(), "terminal states are entered by `end`");
        self.record(name, message, at, None);
    }

    /// Enters Cancelling, unless the run is there already.
    pub(crate) fn enter_cancelling(&self) {
        if lock(&self.cell).track.name() != StateName::Cancelling {
            self.enter(StateName::Cancelling, None);
        }
    }

    /// Counts an attempt and enters its state, now if no other moment is given.
    pub(crate) fn begin_attempt(&self, name: StateName, message: Option<Arc<str>>, at: Option<Timestamp>) {
        // Nobody but the driver counts.
        self.run_count.store(self.run_count.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.reopen();
        if name == StateName::Running && self.is_resumed() {
            self.show_resumed();
        } else {
            self.enter_at(name, message, at.unwrap_or_else(|| self.scope().orchestrator.clock.now()));
        }
    }

    /// Tells of the state that a run which goes on was given when it was taken over.
    fn show_resumed(&self) {
        let running = {
            let track = &mut lock(&self.cell).track;
            track.start(track.since());
            track.current()
        };
        if self.scope().orchestrator.watches(running.name) {
            self.show(&running, None, None);
        }
    }

    /// Puts down what the run found in the cache.
    pub(crate) fn looked(&self, key: Option<CacheKey>, reason: CacheReason) {
        let before = lock(&self.cell).looked();
        let reason = match (reason, before) {
            // What was not there at the first look was computed while this run waited.
            (CacheReason::Found { run, created, expires }, Some(_)) => CacheReason::Awaited { run, created, expires },
            (reason, _) => reason,
        };
        let look = Arc::new(CacheLook::new(key, reason));
        panics::shield(|| crate::narrate::tell_look(self, &look));
        lock(&self.cell).rare.get_or_insert_default().looked = Some(look);
    }

    /// Whose result the run took, if its flow run had kept it.
    pub(crate) fn answered_by(&self) -> Option<TaskRunId> {
        let look = lock(&self.cell).looked()?;
        if let CacheReason::Persisted { run } = look.reason { Some(run) } else { None }
    }

    pub(crate) fn rename(&self, name: String) {
        let name: Arc<str> = name.into();
        if self.flag(RENAMED) {
            return;
        }
        lock(&self.cell).rare.get_or_insert_default().renamed = Some(Arc::clone(&name));
        if !self.raise(RENAMED) && self.visible {
            self.scope().orchestrator.journal.push(Event::Renamed { run: self.info.id, name });
        }
    }

    /// Enters a state that is not terminal, unless the run has left those in `from`. What comes back is to be told when
    /// the caller holds no lock any more.
    pub(crate) fn enter_from(
        &self,
        from: &[StateName],
        name: StateName,
        message: Option<Arc<str>>,
        at: Timestamp,
    ) -> Option<Entered> {
        let cell = lock(&self.cell);
        from.contains(&cell.track.name()).then(|| self.set_state(cell, name, message, at))
    }

    /// Tells of a state that was entered with [`enter_from`](Self::enter_from), and lets the driver hand it on.
    pub(crate) fn tell(&self, entered: Entered) {
        if let Some(transition) = entered.shown {
            self.show(&transition, entered.began, None);
        }
        self.signal();
    }

    fn record(&self, name: StateName, message: Option<Arc<str>>, at: Timestamp, error: Option<&TaskError>) {
        let entered = self.set_state(lock(&self.cell), name, message, at);
        if let Some(transition) = entered.shown {
            self.show(&transition, entered.began, error);
        }
    }

    fn set_state(
        &self,
        mut cell: MutexGuard<'_, Cell>,
        name: StateName,
        message: Option<Arc<str>>,
        at: Timestamp,
    ) -> Entered {
        let seen = self.is_watched(name);
        cell.enter(Transition { name, at, message });
        Entered { shown: seen.then(|| cell.track.current()), began: cell.track.started() }
    }

    /// Whether somebody is shown that the run enters the state.
    pub(crate) fn is_watched(&self, name: StateName) -> bool {
        self.visible && self.scope().orchestrator.watches(name)
    }

    /// Tells observers and the log.
    fn show(&self, transition: &Transition, began: Option<Timestamp>, error: Option<&TaskError>) {
        let name = self.name();
        let terminal = transition.name.kind().is_terminal();
        let event = Observed {
            run: &self.info,
            name: &name,
            named: self.is_named(),
            transition,
            run_count: self.run_count(),
            duration: began.filter(|_| terminal).map(|began| transition.at.since(began)),
            error,
        };
        panics::shield(|| crate::narrate::tell(self, &event));
        self.observe_by(&event, |observer| observer.on_transition(&event));
    }

    /// Tells observers that the run was submitted.
    pub(crate) fn submitted(&self) {
        if !self.visible || self.scope().orchestrator.observers.is_empty() {
            return;
        }
        let (name, transition) = (self.name(), lock(&self.cell).track.current());
        let event = Observed {
            run: &self.info,
            name: &name,
            named: self.is_named(),
            transition: &transition,
            run_count: 0,
            duration: None,
            error: None,
        };
        self.observe_by(&event, |observer| observer.on_submit(&event));
    }

    fn observe_by(&self, event: &Observed<'_>, show: impl Fn(&dyn Observer)) {
        for observer in &self.scope().orchestrator.observers {
            if panics::shield(|| show(&**observer)).is_none() {
                panics::shield(|| {
                    tracing::error!(target: "orchestrator", "an observer panicked over '{}'; the run goes on", event.name);
                });
            }
        }
    }

    /// Whether the program chose the run's name.
    fn is_named(&self) -> bool {
        self.flag(RENAMED) || self.overrides.get().is_some_and(|options| options.run_name.is_some())
    }

    /// Gives the journal what happened since it was last given something.
    pub(crate) fn flush(&self) {
        if !self.visible {
            return;
        }
        let journal = &self.scope().orchestrator.journal;
        let enqueued = {
            let mut cell = lock(&self.cell);
            if !cell.track.has_staged() {
                return;
            }
            // Under the lock: whoever finds that the journal knows the run finds it there.
            journal.enqueue(self.take_staged(&mut cell, None))
        };
        enqueued.see_to_it(journal);
    }

    /// Lets the journal learn what happened so far: a run of which it was given nothing is looked at when there is
    /// something to be stored, or somebody looks. By then it may have ended, and one event tells all.
    pub(crate) fn flush_later(self: &Arc<Self>) {
        // A store in the process is not looked at but by questions, which go through the active runs first.
        if !self.visible || self.scope().orchestrator.journal.is_immediate() {
            return;
        }
        if !lock(&self.cell).track.is_unknown() {
            self.flush();
        } else if !self.raise(LISTED) {
            self.scope().orchestrator.journal.push_untold(self);
        }
    }

    /// What happened so far, if the journal was not given anything: what comes later is the driver's to give.
    pub(crate) fn take_first_event(&self) -> Option<Event> {
        let mut cell = lock(&self.cell);
        cell.track.is_unknown().then(|| self.take_staged(&mut cell, None))
    }

    fn take_staged(&self, cell: &mut Cell, further: Option<Transition>) -> Event {
        let (first_seq, transitions) = cell.track.take_staged(further);
        let cache = cell.looked();
        let run_count = self.run_count();
        Event::Run(RunEvent { run: self.info.clone(), first_seq, transitions, run_count, cache })
    }

    /// Gives the journal the result of the run, and the event that says that it completed, while the run itself does not
    /// say so before that is [`reveal`](Self::reveal)ed.
    pub(crate) fn send_completed(&self, result: Event) -> (Awaited, Transition) {
        let Inner { clock, journal, .. } = &*self.scope().orchestrator;
        let at = clock.now();
        let mut cell = lock(&self.cell);
        let at = at.max(cell.track.since().after(Duration::from_micros(1)));
        let transition = Transition { name: StateName::Completed, at, message: None };
        let completed = self.take_staged(&mut cell, Some(transition.clone()));
        // Under the lock: whoever finds that the journal knows the run finds it there.
        let enqueued = journal.enqueue_awaited([result, completed]);
        drop(cell);
        (enqueued.see_to_it(journal), transition)
    }

    /// Enters a state that the journal knows already.
    pub(crate) fn reveal(&self, transition: Transition) {
        let mut cell = lock(&self.cell);
        debug_assert!(may_follow(cell.track.name(), transition.name), "only its driver writes the states of a run");
        cell.track.reveal(transition.clone());
        let began = cell.track.started();
        drop(cell);
        if self.visible && self.scope().orchestrator.watches(transition.name) {
            self.show(&transition, began, None);
        }
    }

    // --- waiting ---

    /// Tells `waiter` when the run ends; gives it back if it has ended already.
    pub(crate) fn add_waiter(&self, waiter: Waiter) -> Result<usize, Waiter> {
        let mut cell = lock(&self.cell);
        cell.waiters.insert(waiter)
    }

    /// Replaces the waker of a future that was polled again; `None` if the run has ended.
    pub(crate) fn update_waker(&self, place: usize, waker: &std::task::Waker) -> Option<()> {
        {
            let mut cell = lock(&self.cell);
            if cell.waiters.are_told() {
                return None;
            }
            if matches!(cell.waiters.get_mut(place), Some(Waiter::Task(old)) if old.will_wake(waker)) {
                return Some(());
            }
        }
        // Wakers are code of others: they are cloned and dropped outside of the lock.
        let new = Waiter::Task(waker.clone());
        let old = {
            let mut cell = lock(&self.cell);
            if cell.waiters.are_told() {
                return None;
            }
            cell.waiters.get_mut(place).map(|old| std::mem::replace(old, new))
        };
        drop(old);
        Some(())
    }

    /// Forgets a waiter whose future was dropped.
    pub(crate) fn remove_waiter(&self, place: usize) {
        let mut cell = lock(&self.cell);
        let waiter = cell.waiters.remove(place);
        drop(cell);
        // The waiter's destructor may run code of others, so it runs outside of the lock.
        drop(waiter);
    }

    /// Makes `self` wait for `upstream`; says whether there is anything to wait for.
    pub(crate) fn wait_for(self: &Arc<Self>, upstream: &Self) -> bool {
        if upstream.has_ended() {
            return false;
        }
        self.waiting_for.fetch_add(1, Ordering::AcqRel);
        upstream.taken.store(true, Ordering::Release);
        match upstream.add_waiter(Waiter::Dependant(Arc::clone(self))) {
            Ok(_) => true,
            Err(_) => {
                self.waiting_for.fetch_sub(1, Ordering::AcqRel);
                false
            }
        }
    }

    /// Whether runs may be waiting for this one's result.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// The runs that cannot start before this one has ended.
    pub(crate) fn dependants(&self) -> Vec<Arc<Self>> {
        if !self.is_taken() {
            return Vec::new();
        }
        let cell = lock(&self.cell);
        let waiting = cell.waiters.iter().filter_map(|waiter| match waiter {
            Waiter::Dependant(run) if !run.is_launched() => Some(Arc::clone(run)),
            Waiter::Dependant(_) | Waiter::Task(_) | Waiter::Group(..) | Waiter::Tolerant(_) => None,
        });
        waiting.collect()
    }

    /// One upstream run fewer to wait for; says whether it was the last.
    pub(crate) fn upstream_ended(&self) -> bool {
        self.waiting_for.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Prepares to wait for further upstream runs after the first have ended.
    pub(crate) fn rearm(&self) {
        self.waiting_for.store(1, Ordering::Release);
    }

    /// The body, for whoever launches the run: given out once.
    pub(crate) fn launch(&self) -> Option<Box<dyn Call>> {
        if self.raise(LAUNCHED) { None } else { lock(&self.cell).call.take() }
    }

    pub(crate) fn is_launched(&self) -> bool {
        self.flag(LAUNCHED)
    }

    /// Puts the body back when further upstream runs turned up.
    pub(crate) fn unlaunch(&self, call: Box<dyn Call>) {
        lock(&self.cell).call = Some(call);
        self.flags.fetch_and(!LAUNCHED, Ordering::AcqRel);
    }

    /// Whether a cancellation, or the end of the last child, came since this was last asked.
    pub(crate) fn take_signal(&self) -> bool {
        self.flags.fetch_and(!SIGNAL, Ordering::AcqRel) & SIGNAL != 0
    }

    pub(crate) fn register_driver(&self, waker: &std::task::Waker) {
        self.driver.register(waker);
    }

    fn signal(&self) {
        self.raise(SIGNAL);
        if let Some(waker) = self.driver.take() {
            launcher::wake(waker);
        }
    }

    /// The upstream runs that a run which is not launched waits for.
    pub(crate) fn active_upstreams(&self) -> Vec<Arc<Self>> {
        let mut upstreams = Vec::new();
        if let Some(call) = &lock(&self.cell).call {
            call.visit(&mut |upstream| upstreams.push(Arc::clone(upstream)));
        }
        upstreams.retain(|upstream| !upstream.has_ended());
        upstreams
    }

    /// Notes what the driver waits for, until the value is dropped.
    pub(crate) fn waits_for(&self, waits: Waits) -> Noted<'_> {
        let before = lock(&self.cell).rare.get_or_insert_default().waits.replace(waits);
        drop(before);
        Noted(self)
    }

    /// What the driver waits for.
    pub(crate) fn waits(&self) -> Waits {
        let cell = lock(&self.cell);
        cell.rare.as_ref().and_then(|rare| rare.waits.clone()).unwrap_or(Waits::Nothing)
    }

    // --- ending ---

    /// Enters the terminal state; gives back when.
    pub(crate) fn conclude(&self, name: StateName, message: Option<Arc<str>>, error: Option<&TaskError>) -> Timestamp {
        debug_assert!(name.kind().is_terminal(), "only terminal states end a run");
        let at = self.scope().orchestrator.clock.now();
        self.record(name, message, at, error);
        self.flush();
        at
    }

    /// Says that what the run did was undone; it has completed, and nobody drives it any more.
    pub(crate) fn roll_back(&self, said: String) {
        let at = self.scope().orchestrator.clock.now();
        self.record(StateName::RolledBack, Some(said.into()), at, None);
        self.flush();
    }

    /// Enters the terminal state and stores the outcome in one step, where nobody looks at the moment between the two. What
    /// follows is for [`leave_unseen`](Self::leave_unseen).
    pub(crate) fn conclude_unseen(&self, name: StateName, outcome: Outcome) -> Concluded {
        debug_assert!(name.kind().is_terminal() && self.visible, "a run that people see ends in a terminal state");
        let Inner { clock, journal, .. } = &*self.scope().orchestrator;
        let now = clock.now();
        let failed = outcome.is_err();
        let mut cell = lock(&self.cell);
        let at = cell.enter(Transition { name, at: now, message: None });
        let enqueued = journal.enqueue(self.take_staged(&mut cell, None));
        let waiters = self.set_outcome(&mut cell, outcome);
        drop(cell);
        Concluded { at, failed, enqueued, waiters }
    }

    /// What follows on [`conclude_unseen`](Self::conclude_unseen); gives back when the run ended, and whoever waited.
    pub(crate) fn leave_unseen(self: Arc<Self>, concluded: Concluded) -> (Timestamp, Wakes) {
        let Concluded { at, failed, enqueued, waiters } = concluded;
        // The store may be somebody else's.
        panics::shield(|| enqueued.see_to_it(&self.scope().orchestrator.journal));
        (at, self.ended(waiters, failed))
    }

    /// Stores the outcome. Gives back whoever waited, to be woken when the driver has let go of the run: the last
    /// reader of a result is then its only owner.
    pub(crate) fn end(self: Arc<Self>, outcome: Outcome) -> Wakes {
        let failed = outcome.is_err();
        let waiters = self.set_outcome(&mut lock(&self.cell), outcome);
        self.ended(waiters, failed)
    }

    fn set_outcome(&self, cell: &mut Cell, outcome: Outcome) -> Waiters {
        self.outcome.set(outcome).unwrap_or_else(|_| unreachable!("a driver ends its run once"));
        std::mem::replace(&mut cell.waiters, Waiters::Told)
    }

    /// What follows when the outcome is there.
    fn ended(self: Arc<Self>, waiters: Waiters, failed: bool) -> Wakes {
        if let Some(transaction) = self.transaction() {
            panics::contain("a waker", || transaction.leave(&self, failed));
        }
        if !self.visible
            && let Some(Ok(result)) = self.outcome()
        {
            // Before what started these runs learns that one more has ended, and looks for failures.
            for waiter in waiters.iter() {
                if let Waiter::Tolerant(visit) = waiter {
                    visit(result, &mut |run| run.observe());
                }
            }
        }
        if !self.flag(CLOSED) {
            self.raise(CLOSED);
        }
        // They would keep this run, as it would keep them.
        let failures = self.children.get().map(|children| children.finish());
        let parent = self.leave(failed);
        panics::contain("a destructor", || drop((failures, self)));
        Wakes { waiters, completed: !failed, parent }
    }

    /// Takes the run out of the table in which it stands; gives back who waits for it because of that.
    fn leave(self: &Arc<Self>, failed: bool) -> Option<Arc<Self>> {
        let before = self.flags.fetch_or(LEFT, Ordering::AcqRel);
        if before & (ENTERED | LEFT) != ENTERED {
            return None;
        }
        // Whoever detaches the run from now on finds that it has left.
        let above = self.parent.as_ref().filter(|_| before & DETACHED == 0);
        let is_awaited = self.siblings_of(above).child_ended(self, above.is_some(), failed);
        above.filter(|_| is_awaited).cloned()
    }

    /// Makes a run that stands in the table of what started it a root; `false` if it does not stand there.
    fn move_to_roots(&self) -> bool {
        let stands = |flags: u16| flags & (ENTERED | LEFT | DETACHED) == ENTERED;
        let moved = |flags| stands(flags).then_some(flags | DETACHED);
        self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved).is_ok()
    }

    // --- the tree ---

    pub(crate) fn children(&self) -> &Children {
        self.children.get_or_init(Box::default)
    }

    fn siblings(&self) -> &Children {
        self.siblings_of(self.above())
    }

    fn siblings_of<'a>(&'a self, above: Option<&'a Arc<Self>>) -> &'a Children {
        above.map_or(&self.scope().orchestrator.roots, |parent| parent.children())
    }

    /// Takes the run, and what is beneath it, out of its transaction.
    fn leave_transaction(&self) {
        if let Some(transaction) = self.transaction() {
            transaction.let_go();
        }
    }

    /// Whether the run is a root by [`detach`](Self::detach).
    pub(crate) fn is_detached(&self) -> bool {
        self.flag(DETACHED)
    }

    /// Makes the run a root: what started it neither waits for it, nor fails with it, nor takes it along at its end.
    pub(crate) fn detach(self: &Arc<Self>) {
        self.observe();
        let Some(parent) = self.above().cloned() else {
            self.raise(DETACHED);
            self.leave_transaction();
            return;
        };
        let orchestrator = &self.scope().orchestrator;
        let Some(shut_down) = Children::hand_over(self, &orchestrator.roots) else { return };
        self.leave_transaction();
        orchestrator.limits.detached(self);
        // It may wait for something that only concerns runs of the flow.
        self.signal();
        if parent.children().went() {
            parent.signal();
        }
        if shut_down {
            self.cancel_tree(Stop::ShutDown);
        }
    }

    /// Whether no other child of the same parent is active.
    pub(crate) fn is_last(&self) -> bool {
        self.siblings().is_idle()
    }

    /// Enters the run in its parent's table; `false` if the parent has ended.
    pub(crate) fn adopt(self: &Arc<Self>) -> bool {
        let siblings = self.siblings();
        if !siblings.add(self) {
            return false;
        }
        match &self.parent {
            Some(parent) if parent.flags.load(Ordering::SeqCst) & CLOSED != 0 => {
                // A cancellation may have ended it already.
                if !self.raise(LEFT) {
                    siblings.went();
                }
                parent.signal();
                false
            }
            _ => true,
        }
    }

    /// Whether the run has started any others, be they over.
    pub(crate) fn has_started_others(&self) -> bool {
        self.children.get().is_some()
    }

    pub(crate) fn has_children(&self) -> bool {
        self.children.get().is_some_and(|children| !children.is_idle())
    }

    /// Whether every run that this one started has ended. From now on the end of the last one wakes the driver.
    pub(crate) fn children_ended(&self) -> bool {
        let Some(children) = self.children.get() else { return true };
        children.await_idle()
    }

    /// Whether no further children are let in.
    pub(crate) fn is_closed(&self) -> bool {
        self.flag(CLOSED)
    }

    /// Lets children in again.
    pub(crate) fn reopen(&self) {
        if self.flag(CLOSED) {
            self.flags.fetch_and(!CLOSED, Ordering::AcqRel);
        }
    }

    /// Refuses further children, until there is another attempt; says whether none is active.
    pub(crate) fn close(&self) -> bool {
        // Whoever adds a child looks at the flag afterwards, so one of the two sees the other: in one order of all that is SeqCst.
        if !self.flag(CLOSED) {
            self.flags.fetch_or(CLOSED, Ordering::SeqCst);
        }
        self.children.get().is_none_or(|children| children.await_idle())
    }

    /// The first child that failed and that nobody looked at, taken out of the list together with all others.
    pub(crate) fn unobserved_failure(&self) -> Option<TaskError> {
        let failures = self.children.get()?.take_failures();
        let mut unobserved = failures.iter().filter(|child| !child.is_observed());
        let failure = unobserved.find_map(|child| child.outcome().and_then(|outcome| outcome.as_ref().err().cloned()));
        if !failures.is_empty() {
            panics::let_go(failures);
        }
        failure
    }

    // --- cancellation ---

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flag(CANCEL)
    }

    /// Whether the run was cancelled by name, so that its end is no surprise to anybody.
    pub(crate) fn is_discarded(&self) -> bool {
        self.flag(DISCARDED)
    }

    /// Who asked the run to end, if anybody did.
    pub(crate) fn stopped_by(&self) -> Option<Stop> {
        let flags = self.flags.load(Ordering::Acquire);
        (flags & CANCEL != 0).then(|| Stop::ALL[usize::from(flags >> STOP & 7)])
    }

    /// Marks the run as one that is to end; says whether it was marked before.
    fn stop(&self, by: Stop) -> bool {
        let mark = CANCEL | ((by as u16) << STOP);
        let marked = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| (flags & CANCEL == 0).then_some(flags | mark));
        marked.is_err()
    }

    /// Notes that the body did not stop, and that nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        self.raise(ABANDONED);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.flag(ABANDONED)
    }

    /// Makes the run's failure nobody's concern.
    pub(crate) fn disown(&self) {
        self.raise(DISCARDED);
    }

    /// Asks the run, and every run it started, to end.
    pub(crate) fn cancel(self: &Arc<Self>, by: Stop) {
        self.disown();
        self.cancel_tree(by);
    }

    pub(crate) fn cancel_tree(self: &Arc<Self>, by: Stop) {
        let mut reached = vec![Arc::clone(self)];
        while let Some(run) = reached.pop() {
            if run.has_ended() || run.stop(by) {
                continue;
            }
            run.signal();
            reached.extend(run.active_children());
            crate::submit::launch(&run);
        }
        if let Some(launcher) = &self.scope().launcher {
            launcher.stir();
        }
    }

    /// The runs that this one started and that have not ended.
    pub(crate) fn active_children(&self) -> Vec<Arc<Self>> {
        let mut children = self.children.get().map(|children| children.active()).unwrap_or_default();
        children.retain(|child| !child.is_detached());
        children
    }

    /// Asks every run that this one started to end.
    pub(crate) fn cancel_children(&self, by: Stop) {
        self.active_children().iter().for_each(|child| child.cancel_tree(by));
    }
}

/// What a run's driver waits for, where its state does not tell.
#[derive(Debug, Clone)]
pub(crate) enum Waits {
    Nothing,
    /// The moment of the next attempt.
    Retry(Timestamp),
    /// The end of a pause of the flow run that called it.
    Pause,
    /// Its turn among the tasks of its flow.
    FlowCapacity,
    /// A thread of the blocking pool.
    Thread,
    /// Room in the journal.
    Journal,
    /// The run that computes the same cache key.
    Flight(Weak<Run>),
    /// The run of another process that does.
    Elsewhere(Arc<Elsewhere>),
    /// The runs that it started; its body has ended.
    Children,
}

/// A note of what a driver waits for; dropping it takes it off.
#[must_use = "the note is taken off when this is dropped"]
pub(crate) struct Noted<'a>(&'a Run);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let before = lock(&self.0.cell).rare.as_mut().and_then(|rare| rare.waits.take());
        drop(before);
    }
}

/// A state that was entered, to be shown to observers if any of them looks.
#[must_use = "observers are to see it"]
pub(crate) struct Entered {
    shown: Option<Transition>,
    began: Option<Timestamp>,
}

/// A run that has ended without anybody looking, before anybody is told.
#[must_use = "somebody waits for this"]
pub(crate) struct Concluded {
    at: Timestamp,
    failed: bool,
    enqueued: Enqueued,
    waiters: Waiters,
}

/// Those who waited for a run that has ended.
#[must_use = "somebody waits for this"]
pub(crate) struct Wakes {
    waiters: Waiters,
    completed: bool,
    /// What started the run, if it waits for those that it started.
    parent: Option<Arc<Run>>,
}

impl Wakes {
    pub(crate) fn wake(self) {
        let Self { waiters, completed, parent } = self;
        waiters.for_each(|waiter| {
            // Whatever one of them does, the others are told.
            panics::contain("a waker", || match waiter {
                Waiter::Task(waker) => launcher::wake(waker),
                Waiter::Dependant(run) => {
                    if run.upstream_ended() {
                        crate::submit::launch(&run);
                    }
                }
                Waiter::Group(group, index) => group.ended(index as usize, completed),
                Waiter::Tolerant(_) => {}
            });
        });
        if let Some(parent) = parent {
            parent.signal();
            panics::let_go(parent);
        }
    }
}
