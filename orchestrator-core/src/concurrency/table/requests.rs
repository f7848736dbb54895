//! Those who wait: their places in the queues, whom to wake, and beneath whom they were made.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::limits::{Asked, LimitNo};
use super::{Outside, Table};
use crate::backend::SlotClass;
use crate::clock::Timestamp;
use crate::concurrency::deadlock::{self, Outlook};
use crate::concurrency::shared::Stage;
use crate::run::Run;

pub(in crate::concurrency) struct Request {
    pub(in crate::concurrency) wants: Asked,
    pub(in crate::concurrency) run: Option<Arc<Run>>,
    pub(in crate::concurrency) place: Place,
    pub(in crate::concurrency) since: Timestamp,
    /// How far the store is with it.
    pub(in crate::concurrency) stage: Stage,
    /// Whom to tell that it is worth another look; taken out when that is done.
    pub(in crate::concurrency) waker: Option<Waker>,
}

/// So many requests are looked through at a time: others want the table in between.
const AT_A_TIME: usize = 1024;

/// A place in a queue; the least is served first.
pub(in crate::concurrency) type Place = (SlotClass, u64);

/// How many requests there are in the bodies of each run and beneath it, by the run's address. The requests keep these
/// runs alive.
#[derive(Default, Clone)]
pub(in crate::concurrency) struct Beneath(HashMap<usize, u32, RandomState>);

impl Beneath {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anybody is counted beneath the run at that address.
    pub(in crate::concurrency) fn any(&self, run: *const Run) -> bool {
        self.0.contains_key(&run.addr())
    }

    fn add(&mut self, run: &Arc<Run>) {
        for ancestor in run.lineage() {
            *self.0.entry(Arc::as_ptr(ancestor).addr()).or_insert(0) += 1;
        }
    }

    pub(in crate::concurrency) fn remove(&mut self, run: &Arc<Run>) {
        for ancestor in run.lineage() {
            let address = Arc::as_ptr(ancestor).addr();
            if let Some(count) = self.0.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&address);
                }
            }
        }
    }
}

impl Table {
    pub(in crate::concurrency) fn enqueue(
        &mut self,
        wants: Asked,
        run: Option<&Arc<Run>>,
        class: SlotClass,
        now: Timestamp,
    ) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let place = (class, ticket);
        for (limit, _) in &wants {
            self.limits[*limit].queue.insert(place);
        }
        if let Some(run) = run {
            self.beneath.add(run);
        }
        let run = run.map(Arc::clone);
        let request = Request { wants, run, place, since: now, stage: Stage::Queued, waker: None };
        self.requests.insert(ticket, Box::new(request));
        self.admit();
        ticket
    }

    /// Takes a request out of all queues; those who are first now are to be woken.
    pub(in crate::concurrency) fn leave(&mut self, ticket: u64) -> Outside {
        let Some(request) = self.requests.remove(&ticket) else { return Outside::default() };
        if let Some(run) = &request.run {
            self.beneath.remove(run);
        }
        if self.desk.is_some() {
            return self.left(request);
        }
        let mut wake = Vec::new();
        for (limit, _) in &request.wants {
            let queue = &mut self.limits[*limit].queue;
            // Whoever comes after one beneath a holder may be first without being the first of the queue.
            let may_be_first = request.place.0 == SlotClass::Nested || queue.first() == Some(&request.place);
            queue.remove(&request.place);
            if may_be_first {
                let next = queue.range(request.place..).next();
                wake.extend(next.and_then(|(_, next)| self.requests.get_mut(next)?.waker.take()));
            }
        }
        Outside { wake, gone: Some(request), runs: SmallVec::new() }
    }

    /// Those who come after a request in the queues that it is in.
    pub(super) fn next_after(&mut self, ticket: u64) -> Vec<Waker> {
        let request = &self.requests[&ticket];
        let after = (Bound::Excluded(request.place), Bound::Unbounded);
        let next = |(limit, _): &(LimitNo, u32)| self.limits[*limit].queue.range(after).next();
        let next: SmallVec<[u64; 2]> = request.wants.iter().filter_map(next).map(|(_, other)| *other).collect();
        next.into_iter().filter_map(|other| self.waker(other)).collect()
    }

    /// Says whom to wake when a request is worth another look; gives back whom it was before.
    pub(in crate::concurrency) fn watch(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        match self.requests.get_mut(&ticket) {
            Some(request) => request.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Whoever is to be woken for a request, unless that was done and nobody has looked since.
    pub(super) fn waker(&mut self, ticket: u64) -> Option<Waker> {
        self.requests.get_mut(&ticket)?.waker.take()
    }

    /// Looks whether a new request can be served at all; an error if not. It may complete a knot that others undo.
    pub(in crate::concurrency) fn look_at(&mut self, ticket: u64) -> (Result<(), String>, Outside) {
        if self.requests[&ticket].place.0 == SlotClass::Ordinary {
            return (Ok(()), Outside::default());
        }
        match deadlock::look(self, ticket) {
            Outlook::Open => (Ok(()), Outside::default()),
            Outlook::Never(said) => (Err(said), self.leave(ticket)),
            Outlook::Knotted(knotted) => {
                let wake = knotted.iter().filter_map(|other| self.waker(*other)).collect();
                (Ok(()), Outside { wake, ..Outside::default() })
            }
        }
    }

    /// Where a request stands, and since when.
    pub(in crate::concurrency) fn place(&self, ticket: u64) -> Option<(SlotClass, Timestamp)> {
        self.requests.get(&ticket).map(|request| (request.place.0, request.since))
    }

    /// Finds the requests that a run and its body have made, among the next few after that ticket; gives back after which
    /// one to go on, if there are more.
    pub(in crate::concurrency) fn requests_of(&self, run: &Arc<Run>, after: u64, found: &mut Vec<u64>) -> Option<u64> {
        let own = |request: &Request| request.run.as_ref().is_some_and(|other| Arc::ptr_eq(other, run));
        let mut last = None;
        for (ticket, request) in self.requests.range((Bound::Excluded(after), Bound::Unbounded)).take(AT_A_TIME) {
            if own(request) {
                found.push(*ticket);
            }
            last = Some(*ticket);
        }
        last
    }

    /// Counts anew who waits beneath whom, if anybody is counted beneath that run, from which others were moved away: of those
    /// who have left the queue meanwhile it may not know.
    pub(in crate::concurrency) fn recount(&mut self, above: &Run) {
        if !self.beneath.any(above) {
            return;
        }
        let mut beneath = Beneath::default();
        self.requests.values().filter_map(|request| request.run.as_ref()).for_each(|run| beneath.add(run));
        self.beneath = beneath;
    }

    /// Puts those who wait beneath a run, which held nothing so far, before those that keep nobody waiting.
    pub(super) fn promote(&mut self, run: &Arc<Run>) -> Vec<Waker> {
        if !self.beneath.any(Arc::as_ptr(run)) {
            return Vec::new();
        }
        let ordinary = self.requests.values_mut().filter(|request| request.place.0 == SlotClass::Ordinary);
        let beneath = |other: &Arc<Run>| other.is_part_of(run);
        let promoted = ordinary.filter(|request| request.run.as_ref().is_some_and(beneath)).filter_map(|request| {
            let place = (SlotClass::Nested, request.place.1);
            for (limit, slots) in &request.wants {
                self.limits[*limit].moved(request, *slots, place);
            }
            request.place = place;
            if let (Some(desk), true) = (&self.desk, request.stage.is_asked()) {
                desk.moved(place.1, place.0, request.run.as_ref());
            }
            request.waker.take()
        });
        let promoted = promoted.collect();
        self.admit();
        promoted
    }
}
