//! The JSON that `--json` prints. Its names are part of what programs rely on: they are lower case, and stay.

use chrono::{DateTime, Utc};
use orchestrator_core::{
    CacheEntry, CacheLook, CrashBudget, Elsewhere, FlowRun, Limit, LogLine, RunId, State, TaskRun,
};
use serde::Serialize;
use serde_json::Value;

use crate::find::Run;
use crate::time::{self, Times};

/// A reference to a run.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    id: String,
    kind: &'static str,
}

impl From<RunId> for Reference {
    fn from(id: RunId) -> Self {
        Self { id: id.to_string(), kind: kind(id) }
    }
}

/// `flow` or `task`.
pub(crate) const fn kind(id: RunId) -> &'static str {
    match id {
        RunId::Flow(_) => "flow",
        RunId::Task(_) => "task",
    }
}

/// A run of either kind.
#[derive(Debug, Serialize)]
pub(crate) struct RunJson {
    id: String,
    kind: &'static str,
    name: String,
    version: Option<String>,
    state: String,
    state_type: &'static str,
    state_message: Option<String>,
    state_at: DateTime<Utc>,
    /// When the next attempt begins of a run that waits for it.
    state_scheduled_time: Option<DateTime<Utc>>,
    run_count: u32,
    tags: Vec<String>,
    parent: Option<Reference>,
    upstream: Vec<Reference>,
    host: String,
    pid: u32,
    created: DateTime<Utc>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
    /// If it crashed with its process, so that `duration_secs` is a least value.
    last_seen: Option<DateTime<Utc>>,
    duration_secs: Option<f64>,
    /// If its process cannot be seen from here, and may be gone.
    silent: Option<SilentJson>,
    #[serde(flatten)]
    rest: Rest,
}

/// That nothing is heard of the process of a run that has not ended.
#[derive(Debug, Serialize)]
pub(crate) struct SilentJson {
    heard: Option<DateTime<Utc>>,
    lease_over: DateTime<Utc>,
}

impl RunJson {
    /// With what is known of whether its process is there.
    pub(crate) fn of(run: impl Into<Self>, elsewhere: Option<&Elsewhere>) -> Self {
        let silent = elsewhere
            .and_then(|elsewhere| Some(SilentJson { heard: elsewhere.heard, lease_over: elsewhere.lease_over? }));
        Self { silent, ..run.into() }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Rest {
    Flow {
        flow_name: String,
        flow_key: String,
        parameters: Value,
        pause: Option<PauseJson>,
        on_crash: Option<CrashBudgetJson>,
    },
    Task {
        task_name: String,
        task_key: String,
        flow_run_id: Option<String>,
        cache: Option<CacheLookJson>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct PauseJson {
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    message: Option<String>,
    input_schema: Option<Value>,
}

impl From<orchestrator_core::Pause> for PauseJson {
    fn from(pause: orchestrator_core::Pause) -> Self {
        Self { since: pause.since, until: pause.until, message: pause.message, input_schema: pause.input_schema }
    }
}

/// Whether a flow run goes on by itself after a crash.
#[derive(Debug, Serialize)]
pub(crate) struct CrashBudgetJson {
    used: u32,
    budget: u32,
    exhausted: bool,
}

impl From<CrashBudget> for CrashBudgetJson {
    fn from(counted: CrashBudget) -> Self {
        Self { used: counted.used.min(counted.budget), budget: counted.budget, exhausted: counted.is_exhausted() }
    }
}

#[derive(Debug, Serialize)]
struct CacheLookJson {
    hit: bool,
    key: Option<String>,
    reason: &'static str,
    sentence: String,
}

impl From<CacheLook> for CacheLookJson {
    fn from(look: CacheLook) -> Self {
        let (key, reason) = (look.key.map(|key| key.to_string()), look.reason.name());
        Self { hit: look.hit, key, reason, sentence: look.to_string() }
    }
}

impl From<Run> for RunJson {
    fn from(run: Run) -> Self {
        match run {
            Run::Flow(run) => run.into(),
            Run::Task(run) => run.into(),
        }
    }
}

/// What runs of both kinds have, which are types of their own with the same fields.
macro_rules! run_json {
    ($run:ident, $kind:literal, $times:expr, $rest:expr) => {
        Self {
            id: $run.id.to_string(),
            kind: $kind,
            name: $run.name,
            version: $run.version,
            state_type: $run.state.kind.as_str(),
            state: $run.state.name,
            state_message: $run.state.message,
            state_at: $run.state.timestamp,
            state_scheduled_time: $run.state.scheduled_time,
            run_count: $run.run_count,
            tags: $run.tags,
            parent: $run.parent.map(Reference::from),
            upstream: $run.upstream.into_iter().map(Reference::from).collect(),
            host: $run.host,
            pid: $run.pid,
            created: $run.created,
            start_time: $run.start_time,
            end_time: $run.end_time,
            last_seen: $run.last_seen,
            duration_secs: $times.taken().map(|taken| time::seconds(taken.duration)),
            silent: None,
            rest: $rest,
        }
    };
}

impl From<FlowRun> for RunJson {
    fn from(run: FlowRun) -> Self {
        let times = Times::from(&run);
        let rest = Rest::Flow {
            flow_name: run.flow_name,
            flow_key: run.flow_key,
            parameters: run.parameters,
            pause: run.pause.map(PauseJson::from),
            on_crash: run.on_crash.map(CrashBudgetJson::from),
        };
        run_json!(run, "flow", times, rest)
    }
}

impl From<TaskRun> for RunJson {
    fn from(run: TaskRun) -> Self {
        let times = Times::from(&run);
        let rest = Rest::Task {
            task_name: run.task_name,
            task_key: run.task_key,
            flow_run_id: run.flow_run_id.map(|id| id.to_string()),
            cache: run.cache.map(CacheLookJson::from),
        };
        run_json!(run, "task", times, rest)
    }
}

/// A state in the history of a run.
#[derive(Debug, Serialize)]
pub(crate) struct StateJson {
    state: String,
    state_type: &'static str,
    message: Option<String>,
    timestamp: DateTime<Utc>,
    /// Of AwaitingRetry: when the next attempt was to begin.
    scheduled_time: Option<DateTime<Utc>>,
}

impl From<State> for StateJson {
    fn from(state: State) -> Self {
        let State { kind, name, message, timestamp, scheduled_time, .. } = state;
        Self { state_type: kind.as_str(), state: name, message, timestamp, scheduled_time }
    }
}

/// A line of a log.
#[derive(Debug, Serialize)]
pub(crate) struct LogJson<'a> {
    timestamp: DateTime<Utc>,
    level: &'a str,
    run: Reference,
    run_name: &'a str,
    target: &'a str,
    message: &'a str,
}

impl<'a> LogJson<'a> {
    pub(crate) fn new(line: &'a LogLine, run_name: &'a str) -> Self {
        let LogLine { timestamp, ref level, ref target, ref message, run, .. } = *line;
        Self { timestamp, level, run: run.into(), run_name, target, message }
    }
}

/// A limit.
#[derive(Debug, Serialize)]
pub(crate) struct LimitJson {
    name: String,
    slots: u32,
    held: u32,
    waiting: usize,
    /// How many slots come back each second, if they come back by time.
    decay: Option<f64>,
    active: bool,
}

impl From<Limit> for LimitJson {
    fn from(limit: Limit) -> Self {
        let Limit { name, slots, taken, waiting, slot_decay, active, .. } = limit;
        Self { name, slots, held: taken, waiting, decay: slot_decay, active }
    }
}

/// A cached result.
#[derive(Debug, Serialize)]
pub(crate) struct CacheJson {
    key: String,
    task_key: String,
    run_id: String,
    created: DateTime<Utc>,
    expires: Option<DateTime<Utc>>,
    bytes: Option<u64>,
    format: Option<String>,
    type_name: Option<String>,
}

impl From<CacheEntry> for CacheJson {
    fn from(entry: CacheEntry) -> Self {
        Self {
            key: entry.key.to_string(),
            task_key: entry.task_key,
            run_id: entry.run.to_string(),
            created: entry.created,
            expires: entry.expires,
            bytes: entry.bytes,
            format: entry.format,
            type_name: entry.type_name,
        }
    }
}
