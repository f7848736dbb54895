//! Limits, holders and queues as tables.
//!
//! Whatever changes holders or queues is one transaction that takes the write lock first, so that what it reads is what
//! it changes. An owner that has ended is cleared away by whoever comes next.

use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, Transaction, TransactionBehavior, params};

use super::SqliteBackend;
use super::lease::{self, Lease};
use super::packed::{Reference, References};
use super::serve::{Level, Queues};
use crate::backend::record::Process;
use crate::backend::{
    BackendError, LimitRecord, LimitSetting, OwnerNo, SlotClass, SlotLease, SlotLeases, SlotNews, SlotPlace,
    SlotRequest, SlotStanding, SlotTrade, SlotWait,
};
use crate::clock::Timestamp;
use crate::id::RunId;
use crate::state::StateName;

impl SlotLeases for SqliteBackend {
    fn limits(&self, now: Timestamp) -> Result<Vec<LimitRecord>, BackendError> {
        self.read(
            || format!("read the limits from the database {}", self.path.display()),
            |connection| {
                let transaction = connection.unchecked_transaction()?;
                let waiting = "SELECT (
                        SELECT count(*) FROM slot_wait JOIN process ON process.no = slot_wait.owner
                        WHERE slot_limit = ?1 AND process.ended IS NULL
                    ) + (
                        SELECT coalesce(sum(waiting), 0) FROM slot_backlog JOIN process ON process.no = slot_backlog.owner
                        WHERE slot_limit = ?1 AND process.ended IS NULL
                    )";
                let mut records = Vec::new();
                for (name, setting) in settings(&transaction)? {
                    let taken = Level::read(&transaction, &name, now)?.map_or(0, |level| level.taken(now));
                    let waiting: i64 = transaction.prepare_cached(waiting)?.query_row([&name], |row| row.get(0))?;
                    let waiting = usize::try_from(waiting).unwrap_or(0);
                    records.push(LimitRecord { name, setting, taken, waiting });
                }
                Ok(records)
            },
        )
    }

    fn set_limit(&self, name: &str, setting: LimitSetting, now: Timestamp) -> Result<(), BackendError> {
        self.change(name, |transaction| {
            let before = Level::read(transaction, name, now)?;
            // A limit that is to give slots back by time begins with those that are held.
            let (taken, as_of) = match &before {
                Some(level) => (level.settled(now), now.max(level.as_of)),
                None => (f64::from(Level::held_of(transaction, name)?), now),
            };
            let taken = if setting.decay.is_some() { taken } else { 0.0 };
            put(transaction, name, setting, taken, as_of)
        })
    }

    fn declare_limit(&self, name: &str, setting: LimitSetting, now: Timestamp) -> Result<(), BackendError> {
        self.change(name, |transaction| match Level::read(transaction, name, now)? {
            Some(_) => Ok(()),
            None => {
                let held = Level::held_of(transaction, name)?;
                put(transaction, name, setting, f64::from(held), now)
            }
        })
    }

    fn remove_limit(&self, name: &str) -> Result<bool, BackendError> {
        self.change(name, |transaction| {
            transaction.execute("DELETE FROM slot_limit WHERE name = ?1", [name]).map(|rows| rows > 0)
        })
    }

    fn trade(&self, owner: OwnerNo, trade: &SlotTrade, now: Timestamp) -> Result<SlotNews, BackendError> {
        let doing = || format!("give and take slots in the database {}", self.path.display());
        self.lease(doing, |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !lease::is_present(&transaction, owner)? {
                return Ok(Lease::Ended);
            }
            lease::clear(&transaction)?;
            for ticket in &trade.over {
                give_back(&transaction, owner, *ticket)?;
            }
            let mut queues = Queues::new(&transaction, now);
            for ask in &trade.asks {
                let served = is_known(&transaction, owner, ask.ticket)? || queues.serve_at_once(owner, ask)?;
                if !served {
                    enqueue(&transaction, owner, ask)?;
                }
            }
            for (ticket, class, above) in &trade.moved {
                let above = References::to_bytes(above);
                let update = "UPDATE slot_wait SET class = ?3, above = ?4 WHERE owner = ?1 AND ticket = ?2";
                transaction.prepare_cached(update)?.execute(params![owner.0, ticket.cast_signed(), class, above])?;
            }
            for (limit, waiting) in &trade.backlog {
                let upsert = "INSERT OR REPLACE INTO slot_backlog (slot_limit, owner, waiting) VALUES (?1, ?2, ?3)";
                let waiting = i64::try_from(*waiting).unwrap_or(i64::MAX);
                transaction.prepare_cached(upsert)?.execute(params![&**limit, owner.0, waiting])?;
            }
            queues.serve()?;
            let news = news(&transaction, owner, &mut queues)?;
            drop(queues);
            transaction.commit()?;
            Ok(Lease::Given(news))
        })
    }

    fn look(&self, owner: OwnerNo, now: Timestamp) -> Result<SlotNews, BackendError> {
        let doing = || format!("look who waits for slots in the database {}", self.path.display());
        self.lease(doing, |connection| {
            let transaction = connection.transaction()?;
            if !lease::is_present(&transaction, owner)? {
                return Ok(Lease::Ended);
            }
            let mut queues = Queues::new(&transaction, now);
            if lease::are_any_gone(&transaction)? {
                queues.due = Some(Duration::ZERO);
            } else {
                queues.find_due()?;
            }
            Ok(Lease::Given(news(&transaction, owner, &mut queues)?))
        })
    }

    fn version(&self) -> Result<u64, BackendError> {
        self.lease_version()
    }

    fn waits_of(&self, run: RunId) -> Result<Vec<SlotWait>, BackendError> {
        // There are few rows: each owner has the first of each queue alone in the file.
        let select = "SELECT slot_limit, slots, class, since, slot_wait.owner, ticket
            FROM slot_wait JOIN process ON process.no = slot_wait.owner
            WHERE run = ?1 AND process.ended IS NULL ORDER BY slot_limit, since";
        self.read(
            || self.reading(format_args!("what run {run} waits for")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let waits = statement.query_map([Reference(run).to_bytes()], |row| {
                    let place = SlotPlace {
                        class: row.get(2)?,
                        since: Timestamp::from_micros(row.get(3)?),
                        owner: OwnerNo(row.get(4)?),
                        ticket: row.get::<_, i64>(5)?.cast_unsigned(),
                    };
                    Ok(SlotWait { limit: row.get(0)?, slots: row.get(1)?, place })
                })?;
                waits.collect()
            },
        )
    }

    fn waiting_before(&self, part: &str, at: Timestamp) -> Result<usize, BackendError> {
        let select = "SELECT count(*) FROM process CROSS JOIN task_run AS run ON run.process = process.no
            WHERE process.ended IS NULL AND run.end_time IS NULL AND run.state = ?1 AND run.state_at < ?2
                AND instr(run.message, ?3) > 0";
        let values = params![StateName::AwaitingConcurrencySlot.as_str(), at.as_micros(), part];
        let count = |connection: &Connection| connection.prepare_cached(select)?.query_row(values, |row| row.get(0));
        let count: i64 = self.read(|| self.reading(format_args!("what task runs wait for")), count)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn standing(
        &self,
        limit: &str,
        place: SlotPlace,
        most_holders: usize,
        now: Timestamp,
    ) -> Result<Option<SlotStanding>, BackendError> {
        self.read(
            || format!("look who holds slots in the database {}", self.path.display()),
            |connection| {
                let transaction = connection.unchecked_transaction()?;
                let Some(level) = Level::read(&transaction, limit, now)? else { return Ok(None) };
                let (taken, setting) = (level.taken(now), level.setting);
                let most = if setting.decay.is_some() { 0 } else { i64::try_from(most_holders).unwrap_or(i64::MAX) };
                let ahead = "SELECT count(*) FROM slot_wait JOIN process ON process.no = slot_wait.owner
                    WHERE process.ended IS NULL AND slot_limit = ?1
                        AND (class, since, slot_wait.owner, ticket) < (?2, ?3, ?4, ?5)";
                let key =
                    params![limit, place.class, place.since.as_micros(), place.owner.0, place.ticket.cast_signed()];
                let ahead: i64 = transaction.prepare_cached(ahead)?.query_row(key, |row| row.get(0))?;
                let kept_back = "SELECT coalesce(sum(waiting), 0)
                    FROM slot_backlog JOIN process ON process.no = slot_backlog.owner
                    WHERE process.ended IS NULL AND slot_limit = ?1 AND slot_backlog.owner <> ?2";
                let kept_back: i64 = transaction
                    .prepare_cached(kept_back)?
                    .query_row(params![limit, place.owner.0], |row| row.get(0))?;
                let holders =
                    "SELECT holder.owner, holder.ticket, holder.slots, holder.since, holder.run, holder.run_name,
                        process.host, process.pid, process.namespace, process.started, process.session
                    FROM slot_holder AS holder JOIN process ON process.no = holder.owner
                    WHERE process.ended IS NULL AND slot_limit = ?1 ORDER BY holder.since, holder.owner, holder.ticket
                    LIMIT ?2";
                let mut statement = transaction.prepare_cached(holders)?;
                let holders = statement.query_map(params![limit, most], holder)?.collect::<rusqlite::Result<_>>()?;
                let (ahead, kept_back) = (usize::try_from(ahead).unwrap_or(0), usize::try_from(kept_back).unwrap_or(0));
                Ok(Some(SlotStanding { setting, taken, ahead, kept_back, holders }))
            },
        )
    }
}

impl SqliteBackend {
    fn change<T>(&self, name: &str, work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, BackendError> {
        let doing = || format!("change limit '{name}' in the database {}", self.path.display());
        self.lease(doing, |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(Lease::Given(done))
        })
    }
}

fn put(
    transaction: &Transaction<'_>,
    name: &str,
    setting: LimitSetting,
    taken: f64,
    as_of: Timestamp,
) -> rusqlite::Result<()> {
    let upsert = "INSERT INTO slot_limit (name, slots, decay, active, taken, as_of, changed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT coalesce(max(changed), 0) + 1 FROM slot_limit))
        ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, decay = excluded.decay, active = excluded.active,
            taken = excluded.taken, as_of = excluded.as_of, changed = excluded.changed";
    let LimitSetting { slots, decay, active } = setting;
    transaction.execute(upsert, params![name, slots, decay, active, taken, as_of.as_micros()]).map(drop)
}

fn settings(connection: &Connection) -> rusqlite::Result<Vec<(String, LimitSetting)>> {
    let mut statement = connection.prepare_cached("SELECT name, slots, decay, active FROM slot_limit ORDER BY name")?;
    let setting =
        |row: &Row<'_>| Ok((row.get(0)?, LimitSetting { slots: row.get(1)?, decay: row.get(2)?, active: row.get(3)? }));
    statement.query_map([], setting)?.collect()
}

/// Whether the request is in the file already: a trade may be made again.
fn is_known(transaction: &Transaction<'_>, owner: OwnerNo, ticket: u64) -> rusqlite::Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM slot_holder WHERE owner = ?1 AND ticket = ?2)
        OR EXISTS (SELECT 1 FROM slot_wait WHERE owner = ?1 AND ticket = ?2)";
    transaction.prepare_cached(select)?.query_row([owner.0, ticket.cast_signed()], |row| row.get(0))
}

fn give_back(transaction: &Transaction<'_>, owner: OwnerNo, ticket: u64) -> rusqlite::Result<()> {
    for delete in [
        "DELETE FROM slot_holder WHERE owner = ?1 AND ticket = ?2",
        "DELETE FROM slot_wait WHERE owner = ?1 AND ticket = ?2",
    ] {
        transaction.prepare_cached(delete)?.execute([owner.0, ticket.cast_signed()])?;
    }
    Ok(())
}

fn enqueue(transaction: &Transaction<'_>, owner: OwnerNo, ask: &SlotRequest) -> rusqlite::Result<()> {
    let insert = "INSERT INTO slot_wait (slot_limit, class, since, owner, ticket, slots, run, run_name, above)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut insert = transaction.prepare_cached(insert)?;
    let run = ask.run.as_ref().map(|(run, _)| Reference(*run).to_bytes());
    let name = ask.run.as_ref().map(|(_, name)| &**name);
    let above = (!ask.above.is_empty()).then(|| References::to_bytes(&ask.above));
    for (limit, slots) in &ask.wants {
        let (since, ticket) = (ask.since.as_micros(), ask.ticket.cast_signed());
        insert.execute(params![&**limit, ask.class, since, owner.0, ticket, slots, run, name, above])?;
    }
    Ok(())
}

fn news(transaction: &Transaction<'_>, owner: OwnerNo, queues: &mut Queues<'_>) -> rusqlite::Result<SlotNews> {
    let select = "SELECT DISTINCT ticket FROM slot_wait WHERE owner = ?1 ORDER BY ticket";
    let mut statement = transaction.prepare_cached(select)?;
    let ticket = |row: &Row<'_>| row.get::<_, i64>(0).map(i64::cast_unsigned);
    let waiting = statement.query_map([owner.0], ticket)?.collect::<rusqlite::Result<_>>()?;
    let mut limits = Vec::new();
    for (name, setting) in settings(transaction)? {
        let taken = queues.taken(&name);
        limits.push((name, setting, taken));
    }
    Ok(SlotNews { waiting, limits, due: queues.due })
}

fn holder(row: &Row<'_>) -> rusqlite::Result<SlotLease> {
    let run = row.get::<_, Option<Reference>>(4)?.map(|run| run.0);
    let name: Option<String> = row.get(5)?;
    Ok(SlotLease {
        owner: OwnerNo(row.get(0)?),
        ticket: row.get::<_, i64>(1)?.cast_unsigned(),
        slots: row.get(2)?,
        since: Timestamp::from_micros(row.get(3)?),
        run: run.zip(name),
        process: process(row, 6)?,
    })
}

/// A process, from five columns of a row.
pub(super) fn process(row: &Row<'_>, first: usize) -> rusqlite::Result<Process> {
    Ok(Process {
        host: row.get(first)?,
        pid: row.get(first + 1)?,
        namespace: row.get::<_, i64>(first + 2)?.cast_unsigned(),
        started: row.get::<_, i64>(first + 3)?.cast_unsigned(),
        session: row.get::<_, i64>(first + 4)?.cast_unsigned(),
    })
}

/// The number of a class in the file.
const fn number(class: SlotClass) -> i64 {
    match class {
        SlotClass::First => 0,
        SlotClass::Nested => 1,
        SlotClass::Ordinary => 2,
    }
}

impl ToSql for SlotClass {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(number(*self).into())
    }
}

impl FromSql for SlotClass {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let found = value.as_i64()?;
        let all = [Self::First, Self::Nested, Self::Ordinary];
        all.into_iter().find(|class| number(*class) == found).ok_or(FromSqlError::OutOfRange(found))
    }
}
