//! The cache: keys, look-ups with a single flight per key, and insertions.

pub(crate) mod canonical;
mod flight;
mod reader;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;

use crate::backend::record::{CacheHit, CacheKey, CacheRecord, CachedValue, Event};
use crate::body::{ArgEncoder, Codec, Erased};
use crate::engine::{Call, panics};
use crate::orchestrator::Inner;
use crate::run::Run;

pub(crate) use flight::{Claim, Flight, Flights};
pub(crate) use reader::Reader;

/// Says what a key is made of, so that keys of different making never meet.
const KEY_VERSION: &[u8] = b"orchestrator cache key 1";

/// The run's cache key; `None` if it is not cached, which is told in the log if it was asked for.
pub(crate) fn key(run: &Run, call: &dyn Call) -> Option<CacheKey> {
    if run.is_flow() || !run.visible {
        return None;
    }
    let policy = run.options().cache_policy()?;
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(KEY_VERSION);
    part(&mut bytes, run.def.key.as_bytes());
    let own = panics::catch(|| call.cache_key()).unwrap_or_else(|said| {
        let (kind, name) = (run.kind(), run.name());
        tracing::warn!(target: "orchestrator", "{kind} '{name}' is not cached: its key function {said}");
        Some(None)
    });
    match own {
        Some(None) => return None,
        Some(Some(own)) => {
            bytes.push(1);
            part(&mut bytes, own.as_bytes());
            return Some(CacheKey(*blake3::hash(&bytes).as_bytes()));
        }
        None => bytes.push(0),
    }
    if policy.task_source {
        bytes.extend_from_slice(b"s");
        bytes.extend_from_slice(&run.def.fingerprint.to_le_bytes());
    }
    if policy.run_id {
        bytes.extend_from_slice(b"r");
        let id = run.info.flow_run.map_or_else(|| run.id().as_uuid(), crate::id::FlowRunId::as_uuid);
        bytes.extend_from_slice(id.as_bytes());
    }
    if policy.flow_parameters {
        bytes.extend_from_slice(b"p");
        let nothing = serde_json::Value::Null;
        let parameters = run.scope.parameters.get().unwrap_or(&nothing);
        canonical::encode(parameters, &mut bytes).ok()?;
    }
    if policy.inputs {
        bytes.extend_from_slice(b"i");
        let encoded = panics::catch(|| call.encode(ArgEncoder::key(&mut bytes, policy.exclude)));
        if let Err(error) = encoded.unwrap_or_else(|said| Err(canonical::EncodeError(said))) {
            tracing::warn!(
                target: "orchestrator",
                "{} '{}' is not cached: {error}. Leave the argument out of the key with `#[cache(skip)]`, or give a `cache_key`",
                run.kind(),
                run.name(),
            );
            return None;
        }
    }
    Some(CacheKey(*blake3::hash(&bytes).as_bytes()))
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

/// Results that were inserted and that the backend may not have yet.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// Each with the journal's number of its insertion.
    values: DashMap<CacheKey, (u64, CacheHit)>,
    /// The same numbers, oldest first.
    order: Mutex<VecDeque<(u64, CacheKey)>>,
}

impl Fresh {
    fn insert(&self, orchestrator: &Inner, record: &CacheRecord, value: &Erased) {
        let hit =
            CacheHit { created: record.created, expires: record.expires, value: CachedValue::Live(Arc::clone(value)) };
        // The value is there before its event can be settled.
        self.values.insert(record.key, (u64::MAX, hit));
        orchestrator.journal.push(Event::Cached(record.clone()));
        let pushed = orchestrator.journal.pushed();
        if let Some(mut entry) = self.values.get_mut(&record.key) {
            entry.0 = pushed;
        }
        let settled = orchestrator.journal.settled();
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back((pushed, record.key));
        while let Some((number, key)) = order.pop_front_if(|(number, _)| *number <= settled) {
            self.values.remove_if(&key, |_, (latest, _)| *latest <= number);
        }
    }
}

/// The result under a key, if it is there.
pub(crate) async fn find(run: &Run, key: CacheKey, call: &mut dyn Call) -> Option<Erased> {
    let orchestrator = &run.scope.orchestrator;
    let now = orchestrator.clock.now();
    if let Some(value) = run.transaction.as_ref().and_then(|transaction| transaction.staged_result(&key))
        && call.gives(&value)
    {
        return Some(value);
    }
    let fresh = orchestrator.fresh.values.get(&key).map(|entry| entry.1.clone());
    let hit = match fresh.filter(|hit| hit.expires.is_none_or(|expires| now < expires)) {
        Some(hit) => Ok(Some(hit)),
        None if orchestrator.backend.in_process() => orchestrator.backend.cached(&key, now),
        None => orchestrator.reader.cached(key, now).await,
    };
    let unusable = |why: String| {
        tracing::warn!(target: "orchestrator", "{} '{}' does not use its cached result: {why}", run.kind(), run.name());
        None
    };
    match hit {
        Ok(None) => None,
        Ok(Some(CacheHit { value: CachedValue::Live(value), .. })) if call.gives(&value) => Some(value),
        Ok(Some(CacheHit { value: CachedValue::Live(_), .. })) => unusable("it is of another type".to_owned()),
        Ok(Some(CacheHit { value: CachedValue::Encoded(value), .. })) => {
            call.codec()?.decode(&value).or_else(|why| unusable(why).ok_or(())).ok()
        }
        Err(error) => unusable(error.to_string()),
    }
}

/// Under which key a run's result goes into the cache, and how it is encoded.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) key: CacheKey,
    pub(crate) codec: Option<&'static Codec>,
}

/// Puts a result into the cache.
pub(crate) fn insert(run: &Run, kept: Kept, value: &Erased) {
    let orchestrator = &run.scope.orchestrator;
    let created = orchestrator.clock.now();
    let expires = run.options().cache_ttl().map(|ttl| created.after(ttl));
    let record = |value| CacheRecord { key: kept.key, task_key: run.def.key, run: run.id(), created, expires, value };
    let warn = |why: &dyn std::fmt::Display| {
        tracing::warn!(target: "orchestrator", "the result of {} '{}' is not cached: {why}", run.kind(), run.name());
    };
    if orchestrator.backend.in_process() {
        // In place rather than through the queue: whoever waits for the claim looks at once.
        let stored = orchestrator.backend.append(&[Event::Cached(record(CachedValue::Live(Arc::clone(value))))]);
        return stored.unwrap_or_else(|error| warn(&error));
    }
    let Some(codec) = kept.codec else {
        return warn(&"its type is not `Serialize + DeserializeOwned`");
    };
    match panics::catch(|| codec.encode(&**value)).unwrap_or_else(Err) {
        Ok(encoded) => orchestrator.fresh.insert(orchestrator, &record(CachedValue::Encoded(encoded)), value),
        Err(error) => warn(&error),
    }
}
