//! The backend that keeps history and cache in one SQLite file.
//!
//! One connection writes, a batch per transaction; reads have connections of their own, so that neither waits for the
//! other. Any number of processes may use the file at a time.

mod cache;
mod care;
mod claims;
mod crashes;
mod error;
mod gone;
mod lease;
mod limits;
mod look;
mod maintenance;
mod open;
mod orphans;
mod ownership;
mod packed;
mod read;
mod reader;
mod requests;
mod result;
mod schema;
mod search;
mod serve;
mod stamp;
mod version;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::maintenance::Maintenance;
use super::record::{Event, TakeOver};
use super::{BackendError, BackendErrorKind, EventStore, OwnerNo, Shared, StateBackend};
use error::Doing;
use gone::Gone;
use open::Opened;
use reader::Reader;
use result::Known;
use write::Writer;

/// So many read connections are kept open when nobody reads.
const IDLE_READERS: usize = 4;

/// How a database is used.
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteOptions {
    create: bool,
    look_only: bool,
    max_bytes: Option<u64>,
    busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { create: true, look_only: false, max_bytes: None, busy_timeout: Duration::from_secs(5) }
    }
}

impl SqliteOptions {
    /// A file of any size, and five seconds' patience with other processes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a file that is not there is made, with its folder; `true` if not set.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file is to be looked at above all: it is opened to be read, so that it may be one that this process
    /// cannot write, and none is made. What is written all the same opens it to write first.
    pub fn look_only(mut self, look: bool) -> Self {
        self.look_only = look;
        self
    }

    /// The size that this process does not let the file grow beyond, rounded down to whole pages; a file that is
    /// larger already keeps its size. Making the tables, or bringing them to the present format, takes what it needs.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How long to wait at most while another process has the file locked; five seconds if not set. It bounds each
    /// question and each change by itself: batches of history, slots, claims, limits, heartbeats. What takes longer fails
    /// as [`Busy`](BackendErrorKind::Busy), and whether it is tried again is up to who asked. With a time of zero nothing
    /// is waited for.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }
}

/// History and cache in a SQLite file.
///
/// Of cached values only [`Encoded`](super::record::CachedValue::Encoded) ones are stored: a
/// [`Live`](super::record::CachedValue::Live) one means nothing outside its process and is passed over.
#[derive(Debug)]
pub struct SqliteBackend {
    path: PathBuf,
    options: SqliteOptions,
    /// For batches of events, above all; opened when it is needed where the file is only looked at.
    writer: Mutex<Option<Writer>>,
    /// Where the results of runs are that ask for them.
    known: Arc<Known>,
    /// Connections that nobody reads from at the moment.
    readers: Mutex<Vec<Reader>>,
    /// Who is gone, and could not be ended in the file.
    gone: Mutex<Vec<Gone>>,
    /// Writes what must not wait for batches; opened when it is needed.
    aside: Mutex<Option<Connection>>,
    /// For what is leased; opened when it is needed.
    leases: Mutex<Option<Connection>>,
    seen: version::Seen,
    /// Which file was opened.
    file: Option<stamp::Identity>,
    /// The format that the file had, if it was another one.
    migrated_from: Option<u32>,
}

impl SqliteBackend {
    /// Opens a database file; missing folders, the file and its tables are created.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or created, is no database of ours, or was written by a newer version. Such a file
    /// is not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Opens a database file with options; missing folders, the file and its tables are created.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or created, is no database of ours, or was written by a newer version. Such a file
    /// is not changed.
    pub fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, BackendError> {
        let path = path.as_ref().to_path_buf();
        let known = Arc::new(Known::default());
        let (writer, readers, migrated_from) = match open::open(&path, &options)? {
            Opened::ToWrite(connection, migrated_from) => {
                (Some(Writer::new(connection, Arc::clone(&known))), Vec::new(), migrated_from)
            }
            Opened::ToLook(reader) => (None, vec![reader], None),
        };
        let (writer, readers, gone) = (Mutex::new(writer), Mutex::new(readers), Mutex::default());
        let (seen, file) = (version::Seen::of(&path), stamp::identity(&path));
        Ok(Self {
            path,
            options,
            writer,
            known,
            readers,
            gone,
            aside: Mutex::default(),
            leases: Mutex::default(),
            seen,
            file,
            migrated_from,
        })
    }

    /// Reads on a connection of its own; `doing` says what for, and is only called for an error. The query is made again
    /// if the file was changed meanwhile and could only be read without locks.
    fn read<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        query: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let start = Instant::now();
        let look = || loop {
            let (idle, gone) = self.idle_reader();
            let reader = idle.map_or_else(|| open::reader(&self.path, &self.options, &gone), Ok)?;
            let answer = query(&reader.connection);
            if !reader.is_outdated() {
                if !answer.as_ref().is_err_and(reader::cannot_share) {
                    self.keep_for_others(reader);
                }
                return answer;
            }
            if start.elapsed() > self.options.busy_timeout {
                return Err(reader::changed_meanwhile());
            }
            // Whoever writes is given a moment, and a core.
            std::thread::sleep(reader::TRY_EVERY);
        };
        let answer = if self.options.look_only { reader::patiently(look) } else { look() };
        answer.doing(doing)
    }

    fn keep_for_others(&self, reader: Reader) {
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
    }

    /// A connection that nobody reads from, or else who is to be covered by a new one. Those that were in use when somebody
    /// was found to be gone are closed, and those that would read what the file was.
    fn idle_reader(&self) -> (Option<Reader>, Vec<Gone>) {
        let gone = lock(&self.gone);
        let mut readers = lock(&self.readers);
        let is_outdated = |reader: &mut Reader| reader.covers != gone.len() || reader.is_behind();
        let outdated: Vec<Reader> = readers.extract_if(.., is_outdated).collect();
        let idle = readers.pop();
        drop(readers);
        let gone = if idle.is_none() { gone.clone() } else { Vec::new() };
        drop(outdated);
        (idle, gone)
    }

    /// Fails if the file was taken away, or another one put in its place: what is written into it is nowhere then.
    fn still_there(&self) -> Result<(), BackendError> {
        if self.file.is_none() || stamp::identity(&self.path) == self.file {
            return Ok(());
        }
        let gone = "it was removed, moved or replaced while this process used it";
        Err(BackendError::new(BackendErrorKind::Unavailable, self.writing()).because(gone))
    }

    /// Writes on the connection that writes batches.
    fn write<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let mut writer = lock(&self.writer);
        let writer = match &mut *writer {
            Some(writer) => writer,
            none => none.insert(Writer::new(self.open_aside().doing(&doing)?, Arc::clone(&self.known))),
        };
        work(writer).doing(doing)
    }

    /// Reads by several statements, all of which see the same: what changes in between is seen by none of them.
    fn read_at_once<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        query: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        self.read(doing, |connection| query(&*connection.unchecked_transaction()?))
    }

    fn writing(&self) -> String {
        format!("write to the database {}", self.path.display())
    }

    /// Writes on the connection that is not the journal's, in a transaction; one that is not committed is rolled back.
    fn write_aside<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        work: impl FnOnce(Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let mut aside = lock(&self.aside);
        let connection = match &mut *aside {
            Some(connection) => connection,
            none => none.insert(self.open_aside().doing(&doing)?),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).doing(&doing)?;
        work(transaction).doing(doing)
    }

    fn open_aside(&self) -> rusqlite::Result<Connection> {
        open::another(&self.path, &self.options)
    }
}

impl EventStore for SqliteBackend {
    fn append(&self, batch: &[Event]) -> Result<(), BackendError> {
        self.still_there()?;
        self.write(|| self.writing(), |writer| writer.append(batch, None)).map(drop)
    }

    fn append_as(&self, owner: OwnerNo, batch: &[Event]) -> Result<(), BackendError> {
        self.still_there()?;
        match self.write(|| self.writing(), |writer| writer.append(batch, Some(owner)))? {
            true => Ok(()),
            false => Err(BackendError::new(BackendErrorKind::Fenced, self.writing())),
        }
    }

    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError> {
        let doing = || format!("take over flow run {} in the database {}", take_over.run, self.path.display());
        let taken = self.write(doing, |writer| writer.take_over(take_over))?;
        taken.ok_or_else(|| BackendError::new(BackendErrorKind::Fenced, doing()))
    }
}

impl Shared for SqliteBackend {}

impl StateBackend for SqliteBackend {
    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        Some(self)
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}

/// A panic while the lock was held has rolled its transaction back: what is guarded is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
