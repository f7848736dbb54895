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
//! - `result`: what flow runs keep, with a digest of each value.
//! - `log`, `cache`.
//!
//! [`pack`]: super::packed::pack

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::Doing;
use crate::backend::record::FORMAT_VERSION;
use crate::backend::{BackendError, BackendErrorKind};

/// Marks a database file as ours: `ORCH`.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ORCH");

/// What brings a file from the format of the same index to the next one.
pub(super) const MIGRATIONS: [&str; FORMAT_VERSION as usize] = [
    r"
CREATE TABLE function (
    no INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT
) STRICT;
CREATE INDEX function_by_name ON function (name, key);

CREATE TABLE process (
    no INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    namespace INTEGER NOT NULL,
    started INTEGER NOT NULL,
    UNIQUE (host, pid, namespace, started)
) STRICT;

CREATE TABLE task_run (
    id BLOB NOT NULL PRIMARY KEY,
    function INTEGER NOT NULL,
    given_name TEXT,
    number INTEGER NOT NULL,
    parent BLOB,
    flow_run BLOB,
    tags TEXT,
    upstream BLOB,
    process INTEGER NOT NULL,
    created INTEGER NOT NULL,
    states TEXT NOT NULL,
    next_seq INTEGER NOT NULL,
    run_count INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_at INTEGER NOT NULL,
    message TEXT,
    start_time INTEGER,
    end_time INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX task_run_by_flow_run ON task_run (flow_run);
CREATE INDEX task_run_unfinished ON task_run (process) WHERE end_time IS NULL;

CREATE TABLE flow_run (
    id BLOB NOT NULL PRIMARY KEY,
    function INTEGER NOT NULL,
    given_name TEXT,
    number INTEGER NOT NULL,
    parent BLOB,
    flow_run BLOB,
    tags TEXT,
    upstream BLOB,
    process INTEGER NOT NULL,
    created INTEGER NOT NULL,
    states TEXT NOT NULL,
    next_seq INTEGER NOT NULL,
    run_count INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_at INTEGER NOT NULL,
    message TEXT,
    start_time INTEGER,
    end_time INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX flow_run_unfinished ON flow_run (process) WHERE end_time IS NULL;
CREATE INDEX flow_run_by_time ON flow_run (created, id);
CREATE INDEX flow_run_by_function ON flow_run (function, created, id);

CREATE TABLE history (
    run BLOB NOT NULL,
    first_seq INTEGER NOT NULL,
    states TEXT NOT NULL,
    PRIMARY KEY (run, first_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE amendment (
    run BLOB NOT NULL PRIMARY KEY,
    name TEXT,
    upstream BLOB,
    parameters TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    no INTEGER PRIMARY KEY,
    run BLOB NOT NULL,
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX log_by_run ON log (run);

CREATE TABLE cache (
    key BLOB NOT NULL PRIMARY KEY,
    task_key TEXT NOT NULL,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE INDEX cache_by_expiry ON cache (expires) WHERE expires IS NOT NULL;
",
    r"
ALTER TABLE amendment ADD COLUMN pause TEXT;

ALTER TABLE task_run ADD COLUMN cache_key BLOB;
ALTER TABLE task_run ADD COLUMN cache_reason TEXT;

CREATE TABLE result (
    key BLOB NOT NULL PRIMARY KEY,
    run BLOB NOT NULL,
    created INTEGER NOT NULL,
    format TEXT NOT NULL,
    type_name TEXT NOT NULL,
    digest BLOB NOT NULL,
    value BLOB NOT NULL
) STRICT;
",
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

/// Fails unless the file is ours, or may become ours; changes nothing.
pub(super) fn check(connection: &Connection, name: &str) -> Result<(), BackendError> {
    // One read transaction: otherwise another process could create the tables between two looks.
    let look = || connection.unchecked_transaction().and_then(|transaction| content(&transaction));
    accept(look().doing(|| format!("open the database {name}"))?, name)
}

/// Brings the file to the present format.
pub(super) fn migrate(connection: &mut Connection, name: &str) -> Result<(), BackendError> {
    let doing = || format!("create the tables of the database {name}");
    if connection.unchecked_transaction().and_then(|now| content(&now)).doing(doing)? == Content::Ours(FORMAT_VERSION) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let content = content(&transaction).doing(doing)?;
    accept(content, name)?;
    let version = match content {
        Content::Ours(version) => version,
        Content::Empty | Content::Foreign => 0,
    };
    for migration in MIGRATIONS.iter().skip(version as usize) {
        transaction.execute_batch(migration).doing(doing)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).doing(doing)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION).doing(doing)?;
    transaction.commit().doing(doing)
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
