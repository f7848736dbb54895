//! Times and durations as people read them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use orchestrator_core::{FlowRun, TaskRun};

/// The time here, to the second.
pub(crate) fn local(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time here, to the millisecond.
pub(crate) fn exact(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// When a run was submitted, first started and ended.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) created: DateTime<Utc>,
    pub(crate) started: Option<DateTime<Utc>>,
    pub(crate) ended: Option<DateTime<Utc>>,
    /// Of a run that crashed with its process: the last that is known of it. It ended later, and before that was found out.
    pub(crate) last_seen: Option<DateTime<Utc>>,
}

impl From<&FlowRun> for Times {
    fn from(run: &FlowRun) -> Self {
        Self { created: run.created, started: run.start_time, ended: run.end_time, last_seen: run.last_seen }
    }
}

impl From<&TaskRun> for Times {
    fn from(run: &TaskRun) -> Self {
        Self { created: run.created, started: run.start_time, ended: run.end_time, last_seen: run.last_seen }
    }
}

impl Times {
    /// How long the run took, or has taken so far: nothing if it has not begun, or if it is not known.
    pub(crate) fn taken(&self) -> Option<Taken> {
        let (start, is_least) = (self.started?, self.last_seen.is_some());
        let end = self.last_seen.or(self.ended).unwrap_or_else(Utc::now);
        let taken = Taken { duration: between(start, end), is_least };
        (!is_least || end > start).then_some(taken)
    }

    /// The same for people, or a dash.
    pub(crate) fn taken_or_dash(&self) -> String {
        self.taken().map_or_else(|| "-".to_owned(), |taken| taken.to_string())
    }
}

/// How long a run took.
pub(crate) struct Taken {
    pub(crate) duration: Duration,
    /// Whether it took longer, which nobody knows.
    pub(crate) is_least: bool,
}

/// `1.84s`, or `>= 1.84s`.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_least { ">= " } else { "" }, short(self.duration))
    }
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
