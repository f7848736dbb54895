//! The journal: order, batches, and what happens when the store is slow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use orchestrator::backend::memory::MemoryBackend;
use orchestrator::backend::record::{CacheEntry, CacheHit, CacheKey, CacheQuery, Event, TakeOver};
use orchestrator::backend::{
    BackendError, BackendErrorKind, CacheCare, CacheIndex, EventStore, ResultIndex, RunHistory, RunSearch, StateBackend,
};
use orchestrator::prelude::*;
use orchestrator::{
    Explanation, FlowRunId, FlowRunQuery, LogLine, RunId, StateName, TaskRunId, TaskRunQuery, Timestamp, Why,
};

use crate::door::Calls;

/// A store in memory behind a gate, as slow as the test wants.
#[derive(Debug, Default)]
struct Gated {
    inner: MemoryBackend,
    open: Mutex<bool>,
    opened: Condvar,
    batches: AtomicUsize,
    busy: AtomicUsize,
    panics: AtomicBool,
    failed: AtomicBool,
}

impl Gated {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl EventStore for Gated {
    fn append(&self, batch: &[Event]) -> Result<(), BackendError> {
        assert!(!self.panics.load(Ordering::SeqCst), "the store is asked to panic");
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            self.failed.store(true, Ordering::SeqCst);
            return Err(BackendError::new(BackendErrorKind::Busy, "write"));
        }
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.inner.append(batch)
    }

    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError> {
        self.inner.take_over(take_over)
    }
}

impl RunHistory for Gated {
    fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
        self.inner.flow_run(id)
    }

    fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
        self.inner.flow_runs(query, now)
    }

    fn task_runs(&self, flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError> {
        self.inner.task_runs(flow_run)
    }

    fn task_run(&self, id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
        self.inner.task_run(id)
    }

    fn states(&self, run: RunId) -> Result<Vec<State>, BackendError> {
        self.inner.states(run)
    }

    fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError> {
        self.inner.logs(run)
    }
}

impl RunSearch for Gated {
    fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, BackendError> {
        self.inner.runs_called(text, at_most)
    }

    fn find_task_runs(&self, query: &TaskRunQuery, now: Timestamp) -> Result<Vec<TaskRun>, BackendError> {
        self.inner.find_task_runs(query, now)
    }

    fn count_task_runs(&self, flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError> {
        self.inner.count_task_runs(flow_run)
    }

    fn active_subflows(&self, flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError> {
        self.inner.active_subflows(flow_run)
    }

    fn logs_after(&self, run: RunId, after: u64, at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError> {
        self.inner.logs_after(run, after, at_most)
    }
}

impl CacheIndex for Gated {
    fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        self.inner.cached(key)
    }
}

impl CacheCare for Gated {
    fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError> {
        self.inner.cache_entries(query)
    }

    fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, BackendError> {
        self.inner.remove_cached(keys)
    }

    fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, BackendError> {
        self.inner.clear_cache(task_key)
    }
}

impl ResultIndex for Gated {
    fn result(&self, root: FlowRunId, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        self.inner.result(root, key)
    }
}

impl StateBackend for Gated {
    fn location(&self) -> String {
        "behind a gate".to_owned()
    }
}

static BEGUN: Calls = Calls::new();

#[task]
async fn step(_n: u32) {
    BEGUN.one();
}

#[flow]
async fn many(n: u32) -> Result<usize, TaskError> {
    Ok(step::map(0..n).await?.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitting_never_waits_and_beginning_does_while_the_store_lags() {
    let store = Arc::new(Gated::default());
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { many(200_000) }).await;
    // Every call was made, whatever the store does; bodies begin until the queue is full.
    let mut before = usize::MAX;
    while BEGUN.get() == 0 || BEGUN.get() != before {
        before = BEGUN.get();
        for _ in 0..5000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(BEGUN.get() < 150_000, "{} bodies have begun although the store took nothing", BEGUN.get());
    assert!(!run.state().is_terminal());
    // Root runs end only when they are stored; those that find room bring the queue nearer to its end.
    let mut late = Vec::new();
    let waits = loop {
        let run = orchestrator.scope(async { step(0) }).await;
        let id = run.run_id();
        late.push(run);
        let explanation = loop {
            match orchestrator.explain(id).await.unwrap() {
                Explanation { why: Why::Starting | Why::Running { .. }, .. } => tokio::task::yield_now().await,
                explanation => break explanation,
            }
        };
        if explanation.why != Why::Ended {
            break explanation;
        }
    };
    assert_eq!(waits.why, Why::Journal);
    assert!(waits.to_string().ends_with("waits for the store, which lags behind what was recorded"), "{waits}");
    store.open();
    for run in late {
        run.await.unwrap();
    }
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 200_000);
    assert_eq!(store.task_runs(id).unwrap().len(), 200_000, "nothing was lost");
    assert!(store.batches.load(Ordering::SeqCst) < 2_000, "events are stored in batches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_cancelled_do_not_wait_for_the_store() {
    static CANCELLED: Calls = Calls::new();

    #[task]
    async fn held_up(_n: u32) {}

    #[flow]
    async fn gives_one_up(n: u32) -> Result<usize, TaskError> {
        let mut runs: Vec<_> = (0..n).map(held_up).collect();
        let last = runs.pop().expect("there are some");
        last.cancel();
        assert!(last.await.unwrap_err().is_cancelled());
        CANCELLED.one();
        for run in runs {
            run.await?;
        }
        Ok(1)
    }

    let store = Arc::new(Gated::default());
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { gives_one_up(100_000) }).await;
    while CANCELLED.get() == 0 {
        tokio::task::yield_now().await;
    }
    store.open();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1);
    let counts = store.count_task_runs(id).unwrap();
    assert_eq!(counts, [(StateName::Completed, 99_999), (StateName::Cancelled, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_store_is_bounded_in_bytes() {
    const SIZE: usize = 1 << 20;
    static BEGUN: Calls = Calls::new();

    #[flow]
    async fn with_much(text: String) -> usize {
        BEGUN.one();
        text.len()
    }

    let store = Arc::new(Gated::default());
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let runs: Vec<_> = orchestrator.scope(async { (0..100).map(|_| with_much("x".repeat(SIZE))).collect() }).await;
    let mut before = usize::MAX;
    while BEGUN.get() == 0 || BEGUN.get() != before {
        before = BEGUN.get();
        for _ in 0..5000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(BEGUN.get() < 40, "{} flows with a megabyte of parameters each have begun", BEGUN.get());
    store.open();
    for run in runs {
        assert_eq!(run.await.unwrap(), SIZE);
    }
}

#[tokio::test]
async fn a_store_that_is_busy_for_a_while_loses_nothing() {
    #[flow]
    async fn small() {}
    let store = Arc::new(Gated { busy: AtomicUsize::new(2), ..Gated::default() });
    store.open();
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { small() }).await;
    let id = run.run_id();
    run.await.unwrap();
    assert!(store.failed.load(Ordering::SeqCst));
    assert_eq!(orchestrator.lost_events(), 0);
    assert_eq!(store.states(id.into()).unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_others_hold_for_long_loses_nothing() {
    #[flow]
    async fn small() {}
    let store = Arc::new(Gated { busy: AtomicUsize::new(20), ..Gated::default() });
    store.open();
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { small() }).await;
    let id = run.run_id();
    run.await.unwrap();
    assert_eq!(orchestrator.lost_events(), 0);
    assert_eq!(store.states(id.into()).unwrap().len(), 3);
    // The end comes whoever holds the store.
    store.busy.store(usize::MAX, Ordering::SeqCst);
    orchestrator.scope(async { drop(small()) }).await;
    let error = orchestrator.shutdown().await.unwrap_err();
    assert!(error.to_string().contains("cannot write: another process holds it"), "{error}");
}

#[tokio::test]
async fn a_store_that_panics_loses_history_and_no_result() {
    #[flow]
    async fn small() -> u32 {
        1
    }
    let store = Arc::new(Gated { panics: AtomicBool::new(true), ..Gated::default() });
    store.open();
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { small() }).await;
    assert_eq!(run.await.unwrap(), 1);
    assert!(orchestrator.lost_events() > 0);
    let lost = orchestrator.lost_events();
    store.panics.store(false, Ordering::SeqCst);
    let later = orchestrator.scope(async { small() }).await;
    let id = later.run_id();
    later.await.unwrap();
    assert_eq!(orchestrator.lost_events(), lost, "what came later is stored");
    assert_eq!(store.states(id.into()).unwrap().len(), 3);
}
