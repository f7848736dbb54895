//! The thread that takes to the store what runs ask for, and looks what others have changed there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::desk::{self, Desk, Orders};
use super::{LOOK_EVERY, LOOK_FOR_GONE, NEW, shut_down};
use crate::backend::record::CacheKey;
use crate::backend::{
    BackendError, BackendErrorKind, ClaimRequest, Claimed, LimitSetting, OwnerNo, Shared, SlotNews, SlotTrade,
    StateBackend,
};
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::journal::{Settled, TRY_AGAIN};
use crate::keeper::Lookout;

/// What is asked of the store by those who wait for the answer.
pub(in super::super) type Question<T> = Box<dyn FnOnce(&dyn Shared) -> Result<T, BackendError> + Send>;

/// The delay before a store is asked again that another process holds.
const BUSY_AGAIN: Duration = Duration::from_millis(20);

/// How long what could not be given back is kept before that is tried again, if nothing else is to be done.
const GIVE_BACK_AGAIN: Duration = Duration::from_millis(200);

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(1);

/// The store as this orchestrator sees it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) backend: Arc<dyn StateBackend>,
    pub(crate) lookout: Lookout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Settled,
}

impl Store {
    fn shared(&self) -> &dyn Shared {
        self.backend.shared().expect("the store says the same each time")
    }
}

/// Takes orders for the store.
pub(crate) struct Broker {
    pub(in super::super) desk: Arc<Desk>,
    store: Store,
    limits: Arc<super::super::Shared>,
    looked: Arc<Looked>,
    thread: OnceLock<Mutex<Option<JoinHandle<()>>>>,
}

/// When the limits of the store were looked at last.
#[derive(Debug, Default)]
struct Looked(Mutex<Option<Instant>>);

impl Looked {
    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|looked| looked.elapsed())
    }
}

impl Broker {
    pub(in super::super) fn new(desk: Arc<Desk>, store: Store, limits: Arc<super::super::Shared>) -> Self {
        Self { desk, store, limits, looked: Arc::default(), thread: OnceLock::new() }
    }

    /// Starts the thread, unless it is there.
    pub(super) fn start(&self) {
        self.thread.get_or_init(|| {
            let work = Work {
                desk: Arc::clone(&self.desk),
                store: self.store.clone(),
                limits: Arc::clone(&self.limits),
                looked: Arc::clone(&self.looked),
                questions: Vec::new(),
                asked: BTreeMap::new(),
                over: Vec::new(),
                failing: false,
                backlog: HashMap::new(),
                claims_over: Vec::new(),
                landings: HashMap::new(),
                version: None,
                due: None,
                look_every: LOOK_EVERY[0],
                gone: Instant::now(),
                fenced: None,
            };
            let thread = std::thread::Builder::new()
                .name("orchestrator-slots".to_owned())
                .spawn(move || work.run())
                .expect("the system has a thread for the limits that processes share");
            Mutex::new(Some(thread))
        });
    }

    /// Whether nobody has looked at all, or somebody has just now.
    pub(in super::super) fn has_looked(&self) -> bool {
        self.looked.age().is_some()
    }

    pub(in super::super) fn looked_just_now(&self) -> bool {
        self.looked.age().is_some_and(|age| age < NEW)
    }

    /// Looks at the limits of the store, after these have been created that are not there.
    pub(in super::super) fn look(
        &self,
        declared: Vec<(SmolStr, LimitSetting)>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.start();
        self.desk.order(|orders| {
            orders.declared.extend(declared);
            orders.looks.push(answer);
        });
        async { answered.await.unwrap_or_else(|_| Err(shut_down())) }
    }

    /// Asks the store something that can be read there at any time.
    pub(in super::super) fn question<T: Send + 'static>(
        &self,
        question: Question<T>,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T> {
        let (question, answered) = with_answer(question);
        self.start();
        self.desk.order(|orders| orders.questions.push(question));
        answered
    }

    /// Has the store change something, in its turn.
    pub(in super::super) fn change<T: Send + 'static>(
        &self,
        change: Question<T>,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T> {
        let (change, answered) = with_answer(change);
        self.start();
        self.desk.order(|orders| orders.changes.push(change));
        answered
    }

    /// Where the store is.
    pub(in super::super) fn location(&self) -> String {
        self.store.backend.location()
    }

    pub(in super::super) fn owner(&self) -> Option<OwnerNo> {
        self.store.lookout.owner()
    }

    /// Gives back what is on the desk, and ends the thread.
    pub(crate) fn close(&self) {
        self.desk.close();
        let Some(thread) = self.thread.get() else { return };
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The question as it is put on the desk, and its answer.
fn with_answer<T: Send + 'static>(
    question: Question<T>,
) -> (desk::Question, impl Future<Output = Result<T, Error>> + Send + use<T>) {
    let (answer, answered) = oneshot::channel();
    let asked = Box::new(move |store: &dyn Shared| {
        let _ = answer.send(question(store).map_err(Error::from));
    });
    (asked, async { answered.await.unwrap_or_else(|_| Err(shut_down())) })
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close();
    }
}

/// For what an orchestrator is waited that could not be entered in the store yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// For room on the disk, too: nothing can be done before it is entered.
    Needed,
    /// No longer than for one that was: there is a way to go on.
    Wanted,
}

/// So many claims are kept at most that the store may have granted while it failed: all are said again each time. What is more is
/// given back when this process leaves.
const MOST_OVER: usize = 4096;

/// Keeps what could not be given back, and of what may have been granted as much as there is room for.
fn say_again(
    kept: &mut Vec<(CacheKey, u64, u64)>,
    over: Vec<(CacheKey, u64)>,
    granted: impl Iterator<Item = (CacheKey, u64)>,
) {
    let again = |(key, ticket)| (key, ticket, 0);
    kept.extend(over.into_iter().map(again));
    let room = MOST_OVER.saturating_sub(kept.len());
    kept.extend(granted.take(room).map(again));
}

/// What the thread knows.
struct Work {
    desk: Arc<Desk>,
    store: Store,
    limits: Arc<super::super::Shared>,
    looked: Arc<Looked>,
    /// What is to be answered as soon as possible.
    questions: Vec<desk::Question>,
    /// The requests that the store has and has not served, and whether those who made them know that they wait.
    asked: BTreeMap<u64, bool>,
    /// What could not be given back yet.
    over: Vec<u64>,
    /// The store failed the last time that it was called: it is given one try a call, so that nobody waits for it again
    /// and again.
    failing: bool,
    /// What the store was told of the requests that stand in this process.
    backlog: HashMap<SmolStr, usize>,
    claims_over: Vec<(CacheKey, u64, u64)>,
    landings: HashMap<CacheKey, Vec<oneshot::Sender<Result<(), Error>>>>,
    version: Option<u64>,
    /// When slots have come back by time that somebody waits for.
    due: Option<Instant>,
    /// How long to wait before the next look.
    look_every: Duration,
    /// When it was looked last whether those are gone who keep others waiting.
    gone: Instant,
    /// The store takes nothing from this orchestrator any more.
    fenced: Option<Error>,
}

impl Work {
    fn run(mut self) {
        loop {
            let Orders { slots, claims_over, claims, landings, declared, looks, questions, changes, closed, .. } =
                self.desk.take(self.patience());
            let awaited = !landings.is_empty();
            let idle =
                slots.is_empty() && claims.is_empty() && looks.is_empty() && questions.is_empty() && changes.is_empty();
            self.questions = questions;
            // Whoever has just begun to wait, or was served, is likely to be served soon.
            self.look_every = match idle && !awaited && claims_over.is_empty() {
                true => (self.look_every * 9 / 8).min(LOOK_EVERY[1]),
                false => LOOK_EVERY[0],
            };
            self.claims_over.extend(claims_over);
            for (key, answers) in landings {
                self.landings.entry(key).or_default().extend(answers);
            }
            let changed = self.waits() && self.is_changed();
            let declared = self.declare(declared);
            let looked = self.trade(slots, changed || !looks.is_empty());
            for answer in looks {
                let _ = answer.send(declared.clone().and_then(|()| looked.clone()));
            }
            self.claim(claims, closed);
            // One that is over since it was asked for has been a change already.
            if changed || awaited {
                self.land();
            }
            for change in changes {
                change(self.store.shared());
            }
            self.answer();
            if closed && idle {
                self.limits.settle(|table| table.all_failed(&shut_down()));
                return;
            }
        }
    }

    /// Answers whatever is to be read in the store.
    fn answer(&mut self) {
        let questions = std::mem::take(&mut self.questions).into_iter().chain(self.desk.take_questions());
        questions.for_each(|question| question(self.store.shared()));
    }

    /// Waits before the store is asked again. Whoever only wants to read does not wait for that.
    fn pause(&mut self, time: Duration) {
        self.answer();
        std::thread::sleep(time);
    }

    /// Whether somebody waits for what others have.
    fn waits(&self) -> bool {
        !self.asked.is_empty() || !self.landings.is_empty()
    }

    /// How long to wait for orders.
    fn patience(&self) -> Option<Duration> {
        let due = self.due.map(|due| due.saturating_duration_since(Instant::now()).max(SHORTEST));
        // Claims that are over wait for the journal, or for a store that takes them back.
        let settles = !self.claims_over.is_empty() && !self.failing;
        let look = (self.waits() || settles).then_some(self.look_every);
        let again = (!self.over.is_empty() || !self.claims_over.is_empty()).then_some(GIVE_BACK_AGAIN);
        look.or(again).map(|look| due.map_or(look, |due| due.min(look)))
    }

    /// Whether there is something to look at: a change, slots that have come back by time, or somebody who is gone.
    fn is_changed(&mut self) -> bool {
        if self.gone.elapsed() >= LOOK_FOR_GONE {
            self.gone = Instant::now();
            self.store.lookout.look();
            return true;
        }
        // A store that cannot say so is looked at.
        let version = self.store.shared().version().ok();
        let changed = std::mem::replace(&mut self.version, version) != version || version.is_none();
        changed || self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Calls the store, again if that may help, with the time of each try. Nobody is told that another process was in the
    /// way.
    fn call<T>(
        &mut self,
        entry: Entry,
        call: impl Fn(&dyn Shared, OwnerNo, Timestamp) -> Result<T, BackendError>,
    ) -> Result<T, Error> {
        if let Some(error) = &self.fenced {
            return Err(error.clone());
        }
        // What cannot be given back at the end, the orchestrator does not hold any more once it has left.
        let mut delays = if self.failing || self.desk.is_closed() { [].iter() } else { TRY_AGAIN.iter() };
        loop {
            let store = self.store.shared();
            let called = match self.store.lookout.owner() {
                Some(owner) => call(store, owner, self.store.clock.now()),
                None => Err(self.store.lookout.not_entered()),
            };
            let error = match called {
                Ok(done) => {
                    self.failing = false;
                    return Ok(done);
                }
                Err(error) => error,
            };
            let enters = entry == Entry::Needed && self.store.lookout.is_entering();
            if (error.kind() == BackendErrorKind::Busy || enters) && !self.desk.is_closed() {
                // A store need not have waited before it said so.
                self.pause(BUSY_AGAIN);
                continue;
            }
            match delays.next() {
                Some(delay) if error.is_transient() => self.pause(*delay),
                Some(_) | None => {
                    self.failing = true;
                    let fenced = error.kind() == BackendErrorKind::Fenced;
                    let error = Error::from(error);
                    if fenced {
                        self.store.lookout.fence();
                        self.fenced = Some(error.clone());
                    }
                    return Err(error);
                }
            }
        }
    }

    fn declare(&mut self, declared: Vec<(SmolStr, LimitSetting)>) -> Result<(), Error> {
        declared.into_iter().try_for_each(|(name, setting)| {
            self.call(Entry::Needed, |store, _, now| store.declare_limit(&name, setting, now))
        })
    }

    /// Gives back slots and asks for others; looks at least, if that is wanted.
    fn trade(&mut self, mut trade: SlotTrade, look: bool) -> Result<(), Error> {
        trade.over.append(&mut self.over);
        trade.backlog = self.grown_backlog();
        for ticket in &trade.over {
            self.asked.remove(ticket);
        }
        let news = if !trade.is_empty() {
            self.call(Entry::Needed, |store, owner, now| store.trade(owner, &trade, now))
        } else if look {
            let looked = self.call(Entry::Needed, |store, owner, now| store.look(owner, now));
            match looked {
                Ok(SlotNews { due: Some(Duration::ZERO), .. }) => {
                    self.call(Entry::Needed, |store, owner, now| store.trade(owner, &trade, now))
                }
                looked => looked,
            }
        } else {
            return Ok(());
        };
        match news {
            Ok(news) => {
                self.asked.extend(trade.asks.iter().map(|ask| (ask.ticket, false)));
                self.backlog.extend(trade.backlog.into_iter().map(|(name, waiting)| (SmolStr::from(name), waiting)));
                self.tell(&news);
                self.looked.set();
                Ok(())
            }
            Err(error) => {
                let mut failed: Vec<u64> = trade.asks.iter().map(|ask| ask.ticket).collect();
                if self.fenced.is_some() || !trade.is_empty() {
                    // Those who stand in the store's queues may wait for what could not be given back just now.
                    failed.extend(std::mem::take(&mut self.asked).into_keys());
                    self.due = None;
                }
                if self.fenced.is_none() {
                    // They are given back as soon as that is possible.
                    self.over = trade.over;
                }
                self.limits.settle(|table| table.failed(&failed, &error));
                Err(error)
            }
        }
    }

    /// Brings the news to those who wait for them.
    fn tell(&mut self, news: &SlotNews) {
        self.due = news.due.map(|due| Instant::now() + due);
        let waits = |ticket: &u64| news.waiting.binary_search(ticket).is_ok();
        let granted: Vec<u64> = self.asked.keys().copied().filter(|ticket| !waits(ticket)).collect();
        for ticket in &granted {
            self.asked.remove(ticket);
        }
        if !granted.is_empty() {
            self.look_every = LOOK_EVERY[0];
        }
        let untold = |(ticket, told): (&u64, &mut bool)| (!std::mem::replace(told, true)).then_some(*ticket);
        let told: Vec<u64> = self.asked.iter_mut().filter_map(untold).collect();
        let now = self.store.clock.now();
        let (mirrored, granted, told) = {
            let mut table = self.limits.lock();
            (table.mirror(news, now), table.granted(&granted), table.told(&told))
        };
        mirrored.settle();
        granted.settle();
        told.settle();
    }

    /// The numbers of requests that stand in this process which the store does not know.
    fn grown_backlog(&self) -> Vec<(Arc<str>, usize)> {
        let known = |name: &SmolStr| self.backlog.get(name).copied().unwrap_or(0);
        let table = self.limits.lock();
        let grown = table.backlog().filter(|(name, waiting)| known(name) != *waiting);
        grown.map(|(name, waiting)| (Arc::from(name.as_str()), waiting)).collect()
    }

    /// Gives back claims that the journal has settled, and asks for others.
    fn claim(&mut self, claims: Vec<(ClaimRequest, oneshot::Sender<Result<Claimed, Error>>)>, closed: bool) {
        let settled = self.store.journal.settled();
        let over: Vec<(CacheKey, u64)> = self
            .claims_over
            .extract_if(.., |(.., pushed)| *pushed <= settled || closed)
            .map(|(key, ticket, _)| (key, ticket))
            .collect();
        if over.is_empty() && claims.is_empty() {
            return;
        }
        let (asks, answers): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        match self.call(Entry::Wanted, |store, owner, now| store.claim(owner, &over, &asks, now)) {
            Ok(claimed) => answers.into_iter().zip(claimed).for_each(|(answer, claimed)| {
                // Whoever does not wait any more has ordered the end of the claim.
                let _ = answer.send(Ok(claimed));
            }),
            Err(error) => {
                if self.fenced.is_none() {
                    // What the store had granted before it failed is held by nobody.
                    let granted = asks.iter().filter(|_| self.store.lookout.owner().is_some());
                    say_again(&mut self.claims_over, over, granted.map(|ask| (ask.key, ask.ticket)));
                }
                answers.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
            }
        }
    }

    /// Tells those who wait for the claims of others which of them are over.
    fn land(&mut self) {
        self.landings.retain(|_, answers| {
            answers.retain(|answer| !answer.is_closed());
            !answers.is_empty()
        });
        if self.landings.is_empty() {
            return;
        }
        let keys: Vec<CacheKey> = self.landings.keys().copied().collect();
        match self.call(Entry::Wanted, |store, owner, _| store.claimed(owner, &keys)) {
            Ok(claimed) => {
                let over = keys.iter().zip(claimed).filter(|(_, claimed)| !claimed);
                let answers = over.filter_map(|(key, _)| self.landings.remove(key)).flatten();
                answers.for_each(|answer| drop(answer.send(Ok(()))));
            }
            Err(error) => {
                let answers = std::mem::take(&mut self.landings).into_values().flatten();
                answers.for_each(|answer| drop(answer.send(Err(error.clone()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_for_long_is_not_told_of_ever_more_claims() {
        let claim = |ticket| (CacheKey([0; 32]), ticket);
        let mut kept = vec![(CacheKey([1; 32]), 7, 3)];
        for call in 0..5 {
            // All but those whose ends the journal has not stored are said again each time.
            let over = kept.extract_if(.., |(.., pushed)| *pushed == 0).map(|(key, ticket, _)| (key, ticket)).collect();
            say_again(&mut kept, over, (0..3000).map(|ask| claim(call * 3000 + ask)));
        }
        assert_eq!(kept.len(), MOST_OVER);
        let tickets: Vec<_> = kept.iter().map(|(_, ticket, _)| *ticket).collect();
        let first = (0..MOST_OVER as u64 - 1).collect::<Vec<_>>();
        assert_eq!((tickets[0], &tickets[1..]), (7, &first[..]), "what came first is kept");
    }
}
