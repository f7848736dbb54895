//! Pauses that end otherwise than by being resumed: cancelled, dropped, with the attempt.

use super::*;

#[orchestrator::test(start_paused = true)]
async fn an_attempt_that_is_repeated_pauses_again() {
    #[flow(retries = 2)]
    async fn again() -> Result<u32, Error> {
        let context = RunContext::current();
        pause_flow_run().timeout(Duration::from_secs(1)).await?;
        Ok(context.attempt())
    }
    let run = again();
    let id = run.run_id();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    resume(id).await;
    assert_eq!(run.await.unwrap(), 2);
    let expected = ["Pending", "Running", "Paused", "Running", "Retrying", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
}

#[orchestrator::test(start_paused = true)]
async fn what_waits_for_the_end_of_a_pause_can_be_cancelled() {
    #[flow]
    async fn outer() -> Result<(), Error> {
        let pause = tokio::spawn(pause_flow_run());
        settle().await;
        let late = quick(1);
        settle().await;
        late.cancel();
        assert!((&late).await.unwrap_err().is_cancelled());
        assert_eq!(states(late.run_id()).await, ["Pending", "Cancelling", "Cancelled"]);
        pause.await.unwrap()
    }
    let run = outer();
    let id = run.run_id();
    while tasks(id).await != ["quick-0: Cancelled"] {
        tokio::task::yield_now().await;
    }
    resume(id).await;
    run.await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_that_is_dropped_is_over() {
    #[flow]
    async fn impatient() -> Result<(), Error> {
        tokio::select! {
            outcome = pause_flow_run() => outcome,
            () = tokio::time::sleep(Duration::from_secs(1)) => Ok(()),
        }?;
        let late = tokio::time::timeout(Duration::from_secs(1), pause_flow_run()).await;
        assert!(late.is_err());
        quick(1).await?;
        Ok(())
    }
    let run = impatient();
    let id = run.run_id();
    run.await.unwrap();
    let expected = ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
}

#[orchestrator::test(start_paused = true)]
async fn a_paused_flow_can_be_cancelled() {
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow]
    async fn by_its_task() -> Result<(), Error> {
        let late = asks_inside();
        settle().await;
        let waits = quick(1);
        late.await?;
        waits.await?;
        Ok(())
    }
    let orchestrator = Orchestrator::current();
    let (one, two) = (pauses_once(), by_its_task());
    for run in [one.run_id(), two.run_id()] {
        until_paused(run).await;
    }
    settle().await;
    orchestrator.cancel(one.run_id()).await.unwrap();
    orchestrator.shutdown().await.unwrap();
    for run in [one.run_id(), two.run_id()] {
        assert_eq!(states(run).await, CANCELLED);
    }
    assert!(one.await.unwrap_err().is_cancelled());
    assert_eq!(tasks(two.run_id()).await, ["asks_inside-0: Cancelled", "quick-0: Cancelled"]);
}

#[orchestrator::test(start_paused = true)]
async fn cancelling_the_task_that_paused_lets_the_flow_go_on() {
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow]
    async fn goes_on() -> Result<u32, Error> {
        let asking = asks_inside();
        settle().await;
        asking.cancel();
        Ok(quick(3).await?)
    }
    let run = goes_on();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 3);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn the_timeout_of_the_flow_counts_while_it_is_paused() {
    #[flow(timeout_secs = 5)]
    async fn limited() -> Result<(), Error> {
        pause_flow_run().await
    }
    let run = limited();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_timed_out());
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "TimedOut"]);
}

#[orchestrator::test(start_paused = true)]
async fn what_an_attempt_leaves_behind_pauses_nothing() {
    static LATE: Mutex<Vec<Error>> = Mutex::new(Vec::new());
    #[flow(retries = 1)]
    async fn forgetful() -> Result<(), String> {
        if RunContext::current().attempt() == 2 {
            return Ok(());
        }
        let left = async {
            for _ in 0..2 {
                let error = pause_flow_run().await.unwrap_err();
                LATE.lock().unwrap().push(error);
            }
        };
        tokio::spawn(left.in_current_run());
        settle().await;
        Err("the first attempt".to_owned())
    }
    let run = forgetful();
    let id = run.run_id();
    run.await.unwrap();
    settle().await;
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Retrying", "Completed"]);
    let late = LATE.lock().unwrap();
    assert!(late.iter().all(Error::is_not_paused));
    assert!(late[0].to_string().ends_with("is not paused any more: the attempt that paused it is over"), "{}", late[0]);
    assert!(late[1].to_string().contains("cannot be paused"), "{}", late[1]);
}

#[orchestrator::test(start_paused = true)]
async fn a_cancellation_by_what_a_timeout_drops_does_not_keep_the_flow_paused() {
    struct CancelsItsFlow(FlowRunId);
    impl Drop for CancelsItsFlow {
        fn drop(&mut self) {
            Orchestrator::current().cancel(self.0).now_or_never().unwrap().unwrap();
        }
    }
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow(timeout_secs = 5)]
    async fn limited() -> Result<(), TaskError> {
        let _cancels = CancelsItsFlow(RunContext::current().flow_run_id().unwrap());
        asks_inside().await
    }
    let run = limited();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Cancelling", "Cancelled"]);
}

#[test]
fn a_runtime_that_is_shut_down_ends_a_paused_flow_as_crashed() {
    let orchestrator = Orchestrator::in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let run = first.block_on(orchestrator.scope(async {
        let run = pauses_once();
        until_paused(run.run_id()).await;
        run
    }));
    drop(first);
    runtime().block_on(orchestrator.scope(async {
        let id = run.run_id();
        // The body is dropped first, and the pause with it.
        assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Crashed"]);
        let error = Orchestrator::current().resume_paused(id, ()).await.unwrap_err();
        assert!(error.is_not_paused() && error.to_string().ends_with("it has ended as Crashed"), "{error}");
        assert!(run.await.unwrap_err().is_crashed());
    }));
}

#[orchestrator::test(start_paused = true)]
async fn a_cancellation_that_comes_after_the_result_leaves_the_flow_completed() {
    #[flow]
    async fn cancels_itself() -> Result<u32, Error> {
        let pause = pause_flow_run();
        tokio::pin!(pause);
        assert!(pause.as_mut().now_or_never().is_none());
        let id = RunContext::current().flow_run_id().unwrap();
        Orchestrator::current().cancel(id).now_or_never().unwrap()?;
        Ok(1)
    }
    let run = cancels_itself();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn what_a_task_leaves_behind_pauses_nothing_while_it_waits_for_its_retry() {
    static LATE: Mutex<Vec<Error>> = Mutex::new(Vec::new());
    #[task(retries = 1, retry_delay_secs = 60)]
    async fn forgets() -> Result<(), String> {
        if RunContext::current().attempt() == 2 {
            return Ok(());
        }
        let left = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let error = pause_flow_run().await.unwrap_err();
            LATE.lock().unwrap().push(error);
        };
        tokio::spawn(left.in_current_run());
        Err("the first attempt".to_owned())
    }
    #[flow]
    async fn waits_for_it() -> Result<(), TaskError> {
        forgets().await
    }
    let run = waits_for_it();
    let id = run.run_id();
    run.await.unwrap();
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
    let said = LATE.lock().unwrap()[0].to_string();
    assert!(said.ends_with("attempt 1 of 'forgets-0', which asks for it, is over"), "{said}");
}
