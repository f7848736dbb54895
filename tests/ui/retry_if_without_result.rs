//! A condition on errors for a task that has none.
use orchestrator::prelude::*;

fn transient(_: &std::io::Error) -> bool {
    true
}

#[task(retries = 3, retry_if = transient)]
async fn fetch(id: u32) -> u32 {
    id
}

fn main() {}
