//! What a task that waits costs in memory, measured in a process of its own as resident memory: what the process takes
//! from the machine. Floor: a spawned task that waits for a notification, with its join handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator::prelude::*;
use tokio::sync::Semaphore;

use crate::child;
use crate::measure::{Effort, median, runtime};
use crate::report::{Budget, Row, Unit};

/// Opens when permits are added.
type Gate = Arc<Semaphore>;

static STARTED: AtomicU64 = AtomicU64::new(0);

#[task]
async fn behind(gate: Gate) -> u64 {
    STARTED.fetch_add(1, Ordering::Relaxed);
    let permit = gate.acquire_owned().await.expect("it is not closed");
    drop(permit);
    0
}

#[task]
async fn after(value: u64) -> u64 {
    value
}

#[task(concurrency = "one")]
async fn with_slot(value: u64) -> u64 {
    value
}

/// What the waiting tasks wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The result of another task.
    Upstream,
    /// Something in their bodies.
    Body,
    /// A slot.
    Slot,
    /// Nothing of ours: bare tasks.
    Bare,
    /// Nothing: they run.
    Nothing,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Upstream, "upstream"),
    (Kind::Body, "body"),
    (Kind::Slot, "slot"),
    (Kind::Bare, "bare"),
    (Kind::Nothing, "nothing"),
];

/// Submits tasks that wait, and gives the resident memory that each of them takes.
#[flow]
async fn waiting(#[param(skip)] gate: Gate, #[param(skip)] kind: Held, tasks: u64) -> Result<f64, TaskError> {
    let first = behind(Gate::clone(&gate));
    let before = resident();
    let runs: Vec<_> = (0..tasks)
        .map(|value| match kind.0 {
            Kind::Upstream => after(&first),
            Kind::Body => behind(Gate::clone(&gate)),
            Kind::Slot => with_slot(value),
            Kind::Bare | Kind::Nothing => after(value),
        })
        .collect();
    if kind.0 == Kind::Body {
        until_started(tasks).await;
    }
    if kind.0 == Kind::Slot {
        settle().await;
    }
    let each = per_task(before, tasks);
    gate.add_permits(tasks as usize + 1);
    if kind.0 == Kind::Slot {
        Orchestrator::current().limit("one", 1_000).await.expect("a limit");
    }
    first.await?;
    for run in runs {
        run.await?;
    }
    Ok(each)
}

#[derive(Clone)]
struct Held(Kind);

async fn until_started(tasks: u64) {
    while STARTED.load(Ordering::Relaxed) < tasks {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Waits until the process has stopped growing.
async fn settle() {
    settled(resident).await;
}

/// What that function counts when it has hardly changed for a while.
async fn settled(count: fn() -> u64) -> u64 {
    let (mut last, mut looks) = (0, 0);
    while looks < 5 {
        let now: u64 = count();
        looks = if now.abs_diff(last) < 1 << 16 { looks + 1 } else { 0 };
        last = now;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    last
}

async fn bare(gate: Gate, tasks: u64) -> f64 {
    let before = resident();
    let spawn = |_| {
        let gate = Gate::clone(&gate);
        tokio::spawn(async move {
            STARTED.fetch_add(1, Ordering::Relaxed);
            drop(gate.acquire_owned().await);
        })
    };
    let handles: Vec<_> = (0..tasks).map(spawn).collect();
    until_started(tasks).await;
    let each = per_task(before, tasks);
    gate.add_permits(tasks as usize);
    for handle in handles {
        handle.await.expect("nothing panics");
    }
    each
}

/// Measures in this process: prints bytes for each task, and the most that the process ever took.
pub(crate) fn child(kind: &str, tasks: u64) {
    if let Some(store) = kind.strip_prefix("back-") {
        return back_in_child(store, 1_000, tasks, resident);
    }
    if let Some(store) = kind.strip_prefix("in-use-") {
        // The database has a cache, which is of one size as soon as it is full.
        let first = if store == "sqlite" { tasks / 4 } else { 1_000 };
        return back_in_child(store, first, tasks, in_use);
    }
    let Some((kind, _)) = KINDS.into_iter().find(|(_, name)| *name == kind) else { return };
    let runtime = runtime();
    let gate = Gate::new(Semaphore::new(0));
    let orchestrator = Orchestrator::in_memory();
    // What a process sets up once is not the tasks'.
    let once = runtime.block_on(orchestrator.scope(async { crate::fan_out::fan_out(1_000).await }));
    once.expect("it completes");
    let each = if kind == Kind::Bare {
        runtime.block_on(runtime.spawn(bare(gate, tasks))).expect("nothing panics")
    } else {
        runtime.block_on(async { orchestrator.limit("one", 0).await }).expect("a limit");
        runtime.block_on(orchestrator.scope(async { waiting(gate, Held(kind), tasks).await })).expect("it completes")
    };
    println!("{each} {}", most_resident());
    // The system takes memory back faster than a million destructors.
    std::process::exit(0);
}

/// Measures in this process, after a first flow: prints its memory before a flow with that many waiting tasks, and after all of
/// it has gone: where the history is in memory, the orchestrator as well.
fn back_in_child(store: &str, first: u64, tasks: u64, memory: fn() -> u64) {
    let runtime = runtime();
    let gate = || Gate::new(Semaphore::new(0));
    let now = || runtime.block_on(settled(memory));
    let (before, after) = if store == "bare" {
        // What a process sets up once is not the tasks'.
        runtime.block_on(runtime.spawn(bare(gate(), first))).expect("nothing panics");
        STARTED.store(0, Ordering::Relaxed);
        let before = now();
        runtime.block_on(runtime.spawn(bare(gate(), tasks))).expect("nothing panics");
        (before, now())
    } else {
        let builder = Orchestrator::builder();
        let builder = if store == "memory" { builder.database_url("memory") } else { builder };
        let orchestrator = runtime.block_on(builder.build()).expect("a store");
        let run = |tasks| {
            let call = async { waiting(gate(), Held(Kind::Upstream), tasks).await };
            runtime.block_on(orchestrator.scope(call)).expect("it completes");
        };
        run(first);
        let before = now();
        run(tasks);
        // A history in memory is the orchestrator's.
        let _kept = (store != "memory").then_some(orchestrator);
        (before, now())
    };
    println!("{before} {after}");
    // The system takes memory back faster than destructors.
    std::process::exit(0);
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    if resident() == 0 {
        return Vec::new();
    }
    let tasks = if effort.quick { 20_000 } else { 1_000_000 };
    let rounds = 1;
    let ask = |kind: &str| {
        let home = tempfile::tempdir().expect("a home");
        let answers: Vec<(f64, f64)> = (0..rounds)
            .map(|_| {
                let child = child::command(&["memory", kind, &tasks.to_string()], home.path()).spawn();
                child::numbers(&child::ended(child.expect("this program can be started")))
            })
            .collect();
        let of = |part: fn(&(f64, f64)) -> f64| median(&mut answers.iter().map(part).collect::<Vec<_>>());
        (of(|answer| answer.0), of(|answer| answer.1))
    };
    let (bare, _) = ask("bare");
    let mut rows = Vec::new();
    let mut peak = 0.0;
    for (kind, name) in [("upstream", "its upstream"), ("body", "something in its body"), ("slot", "a slot")] {
        let (each, most) = ask(kind);
        rows.push(Row::absolute(
            format!("memory of a task that waits for {name}"),
            Unit::Bytes,
            Some(bare),
            each,
            rounds,
            Budget::Absolute { allowed: 1024.0, aim: 500.0 },
        ));
        if kind == "upstream" {
            peak = most;
        }
    }
    let budget = Budget::Absolute { allowed: 1.5 * f64::from(1 << 30), aim: 0.75 * f64::from(1 << 30) };
    if !effort.quick {
        rows.push(Row::absolute("1M tasks in one flow that wait, then run", Unit::Bytes, None, peak, rounds, budget));
        let (_, most) = ask("nothing");
        rows.push(Row::absolute("1M tasks in one flow that run at once", Unit::Bytes, None, most, rounds, budget));
    }
    let name = Effort::name(tasks);
    let stores =
        [("memory", "and the orchestrator is gone"), ("sqlite", "their history is in SQLite"), ("bare", "bare spawn")];
    for (store, what) in stores.into_iter().filter(|_| in_use() > 0) {
        let (before, after) = ask(&format!("in-use-{store}"));
        let budget = if store == "bare" { Budget::None } else { Budget::Ratio { allowed: 1.5, aim: 1.1 } };
        let name = format!("memory in use after {name} waiting tasks have ended, beside before: {what}");
        rows.push(Row::absolute(name, Unit::Bytes, Some(before), after, rounds, budget));
    }
    for (store, what) in stores {
        let (before, after) = ask(&format!("back-{store}"));
        let name = format!("resident memory then, most of it free pages that the allocator keeps: {what}");
        rows.push(Row::absolute(name, Unit::Bytes, Some(before), after, rounds, Budget::None));
    }
    rows
}

#[expect(clippy::cast_precision_loss, reason = "less memory than a float counts exactly")]
fn per_task(before: u64, tasks: u64) -> f64 {
    resident().saturating_sub(before) as f64 / tasks as f64
}

/// Bytes of memory that are in use: what was allocated and not freed, and what the allocator adds to each piece; 0 where it
/// does not tell.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn in_use() -> u64 {
    use malloc_info::info::{SystemType, TotalType};
    let Ok(info) = malloc_info::malloc_info() else { return 0 };
    let total = |kind| info.total.iter().filter(|total| total.r#type == kind).map(|total| total.size).sum::<usize>();
    let system = info.system.iter().filter(|system| system.r#type == SystemType::Current).map(|system| system.size);
    (system.sum::<usize>() + total(TotalType::Mmap) - total(TotalType::Fast) - total(TotalType::Rest)) as u64
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn in_use() -> u64 {
    0
}

/// Bytes of memory that this process has now; 0 where the system does not tell.
pub(crate) fn resident() -> u64 {
    status("VmRSS:")
}

/// The most bytes of memory that this process ever had.
pub(crate) fn most_resident() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.map_or(0, |kibibytes: u64| kibibytes * 1024)
}
