//! Removes what a policy does not keep, a few milliseconds at a time.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::super::{SqliteBackend, schema};
use super::{Deadline, compact, remove};
use crate::backend::BackendError;
use crate::backend::maintenance::{Pruning, Removed};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::retention::Retention;

/// So many roots are looked at, or results deleted, between two looks at the time.
const AT_A_TIME: u32 = 32;

/// For how long after its last step nobody else takes over from a process that removes runs.
const HELD: Duration = Duration::from_secs(60);

/// Free pages that are not given back at most: what is written next would only take them again.
const SPARE_PAGES: i64 = 256;

/// So many processes that are gone make it worth to look which of them had runs that are still there.
const PROCESSES: usize = 64;

/// A file of so many pages is read in no time.
const FEW_PAGES: u64 = 1024;

const DOING: &str = "remove old runs from";

pub(super) fn begin<'s>(
    backend: &'s SqliteBackend,
    policy: &Retention,
    now: Timestamp,
) -> Result<Option<Box<dyn Pruning + 's>>, BackendError> {
    let holder = fastrand::i64(..);
    if !backend.step(DOING, |transaction, _| take(transaction, holder, now))? {
        return Ok(None);
    }
    // From here on the hold is given back by a drop.
    let (stage, selection) = (Stage::Flows, Selection::default());
    let mut pruning = SqlitePruning { backend, holder, stage, selection, removed: 0, unused: None };
    pruning.selection =
        backend.read(|| backend.looking_after(DOING), |connection| Selection::new(connection, policy, now))?;
    Ok(Some(Box::new(pruning)))
}

/// What would be removed.
pub(super) fn count(backend: &SqliteBackend, policy: &Retention, now: Timestamp) -> Result<Removed, BackendError> {
    let doing = || backend.looking_after("look for old runs in");
    backend.read(doing, |connection| {
        let now_in_file = connection.unchecked_transaction()?;
        let mut selection = Selection::new(connection, policy, now)?;
        let mut found = Removed::default();
        if policy.is_off() {
            return Ok(found);
        }
        while let Some(roots) = selection.old_flows(connection)? {
            roots.into_iter().try_for_each(|run| remove::count(connection, run, &mut found))?;
        }
        while let Some(roots) = selection.old_tasks(connection)? {
            roots.into_iter().try_for_each(|run| remove::count(connection, run, &mut found))?;
        }
        let expired = "SELECT count(*) FROM cache WHERE expires <= ?1";
        let expired: i64 = connection.query_row(expired, [now.as_micros()], |row| row.get(0))?;
        found.cached = expired.unsigned_abs();
        drop(now_in_file);
        Ok(found)
    })
}

/// What is removed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Flows,
    Tasks,
    Cached,
    Processes,
    Room,
    Done,
}

struct SqlitePruning<'s> {
    backend: &'s SqliteBackend,
    holder: i64,
    stage: Stage,
    selection: Selection,
    /// How many runs were removed.
    removed: u64,
    /// Processes that are to be forgotten, once they were looked for.
    unused: Option<Vec<i64>>,
}

/// Which roots are to go.
#[derive(Debug)]
struct Selection {
    /// Runs that ended before.
    oldest: Option<Timestamp>,
    /// This root and those before it are too many.
    last_flow: Option<(i64, [u8; 16])>,
    last_task: Option<[u8; 16]>,
    /// Roots with runs beneath them that have not ended.
    alive: HashSet<RunId>,
    /// The last roots that were looked at.
    flow_cursor: (i64, [u8; 16]),
    task_cursor: [u8; 16],
}

impl std::fmt::Debug for SqlitePruning<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlitePruning").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Pruning for SqlitePruning<'_> {
    fn step(&mut self, now: Timestamp) -> Result<Option<Removed>, BackendError> {
        let mut removed = Removed::default();
        let backend = self.backend;
        let next = match self.stage {
            Stage::Done => return Ok(None),
            Stage::Room => {
                let more = backend.on_writer(DOING, |connection| {
                    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
                    let spare = SPARE_PAGES.min(pages / 16);
                    Ok(schema::shrinks_in_steps(connection)? && compact::shrink(connection, spare)?)
                })?;
                if more { Some(Stage::Room) } else { None }
            }
            Stage::Processes => {
                if self.unused.is_none() {
                    self.unused = Some(self.unused_processes()?);
                }
                Some(Stage::Processes)
            }
            Stage::Flows | Stage::Tasks | Stage::Cached => Some(self.stage),
        };
        let holder = self.holder;
        self.stage = backend.step(DOING, |transaction, deadline| {
            if !keep(transaction, holder, now)? {
                // It was taken for dead, and somebody else goes on.
                return Ok(Stage::Done);
            }
            match next {
                None => {
                    let update = "UPDATE upkeep SET done = ?1, holder = NULL, held_until = NULL";
                    transaction.execute(update, [now.as_micros()])?;
                    Ok(Stage::Done)
                }
                Some(stage @ (Stage::Flows | Stage::Tasks)) => self.roots(transaction, stage, deadline, &mut removed),
                Some(Stage::Cached) => cached(transaction, now, deadline, &mut removed),
                Some(Stage::Processes) => forget(transaction, deadline, self.unused.get_or_insert_default()),
                Some(stage @ (Stage::Room | Stage::Done)) => Ok(stage),
            }
        })?;
        self.removed += removed.flow_runs + removed.task_runs;
        Ok(Some(removed))
    }
}

impl Drop for SqlitePruning<'_> {
    fn drop(&mut self) {
        if self.stage != Stage::Done {
            let update = "UPDATE upkeep SET holder = NULL, held_until = NULL WHERE holder = ?1";
            // What cannot be given back is free after a while.
            let _ = self.backend.step(DOING, |transaction, _| transaction.execute(update, [self.holder]));
        }
    }
}

impl SqlitePruning<'_> {
    /// Takes out old roots and what is beneath them, and gives the stage that is next.
    fn roots(
        &mut self,
        transaction: &Transaction<'_>,
        stage: Stage,
        deadline: Deadline,
        removed: &mut Removed,
    ) -> rusqlite::Result<Stage> {
        loop {
            if remove::beneath(transaction, deadline, removed)? {
                return Ok(stage);
            }
            let (roots, next) = if stage == Stage::Flows {
                (self.selection.old_flows(transaction)?, Stage::Tasks)
            } else {
                (self.selection.old_tasks(transaction)?, Stage::Cached)
            };
            let Some(roots) = roots else { return Ok(next) };
            for run in roots {
                remove::root(transaction, run, removed)?;
            }
            if deadline.is_over() {
                return Ok(stage);
            }
        }
    }

    /// Processes that are gone and have no run any more, if it is time to look for them.
    fn unused_processes(&self) -> Result<Vec<i64>, BackendError> {
        let backend = self.backend;
        let doing = || backend.looking_after(DOING);
        let unused = backend.read(doing, |connection| {
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            if is_worth_a_look(pages.unsigned_abs(), self.removed) { unused(connection) } else { Ok(Vec::new()) }
        })?;
        if !unused.is_empty() {
            // What nobody looks at any more: whoever asks for a slot or a claim passes over those that have ended.
            let left = ["slot_backlog", "cache_claim"].map(|table| {
                format!(
                    "DELETE FROM {table}
                    WHERE EXISTS (SELECT 1 FROM process WHERE no = {table}.owner AND ended IS NOT NULL)"
                )
            });
            backend.step(DOING, |transaction, _| {
                left.iter().try_for_each(|delete| transaction.execute(delete, []).map(drop))
            })?;
        }
        Ok(unused)
    }
}

/// No index leads from a process to its runs, so that all runs are read to find those without. In a large file that is done
/// now and then: so seldom that about one page is read for each run that was removed, whatever is kept.
fn is_worth_a_look(pages: u64, removed: u64) -> bool {
    pages <= FEW_PAGES || fastrand::u64(..pages) < removed
}

/// Processes that have ended and of which there is no run; one that has ended gets no more.
fn unused(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut ended = connection.prepare("SELECT no FROM process WHERE ended IS NOT NULL")?;
    let mut unused = ended.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<HashSet<i64>>>()?;
    if unused.len() < PROCESSES {
        return Ok(Vec::new());
    }
    for table in ["flow_run", "task_run"] {
        let mut statement = connection.prepare(&format!("SELECT process FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()?
            && !unused.is_empty()
        {
            unused.remove(&row.get(0)?);
        }
    }
    Ok(unused.into_iter().collect())
}

/// Deletes the rows of those processes, and gives the stage that is next.
fn forget(transaction: &Transaction<'_>, deadline: Deadline, unused: &mut Vec<i64>) -> rusqlite::Result<Stage> {
    // The greatest number stays: given out again, it would let one that was found gone write under the name of another.
    let delete = "DELETE FROM process WHERE no = ?1 AND ended IS NOT NULL AND no < (SELECT max(no) FROM process)
        AND NOT EXISTS (SELECT 1 FROM slot_holder WHERE owner = ?1)
        AND NOT EXISTS (SELECT 1 FROM slot_wait WHERE owner = ?1)";
    let mut delete = transaction.prepare_cached(delete)?;
    while let Some(no) = unused.pop() {
        delete.execute([no])?;
        if deadline.is_over() {
            return Ok(Stage::Processes);
        }
    }
    Ok(Stage::Room)
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            oldest: None,
            last_flow: None,
            last_task: None,
            alive: HashSet::new(),
            flow_cursor: (i64::MIN, [0; 16]),
            task_cursor: [0; 16],
        }
    }
}

impl Selection {
    fn new(connection: &Connection, policy: &Retention, now: Timestamp) -> rusqlite::Result<Self> {
        let keep = policy.max_runs().map(|runs| i64::try_from(runs).unwrap_or(i64::MAX));
        let (last_flow, last_task) = match keep {
            Some(keep) => (last_flow(connection, keep)?, last_task(connection, keep)?),
            None => (None, None),
        };
        let alive = remove::unfinished(connection)?.into_iter().map(|(_, root, _)| root).collect();
        Ok(Self { oldest: policy.oldest(now), last_flow, last_task, alive, ..Self::default() })
    }

    /// The next flow runs that are to go, from the oldest on; `None` when there can be no more.
    fn old_flows(&mut self, connection: &Connection) -> rusqlite::Result<Option<Vec<RunId>>> {
        let select = "SELECT created, id, end_time FROM flow_run
            WHERE parent IS NULL AND (created, id) > (?1, ?2) ORDER BY created, id LIMIT ?3";
        let mut statement = connection.prepare_cached(select)?;
        let (created, id) = self.flow_cursor;
        let mut rows = statement.query(params![created, id, AT_A_TIME])?;
        let (mut old, mut any) = (Vec::new(), false);
        while let Some(row) = rows.next()? {
            let at = (row.get(0)?, row.get(1)?);
            let too_many = self.last_flow.is_some_and(|last| at <= last);
            if !too_many && !self.is_old(at.0) {
                return Ok((!old.is_empty()).then_some(old));
            }
            let run = FlowRunId::from_uuid(Uuid::from_bytes(at.1)).into();
            if self.may_go(run, row.get(2)?, too_many) {
                old.push(run);
            }
            (self.flow_cursor, any) = (at, true);
        }
        Ok(any.then_some(old))
    }

    fn old_tasks(&mut self, connection: &Connection) -> rusqlite::Result<Option<Vec<RunId>>> {
        let select = "SELECT id, created, end_time FROM task_run
            WHERE flow_run IS NULL AND parent IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = connection.prepare_cached(select)?;
        let mut rows = statement.query(params![self.task_cursor, AT_A_TIME])?;
        let (mut old, mut any) = (Vec::new(), false);
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let too_many = self.last_task.is_some_and(|last| id <= last);
            if !too_many && !self.is_old(row.get(1)?) {
                return Ok((!old.is_empty()).then_some(old));
            }
            let run = TaskRunId::from_uuid(Uuid::from_bytes(id)).into();
            if self.may_go(run, row.get(2)?, too_many) {
                old.push(run);
            }
            (self.task_cursor, any) = (id, true);
        }
        Ok(any.then_some(old))
    }

    /// Whether a run of that time, or one that began then, may be old enough to go.
    fn is_old(&self, at: i64) -> bool {
        self.oldest.is_some_and(|oldest| at < oldest.as_micros())
    }

    fn may_go(&self, run: RunId, ended: Option<i64>, too_many: bool) -> bool {
        ended.is_some_and(|ended| too_many || self.is_old(ended)) && !self.alive.contains(&run)
    }
}

/// Takes the hold on the removal, if nobody has it.
fn take(transaction: &Transaction<'_>, holder: i64, now: Timestamp) -> rusqlite::Result<bool> {
    let until = now.after(HELD);
    // A hold that ends too late was taken by a clock that is wrong.
    let update = "UPDATE upkeep SET holder = ?1, held_until = ?3
        WHERE holder IS NULL OR held_until <= ?2 OR held_until > ?3";
    Ok(transaction.execute(update, params![holder, now.as_micros(), until.as_micros()])? > 0)
}

/// Keeps the hold, if nobody has taken it over.
fn keep(transaction: &Transaction<'_>, holder: i64, now: Timestamp) -> rusqlite::Result<bool> {
    let update = "UPDATE upkeep SET held_until = ?2 WHERE holder = ?1";
    Ok(transaction.prepare_cached(update)?.execute(params![holder, now.after(HELD).as_micros()])? > 0)
}

/// The newest root flow run that is one too many.
fn last_flow(connection: &Connection, keep: i64) -> rusqlite::Result<Option<(i64, [u8; 16])>> {
    let select =
        "SELECT created, id FROM flow_run WHERE parent IS NULL ORDER BY created DESC, id DESC LIMIT 1 OFFSET ?1";
    connection.query_row(select, [keep], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The newest root task run that is one too many.
fn last_task(connection: &Connection, keep: i64) -> rusqlite::Result<Option<[u8; 16]>> {
    let select = "SELECT id FROM task_run WHERE flow_run IS NULL AND parent IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?1";
    connection.query_row(select, [keep], |row| row.get(0)).optional()
}

/// Deletes cached results that have expired, and gives the stage that is next.
fn cached(
    transaction: &Transaction<'_>,
    now: Timestamp,
    deadline: Deadline,
    removed: &mut Removed,
) -> rusqlite::Result<Stage> {
    let delete = "DELETE FROM cache WHERE rowid IN (SELECT rowid FROM cache WHERE expires <= ?1 LIMIT ?2)";
    let mut delete = transaction.prepare_cached(delete)?;
    loop {
        let rows = delete.execute(params![now.as_micros(), AT_A_TIME])?;
        removed.cached += rows as u64;
        if rows < AT_A_TIME as usize {
            return Ok(Stage::Processes);
        }
        if deadline.is_over() {
            return Ok(Stage::Cached);
        }
    }
}
