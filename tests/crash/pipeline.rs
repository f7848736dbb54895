//! The pipeline that is killed: a fan-out, a chain, slots, a cache, a transaction, a subflow, retries, equal calls.

use std::time::Duration;

use futures::StreamExt as _;
use orchestrator::prelude::*;
use orchestrator::{FlowRunQuery, RunContext};

use crate::{child, witness};

/// How wide the pipeline is.
pub(crate) const WIDTH: u64 = 60;
/// How many results are large.
pub(crate) const LARGE: u64 = 8;
/// How many equal calls it makes.
pub(crate) const EQUAL: u64 = 10;

/// What a body does: tells the witness, takes a little time, gives a number that depends on what it was given.
async fn work(what: &str, of: &[u64]) -> u64 {
    witness::write(&format!("began {what} {of:?}"));
    let result = of.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, n| (hash ^ n).wrapping_mul(0x0100_0000_01b3)) >> 8;
    tokio::time::sleep(Duration::from_micros(500 + result % 3000)).await;
    result
}

/// Called when the run has completed: its result is stored from then on.
fn completed(run: &TaskRun, state: &State) {
    // What was answered from the store says nothing of a body.
    if state.name == "Completed" {
        witness::write(&format!("completed {}", run.name));
    }
}

#[task(run_name = "square [{n}]", on_completion = completed)]
async fn square(n: u64) -> u64 {
    work("square", &[n]).await
}

#[task(run_name = "step [{before}, {n}]", on_completion = completed)]
async fn step(before: u64, n: u64) -> u64 {
    work("step", &[before, n]).await
}

#[task(run_name = "guarded [{n}]", concurrency = "narrow", on_completion = completed)]
async fn guarded(n: u64) -> u64 {
    work("guarded", &[n]).await
}

#[task(cache_ttl = "1d", persist = false)]
async fn remembered(n: u64) -> u64 {
    work("remembered", &[n]).await
}

/// Its result is stored when the transaction around it commits, which is after it completed.
#[task]
async fn staged(n: u64) -> u64 {
    work("staged", &[n]).await
}

#[task(retries = 1)]
async fn second_time(n: u64) -> Result<u64, String> {
    match RunContext::current().attempt() {
        1 => Err("the first attempt fails".to_owned()),
        _ => Ok(n / 2),
    }
}

/// In the thread pool.
#[task(run_name = "sync_sum [{numbers:?}, {salt}]", on_completion = completed)]
fn sync_sum(numbers: &[u64], salt: u64) -> u64 {
    witness::write(&format!("began sync_sum [{numbers:?}, {salt}]"));
    std::thread::sleep(Duration::from_millis(1));
    numbers.iter().fold(salt, |sum, n| sum.wrapping_add(*n))
}

/// Called with the same input many times.
#[task]
async fn equal(n: u64) -> u64 {
    work("equal", &[n]).await
}

/// Its result is so large that it is an object of its own.
#[task(run_name = "large [{n}]", on_completion = completed)]
async fn large(n: u64) -> Vec<u64> {
    vec![work("large", &[n]).await; 5000]
}

#[task(run_name = "publish", on_completion = completed)]
fn publish(sum: u64) {
    witness::write("began publish");
    witness::publish(&sum.to_string());
}

#[flow(persist)]
async fn below(seed: u64) -> Result<u64, TaskError> {
    let squares = square::map((0..20).map(|n| seed + 1000 + n).collect::<Vec<_>>());
    sync_sum(squares, seed + 1).await
}

/// The sum of everything.
#[flow(persist)]
pub(crate) async fn everything(seed: u64) -> anyhow::Result<u64> {
    sum(seed).await
}

/// The same, and nobody has to resume it.
#[flow(name = "everything", persist, on_crash = "resume", crash_budget = 1000)]
async fn by_itself(seed: u64) -> anyhow::Result<u64> {
    sum(seed).await
}

async fn sum(seed: u64) -> anyhow::Result<u64> {
    let squares = square::map((0..WIDTH).map(|n| seed + n).collect::<Vec<_>>());
    let narrow = guarded::map((0..WIDTH).map(|n| seed + n).collect::<Vec<_>>());
    let cached = remembered::map((0..WIDTH).map(|n| seed + n / 2).collect::<Vec<_>>());
    let sub = below(seed);
    let large = large::map((0..LARGE).map(|n| seed + n).collect::<Vec<_>>());
    let mut last = square(seed + WIDTH);
    for n in 0..WIDTH / 2 {
        last = step(last, n);
    }
    let mut in_any_order = square::map((0..WIDTH / 2).map(|n| seed + 2000 + n).collect::<Vec<_>>()).as_completed();
    let mut more = Vec::new();
    while let Some(done) = in_any_order.next().await {
        // Equal calls in an order of chance.
        more.push(sync_sum(vec![done?], seed % 3));
        if (more.len() as u64) < 2 * EQUAL {
            more.push(equal(seed));
        }
    }
    let committed = transaction(async {
        let first = staged(seed).await?;
        let second = second_time(first).await?;
        Ok::<_, TaskError>(first.wrapping_add(second))
    })
    .await?;
    let mut sum = committed;
    for part in [squares.await?, narrow.await?, cached.await?] {
        sum = part.into_iter().fold(sum, u64::wrapping_add);
    }
    for part in more {
        sum = sum.wrapping_add(part.await?);
    }
    for numbers in large.await? {
        sum = numbers.into_iter().fold(sum, u64::wrapping_add);
    }
    let sum = sum.wrapping_add(sub.await?).wrapping_add(last.await?);
    publish(sum).await?;
    Ok(sum)
}

/// Says to a process that it is not alone: it resumes the pipeline if the other one does not, and never calls it.
pub(crate) const SECOND: &str = "CRASH_TEST_SECOND";

/// Says to a process that the pipeline goes on by itself.
pub(crate) const BY_ITSELF: &str = "CRASH_TEST_BY_ITSELF";

/// The process that is killed: starts the pipeline, or goes on with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_in_a_process_of_its_own() {
    let Some(folder) = child::folder() else { return };
    let seed = child::number("CRASH_TEST_PIPELINE").unwrap();
    witness::open(&folder);
    let orchestrator = Orchestrator::builder().build().await.unwrap();
    orchestrator.limit("narrow", 4).await.unwrap();
    let runs = orchestrator.flow_runs(&FlowRunQuery::new().flow("everything")).await.unwrap();
    let begun: Vec<_> = runs.iter().filter(|run| run.start_time.is_some()).collect();
    let second = child::number(SECOND).is_some();
    if child::number(BY_ITSELF).is_some() {
        match begun[..] {
            [] if second => {}
            [run] if run.state.kind == StateType::Completed => {}
            // It went on when the orchestrator was made, and is given up again: nobody has asked for it.
            [_] if second => tokio::time::sleep(Duration::from_millis(seed % 50)).await,
            [] | [_] => drop(orchestrator.scope(async { by_itself(seed).await }).await.unwrap()),
            ref more => panic!("there are {} runs of one pipeline: {more:#?}", more.len()),
        }
        return orchestrator.shutdown().await.unwrap();
    }
    match begun[..] {
        [] if second => {}
        // One that never began has no parameters on record: it is called again.
        [] => drop(orchestrator.scope(async { everything(seed).await }).await.unwrap()),
        [run] if run.state.kind == StateType::Completed => {}
        [run] => match orchestrator.resume(run.id).await {
            Ok(run) => assert_eq!(run.state.kind, StateType::Completed),
            // Somebody else was quicker, and was killed or is at it still.
            Err(error) => assert!(error.is_not_resumable(), "{error}"),
        },
        ref more => panic!("there are {} runs of one pipeline: {more:#?}", more.len()),
    }
    orchestrator.shutdown().await.unwrap();
}
