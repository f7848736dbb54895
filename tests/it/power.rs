//! What is in the file when the power fails: all that had reached the disk, of each run a beginning, and nothing that
//! does not fit together.
//!
//! A process that writes is stopped at a random moment, and its files are copied as the system has them. What SQLite
//! had not brought to the disk by then is the end of the write-ahead log: of that a random part is cut off or spoiled.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator::backend::RunHistory as _;
use orchestrator::backend::maintenance::Maintenance as _;
use orchestrator::backend::sqlite::SqliteBackend;
use orchestrator::prelude::*;
use orchestrator::{FlowRunQuery, RunId, Timestamp};

const NAME: &str = "history.db";

/// Moments at which the power fails.
const FAILURES: u32 = 12;

#[task(retries = 2)]
async fn unsteady(n: u32) -> Result<u32, String> {
    tracing::info!("at {n}");
    if n.is_multiple_of(3) && RunContext::current().attempt() == 1 { Err(format!("not yet: {n}")) } else { Ok(n) }
}

#[task(persist)]
async fn kept(n: u32) -> String {
    "x".repeat(n as usize % 200)
}

#[flow]
async fn part(n: u32) -> Result<usize, TaskError> {
    Ok(kept(unsteady(n)).await?.len())
}

#[flow]
async fn whole(n: u32) -> Result<usize, TaskError> {
    let numbers = unsteady::map(0..40_u32).await?;
    Ok(part(n).await.unwrap_or(0) + numbers.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os("POWER_TEST_FOLDER") else { return };
    let url = format!("sqlite:{}", Path::new(&folder).join(NAME).display());
    let orchestrator = Orchestrator::builder().database_url(url).build().await.unwrap();
    orchestrator
        .scope(async {
            for n in 0.. {
                let _ = whole(n).await;
            }
        })
        .await;
}

/// A process that writes; it is killed at the end of the test, however that comes.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Writer {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "power::child_that_writes_until_it_is_killed"]).env("POWER_TEST_FOLDER", folder);
        command.env("ORCHESTRATOR_LOG", "off").stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Stops all of its threads.
    fn stop(&self) {
        self.signal("-STOP");
        let threads = format!("/proc/{}/task", self.0.id());
        until("the process has stopped", || {
            std::fs::read_dir(&threads).unwrap().all(|thread| {
                let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            })
        });
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn file(folder: &Path, suffix: &str) -> std::path::PathBuf {
    folder.join(format!("{NAME}{suffix}"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(file(from, suffix), file(to, suffix)).unwrap();
    }
}

/// How much of the log has certainly been brought to the disk: what SQLite has folded in or begun to (walformat, "The
/// WAL-Index File Format").
fn synced(folder: &Path) -> u64 {
    let index = std::fs::read(file(folder, "-shm")).unwrap();
    let number = |at: usize| u64::from(u32::from_ne_bytes(index[at..at + 4].try_into().unwrap()));
    let (folded_in, attempted) = (number(96), number(128));
    let (header, frame) = (32, 24 + 4096);
    header + folded_in.max(attempted) * frame
}

/// Every run's states.
fn history(backend: &SqliteBackend) -> Vec<(RunId, Vec<State>)> {
    let mut runs: Vec<RunId> = Vec::new();
    for flow in backend.flow_runs(&FlowRunQuery::new().limit(usize::MAX), Timestamp::from_micros(0)).unwrap() {
        runs.extend(backend.task_runs(flow.id).unwrap().into_iter().map(|run| RunId::from(run.id)));
        runs.push(flow.id.into());
    }
    runs.into_iter().map(|run| (run, backend.states(run).unwrap())).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn after_a_power_failure_each_run_has_a_beginning_of_its_history() {
    let seed = std::env::var("ORCHESTRATOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("ORCHESTRATOR_TEST_SEED={seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    std::fs::create_dir(&live).unwrap();
    let writer = Writer::start(&live);
    until("there is a history", || std::fs::metadata(file(&live, "-wal")).is_ok_and(|found| found.len() > 500_000));
    let mut lost = 0;
    for failure in 0..FAILURES {
        std::thread::sleep(Duration::from_millis(random.below(60)));
        writer.stop();
        let (whole, failed) = (folder.path().join("whole"), folder.path().join("failed"));
        copy(&live, &whole);
        copy(&live, &failed);
        let synced = synced(&live);

        let log = std::fs::OpenOptions::new().write(true).open(file(&failed, "-wal")).unwrap();
        let length = log.metadata().unwrap().len();
        let end = synced.min(length) + random.below(length.saturating_sub(synced) + 1);
        log.set_len(end).unwrap();
        if failure % 3 == 0 {
            // The system had made room in the file, and not written it yet.
            log.set_len(length).unwrap();
        }
        drop(log);

        let whole = history(&SqliteBackend::open(file(&whole, "")).unwrap());
        let backend = SqliteBackend::open(file(&failed, "")).unwrap();
        assert_eq!(backend.check().unwrap().first(), None, "failure {failure}, {end} of {length} bytes were written");
        let failed = history(&backend);
        let all: std::collections::HashMap<_, _> = whole.into_iter().collect();
        lost += all.len() - failed.len();
        for (run, states) in failed {
            assert!(all[&run].starts_with(&states), "{run}: {states:?} is no beginning of {:?}", all[&run]);
        }
        std::fs::remove_dir_all(folder.path().join("whole")).unwrap();
        std::fs::remove_dir_all(folder.path().join("failed")).unwrap();
        // Only now, so that there is not more to read at each failure.
        writer.signal("-CONT");
    }
    println!("{lost} runs were lost in {FAILURES} failures");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
