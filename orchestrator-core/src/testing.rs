//! What `#[orchestrator::test]` runs a test in.

use std::future::Future;

use crate::clock::{SystemClock, TokioClock};
use crate::orchestrator::Orchestrator;

/// Runs a test under an orchestrator of its own, and waits for what it left going.
pub async fn test_scope<F: Future>(paused: bool, test: F) -> F::Output {
    let builder = Orchestrator::builder();
    let builder = if paused { builder.clock(TokioClock::new()) } else { builder.clock(SystemClock) };
    let orchestrator = builder.build_over(std::sync::Arc::new(crate::backend::memory::MemoryBackend::new()));
    let output = orchestrator.scope(test).await;
    // The store is in memory: nothing can be lost at the end of a test.
    let _ = orchestrator.shutdown().await;
    output
}
