//! Gives runs that are launched their first poll, many in one tokio task.
//!
//! Most runs end at their first poll, or at once: a tokio task for each would cost more than the run. So they are queued,
//! and a *starter*, a tokio task, takes one after the other and polls it. A run that is not over by then becomes a task of
//! its own.
//!
//! While there are runs in the queue, a starter is on its way that has not begun: whatever the body does that is being
//! polled, be it that it blocks its thread, the others go on. Two are on their way where two runs wait, because the one
//! that was spawned last stays with its worker until that is free, while the other may be taken by any worker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Call;
use super::driver::Driver;
use super::panics;
use crate::run::Run;
use crate::sync::{self, AtomicUsize, Mutex, MutexGuard};

/// How many runs a starter polls before it makes room for other tasks of its worker.
const SLICE: usize = 32;
/// How long it polls before it does so.
const SLICE_TIME: Duration = Duration::from_micros(200);

sync::thread_local! {
    /// The launcher whose starter is at work on this thread, as an address, and whether it is done with the body of the
    /// run that it polls: then it takes up the next one at once.
    static STARTER: RefCell<(usize, bool)> = const { RefCell::new((0, false)) };
}

/// Does what follows on the end of a run, and may launch others. No code of a body runs here.
pub(super) fn after_the_body<R>(work: impl FnOnce() -> R) -> R {
    let before = STARTER.with_borrow_mut(|(_, done)| std::mem::replace(done, true));
    let done = work();
    STARTER.with_borrow_mut(|starter| starter.1 = before);
    done
}

/// The way into one runtime.
pub(crate) struct Launcher {
    handle: Handle,
    queue: Mutex<VecDeque<Launched>>,
    /// How many starters have not begun.
    coming: AtomicUsize,
}

struct Launched {
    run: Arc<Run>,
    call: Box<dyn Call>,
}

impl Launcher {
    pub(crate) fn new(handle: Handle) -> Arc<Self> {
        Arc::new(Self { handle, queue: Mutex::default(), coming: AtomicUsize::new(0) })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Launched>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a run to the runtime.
    pub(super) fn launch(self: &Arc<Self>, run: Arc<Run>, call: Box<dyn Call>) {
        let waiting = {
            let mut queue = self.queue();
            queue.push_back(Launched { run, call });
            queue.len()
        };
        // One run is for the starter of this thread, if that looks into the queue next.
        let is_next = STARTER.with_borrow(|starter| *starter == (self.address(), true));
        let waiting = if is_next { waiting - 1 } else { waiting };
        // A starter counts itself down before it looks into the queue: either it is seen here, or it sees the run.
        if self.coming.load(Ordering::SeqCst) < waiting.min(2) {
            self.send_for_starter();
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn send_for_starter(self: &Arc<Self>) {
        self.coming.fetch_add(1, Ordering::SeqCst);
        sync::spawn(&self.handle, Starter(Some(Arc::clone(self))));
    }

    /// The next run, and whether there are others.
    fn next(&self) -> Option<(Launched, bool)> {
        let mut queue = self.queue();
        let next = queue.pop_front()?;
        Some((next, !queue.is_empty()))
    }

    fn start(self: &Arc<Self>, cx: &mut Context<'_>) {
        let began = Instant::now();
        for polled in 1.. {
            let Some((Launched { run, call }, others)) = self.next() else { return };
            if others && self.coming.load(Ordering::SeqCst) == 0 {
                self.send_for_starter();
            }
            let mut driver = Driver::new(run, call);
            if Pin::new(&mut driver).poll(cx).is_pending() {
                sync::spawn(&self.handle, driver);
            }
            if polled >= SLICE || began.elapsed() > SLICE_TIME || !tokio::task::coop::has_budget_remaining() {
                if self.coming.load(Ordering::SeqCst) == 0 && !self.queue().is_empty() {
                    self.send_for_starter();
                }
                return;
            }
        }
    }
}

/// A task that polls runs for the first time.
struct Starter(Option<Arc<Launcher>>);

impl Future for Starter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(launcher) = self.0.take() {
            launcher.coming.fetch_sub(1, Ordering::SeqCst);
            let here = (launcher.address(), false);
            let around = STARTER.with_borrow_mut(|starter| std::mem::replace(starter, here));
            launcher.start(cx);
            STARTER.with_borrow_mut(|starter| *starter = around);
        }
        Poll::Ready(())
    }
}

impl Drop for Starter {
    /// Where it has not begun, the runtime is gone, and with it all that is in the queue.
    fn drop(&mut self) {
        let Some(launcher) = self.0.take() else { return };
        launcher.coming.fetch_sub(1, Ordering::SeqCst);
        while let Some((Launched { run, call }, _)) = launcher.next() {
            panics::let_go(Driver::new(run, call));
        }
    }
}
