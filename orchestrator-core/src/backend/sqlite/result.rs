//! Results that flow runs keep, under the identities of the calls that gave them.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::error::Doing;
use super::{SqliteBackend, lock};
use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, EncodedValue, StoredValue};
use crate::backend::{BackendError, BackendErrorKind, ResultIndex};
use crate::clock::Timestamp;
use crate::id::TaskRunId;

/// Stores a result, unless there is one.
pub(super) fn store(transaction: &Transaction<'_>, record: &CacheRecord) -> rusqlite::Result<()> {
    let CacheRecord { key, run, flow_run, created, ref value, .. } = *record;
    let insert = "INSERT OR IGNORE INTO result
            (key, flow_run, run, created, format, type_name, digest, size, value, location)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let mut insert = transaction.prepare_cached(insert)?;
    let flow_run = flow_run.map(|flow_run| flow_run.as_uuid().into_bytes());
    let (run, created) = (run.as_uuid().into_bytes(), created.as_micros());
    match value {
        CachedValue::Live(_) => Ok(()),
        CachedValue::Encoded(EncodedValue { format, type_name, bytes }) => {
            let (digest, size) = (blake3::hash(bytes), i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            let (bytes, location) = (&**bytes, None::<&str>);
            let digest = digest.as_bytes();
            insert
                .execute(params![key.0, flow_run, run, created, format, type_name, digest, size, bytes, location])
                .map(drop)
        }
        CachedValue::Stored(StoredValue { location, size, digest, format, type_name }) => {
            let (size, bytes) = (i64::try_from(*size).unwrap_or(i64::MAX), None::<&[u8]>);
            let inserted = insert
                .execute(params![key.0, flow_run, run, created, format, type_name, digest, size, bytes, location])?;
            if inserted == 0 {
                // Another result is there, unless this is the same batch again.
                let unreferenced = "INSERT OR IGNORE INTO unreferenced (location)
                    SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM result WHERE key = ?2 AND location = ?1)";
                transaction.execute(unreferenced, params![location, key.0])?;
            }
            Ok(())
        }
    }
}

/// Deletes what is kept under a key.
pub(super) fn discard(transaction: &Transaction<'_>, key: &CacheKey) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM result WHERE key = ?1", [key.0]).map(drop)
}

impl ResultIndex for SqliteBackend {
    fn result(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        let doing = || format!("read a persisted result from the database {}", self.path.display());
        let select = "SELECT run, created, format, type_name, digest, size, value, location FROM result WHERE key = ?1";
        let found = self.read(doing, |connection| {
            let read =
                |row: &Row<'_>| Ok(hit(row).unwrap_or_else(|error| Err(format!("its record is damaged: {error}"))));
            connection.prepare_cached(select)?.query_row([key.0], read).optional()
        })?;
        let damaged = |why| BackendError::new(BackendErrorKind::Damaged, doing()).because(why);
        found.transpose().map_err(damaged)
    }

    fn unreferenced_objects(&self, most: usize) -> Result<Vec<String>, BackendError> {
        let doing = || format!("look for objects to delete in the database {}", self.path.display());
        self.read(doing, |connection| {
            let mut select = connection.prepare_cached("SELECT location FROM unreferenced LIMIT ?1")?;
            select.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?.collect()
        })
    }

    fn objects_deleted(&self, names: &[String]) -> Result<(), BackendError> {
        let doing = || format!("write to the database {}", self.path.display());
        lock(&self.writer).objects_deleted(names).doing(doing)
    }
}

/// What a row says, or why it is not to be believed.
fn hit(row: &Row<'_>) -> rusqlite::Result<Result<CacheHit, String>> {
    let (format, type_name) = (row.get::<_, String>(2)?.into(), row.get::<_, String>(3)?.into());
    let (digest, size) = (row.get::<_, [u8; 32]>(4)?, row.get::<_, i64>(5)?.cast_unsigned());
    let value = match (row.get_ref(6)?.as_blob_or_null()?, row.get::<_, Option<String>>(7)?) {
        (Some(bytes), _) if bytes.len() as u64 != size || blake3::hash(bytes).as_bytes() != &digest => {
            return Ok(Err("its bytes are not those that were stored".to_owned()));
        }
        (Some(bytes), _) => {
            CachedValue::Encoded(EncodedValue { format, type_name, bytes: bytes::Bytes::copy_from_slice(bytes) })
        }
        (None, Some(location)) => CachedValue::Stored(StoredValue { location, size, digest, format, type_name }),
        (None, None) => return Ok(Err("its record has neither bytes nor the name of an object".to_owned())),
    };
    Ok(Ok(CacheHit {
        run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(0)?)),
        created: Timestamp::from_micros(row.get(1)?),
        expires: None,
        value,
    }))
}
