//! Who waits for a run, and what it waits for itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::{Cell, LAUNCHED, Run, SIGNAL, Waiter, lock};
use crate::cache::Elsewhere;
use crate::engine::OwnedCall;
use crate::engine::launcher;
use crate::state::Transition;

impl Cell {
    fn waits(&self) -> Waits {
        self.rare.as_ref().and_then(|rare| rare.waits.clone()).unwrap_or(Waits::Nothing)
    }
}

impl Run {
    /// Tells `waiter` when the run ends; gives it back if it has ended already.
    pub(crate) fn add_waiter(&self, waiter: Waiter) -> Result<usize, Waiter> {
        let mut cell = lock(&self.cell);
        cell.waiters.insert(waiter)
    }

    /// Replaces the waker of a future that was polled again; `None` if the run has ended.
    pub(crate) fn update_waker(&self, place: usize, waker: &Waker) -> Option<()> {
        {
            let mut cell = lock(&self.cell);
            if cell.waiters.are_told() {
                return None;
            }
            if matches!(cell.waiters.get_mut(place), Some(Waiter::Task(old)) if old.will_wake(waker)) {
                return Some(());
            }
        }
        // Wakers are code of others: they are cloned and dropped outside of the lock.
        let new = Waiter::Task(waker.clone());
        let old = {
            let mut cell = lock(&self.cell);
            if cell.waiters.are_told() {
                return None;
            }
            cell.waiters.get_mut(place).map(|old| std::mem::replace(old, new))
        };
        drop(old);
        Some(())
    }

    /// Forgets a waiter whose future was dropped.
    pub(crate) fn remove_waiter(&self, place: usize) {
        let mut cell = lock(&self.cell);
        let waiter = cell.waiters.remove(place);
        drop(cell);
        // The waiter's destructor may run code of others, so it runs outside of the lock.
        drop(waiter);
    }

    /// Makes `self` wait for `upstream`; says whether there is anything to wait for.
    pub(crate) fn wait_for(self: &Arc<Self>, upstream: &Self) -> bool {
        if upstream.has_ended() {
            return false;
        }
        self.waiting_for.fetch_add(1, Ordering::AcqRel);
        upstream.taken.store(true, Ordering::Release);
        match upstream.add_waiter(Waiter::Dependant(Arc::clone(self))) {
            Ok(_) => true,
            Err(_) => {
                self.waiting_for.fetch_sub(1, Ordering::AcqRel);
                false
            }
        }
    }

    /// Whether runs may be waiting for this one's result.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// The runs that cannot start before this one has ended.
    pub(crate) fn dependants(&self) -> Vec<Arc<Self>> {
        if !self.is_taken() {
            return Vec::new();
        }
        let cell = lock(&self.cell);
        let waiting = cell.waiters.iter().filter_map(|waiter| match waiter {
            Waiter::Dependant(run) if !run.is_launched() => Some(Arc::clone(run)),
            Waiter::Dependant(_) | Waiter::Task(_) | Waiter::Group(..) | Waiter::Tolerant(_) => None,
        });
        waiting.collect()
    }

    /// One upstream run fewer to wait for; says whether it was the last.
    pub(crate) fn upstream_ended(&self) -> bool {
        self.waiting_for.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Prepares to wait for further upstream runs after the first have ended.
    pub(crate) fn rearm(&self) {
        self.waiting_for.store(1, Ordering::Release);
    }

    /// Whether whoever asks is to start the run: one is, once.
    pub(crate) fn launch(&self) -> bool {
        !self.raise(LAUNCHED)
    }

    /// Sees to it that nobody starts the run, for whoever made it and is to end it; `false` if somebody has.
    pub(crate) fn takes_back(&self) -> bool {
        let begins_launched = !self.has_upstream && !self.is_resumed();
        begins_launched || self.launch()
    }

    /// The body and its arguments, for whoever has launched the run.
    pub(crate) fn take_call(&self) -> OwnedCall {
        lock(&self.cell).call.take().expect("whoever takes it polls the run, or puts it back")
    }

    pub(crate) fn put_call(&self, call: OwnedCall) {
        lock(&self.cell).call = Some(call);
    }

    /// Whether there are further upstream runs, now that those have ended that were known: a `map` was expanded meanwhile.
    pub(crate) fn has_further_upstreams(&self) -> bool {
        let mut any = false;
        if self.awaits_expansion
            && let Some(call) = &lock(&self.cell).call
        {
            call.visit(&mut |upstream| any |= !upstream.has_ended());
        }
        any
    }

    pub(crate) fn is_launched(&self) -> bool {
        self.flag(LAUNCHED)
    }

    /// Lets somebody else launch the run, when further upstream runs turned up.
    pub(crate) fn unlaunch(&self) {
        self.flags.fetch_and(!LAUNCHED, Ordering::AcqRel);
    }

    /// The upstream runs that a run which is not launched waits for.
    pub(crate) fn active_upstreams(&self) -> Vec<Arc<Self>> {
        let mut upstreams = Vec::new();
        if !self.is_launched()
            && let Some(call) = &lock(&self.cell).call
        {
            call.visit(&mut |upstream| upstreams.push(Arc::clone(upstream)));
        }
        upstreams.retain(|upstream| !upstream.has_ended());
        upstreams
    }

    pub(crate) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    pub(super) fn signal(&self) {
        self.raise(SIGNAL);
        if let Some(waker) = self.driver.take() {
            launcher::wake(waker);
        }
    }

    /// Whether a cancellation, or the end of the last child, came since this was last asked.
    pub(crate) fn take_signal(&self) -> bool {
        self.flags.fetch_and(!SIGNAL, Ordering::AcqRel) & SIGNAL != 0
    }

    /// Notes what the driver waits for, until the value is dropped.
    pub(crate) fn waits_for(&self, waits: Waits) -> Noted<'_> {
        let before = lock(&self.cell).rare.get_or_insert_default().waits.replace(waits);
        drop(before);
        Noted(self)
    }

    /// The state that the run is in, and what the driver waits for.
    pub(crate) fn stands(&self) -> (Transition, Waits) {
        let cell = lock(&self.cell);
        (cell.track.current(), cell.waits())
    }

    /// What the driver waits for.
    pub(crate) fn waits(&self) -> Waits {
        lock(&self.cell).waits()
    }
}

/// What a run's driver waits for, where its state does not tell.
#[derive(Debug, Clone)]
pub(crate) enum Waits {
    Nothing,
    /// The end of a pause of the flow run that called it.
    Pause,
    /// Its turn among the tasks of its flow.
    FlowCapacity,
    /// A thread of the blocking pool.
    Thread,
    /// Room in the journal.
    Journal,
    /// The run that computes the same cache key.
    Flight(Weak<Run>),
    /// The run of another process that does.
    Elsewhere(Arc<Elsewhere>),
    /// The runs that it started; its body has ended.
    Children,
}

/// A note of what a driver waits for; dropping it takes it off.
#[must_use = "the note is taken off when this is dropped"]
pub(crate) struct Noted<'a>(&'a Run);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let before = lock(&self.0.cell).rare.as_mut().and_then(|rare| rare.waits.take());
        drop(before);
    }
}
