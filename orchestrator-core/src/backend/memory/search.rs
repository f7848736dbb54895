//! Finds runs among many, and looks after cached results.

use std::cmp::Reverse;

use super::{MemoryBackend, log_line};
use crate::backend::record::{CacheEntry, CacheKey, CacheQuery, CachedValue, LogLine, TaskRun, TaskRunQuery};
use crate::backend::{BackendError, CacheCare, RunSearch};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId};
use crate::state::StateName;

impl RunSearch for MemoryBackend {
    fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, BackendError> {
        let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        let is_hex = !digits.is_empty() && !text.starts_with('-') && digits.bytes().all(|c| c.is_ascii_hexdigit());
        if is_hex {
            let simple = |id: RunId| id.as_uuid().simple().to_string();
            let mut found = self.found(at_most, |id, _| simple(id).starts_with(&digits));
            if found.is_empty() {
                found = self.found(at_most, |id, _| simple(id).ends_with(&digits));
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(self.found(at_most, |_, name| name == text))
    }

    fn find_task_runs(&self, query: &TaskRunQuery, now: Timestamp) -> Result<Vec<TaskRun>, BackendError> {
        let history = self.history();
        let runs = history.tasks.iter().filter(|entry| entry.value().matches_task(query, now));
        let mut found: Vec<_> = runs.map(|entry| *entry.key()).collect();
        found.sort_unstable_by_key(|id| Reverse(*id));
        found.truncate(query.max());
        Ok(found.into_iter().filter_map(|id| history.tasks.get(&id)?.to_task_run()).collect())
    }

    fn count_task_runs(&self, flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError> {
        let mut counts = [0; StateName::ALL.len()];
        let history = self.history();
        let ids = history.tasks_of.get(&flow_run).map(|ids| ids.clone()).unwrap_or_default();
        for name in ids.into_iter().filter_map(|id| history.tasks.get(&id)?.state_name()) {
            counts[name as usize] += 1;
        }
        Ok(StateName::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect())
    }

    fn active_subflows(&self, flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError> {
        let history = self.history();
        let is_active = |run: &super::Run| {
            run.flow_run() == Some(flow_run) && run.state_name().is_some_and(|state| !state.kind().is_terminal())
        };
        let active = history.flows.iter().filter(|entry| is_active(entry.value())).map(|entry| (1, *entry.key()));
        Ok(active.reduce(|(count, first), (one, run)| (count + one, first.min(run))))
    }

    fn logs_after(&self, run: RunId, after: u64, at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError> {
        let history = self.history();
        let is_inside = |mut id: RunId| loop {
            if id == run {
                return true;
            }
            match history.read(id, super::Run::flow_run).flatten() {
                Some(flow_run) if run.as_flow().is_some() => id = flow_run.into(),
                _ => return false,
            }
        };
        // Collected first, so that no two locks are held at a time.
        let runs: Vec<RunId> = history.logs.iter().map(|entry| *entry.key()).collect();
        let mut found = Vec::new();
        for id in runs.into_iter().filter(|id| is_inside(*id)) {
            let Some(records) = history.logs.get(&id) else { continue };
            let late = records.iter().filter(|(number, _)| *number > after);
            found.extend(late.map(|(number, record)| (*number, log_line(record))));
        }
        found.sort_by_key(|(number, _)| *number);
        found.truncate(at_most);
        Ok(found)
    }
}

impl MemoryBackend {
    fn found(&self, at_most: usize, is_meant: impl Fn(RunId, &str) -> bool) -> Vec<RunId> {
        let newest = |mut ids: Vec<RunId>| {
            ids.sort_unstable_by_key(|id| Reverse(*id));
            ids.truncate(at_most);
            ids
        };
        let history = self.history();
        let flows = history.flows.iter().filter_map(|entry| {
            let id = RunId::Flow(*entry.key());
            is_meant(id, &entry.value().shown_name()?).then_some(id)
        });
        let flows = newest(flows.collect());
        let tasks = history.tasks.iter().filter_map(|entry| {
            let id = RunId::Task(*entry.key());
            is_meant(id, &entry.value().shown_name()?).then_some(id)
        });
        [flows, newest(tasks.collect())].concat()
    }
}

impl CacheCare for MemoryBackend {
    fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError> {
        let is_wanted = |key: &CacheKey, task: &str| {
            key.to_string().starts_with(query.digits()) && query.wanted_task().is_none_or(|wanted| task == wanted)
        };
        let entries = self.cache.iter().filter(|entry| is_wanted(entry.key(), entry.value().0));
        let mut entries: Vec<_> = entries
            .map(|entry| {
                let (task_key, hit) = entry.value();
                let encoded = match &hit.value {
                    CachedValue::Encoded(value) => Some(value),
                    CachedValue::Live(_) | CachedValue::Stored(_) => None,
                };
                CacheEntry {
                    key: *entry.key(),
                    task_key: (*task_key).to_owned(),
                    run: hit.run,
                    created: hit.created.to_datetime(),
                    expires: hit.expires.map(Timestamp::to_datetime),
                    bytes: encoded.map(|value| value.bytes.len() as u64),
                    format: encoded.map(|value| value.format.to_string()),
                    type_name: encoded.map(|value| value.type_name.to_string()),
                }
            })
            .collect();
        entries.sort_unstable_by_key(|entry| (Reverse(entry.created), entry.key));
        entries.truncate(query.max());
        Ok(entries)
    }

    fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, BackendError> {
        // What is removed is a user's value: it is dropped when no lock of the map is held.
        let removed: Vec<_> = keys.iter().filter_map(|key| self.cache.remove(key)).collect();
        Ok(removed.len() as u64)
    }

    fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, BackendError> {
        let entries = self.cache.iter().filter(|entry| task_key.is_none_or(|wanted| entry.value().0 == wanted));
        let keys: Vec<CacheKey> = entries.map(|entry| *entry.key()).collect();
        self.remove_cached(&keys)
    }
}
