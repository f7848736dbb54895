//! The backend that keeps everything in this process.
//!
//! It is on the hot path: a run that arrives with all its transitions costs one insertion, identities are shared with
//! the engine, and read models are built only when someone reads.

mod run;
mod search;

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use smallvec::SmallVec;

use super::record::{
    CacheHit, CacheKey, CacheRecord, CachedValue, Event, FlowRun, FlowRunQuery, LogLine, LogRecord, ResultRecord,
    RunEvent, TakeOver, TaskRun,
};
use super::{BackendError, CacheIndex, EventStore, ResultIndex, RunHistory, StateBackend};
use crate::clock::Timestamp;
use crate::engine::panics;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::State;
use run::{Amendment, Arrival, Run};

/// So many results are put into the cache at least between two searches for expired ones.
const PRUNE_EVERY: usize = 1024;

type ById<K, V> = DashMap<K, V, BuildHasherDefault<IdHasher>>;

/// History and cache in memory; nothing outlives the value.
///
/// Cached values are kept in the form that they come in, [`Live`](super::record::CachedValue::Live) ones included.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    flows: ById<FlowRunId, Run>,
    tasks: ById<TaskRunId, Run>,
    /// The task runs of each flow run, in the order of their first events.
    tasks_of: ById<FlowRunId, Vec<TaskRunId>>,
    /// Each line with its number.
    logs: ById<RunId, Vec<(u64, LogRecord)>>,
    /// How many log lines there were.
    lines: AtomicU64,
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

    fn amend(&self, run: RunId, change: impl FnOnce(&mut Amendment)) {
        match run {
            RunId::Flow(id) => change(self.flows.entry(id).or_default().amend()),
            RunId::Task(id) => change(self.tasks.entry(id).or_default().amend()),
        }
    }

    fn read<T>(&self, run: RunId, look: impl FnOnce(&Run) -> T) -> Option<T> {
        match run {
            RunId::Flow(id) => self.flows.get(&id).map(|run| look(&run)),
            RunId::Task(id) => self.tasks.get(&id).map(|run| look(&run)),
        }
    }

    /// Takes up a run event, and says whether the run was unknown.
    fn take_up(&self, event: &RunEvent) -> Arrival {
        match event.run.id {
            RunId::Flow(id) => Run::take_up(self.flows.entry(id), event),
            RunId::Task(id) => Run::take_up(self.tasks.entry(id), event),
        }
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
        self.cache.insert(key, (task_key, CacheHit { run, created, expires, value: value.clone() }));
        // There is no clock here: what had expired when this result was made is expired for everyone.
        let left = |left: usize| Some(left.checked_sub(1).unwrap_or_else(|| self.cache.len().max(PRUNE_EVERY)));
        if self.prune_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) == Ok(0) {
            self.cache.retain(|_, (_, hit)| hit.is_fresh(created));
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
        let mut newcomers = Newcomers { of: None, ids: SmallVec::new() };
        for event in batch {
            match event {
                Event::Run(event) => {
                    if let (Arrival::New, Some(flow_run), RunId::Task(id)) =
                        (self.take_up(event), event.run.flow_run, event.run.id)
                    {
                        newcomers.push(flow_run, id, self);
                    }
                }
                Event::Parameters { run, json } => {
                    self.amend(RunId::Flow(*run), |run| run.parameters = Some(json.as_str().into()));
                }
                Event::Paused { run, pause } => {
                    self.amend(RunId::Flow(*run), |run| run.pause = Some(Arc::clone(pause)));
                }
                Event::Renamed { run, name } => self.amend(*run, |run| run.name = Some(Arc::clone(name))),
                Event::Upstream { run, upstream } => self.amend(*run, |run| run.upstream = Some(upstream.clone())),
                Event::Log(record) => {
                    let number = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
                    self.logs.entry(record.run).or_default().push((number, record.clone()));
                }
                Event::Cached(record) => self.insert_cached(record),
                Event::Persisted(record) => self.insert_result(record),
                Event::Discarded { root: _, key } => self.discard(key),
            }
        }
        newcomers.settle(self);
        Ok(())
    }

    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError> {
        Ok(self.flows.get_mut(&take_over.run).is_some_and(|mut run| run.take_over(take_over)))
    }
}

impl RunHistory for MemoryBackend {
    fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
        self.flows.get(&id).and_then(|run| run.to_flow_run(id)).transpose()
    }

    fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
        let mut found: Vec<(Timestamp, FlowRunId)> = self
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
        // The list is copied so that no two locks are held at a time.
        let ids = self.tasks_of.get(&flow_run).map(|ids| ids.clone()).unwrap_or_default();
        let mut runs: Vec<TaskRun> = ids.into_iter().filter_map(|id| self.tasks.get(&id)?.to_task_run()).collect();
        runs.sort_by_key(|run| (run.created, run.id));
        Ok(runs)
    }

    fn task_run(&self, id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
        Ok(self.tasks.get(&id).and_then(|run| run.to_task_run()))
    }

    fn states(&self, run: RunId) -> Result<Vec<State>, BackendError> {
        Ok(self.read(run, Run::states).unwrap_or_default())
    }

    fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError> {
        let mut lines: Vec<LogLine> = self
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

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// Task runs of one flow run that a batch told of first, on their way to the index.
struct Newcomers {
    of: Option<FlowRunId>,
    ids: SmallVec<[TaskRunId; 4]>,
}

impl Newcomers {
    fn push(&mut self, flow_run: FlowRunId, id: TaskRunId, backend: &MemoryBackend) {
        if self.of != Some(flow_run) {
            self.settle(backend);
            self.of = Some(flow_run);
        }
        self.ids.push(id);
    }

    fn settle(&mut self, backend: &MemoryBackend) {
        if let Some(flow_run) = self.of.take() {
            backend.tasks_of.entry(flow_run).or_default().extend(self.ids.drain(..));
        }
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

/// A fast hash, which is enough for ids: 62 of their bits are random, and nobody else chooses them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // The golden ratio, as in Fibonacci hashing: the map takes the shard from the upper bits.
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
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
}
