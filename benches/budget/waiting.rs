//! What it costs to wait for a slot that another process holds: the processor time of processes that do nothing else, and
//! how long it takes until a slot that is given back is taken in another process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orchestrator::prelude::*;

use crate::child;
use crate::measure::{Effort, median, runtime};
use crate::report::{Budget, Row, Unit};

/// Processes that wait at the same time.
const ABREAST: usize = 8;

/// A process is given so long to begin to wait.
const SETTLING: Duration = Duration::from_secs(1);

#[task(concurrency = "one")]
async fn held() {
    println!("got");
    std::future::pending().await
}

#[task]
async fn nothing() {}

/// Has its history written as fast as that goes, a task at a time.
#[flow]
async fn busy() -> Result<(), TaskError> {
    loop {
        nothing().await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// An orchestrator over the database in its home, until whoever asked for it closes the pipe.
pub(crate) fn child(does: &str, tasks: u64) {
    let runtime = runtime();
    runtime.block_on(async {
        let orchestrator = Orchestrator::builder().build().await.expect("open the database");
        orchestrator.limit("one", 1).await.expect("a limit");
        orchestrator
            .scope(async {
                let _running: Vec<_> = (0..tasks).map(|_| held()).collect();
                let _busy = (does == "busy").then(busy);
                let asked = tokio::task::spawn_blocking(move || std::io::stdin().read_to_end(&mut Vec::new()));
                let _ = asked.await;
            })
            .await;
    });
    std::process::exit(0);
}

/// Takes the slot when it is told so, says that it has it, and gives it back when it is told so.
pub(crate) fn trading_child() {
    let runtime = runtime();
    runtime.block_on(async {
        let orchestrator = Orchestrator::builder().build().await.expect("open the database");
        orchestrator.limit("one", 1).await.expect("a limit");
        let mut slot = None;
        while let Some(asked) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.expect("a thread")
        {
            match &*asked.expect("a pipe") {
                "take" => {
                    let taken = orchestrator.scope(async { concurrency("one", 1).await }).await;
                    slot = Some(taken.expect("there is such a limit"));
                    println!("got");
                }
                _ => drop(slot.take()),
            }
        }
    });
    std::process::exit(0);
}

pub(crate) fn measure(effort: &Effort) -> Vec<Row> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let time = Duration::from_secs(if effort.quick { 2 } else { 10 });
    let row = |name: String, share| {
        Row::absolute(name, Unit::Percent, None, share, 1, Budget::Absolute { allowed: 1.0, aim: 0.5 })
    };
    let many = effort.size(1_000);
    let (one, idle) = (waiting(&[1], "hold", time), waiting(&[0], "hold", time));
    let (rest, abreast) = (waiting(&[many], "hold", time), waiting(&[1; ABREAST], "hold", time));
    let beside = waiting(&[1], "busy", time);
    let rounds = if effort.quick { 10 } else { 60 };
    let mut handed = handed_over(rounds);
    let middle = median(&mut handed);
    let longest = handed.last().copied().expect("there were some");
    vec![
        row("a core for a process that holds nothing and waits for nothing".to_owned(), idle),
        row("the same with a task that waits for another process's slot".to_owned(), one),
        row(format!("the same with {} tasks that wait", Effort::name(many)), rest),
        row(format!("the same, the dearest of {ABREAST} processes that wait"), abreast),
        row("the same beside one that writes history all the time".to_owned(), beside),
        Row::absolute(
            "a slot is handed over to another process",
            Unit::Milliseconds,
            None,
            middle,
            rounds,
            Budget::None,
        ),
        Row::absolute(
            "the same, at worst",
            Unit::Milliseconds,
            None,
            longest,
            rounds,
            Budget::Absolute { allowed: 50.0, aim: 25.0 },
        ),
    ]
}

/// How many hundredths of a core the dearest of processes took in which that many tasks wait, while another one holds
/// the slot.
fn waiting(tasks: &[u64], holder: &str, time: Duration) -> f64 {
    let home = tempfile::tempdir().expect("a home");
    let mut holder = spawn(&["waiting", holder, "1"], home.path());
    holder.stdout.as_mut().expect("it is piped").read_exact(&mut [0; 4]).expect("it holds the slot");
    let waiting: Vec<_> =
        tasks.iter().map(|tasks| spawn(&["waiting", "wait", &tasks.to_string()], home.path())).collect();
    thread::sleep(SETTLING);
    let used = || -> Vec<Duration> { waiting.iter().map(|process| processor_time(process.id())).collect() };
    let (before, begin) = (used(), Instant::now());
    thread::sleep(time);
    let (after, took) = (used(), begin.elapsed());
    waiting.into_iter().chain([holder]).for_each(end);
    let share = |(after, before): (Duration, Duration)| 100.0 * (after - before).as_secs_f64() / took.as_secs_f64();
    after.into_iter().zip(before).map(share).fold(0.0, f64::max)
}

/// Milliseconds from the end of one process's hold to the beginning of another's.
fn handed_over(rounds: usize) -> Vec<f64> {
    let home = tempfile::tempdir().expect("a home");
    let (said, hears) = mpsc::channel();
    let mut traders: Vec<Child> = (0..2).map(|_| spawn(&["trade"], home.path())).collect();
    for (number, trader) in traders.iter_mut().enumerate() {
        let (said, stdout) = (said.clone(), trader.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            // It ends with the process, or when nobody listens any more.
            BufReader::new(stdout).lines().all(|_| said.send((number, Instant::now())).is_ok())
        });
    }
    let tell = |trader: &mut Child, what: &str| {
        let stdin = trader.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{what}").and_then(|()| stdin.flush()).expect("it listens");
    };
    tell(&mut traders[0], "take");
    hears.recv().expect("it takes the slot");
    let mut times = Vec::new();
    for round in 0..rounds {
        let (from, to) = (round % 2, (round + 1) % 2);
        tell(&mut traders[to], "take");
        // Any moment between two looks, when they are at their rarest.
        thread::sleep(Duration::from_micros(200_000 + 997 * (round as u64 % 31)));
        let freed = Instant::now();
        tell(&mut traders[from], "free");
        let (taker, taken) = hears.recv().expect("it takes the slot");
        assert_eq!(taker, to, "nobody takes a slot that is held");
        times.push(taken.duration_since(freed).as_secs_f64() * 1e3);
    }
    traders.into_iter().for_each(end);
    times
}

fn spawn(arguments: &[&str], home: &Path) -> Child {
    child::command(arguments, home).stdin(Stdio::piped()).spawn().expect("this program can be started")
}

/// Its pipe is closed then, which is what it waits for.
fn end(mut process: Child) {
    drop(process.stdin.take());
    process.wait().expect("it ends");
}

/// What a process has used so far.
fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the system tells of its processes");
    let fields = stat.rsplit_once(')').expect("its name is in parentheses").1.split_whitespace();
    // utime and stime of proc_pid_stat(5), in hundredths of a second.
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
