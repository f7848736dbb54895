//! All backends give the same answers, whatever happened and however it was cut into batches.

use std::sync::Arc;

use proptest::prelude::*;

use super::sample::{ROOT, at, cached, counted, flow, kept, log, looked, task, task_of};
use crate::backend::memory::MemoryBackend;
use crate::backend::record::{CacheKey, CacheLook, CacheReason, Event, FlowRunQuery, Pause, RunInfo};
use crate::backend::sqlite::SqliteBackend;
use crate::backend::{BackendError, EventStore as _, StateBackend};
use crate::id::RunId;
use crate::state::{StateName, Transition};

/// Something that happens to the run of that index.
#[derive(Debug, Clone)]
enum Step {
    Go {
        transitions: Vec<(StateName, Option<String>)>,
        lost: bool,
    },
    Rename(String),
    Upstream(Vec<usize>),
    Parameters(i32),
    Pause(i64),
    Log(String),
    Cache {
        key: u8,
        ttl: Option<i64>,
    },
    Persist {
        key: u8,
        bytes: u8,
    },
    /// What the run's next event says of the cache.
    Look(u8),
    /// An event from so far back comes again.
    Again(usize),
}

const RUNS: usize = 7;

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let transition = (0..StateName::ALL.len(), proptest::option::of(".{0,6}"));
    let transition = transition.prop_map(|(index, message)| (StateName::ALL[index], message));
    let step = prop_oneof![
        8 => (proptest::collection::vec(transition, 0..5), proptest::bool::weighted(0.1))
            .prop_map(|(transitions, lost)| Step::Go { transitions, lost }),
        1 => ".{0,6}".prop_map(Step::Rename),
        1 => proptest::collection::vec(0..RUNS, 0..4).prop_map(Step::Upstream),
        1 => any::<i32>().prop_map(Step::Parameters),
        1 => (0..60_i64).prop_map(Step::Pause),
        1 => ".{0,6}".prop_map(Step::Log),
        1 => (0..4_u8, proptest::option::of(0..60_i64)).prop_map(|(key, ttl)| Step::Cache { key, ttl }),
        1 => (0..4_u8, any::<u8>()).prop_map(|(key, bytes)| Step::Persist { key, bytes }),
        1 => any::<u8>().prop_map(Step::Look),
        3 => (1..12_usize).prop_map(Step::Again),
    ];
    proptest::collection::vec((0..RUNS, step), 1..80)
}

fn runs() -> Vec<RunInfo> {
    let outer = flow(0);
    let inner = RunInfo { parent: Some(outer.id), flow_run: outer.id.as_flow(), ..flow(1) };
    let tagged = RunInfo { tags: ["x".into()].into(), upstream: [inner.id].into(), ..task_of(&outer, 2) };
    let named = RunInfo { given_name: Some("named".into()), ..task_of(&inner, 3) }
        .with_options(|more| more.version = Some("1"));
    vec![tagged, named, task_of(&inner, 4), task_of(&outer, 5), task(6), outer, inner]
}

fn events(runs: &[RunInfo], steps: Vec<(usize, Step)>) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut next_seq = vec![0; runs.len()];
    let mut looks: Vec<Option<CacheLook>> = vec![None; runs.len()];
    for ((index, step), now) in steps.into_iter().zip((0..).step_by(10)) {
        let run = &runs[index];
        let event = match step {
            Step::Go { transitions, lost } => {
                let first_seq = next_seq[index];
                let transitions: Vec<Transition> = transitions
                    .into_iter()
                    .zip(now..)
                    .map(|((name, message), micros)| Transition {
                        message: message.map(Into::into),
                        scheduled: (name == StateName::AwaitingRetry).then(|| at(micros + 5)),
                        ..Transition::new(name, at(micros))
                    })
                    .collect();
                next_seq[index] += transitions.len() as u32;
                if lost {
                    continue;
                }
                let event = counted(run, first_seq, transitions, first_seq);
                match &looks[index] {
                    Some(look) => looked(event, look),
                    None => event,
                }
            }
            Step::Rename(name) => Event::Renamed { run: run.id, name: name.into() },
            Step::Upstream(others) => {
                let upstream: Vec<_> = others.into_iter().map(|other| runs[other].id).collect();
                let upstream = upstream.into();
                Event::Upstream { run: run.id, upstream }
            }
            Step::Parameters(number) => match run.id {
                RunId::Flow(run) => Event::Parameters { run, json: format!("{{\"n\":{number}}}") },
                RunId::Task(_) => continue,
            },
            Step::Pause(until) => match run.id {
                RunId::Flow(run) => {
                    let (since, until) = (at(now).to_datetime(), Some(at(until).to_datetime()));
                    let pause = Pause { since, until, message: None, input_schema: None };
                    Event::Paused { run, pause: Arc::new(pause) }
                }
                RunId::Task(_) => continue,
            },
            Step::Log(message) => log(run.id, now, &message),
            Step::Cache { key, ttl } => Event::Cached(Box::new(cached(key, now, ttl.map(|ttl| now + ttl), &[key]))),
            Step::Persist { key, bytes } => Event::Persisted(Box::new(kept(key, now, &[bytes]))),
            Step::Look(key) => {
                looks[index] = Some(CacheLook::new(Some(CacheKey([key; 32])), CacheReason::Absent));
                continue;
            }
            Step::Again(back) => match events.len().checked_sub(back).map(|place| events[place].clone()) {
                Some(event) => event,
                None => continue,
            },
        };
        events.push(event);
    }
    events
}

/// All that can be read, as text.
fn everything(backend: &dyn StateBackend, runs: &[RunInfo], now: i64) -> Result<String, BackendError> {
    let mut text = format!("{:#?}\n", backend.flow_runs(&FlowRunQuery::new(), at(now))?);
    for run in runs {
        text += &match run.id {
            RunId::Task(id) => format!("{:#?}\n", backend.task_run(id)?),
            RunId::Flow(id) => format!("{:#?}\n{:#?}\n", backend.flow_run(id)?, backend.task_runs(id)?),
        };
        text += &format!("{:#?}\n{:#?}\n", backend.states(run.id)?, backend.logs(run.id)?);
    }
    for key in 0..4 {
        let key = cached(key, 0, None, &[]).key;
        text += &format!("{:#?}\n{:#?}\n", backend.cached(&key)?, backend.result(*ROOT, &key)?);
    }
    Ok(text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn backends_agree(steps in steps(), cuts in proptest::collection::vec(1..20_usize, 80)) {
        let runs = runs();
        let now = steps.len() as i64 * 10;
        let events = events(&runs, steps);
        let folder = tempfile::tempdir().expect("a folder");
        let sqlite = SqliteBackend::open(folder.path().join("history.db")).expect("a new database");
        let (memory, at_once) = (MemoryBackend::new(), MemoryBackend::new());
        at_once.append(&events).expect("append everything");
        let mut rest = &*events;
        for cut in cuts {
            let (batch, later) = rest.split_at(cut.min(rest.len()));
            memory.append(batch).expect("append to memory");
            sqlite.append(batch).expect("append to SQLite");
            rest = later;
        }
        let expected = everything(&memory, &runs, now).expect("read from memory");
        prop_assert_eq!(&everything(&sqlite, &runs, now).expect("read from SQLite"), &expected);
        prop_assert_eq!(&everything(&at_once, &runs, now).expect("read from memory"), &expected);
    }
}
