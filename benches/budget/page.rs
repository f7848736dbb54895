//! Several whole runs as one table, which is written onto the page of the benchmarks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::report::Report;

const BEGIN: &str = "<!-- budget: written by `cargo bench --bench budget -- --runs 5` -->";
const END: &str = "<!-- budget: end -->";

/// What it would take to meet the aim, by the beginning of a row's name. Shown for rows that miss it.
const WOULD_TAKE: &[(&str, &str)] = &[
    ("fan-out of 1", "see below"),
    ("the same 100k by `map`", "one node with many children in place of as many runs"),
    ("chain of", "see below"),
    (
        "the same, submitted before it starts",
        "see below: nothing goes on side by side here, so all of a task's instructions count",
    ),
    ("layers", "see below"),
    ("the same, each layer", "see below"),
    (
        "dearest beside cheapest",
        "fewer pages that a flow of 1M takes anew, and fewer first times in one of 1k: see below; bare spawn itself is not flat either",
    ),
    ("the same with history in SQLite", "a smaller row, and the log folded into the file by another thread"),
    ("an uncontended slot", "fewer atomic steps: eight, where a semaphore has four"),
    (
        "from an upstream's end",
        "see below: less code between the two bodies, which the processor has forgotten meanwhile",
    ),
    ("the same after an upstream that has computed", "fewer instructions between the two bodies"),
    ("the same, 99th of 100", "the same"),
    (
        "memory of a task that waits for its upstream",
        "its call in the allocation of the run: it has 64 bytes of its own beside the 312",
    ),
    (
        "memory of a task that waits for something",
        "the driver in the allocation of its run, in place of a tokio task beside it",
    ),
    (
        "memory of a task that waits for a slot",
        "the same; and requests and queue in one piece of memory, in place of half-empty nodes of trees",
    ),
    ("memory in use after", "whatever is still allocated, by a heap profile"),
    ("1M tasks in one flow", "the same as for one that waits for its upstream"),
    ("fan-out of 100k with history", "several rows for a statement; the engine shares the two cores with the writer"),
    ("the same while somebody lists", "the same; the reader takes its part of the two cores"),
    ("the same with `persist`", "several rows of runs for a statement"),
    ("10 us of work and a log line", "the text of a line formatted by the writer rather than by the task"),
    ("10M tasks of one flow", "a smaller queue of events in front of the store"),
    ("process start to first task, new", "fewer syncs while the file is made"),
    (
        "the same with a task that waits for another",
        "a word from the holder instead of looks: to be woken is most of it",
    ),
    ("the same with 1k tasks that wait", "the same"),
    ("the same, the dearest of 8", "the same"),
    ("the same beside one that writes", "the same"),
    ("a task in a queue", "a queue whose places lie together in memory"),
    ("a task of a cache", "fewer cache misses for each entry: an entry that is one allocation"),
    ("a task with a slot of one of", "fewer cache misses"),
    ("a task in one of", "less memory for a flow run"),
];

pub(crate) fn would_take(name: &str) -> &'static str {
    WOULD_TAKE.iter().find(|(begin, _)| name.starts_with(begin)).map_or("", |(_, what)| what)
}

/// Writes the table of these runs onto the page.
pub(crate) fn write(path: &Path, runs: &[Report], load: &str) -> Result<(), String> {
    let (before, after) = around(path)?;
    let text = format!("{before}{BEGIN}\n{}\n\n{}{END}{after}", machine(runs, load), Report::over_all(runs));
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// What stands on the page before the table and after it.
pub(crate) fn around(path: &Path) -> Result<(String, String), String> {
    let name = path.display();
    let page = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let (before, rest) = page.split_once(BEGIN).ok_or_else(|| format!("{name} has no line '{BEGIN}'"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("{name} has no line '{END}'"))?;
    Ok((before.to_owned(), after.to_owned()))
}

/// Where and when these figures came about.
fn machine(runs: &[Report], load: &str) -> String {
    let date = chrono::Local::now().format("%Y-%m-%d %H:%M");
    let rust = Command::new("rustc").arg("--version").output();
    let rust = rust.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let rust: Vec<_> = rust.split_whitespace().take(2).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<f64>();
    let memory =
        memory.map_or_else(|_| "?".to_owned(), |kibibytes| format!("{:.0} GiB", kibibytes / f64::from(1 << 20)));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (made, spread) = match (runs, Report::is_rough(runs)) {
        (_, true) => ("A smoke run: the figures are rough".to_owned(), "the least and the most of the runs"),
        ([_], false) => ("One whole run".to_owned(), "that of the quartiles of its rounds"),
        (_, false) => (format!("Medians of {} whole runs", runs.len()), "the least and the most of them"),
    };
    format!(
        "{date}; orchestrator {}{}, {}, release build; {} {}; {}, {cores} cores, {memory}; load averages {load} before the \
         first run. {made}; the spread is {spread}. `cargo bench --bench budget -- --only NAME`, with the name in the \
         last column, measures a row again.",
        env!("CARGO_PKG_VERSION"),
        commit(),
        rust.join(" "),
        std::env::consts::OS,
        kernel.trim(),
        field("/proc/cpuinfo", "model name"),
    )
}

/// The commit that was measured, where git knows it.
fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let said = asked.ok().filter(|answer| answer.status.success());
    said.map(|answer| format!(" ({})", String::from_utf8_lossy(&answer.stdout).trim())).unwrap_or_default()
}

/// What the system says of itself.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    value.map_or("?", |(_, value)| value.trim()).to_owned()
}

/// How busy the machine is, as the system tells: over one, five and fifteen minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}
