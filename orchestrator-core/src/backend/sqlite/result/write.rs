//! Storing results: several rows a statement, those of one root flow run one after the other, so that a span of numbers
//! says whose they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Statement, ToSql, Transaction, params};

use super::known::Known;
use crate::backend::record::{CacheKey, CachedValue, EncodedValue, ResultRecord, StoredValue};
use crate::id::FlowRunId;

/// So many rows are inserted by one statement.
const ROWS: usize = 8;

/// A format, and the name of the type.
type Encoding = (Cow<'static, str>, Cow<'static, str>);

/// The columns of a row.
const COLUMNS: usize = 10;

/// What the connection that writes knows of results.
#[derive(Debug)]
pub(in super::super) struct ResultWriter {
    /// The numbers under which encodings are in the file.
    encodings: HashMap<Encoding, i64>,
    known: Arc<Known>,
}

/// The results of a batch.
#[derive(Debug, Default)]
pub(in super::super) struct Batch<'b> {
    /// On their way into the table.
    waiting: Vec<&'b ResultRecord>,
    /// In the table, with their numbers.
    stored: Vec<(&'b ResultRecord, i64)>,
}

impl ResultWriter {
    pub(in super::super) fn new(known: Arc<Known>) -> Self {
        Self { encodings: HashMap::new(), known }
    }

    /// Numbers that were given out in a transaction that was rolled back are not in the file.
    pub(in super::super) fn rolled_back(&mut self) {
        self.encodings.clear();
    }

    /// Inserts what waits.
    pub(in super::super) fn store(
        &mut self,
        batch: &mut Batch<'_>,
        transaction: &Transaction<'_>,
    ) -> rusqlite::Result<()> {
        if batch.waiting.is_empty() {
            return Ok(());
        }
        let mut insert = (transaction.prepare_cached(&insert(ROWS))?, transaction.prepare_cached(&insert(1))?);
        batch.waiting.sort_by_key(|record| record.root);
        for of_one in batch.waiting.chunk_by(|one, other| one.root == other.root) {
            for rows in of_one.chunks(ROWS) {
                if rows.len() == ROWS {
                    self.insert(&mut insert.0, rows, transaction)?;
                } else {
                    rows.chunks(1).try_for_each(|row| self.insert(&mut insert.1, row, transaction))?;
                }
            }
            let last = transaction.last_insert_rowid();
            let first = last + 1 - i64::try_from(of_one.len()).unwrap_or(i64::MAX);
            batch.stored.extend(of_one.iter().copied().zip(first..));
            span(transaction, of_one[0].root, first, last)?;
        }
        batch.waiting.clear();
        Ok(())
    }

    fn insert(
        &mut self,
        insert: &mut Statement<'_>,
        rows: &[&ResultRecord],
        transaction: &Transaction<'_>,
    ) -> rusqlite::Result<()> {
        for (row, record) in rows.iter().enumerate() {
            let ResultRecord { key, run, created, digest, value, .. } = record;
            let (format, type_name, digest, size) = match value {
                CachedValue::Encoded(EncodedValue { format, type_name, bytes }) => {
                    (format, type_name, digest, bytes.len() as u64)
                }
                CachedValue::Stored(StoredValue { format, type_name, digest, size, .. }) => {
                    (format, type_name, digest, *size)
                }
                CachedValue::Live(_) => continue,
            };
            let encoding = self.encoding((format.clone(), type_name.clone()), transaction)?;
            let mut column = row * COLUMNS;
            let mut bind = |value: &dyn ToSql| {
                column += 1;
                insert.raw_bind_parameter(column, value)
            };
            bind(&key.0)?;
            bind(run.as_uuid().as_bytes())?;
            bind(&created.as_micros())?;
            bind(&encoding)?;
            bind(digest)?;
            bind(&i64::try_from(size).unwrap_or(i64::MAX))?;
            match value {
                CachedValue::Stored(StoredValue { store, location, .. }) => {
                    bind(&None::<&[u8]>)?;
                    bind(&&**store)?;
                    bind(location)?;
                    bind(&record.flow_run.map(|flow_run| flow_run.as_uuid().into_bytes()))?;
                }
                CachedValue::Encoded(EncodedValue { bytes, .. }) => {
                    bind(&&**bytes)?;
                    // Statements are used again, with what was bound to them.
                    (0..3).try_for_each(|_| bind(&None::<&str>))?;
                }
                CachedValue::Live(_) => {}
            }
        }
        insert.raw_execute().map(drop)
    }

    fn encoding(&mut self, encoding: Encoding, transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
        if let Some(number) = self.encodings.get(&encoding) {
            return Ok(*number);
        }
        let (format, type_name) = (&*encoding.0, &*encoding.1);
        let select = "SELECT no FROM encoding WHERE format = ?1 AND type_name = ?2";
        let number = match transaction.query_row(select, [format, type_name], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => {
                let insert = "INSERT INTO encoding (format, type_name) VALUES (?1, ?2)";
                transaction.execute(insert, [format, type_name])?;
                transaction.last_insert_rowid()
            }
        };
        self.encodings.insert(encoding, number);
        Ok(number)
    }

    /// Deletes what is kept under a key.
    pub(in super::super) fn discard(
        &mut self,
        batch: &mut Batch<'_>,
        (root, key): (FlowRunId, &CacheKey),
        transaction: &Transaction<'_>,
    ) -> rusqlite::Result<()> {
        self.store(batch, transaction)?;
        let Some(numbers) = self.known.find_now(root, key) else {
            let delete = "DELETE FROM result WHERE no IN (
                SELECT no FROM result_span JOIN result ON no BETWEEN first AND last WHERE root = ?1 AND key = ?2)";
            return transaction.execute(delete, params![root.as_uuid().as_bytes(), key.0]).map(drop);
        };
        let mut delete = transaction.prepare_cached("DELETE FROM result WHERE no = ?1 AND key = ?2")?;
        let of_batch = batch.stored.iter().filter(|(record, _)| record.key == *key).map(|(_, no)| *no);
        numbers.into_iter().chain(of_batch).try_for_each(|no| delete.execute(params![no, key.0]).map(drop))
    }

    /// The batch was committed.
    pub(in super::super) fn committed(&self, batch: &Batch<'_>) {
        self.known.stored(batch.stored.iter().map(|(record, no)| (record.root, &record.key, *no)));
    }
}

impl<'b> Batch<'b> {
    /// Takes a result; a live value means nothing in a file.
    pub(in super::super) fn add(&mut self, record: &'b ResultRecord) {
        if !matches!(record.value, CachedValue::Live(_)) {
            self.waiting.push(record);
        }
    }
}

fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS].join(", "));
    format!(
        "INSERT INTO result (key, run, created, encoding, digest, size, value, store, location, flow_run) VALUES {}",
        vec![row; rows].join(", ")
    )
}

/// Puts down whose results those are; mostly they follow on those that the same flow run stored last.
fn span(transaction: &Transaction<'_>, root: FlowRunId, first: i64, last: i64) -> rusqlite::Result<()> {
    let update = "UPDATE result_span SET last = ?3
        WHERE root = ?1 AND first = (SELECT max(first) FROM result_span WHERE root = ?1) AND last = ?2 - 1";
    let root = root.as_uuid().into_bytes();
    let span = params![root, first, last];
    if transaction.prepare_cached(update)?.execute(span)? == 0 {
        let insert = "INSERT INTO result_span (root, first, last) VALUES (?1, ?2, ?3)";
        transaction.prepare_cached(insert)?.execute(span)?;
    }
    Ok(())
}
