//! Gives runs that are launched their first poll, many in one tokio task.
//!
//! Most runs end at their first poll, or at once: a tokio task for each would cost more than the run. So they are queued,
//! and a *starter*, a tokio task, takes one after the other and polls it. A run that is not over by then becomes a task of
//! its own.
//!
//! While launched runs wait in the queue, a starter is on its way that has not begun and that any worker may take: whatever the body
//! does that is being polled, be it that it blocks its thread, the others go on. What a worker spawned last stays with it
//! (tokio's LIFO slot), so a second starter is spawned to push the first one out, and nobody counts on the second. One run
//! alone gets one starter, as if it were a task of its own. For the same reason a starter makes room as soon as a run has
//! become a task or has woken one: it goes to the end of the worker's queue, from which any worker may take it.
//!
//! What a body itself wakes or spawns stands in the worker's slot until the starter makes room: some microseconds, unless
//! another body that it polls meanwhile blocks the thread, which no async body should.
//!
//! Tasks that the end of a run wakes, such as a flow that awaits one run after the other, have their turn when the starter has
//! polled a few further runs, so that they find several that have ended. Meanwhile they stand in the launcher, where the
//! starter finds them that is on its way: a body that blocks its thread keeps nobody waiting.
//!
//! A run that the end of another one launches while the queue is empty, as the next of a chain, does not go there: the starter that
//! polled the other keeps it in hand, and polls it next. Where the other has become a task of its own, that task gives the next run
//! its first poll, and is its own from then on if it is not over by then. Before that it pushes out of the worker's slot whomever
//! the body that has ended woke last.
//!
//! A starter that finds the queue empty lingers for some microseconds: as long as it does, what is launched needs no other,
//! and no worker is put to sleep and woken again for each run of a burst.
//!
//! While the store lags too far behind, runs stay in the queue, where they take the least memory: the starter that is on its
//! way then begins when there is room. Those that were cancelled do not wait for that.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::driver::Driver;
use super::panics;
use super::plain::{self, Left};
use crate::clock::Timestamp;
use crate::run::{Run, Wakes};
use crate::sync::{self, AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// How many runs a starter polls before it makes room for other tasks of its worker.
const SLICE: usize = 256;
/// How long it polls before it does so.
const SLICE_TIME: Duration = Duration::from_micros(200);
/// As long as so many others wait for a worker, a starter that makes room need not come again.
const SPARE: usize = 2;
/// How often a starter looks for another run before it ends: a few microseconds. To a checker each look is a choice.
const LINGER: usize = if cfg!(all(test, feature = "interleavings")) { 2 } else { 128 };
/// How much room a queue keeps that nobody is in, in runs: a burst of a million would leave eight megabytes.
const ROOM: usize = 4096;
/// How many runs a starter polls before those are woken who waited for them.
const BEFORE_WAKING: usize = 16;
/// How long it polls before that.
const WAKING_TIME: Duration = Duration::from_micros(20);

/// What a starter does that is at work on a thread, or the task of a run.
struct AtWork {
    /// Its launcher, as an address.
    launcher: usize,
    /// Whether it is done with the body of the run that it polls, and takes up the next one at once.
    is_between_bodies: bool,
    /// Whether a run that is launched then comes before those in the queue.
    takes_in_hand: bool,
    /// The run that it polls next: empty while it polls one.
    in_hand: ManuallyDrop<Option<Arc<Run>>>,
    /// Whether a task was woken, which now waits in the slot of this worker.
    woke: bool,
    /// When the last run ended, if nothing but the engine has been at work since.
    ended: Option<Timestamp>,
    /// Tasks that are to be woken; empty between two polls. Like the run in hand without a destructor, so that the thread can be
    /// asked as long as it lives.
    to_wake: ManuallyDrop<Vec<Waker>>,
}

const NOBODY: AtWork = AtWork {
    launcher: 0,
    is_between_bodies: false,
    takes_in_hand: false,
    in_hand: ManuallyDrop::new(None),
    woke: false,
    ended: None,
    to_wake: ManuallyDrop::new(Vec::new()),
};

sync::thread_local! {
    static STARTER: RefCell<AtWork> = const { RefCell::new(NOBODY) };
}

/// Tells those who waited for a run that has ended, which may launch others. No code of a body runs here.
pub(super) fn after_the_body(wakes: Wakes) {
    // A body may itself see to the end of a run, on a runtime of its own.
    STARTER.with_borrow_mut(|starter| starter.is_between_bodies = starter.launcher != 0 && !panics::is_in_body());
    wakes.wake();
    STARTER.with_borrow_mut(|starter| starter.is_between_bodies = false);
}

/// Wakes a task that waited for a run, or for its slots: soon, if the starter that polled the run takes up the next one.
pub(crate) fn wake(waker: Waker) {
    let waker = STARTER.with_borrow_mut(|starter| {
        if starter.is_between_bodies {
            starter.to_wake.push(waker);
            return None;
        }
        starter.woke = true;
        Some(waker)
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Says that a run has ended, with nothing left to do for it: the next one begins at that moment.
pub(super) fn ended_at(moment: Timestamp) {
    STARTER.with_borrow_mut(|starter| starter.ended = (starter.launcher != 0).then_some(moment));
}

/// When the run before ended, if what follows comes right after it, told once: a look at the clock costs as much as a
/// twentieth of a run.
pub(super) fn last_end() -> Option<Timestamp> {
    STARTER.with_borrow_mut(|starter| starter.ended.take())
}

/// Says whether there were any.
fn wake_each(wakers: Vec<Waker>) -> bool {
    let any = !wakers.is_empty();
    // They are code of others.
    wakers.into_iter().for_each(|waker| panics::contain("a waker", || waker.wake()));
    any
}

#[cold]
fn leave_to_a_starter(run: Arc<Run>) {
    let launcher = Arc::clone(launcher_of(&run));
    launcher.launch(run);
}

/// The launcher that a run was given to.
fn launcher_of(run: &Run) -> &Arc<Launcher> {
    run.scope().launcher.as_ref().expect("a run without a runtime is refused before it starts")
}

/// The way into one runtime.
pub(crate) struct Launcher {
    handle: Handle,
    /// Whether others launch runs while a starter is at work.
    has_others: bool,
    /// What was launched last.
    launched: CachePadded<Inbox>,
    /// What was launched before that: starters take from here, and all that was launched meanwhile when it is empty. So those who
    /// launch and those who start seldom want the same lock.
    next: CachePadded<Mutex<VecDeque<Arc<Run>>>>,
    starters: CachePadded<Starters>,
    /// Tasks that a starter has put off waking.
    put_off: Mutex<Vec<Waker>>,
    /// Whether there are any.
    puts_off: AtomicBool,
    /// Tells a starter that waits for room of runs that were cancelled.
    stirred: Notify,
}

#[derive(Default)]
struct Inbox {
    queue: Mutex<VecDeque<Arc<Run>>>,
    /// How many runs are in it, for a look without the lock.
    length: AtomicUsize,
}

#[derive(Default)]
struct Starters {
    /// How many have not begun that any worker may take.
    coming: AtomicUsize,
    /// How many others have not begun.
    alone: AtomicUsize,
    /// How many look for another run.
    lingering: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Puts a run at the end; says how many there are, and whether it was cancelled. If it is later, whoever puts those that are
    /// cancelled first, under the same lock, sees it here.
    fn push(&self, run: Arc<Run>) -> (usize, bool) {
        let mut queue = lock(&self.queue);
        let is_cancelled = run.is_cancelled();
        queue.push_back(run);
        // Before the look at the starters that come: one of the two sees the other.
        self.length.store(queue.len(), Ordering::SeqCst);
        (queue.len(), is_cancelled)
    }

    /// Takes all out, into a queue that is empty.
    fn empty_into(&self, other: &mut VecDeque<Arc<Run>>) {
        if other.capacity() > ROOM {
            *other = VecDeque::new();
        }
        let mut queue = lock(&self.queue);
        std::mem::swap(&mut *queue, other);
        self.length.store(0, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }
}

impl Launcher {
    pub(crate) fn new(handle: Handle) -> Arc<Self> {
        let has_others = handle.metrics().num_workers() > 1;
        Arc::new(Self {
            handle,
            has_others,
            launched: CachePadded::default(),
            next: CachePadded::default(),
            starters: CachePadded::default(),
            put_off: Mutex::default(),
            puts_off: AtomicBool::new(false),
            stirred: Notify::new(),
        })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives a run to the runtime.
    pub(super) fn launch(self: &Arc<Self>, run: Arc<Run>) {
        // One run is for the starter of this thread, if that takes up the next one now.
        let (queued, is_next) = STARTER.with_borrow_mut(|starter| {
            let is_next = starter.is_between_bodies && starter.launcher == self.address() && starter.in_hand.is_none();
            if is_next && starter.takes_in_hand {
                *starter.in_hand = Some(run);
                return (None, false);
            }
            (Some(run), is_next)
        });
        let Some(run) = queued else { return };
        let waiting = self.enqueue(run);
        let waiting = if is_next { waiting - 1 } else { waiting };
        // A starter counts itself down before it looks into the queue: either it is seen here, or it sees the run.
        let Starters { coming, alone, lingering } = &*self.starters;
        match waiting {
            0 => {}
            _ if lingering.load(Ordering::SeqCst) > 0 || coming.load(Ordering::SeqCst) > 0 => {}
            1 if alone.load(Ordering::SeqCst) == 0 => self.send(false),
            _ => self.send_for_starter(),
        }
    }

    /// Puts a run at the end of the queue; says how many there are that were launched last.
    fn enqueue(&self, run: Arc<Run>) -> usize {
        let (waiting, is_cancelled) = self.launched.push(run);
        if is_cancelled {
            self.stir();
        }
        waiting
    }

    /// Says that a body goes on with calls whose runs wait for others: those must not wait for the slot of its worker.
    pub(crate) fn push_on(self: &Arc<Self>) {
        let Starters { coming, alone, lingering } = &*self.starters;
        let is_kept = self.has_others && alone.load(Ordering::SeqCst) > 0;
        if is_kept && coming.load(Ordering::SeqCst) == 0 && lingering.load(Ordering::SeqCst) == 0 {
            self.send_for_starter();
        }
    }

    /// Says that launched runs were cancelled: they do not wait until the store has room.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Sends for one that any worker may take.
    fn send_for_starter(self: &Arc<Self>) {
        self.send(true);
        self.send(false);
    }

    fn send(self: &Arc<Self>, counted: bool) {
        self.count(counted).fetch_add(1, Ordering::SeqCst);
        sync::spawn(&self.handle, Starter { launcher: Some(Arc::clone(self)), counted });
    }

    /// Of starters that have not begun.
    fn count(&self, counted: bool) -> &AtomicUsize {
        if counted { &self.starters.coming } else { &self.starters.alone }
    }

    /// Takes the next run: the one in hand, or the first in the queue, if there is any; says whether there are others in the queue.
    fn take_next(&self) -> Option<(Arc<Run>, bool)> {
        let in_hand = STARTER.with_borrow_mut(|starter| starter.in_hand.take());
        in_hand.map(|run| (run, !self.launched.is_empty())).or_else(|| self.take())
    }

    /// Takes the first run out of the queue; says whether there are others.
    fn take(&self) -> Option<(Arc<Run>, bool)> {
        let mut queue = lock(&self.next);
        if queue.is_empty() {
            self.launched.empty_into(&mut queue);
        }
        let next = queue.pop_front()?;
        Some((next, !queue.is_empty() || !self.launched.is_empty()))
    }

    /// The next run that may begin, and whether there are others.
    fn next(self: &Arc<Self>) -> Option<(Arc<Run>, bool)> {
        let (run, others) = self.take_next()?;
        self.unless_full(run).map(|run| (run, others))
    }

    /// The run, if the store has room for what comes of it.
    fn unless_full(self: &Arc<Self>, run: Arc<Run>) -> Option<Arc<Run>> {
        if !run.scope().orchestrator.journal.has_room() && !run.is_cancelled() {
            self.put_back(run);
            return None;
        }
        Some(run)
    }

    /// Leaves a run in the queue until the store has room for what comes of it: a starter is on its way that begins then.
    fn put_back(self: &Arc<Self>, run: Arc<Run>) {
        lock(&self.next).push_front(Arc::clone(&run));
        // It may have been since it was looked at; later it is seen where it is.
        if run.is_cancelled() {
            self.stir();
        }
        if self.starters.coming.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            // Another one comes, and does this if it has to.
            return;
        }
        let starter = Starter { launcher: Some(Arc::clone(self)), counted: true };
        let launcher = Arc::clone(self);
        sync::spawn(&self.handle, async move {
            tokio::select! {
                () = run.scope().orchestrator.journal.room() => {}
                () = launcher.stirred.notified() => launcher.put_cancelled_first(),
            }
            // It may be the last of a run that was cancelled.
            panics::let_go((run, launcher));
            starter.await;
        });
    }

    fn put_cancelled_first(&self) {
        let mut queue = lock(&self.next);
        let mut meanwhile = VecDeque::new();
        self.launched.empty_into(&mut meanwhile);
        let all = queue.drain(..).chain(meanwhile);
        let (cancelled, others): (VecDeque<_>, VecDeque<_>) = all.partition(|run| run.is_cancelled());
        queue.extend(cancelled.into_iter().chain(others));
    }

    fn has_runs(&self) -> bool {
        !lock(&self.next).is_empty() || !self.launched.is_empty()
    }

    /// The next run, if one comes soon.
    fn next_soon(self: &Arc<Self>) -> Option<(Arc<Run>, bool)> {
        if !self.has_others {
            return None;
        }
        let lingering = &self.starters.lingering;
        lingering.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0..LINGER;
        while looks.next().is_some() && self.launched.length.load(Ordering::Relaxed) == 0 {
            std::hint::spin_loop();
        }
        lingering.fetch_sub(1, Ordering::SeqCst);
        // Who launched a run until now counts on this look.
        self.next()
    }

    /// Leaves those whom the end of a run is to wake to whichever starter comes to it first.
    fn put_off(&self) {
        let mut put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        STARTER.with_borrow_mut(|starter| put_off.append(&mut starter.to_wake));
        self.puts_off.store(true, Ordering::SeqCst);
    }

    /// Wakes those who were put off; says whether there were any.
    fn wake_all(&self) -> bool {
        let mut any = wake_each(STARTER.with_borrow_mut(|starter| std::mem::take(&mut *starter.to_wake)));
        if self.puts_off.load(Ordering::SeqCst) && self.puts_off.swap(false, Ordering::SeqCst) {
            any |= wake_each(std::mem::take(&mut *self.put_off.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        any
    }

    /// Pushes whoever was woken out of the slot of this worker, from which no other takes it.
    fn push_out(self: &Arc<Self>) {
        if self.has_others {
            self.send(false);
        }
    }

    /// Polls one run after the other; says whether the starter is to come again when others have had their turn.
    fn start(self: &Arc<Self>, cx: &mut Context<'_>) -> bool {
        let at_work = Said::of(self, false);
        // Another starter may be held up by a body, as this one may be.
        if self.wake_all() {
            self.push_out();
        }
        let makes_room = self.poll_slice(cx);
        self.wake_all();
        // Others have waited longer.
        if let Some(run) = STARTER.with_borrow_mut(|starter| starter.in_hand.take()) {
            self.enqueue(run);
        }
        drop(at_work);
        makes_room && self.starters.coming.load(Ordering::SeqCst) < SPARE && self.has_runs()
    }

    /// Says whether it ends so that others have their turn, and not because there are no runs.
    fn poll_slice(self: &Arc<Self>, cx: &mut Context<'_>) -> bool {
        let (began, mut first_end) = (Instant::now(), None);
        // Since somebody is to be woken.
        let mut waiting: Option<(usize, Option<Timestamp>)> = None;
        for polled in 1.. {
            let next = self.next().or_else(|| if waiting.is_some() { None } else { self.next_soon() });
            let Some((run, others)) = next else { return false };
            let is_nobody_to_wake = STARTER.with_borrow_mut(|starter| {
                starter.takes_in_hand = !others;
                starter.to_wake.is_empty()
            });
            match is_nobody_to_wake {
                true => {}
                false if others && self.has_others => self.put_off(),
                false => {
                    self.wake_all();
                    self.push_out();
                    waiting = None;
                }
            }
            // One that has not begun looks at those who were put off, too.
            if others && self.starters.coming.load(Ordering::SeqCst) == 0 {
                self.send_for_starter();
            }
            let waits = match plain::poll(run, cx) {
                Left::Nothing => None,
                Left::Wait(driver) => Some(driver),
                Left::Poll(mut driver) => Pin::new(&mut driver).poll(cx).is_pending().then_some(driver),
            };
            // Whoever was woken, or became a task, is in the slot of this worker, from which nobody else takes it: it must
            // not wait for the next body to let go of the thread.
            let has_begun_to_wait = waits.is_some();
            if let Some(driver) = waits {
                // Beside the head of a tokio task, which is aligned to 128 bytes, there is room for a driver.
                sync::spawn(&self.handle, Box::new(OwnTask(driver)));
            }
            let (woke, ended, wakes) =
                STARTER.with_borrow(|starter| (starter.woke, starter.ended, !starter.to_wake.is_empty()));
            if wakes && waiting.is_none() {
                waiting = Some((polled, ended));
            }
            let waited_long = || {
                waiting.is_some_and(|(since, moment)| {
                    polled - since >= BEFORE_WAKING
                        || ended.zip(moment).is_none_or(|(now, moment)| now.since(moment) > WAKING_TIME)
                })
            };
            let mut is_long = || match ended {
                _ if polled >= SLICE => true,
                Some(ended) => ended.since(*first_end.get_or_insert(ended)) > SLICE_TIME,
                None => began.elapsed() > SLICE_TIME,
            };
            if has_begun_to_wait || woke || waited_long() || is_long() || !tokio::task::coop::has_budget_remaining() {
                return true;
            }
        }
        unreachable!("a slice has an end")
    }

    /// Polls the run that the end of another one has launched, in the other's task, and the one that its end launches: gives the
    /// driver back of the first that has to wait.
    fn go_on(self: &Arc<Self>, run: Arc<Run>, cx: &mut Context<'_>) -> Option<Driver> {
        let mut next = Some(run);
        let (mut is_first, before) = (true, STARTER.with_borrow(|starter| starter.ended));
        while let Some(run) = next {
            let run = self.unless_full(run)?;
            // Whoever was woken last, by the body that has ended first or here, does not wait for the next body, and neither do the
            // runs that were launched beside it.
            if self.wake_all() || is_first || !self.launched.is_empty() {
                self.push_out();
            }
            is_first = false;
            let waits = match plain::poll(run, cx) {
                Left::Nothing => None,
                Left::Wait(mut driver) => driver.stand_by(cx).is_pending().then_some(driver),
                Left::Poll(mut driver) => Pin::new(&mut driver).poll(cx).is_pending().then_some(driver),
            };
            if waits.is_some() {
                return waits;
            }
            next = STARTER.with_borrow_mut(|starter| {
                let is_long = starter.ended.zip(before).is_none_or(|(now, before)| now.since(before) > SLICE_TIME);
                let has_budget = tokio::task::coop::has_budget_remaining();
                if starter.woke || is_long || !has_budget { None } else { starter.in_hand.take() }
            });
        }
        None
    }
}

/// The task of a run that was not over at its first poll, and then of a run that its end has launched.
struct OwnTask(Driver);

impl Future for OwnTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self(driver) = &mut *self;
        let Some(run) = driver.run() else { return Poll::Ready(()) };
        let _at_work = Said::of(launcher_of(run), true);
        ready!(Pin::new(&mut *driver).poll(cx));
        let Some(next) = STARTER.with_borrow_mut(|starter| starter.in_hand.take()) else { return Poll::Ready(()) };
        let launcher = Arc::clone(launcher_of(&next));
        match launcher.go_on(next, cx) {
            Some(next) => {
                *driver = next;
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

/// A task that polls runs for the first time.
struct Starter {
    /// Taken when it begins.
    launcher: Option<Arc<Launcher>>,
    /// Whether it is among those that are counted on.
    counted: bool,
}

impl Starter {
    fn begin(&mut self) -> Option<Arc<Launcher>> {
        let launcher = self.launcher.take()?;
        launcher.count(self.counted).fetch_sub(1, Ordering::SeqCst);
        Some(launcher)
    }
}

/// Says that a starter, or the task of a run, is at work on this thread, until it is dropped.
struct Said {
    /// Who was before.
    at_work: AtWork,
}

impl Said {
    fn of(launcher: &Launcher, takes_in_hand: bool) -> Self {
        let here = AtWork { launcher: launcher.address(), takes_in_hand, ..NOBODY };
        Self { at_work: STARTER.with_borrow_mut(|starter| std::mem::replace(starter, here)) }
    }
}

impl Drop for Said {
    /// Who is left to be woken is woken, and the run that is left in hand is for a starter.
    fn drop(&mut self) {
        STARTER.with_borrow_mut(|starter| std::mem::swap(starter, &mut self.at_work));
        if !self.at_work.to_wake.is_empty() {
            wake_each(std::mem::take(&mut *self.at_work.to_wake));
        }
        if let Some(run) = self.at_work.in_hand.take() {
            leave_to_a_starter(run);
        }
    }
}

impl Future for Starter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(launcher) = self.begin() else { return Poll::Ready(()) };
        if !launcher.start(cx) {
            return Poll::Ready(());
        }
        // A task that wakes itself while it is polled goes to the end of the queue.
        launcher.starters.coming.fetch_add(1, Ordering::SeqCst);
        (self.launcher, self.counted) = (Some(launcher), true);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Starter {
    /// Where it has not begun, the runtime is gone, and with it all that is in the queue.
    fn drop(&mut self) {
        let Some(launcher) = self.begin() else { return };
        loop {
            let Some((run, _)) = launcher.take() else { return };
            panics::let_go(Driver::new(run));
        }
    }
}
