//! What is SQLite's own.

mod damage;
mod files;
mod migrations;
mod reads;
mod trouble;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::backend::record::{
    CacheKey, CacheRecord, CachedValue, EncodedValue, FORMAT_VERSION, FlowRunQuery, LogRecord, Pause, Process,
    ResultRecord, RunEvent, RunIds, RunInfo, SharedList,
};
use crate::backend::{CacheIndex as _, ResultIndex as _, RunHistory as _, conformance};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{StateName, Transition};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A folder, and the path of a database in it.
fn file() -> (TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("history.db");
    (folder, path)
}

fn open(path: &Path) -> SqliteBackend {
    SqliteBackend::open(path).expect("open a database")
}

fn refused(path: &Path) -> BackendError {
    SqliteBackend::open(path).expect_err("the database must be refused")
}

/// The same file, as somebody else would use it.
fn by_hand(path: &Path, sql: &str) {
    Connection::open(path).expect("open a database by hand").execute_batch(sql).expect("run SQL by hand");
}

fn run(id: RunId) -> Event {
    let process: &'static Process =
        Box::leak(Box::new(Process { host: "machine".to_owned(), pid: 1, namespace: 2, started: 1, session: 0 }));
    static FUNCTION: Def = Def::task("b", "a::b");
    let at = Timestamp::from_micros(1_000);
    let info = RunInfo {
        id,
        def: &FUNCTION,
        given_name: None,
        index: 0,
        parent: None,
        flow_run: None,
        tags: SharedList::default(),
        upstream: RunIds::default(),
        process,
    };
    let transitions = [Transition::new(StateName::Completed, at)].into_iter().collect();
    Event::Run(RunEvent { run: info, first_seq: 0, transitions, run_count: 1, cache: None })
}

fn line(run: TaskRunId, message: String) -> LogRecord {
    LogRecord { run: run.into(), at: Timestamp::from_micros(1), level: "INFO", target: String::new(), message }
}

fn new_task() -> TaskRunId {
    TaskRunId::new(Timestamp::from_micros(1_000))
}

fn new_flow() -> FlowRunId {
    FlowRunId::new(Timestamp::from_micros(1_000))
}

fn cached(key: u8, expires: Option<i64>, value: CachedValue) -> CacheRecord {
    CacheRecord {
        key: CacheKey([key; 32]),
        task_key: "a::b",
        run: new_task(),
        created: Timestamp::from_micros(1_000),
        expires: expires.map(Timestamp::from_micros),
        value,
    }
}

fn kept(root: FlowRunId, key: u8, value: CachedValue) -> ResultRecord {
    let digest = match &value {
        CachedValue::Encoded(value) => *blake3::hash(&value.bytes).as_bytes(),
        CachedValue::Live(_) | CachedValue::Stored(_) => [0; 32],
    };
    let (key, created) = (CacheKey([key; 32]), Timestamp::from_micros(1_000));
    ResultRecord { root, key, run: new_task(), flow_run: None, created, digest, value }
}

fn encoded(bytes: &[u8]) -> CachedValue {
    CachedValue::Encoded(EncodedValue { format: "f".into(), type_name: "t".into(), bytes: bytes.to_vec().into() })
}

#[test]
fn conforms() {
    let folder = folder();
    let number = std::cell::Cell::new(0);
    conformance::check(|| {
        number.set(number.get() + 1);
        Arc::new(open(&folder.path().join(format!("{}.db", number.get()))))
    });
}

#[test]
fn live_values_are_passed_over() {
    let folder = folder();
    let backend = open(&folder.path().join("history.db"));
    backend.append(&[Event::Cached(Box::new(cached(1, None, CachedValue::Live(Arc::new(1)))))]).expect("append");
    assert!(backend.cached(&CacheKey([1; 32])).expect("look").is_none());
}

#[test]
fn expired_results_are_deleted_after_a_while() {
    let (_folder, path) = file();
    let backend = open(&path);
    for created in 0..3_000_i64 {
        let mut record = cached(0, Some(created + 10), encoded(b"x"));
        record.key.0[..8].copy_from_slice(&created.to_le_bytes());
        record.created = Timestamp::from_micros(created);
        backend.append(&[Event::Cached(Box::new(record))]).expect("append");
    }
    let count = |connection: &Connection| connection.query_row("SELECT count(*) FROM cache", [], |row| row.get(0));
    let rows: u32 = backend.read(|| "count", count).expect("count");
    assert!(rows < 400, "{rows} results are kept");
}

#[test]
fn a_result_that_was_changed_is_refused() {
    let (_folder, path) = file();
    let backend = open(&path);
    let root = new_flow();
    backend.append(&[Event::Persisted(Box::new(kept(root, 1, encoded(b"x"))))]).expect("append");
    assert!(backend.result(root, &CacheKey([1; 32])).expect("look").is_some());
    by_hand(&path, "UPDATE result SET value = x'00'");
    let error = backend.result(root, &CacheKey([1; 32])).expect_err("its digest is another one");
    assert_eq!(error.kind(), BackendErrorKind::Damaged);
    backend.append(&[Event::Persisted(Box::new(kept(root, 2, CachedValue::Live(Arc::new(1)))))]).expect("append");
    assert!(backend.result(root, &CacheKey([2; 32])).expect("look").is_none(), "a live value means nothing in a file");
}
