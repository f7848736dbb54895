//! The runs that a run has started.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use slab::Slab;

use super::{DETACHED, Run, lock};
use crate::engine::panics;
use crate::orchestrator::Inner;
use crate::sync::{AtomicBool, Mutex, Notify};

/// The runs that one run, or an orchestrator, has started and that have not ended.
#[derive(Default)]
pub(crate) struct Children {
    table: Mutex<Table>,
    pub(crate) idle: Notify,
    any_failed: AtomicBool,
    /// The run whose children these are has ended: nobody looks at failures any more.
    ended: AtomicBool,
}

#[derive(Default)]
struct Table {
    active: Slab<Arc<Run>>,
    /// Children that failed; some may be looked at later.
    failures: Vec<Arc<Run>>,
    /// How many failures there may be before those that were looked at are let go.
    prune_at: usize,
    closed: bool,
    /// What else has to come to an end, such as the rollback of a transaction.
    holds: usize,
}

impl Table {
    fn is_idle(&self) -> bool {
        self.active.is_empty() && self.holds == 0
    }

    /// Takes a run out, if it stands here.
    fn take(&mut self, run: &Arc<Run>) -> Option<Arc<Run>> {
        let place = run.place.load(Ordering::Acquire) as usize;
        let here = self.active.get(place).is_some_and(|known| Arc::ptr_eq(known, run));
        here.then(|| self.active.remove(place))
    }
}

/// Keeps a run, or an orchestrator, from ending; dropping it lets go.
pub(crate) enum Hold {
    Run(Arc<Run>),
    Orchestrator(Arc<Inner>),
}

impl Hold {
    pub(crate) fn on_run(run: &Arc<Run>) -> Self {
        lock(&run.children().table).holds += 1;
        Self::Run(Arc::clone(run))
    }

    pub(crate) fn on_orchestrator(orchestrator: &Arc<Inner>) -> Self {
        lock(&orchestrator.roots.table).holds += 1;
        Self::Orchestrator(Arc::clone(orchestrator))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        match self {
            Self::Run(run) => {
                lock(&run.children().table).holds -= 1;
                run.child_went();
            }
            Self::Orchestrator(orchestrator) => {
                lock(&orchestrator.roots.table).holds -= 1;
                orchestrator.roots.idle.notify_waiters();
            }
        }
    }
}

impl Children {
    pub(super) fn add(&self, run: &Arc<Run>) -> bool {
        let mut table = lock(&self.table);
        if table.closed {
            return false;
        }
        let place = table.active.insert(Arc::clone(run));
        let place = u32::try_from(place).expect("a run has fewer than four billion children at a time");
        // Before anybody else can see the run: a cancellation may end it as soon as the lock is free.
        run.place.store(place, Ordering::Release);
        true
    }

    /// Takes out a run that has ended; `false` if it was handed over to the roots meanwhile.
    pub(super) fn child_ended(&self, run: &Arc<Run>, has_parent: bool, failed: bool) -> bool {
        let mut table = lock(&self.table);
        if has_parent && run.flag(DETACHED) {
            return false;
        }
        let own = table.take(run);
        let mut gone = Vec::new();
        if failed && has_parent && !run.is_discarded() && !run.is_observed() {
            // Those that were looked at are nobody's concern any more.
            if table.failures.len() >= table.prune_at.max(64) {
                gone = table.failures.extract_if(.., |child| child.is_observed()).collect();
                table.prune_at = table.failures.len() * 2;
            }
            table.failures.push(Arc::clone(run));
            self.any_failed.store(true, Ordering::SeqCst);
            // The end of the parent looks the other way round, so one of the two sees the other.
            if self.ended.load(Ordering::SeqCst) {
                gone.append(&mut table.failures);
            }
        }
        let idle = table.is_idle();
        drop(table);
        drop(own);
        // Destructors of errors, and wakers, are code of others.
        if !gone.is_empty() {
            panics::let_go(gone);
        }
        if idle && !has_parent {
            panics::contain("a waker", || self.idle.notify_waiters());
        }
        true
    }

    /// Moves an active run to the roots; says whether these are shut down already. `None`: it is not here any more.
    pub(super) fn hand_over(&self, run: &Arc<Run>, roots: &Self) -> Option<bool> {
        let mut table = lock(&self.table);
        let run = table.take(run)?;
        // Nobody locks a run's table while the table of the roots is locked.
        let mut others = lock(&roots.table);
        let place = others.active.insert(Arc::clone(&run));
        run.place.store(u32::try_from(place).expect("there are fewer than four billion roots"), Ordering::Release);
        run.raise(DETACHED);
        Some(others.closed)
    }

    pub(super) fn remove(&self, run: &Arc<Run>) {
        let removed = lock(&self.table).take(run);
        drop(removed);
    }

    pub(super) fn take_failures(&self) -> Vec<Arc<Run>> {
        if !self.any_failed.load(Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.table).failures)
    }

    /// Gives back the failures that nobody took, and takes no more of them.
    pub(super) fn finish(&self) -> Vec<Arc<Run>> {
        self.ended.store(true, Ordering::SeqCst);
        self.take_failures()
    }

    pub(crate) fn active(&self) -> Vec<Arc<Run>> {
        lock(&self.table).active.iter().map(|(_, run)| Arc::clone(run)).collect()
    }

    /// Refuses new runs from now on.
    pub(crate) fn close(&self) {
        lock(&self.table).closed = true;
    }

    /// Whether new runs are refused.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.table).closed
    }

    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.table).is_idle()
    }
}
