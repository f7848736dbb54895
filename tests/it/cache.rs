//! The cache: keys, expiry, single flight, and what is never cached.

use std::collections::HashMap;
use std::time::Duration;

use orchestrator::prelude::*;

use crate::door::{Calls, soon, states};

#[orchestrator::test(start_paused = true)]
async fn entries_expire_from_completion() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "10s")]
    async fn slow() -> usize {
        tokio::time::sleep(Duration::from_secs(60)).await;
        CALLS.one()
    }
    assert_eq!(slow().await.unwrap(), 1);
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(slow().await.unwrap(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(slow().await.unwrap(), 2);
}

#[orchestrator::test]
async fn keys_follow_values() {
    static CALLS: Calls = Calls::new();
    #[task(cache_policy = inputs)]
    async fn keyed(map: HashMap<String, i32>, x: f64, #[cache(skip)] _client: &str) -> usize {
        let _ = (map, x);
        CALLS.one()
    }
    let map = |pairs: &[(&str, i32)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<HashMap<_, _>>();
    assert_eq!(keyed(map(&[("a", 1), ("b", 2)]), 1.0, "one").await.unwrap(), 1);
    assert_eq!(keyed(map(&[("b", 2), ("a", 1)]), 1.0, "other").await.unwrap(), 1, "neither order nor client matter");
    assert_eq!(keyed(map(&[("a", 1), ("b", 2)]), 1.5, "one").await.unwrap(), 2);
    assert_eq!(keyed(map(&[("a", 1)]), 1.0, "one").await.unwrap(), 3);
}

mod before {
    use orchestrator::prelude::*;
    #[task(cache_ttl = "1h")]
    pub(super) async fn changed() -> u32 {
        1
    }
}

#[orchestrator::test]
async fn other_tasks_do_not_hit() {
    #[task(cache_ttl = "1h")]
    async fn changed() -> u32 {
        2
    }
    assert_eq!(before::changed().await.unwrap(), 1);
    assert_eq!(changed().await.unwrap(), 2);
}

#[orchestrator::test]
async fn an_argument_without_an_encoding_runs_uncached() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn of(x: f64) -> usize {
        let _ = x;
        CALLS.one()
    }
    let run = of(f64::NAN);
    assert_eq!((&run).await.unwrap(), 1);
    assert_eq!(of(f64::NAN).await.unwrap(), 2);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Completed"]);
    #[derive(Clone)]
    struct Opaque;
    #[task]
    async fn opaque(_x: Opaque) -> usize {
        CALLS.one()
    }
    let configured = opaque::configure().cache_ttl(Duration::from_secs(60));
    let shared = Opaque;
    assert_eq!(configured.submit(shared.clone()).await.unwrap(), 3);
    assert_eq!(configured.submit(shared).await.unwrap(), 4);
}

#[orchestrator::test]
async fn maps_with_keys_that_are_no_text_have_a_key() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn of(map: HashMap<(i32, bool), u8>) -> usize {
        let _ = map;
        CALLS.one()
    }
    assert_eq!(of(HashMap::from([((1, true), 1), ((2, false), 2)])).await.unwrap(), 1);
    assert_eq!(of(HashMap::from([((2, false), 2), ((1, true), 1)])).await.unwrap(), 1);
}

#[orchestrator::test]
async fn failures_are_not_cached_and_nothing_is_a_value() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn flaky() -> Result<Option<u32>, String> {
        if CALLS.one() == 1 { Err("first".into()) } else { Ok(None) }
    }
    flaky().await.unwrap_err();
    assert_eq!(flaky().await.unwrap(), None);
    assert_eq!(flaky().await.unwrap(), None);
    assert_eq!(CALLS.get(), 2);
}

#[orchestrator::test]
async fn a_cache_key_function_decides() {
    static CALLS: Calls = Calls::new();
    fn even(n: &u32) -> Option<String> {
        n.is_multiple_of(2).then(|| "even".to_owned())
    }
    #[task(cache_key = even, cache_ttl = "1h")]
    async fn of(n: u32) -> usize {
        let _ = n;
        CALLS.one()
    }
    assert_eq!(of(2).await.unwrap(), 1);
    assert_eq!(of(4).await.unwrap(), 1);
    assert_eq!(of(1).await.unwrap(), 2);
    assert_eq!(of(1).await.unwrap(), 3, "`None` is not cached");
}

#[orchestrator::test]
async fn refresh_ignores_and_replaces() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn of() -> usize {
        CALLS.one()
    }
    assert_eq!(of().await.unwrap(), 1);
    assert_eq!(of::configure().refresh_cache(true).submit().await.unwrap(), 2);
    assert_eq!(of().await.unwrap(), 2);
}

#[tokio::test]
async fn a_tasks_own_no_wins_over_a_global_refresh() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h", refresh_cache = false)]
    async fn kept() -> usize {
        CALLS.one()
    }
    #[task(cache_ttl = "1h")]
    async fn refreshed() -> usize {
        CALLS.one()
    }
    let orchestrator = Orchestrator::builder().database_url("memory").refresh_cache(true).build().await.unwrap();
    orchestrator
        .scope(async {
            assert_eq!((kept().await.unwrap(), kept().await.unwrap()), (1, 1));
            assert_eq!((refreshed().await.unwrap(), refreshed().await.unwrap()), (2, 3));
            let kept = kept::configure().tags(["a call with options"]);
            assert_eq!(kept.submit().await.unwrap(), 1, "a call that does not speak of it changes nothing");
            assert_eq!(kept.refresh_cache(true).submit().await.unwrap(), 4, "a call that does is asked first");
        })
        .await;
}

#[orchestrator::test]
async fn policies_combine() {
    static CALLS: Calls = Calls::new();
    #[task(cache_policy = inputs + run_id)]
    async fn in_run(n: u32) -> usize {
        let _ = n;
        CALLS.one()
    }
    #[flow]
    async fn twice() -> Result<(usize, usize), TaskError> {
        Ok((in_run(1).await?, in_run(1).await?))
    }
    assert_eq!(twice().await.unwrap(), (1, 1));
    assert_eq!(twice().await.unwrap(), (2, 2), "hits only within one flow run");
    #[task(cache_policy = inputs - "page")]
    async fn without(n: u32, page: u32) -> usize {
        let _ = (n, page);
        CALLS.one()
    }
    assert_eq!(without(1, 1).await.unwrap(), 3);
    assert_eq!(without(1, 2).await.unwrap(), 3);
    #[task(cache_policy = flow_parameters)]
    async fn per_parameters() -> usize {
        CALLS.one()
    }
    #[flow]
    async fn with(n: u32) -> Result<usize, TaskError> {
        let _ = n;
        per_parameters().await
    }
    assert_eq!((with(1).await.unwrap(), with(1).await.unwrap(), with(2).await.unwrap()), (4, 4, 5));
    #[task(cache_policy = none)]
    async fn never() -> usize {
        CALLS.one()
    }
    assert_ne!(never().await.unwrap(), never().await.unwrap());
}

#[orchestrator::test]
async fn equal_calls_at_the_same_time_execute_once() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn slow(n: u32) -> u32 {
        CALLS.one();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        n
    }
    assert_eq!(slow::map(vec![7; 1000]).await.unwrap(), vec![7; 1000]);
    assert_eq!(CALLS.get(), 1);
}

#[orchestrator::test]
async fn when_the_first_fails_the_next_takes_over() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn second_time() -> Result<usize, String> {
        let call = CALLS.one();
        tokio::task::yield_now().await;
        match call {
            1 => Err("first".into()),
            2 => panic!("second"),
            call => Ok(call),
        }
    }
    let runs: Vec<_> = (0..20).map(|_| second_time()).collect();
    let outcomes = futures::future::join_all(runs).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 2);
    assert_eq!(outcomes.iter().flatten().collect::<Vec<_>>(), vec![&3; 18]);
}

#[orchestrator::test(start_paused = true)]
async fn of_a_thousand_equal_calls_the_next_takes_over_however_the_first_ends() {
    static CALLS: [Calls; 4] = [const { Calls::new() }; 4];
    #[task(cache_ttl = "1h", timeout_secs = 60)]
    async fn of(end: usize) -> Result<usize, String> {
        let call = CALLS[end].one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        match (end, call) {
            (0, 1) => Err("first".into()),
            (1, 1) => panic!("first"),
            (2 | 3, 1) => std::future::pending().await,
            _ => Ok(call),
        }
    }
    for (end, calls) in CALLS.iter().enumerate() {
        let runs: Vec<_> = (0..1000).map(|_| of(end)).collect();
        if end == 2 {
            while calls.get() == 0 {
                tokio::task::yield_now().await;
            }
            runs[0].cancel();
        }
        let first = (&runs[0]).await.unwrap_err();
        assert_eq!(
            (first.is_panic(), first.is_cancelled(), first.is_timed_out()),
            (end == 1, end == 2, end == 3),
            "{first}"
        );
        for run in &runs[1..] {
            assert_eq!(run.await.unwrap(), 2, "end {end}");
        }
        assert_eq!(calls.get(), 2, "the body ran once more");
        let mut ran = 0;
        for run in &runs {
            ran += usize::from(states(run.run_id()).await.contains(&"Running".to_owned()));
        }
        assert_eq!(ran, 2, "the others are answered from the cache");
    }
}

#[orchestrator::test]
async fn the_source_alone_is_a_key() {
    static CALLS: Calls = Calls::new();
    #[task(cache_policy = task_source)]
    async fn sourced(n: u32) -> usize {
        let _ = n;
        CALLS.one()
    }
    assert_eq!((sourced(1).await.unwrap(), sourced(2).await.unwrap()), (1, 1), "arguments are not part of it");
    #[task(cache_policy = run_id)]
    async fn once_a_flow(n: u32) -> usize {
        let _ = n;
        CALLS.one()
    }
    #[flow]
    async fn twice() -> Result<(usize, usize), TaskError> {
        Ok((once_a_flow(1).await?, once_a_flow(2).await?))
    }
    assert_eq!((twice().await.unwrap(), twice().await.unwrap()), ((2, 2), (3, 3)));
    assert_ne!(once_a_flow(1).await.unwrap(), once_a_flow(1).await.unwrap(), "outside of flows each run is its own");
}

#[orchestrator::test]
async fn the_calls_own_word_wins_over_the_tasks() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h", refresh_cache)]
    async fn eager() -> usize {
        CALLS.one()
    }
    assert_eq!((eager().await.unwrap(), eager().await.unwrap()), (1, 2));
    assert_eq!(eager::configure().refresh_cache(false).submit().await.unwrap(), 2);
    #[task(cache_policy = none)]
    async fn uncached(n: u32) -> usize {
        let _ = n;
        CALLS.one()
    }
    let by_inputs = uncached::configure()
        .cache_policy(orchestrator::CachePolicy { inputs: true, ..orchestrator::CachePolicy::NONE });
    assert_eq!((by_inputs.submit(1).await.unwrap(), by_inputs.submit(1).await.unwrap()), (3, 3));
    assert_eq!(by_inputs.submit(2).await.unwrap(), 4);
}

#[orchestrator::test]
async fn a_run_does_not_wait_for_the_claim_of_its_own_ancestor() {
    #[task(cache_ttl = "1h")]
    async fn nested(#[cache(skip)] depth: u32, x: u32) -> Result<u32, TaskError> {
        if depth == 0 { Ok(x) } else { nested(depth - 1, x).await }
    }
    assert_eq!(nested(3, 7).await.unwrap(), 7);
}

#[orchestrator::test(start_paused = true)]
async fn whoever_computes_waits_for_nothing_that_others_hold() {
    #[task(cache_ttl = "1h")]
    async fn cached(x: u32) -> u32 {
        x
    }
    #[task]
    async fn outer(x: u32) -> Result<u32, TaskError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cached(x).await
    }
    #[flow(max_concurrent_tasks = 1)]
    async fn narrow() -> Result<u32, TaskError> {
        let first = outer(1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let second = cached(1);
        Ok(first.await? + second.await?)
    }
    assert_eq!(soon(narrow()).await.unwrap(), 2);
}

#[orchestrator::test]
async fn code_of_the_user_that_panics_around_a_key_means_no_cache() {
    #[derive(Clone)]
    struct Careless;
    impl serde::Serialize for Careless {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("no key")
        }
    }
    #[task(cache_ttl = "1h")]
    async fn of(_x: Careless) -> u32 {
        1
    }
    assert_eq!(of(Careless).await.unwrap(), 1);
}
