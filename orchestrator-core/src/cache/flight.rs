//! Single flight: of those who want one key at the same time, one computes it and the others wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, Weak};

use crate::backend::record::{CacheKey, Process};
use crate::concurrency::Landing;
use crate::id::TaskRunId;
use crate::orchestrator::Inner;
use crate::run::{Run, Waits};
use crate::sync::{Mutex, MutexGuard, Notify};

/// The keys that are being computed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flights(Arc<Shared>);

/// The keys by their first byte, to keep those who want different ones out of each other's way.
#[derive(Debug)]
struct Shared([Mutex<Keys>; 256]);

#[derive(Debug, Default)]
struct Keys {
    flying: HashMap<CacheKey, Flying>,
    /// How many claims were given back.
    landings: u64,
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
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Shared {
    fn keys(&self, key: &CacheKey) -> MutexGuard<'_, Keys> {
        self.0[usize::from(key.0[0])].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that somebody else computes.
pub(crate) enum Flight {
    Here(Here),
    Elsewhere {
        /// Keeps those of this process waiting that want the key too: one of them asks the store.
        claim: Claim,
        landing: Landing,
        by: Arc<Elsewhere>,
    },
}

/// A key that a run of this process computes.
pub(crate) struct Here {
    run: Weak<Run>,
    notify: Arc<Notify>,
    flights: Flights,
    key: CacheKey,
}

/// The run of another process that computes a key.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    pub(crate) run: TaskRunId,
    pub(crate) run_name: String,
    pub(crate) process: Process,
}

/// The right to compute a key; dropping it lets the next one have it.
pub(crate) struct Claim {
    pub(crate) key: CacheKey,
    /// Where the claim holds in all processes, and its number there.
    shared: Option<(Arc<Inner>, u64)>,
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
        self.0.keys(key).landings
    }

    /// Whoever computes the key at the moment, if this run can wait for it.
    pub(crate) fn flying(&self, key: CacheKey, run: &Arc<Run>) -> Option<Flight> {
        let flying = self.0.keys(&key).flying.get(&key).cloned()?;
        (!is_above(&flying, run)).then(|| self.flight(flying, key))
    }

    fn flight(&self, flying: Flying, key: CacheKey) -> Flight {
        Flight::Here(Here { run: flying.run, notify: flying.landed, flights: self.clone(), key })
    }

    pub(crate) fn claim(&self, key: CacheKey, run: &Arc<Run>) -> Result<Claim, Flight> {
        match self.0.keys(&key).flying.entry(key) {
            Entry::Occupied(entry) if is_above(entry.get(), run) => Ok(Claim { key, shared: None, flight: None }),
            Entry::Occupied(entry) => Err(self.flight(entry.get().clone(), key)),
            Entry::Vacant(entry) => {
                let landed = Arc::new(Notify::new());
                entry.insert(Flying { run: Arc::downgrade(run), landed: Arc::clone(&landed) });
                Ok(Claim { key, shared: None, flight: Some((self.clone(), landed)) })
            }
        }
    }
}

impl Flight {
    /// What a run notes that waits for it.
    pub(crate) fn note(&self) -> Waits {
        match self {
            Self::Here(here) => Waits::Flight(Weak::clone(&here.run)),
            Self::Elsewhere { by, .. } => Waits::Elsewhere(Arc::clone(by)),
        }
    }

    /// Ready when the claim was given back, with or without a result.
    pub(crate) async fn landed(self) {
        match self {
            Self::Here(here) => here.landed().await,
            Self::Elsewhere { claim, landing, .. } => {
                landing.landed().await;
                drop(claim);
            }
        }
    }
}

impl Here {
    async fn landed(self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        // The claim may have been given back before this was listening.
        let current = |flying: &Flying| Arc::ptr_eq(&flying.landed, &self.notify);
        let current = self.flights.0.keys(&self.key).flying.get(&self.key).is_some_and(current);
        if current {
            notified.await;
        }
    }
}

impl Claim {
    /// A claim that keeps nobody else from computing the key.
    pub(crate) const fn refreshing(key: CacheKey) -> Self {
        Self { key, shared: None, flight: None }
    }

    /// Whether it keeps others of this process from computing the key.
    pub(crate) const fn is_exclusive(&self) -> bool {
        self.flight.is_some()
    }

    /// The claim holds in all processes: the store has it under that number.
    pub(crate) fn share(&mut self, orchestrator: &Arc<Inner>, ticket: u64) {
        self.shared = Some((Arc::clone(orchestrator), ticket));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((orchestrator, ticket)) = self.shared.take()
            && let Some(broker) = orchestrator.limits.broker()
        {
            broker.give_back_claim(self.key, ticket, orchestrator.journal.pushed());
        }
        if let Some((flights, notify)) = self.flight.take() {
            let mut keys = flights.0.keys(&self.key);
            keys.landings += 1;
            let flying = keys.flying.remove(&self.key);
            drop(keys);
            drop(flying);
            notify.notify_waiters();
        }
    }
}
