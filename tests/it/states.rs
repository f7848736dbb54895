//! Each row of the table of states, as the exact sequence that a run shows.

use std::time::Duration;

use orchestrator::prelude::*;

use crate::door::{Calls, last_message, states};

#[task]
async fn fine() -> u32 {
    1
}

#[orchestrator::test]
async fn success() {
    let run = fine();
    assert_eq!((&run).await.unwrap(), 1);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
    assert_eq!(run.state().kind, StateType::Completed);
}

#[orchestrator::test]
async fn retry_without_delay() {
    static CALLS: Calls = Calls::new();
    #[task(retries = 3)]
    async fn third_time() -> Result<usize, String> {
        match CALLS.one() {
            3 => Ok(3),
            call => Err(format!("no luck at {call}")),
        }
    }
    let run = third_time();
    assert_eq!((&run).await.unwrap(), 3);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Retrying", "Retrying", "Completed"]);
    let second = &Orchestrator::current().states(run.run_id()).await.unwrap()[2];
    assert_eq!(second.message.as_deref(), Some("attempt 1 of 4 failed: no luck at 1"));
}

#[orchestrator::test(start_paused = true)]
async fn retry_with_delay() {
    #[task(retries = 2, retry_delay_secs = [10, 60])]
    async fn never() -> Result<(), String> {
        Err(format!("attempt {}", RunContext::current().attempt()))
    }
    let run = never();
    let error = (&run).await.unwrap_err();
    assert_eq!(error.to_string(), "task run 'never-0' failed: attempt 3");
    assert_eq!(
        states(run.run_id()).await,
        ["Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Failed"]
    );
    let history = Orchestrator::current().states(run.run_id()).await.unwrap();
    assert_eq!(history[2].message.as_deref(), Some("attempt 1 of 3 failed: attempt 1; the next starts in 10s"));
    let waits = [3, 5].map(|retry| (history[retry].timestamp - history[retry - 2].timestamp).as_seconds_f64().round());
    assert_eq!(waits, [10.0, 60.0]);
    assert_eq!(Orchestrator::current().task_run(run.run_id()).await.unwrap().run_count, 3);
}

#[orchestrator::test]
async fn cache_hit() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn slow(of: u32) -> u32 {
        CALLS.one();
        of * 2
    }
    slow(4).await.unwrap();
    let again = slow(4);
    assert_eq!((&again).await.unwrap(), 8);
    assert_eq!(states(again.run_id()).await, ["Pending", "Cached"]);
    assert_eq!(again.state().kind, StateType::Completed);
    assert_eq!(CALLS.get(), 1);
}

#[orchestrator::test]
async fn a_cache_hit_takes_no_slot() {
    #[task(cache_ttl = "1h", concurrency = "one")]
    async fn limited() -> u32 {
        1
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    limited().await.unwrap();
    let _held = concurrency("one", 1).await.unwrap();
    let run = limited();
    assert_eq!((&run).await.unwrap(), 1);
    assert_eq!(states(run.run_id()).await, ["Pending", "Cached"]);
}

#[orchestrator::test]
async fn waiting_for_a_slot() {
    #[task(concurrency = "one")]
    async fn limited() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let held = concurrency("one", 1).await.unwrap();
    let run = limited();
    while run.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
    assert_eq!(run.state().message.as_deref(), Some("waits for a slot of limit 'one' (1 of 1 taken)"));
    drop(held);
    (&run).await.unwrap();
    assert_eq!(states(run.run_id()).await, ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]);
}

#[orchestrator::test]
async fn upstream_did_not_complete() {
    #[task]
    async fn broken() -> Result<u32, String> {
        Err("out of paper".into())
    }
    #[task(retries = 5)]
    async fn double(x: u32) -> u32 {
        x * 2
    }
    let first = broken();
    let second = double(&first);
    let third = double(&second);
    let error = (&third).await.unwrap_err();
    assert!(error.is_not_ready());
    assert_eq!(
        error.to_string(),
        "task run 'double-1' did not start: upstream task run 'broken-0' failed: out of paper"
    );
    assert_eq!(error.first_cause().task_name(), "broken");
    assert_eq!(states(second.run_id()).await, ["Pending", "NotReady"]);
    assert_eq!(states(third.run_id()).await, ["Pending", "NotReady"]);
    assert_eq!(second.state().kind, StateType::Cancelled);
    assert_eq!(last_message(third.run_id()).await, "upstream task run 'broken-0' failed: out of paper");
}

#[orchestrator::test(start_paused = true)]
async fn attempt_over_its_timeout() {
    #[task(timeout_secs = 5, retries = 1)]
    async fn stuck() {
        std::future::pending::<()>().await;
    }
    let run = stuck();
    let error = (&run).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.to_string(), "task run 'stuck-0' timed out: attempt 2 took longer than 5s");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Retrying", "TimedOut"]);
    assert_eq!(run.state().kind, StateType::Failed);
}

#[orchestrator::test]
async fn body_panics() {
    #[task(retries = 1)]
    async fn careless() {
        panic!("no such {}", "thing");
    }
    let run = careless();
    let error = (&run).await.unwrap_err();
    assert!(error.is_panic());
    let said = error.to_string();
    assert!(said.starts_with("task run 'careless-0' failed: panicked: no such thing at tests/it/states.rs:"), "{said}");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Retrying", "Failed"]);
}

#[orchestrator::test]
async fn sync_body_panics() {
    #[task]
    fn careless(at: usize) -> u8 {
        [1, 2, 3][at]
    }
    let error = careless(7_usize).await.unwrap_err();
    assert!(error.is_panic());
    assert!(error.to_string().contains("index out of bounds"), "{error}");
}

#[orchestrator::test]
async fn cancelled_while_running() {
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    let run = endless();
    while run.state().name != "Running" {
        tokio::task::yield_now().await;
    }
    run.cancel();
    let error = (&run).await.unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
}

#[orchestrator::test]
async fn cancelled_before_it_began() {
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    #[task]
    async fn after(_x: ()) {}
    let first = endless();
    let second = after(&first);
    second.cancel();
    assert!((&second).await.unwrap_err().is_cancelled());
    assert_eq!(states(second.run_id()).await, ["Pending", "Cancelling", "Cancelled"]);
    first.cancel();
    let _ = first.await;
}

#[test]
fn the_runtime_goes_away() {
    let orchestrator = Orchestrator::in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    let run = runtime.block_on(orchestrator.scope(async {
        let run = endless();
        while run.state().name != "Running" {
            tokio::task::yield_now().await;
        }
        run
    }));
    drop(runtime);
    assert_eq!(run.state().name, "Crashed");
    let later = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    later.block_on(orchestrator.scope(async {
        assert!((&run).await.unwrap_err().is_crashed());
        assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Crashed"]);
    }));
}

#[orchestrator::test(start_paused = true)]
async fn a_failed_attempt_gives_its_slot_back_during_the_delay() {
    #[task(retries = 1, retry_delay_secs = 60, concurrency = "one")]
    async fn flaky() -> Result<(), String> {
        if RunContext::current().attempt() == 1 { Err("first".into()) } else { Ok(()) }
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let run = flaky();
    while run.state().name != "AwaitingRetry" {
        tokio::task::yield_now().await;
    }
    let held = tokio::time::timeout(Duration::from_secs(1), concurrency("one", 1)).await.unwrap().unwrap();
    drop(held);
    (&run).await.unwrap();
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]);
}
