//! `runs explain`.

use chrono::{DateTime, Utc};
use orchestrator_core::{
    Explanation, LimitWait, Orchestrator, Pause, RunRef, RunRefs, UnfinishedFlows, UnfinishedTasks, WaitingTasks, Why,
};
use serde::Serialize;

use crate::exit::Trouble;
use crate::find;
use crate::json::{self, CrashBudgetJson, PauseJson};
use crate::print;

pub(super) async fn explain(orchestrator: &Orchestrator, text: &str, json: bool) -> Result<(), Trouble> {
    let explanation = orchestrator.explain(find::run(orchestrator, text).await?).await?;
    if json {
        return print::json(&ExplanationJson::from(explanation));
    }
    print::out(&(print::lines(&explanation.to_string()) + "\n"))
}

#[derive(Serialize)]
struct ExplanationJson {
    id: String,
    kind: &'static str,
    name: String,
    state: String,
    state_type: &'static str,
    /// What the run waits for, or does.
    why: &'static str,
    sentence: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Serialize)]
struct FlowsJson {
    count: u64,
    example: RunRefJson,
    /// What the example does, or waits for.
    why: &'static str,
    #[serde(flatten)]
    rest: Rest,
}

/// What there is to say beside the reason, and of the runs inside.
#[derive(Serialize)]
struct Rest {
    #[serde(flatten)]
    details: Details,
    /// What the task runs of a flow run do that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<TasksJson>,
    /// What the flow runs do that it called and that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Box<FlowsJson>>,
}

impl Rest {
    fn new(details: Details, tasks: Option<UnfinishedTasks>, flows: Option<Box<UnfinishedFlows>>) -> Self {
        let flows = flows.map(|flows| Box::new(FlowsJson::from(*flows)));
        Self { details, tasks: tasks.map(TasksJson::from), flows }
    }
}

impl From<UnfinishedFlows> for FlowsJson {
    fn from(flows: UnfinishedFlows) -> Self {
        let UnfinishedFlows { count, example, why, tasks, flows, .. } = flows;
        let (why, details) = details(why);
        Self { count, example: example.into(), why, rest: Rest::new(details, tasks, flows) }
    }
}

#[derive(Serialize)]
struct TasksJson {
    running: u64,
    waiting: u64,
    reasons: Vec<WaitingTasksJson>,
}

#[derive(Serialize)]
struct WaitingTasksJson {
    count: u64,
    example: RunRefJson,
    /// What the example waits for.
    why: &'static str,
    #[serde(flatten)]
    details: Details,
}

impl From<UnfinishedTasks> for TasksJson {
    fn from(tasks: UnfinishedTasks) -> Self {
        let UnfinishedTasks { running, waiting, reasons, .. } = tasks;
        let reasons = reasons.into_iter().map(|WaitingTasks { count, example, why, .. }| {
            let (why, details) = details(why);
            WaitingTasksJson { count, example: example.into(), why, details }
        });
        Self { running, waiting, reasons: reasons.collect() }
    }
}

/// What belongs to the reason; what does not is left out.
#[derive(Default, Serialize)]
struct Details {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<RunRefJson>,
    /// How many there are, where only the first few of them are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_count: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitWaitJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<PauseJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<DateTime<Utc>>,
    /// Until when its process is waited for, if that is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_until: Option<DateTime<Utc>>,
    /// Since when its lease is over, if its process cannot be seen from here and may be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_over: Option<DateTime<Utc>>,
    /// When it is known then whether it is gone, at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    known_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_crash: Option<CrashBudgetJson>,
}

#[derive(Serialize)]
struct RunRefJson {
    id: String,
    kind: &'static str,
    name: String,
    /// Null where it is not known.
    state: Option<String>,
}

impl From<RunRef> for RunRefJson {
    fn from(run: RunRef) -> Self {
        Self { id: run.run_id.to_string(), kind: json::kind(run.run_id), name: run.name, state: Some(run.state.name) }
    }
}

#[derive(Serialize)]
struct LimitWaitJson {
    limit: String,
    wanted: u32,
    slots: u32,
    held: u32,
    /// How many slots come back each second, if they come back by time.
    decay: Option<f64>,
    ahead: usize,
    /// Whether `ahead` is only about right.
    about: bool,
    holders: Vec<HolderJson>,
}

#[derive(Serialize)]
struct HolderJson {
    run_id: Option<String>,
    name: Option<String>,
    slots: u32,
    since: DateTime<Utc>,
    /// Null if it is this process.
    host: Option<String>,
    pid: Option<u32>,
}

impl From<LimitWait> for LimitWaitJson {
    fn from(wait: LimitWait) -> Self {
        let LimitWait { limit, wanted, slots, taken, slot_decay, ahead, is_about, holders, .. } = wait;
        let holders = holders.into_iter().map(|holder| HolderJson {
            run_id: holder.run_id.map(|id| id.to_string()),
            name: holder.name,
            slots: holder.slots,
            since: holder.since,
            pid: holder.process.as_ref().map(|process| process.pid),
            host: holder.process.map(|process| process.host),
        });
        Self {
            limit,
            wanted,
            slots,
            held: taken,
            decay: slot_decay,
            ahead,
            about: is_about,
            holders: holders.collect(),
        }
    }
}

impl From<Explanation> for ExplanationJson {
    fn from(explanation: Explanation) -> Self {
        let sentence = explanation.to_string();
        let (why, mut details) = details(explanation.why);
        if let Some(elsewhere) = explanation.elsewhere {
            (details.host, details.pid) = (Some(elsewhere.host), Some(elsewhere.pid));
            (details.heard, details.stopped_until) = (elsewhere.heard, elsewhere.stopped_until);
            (details.lease_over, details.known_at) = (elsewhere.lease_over, elsewhere.known_at);
        }
        details.on_crash = explanation.on_crash.map(CrashBudgetJson::from);
        Self {
            id: explanation.run_id.to_string(),
            kind: json::kind(explanation.run_id),
            name: explanation.name,
            state_type: explanation.state.kind.as_str(),
            state: explanation.state.name,
            why,
            sentence,
            rest: Rest::new(details, explanation.tasks, explanation.flows),
        }
    }
}

fn details(why: Why) -> (&'static str, Details) {
    let none = Details::default;
    let runs = |runs: Vec<RunRef>| Details { runs: runs.into_iter().map(RunRefJson::from).collect(), ..none() };
    let first = |RunRefs { first, count, .. }| Details { runs_count: Some(count), ..runs(first) };
    let limits = |limits: Vec<LimitWait>| limits.into_iter().map(LimitWaitJson::from).collect();
    let pause = |pause: Pause| Some(PauseJson::from(pause));
    match why {
        Why::Upstream(upstream) => ("upstream", first(upstream)),
        Why::Slots(waits) => ("slots", Details { limits: limits(waits), ..none() }),
        Why::RetryAt { at, attempt } => ("retry_at", Details { at: Some(at), attempt: Some(attempt), ..none() }),
        Why::Paused { flow, pause: asked } => ("paused", Details { pause: pause(asked), ..runs(vec![flow]) }),
        Why::FlowCapacity { flow, at_most } => {
            ("flow_capacity", Details { at_most: Some(at_most), ..runs(vec![flow]) })
        }
        Why::Thread => ("thread", none()),
        Why::Journal => ("journal", none()),
        Why::SameKey(run) => ("same_key", runs(vec![run])),
        Why::Children(children) => ("children", first(children)),
        Why::Starting => ("starting", none()),
        Why::Running { since, attempt, slots } => {
            ("running", Details { since: Some(since), attempt: Some(attempt), limits: limits(slots), ..none() })
        }
        Why::Cancelling => ("cancelling", none()),
        Why::Ended => ("ended", none()),
        Why::Elsewhere => ("elsewhere", none()),
        Why::SameKeyElsewhere { run_id, name, process } => {
            let run = RunRefJson { id: run_id.to_string(), kind: json::kind(run_id), name, state: None };
            let (host, pid) = (Some(process.host), Some(process.pid));
            ("same_key_elsewhere", Details { runs: vec![run], host, pid, ..none() })
        }
        _ => ("other", none()),
    }
}
