//! Cases: results that flow runs keep.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, ROOT, at, cached, encoded, kept};
use crate::backend::StateBackend;
use crate::backend::record::{CacheHit, CacheKey, CachedValue, EncodedValue, Event, ResultRecord, StoredValue};
use crate::id::FlowRunId;

pub(super) const CASES: &[(&str, Case)] = &[
    ("a result comes back, and never expires", comes_back),
    ("the first result under a key stays", the_first_stays),
    ("results and the cache are not mixed up", apart),
    ("a result may be of any size", any_size),
    ("a result that is discarded makes room", discarded),
    ("what is stored and discarded after a look is known to the next one", after_a_look),
    ("results of several root flow runs may come in turns", in_turns),
    ("the object of a result comes back", object_comes_back),
    ("an object that no result refers to is named until it is deleted", unreferenced),
];

fn persisted(key: u8, created: i64, bytes: &[u8]) -> Event {
    Event::Persisted(Box::new(kept(key, created, bytes)))
}

fn discard(key: u8) -> Event {
    Event::Discarded { root: *ROOT, key: CacheKey([key; 32]) }
}

fn find(backend: &Arc<dyn StateBackend>, key: u8) -> Option<CacheHit> {
    backend.result(*ROOT, &CacheKey([key; 32])).expect("look for a result")
}

fn value(hit: Option<CacheHit>) -> Option<EncodedValue> {
    hit.map(|hit| match hit.value {
        CachedValue::Encoded(value) => value,
        CachedValue::Live(_) | CachedValue::Stored(_) => panic!("an encoded value came back as another one"),
    })
}

fn comes_back(backend: &Arc<dyn StateBackend>) {
    assert!(find(backend, 1).is_none(), "nothing was stored yet");
    let record = kept(1, 10, b"one");
    backend.give(&[Event::Persisted(Box::new(record.clone()))]);
    let hit = find(backend, 1).expect("the result is there");
    assert_eq!((hit.run, hit.created, hit.expires), (record.run, at(10), None));
    assert_eq!(value(Some(hit)), Some(encoded(b"one")));
    assert!(find(backend, 2).is_none(), "another key");
}

fn the_first_stays(backend: &Arc<dyn StateBackend>) {
    backend.give(&[persisted(1, 10, b"first"), persisted(1, 11, b"second")]);
    backend.give(&[persisted(1, 12, b"third")]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"first")));
}

fn apart(backend: &Arc<dyn StateBackend>) {
    backend.give(&[persisted(1, 10, b"kept"), Event::Cached(Box::new(cached(2, 10, None, b"cached")))]);
    assert!(find(backend, 2).is_none(), "it is in the cache");
    assert!(backend.cached(&CacheKey([1; 32])).expect("look into the cache").is_none(), "it is a result");
    backend.give(&[Event::Cached(Box::new(cached(1, 10, None, b"both")))]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"kept")));
}

fn any_size(backend: &Arc<dyn StateBackend>) {
    for (key, size) in [(1, 0), (2, 1), (3, 5_000), (4, 3_000_000)] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        backend.give(&[persisted(key, 0, &bytes)]);
        assert_eq!(value(find(backend, key)), Some(encoded(&bytes)), "{size} bytes");
    }
}

fn discarded(backend: &Arc<dyn StateBackend>) {
    backend.give(&[persisted(1, 10, b"first"), persisted(2, 10, b"other")]);
    backend.give(&[discard(1), discard(3)]);
    assert!(find(backend, 1).is_none(), "it was discarded");
    assert_eq!(value(find(backend, 2)), Some(encoded(b"other")));
    backend.give(&[persisted(1, 11, b"second")]);
    assert_eq!(value(find(backend, 1)), Some(encoded(b"second")));
}

fn after_a_look(backend: &Arc<dyn StateBackend>) {
    for round in 0..3_u8 {
        let (first, second) = (round * 10, round * 10 + 1);
        backend.give(&[persisted(first, 10, b"before")]);
        assert_eq!(value(find(backend, first)), Some(encoded(b"before")));
        assert!(find(backend, second).is_none());
        backend.give(&[persisted(second, 11, b"after")]);
        assert_eq!(value(find(backend, second)), Some(encoded(b"after")));
        backend.give(&[persisted(second, 12, b"again")]);
        assert_eq!(value(find(backend, second)), Some(encoded(b"after")), "the first one stays");
        backend.give(&[discard(first), discard(second)]);
        assert!(find(backend, first).is_none() && find(backend, second).is_none(), "they were discarded");
        backend.give(&[persisted(first, 13, b"lost"), discard(first), persisted(first, 14, b"anew")]);
        assert_eq!(value(find(backend, first)), Some(encoded(b"anew")));
        backend.let_go_of_results(*ROOT);
        assert_eq!(value(find(backend, first)), Some(encoded(b"anew")));
        assert!(find(backend, second).is_none());
        if round == 1 {
            backend.let_go_of_results(*ROOT);
            backend.give(&[discard(first)]);
            assert!(find(backend, first).is_none(), "it was discarded when nobody had looked for it");
        }
    }
}

fn in_turns(backend: &Arc<dyn StateBackend>) {
    let roots: Vec<FlowRunId> = (0..3).map(|n| FlowRunId::new(at(n))).collect();
    let key = |root: u8, n: u8| CacheKey([root * 60 + n; 32]);
    let record = |n: u8, root: u8| {
        let record = kept(0, i64::from(n), &[root, n]);
        Event::Persisted(Box::new(ResultRecord { root: roots[usize::from(root)], key: key(root, n), ..record }))
    };
    for n in 0..40 {
        // One of them asks from the middle on.
        if n >= 20 {
            assert!(backend.result(roots[0], &key(0, n)).expect("look for a result").is_none());
        }
        let batch: Vec<Event> = (0..3).map(|root| record(n, root)).collect();
        match n % 3 {
            0 => batch.into_iter().for_each(|event| backend.give(&[event])),
            1 => backend.give(&batch),
            _ => backend.give(&[batch[2].clone(), batch[0].clone(), batch[1].clone()]),
        }
    }
    for (root, n) in (0..3).flat_map(|root| (0..40).map(move |n| (root, n))) {
        let hit = backend.result(roots[usize::from(root)], &key(root, n)).expect("look for a result");
        assert_eq!(value(hit), Some(encoded(&[root, n])), "result {n} of root {root}");
    }
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
    Event::Persisted(Box::new(ResultRecord { value: CachedValue::Stored(value), ..kept(key, i64::from(key), b"") }))
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
    // Those that came later are of no use; whether that is known at once is the store's affair.
    let early = named("here", 9);
    assert!(early.is_empty() || early == ["a/3", "b/1"], "{early:?}");
    backend.give(&[discard(1), discard(3)]);
    assert_eq!((named("here", 9), named("there", 9)), (owned(&["a/1", "a/3", "b/1"]), owned(&["a/3"])));
    assert_eq!(named("here", 2).len(), 2);

    backend.objects_deleted("here", &owned(&["a/3", "b/1", "unknown"])).expect("forget objects");
    assert_eq!((named("here", 9), named("there", 9)), (owned(&["a/1"]), owned(&["a/3"])));
    assert_eq!(location(backend, 2).as_deref(), Some("here:a/2"));
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
