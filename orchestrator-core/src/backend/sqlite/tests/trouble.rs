//! Full, busy and damaged databases.

use std::time::Instant;

use super::*;
use crate::backend::{ClaimLeases as _, ClaimRequest, LimitSetting, Ownership as _, SlotLeases as _, SlotTrade};

#[test]
fn a_full_database_keeps_what_it_has_and_takes_nothing_in_part() {
    let folder = folder();
    let options = SqliteOptions::new().max_bytes(300_000);
    let backend = SqliteBackend::open_with(folder.path().join("history.db"), options).expect("open");
    let flow = new_flow();
    let mut kept = Vec::new();
    let (lost, error) = loop {
        let ids: Vec<TaskRunId> = (0..200).map(|_| new_task()).collect();
        let mut batch: Vec<Event> = ids.iter().map(|id| run((*id).into())).collect();
        batch.push(run(new_flow().into()));
        match backend.append(&batch) {
            Ok(()) => kept.extend(ids),
            Err(error) => break (ids, error),
        }
    };
    assert_eq!(error.kind(), BackendErrorKind::Full, "{error}");
    assert!(error.is_transient());
    assert!(kept.len() >= 400, "{} runs found room", kept.len());
    for id in &kept {
        assert!(backend.task_run(*id).expect("read").is_some());
    }
    for id in &lost {
        assert_eq!(backend.task_run(*id).expect("read"), None);
    }
    assert_eq!(
        backend.flow_runs(&FlowRunQuery::new().limit(9999), Timestamp::from_micros(0)).expect("list").len(),
        kept.len() / 200
    );
    assert_eq!(backend.task_runs(flow).expect("list"), []);

    // There is room for less, and numbers given out in the failed batch were forgotten.
    backend.append(&[run(new_task().into())]).expect("append a small batch");
}

#[test]
fn functions_first_met_in_a_failed_batch_are_stored_later() {
    let folder = folder();
    let options = SqliteOptions::new().max_bytes(200_000);
    let backend = SqliteBackend::open_with(folder.path().join("history.db"), options).expect("open");
    let id = new_task();
    let line = line(id, "x".repeat(1_000_000));
    let error = backend.append(&[run(id.into()), Event::Log(line)]).expect_err("no room");
    assert_eq!(error.kind(), BackendErrorKind::Full);
    backend.append(&[run(id.into())]).expect("append");
    assert_eq!(backend.task_run(id).expect("read").expect("stored").task_name, "b");
}

#[test]
fn a_writer_that_is_held_up_says_so() {
    let (_folder, path) = file();
    let options = SqliteOptions::new().busy_timeout(Duration::from_millis(20));
    let backend = SqliteBackend::open_with(&path, options).expect("open");
    let other = Connection::open(&path).expect("open");
    other.execute_batch("BEGIN IMMEDIATE").expect("lock");
    let id = new_task();
    let error = backend.append(&[run(id.into())]).expect_err("the other process writes");
    assert_eq!(error.kind(), BackendErrorKind::Busy, "{error}");
    assert!(error.is_transient());
    assert_eq!(backend.task_run(id).expect("reading does not wait for a writer"), None);
    other.execute_batch("ROLLBACK").expect("unlock");
    backend.append(&[run(id.into())]).expect("append");
}

const LIMIT: LimitSetting = LimitSetting { slots: 1, decay: None, active: true };

#[test]
fn what_is_leased_is_waited_for_as_long_as_the_option_says() {
    let (_folder, path) = file();
    let options = SqliteOptions::new().busy_timeout(Duration::from_millis(20));
    let backend = SqliteBackend::open_with(&path, options).expect("open");
    let now = Timestamp::from_micros(1_000);
    let process = Process { host: "machine".to_owned(), pid: 1, namespace: 2, started: 1, session: 0 };
    let owner = backend.join(&process, now).expect("join");
    let other = Connection::open(&path).expect("open");
    other.execute_batch("BEGIN IMMEDIATE").expect("lock");
    let claim = ClaimRequest { key: CacheKey([1; 32]), ticket: 1, run: new_task(), run_name: "run".into() };
    type Asks<'a> = &'a dyn Fn() -> Result<(), BackendError>;
    let asks: [(&str, Asks<'_>); 3] = [
        ("limit", &|| backend.set_limit("web", LIMIT, now)),
        ("slot", &|| backend.trade(owner, &SlotTrade::default(), now).map(drop)),
        ("claim", &|| backend.claim(owner, &[], std::slice::from_ref(&claim), now).map(drop)),
    ];
    lease::TRIES.take();
    for (what, ask) in asks {
        let start = Instant::now();
        let error = ask().expect_err("the other process writes");
        assert!(start.elapsed() >= Duration::from_millis(20), "{what} gave up early");
        assert_eq!(error.kind(), BackendErrorKind::Busy, "{what}: {error}");
        // Between two tries there is a millisecond at least, the last one aside.
        let tries = lease::TRIES.take();
        assert!((1..=22).contains(&tries), "{what}: {tries} tries");
    }
    assert_eq!(backend.renew(owner, now).expect_err("the other process writes").kind(), BackendErrorKind::Busy);
    other.execute_batch("ROLLBACK").expect("unlock");
    for (what, ask) in asks {
        ask().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn whoever_waits_for_another_process_keeps_nobody_of_this_one_from_looking() {
    let (_folder, path) = file();
    let options = SqliteOptions::new().busy_timeout(Duration::from_secs(600));
    let backend = SqliteBackend::open_with(&path, options).expect("open");
    let other = Connection::open(&path).expect("open");
    other.execute_batch("BEGIN IMMEDIATE").expect("lock");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| backend.set_limit("web", LIMIT, Timestamp::from_micros(1_000)));
        while lock(&backend.leases).is_none() {
            thread::yield_now();
        }
        // It has asked once.
        let version = backend.version().expect("look");
        assert!(!waiting.is_finished());
        other.execute_batch("ROLLBACK").expect("unlock");
        waiting.join().expect("no panic").expect("it is served");
        assert!(backend.version().expect("look") > version);
    });
}

#[test]
fn values_that_we_did_not_write_are_reported() {
    let (_folder, path) = file();
    let backend = open(&path);
    let (task, flow) = (new_task(), new_flow());
    backend.append(&[run(task.into()), run(flow.into())]).expect("append");
    let damages = [
        "UPDATE task_run SET state = 'Dreaming', states = '[\"Dreaming\",1]'",
        "UPDATE task_run SET state = 'Completed', states = '[\"Completed\"'",
        "UPDATE task_run SET tags = '{', states = '[1]'",
        "UPDATE task_run SET tags = NULL, upstream = x'7400', states = '[\"Completed\",\"yesterday\"]'",
        "UPDATE task_run SET upstream = NULL, parent = x'', states = 'Completed'",
    ];
    for damage in damages {
        by_hand(&path, damage);
        let error = backend.states(task.into()).expect_err("the states are damaged");
        assert_eq!(error.kind(), BackendErrorKind::Corrupt, "{damage}: {error}");
        if !damage.contains("state = 'Completed'") {
            let error = backend.task_run(task).expect_err("the run is damaged");
            assert_eq!(error.kind(), BackendErrorKind::Corrupt, "{damage}: {error}");
        }
    }
    by_hand(&path, "INSERT INTO amendment (run, parameters) SELECT id, '{' FROM flow_run");
    assert_eq!(backend.flow_run(flow).expect_err("no JSON").kind(), BackendErrorKind::Corrupt);
}

/// A run that is in its body.
fn begun(id: RunId) -> RunEvent {
    let Event::Run(mut begun) = run(id) else { unreachable!() };
    begun.transitions =
        begun.transitions.iter().map(|first| Transition { name: StateName::Running, ..first }).collect();
    begun
}

#[test]
fn whoever_reads_while_somebody_is_found_to_be_gone_sees_it_afterwards() {
    let (_folder, path) = file();
    let id = new_task();
    let begun = begun(id.into());
    open(&path).append(&[Event::Run(begun)]).expect("append");
    let backend = SqliteBackend::open_with(&path, SqliteOptions::new().look_only(true)).expect("open");
    let state = || backend.task_run(id).expect("read").expect("it is known").state.name;
    assert_eq!(state(), "Running");
    let owner = backend.owner_of(id.into()).expect("read").expect("it is somebody's");
    let reading = |_: &Connection| {
        // As another thread would, meanwhile.
        backend.show_as_gone(&owner, Timestamp::from_micros(2_000), "it went away").expect("read");
        Ok(())
    };
    backend.read(|| "read", reading).expect("read");
    assert_eq!(state(), "Crashed");
}

#[test]
fn a_file_that_stays_unusable_is_told_of_after_so_many_looks_as_are_meant() {
    let (folder, path) = file();
    drop(open(&path));
    let look = || SqliteBackend::open_with(&path, SqliteOptions::new().look_only(true));
    let backend = look().expect("open");
    assert_eq!(reader::LOOKS.take(), 1);
    lock(&backend.readers).clear();
    let log = folder.path().join("history.db-wal");
    std::fs::create_dir(&log).expect("a folder in place of the log");
    let opened = look().expect_err("the log cannot be opened");
    assert_eq!(reader::LOOKS.take(), reader::TRIES + 1);
    let read = backend.task_run(new_task()).expect_err("the log cannot be opened");
    assert_eq!(reader::LOOKS.take(), reader::TRIES + 1);
    for error in [opened, read] {
        assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
        let why = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(error.to_string().contains("history.db") && why.contains("unable to open"), "{error}: {why}");
    }
    std::fs::remove_dir(&log).expect("take the folder away");
    assert_eq!(backend.task_run(new_task()).expect("read"), None);
    assert_eq!(reader::LOOKS.take(), 1, "what can be used is looked at once");
}

#[test]
fn an_owner_that_renews_its_lease_is_not_gone_to_those_who_look() {
    let (_folder, path) = file();
    let id = new_task();
    let begun = begun(id.into());
    let writer = open(&path);
    let no = writer.join(begun.run.process, Timestamp::from_micros(1_000)).expect("join");
    writer.append_as(no, &[Event::Run(begun)]).expect("append");
    let looker = SqliteBackend::open_with(&path, SqliteOptions::new().look_only(true)).expect("open");
    let state = || looker.task_run(id).expect("read").expect("it is known").state.name;
    let owner = || looker.owner_of(id.into()).expect("read").expect("it is somebody's");
    let is_gone = |owner| looker.show_as_gone(&owner, Timestamp::from_micros(2_000), "it went away").expect("read");
    let before = owner();
    is_gone(owner());
    assert_eq!((state().as_str(), owner().ended.is_some()), ("Crashed", true));
    writer.renew(no, Timestamp::from_micros(3_000)).expect("renew");
    assert_eq!((state().as_str(), owner().ended), ("Running", None), "it was suspended, and is there again");
    // Another thread found it to be gone before it renewed its lease, and says so now.
    is_gone(before);
    assert_eq!((state().as_str(), owner().ended), ("Running", None));
    is_gone(owner());
    assert_eq!((state().as_str(), owner().ended.is_some()), ("Crashed", true));
}

#[cfg(unix)]
#[test]
fn what_the_system_says_of_a_file_is_the_source_of_the_error() {
    let (_folder, path) = file();
    std::os::unix::fs::symlink(&path, &path).expect("a link to itself");
    let looked =
        SqliteBackend::open_with(&path, SqliteOptions::new().look_only(true)).expect_err("nothing can be read");
    for error in [refused(&path), looked] {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        let code = source.and_then(std::io::Error::raw_os_error);
        assert!(code.is_some() && code == std::fs::File::open(&path).expect_err("a loop").raw_os_error(), "{error}");
    }
}
