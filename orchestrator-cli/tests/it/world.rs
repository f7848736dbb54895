//! A database whose ids and times are known, and the program that looks at it.

use std::ops::Deref;
use std::sync::LazyLock;

use orchestrator_core::backend::EventStore as _;
use orchestrator_core::backend::record::{
    CacheKey, CacheRecord, CachedValue, EncodedValue, Event, LogRecord, Process, RunEvent, RunIds, RunInfo, SharedList,
};
use orchestrator_core::backend::sqlite::SqliteBackend;
use orchestrator_core::def::Def;
use orchestrator_core::{FlowRunId, RunId, StateName, TaskRunId, Timestamp, Transition};
use uuid::Uuid;

use crate::program::Home;

/// Runs belong to a process elsewhere, so that nobody here can say that it is gone.
static PROCESS: LazyLock<Process> =
    LazyLock::new(|| Process { host: "machine".to_owned(), pid: 4711, namespace: 2, started: 1, session: 0 });

/// So many milliseconds after 2026-01-31 12:00 UTC.
pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(1_769_860_800_000_000 + millis * 1000)
}

/// A database in a folder of its own.
pub(crate) struct World(Home);

impl Deref for World {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.0
    }
}

impl World {
    /// No database yet.
    pub(crate) fn empty() -> Self {
        let mut home = Home::of(env!("CARGO_BIN_EXE_orchestrator"));
        home.is_quiet = true;
        Self(home)
    }

    /// The database of all these tests.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        world.give(&events());
        world
    }

    pub(crate) fn give(&self, events: &[Event]) {
        SqliteBackend::open(self.database()).expect("open the database").append(events).expect("store events");
    }
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x019c_13f6_d000_7000_8000_0000_0000_0000 + n * 0x1111_1111)
}

pub(crate) fn flow_id(n: u128) -> FlowRunId {
    FlowRunId::from_uuid(uuid(n))
}

pub(crate) fn task_id(n: u128) -> TaskRunId {
    TaskRunId::from_uuid(uuid(n))
}

static GITHUB_STARS: Def = Def::flow("github-stars", "repo_stars::github_stars");
static FETCH: Def = Def::task("fetch", "repo_stars::fetch");

fn info(id: RunId, def: &'static Def) -> RunInfo {
    RunInfo {
        id,
        def,
        given_name: None,
        index: 0,
        parent: None,
        flow_run: None,
        tags: SharedList::default(),
        upstream: RunIds::default(),
        process: &PROCESS,
    }
}

/// A flow run of a name.
pub(crate) fn flow(n: u128, name: &str) -> RunInfo {
    RunInfo { given_name: Some(name.into()), ..info(flow_id(n).into(), &GITHUB_STARS) }
}

/// A task run of a flow run.
pub(crate) fn fetch(n: u128, flow: &RunInfo, index: u32) -> RunInfo {
    let run = info(task_id(n).into(), &FETCH);
    RunInfo { index, parent: Some(flow.id), flow_run: flow.id.as_flow(), ..run }
}

/// A run that went through these states at these times; a message comes with the last.
pub(crate) fn went(run: &RunInfo, states: &[(StateName, i64)], message: Option<&str>, run_count: u32) -> Event {
    let last = states.len() - 1;
    let transitions = states.iter().enumerate().map(|(n, (name, millis))| Transition {
        message: message.filter(|_| n == last).map(Into::into),
        ..Transition::new(*name, at(*millis))
    });
    let transitions = transitions.collect();
    Event::Run(RunEvent { run: run.clone(), first_seq: 0, transitions, run_count, cache: None })
}

pub(crate) fn said(run: &RunInfo, millis: i64, level: &'static str, message: &str) -> Event {
    let (target, message) = ("repo_stars".to_owned(), message.to_owned());
    Event::Log(LogRecord { run: run.id, at: at(millis), level, target, message })
}

fn cached(key: u8, task_key: &'static str, expires: Option<i64>, bytes: usize) -> Event {
    let value = EncodedValue { format: "msgpack/1".into(), type_name: "u64".into(), bytes: vec![0; bytes].into() };
    Event::Cached(Box::new(CacheRecord {
        key: CacheKey([key; 32]),
        task_key,
        run: task_id(2),
        created: at(i64::from(key)),
        expires: expires.map(at),
        value: CachedValue::Encoded(value),
    }))
}

/// A flow run that failed, with a subflow and a task run of every kind; one that completed; one that goes on.
pub(crate) fn events() -> Vec<Event> {
    use StateName::{AwaitingRetry, Completed, Failed, NotReady, Pending, Retrying, Running};
    let otter = RunInfo { tags: ["nightly".into(), "stars".into()].into(), ..flow(1, "brave-otter") };
    let otter = otter.with_options(|more| more.version = Some("2"));
    let (good, bad) = (fetch(2, &otter, 0), fetch(3, &otter, 1));
    let total = RunInfo { upstream: [good.id, bad.id].into(), ..fetch(4, &otter, 0) };
    let total = total.declared(|def| (def.name, def.key) = ("total", "repo_stars::total"));
    let inner = RunInfo { parent: Some(otter.id), flow_run: otter.id.as_flow(), ..flow(5, "quiet-crane") };
    let inside = fetch(6, &inner, 0);
    let (heron, waiting) = (flow(7, "calm-heron"), flow(8, "odd\u{1b}[2Jname"));
    let parameters = |run: &RunInfo, json: &str| Event::Parameters {
        run: run.id.as_flow().expect("a flow run"),
        json: json.to_owned(),
    };
    vec![
        went(&otter, &[(Pending, 0), (Running, 1), (Failed, 2_000)], Some("task run 'fetch-1' failed: no route"), 1),
        parameters(&otter, r#"{"repos":["serde","tokio"],"depth":3}"#),
        went(&good, &[(Pending, 10), (Running, 12), (Completed, 350)], None, 1),
        went(
            &bad,
            &[(Pending, 10), (Running, 13), (AwaitingRetry, 400), (Retrying, 1_400), (Failed, 1_800)],
            Some("no route\nto host"),
            2,
        ),
        went(&total, &[(Pending, 20), (NotReady, 1_801)], Some("upstream 'fetch-1' failed"), 0),
        went(&inner, &[(Pending, 30), (Running, 31), (Completed, 90)], None, 1),
        went(&inside, &[(Pending, 40), (Running, 41), (Completed, 80)], None, 1),
        went(&heron, &[(Pending, 60_000), (Running, 60_001)], None, 1),
        went(&waiting, &[(Pending, 120_000)], None, 0),
        said(&good, 20, "INFO", "fetching serde"),
        said(&inside, 50, "DEBUG", "inside"),
        said(&bad, 399, "WARN", "no route\nto \u{1b}[31mhost"),
        said(&otter, 1_900, "ERROR", "giving up"),
        cached(0x1a, "repo_stars::fetch", Some(3_600_000), 512),
        cached(0x1b, "repo_stars::fetch", None, 2_048),
        cached(0x2c, "etl::load", None, 7),
    ]
}
