//! Cases: what comes back of one run.

use std::sync::Arc;

use serde_json::json;

use super::Case;
use super::sample::{Ask, at, counted, event, flow, log, outline, success, task, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{Event, FlowRunQuery, LogRecord, Pause, Process, RunInfo};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateName, StateType, Transition};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a task run comes back as it was sent", a_task_run_comes_back),
    ("a flow run comes back as it was sent", a_flow_run_comes_back),
    ("states come back in order, with their times and messages", states_come_back),
    ("a long history keeps its order", a_long_history_keeps_its_order),
    ("it is known when the next attempt begins", retries_are_scheduled),
    ("times follow the states", times_follow_the_states),
    ("a resumed run has not ended", a_resumed_run_has_not_ended),
    ("a run's name is the last one it was given", names),
    ("upstream runs keep their order and are replaced as a whole", upstream),
    ("parameters come back whenever they were sent", parameters),
    ("what a paused flow run waits for is there while it is paused", pauses),
    ("texts may hold anything", texts),
    ("functions and processes are not mixed up", functions_and_processes),
    ("log lines come back in order", logs),
    ("unknown runs are no error", unknown_runs),
    ("of many runs those are told that have not ended", active),
    ("an amendment alone does not make a run", an_amendment_is_no_run),
];

fn a_task_run_comes_back(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let other = task(5);
    let run = RunInfo {
        given_name: Some("load of today".into()),
        index: 7,
        tags: ["daily".into(), "eu".into()].into(),
        upstream: [other.id, outer.id].into(),
        ..task_of(&outer, 10)
    };
    let run = run.with_options(|more| more.version = Some("2.1"));
    backend.give(&[success(&run, 10)]);
    let read = backend.task(&run);
    assert_eq!(RunId::Task(read.id), run.id);
    assert_eq!(read.name, "load of today");
    assert_eq!(read.task_name, "load");
    assert_eq!(read.task_key, "pipeline::load");
    assert_eq!((read.state.kind, &*read.state.name), (StateType::Completed, "Completed"));
    assert_eq!(read.state.timestamp, at(12).to_datetime());
    assert_eq!(read.run_count, 1);
    assert_eq!(read.upstream, [other.id, outer.id]);
    assert_eq!(read.parent, Some(outer.id));
    assert_eq!(read.flow_run_id, outer.id.as_flow());
    assert_eq!(read.version.as_deref(), Some("2.1"));
    assert_eq!(read.tags, ["daily", "eu"]);
    assert_eq!((&*read.host, read.pid), ("machine", 4711));
    assert_eq!(read.created, at(10).to_datetime());
    assert_eq!(read.start_time, Some(at(11).to_datetime()));
    assert_eq!(read.end_time, Some(at(12).to_datetime()));
}

fn a_flow_run_comes_back(backend: &Arc<dyn StateBackend>) {
    let caller = task(0);
    let run = RunInfo {
        index: 3,
        parent: Some(caller.id),
        tags: ["nightly".into()].into(),
        upstream: [caller.id].into(),
        ..flow(10)
    };
    let run = run.with_options(|more| more.version = Some("1"));
    backend.give(&[event(&run, 0, &[(StateName::Pending, 10), (StateName::Running, 15)])]);
    let read = backend.flow(&run);
    assert_eq!(RunId::Flow(read.id), run.id);
    assert_eq!(read.name, "nightly-3");
    assert_eq!(read.flow_name, "nightly");
    assert_eq!((read.state.kind, &*read.state.name), (StateType::Running, "Running"));
    assert_eq!(read.run_count, 1);
    assert_eq!(read.upstream, [caller.id]);
    assert_eq!(read.parent, Some(caller.id));
    assert_eq!(read.version.as_deref(), Some("1"));
    assert_eq!(read.tags, ["nightly"]);
    assert_eq!(read.parameters, json!(null), "no parameters were sent");
    assert_eq!((&*read.host, read.pid), ("machine", 4711));
    assert_eq!(read.created, at(10).to_datetime());
    assert_eq!(read.start_time, Some(at(15).to_datetime()));
    assert_eq!(read.end_time, None);
}

fn states_come_back(backend: &Arc<dyn StateBackend>) {
    for run in [task(0), flow(1)] {
        let transitions: Vec<Transition> = StateName::ALL
            .into_iter()
            .zip(1..)
            .map(|(name, later)| Transition {
                message: (later % 2 == 0).then(|| format!("reason {later}").into()),
                scheduled: (name == StateName::AwaitingRetry).then(|| at(1_000)),
                ..Transition::new(name, at(later * later))
            })
            .collect();
        let (first, later) = transitions.split_at(5);
        backend.give(&[counted(&run, 0, first.to_vec(), 0), counted(&run, 5, later.to_vec(), 2)]);
        let expected: Vec<State> = transitions.iter().map(State::from).collect();
        assert_eq!(backend.history(&run), expected);
    }
}

fn a_long_history_keeps_its_order(backend: &Arc<dyn StateBackend>) {
    let run = task(0);
    let name = |seq: u32| if seq.is_multiple_of(2) { StateName::AwaitingRetry } else { StateName::Retrying };
    for seq in (0..300).step_by(3) {
        let states = [seq, seq + 1, seq + 2].map(|seq| (name(seq), i64::from(seq)));
        backend.give(&[event(&run, seq, &states)]);
    }
    let expected: Vec<_> = (0..300).map(|seq| (name(seq).as_str(), i64::from(seq))).collect();
    assert_eq!(outline(&backend.history(&run)), expected);
    assert_eq!(backend.task(&run).state.timestamp, at(299).to_datetime());
}

/// Fails, waits 50 microseconds for another attempt, and so on.
fn failing(first_seq: u32) -> [Transition; 2] {
    let micros = i64::from(first_seq) * 100;
    let waits = Transition {
        message: first_seq.is_multiple_of(4).then(|| "no route".into()),
        scheduled: Some(at(micros + 51)),
        ..Transition::new(StateName::AwaitingRetry, at(micros + 1))
    };
    [Transition::new(StateName::Retrying, at(micros)), waits]
}

fn retries_are_scheduled(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let runs = [outer.clone(), task_of(&outer, 1)];
    let states = |run: &RunInfo| match run.id {
        RunId::Task(_) => {
            let listed = outer.id.as_flow().map(|id| backend.task_runs(id).expect("read task runs").remove(0));
            vec![backend.task(run).state, listed.expect("it is a flow run").state]
        }
        RunId::Flow(_) => {
            let listed =
                |query: &FlowRunQuery| backend.flow_runs(query, at(0)).expect("read flow runs").remove(0).state;
            let query = FlowRunQuery::new();
            vec![backend.flow(run).state, listed(&query), listed(&query.state(StateName::AwaitingRetry))]
        }
    };
    for run in &runs {
        backend.give(&[event(run, 0, &[(StateName::Pending, 0), (StateName::Running, 1)])]);
    }
    for first_seq in (2..80).step_by(2) {
        let expected: Vec<State> = failing(first_seq).iter().map(State::from).collect();
        for run in &runs {
            backend.give(&[counted(run, first_seq, failing(first_seq), first_seq / 2 + 1)]);
            let mut found = states(run);
            found.extend(backend.history(run).pop());
            assert!(found.iter().all(|state| *state == expected[1]), "{expected:?}: {found:?}");
        }
    }
    let scheduled: Vec<_> = backend.history(&outer).into_iter().map(|state| state.scheduled_time).collect();
    let expected = |seq: i64| (seq % 2 == 1 && seq > 1).then(|| at((seq - 1) * 100 + 51).to_datetime());
    assert_eq!(scheduled, (0..80).map(expected).collect::<Vec<_>>(), "what was scheduled is history, too");
    backend.give(&[event(&outer, 80, &[(StateName::Retrying, 100_000)])]);
    assert_eq!(backend.flow(&outer).state.scheduled_time, None);
}

fn times_follow_the_states(backend: &Arc<dyn StateBackend>) {
    let retried = task(0);
    backend.give(&[event(&retried, 0, &[(StateName::Pending, 0)])]);
    let read = backend.task(&retried);
    assert_eq!((read.start_time, read.end_time), (None, None), "it is only pending");

    let failing = [(StateName::Running, 5), (StateName::AwaitingRetry, 6)]
        .map(|(name, micros)| Transition { message: Some("no route".into()), ..Transition::new(name, at(micros)) });
    backend.give(&[counted(&retried, 1, failing, 1)]);
    let read = backend.task(&retried);
    assert_eq!((read.start_time, read.end_time), (Some(at(5).to_datetime()), None), "it will be retried");
    assert_eq!(read.state.message.as_deref(), Some("no route"));

    let ending = [(StateName::Retrying, 20), (StateName::Completed, 30), (StateName::RolledBack, 40)];
    let ending = ending.map(|(name, micros)| Transition::new(name, at(micros)));
    backend.give(&[counted(&retried, 3, ending, 2)]);
    let read = backend.task(&retried);
    assert_eq!(read.run_count, 2);
    assert_eq!(read.start_time, Some(at(5).to_datetime()), "the first start counts");
    assert_eq!(read.end_time, Some(at(30).to_datetime()), "undoing a run does not change when it ended");
    assert_eq!((&*read.state.name, read.state.message), ("RolledBack", None));

    let never_started = task(100);
    backend.give(&[event(&never_started, 0, &[(StateName::Pending, 100), (StateName::NotReady, 101)])]);
    let read = backend.task(&never_started);
    assert_eq!((read.start_time, read.end_time), (None, Some(at(101).to_datetime())));
}

fn a_resumed_run_has_not_ended(backend: &Arc<dyn StateBackend>) {
    let run = flow(0);
    backend.give(&[event(&run, 0, &[(StateName::Pending, 0), (StateName::Running, 1), (StateName::Crashed, 2)])]);
    assert_eq!(backend.flow(&run).end_time, Some(at(2).to_datetime()));
    backend.give(&[event(&run, 3, &[(StateName::Running, 50)])]);
    let read = backend.flow(&run);
    assert_eq!((read.start_time, read.end_time), (Some(at(1).to_datetime()), None));
    backend.give(&[event(&run, 4, &[(StateName::Completed, 60)])]);
    assert_eq!(backend.flow(&run).end_time, Some(at(60).to_datetime()));
}

fn names(backend: &Arc<dyn StateBackend>) {
    let renamed = |run: &RunInfo, name: &str| Event::Renamed { run: run.id, name: name.into() };
    let (plain, early, late, flow) = (RunInfo { index: 12, ..task(0) }, task(1), task(2), flow(3));
    backend.give(&[success(&plain, 0), renamed(&early, "early"), success(&early, 1), success(&late, 2)]);
    backend.give(&[renamed(&late, "late"), success(&flow, 3), renamed(&flow, "")]);
    assert_eq!(backend.task(&plain).name, "load-12");
    assert_eq!(backend.task(&early).name, "early");
    assert_eq!(backend.task(&late).name, "late");
    assert_eq!(backend.flow(&flow).name, "", "an empty name is a name");
    backend.give(&[renamed(&late, "later")]);
    assert_eq!(backend.task(&late).name, "later");
}

fn upstream(backend: &Arc<dyn StateBackend>) {
    let others: Vec<RunId> = (0..50).rev().map(|n| if n % 3 == 0 { flow(n).id } else { task(n).id }).collect();
    let replaced =
        |run: &RunInfo, upstream: &[RunId]| Event::Upstream { run: run.id, upstream: upstream.to_vec().into() };
    let run = RunInfo { upstream: others.clone().into(), ..task(100) };
    backend.give(&[success(&run, 100)]);
    assert_eq!(backend.task(&run).upstream, others);
    backend.give(&[replaced(&run, &others[3..9])]);
    assert_eq!(backend.task(&run).upstream, others[3..9]);
    backend.give(&[replaced(&run, &[])]);
    assert_eq!(backend.task(&run).upstream, []);

    let early = flow(200);
    backend.give(&[replaced(&early, &others), success(&early, 200)]);
    assert_eq!(backend.flow(&early).upstream, others);
}

fn parameters(backend: &Arc<dyn StateBackend>) {
    let sent = json!({
        "count": 3, "big": u64::MAX, "ratio": 0.25, "text": "a\"b\u{0}\n", "none": null, "list": [1, [2]], "": {"x": true},
    });
    let parameters = |run: &RunInfo| Event::Parameters {
        run: run.id.as_flow().expect("the id of a flow run"),
        json: sent.to_string(),
    };
    let (early, late) = (flow(0), flow(10));
    backend.give(&[parameters(&early), success(&early, 0), success(&late, 10)]);
    assert_eq!(backend.flow(&early).parameters, sent);
    assert_eq!(backend.flow(&late).parameters, json!(null));
    backend.give(&[parameters(&late)]);
    assert_eq!(backend.flow(&late).parameters, sent);
}

fn pauses(backend: &Arc<dyn StateBackend>) {
    let pause = |message: &str, since: i64, until: Option<i64>| Pause {
        since: at(since).to_datetime(),
        until: until.map(|until| at(until).to_datetime()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        input_schema: until.map(|_| json!({"type": "object", "properties": {"a\"b": {"type": "string"}}})),
    };
    let paused = |run: &RunInfo, pause: &Pause| Event::Paused {
        run: run.id.as_flow().expect("the id of a flow run"),
        pause: Arc::new(pause.clone()),
    };
    let run = flow(0);
    let first = pause("go on?", 2, Some(9));
    backend.give(&[paused(&run, &first), event(&run, 0, &[(StateName::Pending, 0), (StateName::Running, 1)])]);
    assert_eq!(backend.flow(&run).pause, None, "it is not paused yet");
    backend.give(&[event(&run, 2, &[(StateName::Paused, 2)])]);
    assert_eq!(backend.flow(&run).pause, Some(first));
    let second = pause("", 3, None);
    backend.give(&[paused(&run, &second)]);
    assert_eq!(backend.flow(&run).pause, Some(second.clone()));
    assert_eq!(backend.flow_runs(&Default::default(), at(0)).expect("list flow runs")[0].pause, Some(second));
    assert_eq!((backend.flow(&run).run_count, backend.flow(&run).end_time), (1, None));
    backend.give(&[event(&run, 3, &[(StateName::Running, 4)])]);
    assert_eq!(backend.flow(&run).pause, None, "it goes on");
    backend.give(&[paused(&run, &pause("again", 5, None)), event(&run, 4, &[(StateName::Paused, 5)])]);
    assert_eq!(backend.flow(&run).pause.and_then(|pause| pause.message).as_deref(), Some("again"));
    backend.give(&[event(&run, 5, &[(StateName::Crashed, 6)])]);
    assert_eq!(backend.flow(&run).pause, None, "it has ended");
}

fn texts(backend: &Arc<dyn StateBackend>) {
    let long = "ä".repeat(100_000);
    for text in ["", " ", "\0", "a\0b", "\"quoted\" \\ 'single'", "line\nline\r\n\t", "日本語 🦀 e\u{301}", &long]
    {
        let run = RunInfo { given_name: Some(text.into()), tags: [text.into(), "x".into()].into(), ..task(0) };
        let states = [StateName::Pending, StateName::Failed];
        let states =
            states.map(|name| Transition { message: Some(text.into()), ..Transition::new(name, at(name as i64)) });
        let line =
            LogRecord { run: run.id, at: at(1), level: "ERROR", target: text.to_owned(), message: text.to_owned() };
        backend.give(&[counted(&run, 0, states, 0), Event::Log(line)]);
        let read = backend.task(&run);
        assert_eq!(read.name, text);
        assert_eq!(read.tags, [text, "x"]);
        assert_eq!(read.state.message.as_deref(), Some(text));
        let messages = backend.history(&run).into_iter().map(|state| state.message);
        assert_eq!(messages.collect::<Vec<_>>(), vec![Some(text.to_owned()); 2]);
        let lines = backend.logs(run.id).expect("read a log");
        assert_eq!((&*lines[0].target, &*lines[0].message), (text, text));
    }
}

fn functions_and_processes(backend: &Arc<dyn StateBackend>) {
    // A backend may keep them for good, so that a leak of a few bytes per check is as it would be.
    let elsewhere: &'static Process = Box::leak(Box::new(Process {
        host: "elsewhere".to_owned(),
        pid: u32::MAX,
        namespace: 2,
        started: 1,
        session: 0,
    }));
    let runs = [
        task(0),
        task(1).declared(|def| def.key = "other::load"),
        task(2).declared(|def| def.name = "LOAD"),
        task(3).with_options(|more| more.version = Some("")),
        task(4).with_options(|more| more.version = Some("2")),
        RunInfo { process: elsewhere, ..task(5) },
    ];
    backend.give(&runs.clone().map(|run| success(&run, 0)));
    for run in &runs {
        let read = backend.task(run);
        assert_eq!((&*read.task_key, &*read.task_name), (run.key(), run.function()));
        assert_eq!(read.version.as_deref(), run.version());
        assert_eq!((&*read.host, read.pid), (&*run.process.host, run.process.pid));
    }
}

fn logs(backend: &Arc<dyn StateBackend>) {
    let (run, other) = (task(0), flow(0));
    backend.give(&[log(run.id, 5, "second"), log(other.id, 5, "of another run"), log(run.id, 5, "third")]);
    backend.give(&[log(run.id, 9, "fifth"), log(run.id, 1, "first"), log(run.id, 5, "fourth")]);
    let lines = backend.logs(run.id).expect("read a log");
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    assert_eq!(messages, ["first", "second", "third", "fourth", "fifth"], "by time, then as they came");
    assert_eq!((lines[0].run, &*lines[0].level, &*lines[0].target), (run.id, "INFO", "pipeline"));
    assert_eq!(lines[0].timestamp, at(1).to_datetime());
    assert_eq!(backend.logs(other.id).expect("read a log").len(), 1);
}

fn active(backend: &Arc<dyn StateBackend>) {
    let [begins, done, over, runs] = [task(0), flow(1), task(2), flow(3)];
    backend.give(&[
        event(&begins, 0, &[(StateName::Pending, 0)]),
        success(&done, 0),
        success(&over, 0),
        event(&runs, 0, &[(StateName::Pending, 0), (StateName::Running, 1)]),
    ]);
    let unknown = RunId::Task(TaskRunId::new(at(0)));
    let all = [runs.id, over.id, unknown, begins.id, done.id];
    for at_most in [0, 1, 2, 9] {
        let active = backend.active_among(&all, at_most).expect("look for runs");
        assert_eq!(active.count, 2);
        let first: Vec<_> = active.first.iter().map(|(id, name, state)| (*id, &**name, &*state.name)).collect();
        let expected = [(runs.id, &*runs.name(), "Running"), (begins.id, &*begins.name(), "Pending")];
        assert_eq!(first, expected[..at_most.min(2)]);
    }
}

fn unknown_runs(backend: &Arc<dyn StateBackend>) {
    backend.give(&[]);
    backend.give(&[success(&task(0), 0), success(&flow(0), 0)]);
    let (task, flow) = (TaskRunId::new(at(0)), FlowRunId::new(at(0)));
    assert_eq!(backend.task_run(task).expect("look for a task run"), None);
    assert_eq!(backend.flow_run(flow).expect("look for a flow run"), None);
    assert_eq!(backend.task_runs(flow).expect("list task runs"), []);
    for run in [RunId::Task(task), RunId::Flow(flow)] {
        assert_eq!(backend.states(run).expect("read states"), []);
        assert_eq!(backend.logs(run).expect("read a log"), []);
    }
}

fn an_amendment_is_no_run(backend: &Arc<dyn StateBackend>) {
    let run = flow(0);
    let id = run.id.as_flow().expect("the id of a flow run");
    backend.give(&[Event::Renamed { run: run.id, name: "x".into() }, Event::Parameters { run: id, json: "{}".into() }]);
    assert_eq!(backend.flow_run(id).expect("look for a flow run"), None);
    assert_eq!(backend.flow_runs(&Default::default(), at(0)).expect("list flow runs"), []);
    assert_eq!(backend.history(&run), []);
}
