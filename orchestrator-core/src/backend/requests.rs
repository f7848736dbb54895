//! What orchestrators that share a store want of each other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BackendError, OwnerNo};
use crate::clock::Timestamp;
use crate::id::RunId;

/// The number of a request in a shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNo(pub i64);

/// Something that is to happen to a run of another orchestrator.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its number, for the answer.
    pub no: RequestNo,
    /// The run.
    pub run: RunId,
    /// What is to happen to it; `None` if that cannot be read, because a newer version asks.
    pub wanted: Option<Wanted>,
}

/// What is to happen to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Wanted {
    /// It is to be cancelled, with all that it started.
    Cancel,
    /// Its oldest pause is to be resumed with that input.
    Resume(Value),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// It is being done. That is answered first: what is done may be the end of the orchestrator.
    Done,
    /// The run is not active there.
    NotActive,
    /// The flow run is not paused; says why.
    NotPaused(String),
    /// The pause does not take that input; says why.
    InvalidInput(String),
    /// It was not done for another reason, which it says.
    Refused(String),
    /// The orchestrator has ended without an answer: nothing came of it.
    Gone,
}

/// Carries requests to orchestrators, and answers back.
///
/// A request is there until it is withdrawn, its run is removed, or the orchestrator that it was for has ended without
/// having answered it.
pub trait Requests {
    /// Leaves a request for an orchestrator; `None` if that has ended.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn request(
        &self,
        owner: OwnerNo,
        run: RunId,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Option<RequestNo>, BackendError>;

    /// The requests that are there for an orchestrator, oldest first; each is given out once.
    ///
    /// Cheap if there are none: it is asked many times a second.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    fn take_requests(&self, owner: OwnerNo) -> Result<Vec<Request>, BackendError>;

    /// Says what became of a request.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn answer(&self, request: RequestNo, answer: &Answer) -> Result<(), BackendError>;

    /// What became of a request, if that is known yet.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn answered(&self, request: RequestNo) -> Result<Option<Answer>, BackendError>;

    /// Takes a request back, together with its answer.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn withdraw(&self, request: RequestNo) -> Result<(), BackendError>;
}
