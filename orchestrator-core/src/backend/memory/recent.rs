//! What nobody has asked for yet.
//!
//! Of most task runs one event tells all, and little of it differs from the one before: such an event is a short row, a
//! quarter of its size, and what many rows have in common stands beside them once. It is the first event of its run,
//! so what else is known of the run may come after it.

use crate::backend::record::{Event, Process, RunEvent, RunIds, RunInfo, SharedList, Transitions};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::StateName;

/// Events, nearly in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Those that are short. All pieces but the last are full.
    pieces: Vec<Piece>,
    /// The others, so many together as well.
    others: Vec<Vec<Event>>,
}

/// So many short events together.
#[derive(Debug, Default)]
struct Piece {
    rows: Vec<Row>,
    families: Vec<Family>,
    /// The number of that of the last row.
    last: u16,
    /// Of the rows that say so, in their order.
    upstreams: Vec<RunId>,
}

/// How many events are kept together.
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
    fn of(run: &RunInfo) -> Self {
        let RunInfo { def, parent, flow_run, ref tags, process, .. } = *run;
        Self { def, parent, flow_run, tags: tags.clone(), process }
    }

    fn is_of(&self, run: &RunInfo) -> bool {
        std::ptr::eq(self.def, run.def)
            && std::ptr::eq(self.process, run.process)
            && self.tags.is(&run.tags)
            && self.parent == run.parent
            && self.flow_run == run.flow_run
    }
}

impl Recent {
    /// Takes the event if it is short.
    #[inline]
    pub(super) fn takes(&mut self, event: &Event) -> bool {
        if self.pieces.last().is_none_or(|last| last.rows.len() >= PIECE) {
            self.begin_piece();
        }
        self.pieces.last_mut().is_some_and(|last| last.takes(event).is_some())
    }

    /// Takes others, in their order.
    pub(super) fn take_others(&mut self, others: &mut Vec<Event>) {
        match self.others.last_mut() {
            _ if others.is_empty() => {}
            Some(last) if last.len() + others.len() <= PIECE => last.append(others),
            Some(_) | None => self.others.push(std::mem::take(others)),
        }
    }

    #[cold]
    fn begin_piece(&mut self) {
        // Most flows have fewer tasks.
        let rows = Vec::with_capacity(if self.pieces.is_empty() { 0 } else { PIECE });
        self.pieces.push(Piece { rows, ..Piece::default() });
    }

    /// All events; those of one run in their order.
    pub(super) fn into_events(self) -> impl Iterator<Item = Event> {
        self.pieces.into_iter().flat_map(Piece::into_events).chain(self.others.into_iter().flatten())
    }
}

impl Piece {
    /// Takes the event, if it fits into a row.
    #[inline]
    fn takes(&mut self, event: &Event) -> Option<()> {
        let Event::Run(RunEvent { run, first_seq: 0, transitions, run_count, cache: None }) = event else {
            return None;
        };
        let RunInfo { id: RunId::Task(id), given_name: None, index, upstream, .. } = run else { return None };
        let (states, [created, later @ ..], count) = transitions.in_place()?;
        let further = usize::from(count).checked_sub(1)?;
        let mut since = [0; STATES - 1];
        for (since, at) in since.iter_mut().zip(&later[..further]) {
            *since = i32::try_from(at.as_micros().checked_sub(created.as_micros())?).ok()?;
        }
        let upstream = match **upstream {
            [] => None,
            [upstream] => Some(upstream),
            _ => return None,
        };
        let family = self.family(run);
        self.upstreams.extend(upstream);
        self.rows.push(Row {
            id: *id,
            created: *created,
            later: since,
            index: *index,
            run_count: *run_count,
            family,
            states: *states,
            count,
            has_upstream: upstream.is_some(),
        });
        Some(())
    }

    /// The number of the run's family.
    #[inline]
    fn family(&mut self, run: &RunInfo) -> u16 {
        // Mostly it is that of the run before.
        if self.families.get(usize::from(self.last)).is_none_or(|last| !last.is_of(run)) {
            self.last = self.find_family(run);
        }
        self.last
    }

    #[cold]
    fn find_family(&mut self, run: &RunInfo) -> u16 {
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

        /// What comes out is what was put in; in its order but for those that are short, which come first.
        #[test]
        fn nothing_is_lost(events in prop::collection::vec(event(), 0..3000)) {
            let mut recent = Recent::default();
            let (short, mut others): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| recent.takes(event));
            let put_in: Vec<_> = short.iter().chain(&others).map(|event| format!("{event:?}")).collect();
            recent.take_others(&mut others);
            prop_assert_eq!(recent.into_events().map(|event| format!("{event:?}")).collect::<Vec<_>>(), put_in);
        }

        /// What is short is the first event of a task run.
        #[test]
        fn what_is_short_comes_first(event in event()) {
            let is_first = matches!(&event, Event::Run(RunEvent { run, first_seq: 0, .. }) if run.id.as_task().is_some());
            prop_assert!(is_first || !Recent::default().takes(&event));
        }
    }

    #[test]
    fn a_row_is_short() {
        assert_eq!((size_of::<Row>(), size_of::<Event>() / size_of::<Row>()), (48, 3));
    }
}
