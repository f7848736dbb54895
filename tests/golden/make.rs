//! Writes a small history of every kind.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use orchestrator::prelude::*;

static TRIES: AtomicU32 = AtomicU32::new(0);

#[task(retries = 2, retry_delay_secs = 0.01)]
async fn fetch(region: String) -> Result<u64, String> {
    tracing::info!(target: "golden", "asking {region}");
    if TRIES.fetch_add(1, Ordering::SeqCst) == 0 { return Err(format!("no route to {region}")); }
    Ok(region.len() as u64)
}

#[task(cache_ttl = "1000d", tags = ["tables"], version = "7")]
async fn measure(n: u64) -> u64 { n * 2 }

#[task]
fn total(parts: Vec<u64>) -> u64 { tracing::warn!(target: "golden", "adding up {}", parts.len()); parts.iter().sum() }

#[task(run_name = "load-{to}", concurrency = "db")]
async fn load(sum: u64, to: String) -> Result<(), String> { if to == "nowhere" { Err("there is no 'nowhere'\n\"at all\"".into()) } else { let _ = sum; Ok(()) } }

#[task(timeout_secs = 0.02)]
async fn slow() { tokio::time::sleep(Duration::from_secs(60)).await }

#[task(retries = 40, retry_delay_secs = 0.001)]
async fn stubborn() -> Result<(), String> { Err("again".into()) }

#[flow]
async fn region(name: String) -> Result<u64, TaskError> {
    let size = fetch(name.clone());
    let measured = measure(size);
    measured.await
}

#[flow(name = "nightly", version = "2", retries = 1)]
async fn nightly(regions: Vec<String>, day: u32) -> Result<u64, TaskError> {
    let mut parts = Vec::new();
    for name in regions { parts.push(region(name).await.unwrap_or(0)); }
    let sum = total(parts);
    load(&sum, "warehouse").await?;
    sum.await
}

#[flow]
async fn bad() -> Result<(), TaskError> {
    let lost = load(1_u64, "nowhere");
    let after = load(measure(ready_after(&lost)), "never");
    let _ = slow().await;
    let _ = stubborn().await;
    let _ = after.await;
    lost.await
}

#[task]
async fn unit_to_number(_n: ()) -> u64 { 1 }
fn ready_after(lost: &TaskFuture<()>) -> TaskFuture<u64> { unit_to_number(lost) }

#[task(persist)]
async fn kept(n: u64) -> u64 { n + 1 }

#[task(on_rollback = undo)]
async fn step(n: u64) -> u64 { n }
fn undo(_: &u64) {}

#[flow(retries = 1)]
async fn keeping() -> Result<u64, TaskError> {
    let first = kept(1_u64).await?;
    if RunContext::current().attempt() == 1 { return Err(load(first, "nowhere").await.unwrap_err()); }
    Ok(first)
}

#[flow]
async fn undone() -> Result<(), TaskError> {
    let ended: Result<(), _> = transaction(async { step(3_u64).await?; load(1_u64, "nowhere").await }).await;
    let _ = ended;
    Ok(())
}

#[flow]
async fn approval() -> Result<(), TaskError> {
    pause_flow_run().message("may it go on?").timeout(Duration::from_secs(86400)).await?;
    Ok(())
}

#[flow]
async fn endless() { tokio::time::sleep(Duration::from_secs(3600)).await }

#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).expect("a path");
    let orchestrator = Orchestrator::builder().database_url(format!("sqlite:{path}")).terminal(true).build().await.unwrap();
    orchestrator.limit("db", 1).await.unwrap();
    orchestrator.scope(async {
        println!("{:?}", nightly(vec!["eu".to_owned(), "eu".to_owned(), "asia".to_owned()], 4).await);
        let _ = bad().await;
        let _ = measure(2_u64).await;
        let _ = keeping().await; let _ = undone().await; let _paused = approval(); let _run = endless();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = Orchestrator::current().flow_runs(&Default::default()).await;
        std::process::exit(0);
    }).await;
}
