//! The arguments, and the texts of `--help`.

use std::ffi::{OsStr, OsString};
use std::num::IntErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use orchestrator_core::text::duration;
use orchestrator_core::{StateFilter, StateName};

/// Stands for the program's name in examples.
const NAME: &str = "{name}";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the run failed or crashed; `db check` found something
  2  the arguments, or a variable of the environment, make no sense or ask for what cannot be done
  3  the run was cancelled
  4  there is no such run, flow, limit or cached result, or several could be meant
  5  the database cannot be read or written, or there is none yet
  130, 143  ended by Ctrl-C or SIGTERM";

/// Which program the command line is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `orchestrator`, which knows no flows.
    Orchestrator,
    /// A pipeline's own program.
    Pipeline,
}

/// Looks at the runs, limits and cache of pipelines
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Orchestrator {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Look,
}

/// Runs the flows of this program, and looks at what became of them
#[derive(Debug, Parser)]
#[command(name = "pipeline", version = concat!("built with orchestrator ", env!("CARGO_PKG_VERSION")), disable_help_subcommand = true, arg_required_else_help = true)]
struct Pipeline {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Whole,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// The database: sqlite:PATH [default: ORCHESTRATOR_DATABASE_URL, or orchestrator.db in ORCHESTRATOR_HOME]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) database: Option<String>,
    /// Print JSON instead of text for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// What the arguments say.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) globals: Globals,
    pub(crate) command: Whole,
    /// All that could have been said.
    pub(crate) known: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Whole {
    /// Runs a flow of this program, and prints its result
    ///
    /// The id of the run and its progress go to standard error, the result goes to standard output: as it is if it is text,
    /// else as JSON.
    #[command(after_help = "Examples:
  {name} run github-stars --param 'repos=[\"serde\", \"tokio\"]' --param depth=3
  {name} run github_stars --params parameters.json --json | jq .total
  echo '{\"depth\": 3}' | {name} run github-stars --params -")]
    Run {
        /// The name of the flow, or of its function
        flow: String,
        /// A parameter: text where the flow takes text, else JSON
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        /// A file with parameters as a JSON object; - for standard input. What --param says comes before
        #[arg(long = "params", value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Lets a flow run go on that failed, crashed or was cancelled, and prints its result
    ///
    /// The function is called again under the same id, with the parameters that are on record. What it kept of its results
    /// is not computed again.
    #[command(after_help = "Examples:
  {name} resume brave-otter
  {name} resume --last")]
    Resume {
        #[arg(value_name = "ID", help = RUN)]
        run: Option<String>,
        /// The newest run of a flow of this program that failed, crashed or was cancelled
        #[arg(long, conflicts_with = "run")]
        last: bool,
    },
    /// Lists the flows of this program with their parameters; JSON has the JSON Schema of each
    #[command(after_help = "Example:
  {name} flows --json | jq '.[].parameters'")]
    Flows,
    #[command(flatten)]
    Look(Look),
}

/// What needs no flows.
#[derive(Debug, Subcommand)]
pub(crate) enum Look {
    /// Lists runs, shows them, and changes what becomes of them
    #[command(subcommand)]
    Runs(Runs),
    /// Lists task runs
    #[command(subcommand)]
    Tasks(Tasks),
    /// Lists, sets and removes limits
    #[command(subcommand)]
    Limits(Limits),
    /// Lists and removes cached results
    #[command(subcommand)]
    Cache(Cache),
    /// Looks after the database
    #[command(subcommand)]
    Db(Db),
    /// Shows what runs now, until q or Ctrl-C is pressed
    ///
    /// Where there is no terminal, a line for each change is printed; with --json, an object.
    Watch,
    /// Prints a script that completes the arguments in a shell
    #[command(after_help = "Examples:
  source <({name} completions bash)
  {name} completions fish > ~/.config/fish/completions/{name}.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const RUNS: &str = "The runs: ids, beginnings or ends of ids, or names of runs";
const RUN: &str = "The run: its id, the beginning or the end of it, or the run's name";

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// Lists flow runs that no other run called, newest first
    #[command(after_help = "Examples:
  {name} runs ls --state failed --since 2d
  {name} runs ls --all --flow extract
  {name} runs ls --flow github-stars --json | jq -r '.[].id'")]
    Ls {
        /// Only runs of this flow
        #[arg(long, value_name = "NAME")]
        flow: Option<String>,
        /// Only runs in a state of this type or name; running is the type, with its retries, and name:running the name alone
        #[arg(long, value_name = "STATE", value_parser = state(), ignore_case = true)]
        state: Option<StateFilter>,
        /// Only runs submitted in this time before now, such as 2h or 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        since: Option<Duration>,
        /// Runs that other runs called, too
        #[arg(long, short)]
        all: bool,
        /// At most so many runs; 20 if not said
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = some::<usize>)]
        limit: Option<usize>,
    },
    /// Shows all that is known of a run
    #[command(after_help = "Examples:
  {name} runs show 5f2a9c31
  {name} runs show brave-otter --json | jq .parameters")]
    Show {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
    },
    /// Shows what a run called: subflows and tasks, with states and durations
    ///
    /// Of a run whose body was started several times, because it was retried or resumed, what the last attempt called is shown;
    /// what earlier ones called is counted.
    #[command(after_help = "Examples:
  {name} runs tree brave-otter
  {name} runs tree brave-otter --all --limit 0")]
    Tree {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
        /// Show what each attempt called
        #[arg(long, short)]
        all: bool,
        /// Show at most so many runs below each run, those that did not complete first; 0 for all. JSON has all
        #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, value_parser = whole::<usize>)]
        limit: usize,
    },
    /// Prints the log of a run; that of a flow run has the lines of all runs inside it
    #[command(after_help = "Example:
  {name} runs logs brave-otter --follow")]
    Logs {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
        /// Go on printing until the run ends. With --json, one line for each object
        #[arg(long, short)]
        follow: bool,
    },
    /// Lists the states that a run has been in
    #[command(after_help = "Example:
  {name} runs states 5f2a9c31")]
    States {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
    },
    /// Says why a run is where it is
    #[command(after_help = "Example:
  {name} runs explain load-3")]
    Explain {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
    },
    /// Ends runs with all that they started, in whatever process they are
    ///
    /// Waits until they have ended. A run that has ended already is told of, and the exit code is 2; the others are cancelled all the same.
    #[command(after_help = "Examples:
  {name} runs cancel brave-otter
  {name} runs cancel 5f2a9c31 load-3 --json")]
    Cancel {
        #[arg(value_name = "ID", help = RUNS, required = true)]
        runs: Vec<String>,
    },
    /// Lets a flow run go on that is paused, or, in the pipeline's own program, did not complete
    ///
    /// One that is paused goes on in the process where it is.
    #[command(after_help = "Examples:
  {name} runs resume brave-otter
  {name} runs resume brave-otter --input '{\"approved\": true}'")]
    Resume {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
        /// What a paused run waits for, as JSON
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
    },
    /// Runs a flow again with the parameters of a run; only in the pipeline's own program
    #[command(after_help = "Example:
  {name} runs rerun brave-otter --json")]
    Rerun {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
    },
    /// Removes runs with all that is kept of them: states, logs, results, the runs inside
    ///
    /// Asks first where there is a terminal, and needs --yes where there is none.
    #[command(after_help = "Examples:
  {name} runs rm brave-otter 5f2a9c31
  {name} runs rm --older-than 30d --state completed --yes")]
    Rm {
        #[arg(
            value_name = "ID",
            help = RUNS,
            required_unless_present = "older_than"
        )]
        runs: Vec<String>,
        /// All runs that were submitted longer ago, such as 30d, and have ended
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "runs")]
        older_than: Option<Duration>,
        /// Of these only the ones in a state of this type or name; running is the type, with its retries, and name:running the name alone
        #[arg(long, value_name = "STATE", value_parser = state(), ignore_case = true, requires = "older_than")]
        state: Option<StateFilter>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// Lists task runs, newest first
    #[command(after_help = "Examples:
  {name} tasks ls --flow-run brave-otter --state failed
  {name} tasks ls --name fetch --limit 5")]
    Ls {
        /// Only task runs of this flow run
        #[arg(long, value_name = "ID")]
        flow_run: Option<String>,
        /// Only runs of the task of this name, or of this name themselves
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Only runs in a state of this type or name; running is the type, with its retries, and name:running the name alone
        #[arg(long, value_name = "STATE", value_parser = state(), ignore_case = true)]
        state: Option<StateFilter>,
        /// Only runs submitted in this time before now, such as 2h or 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        since: Option<Duration>,
        /// At most so many runs; 20 if not said
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = some::<usize>)]
        limit: Option<usize>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Lists all limits: slots, how many are held, and how many requests wait
    #[command(after_help = "Example:
  {name} limits ls --json | jq '.[] | select(.waiting > 0)'")]
    Ls,
    /// Creates or changes a limit; programs that run notice at once
    ///
    /// A rate limit stays one until --decay 0 is said; one that was not active is active again unless --inactive is said.
    #[command(after_help = "Examples:
  {name} limits set db 4
  {name} limits set api 10 --decay 2.5
  {name} limits set api 10 --decay 0")]
    Set {
        /// The limit's name
        name: String,
        /// How many slots it has
        #[arg(allow_negative_numbers = true, value_parser = whole::<u32>)]
        slots: u32,
        /// Makes it a rate limit: so many slots come back each second; 0 for none
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = decay)]
        decay: Option<f64>,
        /// It limits nothing until it is set again
        #[arg(long)]
        inactive: bool,
    },
    /// Removes a limit; runs that wait for its slots are refused
    Rm {
        /// The limit's name
        name: String,
        /// Even if runs hold its slots or wait for them
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Shows what is in the database, and how large it is
    Info,
    /// Brings a database of an older version to the present form
    ///
    /// So do programs that run flows. Commands that look leave the file as it is, and those that remove something are refused
    /// until it is done.
    Migrate,
    /// Removes old runs now, with all that is kept of them, as programs do in the background
    ///
    /// What is old is said by the options or else by the policy in force: see `db info`. What has not ended stays. Asks first where
    /// there is a terminal, and needs --yes where there is none, unless the policy in force is applied.
    #[command(after_help = "Examples:
  {name} db prune --older-than 7d --dry-run
  {name} db prune --keep 1000 --yes")]
    Prune {
        /// Runs that ended longer ago, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        /// All but the newest so many runs, such as 0 for all that have ended
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>)]
        keep: Option<u64>,
        /// Only say how many there are
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Gives room that is not used back to the system
    Compact,
    /// Looks for anything that is not as it should be; exit code 1 if there is something
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Lists cached results, newest first
    #[command(after_help = "Example:
  {name} cache ls --task pipeline::fetch")]
    Ls {
        /// Only results of this task, by its key: the function's module path and name
        #[arg(long, value_name = "KEY")]
        task: Option<String>,
        /// At most so many results; 20 if not said
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = some::<usize>)]
        limit: Option<usize>,
    },
    /// Shows what is known of a cached result
    Show {
        /// The key, or its beginning
        key: String,
    },
    /// Removes cached results
    #[command(after_help = "Example:
  {name} cache rm 3f9a 77c01b")]
    Rm {
        /// The keys, or their beginnings
        #[arg(required = true)]
        key: Vec<String>,
    },
    /// Removes all cached results
    ///
    /// Asks first where there is a terminal, and needs --yes where there is none.
    #[command(after_help = "Example:
  {name} cache clear --task pipeline::fetch --yes")]
    Clear {
        /// Only results of this task, by its key: the function's module path and name
        #[arg(long, value_name = "KEY")]
        task: Option<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// A number that is not negative, with a sentence for what is none.
fn whole<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    number(text, 0)
}

/// The same, but not zero: a list of nothing looks as if there were nothing.
fn some<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    number(text, 1)
}

fn number<N: TryFrom<u64>>(text: &str, least: u64) -> Result<N, String> {
    let most = || format!("the largest number is {}", u64::MAX >> (u64::BITS as usize - 8 * size_of::<N>()));
    match text.parse::<u64>() {
        Ok(number) if number >= least => N::try_from(number).map_err(|_| most()),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(most()),
        Ok(_) | Err(_) => Err(format!("expected a whole number from {least} up")),
    }
}

fn decay(text: &str) -> Result<f64, String> {
    let wanted = "expected the number of slots that come back each second, such as 2.5, or 0 for none";
    text.parse().ok().filter(|decay: &f64| decay.is_finite() && *decay >= 0.0).ok_or_else(|| wanted.to_owned())
}

/// A type, or a name that tables show. A name that is a type's too means the type, unless `name:` stands before it.
fn state() -> impl clap::builder::TypedValueParser<Value = StateFilter> {
    let known = states();
    let texts: Vec<String> = known.iter().map(|(text, _)| text.clone()).collect();
    PossibleValuesParser::new(texts).map(move |typed| {
        let found = known.iter().find(|(text, _)| text.eq_ignore_ascii_case(&typed));
        found.expect("the parser lets no other name pass").1
    })
}

/// All that can be said of states: each type, by the name that it has in common with one of its states, the other names,
/// and those in common.
fn states() -> Vec<(String, StateFilter)> {
    let is_common = |name: &StateName| name.as_str() == name.kind().as_str();
    let (common, others): (Vec<_>, Vec<_>) = StateName::ALL.into_iter().partition(is_common);
    let types = common.iter().map(|name| (name.as_str().to_lowercase(), name.kind().into()));
    let others = others.iter().map(|name| (name.as_str().to_owned(), (*name).into()));
    let names = common.iter().map(|name| (format!("name:{}", name.as_str().to_lowercase()), (*name).into()));
    types.chain(others).chain(names).collect()
}

/// Reads the arguments, the program's name first.
///
/// # Errors
///
/// If they make no sense; also for `--help` and `--version`, whose text is the error's.
pub(crate) fn parse(program: Program, arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, clap::Error> {
    let arguments = joined(arguments);
    let mut known = command(program, arguments.first().map(OsString::as_os_str).unwrap_or_default());
    let matches = known.try_get_matches_from_mut(arguments)?;
    match program {
        Program::Orchestrator => {
            let Orchestrator { globals, command } = Orchestrator::from_arg_matches(&matches)?;
            Ok(Parsed { globals, command: Whole::Look(command), known })
        }
        Program::Pipeline => {
            let Pipeline { globals, command } = Pipeline::from_arg_matches(&matches)?;
            Ok(Parsed { globals, command, known })
        }
    }
}

/// `--since -2h` as `--since=-2h`, so that it is the time that is refused: `-2h` alone would be a mistaken option. What
/// else begins with a hyphen is an option, and not a time.
fn joined(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    const TAKE_TIMES: [&str; 2] = ["--since", "--older-than"];
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        let is_negative = matches!(argument.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        match joined.last_mut() {
            Some(option) if is_negative && TAKE_TIMES.iter().any(|name| option == name) => {
                option.push("=");
                option.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// What is wrong with the arguments, without how it is introduced for people.
pub(crate) fn said(error: &clap::Error) -> String {
    let said = error.to_string();
    let said = said.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more information").next().unwrap_or_default();
    said.trim_start_matches("error: ").trim().to_owned()
}

fn command(program: Program, called: &OsStr) -> Command {
    let command = match program {
        Program::Orchestrator => named(Orchestrator::command(), "orchestrator"),
        Program::Pipeline => {
            let name = Path::new(called).file_stem().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_else(|| "pipeline".to_owned());
            named(Pipeline::command(), &name).name(name)
        }
    };
    command.after_help(EXIT_CODES)
}

/// Puts the program's name into the examples.
fn named(command: Command, name: &str) -> Command {
    let mut command = command;
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(text.replace(NAME, name));
    }
    command.mut_subcommands(|inner| named(inner, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_engine_and_each_type_is_said_in_one_way() {
        let known = states();
        let texts =
            |filter| known.iter().filter(|(_, known)| *known == filter).map(|(text, _)| &**text).collect::<Vec<_>>();
        for name in StateName::ALL {
            for filter in [StateFilter::Name(name), StateFilter::Type(name.kind())] {
                let [text] = texts(filter)[..] else { panic!("{filter:?} is said as {:?}", texts(filter)) };
                assert_eq!(read(text), filter);
                assert_eq!(read(&text.to_uppercase()), filter);
            }
        }
        assert_eq!(known.len(), StateName::ALL.len() + texts_of_types(&known));
    }

    fn texts_of_types(known: &[(String, StateFilter)]) -> usize {
        known.iter().filter(|(_, filter)| matches!(filter, StateFilter::Type(_))).count()
    }

    /// What the arguments make of it.
    fn read(text: &str) -> StateFilter {
        let arguments = ["orchestrator", "runs", "ls", "--state", text].map(OsString::from);
        let parsed = parse(Program::Orchestrator, arguments).unwrap_or_else(|error| panic!("{error}"));
        let Whole::Look(Look::Runs(Runs::Ls { state: Some(state), .. })) = parsed.command else {
            panic!("{text}: {:?}", parsed.command)
        };
        state
    }
}
