//! The command line: the program `orchestrator`, which looks at the runs of any pipeline from outside, and what
//! `orchestrator::cli()` gives a pipeline's own program.
//!
//! A command reads, and prints a table for people or JSON for programs. It knows the store through [`orchestrator_core`]
//! alone. Commands that look change nothing: they make no database, and run nothing.

mod args;
mod ask;
mod commands;
mod exit;
mod find;
mod json;
mod print;
mod signals;
mod store;
mod time;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Program;
use exit::Trouble;

/// The program `orchestrator`: reads the arguments of this process, does what they say, and gives the exit code.
pub async fn orchestrator() -> ExitCode {
    run(Program::Orchestrator, std::env::args_os()).await
}

/// The command line of a pipeline's own program: that of [`orchestrator`], and `run`, `resume` and `flows` for the flows of
/// the program. Reads the arguments of this process, does what they say, and gives the exit code.
///
/// An orchestrator that is installed, or in scope, is used; otherwise the environment says where the history is.
pub async fn cli() -> ExitCode {
    run(Program::Pipeline, std::env::args_os()).await
}

async fn run(program: Program, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // What the arguments say is not known if they make no sense.
    let mut json = arguments.iter().any(|argument| argument == "--json");
    let outcome = match args::parse(program, arguments) {
        Ok(parsed) => {
            json = parsed.globals.json;
            commands::run(parsed).await
        }
        Err(error) if json && error.use_stderr() => Err(Trouble::usage(args::said(&error))),
        Err(error) => {
            // Also `--help` and `--version`, which are no errors; a closed pipe is none either.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(exit::USAGE).into();
        }
    };
    match outcome {
        Ok(code) => code.into(),
        Err(Trouble { code, said: None }) => code.into(),
        Err(Trouble { code, said: Some(said) }) => {
            print::complain(&said, code, json);
            code.into()
        }
    }
}
