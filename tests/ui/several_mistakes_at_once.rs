//! All mistakes of one function are reported together.
use orchestrator::prelude::*;

#[task(retrys = 3, timeout_secs = "1 year", tags = "demo", retries = 1, retries = 2, retry_if = transient)]
async fn fetch(id: u32, return_state: bool) -> u32 {
    u32::from(return_state) + id
}

async fn uses_it() -> Result<u32, TaskError> {
    fetch(1, true).await
}

fn main() {}
