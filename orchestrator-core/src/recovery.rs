//! What is done about runs that crashed with their process: their hooks are called, and flow runs that say so go on.
//!
//! The store decides who does it. It is looked for when an orchestrator is made, before that is given to anybody, and
//! now and then by its keeper, which may have found that another process is gone.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use crate::backend::{BackendError, Crash, Shared, StateBackend};
use crate::body::ArgEncoder;
use crate::def::Def;
use crate::engine::{Call, panics};
use crate::hook::{self, Crashed};
use crate::id::{FlowRunId, RunId};
use crate::orchestrator::{Inner, Orchestrator};
use crate::registry::{self, Flow};
use crate::resume::{self, ByItself};
use crate::run::{Hold, Run, Stop};
use crate::state::{State, StateName};

/// For so long a run that went on by itself answers a call of its flow after it has ended.
const ANSWERS: Duration = Duration::from_secs(60);

/// An orchestrator's part in it.
pub(crate) struct Recovery {
    scope: Scope,
    /// Whether it is known what goes on from the start.
    begun: AtomicBool,
    /// The thread that is finding out.
    beginning: Mutex<Option<ThreadId>>,
    has_begun: Condvar,
    /// The runtime that was used last.
    runtime: Mutex<Option<Handle>>,
    /// Runs that went on by themselves, until a call of their flow is answered with each.
    gone_on: Mutex<Vec<GoneOn>>,
    /// Those of them that nobody has asked for, from before they are taken over.
    unasked: Mutex<HashSet<FlowRunId>>,
    /// Nothing goes on by itself any more.
    over: AtomicBool,
    /// Runs that cannot go on, as was reported.
    given_up: Mutex<HashSet<FlowRunId>>,
    /// Whether runs are being let go on.
    going_on: AtomicBool,
    /// Whether hooks are being called.
    calling: AtomicBool,
}

struct GoneOn {
    parameters: Value,
    run: Arc<Run>,
}

impl GoneOn {
    fn is_over(&self) -> bool {
        let now = self.run.scope().orchestrator.clock.now().to_datetime();
        self.run.has_ended() && (now - self.run.state().timestamp).to_std().is_ok_and(|since| since > ANSWERS)
    }
}

/// The functions that have hooks for the end as Crashed.
static HOOKED: LazyLock<Vec<&'static Def>> =
    LazyLock::new(|| registry::registered().filter(|def| !def.hooks.on_crashed.is_empty()).collect());

/// Which crashed runs an orchestrator sees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of this program's flows, and hooks.
    All,
    /// Hooks, and runs of the flow with that key; of none.
    Only(Option<&'static str>),
    /// It leaves all to others.
    Nothing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recovery {
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            begun: AtomicBool::new(false),
            beginning: Mutex::default(),
            has_begun: Condvar::new(),
            runtime: Mutex::default(),
            gone_on: Mutex::default(),
            unasked: Mutex::default(),
            over: AtomicBool::new(false),
            given_up: Mutex::default(),
            going_on: AtomicBool::new(false),
            calling: AtomicBool::new(false),
        }
    }

    /// What is to go on goes on there.
    pub(crate) fn runs_on(&self, runtime: &Handle) {
        let before = lock(&self.runtime).replace(runtime.clone());
        drop(before);
    }

    /// The run that such a call goes on with, if one of equal parameters had crashed and went on by itself. It answers one
    /// call.
    pub(crate) fn adopt(&self, def: &'static Def, call: &mut dyn Call) -> Option<Arc<Run>> {
        if !lock(&self.gone_on).iter().any(|known| std::ptr::eq(known.run.def(), def)) {
            return None;
        }
        let parameters = panics::catch(|| {
            call.resolve().ok()?;
            let mut parameters = Map::new();
            call.encode(ArgEncoder::record(&mut parameters)).ok()?;
            // As it would be read from the record.
            serde_json::from_str::<Value>(&Value::Object(parameters).to_string()).ok()
        });
        let parameters = parameters.ok()??;
        let mut gone_on = lock(&self.gone_on);
        let equal = |known: &GoneOn| std::ptr::eq(known.run.def(), def) && known.parameters == parameters;
        let place = gone_on.iter().position(|known| equal(known) && !known.is_over())?;
        Some(self.asked_for(gone_on.remove(place)))
    }

    /// The run of that id, if it went on by itself and nobody has asked for it yet.
    pub(crate) fn answer(&self, id: RunId) -> Option<Arc<Run>> {
        let mut gone_on = lock(&self.gone_on);
        let place = gone_on.iter().position(|known| known.run.id() == id)?;
        Some(self.asked_for(gone_on.remove(place)))
    }

    /// The active runs that went on by themselves and that nobody has asked for yet.
    pub(crate) fn unasked(&self) -> Vec<Arc<Run>> {
        lock(&self.gone_on).iter().filter(|known| !known.run.has_ended()).map(|known| Arc::clone(&known.run)).collect()
    }

    fn asked_for(&self, GoneOn { run, parameters: _ }: GoneOn) -> Arc<Run> {
        if let Some(id) = run.id().as_flow() {
            lock(&self.unasked).remove(&id);
        }
        run
    }

    /// Whether a run is going on by itself, or is about to, and nobody has asked for it yet.
    pub(crate) fn sees_to(&self, id: FlowRunId) -> bool {
        lock(&self.unasked).contains(&id)
    }

    /// Whether a run is not to be cancelled with the others, because it is interrupted.
    pub(crate) fn interrupts(&self, run: &Run) -> bool {
        self.over.load(Ordering::SeqCst) && run.id().as_flow().is_some_and(|id| lock(&self.unasked).contains(&id))
    }

    /// Lets go of the runs that answer no call any more.
    fn let_go(&self) {
        let over: Vec<GoneOn> = lock(&self.gone_on).extract_if(.., |known| known.is_over()).collect();
        for id in over.iter().filter_map(|known| known.run.id().as_flow()) {
            lock(&self.unasked).remove(&id);
        }
        if !over.is_empty() {
            panics::let_go(over);
        }
    }
}

/// Lets flow runs go on before anybody calls one, on the first runtime that there is; whoever comes meanwhile waits. Blocks.
pub(crate) fn begin(inner: &Arc<Inner>) {
    let recovery = &inner.recovery;
    if recovery.begun.load(Ordering::Acquire) {
        return;
    }
    let (Some(shared), Ok(runtime)) = (inner.backend.shared(), Handle::try_current()) else { return };
    let this = thread::current().id();
    let mut beginning = lock(&recovery.beginning);
    while let Some(thread) = *beginning {
        if thread == this {
            // What goes on is submitted.
            return;
        }
        beginning = recovery.has_begun.wait(beginning).unwrap_or_else(PoisonError::into_inner);
    }
    if recovery.begun.load(Ordering::Acquire) {
        return;
    }
    *beginning = Some(this);
    drop(beginning);
    let beginning = Beginning(recovery);
    // Before there is a runtime on which the keeper would.
    let turn = Turn::take(inner, |recovery| &recovery.going_on);
    recovery.runs_on(&runtime);
    if turn.is_some() {
        let runs = report(candidates(inner, shared));
        go_on(inner, &runtime, &runs);
    }
    drop((turn, beginning));
    call_hooks(inner, shared, &runtime);
}

/// It is being found out what goes on from the start; dropping it says that it is known.
struct Beginning<'a>(&'a Recovery);

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.begun.store(true, Ordering::Release);
        lock(&self.0.beginning).take();
        self.0.has_begun.notify_all();
    }
}

/// Looks whether something is left to do; does it elsewhere, because it calls what the user has written.
pub(crate) fn look(inner: &Arc<Inner>) {
    inner.recovery.let_go();
    let (Some(runtime), Some(shared)) = (lock(&inner.recovery.runtime).clone(), inner.backend.shared()) else { return };
    if let Some(turn) = Turn::take(inner, |recovery| &recovery.going_on) {
        let runs = report(candidates(inner, shared));
        if !runs.is_empty() {
            let onto = runtime.clone();
            drop(runtime.spawn_blocking(move || {
                go_on(&turn.inner, &onto, &runs);
                drop(turn);
            }));
        }
    }
    call_hooks(inner, shared, &runtime);
}

/// What one thread or task of an orchestrator does at a time, from its look at what there is to do; dropping it says that it is
/// done. Of two that let runs go on, one would take those of the other for runs that another process has taken.
struct Turn {
    inner: Arc<Inner>,
    of: fn(&Recovery) -> &AtomicBool,
}

impl Turn {
    fn take(inner: &Arc<Inner>, of: fn(&Recovery) -> &AtomicBool) -> Option<Self> {
        let is_free = !of(&inner.recovery).swap(true, Ordering::AcqRel);
        is_free.then(|| Self { inner: Arc::clone(inner), of })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        (self.of)(&self.inner.recovery).store(false, Ordering::Release);
    }
}

fn report<T: Default>(found: Result<T, BackendError>) -> T {
    found.unwrap_or_else(|error| {
        tracing::debug!(target: "orchestrator", "cannot look for runs that crashed: {error}");
        T::default()
    })
}

fn stopped(inner: &Inner) -> bool {
    inner.fenced().is_some() || inner.roots.is_closed() || inner.recovery.over.load(Ordering::SeqCst)
}

/// Cuts short what went on by itself and what nobody here has asked for: it is to go on another time. Nothing goes on here
/// from now on; blocks.
pub(crate) fn interrupt(inner: &Inner) {
    let recovery = &inner.recovery;
    recovery.over.store(true, Ordering::SeqCst);
    // They answer no call any more.
    let gone_on = std::mem::take(&mut *lock(&recovery.gone_on));
    for run in inner.roots.active() {
        if let Some(id) = run.id().as_flow().filter(|_| recovery.interrupts(&run)) {
            // Before it is seen as Crashed, and may be found to be so once too often.
            uncount(inner, id);
            run.cancel(Stop::Interrupted);
        }
    }
    // What is not active any more is not waited for, either.
    for ended in gone_on.iter().filter(|known| known.run.has_ended()).filter_map(|known| known.run.id().as_flow()) {
        lock(&recovery.unasked).remove(&ended);
    }
    panics::let_go(gone_on);
}

/// A run that nobody here has asked for is to end without having crashed, so that it does not count; blocks.
pub(crate) fn uncount(inner: &Inner, run: FlowRunId) {
    if !lock(&inner.recovery.unasked).remove(&run) || inner.fenced().is_some() {
        return;
    }
    if let Some(Err(error)) = inner.backend.shared().map(|shared| shared.uncount(run)) {
        tracing::debug!(target: "orchestrator", "flow run {run}, which is interrupted, counts as crashed: {error}");
    }
}

/// The crashed flow runs of this program's flows that go on by themselves, and how often each did so in a row.
fn candidates(inner: &Inner, shared: &dyn Shared) -> Result<Vec<(FlowRunId, u32)>, BackendError> {
    let mut found = Vec::new();
    if inner.recovery.scope == Scope::Nothing || stopped(inner) {
        return Ok(found);
    }
    let mut budgets: BTreeMap<&str, Option<u32>> = BTreeMap::new();
    for def in Flow::resuming().map(|flow| flow.def) {
        let budget = budgets.entry(def.key).or_default();
        *budget = (*budget).max(def.crash_budget);
    }
    if let Scope::Only(only) = inner.recovery.scope {
        budgets.retain(|key, _| only == Some(*key));
    }
    for (key, budget) in budgets {
        // Those that have crashed too often, as was reported, may stay for years: nobody looks at them.
        found.extend(shared.crashed(key)?.into_iter().filter(|(_, times)| Some(*times) <= budget));
    }
    let given_up = lock(&inner.recovery.given_up);
    found.retain(|(run, _)| !given_up.contains(run));
    Ok(found)
}

fn go_on(inner: &Arc<Inner>, runtime: &Handle, runs: &[(FlowRunId, u32)]) {
    for (id, times) in runs {
        // A shutdown waits until the run is known, or the run is left alone.
        let hold = Hold::on_orchestrator(inner);
        if stopped(inner) {
            return;
        }
        lock(&inner.recovery.unasked).insert(*id);
        let gone_on = resume::by_itself(inner, runtime, *id, *times);
        if !matches!(gone_on, Ok(ByItself::GoesOn { .. })) {
            lock(&inner.recovery.unasked).remove(id);
        }
        match gone_on {
            Ok(ByItself::GoesOn { parameters, run }) => {
                lock(&inner.recovery.gone_on).push(GoneOn { parameters, run });
                if inner.recovery.over.load(Ordering::SeqCst) {
                    interrupt(inner);
                }
            }
            Ok(ByItself::LeftToOthers) => {}
            Ok(ByItself::TooOften { name, budget }) => tracing::warn!(
                target: "orchestrator",
                "flow run '{name}' has crashed {} times in a row, which is more than its crash_budget of {budget}, and \
                 is left as Crashed. Find out why; then `orchestrator.resume(id)`, or the command `resume {id}` of the \
                 program, lets it go on",
                budget + 1,
            ),
            // It is tried again.
            Err(error) if error.is_backend() => {
                tracing::debug!(target: "orchestrator", "flow run {id}, which crashed, does not go on by itself: {error}");
            }
            Err(error) => {
                lock(&inner.recovery.given_up).insert(*id);
                tracing::warn!(target: "orchestrator", "flow run {id}, which crashed, does not go on by itself: {error}");
            }
        }
        drop(hold);
    }
}

/// Calls in the background the hooks that nobody has called.
fn call_hooks(inner: &Arc<Inner>, shared: &dyn Shared, runtime: &Handle) {
    if HOOKED.is_empty() || inner.recovery.scope == Scope::Nothing || stopped(inner) {
        return;
    }
    let Some(turn) = Turn::take(inner, |recovery| &recovery.calling) else { return };
    let crashes = report(shared.uncalled());
    let known: Vec<_> = crashes.into_iter().filter_map(|crash| Some((crash.run, hooked(&crash)?))).collect();
    if known.is_empty() {
        return;
    }
    runtime.spawn(async move {
        for (run, def) in known {
            if stopped(&turn.inner) || !call_hooks_of(&turn.inner, run, def).await {
                return;
            }
        }
    });
}

/// The function of a run that crashed, if it has hooks; functions of one name in different blocks cannot be told apart.
fn hooked(crash: &Crash) -> Option<&'static Def> {
    let mut known = HOOKED.iter().filter(|def| def.key == crash.key && def.name == crash.function);
    known.next().filter(|_| known.next().is_none()).copied()
}

/// Calls the hooks of a run, unless somebody else does; says whether the store could be asked.
async fn call_hooks_of(inner: &Arc<Inner>, run: RunId, def: &'static Def) -> bool {
    let hold = Hold::on_orchestrator(inner);
    let orchestrator = Orchestrator::from_inner(Arc::clone(inner));
    let seen = orchestrator.ask(move |backend, inner| take(backend, inner, run)).await;
    match seen {
        Ok(Some(crashed)) => hook::call_of_crashed(inner, crashed, def.hooks.on_crashed).await,
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(target: "orchestrator", "cannot call the hooks of run {run}, which crashed: {error}");
            return false;
        }
    }
    drop(hold);
    true
}

/// What the hooks of a run are given, if it falls to this orchestrator to call them.
fn take(backend: &dyn StateBackend, inner: &Inner, run: RunId) -> Result<Option<Crashed>, BackendError> {
    let owner = inner.keeper.as_ref().and_then(|keeper| keeper.membership().owner());
    let (Some(shared), Some(owner)) = (backend.shared(), owner) else { return Ok(None) };
    let crash = |state: &State| state.name == StateName::Crashed.as_str();
    // It may go on by now.
    let Some(state) = backend.states(run)?.into_iter().rfind(crash) else { return Ok(None) };
    let found = match run {
        RunId::Task(id) => backend.task_run(id)?.map(|run| Crashed::task(run, state)),
        RunId::Flow(id) => backend.flow_run(id)?.map(|run| Crashed::flow(run, state)),
    };
    Ok(if shared.take_hooks(owner, run)? { found } else { None })
}
