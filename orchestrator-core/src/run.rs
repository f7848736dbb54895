//! One run: its identity, and how it is made. What happens to it is in `run/`, by subject.
//!
//! A run is shared by its futures, its driver and, while it is active, its parent. Its states are written by the driver, but for
//! those of a pause.

mod cancel;
mod children;
mod end;
mod states;
mod telling;
mod track;
mod tree;
mod waiters;
mod waiting;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use once_cell::race::OnceBox;
use once_cell::sync::OnceCell;

use crate::backend::record::{CacheLook, RunIds, RunInfo, SharedList};
use crate::body::Erased;
use crate::clock::Timestamp;
use crate::def::Def;
use crate::engine::OwnedCall;
use crate::engine::plain;
use crate::engine::rules;
use crate::error::{Cause, FailedRun, FailureKind, TaskError};
use crate::id::{FlowRunId, RunId};
use crate::options::{Effective, Overrides};
use crate::persist::Identified;
use crate::scope::Scope;
use crate::state::Transition;
use crate::sync::{AtomicBool, AtomicU16, AtomicU32, AtomicWaker, Mutex, MutexGuard};
use crate::transaction;
pub(crate) use cancel::Stop;
pub(crate) use children::{Children, Hold, Holds};
pub(crate) use end::Wakes;
pub(crate) use states::Entered;
use track::Track;
use waiters::Waiters;
pub(crate) use waiters::{Group, Waiter};
pub(crate) use waiting::Waits;

/// How a run ended.
pub(crate) type Outcome = Result<Erased, TaskError>;

/// One run of a task or flow.
pub struct Run {
    identity: Identity,
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
    /// Whether one of these is the expansion of a `map`, whose end may bring further ones.
    awaits_expansion: bool,
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
    outcome: OnceCell<Outcome>,
    cell: Mutex<Cell>,
    children: OnceBox<Children>,
}

/// What tells a run from all others, apart from what it shares with the run above and with its orchestrator: the
/// [`RunInfo`] that others are given is put together when they ask.
pub(crate) struct Identity {
    pub(crate) id: RunId,
    pub(crate) def: &'static Def,
    /// How many runs of the function the flow run around had before.
    pub(crate) index: u32,
    pub(crate) tags: SharedList<Box<str>>,
    /// The runs that people see whose results it takes or that it waits for.
    pub(crate) upstream: RunIds,
}

/// What a run has from its beginning that most have not.
pub(crate) struct Bound {
    /// The name that it was given at its submission.
    given_name: Option<Arc<str>>,
    /// The transaction that the run was submitted in.
    transaction: Option<Arc<transaction::Shared>>,
    /// What identifies the call, where results are kept for the flow run.
    identified: Option<Box<Identified>>,
}

impl Bound {
    pub(crate) fn of(
        given_name: Option<Arc<str>>,
        transaction: Option<Arc<transaction::Shared>>,
        identified: Option<Box<Identified>>,
    ) -> Option<Box<Self>> {
        let is_any = given_name.is_some() || transaction.is_some() || identified.is_some();
        is_any.then(|| Box::new(Self { given_name, transaction, identified }))
    }

    pub(crate) const fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }
}

/// What a new run waits for.
#[derive(Clone, Copy)]
pub(crate) enum Upstreams {
    /// It begins as launched: whoever makes it starts it.
    None,
    Runs {
        /// Whether one of them is the expansion of a `map`.
        with_expansion: bool,
    },
}

/// Where a run comes from.
pub(crate) struct Origin {
    pub(crate) bound: Option<Box<Bound>>,
    pub(crate) overrides: Overrides,
    /// Absent where it is that of the parent.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) parent: Option<Arc<Run>>,
    pub(crate) visible: bool,
    pub(crate) created: Timestamp,
    pub(crate) resumed: Option<Box<Resumed>>,
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

/// Names the runs in a result.
pub(crate) type VisitResult = fn(&Erased, &mut dyn FnMut(&Arc<Run>));

/// What changes while a run goes on.
struct Cell {
    track: Track,
    waiters: Waiters,
    /// The body and its arguments, until somebody polls the run for the first time.
    call: Option<OwnedCall>,
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

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("id", &self.id()).field("state", &self.state().name).finish_non_exhaustive()
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
    pub(crate) fn new(identity: Identity, origin: Origin, upstreams: Upstreams, call: OwnedCall) -> Arc<Self> {
        let shared = scope_of(origin.scope.as_ref(), origin.parent.as_ref());
        let asks_for_nothing = origin.bound.as_ref().is_none_or(|bound| bound.identified.is_none())
            && rules::ask_for_nothing(identity.def, origin.overrides.get(), &identity.tags, shared);
        let is_plain = asks_for_nothing && plain::is_plain(identity.def, &origin, shared);
        let Origin { bound, overrides, scope, parent, visible, created, resumed } = origin;
        let below_sync = parent.as_ref().is_some_and(|parent| parent.below_sync || !parent.def().is_async);
        let depth = parent.as_ref().map_or(0, |parent| parent.depth.saturating_add(1));
        let (has_upstream, awaits_expansion) = match upstreams {
            Upstreams::None => (false, false),
            Upstreams::Runs { with_expansion } => (true, with_expansion),
        };
        let (flags, track, run_count) = match resumed {
            None => {
                let flags = if has_upstream { 0 } else { LAUNCHED };
                (flags, Track::begin(created), 0)
            }
            // Whoever took it over has written its state, and launches it.
            Some(resumed) => (RESUMED, Track::new(resumed.running, resumed.seq), resumed.run_count),
        };
        Arc::new(Self {
            identity,
            overrides,
            own_scope: scope,
            parent,
            bound,
            visible,
            asks_for_nothing,
            is_plain,
            has_upstream,
            awaits_expansion,
            below_sync,
            taken: AtomicBool::new(false),
            depth,
            flags: AtomicU16::new(flags),
            waiting_for: AtomicU32::new(1),
            run_count: AtomicU32::new(run_count),
            held: AtomicU32::new(0),
            driver: AtomicWaker::new(),
            outcome: OnceCell::new(),
            cell: Mutex::new(Cell { track, waiters: Waiters::None, call: Some(call), rare: None }),
            children: OnceBox::new(),
        })
    }

    pub(crate) const fn id(&self) -> RunId {
        self.identity.id
    }

    /// The identity that others are told.
    pub(crate) fn info(&self) -> RunInfo {
        let Identity { id, def, index, ref tags, ref upstream } = self.identity;
        RunInfo {
            id,
            def,
            given_name: self.given_name(),
            index,
            parent: self.parent.as_ref().map(|parent| parent.id()),
            flow_run: self.flow_run(),
            tags: tags.clone(),
            upstream: upstream.clone(),
            process: self.scope().orchestrator.process,
        }
    }

    /// The flow run that the run belongs to: for a flow run the one around it.
    pub(crate) fn flow_run(&self) -> Option<FlowRunId> {
        self.parent.as_ref()?.scope().flow
    }

    pub(crate) fn tags(&self) -> &[Box<str>] {
        &self.identity.tags
    }

    /// The function, with what its attribute says.
    pub(crate) const fn def(&self) -> &'static Def {
        self.identity.def
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
        renamed
            .or_else(|| self.given_name())
            .unwrap_or_else(|| RunInfo::numbered(self.def(), self.identity.index).into())
    }

    /// The name that it was given at its submission.
    fn given_name(&self) -> Option<Arc<str>> {
        self.bound.as_ref()?.given_name.clone()
    }

    /// The transaction that the run was submitted in.
    pub(crate) fn transaction(&self) -> Option<&Arc<transaction::Shared>> {
        self.bound.as_ref()?.transaction.as_ref()
    }

    /// What identifies the call, where results are kept for the flow run.
    pub(crate) fn identified(&self) -> Option<&Identified> {
        self.bound.as_ref()?.identified.as_deref()
    }

    /// `Task run` or `Flow run`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.id() {
            RunId::Task(_) => "Task run",
            RunId::Flow(_) => "Flow run",
        }
    }

    pub(crate) fn options(&self) -> Effective<'_> {
        Effective { def: self.def(), call: self.overrides.get(), defaults: &self.scope().orchestrator.defaults }
    }

    pub(crate) fn is_flow(&self) -> bool {
        self.id().as_flow().is_some()
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
        let run = FailedRun { id: self.id(), name: self.name(), function: self.def().name };
        TaskError::new(kind, self.visible.then_some(run), cause)
    }
}
