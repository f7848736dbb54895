//! Cases for stores that carry requests between the orchestrators that share them.

use std::sync::Arc;

use serde_json::json;

use super::Case;
use super::ownership::{another, join, with};
use super::sample::{PROCESS, at, flow, task};
use crate::backend::{Answer, OwnerNo, Request, RequestNo, Shared, StateBackend, Wanted};
use crate::id::RunId;

pub(super) const CASES: &[(&str, Case)] = &[
    ("a request reaches the orchestrator that it is for, once", taking),
    ("an answer is there until the request is withdrawn", answering),
    ("nothing can be asked of one that has ended", ended),
    ("what was asked of one that ends is answered by its end", ending),
    ("requests are given out in their order, whoever asks", order),
];

fn request(shared: &dyn Shared, owner: OwnerNo, run: RunId, wanted: &Wanted) -> RequestNo {
    shared.request(owner, run, wanted, at(5)).expect("leave a request").expect("the orchestrator is there")
}

fn take(shared: &dyn Shared, owner: OwnerNo) -> Vec<Request> {
    shared.take_requests(owner).expect("take requests")
}

fn answered(shared: &dyn Shared, no: RequestNo) -> Option<Answer> {
    shared.answered(no).expect("look for an answer")
}

fn taking(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        let run = task(1).id;
        assert_eq!(take(shared, one), []);
        let no = request(shared, one, run, &Wanted::Cancel);
        assert_eq!(take(shared, other), [], "it is not for this one");
        assert_eq!(take(shared, one), [Request { no, run, wanted: Some(Wanted::Cancel) }]);
        assert_eq!(take(shared, one), []);
    });
}

fn answering(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let owner = join(shared, &PROCESS);
        let run = flow(1).id;
        let wanted = Wanted::Resume(json!({ "approved": true, "note": "it's \"fine\"" }));
        let no = request(shared, owner, run, &wanted);
        assert_eq!(answered(shared, no), None);
        assert_eq!(take(shared, owner), [Request { no, run, wanted: Some(wanted) }]);
        assert_eq!(answered(shared, no), None);
        let said = Answer::InvalidInput("it takes a number".to_owned());
        shared.answer(no, &said).expect("answer");
        assert_eq!((answered(shared, no), answered(shared, no)), (Some(said.clone()), Some(said)));
        shared.withdraw(no).expect("withdraw a request");
        shared.withdraw(no).expect("withdraw it again");
        assert_eq!(answered(shared, no), Some(Answer::Gone));
        shared.answer(no, &Answer::Done).expect("answer what was withdrawn");
        assert_eq!(answered(shared, no), Some(Answer::Gone));
        let untaken = request(shared, owner, run, &Wanted::Cancel);
        shared.withdraw(untaken).expect("withdraw a request");
        assert_eq!(take(shared, owner), []);
    });
}

fn ended(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let owner = join(shared, &PROCESS);
        shared.leave(owner, at(3)).expect("leave");
        let run = flow(1).id;
        assert_eq!(shared.request(owner, run, &Wanted::Cancel, at(4)).expect("leave a request"), None);
        assert_eq!(shared.request(OwnerNo(4711), run, &Wanted::Cancel, at(4)).expect("leave a request"), None);
    });
}

fn ending(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (leaves, gone) = (join(shared, &PROCESS), join(shared, another(7)));
        let run = flow(1).id;
        let [first, second] = [leaves, gone].map(|owner| request(shared, owner, run, &Wanted::Cancel));
        assert_eq!(take(shared, leaves).len(), 1);
        let done = request(shared, leaves, run, &Wanted::Cancel);
        shared.answer(done, &Answer::Done).expect("answer");
        shared.leave(leaves, at(6)).expect("leave");
        let seen = shared.owner(gone).expect("look for an owner").expect("it is there");
        shared.expel(&seen, at(6), "it went away").expect("end it");
        assert_eq!((answered(shared, first), answered(shared, second)), (Some(Answer::Gone), Some(Answer::Gone)));
        assert_eq!(take(shared, gone), []);
        assert_eq!(answered(shared, done), Some(Answer::Done), "it was done");
    });
}

fn take_beside(backend: &Arc<dyn StateBackend>, owner: OwnerNo) -> Vec<Request> {
    take(backend.shared().expect("a store that is shared stays so"), owner)
}

fn order(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let owner = join(shared, &PROCESS);
        let asked: Vec<RequestNo> =
            (0..20).map(|n| request(shared, owner, flow(1).id, &Wanted::Resume(json!(n)))).collect();
        let given: Vec<RequestNo> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3).map(|_| scope.spawn(|| take_beside(backend, owner))).collect();
            let given = takers.into_iter().map(|taker| taker.join().expect("requests are taken"));
            let numbers = |requests: Vec<Request>| requests.iter().map(|request| request.no).collect::<Vec<_>>();
            let mut given: Vec<Vec<RequestNo>> = given.map(numbers).collect();
            assert!(given.iter().all(|given| given.is_sorted()), "{given:?}");
            given.sort();
            given.concat()
        });
        assert_eq!(given, asked);
    });
}
