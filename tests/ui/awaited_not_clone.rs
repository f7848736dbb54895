//! A result that cannot be cloned, awaited by value.
use orchestrator::prelude::*;

struct Table;

#[task]
async fn load() -> Table {
    Table
}

async fn alone() -> Result<(), TaskError> {
    load().await?;
    Ok(())
}

#[task]
async fn part(_n: u32) -> Table {
    Table
}

async fn many() -> Result<(), TaskError> {
    part::map(0..3).await?;
    Ok(())
}

fn main() {}
