//! Cases: results that flow runs keep.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, at, cached, encoded};
use crate::backend::StateBackend;
use crate::backend::record::{CacheHit, CacheKey, CachedValue, EncodedValue, Event};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a result comes back, and never expires", comes_back),
    ("the first result under a key stays", the_first_stays),
    ("results and the cache are not mixed up", apart),
    ("a result may be of any size", any_size),
];

fn find(backend: &Arc<dyn StateBackend>, key: u8) -> Option<CacheHit> {
    backend.result(&CacheKey([key; 32])).expect("look for a result")
}

fn value(hit: Option<CacheHit>) -> Option<EncodedValue> {
    hit.map(|hit| match hit.value {
        CachedValue::Encoded(value) => value,
        CachedValue::Live(_) | CachedValue::Stored(_) => panic!("an encoded value came back as another one"),
    })
}

fn comes_back(backend: &Arc<dyn StateBackend>) {
    assert!(find(backend, 1).is_none(), "nothing was stored yet");
    let record = cached(1, 10, None, b"one");
    backend.give(&[Event::Persisted(record.clone())]);
    let hit = find(backend, 1).expect("the result is there");
    assert_eq!((hit.run, hit.created, hit.expires), (record.run, at(10), None));
    assert_eq!(value(Some(hit)), Some(encoded(b"one")));
    assert!(find(backend, 2).is_none(), "another key");
}

fn the_first_stays(backend: &Arc<dyn StateBackend>) {
    backend.give(&[Event::Persisted(cached(1, 10, None, b"first")), Event::Persisted(cached(1, 11, None, b"second"))]);
    backend.give(&[Event::Persisted(cached(1, 12, None, b"third"))]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"first")));
}

fn apart(backend: &Arc<dyn StateBackend>) {
    backend.give(&[Event::Persisted(cached(1, 10, None, b"kept")), Event::Cached(cached(2, 10, None, b"cached"))]);
    assert!(find(backend, 2).is_none(), "it is in the cache");
    assert!(backend.cached(&CacheKey([1; 32])).expect("look into the cache").is_none(), "it is a result");
    backend.give(&[Event::Cached(cached(1, 10, None, b"both"))]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"kept")));
}

fn any_size(backend: &Arc<dyn StateBackend>) {
    for (key, size) in [(1, 0), (2, 1), (3, 5_000), (4, 3_000_000)] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        backend.give(&[Event::Persisted(cached(key, 0, None, &bytes))]);
        assert_eq!(value(find(backend, key)), Some(encoded(&bytes)), "{size} bytes");
    }
}
