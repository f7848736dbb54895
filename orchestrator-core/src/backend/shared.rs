//! What a store has to do if several processes share it.

use super::{ClaimLeases, Crashes, Ownership, Requests, SlotLeases};

/// A store that any number of processes use at a time; see [`StateBackend::shared`](super::StateBackend::shared).
pub trait Shared: Ownership + SlotLeases + ClaimLeases + Crashes + Requests {}
