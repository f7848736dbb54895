//! Budgets of flows that do not go on, or never would.
use orchestrator::prelude::*;

#[flow(crash_budget = 3)]
async fn never_goes_on() {}

#[flow(on_crash = "resume", crash_budget = 0)]
async fn never() {}

#[flow(on_crash = "resume", crash_budget = "often")]
async fn often() {}

fn main() {}
