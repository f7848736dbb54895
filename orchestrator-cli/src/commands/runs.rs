//! `runs ls`, `show`, `states`.

use std::time::Duration;

use orchestrator_core::text::{nearest, one_line};
use orchestrator_core::{
    Elsewhere, FlowRun, FlowRunQuery, Orchestrator, RunId, State, StateFilter, StateType, TaskRun,
};

use crate::exit::Trouble;
use crate::find::{self, Run, short};
use crate::json::{RunJson, StateJson};
use crate::print::{self, Facts, Limit, Table};
use crate::time::{self, Times};

/// So many runs are named one by one where a run refers to others.
const NAMED: usize = 10;

/// Which flow runs to list.
pub(super) struct Wanted {
    pub(super) flow: Option<String>,
    pub(super) state: Option<StateFilter>,
    pub(super) since: Option<Duration>,
    /// Whether those that other runs called are listed, too.
    pub(super) all: bool,
    pub(super) limit: Option<usize>,
}

pub(super) async fn list(orchestrator: &Orchestrator, wanted: Wanted, json: bool) -> Result<(), Trouble> {
    let mut limit = Limit::new(wanted.limit);
    let mut query = FlowRunQuery::new().limit(limit.wanted());
    if let Some(flow) = &wanted.flow {
        query = query.flow(flow);
    }
    if let Some(state) = wanted.state {
        query = query.state(state);
    }
    if let Some(since) = wanted.since {
        query = query.within(since);
    }
    let mut runs = orchestrator.flow_runs(&if wanted.all { query.clone() } else { query.clone().roots() }).await?;
    limit.apply(&mut runs);
    let mut silent = Vec::new();
    for run in &runs {
        silent.push(silence(orchestrator, run.id.into(), &run.state).await?);
    }
    if runs.is_empty() {
        let inside = !wanted.all && !orchestrator.flow_runs(&query.limit(1)).await?.is_empty();
        match inside {
            true => print::note("no flow runs but those that other runs called: see --all"),
            false => match unknown_flow(orchestrator, wanted.flow.as_deref()).await? {
                Some(said) => print::note(&said),
                None if json => {}
                None => print::note("no flow runs"),
            },
        }
    }
    if json {
        let runs = runs.into_iter().zip(&silent).map(|(run, silent)| RunJson::of(run, silent.as_ref()));
        print::json(&runs.collect::<Vec<_>>())?;
        limit.tell(json);
        return Ok(());
    }
    if runs.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["ID", "NAME", "FLOW", "STATE", "CREATED", "DURATION"]);
    for run in &runs {
        table.row([
            short(run.id),
            one_line(&run.name),
            one_line(&run.flow_name),
            print::state(&run.state),
            time::local(run.created),
            Times::from(run).taken_or_dash(),
        ]);
    }
    table.print()?;
    limit.tell(json);
    for (run, silent) in runs.iter().zip(silent) {
        if let Some(silent) = silent {
            let (name, state) = (one_line(&run.name), one_line(&run.state.name));
            print::note(&format!("'{name}' is {state} in {}, and may have crashed", one_line(&silent.to_string())));
        }
    }
    Ok(())
}

/// That no run is of that flow, with the name that may be meant.
async fn unknown_flow(orchestrator: &Orchestrator, flow: Option<&str>) -> Result<Option<String>, Trouble> {
    let Some(flow) = flow else { return Ok(None) };
    if !orchestrator.flow_runs(&FlowRunQuery::new().flow(flow).limit(1)).await?.is_empty() {
        return Ok(None);
    }
    let newest = orchestrator.flow_runs(&FlowRunQuery::new().limit(LOOKED_AT)).await?;
    let meant = nearest(flow, newest.iter().map(|run| run.flow_name.as_str()));
    Ok(meant.map(|meant| format!("no runs of a flow '{}': did you mean '{}'?", one_line(flow), one_line(meant))))
}

/// Among so many runs is looked for the name of a flow that may be meant.
const LOOKED_AT: usize = 1_000;

/// Whose a run is, if it has not ended and nothing is heard of its process any more.
pub(super) async fn silence(
    orchestrator: &Orchestrator,
    id: RunId,
    state: &State,
) -> Result<Option<Elsewhere>, Trouble> {
    if state.is_terminal() {
        return Ok(None);
    }
    Ok(orchestrator.whereabouts(id).await?.filter(|elsewhere| elsewhere.lease_over.is_some()))
}

pub(super) async fn show(orchestrator: &Orchestrator, text: &str, json: bool) -> Result<(), Trouble> {
    let run = Run::read(orchestrator, find::run(orchestrator, text).await?).await?;
    let silent = silence(orchestrator, run.id(), run.state()).await?;
    if json {
        return print::json(&RunJson::of(run, silent.as_ref()));
    }
    let mut facts = Facts::default();
    facts.add("id", run.id().to_string());
    if let Some(Elsewhere { heard, lease_over: Some(over), .. }) = silent {
        let (heard, over) = (time::exact(heard.unwrap_or(over)), time::exact(over));
        facts
            .add("silent", format!("its process has not been heard of since {heard} (its lease is over since {over})"));
    }
    match &run {
        Run::Flow(run) => flow_facts(orchestrator, run, &mut facts).await?,
        Run::Task(run) => task_facts(orchestrator, run, &mut facts).await?,
    }
    print::out(&format!("{}\n{}", run.label(), facts.text()))
}

async fn flow_facts(orchestrator: &Orchestrator, run: &FlowRun, facts: &mut Facts) -> Result<(), Trouble> {
    facts.add("flow", format!("{} ({})", one_line(&run.flow_name), run.flow_key));
    state_facts(&run.state, run.run_count, facts);
    let asks = |kind: StateType| !kind.is_terminal() || kind == StateType::Crashed;
    if let Some(on_crash) = run.on_crash.filter(|_| asks(run.state.kind)) {
        facts.add("on crash", on_crash.to_string());
    }
    if let Some(pause) = &run.pause {
        let until = pause.until.map(|until| format!(", at most until {}", time::local(until))).unwrap_or_default();
        let question = pause.message.as_deref().map(|said| format!(": {}", one_line(said))).unwrap_or_default();
        facts.add("paused", format!("since {}{until}{question}", time::local(pause.since)));
        if let Some(schema) = &pause.input_schema {
            facts.add("input", pretty(schema));
        }
    }
    time_facts(&Times::from(run), facts);
    if run.run_count > 1 {
        let states = orchestrator.states(run.id).await?;
        let ended = states.windows(2).filter(|pair| pair[0].is_terminal());
        // It crashed before that was found out.
        let at_least = if ended.clone().any(|pair| pair[0].kind == StateType::Crashed) { "at least " } else { "" };
        let lain = ended.map(|pair| time::between(pair[0].timestamp, pair[1].timestamp)).sum::<Duration>();
        if !lain.is_zero() {
            facts.add("", format!("of which {at_least}{} lay between an end and a resume", time::short(lain)));
        }
    }
    facts.add("process", format!("{} on {}", run.pid, one_line(&run.host)));
    common_facts(run.version.as_deref(), &run.tags, facts);
    if !run.parameters.is_null() {
        facts.add("parameters", print::lines(&pretty(&run.parameters)));
    }
    reference_facts(orchestrator, run.parent, &run.upstream, facts).await?;
    let counts = orchestrator.count_task_runs(run.id).await?;
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if total > 0 {
        let counts = counts.iter().map(|(name, count)| print::state_name(name.kind(), &format!("{count} {name}")));
        facts.add("task runs", format!("{total}: {}", counts.collect::<Vec<_>>().join(", ")));
    }
    let inner = orchestrator.flow_runs(&FlowRunQuery::new().inside(run.id).limit(NAMED + 1)).await?;
    if !inner.is_empty() {
        let mut lines: Vec<_> = inner.into_iter().map(|run| reference(&Run::Flow(run))).collect();
        shorten(&mut lines);
        facts.add("subflows", lines.join("\n"));
    }
    Ok(())
}

async fn task_facts(orchestrator: &Orchestrator, run: &TaskRun, facts: &mut Facts) -> Result<(), Trouble> {
    facts.add("task", format!("{} ({})", one_line(&run.task_name), run.task_key));
    state_facts(&run.state, run.run_count, facts);
    if let Some(look) = &run.cache {
        facts.add("cache", one_line(&look.to_string()));
        if let Some(key) = look.key {
            facts.add("cache key", key.to_string());
        }
    }
    time_facts(&Times::from(run), facts);
    facts.add("process", format!("{} on {}", run.pid, one_line(&run.host)));
    common_facts(run.version.as_deref(), &run.tags, facts);
    if let Some(flow) = run.flow_run_id {
        facts.add("flow run", look_up(orchestrator, flow.into()).await?);
    }
    let parent = run.parent.filter(|parent| parent.as_flow() != run.flow_run_id || parent.as_task().is_some());
    reference_facts(orchestrator, parent, &run.upstream, facts).await
}

fn state_facts(state: &State, run_count: u32, facts: &mut Facts) {
    facts.add("state", print::state(state));
    if let Some(message) = &state.message {
        facts.add("message", print::lines(message));
    }
    facts.add("attempts", run_count.to_string());
    if let Some(next) = state.scheduled_time {
        facts.add("next attempt", time::exact(next));
    }
}

fn time_facts(times: &Times, facts: &mut Facts) {
    facts.add("created", time::exact(times.created));
    if let Some(started) = times.started {
        facts.add("started", time::exact(started));
    }
    if let Some(seen) = times.last_seen {
        facts.add("last seen", time::exact(seen));
    }
    if let Some(ended) = times.ended {
        let found = if times.last_seen.is_some() { ", when it was found to have crashed" } else { "" };
        facts.add("ended", format!("{}{found}", time::exact(ended)));
    }
    if let Some(taken) = times.taken() {
        facts.add("duration", taken.to_string());
    }
}

fn common_facts(version: Option<&str>, tags: &[String], facts: &mut Facts) {
    if let Some(version) = version {
        facts.add("version", one_line(version));
    }
    if !tags.is_empty() {
        facts.add("tags", one_line(&tags.join(", ")));
    }
}

async fn reference_facts(
    orchestrator: &Orchestrator,
    parent: Option<RunId>,
    upstream: &[RunId],
    facts: &mut Facts,
) -> Result<(), Trouble> {
    if let Some(parent) = parent {
        facts.add("called by", look_up(orchestrator, parent).await?);
    }
    let mut lines = Vec::new();
    for id in upstream.iter().take(NAMED) {
        lines.push(look_up(orchestrator, *id).await?);
    }
    if upstream.len() > NAMED {
        lines.push(format!("and {} more", upstream.len() - NAMED));
    }
    if !lines.is_empty() {
        facts.add("upstream", lines.join("\n"));
    }
    Ok(())
}

/// A line about a run that another one refers to; it may have been removed.
async fn look_up(orchestrator: &Orchestrator, id: RunId) -> Result<String, Trouble> {
    let run = match id {
        RunId::Flow(id) => orchestrator.flow_run(id).await.map(Run::Flow),
        RunId::Task(id) => orchestrator.task_run(id).await.map(Run::Task),
    };
    match run {
        Ok(run) => Ok(reference(&run)),
        Err(error) if error.is_not_found() => Ok(format!("{} {id}, which is not in the history", find::kind(id))),
        Err(error) => Err(error.into()),
    }
}

fn reference(run: &Run) -> String {
    format!("{}  {}, {}", short(run.id()), one_line(run.name()), print::state(run.state()))
}

fn shorten(lines: &mut Vec<String>) {
    if lines.len() > NAMED {
        lines.truncate(NAMED);
        lines.push("and others".to_owned());
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

pub(super) async fn states(orchestrator: &Orchestrator, text: &str, json: bool) -> Result<(), Trouble> {
    let states = orchestrator.states(find::run(orchestrator, text).await?).await?;
    if json {
        return print::json(&states.into_iter().map(StateJson::from).collect::<Vec<_>>());
    }
    let mut table = Table::new(&["TIME", "AFTER", "STATE", "MESSAGE"]);
    let mut before = None;
    for state in states {
        let after = before.map(|before| time::between(before, state.timestamp));
        before = Some(state.timestamp);
        table.row([
            time::exact(state.timestamp),
            after.map_or_else(|| "-".to_owned(), time::short),
            print::state(&state),
            one_line(state.message.as_deref().unwrap_or_default()),
        ]);
    }
    table.print()
}
