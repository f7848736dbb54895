//! Transactions: what the task runs inside them do is committed together, or undone.
//!
//! A run that completes inside a transaction is *staged*: its result stays, its cache entry and its `on_commit` hooks
//! wait for the commit. A rollback calls the `on_rollback` hooks of what was staged, last run first. A transaction lives
//! in the future that runs its block; one that is dropped half-way is rolled back by a task of its own, which the run
//! around it waits for.
//!
//! Modes and order are those of Prefect's transactions.

mod end;
mod error;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::backend::record::CacheKey;
use crate::body::Erased;
use crate::cache::Kept;
use crate::clock::Timestamp;
use crate::context::{self, Place, Placed};
use crate::engine::panics;
use crate::error::{BodyError, Error, FlowError, TaskError, chain};
use crate::hook::ResultHooks;
use crate::id::RunId;
use crate::orchestrator::{Inner, Orchestrator};
use crate::run::{Hold, Run, Stop};

pub use error::TransactionError;
use error::Why;

/// When a transaction commits what was staged in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// At the end of the outermost transaction around it, which is itself if there is none.
    #[default]
    Lazy,
    /// At its own end, whatever becomes of the transaction around it.
    Eager,
    /// Only by hand, with [`Transaction::commit`]: what is staged at its end is rolled back.
    Off,
}

/// Runs a block whose task runs are committed together, or undone.
///
/// The transaction commits when the block has given `Ok` and every run that was submitted in it has ended. It is rolled
/// back if the block gives an error, if a run fails that nobody looked at, if a transaction inside was rolled back, or if
/// this future is dropped; runs that are still going on are cancelled then. A block's own error is returned as it is,
/// unless something went wrong with the rollback as well: then it is made of a [`TransactionError`] that holds both.
///
/// ```
/// use orchestrator_core::{TaskError, transaction};
///
/// # async fn reserve() -> Result<(), TaskError> { Ok(()) }
/// # async fn charge() -> Result<(), TaskError> { Ok(()) }
/// # async fn order() -> Result<(), TaskError> {
/// transaction(async {
///     reserve().await?;
///     charge().await // if this fails, the `on_rollback` hooks of what `reserve` did are called
/// })
/// .await
/// # }
/// ```
///
/// # Errors
///
/// If the transaction was rolled back.
///
/// # Cancel safety
///
/// Dropping the future rolls the transaction back, which the run around it waits for.
pub fn transaction<F, T, E>(block: F) -> impl Future<Output = Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
    E: From<TransactionError> + Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    Transaction::builder().run(block)
}

/// The transaction that the present code is part of.
#[derive(Clone)]
pub struct Transaction {
    shared: Arc<Shared>,
}

impl Transaction {
    /// Starts to make a transaction with options.
    pub fn builder() -> TransactionBuilder {
        TransactionBuilder::default()
    }

    /// The transaction around the present code: the innermost block, or the one that the run was submitted in. In hooks
    /// on commit and rollback, the one that ends.
    #[must_use]
    pub fn current() -> Option<Self> {
        context::with_transaction(|current| current.map(|shared| Self { shared: Arc::clone(shared) }))
    }

    /// The name that was given to it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.shared.name.as_deref()
    }

    /// Puts down a value for what follows in this transaction and in those inside it, not for those around it. A key
    /// holds one value of each type.
    pub fn set<T: Any + Send + Sync>(&self, key: impl Into<String>, value: T) {
        let before = self.shared.lock().values.insert((TypeId::of::<T>(), key.into()), Arc::new(value));
        // The destructor of the value before is not ours: it runs outside of the lock.
        drop(before);
    }

    /// The value of that type under the key, set in this transaction or else in the nearest one around it.
    #[must_use]
    pub fn get<T: Any + Send + Sync + Clone>(&self, key: &str) -> Option<T> {
        let key = (TypeId::of::<T>(), key.to_owned());
        let found = self.shared.and_around().find_map(|shared| shared.lock().values.get(&key).cloned());
        found.and_then(|value| value.downcast_ref::<T>().cloned())
    }

    /// Commits what is staged at this moment, now: it stays whatever follows.
    ///
    /// # Errors
    ///
    /// If a commit hook fails; what was staged is rolled back then.
    pub async fn commit(&self) -> Result<(), TransactionError> {
        let shared = Arc::clone(&self.shared);
        let staged = {
            let mut state = shared.lock();
            // The transaction itself waits for what is committed in it.
            state.inside += 1;
            std::mem::take(&mut state.staged)
        };
        let inside = Some(Inside(Arc::clone(&shared)));
        end::commit(Going { shared, inside }, staged).await
    }

    /// Rolls the transaction back at its end, whatever its block gives.
    pub fn rollback(&self) {
        self.shared.doom("it was rolled back by hand".to_owned());
    }

    /// How many runs are staged.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.shared.lock().staged.len()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("name", &self.shared.name).field("mode", &self.shared.mode).finish()
    }
}

/// Options of a transaction; made by [`Transaction::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a transaction does nothing until its block is run"]
pub struct TransactionBuilder {
    mode: Option<CommitMode>,
    name: Option<String>,
}

impl TransactionBuilder {
    /// When it commits; that of the transaction around it, or else lazy, if not set.
    pub const fn mode(mut self, mode: CommitMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// A name, for log lines and errors.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Runs a block in the transaction; see [`transaction`].
    ///
    /// # Errors
    ///
    /// If the transaction was rolled back.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rolls the transaction back, which the run around it waits for.
    pub fn run<F, T, E>(self, block: F) -> impl Future<Output = Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
        E: From<TransactionError> + Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        // Made part of the present run now, wherever it is polled.
        let place = Place::current();
        async move {
            let open = Open::new(Shared::open(self, &place));
            let shared = Arc::clone(open.shared());
            let outcome = Placed::new(place.in_transaction(Arc::clone(&shared)), block).await;
            let settled = shared.settle(outcome.is_ok()).await;
            open.end(outcome, settled).await
        }
    }
}

/// One transaction, shared by its block, the runs inside it, and the transactions inside it.
pub(crate) struct Shared {
    name: Option<String>,
    mode: CommitMode,
    around: Option<Arc<Self>>,
    /// The run whose body opened it, and the number of its attempt.
    opener: Option<(Arc<Run>, u32)>,
    orchestrator: Arc<Inner>,
    /// The runtime that its hooks are driven on.
    handle: Option<Handle>,
    /// Wakes whoever waits for the runs inside to end.
    idle: Notify,
    state: Mutex<State>,
}

/// Where a transaction stands.
struct State {
    open: bool,
    /// Runs inside that have not ended.
    active: HashMap<RunId, Arc<Run>>,
    /// Transactions inside that have not ended.
    inside: usize,
    /// Runs in whose bodies a transaction inside was rolled back, with the attempt: one that is repeated may mend it.
    suspects: HashMap<RunId, (u32, String)>,
    /// What completed, in that order.
    staged: Vec<Staged>,
    /// Runs that failed and that the opener might look at.
    failures: Vec<Arc<Run>>,
    /// Why it has to be rolled back.
    doomed: Option<String>,
    values: HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>,
}

/// What a transaction comes to when its block and everything inside have ended.
struct Settled {
    staged: Vec<Staged>,
    /// Runs that failed, and that the opener may have looked at.
    failures: Vec<Arc<Run>>,
    doomed: Option<String>,
}

impl Settled {
    /// Why it has to be rolled back though its block gave a value; the failures are told by that from here on.
    fn why(&self) -> Option<Why> {
        let unobserved = self.failures.iter().find(|run| !run.is_observed());
        let error = unobserved.and_then(|run| run.outcome().and_then(|outcome| outcome.as_ref().err().cloned()));
        match error {
            Some(error) => {
                self.failures.iter().for_each(|run| run.observe());
                Some(Why::Unobserved(error))
            }
            None => self.doomed.clone().map(Why::Doomed),
        }
    }
}

/// A run that completed, and what is to be done at its commit or rollback.
pub(crate) struct Staged {
    pub(crate) run: Arc<Run>,
    pub(crate) result: Erased,
    pub(crate) hooks: ResultHooks,
    pub(crate) kept: Kept,
    pub(crate) completed: Timestamp,
    /// The transaction that it was staged in first, whose values its hooks see.
    pub(crate) within: Option<Arc<Shared>>,
}

/// Commits a run that is part of no transaction: it is one by itself.
pub(crate) async fn commit_alone(staged: Staged) -> Result<(), TransactionError> {
    let place = Place::of(Arc::clone(&staged.run), staged.run.run_count());
    let place = Place { transaction: None, ..place };
    let shared = Shared::open(Transaction::builder().name(staged.run.name().as_ref()), &place);
    shared.lock().open = false;
    end::commit(Going { shared, inside: None }, vec![staged]).await
}

impl Shared {
    fn open(options: TransactionBuilder, place: &Place) -> Arc<Self> {
        let around = place.transaction.clone().filter(|around| around.let_in(place.run()));
        let mode = options.mode.or(around.as_ref().map(|around| around.mode)).unwrap_or_default();
        let orchestrator = place.inner().cloned().unwrap_or_else(|| Orchestrator::current().into_inner());
        let opener = place.opener();
        let handle = match &opener {
            Some((run, _)) => run.scope().handle().cloned(),
            None => Handle::try_current().ok(),
        };
        let state = State {
            open: true,
            active: HashMap::new(),
            inside: 0,
            suspects: HashMap::new(),
            staged: Vec::new(),
            failures: Vec::new(),
            doomed: None,
            values: HashMap::new(),
        };
        Arc::new(Self {
            name: options.name,
            mode,
            around,
            opener,
            orchestrator,
            handle,
            idle: Notify::new(),
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This transaction and those around it, innermost first.
    fn and_around(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |shared| shared.around.as_deref())
    }

    /// Whether that run is the opener, or part of it: what was detached is not, and neither is what that calls.
    fn reaches(&self, caller: Option<&Arc<Run>>) -> bool {
        match (&self.opener, caller) {
            (Some((opener, _)), Some(caller)) => caller.lineage().any(|run| Arc::ptr_eq(run, opener)),
            (None, Some(caller)) => caller.lineage().last().is_some_and(|root| !root.is_detached()),
            (opener, None) => opener.is_none(),
        }
    }

    /// Whether that run is inside and has not ended.
    pub(crate) fn holds(&self, run: &Run) -> bool {
        self.lock().active.contains_key(&run.id())
    }

    /// Takes in a transaction, which is counted until its [`Inside`] is dropped; `false` if it is outside.
    fn let_in(&self, caller: Option<&Arc<Run>>) -> bool {
        let reaches = self.reaches(caller);
        let mut state = self.lock();
        let inside = reaches && state.open;
        state.inside += usize::from(inside);
        inside
    }

    /// Takes in a run that is being submitted, unless it is outside.
    pub(crate) fn enter(&self, run: &Arc<Run>) {
        let mut state = self.lock();
        // Under the lock: whoever detaches a run looks for what is beneath it afterwards.
        if state.open && self.reaches(run.parent.as_ref()) {
            state.active.insert(run.id(), Arc::clone(run));
        }
    }

    /// Stages a run that has completed; gives it back if the transaction has ended, or the run was detached.
    pub(crate) fn stage(self: &Arc<Self>, staged: Staged) -> Option<Staged> {
        let mut state = self.lock();
        if !state.open || !state.active.contains_key(&staged.run.id()) {
            return Some(staged);
        }
        state.staged.push(Staged { within: Some(Arc::clone(self)), ..staged });
        None
    }

    /// Lets go of a run that was detached, and of what is beneath it.
    pub(crate) fn let_go(&self, detached: &Arc<Run>) {
        let mut state = self.lock();
        let gone: Vec<_> = state.active.extract_if(|_, run| run.is_part_of(detached)).collect();
        drop(state);
        drop(gone);
        self.idle.notify_waiters();
    }

    /// Lets go of a run that has ended.
    pub(crate) fn leave(&self, run: &Arc<Run>, failed: bool) {
        let mut state = self.lock();
        let Some(own) = state.active.remove(&run.id()) else { return };
        if let Some((attempt, why)) = state.suspects.remove(&run.id())
            && attempt == run.run_count()
        {
            state.doomed.get_or_insert(why);
        }
        let beside = match (&self.opener, &run.parent) {
            (Some((opener, _)), Some(parent)) => Arc::ptr_eq(opener, parent),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if failed && beside && !run.is_discarded() {
            state.failures.push(Arc::clone(run));
        }
        let idle = state.active.is_empty();
        drop(state);
        drop(own);
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// A result that was staged under that key, here or in a transaction around this one, and whose it is.
    pub(crate) fn staged_result(&self, key: &CacheKey) -> Option<(Erased, RunId)> {
        self.and_around().find_map(|shared| {
            let state = shared.lock();
            let same = |staged: &&Staged| staged.kept.cache == Some(*key);
            state.staged.iter().rev().find(same).map(|staged| (Arc::clone(&staged.result), staged.run.id()))
        })
    }

    fn take_staged(&self) -> Vec<Staged> {
        std::mem::take(&mut self.lock().staged)
    }

    fn doom(&self, why: String) {
        self.lock().doomed.get_or_insert(why);
    }

    /// Waits until every run and every transaction inside has ended, and takes in nothing more; runs of a block that
    /// failed are cancelled.
    async fn settle(&self, completed: bool) -> Settled {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            let active: Vec<_> = {
                let mut state = self.lock();
                if state.active.is_empty() && state.inside == 0 {
                    // Under the same lock: whoever comes later is outside.
                    state.open = false;
                    break;
                }
                if completed { Vec::new() } else { state.active.values().cloned().collect() }
            };
            active.iter().for_each(|run| run.cancel(Stop::RolledBack));
            drop(active);
            idle.await;
        }
        let mut state = self.lock();
        let staged = std::mem::take(&mut state.staged);
        let failures = std::mem::take(&mut state.failures);
        Settled { staged, failures, doomed: state.doomed.take() }
    }

    /// Whether the attempt that opened it was given up, which a sync body may notice late.
    fn is_given_up(&self) -> bool {
        let over = |(run, attempt): &(Arc<Run>, u32)| {
            run.is_cancelled() || run.has_ended() || run.is_closed() || run.run_count() != *attempt
        };
        self.opener.as_ref().is_some_and(over)
    }

    /// Lets go of what was put down for the runs inside: it may refer to them, and they to the transaction.
    fn forget(&self) {
        let values = std::mem::take(&mut self.lock().values);
        panics::contain(&format!("a value of {}", self.title()), || drop(values));
    }

    /// A rollback takes the transactions around it along: at once where they were opened in the same body, else when the
    /// attempt of the run in between turns out to be its last.
    fn doom_around(&self) {
        let Some(around) = &self.around else { return };
        let because = self.lock().doomed.clone().map(|why| format!(": {why}")).unwrap_or_default();
        let why = format!("{} inside it was rolled back{because}", self.title());
        match (&self.opener, &around.opener) {
            (Some((run, attempt)), other) if other.as_ref().is_none_or(|(opener, _)| !Arc::ptr_eq(opener, run)) => {
                around.lock().suspects.insert(run.id(), (*attempt, why));
            }
            _ => around.doom(why),
        }
    }

    /// `transaction 'order'`, for sentences.
    fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| "a transaction".to_owned(), |name| format!("transaction '{name}'"))
    }

    /// The same, told of a run inside.
    fn own_title(&self) -> String {
        self.name.as_ref().map_or_else(|| "its transaction".to_owned(), |_| self.title())
    }

    /// Where hooks of this transaction are called: in the run that opened it, unless that is cancelled and could start
    /// nothing more.
    fn place(self: &Arc<Self>) -> Place {
        let place = match &self.opener {
            Some((run, attempt)) if !run.is_cancelled() && !run.has_ended() && run.run_count() == *attempt => {
                Place::of(Arc::clone(run), *attempt)
            }
            _ => Place::under(&self.orchestrator),
        };
        place.in_transaction(Arc::clone(self))
    }
}

/// A transaction whose block is going on; dropped half-way, it is rolled back.
struct Open(Option<Going>);

/// A transaction, and the transaction around it, which waits.
struct Going {
    shared: Arc<Shared>,
    #[expect(dead_code, reason = "held so that the transaction around this one waits")]
    inside: Option<Inside>,
}

impl Going {
    /// Makes the orchestrator, and the run that opened the transaction if one did, wait for its end. Not before its block has
    /// ended: a block that nobody polls any more must keep nobody waiting.
    fn hold(&self) -> Hold {
        match &self.shared.opener {
            Some((run, _)) => Hold::on_run(run),
            None => Hold::on_orchestrator(&self.shared.orchestrator),
        }
    }
}

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        let inside = shared.around.clone().map(Inside);
        Self(Some(Going { shared, inside }))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.as_ref().expect("taken out at the end").shared
    }

    /// Ends the transaction, as its block's outcome, the runs inside and the mode say.
    async fn end<T, E>(mut self, outcome: Result<T, E>, settled: Settled) -> Result<T, E>
    where
        E: From<TransactionError> + Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let going = self.0.take().expect("taken out here alone");
        let shared = Arc::clone(&going.shared);
        let given_up = || Why::Doomed("the attempt that it is part of is over".to_owned());
        let value = match outcome {
            Ok(value) => value,
            Err(error) => {
                if let Some(said) = said(&error) {
                    shared.doom(said);
                }
                let failures = end::roll_back(going, settled.staged).await;
                return Err(if failures.is_empty() {
                    error
                } else {
                    TransactionError::new(&shared, Why::Block(BodyError::new(error)), failures).into()
                });
            }
        };
        let why = settled.why().or_else(|| shared.is_given_up().then(given_up));
        let staged = settled.staged;
        if let Some(why) = why {
            shared.doom(why.to_string());
            let failures = end::roll_back(going, staged).await;
            return Err(TransactionError::new(&shared, why, failures).into());
        }
        match (shared.mode, &shared.around) {
            (CommitMode::Lazy, Some(around)) => {
                if staged.is_empty() {
                    shared.forget();
                }
                around.lock().staged.extend(staged);
            }
            (CommitMode::Lazy, None) | (CommitMode::Eager, _) => end::commit(going, staged).await?,
            (CommitMode::Off, _) if staged.is_empty() => shared.forget(),
            (CommitMode::Off, _) => {
                let failures = end::roll_back(going, staged).await;
                if !failures.is_empty() {
                    let why = Why::Doomed("it was not committed".to_owned());
                    return Err(TransactionError::new(&shared, why, failures).into());
                }
            }
        }
        Ok(value)
    }
}

/// What an error of a type that is known here says.
fn said(error: &dyn Any) -> Option<String> {
    let task = error.downcast_ref::<TaskError>().map(ToString::to_string);
    let flow = || error.downcast_ref::<FlowError>().map(ToString::to_string);
    let own = || error.downcast_ref::<Error>().map(ToString::to_string);
    let text = || error.downcast_ref::<String>().cloned();
    let anyhow = || error.downcast_ref::<anyhow::Error>().map(|error| chain(&**error));
    task.or_else(flow).or_else(own).or_else(text).or_else(anyhow)
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(going) = self.0.take() {
            end::abandon(going);
        }
    }
}

/// A transaction that the one around it has let in.
struct Inside(Arc<Shared>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.idle.notify_waiters();
    }
}
