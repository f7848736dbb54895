//! Waits that would never end, because the run that is waited for waits for the one that waits.
//!
//! What is found are cycles of what a run is bound to wait for: the results that it takes, the runs that it waits for
//! by its options, and the runs that it started. What other bodies await is not known here: two bodies that await each
//! other's runs are not found, and neither is what comes to depend on a run after the wait for it has begun.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::context;
use crate::error::{Cause, FailureKind, TaskError};
use crate::run::Run;

/// Why the body that this code is part of must not wait for that run, if it must not.
pub(super) fn closed_by(awaited: &Arc<Run>) -> Option<TaskError> {
    let current = context::with_body(|current| suspicious(current, awaited).then(|| Arc::clone(current)))?;
    let path = path(&current, awaited)?;
    let said =
        format!("it would wait for ever: '{}' is awaited in the body of '{}', {path}", awaited.name(), current.name());
    Some(current.error(FailureKind::Refused, Cause::Said(said)))
}

/// Why a run that `parent` starts must not wait for `upstream`, if it must not.
pub(crate) fn closed_by_child(parent: &Arc<Run>, upstream: &Arc<Run>) -> Option<String> {
    if !suspicious(parent, upstream) {
        return None;
    }
    let for_ever = format!("it would wait for ever for '{}'", upstream.name());
    if parent.is_part_of(upstream) {
        return Some(format!("{for_ever}, of which it is a part"));
    }
    search(parent, upstream).map(|steps| format!("{for_ever}: {steps}, of which it is a part"))
}

/// A look that costs little and lets through all that could be a cycle.
fn suspicious(current: &Arc<Run>, awaited: &Arc<Run>) -> bool {
    if awaited.has_ended() || current.has_ended() {
        return false;
    }
    // A run that has begun and has started none waits for nothing that could be found here.
    current.is_part_of(awaited)
        || ((!awaited.is_launched() || awaited.has_children()) && current.lineage().any(|run| run.is_taken()))
}

/// How `awaited` waits for the end of `current`, if it does.
fn path(current: &Arc<Run>, awaited: &Arc<Run>) -> Option<String> {
    if Arc::ptr_eq(current, awaited) {
        return Some("which is the same run".to_owned());
    }
    if current.is_part_of(awaited) {
        return Some("which is part of it".to_owned());
    }
    search(current, awaited).map(|steps| format!("and {steps}"))
}

/// Goes from run to run that waits for one before, beginning with `current`.
fn search(current: &Arc<Run>, awaited: &Arc<Run>) -> Option<String> {
    let mut reached: HashMap<*const Run, Option<Arc<Run>>> = HashMap::new();
    reached.insert(Arc::as_ptr(current), None);
    let mut next = vec![Arc::clone(current)];
    while let Some(run) = next.pop() {
        // A run ends after all that it started.
        let waiting = run.dependants().into_iter().chain(run.above().cloned());
        for waiter in waiting.filter(|waiter| !waiter.has_ended()) {
            let Entry::Vacant(entry) = reached.entry(Arc::as_ptr(&waiter)) else { continue };
            entry.insert(Some(Arc::clone(&run)));
            if Arc::ptr_eq(&waiter, awaited) {
                return Some(tell(awaited, &reached));
            }
            next.push(waiter);
        }
    }
    None
}

fn tell(awaited: &Arc<Run>, reached: &HashMap<*const Run, Option<Arc<Run>>>) -> String {
    let mut steps = Vec::new();
    let mut waiter = awaited;
    while let Some(Some(run)) = reached.get(&Arc::as_ptr(waiter)) {
        steps.push(format!("'{}' waits for '{}'", waiter.name(), run.name()));
        waiter = run;
    }
    const SHOWN: usize = 8;
    if steps.len() > SHOWN {
        let left = steps.len() - SHOWN;
        steps.splice(SHOWN - 1..steps.len() - 1, [format!("… ({left} more) …")]);
    }
    steps.join(", ")
}
