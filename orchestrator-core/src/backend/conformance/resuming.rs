//! Cases: flow runs that go on after they had ended.

use std::sync::{Arc, Barrier, LazyLock};

use super::Case;
use super::sample::{Ask, PROCESS, at, counted, event, flow, outline};
use crate::backend::record::{Event, Process, Resumer, RunInfo, TakeOver};
use crate::backend::{BackendErrorKind, StateBackend};
use crate::state::{StateName, Transition};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a flow run that has ended goes on in another process", goes_on),
    ("a flow run that goes on after many states", after_many_states),
    ("a flow run whose process went away goes on", after_a_crash),
    ("an orchestrator that has left takes nothing over", fenced),
    ("what has not ended, is not known or went on already is not taken over", not_taken),
    ("of several who take a flow run over one succeeds", one_succeeds),
];

static OTHER: LazyLock<Process> =
    LazyLock::new(|| Process { host: "another".to_owned(), pid: 12, namespace: 2, started: 7, session: 0 });

fn take_over(run: &RunInfo, seq: u32, micros: i64) -> TakeOver {
    let running = Transition { message: Some("resumed".into()), ..Transition::new(StateName::Running, at(micros)) };
    TakeOver {
        run: run.id.as_flow().expect("the id of a flow run"),
        seq,
        process: &OTHER,
        running,
        by: Resumer::Somebody { on_crash: false },
    }
}

fn failed(run: &RunInfo) -> Event {
    event(run, 0, &[(StateName::Pending, 0), (StateName::Running, 1), (StateName::Failed, 2)])
}

fn goes_on(store: &Arc<dyn StateBackend>) {
    let run = flow(0);
    store.give(&[failed(&run)]);
    let before = store.flow(&run);
    assert!(store.take_over(&take_over(&run, 3, 10)).expect("take it over"));
    let taken = store.flow(&run);
    assert_eq!((taken.host.as_str(), taken.pid, taken.run_count), ("another", 12, 2));
    assert_eq!((taken.state.name.as_str(), taken.state.message.as_deref()), ("Running", Some("resumed")));
    assert_eq!((taken.created, taken.start_time, taken.end_time), (before.created, before.start_time, None));
    if let Some(shared) = store.shared() {
        let owner =
            shared.owner_of(run.id).expect("look whose run it is").expect("a run that was taken over has an owner");
        assert_eq!(owner.process, *OTHER);
    }

    let completed = Transition::new(StateName::Completed, at(20));
    store.give(&[counted(&RunInfo { process: &OTHER, ..run.clone() }, 4, [completed], 2)]);
    let ended = store.flow(&run);
    assert_eq!(ended.end_time, Some(at(20).to_datetime()));
    assert_eq!(
        outline(&store.history(&run)),
        [("Pending", 0), ("Running", 1), ("Failed", 2), ("Running", 10), ("Completed", 20)]
    );
}

fn after_many_states(store: &Arc<dyn StateBackend>) {
    let run = flow(0);
    let mut states = vec![(StateName::Pending, 0)];
    states.extend((1..99).map(|micros| (StateName::Retrying, micros)));
    states.push((StateName::Failed, 99));
    for (index, state) in states.iter().enumerate() {
        store.give(&[event(&run, u32::try_from(index).expect("a small number"), &[*state])]);
    }
    assert!(store.take_over(&take_over(&run, 100, 200)).expect("take it over"));
    store.give(&[event(&run, 101, &[(StateName::Completed, 201)])]);
    let history = store.history(&run);
    assert_eq!(outline(&history)[99..], [("Failed", 99), ("Running", 200), ("Completed", 201)]);
    assert_eq!(history.len(), 102);
}

fn after_a_crash(store: &Arc<dyn StateBackend>) {
    let Some(shared) = store.shared() else { return };
    let run = flow(0);
    let gone = shared.join(&PROCESS, at(1_000)).expect("join");
    store.give(&[event(&run, 0, &[(StateName::Pending, 0), (StateName::Running, 1)])]);
    let owner = shared.owner(gone).expect("look for an owner").expect("an owner that joined is known");
    assert_eq!(shared.expel(&owner, at(5), "it went away").expect("expel"), Some(1));
    assert!(store.take_over(&take_over(&run, 3, 10)).expect("take it over"));
    store.give(&[event(&run, 4, &[(StateName::Completed, 11)])]);
    assert_eq!(
        outline(&store.history(&run)),
        [("Pending", 0), ("Running", 1), ("Crashed", 5), ("Running", 10), ("Completed", 11)]
    );
}

/// Whoever was found to be gone resumes nothing.
fn fenced(store: &Arc<dyn StateBackend>) {
    let Some(shared) = store.shared() else { return };
    let run = flow(0);
    store.give(&[failed(&run)]);
    let other = shared.join(&OTHER, at(1_000)).expect("join");
    shared.leave(other, at(5)).expect("leave");
    let error = store.take_over(&take_over(&run, 3, 10)).expect_err("it has left");
    assert_eq!(error.kind(), BackendErrorKind::Fenced);
    assert_eq!(store.history(&run).len(), 3);
}

fn not_taken(store: &Arc<dyn StateBackend>) {
    let take = |run: &RunInfo, seq| store.take_over(&take_over(run, seq, 10)).expect("take it over");
    let run = flow(0);
    assert!(!take(&run, 0), "it is not known");
    store.give(&[event(&run, 0, &[(StateName::Pending, 0), (StateName::Running, 1)])]);
    assert!(!take(&run, 2), "it has not ended");
    store.give(&[event(&run, 2, &[(StateName::Failed, 2)])]);
    assert!(!take(&run, 2), "it has another state by now");
    assert!(take(&run, 3));
    assert!(!take(&run, 3), "it went on already");
    assert!(!take(&run, 4), "it has not ended again");
    assert_eq!(store.flow(&run).run_count, 2);
}

fn one_succeeds(store: &Arc<dyn StateBackend>) {
    let run = flow(0);
    store.give(&[failed(&run)]);
    let start = Barrier::new(4);
    let won = std::thread::scope(|scope| {
        let resumers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    store.take_over(&take_over(&run, 3, 10)).expect("take it over")
                })
            })
            .collect();
        resumers.into_iter().map(|resumer| resumer.join().expect("no resumer panics")).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(store.history(&run).len(), 4);
}
