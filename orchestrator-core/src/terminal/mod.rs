//! What a person sees when the program has set no `tracing` subscriber: log lines, a progress line, a summary.
//!
//! Everything goes to standard error, and nothing here can fail a run: what cannot be written is dropped. A program
//! that sets a subscriber of its own before its orchestrator is made gets none of this; it adds [`capture_layer`] to keep the
//! log lines of its runs in the history.

mod capture;
mod duration;
mod filter;
mod format;
mod paint;
mod progress;
mod screen;
mod summary;
#[cfg(test)]
mod testing;

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

pub use self::capture::capture_layer;
pub use self::duration::{Short, short};
use self::filter::{Filters, Reported};
use self::format::PrintLayer;
use self::paint::Paint;
pub use self::paint::one_line;
use self::progress::Progress;
use self::screen::Screen;
use self::summary::Summary;
use crate::observe::Observer;

/// The target of the engine's own events about runs.
pub(crate) const RUN_TARGET: &str = "orchestrator::run";

thread_local! {
    static TELLS_OF_MANY: Cell<bool> = const { Cell::new(false) };
}

/// Says before an event of the engine's about a run whether that is one of the many of a flow run, which ends after it.
pub(crate) fn tells_of_many(is_so: bool) {
    TELLS_OF_MANY.set(is_so);
}

/// Writes the lines that are kept back: a flow run ends, and with it perhaps the program.
pub(crate) fn flush() {
    if let Some(Some(terminal)) = INSTALLED.get() {
        terminal.screen.flush();
    }
}

/// The installed terminal output.
#[derive(Clone)]
pub(crate) struct TerminalHandle {
    screen: Arc<Screen>,
    observers: Vec<Arc<dyn Observer>>,
}

impl TerminalHandle {
    /// The observers that draw the progress line and print the summaries, where those are wanted.
    pub(crate) fn observers(&self) -> Vec<Arc<dyn Observer>> {
        self.observers.clone()
    }
}

impl fmt::Debug for TerminalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalHandle").field("observers", &self.observers.len()).finish()
    }
}

static INSTALLED: OnceLock<Option<TerminalHandle>> = OnceLock::new();

/// Makes the terminal output the process's `tracing` subscriber, unless the program has set one.
///
/// The first call decides, from the environment, else by `default`; later ones return the same. `None`: a subscriber was set already, or
/// the level is `off`, in which case log lines are still captured.
pub(crate) fn install(default: &str) -> Option<TerminalHandle> {
    INSTALLED.get_or_init(|| build(&Filters::from_env(default))).clone()
}

fn build(filters: &Filters) -> Option<TerminalHandle> {
    // Also true for a subscriber that the program set for one thread or scope: it has made its own arrangements.
    if tracing::dispatcher::has_been_set() {
        return None;
    }
    let screen = Arc::new(Screen::stderr());
    for complaint in filters.complaints() {
        screen.print(&format!("orchestrator: {complaint}\n"));
    }
    let paint = Paint::for_stderr();
    let shown = filters.shown();
    let reported = filters.reported();
    let silent = shown.max_level_hint() == Some(LevelFilter::OFF);
    let print = (!silent).then(|| PrintLayer::new(Arc::clone(&screen), paint).with_filter(shown));
    let subscriber = tracing_subscriber::registry().with(print).with(capture::filtered_by(filters.captured()));
    tracing::subscriber::set_global_default(subscriber).ok()?;
    if silent {
        return None;
    }
    let mut observers: Vec<Arc<dyn Observer>> = Vec::new();
    if progress::is_welcome() {
        observers.push(Arc::new(Progress::new(Arc::clone(&screen))));
    }
    if reported == Reported::Yes {
        observers.push(Arc::new(Summary::new(Arc::clone(&screen), paint)));
    }
    Some(TerminalHandle { screen, observers })
}
