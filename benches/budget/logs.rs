//! Log lines of tasks on their way into SQLite: a task works for ten microseconds, then says a line, which makes 100,000
//! lines a second of one worker. Floor: the same work without the line.
//!
//! The runtime has one worker, so that the other core is the store's, as it is on machines with more.

use std::hint::black_box;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;
use rusqlite::Connection;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::child;
use crate::measure::{Compared, Effort, PerOperation};
use crate::report::{Budget, Row, Unit};

const TASKS: u64 = 100;

/// What a task does between two lines.
const WORK: Duration = Duration::from_micros(10);

#[task]
async fn works(lines: u64, steps: u64) -> u64 {
    (0..lines).fold(0, |sum, line| work(steps, sum ^ line))
}

#[task]
async fn says(lines: u64, steps: u64) -> u64 {
    let mut sum = 0;
    for line in 0..lines {
        sum = work(steps, sum ^ line);
        tracing::info!("line {line} says {sum}");
    }
    sum
}

#[flow]
async fn all(tasks: u64, lines: u64, steps: u64, aloud: bool) -> Result<u64, TaskError> {
    let runs: Vec<_> = (0..tasks).map(|_| if aloud { says(lines, steps) } else { works(lines, steps) }).collect();
    let mut sum = 0;
    for run in runs {
        sum ^= run.await?;
    }
    Ok(sum)
}

/// Something that takes time in proportion to `steps`, and cannot be left out.
#[inline(never)]
fn work(steps: u64, seed: u64) -> u64 {
    (0..steps).fold(seed, |value, step| black_box(value.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step))
}

/// How many steps take that long on this machine.
fn steps_in(time: Duration) -> u64 {
    let mut best = f64::INFINITY;
    for round in 0..20 {
        let start = Instant::now();
        black_box(work(100_000, round));
        best = best.min(start.elapsed().as_secs_f64() / 100_000.0);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
    let steps = (time.as_secs_f64() / best) as u64;
    steps
}

/// Measures in this process, whose subscriber keeps log lines and prints nothing: prints nanoseconds of a line in each round,
/// without and with it, and how many lines there should be in the end.
pub(crate) fn child(lines: u64) {
    let subscriber = tracing_subscriber::registry().with(orchestrator::capture_layer());
    tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let orchestrator = runtime.block_on(Orchestrator::builder().build()).expect("a database");
    let (steps, each) = (steps_in(WORK), lines / TASKS);
    let rounds = if lines > 100_000 { 5 } else { 1 };
    let time = |aloud| {
        let start = Instant::now();
        let done = runtime.block_on(orchestrator.scope(async { all(TASKS, each, steps, aloud).await }));
        done.expect("it completes");
        PerOperation::of(start.elapsed(), lines).0
    };
    time(false);
    for _ in 0..rounds {
        println!("{} {}", time(false), time(true));
    }
    runtime.block_on(orchestrator.shutdown()).expect("all is stored");
    println!("{} {}", rounds * each * TASKS, orchestrator.lost_events());
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    let lines = effort.size(200_000);
    let home = tempfile::tempdir().expect("a home");
    let child = child::command(&["logs", &lines.to_string()], home.path()).spawn();
    let said = child::ended(child.expect("this program can be started"));
    let mut rounds: Vec<_> = said.lines().map(child::numbers).collect();
    let (expected, lost) = rounds.pop().expect("it says how many lines there should be");
    let file = Connection::open(home.path().join("orchestrator.db")).expect("the child's database");
    let found: i64 = file.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).expect("lines");
    assert_eq!((found as f64, lost), (expected, 0.0), "every line is there");
    let compared = Compared::of(&rounds);
    let (per_line, beside) = (compared.ours - compared.floor, Budget::Ratio { allowed: 1.1, aim: 1.05 });
    vec![
        Row::compared("10 us of work and a log line, history in SQLite", &compared, beside),
        Row::absolute("what the line adds", Unit::Nanoseconds, None, per_line, rounds.len(), Budget::None),
    ]
}
