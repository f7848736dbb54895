//! How a database file is opened.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::error::{self, Doing};
use super::reader::{self, Reader};
use super::{SqliteOptions, gone, maintenance, schema};
use crate::backend::record::FORMAT_VERSION;
use crate::backend::{BackendError, BackendErrorKind};

/// How often a lock that SQLite does not wait for is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// A file that was opened.
pub(super) enum Opened {
    /// To be written, and the format that it had, if it was another one.
    ToWrite(Connection, Option<u32>),
    ToLook(Reader),
}

pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, BackendError> {
    if path.as_os_str() == IN_MEMORY {
        return Err(BackendError::new(BackendErrorKind::Unavailable, opening(path)).because(NO_MEMORY));
    }
    if options.create && !options.look_only {
        create_folder(path)?;
    } else {
        find(path)?;
    }
    if options.look_only {
        return look(path, options).map(Opened::ToLook);
    }
    let (connection, migrated_from) = to_write(path, options)?;
    Ok(Opened::ToWrite(connection, migrated_from))
}

/// Opens a file of ours to look at it.
fn look(path: &Path, options: &SqliteOptions) -> Result<Reader, BackendError> {
    patiently(path, || {
        let (reader, found) = to_look(path, options)?;
        if found.is_none() {
            let nothing = "the file has no history in it. What is written last stands in a file of that name with `-wal` at \
                 its end, which belongs to it";
            return Err(BackendError::new(BackendErrorKind::Missing, opening(path)).because(nothing));
        }
        reader.in_present_format().and_then(Reader::read_only).doing(|| opening(path))
    })
}

/// Opens a file for a look, and tells its format if it is ours.
fn to_look(path: &Path, options: &SqliteOptions) -> Result<(Reader, Option<u32>), BackendError> {
    let reader = Reader::look(path, options.busy_timeout).doing(|| opening(path))?;
    let found = schema::check(&reader.connection, &path.display().to_string())?;
    Ok((reader, found))
}

/// Looks at a file as often as it takes, and says why if it cannot be opened.
fn patiently<T>(path: &Path, look: impl FnMut() -> Result<T, BackendError>) -> Result<T, BackendError> {
    reader::patiently(look).map_err(|error| why_not(path, error, false))
}

/// Fails unless there is a file that can be read.
fn find(path: &Path) -> Result<(), BackendError> {
    let unavailable = || BackendError::new(BackendErrorKind::Unavailable, opening(path));
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(BackendError::new(BackendErrorKind::Missing, opening(path)))
        }
        Err(error) => Err(match file_above(path) {
            Some(file) => unavailable().because(no_folder(file)),
            None => unavailable().because(error),
        }),
        Ok(found) if found.is_dir() => Err(unavailable().because(NO_FILE)),
        Ok(_) => Ok(()),
    }
}

const NO_FILE: &str = "it is a folder, not a file";

/// What SQLite takes for a database that no other connection sees.
const IN_MEMORY: &str = ":memory:";
const NO_MEMORY: &str = "a history that nothing outlives is the memory backend's, which `memory` names";

/// What stands where the path has a folder, and is none.
fn file_above(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|above| above.exists()).filter(|above| !above.is_dir())
}

fn no_folder(file: &Path) -> String {
    format!("{} is a file, not a folder", file.display())
}

fn opening(path: &Path) -> String {
    format!("open the database {}", path.display())
}

/// A file of that format that is to be written.
fn may_only_be_read(path: &Path, found: Option<u32>) -> BackendError {
    let why = match found {
        Some(found) if found < FORMAT_VERSION => format!(
            "it has format {found} and is to be brought to format {FORMAT_VERSION} first, but it may only be read"
        ),
        _ => "it may only be read".to_owned(),
    };
    BackendError::new(BackendErrorKind::Unavailable, opening(path)).because(why)
}

/// SQLite does not say why it cannot open a file, or make one; the system does.
fn why_not(path: &Path, error: BackendError, creates: bool) -> BackendError {
    if error.kind() != BackendErrorKind::Unavailable {
        return error;
    }
    let unavailable = || BackendError::new(BackendErrorKind::Unavailable, opening(path));
    let found = match File::open(path) {
        Err(missing) if creates && missing.kind() == ErrorKind::NotFound => can_make_files_beside(path),
        found => found.map(drop),
    };
    match found {
        _ if path.is_dir() => unavailable().because(NO_FILE),
        Err(why) => unavailable().because(why),
        Ok(_) => error,
    }
}

/// Makes a file in the same folder, and removes it: one that is of nobody else's.
fn can_make_files_beside(path: &Path) -> io::Result<()> {
    let probe = path.with_file_name(format!(".orchestrator-{}", std::process::id()));
    File::create_new(&probe)?;
    fs::remove_file(&probe)
}

fn create_folder(path: &Path) -> Result<(), BackendError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(|error| {
        let doing = format!("create the folder {} for the database", folder.display());
        let cannot = BackendError::new(BackendErrorKind::Unavailable, doing);
        match file_above(path) {
            Some(file) => cannot.because(no_folder(file)),
            None => cannot.because(error),
        }
    })
}

fn to_write(path: &Path, options: &SqliteOptions) -> Result<(Connection, Option<u32>), BackendError> {
    let name = path.display().to_string();
    let doing = || opening(path);
    let create = if options.create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let opened = Connection::open_with_flags(path, flags() | create).doing(doing);
    let mut connection = opened.map_err(|error| why_not(path, error, options.create))?;
    if connection.is_readonly("main").doing(doing)? {
        drop(connection);
        let (_, found) = patiently(path, || to_look(path, options))?;
        return Err(may_only_be_read(path, found));
    }
    connection.busy_timeout(options.busy_timeout).doing(doing)?;

    // Until the file is known to be ours, not even its write-ahead log is folded in when the connection is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).doing(doing)?;
    let found = schema::check(&connection, &name)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).doing(doing)?;

    if found.is_none() {
        // Of account only before the first table is there; later on it would be written each time.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").doing(doing)?;
    }
    use_write_ahead_log(&connection, options.busy_timeout).doing(doing)?;
    let migrated_from = schema::migrate(&mut connection, &name)?;
    if migrated_from.is_some() {
        maintenance::convert(&connection).doing(doing)?;
    }
    prepare_to_write(&connection, options).doing(doing)?;
    Ok((connection, migrated_from))
}

/// One more connection that writes to a file that is in order.
pub(super) fn another(path: &Path, options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(options.busy_timeout)?;
    if connection.is_readonly("main")? {
        // Before anything is read: files would be made beside it.
        let readonly = ffi::Error::new(ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(readonly, Some("it may only be read".to_owned())));
    }
    if options.look_only {
        match schema::format(&connection)? {
            FORMAT_VERSION => {}
            found => return Err(not_to_be_written(found)),
        }
    }
    prepare_to_write(&connection, options)?;
    Ok(connection)
}

/// Who only looks leaves it to others to bring a file to the present format.
fn not_to_be_written(found: u32) -> rusqlite::Error {
    let said = format!(
        "it has format {found}, and nothing is written into it before it is brought to format {FORMAT_VERSION}: \
         `orchestrator db migrate` does so, and any pipeline of this version that uses it"
    );
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), Some(said))
}

/// One more connection that reads.
pub(super) fn reader(path: &Path, options: &SqliteOptions, gone: &[gone::Gone]) -> rusqlite::Result<Reader> {
    let mut reader = if options.look_only {
        Reader::look(path, options.busy_timeout)?.in_present_format()?
    } else {
        Reader::open(path, options.busy_timeout)?
    };
    gone::cover(&reader.connection, gone)?;
    reader.covers = gone.len();
    reader.read_only()
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

pub(super) fn flags() -> OpenFlags {
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
