//! Limits: what is asked for, who is served when, and what can never be served.

mod changes;
mod cycles;
mod rates;
mod waiting;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use orchestrator::SlotGuard;
use orchestrator::prelude::*;
use tokio::time::Instant;

use crate::door::{at_some_time, states};

const WAITED: [&str; 4] = ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"];

async fn until_waiting<T>(run: &TaskFuture<T>) {
    at_some_time(|| run.state().name == "AwaitingConcurrencySlot").await;
}

async fn until_running<T>(run: &TaskFuture<T>) {
    at_some_time(|| run.state().name == "Running").await;
}

/// How many slots of a limit are taken, and how many requests wait.
async fn taken(limit: &str) -> (u32, usize) {
    let limits = Orchestrator::current().limits().await.unwrap();
    limits.into_iter().find(|known| known.name == limit).map(|limit| (limit.taken, limit.waiting)).unwrap()
}

/// On the paused clock: what would never come fails instead of hanging.
async fn served<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(3600), future).await.expect("everybody is served at some time")
}

/// Lets everything go on that can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[orchestrator::test]
async fn never_more_at_a_time_than_slots() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[task(concurrency = "db")]
    async fn query(_n: u32) {
        MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
    Orchestrator::current().limit("db", 3).await.unwrap();
    query::map(0..100).await.unwrap();
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

#[orchestrator::test]
async fn first_come_first_served() {
    static ORDER: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    #[task(concurrency = "one")]
    async fn turn(n: u32) {
        ORDER.lock().unwrap().push(n);
        tokio::task::yield_now().await;
    }
    Orchestrator::current().limit("one", 1).await.unwrap();
    turn::map(0..50).await.unwrap();
    assert_eq!(*ORDER.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

#[orchestrator::test]
async fn a_wide_request_is_not_overtaken() {
    static ORDER: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    #[task(concurrency = ("pool", slots = 2))]
    async fn wide() {
        ORDER.lock().unwrap().push("wide");
    }
    #[task(concurrency = "pool")]
    async fn narrow() {
        ORDER.lock().unwrap().push("narrow");
    }
    Orchestrator::current().limit("pool", 2).await.unwrap();
    let held = concurrency("pool", 1).await.unwrap();
    let wide = wide();
    while wide.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
    let narrow = narrow();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(narrow.state().name, "AwaitingConcurrencySlot", "a slot is free, but not for who came later");
    drop(held);
    (&wide).await.unwrap();
    (&narrow).await.unwrap();
    assert_eq!(states(wide.run_id()).await, WAITED);
    assert_eq!(states(narrow.run_id()).await, WAITED);
    assert_eq!(*ORDER.lock().unwrap(), ["wide", "narrow"]);
}

#[orchestrator::test]
async fn several_names_are_taken_all_or_none() {
    #[task(concurrency = ["a", "b"])]
    async fn forward() {
        tokio::task::yield_now().await;
    }
    #[task(concurrency = ["b", "a"])]
    async fn backward() {
        tokio::task::yield_now().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 1).await.unwrap();
    orchestrator.limit("b", 1).await.unwrap();
    let held = concurrency("b", 1).await.unwrap();
    let waiting = forward();
    while waiting.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0, "nothing of `a` is held while `b` is waited for");
    drop(held);
    waiting.await.unwrap();
    for _ in 0..50 {
        let (one, other) = (forward(), backward());
        one.await.unwrap();
        other.await.unwrap();
    }
}

#[orchestrator::test]
async fn what_cannot_be_is_told_at_once() {
    #[task(concurrency = "bd")]
    async fn misspelt() {}
    #[task(concurrency = ("db", slots = 5))]
    async fn greedy() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 2).await.unwrap();
    orchestrator.limit("api", 2).await.unwrap();
    let run = misspelt();
    let error = (&run).await.unwrap_err().to_string();
    assert!(error.contains("there is no limit 'bd': known are 'api', 'db'"), "{error}");
    assert_eq!(states(run.run_id()).await, ["Pending", "Failed"]);
    let error = greedy().await.unwrap_err().to_string();
    assert!(error.contains("5 slots of limit 'db' were asked for, which has 2"), "{error}");
    assert!(concurrency("nothing", 1).await.unwrap_err().is_limit());
    let nameless = [
        orchestrator.limit(" ", 1).await.unwrap_err(),
        concurrency("", 1).await.unwrap_err(),
        rate_limit("").await.unwrap_err(),
    ];
    assert!(nameless.iter().all(|error| error.is_limit() && error.to_string().contains("a limit needs a name")));
    let error = greedy::configure().concurrency("").submit().await.unwrap_err().to_string();
    assert!(error.contains("a limit needs a name"), "{error}");
    assert!(rate_limit("db").await.unwrap_err().to_string().contains("is no rate limit"));
    assert!(orchestrator.limit("x", 1).slot_decay(-1.0).await.unwrap_err().to_string().contains("slot decay"));
}

#[orchestrator::test]
async fn tags_name_limits() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[task(tags = ["db", "unlimited"])]
    async fn query(_n: u32) {
        MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
    Orchestrator::current().limit("tag:db", 2).await.unwrap();
    query::map(0..20).await.unwrap();
    assert_eq!(MOST.load(Ordering::SeqCst), 2);
}

#[orchestrator::test]
async fn a_panic_gives_the_slot_back() {
    #[task(concurrency = "one")]
    async fn careless() {
        panic!("oops");
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    careless().await.unwrap_err();
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0);
    drop(tokio::time::timeout(Duration::from_secs(5), concurrency("one", 1)).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_and_threads_do_not_wait_for_each_other() {
    #[task(concurrency = ("slots_and_threads", limit = 1))]
    fn query(n: u32) -> u32 {
        n
    }
    #[task]
    fn outer(n: u32) -> u32 {
        tokio::runtime::Handle::current().block_on(async { query(n).await.unwrap() })
    }
    #[flow]
    async fn both() -> Result<usize, TaskError> {
        let nested = outer::map(0..20);
        let direct = query::map(20..60);
        Ok(nested.await?.len() + direct.await?.len())
    }
    let orchestrator = Orchestrator::builder().database_url("memory").blocking_threads(2).build().await.unwrap();
    let run = orchestrator.scope(async { both() }).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap(), 60);
}

#[orchestrator::test]
async fn a_guard_in_a_result_is_given_back_with_it() {
    #[task]
    async fn lock_it() -> Arc<SlotGuard> {
        Arc::new(concurrency("kept", 1).await.unwrap())
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("kept", 1).await.unwrap();
    let guard = lock_it().await.unwrap();
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 1);
    drop(guard);
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0);
}

#[orchestrator::test(start_paused = true)]
async fn guards_in_bodies_are_given_back_however_the_body_ends() {
    #[task]
    async fn panics() {
        let _guard = concurrency("one", 1).await.unwrap();
        panic!("oops");
    }
    #[task]
    async fn fails() -> Result<(), String> {
        let _guard = concurrency("one", 1).await.map_err(|error| error.to_string())?;
        Err("no luck".to_owned())
    }
    #[task(timeout_secs = 1)]
    async fn overruns() {
        let _guard = concurrency("one", 1).await.unwrap();
        std::future::pending::<()>().await;
    }
    #[task]
    async fn endless() {
        let _guard = concurrency("one", 1).await.unwrap();
        std::future::pending::<()>().await;
    }
    #[task(timeout_secs = 1)]
    async fn waits() {
        let _guard = concurrency("one", 1).await.unwrap();
    }
    Orchestrator::current().limit("one", 1).await.unwrap();
    let run = panics();
    assert!((&run).await.unwrap_err().is_panic());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Failed"]);
    assert_eq!(taken("one").await, (0, 0));
    fails().await.unwrap_err();
    assert_eq!(taken("one").await, (0, 0));
    let run = overruns();
    assert!((&run).await.unwrap_err().is_timed_out());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "TimedOut"]);
    assert_eq!(taken("one").await, (0, 0));
    let run = endless();
    while taken("one").await != (1, 0) {
        tokio::task::yield_now().await;
    }
    assert!(waits().await.unwrap_err().is_timed_out());
    assert_eq!(taken("one").await, (1, 0), "who timed out has left the queue");
    run.cancel();
    assert!((&run).await.unwrap_err().is_cancelled());
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(taken("one").await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_with_random_names_and_cancellations_give_every_slot_back() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    static ACTIVE: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];
    #[task]
    async fn step(held: Vec<usize>, inner: Vec<usize>) -> Result<(), String> {
        let enter = |held: &[usize]| {
            for limit in held {
                assert!(ACTIVE[*limit].fetch_add(1, Ordering::SeqCst) < limit + 1, "more than there are slots");
            }
        };
        struct Leave(Vec<usize>);
        impl Drop for Leave {
            fn drop(&mut self) {
                self.0.iter().for_each(|limit| {
                    ACTIVE[*limit].fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
        enter(&held);
        let leave = Leave(held.clone());
        tokio::task::yield_now().await;
        if inner.iter().all(|limit| !held.contains(limit)) {
            let names: Vec<_> = inner.iter().map(|limit| NAMES[*limit]).collect();
            // Whoever would wait for ever is told so, and everybody else goes on.
            if let Ok(guard) = concurrency(names, 1).await {
                enter(&inner);
                let leave = Leave(inner);
                tokio::task::yield_now().await;
                drop((leave, guard));
            }
        }
        drop(leave);
        Ok(())
    }
    let orchestrator = Orchestrator::in_memory();
    for (index, name) in NAMES.into_iter().enumerate() {
        orchestrator.limit(name, u32::try_from(index).unwrap() + 1).await.unwrap();
    }
    let seed = u64::from(std::process::id());
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut names = move |most: u64| {
        let count = random(most + 1);
        let mut names: Vec<usize> = (0..count).map(|_| usize::try_from(random(5)).unwrap()).collect();
        names.dedup();
        let mut seen = Vec::new();
        names.retain(|name| {
            !seen.contains(name) && {
                seen.push(*name);
                true
            }
        });
        (names, random(4) == 0)
    };
    let all = orchestrator.scope(async {
        let mut runs = Vec::new();
        for index in 0..2_000 {
            let ((held, cancelled), (inner, _)) = (names(4), names(2));
            let limits: Vec<_> = held.iter().map(|limit| NAMES[*limit]).collect();
            runs.push((step::configure().concurrency(limits).submit(held, inner), cancelled));
            if index % 10 == 0 {
                tokio::task::yield_now().await;
            }
            if index >= 20 && runs[index - 20].1 {
                runs[index - 20].0.cancel();
            }
        }
        for (run, cancelled) in runs {
            match run.await {
                Ok(()) => {}
                Err(error) => assert!(cancelled && error.is_cancelled(), "seed {seed}: {error}"),
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap_or_else(|_| panic!("seed {seed}: it hangs"));
    for limit in orchestrator.limits().await.unwrap() {
        assert_eq!((limit.taken, limit.waiting), (0, 0), "seed {seed}: {}", limit.name);
    }
    assert!(ACTIVE.iter().all(|active| active.load(Ordering::SeqCst) == 0), "seed {seed}");
}
