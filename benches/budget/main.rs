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
mod layers;
mod measure;
mod memory;
mod report;
mod slots;
mod sqlite;
mod start;
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
}

const WORKLOADS: [Workload; 11] = [
    Workload { name: "fan-out", measure: fan_out::measure },
    Workload { name: "chain", measure: chain::measure },
    Workload { name: "layers", measure: layers::measure },
    Workload { name: "flatness", measure: flatness::measure },
    Workload { name: "cache", measure: cache_hits::measure },
    Workload { name: "slots", measure: slots::measure },
    Workload { name: "memory", measure: memory::measure },
    Workload { name: "sqlite", measure: sqlite::measure },
    Workload { name: "start", measure: start::measure },
    Workload { name: "big", measure: big::measure },
    Workload { name: "waiting", measure: waiting::measure },
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
        Arguments::Child(arguments) => child::run(&arguments),
        Arguments::Measure { quick, only, json } => {
            // Without optimisation figures mean nothing: only whether it works can be seen.
            let quick = quick || cfg!(debug_assertions);
            if cfg!(debug_assertions) {
                eprintln!("not a release build: the figures mean nothing");
            }
            measure(&Effort::new(quick), only.as_deref(), json.as_deref())
        }
    }
}

fn measure(effort: &Effort, only: Option<&str>, json: Option<&std::path::Path>) -> ExitCode {
    let chosen: Vec<_> = WORKLOADS.iter().filter(|work| only.is_none_or(|only| work.name == only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = WORKLOADS.iter().map(|work| work.name).collect();
        eprintln!("there is no workload '{}': there are {}", only.unwrap_or_default(), names.join(", "));
        return ExitCode::from(2);
    }
    let mut report = Report::new(effort.quick);
    for work in chosen {
        eprintln!("measuring {} ..", work.name);
        let _watchdog = Watchdog::over(work.name, Duration::from_secs(180));
        report.add(work.name, (work.measure)(effort));
    }
    println!("{}", report.table());
    let text = report.json();
    match json {
        None => println!("{text}"),
        Some(path) => {
            if let Err(error) = std::fs::write(path, text) {
                eprintln!("cannot write {}: {error}", path.display());
                return ExitCode::from(2);
            }
        }
    }
    if report.is_wrong_way_round() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
