//! The future of one type given to a parameter of another.
use orchestrator::prelude::*;

#[task]
async fn name() -> String {
    "name".to_owned()
}

#[task]
async fn double(x: u64) -> u64 {
    2 * x
}

async fn wire() -> Result<u64, TaskError> {
    double(name()).await
}

fn main() {}
