//! What tests of pipelines need: fakes in the place of tasks, a log of what the runs did, assertions on states.
//!
//! `#[orchestrator::test]` gives a test an orchestrator of its own, which keeps an [`EventLog`]. [`Replace`] puts fakes
//! in the place of tasks and flows, and [`assert_states`] looks at what one run went through.

mod diff;
mod fake;
mod log;
mod states;

use std::future::Future;
use std::sync::{Arc, OnceLock};

use crate::backend::memory::MemoryBackend;
use crate::clock::{SystemClock, TokioClock};
use crate::orchestrator::Orchestrator;

pub use crate::input::Borrowed;
pub(crate) use fake::Fakes;
pub use fake::{FakeOutcome, Function, Given, Replace, fails, gives};
pub use log::EventLog;
pub use states::{AssertStates, assert_states};

/// What a test put into its orchestrator.
#[derive(Default)]
pub(crate) struct Kit {
    pub(crate) fakes: Fakes,
    log: OnceLock<EventLog>,
}

/// Runs a test under an orchestrator of its own, and waits for what it left going.
#[doc(hidden)]
pub async fn test_scope<F: Future>(paused: bool, test: F) -> F::Output {
    let log = EventLog::new();
    let builder = Orchestrator::builder().observer(log.observer());
    let builder = if paused { builder.clock(TokioClock::new()) } else { builder.clock(SystemClock) };
    let orchestrator = builder.build_over(Arc::new(MemoryBackend::new()));
    orchestrator.inner().testing.log.get_or_init(|| log);
    let output = orchestrator.scope(test).await;
    // The store is in memory: nothing can be lost at the end of a test.
    let _ = orchestrator.shutdown().await;
    output
}
