//! Limits: what is asked for, who is served when, and what can never be served.

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

use crate::door::states;

const WAITED: [&str; 4] = ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"];

async fn until_waiting<T>(run: &TaskFuture<T>) {
    while run.state().name != "AwaitingConcurrencySlot" {
        tokio::task::yield_now().await;
    }
}

async fn until_running<T>(run: &TaskFuture<T>) {
    while run.state().name != "Running" {
        tokio::task::yield_now().await;
    }
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
    let run = outer();
    let error = (&run).await.unwrap_err();
    let inner = error.first_cause().run_id().unwrap();
    let error = error.to_string();
    assert!(error.contains("cycle of slots"), "{error}");
    assert!(error.contains("'inner-0' waits for limit 'one', held by 'outer-0', which waits for 'inner-0'"), "{error}");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Failed"]);
    assert_eq!(states(inner).await, ["Pending", "Failed"]);
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

#[orchestrator::test(start_paused = true)]
async fn the_order_of_the_queue_closes_no_cycle() {
    #[task(concurrency = "a")]
    async fn takes_a() {}
    #[task(concurrency = "b")]
    async fn holds_b() -> Result<(), TaskError> {
        while taken("a").await.1 == 0 {
            tokio::task::yield_now().await;
        }
        // In the queue for `a` it is behind somebody who waits for `b`.
        takes_a().await
    }
    #[task(concurrency = "c")]
    async fn wants_both() {
        drop(concurrency(["a", "b"], 1).await.unwrap());
    }
    let orchestrator = Orchestrator::current();
    for name in ["a", "b", "c"] {
        orchestrator.limit(name, 1).await.unwrap();
    }
    let holds_b = holds_b();
    until_running(&holds_b).await;
    let wants_both = wants_both();
    served(holds_b).await.unwrap();
    served(wants_both).await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn those_beneath_a_run_that_takes_slots_later_go_before_strangers() {
    #[task(concurrency = "a")]
    async fn takes_a() {}
    #[task]
    async fn takes_b_while_its_child_waits() {
        let child = async {
            while taken("a").await.1 == 0 {
                tokio::task::yield_now().await;
            }
            takes_a().await.unwrap();
        };
        let (guard, ()) = tokio::join!(concurrency("b", 1), child);
        drop(guard.unwrap());
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 1).await.unwrap();
    orchestrator.limit("b", 1).await.unwrap();
    let held = concurrency("b", 1).await.unwrap();
    let run = takes_b_while_its_child_waits();
    while taken("b").await.1 == 0 {
        tokio::task::yield_now().await;
    }
    let mut stranger = concurrency(["a", "b"], 1);
    assert!((&mut stranger).now_or_never().is_none());
    while taken("a").await.1 < 2 {
        tokio::task::yield_now().await;
    }
    drop(held);
    let (run, stranger) = served(async { tokio::join!(run, stranger) }).await;
    run.unwrap();
    drop(stranger.unwrap());
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
    (&run).await.unwrap();
    assert_eq!(states(run.run_id()).await, WAITED);
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

#[orchestrator::test(start_paused = true)]
async fn a_wide_request_is_served_though_narrow_ones_keep_coming() {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    #[task(concurrency = "pool")]
    async fn narrow() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        SERVED.fetch_add(1, Ordering::SeqCst);
    }
    #[task(concurrency = ("pool", slots = 3))]
    async fn wide() -> usize {
        SERVED.load(Ordering::SeqCst)
    }
    Orchestrator::current().limit("pool", 3).await.unwrap();
    // One comes each second and stays for two: never are all three slots free by chance.
    let first: Vec<_> = (0..3).map(|_| narrow()).collect();
    until_running(&first[2]).await;
    let wide = wide();
    until_waiting(&wide).await;
    let mut later = Vec::new();
    for _ in 0..10 {
        later.push(narrow());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((&wide).await.unwrap(), 3, "it was served after those that came before it");
    assert_eq!(states(wide.run_id()).await, WAITED);
    for run in later {
        run.await.unwrap();
    }
}

#[orchestrator::test]
async fn a_request_for_several_names_is_not_starved_by_requests_for_one() {
    #[task(concurrency = ["a", "b"])]
    async fn both() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 1).await.unwrap();
    orchestrator.limit("b", 1).await.unwrap();
    let a = concurrency("a", 1).await.unwrap();
    let b = concurrency("b", 1).await.unwrap();
    let both = both();
    until_waiting(&both).await;
    let mut later_a = concurrency("a", 1);
    let mut later_b = concurrency("b", 1);
    assert!((&mut later_a).now_or_never().is_none());
    assert!((&mut later_b).now_or_never().is_none());
    drop(a);
    assert!((&mut later_a).now_or_never().is_none(), "`a` is free, but not for who came later");
    drop(b);
    both.await.unwrap();
    drop((later_a.await.unwrap(), later_b.await.unwrap()));
}

#[orchestrator::test(start_paused = true)]
async fn a_limit_that_shrinks_lets_nobody_in_until_enough_have_left() {
    #[task(concurrency = "pool")]
    async fn holds(secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 3).await.unwrap();
    let start = Instant::now();
    let holders: Vec<_> = [1, 2, 3].into_iter().map(holds).collect();
    until_running(&holders[2]).await;
    orchestrator.limit("pool", 1).await.unwrap();
    assert_eq!(taken("pool").await, (3, 0), "nobody is thrown out");
    let next = holds(1);
    until_waiting(&next).await;
    assert_eq!(next.state().message.as_deref(), Some("waits for a slot of limit 'pool' (3 of 1 taken)"));
    (&next).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 4);
    assert_eq!(states(next.run_id()).await, WAITED);
}

#[orchestrator::test]
async fn a_limit_that_grows_lets_as_many_in_as_fit() {
    #[task(concurrency = ("pool", slots = 2))]
    async fn wide() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).await.unwrap();
    let runs: Vec<_> = (0..4).map(|_| wide()).collect();
    until_running(&runs[0]).await;
    until_waiting(&runs[3]).await;
    orchestrator.limit("pool", 7).await.unwrap();
    settle().await;
    let names: Vec<_> = runs.iter().map(|run| run.state().name).collect();
    assert_eq!(names, ["Running", "Running", "Running", "AwaitingConcurrencySlot"]);
    runs.iter().for_each(TaskFuture::cancel);
    for run in &runs {
        assert!(run.await.unwrap_err().is_cancelled());
    }
    assert_eq!(states(runs[3].run_id()).await, ["Pending", "AwaitingConcurrencySlot", "Cancelling", "Cancelled"]);
    assert_eq!(taken("pool").await, (0, 0));
}

#[orchestrator::test]
async fn a_limit_that_becomes_too_small_fails_who_waits() {
    #[task(concurrency = ("pool", slots = 2))]
    async fn wide() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).await.unwrap();
    let held = concurrency("pool", 1).await.unwrap();
    let run = wide();
    until_waiting(&run).await;
    orchestrator.limit("pool", 1).await.unwrap();
    let error = (&run).await.unwrap_err().to_string();
    assert!(error.contains("2 slots of limit 'pool' were asked for, which has 1"), "{error}");
    assert_eq!(states(run.run_id()).await, ["Pending", "AwaitingConcurrencySlot", "Failed"]);
    drop(held);
    assert_eq!(taken("pool").await, (0, 0));
}

#[orchestrator::test]
async fn a_limit_that_is_not_active_lets_everybody_pass_and_remembers_them() {
    #[task(concurrency = "db")]
    async fn query() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 1).await.unwrap();
    let (first, second) = (query(), query());
    until_running(&first).await;
    until_waiting(&second).await;
    orchestrator.limit("db", 1).inactive().await.unwrap();
    until_running(&second).await;
    let third = query();
    until_running(&third).await;
    let wide = concurrency("db", 5).await.unwrap();
    let limit = orchestrator.limits().await.unwrap().remove(0);
    assert_eq!((limit.active, limit.slots, limit.taken, limit.waiting), (false, 1, 8, 0));

    orchestrator.limit("db", 3).await.unwrap();
    assert!(orchestrator.limits().await.unwrap()[0].active);
    drop(wide);
    let fourth = query();
    until_waiting(&fourth).await;
    assert_eq!(fourth.state().message.as_deref(), Some("waits for a slot of limit 'db' (3 of 3 taken)"));
    second.cancel();
    until_running(&fourth).await;
    assert_eq!(
        states(second.run_id()).await[..3],
        ["Pending", "AwaitingConcurrencySlot", "Running"],
        "it waited while the limit was active"
    );
    assert_eq!(states(third.run_id()).await, ["Pending", "Running"]);
}

#[orchestrator::test]
async fn whoever_waits_for_another_limit_keeps_its_place_in_one_that_is_not_active() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 0).await.unwrap();
    orchestrator.limit("b", 1).inactive().await.unwrap();
    let mut both = concurrency(["a", "b"], 1);
    assert!((&mut both).now_or_never().is_none());
    drop(concurrency("b", 1).await.unwrap());
    orchestrator.limit("b", 1).await.unwrap();
    let mut late = concurrency("b", 1);
    assert!((&mut late).now_or_never().is_none(), "it is behind the one that came first");
    orchestrator.limit("a", 1).await.unwrap();
    drop(both.await.unwrap());
    drop(late.await.unwrap());
}

#[orchestrator::test(start_paused = true)]
async fn a_rate_limit_that_is_not_active_limits_no_rate() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 1).slot_decay(0.1).await.unwrap();
    rate_limit("api").await.unwrap();
    orchestrator.limit("api", 1).slot_decay(0.1).inactive().await.unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        rate_limit("api").await.unwrap();
    }
    orchestrator.limit("api", 1).inactive().await.unwrap();
    rate_limit("api").await.unwrap();
    assert!(start.elapsed().is_zero());
    orchestrator.limit("api", 1).slot_decay(0.1).await.unwrap();
    rate_limit("api").await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(10), "what passed meanwhile does not count");
}

#[orchestrator::test]
async fn a_declared_limit_does_not_change_one_that_is_there() {
    #[task(concurrency = ("pool", limit = 4))]
    async fn uses() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).inactive().await.unwrap();
    uses().await.unwrap();
    let limit = orchestrator.limits().await.unwrap().remove(0);
    assert_eq!((limit.slots, limit.active), (2, false));
}

#[orchestrator::test(start_paused = true)]
async fn a_timeout_says_what_was_waited_for_and_who_holds_it() {
    #[task(concurrency = "db")]
    async fn load() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 2).await.unwrap();
    orchestrator.limit("door", 0).await.unwrap();
    let load = load();
    until_running(&load).await;
    let own = concurrency("db", 1).await.unwrap();
    let start = Instant::now();
    let error = concurrency(["db", "door"], 1).timeout(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(error.is_timed_out() && !error.is_limit(), "{error}");
    let said = error.to_string();
    let rest = said.strip_prefix("waited 5s for a slot of limit 'db' (2 of 2 taken), held by 'load-0' since ").unwrap();
    assert!(rest.contains(" and code outside of any run since "), "{said}");
    assert!(rest.ends_with(" and a slot of limit 'door', which has none"), "{said}");
    assert_eq!(taken("db").await, (2, 0), "the queue was left");
    let error = concurrency("db", 1).timeout(Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().starts_with("did not wait for a slot of limit 'db' (2 of 2 taken), held by"), "{error}");
    drop(own);
    drop(concurrency("db", 1).timeout(Duration::ZERO).await.unwrap());
    drop(concurrency("db", 1).timeout(Duration::MAX).await.unwrap());
}

#[orchestrator::test(start_paused = true)]
async fn a_request_that_times_out_lets_the_next_one_pass() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).await.unwrap();
    let held = concurrency("pool", 1).await.unwrap();
    let wide = concurrency("pool", 2).timeout(Duration::from_secs(3));
    let narrow = async {
        tokio::task::yield_now().await;
        let guard = concurrency("pool", 1).timeout(Duration::from_secs(10)).await.unwrap();
        (Instant::now(), guard)
    };
    let start = Instant::now();
    let (wide, (at, _guard)) = tokio::join!(wide, narrow);
    assert!(wide.unwrap_err().is_timed_out());
    assert_eq!((at - start).as_secs(), 3);
    drop(held);
}

#[orchestrator::test(start_paused = true)]
async fn a_rate_can_be_waited_for_so_long() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 2).slot_decay(0.5).await.unwrap();
    rate_limit("api").await.unwrap();
    rate_limit("api").await.unwrap();
    let error = rate_limit("api").timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.to_string(), "waited 1s for a slot of limit 'api' (2 of 2 taken, 0.5 come back each second)");
    rate_limit("api").timeout(Duration::from_secs(2)).await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn waiting_for_slots_works_with_what_works_with_futures() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    orchestrator.limit("two", 1).await.unwrap();
    let (one, two) = tokio::join!(concurrency("one", 1), concurrency("two", 1));
    let one = (one.unwrap(), two.unwrap()).0;
    tokio::time::timeout(Duration::from_secs(1), concurrency("one", 1)).await.unwrap_err();
    tokio::select! {
        _ = concurrency("one", 1) => panic!("it is held"),
        guard = concurrency("two", 1) => drop(guard.unwrap()),
    }
    assert_eq!(taken("one").await, (1, 0));
    drop(one);
    fn assert_send<T: Send + Unpin + 'static>(future: T) -> T {
        future
    }
    let names = vec!["one".to_owned(), "two".to_owned()];
    let guard = tokio::spawn(assert_send(concurrency(names, 1))).await.unwrap().unwrap();
    assert_eq!(guard.limits().collect::<Vec<_>>(), ["one", "two"]);
    drop(assert_send(rate_limit("one")));
}

#[orchestrator::test]
async fn the_queue_is_joined_at_the_first_poll_under_the_run_of_the_call() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let held = concurrency("one", 1).await.unwrap();
    let mut made_first = concurrency("one", 1);
    let mut polled_first = concurrency("one", 1);
    assert!((&mut polled_first).now_or_never().is_none());
    assert!((&mut made_first).now_or_never().is_none());
    drop(held);
    let guard = (&mut polled_first).now_or_never().unwrap().unwrap();
    assert!((&mut made_first).now_or_never().is_none());
    drop(guard);
    drop(made_first.await.unwrap());

    // Polled by a task of tokio's, which knows neither orchestrator nor run.
    let mut later = concurrency("one", 1);
    #[task]
    async fn elsewhere() -> Arc<Mutex<orchestrator::Acquiring>> {
        Arc::new(Mutex::new(concurrency("one", 1)))
    }
    let of_a_run = elsewhere().shared().await.unwrap();
    let of_a_run = std::mem::replace(&mut *of_a_run.lock().unwrap(), concurrency("one", 1));
    let guard = tokio::spawn(of_a_run).await.unwrap().unwrap();
    assert!((&mut later).now_or_never().is_none());
    drop(guard);
    drop(tokio::spawn(later).await.unwrap().unwrap());
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

#[orchestrator::test(start_paused = true)]
async fn a_rate_limit_that_was_left_alone_lets_a_burst_through_again() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 4).slot_decay(2.0).await.unwrap();
    let start = Instant::now();
    let mut passed = Vec::new();
    for burst in [6, 3, 5] {
        for _ in 0..burst {
            rate_limit("api").await.unwrap();
            passed.push(u64::try_from(start.elapsed().as_millis()).unwrap());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Four at once and two that wait; two came back meanwhile and one waits; two came back and three wait.
    let due = [0, 0, 0, 0, 500, 1000, 2000, 2000, 2500, 3500, 3500, 4000, 4500, 5000];
    assert!(passed.iter().zip(due).all(|(at, due)| at.abs_diff(due) <= 2), "{passed:?}");
    let wide = concurrency("api", 4).await.unwrap();
    assert!(start.elapsed().as_millis().abs_diff(7_000) <= 2, "{:?}", start.elapsed());
    drop(wide);
    assert_eq!(taken("api").await, (4, 0), "slots of a rate limit come back by time alone");
}

#[orchestrator::test]
async fn ten_thousand_that_wait_and_are_cancelled() {
    #[task(concurrency = "db")]
    async fn query(_n: u32) {
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn holds_and_starts() {
        // Its tasks could wait for it: each is asked whether that is a cycle.
        let _guard = concurrency("other", 1).await.unwrap();
        let runs: Vec<_> = (0..10_000).map(query).collect();
        until_waiting(&runs[9_999]).await;
        assert_eq!(taken("db").await, (2, 9_998));
        // From the middle first: no place in the queue is nearer than another.
        runs[5_000..].iter().chain(&runs[..5_000]).for_each(TaskFuture::cancel);
        for run in &runs {
            run.wait().await;
        }
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("other", 1).await.unwrap();
    orchestrator.limit("db", 2).await.unwrap();
    holds_and_starts().await.unwrap();
    assert_eq!(taken("db").await, (0, 0));
    assert_eq!(taken("other").await, (0, 0));
}

/// Calls the orchestrator when it is woken and when it is dropped, and may panic.
struct Reentrant {
    orchestrator: Orchestrator,
    panics: bool,
    woken: AtomicUsize,
}

impl Reentrant {
    fn new(panics: bool) -> Arc<Self> {
        Arc::new(Self { orchestrator: Orchestrator::current(), panics, woken: AtomicUsize::new(0) })
    }

    fn look(&self) {
        assert_eq!(self.orchestrator.limits().now_or_never().unwrap().unwrap().len(), 1);
    }
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.look();
        self.woken.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "a waker that panics");
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.look();
    }
}

fn poll(future: &mut orchestrator::Acquiring, waker: &Waker) -> Poll<Result<SlotGuard, orchestrator::Error>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[orchestrator::test]
async fn wakers_are_code_of_others() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 0).await.unwrap();
    let (first, second, third) = (Reentrant::new(false), Reentrant::new(true), Reentrant::new(false));
    let mut changed = concurrency("one", 1);
    assert!(poll(&mut changed, &first.into()).is_pending());
    // Dropping the first waker looks at the limits.
    assert!(poll(&mut changed, &Arc::clone(&second).into()).is_pending());
    let mut other = concurrency("one", 1);
    assert!(poll(&mut other, &Arc::clone(&third).into()).is_pending());
    orchestrator.limit("one", 1).await.unwrap();
    assert_eq!(second.woken.load(Ordering::SeqCst), 1);
    assert_eq!(third.woken.load(Ordering::SeqCst), 1, "another waker's panic is no concern of this one");
    drop((changed, second));
    drop(other.await.unwrap());
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
