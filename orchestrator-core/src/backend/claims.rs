//! Who computes the result under a cache key, in a store that several processes share.

use std::sync::Arc;

use super::record::{CacheKey, Process};
use super::{BackendError, OwnerNo};
use crate::clock::Timestamp;
use crate::id::TaskRunId;

/// Keeps claims on cache keys, so that of all processes one computes a result.
///
/// A claim of an owner that has ended counts for nothing.
pub trait ClaimLeases {
    /// Gives back claims and asks for others, all or nothing; says of each new one, in their order, what became of it.
    /// An owner that asks for a key of its own is given it anew: the old claim is over.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or if the owner has ended.
    fn claim(
        &self,
        owner: OwnerNo,
        over: &[(CacheKey, u64)],
        asks: &[ClaimRequest],
        now: Timestamp,
    ) -> Result<Vec<Claimed>, BackendError>;

    /// Which of these claims another owner that is present holds.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or if the owner has ended.
    fn claimed(&self, owner: OwnerNo, keys: &[CacheKey]) -> Result<Vec<bool>, BackendError>;
}

/// A request for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The cache key.
    pub key: CacheKey,
    /// Its number among those of its owner.
    pub ticket: u64,
    /// The run that is to compute the result.
    pub run: TaskRunId,
    /// Its name, for people.
    pub run_name: Arc<str>,
}

/// What became of a request for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is held now.
    Held {
        /// Whether there is a record under the key, which may be usable or not.
        cached: bool,
    },
    /// Another owner holds it.
    Taken {
        /// The process of the owner.
        process: Process,
        /// The run that computes the result.
        run: TaskRunId,
        /// Its name.
        run_name: String,
    },
}
