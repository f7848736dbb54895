//! A pipeline's own program, as a person or a script uses it: this test is that program, and runs itself.

mod flows;
mod interrupt;
mod looking;
#[path = "../../orchestrator-cli/tests/shared/program.rs"]
mod program;
mod running;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Set for the child processes, which are the program.
const IS_PROGRAM: &str = "PIPELINE_IS_PROGRAM";

fn main() -> ExitCode {
    if std::env::var_os(IS_PROGRAM).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(orchestrator::cli());
    }
    let tests = [running::TESTS, looking::TESTS, interrupt::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
