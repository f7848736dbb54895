//! Waits while the store lags too far behind.

use std::sync::Arc;

use super::Verdict;
use crate::engine::attempt::unless_cancelled;
use crate::run::Run;

pub(super) async fn apply(run: &Arc<Run>) -> Verdict {
    match unless_cancelled(run, run.scope.orchestrator.journal.room()).await {
        Some(()) => Verdict::Accept,
        None => Verdict::Cancelled,
    }
}
