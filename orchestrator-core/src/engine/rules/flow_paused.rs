//! While a flow run is paused, no run that it calls starts.

use std::sync::Arc;

use super::{Holding, Taken, Verdict};
use crate::engine::attempt::{unless_cancelled, while_attached};
use crate::run::{Run, Waits};
use crate::scope::Scope;

/// What the run shares with the paused flow run that called it and that it is part of.
pub(super) fn asked(run: &Run) -> Option<&Arc<Scope>> {
    let caller = run.above()?;
    (run.visible && caller.scope().pauses.is_paused()).then_some(caller.scope())
}

pub(super) async fn apply(scope: Arc<Scope>, run: &Arc<Run>, holding: &mut Holding) -> Verdict {
    // Nothing is kept from others in the meantime.
    let gave_back = holding.taken.is_any();
    holding.taken = Taken::default();
    let _noted = run.waits_for(Waits::Pause);
    match unless_cancelled(run, while_attached(run, scope.pauses.over())).await {
        Some(_) if gave_back => Verdict::StartOver,
        Some(_) => Verdict::Accept,
        None => Verdict::Cancelled,
    }
}
