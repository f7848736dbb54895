//! The command line.

use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Measures what the engine costs beside the least that the same work can cost.

usage: cargo bench --bench budget -- [OPTIONS]

  --quick       a smoke run of a few seconds: small sizes, few rounds, rough figures
  --only NAME   one workload: fan-out, chain, layers, flatness, cache, slots,
                latency, scale, memory, sqlite, logs, stream, start, big, waiting
  --runs N      N whole runs, and a table of their medians and spreads, which goes onto benches/README.md by itself
  --json PATH   write the JSON there rather than after the table
  --guard       count instructions instead, and compare with benches/guard/expected.json
  --bless       with --guard: take what is counted as what is to be expected
  --help        this text

exit status: 1 if anything costs more than five times its budget (ten times with --quick), 2 if the call was wrong, 3 if something hangs";

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
    Measure {
        quick: bool,
        only: Option<String>,
        json: Option<PathBuf>,
        runs: usize,
    },
}

impl Arguments {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut quick, mut only, mut json) = (false, None, None);
        let (mut guard, mut bless, mut runs) = (false, false, 1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => quick = true,
                "--guard" => guard = true,
                "--bless" => bless = true,
                "--only" => only = Some(value()?),
                "--runs" => {
                    runs = value()?.parse().ok().filter(|runs| *runs > 0).ok_or("--runs takes a number of runs")?
                }
                "--json" => json = Some(PathBuf::from(value()?)),
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
        Ok(Self::Measure { quick, only, json, runs })
    }
}
