//! Layers of tasks, each of which takes the result of its counterpart in the layer before; and layers with a task
//! between them that takes the whole layer. Floor: spawned tasks that await the handles.

use std::path::Path;

use futures::FutureExt as _;
use orchestrator::prelude::*;
use tokio::runtime::Runtime;

use crate::measure::{Effort, PerOperation, count_under, runtime, time_bare, time_ours};
use crate::report::{Budget, Row};

const LAYERS: u64 = 10;

#[task]
async fn step(value: u64) -> u64 {
    value + 1
}

#[task]
async fn sum(values: &[u64]) -> u64 {
    values.iter().sum()
}

#[task]
async fn above(sum: u64, place: u64) -> u64 {
    sum / 1_000_000 + place
}

#[flow]
async fn layered(width: u64) -> Result<u64, TaskError> {
    let mut layer: Vec<_> = (0..width).map(step).collect();
    for _ in 1..LAYERS {
        layer = layer.into_iter().map(step).collect();
    }
    let mut total = 0;
    for run in layer {
        total += run.await?;
    }
    Ok(total)
}

#[flow]
async fn joined(width: u64) -> Result<u64, TaskError> {
    let mut total = sum(step::map(0..width));
    for _ in 1..LAYERS {
        total = sum(above::map(unmapped(total), 0..width));
    }
    total.await
}

async fn bare_layered(width: u64) -> u64 {
    let mut layer: Vec<_> = (0..width).map(|value| tokio::spawn(async move { value + 1 })).collect();
    for _ in 1..LAYERS {
        let next = layer.into_iter().map(|handle| tokio::spawn(async { handle.await.expect("nothing panics") + 1 }));
        layer = next.collect();
    }
    let mut total = 0;
    for handle in layer {
        total += handle.await.expect("nothing panics");
    }
    total
}

async fn bare_joined(width: u64) -> u64 {
    let all = |handles: Vec<tokio::task::JoinHandle<u64>>| {
        tokio::spawn(async move {
            let mut values = Vec::with_capacity(handles.len());
            for handle in handles {
                values.push(handle.await.expect("nothing panics"));
            }
            values.iter().sum::<u64>()
        })
        .map(|total| total.expect("nothing panics"))
        .shared()
    };
    let mut total = all((0..width).map(|value| tokio::spawn(async move { value + 1 })).collect());
    for _ in 1..LAYERS {
        let spawn = |place| {
            let total = total.clone();
            tokio::spawn(async move { total.await / 1_000_000 + place })
        };
        total = all((0..width).map(spawn).collect());
    }
    total.await
}

pub(crate) fn count(runtime: &Runtime, _: &Path, tasks: u64) {
    count_under(runtime, || layered(tasks / LAYERS));
}

pub(crate) fn count_bare(runtime: &Runtime, _: &Path, tasks: u64) {
    time_bare(runtime, bare_layered(tasks / LAYERS));
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let width = effort.size(10_000) / LAYERS;
    let budget = Budget::Ratio { allowed: 2.0, aim: 1.0 };
    let runtime = runtime();
    let expected = width * (width - 1) / 2 + LAYERS * width;
    let layers = effort.compare(
        || {
            let (total, elapsed) = time_bare(&runtime, bare_layered(width));
            assert_eq!(total, expected);
            PerOperation::of(elapsed, LAYERS * width)
        },
        || {
            let (total, elapsed) = time_ours(&runtime, || layered(width));
            assert_eq!(total.expect("it completes"), expected);
            PerOperation::of(elapsed, LAYERS * width)
        },
    );
    let expected = runtime.block_on(bare_joined(width));
    let joins = effort.compare(
        || {
            let (total, elapsed) = time_bare(&runtime, bare_joined(width));
            assert_eq!(total, expected);
            PerOperation::of(elapsed, LAYERS * (width + 1))
        },
        || {
            let (total, elapsed) = time_ours(&runtime, || joined(width));
            assert_eq!(total.expect("it completes"), expected);
            PerOperation::of(elapsed, LAYERS * (width + 1))
        },
    );
    vec![
        Row::compared(format!("layers, {LAYERS} x {width}"), &layers, budget),
        Row::compared("the same, each layer summed up by a task", &joins, budget),
    ]
}
