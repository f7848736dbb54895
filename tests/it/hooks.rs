//! Hooks on states: who is called, when, how often, and what their failures do.

use std::time::Duration;

use orchestrator::prelude::*;

use crate::door::{Calls, Notes, states};

#[orchestrator::test]
async fn hooks_are_called_in_the_order_given_and_see_run_and_state() {
    static SEEN: Notes = Notes::new();
    fn first(run: &TaskRun, state: &State) {
        SEEN.add(format!("first {} {} {} {}", run.name, run.run_count, run.state.name, state.name));
    }
    async fn second(run: &TaskRun, state: &State) {
        tokio::task::yield_now().await;
        SEEN.add(format!("second {} {:?}", run.task_name, state.kind));
    }
    fn third(_: &TaskRun, _: &State) -> Result<(), String> {
        SEEN.add("third");
        Ok(())
    }
    #[task(on_running = first, on_completion = [third, second, first])]
    async fn work() -> u32 {
        SEEN.add("body");
        1
    }
    let run = work();
    assert_eq!((&run).await.unwrap(), 1);
    assert_eq!(
        SEEN.take(),
        [
            "first work-0 1 Running Running",
            "body",
            "third",
            "second work Completed",
            "first work-0 1 Completed Completed"
        ]
    );
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn running_hooks_are_called_for_each_attempt_and_failure_hooks_once() {
    static SEEN: Notes = Notes::new();
    fn running(run: &TaskRun, state: &State) {
        SEEN.add(format!("{} {}", state.name, run.run_count));
    }
    fn failed(run: &TaskRun, state: &State) {
        SEEN.add(format!("{}({}) after {}", state.name, state.message.as_deref().unwrap(), run.run_count));
    }
    fn never(_: &TaskRun, state: &State) {
        SEEN.add(format!("never {}", state.name));
    }
    #[task(retries = 2, retry_delay_secs = [0, 5], on_running = running, on_failure = failed, on_completion = never,
        on_cancellation = never, on_crashed = never)]
    async fn broken() -> Result<(), String> {
        Err("no".into())
    }
    let run = broken();
    (&run).await.unwrap_err();
    assert_eq!(SEEN.take(), ["Running 1", "Retrying 2", "Retrying 3", "Failed(no) after 3"]);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Retrying", "AwaitingRetry", "Retrying", "Failed"]);

    #[task(timeout_secs = 1, on_failure = failed)]
    async fn slow() {
        std::future::pending().await
    }
    slow().await.unwrap_err();
    assert_eq!(SEEN.take(), ["TimedOut(attempt 1 took longer than 1s) after 1"]);

    #[task(on_failure = failed)]
    fn panics() {
        panic!("oh")
    }
    panics().await.unwrap_err();
    let seen = SEEN.take();
    assert!(seen.len() == 1 && seen[0].starts_with("Failed(panicked: oh at "), "{seen:?}");

    #[task(concurrency = "unheard-of", on_running = running, on_failure = failed)]
    async fn refused() {}
    refused().await.unwrap_err();
    let seen = SEEN.take();
    assert!(seen.len() == 1 && seen[0].starts_with("Failed(there is no limit 'unheard-of'"), "{seen:?}");
}

#[orchestrator::test]
async fn a_cached_result_completes_and_a_run_that_is_not_ready_has_no_hooks() {
    static SEEN: Notes = Notes::new();
    fn seen(run: &TaskRun, state: &State) {
        SEEN.add(format!("{} {}", run.task_name, state.name));
    }
    #[task(cache_ttl = "1h", on_running = seen, on_completion = seen)]
    async fn cached() -> u32 {
        1
    }
    cached().await.unwrap();
    cached().await.unwrap();
    assert_eq!(SEEN.take(), ["cached Running", "cached Completed", "cached Cached"]);

    #[task]
    async fn broken() -> Result<u32, String> {
        Err("no".into())
    }
    #[task(on_running = seen, on_completion = seen, on_failure = seen, on_cancellation = seen, on_crashed = seen)]
    async fn after(_of: u32) {}
    let run = after(broken());
    assert!((&run).await.unwrap_err().is_not_ready());
    assert_eq!(states(run.run_id()).await, ["Pending", "NotReady"]);
    assert_eq!(SEEN.take(), [""; 0]);
}

#[orchestrator::test]
async fn cancellation_hooks_are_called_once_whenever_the_run_was_cancelled() {
    static SEEN: Notes = Notes::new();
    fn cancelled(run: &TaskRun, state: &State) {
        SEEN.add(format!("{} {} {}", run.name, state.name, run.run_count));
    }
    #[task(on_cancellation = cancelled, on_failure = cancelled, on_completion = cancelled)]
    async fn endless() {
        std::future::pending().await
    }
    let run = endless();
    while run.state().name != "Running" {
        tokio::task::yield_now().await;
    }
    run.cancel();
    run.cancel();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(SEEN.take(), ["endless-0 Cancelled 1"]);
    let pending = endless::configure().wait_for(&endless()).submit();
    pending.cancel();
    (&pending).await.unwrap_err();
    assert_eq!(SEEN.take(), ["endless-2 Cancelled 0"]);
    // A running hook that hangs does not keep the run from ending.
    async fn hangs(_: &TaskRun, _: &State) {
        std::future::pending().await
    }
    #[task(on_running = hangs, on_cancellation = cancelled)]
    async fn held_up() {}
    let run = held_up();
    while run.state().name != "Running" {
        tokio::task::yield_now().await;
    }
    run.cancel();
    (&run).await.unwrap_err();
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(SEEN.take(), ["held_up-0 Cancelled 1"]);
}

#[orchestrator::test]
async fn a_hook_that_fails_or_panics_is_logged_and_the_others_are_called() {
    static CALLS: Calls = Calls::new();
    fn fails(_: &TaskRun, _: &State) -> Result<(), String> {
        CALLS.one();
        Err("pager is off".into())
    }
    async fn fails_later(_: &TaskRun, _: &State) -> Result<(), std::io::Error> {
        CALLS.one();
        Err(std::io::Error::other("disk is off"))
    }
    fn panics(_: &TaskRun, _: &State) {
        CALLS.one();
        panic!("sync")
    }
    async fn panics_later(_: &TaskRun, _: &State) {
        CALLS.one();
        tokio::task::yield_now().await;
        panic!("async")
    }
    #[task(on_running = [panics, fails], on_completion = [fails, fails_later, panics, panics_later, fails])]
    async fn work() -> u32 {
        7
    }
    let run = work();
    assert_eq!((&run).await.unwrap(), 7);
    assert_eq!(CALLS.get(), 7);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn flows_have_hooks_too() {
    static SEEN: Notes = Notes::new();
    fn seen(run: &FlowRun, state: &State) {
        SEEN.add(format!("{} {} {}", run.flow_name, state.name, run.parameters));
    }
    async fn seen_later(run: &FlowRun, state: &State) {
        SEEN.add(format!("later {} {}", run.run_count, state.name));
    }
    #[flow(retries = 1, on_running = seen, on_completion = [seen_later, seen], on_failure = seen)]
    async fn second_time(of: u32) -> Result<u32, String> {
        if RunContext::current().attempt() == 1 { Err("once more".into()) } else { Ok(of) }
    }
    assert_eq!(second_time(3).await.unwrap(), 3);
    assert_eq!(
        SEEN.take(),
        [
            "second_time Running {\"of\":3}",
            "second_time Retrying {\"of\":3}",
            "later 2 Completed",
            "second_time Completed {\"of\":3}"
        ]
    );
    #[flow(timeout_secs = 1, on_failure = seen_later, on_cancellation = seen)]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    endless().await.unwrap_err();
    assert_eq!(SEEN.take(), ["later 1 TimedOut"]);
    let run = endless();
    tokio::time::sleep(Duration::from_millis(1)).await;
    run.cancel();
    run.await.unwrap_err();
    assert_eq!(SEEN.take(), ["endless Cancelled {}"]);
}

#[orchestrator::test]
async fn a_hook_knows_its_run_and_may_submit_others() {
    static SEEN: Notes = Notes::new();
    #[task]
    async fn notify(of: String) {
        SEEN.add(format!("notified of {of}"));
    }
    async fn tell(run: &TaskRun, _: &State) -> Result<(), TaskError> {
        assert_eq!(RunContext::current().task_run_id(), Some(run.id));
        notify(run.name.clone()).await
    }
    fn tell_and_forget(run: &TaskRun, _: &State) {
        drop(notify(format!("{} without waiting", run.name)));
    }
    #[task(on_completion = [tell, tell_and_forget])]
    async fn work() {}
    #[flow]
    async fn all() -> Result<(), TaskError> {
        work().await?;
        SEEN.add("awaited");
        Ok(())
    }
    all().await.unwrap();
    assert_eq!(SEEN.take(), ["notified of work-0", "notified of work-0 without waiting", "awaited"]);
}

#[test]
fn crash_hooks_are_called_when_the_runtime_goes_away() {
    static SEEN: Notes = Notes::new();
    fn crashed(run: &TaskRun, state: &State) {
        SEEN.add(format!("{} {}", run.name, state.name));
    }
    async fn crashed_later(_: &TaskRun, state: &State) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        SEEN.add(format!("later {}", state.name));
    }
    #[task(on_crashed = [crashed, crashed_later], on_failure = crashed, on_cancellation = crashed)]
    async fn endless() {
        std::future::pending().await
    }
    let orchestrator = Orchestrator::in_memory();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = runtime.block_on(orchestrator.scope(async {
        let run = endless();
        while run.state().name != "Running" {
            tokio::task::yield_now().await;
        }
        run
    }));
    drop(runtime);
    assert_eq!(run.state().name, "Crashed");
    assert_eq!(SEEN.take(), ["endless-0 Crashed", "later Crashed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_hook_that_does_not_return_keeps_nobody_from_ending() {
    async fn hangs(_: &TaskRun, _: &State) {
        std::future::pending().await
    }
    #[task(on_completion = hangs)]
    async fn fine() -> u32 {
        1
    }
    #[task(on_cancellation = hangs)]
    async fn endless() {
        std::future::pending().await
    }
    let grace = Duration::from_secs(3);
    let builder = Orchestrator::builder().database_url("memory").cancel_grace(grace);
    let orchestrator = builder.build().await.unwrap();
    orchestrator
        .scope(async {
            let began = tokio::time::Instant::now();
            let cancelled = endless();
            while cancelled.state().name != "Running" {
                tokio::task::yield_now().await;
            }
            cancelled.cancel();
            (&cancelled).await.unwrap_err();
            assert_eq!(began.elapsed().as_secs(), grace.as_secs(), "it was given the time to clean up");
            let completed = fine();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(completed.state().name, "Completed");
            let began = tokio::time::Instant::now();
            Orchestrator::current().shutdown().await.unwrap();
            assert_eq!(began.elapsed().as_secs(), grace.as_secs());
            assert_eq!(completed.await.unwrap(), 1, "what it did is done");
        })
        .await;
}
