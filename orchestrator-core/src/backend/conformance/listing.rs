//! Cases: which runs are listed, and in what order.

use std::sync::Arc;
use std::time::Duration;

use super::Case;
use super::sample::{Ask, at, event, flow, success, task, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{Event, FlowRunQuery, RunInfo};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId};
use crate::state::{StateName, StateType};

pub(super) const CASES: &[(&str, Case)] = &[
    ("flow runs are listed newest first", newest_first),
    ("flow runs are listed by flow, state and age", filters),
    ("flow runs are listed up to the limit", limit),
    ("task runs are listed in the order of submission", order_of_submission),
    ("task runs are listed under their own flow run only", nested_flows),
    ("listed runs are as they are when read alone", listed_as_read),
];

fn listed(backend: &Arc<dyn StateBackend>, query: &FlowRunQuery, now: Timestamp) -> Vec<RunId> {
    let runs = backend.flow_runs(query, now).expect("list flow runs");
    runs.into_iter().map(|run| RunId::Flow(run.id)).collect()
}

fn tasks_of(backend: &Arc<dyn StateBackend>, flow: &RunInfo) -> Vec<RunId> {
    let runs = backend.task_runs(flow.id.as_flow().expect("the id of a flow run")).expect("list task runs");
    runs.into_iter().map(|run| RunId::Task(run.id)).collect()
}

fn newest_first(backend: &Arc<dyn StateBackend>) {
    let created = [40, 10, 30, 20];
    let flows = created.map(flow);
    for (flow, created) in flows.iter().zip(created) {
        backend.give(&[success(flow, created)]);
    }
    let expected = [0, 2, 3, 1].map(|index: usize| flows[index].id);
    assert_eq!(listed(backend, &FlowRunQuery::new(), at(100)), expected);
}

fn filters(backend: &Arc<dyn StateBackend>) {
    let weekly = |created| flow(created).declared(|def| def.name = "weekly");
    let elsewhere = flow(400).declared(|def| def.key = "other::nightly").with_options(|more| more.version = Some("2"));
    let (done, failed, running, other) = (flow(100), flow(200), flow(300), weekly(250));
    let retrying = weekly(260);
    backend.give(&[success(&done, 100), event(&failed, 0, &[(StateName::TimedOut, 200)]), success(&other, 250)]);
    backend.give(&[event(&running, 0, &[(StateName::Running, 300)]), success(&elsewhere, 400)]);
    backend.give(&[event(&retrying, 0, &[(StateName::Retrying, 260)])]);

    let all = FlowRunQuery::new;
    let now = at(500);
    let check = |query: FlowRunQuery, expected: &[&RunInfo]| {
        let expected: Vec<RunId> = expected.iter().map(|run| run.id).collect();
        assert_eq!(listed(backend, &query, now), expected, "{query:?}");
    };
    check(all().flow("nightly"), &[&elsewhere, &running, &failed, &done]);
    check(all().flow("weekly"), &[&retrying, &other]);
    check(all().flow("night"), &[]);
    let inside = RunInfo { parent: Some(done.id), flow_run: done.id.as_flow(), ..flow(150) };
    backend.give(&[success(&inside, 150)]);
    check(all().flow("nightly"), &[&elsewhere, &running, &failed, &inside, &done]);
    check(all().flow("nightly").roots(), &[&elsewhere, &running, &failed, &done]);
    check(all().roots().limit(2), &[&elsewhere, &running]);
    check(all().state(StateType::Completed).roots(), &[&elsewhere, &other, &done]);
    check(all().active().roots(), &[&running, &retrying]);
    check(all().state(StateType::Failed), &[&failed]);
    check(all().state(StateType::Running), &[&running, &retrying]);
    check(all().state(StateName::Running), &[&running]);
    check(all().state(StateName::Retrying), &[&retrying]);
    check(all().state(StateName::Retrying).active().roots(), &[&retrying]);
    check(all().state(StateName::TimedOut), &[&failed]);
    check(all().state(StateName::Failed), &[]);
    check(all().state(StateType::Paused), &[]);
    check(all().within(Duration::from_micros(200)), &[&elsewhere, &running]);
    check(all().within(Duration::from_micros(199)), &[&elsewhere]);
    check(all().within(Duration::ZERO), &[]);
    check(all().within(Duration::MAX).flow("weekly"), &[&retrying, &other]);
    check(all().flow("nightly").state(StateType::Completed).within(Duration::from_micros(150)), &[&elsewhere]);
    check(all().flow("nightly").state(StateType::Completed).limit(1), &[&elsewhere]);

    backend.give(&[event(&running, 1, &[(StateName::Failed, 450)])]);
    check(all().state(StateType::Failed), &[&running, &failed]);
}

fn limit(backend: &Arc<dyn StateBackend>) {
    let flows: Vec<RunInfo> = (0..250).map(flow).collect();
    backend.give(&flows.iter().zip(0..).map(|(flow, created)| success(flow, created)).collect::<Vec<_>>());
    let newest: Vec<RunId> = flows.iter().rev().map(|flow| flow.id).collect();
    assert_eq!(listed(backend, &FlowRunQuery::new(), at(999)), newest[..200], "the default is 200");
    for limit in [0, 1, 7, 250, usize::MAX] {
        let query = FlowRunQuery::new().limit(limit);
        assert_eq!(listed(backend, &query, at(999)), newest[..limit.min(250)], "at most {limit}");
    }
}

fn order_of_submission(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let mut runs: Vec<(i64, RunInfo)> = (0..40).map(|n| (n / 4, task_of(&outer, n / 4))).collect();
    let events: Vec<Event> = runs.iter().rev().map(|(created, run)| success(run, *created)).collect();
    for batch in events.chunks(7) {
        backend.give(batch);
    }
    runs.sort_by_key(|(created, run)| (*created, run.id));
    let expected: Vec<RunId> = runs.iter().map(|(_, run)| run.id).collect();
    assert_eq!(tasks_of(backend, &outer), expected, "by time of creation, then by id");
}

fn nested_flows(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let inner = RunInfo { parent: Some(outer.id), flow_run: outer.id.as_flow(), ..flow(10) };
    let (of_outer, of_inner, of_none) = (task_of(&outer, 20), task_of(&inner, 30), task(40));
    let nested = RunInfo { parent: Some(of_outer.id), ..task_of(&outer, 50) };
    backend.give(&[success(&of_inner, 30), success(&of_outer, 20), success(&of_none, 40), success(&nested, 50)]);
    backend.give(&[success(&outer, 0), success(&inner, 10)]);
    assert_eq!(tasks_of(backend, &outer), [of_outer.id, nested.id]);
    assert_eq!(tasks_of(backend, &inner), [of_inner.id]);
    assert_eq!(backend.flow(&inner).parent, Some(outer.id));
    assert_eq!(backend.task(&nested).parent, Some(of_outer.id));
    assert_eq!(backend.task(&of_none).flow_run_id, None);
    assert_eq!(listed(backend, &FlowRunQuery::new(), at(99)), [inner.id, outer.id], "inner flow runs are flow runs");
}

fn listed_as_read(backend: &Arc<dyn StateBackend>) {
    let outer = RunInfo { tags: ["a".into()].into(), ..flow(0) };
    let first = task_of(&outer, 1);
    let second = RunInfo { upstream: [first.id].into(), index: 1, ..task_of(&outer, 2) }
        .with_options(|more| more.version = Some("3"));
    backend.give(&[success(&first, 1), success(&second, 2), success(&outer, 0)]);
    backend.give(&[Event::Renamed { run: second.id, name: "last".into() }]);
    let flow_id: FlowRunId = outer.id.as_flow().expect("the id of a flow run");
    let json = r#"{"n":1}"#.to_owned();
    backend.give(&[Event::Parameters { run: flow_id, json }]);
    assert_eq!(backend.flow_runs(&FlowRunQuery::new(), at(9)).expect("list flow runs"), [backend.flow(&outer)]);
    let expected = [backend.task(&first), backend.task(&second)];
    assert_eq!(backend.task_runs(flow_id).expect("list task runs"), expected);
}
