//! Waiting for many runs with one wake-up.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use super::{TaskFuture, cycle};
use crate::engine::launcher;
use crate::error::TaskError;
use crate::run::{Group, Waiter};
use crate::sync::{AtomicUsize, AtomicWaker, Mutex};

/// One who waits at several runs; dropping it leaves their lists.
pub(super) struct Members<T, G> {
    runs: Arc<Vec<TaskFuture<T>>>,
    group: Arc<G>,
    /// Where it stands in the list of each run.
    places: Vec<u32>,
}

/// In the list of no run: the run had ended.
const NOWHERE: u32 = u32::MAX;

impl<T, G: Group + 'static> Members<T, G> {
    /// Waits at each of the runs; an error if one of them waits for whoever waits here.
    pub(super) fn of(runs: Arc<Vec<TaskFuture<T>>>, group: G) -> Result<Self, TaskError> {
        let mut members = Self { places: Vec::with_capacity(runs.len()), group: Arc::new(group), runs };
        for (index, member) in members.runs.iter().enumerate() {
            let run = member.as_run();
            if !run.has_ended()
                && let Some(error) = cycle::closed_by(run)
            {
                return Err(error);
            }
            let group: Arc<dyn Group> = Arc::clone(&members.group) as Arc<dyn Group>;
            let place = match run
                .add_waiter(Waiter::Group(group, u32::try_from(index).expect("there are fewer than four billion runs")))
            {
                Ok(place) => u32::try_from(place).expect("a run has fewer than four billion waiters"),
                Err(_) => {
                    members.group.ended(index, run.outcome().is_some_and(Result::is_ok));
                    NOWHERE
                }
            };
            members.places.push(place);
        }
        Ok(members)
    }

    pub(super) fn runs(&self) -> &[TaskFuture<T>] {
        &self.runs
    }

    pub(super) fn group(&self) -> &G {
        &self.group
    }

    /// Says that every run has ended: there is nothing to leave.
    pub(super) fn all_ended(&mut self) {
        self.places.clear();
    }
}

impl<T, G> Drop for Members<T, G> {
    fn drop(&mut self) {
        for (member, place) in self.runs.iter().zip(&self.places) {
            if *place != NOWHERE && !member.as_run().has_ended() {
                member.as_run().remove_waiter(*place as usize);
            }
        }
    }
}

fn wake(waker: &AtomicWaker) {
    if let Some(waker) = waker.take() {
        launcher::wake(waker);
    }
}

/// Ready at the first failure, or when all have ended.
pub(super) struct Join {
    remaining: AtomicUsize,
    failed: AtomicUsize,
    waker: AtomicWaker,
}

impl Join {
    pub(super) const fn over(members: usize) -> Self {
        Self { remaining: AtomicUsize::new(members), failed: AtomicUsize::new(usize::MAX), waker: AtomicWaker::new() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.remaining.load(Ordering::Acquire) == 0
    }

    /// Ready with the place of the first failure, or without when all have ended.
    pub(super) fn poll(&self, cx: &mut Context<'_>, stop_at_failure: bool) -> Poll<Option<usize>> {
        self.waker.register(cx.waker());
        let ended = self.is_over();
        match self.failed.load(Ordering::Acquire) {
            usize::MAX if ended => Poll::Ready(None),
            place if place != usize::MAX && (ended || stop_at_failure) => Poll::Ready(Some(place)),
            _ => Poll::Pending,
        }
    }
}

impl Group for Join {
    fn ended(&self, index: usize, completed: bool) {
        if !completed {
            let _ = self.failed.compare_exchange(usize::MAX, index, Ordering::AcqRel, Ordering::Acquire);
        }
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 || !completed {
            wake(&self.waker);
        }
    }
}

/// The places of runs in the order in which they end.
#[derive(Default)]
pub(super) struct Queue {
    /// Those that were not given out yet.
    ended: Mutex<VecDeque<usize>>,
    waker: AtomicWaker,
}

impl Queue {
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.waker.register(cx.waker());
        let next = self.ended.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Group for Queue {
    fn ended(&self, index: usize, _completed: bool) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push_back(index);
        wake(&self.waker);
    }
}
