//! Single flight: of those who want one key at the same time, one computes it and the others wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use crate::backend::record::CacheKey;
use crate::run::Run;

/// The keys that are being computed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flights(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flying: DashMap<CacheKey, Flying>,
    /// How many claims were given back, by the first byte of their keys.
    landings: [AtomicU64; 256],
}

/// Who computes a key, and who is told when that has ended.
#[derive(Debug, Clone)]
struct Flying {
    /// The run that has the claim. Not kept alive: others may hold on to this for longer.
    run: Weak<Run>,
    landed: Arc<Notify>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { flying: DashMap::new(), landings: [const { AtomicU64::new(0) }; 256] }
    }
}

/// A key that somebody else computes.
pub(crate) struct Flight {
    /// Who computes it.
    pub(crate) run: Weak<Run>,
    notify: Arc<Notify>,
    flights: Flights,
    key: CacheKey,
}

/// The right to compute a key; dropping it lets the next one have it.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) key: CacheKey,
    /// `None` where nobody waits for this one.
    flight: Option<(Flights, Arc<Notify>)>,
}

/// Whether a run above this one computes the key: it waits for this one, so this one must not wait for it.
fn is_above(flying: &Flying, run: &Arc<Run>) -> bool {
    run.lineage().any(|ancestor| Arc::as_ptr(ancestor) == flying.run.as_ptr())
}

impl Flights {
    /// A number that changes whenever a claim of the key is given back, and sometimes when another is.
    pub(crate) fn landings(&self, key: &CacheKey) -> u64 {
        self.0.landings[usize::from(key.0[0])].load(Ordering::Acquire)
    }

    /// Whoever computes the key at the moment, if this run can wait for it.
    pub(crate) fn flying(&self, key: CacheKey, run: &Arc<Run>) -> Option<Flight> {
        let flying = self.0.flying.get(&key).map(|flying| flying.clone())?;
        (!is_above(&flying, run)).then(|| self.flight(flying, key))
    }

    fn flight(&self, flying: Flying, key: CacheKey) -> Flight {
        Flight { run: flying.run, notify: flying.landed, flights: self.clone(), key }
    }

    pub(crate) fn claim(&self, key: CacheKey, run: &Arc<Run>) -> Result<Claim, Flight> {
        match self.0.flying.entry(key) {
            Entry::Occupied(entry) if is_above(entry.get(), run) => Ok(Claim { key, flight: None }),
            Entry::Occupied(entry) => Err(self.flight(entry.get().clone(), key)),
            Entry::Vacant(entry) => {
                let landed = Arc::new(Notify::new());
                entry.insert(Flying { run: Arc::downgrade(run), landed: Arc::clone(&landed) });
                Ok(Claim { key, flight: Some((self.clone(), landed)) })
            }
        }
    }
}

impl Flight {
    /// Ready when the claim was given back, with or without a result.
    pub(crate) async fn landed(self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        // The claim may have been given back before this was listening.
        let current =
            self.flights.0.flying.get(&self.key).is_some_and(|entry| Arc::ptr_eq(&entry.landed, &self.notify));
        if current {
            notified.await;
        }
    }
}

impl Claim {
    /// A claim that keeps nobody else from computing the key.
    pub(crate) const fn refreshing(key: CacheKey) -> Self {
        Self { key, flight: None }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((flights, notify)) = self.flight.take() {
            flights.0.landings[usize::from(self.key.0[0])].fetch_add(1, Ordering::AcqRel);
            flights.0.flying.remove(&self.key);
            notify.notify_waiters();
        }
    }
}
