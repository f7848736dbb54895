//! What is left to do about runs that crashed with their process.

use super::{BackendError, OwnerNo};
use crate::id::{FlowRunId, RunId};

/// A run that crashed with its process, whose hooks nobody has called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The run.
    pub run: RunId,
    /// Where its function stands: its module path and name.
    pub key: String,
    /// The display name of its function.
    pub function: String,
}

/// Sees to it that of several processes one calls the hooks of a run, and that a flow run which crashes again and again
/// is left at last.
pub trait Crashes {
    /// The runs that crashed with their process and whose hooks nobody has called, of functions that had such hooks.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn uncalled(&self) -> Result<Vec<Crash>, BackendError>;

    /// Whether it falls to that orchestrator to call the hooks of a run: one of several who ask is told so, once.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or if the orchestrator was found to be gone
    /// ([`Fenced`](super::BackendErrorKind::Fenced)).
    fn take_hooks(&self, owner: OwnerNo, run: RunId) -> Result<bool, BackendError>;

    /// The crashed flow runs of the flow with that key that are to go on by themselves and that no other run called,
    /// oldest first, with how often each did so since somebody last started it.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn crashed(&self, key: &str) -> Result<Vec<(FlowRunId, u32)>, BackendError>;

    /// Puts down that a crashed flow run has gone on by itself `times` times, which is enough; one of several who say so
    /// is told `true`, once.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn leave_crashed(&self, run: FlowRunId, times: u32) -> Result<bool, BackendError>;

    /// One time fewer that a flow run went on by itself: it was cut short without a crash.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn uncount(&self, run: FlowRunId) -> Result<(), BackendError>;
}
