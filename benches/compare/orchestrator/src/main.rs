//! The work of the comparison, as a user of Orchestrator writes it: no setting is changed.

use std::time::{Duration, Instant};

use orchestrator::prelude::*;

const LINES_PER_TASK: u64 = 100;

#[task]
async fn extract() -> Vec<u64> {
    (0..100).collect()
}

#[task]
async fn transform(rows: Vec<u64>) -> Vec<u64> {
    rows.into_iter().map(|row| row * 2).collect()
}

#[task]
async fn load(rows: Vec<u64>) -> u64 {
    rows.into_iter().sum()
}

#[flow]
async fn etl() -> Result<u64, TaskError> {
    load(transform(extract())).await
}

#[task]
async fn echo(value: u64) -> u64 {
    value
}

#[flow]
async fn fan_out(tasks: u64) -> Result<u64, TaskError> {
    Ok(echo::map(0..tasks).await?.into_iter().sum())
}

#[task]
async fn increment(value: u64) -> u64 {
    value + 1
}

#[flow]
async fn chain(tasks: u64) -> Result<u64, TaskError> {
    let mut last = increment(0);
    for _ in 1..tasks {
        last = increment(last);
    }
    last.await
}

#[task(cache_ttl = "1d")]
async fn remember(value: u64) -> u64 {
    value
}

#[flow]
async fn cached(tasks: u64) -> Result<u64, TaskError> {
    Ok(remember::map(0..tasks).await?.into_iter().sum())
}

#[task(retries = 1)]
async fn flaky(value: u64) -> Result<u64, String> {
    if RunContext::current().attempt() == 1 { Err("not yet".to_owned()) } else { Ok(value) }
}

#[flow]
async fn retries(tasks: u64) -> Result<u64, TaskError> {
    Ok(flaky::map(0..tasks).await?.into_iter().sum())
}

#[task(concurrency = "ten")]
async fn limited(value: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    value
}

#[flow]
async fn limit(tasks: u64) -> Result<u64, TaskError> {
    Ok(limited::map(0..tasks).await?.into_iter().sum())
}

#[task]
async fn talk(value: u64) -> u64 {
    for line in 0..LINES_PER_TASK {
        tracing::info!("line {line} of task {value}");
    }
    value
}

#[flow]
async fn logs(lines: u64) -> Result<u64, TaskError> {
    Ok(talk::map(0..lines / LINES_PER_TASK).await?.into_iter().sum())
}

#[tokio::main]
async fn main() -> orchestrator::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let scenario = arguments.first().expect("usage: compare-orchestrator SCENARIO [N] [twice]").as_str();
    let size = arguments.get(1).map_or(0, |size| size.parse().expect("N is a number"));
    let orchestrator = Orchestrator::current();
    if scenario == "limit" {
        orchestrator.limit("ten", 10).await?;
    }
    // What is kept in memory does not outlive the process: its second run is in the same one.
    if arguments.get(2).is_some_and(|word| word == "twice") {
        run(scenario, size).await?;
    }
    let start = Instant::now();
    let (sum, expected) = run(scenario, size).await?;
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(sum, expected, "every task ran");
    println!("{{\"seconds\": {seconds}}}");
    Ok(())
}

/// What the flow gave, and what it should give.
async fn run(scenario: &str, size: u64) -> orchestrator::Result<(u64, u64)> {
    let sum = |count: u64| count * count.saturating_sub(1) / 2;
    Ok(match scenario {
        "etl" => (etl().await?, 9900),
        "fan-out" => (fan_out(size).await?, sum(size)),
        "chain" => (chain(size).await?, size),
        "cached" => (cached(size).await?, sum(size)),
        "retries" => (retries(size).await?, sum(size)),
        "limit" => (limit(size).await?, sum(size)),
        "logs" => (logs(size).await?, sum(size / LINES_PER_TASK)),
        other => panic!("there is no scenario '{other}'"),
    })
}
