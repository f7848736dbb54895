//! Finds runs and cached results among many: what people look at from outside.

use super::BackendError;
use super::record::{CacheEntry, CacheKey, CacheQuery, LogLine, TaskRun, TaskRunQuery};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId};
use crate::state::StateName;

/// Finds runs.
pub trait RunSearch {
    /// The runs that people may mean by that text, flow runs first, each kind newest first, at most so many of each:
    /// those whose id begins or ends with it, dashes and case aside, or else those of that name.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, BackendError>;

    /// The task runs that match, newest first. `now` is what [`TaskRunQuery::within`] counts back from.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn find_task_runs(&self, query: &TaskRunQuery, now: Timestamp) -> Result<Vec<TaskRun>, BackendError>;

    /// How many task runs that belong to a flow run are in each state, in the order in which names are declared.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn count_task_runs(&self, flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError>;

    /// How many of the flow runs that belong to a flow run have not ended, and the first of them, by id; `None` if all have.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn active_subflows(&self, flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError>;

    /// The log lines that were stored later than number `after`, each with its number: of a task run its own, of a
    /// flow run those of all runs inside it as well. Oldest first, at most so many. Numbers are greater than 0, and
    /// grow.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn logs_after(&self, run: RunId, after: u64, at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError>;
}

/// Looks after cached results.
pub trait CacheCare {
    /// The results in the cache that match, newest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError>;

    /// Takes results out of the cache, and says how many there were.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, BackendError>;

    /// Takes all results out of the cache, or all of the task with that key, and says how many there were.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, BackendError>;
}
