//! The runtime of `orchestrator`; depend on that crate rather than on this one.
//!
//! The modules stand in the order in which a call passes them.

pub mod def;
pub mod body;
mod hook;
pub mod options;
mod input;
mod recovery;
mod registry;
mod submit;
mod scope;
mod context;
mod pause;
mod resume;
mod transaction;
mod run;
mod state;
mod sync;
mod engine;
mod concurrency;
mod cache;
mod persist;
pub mod results;
mod future;
mod journal;
mod keeper;
mod elsewhere;
pub mod backend;
mod observe;
mod narrate;
mod terminal;
mod orchestrator;
mod active;
mod explain;
mod search;
mod builder;
mod maintenance;
mod retention;
mod signals;
mod process;
pub mod testing;
mod clock;
mod duration;
mod id;
mod names;
mod suggest;
mod error;
#[cfg(all(test, feature = "interleavings"))]
mod interleavings;

pub use backend::maintenance::{Compacted, Finding, Removed, StoreInfo, TableInfo};
pub use backend::record::{
    CacheEntry, CacheKey, CacheLook, CacheQuery, CacheReason, CrashBudget, FlowRun, FlowRunQuery, LogLine, Pause,
    TaskRun, TaskRunQuery,
};
pub use backend::{BackendError, StateBackend};
pub use builder::OrchestratorBuilder;
pub use clock::{Clock, SystemClock, Timestamp, TokioClock};
pub use concurrency::{Acquiring, Limit, RateLimited, SetLimit, SlotGuard, concurrency, rate_limit};
pub use context::{InCurrentRun, Placed, RunContext};
pub use def::CachePolicy;
pub use engine::abandoned_bodies;
pub use error::{Error, FlowError, Result, TaskError};
pub use explain::{
    Elsewhere, Explanation, LimitWait, RunRef, RunRefs, SlotHolder, UnfinishedFlows, UnfinishedTasks, WaitingTasks, Why,
};
pub use future::{
    AsCompleted, Awaitable, FlowFuture, Indexed, JoinAll, MapFuture, Settled, Shared, StartedFlow, Tally, TaskFuture,
    Upstream, WaitState, all_completed, as_completed, join_all, wait_all,
};
pub use id::{FlowRunId, ParseIdError, RunId, TaskRunId};
pub use input::{Gather, Gathered, Input, IntoInput, IntoMapInput, Ready, Unmapped, gather, ready, unmapped};
pub use observe::{Observed, Observer};
pub use options::{Configured, Delay};
pub use orchestrator::Orchestrator;
pub use pause::{PauseFlowRun, pause_flow_run, pause_for_input};
pub use registry::{FlowInfo, FlowParameter, ParameterError, PreparedCall, flows, prepare_call, registered};
pub use results::ResultStore;
pub use resume::Resume;
pub use retention::{ParseRetentionError, Retention};
pub use state::{State, StateFilter, StateName, StateType, Transition};
pub use terminal::capture_layer;
pub use transaction::{CommitMode, Transaction, TransactionBuilder, TransactionError, transaction};

/// Text as the terminal output has it, and as the command line takes it.
pub mod text {
    pub use crate::duration::duration;
    pub use crate::suggest::nearest;
    pub use crate::terminal::{Short, one_line, short};
}

/// For the types of inputs: `#[derive(schemars::JsonSchema)]` with `#[schemars(crate = "orchestrator::schemars")]`, or
/// with a dependency on `schemars` of one's own.
pub use schemars;

/// What the macros expand to. Not for programs: anything here may change at any time.
#[doc(hidden)]
pub mod __private {
    pub use std::convert::Infallible;
    pub use std::option::Option::{None, Some};
    pub use std::time::Duration;

    pub use inventory;
    pub use tokio;

    pub use crate::body::{
        Attempt, Callable, Encoding, Fallible, Probe, Unstored, assert_by_value, assert_cache_input,
        assert_cache_output, assert_parameter, assert_persist_output, call_flow, call_map, call_task, fallible, plain,
        retries,
    };
    pub use crate::def::{CachePolicy, Def, DefKind, Rare, RetryDelay, Want};
    pub use crate::future::{ByClone, FlowFuture, MapFuture, TaskFuture};
    pub use crate::hook::{Hook, Hooks, ResultHook, probe_hook, probe_of, probe_result_hook, result_of_type};
    pub use crate::input::{IntoInput, IntoMapInput, Own, Ref};
    pub use crate::options::{Configurable, Configured, OfFlow, OfTask};
    pub use crate::registry::{Decoder, ParamReader, Registered};
    pub use crate::testing::{Function, test_scope};

    /// Traits that an expansion asks; `use probes::*` brings no names.
    pub mod probes {
        pub use crate::body::{ProbeDefault as _, ProbeEncoding as _, ProbeResult as _};
        pub use crate::hook::{HookKindAsync as _, HookKindSync as _};
        pub use crate::registry::{ProbeDecode as _, ProbeDecodeFallback as _, ProbeSchema as _};
    }
}
