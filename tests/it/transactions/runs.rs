//! Which runs are part of a transaction, and which of them decide.

use super::*;

#[orchestrator::test]
async fn runs_that_nobody_awaited_are_part_of_the_transaction() {
    steps!();
    transaction(async {
        drop(step("a"));
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap();
    assert_eq!(DONE.take(), ["a", "commit a first", "commit a second"]);
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            drop(step("bad b"));
            Ok::<(), TaskError>(())
        })
        .await
    }
    let error = all().await.unwrap_err();
    assert!(error.to_string().ends_with("task run 'step-1' failed: bad b is bad"), "{error}");
    assert_eq!(DONE.take(), ["a", "bad b", "undo a second", "undo a first"]);
    // A failure that the block has dealt with is none of the transaction's.
    transaction(async {
        assert!(step("bad a").await.is_err());
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap();
    DONE.take();
}

#[orchestrator::test(start_paused = true)]
async fn what_is_detached_or_tolerated_inside_does_not_decide() {
    steps!();
    #[task]
    async fn later() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    #[task(on_rollback = undo_second, on_commit = commit_first)]
    async fn slow_step(of: String) -> String {
        later().await.unwrap();
        of
    }
    let mut detached = None;
    let outcome = transaction(async {
        step("a").await?;
        detached = Some(slow_step("aside").detach());
        drop(step("bad b").tolerate());
        Transaction::current().unwrap().rollback();
        Ok::<(), TaskError>(())
    });
    assert!(outcome.await.unwrap_err().to_string().contains("by hand"));
    let done = DONE.take();
    assert!(done.contains(&"undo a first".to_owned()) && !done.contains(&"undo aside second".to_owned()), "{done:?}");
    // What was detached goes on, and commits by itself.
    assert_eq!(detached.unwrap().await.unwrap(), "aside");
    assert_eq!(DONE.take(), ["commit aside first"]);
    transaction(async {
        drop(step("bad c").tolerate());
        step("d").await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap();
    assert!(DONE.take().contains(&"commit d second".to_owned()));
}

#[orchestrator::test]
async fn tasks_and_flows_inside_a_task_or_flow_take_part() {
    steps!();
    #[task(on_rollback = undo_second)]
    async fn outer() -> Result<String, TaskError> {
        step("inner").await
    }
    #[flow]
    async fn sub() -> Result<(), TaskError> {
        step("sub").await?;
        Ok(())
    }
    let error = transaction(async {
        outer().await?;
        sub().await.map_err(TaskError::from)?;
        step("bad").await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(error.task_name(), "step");
    assert_eq!(
        DONE.take(),
        [
            "inner",
            "sub",
            "bad",
            "undo sub second",
            "undo sub first",
            "undo inner second",
            "undo inner second",
            "undo inner first"
        ]
    );
}

#[orchestrator::test]
async fn an_attempt_that_is_repeated_may_mend_what_it_rolled_back() {
    steps!();
    #[task(retries = 1)]
    async fn second_time(fails_always: bool) -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            if fails_always || RunContext::current().attempt() == 1 {
                step("bad").await?;
            }
            Ok::<(), TaskError>(())
        })
        .await
    }
    transaction(async { second_time(false).await }).await.unwrap();
    assert_eq!(DONE.take(), ["a", "bad", "undo a second", "undo a first", "a", "commit a first", "commit a second"]);
    let outcome = transaction(async {
        step("b").await?;
        let _ = second_time(true).await;
        Ok::<(), TaskError>(())
    });
    outcome.await.unwrap_err();
    assert!(DONE.take().contains(&"undo b first".to_owned()));
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_at_once_are_all_undone() {
    static DONE: Calls = Calls::new();
    static UNDONE: Calls = Calls::new();
    fn undo(_: &u32) {
        UNDONE.one();
    }
    #[task(on_rollback = undo)]
    async fn step(of: u32) -> u32 {
        tokio::task::yield_now().await;
        DONE.one();
        of
    }
    #[task]
    async fn broken(_after: u32) -> Result<(), String> {
        Err("no".into())
    }
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            let steps = step::map(0..500_u32);
            let last = steps.children().unwrap()[499].clone();
            broken(last).await?;
            steps.await?;
            Ok::<(), TaskError>(())
        })
        .await
    }
    let run = all();
    let id = run.run_id();
    run.await.unwrap_err();
    assert_eq!(DONE.get(), UNDONE.get());
    let runs = Orchestrator::current().task_runs(id).await.unwrap();
    let left = runs.iter().filter(|run| run.state.name == "Completed").count();
    assert_eq!((runs.len(), left), (501, 0));
}

#[orchestrator::test(start_paused = true)]
async fn a_failure_that_nobody_is_told_of_fails_the_flow() {
    #[flow]
    async fn another_error() {
        let block = async {
            drop(bad());
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err::<(), _>("another".to_owned())
        };
        assert_eq!(transaction(block).await.unwrap_err(), "another");
    }
    assert_eq!(another_error().await.unwrap_err().first_cause().task_name(), "bad");
    #[flow]
    async fn dropped() {
        let block = transaction(async {
            drop(bad());
            endless().await
        });
        tokio::time::timeout(Duration::from_secs(1), block).await.unwrap_err();
    }
    assert_eq!(dropped().await.unwrap_err().first_cause().task_name(), "bad");
}

#[orchestrator::test(start_paused = true)]
async fn what_is_beneath_a_detached_run_is_outside_as_well() {
    fn refuses(_: &u32) -> Result<(), String> {
        Err("no commit".into())
    }
    #[task]
    async fn outer() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        endless().await.unwrap();
    }
    #[task(on_commit = refuses)]
    async fn alone() -> u32 {
        1
    }
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            drop(outer().detach());
            let running = outer();
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(running.detach());
            alone().detach().wait().await;
            Ok::<(), TaskError>(())
        })
        .await
    }
    tokio::time::timeout(Duration::from_secs(60), all()).await.expect("it ends").unwrap();
}
