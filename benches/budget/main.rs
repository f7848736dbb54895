//! What the engine costs, each piece of work beside the least that it can cost, measured in the same run.
//!
//! `cargo bench --bench budget -- --help` says how to call it, `benches/README.md` what is measured.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports to the person who called it")]

mod arguments;
mod big;
mod cache_hits;
mod chain;
mod child;
mod fan_out;
mod flatness;
mod guard;
mod latency;
mod layers;
mod logs;
mod measure;
mod memory;
mod page;
mod report;
mod scale;
mod slots;
mod sqlite;
mod start;
mod stream;
mod waiting;
mod watchdog;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, HELP};
use measure::Effort;
use report::{Report, Row};
use watchdog::Watchdog;

/// A piece of work that is measured.
struct Workload {
    name: &'static str,
    measure: fn(&Effort) -> Vec<Row>,
    /// Of several runs the first alone measures it: it takes long, and varies little.
    once: bool,
}

const WORKLOADS: [Workload; 15] = [
    Workload { name: "fan-out", measure: fan_out::measure, once: false },
    Workload { name: "chain", measure: chain::measure, once: false },
    Workload { name: "layers", measure: layers::measure, once: false },
    Workload { name: "flatness", measure: flatness::measure, once: false },
    Workload { name: "cache", measure: cache_hits::measure, once: false },
    Workload { name: "slots", measure: slots::measure, once: false },
    Workload { name: "latency", measure: latency::measure, once: false },
    Workload { name: "scale", measure: scale::measure, once: false },
    Workload { name: "memory", measure: memory::measure, once: false },
    Workload { name: "sqlite", measure: sqlite::measure, once: false },
    Workload { name: "logs", measure: logs::measure, once: false },
    Workload { name: "stream", measure: stream::measure, once: true },
    Workload { name: "start", measure: start::measure, once: false },
    Workload { name: "big", measure: big::measure, once: false },
    Workload { name: "waiting", measure: waiting::measure, once: true },
];

fn main() -> ExitCode {
    if std::env::var_os(big::COMMAND_LINE).is_some() {
        return measure::runtime().block_on(orchestrator::cli());
    }
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(said) => {
            eprintln!("{said}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match arguments {
        Arguments::Help => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Arguments::List => ExitCode::SUCCESS,
        Arguments::Guard { bless } => guard::run(bless),
        Arguments::Child(arguments) => child::run(&arguments),
        Arguments::Measure { quick, only, json, runs } => {
            // Without optimisation figures mean nothing: only whether it works can be seen.
            let quick = quick || cfg!(debug_assertions);
            if cfg!(debug_assertions) {
                eprintln!("not a release build: the figures mean nothing");
            }
            measure(&Effort::new(quick), only.as_deref(), json.as_deref(), runs)
        }
    }
}

fn measure(effort: &Effort, only: Option<&str>, json: Option<&std::path::Path>, runs: usize) -> ExitCode {
    let chosen: Vec<_> = WORKLOADS.iter().filter(|work| only.is_none_or(|only| work.name == only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = WORKLOADS.iter().map(|work| work.name).collect();
        eprintln!("there is no workload '{}': there are {}", only.unwrap_or_default(), names.join(", "));
        return ExitCode::from(2);
    }
    let (load, mut reports) = (page::load(), Vec::new());
    for run in 0..runs {
        let mut report = Report::new(effort.quick);
        for work in chosen.iter().filter(|work| run == 0 || !work.once) {
            eprintln!("measuring {} ..", work.name);
            let _watchdog = Watchdog::over(work.name, Duration::from_secs(600));
            report.add(work.name, (work.measure)(effort));
        }
        println!("{}", report.table());
        reports.push(report);
    }
    let text = Report::json(&reports);
    let written = match json {
        None => {
            println!("{text}");
            Ok(())
        }
        Some(path) => std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display())),
    };
    // What is not the whole, or rough, stays off the page.
    let written = written.and_then(|()| match runs {
        1 => Ok(()),
        _ if only.is_some() || effort.quick => {
            println!("{}", Report::over_all(&reports));
            Ok(())
        }
        _ => page::write(&reports, &load).map(|()| println!("written to benches/README.md")),
    });
    if let Err(said) = written {
        eprintln!("{said}");
        return ExitCode::from(2);
    }
    if reports.iter().any(Report::is_wrong_way_round) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
