//! A fake that gives something else than the task, and one that waits where no fake waits.
use orchestrator::prelude::*;

#[task]
async fn stars(repo: String) -> Result<u64, std::io::Error> {
    Err(std::io::Error::other(repo))
}

fn main() {
    let orchestrator = Orchestrator::in_memory();
    orchestrator.replace::<stars>(|_repo| "many");
    orchestrator.replace::<stars>(|_repo| async { 5 });
}
