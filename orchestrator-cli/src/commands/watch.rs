//! `watch`: what runs now, until somebody has seen enough.

mod screen;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use orchestrator_core::text::one_line;
use orchestrator_core::{FlowRun, FlowRunId, FlowRunQuery, Limit, Orchestrator, State, StateName, StateType};
use serde::Serialize;

use crate::exit::{self, Trouble};
use crate::find::short;
use crate::json::LimitJson;
use crate::signals::Terminated;
use crate::{print, time};

/// How often is looked for something new.
const EVERY: Duration = Duration::from_millis(250);
/// Looking takes this share of the time at most, however much there is to count.
const SHARE: u32 = 20;
/// But it is looked at least so often.
const LONGEST: Duration = Duration::from_secs(10);
/// So many flow runs are looked at.
const AT_MOST: usize = 100;

pub(super) async fn watch(orchestrator: &Orchestrator, json: bool) -> Result<(), Trouble> {
    if !json && screen::is_terminal() {
        return on_terminal(orchestrator).await;
    }
    let mut before = Now::default();
    loop {
        let start = Instant::now();
        let now = Now::look(orchestrator).await?;
        if json {
            if now != before || before.at.is_none() {
                print::json_line(&NowJson::from(&now))?;
            }
        } else {
            print::out(&now.news(orchestrator, &before).await?)?;
        }
        before = now;
        tokio::time::sleep(pause(start.elapsed())).await;
    }
}

async fn on_terminal(orchestrator: &Orchestrator) -> Result<(), Trouble> {
    let mut terminated = Terminated::new()?;
    let mut screen = screen::Screen::open()?;
    loop {
        let start = Instant::now();
        let now = Now::look(orchestrator).await?;
        screen.show(|width| now.text(&orchestrator.location(), width))?;
        let until = Instant::now() + pause(start.elapsed());
        while Instant::now() < until {
            // The keyboard blocks.
            let look = move || {
                let enough = screen.is_enough(EVERY);
                (enough, screen)
            };
            let (enough, back) = tokio::task::spawn_blocking(look)
                .await
                .map_err(|error| Trouble::new(exit::FAILED, format!("cannot read the keyboard: {error}")))?;
            screen = back;
            if terminated.is_so() {
                // The terminal is restored by a drop, which a signal would not wait for.
                return Err(Trouble { code: exit::TERMINATED, said: None });
            }
            if enough? {
                return Ok(());
            }
        }
    }
}

fn pause(taken: Duration) -> Duration {
    taken.saturating_mul(SHARE).clamp(EVERY, LONGEST)
}

/// What runs at a moment.
#[derive(Debug, Default, Clone)]
struct Now {
    at: Option<DateTime<Utc>>,
    runs: Vec<Active>,
    limits: Vec<Limit>,
}

impl PartialEq for Now {
    /// Whether there is nothing new, but for the time.
    fn eq(&self, other: &Self) -> bool {
        self.runs == other.runs && self.limits == other.limits
    }
}

/// A flow run that has not ended.
#[derive(Debug, Clone, PartialEq)]
struct Active {
    run: FlowRun,
    counts: Vec<(StateName, u64)>,
    /// How many of the flow runs that it called have not ended.
    subflows: u64,
    /// What it waits for, if it does not run.
    why: Option<String>,
}

impl Now {
    async fn look(orchestrator: &Orchestrator) -> Result<Self, Trouble> {
        let mut runs = Vec::new();
        for run in orchestrator.flow_runs(&FlowRunQuery::new().active().limit(AT_MOST)).await? {
            let counts = orchestrator.count_task_runs(run.id).await?;
            let subflows = orchestrator.count_active_subflows(run.id).await?;
            let why = reason(&run);
            runs.push(Active { run, counts, subflows, why });
        }
        runs.sort_by_key(|active| (active.run.created, active.run.id));
        Ok(Self { at: Some(Utc::now()), runs, limits: orchestrator.limits().await? })
    }

    /// What fits on a screen, line by line.
    fn text(&self, location: &str, width: usize) -> Vec<String> {
        let at = self.at.map(time::local).unwrap_or_default();
        let mut lines = vec![print::dim(format!("{at}  {}  q to quit", one_line(location))), String::new()];
        if self.runs.is_empty() {
            lines.push("nothing runs".to_owned());
        }
        let mut table = print::Table::new(&["ID", "NAME", "FLOW", "STATE", "FOR", "TASK RUNS"]);
        for Active { run, counts, subflows, why } in &self.runs {
            let waits = why.as_ref().map(|why| format!("{why}; ")).unwrap_or_default();
            table.row([
                short(run.id),
                one_line(&run.name),
                one_line(&run.flow_name),
                print::state(&run.state),
                so_far(time::between(run.start_time.unwrap_or(run.created), Utc::now())),
                format!("{waits}{}", counted(counts, *subflows, print::state_name)),
            ]);
        }
        if !self.runs.is_empty() {
            lines.extend(table.text(Some(width)).lines().map(str::to_owned));
        }
        if !self.limits.is_empty() {
            lines.push(String::new());
            let mut table = print::Table::new(&["LIMIT", "SLOTS", "HELD", "WAITING"]);
            for limit in &self.limits {
                let numbers = [limit.slots.to_string(), limit.taken.to_string(), limit.waiting.to_string()];
                table.row([one_line(&limit.name)].into_iter().chain(numbers));
            }
            lines.extend(table.text(Some(width)).lines().map(str::to_owned));
        }
        lines
    }

    /// A line for each flow run that is not as it was, and for each limit.
    async fn news(&self, orchestrator: &Orchestrator, before: &Self) -> Result<String, Trouble> {
        let at = self.at.map(time::exact).unwrap_or_default();
        let mut text = String::new();
        let known: BTreeMap<FlowRunId, &Active> = before.runs.iter().map(|active| (active.run.id, active)).collect();
        for active in self.runs.iter().filter(|active| known.get(&active.run.id) != Some(active)) {
            let waits = active.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
            let counts = counted(&active.counts, active.subflows, |_, part| part.to_owned());
            text += &line(&at, &active.run, &active.run.state, &format!("{waits}: {counts}"));
        }
        for gone in known.keys().filter(|id| self.runs.iter().all(|active| active.run.id != **id)) {
            if let Ok(run) = orchestrator.flow_run(*gone).await {
                let message = run.state.message.as_deref().map(|said| format!(": {}", one_line(said)));
                text += &line(&at, &run, &run.state, &message.unwrap_or_default());
            }
        }
        for limit in self.limits.iter().filter(|limit| !before.limits.contains(limit)) {
            let Limit { name, slots, taken, waiting, .. } = limit;
            text += &format!("{at} limit {}: {taken} of {slots} slots held, {waiting} waiting\n", one_line(name));
        }
        Ok(text)
    }
}

fn line(at: &str, run: &FlowRun, state: &State, rest: &str) -> String {
    let (name, flow, id) = (one_line(&run.name), one_line(&run.flow_name), short(run.id));
    format!("{at} {id} {name} ({flow}) {}{rest}\n", state.name)
}

/// What a flow run that does not run waits for, as far as the store tells.
fn reason(run: &FlowRun) -> Option<String> {
    if let Some(pause) = &run.pause {
        return Some(pause.message.as_deref().map_or_else(|| "waits for somebody".to_owned(), one_line));
    }
    (run.state.kind != StateType::Running).then(|| run.state.message.as_deref().map(one_line)).flatten()
}

fn counted(counts: &[(StateName, u64)], subflows: u64, show: impl Fn(StateType, &str) -> String) -> String {
    let mut parts: Vec<_> = counts.iter().map(|(name, count)| show(name.kind(), &format!("{count} {name}"))).collect();
    match subflows {
        0 if parts.is_empty() => return "no task runs yet".to_owned(),
        0 => {}
        1 => parts.push("1 subflow goes on".to_owned()),
        _ => parts.push(format!("{subflows} subflows go on")),
    }
    parts.join(", ")
}

/// How long a run has taken so far, in whole seconds: less would make the screen flicker.
fn so_far(taken: Duration) -> String {
    match taken.as_secs() {
        0 => "0s".to_owned(),
        seconds => time::short(Duration::from_secs(seconds)),
    }
}

/// What `--json` prints at each change.
#[derive(Serialize)]
struct NowJson<'a> {
    at: Option<DateTime<Utc>>,
    flow_runs: Vec<ActiveJson<'a>>,
    limits: Vec<LimitJson>,
}

#[derive(Serialize)]
struct ActiveJson<'a> {
    id: String,
    name: &'a str,
    flow_name: &'a str,
    state: &'a str,
    state_type: &'static str,
    created: DateTime<Utc>,
    start_time: Option<DateTime<Utc>>,
    /// What it waits for, if it does not run.
    waits_for: Option<&'a str>,
    /// By the name of the state, how many there are.
    task_runs: BTreeMap<&'static str, u64>,
    /// How many of the flow runs that it called have not ended.
    subflows: u64,
}

impl<'a> From<&'a Now> for NowJson<'a> {
    fn from(now: &'a Now) -> Self {
        let flow_runs = now.runs.iter().map(|Active { run, counts, subflows, why }| ActiveJson {
            id: run.id.to_string(),
            name: &run.name,
            flow_name: &run.flow_name,
            state: &run.state.name,
            state_type: run.state.kind.as_str(),
            created: run.created,
            start_time: run.start_time,
            waits_for: why.as_deref(),
            task_runs: counts.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
            subflows: *subflows,
        });
        Self {
            at: now.at,
            flow_runs: flow_runs.collect(),
            limits: now.limits.iter().cloned().map(LimitJson::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_begun_has_taken_no_second() {
        for (millis, expected) in [(0, "0s"), (999, "0s"), (1_999, "1s"), (61_500, "1m 01s")] {
            assert_eq!(so_far(Duration::from_millis(millis)), expected);
        }
    }
}
