//! What the flow runs do that a flow run called: counted, with one of them as an example.

use std::fmt;
use std::sync::Arc;

use super::recorded::{self, Recorded};
use super::tasks::{self, UnfinishedTasks};
use super::{RunRef, Why, known_why, why};
use crate::active::each_flow_of;
use crate::backend::record::FlowRun;
use crate::backend::{BackendError, StateBackend};
use crate::clock::Timestamp;
use crate::engine::panics;
use crate::error::Error;
use crate::id::FlowRunId;
use crate::orchestrator::Inner;
use crate::run::Run;

/// The flow runs that a flow run, or a task run of it, called and that have not ended; those that these called are not among
/// them.
///
/// Nor are those that were detached, unless another process drives the flow run: the history does not tell them apart.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UnfinishedFlows {
    /// How many there are.
    pub count: u64,
    /// The one that was called first.
    pub example: RunRef,
    /// What that one does, or waits for.
    pub why: Why,
    /// What those of its task runs do that have not ended.
    pub tasks: Option<UnfinishedTasks>,
    /// The same of the flow runs that it called, as far as these are of interest: to a depth of three.
    pub flows: Option<Box<UnfinishedFlows>>,
}

/// How deep is looked.
const DEPTH: usize = 3;
/// So often is one looked for that has not ended meanwhile.
const LOOKS: usize = 3;

/// Those of an active flow run of this process.
pub(super) async fn unfinished(inner: &Inner, flow: &Arc<Run>) -> Result<Option<Box<UnfinishedFlows>>, Error> {
    let mut found: Vec<UnfinishedFlows> = Vec::new();
    let mut next = first_of(flow).await?;
    while let Some((count, run)) = next {
        let state = run.state();
        // It has ended since.
        if state.is_terminal() {
            panics::let_go(run);
            break;
        }
        let example = RunRef::of(&run);
        // Where the store does not tell of other processes' slots, those of this one are told.
        let known = known_why(inner, &run, &state).await.unwrap_or_else(|_| why(&run, &state));
        let tasks = tasks::unfinished(inner, &run).await;
        let inside = if found.len() < DEPTH - 1 { first_of(&run).await } else { Ok(None) };
        // This may be the last of its result.
        panics::let_go(run);
        found.push(UnfinishedFlows { count, example, why: known, tasks: tasks?, flows: None });
        next = inside?;
    }
    Ok(nested(found))
}

/// How many there are, and the first of them.
async fn first_of(flow: &Arc<Run>) -> Result<Option<(u64, Arc<Run>)>, Error> {
    let flow = Arc::clone(flow);
    let look = move || {
        let mut found: Option<(u64, Arc<Run>)> = None;
        each_flow_of(&flow, &mut |run| match &mut found {
            // Its hooks are all that goes on.
            _ if run.state().is_terminal() => {}
            None => found = Some((1, Arc::clone(run))),
            Some((count, first)) => {
                *count += 1;
                if run.id() < first.id() {
                    // This may be the last of its result.
                    panics::let_go(std::mem::replace(first, Arc::clone(run)));
                }
            }
        });
        panics::let_go(flow);
        found
    };
    tasks::aside(look).await
}

/// Those of a flow run that another orchestrator drives; blocks.
pub(super) fn recorded(
    backend: &dyn StateBackend,
    flow: FlowRunId,
    now: Timestamp,
) -> Result<Option<Box<UnfinishedFlows>>, BackendError> {
    let (mut found, mut above): (Vec<UnfinishedFlows>, _) = (Vec::new(), flow);
    while found.len() < DEPTH {
        let Some((count, first)) = first_recorded(backend, above)? else { break };
        above = first.id;
        let (tasks, first) = (recorded::tasks(backend, above, now)?, Recorded::from(first));
        let (example, why) = (RunRef::from(&first), recorded::why(backend, &first, now)?);
        found.push(UnfinishedFlows { count, example, why, tasks, flows: None });
    }
    Ok(nested(found))
}

/// How many there are, and the first of them.
fn first_recorded(backend: &dyn StateBackend, above: FlowRunId) -> Result<Option<(u64, FlowRun)>, BackendError> {
    for _ in 0..LOOKS {
        let Some((count, first)) = backend.active_subflows(above)? else { return Ok(None) };
        // It may end between the two looks, and the others go on.
        if let Some(first) = backend.flow_run(first)?.filter(|run| !run.state.is_terminal()) {
            return Ok(Some((count, first)));
        }
    }
    Ok(None)
}

/// Each within the one before it.
fn nested(found: Vec<UnfinishedFlows>) -> Option<Box<UnfinishedFlows>> {
    found.into_iter().rev().fold(None, |flows, one| Some(Box::new(UnfinishedFlows { flows, ..one })))
}

impl fmt::Display for UnfinishedFlows {
    /// `2 of its subflows have not ended, such as 'bold-emu', which has been running attempt 1 since 12:34:56 (2 of its task
    /// runs wait: 2 like 'load-0', which waits for a slot of limit 'db' (1 of 1 taken))`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, example, why, tasks, flows } = self;
        match count {
            1 => write!(f, "1 of its subflows has not ended: '{}', which ", example.name)?,
            _ => write!(f, "{count} of its subflows have not ended, such as '{}', which ", example.name)?,
        }
        why.say(f, example.run_id, &example.state)?;
        match (tasks, flows) {
            (None, None) => Ok(()),
            (Some(tasks), None) => write!(f, " ({tasks})"),
            (None, Some(flows)) => write!(f, " ({flows})"),
            (Some(tasks), Some(flows)) => write!(f, " ({tasks}; {flows})"),
        }
    }
}
