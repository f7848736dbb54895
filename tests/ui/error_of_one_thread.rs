use std::error::Error;

use orchestrator::prelude::*;

#[derive(Debug)]
struct NoError;

#[task]
async fn of_one_thread() -> Result<u32, Box<dyn Error>> {
    Ok(1)
}

#[task]
fn no_error() -> Result<u32, NoError> {
    Ok(1)
}

fn main() {}
