//! Why a run is where it is: every answer, as data and as a sentence. Those about a slow store and about other processes
//! are in `journal.rs` and `store.rs`.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use chrono::{Local, TimeDelta};
use orchestrator::prelude::*;
use orchestrator::{Explanation, FlowRun, RunId, State, TaskRunQuery, UnfinishedTasks, Why};
use tokio::sync::Notify;

use crate::door::{self, Calls, at_some_time};

async fn explain(run: impl Into<RunId>) -> Explanation {
    Orchestrator::current().explain(run).await.unwrap()
}

async fn until<T>(run: &TaskFuture<T>, state: &str) {
    at_some_time(|| run.state().name == state).await;
}

async fn until_explained(run: impl Into<RunId>, wanted: impl Fn(&Why) -> bool) -> Explanation {
    door::until_explained(&Orchestrator::current(), run, wanted).await
}

/// The time of day, with the date if that is not today.
fn clock(time: chrono::DateTime<chrono::Utc>) -> String {
    let time = time.with_timezone(&Local);
    let today = time.date_naive() == Local::now().date_naive();
    time.format(if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

#[task]
async fn endless() {
    std::future::pending::<()>().await;
}

#[orchestrator::test(start_paused = true)]
async fn a_retry_and_who_waits_for_its_result() {
    #[task(retries = 2, retry_delay_secs = 60)]
    async fn measure() -> Result<u32, String> {
        if RunContext::current().attempt() == 1 { Err("too dark".to_owned()) } else { Ok(1) }
    }
    #[task]
    async fn mean(values: Vec<u32>) -> u32 {
        values.iter().sum()
    }
    let (ready, first) = (measure::configure().retries(0).run_name("fails").submit(), measure());
    until(&first, "AwaitingRetry").await;
    let retry = explain(first.run_id()).await;
    let due = first.state().timestamp + TimeDelta::seconds(60);
    let Why::RetryAt { at, attempt: 2 } = retry.why else { panic!("{retry:?}") };
    let history = Orchestrator::current().states(first.run_id()).await.unwrap();
    let scheduled: Vec<_> = history.iter().map(|state| state.scheduled_time).collect();
    assert_eq!(scheduled, [None, None, Some(at)]);
    let record = Orchestrator::current().task_run(first.run_id()).await.unwrap();
    assert_eq!((record.state.scheduled_time, first.state().scheduled_time), (Some(at), Some(at)));
    assert!((at - due).abs() < TimeDelta::milliseconds(2), "{at} {due}");
    assert_eq!(retry.to_string(), format!("task run 'measure-1' waits until {} before attempt 2", clock(at)));

    let mean = mean(vec![first.clone()]);
    let waits = explain(mean.run_id()).await;
    assert_eq!(
        (waits.run_id, waits.name.as_str(), waits.state.name.as_str()),
        (mean.run_id().into(), "mean-0", "Pending")
    );
    assert_eq!(waits.to_string(), "task run 'mean-0' waits for 'measure-1', which is AwaitingRetry");
    let Why::Upstream(upstream) = waits.why else { panic!("{waits:?}") };
    let [of] = &upstream.first[..] else { panic!("{upstream:?}") };
    assert_eq!((upstream.count, of.run_id, &*of.name), (1, first.run_id().into(), "measure-1"));

    ready.await.unwrap_err();
    mean.await.unwrap();
}

#[orchestrator::test]
async fn several_upstream_runs_are_named_once_each_and_not_all() {
    #[task]
    async fn all(_values: Vec<u32>, _first: u32) {}
    #[task]
    async fn value(n: u32) -> u32 {
        if n > 0 {
            std::future::pending::<()>().await;
        }
        n
    }
    let values: Vec<_> = (0..6).map(value).collect();
    (&values[0]).await.unwrap();
    let all = all(values.clone(), &values[1]);
    let waits = explain(all.run_id()).await;
    let Why::Upstream(upstream) = &waits.why else { panic!("{waits:?}") };
    let names: Vec<_> = upstream.first.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["value-1", "value-2", "value-3", "value-4", "value-5"]);
    assert_eq!(
        waits.to_string(),
        "task run 'all-0' waits for 'value-1' (Running), 'value-2' (Running), 'value-3' (Running) and 2 more"
    );

    let many: Vec<_> = (0..1_000).map(value).collect();
    (&many[0]).await.unwrap();
    let last = all::configure().run_name("last").submit(many.clone(), &many[1]);
    let waits = explain(last.run_id()).await;
    let Why::Upstream(upstream) = &waits.why else { panic!("{waits:?}") };
    let ids: Vec<RunId> = upstream.first.iter().map(|run| run.run_id).collect();
    assert_eq!(ids, many[1..11].iter().map(|run| run.run_id().into()).collect::<Vec<RunId>>());
    assert_eq!(upstream.count, 999);
    assert!(waits.to_string().ends_with(" and 996 more"), "{waits}");
}

#[task]
async fn numbers() -> Vec<u32> {
    std::future::pending().await
}

#[task]
async fn sum(numbers: Vec<u32>) -> u32 {
    numbers.iter().sum()
}

#[orchestrator::test]
async fn a_map_that_is_not_expanded_is_told_by_what_it_waits_for() {
    #[task]
    async fn double(n: u32) -> u32 {
        n * 2
    }
    let numbers = numbers();
    until(&numbers, "Running").await;
    let sum = sum(double::map(numbers));
    assert_eq!(explain(sum.run_id()).await.to_string(), "task run 'sum-0' waits for 'numbers-0', which is Running");
}

/// There are more ways through them than anybody could go.
#[orchestrator::test]
async fn maps_that_take_the_results_of_maps_are_gone_through_once_each() {
    #[task]
    async fn add(a: u32, b: u32) -> u32 {
        a + b
    }
    let numbers = numbers();
    until(&numbers, "Running").await;
    let mut sums = add::map(&numbers, &numbers);
    for _ in 0..40 {
        sums = add::map(&sums, &sums);
    }
    let sum = sum(sums);
    assert_eq!(explain(sum.run_id()).await.to_string(), "task run 'sum-0' waits for 'numbers-0', which is Running");
}

#[orchestrator::test(start_paused = true)]
async fn a_delay_without_end_is_told() {
    #[task]
    async fn fails() -> Result<(), String> {
        Err("no".to_owned())
    }
    let run = fails::configure().retries(1).retry_delay(Duration::MAX).submit();
    until(&run, "AwaitingRetry").await;
    let retry = explain(run.run_id()).await;
    let Why::RetryAt { at, attempt: 2 } = retry.why else { panic!("{retry:?}") };
    assert_eq!(at.to_rfc3339(), "9999-12-31T23:59:59.999999+00:00");
    assert_eq!(retry.to_string(), format!("task run 'fails-0' waits until {} before attempt 2", clock(at)));
    run.cancel();
}

#[orchestrator::test]
async fn slots_who_holds_them_and_who_is_ahead() {
    #[task(concurrency = "db")]
    async fn load() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 3).await.unwrap();
    let guard = concurrency("db", 1).await.unwrap();
    let loads: Vec<_> = (0..5).map(|_| load()).collect();
    until(&loads[4], "AwaitingConcurrencySlot").await;
    let waits = explain(loads[4].run_id()).await;
    let Why::Slots(limits) = &waits.why else { panic!("{waits:?}") };
    let [db] = &limits[..] else { panic!("{limits:?}") };
    assert_eq!((db.limit.as_str(), db.wanted, db.slots, db.taken, db.ahead), ("db", 1, 3, 3, 2));
    let holders: Vec<_> =
        db.holders.iter().map(|holder| (holder.run_id, holder.name.as_deref(), holder.slots)).collect();
    let held = |index: usize| Some(loads[index].run_id().into());
    assert_eq!(holders, [(None, None, 1), (held(0), Some("load-0"), 1), (held(1), Some("load-1"), 1)]);
    assert!(db.holders.is_sorted_by_key(|holder| holder.since));
    assert!(db.holders[0].since < loads[0].state().timestamp);
    let since = |index: usize| clock(db.holders[index].since);
    assert_eq!(
        waits.to_string(),
        format!(
            "task run 'load-4' waits for a slot of limit 'db' (3 of 3 taken, 2 requests ahead of it), held by code \
             outside of any run since {}, 'load-0' since {} and 'load-1' since {}",
            since(0),
            since(1),
            since(2)
        )
    );
    drop(guard);
    until(&loads[2], "Running").await;
    orchestrator.limit("db", 0).await.unwrap();
    let shut = explain(loads[4].run_id()).await.to_string();
    assert_eq!(shut, "task run 'load-4' waits for a slot of limit 'db', which has none");
}

#[orchestrator::test(start_paused = true)]
async fn slots_that_come_back_by_time_are_held_by_nobody() {
    #[task(concurrency = ("api", slots = 2))]
    async fn call() {}
    Orchestrator::current().limit("api", 2).slot_decay(0.5).await.unwrap();
    call().await.unwrap();
    let second = call();
    until(&second, "AwaitingConcurrencySlot").await;
    let waits = explain(second.run_id()).await;
    let Why::Slots(limits) = &waits.why else { panic!("{waits:?}") };
    assert!(limits[0].holders.is_empty());
    assert_eq!(limits[0].slot_decay, Some(0.5));
    assert_eq!(
        waits.to_string(),
        "task run 'call-1' waits for 2 slots of limit 'api' (2 of 2 taken, 0.5 come back each second)"
    );
    second.await.unwrap();
}

#[orchestrator::test]
async fn a_body_that_runs_and_one_that_waits_for_slots() {
    #[task]
    async fn guarded() {
        let _guard = concurrency(["a", "b"], 1).await.unwrap();
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 1).await.unwrap();
    orchestrator.limit("b", 1).inactive().await.unwrap();
    let first = guarded();
    while orchestrator.limits().await.unwrap()[0].taken == 0 {
        tokio::task::yield_now().await;
    }
    let runs = explain(first.run_id()).await;
    let since = first.state().timestamp;
    assert_eq!(runs.why, Why::Running { since, attempt: 1, slots: Vec::new() });
    assert_eq!(runs.to_string(), format!("task run 'guarded-0' has been running attempt 1 since {}", clock(since)));
    let second = guarded();
    let waits = until_explained(
        second.run_id(),
        |why| matches!(why, Why::Running { slots, .. } if slots.len() == 1 && slots[0].limit == "a"),
    )
    .await;
    let said = waits.to_string();
    assert!(
        said.contains("; its body waits for a slot of limit 'a' (1 of 1 taken), held by 'guarded-0' since "),
        "{said}"
    );
}

#[orchestrator::test]
async fn the_capacity_of_a_flow() {
    #[flow(run_name = "otter", max_concurrent_tasks = 2)]
    async fn narrow() {
        for _ in 0..3 {
            drop(endless());
        }
    }
    let run = narrow();
    let orchestrator = Orchestrator::current();
    let third = loop {
        if let Some(third) = orchestrator.task_runs(run.run_id()).await.unwrap().get(2) {
            break third.id;
        }
        tokio::task::yield_now().await;
    };
    let waits = until_explained(third, |why| matches!(why, Why::FlowCapacity { .. })).await;
    assert_eq!(
        waits.to_string(),
        "task run 'endless-2' waits for its turn in flow run 'otter', which runs at most 2 tasks at a time"
    );
    let Why::FlowCapacity { flow, at_most: 2 } = waits.why else { panic!("{waits:?}") };
    assert_eq!(flow.run_id, run.run_id().into());

    let children = until_explained(run.run_id(), |why| matches!(why, Why::Children(_))).await;
    assert_eq!(
        children.to_string(),
        "flow run 'otter' has run its body, and waits for 'endless-0' (Running), 'endless-1' (Running) and \
         'endless-2' (AwaitingConcurrencySlot). 2 of its task runs are running, and 1 waits: 'endless-2', which waits for \
         its turn in flow run 'otter', which runs at most 2 tasks at a time"
    );
}

#[task(concurrency = "db")]
async fn load(_n: usize) -> usize {
    std::future::pending().await
}

#[task]
async fn after(_n: usize) -> usize {
    std::future::pending().await
}

#[task(retries = 1, retry_delay_secs = 3600)]
async fn fetch() -> Result<(), String> {
    Err("no route".to_owned())
}

#[flow(run_name = "otter")]
async fn inner_flow() {
    drop(load(9));
}

#[flow(run_name = "wren")]
async fn many_reasons() {
    let loads: Vec<_> = (0..5).map(load).collect();
    for load in &loads {
        drop(after(load));
        drop(after(load));
    }
    drop((endless(), fetch(), inner_flow()));
}

/// Counts, examples and reasons.
fn reasons(tasks: &UnfinishedTasks) -> Vec<(u64, &str, &Why)> {
    tasks.reasons.iter().map(|group| (group.count, &*group.example.name, &group.why)).collect()
}

#[tokio::test]
async fn what_the_tasks_of_a_flow_wait_for_is_told_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = [(), ()].map(|()| Orchestrator::builder().home(folder.path()).build());
    let (own, other) = (own.await.unwrap(), other.await.unwrap());
    own.limit("db", 2).await.unwrap();
    let run = own.scope(async { many_reasons() }).await;
    let settled = |tasks: &UnfinishedTasks| {
        let waits = |(_, _, why): &(_, _, &Why)| matches!(why, Why::Slots(_) | Why::Upstream(_) | Why::RetryAt { .. });
        (tasks.running, tasks.waiting, tasks.reasons.len()) == (3, 14, 3) && reasons(tasks).iter().all(waits)
    };
    // What another process tells is what is in the store, of the newest runs first.
    for (orchestrator, load) in [(&own, "load-2"), (&other, "load-2")] {
        let told = loop {
            let told = orchestrator.explain(run.run_id()).await.unwrap();
            if told.tasks.as_ref().is_some_and(settled) {
                break told;
            }
            own.states(run.run_id()).await.unwrap();
            own.find_task_runs(&TaskRunQuery::new()).await.unwrap();
            tokio::task::yield_now().await;
        };
        assert_eq!(told.elsewhere.is_some(), std::ptr::eq(orchestrator, &other));
        let tasks = told.tasks.as_ref().unwrap();
        let [
            (10, "after-0", Why::Upstream(upstream)),
            (3, slots, Why::Slots(limits)),
            (1, "fetch-0", Why::RetryAt { .. }),
        ] = &reasons(tasks)[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((*slots, &*upstream.first[0].name), (load, "load-0"));
        assert_eq!((&*limits[0].limit, limits[0].taken, limits[0].slots), ("db", 2, 2));
        let said = told.to_string();
        let begins = ". 3 of its task runs are running, and 14 wait: 10 like 'after-0', which waits for 'load-0', which is \
            Running; 3 like 'load-2', which waits for a slot of limit 'db' (2 of 2 taken), held by 'load-0'";
        assert!(said.contains(begins), "{said}");
        assert!(said.contains("; 'fetch-0', which waits until "), "{said}");
    }
    run.cancel();
    assert_eq!(run.wait().await.name, "Cancelled");
    assert_eq!(own.explain(run.run_id()).await.unwrap().tasks, None);
}

/// Each is looked at once, and nothing is asked of the limits for each.
#[orchestrator::test]
async fn of_very_many_tasks_the_reasons_are_counted() {
    #[flow(run_name = "wren")]
    async fn wide(n: usize) {
        drop(load::map(0..n));
    }
    const MANY: usize = 20_000;
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 1).await.unwrap();
    let run = wide(MANY);
    while orchestrator.limits().await.unwrap()[0].waiting < MANY - 1 {
        tokio::task::yield_now().await;
    }
    let told = until_explained(run.run_id(), |why| matches!(why, Why::Children(_))).await;
    let tasks = told.tasks.unwrap();
    assert_eq!((tasks.running, tasks.waiting), (1, MANY as u64 - 1));
    let [(_, "load-1", Why::Slots(limits))] = &reasons(&tasks)[..] else { panic!("{tasks:?}") };
    assert_eq!((&*limits[0].limit, limits[0].ahead), ("db", 0));
    run.cancel();
}

#[orchestrator::test]
async fn a_pause_and_the_runs_that_it_holds() {
    #[flow(run_name = "otter")]
    async fn asks() -> Result<(), orchestrator::Error> {
        let (paused, _) = tokio::join!(pause_flow_run().message("is it right?"), endless());
        paused
    }
    let run = asks();
    let paused = until_explained(run.run_id(), |why| matches!(why, Why::Paused { .. })).await;
    let Why::Paused { flow, pause } = &paused.why else { panic!("{paused:?}") };
    let (since, until) = (clock(pause.since), clock(pause.until.unwrap()));
    assert_eq!((flow.run_id, flow.state.name.as_str()), (run.run_id().into(), "Paused"));
    let said = format!("has been paused since {since}, until somebody lets it on, at most until {until}: is it right?");
    assert!(paused.to_string().starts_with(&format!("flow run 'otter' {said}. 1 ")), "{paused}");

    let task = Orchestrator::current().task_runs(run.run_id()).await.unwrap()[0].id;
    let held = until_explained(task, |why| *why != Why::Starting).await;
    let held = held.to_string();
    assert_eq!(held, format!("task run 'endless-0' waits for flow run 'otter', which {said}"));
    let both = explain(run.run_id()).await.to_string();
    let holds =
        ". 1 of its task runs waits: 'endless-0', which waits for flow run 'otter', which has been paused since ";
    assert!(both.contains(holds), "{both}");
    Orchestrator::current().resume_paused(run.run_id(), ()).await.unwrap();
    until_explained(task, |why| matches!(why, Why::Running { .. })).await;
    let children = until_explained(run.run_id(), |why| !matches!(why, Why::Paused { .. })).await;
    assert!(matches!(children.why, Why::Running { attempt: 1, .. }), "its body waits for the task: {children}");
}

#[orchestrator::test(start_paused = true)]
async fn a_body_that_runs_again_does_not_wait_for_children_any_more() {
    #[task]
    async fn slow() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    #[task(retries = 1)]
    async fn twice() -> Result<(), String> {
        if RunContext::current().attempt() == 2 {
            std::future::pending::<()>().await;
        }
        drop(slow());
        Err("no luck".to_owned())
    }
    let run = twice();
    let waits = until_explained(run.run_id(), |why| matches!(why, Why::Children(_))).await;
    assert_eq!(waits.to_string(), "task run 'twice-0' has run its body, and waits for 'slow-0', which is Running");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(explain(run.run_id()).await.why, Why::Running { attempt: 2, .. }));
}

#[tokio::test]
async fn a_thread_and_a_body_that_does_not_stop() {
    #[task]
    fn blocks(begun: &Mutex<Option<std::sync::mpsc::Sender<()>>>, end: &Mutex<std::sync::mpsc::Receiver<()>>) {
        begun.lock().unwrap().take();
        let _ = end.lock().unwrap().recv();
    }
    #[task]
    fn quick() {}
    let orchestrator = Orchestrator::builder().database_url("memory").blocking_threads(1).build().await.unwrap();
    orchestrator
        .scope(async {
            let ((begun, begins), (end, ends)) = (channel(), channel());
            let first = blocks(Mutex::new(Some(begun)), Mutex::new(ends));
            tokio::task::spawn_blocking(move || begins.recv()).await.unwrap().unwrap_err();
            let second = quick();
            let waits = until_explained(second.run_id(), |why| *why == Why::Thread).await;
            assert_eq!(waits.to_string(), "task run 'quick-0' waits for a thread of the blocking pool");
            first.cancel();
            let ends = until_explained(first.run_id(), |why| *why == Why::Cancelling).await;
            assert_eq!(ends.to_string(), "task run 'blocks-0' was cancelled, and is about to end");
            drop(end);
            assert!((&first).await.unwrap_err().is_cancelled());
            assert_eq!(explain(first.run_id()).await.to_string(), "task run 'blocks-0' ended as Cancelled: on request");
            second.await.unwrap();
        })
        .await;
}

#[orchestrator::test]
async fn another_run_that_computes_the_same() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn expensive(_n: u32) -> u32 {
        CALLS.one();
        std::future::pending().await
    }
    let first = expensive(1);
    until(&first, "Running").await;
    let second = expensive(1);
    let waits = until_explained(second.run_id(), |why| *why != Why::Starting).await;
    assert_eq!(
        waits.to_string(),
        "task run 'expensive-1' waits for 'expensive-0', which is Running and computes the same cached result"
    );
    let Why::SameKey(other) = waits.why else { panic!("{waits:?}") };
    assert_eq!(other.run_id, first.run_id().into());
    first.cancel();
    until(&second, "Running").await;
    assert!(matches!(explain(second.run_id()).await.why, Why::Running { .. }));
    assert_eq!(CALLS.get(), 2);
}

#[orchestrator::test]
async fn the_beginning_and_the_end() {
    #[task(run_name = "load-{n}")]
    async fn load(n: u32) -> Result<u32, String> {
        if n == 0 { Err("disk on fire".to_owned()) } else { Ok(n) }
    }
    #[task]
    async fn next(_n: u32) {}
    let (run, fails) = (load(1), load(0));
    let next = next(&fails);
    let begins = explain(run.run_id()).await;
    assert_eq!((&begins.why, begins.state.name.as_str()), (&Why::Starting, "Pending"));
    assert_eq!(begins.to_string(), "task run 'load-0' waits for nothing, and begins in a moment");
    (&run).await.unwrap();
    let ended = explain(run.run_id()).await;
    assert_eq!((&ended.why, ended.name.as_str(), &ended.state), (&Why::Ended, "load-1", &run.state()));
    assert_eq!(ended.to_string(), "task run 'load-1' ended as Completed");
    (&next).await.unwrap_err();
    assert_eq!(explain(fails.run_id()).await.to_string(), "task run 'load-0' ended as Failed: disk on fire");
    assert_eq!(
        explain(next.run_id()).await.to_string(),
        "task run 'next-0' ended as NotReady: upstream task run 'load-0' failed: disk on fire"
    );
    let other = Orchestrator::in_memory();
    assert!(other.explain(run.run_id()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_subflows_of_a_flow_and_what_they_wait_for() {
    #[task(concurrency = "billing")]
    async fn charge() {}
    #[task]
    async fn asks_for_a_bill() -> Result<(), orchestrator::FlowError> {
        bill("second".to_owned()).await
    }
    #[flow(run_name = "{name}-customer")]
    async fn customer(name: String) -> Result<(), TaskError> {
        let _ = name;
        let (first, second) = tokio::join!(charge(), charge());
        first.and(second)
    }
    #[flow(run_name = "{name}-bill")]
    async fn bill(name: String) -> Result<(), orchestrator::FlowError> {
        customer(name).await
    }
    #[flow(run_name = "month-end")]
    async fn month_end() -> Result<(), orchestrator::FlowError> {
        let first = bill("first".to_owned());
        let _ = asks_for_a_bill().await;
        first.await
    }
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = [(), ()].map(|()| Orchestrator::builder().home(folder.path()).build());
    let (own, other) = (own.await.unwrap(), other.await.unwrap());
    own.limit("billing", 0).await.unwrap();
    let run = own.scope(async { month_end() }).await;
    for orchestrator in [&own, &other] {
        let told = loop {
            let told = orchestrator.explain(run.run_id()).await.unwrap();
            let inner = told.flows.as_ref().filter(|flows| flows.count == 2).and_then(|flows| flows.flows.as_ref());
            let is_waiting = inner
                .and_then(|inner| inner.tasks.as_ref())
                .is_some_and(|tasks| tasks.waiting == 2 && tasks.reasons.len() == 1);
            let is_running = told.tasks.as_ref().is_some_and(|tasks| tasks.running == 1);
            if is_waiting && is_running && matches!(told.why, Why::Running { .. }) {
                break told;
            }
            own.find_task_runs(&TaskRunQuery::new()).await.unwrap();
            own.flow_runs(&orchestrator::FlowRunQuery::new()).await.unwrap();
            tokio::task::yield_now().await;
        };
        let flows = told.flows.as_ref().unwrap();
        assert_eq!((&*flows.example.name, &flows.tasks), ("first-bill", &None));
        assert!(matches!(flows.why, Why::Running { attempt: 1, .. }), "{told:?}");
        let inner = flows.flows.as_ref().unwrap();
        assert_eq!((inner.count, &*inner.example.name, &inner.flows), (1, "first-customer", &None));
        let [(2, _, Why::Slots(limits))] = &reasons(inner.tasks.as_ref().unwrap())[..] else { panic!("{told:?}") };
        assert_eq!((&*limits[0].limit, limits[0].slots), ("billing", 0));
        let said = told.to_string();
        let tasks = said.split_once(". 1 of its task runs is running. ").map(|(_, flows)| flows);
        let flows = "2 of its subflows have not ended, such as 'first-bill', which has been running attempt 1 since ";
        assert!(tasks.is_some_and(|tasks| tasks.starts_with(flows)), "{said}");
        let inner = " (1 of its subflows has not ended: 'first-customer', which has been running attempt 1 since ";
        assert!(said.contains(inner), "{said}");
        let waits = " (2 of its task runs wait: 2 like 'charge-";
        assert!(
            said.contains(waits) && said.ends_with("which waits for a slot of limit 'billing', which has none))"),
            "{said}"
        );
    }
    run.cancel();
    assert_eq!(run.wait().await.name, "Cancelled");
    assert_eq!(own.explain(run.run_id()).await.unwrap().flows, None);
}

#[tokio::test]
async fn a_subflow_that_is_left_in_its_hooks_hides_no_other() {
    static HOOK_MAY_END: Notify = Notify::const_new();
    async fn lingers(_: &FlowRun, _: &State) {
        HOOK_MAY_END.notified().await;
    }
    #[flow(on_completion = [lingers])]
    async fn quick() {}
    #[flow(run_name = "slow")]
    async fn slow() {
        std::future::pending().await
    }
    #[flow]
    async fn outer() -> Result<(), orchestrator::FlowError> {
        let first = quick();
        let second = slow();
        first.await?;
        second.await
    }
    let orchestrator = Orchestrator::in_memory();
    let run = orchestrator.scope(async { outer() }).await;
    let told = loop {
        let told = orchestrator.explain(run.run_id()).await.unwrap();
        let runs = orchestrator.flow_runs(&orchestrator::FlowRunQuery::new()).await.unwrap();
        let completed = runs.iter().any(|run| run.flow_name == "quick" && run.state.is_terminal());
        if completed && told.flows.as_ref().is_some_and(|flows| matches!(flows.why, Why::Running { .. })) {
            break told;
        }
        tokio::task::yield_now().await;
    };
    let flows = told.flows.unwrap();
    assert_eq!((flows.count, &*flows.example.name), (1, "slow"));
    HOOK_MAY_END.notify_one();
    run.cancel();
    run.wait().await;
}

#[tokio::test]
async fn a_run_of_another_orchestrator() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = [(), ()].map(|()| Orchestrator::builder().home(folder.path()).build());
    let (own, other) = (own.await.unwrap(), other.await.unwrap());
    let run = own.scope(async { endless() }).await;
    until(&run, "Running").await;
    assert!(matches!(own.explain(run.run_id()).await.unwrap().why, Why::Running { .. }));
    own.states(run.run_id()).await.unwrap();
    let elsewhere = other.explain(run.run_id()).await.unwrap();
    assert!(matches!(&elsewhere.why, Why::Running { attempt: 1, .. }), "{elsewhere:?}");
    assert_eq!(elsewhere.elsewhere.as_ref().map(|elsewhere| elsewhere.pid), Some(std::process::id()));
    let said = elsewhere.to_string();
    assert!(said.starts_with("task run 'endless-0' has been running attempt 1 since "), "{said}");
    assert!(said.contains("; it belongs to another orchestrator of this process, last heard of at "), "{said}");
    run.cancel();
}
