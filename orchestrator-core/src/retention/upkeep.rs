//! Applies the retention in the background: a thread that sleeps most of the time, and of whose steps none takes long.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::Retention;
use crate::backend::BackendError;
use crate::backend::maintenance::{Maintenance, Removed};
use crate::clock::{Clock, Timestamp};
use crate::results::Sweeper;

/// The first look comes at a random moment within this time. A program that lives shorter, and is started often, does a
/// piece of the work now and then.
const FIRST: Duration = Duration::from_secs(10);

/// How often the policy is applied, by whichever of the processes on a store comes first.
const EVERY: Duration = Duration::from_secs(3600);

/// How often it is looked whether somebody else has applied it, or has died over it.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How often it is looked whether objects are of no use, at first and later: a process may have been killed since. That is
/// a look at two indexes.
const SWEEP_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(20)];

/// For each unit of time that a step takes, the thread sleeps so many.
const REST: u32 = 4;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Upkeep {
    stop: Arc<Stop>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Upkeep {
    /// Begins to look after the store, if it outlives the process.
    pub(crate) fn start(sweeper: &Sweeper, clock: &Arc<dyn Clock>, policy: Retention) -> Option<Self> {
        let backend = &sweeper.backend;
        if backend.in_process() || backend.maintenance().is_none() {
            return None;
        }
        let stop = Arc::new(Stop::default());
        let (sweeper, clock, its) = (sweeper.clone(), Arc::clone(clock), Arc::clone(&stop));
        let builder = thread::Builder::new().name("orchestrator-upkeep".to_owned());
        // Without a thread to spare the store is not looked after; the next process may have one.
        let thread = builder.spawn(move || live(&sweeper, &*clock, &policy, &its)).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Stop {
    /// Whether it was stopped within that time.
    fn within(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The deletion of objects that are of no use. It is given up when this is dropped; the next process does the rest.
struct Sweeping(Option<JoinHandle<bool>>);

impl Sweeping {
    /// Says how long to wait before the next look.
    fn go_on(&mut self, sweeper: &Sweeper) -> Duration {
        let ended = match self.0.as_mut() {
            Some(task) if !task.is_finished() => return SWEEP_EVERY[1],
            ended => ended.and_then(FutureExt::now_or_never),
        };
        if let Some(Ok(false)) = ended {
            // The store of results cannot be used, as was told.
            self.0 = None;
            return LOOK_EVERY;
        }
        self.0 = if sweeper.is_needed().unwrap_or(false) { sweeper.start() } else { None };
        SWEEP_EVERY[1]
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn live(sweeper: &Sweeper, clock: &dyn Clock, policy: &Retention, stop: &Stop) {
    let mut sweeping = Sweeping(None);
    let mut sweep = Instant::now() + SWEEP_EVERY[0];
    let mut prune = (!policy.is_off()).then(|| Instant::now() + FIRST.mul_f64(fastrand::f64()));
    while !stop.within(prune.map_or(sweep, |prune| prune.min(sweep)).saturating_duration_since(Instant::now())) {
        if prune.is_some_and(|prune| prune <= Instant::now()) {
            remove_old(sweeper, clock, policy, stop);
            prune = Some(Instant::now() + LOOK_EVERY);
            // What was removed had objects.
            sweep = Instant::now();
        }
        if sweep <= Instant::now() {
            sweep = Instant::now() + sweeping.go_on(sweeper);
        }
    }
}

fn remove_old(sweeper: &Sweeper, clock: &dyn Clock, policy: &Retention, stop: &Stop) {
    let backend = &*sweeper.backend;
    let Some(store) = backend.maintenance() else { return };
    let now = clock.now();
    let removed = store.last_pruned().and_then(|done| {
        if is_due(done, now) { apply(store, clock, policy, |step| stop.within(step * REST)) } else { Ok(None) }
    });
    match removed {
        Ok(Some(removed)) if !removed.is_nothing() => tracing::debug!(
            target: "orchestrator",
            "removed {} flow runs, {} task runs and {} cached results from {}, which keeps {policy}",
            removed.flow_runs,
            removed.task_runs,
            removed.cached,
            backend.location(),
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(target: "orchestrator", "{error}"),
    }
}

/// Whether the policy is to be applied that was applied last when `done`.
fn is_due(done: Option<Timestamp>, now: Timestamp) -> bool {
    // One that is still to come was put down by a clock that was wrong.
    done.is_none_or(|done| done > now || now.since(done) >= EVERY)
}

/// Applies the policy. After each step `rest` is told how long it took, and says whether to stop. `None`: somebody else is
/// at it.
pub(crate) fn apply(
    store: &dyn Maintenance,
    clock: &dyn Clock,
    policy: &Retention,
    rest: impl Fn(Duration) -> bool,
) -> Result<Option<Removed>, BackendError> {
    let Some(mut pruning) = store.prune(policy, clock.now())? else { return Ok(None) };
    let mut removed = Removed::default();
    loop {
        let start = Instant::now();
        let Some(step) = pruning.step(clock.now())? else { break };
        removed += step;
        if rest(start.elapsed()) {
            break;
        }
    }
    Ok(Some(removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_after_a_while_and_when_the_clock_went_back() {
        let done = Timestamp::from_micros(7_200_000_000);
        assert!(is_due(None, done));
        assert!(!is_due(Some(done), done));
        assert!(!is_due(Some(done), done.after(EVERY / 2)));
        assert!(is_due(Some(done), done.after(EVERY)));
        assert!(is_due(Some(done.after(EVERY / 2)), done), "the clock went back");
    }
}
