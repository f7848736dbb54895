//! Files: new ones, other people's, and those that several use at a time.

use super::*;
use crate::backend::{CacheCare as _, LimitSetting, Ownership as _, SlotLeases as _};

#[test]
fn everything_is_there_when_opened_again() {
    let folder = folder();
    let path = folder.path().join("a/b/history.db");
    let id = new_task();
    let backend = open(&path);
    assert_eq!((backend.in_process(), PathBuf::from(backend.location())), (false, path.clone()));
    backend.append(&[run(id.into()), Event::Cached(Box::new(cached(1, None, encoded(b"x"))))]).expect("append");
    let before = backend.task_run(id).expect("read");
    drop(backend);
    let backend = open(&path);
    assert!(before.is_some());
    assert_eq!(backend.task_run(id).expect("read"), before);
    assert!(backend.cached(&CacheKey([1; 32])).expect("look").is_some());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (_folder, path) = file();
    drop(open(&path));
    by_hand(&path, "PRAGMA user_version = 99");
    let before = std::fs::read(&path).expect("read the file");
    let error = refused(&path);
    assert_eq!(error.kind(), BackendErrorKind::NewerFormat { found: 99 });
    let text = error.to_string();
    assert!(text.contains("99") && text.contains(&FORMAT_VERSION.to_string()) && text.contains("history.db"), "{text}");
    assert_eq!(std::fs::read(&path).expect("read the file"), before);
}

#[test]
fn a_file_of_each_older_format_is_brought_up_to_date() {
    let folder = folder();
    for version in 1..FORMAT_VERSION {
        let path = folder.path().join(format!("{version}.db"));
        let tables = schema::MIGRATIONS[..version as usize].concat().concat();
        let mark = format!("PRAGMA application_id = {}; PRAGMA user_version = {version};", schema::APPLICATION_ID);
        by_hand(&path, &(tables + &mark));
        let task = new_task();
        by_hand(
            &path,
            &format!(
                "INSERT INTO function VALUES (1, 'a::b', 'b', NULL);
                INSERT INTO process VALUES (1, 'machine', 1, 2, 1);
                INSERT INTO task_run (id, function, number, process, created, states, next_seq, run_count, state, state_at)
                VALUES (x'{}', 1, 7, 1, 5, '[\"Pending\",5]', 1, 0, 'Pending', 5);",
                task.as_uuid().simple()
            ),
        );
        let backend = open(&path);
        let read = backend.task_run(task).expect("read").expect("it was there before");
        assert_eq!((&*read.name, &*read.state.name), ("b-7", "Pending"));
        let flow = new_flow();
        let since = Timestamp::from_micros(1_000).to_datetime();
        let pause = Pause { since, until: None, message: None, input_schema: None };
        backend.append(&[run(flow.into()), Event::Paused { run: flow, pause: Arc::new(pause) }]).expect("append");
        drop(backend);
        assert!(open(&path).flow_run(flow).expect("read").is_some(), "it is opened again in its new format");
    }
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let folder = folder();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database at all, but long enough to have a header".repeat(9)).expect("write");
    let (foreign, journaled, marked) =
        (folder.path().join("f.db"), folder.path().join("j.db"), folder.path().join("m.db"));
    by_hand(&foreign, "CREATE TABLE users (name TEXT)");
    by_hand(&journaled, "PRAGMA journal_mode = WAL; CREATE TABLE flow_run (id BLOB)");
    by_hand(&marked, "PRAGMA application_id = 7");
    for path in [text, foreign, journaled, marked] {
        let before = std::fs::read(&path).expect("read the file");
        let error = refused(&path);
        assert_eq!(error.kind(), BackendErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(std::fs::read(&path).expect("read the file"), before, "{}", path.display());
    }
}

#[test]
fn the_log_of_a_foreign_database_that_is_in_use_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("theirs.db");
    let theirs = Connection::open(&path).expect("open");
    theirs.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE users (name TEXT)").expect("run SQL");
    let log = folder.path().join("theirs.db-wal");
    let before = (std::fs::read(&path).expect("read"), std::fs::read(&log).expect("read"));
    assert_eq!(refused(&path).kind(), BackendErrorKind::Corrupt);
    assert_eq!((std::fs::read(&path).expect("read"), std::fs::read(&log).expect("read")), before);
}

#[test]
fn an_empty_file_becomes_a_database() {
    let folder = folder();
    let path = folder.path().join("empty.db");
    std::fs::write(&path, "").expect("write");
    open(&path).append(&[run(new_task().into())]).expect("append");
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("write");
    for path in [file.join("below/history.db"), folder.path().to_path_buf()] {
        let error = refused(&path);
        assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn one_file_is_opened_by_many_at_once() {
    let folder = folder();
    for round in 0..10 {
        let path = folder.path().join(format!("{round}/history.db"));
        let barrier = std::sync::Barrier::new(6);
        let flows: Vec<FlowRunId> = (0..6).map(|_| new_flow()).collect();
        thread::scope(|scope| {
            for flow in &flows {
                scope.spawn(|| {
                    barrier.wait();
                    let backend = open(&path);
                    backend.append(&[run((*flow).into())]).expect("append");
                });
            }
        });
        let found = open(&path).flow_runs(&FlowRunQuery::new(), Timestamp::from_micros(0)).expect("list");
        assert_eq!(found.len(), flows.len(), "round {round}");
    }
}

#[test]
fn two_backends_on_one_file_see_each_other() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    let (first, second) = (new_task(), new_task());
    assert!(other.cached(&CacheKey([1; 32])).expect("look").is_none());
    one.append(&[run(first.into()), Event::Cached(Box::new(cached(1, None, encoded(b"one"))))]).expect("append");
    other.append(&[run(second.into()), run(first.into())]).expect("append");
    for backend in [&one, &other] {
        assert!(backend.task_run(first).expect("read").is_some());
        assert!(backend.task_run(second).expect("read").is_some());
        assert!(backend.cached(&CacheKey([1; 32])).expect("look").is_some());
    }
}

#[cfg(unix)]
#[test]
fn a_change_by_somebody_else_is_seen_however_the_log_looks() {
    let (folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    let log = std::fs::File::options().write(true).open(folder.path().join("history.db-wal")).expect("the log");
    let setting = LimitSetting { slots: 1, decay: None, active: true };
    let changed = || other.set_limit("one", setting, Timestamp::from_micros(1)).expect("set a limit");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    let mut before = one.lease_version().expect("look");
    for round in 0..3 {
        changed();
        // Just written to: it may look the same after the next write.
        let version = one.lease_version().expect("look");
        assert!(version != before && !one.seen.is_known(), "round {round}");
        assert_eq!(one.lease_version().expect("look"), version);
        // Nobody has written to it for a while: its looks will tell.
        log.set_modified(long_ago).expect("change its time");
        assert_eq!(one.lease_version().expect("look"), version);
        assert!(one.seen.is_known(), "round {round}");
        before = version;
    }
}

#[test]
fn history_leaves_what_those_look_at_who_wait() {
    let (_folder, path) = file();
    let (one, other) = (open(&path), open(&path));
    let (task, flow) = (new_task(), new_flow());
    let line = line(task, String::new());
    let process = Process { host: "machine".to_owned(), pid: 1, namespace: 2, started: 1, session: 1 };
    let owner = other.join(&process, Timestamp::from_micros(1)).expect("join");
    let before = one.lease_version().expect("look");
    let cached = Event::Cached(Box::new(cached(1, None, encoded(b"x"))));
    let persisted = Event::Persisted(Box::new(kept(flow, 1, encoded(b"x"))));
    let history = [run(flow.into()), run(task.into()), Event::Log(line), cached, persisted];
    other.append_as(owner, &history).expect("append");
    other.renew(owner, Timestamp::from_micros(2)).expect("renew");
    other.clear_cache(None).expect("remove what is cached");
    assert_eq!(one.lease_version().expect("look"), before);
    other.leave(owner, Timestamp::from_micros(3)).expect("leave");
    assert_ne!(one.lease_version().expect("look"), before);
}

#[test]
fn a_run_whose_state_changes_meanwhile_is_found_once() {
    let (_folder, path) = file();
    let backend = open(&path);
    backend.append(&[run(new_flow().into())]).expect("append");
    let (found, stop) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    let query = FlowRunQuery::new().flow("b");
    thread::scope(|scope| {
        scope.spawn(|| {
            let other = Connection::open(&path).expect("open a database by hand");
            other.busy_timeout(Duration::from_secs(20)).expect("wait for others");
            found.wait();
            for state in ["Running", "Crashed"].into_iter().cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                other.execute("UPDATE flow_run SET state = ?1", [state]).expect("change the state");
            }
        });
        found.wait();
        let counts: Vec<usize> = (0..500)
            .map(|_| backend.flow_runs(&query, Timestamp::from_micros(i64::MAX)).map_or(0, |runs| runs.len()))
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(counts.iter().filter(|count| **count != 1).count(), 0, "{counts:?}");
    });
}
