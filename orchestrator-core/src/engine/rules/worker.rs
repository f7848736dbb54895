//! A thread of the blocking pool for a sync body.

use std::sync::Arc;

use super::{Answer, Holding, Verdict};
use crate::engine::attempt::unless_cancelled;
use crate::run::{Run, Waits};

/// Takes a thread that is free.
pub(super) fn ask(run: &Arc<Run>, holding: &mut Option<Box<Holding>>) -> Answer {
    // A sync body may block its thread on a run that it started: that one does without the pool.
    if run.is_below_sync() {
        return Answer::Said(Verdict::Accept);
    }
    let Ok(permit) = Arc::clone(&run.scope().orchestrator.workers).try_acquire_owned() else { return Answer::Later };
    holding.get_or_insert_default().taken.worker = Some(permit);
    Answer::Said(Verdict::Accept)
}

/// Waits for one.
pub(super) async fn apply(run: &Arc<Run>, holding: &mut Holding) -> Verdict {
    let pool = Arc::clone(&run.scope().orchestrator.workers);
    let _noted = run.waits_for(Waits::Thread);
    match unless_cancelled(run, pool.acquire_owned()).await {
        Some(permit) => {
            holding.taken.worker = Some(permit.expect("the pool's semaphore is never closed"));
            Verdict::Accept
        }
        None => Verdict::Cancelled,
    }
}
