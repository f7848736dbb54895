//! Cases for stores that several processes share: runs that crashed with their process.

use std::sync::Arc;
use std::thread;

use super::Case;
use super::ownership::{another, join, with};
use super::sample::{Ask, PROCESS, at, event, flow, success, task, task_of};
use crate::backend::record::{Event, Process, Resumer, RunInfo, TakeOver};
use crate::backend::{BackendErrorKind, Crash, OwnerNo, Shared, StateBackend};
use crate::hook::{Hook, HookReturn, Hooks};
use crate::state::{StateName, Transition};

pub(super) const CASES: &[(&str, Case)] = &[
    ("hooks of runs that crashed with their process wait for somebody", hooks_wait),
    ("of several who ask for the hooks of a run one is given them", hooks_are_given_once),
    ("a flow run goes on by itself as often as it may", goes_on),
    ("flow runs that are not to go on by themselves do not", does_not_go_on),
];

static HOOKED: Hooks =
    Hooks { on_crashed: &[Hook::of_task("tells", |_, _| HookReturn::Done(Ok(())), || false)], ..Hooks::NONE };

fn with_hooks(run: RunInfo) -> RunInfo {
    run.with_options(|more| more.hooks = HOOKED)
}

fn goes_on_by_itself(run: RunInfo) -> RunInfo {
    run.with_options(|more| more.crash_budget = Some(3))
}

fn begun(run: &RunInfo) -> Event {
    event(run, 0, &[(StateName::Pending, 0), (StateName::Running, 1)])
}

fn expel(shared: &dyn Shared, no: OwnerNo) {
    let owner = shared.owner(no).expect("look for an owner").expect("it has joined");
    shared.expel(&owner, at(100), "it went away").expect("expel");
}

fn hooks_wait(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let hooked = with_hooks(flow(0)).declared(|def| (def.name, def.key) = ("tells", "pipeline::tells"));
        let told = with_hooks(task_of(&hooked, 1)).declared(|def| (def.name, def.key) = ("told", "pipeline::told"));
        let ended = RunInfo { id: task(2).id, ..told.clone() };
        backend.give(&[begun(&hooked), begun(&told), success(&ended, 2), begun(&task_of(&hooked, 3))]);
        assert_eq!(shared.uncalled().expect("look for crashes"), []);
        expel(shared, no);
        let crash =
            |run: &RunInfo| Crash { run: run.id, key: run.key().to_owned(), function: run.function().to_owned() };
        let mut found = shared.uncalled().expect("look for crashes");
        found.sort_by_key(|crash| crash.key.clone());
        assert_eq!(found, [crash(&hooked), crash(&told)]);
    });
}

fn hooks_are_given_once(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let (no, next) = (join(shared, &PROCESS), join(shared, another(7)));
        let run = with_hooks(task(0));
        backend.give(&[begun(&run)]);
        assert!(!shared.take_hooks(next, run.id).expect("ask for hooks"), "it has not crashed");
        expel(shared, no);
        let fenced = shared.take_hooks(no, run.id).expect_err("it is gone itself");
        assert_eq!(fenced.kind(), BackendErrorKind::Fenced);
        let backend = &**backend;
        let given: usize = thread::scope(|scope| {
            let ask = || backend.shared().expect("it is shared").take_hooks(next, run.id).expect("ask for hooks");
            let asking: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asking| usize::from(asking.join().expect("no panic"))).sum()
        });
        assert_eq!(given, 1);
        assert_eq!(shared.uncalled().expect("look for crashes"), []);
    });
}

/// Lets the run go on in another process.
fn take_over(backend: &dyn StateBackend, run: &RunInfo, process: &'static Process, by: Resumer) -> bool {
    let seq = u32::try_from(backend.states(run.id).expect("read states").len()).expect("a small number");
    let running = Transition::new(StateName::Running, at(200 + i64::from(seq)));
    let run = run.id.as_flow().expect("the id of a flow run");
    backend.take_over(&TakeOver { run, seq, process, running, by }).expect("take it over")
}

fn goes_on(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let run = goes_on_by_itself(flow(0));
        let id = run.id.as_flow().expect("the id of a flow run");
        let crashed = || shared.crashed(run.key()).expect("look for crashes");
        let no = join(shared, &PROCESS);
        backend.give(&[begun(&run)]);
        assert_eq!(crashed(), [], "it is there");
        expel(shared, no);
        assert_eq!(crashed(), [(id, 0)]);
        assert_eq!(shared.crashed("pipeline::other").expect("look for crashes"), []);

        let no = join(shared, another(1));
        assert!(take_over(&**backend, &run, another(1), Resumer::Itself { budget: 1 }));
        assert_eq!(crashed(), []);
        expel(shared, no);
        assert_eq!(crashed(), [(id, 1)]);
        let no = join(shared, another(2));
        assert!(!take_over(&**backend, &run, another(2), Resumer::Itself { budget: 1 }), "it may do so once");
        assert!(!shared.leave_crashed(id, 0).expect("leave it"), "it went on once");
        assert!(shared.leave_crashed(id, 1).expect("leave it"));
        assert!(!shared.leave_crashed(id, 1).expect("leave it"), "somebody said so before");

        assert!(take_over(&**backend, &run, another(2), Resumer::Somebody { on_crash: true }));
        expel(shared, no);
        assert_eq!(crashed(), [(id, 0)], "it is counted anew");
    });
}

fn does_not_go_on(backend: &Arc<dyn StateBackend>) {
    with(backend, |shared| {
        let no = join(shared, &PROCESS);
        let plain = flow(0);
        let inside = RunInfo { parent: Some(plain.id), flow_run: plain.id.as_flow(), ..goes_on_by_itself(flow(1)) };
        backend.give(&[begun(&plain), begun(&inside)]);
        expel(shared, no);
        assert_eq!(shared.crashed(plain.key()).expect("look for crashes"), []);
        join(shared, another(1));
        assert!(!take_over(&**backend, &plain, another(1), Resumer::Itself { budget: 3 }));
        assert!(take_over(&**backend, &plain, another(1), Resumer::Somebody { on_crash: false }));
    });
}
