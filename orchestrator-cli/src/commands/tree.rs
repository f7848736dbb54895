//! `runs tree`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use orchestrator_core::text::one_line;
use orchestrator_core::{FlowRunId, FlowRunQuery, Orchestrator, RunId, StateType};
use serde::Serialize;

use crate::exit::Trouble;
use crate::find::{self, Run, short};
use crate::json::RunJson;
use crate::{print, time};

/// So many levels are shown below each other.
const DEPTH: usize = 60;

pub(super) async fn show(orchestrator: &Orchestrator, text: &str, limit: usize, json: bool) -> Result<(), Trouble> {
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
    if json {
        return print::json(&below.node(root));
    }
    let mut text = String::new();
    line(&root, "", &mut text);
    let limit = if limit == 0 { usize::MAX } else { limit };
    below.write(id, "", limit, &mut text);
    print::out(&text)
}

/// Runs by the run that called them, in the order of submission.
#[derive(Default)]
struct Below(HashMap<RunId, Vec<Run>>);

#[derive(Serialize)]
struct Node {
    #[serde(flatten)]
    run: RunJson,
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
            runs.sort_by_key(|run| (created(run), run.id().as_uuid()));
            for run in runs {
                self.0.entry(parent(&run).unwrap_or(flow.into())).or_default().push(run);
            }
        }
        Ok(())
    }

    /// The run with all below it. What is nested deeper than readers of JSON go is listed at the depth to which they do.
    fn node(mut self, root: Run) -> Node {
        let mut open = vec![(Node { run: root.clone().into(), children: Vec::new() }, self.children(root.id()))];
        loop {
            let depth = open.len();
            let (node, left) = open.last_mut().expect("the root is closed last");
            if let Some(next) = left.pop_front() {
                let below = self.children(next.id());
                let next = Node { run: next.into(), children: Vec::new() };
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

    fn children(&mut self, of: RunId) -> VecDeque<Run> {
        self.0.remove(&of).unwrap_or_default().into()
    }

    fn write(&self, of: RunId, indent: &str, limit: usize, text: &mut String) {
        let Some(children) = self.0.get(&of) else { return };
        if indent.chars().count() >= 3 * DEPTH {
            *text += &format!("{indent}└─ …\n");
            return;
        }
        let (shown, hidden) = choose(children, limit);
        for (n, run) in shown.iter().enumerate() {
            let last = n + 1 == shown.len() && hidden.is_empty();
            let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            line(run, &format!("{indent}{branch}"), text);
            self.write(run.id(), &format!("{indent}{below}"), limit, text);
        }
        if !hidden.is_empty() {
            let parts = hidden.iter().map(|((kind, name), count)| print::state_name(*kind, &format!("{count} {name}")));
            let (more, parts) = (hidden.values().sum::<usize>(), parts.collect::<Vec<_>>().join(", "));
            *text += &format!("{indent}└─ and {more} more: {parts}\n");
        }
    }
}

/// The children that are shown, and what became of the others. Those that completed are left out first.
fn choose(children: &[Run], limit: usize) -> (Vec<&Run>, BTreeMap<(StateType, &str), usize>) {
    let completed = |run: &&Run| run.state().kind == StateType::Completed;
    let mut room = limit.saturating_sub(children.iter().filter(|run| !completed(run)).take(limit).count());
    let (mut shown, mut hidden) = (Vec::new(), BTreeMap::new());
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
    let (start, end) = match run {
        Run::Flow(run) => (run.start_time, run.end_time),
        Run::Task(run) => (run.start_time, run.end_time),
    };
    let what = match run {
        Run::Flow(run) => format!(" (flow {})", one_line(&run.flow_name)),
        Run::Task(_) => String::new(),
    };
    let taken = time::taken(start, end).map(|taken| format!("  {}", time::short(taken))).unwrap_or_default();
    let (name, state, id) = (one_line(run.name()), print::state(run.state()), print::dim(short(run.id())));
    *text += &format!("{}{name}{what}  {state}{taken}  {id}\n", print::dim(indent));
}

const fn created(run: &Run) -> chrono::DateTime<chrono::Utc> {
    match run {
        Run::Flow(run) => run.created,
        Run::Task(run) => run.created,
    }
}

const fn parent(run: &Run) -> Option<RunId> {
    match run {
        Run::Flow(run) => run.parent,
        Run::Task(run) => run.parent,
    }
}
