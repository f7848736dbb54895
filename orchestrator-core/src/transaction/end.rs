//! Commit and rollback of what was staged. Each is carried out by a task of its own, so that it is not cut short when
//! the future that waits for it is dropped.

use std::future::Future;
use std::sync::Arc;

use futures::future::join_all;

use super::error::{RollbackFailure, TransactionError, Why};
use super::{Going, Shared, Staged};
use crate::backend::record::Event;
use crate::engine::panics;
use crate::error::BodyError;
use crate::hook::ResultHook;
use crate::persist;

/// So many large results are put away at the same time.
const AT_A_TIME: usize = 8;

/// Calls the commit hooks, in the order in which the runs completed, and puts the results into the cache; rolls back if a
/// hook fails.
pub(super) async fn commit(going: Going, staged: Vec<Staged>) -> Result<(), TransactionError> {
    let shared = Arc::clone(&going.shared);
    if staged.is_empty() {
        Used::of(&shared).forget();
        return Ok(());
    }
    let hold = going.hold();
    let ended = to_the_end(&shared, async move {
        let mut left = Unfinished { title: going.shared.title(), staged };
        let committed = commit_all(&going.shared, &mut left).await;
        drop((left, going, hold));
        committed
    });
    ended.await.unwrap_or_else(|why| {
        let why = Why::Doomed(format!("{why} while it was committed"));
        Err(TransactionError::new(&shared, why, Vec::new()))
    })
}

/// Calls the rollback hooks, last run first, its hooks last registered first; gives those that failed.
pub(super) async fn roll_back(going: Going, staged: Vec<Staged>) -> Vec<RollbackFailure> {
    let shared = Arc::clone(&going.shared);
    shared.doom_around();
    if staged.is_empty() {
        shared.forget();
        return Vec::new();
    }
    let hold = going.hold();
    let ended = to_the_end(&shared, async move {
        let failures = undo(&going.shared, &mut Unfinished { title: going.shared.title(), staged }).await;
        drop((going, hold));
        failures
    });
    ended.await.unwrap_or_else(|why| {
        vec![RollbackFailure { hook: "on_rollback", run: shared.title().into(), error: Arc::new(BodyError::new(why)) }]
    })
}

/// Rolls back a transaction whose future was dropped.
pub(super) fn abandon(going: Going) {
    going.shared.doom_around();
    let hold = going.hold();
    let left = Abandoned(going);
    let Some(handle) = left.0.shared.handle.clone() else { return };
    handle.spawn(async move {
        let left = left;
        let shared = &left.0.shared;
        let staged = shared.settle(false).await.staged;
        undo(shared, &mut Unfinished { title: shared.title(), staged }).await;
        drop((left, hold));
    });
}

/// The outcome of a task of its own, or why there is none.
async fn to_the_end<R: Send + 'static>(
    shared: &Shared,
    work: impl Future<Output = R> + Send + 'static,
) -> Result<R, &'static str> {
    match &shared.handle {
        Some(handle) => handle.spawn(work).await.map_err(|error| match error.is_panic() {
            true => "the engine panicked",
            false => "the runtime was shut down",
        }),
        None => Ok(work.await),
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
                return Err(undone(shared, left, Why::Commit(failure)).await);
            }
        }
    }
    if let Err(why) = persist_all(shared, &left.staged).await {
        tracing::error!(target: "orchestrator", "committing {}: {why}; it is rolled back", shared.title());
        return Err(undone(shared, left, Why::Unstored(why)).await);
    }
    let mut used = Used::of(shared);
    let staged = std::mem::take(&mut left.staged);
    for staged in staged {
        staged.kept.cache(&staged.run, &staged.result, staged.completed);
        used.finish(staged);
    }
    used.forget();
    stored(shared).await;
    Ok(())
}

/// Rolls back what could not be committed.
async fn undone(shared: &Arc<Shared>, left: &mut Unfinished, why: Why) -> TransactionError {
    // Whoever waits for this may not look at it, or may have gone.
    shared.doom("its commit failed".to_owned());
    shared.doom_around();
    let failures = undo(shared, left).await;
    TransactionError::new(shared, why, failures)
}

/// What keeps the result of a run for its flow run, if that is to be done, or why it cannot be kept.
async fn prepare(staged: &Staged) -> Option<Result<Event, String>> {
    persist::identity(&staged.run)?;
    let event = persist::prepare(&staged.run, staged.kept.codec, &staged.result, staged.completed).await;
    Some(event.map_err(|why| {
        persist::warn(&staged.run, &why);
        format!("the result of {} '{}' was not stored: {why}", staged.run.kind(), staged.run.name())
    }))
}

/// Puts away the results that flow runs keep; when this is ready they are stored. What cannot be is told, and is an error
/// if the orchestrator is strict: then none is kept.
async fn persist_all(shared: &Shared, staged: &[Staged]) -> Result<(), String> {
    let (mut events, mut failed) = (Vec::new(), None);
    for some in staged.chunks(AT_A_TIME) {
        for prepared in join_all(some.iter().map(prepare)).await.into_iter().flatten() {
            match prepared {
                Ok(event) => events.push(event),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
    }
    let strict = shared.orchestrator.strict;
    let objects: Vec<_> = events.iter().filter_map(Event::object).map(str::to_owned).collect();
    let journal = &shared.orchestrator.journal;
    let stored = match failed.filter(|_| strict) {
        Some(why) => Err(why),
        None if events.is_empty() => return Ok(()),
        None => {
            let stored = if journal.is_immediate() {
                shared.orchestrator.backend.append(&events).map_err(|error| error.to_string())
            } else {
                journal.push_awaited(events).await.map_err(|why| why.to_string())
            };
            stored.map_err(|why| format!("results of {} are not persisted: {why}", shared.title()))
        }
    };
    let Err(why) = stored else { return Ok(()) };
    for object in objects {
        shared.orchestrator.results.let_go(&object).await;
    }
    if strict {
        return Err(why);
    }
    tracing::warn!(target: "orchestrator", "{why}");
    Ok(())
}

async fn undo(shared: &Arc<Shared>, left: &mut Unfinished) -> Vec<RollbackFailure> {
    let mut failures = Vec::new();
    let mut used = Used::of(shared);
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
        if let Some(staged) = left.staged.pop() {
            used.finish(staged);
        }
    }
    used.forget();
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

/// The transactions whose values the hooks have seen.
struct Used(Vec<Arc<Shared>>);

impl Used {
    fn of(shared: &Arc<Shared>) -> Self {
        Self(vec![Arc::clone(shared)])
    }

    /// Lets go of a run that is committed or undone; the destructor of its result is code of the user.
    fn finish(&mut self, mut staged: Staged) {
        let known = |within: &Arc<Shared>| self.0.iter().any(|known| Arc::ptr_eq(known, within));
        if let Some(within) = staged.within.take_if(|within| !known(within)) {
            self.0.push(within);
        }
        let name = staged.run.name();
        panics::contain(&format!("the destructor of what '{name}' gave"), || drop(staged));
    }

    /// Lets go of the values, but for those of a block that goes on after a commit by hand.
    fn forget(self) {
        self.0.iter().filter(|shared| !shared.lock().open).for_each(|shared| shared.forget());
    }
}

async fn call(shared: &Arc<Shared>, hook: &ResultHook, staged: &Staged) -> Result<(), RollbackFailure> {
    if let Some(why) = shared.orchestrator.fenced() {
        let error = Arc::new(BodyError::new(format!("is not called: {why}")));
        return Err(RollbackFailure { hook: hook.name(), run: staged.run.name(), error });
    }
    // Its values are those of the transaction that the run was staged in.
    let within = staged.within.as_ref().unwrap_or(shared);
    hook.run(shared.place().in_transaction(Arc::clone(within)), &staged.result)
        .await
        .map_err(|failure| RollbackFailure { hook: hook.name(), run: staged.run.name(), error: Arc::new(failure.0) })
}

/// Outside of any run nobody else waits for what is written at the end of a transaction.
async fn stored(shared: &Shared) {
    if shared.opener.is_none() && shared.around.is_none() {
        shared.orchestrator.journal.committed().await;
    }
}
