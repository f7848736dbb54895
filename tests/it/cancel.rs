//! Cancellation: down the tree, at once, and with everything given back.

use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator::prelude::*;

use crate::door::{states, tasks};

#[task]
async fn endless() {
    std::future::pending::<()>().await;
}

async fn until_running<T>(run: &TaskFuture<T>) {
    while run.state().name != "Running" {
        tokio::task::yield_now().await;
    }
}

#[orchestrator::test]
async fn goes_down_the_tree() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    #[task]
    async fn guarded() -> Result<(), TaskError> {
        let _guard = Guard;
        endless().await
    }
    #[flow]
    async fn inner() -> Result<(), TaskError> {
        guarded().await
    }
    #[flow]
    async fn outer() -> Result<(), orchestrator::FlowError> {
        let _guard = Guard;
        inner().await
    }
    let run = outer();
    let orchestrator = Orchestrator::current();
    let flow = loop {
        let all = orchestrator.flow_runs(&orchestrator::FlowRunQuery::new().flow("inner")).await.unwrap();
        if let Some(flow) = all.first() {
            let tasks = orchestrator.task_runs(flow.id).await.unwrap();
            if tasks.len() == 2 && tasks.iter().all(|task| task.state.name == "Running") {
                break flow.id;
            }
        }
        tokio::task::yield_now().await;
    };
    orchestrator.cancel(run.run_id()).await.unwrap();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(states(id).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(states(flow).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(tasks(flow).await, ["guarded-0: Cancelled", "endless-0: Cancelled"]);
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
    assert!(orchestrator.cancel(id).await.unwrap_err().is_not_found());
}

#[orchestrator::test]
async fn of_one_run_by_hand_does_not_fail_the_flow() {
    #[flow]
    async fn choosy() -> u32 {
        let run = endless();
        until_running(&run).await;
        run.cancel();
        1
    }
    assert_eq!(choosy().await.unwrap(), 1);
}

#[orchestrator::test]
async fn gives_slots_back_and_leaves_queues() {
    #[task(concurrency = "one")]
    async fn holds() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let (first, second, third) = (holds(), holds(), holds());
    until_running(&first).await;
    while third.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
    second.cancel();
    assert!((&second).await.unwrap_err().is_cancelled());
    assert_eq!(states(second.run_id()).await, ["Pending", "AwaitingConcurrencySlot", "Cancelling", "Cancelled"]);
    first.cancel();
    let _ = first.await;
    until_running(&third).await;
    third.cancel();
    let _ = third.await;
    let limit = &orchestrator.limits().await.unwrap()[0];
    assert_eq!((limit.taken, limit.waiting), (0, 0));
}

#[orchestrator::test]
async fn a_sync_body_can_notice() {
    #[task]
    fn polite() -> u32 {
        while !RunContext::current().is_cancelled() {
            std::thread::yield_now();
        }
        1
    }
    let run = polite();
    until_running(&run).await;
    run.cancel();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
}

#[tokio::test]
async fn a_sync_body_that_does_not_stop_is_abandoned() {
    use std::sync::mpsc;
    use std::time::Duration;
    static GATE: std::sync::Mutex<Option<mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    let (release, gate) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    #[task]
    fn stubborn() {
        let gate = GATE.lock().unwrap().take().unwrap();
        let _ = gate.recv();
    }
    let orchestrator =
        Orchestrator::builder().database_url("memory").cancel_grace(Duration::from_millis(10)).build().await.unwrap();
    orchestrator
        .scope(async {
            let run = stubborn();
            until_running(&run).await;
            run.cancel();
            assert!((&run).await.unwrap_err().is_cancelled());
        })
        .await;
    release.send(()).unwrap();
}

#[orchestrator::test]
async fn nothing_starts_after_a_cancellation() {
    #[flow]
    async fn late() -> Result<(), TaskError> {
        struct Submits;
        impl Drop for Submits {
            fn drop(&mut self) {
                drop(endless());
            }
        }
        let _submits = Submits;
        endless().await
    }
    let run = late();
    let id = run.run_id();
    while tasks(id).await != ["endless-0: Running"] {
        tokio::task::yield_now().await;
    }
    run.cancel();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(tasks(id).await, ["endless-0: Cancelled", "endless-1: Cancelled"]);
    let second = Orchestrator::current().task_runs(id).await.unwrap()[1].id;
    assert_eq!(states(second).await, ["Pending", "Cancelling", "Cancelled"]);
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_any_moment_leaves_nothing_behind() {
    #[task(concurrency = "two", retries = 1, cache_ttl = "1h", cache_policy = inputs)]
    async fn work(n: u32) -> Result<u32, String> {
        for _ in 0..n % 5 {
            tokio::task::yield_now().await;
        }
        if n.is_multiple_of(7) { Err("seven".into()) } else { Ok(n) }
    }
    #[task]
    async fn total(all: Vec<Result<u32, TaskError>>) -> usize {
        all.len()
    }
    #[flow(max_concurrent_tasks = 5)]
    async fn pipeline() -> Result<usize, TaskError> {
        total(work::map(0..40)).await
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("two", 2).await.unwrap();
    for steps in 0..60 {
        let run = pipeline();
        let id = run.run_id();
        for _ in 0..steps * 3 {
            tokio::task::yield_now().await;
        }
        run.cancel();
        let state = run.wait().await;
        assert!(state.is_terminal());
        let all = orchestrator.task_runs(id).await.unwrap();
        assert!(all.iter().all(|task| task.state.is_terminal()), "{all:?}");
        let limit = &orchestrator.limits().await.unwrap()[0];
        assert_eq!((limit.taken, limit.waiting), (0, 0), "after {steps} steps");
    }
}

#[orchestrator::test]
async fn a_sync_body_shows_as_cancelling_while_it_does_not_stop() {
    use std::sync::mpsc;
    static GATE: std::sync::Mutex<Option<mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    let (release, gate) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    #[task]
    fn slow_to_stop() {
        let gate = GATE.lock().unwrap().take().unwrap();
        let _ = gate.recv();
    }
    let run = slow_to_stop();
    until_running(&run).await;
    run.cancel();
    while run.state().name != "Cancelling" {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
}
