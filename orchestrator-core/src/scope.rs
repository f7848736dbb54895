//! What the runs of one flow run share: the runtime they run on, the numbers in their names, the flow's capacity.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::backend::record::{CacheKey, SharedList};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::engine::Launcher;
use crate::id::FlowRunId;
use crate::orchestrator::Inner;
use crate::pause::Pauses;
use crate::persist::{self, Calls, KeptBefore};

// Aligned, so that what runs read in it does not share a cache line with the count of those who refer to it, which each run changes.
#[repr(align(128))]
pub(crate) struct Scope {
    pub(crate) orchestrator: Arc<Inner>,
    /// The way into the runtime that the runs are driven on; `None` where a call was made outside of any.
    pub(crate) launcher: Option<Arc<Launcher>>,
    /// The flow run that the scope belongs to; `None` outside of flows.
    pub(crate) flow: Option<FlowRunId>,
    /// The flow's tags, which its tasks inherit.
    pub(crate) tags: SharedList<Box<str>>,
    /// The flow's parameters, once they are recorded.
    pub(crate) parameters: OnceLock<serde_json::Value>,
    /// When the body of a flow run that was resumed was first started.
    pub(crate) first_started: OnceLock<Timestamp>,
    /// Places for tasks of the flow that run at the same time, and how many there are.
    pub(crate) capacity: Option<(Arc<Semaphore>, usize)>,
    /// The pauses of the flow run.
    pub(crate) pauses: Pauses,
    /// Whether results of tasks that say nothing are kept for the flow run.
    pub(crate) persist: bool,
    /// The calls whose results are kept.
    pub(crate) calls: Calls,
    /// Whether some may be kept already; shared by all flow runs beneath one.
    pub(crate) kept: Arc<KeptBefore>,
    identity: OnceLock<CacheKey>,
    counts: Arc<Counts>,
}

/// The number of the last run of each function, by the address of its definition.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<SmallVec<[(usize, u32); 4]>>);

impl Scope {
    pub(crate) fn new(
        orchestrator: Arc<Inner>,
        launcher: Option<Arc<Launcher>>,
        flow: Option<FlowRunId>,
        tags: SharedList<Box<str>>,
        capacity: Option<usize>,
        (persist, kept): (bool, Arc<KeptBefore>),
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let capacity = capacity.map(|size| (Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS))), size));
        Arc::new(Self {
            orchestrator,
            launcher,
            flow,
            tags,
            parameters: OnceLock::new(),
            first_started: OnceLock::new(),
            capacity,
            pauses: Pauses::default(),
            persist,
            calls: Calls::default(),
            kept,
            identity: OnceLock::new(),
            counts,
        })
    }

    /// The runtime that the runs are driven on.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.launcher.as_deref().map(Launcher::handle)
    }

    /// What tells the flow run from all others, in this process and in later ones.
    pub(crate) fn identity(&self) -> CacheKey {
        *self.identity.get_or_init(|| persist::of_root(self))
    }

    /// Gives the scope of a flow run inside another one its identity, before anything asks for it.
    pub(crate) fn identify(&self, identity: CacheKey) {
        let _ = self.identity.set(identity);
    }

    /// The number of the next run of a function, counted from 0.
    pub(crate) fn next_index(&self, def: &'static Def) -> u32 {
        let address = std::ptr::from_ref(def).addr();
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == address) {
            *count += 1;
            return *count;
        }
        counts.push((address, 0));
        0
    }
}
