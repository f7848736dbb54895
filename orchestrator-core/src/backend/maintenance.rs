//! Keeps a store small and sound: what is in it, what is wrong with it, and what may go.
//!
//! All methods may take long. Those that write do so in small steps, between which others write.

use std::fmt;

use super::BackendError;
use crate::clock::Timestamp;
use crate::id::RunId;
use crate::retention::Retention;

/// Looks after a store that outlives its process.
pub trait Maintenance {
    /// What is in the store, and how large it is.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn info(&self) -> Result<StoreInfo, BackendError>;

    /// Gives room that is not used back to the system. Others may use the store meanwhile.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or can be made smaller only while nobody else uses it.
    fn compact(&self) -> Result<Compacted, BackendError>;

    /// Looks for anything that is not as it should be; nothing is changed. What the store has is sound if nothing is
    /// found.
    ///
    /// # Errors
    ///
    /// If the store cannot be read at all.
    fn check(&self) -> Result<Vec<Finding>, BackendError>;

    /// Removes runs with all that they started, and all that is kept of them: every one or, if one cannot be removed,
    /// none. Most of it is gone when this returns; what another process is removing at the time may follow.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn remove(&self, runs: &[RunId]) -> Result<Removal, BackendError>;

    /// Begins to remove what the policy does not keep; `None` while another process is at it.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    fn prune<'s>(&'s self, policy: &Retention, now: Timestamp) -> Result<Option<Box<dyn Pruning + 's>>, BackendError>;

    /// What [`prune`](Self::prune) would remove, to its end; changes nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn prunable(&self, policy: &Retention, now: Timestamp) -> Result<Removed, BackendError>;

    /// When the retention was last applied from beginning to end, by anybody; `None`: never.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn last_pruned(&self) -> Result<Option<Timestamp>, BackendError>;
}

/// The removal of what a policy does not keep, in small steps.
pub trait Pruning: fmt::Debug {
    /// Takes a step of a few milliseconds; `None` when all is done.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written. What was removed stays removed.
    fn step(&mut self, now: Timestamp) -> Result<Option<Removed>, BackendError>;
}

/// What is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Where it is.
    pub location: String,
    /// The version of its form.
    pub format: u32,
    /// The version of its form when it was opened, if it was another one: opening it brought it up to date.
    pub migrated_from: Option<u32>,
    /// The size of its file.
    pub file_bytes: u64,
    /// The size of what was written last and is not in the file yet.
    pub wal_bytes: u64,
    /// How much of the file is not used; [`compact`](Maintenance::compact) gives it back.
    pub free_bytes: u64,
    /// Whether it can be made smaller while others use it. A large file of an older version has to be compacted once
    /// while nobody else does.
    pub shrinks_in_steps: bool,
    /// Its tables, the largest first where sizes are known.
    pub tables: Vec<TableInfo>,
    /// How many flow runs there are.
    pub flow_runs: u64,
    /// How many task runs there are.
    pub task_runs: u64,
    /// When the oldest run was submitted.
    pub oldest_run: Option<Timestamp>,
    /// When the newest run was submitted.
    pub newest_run: Option<Timestamp>,
    /// When the retention was last applied from beginning to end.
    pub last_pruned: Option<Timestamp>,
    /// The processes that have not left.
    pub processes: Vec<super::record::Process>,
}

/// One table of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// How many rows it has: exactly.
    pub rows: u64,
    /// How much of the file it takes with its indexes; `None` where finding out would take long.
    pub bytes: Option<u64>,
}

/// What compacting a store has given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// The size before, with what was not in the file yet.
    pub bytes_before: u64,
    /// The size after.
    pub bytes_after: u64,
}

/// Something in a store that is not as it should be. Displayed as a sentence that names the run or table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The run that it is about, if it is about one.
    pub run: Option<RunId>,
    /// What is wrong.
    pub what: String,
    /// Whether the store itself is damaged, so that not all of it can be read; anything else concerns what it says.
    pub is_damage: bool,
}

impl Finding {
    /// Something that is wrong with what the store says.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { run: None, what: what.into(), is_damage: false }
    }

    /// The store itself is damaged.
    #[must_use]
    pub fn damage(what: impl Into<String>) -> Self {
        Self { is_damage: true, ..Self::new(what) }
    }

    /// Something that is wrong with a run.
    #[must_use]
    pub fn of(run: RunId, what: impl Into<String>) -> Self {
        Self { run: Some(run), ..Self::new(what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.run {
            Some(RunId::Flow(id)) => write!(f, "flow run {id}: {}", self.what),
            Some(RunId::Task(id)) => write!(f, "task run {id}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What became of the wish to remove runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// They are removed.
    Done(Removed),
    /// Nothing is removed: there is no such run.
    Unknown(RunId),
    /// Nothing is removed: this run, which is one of them or beneath one, has not ended.
    Active {
        /// The run that was to be removed.
        wanted: RunId,
        /// The one that has not ended.
        run: RunId,
        /// The name of the state that it is in.
        state: String,
    },
    /// Nothing is removed: this run is part of another, which can only be removed as a whole.
    Inside {
        /// The run that was to be removed.
        wanted: RunId,
        /// The one that called it.
        parent: RunId,
    },
}

/// How much was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Flow runs, those inside others included.
    pub flow_runs: u64,
    /// Task runs.
    pub task_runs: u64,
    /// Cached results that had expired.
    pub cached: u64,
}

impl Removed {
    /// Whether nothing was removed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.flow_runs += other.flow_runs;
        self.task_runs += other.task_runs;
        self.cached += other.cached;
    }
}
