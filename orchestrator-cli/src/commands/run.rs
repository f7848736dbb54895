//! `run`, `resume`, `runs rerun`: flows of this program.

use std::time::Duration;

use orchestrator_core::text::{one_line, short};
use orchestrator_core::{FlowRun, FlowRunQuery, Orchestrator, StartedFlow, StateType, abandoned_bodies};
use serde_json::Value;

use super::parameters::Typed;
use super::runs;
use crate::args::Globals;
use crate::exit::{self, Trouble};
use crate::json::RunJson;
use crate::signals::Interrupted;
use crate::{find, print, store};

/// Runs a flow, and gives the exit code.
pub(super) async fn run(globals: &Globals, flow: &str, typed: Typed) -> Result<u8, Trouble> {
    let parameters = Value::Object(typed.read(flow)?);
    start(globals, flow, parameters).await
}

/// Runs the flow of a run again, as a new run with the same parameters.
pub(super) async fn rerun(globals: &Globals, text: &str) -> Result<u8, Trouble> {
    let looker = store::look(globals).await?;
    let run = looker.flow_run(find::flow_run(&looker, text).await?).await?;
    drop(looker);
    if run.parameters.is_null() {
        let said = format!("flow run '{}' never began, so that its parameters are not on record", one_line(&run.name));
        return Err(Trouble::usage(said));
    }
    if orchestrator_core::flows().all(|flow| flow.key != run.flow_key) {
        return Err(elsewhere(&run, "runs rerun"));
    }
    start(globals, &run.flow_key, run.parameters.clone()).await
}

/// Lets a flow run go on: one that is paused where it is, and any other one here.
pub(super) async fn go_on(globals: &Globals, text: &str, input: Option<&str>) -> Result<u8, Trouble> {
    let looker = store::look(globals).await?;
    let run = looker.flow_run(find::flow_run(&looker, text).await?).await?;
    // One whose process may be gone may have to go on here.
    let silent = input.is_none() && runs::silence(&looker, run.id.into(), &run.state).await?.is_some();
    if silent || run.state.kind != StateType::Paused {
        drop(looker);
        if input.is_some() {
            let (name, state) = (one_line(&run.name), one_line(&run.state.name));
            return Err(Trouble::usage(format!("flow run '{name}' is {state}: only one that is Paused takes --input")));
        }
        return resume(globals, Some(&run.id.to_string())).await;
    }
    let input = match input {
        None => Value::Null,
        Some(input) => serde_json::from_str(input).map_err(|error| {
            let given = one_line(input);
            Trouble::usage(format!("--input was given '{given}': expected JSON, with texts in double quotes: {error}"))
        })?,
    };
    looker.resume_paused(run.id, input).await?;
    if globals.json {
        print::json(&RunJson::from(looker.flow_run(run.id).await?))?;
    } else {
        print::out(&format!("flow run '{}' goes on\n", one_line(&run.name)))?;
    }
    Ok(exit::SUCCESS)
}

/// Lets a flow run go on that did not complete; without a name the last one of this program.
pub(super) async fn resume(globals: &Globals, text: Option<&str>) -> Result<u8, Trouble> {
    let looker = store::look(globals).await?;
    let run = match text {
        Some(text) => looker.flow_run(find::flow_run(&looker, text).await?).await?,
        None => last(&looker).await?,
    };
    drop(looker);
    let mut interrupted = Interrupted::new()?;
    let session = store::Session::open(globals, None).await?;
    let resumed = session.orchestrator().resume(run.id).start().await;
    let outcome = match resumed {
        Ok(started) => finish(&started, &mut interrupted, globals.json).await,
        Err(error) if error.is_unknown_flow() => Err(elsewhere(&run, "resume")),
        Err(error) => Err(error.into()),
    };
    close(session, outcome, globals.json).await
}

/// The newest run of a flow of this program that ended without having completed, or may have crashed.
async fn last(orchestrator: &Orchestrator) -> Result<FlowRun, Trouble> {
    let known: Vec<&str> = orchestrator_core::flows().map(|flow| flow.key).collect();
    let mut newest: Option<FlowRun> = None;
    for kind in [StateType::Failed, StateType::Crashed, StateType::Cancelled] {
        let runs = orchestrator.flow_runs(&FlowRunQuery::new().state(kind).limit(LOOKED_AT)).await?;
        let mut runs = runs.into_iter().filter(|run| run.parent.is_none() && known.contains(&run.flow_key.as_str()));
        newest = newest.into_iter().chain(runs.next()).max_by_key(|run| (run.created, run.id));
    }
    // They may have crashed, which whoever resumes them waits to know.
    for kind in ACTIVE {
        let runs = orchestrator.flow_runs(&FlowRunQuery::new().state(kind).limit(LOOKED_AT)).await?;
        for run in runs.into_iter().filter(|run| run.parent.is_none() && known.contains(&run.flow_key.as_str())) {
            if newest.as_ref().is_some_and(|newest| (run.created, run.id) <= (newest.created, newest.id)) {
                break;
            }
            if runs::silence(orchestrator, run.id.into(), &run.state).await?.is_some() {
                newest = Some(run);
                break;
            }
        }
    }
    newest.ok_or_else(|| Trouble::not_found("no run of a flow of this program has failed, crashed or been cancelled"))
}

/// The states of runs that have not ended.
const ACTIVE: [StateType; 5] =
    [StateType::Scheduled, StateType::Pending, StateType::Running, StateType::Paused, StateType::Cancelling];

/// So many runs are looked at in the search for the last one of this program.
const LOOKED_AT: usize = 1_000;

/// What was recorded is of a flow that this program does not have.
fn elsewhere(run: &FlowRun, command: &str) -> Trouble {
    Trouble::new(
        exit::USAGE,
        format!(
            "flow '{}' ({}) is not in this program: use the one that has it, `PROGRAM {command} {}`",
            one_line(&run.flow_name),
            one_line(&run.flow_key),
            run.id
        ),
    )
}

async fn start(globals: &Globals, flow: &str, parameters: Value) -> Result<u8, Trouble> {
    // What is refused must not have stirred anything.
    let call = orchestrator_core::prepare_call(flow, parameters)?;
    let mut interrupted = Interrupted::new()?;
    let session = store::Session::open(globals, Some(call.key())).await?;
    let outcome = finish(&session.orchestrator().run_prepared(call), &mut interrupted, globals.json).await;
    // Ended with this program, they would be begun and cut short by each that follows.
    for run in session.orchestrator().recovered() {
        print::note(&format!("waiting for flow run '{}', which had crashed and goes on", one_line(&run.name())));
        run.wait().await;
    }
    close(session, outcome, globals.json).await
}

/// Ends the session. A runtime waits at its end for the threads of sync bodies, for ever if need be: the process ends without those
/// that nobody else waits for, once they have had time to stop.
async fn close(session: store::Session, outcome: Result<u8, Trouble>, json: bool) -> Result<u8, Trouble> {
    let code = outcome.as_ref().map_or_else(|trouble| trouble.code, |code| *code);
    // The bodies of runs that were cancelled have had it. One whose attempt took too long may be about to end.
    if ![exit::INTERRUPTED, exit::TERMINATED, exit::CANCELLED].contains(&code) {
        let time = session.orchestrator().cancel_grace();
        outlast(time).await;
    }
    session.close(!abandoned_bodies().is_empty(), json).await;
    // A shutdown waits for the grace of those that were detached.
    let left = abandoned_bodies();
    if !left.is_empty() {
        if let Err(Trouble { said: Some(said), .. }) = &outcome {
            print::complain(said, code, json);
        }
        print::warn(&format!("ending without the bodies that did not stop: those of {}", names(&left)), json);
        std::process::exit(code.into());
    }
    outcome
}

/// Waits for the bodies whose attempts took too long, but no longer than that.
async fn outlast(time: Duration) {
    let left = abandoned_bodies();
    if left.is_empty() {
        return;
    }
    let within = short(time);
    print::note(&format!(
        "waiting up to {within} for the bodies that go on after their time: those of {}",
        names(&left)
    ));
    let ended = async {
        while !abandoned_bodies().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(time, ended).await;
}

fn names(runs: &[String]) -> String {
    let named: Vec<_> = runs.iter().take(LEFT_NAMED).map(|name| format!("'{}'", one_line(name))).collect();
    let others = runs.len() - named.len();
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    named.join(", ") + &others
}

/// How often those are looked at that go on.
const LOOK: Duration = Duration::from_millis(20);

/// How many of those are named.
const LEFT_NAMED: usize = 3;

/// Waits for the end of a run and prints its result.
async fn finish(started: &StartedFlow, interrupted: &mut Interrupted, json: bool) -> Result<u8, Trouble> {
    print::note(&format!("flow run '{}' has the id {}", one_line(&started.name()), started.run_id()));
    let state = started.wait().await;
    match started.await {
        Ok(_) => exit::printed(exit::SUCCESS, print_result(started.result(), json)),
        Err(error) => {
            let ended = if state.kind == StateType::Cancelled { exit::CANCELLED } else { exit::FAILED };
            let code = interrupted.code().unwrap_or(ended);
            print::complain(&one_line(&error.to_string()), code, json);
            Ok(code)
        }
    }
}

fn print_result(result: Option<Value>, json: bool) -> Result<(), Trouble> {
    match result {
        Some(result) if json => print::json(&result),
        None => {
            print::note("the result cannot be written as JSON, and is not shown");
            if json { print::json(&Value::Null) } else { Ok(()) }
        }
        // `()` is nothing to look at.
        Some(Value::Null) => Ok(()),
        Some(Value::String(text)) => print::out(&(print::lines(&text) + "\n")),
        Some(result) => print::json(&result),
    }
}
