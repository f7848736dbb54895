//! Random programs against a simple model: whatever happens, every run ends as the model says, and nothing is left.
//!
//! `ORCHESTRATOR_TEST_PROGRAMS` says how many programs are tried. One that fails is made smaller and printed, with the
//! seed that leads to it as `ORCHESTRATOR_TEST_SEED`; on many threads, more than the seed decides.

mod check;
mod model;
mod program;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{Clock, SystemClock};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use program::{How, Kind, LIMITS, Node, Part, Program, TAG, Within};
use world::{Kept, Place, World};

/// How many sync bodies run at a time.
const THREADS: usize = 2;
const SLOTS: [u32; 2] = [2, 3];

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// On one thread, in paused time.
    One,
    Many,
}

/// What else happens while a program runs.
#[derive(Debug, Clone)]
struct Around {
    /// What the limits are set to, one after the other.
    sizes: Vec<(usize, u32)>,
    /// After so many steps the whole flow is cancelled.
    cancelled: Option<u32>,
}

fn node(first: usize, index: usize, within: Within, earlier: Vec<usize>, cancels: bool) -> impl Strategy<Value = Node> {
    let mut candidates = if within == Within::Subflow { Vec::new() } else { earlier };
    candidates.extend(first..index);
    let most = candidates.len().min(3);
    let takes = prop::sample::subsequence(candidates, 0..=most);
    let kind = prop_oneof![4 => Just(Kind::Plain), 2 => Just(Kind::Tolerant), 1 => Just(Kind::Sync)];
    let how = prop_oneof![Just(How::Error), Just(How::Panic), Just(How::Overrun), Just(How::Child)];
    let numbers = (prop_oneof![3 => Just(0_u32), 1 => 1_u32..4], 0_u32..3, 0_u32..4);
    let limits = prop::sample::subsequence(vec![0, 1], 0..=2).prop_shuffle();
    let cancelled = if cancels { prop::option::weighted(0.2, 0_u32..6).boxed() } else { Just(None).boxed() };
    let flags = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let cached = prop::option::weighted(0.3, 0_u8..2);
    (takes, kind, how, numbers, limits, flags, cached, cancelled).prop_map(
        |(takes, kind, how, (failures, retries, yields), limits, (delayed, tagged, tolerated), cached, cancelled)| {
            Node { takes, kind, failures, how, retries, delayed, limits, tagged, yields, cached, tolerated, cancelled }
        },
    )
}

/// Programs whose parts have these sizes.
fn parts(shape: Vec<(Within, usize)>, cancels: bool) -> impl Strategy<Value = Program> {
    let (mut all, mut first, mut earlier) = (Vec::new(), 0, Vec::new());
    for (within, size) in shape {
        let nodes: Vec<_> =
            (first..first + size).map(|index| node(first, index, within, earlier.clone(), cancels)).collect();
        let part = (nodes, prop::bool::weighted(0.1));
        all.push(part.prop_map(move |(nodes, paused)| Part { within, nodes, paused }));
        if within != Within::Subflow {
            earlier.extend(first..first + size);
        }
        first += size;
    }
    all
}

fn programs(cancels: bool) -> impl Strategy<Value = (Program, Around)> {
    let within = prop_oneof![
        3 => Just(Within::Flow),
        1 => Just(Within::Subflow),
        1 => any::<bool>().prop_map(|succeeds| Within::Transaction { succeeds }),
        1 => Just(Within::Careless),
    ];
    let shape = prop::collection::vec((within, 1_usize..6), 1..4);
    let sizes = prop::collection::vec((0_usize..2, 1_u32..5), 0..3);
    let cancelled = if cancels { prop::option::weighted(0.3, 0_u32..20).boxed() } else { Just(None).boxed() };
    let around = (sizes, cancelled).prop_map(|(sizes, cancelled)| Around { sizes, cancelled });
    (shape.prop_flat_map(move |shape| parts(shape, cancels)), around)
}

/// How many programs to try with each property.
fn tries() -> u32 {
    std::env::var("ORCHESTRATOR_TEST_PROGRAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var("ORCHESTRATOR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ SystemClock.now().as_micros().unsigned_abs());
    // Shown if the test fails.
    println!("ORCHESTRATOR_TEST_SEED={seed}");
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

/// Counts programs, and says now and then how many it were when many were asked for.
fn count() {
    static PROGRAMS: AtomicU64 = AtomicU64::new(0);
    let programs = PROGRAMS.fetch_add(1, Ordering::Relaxed) + 1;
    if programs.is_multiple_of(10_000) {
        println!("{programs} random programs so far");
    }
}

/// Runs a program to its end, with what happens around it, and checks it.
async fn check(parts: Program, around: Around, threads: Threads) {
    count();
    let unit = match threads {
        Threads::One => Duration::from_secs(1),
        Threads::Many => Duration::from_millis(2),
    };
    let orchestrator = Orchestrator::current();
    let kept = Kept(World::new(parts.clone(), unit, THREADS));
    let world = Arc::clone(&kept.0);
    for (limit, slots) in SLOTS.into_iter().enumerate() {
        world.allow(Place::Limit(limit), slots as usize);
        orchestrator.limit(LIMITS[limit], slots).await.unwrap();
    }
    world.allow(Place::Tag, 1);
    orchestrator.limit(TAG, 1).await.unwrap();
    let run = program::program(parts.clone(), world.id);
    let id = run.run_id();
    let person = tokio::spawn(beside(orchestrator.clone(), Arc::clone(&world), run.clone(), around.clone()));
    let outcome = run.await;
    person.abort();
    let _ = person.await;
    check::threads_came_back(THREADS).await;
    let runs = check::invariants(&world, &parts, id).await;
    let mut nodes = parts.iter().flat_map(|part| &part.nodes);
    if around.cancelled.is_none() && nodes.all(|node| node.cancelled.is_none()) && threads == Threads::One {
        check::as_the_model_says(&world, &parts, &runs, &outcome);
    }
    if threads == Threads::One {
        check::undone_in_reverse(&world, &parts);
    }
}

/// Somebody who resizes limits, lets the flow on when it is paused, and may cancel it.
async fn beside(orchestrator: Orchestrator, world: Arc<World>, run: FlowFuture<()>, around: Around) {
    for (limit, slots) in around.sizes {
        tokio::task::yield_now().await;
        world.allow(Place::Limit(limit), slots as usize);
        orchestrator.limit(LIMITS[limit], slots).await.unwrap();
    }
    if let Some(steps) = around.cancelled {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        run.cancel();
    }
    loop {
        let _ = orchestrator.resume_paused(run.run_id(), ()).await;
        tokio::time::sleep(world.unit).await;
    }
}

fn orchestrator(clock: impl Clock) -> Orchestrator {
    let backend = Arc::new(orchestrator::backend::memory::MemoryBackend::new());
    Orchestrator::builder().clock(clock).blocking_threads(THREADS).build_over(backend)
}

fn in_paused_time(parts: Program, around: Around) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // In paused time a day passes at once: a program that hangs fails here instead of hanging the test.
        let checked = check(parts, around, Threads::One);
        let checked = orchestrator(orchestrator::TokioClock::new())
            .scope(tokio::time::timeout(Duration::from_secs(86_400), checked));
        checked.await.expect("the program ends");
    });
}

#[test]
fn every_program_ends_as_the_model_says() {
    proptest!(config(tries()), |((parts, around) in programs(false))| in_paused_time(parts, around));
}

#[test]
fn programs_that_are_cancelled_leave_nothing() {
    proptest!(config(tries()), |((parts, around) in programs(true))| in_paused_time(parts, around));
    if tries() >= 1000 {
        check::saw_all_states();
    }
}

#[test]
fn programs_on_many_threads_leave_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    proptest!(config(tries() / 2), |((parts, around) in programs(true))| {
        let checked = check(parts, around, Threads::Many);
        let checked = orchestrator(SystemClock).scope(async { tokio::time::timeout(Duration::from_secs(60), checked).await });
        runtime.block_on(async { tokio::spawn(checked).await }).expect("nothing wrong").expect("the program ends");
    });
}
