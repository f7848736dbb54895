//! The floor of the comparison: the same work on bare tokio, of which nothing is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn etl() -> Result<u64> {
    let rows = tokio::spawn(async { (0..100).collect::<Vec<u64>>() }).await?;
    let rows = tokio::spawn(async { rows.into_iter().map(|row| row * 2).collect::<Vec<_>>() }).await?;
    Ok(tokio::spawn(async { rows.into_iter().sum() }).await?)
}

async fn fan_out(tasks: u64) -> Result<u64> {
    sum((0..tasks).map(|value| tokio::spawn(async move { value })).collect()).await
}

async fn chain(tasks: u64) -> Result<u64> {
    let mut last = tokio::spawn(async { 1 });
    for _ in 1..tasks {
        last = tokio::spawn(async { last.await.expect("it ends") + 1 });
    }
    Ok(last.await?)
}

async fn retries(tasks: u64) -> Result<u64> {
    let attempt = |value, number| async move { if number == 1 { Err("not yet") } else { Ok(value) } };
    let task = move |value| async move {
        match attempt(value, 1).await {
            Ok(value) => value,
            Err(_) => attempt(value, 2).await.expect("the second succeeds"),
        }
    };
    sum((0..tasks).map(|value| tokio::spawn(task(value))).collect()).await
}

async fn limit(tasks: u64) -> Result<u64> {
    let ten = Arc::new(Semaphore::new(10));
    let task = |value| {
        let ten = ten.clone();
        async move {
            let _permit = ten.acquire().await.expect("it is never closed");
            tokio::time::sleep(Duration::from_millis(1)).await;
            value
        }
    };
    sum((0..tasks).map(|value| tokio::spawn(task(value))).collect()).await
}

async fn sum(tasks: Vec<JoinHandle<u64>>) -> Result<u64> {
    let mut sum = 0;
    for task in tasks {
        sum += task.await?;
    }
    Ok(sum)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let size = arguments.get(1).map_or(0, |size| size.parse().expect("N is a number"));
    let all = size * u64::saturating_sub(size, 1) / 2;
    let start = Instant::now();
    let (sum, expected) = match arguments.first().expect("usage: compare-tokio SCENARIO [N]").as_str() {
        "etl" => (etl().await?, 9900),
        "fan-out" => (fan_out(size).await?, all),
        "chain" => (chain(size).await?, size),
        "retries" => (retries(size).await?, all),
        "limit" => (limit(size).await?, all),
        other => panic!("there is no scenario '{other}'"),
    };
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(sum, expected, "every task ran");
    println!("{{\"seconds\": {seconds}}}");
    Ok(())
}
