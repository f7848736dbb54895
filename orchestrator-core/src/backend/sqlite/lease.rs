//! What is leased to owners: it counts only while they are present.

use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};

use super::error::{self, Doing};
use super::{SqliteBackend, lock};
use crate::backend::{BackendError, BackendErrorKind, OwnerNo};

/// How often a lock is asked for that another connection has, at first and later. SQLite's own waiting grows to tenths of
/// seconds, in which others are served first.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(2)];

/// So often it is asked for at first.
const AT_FIRST: u32 = 8;

#[cfg(test)]
thread_local! {
    /// How often this thread has asked for what is leased.
    pub(super) static TRIES: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// What came of it.
pub(super) enum Lease<T> {
    Given(T),
    /// The owner has ended.
    Ended,
}

impl SqliteBackend {
    /// Works on the connection for what is leased. What is not committed is rolled back, and done again if another
    /// connection was in the way: the connection does not wait itself, so that nobody of this process waits for who does.
    pub(super) fn lease<T>(
        &self,
        doing: impl Fn() -> String,
        work: impl Fn(&mut Connection) -> rusqlite::Result<Lease<T>>,
    ) -> Result<T, BackendError> {
        let (start, patience) = (Instant::now(), self.options.busy_timeout);
        let mut tries = 0;
        loop {
            #[cfg(test)]
            TRIES.set(TRIES.get() + 1);
            let mut leases = lock(&self.leases);
            let connection = match &mut *leases {
                Some(connection) => connection,
                none => none.insert(self.open_for_leases().doing(&doing)?),
            };
            let worked = work(connection);
            drop(leases);
            let left = patience.saturating_sub(start.elapsed());
            match worked {
                Err(error) if error::is_busy(&error) && !left.is_zero() => {
                    thread::sleep(ASK_AGAIN[usize::from(tries >= AT_FIRST)].min(left));
                    tries += 1;
                }
                worked => {
                    return match worked.doing(&doing)? {
                        Lease::Given(given) => Ok(given),
                        Lease::Ended => Err(BackendError::new(BackendErrorKind::Fenced, doing())),
                    };
                }
            }
        }
    }

    fn open_for_leases(&self) -> rusqlite::Result<Connection> {
        let connection = self.open_aside()?;
        connection.busy_timeout(Duration::ZERO)?;
        Ok(connection)
    }
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
