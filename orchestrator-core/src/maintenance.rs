//! What an orchestrator says and does about its store: sizes, soundness, what may go.

use crate::backend::maintenance::{Compacted, Finding, Maintenance, Removal, Removed, StoreInfo};
use crate::backend::{BackendError, BackendErrorKind};
use crate::error::{Error, ErrorKind};
use crate::id::RunId;
use crate::orchestrator::{Inner, Orchestrator};
use crate::results::{self, ResultsInfo, Sweeper};
use crate::retention::{Retention, upkeep};

impl Orchestrator {
    /// What is in the store, and how large it is.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or keeps nothing beyond this process.
    pub async fn store_info(&self) -> Result<StoreInfo, Error> {
        self.maintain(|store, _| store.info()).await
    }

    /// Looks for anything in the store that is not as it should be; nothing is found in a sound one. It reads all there
    /// is, which takes some seconds for a million runs, and every large result in the result store.
    ///
    /// # Errors
    ///
    /// If the store or the result store cannot be read, or keeps nothing beyond this process.
    pub async fn check_store(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = self.maintain(|store, _| store.check()).await?;
        if findings.is_empty() {
            findings = results::check(&Sweeper::of(self.inner())).await?;
        }
        Ok(findings)
    }

    /// Gives room in the store that is not used back to the system, while others go on using it.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, keeps nothing beyond this process, or can be made smaller only while nobody else
    /// uses it.
    pub async fn compact_store(&self) -> Result<Compacted, Error> {
        self.maintain(|store, _| store.compact()).await
    }

    /// Removes runs with all that they started, and all that is kept of them: every one or, if one cannot be removed,
    /// none. Only root runs can be removed, those that no other run started.
    ///
    /// # Errors
    ///
    /// If one of them is not known, has not ended, or is part of another run; if the store cannot be written, or keeps
    /// nothing beyond this process.
    pub async fn remove_runs<I>(&self, runs: I) -> Result<Removed, Error>
    where
        I: IntoIterator,
        I::Item: Into<RunId>,
    {
        let runs: Vec<RunId> = runs.into_iter().map(Into::into).collect();
        let removal = self.maintain(move |store, _| store.remove(&runs)).await?;
        self.sweep().await;
        match removal {
            Removal::Done(removed) => Ok(removed),
            Removal::Unknown(run) => Err(Error::new(ErrorKind::NotFound(format!("there is no run {run}")))),
            Removal::Active { wanted, run, state } if wanted == run => Err(Error::new(ErrorKind::NotRemovable(
                format!("run {run} cannot be removed, because it has not ended: it is {state}; cancel it first"),
            ))),
            Removal::Active { wanted, run, state } => Err(Error::new(ErrorKind::NotRemovable(format!(
                "run {wanted} cannot be removed, because run {run}, which it started, has not ended: it is {state}"
            )))),
            Removal::Inside { wanted, parent } => Err(Error::new(ErrorKind::NotRemovable(format!(
                "run {wanted} cannot be removed by itself, because it is part of run {parent}; remove the whole"
            )))),
        }
    }

    /// Removes now what a policy does not keep, which is otherwise done in the background. Waits until it is done;
    /// `None` if another process is doing it at the moment.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or keeps nothing beyond this process.
    ///
    /// # Cancel safety
    ///
    /// The removal goes on if the future is dropped.
    pub async fn apply_retention(&self, policy: Retention) -> Result<Option<Removed>, Error> {
        let apply =
            move |store: &dyn Maintenance, inner: &Inner| upkeep::apply(store, &*inner.clock, &policy, |_| false);
        let removed = self.maintain(apply).await?;
        self.sweep().await;
        Ok(removed)
    }

    /// What [`apply_retention`](Self::apply_retention) would remove with that policy; changes nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or keeps nothing beyond this process.
    pub async fn preview_retention(&self, policy: Retention) -> Result<Removed, Error> {
        self.maintain(move |store, inner| store.prunable(&policy, inner.clock.now())).await
    }

    /// How long history is kept, as far as this orchestrator knows: others over the same store may have been told otherwise.
    /// One that only looks applies it at no time by itself.
    pub fn retention(&self) -> Retention {
        self.inner().retention
    }

    /// Where large results are kept, and how many there are.
    ///
    /// # Errors
    ///
    /// If the store of results cannot be read.
    pub async fn results_info(&self) -> Result<ResultsInfo, Error> {
        Ok(self.inner().results.info().await?)
    }

    /// Deletes the objects of results that were removed. What cannot be deleted now is deleted another time.
    async fn sweep(&self) {
        if let Err(error) = Sweeper::of(self.inner()).sweep().await {
            tracing::warn!(target: "orchestrator", "results of runs that were removed are not deleted yet: {error}");
        }
    }

    async fn maintain<R: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Maintenance, &Inner) -> Result<R, BackendError> + Send + 'static,
    ) -> Result<R, Error> {
        self.ask(|backend, inner| match backend.maintenance() {
            Some(store) => work(store, inner),
            None => {
                let doing = format!("look after {}", backend.location());
                Err(BackendError::new(BackendErrorKind::Unavailable, doing).because("it ends with this process"))
            }
        })
        .await
    }
}
