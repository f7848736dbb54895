//! Single flight: of those who want one key at the same time, one computes it and the others wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use crate::backend::record::CacheKey;

/// The keys that are being computed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flights(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flying: DashMap<CacheKey, Arc<Notify>>,
    /// How many claims were given back, by the first byte of their keys.
    landings: [AtomicU64; 256],
}

impl Default for Shared {
    fn default() -> Self {
        Self { flying: DashMap::new(), landings: [const { AtomicU64::new(0) }; 256] }
    }
}

/// A key that somebody else computes.
pub(crate) struct Flight {
    notify: Arc<Notify>,
    flights: Flights,
    key: CacheKey,
}

/// The right to compute a key; dropping it lets the next one have it.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) key: CacheKey,
    /// `None` where nobody waits for this one: the cache is being refreshed.
    flight: Option<(Flights, Arc<Notify>)>,
}

impl Flights {
    /// A number that changes whenever a claim of the key is given back, and sometimes when another is.
    pub(super) fn landings(&self, key: &CacheKey) -> u64 {
        self.0.landings[usize::from(key.0[0])].load(Ordering::Acquire)
    }

    pub(super) fn claim(&self, key: CacheKey) -> Result<Claim, Flight> {
        match self.0.flying.entry(key) {
            Entry::Occupied(entry) => Err(Flight { notify: Arc::clone(entry.get()), flights: self.clone(), key }),
            Entry::Vacant(entry) => {
                let notify = Arc::new(Notify::new());
                entry.insert(Arc::clone(&notify));
                Ok(Claim { key, flight: Some((self.clone(), notify)) })
            }
        }
    }
}

impl Flight {
    /// Ready when the claim was given back, with or without a result.
    pub(super) async fn landed(self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        // The claim may have been given back before this was listening.
        let current = self.flights.0.flying.get(&self.key).is_some_and(|entry| Arc::ptr_eq(&entry, &self.notify));
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
