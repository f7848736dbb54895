#![allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
use orchestrator::prelude::*;
use std::time::Instant;

#[task]
async fn echo(value: u64) -> u64 {
    value
}

#[flow]
async fn fan_out(tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(echo).collect();
    let mut sum = 0;
    for run in runs {
        sum += run.await?;
    }
    Ok(sum)
}
#[flow]
async fn mapped(tasks: u64) -> Result<u64, TaskError> {
    Ok(echo::map(0..tasks).await?.into_iter().sum())
}
#[flow]
async fn chain(tasks: u64) -> Result<u64, TaskError> {
    let mut last = echo(0);
    for _ in 0..tasks {
        last = echo(last);
    }
    last.await
}
async fn bare(tasks: u64) -> u64 {
    let handles: Vec<_> = (0..tasks).map(|v| tokio::spawn(async move { v })).collect();
    let mut sum = 0;
    for h in handles {
        sum += h.await.unwrap();
    }
    sum
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (kind, tasks, rounds) = (a[1].as_str(), a[2].parse::<u64>().unwrap(), a[3].parse::<usize>().unwrap());
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut all = vec![];
    let one = |kind: &str| -> f64 {
        let o = Orchestrator::in_memory();
        let kind = kind.to_owned();
        rt.block_on(async move {
            tokio::spawn(async move {
                let t = Instant::now();
                match kind.as_str() {
                    "fan" => {
                        o.scope(async { fan_out(tasks).await.unwrap() }).await;
                    }
                    "map" => {
                        o.scope(async { mapped(tasks).await.unwrap() }).await;
                    }
                    "chain" => {
                        o.scope(async { chain(tasks).await.unwrap() }).await;
                    }
                    "bare" => {
                        bare(tasks).await;
                    }
                    _ => panic!(),
                }
                t.elapsed().as_nanos() as f64 / tasks as f64
            })
            .await
            .unwrap()
        })
    };
    let mut ratios = vec![];
    for _ in 0..rounds {
        let x = one(kind);
        if kind != "bare" && a.len() > 4 {
            let b = one("bare");
            ratios.push(x / b);
        }
        all.push(x);
    }
    all.sort_by(|a, b| a.total_cmp(b));
    println!("{kind} {tasks}: min {:.0} median {:.0} ns", all[0], all[all.len() / 2]);
    if !ratios.is_empty() {
        ratios.sort_by(|a, b| a.total_cmp(b));
        println!(
            "ratio min {:.2} q1 {:.2} median {:.2} q3 {:.2}",
            ratios[0],
            ratios[ratios.len() / 4],
            ratios[ratios.len() / 2],
            ratios[ratios.len() * 3 / 4]
        );
    }
}
