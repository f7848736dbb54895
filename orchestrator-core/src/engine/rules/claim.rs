//! Single flight: of those who want one key at the same time, one computes it.

use std::sync::Arc;

use super::{Holding, Verdict};
use crate::backend::record::CacheKey;
use crate::cache::{self, Claim};
use crate::engine::Call;
use crate::engine::attempt::unless_cancelled;
use crate::run::Run;

pub(super) async fn apply(
    (key, landings): (CacheKey, u64),
    run: &Arc<Run>,
    call: &mut dyn Call,
    holding: &mut Holding,
) -> Verdict {
    if run.options().refresh_cache() {
        holding.claim = Some(Claim::refreshing(key));
        return Verdict::Accept;
    }
    let flights = &run.scope.orchestrator.flights;
    let claim = match flights.claim(key, run) {
        Ok(claim) => claim,
        Err(flight) => return Verdict::Again(flight),
    };
    // Somebody else may have had the claim, and have given it back, since the look-up.
    if flights.landings(&key) != landings {
        match unless_cancelled(run, cache::find(run, key, call)).await {
            Some(Ok((value, reason))) => {
                run.looked(Some(key), reason);
                return Verdict::Reject(value);
            }
            Some(Err(reason)) => run.looked(Some(key), reason),
            None => return Verdict::Cancelled,
        }
    }
    holding.claim = Some(claim);
    Verdict::Accept
}
