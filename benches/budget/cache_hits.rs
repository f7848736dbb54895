//! Tasks whose results are in the cache. Floor: tasks of ours that do nothing but what a hit cannot do without:
//! encode the arguments, hash them, look the result up.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use orchestrator::prelude::*;
use tokio::runtime::Runtime;

use crate::measure::{Effort, PerOperation, count_under, runtime, time_under};
use crate::report::{Budget, Row};

/// So many different results are in the cache.
const KEYS: u64 = 1_000;

#[task(cache_ttl = "1d")]
async fn square(number: u64) -> u64 {
    number * number
}

#[flow]
async fn cached(tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(|number| square(number % KEYS)).collect();
    let mut sum = 0;
    for run in runs {
        sum += run.await?;
    }
    Ok(sum)
}

type Results = RwLock<HashMap<[u8; 32], Arc<u64>>>;

#[task]
async fn look_up(results: &Results, number: u64) -> u64 {
    **results.read().expect("nobody panics").get(&key(number)).expect("it was put in before")
}

/// As many bytes as a key of ours is made of, hashed.
fn key(number: u64) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(b"orchestrator cache key 1");
    let task = concat!(module_path!(), "::square");
    bytes.extend_from_slice(&(task.len() as u64).to_le_bytes());
    bytes.extend_from_slice(task.as_bytes());
    bytes.extend_from_slice(b"\0s");
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend_from_slice(b"i");
    bytes.extend_from_slice(&6_u64.to_le_bytes());
    bytes.extend_from_slice(b"number");
    bytes.push(5);
    bytes.extend_from_slice(&number.to_le_bytes());
    *blake3::hash(&bytes).as_bytes()
}

#[flow]
async fn looked_up(#[param(skip)] results: Arc<Results>, tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(|number| look_up(Arc::clone(&results), number % KEYS)).collect();
    let mut sum = 0;
    for run in runs {
        sum += run.await?;
    }
    Ok(sum)
}

pub(crate) fn count(runtime: &Runtime, _: &Path, tasks: u64) {
    count_under(runtime, || async move {
        cached(KEYS).await?;
        cached(tasks).await
    });
}

pub(crate) fn count_looked_up(runtime: &Runtime, _: &Path, tasks: u64) {
    let results = results();
    count_under(runtime, || looked_up(results, tasks));
}

/// What is looked up where nothing of ours does it.
fn results() -> Arc<Results> {
    Arc::new(RwLock::new((0..KEYS).map(|number| (key(number), Arc::new(number * number))).collect()))
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let tasks = effort.size(100_000);
    let expected = (0..tasks).map(|number| (number % KEYS).pow(2)).sum::<u64>();
    let runtime = runtime();
    let results = results();
    let compared = effort.compare(
        || {
            let (sum, elapsed) =
                time_under(&Orchestrator::in_memory(), &runtime, || looked_up(Arc::clone(&results), tasks));
            assert_eq!(sum.expect("it completes"), expected);
            PerOperation::of(elapsed, tasks)
        },
        || {
            let orchestrator = Orchestrator::in_memory();
            runtime.block_on(orchestrator.scope(async { cached(KEYS).await })).expect("it completes");
            let (sum, elapsed) = time_under(&orchestrator, &runtime, || cached(tasks));
            assert_eq!(sum.expect("it completes"), expected);
            PerOperation::of(elapsed, tasks)
        },
    );
    vec![Row::compared("a cache hit, memory", &compared, Budget::Ratio { allowed: 2.0, aim: 1.2 })]
}
