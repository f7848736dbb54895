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

pub use orchestrator_core::{
    AsCompleted, Awaitable, BackendError, CachePolicy, Clock, Configured, Delay, Error, FlowError, FlowFuture, FlowRun,
    FlowRunId, FlowRunQuery, Gather, Gathered, InCurrentRun, Indexed, Input, IntoInput, IntoMapInput, JoinAll, Limit,
    LogLine, MapFuture, Observed, Observer, Orchestrator, OrchestratorBuilder, ParseIdError, Pause, Placed, Ready,
    Result, RunContext, RunId, SetLimit, Settled, Shared, SlotGuard, State, StateBackend, StateName, StateType,
    SystemClock, TaskError, TaskFuture, TaskRun, TaskRunId, Timestamp, TokioClock, Transition, Unmapped, Upstream,
    WaitState, as_completed, backend, capture_layer, concurrency, gather, join_all, rate_limit, ready, registered,
    unmapped, wait_all,
};
pub use orchestrator_macros::{flow, task, test};

#[doc(hidden)]
pub use orchestrator_core::__private;

/// What pipelines need: `use orchestrator::prelude::*;`.
pub mod prelude {
    pub use crate::{
        FlowFuture, FlowRun, InCurrentRun, MapFuture, Orchestrator, RunContext, State, StateType, TaskError,
        TaskFuture, TaskRun, concurrency, flow, gather, rate_limit, task, unmapped, wait_all,
    };
}

/// The programs in the README compile and run as they stand there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
