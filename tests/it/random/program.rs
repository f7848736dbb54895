//! Random programs: what they do, and the tasks and flows that do it.

use std::time::Duration;

use orchestrator::prelude::*;

use super::world::{World, hooks, undoing, world};

/// A flow: parts one after the other. Tasks are numbered through all parts.
pub(crate) type Program = Vec<Part>;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Part {
    pub(crate) within: Within,
    pub(crate) nodes: Vec<Node>,
    /// The flow waits for somebody to let it on before this part.
    pub(crate) paused: bool,
}

/// What the tasks of a part are submitted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Within {
    Flow,
    /// A flow of its own that runs two tasks at a time.
    Subflow,
    /// A transaction whose block looks at its tasks, and then succeeds or fails.
    Transaction {
        succeeds: bool,
    },
    /// A transaction whose block submits its tasks and looks at none.
    Careless,
}

/// What one task of a program does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Node {
    /// Earlier tasks whose results it takes.
    pub(crate) takes: Vec<usize>,
    pub(crate) kind: Kind,
    /// Attempts that fail before one succeeds.
    pub(crate) failures: u32,
    pub(crate) how: How,
    pub(crate) retries: u32,
    pub(crate) delayed: bool,
    /// The limits of which it wants a slot, in this order.
    pub(crate) limits: Vec<usize>,
    pub(crate) tagged: bool,
    pub(crate) yields: u32,
    /// Those of one group have a cache key in common, if they end in the same way.
    pub(crate) cached: Option<u8>,
    /// Its failure is nobody's concern.
    pub(crate) tolerated: bool,
    /// Cancelled by the flow, after so many yields.
    pub(crate) cancelled: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    Plain,
    /// Runs on a thread.
    Sync,
    /// Runs though its upstream runs failed.
    Tolerant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum How {
    Error,
    Panic,
    Overrun,
    Child,
}

impl Node {
    pub(crate) const fn fails_for_good(&self) -> bool {
        self.failures > self.retries
    }

    /// A body that blocks its thread cannot be timed out in paused time.
    pub(crate) fn overruns(&self) -> bool {
        self.how == How::Overrun && self.kind != Kind::Sync
    }
}

/// What a task gives: which task of which program it is.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Made {
    pub(crate) world: u64,
    pub(crate) index: usize,
}

pub(crate) const LIMITS: [&str; 2] = ["a", "b"];
pub(crate) const TAG: &str = "tag:t";
/// How many tasks of a subflow run at a time.
pub(crate) const NARROW: usize = 2;

#[task]
async fn child(fails: bool) -> Result<(), String> {
    tokio::task::yield_now().await;
    if fails { Err("the child fails".into()) } else { Ok(()) }
}

/// What a body does beside yielding and overrunning.
fn act(node: &Node, made: Made) -> Result<Made, String> {
    let fails = RunContext::current().attempt() <= node.failures;
    match node.how {
        How::Panic if fails => panic!("asked to panic"),
        How::Error | How::Overrun if fails => Err("asked to fail".into()),
        How::Child => {
            drop(child(fails));
            Ok(made)
        }
        How::Error | How::Panic | How::Overrun => Ok(made),
    }
}

async fn body(node: &Node, made: Made) -> Result<Made, String> {
    let _inside = world(made.world).enter(made.index);
    for _ in 0..node.yields {
        tokio::task::yield_now().await;
    }
    if node.overruns() && RunContext::current().attempt() <= node.failures {
        std::future::pending::<()>().await;
    }
    act(node, made)
}

fn key<I: ?Sized>(node: &Node, _made: &Made, _inputs: &I) -> Option<String> {
    node.cached.map(|group| format!("{group} {}", node.fails_for_good()))
}

#[task(cache_key = key, on_running = hooks::running, on_completion = hooks::completed, on_failure = hooks::failed,
    on_cancellation = hooks::cancelled, on_crashed = hooks::crashed, on_commit = undoing::commit,
    on_rollback = undoing::undo)]
async fn plain(node: Node, made: Made, inputs: &[Made]) -> Result<Made, String> {
    assert_eq!(inputs.len(), node.takes.len());
    body(&node, made).await
}

#[task(cache_key = key, on_running = hooks::running, on_completion = hooks::completed, on_failure = hooks::failed,
    on_cancellation = hooks::cancelled, on_crashed = hooks::crashed, on_commit = undoing::commit,
    on_rollback = undoing::undo)]
fn on_a_thread(node: Node, made: Made, inputs: &[Made]) -> Result<Made, String> {
    assert_eq!(inputs.len(), node.takes.len());
    let _inside = world(made.world).enter(made.index);
    act(&node, made)
}

#[task(cache_key = key, on_running = hooks::running, on_completion = hooks::completed, on_failure = hooks::failed,
    on_cancellation = hooks::cancelled, on_crashed = hooks::crashed, on_commit = undoing::commit,
    on_rollback = undoing::undo)]
async fn tolerant(node: Node, made: Made, inputs: Vec<Result<Made, TaskError>>) -> Result<Made, String> {
    assert_eq!(inputs.len(), node.takes.len());
    body(&node, made).await
}

macro_rules! submit {
    ($task:ident, $node:ident, $made:expr, $inputs:expr, $unit:expr) => {{
        let mut call = $task::configure().retries($node.retries);
        if $node.overruns() {
            call = call.timeout($unit);
        }
        if $node.delayed {
            call = call.retry_delay($unit);
        }
        if $node.tagged {
            call = call.tags(["t"]);
        }
        let limits: Vec<_> = $node.limits.iter().map(|limit| LIMITS[*limit]).collect();
        call.concurrency(limits).submit($node.clone(), $made, $inputs)
    }};
}

/// Submits the tasks of a part; `first` is the number of the first, `runs` are those before.
fn submit_all(world: &World, part: &Part, first: usize, runs: &mut Vec<Option<TaskFuture<Made>>>) {
    for (index, node) in (first..).zip(&part.nodes) {
        let inputs = node.takes.iter().map(|taken| runs[*taken].clone().expect("it is not in a subflow"));
        let inputs: Vec<_> = inputs.collect();
        let (made, unit) = (Made { world: world.id, index }, world.unit);
        let run = match node.kind {
            Kind::Plain => submit!(plain, node, made, inputs, unit),
            Kind::Sync => submit!(on_a_thread, node, made, inputs, unit),
            Kind::Tolerant => submit!(tolerant, node, made, inputs, unit),
        };
        world.submitted(index, &run);
        runs.push(Some(if node.tolerated { run.tolerate() } else { run }));
    }
}

async fn cancel_some(part: &Part, runs: &[Option<TaskFuture<Made>>]) {
    let mut cancels: Vec<_> =
        part.nodes.iter().zip(runs).filter_map(|(node, run)| Some((node.cancelled?, run.as_ref()?))).collect();
    cancels.sort_by_key(|(after, _)| *after);
    for (after, run) in cancels {
        for _ in 0..after {
            tokio::task::yield_now().await;
        }
        run.cancel();
    }
}

#[flow(max_concurrent_tasks = 2)]
async fn narrow(part: Part, first: usize, id: u64) {
    let mut runs = vec![None; first];
    submit_all(&world(id), &part, first, &mut runs);
    cancel_some(&part, &runs[first..]).await;
}

#[flow]
pub(crate) async fn program(parts: Program, id: u64) {
    let world = world(id);
    let mut runs: Vec<Option<TaskFuture<Made>>> = Vec::new();
    for part in &parts {
        if part.paused {
            pause_flow_run().timeout(Duration::MAX).await.expect("it is let on");
        }
        let first = runs.len();
        match part.within {
            Within::Flow => {
                submit_all(&world, part, first, &mut runs);
                cancel_some(part, &runs[first..]).await;
            }
            Within::Subflow => {
                let run = narrow(part.clone(), first, id);
                // Its failure is that of this flow, even if nobody looks.
                drop(run);
                runs.resize(first + part.nodes.len(), None);
            }
            Within::Transaction { .. } | Within::Careless => {
                let ended: Result<(), TaskError> = transaction(async {
                    submit_all(&world, part, first, &mut runs);
                    cancel_some(part, &runs[first..]).await;
                    if part.within == Within::Careless {
                        return Ok(());
                    }
                    for run in runs[first..].iter().flatten() {
                        run.wait().await;
                    }
                    match part.within {
                        Within::Transaction { succeeds: false } => Err(failure().await),
                        Within::Transaction { succeeds: true } | Within::Flow | Within::Subflow | Within::Careless => {
                            Ok(())
                        }
                    }
                })
                .await;
                world.transaction_ended(first, ended.is_ok());
            }
        }
    }
}

/// Any error of a task.
async fn failure() -> TaskError {
    child(true).await.expect_err("it fails")
}
