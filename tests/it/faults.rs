//! A store that fails now and then: no run waits for ever, none is lost, and whoever asks is told what was wrong.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use orchestrator::backend::maintenance::Maintenance;
use orchestrator::backend::record::{
    CacheEntry, CacheHit, CacheKey, CacheQuery, Event, FlowRunQuery, Interrupted, LogLine, Process, StoredResult,
    TakeOver, TaskRunQuery,
};
use orchestrator::backend::sqlite::SqliteBackend;
use orchestrator::backend::{
    Answer, BackendError, BackendErrorKind, CacheCare, CacheIndex, ClaimLeases, ClaimRequest, Claimed, Crash, Crashes,
    EventStore, LimitRecord, LimitSetting, Owner, OwnerNo, Ownership, Request, RequestNo, Requests, ResultIndex,
    RunHistory, RunSearch, Shared, SlotLeases, SlotNews, SlotPlace, SlotStanding, SlotTrade, SlotWait, StateBackend,
    Wanted,
};
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, RunId, StateName, TaskRunId, Timestamp};

use crate::crashes::{child, goes_on, killed};
use crate::door::{SOON, at_some_time, soon, until};
use crate::process;

/// A database of which so many in a hundred questions fail, and so many of the changes.
pub(crate) struct Faulty {
    pub(crate) inner: SqliteBackend,
    random: Mutex<fastrand::Rng>,
    reads: AtomicU32,
    writes: AtomicU32,
    faults: AtomicU32,
    full: AtomicBool,
    /// Why it takes no process up, if so.
    pub(crate) closed: Mutex<Option<BackendErrorKind>>,
    /// The next look-up in the cache panics.
    panics: AtomicBool,
    /// Told what the store is asked for, before it answers.
    watcher: OnceLock<Watcher>,
    /// What the store does and says that it could not.
    pub(crate) loses: Mutex<Option<&'static str>>,
}

type Watcher = Box<dyn Fn(&str) + Send + Sync>;

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    pub(crate) fn open(folder: &std::path::Path, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: SqliteBackend::open(folder.join("orchestrator.db")).unwrap(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            reads: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            faults: AtomicU32::new(0),
            full: AtomicBool::new(false),
            closed: Mutex::default(),
            panics: AtomicBool::new(false),
            watcher: OnceLock::new(),
            loses: Mutex::default(),
        })
    }

    pub(crate) fn watch(&self, watcher: impl Fn(&str) + Send + Sync + 'static) {
        assert!(self.watcher.set(Box::new(watcher)).is_ok(), "it is watched once");
    }

    fn may_fail(&self, what: &str, chance: &AtomicU32, kind: BackendErrorKind) -> Result<(), BackendError> {
        if let Some(watcher) = self.watcher.get() {
            watcher(what);
        }
        if self.random.lock().unwrap().u32(..100) >= chance.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        Err(BackendError::new(kind, format!("{what} in the faulty store")).because("the disk is loose"))
    }

    fn lost(&self, what: &str) -> Result<(), BackendError> {
        if *self.loses.lock().unwrap() != Some(what) {
            return Ok(());
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        Err(BackendError::new(BackendErrorKind::Unavailable, format!("{what} in the faulty store"))
            .because("no answer"))
    }

    /// Reading fails for good: nobody is told that trying again would help.
    fn reading(&self, what: &str) -> Result<(), BackendError> {
        self.may_fail(what, &self.reads, BackendErrorKind::Other)
    }

    /// Writing fails for a moment, or for as long as there is no room.
    fn writing(&self, what: &str) -> Result<(), BackendError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::Full, format!("{what} in the faulty store")));
        }
        self.may_fail(what, &self.writes, BackendErrorKind::Busy)
    }

    fn entering(&self, what: &str) -> Result<(), BackendError> {
        let closed = *self.closed.lock().unwrap();
        match closed {
            Some(kind) => {
                self.faults.fetch_add(1, Ordering::SeqCst);
                Err(BackendError::new(kind, format!("{what} in the faulty store")).because("the door is shut"))
            }
            None => self.writing(what),
        }
    }
}

macro_rules! pass_on {
    ($trait:ident: $($kind:ident $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl $trait for Faulty {
            $(fn $name(&self, $($arg: $type),*) -> Result<$result, BackendError> {
                self.$kind(stringify!($name))?;
                let done = self.inner.$name($($arg),*)?;
                self.lost(stringify!($name))?;
                Ok(done)
            })*
        }
    };
}

pass_on! { EventStore:
    writing append(batch: &[Event]) -> ();
    writing append_as(owner: OwnerNo, batch: &[Event]) -> ();
    writing take_over(take_over: &TakeOver) -> bool;
}

pass_on! { RunHistory:
    reading flow_run(id: FlowRunId) -> Option<FlowRun>;
    reading flow_runs(query: &FlowRunQuery, now: Timestamp) -> Vec<FlowRun>;
    reading task_runs(flow_run: FlowRunId) -> Vec<TaskRun>;
    reading task_run(id: TaskRunId) -> Option<TaskRun>;
    reading states(run: RunId) -> Vec<State>;
    reading logs(run: RunId) -> Vec<LogLine>;
}

pass_on! { RunSearch:
    reading runs_called(text: &str, at_most: usize) -> Vec<RunId>;
    reading find_task_runs(query: &TaskRunQuery, now: Timestamp) -> Vec<TaskRun>;
    reading count_task_runs(flow_run: FlowRunId) -> Vec<(StateName, u64)>;
    reading active_subflows(flow_run: FlowRunId) -> Option<(u64, FlowRunId)>;
    reading logs_after(run: RunId, after: u64, at_most: usize) -> Vec<(u64, LogLine)>;
}

impl CacheIndex for Faulty {
    fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "the store is asked to panic");
        self.reading("cached")?;
        self.inner.cached(key)
    }
}

pass_on! { CacheCare:
    reading cache_entries(query: &CacheQuery) -> Vec<CacheEntry>;
    writing remove_cached(keys: &[CacheKey]) -> u64;
    writing clear_cache(task_key: Option<&str>) -> u64;
}

pass_on! { ResultIndex:
    reading result(root: FlowRunId, key: &CacheKey) -> Option<CacheHit>;
    reading unreferenced_objects(store: &str, most: usize) -> Vec<String>;
    writing objects_deleted(store: &str, names: &[String]) -> ();
    reading objects_of(run: FlowRunId) -> Vec<String>;
    reading objects(skipped: usize, most: usize) -> Vec<StoredResult>;
    reading interrupted(most: usize) -> Vec<Interrupted>;
    writing swept(runs: &[Interrupted]) -> ();
}

pass_on! { Requests:
    writing request(owner: OwnerNo, run: RunId, wanted: &Wanted, now: Timestamp) -> Option<RequestNo>;
    reading take_requests(owner: OwnerNo) -> Vec<Request>;
    writing answer(request: RequestNo, answer: &Answer) -> ();
    reading answered(request: RequestNo) -> Option<Answer>;
    writing withdraw(request: RequestNo) -> ();
}

pass_on! { Ownership:
    entering join(process: &Process, until: Timestamp) -> OwnerNo;
    writing renew(owner: OwnerNo, until: Timestamp) -> ();
    writing leave(owner: OwnerNo, now: Timestamp) -> ();
    reading owners() -> Vec<Owner>;
    reading owner(no: OwnerNo) -> Option<Owner>;
    reading owner_of(run: RunId) -> Option<Owner>;
    writing expel(owner: &Owner, at: Timestamp, message: &str) -> Option<usize>;
}

pass_on! { Crashes:
    reading uncalled() -> Vec<Crash>;
    writing take_hooks(owner: OwnerNo, run: RunId) -> bool;
    reading crashed(key: &str) -> Vec<(FlowRunId, u32)>;
    writing leave_crashed(run: FlowRunId, times: u32) -> bool;
    writing uncount(run: FlowRunId) -> ();
}

pass_on! { SlotLeases:
    reading limits(now: Timestamp) -> Vec<LimitRecord>;
    writing set_limit(name: &str, setting: LimitSetting, now: Timestamp) -> ();
    writing declare_limit(name: &str, setting: LimitSetting, now: Timestamp) -> ();
    writing remove_limit(name: &str) -> bool;
    writing trade(owner: OwnerNo, trade: &SlotTrade, now: Timestamp) -> SlotNews;
    reading look(owner: OwnerNo, now: Timestamp) -> SlotNews;
    reading version() -> u64;
    reading waits_of(run: RunId) -> Vec<SlotWait>;
    reading standing(limit: &str, place: SlotPlace, most_holders: usize, now: Timestamp) -> Option<SlotStanding>;
}

pass_on! { ClaimLeases:
    writing claim(owner: OwnerNo, over: &[(CacheKey, u64)], asks: &[ClaimRequest], now: Timestamp) -> Vec<Claimed>;
    reading claimed(owner: OwnerNo, keys: &[CacheKey]) -> Vec<bool>;
}

impl Shared for Faulty {}

impl StateBackend for Faulty {
    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        self.inner.maintenance()
    }

    fn location(&self) -> String {
        "the faulty store".to_owned()
    }
}

const WIDTH: u64 = 40;

#[task]
async fn doubled(n: u64) -> u64 {
    n * 2
}

#[task(cache_ttl = "1d")]
async fn remembered(n: u64) -> u64 {
    n + 1
}

#[task(concurrency = "faulty")]
async fn guarded(n: u64) -> u64 {
    tokio::task::yield_now().await;
    n
}

#[flow(persist)]
async fn below(n: u64) -> Result<u64, TaskError> {
    let committed = transaction(async { doubled(n).await }).await?;
    Ok(committed + guarded(n).await?)
}

#[flow(persist, retries = 1)]
async fn whole(n: u64) -> Result<u64, TaskError> {
    let doubled = doubled::map((0..WIDTH).collect::<Vec<_>>());
    let remembered = remembered::map((0..WIDTH).map(|m| n + m / 2).collect::<Vec<_>>());
    let guarded = guarded::map((0..WIDTH).collect::<Vec<_>>());
    let below = below(n);
    let sum: u64 = doubled.await?.iter().chain(&remembered.await?).chain(&guarded.await?).sum();
    let sum = sum + below.await?;
    // The second attempt finds what the first one kept, or runs it again.
    if RunContext::current().attempt() == 1 { Err(fails().await.unwrap_err()) } else { Ok(sum) }
}

#[task]
async fn fails() -> Result<(), String> {
    Err("the first attempt fails".to_owned())
}

/// Runs pipelines over a store that fails that often, and looks at what it has in the end.
async fn runs_are_whole(reads: u32, writes: u32) {
    let seed = fastrand::u64(..1_000_000);
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), seed);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    orchestrator.limit("faulty", 2).await.unwrap();
    store.reads.store(reads, Ordering::SeqCst);
    store.writes.store(writes, Ordering::SeqCst);
    let ids = orchestrator.scope(async {
        let runs: Vec<_> = (0..6).map(whole).collect();
        let ids: Vec<_> = runs.iter().map(|run| run.run_id()).collect();
        for (n, run) in (0..).zip(runs) {
            let numbers = WIDTH * (WIDTH - 1) / 2;
            let remembered: u64 = (0..WIDTH).map(|m| n + m / 2 + 1).sum();
            assert_eq!(run.await.unwrap(), 3 * numbers + remembered + 3 * n, "seed {seed}");
        }
        // What is asked is answered, or it is said why not.
        for id in &ids {
            match orchestrator.states(*id).await {
                Ok(states) => assert_eq!(states.last().unwrap().name, "Completed"),
                Err(error) => assert!(
                    error.to_string().contains("cannot states in the faulty store: the disk is loose"),
                    "{error}"
                ),
            }
        }
        ids
    });
    let ids = tokio::time::timeout(Duration::from_secs(60), ids).await.unwrap_or_else(|_| panic!("seed {seed} hangs"));
    orchestrator.shutdown().await.unwrap();
    assert!(store.faults.load(Ordering::SeqCst) > 0);
    assert_eq!(orchestrator.lost_events(), 0, "seed {seed}");
    for id in ids {
        assert_eq!(store.inner.states(id.into()).unwrap().last().unwrap().name, "Completed", "seed {seed}");
        let runs = store.inner.task_runs(id).unwrap();
        assert!(runs.iter().all(|run| run.state.is_terminal()), "seed {seed}: {runs:?}");
        assert_eq!(runs.len() as u64, 2 * 3 * WIDTH + 1, "seed {seed}");
    }
    assert_eq!(store.inner.maintenance().unwrap().check().unwrap(), [], "seed {seed}");
    for limit in store.inner.limits(Timestamp::from_micros(0)).unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "seed {seed}: {limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_complete_though_reading_fails() {
    runs_are_whole(30, 0).await;
    runs_are_whole(100, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_complete_though_the_store_is_busy_now_and_then() {
    runs_are_whole(0, 20).await;
    runs_are_whole(20, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_orchestrator_held_that_could_not_leave_is_free_when_its_lease_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    let backend = Arc::clone(&store) as Arc<dyn StateBackend>;
    let one = Orchestrator::builder().lease(Duration::from_millis(300)).build_over(backend);
    one.limit("left", 1).await.unwrap();
    let held = one.scope(async { concurrency("left", 1).await.unwrap() }).await;
    store.writes.store(100, Ordering::SeqCst);
    drop(held);
    let error = one.shutdown().await.unwrap_err();
    assert!(error.to_string().contains("cannot leave in the faulty store"), "{error}");
    store.writes.store(0, Ordering::SeqCst);
    // The first one is still there as a value, in a process that goes on.
    let other = Orchestrator::builder().home(folder.path()).build().await.unwrap();
    let slot = other.scope(async { concurrency("left", 1).await });
    drop(soon(slot).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_that_panics_keeps_no_later_one_from_being_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    store.panics.store(true, Ordering::SeqCst);
    for n in 1..3 {
        let run = orchestrator.scope(async { remembered(n).await });
        let ended = soon(run).await;
        assert_eq!(ended.unwrap(), n + 1);
    }
    assert!(!store.panics.load(Ordering::SeqCst), "the first look-up has panicked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_busy_is_not_asked_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    orchestrator.limit("asked", 1).await.unwrap();
    store.writes.store(100, Ordering::SeqCst);
    let start = Instant::now();
    let slot = tokio::spawn({
        let orchestrator = orchestrator.clone();
        async move { orchestrator.scope(async { concurrency("asked", 1).await.map(drop) }).await }
    });
    while store.faults.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(60), "it was asked 6 times in {:?}", start.elapsed());
    store.writes.store(0, Ordering::SeqCst);
    slot.await.unwrap().unwrap();
}

#[flow]
async fn plain(n: u64) -> Result<u64, TaskError> {
    doubled(n).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_of_a_flow_run_is_stored_when_there_is_room_again() {
    for ends in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = Faulty::open(folder.path(), 1);
        let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
        store.full.store(true, Ordering::SeqCst);
        let (id, doubled_by) = orchestrator
            .scope(async {
                let run = plain(4);
                (run.run_id(), run.await.unwrap())
            })
            .await;
        assert_eq!(doubled_by, 8);
        let lost = orchestrator.lost_events();
        assert!(lost > 0);
        orchestrator.states(id).await.unwrap_err();
        store.full.store(false, Ordering::SeqCst);
        // With the next batch, or at the latest when the orchestrator ends.
        if !ends {
            orchestrator.scope(async { plain(5).await.unwrap() }).await;
        }
        assert_eq!(orchestrator.lost_events(), lost);
        orchestrator.shutdown().await.unwrap_err();
        let states: Vec<_> = orchestrator.states(id).await.unwrap().into_iter().map(|state| state.name).collect();
        assert_eq!(states, ["Pending", "Running", "Completed"]);
        let run = orchestrator.flow_run(id).await.unwrap();
        assert_eq!(run.parameters, serde_json::json!({ "n": 4 }));
    }
}

static GATE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);

#[task(concurrency = "narrow")]
async fn holds() {
    drop(GATE.acquire().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_slots_that_cannot_be_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 0);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    orchestrator.limit("narrow", 2).await.unwrap();
    let runs: Vec<_> = orchestrator.scope(async { (0..20).map(|_| holds()).collect() }).await;
    let narrow = || store.inner.limits(Timestamp::from_micros(0)).unwrap().remove(0);
    while (narrow().taken, narrow().waiting) != (2, 18) {
        tokio::task::yield_now().await;
    }
    store.full.store(true, Ordering::SeqCst);
    GATE.add_permits(20);
    let mut refused = 0;
    for run in runs {
        let ended = soon(run).await;
        if let Err(error) = ended {
            assert!(error.to_string().contains("cannot trade in the faulty store: no space is left"), "{error}");
            refused += 1;
        }
    }
    assert_eq!(refused, 18, "two were served before there was no room");
    // With room again all is given back, though nobody asks for anything.
    store.full.store(false, Ordering::SeqCst);
    while (narrow().taken, narrow().waiting) != (0, 0) {
        tokio::task::yield_now().await;
    }
    let run = orchestrator.scope(async { holds() }).await;
    run.await.unwrap();
    let error = orchestrator.shutdown().await.unwrap_err();
    assert!(error.to_string().contains("no space is left"), "{error}");
}

#[task(concurrency = ("entered", limit = 1))]
async fn limited() -> u32 {
    1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_waits_for_slots_until_its_process_is_known() {
    for kind in [BackendErrorKind::Busy, BackendErrorKind::Full] {
        let folder = tempfile::tempdir().unwrap();
        let store = Faulty::open(folder.path(), 1);
        *store.closed.lock().unwrap() = Some(kind);
        let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
        let run = orchestrator.scope(async { limited() }).await;
        // The keeper tries every 100 ms at most: more times than what fails for a moment is tried again.
        let tries = async {
            while store.faults.load(Ordering::SeqCst) < 22 {
                assert!(!run.state().is_terminal(), "{:?}", run.state());
                tokio::task::yield_now().await;
            }
        };
        soon(tries).await;
        *store.closed.lock().unwrap() = None;
        assert_eq!(soon(run).await.unwrap(), 1);
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_can_get_no_slots_learns_what_is_wrong_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    *store.closed.lock().unwrap() = Some(BackendErrorKind::Unavailable);
    let orchestrator = Orchestrator::builder().build_over(Arc::clone(&store) as Arc<dyn StateBackend>);
    let run = orchestrator.scope(async { limited() }).await;
    let error = soon(&run).await.unwrap_err();
    let expected = "cannot share limits in the faulty store, which could not be told of this process: the door is shut";
    assert!(error.is_crashed() && error.to_string().ends_with(expected), "{error}");
    assert_eq!(run.state().name, "Crashed");
}

#[flow]
async fn uses_a_limit() -> Result<u32, TaskError> {
    limited().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_run_whose_history_is_lost_crashes_though_it_failed_by_itself() {
    for strict in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = Faulty::open(folder.path(), 1);
        let backend = Arc::clone(&store) as Arc<dyn StateBackend>;
        let orchestrator = Orchestrator::builder().strict(strict).build_over(backend);
        orchestrator.scope(async { uses_a_limit().await.unwrap() }).await;
        store.full.store(true, Ordering::SeqCst);
        let run = orchestrator.scope(async { uses_a_limit() }).await;
        let error = soon(&run).await.unwrap_err();
        assert_eq!((error.is_crashed(), run.state().name), (strict, if strict { "Crashed" } else { "Failed" }.into()));
        let why = "crashed: cannot trade in the faulty store: no space is left";
        assert!(error.to_string().ends_with(why), "{error}");
        assert!(error.first_cause().is_crashed() && error.first_cause().task_name() == "limited", "{error}");
        let history =
            "its history was not stored: cannot append_as in the faulty store: no space is left; it had failed";
        assert_eq!(error.to_string().contains(history), strict, "{error}");
        orchestrator.shutdown().await.unwrap_err();
    }
}

#[task]
async fn nothing() {}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_run_that_is_taken_over_during_a_shutdown_goes_on_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    let (taking, taken) = mpsc::channel();
    let (go, going) = mpsc::channel();
    let going = Mutex::new(going);
    store.watch(move |what| {
        if what == "take_over" {
            taking.send(()).unwrap();
            going.lock().unwrap().recv_timeout(SOON).unwrap();
        }
    });
    let one = Orchestrator::builder().lease(Duration::from_millis(600)).build_over(store);
    let id = killed(folder.path(), "goes_on");
    taken.recv_timeout(SOON).unwrap();
    let shutting = tokio::spawn({
        let one = one.clone();
        async move { one.shutdown().await }
    });
    while one.scope(async { nothing() }).await.await.is_ok() {}
    let error = one.resume(id).await.unwrap_err();
    assert!(error.is_not_resumable() && error.to_string().contains("is shut down"), "{error}");
    go.send(()).unwrap();
    soon(shutting).await.unwrap().unwrap();

    let next = Orchestrator::builder().home(folder.path()).build().await.unwrap();
    assert_eq!(next.resume(id).await.unwrap().state.name, "Completed");
    let states = next.states(id).await.unwrap();
    let names: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["Pending", "Running", "Crashed", "Running", "Crashed", "Running", "Completed"]);
    let said = states[5].message.as_deref().unwrap();
    assert!(said.ends_with("1 of 3 times"), "it did not crash in between: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_run_that_is_being_taken_over_is_left_to_whoever_does_that() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(folder.path(), 1);
    let (beats, taken_over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (beat, beating) = mpsc::channel();
    let beating = Mutex::new(beating);
    let counts = (Arc::clone(&beats), Arc::clone(&taken_over));
    store.watch(move |what| match what {
        "renew" => {
            counts.0.fetch_add(1, Ordering::SeqCst);
            let _ = beat.send(());
        }
        "take_over" => {
            counts.1.fetch_add(1, Ordering::SeqCst);
            // The keeper looks again meanwhile.
            let beating = beating.lock().unwrap();
            while beating.try_recv().is_ok() {}
            (0..4).for_each(|_| beating.recv_timeout(SOON).unwrap());
        }
        _ => {}
    });
    let one = Orchestrator::builder().lease(Duration::from_millis(600)).build_over(store);
    let id = killed(folder.path(), "waits_for_words");
    until(async || one.flow_run(id).await.unwrap().run_count == 2).await;
    let before = beats.load(Ordering::SeqCst);
    at_some_time(|| beats.load(Ordering::SeqCst) >= before + 8).await;
    assert_eq!(taken_over.load(Ordering::SeqCst), 1);
    // It is known here that nobody has asked for it.
    soon(one.shutdown()).await.unwrap();
    let states = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap().states(id.into()).unwrap();
    let last = states.last().unwrap();
    assert_eq!(last.name, "Crashed", "{states:?}");
    assert!(last.message.as_deref().unwrap().contains("it goes on another time"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_is_not_counted_before_anybody_sees_it_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "waits_for_words");
    let store = Faulty::open(folder.path(), 1);
    let other = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap();
    let uncounted = Arc::new(Mutex::new(Vec::new()));
    let found = Arc::clone(&uncounted);
    store.watch(move |what| {
        if what == "uncount" {
            found.lock().unwrap().push(other.flow_run(id).unwrap().unwrap().state.name);
        }
    });
    Orchestrator::builder().build_over(store).shutdown().await.unwrap();
    assert_eq!(*uncounted.lock().unwrap(), ["Running"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_of_runs_that_were_left_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on_once");
    let mut second = process::Process::start(&mut child(folder.path(), None, true));
    assert_eq!(second.says("holding "), id.to_string());
    second.kill();
    let leaves_it = Orchestrator::builder().home(folder.path()).build().await.unwrap();
    leaves_it.shutdown().await.unwrap();

    let store = Faulty::open(folder.path(), 1);
    let reads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&reads);
    store.watch(move |what| {
        count.fetch_add(u32::from(what == "flow_run"), Ordering::SeqCst);
    });
    let one = Orchestrator::builder().build_over(store);
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    assert_eq!(one.flow_run(id).await.unwrap().state.name, "Crashed");
}

#[test]
fn a_call_waits_until_it_is_known_what_goes_on_though_the_orchestrator_was_made_outside_of_a_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let store = Faulty::open(folder.path(), 1);
    let (taking, taken) = mpsc::channel();
    let (call, called) = mpsc::channel();
    let called = Mutex::new(called);
    store.watch(move |what| {
        if what == "take_over" {
            taking.send(()).unwrap();
            // A call that waits does not say so.
            let _ = called.lock().unwrap().recv_timeout(Duration::from_millis(300));
        }
    });
    let one = Orchestrator::builder().build_over(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let first = tokio::spawn({
            let one = one.clone();
            async move { one.scope(async { nothing().await }).await }
        });
        taken.recv_timeout(Duration::from_secs(20)).unwrap();
        let own = one.scope(async { goes_on(4) }).await;
        let _ = call.send(());
        assert_eq!(own.run_id(), id);
        assert_eq!(own.await.unwrap(), 6);
        first.await.unwrap().unwrap();
        assert_eq!(one.flow_runs(&FlowRunQuery::new()).await.unwrap().len(), 1);
    });
}
