//! Results that a flow run keeps, so that a further attempt does not compute them again.
//!
//! A result is kept under the identity of its call: where the call was made, what it calls, with which inputs, and the
//! number of the call among equal ones. Nothing of it belongs to a process: the same call of the same flow run has the
//! same identity anywhere. Calls are numbered in the order in which they are made, or, where a call waits for others, in
//! the order in which their inputs are there. Where inputs cannot be encoded, or are not on record, the source of the body
//! that makes the call and the call's place among those of its task there take part instead.

mod find;
mod keep;
mod leave;
mod unkept;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use smallvec::SmallVec;

use crate::backend::StateBackend;
use crate::backend::record::CacheKey;
use crate::body::ArgEncoder;
use crate::cache;
use crate::def::{Def, DefKind};
use crate::engine::{self, Call, panics};
use crate::error::TaskError;
use crate::id::FlowRunId;
use crate::options::CallOptions;
use crate::orchestrator::Inner;
use crate::run::Run;
use crate::scope::Scope;
use crate::state::Transition;

pub(crate) use find::find;
pub(crate) use keep::{complete, prepare, reveal, send, settle, warn};
use leave::Leaving;
pub(crate) use leave::leave;
pub(crate) use unkept::Unkept;

/// Says what an identity is made of, so that those of different making never meet.
const VERSION: &[u8] = b"orchestrator call 1";

/// What a run knows of the identity of its call: a task run whose result is kept, or a flow run inside another one.
pub(crate) struct Identified {
    /// The number of the call among those of the same function in the same body; `None` where that is left to chance.
    place: Option<u32>,
    /// What came of resolving the inputs, if that was done before the run was driven.
    resolved: Mutex<Option<Resolved>>,
    /// `None`: its result is not kept after all.
    identity: OnceLock<Option<CacheKey>>,
    /// The terminal state that was sent together with the result, until it is shown.
    proposed: Mutex<Option<Transition>>,
}

/// The inputs are there, an upstream run failed, or code of the user panicked.
pub(crate) type Resolved = Result<Result<(), TaskError>, String>;

impl Identified {
    /// What is to be known of a call; `None` for all that keep nothing. `in_order`: whether the body itself makes it.
    pub(crate) fn of(
        def: &'static Def,
        options: Option<&CallOptions>,
        call: &dyn Call,
        (scope, parent): (&Scope, Option<&Arc<Run>>),
        in_order: bool,
    ) -> Option<Box<Self>> {
        scope.flow?;
        let place = || {
            let body = match parent {
                Some(parent) if !in_order || !parent.visible => None,
                Some(parent) if parent.is_flow() => Some(scope.identity()),
                Some(parent) => identity(parent),
                None => None,
            };
            body.map(|body| scope.calls.next_of(body, def))
        };
        if def.kind == DefKind::Flow {
            return Some(Self::at(if def.parameters.is_empty() { None } else { place() }));
        }
        let own = options.and_then(|options| options.persist).or(def.persist);
        if !own.unwrap_or(scope.persist) {
            return None;
        }
        if call.codec().is_none() {
            if own.is_some() {
                let name = def.name;
                tracing::warn!(target: "orchestrator", "results of task '{name}' are not persisted: {}", cache::NO_CODEC);
            }
            return None;
        }
        Some(Self::at(place()))
    }

    fn at(place: Option<u32>) -> Box<Self> {
        let (resolved, identity, proposed) = (Mutex::default(), OnceLock::new(), Mutex::default());
        Box::new(Self { place, resolved, identity, proposed })
    }
}

/// How many calls of each kind there were in the present attempt of a flow run.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    equal: HashMap<CacheKey, u32, Fast>,
    /// Those of a function in a body.
    of_function: HashMap<(CacheKey, &'static str), u32, Fast>,
}

impl Calls {
    fn next(&self, equal: CacheKey) -> u32 {
        next(self.lock().equal.entry(equal).or_default())
    }

    fn next_of(&self, body: CacheKey, def: &'static Def) -> u32 {
        next(self.lock().of_function.entry((body, def.key)).or_default())
    }

    /// Another attempt begins: what the one before it had called has ended.
    pub(crate) fn start_over(&self) {
        drop(std::mem::take(&mut *self.lock()));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next(count: &mut u32) -> u32 {
    *count += 1;
    *count - 1
}

/// A fast hash, which is enough where there is a good one in what is hashed.
type Fast = BuildHasherDefault<FastHasher>;

#[derive(Debug, Default)]
struct FastHasher(u64);

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Identifies a call whose inputs are there, on the thread that brought them: there, calls come in order.
pub(crate) fn launched(run: &Arc<Run>) {
    let Some(identified) = run.identified().filter(|_| !run.is_cancelled()) else { return };
    let mut call = run.take_call();
    let resolved = panics::catch(|| engine::resolve(run, &mut *call).inspect(|()| identify(run, &*call)));
    run.put_call(call);
    *identified.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
}

/// What came of the inputs when the run was launched.
pub(crate) fn take_resolved(run: &Run) -> Option<Resolved> {
    run.identified()?.resolved.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The identity of the run's call, if its result is kept.
pub(crate) fn identity(run: &Run) -> Option<CacheKey> {
    *run.identified()?.identity.get()?
}

/// Gives the call its identity, once.
pub(crate) fn identify(run: &Run, call: &dyn Call) {
    let Some(identified) = run.identified() else { return };
    if run.is_flow() {
        let Some(parent) = &run.parent else { return };
        let parameters = engine::record_parameters(run, call);
        let outer = parent.scope();
        let equal = hash(|bytes| {
            bytes.extend_from_slice(b"flow");
            bytes.extend_from_slice(&outer.identity().0);
            part(bytes, run.def().key.as_bytes());
            part(bytes, parameters.to_string().as_bytes());
        });
        let recorded = parameters.as_object().map_or(0, serde_json::Map::len);
        run.scope().identify(match identified.place {
            _ if recorded == run.def().parameters.len() => numbered(equal, outer.calls.next(equal)),
            // What is left out of the record may tell apart what is equal otherwise.
            Some(place) => numbered(at_a_place(run, equal), place),
            // Nothing is ever found under this one.
            None => hash(|bytes| bytes.extend_from_slice(run.id().as_uuid().as_bytes())),
        });
        return;
    }
    let mut inputs = Vec::with_capacity(64);
    let encoded = panics::catch(|| call.encode(ArgEncoder::identity(&mut inputs)));
    let problem = match encoded {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(said) => {
            inputs.clear();
            Some(format!("an argument {said}"))
        }
    };
    let scope = run.scope();
    let equal = hash(|bytes| {
        bytes.extend_from_slice(if problem.is_none() { b"task" } else { b"by place" });
        bytes.extend_from_slice(&scope.identity().0);
        part(bytes, run.def().key.as_bytes());
        bytes.extend_from_slice(&run.def().fingerprint.to_le_bytes());
        part(bytes, &inputs);
    });
    let identity = match (problem, identified.place) {
        (None, _) => Some(numbered(equal, scope.calls.next(equal))),
        (Some(_), Some(place)) => Some(numbered(at_a_place(run, equal), place)),
        (Some(problem), None) => {
            tracing::warn!(
                target: "orchestrator",
                "the result of {} '{}' is not persisted: {problem}, and its place in the flow is left to chance",
                run.kind(),
                run.name(),
            );
            None
        }
    };
    let _ = identified.identity.set(identity);
}

/// What a call has in common with others that are told apart by their places, which a changed body may exchange.
fn at_a_place(run: &Run, equal: CacheKey) -> CacheKey {
    hash(|bytes| {
        bytes.extend_from_slice(b"at a place");
        bytes.extend_from_slice(&equal.0);
        let body = run.parent.as_ref().map_or(0, |parent| parent.def().fingerprint);
        bytes.extend_from_slice(&body.to_le_bytes());
    })
}

/// The identity under which a result of the call may be kept already: no look is taken where there can be none.
pub(crate) fn sought(run: &Run) -> Option<CacheKey> {
    identity(run).filter(|_| run.scope().kept.is_possible())
}

/// What all flow runs beneath a root one share of its results: whose they are, and whether some may be there from before,
/// from an attempt that it made, or in a process that went away.
#[derive(Default)]
pub(crate) struct KeptBefore {
    /// `None` outside of flows.
    root: Option<FlowRunId>,
    is_possible: AtomicBool,
    /// Runs whose results are on their way to the store.
    leaving: Leaving,
    /// The store that was asked for some: it remembers which there are.
    asked: OnceLock<Arc<dyn StateBackend>>,
}

impl KeptBefore {
    /// Those of a root flow run.
    pub(crate) fn of(root: FlowRunId) -> Arc<Self> {
        let (is_possible, leaving, asked) = (AtomicBool::new(false), Leaving::default(), OnceLock::new());
        Arc::new(Self { root: Some(root), is_possible, leaving, asked })
    }

    pub(crate) fn may_be_there(&self) {
        self.is_possible.store(true, Ordering::Release);
    }

    fn is_possible(&self) -> bool {
        self.is_possible.load(Ordering::Acquire)
    }

    /// The root flow run, whose results the store is about to be asked for.
    fn looked_through(&self, orchestrator: &Inner) -> Option<FlowRunId> {
        self.asked.get_or_init(|| Arc::clone(&orchestrator.backend));
        self.root
    }

    /// The root flow run has ended: what the store remembers of its results is not needed any more, unless something of
    /// it goes on.
    pub(crate) fn let_go(&self) {
        if let (Some(root), Some(backend)) = (self.root, self.asked.get()) {
            backend.let_go_of_results(root);
        }
    }
}

impl Drop for KeptBefore {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The identity of a flow run that no other one called.
pub(crate) fn of_root(scope: &Scope) -> CacheKey {
    hash(|bytes| {
        bytes.extend_from_slice(b"root");
        if let Some(flow) = scope.flow {
            bytes.extend_from_slice(flow.as_uuid().as_bytes());
        }
    })
}

fn numbered(equal: CacheKey, number: u32) -> CacheKey {
    hash(|bytes| {
        bytes.extend_from_slice(b"number");
        bytes.extend_from_slice(&equal.0);
        bytes.extend_from_slice(&number.to_le_bytes());
    })
}

fn hash(write: impl FnOnce(&mut Bytes)) -> CacheKey {
    let mut bytes = Bytes::new();
    part(&mut bytes, VERSION);
    write(&mut bytes);
    CacheKey(*blake3::hash(&bytes).as_bytes())
}

/// What is hashed; mostly it is short.
type Bytes = SmallVec<[u8; 256]>;

fn part(bytes: &mut Bytes, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}
