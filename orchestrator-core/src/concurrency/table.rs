//! Limits, holders and queues, changed under one lock that is held for a few lines. Nothing here waits, wakes or drops
//! what belongs to others: all that is given back as an [`Outside`], which the caller settles without the lock.

mod limits;
mod requests;
mod said;
mod serving;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::shared::Desk;
use super::{Limit, Wants};
use crate::backend::LimitSetting;
use crate::clock::Timestamp;
use crate::engine::launcher;
use crate::run::Run;
pub(super) use limits::{Asked, Entries, Entry, Holder, LimitNo, Parts};
pub(super) use requests::{Beneath, Place, Request};
pub(super) use said::Standing;
pub(crate) use said::{of_limit, waits_for};
pub(super) use serving::Grant;

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
            if catch_unwind(AssertUnwindSafe(|| launcher::wake(waker))).is_err() {
                tracing::error!(target: "orchestrator", "a waker panicked; whoever else waits for slots is woken");
            }
        }
        drop((gone, runs));
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
        let new = || Entry::new(name, setting, now);
        let number = self.limits.number(name).unwrap_or_else(|| self.limits.add(new()));
        let entry = &mut self.limits[number];
        entry.settle(now);
        if entry.setting.decay.is_some() != setting.decay.is_some() {
            entry.count_anew();
        }
        (entry.setting, entry.removed) = (setting, false);
        self.changed(number)
    }

    /// Notes that a limit has other slots than it is declared with; says whether that is so and was not noted before. `None`: there is no
    /// such limit.
    pub(super) fn note_contradiction(&mut self, name: &str, slots: u32) -> Option<bool> {
        let number = self.limits.number(name)?;
        let entry = &mut self.limits[number];
        let differs = entry.setting.slots != slots;
        (!entry.removed).then(|| differs && !std::mem::replace(&mut entry.contradicted, true))
    }

    /// Notes that this program has set a limit to what it means, whatever it declares besides.
    pub(super) fn mean(&mut self, name: &str) {
        if let Some(number) = self.limits.number(name) {
            self.limits[number].contradicted = true;
        }
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
        if name.trim().is_empty() {
            return super::NAMELESS.to_owned();
        }
        let known = self.limits.iter().filter(|entry| !entry.removed);
        let mut known: Vec<_> = known.map(|entry| format!("'{}'", entry.name)).collect();
        known.sort_unstable();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("known are {}", known.join(", ")) };
        format!("there is no limit '{name}': {known}; create it with `orchestrator.limit(\"{name}\", slots)`")
    }

    pub(super) fn list(&mut self, now: Timestamp) -> Vec<Limit> {
        let mut all: Vec<_> = self
            .limits
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
