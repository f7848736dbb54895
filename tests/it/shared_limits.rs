//! Limits that several orchestrators share through one file: in this process, and in others.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestrator::Why;
use orchestrator::prelude::*;

use crate::door::{Calls, soon, states, until};
use crate::warnings::warnings;

pub(crate) async fn open(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).build().await.unwrap()
}

/// How many slots of a limit are taken, and how many requests wait.
async fn taken(orchestrator: &Orchestrator, limit: &str) -> (u32, usize) {
    let limits = orchestrator.limits().await.unwrap();
    limits.into_iter().find(|known| known.name == limit).map(|limit| (limit.taken, limit.waiting)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_held_by_one_of_two_orchestrators() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    one.limit("db", 1).await.unwrap();
    assert_eq!(other.limits().await.unwrap(), one.limits().await.unwrap());
    let held = one.scope(async { concurrency("db", 1).await.unwrap() }).await;
    assert_eq!(taken(&other, "db").await, (1, 0));
    let refused = other.scope(async { concurrency("db", 1).timeout(Duration::ZERO).await.unwrap_err() }).await;
    assert!(refused.is_timed_out(), "{refused}");
    assert!(
        refused.to_string().contains("(1 of 1 taken), held by code outside of any run of another orchestrator"),
        "{refused}"
    );
    let waits = tokio::spawn(other.scope(async { concurrency("db", 1).await.unwrap() }));
    until(async || taken(&one, "db").await == (1, 1)).await;
    let freed = Instant::now();
    drop(held);
    let next = soon(waits).await.unwrap();
    println!("handed over within {:?}", freed.elapsed());
    assert_eq!(taken(&one, "db").await, (1, 0));
    drop(next);
    until(async || taken(&one, "db").await == (0, 0)).await;
    for orchestrator in [one, other] {
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_at_a_time_than_slots_whoever_runs_them() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[task(concurrency = ("db", limit = 3))]
    async fn query(_n: u32) {
        MOST.fetch_max(ACTIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let begun = Instant::now();
    let runs = [&one, &other]
        .map(|orchestrator| tokio::spawn(orchestrator.scope(async { query::map(0..500).await.unwrap() })));
    for runs in runs {
        soon(runs).await.unwrap();
    }
    println!("1000 tasks in {:?}", begun.elapsed());
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    until(async || taken(&one, "db").await == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_finds_a_slot_does_not_wait() {
    #[task(concurrency = ("db", limit = 1))]
    async fn query() {}
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator
        .scope(async {
            let run = query();
            soon(&run).await.unwrap();
            assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_first_is_served_first_in_whatever_process() {
    static ORDER: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    #[task(concurrency = "one")]
    async fn turn(n: u32) {
        ORDER.lock().unwrap().push(n);
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    one.limit("one", 1).await.unwrap();
    let held = one.scope(async { concurrency("one", 1).await.unwrap() }).await;
    let mut runs = Vec::new();
    for n in 0..12 {
        let orchestrator = if n % 2 == 0 { &one } else { &other };
        runs.push(orchestrator.scope(async { turn(n) }).await);
        until(async || taken(&one, "one").await == (1, n as usize + 1)).await;
    }
    let last = soon(one.explain(runs[10].run_id())).await.unwrap();
    let Why::Slots(waits) = &last.why else { panic!("{last:?}") };
    assert_eq!((waits[0].taken, waits[0].holders.len()), (1, 1));
    drop(held);
    for run in runs {
        soon(run).await.unwrap();
    }
    assert_eq!(*ORDER.lock().unwrap(), (0..12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_another_process_keeps_back_are_ahead_as_well() {
    #[task(concurrency = "door")]
    async fn passes() {}
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    one.limit("door", 1).await.unwrap();
    let held = one.scope(async { concurrency("door", 1).await.unwrap() }).await;
    let waits = async |orchestrator: &Orchestrator, waiting: usize| {
        let run = orchestrator.scope(async { passes() }).await;
        until(async || taken(&one, "door").await == (1, waiting)).await;
        let id = run.run_id();
        until(async || one.task_run(id).await.is_ok_and(|run| run.state.name == "AwaitingConcurrencySlot")).await;
        run
    };
    let mut runs = Vec::new();
    // The first stands in the queue of the store, the others behind it in its process.
    for waiting in 1..=4 {
        runs.push(waits(&one, waiting).await);
    }
    let last = waits(&other, 5).await;
    runs.push(waits(&one, 6).await);
    for looker in [&one, &other] {
        let explained = soon(looker.explain(last.run_id())).await.unwrap();
        let Why::Slots(limits) = &explained.why else { panic!("{explained:?}") };
        assert_eq!((limits[0].ahead, limits[0].is_about), (4, true), "{explained}");
        assert!(explained.to_string().contains("about 4 requests ahead of it"), "{explained}");
    }
    let own = soon(one.explain(runs[3].run_id())).await.unwrap();
    let Why::Slots(limits) = &own.why else { panic!("{own:?}") };
    assert_eq!((limits[0].ahead, limits[0].is_about), (3, false), "nobody else keeps anything back: {own}");
    drop(held);
    runs.push(last);
    for run in runs {
        soon(run).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_limit_is_set_to_reaches_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let unknown = one.scope(async { concurrency("db", 1).await.unwrap_err() }).await;
    assert!(unknown.is_limit() && unknown.to_string().contains("there is no limit 'db'"), "{unknown}");
    other.limit("db", 1).await.unwrap();
    let wide = one.scope(async { concurrency("db", 2).await.unwrap_err() }).await;
    assert!(wide.is_limit(), "{wide}");
    let held = one.scope(async { concurrency("db", 1).await.unwrap() }).await;
    let waits = tokio::spawn(one.scope(async { concurrency("db", 1).await.unwrap() }));
    until(async || taken(&other, "db").await == (1, 1)).await;
    // A second slot is there, for whoever waits in any process.
    other.limit("db", 2).await.unwrap();
    let second = soon(waits).await.unwrap();
    // A limit that is not active lets everybody pass.
    let waits = tokio::spawn(one.scope(async { concurrency("db", 2).await.unwrap() }));
    until(async || taken(&other, "db").await == (2, 1)).await;
    other.limit("db", 2).inactive().await.unwrap();
    let third = soon(waits).await.unwrap();
    other.limit("db", 2).await.unwrap();
    assert_eq!(taken(&one, "db").await, (4, 0));
    // Who waits for what is there no more is told.
    let waits = tokio::spawn(one.scope(async { concurrency("db", 1).await.unwrap_err() }));
    until(async || taken(&other, "db").await == (4, 1)).await;
    assert!(other.remove_limit("db").await.unwrap());
    let gone = soon(waits).await.unwrap();
    assert!(gone.to_string().contains("there is no limit 'db'"), "{gone}");
    drop((held, second, third));
    // A tag's limit counts from the moment when it is there.
    #[task(tags = ["slow"])]
    async fn tagged() -> u32 {
        1
    }
    other.limit("tag:slow", 0).await.unwrap();
    // In a moment: whoever has looked just now does not look again.
    let run = loop {
        let run = one.scope(async { tagged() }).await;
        until(async || run.state().is_terminal() || run.state().name == "AwaitingConcurrencySlot").await;
        if !run.state().is_terminal() {
            break run;
        }
    };
    other.limit("tag:slow", 1).await.unwrap();
    assert_eq!(soon(run).await.unwrap(), 1);
}

#[tokio::test]
async fn a_declaration_that_says_another_number_than_is_stored_is_told_of_once() {
    #[task(concurrency = ("web", limit = 4))]
    async fn fetches() {}
    let folder = tempfile::tempdir().unwrap();
    let (said, _guard) = warnings();
    let first = open(folder.path()).await;
    first.scope(async { fetches().await.unwrap() }).await;
    assert_eq!(said.take(), "", "the declaration made it");
    first.limit("web", 2).await.unwrap();
    first.scope(async { fetches().await.unwrap() }).await;
    assert_eq!(said.take(), "", "this program has set it itself");
    first.shutdown().await.unwrap();
    let second = open(folder.path()).await;
    second
        .scope(async {
            for _ in 0..3 {
                soon(fetches()).await.unwrap();
            }
        })
        .await;
    assert_eq!(
        said.take(),
        "limit 'web' has 2 slots and keeps them, though a task declares it with `limit = 4`: that counts only where there \
         is no such limit yet. `orchestrator limits set web 4` changes it"
    );
    assert_eq!(second.limits().await.unwrap()[0].slots, 2);
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_rate_limit_come_back_by_time_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    one.limit("api", 5).slot_decay(50.0).await.unwrap();
    let begun = Instant::now();
    let calls = |orchestrator: &Orchestrator| {
        tokio::spawn(orchestrator.scope(async {
            for _ in 0..20 {
                rate_limit("api").await.unwrap();
            }
        }))
    };
    for calls in [calls(&one), calls(&other)] {
        soon(calls).await.unwrap();
    }
    // 5 at once, the others at 50 a second.
    let took = begun.elapsed();
    println!("40 calls in {took:?}");
    assert!(took >= Duration::from_millis(690), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_orchestrators_one_computes() {
    static BODIES: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn squared(n: u64) -> u64 {
        BODIES.one();
        tokio::task::yield_now().await;
        n * n
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let runs = [&one, &other]
        .map(|orchestrator| tokio::spawn(orchestrator.scope(async { squared::map(0..100).await.unwrap() })));
    for runs in runs {
        assert_eq!(soon(runs).await.unwrap()[99], 9801);
    }
    assert_eq!(BODIES.get(), 100);
}

/// An hour ahead of the system's clock.
#[derive(Debug)]
struct Ahead;

impl orchestrator::Clock for Ahead {
    fn now(&self) -> orchestrator::Timestamp {
        orchestrator::Clock::now(&orchestrator::SystemClock).after(Duration::from_secs(3600))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_goes_on_though_the_clock_went_back() {
    let folder = tempfile::tempdir().unwrap();
    let before = Orchestrator::builder().home(folder.path()).clock(Ahead).build().await.unwrap();
    before.limit("rate", 1).slot_decay(100.0).await.unwrap();
    before.scope(async { rate_limit("rate").await.unwrap() }).await;
    before.shutdown().await.unwrap();
    let after = Orchestrator::builder().home(folder.path()).build().await.unwrap();
    let passed = after.scope(async { rate_limit("rate").await });
    soon(passed).await.unwrap();
}
