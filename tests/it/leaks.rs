//! What has ended is let go: nothing keeps a run, or its orchestrator, for ever.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use orchestrator::{Observed, Observer};

/// Lives as long as the orchestrator whose observer it is.
#[derive(Debug)]
struct Witness;

impl Observer for Witness {
    fn on_transition(&self, _: &Observed<'_>) {}
}

/// Calls `program` in an orchestrator of its own; says whether all that it started was let go.
fn leaves_nothing(program: impl AsyncFnOnce()) -> bool {
    let witness = Arc::new(Witness);
    let weak = Arc::downgrade(&witness);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let orchestrator = Orchestrator::builder().database_url("memory").observer(witness).build().await.unwrap();
        orchestrator.scope(program()).await;
    });
    drop(runtime);
    is_gone(&weak)
}

/// The journal's thread may need a moment to end.
fn is_gone<T>(weak: &Weak<T>) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while weak.strong_count() > 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    weak.strong_count() == 0
}

#[task]
async fn endless() {
    std::future::pending().await
}

#[task]
async fn broken() -> Result<(), String> {
    Err("out of paper".into())
}

#[flow]
async fn waits() {
    let _ = endless().await;
}

#[test]
fn a_flow_that_is_cancelled_with_its_runs() {
    assert!(leaves_nothing(async || {
        let run = waits();
        tokio::time::sleep(Duration::from_secs(1)).await;
        run.cancel();
        run.await.unwrap_err();
        Orchestrator::current().shutdown().await.unwrap();
    }));
}

#[test]
fn a_flow_whose_runtime_goes_away() {
    assert!(leaves_nothing(async || {
        drop(waits());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }));
}

#[test]
fn a_run_that_failed_in_a_hook() {
    async fn hook(_: &FlowRun, _: &State) {
        drop(broken());
    }
    #[flow(on_completion = hook)]
    async fn hooked() {}
    assert!(leaves_nothing(async || {
        hooked().await.unwrap();
        Orchestrator::current().shutdown().await.unwrap();
    }));
}
