//! The fan-out with its full history in SQLite. Floor: the very rows that ours wrote, ready made, inserted into the
//! same tables by one thread with bare rusqlite, as many in a transaction as have gathered.
//!
//! The same fan-out with results that are persisted has the same floor: the rows of a history without results.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orchestrator::FlowError;
use orchestrator::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio::runtime::Runtime;

use crate::fan_out::fan_out;
use crate::measure::{Effort, PerOperation, median, runtime, time_under};
use crate::report::{Budget, Row, Unit};

/// So many rows go into one transaction at most.
const BATCH: usize = 4096;

/// Bytes in each result that is persisted.
const RESULT: usize = 100;

#[task(persist)]
async fn kept(value: u64) -> String {
    // A number formatted to that width would be work of the body.
    let _ = value;
    "x".repeat(RESULT)
}

/// Calls the task `tasks` times, then awaits each.
#[flow]
async fn kept_fan_out(tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(kept).collect();
    let mut bytes = 0;
    for run in runs {
        bytes += run.await?.len() as u64;
    }
    Ok(bytes)
}

#[task(persist)]
async fn link(last: u64) -> u64 {
    last + 1
}

/// Each link begins when the result of the last one is stored.
#[flow]
async fn kept_chain(links: u64) -> Result<u64, TaskError> {
    let mut last = link(0);
    for _ in 1..links {
        last = link(last);
    }
    last.await
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let tasks = effort.size(100_000);
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder for databases");
    let model = folder.path().join("model.db");
    time_ours(&runtime, &model, tasks * (tasks - 1) / 2, || fan_out(tasks));
    let history = History::read(&model);
    assert!(history.rows.len() as u64 > tasks, "every task has a row");
    let compared = effort.compare(
        || fresh(&folder, |path| PerOperation::of(history.write(path), tasks)),
        || {
            let time = |path: &Path| time_ours(&runtime, path, tasks * (tasks - 1) / 2, || fan_out(tasks));
            fresh(&folder, |path| PerOperation::of(time(path), tasks))
        },
    );
    let persisted = effort.compare(
        || fresh(&folder, |path| PerOperation::of(history.write(path), tasks)),
        || {
            let time = |path: &Path| time_ours(&runtime, path, tasks * RESULT as u64, || kept_fan_out(tasks));
            fresh(&folder, |path| PerOperation::of(time(path), tasks))
        },
    );
    let links = effort.size(1_000);
    let time = |path: &Path| PerOperation::of(time_ours(&runtime, path, links, || kept_chain(links)), links).0;
    let mut steps: Vec<_> = (0..5).map(|_| fresh(&folder, time)).collect();
    let name = format!("fan-out of {} with history in SQLite", Effort::name(tasks));
    let chain = format!("a step of a chain of {} tasks with `persist`", Effort::name(links));
    vec![
        Row::compared(name, &compared, Budget::Ratio { allowed: 1.5, aim: 1.1 }),
        Row::compared(
            format!("the same with `persist` and results of {RESULT} bytes"),
            &persisted,
            Budget::Ratio { allowed: 2.5, aim: 2.0 },
        ),
        Row::absolute(chain, Unit::Nanoseconds, None, median(&mut steps), 5, Budget::None),
    ]
}

/// Gives `work` a path where no database is yet.
fn fresh<T>(folder: &tempfile::TempDir, work: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir_in(folder.path()).expect("a folder for a database");
    work(&folder.path().join("history.db"))
}

/// From the call until the flow has ended, which is when its history is stored.
fn time_ours<F>(runtime: &Runtime, path: &Path, expected: u64, call: impl FnOnce() -> F) -> Duration
where
    F: Future<Output = Result<u64, FlowError>>,
{
    let url = format!("sqlite:{}", path.display());
    let orchestrator = runtime.block_on(Orchestrator::builder().database_url(url).build()).expect("a database");
    let (outcome, elapsed) = time_under(&orchestrator, runtime, call);
    assert_eq!(outcome.expect("it completes"), expected);
    runtime.block_on(orchestrator.shutdown()).expect("all is stored");
    elapsed
}

/// All tables of a database.
struct History {
    /// What creates them, and how a row is inserted into each.
    create: Vec<String>,
    insert: Vec<String>,
    /// Rows, each with the place of its table, in the order of their keys.
    rows: Vec<(usize, Vec<Value>)>,
}

impl History {
    fn read(path: &Path) -> Self {
        let connection = Connection::open(path).expect("the database that was just written");
        let create = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid";
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid";
        let mut history = Self { create: texts(&connection, create), insert: Vec::new(), rows: Vec::new() };
        for (place, table) in texts(&connection, tables).into_iter().enumerate() {
            let mut select = connection.prepare(&format!("SELECT * FROM {table}")).expect("a table");
            let columns = select.column_count();
            let values = vec!["?"; columns].join(", ");
            history.insert.push(format!("INSERT INTO {table} VALUES ({values})"));
            let rows = select.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
            let rows = rows.expect("a table can be read").map(|row| (place, row.expect("a row can be read")));
            history.rows.extend(rows);
        }
        history
    }

    /// Writes all into a new database with the settings of ours; gives the time that the rows took.
    fn write(&self, path: &Path) -> Duration {
        let connection = Connection::open(path).expect("a new database");
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000")
            .expect("the settings of ours");
        self.create.iter().for_each(|sql| connection.execute_batch(sql).expect("a table of ours"));
        let rows = self.rows.clone();
        let start = Instant::now();
        let (sender, receiver) = mpsc::channel();
        let writer = thread::scope(|scope| {
            let writer = scope.spawn(move || self.insert_all(connection, &receiver));
            rows.into_iter().for_each(|row| sender.send(row).expect("the writer listens"));
            drop(sender);
            writer.join().expect("the writer does not panic")
        });
        let elapsed = start.elapsed();
        writer.close().expect("all is stored");
        elapsed
    }

    /// Inserts what comes until nobody sends any more.
    fn insert_all(&self, mut connection: Connection, receiver: &mpsc::Receiver<(usize, Vec<Value>)>) -> Connection {
        while let Ok(first) = receiver.recv() {
            let transaction = connection.transaction().expect("nobody else writes");
            {
                let mut insert: Vec<_> =
                    self.insert.iter().map(|sql| transaction.prepare_cached(sql).expect("a table of ours")).collect();
                for (table, row) in std::iter::once(first).chain(receiver.try_iter().take(BATCH - 1)) {
                    insert[table].execute(rusqlite::params_from_iter(row)).expect("a row of ours");
                }
            }
            transaction.commit().expect("the disk has room");
        }
        connection
    }
}

fn texts(connection: &Connection, query: &str) -> Vec<String> {
    let mut query = connection.prepare(query).expect("a query of ours");
    let texts = query.query_map([], |row| row.get(0)).expect("a table can be read");
    texts.map(|text| text.expect("a text")).collect()
}
