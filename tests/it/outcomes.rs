//! What becomes of a flow when runs fail: words for the exceptions, and sums over many outcomes.

use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::prelude::*;
use orchestrator::{Tally, all_completed};

use crate::door::{Calls, last_message, states, tasks};

#[task]
async fn odd_fails(n: u32) -> Result<u32, String> {
    if n % 2 == 1 { Err(format!("{n} is odd")) } else { Ok(n) }
}

#[task]
async fn endless() {
    std::future::pending::<()>().await;
}

#[orchestrator::test]
async fn tolerated_failures_do_not_fail_the_flow() {
    #[task]
    async fn later(n: u32) -> Result<u32, String> {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        Err(n.to_string())
    }
    #[task]
    async fn range(n: u32) -> Vec<u32> {
        (0..n).collect()
    }
    #[flow]
    async fn careful() -> u32 {
        odd_fails(1).tolerate();
        let later = later(2).tolerate();
        odd_fails::map(0..4).tolerate();
        odd_fails::map(range(4)).tolerate();
        odd_fails::map(odd_fails::map(0..4).settled().await.into_iter().flatten().collect::<Vec<_>>()).tolerate();
        drop(later);
        1
    }
    #[flow]
    async fn fails() -> Result<(), String> {
        Err("no".into())
    }
    #[flow]
    async fn outer() -> Result<u32, orchestrator::FlowError> {
        fails().tolerate();
        careful().await
    }
    assert_eq!(outer().await.unwrap(), 1);
    let flows = orchestrator::FlowRunQuery::new().flow("careful");
    let id = Orchestrator::current().flow_runs(&flows).await.unwrap()[0].id;
    let all = tasks(id).await;
    assert_eq!(all.len(), 1 + 1 + 4 + 1 + 4 + 4 + 2, "{all:?}");
    assert!(all.iter().all(|task| task.ends_with("Completed") || task.ends_with("Failed")), "waited for: {all:?}");
}

#[orchestrator::test]
async fn what_takes_a_tolerated_result_is_a_failure_of_its_own() {
    #[task]
    async fn takes(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn careless() {
        drop(takes(odd_fails(1).tolerate()));
    }
    let error = careless().await.unwrap_err();
    assert_eq!(error.first_cause().task_name(), "odd_fails");
}

#[orchestrator::test]
async fn a_map_that_cannot_be_made_is_tolerated_too() {
    #[task]
    async fn no_list() -> Result<Vec<u32>, String> {
        Err("no list".into())
    }
    #[flow]
    async fn careful() {
        odd_fails::map(no_list().tolerate()).tolerate();
    }
    careful().await.unwrap();
}

#[orchestrator::test]
async fn a_detached_run_goes_its_own_way() {
    static GATE: AtomicBool = AtomicBool::new(false);
    static OUT: std::sync::Mutex<Option<TaskFuture<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn inner(n: u32) -> u32 {
        n
    }
    #[task]
    async fn gated() -> Result<u32, String> {
        while !GATE.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let own = inner(1).await.map_err(|error| error.to_string())?;
        assert_eq!(RunContext::current().flow_name(), "starts");
        Err(format!("nobody minds {own}"))
    }
    #[flow]
    async fn starts() -> u32 {
        *OUT.lock().unwrap() = Some(gated().detach());
        1
    }
    let run = starts();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1, "it was not waited for");
    let out = OUT.lock().unwrap().take().unwrap();
    assert_eq!(out.state().name, "Running");
    let record = Orchestrator::current().task_run(out.run_id()).await.unwrap();
    assert_eq!(record.parent, Some(id.into()), "the history keeps where it came from");
    GATE.store(true, Ordering::SeqCst);
    assert!(out.await.unwrap_err().to_string().contains("nobody minds 1"));
    assert_eq!(tasks(id).await, ["gated-0: Failed", "inner-0: Completed"]);
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_detached_run_outlives_the_cancellation_and_the_timeout_of_its_flow() {
    #[flow(timeout_secs = 5)]
    async fn stuck() -> Result<(), TaskError> {
        endless().detach();
        endless().await
    }
    let runs = async |id| Orchestrator::current().task_runs(id).await.unwrap();
    let timed_out = stuck();
    assert!((&timed_out).await.unwrap_err().is_timed_out());
    assert_eq!(tasks(timed_out.run_id()).await, ["endless-0: Running", "endless-1: Cancelled"]);
    let cancelled = stuck();
    while runs(cancelled.run_id()).await.len() < 2 {
        tokio::task::yield_now().await;
    }
    cancelled.cancel();
    assert!((&cancelled).await.unwrap_err().is_cancelled());
    assert_eq!(tasks(cancelled.run_id()).await, ["endless-0: Running", "endless-1: Cancelled"]);
    let left = runs(timed_out.run_id()).await[0].id;
    Orchestrator::current().cancel(left).await.unwrap();
    assert_eq!(last_message(left).await, "on request");
    let left = runs(cancelled.run_id()).await[0].id;
    Orchestrator::current().shutdown().await.unwrap();
    assert_eq!(states(left).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(last_message(left).await, "the orchestrator was shut down");
}

#[orchestrator::test]
async fn a_flow_that_waits_only_for_a_run_that_is_detached_ends() {
    static RUN: std::sync::Mutex<Option<TaskFuture<()>>> = std::sync::Mutex::new(None);
    #[flow]
    async fn waits() {
        *RUN.lock().unwrap() = Some(endless());
    }
    let run = waits();
    while RUN.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(run.state().name, "Running");
    let left = RUN.lock().unwrap().take().unwrap().detach();
    run.await.unwrap();
    assert_eq!(left.state().name, "Running");
    // Twice, and after the end, do no harm.
    left.clone().detach().cancel();
    left.wait().await;
    left.detach();
}

#[orchestrator::test(start_paused = true)]
async fn a_detached_run_is_not_held_up_by_a_pause_of_its_flow() {
    #[task]
    async fn quick(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn pauses() -> Result<(), orchestrator::Error> {
        let mut pause = std::pin::pin!(pause_flow_run().into_future());
        assert!(futures::poll!(&mut pause).is_pending());
        let (begins, waits) = (quick(1), quick(2));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits.state().name, "Pending");
        assert_eq!(waits.detach().await.unwrap(), 2, "from now on it is on its own");
        assert_eq!(begins.state().name, "Pending");
        pause.await
    }
    let run = pauses();
    let id = run.run_id();
    while run.state().name != "Paused" || tasks(id).await != ["quick-0: Pending", "quick-1: Completed"] {
        tokio::task::yield_now().await;
    }
    Orchestrator::current().resume_paused(id, ()).await.unwrap();
    run.await.unwrap();
    assert_eq!(tasks(id).await, ["quick-0: Completed", "quick-1: Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_detached_run_needs_no_place_among_the_tasks_of_its_flow() {
    #[task]
    async fn quick(n: u32) -> u32 {
        n
    }
    #[flow(max_concurrent_tasks = 1)]
    async fn narrow() -> Result<(), TaskError> {
        let holds = endless();
        let waits = quick(1);
        while waits.state().name != "AwaitingConcurrencySlot" {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits.detach().await?, 1);
        holds.cancel();
        Ok(())
    }
    tokio::time::timeout(std::time::Duration::from_secs(5), narrow()).await.unwrap().unwrap();
}

#[orchestrator::test]
async fn a_detached_run_that_has_failed_fails_nobody() {
    #[flow]
    async fn late() {
        let run = odd_fails(1);
        while !run.state().is_terminal() {
            tokio::task::yield_now().await;
        }
        run.detach();
    }
    late().await.unwrap();
}

#[orchestrator::test]
async fn a_detached_run_waits_for_slots_that_its_flow_holds() {
    #[flow]
    async fn holds() -> Result<(), orchestrator::Error> {
        let slot = concurrency("one", 1).await?;
        needs().detach();
        tokio::task::yield_now().await;
        drop(slot);
        Ok(())
    }
    #[task(concurrency = "one")]
    async fn needs() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let run = holds();
    let id = run.run_id();
    run.await.unwrap();
    let needs = orchestrator.task_runs(id).await.unwrap()[0].id;
    while tasks(id).await != ["needs-0: Completed"] {
        tokio::task::yield_now().await;
    }
    assert_eq!(states(needs).await, ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]);
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching_and_ending_at_the_same_time() {
    #[task]
    async fn short(n: u32) -> Result<u32, String> {
        for _ in 0..n % 4 {
            tokio::task::yield_now().await;
        }
        if n.is_multiple_of(3) { Err("three".into()) } else { Ok(n) }
    }
    #[flow]
    async fn many() -> u32 {
        for n in 0..200 {
            let run = short(n);
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            run.detach();
            short(n).tolerate();
        }
        1
    }
    for _ in 0..10 {
        assert_eq!(many().await.unwrap(), 1);
    }
    let orchestrator = Orchestrator::current();
    orchestrator.shutdown().await.unwrap();
    for flow in orchestrator.flow_runs(&orchestrator::FlowRunQuery::new()).await.unwrap() {
        let runs = orchestrator.task_runs(flow.id).await.unwrap();
        assert_eq!(runs.len(), 400);
        assert!(runs.iter().all(|run| run.state.is_terminal()));
    }
}

#[orchestrator::test]
async fn some_of_many_failed() {
    #[task]
    async fn checked(n: u32, most: usize) -> Result<usize, TaskError> {
        let outcomes = odd_fails::map(0..n).settled().await;
        let tally = Tally::of(&outcomes);
        tally.at_most(most)?;
        Ok(tally.completed)
    }
    assert_eq!(checked(10, 5).await.unwrap(), 5);
    let error = checked(4, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "task run 'checked-1' failed: 2 of 4 runs failed: task run 'odd_fails-11' failed: 1 is odd"
    );
    assert_eq!(error.first_cause().task_name(), "odd_fails");
    let outcomes = odd_fails::map(vec![0, 2]).settled().await;
    assert_eq!(Tally::of(&outcomes).to_string(), "2 of 2 runs completed");
    assert_eq!(all_completed(outcomes).unwrap(), [0, 2]);
    let error = all_completed(odd_fails::map(0..2).settled().await).unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 runs failed: task run 'odd_fails-17' failed: 1 is odd");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "task run 'odd_fails-17' failed: 1 is odd");
}

#[orchestrator::test(start_paused = true)]
async fn a_tally_counts_each_kind() {
    #[task(timeout_secs = 1)]
    async fn slow(n: u32) -> u32 {
        std::future::pending::<()>().await;
        n
    }
    #[task]
    async fn panics(_n: u32) -> u32 {
        panic!("no")
    }
    let failed = odd_fails(1);
    let not_ready = odd_fails(&failed);
    let cancelled = odd_fails(slow(1));
    cancelled.cancel();
    let runs = [odd_fails(2), failed, panics(1), slow(1), not_ready, cancelled];
    let mut outcomes = Vec::new();
    for run in runs {
        outcomes.push(run.await);
    }
    let tally = Tally::of(&outcomes);
    let counts = (tally.total, tally.completed, tally.failed, tally.timed_out, tally.not_ready, tally.cancelled);
    assert_eq!(counts, (6, 1, 2, 1, 1, 1));
    assert_eq!(tally.crashed, 0);
    assert!(tally.to_string().starts_with("5 of 6 runs did not complete: task run 'odd_fails-0' failed"), "{tally}");
}

#[orchestrator::test]
async fn errors_that_the_parent_catches_leave_it_completed() {
    #[flow]
    async fn fails() -> Result<u32, TaskError> {
        odd_fails(1).await
    }
    #[flow]
    async fn catches() -> u32 {
        odd_fails(1).await.unwrap_or(2) + fails().await.unwrap_or(3)
    }
    let run = catches();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 5);
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn subflows_are_retried_inside_the_retries_of_their_parents() {
    static TASKS: Calls = Calls::new();
    static INNER: Calls = Calls::new();
    #[task(retries = 2)]
    async fn flaky() -> Result<(), String> {
        TASKS.one();
        Err("flaky".into())
    }
    #[flow(retries = 1, retry_delay_secs = 5)]
    async fn inner() -> Result<(), TaskError> {
        INNER.one();
        flaky().await
    }
    #[flow(retries = 1)]
    async fn outer() -> Result<(), orchestrator::FlowError> {
        inner().await
    }
    let run = outer();
    let id = run.run_id();
    assert_eq!(run.await.unwrap_err().first_cause().task_name(), "flaky");
    assert_eq!((INNER.get(), TASKS.get()), (4, 12));
    assert_eq!(states(id).await, ["Pending", "Running", "Retrying", "Failed"]);
    let flows = Orchestrator::current().flow_runs(&orchestrator::FlowRunQuery::new().flow("inner")).await.unwrap();
    assert_eq!(flows.len(), 2, "one run for each attempt of the parent");
    for flow in flows {
        assert_eq!(states(flow.id).await, ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]);
        assert_eq!(tasks(flow.id).await, ["flaky-0: Failed", "flaky-1: Failed"]);
    }
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_code_that_was_given_away_starts_is_waited_for_and_judged_or_refused() {
    #[flow]
    async fn gives_away(n: usize) {
        tokio::spawn(
            async move {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                drop(odd_fails(1));
            }
            .in_current_run(),
        );
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    for n in 0..200 {
        let run = gives_away(n % 30);
        let id = run.run_id();
        let failed = run.await.is_err();
        let all = tasks(id).await;
        let started = all.iter().any(|task| task == "odd_fails-0: Failed");
        if failed {
            assert!(started, "{all:?}");
        } else if started {
            let refused = Orchestrator::current().task_runs(id).await.unwrap()[0].run_count == 0;
            assert!(refused, "a run that began and failed fails its flow");
        }
    }
}
