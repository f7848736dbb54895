//! Limits that are changed while runs hold their slots and wait for them.

use super::*;
use crate::warnings::warnings;

#[orchestrator::test]
async fn a_limit_can_be_declared_where_it_is_used() {
    #[task(concurrency = ("pool", limit = 4))]
    async fn uses() {}
    uses().await.unwrap();
    let limits = Orchestrator::current().limits().await.unwrap();
    assert_eq!((limits[0].name.as_str(), limits[0].slots), ("pool", 4));
}

#[orchestrator::test]
async fn of_two_numbers_that_are_declared_the_first_stays_and_the_other_is_told() {
    #[task(concurrency = ("pool", limit = 4))]
    async fn first() {}
    #[task(concurrency = ("pool", limit = 5))]
    async fn second() {}
    let (said, _guard) = warnings();
    first().await.unwrap();
    assert_eq!(said.take(), "");
    second().await.unwrap();
    second().await.unwrap();
    let told = said.take();
    assert_eq!(
        told.matches("has 4 slots and keeps them, though a task declares it with `limit = 5`").count(),
        1,
        "{told}"
    );
    assert!(told.ends_with("`orchestrator.limit(\"pool\", 5)` changes it"), "{told}");
    assert_eq!(Orchestrator::current().limits().await.unwrap()[0].slots, 4);
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
