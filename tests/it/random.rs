//! Random programs against a simple model: whatever happens, every run ends as the model says, and nothing is left.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use orchestrator::prelude::*;
use proptest::prelude::*;

use crate::door::states;

/// What one task of a program does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Node {
    /// Earlier tasks whose results it takes.
    takes: Vec<usize>,
    /// Whether it runs though they failed.
    tolerant: bool,
    /// Attempts that fail before one succeeds.
    failures: u32,
    how: How,
    retries: u32,
    delayed: bool,
    /// Slots of the limits `a` and `b`.
    slots: (u32, u32),
    yields: u32,
    cached: bool,
    /// Cancelled by the flow, after so many yields.
    cancelled: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum How {
    Error,
    Panic,
    Overrun,
    Child,
}

const SLOTS: (u32, u32) = (2, 3);
static TAKEN: [AtomicI64; 2] = [AtomicI64::new(0), AtomicI64::new(0)];
static PROGRAMS: AtomicU64 = AtomicU64::new(0);

struct Counted(u32, u32);

impl Counted {
    fn new(slots: (u32, u32)) -> Self {
        for ((taken, slots), most) in TAKEN.iter().zip([slots.0, slots.1]).zip([SLOTS.0, SLOTS.1]) {
            let now = taken.fetch_add(slots.into(), Ordering::SeqCst) + i64::from(slots);
            assert!(now <= i64::from(most), "a limit of {most} was exceeded: {now}");
        }
        Self(slots.0, slots.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TAKEN[0].fetch_sub(self.0.into(), Ordering::SeqCst);
        TAKEN[1].fetch_sub(self.1.into(), Ordering::SeqCst);
    }
}

#[task]
async fn child(fails: bool) -> Result<(), String> {
    tokio::task::yield_now().await;
    if fails { Err("the child fails".into()) } else { Ok(()) }
}

async fn body(node: &Node) -> Result<u64, String> {
    let _counted = Counted::new(node.slots);
    for _ in 0..node.yields {
        tokio::task::yield_now().await;
    }
    let fails = RunContext::current().attempt() <= node.failures;
    match node.how {
        How::Error if fails => Err("asked to fail".into()),
        How::Panic if fails => panic!("asked to panic"),
        How::Overrun if fails => std::future::pending().await,
        How::Child => {
            drop(child(fails));
            Ok(1)
        }
        How::Error | How::Panic | How::Overrun => Ok(1),
    }
}

#[task]
async fn strict(node: Node, _index: usize, inputs: &[u64]) -> Result<u64, String> {
    assert_eq!(inputs.len(), node.takes.len());
    body(&node).await
}

#[task]
async fn tolerant(node: Node, _index: usize, inputs: Vec<Result<u64, TaskError>>) -> Result<u64, String> {
    assert_eq!(inputs.len(), node.takes.len());
    body(&node).await
}

macro_rules! submit {
    ($task:ident, $node:expr, $index:expr, $inputs:expr) => {{
        let node = $node;
        let mut call = $task::configure().retries(node.retries).timeout(Duration::from_secs(100));
        if node.delayed {
            call = call.retry_delay(Duration::from_secs(1));
        }
        let mut names = Vec::new();
        if node.slots.0 > 0 {
            names.push("a");
        }
        if node.slots.1 > 0 {
            names.push("b");
        }
        if node.cached {
            call = call.cache_ttl(Duration::from_secs(1000));
        }
        call.concurrency(names).submit(node.clone(), $index, $inputs)
    }};
}

#[flow]
async fn program(nodes: Vec<Node>) {
    let mut runs: Vec<TaskFuture<u64>> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let inputs: Vec<_> = node.takes.iter().map(|taken| runs[*taken].clone()).collect();
        runs.push(if node.tolerant {
            submit!(tolerant, node, index, inputs)
        } else {
            submit!(strict, node, index, inputs)
        });
    }
    let mut cancels: Vec<_> =
        nodes.iter().enumerate().filter_map(|(index, node)| Some((node.cancelled?, index))).collect();
    cancels.sort_unstable();
    for (after, index) in cancels {
        for _ in 0..after {
            tokio::task::yield_now().await;
        }
        runs[index].cancel();
    }
}

/// What the model says of a task in a program without cancellations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Completed,
    Failed,
    TimedOut,
    NotReady,
}

fn model(nodes: &[Node]) -> Vec<Expected> {
    let mut ends: Vec<Expected> = Vec::new();
    for node in nodes {
        let ready = node.tolerant || node.takes.iter().all(|taken| ends[*taken] == Expected::Completed);
        ends.push(match node.how {
            _ if !ready => Expected::NotReady,
            _ if node.failures <= node.retries => Expected::Completed,
            How::Overrun => Expected::TimedOut,
            How::Error | How::Panic | How::Child => Expected::Failed,
        });
    }
    ends
}

async fn check(nodes: Vec<Node>) {
    PROGRAMS.fetch_add(1, Ordering::Relaxed);
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", SLOTS.0).await.unwrap();
    orchestrator.limit("b", SLOTS.1).await.unwrap();
    let run = program(nodes.clone());
    let id = run.run_id();
    let outcome = run.await;
    let all = orchestrator.task_runs(id).await.unwrap();
    let mut tasks: Vec<_> = all.iter().filter(|run| run.task_name != "child").collect();
    tasks.sort_by_key(|run| run.id);
    assert_eq!(tasks.len(), nodes.len(), "every call is in the history");
    for run in &all {
        // `states` checks that timestamps increase and that no terminal state is left.
        assert!(run.state.is_terminal(), "{run:?}");
        let seen = states(run.id).await;
        assert_eq!(seen.last(), Some(&run.state.name));
    }
    for limit in orchestrator.limits().await.unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "{limit:?}");
    }
    assert_eq!(TAKEN.each_ref().map(|taken| taken.load(Ordering::SeqCst)), [0, 0]);
    for (run, node) in tasks.iter().zip(&nodes) {
        assert!(run.run_count <= node.retries + 1, "{run:?}");
        assert_eq!(run.upstream.len(), node.takes.len());
    }
    if nodes.iter().any(|node| node.cancelled.is_some()) {
        return;
    }
    let expected = model(&nodes);
    for ((run, node), expected) in tasks.iter().zip(&nodes).zip(&expected) {
        assert_eq!(run.state.name, format!("{expected:?}"), "{node:?}");
        let attempts = if *expected == Expected::NotReady { 0 } else { node.failures.min(node.retries) + 1 };
        assert_eq!(run.run_count, attempts, "{node:?}");
    }
    let unobserved = expected
        .iter()
        .enumerate()
        .any(|(index, end)| *end != Expected::Completed && nodes.iter().all(|node| !node.takes.contains(&index)));
    assert_eq!(outcome.is_err(), unobserved, "{outcome:?}");
}

fn node(index: usize, cancels: bool) -> impl Strategy<Value = Node> {
    let takes = prop::collection::btree_set(0..index.max(1), 0..=index.min(3))
        .prop_map(move |taken| taken.into_iter().filter(|taken| *taken < index).collect());
    let how = prop_oneof![Just(How::Error), Just(How::Panic), Just(How::Overrun), Just(How::Child)];
    let cancelled = if cancels { prop::option::weighted(0.3, 0_u32..6).boxed() } else { Just(None).boxed() };
    let numbers = (prop_oneof![3 => Just(0_u32), 1 => 1_u32..4], 0_u32..3, 0_u32..4);
    let slots = (0_u32..2, 0_u32..2);
    (takes, any::<bool>(), how, numbers, any::<bool>(), slots, any::<bool>(), cancelled).prop_map(
        |(takes, tolerant, how, (failures, retries, yields), delayed, slots, cached, cancelled)| Node {
            takes,
            tolerant,
            failures,
            how,
            retries,
            delayed,
            slots,
            yields,
            cached,
            cancelled,
        },
    )
}

fn nodes(cancels: bool) -> impl Strategy<Value = Vec<Node>> {
    (1_usize..12).prop_flat_map(move |size| (0..size).map(|index| node(index, cancels)).collect::<Vec<_>>())
}

/// How many programs to try; `ORCHESTRATOR_TEST_PROGRAMS` asks for more.
fn programs() -> u32 {
    std::env::var("ORCHESTRATOR_TEST_PROGRAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn in_paused_time(nodes: Vec<Node>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let clock = orchestrator::TokioClock::new();
        let backend = std::sync::Arc::new(orchestrator::backend::memory::MemoryBackend::new());
        let orchestrator = Orchestrator::builder().clock(clock).build_over(backend);
        // In paused time a day passes at once: a program that hangs fails here instead of hanging the test.
        let checked = orchestrator.scope(tokio::time::timeout(Duration::from_secs(86_400), check(nodes)));
        checked.await.expect("the program ends");
    });
}

#[test]
fn every_program_ends_as_the_model_says_and_cancelled_ones_leave_nothing() {
    let config = ProptestConfig { cases: programs(), failure_persistence: None, ..ProptestConfig::default() };
    // One after the other: the bodies count slots in one place.
    for cancels in [false, true] {
        proptest!(config.clone(), |(nodes in nodes(cancels))| in_paused_time(nodes));
    }
    assert!(PROGRAMS.load(Ordering::Relaxed) >= 2 * u64::from(programs()));
}
