//! Runs that crashed with their process: whose hooks are called by whom, and which of them go on.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::{SqliteBackend, ownership};
use crate::backend::{BackendError, BackendErrorKind, Crash, Crashes, OwnerNo};
use crate::id::{FlowRunId, RunId, TaskRunId};

impl Crashes for SqliteBackend {
    fn uncalled(&self) -> Result<Vec<Crash>, BackendError> {
        let select = "SELECT crash.run, crash.is_flow, function.key, function.name FROM crash
            JOIN function ON function.no = coalesce(
                (SELECT function FROM task_run WHERE id = crash.run),
                (SELECT function FROM flow_run WHERE id = crash.run)
            )";
        self.read(
            || self.reading(format_args!("the runs that crashed")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let crashes = statement.query_map([], |row| {
                    let id = Uuid::from_bytes(row.get(0)?);
                    let run = match row.get(1)? {
                        true => FlowRunId::from_uuid(id).into(),
                        false => TaskRunId::from_uuid(id).into(),
                    };
                    Ok(Crash { run, key: row.get(2)?, function: row.get(3)? })
                })?;
                crashes.collect()
            },
        )
    }

    fn take_hooks(&self, owner: OwnerNo, run: RunId) -> Result<bool, BackendError> {
        let doing = || format!("take over the hooks of run {run} in the database {}", self.path.display());
        let taken = self.write_aside(doing, |transaction| {
            if ownership::is_fenced(&transaction, owner)? {
                return Ok(None);
            }
            let changes = transaction.execute("DELETE FROM crash WHERE run = ?1", [run.as_uuid().as_bytes()])?;
            transaction.commit().map(|()| Some(changes > 0))
        })?;
        taken.ok_or_else(|| BackendError::new(BackendErrorKind::Fenced, doing()))
    }

    fn crashed(&self, key: &str) -> Result<Vec<(FlowRunId, u32)>, BackendError> {
        let select = "SELECT id, resumed FROM flow_run
            WHERE function IN (SELECT no FROM function WHERE key = ?1) AND state = 'Crashed'
                AND resumed IS NOT NULL AND parent IS NULL
            ORDER BY created, id";
        self.read(
            || self.reading(format_args!("the flow runs that crashed")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let runs = statement
                    .query_map([key], |row| Ok((FlowRunId::from_uuid(Uuid::from_bytes(row.get(0)?)), row.get(1)?)))?;
                runs.collect()
            },
        )
    }

    fn leave_crashed(&self, run: FlowRunId, times: u32) -> Result<bool, BackendError> {
        let update = "UPDATE flow_run SET resumed = resumed + 1
            WHERE id = ?1 AND resumed = ?2 AND state = 'Crashed' RETURNING 1";
        self.write_aside(
            || format!("leave flow run {run} in the database {}", self.path.display()),
            |transaction| {
                let values = params![run.as_uuid().into_bytes(), times];
                let left = transaction.query_row(update, values, |_| Ok(())).optional()?;
                transaction.commit().map(|()| left.is_some())
            },
        )
    }

    fn uncount(&self, run: FlowRunId) -> Result<(), BackendError> {
        let update = "UPDATE flow_run SET resumed = resumed - 1 WHERE id = ?1 AND resumed > 0";
        self.write_aside(
            || format!("leave flow run {run} in the database {}", self.path.display()),
            |transaction| {
                transaction.execute(update, [run.as_uuid().as_bytes()])?;
                transaction.commit()
            },
        )
    }
}
