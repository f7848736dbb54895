//! Options of a test that do not exist or do not fit together.

#[orchestrator::test(start_pause = true)]
async fn misspelt() {}

#[orchestrator::test(flavor = "many_threads")]
async fn unknown_flavor() {}

#[orchestrator::test(flavor = "multi_thread", start_paused = true)]
async fn does_not_fit() {}

#[orchestrator::test]
fn not_async() {}

#[orchestrator::test]
async fn with_parameter(x: u32) {
    let _ = x;
}

fn main() {}
