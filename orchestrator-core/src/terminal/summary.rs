//! What is printed when a root flow run has ended: its state, and what became of its task runs.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tracing::Level;

use super::duration::short;
use super::paint::{Ink, Paint, one_line};
use super::screen::Screen;
use crate::id::{FlowRunId, RunId};
use crate::observe::{Observed, Observer};
use crate::state::StateName;

/// How many of the slowest task runs are named.
const SLOWEST: usize = 5;
/// How much of the first cause is shown; the log lines have all of it.
const CAUSE_CHARS: usize = 400;

/// Tallies the task runs of each root flow run, and prints the tally at its end.
#[derive(Debug)]
pub(super) struct Summary {
    screen: Arc<Screen>,
    paint: Paint,
    /// By flow run.
    flows: DashMap<FlowRunId, Flow>,
    losses: Mutex<Losses>,
}

/// An active flow run.
#[derive(Debug, Clone, Default)]
struct Flow {
    /// That of its root.
    tally: Arc<Tally>,
    /// Its name, if it is not the root itself.
    name: Option<Arc<str>>,
}

/// What the journal gave up on since the last summary.
#[derive(Debug, Default)]
struct Losses {
    events: u64,
    why: String,
}

impl Summary {
    pub(super) fn new(screen: Arc<Screen>, paint: Paint) -> Self {
        Self { screen, paint, flows: DashMap::new(), losses: Mutex::default() }
    }

    fn on_flow(&self, id: FlowRunId, event: &Observed<'_>) {
        if !event.transition.name.kind().is_terminal() {
            let name = || Some(one_line(event.name).into());
            let flow = match (self.flow(id), event.run.flow_run) {
                // It has its name only when it begins.
                (Some(flow), Some(_)) => Some(Flow { name: name(), ..flow }),
                (None, Some(enclosing)) => self.flow(enclosing).map(|root| Flow { name: name(), ..root }),
                (Some(_), None) => None,
                (None, None) => Some(Flow::default()),
            };
            flow.map(|flow| self.flows.insert(id, flow));
            return;
        }
        let Flow { tally, .. } = self.flows.remove(&id).map(|(_, flow)| flow).unwrap_or_default();
        if event.run.flow_run.is_none() {
            let losses = std::mem::take(&mut *self.losses());
            self.screen.print(&self.text(event, &tally, &losses));
        } else {
            tally.retried(event);
        }
    }

    /// The map is let go of: tallies have locks of their own.
    fn flow(&self, flow: FlowRunId) -> Option<Flow> {
        self.flows.get(&flow).map(|flow| flow.clone())
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, event: &Observed<'_>, tally: &Tally, losses: &Losses) -> String {
        let state = event.transition.name;
        let name = one_line(event.name);
        let mut text = format!("Flow run '{name}' ({}) ", one_line(event.run.function()));
        self.paint.push(&mut text, Ink::of_state(state), |text| text.push_str(state.as_str()));
        if let Some(duration) = event.duration {
            let _ = write!(text, " in {}", short(duration));
        }
        text.push('\n');
        let mut row = |label: &str, value: &str| {
            let _ = writeln!(text, "  {} {value}", self.paint.text(Ink::Dim, format_args!("{label:<11}")));
        };
        if let Some(error) = event.error {
            row("cause", &shortened(&error.first_cause().to_string()));
        }
        if event.run_count > 1 {
            row("attempts", &event.run_count.to_string());
        }
        if let Some(states) = tally.states(self.paint) {
            row("task runs", &states);
        }
        let retries = tally.retries.load(Ordering::Relaxed);
        if retries > 0 {
            row("retries", &retries.to_string());
        }
        if let Some(slowest) = tally.slowest() {
            row("slowest", &slowest);
        }
        if losses.events > 0 {
            row("lost", &self.loss(losses));
        }
        text
    }

    fn loss(&self, losses: &Losses) -> String {
        let (events, were) = if losses.events == 1 { ("event", "was") } else { ("events", "were") };
        let text = format!("{} {events} {were} not recorded: {}", losses.events, shortened(&losses.why));
        self.paint.text(Ink::of_level(Level::ERROR), text)
    }
}

impl Observer for Summary {
    fn on_transition(&self, event: &Observed<'_>) {
        match event.run.id {
            // It had its summary when it completed.
            RunId::Flow(_) if event.transition.name == StateName::RolledBack => {}
            RunId::Flow(id) => self.on_flow(id, event),
            RunId::Task(_) if event.transition.name.kind().is_terminal() => {
                if let Some(flow) = event.run.flow_run.and_then(|flow| self.flow(flow)) {
                    flow.tally.add(event, flow.name.as_deref());
                }
            }
            RunId::Task(_) => {}
        }
    }

    fn watches(&self, state: StateName) -> bool {
        state.kind().is_terminal() || state == StateName::RolledBack
    }

    /// Told in the next summary; at once if no flow run is left to have one.
    fn on_loss(&self, lost: u64, why: &str) {
        let mut losses = self.losses();
        losses.events += lost;
        why.clone_into(&mut losses.why);
        if self.flows.is_empty() {
            let losses = std::mem::take(&mut *losses);
            self.screen.print(&format!("orchestrator: {}\n", self.loss(&losses)));
        }
    }
}

/// What became of the task runs of a root flow run and of the flow runs inside it.
#[derive(Debug, Default)]
struct Tally {
    /// By [`StateName`], how many ended so.
    ended: [AtomicU64; StateName::ALL.len()],
    /// Of task runs, and of the flow runs inside.
    retries: AtomicU64,
    /// The shortest duration among the slowest, once there are enough of them.
    floor: AtomicU64,
    /// The slowest, slowest first.
    slowest: Mutex<Vec<(Duration, String)>>,
}

impl Tally {
    fn retried(&self, event: &Observed<'_>) {
        if event.run_count > 1 {
            self.retries.fetch_add(u64::from(event.run_count - 1), Ordering::Relaxed);
        }
    }

    /// Adds a task run, of that flow run if it is not the root.
    fn add(&self, event: &Observed<'_>, flow: Option<&str>) {
        if event.transition.name == StateName::RolledBack {
            // It was added when it completed.
            self.ended[StateName::Completed as usize].fetch_sub(1, Ordering::Relaxed);
            self.ended[StateName::RolledBack as usize].fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.ended[event.transition.name as usize].fetch_add(1, Ordering::Relaxed);
        self.retried(event);
        let Some(duration) = event.duration else { return };
        // Most runs are not among the slowest and leave without the lock.
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if nanos <= self.floor.load(Ordering::Relaxed) {
            return;
        }
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let place = slowest.partition_point(|(other, _)| *other >= duration);
        let name = one_line(event.name);
        // Tasks are numbered in each flow run.
        slowest.insert(place, (duration, flow.map_or(name.clone(), |flow| format!("{name} ({flow})"))));
        slowest.truncate(SLOWEST);
        if let Some((floor, _)) = slowest.get(SLOWEST - 1) {
            self.floor.store(u64::try_from(floor.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// `24: 20 Completed, 3 Cached, 1 Failed`, if there were any.
    fn states(&self, paint: Paint) -> Option<String> {
        let counts = StateName::ALL.map(|name| (name, self.ended[name as usize].load(Ordering::Relaxed)));
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let parts = counts.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<_> =
            parts.map(|(name, count)| paint.text(Ink::of_state(*name), format_args!("{count} {name}"))).collect();
        (total > 0).then(|| format!("{total}: {}", parts.join(", ")))
    }

    fn slowest(&self) -> Option<String> {
        let slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<_> = slowest.iter().map(|(duration, name)| format!("{name} {}", short(*duration))).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The first line of the text, or as much of it as fits.
fn shortened(text: &str) -> String {
    let first = text.trim().lines().next().unwrap_or_default();
    let mut short: String = first.chars().take(CAUSE_CHARS).collect();
    if short.len() < text.trim().len() {
        short.push_str(" ...");
    }
    one_line(&short)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Actor, End, Paper};
    use super::*;
    use StateName::*;

    fn summary() -> (Summary, Paper) {
        let paper = Paper::default();
        (Summary::new(Arc::new(paper.screen()), Paint::Plain), paper)
    }

    fn task(summary: &Summary, within: &Actor, name: &str, end: (StateName, u32, Option<u64>)) {
        let task = Actor::task(name, Some(within));
        task.enters(summary, &[Pending, Running]);
        let (name, run_count, millis) = end;
        task.ends(summary, &End { name, run_count, millis, error: None });
    }

    fn end(name: StateName, millis: u64) -> End<'static> {
        End { name, run_count: 1, millis: Some(millis), error: None }
    }

    #[test]
    fn the_summary_tells_states_retries_and_the_slowest() {
        let (summary, paper) = summary();
        let flow = Actor::flow("brave-otter", None);
        flow.enters(&summary, &[Pending, Running]);
        for index in 0..7 {
            task(&summary, &flow, &format!("fetch-{index}"), (Completed, 1, Some(100 * (index + 1))));
        }
        task(&summary, &flow, "fetch-7", (Cached, 0, None));
        task(&summary, &flow, "fetch-8", (Failed, 4, Some(450)));
        task(&summary, &flow, "fetch-9", (NotReady, 0, None));
        assert_eq!(paper.text(), "");
        flow.ends(&summary, &end(Completed, 1_840));
        assert_eq!(
            paper.text(),
            "Flow run 'brave-otter' (function) Completed in 1.84s\n  \
               task runs   10: 7 Completed, 1 Cached, 1 Failed, 1 NotReady\n  \
               retries     3\n  \
               slowest     fetch-6 700ms, fetch-5 600ms, fetch-4 500ms, fetch-8 450ms, fetch-3 400ms\n"
        );
        assert!(summary.flows.is_empty());
    }

    #[test]
    fn tasks_of_subflows_count_for_their_root_alone() {
        let (summary, paper) = summary();
        let (root, other) = (Actor::flow("root", None), Actor::flow("other", None));
        let sub = Actor::flow("sub", Some(&root));
        let subsub = Actor::flow("subsub", Some(&Actor::task("between", Some(&sub))));
        for flow in [&root, &other, &sub, &subsub] {
            flow.enters(&summary, &[Pending, Running]);
        }
        task(&summary, &subsub, "deep", (Completed, 1, Some(4)));
        task(&summary, &root, "shallow", (Completed, 1, Some(3)));
        task(&summary, &other, "elsewhere", (Failed, 1, None));
        subsub.ends(&summary, &End { name: Completed, run_count: 2, millis: Some(5), error: None });
        sub.ends(&summary, &end(Completed, 5));
        root.ends(&summary, &End { name: Completed, run_count: 3, millis: Some(5), error: None });
        assert_eq!(
            paper.text(),
            "Flow run 'root' (function) Completed in 5ms\n  \
               attempts    3\n  \
               task runs   2: 2 Completed\n  \
               retries     1\n  \
               slowest     deep (subsub) 4ms, shallow 3ms\n"
        );
        other.ends(&summary, &end(Completed, 5));
        assert!(paper.text().ends_with("\n  task runs   1: 1 Failed\n"));
        assert!(summary.flows.is_empty());
    }

    #[test]
    fn a_flow_run_without_task_runs_has_one_line_and_may_run_again() {
        let (summary, paper) = summary();
        let flow = Actor::flow("plain\n", None);
        flow.enters(&summary, &[Pending]);
        flow.ends(&summary, &End { name: Cancelled, run_count: 0, millis: None, error: None });
        flow.enters(&summary, &[Running]);
        task(&summary, &flow, "t", (Completed, 1, None));
        flow.ends(&summary, &end(Completed, 1));
        assert_eq!(
            paper.text(),
            "Flow run 'plain\\n' (function) Cancelled\n\
             Flow run 'plain\\n' (function) Completed in 1ms\n  task runs   1: 1 Completed\n"
        );
    }

    #[test]
    fn losses_are_told_once_and_never_forgotten() {
        let (summary, paper) = summary();
        let flow = Actor::flow("f", None);
        flow.enters(&summary, &[Pending, Running]);
        summary.on_loss(2, "disk full");
        summary.on_loss(3, "disk still full\nbadly");
        flow.ends(&summary, &end(Completed, 1));
        summary.on_loss(1, "too late");
        assert_eq!(
            paper.text(),
            "Flow run 'f' (function) Completed in 1ms\n  \
               lost        5 events were not recorded: disk still full ...\n\
             orchestrator: 1 event was not recorded: too late\n"
        );
    }

    #[test]
    fn a_cause_is_one_line_of_bounded_length() {
        assert_eq!(shortened("task run 'x-3' failed: no\nway"), "task run 'x-3' failed: no ...");
        assert_eq!(shortened(&"é".repeat(401)), format!("{} ...", "é".repeat(400)));
        assert_eq!(shortened("short\n"), "short");
        assert_eq!(shortened(""), "");
    }
}
