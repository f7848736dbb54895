//! The store that a command looks at.

use orchestrator_core::backend::BackendErrorKind;
use orchestrator_core::{Error, Orchestrator, OrchestratorBuilder};

use crate::args::Globals;
use crate::exit::{self, Trouble};

/// For looking: nothing is run, and no database is made.
pub(crate) async fn look(globals: &Globals) -> Result<Orchestrator, Trouble> {
    open(globals, Orchestrator::builder().look_only(true)).await
}

/// For changing what is there.
pub(crate) async fn change(globals: &Globals) -> Result<Orchestrator, Trouble> {
    open(globals, Orchestrator::builder().existing_only(true)).await
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
