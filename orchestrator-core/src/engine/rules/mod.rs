//! What must hold before a body runs: one rule per file, and the order in which they are asked.

mod cache_look_up;
mod claim;
mod flow_capacity;
mod flow_paused;
mod journal_room;
mod slots;
mod worker;

use std::future::poll_fn;
use std::sync::Arc;

use super::Call;
use crate::backend::record::{CacheKey, CacheReason};
use crate::body::Erased;
use crate::cache::{self, Claim, Flight};
use crate::concurrency::SlotGuard;
use crate::def::Def;
use crate::error::TaskError;
use crate::options::CallOptions;
use crate::persist;
use crate::run::Run;
use crate::scope::Scope;
pub(crate) use slots::Queued;

/// A rule on entering Running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    CacheLookUp,
    FlowPaused,
    JournalRoom,
    FlowCapacity,
    Worker,
    Slots,
    Claim,
}

/// A rule and when it is asked.
pub(crate) struct Entry {
    pub(crate) rule: Rule,
    /// Asked again before a retry.
    pub(crate) each_attempt: bool,
}

/// The rules in the order in which they are asked; the order is the semantics.
pub(crate) const ENTERING: [Entry; 8] = [
    // Before anything is taken: a hit needs neither slot nor worker.
    Entry { rule: Rule::CacheLookUp, each_attempt: false },
    // Before anything is held: whoever lets the flow run on may take an hour.
    Entry { rule: Rule::FlowPaused, each_attempt: false },
    // Before anything is held: while the store lags, work that has not begun waits.
    Entry { rule: Rule::JournalRoom, each_attempt: false },
    // Before the named slots: a task that waits for its own flow's turn keeps nobody else waiting.
    Entry { rule: Rule::FlowCapacity, each_attempt: true },
    // Before the named slots: a body that has a thread may wait for whoever holds a slot, so no holder waits for a
    // thread.
    Entry { rule: Rule::Worker, each_attempt: true },
    // All named slots at once, first come first served.
    Entry { rule: Rule::Slots, each_attempt: true },
    // Once more: the flow run may have been paused while the run waited for slots. All is given back then.
    Entry { rule: Rule::FlowPaused, each_attempt: false },
    // Last: whoever has the claim waits for nothing that those who wait for it could hold.
    Entry { rule: Rule::Claim, each_attempt: false },
];

/// What a rule says.
#[must_use]
pub(crate) enum Verdict {
    /// Nothing against it.
    Accept,
    /// There is a result already.
    Reject(Erased),
    /// Somebody else computes the result: look again when that has ended.
    Again(Flight),
    /// The rules are to be asked again from the first one on: what had been taken was given back.
    StartOver,
    /// The run can never start.
    Abort(TaskError),
    /// The run was cancelled while it waited.
    Cancelled,
}

/// What a rule says when it is asked.
#[must_use]
pub(crate) enum Answer {
    Said(Verdict),
    /// The run stands in the queues for slots.
    Queued(Queued),
    /// It takes a future to say.
    Later,
}

/// What a run holds, and what else most runs have no room for; dropping a part gives it back.
#[derive(Default)]
pub(crate) struct Holding {
    /// Whether the flow run was asked for a result that it kept.
    pub(crate) sought: bool,
    /// The run's cache key, if it is to be computed and kept, and what had landed when it was looked up.
    pub(crate) key: Option<(CacheKey, u64)>,
    /// Whether the log says that what the cache has is of no use.
    pub(crate) told_unusable: bool,
    /// The right to compute what others wait for; kept over all attempts.
    pub(crate) claim: Option<Claim>,
    /// What is given back after each attempt.
    pub(crate) taken: Taken,
    /// How many events the journal had lost when the run began, where that matters.
    pub(crate) lost_before: u64,
    /// What the body gave, or a rule in its place.
    pub(crate) result: Option<Erased>,
    /// Why the last attempt failed, or why there can be none.
    pub(crate) failure: Option<TaskError>,
}

impl Holding {
    /// Says in the log that what the cache has is of no use to the run: once, however often it is looked at.
    fn warn_unusable(&mut self, run: &Run, reason: &CacheReason) {
        use CacheReason::{OtherFormat, OtherType, Unreadable};
        if let Unreadable { .. } | OtherType { .. } | OtherFormat { .. } = reason
            && !std::mem::replace(&mut self.told_unusable, true)
        {
            tracing::warn!(target: "orchestrator", "{} '{}' does not use the cache: {reason}", run.kind(), run.name());
        }
    }
}

/// What is held during one attempt only. Fields are dropped in the order of declaration.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) worker: Option<tokio::sync::OwnedSemaphorePermit>,
    pub(crate) slots: Option<SlotGuard>,
    pub(crate) flow: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Taken {
    fn is_any(&self) -> bool {
        self.worker.is_some() || self.slots.is_some() || self.flow.is_some()
    }
}

/// Whether none of the rules has a say about the run: one look in place of one for each, for most runs.
pub(crate) fn are_silent(run: &Arc<Run>) -> bool {
    run.asks_for_nothing && journal_has_room(run) && flow_paused::asked(run).is_none()
}

/// Whether nothing that is known of a call from its beginning gives a rule a say.
pub(crate) fn ask_for_nothing(def: &Def, options: Option<&CallOptions>, tags: &[Box<str>], scope: &Scope) -> bool {
    let may_need_slots = !def.concurrency.is_empty() || !tags.is_empty();
    let is_plain = def.is_async && !def.declares_cache() && !may_need_slots;
    options.is_none() && is_plain && scope.capacity.is_none()
}

fn journal_has_room(run: &Run) -> bool {
    run.scope().orchestrator.journal.has_room()
}

/// Whether a rule is to be asked about the run: a look that waits for nothing and changes nothing.
pub(crate) fn has_a_say(rule: Rule, run: &Arc<Run>, holding: Option<&Holding>) -> bool {
    match rule {
        Rule::CacheLookUp => {
            cache::is_asked(run) || (persist::sought(run).is_some() && !holding.is_some_and(|holding| holding.sought))
        }
        Rule::Claim => holding.is_some_and(|holding| holding.key.is_some()),
        Rule::FlowPaused => flow_paused::asked(run).is_some(),
        Rule::JournalRoom => !journal_has_room(run),
        Rule::FlowCapacity => run.scope().capacity.is_some(),
        Rule::Slots => slots::may_be_asked(run),
        Rule::Worker => !run.def().is_async && run.visible,
    }
}

/// Asks one rule for what it can say at once.
pub(crate) fn ask(rule: Rule, run: &Arc<Run>, holding: &mut Option<Box<Holding>>) -> Answer {
    match rule {
        Rule::FlowCapacity => flow_capacity::ask(run, holding),
        Rule::Worker => worker::ask(run, holding),
        Rule::Slots if !slots::is_behind(run) => slots::ask(run, holding),
        Rule::Slots | Rule::CacheLookUp | Rule::FlowPaused | Rule::JournalRoom | Rule::Claim => Answer::Later,
    }
}

/// Asks one rule, and waits for what it says.
pub(crate) async fn apply(rule: Rule, run: &Arc<Run>, call: &mut dyn Call, held: &mut Option<Box<Holding>>) -> Verdict {
    let holding = held.get_or_insert_default();
    // Each is boxed, so that a run that waits for one has no room for all.
    match rule {
        Rule::CacheLookUp => {
            if let Some(identity) = persist::sought(run).filter(|_| !holding.sought)
                && let Some(verdict) = Box::pin(cache_look_up::persisted(identity, run, call, holding)).await
            {
                return verdict;
            }
            match cache::key(run, call) {
                Some(Ok(key)) => Box::pin(cache_look_up::apply(key, run, call, holding)).await,
                Some(Err(reason)) => {
                    cache::warn_unkeyed(run, &reason);
                    run.looked(None, reason);
                    Verdict::Accept
                }
                None => Verdict::Accept,
            }
        }
        Rule::Claim => match holding.key.take() {
            Some(looked_up) => Box::pin(claim::apply(looked_up, run, call, holding)).await,
            None => Verdict::Accept,
        },
        Rule::FlowPaused => match flow_paused::asked(run) {
            Some(scope) => Box::pin(flow_paused::apply(Arc::clone(scope), run, holding)).await,
            None => Verdict::Accept,
        },
        Rule::JournalRoom if journal_has_room(run) => Verdict::Accept,
        Rule::JournalRoom => Box::pin(journal_room::apply(run)).await,
        Rule::FlowCapacity => match flow_capacity::asked(run) {
            Some((capacity, size)) => Box::pin(flow_capacity::apply(capacity, size, run, holding)).await,
            None => Verdict::Accept,
        },
        Rule::Slots => {
            if slots::is_behind(run)
                && let Some(verdict) = Box::pin(slots::look(run)).await
            {
                return verdict;
            }
            match slots::ask(run, held) {
                Answer::Said(verdict) => verdict,
                Answer::Queued(mut queued) => poll_fn(|cx| queued.poll(cx, run, held)).await,
                Answer::Later => unreachable!("the store was asked just now"),
            }
        }
        Rule::Worker => Box::pin(worker::apply(run, holding)).await,
    }
}
