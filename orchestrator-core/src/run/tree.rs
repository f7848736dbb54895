//! Where a run stands among others: what started it, and what it started.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CLOSED, Children, DETACHED, ENTERED, LEFT, Run, Stop};
use crate::engine::panics;
use crate::error::TaskError;

impl Run {
    /// The run that waits for this one because it started it.
    pub(crate) fn above(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref().filter(|_| !self.flag(DETACHED))
    }

    /// This run and the runs that wait for it because they started it, innermost first.
    pub(crate) fn lineage(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |run| run.above())
    }

    /// Whether a flow run goes on that ends only after this run, or that is this run.
    pub(crate) fn is_in_active_flow(&self) -> bool {
        let mut top = self;
        while let Some(above) = top.above() {
            top = above;
        }
        top.is_flow() && !top.has_terminal_state()
    }

    /// This run and the runs in whose bodies it was submitted, innermost first, whether or not they wait for it.
    pub(crate) fn origins(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |run| run.parent.as_ref())
    }

    /// Whether this run is `above` or part of it, so that `above` ends only after it.
    pub(crate) fn is_part_of(self: &Arc<Self>, above: &Arc<Self>) -> bool {
        if self.depth <= above.depth {
            return Arc::ptr_eq(self, above);
        }
        self.lineage().any(|ancestor| Arc::ptr_eq(ancestor, above))
    }

    pub(crate) fn children(&self) -> &Children {
        self.children.get_or_init(Box::default)
    }

    fn siblings(&self) -> &Children {
        self.siblings_of(self.above())
    }

    fn siblings_of<'a>(&'a self, above: Option<&'a Arc<Self>>) -> &'a Children {
        above.map_or(&self.scope().orchestrator.roots, |parent| parent.children())
    }

    /// Enters the run in its parent's table; `false` if the parent has ended.
    pub(crate) fn adopt(self: &Arc<Self>) -> bool {
        let siblings = self.siblings();
        if !siblings.add(self) {
            return false;
        }
        match &self.parent {
            Some(parent) if parent.flags.load(Ordering::SeqCst) & CLOSED != 0 => {
                // A cancellation may have ended it already, and a parent that crashed have made it a root.
                let _ = self.leave(false);
                parent.signal();
                false
            }
            _ => true,
        }
    }

    /// Takes the run out of the table in which it stands; gives back who waits for it because of that.
    pub(super) fn leave(self: &Arc<Self>, failed: bool) -> Option<Arc<Self>> {
        let before = self.flags.fetch_or(LEFT, Ordering::AcqRel);
        if before & (ENTERED | LEFT) != ENTERED {
            return None;
        }
        // Whoever detaches the run from now on finds that it has left.
        let above = self.parent.as_ref().filter(|_| before & DETACHED == 0);
        let is_awaited = self.siblings_of(above).child_ended(self, above.is_some(), failed);
        above.filter(|_| is_awaited).cloned()
    }

    /// Takes the run, and what is beneath it, out of its transaction.
    fn leave_transaction(self: &Arc<Self>) {
        if let Some(transaction) = self.transaction() {
            transaction.let_go(self);
        }
    }

    /// Whether the run is a root by [`detach`](Self::detach).
    pub(crate) fn is_detached(&self) -> bool {
        self.flag(DETACHED)
    }

    /// Makes the run a root: what started it neither waits for it, nor fails with it, nor takes it along at its end.
    pub(crate) fn detach(self: &Arc<Self>) {
        self.observe();
        let Some(parent) = self.above().cloned() else {
            self.raise(DETACHED);
            self.leave_transaction();
            return;
        };
        let orchestrator = &self.scope().orchestrator;
        let Some(shut_down) = Children::hand_over(self, &orchestrator.roots) else { return };
        self.leave_transaction();
        orchestrator.limits.left(&parent);
        self.left_for_the_roots(&parent);
        if shut_down {
            self.cancel_tree(Stop::ShutDown);
        }
    }

    /// Sees to what follows when the run has become a root.
    fn left_for_the_roots(&self, parent: &Self) {
        // It may wait for something that only concerns runs of the flow.
        self.signal();
        if parent.children().went() {
            parent.signal();
        }
    }

    /// Lets no more runs in, and makes those roots that this one leaves behind, as it ends before them: they are asked to end,
    /// which may take them a while. In this table nobody would find them, nor wait for them.
    pub(crate) fn leave_behind(&self) {
        // Who enters a run afterwards takes it out again.
        let _ = self.close();
        let orchestrator = &self.scope().orchestrator;
        let (mut moved, others): (Vec<_>, Vec<_>) = self.active_children().into_iter().partition(|child| {
            child.cancel_tree(Stop::Crashed);
            Children::hand_over(child, &orchestrator.roots).is_some()
        });
        // Once for all of them: many may wait for slots.
        if !moved.is_empty() {
            orchestrator.limits.left(self);
        }
        moved.iter().for_each(|child| child.left_for_the_roots(self));
        // They may have ended meanwhile, and these be the last of their results.
        moved.extend(others);
        panics::let_go(moved);
    }

    /// Makes a run that stands in the table of what started it a root; `false` if it does not stand there.
    pub(super) fn move_to_roots(&self) -> bool {
        let stands = |flags: u16| flags & (ENTERED | LEFT | DETACHED) == ENTERED;
        let moved = |flags| stands(flags).then_some(flags | DETACHED);
        self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved).is_ok()
    }

    /// Whether no other child of the same parent is active.
    pub(crate) fn is_last(&self) -> bool {
        self.siblings().is_idle()
    }

    /// Whether the run has started any others, be they over.
    pub(crate) fn has_started_others(&self) -> bool {
        self.children.get().is_some()
    }

    pub(crate) fn has_children(&self) -> bool {
        self.children.get().is_some_and(|children| !children.is_idle())
    }

    /// The runs that this one started and that have not ended.
    pub(crate) fn active_children(&self) -> Vec<Arc<Self>> {
        let mut children = self.children.get().map(|children| children.active()).unwrap_or_default();
        children.retain(|child| !child.is_detached());
        children
    }

    /// Whether every run that this one started has ended. From now on the end of the last one wakes the driver.
    pub(crate) fn children_ended(&self) -> bool {
        let Some(children) = self.children.get() else { return true };
        children.await_idle()
    }

    /// Whether no further children are let in.
    pub(crate) fn is_closed(&self) -> bool {
        self.flag(CLOSED)
    }

    /// Lets children in again.
    pub(crate) fn reopen(&self) {
        if self.flag(CLOSED) {
            self.flags.fetch_and(!CLOSED, Ordering::AcqRel);
        }
    }

    /// Refuses further children, until there is another attempt; says whether none is active.
    pub(crate) fn close(&self) -> bool {
        // Whoever adds a child looks at the flag afterwards, so one of the two sees the other: in one order of all that is SeqCst.
        if !self.flag(CLOSED) {
            self.flags.fetch_or(CLOSED, Ordering::SeqCst);
        }
        self.children.get().is_none_or(|children| children.await_idle())
    }

    /// The first child that failed and that nobody looked at, taken out of the list together with all others.
    pub(crate) fn unobserved_failure(&self) -> Option<TaskError> {
        let failures = self.children.get()?.take_failures();
        let mut unobserved = failures.iter().filter(|child| !child.is_observed());
        let failure = unobserved.find_map(|child| child.outcome().and_then(|outcome| outcome.as_ref().err().cloned()));
        if !failures.is_empty() {
            panics::let_go(failures);
        }
        failure
    }
}
