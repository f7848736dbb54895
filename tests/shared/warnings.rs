//! What this library warns of, for tests of several programs.

use std::sync::{Arc, Mutex};

use tracing::field::Field;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// The warnings of this thread, while the guard is there.
pub(crate) fn warnings() -> (Warnings, DefaultGuard) {
    let warnings = Warnings::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(warnings.clone()));
    (warnings, guard)
}

#[derive(Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// What this library said since the last time.
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == tracing::Level::WARN && metadata.target() == "orchestrator" {
            event.record(&mut |_: &Field, value: &dyn std::fmt::Debug| {
                self.0.lock().unwrap().push(format!("{value:?}"));
            });
        }
    }
}
