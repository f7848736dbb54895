//! The attributes stand on functions.
use orchestrator::prelude::*;

#[task]
struct Fetch;

#[flow]
const REPORT: u32 = 1;

fn main() {}
