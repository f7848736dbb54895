//! Transactions: what is committed, what is undone, in which order, and what the caller is told.

use std::sync::Arc;
use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{CommitMode, Transaction};

use crate::door::{Calls, Notes, last_message, states, tasks};

/// A task `step` whose hooks put down what they do in `DONE`.
macro_rules! steps {
    () => {
        static DONE: Notes = Notes::new();
        fn commit_first(of: &String) {
            DONE.add(format!("commit {of} first"));
        }
        async fn commit_second(of: &String) {
            tokio::task::yield_now().await;
            DONE.add(format!("commit {of} second"));
        }
        async fn undo_first(of: &String) {
            tokio::task::yield_now().await;
            DONE.add(format!("undo {of} first"));
        }
        fn undo_second(of: &String) {
            DONE.add(format!("undo {of} second"));
        }
        #[task(on_commit = [commit_first, commit_second], on_rollback = [undo_first, undo_second])]
        async fn step(of: String) -> Result<String, String> {
            DONE.add(of.clone());
            if of.starts_with("bad") { Err(format!("{of} is bad")) } else { Ok(of) }
        }
    };
}

#[orchestrator::test]
async fn a_lazy_transaction_commits_at_its_end() {
    steps!();
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            step("b").await?;
            DONE.add("end of block");
            Ok::<(), TaskError>(())
        })
        .await?;
        DONE.add("after");
        Ok(())
    }
    let run = all();
    let id = run.run_id();
    run.await.unwrap();
    let expected = ["a", "b", "end of block", "commit a first", "commit a second", "commit b first", "commit b second"];
    assert_eq!(DONE.take(), [&expected[..], &["after"]].concat());
    assert_eq!(tasks(id).await, ["step-0: Completed", "step-1: Completed"]);
}

#[orchestrator::test]
async fn a_failure_undoes_what_completed_in_reverse_order() {
    steps!();
    #[flow]
    async fn all() -> Result<(), TaskError> {
        transaction(async {
            step("a").await?;
            step("b").await?;
            step("bad c").await?;
            step("d").await?;
            Ok::<(), TaskError>(())
        })
        .await
    }
    let run = all();
    let id = run.run_id();
    let error = run.await.unwrap_err();
    assert!(error.to_string().ends_with("task run 'step-2' failed: bad c is bad"), "{error}");
    assert_eq!(DONE.take(), ["a", "b", "bad c", "undo b second", "undo b first", "undo a second", "undo a first"]);
    assert_eq!(tasks(id).await, ["step-0: RolledBack", "step-1: RolledBack", "step-2: Failed"]);
    let runs = Orchestrator::current().task_runs(id).await.unwrap();
    assert_eq!(states(runs[0].id).await, ["Pending", "Running", "Completed", "RolledBack"]);
    assert_eq!(runs[0].state.kind, StateType::Completed);
    assert_eq!(last_message(runs[0].id).await, "with its transaction");
    assert_eq!(states(runs[2].id).await, ["Pending", "Running", "Failed"]);
}

#[orchestrator::test]
async fn transactions_need_no_flow_and_keep_the_blocks_own_error() {
    steps!();
    #[derive(Debug)]
    enum Mine {
        Odd(u32),
        Other(#[expect(dead_code)] String),
    }
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    impl From<orchestrator::TransactionError> for Mine {
        fn from(error: orchestrator::TransactionError) -> Self {
            Self::Other(error.to_string())
        }
    }
    let run = step("a");
    let outcome = transaction(async {
        step("b").await.unwrap();
        Err::<(), _>(Mine::Odd(3))
    });
    assert!(matches!(outcome.await, Err(Mine::Odd(3))));
    assert_eq!(run.await.unwrap(), "a");
    let done = DONE.take();
    assert!(done.contains(&"commit a first".to_owned()) && done.contains(&"undo b first".to_owned()), "{done:?}");
    assert!(!done.contains(&"commit b first".to_owned()));
    let text = transaction(async { Err::<(), String>("text".into()) }).await.unwrap_err();
    assert_eq!(text, "text");
    let anyhow = transaction(async { anyhow::bail!("anyhow") as anyhow::Result<()> }).await.unwrap_err();
    assert_eq!(anyhow.to_string(), "anyhow");
}

#[orchestrator::test]
async fn a_lazy_child_commits_with_its_parent_and_is_undone_with_it() {
    steps!();
    let outer = |fails: bool| async move {
        transaction(async {
            step("a").await?;
            transaction(async {
                step("b").await?;
                Ok::<(), TaskError>(())
            })
            .await?;
            step(if fails { "bad c" } else { "c" }).await?;
            Ok::<(), TaskError>(())
        })
        .await
    };
    outer(false).await.unwrap();
    assert_eq!(
        DONE.take(),
        [
            "a",
            "b",
            "c",
            "commit a first",
            "commit a second",
            "commit b first",
            "commit b second",
            "commit c first",
            "commit c second"
        ]
    );
    outer(true).await.unwrap_err();
    assert_eq!(DONE.take(), ["a", "b", "bad c", "undo b second", "undo b first", "undo a second", "undo a first"]);
}

#[orchestrator::test]
async fn the_rollback_of_a_child_takes_its_parents_with_it() {
    steps!();
    let error = transaction(async {
        step("a").await?;
        let inner = transaction(async {
            step("b").await?;
            step("bad c").await?;
            Ok::<(), TaskError>(())
        });
        assert!(inner.await.is_err());
        DONE.add("caught");
        step("d").await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a transaction was rolled back: a transaction inside it was rolled back: task run 'step-2' failed: bad c is bad"
    );
    assert_eq!(
        DONE.take(),
        [
            "a",
            "b",
            "bad c",
            "undo b second",
            "undo b first",
            "caught",
            "d",
            "undo d second",
            "undo d first",
            "undo a second",
            "undo a first"
        ]
    );
}

#[orchestrator::test]
async fn an_eager_child_stays() {
    steps!();
    transaction(async {
        step("a").await?;
        let inner = async {
            step("b").await?;
            Ok::<(), TaskError>(())
        };
        Transaction::builder().mode(CommitMode::Eager).run(inner).await?;
        DONE.add("committed");
        step("bad c").await?;
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(
        DONE.take(),
        ["a", "b", "commit b first", "commit b second", "committed", "bad c", "undo a second", "undo a first"]
    );
}

#[orchestrator::test]
async fn with_the_mode_off_only_what_is_committed_by_hand_stays() {
    steps!();
    let block = async {
        step("a").await?;
        let current = Transaction::current().unwrap();
        assert_eq!(current.staged(), 1);
        current.commit().await?;
        step("b").await?;
        Ok::<u32, TaskError>(7)
    };
    assert_eq!(Transaction::builder().mode(CommitMode::Off).run(block).await.unwrap(), 7);
    assert_eq!(DONE.take(), ["a", "commit a first", "commit a second", "b", "undo b second", "undo b first"]);
}

#[orchestrator::test]
async fn a_commit_by_hand_that_fails_fails_the_transaction_even_if_its_error_is_ignored() {
    static DONE: Notes = Notes::new();
    fn commit(of: &u32) -> Result<(), String> {
        Err(format!("{of} cannot"))
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
        let error = Transaction::current().unwrap().commit().await.unwrap_err();
        assert!(error.to_string().ends_with("the hook 'commit' of 'step-0' failed: 1 cannot"), "{error}");
        assert_eq!(DONE.take(), ["undo 1"]);
        Ok::<(), TaskError>(())
    })
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "a transaction was rolled back: its commit failed");
}

#[orchestrator::test]
async fn a_rollback_by_hand_is_an_error() {
    steps!();
    let block = async {
        step("a").await?;
        Transaction::current().unwrap().rollback();
        Ok::<(), TaskError>(())
    };
    let error = Transaction::builder().name("order").run(block).await.unwrap_err();
    assert_eq!(error.to_string(), "transaction 'order' was rolled back: it was rolled back by hand");
    assert_eq!(DONE.take(), ["a", "undo a second", "undo a first"]);
}

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

#[task]
async fn endless() {
    std::future::pending().await
}

#[task]
async fn bad() -> Result<(), String> {
    Err("bad".into())
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
