//! How long it takes from the last instruction of an upstream's body to the first of its downstream's, on a machine that
//! has nothing else to do, and with many other tasks that wait: after an upstream that has waited for a timer, and after one
//! that has computed. Floor: spawned tasks, the second of which awaits the handle of the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use tokio::sync::Semaphore;

use crate::measure::{Effort, median, quantile, runtime, time_bare, time_under};
use crate::report::{Budget, Row, Unit};

/// Long enough for the downstream to be called, and for the workers to have nothing to do.
const PAUSE: Duration = Duration::from_millis(1);

/// Opens when permits are added.
type Gate = Arc<Semaphore>;

#[task]
async fn upstream() -> Instant {
    tokio::time::sleep(PAUSE).await;
    Instant::now()
}

#[task]
async fn computing() -> Instant {
    compute()
}

#[task]
async fn downstream(ended: Instant) -> f64 {
    nanoseconds(ended)
}

#[task]
async fn gated(gate: Gate) -> u64 {
    drop(gate.acquire().await);
    0
}

#[task]
async fn after(value: u64) -> u64 {
    value
}

/// Keeps the core at work, as long as the other upstream waits.
fn compute() -> Instant {
    let start = Instant::now();
    loop {
        let now = Instant::now();
        if now - start >= PAUSE {
            return now;
        }
    }
}

fn nanoseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e9
}

/// The latencies of that many pairs, while other tasks wait: half of them for an upstream, half in their bodies.
#[flow]
async fn pairs(pairs: u64, waiting: u64) -> Result<Vec<f64>, TaskError> {
    let gate = Gate::new(Semaphore::new(0));
    let first = gated(Gate::clone(&gate));
    let others: Vec<_> =
        (0..waiting).map(|n| if n % 2 == 0 { after(&first) } else { gated(Gate::clone(&gate)) }).collect();
    if waiting > 0 {
        // Until those have begun to wait.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut latencies = Vec::new();
    for _ in 0..pairs {
        latencies.push(downstream(upstream()).await?);
    }
    gate.add_permits(1 << 24);
    first.await?;
    for other in others {
        other.await?;
    }
    Ok(latencies)
}

/// The latencies of that many pairs whose upstream computes.
#[flow]
async fn computing_pairs(pairs: u64) -> Result<Vec<f64>, TaskError> {
    let mut latencies = Vec::new();
    for _ in 0..pairs {
        latencies.push(downstream(computing()).await?);
    }
    Ok(latencies)
}

async fn bare_computing(pairs: u64) -> Vec<f64> {
    let mut latencies = Vec::new();
    for _ in 0..pairs {
        let upstream = tokio::spawn(async { compute() });
        let downstream = tokio::spawn(async { nanoseconds(upstream.await.expect("nothing panics")) });
        latencies.push(downstream.await.expect("nothing panics"));
    }
    latencies
}

async fn bare(pairs: u64) -> Vec<f64> {
    let mut latencies = Vec::new();
    for _ in 0..pairs {
        let upstream = tokio::spawn(async {
            tokio::time::sleep(PAUSE).await;
            Instant::now()
        });
        let downstream = tokio::spawn(async { nanoseconds(upstream.await.expect("nothing panics")) });
        latencies.push(downstream.await.expect("nothing panics"));
    }
    latencies
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let runtime = runtime();
    let rounds = if effort.quick { 200 } else { 3_000 };
    let waiting = effort.size(100_000);
    let of = |waiting: u64| {
        let orchestrator = Orchestrator::in_memory();
        Spread::of(time_under(&orchestrator, &runtime, || pairs(rounds, waiting)).0.expect("it completes"))
    };
    let floor = Spread::of(time_bare(&runtime, bare(rounds)).0);
    let floor_computing = Spread::of(time_bare(&runtime, bare_computing(rounds)).0);
    let orchestrator = Orchestrator::in_memory();
    let computing = time_under(&orchestrator, &runtime, || computing_pairs(rounds)).0.expect("it completes");
    let computing = Spread::of(computing);
    let (idle, busy) = (of(0), of(waiting));
    let row = |name: &str, floor, ours, budget| {
        let rounds = usize::try_from(rounds).expect("few");
        Row::absolute(name, Unit::Nanoseconds, Some(floor), ours, rounds, budget)
    };
    let median = Budget::Absolute { allowed: 5_000.0, aim: 2_500.0 };
    let p99 = Budget::Absolute { allowed: 50_000.0, aim: 25_000.0 };
    let beside = Budget::Ratio { allowed: 2.0, aim: 1.2 };
    let others = format!("with {} others that wait, beside without", Effort::name(waiting));
    vec![
        row("from an upstream's end to its downstream's start", floor.median, idle.median, median),
        row("the same, 99th of 100", floor.p99, idle.p99, p99),
        row("the same after an upstream that has computed", floor_computing.median, computing.median, median),
        row("the same, 99th of 100, after an upstream that has computed", floor_computing.p99, computing.p99, p99),
        row(&format!("the same {others}"), idle.median, busy.median, beside),
        row(&format!("the same, 99th of 100, {others}"), idle.p99, busy.p99, beside),
    ]
}

struct Spread {
    median: f64,
    p99: f64,
}

impl Spread {
    fn of(mut latencies: Vec<f64>) -> Self {
        Self { median: median(&mut latencies), p99: quantile(&latencies, 0.99) }
    }
}
