//! States of runs: nine types, and the names that refine them.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::clock::Timestamp;

/// What a state means to the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StateType {
    /// To be started at a later time, or when a slot is free.
    Scheduled,
    /// Submitted; its inputs may not be there yet.
    Pending,
    /// Its body is being executed.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with the user's own error.
    Failed,
    /// Ended because the process, machine or runtime went away.
    Crashed,
    /// Ended on request, or never started because an upstream did not complete.
    Cancelled,
    /// Asked to end; not ended yet.
    Cancelling,
    /// Waiting for someone to let it go on.
    Paused,
}

impl StateType {
    /// Whether a run in such a state has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Crashed | Self::Cancelled => true,
            Self::Scheduled | Self::Pending | Self::Running | Self::Cancelling | Self::Paused => false,
        }
    }

    /// The type's name, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Crashed => "Crashed",
            Self::Cancelled => "Cancelled",
            Self::Cancelling => "Cancelling",
            Self::Paused => "Paused",
        }
    }
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which states are meant: all of a type, or those of one name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateFilter {
    /// Every state of that type.
    Type(StateType),
    /// States of that name alone.
    Name(StateName),
}

impl StateFilter {
    /// Whether a run in such a state has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Type(kind) => kind.is_terminal(),
            Self::Name(name) => name.kind().is_terminal(),
        }
    }

    /// Whether a state of that name is meant.
    #[must_use]
    pub fn takes(self, name: StateName) -> bool {
        match self {
            Self::Type(kind) => name.kind() == kind,
            Self::Name(wanted) => name == wanted,
        }
    }
}

impl From<StateType> for StateFilter {
    fn from(kind: StateType) -> Self {
        Self::Type(kind)
    }
}

impl From<StateName> for StateFilter {
    fn from(name: StateName) -> Self {
        Self::Name(name)
    }
}

/// The name of a state; each name belongs to one [`StateType`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum StateName {
    /// Scheduled.
    Scheduled,
    /// Scheduled, and overdue.
    Late,
    /// Scheduled: the next attempt starts after a delay.
    AwaitingRetry,
    /// Scheduled: a limit has no free slot.
    AwaitingConcurrencySlot,
    /// Pending.
    Pending,
    /// Running, first attempt.
    Running,
    /// Running, a later attempt.
    Retrying,
    /// Completed.
    Completed,
    /// Completed with a result from the cache.
    Cached,
    /// Completed, and undone by its transaction afterwards.
    RolledBack,
    /// Failed.
    Failed,
    /// Failed: the last attempt overran its timeout.
    TimedOut,
    /// Crashed.
    Crashed,
    /// Cancelled.
    Cancelled,
    /// Cancelled before it began: an upstream run did not complete.
    NotReady,
    /// Cancelling.
    Cancelling,
    /// Paused.
    Paused,
    /// Paused, with no process behind it.
    Suspended,
}

impl StateName {
    /// Every name, in the order of declaration.
    pub const ALL: [Self; 18] = [
        Self::Scheduled,
        Self::Late,
        Self::AwaitingRetry,
        Self::AwaitingConcurrencySlot,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Completed,
        Self::Cached,
        Self::RolledBack,
        Self::Failed,
        Self::TimedOut,
        Self::Crashed,
        Self::Cancelled,
        Self::NotReady,
        Self::Cancelling,
        Self::Paused,
        Self::Suspended,
    ];

    /// The type that the name refines.
    #[must_use]
    pub const fn kind(self) -> StateType {
        match self {
            Self::Scheduled | Self::Late | Self::AwaitingRetry | Self::AwaitingConcurrencySlot => StateType::Scheduled,
            Self::Pending => StateType::Pending,
            Self::Running | Self::Retrying => StateType::Running,
            Self::Completed | Self::Cached | Self::RolledBack => StateType::Completed,
            Self::Failed | Self::TimedOut => StateType::Failed,
            Self::Crashed => StateType::Crashed,
            Self::Cancelled | Self::NotReady => StateType::Cancelled,
            Self::Cancelling => StateType::Cancelling,
            Self::Paused | Self::Suspended => StateType::Paused,
        }
    }

    /// The name as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Late => "Late",
            Self::AwaitingRetry => "AwaitingRetry",
            Self::AwaitingConcurrencySlot => "AwaitingConcurrencySlot",
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Retrying => "Retrying",
            Self::Completed => "Completed",
            Self::Cached => "Cached",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
            Self::TimedOut => "TimedOut",
            Self::Crashed => "Crashed",
            Self::Cancelled => "Cancelled",
            Self::NotReady => "NotReady",
            Self::Cancelling => "Cancelling",
            Self::Paused => "Paused",
            Self::Suspended => "Suspended",
        }
    }

    /// The name that was stored as `text`, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of a run's history as the engine writes it: small, and cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state that was entered.
    pub name: StateName,
    /// When, strictly later than the run's previous transition.
    pub at: Timestamp,
    /// Why, where there is something to say.
    pub message: Option<Arc<str>>,
    /// Of AwaitingRetry: when the next attempt begins.
    pub scheduled: Option<Timestamp>,
}

impl Transition {
    /// A state with nothing to say.
    #[must_use]
    pub const fn new(name: StateName, at: Timestamp) -> Self {
        Self { name, at, message: None, scheduled: None }
    }

    /// Whether its name and its time are all there is to it.
    pub(crate) const fn is_plain(&self) -> bool {
        self.message.is_none() && self.scheduled.is_none()
    }
}

/// A state of a run, as programs read it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct State {
    /// What the state means to the engine.
    pub kind: StateType,
    /// The name that refines the type: `Cached` is a kind of `Completed`.
    pub name: String,
    /// Why the run is in this state, where there is something to say.
    pub message: Option<String>,
    /// When the state was entered; strictly increasing within a run.
    pub timestamp: DateTime<Utc>,
    /// Of AwaitingRetry: when the next attempt begins, unless it has to wait for something else then.
    pub scheduled_time: Option<DateTime<Utc>>,
}

impl State {
    /// Whether the run has ended.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.kind.is_terminal()
    }

    /// Whether the run ended with a result.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.kind == StateType::Completed
    }
}

impl From<&Transition> for State {
    fn from(transition: &Transition) -> Self {
        Self {
            kind: transition.name.kind(),
            name: transition.name.as_str().to_owned(),
            message: transition.message.as_deref().map(str::to_owned),
            timestamp: transition.at.to_datetime(),
            scheduled_time: transition.scheduled.map(Timestamp::to_datetime),
        }
    }
}

impl fmt::Display for State {
    /// `Name(message)`, the form that log lines use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.message.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_and_stands_at_its_own_place() {
        for (index, name) in StateName::ALL.into_iter().enumerate() {
            assert_eq!(StateName::parse(name.as_str()), Some(name));
            assert_eq!(name as usize, index);
        }
        assert_eq!(StateName::parse("Unheard"), None);
    }
}
