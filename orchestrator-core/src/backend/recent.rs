//! What task runs did of which little is to be told and nobody has asked for yet, in a process that keeps history in memory.
//!
//! Of most task runs one event would tell all, and little of it differs from the one before. So the engine puts down a row
//! of a quarter of the size, where what many rows have in common stands beside them once, and the event is made when somebody
//! asks. It is the first event of its run, so what else is known of the run may come after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::record::{CacheLook, Event, Process, RunEvent, RunIds, RunInfo, SharedList, Transitions};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::StateName;

/// What the engine puts down of task runs, of most of them when they have ended, for a backend in the same process that takes it
/// out when somebody asks. What comes of such a run later it is given as an event.
///
/// ```
/// use orchestrator_core::backend::RecentRuns;
///
/// let recent = RecentRuns::default();
/// assert_eq!(recent.take().count(), 0);
/// ```
#[derive(Debug, Default)]
pub struct RecentRuns {
    /// In the order in which they came. All pieces but the last are full.
    pieces: Mutex<Vec<Piece>>,
}

/// What there is to know of a run by now, as its first event would tell it.
pub(crate) struct Told<'a> {
    pub(crate) id: RunId,
    pub(crate) def: &'static Def,
    pub(crate) given_name: Option<&'a Arc<str>>,
    pub(crate) index: u32,
    pub(crate) parent: Option<RunId>,
    pub(crate) flow_run: Option<FlowRunId>,
    pub(crate) tags: &'a SharedList<Box<str>>,
    pub(crate) upstream: &'a RunIds,
    pub(crate) process: &'static Process,
    /// All its states, when each was entered, and how many of these there are, if they are few and have nothing to say.
    pub(crate) states: Option<(&'a [StateName; STATES], &'a [Timestamp; STATES], u8)>,
    pub(crate) run_count: u32,
    pub(crate) cache: Option<&'a Arc<CacheLook>>,
}

impl<'a> Told<'a> {
    fn of(event: &'a Event) -> Option<Self> {
        let Event::Run(RunEvent { run, first_seq, transitions, run_count, cache }) = event else { return None };
        let RunInfo { id, def, given_name, index, parent, flow_run, tags, upstream, process } = run;
        Some(Self {
            id: *id,
            def,
            given_name: given_name.as_ref(),
            index: *index,
            parent: *parent,
            flow_run: *flow_run,
            tags,
            upstream,
            process,
            states: transitions.in_place().filter(|_| *first_seq == 0),
            run_count: *run_count,
            cache: cache.as_ref(),
        })
    }
}

/// So many rows together.
#[derive(Debug, Default)]
struct Piece {
    rows: Vec<Row>,
    families: Vec<Family>,
    /// The number of that of the last row.
    last: u16,
    /// Of the rows that say so, in their order.
    upstreams: Vec<RunId>,
}

/// How many rows are kept together.
const PIECE: usize = 1024;
/// So many families are looked at for one that fits: tasks that are called in turns have one each.
const LOOKED_AT: usize = 8;

/// What was new about a task run, and all there is to know of it.
#[derive(Debug)]
struct Row {
    id: TaskRunId,
    /// Its first state began then.
    created: Timestamp,
    /// So many microseconds later did the others.
    later: [i32; STATES - 1],
    index: u32,
    run_count: u32,
    family: u16,
    states: [StateName; STATES],
    count: u8,
    /// Whether it has one upstream run; it has no others.
    has_upstream: bool,
}

const STATES: usize = Transitions::IN_PLACE;

/// What runs have in common that one body calls.
#[derive(Debug)]
struct Family {
    def: &'static Def,
    parent: Option<RunId>,
    flow_run: Option<FlowRunId>,
    tags: SharedList<Box<str>>,
    process: &'static Process,
}

impl Family {
    fn of(run: &Told<'_>) -> Self {
        let Told { def, parent, flow_run, tags, process, .. } = *run;
        Self { def, parent, flow_run, tags: tags.clone(), process }
    }

    fn is_of(&self, run: &Told<'_>) -> bool {
        std::ptr::eq(self.def, run.def)
            && std::ptr::eq(self.process, run.process)
            && self.tags.is(run.tags)
            && self.parent == run.parent
            && self.flow_run == run.flow_run
    }
}

impl RecentRuns {
    /// Puts a run down; says whether it fits into a row.
    #[inline]
    pub(crate) fn put(&self, run: &Told<'_>) -> bool {
        // Without the lock.
        let row = Row::of(run);
        row.is_some_and(|row| {
            put(&mut self.pieces(), row, run);
            true
        })
    }

    /// Puts down what the events tell, as far as they are about task runs of which there is no more to know, and takes those out of
    /// the list.
    pub(crate) fn take_from(&self, events: &mut Vec<Event>) {
        let mut pieces = self.pieces();
        events.retain(|event| {
            let told = Told::of(event).and_then(|run| Some((Row::of(&run)?, run)));
            told.map(|(row, run)| put(&mut pieces, row, &run)).is_none()
        });
    }

    /// Takes all out, each run as the first event that tells of it. What is known beside them, and was taken before, comes after
    /// them.
    pub fn take(&self) -> impl Iterator<Item = Event> + use<> {
        std::mem::take(&mut *self.pieces()).into_iter().flat_map(Piece::into_events)
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[inline]
fn put(pieces: &mut Vec<Piece>, row: Row, run: &Told<'_>) {
    if pieces.last().is_none_or(|last| last.rows.len() >= PIECE) {
        begin_piece(pieces);
    }
    if let Some(last) = pieces.last_mut() {
        last.put(row, run);
    }
}

#[cold]
fn begin_piece(pieces: &mut Vec<Piece>) {
    // Most flows have fewer tasks.
    let rows = Vec::with_capacity(if pieces.is_empty() { 0 } else { PIECE });
    pieces.push(Piece { rows, ..Piece::default() });
}

impl Piece {
    #[inline]
    fn put(&mut self, row: Row, run: &Told<'_>) {
        let family = self.family(run);
        self.upstreams.extend(run.upstream.first());
        self.rows.push(Row { family, ..row });
    }

    /// The number of the run's family.
    #[inline]
    fn family(&mut self, run: &Told<'_>) -> u16 {
        // Mostly it is that of the run before.
        if self.families.get(usize::from(self.last)).is_none_or(|last| !last.is_of(run)) {
            self.last = self.find_family(run);
        }
        self.last
    }

    #[cold]
    fn find_family(&mut self, run: &Told<'_>) -> u16 {
        let mut last = self.families.iter().enumerate().rev().take(LOOKED_AT);
        let number = last.find(|(_, family)| family.is_of(run)).map(|(number, _)| number);
        let number = number.unwrap_or_else(|| {
            self.families.push(Family::of(run));
            self.families.len() - 1
        });
        u16::try_from(number).expect("there are no more families than rows")
    }

    fn into_events(self) -> impl Iterator<Item = Event> {
        let Self { rows, families, last: _, upstreams } = self;
        let mut upstreams = upstreams.into_iter();
        rows.into_iter().map(move |row| {
            let upstream = row.has_upstream.then(|| upstreams.next().expect("a row that says so has one"));
            row.into_event(&families, upstream)
        })
    }
}

impl Row {
    /// The row of a task run, if that tells all there is to know of it. The family is still to be found.
    #[inline]
    fn of(run: &Told<'_>) -> Option<Self> {
        let Told { id: RunId::Task(id), given_name: None, states: Some((states, at, count)), cache: None, .. } = *run
        else {
            return None;
        };
        let upstream = run.upstream.at_most_one()?;
        let [created, later @ ..] = at;
        let further = usize::from(count).checked_sub(1)?;
        let mut since = [0; STATES - 1];
        for (since, at) in since.iter_mut().zip(&later[..further]) {
            *since = i32::try_from(at.as_micros().checked_sub(created.as_micros())?).ok()?;
        }
        Some(Self {
            id,
            created: *created,
            later: since,
            index: run.index,
            run_count: run.run_count,
            family: 0,
            states: *states,
            count,
            has_upstream: upstream.is_some(),
        })
    }

    fn into_event(self, families: &[Family], upstream: Option<RunId>) -> Event {
        let Self { id, created, later, index, run_count, family, states, count, has_upstream: _ } = self;
        let Family { def, parent, flow_run, ref tags, process } = families[usize::from(family)];
        let mut at = [created; STATES];
        for (at, later) in at[1..].iter_mut().zip(later) {
            *at = Timestamp::from_micros(created.as_micros() + i64::from(later));
        }
        let run = RunInfo {
            id: RunId::Task(id),
            def,
            given_name: None,
            index,
            parent,
            flow_run,
            tags: tags.clone(),
            upstream: upstream.map(RunIds::one).unwrap_or_default(),
            process,
        };
        let transitions = Transitions::plain(states, at, count);
        Event::Run(RunEvent { run, first_seq: 0, transitions, run_count, cache: None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::record::LogRecord;
    use crate::state::Transition;

    static TASKS: [Def; 2] = [Def::task("one", "tests::one"), Def::task("other", "tests::other")];

    fn process() -> &'static Process {
        static PROCESS: std::sync::LazyLock<Process> = std::sync::LazyLock::new(|| Process {
            host: "here".to_owned(),
            pid: 1,
            namespace: 0,
            started: 0,
            session: 0,
        });
        &PROCESS
    }

    fn id(n: i64) -> RunId {
        RunId::Task(TaskRunId::new(Timestamp::from_micros(n)))
    }

    /// One of few, so that families come again.
    fn info() -> impl Strategy<Value = RunInfo> {
        let tags = [SharedList::default(), vec!["nightly".into()].into(), vec!["hourly".into()].into()];
        let flows = [None, Some(FlowRunId::new(Timestamp::from_micros(5)))];
        (
            0..2_usize,
            0..3_usize,
            0..2_usize,
            any::<u32>(),
            0..4_usize,
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.1),
        )
            .prop_map(move |(def, tag, flow, index, upstreams, is_named, is_flow)| RunInfo {
                id: if is_flow { RunId::Flow(FlowRunId::new(Timestamp::from_micros(7))) } else { id(7) },
                def: &TASKS[def],
                given_name: is_named.then(|| "a name".into()),
                index,
                parent: flows[flow].map(RunId::Flow),
                flow_run: flows[flow],
                tags: tags[tag].clone(),
                upstream: (0..upstreams).map(|n| id(n as i64)).collect::<Vec<_>>().into(),
                process: process(),
            })
    }

    fn transition() -> impl Strategy<Value = Transition> {
        let at = prop_oneof![0..1_000_000_i64, any::<i64>()];
        (prop::sample::select(&StateName::ALL[..]), at, prop::bool::weighted(0.05)).prop_map(|(name, at, says)| {
            Transition { message: says.then(|| "said".into()), ..Transition::new(name, Timestamp::from_micros(at)) }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        let first_seq = prop_oneof![4 => Just(0), 1 => any::<u32>()];
        let run = (info(), first_seq, prop::collection::vec(transition(), 0..5), any::<u32>());
        let run = run.prop_map(|(run, first_seq, transitions, run_count)| {
            let transitions = transitions.into_iter().collect();
            Event::Run(RunEvent { run, first_seq, transitions, run_count, cache: None })
        });
        let line = any::<u16>().prop_map(|n| {
            let (target, message) = ("tests".to_owned(), n.to_string());
            Event::Log(LogRecord { run: id(1), at: Timestamp::from_micros(n.into()), level: "INFO", target, message })
        });
        prop_oneof![8 => run, 1 => line]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What comes out is what was put in, in its order.
        #[test]
        fn nothing_is_lost(events in prop::collection::vec(event(), 0..3000)) {
            let recent = RecentRuns::default();
            let takes = |event: &Event| Told::of(event).is_some_and(|run| recent.put(&run));
            let put_in: Vec<_> = events.iter().filter(|event| takes(event)).map(|event| format!("{event:?}")).collect();
            prop_assert_eq!(recent.take().map(|event| format!("{event:?}")).collect::<Vec<_>>(), put_in);
        }

        /// What is taken out of a list of events comes out again, and the others stay in it.
        #[test]
        fn each_event_is_in_one_place(mut events in prop::collection::vec(event(), 0..300)) {
            let recent = RecentRuns::default();
            let mut before: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
            recent.take_from(&mut events);
            let mut after: Vec<_> = recent.take().chain(events).map(|event| format!("{event:?}")).collect();
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }

        /// What fits into a row is the first event of a task run.
        #[test]
        fn what_fits_comes_first(event in event()) {
            let is_first = matches!(&event, Event::Run(RunEvent { run, first_seq: 0, .. }) if run.id.as_task().is_some());
            prop_assert!(is_first || Told::of(&event).is_none_or(|run| Row::of(&run).is_none()));
        }
    }

    #[test]
    fn a_row_is_short() {
        assert_eq!((size_of::<Row>(), size_of::<Event>() / size_of::<Row>()), (48, 3));
    }
}
