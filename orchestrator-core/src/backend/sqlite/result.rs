//! Results that flow runs keep, under the identities of the calls that gave them.

use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::SqliteBackend;
use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, EncodedValue};
use crate::backend::{BackendError, BackendErrorKind, ResultIndex};
use crate::clock::Timestamp;
use crate::id::TaskRunId;

/// Stores a result, unless there is one.
pub(super) fn store(transaction: &Transaction<'_>, record: &CacheRecord) -> rusqlite::Result<()> {
    let CacheRecord { key, run, created, ref value, .. } = *record;
    let CachedValue::Encoded(EncodedValue { format, type_name, bytes }) = value else {
        return Ok(());
    };
    let insert = "INSERT OR IGNORE INTO result (key, run, created, format, type_name, digest, value)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let digest = blake3::hash(bytes);
    transaction
        .prepare_cached(insert)?
        .execute(params![
            key.0,
            run.as_uuid().as_bytes(),
            created.as_micros(),
            format,
            type_name,
            digest.as_bytes(),
            bytes,
        ])
        .map(drop)
}

impl ResultIndex for SqliteBackend {
    fn result(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        let doing = || format!("read a persisted result from the database {}", self.path.display());
        let select = "SELECT run, created, format, type_name, value, digest FROM result WHERE key = ?1";
        let found = self.read(doing, |connection| {
            let found = connection.prepare_cached(select)?.query_row([key.0], |row| {
                let value = EncodedValue { format: row.get(2)?, type_name: row.get(3)?, bytes: row.get(4)? };
                let digest: Vec<u8> = row.get(5)?;
                let intact = blake3::hash(&value.bytes).as_bytes()[..] == digest[..];
                let hit = CacheHit {
                    run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                    created: Timestamp::from_micros(row.get(1)?),
                    expires: None,
                    value: CachedValue::Encoded(value),
                };
                Ok((hit, intact))
            });
            found.optional()
        })?;
        match found {
            Some((_, false)) => Err(BackendError::new(BackendErrorKind::Corrupt, doing())
                .because("its bytes are not those that were stored")),
            Some((hit, true)) => Ok(Some(hit)),
            None => Ok(None),
        }
    }
}
