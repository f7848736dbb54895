//! The backend that keeps history and cache in one SQLite file.
//!
//! One connection writes, a batch per transaction; reads have connections of their own, so that neither waits for the
//! other. Any number of processes may use the file at a time.

mod cache;
mod care;
mod claims;
mod crashes;
mod error;
mod lease;
mod limits;
mod look;
mod maintenance;
mod orphans;
mod ownership;
mod packed;
mod read;
mod requests;
mod result;
mod schema;
mod search;
mod serve;
mod version;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::maintenance::Maintenance;
use super::record::{Event, TakeOver};
use super::{BackendError, BackendErrorKind, EventStore, OwnerNo, Shared, StateBackend};
use error::Doing;
use result::Known;
use write::Writer;

/// So many read connections are kept open when nobody reads.
const IDLE_READERS: usize = 4;

/// How often a lock that SQLite does not wait for is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// How a database is used.
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteOptions {
    create: bool,
    max_bytes: Option<u64>,
    busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { create: true, max_bytes: None, busy_timeout: Duration::from_secs(5) }
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

    /// The size that this process does not let the file grow beyond, rounded down to whole pages; a file that is
    /// larger already keeps its size.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How long to wait while another process writes.
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
    writer: Mutex<Writer>,
    /// Where the results of runs are that ask for them.
    known: Arc<Known>,
    /// Connections that nobody reads from at the moment.
    readers: Mutex<Vec<Connection>>,
    /// Writes what must not wait for batches; opened when it is needed.
    aside: Mutex<Option<Connection>>,
    /// For what is leased; opened when it is needed.
    leases: Mutex<Option<Connection>>,
    seen: version::Seen,
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
        if options.create {
            create_folder(&path)?;
        } else if !path.exists() {
            let doing = format!("open the database {}", path.display());
            return Err(BackendError::new(BackendErrorKind::Missing, doing));
        }
        let (connection, migrated_from) = open_to_write(&path, &options)?;
        let known = Arc::new(Known::default());
        let writer = Mutex::new(Writer::new(connection, Arc::clone(&known)));
        let (readers, aside, leases) = (Mutex::default(), Mutex::default(), Mutex::default());
        let seen = version::Seen::of(&path);
        Ok(Self { path, options, writer, known, readers, aside, leases, seen, migrated_from })
    }

    /// Reads on a connection of its own; `doing` says what for, and is only called for an error.
    fn read<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open_to_read().doing(&doing)?,
        };
        let answer = query(&connection).doing(doing);
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        answer
    }

    /// Reads by several statements, all of which see the same: what changes in between is seen by none of them.
    fn read_at_once<T, S: Into<String>>(
        &self,
        doing: impl Fn() -> S,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
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
        let connection = Connection::open_with_flags(&self.path, flags())?;
        connection.busy_timeout(self.options.busy_timeout)?;
        prepare_to_write(&connection, &self.options)?;
        Ok(connection)
    }

    fn open_to_read(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, flags())?;
        connection.busy_timeout(self.options.busy_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}

impl EventStore for SqliteBackend {
    fn append(&self, batch: &[Event]) -> Result<(), BackendError> {
        lock(&self.writer).append(batch, None).doing(|| self.writing()).map(drop)
    }

    fn append_as(&self, owner: OwnerNo, batch: &[Event]) -> Result<(), BackendError> {
        match lock(&self.writer).append(batch, Some(owner)).doing(|| self.writing())? {
            true => Ok(()),
            false => Err(BackendError::new(BackendErrorKind::Fenced, self.writing())),
        }
    }

    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError> {
        let doing = || format!("take over flow run {} in the database {}", take_over.run, self.path.display());
        let taken = lock(&self.writer).take_over(take_over).doing(doing)?;
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

fn create_folder(path: &Path) -> Result<(), BackendError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|error| {
        let doing = format!("create the folder {} for the database", folder.display());
        BackendError::new(BackendErrorKind::Unavailable, doing).because(error)
    })
}

fn open_to_write(path: &Path, options: &SqliteOptions) -> Result<(Connection, Option<u32>), BackendError> {
    let name = path.display().to_string();
    let doing = || format!("open the database {name}");
    let create = if options.create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let mut connection = Connection::open_with_flags(path, flags() | create).doing(doing)?;
    connection.busy_timeout(options.busy_timeout).doing(doing)?;

    // Until the file is known to be ours, not even its write-ahead log is folded in when the connection is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).doing(doing)?;
    schema::check(&connection, &name)?;
    if connection.is_readonly("main").doing(doing)? {
        return Err(BackendError::new(BackendErrorKind::Unavailable, doing()).because("it may only be read"));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).doing(doing)?;

    // Of account only before the first table is there.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").doing(doing)?;
    use_write_ahead_log(&connection, options.busy_timeout).doing(doing)?;
    let migrated_from = schema::migrate(&mut connection, &name)?;
    if migrated_from.is_some() {
        maintenance::convert(&connection).doing(doing)?;
    }
    prepare_to_write(&connection, options).doing(doing)?;
    Ok((connection, migrated_from))
}

/// Settings that belong to a connection, not to the file.
fn prepare_to_write(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    // Folding the log in less often than SQLite would spares a page that is written again and again.
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    // In KiB. A batch whose pages do not fit is written to the log, and read back from there, several times over.
    connection.pragma_update(None, "cache_size", -32768)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(32);
    options.max_bytes.map_or(Ok(()), |bytes| limit(connection, bytes))
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Changing the journal of a new file needs it alone for a moment, which SQLite does not wait for.
fn use_write_ahead_log(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error::is_busy(&error) && start.elapsed() < patience => std::thread::sleep(RETRY_EVERY),
            done => return done,
        }
    }
}

fn limit(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    connection.pragma_update(None, "max_page_count", pages.max(1))
}

/// A panic while the lock was held has rolled its transaction back: what is guarded is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
