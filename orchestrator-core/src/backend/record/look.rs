//! What a look into the cache found, and why.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::CacheKey;
use crate::id::TaskRunId;

/// What a task run found when it looked for a result that is there already.
///
/// ```
/// use orchestrator_core::{CacheReason, TaskRun};
///
/// fn was_too_late(run: &TaskRun) -> bool {
///     run.cache.as_ref().is_some_and(|look| matches!(look.reason, CacheReason::Expired { .. }))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheLook {
    /// What it looked for, which is displayed in hexadecimal digits; `None` where no key could be made.
    pub key: Option<CacheKey>,
    /// Whether it took a result instead of running.
    pub hit: bool,
    /// Why it did, or did not.
    pub reason: CacheReason,
}

impl CacheLook {
    pub(crate) const fn new(key: Option<CacheKey>, reason: CacheReason) -> Self {
        Self { key, hit: reason.is_hit(), reason }
    }
}

/// Why a task run took a result that was there, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheReason {
    /// A hit: an earlier run left the result in the cache.
    Found {
        /// The run that computed it.
        run: TaskRunId,
        /// When that run completed.
        created: DateTime<Utc>,
        /// When the result expires; `None`: never.
        expires: Option<DateTime<Utc>>,
    },
    /// A hit: another run computed the result while this one waited.
    Awaited {
        /// The run that computed it.
        run: TaskRunId,
        /// When that run completed.
        created: DateTime<Utc>,
        /// When the result expires; `None`: never.
        expires: Option<DateTime<Utc>>,
    },
    /// A hit: the result is staged in the transaction around the run.
    Staged {
        /// The run that computed it.
        run: TaskRunId,
    },
    /// A hit: an earlier attempt of the flow run called the same, and the result was kept. The key identifies the call.
    Persisted {
        /// The run that computed it.
        run: TaskRunId,
    },
    /// A miss: nothing is in the cache under this key.
    Absent,
    /// A miss: what is in the cache has expired.
    Expired {
        /// When it expired.
        at: DateTime<Utc>,
    },
    /// A miss: the run was told to refresh the cache.
    Refreshed,
    /// Not cached: the task's `cache_key` function said so.
    Declined,
    /// Not cached: no key could be made.
    Unkeyed {
        /// The argument that has no canonical form, if it was an argument.
        argument: Option<String>,
        /// What was wrong.
        why: String,
    },
    /// A miss: the result in the cache is of another type.
    OtherType {
        /// The type, where it is known.
        found: Option<String>,
    },
    /// A miss: the result in the cache is stored in a form that this version does not read.
    OtherFormat {
        /// The form.
        found: String,
    },
    /// A miss: the result in the cache could not be read.
    Unreadable {
        /// What was wrong.
        why: String,
    },
}

impl CacheReason {
    /// The reason's name, which stays the same: `Found`, `Absent`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Found { .. } => "Found",
            Self::Awaited { .. } => "Awaited",
            Self::Staged { .. } => "Staged",
            Self::Persisted { .. } => "Persisted",
            Self::Absent => "Absent",
            Self::Expired { .. } => "Expired",
            Self::Refreshed => "Refreshed",
            Self::Declined => "Declined",
            Self::Unkeyed { .. } => "Unkeyed",
            Self::OtherType { .. } => "OtherType",
            Self::OtherFormat { .. } => "OtherFormat",
            Self::Unreadable { .. } => "Unreadable",
        }
    }

    /// Whether a result was taken.
    #[must_use]
    pub const fn is_hit(&self) -> bool {
        match self {
            Self::Found { .. } | Self::Awaited { .. } | Self::Staged { .. } | Self::Persisted { .. } => true,
            Self::Absent
            | Self::Expired { .. }
            | Self::Refreshed
            | Self::Declined
            | Self::Unkeyed { .. }
            | Self::OtherType { .. }
            | Self::OtherFormat { .. }
            | Self::Unreadable { .. } => false,
        }
    }
}

/// A sentence without a full stop: `hit: computed by run 0198… at 2026-01-31T12:00:00Z, expires at 2026-02-01T12:00:00Z`.
impl fmt::Display for CacheLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Display for CacheReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { run, created, expires } => {
                write!(f, "hit: computed by run {run} at {}, {}", time(created), expiry(expires.as_ref()))
            }
            Self::Awaited { run, created, expires } => {
                let expiry = expiry(expires.as_ref());
                write!(f, "hit: run {run} computed it meanwhile, until {}, {expiry}", time(created))
            }
            Self::Staged { run } => write!(f, "hit: computed by run {run} in the same transaction"),
            Self::Persisted { run } => write!(f, "hit: its result was persisted by run {run}"),
            Self::Absent => f.write_str("miss: nothing is cached under this key"),
            Self::Expired { at } => write!(f, "miss: what is cached expired at {}", time(at)),
            Self::Refreshed => f.write_str("miss: the cache is refreshed"),
            Self::Declined => f.write_str("not cached: its `cache_key` function gave no key"),
            Self::Unkeyed { argument: Some(argument), why } => {
                write!(f, "not cached: argument `{argument}` cannot be encoded: {why}")
            }
            Self::Unkeyed { argument: None, why } => write!(f, "not cached: {why}"),
            Self::OtherType { found: Some(found) } => write!(f, "miss: what is cached is a {found}"),
            Self::OtherType { found: None } => f.write_str("miss: what is cached is of another type"),
            Self::OtherFormat { found } => {
                write!(f, "miss: what is cached is stored as {found}, which this version does not read")
            }
            Self::Unreadable { why } => write!(f, "miss: what is cached could not be read: {why}"),
        }
    }
}

fn time(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn expiry(expires: Option<&DateTime<Utc>>) -> String {
    expires.map_or_else(|| "never expires".to_owned(), |at| format!("expires at {}", time(at)))
}
