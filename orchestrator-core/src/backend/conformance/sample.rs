//! Events as the engine would send them, for the cases to vary.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::backend::StateBackend;
use crate::backend::record::{
    CacheKey, CacheLook, CacheRecord, CachedValue, EncodedValue, Event, FlowRun, LogRecord, Process, ResultRecord,
    RunEvent, RunIds, RunInfo, SharedList, TaskRun,
};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateName, Transition};

pub(super) static PROCESS: LazyLock<Process> =
    LazyLock::new(|| Process { host: "machine".to_owned(), pid: 4711, namespace: 2, started: 1, session: 0 });

static LOAD: Def = Def::task("load", "pipeline::load");
static NIGHTLY: Def = Def::flow("nightly", "pipeline::nightly");

/// A moment, so many microseconds after the time at which all cases begin.
pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_763_690_000_000_000 + micros)
}

pub(super) fn flow(created: i64) -> RunInfo {
    RunInfo { def: &NIGHTLY, ..run(FlowRunId::new(at(created)).into()) }
}

pub(super) fn task(created: i64) -> RunInfo {
    run(TaskRunId::new(at(created)).into())
}

/// A task run of that flow run, called by it.
pub(super) fn task_of(flow: &RunInfo, created: i64) -> RunInfo {
    RunInfo { parent: Some(flow.id), flow_run: flow.id.as_flow(), ..task(created) }
}

fn run(id: RunId) -> RunInfo {
    RunInfo {
        id,
        def: &LOAD,
        given_name: None,
        index: 0,
        parent: None,
        flow_run: None,
        tags: SharedList::default(),
        upstream: RunIds::default(),
        process: &PROCESS,
    }
}

/// Pending, Running and Completed, a microsecond apart.
pub(super) fn success(run: &RunInfo, created: i64) -> Event {
    let states = [(StateName::Pending, 0), (StateName::Running, 1), (StateName::Completed, 2)];
    event(run, 0, &states.map(|(name, later)| (name, created + later)))
}

pub(super) fn event(run: &RunInfo, first_seq: u32, states: &[(StateName, i64)]) -> Event {
    let transitions = states.iter().map(|(name, micros)| Transition::new(*name, at(*micros)));
    counted(run, first_seq, transitions, u32::from(first_seq + states.len() as u32 > 1))
}

pub(super) fn counted(
    run: &RunInfo,
    first_seq: u32,
    transitions: impl IntoIterator<Item = Transition>,
    run_count: u32,
) -> Event {
    let transitions = transitions.into_iter().collect();
    Event::Run(RunEvent { run: run.clone(), first_seq, transitions, run_count, cache: None })
}

/// The same event of a run that has looked into the cache.
pub(super) fn looked(mut event: Event, look: &CacheLook) -> Event {
    if let Event::Run(event) = &mut event {
        event.cache = Some(Arc::new(look.clone()));
    }
    event
}

pub(super) fn log(run: RunId, micros: i64, message: &str) -> Event {
    let (target, message) = ("pipeline".to_owned(), message.to_owned());
    Event::Log(LogRecord { run, at: at(micros), level: "INFO", target, message })
}

pub(super) fn cached(key: u8, created: i64, expires: Option<i64>, bytes: &[u8]) -> CacheRecord {
    CacheRecord {
        key: CacheKey([key; 32]),
        task_key: "pipeline::load",
        run: TaskRunId::new(at(created)),
        created: at(created),
        expires: expires.map(at),
        value: CachedValue::Encoded(encoded(bytes)),
    }
}

/// The root flow run whose results those of [`kept`] are.
pub(super) static ROOT: LazyLock<FlowRunId> = LazyLock::new(|| FlowRunId::new(at(0)));

pub(super) fn kept(key: u8, created: i64, bytes: &[u8]) -> ResultRecord {
    ResultRecord {
        root: *ROOT,
        key: CacheKey([key; 32]),
        run: TaskRunId::new(at(created)),
        flow_run: None,
        created: at(created),
        digest: *blake3::hash(bytes).as_bytes(),
        value: CachedValue::Encoded(encoded(bytes)),
    }
}

pub(super) fn encoded(bytes: &[u8]) -> EncodedValue {
    EncodedValue { format: "msgpack/1".into(), type_name: "u64".into(), bytes: Bytes::copy_from_slice(bytes) }
}

/// What a backend is asked for, with the id's kind and the answer's presence taken for granted.
pub(super) trait Ask {
    fn give(&self, batch: &[Event]);
    fn task(&self, run: &RunInfo) -> TaskRun;
    fn flow(&self, run: &RunInfo) -> FlowRun;
    fn history(&self, run: &RunInfo) -> Vec<State>;
}

impl Ask for Arc<dyn StateBackend> {
    fn give(&self, batch: &[Event]) {
        self.append(batch).expect("append a batch");
    }

    fn task(&self, run: &RunInfo) -> TaskRun {
        let id = run.id.as_task().expect("the id of a task run");
        self.task_run(id).expect("read a task run").expect("a task run that was appended is known")
    }

    fn flow(&self, run: &RunInfo) -> FlowRun {
        let id = run.id.as_flow().expect("the id of a flow run");
        self.flow_run(id).expect("read a flow run").expect("a flow run that was appended is known")
    }

    fn history(&self, run: &RunInfo) -> Vec<State> {
        self.states(run.id).expect("read the states of a run")
    }
}

/// The names of states, in order, with the microseconds at which they were entered.
pub(super) fn outline(states: &[State]) -> Vec<(&str, i64)> {
    let start = at(0).as_micros();
    states.iter().map(|state| (&*state.name, state.timestamp.timestamp_micros() - start)).collect()
}
