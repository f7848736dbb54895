//! Bodies that do not yield. An async body that computes or blocks without an `.await` is stopped by nothing, and what its run
//! does cannot tell of it: nobody polls the driver meanwhile, and perhaps nothing else on the runtime either. So a thread
//! looks when the grace of a cancelled run is over. Of one that keeps its own timeout from being looked at it is told when it has
//! ended, and of one that nobody cancels nothing: somebody would have to look at every body that begins.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::panics;
use crate::id::RunId;
use crate::run::{Run, Waits};
use crate::state::StateType;

/// So many are looked after at a time.
const ROOM: usize = 4096;
/// So many are told of at a time.
const TOLD: usize = 32;
/// Who overruns a timeout by less is not told of: on a busy machine everything is late now and then.
const SLIGHT: Duration = Duration::from_millis(50);

struct Watched {
    due: Instant,
    run: Weak<Run>,
    /// In the next attempt everything is new.
    run_count: u32,
}

struct LookedAfter {
    runs: BTreeMap<RunId, Watched>,
    /// When the thread looks again, if there is one.
    next: Option<Instant>,
}

static LOOKED_AFTER: Mutex<LookedAfter> = Mutex::new(LookedAfter { runs: BTreeMap::new(), next: None });
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, LookedAfter> {
    LOOKED_AFTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of the bodies in a run that was cancelled, or whose children were, that have not yielded when the grace is over.
pub(crate) fn look_after(run: &Arc<Run>) {
    if run.has_ended() {
        return;
    }
    // A grace that never ends is not waited for.
    let Some(due) = Instant::now().checked_add(run.scope().orchestrator.defaults.cancel_grace) else { return };
    let mut looked_after = lock();
    if looked_after.runs.len() >= ROOM {
        return;
    }
    let watched = || Watched { due, run: Arc::downgrade(run), run_count: run.run_count() };
    // Whoever cancels it once more does not put off what is told.
    let known = looked_after.runs.entry(run.id()).or_insert_with(watched);
    if known.run_count != run.run_count() {
        *known = watched();
    }
    match looked_after.next {
        Some(next) if next <= due => {}
        Some(_) => CHANGED.notify_one(),
        None => {
            let thread = std::thread::Builder::new().name("orchestrator-grace".to_owned()).spawn(look);
            // A system without a thread for it is told nothing.
            looked_after.next = thread.is_ok().then_some(due);
        }
    }
}

fn look() {
    let mut looked_after = lock();
    while let Some(due) = looked_after.runs.values().map(|watched| watched.due).min() {
        looked_after.next = Some(due);
        let patience = due.saturating_duration_since(Instant::now());
        if !patience.is_zero() {
            looked_after = CHANGED.wait_timeout(looked_after, patience).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let over: Vec<_> = looked_after.runs.extract_if(.., |_, watched| watched.due <= due).collect();
        drop(looked_after);
        let mut told = HashSet::new();
        for (_, Watched { run, run_count, .. }) in over {
            if let Some(run) = run.upgrade() {
                tell(run, run_count, &mut told);
            }
        }
        looked_after = lock();
    }
    looked_after.next = None;
}

/// Tells of those bodies of a run, and of the runs inside it, that have not yielded since it was cancelled, if nothing was told of
/// them.
fn tell(run: Arc<Run>, run_count: u32, told: &mut HashSet<RunId>) {
    let grace = run.scope().orchestrator.defaults.cancel_grace;
    if run.run_count() != run_count {
        panics::let_go(run);
        return;
    }
    let mut runs = vec![run];
    while let Some(run) = runs.pop() {
        runs.extend(run.active_children());
        if told.len() < TOLD && is_stuck(&run) && told.insert(run.id()) {
            warn(&run, grace);
        }
        // This may be the last of its result.
        panics::let_go(run);
    }
}

/// Whether the driver has not been polled since: it would have entered Cancelling.
fn is_stuck(run: &Run) -> bool {
    run.is_cancelled() && run.state().kind == StateType::Running && matches!(run.waits(), Waits::Nothing)
}

/// Tells of an attempt that ended in a poll which began within its time and lasted past it.
pub(super) fn look_back(run: &Run, took: Duration, limit: Duration) {
    if took.saturating_sub(limit) < SLIGHT {
        return;
    }
    panics::shield(|| {
        tracing::warn!(
            target: "orchestrator",
            "{} '{}' took {}, its timeout is {}; it could not be stopped, as it did not yield",
            run.kind(),
            run.name(),
            crate::terminal::short(took),
            crate::terminal::short(limit),
        );
    });
}

fn warn(run: &Run, grace: Duration) {
    panics::shield(|| {
        tracing::warn!(
            target: "orchestrator",
            "{} '{}' was cancelled {} ago, and has not stopped since: its body, or another on the same thread, does not yield; an \
                async body is stopped at an `.await`, and by nothing else",
            run.kind(),
            run.name(),
            crate::terminal::short(grace),
        );
    });
}
