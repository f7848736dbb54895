//! Values below zero.
use orchestrator::prelude::*;

#[task(retries = 3, retry_jitter = -0.5)]
async fn jitter() -> u32 {
    1
}

#[task(retries = -1)]
async fn retries() -> u32 {
    1
}

#[task(timeout_secs = -5)]
async fn timeout() -> u32 {
    1
}

fn main() {}
