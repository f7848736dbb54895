//! What an orchestrator is in the store that it shares with others.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::record::Process;
use crate::backend::{BackendError, BackendErrorKind, OwnerNo, StateBackend};

/// How long an orchestrator that could not be entered counts as one that may be at any moment: as long as the opening of a
/// store is tried.
const ENTERING: Duration = Duration::from_secs(60);

/// Whether an orchestrator is in its store; shared by its keeper and its journal.
#[derive(Debug)]
pub(crate) struct Membership {
    backend: Arc<dyn StateBackend>,
    process: &'static Process,
    owner: OnceLock<OwnerNo>,
    since: Instant,
    /// Why it could not be entered the last time that it was tried.
    refused: Mutex<Option<(BackendErrorKind, String)>>,
    /// Why the store takes nothing any more of what the orchestrator writes.
    fenced: OnceLock<Arc<str>>,
    /// Whether the keeper is to end.
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Membership {
    pub(super) fn new(backend: Arc<dyn StateBackend>, process: &'static Process) -> Self {
        Self {
            backend,
            process,
            owner: OnceLock::new(),
            since: Instant::now(),
            refused: Mutex::default(),
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

    pub(super) fn joined(&self, owner: Result<OwnerNo, BackendError>) -> Result<(), BackendError> {
        match owner {
            Ok(owner) => {
                let _ = self.owner.set(owner);
                Ok(())
            }
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((error.kind(), why));
                Err(error)
            }
        }
    }

    /// Why nothing is shared with others as long as the orchestrator could not be entered.
    pub(crate) fn not_entered(&self) -> BackendError {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, why) = refused.clone().unwrap_or((BackendErrorKind::Other, "it only looks".to_owned()));
        let doing = format!("share limits in {}, which could not be told of this process", self.backend.location());
        BackendError::new(kind, doing).because(why)
    }

    /// Whether it may be entered at any moment, though it was not yet.
    pub(crate) fn is_entering(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        self.owner().is_none() && refused.as_ref().is_some_and(|(kind, _)| may_be_entered(*kind, self.since.elapsed()))
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
        let owner = || self.backend.shared()?.owner(self.owner()?).ok()?;
        let why = owner()
            .and_then(|owner| owner.why)
            .unwrap_or_else(|| "it was suspended for longer than its lease".to_owned());
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

/// Whether it is worth waiting for an orchestrator to be entered, which has been in vain for that long: for somebody who
/// holds the store always, as the journal does, and for room on the disk, or whatever else may pass, as long as for a store that is
/// opened.
fn may_be_entered(kind: BackendErrorKind, tried: Duration) -> bool {
    kind == BackendErrorKind::Busy || (BackendError::new(kind, "").is_transient() && tried < ENTERING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_longer_than_room() {
        let (minute, moment) = (Duration::from_secs(60), Duration::from_secs(59));
        let table = [
            (BackendErrorKind::Busy, moment, true),
            (BackendErrorKind::Busy, minute * 60, true),
            (BackendErrorKind::Full, moment, true),
            (BackendErrorKind::Full, minute, false),
            (BackendErrorKind::Other, minute, false),
            (BackendErrorKind::Unavailable, Duration::ZERO, false),
        ];
        for (kind, tried, waits) in table {
            assert_eq!(may_be_entered(kind, tried), waits, "{kind:?} after {tried:?}");
        }
    }
}
