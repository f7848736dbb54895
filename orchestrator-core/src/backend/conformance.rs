//! The suite that every backend must pass; what a backend has to do is what stands here.
//!
//! New behaviour starts as a case in this folder.

mod caching;
mod claiming;
mod crashing;
mod history;
mod listing;
mod ownership;
mod replay;
mod requests;
mod results;
mod resuming;
mod sample;
mod searching;
mod serving;
mod together;

#[cfg(test)]
mod agreement;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::StateBackend;

/// One requirement; it is given a store that nobody else uses.
type Case = fn(&Arc<dyn StateBackend>);

/// Checks that a backend does what is asked of all of them; `make` makes an empty store at each call.
///
/// # Panics
///
/// If the backend fails in any case; the message names each of them.
pub fn check(make: impl Fn() -> Arc<dyn StateBackend>) {
    let suites = [
        history::CASES,
        listing::CASES,
        replay::CASES,
        caching::CASES,
        results::CASES,
        searching::CASES,
        resuming::CASES,
        together::CASES,
        ownership::CASES,
        requests::CASES,
        serving::CASES,
        claiming::CASES,
        crashing::CASES,
    ];
    let failures: Vec<String> = suites
        .concat()
        .into_iter()
        .filter_map(|(name, case)| {
            let outcome = catch_unwind(AssertUnwindSafe(|| case(&make())));
            outcome.err().map(|panic| format!("- {name}: {}", message(&*panic)))
        })
        .collect();
    assert!(failures.is_empty(), "the backend does not conform:\n{}", failures.join("\n"));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;
    use crate::backend::record::{
        CacheEntry, CacheHit, CacheKey, CacheQuery, Event, FlowRun, FlowRunQuery, LogLine, TakeOver, TaskRun,
        TaskRunQuery,
    };
    use crate::backend::{BackendError, CacheCare, CacheIndex, EventStore, ResultIndex, RunHistory, RunSearch};
    use crate::clock::Timestamp;
    use crate::id::{FlowRunId, RunId, TaskRunId};
    use crate::state::{State, StateName};

    /// A backend that takes everything and keeps nothing.
    #[derive(Debug)]
    struct Forgetful(MemoryBackend);

    impl EventStore for Forgetful {
        fn append(&self, _: &[Event]) -> Result<(), BackendError> {
            Ok(())
        }

        fn take_over(&self, _: &TakeOver) -> Result<bool, BackendError> {
            Ok(true)
        }
    }

    impl RunHistory for Forgetful {
        fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
            self.0.flow_run(id)
        }

        fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
            self.0.flow_runs(query, now)
        }

        fn task_runs(&self, flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError> {
            self.0.task_runs(flow_run)
        }

        fn task_run(&self, id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
            self.0.task_run(id)
        }

        fn states(&self, run: RunId) -> Result<Vec<State>, BackendError> {
            self.0.states(run)
        }

        fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError> {
            self.0.logs(run)
        }
    }

    impl RunSearch for Forgetful {
        fn runs_called(&self, text: &str, at_most: usize) -> Result<Vec<RunId>, BackendError> {
            self.0.runs_called(text, at_most)
        }

        fn find_task_runs(&self, query: &TaskRunQuery, now: Timestamp) -> Result<Vec<TaskRun>, BackendError> {
            self.0.find_task_runs(query, now)
        }

        fn count_task_runs(&self, flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError> {
            self.0.count_task_runs(flow_run)
        }

        fn active_subflows(&self, flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError> {
            self.0.active_subflows(flow_run)
        }

        fn logs_after(&self, run: RunId, after: u64, at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError> {
            self.0.logs_after(run, after, at_most)
        }
    }

    impl CacheIndex for Forgetful {
        fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
            self.0.cached(key)
        }
    }

    impl CacheCare for Forgetful {
        fn cache_entries(&self, query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError> {
            self.0.cache_entries(query)
        }

        fn remove_cached(&self, keys: &[CacheKey]) -> Result<u64, BackendError> {
            self.0.remove_cached(keys)
        }

        fn clear_cache(&self, task_key: Option<&str>) -> Result<u64, BackendError> {
            self.0.clear_cache(task_key)
        }
    }

    impl ResultIndex for Forgetful {
        fn result(&self, root: FlowRunId, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
            self.0.result(root, key)
        }
    }

    impl StateBackend for Forgetful {
        fn location(&self) -> String {
            "nowhere".to_owned()
        }
    }

    #[test]
    fn a_backend_that_does_not_conform_is_told_every_case() {
        let outcome = catch_unwind(|| check(|| Arc::new(Forgetful(MemoryBackend::new()))));
        let panic = outcome.expect_err("nothing was kept");
        let text = message(&*panic);
        assert!(text.contains("\n- a task run comes back as it was sent: "), "{text}");
        assert!(text.contains("\n- log lines come back in order: "), "{text}");
    }
}
