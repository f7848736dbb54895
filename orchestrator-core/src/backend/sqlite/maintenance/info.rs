//! What is in the file.

use rusqlite::{Connection, OptionalExtension};

use super::super::{SqliteBackend, schema};
use crate::backend::maintenance::{StoreInfo, TableInfo};
use crate::backend::record::Process;
use crate::clock::Timestamp;

/// The sizes of tables are given for files up to this size: each page is looked at for them.
const MEASURED: u64 = 256 << 20;

pub(super) fn read(connection: &Connection, backend: &SqliteBackend) -> rusqlite::Result<StoreInfo> {
    let now = connection.unchecked_transaction()?;
    let (file_bytes, wal_bytes) = sizes(backend);
    let tables = tables(&now, file_bytes.max(pages(&now, "page_count")?))?;
    let rows = |name: &str| tables.iter().find(|table| table.name == name).map_or(0, |table| table.rows);
    let (flow_runs, task_runs) = (rows("flow_run"), rows("task_run"));
    let ends = |order: &str| -> rusqlite::Result<Option<Timestamp>> {
        // Ids of task runs sort by age, and have no index of their times.
        let task = format!("SELECT created FROM task_run ORDER BY id {order} LIMIT 1");
        let flow = format!("SELECT created FROM flow_run ORDER BY created {order}, id {order} LIMIT 1");
        let task: Option<i64> = now.query_row(&task, [], |row| row.get(0)).optional()?;
        let flow: Option<i64> = now.query_row(&flow, [], |row| row.get(0)).optional()?;
        let found = if order == "ASC" { task.into_iter().chain(flow).min() } else { task.max(flow) };
        Ok(found.map(Timestamp::from_micros))
    };
    Ok(StoreInfo {
        location: backend.path.display().to_string(),
        format: schema::format(&now)?,
        migrated_from: backend.migrated_from,
        file_bytes,
        wal_bytes,
        free_bytes: pages(&now, "freelist_count")?,
        shrinks_in_steps: schema::shrinks_in_steps(&now)?,
        oldest_run: ends("ASC")?,
        newest_run: ends("DESC")?,
        last_pruned: last_pruned(&now)?,
        processes: processes(&now)?,
        tables,
        flow_runs,
        task_runs,
    })
}

pub(super) fn last_pruned(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let done = connection.query_row("SELECT done FROM upkeep", [], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(done.flatten().map(Timestamp::from_micros))
}

/// The sizes of the file and of its write-ahead log.
pub(super) fn sizes(backend: &SqliteBackend) -> (u64, u64) {
    let mut log = backend.path.clone().into_os_string();
    log.push("-wal");
    let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |found| found.len());
    (bytes(&backend.path), bytes(log.as_ref()))
}

/// A number of pages, in bytes.
fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    Ok(number(pragma)?.unsigned_abs() * number("page_size")?.unsigned_abs())
}

fn tables(connection: &Connection, bytes: u64) -> rusqlite::Result<Vec<TableInfo>> {
    let select = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut names = connection.prepare(select)?;
    let mut tables = Vec::new();
    for name in names.query_map([], |row| row.get::<_, String>(0))? {
        let name = name?;
        // Quick: SQLite counts the entries of the smallest index by the page.
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0))?;
        let bytes = if bytes <= MEASURED { size(connection, &name) } else { None };
        tables.push(TableInfo { name, rows: rows.unsigned_abs(), bytes });
    }
    tables.sort_by_key(|table| std::cmp::Reverse((table.bytes, table.rows)));
    Ok(tables)
}

/// The size of a table and its indexes; `None` if this SQLite does not tell.
fn size(connection: &Connection, table: &str) -> Option<u64> {
    let select = "SELECT sum(pgsize) FROM dbstat
        WHERE aggregate = TRUE AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name = ?1)";
    let bytes = connection.query_row(select, [table], |row| row.get::<_, Option<i64>>(0));
    bytes.ok().flatten().map(i64::unsigned_abs)
}

fn processes(connection: &Connection) -> rusqlite::Result<Vec<Process>> {
    let select = "SELECT host, pid, namespace, started, session FROM process WHERE ended IS NULL ORDER BY no";
    let mut statement = connection.prepare(select)?;
    let processes = statement.query_map([], |row| {
        Ok(Process {
            host: row.get(0)?,
            pid: row.get(1)?,
            namespace: row.get::<_, i64>(2)?.cast_unsigned(),
            started: row.get::<_, i64>(3)?.cast_unsigned(),
            session: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    })?;
    processes.collect()
}
