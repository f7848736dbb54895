//! What is measured in a process of its own: memory, the start of a process, and processes that wait for each other.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use crate::watchdog::Watchdog;
use crate::{guard, lines, logs, memory, start, stream, waiting};

/// Does what another process asked this one for.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let _watchdog = Watchdog::over("the measuring process", Duration::from_secs(500));
    match arguments.as_slice() {
        ["memory", kind, tasks] => match tasks.parse() {
            Ok(tasks) => memory::child(kind, tasks),
            Err(_) => return ExitCode::from(2),
        },
        ["count", workload, side, tasks] => match tasks.parse() {
            Ok(tasks) => guard::child(workload, side, tasks),
            Err(_) => return ExitCode::from(2),
        },
        ["stream", store, tasks] => match tasks.parse() {
            Ok(tasks) => stream::child(store, tasks),
            Err(_) => return ExitCode::from(2),
        },
        ["logs", lines] => match lines.parse() {
            Ok(lines) => logs::child(lines),
            Err(_) => return ExitCode::from(2),
        },
        ["lines", tasks] => match tasks.parse() {
            Ok(tasks) => lines::child(tasks),
            Err(_) => return ExitCode::from(2),
        },
        ["start"] => start::child(),
        ["start-bare"] => start::bare_child(),
        ["trade"] => waiting::trading_child(),
        ["waiting", does, tasks] => match tasks.parse() {
            Ok(tasks) => waiting::child(does, tasks),
            Err(_) => return ExitCode::from(2),
        },
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// A command that runs this program as a child, with an empty environment of ours in `home`.
pub(crate) fn command(arguments: &[&str], home: &std::path::Path) -> Command {
    let mut command = program(home);
    command.arg("--child").args(arguments);
    command
}

/// A command that runs this program, with an empty environment of ours in `home`.
pub(crate) fn program(home: &std::path::Path) -> Command {
    let program: PathBuf = std::env::current_exe().expect("a program knows itself");
    let mut command = Command::new(program);
    command.env("ORCHESTRATOR_LOG", "off").env("ORCHESTRATOR_HOME", home).env_remove("ORCHESTRATOR_DATABASE_URL");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Two numbers that a child has printed.
pub(crate) fn numbers(said: &str) -> (f64, f64) {
    let (first, second) = said.trim().split_once(' ').expect("it prints two numbers");
    (first.parse().expect("a number"), second.parse().expect("a number"))
}

/// Waits for a child that must have done its work.
pub(crate) fn ended(child: Child) -> String {
    let output = child.wait_with_output().expect("a child ends");
    assert!(output.status.success(), "the measuring process failed: {}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}
