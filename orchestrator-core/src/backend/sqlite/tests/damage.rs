//! Rows with anything in them: reading gives an error that names the row, or what is there, and never panics.

use proptest::prelude::*;
use rusqlite::types::{FromSql, Value, ValueRef};

use super::*;
use crate::backend::maintenance::Maintenance as _;
use crate::backend::record::RunEvent;
use crate::backend::sqlite::look::Reason;
use crate::backend::sqlite::packed::{Json, LastStates, Name, Paused, Reference, References, States, Tags};
use crate::backend::{
    ClaimLeases as _, LimitSetting, Ownership as _, RequestNo, Requests as _, SlotClass, SlotLeases as _, SlotPlace,
    SlotTrade,
};

const TABLES: [&str; 10] =
    ["task_run", "flow_run", "history", "amendment", "log", "cache", "result", "function", "process", "upkeep"];

/// Anything that a column may hold, often something near to what it should.
fn value() -> impl Strategy<Value = Value> {
    let near = [
        "Completed",
        "Paused",
        "[\"Completed\",1]",
        "[\"Completed\",9223372036854775807]\n",
        "[\"Paused\",1,\"x\"]",
        "[]",
        "[1]",
        "{}",
        "null",
        "[\"a\"]",
        "[\"Found\",1,2,3]",
        "[\"Expired\",-9223372036854775808]",
        "{\"since\":1,\"until\":9223372036854775807,\"message\":null,\"input_schema\":null}",
        "[\"Unkeyed\",null,\"x\"]",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-1), Just(0), Just(1)].prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        proptest::sample::select(near.to_vec()).prop_map(|text| Value::Text(text.to_owned())),
        any::<String>().prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
        proptest::collection::vec(any::<u8>(), 16).prop_map(Value::Blob),
        proptest::collection::vec(any::<u8>(), 33).prop_map(|mut bytes| {
            bytes[0] = b't';
            bytes[17] = b'f';
            Value::Blob(bytes)
        }),
    ]
}

/// A database with a row in each table, whose columns take anything.
struct Sample {
    _folder: TempDir,
    backend: SqliteBackend,
    task: TaskRunId,
    flow: FlowRunId,
    columns: Vec<(String, String)>,
}

/// Makes the tables the same without the types that keep other values out; gives their columns.
fn lax(path: &Path, wanted: &[&str]) -> Vec<(String, String)> {
    let connection = Connection::open(path).expect("open by hand");
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%STRICT%'")
        .expect("p");
    let tables: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("read")
        .collect::<rusqlite::Result<_>>()
        .expect("read");
    drop(statement);
    let mut columns = Vec::new();
    for (name, sql) in tables.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())) {
        connection.execute_batch("PRAGMA writable_schema = ON").expect("by hand");
        let lax = sql.replace("STRICT, WITHOUT ROWID", "WITHOUT ROWID").replace("STRICT", "").replace("NOT NULL", "");
        connection.execute("UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1", [&name, &lax]).expect("by hand");
        let mut info = connection.prepare(&format!("PRAGMA table_info({name})")).expect("prepare");
        let names = info.query_map([], |row| row.get::<_, String>(1)).expect("read");
        columns.extend(names.map(|column| (name.clone(), column.expect("a name"))));
    }
    connection.execute_batch("PRAGMA writable_schema = RESET").expect("by hand");
    columns
}

fn sample() -> Sample {
    let (folder, path) = file();
    let (task, flow) = (new_task(), new_flow());
    drop(open(&path));
    let columns = lax(&path, &TABLES);
    let backend = open(&path);
    let Event::Run(child) = run(task.into()) else { unreachable!("it is a run's event") };
    let info = RunInfo { flow_run: Some(flow), parent: Some(flow.into()), ..child.run.clone() };
    let line = line(task, String::new());
    let event = RunEvent { run: info, ..child };
    backend
        .append(&[
            run(flow.into()),
            Event::Run(event),
            Event::Log(line),
            Event::Cached(Box::new(cached(1, None, encoded(b"x")))),
            Event::Persisted(Box::new(kept(flow, 1, encoded(b"x")))),
        ])
        .expect("append");
    let history =
        "INSERT INTO history SELECT id, 1, '' FROM task_run; INSERT INTO amendment (run) SELECT id FROM flow_run";
    by_hand(&path, history);
    Sample { _folder: folder, backend, task, flow, columns }
}

impl Sample {
    /// Everything that reads. Errors must say what was read, and which row it is in.
    fn read_all(&self) {
        let key = CacheKey([1; 32]);
        let now = Timestamp::from_micros(0);
        let (task, flow, backend) = (self.task, self.flow, &self.backend);
        let mut errors = vec![
            backend.task_run(task).map(drop).err(),
            backend.flow_run(flow).map(drop).err(),
            backend.states(task.into()).map(drop).err(),
            backend.states(flow.into()).map(drop).err(),
            backend.logs(task.into()).map(drop).err(),
            backend.cached(&key).map(drop).err(),
            backend.result(flow, &key).map(drop).err(),
            backend.owners().map(drop).err(),
            backend.check().map(drop).err(),
            backend.info().map(drop).err(),
        ];
        let lists = [
            backend.task_runs(flow).map(drop).err(),
            backend.flow_runs(&FlowRunQuery::new(), now).map(drop).err(),
            backend.flow_runs(&FlowRunQuery::new().flow("b"), now).map(drop).err(),
        ];
        for error in lists.iter().flatten() {
            assert_eq!(error.kind(), BackendErrorKind::Corrupt, "{error}");
            let text = error.to_string();
            // The id that is there now may be another one.
            let names = [task.to_string(), flow.to_string(), ", task run ".to_owned(), ", flow run ".to_owned()];
            let named = names.iter().any(|name| text.contains(name));
            assert!(named || text.contains("whose id cannot be read"), "which run is it? {text}");
        }
        errors.extend(lists);
        for error in errors.into_iter().flatten() {
            let text = error.to_string();
            assert!(text.starts_with("cannot ") && text.contains("history.db"), "{text}");
        }
    }
}

#[test]
fn a_run_that_waits_for_another_attempt_is_told_though_its_states_are_damaged() {
    let (_folder, path) = file();
    let backend = open(&path);
    let (flow, task) = (new_flow(), new_task());
    let at = Timestamp::from_micros;
    let waits = |id: RunId, flow_run| {
        let Event::Run(event) = run(id) else { unreachable!("it is a run's event") };
        let scheduled = Some(at(9_000));
        let transition = Transition { scheduled, ..Transition::new(StateName::AwaitingRetry, at(2_000)) };
        let info = RunInfo { flow_run, ..event.run.clone() };
        Event::Run(RunEvent { run: info, transitions: [transition].into_iter().collect(), ..event })
    };
    backend.append(&[waits(flow.into(), None), waits(task.into(), Some(flow))]).expect("append");
    let told = || {
        let flows = backend.flow_runs(&FlowRunQuery::new(), at(0)).expect("list");
        let tasks = backend.task_runs(flow).expect("list");
        let (read, task) = (backend.flow_run(flow).expect("read"), backend.task_run(task).expect("read"));
        let states = flows.into_iter().chain(read).map(|run| run.state);
        states.chain(tasks.into_iter().chain(task).map(|run| run.state)).collect::<Vec<_>>()
    };
    let whole = told();
    assert_eq!(whole.len(), 4);
    assert!(whole.iter().all(|state| state.scheduled_time == Some(at(9_000).to_datetime())), "{whole:?}");
    for states in
        ["", "no state", "[\"AwaitingRetry\",2000", "[\"Running\",2000,null,9000]\n", "[\"AwaitingRetry\",1,null,3]"]
    {
        let change = format!("UPDATE flow_run SET states = '{states}'; UPDATE task_run SET states = '{states}'");
        by_hand(&path, &change);
        let expected: Vec<_> =
            whole.iter().cloned().map(|state| crate::state::State { scheduled_time: None, ..state }).collect();
        assert_eq!(told(), expected, "{states}");
        assert!(!backend.check().expect("check").is_empty(), "{states}");
    }
    // What comes before it is not of account.
    by_hand(&path, "UPDATE flow_run SET states = 'no state\n[\"AwaitingRetry\",2000,null,9000]\n'");
    assert_eq!(told()[0], whole[0]);
}

#[test]
fn rows_with_anything_in_them_are_read_or_refused() {
    let sample = sample();
    let place = proptest::sample::select(sample.columns.clone());
    let mut writer = Connection::open(sample.backend.path.clone()).expect("open by hand");
    let cases = ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(cases);
    let writer = std::cell::RefCell::new(&mut writer);
    let outcome = runner.run(&proptest::collection::vec((place, value()), 1..4), |changes| {
        let writer = writer.borrow_mut();
        // Into the file for others to see, and out again.
        writer.execute_batch("SAVEPOINT before").expect("begin");
        let before: Vec<(String, String, Value)> = changes
            .iter()
            .filter_map(|((table, column), _)| {
                let value = writer.query_row(&format!("SELECT {column} FROM {table}"), [], |row| row.get(0)).ok()?;
                Some((table.clone(), column.clone(), value))
            })
            .collect();
        for ((table, column), value) in &changes {
            // Keys may be refused: they are of one type.
            let _ = writer.execute(&format!("UPDATE {table} SET {column} = ?1"), [value]);
        }
        writer.execute_batch("RELEASE before").expect("commit");
        sample.read_all();
        for (table, column, value) in before {
            writer.execute(&format!("UPDATE {table} SET {column} = ?1"), [value]).expect("as it was");
        }
        Ok(())
    });
    outcome.expect("nothing panics");
}

const SHARED: [&str; 11] = [
    "process",
    "slot_limit",
    "slot_holder",
    "slot_wait",
    "slot_backlog",
    "cache_claim",
    "lease_version",
    "request",
    "crash",
    "interrupted",
    "unreferenced",
];

/// What processes share, as it is before each change.
const AS_IT_WAS: &str = "
    DELETE FROM process; DELETE FROM slot_limit; DELETE FROM slot_holder; DELETE FROM slot_wait; DELETE FROM slot_backlog;
    DELETE FROM cache_claim; DELETE FROM lease_version; DELETE FROM request; DELETE FROM crash; DELETE FROM interrupted;
    DELETE FROM unreferenced;
    INSERT INTO process (no, host, pid, namespace, started, session, lease_until, heard) VALUES (1, 'h', 2, 3, 4, 5, 6, 7);
    INSERT INTO slot_limit VALUES ('l', 2, NULL, 1, 1.0, 0, 1), ('r', 3, 0.5, 1, 2.5, 10, 2);
    INSERT INTO slot_holder VALUES ('l', 1, 1, 1, 0, NULL, NULL);
    INSERT INTO slot_wait VALUES ('l', 2, 0, 1, 2, 2, NULL, NULL, NULL), ('r', 2, 0, 1, 3, 1, NULL, NULL, NULL);
    INSERT INTO slot_backlog VALUES ('l', 1, 4);
    INSERT INTO cache_claim VALUES (zeroblob(32), 1, 1, 0, zeroblob(16), 'n');
    INSERT INTO lease_version VALUES (1);
    INSERT INTO request VALUES (1, 1, zeroblob(16), 1, '\"Cancel\"', 0, 0, '\"Done\"');
    INSERT INTO crash VALUES (zeroblob(16), 1);
    INSERT INTO interrupted VALUES (zeroblob(16), 0);
    INSERT INTO unreferenced VALUES ('s', 'a/b')";

#[test]
fn what_processes_share_is_read_or_refused_whatever_it_is() {
    let (_folder, path) = file();
    drop(open(&path));
    let columns = lax(&path, &SHARED);
    let backend = open(&path);
    let run = RunId::from(FlowRunId::from_uuid(uuid::Uuid::nil()));
    let (owner, key, now) = (OwnerNo(1), CacheKey([0; 32]), Timestamp::from_micros(20));
    let place = SlotPlace { class: SlotClass::Ordinary, since: now, owner, ticket: 2 };
    let read_all = || {
        let answers = [
            backend.owners().map(drop),
            backend.owner_of(run).map(drop),
            backend.limits(now).map(drop),
            backend.version().map(drop),
            backend.waits_of(run).map(drop),
            backend.standing("l", place, 5, now).map(drop),
            backend.standing("r", place, 5, now).map(drop),
            backend.look(owner, now).map(drop),
            backend.claimed(owner, &[key]).map(drop),
            backend.answered(RequestNo(1)).map(drop),
            backend.take_requests(owner).map(drop),
            backend.trade(owner, &SlotTrade { over: vec![1], ..SlotTrade::default() }, now).map(drop),
            backend.declare_limit("l", LimitSetting { slots: 3, decay: Some(1.0), active: true }, now),
        ];
        for error in answers.into_iter().filter_map(Result::err) {
            let text = error.to_string();
            assert!(text.starts_with("cannot ") && text.contains("history.db"), "{text}");
        }
    };
    let writer = Connection::open(&path).expect("open by hand");
    let change = |changes: &[((String, String), Value)]| {
        writer.execute_batch(&format!("BEGIN IMMEDIATE; {AS_IT_WAS}")).expect("as it was");
        for ((table, column), value) in changes {
            // Keys may be refused: they are of one type.
            let _ = writer.execute(&format!("UPDATE {table} SET {column} = ?1"), [value]);
        }
        writer.execute_batch("COMMIT").expect("commit");
    };
    change(&[]);
    assert_eq!(backend.limits(now).expect("it is whole").len(), 2);
    assert_eq!(backend.owners().expect("it is whole").len(), 1);
    let cases = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let place = proptest::sample::select(columns);
    let outcome = proptest::test_runner::TestRunner::new(cases).run(
        &proptest::collection::vec((place, value()), 1..4),
        |changes| {
            change(&changes);
            read_all();
            Ok(())
        },
    );
    outcome.expect("nothing panics");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_decoded_or_refused(value in value()) {
        let value = ValueRef::from(&value);
        let _ = States::column_result(value);
        let _ = LastStates::column_result(value);
        let _ = Name::column_result(value);
        let _ = Reference::column_result(value);
        let _ = References::column_result(value);
        let _ = Tags::column_result(value);
        let _ = Json::column_result(value);
        let _ = Paused::column_result(value);
        let _ = Reason::column_result(value);
    }

    #[test]
    fn what_was_packed_is_unpacked(
        said in proptest::collection::vec(any::<(Option<String>, Option<i32>)>(), 0..8),
        at in any::<i32>(),
    ) {
        let time = |micros: i32| Timestamp::from_micros(micros.into());
        let transitions: Vec<Transition> = said
            .into_iter()
            .zip(StateName::ALL)
            .map(|((message, scheduled), name)| {
                let (message, scheduled) = (message.map(Into::into), scheduled.map(time));
                Transition { message, scheduled, ..Transition::new(name, time(at)) }
            })
            .collect();
        let mut text = String::new();
        packed::pack(transitions.iter().cloned(), &mut text);
        let states = States::column_result(ValueRef::Text(text.as_bytes())).expect("our own text").0;
        prop_assert_eq!(states, transitions.iter().map(crate::state::State::from).collect::<Vec<_>>());
    }
}
