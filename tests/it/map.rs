//! `map`: one run per element, over collections, futures and maps.

use futures::StreamExt;
use orchestrator::prelude::*;

use crate::door::{Calls, tasks};

#[task]
async fn double(n: u32) -> u32 {
    n * 2
}

#[task]
async fn add(a: u32, b: u32) -> u32 {
    a + b
}

#[task]
async fn range(n: u32) -> Vec<u32> {
    (0..n).collect()
}

#[task]
async fn odd_fails(n: u32) -> Result<u32, String> {
    if n % 2 == 1 { Err(format!("{n} is odd")) } else { Ok(n) }
}

#[orchestrator::test]
async fn over_collections_and_broadcast_values() {
    assert_eq!(add::map(vec![1, 2, 3], unmapped(10)).await.unwrap(), [11, 12, 13]);
    assert_eq!(add::map([1, 2], (5..7).map(|n| n * 2)).await.unwrap(), [11, 14]);
    assert_eq!(add::map(vec![double(1), double(2)], unmapped(double(5))).await.unwrap(), [12, 14]);
}

#[orchestrator::test]
async fn over_futures_of_collections() {
    let source = range(3);
    assert_eq!(double::map(&source).await.unwrap(), [0, 2, 4]);
    assert_eq!(double::map(double::map(range(3))).await.unwrap(), [0, 4, 8]);
    assert_eq!(add::map(range(2), vec![5, 6]).await.unwrap(), [5, 7]);
    assert_eq!(add::map(double::map(range(2)), unmapped(1)).await.unwrap(), [1, 3]);
}

#[orchestrator::test]
async fn children_of_a_late_map_are_edges() {
    #[task]
    async fn total(all: &[u32]) -> u32 {
        all.iter().sum()
    }
    #[flow]
    async fn pipeline() -> Result<u32, TaskError> {
        total(double::map(range(3))).await
    }
    let run = pipeline();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 6);
    let runs = Orchestrator::current().task_runs(id).await.unwrap();
    let upstream = |name: &str| runs.iter().find(|run| run.name == name).unwrap().upstream.clone();
    let of = |name: &str| orchestrator::RunId::from(runs.iter().find(|run| run.name == name).unwrap().id);
    assert_eq!(upstream("double-1"), [of("range-0")]);
    assert_eq!(upstream("total-0"), [of("double-0"), of("double-1"), of("double-2")]);
}

#[orchestrator::test]
async fn of_nothing_is_nothing() {
    assert_eq!(double::map(Vec::<u32>::new()).await.unwrap(), Vec::<u32>::new());
    assert_eq!(double::map(range(0)).await.unwrap(), Vec::<u32>::new());
    assert_eq!(double::map(Vec::<u32>::new()).as_completed().count().await, 0);
    assert!(double::map(0..0).settled().await.is_empty());
}

#[orchestrator::test]
async fn different_lengths_submit_nothing() {
    static CALLS: Calls = Calls::new();
    #[task]
    async fn counted(a: u32, b: u32) -> u32 {
        CALLS.one();
        a + b
    }
    #[flow]
    async fn pipeline() -> Result<Vec<u32>, TaskError> {
        counted::map(vec![1, 2, 3], vec![1, 2]).await
    }
    let run = pipeline();
    let id = run.run_id();
    let error = run.await.unwrap_err().to_string();
    assert!(
        error.contains("cannot map 'counted' over collections of different lengths: `a` has 3 elements, `b` has 2"),
        "{error}"
    );
    assert_eq!(CALLS.get(), 0);
    assert_eq!(tasks(id).await, Vec::<String>::new());
    let late = counted::map(range(3), vec![1, 2]).await.unwrap_err().to_string();
    assert!(late.contains("`a` has 3 elements, `b` has 2"), "{late}");
}

#[orchestrator::test]
async fn a_mismatch_that_nobody_awaits_fails_the_flow() {
    #[flow]
    async fn careless() {
        let _forgotten = add::map(vec![1, 2, 3], vec![1, 2]);
    }
    let error = careless().await.unwrap_err().to_string();
    assert!(error.contains("different lengths"), "{error}");
}

#[orchestrator::test]
async fn everything_unmapped_is_an_error() {
    let error = add::map(unmapped(1), unmapped(2)).await.unwrap_err().to_string();
    assert!(error.contains("there is nothing to map over"), "{error}");
}

#[orchestrator::test]
async fn over_a_failed_future_nothing_runs() {
    #[task]
    async fn no_list() -> Result<Vec<u32>, String> {
        Err("no list".into())
    }
    #[flow]
    async fn pipeline() -> Result<Vec<u32>, TaskError> {
        double::map(no_list()).await
    }
    let run = pipeline();
    let id = run.run_id();
    let error = run.await.unwrap_err();
    assert_eq!(error.first_cause().task_name(), "no_list");
    assert_eq!(tasks(id).await, ["no_list-0: Failed"]);
}

#[orchestrator::test]
async fn first_failure_fails_the_await_and_the_rest_goes_on() {
    #[flow]
    async fn pipeline() -> u32 {
        let map = odd_fails::map(0..4);
        assert_eq!((&map).await.unwrap_err().to_string(), "task run 'odd_fails-1' failed: 1 is odd");
        let outcomes = map.settled().await;
        outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u32
    }
    let run = pipeline();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 2);
    let states = tasks(id).await;
    assert_eq!(
        states,
        ["odd_fails-0: Completed", "odd_fails-1: Failed", "odd_fails-2: Completed", "odd_fails-3: Failed"]
    );
}

#[orchestrator::test]
async fn one_failed_element_skips_one_child() {
    let doubled = double::map(odd_fails::map(0..3)).settled().await;
    let shown: Vec<_> = doubled.iter().map(|outcome| outcome.as_ref().map_err(TaskError::is_not_ready)).collect();
    assert_eq!(shown, [Ok(&0), Err(true), Ok(&4)]);
}

#[orchestrator::test]
async fn as_completed_gives_the_fastest_first() {
    #[task]
    async fn after(steps: u32) -> u32 {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        steps
    }
    let order: Vec<u32> = after::map(vec![900, 10, 300]).as_completed().map(|outcome| outcome.unwrap()).collect().await;
    assert_eq!(order, [10, 300, 900]);
}
