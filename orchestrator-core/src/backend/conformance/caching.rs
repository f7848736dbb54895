//! Cases: the cache.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, at, cached, encoded};
use crate::backend::StateBackend;
use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, EncodedValue, Event};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a cached result comes back", comes_back),
    ("a cached result expires to the microsecond", expires),
    ("a later result takes the place of an earlier one", overwritten),
    ("many results: expired ones do not come back, fresh ones stay", many),
    ("a cached value may be of any size", any_size),
];

fn find(backend: &Arc<dyn StateBackend>, key: CacheKey, now: i64) -> Option<CacheHit> {
    backend.cached(&key, at(now)).expect("look into the cache")
}

fn value(hit: Option<CacheHit>) -> Option<EncodedValue> {
    hit.map(|hit| match hit.value {
        CachedValue::Encoded(value) => value,
        CachedValue::Live(_) => panic!("an encoded value came back as a live one"),
    })
}

fn comes_back(backend: &Arc<dyn StateBackend>) {
    let record = cached(1, 10, None, b"one");
    assert!(find(backend, record.key, 10).is_none(), "nothing was stored yet");
    backend.give(&[Event::Cached(record.clone())]);
    let hit = find(backend, record.key, 10).expect("the result is fresh");
    assert_eq!((hit.created, hit.expires), (at(10), None));
    assert_eq!(value(Some(hit)), Some(encoded(b"one")));
    assert!(find(backend, record.key, i64::MAX / 2).is_some(), "it never expires");
    assert!(find(backend, CacheKey([2; 32]), 10).is_none(), "another key");
}

fn expires(backend: &Arc<dyn StateBackend>) {
    let record = cached(1, 10, Some(20), b"one");
    backend.give(&[Event::Cached(record.clone())]);
    let hit = find(backend, record.key, 19).expect("a microsecond is left");
    assert_eq!((hit.created, hit.expires), (at(10), Some(at(20))));
    assert!(find(backend, record.key, 20).is_none(), "it counts as absent from that moment on");
    assert!(find(backend, record.key, 21).is_none());
}

fn overwritten(backend: &Arc<dyn StateBackend>) {
    let key = CacheKey([1; 32]);
    backend.give(&[Event::Cached(cached(1, 10, Some(20), b"old"))]);
    backend.give(&[Event::Cached(cached(1, 30, Some(40), b"new"))]);
    assert_eq!(value(find(backend, key, 35)), Some(encoded(b"new")));
    assert!(find(backend, key, 40).is_none(), "expired");
    backend.give(&[Event::Cached(cached(1, 50, None, b"a")), Event::Cached(cached(1, 51, None, b"b"))]);
    assert_eq!(value(find(backend, key, 52)), Some(encoded(b"b")), "the last one of a batch counts");
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
        backend.give(&records.map(Event::Cached).collect::<Vec<_>>());
    }
    for n in 0..5_000 {
        assert!(find(backend, key(n, 0), 5_001).is_none(), "result {n} has expired");
        assert_eq!(value(find(backend, key(n, 1), 5_001)), Some(encoded(&n.to_le_bytes())), "result {n} is fresh");
    }
}

fn any_size(backend: &Arc<dyn StateBackend>) {
    for (key, size) in [(1, 0), (2, 1), (3, 5_000), (4, 3_000_000)] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        backend.give(&[Event::Cached(cached(key, 0, None, &bytes))]);
        assert_eq!(value(find(backend, CacheKey([key; 32]), 1)), Some(encoded(&bytes)), "{size} bytes");
    }
}
