//! Runs a program once and says how long it took and how much memory it had at most.
//!
//! Linux counts the memory of whoever starts a program as memory of that program, so this has to be smaller than any of
//! those that are measured, which the interpreter of the script is not.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().expect("usage: compare-measure PROGRAM [ARGUMENT..]");
    let start = Instant::now();
    let mut child = Command::new(program).args(words).stdin(Stdio::null()).spawn().expect("the program starts");
    let status = child.wait().expect("it is ours to wait for");
    let wall = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the system tells");
    println!("{{\"wall\": {wall}, \"memory\": {}}}", usage.max_rss() * 1024);
    ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(255))
}
