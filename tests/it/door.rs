//! The doors through which tests look at runs, so that a change of the API is a change of one place.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use orchestrator::{Explanation, FlowRunId, RunId, Why};

/// After this, what has not come will not: a disk may stall for a good while.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// What never comes fails instead of hanging.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it comes at some time")
}

/// What somebody else says as soon as it is what is waited for; until then an error says what it is. A paused clock stands still
/// meanwhile; what never comes fails instead of hanging.
pub(crate) async fn as_soon_as<T, E: Debug>(mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(other) => assert!(begun.elapsed() < SOON, "it happens at some time; at last there was {other:?}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Ready when it holds, of which others have to be asked.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    as_soon_as(async || holds().await.then_some(()).ok_or(())).await;
}

/// Ready when it holds. Bodies can await this: it is `Send`.
pub(crate) async fn at_some_time(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "it happens at some time");
        tokio::task::yield_now().await;
    }
}

/// Why a run is where it is, as soon as it is so.
pub(crate) async fn until_explained(
    orchestrator: &Orchestrator,
    run: impl Into<RunId>,
    is_so: impl Fn(&Why) -> bool,
) -> Explanation {
    let run = run.into();
    as_soon_as(async || match orchestrator.explain(run).await {
        Ok(explained) if is_so(&explained.why) => Ok(explained),
        other => Err(other),
    })
    .await
}

/// The names of all states that a run went through.
pub(crate) async fn states(run: impl Into<RunId>) -> Vec<String> {
    let states = Orchestrator::current().states(run).await.unwrap();
    assert!(states.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp), "timestamps increase: {states:?}");
    // What a run did may be undone after it completed, and a flow run may be resumed; no other terminal state is left.
    let stays = |pair: &[State]| pair[0].is_terminal() && pair[1].name != "RolledBack" && !is_resumption(&pair[1]);
    assert!(!states.windows(2).any(stays), "no terminal state is left: {states:?}");
    states.into_iter().map(|state| state.name).collect()
}

fn is_resumption(state: &State) -> bool {
    state.name == "Running" && state.message.as_ref().is_some_and(|message| message.starts_with("resumed after"))
}

/// The message of a run's last state.
pub(crate) async fn last_message(run: impl Into<RunId>) -> String {
    Orchestrator::current().states(run).await.unwrap().pop().unwrap().message.unwrap_or_default()
}

/// The task runs of a flow run, as `name: state`, in the order of their submission.
pub(crate) async fn tasks(flow: FlowRunId) -> Vec<String> {
    let runs = Orchestrator::current().task_runs(flow).await.unwrap();
    runs.into_iter().map(|run| format!("{}: {}", run.name, run.state.name)).collect()
}

/// Counts calls of a body.
#[derive(Debug, Default)]
pub(crate) struct Calls(AtomicUsize);

impl Calls {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts one; gives the number of this call, from 1.
    pub(crate) fn one(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the hooks of one test saw and did, in order.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
