//! The bodies that nobody waits for any more though their threads go on: sync ones whose attempt timed out, or whose run was
//! cancelled and did not stop. Nothing can end a thread but the end of its process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Those that were given up, with some that have ended since.
static GIVEN_UP: Mutex<Vec<GivenUp>> = Mutex::new(Vec::new());

struct GivenUp {
    run: String,
    body: Weak<AtomicBool>,
}

impl GivenUp {
    fn goes_on(&self) -> bool {
        self.body.upgrade().is_some_and(|begun| begun.load(Ordering::Acquire))
    }
}

/// A body on a thread, for as long as it has not ended.
pub(super) struct Going(Arc<AtomicBool>);

impl Going {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// It is being called. One that is not does not count.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn watch(&self) -> Watched {
        Watched(Arc::downgrade(&self.0))
    }
}

/// What tells whether a body has ended.
pub(super) struct Watched(Weak<AtomicBool>);

impl Watched {
    /// Nobody waits for the body of that run any more.
    pub(super) fn give_up(&self, run: impl FnOnce() -> String) {
        if self.0.strong_count() == 0 {
            return;
        }
        let given_up = GivenUp { run: run(), body: Weak::clone(&self.0) };
        let mut all = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|body| body.body.strong_count() > 0);
        all.push(given_up);
    }
}

/// The names of the runs of this process whose sync bodies go on though nobody waits for them any more: their attempt timed
/// out, or they were cancelled and did not stop. A tokio runtime waits at its end for their threads; a program that does not
/// want to can end with [`std::process::exit`].
///
/// ```
/// # use orchestrator_core::abandoned_bodies;
/// fn end(code: i32) {
///     for run in abandoned_bodies() {
///         eprintln!("the body of '{run}' goes on");
///     }
///     std::process::exit(code);
/// }
/// # let _ = end;
/// ```
#[must_use]
pub fn abandoned_bodies() -> Vec<String> {
    let all = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter(|body| body.goes_on()).map(|body| body.run.clone()).collect()
}
