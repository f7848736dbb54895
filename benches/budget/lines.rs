//! A fan-out of a program that sets nothing: each task has a line on standard error, which is a file here, and the flow a
//! summary. Floor: spawned tasks that write such a line themselves.

use std::fs::{self, File};

use orchestrator::Orchestrator;

use crate::child;
use crate::fan_out::fan_out;
use crate::measure::{Compared, Effort, PerOperation, runtime, time_bare, time_under};
use crate::report::{Budget, Row};

const ROUNDS: usize = 25;

async fn bare(tasks: u64) -> u64 {
    let speaks = |value| async move {
        eprintln!("12:00:00.000 | INFO  | Spawned task 'echo-{value}' - Finished in 5us");
        value
    };
    let handles: Vec<_> = (0..tasks).map(|value| tokio::spawn(speaks(value))).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await.expect("nothing panics");
    }
    sum
}

/// Prints nanoseconds of a task in each round, of the floor and of ours.
pub(crate) fn child(tasks: u64) {
    let runtime = runtime();
    // That of a program that sets nothing.
    let orchestrator = runtime.block_on(async { Orchestrator::current() });
    let round = || {
        let floor = time_bare(&runtime, bare(tasks)).1;
        let (sum, ours) = time_under(&orchestrator, &runtime, || fan_out(tasks));
        assert_eq!(sum.expect("it completes"), tasks * (tasks - 1) / 2);
        [floor, ours].map(|elapsed| PerOperation::of(elapsed, tasks).0)
    };
    round();
    for _ in 0..ROUNDS {
        let [floor, ours] = round();
        println!("{floor} {ours}");
    }
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let tasks = effort.size(10_000);
    let home = tempfile::tempdir().expect("a home");
    let file = home.path().join("stderr");
    let mut command = child::command(&["lines", &tasks.to_string()], home.path());
    command.env_remove("ORCHESTRATOR_LOG").env("ORCHESTRATOR_DATABASE_URL", "memory");
    command.stderr(File::create(&file).expect("a file in a home"));
    let said = child::ended(command.spawn().expect("this program can be started"));
    let lines = fs::read_to_string(&file).expect("what it wrote");
    let told = |what: &str| lines.lines().filter(|line| line.contains(what)).count() as u64;
    let expected = (ROUNDS as u64 + 1) * tasks;
    assert_eq!((told("| Spawned task"), told("| Task run")), (expected, expected), "every line is there");
    let rounds: Vec<_> = said.lines().map(child::numbers).collect();
    let compared = Compared::of(&rounds);
    let name = format!("fan-out of {} tasks with a line of the log each", Effort::name(tasks));
    vec![Row::compared(name, &compared, Budget::None)]
}
