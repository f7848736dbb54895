//! Slots of named limits: those that the task asks for, and one of each limit that is named after a tag.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Answer, Holding, Verdict};
use crate::concurrency::{Acquire, SlotGuard, Waiting, Wants};
use crate::engine::attempt::unless_cancelled;
use crate::error::{Cause, Error, FailureKind, TaskError};
use crate::run::{Run, Waits};
use crate::state::StateName;

/// Whether the run may ask for a slot.
pub(super) fn may_be_asked(run: &Run) -> bool {
    if run.is_flow() || !run.visible {
        return false;
    }
    let named = match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => !named.is_empty(),
        None => !run.def().concurrency.is_empty(),
    };
    named || (!run.tags().is_empty() && run.scope().orchestrator.limits.may_be_by_tag())
}

/// What the run asks for.
fn asked(run: &Arc<Run>) -> Wants {
    let limits = &run.scope().orchestrator.limits;
    let mut wants = Wants::new();
    if run.is_flow() || !run.visible {
        return wants;
    }
    match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => named.iter().for_each(|(limit, slots)| wants.add(limit, *slots)),
        None => {
            for want in run.def().concurrency {
                if let Some(slots) = want.declare {
                    limits.declare(want.limit, slots);
                }
                wants.add(want.limit, want.slots);
            }
        }
    }
    limits.add_tags(run.tags(), &mut wants);
    wants
}

/// Whether the store has to be asked first for the limits that processes share.
pub(super) fn is_behind(run: &Arc<Run>) -> bool {
    let limits = &run.scope().orchestrator.limits;
    if limits.broker().is_none() || run.is_flow() || !run.visible {
        return false;
    }
    let tagged = !run.tags().is_empty();
    match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(named) => limits.is_behind(named.iter().map(|(limit, slots)| (limit, *slots)), tagged),
        None => limits.is_behind(run.def().concurrency.iter().map(|want| (want.limit, want.slots)), tagged),
    }
}

/// Asks the store for the limits that processes share; those that the task declares are created.
pub(super) async fn look(run: &Arc<Run>) -> Option<Verdict> {
    let declared = match run.overrides.get().and_then(|options| options.concurrency.as_ref()) {
        Some(_) => Vec::new(),
        None => {
            let declared =
                run.def().concurrency.iter().filter_map(|want| want.declare.map(|slots| (want.limit, slots)));
            declared.map(|(limit, slots)| (limit.into(), slots)).collect()
        }
    };
    let _noted = run.waits_for(Waits::Journal);
    match unless_cancelled(run, run.scope().orchestrator.limits.look(declared)).await {
        Some(Ok(())) => None,
        Some(Err(error)) => Some(Verdict::Abort(refused(run, &error))),
        None => Some(Verdict::Cancelled),
    }
}

/// Takes the slots, or a place in the queues for them.
pub(super) fn ask(run: &Arc<Run>, holding: &mut Option<Box<Holding>>) -> Answer {
    let wants = asked(run);
    if wants.is_empty() {
        return Answer::Said(Verdict::Accept);
    }
    match run.scope().orchestrator.limits.acquire(&wants, Some(run)) {
        Acquire::Held(guard) => {
            hold(guard, holding);
            Answer::Said(Verdict::Accept)
        }
        Acquire::Never(error) => Answer::Said(Verdict::Abort(refused(run, &error))),
        Acquire::Waiting(waiting) => Answer::Queued(Queued { waiting, told: false }),
    }
}

fn hold(guard: SlotGuard, holding: &mut Option<Box<Holding>>) {
    holding.get_or_insert_default().taken.slots = Some(guard);
}

/// The place of a run in the queues for slots; dropping it leaves them.
pub(crate) struct Queued {
    waiting: Waiting,
    /// Whether the run's state says that it waits, or nothing is to be said.
    told: bool,
}

impl Queued {
    /// Ready when the run has the slots, or never gets them.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        run: &Arc<Run>,
        holding: &mut Option<Box<Holding>>,
    ) -> Poll<Verdict> {
        // A cancellation wakes the driver, which polls this again.
        if run.is_cancelled() {
            return Poll::Ready(Verdict::Cancelled);
        }
        if !self.told {
            if ready!(self.waiting.poll_must_wait(cx)) {
                self.tell(run);
            }
            self.told = true;
        }
        Poll::Ready(match ready!(Pin::new(&mut self.waiting).poll(cx)) {
            Ok(guard) => {
                hold(guard, holding);
                Verdict::Accept
            }
            Err(error) => Verdict::Abort(refused(run, &error)),
        })
    }

    fn tell(&self, run: &Run) {
        let (reason, shut_out) = self.waiting.reason();
        if shut_out {
            tracing::warn!(target: "orchestrator", "{} '{}' {reason}: it waits until the limit is changed", run.kind(), run.name());
        }
        run.enter(StateName::AwaitingConcurrencySlot, Some(reason));
    }
}

/// What the store cannot give is no mistake of the run's.
fn refused(run: &Run, error: &Error) -> TaskError {
    let kind = if error.is_backend() { FailureKind::Crashed } else { FailureKind::Refused };
    run.error(kind, Cause::Said(error.to_string()))
}
