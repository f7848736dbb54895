//! Whose turn it is: the queues of all limits are served in one order, without overtaking.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::packed::Reference;
use crate::backend::{LimitSetting, OwnerNo, SlotClass, SlotRequest};
use crate::clock::Timestamp;

/// The longest time that is waited for at once.
const LONG: Duration = Duration::from_secs(86_400);

/// By how much the moments of two processes may differ: the last one to have its turn may be the first one that looked
/// at its clock.
const APART: Duration = Duration::from_secs(10);

/// The shortest: times are in microseconds.
const TICK: Duration = Duration::from_micros(1);

/// How much of a limit is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) setting: LimitSetting,
    /// Slots that are held by owners that are present.
    held: u32,
    /// Slots that had not come back by `as_of`.
    taken: f64,
    pub(super) as_of: Timestamp,
}

impl Level {
    pub(super) fn read(transaction: &Transaction<'_>, limit: &str, now: Timestamp) -> rusqlite::Result<Option<Self>> {
        let select = "SELECT slots, decay, active, taken, as_of FROM slot_limit WHERE name = ?1";
        let level = transaction.prepare_cached(select)?.query_row([limit], |row| {
            Ok(Self {
                setting: LimitSetting { slots: row.get(0)?, decay: row.get(1)?, active: row.get(2)? },
                held: 0,
                taken: row.get(3)?,
                as_of: Timestamp::from_micros(row.get(4)?),
            })
        });
        let Some(mut level) = level.optional()? else { return Ok(None) };
        // The clock went back since: nothing would come back until it is there again. How long ago that was, nobody knows.
        if level.as_of > now.after(APART) {
            (level.taken, level.as_of) = (0.0, now);
        }
        if level.setting.decay.is_none() {
            level.held = Self::held_of(transaction, limit)?;
        }
        Ok(Some(level))
    }

    pub(super) fn held_of(transaction: &Transaction<'_>, limit: &str) -> rusqlite::Result<u32> {
        // There are few owners, and may be many rows.
        let select = "SELECT coalesce(sum(held.slots), 0) FROM (
                SELECT owner, sum(slots) AS slots FROM slot_holder WHERE slot_limit = ?1 GROUP BY owner
            ) AS held JOIN process ON process.no = held.owner WHERE process.ended IS NULL";
        let held: i64 = transaction.prepare_cached(select)?.query_row([limit], |row| row.get(0))?;
        Ok(u32::try_from(held).unwrap_or(u32::MAX))
    }

    /// How many slots are taken now, with parts of slots.
    pub(super) fn settled(&self, now: Timestamp) -> f64 {
        match self.setting.decay {
            Some(rate) => (self.taken - now.since(self.as_of).as_secs_f64() * rate).max(0.0),
            None => f64::from(self.held),
        }
    }

    pub(super) fn taken(&self, now: Timestamp) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast of a float saturates")]
        let taken = self.settled(now).ceil() as u32;
        taken
    }

    /// How long until that many slots are free; `None`: as soon as somebody gives some back.
    fn free_in(&self, slots: u32, now: Timestamp) -> Option<Duration> {
        // Less than a microsecond's worth of decay is rounding, not occupancy.
        let missing = self.settled(now) + f64::from(slots) - f64::from(self.setting.slots) - 1e-6;
        if missing <= 0.0 || !self.setting.active {
            return Some(Duration::ZERO);
        }
        let decay = self.setting.decay.filter(|_| self.setting.slots >= slots)?;
        Some(Duration::try_from_secs_f64(missing / decay).unwrap_or(LONG).clamp(TICK, LONG))
    }
}

/// A place in the queue of a limit.
type Place = (SlotClass, i64, i64, i64);

/// What one transaction knows of the queues; it is the only one that changes them meanwhile.
pub(super) struct Queues<'t> {
    transaction: &'t Transaction<'t>,
    now: Timestamp,
    levels: BTreeMap<Box<str>, Option<Level>>,
    /// How long until somebody can be served by time.
    pub(super) due: Option<Duration>,
}

/// A request at the head of a queue.
struct Head {
    owner: i64,
    ticket: i64,
    run: Option<Reference>,
    run_name: Option<String>,
    wants: Vec<(Box<str>, u32)>,
}

impl<'t> Queues<'t> {
    pub(super) const fn new(transaction: &'t Transaction<'t>, now: Timestamp) -> Self {
        Self { transaction, now, levels: BTreeMap::new(), due: None }
    }

    /// How much of a limit is taken, if that was looked at.
    pub(super) fn taken(&self, limit: &str) -> Option<u32> {
        self.levels.get(limit).copied().flatten().map(|level| level.taken(self.now))
    }

    fn level(&mut self, limit: &str) -> rusqlite::Result<Option<Level>> {
        if let Some(level) = self.levels.get(limit) {
            return Ok(*level);
        }
        let level = Level::read(self.transaction, limit, self.now)?;
        self.levels.insert(limit.into(), level);
        Ok(level)
    }

    /// Whether the limit keeps nobody waiting.
    fn is_open(&mut self, limit: &str) -> rusqlite::Result<bool> {
        Ok(self.level(limit)?.is_some_and(|level| !level.setting.active))
    }

    /// How long until all that is wanted is free; `None`: somebody has to give slots back, or to create a limit.
    fn free_in(&mut self, wants: &[(Box<str>, u32)]) -> rusqlite::Result<Option<Duration>> {
        let mut longest = Duration::ZERO;
        for (limit, slots) in wants {
            match self.level(limit)?.and_then(|level| level.free_in(*slots, self.now)) {
                Some(delay) => longest = longest.max(delay),
                None => return Ok(None),
            }
        }
        Ok(Some(longest))
    }

    /// Serves a new request if nobody waits for what it wants; says whether it did.
    pub(super) fn serve_at_once(&mut self, owner: OwnerNo, ask: &SlotRequest) -> rusqlite::Result<bool> {
        let wants: Vec<(Box<str>, u32)> = ask.wants.iter().map(|(limit, slots)| ((&**limit).into(), *slots)).collect();
        for (limit, _) in &wants {
            let open = self.is_open(limit)?;
            if !open && self.head_of(limit)?.is_some() {
                return Ok(false);
            }
        }
        if self.free_in(&wants)? != Some(Duration::ZERO) {
            return Ok(false);
        }
        let run = ask.run.as_ref();
        let head = Head {
            owner: owner.0,
            ticket: ask.ticket.cast_signed(),
            run: run.map(|(run, _)| Reference(*run)),
            run_name: run.map(|(_, name)| name.to_string()),
            wants,
        };
        self.grant(&head).map(|()| true)
    }

    /// Serves whoever can be served.
    pub(super) fn serve(&mut self) -> rusqlite::Result<()> {
        self.go_through(|queues, head| {
            let delete = "DELETE FROM slot_wait WHERE owner = ?1 AND ticket = ?2";
            queues.transaction.prepare_cached(delete)?.execute([head.owner, head.ticket])?;
            queues.grant(head).map(|()| Turn::Served)
        })
    }

    /// Finds out when somebody can be served.
    pub(super) fn find_due(&mut self) -> rusqlite::Result<()> {
        self.go_through(|queues, _| {
            queues.due = Some(Duration::ZERO);
            Ok(Turn::Enough)
        })
    }

    /// Takes the heads of all queues in their common order. One that cannot be served closes what it waits for.
    fn go_through(
        &mut self,
        mut served: impl FnMut(&mut Self, &Head) -> rusqlite::Result<Turn>,
    ) -> rusqlite::Result<()> {
        let mut heads: BTreeMap<Box<str>, Option<Place>> = BTreeMap::new();
        for limit in self.waited_for()? {
            heads.insert(limit.clone(), self.head_of(&limit)?);
        }
        while let Some(place) = heads.values().copied().flatten().min() {
            let head = self.request(place)?;
            // Others may be before it in the queues of other limits.
            let mut turn = true;
            for (limit, _) in &head.wants {
                let open = self.is_open(limit)?;
                turn &= open || heads.get(limit).is_some_and(|first| *first == Some(place));
            }
            let delay = if turn { self.free_in(&head.wants)? } else { None };
            if delay == Some(Duration::ZERO) {
                if let Turn::Enough = served(self, &head)? {
                    return Ok(());
                }
                for (limit, _) in &head.wants {
                    // Whoever passes an open limit may have others before it there.
                    if let Some(known) = heads.get_mut(limit).filter(|known| **known == Some(place)) {
                        *known = self.next_of(limit, place)?;
                    }
                }
                continue;
            }
            if let Some(delay) = delay {
                self.due = Some(self.due.map_or(delay, |due| due.min(delay)));
            }
            for (limit, _) in &head.wants {
                let open = self.is_open(limit)?;
                let Some(known) = heads.get_mut(limit) else { continue };
                if !open {
                    *known = None;
                } else if *known == Some(place) {
                    // Whoever waits for another limit too keeps nobody from one that is open.
                    *known = self.next_of(limit, place)?;
                }
            }
        }
        Ok(())
    }

    /// The limits that somebody waits for.
    fn waited_for(&self) -> rusqlite::Result<Vec<Box<str>>> {
        let select = "WITH RECURSIVE waited (name) AS (
                SELECT min(slot_limit) FROM slot_wait
                UNION ALL
                SELECT (SELECT min(slot_limit) FROM slot_wait WHERE slot_limit > waited.name)
                    FROM waited WHERE waited.name IS NOT NULL
            )
            SELECT name FROM waited WHERE name IS NOT NULL";
        let mut statement = self.transaction.prepare_cached(select)?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    fn head_of(&self, limit: &str) -> rusqlite::Result<Option<Place>> {
        let select = "SELECT class, since, owner, ticket FROM slot_wait WHERE slot_limit = ?1
            ORDER BY class, since, owner, ticket LIMIT 1";
        self.transaction.prepare_cached(select)?.query_row([limit], place).optional()
    }

    fn next_of(&self, limit: &str, after: Place) -> rusqlite::Result<Option<Place>> {
        let select = "SELECT class, since, owner, ticket FROM slot_wait
            WHERE slot_limit = ?1 AND (class, since, owner, ticket) > (?2, ?3, ?4, ?5)
            ORDER BY class, since, owner, ticket LIMIT 1";
        let key = params![limit, after.0, after.1, after.2, after.3];
        self.transaction.prepare_cached(select)?.query_row(key, place).optional()
    }

    fn request(&self, (.., owner, ticket): Place) -> rusqlite::Result<Head> {
        let select = "SELECT slot_limit, slots, run, run_name FROM slot_wait WHERE owner = ?1 AND ticket = ?2";
        let mut statement = self.transaction.prepare_cached(select)?;
        let mut rows = statement.query([owner, ticket])?;
        let mut head = Head { owner, ticket, run: None, run_name: None, wants: Vec::new() };
        while let Some(row) = rows.next()? {
            head.wants.push((row.get(0)?, row.get(1)?));
            (head.run, head.run_name) = (row.get(2)?, row.get(3)?);
        }
        Ok(head)
    }

    /// Puts down that a request holds its slots from now on.
    fn grant(&mut self, head: &Head) -> rusqlite::Result<()> {
        let insert = "INSERT INTO slot_holder (slot_limit, owner, ticket, slots, since, run, run_name)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let mut insert = self.transaction.prepare_cached(insert)?;
        let run = head.run.as_ref().map(Reference::to_bytes);
        for (limit, slots) in &head.wants {
            let since = self.now.as_micros();
            insert.execute(params![limit, head.owner, head.ticket, slots, since, run, head.run_name])?;
            let Some(Some(level)) = self.levels.get_mut(limit) else { continue };
            if level.setting.decay.is_none() {
                level.held = level.held.saturating_add(*slots);
            } else if level.setting.active {
                level.taken = level.settled(self.now) + f64::from(*slots);
                level.as_of = level.as_of.max(self.now);
                let update = "UPDATE slot_limit SET taken = ?2, as_of = ?3 WHERE name = ?1";
                let values = params![limit, level.taken, level.as_of.as_micros()];
                self.transaction.prepare_cached(update)?.execute(values)?;
            }
        }
        Ok(())
    }
}

/// Whether to go on.
enum Turn {
    Served,
    Enough,
}

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}
