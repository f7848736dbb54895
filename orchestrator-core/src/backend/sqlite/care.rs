//! Looks after cached results.

use rusqlite::{Connection, ToSql, TransactionBehavior, params};
use uuid::Uuid;

use super::SqliteBackend;
use super::read::time;
use super::write::Writer;
use crate::backend::record::{CacheEntry, CacheKey, CacheQuery};
use crate::backend::{BackendError, CacheCare};
use crate::id::TaskRunId;

/// So many results are looked at in one transaction: others write in between.
const STEP: i64 = 500;

impl CacheCare for SqliteBackend {
    fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError> {
        let select = "SELECT key, task_key, run, created, expires, length(value), format, type_name FROM cache
            WHERE key >= ?1 AND lower(hex(key)) LIKE ?2 || '%' AND (?3 IS NULL OR task_key = ?3)
            ORDER BY created DESC, key LIMIT ?4";
        let digits = query.digits();
        if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        // The index is looked up from whole bytes on.
        let low: Vec<u8> =
            (0..digits.len() / 2).filter_map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()).collect();
        let limit = i64::try_from(query.max()).unwrap_or(i64::MAX);
        self.read(
            || self.reading(format_args!("the cached results")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                let entries = statement.query_map(params![low, digits, query.wanted_task(), limit], |row| {
                    Ok(CacheEntry {
                        key: CacheKey(row.get(0)?),
                        task_key: row.get(1)?,
                        run: TaskRunId::from_uuid(Uuid::from_bytes(row.get(2)?)),
                        created: time(row.get(3)?),
                        expires: row.get::<_, Option<i64>>(4)?.map(time),
                        bytes: Some(row.get::<_, i64>(5)?.unsigned_abs()),
                        format: row.get(6)?,
                        type_name: row.get(7)?,
                    })
                })?;
                entries.collect()
            },
        )
    }

    fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, BackendError> {
        let remove = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut removed = 0;
            for key in keys {
                removed += transaction.prepare_cached("DELETE FROM cache WHERE key = ?1")?.execute([key.0])? as u64;
            }
            transaction.commit().map(|()| removed)
        };
        self.write(|| self.clearing(), |writer| remove(writer.connection()))
    }

    fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, BackendError> {
        let next =
            "SELECT max(rowid) FROM (SELECT rowid FROM cache WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid LIMIT ?3)";
        let delete = "DELETE FROM cache WHERE rowid > ?1 AND rowid <= ?2 AND (?3 IS NULL OR task_key = ?3)";
        let row = |select: &str, values: &[&dyn ToSql]| {
            let look = |connection: &Connection| {
                connection.prepare_cached(select)?.query_row(values, |row| row.get::<_, Option<i64>>(0))
            };
            self.read(|| self.clearing(), look)
        };
        // What is stored from now on stays.
        let Some(last) = row("SELECT max(rowid) FROM cache", &[])? else { return Ok(0) };
        let (mut done, mut removed) = (i64::MIN, 0);
        // All rows once, whichever are to go: there is no index of tasks.
        while let Some(end) = row(next, &[&done, &last, &STEP])? {
            let step = |writer: &mut Writer| writer.connection().execute(delete, params![done, end, task_key]);
            removed += self.write(|| self.clearing(), step)? as u64;
            done = end;
        }
        Ok(removed)
    }
}

impl SqliteBackend {
    fn clearing(&self) -> String {
        format!("remove cached results from the database {}", self.path.display())
    }
}
