//! The log lines of runs, on their way into the history.

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::filter::Filters;
use super::format::Fields;
use super::screen::Screen;

/// A layer that keeps the log lines of runs in the history, for programs with a `tracing` subscriber of their own.
///
/// Without such a subscriber there is nothing to do: the one that is installed then has this layer. What is kept is
/// set by `ORCHESTRATOR_LOG_CAPTURE`, which takes the directives of [`EnvFilter`]; the default is `info`. The layer
/// filters for itself: it neither sees less because of other layers' filters nor makes other layers see more.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(orchestrator_core::capture_layer());
/// # let _ = subscriber;
/// ```
pub fn capture_layer<S>() -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filters = Filters::from_env("info");
    if let Some(complaint) = filters.complaints().iter().find(|complaint| complaint.is_about_capture()) {
        Screen::stderr().print(&format!("orchestrator: {complaint}\n"));
    }
    filtered_by(filters.captured())
}

pub(super) fn filtered_by<S>(filter: EnvFilter) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    CaptureLayer { record: crate::context::record_log }.with_filter(filter)
}

#[derive(Debug)]
struct CaptureLayer {
    /// Takes level, target and message.
    record: fn(&'static str, &str, String),
}

impl<S: Subscriber> Layer<S> for CaptureLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        (self.record)(level_name(*metadata.level()), metadata.target(), fields.into_text());
    }
}

/// The level's name as stored and shown.
pub(super) const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn users_events_are_captured_at_info_and_above_and_the_engines_reports_are_not() {
        thread_local! {
            static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        }
        let layer = CaptureLayer {
            record: |level, target, message| {
                SEEN.with_borrow_mut(|seen| seen.push(format!("{level} {target} {message}")))
            },
        };
        let filtered = layer.with_filter(Filters::from_lookup("info", |_| None).captured());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filtered), || {
            tracing::info!(target: "orchestrator::run", "Created");
            tracing::warn!(target: "orchestrator::cache", "undecodable entry");
            tracing::info!(target: "my_crate", stars = 3, "fetched");
            tracing::debug!(target: "my_crate", "not kept");
        });
        assert_eq!(SEEN.take(), ["WARN orchestrator::cache undecodable entry", "INFO my_crate fetched stars=3"]);
    }
}
