//! Flows: names, parameters, subflows, retries, capacity, context.

use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator::FlowRunQuery;
use orchestrator::prelude::*;

use crate::door::{Calls, states, tasks};

#[task]
async fn number(n: u32) -> u32 {
    n
}

#[orchestrator::test]
async fn a_flow_run_is_recorded_with_its_parameters() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Config {
        n: u32,
    }
    #[flow(name = "counting", version = "2", tags = ["b", "a"])]
    async fn count(config: Config, #[param(skip)] extra: &str) -> Result<u32, TaskError> {
        let parameters = RunContext::current().parameters();
        assert_eq!(parameters, serde_json::json!({ "config": { "n": 3 } }));
        assert_eq!(extra, "extra");
        number(config.n).await
    }
    let run = count(Config { n: 3 }, "extra");
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 3);
    let orchestrator = Orchestrator::current();
    let flow = orchestrator.flow_run(id).await.unwrap();
    assert_eq!((flow.flow_name.as_str(), flow.version.as_deref()), ("counting", Some("2")));
    assert_eq!(flow.tags, ["a", "b"]);
    assert_eq!(flow.parameters, serde_json::json!({ "config": { "n": 3 } }));
    assert_eq!(flow.pid, std::process::id());
    assert!(!flow.host.is_empty());
    assert_eq!(flow.name.split('-').count(), 2, "an adjective and an animal: {}", flow.name);
    let task = &orchestrator.task_runs(id).await.unwrap()[0];
    assert_eq!(task.tags, ["a", "b"], "tasks inherit the tags of their flow");
    assert_eq!(task.parent, Some(id.into()));
    assert_eq!(orchestrator.flow_runs(&FlowRunQuery::new().flow("counting")).await.unwrap()[0].id, id);
    let unknown = orchestrator::FlowRunId::new(orchestrator::Timestamp::from_micros(1));
    assert!(orchestrator.flow_run(unknown).await.unwrap_err().is_not_found());
}

#[orchestrator::test]
async fn run_names_come_from_templates_or_numbers() {
    #[task(run_name = "fetch-{repo}-{page:>03}")]
    async fn fetch(repo: &str, page: u32) -> usize {
        assert!(RunContext::current().run_name().starts_with("fetch-"));
        repo.len() + page as usize
    }
    #[flow(run_name = "for-{who}")]
    async fn named(who: String) -> Result<usize, TaskError> {
        number(1).await?;
        number(2).await?;
        number::configure().run_name("own").submit(3).await?;
        fetch(who.as_str(), 7).await
    }
    let run = named("me".to_owned());
    let id = run.run_id();
    run.await.unwrap();
    assert_eq!(Orchestrator::current().flow_run(id).await.unwrap().name, "for-me");
    let names: Vec<_> = Orchestrator::current().task_runs(id).await.unwrap().into_iter().map(|run| run.name).collect();
    assert_eq!(names, ["number-0", "number-1", "own", "fetch-me-007"]);
}

#[orchestrator::test]
async fn a_subflow_is_a_run_with_a_parent() {
    #[flow]
    async fn inner(n: u32) -> Result<u32, TaskError> {
        number(n).await
    }
    #[flow]
    async fn outer() -> Result<u32, orchestrator::FlowError> {
        inner(number(5)).await
    }
    let run = outer();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 5);
    let orchestrator = Orchestrator::current();
    let all = orchestrator.flow_runs(&FlowRunQuery::new()).await.unwrap();
    let inner = all.iter().find(|run| run.flow_name == "inner").unwrap();
    assert_eq!(inner.parent, Some(id.into()));
    assert_eq!(inner.upstream.len(), 1);
    assert_eq!(tasks(id).await, ["number-0: Completed"]);
    assert_eq!(tasks(inner.id).await, ["number-0: Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_flow_is_retried_as_a_whole() {
    static CALLS: Calls = Calls::new();
    #[task(retries = 2)]
    async fn flaky() -> Result<(), String> {
        CALLS.one();
        Err("flaky".into())
    }
    #[flow(retries = 1, retry_delay_secs = 30)]
    async fn twice() -> Result<(), TaskError> {
        flaky().await
    }
    let run = twice();
    let id = run.run_id();
    assert!(run.await.is_err());
    assert_eq!(CALLS.get(), 6, "two attempts of the flow, three of the task in each");
    assert_eq!(states(id).await, ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]);
    assert_eq!(tasks(id).await, ["flaky-0: Failed", "flaky-1: Failed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_flow_timeout_ends_all_that_it_started() {
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    #[flow(timeout_secs = 60)]
    async fn stuck() -> Result<(), TaskError> {
        let _other = endless();
        endless().await
    }
    let run = stuck();
    let id = run.run_id();
    let error = run.await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(states(id).await, ["Pending", "Running", "TimedOut"]);
    assert_eq!(tasks(id).await, ["endless-0: Cancelled", "endless-1: Cancelled"]);
}

#[orchestrator::test]
async fn capacity_bounds_the_tasks_of_one_flow_run() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[task]
    async fn nested(n: u32) -> u32 {
        n
    }
    #[task]
    async fn busy(n: u32) -> Result<u32, TaskError> {
        MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let n = nested(n).await;
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
        n
    }
    #[flow(max_concurrent_tasks = 3)]
    async fn bounded() -> Result<Vec<u32>, TaskError> {
        busy::map(0..20).await
    }
    let run = bounded();
    let id = run.run_id();
    assert_eq!(run.await.unwrap().len(), 20);
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    let last =
        Orchestrator::current().task_runs(id).await.unwrap().into_iter().rfind(|run| run.task_name == "busy").unwrap();
    assert_eq!(states(last.id).await, ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]);
}

#[orchestrator::test]
async fn the_context_knows_the_run() {
    #[task(tags = ["t"])]
    async fn looks() -> String {
        let context = RunContext::current();
        assert!(context.task_run_id().is_some() && context.flow_run_id().is_some());
        assert_eq!(context.tags(), ["f", "t"]);
        let spawned = tokio::spawn(async { RunContext::current().run_name() }.in_current_run()).await.unwrap();
        let lost = tokio::spawn(async { RunContext::try_current().is_none() }).await.unwrap();
        assert!(lost);
        format!("{} {} {} {}", context.name(), context.flow_name(), context.attempt(), spawned)
    }
    #[task]
    fn looks_sync() -> u32 {
        RunContext::current().attempt()
    }
    #[flow(tags = ["f"])]
    async fn looking() -> Result<String, TaskError> {
        assert!(RunContext::current().task_run_id().is_none());
        assert_eq!(looks_sync().await?, 1);
        looks().await
    }
    assert_eq!(looking().await.unwrap(), "looks looking 1 looks-0");
    assert!(RunContext::try_current().is_none());
    assert_eq!(RunContext::current().attempt(), 0);
}

#[orchestrator::test]
async fn sync_flows_run_and_wait_for_what_they_started() {
    static CALLS: Calls = Calls::new();
    #[task]
    fn step(_n: u32) {
        CALLS.one();
    }
    #[flow]
    fn plain(n: u32) -> u32 {
        for i in 0..n {
            drop(step(i));
        }
        n
    }
    assert_eq!(plain(10).await.unwrap(), 10);
    assert_eq!(CALLS.get(), 10);
}

#[orchestrator::test]
async fn flows_without_anyhow() {
    #[flow]
    async fn own_result() -> orchestrator::Result<u32> {
        Ok(number(1).await? + number(2).await?)
    }
    assert_eq!(own_result().await.unwrap(), 3);
}

#[orchestrator::test]
async fn runs_outside_of_flows_and_in_tasks() {
    #[task]
    async fn recursive(depth: u32) -> Result<u32, TaskError> {
        if depth == 0 { Ok(0) } else { Ok(recursive(depth - 1).await? + 1) }
    }
    assert_eq!(recursive(100).await.unwrap(), 100);
}

#[tokio::test]
async fn orchestrators_in_scopes_do_not_meet() {
    let (a, b) = (Orchestrator::in_memory(), Orchestrator::in_memory());
    let run = a.scope(async { number(1) }).await;
    (&run).await.unwrap();
    assert!(a.task_run(run.run_id()).await.is_ok());
    assert!(b.task_run(run.run_id()).await.unwrap_err().is_not_found());
}

#[test]
fn an_orchestrator_that_nobody_holds_is_gone() {
    #[derive(Debug)]
    struct Held(std::sync::Arc<()>);
    impl orchestrator::Observer for Held {
        fn on_transition(&self, _event: &orchestrator::Observed<'_>) {
            assert!(std::sync::Arc::strong_count(&self.0) > 1);
        }
    }
    let held = std::sync::Arc::new(());
    let backend = std::sync::Arc::new(orchestrator::backend::memory::MemoryBackend::new());
    let observer = std::sync::Arc::new(Held(std::sync::Arc::clone(&held)));
    let orchestrator = Orchestrator::builder().observer(observer).build_over(backend);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(orchestrator.scope(async { number(number(1)).await.unwrap() }));
    drop(runtime);
    assert_eq!(std::sync::Arc::strong_count(&held), 2);
    drop(orchestrator);
    assert_eq!(std::sync::Arc::strong_count(&held), 1);
}
