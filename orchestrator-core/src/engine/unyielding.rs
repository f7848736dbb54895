//! Bodies that do not yield. An async body that computes or blocks without an `.await` is stopped by nothing, and what its run
//! does cannot tell of it: nobody polls the driver meanwhile, and perhaps nothing else on the runtime either. So a thread
//! looks when the grace of a cancelled run is over. Of one that nobody cancels, or whose own timeout it keeps from being looked
//! at, nothing is told: somebody would have to look at every body that begins.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::panics;
use crate::run::{Run, Waits};
use crate::state::StateType;

/// So many are looked after at a time, and so many are told of when one is looked at.
const ENOUGH: usize = 32;

#[derive(Default)]
struct LookedAfter {
    runs: Vec<(Instant, Weak<Run>)>,
    has_thread: bool,
}

static LOOKED_AFTER: Mutex<LookedAfter> = Mutex::new(LookedAfter { runs: Vec::new(), has_thread: false });
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, LookedAfter> {
    LOOKED_AFTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of the bodies in a run that was cancelled, or whose children were, that have not yielded when the grace is over.
pub(crate) fn look_after(run: &Arc<Run>) {
    // A grace that never ends is not waited for.
    let Some(due) = Instant::now().checked_add(run.scope().orchestrator.defaults.cancel_grace) else { return };
    let mut looked_after = lock();
    if looked_after.runs.len() >= ENOUGH {
        looked_after.runs.retain(|(_, run)| run.strong_count() > 0);
    }
    if looked_after.runs.len() >= ENOUGH {
        return;
    }
    looked_after.runs.push((due, Arc::downgrade(run)));
    if looked_after.has_thread {
        CHANGED.notify_one();
        return;
    }
    let thread = std::thread::Builder::new().name("orchestrator-grace".to_owned()).spawn(look);
    // A system without a thread for it is told nothing.
    looked_after.has_thread = thread.is_ok();
}

fn look() {
    let mut looked_after = lock();
    while let Some(due) = looked_after.runs.iter().map(|(due, _)| *due).min() {
        let patience = due.saturating_duration_since(Instant::now());
        if !patience.is_zero() {
            looked_after = CHANGED.wait_timeout(looked_after, patience).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let is_due = |(at, _): &mut (Instant, Weak<Run>)| *at <= due;
        let over: Vec<_> = looked_after.runs.extract_if(.., is_due).collect();
        drop(looked_after);
        for run in over.iter().filter_map(|(_, run)| run.upgrade()) {
            tell(run);
        }
        looked_after = lock();
    }
    looked_after.has_thread = false;
}

/// Tells of those bodies of a run, and of the runs inside it, that have not yielded since it was cancelled.
fn tell(run: Arc<Run>) {
    let grace = run.scope().orchestrator.defaults.cancel_grace;
    let (mut runs, mut told) = (vec![run], 0);
    while let Some(run) = runs.pop() {
        runs.extend(run.active_children());
        if told < ENOUGH && is_stuck(&run) {
            told += 1;
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

fn warn(run: &Run, grace: Duration) {
    panics::shield(|| {
        tracing::warn!(
            target: "orchestrator",
            "{} '{}' was cancelled {} ago, and its body has not yielded since: an async body is stopped at an `.await`, and by \
                nothing else",
            run.kind(),
            run.name(),
            crate::terminal::short(grace),
        );
    });
}
