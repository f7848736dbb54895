//! The backend as the rest of the crate calls it: where it panics, it has failed.
//!
//! A backend is code of others, and is called by threads for which many wait. This is the only place that knows that it may
//! panic: whoever calls it gets an error, like any other, with what the panic said.

#![deny(clippy::missing_trait_methods, reason = "a method that is not passed on would be that of the trait")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::maintenance::{Compacted, Finding, Maintenance, Pruning, Removal, Removed, StoreInfo};
use super::record::{
    ActiveRuns, CacheEntry, CacheHit, CacheKey, CacheQuery, Event, FlowRun, FlowRunQuery, Interrupted, LogLine,
    Process, StoredResult, TakeOver, TaskRun, TaskRunQuery,
};
use super::{
    Answer, BackendError, BackendErrorKind, CacheCare, CacheIndex, ClaimLeases, ClaimRequest, Claimed, Crash, Crashes,
    EventStore, LimitRecord, LimitSetting, Owner, OwnerNo, Ownership, RecentRuns, Request, RequestNo, Requests,
    ResultIndex, RunHistory, RunSearch, Shared, SlotLeases, SlotNews, SlotPlace, SlotStanding, SlotTrade, SlotWait,
    StateBackend, Wanted,
};
use crate::clock::Timestamp;
use crate::engine::panics;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::retention::Retention;
use crate::state::{State, StateName};

/// A backend whose panics are errors.
pub(crate) struct Guarded {
    inner: Arc<dyn StateBackend>,
    in_process: bool,
    recent_runs: Option<Arc<RecentRuns>>,
    is_shared: bool,
    is_maintained: bool,
    location: String,
    /// Whether it has panicked, which is told once.
    told: AtomicBool,
}

impl Guarded {
    /// Asks the backend what it is, once for all.
    pub(crate) fn around(inner: Arc<dyn StateBackend>) -> Self {
        Self {
            in_process: inner.in_process(),
            recent_runs: inner.recent_runs(),
            is_shared: inner.shared().is_some(),
            is_maintained: inner.maintenance().is_some(),
            location: inner.location(),
            told: AtomicBool::new(false),
            inner,
        }
    }

    fn guard<T>(&self, name: &str, call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
        panics::catch(call).unwrap_or_else(|said| Err(self.panicked(name, &said)))
    }

    #[cold]
    fn panicked(&self, name: &str, said: &str) -> BackendError {
        let error = BackendError::new(BackendErrorKind::Unavailable, format!("use {}", self.location))
            .because(format!("its backend's `{name}` {said}"));
        if !self.told.swap(true, Ordering::Relaxed) {
            panics::shield(|| tracing::error!(target: "orchestrator", "{error}. This is told once"));
        }
        error
    }

    fn backend<T>(
        &self,
        name: &str,
        call: impl FnOnce(&dyn StateBackend) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.guard(name, || call(&*self.inner))
    }

    fn in_shared<T>(
        &self,
        name: &str,
        call: impl FnOnce(&dyn Shared) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.guard(name, || call(self.inner.shared().expect("it said that processes share it")))
    }

    fn in_maintenance<T>(
        &self,
        name: &str,
        call: impl FnOnce(&dyn Maintenance) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.guard(name, || call(self.inner.maintenance().expect("it said that it outlives the process")))
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

macro_rules! pass_on {
    ($trait:ident, $to:ident: $(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)* $(besides: $($own:tt)*)?) => {
        impl $trait for Guarded {
            $($($own)*)?
            $(fn $name(&self, $($arg: $type),*) -> Result<$result, BackendError> {
                self.$to(stringify!($name), |inner| inner.$name($($arg),*))
            })*
        }
    };
}

pass_on! { EventStore, backend:
    fn append(batch: &[Event]) -> ();
    fn take(batch: &mut Vec<Event>) -> ();
    fn append_as(owner: OwnerNo, batch: &[Event]) -> ();
    fn take_over(take_over: &TakeOver) -> bool;
}

pass_on! { RunHistory, backend:
    fn flow_run(id: FlowRunId) -> Option<FlowRun>;
    fn flow_runs(query: &FlowRunQuery, now: Timestamp) -> Vec<FlowRun>;
    fn task_runs(flow_run: FlowRunId) -> Vec<TaskRun>;
    fn task_run(id: TaskRunId) -> Option<TaskRun>;
    fn active_among(ids: &[RunId], at_most: usize) -> ActiveRuns;
    fn states(run: RunId) -> Vec<State>;
    fn logs(run: RunId) -> Vec<LogLine>;
}

pass_on! { RunSearch, backend:
    fn runs_called(text: &str, at_most: usize) -> Vec<RunId>;
    fn find_task_runs(query: &TaskRunQuery, now: Timestamp) -> Vec<TaskRun>;
    fn count_task_runs(flow_run: FlowRunId) -> Vec<(StateName, u64)>;
    fn active_subflows(flow_run: FlowRunId) -> Option<(u64, FlowRunId)>;
    fn logs_after(run: RunId, after: u64, at_most: usize) -> Vec<(u64, LogLine)>;
}

pass_on! { CacheIndex, backend:
    fn cached(key: &CacheKey) -> Option<CacheHit>;
}

pass_on! { CacheCare, backend:
    fn cache_entries(query: &CacheQuery) -> Vec<CacheEntry>;
    fn remove_cached(keys: &[CacheKey]) -> u64;
    fn clear_cache(task_key: Option<&str>) -> u64;
}

pass_on! { ResultIndex, backend:
    fn result(root: FlowRunId, key: &CacheKey) -> Option<CacheHit>;
    fn unreferenced_objects(store: &str, most: usize) -> Vec<String>;
    fn objects_deleted(store: &str, names: &[String]) -> ();
    fn objects_of(run: FlowRunId) -> Vec<String>;
    fn objects(skipped: usize, most: usize) -> Vec<StoredResult>;
    fn interrupted(most: usize) -> Vec<Interrupted>;
    fn swept(runs: &[Interrupted]) -> ();

    besides:
    fn let_go_of_results(&self, root: FlowRunId) {
        // Nobody waits for that.
        let _ = self.guard("let_go_of_results", || {
            self.inner.let_go_of_results(root);
            Ok(())
        });
    }
}

impl StateBackend for Guarded {
    fn in_process(&self) -> bool {
        self.in_process
    }

    fn recent_runs(&self) -> Option<Arc<RecentRuns>> {
        self.recent_runs.clone()
    }

    fn shared(&self) -> Option<&dyn Shared> {
        self.is_shared.then_some(self)
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        self.is_maintained.then_some(self)
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

pass_on! { Ownership, in_shared:
    fn join(process: &Process, until: Timestamp) -> OwnerNo;
    fn renew(owner: OwnerNo, until: Timestamp) -> ();
    fn leave(owner: OwnerNo, now: Timestamp) -> ();
    fn owners() -> Vec<Owner>;
    fn owner(no: OwnerNo) -> Option<Owner>;
    fn owner_of(run: RunId) -> Option<Owner>;
    fn expel(owner: &Owner, at: Timestamp, message: &str) -> Option<usize>;
}

pass_on! { SlotLeases, in_shared:
    fn limits(now: Timestamp) -> Vec<LimitRecord>;
    fn set_limit(name: &str, setting: LimitSetting, now: Timestamp) -> ();
    fn declare_limit(name: &str, setting: LimitSetting, now: Timestamp) -> ();
    fn remove_limit(name: &str) -> bool;
    fn trade(owner: OwnerNo, trade: &SlotTrade, now: Timestamp) -> SlotNews;
    fn look(owner: OwnerNo, now: Timestamp) -> SlotNews;
    fn version() -> u64;
    fn waits_of(run: RunId) -> Vec<SlotWait>;
    fn waiting_before(part: &str, at: Timestamp) -> usize;
    fn standing(limit: &str, place: SlotPlace, most_holders: usize, now: Timestamp) -> Option<SlotStanding>;
}

pass_on! { ClaimLeases, in_shared:
    fn claim(owner: OwnerNo, over: &[(CacheKey, u64)], asks: &[ClaimRequest], now: Timestamp) -> Vec<Claimed>;
    fn claimed(owner: OwnerNo, keys: &[CacheKey]) -> Vec<bool>;
}

pass_on! { Crashes, in_shared:
    fn uncalled() -> Vec<Crash>;
    fn take_hooks(owner: OwnerNo, run: RunId) -> bool;
    fn crashed(key: &str) -> Vec<(FlowRunId, u32)>;
    fn leave_crashed(run: FlowRunId, times: u32) -> bool;
    fn uncount(run: FlowRunId) -> ();
}

pass_on! { Requests, in_shared:
    fn request(owner: OwnerNo, run: RunId, wanted: &Wanted, now: Timestamp) -> Option<RequestNo>;
    fn take_requests(owner: OwnerNo) -> Vec<Request>;
    fn answer(request: RequestNo, answer: &Answer) -> ();
    fn answered(request: RequestNo) -> Option<Answer>;
    fn withdraw(request: RequestNo) -> ();
}

impl Shared for Guarded {}

pass_on! { Maintenance, in_maintenance:
    fn info() -> StoreInfo;
    fn compact() -> Compacted;
    fn check() -> Vec<Finding>;
    fn remove(runs: &[RunId]) -> Removal;
    fn prunable(policy: &Retention, now: Timestamp) -> Removed;
    fn last_pruned() -> Option<Timestamp>;

    besides:
    fn prune<'s>(&'s self, policy: &Retention, now: Timestamp) -> Result<Option<Box<dyn Pruning + 's>>, BackendError> {
        self.guard("prune", || {
            let inner = self.inner.maintenance().expect("it said that it outlives the process");
            Ok(inner.prune(policy, now)?.map(|inner| Box::new(GuardedPruning { inner, guard: self }) as _))
        })
    }
}

#[derive(Debug)]
struct GuardedPruning<'s> {
    inner: Box<dyn Pruning + 's>,
    guard: &'s Guarded,
}

impl Pruning for GuardedPruning<'_> {
    fn step(&mut self, now: Timestamp) -> Result<Option<Removed>, BackendError> {
        self.guard.guard("step", || self.inner.step(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::conformance;
    use super::*;
    use crate::backend::memory::MemoryBackend;
    use crate::backend::sqlite::SqliteBackend;

    #[test]
    fn what_is_guarded_does_the_same() {
        conformance::check(|| Arc::new(Guarded::around(Arc::new(MemoryBackend::new()))));
        let folder = tempfile::tempdir().expect("a folder");
        let number = AtomicUsize::new(0);
        conformance::check(|| {
            let path = folder.path().join(format!("{}.db", number.fetch_add(1, Ordering::Relaxed)));
            Arc::new(Guarded::around(Arc::new(SqliteBackend::open(path).expect("it opens"))))
        });
    }
}
