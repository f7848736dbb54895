//! The table where processes share the limits: it keeps the order of this process, and asks the store for those whose
//! turn it is. The store has the say who is served.
//!
//! Of a long queue only the first ones are asked for. The others stand here, so that what a queue costs the other
//! processes does not grow with its length.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

use super::super::table::{Entry, Grant, Outside, Place, Request, Table};
use super::{Stage, shut_down};
use crate::backend::{SlotClass, SlotNews, SlotRequest};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::run::Run;

/// At most so many slots of a limit are asked for at a time, however many it has.
const AT_MOST: u32 = 256;

/// What is said of a request to the store: which runs hold slots and end only after it.
pub(super) fn above(run: Option<&Arc<Run>>) -> Vec<crate::id::RunId> {
    let lineage = run.into_iter().flat_map(|run| run.lineage());
    lineage.filter(|run| run.holds_slots()).map(|run| run.id()).collect()
}

const fn lane(class: SlotClass) -> usize {
    match class {
        SlotClass::First | SlotClass::Nested => 0,
        SlotClass::Ordinary => 1,
    }
}

impl Entry {
    /// Whether so many more slots may be asked for in the store.
    fn has_room(&self, class: SlotClass, slots: u32) -> bool {
        let asked = self.asked[lane(class)];
        !self.setting.active || asked == 0 || asked.saturating_add(slots) <= self.setting.slots.min(AT_MOST)
    }

    /// A request has another place from now on.
    pub(in super::super) fn moved(&mut self, request: &Request, slots: u32, to: Place) {
        if request.stage.is_asked() {
            self.asked[lane(request.place.0)] -= slots;
            self.asked[lane(to.0)] += slots;
        } else if self.queue.remove(&request.place) {
            self.queue.insert(to);
        }
    }
}

impl Table {
    /// Asks the store for those whose turn it is in this process.
    pub(in super::super) fn admit(&mut self) {
        let Some(desk) = self.desk.clone() else { return };
        let mut heads: BTreeSet<Place> = BTreeSet::new();
        for entry in self.limits.iter() {
            // Nobody beneath a holder waits for those who are not.
            let ordinary = entry.queue.range((SlotClass::Ordinary, 0)..).next();
            heads.extend(entry.queue.first().into_iter().chain(ordinary));
            if !entry.setting.active {
                heads.extend(&entry.queue);
            }
        }
        while let Some(place) = heads.pop_first() {
            let request = &self.requests[&place.1];
            let turn = request.wants.iter().all(|&(limit, slots)| {
                let entry = &self.limits[limit];
                let mut before = entry.queue.range((SlotClass::First, 0)..place);
                let first = before.next_back().is_none_or(|before| lane(before.0) != lane(place.0));
                (first || !entry.setting.active) && entry.has_room(place.0, slots)
            });
            if !turn {
                continue;
            }
            let request = self.requests.get_mut(&place.1).expect("it was there");
            let accepted = desk.ask(SlotRequest {
                ticket: place.1,
                class: place.0,
                since: request.since,
                run: request.run.as_ref().map(|run| (run.id(), run.name())),
                above: above(request.run.as_ref()),
                wants: request
                    .wants
                    .iter()
                    .map(|&(limit, slots)| (Arc::from(&*self.limits[limit].name), slots))
                    .collect(),
            });
            if !accepted {
                request.stage = Stage::Failed(shut_down());
                continue;
            }
            request.stage = Stage::Asked;
            for &(limit, slots) in &request.wants {
                let entry = &mut self.limits[limit];
                entry.queue.remove(&place);
                entry.asked[lane(place.0)] += slots;
                heads.extend(entry.queue.range(place..).next());
            }
        }
    }

    /// Takes a request that is over out of what was asked for.
    fn answered(&mut self, ticket: u64, stage: Stage) -> Outside {
        let Some(request) = self.requests.get_mut(&ticket) else { return Outside::default() };
        if request.stage.is_asked() {
            for &(limit, slots) in &request.wants {
                self.limits[limit].asked[lane(request.place.0)] -= slots;
            }
        }
        request.stage = stage;
        let wake = request.waker.take().into_iter().collect();
        Outside { wake, ..Outside::default() }
    }

    /// The store has given the slots of these requests.
    pub(super) fn granted(&mut self, tickets: &[u64]) -> Outside {
        let mut outside = Outside::default();
        for ticket in tickets {
            outside.wake.extend(self.answered(*ticket, Stage::Granted).wake);
        }
        self.admit();
        outside
    }

    /// The store cannot give these requests anything.
    pub(super) fn failed(&mut self, tickets: &[u64], error: &Error) -> Outside {
        let mut outside = Outside::default();
        for ticket in tickets {
            outside.wake.extend(self.answered(*ticket, Stage::Failed(error.clone())).wake);
        }
        outside
    }

    /// Nobody asks the store any more.
    pub(super) fn all_failed(&mut self, error: &Error) -> Outside {
        let all: Vec<u64> = self.requests.keys().copied().collect();
        self.failed(&all, error)
    }

    /// The store has these requests in its queues, and they have to wait.
    pub(super) fn told(&mut self, tickets: &[u64]) -> Outside {
        let mut outside = Outside::default();
        for ticket in tickets {
            let Some(request) = self.requests.get_mut(ticket) else { continue };
            if matches!(request.stage, Stage::Asked) {
                request.stage = Stage::Told;
                outside.wake.extend(request.waker.take());
            }
        }
        outside
    }

    /// Makes the limits here those of the store.
    pub(super) fn mirror(&mut self, news: &SlotNews, now: Timestamp) -> Outside {
        let mut outside = Outside::default();
        for (name, setting, taken) in &news.limits {
            if self.setting(name) != Some(*setting) {
                outside.wake.extend(self.set(name, *setting, now).wake);
            }
            if let (Some(taken), Some(limit)) = (taken, self.limits.number(name)) {
                self.limits[limit].seen = *taken;
            }
        }
        let known = |name: &str| news.limits.binary_search_by(|(other, ..)| (**other).cmp(name)).is_ok();
        let removed: Vec<SmolStr> = self.names().filter(|name| !known(name)).cloned().collect();
        for name in removed {
            outside.wake.extend(self.remove(&name).wake);
        }
        outside
    }

    /// How many requests have not been asked for yet, by limit.
    pub(super) fn backlog(&self) -> impl Iterator<Item = (&SmolStr, usize)> {
        self.limits.iter().map(|entry| (&entry.name, entry.queue.len()))
    }

    /// Whether a request has to wait; `None` if the store has not answered yet. Those for whom there is no room to ask
    /// wait for those before them.
    pub(in super::super) fn must_wait(&self, ticket: u64) -> Option<bool> {
        match self.requests.get(&ticket).map(|request| &request.stage) {
            Some(Stage::Asked) => None,
            Some(Stage::Queued | Stage::Told) => Some(true),
            Some(Stage::Granted | Stage::Failed(_)) | None => Some(false),
        }
    }

    /// Takes what the store has given.
    pub(in super::super) fn take_granted(&mut self, ticket: u64, now: Timestamp) -> (Grant, Outside) {
        let request = self.requests.remove(&ticket).expect("it was found");
        if let Some(run) = &request.run {
            self.beneath.remove(run);
        }
        let (parts, outside) = self.take(&request.wants, request.run.as_ref(), now);
        (Grant::Slots(parts), Outside { gone: Some(request), ..outside })
    }

    /// A request was given up that may have been asked for.
    pub(in super::super) fn left(&mut self, request: Box<Request>) -> Outside {
        let asked = request.stage.is_asked();
        for &(limit, slots) in &request.wants {
            let entry = &mut self.limits[limit];
            entry.queue.remove(&request.place);
            if asked {
                entry.asked[lane(request.place.0)] -= slots;
            }
        }
        if !matches!(request.stage, Stage::Queued)
            && let Some(desk) = &self.desk
        {
            desk.give_up(request.place.1);
        }
        self.admit();
        Outside { gone: Some(request), ..Outside::default() }
    }

    /// Lets a request pass those who wait before it: the order alone would keep it waiting for ever.
    pub(in super::super) fn let_pass(&mut self, ticket: u64) -> Outside {
        let Some(request) = self.requests.get_mut(&ticket) else { return Outside::default() };
        let place = (SlotClass::First, ticket);
        if request.place == place {
            return Outside::default();
        }
        for &(limit, slots) in &request.wants {
            self.limits[limit].moved(request, slots, place);
        }
        request.place = place;
        if let (Some(desk), true) = (&self.desk, request.stage.is_asked()) {
            desk.moved(ticket, place.0, request.run.as_ref());
        }
        self.admit();
        Outside::default()
    }
}
