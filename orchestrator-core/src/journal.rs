//! The journal: takes events from runs without making them wait, and gives them to the backend in batches.
//!
//! A backend that lives in the process is given its events in place; any other one has a thread of its own here,
//! which is the only one that writes: while a batch is stored, the next one gathers (group commit).

use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

use crate::backend::record::{CachedValue, Event};
use crate::backend::{BackendError, BackendErrorKind, RecentRuns, StateBackend};
use crate::cache::Fresh;
use crate::engine::panics;
use crate::keeper::Membership;
use crate::observe::Observer;
use crate::run::Run;
use crate::terminal::short;

/// Bytes of events that may wait for the backend before runs that have not begun wait for room.
const HIGH_WATER: usize = 8 << 20;
/// What a run that waits to be stored is counted as, and what any other event is apart from what belongs to it.
const WEIGHT: (usize, usize) = (512, 128);
/// Events that make a batch worth storing in a backend in the process: it stays in the processor's cache until then.
const BATCH_IN_PLACE: usize = 1024;
/// Events that may wait for such a backend before whoever pushes waits for those who store.
const MOST_IN_PLACE: usize = 1 << 16;
/// So many events of flow runs that were lost are given to the backend again with the next batch.
const MOST_AGAIN: usize = 1024;
/// Events that make a batch worth storing at once.
const BATCH: usize = 4096;
/// How long a smaller batch gathers.
const LINGER: Duration = Duration::from_millis(4);
/// Delays before the backend is given again what it could not take.
pub(crate) const TRY_AGAIN: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
/// The delay before a batch is given again to a store that another process holds.
const LOCKED_AGAIN: Duration = Duration::from_millis(20);
/// How long another process may hold the store before that is told.
const LOCKED_LONG: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    /// Whether the backend lives in the process.
    is_immediate: bool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    backend: Arc<dyn StateBackend>,
    /// Where most task runs are put down in place of events, if the backend has that.
    recent: Option<Arc<RecentRuns>>,
    /// In whose name the backend is given events, if others use it too.
    membership: Option<Arc<Membership>>,
    observers: Vec<Arc<dyn Observer>>,
    /// Told of what is settled.
    fresh: Arc<Fresh>,
    queue: Mutex<Queue>,
    /// What was lost of flow runs. It is part of the next batch: where it still cannot be stored, neither is what belongs to
    /// them, so that no store has the runs of a flow run without that one.
    again: Mutex<Vec<Event>>,
    /// The room of the batch that was stored last, for the next one.
    spare: Mutex<Vec<Event>>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for events to be settled.
    done: Condvar,
    /// Held while a batch is stored, so that batches keep their order.
    storing: Mutex<()>,
    /// Bytes of the events in the queue, for a look without the lock.
    weight: AtomicUsize,
    room: Notify,
    /// Number of the last event that the backend has, or that was given up.
    settled: Settled,
    lost: AtomicU64,
    /// Whether the last batch was lost.
    failing: AtomicBool,
    /// Nothing is taken any more: for a look without the lock of the queue.
    closed: AtomicBool,
    /// The orchestrator ends: a store that others hold is not waited for any longer than one that fails.
    ending: AtomicBool,
    /// From then on it is not waited for at all: the program was told to end.
    until: Mutex<Option<Instant>>,
    /// Why events were lost first.
    loss: OnceLock<String>,
}

/// How far the backend is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled(Arc<AtomicU64>);

impl Settled {
    /// The number of the last event that the backend has, or that was given up.
    pub(crate) fn settled(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Queue {
    events: Vec<Event>,
    /// Runs that nothing was told of yet: of one that has ended before anybody looks, one event tells all.
    untold_runs: Vec<Weak<Run>>,
    /// How many events were pushed before the first of them.
    before_untold_runs: u64,
    /// How many bytes they are, about.
    weight: usize,
    /// Number of the last event that was pushed.
    pushed: u64,
    sleeping: bool,
    /// Somebody waits for the events up to that number.
    urgent: u64,
    /// What runs that wait for some of these events are told by.
    awaited: Arc<Fate>,
    /// How many of them there are.
    waiting: usize,
    /// A blocking task sees to it that a paused clock does not move on while runs wait.
    held: bool,
    closed: bool,
    /// The writer has ended.
    finished: bool,
}

impl Queue {
    /// Whether there is nothing to store, and nobody who waits for that.
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.untold_runs.is_empty() && self.waiting == 0
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("backend", &self.backend).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    pub(crate) fn new(
        backend: Arc<dyn StateBackend>,
        membership: Option<Arc<Membership>>,
        observers: Vec<Arc<dyn Observer>>,
        fresh: Arc<Fresh>,
    ) -> Self {
        let in_process = backend.in_process();
        let shared = Arc::new(Shared {
            recent: backend.recent_runs(),
            backend,
            membership,
            observers,
            fresh,
            queue: Mutex::default(),
            again: Mutex::default(),
            spare: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            storing: Mutex::default(),
            weight: AtomicUsize::new(0),
            room: Notify::new(),
            settled: Settled::default(),
            lost: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            until: Mutex::default(),
            loss: OnceLock::new(),
        });
        let writer = (!in_process).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("orchestrator-journal".to_owned())
                .spawn(move || shared.write())
                .expect("the system has a thread for the journal")
        });
        Self { shared, is_immediate: in_process, writer: Mutex::new(writer) }
    }

    /// Whether events are with the backend as soon as anybody can ask for them.
    pub(crate) const fn is_immediate(&self) -> bool {
        self.is_immediate
    }

    /// Takes an event; never waits for the backend.
    pub(crate) fn push(&self, event: Event) {
        self.enqueue(event).see_to_it(self);
    }

    /// Where task runs are put down in place of events, if the backend has that.
    #[inline]
    pub(crate) fn recent_runs(&self) -> Option<&RecentRuns> {
        // What comes after a shutdown is told to its caller alone.
        self.shared.recent.as_deref().filter(|_| !self.shared.closed.load(Ordering::Relaxed))
    }

    /// Takes an event. What is to be done then may be code of others, for which no lock is held.
    #[inline]
    pub(crate) fn enqueue(&self, event: Event) -> Enqueued {
        let shared = &*self.shared;
        let mut queue = lock(&shared.queue);
        // What comes after a shutdown, such as the refusal of a run, is told to its caller alone.
        if queue.closed {
            return Enqueued::NOTHING;
        }
        queue.weight += weight(&event);
        queue.events.push(event);
        queue.pushed += 1;
        let length = queue.events.len();
        let wake = queue.sleeping && (length == 1 || length >= BATCH);
        shared.weight.store(queue.weight, Ordering::Relaxed);
        Enqueued { length, wake }
    }

    /// Takes events that a run waits for: the backend takes them all at once, or loses them. The writer does not let
    /// them linger; those that come while it writes are the next batch. Without any, it is those before that are waited for.
    pub(crate) fn push_awaited(&self, events: impl IntoIterator<Item = Event>) -> Awaited {
        self.enqueue_awaited(events).see_to_it(self)
    }

    /// The same, for those who hold a lock.
    pub(crate) fn enqueue_awaited(&self, events: impl IntoIterator<Item = Event>) -> EnqueuedAwaited {
        let shared = &self.shared;
        let mut queue = lock(&shared.queue);
        if queue.closed {
            drop(queue);
            let fate = Arc::<Fate>::default();
            fate.settle(Err("the orchestrator was shut down".into()));
            return EnqueuedAwaited { fate, wake: false, runtime: None };
        }
        let before = queue.events.len();
        queue.events.extend(events);
        let length = queue.events.len();
        queue.weight += queue.events[before..].iter().map(weight).sum::<usize>();
        queue.pushed += (length - before) as u64;
        let fate = Arc::clone(&queue.awaited);
        queue.waiting += 1;
        let wake = queue.sleeping && (queue.waiting == 1 || length >= BATCH);
        shared.weight.store(queue.weight, Ordering::Relaxed);
        // Only a runtime of one thread can have a paused clock, which stands still while a blocking task is active.
        let runtime = Handle::try_current().ok().filter(|_| !queue.held);
        let runtime = runtime.filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
        queue.held |= runtime.is_some();
        EnqueuedAwaited { fate, wake, runtime }
    }

    /// Takes a run of which nothing was told, whose states are to be known when the next batch is stored.
    pub(crate) fn push_untold(&self, run: &Arc<Run>) {
        let shared = &*self.shared;
        let mut queue = lock(&shared.queue);
        if queue.closed {
            return;
        }
        if queue.untold_runs.is_empty() {
            queue.before_untold_runs = queue.pushed;
        }
        queue.untold_runs.push(Arc::downgrade(run));
        queue.weight += WEIGHT.0;
        queue.pushed += 1;
        let wake = queue.sleeping && queue.events.is_empty() && queue.untold_runs.len() == 1;
        shared.weight.store(queue.weight, Ordering::Relaxed);
        drop(queue);
        if wake {
            shared.work.notify_one();
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        // In place, whoever pushes stores: nobody has to be waited for.
        self.shared.weight.load(Ordering::Relaxed) < HIGH_WATER || self.is_immediate()
    }

    /// Ready when the backend has taken what waited for it.
    pub(crate) async fn room(&self) {
        loop {
            let notified = self.shared.room.notified();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until the backend has every event pushed so far, or has lost it.
    pub(crate) async fn committed(&self) {
        if self.is_immediate() {
            self.shared.store_all();
            return;
        }
        let shared = Arc::clone(&self.shared);
        // While a blocking task is active, a paused clock does not move on by itself.
        let _ = tokio::task::spawn_blocking(move || shared.wait_for_all()).await;
    }

    /// [`committed`](Self::committed), for threads that may block.
    pub(crate) fn commit(&self) {
        if self.is_immediate() {
            self.shared.store_all();
        } else {
            self.shared.wait_for_all();
        }
    }

    /// Sees to it that the backend has every event pushed so far before the runtime has ended, and the process may have. It
    /// keeps none of the runtime's workers waiting, unless these are being shut down.
    pub(crate) fn see_to_all(&self) {
        if self.is_immediate() {
            self.shared.store_all();
            return;
        }
        // What the writer lets go of may hold the last of an orchestrator: what is left is stored by it all the same.
        let is_writer = |writer: &JoinHandle<()>| writer.thread().id() == std::thread::current().id();
        if lock(&self.writer).as_ref().is_some_and(is_writer) {
            return;
        }
        let rest = Rest(Arc::clone(&self.shared));
        match Handle::try_current() {
            // A runtime that is shut down waits for it, or drops it unrun: which does the same.
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(rest))),
            Err(_) => drop(rest),
        }
    }

    /// The number of the last event pushed.
    pub(crate) fn pushed(&self) -> u64 {
        lock(&self.shared.queue).pushed
    }

    /// The number of the last event that the backend has.
    pub(crate) fn settled(&self) -> u64 {
        self.shared.settled.settled()
    }

    /// The same, for those who do not hold on to the journal.
    pub(crate) fn settlement(&self) -> Settled {
        self.shared.settled.clone()
    }

    /// How many events were lost, and why the first ones.
    pub(crate) fn lost(&self) -> (u64, Option<&str>) {
        (self.shared.lost.load(Ordering::Relaxed), self.shared.loss.get().map(String::as_str))
    }

    /// From now on somebody waits for the end, which must come even if the store is held by others for ever.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }

    /// The program was told to end: a store that others still hold when so much time has passed is given up.
    pub(crate) fn end_within(&self, patience: Duration) {
        if let Some(until) = Instant::now().checked_add(patience) {
            lock(&self.shared.until).get_or_insert(until);
        }
    }

    /// The runs have ended that were active when the program was told to end: once all is settled that was pushed, the
    /// store is waited for as ever, by a program that goes on. Does not hold on to the journal.
    pub(crate) fn goes_on(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = (!self.is_immediate()).then(|| Arc::clone(&self.shared));
        async move {
            let Some(shared) = shared else { return };
            let settled = move || {
                shared.wait_for_all();
                lock(&shared.until).take();
            };
            let _ = tokio::task::spawn_blocking(settled).await;
        }
    }

    /// Stores what is left and ends the writer.
    pub(crate) fn close(&self) {
        self.end();
        let writer = lock(&self.writer).take();
        // The last of a run may be let go of by the writer, and with it the orchestrator.
        let writer = writer.filter(|writer| writer.thread().id() != std::thread::current().id());
        if writer.is_some() || self.is_immediate() {
            self.commit();
        } else {
            self.shared.store_all();
        }
        lock(&self.shared.queue).closed = true;
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.work.notify_one();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

/// An event that is in the queue.
#[must_use = "somebody has to see to it that it is stored"]
pub(crate) struct Enqueued {
    /// How many there are.
    length: usize,
    /// Whether the writer sleeps.
    wake: bool,
}

impl Enqueued {
    /// Nothing is.
    pub(crate) const NOTHING: Self = Self { length: 0, wake: false };

    /// Sees to it that it is stored.
    pub(crate) fn see_to_it(self, journal: &Journal) {
        let shared = &*journal.shared;
        if self.wake {
            shared.work.notify_one();
        }
        if !journal.is_immediate() || self.length < BATCH_IN_PLACE {
            return;
        }
        if self.length >= MOST_IN_PLACE {
            // Whoever stores may have finished its batch just before: when there are that many somebody has to.
            let _storing = lock(&shared.storing);
            shared.store_batch(Vec::new());
        } else {
            shared.store_in_place();
        }
    }
}

/// Events that are in the queue, and that somebody waits for.
#[must_use = "somebody has to see to it that they are stored"]
pub(crate) struct EnqueuedAwaited {
    fate: Arc<Fate>,
    /// Whether the writer sleeps.
    wake: bool,
    /// Where the clock is to stand still meanwhile.
    runtime: Option<Handle>,
}

impl EnqueuedAwaited {
    /// Sees to it that they are stored.
    pub(crate) fn see_to_it(self, journal: &Journal) -> Awaited {
        let Self { fate, wake, runtime } = self;
        let shared = &journal.shared;
        if wake {
            shared.work.notify_one();
        }
        if let Some(runtime) = runtime {
            let shared = Arc::clone(shared);
            runtime.spawn_blocking(move || shared.hold());
        }
        Awaited { fate, place: None }
    }
}

/// What becomes of events that somebody waits for. Ready when the backend has them; an error says why it lost them.
pub(crate) struct Awaited {
    fate: Arc<Fate>,
    /// Where the waker is.
    place: Option<usize>,
}

/// What becomes of a batch: one for all who wait for some of it.
#[derive(Default)]
struct Fate {
    outcome: OnceLock<Result<(), Arc<str>>>,
    /// Whoever looked before it was settled.
    waiting: Mutex<Vec<Waker>>,
}

impl Future for Awaited {
    type Output = Result<(), Arc<str>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(outcome) = this.fate.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        // Wakers are cloned and dropped outside of the lock.
        let mut waker = cx.waker().clone();
        let mut waiting = lock(&this.fate.waiting);
        if let Some(outcome) = this.fate.outcome.get() {
            drop(waiting);
            return Poll::Ready(outcome.clone());
        }
        match this.place {
            Some(place) => std::mem::swap(&mut waiting[place], &mut waker),
            None => {
                this.place = Some(waiting.len());
                waiting.push(waker);
                return Poll::Pending;
            }
        }
        drop(waiting);
        Poll::Pending
    }
}

impl Fate {
    fn settle(&self, outcome: Result<(), Arc<str>>) {
        let _ = self.outcome.set(outcome);
        // Who looks from here on sees it.
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for waker in waiting {
            panics::shield(|| waker.wake());
        }
    }
}

/// What is still to be stored; dropping it waits until it is.
struct Rest(Arc<Shared>);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.wait_for_all();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Blocks until the events pushed so far are settled. A condition variable rather than a channel of tokio's: this
    /// has to work where a runtime is being torn down, too.
    fn wait_for_all(&self) {
        let mut queue = lock(&self.queue);
        let target = queue.pushed;
        queue.urgent = queue.urgent.max(target);
        self.work.notify_one();
        let open = |queue: &mut Queue| self.settled.settled() < target && !queue.finished;
        drop(self.done.wait_while(queue, open).unwrap_or_else(PoisonError::into_inner));
    }

    /// Blocks until all events are settled, whatever comes meanwhile.
    fn hold(&self) {
        loop {
            self.wait_for_all();
            let mut queue = lock(&self.queue);
            if queue.pushed <= self.settled.settled() || queue.finished {
                queue.held = false;
                return;
            }
        }
    }

    /// The writer's life.
    fn write(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.is_empty() && !queue.closed {
                queue.sleeping = true;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_empty() {
                if !lock(&self.again).is_empty() {
                    drop(queue);
                    self.store_all();
                    lock(&self.again).clear();
                    continue;
                }
                queue.finished = true;
                self.done.notify_all();
                return;
            }
            let settled = self.settled.settled();
            let lingers = |queue: &mut Queue| {
                let quiet = queue.urgent <= settled && queue.waiting == 0 && !queue.closed;
                quiet && queue.events.len() + queue.untold_runs.len() < BATCH
            };
            if lingers(&mut queue) {
                queue.sleeping = true;
                let waited = self.work.wait_timeout_while(queue, LINGER, lingers);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.sleeping = false;
            drop(queue);
            self.store_all();
        }
    }

    /// Stores the queue, unless somebody else is at it.
    fn store_in_place(&self) {
        if let Ok(_storing) = self.storing.try_lock() {
            self.store_batch(Vec::new());
        }
    }

    fn store_all(&self) {
        let storing = lock(&self.storing);
        let (first_events, last_of_runs) = self.look_at_untold_runs();
        self.store_batch(first_events);
        drop(storing);
        // With them go values of the user's.
        if !last_of_runs.is_empty() {
            panics::let_go(last_of_runs);
        }
    }

    /// What nobody knows yet of runs that wait, with those of them that nobody else refers to by now. This comes before the
    /// queue is taken: a run of which the journal was given something meanwhile is in it.
    fn look_at_untold_runs(&self) -> (Vec<Event>, Vec<Run>) {
        let untold_runs = {
            let mut queue = lock(&self.queue);
            std::mem::take(&mut queue.untold_runs)
        };
        let (mut events, mut last_of_runs) = (Vec::new(), Vec::new());
        for run in untold_runs.iter().filter_map(Weak::upgrade) {
            events.extend(run.take_first_event());
            // The last reader of a result is to be its only owner.
            last_of_runs.extend(Arc::into_inner(run));
        }
        (events, last_of_runs)
    }

    /// Stores the events and what is in the queue; the caller holds `storing`.
    fn store_batch(&self, first_events: Vec<Event>) {
        let mut spare = std::mem::take(&mut *lock(&self.spare));
        let (mut batch, awaited, last) = {
            let mut queue = lock(&self.queue);
            self.weight.store(0, Ordering::Relaxed);
            queue.weight = 0;
            std::mem::swap(&mut queue.events, &mut spare);
            let awaited = (std::mem::take(&mut queue.waiting) > 0).then(|| std::mem::take(&mut queue.awaited));
            // A run that began to wait after they were looked at is not part of this batch.
            let last = if queue.untold_runs.is_empty() { queue.pushed } else { queue.before_untold_runs };
            (spare, awaited, last)
        };
        batch.splice(..0, first_events);
        // The next batch gathers while this one is stored.
        self.room.notify_waiters();
        let again = std::mem::take(&mut *lock(&self.again));
        let known_as_lost = again.len();
        batch.splice(..0, again);
        let stored = if batch.is_empty() { Ok(()) } else { self.store(&mut batch) };
        if let Err(error) = &stored {
            self.give_up(&batch[known_as_lost..], error);
            if error.is_transient() {
                *lock(&self.again) =
                    batch.iter().filter(|event| event.is_of_flow()).take(MOST_AGAIN).cloned().collect();
            }
        }
        // What is in it are values of the user's, too.
        panics::contain("a destructor", || batch.clear());
        if batch.capacity() <= 2 * BATCH {
            *lock(&self.spare) = batch;
        }
        self.settled.0.store(last, Ordering::Release);
        if let Some(fate) = awaited {
            fate.settle(stored.map_err(|error| error.to_string().into()));
        }
        // Whoever looked at the number before it changed holds the lock until it waits.
        drop(lock(&self.queue));
        self.done.notify_all();
        self.fresh.settle(last);
    }

    fn store(&self, batch: &mut Vec<Event>) -> Result<(), BackendError> {
        // A store that failed before is given one try a batch, so that runs do not wait for it again and again.
        let tries = if self.failing.load(Ordering::Relaxed) { &TRY_AGAIN[..0] } else { &TRY_AGAIN[..] };
        let mut delays = tries.iter();
        let mut locked = Locked::default();
        loop {
            let outcome = self.append(batch);
            if let Some(membership) = &self.membership {
                membership.heard(&outcome);
            }
            let delay = match &outcome {
                Err(error) if error.kind() == BackendErrorKind::Busy && self.is_given_up() => None,
                // Whoever holds it lets go at some time: nothing is lost, and when the queue is full, runs do not begin.
                Err(error) if error.kind() == BackendErrorKind::Busy && !self.ending.load(Ordering::Relaxed) => {
                    locked.tell(error);
                    Some(&LOCKED_AGAIN)
                }
                Err(error) if error.is_transient() => delays.next(),
                Ok(()) | Err(_) => None,
            };
            if let Some(delay) = delay {
                std::thread::sleep(*delay);
                continue;
            }
            locked.over();
            self.failing.store(outcome.is_err(), Ordering::Relaxed);
            return outcome;
        }
    }

    /// Whether nobody waits for the store any longer.
    fn is_given_up(&self) -> bool {
        lock(&self.until).is_some_and(|until| until <= Instant::now())
    }

    fn append(&self, batch: &mut Vec<Event>) -> Result<(), BackendError> {
        let membership = self.membership.as_ref();
        if membership.is_some_and(|membership| membership.fenced().is_some()) {
            let doing = format!("write to {}", self.backend.location());
            return Err(BackendError::new(BackendErrorKind::Fenced, doing));
        }
        let owner = membership.and_then(|membership| membership.owner());
        match owner {
            Some(owner) => self.backend.append_as(owner, batch),
            None if self.backend.in_process() => self.backend.take(batch),
            None => self.backend.append(batch),
        }
    }

    /// Reports a loss: loudly the first time, and counted always.
    fn give_up(&self, batch: &[Event], error: &BackendError) {
        let lost = batch.len() as u64;
        if lost == 0 {
            return;
        }
        let before = self.lost.fetch_add(lost, Ordering::Relaxed);
        let why = self.loss.get_or_init(|| error.to_string());
        // What becomes of the runs of a process that was found to be gone is told where they are ended.
        if before == 0 && error.kind() != BackendErrorKind::Fenced {
            let location = self.backend.location();
            panics::shield(|| match self.is_given_up() {
                true => tracing::error!(
                    target: "orchestrator",
                    "{why}. The program was told to end, and does not wait any longer: {location} will not show how \
                     its runs ended, of whose history {lost} events were not written; whoever opens it next marks them \
                     as crashed",
                ),
                false => tracing::error!(
                    target: "orchestrator",
                    "history is being lost: {why}. Runs go on, but {location} will not show what they did",
                ),
            });
        }
        for observer in &self.observers {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| observer.on_loss(lost, why)));
        }
    }
}

/// How many bytes of memory an event keeps, about.
fn weight(event: &Event) -> usize {
    let (run, other) = WEIGHT;
    let value = |value: &CachedValue| match value {
        CachedValue::Encoded(encoded) => encoded.bytes.len(),
        CachedValue::Live(_) | CachedValue::Stored(_) => 0,
    };
    match event {
        Event::Run(_) => run,
        Event::Parameters { json, .. } => other + json.len(),
        Event::Log(line) => other + line.target.len() + line.message.len(),
        Event::Cached(record) => other + value(&record.value),
        Event::Persisted(record) => other + value(&record.value),
        Event::Renamed { .. } | Event::Upstream { .. } | Event::Paused { .. } | Event::Discarded { .. } => other,
    }
}

/// How long another process holds the store already.
#[derive(Default)]
struct Locked {
    since: Option<Instant>,
    told: bool,
}

impl Locked {
    /// Says so once it is long.
    fn tell(&mut self, error: &BackendError) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.told && since.elapsed() >= LOCKED_LONG {
            self.told = true;
            panics::shield(|| {
                tracing::warn!(
                    target: "orchestrator",
                    "{error}, for {} already. Nothing is lost; runs wait until it lets go",
                    short(since.elapsed()),
                );
            });
        }
    }

    /// Says how long it was, if it was long.
    fn over(&self) {
        if let Some(since) = self.since.filter(|_| self.told) {
            panics::shield(|| {
                tracing::warn!(target: "orchestrator", "the store was locked for {}", short(since.elapsed()));
            });
        }
    }
}
