//! A chain of tasks, each of which takes the future of the last. Floor: spawned tasks, each of which awaits the handle
//! of the last.

use std::path::Path;

use orchestrator::prelude::*;
use tokio::runtime::Runtime;

use crate::measure::{Effort, PerOperation, count_under, runtime, time_bare, time_ours};
use crate::report::{Budget, Row};

#[task]
async fn one_more(than: u64) -> u64 {
    than + 1
}

#[flow]
async fn chain(links: u64) -> Result<u64, TaskError> {
    let mut last = one_more(0);
    for _ in 1..links {
        last = one_more(last);
    }
    last.await
}

/// The same, where the first link waits until all are there.
#[flow]
async fn held_chain(links: u64) -> Result<u64, TaskError> {
    let (open, gate) = tokio::sync::oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let mut last = first(std::sync::Arc::new(gate));
    for _ in 1..links {
        last = one_more(last);
    }
    let _ = open.send(());
    last.await
}

type Gate = std::sync::Mutex<Option<tokio::sync::oneshot::Receiver<()>>>;

#[task]
async fn first(gate: &Gate) -> u64 {
    let gate = gate.lock().expect("nobody panics").take();
    let _ = gate.expect("there is one attempt").await;
    1
}

async fn bare(links: u64) -> u64 {
    let mut last = tokio::spawn(async { 1 });
    for _ in 1..links {
        last = tokio::spawn(async move { last.await.expect("nothing panics") + 1 });
    }
    last.await.expect("nothing panics")
}

async fn bare_held(links: u64) -> u64 {
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let mut last = tokio::spawn(async {
        let _ = gate.await;
        1
    });
    for _ in 1..links {
        last = tokio::spawn(async move { last.await.expect("nothing panics") + 1 });
    }
    let _ = open.send(());
    last.await.expect("nothing panics")
}

pub(crate) fn count(runtime: &Runtime, _: &Path, links: u64) {
    count_under(runtime, || chain(links));
}

pub(crate) fn count_bare(runtime: &Runtime, _: &Path, links: u64) {
    time_bare(runtime, bare(links));
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let links = effort.size(10_000);
    let budget = Budget::Ratio { allowed: 2.0, aim: 1.0 };
    let runtime = runtime();
    let check = |(end, elapsed)| {
        assert_eq!(end, links, "every link ran once");
        PerOperation::of(elapsed, links)
    };
    let compared = effort.compare(
        || check(time_bare(&runtime, bare(links))),
        || check(time_ours(&runtime, || async { chain(links).await.expect("it completes") })),
    );
    let held = effort.compare(
        || check(time_bare(&runtime, bare_held(links))),
        || check(time_ours(&runtime, || async { held_chain(links).await.expect("it completes") })),
    );
    vec![
        Row::compared(format!("chain of {} tasks", Effort::name(links)), &compared, budget),
        Row::compared("the same, submitted before it starts", &held, budget),
    ]
}
