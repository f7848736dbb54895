//! Names of limits and times to live with nothing in them.
use orchestrator::prelude::*;

#[task(concurrency = "")]
async fn no_limit() {}

#[task(concurrency = ["db", " "])]
async fn one_of_two() {}

#[task(concurrency = ("", slots = 2))]
async fn slots_of_none() {}

#[task(cache_ttl = "0s")]
async fn no_time() -> u32 {
    1
}

#[task(cache_ttl = 0)]
async fn no_seconds() -> u32 {
    1
}

fn main() {}
