//! Time as the engine sees it: one clock behind a trait, so that tests run on paused time.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// A moment on the wall clock, in microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment that many microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment `later` after this one; the far end of time if there is no such moment.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment as a date and time; what is before the year 0 or after 9999 is told as the first or last moment of
    /// these, as neither RFC 3339 nor a local time can tell more.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        const FIRST: i64 = -62_167_219_200_000_000;
        const LAST: i64 = 253_402_300_799_999_999;
        DateTime::from_timestamp_micros(self.0.clamp(FIRST, LAST)).expect("chrono knows the years from 0 to 9999")
    }
}

/// Where the engine reads the time.
///
/// Delays, expiries and timestamps of an orchestrator all come from one clock.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// About the present moment, at little cost: not later than [`now`](Self::now), and a few milliseconds earlier at most.
    ///
    /// It is for what is shown to people, as since when a slot is held.
    fn about_now(&self) -> Timestamp {
        self.now()
    }
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(since_the_epoch())
    }

    /// The time of the system's last tick.
    #[cfg(target_os = "linux")]
    fn about_now(&self) -> Timestamp {
        let rustix::time::Timespec { tv_sec, tv_nsec } =
            rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Timestamp(tv_sec.saturating_mul(1_000_000).saturating_add(tv_nsec / 1_000))
    }
}

/// In microseconds. The standard library's way, by a difference of two times, costs twice as much.
#[cfg(unix)]
fn since_the_epoch() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

#[cfg(not(unix))]
fn since_the_epoch() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The wall clock at creation, moved on by tokio's clock: it stands still while tokio's time is paused.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows the wall clock's time now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: SystemClock.now(), origin: tokio::time::Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_moment_can_be_told() {
        for (micros, told) in [
            (i64::MIN, "0000-01-01T00:00:00+00:00"),
            (0, "1970-01-01T00:00:00+00:00"),
            (i64::MAX, "9999-12-31T23:59:59.999999+00:00"),
        ] {
            let time = Timestamp::from_micros(micros).to_datetime();
            assert_eq!(time.to_rfc3339(), told);
            for hours in [-14, 14] {
                let zone = chrono::FixedOffset::east_opt(hours * 3600).expect("less than a day");
                assert!(!time.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string().is_empty());
            }
        }
    }

    #[test]
    fn about_now_is_a_little_earlier() {
        let before = SystemClock.now();
        let about = SystemClock.about_now();
        let after = SystemClock.now();
        assert!(about <= after);
        assert!(before.since(about) < Duration::from_millis(100));
    }
}
