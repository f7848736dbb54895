//! Tasks that do nothing, all submitted before the first is awaited. Floor: `tokio::spawn` and join handles.

use std::path::Path;

use orchestrator::prelude::*;
use tokio::runtime::Runtime;

use crate::measure::{Effort, PerOperation, count_under, runtime, time_bare, time_ours};
use crate::report::{Budget, Row};

const BUDGET: Budget = Budget::Ratio { allowed: 2.0, aim: 1.0 };

#[task]
async fn echo(value: u64) -> u64 {
    value
}

/// Calls the task `tasks` times, then awaits each.
#[flow]
pub(crate) async fn fan_out(tasks: u64) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(echo).collect();
    let mut sum = 0;
    for run in runs {
        sum += run.await?;
    }
    Ok(sum)
}

/// The same as one `map`.
#[flow]
async fn mapped(tasks: u64) -> Result<u64, TaskError> {
    Ok(echo::map(0..tasks).await?.into_iter().sum())
}

pub(crate) async fn bare(tasks: u64) -> u64 {
    let handles: Vec<_> = (0..tasks).map(|value| tokio::spawn(async move { value })).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await.expect("nothing panics");
    }
    sum
}

pub(crate) fn count(runtime: &Runtime, _: &Path, tasks: u64) {
    count_under(runtime, || fan_out(tasks));
}

pub(crate) fn count_mapped(runtime: &Runtime, _: &Path, tasks: u64) {
    count_under(runtime, || mapped(tasks));
}

pub(crate) fn count_bare(runtime: &Runtime, _: &Path, tasks: u64) {
    time_bare(runtime, bare(tasks));
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let sizes = if effort.quick { &[1_000, 10_000][..] } else { &[1_000, 10_000, 100_000] };
    let mut rows: Vec<_> = sizes
        .iter()
        .map(|&tasks| {
            let name = Effort::name(tasks);
            let compared = compare(effort, tasks, || async move { fan_out(tasks).await.expect("it completes") });
            Row::compared(format!("fan-out of {name} tasks"), &compared, BUDGET)
        })
        .collect();
    let tasks = effort.size(100_000);
    let compared = compare(effort, tasks, || async move { mapped(tasks).await.expect("it completes") });
    rows.push(Row::compared(format!("the same {} by `map`", Effort::name(tasks)), &compared, BUDGET));
    rows
}

fn compare<F: Future<Output = u64>>(effort: &Effort, tasks: u64, ours: impl Fn() -> F) -> crate::measure::Compared {
    let runtime = runtime();
    let expected = tasks * (tasks - 1) / 2;
    // Small ones are repeated, so that a round takes some milliseconds.
    let times = (20_000 / tasks).max(1);
    let total = |once: &dyn Fn() -> (u64, std::time::Duration)| {
        let elapsed = (0..times).map(|_| {
            let (sum, elapsed) = once();
            assert_eq!(sum, expected, "every task ran once");
            elapsed
        });
        PerOperation::of(elapsed.sum(), tasks * times)
    };
    effort.compare(|| total(&|| time_bare(&runtime, bare(tasks))), || total(&|| time_ours(&runtime, &ours)))
}
