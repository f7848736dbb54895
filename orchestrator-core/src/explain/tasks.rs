//! What the task runs of a flow run wait for, all of them together: counted by reason, with an example of each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;
use tokio::runtime::Handle;

use super::{RunRef, Why, why};
use crate::active::each_task_of;
use crate::concurrency::Limits;
use crate::engine::panics;
use crate::error::{Error, ErrorKind};
use crate::orchestrator::Inner;
use crate::run::{Run, Waits};
use crate::state::{StateName, StateType};

/// The task runs of a flow run that have not ended: how many there are, and what those wait for that wait. Task runs of flow
/// runs that it called are not among them.
///
/// Nor are those that were detached, unless another process drives the flow run: the history does not tell them apart.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UnfinishedTasks {
    /// How many have begun and do not wait before another attempt, or were cancelled and are about to end.
    pub running: u64,
    /// How many have not, or do.
    pub waiting: u64,
    /// What these wait for, the most frequent reasons first: ten at most.
    pub reasons: Vec<WaitingTasks>,
}

/// Task runs that wait for the same: slots of the same limits, or the results of others, each its own.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WaitingTasks {
    /// How many there are.
    pub count: u64,
    /// One of them.
    pub example: RunRef,
    /// What that one waits for.
    pub why: Why,
}

/// What task runs are told apart by that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    Upstream,
    /// Of these limits, so many each.
    Slots(Vec<(SmolStr, u32)>),
    Retry,
    Pause,
    FlowCapacity,
    Thread,
    Journal,
    SameKey,
    Start,
    /// It is not known.
    Unknown(StateName),
}

/// Task runs that wait, by reason: how many, and the first of them.
pub(super) struct Groups<R> {
    pub(super) running: u64,
    /// How many wait for something that was not looked at.
    pub(super) others: u64,
    groups: HashMap<Reason, (u64, R)>,
}

/// How many reasons are told.
const SHOWN: usize = 10;

impl<R> Groups<R> {
    pub(super) fn new() -> Self {
        Self { running: 0, others: 0, groups: HashMap::new() }
    }

    /// Counts one that waits for that; gives back which one is not needed as an example.
    pub(super) fn add(&mut self, reason: Reason, one: R, is_before: impl FnOnce(&R, &R) -> bool) -> Option<R> {
        match self.groups.entry(reason) {
            Entry::Vacant(place) => {
                place.insert((1, one));
                None
            }
            Entry::Occupied(place) => {
                let (count, example) = place.into_mut();
                *count += 1;
                Some(if is_before(&one, example) { std::mem::replace(example, one) } else { one })
            }
        }
    }

    fn waiting(&self) -> u64 {
        self.others + self.groups.values().map(|(count, _)| count).sum::<u64>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running + self.waiting() == 0
    }

    /// The numbers, and what is to be told of: a few examples, each with the number of those like it. The others come last.
    pub(super) fn split(self, is_before: impl Fn(&R, &R) -> bool) -> (UnfinishedTasks, Vec<(u64, R)>, Vec<R>) {
        let tasks = UnfinishedTasks { running: self.running, waiting: self.waiting(), reasons: Vec::new() };
        let mut shown: Vec<_> = self.groups.into_values().collect();
        shown.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| is_before(other, one).cmp(&is_before(one, other))));
        let rest = shown.split_off(shown.len().min(SHOWN));
        (tasks, shown, rest.into_iter().map(|(_, one)| one).collect())
    }
}

/// Those of an active flow run of this process.
pub(super) async fn unfinished(inner: &Inner, flow: &Arc<Run>) -> Result<Option<UnfinishedTasks>, Error> {
    let (run, limits) = (Arc::clone(flow), Arc::clone(&inner.limits));
    let look = move || {
        let found = look(&run, &limits);
        panics::let_go(run);
        if found.is_empty() {
            return None;
        }
        let (tasks, examples, others) = found.split(is_before);
        panics::let_go(others);
        let examples: Vec<_> = examples.into_iter().map(|(count, run)| (count, why(&run, &run.state()), run)).collect();
        Some((tasks, examples))
    };
    let Some((mut tasks, examples)) = aside(look).await? else { return Ok(None) };
    for (count, mut why, run) in examples {
        // Where the store does not tell of other processes' slots, those of this one are told.
        if let Why::Slots(waits) = &mut why
            && let Ok(all) = inner.limits.all_waits_of(&run).await
        {
            *waits = all;
        }
        tasks.reasons.push(WaitingTasks { count, example: RunRef::of(&run), why });
        panics::let_go(run);
    }
    Ok(Some(tasks))
}

/// Looks at runs, of which there may be very many.
pub(super) async fn aside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(look).await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Error::new(ErrorKind::ShutDown),
        }),
        Err(_) => Ok(look()),
    }
}

/// Goes over all of them, and holds no lock meanwhile.
fn look(flow: &Arc<Run>, limits: &Limits) -> Groups<Arc<Run>> {
    let (mut reasons, mut groups) = (Reasons { limits, said: HashMap::new() }, Groups::new());
    each_task_of(flow, &mut |run| {
        match reasons.of(run) {
            // This may be the last of its result.
            Some(reason) => panics::let_go(groups.add(reason, Arc::clone(run), is_before)),
            None => groups.running += 1,
        }
    });
    groups
}

fn is_before(one: &Arc<Run>, other: &Arc<Run>) -> bool {
    one.id() < other.id()
}

/// Finds what runs of this process wait for.
struct Reasons<'a> {
    limits: &'a Limits,
    /// What sentences say that runs are told who wait for slots: many are told the same.
    said: HashMap<Arc<str>, Reason>,
}

impl Reasons<'_> {
    /// What a run waits for; `None` if it runs, or is about to end.
    fn of(&mut self, run: &Run) -> Option<Reason> {
        if run.is_cancelled() {
            return None;
        }
        if !run.is_launched() {
            return Some(Reason::Upstream);
        }
        let (state, waits) = run.stands();
        match waits {
            Waits::Nothing => {}
            Waits::Children => return None,
            Waits::Pause => return Some(Reason::Pause),
            Waits::FlowCapacity => return Some(Reason::FlowCapacity),
            Waits::Thread => return Some(Reason::Thread),
            Waits::Journal => return Some(Reason::Journal),
            Waits::Flight(_) | Waits::Elsewhere(_) => return Some(Reason::SameKey),
        }
        match state.name.kind() {
            _ if state.name == StateName::AwaitingRetry => Some(Reason::Retry),
            _ if state.name == StateName::AwaitingConcurrencySlot => {
                Some(state.message.map_or(Reason::Unknown(state.name), |said| self.slots(said)))
            }
            StateType::Pending | StateType::Scheduled => Some(Reason::Start),
            StateType::Running
            | StateType::Paused
            | StateType::Cancelling
            | StateType::Completed
            | StateType::Failed
            | StateType::Crashed
            | StateType::Cancelled => None,
        }
    }

    fn slots(&mut self, said: Arc<str>) -> Reason {
        if let Some(known) = self.said.get(&said) {
            return known.clone();
        }
        let reason = match self.limits.named_in(&said) {
            slots if slots.is_empty() => Reason::Unknown(StateName::AwaitingConcurrencySlot),
            slots => Reason::Slots(slots),
        };
        self.said.insert(said, reason.clone());
        reason
    }
}

impl fmt::Display for UnfinishedTasks {
    /// `2 of its task runs are running, and 3 wait: 2 like 'load-4', which waits for a slot of limit 'db' (1 of 1 taken);
    /// 'sum-0', which waits for 'load-4', which is AwaitingConcurrencySlot`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { running, waiting, reasons } = self;
        match running {
            0 => {}
            1 => f.write_str("1 of its task runs is running")?,
            _ => write!(f, "{running} of its task runs are running")?,
        }
        match (running, waiting) {
            (_, 0) => return Ok(()),
            (0, 1) => f.write_str("1 of its task runs waits: ")?,
            (0, _) => write!(f, "{waiting} of its task runs wait: ")?,
            (_, 1) => f.write_str(", and 1 waits: ")?,
            (_, _) => write!(f, ", and {waiting} wait: ")?,
        }
        let mut left = *waiting;
        for (place, WaitingTasks { count, example, why }) in reasons.iter().enumerate() {
            left = left.saturating_sub(*count);
            f.write_str(if place == 0 { "" } else { "; " })?;
            if *count > 1 {
                write!(f, "{count} like ")?;
            }
            write!(f, "'{}', which ", example.name)?;
            why.say(f, example.run_id, &example.state)?;
        }
        if left > 0 { write!(f, "; {left} more") } else { Ok(()) }
    }
}
