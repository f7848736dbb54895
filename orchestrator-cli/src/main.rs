//! The `orchestrator` program.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    orchestrator_cli::orchestrator().await
}
