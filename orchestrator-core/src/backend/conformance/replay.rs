//! Cases: events that come again, in parts, or not at all.

use std::sync::Arc;

use super::Case;
use super::sample::{Ask, ROOT, at, cached, event, flow, kept, outline, success, task, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{Event, RunInfo};
use crate::state::StateName::{AwaitingRetry, Completed, Pending, Retrying, Running};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a batch that comes again changes nothing", a_batch_again),
    ("an old event that comes late changes nothing", an_old_event),
    ("of an event that is known in part the rest is stored", overlap),
    ("later events stand though earlier ones were lost", a_gap),
    ("an event without transitions changes nothing", no_transitions),
];

fn a_batch_again(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let (first, second) = (task_of(&outer, 1), task_of(&outer, 2));
    let id = outer.id.as_flow().expect("the id of a flow run");
    let batch = [
        Event::Parameters { run: id, json: "{}".to_owned() },
        event(&outer, 0, &[(Pending, 0), (Running, 1)]),
        success(&first, 1),
        event(&second, 0, &[(Pending, 2)]),
        Event::Renamed { run: second.id, name: "second".into() },
        Event::Upstream { run: second.id, upstream: [first.id].into() },
        event(&second, 1, &[(Running, 3), (Completed, 4)]),
        event(&outer, 2, &[(Completed, 5)]),
        Event::Cached(Box::new(cached(1, 4, None, b"value"))),
        Event::Persisted(Box::new(kept(1, 4, b"result"))),
    ];
    let look = || {
        let runs = [&outer, &first, &second].map(|run| backend.history(run));
        let value = backend.cached(&cached(1, 0, None, b"").key).expect("look into the cache");
        let result = backend.result(*ROOT, &cached(1, 0, None, b"").key).expect("look for a result");
        let text = format!("{value:?} {result:?}");
        (backend.flow(&outer), backend.task_runs(id).expect("list task runs"), runs, text)
    };
    backend.give(&batch);
    let once = look();
    assert_eq!(once.1.len(), 2);
    assert_eq!(outline(&once.2[2]), [("Pending", 2), ("Running", 3), ("Completed", 4)]);
    backend.give(&batch);
    assert_eq!(look(), once);
    for event in batch {
        backend.give(&[event]);
    }
    assert_eq!(look(), once);
}

fn an_old_event(backend: &Arc<dyn StateBackend>) {
    let run = task(0);
    let (first, second) = (event(&run, 0, &[(Pending, 0)]), event(&run, 1, &[(Running, 1), (AwaitingRetry, 2)]));
    backend.give(&[first.clone(), second.clone(), event(&run, 3, &[(Retrying, 3), (Completed, 4)])]);
    let before = (backend.task(&run), backend.history(&run));
    backend.give(&[second, first]);
    assert_eq!((backend.task(&run), backend.history(&run)), before);
}

fn overlap(backend: &Arc<dyn StateBackend>) {
    for (known, run) in [(1, task(0)), (2, task(1)), (2, flow(2))] {
        let all = [(Pending, 0), (Running, 1), (Completed, 2)];
        backend.give(&[event(&run, 0, &all[..known])]);
        backend.give(&[event(&run, 0, &all)]);
        assert_eq!(outline(&backend.history(&run)), [("Pending", 0), ("Running", 1), ("Completed", 2)]);
    }
    let run = task(10);
    backend.give(&[event(&run, 0, &[(Pending, 0), (Running, 1)])]);
    backend.give(&[event(&run, 1, &[(Running, 1), (AwaitingRetry, 2), (Retrying, 3)])]);
    assert_eq!(backend.history(&run).len(), 4);
    assert_eq!(backend.task(&run).start_time, Some(at(1).to_datetime()));
}

/// The journal gives a batch up after a while: what it sends afterwards is still worth having.
fn a_gap(backend: &Arc<dyn StateBackend>) {
    let known = task(0);
    backend.give(&[event(&known, 0, &[(Pending, 0)])]);
    backend.give(&[event(&known, 4, &[(Retrying, 4), (Completed, 5)])]);
    backend.give(&[event(&known, 4, &[(Retrying, 4), (Completed, 5)])]);
    assert_eq!(outline(&backend.history(&known)), [("Pending", 0), ("Retrying", 4), ("Completed", 5)]);
    assert_eq!(&*backend.task(&known).state.name, "Completed");

    let outer = flow(0);
    let unknown = RunInfo { index: 3, ..task_of(&outer, 1) };
    backend.give(&[event(&unknown, 2, &[(Retrying, 2)])]);
    backend.give(&[event(&unknown, 3, &[(Completed, 3)])]);
    backend.give(&[event(&unknown, 2, &[(Retrying, 2)])]);
    assert_eq!(outline(&backend.history(&unknown)), [("Retrying", 2), ("Completed", 3)]);
    let listed = backend.task_runs(outer.id.as_flow().expect("the id of a flow run")).expect("list task runs");
    assert_eq!(listed, [backend.task(&unknown)]);
}

fn no_transitions(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let run = task_of(&outer, 0);
    backend.give(&[event(&run, 0, &[])]);
    assert_eq!(backend.task_run(run.id.as_task().expect("the id of a task run")).expect("read a task run"), None);
    backend.give(&[success(&run, 0)]);
    let before = backend.task(&run);
    backend.give(&[event(&run, 3, &[]), event(&run, 0, &[])]);
    assert_eq!(backend.task(&run), before);
    assert_eq!(backend.task_runs(outer.id.as_flow().expect("the id of a flow run")).expect("list"), [before]);
}
