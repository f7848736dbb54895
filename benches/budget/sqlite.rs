//! The fan-out with its full history in SQLite. Floor: the very rows that ours wrote, ready made, inserted into the
//! same tables by one thread with bare rusqlite, as many in a transaction as have gathered.
//!
//! The same fan-out with results that are persisted has the same floor: the rows of a history without results.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use orchestrator::{FlowError, FlowRunQuery, TaskRunQuery};
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

/// What the guard calls the fan-out with history in SQLite.
pub(crate) const COUNTED: &str = "fan-out with SQLite";

pub(crate) fn count(runtime: &Runtime, folder: &Path, tasks: u64) {
    let orchestrator = open(runtime, &folder.join("history.db"));
    let (outcome, _) = time_under(&orchestrator, runtime, || fan_out(tasks));
    outcome.expect("it completes");
    // It is not taken apart: what is counted ends here.
    std::process::exit(0);
}

/// Writes what the floor inserts.
pub(crate) fn prepare(folder: &Path, tasks: u64) {
    time_ours(&runtime(), &folder.join("model.db"), tasks * (tasks - 1) / 2, || fan_out(tasks));
}

/// Gets ready only, if `tasks` is 0.
pub(crate) fn count_bare(_: &Runtime, folder: &Path, tasks: u64) {
    let history = History::read(&folder.join("model.db"));
    if tasks > 0 {
        let _connection = history.write(&folder.join("copy.db"));
        std::process::exit(0);
    }
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
        || fresh(&folder, |path| PerOperation::of(history.write(path).1, tasks)),
        || {
            let time = |path: &Path| time_ours(&runtime, path, tasks * (tasks - 1) / 2, || fan_out(tasks));
            fresh(&folder, |path| PerOperation::of(time(path), tasks))
        },
    );
    let watched = effort.compare(
        || fresh(&folder, |path| PerOperation::of(history.write(path).1, tasks)),
        || {
            let time = |path: &Path| time_ours(&runtime, path, tasks * (tasks - 1) / 2, || fan_out(tasks));
            fresh(&folder, |path| PerOperation::of(beside_reader(&runtime, path, || time(path)), tasks))
        },
    );
    let persisted = effort.compare(
        || fresh(&folder, |path| PerOperation::of(history.write(path).1, tasks)),
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
            "the same while somebody lists the runs every 100 ms",
            &watched,
            Budget::Ratio { allowed: 1.5, aim: 1.1 },
        ),
        Row::compared(
            format!("the same with `persist` and results of {RESULT} bytes"),
            &persisted,
            Budget::Ratio { allowed: 2.5, aim: 2.0 },
        ),
        Row::absolute(chain, Unit::Nanoseconds, None, median(&mut steps), 5, Budget::None),
    ]
}

/// The time of one fan-out with its history in a new database.
pub(crate) fn fan_out_once(runtime: &Runtime, tasks: u64) -> Duration {
    let folder = tempfile::tempdir().expect("a folder for a database");
    time_ours(runtime, &folder.path().join("history.db"), tasks * (tasks - 1) / 2, || fan_out(tasks))
}

/// Does `work` while somebody else lists the newest runs in that database every 100 ms.
fn beside_reader<T>(runtime: &Runtime, path: &Path, work: impl FnOnce() -> T) -> T {
    // Made here, so that there is something to look at.
    runtime.block_on(open(runtime, path).shutdown()).expect("a database");
    let url = format!("sqlite:{}", path.display());
    let builder = Orchestrator::builder().database_url(url).look_only(true);
    let looks = runtime.block_on(builder.build()).expect("a database to look at");
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            while ended.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
                own.block_on(looks.flow_runs(&FlowRunQuery::new())).expect("they can be listed");
                own.block_on(looks.find_task_runs(&TaskRunQuery::new())).expect("they can be listed");
            }
        });
        let value = work();
        drop(done);
        value
    })
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
    let orchestrator = open(runtime, path);
    let (outcome, elapsed) = time_under(&orchestrator, runtime, call);
    assert_eq!(outcome.expect("it completes"), expected);
    runtime.block_on(orchestrator.shutdown()).expect("all is stored");
    elapsed
}

fn open(runtime: &Runtime, path: &Path) -> Orchestrator {
    let url = format!("sqlite:{}", path.display());
    runtime.block_on(Orchestrator::builder().database_url(url).build()).expect("a database")
}

/// All tables of a database.
pub(crate) struct History {
    /// What creates them, and how a row is inserted into each.
    create: Vec<String>,
    insert: Vec<String>,
    /// Rows, each with the place of its table, in the order of their keys.
    rows: Vec<(usize, Vec<Value>)>,
}

impl History {
    /// What a fan-out leaves.
    pub(crate) fn of_fan_out(runtime: &Runtime, tasks: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a database");
        let path = folder.path().join("history.db");
        time_ours(runtime, &path, tasks * (tasks - 1) / 2, || fan_out(tasks));
        Self::read(&path)
    }

    /// The time that the rows take into a new database.
    pub(crate) fn write_once(&self) -> Duration {
        let folder = tempfile::tempdir().expect("a folder for a database");
        self.write(&folder.path().join("history.db")).1
    }

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
    fn write(&self, path: &Path) -> (Connection, Duration) {
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
        (writer, elapsed)
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
