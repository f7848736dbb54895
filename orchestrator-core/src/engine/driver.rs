//! Carries out what the machine decides, and writes the run's states.
//!
//! A driver is the future of its run's tokio task. What can be done at once is done in place, and so is polling the body;
//! whatever else has to be waited for is a future of its own, which takes the course of the run along and gives it
//! back. So a driver is small, and a run that waits for nothing but its body needs no other future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::attempt::{self, Body, Ended, children_ended, closed, unless_cancelled};
use super::inputs::prepare;
use super::launcher;
use super::machine::{Decision, Event, Machine, jittered};
use super::panics::{self, Contained};
use super::plain;
use super::rules::{self, Answer, Holding, Queued, Rule, Taken, Verdict};
use super::wind_down::{End, Watch, wind_down};
use super::{Call, OwnedCall};
use crate::body::{Attempt, BodyFuture, Codec, Erased};
use crate::cache::{Claim, Flight};
use crate::context::Place;
use crate::error::{Cause, FailureKind, TaskError};
use crate::hook::{self, Hook, ResultHooks};
use crate::pause;
use crate::persist::{self, Resolved};
use crate::run::{Run, Stop};
use crate::state::StateName;

/// Drives a run from the moment when its upstream runs have ended, and sees to it that it has an end.
pub(super) struct Driver {
    /// Taken at the end.
    run: Option<Arc<Run>>,
    /// Absent while somebody else has it, and at the end.
    course: Option<Course>,
    stage: Stage,
}

/// What the driver polls.
enum Stage {
    /// Nothing yet.
    Begin,
    /// Nothing, as it is known what comes next.
    Known(Box<Next>),
    Body(BodyOf),
    /// The run's place in the queues for slots.
    Queued(Queued),
    /// Something else, which has taken the course along.
    Waiting(Pin<Box<dyn Future<Output = (Course, Next)> + Send>>),
    /// What has to happen between the last attempt and the end.
    WindingDown(Pin<Box<dyn Future<Output = Watch> + Send>>),
    /// Nothing any more.
    Over,
}

pub(super) type BodyOf = Contained<BodyFuture>;

/// What comes next in a run.
pub(super) enum Next {
    /// Ask the machine what to do about it.
    At(Event),
    /// Poll the body.
    Body(BodyOf),
    /// Wait for slots.
    Queue(Queued),
    /// Wait for something else.
    Wait(Wait),
    /// End.
    WindDown(End),
}

/// What a run waits for apart from its body.
pub(super) enum Wait {
    Rule(Rule),
    /// The end of the run that computes the same.
    Flight(Box<Flight>),
    /// The hooks on a state, before the body is called.
    Hooks {
        hooks: &'static [Hook],
        last: bool,
    },
    /// A body that has a thread or a time limit.
    Attempt {
        attempt: Attempt,
        number: u32,
        limit: Option<Duration>,
    },
    /// What the body, which has ended, had started.
    Started(Body),
    /// The moment of the next attempt.
    Delay(Duration),
    /// What a run that is cancelled had started.
    Cancelled,
    /// What has been started by a run that is to end.
    Close(Box<Closing>),
}

impl Driver {
    /// Of a run that was not polled yet.
    pub(super) fn new(run: Arc<Run>) -> Self {
        let course = Course::new(OwnedCall::into_box(run.take_call()), &run);
        Self { run: Some(run), course: Some(course), stage: Stage::Begin }
    }

    /// Of a run that somebody else has brought so far, with what comes next in it.
    pub(super) fn taking_over(run: Arc<Run>, course: Course, next: Next) -> Self {
        let stage = match next {
            Next::Body(body) => Stage::Body(body),
            next @ (Next::At(_) | Next::Queue(_) | Next::Wait(_) | Next::WindDown(_)) => Stage::Known(Box::new(next)),
        };
        Self { run: Some(run), course: Some(course), stage }
    }

    /// The run, until it has ended.
    pub(super) fn run(&self) -> Option<&Run> {
        self.run.as_deref()
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { run: driven, course: held, stage } = self;
        let run = driven.as_ref().expect("the run is taken out at its end");
        loop {
            let mut next = match stage {
                Stage::Begin => Next::At(here(held).begin(run)),
                Stage::Known(_) => {
                    let Stage::Known(next) = std::mem::replace(stage, Stage::Over) else {
                        unreachable!("as just seen")
                    };
                    *next
                }
                Stage::Body(body) => {
                    let outcome = if run.is_cancelled() {
                        None
                    } else {
                        let outcome = ready!(Pin::new(body).poll(cx));
                        Some(outcome.map_or_else(Body::Panicked, Body::Returned))
                    };
                    *stage = Stage::Over;
                    match outcome {
                        Some(Body::Returned(Ok(value))) if here(held).ends_plainly(run) => {
                            panics::let_go(held.take());
                            let mut watch = Watch::over_lost(driven.take().expect("it was here just now"), true);
                            plain::end(&mut watch, value);
                            return Poll::Ready(());
                        }
                        outcome => here(held).left(run, outcome),
                    }
                }
                Stage::Queued(place) => {
                    let course = here(held);
                    let verdict = ready!(place.poll(cx, run, &mut course.holding));
                    *stage = Stage::Over;
                    course.heed(verdict)
                }
                Stage::Waiting(future) => {
                    let (course, next) = ready!(future.as_mut().poll(cx));
                    *held = Some(course);
                    next
                }
                Stage::WindingDown(future) => {
                    let watch = ready!(future.as_mut().poll(cx));
                    *stage = Stage::Over;
                    *driven = None;
                    watch.end();
                    return Poll::Ready(());
                }
                Stage::Over => unreachable!("a driver that is over is not polled"),
            };
            while let Next::At(event) = next {
                next = here(held).on(run, event);
            }
            *stage = match next {
                Next::Body(body) => Stage::Body(body),
                Next::Queue(place) => {
                    // What follows takes its time.
                    let _ = launcher::last_end();
                    Stage::Queued(place)
                }
                Next::Wait(wait) => {
                    // What follows takes its time.
                    let _ = launcher::last_end();
                    let course = held.take().expect("it was here just now");
                    Stage::Waiting(Box::pin(course.wait(Arc::clone(run), wait)))
                }
                Next::WindDown(end) if end.is_bare(run) => {
                    *stage = Stage::Over;
                    let run = driven.take().expect("it was here just now");
                    end.end(run);
                    return Poll::Ready(());
                }
                Next::WindDown(end) => match end.send(run) {
                    Some((stored, watch)) => {
                        *stage = Stage::Over;
                        *driven = None;
                        panics::let_go(end);
                        persist::leave(stored, watch);
                        return Poll::Ready(());
                    }
                    None => Stage::WindingDown(Box::pin(wind_down(Watch::over(Arc::clone(run)), end))),
                },
                Next::At(_) => unreachable!("the machine was asked about all of them"),
            };
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        panics::engine(|| self.step(cx)).unwrap_or_else(|| {
            // The engine panicked; the panic hook has told where.
            self.give_up(true);
            Poll::Ready(())
        })
    }

    /// Sees to it that a cancellation, or the end of the run's last child, reaches what the run does, which was just polled.
    pub(super) fn stand_by(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(run) = &self.run else { return Poll::Ready(()) };
            run.flush_later();
            run.register_driver(cx.waker());
            // A signal that came before the waker was registered has woken nobody.
            if !run.take_signal() {
                return Poll::Pending;
            }
            if self.advance(cx).is_ready() {
                return Poll::Ready(());
            }
        }
    }

    /// Ends the run if its driver goes away before that.
    fn give_up(&mut self, panicked: bool) {
        let Some(run) = self.run.take() else { return };
        // What winds down a run ends it when it is dropped.
        panics::let_go(std::mem::replace(&mut self.stage, Stage::Over));
        panics::let_go(self.course.take());
        if !run.has_ended() {
            drop(Watch::over_lost(run, panicked));
        }
    }
}

/// The course of the run, while the driver has it.
fn here(course: &mut Option<Course>) -> &mut Course {
    course.as_mut().expect("whoever takes it along brings it back")
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.advance(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.stand_by(cx),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.give_up(false);
    }
}

/// How far a run has come.
pub(super) struct Course {
    /// Let go of after the last attempt.
    call: Option<Box<dyn Call>>,
    machine: Machine,
    /// Made when there is something to hold.
    holding: Option<Box<Holding>>,
}

/// What is left of a run that is to end as soon as what it started has ended.
pub(super) struct Closing {
    state: StateName,
    claim: Option<Claim>,
    codec: Option<&'static Codec>,
    hooks: Option<Box<ResultHooks>>,
    lost_before: u64,
    result: Option<Erased>,
    failure: Option<TaskError>,
}

impl Course {
    pub(super) fn new(call: Box<dyn Call>, run: &Run) -> Self {
        let (machine, call) = (Machine::new(run.options().retries()), Some(call));
        Self { call, machine, holding: None }
    }

    /// Of a run whose first attempt was begun, as no rule had a say about it.
    pub(super) fn begun(call: Box<dyn Call>, run: &Run) -> Self {
        let mut course = Self::new(call, run);
        let _ = course.machine.on(Event::InputsReady);
        let _ = course.machine.on(Event::AllPassed);
        course
    }

    fn call(&mut self) -> &mut dyn Call {
        &mut **self.call.as_mut().expect("it is let go of after the last attempt")
    }

    /// Whether nothing is left to do for the run, whose body gave a result, but to end it.
    fn ends_plainly(&mut self, run: &Run) -> bool {
        run.is_plain && self.holding.is_none() && plain::ends_at_once(run, self.call())
    }

    fn begin(&mut self, run: &Arc<Run>) -> Event {
        let orchestrator = &run.scope().orchestrator;
        if orchestrator.strict {
            self.holding.get_or_insert_default().lost_before = orchestrator.journal.lost().0;
        }
        if run.is_cancelled() {
            return Event::CancelRequested;
        }
        // Code of the user may run here: `Clone`, `Display`, `Serialize`.
        let prepared = panics::catch(|| prepare(run, self.call())).flatten();
        if !run.begins_at_once() {
            let _ = launcher::last_end();
        }
        self.prepared(run, prepared)
    }

    /// Says what came of the preparation.
    pub(super) fn prepared(&mut self, run: &Run, prepared: Resolved) -> Event {
        match prepared {
            Ok(Ok(())) => Event::InputsReady,
            Ok(Err(error)) => {
                self.fail(error);
                Event::UpstreamFailed
            }
            Err(said) => {
                self.fail(run.error(FailureKind::Panicked, Cause::Said(said)));
                Event::Refused
            }
        }
    }

    fn on(&mut self, run: &Arc<Run>, mut event: Event) -> Next {
        loop {
            return match self.machine.on(event) {
                Decision::Apply(_) if rules::are_silent(run) => {
                    event = Event::AllPassed;
                    continue;
                }
                Decision::Apply(rule) if rules::has_a_say(rule, run, self.holding.as_deref()) => {
                    match rules::ask(rule, run, &mut self.holding) {
                        Answer::Said(Verdict::Accept) => {
                            event = Event::Passed;
                            continue;
                        }
                        Answer::Said(verdict) => self.heed(verdict),
                        Answer::Queued(place) => Next::Queue(place),
                        Answer::Later => Next::Wait(Wait::Rule(rule)),
                    }
                }
                Decision::Apply(_) => {
                    event = Event::Passed;
                    continue;
                }
                Decision::Attempt { state, last } => self.attempt(run, state, last),
                Decision::Delay(delay) => self.delay(run, delay),
                Decision::Cancel => self.cancel(run),
                Decision::End(state) => self.wind_up(run, state),
            };
        }
    }

    /// Waits, and says what comes next.
    async fn wait(mut self, run: Arc<Run>, wait: Wait) -> (Self, Next) {
        let next = match wait {
            Wait::Rule(rule) => {
                let call = &mut **self.call.as_mut().expect("rules are asked before the last attempt");
                let verdict = Box::pin(rules::apply(rule, &run, call, &mut self.holding)).await;
                self.heed(verdict)
            }
            Wait::Flight(flight) => {
                let _noted = run.waits_for(flight.note());
                match Box::pin(unless_cancelled(&run, flight.landed())).await {
                    Some(()) => Next::At(Event::StartOver),
                    None => Next::At(Event::CancelRequested),
                }
            }
            Wait::Hooks { hooks, last } => match Box::pin(unless_cancelled(&run, hook::call(&run, hooks))).await {
                Some(()) => self.execute(&run, last),
                None => self.ended(&run, Ended::Cancelled),
            },
            Wait::Attempt { attempt, number, limit } => {
                let ended = Box::pin(attempt::execute(&run, attempt, number, limit)).await;
                self.ended(&run, ended)
            }
            Wait::Started(outcome) => {
                let ended = attempt::settle(&run, outcome).await;
                self.ended(&run, ended)
            }
            Wait::Delay(delay) => match Box::pin(unless_cancelled(&run, tokio::time::sleep(delay))).await {
                Some(()) => Next::At(Event::DelayOver),
                None => Next::At(Event::CancelRequested),
            },
            Wait::Cancelled => {
                children_ended(&run).await;
                self.wind_up(&run, StateName::Cancelled)
            }
            Wait::Close(closing) => {
                if closing.has_hooks(&run) {
                    // They may submit runs.
                    run.reopen();
                    children_ended(&run).await;
                } else {
                    closed(&run).await;
                }
                self.end(&run, *closing)
            }
        };
        (self, next)
    }

    /// Does what a rule says.
    fn heed(&mut self, verdict: Verdict) -> Next {
        Next::At(match verdict {
            Verdict::Accept => Event::Passed,
            Verdict::Reject(value) => {
                self.succeed(value);
                Event::Answered
            }
            Verdict::Abort(error) => {
                self.fail(error);
                Event::Refused
            }
            Verdict::Again(flight) => {
                // Nothing is held while somebody else computes the same: that one may need it.
                self.give_back();
                return Next::Wait(Wait::Flight(Box::new(flight)));
            }
            Verdict::StartOver => Event::StartOver,
            Verdict::Cancelled => Event::CancelRequested,
        })
    }

    fn succeed(&mut self, value: Erased) {
        self.holding.get_or_insert_default().result = Some(value);
    }

    fn fail(&mut self, error: TaskError) {
        panics::let_go(self.holding.get_or_insert_default().failure.replace(error));
    }

    fn give_back(&mut self) {
        if let Some(holding) = &mut self.holding {
            holding.taken = Taken::default();
        }
    }

    fn attempt(&mut self, run: &Arc<Run>, state: StateName, last: bool) -> Next {
        // Without a delay in between, nothing else tells why there is another attempt.
        let again = (state == StateName::Retrying && !self.machine.is_delayed()).then(|| self.after_failure().into());
        run.begin_attempt(state, again, launcher::last_end());
        if run.is_flow() {
            // The history has a flow run before it has anything that is part of it.
            run.flush();
        } else {
            // Its body may take its time before it awaits anything, and the process may be killed meanwhile.
            run.flush_later();
        }
        if run.is_flow() && run.visible {
            run.scope().calls.start_over();
            if run.run_count() > 1 {
                run.scope().kept.may_be_there();
            }
        }
        pause::attempt_begins(run);
        match run.def().hooks.of(state) {
            [] => self.execute(run, last),
            hooks => Next::Wait(Wait::Hooks { hooks, last }),
        }
    }

    fn execute(&mut self, run: &Arc<Run>, last: bool) -> Next {
        let fakes = &run.scope().orchestrator.testing.fakes;
        let made = panics::catch(|| self.call().attempt(last, fakes));
        self.made(run, made)
    }

    /// Begins with the attempt, if it could be made.
    pub(super) fn made(&mut self, run: &Arc<Run>, made: Result<Attempt, String>) -> Next {
        let attempt = match made {
            Ok(attempt) => attempt,
            Err(said) => return self.ended(run, Ended::panicked(run, said)),
        };
        let number = run.run_count();
        match (attempt, run.options().timeout()) {
            (Attempt::Future(future), None) => Next::Body(Contained::new(Place::of(Arc::clone(run), number), future)),
            (attempt, limit) => Next::Wait(Wait::Attempt { attempt, number, limit }),
        }
    }

    /// The body has ended, and what it started is to; `None`: the run was cancelled before that.
    pub(super) fn left(&mut self, run: &Arc<Run>, outcome: Option<Body>) -> Next {
        match outcome {
            None => self.ended(run, Ended::Cancelled),
            Some(outcome) if attempt::is_settled(run, &outcome) => self.ended(run, attempt::judge(run, outcome)),
            Some(outcome) => Next::Wait(Wait::Started(outcome)),
        }
    }

    fn ended(&mut self, run: &Arc<Run>, ended: Ended) -> Next {
        pause::attempt_ended(run, matches!(ended, Ended::Cancelled));
        Next::At(match ended {
            Ended::Completed(value) => {
                self.succeed(value);
                Event::Succeeded
            }
            Ended::Failed { error, retryable } => {
                let delay = self.delay_after(run);
                self.fail(error);
                self.give_back();
                Event::Failed { retryable, delay }
            }
            Ended::TimedOut(limit) => {
                let said =
                    format!("attempt {} took longer than {}", self.machine.begun(), crate::terminal::short(limit));
                let delay = self.delay_after(run);
                let error = run.error(FailureKind::TimedOut, Cause::Said(said));
                self.fail(error);
                self.give_back();
                Event::TimedOut { delay }
            }
            Ended::Cancelled => Event::CancelRequested,
        })
    }

    fn delay(&mut self, run: &Run, delay: Duration) -> Next {
        self.give_back();
        let wait = crate::terminal::short(delay);
        let message = format!("{}; the next starts in {wait}", self.after_failure());
        run.await_retry(message.into(), delay);
        Next::Wait(Wait::Delay(delay))
    }

    fn cancel(&mut self, run: &Run) -> Next {
        self.give_back();
        run.enter_cancelling();
        run.cancel_children(run.stopped_by().unwrap_or(Stop::Request));
        Next::Wait(Wait::Cancelled)
    }

    /// Lets go of what is not needed any more; what the run started is to end.
    fn wind_up(&mut self, run: &Arc<Run>, state: StateName) -> Next {
        let completed = state == StateName::Completed;
        let Holding { claim, taken, lost_before, result, failure, .. } =
            self.holding.take().map(|holding| *holding).unwrap_or_default();
        drop(taken);
        let claim = claim.filter(|_| completed);
        let persists = completed && persist::identity(run).is_some();
        let call = self.call.take().expect("a run is wound up once");
        let codec = if claim.is_some() || persists { call.codec() } else { None };
        let hooks = completed.then(|| call.result_hooks()).filter(|hooks| !hooks.is_empty()).map(Box::new);
        panics::let_go(call);
        let closing = Closing { state, claim, codec, hooks, lost_before, result, failure };
        if !closing.has_hooks(run) && run.children_ended() && run.close() {
            return self.end(run, closing);
        }
        Next::Wait(Wait::Close(Box::new(closing)))
    }

    fn end(&mut self, run: &Arc<Run>, closing: Closing) -> Next {
        let Closing { state, claim, codec, hooks, lost_before, result, failure } = closing;
        let end = End::of(run, state, result, failure);
        Next::WindDown(End { claim, codec, hooks, lost_before, ..end })
    }

    /// How long to wait after the attempt that just failed.
    fn delay_after(&self, run: &Run) -> Duration {
        if !self.machine.may_retry() {
            return Duration::ZERO;
        }
        let options = run.options();
        let delay = options.retry_delay(self.machine.begun() - 1);
        match options.retry_jitter() {
            jitter if jitter > 0.0 => jittered(delay, jitter, fastrand::f64()),
            _ => delay,
        }
    }

    /// What a retry says of the attempt before it. The machine has counted the retry already if it has begun.
    fn after_failure(&self) -> String {
        let failure = self.holding.as_ref().and_then(|holding| holding.failure.as_ref());
        let reason = failure.map(|error| error.0.reason()).unwrap_or_default();
        format!("attempt {} of {} failed: {reason}", self.machine.failed(), self.machine.allowed())
    }
}

impl Closing {
    fn has_hooks(&self, run: &Run) -> bool {
        self.hooks.is_some() || !run.def().hooks.of(self.state).is_empty()
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// What a run that waits takes: the largest piece of memory that fits between two tasks of tokio's, which are aligned
    /// to 128 bytes.
    #[test]
    fn a_driver_is_small() {
        assert!(size_of::<Driver>() <= 104, "{}", size_of::<Driver>());
    }
}
