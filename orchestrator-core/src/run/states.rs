//! The states of a run: how it enters them. The driver alone does that, but for Paused, and Running after it, which whoever
//! pauses and resumes writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cell, RENAMED, Run, lock};
use crate::backend::record::{CacheKey, CacheLook, CacheReason, Event, Times};
use crate::clock::Timestamp;
use crate::engine::machine::may_follow;
use crate::engine::panics;
use crate::error::TaskError;
use crate::id::TaskRunId;
use crate::state::{State, StateName, Transition};
use crate::sync::MutexGuard;

/// A state that was entered, to be shown to observers if any of them looks.
#[must_use = "observers are to see it"]
pub(crate) struct Entered {
    shown: Option<Transition>,
    began: Option<Timestamp>,
}

impl Cell {
    pub(super) fn looked(&self) -> Option<Arc<CacheLook>> {
        self.rare.as_ref()?.looked.clone()
    }

    /// Enters a state, later than the one before; gives back when.
    pub(super) fn enter(&mut self, transition: Transition) -> Timestamp {
        let at = self.next_moment(transition.name, transition.at);
        self.track.enter(Transition { at, ..transition });
        at
    }

    /// The same for a state that has nothing to say.
    #[inline]
    pub(super) fn enter_plain(&mut self, name: StateName, at: Timestamp) -> Timestamp {
        let at = self.next_moment(name, at);
        if !self.track.enter_plain(name, at) {
            self.track.enter(Transition::new(name, at));
        }
        at
    }

    /// When the state is entered, at that moment or as soon after the one before as can be told.
    fn next_moment(&self, name: StateName, at: Timestamp) -> Timestamp {
        let before = self.track.name();
        debug_assert!(may_follow(before, name), "no way leads from {before} to {name}");
        at.max(self.track.since().after(Duration::from_micros(1)))
    }
}

impl Run {
    pub(crate) fn state(&self) -> State {
        State::from(&lock(&self.cell).track.current())
    }

    pub(super) fn has_terminal_state(&self) -> bool {
        lock(&self.cell).track.name().kind().is_terminal()
    }

    pub(super) fn state_and_times(&self) -> (State, Times) {
        let cell = lock(&self.cell);
        let current = cell.track.current();
        let ended = current.name.kind().is_terminal().then_some(current.at);
        (State::from(&current), Times { created: self.id().created(), started: cell.track.started(), ended })
    }

    pub(crate) fn run_count(&self) -> u32 {
        self.run_count.load(Ordering::Acquire)
    }

    /// Enters a state that is not terminal.
    pub(crate) fn enter(&self, name: StateName, message: Option<Arc<str>>) {
        self.enter_at(name, message, self.scope().orchestrator.clock.now());
    }

    fn enter_at(&self, name: StateName, message: Option<Arc<str>>, at: Timestamp) {
        debug_assert!(!name.kind().is_terminal(), "terminal states are entered by `end`");
        self.record(name, message, at, None);
    }

    /// Enters AwaitingRetry, for so long.
    pub(crate) fn await_retry(&self, message: Arc<str>, delay: Duration) {
        let now = self.scope().orchestrator.clock.now();
        let (message, scheduled) = (Some(message), Some(now.after(delay)));
        let transition = Transition { message, scheduled, ..Transition::new(StateName::AwaitingRetry, now) };
        self.record_transition(transition, None);
    }

    /// Enters Cancelling, unless the run is there already.
    pub(crate) fn enter_cancelling(&self) {
        if lock(&self.cell).track.name() != StateName::Cancelling {
            self.enter(StateName::Cancelling, None);
        }
    }

    /// Counts an attempt and enters its state, now if no other moment is given.
    pub(crate) fn begin_attempt(&self, name: StateName, message: Option<Arc<str>>, at: Option<Timestamp>) {
        // Nobody but the driver counts.
        self.run_count.store(self.run_count.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.reopen();
        if name == StateName::Running && self.is_resumed() {
            self.show_resumed();
            return;
        }
        let at = at.unwrap_or_else(|| self.scope().orchestrator.clock.now());
        if message.is_none() && !self.is_watched(name) {
            lock(&self.cell).enter_plain(name, at);
        } else {
            self.enter_at(name, message, at);
        }
    }

    /// Tells of the state that a run which goes on was given when it was taken over.
    fn show_resumed(&self) {
        let running = {
            let track = &mut lock(&self.cell).track;
            track.start(track.since());
            track.current()
        };
        if self.is_watched(running.name) {
            self.show(&running, None, None);
        }
    }

    /// Enters a state that is not terminal, unless the run has left those in `from`. What comes back is to be told when
    /// the caller holds no lock any more.
    pub(crate) fn enter_from(
        &self,
        from: &[StateName],
        name: StateName,
        message: Option<Arc<str>>,
        at: Timestamp,
    ) -> Option<Entered> {
        let cell = lock(&self.cell);
        let transition = Transition { message, ..Transition::new(name, at) };
        from.contains(&cell.track.name()).then(|| self.set_state(cell, transition))
    }

    /// Tells of a state that was entered with [`enter_from`](Self::enter_from), and lets the driver hand it on.
    pub(crate) fn tell(&self, entered: Entered) {
        if let Some(transition) = entered.shown {
            self.show(&transition, entered.began, None);
        }
        self.signal();
    }

    pub(super) fn record(&self, name: StateName, message: Option<Arc<str>>, at: Timestamp, error: Option<&TaskError>) {
        self.record_transition(Transition { message, ..Transition::new(name, at) }, error);
    }

    fn record_transition(&self, transition: Transition, error: Option<&TaskError>) {
        let entered = self.set_state(lock(&self.cell), transition);
        if let Some(transition) = entered.shown {
            self.show(&transition, entered.began, error);
        }
    }

    fn set_state(&self, mut cell: MutexGuard<'_, Cell>, transition: Transition) -> Entered {
        let seen = self.is_watched(transition.name);
        cell.enter(transition);
        Entered { shown: seen.then(|| cell.track.current()), began: cell.track.started() }
    }

    /// Puts down what the run found in the cache.
    pub(crate) fn looked(&self, key: Option<CacheKey>, reason: CacheReason) {
        let before = lock(&self.cell).looked();
        let reason = match (reason, before) {
            // What was not there at the first look was computed while this run waited.
            (CacheReason::Found { run, created, expires }, Some(_)) => CacheReason::Awaited { run, created, expires },
            (reason, _) => reason,
        };
        let look = Arc::new(CacheLook::new(key, reason));
        panics::shield(|| crate::narrate::tell_look(self, &look));
        lock(&self.cell).rare.get_or_insert_default().looked = Some(look);
    }

    /// Whose result the run took, if its flow run had kept it.
    pub(crate) fn answered_by(&self) -> Option<TaskRunId> {
        let look = lock(&self.cell).looked()?;
        if let CacheReason::Persisted { run } = look.reason { Some(run) } else { None }
    }

    pub(crate) fn rename(&self, name: String) {
        let name: Arc<str> = name.into();
        if self.flag(RENAMED) {
            return;
        }
        lock(&self.cell).rare.get_or_insert_default().renamed = Some(Arc::clone(&name));
        if !self.raise(RENAMED) && self.visible {
            self.scope().orchestrator.journal.push(Event::Renamed { run: self.id(), name });
        }
    }
}
