//! The command line.

use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Measures what the engine costs beside the least that the same work can cost.

usage: cargo bench --bench budget -- [OPTIONS]

  --quick       a smoke run of a few seconds: small sizes, few rounds, rough figures
  --only NAME   one workload: fan-out, chain, layers, flatness, cache, slots,
                latency, scale, memory, sqlite, logs, lines, stream, start, big, waiting
  --runs N      N whole runs, and a table of their medians and spreads, which is written onto the page after each of
                them; with --quick or --only it is shown, and written onto no page but one that --page names
  --page PATH   the page, in the place of benches/README.md: a file with the two lines between which the table stands
  --json PATH   write the JSON there rather than after the table
  --guard       count instructions instead, and compare with benches/guard/expected.json
  --bless       with --guard: take what is counted as what is to be expected
  --help        this text

exit status, when all is written: 1 if anything costs more than five times its budget (ten times with --quick), 2 if the call was wrong, 3 if something hangs";

/// What is to be done.
pub(crate) enum Arguments {
    Help,
    /// A test runner asks for tests: there are none.
    List,
    /// Instructions are counted and compared.
    Guard {
        bless: bool,
    },
    /// A process that measures itself for another one.
    Child(Vec<String>),
    Measure(Plan),
}

/// What is measured, and where the figures go.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) only: Option<String>,
    pub(crate) json: Option<PathBuf>,
    /// `None`: one run, and no page.
    pub(crate) runs: Option<usize>,
    page: Option<PathBuf>,
}

impl Plan {
    /// The page that the table is written onto. Figures that are rough, or not of all workloads, do not take the place of
    /// those on the usual page.
    pub(crate) fn page(&self) -> Option<PathBuf> {
        self.runs?;
        let usual = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/README.md"));
        self.page.clone().or_else(|| (!self.quick && self.only.is_none()).then(usual))
    }
}

impl Arguments {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Plan { quick: false, only: None, json: None, runs: None, page: None };
        let (mut guard, mut bless) = (false, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => plan.quick = true,
                "--guard" => guard = true,
                "--bless" => bless = true,
                "--only" => plan.only = Some(value()?),
                "--runs" => {
                    let runs = value()?.parse().ok().filter(|runs| *runs > 0);
                    plan.runs = Some(runs.ok_or("--runs takes a number of runs")?);
                }
                "--page" => plan.page = Some(PathBuf::from(value()?)),
                "--json" => plan.json = Some(PathBuf::from(value()?)),
                "--help" | "-h" => return Ok(Self::Help),
                "--list" => return Ok(Self::List),
                "--child" => return Ok(Self::Child(arguments.collect())),
                // What cargo says to every benchmark.
                "--bench" => {}
                _ => return Err(format!("unknown option '{argument}'")),
            }
        }
        if guard {
            return Ok(Self::Guard { bless });
        }
        if plan.page.is_some() && plan.runs.is_none() {
            return Err("--page is for the table of --runs".to_owned());
        }
        Ok(Self::Measure(plan))
    }
}
