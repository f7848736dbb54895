//! Hooks, values and the cache at a commit and at a rollback.

use super::*;

#[orchestrator::test]
async fn a_failing_hook_on_rollback_stops_nothing_and_is_told() {
    static DONE: Notes = Notes::new();
    fn undo(of: &u32) -> Result<(), String> {
        DONE.add(format!("undo {of}"));
        if of % 2 == 1 { Err(format!("{of} is stuck")) } else { Ok(()) }
    }
    async fn panics(of: &u32) {
        DONE.add(format!("panic {of}"));
        assert!(*of > 9, "out of luck");
    }
    #[task(on_rollback = [undo, panics])]
    async fn step(of: u32) -> u32 {
        of
    }
    #[task]
    async fn broken() -> Result<(), String> {
        Err("no".into())
    }
    let error = transaction(async {
        step(1).await?;
        step(2).await?;
        step(3).await?;
        broken().await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(DONE.take(), ["panic 3", "undo 3", "panic 2", "undo 2", "panic 1", "undo 1"]);
    let text = error.to_string();
    assert!(
        text.starts_with("task run 'broken-0' failed: no; the rollback of its transaction is incomplete: "),
        "{text}"
    );
    for part in ["the hook 'undo' of 'step-2' failed: 3 is stuck", "'step-0' failed: 1 is stuck", "out of luck"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(error.task_name(), "broken");
    let rollback: &orchestrator::TransactionError = error.downcast_ref().unwrap();
    assert_eq!(rollback.rollback_errors().count(), 5);
    let anyhow = transaction(async {
        step(1).await?;
        anyhow::bail!("block") as anyhow::Result<()>
    })
    .await
    .unwrap_err();
    let error: &orchestrator::TransactionError = anyhow.downcast_ref().unwrap();
    assert_eq!(error.rollback_errors().count(), 2);
    assert!(error.to_string().starts_with("block; its rollback is incomplete: the hook 'panics' of "), "{error}");
}

#[orchestrator::test]
async fn a_failing_hook_on_commit_rolls_back() {
    static DONE: Notes = Notes::new();
    fn commit(of: &u32) -> Result<(), String> {
        DONE.add(format!("commit {of}"));
        if *of == 2 { Err("cannot".into()) } else { Ok(()) }
    }
    fn undo(of: &u32) {
        DONE.add(format!("undo {of}"));
    }
    #[task(on_commit = commit, on_rollback = undo)]
    async fn step(of: u32) -> u32 {
        of
    }
    let error = transaction(async {
        step(1).await?;
        step(2).await?;
        step(3).await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a transaction was rolled back while it was committed: the hook 'commit' of 'step-1' failed: cannot"
    );
    assert_eq!(DONE.take(), ["commit 1", "commit 2", "undo 3", "undo 2", "undo 1"]);
    // A run that is part of no transaction is one by itself.
    let run = step(2);
    let error = (&run).await.unwrap_err();
    assert_eq!(DONE.take(), ["commit 2", "undo 2"]);
    assert!(error.to_string().starts_with("task run 'step-3' failed: transaction 'step-3' was rolled back"), "{error}");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed", "RolledBack"]);
    assert_eq!(step(1).await.unwrap(), 1);
    assert_eq!(DONE.take(), ["commit 1"]);
}

#[orchestrator::test]
async fn values_are_seen_inside_and_not_outside() {
    #[task]
    async fn look() -> Option<u32> {
        Transaction::current().unwrap().get("depth")
    }
    static SEEN: Notes = Notes::new();
    fn undo(_: &u32) {
        SEEN.add(format!("{:?}", Transaction::current().unwrap().get::<String>("who")));
    }
    #[task(on_rollback = undo)]
    async fn step() -> u32 {
        1
    }
    assert!(Transaction::current().is_none());
    transaction(async {
        let outer = Transaction::current().unwrap();
        outer.set("depth", 1_u32);
        outer.set("who", "outer".to_owned());
        transaction(async {
            let inner = Transaction::current().unwrap();
            assert_eq!(inner.get::<u32>("depth"), Some(1));
            inner.set("depth", 2_u32);
            inner.set("new", 9_i64);
            assert_eq!(look().await?, Some(2));
            Ok::<(), TaskError>(())
        })
        .await?;
        assert_eq!(look().await?, Some(1));
        assert_eq!(outer.get::<u32>("depth"), Some(1));
        assert_eq!(outer.get::<String>("depth"), None);
        assert_eq!(outer.get::<i64>("new"), None);
        step().await?;
        outer.rollback();
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(SEEN.take(), ["Some(\"outer\")"]);
    assert!(Transaction::current().is_none());
}

#[orchestrator::test]
async fn results_go_into_the_cache_at_the_commit_and_never_on_rollback() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn slow(of: u32) -> u32 {
        CALLS.one();
        of
    }
    transaction(async {
        slow(1).await?;
        // Inside, the staged result is an answer.
        let again = slow(1);
        (&again).await?;
        assert_eq!(states(again.run_id()).await, ["Pending", "Cached"]);
        Err::<(), TaskError>(slow::configure().run_name("x").concurrency("none-such").submit(2).await.unwrap_err())
    })
    .await
    .unwrap_err();
    assert_eq!(CALLS.get(), 1);
    assert_eq!(
        states({
            let run = slow(1);
            (&run).await.unwrap();
            run.run_id()
        })
        .await,
        ["Pending", "Running", "Completed"]
    );
    assert_eq!(CALLS.get(), 2);
    transaction(async { slow(3).await }).await.unwrap();
    let hit = slow(3);
    (&hit).await.unwrap();
    assert_eq!(states(hit.run_id()).await, ["Pending", "Cached"]);
}

#[orchestrator::test]
async fn a_destructor_that_panics_loses_no_rollback() {
    static DONE: Notes = Notes::new();
    struct Value(u32);
    impl Drop for Value {
        fn drop(&mut self) {
            assert!(self.0 != 2 || std::thread::panicking(), "no way out");
        }
    }
    fn undo(of: &Arc<Value>) {
        DONE.add(format!("undo {}", of.0));
    }
    #[task(on_rollback = undo)]
    async fn step(of: u32) -> Arc<Value> {
        Arc::new(Value(of))
    }
    let outcome = transaction(async {
        for of in 1..4 {
            step(of).wait().await;
        }
        bad().await
    });
    assert_eq!(outcome.await.unwrap_err().task_name(), "bad");
    assert_eq!(DONE.take(), ["undo 3", "undo 2", "undo 1"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_staged_result_expires_from_its_completion() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1s")]
    async fn step() {
        CALLS.one();
    }
    transaction(async {
        step().await?;
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    step().await.unwrap();
    assert_eq!(CALLS.get(), 2);
}

#[orchestrator::test]
async fn values_that_refer_to_the_transaction_are_let_go_of() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    transaction(async {
        let current = Transaction::current().unwrap();
        current.set("itself", current.clone());
        current.set("future", bad().tolerate());
        current.set("alive", held);
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}
