//! Look-ups in a store that blocks: one thread reads for all runs, as many keys at a time as have gathered.
//!
//! A thread of the blocking pool for each look-up would cost more than the look-up, and give the store hundreds of
//! readers at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::Shelf;
use crate::backend::record::{CacheHit, CacheKey};
use crate::backend::{BackendError, BackendErrorKind, StateBackend};

type Answer = Result<Option<CacheHit>, BackendError>;

/// The reader of one orchestrator; its thread is started by the first look-up.
#[derive(Debug)]
pub(crate) struct Reader {
    backend: Arc<dyn StateBackend>,
    desk: OnceLock<Arc<Desk>>,
}

#[derive(Debug, Default)]
struct Desk {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    wanted: Vec<(Shelf, CacheKey, oneshot::Sender<Answer>)>,
    closed: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, backend: &dyn StateBackend) {
        loop {
            let idle = |queue: &mut Queue| queue.wanted.is_empty() && !queue.closed;
            let mut queue = self.work.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let wanted = std::mem::take(&mut queue.wanted);
            drop(queue);
            if wanted.is_empty() {
                return;
            }
            for (shelf, key, answer) in wanted {
                // Nobody waits any more if the run was cancelled.
                let _ = answer.send(shelf.find(backend, &key));
            }
        }
    }
}

impl Reader {
    pub(crate) const fn new(backend: Arc<dyn StateBackend>) -> Self {
        Self { backend, desk: OnceLock::new() }
    }

    /// The record under `key`.
    pub(super) async fn read(&self, shelf: Shelf, key: CacheKey) -> Answer {
        let gone = || Err(BackendError::new(BackendErrorKind::Other, "read the cache: its reader is gone"));
        // Only a runtime of one thread can have a paused clock, which stands still while a blocking task is active.
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            let backend = Arc::clone(&self.backend);
            return tokio::task::spawn_blocking(move || shelf.find(&*backend, &key)).await.unwrap_or_else(|_| gone());
        }
        let desk = self.desk.get_or_init(|| {
            let desk = Arc::new(Desk::default());
            let (backend, reader) = (Arc::clone(&self.backend), Arc::clone(&desk));
            std::thread::Builder::new()
                .name("orchestrator-cache".to_owned())
                .spawn(move || reader.read(&*backend))
                .expect("the system has a thread for the cache");
            desk
        });
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut queue = desk.lock();
            queue.wanted.push((shelf, key, answer));
            queue.wanted.len() == 1
        };
        if first {
            desk.work.notify_one();
        }
        answered.await.unwrap_or_else(|_| gone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.get() {
            desk.lock().closed = true;
            desk.work.notify_one();
        }
    }
}
