//! A thread of the blocking pool for a sync body.

use std::sync::Arc;

use super::{Holding, Verdict};
use crate::engine::attempt::unless_cancelled;
use crate::run::{Run, Waits};

pub(super) async fn apply(run: &Arc<Run>, holding: &mut Holding) -> Verdict {
    // A sync body may block its thread on a run that it started: that one does without the pool.
    if run.is_below_sync() {
        return Verdict::Accept;
    }
    let pool = Arc::clone(&run.scope.orchestrator.workers);
    if let Ok(permit) = Arc::clone(&pool).try_acquire_owned() {
        holding.taken.worker = Some(permit);
        return Verdict::Accept;
    }
    let _noted = run.waits_for(Waits::Thread);
    match unless_cancelled(run, pool.acquire_owned()).await {
        Some(permit) => {
            holding.taken.worker = Some(permit.expect("the pool's semaphore is never closed"));
            Verdict::Accept
        }
        None => Verdict::Cancelled,
    }
}
