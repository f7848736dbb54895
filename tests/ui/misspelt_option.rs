//! An option that does not exist, close to one that does.
use orchestrator::prelude::*;

#[task(retrys = 3)]
async fn fetch(id: u32) -> u32 {
    id
}

#[task(colour = "red")]
async fn paint(id: u32) -> u32 {
    id
}

fn main() {}
