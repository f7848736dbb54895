//! Slots that come back by time.

use super::*;

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
async fn a_limit_that_is_no_rate_limit_any_more_counts_its_holders() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("api", 1).slot_decay(1e-20).await.unwrap();
    rate_limit("api").await.unwrap();
    orchestrator.limit("api", 1).await.unwrap();
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0);
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
