//! Why a run is where it is, in a sentence and as data.
//!
//! The answer is put together from what the runs of this process say of themselves, or else from the history. Nothing
//! is kept for it except a note in runs that wait without a state that says so.

mod flows;
mod recorded;
mod tasks;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Local, Utc};

use crate::backend::record::{CrashBudget, Pause, Process};
use crate::backend::{BackendError, Owner, StateBackend};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Error;
use crate::id::RunId;
use crate::orchestrator::{Inner, Orchestrator};
use crate::process::{Fate, fate};
use crate::run::{Run, Waits};
use crate::state::{State, StateType};
pub use flows::UnfinishedFlows;
use recorded::Recorded;
pub use tasks::{UnfinishedTasks, WaitingTasks};

/// Why a run is where it is; made by [`Orchestrator::explain`]. [`Display`](fmt::Display) tells it in one sentence, and in
/// others what the task runs and the subflows of a flow run do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The run.
    pub run_id: RunId,
    /// Its name.
    pub name: String,
    /// The state that it is in.
    pub state: State,
    /// Why.
    pub why: Why,
    /// Whose it is, if it belongs to another process, or to another orchestrator of this one: the reason is then what the
    /// store tells.
    pub elsewhere: Option<Elsewhere>,
    /// Of a flow run that has not ended: what those of its task runs do that have not; `None` if there are none.
    pub tasks: Option<UnfinishedTasks>,
    /// Of a flow run that has not ended: the flow runs that it called and that have not, with what one of them does; `None`
    /// if there are none.
    pub flows: Option<Box<UnfinishedFlows>>,
    /// Of a flow run that crashed: whether it goes on by itself; `None` if its flow does not ask for it.
    pub on_crash: Option<CrashBudget>,
}

/// Another orchestrator, to which a run belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The machine.
    pub host: String,
    /// The process on that machine.
    pub pid: u32,
    /// When it was last heard of, if it ever said that it is there.
    pub heard: Option<DateTime<Utc>>,
    /// If its process is stopped (SIGSTOP, a debugger): when it is taken for gone, unless it goes on before.
    pub stopped_until: Option<DateTime<Utc>>,
    /// If it cannot be seen from here, on another machine or in another container, and its lease is over: since when. It
    /// may be gone.
    pub lease_over: Option<DateTime<Utc>>,
    /// When it is known in that case whether it is gone, at the latest: to those who look until then, such as
    /// [`Orchestrator::resume`] and [`Orchestrator::cancel`].
    pub known_at: Option<DateTime<Utc>>,
}

impl Elsewhere {
    fn of(inner: &Inner, host: String, pid: u32, owner: Option<Owner>) -> Self {
        let mut elsewhere = Self { host, pid, heard: None, stopped_until: None, lease_over: None, known_at: None };
        let Some(owner) = owner else { return elsewhere };
        elsewhere.heard = owner.heard.map(Timestamp::to_datetime);
        if fate(&owner.process) == Fate::Stopped {
            elsewhere.stopped_until = owner.lease_until.map(Timestamp::to_datetime);
        }
        if let Some(silence) = inner.keeper.as_ref().and_then(|keeper| keeper.lookout().silence(&owner)) {
            elsewhere.lease_over = Some(silence.since.to_datetime());
            elsewhere.known_at = Some(SystemClock.now().after(silence.known_in).to_datetime());
        }
        elsewhere
    }

    /// Whose an active run is, if it is another orchestrator's; blocks.
    pub(crate) fn of_run(backend: &dyn StateBackend, inner: &Inner, run: RunId) -> Result<Option<Self>, BackendError> {
        let owner = backend.shared().map_or(Ok(None), |shared| shared.owner_of(run))?;
        let own = inner.keeper.as_ref().and_then(|keeper| keeper.membership().owner());
        Ok(owner.filter(|owner| owner.ended.is_none() && own != Some(owner.no)).map(|owner| {
            let (host, pid) = (owner.process.host.clone(), owner.process.pid);
            Self::of(inner, host, pid, Some(owner))
        }))
    }
}

/// What a run waits for, or what it does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// It waits for runs whose results it takes, or that it was told to wait for.
    Upstream(RunRefs),
    /// It waits for slots of these limits.
    Slots(Vec<LimitWait>),
    /// It waits before another attempt.
    RetryAt {
        /// When the attempt begins, unless it has to wait for something else then.
        at: DateTime<Utc>,
        /// The number of the attempt, counted from 1.
        attempt: u32,
    },
    /// It is a flow run that waits for somebody who lets it on, or such a flow run called it.
    Paused {
        /// The flow run that is paused.
        flow: RunRef,
        /// The pause that is resumed next.
        pause: Pause,
    },
    /// Its flow runs as many tasks as it may.
    FlowCapacity {
        /// The flow run.
        flow: RunRef,
        /// How many tasks it runs at a time.
        at_most: usize,
    },
    /// Its body is not async, and waits for a thread.
    Thread,
    /// The store lags behind what was recorded: runs that have not begun wait for it.
    Journal,
    /// Another run computes the same cached result.
    SameKey(RunRef),
    /// A run of another process computes the same cached result.
    SameKeyElsewhere {
        /// The run.
        run_id: RunId,
        /// Its name.
        name: String,
        /// The process.
        process: Process,
    },
    /// Its body has ended, and it waits for the runs that it started.
    Children(RunRefs),
    /// It waits for nothing any more, and begins in a moment.
    Starting,
    /// Its body is being executed.
    Running {
        /// Since when.
        since: DateTime<Utc>,
        /// The number of the attempt, counted from 1.
        attempt: u32,
        /// The slots that its body waits for.
        slots: Vec<LimitWait>,
    },
    /// It was asked to end, and what it started is ending.
    Cancelling,
    /// It has ended; the state says how.
    Ended,
    /// It belongs to another process, or to another orchestrator of this one, and the store does not tell. Within that
    /// process a task run may wait, besides, for another one that computes the same cached result, for a thread of the
    /// blocking pool, or for the store.
    Elsewhere,
}

/// What a task run may wait for of which the store knows nothing.
const UNRECORDED: &str = "; what it waits for inside its process is not: possible are another run that computes the same \
                          cached result, a thread of the blocking pool, and a store that lags behind";

/// The runs that another one waits for, which may be very many.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunRefs {
    /// The first ten.
    pub first: Vec<RunRef>,
    /// How many there are in all.
    pub count: usize,
}

impl RunRefs {
    const SHOWN: usize = 10;
}

/// A run that another one waits for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunRef {
    /// The run.
    pub run_id: RunId,
    /// Its name.
    pub name: String,
    /// The state that it is in.
    pub state: State,
}

/// A limit that keeps somebody waiting.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LimitWait {
    /// The limit's name.
    pub limit: String,
    /// How many slots are waited for.
    pub wanted: u32,
    /// How many slots the limit has.
    pub slots: u32,
    /// How many of them are taken.
    pub taken: u32,
    /// How many slots come back each second, if they come back by time.
    pub slot_decay: Option<f64>,
    /// How many requests are served before this one.
    pub ahead: usize,
    /// Whether that number is only about right: another process keeps requests back, because others of its own are before
    /// them, and the number was put together from the states of their runs.
    pub is_about: bool,
    /// Who holds the slots, in the order in which they took them. Nobody does if they come back by time.
    pub holders: Vec<SlotHolder>,
}

/// Somebody who holds slots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotHolder {
    /// The run in which the slots were taken; `None` for code outside of any run, and if nothing is left of the run but
    /// the guard of its slots.
    pub run_id: Option<RunId>,
    /// The run's name.
    pub name: Option<String>,
    /// How many slots are held.
    pub slots: u32,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The process that it is part of, if that is another one, or another orchestrator of this one.
    pub process: Option<Process>,
}

impl Orchestrator {
    /// Why a run is where it is: what it waits for, who holds that, and since when. For any run of this orchestrator,
    /// and any in the history. Of one that another process drives, what the store tells: slots, upstream runs, pauses and
    /// retries, but neither [`Why::SameKey`] nor [`Why::Thread`] nor [`Why::Journal`].
    ///
    /// ```
    /// use orchestrator_core::{Orchestrator, Why};
    /// # use orchestrator_core::{RunId, Error};
    /// # async fn look(orchestrator: Orchestrator, run: RunId) -> Result<(), Error> {
    /// let explanation = orchestrator.explain(run).await?;
    /// // task run 'load-0' waits for a slot of limit 'db' (1 of 1 taken), held by 'load-1' since 12:34:56
    /// println!("{explanation}");
    /// if let Why::Slots(limits) = explanation.why {
    ///     println!("{} are ahead of it", limits[0].ahead);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such run, or if the backend cannot be read.
    pub async fn explain(&self, run_id: impl Into<RunId>) -> Result<Explanation, Error> {
        let run_id = run_id.into();
        // A run that has ended is in the history by now: its parent lets go of it only after that.
        if let Some(run) = self.inner().active_run(run_id).filter(|run| run.visible) {
            let state = run.state();
            let why = known_why(self.inner(), &run, &state).await?;
            let (tasks, flows) = match run.is_flow() && !state.is_terminal() {
                true => (tasks::unfinished(self.inner(), &run).await?, flows::unfinished(self.inner(), &run).await?),
                false => (None, None),
            };
            let name = run.name().to_string();
            return Ok(Explanation { run_id, name, state, why, elsewhere: None, tasks, flows, on_crash: None });
        }
        let (run, on_crash): (Recorded, _) = match run_id {
            RunId::Task(id) => (self.task_run(id).await?.into(), None),
            RunId::Flow(id) => {
                let run = self.flow_run(id).await?;
                let on_crash = run.on_crash.filter(|_| run.state.kind == StateType::Crashed);
                (run.into(), on_crash)
            }
        };
        if run.state.is_terminal() {
            let Recorded { name, state, .. } = run;
            let (why, elsewhere, tasks, flows) = (Why::Ended, None, None, None);
            return Ok(Explanation { run_id, name, state, why, elsewhere, tasks, flows, on_crash });
        }
        let found = self.ask(move |backend, inner| {
            let owner = backend.shared().map_or(Ok(None), |shared| shared.owner_of(run_id))?;
            let now = inner.clock.now();
            let why = recorded::why(backend, &run, now)?;
            let inside = |flow| Ok((recorded::tasks(backend, flow, now)?, flows::recorded(backend, flow, now)?));
            let inside = run_id.as_flow().map_or(Ok((None, None)), inside);
            let inside = inside.unwrap_or_else(|error: BackendError| {
                let name = &run.name;
                tracing::warn!(target: "orchestrator", "what the runs inside '{name}' wait for cannot be told: {error}");
                (None, None)
            });
            Ok((why, inside, Elsewhere::of(inner, run.host.clone(), run.pid, owner), run))
        });
        let (why, (tasks, flows), elsewhere, Recorded { name, state, .. }) = found.await?;
        let elsewhere = Some(elsewhere);
        Ok(Explanation { run_id, name, state, why, elsewhere, tasks, flows, on_crash })
    }

    /// Whose a run is that has not ended, if it is another process's, or another orchestrator's of this one; with what is
    /// known of whether that is still there.
    ///
    /// # Errors
    ///
    /// If the backend cannot be read.
    pub async fn whereabouts(&self, run_id: impl Into<RunId>) -> Result<Option<Elsewhere>, Error> {
        let run_id = run_id.into();
        let look = move |backend: &dyn StateBackend, inner: &Inner| match backend.active_among(&[run_id], 0)?.count {
            0 => Ok(None),
            _ => Elsewhere::of_run(backend, inner, run_id),
        };
        self.ask(look).await
    }
}

/// Why an active run of this process is where it is, with what the store tells of the slots that it waits for.
async fn known_why(inner: &Inner, run: &Arc<Run>, state: &State) -> Result<Why, Error> {
    let mut why = why(run, state);
    if let Why::Slots(waits) | Why::Running { slots: waits, .. } = &mut why
        && !waits.is_empty()
    {
        *waits = inner.limits.all_waits_of(run).await?;
    }
    Ok(why)
}

/// Why an active run of this process is where it is.
fn why(run: &Arc<Run>, state: &State) -> Why {
    if state.is_terminal() {
        return Why::Ended;
    }
    if run.is_cancelled() {
        return Why::Cancelling;
    }
    if !run.is_launched() {
        let upstreams = refs(run.active_upstreams());
        return if upstreams.count == 0 { Why::Starting } else { Why::Upstream(upstreams) };
    }
    match run.waits() {
        Waits::Nothing => {}
        Waits::Pause => return run.parent.as_ref().and_then(paused).unwrap_or(Why::Starting),
        Waits::FlowCapacity => {
            if let (Some((_, at_most)), Some(flow)) = (&run.scope().capacity, &run.parent) {
                return Why::FlowCapacity { flow: RunRef::of(flow), at_most: *at_most };
            }
        }
        Waits::Thread => return Why::Thread,
        Waits::Journal => return Why::Journal,
        Waits::Flight(other) => {
            return other.upgrade().map_or(Why::Starting, |other| Why::SameKey(RunRef::of(&other)));
        }
        Waits::Elsewhere(by) => {
            let (name, process) = (by.run_name.clone(), by.process.clone());
            return Why::SameKeyElsewhere { run_id: by.run.into(), name, process };
        }
        Waits::Children => return Why::Children(refs(run.active_children())),
    }
    let slots = run.scope().orchestrator.limits.waits_of(run);
    match state.kind {
        StateType::Running => Why::Running { since: state.timestamp, attempt: run.run_count(), slots },
        _ if !slots.is_empty() => Why::Slots(slots),
        StateType::Scheduled if let Some(at) = still_to_come(state, run.scope().orchestrator.clock.now()) => {
            Why::RetryAt { at, attempt: run.run_count() + 1 }
        }
        StateType::Paused => paused(run).unwrap_or(Why::Starting),
        StateType::Pending if !run.scope().orchestrator.journal.has_room() => Why::Journal,
        StateType::Scheduled
        | StateType::Pending
        | StateType::Cancelling
        | StateType::Completed
        | StateType::Failed
        | StateType::Crashed
        | StateType::Cancelled => Why::Starting,
    }
}

/// When the next attempt begins, unless that is over.
fn still_to_come(state: &State, now: Timestamp) -> Option<DateTime<Utc>> {
    state.scheduled_time.filter(|at| *at > now.to_datetime())
}

/// The pause of the flow run that a run is, or is part of.
fn paused(run: &Arc<Run>) -> Option<Why> {
    let pause = run.scope().pauses.next()?;
    let flow = run.lineage().find(|run| run.is_flow() && run.visible)?;
    Some(Why::Paused { flow: RunRef::of(flow), pause: Pause::clone(&pause) })
}

/// The runs as people know them: in place of the expansion of a `map`, which nobody sees, what it waits for.
fn refs(mut runs: Vec<Arc<Run>>) -> RunRefs {
    let (mut seen, mut first, mut count) = (HashSet::new(), Vec::new(), 0);
    runs.reverse();
    while let Some(run) = runs.pop() {
        // Expansions that take each other's results lead to the same runs by very many ways.
        if !seen.insert(run.id()) {
            continue;
        }
        if !run.visible {
            runs.extend(run.active_upstreams().into_iter().rev());
            continue;
        }
        count += 1;
        if first.len() < RunRefs::SHOWN {
            first.push(RunRef::of(&run));
        }
    }
    RunRefs { first, count }
}

impl RunRef {
    fn of(run: &Run) -> Self {
        Self { run_id: run.id(), name: run.name().to_string(), state: run.state() }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.run_id {
            RunId::Task(_) => "task run",
            RunId::Flow(_) => "flow run",
        };
        write!(f, "{kind} '{}' ", self.name)?;
        self.why.say(f, self.run_id, &self.state)?;
        if let Some(budget) = &self.on_crash {
            write!(f, "; it {budget}")?;
        }
        if let Some(elsewhere) = &self.elsewhere {
            write!(f, "; it belongs to {elsewhere}")?;
        }
        self.tasks.as_ref().map_or(Ok(()), |tasks| write!(f, ". {tasks}"))?;
        self.flows.as_ref().map_or(Ok(()), |flows| write!(f, ". {flows}"))
    }
}

impl Why {
    /// What a run that is in that state does, as a sentence goes on that begins with its name.
    fn say(&self, f: &mut fmt::Formatter<'_>, run_id: RunId, state: &State) -> fmt::Result {
        match self {
            Why::Upstream(runs) => write!(f, "waits for {}", several(runs)),
            Why::Slots(limits) => write!(f, "waits for {}", joined(limits.iter().map(ToString::to_string))),
            Why::RetryAt { at, attempt } => write!(f, "waits until {} before attempt {attempt}", clock(*at)),
            Why::Paused { flow, pause } => {
                if flow.run_id != run_id {
                    write!(f, "waits for flow run '{}', which ", flow.name)?;
                }
                write!(f, "has been paused since {}", clock(pause.since))?;
                match pause.until {
                    Some(until) => write!(f, ", until somebody lets it on, at most until {}", clock(until))?,
                    None => f.write_str(", until somebody lets it on")?,
                }
                pause.message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            Why::FlowCapacity { flow, at_most } => {
                write!(
                    f,
                    "waits for its turn in flow run '{}', which runs at most {at_most} tasks at a time",
                    flow.name
                )
            }
            Why::Thread => f.write_str("waits for a thread of the blocking pool"),
            Why::Journal => f.write_str("waits for the store, which lags behind what was recorded"),
            Why::SameKey(run) => write!(f, "waits for {run} and computes the same cached result"),
            Why::SameKeyElsewhere { name, process, .. } => {
                write!(f, "waits for '{name}'{}, which computes the same cached result", of(process))
            }
            Why::Children(runs) => write!(f, "has run its body, and waits for {}", several(runs)),
            Why::Starting => f.write_str("waits for nothing, and begins in a moment"),
            Why::Running { since, attempt, slots } => {
                write!(f, "has been running attempt {attempt} since {}", clock(*since))?;
                match &**slots {
                    [] => Ok(()),
                    slots => write!(f, "; its body waits for {}", joined(slots.iter().map(ToString::to_string))),
                }
            }
            Why::Cancelling => f.write_str("was cancelled, and is about to end"),
            Why::Ended => match &state.message {
                Some(message) => write!(f, "ended as {}: {message}", state.name),
                None => write!(f, "ended as {}", state.name),
            },
            Why::Elsewhere => {
                write!(f, "is {} as far as is recorded", state.name)?;
                state.message.as_ref().map_or(Ok(()), |message| write!(f, " ({message})"))?;
                let is_due = matches!(state.kind, StateType::Pending) || state.scheduled_time.is_some();
                if is_due && run_id.as_task().is_some() { f.write_str(UNRECORDED) } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, pid, heard, stopped_until, lease_over, known_at: _ } = self;
        let own = crate::process::this_process();
        if own.pid == *pid && own.host == *host {
            f.write_str("another orchestrator of this process")?;
        } else {
            write!(f, "process {pid} on {host}")?;
        }
        if let Some(over) = lease_over {
            let heard = clock(heard.unwrap_or(*over));
            return write!(f, ", which has not been heard of since {heard} (its lease is over since {})", clock(*over));
        }
        if let Some(heard) = heard {
            write!(f, ", last heard of at {}", clock(*heard))?;
        }
        match stopped_until {
            Some(until) => {
                write!(f, ", which is stopped and counts as gone if it does not go on until {}", clock(*until))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}', which is {}", self.name, self.state.name)
    }
}

impl LimitWait {
    /// How many holders a sentence names.
    pub(crate) const NAMED: usize = 3;
}

impl fmt::Display for LimitWait {
    /// `a slot of limit 'db' (4 of 4 taken, 2 requests ahead of it), held by 'load-1' since 12:34:56`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            1 => f.write_str("a slot")?,
            wanted => write!(f, "{wanted} slots")?,
        }
        write!(f, " of limit '{}'", self.limit)?;
        if self.slots == 0 {
            return f.write_str(", which has none");
        }
        write!(f, " ({} of {} taken", self.taken, self.slots)?;
        if let Some(decay) = self.slot_decay {
            write!(f, ", {decay} come back each second")?;
        }
        let about = if self.is_about { "about " } else { "" };
        match self.ahead {
            0 => f.write_str(")")?,
            1 => write!(f, ", {about}1 request ahead of it)")?,
            ahead => write!(f, ", {about}{ahead} requests ahead of it)")?,
        }
        if self.holders.is_empty() {
            return Ok(());
        }
        let named = self.holders.iter().take(Self::NAMED).map(ToString::to_string);
        let rest = (self.holders.len() > Self::NAMED).then(|| "others".to_owned());
        write!(f, ", held by {}", joined(named.chain(rest)))
    }
}

impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "'{name}'")?,
            None => f.write_str("code outside of any run")?,
        }
        if let Some(process) = &self.process {
            f.write_str(&of(process))?;
        }
        write!(f, " since {}", clock(self.since))
    }
}

/// Whose something is that is not part of this orchestrator.
fn of(Process { host, pid, .. }: &Process) -> String {
    let own = crate::process::this_process();
    if own.host != *host {
        format!(" of process {pid} on {host}")
    } else if own.pid != *pid {
        format!(" of process {pid}")
    } else {
        " of another orchestrator of this process".to_owned()
    }
}

/// The first few of several runs.
fn several(runs: &RunRefs) -> String {
    const NAMED: usize = 3;
    match &*runs.first {
        [] => "runs that are about to end".to_owned(),
        [run] if runs.count == 1 => run.to_string(),
        first => {
            let named: Vec<_> =
                first.iter().take(NAMED).map(|run| format!("'{}' ({})", run.name, run.state.name)).collect();
            let rest = runs.count.saturating_sub(named.len());
            joined(named.into_iter().chain((rest > 0).then(|| format!("{rest} more"))))
        }
    }
}

/// `a, b and c`.
pub(crate) fn joined(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) }
}

/// The time of day here, as log lines have it; with the date if that is not today.
pub(crate) fn clock(time: DateTime<Utc>) -> impl fmt::Display {
    let (time, now) = (time.with_timezone(&Local), Local::now());
    time.format(if time.date_naive() == now.date_naive() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" })
}
