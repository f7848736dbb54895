//! A parameter with the name of an option of the call.
use orchestrator::prelude::*;

#[task]
async fn fetch(id: u32, wait_for: u32) -> u32 {
    id + wait_for
}

fn main() {}
