//! What the commands do: a file for each subject.

mod cache;
mod cancel;
mod db;
mod explain;
mod flows;
mod limits;
mod logs;
mod parameters;
mod prune;
mod remove;
mod run;
mod runs;
mod tasks;
mod tree;
mod watch;

use clap::Command;
use clap_complete::Shell;

use crate::args::{Cache, Db, Globals, Limits, Look, Parsed, Runs, Tasks, Whole};
use crate::exit::{self, Trouble};
use crate::{print, store};

/// Does what the arguments say, and gives the exit code.
pub(crate) async fn run(parsed: Parsed) -> Result<u8, Trouble> {
    let Parsed { globals, command, known } = parsed;
    let globals = &globals;
    match command {
        Whole::Run { flow, params, file } => run::run(globals, &flow, parameters::Typed { params, file }).await,
        Whole::Resume { run: None, last: false } => Err(Trouble::usage(
            "resume which run? Say its ID, or --last for the newest that failed, crashed or was cancelled; see `runs ls`",
        )),
        Whole::Resume { run, last: _ } => run::resume(globals, run.as_deref()).await,
        Whole::Flows => flows::list(globals.json).map(|()| exit::SUCCESS),
        Whole::Look(command) => look(globals, command, known).await,
    }
}

async fn look(globals: &Globals, command: Look, known: Command) -> Result<u8, Trouble> {
    match command {
        Look::Runs(command) => return runs(globals, command).await,
        Look::Db(Db::Check) => return db::check(&store::look(globals).await?, globals.json).await,
        Look::Tasks(Tasks::Ls { flow_run, name, state, since, limit }) => {
            let wanted = tasks::Wanted { flow_run, name, state, since, limit };
            tasks::list(&store::look(globals).await?, wanted, globals.json).await
        }
        Look::Limits(command) => match command {
            Limits::Ls => limits::list(&store::look(globals).await?, globals.json).await,
            Limits::Set { name, slots, decay, inactive } => {
                let wanted = limits::Wanted { name, slots, decay, inactive };
                limits::set(&store::make(globals).await?, wanted, globals.json).await
            }
            Limits::Rm { name, yes } => limits::remove(&store::change(globals).await?, &name, yes, globals.json).await,
        },
        Look::Cache(command) => match command {
            Cache::Ls { task, limit } => {
                cache::list(&store::look(globals).await?, task.as_deref(), limit, globals.json).await
            }
            Cache::Show { key } => cache::show(&store::look(globals).await?, &key, globals.json).await,
            Cache::Rm { key } => cache::remove(&store::look(globals).await?, &key, globals.json).await,
            Cache::Clear { task, yes } => {
                cache::clear(&store::look(globals).await?, task.as_deref(), yes, globals.json).await
            }
        },
        Look::Db(Db::Info) => db::info(&store::look(globals).await?, globals.json).await,
        Look::Db(Db::Migrate) => db::migrate(globals).await,
        Look::Db(Db::Prune { older_than, keep, dry_run, yes }) => {
            let wanted = prune::Wanted { older_than, keep, dry_run, yes };
            prune::prune(&store::look(globals).await?, wanted, globals.json).await
        }
        Look::Db(Db::Compact) => db::compact(&store::look(globals).await?, globals.json).await,
        Look::Watch => watch::watch(&store::look(globals).await?, globals.json).await,
        Look::Completions { shell } => complete(shell, known),
    }
    .map(|()| exit::SUCCESS)
}

fn complete(shell: Shell, mut known: Command) -> Result<(), Trouble> {
    let name = known.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut known, name, &mut script);
    print::out(&String::from_utf8_lossy(&script))
}

async fn runs(globals: &Globals, command: Runs) -> Result<u8, Trouble> {
    let json = globals.json;
    match command {
        Runs::Ls { flow, state, since, all, limit } => {
            let wanted = runs::Wanted { flow, state, since, all, limit };
            runs::list(&store::look(globals).await?, wanted, json).await
        }
        Runs::Show { run } => runs::show(&store::look(globals).await?, &run, json).await,
        Runs::Tree { run, all, limit } => {
            let shown = tree::Shown { all, limit: if limit == 0 { usize::MAX } else { limit } };
            tree::show(&store::look(globals).await?, &run, shown, json).await
        }
        Runs::Logs { run, follow } => logs::print(&store::look(globals).await?, &run, follow, json).await,
        Runs::States { run } => runs::states(&store::look(globals).await?, &run, json).await,
        Runs::Explain { run } => explain::explain(&store::look(globals).await?, &run, json).await,
        Runs::Cancel { runs } => return cancel::cancel(&store::look(globals).await?, &runs, json).await,
        Runs::Resume { run, input } => return run::go_on(globals, &run, input.as_deref()).await,
        Runs::Rerun { run } => return run::rerun(globals, &run).await,
        Runs::Rm { runs, older_than, state, yes } => {
            let wanted = remove::Wanted { runs, older_than, state, yes };
            remove::remove(&store::look(globals).await?, wanted, json).await
        }
    }
    .map(|()| exit::SUCCESS)
}
