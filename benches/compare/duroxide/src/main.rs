//! The work of the comparison with duroxide on SQLite: a task is an activity of an orchestration.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use duroxide::providers::sqlite::SqliteProvider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{Runtime, RuntimeOptions};
use duroxide::{
    ActivityContext, BackoffStrategy, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus,
    RetryPolicy,
};

type Step = Result<String, String>;

fn activities() -> ActivityRegistry {
    let failed = Arc::new(Mutex::new(HashSet::new()));
    ActivityRegistry::builder()
        .register_typed("extract", |_: ActivityContext, _: ()| async { Ok((0..100).collect::<Vec<u64>>()) })
        .register_typed("transform", |_: ActivityContext, rows: Vec<u64>| async {
            Ok(rows.into_iter().map(|row| row * 2).collect::<Vec<_>>())
        })
        .register_typed("load", |_: ActivityContext, rows: Vec<u64>| async { Ok(rows.into_iter().sum::<u64>()) })
        .register("echo", |_: ActivityContext, value: String| async { Ok(value) })
        .register_typed("increment", |_: ActivityContext, value: u64| async move { Ok(value + 1) })
        .register("flaky", move |_: ActivityContext, value: String| {
            let first = failed.lock().expect("nothing panics").insert(value.clone());
            async move { if first { Err("not yet".to_owned()) } else { Ok(value) } }
        })
        .register("limited", |_: ActivityContext, value: String| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(value)
        })
        .build()
}

async fn etl(ctx: OrchestrationContext, _: String) -> Step {
    let rows: Vec<u64> = ctx.schedule_activity_typed("extract", &()).await?;
    let rows: Vec<u64> = ctx.schedule_activity_typed("transform", &rows).await?;
    let sum: u64 = ctx.schedule_activity_typed("load", &rows).await?;
    Ok(sum.to_string())
}

async fn fan_out(ctx: OrchestrationContext, activity: &str, tasks: String) -> Step {
    let runs = (0..number(&tasks)?).map(|value| ctx.schedule_activity(activity, value.to_string())).collect();
    total(ctx.join(runs).await)
}

async fn chain(ctx: OrchestrationContext, tasks: String) -> Step {
    let mut last = 0;
    for _ in 0..number(&tasks)? {
        last = ctx.schedule_activity_typed("increment", &last).await?;
    }
    Ok(last.to_string())
}

async fn retries(ctx: OrchestrationContext, tasks: String) -> Step {
    let policy = RetryPolicy::new(2).with_backoff(BackoffStrategy::None);
    let run = |value: u64| ctx.schedule_activity_with_retry("flaky", value.to_string(), policy.clone());
    total(ctx.join((0..number(&tasks)?).map(run).collect()).await)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("'{text}' is no number: {error}"))
}

fn total(results: Vec<Step>) -> Step {
    let mut sum = 0;
    for result in results {
        sum += number(&result?)?;
    }
    Ok(sum.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let scenario = arguments.first().expect("usage: compare-duroxide SCENARIO [N]").clone();
    let size: u64 = arguments.get(1).map_or(0, |size| size.parse().expect("N is a number"));
    let path = std::env::var("COMPARE_DATABASE").expect("COMPARE_DATABASE is the path of the database");
    let store = Arc::new(SqliteProvider::new(&format!("sqlite:{path}?mode=rwc"), None).await?);
    let orchestrations = OrchestrationRegistry::builder()
        .register("etl", etl)
        .register("fan-out", |ctx, tasks| fan_out(ctx, "echo", tasks))
        .register("chain", chain)
        .register("retries", retries)
        .register("limit", |ctx, tasks| fan_out(ctx, "limited", tasks))
        .build();
    let mut options = RuntimeOptions::default();
    if scenario == "limit" {
        options.worker_concurrency = 10;
    }
    let runtime = Runtime::start_with_options(store.clone(), activities(), orchestrations, options).await;
    let client = Client::new(store);

    let all = size * size.saturating_sub(1) / 2;
    let expected = match scenario.as_str() {
        "etl" => 9900,
        "chain" => size,
        _ => all,
    };
    let start = Instant::now();
    client.start_orchestration("work", scenario.as_str(), size.to_string()).await?;
    let status = client.wait_for_orchestration("work", Duration::from_secs(600)).await?;
    let seconds = start.elapsed().as_secs_f64();
    let OrchestrationStatus::Completed { output, .. } = status else { return Err(format!("{status:?}").into()) };
    assert_eq!(output, expected.to_string(), "every task ran");
    println!("{{\"seconds\": {seconds}}}");
    runtime.shutdown(None).await;
    Ok(())
}
