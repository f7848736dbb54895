//! From what a person types to the run that is meant.

use chrono::{DateTime, Utc};
use orchestrator_core::text::one_line;
use orchestrator_core::{FlowRun, FlowRunId, Orchestrator, RunId, TaskRun};

use crate::exit::{self, Trouble};
use crate::print;
use crate::time;

/// A message names so many of the runs that could be meant.
const NAMED: usize = 10;

/// A run of either kind.
#[derive(Debug, Clone)]
pub(crate) enum Run {
    Flow(FlowRun),
    Task(TaskRun),
}

impl Run {
    pub(crate) async fn read(orchestrator: &Orchestrator, id: RunId) -> Result<Self, Trouble> {
        Ok(match id {
            RunId::Flow(id) => Self::Flow(orchestrator.flow_run(id).await?),
            RunId::Task(id) => Self::Task(orchestrator.task_run(id).await?),
        })
    }

    pub(crate) const fn id(&self) -> RunId {
        match self {
            Self::Flow(run) => RunId::Flow(run.id),
            Self::Task(run) => RunId::Task(run.id),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Flow(run) => &run.name,
            Self::Task(run) => &run.name,
        }
    }

    pub(crate) const fn state(&self) -> &orchestrator_core::State {
        match self {
            Self::Flow(run) => &run.state,
            Self::Task(run) => &run.state,
        }
    }

    pub(crate) const fn created(&self) -> DateTime<Utc> {
        match self {
            Self::Flow(run) => run.created,
            Self::Task(run) => run.created,
        }
    }

    /// `flow 'nightly'`, or `task 'fetch' in flow run a1b2c3d4`
    fn whose(&self) -> String {
        match self {
            Self::Flow(run) => format!("flow '{}'", one_line(&run.flow_name)),
            Self::Task(run) => {
                let inside = run.flow_run_id.map(|id| format!(" in flow run {}", short(id))).unwrap_or_default();
                format!("task '{}'{inside}", one_line(&run.task_name))
            }
        }
    }

    /// `flow run 'brave-otter'`
    pub(crate) fn label(&self) -> String {
        format!("{} '{}'", kind(self.id()), one_line(self.name()))
    }
}

/// `flow run` or `task run`.
pub(crate) const fn kind(id: RunId) -> &'static str {
    match id {
        RunId::Flow(_) => "flow run",
        RunId::Task(_) => "task run",
    }
}

/// The part of an id that tables show: the end, since ids of one hour begin alike.
pub(crate) fn short(id: impl Into<RunId>) -> String {
    let id = id.into().as_uuid().simple().to_string();
    id[24..].to_owned()
}

/// The run that is meant by an id, a part of one, or a name.
pub(crate) async fn run(orchestrator: &Orchestrator, text: &str) -> Result<RunId, Trouble> {
    one(orchestrator, text, "run", orchestrator.runs_called(text, NAMED + 1).await?).await
}

/// The flow run that is meant.
pub(crate) async fn flow_run(orchestrator: &Orchestrator, text: &str) -> Result<FlowRunId, Trouble> {
    let found = orchestrator.runs_called(text, NAMED + 1).await?;
    let flows: Vec<RunId> = found.iter().copied().filter(|id| id.as_flow().is_some()).collect();
    if let ([], [RunId::Task(id), ..]) = (&flows[..], &found[..]) {
        let run = orchestrator.task_run(*id).await?;
        let flow = run.flow_run_id.map(|id| format!("; it belongs to flow run {id}")).unwrap_or_default();
        let said = format!("'{}' is the task run '{}': expected a flow run{flow}", one_line(text), one_line(&run.name));
        return Err(Trouble::usage(said));
    }
    let id = one(orchestrator, text, "flow run", flows).await?;
    id.as_flow().ok_or_else(|| Trouble::not_found(format!("there is no flow run '{}'", one_line(text))))
}

async fn one(orchestrator: &Orchestrator, text: &str, what: &str, found: Vec<RunId>) -> Result<RunId, Trouble> {
    let text = one_line(text);
    match &found[..] {
        [id] => Ok(*id),
        [] => Err(Trouble::not_found(format!(
            "there is no {what} '{text}': expected an id, the beginning or end of one, or a run's name; see `runs ls`"
        ))),
        several => {
            let mut said = format!("'{text}' may be any of several runs; say more of the id:");
            for id in several.iter().take(NAMED) {
                let run = Run::read(orchestrator, *id).await?;
                let (state, created) = (print::state(run.state()), time::local(run.created()));
                said += &format!("\n  {id}  {} of {}, {state}, created {created}", run.label(), run.whose());
            }
            if several.len() > NAMED {
                said += "\n  and others";
            }
            Err(Trouble::new(exit::NOT_FOUND, said))
        }
    }
}
