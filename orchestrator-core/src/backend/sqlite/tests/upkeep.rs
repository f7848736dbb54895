//! What is removed, what stays, and what the file's size is then.

use super::*;
use crate::backend::maintenance::{Finding, Maintenance as _, Removal, Removed};
use crate::backend::record::LogRecord;
use crate::retention::Retention;

const HOUR: i64 = 3_600_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// A run as it is submitted, at that moment, by that parent.
fn made(id: RunId, parent: Option<RunId>, flow_run: Option<FlowRunId>) -> RunInfo {
    let Event::Run(event) = run(id) else { unreachable!("it is a run's event") };
    RunInfo { parent, flow_run, ..event.run }
}

fn states(info: &RunInfo, states: &[(StateName, i64)]) -> Event {
    let transitions = states.iter().map(|(name, micros)| Transition::new(*name, at(*micros))).collect();
    Event::Run(RunEvent { run: info.clone(), first_seq: 0, transitions, run_count: 1, cache: None })
}

fn completed(info: &RunInfo, created: i64) -> Event {
    let names = [StateName::Pending, StateName::Running, StateName::Completed];
    states(info, &[(names[0], created), (names[1], created + 1), (names[2], created + 2)])
}

fn running(info: &RunInfo, created: i64) -> Event {
    states(info, &[(StateName::Pending, created), (StateName::Running, created + 1)])
}

fn root_flow(created: i64) -> RunInfo {
    made(FlowRunId::new(at(created)).into(), None, None)
}

fn root_task(created: i64) -> RunInfo {
    made(TaskRunId::new(at(created)).into(), None, None)
}

fn task_of(flow: &RunInfo, created: i64) -> RunInfo {
    made(TaskRunId::new(at(created)).into(), Some(flow.id), flow.id.as_flow())
}

fn subflow_of(flow: &RunInfo, created: i64) -> RunInfo {
    made(FlowRunId::new(at(created)).into(), Some(flow.id), flow.id.as_flow())
}

/// A flow run with tasks, a subflow and all that is kept of runs, as events.
fn family(created: i64) -> (RunInfo, Vec<Event>) {
    let root = root_flow(created);
    let sub = subflow_of(&root, created);
    let (task, inner) = (task_of(&root, created), task_of(&sub, created));
    let mut result = kept(root.id.as_flow().expect("a flow"), (created / HOUR) as u8, encoded(b"kept"));
    result.run = task.id.as_task().expect("a task");
    let log = |run| LogRecord { run, at: at(created), level: "INFO", target: "t".to_owned(), message: "m".to_owned() };
    let events = vec![
        Event::Parameters { run: root.id.as_flow().expect("a flow"), json: "{}".to_owned() },
        completed(&root, created),
        completed(&sub, created),
        completed(&task, created),
        completed(&inner, created),
        Event::Log(log(root.id)),
        Event::Log(log(inner.id)),
        Event::Persisted(Box::new(result)),
    ];
    (root, events)
}

fn count(path: &Path, table: &str) -> u32 {
    let connection = Connection::open(path).expect("open a database by hand");
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("count")
}

fn rows(path: &Path) -> Vec<u32> {
    let tables = ["flow_run", "task_run", "history", "amendment", "log", "result", "removal"];
    tables.iter().map(|table| count(path, table)).collect()
}

fn prune(backend: &SqliteBackend, policy: &str, now: i64) -> Option<Removed> {
    let policy: Retention = policy.parse().expect("a policy");
    let mut pruning = backend.prune(&policy, at(now)).expect("begin")?;
    let mut removed = Removed::default();
    while let Some(step) = pruning.step(at(now)).expect("a step") {
        removed += step;
    }
    Some(removed)
}

fn sound(backend: &SqliteBackend) {
    assert_eq!(backend.check().expect("check").first(), None, "the file is sound");
}

#[test]
fn old_runs_go_with_all_that_is_theirs() {
    let (_folder, path) = file();
    let backend = open(&path);
    for hour in 0..10 {
        backend.append(&family(hour * HOUR).1).expect("append");
    }
    let before = rows(&path);
    assert_eq!(before, [20, 20, 0, 10, 20, 10, 0]);
    assert_eq!(backend.last_pruned().expect("look"), None);
    let removed = prune(&backend, "5h", 10 * HOUR).expect("nobody else is at it");
    assert_eq!((removed.flow_runs, removed.task_runs), (10, 10));
    assert_eq!(rows(&path), [10, 10, 0, 5, 10, 5, 0]);
    assert_eq!(backend.last_pruned().expect("look"), Some(at(10 * HOUR)));
    assert!(prune(&backend, "5h", 10 * HOUR).expect("free").is_nothing(), "nothing is left to do");
    let removed = prune(&backend, "2 runs", 10 * HOUR).expect("free");
    assert_eq!((removed.flow_runs, removed.task_runs), (6, 6));
    let left = backend.flow_runs(&FlowRunQuery::new(), at(0)).expect("list");
    let left: Vec<i64> = left.iter().map(|run| run.created.timestamp_micros() / HOUR).collect();
    assert_eq!(left, [9, 9, 8, 8], "a root and its subflow each");
    sound(&backend);
    assert_eq!(prune(&backend, "off", 1000 * HOUR).expect("free"), Removed::default());
}

#[test]
fn runs_that_have_not_ended_stay_and_all_that_is_around_them() {
    let (_folder, path) = file();
    let backend = open(&path);
    let active = root_flow(0);
    let (detached, inside) = (root_flow(1), root_flow(2));
    let late = task_of(&detached, 1);
    let sub = subflow_of(&inside, 2);
    let late_inside = task_of(&sub, 2);
    let recent = root_flow(3);
    backend
        .append(&[
            running(&active, 0),
            completed(&task_of(&active, 0), 0),
            completed(&detached, 1),
            running(&late, 1),
            completed(&inside, 2),
            completed(&sub, 2),
            running(&late_inside, 2),
            // Began long ago, ended just now.
            states(&recent, &[(StateName::Pending, 3), (StateName::Running, 4), (StateName::Failed, 9 * HOUR)]),
            completed(&root_flow(5), 5),
            running(&root_task(6), 6),
            completed(&root_task(7), 7),
        ])
        .expect("append");
    let removed = prune(&backend, "5h", 10 * HOUR).expect("free");
    assert_eq!((removed.flow_runs, removed.task_runs), (1, 1));
    assert_eq!(rows(&path)[..2], [5, 4]);
    sound(&backend);
    let removed = prune(&backend, "0 runs", 10 * HOUR).expect("free");
    assert_eq!((removed.flow_runs, removed.task_runs), (1, 0), "that which ended just now is one too many as well");
}

#[test]
fn task_runs_outside_of_flows_go_with_what_they_called() {
    let (_folder, path) = file();
    let backend = open(&path);
    for created in 0..100 {
        let root = root_task(created);
        let child = made(TaskRunId::new(at(created)).into(), Some(root.id), None);
        let flow = made(FlowRunId::new(at(created)).into(), Some(child.id), None);
        let task = task_of(&flow, created);
        let events = [&root, &child, &flow, &task].map(|info| completed(info, created));
        backend.append(&events).expect("append");
    }
    let removed = prune(&backend, "10 runs", 0).expect("free");
    assert_eq!((removed.flow_runs, removed.task_runs), (90, 270));
    assert_eq!(rows(&path)[..2], [10, 30]);
    sound(&backend);
}

#[test]
fn results_in_the_cache_go_when_they_have_expired() {
    let (_folder, path) = file();
    let backend = open(&path);
    let events: Vec<Event> =
        (0..200).map(|key| Event::Cached(Box::new(cached(key, (key < 150).then_some(HOUR), encoded(b"x"))))).collect();
    backend.append(&events).expect("append");
    assert_eq!(prune(&backend, "30d", HOUR - 1).expect("free").cached, 0);
    assert_eq!(prune(&backend, "30d", HOUR).expect("free").cached, 150);
    assert_eq!(count(&path, "cache"), 50);
}

#[test]
fn one_at_a_time_removes_and_who_died_over_it_is_followed() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    let policy = Retention::off().runs(0);
    let root = root_flow(0);
    let mut events = vec![completed(&root, 0)];
    events.extend((0..20_000).map(|_| completed(&task_of(&root, 0), 0)));
    one.append(&events).expect("append");
    let mut first = one.prune(&policy, at(0)).expect("begin").expect("free");
    first.step(at(0)).expect("step").expect("a step was taken");
    assert!(count(&path, "task_run") > 0, "a step is short");
    assert!(one.flow_run(root.id.as_flow().expect("a flow")).expect("look").is_none(), "the root goes first");
    sound(&one);
    assert!(prune(&other, "0 runs", 59_000_000).is_none(), "the first one is at it");
    let removed = prune(&other, "0 runs", 61_000_000).expect("the first one is taken for dead");
    assert!(removed.task_runs > 0);
    assert_eq!(rows(&path), [0; 7]);
    assert_eq!(first.step(at(61_000_000)).expect("step"), Some(Removed::default()), "it removes nothing any more");
    assert_eq!(first.step(at(61_000_000)).expect("step"), None, "it has noticed");
    drop(first);
    let dropped = one.prune(&policy, at(0)).expect("begin").expect("free");
    drop(dropped);
    assert!(prune(&other, "0 runs", 0).is_some(), "what is dropped is given back");
}

#[test]
fn the_file_shrinks() {
    let (_folder, path) = file();
    let backend = open(&path);
    for flow in 0..20 {
        let root = root_flow(flow);
        let mut events = vec![completed(&root, flow)];
        events.extend((0..1_000).map(|_| completed(&task_of(&root, flow), flow)));
        backend.append(&events).expect("append");
    }
    let full = backend.compact().expect("compact").bytes_after;
    prune(&backend, "2 runs", 0).expect("free");
    by_hand(&path, "PRAGMA wal_checkpoint");
    let pruned = std::fs::metadata(&path).expect("the file").len();
    assert!(pruned < full / 10 * 3, "{pruned} of {full} bytes are left");
    let compacted = backend.compact().expect("compact");
    assert!(compacted.bytes_after < full / 10 * 2, "{compacted:?} of {full} bytes are left");
    assert_eq!(backend.info().expect("info").free_bytes, 0);
    sound(&backend);
}

#[test]
fn runs_are_removed_by_hand_or_it_is_said_why_not() {
    let (_folder, path) = file();
    let backend = open(&path);
    let ((old, events), (other, more)) = (family(0), family(HOUR));
    let sub = events.iter().find_map(|event| {
        let Event::Run(event) = event else { return None };
        event.run.parent.map(|_| event.run.id)
    });
    let (sub, unknown) = (sub.expect("a subflow"), new_task());
    backend.append(&events).expect("append");
    backend.append(&more).expect("append");
    let (active, detached) = (root_flow(0), root_flow(0));
    let late = task_of(&detached, 0);
    backend.append(&[running(&active, 0), completed(&detached, 0), running(&late, 0)]).expect("append");
    let before = rows(&path);
    let state = || "Running".to_owned();
    for (run, refusal) in [
        (unknown.into(), Removal::Unknown(unknown.into())),
        (active.id, Removal::Active { wanted: active.id, run: active.id, state: state() }),
        (detached.id, Removal::Active { wanted: detached.id, run: late.id, state: state() }),
        (sub, Removal::Inside { wanted: sub, parent: old.id }),
    ] {
        assert_eq!(backend.remove(&[old.id, run]).expect("ask"), refusal);
        assert_eq!(rows(&path), before, "nothing is removed");
    }
    let Removal::Done(removed) = backend.remove(&[old.id]).expect("remove") else { panic!("it is removed") };
    assert_eq!((removed.flow_runs, removed.task_runs), (2, 2));
    assert_eq!(rows(&path), [4, 3, 0, 1, 2, 1, 0]);
    assert!(backend.flow_run(other.id.as_flow().expect("a flow")).expect("look").is_some());
    sound(&backend);
}

#[test]
fn pages_with_anything_in_them_are_found() {
    const PAGE: usize = 4096;
    let (folder, path) = file();
    let backend = open(&path);
    for n in 0..40 {
        backend.append(&family(n * HOUR).1).expect("append");
    }
    sound(&backend);
    drop(backend);
    let whole = std::fs::read(&path).expect("read the file");
    let copy = folder.path().join("copy.db");
    let (mut checked, mut found) = (0, 0);
    for page in 1..whole.len() / PAGE {
        let mut damaged = whole.clone();
        // The same each time, and no pattern.
        let mut noise = fastrand::Rng::with_seed(page as u64);
        damaged[page * PAGE..][..PAGE].fill_with(|| noise.u8(..));
        std::fs::write(&copy, damaged).expect("write the copy");
        // Those of the schema, and of what is looked at first, are told of then.
        let Ok(backend) = SqliteBackend::open(&copy) else { continue };
        let findings = backend.check().unwrap_or_else(|error| panic!("page {page}: {error}"));
        checked += 1;
        found += usize::from(findings.iter().any(|finding| finding.is_damage));
    }
    assert!(checked > 20 && found * 10 > checked * 9, "{found} of {checked}");
}

#[test]
fn what_is_wrong_is_found() {
    let (folder, path) = file();
    let backend = open(&path);
    let (root, events) = family(0);
    backend.append(&events).expect("append");
    sound(&backend);
    for (damage, expected) in [
        (
            "UPDATE flow_run SET state = 'Failed' WHERE parent IS NULL",
            "its row says Failed, its last state is Completed()",
        ),
        (
            "UPDATE flow_run SET states = '[\"Pending\",0]\n[\"Completed\",2]', next_seq = 2 WHERE parent IS NULL",
            "Completed follows Pending",
        ),
        (
            "UPDATE flow_run SET states = '[\"Pending\",0]\n[\"Running\",2]\n[\"Completed\",2]' WHERE parent IS NULL",
            "Completed is not later",
        ),
        ("UPDATE flow_run SET next_seq = 1 WHERE parent IS NULL", "it has 3 states, and should have 1"),
        ("UPDATE flow_run SET end_time = NULL WHERE parent IS NULL", "has no time at which it ended"),
        ("UPDATE flow_run SET states = '' WHERE parent IS NULL", "it has no states"),
        ("UPDATE flow_run SET states = '[' WHERE parent IS NULL", "its row cannot be read"),
        ("UPDATE flow_run SET created = 1 WHERE parent IS NULL", "its first state is not from the time"),
        ("DELETE FROM flow_run WHERE parent IS NULL", "the flow run that it belongs to is missing"),
        ("UPDATE task_run SET function = 99", "its function is missing"),
        ("UPDATE task_run SET process = 99", "its process is missing"),
        ("UPDATE result SET value = x'00'", "its persisted result is not what was stored"),
        ("UPDATE result SET no = no + 7", "its persisted result is no flow run's"),
        ("DELETE FROM result_span", "its persisted result is no flow run's"),
        (
            "UPDATE result_span SET root = x'00000000000000000000000000000000'",
            "it is missing, and results of it are kept",
        ),
        (
            "INSERT INTO result_span SELECT root, first - 1, last FROM result_span",
            "the results that it keeps are not told from those of others",
        ),
        ("PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'log_by_run'", "SQLite finds: "),
    ] {
        let copy = folder.path().join("copy.db");
        by_hand(&path, &format!("VACUUM INTO '{}'", copy.display()));
        by_hand(&copy, damage);
        let findings = open(&copy).check().expect("check");
        let told = findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains(expected), "{damage}: {told}");
        if damage.contains("parent IS NULL") && !damage.contains("DELETE") {
            assert!(told.starts_with(&format!("flow run {}: ", root.id)), "{told}");
        }
        std::fs::remove_file(&copy).expect("delete the copy");
    }
}

#[test]
fn sizes_and_numbers_are_told() {
    let (_folder, path) = file();
    let backend = open(&path);
    for hour in 1..=3 {
        backend.append(&family(hour * HOUR).1).expect("append");
    }
    let info = backend.info().expect("look");
    assert_eq!((info.flow_runs, info.task_runs, info.format, info.migrated_from), (6, 6, FORMAT_VERSION, None));
    assert_eq!((info.oldest_run, info.newest_run), (Some(at(HOUR)), Some(at(3 * HOUR))));
    assert!(info.file_bytes + info.wal_bytes > 0 && info.shrinks_in_steps);
    assert_eq!(info.location, path.display().to_string());
    let table = |name: &str| info.tables.iter().find(|table| table.name == name).expect("a table").clone();
    assert_eq!(table("log").rows, 6);
    assert!(table("task_run").bytes.is_some_and(|bytes| bytes >= 4096), "{:?}", table("task_run"));
    assert!(info.tables.is_sorted_by_key(|table| std::cmp::Reverse(table.bytes)));
}

#[test]
fn a_file_of_an_older_version_is_made_to_shrink() {
    let (_folder, path) = file();
    let tables = schema::MIGRATIONS[..2].concat().concat();
    let mark = format!("PRAGMA application_id = {}; PRAGMA user_version = 2;", schema::APPLICATION_ID);
    by_hand(&path, &format!("PRAGMA journal_mode = WAL; {tables} {mark}"));
    let backend = open(&path);
    let info = backend.info().expect("look");
    assert_eq!((info.migrated_from, info.shrinks_in_steps), (Some(2), true));
    backend.append(&family(0).1).expect("append");
    sound(&backend);

    // One that was too large for that when it was opened.
    drop(backend);
    by_hand(&path, "PRAGMA auto_vacuum = NONE; VACUUM");
    let backend = open(&path);
    assert!(!backend.info().expect("look").shrinks_in_steps);
    prune(&backend, "0 runs", 0).expect("it is pruned all the same");
    backend.compact().expect("compact");
    assert!(backend.info().expect("look").shrinks_in_steps);
    sound(&backend);
}

/// Orchestrators that have ended, under these numbers.
fn gone(connection: &Connection, numbers: std::ops::Range<i64>) {
    let insert = "INSERT INTO process (no, host, pid, namespace, started, session, lease_until, ended)
        VALUES (?1, 'gone', ?1, 1, 1, 1, 0, 1)";
    for no in numbers {
        connection.execute(insert, [no]).expect("insert");
    }
}

#[test]
fn a_long_history_is_not_read_for_processes_without_runs_before_much_of_it_was_removed() {
    let (_folder, path) = file();
    let backend = open(&path);
    let events: Vec<Event> = (0..3_000).map(|_| completed(&root_flow(0), 0)).collect();
    backend.append(&events).expect("append");
    backend.append(&[Event::Log(line(new_task(), "x".repeat(6 << 20)))]).expect("append");
    let by_hand = Connection::open(&path).expect("open a database by hand");
    let present = count(&path, "process");
    gone(&by_hand, 10_000..10_100);
    // Of each of these there is a run.
    gone(&by_hand, 20_000..20_100);
    let events: Vec<Event> = (0..100).map(|_| completed(&root_flow(2 * HOUR), 2 * HOUR)).collect();
    backend.append(&events).expect("append");
    let theirs = "UPDATE flow_run SET process = 20000 + n FROM
        (SELECT id AS run, row_number() OVER () - 1 AS n FROM flow_run WHERE created = ?1) WHERE id = run";
    assert_eq!(by_hand.execute(theirs, [2 * HOUR]).expect("update"), 100);
    let processes = || count(&path, "process");

    prune(&backend, "9h", 3 * HOUR).expect("nobody else is at it");
    assert_eq!(processes(), present + 200, "nothing was removed, so that nothing is looked for");
    let removed = prune(&backend, "2h", 3 * HOUR).expect("nobody else is at it");
    assert_eq!(removed.flow_runs, 3_000);
    assert!(processes() < present + 200, "more runs were removed than the file has pages");
    let used = "SELECT count(*) FROM process WHERE no >= 20000";
    assert_eq!(by_hand.query_row(used, [], |row| row.get(0)), Ok(100));
    sound(&backend);
}

#[test]
fn processes_that_are_gone_are_forgotten_with_what_they_waited_for_and_claimed() {
    let (_folder, path) = file();
    let backend = open(&path);
    let (root, events) = family(HOUR);
    backend.append(&events).expect("append");
    let by_hand = Connection::open(&path).expect("open a database by hand");
    let present = count(&path, "process");
    gone(&by_hand, 100..200);
    for no in 100..200 {
        by_hand.execute("INSERT INTO slot_backlog VALUES ('web', ?1, 0)", [no]).expect("insert");
        let claim = "INSERT INTO cache_claim VALUES (CAST(printf('%032d', ?1) AS BLOB), ?1, 1, 0, zeroblob(16), 'n')";
        by_hand.execute(claim, [no]).expect("insert");
    }
    by_hand
        .execute("UPDATE flow_run SET process = 150 WHERE id = ?1", [root.id.as_uuid().into_bytes()])
        .expect("update");
    prune(&backend, "1d", 2 * HOUR).expect("nobody else is at it");
    // That of a run, and the last one: its number is not given out again.
    let left: Vec<i64> = {
        let mut select = by_hand.prepare("SELECT no FROM process WHERE host = 'gone' ORDER BY no").expect("prepare");
        select.query_map([], |row| row.get(0)).expect("select").map(|no| no.expect("a number")).collect()
    };
    assert_eq!((left, count(&path, "process")), (vec![150, 199], present + 2));
    assert_eq!((count(&path, "slot_backlog"), count(&path, "cache_claim")), (0, 0));
    sound(&backend);
}
