//! Single flight: of those who want one key at the same time, one computes it.

use std::sync::Arc;

use super::{Holding, Verdict};
use crate::backend::record::CacheKey;
use crate::backend::{BackendErrorKind, Claimed};
use crate::cache::{self, Claim, Elsewhere, Flight};
use crate::engine::Call;
use crate::engine::attempt::unless_cancelled;
use crate::error::{Cause, FailureKind};
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
    let flights = &run.scope().orchestrator.flights;
    let mut claim = match flights.claim(key, run) {
        Ok(claim) => claim,
        Err(flight) => return Verdict::Again(flight),
    };
    // Somebody else may have had the claim, and have given it back, since the look-up.
    let mut landed = flights.landings(&key) != landings;
    if let Some(broker) = run.scope().orchestrator.limits.broker().filter(|_| claim.is_exclusive()) {
        match unless_cancelled(run, broker.claim(key, run)).await {
            Some(Ok((ticket, Claimed::Held { cached }))) => {
                claim.share(&run.scope().orchestrator, ticket);
                landed |= cached;
            }
            Some(Ok((_, Claimed::Taken { process, run, run_name }))) => {
                let by = Arc::new(Elsewhere { run, run_name, process });
                return Verdict::Again(Flight::Elsewhere { claim, landing: broker.landing(key), by });
            }
            Some(Err(error)) if error.as_backend().is_some_and(|error| error.kind() == BackendErrorKind::Fenced) => {
                return Verdict::Abort(run.error(FailureKind::Refused, Cause::Said(error.to_string())));
            }
            Some(Err(error)) => tracing::warn!(
                target: "orchestrator",
                "{} '{}' may compute what another process computes at the same time: {error}",
                run.kind(),
                run.name(),
            ),
            None => return Verdict::Cancelled,
        }
    }
    if landed {
        match unless_cancelled(run, cache::find(run, key, call)).await {
            Some(Ok((value, reason))) => {
                run.looked(Some(key), reason);
                return Verdict::Reject(value);
            }
            Some(Err(reason)) => {
                holding.warn_unusable(run, &reason);
                run.looked(Some(key), reason);
            }
            None => return Verdict::Cancelled,
        }
    }
    holding.claim = Some(claim);
    Verdict::Accept
}
