//! Who uses a shared store at the moment, and whose runs are whose.

use super::BackendError;
use super::record::Process;
use crate::clock::Timestamp;
use crate::id::RunId;

/// The number of an orchestrator in a shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerNo(pub i64);

/// An orchestrator that uses a shared store, or used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub no: OwnerNo,
    /// The machine and process that it is in.
    pub process: Process,
    /// Until when it said that it would be there; `None` if it never said so.
    pub lease_until: Option<Timestamp>,
    /// When it said so last.
    pub heard: Option<Timestamp>,
    /// When it left, or was found to be gone: from then on nothing that it writes is taken.
    pub ended: Option<Timestamp>,
    /// Why it was found to be gone; `None` as long as it was not, and if it left.
    pub why: Option<String>,
}

/// Keeps the leases of the orchestrators that share a store, and ends the runs of those that are gone.
///
/// The store does not judge who is gone: whoever looks does. It sees to it that one of several who look at the same time
/// is the one that acts, and that an orchestrator which was found to be gone writes nothing any more.
///
/// Leases are told by the system's clock, which is what processes have in common.
pub trait Ownership {
    /// Enters an orchestrator, or renews the lease of one that is there already; gives its number.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or if that orchestrator has left ([`Fenced`](super::BackendErrorKind::Fenced)).
    fn join(&self, process: &Process, until: Timestamp) -> Result<OwnerNo, BackendError>;

    /// Says that the orchestrator is there, and will be until that moment.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or if the orchestrator was found to be gone
    /// ([`Fenced`](super::BackendErrorKind::Fenced)).
    fn renew(&self, owner: OwnerNo, until: Timestamp) -> Result<(), BackendError>;

    /// The orchestrator is done: it writes nothing any more, and holds nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn leave(&self, owner: OwnerNo, now: Timestamp) -> Result<(), BackendError>;

    /// The orchestrators that have not left, and those that have left runs behind which have not ended; by number.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn owners(&self) -> Result<Vec<Owner>, BackendError>;

    /// The orchestrator of that number, if there was one.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn owner(&self, no: OwnerNo) -> Result<Option<Owner>, BackendError>;

    /// The orchestrator that a run belongs to, if the run is known.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn owner_of(&self, run: RunId) -> Result<Option<Owner>, BackendError>;

    /// Ends an orchestrator that is gone: in one step nothing that it writes is taken any more, what it held is free, and
    /// its runs that have not ended are Crashed, with `message`, at `at` or a moment after their last state. Gives their
    /// number; `None` if there was nothing to do, because somebody else did it, or because the orchestrator has renewed
    /// its lease since it was looked at.
    ///
    /// # Errors
    ///
    /// If the store cannot be written; then nothing was done.
    fn expel(&self, owner: &Owner, at: Timestamp, message: &str) -> Result<Option<usize>, BackendError>;
}
