//! Limits: what is asked for, who is served when, and what can never be served.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestrator::prelude::*;
use tokio::time::Instant;

use crate::door::states;

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
    wide.await.unwrap();
    narrow.await.unwrap();
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
    assert!(rate_limit("db").await.unwrap_err().to_string().contains("is no rate limit"));
    assert!(orchestrator.limit("x", 1).slot_decay(-1.0).await.unwrap_err().to_string().contains("slot decay"));
}

#[orchestrator::test]
async fn a_task_that_waits_for_its_ancestor_names_the_cycle() {
    #[task(concurrency = "one")]
    async fn inner() {}
    #[task(concurrency = "one")]
    async fn outer() -> Result<(), TaskError> {
        inner().await
    }
    Orchestrator::current().limit("one", 1).await.unwrap();
    let error = outer().await.unwrap_err().to_string();
    assert!(error.contains("cycle of slots"), "{error}");
    assert!(error.contains("'inner-0' waits for limit 'one', held by 'outer-0', which waits for 'inner-0'"), "{error}");
    let held = concurrency("one", 1).await.unwrap();
    drop(held);
}

#[orchestrator::test]
async fn two_that_wait_for_each_other_are_told() {
    static READY: AtomicUsize = AtomicUsize::new(0);
    #[task(concurrency = "x")]
    async fn takes_x() {}
    #[task(concurrency = "y")]
    async fn takes_y() {}
    async fn both_hold() {
        READY.fetch_add(1, Ordering::SeqCst);
        while READY.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    }
    #[task(concurrency = "x")]
    async fn x_then_y() -> Result<(), TaskError> {
        both_hold().await;
        takes_y().await
    }
    #[task(concurrency = "y")]
    async fn y_then_x() -> Result<(), TaskError> {
        both_hold().await;
        takes_x().await
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("x", 1).await.unwrap();
    orchestrator.limit("y", 1).await.unwrap();
    let (a, b) = tokio::join!(x_then_y(), y_then_x());
    let errors: Vec<_> = [a, b].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "one gives way, the other goes on");
    assert!(errors[0].to_string().contains("cycle of slots"), "{}", errors[0]);
}

#[orchestrator::test]
async fn a_nested_request_is_served_before_strangers() {
    #[task(concurrency = "two")]
    async fn inner() {}
    #[task(concurrency = ("two", slots = 2))]
    async fn stranger() {}
    #[task(concurrency = "two")]
    async fn outer() -> Result<(), TaskError> {
        let waiting = stranger_waits();
        waiting.await;
        inner().await
    }
    async fn stranger_waits() {
        while Orchestrator::current().limits().await.unwrap()[0].waiting == 0 {
            tokio::task::yield_now().await;
        }
    }
    Orchestrator::current().limit("two", 2).await.unwrap();
    let outer = outer();
    while outer.state().name != "Running" {
        tokio::task::yield_now().await;
    }
    let stranger = stranger();
    outer.await.unwrap();
    stranger.await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn a_rate_limit_lets_a_burst_through_and_then_so_many_a_second() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 3).slot_decay(2.0).await.unwrap();
    let start = Instant::now();
    let mut passed = Vec::new();
    for _ in 0..7 {
        rate_limit("api").await.unwrap();
        passed.push(u64::try_from(start.elapsed().as_millis()).unwrap());
    }
    let expected = [0, 0, 0, 500, 1000, 1500, 2000];
    assert!(passed.iter().zip(expected).all(|(at, due)| at.abs_diff(due) <= 2), "{passed:?}");
}

#[orchestrator::test(start_paused = true)]
async fn tasks_under_a_rate_limit_come_one_after_the_other() {
    #[task(concurrency = "api")]
    async fn call(_n: u32) -> Instant {
        Instant::now()
    }
    Orchestrator::current().limit("api", 1).slot_decay(4.0).await.unwrap();
    let start = Instant::now();
    let times: Vec<_> = call::map(0..5).await.unwrap().into_iter().map(|at| (at - start).as_millis()).collect();
    assert!(times.iter().zip([0, 250, 500, 750, 1000]).all(|(at, due)| at.abs_diff(due) <= 2), "{times:?}");
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
async fn a_limit_can_be_declared_where_it_is_used() {
    #[task(concurrency = ("pool", limit = 4))]
    async fn uses() {}
    uses().await.unwrap();
    let limits = Orchestrator::current().limits().await.unwrap();
    assert_eq!((limits[0].name.as_str(), limits[0].slots), ("pool", 4));
}

#[orchestrator::test]
async fn a_changed_limit_lets_waiters_through_at_once() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("door", 0).await.unwrap();
    #[task(concurrency = "door")]
    async fn through() {}
    let run = through();
    while run.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
    assert_eq!(run.state().message.as_deref(), Some("waits for a slot of limit 'door', which has none"));
    orchestrator.limit("door", 1).await.unwrap();
    run.await.unwrap();
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
    async fn lock_it() -> std::sync::Arc<orchestrator::SlotGuard> {
        std::sync::Arc::new(concurrency("kept", 1).await.unwrap())
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("kept", 1).await.unwrap();
    let guard = lock_it().await.unwrap();
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 1);
    drop(guard);
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0);
}

#[orchestrator::test]
async fn a_limit_that_is_no_rate_limit_any_more_counts_its_holders() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 1).slot_decay(1e-20).await.unwrap();
    rate_limit("api").await.unwrap();
    orchestrator.limit("api", 1).await.unwrap();
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0);
}

#[orchestrator::test]
async fn a_limit_that_shrinks_below_what_is_held_closes_a_cycle() {
    #[task(concurrency = "pool")]
    async fn inner() {}
    #[task(concurrency = "pool")]
    async fn outer() -> Result<(), TaskError> {
        inner().await
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).await.unwrap();
    let other = concurrency("pool", 1).await.unwrap();
    let run = outer();
    while orchestrator.limits().await.unwrap()[0].waiting == 0 {
        tokio::task::yield_now().await;
    }
    orchestrator.limit("pool", 1).await.unwrap();
    let error = run.await.unwrap_err().to_string();
    assert!(error.contains("cycle of slots"), "{error}");
    drop(other);
}
