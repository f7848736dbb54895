//! What the history says of a run's look into the cache: each reason for a hit or a miss.

use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{CacheLook, CacheReason, TransactionError};

use crate::door::{Calls, states};
use crate::warnings::warnings;

/// What the history has of the run's look into the cache.
async fn look<T>(run: &TaskFuture<T>) -> Option<CacheLook> {
    Orchestrator::current().task_run(run.run_id()).await.unwrap().cache
}

/// The reason, for runs that are cached.
async fn reason<T>(run: &TaskFuture<T>) -> CacheReason {
    look(run).await.unwrap().reason
}

#[task(cache_ttl = "10s")]
async fn double(n: u32) -> u32 {
    n * 2
}

#[orchestrator::test(start_paused = true)]
async fn a_miss_then_hits_then_an_expiry() {
    let first = double(1);
    (&first).await.unwrap();
    let miss = look(&first).await.unwrap();
    assert_eq!((miss.hit, &miss.reason), (false, &CacheReason::Absent));
    assert_eq!(miss.to_string(), "miss: nothing is cached under this key");
    let key = miss.key.unwrap();
    assert_eq!(key.to_string().len(), 64, "32 bytes in hexadecimal digits");

    let second = double(1);
    (&second).await.unwrap();
    assert_eq!(states(second.run_id()).await, ["Pending", "Cached"]);
    let hit = look(&second).await.unwrap();
    assert_eq!((hit.hit, hit.key), (true, Some(key)));
    let CacheReason::Found { run, created, expires } = hit.reason else { panic!("{hit}") };
    assert_eq!(run, first.run_id());
    assert_eq!(expires, Some(created + Duration::from_secs(10)));
    let said = hit.to_string();
    assert!(said.starts_with(&format!("hit: computed by run {run} at 20")), "{said}");
    assert!(said.contains("Z, expires at 20"), "{said}");

    let other = double(2);
    (&other).await.unwrap();
    let other = look(&other).await.unwrap();
    assert_eq!(other.reason, CacheReason::Absent);
    assert_ne!(other.key, Some(key), "another argument, another key");

    tokio::time::advance(Duration::from_secs(10)).await;
    let late = double(1);
    (&late).await.unwrap();
    let late = look(&late).await.unwrap();
    assert_eq!((late.key, late.reason), (Some(key), CacheReason::Expired { at: expires.unwrap() }));
}

#[orchestrator::test]
async fn a_result_without_an_expiry_says_so() {
    #[task(cache_policy = inputs)]
    async fn kept(n: u32) -> u32 {
        n
    }
    kept(1).await.unwrap();
    let hit = kept(1);
    (&hit).await.unwrap();
    let hit = look(&hit).await.unwrap();
    assert!(matches!(hit.reason, CacheReason::Found { expires: None, .. }), "{hit:?}");
    assert!(hit.to_string().ends_with("never expires"), "{hit}");
}

#[orchestrator::test]
async fn a_run_that_is_not_cached_did_not_look() {
    #[task]
    async fn plain() -> u32 {
        1
    }
    #[task(cache_policy = none)]
    async fn never() -> u32 {
        1
    }
    let (plain, never) = (plain(), never());
    let _ = (&plain).await.unwrap() + (&never).await.unwrap();
    assert_eq!((look(&plain).await, look(&never).await), (None, None));
}

#[orchestrator::test(start_paused = true)]
async fn whoever_waited_was_answered_by_the_run_it_waited_for() {
    #[task(cache_ttl = "1h")]
    async fn slow() -> u32 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        1
    }
    let runs: Vec<_> = (0..10).map(|_| slow()).collect();
    for run in &runs {
        run.await.unwrap();
    }
    assert_eq!(reason(&runs[0]).await, CacheReason::Absent);
    for run in &runs[1..] {
        let look = look(run).await.unwrap();
        assert!(look.hit);
        assert!(matches!(look.reason, CacheReason::Awaited { run, .. } if run == runs[0].run_id()), "{look:?}");
    }
    let said = look(&runs[1]).await.unwrap().to_string();
    assert!(said.starts_with(&format!("hit: run {} computed it meanwhile", runs[0].run_id())), "{said}");
}

#[orchestrator::test]
async fn a_transactions_staged_result_is_a_hit_inside() {
    #[task(cache_ttl = "1h")]
    async fn staged() -> u32 {
        1
    }
    let (first, second) = transaction(async {
        let first = staged();
        (&first).await.unwrap();
        let second = staged();
        (&second).await.unwrap();
        Ok::<_, TransactionError>((first, second))
    })
    .await
    .unwrap();
    assert_eq!(reason(&second).await, CacheReason::Staged { run: first.run_id() });
    let third = staged();
    (&third).await.unwrap();
    assert!(matches!(reason(&third).await, CacheReason::Found { run, .. } if run == first.run_id()));
}

#[orchestrator::test]
async fn a_refresh_is_a_miss() {
    let refresh = double::configure().refresh_cache(true);
    let runs = [refresh.submit(7), double(7)];
    for run in &runs {
        run.await.unwrap();
    }
    let refreshed = refresh.submit(7);
    (&refreshed).await.unwrap();
    assert_eq!(reason(&runs[0]).await, CacheReason::Refreshed);
    let refreshed = look(&refreshed).await.unwrap();
    assert_eq!((refreshed.hit, refreshed.reason), (false, CacheReason::Refreshed));
    assert_eq!(refreshed.key, look(&runs[1]).await.unwrap().key);
}

#[orchestrator::test]
async fn without_a_key_the_reason_says_why() {
    fn declines(n: &u32) -> Option<String> {
        assert_ne!(*n, 13, "no thirteen");
        None
    }
    #[task(cache_key = declines)]
    async fn declined(n: u32) -> u32 {
        n
    }
    #[task(cache_ttl = "1h")]
    async fn of(x: f64, y: f64) -> f64 {
        x + y
    }
    let (declined, panicked, unkeyed) = (declined(1), declined(13), of(1.0, f64::NAN));
    let _ = ((&declined).await.unwrap(), (&panicked).await.unwrap(), (&unkeyed).await.unwrap());
    let declined = look(&declined).await.unwrap();
    assert_eq!((declined.key, declined.hit, declined.reason), (None, false, CacheReason::Declined));
    let panicked = look(&panicked).await.unwrap();
    assert_eq!(panicked.key, None);
    let CacheReason::Unkeyed { argument: None, why } = panicked.reason else { panic!("{panicked}") };
    assert!(why.starts_with("its key function panicked:") && why.contains("no thirteen"), "{why}");
    let unkeyed = look(&unkeyed).await.unwrap();
    let CacheReason::Unkeyed { argument, why } = &unkeyed.reason else { panic!("{unkeyed}") };
    assert_eq!(argument.as_deref(), Some("y"));
    assert_eq!(unkeyed.to_string(), format!("not cached: argument `y` cannot be encoded: {why}"));
}

#[orchestrator::test]
async fn a_result_of_another_type_is_a_miss() {
    fn one<T>(_: &T) -> Option<String> {
        Some("one".to_owned())
    }
    #[task(cache_key = one)]
    async fn same<T: Clone + Send + Sync + serde::Serialize + serde::de::DeserializeOwned + 'static>(x: T) -> T {
        x
    }
    same(1_u8).await.unwrap();
    let other = same(true);
    assert!((&other).await.unwrap());
    assert_eq!(reason(&other).await, CacheReason::OtherType { found: None });
}

#[tokio::test]
async fn the_reasons_are_in_the_file_and_so_are_misses_over_what_is_damaged() {
    static CALLS: Calls = Calls::new();
    #[task(cache_ttl = "1h")]
    async fn stored(n: u32) -> u32 {
        CALLS.one();
        n
    }
    let folder = tempfile::tempdir().unwrap();
    let run = async || {
        let orchestrator = Orchestrator::builder().home(folder.path()).build().await.unwrap();
        let look = orchestrator
            .scope(async {
                let run = stored(5);
                assert_eq!((&run).await.unwrap(), 5);
                look(&run).await.unwrap()
            })
            .await;
        orchestrator.shutdown().await.unwrap();
        look
    };
    assert_eq!(run().await.reason, CacheReason::Absent);
    assert!(matches!(run().await.reason, CacheReason::Found { .. }));
    let connection = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    let (warned, _guard) = warnings();
    let damaged = async |damage: &str| {
        assert_eq!(connection.execute(damage, []).unwrap(), 1, "{damage}");
        let reason = run().await.reason;
        let warned = warned.take();
        assert_eq!(
            warned.matches("does not use the cache: miss").count(),
            1,
            "once, though it is looked at twice: {warned}"
        );
        reason
    };
    let other = damaged("UPDATE cache SET type_name = 'bool'").await;
    assert_eq!(other, CacheReason::OtherType { found: Some("bool".to_owned()) });
    let other = damaged("UPDATE cache SET format = 'x/9'").await;
    assert_eq!(other, CacheReason::OtherFormat { found: "x/9".to_owned() });
    let unreadable = damaged("UPDATE cache SET value = x'c1'").await;
    assert!(matches!(unreadable, CacheReason::Unreadable { .. }), "{unreadable:?}");
    assert_eq!(CALLS.get(), 4);
}

#[orchestrator::test]
async fn hooks_are_shown_the_look() {
    static SEEN: std::sync::Mutex<Vec<&str>> = std::sync::Mutex::new(Vec::new());
    fn note(run: &TaskRun, _: &State) {
        SEEN.lock().unwrap().extend(run.cache.as_ref().map(|look| look.reason.name()));
    }
    #[task(cache_ttl = "1h", on_completion = note)]
    async fn told() -> u32 {
        1
    }
    told().await.unwrap();
    told().await.unwrap();
    assert_eq!(*SEEN.lock().unwrap(), ["Absent", "Found"]);
}
