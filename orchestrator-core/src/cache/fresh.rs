//! Results that were stored and that the backend may not have yet: whoever looks finds them here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;

use crate::backend::record::{CacheHit, CacheKey, Event};
use crate::engine::panics;
use crate::journal::Journal;

#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// Each with the journal's number of its insertion.
    values: DashMap<CacheKey, (u64, CacheHit)>,
    /// The same numbers, oldest first.
    order: Mutex<VecDeque<(u64, CacheKey)>>,
}

impl Fresh {
    pub(super) fn find(&self, key: &CacheKey) -> Option<CacheHit> {
        self.values.get(key).map(|entry| entry.1.clone())
    }

    /// Sends what stores a result to the backend, and answers for it until it is there.
    pub(super) fn insert(&self, journal: &Journal, event: Event, key: CacheKey, hit: CacheHit) {
        // The value is there before its event can be settled. What was there before is dropped outside of the lock.
        drop(self.values.insert(key, (u64::MAX, hit)));
        journal.push(event);
        let pushed = journal.pushed();
        if let Some(mut entry) = self.values.get_mut(&key) {
            entry.0 = pushed;
        }
        self.order.lock().unwrap_or_else(PoisonError::into_inner).push_back((pushed, key));
        // It may have been settled before its number was here.
        self.settle(journal.settled());
    }

    /// Lets go of what the backend has: everything up to that number.
    pub(crate) fn settle(&self, settled: u64) {
        let mut gone = Vec::new();
        {
            let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((number, key)) = order.pop_front_if(|(number, _)| *number <= settled) {
                gone.extend(self.values.remove_if(&key, |_, (latest, _)| *latest <= number));
            }
        }
        // Destructors of values are not ours: they run outside of the lock, and may panic.
        for value in gone {
            if let Err(said) = panics::catch(|| drop(value)) {
                tracing::error!(target: "orchestrator", "the destructor of a stored result {said}");
            }
        }
    }
}
