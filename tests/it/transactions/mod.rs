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

mod dropped;
mod hooks;
mod runs;

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

#[task]
async fn endless() {
    std::future::pending().await
}

#[task]
async fn bad() -> Result<(), String> {
    Err("bad".into())
}
