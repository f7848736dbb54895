//! `runs tree`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, Utc};
use orchestrator_core::text::one_line;
use orchestrator_core::{FlowRunId, FlowRunQuery, Orchestrator, RunId, State, StateType};
use serde::Serialize;

use crate::exit::Trouble;
use crate::find::{self, Run, short};
use crate::json::RunJson;
use crate::print;
use crate::time::Times;

/// So many levels are shown below each other.
const DEPTH: usize = 60;

/// What is shown of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// What each attempt called, not the last one's alone.
    pub(super) all: bool,
    /// So many runs below each run.
    pub(super) limit: usize,
}

pub(super) async fn show(orchestrator: &Orchestrator, text: &str, shown: Shown, json: bool) -> Result<(), Trouble> {
    let id = find::run(orchestrator, text).await?;
    let root = Run::read(orchestrator, id).await?;
    let mut below = Below::default();
    match &root {
        Run::Flow(run) => below.read(orchestrator, run.id).await?,
        // What a task run called belongs to the same flow run, or is a flow run inside it.
        Run::Task(run) => match run.flow_run_id {
            Some(flow) => below.read(orchestrator, flow).await?,
            None => print::note("the runs below a task run outside of any flow are not listed"),
        },
    }
    below.read_attempts(orchestrator, &root).await?;
    if json {
        return print::json(&below.node(root));
    }
    let mut text = String::new();
    line(&root, "", &mut text);
    below.write(id, "", shown, &mut text);
    print::out(&text)
}

/// Runs below others.
#[derive(Default)]
struct Below {
    /// By the run that called them, in the order of submission.
    children: HashMap<RunId, Vec<Run>>,
    /// Of runs whose body was started more than once, and that called others.
    attempts: HashMap<RunId, Vec<Attempt>>,
}

/// One start of a run's body.
struct Attempt {
    began: DateTime<Utc>,
    /// The state that it ended in, if that ended the run for a while.
    ended: Option<State>,
}

#[derive(Serialize)]
struct Node {
    #[serde(flatten)]
    run: RunJson,
    /// Which attempt of the run above called it, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<usize>,
    children: Vec<Node>,
}

impl Below {
    async fn read(&mut self, orchestrator: &Orchestrator, root: FlowRunId) -> Result<(), Trouble> {
        let mut flows = vec![root];
        while let Some(flow) = flows.pop() {
            let inner = orchestrator.flow_runs(&FlowRunQuery::new().inside(flow).limit(usize::MAX)).await?;
            flows.extend(inner.iter().map(|run| run.id));
            let tasks = orchestrator.task_runs(flow).await?;
            let mut runs: Vec<_> = inner.into_iter().map(Run::Flow).chain(tasks.into_iter().map(Run::Task)).collect();
            runs.sort_by_key(|run| (run.created(), run.id().as_uuid()));
            for run in runs {
                self.children.entry(parent(&run).unwrap_or(flow.into())).or_default().push(run);
            }
        }
        Ok(())
    }

    /// Finds out when the attempts began of runs that had several, and called others.
    async fn read_attempts(&mut self, orchestrator: &Orchestrator, root: &Run) -> Result<(), Trouble> {
        let all = self.children.values().flatten().chain([root]);
        let several: Vec<RunId> =
            all.filter(|run| run_count(run) > 1 && self.children.contains_key(&run.id())).map(|run| run.id()).collect();
        for id in several {
            let attempts = attempts(&orchestrator.states(id).await?);
            if attempts.len() > 1 {
                self.attempts.insert(id, attempts);
            }
        }
        Ok(())
    }

    /// Which attempt of a run called that one: its index.
    fn attempt_of(&self, run: &Run, parent: RunId) -> Option<usize> {
        let attempts = self.attempts.get(&parent)?;
        Some(attempts.partition_point(|attempt| attempt.began <= run.created()).saturating_sub(1))
    }

    /// The run with all below it. What is nested deeper than readers of JSON go is listed at the depth to which they do.
    fn node(mut self, root: Run) -> Node {
        let top = Node { run: root.clone().into(), attempt: None, children: Vec::new() };
        let mut open = vec![(top, self.children(root.id()))];
        loop {
            let depth = open.len();
            let (node, left) = open.last_mut().expect("the root is closed last");
            if let Some((next, attempt)) = left.pop_front() {
                let below = self.children(next.id());
                let next = Node { run: next.into(), attempt, children: Vec::new() };
                if depth < DEPTH {
                    open.push((next, below));
                } else {
                    node.children.push(next);
                    left.extend(below);
                }
                continue;
            }
            let (done, _) = open.pop().expect("it was looked at above");
            match open.last_mut() {
                Some((above, _)) => above.children.push(done),
                None => return done,
            }
        }
    }

    fn children(&mut self, of: RunId) -> VecDeque<(Run, Option<usize>)> {
        let children = self.children.remove(&of).unwrap_or_default();
        let with_attempt = |run: Run| {
            let attempt = self.attempt_of(&run, of).map(|attempt| attempt + 1);
            (run, attempt)
        };
        children.into_iter().map(with_attempt).collect()
    }

    fn write(&self, of: RunId, indent: &str, shown: Shown, text: &mut String) {
        let Some(children) = self.children.get(&of) else { return };
        if indent.chars().count() >= 3 * DEPTH {
            *text += &format!("{indent}└─ …\n");
            return;
        }
        let Some(attempts) = self.attempts.get(&of) else {
            return self.write_runs(children.iter().collect(), indent, shown, text);
        };
        let mut by_attempt: Vec<Vec<&Run>> = attempts.iter().map(|_| Vec::new()).collect();
        for run in children {
            by_attempt[self.attempt_of(run, of).unwrap_or_default()].push(run);
        }
        let last = attempts.len() - 1;
        for (n, (attempt, runs)) in attempts.iter().zip(by_attempt).enumerate() {
            if n == last && !shown.all {
                return self.write_runs(runs, indent, shown, text);
            }
            let more = if shown.all { n < last } else { n + 1 < last || self.has_children_of_last(of) };
            let (branch, below) = if more { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            let ended = attempt.ended.as_ref().map(|state| format!("  {}", print::state(state))).unwrap_or_default();
            let called = if runs.is_empty() { "no runs".to_owned() } else { counted(&count(&runs)) };
            *text += &format!("{}attempt {}{ended}  {called}\n", print::dim(format!("{indent}{branch}")), n + 1);
            if shown.all {
                self.write_runs(runs, &format!("{indent}{below}"), shown, text);
            }
        }
    }

    /// Whether the last attempt of a run called others.
    fn has_children_of_last(&self, run: RunId) -> bool {
        let last = self.attempts.get(&run).map(|attempts| attempts.len() - 1);
        self.children.get(&run).is_some_and(|runs| runs.iter().any(|child| self.attempt_of(child, run) == last))
    }

    fn write_runs(&self, runs: Vec<&Run>, indent: &str, shown: Shown, text: &mut String) {
        let (chosen, hidden) = choose(runs, shown.limit);
        for (n, run) in chosen.iter().enumerate() {
            let last = n + 1 == chosen.len() && hidden.is_empty();
            let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            line(run, &format!("{indent}{branch}"), text);
            self.write(run.id(), &format!("{indent}{below}"), shown, text);
        }
        if !hidden.is_empty() {
            let more = hidden.values().sum::<usize>();
            *text += &format!("{indent}└─ and {more} more: {}\n", counted(&hidden));
        }
    }
}

/// When the attempts of a run began.
fn attempts(states: &[State]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut before: Option<&State> = None;
    for state in states {
        // What was paused goes on in the same attempt.
        let begins = state.kind == StateType::Running && before.is_none_or(|before| before.kind != StateType::Paused);
        if begins {
            if let Some(last) = attempts.last_mut() {
                last.ended = before.filter(|before| before.is_terminal()).cloned();
            }
            attempts.push(Attempt { began: state.timestamp, ended: None });
        }
        before = Some(state);
    }
    attempts
}

/// How many runs are in each state.
type Counts<'a> = BTreeMap<(StateType, &'a str), usize>;

fn count<'a>(runs: &[&'a Run]) -> Counts<'a> {
    let mut counts = Counts::new();
    for run in runs {
        *counts.entry((run.state().kind, run.state().name.as_str())).or_default() += 1;
    }
    counts
}

/// `2 Completed, 1 NotReady`
fn counted(counts: &Counts<'_>) -> String {
    let parts = counts.iter().map(|((kind, name), count)| print::state_name(*kind, &format!("{count} {name}")));
    parts.collect::<Vec<_>>().join(", ")
}

/// The children that are shown, and what became of the others. Those that completed are left out first.
fn choose(children: Vec<&Run>, limit: usize) -> (Vec<&Run>, Counts<'_>) {
    let completed = |run: &&Run| run.state().kind == StateType::Completed;
    let mut room = limit.saturating_sub(children.iter().filter(|run| !completed(run)).take(limit).count());
    let (mut shown, mut hidden) = (Vec::new(), Counts::new());
    for run in children {
        let fits = if completed(&run) {
            let fits = room > 0;
            room = room.saturating_sub(1);
            fits
        } else {
            shown.len() < limit
        };
        if fits {
            shown.push(run);
        } else {
            *hidden.entry((run.state().kind, run.state().name.as_str())).or_default() += 1;
        }
    }
    (shown, hidden)
}

fn line(run: &Run, indent: &str, text: &mut String) {
    let times = match run {
        Run::Flow(run) => Times::from(run),
        Run::Task(run) => Times::from(run),
    };
    let what = match run {
        Run::Flow(run) => format!(" (flow {})", one_line(&run.flow_name)),
        Run::Task(_) => String::new(),
    };
    let taken = times.taken().map(|taken| format!("  {taken}")).unwrap_or_default();
    let (name, state, id) = (one_line(run.name()), print::state(run.state()), print::dim(short(run.id())));
    *text += &format!("{}{name}{what}  {state}{taken}  {id}\n", print::dim(indent));
}

const fn run_count(run: &Run) -> u32 {
    match run {
        Run::Flow(run) => run.run_count,
        Run::Task(run) => run.run_count,
    }
}

const fn parent(run: &Run) -> Option<RunId> {
    match run {
        Run::Flow(run) => run.parent,
        Run::Task(run) => run.parent,
    }
}
