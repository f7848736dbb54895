//! The states of a run: the present one, and those that the journal has not been given.

use crate::backend::record::Transitions;
use crate::clock::Timestamp;
use crate::state::{StateName, StateType, Transition};

/// Most runs have three states with nothing to say about them, which are kept in place.
pub(super) struct Track {
    /// When the body was first started; the beginning of time if it was not.
    started: Timestamp,
    /// The last states, the present one at the end: of no account where there is a long form.
    at: [Timestamp; 3],
    names: [StateName; 3],
    count: u8,
    /// Whether the journal has been given the first of them.
    given: bool,
    /// How many states the journal has been given.
    next_seq: u32,
    long: Option<Box<Long>>,
}

/// States that have something to say, or are too many.
struct Long {
    current: Transition,
    staged: Vec<Transition>,
}

const NEVER: Timestamp = Timestamp::from_micros(i64::MIN);

impl Track {
    /// Of a run in that state, which the journal knows already if it was given as many states.
    pub(super) fn new(current: Transition, given: u32) -> Self {
        let mut track = Self {
            started: NEVER,
            at: [current.at; 3],
            names: [current.name; 3],
            count: 1,
            given: given > 0,
            next_seq: given,
            long: None,
        };
        if current.message.is_some() {
            let staged = if given > 0 { Vec::new() } else { vec![current.clone()] };
            track.long = Some(Box::new(Long { current, staged }));
        }
        track
    }

    fn last(&self) -> usize {
        usize::from(self.count) - 1
    }

    pub(super) fn name(&self) -> StateName {
        self.long.as_ref().map_or(self.names[self.last()], |long| long.current.name)
    }

    /// Since when the run is in its present state.
    pub(super) fn since(&self) -> Timestamp {
        self.long.as_ref().map_or(self.at[self.last()], |long| long.current.at)
    }

    pub(super) fn current(&self) -> Transition {
        match &self.long {
            Some(long) => long.current.clone(),
            None => self.plain(self.last()),
        }
    }

    fn plain(&self, place: usize) -> Transition {
        Transition { name: self.names[place], at: self.at[place], message: None }
    }

    pub(super) fn started(&self) -> Option<Timestamp> {
        Some(self.started).filter(|started| *started != NEVER)
    }

    pub(super) fn start(&mut self, at: Timestamp) {
        if self.started == NEVER {
            self.started = at;
        }
    }

    /// Enters a state.
    pub(super) fn enter(&mut self, transition: Transition) {
        if transition.name.kind() == StateType::Running {
            self.start(transition.at);
        }
        if self.long.is_none() && (transition.message.is_some() || (self.count == 3 && !self.given)) {
            let staged = (usize::from(self.given)..=self.last()).map(|place| self.plain(place)).collect();
            self.long = Some(Box::new(Long { current: self.current(), staged }));
        }
        if let Some(long) = &mut self.long {
            long.current = transition.clone();
            long.staged.push(transition);
            return;
        }
        if self.count == 3 {
            self.at.rotate_left(1);
            self.names.rotate_left(1);
            self.count = 2;
            self.given = false;
        }
        self.count += 1;
        let last = self.last();
        (self.at[last], self.names[last]) = (transition.at, transition.name);
    }

    /// Enters a state that the journal knows already.
    pub(super) fn reveal(&mut self, transition: Transition) {
        match &mut self.long {
            Some(long) => long.current = transition,
            None => {
                (self.at[0], self.names[0]) = (transition.at, transition.name);
                (self.count, self.given) = (1, true);
            }
        }
    }

    /// Whether the journal has been given nothing.
    pub(super) fn is_unknown(&self) -> bool {
        self.next_seq == 0
    }

    pub(super) fn has_staged(&self) -> bool {
        self.long.as_ref().map_or(self.count > u8::from(self.given), |long| !long.staged.is_empty())
    }

    /// What the journal has not been given, and `further` if there is another state to tell of, with the number of the
    /// first.
    pub(super) fn take_staged(&mut self, further: Option<Transition>) -> (u32, Transitions) {
        let staged = match &mut self.long {
            Some(long) => std::mem::take(&mut long.staged).into_iter().chain(further).collect(),
            None => {
                let (first, last) = (usize::from(self.given), self.last());
                let mut staged = Transitions::plain(&self.names[first..=last], &self.at[first..=last]);
                (self.at[0], self.names[0]) = (self.at[last], self.names[last]);
                (self.count, self.given) = (1, true);
                if let Some(further) = further {
                    staged.push(further);
                }
                staged
            }
        };
        let first_seq = self.next_seq;
        self.next_seq += u32::try_from(staged.len()).expect("a run has fewer than four billion states");
        (first_seq, staged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(StateName, bool),
        Take,
        Propose(StateName),
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = prop::sample::select(&StateName::ALL[..]);
        prop_oneof![
            4 => (name.clone(), prop::bool::weighted(0.2)).prop_map(|(name, says)| Step::Enter(name, says)),
            2 => Just(Step::Take),
            1 => name.prop_map(Step::Propose),
        ]
    }

    proptest! {
        /// Whatever the form, the states are those that were entered, each given out once and in order.
        #[test]
        fn nothing_is_lost_and_nothing_is_told_twice(steps in prop::collection::vec(step(), 0..24), says in any::<bool>()) {
            let transition = |name, at, says: bool| Transition {
                name,
                at: Timestamp::from_micros(at),
                message: says.then(|| "said".into()),
            };
            let first = transition(StateName::Pending, 0, says);
            let mut track = Track::new(first.clone(), 0);
            let (mut expected, mut given, mut started) = (vec![first], Vec::new(), None);
            for (at, step) in (1..).zip(steps) {
                match step {
                    Step::Enter(name, says) => {
                        let entered = transition(name, at, says);
                        if name.kind() == StateType::Running {
                            started.get_or_insert(entered.at);
                        }
                        track.enter(entered.clone());
                        expected.push(entered);
                    }
                    Step::Take => {
                        let (seq, staged) = track.take_staged(None);
                        prop_assert_eq!(seq as usize, given.len());
                        given.extend(staged.iter());
                        prop_assert_eq!(&given, &expected);
                        prop_assert!(!track.has_staged());
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
