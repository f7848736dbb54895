//! A flow that runs more tasks than could be kept in memory, a thousand at a time, with its history in SQLite: the most
//! memory that its process takes. The window is the flow's own: it awaits the oldest run before it calls another task.

use std::time::Instant;

use orchestrator::prelude::*;

use crate::measure::{Effort, PerOperation, runtime};
use crate::memory::{most_resident, resident};
use crate::report::{Budget, Row, Unit};
use crate::{calls, child};

/// Runs at a time.
const WINDOW: usize = 1_000;

#[task]
async fn echo(value: u64) -> u64 {
    value
}

#[flow]
async fn stream(tasks: u64) -> Result<u64, TaskError> {
    calls::windowed(WINDOW, (0..tasks).map(echo)).await
}

/// Measures in this process: prints the nanoseconds of a task and the most that the process took.
pub(crate) fn child(store: &str, tasks: u64) {
    let runtime = runtime();
    let (sum, elapsed) = runtime.block_on(async {
        let builder = Orchestrator::builder();
        let builder = if store == "memory" { builder.database_url("memory") } else { builder };
        let orchestrator = builder.build().await.expect("a store");
        let start = Instant::now();
        let sum = orchestrator.scope(async { stream(tasks).await }).await;
        (sum, start.elapsed())
    });
    assert_eq!(sum.expect("it completes"), tasks * (tasks - 1) / 2);
    println!("{} {}", PerOperation::of(elapsed, tasks).0, most_resident());
    // Nothing of it is needed any more.
    std::process::exit(0);
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    if resident() == 0 {
        return Vec::new();
    }
    let tasks = effort.size(10_000_000);
    let ask = |store: &str, tasks: u64| {
        let home = tempfile::tempdir().expect("a home");
        let child = child::command(&["stream", store, &tasks.to_string()], home.path()).spawn();
        child::numbers(&child::ended(child.expect("this program can be started")))
    };
    let (each, most) = ask("sqlite", tasks);
    let name = Effort::name(tasks);
    vec![
        Row::absolute(
            format!("{name} tasks of one flow, {WINDOW} at a time, history in SQLite"),
            Unit::Bytes,
            None,
            most,
            1,
            Budget::Absolute { allowed: 200e6, aim: 100e6 },
        ),
        Row::absolute("a task of these", Unit::Nanoseconds, None, each, 1, Budget::None),
    ]
}
