//! What the flow run has kept, and the cache: an answer that is there is taken.

use std::sync::Arc;

use super::{Holding, Verdict};
use crate::backend::record::{CacheKey, CacheReason};
use crate::cache;
use crate::engine::Call;
use crate::engine::attempt::unless_cancelled;
use crate::persist;
use crate::run::Run;

pub(super) async fn apply(key: CacheKey, run: &Arc<Run>, call: &mut dyn Call, holding: &mut Holding) -> Verdict {
    let landings = run.scope().orchestrator.flights.landings(&key);
    holding.key = Some((key, landings));
    if run.options().refresh_cache() {
        run.looked(Some(key), CacheReason::Refreshed);
        return Verdict::Accept;
    }
    match unless_cancelled(run, cache::find(run, key, call)).await {
        Some(Ok((value, reason))) => {
            run.looked(Some(key), reason);
            Verdict::Reject(value)
        }
        Some(Err(reason)) => {
            holding.warn_unusable(run, &reason);
            run.looked(Some(key), reason);
            match run.scope().orchestrator.flights.flying(key, run) {
                // Before anything is taken.
                Some(flight) => Verdict::Again(flight),
                None => Verdict::Accept,
            }
        }
        None => Verdict::Cancelled,
    }
}

/// The result that the flow run kept of this call: it stands, even if the cache is to be refreshed.
pub(super) async fn persisted(
    identity: CacheKey,
    run: &Arc<Run>,
    call: &mut dyn Call,
    holding: &mut Holding,
) -> Option<Verdict> {
    holding.sought = true;
    match unless_cancelled(run, persist::find(run, identity, call)).await {
        Some(Some((value, reason))) => {
            run.looked(Some(identity), reason);
            Some(Verdict::Reject(value))
        }
        Some(None) => None,
        None => Some(Verdict::Cancelled),
    }
}
