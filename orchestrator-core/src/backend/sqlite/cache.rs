//! The cache: encoded results under their keys.

use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::SqliteBackend;
use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, EncodedValue};
use crate::backend::{BackendError, CacheIndex};
use crate::clock::Timestamp;
use crate::id::TaskRunId;

/// So many results are stored between two searches for expired ones.
const PRUNE_EVERY: u32 = 256;

/// At most so many expired results are deleted at a time, so that no batch takes long for it.
const PRUNE_AT_MOST: u32 = 1024;

/// Stores results, and deletes expired ones now and then.
#[derive(Debug, Default)]
pub(super) struct CacheWriter {
    /// How many more results are stored before expired ones are searched for.
    prune_in: u32,
}

impl CacheWriter {
    pub(super) fn store(&mut self, transaction: &Transaction<'_>, record: &CacheRecord) -> rusqlite::Result<()> {
        let CacheRecord { key, task_key, run, created, expires, ref value, .. } = *record;
        let CachedValue::Encoded(EncodedValue { format, type_name, bytes }) = value else {
            return Ok(());
        };
        let insert = "INSERT OR REPLACE INTO cache (key, task_key, run, created, expires, format, type_name, value)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        transaction.prepare_cached(insert)?.execute(params![
            key.0,
            task_key,
            run.as_uuid().as_bytes(),
            created.as_micros(),
            expires.map(Timestamp::as_micros),
            format,
            type_name,
            &**bytes,
        ])?;
        self.prune(transaction, created)
    }

    /// There is no clock here: what had expired when a result was made is expired for everyone.
    fn prune(&mut self, transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
        if let Some(left) = self.prune_in.checked_sub(1) {
            self.prune_in = left;
            return Ok(());
        }
        let delete = "DELETE FROM cache WHERE rowid IN (SELECT rowid FROM cache WHERE expires <= ?1 LIMIT ?2)";
        transaction.prepare_cached(delete)?.execute(params![now.as_micros(), PRUNE_AT_MOST])?;
        self.prune_in = PRUNE_EVERY;
        Ok(())
    }
}

impl CacheIndex for SqliteBackend {
    fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        let select = "SELECT run, created, expires, format, type_name, value FROM cache WHERE key = ?1";
        self.read(
            || format!("look for a cached result in the database {}", self.path.display()),
            |connection| {
                let hit = connection.prepare_cached(select)?.query_row([key.0], |row| {
                    let value = EncodedValue {
                        format: row.get::<_, String>(3)?.into(),
                        type_name: row.get::<_, String>(4)?.into(),
                        bytes: row.get::<_, Vec<u8>>(5)?.into(),
                    };
                    Ok(CacheHit {
                        run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                        created: Timestamp::from_micros(row.get(1)?),
                        expires: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros),
                        value: CachedValue::Encoded(value),
                    })
                });
                hit.optional()
            },
        )
    }
}
