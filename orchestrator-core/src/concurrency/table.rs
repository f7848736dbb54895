//! Limits, holders and queues, changed under one lock that is held for a few lines. Nothing here waits, wakes or drops
//! what belongs to others: all that is given back as an [`Outside`], which the caller settles without the lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::deadlock::{self, Outlook};
use super::shared::{Desk, Stage};
use super::{Limit, TICK, Wants};
use crate::backend::{LimitSetting, SlotClass};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::run::Run;
use crate::sync::AtomicWaker;

#[derive(Default)]
pub(super) struct Table {
    pub(super) limits: HashMap<SmolStr, Entry, RandomState>,
    /// Everybody who waits, by ticket.
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) beneath: Beneath,
    next_ticket: u64,
    /// Where slots are asked for that processes share. What is here then mirrors the store, which has the say.
    pub(super) desk: Option<Arc<Desk>>,
}

pub(super) struct Entry {
    pub(super) setting: LimitSetting,
    /// Whether it was removed. Those who hold its slots, and those who wait and have not been told, are still here.
    removed: bool,
    /// How many slots have been asked for in the store and not been given yet, by class.
    pub(super) asked: [u32; 2],
    /// How many slots were taken in the store, as far as is known.
    pub(super) seen: u32,
    /// Slots taken and not given back; of a limit with decay, those taken and not come back by `as_of`.
    taken: f64,
    as_of: Timestamp,
    holders: Slab<Holder>,
    /// Of shared limits those only who have not been asked for in the store yet.
    pub(super) queue: BTreeSet<Place>,
}

/// The run is not kept alive: its result may hold the very guard that stands for this.
pub(super) struct Holder {
    pub(super) run: Option<Weak<Run>>,
    pub(super) slots: u32,
    since: Timestamp,
}

pub(super) struct Request {
    pub(super) wants: Wants,
    pub(super) run: Option<Arc<Run>>,
    pub(super) place: Place,
    pub(super) since: Timestamp,
    /// How far the store is with it.
    pub(super) stage: Stage,
    pub(super) waker: Arc<AtomicWaker>,
}

/// A place in a queue; the least is served first.
pub(super) type Place = (SlotClass, u64);

/// How many requests there are in the bodies of each run and beneath it, by the run's address. The requests keep these
/// runs alive.
#[derive(Default, Clone)]
pub(super) struct Beneath(HashMap<usize, u32, RandomState>);

/// The holders of the slots of one request: limit and place among its holders.
pub(super) type Parts = SmallVec<[(SmolStr, usize); 2]>;

/// The longest time that is slept at once for a slot to come back.
const LONG: Duration = Duration::from_secs(86_400);

pub(super) enum Grant {
    Slots(Parts),
    /// Until somebody gives slots back.
    Wait,
    /// Until enough slots have come back by time.
    Until(Duration),
    /// The limit was changed so that the request cannot be served any more.
    Never(Error),
}

/// What is to be done without the lock: wakers and destructors are code of others.
#[derive(Default)]
#[must_use = "somebody waits for this"]
pub(super) struct Outside {
    pub(super) wake: Vec<Arc<AtomicWaker>>,
    pub(super) gone: Option<Request>,
    pub(super) runs: SmallVec<[Arc<Run>; 2]>,
}

impl Outside {
    pub(super) fn settle(self) {
        let Self { wake, gone, runs } = self;
        for waker in wake {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!(target: "orchestrator", "a waker panicked; whoever else waits for slots is woken");
            }
        }
        drop((gone, runs));
    }
}

/// How a request stands with one limit that keeps it waiting.
pub(super) struct Standing {
    pub(super) limit: SmolStr,
    pub(super) wanted: u32,
    pub(super) slots: u32,
    pub(super) taken: u32,
    pub(super) decay: Option<f64>,
    pub(super) ahead: usize,
    /// Who holds how many slots, and since when.
    pub(super) holders: Vec<(Option<Weak<Run>>, u32, Timestamp)>,
}

impl Beneath {
    pub(super) fn any(&self, run: &Weak<Run>) -> bool {
        self.0.contains_key(&run.as_ptr().addr())
    }

    fn add(&mut self, run: &Arc<Run>) {
        for ancestor in run.lineage() {
            *self.0.entry(Arc::as_ptr(ancestor).addr()).or_insert(0) += 1;
        }
    }

    pub(super) fn remove(&mut self, run: &Arc<Run>) {
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

impl Entry {
    fn settle(&mut self, now: Timestamp) {
        if let Some(rate) = self.setting.decay {
            self.taken = (self.taken - now.since(self.as_of).as_secs_f64() * rate).max(0.0);
        }
        self.as_of = self.as_of.max(now);
    }

    /// How long until that many slots are free; `None`: as soon as somebody gives some back.
    fn free_in(&mut self, slots: u32, now: Timestamp) -> Option<Duration> {
        self.settle(now);
        // Less than a microsecond's worth of decay is rounding, not occupancy.
        let missing = self.taken + f64::from(slots) - f64::from(self.setting.slots) - 1e-6;
        if missing <= 0.0 || !self.setting.active {
            return Some(Duration::ZERO);
        }
        let decay = self.setting.decay.filter(|_| self.setting.slots > 0)?;
        Some(Duration::try_from_secs_f64(missing / decay).unwrap_or(LONG).clamp(TICK, LONG))
    }

    fn take(&mut self, slots: u32, run: Option<&Arc<Run>>, now: Timestamp) -> usize {
        if self.setting.active || self.setting.decay.is_none() {
            self.taken += f64::from(slots);
        }
        // What comes back by time is held by nobody.
        let run = run.filter(|_| self.setting.decay.is_none()).map(|run| {
            run.count_slots(true);
            Arc::downgrade(run)
        });
        self.holders.insert(Holder { run, slots, since: now })
    }

    /// Whether somebody else is to be served before `place`.
    fn is_before(&self, place: Place) -> bool {
        self.setting.active && self.queue.first().is_some_and(|first| *first < place)
    }

    fn taken(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast of a float saturates")]
        let taken = self.taken.ceil() as u32;
        taken.max(self.seen)
    }
}

const A_SLOT: &str = "a slot";
const SLOTS: &str = " slots";

/// How [`Table::reason`] names a limit.
pub(crate) fn of_limit(name: &str) -> String {
    format!(" of limit '{name}'")
}

/// How many slots of a limit are waited for according to such a reason, if any.
pub(crate) fn waits_for(reason: &str, limit: &str) -> Option<u32> {
    let (before, _) = reason.split_once(&of_limit(limit))?;
    match before.strip_suffix(SLOTS) {
        Some(number) => number.rsplit(' ').next()?.parse().ok(),
        None => before.ends_with(A_SLOT).then_some(1),
    }
}

impl Table {
    pub(super) fn knows(&self, name: &str) -> bool {
        self.limits.get(name).is_some_and(|entry| !entry.removed)
    }

    /// What a limit is set to, if there is one of that name.
    pub(super) fn setting(&self, name: &str) -> Option<LimitSetting> {
        self.limits.get(name).filter(|entry| !entry.removed).map(|entry| entry.setting)
    }

    pub(super) fn is_active(&self, name: &str) -> bool {
        self.limits[name].setting.active
    }

    /// The holders of a limit.
    pub(super) fn holders(&self, name: &str) -> impl Iterator<Item = &Holder> {
        let entry = &self.limits[name];
        let lasting = entry.setting.decay.is_none();
        entry.holders.iter().map(|(_, holder)| holder).filter(move |_| lasting)
    }

    pub(super) fn set(&mut self, name: &str, setting: LimitSetting, now: Timestamp) -> Outside {
        let entry = self.limits.entry(name.into()).or_insert_with(|| Entry {
            setting,
            removed: false,
            asked: [0; 2],
            seen: 0,
            taken: 0.0,
            as_of: now,
            holders: Slab::new(),
            queue: BTreeSet::new(),
        });
        entry.settle(now);
        if entry.setting.decay.is_some() != setting.decay.is_some() {
            // What is held counts from now on by who holds it, or by time.
            entry.taken = entry.holders.iter().map(|(_, holder)| f64::from(holder.slots)).sum();
        }
        (entry.setting, entry.removed) = (setting, false);
        self.changed(name)
    }

    /// Removes a limit; whoever waits for its slots is told.
    pub(super) fn remove(&mut self, name: &str) -> Outside {
        let Some(entry) = self.limits.get_mut(name) else { return Outside::default() };
        entry.removed = true;
        self.changed(name)
    }

    /// Everybody looks again: a request may have become too large, or the limit may let all of them pass.
    fn changed(&mut self, name: &str) -> Outside {
        self.admit();
        let wake = |request: &&Request| request.wants.iter().any(|(wanted, _)| **wanted == *name);
        let wake = self.requests.values().filter(wake).map(|request| Arc::clone(&request.waker)).collect();
        Outside { wake, ..Outside::default() }
    }

    pub(super) fn check(&self, wants: &Wants) -> Result<(), String> {
        for (name, slots) in wants.iter() {
            let Some(setting) = self.setting(name) else { return Err(self.unknown(name)) };
            // A limit of no slots is a closed door, and may be opened.
            if setting.active && slots > setting.slots && setting.slots > 0 {
                return Err(format!("{slots} slots of limit '{name}' were asked for, which has {}", setting.slots));
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> String {
        let known = self.limits.iter().filter(|(_, entry)| !entry.removed);
        let mut known: Vec<_> = known.map(|(name, _)| format!("'{name}'")).collect();
        known.sort_unstable();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("known are {}", known.join(", ")) };
        format!("there is no limit '{name}': {known}; create it with `orchestrator.limit(\"{name}\", slots)`")
    }

    /// Whether a run above this one, or its own body, holds slots of any limit.
    pub(super) fn class(run: Option<&Arc<Run>>) -> SlotClass {
        let nested = run.is_some_and(|run| run.lineage().any(|ancestor| ancestor.holds_slots()));
        if nested { SlotClass::Nested } else { SlotClass::Ordinary }
    }

    /// Serves a request for one limit that concerns nobody else: the same as what follows, with one look.
    pub(super) fn take_alone(&mut self, wants: &Wants, run: Option<&Arc<Run>>, now: Timestamp) -> Option<Parts> {
        let (name, slots) = wants.alone()?;
        let entry = self.limits.get_mut(name)?;
        let fits = !entry.removed && (slots <= entry.setting.slots || !entry.setting.active);
        let is_free = self.beneath.0.is_empty() && entry.queue.is_empty();
        if !(fits && is_free && entry.free_in(slots, now) == Some(Duration::ZERO)) {
            return None;
        }
        let mut parts = Parts::new();
        parts.push((name.clone(), entry.take(slots, run, now)));
        Some(parts)
    }

    /// Serves a request that has to wait for nobody.
    pub(super) fn take_at_once(
        &mut self,
        wants: &Wants,
        run: Option<&Arc<Run>>,
        class: SlotClass,
        now: Timestamp,
    ) -> Option<(Parts, Outside)> {
        let place = (class, self.next_ticket);
        let at_once = wants.iter().all(|(name, slots)| {
            let entry = self.limits.get_mut(name).expect(CHECKED);
            !entry.is_before(place) && entry.free_in(slots, now) == Some(Duration::ZERO)
        });
        at_once.then(|| self.take(wants, run, now))
    }

    pub(super) fn take(&mut self, wants: &Wants, run: Option<&Arc<Run>>, now: Timestamp) -> (Parts, Outside) {
        let promoted = run.filter(|run| !run.holds_slots()).map(|run| self.promote(run)).unwrap_or_default();
        let take = |(name, slots): (&SmolStr, u32)| {
            let entry = self.limits.get_mut(name).expect(CHECKED);
            (name.clone(), entry.take(slots, run, now))
        };
        (wants.iter().map(take).collect(), Outside { wake: promoted, ..Outside::default() })
    }

    /// Counts anew who waits beneath whom, if anybody waits beneath that run, which was detached.
    pub(super) fn recount(&mut self, detached: &Arc<Run>) {
        if !self.beneath.any(&Arc::downgrade(detached)) {
            return;
        }
        let mut beneath = Beneath::default();
        self.requests.values().filter_map(|request| request.run.as_ref()).for_each(|run| beneath.add(run));
        self.beneath = beneath;
    }

    /// Puts those who wait beneath a run, which held nothing so far, before those that keep nobody waiting.
    fn promote(&mut self, run: &Arc<Run>) -> Vec<Arc<AtomicWaker>> {
        if !self.beneath.any(&Arc::downgrade(run)) {
            return Vec::new();
        }
        let ordinary = self.requests.values_mut().filter(|request| request.place.0 == SlotClass::Ordinary);
        let beneath = |other: &Arc<Run>| other.is_part_of(run);
        let promoted = ordinary.filter(|request| request.run.as_ref().is_some_and(beneath)).map(|request| {
            let place = (SlotClass::Nested, request.place.1);
            for (name, slots) in request.wants.iter() {
                self.limits.get_mut(name).expect(CHECKED).moved(request, slots, place);
            }
            request.place = place;
            if let (Some(desk), true) = (&self.desk, request.stage.is_asked()) {
                desk.moved(place.1, place.0, request.run.as_ref());
            }
            Arc::clone(&request.waker)
        });
        let promoted = promoted.collect();
        self.admit();
        promoted
    }

    pub(super) fn enqueue(
        &mut self,
        wants: Wants,
        run: Option<&Arc<Run>>,
        class: SlotClass,
        now: Timestamp,
    ) -> (u64, Arc<AtomicWaker>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let place = (class, ticket);
        for (name, _) in wants.iter() {
            self.limits.get_mut(name).expect(CHECKED).queue.insert(place);
        }
        if let Some(run) = run {
            self.beneath.add(run);
        }
        let waker = Arc::new(AtomicWaker::new());
        let run = run.map(Arc::clone);
        let request = Request { wants, run, place, since: now, stage: Stage::Queued, waker: Arc::clone(&waker) };
        self.requests.insert(ticket, request);
        self.admit();
        (ticket, waker)
    }

    /// Looks whether a new request can be served at all; an error if not. It may complete a knot that others undo.
    pub(super) fn look_at(&mut self, ticket: u64) -> (Result<(), String>, Outside) {
        if self.requests[&ticket].place.0 == SlotClass::Ordinary {
            return (Ok(()), Outside::default());
        }
        match deadlock::look(self, ticket) {
            Outlook::Open => (Ok(()), Outside::default()),
            Outlook::Never(said) => (Err(said), self.leave(ticket)),
            Outlook::Knotted(knotted) => {
                let wake = knotted.iter().map(|other| Arc::clone(&self.requests[other].waker)).collect();
                (Ok(()), Outside { wake, ..Outside::default() })
            }
        }
    }

    /// Whether a limit that a request asks for has no slots at all.
    pub(super) fn is_shut_out(&self, ticket: u64) -> bool {
        let closed = |setting: LimitSetting| setting.active && setting.slots == 0;
        self.requests[&ticket].wants.iter().any(|(name, _)| closed(self.limits[name].setting))
    }

    /// What a request waits for, in a sentence.
    pub(super) fn reason(&self, ticket: u64) -> String {
        let asked = self.requests[&ticket].wants.iter().map(|(name, slots)| (name, slots, &self.limits[name]));
        let parts: Vec<_> = asked
            .filter(|(_, _, entry)| entry.setting.active)
            .map(|(name, slots, entry)| {
                let mut what = if slots == 1 { A_SLOT.to_owned() } else { format!("{slots}{SLOTS}") };
                what += &of_limit(name);
                match entry.setting.slots {
                    0 => format!("{what}, which has none"),
                    // How many others have taken, the store has not been asked yet.
                    slots if self.desk.is_some() && entry.taken() == 0 => format!("{what} ({slots} in all)"),
                    slots => format!("{what} ({} of {slots} taken)", entry.taken()),
                }
            })
            .collect();
        format!("waits for {}", parts.join(" and "))
    }

    /// How a request stands with each limit that it waits for; names at most so many holders of each.
    pub(super) fn standings(&mut self, ticket: u64, most_holders: usize, now: Timestamp) -> Vec<Standing> {
        let Some(request) = self.requests.get(&ticket) else { return Vec::new() };
        let mut standings = Vec::new();
        for (name, wanted) in request.wants.iter() {
            let entry = self.limits.get_mut(name).expect(CHECKED);
            entry.settle(now);
            let LimitSetting { slots, decay, active } = entry.setting;
            if !active {
                continue;
            }
            let mut holders: Vec<_> = entry.holders.iter().map(|(_, holder)| holder).collect();
            holders.retain(|_| decay.is_none());
            holders.sort_unstable_by_key(|holder| holder.since);
            let holders = holders.into_iter().take(most_holders);
            standings.push(Standing {
                limit: name.clone(),
                wanted,
                slots,
                taken: entry.taken(),
                decay,
                ahead: entry.queue.range(..request.place).count(),
                holders: holders.map(|holder| (holder.run.clone(), holder.slots, holder.since)).collect(),
            });
        }
        standings
    }

    /// Where a request stands, and since when.
    pub(super) fn place(&self, ticket: u64) -> Option<(SlotClass, Timestamp)> {
        self.requests.get(&ticket).map(|request| (request.place.0, request.since))
    }

    /// The requests that a run and its body have made.
    pub(super) fn requests_of(&self, run: &Arc<Run>) -> Vec<u64> {
        let own = |request: &Request| request.run.as_ref().is_some_and(|other| Arc::ptr_eq(other, run));
        self.requests.iter().filter(|(_, request)| own(request)).map(|(ticket, _)| *ticket).collect()
    }

    /// Serves a request if its turn has come; gives back those whose turn has come after it.
    pub(super) fn serve(&mut self, ticket: u64, now: Timestamp) -> (Grant, Outside) {
        let request = self.requests.get(&ticket).expect("a request that waits is in the table");
        match &request.stage {
            Stage::Granted => return self.take_granted(ticket, now),
            Stage::Failed(error) => return (Grant::Never(error.clone()), self.leave(ticket)),
            Stage::Queued | Stage::Asked | Stage::Told => {}
        }
        if let Err(said) = self.check(&request.wants) {
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
        request.wants.iter().try_fold(Duration::ZERO, |longest, (name, slots)| {
            let entry = self.limits.get_mut(name).expect(CHECKED);
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
        let Request { wants, run, .. } = outside.gone.take().expect("it was in the table");
        let (parts, also) = self.take(&wants, run.as_ref(), now);
        outside.wake.extend(also.wake);
        outside.runs.extend(run);
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

    /// Those who come after a request in the queues that it is in.
    fn next_after(&self, ticket: u64) -> Vec<Arc<AtomicWaker>> {
        let request = &self.requests[&ticket];
        let after = (Bound::Excluded(request.place), Bound::Unbounded);
        let next = |(name, _): (&SmolStr, u32)| self.limits[name].queue.range(after).next();
        let next = request.wants.iter().filter_map(next);
        next.map(|(_, other)| Arc::clone(&self.requests[other].waker)).collect()
    }

    /// Whether the knots that [`deadlock`] looks for are possible at all: somebody beneath a holder waits for slots that
    /// are held by somebody beneath whom others wait.
    pub(super) fn may_be_stuck(&self) -> bool {
        self.limits.iter().any(|(name, entry)| {
            entry.setting.active
                && (entry.asked[0] > 0 || entry.queue.first().is_some_and(|first| first.0 != SlotClass::Ordinary))
                && self.holders(name).any(|holder| holder.run.as_ref().is_some_and(|run| self.beneath.any(run)))
        })
    }

    /// Takes a request out of all queues; those who are first now are to be woken.
    pub(super) fn leave(&mut self, ticket: u64) -> Outside {
        let Some(request) = self.requests.remove(&ticket) else { return Outside::default() };
        if let Some(run) = &request.run {
            self.beneath.remove(run);
        }
        if self.desk.is_some() {
            return self.left(request);
        }
        let mut wake = Vec::new();
        for (name, _) in request.wants.iter() {
            let queue = &mut self.limits.get_mut(name).expect(CHECKED).queue;
            // Whoever comes after one beneath a holder may be first without being the first of the queue.
            let may_be_first = request.place.0 == SlotClass::Nested || queue.first() == Some(&request.place);
            queue.remove(&request.place);
            if may_be_first {
                let next = queue.range(request.place..).next();
                wake.extend(next.map(|(_, next)| Arc::clone(&self.requests[next].waker)));
            }
        }
        Outside { wake, gone: Some(request), runs: SmallVec::new() }
    }

    /// Gives slots back; those who are first in the queues for them are to be woken.
    pub(super) fn release(&mut self, parts: &[(SmolStr, usize)]) -> Outside {
        let mut outside = Outside::default();
        for (name, place) in parts {
            let entry = self.limits.get_mut(name).expect(CHECKED);
            let holder = entry.holders.remove(*place);
            if entry.setting.decay.is_none() {
                entry.taken = (entry.taken - f64::from(holder.slots)).max(0.0);
            }
            if let Some(run) = holder.run.as_ref().and_then(Weak::upgrade) {
                run.count_slots(false);
                outside.runs.push(run);
            }
            if self.desk.is_none() {
                outside.wake.extend(entry.queue.first().map(|(_, first)| Arc::clone(&self.requests[first].waker)));
            }
        }
        outside
    }

    pub(super) fn list(&mut self, now: Timestamp) -> Vec<Limit> {
        let mut all: Vec<_> = self
            .limits
            .iter_mut()
            .filter(|(_, entry)| !entry.removed)
            .map(|(name, entry)| {
                entry.settle(now);
                let LimitSetting { slots, decay, active } = entry.setting;
                let waiting = entry.queue.len();
                Limit { name: name.to_string(), slots, taken: entry.taken(), waiting, slot_decay: decay, active }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn never(said: String) -> Grant {
    Grant::Never(Error::new(ErrorKind::Limit(said)))
}

pub(super) const CHECKED: &str = "the entries of limits are kept for ever, and requests are checked first";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_waits_for_is_read_from_its_reason() {
        let reason = "waits for 3 slots of limit 'db' (1 of 4 taken) and a slot of limit 'x and y', which has none";
        let wanted = ["db", "x and y", "d", "x"].map(|limit| waits_for(reason, limit));
        assert_eq!(wanted, [Some(3), Some(1), None, None]);
        assert_eq!(waits_for("the flow runs at most 3 tasks at a time", "db"), None);
    }
}
