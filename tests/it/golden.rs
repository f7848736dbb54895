//! Database files that released formats wrote: `tests/golden/format_N.db`, each with what is to be read from it.
//!
//! `ORCHESTRATOR_TEST_GOLDEN=overwrite cargo test --test it golden` writes the texts anew, and the file of the present format.
//! A file of a format that was released is never changed: it was written by the library of its time.

mod make;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use orchestrator::backend::maintenance::Maintenance as _;
use orchestrator::backend::record::FORMAT_VERSION;
use orchestrator::backend::sqlite::{SqliteBackend, SqliteOptions};
use orchestrator::backend::{
    CacheIndex as _, LimitRecord, Ownership as _, ResultIndex as _, RunHistory as _, SlotLeases as _,
};
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, FlowRunQuery, Pause, RunId, Timestamp};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn files_of_all_formats_are_brought_up_to_date_and_read() {
    for format in 1..=FORMAT_VERSION {
        let file = golden(&format!("format_{format}.db"));
        let overwrite = std::env::var_os("ORCHESTRATOR_TEST_GOLDEN").is_some();
        if format == FORMAT_VERSION && overwrite {
            make::make(&file);
        }
        if format == FORMAT_VERSION && !file.exists() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("history.db");
        std::fs::copy(&file, &copy).unwrap();
        let backend = SqliteBackend::open(&copy).unwrap();
        let migrated = (format != FORMAT_VERSION).then_some(format);
        assert_eq!(backend.info().unwrap().migrated_from, migrated);
        let told = tell(&backend);
        let text = file.with_extension("txt");
        if overwrite {
            std::fs::write(&text, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&text).unwrap();
        assert!(told == expected, "format {format} reads otherwise than {}:\n{told}", text.display());
        assert_eq!(backend.check().unwrap(), [], "format {format}");
        drop(backend);
        let again = SqliteBackend::open(&copy).unwrap();
        assert_eq!(again.info().unwrap().migrated_from, None, "once is enough");
        assert_eq!(tell(&again), expected);
        let unfinished = expected.lines().last().unwrap().matches("RunId").count();
        assert_eq!(end_all(&again), unfinished);
        assert!(tell(&again).ends_with("not ended: []\n"));
        assert!(limits(&again).iter().all(|limit| limit.taken == 0), "what they held is free");
    }
}

#[test]
fn a_file_of_any_format_is_looked_at_as_it_is() {
    for format in 1..=FORMAT_VERSION {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("history.db");
        std::fs::copy(golden(&format!("format_{format}.db")), &copy).unwrap();
        let before = std::fs::read(&copy).unwrap();
        let backend = SqliteBackend::open_with(&copy, SqliteOptions::new().look_only(true)).unwrap();
        assert_eq!(tell(&backend), std::fs::read_to_string(golden(&format!("format_{format}.txt"))).unwrap());
        assert_eq!(backend.check().unwrap(), [], "format {format}");
        let info = backend.info().unwrap();
        assert_eq!((info.format, info.migrated_from), (format, None));
        drop(backend);
        assert!(std::fs::read(&copy).unwrap() == before, "nothing was written");
    }
}

#[test]
fn who_looks_at_an_older_file_sees_what_becomes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    std::fs::copy(golden("format_2.db"), &file).unwrap();
    let looks = SqliteBackend::open_with(&file, SqliteOptions::new().look_only(true)).unwrap();
    let count = || looks.flow_runs(&FlowRunQuery::new().limit(1000), Timestamp::from_micros(0)).unwrap().len();
    let there = count();
    // A program of that version goes on with its work.
    rusqlite::Connection::open(&file).unwrap().execute("DELETE FROM flow_run WHERE state = 'Failed'", []).unwrap();
    let fewer = count();
    assert!(fewer < there, "{fewer} of {there}");
    let refused = looks.remove(&[]).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("`orchestrator db migrate`"), "{refused}");
    // And so does one of this version.
    assert_eq!(SqliteBackend::open(&file).unwrap().info().unwrap().migrated_from, Some(2));
    assert_eq!((count(), looks.info().unwrap().format), (fewer, FORMAT_VERSION));
    looks.remove(&[]).unwrap();
}

/// All that can be read from a file.
fn tell(backend: &SqliteBackend) -> String {
    let mut text = String::new();
    let mut flows = backend.flow_runs(&FlowRunQuery::new().limit(1000), Timestamp::from_micros(0)).unwrap();
    flows.reverse();
    let mut unfinished: Vec<RunId> = Vec::new();
    for flow in flows {
        assert_eq!(backend.flow_run(flow.id).unwrap().as_ref(), Some(&flow));
        let FlowRun {
            id,
            name,
            flow_name,
            flow_key,
            run_count,
            upstream,
            parent,
            version,
            tags,
            parameters,
            pause,
            ..
        } = &flow;
        writeln!(text, "flow run {id} '{name}' of '{flow_name}' ({flow_key}), version {version:?}, tags {tags:?}")
            .unwrap();
        writeln!(text, "    begun {run_count} times, parent {parent:?}, upstream {upstream:?}, {parameters}").unwrap();
        writeln!(text, "    {} {} {:?} {:?}", flow.host, flow.created, flow.start_time, flow.end_time).unwrap();
        if let Some(Pause { since, until, message, input_schema, .. }) = pause {
            writeln!(text, "    waits since {since} until {until:?}, {message:?}, {input_schema:?}").unwrap();
        }
        history(&mut text, backend, id.to_owned().into(), &flow.state);
        unfinished.extend((!flow.state.is_terminal()).then_some(RunId::from(*id)));
        for task in backend.task_runs(*id).unwrap() {
            unfinished.extend((!task.state.is_terminal()).then_some(RunId::from(task.id)));
            tell_task(&mut text, backend, root_of(backend, &flow), &task);
        }
    }
    for limit in limits(backend) {
        writeln!(text, "limit '{}': {} of {} slots are taken", limit.name, limit.taken, limit.setting.slots).unwrap();
    }
    unfinished.sort();
    writeln!(text, "not ended: {unfinished:?}").unwrap();
    let owners = backend.owners().unwrap();
    assert!(owners.iter().all(|owner| owner.ended.is_none() && owner.process.host == "machine"), "{owners:?}");
    text
}

fn limits(backend: &SqliteBackend) -> Vec<LimitRecord> {
    backend.limits(Timestamp::from_micros(0)).unwrap()
}

/// Whoever opens the file next finds that nobody is there who goes on with its runs.
fn end_all(backend: &SqliteBackend) -> usize {
    let owners = backend.owners().unwrap();
    let ended = owners.iter().map(|owner| backend.expel(owner, Timestamp::from_micros(0), "it is gone").unwrap());
    ended.flatten().sum()
}

/// The flow run that keeps the results of those inside it.
fn root_of(backend: &SqliteBackend, flow: &FlowRun) -> FlowRunId {
    let (mut root, mut above) = (flow.id, flow.parent);
    while let Some(run) = above {
        above = match run {
            RunId::Flow(id) => {
                root = id;
                backend.flow_run(id).unwrap().unwrap().parent
            }
            RunId::Task(id) => backend.task_run(id).unwrap().unwrap().parent,
        };
    }
    root
}

fn tell_task(text: &mut String, backend: &SqliteBackend, root: FlowRunId, task: &TaskRun) {
    assert_eq!(backend.task_run(task.id).unwrap().as_ref(), Some(task));
    let TaskRun { id, name, task_name, task_key, run_count, upstream, parent, version, tags, cache, .. } = task;
    writeln!(text, "task run {id} '{name}' of '{task_name}' ({task_key}), version {version:?}, tags {tags:?}").unwrap();
    writeln!(text, "    begun {run_count} times, parent {parent:?}, upstream {upstream:?}").unwrap();
    writeln!(text, "    {} {} {:?} {:?}", task.host, task.created, task.start_time, task.end_time).unwrap();
    if let Some(look) = cache {
        writeln!(text, "    {look}").unwrap();
        if let Some(hit) = look.key.and_then(|key| backend.cached(&key).unwrap()) {
            writeln!(text, "    in the cache since {:?}: {:?}", hit.created, hit.value).unwrap();
        }
        if let Some(hit) = look.key.and_then(|key| backend.result(root, &key).unwrap()) {
            writeln!(text, "    kept since {:?}: {:?}", hit.created, hit.value).unwrap();
        }
    }
    history(text, backend, task.id.into(), &task.state);
}

fn history(text: &mut String, backend: &SqliteBackend, run: RunId, last: &State) {
    let states = backend.states(run).unwrap();
    assert_eq!(states.last(), Some(last));
    for state in states {
        writeln!(text, "    {} {state}", state.timestamp).unwrap();
    }
    for line in backend.logs(run).unwrap() {
        writeln!(text, "    {} {} {} {}", line.timestamp, line.level, line.target, line.message).unwrap();
    }
}
