//! What a pause means for the runs of the flow, for subflows and for several pauses at once.

use super::*;

#[orchestrator::test(start_paused = true)]
async fn what_has_started_goes_on_and_nothing_else_starts() {
    #[task]
    async fn long() -> Vec<u32> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        vec![1, 2]
    }
    #[task]
    async fn parent() -> Result<u32, TaskError> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        quick(1).await
    }
    #[task(retries = 1)]
    async fn fails_once() -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if RunContext::current().attempt() == 1 { Err("no".into()) } else { Ok(()) }
    }
    #[task(cache_ttl = "1h")]
    async fn known(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn inner() -> u32 {
        7
    }
    #[flow]
    async fn outer() -> Result<(), Error> {
        known(1).await?;
        let (list, nested, retried) = (long(), parent(), fails_once());
        settle().await;
        let pause = tokio::spawn(pause_flow_run());
        settle().await;
        let (late, cached, computed, sub) = (quick(2), known(1), known(2), inner());
        let mapped = quick::map(&list);
        assert_eq!(cached.await?, 1);
        pause.await.unwrap()?;
        assert_eq!((late.await?, computed.await?, sub.await?, nested.await?), (2, 2, 7, 1));
        assert_eq!(mapped.await?, [1, 2]);
        retried.await?;
        Ok(())
    }
    let run = outer();
    let id = run.run_id();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let meanwhile = [
        "known-0: Completed",
        "long-0: Completed",
        "parent-0: Running",
        "fails_once-0: Completed",
        "quick-0: Pending",
        "known-1: Cached",
        "known-2: Pending",
        "quick-1: Pending",
        "quick-2: Pending",
        "quick-3: Pending",
    ];
    assert_eq!(tasks(id).await, meanwhile);
    let query = FlowRunQuery::new().flow("inner");
    assert_eq!(Orchestrator::current().flow_runs(&query).await.unwrap()[0].state.name, "Pending");
    resume(id).await;
    run.await.unwrap();
    assert_eq!(states(id).await, RESUMED);
    assert!(tasks(id).await.iter().all(|task| task.ends_with("Completed") || task.ends_with("Cached")));
}

#[orchestrator::test(start_paused = true)]
async fn a_run_that_waits_for_a_slot_does_not_start_in_a_pause_and_lets_others_go_first() {
    #[task(concurrency = "one")]
    async fn holds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    #[flow]
    async fn paused() -> Result<(), Error> {
        let run = holds(1);
        settle().await;
        pause_flow_run().await?;
        run.await?;
        Ok(())
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let first = holds(5);
    settle().await;
    let run = paused();
    let id = run.run_id();
    until_paused(id).await;
    assert_eq!(tasks(id).await, ["holds-0: AwaitingConcurrencySlot"]);
    first.await.unwrap();
    settle().await;
    assert_eq!(tasks(id).await, ["holds-0: AwaitingConcurrencySlot"]);
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0, "others can have it");
    holds(1).await.unwrap();
    resume(id).await;
    run.await.unwrap();
    let task = orchestrator.task_runs(id).await.unwrap()[0].id;
    assert_eq!(states(task).await, ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn several_pauses_are_resumed_oldest_first_and_all_of_them_have_to_be_over() {
    static ORDER: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    async fn one(n: u32, seconds: u64) -> Result<(), Error> {
        let timeout = Duration::from_secs(seconds);
        let outcome = pause_flow_run().message(format!("number {n}")).timeout(timeout).await;
        ORDER.lock().unwrap().push(n);
        outcome
    }
    #[flow]
    async fn three() -> Result<(), Error> {
        let (first, second, third) = tokio::join!(one(1, 100), one(2, 50), one(3, 100));
        assert!(second.unwrap_err().is_timed_out());
        first.and(third)
    }
    let run = three();
    let id = run.run_id();
    let asked = |run: FlowRun| run.pause.and_then(|pause| pause.message).unwrap_or_default();
    assert_eq!(asked(until_paused(id).await), "number 1");
    resume(id).await;
    assert_eq!(asked(until_paused(id).await), "number 2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(until_paused(id).await), "number 3");
    assert_eq!(states(id).await, RESUMED[..3]);
    resume(id).await;
    run.await.unwrap();
    assert_eq!(states(id).await, RESUMED);
    assert_eq!(*ORDER.lock().unwrap(), [1, 2, 3]);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_in_a_subflow_is_its_own() {
    #[flow]
    async fn outer() -> Result<u32, Error> {
        let inner = pauses_once();
        settle().await;
        assert_eq!(inner.state().name, "Paused");
        assert_eq!(quick(1).await?, 1, "the caller is not paused");
        resume(inner.run_id()).await;
        Ok(inner.await?)
    }
    let run = outer();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_task_pauses_the_flow_that_it_belongs_to_and_its_timeout_counts() {
    #[task(timeout_secs = 10, retries = 1)]
    async fn asks_twice() -> Result<u32, TaskError> {
        pause_flow_run().await?;
        Ok(RunContext::current().attempt())
    }
    #[flow]
    async fn outer() -> Result<u32, TaskError> {
        asks_twice().await
    }
    let run = outer();
    let id = run.run_id();
    until_paused(id).await;
    assert_eq!(tasks(id).await, ["asks_twice-0: Running"]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    resume(id).await;
    assert_eq!(run.await.unwrap(), 2);
    let expected = ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
    let history = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(history[3].message.as_deref(), Some("the pause was dropped"));
}
