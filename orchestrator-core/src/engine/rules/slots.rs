//! Slots of named limits: those that the task asks for, and one of each limit that is named after a tag.

use std::future::poll_fn;
use std::sync::Arc;

use super::{Holding, Verdict};
use crate::concurrency::{Acquire, Wants};
use crate::engine::attempt::unless_cancelled;
use crate::error::{Cause, FailureKind, TaskError};
use crate::run::Run;
use crate::state::StateName;

/// Whether the run may ask for a slot.
pub(super) fn may_be_asked(run: &Run) -> bool {
    if run.is_flow() || !run.visible {
        return false;
    }
    let named = match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => !named.is_empty(),
        None => !run.def.concurrency.is_empty(),
    };
    named || (!run.info.tags.is_empty() && run.scope.orchestrator.limits.may_be_by_tag())
}

/// What the run asks for; an error if it asks for what is not there.
pub(super) fn asked(run: &Arc<Run>) -> Result<Wants, TaskError> {
    let limits = &run.scope.orchestrator.limits;
    let mut wants = Wants::new();
    if run.is_flow() || !run.visible {
        return Ok(wants);
    }
    match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => named.iter().for_each(|(limit, slots)| wants.add(limit, *slots)),
        None => {
            for want in run.def.concurrency {
                if let Some(slots) = want.declare {
                    limits.declare(want.limit, slots);
                }
                wants.add(want.limit, want.slots);
            }
        }
    }
    limits.add_tags(&run.info.tags, &mut wants);
    limits.check(&wants).map_err(|error| refused(run, error.to_string()))?;
    Ok(wants)
}

/// Whether the store has to be asked first for the limits that processes share.
pub(super) fn is_behind(run: &Arc<Run>) -> bool {
    let limits = &run.scope.orchestrator.limits;
    if limits.broker().is_none() || run.is_flow() || !run.visible {
        return false;
    }
    let tagged = !run.info.tags.is_empty();
    match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => limits.is_behind(named.iter().map(|(limit, slots)| (limit, *slots)), tagged),
        None => limits.is_behind(run.def.concurrency.iter().map(|want| (want.limit, want.slots)), tagged),
    }
}

/// Asks the store for the limits that processes share; those that the task declares are created.
pub(super) async fn look(run: &Arc<Run>) -> Option<Verdict> {
    let declared = match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(_) => Vec::new(),
        None => {
            let declared = run.def.concurrency.iter().filter_map(|want| want.declare.map(|slots| (want.limit, slots)));
            declared.map(|(limit, slots)| (limit.into(), slots)).collect()
        }
    };
    match unless_cancelled(run, run.scope.orchestrator.limits.look(declared)).await {
        Some(Ok(())) => None,
        Some(Err(error)) => Some(Verdict::Abort(refused(run, error.to_string()))),
        None => Some(Verdict::Cancelled),
    }
}

pub(super) async fn apply(wants: Wants, run: &Arc<Run>, holding: &mut Holding) -> Verdict {
    let limits = &run.scope.orchestrator.limits;
    let mut waiting = match limits.acquire(wants, Some(run)) {
        Acquire::Held(guard) => {
            holding.taken.slots = Some(guard);
            return Verdict::Accept;
        }
        Acquire::Never(error) => return Verdict::Abort(refused(run, error.to_string())),
        Acquire::Waiting(waiting) => waiting,
    };
    match unless_cancelled(run, poll_fn(|cx| waiting.poll_must_wait(cx))).await {
        Some(true) => {
            let reason = waiting.reason();
            if waiting.is_shut_out() {
                tracing::warn!(target: "orchestrator", "{} '{}' {reason}: it waits until the limit is changed", run.kind(), run.name());
            }
            run.enter(StateName::AwaitingConcurrencySlot, Some(reason.into()));
        }
        Some(false) => {}
        None => return Verdict::Cancelled,
    }
    match unless_cancelled(run, waiting).await {
        Some(Ok(guard)) => {
            holding.taken.slots = Some(guard);
            Verdict::Accept
        }
        Some(Err(error)) => Verdict::Abort(refused(run, error.to_string())),
        None => Verdict::Cancelled,
    }
}

fn refused(run: &Run, said: String) -> TaskError {
    run.error(FailureKind::Refused, Cause::Said(said))
}
