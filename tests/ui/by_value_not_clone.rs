//! A parameter by value that is not Clone.
use orchestrator::prelude::*;

struct Table;

#[task]
async fn load(table: Table) -> u32 {
    let _ = table;
    1
}

fn main() {}
