//! Who asks a run to end, and what comes of that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{ABANDONED, CANCEL, DISCARDED, Run, STOP};
use crate::engine::unyielding;

/// Who asked a run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Stop {
    /// A call of `cancel`.
    Request,
    CtrlC,
    Terminated,
    ShutDown,
    /// The attempt that started it overran its timeout.
    TimedOut,
    /// What started it went away.
    Crashed,
    /// The transaction that it is part of did not complete.
    RolledBack,
    /// The orchestrator is shut down, and the run, which went on by itself, is to go on another time.
    Interrupted,
}

impl Stop {
    const ALL: [Self; 8] = [
        Self::Request,
        Self::CtrlC,
        Self::Terminated,
        Self::ShutDown,
        Self::TimedOut,
        Self::Crashed,
        Self::RolledBack,
        Self::Interrupted,
    ];
}

impl Run {
    /// Asks the run, and every run it started, to end.
    pub(crate) fn cancel(self: &Arc<Self>, by: Stop) {
        self.disown();
        self.cancel_tree(by);
        unyielding::look_after(self);
    }

    pub(crate) fn cancel_tree(self: &Arc<Self>, by: Stop) {
        let mut reached = vec![Arc::clone(self)];
        while let Some(run) = reached.pop() {
            if run.has_ended() || run.stop(by) {
                continue;
            }
            run.signal();
            reached.extend(run.active_children());
            crate::submit::launch(&run);
        }
        if let Some(launcher) = &self.scope().launcher {
            launcher.stir();
        }
    }

    /// Asks every run that this one started to end.
    pub(crate) fn cancel_children(&self, by: Stop) {
        self.active_children().iter().for_each(|child| child.cancel_tree(by));
    }

    /// Makes the run's failure nobody's concern.
    pub(crate) fn disown(&self) {
        self.raise(DISCARDED);
    }

    /// Marks the run as one that is to end; says whether it was marked before.
    fn stop(&self, by: Stop) -> bool {
        let mark = CANCEL | ((by as u16) << STOP);
        let marked = self
            .flags
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| (flags & CANCEL == 0).then_some(flags | mark));
        marked.is_err()
    }

    /// Who asked the run to end, if anybody did.
    pub(crate) fn stopped_by(&self) -> Option<Stop> {
        let flags = self.flags.load(Ordering::Acquire);
        (flags & CANCEL != 0).then(|| Stop::ALL[usize::from(flags >> STOP & 7)])
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flag(CANCEL)
    }

    /// Whether the run was cancelled by name, so that its end is no surprise to anybody.
    pub(crate) fn is_discarded(&self) -> bool {
        self.flag(DISCARDED)
    }

    /// Notes that the body did not stop, and that nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        self.raise(ABANDONED);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.flag(ABANDONED)
    }
}
