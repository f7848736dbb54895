//! Cases: many runs, and many threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Case;
use super::sample::{Ask, at, cached, event, flow, success, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{Event, FlowRunQuery, RunInfo};
use crate::state::StateName::{Completed, Pending, Running};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a batch of ten thousand runs", a_large_batch),
    ("threads append at the same time", threads_append),
    ("threads read while one appends", threads_read),
];

fn a_large_batch(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let runs: Vec<RunInfo> = (0..10_000).map(|n| RunInfo { index: n, ..task_of(&outer, i64::from(n)) }).collect();
    let mut batch: Vec<Event> = runs.iter().map(|run| success(run, i64::from(run.index))).collect();
    batch.push(success(&outer, 0));
    backend.give(&batch);
    let listed = backend.task_runs(outer.id.as_flow().expect("the id of a flow run")).expect("list task runs");
    assert_eq!(listed.len(), runs.len());
    for (read, run) in listed.iter().zip(&runs) {
        assert_eq!((read.id.as_uuid(), &read.name), (run.id.as_uuid(), &run.name()));
    }
}

fn threads_append(backend: &Arc<dyn StateBackend>) {
    let flows: Vec<RunInfo> = (0..4).map(flow).collect();
    thread::scope(|scope| {
        for outer in &flows {
            scope.spawn(move || {
                for n in 0..50 {
                    let runs = [task_of(outer, n), task_of(outer, n), task_of(&flow(n), n)];
                    backend.give(&runs.each_ref().map(|run| event(run, 0, &[(Pending, n)])));
                    backend.give(&runs.each_ref().map(|run| event(run, 1, &[(Running, n + 1), (Completed, n + 2)])));
                    backend.give(&[Event::Cached(Box::new(cached(n as u8, n, None, b"same")))]);
                }
                backend.give(&[success(outer, 0)]);
            });
        }
    });
    for outer in &flows {
        let runs = backend.task_runs(outer.id.as_flow().expect("the id of a flow run")).expect("list task runs");
        assert_eq!(runs.len(), 100);
        assert!(runs.iter().all(|run| run.state.is_completed()), "all have completed");
        assert_eq!(backend.history(outer).len(), 3);
    }
    assert!(backend.cached(&cached(49, 0, None, b"").key).expect("look into the cache").is_some());
}

fn threads_read(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let id = outer.id.as_flow().expect("the id of a flow run");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Acquire) {
                    let runs = backend.task_runs(id).expect("list task runs while events are appended");
                    assert!(runs.len() >= seen, "runs do not vanish");
                    seen = runs.len();
                    if let Some(run) = runs.last() {
                        let states = backend.states(run.id.into()).expect("read states");
                        let times: Vec<_> = states.iter().map(|state| state.timestamp).collect();
                        assert!(
                            !states.is_empty() && times.is_sorted(),
                            "a listed run has states, in order: {states:?}"
                        );
                    }
                    backend.flow_runs(&FlowRunQuery::new(), at(0)).expect("list flow runs");
                }
            });
        }
        for n in 0..200 {
            let run = task_of(&outer, n);
            backend.give(&[event(&run, 0, &[(Pending, n)]), success(&flow(n), n)]);
            backend.give(&[event(&run, 1, &[(Running, n + 1), (Completed, n + 2)])]);
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(backend.task_runs(id).expect("list task runs").len(), 200);
}
