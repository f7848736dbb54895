//! Killed while a file of an older format is brought to the present one: the file is the old one or the new one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator::backend::maintenance::Maintenance as _;
use orchestrator::backend::record::FORMAT_VERSION;
use orchestrator::backend::sqlite::SqliteBackend;
use rusqlite::Connection;

use crate::child::{self, Role};

/// So many more runs that the migration takes a moment.
const RUNS: u32 = 20_000;
const KILLS: usize = 12;

fn file(folder: &Path) -> PathBuf {
    folder.join("history.db")
}

#[test]
fn migrates_in_a_process_of_its_own() {
    let Some(folder) = child::folder() else { return };
    std::fs::write(folder.join("begun"), "").unwrap();
    drop(SqliteBackend::open(file(&folder)).unwrap());
}

/// A file of format 1 with many runs.
fn old(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format_1.db");
    std::fs::copy(golden, file(folder)).unwrap();
    let connection = Connection::open(file(folder)).unwrap();
    let mut info = connection.prepare("PRAGMA table_info(task_run)").unwrap();
    let columns: Vec<String> = info.query_map([], |row| row.get(1)).unwrap().map(Result::unwrap).collect();
    let values: Vec<_> = columns.iter().map(|name| if name == "id" { "randomblob(16)" } else { name }).collect();
    let insert = format!(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {RUNS})
        INSERT INTO task_run ({}) SELECT {} FROM number, (SELECT * FROM task_run LIMIT 1)",
        columns.join(", "),
        values.join(", "),
    );
    connection.execute_batch(&format!("PRAGMA journal_mode = WAL; {insert}")).unwrap();
}

/// All that is in the tables of the file, and its format.
fn content(folder: &Path) -> (u32, Vec<(String, i64)>) {
    let connection = Connection::open(file(folder)).unwrap();
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let format = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let count = |table: String| {
        let rows = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        (table, rows)
    };
    (format, tables.into_iter().map(count).collect())
}

#[test]
fn a_process_that_is_killed_while_it_migrates_leaves_the_old_file_or_the_new_one() {
    let mut random = fastrand::Rng::with_seed(child::seed());
    let begin = |folder: &Path| {
        let process = Role::start("migration::migrates_in_a_process_of_its_own", folder, &[]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !folder.join("begun").exists() {
            assert!(Instant::now() < deadline, "{}", child::said(folder));
            std::thread::sleep(Duration::from_micros(200));
        }
        process
    };
    let undisturbed = tempfile::tempdir().unwrap();
    old(undisturbed.path());
    let before = content(undisturbed.path());
    let start = Instant::now();
    assert!(begin(undisturbed.path()).end_within(Duration::from_secs(60)).success());
    let took = start.elapsed();
    let after = content(undisturbed.path());
    assert_eq!((before.0, after.0), (1, FORMAT_VERSION));

    let (mut left_old, mut left_new) = (0, 0);
    for _ in 0..KILLS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        old(folder);
        if !begin(folder).kill_after(took.mul_f64(random.f64())) {
            continue;
        }
        match content(folder) {
            found if found == before => left_old += 1,
            found if found == after => left_new += 1,
            found => panic!("neither the old file nor the new one: {found:?}"),
        }
        let backend = SqliteBackend::open(file(folder)).unwrap();
        assert_eq!(backend.check().unwrap(), []);
        assert!(backend.info().unwrap().task_runs > u64::from(RUNS));
        drop(backend);
        assert_eq!(content(folder), after);
    }
    println!("of {KILLS} kills {left_old} left the old file, {left_new} the new one; a migration took {took:.1?}");
}
