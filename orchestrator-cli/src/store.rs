//! The store that a command looks at.

use orchestrator_core::backend::BackendErrorKind;
use orchestrator_core::{Error, Orchestrator, OrchestratorBuilder, Retention};

use crate::args::Globals;
use crate::exit::{self, Trouble};

/// For looking at what is there, and removing it: nothing is run, and no database is made.
pub(crate) async fn look(globals: &Globals) -> Result<Orchestrator, Trouble> {
    open(globals, Orchestrator::builder().look_only(true).existing_only(true)).await
}

/// For telling those who run something of a change: they have to know who says so.
pub(crate) async fn change(globals: &Globals) -> Result<Orchestrator, Trouble> {
    open(globals, passing().existing_only(true)).await
}

/// The same, for what may be the first thing in a database.
pub(crate) async fn make(globals: &Globals) -> Result<Orchestrator, Trouble> {
    open(globals, passing()).await
}

/// How long history is kept is for the pipelines to say, not for a program that passes by.
fn passing() -> OrchestratorBuilder {
    Orchestrator::builder().retention(Retention::off()).resume_crashed(false)
}

/// Opens what the command line names, or what the program has chosen, or what the environment says.
async fn open(globals: &Globals, builder: OrchestratorBuilder) -> Result<Orchestrator, Trouble> {
    let builder = match (&globals.database, Orchestrator::try_current()) {
        (Some(url), _) => builder.database_url(url),
        (None, Some(chosen)) => return Ok(chosen),
        (None, None) => builder,
    };
    let opened = builder.build().await.map_err(explain)?;
    if opened.location() == "memory" {
        return Err(Trouble::usage(
            "the database is `memory`, which ends with the program that keeps it: there is nothing to look at from outside",
        ));
    }
    Ok(opened)
}

fn explain(error: Error) -> Trouble {
    let mut trouble = Trouble::from(error.clone());
    if error.as_backend().is_some_and(|error| error.kind() == BackendErrorKind::Missing) {
        trouble = Trouble::new(
            exit::STORE,
            format!(
                "{error}; the first run of a pipeline makes it. Another one is named by --database, \
                 ORCHESTRATOR_DATABASE_URL or ORCHESTRATOR_HOME"
            ),
        );
    }
    trouble
}

/// An orchestrator that runs flows, as a program's own would.
#[derive(Debug)]
pub(crate) struct Session {
    orchestrator: Orchestrator,
    /// Whether it is this program's to end.
    ours: bool,
}

impl Session {
    /// Runs that crashed go on by themselves only if they are of the flow with that key.
    pub(crate) async fn open(globals: &Globals, only: Option<&'static str>) -> Result<Self, Trouble> {
        if let (None, Some(orchestrator)) = (&globals.database, Orchestrator::try_current()) {
            return Ok(Self { orchestrator, ours: false });
        }
        let mut builder = Orchestrator::builder().resume_only(only).terminal(true).handle_signals(true);
        if let Some(url) = &globals.database {
            builder = builder.database_url(url);
        }
        // Whoever gives a command is there to be told: nothing is run with something else in the place of what was asked for.
        let orchestrator = builder.build().await.map_err(explain)?;
        // For bodies that look for one themselves.
        orchestrator.install();
        Ok(Self { orchestrator, ours: true })
    }

    pub(crate) const fn orchestrator(&self) -> &Orchestrator {
        &self.orchestrator
    }

    /// Ends it, if it is this program's, or is the last thing that the process does. What could not be stored is told; it
    /// changes nothing about how the run ended.
    pub(crate) async fn close(self, last: bool, json: bool) {
        if (self.ours || last)
            && let Err(error) = self.orchestrator.shutdown().await
        {
            crate::print::warn(&error.to_string(), json);
        }
    }
}
