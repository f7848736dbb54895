//! The states of a run: the present one, and those that the journal has not been given.

use std::sync::Arc;

use crate::backend::record::Transitions;
use crate::clock::Timestamp;
use crate::state::{StateName, StateType, Transition};

/// Most runs have three states, of which the present one may have something to say: these are kept in place.
pub(super) struct Track {
    /// When the body was first started; the beginning of time if it was not.
    started: Timestamp,
    /// The last states, the present one at the end; where there is a long form, the present one alone.
    at: [Timestamp; 3],
    names: [StateName; 3],
    places: Places,
    /// How many states the journal has been given.
    next_seq: u32,
    more: More,
}

/// How many states are kept in place, and whether the journal has been given the first of them: in one byte, since a
/// track is to have no gap.
#[derive(Clone, Copy)]
struct Places(u8);

impl Places {
    const GIVEN: u8 = 4;

    const fn new(count: u8, given: bool) -> Self {
        Self(if given { count | Self::GIVEN } else { count })
    }

    const fn count(self) -> usize {
        (self.0 % Self::GIVEN) as usize
    }

    /// The first that the journal has not been given.
    const fn first_new(self) -> usize {
        (self.0 / Self::GIVEN) as usize
    }

    const fn last(self) -> usize {
        self.count() - 1
    }
}

/// What has no place among the last states.
enum More {
    /// What the present state has to say.
    Said(Arc<str>),
    Long(Option<Box<Long>>),
}

/// States that are too many, or have too much to say.
struct Long {
    /// What the present one has to say.
    said: Option<Arc<str>>,
    /// Of AwaitingRetry: when the next attempt begins.
    scheduled: Option<Timestamp>,
    /// What the journal has not been given: the present one is the last of them.
    staged: Vec<Transition>,
}

const NEVER: Timestamp = Timestamp::from_micros(i64::MIN);

impl Track {
    /// Of a run in that state, which the journal knows already if it was given as many states.
    pub(super) fn new(current: Transition, given: u32) -> Self {
        let Transition { name, at, message, scheduled } = current;
        let mut more = More::of(message, scheduled);
        if scheduled.is_some()
            && given == 0
            && let More::Long(Some(long)) = &mut more
        {
            long.staged.push(Transition { name, at, message: long.said.clone(), scheduled });
        }
        Self { started: NEVER, at: [at; 3], names: [name; 3], places: Places::new(1, given > 0), next_seq: given, more }
    }

    /// Of a run that was submitted then.
    #[inline]
    pub(super) const fn begin(at: Timestamp) -> Self {
        let names = [StateName::Pending; 3];
        Self { started: NEVER, at: [at; 3], names, places: Places::new(1, false), next_seq: 0, more: More::Long(None) }
    }

    pub(super) fn name(&self) -> StateName {
        self.names[self.places.last()]
    }

    /// Since when the run is in its present state.
    pub(super) fn since(&self) -> Timestamp {
        self.at[self.places.last()]
    }

    pub(super) fn current(&self) -> Transition {
        let message = match &self.more {
            More::Said(said) => Some(Arc::clone(said)),
            More::Long(None) => None,
            More::Long(Some(long)) => long.said.clone(),
        };
        let scheduled = if let More::Long(Some(long)) = &self.more { long.scheduled } else { None };
        Transition { message, scheduled, ..self.plain(self.places.last()) }
    }

    fn plain(&self, place: usize) -> Transition {
        Transition::new(self.names[place], self.at[place])
    }

    /// Those from that place on, which have nothing to say. It is the first, or the one after it.
    fn plain_from(&self, first: usize) -> Transitions {
        let (mut names, mut at) = (self.names, self.at);
        if first > 0 {
            (names, at) = ([names[1], names[2], names[2]], [at[1], at[2], at[2]]);
        }
        let count = self.places.count().saturating_sub(first);
        Transitions::plain(names, at, u8::try_from(count).expect("they are three at most"))
    }

    pub(super) fn started(&self) -> Option<Timestamp> {
        Some(self.started).filter(|started| *started != NEVER)
    }

    pub(super) fn start(&mut self, at: Timestamp) {
        if self.started == NEVER {
            self.started = at;
        }
    }

    /// Enters a state that has nothing to say, if there is a place for it.
    #[inline]
    pub(super) fn enter_plain(&mut self, name: StateName, at: Timestamp) -> bool {
        let place = self.places.count();
        let has_place = place < 3 && matches!(self.more, More::Long(None));
        if has_place {
            if name.kind() == StateType::Running {
                self.start(at);
            }
            (self.at[place], self.names[place]) = (at, name);
            self.places.0 += 1;
        }
        has_place
    }

    /// Enters a state.
    pub(super) fn enter(&mut self, transition: Transition) {
        if transition.name.kind() == StateType::Running {
            self.start(transition.at);
        }
        if let More::Long(Some(long)) = &mut self.more {
            (self.at[0], self.names[0]) = (transition.at, transition.name);
            self.places = Places::new(1, false);
            (long.said, long.scheduled) = (transition.message.clone(), transition.scheduled);
            long.staged.push(transition);
            return;
        }
        let (count, first_new) = (self.places.count(), self.places.first_new());
        let is_full = count == 3 && first_new == 0;
        // What the present state has to say is still to be told.
        let would_forget = matches!(self.more, More::Said(_)) && first_new < count;
        if is_full || would_forget || transition.scheduled.is_some() {
            let current = self.has_staged().then(|| self.current());
            let before = (first_new..self.places.last()).map(|place| self.plain(place));
            let (said, scheduled) = (transition.message.clone(), transition.scheduled);
            let (at, name) = (transition.at, transition.name);
            let staged = before.chain(current).chain([transition]).collect();
            self.stand(at, name, false, More::Long(Some(Box::new(Long { said, scheduled, staged }))));
            return;
        }
        let place = if count == 3 {
            self.at.rotate_left(1);
            self.names.rotate_left(1);
            self.places = Places::new(3, false);
            2
        } else {
            self.places.0 += 1;
            count
        };
        (self.at[place], self.names[place]) = (transition.at, transition.name);
        self.more = More::of(transition.message, None);
    }

    /// From now on this is the only state that is kept.
    fn stand(&mut self, at: Timestamp, name: StateName, given: bool, more: More) {
        (self.at[0], self.names[0]) = (at, name);
        self.places = Places::new(1, given);
        self.more = more;
    }

    /// Enters a state that the journal knows already.
    pub(super) fn reveal(&mut self, transition: Transition) {
        self.stand(transition.at, transition.name, true, More::of(transition.message, transition.scheduled));
    }

    /// Whether the journal has been given nothing.
    pub(super) fn is_unknown(&self) -> bool {
        self.next_seq == 0
    }

    pub(super) fn has_staged(&self) -> bool {
        self.places.first_new() < self.places.count()
    }

    /// All states, if the journal has been given none of them, they are few and have nothing to say.
    pub(super) fn brief(&self) -> Option<(&[StateName; 3], &[Timestamp; 3], u8)> {
        let is_brief = self.is_unknown() && matches!(self.more, More::Long(None));
        is_brief.then_some((&self.names, &self.at, self.places.0 % Places::GIVEN))
    }

    /// The journal has been given what [`brief`](Self::brief) says.
    pub(super) fn told_briefly(&mut self) {
        let last = self.places.last();
        self.next_seq = u32::from(self.places.0 % Places::GIVEN);
        self.stand(self.at[last], self.names[last], true, More::Long(None));
    }

    /// What the journal has not been given, and `further` if there is another state to tell of, with the number of the
    /// first.
    pub(super) fn take_staged(&mut self, further: Option<Transition>) -> (u32, Transitions) {
        let (first, last) = (self.places.first_new(), self.places.last());
        let (at, name) = (self.at[last], self.names[last]);
        let staged = match &mut self.more {
            More::Long(None) => {
                let mut staged = self.plain_from(first);
                if let Some(further) = further {
                    staged.push(further);
                }
                self.stand(at, name, true, More::Long(None));
                staged
            }
            More::Long(Some(long)) => {
                let (said, staged) = (long.said.take(), std::mem::take(&mut long.staged));
                let scheduled = long.scheduled;
                self.stand(at, name, true, More::of(said, scheduled));
                staged.into_iter().chain(further).collect()
            }
            More::Said(said) => {
                let said = Arc::clone(said);
                let current = self.has_staged().then(|| self.current());
                let before = (first..last).map(|place| self.plain(place));
                let staged = before.chain(current).chain(further).collect();
                self.stand(at, name, true, More::Said(said));
                staged
            }
        };
        let first_seq = self.next_seq;
        self.next_seq += u32::try_from(staged.len()).expect("a run has fewer than four billion states");
        (first_seq, staged)
    }
}

impl More {
    fn of(said: Option<Arc<str>>, scheduled: Option<Timestamp>) -> Self {
        match (said, scheduled) {
            (None, None) => Self::Long(None),
            (Some(said), None) => Self::Said(said),
            (said, Some(_)) => Self::Long(Some(Box::new(Long { said, scheduled, staged: Vec::new() }))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(StateName, bool, bool),
        Take,
        TakeBriefly,
        Propose(StateName),
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = prop::sample::select(&StateName::ALL[..]);
        prop_oneof![
            4 => (name.clone(), prop::bool::weighted(0.2), prop::bool::weighted(0.2))
                .prop_map(|(name, says, is_due)| Step::Enter(name, says, is_due)),
            2 => Just(Step::Take),
            2 => Just(Step::TakeBriefly),
            1 => name.prop_map(Step::Propose),
        ]
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn it_has_no_gap() {
        assert_eq!(size_of::<Track>(), 56);
    }

    proptest! {
        /// Whatever the form, the states are those that were entered, each given out once and in order.
        #[test]
        fn nothing_is_lost_and_nothing_is_told_twice(
            steps in prop::collection::vec(step(), 0..24),
            says in any::<bool>(),
            is_due in any::<bool>(),
        ) {
            let transition = |name, at, says: bool| Transition {
                message: says.then(|| "said".into()),
                ..Transition::new(name, Timestamp::from_micros(at))
            };
            let scheduled = is_due.then(|| Timestamp::from_micros(60));
            let first = Transition { scheduled, ..transition(StateName::Pending, 0, says) };
            let mut track = Track::new(first.clone(), 0);
            let (mut expected, mut given, mut started) = (vec![first], Vec::new(), None);
            for (at, step) in (1..).zip(steps) {
                match step {
                    Step::Enter(name, says, is_due) => {
                        let scheduled = is_due.then(|| Timestamp::from_micros(at + 60));
                        let entered = Transition { scheduled, ..transition(name, at, says) };
                        if name.kind() == StateType::Running {
                            started.get_or_insert(entered.at);
                        }
                        if !(entered.is_plain() && track.enter_plain(name, entered.at)) {
                            track.enter(entered.clone());
                        }
                        expected.push(entered);
                    }
                    Step::Take => {
                        let (seq, staged) = track.take_staged(None);
                        prop_assert_eq!(seq as usize, given.len());
                        given.extend(staged.iter());
                        prop_assert_eq!(&given, &expected);
                        prop_assert!(!track.has_staged());
                    }
                    Step::TakeBriefly => {
                        let Some((names, at, count)) = track.brief() else { continue };
                        given.extend(Transitions::plain(*names, *at, count).iter());
                        track.told_briefly();
                        prop_assert_eq!(&given, &expected);
                        prop_assert!(!track.has_staged() && track.brief().is_none());
                    }
                    Step::Propose(name) => {
                        let proposed = transition(name, at, false);
                        let before = track.current();
                        given.extend(track.take_staged(Some(proposed.clone())).1.iter());
                        prop_assert_eq!(track.current(), before);
                        track.reveal(proposed.clone());
                        expected.push(proposed);
                        prop_assert_eq!(&given, &expected);
                    }
                }
                let last = expected.last().expect("there is one");
                prop_assert_eq!(&track.current(), last);
                prop_assert_eq!((track.name(), track.since()), (last.name, last.at));
                prop_assert_eq!(track.started(), started);
                prop_assert_eq!(track.has_staged(), given.len() < expected.len());
            }
        }
    }
}
