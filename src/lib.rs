//! Data pipelines in ordinary Rust: annotate functions with [`task`] and [`flow`], and a runtime gives them tracked
//! run states, dependencies inferred from futures, retries, caching, concurrency limits and a history.
//!
//! ```
//! use orchestrator::prelude::*;
//!
//! #[task(retries = 3, retry_delay_secs = 0.1)]
//! async fn length(text: String) -> usize {
//!     text.len()
//! }
//!
//! #[task] // a sync body runs on the blocking pool
//! fn total(lengths: &[usize]) -> usize {
//!     lengths.iter().sum()
//! }
//!
//! #[flow]
//! async fn lengths(texts: Vec<String>) -> Result<usize, TaskError> {
//!     let lengths = length::map(texts); // one task run for each text
//!     total(lengths).await // waits for all of them
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # Orchestrator::in_memory().scope(async {
//! assert_eq!(lengths(vec!["a".to_owned(), "bcd".to_owned()]).await.unwrap(), 4);
//! # }).await;
//! # }
//! ```

// Grouped by subject.
pub use orchestrator_core::{Acquiring, Limit, RateLimited, SetLimit, SlotGuard, concurrency, rate_limit};
pub use orchestrator_core::{
    AsCompleted, Awaitable, FlowFuture, Indexed, JoinAll, MapFuture, Settled, Shared, StartedFlow, Tally, TaskFuture,
    Upstream, WaitState, all_completed, as_completed, join_all, wait_all,
};
pub use orchestrator_core::{BackendError, Error, FlowError, Result, TaskError};
pub use orchestrator_core::{CacheEntry, CacheKey, CacheLook, CacheQuery, CacheReason, CrashBudget};
pub use orchestrator_core::{CachePolicy, Configured, Delay};
pub use orchestrator_core::{Clock, Orchestrator, OrchestratorBuilder, SystemClock, Timestamp, TokioClock};
pub use orchestrator_core::{CommitMode, Transaction, TransactionBuilder, TransactionError, transaction};
pub use orchestrator_core::{Compacted, Finding, ParseRetentionError, Removed, Retention, StoreInfo, TableInfo};
pub use orchestrator_core::{
    Elsewhere, Explanation, LimitWait, RunRef, RunRefs, SlotHolder, UnfinishedFlows, UnfinishedTasks, WaitingTasks, Why,
};
pub use orchestrator_core::{
    FlowInfo, FlowParameter, ParameterError, PreparedCall, Resume, flows, prepare_call, registered,
};
pub use orchestrator_core::{
    FlowRun, FlowRunId, FlowRunQuery, LogLine, ParseIdError, Pause, RunId, State, StateFilter, StateName, StateType,
    TaskRun, TaskRunId, TaskRunQuery, Transition,
};
pub use orchestrator_core::{
    Gather, Gathered, Input, IntoInput, IntoMapInput, Ready, Unmapped, gather, ready, unmapped,
};
pub use orchestrator_core::{InCurrentRun, Placed, RunContext, abandoned_bodies};
pub use orchestrator_core::{Observed, Observer, StateBackend, backend, capture_layer};
pub use orchestrator_core::{PauseFlowRun, pause_flow_run, pause_for_input, schemars};
pub use orchestrator_core::{ResultStore, results};
pub use orchestrator_macros::{flow, task, test};

#[cfg(feature = "cli")]
mod command_line;
#[cfg(feature = "cli")]
pub use command_line::cli;

#[doc(hidden)]
pub use orchestrator_core::__private;

/// What pipelines need: `use orchestrator::prelude::*;`.
pub mod prelude {
    pub use crate::testing::Replace as _;
    pub use crate::{
        FlowFuture, FlowRun, InCurrentRun, MapFuture, Orchestrator, RunContext, State, StateType, TaskError,
        TaskFuture, TaskRun, concurrency, flow, gather, pause_flow_run, pause_for_input, rate_limit, task, transaction,
        unmapped, wait_all,
    };
}

/// What tests of pipelines need: fakes in the place of tasks, a log of what the runs did, assertions on states.
///
/// `#[orchestrator::test]` gives a test an orchestrator of its own, which keeps an [`EventLog`](testing::EventLog).
/// `replace`, a method of [`Replace`](testing::Replace) that the prelude brings, puts a fake in the place of a task or
/// flow, and [`assert_states`](testing::assert_states) looks at what one run went through.
///
/// ```test_harness
/// use orchestrator::prelude::*;
/// use orchestrator::testing::{EventLog, assert_states};
///
/// #[task(retries = 1)]
/// async fn fetch(url: String) -> Result<usize, std::io::Error> {
///     Err(std::io::Error::other(format!("no network for {url}")))
/// }
///
/// #[orchestrator::test]
/// async fn a_second_attempt_is_enough() {
///     Orchestrator::current().replace::<fetch>(|url| match RunContext::current().attempt() {
///         1 => Err(std::io::Error::other("no answer")),
///         _ => Ok(url.len()),
///     });
///     let run = fetch("abc");
///     assert_eq!((&run).await.unwrap(), 3);
///     assert_states(&run, ["Pending", "Running", "Retrying", "Completed"]).await;
///     EventLog::current().assert_eq(
///         "
///         fetch-0: Pending
///         fetch-0: Running
///         fetch-0: Retrying (attempt 1 of 2 failed: no answer)
///         fetch-0: Completed
///         ",
///     );
/// }
/// ```
pub mod testing {
    pub use orchestrator_core::testing::{
        AssertStates, Borrowed, EventLog, FakeOutcome, Function, Given, Replace, assert_states, fails, gives,
    };
}

/// The programs in the README compile and run as they stand there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
