//! Why a transaction was rolled back, and what went wrong meanwhile.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::Shared;
use crate::error::{BodyError, Cause, Error, ErrorKind, FailureKind, FlowError, TaskError, chain};

/// A transaction that was rolled back, or whose commit or rollback went wrong.
///
/// [`Display`](fmt::Display) tells in one line why it was rolled back, and which hooks failed while it was;
/// [`source`](StdError::source) is the original error.
#[derive(Clone)]
pub struct TransactionError(Arc<Rollback>);

struct Rollback {
    title: String,
    why: Why,
    failures: Vec<RollbackFailure>,
}

pub(super) enum Why {
    /// The block gave an error.
    Block(BodyError),
    /// A run failed, and nobody looked at it.
    Unobserved(TaskError),
    /// A hook on commit failed.
    Commit(RollbackFailure),
    /// A result was not stored that has to be.
    Unstored(String),
    /// It was rolled back by hand, or by a transaction inside it.
    Doomed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(error) => f.write_str(&chain(error.as_dyn())),
            Self::Unobserved(error) => write!(f, "nobody awaited a run that did not complete: {error}"),
            Self::Commit(failure) => failure.fmt(f),
            Self::Unstored(why) | Self::Doomed(why) => f.write_str(why),
        }
    }
}

/// A hook that failed while a transaction ended.
#[derive(Clone)]
pub(super) struct RollbackFailure {
    pub(super) hook: &'static str,
    pub(super) run: Arc<str>,
    pub(super) error: Arc<BodyError>,
}

impl fmt::Display for RollbackFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hook '{}' of '{}' failed: {}", self.hook, self.run, chain(self.error.as_dyn()))
    }
}

impl TransactionError {
    pub(super) fn new(shared: &Shared, why: Why, failures: Vec<RollbackFailure>) -> Self {
        Self(Arc::new(Rollback { title: shared.title(), why, failures }))
    }

    /// The errors of hooks that failed while the transaction was rolled back, in the order in which they happened.
    pub fn rollback_errors(&self) -> impl Iterator<Item = &(dyn StdError + Send + Sync + 'static)> {
        self.0.failures.iter().map(|failure| failure.error.as_dyn())
    }

    /// The error that the transaction was rolled back for, if it is an `E` (or, in an `anyhow::Error`, wraps one).
    #[must_use]
    pub fn downcast_ref<E: StdError + Send + Sync + 'static>(&self) -> Option<&E> {
        match &self.0.why {
            Why::Block(error) => error.downcast_ref(),
            Why::Unobserved(error) => (error as &dyn StdError).downcast_ref().or_else(|| error.downcast_ref()),
            Why::Commit(failure) => failure.error.downcast_ref(),
            Why::Unstored(_) | Why::Doomed(_) => None,
        }
    }

    /// The failed run that the transaction was rolled back for.
    fn task_error(&self) -> Option<TaskError> {
        match &self.0.why {
            Why::Unobserved(error) => Some(error.clone()),
            Why::Block(error) => {
                let error = error.as_dyn();
                let task = error.downcast_ref::<TaskError>().cloned();
                task.or_else(|| error.downcast_ref::<FlowError>().map(|error| error.clone().into()))
            }
            Why::Commit(_) | Why::Unstored(_) | Why::Doomed(_) => None,
        }
    }

    /// Whose doing it is.
    pub(crate) fn kind(&self) -> FailureKind {
        match &self.0.why {
            Why::Unstored(_) => FailureKind::Crashed,
            Why::Block(_) | Why::Unobserved(_) | Why::Commit(_) | Why::Doomed(_) => FailureKind::Failed,
        }
    }

    /// What went wrong with the rollback, as the end of a sentence.
    pub(crate) fn failures(&self) -> String {
        let failures: Vec<_> = self.0.failures.iter().map(ToString::to_string).collect();
        failures.join("; ")
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rollback { title, why, failures } = &*self.0;
        match why {
            Why::Block(_) => write!(f, "{why}")?,
            Why::Commit(_) | Why::Unstored(_) => write!(f, "{title} was rolled back while it was committed: {why}")?,
            Why::Unobserved(_) | Why::Doomed(_) => write!(f, "{title} was rolled back: {why}")?,
        }
        if !failures.is_empty() {
            write!(f, "; its rollback is incomplete: {}", self.failures())?;
        }
        Ok(())
    }
}

impl fmt::Debug for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for TransactionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.why {
            Why::Block(error) => Some(error.as_dyn()),
            Why::Unobserved(error) => Some(error),
            Why::Commit(failure) => Some(failure.error.as_dyn()),
            Why::Unstored(_) | Why::Doomed(_) => None,
        }
    }
}

impl From<TransactionError> for TaskError {
    /// The failed run's own error, if one is behind it, which also tells what went wrong with the rollback.
    fn from(error: TransactionError) -> Self {
        match error.task_error() {
            Some(task) if error.0.failures.is_empty() => task,
            Some(task) => {
                let (kind, run) = (task.0.kind, task.0.run.clone());
                Self::new(kind, run, Cause::AndRollback(task, error))
            }
            None => Self::new(error.kind(), None, Cause::Body(BodyError::new(error))),
        }
    }
}

impl From<TransactionError> for FlowError {
    fn from(error: TransactionError) -> Self {
        TaskError::from(error).into()
    }
}

impl From<TransactionError> for Error {
    fn from(error: TransactionError) -> Self {
        Self::new(ErrorKind::Task(error.into()))
    }
}

impl From<TransactionError> for String {
    fn from(error: TransactionError) -> Self {
        error.to_string()
    }
}
