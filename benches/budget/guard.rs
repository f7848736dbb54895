//! Instructions for a task beside those of its floor, as callgrind counts them, compared with what was counted before.
//! Unlike time they do not depend on what else the machine does, so that a few in a hundred more can fail a build.
//!
//! The workloads are those that are timed, on a runtime of one thread: with two the numbers of polls and wake-ups vary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::{cache_hits, chain, fan_out, layers, slots, sqlite};

/// One side of a workload, with that many tasks; files that it needs are in the folder.
pub(crate) type Side = fn(&Runtime, &Path, u64);

struct Workload {
    name: &'static str,
    floor: Side,
    ours: Side,
    /// What is counted is the difference between these numbers of tasks: what a process does once is in both.
    tasks: (u64, u64),
}

const TASKS: (u64, u64) = (2_000, 10_000);

/// So many processes count the same.
const PROCESSES: usize = 3;

const WORKLOADS: [Workload; 7] = [
    Workload { name: "fan-out", floor: fan_out::count_bare, ours: fan_out::count, tasks: TASKS },
    Workload { name: "map", floor: fan_out::count_bare, ours: fan_out::count_mapped, tasks: TASKS },
    Workload { name: "chain", floor: chain::count_bare, ours: chain::count, tasks: TASKS },
    Workload { name: "layers", floor: layers::count_bare, ours: layers::count, tasks: TASKS },
    Workload { name: "cache hit", floor: cache_hits::count_looked_up, ours: cache_hits::count, tasks: TASKS },
    Workload { name: "slot", floor: slots::count_bare, ours: slots::count, tasks: (10_000, 30_000) },
    Workload { name: "fan-out with SQLite", floor: sqlite::count_bare, ours: sqlite::count, tasks: TASKS },
];

/// What was counted before, by workload.
type Expected = BTreeMap<String, Counted>;

/// Instructions for a task.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Counted {
    floor: f64,
    ours: f64,
    ratio: f64,
    /// So many hundredths more than this ratio are no regression.
    tolerance_percent: f64,
}

/// Less than one allocation of a task.
const TOLERANCE_PERCENT: f64 = 2.0;

/// Does what the guard counts, in a process of its own; ends it, so that what is taken apart afterwards does not count.
pub(crate) fn child(name: &str, side: &str, tasks: u64) {
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else { std::process::exit(2) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let side = if side == "ours" { workload.ours } else { workload.floor };
    let folder = PathBuf::from(std::env::var_os("ORCHESTRATOR_HOME").expect("a folder was given"));
    side(&runtime, &folder, tasks);
    std::process::exit(0);
}

/// Compares, or with `bless` takes what is counted as what is to be expected.
pub(crate) fn run(bless: bool) -> ExitCode {
    let expected = match std::fs::read_to_string(path()) {
        Ok(text) => serde_json::from_str(&text).expect("expected.json is what --bless wrote"),
        Err(_) => Expected::new(),
    };
    let mut counted = Expected::new();
    for workload in &WORKLOADS {
        match workload.count() {
            Ok(mut count) => {
                if let Some(before) = expected.get(workload.name) {
                    count.tolerance_percent = before.tolerance_percent;
                }
                counted.insert(workload.name.to_owned(), count)
            }
            Err(said) => {
                eprintln!("{}: {said}", workload.name);
                return ExitCode::from(2);
            }
        };
    }
    let (table, said) = compare(&expected, &counted);
    println!("{table}");
    if bless {
        let text = serde_json::to_string_pretty(&counted).expect("numbers and names make JSON") + "\n";
        std::fs::write(path(), text).expect("the file can be written");
        println!("these figures are in benches/guard/expected.json now");
        return ExitCode::SUCCESS;
    }
    said.iter().for_each(|line| eprintln!("{line}"));
    if said.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guard/expected.json")
}

/// All of it as a table, and a sentence for each regression.
fn compare(expected: &Expected, counted: &Expected) -> (String, Vec<String>) {
    let mut table = String::from("instructions for a task    floor     ours    ratio   before\n");
    let mut said = Vec::new();
    for Workload { name, .. } in &WORKLOADS {
        let Counted { floor, ours, ratio, tolerance_percent } = counted[*name];
        let _ = write!(table, "{name:<22} {floor:>9.0} {ours:>8.0} {ratio:>6.2} x");
        let Some(before) = expected.get(*name) else {
            table.push_str("     new\n");
            said.push(format!(
                "'{name}' is not in benches/guard/expected.json: `benches/guard/run --bless` enters it; commit the file"
            ));
            continue;
        };
        let change = 100.0 * (ratio / before.ratio - 1.0);
        let _ = write!(table, " {:>6.2} x {change:>+6.1} %", before.ratio);
        if change > tolerance_percent {
            table.push_str("  regressed");
            said.push(format!(
                "'{name}' regressed: a task takes {ratio:.2} times the instructions of its floor, {change:.1} % more than \
                 the {:.2} times of before ({} % more are let pass). Ours went from {:.0} to {ours:.0} instructions, the \
                 floor from {:.0} to {floor:.0}. If that is what it should cost now, `benches/guard/run --bless` takes \
                 the new figures into benches/guard/expected.json; commit the file with the change that needs it.",
                before.ratio, tolerance_percent, before.ours, before.floor
            ));
        } else if change < -tolerance_percent {
            table.push_str("  better: --bless keeps it so");
        }
        table.push('\n');
    }
    (table, said)
}

impl Workload {
    fn count(&self) -> Result<Counted, String> {
        let (few, many) = self.tasks;
        #[expect(clippy::cast_precision_loss, reason = "fewer instructions than a float counts exactly")]
        let each = |side| -> Result<f64, String> {
            let (few_took, many_took) = (self.least(side, few)?, self.least(side, many)?);
            Ok((many_took.saturating_sub(few_took) as f64 / (many - few) as f64).round())
        };
        let (floor, ours) = (each("floor")?, each("ours")?);
        Ok(Counted {
            floor,
            ours,
            ratio: (1000.0 * ours / floor).round() / 1000.0,
            tolerance_percent: TOLERANCE_PERCENT,
        })
    }

    /// The least of several processes: seeds of hash maps and the like make some of them dearer by one in a hundred.
    fn least(&self, side: &str, tasks: u64) -> Result<u64, String> {
        std::thread::scope(|scope| {
            let processes: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(|| self.instructions(side, tasks))).collect();
            let mut least = u64::MAX;
            for process in processes {
                least = least.min(process.join().expect("it does not panic")?);
            }
            Ok(least)
        })
    }

    /// Of a whole process; less what it did to get ready, where that grows with the number of tasks.
    fn instructions(&self, side: &str, tasks: u64) -> Result<u64, String> {
        let folder = tempfile::tempdir().expect("a folder");
        if self.name == sqlite::COUNTED && side == "floor" {
            sqlite::prepare(folder.path(), tasks);
            let ready = callgrind(folder.path(), &["count", self.name, side, "0"])?;
            return Ok(callgrind(folder.path(), &["count", self.name, side, &tasks.to_string()])?.saturating_sub(ready));
        }
        callgrind(folder.path(), &["count", self.name, side, &tasks.to_string()])
    }
}

/// Instructions of this program as a child, as callgrind counts them.
fn callgrind(home: &Path, arguments: &[&str]) -> Result<u64, String> {
    let program = std::env::current_exe().expect("a program knows itself");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg("--child")
        .args(arguments)
        .env("ORCHESTRATOR_LOG", "off")
        .env("ORCHESTRATOR_HOME", home)
        .env_remove("ORCHESTRATOR_DATABASE_URL")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}; it is a package of Debian's"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("what is counted failed: {said}"));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind does not tell how much it counted: {said}"))
}
