//! The orchestrators that use the file. What they write here has a connection of its own: a heartbeat does not wait for
//! the batches of the journal.

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};

use super::{SqliteBackend, orphans, requests};
use crate::backend::record::Process;
use crate::backend::{BackendError, BackendErrorKind, Owner, OwnerNo, Ownership};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::RunId;

impl Ownership for SqliteBackend {
    fn join(&self, process: &Process, until: Timestamp) -> Result<OwnerNo, BackendError> {
        let Process { host, pid, namespace, started, session } = process;
        let upsert = "INSERT INTO process (host, pid, namespace, started, session, lease_until, heard)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
            ON CONFLICT (host, pid, namespace, started, session)
            DO UPDATE SET lease_until = excluded.lease_until, heard = excluded.heard
            WHERE ended IS NULL RETURNING no";
        let (namespace, started, session) = (namespace.cast_signed(), started.cast_signed(), session.cast_signed());
        let (until, heard) = (until.as_micros(), SystemClock.now().as_micros());
        let joined = self.write_aside(
            || self.writing(),
            |transaction| {
                let values = params![host, pid, namespace, started, session, until, heard];
                let no = transaction.query_row(upsert, values, |row| row.get(0)).optional()?;
                transaction.commit()?;
                Ok(no)
            },
        )?;
        joined.map(OwnerNo).ok_or_else(|| self.fenced())
    }

    fn renew(&self, owner: OwnerNo, until: Timestamp) -> Result<(), BackendError> {
        let update = "UPDATE process SET lease_until = ?2, heard = ?3 WHERE no = ?1 AND ended IS NULL";
        let values = [owner.0, until.as_micros(), SystemClock.now().as_micros()];
        let renewed = self.write_aside(
            || self.writing(),
            |transaction| {
                let changes = transaction.prepare_cached(update)?.execute(values)?;
                transaction.commit().map(|()| changes > 0)
            },
        )?;
        if renewed { Ok(()) } else { Err(self.fenced()) }
    }

    fn leave(&self, owner: OwnerNo, now: Timestamp) -> Result<(), BackendError> {
        self.write_aside(
            || self.writing(),
            |transaction| {
                end(&transaction, owner, now, None)?;
                transaction.commit()
            },
        )
    }

    fn owners(&self) -> Result<Vec<Owner>, BackendError> {
        self.read(
            || self.reading(format_args!("who uses the database")),
            |connection| {
                // Each owner of unfinished runs is looked up in the index by a step of its own, however many runs it has.
                let others = |table| {
                    format!(
                        "WITH RECURSIVE owner (no) AS (
                            SELECT min(process) FROM {table} WHERE end_time IS NULL
                            UNION ALL
                            SELECT (SELECT min(process) FROM {table} WHERE end_time IS NULL AND process > owner.no)
                            FROM owner WHERE owner.no IS NOT NULL
                        ) SELECT no FROM owner WHERE no IS NOT NULL"
                    )
                };
                select(
                    connection,
                    &format!(
                        "no IN (SELECT no FROM process WHERE ended IS NULL UNION SELECT * FROM ({}) UNION SELECT * FROM ({}))
                        ORDER BY no",
                        others("task_run"),
                        others("flow_run"),
                    ),
                    [],
                )
            },
        )
    }

    fn owner(&self, no: OwnerNo) -> Result<Option<Owner>, BackendError> {
        self.read(
            || self.reading(format_args!("who uses the database")),
            |connection| Ok(select(connection, "no = ?1", [no.0])?.pop()),
        )
    }

    fn owner_of(&self, run: RunId) -> Result<Option<Owner>, BackendError> {
        let table = match run {
            RunId::Task(_) => "task_run",
            RunId::Flow(_) => "flow_run",
        };
        self.read(
            || self.reading(format_args!("whose run {run} is")),
            |connection| {
                let filter = format!("no = (SELECT process FROM {table} WHERE id = ?1)");
                Ok(select(connection, &filter, [run.as_uuid().into_bytes()])?.pop())
            },
        )
    }

    fn expel(&self, owner: &Owner, at: Timestamp, message: &str) -> Result<Option<usize>, BackendError> {
        let ended = self.write_aside(
            || format!("end the runs of a process that is gone in the database {}", self.path.display()),
            |transaction| {
                let seen = "SELECT ended IS NOT NULL, lease_until IS ?2, why FROM process WHERE no = ?1";
                let lease = owner.lease_until.map(Timestamp::as_micros);
                let look = |row: &Row<'_>| {
                    Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<String>>(2)?))
                };
                let (first, said) = match transaction.query_row(seen, params![owner.no.0, lease], look).optional()? {
                    Some((false, true, _)) => (true, None),
                    // It has renewed its lease, or is not known.
                    Some((false, false, _)) | None => return Ok(None),
                    Some((true, _, said)) => (false, said),
                };
                // What was said of the process is said of all its runs.
                let message = said.as_deref().unwrap_or(message);
                if first {
                    orphans::note_last_known(&transaction, owner.no)?;
                    end(&transaction, owner.no, at, Some(message))?;
                }
                let runs = orphans::end(&transaction, owner.no, at, message)?;
                transaction.commit()?;
                Ok((first || runs > 0).then_some(runs))
            },
        );
        match ended {
            Err(error) if self.options.look_only && error.kind() != BackendErrorKind::Busy => {
                self.show_as_gone(owner, at, message).map(|()| None)
            }
            ended => ended,
        }
    }
}

impl SqliteBackend {
    fn fenced(&self) -> BackendError {
        BackendError::new(BackendErrorKind::Fenced, self.writing())
    }
}

/// Whether nothing is taken of what an orchestrator writes; asked in the transaction that would take it.
pub(super) fn is_fenced(transaction: &Transaction<'_>, owner: OwnerNo) -> rusqlite::Result<bool> {
    let select = "SELECT ended IS NOT NULL FROM process WHERE no = ?1";
    let ended = transaction.prepare_cached(select)?.query_row([owner.0], |row| row.get(0)).optional()?;
    Ok(ended.unwrap_or(true))
}

/// From now on the orchestrator writes nothing and holds nothing.
fn end(transaction: &Transaction<'_>, owner: OwnerNo, at: Timestamp, why: Option<&str>) -> rusqlite::Result<()> {
    let update = "UPDATE process SET ended = ?2, why = ?3 WHERE no = ?1 AND ended IS NULL";
    transaction.execute(update, params![owner.0, at.as_micros(), why])?;
    requests::end(transaction, owner)
}

fn select(connection: &Connection, filter: &str, values: impl Params) -> rusqlite::Result<Vec<Owner>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT no, host, pid, namespace, started, session, lease_until, ended, why, heard FROM process WHERE {filter}"
    ))?;
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let owners = statement.query_map(values, |row| {
        let process = Process {
            host: row.get(1)?,
            pid: row.get(2)?,
            namespace: row.get::<_, i64>(3)?.cast_unsigned(),
            started: row.get::<_, i64>(4)?.cast_unsigned(),
            session: row.get::<_, i64>(5)?.cast_unsigned(),
        };
        let (lease_until, ended) = (time(row.get(6)?), time(row.get(7)?));
        Ok(Owner { no: OwnerNo(row.get(0)?), process, lease_until, heard: time(row.get(9)?), ended, why: row.get(8)? })
    })?;
    owners.collect()
}
