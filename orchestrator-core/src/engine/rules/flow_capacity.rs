//! `max_concurrent_tasks`: how many tasks of one flow run may be active at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Answer, Holding, Verdict};
use crate::engine::attempt::{unless_cancelled, while_attached};
use crate::run::{Run, Waits};
use crate::state::StateName;

/// The flow's capacity, if the run counts against it: a task within a task is part of what its parent was let in for, and
/// one that is detached is not the flow's any more. One that is detached during an attempt keeps its place until that ends.
pub(super) fn asked(run: &Arc<Run>) -> Option<(Arc<Semaphore>, usize)> {
    let (capacity, size) = run.scope().capacity.as_ref()?;
    let top = !run.is_flow() && run.visible && run.above().is_some_and(|parent| parent.is_flow());
    top.then(|| (Arc::clone(capacity), *size))
}

/// Takes a place that is free.
pub(super) fn ask(run: &Arc<Run>, holding: &mut Option<Box<Holding>>) -> Answer {
    let Some((capacity, _)) = asked(run) else { return Answer::Said(Verdict::Accept) };
    let Ok(permit) = capacity.try_acquire_owned() else { return Answer::Later };
    holding.get_or_insert_default().taken.flow = Some(permit);
    Answer::Said(Verdict::Accept)
}

/// Waits for one.
pub(super) async fn apply(capacity: Arc<Semaphore>, size: usize, run: &Arc<Run>, holding: &mut Holding) -> Verdict {
    let message = format!("the flow runs at most {size} tasks at a time");
    run.enter(StateName::AwaitingConcurrencySlot, Some(message.into()));
    let _noted = run.waits_for(Waits::FlowCapacity);
    match unless_cancelled(run, while_attached(run, capacity.acquire_owned())).await {
        Some(permit) => {
            holding.taken.flow = permit.map(|permit| permit.expect("the flow's semaphore is never closed"));
            Verdict::Accept
        }
        None => Verdict::Cancelled,
    }
}
