//! Durations without a unit, with an unknown one, empty, or of another kind.
use orchestrator::prelude::*;

#[task(cache_ttl = "10")]
async fn no_unit() -> u32 {
    1
}

#[task(cache_ttl = "1 day")]
async fn unknown_unit() -> u32 {
    1
}

#[task(cache_ttl = "")]
async fn empty() -> u32 {
    1
}

#[task(timeout_secs = 0)]
async fn nothing() -> u32 {
    1
}

#[task(timeout_secs = true)]
async fn not_a_duration() -> u32 {
    1
}

#[task(retry_delay_secs = 10s)]
async fn no_quotes() -> u32 {
    1
}

#[task(retry_delay_secs = exponential(60, 1))]
async fn shrinking() -> u32 {
    1
}

fn main() {}
