//! Results that flow runs keep, under the identities of the calls that gave them.

mod known;
mod write;

use rusqlite::{Connection, OptionalExtension, Row, Statement, TransactionBehavior, params};
use uuid::Uuid;

use super::SqliteBackend;
use crate::backend::record::{CacheHit, CacheKey, CachedValue, EncodedValue, Interrupted, StoredResult, StoredValue};
use crate::backend::{BackendError, BackendErrorKind, ResultIndex};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, TaskRunId};

pub(super) use known::Known;
pub(super) use write::{Batch, ResultWriter};

/// The columns that [`value`] reads.
macro_rules! value {
    () => {
        "SELECT format, type_name, digest, size, value, store, location"
    };
}

/// Results with their encodings.
macro_rules! encoded {
    () => {
        "result LEFT JOIN encoding ON encoding.no = result.encoding"
    };
}

/// All rows of a root flow run.
fn places(connection: &Connection, root: FlowRunId) -> rusqlite::Result<Vec<(u64, i64)>> {
    let select = "SELECT no, key FROM result_span JOIN result ON no BETWEEN first AND last WHERE root = ?1";
    let mut select = connection.prepare_cached(select)?;
    // What has no key cannot be asked for.
    let place = |row: &Row<'_>| Ok((row.get(0)?, row.get(1).map(CacheKey).ok()));
    let places = select.query_map([root.as_uuid().as_bytes()], place)?;
    places.filter_map(|place| place.map(|(no, key)| Some(known::place(&key?, no))).transpose()).collect()
}

impl ResultIndex for SqliteBackend {
    fn result(&self, root: FlowRunId, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        let doing = || format!("read a persisted result from the database {}", self.path.display());
        let numbers = self.known.find(root, key, || self.read(doing, |connection| places(connection, root)))?;
        let select = concat!(value!(), ", run, created FROM ", encoded!(), " WHERE result.no = ?1 AND key = ?2");
        for no in numbers {
            let found = self.read(doing, |connection| {
                // A column that is not what it should be is in this row: the database itself is sound.
                let read = |row: &Row<'_>| Ok(hit(row).unwrap_or_else(|error| Err(unreadable(&error))));
                connection.prepare_cached(select)?.query_row(params![no, key.0], read).optional()
            })?;
            if let Some(found) = found {
                let damaged = |why| BackendError::new(BackendErrorKind::Damaged, doing()).because(why);
                return found.map(Some).map_err(damaged);
            }
        }
        Ok(None)
    }

    fn let_go_of_results(&self, root: FlowRunId) {
        self.known.let_go(root);
    }

    fn unreferenced_objects(&self, store: &str, most: usize) -> Result<Vec<String>, BackendError> {
        self.read(
            || self.looking_for_objects(),
            |connection| {
                let select = "SELECT location FROM unreferenced WHERE store = ?1 LIMIT ?2";
                let mut select = connection.prepare_cached(select)?;
                select.query_map(params![store, number(most)], |row| row.get(0))?.collect()
            },
        )
    }

    fn objects_deleted(&self, store: &str, names: &[String]) -> Result<(), BackendError> {
        let delete = "DELETE FROM unreferenced WHERE store = ?1 AND location = ?2";
        self.forget(delete, names, |statement, name| statement.execute([store, name]))
    }

    fn objects_of(&self, run: FlowRunId) -> Result<Vec<String>, BackendError> {
        self.read(
            || self.looking_for_objects(),
            |connection| {
                let select = "SELECT location FROM result WHERE flow_run = ?1 AND location IS NOT NULL";
                let mut select = connection.prepare_cached(select)?;
                select.query_map([run.as_uuid().as_bytes()], |row| row.get(0))?.collect()
            },
        )
    }

    fn objects(&self, skipped: usize, most: usize) -> Result<Vec<StoredResult>, BackendError> {
        self.read(
            || self.looking_for_objects(),
            |connection| {
                let select = concat!(
                    value!(),
                    ", run FROM ",
                    encoded!(),
                    " WHERE location IS NOT NULL ORDER BY result.no LIMIT ?2 OFFSET ?1"
                );
                let mut select = connection.prepare_cached(select)?;
                let mut rows = select.query([number(skipped), number(most)])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    if let Ok(CachedValue::Stored(value)) = value(row)? {
                        found.push(StoredResult { run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(7)?)), value });
                    }
                }
                Ok(found)
            },
        )
    }

    fn interrupted(&self, most: usize) -> Result<Vec<Interrupted>, BackendError> {
        self.read(
            || self.looking_for_objects(),
            |connection| {
                let mut select = connection.prepare_cached("SELECT flow_run, at FROM interrupted LIMIT ?1")?;
                let found = select.query_map([number(most)], |row| {
                    let run = FlowRunId::from_uuid(Uuid::from_bytes(row.get(0)?));
                    Ok(Interrupted { run, at: Timestamp::from_micros(row.get(1)?) })
                })?;
                found.collect()
            },
        )
    }

    fn swept(&self, runs: &[Interrupted]) -> Result<(), BackendError> {
        let delete = "DELETE FROM interrupted WHERE flow_run = ?1 AND at = ?2";
        self.forget(delete, runs, |statement, run| {
            statement.execute(params![run.run.as_uuid().as_bytes(), run.at.as_micros()])
        })
    }
}

impl SqliteBackend {
    fn looking_for_objects(&self) -> String {
        format!("look for objects of results in the database {}", self.path.display())
    }

    /// Deletes rows, all of them or none.
    fn forget<T>(
        &self,
        delete: &str,
        rows: &[T],
        execute: impl Fn(&mut Statement<'_>, &T) -> rusqlite::Result<usize>,
    ) -> Result<(), BackendError> {
        let forget = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut statement = transaction.prepare(delete)?;
            rows.iter().try_for_each(|row| execute(&mut statement, row).map(drop))?;
            drop(statement);
            transaction.commit()
        };
        self.write(|| self.writing(), |writer| forget(writer.connection()))
    }
}

fn number(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn unreadable(error: &rusqlite::Error) -> String {
    format!("its record is damaged: {error}")
}

/// What a row says, or why it is not to be believed.
fn hit(row: &Row<'_>) -> rusqlite::Result<Result<CacheHit, String>> {
    let value = match value(row)? {
        Ok(value) => value,
        Err(why) => return Ok(Err(why)),
    };
    Ok(Ok(CacheHit {
        run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(7)?)),
        created: Timestamp::from_micros(row.get(8)?),
        expires: None,
        value,
    }))
}

fn value(row: &Row<'_>) -> rusqlite::Result<Result<CachedValue, String>> {
    let (format, type_name) = (row.get::<_, String>(0)?.into(), row.get::<_, String>(1)?.into());
    let (digest, size) = (row.get::<_, [u8; 32]>(2)?, row.get::<_, i64>(3)?.cast_unsigned());
    let bytes = row.get_ref(4)?.as_blob_or_null()?;
    Ok(match (bytes, row.get::<_, Option<String>>(5)?, row.get::<_, Option<String>>(6)?) {
        (Some(bytes), ..) if bytes.len() as u64 != size || blake3::hash(bytes).as_bytes() != &digest => {
            Err("its bytes are not those that were stored".to_owned())
        }
        (Some(bytes), ..) => {
            Ok(CachedValue::Encoded(EncodedValue { format, type_name, bytes: bytes::Bytes::copy_from_slice(bytes) }))
        }
        (None, Some(store), Some(location)) => {
            Ok(CachedValue::Stored(StoredValue { store: store.into(), location, size, digest, format, type_name }))
        }
        (None, ..) => Err("its record has neither bytes nor the name of an object".to_owned()),
    })
}
