//! Cases for stores that several processes share: claims on cache keys.

use std::sync::Arc;

use super::Case;
use super::ownership::{another, join, with};
use super::sample::{PROCESS, at, cached, task};
use crate::backend::record::{CacheKey, Event};
use crate::backend::{BackendErrorKind, ClaimRequest, Claimed, OwnerNo, Shared, StateBackend};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a key is claimed by one", one_claims),
    ("whoever claims a key is told of a record", records),
    ("claims of those that have ended are free", ended),
    ("an owner that claims a key again has the last claim", renewed),
    ("no claim is given to one that has ended", fenced),
    ("the version changes with claims", version),
];

const KEY: CacheKey = CacheKey([7; 32]);
const FREE: Claimed = Claimed::Held { cached: false };

fn ask(key: CacheKey, ticket: u64) -> ClaimRequest {
    let run = task(1).id.as_task().expect("the id of a task run");
    ClaimRequest { key, ticket, run, run_name: Arc::from("load-1") }
}

fn claim(shared: &dyn Shared, owner: OwnerNo, ticket: u64) -> Claimed {
    shared.claim(owner, &[], &[ask(KEY, ticket)], at(1)).expect("claim").remove(0)
}

fn over(shared: &dyn Shared, owner: OwnerNo, ticket: u64) {
    assert!(shared.claim(owner, &[(KEY, ticket)], &[], at(1)).expect("give a claim back").is_empty());
}

fn is_claimed(shared: &dyn Shared, owner: OwnerNo) -> bool {
    shared.claimed(owner, &[KEY]).expect("look")[0]
}

fn one_claims(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        let first = ask(KEY, 1);
        let claimed = shared.claim(one, &[], std::slice::from_ref(&first), at(1)).expect("claim");
        assert_eq!(claimed, [FREE]);
        let taken = Claimed::Taken { process: PROCESS.clone(), run: first.run, run_name: "load-1".to_owned() };
        assert_eq!(claim(shared, other, 1), taken);
        let others = shared.claimed(other, &[CacheKey([8; 32]), KEY]).expect("look");
        assert_eq!((others, is_claimed(shared, one)), (vec![false, true], false));
        over(shared, other, 1);
        assert!(is_claimed(shared, other), "it is not the other's to give back");
        over(shared, one, 1);
        assert!(!is_claimed(shared, other));
        let both = shared.claim(other, &[], &[ask(KEY, 2), ask(CacheKey([8; 32]), 3)], at(1)).expect("claim");
        assert_eq!(both, [FREE, FREE]);
    });
}

fn records(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let record = cached(3, 1, None, b"value");
        let key = record.key;
        backend.append(&[Event::Cached(Box::new(record))]).expect("store a record");
        let claimed = shared.claim(join(shared, &PROCESS), &[], &[ask(key, 1)], at(1)).expect("claim");
        assert_eq!(claimed, [Claimed::Held { cached: true }]);
    });
}

fn ended(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        claim(shared, one, 1);
        shared.leave(one, at(5)).expect("leave");
        assert!(!is_claimed(shared, other));
        assert_eq!(claim(shared, other, 1), FREE);
        assert!(is_claimed(shared, join(shared, another(8))));
    });
}

fn renewed(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        assert_eq!((claim(shared, one, 1), claim(shared, one, 2)), (FREE, FREE));
        over(shared, one, 1);
        assert!(is_claimed(shared, other), "the first claim was over before");
        over(shared, one, 2);
        assert!(!is_claimed(shared, other));
    });
}

fn fenced(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let one = join(shared, &PROCESS);
        shared.leave(one, at(5)).expect("leave");
        let refused = shared.claim(one, &[], &[ask(KEY, 1)], at(1)).expect_err("it has left");
        assert_eq!(refused.kind(), BackendErrorKind::Fenced);
        assert_eq!(shared.claimed(one, &[KEY]).expect_err("it has left").kind(), BackendErrorKind::Fenced);
    });
}

fn version(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let one = join(shared, &PROCESS);
        let version = || shared.version().expect("ask for the version");
        let before = version();
        claim(shared, one, 1);
        let claimed = version();
        over(shared, one, 1);
        assert!(claimed != before && version() != claimed);
    });
}
