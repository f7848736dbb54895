//! Takes runs out of the tables, with all that is kept of them.
//!
//! A root run goes first, in the transaction that decides on it; what is beneath it follows from the table `removal`,
//! some runs at a time. So nobody sees half of it go on as if nothing were missing, and whoever comes after a process
//! that was killed over it goes on.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Params, Transaction, params};
use uuid::Uuid;

use super::super::SqliteBackend;
use super::super::packed::Reference;
use super::Deadline;
use crate::backend::BackendError;
use crate::backend::maintenance::{Removal, Removed};
use crate::id::{FlowRunId, RunId, TaskRunId};

/// So many runs are taken out between two looks at the time.
const AT_A_TIME: u32 = 32;

/// What is kept of a run, apart from its row.
const KEPT: &[&str] = &[
    "DELETE FROM history WHERE run = ?1",
    "DELETE FROM amendment WHERE run = ?1",
    "DELETE FROM log WHERE run = ?1",
    "DELETE FROM crash WHERE run = ?1",
    "DELETE FROM request WHERE run = ?1",
];

/// Removes the runs, unless one of them cannot be removed.
pub(super) fn remove(backend: &SqliteBackend, runs: &[RunId]) -> Result<Removal, BackendError> {
    let doing = "remove runs from";
    let begun = backend.step(doing, |transaction, _| {
        let mut removed = Removed::default();
        let wanted: HashSet<RunId> = runs.iter().copied().collect();
        for run in &wanted {
            if let Some(refusal) = refusal(transaction, *run)? {
                return Ok(refusal);
            }
        }
        if let Some((run, root, state)) =
            unfinished(transaction)?.into_iter().find(|(_, root, _)| wanted.contains(root))
        {
            return Ok(Removal::Active { wanted: root, run, state });
        }
        for run in wanted {
            root(transaction, run, &mut removed)?;
        }
        Ok(Removal::Done(removed))
    })?;
    let Removal::Done(mut removed) = begun else { return Ok(begun) };
    while backend.step(doing, |transaction, deadline| beneath(transaction, deadline, &mut removed))? {}
    Ok(Removal::Done(removed))
}

/// Why the run itself cannot be removed, whatever is beneath it.
fn refusal(transaction: &Transaction<'_>, run: RunId) -> rusqlite::Result<Option<Removal>> {
    let select = format!("SELECT parent, end_time IS NULL, state FROM {} WHERE id = ?1", table(run));
    let found = transaction.query_row(&select, [run.as_uuid().as_bytes()], |row| {
        let parent: Option<Reference> = row.get(0)?;
        Ok(match (parent, row.get::<_, bool>(1)?) {
            (Some(parent), _) => Some(Removal::Inside { wanted: run, parent: parent.0 }),
            (None, true) => Some(Removal::Active { wanted: run, run, state: row.get(2)? }),
            (None, false) => None,
        })
    });
    Ok(found.optional()?.unwrap_or(Some(Removal::Unknown(run))))
}

/// Every run that has not ended, with the root run above it and the name of its state; of runs with the same parent one.
pub(super) fn unfinished(connection: &Connection) -> rusqlite::Result<Vec<(RunId, RunId, String)>> {
    let mut found = Vec::new();
    let mut parents = HashSet::new();
    for name in ["flow_run", "task_run"] {
        let select = format!("SELECT id, parent, state FROM {name} WHERE end_time IS NULL");
        let mut statement = connection.prepare(&select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let run = run_of(name, row.get(0)?);
            let parent = row.get::<_, Option<Reference>>(1)?.map(|parent| parent.0);
            if parent.is_none_or(|parent| parents.insert(parent)) {
                found.push((run, parent.map_or(Ok(run), |parent| root_above(connection, parent))?, row.get(2)?));
            }
        }
    }
    Ok(found)
}

fn root_above(connection: &Connection, mut run: RunId) -> rusqlite::Result<RunId> {
    // Nobody is his own ancestor, but a file may say anything.
    let mut seen = HashSet::new();
    while seen.insert(run) {
        let select = format!("SELECT parent FROM {} WHERE id = ?1", table(run));
        let mut statement = connection.prepare_cached(&select)?;
        let parent = statement.query_row([run.as_uuid().as_bytes()], |row| row.get::<_, Option<Reference>>(0));
        match parent.optional()?.flatten() {
            Some(parent) => run = parent.0,
            None => break,
        }
    }
    Ok(run)
}

/// Takes out a root run, and puts down that what is beneath it is to follow.
pub(super) fn root(transaction: &Transaction<'_>, run: RunId, removed: &mut Removed) -> rusqlite::Result<()> {
    take_out(transaction, run, removed)?;
    let insert = "INSERT INTO removal (run) VALUES (?1) ON CONFLICT DO NOTHING";
    transaction.prepare_cached(insert)?.execute([Reference(run).to_bytes()]).map(drop)
}

/// Takes out what is beneath removed runs until the time is over; whether there is more.
pub(super) fn beneath(
    transaction: &Transaction<'_>,
    deadline: Deadline,
    removed: &mut Removed,
) -> rusqlite::Result<bool> {
    let mut next = transaction.prepare_cached("SELECT run FROM removal LIMIT 1")?;
    while let Some(Reference(run)) = next.query_row([], |row| row.get(0)).optional()? {
        let (id, reference) = (*run.as_uuid().as_bytes(), Reference(run).to_bytes());
        let children = match run {
            // A flow run knows all that is in it, at whatever depth.
            RunId::Flow(_) => {
                let tasks = "SELECT id FROM task_run WHERE flow_run = ?1 LIMIT ?2";
                let tasks = ids(transaction, "task_run", tasks, params![id, AT_A_TIME])?;
                tasks.iter().try_for_each(|task| take_out(transaction, *task, removed))?;
                let flows = "SELECT id FROM flow_run WHERE flow_run = ?1 LIMIT ?2";
                let flows = ids(transaction, "flow_run", flows, params![id, AT_A_TIME])?;
                flows.iter().try_for_each(|flow| root(transaction, *flow, removed))?;
                tasks.len() + flows.len() + usize::from(results(transaction, id)?)
            }
            RunId::Task(_) => {
                let mut children = 0;
                for name in ["task_run", "flow_run"] {
                    let select = format!("SELECT id FROM {name} WHERE parent = ?1 AND flow_run IS NULL LIMIT ?2");
                    let runs = ids(transaction, name, &select, params![reference, AT_A_TIME])?;
                    runs.iter().try_for_each(|run| root(transaction, *run, removed))?;
                    children += runs.len();
                }
                children
            }
        };
        if children == 0 {
            transaction.prepare_cached("DELETE FROM removal WHERE run = ?1")?.execute([reference])?;
        }
        if deadline.is_over() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Counts a root run and all that is beneath it.
pub(super) fn count(connection: &Connection, root: RunId, found: &mut Removed) -> rusqlite::Result<()> {
    let mut open = vec![root];
    while let Some(run) = open.pop() {
        let (id, reference) = (*run.as_uuid().as_bytes(), Reference(run).to_bytes());
        match run {
            RunId::Flow(_) => {
                found.flow_runs += 1;
                let tasks = "SELECT count(*) FROM task_run WHERE flow_run = ?1";
                let tasks: i64 = connection.prepare_cached(tasks)?.query_row([id], |row| row.get(0))?;
                found.task_runs += tasks.unsigned_abs();
                open.extend(ids(connection, "flow_run", "SELECT id FROM flow_run WHERE flow_run = ?1", [id])?);
            }
            RunId::Task(_) => {
                found.task_runs += 1;
                for name in ["task_run", "flow_run"] {
                    let select = format!("SELECT id FROM {name} WHERE parent = ?1 AND flow_run IS NULL");
                    open.extend(ids(connection, name, &select, [reference])?);
                }
            }
        }
    }
    Ok(())
}

fn take_out(transaction: &Transaction<'_>, run: RunId, removed: &mut Removed) -> rusqlite::Result<()> {
    let id = run.as_uuid().into_bytes();
    for delete in KEPT {
        transaction.prepare_cached(delete)?.execute([id])?;
    }
    let delete = format!("DELETE FROM {} WHERE id = ?1", table(run));
    let rows = transaction.prepare_cached(&delete)?.execute([id])? as u64;
    match run {
        RunId::Flow(_) => removed.flow_runs += rows,
        RunId::Task(_) => removed.task_runs += rows,
    }
    Ok(())
}

/// Takes out some results of a flow run, if it has kept any as a root; whether it had.
fn results(transaction: &Transaction<'_>, root: [u8; 16]) -> rusqlite::Result<bool> {
    let select = "SELECT first, last FROM result_span WHERE root = ?1 ORDER BY first LIMIT 1";
    let span = transaction.prepare_cached(select)?.query_row([root], |row| Ok((row.get(0)?, row.get(1)?)));
    let Some((first, last)): Option<(i64, i64)> = span.optional()? else { return Ok(false) };
    let some = last.min(first + i64::from(AT_A_TIME) - 1);
    transaction.prepare_cached("DELETE FROM result WHERE no BETWEEN ?1 AND ?2")?.execute([first, some])?;
    let rest = if some == last {
        "DELETE FROM result_span WHERE root = ?1 AND first = ?2"
    } else {
        "UPDATE result_span SET first = ?3 + 1 WHERE root = ?1 AND first = ?2"
    };
    let mut rest = transaction.prepare_cached(rest)?;
    if some == last {
        rest.execute(params![root, first])?
    } else {
        rest.execute(params![root, first, some])?
    };
    Ok(true)
}

fn ids(connection: &Connection, name: &str, select: &str, values: impl Params) -> rusqlite::Result<Vec<RunId>> {
    let mut statement = connection.prepare_cached(select)?;
    let ids = statement.query_map(values, |row| Ok(run_of(name, row.get(0)?)))?;
    ids.collect()
}

const fn table(run: RunId) -> &'static str {
    match run {
        RunId::Task(_) => "task_run",
        RunId::Flow(_) => "flow_run",
    }
}

fn run_of(table: &str, id: [u8; 16]) -> RunId {
    let id = Uuid::from_bytes(id);
    if table == "flow_run" { FlowRunId::from_uuid(id).into() } else { TaskRunId::from_uuid(id).into() }
}
