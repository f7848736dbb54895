//! The command line of a pipeline's own program.

use std::process::ExitCode;

/// The command line of a program whose flows are run by name, resumed, and looked at; gives the exit code.
///
/// The program has `run FLOW`, `resume` and `flows` for its flows, and all that the program `orchestrator` has to look at
/// runs, task runs, limits, cached results and the database; see [docs/cli.md]. An orchestrator that is installed, or in
/// scope, is used; otherwise the environment says where the history is.
///
/// ```no_run
/// use orchestrator::prelude::*;
///
/// #[flow]
/// async fn greet(name: String) -> String {
///     format!("hello {name}")
/// }
///
/// // program run greet --param name=Ada
/// #[tokio::main]
/// async fn main() -> std::process::ExitCode {
///     orchestrator::cli().await
/// }
/// ```
///
/// # Cancel safety
///
/// Made to be awaited at the end of `main`. Dropping the future leaves the runs that it began to themselves.
///
/// [docs/cli.md]: https://docs.rs/crate/orchestrator/latest/source/docs/cli.md
pub async fn cli() -> ExitCode {
    orchestrator_cli::cli().await
}
