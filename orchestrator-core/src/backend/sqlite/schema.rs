//! The tables, and how a file comes to have them.
//!
//! A file is ours if it bears [`APPLICATION_ID`]; `user_version` is the number of migrations it has been through.
//! Nothing is written to a file before both have been looked at.
//!
//! - `task_run`, `flow_run`: a row per run with its identity, its last state and, as [`pack`]ed text, its first states:
//!   most runs have only a few. Ids are the 16 bytes of the UUID; `parent` and `upstream` hold references, which are 17
//!   bytes each: `t` or `f`, then the id. Times are microseconds since the Unix epoch.
//!   A task run that looked into the cache has the key and, as JSON, the reason for what it found.
//! - `history`: the later states of runs that have many, a row per event.
//! - `function`, `process`: what many runs have in common.
//! - `amendment`: what became known of a run apart from its states; it may be there before the run.
//! - `crash`: runs that crashed with their process, whose hooks nobody has called.
//! - `result`: what flow runs keep, with a digest of each value; `encoding` says how it was encoded, `result_span` whose
//!   it is. `unreferenced`, `interrupted`: which objects in the result store may go, and whose are to be looked through.
//! - `slot_limit`: what limits are set to. `slot_holder`, `slot_wait`, `slot_backlog`: who holds slots and who waits for
//!   them. `cache_claim`: who computes a cached result. All of these count while their owner is present in `process`.
//!   `lease_version`: a number that each change of them raises, so that those who wait need not look at them all.
//! - `request`: what orchestrators want of each other's runs, until it was done.
//! - `log`, `cache`.
//! - `removal`, `upkeep`: what is being removed, and by whom.
//!
//! [`pack`]: super::packed::pack

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::Doing;
use crate::backend::record::FORMAT_VERSION;
use crate::backend::{BackendError, BackendErrorKind};

/// Marks a database file as ours: `ORCH`.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ORCH");

/// What brings a file from the format of the same index to the next one.
pub(super) const MIGRATIONS: [&[&str]; FORMAT_VERSION as usize] = [
    &[include_str!("schema/format_1.sql")],
    &[include_str!("schema/format_2.sql")],
    // One file a subject.
    &[
        include_str!("schema/format_3/ownership.sql"),
        include_str!("schema/format_3/limits.sql"),
        include_str!("schema/format_3/results.sql"),
        include_str!("schema/format_3/retention.sql"),
        include_str!("schema/format_3/requests.sql"),
        include_str!("schema/format_3/names.sql"),
    ],
];

/// What a file is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// It has no tables yet.
    Empty,
    /// It is ours, in that format.
    Ours(u32),
    /// Somebody else's tables.
    Foreign,
}

impl Content {
    const fn format(self) -> Option<u32> {
        match self {
            Self::Ours(version) => Some(version),
            Self::Empty | Self::Foreign => None,
        }
    }
}

/// Fails unless the file is ours, or may become ours; gives its format, if it has one. Changes nothing.
pub(super) fn check(connection: &Connection, name: &str) -> Result<Option<u32>, BackendError> {
    // One read transaction: otherwise another process could create the tables between two looks.
    let look = || connection.unchecked_transaction().and_then(|transaction| content(&transaction));
    let content = look().doing(|| format!("open the database {name}"))?;
    accept(content, name)?;
    Ok(content.format())
}

/// Brings the file to the present format; gives the one that it had, if it was another one.
pub(super) fn migrate(connection: &mut Connection, name: &str) -> Result<Option<u32>, BackendError> {
    let doing = || format!("create the tables of the database {name}");
    if connection.unchecked_transaction().and_then(|now| content(&now)).doing(doing)? == Content::Ours(FORMAT_VERSION) {
        return Ok(None);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let content = content(&transaction).doing(doing)?;
    accept(content, name)?;
    let version = content.format();
    // Somebody else may have done it meanwhile.
    if version == Some(FORMAT_VERSION) {
        return Ok(None);
    }
    bring_on(&transaction, version.unwrap_or(0)).doing(doing)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID).doing(doing)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION).doing(doing)?;
    transaction.commit().doing(doing)?;
    Ok(version)
}

/// Changes the tables of that format into those of the present one.
pub(super) fn bring_on(connection: &Connection, format: u32) -> rusqlite::Result<()> {
    let mut steps = MIGRATIONS.iter().skip(format as usize).copied().flatten();
    steps.try_for_each(|step| connection.execute_batch(step))
}

/// The number in a file that is ours.
pub(super) fn format(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0)).map(i32::unsigned_abs)
}

/// Whether pages at the end of the file can be given back one by one.
pub(super) fn shrinks_in_steps(connection: &Connection) -> rusqlite::Result<bool> {
    const INCREMENTAL: i64 = 2;
    connection.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).map(|mode| mode == INCREMENTAL)
}

fn accept(content: Content, name: &str) -> Result<(), BackendError> {
    let doing = || format!("open the database {name}");
    match content {
        Content::Empty => Ok(()),
        Content::Ours(found) if found > FORMAT_VERSION => {
            Err(BackendError::new(BackendErrorKind::NewerFormat { found }, doing()))
        }
        Content::Ours(_) => Ok(()),
        Content::Foreign => Err(BackendError::new(BackendErrorKind::Corrupt, doing())
            .because("another program's tables are in the file, which is left as it is")),
    }
}

fn content(transaction: &Transaction<'_>) -> rusqlite::Result<Content> {
    let number = |pragma: &str| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if number("application_id")? == APPLICATION_ID {
        return Ok(Content::Ours(number("user_version")?.unsigned_abs()));
    }
    let tables: bool = transaction.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    let marked = number("application_id")? != 0 || number("user_version")? != 0;
    Ok(if tables || marked { Content::Foreign } else { Content::Empty })
}
