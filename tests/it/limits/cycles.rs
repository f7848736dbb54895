//! Runs that would wait for each other for ever, and those whose ancestors hold slots.

use super::*;

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
