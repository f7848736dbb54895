//! From the results of the upstream runs to the arguments, and what is recorded of them.

use std::sync::Arc;

use super::Call;
use crate::backend::record::Event;
use crate::body::ArgEncoder;
use crate::error::{Cause, FailureKind, TaskError};
use crate::persist::{self, Resolved};
use crate::run::Run;

/// Takes the results of the upstream runs, and gives the run its name and its recorded parameters.
pub(super) fn prepare(run: &Arc<Run>, call: &mut dyn Call) -> Resolved {
    let resolved = match persist::take_resolved(run) {
        Some(resolved) => resolved?,
        None => resolve(run, call).inspect(|()| persist::identify(run, call)),
    };
    if resolved.is_err() || !run.visible || run.is_resumed() {
        return Ok(resolved);
    }
    if run.overrides.get().is_none_or(|options| options.run_name.is_none())
        && let Some(name) = call.run_name()
    {
        run.rename(name);
    }
    if let Some(id) = run.id().as_flow() {
        let json = record_parameters(run, call).to_string();
        run.scope().orchestrator.journal.push(Event::Parameters { run: id, json });
    }
    Ok(Ok(()))
}

/// Takes the results of the upstream runs, once.
pub(crate) fn resolve(run: &Run, call: &mut dyn Call) -> Result<(), TaskError> {
    // From here on a failure upstream is this run's to tell.
    call.visit(&mut |upstream| upstream.observe());
    // Told by its first cause: what lies between is a consequence, like this one.
    call.resolve().map_err(|error| run.error(FailureKind::NotReady, Cause::Upstream(error.first_cause())))
}

/// The parameters of a flow run, as they are recorded.
pub(crate) fn record_parameters<'r>(run: &'r Run, call: &dyn Call) -> &'r serde_json::Value {
    if run.scope().parameters.get().is_none() {
        let mut parameters = serde_json::Map::new();
        // A parameter that cannot be encoded is recorded as a note that says so.
        let _ = call.encode(ArgEncoder::record(&mut parameters));
        let _ = run.scope().parameters.set(serde_json::Value::Object(parameters));
    }
    run.scope().parameters.get().expect("they were set just now")
}
