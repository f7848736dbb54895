//! Questions about many runs, and about the cache.

use crate::active::About;
use crate::backend::record::{CacheEntry, CacheKey, CacheQuery, LogLine, TaskRun, TaskRunQuery};
use crate::error::Error;
use crate::id::{FlowRunId, RunId};
use crate::orchestrator::Orchestrator;
use crate::state::StateName;

impl Orchestrator {
    /// The runs that a person may mean by that text, flow runs first, each kind newest first, at most so many of each:
    /// those whose id begins with it, or else ends with it, dashes and case aside, or else those of that name.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, Error> {
        let text = text.to_owned();
        self.ask_about(About::AllRuns, move |backend, _| backend.runs_called(&text, at_most)).await
    }

    /// The task runs that match, newest first.
    ///
    /// ```
    /// # use orchestrator_core::{Orchestrator, StateType, TaskRunQuery};
    /// # async fn look(orchestrator: Orchestrator) -> Result<(), orchestrator_core::Error> {
    /// let failed = TaskRunQuery::new().name("fetch").state(StateType::Failed).limit(5);
    /// for run in orchestrator.find_task_runs(&failed).await? {
    ///     println!("{}: {}", run.name, run.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn find_task_runs(&self, query: &TaskRunQuery) -> Result<Vec<TaskRun>, Error> {
        let query = query.clone();
        let about = About::TaskRuns(query.flow_run());
        self.ask_about(about, move |backend, inner| backend.find_task_runs(&query, inner.clock.now())).await
    }

    /// How many task runs that belong to a flow run are in each state; states that none is in are left out.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn count_task_runs(&self, flow_run_id: FlowRunId) -> Result<Vec<(StateName, u64)>, Error> {
        let about = About::TaskRuns(Some(flow_run_id));
        self.ask_about(about, move |backend, _| backend.count_task_runs(flow_run_id)).await
    }

    /// How many of the flow runs that belong to a flow run have not ended: subflows that it or its tasks called.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn count_active_subflows(&self, flow_run_id: FlowRunId) -> Result<u64, Error> {
        let active = self.ask_about(About::FlowRuns, move |backend, _| backend.active_subflows(flow_run_id)).await?;
        Ok(active.map_or(0, |(count, _)| count))
    }

    /// The log lines that were stored after the one of that number, each with its number: of a task run its own, of a
    /// flow run those of all runs inside it as well. In the order in which they were stored, at most so many; numbers
    /// begin above 0, so that `logs_after(run, 0, usize::MAX)` gives all.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn logs_after(
        &self,
        run_id: impl Into<RunId>,
        after: u64,
        at_most: usize,
    ) -> Result<Vec<(u64, LogLine)>, Error> {
        let id = run_id.into();
        self.ask(move |backend, _| backend.logs_after(id, after, at_most)).await
    }

    /// The results in the cache that match, newest first.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, Error> {
        let query = query.clone();
        self.ask(move |backend, _| backend.cache_entries(&query)).await
    }

    /// Takes results out of the cache, and says how many there were.
    ///
    /// # Errors
    ///
    /// If the backend cannot be written.
    pub async fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, Error> {
        let keys = keys.to_vec();
        self.ask(move |backend, _| backend.remove_cached(&keys)).await
    }

    /// Takes all results out of the cache, or all of one task, and says how many there were. The task is given by its
    /// key: its function's module path and name.
    ///
    /// # Errors
    ///
    /// If the backend cannot be written.
    pub async fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, Error> {
        let task_key = task_key.map(str::to_owned);
        self.ask(move |backend, _| backend.clear_cache(task_key.as_deref())).await
    }
}
