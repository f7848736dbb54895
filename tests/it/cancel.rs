//! Cancellation: down the tree, at once, and with everything given back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{FlowRunId, Observed, Observer, StateName};

use crate::door::{at_some_time, last_message, states, tasks, until};

#[task]
async fn endless() {
    std::future::pending::<()>().await;
}

async fn until_running<T>(run: &TaskFuture<T>) {
    at_some_time(|| run.state().name == "Running").await;
}

/// The task run of a flow run is in that state.
async fn until_task(flow: FlowRunId, expected: &str) {
    until(async || tasks(flow).await == [expected]).await;
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
    static GATE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    let (release, gate) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    #[task]
    fn stubborn() {
        let gate = GATE.lock().unwrap().take().unwrap();
        let _ = gate.recv();
    }
    let orchestrator = Orchestrator::builder()
        .database_url("memory")
        .blocking_threads(1)
        .cancel_grace(Duration::from_millis(10))
        .build()
        .await
        .unwrap();
    orchestrator
        .scope(async {
            let run = stubborn();
            until_running(&run).await;
            // Its thread may not have come to the body yet.
            while GATE.lock().unwrap().is_some() {
                tokio::task::yield_now().await;
            }
            run.cancel();
            assert!((&run).await.unwrap_err().is_cancelled());
            assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
            let said = last_message(run.run_id()).await;
            assert_eq!(said, "on request; its body did not stop within 10ms and was abandoned");
            let (sender, gate) = mpsc::channel();
            *GATE.lock().unwrap() = Some(gate);
            sender.send(()).unwrap();
            stubborn().await.unwrap();
        })
        .await;
    release.send(()).unwrap();
}

/// A body on a thread that ends when somebody sends it something, or has gone, and looks at nothing else.
#[task]
fn deaf(gate: &Mutex<std::sync::mpsc::Receiver<()>>) {
    let _ = gate.lock().unwrap().recv();
}

/// The shapes of retries that a run may have: none, at once, after a delay.
const RETRIES: [(u32, u64); 3] = [(0, 0), (2, 0), (2, 60)];

#[orchestrator::test(start_paused = true)]
async fn a_timeout_does_not_cut_the_grace_of_a_cancelled_run_short() {
    for (retries, delay) in RETRIES {
        for stops in [true, false] {
            let (release, gate) = std::sync::mpsc::channel();
            let run = deaf::configure()
                .timeout(Duration::from_secs(5))
                .retries(retries)
                .retry_delay(Duration::from_secs(delay))
                .submit(Mutex::new(gate));
            until_running(&run).await;
            run.cancel();
            at_some_time(|| run.state().name == "Cancelling").await;
            // Beyond the timeout, within the grace.
            tokio::time::advance(Duration::from_secs(6)).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(run.state().name, "Cancelling");
            if stops {
                release.send(()).unwrap();
            } else {
                tokio::time::advance(Duration::from_mins(1)).await;
            }
            assert!((&run).await.unwrap_err().is_cancelled());
            assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
            drop(release);
        }
    }
}

#[orchestrator::test(start_paused = true)]
async fn the_timeout_of_a_flow_cancels_tasks_that_have_timeouts_of_their_own() {
    #[flow(timeout_secs = 2)]
    async fn hurried(#[param(skip)] gate: Arc<Mutex<std::sync::mpsc::Receiver<()>>>, retries: u32, delay: u64) {
        let run = deaf::configure()
            .timeout(Duration::from_secs(5))
            .retries(retries)
            .retry_delay(Duration::from_secs(delay))
            .submit(gate);
        let _ = run.await;
    }
    for (retries, delay) in RETRIES {
        let (release, gate) = std::sync::mpsc::channel();
        let run = hurried(Arc::new(Mutex::new(gate)), retries, delay);
        until_task(run.run_id(), "deaf-0: Running").await;
        tokio::time::advance(Duration::from_secs(3)).await;
        until_task(run.run_id(), "deaf-0: Cancelling").await;
        tokio::time::advance(Duration::from_secs(3)).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        assert!((&run).await.unwrap_err().is_timed_out());
        let task = Orchestrator::current().task_runs(run.run_id()).await.unwrap().remove(0);
        assert_eq!(states(task.id).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    }
}

#[orchestrator::test(start_paused = true)]
async fn a_run_that_is_cancelled_while_its_timeout_stops_what_it_started_makes_no_other_attempt() {
    #[flow(timeout_secs = 5)]
    async fn hurried(#[param(skip)] gate: Arc<Mutex<std::sync::mpsc::Receiver<()>>>) -> Result<(), TaskError> {
        deaf(gate).await
    }
    for (retries, delay) in RETRIES {
        let (release, gate) = std::sync::mpsc::channel();
        let delay = Duration::from_secs(delay);
        let run = hurried::configure().retries(retries).retry_delay(delay).submit(Arc::new(Mutex::new(gate)));
        until_task(run.run_id(), "deaf-0: Running").await;
        tokio::time::advance(Duration::from_secs(6)).await;
        until_task(run.run_id(), "deaf-0: Cancelling").await;
        run.cancel();
        at_some_time(|| run.state().name == "Cancelling").await;
        release.send(()).unwrap();
        assert!((&run).await.unwrap_err().is_cancelled());
        assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    }
}

#[orchestrator::test]
async fn an_async_body_with_a_timeout_is_cancelled_at_once() {
    for (retries, delay) in RETRIES {
        let run = endless::configure()
            .timeout(Duration::from_mins(1))
            .retries(retries)
            .retry_delay(Duration::from_secs(delay))
            .submit();
        until_running(&run).await;
        run.cancel();
        assert!((&run).await.unwrap_err().is_cancelled());
        assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    }
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
    until_task(id, "endless-0: Running").await;
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
    static GATE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
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
    at_some_time(|| run.state().name == "Cancelling").await;
    release.send(()).unwrap();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
}

#[orchestrator::test]
async fn a_cancellation_says_who_asked() {
    #[flow]
    async fn outer() -> Result<(), TaskError> {
        endless().await
    }
    let run = endless();
    until_running(&run).await;
    run.cancel();
    assert_eq!((&run).await.unwrap_err().to_string(), "task run 'endless-0' was cancelled: on request");
    let flow = outer();
    let id = flow.run_id();
    until_task(id, "endless-0: Running").await;
    let name = Orchestrator::current().flow_run(id).await.unwrap().name;
    Orchestrator::current().cancel(id).await.unwrap();
    let task = Orchestrator::current().task_runs(id).await.unwrap()[0].id;
    assert_eq!(last_message(id).await, "on request");
    assert_eq!(last_message(task).await, format!("'{name}', which called it, was cancelled"));
    let (left, flow) = (endless(), outer());
    until_running(&left).await;
    until_task(flow.run_id(), "endless-0: Running").await;
    Orchestrator::current().shutdown().await.unwrap();
    let task = Orchestrator::current().task_runs(flow.run_id()).await.unwrap()[0].id;
    assert_eq!(last_message(left.run_id()).await, "the orchestrator was shut down");
    assert_eq!(last_message(flow.run_id()).await, "the orchestrator was shut down");
    assert_eq!(last_message(task).await, "the orchestrator was shut down");
}

#[orchestrator::test(start_paused = true)]
async fn what_a_timed_out_flow_started_says_so() {
    #[task]
    async fn middle() -> Result<(), TaskError> {
        endless().await
    }
    #[flow(timeout_secs = 5, run_name = "slow")]
    async fn slow() -> Result<(), TaskError> {
        middle().await
    }
    let run = slow();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_timed_out());
    let runs = Orchestrator::current().task_runs(id).await.unwrap();
    assert_eq!(last_message(runs[0].id).await, "'slow', which called it, timed out");
    assert_eq!(last_message(runs[1].id).await, "'middle-0', which called it, was cancelled");
}

/// What can be given back, and has to be, however a run ended.
async fn nothing_is_held() {
    for limit in Orchestrator::current().limits().await.unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "{limit:?}");
    }
}

#[orchestrator::test]
async fn while_it_waits_for_its_inputs() {
    #[task(concurrency = "one")]
    async fn takes(_value: ()) {}
    Orchestrator::current().limit("one", 1).await.unwrap();
    let first = endless();
    let (second, third) = (takes(&first), takes(&first));
    second.cancel();
    assert!((&second).await.unwrap_err().is_cancelled(), "without its inputs");
    assert_eq!(states(second.run_id()).await, ["Pending", "Cancelling", "Cancelled"]);
    assert_eq!(third.state().name, "Pending");
    first.cancel();
    assert!(third.await.unwrap_err().is_not_ready());
    nothing_is_held().await;
}

#[orchestrator::test(start_paused = true)]
async fn during_the_delay_before_a_retry() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    #[task(retries = 3, retry_delay_secs = 60, concurrency = "one")]
    async fn flaky() -> Result<(), String> {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Err("flaky".into())
    }
    Orchestrator::current().limit("one", 1).await.unwrap();
    let run = flaky();
    while run.state().name != "AwaitingRetry" {
        tokio::task::yield_now().await;
    }
    nothing_is_held().await;
    run.cancel();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "AwaitingRetry", "Cancelling", "Cancelled"]);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[orchestrator::test]
async fn while_another_run_computes_the_same() {
    static GATE: AtomicUsize = AtomicUsize::new(0);
    #[task(cache_ttl = "1h", cache_policy = inputs, concurrency = "two")]
    async fn once(n: u32) -> u32 {
        while GATE.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        n
    }
    Orchestrator::current().limit("two", 2).await.unwrap();
    let (first, second, third) = (once(1), once(1), once(1));
    until_running(&first).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.state().name, "Pending");
    second.cancel();
    assert!((&second).await.unwrap_err().is_cancelled());
    assert_eq!(states(second.run_id()).await, ["Pending", "Cancelling", "Cancelled"]);
    // The one that computes it goes as well: the next takes over.
    first.cancel();
    assert!(first.await.unwrap_err().is_cancelled());
    GATE.store(1, Ordering::SeqCst);
    assert_eq!((&third).await.unwrap(), 1);
    assert_eq!(states(third.run_id()).await, ["Pending", "Running", "Completed"]);
    nothing_is_held().await;
}

#[orchestrator::test]
async fn while_it_waits_for_its_children() {
    #[task(concurrency = "one")]
    async fn parent() -> u32 {
        drop(endless());
        1
    }
    Orchestrator::current().limit("one", 1).await.unwrap();
    let run = parent();
    until_running(&run).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    run.cancel();
    assert!((&run).await.unwrap_err().is_cancelled(), "its own body has returned");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    nothing_is_held().await;
}

#[tokio::test]
async fn while_it_waits_for_a_thread() {
    use std::sync::mpsc;
    static GATE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    let (release, gate) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    #[task]
    fn blocks() -> u32 {
        let gate = GATE.lock().unwrap().take();
        gate.map_or(2, |gate| gate.recv().map_or(0, |()| 1))
    }
    let orchestrator = Orchestrator::builder().database_url("memory").blocking_threads(1).build().await.unwrap();
    orchestrator
        .scope(async {
            let first = blocks();
            until_running(&first).await;
            let (second, third) = (blocks(), blocks());
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(second.state().name, "Pending");
            second.cancel();
            assert!((&second).await.unwrap_err().is_cancelled());
            release.send(()).unwrap();
            assert_eq!(first.await.unwrap(), 1);
            assert_eq!(third.await.unwrap(), 2, "the thread came back");
        })
        .await;
}

#[orchestrator::test]
async fn after_any_number_of_steps_everything_comes_back() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
            // Refused, or cancelled at once.
            drop(step(0));
        }
    }
    #[task]
    async fn step(n: u32) -> u32 {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        n
    }
    #[task(concurrency = ["one", "two"], retries = 1, cache_ttl = "1h", cache_policy = inputs)]
    async fn work(round: u32, n: u32) -> Result<u32, String> {
        STARTED.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted;
        step(n).await.map_err(|error| error.to_string())?;
        let _guard = concurrency("two", 1).await.map_err(|error| error.to_string())?;
        match (n, RunContext::current().attempt()) {
            (2, 1) => Err("again".into()),
            _ => Ok(n + round - round),
        }
    }
    #[flow]
    async fn inner(round: u32) -> Result<Vec<u32>, TaskError> {
        work::map(unmapped(round), vec![0, 1, 2, 2]).await
    }
    #[flow(max_concurrent_tasks = 2, retries = 1)]
    async fn outer(round: u32) -> Result<u32, orchestrator::FlowError> {
        let all = inner(round);
        let own = step(work(round, 3)).await.unwrap_or(0);
        Ok(all.await?.into_iter().sum::<u32>() + own)
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    orchestrator.limit("two", 2).await.unwrap();
    for steps in 0.. {
        let run = outer(steps);
        let id = run.run_id();
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        let ended = run.state().is_terminal();
        run.cancel();
        let began = STARTED.load(Ordering::SeqCst);
        let state = run.wait().await;
        assert_eq!(STARTED.load(Ordering::SeqCst), began, "nothing starts after a cancellation");
        assert_eq!(DROPPED.load(Ordering::SeqCst), began, "bodies that began are dropped");
        for flow in orchestrator.flow_runs(&orchestrator::FlowRunQuery::new()).await.unwrap() {
            assert!(flow.state.is_terminal());
            let runs = orchestrator.task_runs(flow.id).await.unwrap();
            assert!(runs.iter().all(|run| run.state.is_terminal()), "after {steps} steps: {runs:?}");
        }
        nothing_is_held().await;
        if ended {
            assert_eq!(state.name, "Completed");
            assert!(steps > 10, "it takes more steps than that");
            break;
        }
        assert_eq!(state.name, "Cancelled", "after {steps} steps");
        assert!(matches!(states(id).await.as_slice(), [first, .., last] if first == "Pending" && last == "Cancelled"));
        // What was claimed is free: the same keys are computed by others.
        assert_eq!(inner(steps).await.unwrap(), [0, 1, 2, 2], "after {steps} steps");
        nothing_is_held().await;
    }
}

/// Cancels a run as soon as it is said to be running.
#[derive(Debug)]
struct Canceller;

static TO_CANCEL: Mutex<Option<TaskFuture<()>>> = Mutex::new(None);

impl Observer for Canceller {
    fn on_transition(&self, event: &Observed<'_>) {
        if event.name.starts_with("begins")
            && event.transition.name == StateName::Running
            && let Some(run) = TO_CANCEL.lock().unwrap().take()
        {
            run.cancel();
        }
    }
}

#[tokio::test]
async fn a_body_is_not_begun_after_its_run_was_cancelled() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn begins(_after: ()) {
        BEGUN.fetch_add(1, Ordering::SeqCst);
    }
    #[task]
    async fn first() {}
    #[flow]
    async fn cancelled_at_its_beginning() -> Result<(), TaskError> {
        first().await?;
        let run = begins(first());
        *TO_CANCEL.lock().unwrap() = Some(run.clone());
        run.await
    }
    let observer: Arc<dyn Observer> = Arc::new(Canceller);
    let orchestrator = Orchestrator::builder().database_url("memory").observer(observer).build().await.unwrap();
    let ended = orchestrator.scope(async { cancelled_at_its_beginning().await }).await;
    assert!(ended.unwrap_err().to_string().contains("cancelled"));
    assert_eq!(BEGUN.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_is_always_ready_has_a_timeout_all_the_same() {
    #[task(timeout_secs = 0.05)]
    async fn never_at_rest() {
        loop {
            tokio::task::consume_budget().await;
        }
    }
    let orchestrator = Orchestrator::in_memory();
    let state = orchestrator.scope(async { never_at_rest().wait().await }).await;
    assert_eq!(state.name, "TimedOut");
}
