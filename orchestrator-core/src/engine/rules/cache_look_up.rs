//! The cache: an answer that is there is taken, an answer that is being computed is waited for.

use std::sync::Arc;

use super::{Holding, Verdict};
use crate::backend::record::CacheKey;
use crate::cache::{self, Claim, Found};
use crate::engine::Call;
use crate::engine::attempt::unless_cancelled;
use crate::run::Run;

/// The run's cache key; `None` if it is not cached.
pub(super) fn key(run: &Arc<Run>, call: &dyn Call) -> Option<CacheKey> {
    cache::key(run, call)
}

pub(super) async fn apply(key: CacheKey, run: &Arc<Run>, call: &mut dyn Call, holding: &mut Holding) -> Verdict {
    if run.options().refresh_cache() {
        holding.claim = Some(Claim::refreshing(key));
        return Verdict::Accept;
    }
    match unless_cancelled(run, cache::look_up(run, key, call)).await {
        Some(Found::Hit(value)) => Verdict::Reject(value),
        Some(Found::Miss(claim)) => {
            holding.claim = Some(claim);
            Verdict::Accept
        }
        None => Verdict::Cancelled,
    }
}
