//! `tasks ls`.

use std::time::Duration;

use orchestrator_core::text::one_line;
use orchestrator_core::{Orchestrator, StateFilter, TaskRunQuery};

use crate::exit::Trouble;
use crate::find::{self, short};
use crate::json::RunJson;
use crate::print::{self, Limit, Table};
use crate::time::{self, Times};

/// Which task runs to list.
pub(super) struct Wanted {
    pub(super) flow_run: Option<String>,
    pub(super) name: Option<String>,
    pub(super) state: Option<StateFilter>,
    pub(super) since: Option<Duration>,
    pub(super) limit: Option<usize>,
}

pub(super) async fn list(orchestrator: &Orchestrator, wanted: Wanted, json: bool) -> Result<(), Trouble> {
    let mut limit = Limit::new(wanted.limit);
    let mut query = TaskRunQuery::new().limit(limit.wanted());
    if let Some(flow_run) = wanted.flow_run {
        query = query.of(find::flow_run(orchestrator, &flow_run).await?);
    }
    if let Some(name) = wanted.name {
        query = query.name(name);
    }
    if let Some(state) = wanted.state {
        query = query.state(state);
    }
    if let Some(since) = wanted.since {
        query = query.within(since);
    }
    let mut runs = orchestrator.find_task_runs(&query).await?;
    limit.apply(&mut runs);
    if json {
        print::json(&runs.into_iter().map(RunJson::from).collect::<Vec<_>>())?;
        limit.tell(json);
        return Ok(());
    }
    if runs.is_empty() {
        print::note("no task runs");
        return Ok(());
    }
    let mut table = Table::new(&["ID", "NAME", "TASK", "FLOW RUN", "STATE", "CREATED", "DURATION"]);
    for run in runs {
        table.row([
            short(run.id),
            one_line(&run.name),
            one_line(&run.task_name),
            run.flow_run_id.map_or_else(|| "-".to_owned(), short),
            print::state(&run.state),
            time::local(run.created),
            Times::from(&run).taken_or_dash(),
        ]);
    }
    table.print()?;
    limit.tell(json);
    Ok(())
}
