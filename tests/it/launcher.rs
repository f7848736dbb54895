//! Runs get their first poll whatever other bodies do with their threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

fn runtime(workers: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// Blocks the thread until that is so; `false` if it takes far too long.
fn blocks_until(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn bodies_that_wait_for_each_other_by_blocking_meet_if_there_are_threads() {
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn meets(n: u64) -> bool {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let _ = n;
        blocks_until(|| INSIDE.load(Ordering::SeqCst) >= 3)
    }
    #[flow]
    async fn three() -> Result<Vec<bool>, TaskError> {
        tokio::task::yield_now().await;
        meets::map(0..3_u64).await
    }
    let (runtime, orchestrator) = (runtime(6), Orchestrator::in_memory());
    for _ in 0..20 {
        INSIDE.store(0, Ordering::SeqCst);
        assert_eq!(runtime.block_on(orchestrator.scope(async { three().await.unwrap() })), [true; 3]);
    }
}

#[test]
fn bodies_that_follow_on_the_same_run_meet_by_blocking() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn gate() -> u64 {
        while !OPEN.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        1
    }
    #[task]
    async fn passes(n: u64) -> u64 {
        n
    }
    #[task]
    async fn meets(n: u64) -> bool {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let _ = n;
        blocks_until(|| INSIDE.load(Ordering::SeqCst) >= 2)
    }
    #[flow]
    async fn forks() -> Result<bool, TaskError> {
        let first = passes(gate());
        let (one, other) = (meets(&first), meets(&first));
        OPEN.store(true, Ordering::SeqCst);
        Ok(one.await? && other.await?)
    }
    let (runtime, orchestrator) = (runtime(6), Orchestrator::in_memory());
    for _ in 0..20 {
        OPEN.store(false, Ordering::SeqCst);
        INSIDE.store(0, Ordering::SeqCst);
        assert!(runtime.block_on(orchestrator.scope(async { forks().await.unwrap() })));
    }
}

#[test]
fn runs_go_on_while_the_body_that_called_them_blocks_its_thread() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn quick(n: usize) -> usize {
        DONE.fetch_add(1, Ordering::SeqCst);
        n
    }
    #[flow]
    async fn calls_and_blocks(width: usize) -> Result<bool, TaskError> {
        tokio::task::yield_now().await;
        let all = quick::map(0..width);
        // What was spawned last may stay with this thread, as with tokio's own tasks.
        let went_on = blocks_until(|| DONE.load(Ordering::SeqCst) + 1 >= width);
        all.await?;
        Ok(went_on)
    }
    let (runtime, orchestrator) = (runtime(3), Orchestrator::in_memory());
    for width in [2, 3, 40, 2000] {
        DONE.store(0, Ordering::SeqCst);
        assert!(runtime.block_on(orchestrator.scope(async { calls_and_blocks(width).await.unwrap() })), "{width} runs");
    }
}

#[test]
fn whoever_a_body_woke_last_goes_on_while_the_next_body_blocks_its_thread() {
    static CONNECTION: Semaphore = Semaphore::const_new(1);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static DOWNLOADED: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn download(n: u64) -> u64 {
        ASKED.fetch_add(1, Ordering::SeqCst);
        let _connection = CONNECTION.acquire().await.unwrap();
        while ASKED.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        // The other one waits by then.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        DOWNLOADED.fetch_add(1, Ordering::SeqCst);
        n
    }
    #[task]
    async fn parse(n: u64) -> bool {
        let _ = n;
        blocks_until(|| DOWNLOADED.load(Ordering::SeqCst) == 2)
    }
    #[flow]
    async fn pages() -> Result<bool, TaskError> {
        let (one, other) = (parse(download(1)), parse(download(2)));
        Ok(one.await? && other.await?)
    }
    let (runtime, orchestrator) = (runtime(3), Orchestrator::in_memory());
    for _ in 0..20 {
        ASKED.store(0, Ordering::SeqCst);
        DOWNLOADED.store(0, Ordering::SeqCst);
        assert!(runtime.block_on(orchestrator.scope(async { pages().await.unwrap() })));
    }
}

#[test]
fn whoever_gets_a_slot_back_goes_on_while_the_next_body_blocks_its_thread() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    static WENT_ON: AtomicBool = AtomicBool::new(false);
    #[task(concurrency = [("the launcher's slot", limit = 1)])]
    async fn holds(n: u64) -> u64 {
        assert!(blocks_until(|| OPEN.load(Ordering::SeqCst)));
        n
    }
    #[task]
    async fn parse(n: u64) -> bool {
        let _ = n;
        blocks_until(|| WENT_ON.load(Ordering::SeqCst))
    }
    #[task(concurrency = ["the launcher's slot"])]
    async fn waits() {
        WENT_ON.store(true, Ordering::SeqCst);
    }
    let (runtime, orchestrator) = (runtime(3), Orchestrator::in_memory());
    for _ in 0..20 {
        OPEN.store(false, Ordering::SeqCst);
        WENT_ON.store(false, Ordering::SeqCst);
        let went_on = runtime.block_on(orchestrator.scope(async {
            let held = holds(1);
            let parsed = parse(&held);
            while held.state().name != "Running" {
                tokio::task::yield_now().await;
            }
            let waiting = waits();
            while waiting.state().name != "AwaitingConcurrencySlot" {
                tokio::task::yield_now().await;
            }
            OPEN.store(true, Ordering::SeqCst);
            waiting.await.unwrap();
            parsed.await.unwrap()
        }));
        assert!(went_on);
    }
}

#[test]
fn what_follows_on_a_run_that_waited_is_cancelled_or_lost_as_any_other() {
    #[task]
    async fn waits(n: u64) -> u64 {
        tokio::task::yield_now().await;
        n
    }
    #[task]
    async fn hangs(n: u64) -> u64 {
        std::future::pending::<()>().await;
        n
    }
    for _ in 0..20 {
        let (first, orchestrator) = (runtime(2), Orchestrator::in_memory());
        let lost = first.block_on(orchestrator.scope(async {
            let (cancelled, lost) = (hangs(waits(1)), hangs(waits(2)));
            for run in [&cancelled, &lost] {
                while run.state().name != "Running" {
                    tokio::task::yield_now().await;
                }
            }
            cancelled.cancel();
            assert!(cancelled.await.unwrap_err().is_cancelled());
            lost
        }));
        drop(first);
        let state = runtime(1).block_on(async { tokio::time::timeout(Duration::from_secs(20), lost.wait()).await });
        assert_eq!(state.expect("it ends").name, "Crashed");
    }
}

#[test]
fn steps_go_on_beside_a_body_that_computes() {
    static OVER: AtomicBool = AtomicBool::new(false);
    #[task]
    async fn step(n: u64) -> u64 {
        tokio::task::yield_now().await;
        n + 1
    }
    #[flow]
    async fn steps() -> Result<u64, TaskError> {
        let mut n = 0;
        for _ in 0..500 {
            n = step(n).await?;
        }
        OVER.store(true, Ordering::SeqCst);
        Ok(n)
    }
    #[flow]
    async fn computes() -> Result<bool, TaskError> {
        let (a, b) = (step(1), step(2));
        let went_on = blocks_until(|| OVER.load(Ordering::SeqCst));
        a.await?;
        b.await?;
        Ok(went_on)
    }
    #[flow]
    async fn both() -> Result<bool, orchestrator::FlowError> {
        let (steps, computes) = (steps(), computes());
        steps.await?;
        computes.await
    }
    let (runtime, orchestrator) = (runtime(4), Orchestrator::in_memory());
    for _ in 0..10 {
        OVER.store(false, Ordering::SeqCst);
        assert!(runtime.block_on(orchestrator.scope(async { both().await.unwrap() })));
    }
}

#[test]
fn a_destructor_that_panics_keeps_no_run_from_ending_with_its_runtime() {
    #[derive(Clone)]
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a destructor panics");
        }
    }
    #[task(retries = 1, retry_delay_secs = 3600)]
    async fn fails(_argument: &Panics) -> Result<u64, String> {
        Err("no".to_owned())
    }
    let (first, orchestrator) = (runtime(2), Orchestrator::in_memory());
    let run = first.block_on(orchestrator.scope(async {
        let run = fails(Panics);
        while run.state().name != "AwaitingRetry" {
            tokio::task::yield_now().await;
        }
        run
    }));
    drop(first);
    let state = runtime(1).block_on(async { tokio::time::timeout(Duration::from_secs(20), run.wait()).await });
    assert_eq!(state.expect("it ends").name, "Crashed");
}

/// Whatever workers they are on: what takes a result begins when that is there, to the microsecond of the clock.
#[test]
fn nothing_begins_before_its_upstream_has_ended() {
    #[task]
    async fn first(n: u64) -> u64 {
        n
    }
    #[task]
    async fn next(n: u64) -> u64 {
        n + 1
    }
    let (runtime, orchestrator) = (runtime(4), Orchestrator::in_memory());
    let (mut steps, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let chains = async {
            for n in 0..200 {
                let mut last = first(n);
                for _ in 0..4 {
                    let taker = next(&last);
                    steps.push((last.run_id(), taker.run_id()));
                    last = taker;
                }
                ends.push(last);
            }
            for end in ends.drain(..) {
                end.await.unwrap();
            }
        };
        runtime.block_on(orchestrator.scope(chains));
    }
    for (upstream, taker) in steps {
        let states = |run| runtime.block_on(orchestrator.states(run)).unwrap();
        let (ended, began) = (states(upstream).pop().unwrap(), states(taker));
        let began = began.iter().find(|state| state.kind == StateType::Running).unwrap();
        let early = (ended.timestamp - began.timestamp).num_microseconds().unwrap();
        assert!(early <= 1, "{taker} began {early} us before {upstream} ended");
    }
}
