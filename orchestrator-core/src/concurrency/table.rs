//! Limits, holders and queues, changed under one lock that is held for a few lines. Nothing here waits or wakes: who is
//! to be woken is given back to the caller, who does it without the lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::{Limit, TICK, Wants, deadlock};
use crate::clock::Timestamp;
use crate::run::Run;

#[derive(Default)]
pub(super) struct Table {
    limits: HashMap<Arc<str>, Entry>,
    /// Everybody who waits, by ticket.
    pub(super) requests: BTreeMap<u64, Request>,
    next_ticket: u64,
}

struct Entry {
    slots: u32,
    decay: Option<f64>,
    /// Slots taken and not given back; of a limit with decay, those taken and not come back by `as_of`.
    taken: f64,
    as_of: Timestamp,
    holders: Slab<Holder>,
    queue: VecDeque<u64>,
}

/// The run is not kept alive: its result may hold the very guard that stands for this.
pub(super) struct Holder {
    pub(super) run: Option<Weak<Run>>,
    pub(super) slots: u32,
}

pub(super) struct Request {
    pub(super) wants: Wants,
    pub(super) run: Option<Arc<Run>>,
    /// Whether a run above this one holds slots.
    pub(super) nested: bool,
    waker: Option<Waker>,
}

/// The holders of the slots of one request: limit and place among its holders.
pub(super) type Parts = SmallVec<[(Arc<str>, usize); 2]>;
type Wakers = Vec<Waker>;

/// The longest time that is slept at once for a slot to come back.
const LONG: Duration = Duration::from_secs(86_400);

pub(super) enum Grant {
    Slots(Parts),
    /// Until somebody gives slots back.
    Wait,
    /// Until enough slots have come back by time.
    Until(Duration),
    /// The limit was changed so that the request cannot be served any more.
    Never(String),
}

impl Entry {
    fn settle(&mut self, now: Timestamp) {
        if let Some(rate) = self.decay {
            self.taken = (self.taken - now.since(self.as_of).as_secs_f64() * rate).max(0.0);
        }
        self.as_of = self.as_of.max(now);
    }

    /// How long until that many slots are free; `None`: as soon as somebody gives some back.
    fn free_in(&mut self, slots: u32, now: Timestamp) -> Option<Duration> {
        self.settle(now);
        // Less than a microsecond's worth of decay is rounding, not occupancy.
        let missing = self.taken + f64::from(slots) - f64::from(self.slots) - 1e-6;
        if missing <= 0.0 {
            return Some(Duration::ZERO);
        }
        self.decay
            .filter(|_| self.slots > 0)
            .map(|rate| Duration::try_from_secs_f64(missing / rate).unwrap_or(LONG).clamp(TICK, LONG))
    }

    fn take(&mut self, slots: u32, run: Option<&Arc<Run>>) -> usize {
        self.taken += f64::from(slots);
        // What comes back by time is held by nobody.
        let run = run.filter(|_| self.decay.is_none()).map(|run| {
            run.count_slots(true);
            Arc::downgrade(run)
        });
        self.holders.insert(Holder { run, slots })
    }
}

impl Table {
    pub(super) fn knows(&self, name: &str) -> bool {
        self.limits.contains_key(name)
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.limits.get_mut(name).expect("limits are never removed, and requests are checked first")
    }

    /// The holders of a limit, and how many slots it has.
    pub(super) fn holders(&self, name: &str) -> (u32, impl Iterator<Item = &Holder>) {
        let entry = &self.limits[name];
        let lasting = entry.decay.is_none();
        (entry.slots, entry.holders.iter().map(|(_, holder)| holder).filter(move |_| lasting))
    }

    pub(super) fn set(&mut self, name: &str, slots: u32, decay: Option<f64>, now: Timestamp) -> Wakers {
        let entry = self.limits.entry(name.into()).or_insert_with(|| Entry {
            slots,
            decay,
            taken: 0.0,
            as_of: now,
            holders: Slab::new(),
            queue: VecDeque::new(),
        });
        entry.settle(now);
        if entry.decay.is_some() != decay.is_some() {
            // What is held counts from now on by who holds it, or by time.
            entry.taken = entry.holders.iter().map(|(_, holder)| f64::from(holder.slots)).sum();
        }
        entry.slots = slots;
        entry.decay = decay;
        // Everybody looks again: a request may have become too large.
        let waiting: Vec<u64> = entry.queue.iter().copied().collect();
        waiting.into_iter().filter_map(|ticket| self.waker_of(ticket)).collect()
    }

    pub(super) fn check(&self, wants: &Wants) -> Result<(), String> {
        for (name, slots) in wants.iter() {
            let Some(entry) = self.limits.get(name) else {
                let mut known: Vec<_> = self.limits.keys().map(|name| format!("'{name}'")).collect();
                known.sort_unstable();
                let known = if known.is_empty() {
                    "there are none".to_owned()
                } else {
                    format!("known are {}", known.join(", "))
                };
                return Err(format!(
                    "there is no limit '{name}': {known}; create it with `orchestrator.limit(\"{name}\", slots)`"
                ));
            };
            // A limit of no slots is a closed door, and may be opened.
            if slots > entry.slots && entry.slots > 0 {
                return Err(format!("{slots} slots of limit '{name}' were asked for, which has {}", entry.slots));
            }
        }
        Ok(())
    }

    /// Whether a run above this one, or its own body, holds slots of any limit.
    pub(super) fn holds_above(run: &Arc<Run>) -> bool {
        run.lineage().any(|ancestor| ancestor.holds_slots())
    }

    /// Serves a request that has to wait for nobody.
    pub(super) fn take_at_once(
        &mut self,
        wants: &Wants,
        run: Option<&Arc<Run>>,
        nested: bool,
        now: Timestamp,
    ) -> Option<Parts> {
        let at_once = wants.iter().all(|(name, slots)| {
            let entry = self.limits.get_mut(name).expect("checked before");
            let first = match entry.queue.front() {
                None => true,
                Some(ticket) => nested && !self.requests[ticket].nested,
            };
            first && entry.free_in(slots, now) == Some(Duration::ZERO)
        });
        at_once
            .then(|| wants.iter().map(|(name, slots)| (Arc::clone(name), self.entry(name).take(slots, run))).collect())
    }

    pub(super) fn enqueue(&mut self, wants: Wants, run: Option<&Arc<Run>>, nested: bool) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        for (name, _) in wants.iter() {
            let requests = &self.requests;
            let entry = self.limits.get_mut(name).expect("checked before");
            let place = match nested {
                true => entry.queue.iter().position(|other| !requests[other].nested).unwrap_or(entry.queue.len()),
                false => entry.queue.len(),
            };
            entry.queue.insert(place, ticket);
        }
        self.requests.insert(ticket, Request { wants, run: run.map(Arc::clone), nested, waker: None });
        ticket
    }

    /// Whether a limit that a request asks for has no slots at all.
    pub(super) fn is_shut_out(&self, ticket: u64) -> bool {
        self.requests[&ticket].wants.iter().any(|(name, _)| self.limits[name].slots == 0)
    }

    /// What a request waits for, in a sentence.
    pub(super) fn reason(&self, ticket: u64) -> String {
        let request = &self.requests[&ticket];
        let parts: Vec<_> = request
            .wants
            .iter()
            .map(|(name, slots)| {
                let entry = &self.limits[name];
                let what = if slots == 1 { "a slot".to_owned() } else { format!("{slots} slots") };
                match entry.slots {
                    0 => format!("{what} of limit '{name}', which has none"),
                    _ => format!("{what} of limit '{name}' ({} of {} taken)", entry.taken.ceil(), entry.slots),
                }
            })
            .collect();
        format!("waits for {}", parts.join(" and "))
    }

    /// Serves a request if its turn has come; gives back those whose turn has come after it.
    pub(super) fn serve(&mut self, ticket: u64, waker: &Waker, now: Timestamp) -> (Grant, Wakers) {
        let request = self.requests.get_mut(&ticket).expect("a request that waits is in the table");
        if !request.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            request.waker = Some(waker.clone());
        }
        let wants = request.wants.clone();
        let run = request.run.clone();
        if let Err(said) = self.check(&wants) {
            return (Grant::Never(said), self.leave(ticket));
        }
        let mut longest = Duration::ZERO;
        for (name, slots) in wants.iter() {
            let entry = self.entry(name);
            if entry.queue.front() != Some(&ticket) {
                return self.wait(ticket);
            }
            match entry.free_in(slots, now) {
                Some(delay) => longest = longest.max(delay),
                None => return self.wait(ticket),
            }
        }
        if !longest.is_zero() {
            return (Grant::Until(longest), Vec::new());
        }
        let parts =
            wants.iter().map(|(name, slots)| (Arc::clone(name), self.entry(name).take(slots, run.as_ref()))).collect();
        (Grant::Slots(parts), self.leave(ticket))
    }

    /// Lets a request wait, unless what happened since it was made has closed a cycle.
    fn wait(&mut self, ticket: u64) -> (Grant, Wakers) {
        let nested = self.requests[&ticket].run.as_ref().is_some_and(Self::holds_above);
        match nested.then(|| deadlock::explain(self, ticket)).flatten() {
            Some(said) => (Grant::Never(said), self.leave(ticket)),
            None => (Grant::Wait, Vec::new()),
        }
    }

    /// Takes a request out of all queues; gives back those who are first now.
    pub(super) fn leave(&mut self, ticket: u64) -> Wakers {
        let Some(request) = self.requests.remove(&ticket) else { return Vec::new() };
        let mut first = Vec::new();
        for (name, _) in request.wants.iter() {
            let entry = self.entry(name);
            let was_first = entry.queue.front() == Some(&ticket);
            if was_first {
                entry.queue.pop_front();
                first.extend(entry.queue.front().copied());
            } else {
                entry.queue.retain(|other| *other != ticket);
            }
        }
        first.into_iter().filter_map(|ticket| self.waker_of(ticket)).collect()
    }

    /// Gives slots back; tells who is first in the queues for them.
    pub(super) fn release(&mut self, parts: &[(Arc<str>, usize)]) -> (Wakers, Vec<Holder>) {
        let mut first = Vec::new();
        let mut released = Vec::with_capacity(parts.len());
        for (name, place) in parts {
            let entry = self.entry(name);
            let holder = entry.holders.remove(*place);
            if entry.decay.is_none() {
                entry.taken = (entry.taken - f64::from(holder.slots)).max(0.0);
            }
            if let Some(run) = holder.run.as_ref().and_then(Weak::upgrade) {
                run.count_slots(false);
            }
            released.push(holder);
            first.extend(entry.queue.front().copied());
        }
        (first.into_iter().filter_map(|ticket| self.waker_of(ticket)).collect(), released)
    }

    fn waker_of(&self, ticket: u64) -> Option<Waker> {
        self.requests.get(&ticket)?.waker.clone()
    }

    pub(super) fn list(&mut self, now: Timestamp) -> Vec<Limit> {
        let mut all: Vec<_> = self
            .limits
            .iter_mut()
            .map(|(name, entry)| {
                entry.settle(now);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and a u32")]
                let taken = entry.taken.ceil() as u32;
                Limit {
                    name: name.to_string(),
                    slots: entry.slots,
                    taken,
                    waiting: entry.queue.len(),
                    slot_decay: entry.decay,
                }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}
