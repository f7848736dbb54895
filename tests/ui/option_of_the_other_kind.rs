//! Options of a flow on a task, and the other way round.
use orchestrator::prelude::*;

#[task(max_concurrent_tasks = 8)]
async fn fetch(id: u32) -> u32 {
    id
}

#[flow(cache_ttl = "1d")]
async fn report(#[cache(skip)] id: u32) -> u32 {
    id
}

fn main() {}
