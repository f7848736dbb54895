//! A small history with something of every kind, as the library of these sources writes it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestrator::prelude::*;

const FILE: &str = "GOLDEN_TEST_FILE";

static TRIES: AtomicU32 = AtomicU32::new(0);

#[task(retries = 2, retry_delay_secs = 0.01)]
async fn fetch(region: String) -> Result<u64, String> {
    tracing::info!(target: "golden", "asking {region}");
    if TRIES.fetch_add(1, Ordering::SeqCst) == 0 {
        return Err(format!("no route to {region}"));
    }
    Ok(region.len() as u64)
}

#[task(cache_ttl = "1000d", tags = ["tables"], version = "7")]
async fn measure(n: u64) -> u64 {
    n * 2
}

#[task]
fn total(parts: Vec<u64>) -> u64 {
    tracing::warn!(target: "golden", "adding up {}", parts.len());
    parts.iter().sum()
}

#[task(run_name = "load-{to}", concurrency = "db")]
async fn load(sum: u64, to: String) -> Result<(), String> {
    match &*to {
        "nowhere" => Err("there is no 'nowhere'\n\"at all\"".to_owned()),
        _ => {
            let _ = sum;
            Ok(())
        }
    }
}

#[task(timeout_secs = 0.02)]
async fn slow() {
    std::future::pending::<()>().await;
}

#[task(retries = 40, retry_delay_secs = 0.001)]
async fn stubborn() -> Result<(), String> {
    Err("again".to_owned())
}

#[flow]
async fn region(name: String) -> Result<u64, TaskError> {
    measure(fetch(name)).await
}

#[flow(name = "nightly", version = "2", retries = 1)]
async fn nightly(regions: Vec<String>, day: u32) -> Result<u64, TaskError> {
    tracing::info!(target: "golden", "day {day}");
    let mut parts = Vec::new();
    for name in regions {
        parts.push(region(name).await.unwrap_or(0));
    }
    let sum = total(parts);
    load(&sum, "warehouse").await?;
    sum.await
}

#[task]
async fn after(_lost: ()) {}

#[flow]
async fn bad() -> Result<(), TaskError> {
    let lost = load(1_u64, "nowhere");
    let never = after(&lost);
    let _ = slow().await;
    let _ = stubborn().await;
    let _ = never.await;
    lost.await
}

#[task(persist)]
async fn kept(n: u64) -> u64 {
    n + 1
}

#[flow(retries = 1)]
async fn keeping() -> Result<u64, TaskError> {
    let first = kept(1_u64).await?;
    if RunContext::current().attempt() == 1 {
        load(first, "nowhere").await?;
    }
    Ok(first)
}

static BROKEN: AtomicU32 = AtomicU32::new(1);

/// Fails, and is resumed.
#[flow]
async fn mended(n: u64) -> Result<u64, TaskError> {
    let first = kept(n).await?;
    if BROKEN.fetch_and(0, Ordering::SeqCst) == 1 {
        load(first, "nowhere").await?;
    }
    Ok(first)
}

#[task(on_rollback = undo)]
async fn step(n: u64) -> u64 {
    n
}

fn undo(_: &u64) {}

#[flow]
async fn undone() {
    let _: Result<(), TaskError> = transaction(async {
        step(3_u64).await?;
        load(1_u64, "nowhere").await
    })
    .await;
}

#[flow]
async fn approval() -> Result<(), TaskError> {
    pause_flow_run().message("may it go on?").timeout(Duration::from_secs(86_400)).await?;
    Ok(())
}

#[task(concurrency = "db")]
async fn holds() {
    std::future::pending::<()>().await;
}

#[flow]
async fn endless() -> Result<(), TaskError> {
    holds().await
}

#[tokio::test]
async fn child_that_writes_a_golden_file() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let url = format!("sqlite:{}", Path::new(&file).display());
    let orchestrator = Orchestrator::builder().database_url(url).terminal(true).build().await.unwrap();
    orchestrator.limit("db", 1).await.unwrap();
    let left = orchestrator.scope(async {
        nightly(vec!["eu".to_owned(), "eu".to_owned(), "asia".to_owned()], 4_u32).await.unwrap();
        let _ = bad().await;
        measure(2_u64).await.unwrap();
        keeping().await.unwrap();
        undone().await.unwrap();
        let failed = mended(7_u64);
        let id = failed.run_id();
        failed.await.unwrap_err();
        orchestrator.resume(id).await.unwrap();
        (approval(), endless())
    });
    let (paused, endless) = left.await;
    let name = |state: &State| state.name.clone();
    while name(&paused.state()) != "Paused" || orchestrator.limits().await.unwrap()[0].taken == 0 {
        tokio::task::yield_now().await;
    }
    // What was told is stored; nobody says goodbye.
    while orchestrator.task_runs(endless.run_id()).await.unwrap().iter().all(|run| run.state.name != "Running") {
        tokio::task::yield_now().await;
    }
    std::process::exit(0);
}

/// Writes the file in a process of its own, and takes out what is this machine's.
pub(super) fn make(file: &Path) {
    let child = "golden::make::child_that_writes_a_golden_file";
    let program = std::env::current_exe().unwrap();
    let _ = std::fs::remove_file(file);
    let status = Command::new(program)
        .args(["--exact", child, "--nocapture"])
        .env(FILE, file)
        .env("ORCHESTRATOR_LOG", "off")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let connection = rusqlite::Connection::open(file).unwrap();
    let anonymous = "UPDATE process SET host = 'machine', pid = 1, namespace = 1, started = 1;
        PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE; VACUUM;";
    connection.execute_batch(anonymous).unwrap();
}
