//! The arguments, and the texts of `--help`.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use orchestrator_core::StateType;

/// Stands for the program's name in examples.
const NAME: &str = "{name}";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the run failed or crashed; `db check` found something
  2  the arguments make no sense, or ask for what cannot be done; nothing was done
  3  the run was cancelled
  4  there is no such run, limit or cached result, or several could be meant
  5  the database cannot be read or written
  130, 143  ended by Ctrl-C or SIGTERM";

/// Which program the command line is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `orchestrator`, which knows no flows.
    Orchestrator,
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
    pub(crate) command: Look,
    /// All that could have been said.
    pub(crate) known: Command,
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
    /// Prints a script that completes the arguments in a shell
    #[command(after_help = "Examples:
  source <({name} completions bash)
  {name} completions fish > ~/.config/fish/completions/{name}.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const RUN: &str = "The run: its id, the beginning or the end of it, or the run's name";

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// Lists flow runs, newest first
    #[command(after_help = "Examples:
  {name} runs ls --state failed --since 2d
  {name} runs ls --flow github-stars --json | jq -r '.[].id'")]
    Ls {
        /// Only runs of this flow
        #[arg(long, value_name = "NAME")]
        flow: Option<String>,
        /// Only runs in a state of this type
        #[arg(long, value_name = "TYPE", value_parser = state_type(), ignore_case = true)]
        state: Option<StateType>,
        /// Only runs submitted in this time before now, such as 2h or 30d
        #[arg(long, value_name = "TIME", value_parser = period)]
        since: Option<Duration>,
        /// At most so many runs
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
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
    #[command(after_help = "Example:
  {name} runs tree brave-otter")]
    Tree {
        #[arg(value_name = "ID", help = RUN)]
        run: String,
        /// Show at most so many runs below each run, those that did not complete first; 0 for all. JSON has all
        #[arg(long, value_name = "N", default_value_t = 20)]
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
        /// Only runs in a state of this type
        #[arg(long, value_name = "TYPE", value_parser = state_type(), ignore_case = true)]
        state: Option<StateType>,
        /// Only runs submitted in this time before now, such as 2h or 30d
        #[arg(long, value_name = "TIME", value_parser = period)]
        since: Option<Duration>,
        /// At most so many runs
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Lists all limits: slots, how many are held, and how many requests wait
    #[command(after_help = "Example:
  {name} limits ls --json | jq '.[] | select(.waiting > 0)'")]
    Ls,
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
        /// At most so many results
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
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
    #[command(after_help = "Example:
  {name} cache clear --task pipeline::fetch")]
    Clear {
        /// Only results of this task, by its key: the function's module path and name
        #[arg(long, value_name = "KEY")]
        task: Option<String>,
    },
}

fn period(text: &str) -> Result<Duration, String> {
    let wanted = "expected a time such as 90s, 2h or 30d";
    humantime::parse_duration(text).map_err(|error| format!("{wanted}: {error}"))
}

fn state_type() -> impl clap::builder::TypedValueParser<Value = StateType> {
    PossibleValuesParser::new(STATE_TYPES.map(|(name, _)| name)).map(|typed| {
        let found = STATE_TYPES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(&typed));
        found.expect("the parser lets no other name pass").1
    })
}

const STATE_TYPES: [(&str, StateType); 9] = [
    ("scheduled", StateType::Scheduled),
    ("pending", StateType::Pending),
    ("running", StateType::Running),
    ("completed", StateType::Completed),
    ("failed", StateType::Failed),
    ("crashed", StateType::Crashed),
    ("cancelled", StateType::Cancelled),
    ("cancelling", StateType::Cancelling),
    ("paused", StateType::Paused),
];

/// Reads the arguments, the program's name first.
///
/// # Errors
///
/// If they make no sense; also for `--help` and `--version`, whose text is the error's.
pub(crate) fn parse(program: Program, arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, clap::Error> {
    let mut known = command(program);
    let matches = known.try_get_matches_from_mut(arguments)?;
    match program {
        Program::Orchestrator => {
            let Orchestrator { globals, command } = Orchestrator::from_arg_matches(&matches)?;
            Ok(Parsed { globals, command, known })
        }
    }
}

fn command(program: Program) -> Command {
    let (command, name) = match program {
        Program::Orchestrator => (Orchestrator::command(), "orchestrator"),
    };
    named(command, name).after_help(EXIT_CODES)
}

/// Puts the program's name into the examples.
fn named(command: Command, name: &str) -> Command {
    let mut command = command;
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(text.replace(NAME, name));
    }
    command.mut_subcommands(|inner| named(inner, name))
}
