//! The runs that a run has started.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crossbeam_utils::CachePadded;
use tokio::sync::watch;

use super::{ENTERED, LEFT, Run, lock};
use crate::engine::panics;
use crate::orchestrator::Inner;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Notify};

/// The runs that one run, or an orchestrator, has started and that have not ended.
///
/// A run that ends counts itself among those that have gone, and touches nothing else here, as others are entered at the same time. The table
/// keeps no run: what drives a run, or waits with it, does.
#[derive(Default)]
pub(crate) struct Children {
    /// How many were entered, with what else has to come to an end, such as the rollback of a transaction.
    entered: AtomicU64,
    table: Mutex<Table>,
    /// How many of these have ended; and `AWAITED`. Apart from what those write who enter runs at the same time.
    gone: CachePadded<AtomicU64>,
    pub(crate) idle: Notify,
    any_failed: AtomicBool,
    /// The run whose children these are has ended: nobody looks at failures any more.
    ended: AtomicBool,
    /// How many runs were moved here from other tables.
    pub(crate) handed_over: AtomicUsize,
}

/// Somebody is told when the last one ends.
const AWAITED: u64 = 1 << 63;
/// A table that is shorter is never tidied up.
const SHORT: usize = 64;
/// After so many ends somebody looks whether those that have ended are most of the table.
const BETWEEN_TIDYING: u64 = 1024;
/// So many are taken out of a table at a time, by those who go through all: others may enter in between.
const AT_A_TIME: usize = 64;

#[derive(Default)]
struct Table {
    /// Those that have not ended, and some that have.
    runs: Vec<Weak<Run>>,
    /// The length at which those are let go that have ended.
    tidy_at: usize,
    /// How many have to have ended before that is done because they have become fewer.
    look_at: u64,
    /// Children that failed; some may be looked at later.
    failures: Vec<Arc<Run>>,
    /// How many failures there may be before those that were looked at are let go.
    prune_at: usize,
    closed: bool,
}

impl Table {
    fn enter(&mut self, run: &Arc<Run>) {
        if self.runs.len() >= self.tidy_at.max(SHORT) {
            self.tidy();
        }
        self.runs.push(Arc::downgrade(run));
    }

    fn tidy(&mut self) {
        self.runs.retain(|run| run.strong_count() > 0);
        if self.runs.len() < self.runs.capacity() / 4 {
            self.runs.shrink_to(self.runs.len() * 2);
        }
        self.tidy_at = self.runs.len() * 2;
    }
}

/// Keeps an orchestrator, and maybe a run of it, from ending; dropping it lets go.
pub(crate) struct Hold {
    run: Option<Arc<Run>>,
    orchestrator: Arc<Inner>,
    #[expect(dead_code, reason = "held so that those who wait for the holds wait for this one")]
    held: watch::Receiver<()>,
}

/// The holds on an orchestrator.
#[derive(Default)]
pub(crate) struct Holds(Mutex<watch::Sender<()>>);

impl Holds {
    /// Waits until all have let go that there are now; those that come meanwhile keep nobody waiting.
    pub(crate) async fn present_gone(&self) {
        let present = std::mem::take(&mut *lock(&self.0));
        present.closed().await;
    }
}

impl Hold {
    pub(crate) fn on_run(run: &Arc<Run>) -> Self {
        run.children().comes();
        // A run whose driver goes away ends all the same.
        Self::new(Some(Arc::clone(run)), &run.scope().orchestrator)
    }

    pub(crate) fn on_orchestrator(orchestrator: &Arc<Inner>) -> Self {
        Self::new(None, orchestrator)
    }

    fn new(run: Option<Arc<Run>>, orchestrator: &Arc<Inner>) -> Self {
        orchestrator.roots.comes();
        let held = lock(&orchestrator.holds.0).subscribe();
        Self { run, orchestrator: Arc::clone(orchestrator), held }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Self { run, orchestrator, held: _ } = self;
        if let Some(run) = run
            && run.children().went()
        {
            run.signal();
        }
        orchestrator.roots.root_went();
        // Such a run was not the last to go, so it was not for it to see to what is to be stored. Where there is none, nobody
        // else does if the runtime is shut down.
        if run.as_ref().is_none_or(|run| run.has_ended()) && orchestrator.roots.is_idle() {
            orchestrator.journal.see_to_all();
        }
    }
}

impl Children {
    /// Enters a run; `false` if none is let in any more.
    pub(super) fn add(&self, run: &Arc<Run>) -> bool {
        let mut table = lock(&self.table);
        if table.closed {
            return false;
        }
        // Before anybody else can see the run: a cancellation may end it as soon as the lock is free.
        run.raise(ENTERED);
        self.comes();
        table.enter(run);
        true
    }

    /// One more that has to come to an end.
    fn comes(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
    }

    /// One has ended; says whether it was the last one and somebody waits for it.
    pub(super) fn went(&self) -> bool {
        let before = self.gone.fetch_add(1, Ordering::SeqCst);
        let gone = (before & !AWAITED) + 1;
        if gone.is_multiple_of(BETWEEN_TIDYING) {
            self.tidy_up(gone);
        }
        // Each end was counted after its beginning: whoever counts the last end sees all of them.
        before & AWAITED != 0 && self.entered.load(Ordering::SeqCst) == gone
    }

    /// Lets go of those that have ended if they are most of the table, now that so many have.
    fn tidy_up(&self, gone: u64) {
        let left = self.entered.load(Ordering::SeqCst).saturating_sub(gone);
        let mut table = lock(&self.table);
        if gone >= table.look_at && table.runs.len() as u64 > 4 * left + BETWEEN_TIDYING {
            table.tidy();
            // Somebody may still refer to those that were kept: the look at each is not to be taken again and again.
            table.look_at = gone + table.runs.len() as u64;
        }
    }

    fn root_went(&self) {
        self.went();
        if self.is_idle() {
            panics::contain("a waker", || self.idle.notify_waiters());
        }
    }

    /// A run that stands here has ended; says whether what started it is to be woken.
    pub(super) fn child_ended(&self, run: &Arc<Run>, has_parent: bool, failed: bool) -> bool {
        if !has_parent {
            self.root_went();
            return false;
        }
        if failed && !run.is_discarded() && !run.is_observed() {
            self.child_failed(run);
        }
        self.went()
    }

    fn child_failed(&self, run: &Arc<Run>) {
        let mut table = lock(&self.table);
        let mut gone = Vec::new();
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
        drop(table);
        // Destructors of errors are code of others.
        if !gone.is_empty() {
            panics::let_go(gone);
        }
    }

    /// Moves an active run to the roots; says whether these are shut down already. `None`: it is not here any more.
    pub(super) fn hand_over(run: &Arc<Run>, roots: &Self) -> Option<bool> {
        // It counts there before it may end there.
        roots.comes();
        let closed = {
            let mut table = lock(&roots.table);
            // Under the lock, so that it is always found in one of the two tables.
            run.move_to_roots().then(|| {
                table.enter(run);
                // While it stands in both: whoever looks at the number afterwards finds it here.
                roots.handed_over.fetch_add(1, Ordering::SeqCst);
                table.closed
            })
        };
        if closed.is_none() {
            roots.root_went();
        }
        closed
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

    /// The runs that have not ended. Some may have become roots.
    pub(crate) fn active(&self) -> Vec<Arc<Run>> {
        let known: Vec<Arc<Run>> = lock(&self.table).runs.iter().filter_map(Weak::upgrade).collect();
        let (active, ended): (Vec<_>, Vec<_>) = known.into_iter().partition(|run| !run.flag(LEFT));
        if !ended.is_empty() {
            // This may be the last of their results.
            panics::let_go(ended);
        }
        active
    }

    /// Shows the runs that have not ended, a few at a time, until one is the last that is wanted. Those that come meanwhile
    /// are not shown; some may have become roots. The lock is not held while one is shown.
    pub(crate) fn each(&self, show: &mut dyn FnMut(Arc<Run>) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut left = usize::MAX;
        while left > 0 {
            let some: Vec<Arc<Run>> = {
                let table = lock(&self.table);
                // From the end: those that were not shown can only move towards the beginning.
                let end = left.min(table.runs.len());
                left = end.saturating_sub(AT_A_TIME);
                table.runs[left..end].iter().filter_map(Weak::upgrade).collect()
            };
            let mut shown = ControlFlow::Continue(());
            for run in some {
                if shown.is_break() || run.flag(LEFT) {
                    // This may be the last of its result.
                    panics::let_go(run);
                } else {
                    shown = show(run);
                }
            }
            shown?;
        }
        ControlFlow::Continue(())
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
        // In this order: those that are entered meanwhile must not stand in for others that have not ended.
        let gone = self.gone.load(Ordering::SeqCst) & !AWAITED;
        self.entered.load(Ordering::SeqCst) == gone
    }

    /// Whether none is active; from now on somebody is told of the end of the last one.
    pub(super) fn await_idle(&self) -> bool {
        let gone = self.gone.fetch_or(AWAITED, Ordering::SeqCst) & !AWAITED;
        self.entered.load(Ordering::SeqCst) == gone
    }
}
