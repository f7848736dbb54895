//! Keeps the file small and sound.

mod check;
mod compact;
mod info;
mod prune;
mod remove;

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::SqliteBackend;
use crate::backend::BackendError;
use crate::backend::maintenance::{Compacted, Finding, Maintenance, Pruning, Removal, Removed, StoreInfo};
use crate::clock::Timestamp;
use crate::id::RunId;
use crate::retention::Retention;

pub(super) use compact::convert;

/// How long others who want to write wait for a step at most, about.
const STEP: Duration = Duration::from_millis(8);

impl Maintenance for SqliteBackend {
    fn info(&self) -> Result<StoreInfo, BackendError> {
        self.read(|| self.looking_after("look at"), |connection| info::read(connection, self))
    }

    fn compact(&self) -> Result<Compacted, BackendError> {
        compact::compact(self)
    }

    fn check(&self) -> Result<Vec<Finding>, BackendError> {
        self.read(|| self.looking_after("check"), check::check)
    }

    fn remove(&self, runs: &[RunId]) -> Result<Removal, BackendError> {
        remove::remove(self, runs)
    }

    fn prune<'s>(&'s self, policy: &Retention, now: Timestamp) -> Result<Option<Box<dyn Pruning + 's>>, BackendError> {
        prune::begin(self, policy, now)
    }

    fn prunable(&self, policy: &Retention, now: Timestamp) -> Result<Removed, BackendError> {
        prune::count(self, policy, now)
    }

    fn last_pruned(&self) -> Result<Option<Timestamp>, BackendError> {
        self.read(|| self.looking_after("look at"), info::last_pruned)
    }
}

impl SqliteBackend {
    fn looking_after(&self, doing: &str) -> String {
        format!("{doing} the database {}", self.path.display())
    }

    /// Writes in one short transaction on the connection that writes.
    fn step<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Transaction<'_>, Deadline) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        self.write(
            || self.looking_after(doing),
            |writer| {
                let transaction = writer.connection().transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = work(&transaction, Deadline::new())?;
                transaction.commit()?;
                Ok(done)
            },
        )
    }

    /// Uses the connection that writes, outside of transactions.
    fn on_writer<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        self.write(|| self.looking_after(doing), |writer| work(writer.connection()))
    }
}

/// The end of a step.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn new() -> Self {
        Self(Instant::now() + STEP)
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}
