//! A store whose answers come late, are lost, or do not come at all: nobody waits for longer than asked for, and nothing is
//! held by nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::backend::{BackendErrorKind, LimitRecord, LimitSetting, SlotLeases, StateBackend};
use orchestrator::prelude::*;
use orchestrator::{SlotGuard, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::door::{at_some_time, soon};
use crate::faults::Faulty;
use crate::shared_limits::open;

/// Keeps a store from answering what it is asked; dropped, it lets everything pass, so that a test that fails ends.
struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    /// What is not answered.
    held: Option<&'static str>,
    /// Whether somebody waits for that.
    waits: bool,
    asked: HashMap<String, usize>,
}

impl Gate {
    fn before(store: &Faulty) -> Self {
        let shared = Arc::new(Shared::default());
        let passed = Arc::clone(&shared);
        store.watch(move |what| passed.pass(what));
        Self(shared)
    }

    fn hold(&self, what: &'static str) {
        let mut said = self.0.lock();
        (said.held, said.waits) = (Some(what), false);
    }

    fn open(&self) {
        self.0.lock().held = None;
        self.0.changed.notify_all();
    }

    /// Ready when the store is asked for what it does not answer.
    async fn holds_somebody(&self) {
        at_some_time(|| self.0.lock().waits).await;
    }

    fn asked(&self, what: &str) -> usize {
        self.0.lock().asked.get(what).copied().unwrap_or(0)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, what: &str) {
        let mut said = self.lock();
        *said.asked.entry(what.to_owned()).or_default() += 1;
        while said.held == Some(what) {
            said.waits = true;
            said = self.changed.wait(said).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

const LATE: LimitSetting = LimitSetting { slots: 1, decay: None, active: true };

/// An orchestrator that has not looked at the limits of its store, of which there is one.
fn over(folder: &std::path::Path) -> (Orchestrator, Arc<Faulty>, Gate) {
    let store = Faulty::open(folder, 1);
    store.inner.set_limit("late", LATE, Timestamp::from_micros(0)).unwrap();
    let gate = Gate::before(&store);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    (orchestrator, store, gate)
}

type Slot = JoinHandle<Result<SlotGuard, orchestrator::Error>>;

fn slot(orchestrator: &Orchestrator, timeout: Duration) -> Slot {
    let scoped = orchestrator.scope(async move { concurrency("late", 1).timeout(timeout).await });
    tokio::spawn(scoped)
}

const LONG: Duration = Duration::from_secs(5);

/// What the store is asked for next, if it is asked for a slot; the clock stands still until it is.
async fn held_at(what: &'static str, orchestrator: &Orchestrator, gate: &Gate) -> Slot {
    gate.hold(what);
    let slot = slot(orchestrator, LONG);
    gate.holds_somebody().await;
    slot
}

fn the_limit(store: &Faulty) -> LimitRecord {
    store.inner.limits(Timestamp::from_micros(0)).unwrap().remove(0)
}

/// Nobody holds a slot: one is there at once.
async fn all_is_given_back(orchestrator: &Orchestrator, store: &Faulty) {
    drop(slot(orchestrator, Duration::ZERO).await.unwrap().unwrap());
    at_some_time(|| the_limit(store).taken == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_from_the_first_poll_though_the_store_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (orchestrator, store, gate) = over(folder.path());
    for asked_for in ["look", "trade"] {
        let late = held_at(asked_for, &orchestrator, &gate).await;
        let begun = tokio::time::Instant::now();
        let error = late.await.unwrap().unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        let said = "waited 5s for slots of limit 'late', about which the faulty store has not answered";
        assert_eq!(error.to_string(), said, "{asked_for}");
        assert!(begun.elapsed() < LONG + Duration::from_millis(10), "{asked_for}: {:?}", begun.elapsed());
        gate.open();
        // What the store grants now, nobody waits for any more.
        all_is_given_back(&orchestrator, &store).await;
    }
    orchestrator.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_does_not_wait_for_the_store_to_say_who_holds_the_slots() {
    let folder = tempfile::tempdir().unwrap();
    let (orchestrator, store, gate) = over(folder.path());
    let held = slot(&orchestrator, Duration::ZERO).await.unwrap().unwrap();
    gate.hold("standing");
    let begun = tokio::time::Instant::now();
    let late = slot(&orchestrator, LONG);
    at_some_time(|| the_limit(&store).waiting > 0).await;
    // Whoever waits is told so before the broker looks again.
    let looks = gate.asked("version");
    at_some_time(|| gate.asked("version") >= looks + 2).await;
    let error = late.await.unwrap().unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert!(error.to_string().starts_with("waited 5s for a slot of limit 'late' (1 of 1 taken)"), "{error}");
    assert!(begun.elapsed() < LONG + Duration::from_millis(1010), "{:?}", begun.elapsed());
    gate.open();
    drop(held);
    all_is_given_back(&orchestrator, &store).await;
    orchestrator.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_granted_to_nobody_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (orchestrator, store, gate) = over(folder.path());
    for asked_for in ["look", "trade"] {
        let dropped = held_at(asked_for, &orchestrator, &gate).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        gate.open();
        all_is_given_back(&orchestrator, &store).await;
    }
    orchestrator.shutdown().await.unwrap();
}

#[task(cache_ttl = "1h", cache_policy = inputs)]
async fn computed(n: u64) -> u64 {
    n + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_granted_to_nobody_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (orchestrator, _store, gate) = over(folder.path());
    let other = open(folder.path()).await;
    gate.hold("claim");
    let run = orchestrator.scope(async { computed(1) }).await;
    gate.holds_somebody().await;
    run.cancel();
    assert!(soon(&run).await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(soon(other.scope(async { computed(1).await.unwrap() })).await, 2);
    for orchestrator in [orchestrator, other] {
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (orchestrator, store, _gate) = over(folder.path());
    let other = open(folder.path()).await;
    *store.loses.lock().unwrap() = Some("claim");
    // It fails, so that nothing comes into the cache.
    #[task(cache_ttl = "1h", cache_policy = inputs, cache_key = same)]
    async fn fails() -> Result<u64, String> {
        Err("no luck".to_owned())
    }
    fn same() -> Option<String> {
        Some("same".to_owned())
    }
    let failed = soon(orchestrator.scope(async { fails().await.unwrap_err() })).await;
    assert!(failed.to_string().contains("no luck"), "{failed}");
    *store.loses.lock().unwrap() = None;
    let failed = soon(other.scope(async { fails().await.unwrap_err() })).await;
    assert!(failed.to_string().contains("no luck"), "{failed}");
    for orchestrator in [orchestrator, other] {
        orchestrator.shutdown().await.unwrap();
    }
}

#[task(concurrency = "late")]
async fn limited(n: u64) -> u64 {
    n + 1
}

#[flow]
async fn uses_everything(n: u64) -> Result<u64, TaskError> {
    limited(computed(n)).await
}

/// What the store is asked for while runs go on, each by another thread or for another reason.
const CALLS: [&str; 11] = [
    "append_as",
    "cached",
    "claim",
    "join",
    "look",
    "owners",
    "renew",
    "take_requests",
    "trade",
    "uncalled",
    "unreferenced_objects",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_panics_keeps_nobody_waiting() {
    for panics in CALLS {
        let folder = tempfile::tempdir().unwrap();
        let store = Faulty::open(folder.path(), 1);
        store.inner.set_limit("late", LATE, Timestamp::from_micros(0)).unwrap();
        let panicked = Arc::new(Notify::new());
        let panicking = Arc::clone(&panicked);
        store.watch(move |what| {
            if what == panics {
                panicking.notify_one();
                panic!("no luck");
            }
        });
        let orchestrator = Orchestrator::builder().lease(Duration::from_millis(600)).build_over(store);
        // Two want the same slot, and the same result.
        let runs = orchestrator.scope(async { [uses_everything(1), uses_everything(1)] }).await;
        for run in &runs {
            match soon(run).await {
                Ok(found) => assert_eq!(found, 3, "{panics}"),
                Err(error) => {
                    let said = format!("its backend's `{panics}` panicked: no luck at tests/it/answers.rs:");
                    assert!(error.to_string().contains(&said), "{panics}: {error}");
                }
            }
        }
        let limits = soon(orchestrator.limits()).await.unwrap();
        assert_eq!(limits.len(), 1, "{panics}");
        soon(panicked.notified()).await;
        // What was not stored is told here.
        let _ = soon(orchestrator.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_served_though_the_store_panics_when_it_is_asked_for_changes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    store.inner.set_limit("late", LATE, Timestamp::from_micros(0)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    store.watch(move |what| {
        if what == "version" {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("no luck");
        }
    });
    let (one, other) = (Orchestrator::builder().build_over(store), open(folder.path()).await);
    let held = slot(&other, Duration::ZERO).await.unwrap().unwrap();
    let waits = tokio::spawn(one.scope(async { concurrency("late", 1).await }));
    at_some_time(|| asked.load(Ordering::SeqCst) >= 2).await;
    drop(held);
    drop(soon(waits).await.unwrap().unwrap());
    for orchestrator in [one, other] {
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_at_the_limits_does_not_wait_for_those_who_want_slots() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    store.inner.set_limit("late", LATE, Timestamp::from_micros(0)).unwrap();
    *store.closed.lock().unwrap() = Some(BackendErrorKind::Busy);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    // Its process is not known to the store yet, and so it is given no slot.
    let run = orchestrator.scope(async { limited(1) }).await;
    for _ in 0..2 {
        let limits = soon(orchestrator.limits()).await.unwrap();
        assert_eq!((limits[0].name.as_str(), limits[0].taken), ("late", 0));
    }
    assert!(!run.state().is_terminal(), "{:?}", run.state());
    *store.closed.lock().unwrap() = None;
    assert_eq!(soon(run).await.unwrap(), 2);
    orchestrator.shutdown().await.unwrap();
}

#[flow]
async fn fails_at_first() -> Result<u64, String> {
    if RunContext::current().attempt() == 1 { Err("once".into()) } else { Ok(2) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_completes_between_two_looks_is_not_resumed_again() {
    let folder = tempfile::tempdir().unwrap();
    let other = open(folder.path()).await;
    let failed = other.scope(async { fails_at_first() }).await;
    soon(failed.wait()).await;
    let id = failed.run_id();
    let store = Faulty::open(folder.path(), 1);
    let late = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let gate = Gate::before(&store);
    gate.hold("states");
    let resuming = tokio::spawn(late.resume(id).into_future());
    // It has seen that the run failed, and not yet which states led there.
    gate.holds_somebody().await;
    assert_eq!(soon(other.resume(id).into_future()).await.unwrap().run_count, 2);
    gate.open();
    let error = soon(resuming).await.unwrap().unwrap_err();
    assert!(error.is_not_resumable() && error.to_string().contains("has completed"), "{error}");
    assert_eq!(other.flow_run(id).await.unwrap().run_count, 2);
    for orchestrator in [late, other] {
        orchestrator.shutdown().await.unwrap();
    }
}
