//! `runs rm`.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use orchestrator_core::text::one_line;
use orchestrator_core::{FlowRun, FlowRunQuery, Orchestrator, RunId, StateFilter};
use serde::Serialize;

use crate::exit::Trouble;
use crate::{ask, find, print};

/// So many runs are removed at a time.
const STEP: usize = 200;

/// Which runs to remove.
pub(super) struct Wanted {
    pub(super) runs: Vec<String>,
    pub(super) older_than: Option<Duration>,
    pub(super) state: Option<StateFilter>,
    /// Whether nobody is to be asked.
    pub(super) yes: bool,
}

#[derive(Debug, Default, Serialize)]
struct RemovedJson {
    flow_runs: u64,
    task_runs: u64,
}

pub(super) async fn remove(orchestrator: &Orchestrator, wanted: Wanted, json: bool) -> Result<(), Trouble> {
    let runs = chosen(orchestrator, &wanted).await?;
    if runs.is_empty() && !json {
        print::note("nothing to remove: no run that has ended is that old");
        return Ok(());
    }
    if !runs.is_empty() && !wanted.yes {
        confirm(orchestrator, &runs).await?;
    }
    let mut removed = RemovedJson::default();
    for step in runs.chunks(STEP) {
        let done = orchestrator.remove_runs(step.iter().copied()).await?;
        removed.flow_runs += done.flow_runs;
        removed.task_runs += done.task_runs;
    }
    if json {
        return print::json(&removed);
    }
    let RemovedJson { flow_runs, task_runs } = removed;
    print::out(&format!("removed {} and {}\n", several(flow_runs, "flow run"), several(task_runs, "task run")))
}

async fn chosen(orchestrator: &Orchestrator, wanted: &Wanted) -> Result<Vec<RunId>, Trouble> {
    let mut chosen = Vec::new();
    for text in &wanted.runs {
        let id = find::run(orchestrator, text).await?;
        if !chosen.contains(&id) {
            chosen.push(id);
        }
    }
    if let Some(age) = wanted.older_than {
        let newest = Utc::now().checked_sub_signed(TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX));
        let mut query = FlowRunQuery::new().limit(usize::MAX);
        if let Some(state) = wanted.state {
            query = query.state(state);
        }
        let runs = orchestrator.flow_runs(&query).await?;
        // Those that go on stay, and those inside others go with them.
        let is_old = |run: &FlowRun| newest.is_some_and(|newest| run.created < newest);
        let runs = runs.into_iter().filter(|run| run.parent.is_none() && run.state.is_terminal() && is_old(run));
        chosen.extend(runs.map(|run| RunId::Flow(run.id)));
    }
    Ok(chosen)
}

async fn confirm(orchestrator: &Orchestrator, runs: &[RunId]) -> Result<(), Trouble> {
    let what = match runs {
        [id] => {
            let run = find::Run::read(orchestrator, *id).await?;
            format!("{} ({})", run.label(), one_line(&run.state().name))
        }
        runs => several(runs.len() as u64, "run"),
    };
    ask::remove(&what, ", with all that is kept of it")
}

pub(super) fn several(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
