//! How much is read for an answer: no more because more is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backend::record::{CacheQuery, TaskRunQuery};
use crate::backend::{CacheCare as _, RunSearch as _};
use crate::state::StateType;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: i64 = 24 * 3_600_000_000;

/// Counts the steps that SQLite takes on a connection from now on.
fn count_steps(connection: &mut Connection) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let step = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1, Some(step)).expect("be asked before each step");
    count
}

/// How many steps the answer to a question takes.
fn steps(backend: &SqliteBackend, ask: impl Fn()) -> u64 {
    // Then statements are prepared, and there is a connection that reads.
    ask();
    let count = {
        let mut readers = lock(&backend.readers);
        assert_eq!(readers.len(), 1);
        count_steps(&mut readers[0].connection)
    };
    ask();
    count.load(Ordering::Relaxed)
}

/// Task runs that were submitted then, one a microsecond, and are in that state.
fn task_runs(at: i64, number: i64, state: StateName) -> Vec<Event> {
    let task_run = |at| {
        let Event::Run(mut event) = run(TaskRunId::new(at).into()) else { unreachable!("it is a run's event") };
        event.transitions = [Transition::new(state, at)].into_iter().collect();
        Event::Run(event)
    };
    (at..at + number).map(|at| task_run(Timestamp::from_micros(at))).collect()
}

#[test]
fn task_runs_of_a_short_time_are_found_among_them_alone() {
    let steps = [10, 3_000].map(|older| {
        let (_folder, path) = file();
        let backend = open(&path);
        backend.append(&task_runs(DAY, older, StateName::Completed)).expect("append");
        backend.append(&task_runs(9 * DAY, 10, StateName::Completed)).expect("append");
        let count = |query: TaskRunQuery| {
            let found = backend.find_task_runs(&query.within(HOUR), Timestamp::from_micros(9 * DAY + 10));
            found.expect("find").len()
        };
        assert_eq!(count(TaskRunQuery::new()), 10);
        steps(&backend, || assert_eq!(count(TaskRunQuery::new().state(StateType::Failed)), 0))
    });
    assert_eq!(steps[0], steps[1]);
}

#[test]
fn task_runs_that_have_not_ended_are_found_without_a_look_at_those_that_have() {
    let steps = [10, 3_000].map(|ended| {
        let (_folder, path) = file();
        let backend = open(&path);
        backend.append(&task_runs(DAY, 5, StateName::Running)).expect("append");
        backend.append(&task_runs(2 * DAY, ended, StateName::Completed)).expect("append");
        let query = TaskRunQuery::new().state(StateType::Running);
        let find = || backend.find_task_runs(&query, Timestamp::from_micros(3 * DAY)).expect("find");
        assert!(find().is_sorted_by_key(|run| std::cmp::Reverse(run.id)));
        steps(&backend, || assert_eq!(find().len(), 5))
    });
    assert_eq!(steps[0], steps[1]);
}

#[test]
fn what_is_cached_of_one_task_is_cleared_in_one_look_at_each_result() {
    const CLEARED: u32 = 4_000;
    const OTHERS: u32 = 6_000;
    let steps = [0, OTHERS].map(|others| {
        let (_folder, path) = file();
        let backend = open(&path);
        let record = |number: u32| {
            let mut record = cached(0, None, encoded(b"x"));
            record.key.0[..4].copy_from_slice(&number.to_le_bytes());
            record.task_key = if number < others { "c::d" } else { "a::b" };
            Event::Cached(Box::new(record))
        };
        backend.append(&(0..others + CLEARED).map(record).collect::<Vec<_>>()).expect("append");
        let count = count_steps(lock(&backend.writer).as_mut().expect("it was written").connection());
        assert_eq!(backend.clear_cache(Some("a::b")).expect("clear"), u64::from(CLEARED));
        assert_eq!(backend.cache_entries(&CacheQuery::new().limit(usize::MAX)).expect("list").len(), others as usize);
        count.load(Ordering::Relaxed)
    });
    let more = (steps[1] - steps[0]) / u64::from(OTHERS);
    assert!(more < 20, "{more} steps for each that stays");
}
