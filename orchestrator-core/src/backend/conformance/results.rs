//! Cases: results that flow runs keep.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, at, cached, encoded};
use crate::backend::StateBackend;
use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, EncodedValue, Event, StoredValue};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a result comes back, and never expires", comes_back),
    ("the first result under a key stays", the_first_stays),
    ("results and the cache are not mixed up", apart),
    ("a result may be of any size", any_size),
    ("a result that is discarded makes room", discarded),
    ("the object of a result comes back", object_comes_back),
    ("an object that no result refers to is named until it is deleted", unreferenced),
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

fn discarded(backend: &Arc<dyn StateBackend>) {
    backend.give(&[Event::Persisted(cached(1, 10, None, b"first")), Event::Persisted(cached(2, 10, None, b"other"))]);
    backend.give(&[Event::Discarded(CacheKey([1; 32])), Event::Discarded(CacheKey([3; 32]))]);
    assert!(find(backend, 1).is_none(), "it was discarded");
    assert_eq!(value(find(backend, 2)), Some(encoded(b"other")));
    backend.give(&[Event::Persisted(cached(1, 11, None, b"second"))]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"second")));
}

fn stored(key: u8, store: &str, location: &str) -> Event {
    let value = StoredValue {
        store: store.into(),
        location: location.to_owned(),
        size: 1 << 40,
        digest: [7; 32],
        format: "msgpack/1".into(),
        type_name: "u64".into(),
    };
    let record = cached(key, i64::from(key), None, b"");
    Event::Persisted(CacheRecord { value: CachedValue::Stored(value), ..record })
}

fn location(backend: &Arc<dyn StateBackend>, key: u8) -> Option<String> {
    match find(backend, key)?.value {
        CachedValue::Stored(value) => Some(format!("{}:{}", value.store, value.location)),
        CachedValue::Live(_) | CachedValue::Encoded(_) => panic!("an object came back as another value"),
    }
}

fn object_comes_back(backend: &Arc<dyn StateBackend>) {
    let event = stored(1, "here", "a/b");
    backend.give(std::slice::from_ref(&event));
    let hit = find(backend, 1).expect("the result is there");
    let (Event::Persisted(record), CachedValue::Stored(found)) = (&event, &hit.value) else {
        panic!("an object came back as another value")
    };
    let CachedValue::Stored(given) = &record.value else { unreachable!("it was made above") };
    assert_eq!((hit.run, hit.created, found), (record.run, record.created, given));
}

fn unreferenced(backend: &Arc<dyn StateBackend>) {
    let named = |store: &str, most| {
        let mut names = backend.unreferenced_objects(store, most).expect("ask for objects");
        names.sort_unstable();
        names
    };
    let batch = [stored(1, "here", "a/1"), stored(2, "here", "a/2"), stored(3, "there", "a/3")];
    backend.give(&batch);
    // A batch may come twice.
    backend.give(&batch);
    assert_eq!((named("here", 9), named("there", 9)), (vec![], vec![]));

    backend.give(&[stored(1, "here", "b/1"), stored(3, "here", "a/3")]);
    assert_eq!(location(backend, 1).as_deref(), Some("here:a/1"), "the first one stays");
    assert_eq!(named("here", 9), ["a/3", "b/1"], "those that came later are of no use");
    backend.give(&[Event::Discarded(CacheKey([1; 32])), Event::Discarded(CacheKey([3; 32]))]);
    assert_eq!((named("here", 9), named("there", 9)), (owned(&["a/1", "a/3", "b/1"]), owned(&["a/3"])));
    assert_eq!(named("here", 2).len(), 2);

    backend.objects_deleted("here", &owned(&["a/3", "b/1", "unknown"])).expect("forget objects");
    assert_eq!((named("here", 9), named("there", 9)), (owned(&["a/1"]), owned(&["a/3"])));
    assert_eq!(location(backend, 2).as_deref(), Some("here:a/2"));
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
