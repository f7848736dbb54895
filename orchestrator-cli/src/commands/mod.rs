//! What the commands do: a file for each subject.

mod cache;
mod explain;
mod limits;
mod logs;
mod runs;
mod tasks;
mod tree;

use clap::Command;
use clap_complete::Shell;

use crate::args::{Cache, Globals, Limits, Look, Parsed, Runs, Tasks};
use crate::exit::{self, Trouble};
use crate::{print, store};

/// Does what the arguments say, and gives the exit code.
pub(crate) async fn run(parsed: Parsed) -> Result<u8, Trouble> {
    let Parsed { globals, command, known } = parsed;
    look(&globals, command, known).await.map(|()| exit::SUCCESS)
}

async fn look(globals: &Globals, command: Look, known: Command) -> Result<(), Trouble> {
    match command {
        Look::Runs(command) => runs(globals, command).await,
        Look::Tasks(Tasks::Ls { flow_run, name, state, since, limit }) => {
            let wanted = tasks::Wanted { flow_run, name, state, since, limit };
            tasks::list(&store::look(globals).await?, wanted, globals.json).await
        }
        Look::Limits(Limits::Ls) => limits::list(&store::look(globals).await?, globals.json).await,
        Look::Cache(command) => match command {
            Cache::Ls { task, limit } => {
                cache::list(&store::look(globals).await?, task.as_deref(), limit, globals.json).await
            }
            Cache::Show { key } => cache::show(&store::look(globals).await?, &key, globals.json).await,
            Cache::Rm { key } => cache::remove(&store::change(globals).await?, &key, globals.json).await,
            Cache::Clear { task } => cache::clear(&store::change(globals).await?, task.as_deref(), globals.json).await,
        },
        Look::Completions { shell } => complete(shell, known),
    }
}

fn complete(shell: Shell, mut known: Command) -> Result<(), Trouble> {
    let name = known.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut known, name, &mut script);
    print::out(&String::from_utf8_lossy(&script))
}

async fn runs(globals: &Globals, command: Runs) -> Result<(), Trouble> {
    let orchestrator = store::look(globals).await?;
    let json = globals.json;
    match command {
        Runs::Ls { flow, state, since, limit } => {
            runs::list(&orchestrator, runs::Wanted { flow, state, since, limit }, json).await
        }
        Runs::Show { run } => runs::show(&orchestrator, &run, json).await,
        Runs::Tree { run, limit } => tree::show(&orchestrator, &run, limit, json).await,
        Runs::Logs { run, follow } => logs::print(&orchestrator, &run, follow, json).await,
        Runs::States { run } => runs::states(&orchestrator, &run, json).await,
        Runs::Explain { run } => explain::explain(&orchestrator, &run, json).await,
    }
}
