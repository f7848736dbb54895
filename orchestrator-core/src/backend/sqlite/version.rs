//! Whether somebody has changed what is leased. Whoever waits for others asks that all the time, so it costs next to
//! nothing as long as nobody writes, and little while others write history.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::lease::Lease;
use super::{SqliteBackend, lock};
use crate::backend::BackendError;

/// A log that was written to later than that may be written to again without its looks changing: systems tell times in
/// steps of milliseconds, and what is in the log counts a little later than it is there.
const SETTLING: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Debug)]
pub(super) struct Seen {
    /// The write-ahead log. Only its looks are asked for: to open and close it, or the index beside it, would take away
    /// the locks that SQLite has in this process.
    log: PathBuf,
    version: Mutex<Option<(Looks, u64)>>,
}

/// How the log looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Looks {
    written: SystemTime,
    length: u64,
    file: u64,
}

impl Seen {
    pub(super) fn of(database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), version: Mutex::default() }
    }

    /// Whether the looks of the log are enough.
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        lock(&self.version).is_some()
    }
}

impl Looks {
    /// `None` where a file that is open may look as it did though it was written to.
    fn of(log: &Path) -> Option<Self> {
        let found = std::fs::metadata(log).ok()?;
        Some(Self { written: found.modified().ok()?, length: found.len(), file: number(&found)? })
    }

    /// Whether it would look different by now if it had been written to since.
    fn is_settled(&self) -> bool {
        // A clock that was put back is waited for.
        self.written.elapsed().is_ok_and(|age| age > SETTLING)
    }
}

#[cfg(unix)]
fn number(found: &Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(found))
}

#[cfg(not(unix))]
fn number(_found: &Metadata) -> Option<u64> {
    None
}

impl SqliteBackend {
    /// A number that grows with every change of what those look at who wait; the file's triggers see to that.
    pub(super) fn lease_version(&self) -> Result<u64, BackendError> {
        // Before the file is asked: what is written in between changes the looks.
        let looks = Looks::of(&self.seen.log);
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
        *lock(&self.seen.version) = looks.filter(Looks::is_settled).map(|looks| (looks, version));
        Ok(version)
    }
}
