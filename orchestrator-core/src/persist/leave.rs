//! Runs that have done all they had to, and whose results are on their way to the store: nothing drives them any more. One
//! task ends those of a root flow run, in the order in which they were sent, so that each costs the place in a queue
//! rather than a task of its own that waits and is woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::KeptBefore;
use crate::engine::Watch;
use crate::journal::Awaited;
use crate::sync;

/// So many runs are ended before others have a turn on the thread.
const AT_A_TIME: usize = 64;

/// The runs of one root flow run.
#[derive(Default)]
pub(super) struct Leaving(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    runs: VecDeque<(Awaited, Watch)>,
    /// A task takes care of them.
    attended: bool,
}

/// Ends the run when the store has what it was sent.
pub(crate) fn leave(stored: Awaited, watch: Watch) {
    let Some(run) = watch.run() else { return };
    let (kept, handle) = (Arc::clone(&run.scope().kept), run.scope().handle().cloned());
    let attended = kept.leaving.with(|queue| {
        queue.runs.push_back((stored, watch));
        std::mem::replace(&mut queue.attended, true)
    });
    if !attended {
        let handle = handle.expect("a run without a runtime is refused before it starts");
        sync::spawn(&handle, attend(Attendant { kept, is_done: false }));
    }
}

async fn attend(mut attendant: Attendant) {
    loop {
        for _ in 0..AT_A_TIME {
            let Some((stored, watch)) = attendant.next() else { return };
            let stored = stored.await;
            watch.end_stored(stored);
        }
        tokio::task::yield_now().await;
    }
}

impl Leaving {
    fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The right to take runs out of the queue. A runtime that is shut down drops it: then the runs are dropped as well, which
/// ends them.
struct Attendant {
    kept: Arc<KeptBefore>,
    /// It has given up the right.
    is_done: bool,
}

impl Attendant {
    /// The next run; whoever comes after the last one needs another attendant.
    fn next(&mut self) -> Option<(Awaited, Watch)> {
        let next = self.kept.leaving.with(|queue| {
            let next = queue.runs.pop_front();
            queue.attended = next.is_some();
            next
        });
        self.is_done = next.is_none();
        next
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if !self.is_done {
            let left = self.kept.leaving.with(std::mem::take);
            drop(left);
        }
    }
}
