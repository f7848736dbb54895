//! The live line at the bottom of the terminal: how many task runs are where.
//!
//! It keeps out of the way of everything that goes through [`Screen`]. What the program itself prints while the line is
//! there appears below it, and the line as it was stays above; nothing short of taking over standard output could help.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::duration::short;
use super::paint::one_line;
use super::screen::Screen;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::observe::{Observed, Observer};
use crate::state::StateName;

/// Flow runs that end sooner show no line.
const DELAY: Duration = Duration::from_millis(400);
const INTERVAL: Duration = Duration::from_millis(100);

/// Whether someone is there to look at a line that moves.
pub(super) fn is_welcome() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false");
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    console::Term::stderr().is_term() && !dumb && !set("CI")
}

/// Where a task run stands, as the line tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Running,
    Pending,
    WaitingForSlot,
    RetryingLater,
    Paused,
    Done,
    Cached,
    Failed,
    Cancelled,
}

impl Place {
    /// In the order in which the line tells them.
    const ALL: [(Self, &'static str); 9] = [
        (Self::Running, "running"),
        (Self::Pending, "pending"),
        (Self::WaitingForSlot, "waiting for a slot"),
        (Self::RetryingLater, "retrying later"),
        (Self::Paused, "paused"),
        (Self::Done, "done"),
        (Self::Cached, "cached"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
    ];

    const fn of(state: StateName) -> Self {
        match state {
            StateName::Running | StateName::Retrying | StateName::Cancelling => Self::Running,
            StateName::Scheduled | StateName::Late | StateName::Pending => Self::Pending,
            StateName::AwaitingConcurrencySlot => Self::WaitingForSlot,
            StateName::AwaitingRetry => Self::RetryingLater,
            StateName::Paused | StateName::Suspended => Self::Paused,
            StateName::Completed | StateName::RolledBack => Self::Done,
            StateName::Cached => Self::Cached,
            StateName::Failed | StateName::TimedOut | StateName::Crashed => Self::Failed,
            StateName::Cancelled | StateName::NotReady => Self::Cancelled,
        }
    }
}

/// Counts task runs, and shows the counts while a flow run is active.
#[derive(Debug)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    screen: Arc<Screen>,
    counts: Counts,
    active: Mutex<Active>,
}

#[derive(Debug, Default)]
struct Active {
    /// The names of the root flow runs that have not ended.
    flows: HashMap<FlowRunId, String>,
    /// When the first of them began.
    since: Option<Instant>,
    /// Whether the thread that draws the line is alive.
    drawn: bool,
}

impl Progress {
    pub(super) fn new(screen: Arc<Screen>) -> Self {
        Self(Arc::new(Shared { screen, counts: Counts::default(), active: Mutex::default() }))
    }
}

impl Observer for Progress {
    fn on_transition(&self, event: &Observed<'_>) {
        match (event.run.id, event.run.flow_run) {
            (RunId::Task(id), Some(_)) => self.0.counts.moves(id, event.transition.name),
            (RunId::Flow(id), None) => self.on_root_flow(id, event),
            (RunId::Task(_), None) | (RunId::Flow(_), Some(_)) => {}
        }
    }
}

impl Progress {
    fn on_root_flow(&self, id: FlowRunId, event: &Observed<'_>) {
        let mut active = self.0.lock();
        if !is_active(event.transition.name) {
            let last = active.flows.remove(&id).is_some() && active.flows.is_empty();
            if last {
                active.since = None;
                self.0.screen.clear();
                self.0.counts.forget_ended();
            }
            return;
        }
        active.flows.insert(id, one_line(event.name));
        active.since.get_or_insert_with(Instant::now);
        if !active.drawn {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("orchestrator-progress".to_owned());
            active.drawn = thread.spawn(move || shared.draw()).is_ok();
        }
    }
}

/// Whether a flow run in that state is being worked on by this process.
fn is_active(state: StateName) -> bool {
    !state.kind().is_terminal() && !matches!(state, StateName::Scheduled | StateName::Late | StateName::Suspended)
}

impl Shared {
    /// Draws the line until no flow run is active. The thread then lingers for a moment, so that a loop over short
    /// flows does not start one for each.
    fn draw(&self) {
        loop {
            let mut active = self.lock();
            let Some(since) = active.since else {
                active.drawn = false;
                return;
            };
            let early = DELAY.saturating_sub(since.elapsed());
            if early.is_zero() {
                self.screen.draw(self.text(&active, since.elapsed()));
            }
            drop(active);
            thread::sleep(if early.is_zero() { INTERVAL } else { early });
        }
    }

    fn text(&self, active: &Active, elapsed: Duration) -> String {
        let mut flows = active.flows.values();
        let mut text = match (flows.next(), flows.len()) {
            (Some(only), 0) => only.clone(),
            (_, others) => format!("{} flow runs", others + 1),
        };
        let elapsed = match elapsed.as_secs() {
            seconds @ 0..60 => format!("{seconds}s"),
            seconds => short(Duration::from_secs(seconds)).to_string(),
        };
        // Writing to a String does not fail.
        let _ = write!(text, ": {} | {elapsed}", self.counts.text());
        text
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many task runs stand where.
#[derive(Debug, Default)]
struct Counts {
    at: [AtomicI64; Place::ALL.len()],
    /// Where each run stands that has not ended.
    live: DashMap<TaskRunId, Place>,
}

impl Counts {
    fn moves(&self, id: TaskRunId, state: StateName) {
        let place = Place::of(state);
        let before = if state.kind().is_terminal() {
            self.live.remove(&id).map(|(_, before)| before)
        } else {
            self.live.insert(id, place)
        };
        if let Some(before) = before {
            self.at[before as usize].fetch_sub(1, Ordering::Relaxed);
        }
        self.at[place as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn forget_ended(&self) {
        for place in [Place::Done, Place::Cached, Place::Failed, Place::Cancelled] {
            self.at[place as usize].store(0, Ordering::Relaxed);
        }
    }

    /// All counts that are not zero.
    fn text(&self) -> String {
        let counts = Place::ALL.iter().filter_map(|(place, what)| {
            let count = self.at[*place as usize].load(Ordering::Relaxed);
            (count > 0).then(|| format!("{count} {what}"))
        });
        let text = counts.collect::<Vec<_>>().join(", ");
        if text.is_empty() { "no task runs yet".to_owned() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Actor, Paper};
    use super::*;
    use StateName::*;

    fn progress() -> Progress {
        Progress::new(Arc::new(Paper::default().screen()))
    }

    #[test]
    fn every_place_stands_at_its_own_index() {
        for (index, (place, _)) in Place::ALL.into_iter().enumerate() {
            assert_eq!(place as usize, index);
        }
    }

    #[test]
    fn task_runs_are_counted_where_they_stand() {
        let progress = progress();
        let flow = Actor::flow("brave-otter", None);
        let subflow = Actor::flow("sub", Some(&flow));
        flow.enters(&progress, &[Pending, Running]);
        subflow.enters(&progress, &[Pending, Running]);
        let counts = &progress.0.counts;
        assert_eq!(counts.text(), "no task runs yet");

        let histories: [&[StateName]; 9] = [
            &[Pending],
            &[Pending, Running],
            &[Pending, Running, AwaitingRetry, Retrying],
            &[Pending, AwaitingConcurrencySlot],
            &[Pending, Running, AwaitingRetry],
            &[Pending, Running, Completed],
            &[Pending, Cached],
            &[Pending, Running, Retrying, TimedOut],
            &[Pending, NotReady],
        ];
        for history in histories {
            Actor::task("t", Some(&subflow)).enters(&progress, history);
        }
        Actor::task("alone", None).enters(&progress, &[Pending, Running]);
        assert_eq!(
            counts.text(),
            "2 running, 1 pending, 1 waiting for a slot, 1 retrying later, 1 done, 1 cached, 1 failed, 1 cancelled"
        );
        assert_eq!(counts.live.len(), 5);
    }

    #[test]
    fn the_counts_of_ended_runs_are_gone_with_the_last_root_flow_run() {
        let progress = progress();
        let (first, second) = (Actor::flow("first", None), Actor::flow("second", None));
        first.enters(&progress, &[Pending, Running]);
        second.enters(&progress, &[Pending, Running]);
        Actor::task("t", Some(&first)).enters(&progress, &[Pending, Running, Completed]);
        assert_eq!(progress.0.text(&progress.0.lock(), Duration::from_millis(2_900)), "2 flow runs: 1 done | 2s");
        first.enters(&progress, &[Completed]);
        assert_eq!(progress.0.text(&progress.0.lock(), Duration::from_secs(65)), "second: 1 done | 1m 05s");
        second.enters(&progress, &[Suspended]);
        assert_eq!(progress.0.counts.text(), "no task runs yet");
        assert!(progress.0.lock().since.is_none());
        assert!(progress.0.lock().flows.is_empty());
    }
}
