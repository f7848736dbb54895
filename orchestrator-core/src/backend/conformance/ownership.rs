//! Cases for stores that several processes share: who is there, and whose runs are whose.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Case;
use super::sample::{Ask, PROCESS, at, cached, event, flow, kept, log, success, task, task_of};
use crate::backend::record::{Event, Process, RunInfo};
use crate::backend::{BackendErrorKind, Owner, OwnerNo, Shared, StateBackend};
use crate::clock::Timestamp;
use crate::state::StateName::{self, AwaitingRetry, Pending, Retrying, Running};

pub(super) const CASES: &[(&str, Case)] = &[
    ("an orchestrator that joins is there until it leaves", joining),
    ("a lease is renewed", renewing),
    ("the runs of an orchestrator that is gone crash, and no others", expelling),
    ("a long history gets one more state", a_long_history),
    ("one of many who look ends an orchestrator that is gone", many_look),
    ("an orchestrator that has renewed its lease meanwhile is not ended", renewed_meanwhile),
    ("nothing is taken of one that has ended", fencing),
    ("what one has left behind is found", left_behind),
    ("a run is known to have gone on as long as anything of its process was", last_seen),
    ("who wrote that a run crashed is not told by clocks", last_seen_by_another_clock),
    ("a run's owner is known", owner_of_a_run),
];

pub(super) fn another(session: u64) -> &'static Process {
    // A backend may keep it for good, so that a leak of a few bytes per check is as it would be.
    Box::leak(Box::new(Process { session, ..PROCESS.clone() }))
}

/// What `look` does with a store that is shared; any other one need not do anything.
pub(super) fn with(backend: &Arc<dyn StateBackend>, look: impl FnOnce(&dyn Shared)) {
    if let Some(shared) = backend.shared() {
        look(shared);
    }
}

pub(super) fn join(shared: &dyn Shared, process: &Process) -> OwnerNo {
    shared.join(process, at(1_000)).expect("join")
}

fn owner(shared: &dyn Shared, no: OwnerNo) -> Owner {
    shared.owner(no).expect("look for an owner").expect("an owner that joined is known")
}

fn present(shared: &dyn Shared) -> Vec<OwnerNo> {
    shared.owners().expect("list owners").iter().map(|owner| owner.no).collect()
}

fn names(backend: &Arc<dyn StateBackend>, run: &RunInfo) -> Vec<String> {
    backend.history(run).into_iter().map(|state| state.name).collect()
}

fn joining(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        assert_eq!(present(shared), []);
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        assert_ne!(one, other);
        assert_eq!(join(shared, &PROCESS), one, "it is there already");
        assert_eq!(present(shared), [one, other]);
        let lease_until = Some(at(1_000));
        let known = owner(shared, one);
        let heard = known.heard;
        assert!(heard.is_some());
        assert_eq!(known, Owner { no: one, process: PROCESS.clone(), lease_until, heard, ended: None, why: None });
        shared.leave(one, at(5)).expect("leave");
        shared.leave(one, at(6)).expect("leave again");
        assert_eq!(present(shared), [other]);
        assert_eq!((owner(shared, one).ended, owner(shared, one).why), (Some(at(5)), None));
        let again = shared.join(&PROCESS, at(9)).expect_err("it has left");
        assert_eq!(again.kind(), BackendErrorKind::Fenced);
        assert_eq!(shared.owner(OwnerNo(i64::MAX)).expect("look for an owner"), None);
    });
}

fn renewing(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let one = join(shared, &PROCESS);
        shared.renew(one, at(2_000)).expect("renew");
        assert_eq!(owner(shared, one).lease_until, Some(at(2_000)));
        shared.leave(one, at(5)).expect("leave");
        let late = shared.renew(one, at(3_000)).expect_err("it has left");
        assert_eq!((late.kind(), late.is_transient()), (BackendErrorKind::Fenced, false));
        assert_eq!(owner(shared, one).lease_until, Some(at(2_000)));
    });
}

fn expelling(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (gone, here) = (join(shared, &PROCESS), join(shared, another(7)));
        let (outer, ended) = (flow(0), task(1));
        let (running, pending) = (task_of(&outer, 2), task_of(&outer, 3));
        let elsewhere = RunInfo { process: another(7), ..task_of(&outer, 4) };
        let begun = [(Pending, 0), (Running, 50)];
        backend.give(&[
            event(&outer, 0, &begun),
            success(&ended, 1),
            event(&running, 0, &begun),
            event(&pending, 0, &[(Pending, 3)]),
            event(&elsewhere, 0, &begun),
        ]);
        let message = "its process \"4711\"\nwent\\away";
        let runs = shared.expel(&owner(shared, gone), at(10), message).expect("expel");
        assert_eq!(runs, Some(3));
        assert_eq!(names(backend, &outer), ["Pending", "Running", "Crashed"]);
        assert_eq!(names(backend, &running), ["Pending", "Running", "Crashed"]);
        assert_eq!(names(backend, &pending), ["Pending", "Crashed"]);
        assert_eq!(names(backend, &ended), ["Pending", "Running", "Completed"]);
        assert_eq!(names(backend, &elsewhere), ["Pending", "Running"], "it is another one's");
        let last = backend.history(&outer).pop().expect("three states");
        assert_eq!((last.timestamp, last.message.as_deref()), (at(51).to_datetime(), Some(message)));
        let read = backend.flow(&outer);
        assert_eq!((read.end_time, read.state), (Some(at(51).to_datetime()), last));
        assert_eq!(backend.task(&pending).end_time, Some(at(10).to_datetime()));
        assert_eq!(present(shared), [here]);
        let ended = owner(shared, gone);
        assert_eq!((ended.ended, ended.why.as_deref()), (Some(at(10)), Some(message)));
        assert_eq!(shared.expel(&owner(shared, gone), at(20), "again").expect("expel again"), None);
        assert_eq!(names(backend, &outer).len(), 3);
    });
}

fn a_long_history(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let run = task(0);
        let name = |seq: u32| if seq.is_multiple_of(2) { AwaitingRetry } else { Retrying };
        for seq in (0..60).step_by(3) {
            let states = [seq, seq + 1, seq + 2].map(|seq| (name(seq), i64::from(seq)));
            backend.give(&[event(&run, seq, &states)]);
        }
        assert_eq!(shared.expel(&owner(shared, no), at(100), "gone").expect("expel"), Some(1));
        let expected: Vec<_> = (0..60).map(name).chain([StateName::Crashed]).map(StateName::as_str).collect();
        assert_eq!(names(backend, &run), expected);
    });
}

fn many_look(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let runs: Vec<RunInfo> = (0..100).map(task).collect();
        backend.give(&runs.iter().map(|run| event(run, 0, &[(Pending, 0)])).collect::<Vec<_>>());
        let seen = owner(shared, no);
        let (backend, seen) = (&**backend, &seen);
        let found: Vec<usize> = thread::scope(|scope| {
            let look = || backend.shared().expect("it is shared").expel(seen, at(9), "gone").expect("expel");
            let lookers: Vec<_> = (0..6).map(|_| scope.spawn(look)).collect();
            lookers.into_iter().filter_map(|looker| looker.join().expect("no panic")).collect()
        });
        assert_eq!(found, [100]);
        for run in &runs {
            assert_eq!(backend.states(run.id).expect("read states").len(), 2);
        }
    });
}

fn renewed_meanwhile(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let seen = owner(shared, no);
        shared.renew(no, at(5_000)).expect("renew");
        assert_eq!(shared.expel(&seen, at(9), "late").expect("expel"), None);
        assert_eq!(present(shared), [no]);
        let unknown = Owner { no: OwnerNo(i64::MAX), ..seen };
        assert_eq!(shared.expel(&unknown, at(9), "unknown").expect("expel"), None);
    });
}

fn fencing(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let (run, late) = (task(0), task(1));
        let begun = [event(&run, 0, &[(Pending, 0), (Running, 1)])];
        backend.append_as(no, &begun).expect("append while it is there");
        shared.expel(&owner(shared, no), at(9), "gone").expect("expel");
        let (cached, kept) = (cached(1, 0, None, b"late"), kept(1, 0, b"late"));
        for event in [
            event(&run, 2, &[(StateName::Completed, 5)]),
            success(&late, 1),
            log(run.id, 5, "late"),
            Event::Cached(Box::new(cached.clone())),
            Event::Persisted(Box::new(kept.clone())),
            Event::Renamed { run: run.id, name: "late".into() },
        ] {
            let error = backend.append_as(no, &[event]).expect_err("it was found to be gone");
            assert_eq!((error.kind(), error.is_transient()), (BackendErrorKind::Fenced, false));
        }
        assert_eq!(names(backend, &run), ["Pending", "Running", "Crashed"]);
        assert_eq!(backend.task(&run).name, "load-0");
        assert!(backend.history(&late).is_empty() && backend.logs(run.id).expect("read a log").is_empty());
        assert!(backend.cached(&cached.key).expect("look into the cache").is_none());
        assert!(backend.result(kept.root, &kept.key).expect("look for a result").is_none());
        let unknown = backend.append_as(OwnerNo(i64::MAX), &[success(&late, 1)]).expect_err("nobody has that number");
        assert_eq!(unknown.kind(), BackendErrorKind::Fenced);
    });
}

fn left_behind(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (run, of_nobody) = (task(0), RunInfo { process: another(7), ..flow(1) });
        let (of_its_own, inside) = (task(3), RunInfo { process: another(7), ..task_of(&of_nobody, 4) });
        let no = join(shared, &PROCESS);
        backend.give(&[event(&run, 0, &[(Pending, 0)]), event(&of_nobody, 0, &[(Pending, 1), (Running, 2)])]);
        backend.give(&[event(&of_its_own, 0, &[(Pending, 3), (StateName::Crashed, 4)]), success(&inside, 4)]);
        // More states than stand in one place.
        let long = RunInfo { process: another(8), ..task(5) };
        let states: Vec<_> = (0..40).map(|n| (Running, 10 + n)).collect();
        backend.give(&[event(&long, 0, &states[..33]), event(&long, 33, &states[33..])]);
        shared.leave(no, at(5)).expect("leave");
        let found = shared.owners().expect("list owners");
        let [left, never_joined, of_long] = &*found else { panic!("all have runs that have not ended: {found:?}") };
        assert_eq!((left.no, left.ended), (no, Some(at(5))));
        assert_eq!((&never_joined.process, never_joined.lease_until), (another(7), None));
        assert_eq!(shared.expel(left, at(9), "it left").expect("expel"), Some(1));
        assert_eq!(shared.expel(never_joined, at(9), "it was killed").expect("expel"), Some(1));
        assert_eq!(shared.expel(of_long, at(9), "it was killed").expect("expel"), Some(1));
        assert_eq!(present(shared), []);
        assert_eq!(backend.task(&long).last_seen, Some(at(49).to_datetime()), "the state before the crash");
        assert_eq!(backend.history(&run).last().expect("two states").message.as_deref(), Some("it left"));
        assert_eq!(names(backend, &of_nobody), ["Pending", "Running", "Crashed"]);
        let (found, own) = (backend.flow(&of_nobody), backend.task(&of_its_own));
        assert_eq!(found.end_time, Some(at(9).to_datetime()), "when that was found out");
        assert_eq!(found.last_seen, backend.task(&inside).end_time, "the last that is known");
        assert!(found.last_seen < found.end_time && backend.task(&run).last_seen.is_some());
        assert_eq!((own.end_time, own.last_seen), (Some(at(4).to_datetime()), None), "its process wrote that itself");
    });
}

/// A process that was killed before its first heartbeat.
fn last_seen(backend: &Arc<dyn StateBackend>) {
    let of = |run: RunInfo, session| RunInfo { process: another(session), ..run };
    with(backend, |shared| {
        let (of_states, inner) = (of(flow(0), 7), of(flow(1), 7));
        let inner = RunInfo { parent: Some(of_states.id), flow_run: of_states.id.as_flow(), ..inner };
        let (of_lines, says) = (of(flow(2), 8), of(task(3), 8));
        backend.give(&[event(&of_states, 0, &[(Pending, 1), (Running, 2)])]);
        backend.give(&[event(&inner, 0, &[(Pending, 3), (Running, 40)])]);
        backend.give(&[event(&of_lines, 0, &[(Pending, 1), (Running, 2)]), event(&says, 0, &[(Pending, 3)])]);
        backend.give(&[log(says.id, 50, "here"), success(&of(task(4), 9), 60)]);
        for gone in shared.owners().expect("list owners") {
            shared.expel(&gone, at(90), "it was killed").expect("expel");
        }
        let seen = |at_millis| Some(at(at_millis).to_datetime());
        assert_eq!(backend.flow(&of_states).last_seen, seen(40), "the state of a run that it called");
        assert_eq!(backend.flow(&inner).last_seen, seen(40));
        assert_eq!(backend.flow(&of_lines).last_seen, seen(50), "what another run of the process logged");
        assert_eq!(backend.task(&says).last_seen, seen(50));
    });
}

/// Whoever finds out that a process is gone may be on a machine whose clock is behind.
fn last_seen_by_another_clock(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let killed = |n: i64| RunInfo { process: another(7), ..task(n) };
        let (left_behind, own, lost) = (task(0), killed(1), killed(2));
        let no = join(shared, &PROCESS);
        let states = [event(&left_behind, 0, &[(Pending, 10)]), event(&lost, 0, &[(Pending, 12)])];
        backend.give(&states);
        backend.give(&[event(&own, 0, &[(Pending, 11), (StateName::Crashed, 40)])]);
        shared.leave(no, at(15)).expect("leave");
        for gone in shared.owners().expect("list owners") {
            assert_eq!(shared.expel(&gone, at(20), "it is gone").expect("expel"), Some(1));
        }
        let is_at_least = |run: &RunInfo| backend.task(run).last_seen.is_some();
        assert!(is_at_least(&left_behind), "its process had left");
        assert!(is_at_least(&lost), "its process was killed");
        assert!(!is_at_least(&own), "its process wrote that itself");
    });
}

fn owner_of_a_run(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (one, other) = (join(shared, &PROCESS), join(shared, another(7)));
        let (outer, inner) = (flow(0), RunInfo { process: another(7), ..task(1) });
        backend.give(&[success(&outer, 0), success(&inner, 1)]);
        let owner_of = |run: &RunInfo| shared.owner_of(run.id).expect("look for an owner").map(|owner| owner.no);
        assert_eq!((owner_of(&outer), owner_of(&inner), owner_of(&task(2))), (Some(one), Some(other), None));
        let far = Timestamp::from_micros(i64::MAX).after(Duration::from_secs(1));
        shared.renew(one, far).expect("renew for ever");
        assert_eq!(owner(shared, one).lease_until, Some(far));
    });
}
