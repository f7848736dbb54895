//! Maps the driver's errors to the kinds that all backends share.

use rusqlite::{ErrorCode, ffi};

use crate::backend::{BackendError, BackendErrorKind};

/// Lets the error of a driver call say what was being done.
pub(super) trait Doing<T> {
    /// The result with its error put into the form that backends share; `doing` is only called for an error.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, BackendError>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, BackendError> {
        self.map_err(|error| BackendError::new(kind(&error), doing()).because(error))
    }
}

/// Whether another connection was in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    kind(error) == BackendErrorKind::Busy
}

/// Whether the same may succeed another time.
pub(super) fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(kind(error), BackendErrorKind::Busy | BackendErrorKind::Full)
}

/// Whether SQLite could not make sense of the file.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure_kind(*failure) == BackendErrorKind::Corrupt)
}

fn kind(error: &rusqlite::Error) -> BackendErrorKind {
    if let rusqlite::Error::SqliteFailure(failure, _) = error {
        return failure_kind(*failure);
    }
    let unreadable = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    );
    if unreadable { BackendErrorKind::Corrupt } else { BackendErrorKind::Other }
}

fn failure_kind(failure: ffi::Error) -> BackendErrorKind {
    if matches!(failure.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) {
        BackendErrorKind::Busy
    } else if is_full(failure) {
        BackendErrorKind::Full
    } else if matches!(failure.code, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) {
        BackendErrorKind::Corrupt
    } else if matches!(failure.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) {
        BackendErrorKind::Unavailable
    } else {
        BackendErrorKind::Other
    }
}

/// A full disk is reported as such by a write, and as an I/O error by what makes room or brings to the disk.
pub(super) fn is_full(failure: ffi::Error) -> bool {
    let making_room = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMSIZE,
    ];
    failure.code == ErrorCode::DiskFull || making_room.contains(&failure.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_its_kind() {
        let cases = [
            (ffi::SQLITE_BUSY, BackendErrorKind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, BackendErrorKind::Busy),
            (ffi::SQLITE_LOCKED, BackendErrorKind::Busy),
            (ffi::SQLITE_FULL, BackendErrorKind::Full),
            (ffi::SQLITE_IOERR_WRITE, BackendErrorKind::Full),
            (ffi::SQLITE_IOERR_READ, BackendErrorKind::Other),
            (ffi::SQLITE_NOTADB, BackendErrorKind::Corrupt),
            (ffi::SQLITE_CORRUPT, BackendErrorKind::Corrupt),
            (ffi::SQLITE_CANTOPEN, BackendErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, BackendErrorKind::Unavailable),
            (ffi::SQLITE_PERM, BackendErrorKind::Unavailable),
            (ffi::SQLITE_MISUSE, BackendErrorKind::Other),
        ];
        for (code, expected) in cases {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(kind(&error), expected, "SQLite's code {code}");
        }
        let unread = rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, "unheard of".into());
        assert_eq!(kind(&unread), BackendErrorKind::Corrupt);
        assert_eq!(kind(&rusqlite::Error::QueryReturnedNoRows), BackendErrorKind::Other);
    }
}
