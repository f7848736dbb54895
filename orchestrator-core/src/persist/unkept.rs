//! Results that could not be kept: told once for each function and cause, and counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::engine::panics;
use crate::run::Run;

/// So many causes are told from each other; of others, every result is told.
const CAUSES: usize = 256;

/// By function and cause, how many results were not kept since that was told.
#[derive(Debug, Default)]
pub(crate) struct Unkept(Mutex<HashMap<(&'static str, String), u64>>);

impl Unkept {
    /// Says that the result of a run is not kept, unless as much was said of another one.
    pub(crate) fn add(&self, run: &Run, why: &str) {
        // What comes before it may have the name of an object, which is another one each time.
        let cause = why.rsplit(": ").next().unwrap_or(why).to_owned();
        let is_new = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = known.len() >= CAUSES;
            match known.get_mut(&(run.def().name, cause.clone())) {
                Some(more) => {
                    *more += 1;
                    false
                }
                None if is_full => true,
                None => {
                    known.insert((run.def().name, cause), 0);
                    true
                }
            }
        };
        if is_new {
            let (kind, name) = (run.kind(), run.name());
            panics::shield(|| {
                tracing::warn!(target: "orchestrator", "the result of {kind} '{name}' is not persisted: {why}");
            });
        }
    }

    /// Says how many there were of which nothing was said.
    pub(crate) fn tell(&self) {
        let known = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut more: Vec<_> = known.into_iter().filter(|(_, more)| *more > 0).collect();
        more.sort_unstable();
        for ((function, cause), more) in more {
            let results = if more == 1 { "1 more result was".to_owned() } else { format!("{more} more results were") };
            panics::shield(|| {
                tracing::warn!(target: "orchestrator", "{results} not persisted of '{function}': {cause}");
            });
        }
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        self.tell();
    }
}
