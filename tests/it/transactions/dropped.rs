//! Transactions whose futures are dropped, or that nobody polls, and bodies that are given up.

use super::*;

#[orchestrator::test(start_paused = true)]
async fn a_transaction_that_is_dropped_is_rolled_back_before_its_run_ends() {
    steps!();
    #[task]
    async fn endless() {
        std::future::pending().await
    }
    #[task(timeout_secs = 5)]
    async fn overruns() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            transaction(async {
                step("b").await?;
                endless().await
            })
            .await
        })
        .await
    }
    let run = overruns();
    assert!((&run).await.unwrap_err().is_timed_out());
    assert_eq!(DONE.take(), ["a", "b", "undo b second", "undo b first", "undo a second", "undo a first"]);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "TimedOut"]);

    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            endless().await
        })
        .await
    }
    let run = all();
    tokio::time::sleep(Duration::from_millis(10)).await;
    run.cancel();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(DONE.take(), ["a", "undo a second", "undo a first"]);

    #[flow]
    async fn gives_up() -> Result<(), TaskError> {
        let block = transaction(async {
            step("a").await?;
            endless().await
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), block).await.is_err());
        step("b").await?;
        Ok(())
    }
    gives_up().await.unwrap();
    let done = DONE.take();
    assert!(done.contains(&"undo a first".to_owned()) && !done.contains(&"undo b first".to_owned()), "{done:?}");
    assert!(done.contains(&"commit b second".to_owned()), "{done:?}");
}

#[orchestrator::test]
async fn a_panic_in_the_block_rolls_back() {
    steps!();
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            panic!("no luck");
        })
        .await
    }
    assert!(all().await.unwrap_err().is_panic());
    assert_eq!(DONE.take(), ["a", "undo a second", "undo a first"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_rollback_that_has_begun_is_carried_through() {
    static DONE: Notes = Notes::new();
    async fn undo(of: &u32) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        DONE.add(format!("undo {of}"));
    }
    #[task(on_rollback = undo)]
    async fn step(of: u32) -> u32 {
        of
    }
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            for of in 0..3 {
                step(of).await?;
            }
            Transaction::current().unwrap().rollback();
            Ok::<(), TaskError>(())
        })
        .await
    }
    let run = all();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(DONE.take(), ["undo 2"]);
    run.cancel();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(DONE.take(), ["undo 1", "undo 0"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_commit_by_hand_whose_future_is_dropped_fails_the_transaction_all_the_same() {
    static DONE: Notes = Notes::new();
    async fn commit(of: &u32) -> Result<(), String> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        DONE.add(format!("commit {of}"));
        if *of == 1 { Err("no commit".into()) } else { Ok(()) }
    }
    fn undo(of: &u32) {
        DONE.add(format!("undo {of}"));
    }
    #[task(on_commit = commit, on_rollback = undo)]
    async fn step(of: u32) -> u32 {
        of
    }
    let outcome = transaction(async {
        step(1).await?;
        let current = Transaction::current().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), current.commit()).await.is_err());
        step(2).await?;
        Ok::<(), TaskError>(())
    });
    assert_eq!(outcome.await.unwrap_err().to_string(), "a transaction was rolled back: its commit failed");
    assert_eq!(DONE.take(), ["commit 1", "undo 1", "undo 2"]);
    // One that is carried out beside the block is waited for.
    #[flow]
    async fn beside() -> Result<(), TaskError> {
        transaction(async {
            step(1).await?;
            let current = Transaction::current().unwrap();
            tokio::spawn(async move { current.commit().await }.in_current_run());
            tokio::task::yield_now().await;
            Ok::<(), TaskError>(())
        })
        .await
    }
    beside().await.unwrap_err();
    assert_eq!(DONE.take(), ["commit 1", "undo 1"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_transaction_that_nobody_polls_keeps_nobody_waiting() {
    let orchestrator = Orchestrator::in_memory();
    let program = orchestrator.scope(async {
        let mut open = std::pin::pin!(transaction(async { endless().await }));
        tokio::time::timeout(Duration::from_secs(1), open.as_mut()).await.unwrap_err();
        Orchestrator::current().shutdown().await.unwrap();
        assert!(open.await.unwrap_err().is_cancelled());
    });
    tokio::time::timeout(Duration::from_secs(60), program).await.expect("it ends");
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_body_that_was_given_up_commits_nothing() {
    static DONE: Notes = Notes::new();
    static GO_ON: std::sync::Barrier = std::sync::Barrier::new(2);
    fn commit(_: &u32) {
        DONE.add("commit");
    }
    fn undo(_: &u32) {
        DONE.add("undo");
    }
    #[task(on_commit = commit, on_rollback = undo)]
    async fn step() -> u32 {
        1
    }
    #[task(timeout_secs = 0.05)]
    fn late() {
        let outcome = futures::executor::block_on(transaction(async {
            step().await?;
            GO_ON.wait();
            Ok::<(), TaskError>(())
        }));
        DONE.add(outcome.unwrap_err().to_string());
        GO_ON.wait();
    }
    let run = late();
    // It is marked on time, while its body goes on.
    assert!((&run).await.unwrap_err().is_timed_out());
    GO_ON.wait();
    GO_ON.wait();
    assert_eq!(DONE.take(), ["undo", "a transaction was rolled back: the attempt that it is part of is over"]);
}

#[test]
fn a_transaction_that_is_dropped_where_there_is_no_runtime_is_rolled_back() {
    static DONE: Notes = Notes::new();
    fn undo(_: &u32) {
        DONE.add("undo");
    }
    #[task(on_rollback = undo)]
    async fn step() -> u32 {
        1
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let orchestrator = Orchestrator::in_memory();
    runtime.block_on(orchestrator.scope(async {
        let mut open = Box::pin(transaction(async {
            step().await?;
            endless().await
        }));
        for _ in 0..50 {
            assert!(futures::poll!(open.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        std::thread::spawn(move || drop(open)).join().unwrap();
        Orchestrator::current().shutdown().await.unwrap();
    }));
    assert_eq!(DONE.take(), ["undo"]);
}

/// Nothing else goes on, and the program that keeps the orchestrator may end at once.
#[test]
fn what_was_undone_before_the_runtime_ended_is_stored() {
    static BEGAN: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);
    async fn never_ends(_: &()) {
        BEGAN.add_permits(1);
        std::future::pending().await
    }
    fn undo(_: &()) {}
    #[task(on_rollback = never_ends)]
    async fn first() {}
    #[task(on_rollback = undo)]
    async fn second() {}
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let orchestrator = runtime.block_on(Orchestrator::builder().home(folder.path()).build()).unwrap();
    runtime.block_on(orchestrator.scope(async {
        tokio::spawn(
            transaction(async {
                first().await?;
                second().await?;
                Err::<(), anyhow::Error>(anyhow::anyhow!("no"))
            })
            .in_current_run(),
        );
        BEGAN.acquire().await.unwrap().forget();
    }));
    drop(runtime);
    let database = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    let select =
        "SELECT run.state FROM task_run AS run JOIN function ON function.no = run.function ORDER BY function.name";
    let mut statement = database.prepare(select).unwrap();
    let states: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(states, ["Completed", "RolledBack"]);
    drop(orchestrator);
}
