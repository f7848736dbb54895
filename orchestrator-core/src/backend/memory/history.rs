//! The history in memory, sorted by run.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::run::{Amendment, Arrival, Run};
use crate::backend::record::{Event, LogRecord, RunEvent};
use crate::id::{FlowRunId, RunId, TaskRunId};

pub(super) type ById<K, V> = DashMap<K, V, BuildHasherDefault<IdHasher>>;

/// What is known of runs.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) flows: ById<FlowRunId, Run>,
    pub(super) tasks: ById<TaskRunId, Run>,
    /// The task runs of each flow run, in the order of their first events.
    pub(super) tasks_of: ById<FlowRunId, Vec<TaskRunId>>,
    /// Each line with its number.
    pub(super) logs: ById<RunId, Vec<(u64, LogRecord)>>,
    /// How many log lines there were.
    lines: AtomicU64,
}

impl History {
    pub(super) fn take_up(&self, event: &Event) {
        match event {
            Event::Run(event) => {
                if let (Arrival::New, Some(flow_run), RunId::Task(id)) =
                    (self.arrived(event), event.run.flow_run, event.run.id)
                {
                    self.tasks_of.entry(flow_run).or_default().push(id);
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
            Event::Cached(_) | Event::Persisted(_) | Event::Discarded { .. } => {}
        }
    }

    /// Takes up a run event, and says whether the run was unknown.
    fn arrived(&self, event: &RunEvent) -> Arrival {
        match event.run.id {
            RunId::Flow(id) => Run::take_up(self.flows.entry(id), event),
            RunId::Task(id) => Run::take_up(self.tasks.entry(id), event),
        }
    }

    fn amend(&self, run: RunId, change: impl FnOnce(&mut Amendment)) {
        match run {
            RunId::Flow(id) => change(self.flows.entry(id).or_default().amend()),
            RunId::Task(id) => change(self.tasks.entry(id).or_default().amend()),
        }
    }

    pub(super) fn read<T>(&self, run: RunId, look: impl FnOnce(&Run) -> T) -> Option<T> {
        match run {
            RunId::Flow(id) => self.flows.get(&id).map(|run| look(&run)),
            RunId::Task(id) => self.tasks.get(&id).map(|run| look(&run)),
        }
    }
}

/// A fast hash, which is enough for ids: 62 of their bits are random, and nobody else chooses them.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

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
