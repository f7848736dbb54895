//! What the engine costs, each piece of work beside the least that it can cost, measured in the same run.
//!
//! `cargo bench --bench budget -- --help` says how to call it, `benches/README.md` what is measured.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports to the person who called it")]

mod arguments;
mod big;
mod cache_hits;
mod calls;
mod chain;
mod child;
mod fan_out;
mod flatness;
mod guard;
mod latency;
mod layers;
mod lines;
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

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, HELP, Plan};
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

const WORKLOADS: [Workload; 16] = [
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
    Workload { name: "lines", measure: lines::measure, once: false },
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
        Arguments::Measure(mut plan) => {
            // Without optimisation figures mean nothing: only whether it works can be seen.
            if cfg!(debug_assertions) {
                plan.quick = true;
                eprintln!("not a release build: the figures mean nothing");
            }
            measure(&plan)
        }
    }
}

fn measure(plan: &Plan) -> ExitCode {
    let only = plan.only.as_deref();
    let chosen: Vec<_> = WORKLOADS.iter().filter(|work| only.is_none_or(|only| work.name == only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = WORKLOADS.iter().map(|work| work.name).collect();
        eprintln!("there is no workload '{}': there are {}", only.unwrap_or_default(), names.join(", "));
        return ExitCode::from(2);
    }
    let (effort, page, load, mut reports) = (Effort::new(plan.quick), plan.page(), page::load(), Vec::new());
    // A page that has no place for the table is told now, and not when minutes were spent on its figures.
    if let Some(Err(said)) = page.as_deref().map(page::around) {
        eprintln!("{said}");
        return ExitCode::from(2);
    }
    for run in 0..plan.runs.unwrap_or(1) {
        let mut report = Report::new(plan.quick);
        for work in chosen.iter().filter(|work| run == 0 || !work.once) {
            eprintln!("measuring {} ..", work.name);
            let _watchdog = Watchdog::over(work.name, Duration::from_secs(600));
            report.add(work.name, (work.measure)(&effort));
        }
        println!("{}", report.table());
        reports.push(report);
        // After each run: one that fails or hangs takes nothing away from those before it.
        if let Err(said) = written(plan, page.as_deref(), &reports, &load) {
            eprintln!("{said}");
            return ExitCode::from(2);
        }
    }
    match (&page, plan.runs) {
        (Some(page), _) => println!("written to {}", page.display()),
        (None, Some(_)) => println!("{}", Report::over_all(&reports)),
        (None, None) => {}
    }
    if plan.json.is_none() {
        println!("{}", Report::json(&reports));
    }
    if Report::is_wrong_way_round(&reports) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn written(plan: &Plan, page: Option<&Path>, reports: &[Report], load: &str) -> Result<(), String> {
    if let Some(path) = &plan.json {
        std::fs::write(path, Report::json(reports))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    page.map_or(Ok(()), |page| page::write(page, reports, load))
}
