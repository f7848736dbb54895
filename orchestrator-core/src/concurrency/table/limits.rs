//! One limit: what it is set to, how many of its slots are taken, who holds them, and the order of those who wait.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Index, IndexMut};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use smol_str::SmolStr;

use super::Place;
use crate::backend::LimitSetting;
use crate::clock::Timestamp;
use crate::concurrency::TICK;
use crate::concurrency::few::Few;
use crate::run::Run;

/// All limits that there are, and those that were removed: their entries are kept for ever.
#[derive(Default)]
pub(in crate::concurrency) struct Entries {
    all: Vec<Entry>,
    numbers: HashMap<SmolStr, LimitNo, RandomState>,
    /// What was looked up last: a body that takes one slot after the other mostly asks for the same limit.
    last: LimitNo,
}

/// Where the entry of a limit is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::concurrency) struct LimitNo(u32);

/// What a request asks for that was checked: each limit once.
pub(in crate::concurrency) type Asked = Few<(LimitNo, u32)>;

impl Entries {
    pub(in crate::concurrency) fn number(&self, name: &str) -> Option<LimitNo> {
        self.numbers.get(name).copied()
    }

    /// The same, for those who ask again and again.
    #[inline]
    pub(super) fn number_again(&mut self, name: &str) -> Option<LimitNo> {
        if self.all.get(self.last.0 as usize).is_none_or(|last| last.name != name) {
            self.last = self.number(name)?;
        }
        Some(self.last)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Entry> {
        self.number(name).map(|number| &self[number])
    }

    pub(in crate::concurrency) fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.all.iter_mut()
    }

    pub(super) fn add(&mut self, entry: Entry) -> LimitNo {
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

pub(in crate::concurrency) struct Entry {
    pub(in crate::concurrency) name: SmolStr,
    pub(in crate::concurrency) setting: LimitSetting,
    /// Whether it was removed. Those who hold its slots, and those who wait and have not been told, are still here.
    pub(super) removed: bool,
    /// That the code declares another number of slots was told, or is meant.
    pub(super) contradicted: bool,
    /// How many slots have been asked for in the store and not been given yet, by class.
    pub(in crate::concurrency) asked: [u32; 2],
    /// How many slots were taken in the store, as far as is known.
    pub(in crate::concurrency) seen: u32,
    /// Slots taken and not given back; of a limit with decay, those taken and not come back by `as_of`.
    taken: f64,
    as_of: Timestamp,
    holders: Slab<Holder>,
    /// That of the last holder.
    order: u32,
    /// Of shared limits those only who have not been asked for in the store yet.
    pub(in crate::concurrency) queue: BTreeSet<Place>,
    /// What was last said of a request for this limit alone: most of those who wait are told the same.
    pub(super) said: Option<Said>,
}

/// A sentence, and what is in it.
pub(super) struct Said {
    pub(super) wanted: u32,
    pub(super) slots: u32,
    pub(super) taken: u32,
    pub(super) sentence: Arc<str>,
}

/// The run is not kept alive: its result may hold the very guard that stands for this.
pub(in crate::concurrency) struct Holder {
    pub(in crate::concurrency) run: Option<Weak<Run>>,
    pub(in crate::concurrency) slots: u32,
    /// A number that rises with each holder: several may have come at the same moment.
    pub(super) order: u32,
    pub(super) since: Timestamp,
}

/// Slots of one limit that are held.
pub(in crate::concurrency) struct Part {
    pub(in crate::concurrency) name: SmolStr,
    pub(super) limit: LimitNo,
    /// The place among the limit's holders.
    holder: u32,
}

/// The holders of the slots of one request.
pub(in crate::concurrency) type Parts = Few<Part>;

/// The longest time that is slept at once for a slot to come back.
const LONG: Duration = Duration::from_secs(86_400);

impl Entry {
    pub(super) fn new(name: &str, setting: LimitSetting, now: Timestamp) -> Self {
        Self {
            name: name.into(),
            setting,
            removed: false,
            contradicted: false,
            asked: [0; 2],
            seen: 0,
            taken: 0.0,
            as_of: now,
            holders: Slab::new(),
            order: 0,
            queue: BTreeSet::new(),
            said: None,
        }
    }

    /// What is held counts from now on by who holds it, or by time.
    pub(super) fn count_anew(&mut self) {
        self.taken = self.holders.iter().map(|(_, holder)| f64::from(holder.slots)).sum();
    }

    /// Takes out a holder.
    pub(super) fn give_back(&mut self, part: &Part) -> Holder {
        let holder = self.holders.remove(part.holder as usize);
        if self.setting.decay.is_none() {
            self.taken = (self.taken - f64::from(holder.slots)).max(0.0);
        }
        holder
    }

    pub(super) fn settle(&mut self, now: Timestamp) {
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
    pub(super) fn has_free(&self, slots: u32) -> bool {
        self.missing(slots) <= 0.0 || !self.setting.active
    }

    /// Those who hold slots until they give them back.
    pub(super) fn lasting_holders(&self) -> impl Iterator<Item = &Holder> {
        let lasting = self.setting.decay.is_none();
        self.holders.iter().map(|(_, holder)| holder).filter(move |_| lasting)
    }

    /// How long until that many slots are free; `None`: as soon as somebody gives some back.
    pub(super) fn free_in(&mut self, slots: u32, now: Timestamp) -> Option<Duration> {
        self.settle(now);
        if self.has_free(slots) {
            return Some(Duration::ZERO);
        }
        let missing = self.missing(slots);
        let decay = self.setting.decay.filter(|_| self.setting.slots > 0)?;
        Some(Duration::try_from_secs_f64(missing / decay).unwrap_or(LONG).clamp(TICK, LONG))
    }

    /// Notes a holder, whose run counts it from now on.
    pub(super) fn take(&mut self, limit: LimitNo, slots: u32, run: Option<Weak<Run>>, since: Timestamp) -> Part {
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
    pub(super) fn is_before(&self, place: Place) -> bool {
        self.setting.active && self.queue.first().is_some_and(|first| *first < place)
    }

    pub(super) fn taken(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast of a float saturates")]
        let taken = self.taken.ceil() as u32;
        taken.max(self.seen)
    }
}
