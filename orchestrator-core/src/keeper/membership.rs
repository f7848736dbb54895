//! What an orchestrator is in the store that it shares with others.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::backend::record::Process;
use crate::backend::{BackendError, BackendErrorKind, OwnerNo, StateBackend};
use crate::engine::panics;

/// Whether an orchestrator is in its store; shared by its keeper and its journal.
#[derive(Debug)]
pub(crate) struct Membership {
    backend: Arc<dyn StateBackend>,
    process: &'static Process,
    owner: OnceLock<OwnerNo>,
    /// Why the store takes nothing any more of what the orchestrator writes.
    fenced: OnceLock<Arc<str>>,
    /// Whether the keeper is to end.
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Membership {
    pub(super) const fn new(backend: Arc<dyn StateBackend>, process: &'static Process) -> Self {
        Self {
            backend,
            process,
            owner: OnceLock::new(),
            fenced: OnceLock::new(),
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

    /// Notes what the store has said: it may take nothing any more of what the orchestrator writes. May block.
    pub(crate) fn heard<T>(&self, answer: &Result<T, BackendError>) {
        if answer.as_ref().is_err_and(|error| error.kind() == BackendErrorKind::Fenced) {
            self.fence();
        }
    }

    /// The store takes nothing any more of what the orchestrator writes. May block.
    pub(crate) fn fence(&self) {
        if self.fenced.get().is_some() {
            return;
        }
        let why = panics::shield(|| {
            let owner = self.backend.shared()?.owner(self.owner()?).ok()??;
            owner.why
        });
        let why = why.flatten().unwrap_or_else(|| "it was suspended for longer than its lease".to_owned());
        let said = format!("this process was found to be gone: {why}; what it did since is not recorded");
        let _ = self.fenced.set(said.into());
        // Whoever looked before holds the lock until it waits.
        drop(self.stopped.lock());
        self.wake.notify_all();
    }

    /// Why the store takes nothing any more of what the orchestrator writes, if that is so.
    pub(crate) fn fenced(&self) -> Option<&Arc<str>> {
        self.fenced.get()
    }

    /// Lets the keeper end.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits for that long, or until there is something to do; says whether the keeper is to go on.
    pub(super) fn sleep(&self, time: Duration, stopped_runs: bool) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return false;
        }
        if !stopped_runs && self.fenced().is_some() {
            return true;
        }
        !*self.wake.wait_timeout(stopped, time).unwrap_or_else(PoisonError::into_inner).0
    }
}
