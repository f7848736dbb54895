//! Slots for a part of a body: what [`concurrency`] and [`rate_limit`] give, and how long they wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Acquire, Limits, SlotGuard, Waiting, Wants};
use crate::context;
use crate::error::{Error, ErrorKind};
use crate::explain::{LimitWait, joined};
use crate::options::IntoNames;
use crate::orchestrator::Orchestrator;
use crate::run::Run;
use crate::terminal::short;

/// Takes slots for a part of a body, or anywhere under an orchestrator: waits until `slots` slots of the limit are
/// free, or of each of several limits, and holds them until the guard is dropped.
///
/// It belongs to the orchestrator and the run in which it was called. Its place in the queue is taken when it is polled
/// first.
///
/// ```
/// use std::time::Duration;
///
/// use orchestrator_core::{Orchestrator, concurrency};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orchestrator_core::Error> {
/// let orchestrator = Orchestrator::in_memory();
/// orchestrator.limit("db", 1).await?;
/// orchestrator
///     .scope(async {
///         let held = concurrency("db", 1).await?;
///         let late = concurrency("db", 1).timeout(Duration::from_millis(1)).await;
///         assert!(late.unwrap_err().is_timed_out());
///         drop(held);
///         concurrency("db", 1).await.map(drop)
///     })
///     .await
/// # }
/// ```
///
/// # Errors
///
/// If there is no limit of that name, if it has fewer slots, if a run that waits for this one holds them, or if it took
/// longer than the [`timeout`](Acquiring::timeout).
///
/// # Cancel safety
///
/// Dropping the future leaves the queue; nothing is held. One that is kept but not polled, as after a `select!` by
/// reference, keeps its place, and everybody behind it waits until it is polled or dropped.
pub fn concurrency<S: AsRef<str>>(limits: impl IntoNames<S>, slots: u32) -> Acquiring {
    let mut wants = Wants::new();
    for name in limits.into_names() {
        wants.add(name.as_ref(), slots);
    }
    Acquiring::new(wants)
}

/// Waits for one slot of a limit with decay, and takes it; it comes back by time.
///
/// It belongs to the orchestrator and the run in which it was called. Its place in the queue is taken when it is polled
/// first.
///
/// # Errors
///
/// If there is no limit of that name, if it has no decay, or if it took longer than the
/// [`timeout`](RateLimited::timeout).
///
/// # Cancel safety
///
/// Dropping the future leaves the queue; nothing is taken. One that is kept but not polled, as after a `select!` by
/// reference, keeps its place, and everybody behind it waits until it is polled or dropped.
pub fn rate_limit(limit: impl AsRef<str>) -> RateLimited {
    let mut wants = Wants::new();
    wants.add(limit.as_ref(), 1);
    RateLimited(Acquiring { by_time: true, ..Acquiring::new(wants) })
}

/// The future of a [`SlotGuard`]; made by [`concurrency`].
#[must_use = "futures do nothing unless awaited"]
pub struct Acquiring {
    stage: Stage,
    /// Whether a limit that is asked for has to be one whose slots come back by time.
    by_time: bool,
    timeout: Option<Duration>,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// How long a store may take, when the time is over, to say who holds the slots.
const TELLING: Duration = Duration::from_secs(1);

type Asking<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

enum Stage {
    /// Not polled yet.
    New {
        wants: Wants,
        limits: Arc<Limits>,
        run: Option<Weak<Run>>,
    },
    /// The store is asked for the limits that processes share.
    Looking {
        look: Asking<()>,
        wants: Wants,
        limits: Arc<Limits>,
        run: Option<Weak<Run>>,
    },
    Queued(Waiting),
    /// It took too long; the store is asked who holds the slots.
    Overdue {
        standings: Asking<Vec<LimitWait>>,
        timeout: Duration,
    },
    Over,
}

impl Acquiring {
    fn new(wants: Wants) -> Self {
        // A run that is gone by the time when the slots are taken holds them no more than code outside of any run.
        let run =
            context::with_run(|run| run.map(|run| (Arc::clone(&run.scope().orchestrator.limits), Arc::downgrade(run))));
        let (limits, run) = match run {
            Some((limits, run)) => (limits, Some(run)),
            None => (Arc::clone(&Orchestrator::current().inner().limits), None),
        };
        Self { stage: Stage::New { wants, limits, run }, by_time: false, timeout: None, deadline: None }
    }

    /// Gives up after that time, counted from the first poll, with an error that
    /// [`is_timed_out`](Error::is_timed_out) and says who holds the slots, as far as is known: a database that processes
    /// share and that does not answer is not waited for any longer. With a time of zero it waits for nothing but the answer
    /// of that database.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self.deadline = None;
        self
    }

    /// Takes a place in the queue, unless it is over at once.
    fn acquire(
        &self,
        wants: &Wants,
        limits: &Arc<Limits>,
        run: Option<&Arc<Run>>,
    ) -> Result<Stage, Result<SlotGuard, Error>> {
        if self.by_time {
            limits.check_rates(wants).map_err(Err)?;
        }
        match limits.acquire(wants, run) {
            Acquire::Held(guard) => Err(Ok(guard)),
            Acquire::Never(error) => Err(Err(error)),
            Acquire::Waiting(waiting) => Ok(Stage::Queued(waiting)),
        }
    }

    /// The time that was given, if it is over. One of zero is over as soon as there is something to wait for: to be told
    /// whether there is takes a moment where a store has to be asked.
    fn overdue(&mut self, must_wait: bool, cx: &mut Context<'_>) -> Option<Duration> {
        let timeout = self.timeout?;
        if timeout.is_zero() {
            return must_wait.then_some(timeout);
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(cx).is_ready().then_some(timeout)
    }
}

impl Future for Acquiring {
    type Output = Result<SlotGuard, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.by_time
            && let Some(guard) = this.stage.take_alone()
        {
            return Poll::Ready(Ok(guard));
        }
        loop {
            match std::mem::replace(&mut this.stage, Stage::Over) {
                Stage::New { wants, limits, run } if limits.is_behind(wants.iter(), false) => {
                    let looked = Arc::clone(&limits);
                    let look = Box::pin(async move { looked.look(Vec::new()).await });
                    this.stage = Stage::Looking { look, wants, limits, run };
                }
                Stage::New { wants, limits, run } => match this.acquire(&wants, &limits, upgraded(&run).as_ref()) {
                    Ok(stage) => this.stage = stage,
                    Err(outcome) => return Poll::Ready(outcome),
                },
                Stage::Looking { mut look, wants, limits, run } => match look.as_mut().poll(cx) {
                    Poll::Pending => {
                        if let Some(timeout) = this.overdue(false, cx) {
                            return Poll::Ready(Err(unanswered(
                                wants.iter().map(|(name, _)| &**name),
                                &limits,
                                timeout,
                            )));
                        }
                        this.stage = Stage::Looking { look, wants, limits, run };
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => match this.acquire(&wants, &limits, upgraded(&run).as_ref()) {
                        Ok(stage) => this.stage = stage,
                        Err(outcome) => return Poll::Ready(outcome),
                    },
                },
                Stage::Queued(mut waiting) => {
                    if let Poll::Ready(outcome) = Pin::new(&mut waiting).poll(cx) {
                        return Poll::Ready(outcome);
                    }
                    let must_wait = waiting.poll_must_wait(cx);
                    // One that was served just now has been woken, and takes what it was given.
                    let served = must_wait == Poll::Ready(false);
                    let overdue = this.overdue(must_wait == Poll::Ready(true), cx).filter(|_| !served);
                    let Some(timeout) = overdue else {
                        this.stage = Stage::Queued(waiting);
                        return Poll::Pending;
                    };
                    if must_wait.is_pending() {
                        let known = waiting.known_standings();
                        let names = known.iter().map(|wait| &*wait.limit);
                        return Poll::Ready(Err(unanswered(names, &waiting.limits, timeout)));
                    }
                    this.stage = Stage::Overdue { standings: Box::pin(standings(waiting, timeout)), timeout };
                }
                Stage::Overdue { mut standings, timeout } => match standings.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.stage = Stage::Overdue { standings, timeout };
                        return Poll::Pending;
                    }
                    Poll::Ready(standings) => {
                        return Poll::Ready(Err(
                            standings.map_or_else(|error| error, |found| timed_out(&found, timeout))
                        ));
                    }
                },
                Stage::Over => panic!("slots are waited for once: this future was ready before"),
            }
        }
    }
}

fn upgraded(run: &Option<Weak<Run>>) -> Option<Arc<Run>> {
    run.as_ref().and_then(Weak::upgrade)
}

impl Stage {
    /// What is asked for, if it is there for the taking; most requests are, and most are polled where they were made.
    fn take_alone(&mut self) -> Option<SlotGuard> {
        let Self::New { wants, limits, run } = self else { return None };
        let parts = match run {
            None => limits.take_alone(wants, None, || None),
            Some(held) => {
                let here = context::with_run(|current| {
                    let current = current.filter(|current| Arc::as_ptr(current) == held.as_ptr())?;
                    Some(limits.take_alone(wants, Some(current), || Some(std::mem::take(held))))
                });
                here.unwrap_or_else(|| limits.take_alone(wants, held.upgrade().as_ref(), || Some(held.clone())))
            }
        }?;
        let Self::New { limits, .. } = std::mem::replace(self, Self::Over) else { unreachable!("it was new just now") };
        Some(SlotGuard { limits, parts, ticket: None })
    }
}

/// How the request stands, which keeps its place until that is known. The time is over: a store that does not say it soon is
/// not waited for, unless it has to be in any case.
async fn standings(place: Waiting, timeout: Duration) -> Result<Vec<LimitWait>, Error> {
    let ticket = place.ticket.expect("it waits").get();
    let asked = place.limits.standings(ticket, LimitWait::NAMED + 1);
    if timeout.is_zero() {
        return asked.await;
    }
    tokio::time::timeout(TELLING, asked).await.unwrap_or_else(|_| Ok(place.known_standings()))
}

/// The store has not said whether there is anything to wait for.
fn unanswered<'a>(names: impl Iterator<Item = &'a str>, limits: &Limits, timeout: Duration) -> Error {
    let names = joined(names.map(|name| format!("'{name}'")));
    let location = limits.broker.as_ref().map(|broker| broker.location()).unwrap_or_default();
    Error::new(ErrorKind::TimedOut(format!(
        "waited {} for slots of limit {names}, about which {location} has not answered",
        short(timeout)
    )))
}

fn timed_out(standings: &[LimitWait], timeout: Duration) -> Error {
    let what = joined(standings.iter().map(ToString::to_string));
    Error::new(ErrorKind::TimedOut(if timeout.is_zero() {
        format!("did not wait for {what}")
    } else {
        format!("waited {} for {what}", short(timeout))
    }))
}

impl std::fmt::Debug for Acquiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquiring").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The future of a slot that comes back by time; made by [`rate_limit`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct RateLimited(Acquiring);

impl RateLimited {
    /// Gives up after that time, counted from the first poll, with an error that
    /// [`is_timed_out`](Error::is_timed_out). With a time of zero it waits for nothing but the answer of a database that
    /// processes share.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }
}

impl Future for RateLimited {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(drop)
    }
}
