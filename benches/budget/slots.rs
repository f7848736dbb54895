//! A slot that nobody else wants, taken and given back. Floor: one permit of a tokio semaphore.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::measure::{Effort, PerOperation, count_under, runtime, time_bare, time_under};
use crate::report::{Budget, Row};

#[task]
async fn guards(times: u64) -> Result<Duration, orchestrator::Error> {
    let start = Instant::now();
    for _ in 0..times {
        drop(concurrency("many", 1).await?);
    }
    Ok(start.elapsed())
}

async fn permits(times: u64) -> Duration {
    let semaphore = Semaphore::new(1_000_000);
    let start = Instant::now();
    for _ in 0..times {
        drop(semaphore.acquire().await.expect("it is not closed"));
    }
    start.elapsed()
}

#[task(concurrency = "many")]
async fn with_slot(value: u64) -> u64 {
    value
}

#[task]
async fn with_permit(semaphore: &Semaphore, value: u64) -> u64 {
    let permit = semaphore.acquire().await.expect("it is not closed");
    drop(permit);
    value
}

#[flow]
async fn slots(tasks: u64) -> Result<(), TaskError> {
    let runs: Vec<_> = (0..tasks).map(with_slot).collect();
    for run in runs {
        run.await?;
    }
    Ok(())
}

#[flow]
async fn semaphores(#[param(skip)] semaphore: Arc<Semaphore>, tasks: u64) -> Result<(), TaskError> {
    let runs: Vec<_> = (0..tasks).map(|value| with_permit(Arc::clone(&semaphore), value)).collect();
    for run in runs {
        run.await?;
    }
    Ok(())
}

pub(crate) fn count(runtime: &Runtime, _: &Path, times: u64) {
    count_under(runtime, || async move {
        Orchestrator::current().limit("many", 1_000_000).await.expect("a limit");
        guards(times).await
    });
}

pub(crate) fn count_bare(runtime: &Runtime, _: &Path, times: u64) {
    time_bare(runtime, permits(times));
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let runtime = runtime();
    let orchestrator = || {
        let orchestrator = Orchestrator::in_memory();
        runtime.block_on(async { orchestrator.limit("many", 1_000_000).await }).expect("a limit");
        orchestrator
    };
    let times = effort.size(100_000);
    let bare = effort.compare(
        || {
            let elapsed = runtime.block_on(runtime.spawn(permits(times))).expect("nothing panics");
            PerOperation::of(elapsed, times)
        },
        || {
            let (elapsed, _) = time_under(&orchestrator(), &runtime, || guards(times));
            PerOperation::of(elapsed.expect("it completes"), times)
        },
    );
    let semaphore = Arc::new(Semaphore::new(1_000_000));
    let task = effort.compare(
        || {
            let call = || semaphores(Arc::clone(&semaphore), times);
            let (done, elapsed) = time_under(&orchestrator(), &runtime, call);
            done.expect("it completes");
            PerOperation::of(elapsed, times)
        },
        || {
            let (done, elapsed) = time_under(&orchestrator(), &runtime, || slots(times));
            done.expect("it completes");
            PerOperation::of(elapsed, times)
        },
    );
    vec![
        Row::compared("an uncontended slot", &bare, Budget::Ratio { allowed: 5.0, aim: 2.0 }),
        Row::compared("a task with a slot, beside one with a permit", &task, Budget::None),
    ]
}
