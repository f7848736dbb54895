//! Names of runs: UUIDs of version 7 in newtypes, so that a flow run is never taken for a task run.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::clock::Timestamp;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// A fresh version 7 UUID: milliseconds, then the microseconds within them in the twelve bits that RFC 9562 leaves to
/// the implementation (its method 3), then a counter, so that ids made by one thread sort by age even where the clock
/// stands still, and 42 random bits.
fn fresh(now: Timestamp) -> Uuid {
    let count = COUNT.get();
    COUNT.set(count.wrapping_add(1));
    let low = (0b10 << 62) | ((count & 0xf_ffff) << 42) | (fastrand::u64(..) >> 22);
    Uuid::from_u64_pair(time(now), low)
}

/// The first half of an id that is made then.
fn time(now: Timestamp) -> u64 {
    let micros = now.as_micros().max(0).unsigned_abs();
    let millis = micros / 1000;
    let fraction = (micros % 1000) * 4096 / 1000;
    (millis << 16) | 0x7000 | fraction
}

macro_rules! run_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; ids made later in the same process sort after it, to the microsecond.
            #[must_use]
            pub fn new(now: Timestamp) -> Self {
                Self(fresh(now))
            }

            /// The id of a run that was stored under this UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID behind the id.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseIdError { what: $what, text: text.to_owned() })
            }
        }
    };
}

run_id!(
    /// The id of a task run.
    TaskRunId, "task run"
);
run_id!(
    /// The id of a flow run.
    FlowRunId, "flow run"
);

impl TaskRunId {
    /// No id that is made then or later sorts before it.
    pub(crate) fn earliest(moment: Timestamp) -> Self {
        Self(Uuid::from_u64_pair(time(moment), 0))
    }
}

/// The id of a run of either kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunId {
    /// A task run.
    Task(TaskRunId),
    /// A flow run.
    Flow(FlowRunId),
}

/// The moment that [`fresh`] was given: to the microsecond, since twelve bits tell more of them apart than there are.
fn moment(id: Uuid) -> Timestamp {
    let (high, _) = id.as_u64_pair();
    let (millis, fraction) = (high >> 16, high & 0xfff);
    let micros = millis * 1000 + (fraction * 1000).div_ceil(4096);
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl RunId {
    /// When the run was created.
    pub(crate) fn created(self) -> Timestamp {
        moment(self.as_uuid())
    }

    /// The UUID behind the id.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        match self {
            Self::Task(id) => id.as_uuid(),
            Self::Flow(id) => id.as_uuid(),
        }
    }

    /// The id, if it is a flow run's.
    #[must_use]
    pub const fn as_flow(self) -> Option<FlowRunId> {
        match self {
            Self::Flow(id) => Some(id),
            Self::Task(_) => None,
        }
    }

    /// The id, if it is a task run's.
    #[must_use]
    pub const fn as_task(self) -> Option<TaskRunId> {
        match self {
            Self::Task(id) => Some(id),
            Self::Flow(_) => None,
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_uuid().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => id.fmt(f),
            Self::Flow(id) => id.fmt(f),
        }
    }
}

impl From<TaskRunId> for RunId {
    fn from(id: TaskRunId) -> Self {
        Self::Task(id)
    }
}

impl From<FlowRunId> for RunId {
    fn from(id: FlowRunId) -> Self {
        Self::Flow(id)
    }
}

/// A text that is not a run's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not the id of a {}: expected a UUID", self.text, self.what)
    }
}

impl std::error::Error for ParseIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_sort_by_time() {
        let early = TaskRunId::new(Timestamp::from_micros(1_700_000_000_000_000));
        let late = TaskRunId::new(Timestamp::from_micros(1_700_000_000_000_500));
        assert_eq!(early.as_uuid().get_version_num(), 7);
        assert_eq!(early.as_uuid().get_variant(), uuid::Variant::RFC4122);
        assert!(early < late);
        let still: Vec<_> = (0..1000).map(|_| TaskRunId::new(Timestamp::from_micros(1))).collect();
        assert!(still.is_sorted());
    }

    #[test]
    fn an_id_holds_the_moment_when_it_was_made() {
        for micros in (0..1000).chain(1_700_000_000_123_000..1_700_000_000_124_000) {
            let moment = Timestamp::from_micros(micros);
            assert_eq!(RunId::from(TaskRunId::new(moment)).created(), moment);
        }
    }

    #[test]
    fn ids_round_trip_through_text_and_reject_nonsense() {
        let id = FlowRunId::new(Timestamp::from_micros(1));
        assert_eq!(id.to_string().parse::<FlowRunId>().expect("own text"), id);
        let error = "nonsense".parse::<FlowRunId>().expect_err("not a UUID");
        assert_eq!(error.to_string(), "'nonsense' is not the id of a flow run: expected a UUID");
    }
}
