//! Files of older formats on their way to the present one: interrupted, and by several at once.

use super::*;
use crate::backend::maintenance::Maintenance as _;

/// Runs in the files that are migrated: so many that it takes a moment.
const RUNS: u32 = 3_000;

/// A file of that format with a history.
fn older(path: &Path, version: u32) {
    let tables = schema::MIGRATIONS[..version as usize].concat().concat();
    let mark = format!("PRAGMA application_id = {}; PRAGMA user_version = {version};", schema::APPLICATION_ID);
    let history = format!(
        "INSERT INTO function VALUES (1, 'a::b', 'b', NULL), (2, 'a::c', 'c', '7');
        INSERT INTO process VALUES (1, 'machine', 1, 2, 1);
        WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {RUNS} - 1)
        INSERT INTO task_run (id, function, number, process, created, states, next_seq, run_count, state, state_at, end_time)
        SELECT CAST(printf('%016d', n) AS BLOB), 1, n, 1, n, '[\"Pending\",' || n || ']\n[\"Running\",' || (n + 1) || ']\n[\"Completed\",'
            || (n + 2) || ']', 3, 1, 'Completed', n + 2, n + 2 FROM number;
        INSERT INTO flow_run (id, function, number, process, created, states, next_seq, run_count, state, state_at)
        VALUES (x'{:032x}', 2, 0, 1, 5, '[\"Pending\",5]', 1, 0, 'Pending', 5);",
        7
    );
    by_hand(path, &format!("PRAGMA journal_mode = WAL; BEGIN; {tables} {history} {mark} COMMIT"));
}

/// All that the file says: its tables and their rows.
fn content(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).expect("open by hand");
    let texts = |select: &str| -> Vec<String> {
        let mut statement = connection.prepare(select).expect("prepare");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns).map(|column| Ok(format!("{:?}", row.get_ref(column)?))).collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.expect("read").map(|row| row.expect("a row").join(",")).collect()
    };
    let mut all = texts("SELECT type, name, sql FROM sqlite_schema ORDER BY name");
    all.extend(texts("PRAGMA user_version"));
    for table in ["function", "process", "task_run", "flow_run"] {
        all.extend(texts(&format!("SELECT * FROM {table}")));
    }
    all
}

fn is_migrated(path: &Path) {
    let backend = open(path);
    assert_eq!(backend.check().expect("check").first(), None);
    let info = backend.info().expect("look");
    assert_eq!((info.task_runs, info.flow_runs), (u64::from(RUNS), 1));
}

#[test]
fn a_migration_that_finds_no_room_leaves_the_old_file() {
    let folder = folder();
    for version in 1..FORMAT_VERSION {
        let path = folder.path().join(format!("{version}.db"));
        older(&path, version);
        let before = content(&path);
        let mut refusals = 0;
        // One page more at each try, so that it ends at each of its statements once.
        loop {
            let mut connection = Connection::open(&path).expect("open");
            let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("count");
            connection.pragma_update(None, "max_page_count", pages + refusals).expect("limit");
            match schema::migrate(&mut connection, "the file") {
                Ok(from) => {
                    assert_eq!(from, Some(version));
                    break;
                }
                Err(error) => {
                    assert_eq!(error.kind(), BackendErrorKind::Full, "{error}");
                    drop(connection);
                    assert!(content(&path) == before, "format {version}, try {refusals}: something was changed");
                }
            }
            refusals += 1;
        }
        assert!(refusals > 5, "format {version} needed {refusals} more pages");
        is_migrated(&path);
    }
}

#[test]
fn a_migration_that_is_interrupted_leaves_the_old_file() {
    let folder = folder();
    let path = folder.path().join("old.db");
    older(&path, 1);
    let before = content(&path);
    // Steps of SQLite's that it is left to do.
    let mut steps = 1_u64;
    loop {
        let mut connection = Connection::open(&path).expect("open");
        let mut left = steps;
        let interrupts = move || {
            left = left.wrapping_sub(1);
            left == 0
        };
        connection.progress_handler(1, Some(interrupts)).expect("be asked before each step");
        let outcome = schema::migrate(&mut connection, "the file");
        steps += steps / 8 + 1;
        if outcome.is_ok() {
            break;
        }
        drop(connection);
        assert!(content(&path) == before, "something was changed");
    }
    assert!(steps > 10_000, "it was done after {steps} steps");
    is_migrated(&path);
}

#[test]
fn several_who_open_an_older_file_at_once_all_go_on() {
    let folder = folder();
    for round in 0..4 {
        let path = folder.path().join(format!("{round}.db"));
        older(&path, 1 + round % (FORMAT_VERSION - 1));
        let barrier = std::sync::Barrier::new(5);
        let migrated: Vec<bool> = thread::scope(|scope| {
            let openers: Vec<_> = (0..5)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let backend = open(&path);
                        backend.append(&[run(new_task().into())]).expect("append");
                        backend.info().expect("look").migrated_from.is_some()
                    })
                })
                .collect();
            openers.into_iter().map(|opener| opener.join().expect("it does not panic")).collect()
        });
        assert_eq!(migrated.into_iter().filter(|migrated| *migrated).count(), 1, "one of them has done it");
        let backend = open(&path);
        assert_eq!(backend.check().expect("check").first(), None);
        assert_eq!(backend.info().expect("look").task_runs, u64::from(RUNS) + 5);
    }
}
