//! Named limits: so many slots, held by so many runs at a time, or so many a second.
//!
//! A held slot is a value; dropping it gives the slot back, on every path. Waiters are served first come, first
//! served, and all the slots of a request are taken at once or none is. One exception keeps runs from waiting for each
//! other for ever: a run in whose lineage somebody holds slots is served before those that hold none, because its
//! ancestors give theirs back only after it has ended.

mod acquire;
mod deadlock;
mod table;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::explain::{LimitWait, SlotHolder};
use crate::orchestrator::Orchestrator;
use crate::run::Run;
use crate::sync::{AtomicBool, AtomicWaker, Mutex, MutexGuard};
use table::{Grant, Outside, Parts, Setting, Standing, Table};

pub use acquire::{Acquiring, RateLimited, concurrency, rate_limit};

/// All limits of one orchestrator.
pub(crate) struct Limits {
    shared: Arc<Shared>,
    /// Whether there is any limit by tag, for a look without the lock.
    by_tag: AtomicBool,
}

/// The name of a limit by tag begins with this.
const TAG: &str = "tag:";

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
        Self { shared: Arc::new(Shared { table: Mutex::default(), clock }), by_tag: AtomicBool::new(false) }
    }

    /// Creates or changes a limit.
    fn set(&self, name: &str, setting: Setting) {
        let now = self.shared.clock.now();
        self.shared.settle(|table| table.set(name, setting, now));
        self.note_tag(name);
    }

    /// Creates a limit unless there is one of that name.
    pub(crate) fn declare(&self, name: &str, slots: u32) {
        let now = self.shared.clock.now();
        let setting = Setting { slots, decay: None, active: true };
        self.shared.settle(|table| if table.knows(name) { Outside::default() } else { table.set(name, setting, now) });
        self.note_tag(name);
    }

    fn note_tag(&self, name: &str) {
        if name.starts_with(TAG) {
            self.by_tag.store(true, Ordering::SeqCst);
        }
    }

    /// Asks for one slot of each limit that is named after one of the tags.
    pub(crate) fn add_tags(&self, tags: &[Box<str>], wants: &mut Wants) {
        if tags.is_empty() || !self.by_tag.load(Ordering::SeqCst) {
            return;
        }
        let table = self.shared.lock();
        for tag in tags {
            let name = format!("{TAG}{tag}");
            if table.knows(&name) {
                wants.add(&name, 1);
            }
        }
    }

    /// Whether such a request can be served at all.
    pub(crate) fn check(&self, wants: &Wants) -> Result<(), Error> {
        if wants.is_empty() { Ok(()) } else { self.shared.lock().check(wants).map_err(refused) }
    }

    /// Whether what is asked for comes back by time, or is not limited at all. Unknown limits are told of later.
    fn check_rates(&self, wants: &Wants) -> Result<(), Error> {
        let table = self.shared.lock();
        let held = |setting: Setting| setting.active && setting.decay.is_none();
        let wrong = wants.iter().find(|(name, _)| table.setting(name).is_some_and(held));
        wrong.map_or(Ok(()), |(name, _)| {
            Err(refused(format!(
                "limit '{name}' is no rate limit: give it a `slot_decay`, or hold a slot with `concurrency`"
            )))
        })
    }

    pub(crate) fn acquire(&self, wants: Wants, run: Option<&Arc<Run>>) -> Acquire {
        let now = self.shared.clock.now();
        let mut table = self.shared.lock();
        if let Err(said) = table.check(&wants) {
            return Acquire::Never(refused(said));
        }
        let class = Table::class(run);
        if let Some((parts, outside)) = table.take_at_once(&wants, run, class, now) {
            drop(table);
            outside.settle();
            return Acquire::Held(SlotGuard { shared: Arc::clone(&self.shared), parts });
        }
        let (ticket, waker) = table.enqueue(wants, run, class);
        let (reason, shut_out) = (table.reason(ticket), table.is_shut_out(ticket));
        let (looked, outside) = table.look_at(ticket);
        drop(table);
        outside.settle();
        match looked {
            Ok(()) => {
                let shared = Arc::clone(&self.shared);
                Acquire::Waiting(Waiting { shared, ticket: Some(ticket), waker, reason, shut_out, timer: None })
            }
            Err(said) => Acquire::Never(refused(said)),
        }
    }

    /// What the run, or its body, waits for.
    pub(crate) fn waits_of(&self, run: &Arc<Run>) -> Vec<LimitWait> {
        let now = self.shared.clock.now();
        let mut table = self.shared.lock();
        let tickets = table.requests_of(run);
        let standings: Vec<_> =
            tickets.into_iter().flat_map(|ticket| table.standings(ticket, usize::MAX, now)).collect();
        drop(table);
        standings.into_iter().map(LimitWait::from).collect()
    }

    /// The run, which may wait for slots, or beneath which others may, is part of nothing any more.
    pub(crate) fn detached(&self, run: &Arc<Run>) {
        self.shared.lock().recount(run);
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

    /// Changes the table, then does what has to be done without its lock.
    fn settle(&self, change: impl FnOnce(&mut Table) -> Outside) {
        let outside = change(&mut self.lock());
        outside.settle();
    }
}

impl From<Standing> for LimitWait {
    /// Takes hold of the holders' runs for a moment: not to be called under a lock.
    fn from(standing: Standing) -> Self {
        let Standing { limit, wanted, slots, taken, decay, ahead, holders } = standing;
        let holder = |(run, slots, since): (Option<Weak<Run>>, u32, crate::clock::Timestamp)| {
            let run = run.and_then(|run| run.upgrade());
            SlotHolder {
                run_id: run.as_ref().map(|run| run.id()),
                name: run.map(|run| run.name().to_string()),
                slots,
                since: since.to_datetime(),
            }
        };
        let holders = holders.into_iter().map(holder).collect();
        Self { limit: limit.to_string(), wanted, slots, taken, slot_decay: decay, ahead, holders }
    }
}

/// A place in the queues of some limits; dropping it leaves them.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    ticket: Option<u64>,
    waker: Arc<AtomicWaker>,
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

    /// How the request stands with each limit that it waits for; names some of the holders.
    fn standings(&self) -> Vec<LimitWait> {
        let Some(ticket) = self.ticket else { return Vec::new() };
        let now = self.shared.clock.now();
        let standings = self.shared.lock().standings(ticket, LimitWait::NAMED + 1, now);
        standings.into_iter().map(LimitWait::from).collect()
    }
}

impl Future for Waiting {
    type Output = Result<SlotGuard, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ticket = this.ticket.expect("not polled after it was ready");
        // Before the table is looked at, so that no wake-up is lost; it clones and drops wakers, which are code of
        // others.
        this.waker.register(cx.waker());
        loop {
            let now = this.shared.clock.now();
            let (grant, outside) = this.shared.lock().serve(ticket, now);
            outside.settle();
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
            self.shared.settle(|table| table.leave(ticket));
        }
    }
}

/// Slots that are held; dropping the guard gives them back.
///
/// Slots of a limit with decay come back by time instead.
#[must_use = "the slots are given back as soon as the guard is dropped"]
pub struct SlotGuard {
    shared: Arc<Shared>,
    parts: Parts,
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
        self.shared.settle(|table| table.release(&self.parts));
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
    /// How many slots are taken; for a limit with decay those that have not come back yet. More than there are, if it
    /// was made smaller or was not active when they were taken.
    pub taken: u32,
    /// How many requests wait.
    pub waiting: usize,
    /// How many slots come back each second, if they come back by time.
    pub slot_decay: Option<f64>,
    /// Whether it limits anything: a limit that is not active lets everybody pass.
    pub active: bool,
}

/// Creates or changes a limit when awaited; made by [`Orchestrator::limit`].
#[derive(Debug)]
#[must_use = "a limit is set when this is awaited"]
pub struct SetLimit {
    orchestrator: Orchestrator,
    name: String,
    setting: Setting,
}

impl SetLimit {
    pub(crate) const fn new(orchestrator: Orchestrator, name: String, slots: u32) -> Self {
        Self { orchestrator, name, setting: Setting { slots, decay: None, active: true } }
    }

    /// Makes it a rate limit: slots come back by time, so many each second, and not when they are given back.
    pub const fn slot_decay(mut self, per_second: f64) -> Self {
        self.setting.decay = Some(per_second);
        self
    }

    /// Makes it a limit that limits nothing until it is set again: everybody passes at once, those who wait already
    /// included. Who holds slots is remembered, and counts again from the moment when the limit is active.
    ///
    /// ```
    /// # use orchestrator_core::{Orchestrator, concurrency};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), orchestrator_core::Error> {
    /// let orchestrator = Orchestrator::in_memory();
    /// orchestrator.limit("db", 1).inactive().await?;
    /// orchestrator
    ///     .scope(async {
    ///         let _first = concurrency("db", 1).await?;
    ///         let _second = concurrency("db", 1).await?; // does not wait for the first
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub const fn inactive(mut self) -> Self {
        self.setting.active = false;
        self
    }
}

impl IntoFuture for SetLimit {
    type Output = Result<(), Error>;
    type IntoFuture = std::future::Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { orchestrator, name, setting } = self;
        std::future::ready(match setting.decay {
            _ if name.is_empty() => Err(refused("a limit needs a name".to_owned())),
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(refused(format!(
                "the slot decay of limit '{name}' is {rate}: expected the number of slots that come back each second"
            ))),
            _ => {
                orchestrator.inner().limits.set(&name, setting);
                Ok(())
            }
        })
    }
}

/// The shortest wait for a slot to come back by time: the clock counts microseconds.
const TICK: Duration = Duration::from_micros(1);
