//! Times and durations as people read them.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};

/// The time here, to the second.
pub(crate) fn local(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time here, to the millisecond.
pub(crate) fn exact(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How long something took, or has taken so far; nothing if it has not begun.
pub(crate) fn taken(start: Option<DateTime<Utc>>, end: Option<DateTime<Utc>>) -> Option<Duration> {
    start.map(|start| between(start, end.unwrap_or_else(Utc::now)))
}

/// From one moment to a later one.
pub(crate) fn between(start: DateTime<Utc>, end: DateTime<Utc>) -> Duration {
    (end - start).to_std().unwrap_or_default()
}

/// The duration in seconds, to the microsecond, which is what is stored.
#[expect(clippy::cast_precision_loss, reason = "the microseconds of two centuries are exact")]
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The duration as log lines have it: `350ms`, `1.84s`, `2m 05s`.
pub(crate) fn short(duration: Duration) -> String {
    orchestrator_core::text::short(duration).to_string()
}

/// The same, or a dash.
pub(crate) fn short_or_dash(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), short)
}
