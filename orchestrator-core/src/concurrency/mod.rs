//! Named limits: so many slots, held by so many runs at a time, or so many a second.
//!
//! A held slot is a value; dropping it gives the slot back, on every path. Waiters are served first come, first
//! served, and all the slots of a request are taken at once or none is. One exception keeps runs from waiting for each
//! other for ever: a run in whose lineage somebody holds slots is served before those that hold none, because its
//! ancestors give theirs back only after it has ended.

mod acquire;
mod deadlock;
mod few;
mod shared;
mod table;

use std::future::{Future, IntoFuture};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use smol_str::SmolStr;

use crate::backend::{BackendError, LimitRecord, LimitSetting, OwnerNo, SlotPlace, SlotStanding};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::explain::{LimitWait, SlotHolder};
use crate::orchestrator::Orchestrator;
use crate::run::Run;
use crate::state::StateType;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use few::Few;
use shared::Desk;
use table::{Grant, Outside, Parts, Standing, Table};
pub(crate) use table::{of_limit, waits_for};

pub(crate) use shared::{Broker, Landing, Store};

pub use acquire::{Acquiring, RateLimited, concurrency, rate_limit};

/// The number of a request, in the order of their arrival.
type Ticket = NonZeroU64;

/// All limits of one orchestrator.
pub(crate) struct Limits {
    shared: Arc<Shared>,
    /// Whether there is any limit by tag, for a look without the lock.
    by_tag: AtomicBool,
    /// Where slots are asked for that processes share.
    broker: Option<Arc<Broker>>,
}

/// The name of a limit by tag begins with this.
const TAG: &str = "tag:";

/// What is said where the name of a limit is empty.
const NAMELESS: &str = "a limit needs a name";

pub(crate) struct Shared {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.shared.lock().list(self.shared.clock.now())).finish()
    }
}

/// The slots that one request asks for: each limit once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants(Few<(SmolStr, u32)>);

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

    /// What is asked for, if it is one limit.
    fn alone(&self) -> Option<(&SmolStr, u32)> {
        if let [(name, slots)] = &self.0[..] { Some((name, *slots)) } else { None }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SmolStr, u32)> {
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
        let shared = Arc::new(Shared { table: Mutex::default(), clock });
        Self { shared, by_tag: AtomicBool::new(false), broker: None }
    }

    /// Limits that are kept in a store, and shared by all who use it.
    pub(crate) fn in_store(store: Store) -> Self {
        let mut limits = Self::new(Arc::clone(&store.clock));
        let desk = Arc::new(Desk::default());
        limits.shared.lock().desk = Some(Arc::clone(&desk));
        limits.broker = Some(Arc::new(Broker::new(desk, store, Arc::clone(&limits.shared))));
        limits
    }

    /// Where claims are asked for that processes share.
    pub(crate) const fn broker(&self) -> Option<&Arc<Broker>> {
        self.broker.as_ref()
    }

    /// Creates or changes a limit.
    async fn set(&self, name: String, setting: LimitSetting) -> Result<(), Error> {
        let now = self.shared.clock.now();
        if let Some(broker) = &self.broker {
            let named = name.clone();
            broker.change(Box::new(move |store| store.set_limit(&named, setting, now))).await?;
            self.look(Vec::new()).await?;
        } else {
            self.shared.settle(|table| table.set(&name, setting, now));
            self.note_tag(&name);
        }
        self.shared.lock().mean(&name);
        Ok(())
    }

    /// Removes a limit; says whether there was one.
    pub(crate) async fn remove(&self, name: String) -> Result<bool, Error> {
        if let Some(broker) = &self.broker {
            let removed = broker.change(Box::new(move |store| store.remove_limit(&name))).await?;
            self.look(Vec::new()).await?;
            return Ok(removed);
        }
        let mut known = false;
        self.shared.settle(|table| {
            known = table.knows(&name);
            table.remove(&name)
        });
        Ok(known)
    }

    /// Creates a limit unless there is one of that name, which stays as it is: somebody may have set it.
    pub(crate) fn declare(&self, name: &str, slots: u32) {
        let now = self.shared.clock.now();
        let setting = LimitSetting { slots, decay: None, active: true };
        let mut stays = None;
        self.shared.settle(|table| match table.note_contradiction(name, slots) {
            Some(contradicted) => {
                stays = table.setting(name).filter(|_| contradicted);
                Outside::default()
            }
            None => table.set(name, setting, now),
        });
        self.note_tag(name);
        if let Some(stays) = stays {
            let change = match self.broker {
                Some(_) => format!("`orchestrator limits set {name} {slots}`"),
                None => format!("`orchestrator.limit(\"{name}\", {slots})`"),
            };
            tracing::warn!(
                target: "orchestrator",
                "limit '{name}' has {} slot{} and keeps them, though a task declares it with `limit = {slots}`: that \
                 counts only where there is no such limit yet. {change} changes it",
                stays.slots,
                if stays.slots == 1 { "" } else { "s" },
            );
        }
    }

    /// Whether the store has to be asked before anything can be said of such a request: by that time others may have
    /// changed the limits.
    pub(crate) fn is_behind(&self, mut names: impl Iterator<Item = (impl AsRef<str>, u32)>, tagged: bool) -> bool {
        let Some(broker) = &self.broker else { return false };
        if tagged && !broker.looked_just_now() {
            return true;
        }
        names.any(|(name, slots)| {
            let fits = |setting: LimitSetting| !setting.active || slots <= setting.slots;
            !broker.has_looked() || !self.shared.lock().setting(name.as_ref()).is_some_and(fits)
        })
    }

    /// Looks at the limits of the store, and creates these unless they are there.
    pub(crate) async fn look(&self, declared: Vec<(SmolStr, u32)>) -> Result<(), Error> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let setting = |slots| LimitSetting { slots, decay: None, active: true };
        broker.look(declared.into_iter().map(|(name, slots)| (name, setting(slots))).collect()).await?;
        self.by_tag.store(self.shared.lock().names().any(|name| name.starts_with(TAG)), Ordering::SeqCst);
        Ok(())
    }

    /// Gives back what is held in the store.
    pub(crate) fn close(&self) {
        if let Some(broker) = &self.broker {
            broker.close();
        }
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

    /// Whether a limit may be named after a tag.
    pub(crate) fn may_be_by_tag(&self) -> bool {
        self.broker.is_some() || self.by_tag.load(Ordering::SeqCst)
    }

    /// Whether what is asked for comes back by time, or is not limited at all. Unknown limits are told of later.
    fn check_rates(&self, wants: &Wants) -> Result<(), Error> {
        let table = self.shared.lock();
        let held = |setting: LimitSetting| setting.active && setting.decay.is_none();
        let wrong = wants.iter().find(|(name, _)| table.setting(name).is_some_and(held));
        wrong.map_or(Ok(()), |(name, _)| {
            Err(refused(format!(
                "limit '{name}' is no rate limit: give it a `slot_decay`, or hold a slot with `concurrency`"
            )))
        })
    }

    /// Serves a request that concerns nobody else, and needs no other look than this; `holder` is the run, for whoever
    /// asks who holds the slots.
    #[inline]
    fn take_alone(
        &self,
        wants: &Wants,
        run: Option<&Arc<Run>>,
        holder: impl FnOnce() -> Option<Weak<Run>>,
    ) -> Option<Parts> {
        let (name, slots) = wants.alone()?;
        let about = self.shared.clock.about_now();
        let part = self.shared.lock().take_alone(name, slots, run, holder, about)?;
        Some(Parts::One(part))
    }

    /// Serves a request, or gives it a place in the queues. It is refused if it could never be served.
    pub(crate) fn acquire(self: &Arc<Self>, wants: &Wants, run: Option<&Arc<Run>>) -> Acquire {
        if let Some(parts) = self.take_alone(wants, run, || run.map(Arc::downgrade)) {
            return Acquire::Held(SlotGuard { limits: Arc::clone(self), parts, ticket: None });
        }
        let now = self.shared.clock.now();
        let mut table = self.shared.lock();
        let wants = match table.check(wants) {
            Ok(wants) => wants,
            Err(said) => return Acquire::Never(refused(said)),
        };
        let class = Table::class(run);
        if table.desk.is_none()
            && let Some((parts, outside)) = table.take_at_once(&wants, run, class, now)
        {
            drop(table);
            outside.settle();
            return Acquire::Held(SlotGuard { limits: Arc::clone(self), parts, ticket: None });
        }
        let ticket = table.enqueue(wants, run, class, now);
        let (looked, outside) = table.look_at(ticket);
        drop(table);
        outside.settle();
        match looked {
            Ok(()) => {
                let (limits, ticket) = (Arc::clone(self), Ticket::new(ticket));
                Acquire::Waiting(Waiting { limits, ticket, timer: None })
            }
            Err(said) => Acquire::Never(refused(said)),
        }
    }

    /// What the run, or its body, waits for.
    pub(crate) fn waits_of(&self, run: &Arc<Run>) -> Vec<LimitWait> {
        let now = self.shared.clock.now();
        let tickets = self.requests_of(run);
        let mut table = self.shared.lock();
        let standings: Vec<_> =
            tickets.into_iter().flat_map(|ticket| table.standings(ticket, usize::MAX, now)).collect();
        drop(table);
        standings.into_iter().map(LimitWait::from).collect()
    }

    /// The limits that such a reason names, each with how many of its slots are waited for.
    pub(crate) fn named_in(&self, reason: &str) -> Vec<(SmolStr, u32)> {
        let table = self.shared.lock();
        table.names().filter_map(|name| Some((name.clone(), waits_for(reason, name)?))).collect()
    }

    /// The requests that a run and its body have made. There may be very many of others.
    fn requests_of(&self, run: &Arc<Run>) -> Vec<u64> {
        // One whose body is not going on has made one at most, and mostly long ago.
        let has_body = run.state().kind == StateType::Running;
        let (mut found, mut after) = (Vec::new(), Some(0));
        while let Some(ticket) = after.filter(|_| has_body || found.is_empty()) {
            after = self.shared.lock().requests_of(run, ticket, &mut found);
            // The lock goes to whoever comes first, which would be this thread again.
            std::thread::yield_now();
        }
        found
    }

    /// The same, with those in other processes.
    pub(crate) async fn all_waits_of(&self, run: &Arc<Run>) -> Result<Vec<LimitWait>, Error> {
        let tickets = self.requests_of(run);
        let mut waits = Vec::new();
        for ticket in tickets {
            waits.extend(self.standings(ticket, usize::MAX).await?);
        }
        Ok(waits)
    }

    /// How a request stands in all processes with each limit that it waits for.
    fn standings(
        &self,
        ticket: u64,
        most_holders: usize,
    ) -> impl Future<Output = Result<Vec<LimitWait>, Error>> + Send + use<> {
        let now = self.shared.clock.now();
        let (broker, shared) = (self.broker.clone(), Arc::clone(&self.shared));
        async move {
            let (standings, place) = {
                let mut table = shared.lock();
                (table.standings(ticket, most_holders, now), table.place(ticket))
            };
            let owner = broker.as_ref().and_then(|broker| broker.owner());
            let (Some(broker), Some(owner), Some((class, since))) = (broker, owner, place) else {
                return Ok(standings.into_iter().map(LimitWait::from).collect());
            };
            let question = move |store: &dyn crate::backend::Shared| {
                let place = SlotPlace { class, since, owner, ticket };
                let ask = |here: Standing| {
                    let Some(there) = store.standing(&here.limit, place, most_holders, now)? else { return Ok(None) };
                    // Those that stand in this process before it have not been asked for yet.
                    let ahead = ahead(store, &here.limit, since, here.ahead + there.ahead, Some(there.kept_back))?;
                    Ok::<_, BackendError>(Some(everywhere(here, there, ahead, owner)))
                };
                standings.into_iter().filter_map(|here| ask(here).transpose()).collect()
            };
            broker.question(Box::new(question)).await
        }
    }

    /// Runs that stood beneath that one do no more, and they or others beneath them may wait for slots.
    pub(crate) fn left(&self, above: &Run) {
        self.shared.lock().recount(above);
    }

    /// Every limit, by name.
    pub(crate) async fn list(&self) -> Result<Vec<Limit>, Error> {
        let now = self.shared.clock.now();
        let Some(broker) = &self.broker else { return Ok(self.shared.lock().list(now)) };
        let records = broker.question(Box::new(move |store| store.limits(now))).await?;
        Ok(records.into_iter().map(Limit::from).collect())
    }
}

/// How many requests are before one that was made at that moment, of which so many are known, and whether that is only
/// about right: of those that owners keep back, so many at most if that is known, the states of their runs tell who waits for
/// longer.
pub(crate) fn ahead(
    store: &dyn crate::backend::Shared,
    limit: &str,
    since: Timestamp,
    known: usize,
    kept_back: Option<usize>,
) -> Result<(usize, bool), BackendError> {
    if kept_back == Some(0) {
        return Ok((known, false));
    }
    let waiting = store.waiting_before(&of_limit(limit), since)?;
    let most = kept_back.map_or(usize::MAX, |kept_back| known.saturating_add(kept_back));
    Ok((waiting.clamp(known, most), true))
}

/// How a request stands in all processes.
fn everywhere(here: Standing, there: SlotStanding, (ahead, is_about): (usize, bool), owner: OwnerNo) -> LimitWait {
    let holders = there.holders.into_iter().map(|lease| {
        let (run_id, name) = lease.run.unzip();
        let process = (lease.owner != owner).then_some(lease.process);
        SlotHolder { run_id, name, slots: lease.slots, since: lease.since.to_datetime(), process }
    });
    LimitWait {
        limit: here.limit.to_string(),
        wanted: here.wanted,
        slots: there.setting.slots,
        taken: there.taken,
        slot_decay: there.setting.decay,
        ahead,
        is_about,
        holders: holders.collect(),
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
        let holder = |(run, slots, since): (Option<Weak<Run>>, u32, Timestamp)| {
            let run = run.and_then(|run| run.upgrade());
            SlotHolder {
                run_id: run.as_ref().map(|run| run.id()),
                name: run.map(|run| run.name().to_string()),
                slots,
                since: since.to_datetime(),
                process: None,
            }
        };
        let holders = holders.into_iter().map(holder).collect();
        Self { limit: limit.to_string(), wanted, slots, taken, slot_decay: decay, ahead, is_about: false, holders }
    }
}

/// A place in the queues of some limits; dropping it leaves them.
pub(crate) struct Waiting {
    limits: Arc<Limits>,
    ticket: Option<Ticket>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Waiting {
    /// What is waited for, in a sentence, and whether one of the limits has no slots at all.
    pub(crate) fn reason(&self) -> (Arc<str>, bool) {
        let ticket = self.ticket.expect("it waits").get();
        let mut table = self.limits.shared.lock();
        (table.reason(ticket), table.is_shut_out(ticket))
    }

    /// How it stands with each limit, as far as this process knows without asking the store.
    fn known_standings(&self) -> Vec<LimitWait> {
        let Some(ticket) = self.ticket else { return Vec::new() };
        let now = self.limits.shared.clock.now();
        let standings = self.limits.shared.lock().standings(ticket.get(), LimitWait::NAMED + 1, now);
        standings.into_iter().map(LimitWait::from).collect()
    }

    /// Ready when it is known whether there is anything to wait for at all: where processes share the limits, the store
    /// has to be asked. Says whether there is.
    pub(crate) fn poll_must_wait(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(ticket) = self.ticket else { return Poll::Ready(false) };
        if self.limits.broker.is_none() {
            return Poll::Ready(true);
        }
        // Wakers are code of others: they are cloned and dropped outside of the lock.
        let waker = cx.waker().clone();
        let mut table = self.limits.shared.lock();
        let before = table.watch(ticket.get(), waker);
        let must_wait = table.must_wait(ticket.get());
        drop(table);
        drop(before);
        must_wait.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Future for Waiting {
    type Output = Result<SlotGuard, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ticket = this.ticket.expect("not polled after it was ready").get();
        // Wakers are code of others: they are cloned and dropped outside of the lock.
        let mut waker = Some(cx.waker().clone());
        loop {
            let shared = &this.limits.shared;
            let now = shared.clock.now();
            let mut table = shared.lock();
            let before = waker.take().and_then(|waker| table.watch(ticket, waker));
            let (grant, outside) = table.serve(ticket, now);
            drop(table);
            drop(before);
            outside.settle();
            match grant {
                Grant::Slots(parts) => {
                    let ticket = this.ticket.take();
                    return Poll::Ready(Ok(SlotGuard { limits: Arc::clone(&this.limits), parts, ticket }));
                }
                Grant::Never(error) => {
                    this.ticket = None;
                    return Poll::Ready(Err(error));
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
            self.limits.shared.settle(|table| table.leave(ticket.get()));
        }
    }
}

/// Slots that are held; dropping the guard gives them back.
///
/// Slots of a limit with decay come back by time instead.
#[must_use = "the slots are given back as soon as the guard is dropped"]
pub struct SlotGuard {
    limits: Arc<Limits>,
    parts: Parts,
    /// Under which number a store has it, if one does.
    ticket: Option<Ticket>,
}

impl SlotGuard {
    /// The names of the limits of which slots are held.
    pub fn limits(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| &*part.name)
    }
}

impl std::fmt::Debug for SlotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SlotGuard").field(&self.limits().collect::<Vec<_>>()).finish()
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let mut table = self.limits.shared.lock();
        if let (Some(desk), Some(ticket)) = (&table.desk, self.ticket) {
            desk.give_back(ticket.get());
        }
        // As a rule it is one limit, and nobody waits.
        if let [part] = &*self.parts {
            let outside = table.release(part);
            drop(table);
            if let Some(outside) = outside {
                outside.settle();
            }
            return;
        }
        let outside: Vec<Outside> = self.parts.iter().filter_map(|part| table.release(part)).collect();
        drop(table);
        outside.into_iter().for_each(Outside::settle);
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
    /// How many slots are taken, by all processes that share the limit; for a limit with decay those that have not come back yet. More than there are, if it
    /// was made smaller or was not active when they were taken.
    pub taken: u32,
    /// How many requests wait, in all processes.
    pub waiting: usize,
    /// How many slots come back each second, if they come back by time.
    pub slot_decay: Option<f64>,
    /// Whether it limits anything: a limit that is not active lets everybody pass.
    pub active: bool,
}

impl From<LimitRecord> for Limit {
    fn from(record: LimitRecord) -> Self {
        let LimitRecord { name, setting: LimitSetting { slots, decay, active }, taken, waiting } = record;
        Self { name, slots, taken, waiting, slot_decay: decay, active }
    }
}

/// Creates or changes a limit when awaited; made by [`Orchestrator::limit`].
#[derive(Debug)]
#[must_use = "a limit is set when this is awaited"]
pub struct SetLimit {
    orchestrator: Orchestrator,
    name: String,
    setting: LimitSetting,
}

impl SetLimit {
    pub(crate) const fn new(orchestrator: Orchestrator, name: String, slots: u32) -> Self {
        Self { orchestrator, name, setting: LimitSetting { slots, decay: None, active: true } }
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
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { orchestrator, name, setting } = self;
        Box::pin(async move {
            match setting.decay {
                _ if name.trim().is_empty() => Err(refused(NAMELESS.to_owned())),
                Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(refused(format!(
                    "the slot decay of limit '{name}' is {rate}: expected the number of slots that come back each second"
                ))),
                _ => orchestrator.inner().limits.set(name, setting).await,
            }
        })
    }
}

/// The shortest wait for a slot to come back by time: the clock counts microseconds.
const TICK: Duration = Duration::from_micros(1);
