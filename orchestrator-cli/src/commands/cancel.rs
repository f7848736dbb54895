//! `runs cancel`.

use std::time::Duration;

use chrono::Utc;
use orchestrator_core::text::one_line;
use orchestrator_core::{Error, Orchestrator, RunId};
use tokio::task::JoinSet;

use crate::exit::{self, Trouble};
use crate::find::{self, Run};
use crate::json::RunJson;
use crate::print;

/// After so long it is said whom a run waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Cancels the runs, all at once, and waits until they have ended.
pub(super) async fn cancel(orchestrator: &Orchestrator, runs: &[String], json: bool) -> Result<u8, Trouble> {
    let mut wanted: Vec<RunId> = Vec::new();
    for text in runs {
        let id = find::run(orchestrator, text).await?;
        if !wanted.contains(&id) {
            wanted.push(id);
        }
    }
    let mut asked = JoinSet::new();
    for (n, id) in wanted.iter().copied().enumerate() {
        let orchestrator = orchestrator.clone();
        asked.spawn(async move { (n, cancel_one(&orchestrator, id).await) });
    }
    let mut outcomes = asked.join_all().await;
    outcomes.sort_by_key(|(n, _)| *n);
    let mut code = exit::SUCCESS;
    let mut ended = Vec::new();
    for (n, outcome) in outcomes {
        let run = Run::read(orchestrator, wanted[n]).await?;
        match outcome {
            Ok(()) if json => ended.push(RunJson::from(run)),
            Ok(()) => {
                let said = format!("{} has ended as {}\n", run.label(), print::state(run.state()));
                exit::printed(code, print::out(&said))?;
            }
            Err(error) => {
                // It is known, and was not active.
                let trouble = match error.is_not_found() {
                    true => Trouble::usage(error.to_string()),
                    false => Trouble::from(error),
                };
                code = code.max(trouble.code);
                print::complain(trouble.said.as_deref().unwrap_or_default(), trouble.code, json);
            }
        }
    }
    if json { exit::printed(code, print::json(&ended)) } else { Ok(code) }
}

/// Cancels a run; if that takes a while, it is said once who is waited for, and once more if that one is stopped.
async fn cancel_one(orchestrator: &Orchestrator, id: RunId) -> Result<(), Error> {
    let cancelled = orchestrator.cancel(id);
    tokio::pin!(cancelled);
    let (mut told, mut told_stopped) = (false, false);
    loop {
        tokio::select! {
            done = &mut cancelled => return done,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        let Ok(Some(elsewhere)) = orchestrator.whereabouts(id).await else { continue };
        let stopped = elsewhere.stopped_until.is_some();
        if !told || (stopped && !told_stopped) {
            let Ok(run) = Run::read(orchestrator, id).await else { continue };
            (told, told_stopped) = (true, told_stopped || stopped);
            let name = one_line(run.name());
            let whose = one_line(&elsewhere.to_string());
            let known = elsewhere.known_at.map(|at| (at - Utc::now()).num_seconds().max(0) + 1);
            let known =
                known.map(|wait| format!(". Whether that is gone is known in {wait} s at most")).unwrap_or_default();
            print::note(&format!("waiting until {} '{name}' has ended; it belongs to {whose}{known}", find::kind(id)));
        }
    }
}
