//! The work of the comparison with durare on SQLite: a task is a step of a workflow, and is checkpointed.

use std::time::{Duration, Instant};

use durare::{
    DurableContext, DurableEngine, Error, Result, StepCtx, StepOptions, WorkflowHandle, WorkflowOptions, WorkflowQueue,
};
use futures::future::try_join_all;

#[durare::step]
async fn extract(ctx: &DurableContext) -> Result<Vec<u64>> {
    Ok((0..100).collect())
}

#[durare::step]
async fn transform(ctx: &DurableContext, rows: Vec<u64>) -> Result<Vec<u64>> {
    Ok(rows.into_iter().map(|row| row * 2).collect())
}

#[durare::step]
async fn load(ctx: &DurableContext, rows: Vec<u64>) -> Result<u64> {
    Ok(rows.into_iter().sum())
}

#[durare::workflow]
async fn etl(ctx: DurableContext, _: u64) -> Result<u64> {
    let rows = extract(&ctx).await?;
    let rows = transform(&ctx, rows).await?;
    load(&ctx, rows).await
}

#[durare::step]
async fn echo(ctx: &DurableContext, value: u64) -> Result<u64> {
    Ok(value)
}

#[durare::workflow]
async fn fan_out(ctx: DurableContext, tasks: u64) -> Result<u64> {
    let steps: Vec<_> = (0..tasks).map(|value| echo(&ctx, value)).collect();
    Ok(try_join_all(steps).await?.into_iter().sum())
}

#[durare::step]
async fn increment(ctx: &DurableContext, value: u64) -> Result<u64> {
    Ok(value + 1)
}

#[durare::workflow]
async fn chain(ctx: DurableContext, tasks: u64) -> Result<u64> {
    let mut last = 0;
    for _ in 0..tasks {
        last = increment(&ctx, last).await?;
    }
    Ok(last)
}

#[durare::workflow]
async fn retries(ctx: DurableContext, tasks: u64) -> Result<u64> {
    let flaky = |value| {
        let options = StepOptions::new("flaky").max_retries(1).base_interval(Duration::ZERO);
        ctx.step_with(options, move |step: StepCtx| async move {
            if step.attempt() == 0 { Err(Error::app("not yet")) } else { Ok(value) }
        })
    };
    let steps: Vec<_> = (0..tasks).map(flaky).collect();
    Ok(try_join_all(steps).await?.into_iter().sum())
}

/// What has a limit, or is remembered by its id, is a workflow of its own.
#[durare::workflow]
async fn limited(_: DurableContext, value: u64) -> Result<u64> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(value)
}

#[durare::workflow]
async fn remember(_: DurableContext, value: u64) -> Result<u64> {
    Ok(value)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let scenario = arguments.first().expect("usage: compare-durare SCENARIO [N]").as_str();
    let size: u64 = arguments.get(1).map_or(0, |size| size.parse().expect("N is a number"));
    let path = std::env::var("COMPARE_DATABASE").expect("COMPARE_DATABASE is the path of the database");
    let mut builder = DurableEngine::connect(&format!("sqlite://{path}?mode=rwc")).await?;
    builder.register_queue(WorkflowQueue::new("ten").worker_concurrency(10));
    let engine = builder.build().await?;
    if scenario == "limit" {
        engine.launch().await?;
    }

    let start = Instant::now();
    let whole = |id: &str| WorkflowOptions::with_id(id);
    let (sum, expected) = match scenario {
        "etl" => (engine.start_with(Etl, 0, whole("etl")).await?.await?, 9900),
        "fan-out" => (engine.start_with(FanOut, size, whole("fan-out")).await?.await?, sum(size)),
        "chain" => (engine.start_with(Chain, size, whole("chain")).await?.await?, size),
        "retries" => (engine.start_with(Retries, size, whole("retries")).await?.await?, sum(size)),
        "cached" => {
            let start =
                |value| engine.start_with(Remember, value, WorkflowOptions::with_id(format!("remember-{value}")));
            let handles = try_join_all((0..size).map(start)).await?;
            (total(handles).await?, sum(size))
        }
        "limit" => {
            let start =
                |value| engine.start_with(Limited, value, WorkflowOptions::with_id(format!("{value}")).queue("ten"));
            let handles = try_join_all((0..size).map(start)).await?;
            (total(handles).await?, sum(size))
        }
        other => panic!("there is no scenario '{other}'"),
    };
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(sum, expected, "every task ran");
    println!("{{\"seconds\": {seconds}}}");
    engine.shutdown(Duration::from_secs(1)).await
}

async fn total(handles: Vec<WorkflowHandle<u64>>) -> Result<u64> {
    let mut total = 0;
    for handle in handles {
        total += handle.await?;
    }
    Ok(total)
}

fn sum(count: u64) -> u64 {
    count * count.saturating_sub(1) / 2
}
