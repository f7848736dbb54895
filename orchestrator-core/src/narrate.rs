//! What runs say of themselves: one `tracing` event for each transition worth reading.
//!
//! The target is `orchestrator::run`, with the fields `run.kind` and `run.name`. A failure is told in full where it
//! began; whoever failed because of it names that run.

use std::fmt::Write as _;

use tracing::level_filters::LevelFilter;

use crate::backend::record::CacheLook;
use crate::error::TaskError;
use crate::observe::Observed;
use crate::run::Run;
use crate::state::StateName;
use crate::terminal::{self, RUN_TARGET, short};

macro_rules! say {
    ($level:ident, $run:expr, $event:expr, $($message:tt)+) => {
        tracing::$level!(target: RUN_TARGET, { run.kind = $run.kind(), run.name = $event.name }, $($message)+)
    };
}

/// Whether anybody listens to what is told of such a transition.
pub(crate) fn is_told(is_flow: bool, name: StateName) -> bool {
    let level = match name {
        StateName::Running if !is_flow => LevelFilter::DEBUG,
        StateName::Failed | StateName::TimedOut | StateName::Crashed => LevelFilter::ERROR,
        StateName::NotReady | StateName::AwaitingRetry | StateName::Retrying | StateName::RolledBack => {
            LevelFilter::WARN
        }
        StateName::Cancelled | StateName::Cancelling | StateName::Paused => LevelFilter::WARN,
        StateName::Completed | StateName::Cached | StateName::Running => LevelFilter::INFO,
        StateName::Scheduled
        | StateName::Late
        | StateName::AwaitingConcurrencySlot
        | StateName::Pending
        | StateName::Suspended => LevelFilter::DEBUG,
    };
    LevelFilter::current() >= level
}

pub(crate) fn tell(run: &Run, event: &Observed<'_>) {
    let flow = run.is_flow();
    if !is_told(flow, event.transition.name) {
        return;
    }
    let function = event.run.function();
    let said = event.transition.message.as_deref().unwrap_or_default();
    terminal::tells_of_many(!flow && run.is_in_active_flow());
    match event.transition.name {
        StateName::Running if flow && !said.is_empty() => say!(info, run, event, "Goes on: {said}"),
        StateName::Paused => say!(warn, run, event, "Paused: {said}; {}", how_to_resume(run)),
        StateName::Running if flow => say!(info, run, event, "Started: flow '{function}'"),
        StateName::Running => say!(debug, run, event, "Started"),
        StateName::AwaitingRetry | StateName::Retrying if !said.is_empty() => {
            say!(warn, run, event, "{}", capital(said))
        }
        StateName::Cancelling if flow => say!(warn, run, event, "Cancelling"),
        StateName::Completed | StateName::Cached => say!(info, run, event, "{}", finished(event, "")),
        StateName::RolledBack => say!(warn, run, event, "Rolled back: {said}"),
        StateName::Failed | StateName::TimedOut | StateName::Crashed => {
            // That the process was found to be gone is told once, when its runs are ended.
            let is_told =
                |why: &String| run.scope().orchestrator.fenced().is_some_and(|fenced| why.contains(&**fenced));
            let why = event.error.map(|error| why(run, error)).filter(|why| !is_told(why)).unwrap_or_default();
            say!(error, run, event, "{}", finished(event, &why));
        }
        StateName::NotReady => {
            let why = event.error.map(|error| why(run, error)).unwrap_or_default();
            say!(warn, run, event, "{}", finished(event, &why));
        }
        StateName::Cancelled if flow || run.is_discarded() => say!(warn, run, event, "{}", finished(event, "")),
        StateName::Cancelled
        | StateName::Cancelling
        | StateName::Scheduled
        | StateName::Late
        | StateName::AwaitingRetry
        | StateName::AwaitingConcurrencySlot
        | StateName::Pending
        | StateName::Retrying
        | StateName::Suspended => say!(debug, run, event, "{}({said})", event.transition.name),
    }
}

/// Says what a run found in the cache.
pub(crate) fn tell_look(run: &Run, look: &CacheLook) {
    if LevelFilter::current() >= LevelFilter::DEBUG {
        terminal::tells_of_many(run.is_in_active_flow());
        tracing::debug!(target: RUN_TARGET, { run.kind = run.kind(), run.name = &*run.name() }, "Cache {look}");
    }
}

/// Who lets a paused run on, and until when.
fn how_to_resume(run: &Run) -> String {
    let within = run.scope().pauses.next().and_then(|pause| (pause.until? - pause.since).to_std().ok());
    let within = within.map(|time| format!(" within {}", short(time))).unwrap_or_default();
    format!("`resume_paused`, or `runs resume` at the command line, lets flow run {} go on{within}", run.id())
}

fn finished(event: &Observed<'_>, why: &str) -> String {
    let mut said = String::with_capacity(48 + why.len());
    for part in ["Finished in state ", event.transition.name.as_str(), "(", why, ")"] {
        said.push_str(part);
    }
    if let Some(duration) = event.duration {
        // Writing to a String does not fail.
        let _ = write!(said, " in {}", short(duration));
    }
    said
}

/// The cause: in full if it began here, or if this is the last line of a whole flow; else the run where it began.
fn why(run: &Run, error: &TaskError) -> String {
    let first = error.first_cause();
    if first.run_id() == Some(run.id()) || first.run_name().is_empty() {
        error.0.reason()
    } else if run.is_flow() {
        first.to_string()
    } else {
        format!("because of '{}'", first.run_name())
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
