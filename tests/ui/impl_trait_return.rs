//! The type of a result has to have a name.
use orchestrator::prelude::*;

#[task]
fn numbers() -> impl Iterator<Item = u32> {
    0..3
}

fn main() {}
