//! From the start of a process to the body of its first task, with a database that does not exist yet. Floor: the same
//! with a bare runtime and a spawned task.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use orchestrator::prelude::*;

use crate::child;
use crate::measure::{Effort, median, runtime};
use crate::report::{Budget, Row, Unit};

#[task]
async fn hello() {
    println!("here");
}

#[flow]
async fn greeting() -> Result<(), TaskError> {
    hello().await
}

/// A program as its author would write it, without a word about how things are kept.
pub(crate) fn child() {
    runtime().block_on(async { greeting().await }).expect("it completes");
}

pub(crate) fn bare_child() {
    let runtime = runtime();
    runtime.block_on(runtime.spawn(async { println!("here") })).expect("nothing panics");
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let rounds = if effort.quick { 3 } else { 31 };
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floor.push(milliseconds("start-bare"));
        ours.push(milliseconds("start"));
    }
    vec![Row::absolute(
        "process start to first task, new database",
        Unit::Milliseconds,
        Some(median(&mut floor)),
        median(&mut ours),
        rounds,
        Budget::Absolute { allowed: 50.0, aim: 10.0 },
    )]
}

/// The same with a database that does not exist yet.
fn milliseconds(what: &str) -> f64 {
    first_task(what, tempfile::tempdir().expect("a home").path())
}

/// From the start of the process until the body says that it runs.
pub(crate) fn first_task(what: &str, home: &Path) -> f64 {
    let start = Instant::now();
    // With the lines that a program prints which sets nothing.
    let mut command = child::command(&[what], home);
    let mut child =
        command.env_remove("ORCHESTRATOR_LOG").stderr(Stdio::null()).spawn().expect("this program can be started");
    let mut said = [0; 4];
    child.stdout.as_mut().expect("it is piped").read_exact(&mut said).expect("the body speaks");
    let elapsed = start.elapsed();
    assert_eq!(&said, b"here");
    child::ended(child);
    elapsed.as_secs_f64() * 1e3
}
