//! Commit and rollback of what was staged. Each is carried out by a task of its own, so that it is not cut short when
//! the future that waits for it is dropped.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::error::{RollbackFailure, TransactionError, Why};
use super::{Going, Shared, Staged};
use crate::hook::ResultHook;

/// Calls the commit hooks, in the order in which the runs completed, and puts the results into the cache; rolls back if a
/// hook fails.
pub(super) async fn commit(going: Going, staged: Vec<Staged>) -> Result<(), TransactionError> {
    let shared = Arc::clone(&going.shared);
    if staged.is_empty() {
        return Ok(());
    }
    let ended = to_the_end(&shared, async move {
        let mut left = Unfinished { title: going.shared.title(), staged };
        let committed = commit_all(&going.shared, &mut left).await;
        drop(left);
        drop(going);
        committed
    });
    ended.await.unwrap_or_else(|| {
        let why = Why::Doomed("the runtime was shut down while it was committed".to_owned());
        Err(TransactionError::new(&shared, why, Vec::new()))
    })
}

/// Calls the rollback hooks, last run first, its hooks last registered first; gives those that failed.
pub(super) async fn roll_back(going: Going, staged: Vec<Staged>) -> Vec<RollbackFailure> {
    let shared = Arc::clone(&going.shared);
    shared.doom_around();
    if staged.is_empty() {
        return Vec::new();
    }
    let ended = to_the_end(&shared, async move {
        let failures = undo(&going.shared, &mut Unfinished { title: going.shared.title(), staged }).await;
        drop(going);
        failures
    });
    ended.await.unwrap_or_default()
}

/// Rolls back a transaction whose future was dropped.
pub(super) fn abandon(going: Going) {
    going.shared.doom_around();
    let left = Abandoned(going);
    let Some(handle) = handle(&left.0.shared) else { return };
    handle.spawn(async move {
        let left = left;
        let shared = &left.0.shared;
        let staged = shared.settle(false).await.staged;
        undo(shared, &mut Unfinished { title: shared.title(), staged }).await;
    });
}

/// Where the transaction's hooks are driven.
fn handle(shared: &Shared) -> Option<Handle> {
    match &shared.opener {
        Some((run, _)) => run.scope.handle.clone(),
        None => Handle::try_current().ok(),
    }
}

/// The outcome of a task of its own; `None` if the runtime dropped it.
async fn to_the_end<R: Send + 'static>(shared: &Shared, work: impl Future<Output = R> + Send + 'static) -> Option<R> {
    match handle(shared) {
        Some(handle) => handle.spawn(work).await.ok(),
        None => Some(work.await),
    }
}

async fn commit_all(shared: &Arc<Shared>, left: &mut Unfinished) -> Result<(), TransactionError> {
    for index in 0..left.staged.len() {
        for hook in &left.staged[index].hooks.on_commit {
            if let Err(failure) = call(shared, hook, &left.staged[index]).await {
                tracing::error!(
                    target: "orchestrator",
                    "committing {}: {failure}; it is rolled back",
                    shared.title(),
                );
                shared.doom_around();
                let failures = undo(shared, left).await;
                return Err(TransactionError::new(shared, Why::Commit(failure), failures));
            }
        }
    }
    for staged in left.staged.drain(..) {
        staged.kept.store(&staged.run, &staged.result);
    }
    stored(shared).await;
    Ok(())
}

async fn undo(shared: &Arc<Shared>, left: &mut Unfinished) -> Vec<RollbackFailure> {
    let mut failures = Vec::new();
    while let Some(staged) = left.staged.last() {
        let own = failures.len();
        for hook in staged.hooks.on_rollback.iter().rev() {
            if let Err(failure) = call(shared, hook, staged).await {
                tracing::error!(
                    target: "orchestrator",
                    "rolling back {}: {failure}; the other hooks are called all the same",
                    shared.title(),
                );
                failures.push(failure);
            }
        }
        let said = match &failures[own..] {
            [] => format!("with {}", shared.own_title()),
            [failure, ..] => format!("with {}, incompletely: {failure}", shared.own_title()),
        };
        staged.run.roll_back(said);
        // Not before its hooks are through: what is left when this is dropped is reported.
        drop(left.staged.pop());
    }
    stored(shared).await;
    failures
}

/// A transaction that is rolled back in the background; what is staged is reported if the runtime drops that.
struct Abandoned(Going);

impl Drop for Abandoned {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        drop(Unfinished { title: shared.title(), staged: shared.take_staged() });
    }
}

/// Staged runs that are neither committed nor rolled back.
struct Unfinished {
    title: String,
    staged: Vec<Staged>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        for staged in self.staged.iter().filter(|staged| !staged.hooks.on_rollback.is_empty()) {
            tracing::error!(
                target: "orchestrator",
                "{}: what '{}' did was neither committed nor undone, because the runtime was shut down",
                self.title,
                staged.run.name(),
            );
        }
    }
}

async fn call(shared: &Arc<Shared>, hook: &ResultHook, staged: &Staged) -> Result<(), RollbackFailure> {
    hook.run(shared.place(), &staged.result).await.map_err(|failure| RollbackFailure {
        hook: hook.name(),
        run: staged.run.name(),
        error: Arc::new(failure.0),
    })
}

/// Outside of any run nobody else waits for what is written at the end of a transaction.
async fn stored(shared: &Shared) {
    if shared.opener.is_none() && shared.around.is_none() {
        shared.orchestrator.journal.committed().await;
    }
}
