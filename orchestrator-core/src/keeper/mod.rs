//! The part of an orchestrator in a store that several processes share: it says now and then that it is there, looks for
//! those that are gone, and finds out when it was found to be gone itself.
//!
//! All of that is done by a thread of its own, which waits for nothing that runs or their history do.

mod gone;
mod membership;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::record::Process;
use crate::backend::{BackendError, Owner, OwnerNo, Shared, StateBackend};
use crate::clock::{Clock, SystemClock};
use crate::elsewhere::Server;
use crate::engine::panics;
use crate::id::RunId;
use crate::orchestrator::Inner;
use crate::process::Session;
use crate::recovery;
pub(crate) use gone::Silence;
use gone::Watch;
pub(crate) use membership::Membership;

/// How often the thread looks whether there is something to do.
const POLL: Duration = Duration::from_millis(100);
/// A lease is renewed so many times before it is over.
const BEATS: u32 = 6;
/// And at least so often.
const LONGEST_BEAT: Duration = Duration::from_secs(5);

/// How long it is tried to leave.
const LEAVING: Duration = Duration::from_secs(1);
const LEAVE_AGAIN: Duration = Duration::from_millis(20);

/// Keeps an orchestrator's lease; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: Arc<State>,
    /// `None` if nobody need know of it, or if it has left.
    working: Mutex<Option<(JoinHandle<()>, Session)>>,
}

#[derive(Debug)]
struct State {
    backend: Arc<dyn StateBackend>,
    clock: Arc<dyn Clock>,
    lease: Duration,
    membership: Arc<Membership>,
    watch: Mutex<Watch>,
    /// Whose runs others may ask something of, and which are to end when the store takes nothing of them any more.
    runs: OnceLock<Weak<Inner>>,
}

/// What an orchestrator does in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It runs what it is given.
    Works,
    /// It looks at what others do, and holds nothing: nobody need know of it.
    Looks,
}

impl Keeper {
    /// Enters an orchestrator that works in its store, and ends what others have left there; `None` if the store is shared by none.
    ///
    /// Trouble with the store is reported, and tried again later.
    pub(crate) fn start(
        backend: &Arc<dyn StateBackend>,
        clock: &Arc<dyn Clock>,
        lease: Duration,
        role: Role,
    ) -> Option<Self> {
        backend.shared()?;
        let session = Session::begin();
        let state = Arc::new(State {
            backend: Arc::clone(backend),
            clock: Arc::clone(clock),
            lease,
            membership: Arc::new(Membership::new(Arc::clone(backend), session.process())),
            watch: Mutex::default(),
            runs: OnceLock::new(),
        });
        if role == Role::Looks {
            state.look();
            return Some(Self { state, working: Mutex::default() });
        }
        if let Err(error) = state.renew() {
            tracing::warn!(
                target: "orchestrator",
                "cannot tell other processes that this one is there: {error}. It is tried again",
            );
        }
        state.look();
        let keeping = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("orchestrator-keeper".to_owned())
            .spawn(move || keeping.keep())
            .expect("the system has a thread for the keeper");
        Some(Self { state, working: Mutex::new(Some((thread, session))) })
    }

    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.state.membership
    }

    /// Does with the runs of the orchestrator what others ask, and ends them as soon as the store takes nothing of them
    /// any more.
    pub(crate) fn keep_runs_of(&self, inner: &Arc<Inner>) {
        let _ = self.state.runs.set(Arc::downgrade(inner));
    }

    /// What those need who wait for something that others hold.
    pub(crate) fn lookout(&self) -> Lookout {
        Lookout(Arc::clone(&self.state))
    }

    /// Leaves the store: from now on nothing is taken of what the orchestrator writes.
    ///
    /// If it cannot, others find when its lease is over that it has ended.
    pub(crate) fn leave(&self) -> Result<(), BackendError> {
        self.state.membership.stop();
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, _session)) = working else { return Ok(()) };
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
        let State { membership, .. } = &*self.state;
        let Some(owner) = membership.owner() else { return Ok(()) };
        let until = Instant::now() + LEAVING;
        loop {
            match self.state.shared().leave(owner, SystemClock.now()) {
                Err(error) if error.is_transient() && Instant::now() < until => std::thread::sleep(LEAVE_AGAIN),
                left => return left,
            }
        }
    }
}

/// Looks for those who are gone on behalf of somebody who waits for what they hold; blocks.
#[derive(Debug, Clone)]
pub(crate) struct Lookout(Arc<State>);

impl Lookout {
    /// The number of this orchestrator; `None` as long as it could not be entered.
    pub(crate) fn owner(&self) -> Option<OwnerNo> {
        self.0.membership.owner()
    }

    /// Why nothing is shared with others as long as this orchestrator could not be entered.
    pub(crate) fn not_entered(&self) -> BackendError {
        self.0.membership.not_entered()
    }

    /// Whether it may be entered at any moment, though it was not yet.
    pub(crate) fn is_entering(&self) -> bool {
        self.0.membership.is_entering()
    }

    /// The store takes nothing any more from this orchestrator.
    pub(crate) fn fence(&self) {
        self.0.membership.fence();
    }

    /// Ends the orchestrator that a run belongs to, if it is gone.
    pub(crate) fn look_at_owner_of(&self, run: RunId) {
        let looked = panics::shield(|| {
            let owner = self.0.shared().owner_of(run)?;
            owner.map_or(Ok(false), |owner| self.0.look_at(&owner))
        });
        if let Some(Err(error)) = looked {
            tracing::debug!(target: "orchestrator", "cannot look for the process of run {run}: {error}");
        }
    }

    /// If nobody here can say whether the owner of a run is gone, though its lease is over.
    pub(crate) fn silence(&self, owner: &Owner) -> Option<Silence> {
        self.0.silence(owner)
    }

    /// Ends those who are gone.
    pub(crate) fn look(&self) {
        panics::shield(|| self.0.look());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            panics::shield(|| {
                tracing::debug!(target: "orchestrator", "cannot tell other processes that this one leaves: {error}");
            });
        }
    }
}

impl State {
    fn shared(&self) -> &dyn Shared {
        self.backend.shared().expect("a store that is shared stays so")
    }

    fn process(&self) -> &'static Process {
        self.membership.process()
    }

    /// The thread's life.
    fn keep(&self) {
        let beat = (self.lease / BEATS).min(LONGEST_BEAT);
        // Who could not be entered at the start is tried again in a moment, too.
        let mut next = self.membership.owner().map_or_else(Instant::now, |_| Instant::now() + beat);
        let mut server = Server::default();
        let mut stopped_runs = false;
        while self.membership.sleep(POLL.min(beat), stopped_runs) {
            if let Some(why) = self.membership.fenced() {
                if !stopped_runs && let Some(runs) = self.runs.get() {
                    stopped_runs = true;
                    if let Some(inner) = runs.upgrade() {
                        panics::shield(|| inner.give_up(why));
                    }
                }
                continue;
            }
            panics::shield(|| self.serve(&mut server));
            if Instant::now() < next {
                continue;
            }
            // What is missed, because the store is busy or full, is tried again in a moment.
            if self.renew().is_ok() {
                next = Instant::now() + beat;
                panics::shield(|| self.look());
                if let Some(inner) = self.runs.get().and_then(Weak::upgrade) {
                    panics::shield(|| recovery::look(&inner));
                }
            }
        }
    }

    /// Looks what others ask of the runs here.
    fn serve(&self, server: &mut Server) {
        let (Some(owner), Some(runs)) = (self.membership.owner(), self.runs.get()) else { return };
        // What is the matter with the store, the heartbeat tells.
        let _ = server.serve(|| self.shared().take_requests(owner), || runs.upgrade());
    }

    /// Says that the orchestrator is there.
    fn renew(&self) -> Result<(), BackendError> {
        let until = SystemClock.now().after(self.lease);
        let renewed = match self.membership.owner() {
            Some(owner) => self.shared().renew(owner, until),
            None => self.membership.joined(self.shared().join(self.process(), until)),
        };
        self.membership.heard(&renewed);
        renewed
    }
}
