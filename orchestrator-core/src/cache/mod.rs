//! The cache: keys, look-ups with a single flight per key, and insertions.

pub(crate) mod canonical;
mod flight;
mod fresh;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use crate::backend::record::{CacheHit, CacheKey, CacheReason, CacheRecord, CachedValue, Event};
use crate::backend::{BackendError, StateBackend};
use crate::body::{ArgEncoder, ArgError, Codec, DecodeError, Erased};
use crate::clock::Timestamp;
use crate::def::CachePolicy;
use crate::engine::{Call, panics};
use crate::id::FlowRunId;
use crate::orchestrator::Inner;
use crate::run::Run;

pub(crate) use flight::{Claim, Elsewhere, Flight, Flights};
pub(crate) use fresh::Fresh;
pub(crate) use reader::Reader;

/// Says what a key is made of, so that keys of different making never meet.
const KEY_VERSION: &[u8] = b"orchestrator cache key 1";

/// Why a result cannot be stored.
pub(crate) const NO_CODEC: &str = "its type is not `Serialize + DeserializeOwned`";

/// Whether results of the run are looked up in the cache.
pub(crate) fn is_asked(run: &Run) -> bool {
    !run.is_flow() && run.visible && run.options().cache_policy().is_some()
}

/// The run's cache key, or why it has none; `None` if it is not cached.
pub(crate) fn key(run: &Run, call: &dyn Call) -> Option<Result<CacheKey, CacheReason>> {
    if run.is_flow() || !run.visible {
        return None;
    }
    let policy = run.options().cache_policy()?;
    Some(key_of(run, call, policy))
}

fn key_of(run: &Run, call: &dyn Call, policy: CachePolicy) -> Result<CacheKey, CacheReason> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(KEY_VERSION);
    part(&mut bytes, run.def().key.as_bytes());
    let own = panics::catch(|| call.cache_key())
        .map_err(|said| CacheReason::Unkeyed { argument: None, why: format!("its key function {said}") })?;
    match own {
        Some(None) => return Err(CacheReason::Declined),
        Some(Some(own)) => {
            bytes.push(1);
            part(&mut bytes, own.as_bytes());
            return Ok(CacheKey(*blake3::hash(&bytes).as_bytes()));
        }
        None => bytes.push(0),
    }
    if policy.task_source {
        bytes.extend_from_slice(b"s");
        bytes.extend_from_slice(&run.def().fingerprint.to_le_bytes());
    }
    if policy.run_id {
        bytes.extend_from_slice(b"r");
        let id = run.flow_run().map_or_else(|| run.id().as_uuid(), FlowRunId::as_uuid);
        bytes.extend_from_slice(id.as_bytes());
    }
    if policy.flow_parameters {
        bytes.extend_from_slice(b"p");
        let nothing = serde_json::Value::Null;
        let parameters = run.scope().parameters.get().unwrap_or(&nothing);
        canonical::encode(parameters, &mut bytes).map_err(|error| CacheReason::Unkeyed {
            argument: None,
            why: format!("the flow's parameters cannot be encoded: {error}"),
        })?;
    }
    if policy.inputs {
        bytes.extend_from_slice(b"i");
        let encoded = panics::catch(|| call.encode(ArgEncoder::key(&mut bytes, policy.exclude)));
        encoded
            .unwrap_or_else(|said| Err(ArgError { argument: None, why: said }))
            .map_err(|ArgError { argument, why }| CacheReason::Unkeyed { argument, why })?;
    }
    Ok(CacheKey(*blake3::hash(&bytes).as_bytes()))
}

/// Says in the log that a run that asked for the cache does without it.
pub(crate) fn warn_unkeyed(run: &Run, reason: &CacheReason) {
    if let CacheReason::Unkeyed { argument, .. } = reason {
        let advice = match argument {
            Some(_) => ". Leave the argument out of the key with `#[cache(skip)]`, or give a `cache_key`",
            None => "",
        };
        tracing::warn!(target: "orchestrator", "{} '{}' is {reason}{advice}", run.kind(), run.name());
    }
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

/// The result under a key and why it is taken, or why there is none.
pub(crate) async fn find(run: &Run, key: CacheKey, call: &mut dyn Call) -> Result<(Erased, CacheReason), CacheReason> {
    let orchestrator = &run.scope().orchestrator;
    let now = orchestrator.clock.now();
    if let Some((value, staged_by)) =
        run.transaction().filter(|around| around.holds(run)).and_then(|around| around.staged_result(&key))
        && call.gives(&value)
        && let Some(run) = staged_by.as_task()
    {
        return Ok((value, CacheReason::Staged { run }));
    }
    let hit = look(orchestrator, Shelf::Cache, key).await;
    let hit = hit.map_err(|error| CacheReason::Unreadable { why: error.to_string() })?;
    let hit = hit.ok_or(CacheReason::Absent)?;
    if let Some(at) = hit.expires.filter(|_| !hit.is_fresh(now)) {
        return Err(CacheReason::Expired { at: at.to_datetime() });
    }
    let (by, created, expires) = (hit.run, hit.created.to_datetime(), hit.expires.map(Timestamp::to_datetime));
    let value = take(hit.value, call)?;
    Ok((value, CacheReason::Found { run: by, created, expires }))
}

/// A stored value as the task gives it, or why it is not one.
fn take(value: CachedValue, call: &dyn Call) -> Result<Erased, CacheReason> {
    match value {
        CachedValue::Live(value) if call.gives(&value) => Ok(value),
        CachedValue::Live(_) => Err(CacheReason::OtherType { found: None }),
        CachedValue::Encoded(value) => match call.codec() {
            Some(codec) => panics::catch(|| codec.decode(&value))
                .unwrap_or_else(|said| Err(DecodeError::Unreadable(said)))
                .map_err(CacheReason::from),
            None => Err(CacheReason::Unreadable { why: NO_CODEC.to_owned() }),
        },
        CachedValue::Stored(_) => Err(CacheReason::Unreadable { why: "it is not in the cache itself".to_owned() }),
    }
}

impl From<DecodeError> for CacheReason {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::OtherFormat(found) => Self::OtherFormat { found },
            DecodeError::OtherType(found) => Self::OtherType { found: Some(found) },
            DecodeError::Unreadable(why) => Self::Unreadable { why },
        }
    }
}

/// What is to be done with the result of a run when its transaction commits, besides its hooks.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    /// Under which key it goes into the cache.
    pub(crate) cache: Option<CacheKey>,
    pub(crate) codec: Option<&'static Codec>,
}

impl Kept {
    /// Puts what the run gave when it completed, at `created`, into the cache: in a transaction that was some time ago.
    pub(crate) fn cache(self, run: &Run, value: &Erased, created: Timestamp) {
        if let Some(key) = self.cache {
            insert(run, key, self.codec, value, created);
        }
    }
}

/// Puts a result into the cache.
pub(crate) fn insert(run: &Run, key: CacheKey, codec: Option<&'static Codec>, value: &Erased, created: Timestamp) {
    if let Err(why) = put(run, (key, run.options().cache_ttl()), codec, value, created) {
        tracing::warn!(target: "orchestrator", "the result of {} '{}' is not cached: {why}", run.kind(), run.name());
    }
}

/// Where results are put, and looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// The cache.
    Cache,
    /// What a root flow run keeps.
    Results(FlowRunId),
}

impl Shelf {
    fn find(self, backend: &dyn StateBackend, key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        match self {
            Self::Cache => backend.cached(key),
            Self::Results(root) => backend.result(root, key),
        }
    }
}

/// The record under a key, wherever it is at the moment.
pub(crate) async fn look(orchestrator: &Inner, shelf: Shelf, key: CacheKey) -> Result<Option<CacheHit>, BackendError> {
    // Whoever looks for what a flow run keeps comes after the store has it.
    match (shelf == Shelf::Cache).then(|| orchestrator.fresh.find(&key)).flatten() {
        Some(hit) => Ok(Some(hit)),
        None if orchestrator.backend.in_process() => shelf.find(&*orchestrator.backend, &key),
        None => orchestrator.reader.read(shelf, key).await,
    }
}

/// Stores a result under a key, for as long as is said there; an error says why it cannot be stored.
fn put(
    run: &Run,
    (key, ttl): (CacheKey, Option<Duration>),
    codec: Option<&'static Codec>,
    value: &Erased,
    created: Timestamp,
) -> Result<(), String> {
    let orchestrator = &run.scope().orchestrator;
    let expires = ttl.map(|ttl| created.after(ttl));
    let Some(id) = run.id().as_task() else { return Ok(()) };
    let task_key = run.def().key;
    let record = |value| Event::Cached(Box::new(CacheRecord { key, task_key, run: id, created, expires, value }));
    if orchestrator.backend.in_process() {
        // In place rather than through the queue: whoever waits for the claim looks at once.
        let event = record(CachedValue::Live(Arc::clone(value)));
        return orchestrator.backend.append(&[event]).map_err(|error| error.to_string());
    }
    let codec = codec.ok_or(NO_CODEC)?;
    let encoded = panics::catch(|| codec.encode(&**value)).flatten()?;
    let hit = CacheHit { run: id, created, expires, value: CachedValue::Live(Arc::clone(value)) };
    orchestrator.fresh.insert(&orchestrator.journal, record(CachedValue::Encoded(encoded)), key, hit);
    Ok(())
}
