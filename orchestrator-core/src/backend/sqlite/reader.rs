//! A connection that reads, and reading where this process may not write.
//!
//! Those who read SQLite's write-ahead log and those who write it agree by a file beside the database, `-shm`. Who may not
//! write the database makes no such file, which its owner could not write then; and there may be no room for one. Without
//! it the database is read under no lock at all: what was read counts only if database and log are the same before and
//! afterwards, otherwise it is read again.
//!
//! A file of an older format is left as it is: what is read is a copy of it, which is brought to the present one. The copy
//! belongs to the connection, is in memory as far as it is small, and is made anew when the file was changed.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::error::is_full;
use super::stamp::Stamp;
use super::{open, schema};
use crate::backend::record::FORMAT_VERSION;

/// What SQLite calls its access to files without locks.
const WITHOUT_LOCKS: &str = if cfg!(windows) { "win32-none" } else { "unix-none" };

/// So often, and after that time, it is tried again to look at the files of somebody who writes.
pub(super) const TRIES: u32 = 20;
pub(super) const TRY_EVERY: Duration = Duration::from_millis(5);

#[cfg(test)]
thread_local! {
    /// How often this thread has opened a file to look at it.
    pub(super) static LOOKS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Looks at a file, and again a moment later as long as the files beside it cannot be used: those of somebody who writes may
/// be going or coming. Whoever only looks does so in one such loop, around all that may meet with it.
pub(super) fn patiently<T, E: Error + 'static>(mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut tries = 0;
    loop {
        match look() {
            Err(error) if tries < TRIES && may_pass(&error) => {
                tries += 1;
                thread::sleep(TRY_EVERY);
            }
            done => return done,
        }
    }
}

fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| cause.downcast_ref().is_some_and(cannot_share))
}

/// A connection that reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: Connection,
    path: PathBuf,
    /// How many orchestrators that are gone it shows as such.
    pub(super) covers: usize,
    reads: Reads,
}

/// What a connection reads.
#[derive(Debug)]
enum Reads {
    /// The file, in step with those who write it.
    Shared,
    /// The file, under no lock.
    WithoutLocks(Seen),
    /// A copy of what the file was.
    Copy(Seen),
}

impl Reader {
    /// For one who writes as well.
    pub(super) fn open(path: &Path, patience: Duration) -> rusqlite::Result<Self> {
        Self {
            connection: Connection::open_with_flags(path, open::flags())?,
            path: path.to_owned(),
            covers: 0,
            reads: Reads::Shared,
        }
        .prepared(patience)
    }

    /// For one who only looks: writes nothing, and brings nothing to the disk. To be called [`patiently`].
    pub(super) fn look(path: &Path, patience: Duration) -> rusqlite::Result<Self> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let has_log = has_content(&beside(path, "-wal"));
        let connection = Connection::open_with_flags(path, open::flags())?;
        // SQLite opens what may not be written to be read.
        let may_share = !connection.is_readonly("main")? || beside(path, "-shm").exists();
        if may_share {
            // What those have left who were killed is folded in by somebody who writes; files that are made here go again.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
            let reader =
                Self { connection, path: path.to_owned(), covers: 0, reads: Reads::Shared }.prepared(patience)?;
            match reader.connection.pragma_query_value(None, "schema_version", |_| Ok(())) {
                Err(error) if cannot_share(&error) => {}
                done => return done.map(|()| reader),
            }
        } else {
            drop(connection);
        }
        Self::without_locks(path)?.prepared(patience)
    }

    fn without_locks(path: &Path) -> rusqlite::Result<Self> {
        let seen = Seen::of(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if seen.log.as_ref().is_some_and(|log| log.bytes > 0) {
            let connection = Connection::open_with_flags_and_vfs(path, flags, WITHOUT_LOCKS)?;
            // The index of the log is then kept in memory.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection
        } else {
            Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)?
        };
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(Self { connection, path: path.to_owned(), covers: 0, reads: Reads::WithoutLocks(seen) })
    }

    fn prepared(self, patience: Duration) -> rusqlite::Result<Self> {
        self.connection.busy_timeout(patience)?;
        Ok(self)
    }

    /// Nothing is written from now on, not even by mistake.
    pub(super) fn read_only(self) -> rusqlite::Result<Self> {
        self.connection.pragma_update(None, "query_only", true)?;
        Ok(self)
    }

    /// Whether what was read may not have been there at any one time.
    pub(super) fn is_outdated(&self) -> bool {
        matches!(&self.reads, Reads::WithoutLocks(seen) if seen.has_changed(&self.path))
    }

    /// Whether what will be read is not what the file is by now.
    pub(super) fn is_behind(&self) -> bool {
        match &self.reads {
            Reads::Shared => false,
            Reads::WithoutLocks(seen) | Reads::Copy(seen) => seen.has_changed(&self.path),
        }
    }

    /// The same in the present format, of a file that is ours: a copy, if the file has an older one.
    pub(super) fn in_present_format(self) -> rusqlite::Result<Self> {
        let format = schema::format(&self.connection)?;
        if format >= FORMAT_VERSION {
            return Ok(self);
        }
        self.copied(format).map_err(|error| {
            let failure = error.sqlite_error().copied().unwrap_or(ffi::Error::new(ffi::SQLITE_ERROR));
            let said = format!(
                "it has format {format}, and no copy of it can be made and brought to format {FORMAT_VERSION} to be looked \
                 at: {error}; `orchestrator db migrate` brings the file itself there"
            );
            rusqlite::Error::SqliteFailure(failure, Some(said))
        })
    }

    fn copied(self, format: u32) -> rusqlite::Result<Self> {
        let seen = Seen::of(&self.path);
        // A database of its own that goes with the connection.
        let mut connection = Connection::open("")?;
        let step = Backup::new(&self.connection, &mut connection)?.step(-1)?;
        if step != StepResult::Done {
            return Err(busy("another process holds it"));
        }
        if self.is_outdated() {
            return Err(busy("it was changed while it was read"));
        }
        // The number stays that of the file.
        schema::bring_on(&connection, format)?;
        Ok(Self { connection, path: self.path, covers: 0, reads: Reads::Copy(seen) })
    }
}

/// The file was read under no lock, and was another one afterwards.
pub(super) fn changed_meanwhile() -> rusqlite::Error {
    busy("it was changed each time while it was read")
}

fn busy(said: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), Some(said.to_owned()))
}

/// Whether the file beside the database cannot be made or used.
pub(super) fn cannot_share(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    is_full(*failure)
        || matches!(failure.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
        || failure.extended_code == ffi::SQLITE_IOERR_SHMOPEN
        || failure.extended_code == ffi::SQLITE_IOERR_SHMMAP
}

/// The file that SQLite keeps beside the database under its name and that ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() > 0)
}

/// What database and log are like at a moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file: Option<Stamp>,
    log: Option<Stamp>,
}

impl Seen {
    fn of(path: &Path) -> Self {
        Self { file: Stamp::of(path), log: Stamp::of(&beside(path, "-wal")) }
    }

    /// Whether the files may be others by now than they were then.
    fn has_changed(&self, path: &Path) -> bool {
        let now = Self::of(path);
        let is_settled = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(Stamp::is_settled);
        *self != now || !is_settled(&now.file) || !is_settled(&now.log)
    }
}

/// The name under which SQLite opens a file that nobody changes.
fn immutable(path: &Path) -> OsString {
    let name = path.as_os_str().as_encoded_bytes();
    let mut uri = "file:".to_owned();
    if path.is_absolute() {
        uri.push_str(if cfg!(windows) { "///" } else { "//" });
    }
    for byte in name {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b':' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn names_are_written_so_that_sqlite_reads_them() {
        assert_eq!(immutable(Path::new("/a b/ö?#%.db")), "file:///a%20b/%C3%B6%3F%23%25.db?immutable=1");
        assert_eq!(immutable(Path::new("history.db")), "file:history.db?immutable=1");
    }
}
