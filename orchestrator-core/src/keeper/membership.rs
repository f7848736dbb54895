//! What an orchestrator is in the store that it shares with others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::backend::OwnerNo;
use crate::backend::record::Process;

/// Whether an orchestrator is in its store; shared by its keeper and its journal.
#[derive(Debug)]
pub(crate) struct Membership {
    process: &'static Process,
    owner: OnceLock<OwnerNo>,
    fenced: AtomicBool,
    /// Whether the keeper is to end.
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Membership {
    pub(super) const fn new(process: &'static Process) -> Self {
        Self {
            process,
            owner: OnceLock::new(),
            fenced: AtomicBool::new(false),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    pub(crate) const fn process(&self) -> &'static Process {
        self.process
    }

    /// The orchestrator's number; `None` as long as it could not be entered.
    pub(crate) fn owner(&self) -> Option<OwnerNo> {
        self.owner.get().copied()
    }

    pub(super) fn joined(&self, owner: OwnerNo) {
        let _ = self.owner.set(owner);
    }

    /// The store takes nothing any more of what the orchestrator writes.
    pub(crate) fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Lets the keeper end.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits for that long, or until there is something to do; says whether the keeper is to go on.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return false;
        }
        !*self.wake.wait_timeout(stopped, time).unwrap_or_else(PoisonError::into_inner).0
    }
}
