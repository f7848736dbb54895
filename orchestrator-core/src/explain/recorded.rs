//! Why a run that another orchestrator drives is where it is, as far as the store tells.

use super::tasks::{Groups, Reason, UnfinishedTasks, WaitingTasks};
use super::{LimitWait, RunRef, RunRefs, SlotHolder, Why, still_to_come};
use crate::backend::record::{ActiveRuns, FlowRun, Pause, TaskRun, TaskRunQuery};
use crate::backend::{BackendError, LimitRecord, Shared, SlotClass, SlotPlace, SlotStanding, SlotWait, StateBackend};
use crate::clock::Timestamp;
use crate::concurrency::{ahead, waits_for};
use crate::id::{FlowRunId, RunId};
use crate::state::{State, StateName, StateType};

/// What the store says of a run, of either kind.
pub(super) struct Recorded {
    pub(super) id: RunId,
    pub(super) name: String,
    pub(super) state: State,
    run_count: u32,
    upstream: Vec<RunId>,
    parent: Option<RunId>,
    pause: Option<Pause>,
    pub(super) host: String,
    pub(super) pid: u32,
}

impl From<FlowRun> for Recorded {
    fn from(run: FlowRun) -> Self {
        let FlowRun { id, name, state, run_count, upstream, parent, pause, host, pid, .. } = run;
        Self { id: id.into(), name, state, run_count, upstream, parent, pause, host, pid }
    }
}

impl From<TaskRun> for Recorded {
    fn from(run: TaskRun) -> Self {
        let TaskRun { id, name, state, run_count, upstream, parent, host, pid, .. } = run;
        Self { id: id.into(), name, state, run_count, upstream, parent, pause: None, host, pid }
    }
}

/// Why an active run is where it is.
pub(super) fn why(backend: &dyn StateBackend, run: &Recorded, now: Timestamp) -> Result<Why, BackendError> {
    let slots = match backend.shared() {
        Some(shared) => {
            let slots = slots(shared, run.id, now)?;
            if slots.is_empty() { kept_back(shared, run, now)? } else { slots }
        }
        None => Vec::new(),
    };
    match run.state.kind {
        StateType::Running => return Ok(Why::Running { since: run.state.timestamp, attempt: run.run_count, slots }),
        StateType::Cancelling => return Ok(Why::Cancelling),
        _ if !slots.is_empty() => return Ok(Why::Slots(slots)),
        StateType::Paused => {
            if let Some(pause) = run.pause.clone() {
                return Ok(Why::Paused { flow: run.into(), pause });
            }
        }
        StateType::Scheduled => {
            if let Some(at) = still_to_come(&run.state, now) {
                return Ok(Why::RetryAt { at, attempt: run.run_count + 1 });
            }
        }
        StateType::Pending | StateType::Completed | StateType::Failed | StateType::Crashed | StateType::Cancelled => {}
    }
    if run.state.kind == StateType::Pending {
        let active = backend.active_among(&run.upstream, RunRefs::SHOWN)?;
        if active.count > 0 {
            return Ok(Why::Upstream(active.into()));
        }
        if let Some((flow, pause)) = pause_above(backend, run.parent)? {
            return Ok(Why::Paused { flow, pause });
        }
    }
    Ok(Why::Elsewhere)
}

/// The first of a run and those above it that is paused.
fn pause_above(backend: &dyn StateBackend, mut above: Option<RunId>) -> Result<Option<(RunRef, Pause)>, BackendError> {
    while let Some(run) = above.map_or(Ok(None), |above| find(backend, above))? {
        if let Some(pause) = run.pause.clone() {
            return Ok(Some((RunRef::from(&run), pause)));
        }
        above = run.parent;
    }
    Ok(None)
}

/// Of how many runs in the same state it is looked what they wait for.
const LOOKED_AT: usize = 100;
/// Of how many upstream runs, all of these together, it is looked whether they have ended.
const UPSTREAMS: usize = 10_000;

/// What the task runs of a flow run do that have not ended. Of each state some are looked at, the newest; the others are
/// counted.
pub(super) fn tasks(
    backend: &dyn StateBackend,
    flow: FlowRunId,
    now: Timestamp,
) -> Result<Option<UnfinishedTasks>, BackendError> {
    let mut groups = Groups::new();
    let is_before = |one: &Recorded, other: &Recorded| one.id < other.id;
    for (state, count) in backend.count_task_runs(flow)? {
        match state.kind() {
            StateType::Running | StateType::Cancelling => groups.running += count,
            StateType::Scheduled | StateType::Pending | StateType::Paused => {
                let query = TaskRunQuery::new().of(flow).state(state).limit(LOOKED_AT);
                let found: Vec<_> = backend.find_task_runs(&query, now)?.into_iter().map(Recorded::from).collect();
                // They may have begun since they were counted.
                let mut left = if found.is_empty() { 0 } else { count };
                for (reason, run) in reasons(backend, flow, state, found, now)? {
                    left = left.saturating_sub(1);
                    let _ = groups.add(reason, run, is_before);
                }
                groups.others += left;
            }
            StateType::Completed | StateType::Failed | StateType::Crashed | StateType::Cancelled => {}
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let (mut tasks, examples, _) = groups.split(is_before);
    for (count, run) in examples {
        let why = why(backend, &run, now)?;
        tasks.reasons.push(WaitingTasks { count, example: RunRef::from(&run), why });
    }
    Ok(Some(tasks))
}

/// What task runs of a flow run wait for that are in the same state, as far as that is told by little.
fn reasons(
    backend: &dyn StateBackend,
    flow: FlowRunId,
    state: StateName,
    runs: Vec<Recorded>,
    now: Timestamp,
) -> Result<Vec<(Reason, Recorded)>, BackendError> {
    if state == StateName::AwaitingConcurrencySlot {
        let limits = backend.shared().map_or_else(|| Ok(Vec::new()), |shared| shared.limits(now))?;
        let reason = |run: &Recorded| {
            let said = run.state.message.as_deref().unwrap_or_default();
            let slots =
                limits.iter().filter_map(|limit| Some((limit.name.as_str().into(), waits_for(said, &limit.name)?)));
            match slots.collect::<Vec<_>>() {
                slots if slots.is_empty() => Reason::FlowCapacity,
                slots => Reason::Slots(slots),
            }
        };
        return Ok(runs.into_iter().map(|run| (reason(&run), run)).collect());
    }
    if state != StateName::Pending {
        let reason = if state == StateName::AwaitingRetry { Reason::Retry } else { Reason::Unknown(state) };
        return Ok(runs.into_iter().map(|run| (reason.clone(), run)).collect());
    }
    let is_paused = pause_above(backend, Some(flow.into()))?.is_some();
    let (mut reasons, mut looked_at) = (Vec::new(), 0);
    for run in runs {
        looked_at += run.upstream.len();
        if looked_at > UPSTREAMS && !reasons.is_empty() {
            break;
        }
        let reason = match backend.active_among(&run.upstream, 0)?.count {
            0 if is_paused => Reason::Pause,
            0 => Reason::Unknown(state),
            _ => Reason::Upstream,
        };
        reasons.push((reason, run));
    }
    Ok(reasons)
}

impl From<ActiveRuns> for RunRefs {
    fn from(ActiveRuns { first, count }: ActiveRuns) -> Self {
        let first = first.into_iter().map(|(run_id, name, state)| RunRef { run_id, name, state });
        Self { first: first.collect(), count }
    }
}

fn find(backend: &dyn StateBackend, id: RunId) -> Result<Option<Recorded>, BackendError> {
    Ok(match id {
        RunId::Flow(id) => backend.flow_run(id)?.map(Recorded::from),
        RunId::Task(id) => backend.task_run(id)?.map(Recorded::from),
    })
}

impl From<&Recorded> for RunRef {
    fn from(run: &Recorded) -> Self {
        Self { run_id: run.id, name: run.name.clone(), state: run.state.clone() }
    }
}

/// How the requests of a run stand that are in the store.
fn slots(shared: &dyn Shared, run: RunId, now: Timestamp) -> Result<Vec<LimitWait>, BackendError> {
    let mut waits = Vec::new();
    for SlotWait { limit, slots, place } in shared.waits_of(run)? {
        // It may have been served, or the limit removed, meanwhile.
        if let Some(standing) = shared.standing(&limit, place, usize::MAX, now)? {
            let (ahead, is_about) = ahead(shared, &limit, place.since, standing.ahead, Some(standing.kept_back))?;
            waits.push(LimitWait { ahead, is_about, ..LimitWait::recorded(limit, slots, standing) });
        }
    }
    Ok(waits)
}

/// How the request of a task run stands that its orchestrator keeps back, because others of its own are before it: what
/// it waits for its state says, and since when.
fn kept_back(shared: &dyn Shared, run: &Recorded, now: Timestamp) -> Result<Vec<LimitWait>, BackendError> {
    let mut waits = Vec::new();
    let said = run.state.message.as_deref().filter(|_| run.state.name == StateName::AwaitingConcurrencySlot.as_str());
    let (Some(said), Some(owner)) = (said, shared.owner_of(run.id)?) else { return Ok(waits) };
    let since = Timestamp::from_micros(run.state.timestamp.timestamp_micros());
    for LimitRecord { name: limit, .. } in shared.limits(now)? {
        let Some(slots) = waits_for(said, &limit) else { continue };
        let place = SlotPlace { class: SlotClass::Ordinary, since, owner: owner.no, ticket: u64::MAX };
        let Some(standing) = shared.standing(&limit, place, usize::MAX, now)? else { continue };
        // How many its own orchestrator keeps back is not told.
        let (ahead, is_about) = ahead(shared, &limit, since, standing.ahead, None)?;
        waits.push(LimitWait { ahead, is_about, ..LimitWait::recorded(limit, slots, standing) });
    }
    Ok(waits)
}

impl LimitWait {
    fn recorded(limit: String, wanted: u32, standing: SlotStanding) -> Self {
        let SlotStanding { setting, taken, ahead, holders, kept_back: _ } = standing;
        let holders = holders.into_iter().map(|lease| {
            let (run_id, name) = lease.run.unzip();
            let since = lease.since.to_datetime();
            SlotHolder { run_id, name, slots: lease.slots, since, process: Some(lease.process) }
        });
        let (slots, slot_decay) = (setting.slots, setting.decay);
        Self { limit, wanted, slots, taken, slot_decay, ahead, is_about: false, holders: holders.collect() }
    }
}
