//! The end of a run: its terminal state, its outcome, and those who are told.

use std::sync::Arc;

use super::waiters::Waiters;
use super::{CLOSED, Cell, Outcome, Run, Waiter, lock};
use crate::clock::Timestamp;
use crate::engine::launcher;
use crate::engine::panics;
use crate::error::TaskError;
use crate::journal::Enqueued;
use crate::orchestrator::Inner;
use crate::state::StateName;

impl Run {
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Enters the terminal state; gives back when.
    pub(crate) fn conclude(&self, name: StateName, message: Option<Arc<str>>, error: Option<&TaskError>) -> Timestamp {
        debug_assert!(name.kind().is_terminal(), "only terminal states end a run");
        let at = self.scope().orchestrator.clock.now();
        self.record(name, message, at, error);
        self.flush();
        at
    }

    /// Says that what the run did was undone; it has completed, and nobody drives it any more.
    pub(crate) fn roll_back(&self, said: String) {
        let at = self.scope().orchestrator.clock.now();
        self.record(StateName::RolledBack, Some(said.into()), at, None);
        self.flush();
    }

    /// Enters the terminal state and stores the outcome in one step, where nobody looks at the moment between the two. What
    /// follows is for [`leave_unseen`](Self::leave_unseen).
    pub(crate) fn conclude_unseen(&self, name: StateName, outcome: Outcome) -> Concluded {
        debug_assert!(name.kind().is_terminal() && self.visible, "a run that people see ends in a terminal state");
        let Inner { clock, journal, .. } = &*self.scope().orchestrator;
        let now = clock.now();
        let failed = outcome.is_err();
        let mut cell = lock(&self.cell);
        let at = cell.enter_plain(name, now);
        let enqueued = self.hand_over(&mut cell, journal);
        let waiters = self.set_outcome(&mut cell, outcome);
        drop(cell);
        Concluded { at, failed, enqueued, waiters }
    }

    /// What follows on [`conclude_unseen`](Self::conclude_unseen); gives back when the run ended, and whoever waited.
    pub(crate) fn leave_unseen(self: Arc<Self>, concluded: Concluded) -> (Timestamp, Wakes) {
        let Concluded { at, failed, enqueued, waiters } = concluded;
        // The store may be somebody else's.
        panics::shield(|| enqueued.see_to_it(&self.scope().orchestrator.journal));
        (at, self.ended(waiters, failed))
    }

    /// Stores the outcome. Gives back whoever waited, to be woken when the driver has let go of the run: the last
    /// reader of a result is then its only owner.
    pub(crate) fn end(self: Arc<Self>, outcome: Outcome) -> Wakes {
        let failed = outcome.is_err();
        if self.is_flow() {
            crate::terminal::flush();
        }
        let waiters = self.set_outcome(&mut lock(&self.cell), outcome);
        self.ended(waiters, failed)
    }

    fn set_outcome(&self, cell: &mut Cell, outcome: Outcome) -> Waiters {
        self.outcome.set(outcome).unwrap_or_else(|_| unreachable!("a driver ends its run once"));
        std::mem::replace(&mut cell.waiters, Waiters::Told)
    }

    /// What follows when the outcome is there.
    fn ended(self: Arc<Self>, waiters: Waiters, failed: bool) -> Wakes {
        if let Some(transaction) = self.transaction() {
            panics::contain("a waker", || transaction.leave(&self, failed));
        }
        if !self.visible
            && let Some(Ok(result)) = self.outcome()
        {
            // Before what started these runs learns that one more has ended, and looks for failures.
            for waiter in waiters.iter() {
                if let Waiter::Tolerant(visit) = waiter {
                    visit(result, &mut |run| run.observe());
                }
            }
        }
        if !self.flag(CLOSED) {
            self.raise(CLOSED);
        }
        // They would keep this run, as it would keep them.
        let failures = self.children.get().map(|children| children.finish());
        let parent = self.leave(failed);
        panics::contain("a destructor", || drop((failures, self)));
        Wakes { waiters, completed: !failed, parent }
    }
}

/// A run that has ended without anybody looking, before anybody is told.
#[must_use = "somebody waits for this"]
pub(crate) struct Concluded {
    at: Timestamp,
    failed: bool,
    enqueued: Enqueued,
    waiters: Waiters,
}

/// Those who waited for a run that has ended.
#[must_use = "somebody waits for this"]
pub(crate) struct Wakes {
    waiters: Waiters,
    completed: bool,
    /// What started the run, if it waits for those that it started.
    parent: Option<Arc<Run>>,
}

impl Wakes {
    pub(crate) fn wake(self) {
        let Self { waiters, completed, parent } = self;
        waiters.for_each(|waiter| {
            // Whatever one of them does, the others are told.
            panics::contain("a waker", || match waiter {
                Waiter::Task(waker) => launcher::wake(waker),
                Waiter::Dependant(run) => {
                    if run.upstream_ended() {
                        crate::submit::launch(&run);
                    }
                }
                Waiter::Group(group, index) => group.ended(index as usize, completed),
                Waiter::Tolerant(_) => {}
            });
        });
        if let Some(parent) = parent {
            parent.signal();
            panics::let_go(parent);
        }
    }
}
