//! Every option has an effect: of the attribute, of the call, of the orchestrator.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::backend::memory::MemoryBackend;
use orchestrator::prelude::*;
use orchestrator::{CachePolicy, Delay, Observed, Observer, OrchestratorBuilder, Retention};

use crate::door::{Calls, states};

#[task]
async fn failing() -> Result<(), String> {
    Err(format!("attempt {}", RunContext::current().attempt()))
}

async fn under<R>(builder: OrchestratorBuilder, test: impl Future<Output = R>) -> R {
    builder.database_url("memory").build().await.unwrap().scope(test).await
}

#[tokio::test(start_paused = true)]
async fn defaults_of_the_orchestrator_hold_where_a_task_says_nothing() {
    let clock = orchestrator::TokioClock::new();
    let builder = Orchestrator::builder().clock(clock).retries(1).retry_delay(Duration::from_secs(5));
    under(builder, async {
        let run = failing();
        assert_eq!((&run).await.unwrap_err().to_string(), "task run 'failing-0' failed: attempt 2");
        assert_eq!(states(run.run_id()).await, ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]);
        let own = failing::configure().retries(0).submit();
        (&own).await.unwrap_err();
        assert_eq!(states(own.run_id()).await, ["Pending", "Running", "Failed"], "the call's 0 is an answer");
    })
    .await;
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    under(Orchestrator::builder().task_timeout(Duration::from_secs(3)), async {
        assert!(endless().await.unwrap_err().is_timed_out());
    })
    .await;
}

#[orchestrator::test(start_paused = true)]
async fn call_options_replace_those_of_the_attribute() {
    #[task(retries = 5, retry_delay_secs = 100, timeout_secs = 50)]
    async fn slow() -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Err("late".into())
    }
    let start = tokio::time::Instant::now();
    let run = slow::configure()
        .retries(2)
        .retry_delay([Duration::from_secs(1), Duration::from_secs(2)])
        .timeout(Duration::from_secs(20))
        .submit();
    (&run).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 10 + 1 + 10 + 2 + 10);
    assert!(slow::configure().retries(0).timeout(Duration::from_secs(5)).submit().await.unwrap_err().is_timed_out());
    let start = tokio::time::Instant::now();
    let delay = Delay::Exponential { base: Duration::from_secs(1), max: Duration::from_secs(3) };
    failing::configure().retries(4).retry_delay(delay).submit().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 1 + 2 + 3 + 3);
}

#[orchestrator::test(start_paused = true)]
async fn exponential_delays_and_jitter() {
    #[task(retries = 3, retry_delay_secs = exponential(10, 25))]
    async fn backing_off() -> Result<(), String> {
        Err("no".into())
    }
    let start = tokio::time::Instant::now();
    backing_off().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 10 + 20 + 25);
    #[task(retries = 1, retry_delay_secs = 100, retry_jitter = 0.5)]
    async fn spread() -> Result<(), String> {
        Err("no".into())
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let start = tokio::time::Instant::now();
        spread().await.unwrap_err();
        let waited = start.elapsed().as_secs_f64();
        assert!((62.8..=150.1).contains(&waited), "{waited}");
        seen.insert(start.elapsed().as_millis());
    }
    assert!(seen.len() > 10, "the delays differ");
}

#[orchestrator::test]
async fn tags_names_limits_and_caching_at_the_call() {
    static CALLS: Calls = Calls::new();
    #[task(tags = ["declared"], concurrency = "none-such")]
    async fn plain() -> usize {
        CALLS.one()
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 2).await.unwrap();
    orchestrator.limit("api", 2).await.unwrap();
    let configured = plain::configure()
        .concurrency(["db", "api"])
        .tags(["b", "a"])
        .run_name("own name")
        .cache_ttl(Duration::from_secs(60));
    let run = configured.submit();
    assert_eq!((&run).await.unwrap(), 1);
    assert_eq!(configured.submit().await.unwrap(), 1);
    let uncached = plain::configure().concurrency("db").cache_policy(CachePolicy::NONE).submit().await.unwrap();
    assert_eq!(uncached, 2);
    let record = orchestrator.task_run(run.run_id()).await.unwrap();
    assert_eq!((record.name.as_str(), record.tags.as_slice()), ("own name", &["a".to_owned(), "b".to_owned()][..]));
    let wide = plain::configure().concurrency_slots("db", 3).submit().await.unwrap_err();
    assert!(wide.to_string().contains("3 slots of limit 'db' were asked for, which has 2"), "{wide}");
}

#[orchestrator::test]
async fn a_time_in_the_cache_of_nothing_is_refused_at_the_call() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h", retries = 2)]
    async fn plain(_n: u32) -> usize {
        CALLS.one()
    }
    #[flow]
    async fn forgets() -> Result<(), String> {
        let _run = plain::configure().cache_ttl(Duration::ZERO).submit(1);
        Ok(())
    }
    let nothing = plain::configure().cache_ttl(Duration::ZERO);
    let run = nothing.submit(1);
    let error = (&run).await.unwrap_err();
    let said = "task run 'plain-0' was refused: its `cache_ttl` is zero, but has to be more than that; \
                `cache_policy(CachePolicy::NONE)` switches caching off";
    assert_eq!(error.to_string(), said);
    assert_eq!(states(run.run_id()).await, ["Pending", "Failed"]);
    assert!(nothing.submit_map(vec![1, 2]).await.unwrap_err().to_string().contains("`cache_ttl` is zero"));
    let error = forgets().await.unwrap_err();
    assert!(error.to_string().contains("`cache_ttl` is zero"), "{error}");
    assert_eq!(CALLS.get(), 0);
}

#[orchestrator::test]
async fn a_timeout_of_nothing_and_a_jitter_below_it_are_refused_at_the_call() {
    static CALLS: Calls = Calls::new();
    #[task(retries = 2)]
    async fn plain() -> usize {
        CALLS.one()
    }
    let error = plain::configure().timeout(Duration::ZERO).submit().await.unwrap_err();
    assert!(error.to_string().ends_with("was refused: its `timeout` is zero, but has to be more than that"), "{error}");
    for jitter in [-1.0, f64::NAN, f64::INFINITY] {
        let error = plain::configure().retry_jitter(jitter).submit().await.unwrap_err();
        let said = format!("was refused: its `retry_jitter` is {jitter}, but has to be a number from 0 up");
        assert!(error.to_string().ends_with(&said), "{error}");
    }
    assert_eq!(CALLS.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocking_pool_is_bounded() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[task]
    fn busy(_n: u32) {
        MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
    #[task]
    fn nested(n: u32) -> u32 {
        // Waits for another sync body while it holds the only thread of the pool.
        tokio::runtime::Handle::current().block_on(async { busy(n).await.unwrap() });
        n
    }
    under(Orchestrator::builder().blocking_threads(2), async {
        busy::map(0..200).await.unwrap();
        assert!(MOST.load(Ordering::SeqCst) <= 2);
    })
    .await;
    under(Orchestrator::builder().blocking_threads(1), async {
        assert_eq!(nested::map(0..5).await.unwrap(), [0, 1, 2, 3, 4]);
    })
    .await;
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<String>>);

impl Observer for Seen {
    fn on_transition(&self, event: &Observed<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", event.name, event.transition.name));
    }
}

#[tokio::test]
async fn observers_see_every_transition_in_order() {
    let seen = Arc::new(Seen::default());
    under(Orchestrator::builder().observer(Arc::clone(&seen) as Arc<dyn Observer>), async {
        failing::configure().retries(1).submit().await.unwrap_err();
    })
    .await;
    assert_eq!(*seen.0.lock().unwrap(), ["failing-0 Running", "failing-0 Retrying", "failing-0 Failed"]);
}

#[tokio::test]
async fn options_that_cannot_be_are_told() {
    let jitter = Orchestrator::builder().database_url("memory").retry_jitter(-1.0).build().await.unwrap_err();
    assert_eq!(jitter.to_string(), "the retry jitter is -1: expected a number from 0 up");
    let timeout =
        Orchestrator::builder().database_url("memory").task_timeout(Duration::ZERO).build().await.unwrap_err();
    assert_eq!(timeout.to_string(), "the timeout of tasks is zero: expected more than that");
    let threads = Orchestrator::builder().database_url("memory").blocking_threads(0).build().await.unwrap_err();
    assert!(threads.to_string().contains("expected at least 1"), "{threads}");
    for nothing in [Retention::off().age(Duration::ZERO), Retention::default().runs(0)] {
        let refused = Orchestrator::builder().database_url("memory").retention(nothing).build().await.unwrap_err();
        let said =
            format!("the retention is {nothing}: that keeps no history at all; expected at least `1s` or `1 run`");
        assert!(refused.to_string().starts_with(&said), "{refused}");
        // One over a store of one's own has to come about.
        let anyway = Orchestrator::builder().retention(nothing).build_over(Arc::new(MemoryBackend::new()));
        assert_eq!(anyway.retention(), Retention::default());
    }
}

#[tokio::test]
async fn installed_is_what_runs_outside_of_scopes_use() {
    // The only test that touches what the whole process shares.
    let orchestrator = Orchestrator::in_memory();
    orchestrator.install();
    let run = failing();
    (&run).await.unwrap_err();
    assert!(orchestrator.task_run(run.run_id()).await.is_ok());
}

#[tokio::test]
async fn an_observer_that_panics_harms_no_run() {
    #[derive(Debug)]
    struct Careless;
    impl Observer for Careless {
        fn on_transition(&self, _event: &Observed<'_>) {
            panic!("seen too much");
        }
    }
    #[task]
    async fn fine() -> u32 {
        1
    }
    under(Orchestrator::builder().observer(Arc::new(Careless)), async {
        let run = fine();
        assert_eq!((&run).await.unwrap(), 1);
        assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
    })
    .await;
}
