//! Putting results away: a run says that it completed when the store has its result, and not before.

use std::sync::{Arc, PoisonError};

use super::{Identified, identity};
use crate::backend::record::{CachedValue, Event, ResultRecord};
use crate::body::{Codec, Erased};
use crate::cache::NO_CODEC;
use crate::clock::Timestamp;
use crate::engine::{End, panics};
use crate::error::{Cause, FailureKind};
use crate::journal::Awaited;
use crate::orchestrator::Inner;
use crate::run::{Outcome, Run};
use crate::state::{StateName, Transition};

/// Completes a run whose result is kept. The result and the run's last state are stored together, and nobody learns of
/// the end before that; what cannot be stored is told, and fails the run if the orchestrator is strict.
pub(crate) async fn complete(run: &Arc<Run>, end: &mut End, outcome: &mut Option<Outcome>) {
    let orchestrator = &run.scope().orchestrator;
    let value = Arc::clone(end.outcome.as_ref().expect("whoever completed has a result"));
    let created = orchestrator.clock.now();
    let kept = match prepare(run, end.codec, &value, created).await {
        Ok(event) if orchestrator.journal.is_immediate() => {
            orchestrator.backend.append(&[event]).map_err(|error| error.to_string())
        }
        Ok(event) => {
            let object = event.object().map(str::to_owned);
            let (sent, transition) = run.send_completed(event);
            propose(run, transition);
            // From here on the run has completed, whatever becomes of its driver.
            *outcome = Some(Ok(Arc::clone(&value)));
            let stored = sent.await;
            if let (Err(_), Some(object)) = (&stored, object) {
                Box::pin(orchestrator.results.let_go(&object)).await;
            }
            stored.map_err(|why| why.to_string())
        }
        Err(why) => Err(why),
    };
    match kept {
        Ok(()) if reveal(run) => return,
        Ok(()) => {}
        Err(why) if is_fatal(orchestrator) => {
            end.state = StateName::Crashed;
            crash(run, outcome, &why);
            panics::let_go(value);
            return;
        }
        Err(why) => {
            warn(run, &why);
            if reveal(run) {
                return;
            }
        }
    }
    run.conclude(end.state, end.message.take(), None);
    *outcome = Some(Ok(value));
}

/// Sends the result of a run whose end nobody else is to be told of, if there is nothing more to it than that: then the
/// outcome is there, and what is given back says when it may be shown.
pub(crate) fn send(run: &Run, end: &End, outcome: &mut Option<Outcome>) -> Option<Awaited> {
    let orchestrator = &run.scope().orchestrator;
    if orchestrator.journal.is_immediate() {
        return None;
    }
    let value = end.outcome.as_ref().ok()?;
    let created = orchestrator.clock.now();
    // What cannot be encoded, or is large, takes the longer way.
    let encoded =
        panics::catch(|| end.codec?.encode_up_to(&**value, orchestrator.results.inline_up_to).ok()?).ok()??;
    let event = record(run, created, *blake3::hash(&encoded.bytes).as_bytes(), CachedValue::Encoded(encoded))?;
    let (sent, transition) = run.send_completed(event);
    propose(run, transition);
    *outcome = Some(Ok(Arc::clone(value)));
    Some(sent)
}

/// What follows when the store has what was sent, or has lost it.
pub(crate) fn settle(run: &Arc<Run>, outcome: &mut Option<Outcome>, stored: Result<(), Arc<str>>) {
    match stored {
        Err(why) if is_fatal(&run.scope().orchestrator) => return crash(run, outcome, &why),
        Err(why) => warn(run, &why),
        Ok(()) => {}
    }
    reveal(run);
}

/// Whether a run crashes whose result is not stored.
fn is_fatal(orchestrator: &Inner) -> bool {
    orchestrator.strict || orchestrator.fenced().is_some()
}

fn crash(run: &Arc<Run>, outcome: &mut Option<Outcome>, why: &str) {
    drop(take_proposed(run));
    let unstored = || format!("its result was not stored: {why}");
    let message = run.scope().orchestrator.fenced().map_or_else(unstored, ToString::to_string);
    let error = run.error(FailureKind::Crashed, Cause::Said(message.clone()));
    run.conclude(StateName::Crashed, Some(message.into()), Some(&error));
    panics::let_go(outcome.replace(Err(error)));
}

/// The event that keeps a result; `None` if its call has no identity.
fn record(run: &Run, created: Timestamp, digest: [u8; 32], value: CachedValue) -> Option<Event> {
    let (root, key, flow_run) = (run.scope().kept.root?, identity(run)?, run.flow_run());
    let run = run.id().as_task()?;
    Some(Event::Persisted(Box::new(ResultRecord { root, key, run, flow_run, created, digest, value })))
}

/// What is to be sent so that the result of a run is kept; a large one is in the result store by then. An error says why
/// it cannot be kept.
pub(crate) async fn prepare(
    run: &Run,
    codec: Option<&'static Codec>,
    value: &Erased,
    created: Timestamp,
) -> Result<Event, String> {
    let orchestrator = &run.scope().orchestrator;
    let record =
        |digest, value| record(run, created, digest, value).ok_or_else(|| "its call has no identity".to_owned());
    if orchestrator.backend.in_process() {
        return record([0; 32], CachedValue::Live(Arc::clone(value)));
    }
    let (codec, Some(id)) = (codec.ok_or(NO_CODEC)?, run.id().as_task()) else {
        return Err("it is a flow run".to_owned());
    };
    match panics::catch(|| codec.encode_up_to(&**value, orchestrator.results.inline_up_to)).flatten()? {
        Some(encoded) => record(*blake3::hash(&encoded.bytes).as_bytes(), CachedValue::Encoded(encoded)),
        None => {
            // What is written for a run that the store knows nothing of, nobody would find. At the end of a transaction
            // the run has told all; before that this is its driver.
            if !run.state().kind.is_terminal() {
                run.flush();
            }
            orchestrator.journal.push_awaited([]).await.map_err(|why| why.to_string())?;
            let flow_run = run.flow_run();
            // Rare, and its future is large.
            let stored = Box::pin(orchestrator.results.put(flow_run, id, codec, Arc::clone(value))).await?;
            record(stored.digest, CachedValue::Stored(stored))
        }
    }
}

/// Says that the result of a run is not kept.
pub(crate) fn warn(run: &Run, why: &str) {
    run.scope().orchestrator.results.unkept.add(run, why);
}

fn propose(run: &Run, transition: Transition) {
    if let Some(identified) = run.identified() {
        *proposed(identified) = Some(transition);
    }
}

fn take_proposed(run: &Run) -> Option<Transition> {
    proposed(run.identified()?).take()
}

fn proposed(identified: &Identified) -> std::sync::MutexGuard<'_, Option<Transition>> {
    identified.proposed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the state that was sent with the result, if there is one.
pub(crate) fn reveal(run: &Run) -> bool {
    let proposed = take_proposed(run);
    let is_some = proposed.is_some();
    if let Some(transition) = proposed {
        run.reveal(transition);
    }
    is_some
}
