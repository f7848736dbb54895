//! Code of the user's that panics where nobody expects it: in destructors, wakers, subscribers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use orchestrator::Retention;
use orchestrator::prelude::*;
use tokio::sync::Semaphore;

use crate::door::states;

#[task]
async fn fine() -> u32 {
    1
}

#[task]
async fn endless() {
    std::future::pending().await
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("bomb");
        }
    }
}

#[orchestrator::test(start_paused = true)]
async fn a_result_that_panics_when_it_is_dropped_keeps_nobody_waiting() {
    #[task]
    async fn armed() -> Arc<Bomb> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Arc::new(Bomb)
    }
    #[flow]
    async fn careless() {
        drop(armed());
    }
    tokio::time::timeout(Duration::from_secs(5), careless()).await.unwrap().unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_waiting() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    #[task]
    async fn slow() -> u32 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        1
    }
    #[flow]
    async fn polls_once() -> Result<u32, TaskError> {
        let run = slow();
        let mut polled = run.clone();
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut polled).poll(&mut Context::from_waker(&waker)).is_pending());
        let result = run.await;
        drop(polled);
        result
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), polls_once()).await.unwrap();
    assert_eq!(ended.unwrap(), 1, "whoever waits behind that waker is told, and so is the flow");
}

#[orchestrator::test(start_paused = true)]
async fn a_panic_whose_value_panics_when_it_is_dropped_is_a_failure_like_others() {
    #[task]
    async fn odd() {
        std::panic::panic_any(Bomb);
    }
    let error = odd().await.unwrap_err();
    assert!(error.to_string().contains("panicked: with a value that is no text"), "{error}");
}

#[orchestrator::test]
async fn an_argument_that_panics_when_it_is_dropped_does_not_change_the_result() {
    struct Armed(bool);
    impl Clone for Armed {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Drop for Armed {
        fn drop(&mut self) {
            assert!(!self.0, "argument");
        }
    }
    #[task(retries = 1)]
    async fn takes(_armed: Armed) -> u32 {
        5
    }
    assert_eq!(takes(Armed(true)).await.unwrap(), 5);
}

#[orchestrator::test]
async fn an_error_may_do_anything_when_it_is_dropped() {
    static SIBLING: Mutex<Option<TaskFuture<()>>> = Mutex::new(None);
    #[derive(Debug)]
    struct LetsGo(Mutex<Option<TaskFuture<()>>>);
    impl std::fmt::Display for LetsGo {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("lets go of another run")
        }
    }
    impl std::error::Error for LetsGo {}
    impl Drop for LetsGo {
        fn drop(&mut self) {
            // Looks into the table of the flow's runs.
            if let Some(run) = self.0.lock().unwrap().take() {
                run.detach();
            }
        }
    }
    #[task]
    async fn fails() -> Result<(), LetsGo> {
        Err(LetsGo(Mutex::new(SIBLING.lock().unwrap().clone())))
    }
    #[flow]
    async fn many() {
        *SIBLING.lock().unwrap() = Some(endless());
        for _ in 0..80 {
            fails().await.unwrap_err();
        }
        SIBLING.lock().unwrap().take();
    }
    many().await.unwrap();
}

#[test]
fn a_subscriber_that_panics_changes_nothing() {
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            assert_ne!(event.metadata().target(), "orchestrator::run", "subscriber");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let orchestrator = Orchestrator::in_memory();
    let states = tracing::subscriber::with_default(Panics, || {
        runtime.block_on(orchestrator.scope(async {
            let run = fine();
            assert_eq!((&run).await.unwrap(), 1);
            states(run.run_id()).await
        }))
    });
    assert_eq!(states, ["Pending", "Running", "Completed"]);
}

#[test]
fn a_program_that_panics_is_not_taken_for_the_engine() {
    static LEFT: Mutex<Option<TaskFuture<()>>> = Mutex::new(None);
    static BEGAN: AtomicBool = AtomicBool::new(false);
    let orchestrator = Orchestrator::in_memory();
    let program = std::panic::AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(orchestrator.scope(async {
            let run = endless();
            tokio::task::yield_now().await;
            BEGAN.store(true, Ordering::SeqCst);
            *LEFT.lock().unwrap() = Some(run);
            panic!("the program's own");
        }));
    });
    std::panic::catch_unwind(program).unwrap_err();
    assert!(BEGAN.load(Ordering::SeqCst));
    let state = LEFT.lock().unwrap().take().unwrap().state();
    assert_eq!(state.name, "Crashed");
    assert_eq!(state.message.unwrap(), "the tokio runtime was shut down while the run was active");
}

/// A clock that panics once, when it is asked next.
#[derive(Debug, Clone, Default)]
struct Breaks(Arc<AtomicBool>);

impl orchestrator::Clock for Breaks {
    fn now(&self) -> orchestrator::Timestamp {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the clock breaks");
        orchestrator::SystemClock.now()
    }
}

/// Lets a body go, at the latest when the test has failed.
struct LetsGo(&'static std::sync::OnceLock<()>);

impl Drop for LetsGo {
    fn drop(&mut self) {
        let _ = self.0.set(());
    }
}

/// The flow run ends before what it called: its driver is gone.
#[tokio::test]
async fn what_a_run_leaves_behind_when_the_engine_panics_is_found_and_waited_for() {
    static LET_GO: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    #[task]
    fn stubborn() {
        LET_GO.wait();
    }
    #[flow]
    async fn calls() -> Result<(), TaskError> {
        stubborn().await
    }
    let lets_go = LetsGo(&LET_GO);
    let clock = Breaks::default();
    let orchestrator = Orchestrator::builder().database_url("memory").clock(clock.clone()).build().await.unwrap();
    let run = orchestrator.scope(async { calls() }).await;
    let child = loop {
        match &orchestrator.task_runs(run.run_id()).await.unwrap()[..] {
            [task] if task.state.name == "Running" => break task.id,
            _ => tokio::task::yield_now().await,
        }
    };
    let mut cancelled = std::pin::pin!(orchestrator.cancel(run.run_id()));
    assert!(futures::poll!(&mut cancelled).is_pending());
    // The flow run's driver is the first to ask.
    clock.0.store(true, Ordering::SeqCst);
    cancelled.await.unwrap();
    assert!((&run).await.unwrap_err().is_crashed());
    assert_eq!(orchestrator.task_run(child).await.unwrap().state.name, "Cancelling");
    assert!(matches!(orchestrator.explain(child).await.unwrap().why, orchestrator::Why::Cancelling));
    let mut shut_down = std::pin::pin!(orchestrator.shutdown());
    assert!(futures::poll!(&mut shut_down).is_pending());
    drop(lets_go);
    tokio::time::timeout(Duration::from_secs(20), shut_down).await.unwrap().unwrap();
    assert_eq!(orchestrator.task_run(child).await.unwrap().state.name, "Cancelled");
}

/// The rollback goes on without the run that opened the transaction, and so does the commit.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_transaction_is_waited_for_though_the_engine_panicked() {
    static BEGAN: Semaphore = Semaphore::const_new(0);
    static LET_GO: Semaphore = Semaphore::const_new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    async fn takes_its_time(_: &u32) {
        BEGAN.add_permits(1);
        LET_GO.acquire().await.unwrap().forget();
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    #[task(on_commit = takes_its_time, on_rollback = takes_its_time)]
    async fn step() -> u32 {
        1
    }
    #[flow]
    async fn calls(goes_on: bool) -> Result<(), TaskError> {
        transaction(async {
            step().await?;
            BEGAN.add_permits(1);
            if goes_on {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
        .await
    }
    for (goes_on, what, signals) in [(true, "rollback", 1), (false, "commit", 2)] {
        let clock = Breaks::default();
        let orchestrator = Orchestrator::builder().database_url("memory").clock(clock.clone()).build().await.unwrap();
        let run = orchestrator.scope(async { calls(goes_on) }).await;
        BEGAN.acquire_many(signals).await.unwrap().forget();
        let mut cancelled = std::pin::pin!(orchestrator.cancel(run.run_id()));
        assert!(futures::poll!(&mut cancelled).is_pending());
        // The flow run's driver is the first to ask.
        clock.0.store(true, Ordering::SeqCst);
        cancelled.await.unwrap();
        assert!(run.await.unwrap_err().is_crashed());
        if goes_on {
            BEGAN.acquire().await.unwrap().forget();
        }
        let mut shut_down = std::pin::pin!(orchestrator.shutdown());
        let early = tokio::time::timeout(Duration::from_secs(3600), &mut shut_down).await;
        assert!(early.is_err(), "the {what} is going on");
        LET_GO.add_permits(1);
        shut_down.await.unwrap();
        assert_eq!(DONE.swap(0, Ordering::SeqCst), 1, "the {what} is over");
    }
}

/// The rollback ends after the run that opened the transaction, and nobody waits for what it writes.
#[tokio::test]
async fn a_store_that_others_hold_blocks_no_worker_after_the_engine_panicked() {
    static BEGAN: Semaphore = Semaphore::const_new(0);
    static LET_GO: Semaphore = Semaphore::const_new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    async fn takes_its_time(_: &u32) {
        BEGAN.add_permits(1);
        LET_GO.acquire().await.unwrap().forget();
        DONE.store(true, Ordering::SeqCst);
    }
    #[task(on_rollback = takes_its_time)]
    async fn step() -> u32 {
        1
    }
    #[flow]
    async fn calls() -> Result<(), TaskError> {
        transaction(async {
            step().await?;
            BEGAN.add_permits(1);
            std::future::pending().await
        })
        .await
    }
    let (folder, clock) = (tempfile::tempdir().unwrap(), Breaks::default());
    let builder = Orchestrator::builder().home(folder.path()).clock(clock.clone()).retention(Retention::off());
    let orchestrator = builder.build().await.unwrap();
    let run = orchestrator.scope(async { calls() }).await;
    BEGAN.acquire().await.unwrap().forget();
    let mut cancelled = std::pin::pin!(orchestrator.cancel(run.run_id()));
    assert!(futures::poll!(&mut cancelled).is_pending());
    // The flow run's driver is the first to ask.
    clock.0.store(true, Ordering::SeqCst);
    cancelled.await.unwrap();
    BEGAN.acquire().await.unwrap().forget();

    let other = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (goes_on, gone_on) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        let went_on = gone_on.recv_timeout(Duration::from_secs(10)).is_ok();
        other.execute_batch("COMMIT").unwrap();
        went_on
    });
    LET_GO.add_permits(1);
    while !DONE.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let _ = goes_on.send(());
    assert!(holder.join().unwrap(), "the only worker waited for the store");
    orchestrator.shutdown().await.unwrap();
}
