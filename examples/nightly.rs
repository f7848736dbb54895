//! A pipeline that may be killed at any moment: started again, it goes on where it stopped.
//!
//! Twenty pages are fetched and summed up; each takes a moment. Kill the program half-way and start it again.

use std::io::Write as _;
use std::time::Duration;

use orchestrator::prelude::*;

/// Fetches a page. This one makes its numbers up, and takes its time.
#[task]
async fn fetch(page: u32) -> Vec<u64> {
    tokio::time::sleep(Duration::from_millis(250)).await;
    (0..100).map(|row| u64::from(page) * 100 + row).collect()
}

#[task]
fn sum(rows: &[u64]) -> u64 {
    rows.iter().sum()
}

/// Keeps the results of its tasks, and goes on by itself after a crash.
#[flow(persist, on_crash = "resume", max_concurrent_tasks = 2)]
async fn nightly(pages: u32) -> Result<u64, TaskError> {
    let sums = sum::map((0..pages).map(fetch).collect::<Vec<_>>());
    Ok(sums.await?.into_iter().sum())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sum = nightly(20).await?;
    writeln!(std::io::stdout(), "{sum}")?;
    Ok(())
}
