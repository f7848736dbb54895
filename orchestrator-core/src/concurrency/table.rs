//! Limits, holders and queues, changed under one lock that is held for a few lines. Nothing here waits, wakes or drops
//! what belongs to others: all that is given back as an [`Outside`], which the caller settles without the lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Index, IndexMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::deadlock::{self, Outlook};
use super::few::Few;
use super::shared::{Desk, Stage};
use super::{Limit, TICK, Wants};
use crate::backend::{LimitSetting, SlotClass};
use crate::clock::Timestamp;
use crate::context;
use crate::error::{Error, ErrorKind};
use crate::run::Run;

#[derive(Default)]
pub(super) struct Table {
    pub(super) limits: Entries,
    /// Everybody who waits, by ticket.
    pub(super) requests: BTreeMap<u64, Box<Request>>,
    pub(super) beneath: Beneath,
    last_ticket: u64,
    /// Where slots are asked for that processes share. What is here then mirrors the store, which has the say.
    pub(super) desk: Option<Arc<Desk>>,
}

/// All limits that there are, and those that were removed: their entries are kept for ever.
#[derive(Default)]
pub(super) struct Entries {
    all: Vec<Entry>,
    numbers: HashMap<SmolStr, LimitNo, RandomState>,
}

/// Where the entry of a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LimitNo(u32);

/// What a request asks for that was checked: each limit once.
pub(super) type Asked = Few<(LimitNo, u32)>;

impl Entries {
    pub(super) fn number(&self, name: &str) -> Option<LimitNo> {
        self.numbers.get(name).copied()
    }

    fn named(&self, name: &str) -> Option<&Entry> {
        self.number(name).map(|number| &self[number])
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.all.iter()
    }

    fn add(&mut self, entry: Entry) -> LimitNo {
        let number = LimitNo(u32::try_from(self.all.len()).expect("there are fewer than four billion limits"));
        self.numbers.insert(entry.name.clone(), number);
        self.all.push(entry);
        number
    }
}

impl Index<LimitNo> for Entries {
    type Output = Entry;

    fn index(&self, number: LimitNo) -> &Entry {
        &self.all[number.0 as usize]
    }
}

impl IndexMut<LimitNo> for Entries {
    fn index_mut(&mut self, number: LimitNo) -> &mut Entry {
        &mut self.all[number.0 as usize]
    }
}

pub(super) struct Entry {
    pub(super) name: SmolStr,
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
    /// That of the last holder.
    order: u32,
    /// Of shared limits those only who have not been asked for in the store yet.
    pub(super) queue: BTreeSet<Place>,
    /// What was last said of a request for this limit alone: most of those who wait are told the same.
    said: Option<Said>,
}

/// A sentence, and what is in it.
struct Said {
    wanted: u32,
    slots: u32,
    taken: u32,
    sentence: Arc<str>,
}

/// The run is not kept alive: its result may hold the very guard that stands for this.
pub(super) struct Holder {
    pub(super) run: Option<Weak<Run>>,
    pub(super) slots: u32,
    /// A number that rises with each holder: several may have come at the same moment.
    order: u32,
    since: Timestamp,
}

pub(super) struct Request {
    pub(super) wants: Asked,
    pub(super) run: Option<Arc<Run>>,
    pub(super) place: Place,
    pub(super) since: Timestamp,
    /// How far the store is with it.
    pub(super) stage: Stage,
    /// Whom to tell that it is worth another look; taken out when that is done.
    pub(super) waker: Option<Waker>,
}

/// A place in a queue; the least is served first.
pub(super) type Place = (SlotClass, u64);

/// How many requests there are in the bodies of each run and beneath it, by the run's address. The requests keep these
/// runs alive.
#[derive(Default, Clone)]
pub(super) struct Beneath(HashMap<usize, u32, RandomState>);

/// Slots of one limit that are held.
pub(super) struct Part {
    pub(super) name: SmolStr,
    limit: LimitNo,
    /// The place among the limit's holders.
    holder: u32,
}

/// The holders of the slots of one request.
pub(super) type Parts = Few<Part>;

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
    pub(super) wake: Vec<Waker>,
    pub(super) gone: Option<Box<Request>>,
    pub(super) runs: SmallVec<[Arc<Run>; 1]>,
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

    fn missing(&self, slots: u32) -> f64 {
        // Less than a microsecond's worth of decay is rounding, not occupancy.
        self.taken + f64::from(slots) - f64::from(self.setting.slots) - 1e-6
    }

    /// Whether that many slots are free, as of the last look.
    fn has_free(&self, slots: u32) -> bool {
        self.missing(slots) <= 0.0 || !self.setting.active
    }

    /// Those who hold slots until they give them back.
    fn lasting_holders(&self) -> impl Iterator<Item = &Holder> {
        let lasting = self.setting.decay.is_none();
        self.holders.iter().map(|(_, holder)| holder).filter(move |_| lasting)
    }

    /// How long until that many slots are free; `None`: as soon as somebody gives some back.
    fn free_in(&mut self, slots: u32, now: Timestamp) -> Option<Duration> {
        self.settle(now);
        if self.has_free(slots) {
            return Some(Duration::ZERO);
        }
        let missing = self.missing(slots);
        let decay = self.setting.decay.filter(|_| self.setting.slots > 0)?;
        Some(Duration::try_from_secs_f64(missing / decay).unwrap_or(LONG).clamp(TICK, LONG))
    }

    /// Notes a holder, whose run counts it from now on.
    fn take(&mut self, limit: LimitNo, slots: u32, run: Option<Weak<Run>>, since: Timestamp) -> Part {
        if self.setting.active || self.setting.decay.is_none() {
            self.taken += f64::from(slots);
        }
        self.order = self.order.wrapping_add(1);
        // A moment that is about right is not before one that was exact.
        let since = since.max(self.as_of);
        let holder = self.holders.insert(Holder { run, slots, order: self.order, since });
        let holder = u32::try_from(holder).expect("fewer than four billion hold slots");
        Part { name: self.name.clone(), limit, holder }
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
        self.limits.named(name).is_some_and(|entry| !entry.removed)
    }

    /// What a limit is set to, if there is one of that name.
    pub(super) fn setting(&self, name: &str) -> Option<LimitSetting> {
        self.limits.named(name).filter(|entry| !entry.removed).map(|entry| entry.setting)
    }

    pub(super) fn setting_of(&self, limit: LimitNo) -> Option<LimitSetting> {
        let entry = &self.limits[limit];
        (!entry.removed).then_some(entry.setting)
    }

    /// The names of all limits that there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &SmolStr> {
        self.limits.iter().filter(|entry| !entry.removed).map(|entry| &entry.name)
    }

    pub(super) fn is_active(&self, limit: LimitNo) -> bool {
        self.limits[limit].setting.active
    }

    /// The holders of a limit.
    pub(super) fn holders(&self, limit: LimitNo) -> impl Iterator<Item = &Holder> {
        self.limits[limit].lasting_holders()
    }

    pub(super) fn set(&mut self, name: &str, setting: LimitSetting, now: Timestamp) -> Outside {
        let new = || Entry {
            name: name.into(),
            setting,
            removed: false,
            asked: [0; 2],
            seen: 0,
            taken: 0.0,
            as_of: now,
            holders: Slab::new(),
            order: 0,
            queue: BTreeSet::new(),
            said: None,
        };
        let number = self.limits.number(name).unwrap_or_else(|| self.limits.add(new()));
        let entry = &mut self.limits[number];
        entry.settle(now);
        if entry.setting.decay.is_some() != setting.decay.is_some() {
            // What is held counts from now on by who holds it, or by time.
            entry.taken = entry.holders.iter().map(|(_, holder)| f64::from(holder.slots)).sum();
        }
        (entry.setting, entry.removed) = (setting, false);
        self.changed(number)
    }

    /// Removes a limit; whoever waits for its slots is told.
    pub(super) fn remove(&mut self, name: &str) -> Outside {
        let Some(number) = self.limits.number(name) else { return Outside::default() };
        self.limits[number].removed = true;
        self.changed(number)
    }

    /// Everybody looks again: a request may have become too large, or the limit may let all of them pass.
    fn changed(&mut self, limit: LimitNo) -> Outside {
        self.admit();
        let wants = |request: &&mut Box<Request>| request.wants.iter().any(|(wanted, _)| *wanted == limit);
        let wake = self.requests.values_mut().filter(wants).filter_map(|request| request.waker.take()).collect();
        Outside { wake, ..Outside::default() }
    }

    /// What such a request asks for, if it can be served at all.
    pub(super) fn check(&self, wants: &Wants) -> Result<Asked, String> {
        let find = |(name, slots): (&SmolStr, u32)| {
            let number = self.limits.number(name).ok_or_else(|| self.unknown(name))?;
            self.check_one(number, slots).map(|()| (number, slots))
        };
        wants.iter().map(find).collect()
    }

    fn check_one(&self, limit: LimitNo, slots: u32) -> Result<(), String> {
        let Entry { name, setting, removed, .. } = &self.limits[limit];
        if *removed {
            return Err(self.unknown(name));
        }
        // A limit of no slots is a closed door, and may be opened.
        if setting.active && slots > setting.slots && setting.slots > 0 {
            return Err(format!("{slots} slots of limit '{name}' were asked for, which has {}", setting.slots));
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> String {
        let known = self.limits.iter().filter(|entry| !entry.removed);
        let mut known: Vec<_> = known.map(|entry| format!("'{}'", entry.name)).collect();
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

    /// Serves a request for one limit that concerns nobody else, and whose slots do not come back by time: the same as
    /// what follows, with one look and no exact moment.
    pub(super) fn take_alone(
        &mut self,
        name: &str,
        slots: u32,
        run: Option<&Arc<Run>>,
        holder: impl FnOnce() -> Option<Weak<Run>>,
        about: Timestamp,
    ) -> Option<Part> {
        let limit = self.limits.number(name)?;
        let entry = &mut self.limits[limit];
        let is_plain = !entry.removed && entry.setting.decay.is_none() && self.desk.is_none();
        let is_free = self.beneath.0.is_empty() && entry.queue.is_empty();
        if !(is_plain && is_free && entry.has_free(slots)) {
            return None;
        }
        if let Some(run) = run {
            run.count_slots(true);
        }
        Some(entry.take(limit, slots, holder(), about))
    }

    /// Serves a request that has to wait for nobody.
    pub(super) fn take_at_once(
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

    pub(super) fn take(&mut self, wants: &Asked, run: Option<&Arc<Run>>, now: Timestamp) -> (Parts, Outside) {
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
    fn promote(&mut self, run: &Arc<Run>) -> Vec<Waker> {
        if !self.beneath.any(&Arc::downgrade(run)) {
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

    pub(super) fn enqueue(&mut self, wants: Asked, run: Option<&Arc<Run>>, class: SlotClass, now: Timestamp) -> u64 {
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

    /// Says whom to wake when a request is worth another look; gives back whom it was before.
    pub(super) fn watch(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        match self.requests.get_mut(&ticket) {
            Some(request) => request.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Whoever is to be woken for a request, unless that was done and nobody has looked since.
    fn waker(&mut self, ticket: u64) -> Option<Waker> {
        self.requests.get_mut(&ticket)?.waker.take()
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
                let wake = knotted.iter().filter_map(|other| self.waker(*other)).collect();
                (Ok(()), Outside { wake, ..Outside::default() })
            }
        }
    }

    /// Whether a limit that a request asks for has no slots at all.
    pub(super) fn is_shut_out(&self, ticket: u64) -> bool {
        let closed = |setting: LimitSetting| setting.active && setting.slots == 0;
        self.requests[&ticket].wants.iter().any(|(limit, _)| closed(self.limits[*limit].setting))
    }

    /// What a request waits for, in a sentence.
    pub(super) fn reason(&mut self, ticket: u64) -> Arc<str> {
        let request = &self.requests[&ticket];
        let &[(limit, wanted)] = &request.wants[..] else { return self.sentence(request).into() };
        let entry = &self.limits[limit];
        let (slots, taken) = (entry.setting.slots, entry.taken());
        if let Some(said) = &entry.said
            && entry.setting.active
            && (said.wanted, said.slots, said.taken) == (wanted, slots, taken)
        {
            return Arc::clone(&said.sentence);
        }
        let sentence: Arc<str> = self.sentence(request).into();
        let said = entry.setting.active.then(|| Said { wanted, slots, taken, sentence: Arc::clone(&sentence) });
        self.limits[limit].said = said;
        sentence
    }

    fn sentence(&self, request: &Request) -> String {
        let asked = request.wants.iter().map(|&(limit, slots)| (slots, &self.limits[limit]));
        let parts: Vec<_> = asked
            .filter(|(_, entry)| entry.setting.active)
            .map(|(slots, entry)| {
                let mut what = if slots == 1 { A_SLOT.to_owned() } else { format!("{slots}{SLOTS}") };
                what += &of_limit(&entry.name);
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
        for &(limit, wanted) in &request.wants {
            let entry = &mut self.limits[limit];
            entry.settle(now);
            let LimitSetting { slots, decay, active } = entry.setting;
            if !active {
                continue;
            }
            let mut holders: Vec<_> = entry.lasting_holders().collect();
            holders.sort_unstable_by_key(|holder| (holder.since, holder.order));
            let holders = holders.into_iter().take(most_holders);
            standings.push(Standing {
                limit: entry.name.clone(),
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

    /// Those who come after a request in the queues that it is in.
    fn next_after(&mut self, ticket: u64) -> Vec<Waker> {
        let request = &self.requests[&ticket];
        let after = (Bound::Excluded(request.place), Bound::Unbounded);
        let next = |(limit, _): &(LimitNo, u32)| self.limits[*limit].queue.range(after).next();
        let next: SmallVec<[u64; 2]> = request.wants.iter().filter_map(next).map(|(_, other)| *other).collect();
        next.into_iter().filter_map(|other| self.waker(other)).collect()
    }

    /// Whether the knots that [`deadlock`] looks for are possible at all: somebody beneath a holder waits for slots that
    /// are held by somebody beneath whom others wait.
    pub(super) fn may_be_stuck(&self) -> bool {
        self.limits.iter().any(|entry| {
            entry.setting.active
                && (entry.asked[0] > 0 || entry.queue.first().is_some_and(|first| first.0 != SlotClass::Ordinary))
                && entry.lasting_holders().any(|holder| holder.run.as_ref().is_some_and(|run| self.beneath.any(run)))
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

    /// Gives slots back; whoever is first in the queue for them is to be woken.
    pub(super) fn release(&mut self, part: &Part) -> Option<Outside> {
        let entry = &mut self.limits[part.limit];
        let holder = entry.holders.remove(part.holder as usize);
        if entry.setting.decay.is_none() {
            entry.taken = (entry.taken - f64::from(holder.slots)).max(0.0);
        }
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

    pub(super) fn list(&mut self, now: Timestamp) -> Vec<Limit> {
        let mut all: Vec<_> = self
            .limits
            .all
            .iter_mut()
            .filter(|entry| !entry.removed)
            .map(|entry| {
                entry.settle(now);
                let LimitSetting { slots, decay, active } = entry.setting;
                let waiting = entry.queue.len();
                Limit { name: entry.name.to_string(), slots, taken: entry.taken(), waiting, slot_decay: decay, active }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn never(said: String) -> Grant {
    Grant::Never(Error::new(ErrorKind::Limit(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_for_the_same_share_one_sentence() {
        let now = Timestamp::from_micros(0);
        let mut table = Table::default();
        let setting = LimitSetting { slots: 2, decay: None, active: true };
        drop(table.set("db", setting, now));
        let asked = |table: &Table, slots| {
            let mut wants = Wants::new();
            wants.add("db", slots);
            table.check(&wants).expect("there are so many")
        };
        let hold = |table: &mut Table| table.take_alone("db", 1, None, || None, now).expect("there is a slot");
        let (_first, second) = (hold(&mut table), hold(&mut table));
        let one = asked(&table, 1);
        let mut wait = |wants: &Asked| table.enqueue(wants.clone(), None, SlotClass::Ordinary, now);
        let tickets = [wait(&one), wait(&one)];
        let [a, b] = tickets.map(|ticket| table.reason(ticket));
        assert_eq!(&*a, "waits for a slot of limit 'db' (2 of 2 taken)");
        assert!(Arc::ptr_eq(&a, &b));
        assert!(table.release(&second).is_some_and(|outside| outside.wake.is_empty()));
        assert_eq!(&*table.reason(tickets[1]), "waits for a slot of limit 'db' (1 of 2 taken)");
        let wide = asked(&table, 2);
        let wide = table.enqueue(wide, None, SlotClass::Ordinary, now);
        assert_eq!(&*table.reason(wide), "waits for 2 slots of limit 'db' (1 of 2 taken)");
        drop(table.set("db", LimitSetting { slots: 0, ..setting }, now));
        assert_eq!(&*table.reason(wide), "waits for 2 slots of limit 'db', which has none");
    }

    #[test]
    fn what_a_run_waits_for_is_read_from_its_reason() {
        let reason = "waits for 3 slots of limit 'db' (1 of 4 taken) and a slot of limit 'x and y', which has none";
        let wanted = ["db", "x and y", "d", "x"].map(|limit| waits_for(reason, limit));
        assert_eq!(wanted, [Some(3), Some(1), None, None]);
        assert_eq!(waits_for("the flow runs at most 3 tasks at a time", "db"), None);
    }
}
