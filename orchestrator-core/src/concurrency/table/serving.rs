//! Who is given slots, and when; and what happens when they are given back.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::limits::{Asked, LimitNo, Part, Parts};
use super::{Outside, Table};
use crate::backend::SlotClass;
use crate::clock::Timestamp;
use crate::concurrency::deadlock::{self, Outlook};
use crate::concurrency::shared::Stage;
use crate::context;
use crate::error::{Error, ErrorKind};
use crate::run::Run;

pub(in crate::concurrency) enum Grant {
    Slots(Parts),
    /// Until somebody gives slots back.
    Wait,
    /// Until enough slots have come back by time.
    Until(Duration),
    /// The limit was changed so that the request cannot be served any more.
    Never(Error),
}

impl Table {
    /// Serves a request for one limit that concerns nobody else, and whose slots do not come back by time: the same as
    /// what follows, with one look and no exact moment.
    #[inline]
    pub(in crate::concurrency) fn take_alone(
        &mut self,
        name: &str,
        slots: u32,
        run: Option<&Arc<Run>>,
        holder: impl FnOnce() -> Option<Weak<Run>>,
        about: Timestamp,
    ) -> Option<Part> {
        let limit = self.limits.number_again(name)?;
        let entry = &mut self.limits[limit];
        let is_plain = !entry.removed && entry.setting.decay.is_none() && self.desk.is_none();
        let is_free = self.beneath.is_empty() && entry.queue.is_empty();
        if !(is_plain && is_free && entry.has_free(slots)) {
            return None;
        }
        if let Some(run) = run {
            run.count_slots(true);
        }
        Some(entry.take(limit, slots, holder(), about))
    }

    /// Serves a request that has to wait for nobody.
    pub(in crate::concurrency) fn take_at_once(
        &mut self,
        wants: &Asked,
        run: Option<&Arc<Run>>,
        class: SlotClass,
        now: Timestamp,
    ) -> Option<(Parts, Outside)> {
        let place = (class, self.last_ticket + 1);
        let at_once = wants.iter().all(|&(limit, slots)| {
            let entry = &mut self.limits[limit];
            !entry.is_before(place) && entry.free_in(slots, now) == Some(Duration::ZERO)
        });
        at_once.then(|| self.take(wants, run, now))
    }

    pub(in crate::concurrency) fn take(
        &mut self,
        wants: &Asked,
        run: Option<&Arc<Run>>,
        now: Timestamp,
    ) -> (Parts, Outside) {
        let promoted = run.filter(|run| !run.holds_slots()).map(|run| self.promote(run)).unwrap_or_default();
        let take = |&(limit, slots): &(LimitNo, u32)| {
            let entry = &mut self.limits[limit];
            // What comes back by time is held by nobody.
            let run = run.filter(|_| entry.setting.decay.is_none()).map(|run| {
                run.count_slots(true);
                Arc::downgrade(run)
            });
            entry.take(limit, slots, run, now)
        };
        (wants.iter().map(take).collect(), Outside { wake: promoted, ..Outside::default() })
    }

    /// Whether a run above this one, or its own body, holds slots of any limit.
    pub(in crate::concurrency) fn class(run: Option<&Arc<Run>>) -> SlotClass {
        let nested = run.is_some_and(|run| run.lineage().any(|ancestor| ancestor.holds_slots()));
        if nested { SlotClass::Nested } else { SlotClass::Ordinary }
    }

    /// Serves a request if its turn has come; gives back those whose turn has come after it.
    pub(in crate::concurrency) fn serve(&mut self, ticket: u64, now: Timestamp) -> (Grant, Outside) {
        let request = self.requests.get(&ticket).expect("a request that waits is in the table");
        match &request.stage {
            Stage::Granted => return self.take_granted(ticket, now),
            Stage::Failed(error) => return (Grant::Never(error.clone()), self.leave(ticket)),
            Stage::Queued | Stage::Asked | Stage::Told => {}
        }
        if let Err(said) = request.wants.iter().try_for_each(|&(limit, slots)| self.check_one(limit, slots)) {
            return (never(said), self.leave(ticket));
        }
        if self.desk.is_some() {
            return self.wait(ticket, now);
        }
        match self.free_for(ticket, &BTreeSet::new(), now) {
            Some(delay) => self.grant(ticket, delay, now),
            None => self.wait(ticket, now),
        }
    }

    /// How long until every slot that is asked for is free; `None`: others are first, or have to give some back.
    fn free_for(&mut self, ticket: u64, passing: &BTreeSet<u64>, now: Timestamp) -> Option<Duration> {
        let request = &self.requests[&ticket];
        request.wants.iter().try_fold(Duration::ZERO, |longest, &(limit, slots)| {
            let entry = &mut self.limits[limit];
            let passes = || entry.queue.range(..request.place).all(|(_, other)| passing.contains(other));
            if entry.is_before(request.place) && !passes() {
                return None;
            }
            entry.free_in(slots, now).map(|delay| delay.max(longest))
        })
    }

    fn grant(&mut self, ticket: u64, delay: Duration, now: Timestamp) -> (Grant, Outside) {
        if !delay.is_zero() {
            return (Grant::Until(delay), Outside::default());
        }
        let mut outside = self.leave(ticket);
        let request = outside.gone.as_ref().expect("it was in the table");
        let (parts, also) = self.take(&request.wants, request.run.as_ref(), now);
        outside.wake.extend(also.wake);
        (Grant::Slots(parts), outside)
    }

    /// Lets a request wait, unless what happened since it was made has closed a cycle.
    fn wait(&mut self, ticket: u64, now: Timestamp) -> (Grant, Outside) {
        if self.requests[&ticket].place.0 == SlotClass::Ordinary {
            return (Grant::Wait, Outside::default());
        }
        match deadlock::look(self, ticket) {
            Outlook::Open => (Grant::Wait, Outside::default()),
            Outlook::Never(said) => (never(said), self.leave(ticket)),
            Outlook::Knotted(_) if self.desk.is_some() => (Grant::Wait, self.let_pass(ticket)),
            Outlook::Knotted(knotted) => {
                // One of those behind may be the one that undoes the knot.
                let next = self.next_after(ticket);
                let (grant, mut outside) = match self.free_for(ticket, &knotted, now) {
                    Some(delay) => self.grant(ticket, delay, now),
                    None => (Grant::Wait, Outside::default()),
                };
                outside.wake.extend(next);
                (grant, outside)
            }
        }
    }

    /// Whether the knots that [`deadlock`] looks for are possible at all: somebody beneath a holder waits for slots that
    /// are held by somebody beneath whom others wait.
    pub(in crate::concurrency) fn may_be_stuck(&self) -> bool {
        self.limits.iter().any(|entry| {
            entry.setting.active
                && (entry.asked[0] > 0 || entry.queue.first().is_some_and(|first| first.0 != SlotClass::Ordinary))
                && entry
                    .lasting_holders()
                    .any(|holder| holder.run.as_ref().is_some_and(|run| self.beneath.any(run.as_ptr())))
        })
    }

    /// Gives slots back; whoever is first in the queue for them is to be woken.
    #[inline]
    pub(in crate::concurrency) fn release(&mut self, part: &Part) -> Option<Outside> {
        let entry = &mut self.limits[part.limit];
        let holder = entry.give_back(part);
        let run = holder.run.as_ref().and_then(|run| {
            let count = |run: &Arc<Run>| run.count_slots(false);
            // In the run's own body there is no need to keep the run for that.
            if context::if_run_is(run, count).is_some() {
                return None;
            }
            run.upgrade().inspect(count)
        });
        if run.is_none() && (entry.queue.is_empty() || self.desk.is_some()) {
            return None;
        }
        let first = entry.queue.first().filter(|_| self.desk.is_none());
        let waker = first.and_then(|(_, first)| self.requests.get_mut(first)?.waker.take());
        Some(Outside { wake: waker.into_iter().collect(), gone: None, runs: run.into_iter().collect() })
    }
}

fn never(said: String) -> Grant {
    Grant::Never(Error::new(ErrorKind::Limit(said)))
}
