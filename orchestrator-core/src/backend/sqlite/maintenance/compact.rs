//! Gives room back to the system.
//!
//! Files are made so that they shrink from their end, a few pages at a time. Those of older versions have to be written
//! anew for that, once.

use rusqlite::Connection;

use super::super::{SqliteBackend, error, schema};
use super::{Deadline, info};
use crate::backend::maintenance::Compacted;
use crate::backend::{BackendError, BackendErrorKind};

/// A file up to this size is written anew while others wait to write: it takes less time than their patience.
const AT_ONCE: u64 = 256 << 20;

/// A file up to this size is written anew when it is opened.
const WHEN_OPENED: u64 = 32 << 20;

/// So many pages are given back between two looks at the time.
const PAGES: u32 = 32;

pub(super) fn compact(backend: &SqliteBackend) -> Result<Compacted, BackendError> {
    compacted(backend).map_err(|error| {
        // What is moved is written to the log first, or to another file.
        if error.kind() == BackendErrorKind::Full {
            return error.because("it needs some room to do so; the file is as it was");
        }
        error
    })
}

fn compacted(backend: &SqliteBackend) -> Result<Compacted, BackendError> {
    let total = || {
        let (file, log) = info::sizes(backend);
        file + log
    };
    let bytes_before = total();
    let doing = "compact";
    if backend.on_writer(doing, schema::shrinks_in_steps)? {
        while backend.on_writer(doing, |connection| shrink(connection, 0))? {}
    } else {
        if bytes_before > AT_ONCE && backend.others_are_present()? {
            return Err(BackendError::new(BackendErrorKind::Unavailable, backend.looking_after(doing)).because(
                "an older version made it, so that it has to be written anew once, which takes long: do it while no \
                 other process uses it",
            ));
        }
        backend.on_writer(doing, write_anew)?;
    }
    // Others who read at the moment keep the log as it is; then it is emptied by whoever closes the file last.
    let emptied = backend.on_writer(doing, |connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
    if let Err(error) = emptied
        && error.kind() != BackendErrorKind::Busy
    {
        return Err(error);
    }
    Ok(Compacted { bytes_before, bytes_after: total() })
}

/// Gives pages back for a few milliseconds; whether there is more to give back than `spare` pages.
pub(super) fn shrink(connection: &Connection, spare: i64) -> rusqlite::Result<bool> {
    let deadline = Deadline::new();
    loop {
        let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free <= spare {
            return Ok(false);
        }
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({})", i64::from(PAGES).min(free - spare)))?;
        if deadline.is_over() {
            return Ok(true);
        }
    }
}

/// Lets a small file that an older version made shrink in steps from now on.
pub(in super::super) fn convert(connection: &Connection) -> rusqlite::Result<()> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let bytes = number("page_count")?.saturating_mul(number("page_size")?).unsigned_abs();
    if bytes > WHEN_OPENED || schema::shrinks_in_steps(connection)? {
        return Ok(());
    }
    match write_anew(connection) {
        // There is another time.
        Err(error) if error::is_passing(&error) => Ok(()),
        done => done,
    }
}

fn write_anew(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
}

impl SqliteBackend {
    /// Whether processes other than this one have not left.
    fn others_are_present(&self) -> Result<bool, BackendError> {
        let found = self.read(
            || self.looking_after("compact"),
            |connection| {
                let mut statement =
                    connection.prepare("SELECT pid FROM process WHERE ended IS NULL AND lease_until > 0")?;
                let pids = statement.query_map([], |row| row.get::<_, u32>(0))?;
                pids.collect::<rusqlite::Result<Vec<_>>>()
            },
        )?;
        Ok(found.into_iter().any(|pid| pid != std::process::id()))
    }
}
