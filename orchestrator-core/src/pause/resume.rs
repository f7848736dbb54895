//! Letting a paused flow run go on.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::refused;
use super::table::{Entry, Input};
use crate::engine::panics;
use crate::error::{Error, ErrorKind};
use crate::id::{FlowRunId, RunId};
use crate::orchestrator::Orchestrator;
use crate::run::Run;

/// So many characters of an input are quoted.
const QUOTED: usize = 200;

impl Orchestrator {
    /// Lets the oldest pause of a flow run go on, with the input that it waits for: `()` if it takes none. The run may
    /// belong to another process, or another orchestrator, over the same store.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use orchestrator_core::{FlowRunId, Orchestrator};
    ///
    /// # async fn answer(orchestrator: Orchestrator, id: FlowRunId) -> Result<(), orchestrator_core::Error> {
    /// let run = orchestrator.flow_run(id).await?;
    /// if let Some(pause) = run.pause {
    ///     println!("{}: {}", run.name, pause.message.unwrap_or_default());
    ///     orchestrator.resume_paused(id, ()).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the input is not what the pause takes ([`Error::is_invalid_input`]): the pause goes on, as if nothing had
    /// happened. If the flow run is not paused ([`Error::is_not_paused`]). If there is no such run
    /// ([`Error::is_not_found`]), or if the backend fails.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the flow run is let on even if the future is dropped; one of another process perhaps not.
    pub fn resume_paused(
        &self,
        run_id: impl Into<RunId>,
        input: impl Serialize,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let id = run_id.into();
        // Here rather than in the future, which would have to be as little `Send` as the input is.
        let input = serde_json::to_value(input);
        let orchestrator = self.clone();
        async move {
            let input = input.map_err(|error| {
                let said = format!("the input for run {id} cannot be written as JSON: {error}");
                Error::new(ErrorKind::Input(said))
            })?;
            let RunId::Flow(id) = id else {
                return Err(refused(format!(
                    "run {id} is a task run: what is paused is the flow run that it belongs to"
                )));
            };
            let Some(run) = orchestrator.inner().active_run(id.into()) else {
                return match orchestrator.inner().backend.shared() {
                    Some(_) => orchestrator.resume_paused_elsewhere(id.into(), input).await,
                    None => Err(orchestrator.not_here(id).await),
                };
            };
            resume(&run, &input, || Ok(()))?;
            // The run's driver has been woken, and tells the history that the run goes on.
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    /// Why a flow run that is not active here cannot be resumed.
    async fn not_here(&self, id: FlowRunId) -> Error {
        let run = match self.flow_run(id).await {
            Ok(run) => run,
            Err(error) => return error,
        };
        refused(match run.state.is_terminal() {
            true => format!("flow run '{}' is not paused: it has ended as {}", run.name, run.state.name),
            false => format!("flow run '{}' is not active in this orchestrator", run.name),
        })
    }
}

/// Lets the oldest pause of a flow run that is active here go on, unless `accepted` fails, which is called when the input
/// is found to be right.
pub(crate) fn resume(flow: &Arc<Run>, input: &Value, accepted: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
    loop {
        let Some(entry) = flow.scope().pauses.oldest().filter(|_| !flow.is_cancelled()) else {
            let state = flow.state().name;
            return Err(refused(format!("flow run '{}' is not paused: it is {state}", flow.name())));
        };
        let mut checked = Some(check(flow, &entry, input)?);
        accepted()?;
        let this = |other: &Arc<Entry>| Arc::ptr_eq(other, &entry);
        // Unless it ended while the input was looked at: then the next one is the oldest.
        if flow.scope().pauses.end(flow, this, "resumed", || checked.take().map(Ok)) > 0 {
            return Ok(());
        }
    }
}

/// The input as the pause takes it.
fn check(flow: &Run, entry: &Entry, input: &Value) -> Result<Input, Error> {
    let invalid = |said| Err(Error::new(ErrorKind::Input(said)));
    let (name, given) = (flow.name(), quote(input));
    match (panics::catch(|| (entry.parse)(input.clone())), &entry.pause.input_schema) {
        (Ok(Ok(input)), _) => Ok(input),
        (Ok(Err(_)), None) => invalid(format!("flow run '{name}' takes no input to go on, and was given {given}")),
        (Ok(Err(error)), Some(schema)) => {
            let wanted = wanted(schema).map(|wanted| format!("; it takes {wanted}")).unwrap_or_default();
            invalid(format!("flow run '{name}' does not go on with {given}: {error}{wanted}"))
        }
        (Err(panicked), _) => {
            invalid(format!("flow run '{name}' does not go on with {given}: the check of its input {panicked}"))
        }
    }
}

fn quote(input: &Value) -> String {
    let text = input.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What a schema asks for, in a few words: the fields of an object, or the choices.
fn wanted(schema: &Value) -> Option<String> {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return Some(format!("one of {}", choices.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")));
    }
    let fields = schema.get("properties")?.as_object()?;
    let required = schema.get("required").and_then(Value::as_array);
    let fields = fields.iter().map(|(name, field)| {
        let optional = !required.is_some_and(|required| required.iter().any(|required| required == name));
        let kind = kind(field).into_iter().chain(optional.then(|| "optional".to_owned())).collect::<Vec<_>>();
        if kind.is_empty() { format!("`{name}`") } else { format!("`{name}` ({})", kind.join(", ")) }
    });
    Some(format!("an object with {}", fields.collect::<Vec<_>>().join(", ")))
}

/// The type of a field, as far as it can be told in a word.
fn kind(field: &Value) -> Option<String> {
    match field.get("type") {
        Some(Value::String(kind)) => Some(kind.clone()),
        Some(Value::Array(kinds)) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            Some(kinds.join(" or "))
        }
        _ => field.get("$ref").and_then(Value::as_str)?.rsplit('/').next().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_told_in_a_few_words() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "boolean"}, "b": {"$ref": "#/$defs/Choice"}, "c": {"type": ["string", "null"]}, "d": true,
        }});
        let told = "an object with `a` (boolean), `b` (Choice), `c` (string, optional), `d` (optional)";
        assert_eq!(wanted(&schema).as_deref(), Some(told));
        assert_eq!(wanted(&json!({"enum": ["yes", "no"]})).as_deref(), Some("one of \"yes\", \"no\""));
        assert_eq!(wanted(&json!({"type": "integer"})), None);
    }

    #[test]
    fn long_inputs_are_quoted_in_part() {
        assert_eq!(quote(&json!([1, "x"])), "[1,\"x\"]");
        assert_eq!(quote(&json!("ä".repeat(900))).chars().count(), QUOTED + 1);
    }
}
