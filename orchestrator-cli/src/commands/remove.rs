//! `runs rm`.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use orchestrator_core::text::one_line;
use orchestrator_core::{Error, FlowRun, FlowRunQuery, Orchestrator, Removed, RunId, StateFilter};
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
    /// Flow runs that are old enough, but have not ended, or started others that have not.
    left: u64,
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
        if let Err(error) = remove_step(orchestrator, step, wanted.older_than.is_some(), &mut removed).await {
            if !removed.is_nothing() {
                print::note(&format!("{removed} before that"));
            }
            return Err(error.into());
        }
    }
    if json {
        return print::json(&removed);
    }
    if removed.left > 0 {
        let left = several(removed.left, "flow run");
        print::note(&format!("left {left} that did not end, or started others that did not"));
    }
    print::out(&format!("{removed}\n"))
}

/// Removes those runs together; of those that were chosen by their age, all but those that cannot be removed.
async fn remove_step(
    orchestrator: &Orchestrator,
    runs: &[RunId],
    by_age: bool,
    so_far: &mut RemovedJson,
) -> Result<(), Error> {
    match orchestrator.remove_runs(runs.iter().copied()).await {
        Ok(Removed { flow_runs, task_runs, .. }) => {
            so_far.flow_runs += flow_runs;
            so_far.task_runs += task_runs;
            Ok(())
        }
        // Somebody else was first, or has let it go on.
        Err(error) if by_age && (error.is_not_removable() || error.is_not_found()) => match runs {
            [_] => {
                so_far.left += u64::from(error.is_not_removable());
                Ok(())
            }
            runs => {
                let (first, rest) = runs.split_at(runs.len() / 2);
                Box::pin(remove_step(orchestrator, first, true, so_far)).await?;
                Box::pin(remove_step(orchestrator, rest, true, so_far)).await
            }
        },
        Err(error) => Err(error),
    }
}

impl RemovedJson {
    const fn is_nothing(&self) -> bool {
        self.flow_runs == 0 && self.task_runs == 0
    }
}

impl Display for RemovedJson {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { flow_runs, task_runs, .. } = *self;
        write!(f, "removed {} and {}", several(flow_runs, "flow run"), several(task_runs, "task run"))
    }
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
