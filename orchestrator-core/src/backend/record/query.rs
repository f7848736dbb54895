//! Which task runs and cached results to list.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::CacheKey;
use crate::id::{FlowRunId, TaskRunId};
use crate::state::StateFilter;

/// Which task runs to list. The default lists the newest 200.
///
/// ```
/// use orchestrator_core::{StateType, TaskRunQuery};
///
/// let query = TaskRunQuery::new().name("fetch").state(StateType::Failed).limit(10);
/// # let _ = query;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TaskRunQuery {
    flow_run: Option<FlowRunId>,
    name: Option<String>,
    state: Option<StateFilter>,
    within: Option<Duration>,
    limit: usize,
}

impl Default for TaskRunQuery {
    fn default() -> Self {
        Self { flow_run: None, name: None, state: None, within: None, limit: 200 }
    }
}

impl TaskRunQuery {
    /// A query that lists the newest 200 task runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only runs that belong to this flow run.
    pub const fn of(mut self, flow_run: FlowRunId) -> Self {
        self.flow_run = Some(flow_run);
        self
    }

    /// Only runs of the task of that display name, and runs that bear that name themselves.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only runs whose last state is of that type, or has that name.
    pub fn state(mut self, state: impl Into<StateFilter>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Only runs submitted within that time before now.
    pub const fn within(mut self, period: Duration) -> Self {
        self.within = Some(period);
        self
    }

    /// At most that many runs.
    pub const fn limit(mut self, runs: usize) -> Self {
        self.limit = runs;
        self
    }

    /// The flow run that runs must belong to.
    #[must_use]
    pub const fn flow_run(&self) -> Option<FlowRunId> {
        self.flow_run
    }

    /// The name that the task or the run must have.
    #[must_use]
    pub fn wanted_name(&self) -> Option<&str> {
        self.name.as_deref()
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

    /// How many runs to list at most.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.limit
    }
}

/// Which cached results to list. The default lists the newest 200.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CacheQuery {
    prefix: String,
    task_key: Option<String>,
    limit: usize,
}

impl Default for CacheQuery {
    fn default() -> Self {
        Self { prefix: String::new(), task_key: None, limit: 200 }
    }
}

impl CacheQuery {
    /// A query that lists the newest 200 results.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only results whose key, in hexadecimal digits, begins so.
    pub fn prefix(mut self, digits: impl Into<String>) -> Self {
        self.prefix = digits.into().to_ascii_lowercase();
        self
    }

    /// Only results of the task with that key: its function's module path and name.
    pub fn task_key(mut self, key: impl Into<String>) -> Self {
        self.task_key = Some(key.into());
        self
    }

    /// At most that many results.
    pub const fn limit(mut self, results: usize) -> Self {
        self.limit = results;
        self
    }

    /// What keys must begin with.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.prefix
    }

    /// The key of the task that results must be of.
    #[must_use]
    pub fn wanted_task(&self) -> Option<&str> {
        self.task_key.as_deref()
    }

    /// How many results to list at most.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.limit
    }
}

/// A result in the cache, without the result itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheEntry {
    /// What it answers.
    pub key: CacheKey,
    /// The function that made it.
    pub task_key: String,
    /// The run that made it.
    pub run: TaskRunId,
    /// When that run completed.
    pub created: DateTime<Utc>,
    /// From this moment on it is not used; `None`: never.
    pub expires: Option<DateTime<Utc>>,
    /// How many bytes its encoded form has; `None` for a value that was not encoded.
    pub bytes: Option<u64>,
    /// How the bytes were made.
    pub format: Option<String>,
    /// The Rust type that was encoded.
    pub type_name: Option<String>,
}
