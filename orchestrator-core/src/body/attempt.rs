//! A body that is to be executed once, and what comes of it.

use std::any::Any;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Erased;
use crate::error::BodyError;

/// An async body, without its types.
pub type BodyFuture = Pin<Box<dyn Future<Output = Result<Erased, BodyFailure>> + Send>>;

/// One execution of a body that has not begun.
pub enum Attempt {
    /// An async body.
    Future(BodyFuture),
    /// A sync body, for the blocking pool.
    Blocking(Box<dyn FnOnce() -> Result<Erased, BodyFailure> + Send>),
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Attempt::Future",
            Self::Blocking(_) => "Attempt::Blocking",
        })
    }
}

impl Attempt {
    /// An attempt that polls `future`.
    pub fn from_future(future: impl Future<Output = Result<Erased, BodyFailure>> + Send + 'static) -> Self {
        Self::Future(Box::pin(future))
    }

    /// An attempt that polls a body which cannot fail, and which borrows nothing.
    pub fn from_plain<T>(body: impl Future<Output = T> + Send + 'static) -> Self
    where
        T: Send + Sync + 'static,
    {
        Self::Future(Box::pin(async move { plain(body.await) }))
    }

    /// An attempt that polls a body which returns a `Result`, and which borrows nothing.
    pub fn from_fallible<T, E>(
        body: impl Future<Output = Result<T, E>> + Send + 'static,
        retry_if: Option<fn(&E) -> bool>,
    ) -> Self
    where
        T: Send + Sync + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        Self::Future(Box::pin(async move { fallible(body.await, retry_if) }))
    }

    /// An attempt that calls `function` on the blocking pool.
    pub fn from_fn(function: impl FnOnce() -> Result<Erased, BodyFailure> + Send + 'static) -> Self {
        Self::Blocking(Box::new(function))
    }
}

/// A body's error, with what `retry_if` said of it.
pub struct BodyFailure {
    pub(crate) error: BodyError,
    pub(crate) retryable: bool,
}

impl std::fmt::Debug for BodyFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyFailure").field("error", &self.error.as_dyn()).finish_non_exhaustive()
    }
}

/// The outcome of a body that cannot fail.
///
/// # Errors
///
/// Never; the signature is that of [`fallible`].
#[inline(never)]
pub fn plain<T: Send + Sync + 'static>(value: T) -> Result<Erased, BodyFailure> {
    Ok(Arc::new(value))
}

/// The outcome of a body that returns a `Result`.
///
/// # Errors
///
/// If the body failed.
// Compiled once for the types, and not once for each function.
#[inline(never)]
pub fn fallible<T, E>(result: Result<T, E>, retry_if: Option<fn(&E) -> bool>) -> Result<Erased, BodyFailure>
where
    T: Send + Sync + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    match result {
        Ok(value) => Ok(Arc::new(value)),
        Err(error) => {
            let retryable = retry_if.is_none_or(|condition| ask(condition, &error));
            Err(BodyFailure { error: BodyError::new(error), retryable })
        }
    }
}

/// What `retry_if` says of an error that a fake gave; one of another type is retried.
pub fn retries<E: 'static>(error: &dyn Any, condition: fn(&E) -> bool) -> bool {
    error.downcast_ref().is_none_or(|error| ask(condition, error))
}

/// A condition that panics says no.
fn ask<E>(condition: fn(&E) -> bool, error: &E) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| condition(error))).unwrap_or_else(|_| {
        tracing::error!(target: "orchestrator", "the retry condition panicked; the task is not retried");
        false
    })
}
