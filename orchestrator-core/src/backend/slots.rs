//! Limits, and who holds and waits for their slots, in a store that several processes share.

use std::sync::Arc;
use std::time::Duration;

use super::record::Process;
use super::{BackendError, OwnerNo};
use crate::clock::Timestamp;
use crate::id::RunId;

/// Keeps limits, and gives out their slots to the orchestrators of all processes.
///
/// What counts as taken are the slots of owners that are present, judged when that is asked. An owner that has ended is
/// given nothing: what it asks for is refused with [`BackendErrorKind::Fenced`](super::BackendErrorKind::Fenced).
pub trait SlotLeases {
    /// Every limit by name, with what is taken of it and how many requests wait.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn limits(&self, now: Timestamp) -> Result<Vec<LimitRecord>, BackendError>;

    /// Creates or changes a limit.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn set_limit(&self, name: &str, setting: LimitSetting, now: Timestamp) -> Result<(), BackendError>;

    /// Creates a limit unless there is one of that name.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn declare_limit(&self, name: &str, setting: LimitSetting, now: Timestamp) -> Result<(), BackendError>;

    /// Removes a limit; says whether there was one. Slots that are held of it count if it is created again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    fn remove_limit(&self, name: &str) -> Result<bool, BackendError>;

    /// Gives back slots, asks for others, and serves whoever can be served, all or nothing: of each limit in the order
    /// of class, arrival, owner and ticket. All slots of a request are taken at once, and nobody overtakes somebody who
    /// waits for the same limit. A limit that is not active keeps nobody waiting; a request for one that does not exist
    /// waits.
    ///
    /// A trade may be made again after an error.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or if the owner has ended.
    fn trade(&self, owner: OwnerNo, trade: &SlotTrade, now: Timestamp) -> Result<SlotNews, BackendError>;

    /// What [`trade`](Self::trade) would say if nothing were traded; changes nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or if the owner has ended.
    fn look(&self, owner: OwnerNo, now: Timestamp) -> Result<SlotNews, BackendError>;

    /// A number that changes when somebody has changed what [`look`](Self::look) and
    /// [`claimed`](super::ClaimLeases::claimed) say; what time alone changes does not count. It is asked for all the
    /// time: it should be cheap to ask for, and stay as it is while others write their histories.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn version(&self) -> Result<u64, BackendError>;

    /// The requests of a run that wait, one for each limit; those that its owner keeps back are not among them.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn waits_of(&self, run: RunId) -> Result<Vec<SlotWait>, BackendError>;

    /// How many task runs wait for slots since before that moment, of owners that are present, and say so in a message that
    /// has such a part. It need not be quick, nor exact.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn waiting_before(&self, part: &str, at: Timestamp) -> Result<usize, BackendError> {
        let _ = (part, at);
        Ok(0)
    }

    /// How a request that was, or will be, made with these particulars stands with one of its limits: names at most so
    /// many holders. `None` if there is no such limit.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn standing(
        &self,
        limit: &str,
        place: SlotPlace,
        most_holders: usize,
        now: Timestamp,
    ) -> Result<Option<SlotStanding>, BackendError>;
}

/// What a limit is set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitSetting {
    /// How many slots it has.
    pub slots: u32,
    /// How many come back each second, if they come back by time.
    pub decay: Option<f64>,
    /// A limit that is not active lets everybody pass.
    pub active: bool,
}

/// A limit as it is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitRecord {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub setting: LimitSetting,
    /// How many slots are taken.
    pub taken: u32,
    /// How many requests wait.
    pub waiting: usize,
}

/// Who is served before whom, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotClass {
    /// Those before it wait for what is given back only after this one was served.
    First,
    /// A run above this one holds slots, and gives them back only after this one has ended.
    Nested,
    /// Everybody else.
    Ordinary,
}

/// A place in the queues of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotPlace {
    /// Who is served before whom.
    pub class: SlotClass,
    /// When the request was made.
    pub since: Timestamp,
    /// Who made it.
    pub owner: OwnerNo,
    /// Its number among those of its owner.
    pub ticket: u64,
}

/// A request for slots.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotRequest {
    /// Its number among those of its owner.
    pub ticket: u64,
    /// Who is served before whom.
    pub class: SlotClass,
    /// When it was made.
    pub since: Timestamp,
    /// The run that asks; `None` for code outside of any run.
    pub run: Option<(RunId, Arc<str>)>,
    /// The runs that hold slots, and that end only after this one.
    pub above: Vec<RunId>,
    /// How many slots of which limits, each limit once.
    pub wants: Vec<(Arc<str>, u32)>,
}

/// What one owner gives back and asks for; done in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlotTrade {
    /// Requests that are over, whether they were served or still wait.
    pub over: Vec<u64>,
    /// New requests.
    pub asks: Vec<SlotRequest>,
    /// Requests that wait, and whose class is another one now, with who is above them.
    pub moved: Vec<(u64, SlotClass, Vec<RunId>)>,
    /// How many requests of its own the owner keeps back until there is room for them, by limit: those for which that
    /// number has changed. They count as waiting.
    pub backlog: Vec<(Arc<str>, usize)>,
}

impl SlotTrade {
    /// Whether nothing is given back, asked for or said.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.over.is_empty() && self.asks.is_empty() && self.moved.is_empty() && self.backlog.is_empty()
    }
}

/// How things stand for one owner.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotNews {
    /// The owner's requests that wait, sorted: those that it has made and that are neither here nor over have been
    /// served.
    pub waiting: Vec<u64>,
    /// Every limit by name, and how many slots of those are taken for which somebody waits.
    pub limits: Vec<(String, LimitSetting, Option<u32>)>,
    /// How long until somebody can be served because slots have come back by time; zero: somebody can be served now, by
    /// a trade.
    pub due: Option<Duration>,
}

/// A request that waits for slots of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotWait {
    /// The limit's name.
    pub limit: String,
    /// How many of its slots are waited for.
    pub slots: u32,
    /// Where it stands.
    pub place: SlotPlace,
}

/// How a request stands with a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotStanding {
    /// What the limit is set to.
    pub setting: LimitSetting,
    /// How many slots are taken.
    pub taken: u32,
    /// How many requests are served before this one.
    pub ahead: usize,
    /// How many requests other owners keep back until there is room for them: when they were made is not known here, so some
    /// of them may be served before this one.
    pub kept_back: usize,
    /// Who holds the slots, in the order in which they took them. Nobody does if they come back by time.
    pub holders: Vec<SlotLease>,
}

/// Somebody who holds slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLease {
    /// Whose they are.
    pub owner: OwnerNo,
    /// The process of the owner.
    pub process: Process,
    /// The number of the request.
    pub ticket: u64,
    /// The run that asked for them; `None` for code outside of any run.
    pub run: Option<(RunId, String)>,
    /// How many slots are held.
    pub slots: u32,
    /// Since when.
    pub since: Timestamp,
}
