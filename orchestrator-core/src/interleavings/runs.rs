//! The waiters of a run, its driver, and its launch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use futures::StreamExt;
use shuttle::future::{JoinHandle, block_on, spawn};

use super::{TASK, call, explore_runs, pass};
use crate::context::InCurrentRun;
use crate::error::TaskError;
use crate::future::{TaskFuture, as_completed, join_all};
use crate::state::StateType;

fn task() -> TaskFuture<u32> {
    call(&TASK, &[], || async {
        pass().await;
        Ok(1)
    })
}

fn waits_for_ever() -> TaskFuture<u32> {
    call(&TASK, &[], std::future::pending)
}

async fn all<T: 'static>(handles: impl IntoIterator<Item = JoinHandle<T>>) {
    for handle in handles {
        handle.await.expect("no thread of the test panics");
    }
}

#[test]
fn whoever_waits_is_told_of_the_end() {
    explore_runs(|_| async {
        let run = task();
        let waiters: Vec<_> = (0..3).map(|_| run.clone()).collect();
        all(waiters.into_iter().map(|run| {
            spawn(async move {
                assert_eq!(run.await.expect("it completes"), 1);
            })
        }))
        .await;
    });
}

#[test]
fn a_future_that_moves_to_another_thread_is_woken_there() {
    explore_runs(|_| async {
        let mut run = task();
        // One waker is left behind, the other has to be told.
        let ended = futures::poll!(&mut run).is_ready();
        if !ended {
            let there = spawn(async move {
                let before = futures::poll!(&mut run);
                match before {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => shuttle::thread::spawn(|| block_on(run)).join().expect("it does not panic"),
                }
            });
            assert_eq!(there.await.expect("it does not panic").expect("it completes"), 1);
        }
    });
}

#[test]
fn waiters_that_go_away_keep_nobody_waiting() {
    explore_runs(|_| async {
        let run = task();
        let gone = spawn(run.clone());
        let stays = spawn(run.clone());
        gone.abort();
        assert!(stays.await.expect("it was not aborted").is_ok());
        let _ = run.await;
    });
}

#[test]
fn runs_that_take_results_are_launched_once() {
    explore_runs(|_| async {
        let calls = Arc::new(AtomicU32::new(0));
        let (left, right) = (task(), task());
        let counted = Arc::clone(&calls);
        let after = call(&TASK, &[&left, &right], move || {
            let calls = Arc::clone(&counted);
            async move {
                calls.fetch_add(1, Ordering::Relaxed);
                Ok(2)
            }
        });
        assert_eq!(after.await.expect("it completes"), 2);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_chain_ends_beside_what_another_thread_launches() {
    fn after(upstream: Option<&TaskFuture<u32>>) -> TaskFuture<u32> {
        call(&TASK, upstream.as_slice(), || async { Ok(1) })
    }
    explore_runs(|_| async {
        let run = call(&TASK, &[], || async {
            let aside = spawn(async { after(Some(&after(None))).await }.in_current_run());
            let first = after(None);
            let second = after(Some(&first));
            assert!(after(Some(&second)).await.is_ok());
            assert!(aside.await.expect("it does not panic").is_ok());
            Ok(1)
        });
        assert_eq!(run.await.expect("it completes"), 1);
    });
}

#[test]
fn a_chain_of_bodies_that_wait_ends_beside_a_cancellation() {
    fn waits(upstream: &TaskFuture<u32>) -> TaskFuture<u32> {
        call(&TASK, &[upstream], || async {
            pass().await;
            Ok(1)
        })
    }
    explore_runs(|_| async {
        let run = call(&TASK, &[], || async {
            let first = call(&TASK, &[], || async {
                pass().await;
                Ok(1)
            });
            let second = waits(&first);
            let third = waits(&second);
            let cancelled = second.clone();
            let cancel = shuttle::thread::spawn(move || cancelled.cancel());
            let beside = waits(&first);
            let (second, third) = (second.await, third.await);
            assert!(second.as_ref().is_ok() || second.as_ref().is_err_and(TaskError::is_cancelled));
            assert_eq!(third.is_ok(), second.is_ok());
            assert!(beside.await.is_ok());
            cancel.join().expect("it does not panic");
            Ok(1)
        });
        assert_eq!(run.await.expect("it completes"), 1);
    });
}

#[test]
fn a_run_that_is_cancelled_while_it_is_launched_ends_once() {
    explore_runs(|orchestrator| async move {
        let calls = Arc::new(AtomicU32::new(0));
        let before = task();
        let counted = Arc::clone(&calls);
        let after = call(&TASK, &[&before], move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(2) }
        });
        let cancelled = after.clone();
        let cancel = shuttle::thread::spawn(move || cancelled.cancel());
        let outcome = after.clone().await;
        cancel.join().expect("it does not panic");
        assert!(outcome.as_ref().is_ok_and(|value| *value == 2) || outcome.is_err_and(|error| error.is_cancelled()));
        assert!(calls.load(Ordering::Relaxed) <= 1);
        before.await.expect("it completes");
        let states = orchestrator.states(after.run_id()).await.expect("it is in the history");
        assert_eq!(states.iter().filter(|state| state.is_terminal()).count(), 1, "{states:?}");
    });
}

#[test]
fn a_cancellation_reaches_a_body_that_waits() {
    explore_runs(|_| async {
        let run = waits_for_ever();
        let cancelled = run.clone();
        let cancel = shuttle::thread::spawn(move || cancelled.cancel());
        assert!(run.await.is_err_and(|error| error.is_cancelled()));
        cancel.join().expect("it does not panic");
    });
}

#[test]
fn a_cancellation_reaches_what_a_body_submits_meanwhile() {
    explore_runs(|_| async {
        let run = call(&TASK, &[], || async {
            let (first, second) = (waits_for_ever(), waits_for_ever());
            let _ = futures::join!(first, second);
            Ok(1)
        });
        let cancelled = run.clone();
        let cancel = shuttle::thread::spawn(move || cancelled.cancel());
        // A body that is told of its children's end first gives its result.
        let outcome = run.await;
        assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_cancelled()));
        cancel.join().expect("it does not panic");
    });
}

#[test]
fn the_end_of_the_last_child_reaches_its_parent() {
    explore_runs(|_| async {
        let run = call(&TASK, &[], || async {
            drop((task(), task()));
            Ok(1)
        });
        assert_eq!(run.await.expect("it completes"), 1);
    });
}

#[test]
fn a_parent_ends_after_all_that_was_submitted_under_it() {
    explore_runs(|_| async {
        let given_away = Arc::new(std::sync::Mutex::new(None));
        let slot = Arc::clone(&given_away);
        let run = call(&TASK, &[], move || {
            let slot = Arc::clone(&slot);
            async move {
                let aside = spawn(async { (task(),) }.in_current_run());
                *slot.lock().expect("nobody panics with it") = Some(aside);
                Ok(1)
            }
        });
        run.clone().await.expect("it completes");
        let aside = given_away.lock().expect("nobody panics with it").take().expect("the body was called");
        // Either it was refused, or the parent has waited.
        let ended_before = run.state();
        let (child,) = aside.await.expect("it does not panic");
        let state = child.state();
        assert!(state.is_terminal(), "{ended_before:?} came before the end of {state:?}");
        let refused = child.await.is_err();
        assert_eq!(refused, state.kind != StateType::Completed);
    });
}

#[test]
fn what_is_submitted_while_its_parent_ends_and_is_cancelled_counts_once() {
    explore_runs(|_| async {
        let given_away = Arc::new(std::sync::Mutex::new(None));
        let slot = Arc::clone(&given_away);
        let run = call(&TASK, &[], move || {
            let slot = Arc::clone(&slot);
            async move {
                let aside = spawn(async { (waits_for_ever(),) }.in_current_run());
                *slot.lock().expect("nobody panics with it") = Some(aside);
                Ok(1)
            }
        });
        let cancelled = run.clone();
        let cancel = shuttle::thread::spawn(move || cancelled.cancel());
        // It ends, and the orchestrator is shut down afterwards: a count that is wrong would keep one of them waiting.
        let _ = run.await;
        cancel.join().expect("it does not panic");
        let aside = given_away.lock().expect("nobody panics with it").take();
        if let Some(aside) = aside {
            let (child,) = aside.await.expect("it does not panic");
            child.cancel();
            assert!(child.await.is_err());
        }
    });
}

#[test]
fn joins_and_streams_miss_no_end() {
    explore_runs(|_| async {
        let runs = [task(), task(), task()];
        let joined = spawn(join_all(runs.clone()));
        let streamed: Vec<Result<u32, TaskError>> = as_completed(runs).collect().await;
        assert_eq!(streamed.len(), 3);
        assert_eq!(joined.await.expect("it does not panic").expect("all complete"), [1, 1, 1]);
    });
}

#[test]
fn a_join_is_told_of_the_first_failure() {
    explore_runs(|_| async {
        let stuck = waits_for_ever();
        let fails = call(&TASK, &[], || async {
            pass().await;
            Err("no")
        });
        assert!(join_all([stuck.clone(), fails]).await.is_err());
        stuck.cancel();
        let _ = stuck.await;
    });
}
