//! Named limits: so many slots, held by so many runs at a time, or so many a second.
//!
//! A held slot is a value; dropping it gives the slot back, on every path. Waiters are served first come, first
//! served, and all the slots of a request are taken at once or none is. One exception keeps runs from waiting for each
//! other for ever: a run in whose lineage somebody holds slots is served before those that hold none, because its
//! ancestors give theirs back only after it has ended.

mod deadlock;
mod table;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Clock;
use crate::context;
use crate::error::{Error, ErrorKind};
use crate::options::IntoNames;
use crate::orchestrator::Orchestrator;
use crate::run::Run;
use table::{Grant, Table};

/// All limits of one orchestrator.
pub(crate) struct Limits {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// The slots that one request asks for: each limit once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants(SmallVec<[(Arc<str>, u32); 2]>);

impl Wants {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, limit: &str, slots: u32) {
        match self.0.iter_mut().find(|(name, _)| **name == *limit) {
            Some((_, wanted)) => *wanted = (*wanted).max(slots),
            None => self.0.push((limit.into(), slots)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.0.iter().map(|(name, slots)| (name, *slots))
    }
}

/// What became of a request.
pub(crate) enum Acquire {
    Held(SlotGuard),
    Waiting(Waiting),
    /// It could never be served.
    Never(Error),
}

fn refused(said: String) -> Error {
    Error::new(ErrorKind::Limit(said))
}

impl Limits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { table: Mutex::default(), clock }) }
    }

    /// Creates or changes a limit.
    pub(crate) fn set(&self, name: &str, slots: u32, decay: Option<f64>) {
        let now = self.shared.clock.now();
        let woken = self.shared.lock().set(name, slots, decay, now);
        woken.into_iter().for_each(std::task::Waker::wake);
    }

    /// Creates a limit unless there is one of that name.
    pub(crate) fn declare(&self, name: &str, slots: u32) {
        let known = self.shared.lock().knows(name);
        if !known {
            self.set(name, slots, None);
        }
    }

    /// Asks for one slot of each limit that is named after one of the tags.
    pub(crate) fn add_tags(&self, tags: &[Box<str>], wants: &mut Wants) {
        if tags.is_empty() {
            return;
        }
        let table = self.shared.lock();
        for tag in tags {
            let name = format!("tag:{tag}");
            if table.knows(&name) {
                wants.add(&name, 1);
            }
        }
    }

    /// Whether such a request can be served at all.
    pub(crate) fn check(&self, wants: &Wants) -> Result<(), Error> {
        if wants.is_empty() { Ok(()) } else { self.shared.lock().check(wants).map_err(refused) }
    }

    pub(crate) fn acquire(&self, wants: Wants, run: Option<&Arc<Run>>) -> Acquire {
        let now = self.shared.clock.now();
        let mut table = self.shared.lock();
        if let Err(said) = table.check(&wants) {
            return Acquire::Never(refused(said));
        }
        let nested = run.is_some_and(Table::holds_above);
        if let Some(parts) = table.take_at_once(&wants, run, nested, now) {
            return Acquire::Held(SlotGuard { shared: Arc::clone(&self.shared), parts });
        }
        let ticket = table.enqueue(wants, run, nested);
        if nested && let Some(said) = deadlock::explain(&table, ticket) {
            let woken = table.leave(ticket);
            drop(table);
            woken.into_iter().for_each(std::task::Waker::wake);
            return Acquire::Never(refused(said));
        }
        let reason = table.reason(ticket);
        let shut_out = table.is_shut_out(ticket);
        drop(table);
        let shared = Arc::clone(&self.shared);
        Acquire::Waiting(Waiting { shared, ticket: Some(ticket), reason, shut_out, timer: None })
    }

    /// Every limit, by name.
    pub(crate) fn list(&self) -> Vec<Limit> {
        let now = self.shared.clock.now();
        self.shared.lock().list(now)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queues of some limits; dropping it leaves them.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    ticket: Option<u64>,
    reason: String,
    shut_out: bool,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Waiting {
    /// Whether a limit that is asked for has no slots at all.
    pub(crate) const fn is_shut_out(&self) -> bool {
        self.shut_out
    }

    /// What is waited for, in a sentence.
    pub(crate) fn reason(&self) -> String {
        self.reason.clone()
    }
}

impl Future for Waiting {
    type Output = Result<SlotGuard, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ticket = this.ticket.expect("not polled after it was ready");
        loop {
            let now = this.shared.clock.now();
            let (grant, woken) = this.shared.lock().serve(ticket, cx.waker(), now);
            woken.into_iter().for_each(std::task::Waker::wake);
            match grant {
                Grant::Slots(parts) => {
                    this.ticket = None;
                    return Poll::Ready(Ok(SlotGuard { shared: Arc::clone(&this.shared), parts }));
                }
                Grant::Never(said) => {
                    this.ticket = None;
                    return Poll::Ready(Err(refused(said)));
                }
                Grant::Wait => {
                    this.timer = None;
                    return Poll::Pending;
                }
                Grant::Until(delay) => {
                    let timer = this.timer.insert(Box::pin(tokio::time::sleep(delay)));
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let woken = self.shared.lock().leave(ticket);
            woken.into_iter().for_each(std::task::Waker::wake);
        }
    }
}

/// Slots that are held; dropping the guard gives them back.
///
/// Slots of a limit with decay come back by time instead.
#[must_use = "the slots are given back as soon as the guard is dropped"]
pub struct SlotGuard {
    shared: Arc<Shared>,
    parts: SmallVec<[(Arc<str>, usize); 2]>,
}

impl SlotGuard {
    /// The names of the limits of which slots are held.
    pub fn limits(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(name, _)| &**name)
    }
}

impl std::fmt::Debug for SlotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SlotGuard").field(&self.limits().collect::<Vec<_>>()).finish()
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let (woken, released) = self.shared.lock().release(&self.parts);
        woken.into_iter().for_each(std::task::Waker::wake);
        // The runs of the holders are let go outside of the lock.
        drop(released);
    }
}

/// A limit as it is now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// How many slots it has.
    pub slots: u32,
    /// How many slots are taken; for a limit with decay those that have not come back yet.
    pub taken: u32,
    /// How many requests wait.
    pub waiting: usize,
    /// How many slots come back each second, if they come back by time.
    pub slot_decay: Option<f64>,
}

/// Creates or changes a limit when awaited; made by [`Orchestrator::limit`].
#[derive(Debug)]
#[must_use = "a limit is set when this is awaited"]
pub struct SetLimit {
    pub(crate) orchestrator: Orchestrator,
    pub(crate) name: String,
    pub(crate) slots: u32,
    pub(crate) decay: Option<f64>,
}

impl SetLimit {
    /// Makes it a rate limit: slots come back by time, so many each second, and not when they are given back.
    pub const fn slot_decay(mut self, per_second: f64) -> Self {
        self.decay = Some(per_second);
        self
    }
}

impl IntoFuture for SetLimit {
    type Output = Result<(), Error>;
    type IntoFuture = std::future::Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { orchestrator, name, slots, decay } = self;
        std::future::ready(match decay {
            _ if name.is_empty() => Err(refused("a limit needs a name".to_owned())),
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(refused(format!(
                "the slot decay of limit '{name}' is {rate}: expected the number of slots that come back each second"
            ))),
            decay => {
                orchestrator.inner().limits.set(&name, slots, decay);
                Ok(())
            }
        })
    }
}

/// Takes slots for a part of a body, or anywhere under an orchestrator: waits until `slots` slots of the limit are
/// free, and holds them until the guard is dropped.
///
/// # Errors
///
/// If there is no limit of that name, if it has fewer slots, or if a run that waits for this one holds them.
///
/// # Cancel safety
///
/// Dropping the future leaves the queue; nothing is held.
pub async fn concurrency<S: Into<String>>(limits: impl IntoNames<S>, slots: u32) -> Result<SlotGuard, Error> {
    let mut wants = Wants::new();
    for name in limits.into_names() {
        wants.add(&name.into(), slots);
    }
    acquire(wants).await
}

/// Waits for one slot of a limit with decay, and takes it; it comes back by time.
///
/// # Errors
///
/// If there is no limit of that name, or if it has no decay.
///
/// # Cancel safety
///
/// Dropping the future leaves the queue; nothing is taken.
pub async fn rate_limit(limit: impl AsRef<str>) -> Result<(), Error> {
    let name = limit.as_ref();
    let orchestrator = Orchestrator::current();
    let known = orchestrator.inner().limits.list().into_iter().find(|limit| limit.name == name);
    if known.is_some_and(|limit| limit.slot_decay.is_none()) {
        return Err(refused(format!(
            "limit '{name}' is no rate limit: give it a `slot_decay`, or hold a slot with `concurrency`"
        )));
    }
    let mut wants = Wants::new();
    wants.add(name, 1);
    acquire(wants).await.map(drop)
}

async fn acquire(wants: Wants) -> Result<SlotGuard, Error> {
    let orchestrator = Orchestrator::current();
    let run = context::with_run(|run| run.cloned());
    match orchestrator.inner().limits.acquire(wants, run.as_ref()) {
        Acquire::Held(guard) => Ok(guard),
        Acquire::Never(error) => Err(error),
        Acquire::Waiting(waiting) => waiting.await,
    }
}

/// The shortest wait for a slot to come back by time: the clock counts microseconds.
const TICK: Duration = Duration::from_micros(1);
