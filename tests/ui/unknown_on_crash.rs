//! Words that `on_crash` does not know, and its place on a task.
use orchestrator::prelude::*;

fn tell(_: &FlowRun, _: &State) {}

#[flow(on_crash = "retry")]
async fn misspelt() {}

#[flow(on_crash = tell)]
async fn hook_under_the_wrong_name() {}

#[task(on_crash = "resume")]
async fn no_flow() {}

fn main() {}
