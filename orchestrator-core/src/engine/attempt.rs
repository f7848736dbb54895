//! One execution of the user's body, and of everything it started.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::panics;
use crate::body::{Attempt, BodyFailure, BodyFuture, Erased};
use crate::context::Place;
use crate::error::{Cause, FailureKind, TaskError};
use crate::run::Run;

/// How an attempt ended.
pub(super) enum Ended {
    Completed(Erased),
    Failed { error: TaskError, retryable: bool },
    TimedOut(Duration),
    Cancelled,
}

impl Ended {
    /// The arguments could not be made: code of the user panicked.
    pub(super) fn panicked(run: &Run, said: String) -> Self {
        Self::Failed { error: run.error(FailureKind::Panicked, Cause::Said(said)), retryable: true }
    }
}

/// The outcome of a future, or `None` as soon as the run is cancelled.
pub(crate) async fn unless_cancelled<F: Future>(run: &Run, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // A cancellation wakes the driver, which polls this again.
        if run.is_cancelled() { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
    })
    .await
}

/// Ready when every run that this one started has ended.
pub(super) async fn children_ended(run: &Run) {
    poll_fn(|_| if run.children_ended() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Runs the body once; ends when all that it started has ended.
pub(super) async fn execute(run: &Arc<Run>, attempt: Attempt, number: u32) -> Ended {
    let outcome = match run.options().timeout() {
        None => body_and_children(run, attempt, number).await,
        // Boxed: a timer is larger than all the rest of a run without one.
        Some(limit) => match Box::pin(tokio::time::timeout(limit, body_and_children(run, attempt, number))).await {
            Ok(outcome) => outcome,
            Err(_) => {
                run.cancel_children();
                children_ended(run).await;
                let _ = run.unobserved_failure();
                return Ended::TimedOut(limit);
            }
        },
    };
    match outcome {
        Some(outcome) => judge(run, outcome),
        None => Ended::Cancelled,
    }
}

/// A body that ended lets what it started end as well; `None` if the run is cancelled.
async fn body_and_children(run: &Arc<Run>, attempt: Attempt, number: u32) -> Option<Body> {
    let outcome = match attempt {
        Attempt::Future(future) => poll_body(run, future, number).await,
        Attempt::Blocking(function) => Box::pin(call_body(run, function, number)).await,
    };
    match outcome {
        Some(outcome) => unless_cancelled(run, children_ended(run)).await.map(|()| outcome),
        None => None,
    }
}

/// What a body's outcome means, in the light of its children's.
fn judge(run: &Run, outcome: Body) -> Ended {
    match (outcome, run.unobserved_failure()) {
        (Body::Returned(Ok(value)), None) => Ended::Completed(value),
        (Body::Returned(Ok(_)), Some(failure)) => {
            Ended::Failed { error: run.error(FailureKind::Failed, Cause::Unobserved(failure)), retryable: true }
        }
        (Body::Returned(Err(failure)), _) => Ended::Failed {
            error: run.error(FailureKind::Failed, Cause::Body(failure.error)),
            retryable: failure.retryable,
        },
        (Body::Panicked(said), _) => {
            Ended::Failed { error: run.error(FailureKind::Panicked, Cause::Said(said)), retryable: true }
        }
        (Body::Lost, _) => {
            let said = "the blocking pool was shut down before the body was called".to_owned();
            Ended::Failed { error: run.error(FailureKind::Crashed, Cause::Said(said)), retryable: false }
        }
    }
}

enum Body {
    Returned(Result<Erased, BodyFailure>),
    Panicked(String),
    /// The runtime dropped it.
    Lost,
}

/// A body that is polled, and dropped, in the context of its run.
struct Polled {
    place: Place,
    future: Option<BodyFuture>,
}

impl Drop for Polled {
    fn drop(&mut self) {
        let future = self.future.take();
        self.place.within(|| {
            if let Err(said) = panics::catch(|| drop(future)) {
                tracing::error!(target: "orchestrator", "a destructor in the body {said}");
            }
        });
    }
}

async fn poll_body(run: &Arc<Run>, future: BodyFuture, number: u32) -> Option<Body> {
    let mut body = Polled { place: Place::of(Arc::clone(run), number), future: Some(future) };
    poll_fn(|cx| {
        if run.is_cancelled() {
            return Poll::Ready(None);
        }
        let Polled { place, future } = &mut body;
        let future = future.as_mut().expect("the body is taken out only when dropped");
        match place.within(|| panics::catch(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Some(Body::Returned(outcome))),
            Err(said) => Poll::Ready(Some(Body::Panicked(said))),
        }
    })
    .await
}

/// A thread of the pool; a body that has not begun when nobody waits for it any more is not begun.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Calls a sync body on the blocking pool. A body that is cancelled is given some time to notice.
async fn call_body(
    run: &Arc<Run>,
    function: Box<dyn FnOnce() -> Result<Erased, BodyFailure> + Send>,
    number: u32,
) -> Option<Body> {
    let mut place = Place::of(Arc::clone(run), number);
    let mut thread = AbortOnDrop(tokio::task::spawn_blocking(move || {
        place.within(|| panics::catch(function)).map_or_else(Body::Panicked, Body::Returned)
    }));
    if let Some(outcome) = unless_cancelled(run, &mut thread.0).await {
        return Some(outcome.unwrap_or(Body::Lost));
    }
    // Told at once: a body that does not look may take all of its grace.
    run.enter_cancelling();
    let grace = run.scope.orchestrator.defaults.cancel_grace;
    if tokio::time::timeout(grace, &mut thread.0).await.is_err() {
        tracing::warn!(
            target: "orchestrator",
            "{} '{}' did not stop within {grace:?} of its cancellation; its thread is abandoned",
            run.kind(),
            run.name(),
        );
    }
    None
}
