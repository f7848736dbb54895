//! A result whose name does not say that it is one.
use orchestrator::prelude::*;

type Fallible = Result<u32, String>;

#[task]
async fn fetch(id: u32) -> Fallible {
    Ok(id)
}

fn main() {}
