//! The pauses of one flow run, and what follows from them for its state.
//!
//! A flow run is Paused while there is a pause in the table. The table and the state are changed under one lock; what
//! is to be told of a change is told afterwards, in the order of the changes and by one thread at a time, because
//! observers and wakers are code of others.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::refused;
use crate::backend::record::{Event, Pause};
use crate::error::Error;
use crate::run::{Entered, Run};
use crate::state::StateName;

/// An input that was checked already.
pub(super) type Input = Box<dyn Any + Send>;

/// Checks an input.
pub(super) type Parse = fn(serde_json::Value) -> Result<Input, serde_json::Error>;

/// How a pause ended for the one who waits.
pub(super) type Answer = Result<Input, Error>;

/// The pauses of the flow run that a scope belongs to.
pub(crate) struct Pauses {
    /// Whether the table holds any, for a look without the lock.
    paused: AtomicBool,
    /// Whether the flow run executes no body at the moment. Whoever pauses sets `paused` and then looks here; the driver
    /// sets this and then looks at `paused`: one of the two sees the other.
    shut: AtomicBool,
    table: Mutex<Table>,
    over: Notify,
}

#[derive(Default)]
struct Table {
    /// Oldest first.
    entries: Vec<Arc<Entry>>,
    untold: VecDeque<Tell>,
    /// Whether a thread tells what is to be told.
    telling: bool,
}

/// One pause.
pub(super) struct Entry {
    pub(super) pause: Arc<Pause>,
    /// The run in whose body it was asked for.
    pub(super) owner: Arc<Run>,
    pub(super) parse: Parse,
    pub(super) answer: Mutex<Option<Answer>>,
    pub(super) waker: AtomicWaker,
}

/// What others are to know of a change.
enum Tell {
    Entered(Entered),
    Next(Arc<Pause>),
    Over,
    Answered(Arc<Entry>, Answer),
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            paused: AtomicBool::new(false),
            shut: AtomicBool::new(true),
            table: Mutex::default(),
            over: Notify::new(),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pauses {
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Ready when the flow run is not paused.
    pub(crate) async fn over(&self) {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if !self.is_paused() {
                return;
            }
            over.await;
        }
    }

    /// The pause that is resumed next.
    pub(crate) fn next(&self) -> Option<Arc<Pause>> {
        self.oldest().map(|entry| Arc::clone(&entry.pause))
    }

    pub(super) fn oldest(&self) -> Option<Arc<Entry>> {
        if self.is_paused() { lock(&self.table).entries.first().cloned() } else { None }
    }

    pub(super) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }

    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    /// Adds a pause; the flow run is Paused from now on.
    pub(super) fn begin(&self, flow: &Arc<Run>, entry: &Arc<Entry>, message: Arc<str>) -> Result<(), Error> {
        let orchestrator = &flow.scope().orchestrator;
        let at = orchestrator.clock.now();
        let mut stored = false;
        let mut table = lock(&self.table);
        // Whoever finds the run Paused in the history finds there what it waits for: that is stored first.
        while table.entries.is_empty() && !stored {
            drop(table);
            stored = true;
            store(flow, &entry.pause);
            table = lock(&self.table);
        }
        let first = table.entries.is_empty();
        self.paused.store(true, Ordering::SeqCst);
        let closed = self.shut.load(Ordering::SeqCst) || flow.is_cancelled();
        let entered = if first && !closed {
            flow.enter_from(&[StateName::Running, StateName::Retrying], StateName::Paused, Some(message), at)
        } else {
            None
        };
        if closed || first && entered.is_none() {
            if first {
                self.paused.store(false, Ordering::SeqCst);
                table.untold.push_back(Tell::Over);
            }
            drop(table);
            self.tell(flow);
            let why = if flow.is_cancelled() { "it is being cancelled" } else { "its body is not being executed" };
            return Err(refused(format!("flow run '{}' cannot be paused: {why}", flow.name())));
        }
        if let Some(oldest) = table.entries.first().filter(|_| stored) {
            let next = Arc::clone(&oldest.pause);
            table.untold.push_back(Tell::Next(next));
        }
        table.untold.extend(entered.map(Tell::Entered));
        table.entries.push(Arc::clone(entry));
        drop(table);
        self.tell(flow);
        Ok(())
    }

    /// Ends the pauses that `which` names and gives each its answer, if there is somebody to take it. Says how many
    /// they were: a pause is ended once, by whoever comes first. The flow run goes on, because of `why`, if none is
    /// left.
    pub(super) fn end(
        &self,
        flow: &Arc<Run>,
        which: impl Fn(&Arc<Entry>) -> bool,
        why: &str,
        mut answer: impl FnMut() -> Option<Answer>,
    ) -> usize {
        let at = flow.scope().orchestrator.clock.now();
        let mut table = lock(&self.table);
        let oldest = table.entries.first().cloned();
        let ended: Vec<Arc<Entry>> = table.entries.extract_if(.., |entry| which(entry)).collect();
        if ended.is_empty() {
            drop(table);
            return 0;
        }
        match table.entries.first() {
            Some(next) if oldest.as_ref().is_some_and(|oldest| Arc::ptr_eq(oldest, next)) => {}
            Some(next) => {
                let next = Arc::clone(&next.pause);
                table.untold.push_back(Tell::Next(next));
            }
            None => {
                // A run that is being cancelled goes from Paused to Cancelling.
                if !flow.is_cancelled() {
                    let entered = flow.enter_from(&[StateName::Paused], StateName::Running, Some(why.into()), at);
                    table.untold.extend(entered.map(Tell::Entered));
                }
                self.paused.store(false, Ordering::SeqCst);
                table.untold.push_back(Tell::Over);
            }
        }
        for entry in &ended {
            table.untold.extend(answer().map(|answer| Tell::Answered(Arc::clone(entry), answer)));
        }
        drop(table);
        self.tell(flow);
        ended.len()
    }

    /// Lets a flow run that is not paused any more be Running, for its driver.
    pub(super) fn leave(&self, flow: &Arc<Run>, why: &str) {
        let at = flow.scope().orchestrator.clock.now();
        let mut table = lock(&self.table);
        let entered = flow.enter_from(&[StateName::Paused], StateName::Running, Some(why.into()), at);
        table.untold.extend(entered.map(Tell::Entered));
        drop(table);
        self.tell(flow);
    }

    /// Tells what is to be told, unless another thread is at it.
    fn tell(&self, flow: &Arc<Run>) {
        /// Lets another thread tell the rest if an observer's panic ends this one.
        struct Telling<'a>(&'a Pauses);
        impl Drop for Telling<'_> {
            fn drop(&mut self) {
                lock(&self.0.table).telling = false;
            }
        }
        loop {
            let next = {
                let mut table = lock(&self.table);
                if table.telling {
                    return;
                }
                let next = table.untold.pop_front();
                table.telling = next.is_some();
                next
            };
            let Some(next) = next else { return };
            let _telling = Telling(self);
            match next {
                Tell::Entered(entered) => flow.tell(entered),
                Tell::Next(pause) => store(flow, &pause),
                Tell::Over => self.over.notify_waiters(),
                Tell::Answered(entry, answer) => {
                    *lock(&entry.answer) = Some(answer);
                    entry.waker.wake();
                }
            }
        }
    }
}

fn store(flow: &Run, pause: &Arc<Pause>) {
    let run = flow.id().as_flow().expect("only flow runs are paused");
    flow.scope().orchestrator.journal.push(Event::Paused { run, pause: Arc::clone(pause) });
}
