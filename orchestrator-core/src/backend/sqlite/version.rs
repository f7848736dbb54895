//! Whether somebody has changed what is leased. Whoever waits for others asks that all the time, so it costs next to
//! nothing as long as nobody writes, and little while others write history.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lease::Lease;
use super::reader::beside;
use super::stamp::Stamp;
use super::{SqliteBackend, lock};
use crate::backend::BackendError;

/// What was seen last.
#[derive(Debug)]
pub(super) struct Seen {
    /// The write-ahead log. Only its looks are asked for: to open and close it, or the index beside it, would take away
    /// the locks that SQLite has in this process.
    log: PathBuf,
    version: Mutex<Option<(Stamp, u64)>>,
}

impl Seen {
    pub(super) fn of(database: &Path) -> Self {
        Self { log: beside(database, "-wal"), version: Mutex::default() }
    }

    /// Whether the looks of the log are enough.
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        lock(&self.version).is_some()
    }
}

impl SqliteBackend {
    /// A number that grows with every change of what those look at who wait; the file's triggers see to that.
    pub(super) fn lease_version(&self) -> Result<u64, BackendError> {
        // Before the file is asked: what is written in between changes the looks.
        let looks = Stamp::of(&self.seen.log).filter(|looks| looks.file().is_some());
        if let Some((known, version)) = &*lock(&self.seen.version)
            && looks.as_ref() == Some(known)
        {
            return Ok(*version);
        }
        let doing = || format!("look for changes in the database {}", self.path.display());
        let version = self.lease(doing, |connection| {
            let version = connection.prepare_cached("SELECT no FROM lease_version")?.query_row([], |row| row.get(0));
            version.map(|version: i64| Lease::Given(version.cast_unsigned()))
        })?;
        *lock(&self.seen.version) = looks.filter(Stamp::is_settled).map(|looks| (looks, version));
        Ok(version)
    }
}
