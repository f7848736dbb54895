//! Whether a task costs the same where there is much of something: tasks in a queue for one slot, keys in the cache,
//! limits, flow runs at the same time. Floor: the same with little of it.

use std::time::Duration;

use orchestrator::prelude::*;
use tokio::runtime::Runtime;

use crate::calls;
use crate::measure::{Effort, PerOperation, runtime, time_under};
use crate::report::{Budget, Row};

#[task(concurrency = "one")]
async fn in_turn(value: u64) -> u64 {
    value
}

/// All of them ask for a slot before there is one.
#[flow]
async fn queue(tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(in_turn).collect();
    let orchestrator = Orchestrator::current();
    while waiting(&orchestrator).await < runs.len() {
        tokio::task::yield_now().await;
    }
    orchestrator.limit("one", 1).await.expect("a limit");
    calls::all(runs.into_iter()).await
}

async fn waiting(orchestrator: &Orchestrator) -> usize {
    orchestrator.limits().await.expect("limits").iter().map(|limit| limit.waiting).sum()
}

#[task(cache_ttl = "1d")]
async fn remembered(number: u64) -> u64 {
    number
}

/// Twice as many tasks as there are keys: each key is made once and found once. At most 500 at a time.
#[flow]
async fn keys(first: u64, keys: u64) -> Result<u64, TaskError> {
    calls::windowed(500, (first..first + keys).chain(first..first + keys).map(remembered)).await
}

#[task]
async fn with_limit(limit: u64) -> Result<(), orchestrator::Error> {
    drop(concurrency(format!("limit {limit}"), 1).await?);
    Ok(())
}

#[flow]
async fn limits(tasks: u64, limits: u64) -> Result<(), TaskError> {
    let runs: Vec<_> = (0..tasks).map(|task| with_limit(task % limits)).collect();
    for run in runs {
        run.await?;
    }
    Ok(())
}

#[task]
async fn echo(value: u64) -> u64 {
    value
}

#[flow]
async fn inner(tasks: u64) -> Result<u64, TaskError> {
    calls::all((0..tasks).map(echo)).await
}

/// So many flow runs of ten tasks, of which that many are there at a time.
async fn flows(runs: u64, at_a_time: usize) {
    let sum = calls::windowed(at_a_time, (0..runs).map(|_| inner(10))).await;
    assert_eq!(sum.expect("they complete"), 45 * runs);
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let runtime = &runtime();
    vec![queued(effort, runtime), cached(effort, runtime), limited(effort, runtime), concurrent(effort, runtime)]
}

fn queued(effort: &Effort, runtime: &Runtime) -> Row {
    let many = effort.size(10_000);
    let few = many / 10;
    let once = |tasks: u64| {
        let orchestrator = orchestrator(runtime, &["one".to_owned()], 0);
        let (sum, elapsed) = time_under(&orchestrator, runtime, || queue(tasks));
        assert_eq!(sum.expect("it completes"), tasks * (tasks - 1) / 2);
        elapsed
    };
    let name = format!("a task in a queue of {} for one slot, beside one of {}", Effort::name(many), Effort::name(few));
    flat(effort, name, (few, many), many, once)
}

fn cached(effort: &Effort, runtime: &Runtime) -> Row {
    let many = effort.size(100_000);
    let few = many / 100;
    // As much is done with few keys: again and again, each time in a new cache.
    let once = |number: u64| {
        let (sum, elapsed) = time_under(&Orchestrator::in_memory(), runtime, || keys(0, number));
        assert_eq!(sum.expect("it completes"), number * (number - 1));
        elapsed
    };
    let name = format!("a task of a cache with {} keys, beside one with {}", Effort::name(many), Effort::name(few));
    flat(effort, name, (few, many), many, once)
}

fn limited(effort: &Effort, runtime: &Runtime) -> Row {
    let (tasks, many) = (effort.size(20_000), effort.size(1_000));
    let once = |number: u64| {
        let names: Vec<_> = (0..number).map(|limit| format!("limit {limit}")).collect();
        let orchestrator = orchestrator(runtime, &names, 1_000_000);
        time_under(&orchestrator, runtime, || limits(tasks, number)).0.expect("it completes");
        time_under(&orchestrator, runtime, || limits(tasks, number)).1
    };
    let name = format!("a task with a slot of one of {} limits, beside one of 10", Effort::name(many));
    let of = |number| PerOperation::of(once(number), tasks);
    Row::compared(name, &effort.compare(|| of(10), || of(many)), BUDGET)
}

fn concurrent(effort: &Effort, runtime: &Runtime) -> Row {
    let many = effort.size(1_000);
    let (runs, at_once) = (many * 2, usize::try_from(many).expect("few"));
    let once = |at_a_time: usize| {
        let orchestrator = Orchestrator::in_memory();
        let ((), elapsed) = time_under(&orchestrator, runtime, || async move { flows(runs, at_a_time).await });
        PerOperation::of(elapsed, runs * 10)
    };
    let name = format!("a task in one of {} flow runs at a time, beside one of 10", Effort::name(many));
    Row::compared(name, &effort.compare(|| once(10), || once(at_once)), BUDGET)
}

const BUDGET: Budget = Budget::Ratio { allowed: 1.5, aim: 1.1 };

/// Compares the cost of one of few with that of one of many; what is small is done often.
fn flat(effort: &Effort, name: String, (few, many): (u64, u64), all: u64, once: impl Fn(u64) -> Duration) -> Row {
    let of = |size: u64| {
        let times = all / size;
        PerOperation::of((0..times).map(|_| once(size)).sum(), size * times)
    };
    Row::compared(name, &effort.compare(|| of(few), || of(many)), BUDGET)
}

fn orchestrator(runtime: &Runtime, limits: &[String], slots: u32) -> Orchestrator {
    let orchestrator = Orchestrator::in_memory();
    runtime.block_on(async {
        for limit in limits {
            orchestrator.limit(limit.as_str(), slots).await.expect("a limit");
        }
    });
    orchestrator
}
