//! Waits while the store lags too far behind.

use std::sync::Arc;

use super::Verdict;
use crate::engine::attempt::unless_cancelled;
use crate::run::{Run, Waits};

pub(super) async fn apply(run: &Arc<Run>) -> Verdict {
    let _noted = run.waits_for(Waits::Journal);
    match unless_cancelled(run, run.scope().orchestrator.journal.room()).await {
        Some(()) => Verdict::Accept,
        None => Verdict::Cancelled,
    }
}
