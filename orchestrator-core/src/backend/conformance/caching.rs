//! Cases: the cache.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, at, cached, encoded, event, flow, looked, task, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{
    CacheHit, CacheKey, CacheLook, CacheReason, CacheRecord, CachedValue, EncodedValue, Event,
};
use crate::id::TaskRunId;
use crate::state::StateName::{Cached, Completed, Pending, Running};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a cached result comes back", comes_back),
    ("a cached result bears its times, and is there when it has expired", expires),
    ("a later result takes the place of an earlier one", overwritten),
    ("of many results the fresh ones stay", many),
    ("a cached value may be of any size", any_size),
    ("what a run found in the cache comes back with the run", looks),
];

fn find(backend: &Arc<dyn StateBackend>, key: CacheKey) -> Option<CacheHit> {
    backend.cached(&key).expect("look into the cache")
}

fn value(hit: Option<CacheHit>) -> Option<EncodedValue> {
    hit.map(|hit| match hit.value {
        CachedValue::Encoded(value) => value,
        CachedValue::Live(_) | CachedValue::Stored(_) => panic!("an encoded value came back as another one"),
    })
}

fn comes_back(backend: &Arc<dyn StateBackend>) {
    let record = cached(1, 10, None, b"one");
    assert!(find(backend, record.key).is_none(), "nothing was stored yet");
    backend.give(&[Event::Cached(Box::new(record.clone()))]);
    let hit = find(backend, record.key).expect("the result is there");
    assert_eq!((hit.run, hit.created, hit.expires), (record.run, at(10), None));
    assert_eq!(value(Some(hit)), Some(encoded(b"one")));
    assert!(find(backend, CacheKey([2; 32])).is_none(), "another key");
}

fn expires(backend: &Arc<dyn StateBackend>) {
    let record = cached(1, 10, Some(20), b"one");
    backend.give(&[Event::Cached(Box::new(record.clone()))]);
    for _ in 0..2 {
        let hit = find(backend, record.key).expect("looking does not delete it");
        assert_eq!((hit.created, hit.expires), (at(10), Some(at(20))));
        assert!(hit.is_fresh(at(19)), "a microsecond is left");
        assert!(!hit.is_fresh(at(20)), "it is not used from that moment on");
    }
}

fn overwritten(backend: &Arc<dyn StateBackend>) {
    let key = CacheKey([1; 32]);
    backend.give(&[Event::Cached(Box::new(cached(1, 10, Some(20), b"old")))]);
    backend.give(&[Event::Cached(Box::new(cached(1, 30, Some(40), b"new")))]);
    assert_eq!(value(find(backend, key)), Some(encoded(b"new")));
    assert_eq!(find(backend, key).and_then(|hit| hit.expires), Some(at(40)));
    backend.give(&[
        Event::Cached(Box::new(cached(1, 50, None, b"a"))),
        Event::Cached(Box::new(cached(1, 51, None, b"b"))),
    ]);
    assert_eq!(value(find(backend, key)), Some(encoded(b"b")), "the last one of a batch counts");
}

fn many(backend: &Arc<dyn StateBackend>) {
    let key = |n: i64, fresh: u8| {
        let mut key = [fresh; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        CacheKey(key)
    };
    let record = |n, fresh, expires| CacheRecord { key: key(n, fresh), ..cached(0, n, expires, &n.to_le_bytes()) };
    for batch in 0..20 {
        let numbers = batch * 250..(batch + 1) * 250;
        let records = numbers.flat_map(|n| [record(n, 0, Some(n + 1)), record(n, 1, Some(n + 1_000_000))]);
        backend.give(&records.map(|record| Event::Cached(Box::new(record))).collect::<Vec<_>>());
    }
    for n in 0..5_000 {
        assert!(find(backend, key(n, 0)).is_none_or(|hit| !hit.is_fresh(at(5_001))), "result {n} has expired");
        assert_eq!(value(find(backend, key(n, 1))), Some(encoded(&n.to_le_bytes())), "result {n} is fresh");
    }
}

fn any_size(backend: &Arc<dyn StateBackend>) {
    for (key, size) in [(1, 0), (2, 1), (3, 5_000), (4, 3_000_000)] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        backend.give(&[Event::Cached(Box::new(cached(key, 0, None, &bytes)))]);
        assert_eq!(value(find(backend, CacheKey([key; 32]))), Some(encoded(&bytes)), "{size} bytes");
    }
}

fn looks(backend: &Arc<dyn StateBackend>) {
    let run = TaskRunId::new(at(0));
    let (created, expires) = (at(1).to_datetime(), Some(at(2).to_datetime()));
    let reasons = [
        CacheReason::Found { run, created, expires },
        CacheReason::Found { run, created, expires: None },
        CacheReason::Awaited { run, created, expires },
        CacheReason::Staged { run },
        CacheReason::Persisted { run },
        CacheReason::Absent,
        CacheReason::Expired { at: created },
        CacheReason::Refreshed,
        CacheReason::Declined,
        CacheReason::Unkeyed { argument: Some("x".to_owned()), why: "NaN".to_owned() },
        CacheReason::Unkeyed { argument: None, why: "\"it\" panicked\n".to_owned() },
        CacheReason::OtherType { found: Some("Vec<u8>".to_owned()) },
        CacheReason::OtherType { found: None },
        CacheReason::OtherFormat { found: "msgpack/2".to_owned() },
        CacheReason::Unreadable { why: "too short".to_owned() },
    ];
    let outer = flow(0);
    for (n, reason) in (0..).zip(reasons) {
        let run = task_of(&outer, n);
        let key = matches!(n, 0..8).then_some(CacheKey([n as u8; 32]));
        let look = CacheLook::new(key, reason);
        backend.give(&[looked(event(&run, 0, &[(Pending, n), (Cached, n + 1)]), &look)]);
        assert_eq!(backend.task(&run).cache, Some(look));
    }
    // It may come later than the run, another one takes its place, and an event that comes again changes nothing.
    let run = task(50);
    let [absent, awaited] = [CacheReason::Absent, CacheReason::Expired { at: created }]
        .map(|reason| CacheLook::new(Some(CacheKey([9; 32])), reason));
    backend.give(&[event(&run, 0, &[(Pending, 50)])]);
    assert_eq!(backend.task(&run).cache, None, "it has not looked");
    let second = looked(event(&run, 1, &[(Running, 51)]), &absent);
    backend.give(std::slice::from_ref(&second));
    assert_eq!(backend.task(&run).cache.as_ref(), Some(&absent));
    backend.give(&[looked(event(&run, 2, &[(Completed, 52)]), &awaited)]);
    backend.give(&[second]);
    assert_eq!(backend.task(&run).cache, Some(awaited));
}
