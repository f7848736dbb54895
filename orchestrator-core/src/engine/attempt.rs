//! One execution of the user's body, and of everything it started.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::abandoned::{Going, Watched};
use super::panics::{self, Contained};
use super::unyielding;
use crate::body::{Attempt, BodyFailure, BodyFuture, Erased};
use crate::context::Place;
use crate::error::{Cause, FailureKind, TaskError};
use crate::pause;
use crate::run::{Run, Stop, Waits};

/// What a body gives.
pub(super) type Returned = Result<Erased, BodyFailure>;

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

/// The outcome of a future, or `None` as soon as the run is no longer part of the one that called it.
pub(super) async fn while_attached<F: Future>(run: &Run, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Whoever detaches the run wakes the driver.
        if run.above().is_none() { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
    })
    .await
}

/// Ready when every run that this one started has ended.
pub(super) async fn children_ended(run: &Run) {
    if run.children_ended() {
        return;
    }
    let _noted = run.waits_for(Waits::Children);
    poll_fn(|_| if run.children_ended() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Ready when every run that this one started has ended, and no other is let in. Code that a body gave away may submit
/// runs until then.
pub(super) async fn closed(run: &Run) {
    loop {
        children_ended(run).await;
        if run.close() {
            return;
        }
    }
}

/// The outcome of a future, or `None` when it took longer than `limit`. A run that is cancelled has no limit but its grace.
async fn within<F: Future>(run: &Run, limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let began = Instant::now();
    // A body that is always ready takes all of the task's budget: the limit has none to keep to.
    let mut over = pin!(tokio::task::coop::unconstrained(tokio::time::sleep(limit)));
    poll_fn(|cx| {
        let before = began.elapsed();
        match future.as_mut().poll(cx) {
            Poll::Ready(outcome) => {
                if before < limit && !run.is_cancelled() {
                    unyielding::look_back(run, began.elapsed(), limit);
                }
                Poll::Ready(Some(outcome))
            }
            Poll::Pending if run.is_cancelled() => Poll::Pending,
            Poll::Pending => over.as_mut().poll(cx).map(|()| None),
        }
    })
    .await
}

/// Runs the body once; ends when all that it started has ended.
pub(super) async fn execute(run: &Arc<Run>, attempt: Attempt, number: u32, limit: Option<Duration>) -> Ended {
    let Some(limit) = limit else { return body_and_children(run, attempt, number).await };
    if let Some(ended) = within(run, limit, body_and_children(run, attempt, number)).await {
        return ended;
    }
    // The body is gone by now, and what its destructors left to do counts among the children.
    run.cancel_children(Stop::TimedOut);
    if !run.children_ended() {
        unyielding::look_after(run);
    }
    // A sync body may go on; what it submits has no place in the next attempt either.
    if unless_cancelled(run, closed(run)).await.is_none() {
        return Ended::Cancelled;
    }
    let _ = run.unobserved_failure();
    Ended::TimedOut(limit)
}

async fn body_and_children(run: &Arc<Run>, attempt: Attempt, number: u32) -> Ended {
    let outcome = match attempt {
        Attempt::Future(future) => poll_body(run, future, number).await,
        Attempt::Blocking(function) => call_body(run, function, number).await,
    };
    match outcome {
        Some(outcome) => settle(run, outcome).await,
        None => Ended::Cancelled,
    }
}

/// Whether all has ended that the body started, and nothing more begins: what might still fail fails before the body is
/// judged. A result that is there stands, even if a cancellation came while the body gave it: what it did is done.
pub(super) fn is_settled(run: &Run, outcome: &Body) -> bool {
    let stands = matches!(outcome, Body::Returned(Ok(_))) || !run.is_cancelled();
    stands && run.children_ended() && run.close()
}

/// Waits until that is so. A body that ended lets what it started end as well, unless the run is cancelled.
pub(super) async fn settle(run: &Run, outcome: Body) -> Ended {
    if !is_settled(run, &outcome) && unless_cancelled(run, closed(run)).await.is_none() {
        panics::let_go(outcome);
        return Ended::Cancelled;
    }
    judge(run, outcome)
}

/// What a body's outcome means, in the light of its children's.
pub(super) fn judge(run: &Run, outcome: Body) -> Ended {
    match (outcome, run.unobserved_failure()) {
        (Body::Returned(Ok(value)), None) => Ended::Completed(value),
        (Body::Returned(Ok(value)), Some(failure)) => {
            panics::let_go(value);
            Ended::Failed { error: run.error(FailureKind::Failed, Cause::Unobserved(failure)), retryable: true }
        }
        (Body::Returned(Err(failure)), _) => Ended::Failed {
            error: run.error(FailureKind::Failed, Cause::Body(failure.error)),
            retryable: failure.retryable,
        },
        (Body::Panicked(said), _) => {
            Ended::Failed { error: run.error(FailureKind::Panicked, Cause::Said(said)), retryable: true }
        }
        (Body::NoThread(error), _) => {
            let said = format!("there was no thread for its body: {error}");
            Ended::Failed { error: run.error(FailureKind::Failed, Cause::Said(said)), retryable: true }
        }
        (Body::Lost, _) => {
            let said = "the blocking pool was shut down before the body was called".to_owned();
            Ended::Failed { error: run.error(FailureKind::Crashed, Cause::Said(said)), retryable: false }
        }
    }
}

/// How a body ended.
pub(super) enum Body {
    Returned(Returned),
    Panicked(String),
    /// The system had no thread for it.
    NoThread(std::io::Error),
    /// The runtime dropped it.
    Lost,
}

async fn poll_body(run: &Arc<Run>, future: BodyFuture, number: u32) -> Option<Body> {
    let mut body = Contained::new(Place::of(Arc::clone(run), number), future);
    poll_fn(|cx| {
        if run.is_cancelled() {
            return Poll::Ready(None);
        }
        let outcome = std::task::ready!(Pin::new(&mut body).poll(cx));
        Poll::Ready(Some(outcome.map_or_else(Body::Panicked, Body::Returned)))
    })
    .await
}

type Function = Box<dyn FnOnce() -> Result<Erased, BodyFailure> + Send>;

/// A thread that calls a sync body; one of the pool that has not begun when nobody waits for it any more does not begin.
struct Thread {
    run: Arc<Run>,
    of: ThreadOf,
    body: Watched,
}

enum ThreadOf {
    Pool(tokio::task::JoinHandle<Body>),
    Body(oneshot::Receiver<Body>),
}

impl Thread {
    fn start(run: &Arc<Run>, function: Function, number: u32) -> std::io::Result<Self> {
        let mut place = Place::of(Arc::clone(run), number);
        let going = Going::new();
        let body = going.watch();
        let call = move || {
            going.begin();
            let outcome = place.within(|| panics::catch(function)).map_or_else(Body::Panicked, Body::Returned);
            // Whoever is told of the outcome may be its only owner.
            drop(place);
            drop(going);
            outcome
        };
        let run = Arc::clone(run);
        if !run.is_below_sync() {
            return Ok(Self { run, of: ThreadOf::Pool(tokio::task::spawn_blocking(call)), body });
        }
        // The pool may be full of bodies that wait for this one.
        let (sender, outcome) = oneshot::channel();
        let handle = Handle::current();
        std::thread::Builder::new().name("orchestrator-body".to_owned()).spawn(move || {
            let _runtime = handle.enter();
            let _ = sender.send(call());
        })?;
        Ok(Self { run, of: ThreadOf::Body(outcome), body })
    }
}

impl Future for Thread {
    type Output = Body;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Body> {
        match &mut self.of {
            ThreadOf::Pool(thread) => Pin::new(thread).poll(cx).map(|outcome| outcome.unwrap_or(Body::Lost)),
            ThreadOf::Body(outcome) => Pin::new(outcome).poll(cx).map(|outcome| outcome.unwrap_or(Body::Lost)),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let ThreadOf::Pool(thread) = &self.of {
            thread.abort();
        }
        self.body.give_up(|| self.run.name().to_string());
    }
}

/// Calls a sync body on a thread. A body that is cancelled is given some time to notice.
async fn call_body(run: &Arc<Run>, function: Function, number: u32) -> Option<Body> {
    if run.is_cancelled() {
        panics::let_go(function);
        return None;
    }
    let mut thread = match Thread::start(run, function, number) {
        Ok(thread) => thread,
        Err(error) => return Some(Body::NoThread(error)),
    };
    if let Some(outcome) = unless_cancelled(run, &mut thread).await {
        return Some(outcome);
    }
    // Told at once: a body that does not look may take all of its grace.
    run.enter_cancelling();
    pause::withdraw(run);
    let grace = run.scope().orchestrator.defaults.cancel_grace;
    match tokio::time::timeout(grace, &mut thread).await {
        Ok(late) => panics::let_go(late),
        Err(_) => {
            run.abandon();
            panics::shield(|| {
                tracing::warn!(
                    target: "orchestrator",
                    "{} '{}' did not stop within {} of its cancellation; its thread is abandoned",
                    run.kind(),
                    run.name(),
                    crate::terminal::short(grace),
                );
            });
        }
    }
    None
}
