//! What is stored of runs, and the read models that come back.
//!
//! These are the types at the boundary: the engine's own types do not leave the process. The stored form carries
//! [`FORMAT_VERSION`]; a backend refuses a store that a newer version wrote.

mod look;
mod query;
mod shared;
mod transitions;

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::def::{Def, Rare};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateFilter, Transition};
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use look::{CacheLook, CacheReason};
pub use query::{CacheEntry, CacheQuery, TaskRunQuery};
pub use shared::{RunIds, SharedList};
pub use transitions::Transitions;

/// The version of the stored form that this library writes.
pub const FORMAT_VERSION: u32 = 3;

/// The identity of a run: what is known when it is submitted, and never changes.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run's id; its kind says whether this is a flow run or a task run.
    pub id: RunId,
    /// The task or flow.
    pub def: &'static Def,
    /// The name given to the run at submission, if it differs from `function-index`.
    pub given_name: Option<Arc<str>>,
    /// How many runs of this function the enclosing flow run had before.
    pub index: u32,
    /// The run whose body submitted this one.
    pub parent: Option<RunId>,
    /// The flow run that this run belongs to: for a flow run the enclosing one.
    pub flow_run: Option<FlowRunId>,
    /// The run's tags, sorted.
    pub tags: SharedList<Box<str>>,
    /// The runs whose results this run takes or waits for, in argument order, each once.
    pub upstream: RunIds,
    /// The machine and process that the run belongs to.
    pub process: &'static Process,
}

/// What is to be done if a run crashes with its process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnCrash {
    /// Hooks are to be called.
    pub hooks: bool,
    /// It is a flow run that is to go on by itself, so many times in a row.
    pub budget: Option<u32>,
}

/// Whether a flow run goes on by itself after a crash. [`Display`](std::fmt::Display) says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashBudget {
    /// How often it did since somebody last started it, or since it kept something new.
    pub used: u32,
    /// How often it may.
    pub budget: u32,
}

impl CrashBudget {
    /// Whether it stays Crashed after another crash, or after the one that it has had.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.used >= self.budget
    }
}

impl fmt::Display for CrashBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, budget } = self;
        if self.is_exhausted() {
            let times = if *budget == 1 { "time" } else { "times" };
            write!(f, "does not go on by itself any more: its crash_budget of {budget} {times} in a row is used up")
        } else {
            write!(
                f,
                "goes on by itself when its program is started, unless its flow was renamed or takes other parameters \
                 since: {used} of {budget} times in a row are used"
            )
        }
    }
}

impl RunInfo {
    /// The run's name, as submitted.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.given_name {
            Some(name) => (**name).to_owned(),
            None => Self::numbered(self.def, self.index),
        }
    }

    /// The name of a run that was given none.
    pub(crate) fn numbered(def: &Def, index: u32) -> String {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(index);
        let mut name = String::with_capacity(def.name.len() + 1 + digits.len());
        name.push_str(def.name);
        name.push('-');
        name.push_str(digits);
        name
    }

    /// The same run of a function that is declared otherwise. The declaration is never let go of: for tests of backends.
    #[must_use]
    pub fn declared(self, change: impl FnOnce(&mut Def)) -> Self {
        let mut def = *self.def;
        change(&mut def);
        Self { def: Box::leak(Box::new(def)), ..self }
    }

    /// The same run of a function of which more is said. As with [`declared`](Self::declared).
    #[must_use]
    pub fn with_options(self, change: impl FnOnce(&mut Rare)) -> Self {
        let mut rare = *self.def.rare;
        change(&mut rare);
        self.declared(|def| def.rare = Box::leak(Box::new(rare)))
    }

    /// Where the function stands: its module path and name.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.def.key
    }

    /// The task's or flow's display name.
    #[must_use]
    pub const fn function(&self) -> &'static str {
        self.def.name
    }

    /// The version that the function declares.
    #[must_use]
    pub const fn version(&self) -> Option<&'static str> {
        self.def.rare.version
    }

    /// What is to be done if the run crashes with its process.
    #[must_use]
    pub const fn on_crash(&self) -> OnCrash {
        self.def.rare.on_crash()
    }
}

/// A process that executes runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// The machine's name.
    pub host: String,
    /// The process id on that machine.
    pub pid: u32,
    /// The namespace in which the process id counts: containers on one machine have their own. 0 where the system does
    /// not tell.
    pub namespace: u64,
    /// When the process was started, as the system counts it: a process id is used again. 0 where it does not tell.
    pub started: u64,
    /// Tells the orchestrators of one process apart. 0 for one that shares its store with no other process.
    pub session: u64,
}

/// Something that happened, on its way to the backend.
#[derive(Debug, Clone)]
pub enum Event {
    /// A run was submitted or changed its state: sent when a run's driver pauses or ends.
    Run(RunEvent),
    /// A flow run's parameters became known: sent once, before its first attempt.
    Parameters {
        /// The flow run.
        run: FlowRunId,
        /// Its parameters by name, as a JSON object.
        json: String,
    },
    /// A run was given its final name by its template: sent once, when the inputs are ready.
    Renamed {
        /// The run.
        run: RunId,
        /// The new name.
        name: Arc<str>,
    },
    /// More upstream runs became known: sent before the run starts, in place of what its first event said.
    Upstream {
        /// The run.
        run: RunId,
        /// All of its upstream runs, in argument order, each once.
        upstream: RunIds,
    },
    /// A flow run waits for somebody to let it on: sent before it enters Paused, and again when the pause that is next
    /// to be resumed is another one. Of no account once the run is in another state.
    Paused {
        /// The flow run.
        run: FlowRunId,
        /// What it waits for.
        pause: Arc<Pause>,
    },
    /// A log line was captured.
    Log(LogRecord),
    /// A result is to be kept in the cache.
    Cached(Box<CacheRecord>),
    /// A result is to be kept for the flow run that it belongs to: sent before the run that made it says that it
    /// completed, or at the commit of its transaction. The key identifies the call; the first result under it stays.
    Persisted(Box<ResultRecord>),
    /// What a root flow run keeps under the key is of no use, for example damaged: it is to be deleted, so that another
    /// result can take its place.
    Discarded {
        /// The root flow run.
        root: FlowRunId,
        /// The identity of the call.
        key: CacheKey,
    },
}

impl Event {
    /// Whether it tells of a flow run itself, and not of what is part of one.
    pub(crate) fn is_of_flow(&self) -> bool {
        match self {
            Self::Run(event) => event.run.id.as_flow().is_some(),
            Self::Renamed { run, .. } | Self::Upstream { run, .. } => run.as_flow().is_some(),
            Self::Parameters { .. } | Self::Paused { .. } => true,
            Self::Log(_) | Self::Cached(_) | Self::Persisted(_) | Self::Discarded { .. } => false,
        }
    }

    /// The name of the object that it refers to in the result store.
    pub(crate) fn object(&self) -> Option<&str> {
        match self {
            Self::Persisted(record) => match &record.value {
                CachedValue::Stored(stored) => Some(&stored.location),
                CachedValue::Live(_) | CachedValue::Encoded(_) => None,
            },
            Self::Run(_)
            | Self::Parameters { .. }
            | Self::Renamed { .. }
            | Self::Upstream { .. }
            | Self::Paused { .. }
            | Self::Log(_)
            | Self::Cached(_)
            | Self::Discarded { .. } => None,
        }
    }
}

/// A flow run that has ended and goes on in another process, or in the same one.
#[derive(Debug, Clone)]
pub struct TakeOver {
    /// The flow run.
    pub run: FlowRunId,
    /// How many states it had when it was looked at: if it has another one by now, somebody else was quicker.
    pub seq: u32,
    /// To whom it belongs from now on.
    pub process: &'static Process,
    /// The state that follows on its terminal one.
    pub running: Transition,
    /// Who wants it.
    pub by: Resumer,
}

/// Who lets a flow run go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumer {
    /// Somebody does: how often it went on by itself is counted anew, if it is to do so at all.
    Somebody {
        /// Whether it is to go on by itself if it crashes.
        on_crash: bool,
    },
    /// It goes on by itself after a crash, if it has done so less often than that.
    Itself {
        /// How often it may.
        budget: u32,
    },
}

/// Transitions of one run that happened since the last event about it.
#[derive(Debug, Clone)]
pub struct RunEvent {
    /// The run.
    pub run: RunInfo,
    /// How many transitions of this run were sent before; 0 tells the backend that the run is new.
    pub first_seq: u32,
    /// The new transitions, oldest first.
    pub transitions: Transitions,
    /// How often the body had been started after the last of them.
    pub run_count: u32,
    /// What the run had found in the cache by then; `None` if it had not looked.
    pub cache: Option<Arc<CacheLook>>,
}

/// One captured log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The run in whose body it was written.
    pub run: RunId,
    /// When it was written.
    pub at: Timestamp,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The `tracing` target.
    pub target: String,
    /// The message, followed by its fields.
    pub message: String,
}

/// The key of a cached result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// A result in the cache.
#[derive(Clone)]
pub struct CacheRecord {
    /// What it answers.
    pub key: CacheKey,
    /// The function that made it.
    pub task_key: &'static str,
    /// The run that made it.
    pub run: TaskRunId,
    /// When that run completed.
    pub created: Timestamp,
    /// From this moment on the record is not to be used; `None`: never.
    pub expires: Option<Timestamp>,
    /// The result itself.
    pub value: CachedValue,
}

impl fmt::Debug for CacheRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheRecord").field("key", &self.key).field("task_key", &self.task_key).finish_non_exhaustive()
    }
}

/// A result that a flow run keeps.
#[derive(Clone)]
pub struct ResultRecord {
    /// The flow run that is looked through for it: of the flow runs around the call the outermost one, which keeps its
    /// id when it is resumed.
    pub root: FlowRunId,
    /// The identity of the call.
    pub key: CacheKey,
    /// The run that made it.
    pub run: TaskRunId,
    /// The flow run that this one belongs to.
    pub flow_run: Option<FlowRunId>,
    /// When that run completed.
    pub created: Timestamp,
    /// The BLAKE3 hash of the value, if that is [`Encoded`](CachedValue::Encoded): taken by whoever encoded it, so that
    /// the thread that writes need not.
    pub digest: [u8; 32],
    /// The result itself.
    pub value: CachedValue,
}

impl fmt::Debug for ResultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultRecord").field("root", &self.root).field("key", &self.key).finish_non_exhaustive()
    }
}

/// A result as the cache holds it.
#[derive(Clone, Debug)]
pub enum CachedValue {
    /// The value itself, for backends that live in the process.
    Live(Arc<dyn Any + Send + Sync>),
    /// The encoded value, for backends that outlive it.
    Encoded(EncodedValue),
    /// Where the encoded value is in the result store: it is too large for the backend.
    Stored(StoredValue),
}

/// A value as bytes, with what is needed to check them on reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedValue {
    /// How the bytes were made, for example `msgpack/1`.
    pub format: Cow<'static, str>,
    /// The Rust type that was encoded.
    pub type_name: Cow<'static, str>,
    /// The encoded value.
    pub bytes: Bytes,
}

/// An object in the result store, with what is needed to check it on reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// Where the store is: what [`ResultStore::location`](crate::results::ResultStore::location) says.
    pub store: Arc<str>,
    /// The name of the object in its store.
    pub location: String,
    /// How many bytes it has.
    pub size: u64,
    /// The BLAKE3 hash of its bytes.
    pub digest: [u8; 32],
    /// How the bytes were made.
    pub format: Cow<'static, str>,
    /// The Rust type that was encoded.
    pub type_name: Cow<'static, str>,
}

/// An object that a result refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// The run that gave the result.
    pub run: TaskRunId,
    /// The object.
    pub value: StoredValue,
}

/// A flow run that crashed: in the result store there may be objects that were written for it, and that no result refers
/// to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The flow run.
    pub run: FlowRunId,
    /// When it crashed: what was submitted later may be active.
    pub at: Timestamp,
}

/// A cache record as read back from a backend.
#[derive(Clone, Debug)]
pub struct CacheHit {
    /// The run that made it.
    pub run: TaskRunId,
    /// When that run completed.
    pub created: Timestamp,
    /// From this moment on it is not to be used.
    pub expires: Option<Timestamp>,
    /// The result.
    pub value: CachedValue,
}

impl CacheHit {
    /// Whether the result may still be used.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// A flow run, as read from the history.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlowRun {
    /// The run's id.
    pub id: FlowRunId,
    /// The run's name.
    pub name: String,
    /// The flow's display name.
    pub flow_name: String,
    /// Where the flow's function stands: its module path and name.
    pub flow_key: String,
    /// The state it was in last.
    pub state: State,
    /// How often its body was started.
    pub run_count: u32,
    /// The runs whose results it takes or waits for.
    pub upstream: Vec<RunId>,
    /// The run whose body called the flow.
    pub parent: Option<RunId>,
    /// The version that the flow declares.
    pub version: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its parameters, as recorded.
    pub parameters: serde_json::Value,
    /// What it waits for, while it is Paused.
    pub pause: Option<Pause>,
    /// Whether it goes on by itself after a crash of its process; `None` if its flow does not ask for it.
    pub on_crash: Option<CrashBudget>,
    /// The machine that it ran on.
    pub host: String,
    /// The process on that machine.
    pub pid: u32,
    /// When it was submitted.
    pub created: DateTime<Utc>,
    /// When its body was first started.
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended. Of a run that crashed with its process: when that was found out.
    pub end_time: Option<DateTime<Utc>>,
    /// Of a run that crashed with its process, which somebody else found out: the last that is known of the time before.
    pub last_seen: Option<DateTime<Utc>>,
}

/// A flow run that waits for somebody to let it on: the pause that is resumed next.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Pause {
    /// When it began.
    pub since: DateTime<Utc>,
    /// When it ends by itself, with an error; `None`: never.
    pub until: Option<DateTime<Utc>>,
    /// What the person is asked.
    pub message: Option<String>,
    /// The JSON Schema of the input that it takes; `None` if it takes none.
    pub input_schema: Option<serde_json::Value>,
}

/// A task run, as read from the history.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskRun {
    /// The run's id.
    pub id: TaskRunId,
    /// The run's name.
    pub name: String,
    /// The task's display name.
    pub task_name: String,
    /// Where the task's function stands: its module path and name.
    pub task_key: String,
    /// The state it was in last.
    pub state: State,
    /// How often its body was started.
    pub run_count: u32,
    /// The runs whose results it takes or waits for.
    pub upstream: Vec<RunId>,
    /// The run whose body called the task.
    pub parent: Option<RunId>,
    /// The flow run that it belongs to.
    pub flow_run_id: Option<FlowRunId>,
    /// The version that the task declares.
    pub version: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// What it found in the cache, and why; `None` if it is not cached, or has not looked yet.
    pub cache: Option<CacheLook>,
    /// The machine that it ran on.
    pub host: String,
    /// The process on that machine.
    pub pid: u32,
    /// When it was submitted.
    pub created: DateTime<Utc>,
    /// When its body was first started.
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended. Of a run that crashed with its process: when that was found out.
    pub end_time: Option<DateTime<Utc>>,
    /// Of a run that crashed with its process, which somebody else found out: the last that is known of the time before.
    pub last_seen: Option<DateTime<Utc>>,
}

/// Runs that have not ended, out of some.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActiveRuns {
    /// How many there are.
    pub count: usize,
    /// The first of them: their names, and the states that they are in.
    pub first: Vec<(RunId, String, State)>,
}

/// When a run was submitted, first started, and ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) created: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
}

impl TaskRun {
    /// The read model of a task run.
    pub(crate) fn of(
        info: &RunInfo,
        name: String,
        upstream: &[RunId],
        state: State,
        run_count: u32,
        times: Times,
    ) -> Self {
        Self {
            id: info.id.as_task().expect("a task run has a task run's id"),
            name,
            task_name: info.function().to_owned(),
            task_key: info.key().to_owned(),
            state,
            run_count,
            upstream: upstream.to_vec(),
            parent: info.parent,
            flow_run_id: info.flow_run,
            version: info.version().map(str::to_owned),
            tags: info.tags.iter().map(|tag| (**tag).to_owned()).collect(),
            cache: None,
            host: info.process.host.clone(),
            pid: info.process.pid,
            created: times.created.to_datetime(),
            start_time: times.started.map(Timestamp::to_datetime),
            end_time: times.ended.map(Timestamp::to_datetime),
            last_seen: None,
        }
    }
}

impl FlowRun {
    /// The read model of a flow run.
    pub(crate) fn of(
        info: &RunInfo,
        name: String,
        upstream: &[RunId],
        state: State,
        run_count: u32,
        times: Times,
        parameters: serde_json::Value,
    ) -> Self {
        Self {
            id: info.id.as_flow().expect("a flow run has a flow run's id"),
            name,
            flow_name: info.function().to_owned(),
            flow_key: info.key().to_owned(),
            state,
            run_count,
            upstream: upstream.to_vec(),
            parent: info.parent,
            version: info.version().map(str::to_owned),
            tags: info.tags.iter().map(|tag| (**tag).to_owned()).collect(),
            parameters,
            pause: None,
            on_crash: None,
            host: info.process.host.clone(),
            pid: info.process.pid,
            created: times.created.to_datetime(),
            start_time: times.started.map(Timestamp::to_datetime),
            end_time: times.ended.map(Timestamp::to_datetime),
            last_seen: None,
        }
    }
}

/// A log line, as read from the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// The run in whose body it was written.
    pub run: RunId,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// The `tracing` target.
    pub target: String,
    /// The message, followed by its fields.
    pub message: String,
}

/// Which flow runs to list. The default lists the newest 200.
///
/// ```
/// use orchestrator_core::FlowRunQuery;
///
/// let query = FlowRunQuery::new().flow("github-stars").limit(10);
/// # let _ = query;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct FlowRunQuery {
    pub(crate) flow: Option<String>,
    pub(crate) state: Option<StateFilter>,
    pub(crate) within: Option<Duration>,
    pub(crate) enclosing: Option<FlowRunId>,
    pub(crate) active: bool,
    pub(crate) roots: bool,
    pub(crate) limit: usize,
}

impl Default for FlowRunQuery {
    fn default() -> Self {
        Self { flow: None, state: None, within: None, enclosing: None, active: false, roots: false, limit: 200 }
    }
}

impl FlowRunQuery {
    /// A query that lists the newest 200 flow runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only runs of the flow of that display name.
    pub fn flow(mut self, name: impl Into<String>) -> Self {
        self.flow = Some(name.into());
        self
    }

    /// Only runs whose last state is of that type, or has that name.
    pub fn state(mut self, state: impl Into<StateFilter>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Only runs submitted within that time before now.
    pub fn within(mut self, period: Duration) -> Self {
        self.within = Some(period);
        self
    }

    /// Only runs that belong to this flow run themselves: subflows that it or its tasks called.
    pub fn inside(mut self, flow_run: FlowRunId) -> Self {
        self.enclosing = Some(flow_run);
        self
    }

    /// Only runs that have not ended.
    pub fn active(mut self) -> Self {
        self.active = true;
        self
    }

    /// Only runs that no other run called.
    pub fn roots(mut self) -> Self {
        self.roots = true;
        self
    }

    /// At most that many runs.
    pub fn limit(mut self, runs: usize) -> Self {
        self.limit = runs;
        self
    }

    /// The flow's display name that runs must have.
    #[must_use]
    pub fn flow_name(&self) -> Option<&str> {
        self.flow.as_deref()
    }

    /// The state that runs must have.
    #[must_use]
    pub const fn wanted_state(&self) -> Option<StateFilter> {
        self.state
    }

    /// How long ago runs may have been submitted.
    #[must_use]
    pub const fn period(&self) -> Option<Duration> {
        self.within
    }

    /// The flow run that runs must belong to.
    #[must_use]
    pub const fn enclosing(&self) -> Option<FlowRunId> {
        self.enclosing
    }

    /// Whether runs must not have ended.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// Whether no other run may have called them.
    #[must_use]
    pub const fn is_of_roots(&self) -> bool {
        self.roots
    }

    /// How many runs to list at most.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.limit
    }
}
