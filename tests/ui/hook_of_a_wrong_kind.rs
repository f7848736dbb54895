use orchestrator::prelude::*;

fn counts(_: &TaskRun, _: &State) -> u32 {
    1
}

fn of_a_flow(_: &FlowRun, _: &State) {}

#[task(on_completion = counts)]
async fn first() {}

#[task(on_completion = of_a_flow)]
async fn second() {}

fn undo_text(_: &String) {}

#[task(on_rollback = undo_text)]
async fn third() -> u32 {
    1
}

#[flow(on_rollback = undo_text)]
async fn fourth() -> u32 {
    1
}

#[task(on_failure = "counts")]
async fn fifth() {}

fn main() {}
