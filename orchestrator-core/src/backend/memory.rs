//! The backend that keeps everything in this process.
//!
//! It is on the hot path: what comes is kept as it comes, and is sorted by run only when someone asks for a run. Whoever asks
//! first pays for all that came before, less than a microsecond for each run.

mod history;
mod run;
mod search;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{
    CacheHit, CacheKey, CacheRecord, CachedValue, Event, FlowRun, FlowRunQuery, LogLine, LogRecord, ResultRecord,
    TakeOver, TaskRun,
};
use super::{BackendError, CacheIndex, EventStore, RecentRuns, ResultIndex, RunHistory, StateBackend};
use crate::clock::Timestamp;
use crate::engine::panics;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::State;
use dashmap::DashMap;
use history::History;
use run::Run;

/// So many results are put into the cache at least between two searches for expired ones.
const PRUNE_EVERY: usize = 1024;
/// Smaller batches of events are kept together up to that number.
const BATCH: usize = 1024;

/// History and cache in memory; nothing outlives the value.
///
/// Cached values are kept in the form that they come in, [`Live`](super::record::CachedValue::Live) ones included.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    /// Most task runs that nobody has asked for yet.
    recent: Arc<RecentRuns>,
    /// What else came since, in batches.
    events: Mutex<Vec<Vec<Event>>>,
    sorting: Mutex<()>,
    /// Asked for by way of [`history`](Self::history) only.
    sorted: History,
    /// Each result with the key of its task.
    cache: DashMap<CacheKey, (&'static str, CacheHit)>,
    results: DashMap<CacheKey, CacheHit>,
    /// Objects that no result refers to any more: store and name.
    unreferenced: Mutex<BTreeSet<(Arc<str>, String)>>,
    /// How many more results may be put into the cache before expired ones are searched for.
    prune_in: AtomicUsize,
}

impl MemoryBackend {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The history, all that came included.
    fn history(&self) -> &History {
        // Held while events are sorted in, so that nobody sees a part of them. Those who bring more do not wait for it.
        let _sorting = self.sorting.lock().unwrap_or_else(PoisonError::into_inner);
        // Both under one lock, as a batch is taken. The runs come first: what an event adds to one comes later.
        let (runs, events) = {
            let mut events = self.events();
            (self.recent.take(), std::mem::take(&mut *events))
        };
        runs.chain(events.into_iter().flatten()).for_each(|event| self.sorted.take_up(&event));
        &self.sorted
    }

    fn events(&self) -> MutexGuard<'_, Vec<Vec<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what is found by its key, and gives back what belongs to the history.
    fn take_up<'e>(&self, event: &'e Event) -> Option<&'e Event> {
        match event {
            Event::Run(_)
            | Event::Parameters { .. }
            | Event::Renamed { .. }
            | Event::Upstream { .. }
            | Event::Paused { .. }
            | Event::Log(_) => return Some(event),
            Event::Cached(record) => self.insert_cached(record),
            Event::Persisted(record) => self.insert_result(record),
            Event::Discarded { root: _, key } => self.discard(key),
        }
        None
    }

    fn insert_result(&self, record: &ResultRecord) {
        let ResultRecord { key, run, created, ref value, .. } = *record;
        let hit = CacheHit { run, created, expires: None, value: value.clone() };
        let kept = self.results.entry(key).or_insert(hit).value.clone();
        if let CachedValue::Stored(stored) = value
            && !matches!(&kept, CachedValue::Stored(kept) if (&kept.store, &kept.location) == (&stored.store, &stored.location))
        {
            self.unreferenced().insert((Arc::clone(&stored.store), stored.location.clone()));
        }
    }

    fn discard(&self, key: &CacheKey) {
        let discarded = self.results.remove(key);
        if let Some((_, CacheHit { value: CachedValue::Stored(stored), .. })) = &discarded {
            self.unreferenced().insert((Arc::clone(&stored.store), stored.location.clone()));
        }
        panics::let_go(discarded);
    }

    fn unreferenced(&self) -> MutexGuard<'_, BTreeSet<(Arc<str>, String)>> {
        self.unreferenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert_cached(&self, record: &CacheRecord) {
        let CacheRecord { key, task_key, run, created, expires, ref value, .. } = *record;
        panics::let_go(self.cache.insert(key, (task_key, CacheHit { run, created, expires, value: value.clone() })));
        // There is no clock here: what had expired when this result was made is expired for everyone.
        let left = |left: usize| Some(left.checked_sub(1).unwrap_or_else(|| self.cache.len().max(PRUNE_EVERY)));
        if self.prune_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) == Ok(0) {
            // They are values of the user's, and are dropped outside of the locks.
            let mut expired = Vec::new();
            self.cache.retain(|_, (_, hit)| {
                let fresh = hit.is_fresh(created);
                if !fresh {
                    expired.push(hit.value.clone());
                }
                fresh
            });
            panics::let_go(expired);
        }
    }
}

impl ResultIndex for MemoryBackend {
    fn result(&self, _root: FlowRunId, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        Ok(self.results.get(key).map(|hit| hit.clone()))
    }

    fn unreferenced_objects(&self, store: &str, most: usize) -> Result<Vec<String>, BackendError> {
        let unreferenced = self.unreferenced();
        let of_store = unreferenced.iter().filter(|(of, _)| **of == *store);
        Ok(of_store.take(most).map(|(_, name)| name.clone()).collect())
    }

    fn objects_deleted(&self, store: &str, names: &[String]) -> Result<(), BackendError> {
        self.unreferenced().retain(|(of, name)| **of != *store || !names.contains(name));
        Ok(())
    }
}

impl EventStore for MemoryBackend {
    fn append(&self, batch: &[Event]) -> Result<(), BackendError> {
        self.take(&mut batch.to_vec())
    }

    fn take(&self, batch: &mut Vec<Event>) -> Result<(), BackendError> {
        // Results, and what they replace, are of others: they are dropped outside of the lock.
        batch.retain(|event| self.take_up(event).is_some());
        let mut events = self.events();
        self.recent.take_from(batch);
        match events.last_mut() {
            _ if batch.is_empty() => {}
            Some(last) if last.len() + batch.len() <= BATCH => last.append(batch),
            Some(_) | None => events.push(std::mem::take(batch)),
        }
        Ok(())
    }

    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError> {
        Ok(self.history().flows.get_mut(&take_over.run).is_some_and(|mut run| run.take_over(take_over)))
    }
}

impl RunHistory for MemoryBackend {
    fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
        self.history().flows.get(&id).and_then(|run| run.to_flow_run(id)).transpose()
    }

    fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
        let mut found: Vec<(Timestamp, FlowRunId)> = self
            .history()
            .flows
            .iter()
            .filter(|entry| entry.value().matches(query, now))
            .filter_map(|entry| Some((entry.value().created()?, *entry.key())))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(query.max());
        found.into_iter().filter_map(|(_, id)| self.flow_run(id).transpose()).collect()
    }

    fn task_runs(&self, flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError> {
        let history = self.history();
        // The list is copied so that no two locks are held at a time.
        let ids = history.tasks_of.get(&flow_run).map(|ids| ids.clone()).unwrap_or_default();
        let mut runs: Vec<TaskRun> = ids.into_iter().filter_map(|id| history.tasks.get(&id)?.to_task_run()).collect();
        runs.sort_by_key(|run| (run.created, run.id));
        Ok(runs)
    }

    fn task_run(&self, id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
        Ok(self.history().tasks.get(&id).and_then(|run| run.to_task_run()))
    }

    fn states(&self, run: RunId) -> Result<Vec<State>, BackendError> {
        Ok(self.history().read(run, Run::states).unwrap_or_default())
    }

    fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError> {
        let mut lines: Vec<LogLine> = self
            .history()
            .logs
            .get(&run)
            .map(|records| records.iter().map(|(_, record)| log_line(record)).collect())
            .unwrap_or_default();
        lines.sort_by_key(|line| line.timestamp);
        Ok(lines)
    }
}

impl CacheIndex for MemoryBackend {
    fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        Ok(self.cache.get(key).map(|entry| entry.1.clone()))
    }
}

impl StateBackend for MemoryBackend {
    fn in_process(&self) -> bool {
        true
    }

    fn recent_runs(&self) -> Option<Arc<RecentRuns>> {
        Some(Arc::clone(&self.recent))
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

fn log_line(record: &LogRecord) -> LogLine {
    LogLine {
        run: record.run,
        timestamp: record.at.to_datetime(),
        level: record.level.to_owned(),
        target: record.target.clone(),
        message: record.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::conformance;
    use super::*;

    #[test]
    fn conforms() {
        conformance::check(|| Arc::new(MemoryBackend::new()));
    }

    fn record(key: u64, created: i64, expires: i64, value: CachedValue) -> CacheRecord {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        let created = Timestamp::from_micros(created);
        CacheRecord {
            key: CacheKey(bytes),
            task_key: "a::b",
            run: TaskRunId::new(created),
            created,
            expires: Some(Timestamp::from_micros(expires)),
            value,
        }
    }

    #[test]
    fn live_values_are_shared() {
        let backend = MemoryBackend::new();
        let value: Arc<dyn std::any::Any + Send + Sync> = Arc::new("a value");
        let record = record(1, 10, 20, CachedValue::Live(Arc::clone(&value)));
        backend.append(&[Event::Cached(Box::new(record.clone()))]).expect("append");
        let hit = backend.cached(&record.key).expect("look").expect("it is there");
        assert!(matches!(hit.value, CachedValue::Live(found) if Arc::ptr_eq(&found, &value)));
    }

    #[test]
    fn expired_results_do_not_pile_up() {
        let backend = MemoryBackend::new();
        let value: Arc<dyn std::any::Any + Send + Sync> = Arc::new(());
        for n in 0..50_000 {
            let record = record(n, n as i64, n as i64 + 10, CachedValue::Live(Arc::clone(&value)));
            backend.append(&[Event::Cached(Box::new(record))]).expect("append");
        }
        assert!(backend.cache.len() < 5_000, "{} results are kept", backend.cache.len());
    }

    /// Looks into the cache when it is dropped, as a value of the user's may.
    struct Looks {
        backend: Arc<MemoryBackend>,
        key: CacheKey,
        done: mpsc::Sender<()>,
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            drop(self.backend.cached(&self.key));
            self.done.send(()).expect("somebody waits for it");
        }
    }

    #[test]
    fn values_that_have_expired_are_dropped_outside_of_the_locks() {
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let backend = Arc::new(MemoryBackend::new());
            let put = |record| backend.append(&[Event::Cached(Box::new(record))]).expect("append");
            let (other, key) = (Arc::clone(&backend), record(0, 0, 1, CachedValue::Live(Arc::new(()))).key);
            put(record(0, 0, 1, CachedValue::Live(Arc::new(Looks { backend: other, key, done }))));
            // Some later one looks for those that have expired.
            for n in 1..=2 * PRUNE_EVERY as u64 {
                put(record(n, 2, 9, CachedValue::Live(Arc::new(n))));
            }
        });
        is_done.recv_timeout(Duration::from_secs(20)).expect("it is dropped, and waits for no lock");
    }
}
