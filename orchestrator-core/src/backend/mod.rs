//! Where history and cache are kept.
//!
//! A [`StateBackend`] is a store behind narrow traits, one per concern. All methods are plain functions that
//! may block: events are appended from the journal's own thread, one batch at a time, and reads are made on the
//! blocking pool. Nothing outside this folder knows how anything is stored.

mod claims;
mod crashes;
mod guarded;
pub mod maintenance;
pub mod memory;
mod ownership;
mod recent;
pub mod record;
mod requests;
mod search;
mod shared;
mod slots;
pub mod sqlite;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId};
use crate::state::State;
use crate::suggest::nearest;
use record::{
    ActiveRuns, CacheHit, CacheKey, Event, FlowRun, FlowRunQuery, Interrupted, LogLine, StoredResult, TakeOver, TaskRun,
};

pub use claims::{ClaimLeases, ClaimRequest, Claimed};
pub use crashes::{Crash, Crashes};
pub(crate) use guarded::Guarded;
pub use ownership::{Owner, OwnerNo, Ownership};
pub use recent::RecentRuns;
pub(crate) use recent::Told;
pub use requests::{Answer, Request, RequestNo, Requests, Wanted};
pub use shared::Shared;
pub use slots::{
    LimitRecord, LimitSetting, SlotClass, SlotLease, SlotLeases, SlotNews, SlotPlace, SlotRequest, SlotStanding,
    SlotTrade, SlotWait,
};

pub use search::{CacheCare, RunSearch};

/// Takes events.
pub trait EventStore {
    /// Stores a batch of events, all or none, in their order.
    ///
    /// A batch may be given again after an error: events are identified by run and sequence number, and storing one
    /// twice changes nothing. Only log lines bear no number: of them a batch that failed has stored none, and one that
    /// was stored stores them again.
    ///
    /// # Errors
    ///
    /// If the batch could not be stored; [`BackendError::is_transient`] says whether trying again may help.
    fn append(&self, batch: &[Event]) -> Result<(), BackendError>;

    /// The same for a store that may keep the events themselves: on success it may have taken some or all of them out of
    /// the batch. The journal calls this one where the store lives in the process.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); the batch is whole then.
    fn take(&self, batch: &mut Vec<Event>) -> Result<(), BackendError> {
        self.append(batch)
    }

    /// The same on behalf of an orchestrator that shares the store with others, which may have found it gone.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), and if the orchestrator was found to be gone, or has left
    /// ([`Fenced`](BackendErrorKind::Fenced)): then nothing was stored, and nothing will be.
    fn append_as(&self, owner: OwnerNo, batch: &[Event]) -> Result<(), BackendError> {
        let _ = owner;
        self.append(batch)
    }

    /// Lets a flow run that has ended go on: gives it another owner and another state, and counts one more start of its
    /// body; it has no end any more. All of that or nothing: `false` says that the run is unknown, has not ended, or has
    /// another number of states. Of several who ask at the same time, one is told `true`.
    ///
    /// # Errors
    ///
    /// If the store could not be written, or if the new owner was found to be gone, or has left
    /// ([`Fenced`](BackendErrorKind::Fenced)).
    fn take_over(&self, take_over: &TakeOver) -> Result<bool, BackendError>;
}

/// Answers questions about runs.
pub trait RunHistory {
    /// The flow run of that id, if it is known.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn flow_run(&self, id: FlowRunId) -> Result<Option<FlowRun>, BackendError>;

    /// The flow runs that match, newest first. `now` is what [`FlowRunQuery::within`] counts back from.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn flow_runs(&self, query: &FlowRunQuery, now: Timestamp) -> Result<Vec<FlowRun>, BackendError>;

    /// The task runs that belong to a flow run, in the order of their submission.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn task_runs(&self, flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError>;

    /// The task run of that id, if it is known.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn task_run(&self, id: crate::id::TaskRunId) -> Result<Option<TaskRun>, BackendError>;

    /// Those of these runs that are known and have not ended, which may be very many: how many, and the first so many of them
    /// in the order in which they are named; all of it as it was at one moment, if the store can tell.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn active_among(&self, ids: &[RunId], at_most: usize) -> Result<ActiveRuns, BackendError> {
        let mut active = ActiveRuns::default();
        for id in ids {
            let found = match *id {
                RunId::Flow(id) => self.flow_run(id)?.map(|run| (run.name, run.state)),
                RunId::Task(id) => self.task_run(id)?.map(|run| (run.name, run.state)),
            };
            let Some((name, state)) = found.filter(|(_, state)| !state.is_terminal()) else { continue };
            active.count += 1;
            if active.first.len() < at_most {
                active.first.push((*id, name, state));
            }
        }
        Ok(active)
    }

    /// The whole history of a run, oldest first; empty if the run is not known. The last one is the state that the run itself is
    /// given back in, with the same time.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn states(&self, run: RunId) -> Result<Vec<State>, BackendError>;

    /// The log lines of a run, oldest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn logs(&self, run: RunId) -> Result<Vec<LogLine>, BackendError>;
}

/// Finds cached results; they are put in by [`Event::Cached`].
pub trait CacheIndex {
    /// The last record under `key`, if it is there. One that has expired is given as well, as long as the store has not
    /// deleted it: whoever asks looks at the time.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn cached(&self, key: &CacheKey) -> Result<Option<CacheHit>, BackendError>;
}

/// Finds results that flow runs keep; they are put in by [`Event::Persisted`].
pub trait ResultIndex {
    /// The result that a root flow run keeps under `key`, if it is there; the first one that was put in.
    ///
    /// A flow run that is resumed or retried asks for many of its results, one after the other, and is the only one who
    /// puts any in: so a store may learn at the first question of a root what is there, and remember it until
    /// [`let_go_of_results`](Self::let_go_of_results).
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or, as [`BackendErrorKind::Damaged`], the result is not what was stored.
    fn result(&self, root: FlowRunId, key: &CacheKey) -> Result<Option<CacheHit>, BackendError>;

    /// Nobody asks for results of that root flow run for the time being.
    fn let_go_of_results(&self, root: FlowRunId) {
        let _ = root;
    }

    /// The names of objects in that result store that no result refers to any more, so many at most; each is named until
    /// [`objects_deleted`](Self::objects_deleted) is told of it. None if not implemented, as all that follows: for
    /// backends that hold no [`Stored`](record::CachedValue::Stored) values.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn unreferenced_objects(&self, store: &str, most: usize) -> Result<Vec<String>, BackendError> {
        let _ = (store, most);
        Ok(Vec::new())
    }

    /// Those objects of that result store are gone.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn objects_deleted(&self, store: &str, names: &[String]) -> Result<(), BackendError> {
        let _ = (store, names);
        Ok(())
    }

    /// The names of the objects that results of a flow run refer to.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn objects_of(&self, run: FlowRunId) -> Result<Vec<String>, BackendError> {
        let _ = run;
        Ok(Vec::new())
    }

    /// The objects that results refer to, at most so many after as many were `skipped`, for whoever checks them all.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn objects(&self, skipped: usize, most: usize) -> Result<Vec<StoredResult>, BackendError> {
        let _ = (skipped, most);
        Ok(Vec::new())
    }

    /// Flow runs that crashed, so many at most; each is named until [`swept`](Self::swept) is told of it.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn interrupted(&self, most: usize) -> Result<Vec<Interrupted>, BackendError> {
        let _ = most;
        Ok(Vec::new())
    }

    /// What those flow runs left in the result store is gone.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn swept(&self, runs: &[Interrupted]) -> Result<(), BackendError> {
        let _ = runs;
        Ok(())
    }
}

/// A store for history, cache and results.
///
/// What it is itself asked, it answers the same way each time. A method that panics has failed.
pub trait StateBackend:
    EventStore + RunHistory + RunSearch + CacheIndex + CacheCare + ResultIndex + Send + Sync + fmt::Debug + 'static
{
    /// Whether the store lives in this process and never blocks: it is then called in place, and holds cached values
    /// as they are.
    fn in_process(&self) -> bool {
        false
    }

    /// Where such a store has the engine put down most task runs, in place of the first event of each; `None` if it is to be given
    /// all events.
    fn recent_runs(&self) -> Option<Arc<RecentRuns>> {
        None
    }

    /// What only a store has that several processes share; `None` for any other.
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    /// What looks after the store, if it outlives the process.
    fn maintenance(&self) -> Option<&dyn maintenance::Maintenance> {
        None
    }

    /// Where the store is, for people: `memory`, or a path.
    fn location(&self) -> String;
}

/// Why a backend could not do what it was asked.
#[derive(Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    doing: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of trouble that a backend can have; every backend maps its driver's errors to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// Another process holds the store for the moment.
    Busy,
    /// The store has no room left.
    Full,
    /// The store cannot be opened or written: permissions, a missing folder, a read-only file system.
    Unavailable,
    /// There is no store yet, and none was to be made.
    Missing,
    /// The store's content is not what it should be.
    Corrupt,
    /// One record is missing or not what was stored; the others may be as they should.
    Damaged,
    /// A newer version of this library wrote the store.
    NewerFormat {
        /// The version of the stored form found.
        found: u32,
    },
    /// The orchestrator that wrote was found to be gone by another one, or has left: nothing that it writes is taken.
    Fenced,
    /// Anything else.
    Other,
}

impl BackendError {
    /// An error of that kind that happened while `doing` something, such as `open the database /x/y.db`.
    #[must_use]
    pub fn new(kind: BackendErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of trouble it is.
    #[must_use]
    pub const fn kind(&self) -> BackendErrorKind {
        self.kind
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            BackendErrorKind::Busy | BackendErrorKind::Full | BackendErrorKind::Other => true,
            BackendErrorKind::Unavailable
            | BackendErrorKind::Missing
            | BackendErrorKind::Corrupt
            | BackendErrorKind::Damaged
            | BackendErrorKind::NewerFormat { .. }
            | BackendErrorKind::Fenced => false,
        }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.doing)?;
        match self.kind {
            BackendErrorKind::Busy => f.write_str(": another process holds it"),
            BackendErrorKind::Full => f.write_str(": no space is left"),
            BackendErrorKind::Missing => f.write_str(": there is none yet"),
            BackendErrorKind::Corrupt => f.write_str(": its content is damaged, or it is no database of ours"),
            BackendErrorKind::NewerFormat { found } => write!(
                f,
                ": it has format {found}, written by a newer version of orchestrator; this version reads up to {}",
                record::FORMAT_VERSION
            ),
            BackendErrorKind::Fenced => {
                f.write_str(": another process found this one to be gone, and its runs were marked as crashed")
            }
            BackendErrorKind::Unavailable | BackendErrorKind::Damaged | BackendErrorKind::Other => Ok(()),
        }?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BackendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Which store to use, as written in `ORCHESTRATOR_DATABASE_URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// `memory`: nothing outlives the process.
    Memory,
    /// `sqlite:PATH`: an embedded database in a file.
    Sqlite(PathBuf),
}

impl std::str::FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "expected `memory` or `sqlite:PATH`";
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(format!("the database URL '{text}' names no file: {wanted}")),
                ":memory:" => Err(format!("'{text}' is not a database URL: {wanted}; is `memory` meant?")),
                path if has_parameters(path) => {
                    Err(format!("the database URL '{text}' has parameters, which there are none of: {wanted}"))
                }
                path => Ok(Self::Sqlite(PathBuf::from(path))),
            },
            Some(("postgres" | "postgresql", _)) => {
                Err(format!("the database URL names PostgreSQL, which this version does not support: {wanted}"))
            }
            None if !text.is_empty() => {
                Err(format!("'{text}' is not a database URL: {wanted}; is `{}` meant?", meant(text)))
            }
            None | Some(_) => Err(format!("'{text}' is not a database URL: {wanted}")),
        }
    }
}

/// Whether what follows the path is what other libraries take for their settings, as in `history.db?mode=rwc`.
fn has_parameters(path: &str) -> bool {
    path.rsplit_once('?').is_some_and(|(_, behind)| behind.contains('=') && !behind.contains('/'))
}

/// The database URL that was most likely meant: a path alone is one of SQLite.
fn meant(text: &str) -> String {
    let looks_like_path = text.contains(['.', '/', '\\']);
    match nearest(text, ["memory"]).filter(|_| !looks_like_path) {
        Some(memory) => memory.to_owned(),
        None => format!("sqlite:{text}"),
    }
}
