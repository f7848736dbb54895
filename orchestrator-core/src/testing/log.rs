//! The log of what runs did, to be compared in tests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::diff;
use crate::context::Place;
use crate::id::RunId;
use crate::observe::{Observed, Observer};
use crate::state::StateName;

/// Every state that the runs of an orchestrator entered, in the order in which it happened.
///
/// `#[orchestrator::test]` keeps one, which is [`EventLog::current`]; for an orchestrator of one's own:
///
/// ```
/// use orchestrator_core::Orchestrator;
/// use orchestrator_core::testing::EventLog;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orchestrator_core::Error> {
/// let log = EventLog::new();
/// let orchestrator = Orchestrator::builder().database_url("memory").observer(log.observer()).build().await?;
/// orchestrator.scope(async { /* what is to be tested */ }).await;
/// log.assert_eq("");
/// # Ok(())
/// # }
/// ```
///
/// It shows one line for each event, `fetch-0: Running`, and in parentheses what there is to say:
/// `fetch-0: Failed (no answer)`. A flow run that was given no name is shown as its function and number,
/// `github-stars-0`, in place of its random name. Runs that go on at the same time come in the order in which they
/// happened to enter their states; [`by_run`](Self::by_run) does not depend on it.
///
/// A clone is the same log.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Seen>);

#[derive(Default)]
struct Seen(Mutex<Events>);

#[derive(Default)]
struct Events {
    happened: Vec<Happened>,
    /// Runs are remembered when what they did is cleared: messages may name them.
    runs: HashMap<RunId, Names>,
}

struct Happened {
    run: RunId,
    state: StateName,
    message: Option<Arc<str>>,
}

struct Names {
    shown: String,
    /// The name of a flow run that nobody chose.
    random: Option<String>,
}

impl EventLog {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The log of the test that calls this.
    ///
    /// # Panics
    ///
    /// Outside of a test with `#[orchestrator::test]`.
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        let place = Place::current();
        let log = place.inner().and_then(|orchestrator| orchestrator.testing.log.get());
        log.cloned().expect("only under `#[orchestrator::test]` there is a log: make one with `EventLog::new()`")
    }

    /// What an orchestrator is given, so that the log sees its runs.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.0) as Arc<dyn Observer>
    }

    /// One line for each run, in the order of their submission: `fetch-0: Pending, Running, Completed`.
    #[must_use]
    pub fn by_run(&self) -> String {
        let events = self.0.lock();
        let mut places = HashMap::new();
        let mut lines: Vec<String> = Vec::new();
        for Happened { run, state, .. } in &events.happened {
            match places.get(run) {
                None => {
                    places.insert(*run, lines.len());
                    lines.push(format!("{}: {state}", events.runs[run].shown));
                }
                Some(place) => {
                    let line: &mut String = &mut lines[*place];
                    line.push_str(", ");
                    line.push_str(state.as_str());
                }
            }
        }
        lines.join("\n")
    }

    /// Forgets what happened so far.
    pub fn clear(&self) {
        self.0.lock().happened.clear();
    }

    /// Compares the log with its text. Indentation and blank lines do not count.
    ///
    /// # Panics
    ///
    /// If they differ, with the lines that do.
    #[track_caller]
    pub fn assert_eq(&self, expected: &str) {
        tell(diff::difference("the events are", expected, &self.to_string()));
    }

    /// Compares [`by_run`](Self::by_run) with a text. Indentation and blank lines do not count.
    ///
    /// # Panics
    ///
    /// If they differ, with the lines that do.
    #[track_caller]
    pub fn assert_by_run(&self, expected: &str) {
        tell(diff::difference("the states of the runs are", expected, &self.by_run()));
    }

    /// Looks for the lines of a text, in their order, with any others in between.
    ///
    /// # Panics
    ///
    /// If one of them is not there, with the lines of the log.
    #[track_caller]
    pub fn assert_contains(&self, expected: &str) {
        let happened = self.to_string();
        let mut lines = happened.lines();
        let missing = diff::trimmed(expected).into_iter().find(|wanted| !lines.any(|line| line.trim() == *wanted));
        tell(missing.map(|missing| {
            let after =
                if happened.lines().any(|line| line.trim() == missing) { " after the lines before it" } else { "" };
            format!("the events do not contain `{missing}`{after}; what happened:\n{}", indented(&happened))
        }));
    }
}

#[track_caller]
fn tell(said: Option<String>) {
    if let Some(said) = said {
        panic!("{said}");
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// One line for each event.
impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.0.lock();
        let mut lines = String::new();
        for Happened { run, state, message } in &events.happened {
            lines.push_str(&events.runs[run].shown);
            lines.push_str(": ");
            lines.push_str(state.as_str());
            if let Some(message) = message.as_deref().filter(|message| !message.is_empty()) {
                lines.push_str(" (");
                lines.push_str(&events.without_random_names(message).replace('\n', "\\n"));
                lines.push(')');
            }
            lines.push('\n');
        }
        drop(events);
        f.write_str(lines.trim_end())
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("events", &self.lock().happened.len()).finish()
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &Observed<'_>) {
        let run = event.run.id;
        // The index counts within the flow run, like that of a task.
        let random = (run.as_flow().is_some() && !event.named).then(|| event.name.to_owned());
        let shown = match random {
            Some(_) => format!("{}-{}", event.run.function(), event.run.index),
            None => event.name.to_owned(),
        };
        let happened = Happened { run, state: event.transition.name, message: event.transition.message.clone() };
        let mut events = self.lock();
        events.runs.insert(run, Names { shown, random });
        events.happened.push(happened);
    }
}

impl Observer for Seen {
    fn on_submit(&self, event: &Observed<'_>) {
        self.note(event);
    }

    fn on_transition(&self, event: &Observed<'_>) {
        self.note(event);
    }
}

impl Events {
    fn without_random_names(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for Names { shown, random } in self.runs.values() {
            if let Some(random) = random {
                message = message.replace(&format!("'{random}'"), &format!("'{shown}'"));
            }
        }
        message
    }
}
