//! The way of a run that nothing but its body concerns.
//!
//! Most runs are such: no rule has a say about them, nothing follows on their end, and their bodies are ready when they are
//! polled first. They take the steps of the driver one after the other, in one function and without the values that a driver
//! keeps between two steps. As soon as one turns out to need more, a driver takes it over where it stands; where that is a body
//! that is not ready, and nothing else, it ends here again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::attempt::Body;
use super::driver::{Course, Driver, Next};
use super::inputs::prepare;
use super::panics::{self, Contained};
use super::wind_down::{Watch, root_of};
use super::{Call, OwnedCall, launcher, rules};
use crate::body::{Attempt, Erased};
use crate::context::Place;
use crate::def::{Def, DefKind};
use crate::run::{Origin, Run};
use crate::scope::Scope;
use crate::state::StateName;

/// What is left to do for a run after its first poll.
pub(super) enum Left {
    Nothing,
    /// The driver is to be polled.
    Poll(Driver),
    /// The driver waits for the body, which was polled.
    Wait(Driver),
}

/// Whether nothing that is known of a call from its beginning concerns the run but its body.
pub(crate) fn is_plain(def: &Def, origin: &Origin, scope: &Scope) -> bool {
    let Origin { parent, bound, visible, resumed, .. } = origin;
    let is_in_transaction = bound.as_ref().is_some_and(|bound| bound.is_in_transaction());
    let is_part = *visible && parent.is_some() && !is_in_transaction && resumed.is_none();
    let orchestrator = &scope.orchestrator;
    let has_limit = def.timeout.or(orchestrator.defaults.timeout).is_some();
    is_part && def.kind == DefKind::Task && def.hooks.are_none() && !has_limit && !orchestrator.strict
}

/// Polls a run for the first time.
pub(super) fn poll(run: Arc<Run>, cx: &mut Context<'_>) -> Left {
    if !run.is_plain || run.is_cancelled() {
        return Left::Poll(Driver::new(run));
    }
    let mut call = Some(run.take_call());
    let mut watch = Watch::over_lost(run, true);
    panics::engine(|| go(&mut watch, &mut call, cx)).unwrap_or_else(|| {
        // The panic hook has told where, and the run ends as crashed.
        panics::let_go(call);
        Left::Nothing
    })
}

/// Takes the call, and the run out of the watch, as it hands them over or ends the run.
fn go(watch: &mut Watch, held: &mut Option<OwnedCall>, cx: &mut Context<'_>) -> Left {
    let run = watch.run().expect("it is taken out below");
    let call = held.as_mut().expect("it is taken out below");
    // Code of the user may run here: `Clone`, `Display`.
    let prepared = panics::catch(|| prepare(run, &mut **call)).flatten();
    if !run.begins_at_once() {
        let _ = launcher::last_end();
    }
    if !matches!(prepared, Ok(Ok(()))) || !rules::are_silent(run) {
        let mut course = Course::new(take(held), run);
        let next = Next::At(course.prepared(run, prepared));
        return Left::Poll(Driver::taking_over(watch.take(), course, next));
    }
    run.begin_attempt(StateName::Running, None, launcher::last_end());
    run.flush_later();
    let (retries, fakes) = (run.options().retries(), &run.scope().orchestrator.testing.fakes);
    let future = match panics::catch(|| call.attempt(retries == 0, fakes)) {
        Ok(Attempt::Future(future)) => future,
        made => {
            let mut course = Course::begun(take(held), run);
            let next = course.made(run, made);
            return Left::Poll(Driver::taking_over(watch.take(), course, next));
        }
    };
    let mut body = Contained::new(Place::of(Arc::clone(run), run.run_count()), future);
    if run.is_cancelled() {
        let course = Course::begun(take(held), run);
        return Left::Poll(Driver::taking_over(watch.take(), course, Next::Body(body)));
    }
    let Poll::Ready(outcome) = Pin::new(&mut body).poll(cx) else {
        let course = Course::begun(take(held), run);
        return Left::Wait(Driver::taking_over(watch.take(), course, Next::Body(body)));
    };
    // Its place refers to the run.
    drop(body);
    let value = match outcome {
        Ok(Ok(value)) if ends_at_once(run, &**call) => value,
        outcome => {
            let mut course = Course::begun(take(held), run);
            let next = course.left(run, Some(outcome.map_or_else(Body::Panicked, Body::Returned)));
            return Left::Poll(Driver::taking_over(watch.take(), course, next));
        }
    };
    panics::let_go(held.take());
    end(watch, value);
    Left::Nothing
}

/// Ends a run that has nothing to wait for, with what its body gave.
pub(super) fn end(watch: &mut Watch, value: Erased) {
    let run = watch.run().expect("it is taken out below");
    if run.is_watched(StateName::Completed) {
        // Those who watch take their time: the next run does not begin at the moment when this one ended.
        run.conclude(StateName::Completed, None, None);
        watch.ends_with(Ok(value));
        return;
    }
    let concluded = run.conclude_unseen(StateName::Completed, Ok(value));
    let (at, wakes) = watch.take().leave_unseen(concluded);
    launcher::ended_at(at);
    launcher::after_the_body(wakes);
}

/// Whether a run whose body gave a result has nothing to wait for, and nobody to tell but those who wait for it and those who
/// watch. No further runs are part of it then.
pub(super) fn ends_at_once(run: &Run, call: &dyn Call) -> bool {
    let orchestrator = &run.scope().orchestrator;
    let is_alone = !run.has_started_others() && !run.scope().pauses.is_paused() && root_of(run).is_none();
    // Others may be submitted by code that the body gave away, until no more are let in.
    is_alone
        && orchestrator.fenced().is_none()
        && call.result_hooks().is_empty()
        && run.close()
        && !run.has_started_others()
}

/// The call, for a driver.
fn take(call: &mut Option<OwnedCall>) -> Box<dyn Call> {
    OwnedCall::into_box(call.take().expect("it is taken out once"))
}
