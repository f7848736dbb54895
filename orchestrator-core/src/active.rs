//! The active runs of an orchestrator: how one of them is found, and how the journal learns of those that somebody asks
//! for and that have told it nothing so far.
//!
//! A run that begins at once gives the journal one event, at its end; nothing on its way there is done for the sake of
//! questions. So whoever asks looks at the runs that are active, and lets them tell what has happened to them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::panics;
use crate::id::{FlowRunId, RunId};
use crate::orchestrator::Inner;
use crate::run::Run;

/// The runs that a question to the store is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About {
    /// None that may be active.
    Nothing,
    Run(RunId),
    FlowRuns,
    /// The task runs that belong to this flow run, or to any.
    TaskRuns(Option<FlowRunId>),
    AllRuns,
}

impl About {
    fn is(self, run: &Run) -> bool {
        match self {
            Self::Nothing => false,
            Self::Run(id) => run.id() == id,
            Self::FlowRuns => run.is_flow(),
            Self::TaskRuns(flow_run) => !run.is_flow() && (flow_run.is_none() || run.flow_run() == flow_run),
            Self::AllRuns => true,
        }
    }
}

/// So many times the runs are gone through if some of them became roots meanwhile. A run that was there from the
/// beginning is missed once only for each that was detached of itself and of those around it.
const ROUNDS: usize = 8;

impl Inner {
    /// An active run of this process.
    pub(crate) fn active_run(&self, id: RunId) -> Option<Arc<Run>> {
        let mut found = None;
        self.each_active(&mut |run| {
            if run.id() != id {
                return ControlFlow::Continue(());
            }
            found = Some(Arc::clone(run));
            ControlFlow::Break(())
        });
        found
    }

    /// Lets the active runs that the question is about tell the journal what it has not been given. May store events in
    /// place, and so take its time.
    pub(crate) fn tell_of(&self, about: About) {
        if matches!(about, About::Nothing) {
            return;
        }
        self.each_active(&mut |run| {
            if !about.is(run) {
                return ControlFlow::Continue(());
            }
            run.flush();
            // Not all of them are to stand in the queue at once.
            if !self.journal.has_room() {
                self.journal.commit();
            }
            if matches!(about, About::Run(_)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Shows all runs that are active, some perhaps twice, until one is the last that is wanted. No lock is held
    /// meanwhile.
    fn each_active(&self, look: &mut dyn FnMut(&Arc<Run>) -> ControlFlow<()>) {
        for _ in 0..ROUNDS {
            let before = self.roots.handed_over.load(Ordering::SeqCst);
            let mut parents = Vec::new();
            let mut shown = self.roots.each(&mut |run| look_at(run, look, &mut parents));
            while let (ControlFlow::Continue(()), Some(parent)) = (shown, parents.pop()) {
                shown = parent.children().each(&mut |run| look_at(run, look, &mut parents));
                panics::let_go(parent);
            }
            panics::let_go(parents);
            if shown.is_break() || self.roots.handed_over.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }
}

/// Shows the active task runs that belong to a flow run, and not to one that it called. No lock is held meanwhile.
pub(crate) fn each_task_of(flow: &Arc<Run>, look: &mut dyn FnMut(&Arc<Run>)) {
    each_of(flow, &mut |run| {
        if !run.is_flow() {
            look(run);
        }
    });
}

/// Shows the active flow runs that a flow run, or a task run of it, called. No lock is held meanwhile.
pub(crate) fn each_flow_of(flow: &Arc<Run>, look: &mut dyn FnMut(&Arc<Run>)) {
    each_of(flow, &mut |run| {
        if run.is_flow() {
            look(run);
        }
    });
}

/// Shows the active runs that belong to a flow run: its task runs, and the flow runs that these and it called.
fn each_of(flow: &Arc<Run>, look: &mut dyn FnMut(&Arc<Run>)) {
    let mut parents = Vec::new();
    if flow.has_children() {
        parents.push(Arc::clone(flow));
    }
    while let Some(parent) = parents.pop() {
        let _ = parent.children().each(&mut |run| {
            if run.visible && !run.is_detached() {
                look(&run);
            }
            let is_left_out = run.is_detached() || (run.is_flow() && run.visible);
            if !is_left_out && run.has_children() {
                parents.push(run);
            } else {
                // This may be the last of its result.
                panics::let_go(run);
            }
            ControlFlow::Continue(())
        });
        panics::let_go(parent);
    }
}

/// Looks at a run, and keeps it if it has children to be looked at.
fn look_at(
    run: Arc<Run>,
    look: &mut dyn FnMut(&Arc<Run>) -> ControlFlow<()>,
    parents: &mut Vec<Arc<Run>>,
) -> ControlFlow<()> {
    let shown = look(&run);
    if run.has_children() {
        parents.push(run);
    } else {
        // This may be the last of its result.
        panics::let_go(run);
    }
    shown
}
