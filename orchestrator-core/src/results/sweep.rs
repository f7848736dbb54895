//! Deletes objects that are of no use: those whose records were deleted, and those that never got one because a process
//! went away in between.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Doing, Results};
use crate::backend::maintenance::Finding;
use crate::backend::record::{Interrupted, StoredResult};
use crate::backend::{BackendError, BackendErrorKind, StateBackend};
use crate::clock::Timestamp;
use crate::id::TaskRunId;
use crate::orchestrator::Inner;
use crate::state::StateType;

/// So many objects or flow runs are asked for at a time.
const AT_A_TIME: usize = 256;
/// So many objects are used at the same time.
const ABREAST: usize = 8;

/// What is needed to delete objects.
#[derive(Debug, Clone)]
pub(crate) struct Sweeper {
    pub(crate) backend: Arc<dyn StateBackend>,
    pub(crate) results: Arc<Results>,
    /// Where the orchestrator was made; `None`: outside of any runtime.
    pub(crate) runtime: Option<Handle>,
}

impl Sweeper {
    pub(crate) fn of(orchestrator: &Inner) -> Self {
        let (backend, results) = (Arc::clone(&orchestrator.backend), Arc::clone(&orchestrator.results));
        Self { backend, results, runtime: Handle::try_current().ok() }
    }

    /// Deletes all objects of no use, in the background; says at the end whether it could.
    pub(crate) fn start(&self) -> Option<JoinHandle<bool>> {
        let sweeper = self.clone();
        Some(self.runtime.as_ref()?.spawn(async move {
            let swept = async {
                sweeper.sweep().await?;
                sweeper.sweep_interrupted().await
            };
            let swept = swept.await;
            // A runtime that is shut down calls nothing more: the next program does it.
            let is_shut_down = async { tokio::task::spawn_blocking(|| ()).await.is_err() };
            if let Err(error) = &swept
                && !is_shut_down.await
            {
                tracing::warn!(target: "orchestrator", "results that are of no use are not deleted yet: {error}");
            }
            swept.is_ok()
        }))
    }

    /// Whether there may be anything to do. Blocks.
    pub(crate) fn is_needed(&self) -> Result<bool, BackendError> {
        let unreferenced = self.backend.unreferenced_objects(&self.results.location, 1)?;
        Ok(!unreferenced.is_empty() || !self.backend.interrupted(1)?.is_empty())
    }

    /// Deletes the objects whose records were deleted; gives their number.
    pub(crate) async fn sweep(&self) -> Result<usize, BackendError> {
        let mut swept = 0;
        loop {
            let location = Arc::clone(&self.results.location);
            let names = self.ask(move |backend| backend.unreferenced_objects(&location, AT_A_TIME)).await?;
            if names.is_empty() {
                return Ok(swept);
            }
            self.delete(&names).await?;
            swept += names.len();
            let location = Arc::clone(&self.results.location);
            self.ask(move |backend| backend.objects_deleted(&location, &names)).await?;
        }
    }

    /// Deletes the objects of flow runs that crashed before there was a record of them.
    pub(crate) async fn sweep_interrupted(&self) -> Result<(), BackendError> {
        loop {
            let runs = self.ask(|backend| backend.interrupted(AT_A_TIME)).await?;
            if runs.is_empty() {
                return Ok(());
            }
            for run in &runs {
                self.sweep_run(*run).await?;
            }
            self.ask(move |backend| backend.swept(&runs)).await?;
        }
    }

    async fn sweep_run(&self, Interrupted { run, at }: Interrupted) -> Result<(), BackendError> {
        let folder = run.to_string();
        let names = self.results.contained(|store| store.list(&folder)).await?;
        let of_runs = names.into_iter().filter_map(|name| Some((task_run(&folder, &name)?, name)));
        let mut found: Vec<(TaskRunId, String)> = of_runs.collect();
        if found.is_empty() {
            return Ok(());
        }
        let useless = self.ask(move |backend| {
            let known: HashSet<String> = backend.objects_of(run)?.into_iter().collect();
            // A run gives one result.
            let mut at_work: HashMap<TaskRunId, bool> =
                known.iter().filter_map(|name| Some((task_run(&folder, name)?, false))).collect();
            found.retain(|(_, name)| !known.contains(name));
            for (task, _) in &found {
                if let Entry::Vacant(unknown) = at_work.entry(*task) {
                    unknown.insert(is_at_work(backend, *task, at)?);
                }
            }
            found.retain(|(task, _)| !at_work[task]);
            Ok(found)
        });
        let names: Vec<String> = useless.await?.into_iter().map(|(_, name)| name).collect();
        self.delete(&names).await
    }

    async fn delete(&self, names: &[String]) -> Result<(), BackendError> {
        for some in names.chunks(ABREAST) {
            let deletions: Vec<Doing<'_, ()>> = some.iter().map(|name| self.delete_one(name)).collect();
            join_all(deletions).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    fn delete_one<'a>(&'a self, name: &'a str) -> Doing<'a, ()> {
        Box::pin(self.results.contained(move |store| store.delete(name)))
    }

    fn check_one(&self, StoredResult { run, value }: StoredResult) -> Doing<'_, Option<Finding>> {
        Box::pin(async move {
            let elsewhere = self.results.is_elsewhere(&value);
            match self.results.check(value).await {
                Ok(()) => Ok(None),
                Err(error) if elsewhere || error.kind() == BackendErrorKind::Damaged => {
                    Ok(Some(Finding::of(run.into(), format!("its persisted result is of no use: {error}"))))
                }
                Err(error) => Err(error),
            }
        })
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn StateBackend) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        if self.backend.in_process() {
            return question(&*self.backend);
        }
        let backend = Arc::clone(&self.backend);
        let answer = tokio::task::spawn_blocking(move || question(&*backend)).await;
        let gone = |_| Err(BackendError::new(BackendErrorKind::Other, "ask the database: the runtime was shut down"));
        answer.unwrap_or_else(gone)
    }
}

/// The task run whose result an object is, going by its name.
fn task_run(folder: &str, name: &str) -> Option<TaskRunId> {
    const UUID: usize = 36;
    name.strip_prefix(folder)?.strip_prefix('/')?.get(..UUID)?.parse().ok()
}

/// Whether somebody may be about to store the result of a task run of a flow run that crashed at `crash`. That is told by
/// the store: a run is there before its object is. Clocks, which may be put back, have a say only where it knows nothing.
fn is_at_work(backend: &dyn StateBackend, task: TaskRunId, crash: Timestamp) -> Result<bool, BackendError> {
    let owner = match backend.shared() {
        Some(shared) => shared.owner_of(task.into())?,
        None => None,
    };
    let Some(owner) = owner else {
        return Ok(submitted(task).is_none_or(|millis| millis > i128::from(crash.as_micros() / 1000)));
    };
    if owner.ended.is_some() {
        return Ok(false);
    }
    // In a transaction a run completes before its result is stored.
    let run = backend.task_run(task)?;
    Ok(run.is_none_or(|run| !run.state.is_terminal() || run.state.kind == StateType::Completed))
}

/// When a task run was submitted, in milliseconds, going by its id.
fn submitted(task: TaskRunId) -> Option<i128> {
    let (seconds, nanoseconds) = task.as_uuid().get_timestamp()?.to_unix();
    Some(i128::from(seconds) * 1000 + i128::from(nanoseconds / 1_000_000))
}

/// What is wrong with the objects that results refer to.
pub(crate) async fn check(sweeper: &Sweeper) -> Result<Vec<Finding>, BackendError> {
    let mut findings = Vec::new();
    let mut checked = 0;
    loop {
        let objects = sweeper.ask(move |backend| backend.objects(checked, AT_A_TIME)).await?;
        if objects.is_empty() {
            return Ok(findings);
        }
        checked += objects.len();
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            let checks: Vec<_> = objects.by_ref().take(ABREAST).map(|object| sweeper.check_one(object)).collect();
            for finding in join_all(checks).await {
                findings.extend(finding?);
            }
        }
    }
}
