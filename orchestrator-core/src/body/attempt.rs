//! A body that is to be executed once, and what comes of it.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Erased, IntoBodyError};
use crate::error::BodyError;

/// An async body, without its types.
pub enum BodyFuture {
    /// Of a function that returns a `Result`.
    Fallible(Pin<Box<dyn AnyBody<OfResult> + Send>>),
    /// Of a function that cannot fail.
    Plain(Pin<Box<dyn AnyBody<OfValue> + Send>>),
    /// What makes the outcome by itself.
    Made(Pin<Box<dyn Future<Output = Result<Erased, BodyFailure>> + Send>>),
}

impl std::fmt::Debug for BodyFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyFuture")
    }
}

impl Future for BodyFuture {
    type Output = Result<Erased, BodyFailure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Fallible(body) => body.as_mut().poll_erased(cx),
            Self::Plain(body) => body.as_mut().poll_erased(cx),
            Self::Made(body) => body.as_mut().poll(cx),
        }
    }
}

/// The body of a function that returns a `Result`.
#[derive(Debug)]
pub struct OfResult;

/// The body of a function that cannot fail.
#[derive(Debug)]
pub struct OfValue;

/// A body whose outcome loses its type. The future of the user's function is one itself, with nothing around it, so that a
/// body takes no more memory than that, and so that what is compiled for it stands among the code of the user's module: rustc
/// puts the method of a type where the type is. A future of ours around it would stand among those of all functions of the
/// program, which an incremental build compiles together as soon as one of them has changed.
pub trait AnyBody<Gives> {
    /// As [`Future::poll`].
    fn poll_erased(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Erased, BodyFailure>>;
}

impl<F, T, E> AnyBody<OfResult> for F
where
    F: Future<Output = Result<T, E>>,
    T: Send + Sync + 'static,
    E: IntoBodyError,
{
    fn poll_erased(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Erased, BodyFailure>> {
        match self.poll(cx) {
            Poll::Ready(result) => Poll::Ready(fallible(result, None)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> AnyBody<OfValue> for F
where
    F: Future<Output: Send + Sync + 'static>,
{
    fn poll_erased(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Erased, BodyFailure>> {
        match self.poll(cx) {
            Poll::Ready(value) => Poll::Ready(plain(value)),
            Poll::Pending => Poll::Pending,
        }
    }
}

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
        Self::Future(BodyFuture::Made(Box::pin(future)))
    }

    /// An attempt that polls a body which cannot fail.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled where it is called: see `AnyBody`")]
    pub fn from_plain<T>(body: impl Future<Output = T> + Send + 'static) -> Self
    where
        T: Send + Sync + 'static,
    {
        Self::Future(BodyFuture::Plain(Box::pin(body)))
    }

    /// An attempt that polls a body which returns a `Result`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled where it is called: see `AnyBody`")]
    pub fn from_fallible<T, E>(body: impl Future<Output = Result<T, E>> + Send + 'static) -> Self
    where
        T: Send + Sync + 'static,
        E: IntoBodyError,
    {
        Self::Future(BodyFuture::Fallible(Box::pin(body)))
    }

    /// The same, with a condition on which its errors are worth another attempt, in a future around both.
    pub fn from_retryable<T, E>(
        body: impl Future<Output = Result<T, E>> + Send + 'static,
        retry_if: fn(&E) -> bool,
    ) -> Self
    where
        T: Send + Sync + 'static,
        E: IntoBodyError,
    {
        Self::from_future(async move { fallible(body.await, Some(retry_if)) })
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
    E: IntoBodyError,
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
