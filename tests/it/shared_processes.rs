//! Limits and cached results that real processes share through one file, some of which are killed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator::prelude::*;

use crate::shared_limits::open;

const FOLDER: &str = "SHARED_TEST_FOLDER";

/// Starts one of the tests below named `child_*` in a process of its own.
fn child(name: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("shared_processes::{name}"), "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env("ORCHESTRATOR_HOME", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The folder that the parent process gave; `None` in an ordinary run of all tests.
fn parents_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Adds a line to a file that all processes write to.
fn note(folder: &Path, file: &str, line: &str) {
    let mut file = File::options().create(true).append(true).open(folder.join(file)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn notes(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn micros() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros()
}

async fn until_noted(folder: &Path, file: &str, lines: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while notes(folder, file).len() < lines {
        assert!(Instant::now() < deadline, "{file} has {:?}", notes(folder, file));
        tokio::task::yield_now().await;
    }
}

const SLOTS: usize = 3;

/// Holds one of as many locks as there are slots: the system gives it back when the process is killed.
#[task(concurrency = "db")]
fn witnessed(folder: PathBuf, _n: u32) {
    let locks: Vec<File> = (0..SLOTS).map(|n| File::create(folder.join(format!("lock-{n}"))).unwrap()).collect();
    match locks.iter().find(|lock| lock.try_lock().is_ok()) {
        Some(_held) => std::thread::yield_now(),
        None => note(&folder, "exceeded", "more bodies than slots"),
    }
    note(&folder, "done", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_takes_slots() {
    let Some(folder) = parents_folder() else { return };
    note(&folder, "begun", "");
    for n in 0..40 {
        let batch = (0..10).map(|m| witnessed(folder.clone(), n * 10 + m)).collect::<Vec<_>>();
        for run in batch {
            run.await.unwrap();
        }
    }
    note(&folder, "ended", "");
    Orchestrator::current().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_never_exceeded_though_processes_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator.limit("db", u32::try_from(SLOTS).unwrap()).await.unwrap();
    let begun = Instant::now();
    let mut all: Vec<Child> = (0..4).map(|_| child("child_takes_slots", folder.path())).collect();
    // In the midst of it, whatever they hold.
    for (victim, done) in [(0, 60), (1, 150)] {
        until_noted(folder.path(), "done", done).await;
        all[victim].kill().unwrap();
        all[victim].wait().unwrap();
    }
    for survivor in &mut all[2..] {
        assert!(survivor.wait().unwrap().success());
    }
    println!("{} bodies in {:?}", notes(folder.path(), "done").len(), begun.elapsed());
    assert!(notes(folder.path(), "exceeded").is_empty());
    assert_eq!(notes(folder.path(), "ended").len(), 2, "nobody waits for what the dead held");
    let limits = orchestrator.limits().await.unwrap();
    assert_eq!((limits[0].taken, limits[0].waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_waits_for_slots() {
    let Some(folder) = parents_folder() else { return };
    note(&folder, "begun", "");
    for _ in 0..10 {
        let held = concurrency("db", 1).await.unwrap();
        note(&folder, "got", &micros().to_string());
        drop(held);
        // The parent has the slot again before this one asks for it.
        until_noted(&folder, "held", notes(&folder, "got").len() + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freed_slot_reaches_another_process_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator.limit("db", 1).await.unwrap();
    let mut waits = None;
    let mut took = Vec::new();
    for round in 1..=10 {
        let held = orchestrator.scope(async { concurrency("db", 1).await.unwrap() }).await;
        note(folder.path(), "held", "");
        waits.get_or_insert_with(|| child("child_waits_for_slots", folder.path()));
        while orchestrator.limits().await.unwrap()[0].waiting == 0 {
            tokio::task::yield_now().await;
        }
        let freed = micros();
        drop(held);
        until_noted(folder.path(), "got", round).await;
        let got: u128 = notes(folder.path(), "got")[round - 1].parse().unwrap();
        took.push(got.saturating_sub(freed));
    }
    note(folder.path(), "held", "");
    assert!(waits.unwrap().wait().unwrap().success());
    took.sort_unstable();
    println!("handed over within {took:?} microseconds");
    assert!(took[took.len() / 2] < 50_000, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_calls_at_a_rate() {
    let Some(folder) = parents_folder() else { return };
    for _ in 0..20 {
        rate_limit("api").await.unwrap();
        note(&folder, "called", &micros().to_string());
    }
}

#[tokio::test]
async fn a_rate_holds_over_three_processes() {
    const BURST: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator.limit("api", 5).slot_decay(40.0).await.unwrap();
    for mut child in [(); 3].map(|()| child("child_calls_at_a_rate", folder.path())) {
        assert!(child.wait().unwrap().success());
    }
    let mut calls: Vec<u128> = notes(folder.path(), "called").iter().map(|at| at.parse().unwrap()).collect();
    calls.sort_unstable();
    assert_eq!(calls.len(), 60);
    // 5 at once, the others at 40 a second. A call is noted some time after it was let through, never before.
    let took = calls[59] - calls[0];
    println!("60 calls in {took} microseconds");
    assert!(took >= (60 - BURST as u128) * 25_000 - 100_000, "{took}");
}

#[task(cache_ttl = "1h")]
async fn computed(#[cache(skip)] folder: PathBuf, n: u32) -> u32 {
    note(&folder, "computed", &n.to_string());
    tokio::task::yield_now().await;
    n * n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_computes() {
    let Some(folder) = parents_folder() else { return };
    note(&folder, "begun", "");
    until_noted(&folder, "begun", 3).await;
    let runs: Vec<_> = (0..100).map(|n| computed(folder.clone(), n)).collect();
    for (n, run) in (0..100).zip(runs) {
        assert_eq!(run.await.unwrap(), n * n);
    }
    Orchestrator::current().shutdown().await.unwrap();
}

#[tokio::test]
async fn of_three_processes_one_computes_each_result() {
    let folder = tempfile::tempdir().unwrap();
    for mut child in [(); 3].map(|()| child("child_computes", folder.path())) {
        assert!(child.wait().unwrap().success());
    }
    let mut computed: Vec<u32> = notes(folder.path(), "computed").iter().map(|line| line.parse().unwrap()).collect();
    computed.sort_unstable();
    assert_eq!(computed, (0..100).collect::<Vec<_>>());
}
