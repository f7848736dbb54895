//! What is leased to owners: it counts only while they are present.

use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::error::Doing;
use super::{SqliteBackend, lock};
use crate::backend::{BackendError, BackendErrorKind, OwnerNo};

/// How often a lock is asked for that another connection has, at first and later.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(2)];

/// So often it is asked for at first, and so often in all.
const TRIES: [i32; 2] = [8, 2500];

/// What came of it.
pub(super) enum Lease<T> {
    Given(T),
    /// The owner has ended.
    Ended,
}

impl SqliteBackend {
    /// Works on the connection for what is leased. What is not committed is rolled back.
    pub(super) fn lease<T>(
        &self,
        doing: impl Fn() -> String,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<Lease<T>>,
    ) -> Result<T, BackendError> {
        let mut leases = lock(&self.leases);
        let connection = match &mut *leases {
            Some(connection) => connection,
            none => none.insert(self.open_for_leases().doing(&doing)?),
        };
        match work(connection).doing(&doing)? {
            Lease::Given(given) => Ok(given),
            Lease::Ended => Err(BackendError::new(BackendErrorKind::Fenced, doing())),
        }
    }

    fn open_for_leases(&self) -> rusqlite::Result<Connection> {
        let mut connection = self.open_aside()?;
        connection.busy_handler(Some(wait_for_lock))?;
        Ok(connection)
    }
}

/// SQLite's own waiting grows to tenths of seconds, in which others are served first.
fn wait_for_lock(tries: i32) -> bool {
    std::thread::sleep(ASK_AGAIN[usize::from(tries >= TRIES[0])]);
    tries < TRIES[1]
}

pub(super) fn is_present(transaction: &Transaction<'_>, owner: OwnerNo) -> rusqlite::Result<bool> {
    let select = "SELECT EXISTS (SELECT 1 FROM process WHERE no = ?1 AND ended IS NULL)";
    transaction.prepare_cached(select)?.query_row([owner.0], |row| row.get(0))
}

/// The owners of a table's rows that are not present, one by one: there are few owners and may be many rows.
const GONE: [&str; 2] = [
    "WITH RECURSIVE holds (owner) AS (
        SELECT min(owner) FROM slot_holder
        UNION ALL
        SELECT (SELECT min(owner) FROM slot_holder WHERE owner > holds.owner) FROM holds WHERE holds.owner IS NOT NULL
    )
    SELECT owner FROM holds WHERE owner IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM process WHERE no = holds.owner AND ended IS NULL)",
    "WITH RECURSIVE waits (owner) AS (
        SELECT min(owner) FROM slot_wait
        UNION ALL
        SELECT (SELECT min(owner) FROM slot_wait WHERE owner > waits.owner) FROM waits WHERE waits.owner IS NOT NULL
    )
    SELECT owner FROM waits WHERE owner IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM process WHERE no = waits.owner AND ended IS NULL)",
];

/// Whether owners that are not present hold slots or wait for some.
pub(super) fn are_any_gone(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    Ok(transaction.prepare_cached(GONE[0])?.exists([])? || transaction.prepare_cached(GONE[1])?.exists([])?)
}

/// Deletes what owners held or waited for that are not present.
pub(super) fn clear(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for select in GONE {
        let mut statement = transaction.prepare_cached(select)?;
        let gone: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        for owner in gone {
            for table in ["slot_holder", "slot_wait", "slot_backlog"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE owner = ?1"), [owner])?;
            }
        }
    }
    Ok(())
}
