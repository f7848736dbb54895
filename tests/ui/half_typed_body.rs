//! What is wrong in the body is reported once, on the line where it stands.
use orchestrator::prelude::*;

#[task]
async fn fetch(id: u32) -> u32 {
    let text: String = id;
    missing(text)
}

#[task]
fn wrong_result(id: u32) -> u32 {
    format!("{id}")
}

async fn uses_it() -> Result<u32, TaskError> {
    wrong_result(fetch(1)).await
}

fn main() {}
