//! Cases: what is found among many runs, and in the cache.

use std::sync::Arc;
use std::time::Duration;

use super::Case;
use super::sample::{Ask, at, cached, event, flow, log, success, task, task_of};
use crate::backend::StateBackend;
use crate::backend::record::{CacheKey, CacheQuery, CacheRecord, Event, FlowRunQuery, RunInfo, TaskRunQuery};
use crate::id::{FlowRunId, RunId};
use crate::state::{StateName, StateType};

pub(super) const CASES: &[(&str, Case)] = &[
    ("runs are found by the beginning or the end of their id", by_id),
    ("runs are found by their name", by_name),
    ("task runs are found by flow run, name, state and age", task_runs),
    ("task runs are counted by state", counts),
    ("active and inner flow runs are listed alone", inner_flows),
    ("the log of a flow run has the lines of all runs inside it", inner_logs),
    ("cached results are listed and removed", cache),
];

fn called(backend: &Arc<dyn StateBackend>, text: &str) -> Vec<RunId> {
    backend.runs_called(text, 10).expect("look for a run")
}

fn id_of(run: &RunInfo) -> FlowRunId {
    run.id.as_flow().expect("the id of a flow run")
}

fn by_id(backend: &Arc<dyn StateBackend>) {
    let flows: Vec<RunInfo> = (0..3).map(|n| flow(n * 1_000_000_000)).collect();
    let task = task_of(&flows[0], 500_000_000);
    backend.give(&flows.iter().zip(0..).map(|(run, n)| success(run, n * 1_000_000_000)).collect::<Vec<_>>());
    backend.give(&[success(&task, 500_000_000)]);
    for run in flows.iter().chain([&task]) {
        let id = run.id.to_string();
        let simple = run.id.as_uuid().simple().to_string();
        for part in
            [&id, &simple, &id.to_uppercase(), &simple[..15], &id[..16], &simple[17..], &id[19..], &simple[18..]]
        {
            assert_eq!(called(backend, part), [run.id], "{part} of {id}");
        }
    }
    let newest_first = [flows[2].id, flows[1].id, flows[0].id, task.id];
    assert_eq!(called(backend, &flows[0].id.to_string()[..4]), newest_first, "flow runs first, each kind newest first");
    let found = backend.runs_called(&flows[0].id.to_string()[..1], 2).expect("look for a run");
    assert_eq!(found, [flows[2].id, flows[1].id, task.id], "at most two of each kind");
    for nothing in ["", "-", "ffffffff", "xyz", "0123456789abcdef0123456789abcdef0", "%", "_"] {
        assert_eq!(called(backend, nothing), [], "'{nothing}'");
    }
}

fn by_name(backend: &Arc<dyn StateBackend>) {
    let named = RunInfo { given_name: Some("brave-otter".into()), ..flow(0) };
    let (numbered, renamed) =
        (RunInfo { index: 7, ..task_of(&named, 10) }, RunInfo { index: 8, ..task_of(&named, 20) });
    backend.give(&[success(&named, 0), success(&numbered, 10), success(&renamed, 20)]);
    backend.give(&[Event::Renamed { run: renamed.id, name: "load a.csv".into() }]);
    assert_eq!(called(backend, "brave-otter"), [named.id]);
    assert_eq!(called(backend, "load-7"), [numbered.id]);
    assert_eq!(called(backend, "load a.csv"), [renamed.id]);
    for nobody in ["load-8", "load", "load-", "nightly-0", "load-07", "Brave-Otter"] {
        assert_eq!(called(backend, nobody), [], "'{nobody}'");
    }
    let second = RunInfo { index: 7, ..task(30) };
    backend.give(&[success(&second, 30)]);
    assert_eq!(called(backend, "load-7"), [second.id, numbered.id], "a name may be that of several");
}

fn task_runs(backend: &Arc<dyn StateBackend>) {
    let (outer, other) = (flow(0), flow(1));
    let (first, second) = (task_of(&outer, 10), RunInfo { index: 1, ..task_of(&outer, 20) });
    let saved = task_of(&other, 30).declared(|def| (def.name, def.key) = ("save", "pipeline::save"));
    let alone = RunInfo { index: 1, ..task(40) };
    backend.give(&[success(&outer, 0), success(&other, 1), success(&first, 10)]);
    backend.give(&[event(&second, 0, &[(StateName::TimedOut, 20)]), event(&saved, 0, &[(StateName::Running, 30)])]);
    backend.give(&[event(&alone, 0, &[(StateName::AwaitingRetry, 40)])]);
    backend.give(&[Event::Renamed { run: saved.id, name: "save a.csv".into() }]);
    let check = |query: TaskRunQuery, expected: &[&RunInfo]| {
        let runs = backend.find_task_runs(&query, at(100)).expect("find task runs");
        for run in &runs {
            assert_eq!(Some(run), backend.task_run(run.id).expect("read a task run").as_ref());
        }
        let runs: Vec<RunId> = runs.into_iter().map(|run| run.id.into()).collect();
        assert_eq!(runs, expected.iter().map(|run| run.id).collect::<Vec<_>>(), "{query:?}");
    };
    let all = TaskRunQuery::new;
    check(all(), &[&alone, &saved, &second, &first]);
    check(all().limit(2), &[&alone, &saved]);
    check(all().limit(0), &[]);
    check(all().of(id_of(&outer)), &[&second, &first]);
    check(all().name("load"), &[&alone, &second, &first]);
    check(all().name("load-1"), &[&alone, &second]);
    check(all().name("save a.csv"), &[&saved]);
    check(all().name("save-0"), &[]);
    check(all().state(StateType::Failed), &[&second]);
    check(all().state(StateType::Scheduled), &[&alone]);
    check(all().state(StateType::Running), &[&saved]);
    check(all().state(StateName::Completed), &[&first]);
    check(all().state(StateName::Cached), &[]);
    check(all().within(Duration::from_micros(70)), &[&alone, &saved]);
    check(all().of(id_of(&outer)).name("load").state(StateType::Completed).within(Duration::MAX), &[&first]);
}

fn counts(backend: &Arc<dyn StateBackend>) {
    let (outer, other) = (flow(0), flow(1));
    let count = || backend.count_task_runs(id_of(&outer)).expect("count task runs");
    assert_eq!(count(), []);
    backend.give(&[success(&task_of(&outer, 1), 1), success(&task_of(&outer, 2), 2), success(&task_of(&other, 3), 3)]);
    backend.give(&[event(&task_of(&outer, 4), 0, &[(StateName::Cached, 4)])]);
    backend.give(&[event(&task_of(&outer, 5), 0, &[(StateName::AwaitingConcurrencySlot, 5)])]);
    let expected = [(StateName::AwaitingConcurrencySlot, 1), (StateName::Completed, 2), (StateName::Cached, 1)];
    assert_eq!(count(), expected);
}

fn inner_flows(backend: &Arc<dyn StateBackend>) {
    let outer = flow(0);
    let inner = RunInfo { parent: Some(outer.id), flow_run: outer.id.as_flow(), ..flow(10) };
    let innermost = RunInfo { parent: Some(inner.id), flow_run: inner.id.as_flow(), ..flow(20) };
    backend.give(&[event(&outer, 0, &[(StateName::Running, 0)]), event(&inner, 0, &[(StateName::Paused, 10)])]);
    backend.give(&[success(&innermost, 20)]);
    let listed = |query: &FlowRunQuery| -> Vec<RunId> {
        let runs = backend.flow_runs(query, at(99)).expect("list flow runs");
        runs.into_iter().map(|run| run.id.into()).collect()
    };
    assert_eq!(listed(&FlowRunQuery::new().active()), [inner.id, outer.id]);
    assert_eq!(listed(&FlowRunQuery::new().active().flow("nightly").limit(1)), [inner.id]);
    assert_eq!(listed(&FlowRunQuery::new().inside(id_of(&outer))), [inner.id]);
    assert_eq!(listed(&FlowRunQuery::new().inside(id_of(&inner)).flow("nightly")), [innermost.id]);
    assert_eq!(listed(&FlowRunQuery::new().inside(id_of(&inner)).active()), []);
    let active = || backend.active_subflows(id_of(&outer)).expect("count flow runs");
    assert_eq!(active(), Some((1, id_of(&inner))));
    assert_eq!(backend.active_subflows(id_of(&inner)).expect("count flow runs"), None);
    let later = [30, 40].map(|at| RunInfo { parent: Some(outer.id), flow_run: outer.id.as_flow(), ..flow(at) });
    // The last one comes first.
    backend.give(&[event(&later[1], 0, &[(StateName::Pending, 40)]), event(&later[0], 0, &[(StateName::Running, 30)])]);
    assert_eq!(active(), Some((3, id_of(&inner))));
    backend.give(&[event(&inner, 1, &[(StateName::Running, 50), (StateName::Completed, 51)])]);
    assert_eq!(active(), Some((2, id_of(&later[0]))));
    backend.give(&[event(&later[0], 1, &[(StateName::Failed, 60)]), event(&later[1], 1, &[(StateName::Crashed, 60)])]);
    assert_eq!(active(), None);
}

fn inner_logs(backend: &Arc<dyn StateBackend>) {
    let (outer, other) = (flow(0), flow(1));
    let inner = RunInfo { parent: Some(outer.id), flow_run: outer.id.as_flow(), ..flow(10) };
    let (first, second, elsewhere) = (task_of(&outer, 20), task_of(&inner, 30), task_of(&other, 40));
    backend.give(&[&outer, &other, &inner, &first, &second, &elsewhere].map(|run| success(run, 50)));
    let lines = |run: RunId, after| {
        let lines = backend.logs_after(run, after, 100).expect("read a log");
        lines.into_iter().map(|(number, line)| (number, line.run, line.message)).collect::<Vec<_>>()
    };
    assert_eq!(lines(outer.id, 0), []);
    let runs = [first.id, outer.id, elsewhere.id, second.id, inner.id, first.id];
    backend.give(&runs.iter().zip(0..).map(|(run, n)| log(*run, 100 - n, &format!("line {n}"))).collect::<Vec<_>>());
    let all = lines(outer.id, 0);
    let of = |runs: &[(u64, RunId, String)]| runs.iter().map(|(_, run, line)| (*run, line.clone())).collect::<Vec<_>>();
    let expected = [0, 1, 3, 4, 5].map(|n| (runs[n], format!("line {n}")));
    assert_eq!(of(&all), expected, "in the order in which they were stored");
    assert!(all[0].0 > 0 && all.is_sorted_by(|a, b| a.0 < b.0), "numbers grow: {all:?}");
    for n in 0..all.len() {
        assert_eq!(lines(outer.id, all[n].0), all[n + 1..], "what came later");
    }
    assert_eq!(of(&lines(inner.id, 0)), expected[2..4]);
    assert_eq!(of(&lines(first.id, 0)), [expected[0].clone(), expected[4].clone()]);
    assert_eq!(of(&lines(first.id, all[0].0)), [expected[4].clone()]);
    assert_eq!(backend.logs_after(outer.id, 0, 2).expect("read a log").len(), 2);
    backend.give(&[log(second.id, 0, "late")]);
    assert_eq!(of(&lines(outer.id, all[4].0)), [(second.id, "late".to_owned())]);
}

fn cache(backend: &Arc<dyn StateBackend>) {
    let save = |n: u8| CacheRecord { task_key: "pipeline::save", ..cached(n, n.into(), None, b"longer") };
    let key = |n: u8| CacheKey([n; 32]);
    let records = [cached(0x11, 10, Some(90), b"one"), save(0x12), save(0x21), save(0x22)];
    backend.give(&records.map(|record| Event::Cached(Box::new(record))));
    let listed = |query: &CacheQuery| -> Vec<CacheKey> {
        let entries = backend.cache_entries(query).expect("list cached results");
        entries.into_iter().map(|entry| entry.key).collect()
    };
    let all = CacheQuery::new;
    assert_eq!(listed(&all()), [key(0x22), key(0x21), key(0x12), key(0x11)], "newest first");
    assert_eq!(listed(&all().limit(1)), [key(0x22)]);
    assert_eq!(listed(&all().task_key("pipeline::load")), [key(0x11)]);
    for (digits, expected) in
        [("1", vec![0x12, 0x11]), ("21", vec![0x21]), ("212", vec![0x21]), ("213", vec![]), ("%", vec![])]
    {
        assert_eq!(listed(&all().prefix(digits)), expected.into_iter().map(key).collect::<Vec<_>>(), "{digits}");
    }
    let entry = backend.cache_entries(&all().prefix(key(0x11).to_string())).expect("find a cached result").remove(0);
    assert_eq!((entry.task_key.as_str(), entry.bytes), ("pipeline::load", Some(3)));
    assert_eq!((entry.created, entry.expires), (at(10).to_datetime(), Some(at(90).to_datetime())));
    assert_eq!((entry.format.as_deref(), entry.type_name.as_deref()), (Some("msgpack/1"), Some("u64")));

    assert_eq!(backend.remove_cached(&[key(0x21), key(0x77)]).expect("remove"), 1);
    assert!(backend.cached(&key(0x21)).expect("look").is_none());
    assert_eq!(backend.clear_cache(Some("pipeline::save")).expect("clear"), 2);
    assert_eq!(listed(&all()), [key(0x11)]);
    assert_eq!(backend.clear_cache(Some("pipeline::sav")).expect("clear"), 0);
    assert_eq!(backend.clear_cache(None).expect("clear"), 1);
    assert_eq!(listed(&all()), []);
}
